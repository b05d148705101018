//! What each reply means, by the command that it answers (RFC 5321, 4.2 and 4.3.2).

use std::mem;

use super::encode::Command;
use super::error::Result;
use super::queue::PendingReply;
use super::reply::unfinished;
use super::sasl::Login;
use super::transaction::{FinalReplies, Framing, TransactionState};
use super::{
    Capabilities, Event, Machine, Missing, Phase, Protocol, ProtocolError, Reason, Reply,
    ReplyParser, StartTls, State, Stuffer, speaks_tls,
};
use crate::text::{beginning, printable};

/// So many characters are shown of why a login failed, much of which the server says.
const REASON_SHOWN: usize = 400;

impl Machine {
    /// Takes a reply, if a whole one is there, and acts on it.
    pub(super) fn take_reply(&mut self) -> Result<bool> {
        if self.state == State::Upgrade {
            return if self.input.is_empty() {
                Ok(false)
            } else {
                Err(self.injected())
            };
        }
        // Two bytes, so that it is the same however they come.
        if self.phase() == Phase::Greeting && self.input.len() > 1 && speaks_tls(&self.input) {
            return Err(self.failed(Reason::TlsBeforeGreeting));
        }
        match self.parser.parse(&mut self.input) {
            Ok(Some(reply)) => self.on_whole_reply(reply).map(|()| true),
            Ok(None) if self.input_ended => self.on_end().map(|()| true),
            Ok(None) => Ok(false),
            Err(mut error) => {
                error.redact(self.parser.begun(), &self.secrets);
                let front = self.wire.queue.front();
                let expected = front.filter(|_| self.wire.is_front_sent());
                Err(self.failed(Reason::MalformedReply {
                    expected: expected.map(PendingReply::wanted),
                    error,
                }))
            }
        }
    }

    /// The error for what failed in the phase that the session is in.
    pub(super) fn failed(&self, reason: Reason) -> ProtocolError {
        ProtocolError::new(self.phase(), reason)
    }

    fn on_whole_reply(&mut self, mut reply: Reply) -> Result<()> {
        // A challenge is answered as it came, also where it happens to hold what is a secret.
        let challenge = if reply.code() == 334 {
            reply.lines().concat()
        } else {
            String::new()
        };
        reply.redact(&self.secrets);
        self.wire.transcript.server(&reply);
        self.on_reply(reply, &challenge)
    }

    fn on_reply(&mut self, mut reply: Reply, challenge: &str) -> Result<()> {
        self.round_trips += u32::from(mem::take(&mut self.round_trip_pending));
        self.replies += 1;
        let phase = self.phase();
        // The server cannot have read a command that was not sent.
        if reply.code() != 421 && !self.wire.is_front_sent() {
            return Err(unsolicited(phase, reply));
        }
        let Some(expected) = self.wire.queue.pop_front() else {
            if self.rset_due && reply.code() == 421 {
                // As if RSET had been said already: what it is about was told before.
                self.end_by_shutdown(reply);
                return Ok(());
            }
            return Err(unsolicited(phase, reply));
        };
        if expected.is_of_transaction()
            && let Some(progress) = self.transactions.front_mut()
        {
            progress.keep(&mut reply, self.settings.limits.kept_reply_bytes);
        }
        if reply.code() == 421 {
            if !self.reads_on_after(&expected) {
                return self.on_shutdown(expected, phase, reply);
            }
            self.start_ending(&reply);
        }
        let is_refusal = reply.is_transient() || reply.is_permanent();
        match expected {
            PendingReply::Greeting if reply.code() == 220 => {
                self.greeting = Some(reply);
                self.say_hello();
            }
            PendingReply::Ehlo | PendingReply::Helo | PendingReply::Lhlo if reply.code() == 250 => {
                self.capabilities = Capabilities::from_reply(&reply);
                self.after_hello()?;
            }
            // The server does not know EHLO (RFC 5321, 3.2); any other refusal is meant for this
            // client.
            PendingReply::Ehlo if matches!(reply.code(), 500 | 502 | 504) => {
                self.wire.push(
                    Command::Helo(&self.settings.client_name),
                    PendingReply::Helo,
                );
            }
            PendingReply::Lhlo if matches!(reply.code(), 500 | 502 | 504) => {
                return Err(self.refused(Phase::Hello, Reason::LhloUnknown, reply));
            }
            PendingReply::StartTls if reply.code() == 220 => self.state = State::Upgrade,
            PendingReply::StartTls if is_refusal => {
                return Err(self.refused(Phase::StartTls, Reason::StartTlsRefused, reply));
            }
            PendingReply::Greeting if is_refusal => {
                return Err(self.refused(Phase::Greeting, Reason::SessionRefused, reply));
            }
            PendingReply::Ehlo | PendingReply::Helo | PendingReply::Lhlo if is_refusal => {
                let reason = Reason::HelloRefused {
                    command: match self.settings.protocol {
                        Protocol::Lmtp => "LHLO",
                        Protocol::Smtp => "EHLO",
                    },
                    client_name: self.settings.client_name.as_str().to_owned(),
                };
                return Err(self.refused(Phase::Hello, reason, reply));
            }
            PendingReply::Login(login) if reply.is_positive() => {
                login.verify().map_err(|failure| {
                    let reason = Reason::LoginNotVerified {
                        mechanism: login.mechanism(),
                        failure: self.without_secrets(&failure.to_string(), REASON_SHOWN),
                    };
                    ProtocolError::new(Phase::Auth, reason)
                })?;
                self.events.push_back(Event::Login {
                    reply,
                    reason: None,
                    fault: None,
                });
            }
            PendingReply::Login(login) if is_refusal => self.login_refused(&login, reply),
            PendingReply::Login(login) if reply.code() == 334 => {
                self.on_challenge(login, challenge)?
            }
            PendingReply::Mail if reply.is_positive() || is_refusal => self.on_mail(reply),
            PendingReply::Rcpt(index) if reply.is_positive() || is_refusal => {
                self.on_rcpt(index, reply)
            }
            PendingReply::Data if reply.is_intermediate() => self.on_go_ahead(),
            PendingReply::Data if is_refusal => self.end_transaction(Phase::Data, reply),
            PendingReply::EndOfData { .. }
                if self.outcome_unknown()
                    && (reply.is_positive() || is_refusal || self.may_announce_each(&reply)) =>
            {
                self.on_final_reply(reply);
            }
            PendingReply::EndOfData { .. } if is_refusal => {
                // Its end was not sent, and must not be: the rest of the message would be read as
                // commands.
                self.close();
                self.events.push_back(Event::Rejected {
                    phase: Phase::Body,
                    reply,
                });
            }
            PendingReply::Chunk if reply.is_positive() => {}
            PendingReply::Chunk if is_refusal => self.chunk_refused(reply),
            PendingReply::EmptyMessage | PendingReply::DiscardedChunk
                if reply.is_positive() || is_refusal => {}
            PendingReply::AutoRset
                if reply.is_positive() || is_refusal && self.state == State::Ending => {}
            PendingReply::Reset | PendingReply::Noop | PendingReply::Command => {
                self.events.push_back(Event::Reply { reply })
            }
            PendingReply::Quit => self.close(),
            expected => {
                let reason = Reason::UnexpectedReply {
                    expected: expected.wanted(),
                    reply,
                };
                // Unanswered it is still: what became of a message is unknown then.
                self.wire.queue.push_front(expected);
                return Err(ProtocolError::new(phase, reason));
            }
        }
        match self.state {
            State::Ending if !self.awaits_verdict() => self.conclude_ending(),
            _ => self.advance(),
        }
        Ok(())
    }

    /// The server refused the session, which is still there for QUIT.
    fn refused(&mut self, phase: Phase, reason: Reason, reply: Reply) -> ProtocolError {
        self.state = State::Refused;
        ProtocolError::refused(phase, reason, reply)
    }

    /// Messages that were handed over after this command may have replies after the 421 that
    /// answers it, or the message may have one itself whose RCPT this was.
    fn reads_on_after(&self, expected: &PendingReply) -> bool {
        let front = self
            .transactions
            .front()
            .filter(|progress| progress.is_handed_over(self.wire.written));
        let others = self.handed_over().nth(1).is_some();
        match (expected, front) {
            (_, None) => false,
            (PendingReply::Rcpt(_), Some(progress)) => others || progress.may_yet_be_sent(),
            (PendingReply::Mail, Some(_)) => others,
            (PendingReply::EndOfData { .. }, Some(progress)) => {
                others && progress.is_last_reply_next()
            }
            // What it was about has its outcome, and all that was handed over follows it.
            (PendingReply::AutoRset, Some(_)) => true,
            _ => false,
        }
    }

    /// Nothing is written any more, but replies are read.
    fn start_ending(&mut self, reply: &Reply) {
        self.state = State::Ending;
        self.shutdown.get_or_insert_with(|| reply.clone());
        self.wire.output.clear();
        self.last_chunk = None;
        self.chunk_buffer.clear();
    }

    /// A message that was handed over may still be accepted. Only the first one has had replies.
    fn awaits_verdict(&self) -> bool {
        let mut handed_over = self.handed_over();
        handed_over
            .next()
            .is_some_and(|front| front.refusal().is_none())
            || handed_over.next().is_some()
    }

    /// All that was handed over has its outcome, or is refused for certain.
    fn conclude_ending(&mut self) {
        let refused = self
            .transactions
            .front()
            .filter(|progress| progress.is_handed_over(self.wire.written));
        if let Some((phase, reply)) = refused.and_then(TransactionState::refusal) {
            self.events.push_back(Event::Rejected {
                phase,
                reply: reply.clone(),
            });
            self.transactions.pop_front();
        }
        if let Some(reply) = self.shutdown.take() {
            self.end_by_shutdown(reply);
        }
    }

    /// The session is over by this 421: what was begun and has no outcome fails because of it.
    fn end_by_shutdown(&mut self, reply: Reply) {
        if !self
            .transactions
            .front()
            .is_some_and(|progress| progress.complete)
        {
            self.shutdown = Some(reply);
            return self.close();
        }
        let (phase, reason) = match self.outcome_unknown() {
            true => (Phase::EndOfData, Reason::ShutDownBeforeConfirmation),
            false => (Phase::Mail, Reason::ShutDownBeforeMessage),
        };
        self.failure = Some(ProtocolError::refused(phase, reason, reply));
    }

    /// The server closed after a 421. Only the first message can have had replies since.
    fn on_end_after(&mut self, shutdown: Reply, error: ProtocolError) {
        let Some(front) = self.transactions.front() else {
            return self.close();
        };
        if front.refusal().is_none() && !front.accepted.is_empty() {
            // It may have been accepted, too. The reply to the message itself is missing.
            self.transactions.truncate(1);
            self.failure = Some(error.with_reply(shutdown));
            return;
        }
        let phase = if front.answered == 0 {
            Phase::Mail
        } else {
            Phase::Rcpt
        };
        let (phase, reply) = front.reason(phase, shutdown.clone());
        self.events.push_back(Event::Rejected { phase, reply });
        self.transactions.pop_front();
        // The server closed before it answered their MAIL, as 421 had announced.
        self.transactions
            .iter_mut()
            .for_each(|progress| progress.ends_at = None);
        self.end_by_shutdown(shutdown);
    }

    /// 421: the server ends the session, whatever was asked (RFC 5321, 3.8).
    fn on_shutdown(&mut self, expected: PendingReply, phase: Phase, reply: Reply) -> Result<()> {
        let (phase, reply) = match self.transactions.front() {
            Some(progress) => progress.reason(phase, reply),
            None => (phase, reply),
        };
        let shutdown = reply.clone();
        match expected {
            PendingReply::Greeting
            | PendingReply::Ehlo
            | PendingReply::Helo
            | PendingReply::Lhlo
            | PendingReply::StartTls => {
                return Err(ProtocolError::refused(phase, Reason::Unavailable, reply));
            }
            PendingReply::Login(login) => self.login_refused(&login, reply),
            // In LMTP it answers for one recipient; for the others, no answer will come. So it is
            // with PRDR; there, also in place of the last reply it is no word on the message.
            PendingReply::EndOfData { .. }
                if self.outcome_unknown() && self.has_several_final_replies() =>
            {
                let is_for_all = |front: &TransactionState| {
                    front.next_verdict().is_none() && front.refusal().is_none()
                };
                let is_for_all = self.transactions.front().is_some_and(is_for_all);
                if is_for_all || self.on_final_reply(reply.clone()) {
                    let reason = Reason::ShutDownBetweenRecipients;
                    self.failure = Some(ProtocolError::refused(phase, reason, reply));
                    return Ok(());
                }
            }
            PendingReply::Mail
            | PendingReply::Rcpt(_)
            | PendingReply::Data
            | PendingReply::Chunk
            | PendingReply::EndOfData { .. } => {
                // What became of it is certain, even if all of it has gone.
                self.transactions.pop_front();
                self.events.push_back(Event::Rejected { phase, reply });
            }
            PendingReply::Reset | PendingReply::Noop | PendingReply::Command => {
                self.events.push_back(Event::Reply { reply })
            }
            // What these were about was told before.
            PendingReply::EmptyMessage
            | PendingReply::DiscardedChunk
            | PendingReply::AutoRset
            | PendingReply::Quit => {}
        }
        self.end_by_shutdown(shutdown);
        Ok(())
    }

    /// A reply for each recipient will come, or has begun to (LMTP, PRDR).
    fn has_several_final_replies(&self) -> bool {
        let for_each = |front: &TransactionState| {
            matches!(
                front.final_replies,
                FinalReplies::Each | FinalReplies::EachAndOne
            )
        };
        self.transactions.front().is_some_and(for_each)
    }

    fn on_end(&mut self) -> Result<()> {
        // As the reply to a message, it says nothing for certain.
        let answers_message = self.outcome_unknown()
            && matches!(
                self.wire.queue.front(),
                Some(PendingReply::EndOfData { .. })
            );
        if !answers_message && let Some(reply) = self.parser.unterminated_421(&self.input) {
            self.input.clear();
            self.parser = ReplyParser::new(self.settings.limits.clone());
            return self.on_whole_reply(reply);
        }
        let before = if !self.input.is_empty() || self.parser.is_mid_reply() {
            Missing::RestOfReply(self.unread())
        } else {
            match self.wire.queue.front() {
                // It is over either way.
                Some(PendingReply::Quit) => {
                    self.close();
                    return Ok(());
                }
                _ if self.phase() == Phase::Body => Missing::RestOfMessage,
                Some(PendingReply::EndOfData { .. }) => Missing::FinalReply,
                Some(expected) => Missing::Reply(expected.wanted()),
                None => Missing::Nothing,
            }
        };
        let error = self.failed(Reason::ConnectionEnded {
            before,
            secure: self.settings.secure,
        });
        if let Some(shutdown) = self.shutdown.take() {
            self.on_end_after(shutdown, error);
            return Ok(());
        }
        Err(error)
    }

    /// The session is set up as far as this answer goes: TLS next, or ready.
    fn after_hello(&mut self) -> Result<()> {
        let offered = self.capabilities.offers("STARTTLS");
        let wanted = !self.settings.secure && self.settings.starttls != StartTls::Never;
        if wanted && offered {
            self.wire.push(Command::StartTls, PendingReply::StartTls);
        } else if wanted && self.settings.starttls == StartTls::Required {
            self.state = State::Refused;
            return Err(ProtocolError::starttls_not_offered(
                &self.capabilities,
                self.greeting.as_ref(),
                self.port(),
                self.settings.protocol,
            ));
        } else {
            self.state = State::Ready;
        }
        Ok(())
    }

    fn on_challenge(&mut self, mut login: Login, challenge: &str) -> Result<()> {
        let limits = &self.settings.limits;
        if challenge.len() > limits.line {
            let limit = limits.line;
            let reason = Reason::ChallengeTooLong { limit };
            return Err(ProtocolError::new(Phase::Auth, reason));
        }
        if login.challenges() == limits.challenges {
            let reason = Reason::TooManyChallenges {
                limit: limits.challenges,
                mechanism: login.mechanism(),
            };
            return Err(ProtocolError::new(Phase::Auth, reason));
        }
        let (line, shown) = login.respond(challenge, &mut self.secrets);
        self.wire.push_secret(line, shown, login);
        Ok(())
    }

    fn login_refused(&mut self, login: &Login, reply: Reply) {
        let reason = login
            .reason()
            .map(|reason| self.without_secrets(&reason, REASON_SHOWN));
        self.events.push_back(Event::Login {
            reply,
            reason,
            fault: login.fault(),
        });
    }

    /// What the server sent and nothing was made of, as far as it is shown.
    pub(super) fn unread(&self) -> String {
        unfinished(self.parser.begun(), &self.input, &self.secrets)
    }

    /// The beginning of a text of the server's. It is cut last: a half of a secret would not be
    /// found.
    fn without_secrets(&self, text: &str, chars: usize) -> String {
        let text = printable(text);
        let redacted = self.secrets.redacted(&text);
        beginning(redacted.as_deref().unwrap_or(&text), chars).to_owned()
    }

    fn on_mail(&mut self, reply: Reply) {
        if let Some(progress) = self.transactions.front_mut() {
            progress.mail_answered = true;
            if !reply.is_positive() {
                progress.mail_refusal = Some(reply.clone());
            }
        }
        self.events.push_back(Event::Sender { reply });
    }

    fn on_rcpt(&mut self, index: usize, reply: Reply) {
        if let Some(progress) = self.transactions.front_mut() {
            progress.answered += 1;
            if reply.is_positive() {
                progress.accepted.push(index);
            } else {
                progress.last_rcpt_refusal = Some(reply.clone());
            }
        }
        self.events.push_back(Event::Recipient { index, reply });
    }

    /// 354: the message, or, where nobody is there to get one, its end alone (RFC 2920, 3.1).
    fn on_go_ahead(&mut self) {
        self.stuffer = Stuffer::new();
        let refusal = self
            .transactions
            .front()
            .and_then(TransactionState::refusal)
            .map(|(phase, reply)| (phase, reply.clone()));
        match refusal {
            None => {
                self.state = State::Body;
                let begins_at = self.wire.end();
                self.wire
                    .queue
                    .push_back(PendingReply::EndOfData { begins_at });
            }
            // How often an LMTP server answers to an empty message for nobody, nothing says: it
            // must not ask for one (RFC 2033, 4.2).
            Some((phase, reply)) if self.settings.protocol == Protocol::Lmtp => {
                self.close();
                self.events.push_back(Event::Rejected { phase, reply });
            }
            Some((phase, reply)) => {
                self.transactions.pop_front();
                self.state = State::Ready;
                self.stuffer.finish(&mut self.wire.output);
                self.wire.transcript.client(".");
                self.wire.outstanding(PendingReply::EmptyMessage);
                self.events.push_back(Event::Rejected { phase, reply });
            }
        }
    }

    /// 353: the server will answer for each recipient first (PRDR).
    fn may_announce_each(&self, reply: &Reply) -> bool {
        let is_asked_for = |progress: &TransactionState| {
            progress.final_replies == FinalReplies::OneOr353 && progress.refusal().is_none()
        };
        reply.code() == 353 && self.transactions.front().is_some_and(is_asked_for)
    }

    /// An answer to the message: as such, or for one of its recipients. Says whether another one
    /// must follow.
    fn on_final_reply(&mut self, reply: Reply) -> bool {
        let Some(progress) = self.transactions.front_mut() else {
            return false;
        };
        let another_follows = if reply.is_intermediate() {
            progress.final_replies = FinalReplies::EachAndOne;
            true
        } else if let Some(index) = progress.next_verdict() {
            let one_for_all_follows = progress.final_replies == FinalReplies::EachAndOne;
            // Before the one for all, the server has taken the message for nobody.
            if !(one_for_all_follows && reply.is_positive()) {
                self.events.push_back(Event::RecipientResult {
                    index,
                    reply: reply.clone(),
                });
            }
            progress.verdicts.push(reply.clone());
            one_for_all_follows || progress.next_verdict().is_some()
        } else {
            false
        };
        if another_follows {
            self.wire
                .queue
                .push_front(PendingReply::EndOfData { begins_at: 0 });
        } else {
            self.conclude(reply);
        }
        another_follows
    }

    /// The verdict on the message. On one that went with its commands, it may only say that nobody
    /// was there to get it.
    fn conclude(&mut self, last: Reply) {
        let Some(progress) = self.transactions.pop_front() else {
            return;
        };
        if progress.final_replies == FinalReplies::EachAndOne && last.is_positive() {
            let verdicts = progress.accepted.iter().zip(&progress.verdicts);
            let taken = verdicts.filter(|(_, reply)| reply.is_positive());
            self.events
                .extend(taken.map(|(&index, reply)| Event::RecipientResult {
                    index,
                    reply: reply.clone(),
                }));
        }
        let reply = progress.conclusion(last);
        if reply.is_positive() && progress.refusal().is_none() {
            self.events.push_back(Event::Accepted { reply });
            return;
        }
        let (phase, reply) = progress.reason(Phase::EndOfData, reply);
        // After a chunk that was refused, only RSET is sure to end the transaction (RFC 3030, 2).
        // Where another message follows already, RSET went before it.
        let may_be_open = progress.framing != Framing::Data && phase != Phase::Mail;
        if may_be_open && self.transactions.is_empty() && self.state != State::Ending {
            self.rset_due = true;
        }
        self.events.push_back(Event::Rejected { phase, reply });
    }
}

/// A reply that no command asked for; 421 may come unasked (RFC 5321, 3.8).
pub(super) fn unsolicited(phase: Phase, reply: Reply) -> ProtocolError {
    if reply.code() == 421 {
        return ProtocolError::refused(phase, Reason::ShutDown, reply);
    }
    ProtocolError::new(phase, Reason::UnsolicitedReply(reply))
}
