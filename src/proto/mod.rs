//! The client's side of SMTP and LMTP as a state machine: deterministic, without I/O and without a
//! clock.
//!
//! A [`Machine`] conducts one session. It knows which command may be sent when, what each reply
//! means, and what became of each message. It knows no socket, no async runtime and no TLS library:
//! a driver carries bytes between the machine and the server, and measures time. `Connection` is
//! such a driver on tokio; `examples/machine.rs` is one on a socket of the standard library. The
//! same bytes give the same events, however they are split.
//!
//! # The life cycle
//!
//! The server greets, and the machine sends EHLO; LHLO [in LMTP](Protocol::Lmtp), and HELO to a
//! server that does not know EHLO. If TLS is wanted it sends STARTTLS and asks the driver for the
//! handshake. Everything learnt in clear text is then forgotten, and EHLO is sent again. From then
//! on, the caller can log in, send messages, give other commands, and quit.
//!
//! ## What is written
//!
//! What may be written is the machine's state:
//!
//! ```text
//!  Greeting
//!     │ 220
//!     ▼           250                      quit()            221
//!   Hello ──────────────────────► Ready ──────────► Quitting ────► Closed
//!    │ ▲                          │ ▲ │
//!    │ │ upgraded()       login() │ │ │ begin(), mail()
//!    │ └─────────┐                ▼ │ │
//!    │ 250, TLS  │   Authenticating─┤ │                the result
//!    │ is wanted │                  │ ▼
//!    ▼     220   │                  ├─Transaction      a refusal; reset()
//!  StartTls ► Upgrade               │ │ 354, or BDAT in place of DATA
//!                                   │ ▼
//!                                   └─Body             finish(); a refusal
//!
//!  Greeting, Hello, StartTls ──refused, or STARTTLS is missing──► Refused ──quit()──► Quitting
//!  Ready, Transaction, Body ──421, and messages were handed over──► Ending ──replies──► Closed
//!  any ──another 421, or another failure──► Closed
//! ```
//!
//! In Transaction, MAIL, RCPT and DATA go together if the server offers PIPELINING (RFC 2920), and
//! otherwise one after another. [`Machine::begin`] writes them all; after [`Machine::mail`], the
//! caller gives each recipient and asks for DATA.
//!
//! BDAT (RFC 3030) takes the place of DATA where the server offers CHUNKING: a small message whose
//! [size](Transaction::size) is known goes as one chunk together with its commands, so that, with
//! PIPELINING, [`Step::Body`] comes before the replies to the recipients. A large
//! [binary](Content::Binary) message goes in several chunks once the recipients are answered. Any
//! other message goes with DATA, which costs no more and which every server takes.
//!
//! ## The hand-over
//!
//! A message may be delivered from the moment at which its last byte may be written: the last one
//! of the final dot or, in chunks, of the last BDAT with its bytes. Where the transaction asks for
//! it ([`Transaction::hand_over`]), this end is held back after [`Machine::finish`], and so is all
//! that follows it, until the caller permits it:
//!
//! ```text
//!            finish()      hand_over()           may be written now │ held back
//!   Body ─────────► Handover ─────► Ready       ┌─────────┬──────┬──┴───┬──────┬──────┬──────┐
//!                     │                          │ message │ MAIL │ BDAT │ MAIL │ RCPT │ BDAT │
//!                     │ withdraw()               │         │ RCPT │ LAST │      │      │ LAST │
//!                     ▼                          └─────────┴──────┴──────┴──────┴──────┴──────┘
//!       chunks: RSET, Ready; DATA: Closed                          the second     the third
//! ```
//!
//! - The driver learns of it by its own call of [`Machine::finish`], and may ask for the permission
//!   at once. [`Step::Handover`] says that nothing else is left to do; the permission need not
//!   wait for it. The server is not waited for then.
//! - Replies are read meanwhile. If the message is refused, its end is dropped.
//! - With PIPELINING, further transactions may be [begun](Machine::may_begin) meanwhile. Each
//!   message is handed over or withdrawn in its turn. After one that was withdrawn, the others wait
//!   for its outcome, too.
//! - What is held back has not been said: no reply to it is outstanding, and a message whose end is
//!   held back is not [unknown](Machine::outcome_unknown).
//!
//! ## What is read
//!
//! What will be read is a queue. Each command enters it when it is put into the output, so a reply
//! belongs to one command:
//!
//! ```text
//!      a reply
//!         │ answers the oldest command, if that was sent
//!         ▼
//!    ┌─────────┬──────┬──────┬──────┬──────┐
//!    │ message │ MAIL │ RCPT │ RCPT │ DATA │ ◄── a command
//!    └─────────┴──────┴──────┴──────┴──────┘
//!     the first  the second message,
//!     message    which is being written
//! ```
//!
//! - The reply to the message is final, and leads to [`Event::Accepted`] or [`Event::Rejected`]. It
//!   comes after [`Machine::finish`], when the state is Ready again. The next message may be begun
//!   before it comes, as [`Machine::may_begin`] says.
//! - In LMTP, and with PRDR in SMTP (draft-hall-prdr), the message stays in front for several
//!   replies: an [`Event::RecipientResult`] for each recipient comes before the outcome. PRDR is
//!   asked for where it is offered and there is more than one recipient.
//! - A reply that comes before its command was written whole was not asked for. It is a violation,
//!   and ends the session. Until these bytes are parsed, [`output`](Machine::output) returns
//!   nothing.
//! - 421 may come at any point and ends the session.
//! - Some empty lines before a reply are skipped.
//!
//! ## What may be called
//!
//! | Call | Greeting, Hello, StartTls | Upgrade | Ready | Authenticating | Transaction | Body | Handover | Quitting | Refused | Ending, Closed |
//! |---|---|---|---|---|---|---|---|---|---|---|
//! | [`upgraded`](Machine::upgraded) | – | yes | – | – | – | – | – | – | over | over |
//! | [`login`](Machine::login) | – | – | yes | – | – | – | – | – | over | over |
//! | [`begin`](Machine::begin) | – | – | yes | – | – | – | – | – | over | over |
//! | [`mail`](Machine::mail) | – | – | yes | – | – | – | – | – | over | over |
//! | [`rcpt`](Machine::rcpt) | – | – | – | – | yes | – | – | – | over | over |
//! | [`data`](Machine::data) | – | – | – | – | yes | – | – | – | over | over |
//! | [`body`](Machine::body) | – | – | – | – | – | yes | – | – | over | over |
//! | [`finish`](Machine::finish) | – | – | – | – | – | yes | – | – | over | over |
//! | [`hand_over`](Machine::hand_over) | – | – | – | – | – | – | yes | – | over | over |
//! | [`withdraw`](Machine::withdraw) | – | – | – | – | – | – | yes | – | over | over |
//! | [`reset`](Machine::reset) | – | – | yes | – | yes | – | – | – | over | over |
//! | [`noop`](Machine::noop) | – | – | yes | – | yes | – | – | – | over | over |
//! | [`command`](Machine::command) | – | – | yes | – | yes | – | – | – | over | over |
//! | [`quit`](Machine::quit) | – | – | yes | – | yes | – | – | – | yes | over |
//!
//! "Handover" is any state in which the end of a message is held back. With PIPELINING, the calls
//! for further transactions follow then, too; the table is about a server without it. "–" is
//! [`Reason::OutOfTurn`] and changes nothing; "over" is [`Reason::SessionOver`]. In Ready
//! and in Transaction, a call is out of turn, too, while a reply is outstanding or an event was not
//! taken. [`Machine::abort`] may be called at any time.
//!
//! # Driving a machine
//!
//! ```text
//! ┌──────────────────────────────────────────────────────────────────────────┐
//! │ After each change (bytes read, bytes written, a call), call `step` until │
//! │ it returns an instruction. Follow it: that is the next change.           │
//! └──────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! [`Step::Event`] reports what the server answered, once. All other steps are instructions, which
//! are repeated until they are followed. [`Step::Wait`] has these rules:
//!
//! - **Write, then read.** [`Machine::step`] itself may add to the [output](Machine::output): write
//!   it after `Wait`, before waiting for a reply. Report each partial write with
//!   [`Machine::wrote`]; the outcome of a message depends on it.
//! - **Read while writing.** A server may answer, or refuse, before it has read everything. A
//!   driver that only writes does not notice, and both may wait for each other. (What fits into the
//!   socket's buffer may be written first.)
//! - **Read before writing** where [`Machine::should_read_first`] says so, without waiting: what is
//!   there was not asked for, and does not answer the next command. It may be the 421 with which
//!   the server has ended the session meanwhile.
//! - **Report the end.** Call [`Machine::input_ended`] when nothing more can be read. When a write
//!   fails, read on for a moment: the server may have said why it closed.
//! - **Measure time.** `Wait` names the phase, on which the time-out depends. [`Machine::abort`]
//!   ends the session, and returns whether the outcome of a message is unknown.
//!   [`Event::Rejected`] follows for a message that was refused before.
//!
//! After [`Step::Upgrade`], read nothing but TLS from the socket. QUIT may follow an error by which
//! the server refused the session, and goes in place of RSET right after a message was rejected.
//! After any other error, [`Machine::quit`] returns [`Reason::SessionOver`].
//!
//! # After 421
//!
//! 421 says "Service not available, closing transmission channel" (RFC 5321, 4.2.3). Nothing is
//! written after it. If complete messages were already written after the command that 421 answers,
//! the machine reads on until each of them has its reply or the server closes the connection: Exim,
//! for example, answers 421 to each MAIL beyond its limit, and does not close.
//!
//! A server answers commands in the order in which it received them (RFC 2920, 3.2), so at the
//! close at most the first of these messages has had replies. It stays
//! [unknown](Machine::outcome_unknown) if one of its recipients was accepted and its own final
//! reply is missing. The others were not sent: the server had closed the channel, as 421 announced,
//! before it answered their MAIL, and a message without an accepted recipient cannot be delivered.
//!
//! A time-out or violation after 421 does not count as the close: every message handed over is then
//! unknown, unless its MAIL or all its recipients were refused. The same holds if 421 replaces one
//! of several replies (LMTP, PRDR), unless no recipient can then have the message. The machine does
//! not read on in that case.
//!
//! # Example
//!
//! ```
//! use envoi::proto::{ClientName, Event, Machine, Phase, Settings, Step, Transaction};
//! use envoi::{Address, Envelope};
//!
//! /// Takes the output, as a socket would.
//! fn written(machine: &mut Machine) -> String {
//!     let text = String::from_utf8_lossy(machine.output().front()).into_owned();
//!     machine.wrote(text.len());
//!     text
//! }
//!
//! let mut machine = Machine::new(Settings::new(ClientName::new("client.example.org")?));
//! let wait = |phase| Step::Wait { phase };
//!
//! // Greeting.
//! assert_eq!(machine.step()?, wait(Phase::Greeting));
//! let _ = machine.input(b"220 mail.example.org ESMTP\r\n");
//!
//! // Hello.
//! assert_eq!(machine.step()?, wait(Phase::Hello));
//! assert_eq!(written(&mut machine), "EHLO client.example.org\r\n");
//! let _ = machine.input(b"250-mail.example.org\r\n250 PIPELINING\r\n");
//!
//! // Ready.
//! assert_eq!(machine.step()?, Step::Ready);
//! let recipients = [Address::new("you@example.com")?];
//! let envelope = Envelope::new(Address::new("me@example.org")?, recipients)?;
//! machine.begin(Transaction::new(&envelope))?;
//!
//! // Transaction.
//! assert_eq!(machine.step()?, wait(Phase::Mail));
//! assert_eq!(
//!     written(&mut machine),
//!     "MAIL FROM:<me@example.org>\r\nRCPT TO:<you@example.com>\r\nDATA\r\n"
//! );
//! let _ = machine.input(b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go ahead\r\n");
//! assert!(matches!(machine.step()?, Step::Event(Event::Sender { .. })));
//! let Step::Event(Event::Recipient { index: 0, reply }) = machine.step()? else {
//!     panic!("the recipient is answered");
//! };
//! assert!(reply.is_positive());
//!
//! // Body.
//! assert!(matches!(machine.step()?, Step::Body { .. }));
//! machine.body("Subject: hello\r\n\r\n.hidden\r\n")?;
//! machine.finish()?;
//!
//! // Ready, and the message awaits its reply.
//! assert_eq!(machine.step()?, wait(Phase::Body));
//! assert_eq!(written(&mut machine), "Subject: hello\r\n\r\n..hidden\r\n.\r\n");
//! assert!(machine.outcome_unknown());
//! let _ = machine.input(b"250 2.0.0 Ok: queued as 4F2\r\n");
//! let Step::Event(Event::Accepted { reply }) = machine.step()? else {
//!     panic!("the message is accepted");
//! };
//! assert_eq!(reply.text(), "Ok: queued as 4F2");
//!
//! // Quitting.
//! assert_eq!(machine.step()?, Step::Ready);
//! machine.quit()?;
//! assert_eq!(machine.step()?, wait(Phase::Quit));
//! assert_eq!(written(&mut machine), "QUIT\r\n");
//! let _ = machine.input(b"221 2.0.0 Bye\r\n");
//!
//! // Closed.
//! assert_eq!(machine.step()?, Step::Closed);
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
pub(crate) mod transcript;

use std::collections::VecDeque;
use std::fmt;

use bytes::BytesMut;

pub use capabilities::{Capabilities, FutureReleaseLimits, Keyword};
pub use client_name::{ClientName, ClientNameError};
#[cfg(feature = "client")]
pub(crate) use data::LineEndNormalizer;
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
use transcript::UNREAD;

use data::OutgoingMessage;
use error::Result;
use queue::{CommandQueue, PendingReply};
pub(crate) use redact::Secrets;
use state::State;
#[cfg(feature = "client")]
pub(crate) use transaction::REPLY_BUDGET;
use transaction::{Framing, TransactionState};

/// High-water mark of the output, in bytes: above it, the machine requests no more of the body.
/// Smaller writes cost more in system calls; larger ones gain nothing.
const HIGH_WATER: usize = 256 * 1024;

/// The maximum of unread bytes beyond an incomplete line.
const READ_AHEAD: usize = 64 * 1024;

/// The client's side of an SMTP session. [The module](self) describes how to drive it.
pub struct Machine {
    settings: Settings,
    state: State,
    /// TLS is active.
    secure: bool,
    wire: CommandQueue,
    secrets: Secrets,
    events: VecDeque<Event>,
    /// Shown in place of the output while that is held back.
    nothing: Output,
    input: BytesMut,
    input_ended: bool,
    parser: ReplyParser,
    greeting: Option<Reply>,
    capabilities: Capabilities,
    channel: Option<ChannelBinding>,
    /// The transactions without an outcome: replies belong to the first, and the last is being
    /// written.
    transactions: VecDeque<TransactionState>,
    /// The number of transactions that were begun in this session.
    transactions_started: usize,
    /// The message that is being written, or was written last.
    message: OutgoingMessage,
    /// RSET is due, unless QUIT comes before it.
    rset_due: bool,
    /// Something was written since the last reply came.
    round_trip_pending: bool,
    round_trips: u32,
    replies: u64,
    /// The number of messages that had been handed over and not answered when the session ended.
    unconfirmed_messages: usize,
    /// The 421 after which the machine reads on, or which ended the session.
    shutdown: Option<Reply>,
    /// What ends the session, once the events before it were returned.
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
    /// Creates a machine at the beginning of a session, which waits for the greeting.
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
            // The greeting answers the connection.
            round_trip_pending: true,
            round_trips: 0,
            replies: 0,
            unconfirmed_messages: 0,
            shutdown: None,
            failure: None,
            settings,
        }
    }
}

/// # The driver's loop
impl Machine {
    /// Returns what is next: an instruction for the driver, or an event.
    ///
    /// # Errors
    ///
    /// The reason for which the session ended before its time: a refusal of the greeting, EHLO or
    /// STARTTLS, a reply out of order or past a limit, or the end of the input. All events that
    /// came before it are returned first, and [`Step::Closed`] follows.
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

    /// The bytes that wait to be written. None while something is unread that came before it was
    /// asked for: [`step`](Self::step) returns what that means.
    pub fn output(&self) -> &Output {
        if self.is_held() {
            &self.nothing
        } else {
            &self.wire.output
        }
    }

    /// Returns whether the driver must read what is there, without waiting for more, and call
    /// [`step`](Self::step) before it writes the [output](Self::output): everything that was sent
    /// is answered, so what can be read now was not asked for.
    pub fn should_read_first(&self) -> bool {
        !self.wire.output.is_empty() && self.wire.is_quiet()
    }

    /// Reports that the transport accepted `n` bytes of the output, if only into a buffer.
    ///
    /// # Panics
    ///
    /// Panics if `n` is more than the length of the output.
    pub fn wrote(&mut self, n: usize) {
        self.wire.wrote(n);
        self.round_trip_pending |= n > 0;
    }

    /// Stores bytes that the server sent, and returns the number of bytes taken: all, unless more
    /// than the [limits](Limits) allow are unread. Give the rest after the next call to
    /// [`step`](Self::step).
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

    /// Reports that no more bytes will come: the server closed the connection, or the connection
    /// failed.
    pub fn input_ended(&mut self) {
        self.input_ended = true;
    }

    /// Whether [`input_ended`](Self::input_ended) was called.
    #[cfg(feature = "client")]
    pub(crate) fn is_input_ended(&self) -> bool {
        self.input_ended
    }

    /// Ends the session for a reason that the driver gives, such as a time-out, and returns the
    /// error for it. [`step`](Self::step) then returns [`Event::Rejected`] for a message that the
    /// server had refused before, which the error is not about, and [`Step::Closed`].
    pub fn abort(&mut self, reason: AbortReason) -> ProtocolError {
        let reason = Reason::Aborted(reason.printable());
        self.fail(ProtocolError::new(self.phase(), reason))
    }
}

/// # Facts about the session, at any time
impl Machine {
    /// The server's greeting, once it has come.
    pub fn greeting(&self) -> Option<&Reply> {
        self.greeting.as_ref()
    }

    /// What the last reply to EHLO offered; empty before it and after STARTTLS.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The protocol of this session.
    #[cfg(feature = "client")]
    pub(crate) fn protocol(&self) -> Protocol {
        self.settings.protocol
    }

    /// Whether the session is over.
    #[cfg(feature = "client")]
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether TLS is active.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The server's port, if it is known.
    pub(crate) fn port(&self) -> Option<u16> {
        self.settings.server.as_ref().map(|(_, port)| *port)
    }

    /// Whether the outcome of a message is unknown: it was handed over whole, and a well-formed
    /// final reply has not come, or not for every recipient. It may have been delivered, or not.
    pub fn outcome_unknown(&self) -> bool {
        self.transactions
            .front()
            .is_some_and(|state| state.is_handed_over(self.wire.written))
    }

    /// The number of messages that had been handed over whole and had no final reply when the
    /// session ended. Of [several](Self::may_begin) that were begun they are the first ones without
    /// an outcome.
    pub fn unconfirmed_messages(&self) -> usize {
        self.unconfirmed_messages
    }

    /// The 421 that ended the session, if no error reported it.
    #[cfg(feature = "client")]
    pub(crate) fn shutdown(&self) -> Option<&Reply> {
        self.shutdown.as_ref()
    }

    /// The number of round trips: of replies that were the first one after something was written,
    /// the greeting included.
    pub fn round_trips(&self) -> u32 {
        self.round_trips
    }

    /// The number of replies. A time-out applies to each of them, also where several come in one
    /// phase.
    pub fn replies(&self) -> u64 {
        self.replies
    }

    /// The bytes of the message that is being written, or was written last, without added dots and
    /// the final one.
    pub fn message_bytes(&self) -> u64 {
        self.message.bytes()
    }

    /// The part of [these bytes](Self::message_bytes) that the transport has accepted; approximate:
    /// may be low by the added dots and queued commands.
    pub fn message_bytes_gone(&self) -> u64 {
        self.message
            .bytes()
            .saturating_sub((self.wire.unwritten() + self.message.chunk_len()) as u64)
    }

    /// The dialogue so far, without secrets.
    pub fn transcript(&self) -> &Transcript {
        &self.wire.transcript
    }

    #[cfg(feature = "client")]
    pub(crate) fn transcript_mut(&mut self) -> &mut Transcript {
        &mut self.wire.transcript
    }

    /// Makes this session continue another one, whose transcript and round trips come before its
    /// own.
    #[cfg(feature = "client")]
    pub(crate) fn follow(&mut self, before: &Machine) {
        self.wire.transcript.precede(&before.wire.transcript);
        self.round_trips += before.round_trips;
    }

    /// The secrets to redact, to which the client adds those that are not part of the dialogue.
    #[cfg(feature = "client")]
    pub(crate) fn secrets_mut(&mut self) -> &mut Secrets {
        &mut self.secrets
    }

    /// The secrets to redact.
    #[cfg(feature = "client")]
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }
}

impl Machine {
    // ---- State ----

    /// The next instruction.
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
            _ if self.awaits_handover() => Step::Handover,
            State::Ready | State::Transaction if self.wire.queue.is_empty() => Step::Ready,
            _ => Step::Wait {
                phase: self.phase(),
            },
        }
    }

    /// The phase that the session is in, for time-outs and errors.
    fn phase(&self) -> Phase {
        match self.wire.queue.front() {
            _ if self.awaits_handover() => Phase::Handover,
            Some(PendingReply::Chunk) if self.outcome_unknown() => Phase::EndOfData,
            Some(PendingReply::EndOfData { .. }) if !self.outcome_unknown() => Phase::Body,
            Some(expected) => expected.phase(),
            None if self.state == State::Upgrade => Phase::Tls,
            None if self.state == State::Body => Phase::Body,
            None if self.rset_due => Phase::Reset,
            None => Phase::Command,
        }
    }

    /// Whether nothing but a hand-over is waited for: everything else was written and answered.
    fn awaits_handover(&self) -> bool {
        self.wire.is_holding()
            && self.wire.output.is_empty()
            && match self.wire.queue.front() {
                None => true,
                // After DATA, the reply to the message is outstanding before its end was written.
                Some(PendingReply::EndOfData { .. }) => !self.outcome_unknown(),
                Some(_) => false,
            }
    }

    /// Whether the server sent something that is not a whole reply yet.
    fn is_unread(&self) -> bool {
        !self.input.is_empty() || self.parser.is_mid_reply()
    }

    /// Whether the output is held back until the meaning of what is unread is known.
    fn is_held(&self) -> bool {
        self.is_unread() && self.wire.is_quiet()
    }

    /// The framing of the message that is being written, or was written last.
    fn framing(&self) -> Framing {
        self.transactions
            .back()
            .map_or(Framing::Data, |state| state.framing)
    }

    /// The messages that were handed over and have no outcome. Those that follow were not handed
    /// over.
    fn handed_over(&self) -> impl Iterator<Item = &TransactionState> {
        self.transactions
            .iter()
            .take_while(|state| state.is_handed_over(self.wire.written))
    }

    // ---- The end ----

    /// Ends the session by this error. A message whose MAIL or whose recipients were all refused
    /// stays refused, even if other replies are missing (RFC 5321, 4.1.1.4; RFC 2920, 3.1; RFC
    /// 3030, 2).
    fn fail(&mut self, error: ProtocolError) -> ProtocolError {
        if let Some(begun) = self.transactions.front().filter(|front| front.complete) {
            let refusal = begun.final_refusal();
            let refusal = refusal.map(|(phase, reply)| (phase, reply.clone()));
            if refusal.is_some() || begun.is_withdrawn {
                self.conclude_unsent(refusal);
            }
        }
        // The two reasons are noted where they are found.
        let is_noted = matches!(
            error.reason(),
            Reason::MalformedReply { .. } | Reason::ConnectionEnded { .. }
        );
        if !is_noted && self.is_unread() {
            let note = format!("{UNREAD}{}", self.unread());
            self.wire.transcript.note(&note);
        }
        let outcome_unknown = self.outcome_unknown();
        self.close();
        error
            .with_outcome_unknown(outcome_unknown)
            .redacted(&self.secrets)
    }

    /// Ends the session.
    fn close(&mut self) {
        // After DATA, only the first message is given before those before it are answered.
        let first = self.transactions.front();
        let held = first.filter(|state| state.ends_at.is_none());
        if self.state == State::Body {
            self.note_incomplete(self.message.bytes());
        } else if let Some(bytes) = held.and_then(|state| state.held_size) {
            self.note_incomplete(bytes);
        }
        self.unconfirmed_messages += self.handed_over().count();
        self.state = State::Closed;
        self.wire.queue.clear();
        self.wire.output.clear();
        self.wire.drop_held();
        self.rset_due = false;
        self.message.discard();
        self.transactions.clear();
    }

    /// Notes in the transcript how much was given of a message without its end.
    fn note_incomplete(&mut self, bytes: u64) {
        let note = format!("{bytes} bytes of the message, and not its end");
        self.wire.transcript.note(&note);
    }

    /// The error for bytes that came in clear text after the go-ahead for TLS.
    fn injected(&self) -> ProtocolError {
        ProtocolError::new(Phase::StartTls, Reason::InjectedBeforeTls(self.unread()))
    }
}
