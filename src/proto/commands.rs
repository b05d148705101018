//! What the driver can ask for, and when: anything else is out of turn.

use super::encode::Command;
use super::queue::PendingReply;
use super::replies::unsolicited;
use super::sasl::Login;
use super::transaction::{Framing, TransactionState};
use super::{
    Capabilities, ChannelBinding, Chunk, Machine, Mechanism, Protocol, RawCommand, ReplyParser,
    SaslExchange, SaslFailure, SaslSession, State, Stuffer, Transaction,
};
use crate::address::Address;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::{Credentials, diagnose};

impl Machine {
    /// The TLS handshake that [`Step::Upgrade`](super::Step::Upgrade) asked for was made. All that
    /// was learnt in clear is forgotten (RFC 3207, 4.2).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Protocol`], where bytes came in clear behind the server's go-ahead: somebody
    /// put them there to be read as if they had come inside TLS. [`ErrorKind::Request`] where no
    /// handshake was asked for.
    pub fn upgraded(&mut self) -> Result<()> {
        self.require(State::Upgrade, "the TLS handshake")?;
        if !self.input.is_empty() {
            let error = self.injected();
            self.close();
            return Err(error);
        }
        self.settings.secure = true;
        self.capabilities = Capabilities::default();
        self.parser = ReplyParser::new(self.settings.limits.clone());
        self.state = State::Opening;
        self.say_hello();
        Ok(())
    }

    /// What ties a login to the TLS connection, for the mechanisms that can be tied to one. To be
    /// told after the handshake.
    pub fn set_channel_binding(&mut self, channel: ChannelBinding) {
        self.channel = Some(channel);
    }

    /// The mechanisms that can log in here with these credentials, the best one first: the server
    /// offers them, and this build has them. Those that show the password come last outside TLS.
    pub fn mechanisms(&self, credentials: &Credentials) -> Vec<Mechanism> {
        let offered = self.capabilities.auth();
        let usable = |mechanism: &Mechanism| {
            offered.iter().any(|name| name == mechanism.as_str())
                && (self.channel.is_some() || !mechanism.is_bound())
                && mechanism.exchange(credentials).is_ok()
        };
        let mut mechanisms: Vec<_> = Mechanism::ALL.into_iter().filter(usable).collect();
        if !self.settings.secure {
            mechanisms.sort_by_key(|mechanism| mechanism.shows_secret());
        }
        mechanisms
    }

    /// Logs in. [`Step::Login`](super::Step::Login) has the result.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Insecure`] outside TLS, unless the [settings](super::Settings::auth_in_clear)
    /// allow it; [`ErrorKind::Auth`] where the newest EHLO did not offer the mechanism;
    /// [`ErrorKind::Request`] for credentials that the mechanism cannot use, and where the machine
    /// is not ready.
    pub fn login(&mut self, mechanism: Mechanism, credentials: &Credentials) -> Result<()> {
        self.require_login(mechanism)?;
        let exchange = mechanism.exchange(credentials).map_err(unusable)?;
        self.secrets.add_with_base64(credentials.secret());
        self.start_login(exchange)
    }

    /// Logs in by a mechanism of another maker. [`Step::Login`](super::Step::Login) has the result.
    ///
    /// # Errors
    ///
    /// As for [`login`](Self::login).
    pub fn login_with(&mut self, exchange: Box<dyn SaslExchange>) -> Result<()> {
        self.require_login(exchange.mechanism())?;
        self.start_login(exchange)
    }

    fn require_login(&mut self, mechanism: Mechanism) -> Result<()> {
        self.require_ready("a login")?;
        if !self.settings.secure && !self.settings.auth_in_clear {
            let message = "the credentials would cross the network unprotected";
            let hint = match self.settings.protocol {
                Protocol::Lmtp => diagnose::INSECURE_LMTP,
                Protocol::Smtp => diagnose::INSECURE,
            };
            return Err(Error::new(ErrorKind::Insecure, Phase::Auth, message).with_hint(hint));
        }
        let offered = self.capabilities.auth();
        if !offered
            .iter()
            .any(|name| name.eq_ignore_ascii_case(mechanism.as_str()))
        {
            let message = if offered.is_empty() {
                "the server offers no login here".to_owned()
            } else {
                format!(
                    "the server does not offer {mechanism}; it offers {}",
                    offered.join(", ")
                )
            };
            let lmtp = self.settings.protocol == Protocol::Lmtp;
            let hint =
                diagnose::no_mechanism(&self.capabilities, self.settings.secure, self.port(), lmtp);
            return Err(Error::new(ErrorKind::Auth, Phase::Auth, message).with_hint(hint));
        }
        Ok(())
    }

    fn start_login(&mut self, exchange: Box<dyn SaslExchange>) -> Result<()> {
        let session = SaslSession {
            settings: &self.settings,
            capabilities: &self.capabilities,
            channel: self.channel.as_ref(),
        };
        let (login, line, shown) =
            Login::begin(exchange, &session, &mut self.secrets).map_err(unusable)?;
        self.wire.push_secret(line, &shown, login);
        Ok(())
    }

    /// A transaction can begin now: nothing is outstanding, or, where the server takes PIPELINING,
    /// nothing but the answers to messages that were given whole. So many messages can be under
    /// way; their events come in their order.
    pub fn may_begin(&self) -> bool {
        let queue = &self.wire.queue;
        let is_free = queue.is_empty() && !self.rset_due;
        self.state == State::Ready
            && self.failure.is_none()
            && !self.is_held()
            && (is_free || queue.lets_follow() && self.capabilities.offers("PIPELINING"))
    }

    /// How many more transactions the server takes in this session; `None` where it [sets no
    /// limit](Capabilities::limits).
    pub fn transactions_left(&self) -> Option<usize> {
        self.capabilities
            .limits()
            .mail_max
            .map(|max| max.saturating_sub(self.transactions_started))
    }

    /// So many have begun in this session.
    #[cfg(feature = "client")]
    pub(crate) fn transactions_begun(&self) -> usize {
        self.transactions_started
    }

    /// The session goes on, and no transaction is open in it; an answer may be awaited.
    #[cfg(feature = "client")]
    pub(crate) fn is_between_transactions(&self) -> bool {
        self.state == State::Ready
    }

    /// So many more transactions can follow in this session.
    pub(crate) fn check_session(&self, more: usize) -> Result<()> {
        self.capabilities
            .limits()
            .check_session(self.transactions_started, more)
    }

    /// Begins to send a message. What follows: [`Step::Sender`](super::Step::Sender), a
    /// [`Step::Recipient`](super::Step::Recipient) for each, [`Step::Body`](super::Step::Body),
    /// perhaps a [`Step::RecipientResult`](super::Step::RecipientResult) for each, and at last
    /// [`Step::Accepted`](super::Step::Accepted) or [`Step::Rejected`](super::Step::Rejected).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] or [`ErrorKind::Request`] where the server cannot take this
    /// message, by what it offers: nothing was sent then, and the machine stays ready.
    /// [`ErrorKind::Closed`] where no more transactions are [left](Self::transactions_left).
    /// [`ErrorKind::Request`] without a recipient.
    pub fn begin(&mut self, transaction: Transaction) -> Result<()> {
        if transaction.recipients.is_empty() {
            return Err(Error::request("the message has no recipient"));
        }
        self.start(transaction, true)
    }

    /// Opens a transaction step by step: its recipients follow by [`rcpt`](Self::rcpt).
    /// [`Step::Sender`](super::Step::Sender) has the answer; if it is negative, no transaction is
    /// open.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin); and [`ErrorKind::Request`] where the transaction has
    /// recipients already, which RCPT would go to in one group and without a chance to refuse.
    pub fn mail(&mut self, transaction: Transaction) -> Result<()> {
        if !transaction.recipients.is_empty() {
            let message = "the transaction has recipients, which are given one by one here";
            return Err(Error::new(ErrorKind::Request, Phase::Mail, message)
                .with_hint("Open it without them (Transaction::open), and give each by rcpt."));
        }
        self.start(transaction, false)
    }

    /// Adds a recipient to the transaction that [`mail`](Self::mail) opened.
    /// [`Step::Recipient`](super::Step::Recipient) has the answer. A negative one ends a
    /// transaction for [all or nothing](Transaction::all_or_nothing): none is open then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`] where no transaction is open, or for an address beyond ASCII in one
    /// that began without SMTPUTF8; [`ErrorKind::Unsupported`] for more recipients than the server
    /// [takes at once](Capabilities::limits).
    pub fn rcpt(&mut self, address: Address) -> Result<()> {
        let limits = self.capabilities.limits();
        let progress = self.open_transaction("a recipient")?;
        if address.to_ascii().is_none() && !progress.utf8 {
            let message = format!(
                "the address {address} is not ASCII, and the transaction was begun without SMTPUTF8"
            );
            return Err(Error::new(ErrorKind::Request, Phase::Rcpt, message));
        }
        let others = progress.transaction.recipients.len();
        limits.check_another(others, &mut progress.domains, &address)?;
        progress.transaction.recipients.push(address);
        self.advance();
        Ok(())
    }

    /// Asks to give the message of the transaction that [`mail`](Self::mail) opened.
    /// [`Step::Body`](super::Step::Body) or [`Step::Rejected`](super::Step::Rejected) follows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`] where no transaction is open or no recipient was accepted.
    pub fn data(&mut self) -> Result<()> {
        let progress = self.open_transaction("the message")?;
        if progress.accepted.is_empty() {
            return Err(Error::new(
                ErrorKind::Request,
                Phase::Data,
                "no recipient was accepted, so no message can be sent",
            ));
        }
        progress.complete = true;
        self.advance();
        Ok(())
    }

    /// Gives a piece of the message, of any size. Line ends are made CRLF here, and dots doubled
    /// where it goes behind DATA.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`] out of turn. [`ErrorKind::Unsupported`] for a byte beyond ASCII,
    /// where the server does not offer 8BITMIME and nobody knew before that there would be one, and
    /// [`ErrorKind::Input`] for a NUL in what is no [binary content](super::Content::Binary), and
    /// for more bytes than a chunk was announced with: the session is over then.
    pub fn body(&mut self, chunk: impl Into<Chunk>) -> Result<()> {
        self.require_body("a piece of the message")?;
        let chunk = chunk.into();
        let may_be_any = self.capabilities.offers("8BITMIME") || self.stuffer.is_verbatim();
        if !may_be_any && !chunk.is_seven_bit() {
            let message = "the message has bytes beyond ASCII, and the server does not offer \
                8BITMIME; it was not sent";
            self.close();
            return Err(Error::new(ErrorKind::Unsupported, Phase::Body, message)
                .with_hint("Encode its parts as quoted-printable or base64."));
        }
        // No text has it (RFC 2045, 2.8). Who drops it may read an end of the message where there
        // was none.
        if !self.stuffer.is_verbatim() && chunk.has_nul() {
            let message = "the message has a NUL, which text cannot have; it was not sent";
            self.close();
            return Err(Error::new(ErrorKind::Input, Phase::Body, message).with_hint(diagnose::NUL));
        }
        let size = match self.framing() {
            Framing::Chunk(size) => size,
            Framing::Data => {
                self.stuffer.push(chunk, &mut self.wire.output);
                return Ok(());
            }
            Framing::Chunks => {
                self.stuffer.push(chunk, &mut self.chunk_buffer);
                self.flush_chunks();
                return Ok(());
            }
        };
        // With its last byte the chunk is a message to the server: the last piece waits until it is
        // known to be the last.
        if chunk.bytes().is_empty() {
            return Ok(());
        }
        if let Some(before) = self.last_chunk.replace(chunk) {
            self.stuffer.push(before, &mut self.wire.output);
        }
        if self.stuffer.bytes() < size {
            Ok(())
        } else {
            Err(self.not_as_announced(size))
        }
    }

    /// Ends the message. [`Step::Accepted`](super::Step::Accepted) or
    /// [`Step::Rejected`](super::Step::Rejected) follows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`] out of turn. [`ErrorKind::Input`] for fewer bytes than a chunk was
    /// announced with: the session is over then.
    pub fn finish(&mut self) -> Result<()> {
        self.require_body("the end of the message")?;
        if !self.can_send_chunk() {
            let message =
                "the end of the message is out of turn: the chunk before it is not answered";
            return Err(Error::new(ErrorKind::Request, Phase::Body, message));
        }
        if let Some(last) = self.last_chunk.take() {
            self.stuffer.push(last, &mut self.wire.output);
        }
        let framing = self.framing();
        let output = if framing == Framing::Chunks {
            &mut self.chunk_buffer
        } else {
            &mut self.wire.output
        };
        self.stuffer.finish(output);
        self.wire
            .transcript
            .note(&format!("the message, {} bytes", self.stuffer.bytes()));
        match framing {
            Framing::Chunk(size) if self.stuffer.bytes() != size => {
                return Err(self.not_as_announced(size));
            }
            Framing::Chunk(_) => {}
            Framing::Chunks => {
                let rest = self.chunk_buffer.len();
                self.wire.push(
                    Command::BdatLast(rest as u64),
                    PendingReply::EndOfData { begins_at: 0 },
                );
                self.chunk_buffer.move_to(rest, &mut self.wire.output);
            }
            Framing::Data => self.wire.transcript.client("."),
        }
        let end = self.wire.end();
        if let Some(progress) = self.transactions.back_mut() {
            progress.ends_at = Some(end);
        }
        self.state = State::Ready;
        Ok(())
    }

    /// Drops the transaction that is open, if one is. [`Step::Reply`](super::Step::Reply) has the
    /// answer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`] out of turn.
    pub fn reset(&mut self) -> Result<()> {
        self.require_idle("RSET")?;
        self.transactions.clear();
        self.state = State::Ready;
        self.wire.push(Command::Rset, PendingReply::Reset);
        Ok(())
    }

    /// Asks whether the server is there. [`Step::Reply`](super::Step::Reply) has the answer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`] out of turn.
    pub fn noop(&mut self) -> Result<()> {
        self.require_idle("NOOP")?;
        self.wire.push(Command::Noop, PendingReply::Noop);
        Ok(())
    }

    /// Gives a command of the caller's. [`Step::Reply`](super::Step::Reply) has the answer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`] out of turn. [`ErrorKind::Unsupported`] for one beyond ASCII, where
    /// the server does not offer SMTPUTF8.
    pub fn command(&mut self, command: &RawCommand) -> Result<()> {
        self.require_idle("a command")?;
        if !command.as_str().is_ascii() && !self.capabilities.offers("SMTPUTF8") {
            let message = "the command is not ASCII, and the server does not offer SMTPUTF8";
            return Err(Error::new(ErrorKind::Unsupported, Phase::Command, message)
                .with_hint("Write it in ASCII."));
        }
        self.wire.push(Command::Raw(command), PendingReply::Command);
        Ok(())
    }

    /// Ends the session. [`Step::Closed`](super::Step::Closed) follows.
    ///
    /// It can also be called after an error by which the server refused the session, and right
    /// after a message that was not sent: QUIT then goes in place of the RSET that would follow,
    /// or, with PIPELINING, with what is unanswered of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`] out of turn. [`ErrorKind::Closed`] where nothing may be said any
    /// more: the server ended the session, or something but a refusal did.
    pub fn quit(&mut self) -> Result<()> {
        if !matches!(self.state, State::Transaction | State::Refused) {
            self.require(State::Ready, "QUIT")?;
        }
        let of_no_interest = |expected: &PendingReply| {
            matches!(
                expected,
                PendingReply::DiscardedChunk | PendingReply::EmptyMessage | PendingReply::AutoRset
            )
        };
        let is_pipelined =
            self.capabilities.offers("PIPELINING") && self.wire.queue.all(of_no_interest);
        if !is_pipelined || self.wire.queue.is_empty() {
            self.require_quiet("QUIT")?;
        }
        self.rset_due = false;
        self.wire.push(Command::Quit, PendingReply::Quit);
        Ok(())
    }

    fn start(&mut self, transaction: Transaction, complete: bool) -> Result<()> {
        self.say_due_rset();
        let follows_others = complete && !self.wire.queue.is_empty() && self.may_begin();
        if !follows_others {
            self.require_ready("a transaction")?;
        }
        transaction.check(&self.capabilities, self.settings.secure)?;
        self.check_session(1)?;
        if follows_others && self.framing() != Framing::Data {
            // If the chunk before is refused, its transaction may still be open.
            self.wire.push(Command::Rset, PendingReply::AutoRset);
        }
        self.transactions
            .push_back(TransactionState::new(transaction, complete));
        self.transactions_started += 1;
        self.stuffer = Stuffer::new();
        self.state = State::Transaction;
        self.advance();
        Ok(())
    }

    /// What is beyond the size, or missing, would be read as commands, or commands as the message.
    fn not_as_announced(&mut self, size: u64) -> Error {
        let message = format!(
            "the message has another size than the {size} bytes announced; it was not sent"
        );
        self.close();
        Error::new(ErrorKind::Input, Phase::Body, message)
    }

    fn require(&self, state: State, what: &str) -> Result<()> {
        if self.state == state && self.failure.is_none() {
            return Ok(());
        }
        let (kind, message) = match self.state {
            _ if self.failure.is_some() => (ErrorKind::Closed, "the session is over".to_owned()),
            State::Closed | State::Refused | State::Ending => {
                (ErrorKind::Closed, "the session is over".to_owned())
            }
            _ => (ErrorKind::Request, format!("{what} is out of turn now")),
        };
        Err(Error::new(kind, self.phase(), message))
    }

    fn require_body(&self, what: &str) -> Result<()> {
        self.require(State::Body, what)?;
        if self.is_held() {
            let message = format!("{what} is out of turn: what the server sends is not whole");
            return Err(Error::new(ErrorKind::Request, self.phase(), message));
        }
        Ok(())
    }

    /// Ready, and nothing outstanding: what was sent before is answered, and nothing came unasked.
    fn require_ready(&mut self, what: &str) -> Result<()> {
        self.require(State::Ready, what)?;
        self.say_due_rset();
        self.require_quiet(what)
    }

    /// Ready, or between the steps of a transaction.
    fn require_idle(&mut self, what: &str) -> Result<()> {
        if self.state != State::Transaction {
            self.require(State::Ready, what)?;
        }
        self.say_due_rset();
        self.require_quiet(what)
    }

    /// Nothing is outstanding, and nothing came that was not asked for: a 421 gives the error its
    /// text.
    fn require_quiet(&mut self, what: &str) -> Result<()> {
        if !self.wire.queue.is_empty() || !self.events.is_empty() {
            let message = format!(
                "{what} is out of turn: the answer to what was sent before is not there, or was \
                    not looked at"
            );
            return Err(Error::new(ErrorKind::Request, self.phase(), message));
        }
        match self.take_reply() {
            Ok(false) => {}
            Ok(true) => return self.require_quiet(what),
            Err(error) => return Err(self.fail(error)),
        }
        if let Some(reply) = self.parser.unterminated_421(&self.input) {
            return Err(self.fail(unsolicited(Phase::Command, reply)));
        }
        if self.is_unread() {
            let message = format!("the server sent {:?}, and nothing was asked", self.unread());
            return Err(self.abort(ErrorKind::Protocol, message));
        }
        Ok(())
    }

    fn open_transaction(&mut self, what: &str) -> Result<&mut TransactionState> {
        self.require(State::Transaction, what)?;
        self.require_quiet(what)?;
        self.transactions
            .back_mut()
            .ok_or_else(|| Error::request("no transaction is open"))
    }
}

/// Credentials that the mechanism does not take, or a mechanism that cannot begin.
fn unusable(failure: SaslFailure) -> Error {
    Error::new(ErrorKind::Request, Phase::Auth, failure.to_string())
}
