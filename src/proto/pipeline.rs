//! What is said without being asked for: the commands of a transaction, each as soon as it may be
//! written, and the chunks of a message.

use super::encode::Command;
use super::queue::PendingReply;
use super::transaction::{FinalReplies, Framing, TransactionState};
use super::{
    Capabilities, Content, Event, Machine, Phase, Protocol, Reply, State, Stuffer, Transaction,
};

impl Machine {
    /// Writes as much of the transaction as may be written now: all up to DATA in one go where the
    /// server takes PIPELINING, else one command after each reply.
    pub(super) fn advance(&mut self) {
        if self.state == State::Body {
            return self.flush_chunks();
        }
        let pipelining = self.capabilities.offers("PIPELINING");
        while self.state == State::Transaction && (pipelining || self.wire.queue.is_empty()) {
            let Some(progress) = self.transactions.back_mut() else {
                return;
            };
            if let Some((phase, reply)) = progress.refusal()
                && !progress.data_written
            {
                // The answers to what is under way are awaited first.
                if self.wire.queue.is_empty() {
                    let reply = reply.clone();
                    self.end_transaction(phase, reply);
                }
                return;
            }
            let Transaction {
                recipients,
                all_or_nothing,
                ..
            } = &progress.transaction;
            if !progress.mail_written {
                progress.mail_written = true;
                progress.final_replies = progress
                    .transaction
                    .final_replies(self.settings.protocol, &self.capabilities);
                self.wire.push(
                    mail_command(progress, &self.capabilities),
                    PendingReply::Mail,
                );
            } else if progress.transaction.await_sender && !progress.mail_answered {
                return;
            } else if let Some(recipient) = recipients.get(progress.written) {
                let (utf8, delivery) = (progress.utf8, &progress.transaction.delivery);
                self.wire.push(
                    Command::Rcpt {
                        recipient,
                        utf8,
                        delivery,
                    },
                    PendingReply::Rcpt(progress.written),
                );
                progress.written += 1;
            } else if progress.complete && !progress.data_written {
                let framing = progress.best_framing(&self.capabilities);
                // Of many bytes that nobody will get, none should go.
                let waits = *all_or_nothing || framing == Framing::Chunks;
                if waits && !progress.all_answered() {
                    return;
                }
                (progress.data_written, progress.framing) = (true, framing);
                if framing == Framing::Data {
                    self.wire.push(Command::Data, PendingReply::Data);
                    return;
                }
                self.stuffer = match progress.transaction.content {
                    Content::Binary => Stuffer::verbatim(),
                    _ => Stuffer::without_dots(),
                };
                self.state = State::Body;
                if let Framing::Chunk(size) = framing {
                    self.wire.push(
                        Command::BdatLast(size),
                        PendingReply::EndOfData { begins_at: 0 },
                    );
                }
            } else {
                return;
            }
        }
    }

    /// Passes the chunks on that are full. They are all of one size, however the message was given.
    pub(super) fn flush_chunks(&mut self) {
        let size = self.settings.chunk_size.max(1);
        while self.chunk_buffer.len() >= size && self.can_send_chunk() {
            self.wire
                .push(Command::Bdat(size as u64), PendingReply::Chunk);
            self.chunk_buffer.move_to(size, &mut self.wire.output);
        }
    }

    /// Another chunk may go: without PIPELINING, not before the one before it was answered.
    pub(super) fn can_send_chunk(&self) -> bool {
        self.framing() != Framing::Chunks
            || self.wire.queue.is_empty()
            || self.capabilities.offers("PIPELINING")
    }

    /// The server refuses the message in its middle. Nothing more of it goes than the chunks that
    /// wait, as their size was said.
    pub(super) fn chunk_refused(&mut self, reply: Reply) {
        if self.state == State::Body {
            let bytes = self.stuffer.bytes() - self.chunk_buffer.len() as u64;
            self.wire
                .transcript
                .note(&format!("{bytes} bytes of the message, and not its end"));
        }
        self.transactions.pop_front();
        self.chunk_buffer.clear();
        self.wire.queue.make_chunks_vain();
        self.state = State::Ready;
        // Its transaction may still be open (RFC 3030, 2).
        self.rset_due = true;
        self.events.push_back(Event::Rejected {
            phase: Phase::Body,
            reply,
        });
    }

    /// The message will not be sent. A transaction that the server has open is dropped there, too.
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

    /// RSET for a transaction that has failed and that the server may have open. It is said as late
    /// as that, since QUIT ends the transaction, too (RFC 5321, 4.1.1.10).
    pub(super) fn say_due_rset(&mut self) {
        if std::mem::take(&mut self.rset_due) {
            self.wire.push(Command::Rset, PendingReply::AutoRset);
        }
    }

    pub(super) fn say_hello(&mut self) {
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
