//! The calls of a machine, as the [table](super#what-may-be-called) has them.

use super::data::OutgoingMessage;
use super::encode::Command;
use super::error::Result;
use super::queue::PendingReply;
use super::replies::unsolicited;
use super::sasl::Login;
use super::transaction::{Framing, TransactionState};
use super::{
    Capabilities, ChannelBinding, Chunk, Event, Machine, Mechanism, OutOfTurn, Phase,
    ProtocolError, RawCommand, Reason, ReplyParser, SaslExchange, SaslSession, State, Stuffer,
    Transaction,
};
use crate::address::Address;
use crate::secret::Credentials;

/// # The caller's calls
impl Machine {
    /// Reports that the TLS handshake that [`Step::Upgrade`](super::Step::Upgrade) asked for was
    /// made. Everything learnt in clear text is forgotten (RFC 3207, 4.2).
    ///
    /// # Errors
    ///
    /// [`Reason::InjectedBeforeTls`] where bytes came in clear text after the server's go-ahead: an
    /// attacker may have put them there to be read as if they had come inside TLS.
    /// [`Reason::OutOfTurn`] where no handshake was asked for.
    pub fn upgraded(&mut self) -> Result<(), ProtocolError> {
        self.require(State::Upgrade, "the TLS handshake")?;
        if !self.input.is_empty() {
            let error = self.injected();
            self.close();
            return Err(error);
        }
        self.secure = true;
        self.capabilities = Capabilities::default();
        self.parser = ReplyParser::new(self.settings.limits.clone());
        self.send_hello();
        Ok(())
    }

    /// Sets what ties a login to the TLS connection, for mechanisms with channel binding. To be
    /// called after the handshake.
    pub fn set_channel_binding(&mut self, channel: ChannelBinding) {
        self.channel = Some(channel);
    }

    /// The mechanisms that can log in with these credentials, the best one first: the server offers
    /// them, and this build has them. Outside TLS, those that show the password come last.
    pub fn mechanisms(&self, credentials: &Credentials) -> Vec<Mechanism> {
        let offered = self.capabilities.auth();
        let usable = |mechanism: &Mechanism| {
            offered.iter().any(|name| name == mechanism.as_str())
                && (self.channel.is_some() || !mechanism.is_bound())
                && mechanism.exchange(credentials).is_ok()
        };
        let mut mechanisms: Vec<_> = Mechanism::ALL.iter().copied().filter(usable).collect();
        if !self.secure {
            mechanisms.sort_by_key(|mechanism| mechanism.shows_secret());
        }
        mechanisms
    }

    /// Logs in. [`Event::Login`] reports the result.
    ///
    /// # Errors
    ///
    /// [`Reason::LoginInClear`] outside TLS, unless the [settings](super::Settings::auth_in_clear)
    /// allow it; [`Reason::MechanismNotOffered`] by the newest answer to EHLO;
    /// [`Reason::LoginUnusable`] for credentials that the mechanism cannot use;
    /// [`Reason::OutOfTurn`] where the machine is not ready.
    pub fn login(
        &mut self,
        mechanism: Mechanism,
        credentials: &Credentials,
    ) -> Result<(), ProtocolError> {
        self.require_login(mechanism)?;
        let exchange = mechanism
            .exchange(credentials)
            .map_err(ProtocolError::login_unusable)?;
        self.secrets.add_with_base64(credentials.secret());
        self.start_login(exchange)
    }

    /// Logs in with a mechanism that is not part of envoi. [`Event::Login`] reports the result.
    ///
    /// # Errors
    ///
    /// As for [`login`](Self::login).
    pub fn login_with(&mut self, exchange: Box<dyn SaslExchange>) -> Result<(), ProtocolError> {
        self.require_login(exchange.mechanism())?;
        self.start_login(exchange)
    }

    fn require_login(&mut self, mechanism: Mechanism) -> Result<()> {
        self.require_ready("a login")?;
        if !self.secure && !self.settings.auth_in_clear {
            let reason = Reason::LoginInClear(self.settings.protocol);
            return Err(ProtocolError::new(Phase::Auth, reason));
        }
        let offered = self.capabilities.auth();
        if !offered
            .iter()
            .any(|name| name.eq_ignore_ascii_case(mechanism.as_str()))
        {
            let reason = Reason::MechanismNotOffered {
                mechanism,
                offered,
                starttls_unused: !self.secure && self.capabilities.offers("STARTTLS"),
                port: self.port(),
                protocol: self.settings.protocol,
            };
            return Err(ProtocolError::new(Phase::Auth, reason));
        }
        Ok(())
    }

    fn start_login(&mut self, exchange: Box<dyn SaslExchange>) -> Result<()> {
        let session = SaslSession {
            settings: &self.settings,
            capabilities: &self.capabilities,
            channel: self.channel.as_ref(),
            secure: self.secure,
        };
        let (login, line, shown) = Login::begin(exchange, &session, &mut self.secrets)
            .map_err(ProtocolError::login_unusable)?;
        self.wire.push_secret(line, &shown, login);
        self.state = State::Authenticating;
        Ok(())
    }

    /// Whether [`begin`](Self::begin) may be called now: no reply is outstanding or, if the server
    /// offers PIPELINING, only replies to messages that were given whole. Several messages can be
    /// in flight that way; their events come in order.
    pub fn may_begin(&self) -> bool {
        let queue = &self.wire.queue;
        let is_free = queue.is_empty() && !self.rset_due && !self.wire.is_holding();
        self.state == State::Ready
            && self.failure.is_none()
            && !self.is_held()
            && (is_free || queue.lets_follow() && self.capabilities.offers("PIPELINING"))
    }

    /// The number of further transactions that the server takes in this session; `None` if it
    /// [sets no limit](Capabilities::limits).
    pub fn transactions_left(&self) -> Option<usize> {
        self.capabilities
            .limits()
            .mail_max
            .map(|max| max.saturating_sub(self.transactions_started))
    }

    /// The number of transactions that were begun in this session.
    #[cfg(feature = "client")]
    pub(crate) fn transactions_begun(&self) -> usize {
        self.transactions_started
    }

    /// Whether the session goes on and no transaction is open in it. A reply may be outstanding.
    #[cfg(feature = "client")]
    pub(crate) fn is_between_transactions(&self) -> bool {
        self.state.is_between_transactions()
    }

    /// Checks that as many more transactions can follow in this session.
    pub(crate) fn check_session(&self, more: usize) -> Result<()> {
        self.capabilities
            .limits()
            .check_session(self.transactions_started, more)
    }

    /// Begins a transaction with all its recipients. [`Event::Sender`] follows, an
    /// [`Event::Recipient`] for each, [`Step::Body`](super::Step::Body), in LMTP and with PRDR an
    /// [`Event::RecipientResult`] for each, and at last [`Event::Accepted`] or [`Event::Rejected`].
    ///
    /// # Errors
    ///
    /// One of the reasons for which the server cannot take this message, by what it offers: nothing
    /// is sent then, and the machine stays ready. [`Reason::SessionFull`] where no more
    /// transactions are [left](Self::transactions_left). [`Reason::NoRecipient`] without a
    /// recipient.
    pub fn begin(&mut self, transaction: Transaction) -> Result<(), ProtocolError> {
        if transaction.recipients.is_empty() {
            return Err(ProtocolError::new(Phase::Setup, Reason::NoRecipient));
        }
        self.start(transaction, true)
    }

    /// Opens a transaction whose recipients follow by [`rcpt`](Self::rcpt). [`Event::Sender`]
    /// reports the reply; if it is negative, the transaction is not open.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin); and [`Reason::RecipientsGiven`] where the transaction has
    /// recipients already, which RCPT would go to in one group and without a chance to refuse.
    pub fn mail(&mut self, transaction: Transaction) -> Result<(), ProtocolError> {
        if !transaction.recipients.is_empty() {
            return Err(ProtocolError::new(Phase::Mail, Reason::RecipientsGiven));
        }
        self.start(transaction, false)
    }

    /// Adds a recipient to the transaction that [`mail`](Self::mail) opened. [`Event::Recipient`]
    /// reports the reply. A negative one ends a transaction for [all or
    /// nothing](Transaction::all_or_nothing).
    ///
    /// # Errors
    ///
    /// [`Reason::OutOfTurn`] where no transaction is open; [`Reason::RecipientNotAscii`] for an
    /// address beyond ASCII in one that began without SMTPUTF8; [`Reason::TooManyRecipients`] or
    /// [`Reason::TooManyDomains`] for more than the server [takes at
    /// once](Capabilities::limits).
    pub fn rcpt(&mut self, address: Address) -> Result<(), ProtocolError> {
        let limits = self.capabilities.limits();
        let progress = self.open_transaction("a recipient")?;
        if address.to_ascii().is_none() && !progress.utf8 {
            let reason = Reason::RecipientNotAscii(address);
            return Err(ProtocolError::new(Phase::Rcpt, reason));
        }
        let others = progress.transaction.recipients.len();
        limits.check_another(others, &mut progress.domains, &address)?;
        progress.transaction.recipients.push(address);
        self.advance();
        Ok(())
    }

    /// Asks for the message of the transaction that [`mail`](Self::mail) opened.
    /// [`Step::Body`](super::Step::Body) or [`Event::Rejected`] follows.
    ///
    /// # Errors
    ///
    /// [`Reason::OutOfTurn`] where no transaction is open; [`Reason::NoRecipientAccepted`].
    pub fn data(&mut self) -> Result<(), ProtocolError> {
        let progress = self.open_transaction("the message")?;
        if progress.accepted.is_empty() {
            return Err(ProtocolError::new(Phase::Data, Reason::NoRecipientAccepted));
        }
        progress.complete = true;
        self.advance();
        Ok(())
    }

    /// Gives a piece of the message, of any size. Line ends are made CRLF here, and with DATA dots
    /// are doubled.
    ///
    /// # Errors
    ///
    /// [`Reason::OutOfTurn`]. The session is over after [`Reason::EightBitFound`]: a byte beyond
    /// ASCII that was not declared, where the server does not offer 8BITMIME; after
    /// [`Reason::NulInText`] for a NUL in what is not [binary](super::Content::Binary); and after
    /// [`Reason::SizeDiffers`] for more bytes than a chunk was announced with.
    pub fn body(&mut self, chunk: impl Into<Chunk>) -> Result<(), ProtocolError> {
        self.require_body("a piece of the message")?;
        let mut piece = chunk.into();
        if let Some(reason) = self.unfit(&mut piece) {
            self.close();
            return Err(ProtocolError::new(Phase::Body, reason));
        }
        let framing = self.framing();
        self.message.push(piece, framing, self.wire.tail());
        match framing {
            // The last piece is not among these bytes yet.
            Framing::Chunk(size) if self.message.bytes() >= size => Err(self.size_differs(size)),
            Framing::HeldChunk(size) if self.message.bytes() > size => Err(self.size_differs(size)),
            Framing::Data | Framing::Chunk(_) | Framing::HeldChunk(_) => Ok(()),
            Framing::Chunks => {
                self.flush_chunks();
                Ok(())
            }
        }
    }

    /// Why this piece must not be sent.
    fn unfit(&self, piece: &mut Chunk) -> Option<Reason> {
        if self.message.is_verbatim() {
            return None;
        }
        if !self.capabilities.offers("8BITMIME") && !piece.is_seven_bit() {
            return Some(Reason::EightBitFound);
        }
        // Text has no NUL (RFC 2045, 2.8). A server that drops it may read an end of the message
        // where there was none.
        piece.has_nul().then_some(Reason::NulInText)
    }

    /// Ends the message. [`Event::Accepted`] or [`Event::Rejected`] follows. Where the transaction
    /// asks for [it](Transaction::hand_over), the end is held back until
    /// [`hand_over`](Self::hand_over).
    ///
    /// # Errors
    ///
    /// [`Reason::OutOfTurn`]. [`Reason::SizeDiffers`] for fewer bytes than a chunk was announced
    /// with: the session is over then.
    pub fn finish(&mut self) -> Result<(), ProtocolError> {
        let call = "the end of the message";
        self.require_body(call)?;
        if !self.can_send_chunk() {
            let cause = OutOfTurn::ChunkUnanswered;
            return Err(ProtocolError::new(
                Phase::Body,
                Reason::OutOfTurn { call, cause },
            ));
        }
        let framing = self.framing();
        let held = self.transactions.back().filter(|state| state.is_end_held);
        let is_permitted = held.map(|state| !state.transaction.hand_over);
        if let Some(is_permitted) = is_permitted {
            self.wire.hold_end(is_permitted);
        }
        self.message.finish(framing, self.wire.tail());
        let bytes = self.message.bytes();
        self.wire.note(&format!("the message, {bytes} bytes"));
        match framing {
            Framing::Chunk(size) | Framing::HeldChunk(size) if bytes != size => {
                return Err(self.size_differs(size));
            }
            Framing::Chunk(_) => {}
            Framing::HeldChunk(_) | Framing::Chunks => self.send_last_chunk(),
            Framing::Data => self.wire.note_client("."),
        }
        self.state = State::Ready;
        if is_permitted.is_some() {
            self.wire.end_is_whole();
            if let Some(state) = self.transactions.back_mut() {
                state.held_size = (framing == Framing::Data).then_some(bytes);
            }
            self.release();
        } else {
            let end = self.wire.end();
            if let Some(progress) = self.transactions.back_mut() {
                progress.ends_at = Some(end);
            }
        }
        Ok(())
    }

    /// Permits the end of the message to be written: from now on, it may be delivered. Of several
    /// messages whose end is held back, this is about the first one.
    ///
    /// # Errors
    ///
    /// [`Reason::OutOfTurn`] where no message [waits](Self::held_messages) for it.
    pub fn hand_over(&mut self) -> Result<(), ProtocolError> {
        self.require_held_message("the hand-over")?;
        self.wire.permit();
        self.release();
        Ok(())
    }

    /// Withdraws the message whose end is held back: it is certain that the server does not have
    /// it. Of several, this is about the first one. [`Event::Withdrawn`] follows, once the commands
    /// before it are answered.
    ///
    /// In chunks, the session goes on: RSET takes the place of the last chunk. After DATA, the
    /// server takes everything for a part of the message until its end comes, so the session is
    /// over.
    ///
    /// # Errors
    ///
    /// As for [`hand_over`](Self::hand_over).
    pub fn withdraw(&mut self) -> Result<(), ProtocolError> {
        self.require_held_message("the withdrawal of the message")?;
        let index = self.wire.permitted_ends();
        self.wire.drop_end();
        let note = "the message was withdrawn before its end";
        self.wire.transcript.note(note);
        if let Some(state) = self.not_handed_over(index) {
            state.is_withdrawn = true;
            match state.framing {
                // DATA was answered after all messages before it.
                Framing::Data => {
                    self.events.push_back(Event::Withdrawn);
                    self.close();
                    return Ok(());
                }
                // The replies to the chunks before the last one do not matter.
                Framing::Chunks => self.wire.queue.discard_chunks(),
                Framing::Chunk(_) | Framing::HeldChunk(_) => {}
            }
        }
        self.conclude_given_up();
        self.release();
        Ok(())
    }

    /// The number of messages whose end is held back until [`hand_over`](Self::hand_over) or
    /// [`withdraw`](Self::withdraw) is called.
    pub fn held_messages(&self) -> usize {
        self.wire.held_messages()
    }

    /// Whether a message, or what follows one, is held back.
    #[cfg(feature = "client")]
    pub(crate) fn is_holding(&self) -> bool {
        self.wire.is_holding()
    }

    /// The recipients that the message that is being given, or was given last, may reach: those
    /// that the server has not refused.
    #[cfg(feature = "client")]
    pub(crate) fn possible_recipients(&self) -> Vec<Address> {
        let Some(state) = self.transactions.back() else {
            return Vec::new();
        };
        let recipients = &state.transaction.recipients;
        let accepted = state.accepted.iter().map(|index| &recipients[*index]);
        accepted
            .chain(&recipients[state.answered..])
            .cloned()
            .collect()
    }

    /// Drops the open transaction, if there is one. [`Event::Reply`] reports the reply.
    ///
    /// # Errors
    ///
    /// [`Reason::OutOfTurn`].
    pub fn reset(&mut self) -> Result<(), ProtocolError> {
        self.require_idle("RSET")?;
        self.transactions.clear();
        self.state = State::Ready;
        self.wire.push(Command::Rset, PendingReply::Reset);
        Ok(())
    }

    /// Sends NOOP. [`Event::Reply`] reports the reply.
    ///
    /// # Errors
    ///
    /// [`Reason::OutOfTurn`].
    pub fn noop(&mut self) -> Result<(), ProtocolError> {
        self.require_idle("NOOP")?;
        self.wire.push(Command::Noop, PendingReply::Noop);
        Ok(())
    }

    /// Sends another command. [`Event::Reply`] reports the reply.
    ///
    /// # Errors
    ///
    /// [`Reason::OutOfTurn`]. [`Reason::CommandNotAscii`] for one beyond ASCII, where the server
    /// does not offer SMTPUTF8.
    pub fn command(&mut self, command: &RawCommand) -> Result<(), ProtocolError> {
        self.require_idle("a command")?;
        if !command.as_str().is_ascii() && !self.capabilities.offers("SMTPUTF8") {
            return Err(ProtocolError::new(Phase::Command, Reason::CommandNotAscii));
        }
        self.wire.push(Command::Raw(command), PendingReply::Command);
        Ok(())
    }

    /// Ends the session. [`Step::Closed`](super::Step::Closed) follows.
    ///
    /// It may also be called after an error by which the server refused the session, and right
    /// after a message was rejected: QUIT then goes in place of the RSET that would follow or, with
    /// PIPELINING, together with what is unanswered of the message.
    ///
    /// # Errors
    ///
    /// [`Reason::OutOfTurn`]. [`Reason::SessionOver`] where nothing may be sent any more: the
    /// server ended the session, or something else than a refusal did.
    pub fn quit(&mut self) -> Result<(), ProtocolError> {
        if !matches!(self.state, State::Transaction | State::Refused) {
            self.require(State::Ready, "QUIT")?;
        }
        let is_pipelined = self.capabilities.offers("PIPELINING")
            && self.wire.queue.all(PendingReply::is_of_no_interest);
        if !is_pipelined || self.wire.queue.is_empty() || self.wire.is_holding() {
            self.require_quiet("QUIT")?;
        }
        self.rset_due = false;
        self.wire.push(Command::Quit, PendingReply::Quit);
        self.state = State::Quitting;
        Ok(())
    }

    fn start(&mut self, transaction: Transaction, complete: bool) -> Result<()> {
        self.send_due_rset();
        let others = !self.wire.queue.is_empty() || self.wire.is_holding();
        let follows_others = complete && others && self.may_begin();
        if !follows_others {
            self.require_ready("a transaction")?;
        }
        transaction.check(&self.capabilities, self.secure)?;
        self.check_session(1)?;
        if follows_others && self.framing() != Framing::Data {
            // If the chunk before is refused, its transaction may still be open.
            self.wire.push(Command::Rset, PendingReply::AutoRset);
        }
        self.transactions
            .push_back(TransactionState::new(transaction, complete));
        self.transactions_started += 1;
        self.message = OutgoingMessage::new(Stuffer::new());
        self.state = State::Transaction;
        self.advance();
        Ok(())
    }

    /// Ends the session: the server would read what exceeds the size as commands or, if bytes are
    /// missing, commands as the message.
    fn size_differs(&mut self, announced: u64) -> ProtocolError {
        self.close();
        ProtocolError::new(Phase::Body, Reason::SizeDiffers { announced })
    }

    fn require(&self, state: State, call: &'static str) -> Result<()> {
        if self.state == state && self.failure.is_none() {
            return Ok(());
        }
        Err(match self.state {
            _ if self.failure.is_some() => self.failed(Reason::SessionOver),
            State::Closed | State::Refused | State::Ending => self.failed(Reason::SessionOver),
            State::Authenticating | State::Quitting => {
                self.out_of_turn(call, OutOfTurn::Unanswered)
            }
            _ => self.out_of_turn(call, OutOfTurn::State),
        })
    }

    fn out_of_turn(&self, call: &'static str, cause: OutOfTurn) -> ProtocolError {
        self.failed(Reason::OutOfTurn { call, cause })
    }

    fn require_body(&self, call: &'static str) -> Result<()> {
        self.require(State::Body, call)?;
        if self.is_held() {
            return Err(self.out_of_turn(call, OutOfTurn::ReplyIncomplete));
        }
        Ok(())
    }

    /// Checks that a message waits for its hand-over.
    fn require_held_message(&self, call: &'static str) -> Result<()> {
        match self.state {
            _ if self.wire.held_messages() > 0 && self.failure.is_none() => Ok(()),
            State::Closed | State::Refused | State::Ending => Err(self.failed(Reason::SessionOver)),
            _ if self.failure.is_some() => Err(self.failed(Reason::SessionOver)),
            _ => Err(self.out_of_turn(call, OutOfTurn::State)),
        }
    }

    /// Checks that the state is Ready and nothing is outstanding.
    fn require_ready(&mut self, call: &'static str) -> Result<()> {
        self.require(State::Ready, call)?;
        self.send_due_rset();
        self.require_quiet(call)
    }

    /// Checks that the state is Ready or Transaction and nothing is outstanding.
    fn require_idle(&mut self, call: &'static str) -> Result<()> {
        if self.state != State::Transaction {
            self.require(State::Ready, call)?;
        }
        self.send_due_rset();
        self.require_quiet(call)
    }

    /// Checks that nothing is outstanding and nothing came that was not asked for. The error for a
    /// 421 has its text.
    fn require_quiet(&mut self, call: &'static str) -> Result<()> {
        if self.wire.is_holding() {
            return Err(self.out_of_turn(call, OutOfTurn::NotHandedOver));
        }
        if !self.wire.queue.is_empty() || !self.events.is_empty() {
            return Err(self.out_of_turn(call, OutOfTurn::Unanswered));
        }
        match self.take_reply() {
            Ok(false) => {}
            Ok(true) => return self.require_quiet(call),
            Err(error) => return Err(self.fail(error)),
        }
        if let Some(reply) = self.parser.unterminated_421(&self.input) {
            return Err(self.fail(unsolicited(Phase::Command, reply)));
        }
        if self.is_unread() {
            let error = self.failed(Reason::UnsolicitedInput(self.unread()));
            return Err(self.fail(error));
        }
        Ok(())
    }

    fn open_transaction(&mut self, call: &'static str) -> Result<&mut TransactionState> {
        self.require(State::Transaction, call)?;
        self.require_quiet(call)?;
        self.transactions
            .back_mut()
            .ok_or_else(|| ProtocolError::new(Phase::Setup, Reason::NoTransaction))
    }
}
