//! A [`Connection`]: a session with a server.
//!
//! - `setup.rs`: connecting, TLS, from a stream to a session that is ready
//! - `auth.rs`, `fallback.rs`: the login: which mechanism, and which one after it
//! - `submission.rs`, `outcome.rs`, `errors.rs`: one message: its transactions, the outcome for
//!   each recipient, and the error
//! - `send_all.rs`, `in_flight.rs`: many messages in flight
//! - `commands.rs`, `data_writer.rs`: the session step by step
//! - `reuse.rs`: what a pool asks of an idle connection
//! - `handovers.rs`: the callbacks before the last byte of each message
//! - `driver.rs`, `clock.rs`: bytes, time and the machine; cancel safety of each await point
//! - `call.rs`: the guard for a call in progress
//!
//! What may be sent when is decided by the [machine](crate::proto::Machine) alone.

mod auth;
mod call;
pub(crate) mod clock;
mod commands;
mod data_writer;
mod driver;
mod errors;
mod fallback;
mod handovers;
mod in_flight;
mod outcome;
#[cfg(feature = "pool")]
mod reuse;
mod send_all;
mod setup;
mod submission;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use crate::diagnose::{self, Facts};
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::message::{Message, PreparedMessage};
use crate::proto::{
    Capabilities, Event, Mechanism, Protocol, REPLY_BUDGET, Reply, ServerLimits, Step, Transaction,
    Transcript,
};
use crate::receipt::{Delivery, Effort, Receipt, SessionInfo};
use crate::telemetry::Host;
use crate::tls::{PlaintextReason, TlsInfo};
use crate::{Address, Endpoint, SendWindow, telemetry};
use call::CallGuard;
use clock::{Clock, LimitKind};
use driver::{Driver, too_slow};
use submission::Submission;

pub use data_writer::DataWriter;
#[cfg(feature = "pool")]
pub(crate) use in_flight::Settled;
#[cfg(all(feature = "blocking", feature = "pool"))]
pub(crate) use reuse::in_blocking_call;
#[cfg(feature = "pool")]
pub(crate) use send_all::{Admission, Incoming, Renewal, send_all};
pub(crate) use setup::{connector_for, open, within};

/// A session with a server: set up, secured and logged in, ready for any number of messages.
///
/// # Cancel safety
///
/// A call is an `async` method of this type, a [`DataWriter`] from [`data`](Self::data) to its
/// [`finish`](DataWriter::finish), or the stream of [`send_all`](Self::send_all) while messages are
/// in flight. Dropping the future, the writer or the stream before its end is safe, and ends the
/// use of the connection: the server may be in the middle of a reply or of a message, so every
/// later call fails with [`ErrorKind::Closed`], and nothing more is written. No part of a message
/// looks complete to the server, and no task continues in the background. The message may have been
/// delivered if the future had written its end; [`send_all`](Self::send_all) and
/// [`Error::outcome_unknown`] have the details.
///
/// - [`connect`](Self::connect), [`from_stream`](Self::from_stream): no connection: the socket or
///   stream is closed without QUIT
/// - [`send`](Self::send): during preparation, leaves a usable connection; afterwards, an unusable
///   one, and the message was sent, not sent, or has an unknown outcome
/// - [`login`](Self::login), [`login_with`](Self::login_with), [`mail`](Self::mail),
///   [`rcpt`](Self::rcpt), [`data`](Self::data), [`reset`](Self::reset), [`noop`](Self::noop),
///   [`verify`](Self::verify), [`command`](Self::command): a connection that refuses further use
/// - [`DataWriter`]: a message that is not sent, and a connection that refuses further use
/// - the stream of [`send_all`](Self::send_all): while no message is in flight, a usable
///   connection; otherwise, one that refuses further use
/// - [`quit`](Self::quit): nothing: the connection is closed, with or without QUIT
///
/// ```no_run
/// use envoi::{Connection, Credentials, Endpoint};
/// use envoi::mail_builder::MessageBuilder;
///
/// # async fn example() -> envoi::Result<()> {
/// let credentials = Credentials::new("me@example.org", "secret");
/// let endpoint = Endpoint::new("mail.example.org").credentials(credentials);
/// let mut connection = Connection::connect(&endpoint).await?;
/// for customer in ["a@example.com", "b@example.com"] {
///     let message = MessageBuilder::new()
///         .from("me@example.org")
///         .to(customer)
///         .subject("Your invoice")
///         .text_body("See attachment.");
///     let receipt = connection.send(message).await?;
///     println!("{}", receipt.reply.unwrap());
/// }
/// connection.quit().await;
/// # Ok(())
/// # }
/// ```
pub struct Connection {
    driver: Driver,
    server: Host,
    /// Shared with the messages in flight, for their receipts.
    info: Arc<SessionInfo>,
    /// The user of the last login; empty if it has none.
    user: String,
    is_mx: bool,
    /// The mechanisms that a login may use, in this order; empty for any.
    mechanisms: Vec<Mechanism>,
    auth_in_clear: bool,
    all_or_nothing: bool,
    #[cfg(feature = "pool")]
    connected_at: Instant,
    /// It was opened by a blocking call.
    #[cfg(feature = "pool")]
    is_blocking: bool,
    /// The server accepted MAIL in a transaction of the last message.
    #[cfg(feature = "pool")]
    sender_accepted: bool,
    /// After this time without bytes from the server, the reply to MAIL is awaited before more is
    /// sent.
    check_after_idle: Duration,
    send_window: SendWindow,
    /// The count of round trips when the current message started.
    round_trips_before: u32,
    /// A call was started and not completed: it is running, or its future was dropped. Set and
    /// cleared by [`CallGuard`] alone.
    in_call: bool,
    #[cfg(feature = "metrics")]
    _counted: telemetry::OpenConnection,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("server", &self.info.server)
            .field("tls", &self.tls().map(|tls| &tls.version))
            .field("mechanism", &self.info.mechanism)
            .field("machine", &self.driver.machine)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Sends a message, and waits for the server's final reply.
    ///
    /// # Several transactions
    ///
    /// A server may announce that it takes fewer recipients in a transaction than the message has
    /// (LIMITS, RFC 9422). The message is then sent in several transactions, unless it is read from
    /// a stream, or is sent [to all or none](crate::Endpoint::all_or_nothing): then it fails before
    /// anything is sent.
    ///
    /// A server may also reply 452 or 552 to RCPT, with the enhanced code X.5.3 or none, once it
    /// has accepted as many recipients as it takes (RFC 5321, 4.5.3.1.10). Those recipients get the
    /// message in a further transaction, and so on, as long as each transaction gains a recipient,
    /// as the same replies may mean that a disk is full. If the server refuses the message as well
    /// (552 to RCPT, then 554: Exim's `recipients_max_reject`), each transaction has as many
    /// recipients as were accepted. [`Receipt::transactions`] counts the transactions. A message
    /// that is read from a stream is sent only to the recipients accepted at first, and
    /// [`Receipt::incomplete_reason`] says so. [`send_all`](Self::send_all),
    /// [`Client::send`](crate::Client::send) and `Pool::send` do the same; single
    /// [steps](Self::rcpt) do not.
    ///
    /// # Errors
    ///
    /// An error means that no recipient was accepted, or that the outcome is
    /// [unknown](Error::outcome_unknown); [`Error::receipt`] has the outcome for each recipient. If
    /// some recipients were accepted, the [`Receipt`] has the outcome for each. A refused message
    /// leaves the connection ready for the next one.
    ///
    /// # Cancel safety
    ///
    /// Dropped while the message is prepared, before anything is sent, it leaves a usable
    /// connection. Dropped later, it leaves one that refuses further use; the message was not sent,
    /// unless all of it had been written: then it may have been delivered.
    pub async fn send(&mut self, message: impl Into<Message<'_>>) -> Result<Receipt> {
        let server = self.server.clone();
        let sending = pin!(self.prepare_and_send(message.into()));
        telemetry::in_send(&server, sending).await
    }

    async fn prepare_and_send(&mut self, message: Message<'_>) -> Result<Receipt> {
        let started = Instant::now();
        let mut clock = Clock::start(&self.driver.timeouts);
        let message = prepare_by(&clock, message).await?;
        clock.allow_for(message.envelope.recipients().len(), &self.driver.timeouts);
        self.start_message(clock);
        self.send_prepared(message, started, None).await
    }

    /// Sets the time limits of the next message, and where its round trips start to count.
    pub(crate) fn start_message(&mut self, clock: Clock) {
        self.driver.clock = clock;
        self.round_trips_before = self.driver.machine.round_trips();
    }

    /// Sends a message that was prepared. If the server takes fewer transactions in a session than
    /// the message needs, further connections are made to `endpoint`.
    pub(crate) async fn send_prepared(
        &mut self,
        message: PreparedMessage,
        started: Instant,
        endpoint: Option<&Endpoint>,
    ) -> Result<Receipt> {
        let mut call = CallGuard::start(self)?;
        let server = call.server.clone();
        let result = {
            let submitting = pin!(call.submit(message, started, endpoint));
            telemetry::in_span("submit", &server, submitting).await
        };
        call.complete_with(result)
    }

    /// Sends all transactions of the message, and builds its receipt.
    async fn submit(
        &mut self,
        message: PreparedMessage,
        started: Instant,
        endpoint: Option<&Endpoint>,
    ) -> Result<Receipt> {
        let mut submission = self.new_submission(&message);
        self.run(&mut submission, message, endpoint).await;
        #[cfg(feature = "pool")]
        {
            self.sender_accepted = submission.sender_accepted();
        }
        let info = submission.session().unwrap_or(&self.info).clone();
        let (delivery, result) = submission.finish(&self.facts());
        let receipt = self.receipt(&info, delivery, self.message_start(started));
        match result {
            Ok(()) => Ok(receipt),
            Err(error) => Err(error.with_receipt(receipt)),
        }
    }

    async fn run(
        &mut self,
        submission: &mut Submission,
        mut message: PreparedMessage,
        endpoint: Option<&Endpoint>,
    ) {
        if endpoint.is_none()
            && let Err(error) = self.driver.machine.check_session(submission.batch_count())
        {
            return submission.connection_lost(error.into(), 0);
        }
        while let Some(recipients) = submission.next_batch() {
            if let Err(error) = self.start_batch(&mut message, recipients, endpoint).await {
                return submission.connection_lost(error, 0);
            }
            submission.on_transaction_started(&self.info);
            while submission.unanswered() > 0 {
                match self.driver.next(Some(&mut message.body)).await {
                    Ok(step) => submission.on_step(step),
                    Err(error) => {
                        let unknown = usize::from(error.outcome_unknown());
                        submission.connection_lost(error, unknown);
                    }
                }
            }
            submission.on_upload_ended(&message.body, self.driver.machine.message_bytes());
            if submission.has_next_batch()
                && let Some(again) = message.body.restart()
            {
                message.body = again;
            }
        }
    }

    async fn start_batch(
        &mut self,
        message: &mut PreparedMessage,
        recipients: Vec<Address>,
        endpoint: Option<&Endpoint>,
    ) -> Result<()> {
        if let (Some(endpoint), Some(0)) = (endpoint, self.driver.machine.transactions_left()) {
            self.send_quit(false).await;
            self.renew(endpoint).await?;
        }
        let is_8bitmime_offered = self.capabilities().offers("8BITMIME");
        message.body.find_content(is_8bitmime_offered).await?;
        let transaction = self.transaction(message, recipients);
        self.start_transaction(transaction).await
    }

    /// Replaces this session, which has ended, by a new one.
    pub(crate) async fn renew(&mut self, endpoint: &Endpoint) -> Result<()> {
        let connecting = Connection::connect_by(endpoint, self.driver.clock.clone());
        let mut next = match connecting.await {
            Ok(next) => next,
            Err(error) => {
                // What was not sent failed there.
                let failed = match error.receipt() {
                    Some(receipt) => receipt.clone(),
                    None => Receipt::new(endpoint.server_name()),
                };
                self.driver
                    .machine
                    .transcript_mut()
                    .append(&failed.transcript);
                self.info = Arc::new(failed.into());
                return Err(error);
            }
        };
        next.driver.machine.follow(&self.driver.machine);
        next.round_trips_before = self.round_trips_before;
        next.in_call = self.in_call;
        *self = next;
        Ok(())
    }

    /// Splits the recipients into transactions: several if the server limits them and the message
    /// can be read again.
    fn new_submission(&self, message: &PreparedMessage) -> Submission {
        let is_repeatable = !self.all_or_nothing && message.can_clone();
        let limits = match is_repeatable {
            true => self.capabilities().limits(),
            false => ServerLimits::default(),
        };
        let parts = limits.parts(message.envelope.recipients());
        Submission::new(message, parts, is_repeatable)
    }

    async fn start_transaction(&mut self, transaction: Transaction) -> Result<()> {
        self.driver.until_ready().await?;
        self.try_start_transaction(transaction)
    }

    fn try_start_transaction(&mut self, transaction: Transaction) -> Result<()> {
        self.check_tls(&transaction)?;
        self.driver.start_transaction(transaction)
    }

    /// Checks REQUIRETLS (RFC 8689): the machine knows that TLS is active, not whether it was
    /// verified.
    fn check_tls(&self, transaction: &Transaction) -> Result<()> {
        match self.tls() {
            Some(tls) if transaction.delivery.requires_tls() && !tls.is_verified() => {
                let message = "the message is to go by TLS alone, all the way (REQUIRETLS), and \
                    this connection has a certificate that was not verified";
                Err(Error::new(ErrorKind::Tls, Phase::Mail, message)
                    .with_hint(diagnose::REQUIRE_TLS))
            }
            _ => Ok(()),
        }
    }

    /// Makes a transaction for some recipients of the message.
    fn transaction(&self, message: &mut PreparedMessage, recipients: Vec<Address>) -> Transaction {
        message.negotiate(self.capabilities());
        let mut transaction = Transaction::from(&*message);
        // The replies in all transactions of a message are held together.
        transaction.reply_budget =
            REPLY_BUDGET / message.envelope.recipients().len().max(1) * recipients.len();
        transaction.recipients = recipients;
        transaction.all_or_nothing = self.all_or_nothing;
        transaction.hand_over = message.body.handovers().is_some();
        transaction.await_sender = self.driver.last_read_at.elapsed() >= self.check_after_idle;
        transaction
    }

    /// Checks that the server still answers (NOOP).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] and others if it does not; the connection cannot be used any more.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it leaves a connection that refuses further use.
    pub async fn verify(&mut self) -> Result<()> {
        let reply = self.noop().await?;
        if reply.is_positive() {
            return Ok(());
        }
        let error = Error::refused(
            ErrorKind::Refused,
            Phase::Noop,
            "the server refused NOOP",
            reply,
        );
        Err(error.advised(&self.facts()))
    }

    /// Sends QUIT, and waits for the reply for at most [`Timeouts::quit`](crate::Timeouts::quit).
    /// Neither the reply nor a failure changes the outcome of anything sent before.
    ///
    /// # Cancel safety
    ///
    /// Dropped at any point, it closes the connection; QUIT may not have been sent.
    pub async fn quit(mut self) {
        if !self.in_call {
            self.send_quit(true).await;
        }
    }

    /// Sends QUIT without waiting for the reply.
    pub(crate) async fn quit_detached(mut self) {
        if !self.in_call {
            self.send_quit(false).await;
        }
    }

    /// Sends QUIT if allowed: never after an I/O error, time-out or violation; if `wait` is false,
    /// also not while a reply is outstanding.
    async fn send_quit(&mut self, wait: bool) {
        let limit = self.driver.timeouts.quit;
        let driver = &mut self.driver;
        let quitting = async {
            driver.read_available().await;
            if let Err(error) = driver.machine.quit() {
                if !wait {
                    return Err(error.into());
                }
                driver.until_ready().await?;
                driver.machine.quit()?;
            }
            driver.flush().await;
            while wait && driver.next(None).await? != Step::Closed {}
            driver
                .transport
                .shutdown()
                .await
                .map_err(|error| Error::connection_lost(Phase::Quit, error))
        };
        // A missing reply, or a connection that ends without one, does not concern anything that
        // was sent before.
        let _: Result<Result<()>, _> = timeout(limit, quitting).await;
    }

    /// The server's greeting.
    pub fn greeting(&self) -> Option<&Reply> {
        self.driver.machine.greeting()
    }

    /// The extensions that the server offers, by its latest reply to EHLO.
    pub fn capabilities(&self) -> &Capabilities {
        self.driver.machine.capabilities()
    }

    /// The negotiated TLS; `None` for plaintext.
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.info.tls.as_deref()
    }

    /// Why a connection with [`Security::Opportunistic`](crate::tls::Security::Opportunistic) is
    /// not encrypted.
    pub fn plaintext_reason(&self) -> Option<&PlaintextReason> {
        self.info.plaintext_reason.as_ref()
    }

    /// The SASL mechanism that logged in; `None` without a login.
    pub fn mechanism(&self) -> Option<Mechanism> {
        self.info.mechanism
    }

    /// The dialogue so far, without secrets.
    pub fn transcript(&self) -> &Transcript {
        self.driver.machine.transcript()
    }

    /// The number of further messages that the server takes in this session (LIMITS, RFC 9422);
    /// `None` without a limit. Beyond it, sending fails with [`ErrorKind::Closed`].
    pub fn messages_left(&self) -> Option<usize> {
        self.driver.machine.transactions_left()
    }

    /// The number of round trips, from the greeting on.
    pub fn round_trips(&self) -> u32 {
        self.driver.machine.round_trips()
    }

    /// The facts of the session, for advice about a failure in it.
    fn facts(&self) -> Facts<'_> {
        let machine = &self.driver.machine;
        Facts {
            phase: Phase::Command,
            reply: None,
            port: machine.port(),
            lmtp: machine.protocol() == Protocol::Lmtp,
            is_mx: self.is_mx,
            secure: machine.is_secure(),
            fell_back: self.info.plaintext_reason.is_some(),
            offered: machine.capabilities(),
            logged_in: self.info.mechanism,
            user: &self.user,
            tried: None,
            fault: None,
            about_mechanism: false,
            sender: None,
            recipients: 0,
        }
    }

    fn info_mut(&mut self) -> &mut SessionInfo {
        Arc::make_mut(&mut self.info)
    }

    /// Snapshot taken when the call began, at `at`.
    fn message_start(&self, at: Instant) -> MessageStart {
        MessageStart {
            at,
            round_trips: self.round_trips_before,
        }
    }

    /// Builds the receipt; `info` describes the session used.
    fn receipt(&self, info: &SessionInfo, delivery: Delivery, start: MessageStart) -> Receipt {
        let effort = Effort {
            round_trips: self.round_trips() - start.round_trips,
            elapsed: start.at.elapsed(),
            transcript: self.transcript().clone(),
        };
        Receipt::build(info, delivery, effort)
    }
}

/// Snapshot taken when the call that sends a message began.
#[derive(Clone, Copy)]
struct MessageStart {
    at: Instant,
    round_trips: u32,
}

impl MessageStart {
    fn now(connection: &Connection) -> Self {
        MessageStart {
            at: Instant::now(),
            round_trips: connection.round_trips(),
        }
    }
}

/// Prepares a message within the deadline of the call.
pub(crate) async fn prepare_by(clock: &Clock, message: Message<'_>) -> Result<PreparedMessage> {
    // One future for both: the code of each would be compiled separately.
    let preparing = pin!(message.prepare());
    let Some((at, length)) = clock.deadline() else {
        return preparing.await;
    };
    match timeout_at(at, preparing).await {
        Ok(prepared) => prepared,
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            Phase::Setup,
            too_slow(Phase::Setup, LimitKind::Deadline(length)),
        )
        .with_hint(diagnose::SLOW_SOURCE)),
    }
}

/// The error for a step that came in place of an expected one.
fn not_sent(step: Step) -> Error {
    match step {
        Step::Event(Event::Rejected { phase, reply }) => errors::refusal(phase, reply, None, &[]),
        Step::Closed => Error::new(ErrorKind::Closed, Phase::Setup, "the session is over"),
        step => Error::new(
            ErrorKind::Protocol,
            Phase::Command,
            format!("the session took an unexpected turn: {step:?}"),
        ),
    }
}
