//! What each reply means, by the command that it answers (RFC 5321, 4.2 and 4.3.2).

use std::mem;

use super::data::OutgoingMessage;
use super::encode::Command;
use super::error::Result;
use super::queue::{Meaning, PendingReply};
use super::redact::STARS;
use super::reply::{ReplyError, unfinished};
use super::sasl::Login;
use super::transaction::{FinalReplies, Framing, TransactionState};
use super::transcript::NOT_A_REPLY;
use super::{
    Capabilities, Event, Machine, Phase, Protocol, ProtocolError, Reason, Reply, StartTls, State,
    Stuffer, speaks_tls,
};
use crate::text::{beginning, printable};

/// The maximum length in characters of the reason for a failed login, most of which the server
/// wrote.
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
                self.note_malformed(&error);
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

    pub(super) fn on_whole_reply(&mut self, mut reply: Reply) -> Result<()> {
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
        let Some(pending) = self.wire.queue.pop_front() else {
            return self.on_unsolicited(phase, reply);
        };
        self.shorten(&pending, &mut reply);
        if reply.code() == 421 {
            if !self.reads_on_after(&pending) {
                return self.on_shutdown(pending, phase, reply);
            }
            self.start_ending(&reply);
        }
        self.on_answer(pending, reply, challenge)?;
        self.conclude_given_up();
        match self.state {
            State::Ending if !self.awaits_final_reply() => self.conclude_ending(),
            _ => self.advance(),
        }
        Ok(())
    }

    /// A reply that answers no command.
    fn on_unsolicited(&mut self, phase: Phase, reply: Reply) -> Result<()> {
        if !self.rset_due || reply.code() != 421 {
            return Err(unsolicited(phase, reply));
        }
        // As if it answered RSET, which is due: the outcome of its message was reported before.
        self.end_by_shutdown(reply);
        Ok(())
    }

    /// Replies in a transaction are held for each of its recipients, so together they are bounded.
    fn shorten(&mut self, pending: &PendingReply, reply: &mut Reply) {
        if pending.is_of_transaction()
            && let Some(state) = self.transactions.front_mut()
        {
            state.keep(reply, self.settings.limits.kept_reply_bytes);
        }
    }

    fn on_answer(&mut self, pending: PendingReply, reply: Reply, challenge: &str) -> Result<()> {
        let Some(meaning) = self.meaning(&pending, &reply) else {
            return Err(self.unexpected(pending, reply));
        };
        use PendingReply as P;
        match pending {
            P::Greeting | P::Ehlo | P::Helo | P::Lhlo | P::StartTls => {
                return self.on_setup_reply(&pending, meaning, reply);
            }
            P::Login(login) => return self.on_login_reply(login, meaning, reply, challenge),
            P::Mail => self.on_mail_reply(reply),
            P::Rcpt(index) => self.on_rcpt_reply(index, reply),
            P::Data => self.on_data_reply(meaning, reply),
            P::Chunk => self.on_chunk_reply(meaning, reply),
            P::EndOfData { .. } => self.on_message_reply(reply),
            P::Reset | P::Noop | P::Command => self.events.push_back(Event::Reply { reply }),
            P::EmptyMessage | P::DiscardedChunk | P::AutoRset => {}
            P::Quit => self.close(),
        }
        Ok(())
    }

    /// The error for a reply that the command cannot have. The command stays unanswered: the
    /// outcome of a message that it belongs to is unknown.
    fn unexpected(&mut self, pending: PendingReply, reply: Reply) -> ProtocolError {
        let expected = pending.wanted();
        self.wire.queue.push_front(pending);
        self.failed(Reason::UnexpectedReply { expected, reply })
    }

    /// What the reply means, or `None` if the command cannot have it as an answer now.
    fn meaning(&self, pending: &PendingReply, reply: &Reply) -> Option<Meaning> {
        let meaning = pending.meaning(reply)?;
        let is_possible = match (pending, meaning) {
            (PendingReply::EndOfData { .. }, Meaning::Success) => self.outcome_unknown(),
            (PendingReply::EndOfData { .. }, Meaning::GoOn) => {
                self.outcome_unknown() && self.may_answer_for_each()
            }
            (PendingReply::AutoRset, Meaning::Refusal) => self.state == State::Ending,
            _ => true,
        };
        is_possible.then_some(meaning)
    }

    // ---- Session ----

    fn on_setup_reply(&mut self, to: &PendingReply, meaning: Meaning, reply: Reply) -> Result<()> {
        use PendingReply as P;
        match (to, meaning) {
            (P::Greeting, Meaning::Success) => {
                self.greeting = Some(reply);
                self.send_hello();
            }
            (P::StartTls, Meaning::Success) => self.state = State::Upgrade,
            (_, Meaning::Success) => {
                self.capabilities = Capabilities::from_reply(&reply);
                self.after_hello()?;
            }
            // The server does not know EHLO (RFC 5321, 3.2); any other refusal is meant for this
            // client.
            (P::Ehlo, _) if is_unknown_command(&reply) => {
                let name = &self.settings.client_name;
                self.wire.push(Command::Helo(name), P::Helo);
            }
            _ => return Err(self.session_refused(to, reply)),
        }
        Ok(())
    }

    /// The server refused the session, in which QUIT may still be sent.
    fn session_refused(&mut self, pending: &PendingReply, reply: Reply) -> ProtocolError {
        self.state = State::Refused;
        let reason = match pending {
            PendingReply::Greeting => Reason::SessionRefused,
            PendingReply::StartTls => Reason::StartTlsRefused,
            PendingReply::Lhlo if is_unknown_command(&reply) => Reason::LhloUnknown,
            _ => Reason::HelloRefused {
                command: match self.settings.protocol {
                    Protocol::Lmtp => "LHLO",
                    Protocol::Smtp => "EHLO",
                },
                client_name: self.settings.client_name.as_str().to_owned(),
            },
        };
        ProtocolError::refused(pending.phase(), reason, reply)
    }

    /// The server's capabilities are known: STARTTLS is next, or the session is set up.
    fn after_hello(&mut self) -> Result<()> {
        let wanted = !self.secure && self.settings.starttls != StartTls::Never;
        if wanted && self.capabilities.offers("STARTTLS") {
            self.state = State::StartTls;
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

    // ---- Login ----

    fn on_login_reply(
        &mut self,
        login: Login,
        meaning: Meaning,
        reply: Reply,
        challenge: &str,
    ) -> Result<()> {
        match meaning {
            Meaning::GoOn => return self.on_challenge(login, challenge),
            Meaning::Refusal => self.login_refused(&login, reply),
            Meaning::Success => self.login_accepted(&login, reply)?,
        }
        self.state = State::Ready;
        Ok(())
    }

    /// The server accepted the login. In some mechanisms it must prove that it knows the password.
    fn login_accepted(&mut self, login: &Login, reply: Reply) -> Result<()> {
        if let Err(failure) = login.verify() {
            let reason = Reason::LoginNotVerified {
                mechanism: login.mechanism(),
                failure: self.without_secrets(&failure.to_string(), REASON_SHOWN),
            };
            return Err(ProtocolError::new(Phase::Auth, reason));
        }
        let (reason, fault) = (None, None);
        self.events.push_back(Event::Login {
            reply,
            reason,
            fault,
        });
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

    pub(super) fn login_refused(&mut self, login: &Login, reply: Reply) {
        let reason = login
            .reason()
            .map(|reason| self.without_secrets(&reason, REASON_SHOWN));
        self.events.push_back(Event::Login {
            reply,
            reason,
            fault: login.fault(),
        });
    }

    // ---- Transaction ----

    fn on_mail_reply(&mut self, reply: Reply) {
        if let Some(state) = self.transactions.front_mut() {
            state.mail_reply = Some(reply.clone());
        }
        self.events.push_back(Event::Sender { reply });
    }

    fn on_rcpt_reply(&mut self, index: usize, reply: Reply) {
        if let Some(state) = self.transactions.front_mut() {
            state.answered += 1;
            if reply.is_positive() {
                state.accepted.push(index);
            } else {
                state.last_rcpt_refusal = Some(reply.clone());
            }
        }
        self.events.push_back(Event::Recipient { index, reply });
    }

    fn on_data_reply(&mut self, meaning: Meaning, reply: Reply) {
        if meaning == Meaning::Refusal {
            return self.end_transaction(Phase::Data, reply);
        }
        self.message = OutgoingMessage::new(Stuffer::new());
        let front = self.transactions.front();
        match front.and_then(TransactionState::refusal) {
            None => {
                self.state = State::Body;
                let begins_at = self.wire.end();
                self.wire
                    .queue
                    .push_back(PendingReply::EndOfData { begins_at });
            }
            Some((phase, reply)) => {
                let reply = reply.clone();
                self.end_unwanted_message(phase, reply);
            }
        }
    }

    /// Ends the message that the server asked for although no recipient was accepted (RFC 2920,
    /// 3.1).
    fn end_unwanted_message(&mut self, phase: Phase, reply: Reply) {
        if self.settings.protocol == Protocol::Lmtp {
            // Such a server does not keep to RFC 2033, 4.2, and no RFC says how many replies it
            // gives to an empty message.
            self.close();
        } else {
            self.transactions.pop_front();
            self.state = State::Ready;
            self.message.finish(Framing::Data, &mut self.wire.output);
            self.wire.note_client(".");
            self.wire.outstanding(PendingReply::EmptyMessage);
        }
        self.events.push_back(Event::Rejected { phase, reply });
    }

    // ---- Message ----

    fn on_chunk_reply(&mut self, meaning: Meaning, reply: Reply) {
        if meaning == Meaning::Refusal {
            self.chunk_refused(reply);
        }
    }

    fn on_message_reply(&mut self, reply: Reply) {
        if self.outcome_unknown() {
            self.on_final_reply(reply);
            return;
        }
        // The end of the message was not sent and must not be: the server would read the rest of
        // the message as commands.
        self.close();
        let phase = Phase::Body;
        self.events.push_back(Event::Rejected { phase, reply });
    }

    /// The server may answer 353: it will answer for each recipient first (PRDR).
    fn may_answer_for_each(&self) -> bool {
        self.transactions.front().is_some_and(|state| {
            state.final_replies == FinalReplies::OneOr353 && state.refusal().is_none()
        })
    }

    /// A reply to the whole message: for all recipients, or for one. Returns whether another one
    /// must follow.
    pub(super) fn on_final_reply(&mut self, reply: Reply) -> bool {
        let Some(state) = self.transactions.front_mut() else {
            return false;
        };
        let another_follows = if reply.is_intermediate() {
            state.final_replies = FinalReplies::EachAndOne;
            true
        } else if let Some(index) = state.next_verdict() {
            self.on_result(index, &reply)
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

    /// A reply to the whole message for one recipient. Returns whether another one must follow.
    fn on_result(&mut self, index: usize, reply: &Reply) -> bool {
        let Some(state) = self.transactions.front_mut() else {
            return false;
        };
        let one_for_all_follows = state.final_replies == FinalReplies::EachAndOne;
        // The server accepts the message for no recipient before the reply for all.
        if !(one_for_all_follows && reply.is_positive()) {
            let reply = reply.clone();
            self.events
                .push_back(Event::RecipientResult { index, reply });
        }
        state.verdicts.push(reply.clone());
        one_for_all_follows || state.next_verdict().is_some()
    }

    /// The last reply to the message. To one that went with its commands it may only mean that no
    /// recipient was accepted.
    fn conclude(&mut self, last: Reply) {
        let Some(state) = self.transactions.pop_front() else {
            return;
        };
        if state.final_replies == FinalReplies::EachAndOne && last.is_positive() {
            let results = state.accepted.iter().zip(&state.verdicts);
            let positive = results.filter(|(_, reply)| reply.is_positive());
            self.events.extend(positive.map(|(&index, reply)| {
                let reply = reply.clone();
                Event::RecipientResult { index, reply }
            }));
        }
        let reply = state.conclusion(last);
        if reply.is_positive() && state.refusal().is_none() {
            return self.events.push_back(Event::Accepted { reply });
        }
        let (phase, reply) = state.reason(Phase::EndOfData, reply);
        // After a refused chunk, only RSET is sure to end the transaction (RFC 3030, 2). Where
        // another message follows already, RSET went before it.
        let may_be_open = state.framing != Framing::Data && phase != Phase::Mail;
        self.rset_due |= may_be_open && self.transactions.is_empty() && self.state != State::Ending;
        self.events.push_back(Event::Rejected { phase, reply });
    }

    // ---- Texts ----

    /// Notes in the transcript what came in place of a reply, as far as the error has it.
    fn note_malformed(&mut self, error: &ReplyError) {
        let (ReplyError::NotAReply(line) | ReplyError::CodeChanged(_, line)) = error else {
            return;
        };
        if let Some(mut begun) = self.parser.begun().cloned() {
            begun.redact(&self.secrets);
            // A secret that ends in this line may have begun in one of those before it.
            let has_secret = line.contains(STARS);
            for line in begun.lines() {
                let shown = if has_secret { STARS } else { line };
                let note = format!("{NOT_A_REPLY}{}-{shown}", begun.code());
                self.wire.transcript.note(&note);
            }
        }
        self.wire.transcript.note(&format!("{NOT_A_REPLY}{line}"));
    }

    /// What came and is not a reply yet, as far as it is shown.
    pub(super) fn unread(&self) -> String {
        unfinished(self.parser.begun(), &self.input, &self.secrets)
    }

    /// The beginning of a text that the server wrote. It is cut last: half a secret would not be
    /// found.
    fn without_secrets(&self, text: &str, chars: usize) -> String {
        let text = printable(text);
        let redacted = self.secrets.redacted(&text);
        beginning(redacted.as_deref().unwrap_or(&text), chars).to_owned()
    }
}

/// The server does not know the command.
fn is_unknown_command(reply: &Reply) -> bool {
    matches!(reply.code(), 500 | 502 | 504)
}

/// A reply that no command asked for; 421 may come unasked (RFC 5321, 3.8).
pub(super) fn unsolicited(phase: Phase, reply: Reply) -> ProtocolError {
    if reply.code() == 421 {
        return ProtocolError::refused(phase, Reason::ShutDown, reply);
    }
    ProtocolError::new(phase, Reason::UnsolicitedReply(reply))
}
