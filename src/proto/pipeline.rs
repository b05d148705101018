//! The commands of a transaction and the chunks of a message, each written as soon as it may be.

use super::data::OutgoingMessage;
use super::encode::Command;
use super::queue::PendingReply;
use super::transaction::{FinalReplies, Framing, Next, TransactionState};
use super::{Capabilities, Content, Event, Machine, Phase, Protocol, Reply, State, Stuffer};

impl Machine {
    /// Writes as much of the transaction as may be written now: everything up to DATA at once if
    /// the server offers PIPELINING, else one command after each reply.
    pub(super) fn advance(&mut self) {
        if self.state == State::Body {
            if self.framing() == Framing::Chunks {
                self.flush_chunks();
            }
            return;
        }
        let pipelining = self.capabilities.offers("PIPELINING");
        while self.state == State::Transaction
            && (pipelining || self.wire.queue.is_empty())
            && self.send_next()
        {}
    }

    /// Writes the next command of the transaction, if it may be written, and says whether it did.
    fn send_next(&mut self) -> bool {
        let Some(state) = self.transactions.back_mut() else {
            return false;
        };
        if state.next != Next::Done
            && let Some((phase, reply)) = state.refusal()
        {
            // The replies to what was sent are awaited first.
            if self.wire.queue.is_empty() {
                let reply = reply.clone();
                self.end_transaction(phase, reply);
            }
            return false;
        }
        let awaits_mail = state.transaction.await_sender && state.mail_reply.is_none();
        match state.next {
            Next::Mail => self.send_mail(),
            Next::Rcpt(_) if awaits_mail => return false,
            Next::Rcpt(index) if index < state.transaction.recipients.len() => {
                self.send_rcpt(index);
            }
            Next::Rcpt(_) if state.complete => return self.send_data(),
            Next::Rcpt(_) | Next::Done => return false,
        }
        true
    }

    fn send_mail(&mut self) {
        let Some(state) = self.transactions.back_mut() else {
            return;
        };
        state.next = Next::Rcpt(0);
        state.final_replies = state
            .transaction
            .final_replies(self.settings.protocol, &self.capabilities);
        let command = mail_command(state, &self.capabilities);
        self.wire.push(command, PendingReply::Mail);
    }

    fn send_rcpt(&mut self, index: usize) {
        let Some(state) = self.transactions.back_mut() else {
            return;
        };
        state.next = Next::Rcpt(index + 1);
        let command = Command::Rcpt {
            recipient: &state.transaction.recipients[index],
            utf8: state.utf8,
            delivery: &state.transaction.delivery,
        };
        self.wire.push(command, PendingReply::Rcpt(index));
    }

    /// Writes DATA, or opens the message that goes in chunks without it. Says whether it did.
    fn send_data(&mut self) -> bool {
        // The end also waits for a message before it that is withdrawn and without its outcome: the
        // last one before it, or one for which that waits, whose end is held back.
        let last_before = self.transactions.iter().rev().nth(1);
        let is_after_withdrawn = last_before.is_some_and(|state| state.is_withdrawn);
        let Some(state) = self.transactions.back_mut() else {
            return false;
        };
        state.is_end_held =
            state.transaction.hand_over || self.wire.is_holding() || is_after_withdrawn;
        let framing = state.best_framing(&self.capabilities);
        // Of many bytes that no recipient will get, none should be sent.
        let waits = state.transaction.all_or_nothing || framing == Framing::Chunks;
        if waits && !state.all_answered() {
            return false;
        }
        (state.next, state.framing) = (Next::Done, framing);
        let stuffer = match state.transaction.content {
            Content::Binary => Stuffer::verbatim(),
            _ => Stuffer::without_dots(),
        };
        match framing {
            Framing::Data => {
                self.wire.push(Command::Data, PendingReply::Data);
                return true;
            }
            Framing::Chunk(size) => self.wire.push(
                Command::BdatLast(size),
                PendingReply::EndOfData { begins_at: 0 },
            ),
            Framing::HeldChunk(_) | Framing::Chunks => {}
        }
        self.message = OutgoingMessage::new(stuffer);
        self.state = State::Body;
        true
    }

    /// Writes the chunks that are full. They all have one size, however the message was given.
    pub(super) fn flush_chunks(&mut self) {
        let size = self.settings.chunk_size.max(1);
        while self.message.chunk_len() >= size && self.can_send_chunk() {
            self.wire
                .push(Command::Bdat(size as u64), PendingReply::Chunk);
            self.message.move_chunk(size, self.wire.tail());
        }
    }

    /// Writes the rest of the message as its last chunk.
    pub(super) fn send_last_chunk(&mut self) {
        let rest = self.message.chunk_len();
        self.wire.push(
            Command::BdatLast(rest as u64),
            PendingReply::EndOfData { begins_at: 0 },
        );
        self.message.move_chunk(rest, self.wire.tail());
    }

    /// Whether another chunk may be written: without PIPELINING, the one before it must be
    /// answered.
    pub(super) fn can_send_chunk(&self) -> bool {
        self.framing() != Framing::Chunks
            || self.wire.queue.is_empty()
            || self.capabilities.offers("PIPELINING")
    }

    /// The server refused the message in its middle. The chunks in the output are still written, as
    /// their sizes were announced.
    pub(super) fn chunk_refused(&mut self, reply: Reply) {
        match self.state {
            State::Body => {
                self.note_incomplete(self.message.bytes() - self.message.chunk_len() as u64);
            }
            // No other transaction was begun after chunks that are unanswered.
            _ => self.wire.drop_held(),
        }
        self.transactions.pop_front();
        self.message.discard();
        self.wire.queue.discard_chunks();
        self.state = State::Ready;
        // Its transaction may still be open (RFC 3030, 2).
        self.rset_due = true;
        self.events.push_back(Event::Rejected {
            phase: Phase::Body,
            reply,
        });
    }

    /// Ends a transaction whose message will not be sent. If the server has it open, RSET is due.
    pub(super) fn end_transaction(&mut self, phase: Phase, reply: Reply) {
        let Some(progress) = self.transactions.pop_front() else {
            return;
        };
        let (phase, reply) = progress.reason(phase, reply);
        self.state = State::Ready;
        if phase != Phase::Mail {
            self.rset_due = true;
        }
        if progress.complete {
            self.events.push_back(Event::Rejected { phase, reply });
        }
    }

    /// Writes the ends that were held back and wait for nothing more, and what follows them. An end
    /// also waits while a message before it is withdrawn and without its outcome, so the messages
    /// that were handed over are the first ones without an outcome. The commands of that message
    /// may be held back themselves: they do not wait.
    pub(super) fn release(&mut self) {
        while self.wire.release_following() && !self.is_withdrawn_before_next_end() {
            self.wire.release_first();
            let end = self.wire.end();
            if let Some(state) = self.not_handed_over(0) {
                state.ends_at = Some(end);
            }
        }
    }

    /// Whether a message without an outcome was withdrawn before the one whose end comes next.
    fn is_withdrawn_before_next_end(&self) -> bool {
        let states = self.transactions.iter();
        let mut before = states.take_while(|state| state.is_withdrawn || state.ends_at.is_some());
        before.any(|state| state.is_withdrawn)
    }

    /// Of the transactions whose message is not handed over and can be, the one with this index.
    pub(super) fn not_handed_over(&mut self, index: usize) -> Option<&mut TransactionState> {
        let states = self.transactions.iter_mut();
        states
            .filter(|state| state.ends_at.is_none() && !state.is_withdrawn)
            .nth(index)
    }

    /// Ends the first transactions whose message was withdrawn, or was refused before its
    /// hand-over, once their commands are answered.
    pub(super) fn conclude_given_up(&mut self) {
        while self.state != State::Ending
            && let Some(state) = self.transactions.front()
            && state.is_given_up()
        {
            let refusal = state.refusal().map(|(phase, reply)| (phase, reply.clone()));
            if !state.is_withdrawn {
                self.drop_refused_message();
            }
            let is_open = !matches!(refusal, Some((Phase::Mail, _)));
            self.conclude_unsent(refusal);
            // Where another message follows already, RSET goes before it.
            self.rset_due |= is_open && self.transactions.is_empty();
            self.release();
        }
    }

    /// Reports the outcome of the first transaction, whose message certainly was not accepted: it
    /// was withdrawn, or refused.
    pub(super) fn conclude_unsent(&mut self, refusal: Option<(Phase, Reply)>) {
        let state = self.transactions.pop_front();
        if state.is_some_and(|state| state.is_withdrawn) {
            self.events.push_back(Event::Withdrawn);
        } else if let Some((phase, reply)) = refusal {
            self.events.push_back(Event::Rejected { phase, reply });
        }
    }

    /// Drops the message of the first transaction, which was refused before its hand-over.
    fn drop_refused_message(&mut self) {
        if self.state == State::Body && self.transactions.len() == 1 {
            self.message.discard();
            self.state = State::Ready;
        } else {
            self.wire.drop_end();
        }
    }

    /// Writes RSET if a transaction failed that the server may have open. It is not written before,
    /// since QUIT ends the transaction, too (RFC 5321, 4.1.1.10).
    pub(super) fn send_due_rset(&mut self) {
        if std::mem::take(&mut self.rset_due) {
            self.wire.push(Command::Rset, PendingReply::AutoRset);
        }
    }

    /// Writes EHLO, or LHLO in LMTP.
    pub(super) fn send_hello(&mut self) {
        self.state = State::Hello;
        let name = &self.settings.client_name;
        match self.settings.protocol {
            Protocol::Smtp => self.wire.push(Command::Ehlo(name), PendingReply::Ehlo),
            Protocol::Lmtp => self.wire.push(Command::Lhlo(name), PendingReply::Lhlo),
        }
    }
}

/// What MAIL declares: of the server's extensions those that this message needs.
fn mail_command<'a>(progress: &'a TransactionState, server: &Capabilities) -> Command<'a> {
    let transaction = &progress.transaction;
    Command::Mail {
        reverse_path: transaction.reverse_path.as_ref(),
        size: transaction.size.filter(|_| server.offers("SIZE")),
        body: match transaction.content {
            Content::SevenBit => None,
            Content::Binary => Some("BINARYMIME"),
            Content::EightBit | Content::Unknown => server.offers("8BITMIME").then_some("8BITMIME"),
        },
        utf8: progress.utf8,
        prdr: progress.final_replies == FinalReplies::OneOr353,
        delivery: &transaction.delivery,
    }
}
