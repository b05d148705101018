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
//!
//!  Greeting, Hello, StartTls ──a refusal, or STARTTLS is missing──► Refused ──quit──► Closed
//!
//!  Ready, Transaction, Body ──421, and messages were handed over──► Ending ──their replies──► Closed
//!  any ──another 421, or any other failure──► Closed
//! ```
//!
//! In Refused, the server is still there, and nothing but QUIT may be said. In Ending, nothing is
//! said: the machine reads [what is left](#after-421).
//!
//! A small message whose [size](Transaction::size) is known goes together with the commands where the server offers CHUNKING
//! (BDAT, RFC 3030), and there is no DATA and no final dot: with PIPELINING,
//! [`Step::Body`] then comes before the answers to the recipients. A large one that is [binary](Content::Binary) goes in several chunks,
//! once the recipients are answered; any other goes behind DATA, which costs no more and which every server takes.
//!
//! In LMTP, and with PRDR in SMTP, the server answers to the message for each recipient: [`Event::RecipientResult`] comes before [`Event::Accepted`].
//! PRDR (draft-hall-prdr) is asked for where it is offered and there is more than one recipient.
//!
//! What may be *written* is the machine's state. What will be *read* is its queue: each command that
//! waits for a reply stands in it, so a reply belongs to one command, whether commands were sent in
//! a group (PIPELINING, RFC 2920) or one by one. A reply that is there before its command was
//! written whole was not asked for, and is a violation; what is unread then holds the
//! [output](Machine::output) back until it is known what it is. Several transactions can be under
//! way ([`Machine::may_begin`]). Some empty lines before a reply are skipped. 421 may come at any
//! point and ends the session.
//!
//! # After 421
//!
//! 421 says "Service not available, closing transmission channel" (RFC 5321, 4.2.3). Nothing is
//! written after it. Where messages had been handed over after the command that it answers, the
//! machine reads on until each of them has its reply or the server has closed the connection:
//! Exim, for example, answers 421 to each MAIL beyond its limit, and does not close.
//!
//! A server answers commands in the order in which it received them (RFC 2920, 3.2), so at the
//! close at most the first of these messages has had replies. It stays
//! [unknown](Machine::outcome_unknown) if one of its recipients was accepted and its own final
//! reply is missing. The others were not sent: the server had closed the channel, as 421 announced,
//! before it answered their MAIL, and what has no accepted recipient cannot be delivered.
//!
//! A time-out or a violation after 421 is not that close: each message that was handed over is
//! unknown then, unless its MAIL or all of its recipients were refused before. So it is after 421
//! in place of one of several replies to a message (LMTP, PRDR), unless that leaves no recipient
//! who may have it: nothing says that it stands for the others, too. The machine does not read on
//! there.
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
//!   the outcome of a message is unknown by then. [`Event::Rejected`] follows for a message that was
//!   refused before.
//! - **A look before a command.** Where [`Machine::should_read_first`] says so, take what can be
//!   read without waiting, and ask for the next step, before anything is written: what is there was
//!   not asked for, and does not answer what follows. It may also be the last word (421) of a
//!   server that has ended the session meanwhile.
//! - **QUIT.** After a message that was not sent, and after an error by which the server refused
//!   the session, [`Machine::quit`] may be called at once. After any other error it says that the
//!   session is over.
//!
//! # A session
//!
//! ```
//! use envoi::proto::{ClientName, Machine, Settings, Event, Step, Transaction};
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
//!         Step::Event(Event::Recipient { reply, .. }) => assert!(reply.is_positive()),
//!         Step::Event(Event::Accepted { reply }) => break reply,
//!         _ => {}
//!     }
//! };
//! assert_eq!(final_words.text(), "Ok: queued as 4F2");
//! assert!(String::from_utf8_lossy(&sent).ends_with("DATA\r\nSubject: hello\r\n\r\n..hidden\r\n.\r\n"));
//! # Ok::<(), envoi::Error>(())
//! ```

mod capabilities;
mod client_name;
mod commands;
mod data;
mod encode;
mod error;
mod event;
mod limits;
mod output;
pub(crate) mod params;
mod phase;
mod pipeline;
mod queue;
mod redact;
mod replies;
mod reply;
pub(crate) mod sasl;
mod server_limits;
mod settings;
mod shutdown;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod transaction;
mod transcript;

use std::collections::VecDeque;
use std::fmt;

use bytes::BytesMut;

pub use capabilities::{Capabilities, FutureReleaseLimits, Keyword};
pub use client_name::{ClientName, ClientNameError};
pub use data::{Chunk, Content, Stuffer};
pub use encode::{CommandFault, RawCommand, RawCommandError};
pub use error::{AbortReason, Missing, OutOfTurn, ProtocolError, Reason};
pub use event::Event;
pub use limits::Limits;
pub use output::Output;
pub use params::ParameterError;
pub use phase::Phase;
pub(crate) use reply::speaks_tls;
pub use reply::{EnhancedCode, Reply, ReplyError, ReplyParser};
pub use sasl::{
    ChannelBinding, ExchangeFault, Mechanism, SaslExchange, SaslFailure, SaslSession,
    UnknownMechanism,
};
pub use server_limits::ServerLimits;
pub use settings::{Protocol, Settings, StartTls};
pub use step::Step;
pub use transaction::Transaction;
pub use transcript::Transcript;

use data::OutgoingMessage;
use error::Result;
use queue::{CommandQueue, PendingReply};
pub(crate) use redact::Secrets;
use state::State;
#[cfg(feature = "client")]
pub(crate) use transaction::REPLY_BUDGET;
use transaction::{Framing, TransactionState};

/// When so much waits to be written, the machine asks for no more of the message. It is what is
/// written at once, too: with less, the calls to the system cost more than the encryption; more
/// gains nothing.
const HIGH_WATER: usize = 256 * 1024;

/// What is unread beyond an incomplete line is at most this.
const READ_AHEAD: usize = 64 * 1024;

/// The client's side of an SMTP session. [The module](self) tells how it is driven.
pub struct Machine {
    settings: Settings,
    state: State,
    /// TLS is active.
    secure: bool,
    wire: CommandQueue,
    secrets: Secrets,
    events: VecDeque<Event>,
    /// The output, as long as it is held back.
    nothing: Output,
    input: BytesMut,
    input_ended: bool,
    parser: ReplyParser,
    greeting: Option<Reply>,
    capabilities: Capabilities,
    channel: Option<ChannelBinding>,
    /// The transactions that have no outcome yet: replies are for the first, and the last is the
    /// one being written.
    transactions: VecDeque<TransactionState>,
    /// How many transactions have begun in this session.
    transactions_started: usize,
    /// The message that is being written, or was written last.
    message: OutgoingMessage,
    /// RSET is due, unless QUIT comes before it.
    rset_due: bool,
    /// Something went since the last reply came.
    round_trip_pending: bool,
    round_trips: u32,
    replies: u64,
    /// How many messages had been handed over and not answered when the session ended.
    unconfirmed_messages: usize,
    /// The 421 after which the machine reads on, or which ended the session.
    shutdown: Option<Reply>,
    /// What ends the session, when the events before it were told.
    failure: Option<ProtocolError>,
}

impl fmt::Debug for Machine {
    /// The place in the session, without what was sent and received.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("state", &self.state)
            .field("capabilities", &self.capabilities)
            .field("replies", &self.replies)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine at the beginning of a session: it waits for the greeting.
    pub fn new(settings: Settings) -> Self {
        Machine {
            state: State::Greeting,
            secure: settings.secure,
            wire: CommandQueue::new(PendingReply::Greeting),
            secrets: Secrets::default(),
            events: VecDeque::new(),
            nothing: Output::default(),
            input: BytesMut::new(),
            input_ended: false,
            parser: ReplyParser::new(settings.limits.clone()),
            greeting: None,
            capabilities: Capabilities::default(),
            channel: None,
            transactions: VecDeque::new(),
            transactions_started: 0,
            message: OutgoingMessage::new(Stuffer::new()),
            rset_due: false,
            // The connection itself was asked for.
            round_trip_pending: true,
            round_trips: 0,
            replies: 0,
            unconfirmed_messages: 0,
            shutdown: None,
            failure: None,
            settings,
        }
    }

    // ---- Bytes ----

    /// What waits to be written. Nothing, as long as something is unread that came before it was
    /// asked for: [`step`](Self::step) says what that means.
    pub fn output(&self) -> &Output {
        if self.is_held() {
            &self.nothing
        } else {
            &self.wire.output
        }
    }

    /// All that was sent is answered: what can be read now was not asked for, and must be known
    /// before the [output](Self::output) is written. The driver reads what is there, without
    /// waiting for it, and asks for the next step.
    pub fn should_read_first(&self) -> bool {
        !self.wire.output.is_empty() && self.wire.is_quiet()
    }

    /// The transport took so many bytes of the output: it answers for them, if only in a buffer.
    ///
    /// # Panics
    ///
    /// Where so many did not wait.
    pub fn wrote(&mut self, n: usize) {
        self.wire.wrote(n);
        self.round_trip_pending |= n > 0;
    }

    /// Stores bytes that the server sent, and says how many it took: all, unless more than the
    /// [limits](Limits) allow are unread. Give the rest when [`step`](Self::step) has said what
    /// these mean.
    #[must_use = "bytes that were not taken must be given again"]
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.input_room());
        self.input.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// The number of bytes that [`input`](Self::input) takes now.
    pub(crate) fn input_room(&self) -> usize {
        (self.settings.limits.line + READ_AHEAD).saturating_sub(self.input.len())
    }

    /// No more bytes will come: the server closed the connection, or it broke.
    pub fn input_ended(&mut self) {
        self.input_ended = true;
    }

    /// [`input_ended`](Self::input_ended) was called.
    #[cfg(feature = "client")]
    pub(crate) fn is_input_ended(&self) -> bool {
        self.input_ended
    }

    // ---- What is next ----

    /// What is next. To be called until it says `Wait`, after each change.
    ///
    /// # Errors
    ///
    /// What ends the session before its time: a refusal of the greeting, EHLO or STARTTLS, a
    /// reply out of order or past a limit, or the end of the input. It comes after all events that
    /// came before it, and [`Step::Closed`] follows.
    pub fn step(&mut self) -> Result<Step, ProtocolError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Step::Event(event));
            }
            match self.state {
                State::Closed => return self.failure.take().map_or(Ok(Step::Closed), Err),
                State::Refused if self.wire.queue.is_empty() => return Ok(Step::Closed),
                _ => {}
            }
            let is_refused = self.state == State::Refused;
            match self.failure.take().map_or_else(|| self.take_reply(), Err) {
                Ok(true) => {}
                Ok(false) if self.rset_due => self.send_due_rset(),
                Ok(false) => return Ok(self.next_step()),
                // QUIT may follow.
                Err(error) if self.state == State::Refused && !is_refused => {
                    return Err(error.redacted(&self.secrets));
                }
                // After the outcome of a message that was refused before.
                Err(error) => self.failure = Some(self.fail(error)),
            }
        }
    }

    /// Ends the session by this error. A message that was refused for certain before stays refused,
    /// whatever else of it has no answer: without an accepted MAIL and an accepted recipient there
    /// is no delivery (RFC 5321, 4.1.1.4; RFC 2920, 3.1; RFC 3030, 2).
    fn fail(&mut self, error: ProtocolError) -> ProtocolError {
        let begun = self.transactions.front().filter(|front| front.complete);
        if let Some((phase, reply)) = begun.and_then(TransactionState::final_refusal) {
            self.events.push_back(Event::Rejected {
                phase,
                reply: reply.clone(),
            });
            self.transactions.pop_front();
        }
        let outcome_unknown = self.outcome_unknown();
        self.close();
        error
            .with_outcome_unknown(outcome_unknown)
            .redacted(&self.secrets)
    }

    /// The message was handed over whole, and its final reply has not come, or not for every
    /// recipient: it may have been delivered, or not. From the final dot on, until a well-formed
    /// reply.
    pub fn outcome_unknown(&self) -> bool {
        self.transactions
            .front()
            .is_some_and(|progress| progress.is_handed_over(self.wire.written))
    }

    /// How many messages had been handed over whole and had no final reply when the session ended.
    /// Of [several](Self::may_begin) that were begun they are the first ones without one.
    pub fn unconfirmed_messages(&self) -> usize {
        self.unconfirmed_messages
    }

    /// The 421 that ended the session, where no error told it.
    #[cfg(feature = "client")]
    pub(crate) fn shutdown(&self) -> Option<&Reply> {
        self.shutdown.as_ref()
    }

    /// The messages that were handed over and have no outcome; those that follow them were not.
    fn handed_over(&self) -> impl Iterator<Item = &TransactionState> {
        self.transactions
            .iter()
            .take_while(|progress| progress.is_handed_over(self.wire.written))
    }

    /// Ends the session for a reason that the driver gives, such as a time-out, and returns the
    /// error for it. [`step`](Self::step) then says [`Event::Rejected`] for a message that the
    /// server had refused before, which the error is not about, and [`Step::Closed`].
    pub fn abort(&mut self, reason: AbortReason) -> ProtocolError {
        let reason = Reason::Aborted(reason.printable());
        self.fail(ProtocolError::new(self.phase(), reason))
    }

    /// The server's first words, once it has said them.
    pub fn greeting(&self) -> Option<&Reply> {
        self.greeting.as_ref()
    }

    /// What the newest answer to EHLO offered; empty before it and after STARTTLS.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What is spoken in this session.
    #[cfg(feature = "client")]
    pub(crate) fn protocol(&self) -> Protocol {
        self.settings.protocol
    }

    /// The session is protected by TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// How often the server had to be waited for: each first reply after something was written, the
    /// greeting included.
    pub fn round_trips(&self) -> u32 {
        self.round_trips
    }

    /// How many replies came. A time limit is one for each, also where several come one after
    /// another in a phase.
    pub fn replies(&self) -> u64 {
        self.replies
    }

    /// The bytes of the message that went last or is going, without added dots and the final one.
    pub fn message_bytes(&self) -> u64 {
        self.message.bytes()
    }

    /// Of [these](Self::message_bytes), the ones that the transport has taken. Where dots were
    /// added or commands wait, too, it may be a few bytes more than that.
    pub fn message_bytes_gone(&self) -> u64 {
        self.message
            .bytes()
            .saturating_sub((self.wire.output.len() + self.message.chunk_len()) as u64)
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

    /// What nobody may see, though it is no part of the dialogue.
    #[cfg(feature = "client")]
    pub(crate) fn secrets_mut(&mut self) -> &mut Secrets {
        &mut self.secrets
    }

    /// What must not be shown.
    #[cfg(feature = "client")]
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The port of the server, where it is known.
    pub(crate) fn port(&self) -> Option<u16> {
        self.settings.server.as_ref().map(|(_, port)| *port)
    }

    #[cfg(feature = "client")]
    pub(crate) fn transcript_mut(&mut self) -> &mut Transcript {
        &mut self.wire.transcript
    }

    // ---- State ----

    fn next_step(&self) -> Step {
        match self.state {
            State::Upgrade => Step::Upgrade,
            State::Body
                if self.wire.output.len() < HIGH_WATER
                    && self.can_send_chunk()
                    && !self.is_held() =>
            {
                Step::Body {
                    room: HIGH_WATER - self.wire.output.len(),
                }
            }
            State::Ready | State::Transaction if self.wire.queue.is_empty() => Step::Ready,
            _ => Step::Wait {
                phase: self.phase(),
            },
        }
    }

    fn phase(&self) -> Phase {
        match self.wire.queue.front() {
            Some(PendingReply::Chunk) if self.outcome_unknown() => Phase::EndOfData,
            Some(PendingReply::EndOfData { .. }) if !self.outcome_unknown() => Phase::Body,
            Some(expected) => expected.phase(),
            None if self.state == State::Upgrade => Phase::Tls,
            None if self.state == State::Body => Phase::Body,
            None if self.rset_due => Phase::Reset,
            None => Phase::Command,
        }
    }

    /// The server sent something that is not yet a whole reply.
    fn is_unread(&self) -> bool {
        !self.input.is_empty() || self.parser.is_mid_reply()
    }

    /// Nothing is written before it is known what this means.
    fn is_held(&self) -> bool {
        self.is_unread() && self.wire.is_quiet()
    }

    fn close(&mut self) {
        if self.state == State::Body {
            self.note_incomplete(self.message.bytes());
        }
        self.unconfirmed_messages += self.handed_over().count();
        self.state = State::Closed;
        self.wire.queue.clear();
        self.wire.output.clear();
        self.rset_due = false;
        self.message.discard();
        self.transactions.clear();
    }

    /// Notes in the transcript how much of a message was given, whose end was not.
    fn note_incomplete(&mut self, bytes: u64) {
        let note = format!("{bytes} bytes of the message, and not its end");
        self.wire.transcript.note(&note);
    }

    /// How the message goes that is being given, or went last of those that are under way.
    fn framing(&self) -> Framing {
        self.transactions
            .back()
            .map_or(Framing::Data, |progress| progress.framing)
    }

    fn injected(&self) -> ProtocolError {
        ProtocolError::new(Phase::StartTls, Reason::InjectedBeforeTls(self.unread()))
    }
}
