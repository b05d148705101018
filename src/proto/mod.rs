//! The SMTP client as a machine without a socket: what may be said, and when.
//!
//! [`Machine`] is deterministic. It knows no network, no clock, no async and no TLS library: the
//! caller, called the driver here, carries bytes to and from the server and asks for the next
//! [`Step`]. The same bytes give the same events, however they are cut. `Connection` is such
//! a driver on tokio; `examples/blocking.rs` is one on a socket of the standard library.
//!
//! # The life of a session
//!
//! The server greets, and the machine says EHLO; to a server that knows no EHLO it says HELO. ([In LMTP](Protocol::Lmtp) it is LHLO.) If TLS
//! is wanted it says STARTTLS, and asks the driver for the handshake ([`Step::Upgrade`]). All that was learnt
//! in clear is then forgotten and EHLO is said again. From [`Step::Ready`] on, the driver can
//! [log in](Machine::login), [begin a transaction](Machine::begin), give a [command](Machine::command), or
//! [quit](Machine::quit).
//!
//! ```text
//!             220           250            (no STARTTLS wanted)
//!  Greeting ──────► Hello ───────────────────────────────────────► Ready ──quit──► Closed
//!                    ▲ │ STARTTLS   220               upgraded()    ▲ │
//!                    │ └──────────► StartTls ──► Upgrade ──┐        │ │ begin()
//!                    └──── EHLO again ─────────────────────┘        │ ▼
//!                                                     Sent, NotSent │ Transaction: MAIL, RCPT…, DATA
//!                                                                   │ │ 354
//!                                                                   │ ▼
//!                                                                   └ Body: pieces, then the final dot
//! ```
//!
//! A small message whose [size](Transaction::size) is known goes together with the commands where the server offers CHUNKING
//! (BDAT, RFC 3030), and there is no DATA and no final dot: with PIPELINING,
//! [`Step::Body`] then comes before the answers to the recipients. A large one that is [binary](Content::Binary) goes in several chunks,
//! once the recipients are answered; any other goes behind DATA, which costs no more and which every server takes.
//!
//! In LMTP, and with PRDR in SMTP, the server answers to the message for each recipient: [`Step::Verdict`] comes before [`Step::Sent`].
//! PRDR (draft-hall-prdr) is asked for where it is offered and there is more than one recipient.
//!
//! What may be *written* is the machine's state. What will be *read* is its queue: each command that
//! waits for a reply stands in it, so a reply belongs to one command, whether commands were sent in
//! a group (PIPELINING, RFC 2920) or one by one. Several transactions can be under way
//! ([`Machine::may_begin`]). 421 may come at any point and ends the session.
//!
//! # What a driver does
//!
//! It calls [`Machine::step`] until that says [`Step::Wait`], then carries bytes, then calls it again. It owes the machine:
//!
//! - **Writing.** `step` itself may put something into the [output](Machine::output): write *after* it said `Wait`, before a reply
//!   is waited for. [`Machine::wrote`] is told of each partial write, as what became of a message depends on it.
//! - **Reading while writing.** A server may answer, or refuse, before it has read everything. A driver that only writes
//!   does not hear it, and the two may wait for each other. (What fits into the socket's buffer may be written first.)
//! - **The end.** [`Machine::input_ended`] when nothing more can be read. When writing fails, read on for a moment: the
//!   server may have said why it closed.
//! - **The handshake**, when `step` says [`Step::Upgrade`]: nothing but TLS may be read from the socket from there on.
//! - **The time.** `Wait` names the phase, the driver has the clock; [`Machine::abort`] ends the session and says whether
//!   the outcome of a message is unknown by then.
//! - **A look before a command**: on a connection that was kept, take what can be read without waiting. A server that has
//!   given up said so there.
//!
//! # A session
//!
//! ```
//! use envoi::proto::{ClientName, Machine, Settings, Step, Transaction};
//! use envoi::{Address, Envelope};
//!
//! // What a server would send: here it is known beforehand.
//! let mut server = [
//!     "220 mail.example.org ESMTP\r\n",
//!     "250-mail.example.org\r\n250 PIPELINING\r\n",
//!     "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go ahead\r\n",
//!     "250 2.0.0 Ok: queued as 4F2\r\n",
//! ]
//! .into_iter();
//! let mut sent = Vec::new();
//!
//! let mut machine = Machine::new(Settings::new(ClientName::new("client.example.org")?));
//! let envelope = Envelope::new(Address::new("me@example.org")?, [Address::new("you@example.com")?])?;
//! let mut begun = false;
//! let final_words = loop {
//!     match machine.step()? {
//!         // Write what the machine has to say, and read.
//!         Step::Wait { .. } => {
//!             while !machine.output().is_empty() {
//!                 let n = machine.output().front().len();
//!                 sent.extend_from_slice(machine.output().front());
//!                 machine.wrote(n);
//!             }
//!             let bytes = server.next().expect("the server has an answer");
//!             assert_eq!(machine.input(bytes.as_bytes()), bytes.len());
//!         }
//!         Step::Ready if !begun => {
//!             machine.begin(Transaction::new(&envelope))?;
//!             begun = true;
//!         }
//!         // Body.
//!         Step::Body { .. } => {
//!             machine.body("Subject: hello\r\n\r\n.hidden\r\n")?;
//!             machine.finish()?;
//!         }
//!         // Events.
//!         Step::Recipient { reply, .. } => assert!(reply.is_positive()),
//!         Step::Sent { reply } => break reply,
//!         _ => {}
//!     }
//! };
//! assert_eq!(final_words.text(), "Ok: queued as 4F2");
//! assert!(String::from_utf8_lossy(&sent).ends_with("DATA\r\nSubject: hello\r\n\r\n..hidden\r\n.\r\n"));
//! # Ok::<(), envoi::Error>(())
//! ```

mod capabilities;
mod command;
mod dot;
mod limits;
mod on_reply;
mod output;
mod reply;
pub(crate) mod sasl;
mod settings;
mod step;
mod transaction;
mod transcript;
mod wire;

use std::collections::VecDeque;

use bytes::BytesMut;

pub use capabilities::{Capabilities, FutureRelease, Keyword};
pub use command::{ClientName, RawCommand};
pub use dot::{Chunk, Content, Stuffer};
pub use limits::OfferedLimits;
pub use output::Output;
pub use reply::{BadReply, EnhancedCode, Reply, ReplyParser};
pub use sasl::{ChannelBinding, Mechanism, SaslExchange, SaslFailure, SaslSession};
pub use settings::{Limits, Protocol, Settings, StartTls};
pub use step::Step;
pub use transaction::Transaction;
pub use transcript::Transcript;

use crate::Credentials;
use crate::address::Address;
use crate::error::{Error, Kind, Phase, Result};
use crate::hint;
use command::Command;
use sasl::Login;
use transaction::{FinalReplies, Framing, Progress};
pub(crate) use transcript::Secrets;
use wire::{Expected, Wire};

/// When so much waits to be written, the machine asks for no more of the message. It is what is written at once, too: with
/// less, the calls to the system cost more than the encryption; more gains nothing.
const HIGH_WATER: usize = 256 * 1024;

/// What is unread beyond an incomplete line is at most this.
const READ_AHEAD: usize = 64 * 1024;

/// What may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing: the session is being set up, and the machine itself knows what to say.
    Opening,
    /// Nothing until the TLS handshake is made.
    Upgrade,
    Ready,
    /// MAIL, RCPT and DATA, as far as [`Progress`] has come.
    Transaction,
    Body,
    Closed,
}

/// The client's side of an SMTP session. [The module](self) tells how it is driven.
pub struct Machine {
    settings: Settings,
    state: State,
    wire: Wire,
    secrets: Secrets,
    events: VecDeque<Step>,
    input: BytesMut,
    input_ended: bool,
    parser: ReplyParser,
    /// All bytes that the transport ever took.
    written: u64,
    greeting: Option<Reply>,
    capabilities: Capabilities,
    channel: Option<ChannelBinding>,
    /// The transactions that have no outcome yet: replies are for the first, and the last is the one being written.
    transactions: VecDeque<Progress>,
    /// How many transactions have begun in this session.
    mails: usize,
    stuffer: Stuffer,
    /// The newest piece of the one chunk that a message is.
    held_piece: Option<Chunk>,
    /// The chunk that is being filled, of several.
    filling: Output,
    /// Something went since the last reply came.
    in_flight: bool,
    round_trips: u32,
    replies: u64,
    /// How many messages had been handed over and not answered when the session ended.
    left_unknown: usize,
    /// What ends the session, when the events before it were told.
    failure: Option<Error>,
}

impl Machine {
    /// A machine at the beginning of a session: it waits for the greeting.
    pub fn new(settings: Settings) -> Self {
        Machine {
            state: State::Opening,
            wire: Wire { queue: VecDeque::from([Expected::Greeting]), ..Wire::default() },
            secrets: Secrets::default(),
            events: VecDeque::new(),
            input: BytesMut::new(),
            input_ended: false,
            parser: ReplyParser::new(settings.limits.clone()),
            written: 0,
            greeting: None,
            capabilities: Capabilities::default(),
            channel: None,
            transactions: VecDeque::new(),
            mails: 0,
            stuffer: Stuffer::new(),
            held_piece: None,
            filling: Output::default(),
            // The connection itself was asked for.
            in_flight: true,
            round_trips: 0,
            replies: 0,
            left_unknown: 0,
            failure: None,
            settings,
        }
    }

    // ---- Bytes ----

    /// What waits to be written.
    pub fn output(&self) -> &Output {
        &self.wire.output
    }

    /// The transport took so many bytes of the output: it answers for them, if only in a buffer.
    ///
    /// # Panics
    ///
    /// Where so many did not wait.
    pub fn wrote(&mut self, n: usize) {
        self.wire.output.advance(n);
        self.written += n as u64;
        self.in_flight |= n > 0;
    }

    /// Stores bytes that the server sent, and says how many it took: all, unless more than the
    /// [limits](Limits) allow are unread. Give the rest when [`step`](Self::step) has said what these mean.
    #[must_use = "bytes that were not taken must be given again"]
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        let room = (self.settings.limits.line + READ_AHEAD).saturating_sub(self.input.len());
        let taken = bytes.len().min(room);
        self.input.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// No more bytes will come: the server closed the connection, or it broke.
    pub fn input_ended(&mut self) {
        self.input_ended = true;
    }

    // ---- What is next ----

    /// What is next. To be called until it says `Wait`, after each change.
    ///
    /// # Errors
    ///
    /// Whatever ends the session before its time: a refusal of the greeting, EHLO or STARTTLS
    /// ([`Kind::Refused`], [`Kind::Tls`]), a reply out of order or past a limit ([`Kind::Protocol`]), the end of the input
    /// ([`Kind::Closed`]). It comes after all events that came before it, and [`Step::Closed`] follows.
    pub fn step(&mut self) -> Result<Step> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if self.state == State::Closed {
                return Ok(Step::Closed);
            }
            let outcome_unknown = self.outcome_unknown();
            match self.failure.take().map_or_else(|| self.take_reply(), Err) {
                Ok(true) => continue,
                Ok(false) => return Ok(self.wanted()),
                Err(error) => {
                    self.close();
                    return Err(error.with_outcome_unknown(outcome_unknown).redacted(&self.secrets));
                }
            }
        }
    }

    /// The message was handed over whole, and its final reply has not come, or not for every recipient: it may have been
    /// delivered, or not. From the final dot on, until a well-formed reply.
    pub fn outcome_unknown(&self) -> bool {
        self.outstanding_messages() > 0
    }

    /// How many messages had been handed over whole and had no final reply when the session ended. Of
    /// [several](Self::may_begin) that were begun they are the first ones without one.
    pub fn left_unknown(&self) -> usize {
        self.left_unknown
    }

    fn outstanding_messages(&self) -> usize {
        let outstanding = self.wire.queue.iter().filter(|expected| match expected {
            Expected::EndOfData { ends_at } => ends_at.is_some_and(|end| self.written >= end),
            _ => false,
        });
        outstanding.count()
    }

    /// Ends the session for a reason of the driver's, such as a time limit, and makes the error for it.
    pub fn abort(&mut self, kind: Kind, message: impl Into<String>) -> Error {
        let error = Error::new(kind, self.phase(), message).with_outcome_unknown(self.outcome_unknown());
        self.close();
        error.redacted(&self.secrets)
    }

    /// The server's first words, once it has said them.
    pub fn greeting(&self) -> Option<&Reply> {
        self.greeting.as_ref()
    }

    /// What the newest answer to EHLO offered; empty before it and after STARTTLS.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The session is protected by TLS.
    pub fn is_secure(&self) -> bool {
        self.settings.secure
    }

    /// How often the server had to be waited for: each first reply after something was written, the greeting included.
    pub fn round_trips(&self) -> u32 {
        self.round_trips
    }

    /// How many replies came. A time limit is one for each, also where several come one after another in a phase.
    pub fn replies(&self) -> u64 {
        self.replies
    }

    /// The bytes of the message that went last or is going, without added dots and the final one.
    pub fn message_bytes(&self) -> u64 {
        self.stuffer.bytes()
    }

    /// Of [these](Self::message_bytes), the ones that the transport has taken. Where dots were added or commands wait, too, it may be
    /// a few bytes more than that.
    pub fn message_bytes_gone(&self) -> u64 {
        self.stuffer.bytes().saturating_sub((self.wire.output.len() + self.filling.len()) as u64)
    }

    /// The dialogue so far, without secrets.
    pub fn transcript(&self) -> &Transcript {
        &self.wire.transcript
    }

    /// This session goes on with what another one began: its transcript and round trips come first.
    #[cfg(feature = "client")]
    pub(crate) fn follow(&mut self, before: &Machine) {
        self.wire.transcript.precede(&before.wire.transcript);
        self.round_trips += before.round_trips;
    }

    #[cfg(feature = "client")]
    pub(crate) fn transcript_mut(&mut self) -> &mut Transcript {
        &mut self.wire.transcript
    }

    // ---- What the driver can ask for ----

    /// The TLS handshake that [`Step::Upgrade`] asked for was made. All that was learnt in clear is forgotten
    /// (RFC 3207, 4.2).
    ///
    /// # Errors
    ///
    /// [`Kind::Protocol`], where bytes came in clear behind the server's go-ahead: somebody put them there to be read
    /// as if they had come inside TLS. [`Kind::Request`] where no handshake was asked for.
    pub fn upgraded(&mut self) -> Result<()> {
        self.require(State::Upgrade, "the TLS handshake")?;
        if !self.wire.output.is_empty() {
            let message = "the TLS handshake is out of turn: STARTTLS has not gone";
            return Err(Error::new(Kind::Request, Phase::Tls, message));
        }
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

    /// What ties a login to the TLS connection, for the mechanisms that can be tied to one. To be told after the handshake.
    pub fn set_channel_binding(&mut self, channel: ChannelBinding) {
        self.channel = Some(channel);
    }

    /// The mechanisms that can log in here with these credentials, the best one first: the server offers them, and this build has
    /// them. Those that show the password come last outside TLS.
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

    /// Logs in. [`Step::Login`] has the result.
    ///
    /// # Errors
    ///
    /// [`Kind::Insecure`] outside TLS, unless the [settings](Settings::auth_in_clear) allow it; [`Kind::Auth`] where
    /// the newest EHLO did not offer the mechanism; [`Kind::Request`] for credentials that the mechanism cannot use, and where the machine is not ready.
    pub fn login(&mut self, mechanism: Mechanism, credentials: &Credentials) -> Result<()> {
        self.require_login(mechanism)?;
        let exchange = mechanism.exchange(credentials).map_err(unusable)?;
        self.secrets.add_with_base64(credentials.secret());
        self.begin_login(exchange)
    }

    /// Logs in by a mechanism of another maker. [`Step::Login`] has the result.
    ///
    /// # Errors
    ///
    /// As for [`login`](Self::login).
    pub fn login_by(&mut self, exchange: Box<dyn SaslExchange>) -> Result<()> {
        self.require_login(exchange.mechanism())?;
        self.begin_login(exchange)
    }

    fn require_login(&mut self, mechanism: Mechanism) -> Result<()> {
        self.require_ready("a login")?;
        if !self.settings.secure && !self.settings.auth_in_clear {
            let message = "the credentials would cross the network unprotected";
            return Err(Error::new(Kind::Insecure, Phase::Auth, message).with_hint(hint::INSECURE));
        }
        let offered = self.capabilities.auth();
        if !offered.iter().any(|name| name.eq_ignore_ascii_case(mechanism.as_str())) {
            let message = if offered.is_empty() {
                "the server offers no login here".to_owned()
            } else {
                format!("the server does not offer {mechanism}; it offers {}", offered.join(", "))
            };
            let hint = hint::no_mechanism(&self.capabilities, self.settings.secure);
            return Err(Error::new(Kind::Auth, Phase::Auth, message).with_hint(hint));
        }
        Ok(())
    }

    fn begin_login(&mut self, exchange: Box<dyn SaslExchange>) -> Result<()> {
        let session =
            SaslSession { settings: &self.settings, capabilities: &self.capabilities, channel: self.channel.as_ref() };
        let (login, line, shown) = Login::begin(exchange, &session, &mut self.secrets).map_err(unusable)?;
        self.wire.say_secret(line, &shown, login);
        Ok(())
    }

    /// A transaction can begin now: nothing is outstanding, or, where the server takes PIPELINING, nothing but the answers
    /// to messages that were given whole. So many messages can be under way; their events come in their order.
    pub fn may_begin(&self) -> bool {
        let of_a_message = |expected: &Expected| {
            matches!(expected, Expected::Mail | Expected::Rcpt(_) | Expected::EndOfData { .. } | Expected::Cleanup)
        };
        let queue = &self.wire.queue;
        self.state == State::Ready
            && (queue.is_empty() || self.capabilities.offers("PIPELINING") && queue.iter().all(of_a_message))
    }

    /// How many more transactions the server takes in this session; `None` where it [sets no limit](Capabilities::limits).
    pub fn transactions_left(&self) -> Option<usize> {
        self.capabilities.limits().mail_max.map(|max| max.saturating_sub(self.mails))
    }

    /// So many more transactions can follow in this session.
    pub(crate) fn check_session(&self, more: usize) -> Result<()> {
        self.capabilities.limits().check_session(self.mails, more)
    }

    /// Begins to send a message. What follows: [`Step::Sender`], a [`Step::Recipient`] for each, [`Step::Body`], perhaps a
    /// [`Step::Verdict`] for each, and at last [`Step::Sent`] or [`Step::NotSent`].
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] or [`Kind::Request`] where the server cannot take this message, by what it offers:
    /// nothing was sent then, and the machine stays ready. [`Kind::Closed`] where no more transactions are
    /// [left](Self::transactions_left). [`Kind::Request`] without a recipient.
    pub fn begin(&mut self, transaction: Transaction) -> Result<()> {
        if transaction.recipients.is_empty() {
            return Err(Error::request("the message has no recipient"));
        }
        self.start(transaction, true)
    }

    /// Opens a transaction step by step: its recipients follow by [`rcpt`](Self::rcpt). [`Step::Sender`] has the
    /// answer; if it is negative, no transaction is open.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin).
    pub fn mail(&mut self, transaction: Transaction) -> Result<()> {
        self.start(transaction, false)
    }

    /// Adds a recipient to the transaction that [`mail`](Self::mail) opened. [`Step::Recipient`] has the answer.
    /// A negative one ends a transaction for [all or nothing](Transaction::all_or_nothing): none is open then.
    ///
    /// # Errors
    ///
    /// [`Kind::Request`] where no transaction is open, or for an address beyond ASCII in one that began without SMTPUTF8;
    /// [`Kind::Unsupported`] for more recipients than the server [takes at once](Capabilities::limits).
    pub fn rcpt(&mut self, address: Address) -> Result<()> {
        let limits = self.capabilities.limits();
        let progress = self.open_transaction("a recipient")?;
        if address.to_ascii().is_none() && !progress.utf8 {
            let message = format!("the address {address} is not ASCII, and the transaction was begun without SMTPUTF8");
            return Err(Error::new(Kind::Request, Phase::Rcpt, message));
        }
        progress.transaction.recipients.push(address);
        if let Err(error) = limits.check(&progress.transaction.recipients) {
            progress.transaction.recipients.pop();
            return Err(error);
        }
        self.advance();
        Ok(())
    }

    /// Asks to give the message of the transaction that [`mail`](Self::mail) opened. [`Step::Body`] or [`Step::NotSent`] follows.
    ///
    /// # Errors
    ///
    /// [`Kind::Request`] where no transaction is open or no recipient was accepted.
    pub fn data(&mut self) -> Result<()> {
        let progress = self.open_transaction("the message")?;
        if progress.accepted.is_empty() {
            return Err(Error::new(Kind::Request, Phase::Data, "no recipient was accepted, so no message can be sent"));
        }
        progress.complete = true;
        self.advance();
        Ok(())
    }

    /// Gives a piece of the message, of any size. Line ends are made CRLF here, and dots doubled where it goes behind DATA.
    ///
    /// # Errors
    ///
    /// [`Kind::Request`] out of turn. [`Kind::Unsupported`] for a byte beyond ASCII, where the server does not offer
    /// 8BITMIME and nobody knew before that there would be one, and [`Kind::Input`] for more bytes than a chunk was announced with:
    /// the session is over then.
    pub fn body(&mut self, chunk: impl Into<Chunk>) -> Result<()> {
        self.require(State::Body, "a piece of the message")?;
        let chunk = chunk.into();
        let may_be_any = self.capabilities.offers("8BITMIME") || self.stuffer.is_verbatim();
        if !may_be_any && !chunk.is_seven_bit() {
            let message = "the message has bytes beyond ASCII, and the server does not offer 8BITMIME; it was not sent";
            self.close();
            return Err(Error::new(Kind::Unsupported, Phase::Body, message)
                .with_hint("Encode its parts as quoted-printable or base64."));
        }
        let size = match self.framing() {
            Framing::Chunk(size) => size,
            Framing::Data => {
                self.stuffer.push(chunk, &mut self.wire.output);
                return Ok(());
            }
            Framing::Chunks => {
                self.stuffer.push(chunk, &mut self.filling);
                self.pass_chunks();
                return Ok(());
            }
        };
        // With its last byte the chunk is a message to the server: the last piece waits until it is known to be the last.
        if chunk.bytes().is_empty() {
            return Ok(());
        }
        if let Some(before) = self.held_piece.replace(chunk) {
            self.stuffer.push(before, &mut self.wire.output);
        }
        if self.stuffer.bytes() < size { Ok(()) } else { Err(self.not_as_announced(size)) }
    }

    /// Ends the message. [`Step::Sent`] or [`Step::NotSent`] follows.
    ///
    /// # Errors
    ///
    /// [`Kind::Request`] out of turn. [`Kind::Input`] for fewer bytes than a chunk was announced with: the session is over then.
    pub fn finish(&mut self) -> Result<()> {
        self.require(State::Body, "the end of the message")?;
        if !self.may_pass() {
            let message = "the end of the message is out of turn: the chunk before it is not answered";
            return Err(Error::new(Kind::Request, Phase::Body, message));
        }
        if let Some(last) = self.held_piece.take() {
            self.stuffer.push(last, &mut self.wire.output);
        }
        let framing = self.framing();
        let output = if framing == Framing::Chunks { &mut self.filling } else { &mut self.wire.output };
        self.stuffer.finish(output);
        self.wire.transcript.note(&format!("the message, {} bytes", self.stuffer.bytes()));
        match framing {
            Framing::Chunk(size) if self.stuffer.bytes() != size => return Err(self.not_as_announced(size)),
            Framing::Chunk(_) => {}
            Framing::Chunks => {
                let rest = self.filling.len();
                self.wire.say(Command::BdatLast(rest as u64), Expected::EndOfData { ends_at: None });
                self.filling.move_to(rest, &mut self.wire.output);
            }
            Framing::Data => self.wire.transcript.client("."),
        }
        let end = self.written + self.wire.output.len() as u64;
        if let Some(Expected::EndOfData { ends_at }) = self.wire.queue.back_mut() {
            *ends_at = Some(end);
        }
        self.state = State::Ready;
        Ok(())
    }

    /// Drops the transaction that is open, if one is. [`Step::Reply`] has the answer.
    ///
    /// # Errors
    ///
    /// [`Kind::Request`] out of turn.
    pub fn reset(&mut self) -> Result<()> {
        self.require_idle("RSET")?;
        self.transactions.clear();
        self.state = State::Ready;
        self.wire.say(Command::Rset, Expected::Reset);
        Ok(())
    }

    /// Asks whether the server is there. [`Step::Reply`] has the answer.
    ///
    /// # Errors
    ///
    /// [`Kind::Request`] out of turn.
    pub fn noop(&mut self) -> Result<()> {
        self.require_idle("NOOP")?;
        self.wire.say(Command::Noop, Expected::Noop);
        Ok(())
    }

    /// Gives a command of the caller's. [`Step::Reply`] has the answer.
    ///
    /// # Errors
    ///
    /// [`Kind::Request`] out of turn. [`Kind::Unsupported`] for one beyond ASCII, where the server does not offer SMTPUTF8.
    pub fn command(&mut self, command: &RawCommand) -> Result<()> {
        self.require_idle("a command")?;
        if !command.as_str().is_ascii() && !self.capabilities.offers("SMTPUTF8") {
            let message = "the command is not ASCII, and the server does not offer SMTPUTF8";
            return Err(Error::new(Kind::Unsupported, Phase::Command, message).with_hint("Write it in ASCII."));
        }
        self.wire.say(Command::Raw(command), Expected::Command);
        Ok(())
    }

    /// Ends the session. [`Step::Closed`] follows.
    ///
    /// # Errors
    ///
    /// [`Kind::Request`] out of turn.
    pub fn quit(&mut self) -> Result<()> {
        self.require_idle("QUIT")?;
        self.wire.say(Command::Quit, Expected::Quit);
        Ok(())
    }

    // ---- Writing ----

    /// Writes as much of the transaction as may be written now: all up to DATA in one go where the
    /// server takes PIPELINING, else one command after each reply.
    fn advance(&mut self) {
        if self.state == State::Body {
            return self.pass_chunks();
        }
        let pipelining = self.capabilities.offers("PIPELINING");
        while self.state == State::Transaction && (pipelining || self.wire.queue.is_empty()) {
            let Some(progress) = self.transactions.back_mut() else { return };
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
            let Transaction { recipients, all_or_nothing, .. } = &progress.transaction;
            if !progress.mail_written {
                progress.mail_written = true;
                progress.final_replies = progress.transaction.final_replies(self.settings.protocol, &self.capabilities);
                self.wire.say(mail_command(progress, &self.capabilities), Expected::Mail);
            } else if let Some(recipient) = recipients.get(progress.written) {
                let (utf8, delivery) = (progress.utf8, &progress.transaction.delivery);
                self.wire.say(Command::Rcpt { recipient, utf8, delivery }, Expected::Rcpt(progress.written));
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
                    self.wire.say(Command::Data, Expected::Data);
                    return;
                }
                self.stuffer = match progress.transaction.content {
                    Content::Binary => Stuffer::verbatim(),
                    _ => Stuffer::without_dots(),
                };
                self.state = State::Body;
                if let Framing::Chunk(size) = framing {
                    self.wire.say(Command::BdatLast(size), Expected::EndOfData { ends_at: None });
                }
            } else {
                return;
            }
        }
    }

    /// Passes the chunks on that are full. They are all of one size, however the message was given.
    fn pass_chunks(&mut self) {
        let size = self.settings.chunk_size.max(1);
        while self.filling.len() >= size && self.may_pass() {
            self.wire.say(Command::Bdat(size as u64), Expected::Chunk);
            self.filling.move_to(size, &mut self.wire.output);
        }
    }

    /// Another chunk may go: without PIPELINING, not before the one before it was answered.
    fn may_pass(&self) -> bool {
        self.framing() != Framing::Chunks || self.wire.queue.is_empty() || self.capabilities.offers("PIPELINING")
    }

    /// The server refuses the message in its middle. Nothing more of it goes than the chunks that wait, as their size was said.
    fn chunk_refused(&mut self, reply: Reply) {
        if self.state == State::Body {
            let bytes = self.stuffer.bytes() - self.filling.len() as u64;
            self.wire.transcript.note(&format!("{bytes} bytes of the message, and not its end"));
        }
        self.transactions.pop_front();
        self.filling.clear();
        for expected in &mut self.wire.queue {
            if matches!(expected, Expected::Chunk | Expected::EndOfData { .. }) {
                *expected = Expected::VainChunk;
            }
        }
        self.state = State::Ready;
        // Its transaction may still be open (RFC 3030, 2).
        self.wire.say(Command::Rset, Expected::Cleanup);
        self.events.push_back(Step::NotSent { phase: Phase::Body, reply });
    }

    /// The message will not be sent. A transaction that the server has open is dropped there, too.
    fn end_transaction(&mut self, phase: Phase, reply: Reply) {
        let Some(progress) = self.transactions.pop_front() else { return };
        let (phase, reply) = progress.reason(phase, reply);
        self.state = State::Ready;
        if phase != Phase::Mail {
            self.wire.say(Command::Rset, Expected::Cleanup);
        }
        if progress.complete {
            self.events.push_back(Step::NotSent { phase, reply });
        }
    }

    fn start(&mut self, transaction: Transaction, complete: bool) -> Result<()> {
        let follows_others = complete && !self.wire.queue.is_empty() && self.may_begin();
        if !follows_others {
            self.require_ready("a transaction")?;
        }
        transaction.check(&self.capabilities, self.settings.secure)?;
        self.check_session(1)?;
        if follows_others && self.framing() != Framing::Data {
            // If the chunk before is refused, its transaction may still be open.
            self.wire.say(Command::Rset, Expected::Cleanup);
        }
        self.transactions.push_back(Progress::new(transaction, complete));
        self.mails += 1;
        self.stuffer = Stuffer::new();
        self.state = State::Transaction;
        self.advance();
        Ok(())
    }

    fn say_hello(&mut self) {
        let name = &self.settings.client_name;
        match self.settings.protocol {
            Protocol::Smtp => self.wire.say(Command::Ehlo(name), Expected::Ehlo),
            Protocol::Lmtp => self.wire.say(Command::Lhlo(name), Expected::Lhlo),
        }
    }

    // ---- State ----

    fn wanted(&self) -> Step {
        match self.state {
            // A go-ahead that came early does not overtake STARTTLS: left over, it would be said inside TLS.
            State::Upgrade if self.wire.output.is_empty() => Step::Upgrade,
            State::Body if self.wire.output.len() < HIGH_WATER && self.may_pass() => {
                Step::Body { room: HIGH_WATER - self.wire.output.len() }
            }
            State::Ready | State::Transaction if self.wire.queue.is_empty() => Step::Ready,
            _ => Step::Wait { phase: self.phase() },
        }
    }

    fn phase(&self) -> Phase {
        match self.wire.queue.front() {
            Some(Expected::Chunk) if self.outcome_unknown() => Phase::EndOfData,
            Some(Expected::EndOfData { .. }) if !self.outcome_unknown() => Phase::Body,
            Some(expected) => expected.phase(),
            None if self.state == State::Upgrade => Phase::Tls,
            None if self.state == State::Body => Phase::Body,
            None => Phase::Command,
        }
    }

    fn close(&mut self) {
        if self.state == State::Body {
            let bytes = self.stuffer.bytes();
            self.wire.transcript.note(&format!("{bytes} bytes of the message, and not its end"));
        }
        self.left_unknown += self.outstanding_messages();
        self.state = State::Closed;
        self.wire.queue.clear();
        self.wire.output.clear();
        self.held_piece = None;
        self.filling.clear();
        self.transactions.clear();
    }

    /// How the message goes that is being given, or went last of those that are under way.
    fn framing(&self) -> Framing {
        self.transactions.back().map_or(Framing::Data, |progress| progress.framing)
    }

    /// What is beyond the size, or missing, would be read as commands, or commands as the message.
    fn not_as_announced(&mut self, size: u64) -> Error {
        let message = format!("the message has another size than the {size} bytes announced; it was not sent");
        self.close();
        Error::new(Kind::Input, Phase::Body, message)
    }

    fn require(&self, state: State, what: &str) -> Result<()> {
        if self.state == state {
            return Ok(());
        }
        let message = match self.state {
            State::Closed => "the session is over".to_owned(),
            _ => format!("{what} is out of turn now"),
        };
        let kind = if self.state == State::Closed { Kind::Closed } else { Kind::Request };
        Err(Error::new(kind, self.phase(), message))
    }

    /// Ready, and nothing outstanding: what was sent before is answered, and nothing came unasked.
    fn require_ready(&mut self, what: &str) -> Result<()> {
        self.require(State::Ready, what)?;
        self.require_quiet(what)
    }

    /// Ready, or between the steps of a transaction.
    fn require_idle(&mut self, what: &str) -> Result<()> {
        if self.state != State::Transaction {
            self.require(State::Ready, what)?;
        }
        self.require_quiet(what)
    }

    fn require_quiet(&mut self, what: &str) -> Result<()> {
        if !self.wire.queue.is_empty() || !self.events.is_empty() {
            let message =
                format!("{what} is out of turn: the answer to what was sent before is not there, or was not looked at");
            return Err(Error::new(Kind::Request, self.phase(), message));
        }
        if !self.input.is_empty() || self.parser.is_mid_reply() {
            let message = format!("the server sent {:?}, and nothing was asked", self.unread());
            return Err(self.abort(Kind::Protocol, message));
        }
        Ok(())
    }

    fn open_transaction(&mut self, what: &str) -> Result<&mut Progress> {
        self.require(State::Transaction, what)?;
        self.require_quiet(what)?;
        self.transactions.back_mut().ok_or_else(|| Error::request("no transaction is open"))
    }

    fn injected(&self) -> Error {
        let message = format!(
            "bytes came in clear behind the server's go-ahead for TLS, as if they belonged inside it: {:?}",
            self.unread()
        );
        Error::new(Kind::Protocol, Phase::StartTls, message).with_hint(hint::INJECTED)
    }
}

/// What MAIL declares: of the server's extensions those that this message needs.
fn mail_command<'a>(progress: &'a Progress, server: &Capabilities) -> Command<'a> {
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

/// Credentials that the mechanism does not take, or a mechanism that cannot begin.
fn unusable(failure: SaslFailure) -> Error {
    Error::new(Kind::Request, Phase::Auth, failure.to_string())
}
