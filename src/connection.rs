//! A [`Connection`]: the driver of the protocol machine, and the small API on it.
//!
//! The one place where bytes, time and the machine meet is [`Driver::next`]. It writes
//! what the socket takes and reads what is there in the same poll, so that a server that answers early is heard at once, and none
//! can make both sides wait for each other. What may be said when, the machine knows.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};

use crate::error::{Error, Kind, Phase, Result};
use crate::hint;
use crate::message::{Body, Message};
use crate::proto::{
    Capabilities, Chunk, ClientName, Machine, Mechanism, RawCommand, Reply, Settings, StartTls, Step, Transaction,
};
use crate::receipt::{Outcome, Receipt, Recipient};
use crate::timeouts::{Clock, Limit, LimitKind};
use crate::tls::{Connector, Opening, Security, TlsInfo};
use crate::transport::{self, Stream, Transport};
use crate::{Address, Credentials, Endpoint, Envelope, Timeouts};

/// After a write failed, a reply may still be waiting to be read: why the server closed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A session with a server: set up, secured and logged in, ready for any number of messages.
///
/// A future of a connection's that is dropped before it ended leaves the session in the middle of
/// something; the connection knows that and refuses further use.
///
/// ```no_run
/// use envoi::{Connection, Credentials, Endpoint};
/// use envoi::mail_builder::MessageBuilder;
///
/// # async fn example() -> envoi::Result<()> {
/// let endpoint = Endpoint::new("mail.example.org").credentials(Credentials::new("me@example.org", "secret"));
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
    server: String,
    tls: Option<TlsInfo>,
    plaintext_because: Option<String>,
    auth: Option<Mechanism>,
    auth_in_clear: bool,
    all_or_nothing: bool,
    /// Of the machine's round trips, those that the next receipt need not tell of.
    round_trips_told: u32,
    /// A call has begun and not come to its end: it is running, or its future was dropped.
    in_call: bool,
}

impl Connection {
    // ---- Setting up ----

    /// Connects, secures the connection as the endpoint's policy says, and logs in if the endpoint has credentials.
    ///
    /// # Errors
    ///
    /// Whatever can go wrong on the way, with the phase: no connection ([`Kind::Connect`]), no TLS as demanded
    /// ([`Kind::Tls`]), a refused session ([`Kind::Refused`]) or login ([`Kind::Auth`]), a trust store that cannot be read ([`Kind::Config`]) …
    pub async fn connect(endpoint: &Endpoint) -> Result<Connection> {
        let clock = Clock::start(&endpoint.timeouts);
        Connection::connect_by(endpoint, clock).await
    }

    /// Conducts the session over a stream of the caller's, which is connected to the server already.
    /// The endpoint's host is the name that the server's certificate is checked against. Unless the endpoint has a
    /// [name for the client](Endpoint::client_name), EHLO says `[127.0.0.1]`: the stream need not have an address.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect). With opportunistic TLS, a handshake that fails is an error here, as there is only one stream.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        endpoint: &Endpoint,
    ) -> Result<Connection> {
        let name = endpoint.client_name.clone().unwrap_or_else(|| ClientName::literal([127, 0, 0, 1].into()));
        let connector = connector_for(endpoint).await?;
        let clock = Clock::start(&endpoint.timeouts);
        let session =
            Connection::establish(endpoint, Box::new(stream), name, endpoint.security, connector, clock).await?;
        session.logged_in(endpoint).await
    }

    pub(crate) async fn connect_by(endpoint: &Endpoint, clock: Clock) -> Result<Connection> {
        endpoint.check()?;
        let connector = connector_for(endpoint).await?;
        let mut clock = clock;
        let (host, port) = (endpoint.host.as_str(), endpoint.port_number());
        let stream = within(&mut clock, &endpoint.timeouts, Phase::Connect, transport::connect(host, port)).await?;
        let peer = stream.peer_addr();
        let name = client_name(endpoint, &stream);
        let setting_up =
            Connection::establish(endpoint, Box::new(stream), name, endpoint.security, connector, clock.clone());
        let session = match (setting_up.await, peer) {
            (Err(error), Ok(peer)) if may_fall_back(endpoint, &error) => {
                // Once, in clear, to the same address: never a loop.
                let connecting = async { TcpStream::connect(peer).await.map_err(|error| lost(Phase::Connect, error)) };
                let stream = within(&mut clock, &endpoint.timeouts, Phase::Connect, connecting).await?;
                let name = client_name(endpoint, &stream);
                let mut session =
                    Connection::establish(endpoint, Box::new(stream), name, Security::None, None, clock).await?;
                session.plaintext_because = Some(error.to_string());
                session
            }
            (outcome, _) => outcome?,
        };
        session.logged_in(endpoint).await
    }

    /// From a connected stream to a session that is ready.
    async fn establish(
        endpoint: &Endpoint,
        stream: Box<dyn Stream>,
        client_name: ClientName,
        security: Security,
        connector: Option<&Connector>,
        clock: Clock,
    ) -> Result<Connection> {
        let mut settings = Settings::new(client_name);
        settings.starttls = match security {
            Security::Required => StartTls::Required,
            Security::Opportunistic => StartTls::IfOffered,
            _ => StartTls::Never,
        };
        settings.secure = security == Security::Implicit;
        settings.auth_in_clear = endpoint.auth_in_clear;
        settings.limits = endpoint.limits.clone();
        let mut session = Connection {
            driver: Driver::new(Machine::new(settings), stream, endpoint.timeouts.clone(), clock),
            server: endpoint.host.clone(),
            tls: None,
            plaintext_because: None,
            auth: None,
            auth_in_clear: endpoint.auth_in_clear,
            all_or_nothing: endpoint.all_or_nothing,
            round_trips_told: 0,
            in_call: false,
        };
        if security == Security::Implicit {
            session.handshake(endpoint, connector).await?;
        }
        loop {
            match session.driver.next(None).await {
                Ok(Step::Upgrade) => {
                    session.handshake(endpoint, connector).await?;
                    session.driver.machine.upgraded()?;
                }
                Ok(Step::Ready) => break,
                Ok(_) => {}
                Err(error) => return Err(session.explained(error)),
            }
        }
        if security == Security::Opportunistic && session.tls.is_none() {
            session.plaintext_because = Some("the server does not offer STARTTLS".into());
        }
        Ok(session)
    }

    async fn handshake(&mut self, endpoint: &Endpoint, connector: Option<&Connector>) -> Result<()> {
        let Transport::Plain(stream) = std::mem::replace(&mut self.driver.transport, Transport::Gone) else {
            return Err(Error::request("TLS is active already"));
        };
        let Some(connector) = connector else {
            return Err(Error::request("TLS was not prepared"));
        };
        let opening = if endpoint.security == Security::Implicit { Opening::Implicit } else { Opening::StartTls };
        let handshake = connector.handshake(&endpoint.host, stream, opening);
        let (stream, info) = within(&mut self.driver.clock, &endpoint.timeouts, Phase::Tls, handshake).await?;
        self.driver.transport = Transport::Tls(Box::new(stream));
        self.tls = Some(info);
        Ok(())
    }

    /// TLS 1.3 lets the server refuse a client's certificate after the client's part of the handshake is
    /// over: what ends the connection before the first reply inside TLS belongs to the handshake.
    fn explained(&self, error: Error) -> Error {
        let first_inside_tls = self.tls.is_some() && matches!(error.phase(), Phase::Greeting | Phase::Hello);
        match std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>()) {
            Some(source) if first_inside_tls => crate::tls::late_alert(source, &self.server).unwrap_or(error),
            _ => error,
        }
    }

    async fn logged_in(mut self, endpoint: &Endpoint) -> Result<Connection> {
        let Some(credentials) = endpoint.login()? else { return Ok(self) };
        match self.login_with(endpoint.mechanism, &credentials).await {
            Ok(_) => Ok(self),
            Err(error) => {
                let receipt = self.receipt(Instant::now());
                Err(error.with_receipt(receipt))
            }
        }
    }

    // ---- The session ----

    /// Logs in, with the mechanism given or the best one that both sides know.
    ///
    /// # Errors
    ///
    /// [`Kind::Insecure`], where the connection does not protect the credentials; [`Kind::Auth`], where no mechanism can be used or the
    /// server refuses.
    pub async fn login(&mut self, mechanism: Option<Mechanism>, credentials: &Credentials) -> Result<Reply> {
        self.begin_call()?;
        let result = self.login_with(mechanism, credentials).await;
        self.end_call(result)
    }

    async fn login_with(&mut self, mechanism: Option<Mechanism>, credentials: &Credentials) -> Result<Reply> {
        self.driver.until_ready().await?;
        if let Some(tls) = &self.tls
            && !tls.verified
            && !self.auth_in_clear
        {
            let message = "the credentials would go to a server whose certificate was not verified";
            return Err(Error::new(Kind::Insecure, Phase::Auth, message).with_hint(hint::INSECURE));
        }
        let offered = self.driver.machine.capabilities().auth();
        let best = || Mechanism::ALL.into_iter().find(|known| offered.iter().any(|name| name == known.as_str()));
        // Where none is offered, the machine says so for whichever is asked for.
        let Some(mechanism) = mechanism.or_else(best).or(offered.is_empty().then_some(Mechanism::Plain)) else {
            let message = format!("no mechanism in common: the server offers {}", offered.join(", "));
            return Err(Error::new(Kind::Auth, Phase::Auth, message)
                .with_hint("envoi knows PLAIN and LOGIN. Have one of them switched on at the server."));
        };
        self.driver.machine.login(mechanism, credentials)?;
        match self.driver.next(None).await? {
            Step::Login { reply } if reply.is_positive() => {
                self.auth = Some(mechanism);
                Ok(reply)
            }
            Step::Login { reply } => {
                let message =
                    format!("the server did not accept the login of {:?} with {mechanism}", credentials.user());
                Err(refused(Kind::Auth, Phase::Auth, message, reply))
            }
            step => Err(not_sent(step)),
        }
    }

    /// Sends a message, and waits for the server's final word on it.
    ///
    /// # Errors
    ///
    /// An error, where the message was accepted for nobody, or nobody knows
    /// ([`Error::outcome_unknown`]); [`Error::receipt`] has the outcome for each recipient. Where it was accepted for some, the
    /// receipt tells who got it. A refused message leaves the connection ready for the next one.
    pub async fn send(&mut self, message: impl Into<Message<'_>>) -> Result<Receipt> {
        let started = Instant::now();
        self.driver.clock = Clock::start(&self.driver.timeouts);
        let (envelope, body) = message.into().prepare().await?;
        self.round_trips_told = self.driver.machine.round_trips();
        self.send_prepared(envelope, body, started).await
    }

    pub(crate) async fn send_prepared(&mut self, envelope: Envelope, body: Body, started: Instant) -> Result<Receipt> {
        self.begin_call()?;
        let result = self.transact(envelope, body, started).await;
        self.end_call(result)
    }

    async fn transact(&mut self, envelope: Envelope, mut body: Body, started: Instant) -> Result<Receipt> {
        self.driver.until_ready().await?;
        let mut transaction = Transaction::new(&envelope);
        transaction.size = body.size();
        transaction.content = body.content();
        transaction.utf8_headers = body.has_utf8_headers();
        transaction.all_or_nothing = self.all_or_nothing;
        let mut outcomes = vec![Outcome::NotTried; envelope.recipients().len()];
        let result = match self.driver.machine.begin(transaction) {
            Ok(()) => self.conduct(&envelope, &mut body, &mut outcomes).await,
            Err(error) => Err(error),
        };
        let mut receipt = self.receipt(started);
        receipt.bytes = if result.is_ok() { self.driver.machine.message_bytes() } else { 0 };
        let recipients = envelope.recipients().iter().cloned().zip(outcomes);
        receipt.recipients = recipients.map(|(address, outcome)| Recipient { address, outcome }).collect();
        match result {
            Ok(reply) => {
                receipt.reply = Some(reply);
                Ok(receipt)
            }
            Err(error) => {
                receipt.reply = error.reply().cloned();
                Err(error.with_receipt(receipt))
            }
        }
    }

    /// From MAIL to the final reply; what became of the recipients is in `outcomes`, however it ends.
    async fn conduct(&mut self, envelope: &Envelope, body: &mut Body, outcomes: &mut [Outcome]) -> Result<Reply> {
        let (error, accepted_become) = loop {
            match self.driver.next(Some(body)).await {
                Ok(Step::Recipient { index, reply }) => {
                    outcomes[index] =
                        if reply.is_positive() { Outcome::Accepted(reply) } else { Outcome::Refused(reply) };
                }
                Ok(Step::Sent { reply }) => return Ok(reply),
                Ok(Step::NotSent { phase: Phase::Mail, reply }) => {
                    // The replies to RCPT behind it only say that MAIL was missing.
                    outcomes.fill(Outcome::NotTried);
                    break (refused(Kind::Refused, Phase::Mail, sender_refused(envelope), reply), Outcome::NotTried);
                }
                Ok(Step::NotSent { phase: Phase::Rcpt, reply }) => {
                    let message = recipients_refused(envelope, outcomes);
                    break (refused(Kind::Refused, Phase::Rcpt, message, reply), Outcome::NotTried);
                }
                Ok(Step::NotSent { phase, reply }) => {
                    break (not_sent(Step::NotSent { phase, reply: reply.clone() }), Outcome::Refused(reply));
                }
                Ok(step @ Step::Closed) => break (not_sent(step), Outcome::NotTried),
                Ok(_) => {}
                Err(error) if error.outcome_unknown() => break (error, Outcome::Unknown),
                Err(error) => break (error, Outcome::NotTried),
            }
        };
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_accepted()) {
            *outcome = accepted_become.clone();
        }
        Err(error)
    }

    /// Asks whether the server is still there (NOOP).
    ///
    /// # Errors
    ///
    /// [`Kind::Closed`] and others, where it is not; the connection is of no more use then.
    pub async fn verify(&mut self) -> Result<()> {
        let reply = self.noop().await?;
        if reply.is_positive() {
            return Ok(());
        }
        Err(refused(Kind::Refused, Phase::Noop, "the server refused NOOP", reply))
    }

    /// Ends the session politely. Whatever comes of it changes nothing, and takes no longer than [`Timeouts::quit`].
    pub async fn quit(mut self) {
        if self.begin_call().is_err() {
            return;
        }
        let limit = self.driver.timeouts.quit;
        let driver = &mut self.driver;
        let parting = async {
            driver.until_ready().await?;
            driver.machine.quit()?;
            while driver.next(None).await? != Step::Closed {}
            driver.transport.shutdown().await.map_err(|error| lost(Phase::Quit, error))
        };
        // An answer that does not come, or a connection that ends without one, is no failure of anything that was sent.
        let _: Result<Result<()>, _> = timeout(limit, parting).await;
    }

    /// What the server offers, by its newest answer to EHLO.
    pub fn capabilities(&self) -> &Capabilities {
        self.driver.machine.capabilities()
    }

    /// What protects the connection; `None` where it is plaintext.
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.tls.as_ref()
    }

    /// Why a connection with [`Security::Opportunistic`] is not encrypted.
    pub fn plaintext_because(&self) -> Option<&str> {
        self.plaintext_because.as_deref()
    }

    /// The mechanism that logged in, if any did.
    pub fn mechanism(&self) -> Option<Mechanism> {
        self.auth
    }

    /// How often the server had to be waited for, from the greeting on.
    pub fn round_trips(&self) -> u32 {
        self.driver.machine.round_trips()
    }

    // ---- Step by step ----

    /// MAIL: opens a transaction. A negative reply is returned like a positive one, and opens none.
    ///
    /// # Errors
    ///
    /// [`Kind::Request`] where one is open already; [`Kind::Closed`], [`Kind::Timeout`] and [`Kind::Protocol`] where the session ends.
    pub async fn mail(&mut self, reverse_path: impl Into<Option<Address>>) -> Result<Reply> {
        self.begin_call()?;
        self.driver.clock = Clock::start(&self.driver.timeouts);
        let transaction = Transaction::open(reverse_path.into());
        let result = self.driver.ask(|machine| machine.mail(transaction)).await;
        self.end_call(result)
    }

    /// RCPT: adds a recipient to the open transaction. A negative reply is returned like a positive one.
    ///
    /// # Errors
    ///
    /// [`Kind::Request`] where no transaction is open; [`Kind::Closed`], [`Kind::Timeout`] and [`Kind::Protocol`] where the session ends.
    pub async fn rcpt(&mut self, recipient: Address) -> Result<Reply> {
        self.begin_call()?;
        let result = self.driver.ask(|machine| machine.rcpt(recipient)).await;
        self.end_call(result)
    }

    /// DATA: asks to give the message, and returns what takes it.
    ///
    /// # Errors
    ///
    /// [`Kind::Refused`] where the server does not want it; [`Kind::Request`] where no recipient was accepted.
    pub async fn data(&mut self) -> Result<DataWriter<'_>> {
        self.begin_call()?;
        let asked = async {
            self.driver.until_ready().await?;
            self.driver.machine.data()?;
            match self.driver.next(None).await? {
                Step::Body { .. } => Ok(()),
                step => Err(not_sent(step)),
            }
        };
        match asked.await {
            // The call goes on until the writer has finished.
            Ok(()) => Ok(DataWriter { connection: self }),
            Err(error) => self.end_call(Err(error)),
        }
    }

    /// RSET: drops the open transaction.
    ///
    /// # Errors
    ///
    /// Where the session ends.
    pub async fn reset(&mut self) -> Result<Reply> {
        self.begin_call()?;
        let result = self.driver.ask(Machine::reset).await;
        self.end_call(result)
    }

    /// NOOP.
    ///
    /// # Errors
    ///
    /// Where the session ends.
    pub async fn noop(&mut self) -> Result<Reply> {
        self.begin_call()?;
        let result = self.driver.ask(Machine::noop).await;
        self.end_call(result)
    }

    /// Gives any other command, such as `VRFY alice`, and returns the answer, be it positive or not.
    ///
    /// # Errors
    ///
    /// [`Kind::Request`] for what is not one printable line, or changes the session's state; others where the session ends.
    pub async fn command(&mut self, line: &str) -> Result<Reply> {
        let command = RawCommand::new(line)?;
        self.begin_call()?;
        let result = self.driver.ask(|machine| machine.command(&command)).await;
        self.end_call(result)
    }

    // ---- The guard of half-made calls ----

    fn begin_call(&mut self) -> Result<()> {
        if self.in_call {
            let message = "an earlier call on this connection was given up before it ended";
            return Err(Error::new(Kind::Closed, Phase::Setup, message).with_hint("Open a new connection."));
        }
        self.in_call = true;
        Ok(())
    }

    /// A call came to its end, by whatever result: the machine knows whether the session goes on.
    fn end_call<T>(&mut self, result: Result<T>) -> Result<T> {
        self.in_call = false;
        result
    }

    fn receipt(&self, started: Instant) -> Receipt {
        Receipt {
            server: self.server.clone(),
            recipients: Vec::new(),
            reply: None,
            tls: self.tls.clone(),
            plaintext_because: self.plaintext_because.clone(),
            auth: self.auth,
            bytes: 0,
            round_trips: self.driver.machine.round_trips() - self.round_trips_told,
            elapsed: started.elapsed(),
        }
    }
}

/// Takes a message piece by piece. [`finish`](Self::finish) ends it; dropped before that, the message is not
/// sent, and the connection refuses further use.
#[must_use = "the message is sent by `finish` only"]
pub struct DataWriter<'c> {
    connection: &'c mut Connection,
}

impl DataWriter<'_> {
    /// Gives the next piece of the message, of any size. Line ends become CRLF, and dots are doubled where they must be.
    ///
    /// # Errors
    ///
    /// [`Kind::Refused`] where the server refuses the message before its end; others where the session ends.
    pub async fn write(&mut self, piece: impl Into<Bytes>) -> Result<()> {
        let driver = &mut self.connection.driver;
        driver.machine.body(piece.into())?;
        match driver.pass_on().await? {
            Step::Body { .. } => Ok(()),
            step => Err(not_sent(step)),
        }
    }

    /// Ends the message, and waits for the server's final word on it, which is positive.
    ///
    /// # Errors
    ///
    /// [`Kind::Refused`] where it is negative; [`Error::outcome_unknown`] where none comes.
    pub async fn finish(self) -> Result<Reply> {
        let driver = &mut self.connection.driver;
        let finished = async {
            driver.machine.finish()?;
            match driver.next(None).await? {
                Step::Sent { reply } => Ok(reply),
                step => Err(not_sent(step)),
            }
        };
        let result = finished.await;
        self.connection.end_call(result)
    }
}

/// How much is read at a time; replies are short.
const READ_SIZE: usize = 8 * 1024;

/// The machine with its stream and its clock.
struct Driver {
    machine: Machine,
    transport: Transport,
    buffer: Box<[u8]>,
    /// Something was written and not flushed.
    unflushed: bool,
    /// Nothing more can be read.
    ended: bool,
    /// Why the transport broke, if it did.
    broken: Option<io::Error>,
    /// Since when the server has taken nothing of what waits for it.
    stalled_since: Instant,
    /// How long this message has waited for the server, all in all.
    body_wait: Duration,
    timeouts: Timeouts,
    clock: Clock,
}

impl Driver {
    fn new(machine: Machine, stream: Box<dyn Stream>, timeouts: Timeouts, clock: Clock) -> Self {
        Driver {
            machine,
            transport: Transport::Plain(stream),
            buffer: vec![0; READ_SIZE].into(),
            unflushed: false,
            ended: false,
            broken: None,
            stalled_since: Instant::now(),
            body_wait: Duration::ZERO,
            timeouts,
            clock,
        }
    }

    /// Until the machine has more to say than that it waits. What it wants of the message comes from `body`, if that is given.
    async fn next(&mut self, mut body: Option<&mut Body>) -> Result<Step> {
        let mut wait: Option<(Phase, Instant)> = None;
        loop {
            match (self.step()?, body.as_deref_mut()) {
                (Step::Body { .. }, Some(body)) => self.feed(Some(body)).await?,
                (Step::Wait { phase: Phase::Body }, _) => self.feed(None).await?,
                (Step::Wait { phase }, _) => {
                    // One limit for a reply as a whole, however many reads it takes.
                    let since =
                        wait.filter(|(before, _)| *before == phase).map_or_else(Instant::now, |(_, since)| since);
                    wait = Some((phase, since));
                    self.exchange(phase, since).await?;
                }
                (step, _) => return Ok(step),
            }
        }
    }

    /// Until all that the machine has of the message is with the transport, or something else is to be told.
    async fn pass_on(&mut self) -> Result<Step> {
        loop {
            match self.step()? {
                Step::Body { .. } | Step::Wait { .. } if !self.machine.output().is_empty() => self.feed(None).await?,
                step => return Ok(step),
            }
        }
    }

    /// Until nothing that was sent before is unanswered. What came unasked since is looked at first: a
    /// connection that the server has given up says so before anything is sent on it.
    async fn until_ready(&mut self) -> Result<()> {
        poll_fn(|cx| {
            let _ = self.poll_read(cx);
            Poll::Ready(())
        })
        .await;
        self.body_wait = Duration::ZERO;
        loop {
            match self.next(None).await? {
                Step::Ready => return Ok(()),
                Step::Closed => return Err(Error::new(Kind::Closed, Phase::Setup, "the session is over")),
                // The answer to something that nobody waits for any more.
                _ => {}
            }
        }
    }

    /// Gives a command, and waits for its reply.
    async fn ask(&mut self, give: impl FnOnce(&mut Machine) -> Result<()>) -> Result<Reply> {
        self.until_ready().await?;
        give(&mut self.machine)?;
        match self.next(None).await? {
            Step::Sender { reply } | Step::Recipient { reply, .. } | Step::Reply { reply } => Ok(reply),
            step => Err(not_sent(step)),
        }
    }

    fn step(&mut self) -> Result<Step> {
        self.machine.step().map_err(|error| match self.broken.take() {
            Some(cause) => error.with_source(cause),
            None => error,
        })
    }

    /// Writes and reads until something happens, or this reply has taken too long.
    async fn exchange(&mut self, phase: Phase, since: Instant) -> Result<()> {
        let limit = self.clock.limit(since, self.timeouts.limit(phase));
        let began = Instant::now();
        let mut sleep = pin!(sleep_until(limit.at));
        let in_time = poll_fn(|cx| match self.poll_io(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| false),
        })
        .await;
        self.clock.spend(began);
        if in_time { self.last_words().await } else { Err(self.timed_out(phase, limit.why)) }
    }

    /// Writes the message and reads, and gives the machine the next piece if it comes first. Only the time counts in
    /// which the server could have taken something: a slow source is no fault of the server's.
    async fn feed(&mut self, mut body: Option<&mut Body>) -> Result<()> {
        enum Event {
            Io,
            Chunk(Option<Result<Chunk>>),
            TooSlow(LimitKind),
        }
        let began = Instant::now();
        let mut server_is_slow = false;
        let mut sleep: Option<(Pin<Box<Sleep>>, LimitKind)> = None;
        let event = poll_fn(|cx| {
            if self.poll_io(cx).is_ready() {
                return Poll::Ready(Event::Io);
            }
            if let Some(body) = body.as_deref_mut()
                && let Poll::Ready(chunk) = body.poll_chunk(cx)
            {
                return Poll::Ready(Event::Chunk(chunk));
            }
            server_is_slow = !self.machine.output().is_empty();
            let (timer, why) = sleep.get_or_insert_with(|| {
                let limit = self.body_limit(server_is_slow);
                (Box::pin(sleep_until(limit.at)), limit.why)
            });
            timer.as_mut().poll(cx).map(|()| Event::TooSlow(*why))
        })
        .await;
        if server_is_slow {
            self.body_wait += began.elapsed();
        }
        match event {
            Event::Io => self.last_words().await,
            Event::Chunk(Some(Ok(chunk))) => {
                if !server_is_slow {
                    self.stalled_since = Instant::now();
                }
                self.machine.body(chunk)
            }
            Event::Chunk(None) => self.machine.finish(),
            // What is missing must not look like the end: the session ends before the final dot.
            Event::Chunk(Some(Err(error))) => {
                self.machine.abort(error.kind(), error.message());
                Err(error)
            }
            Event::TooSlow(why) => Err(self.timed_out(Phase::Body, why)),
        }
    }

    /// When a server that takes nothing, or too little in all, has had its time.
    fn body_limit(&self, server_is_slow: bool) -> Limit {
        if !server_is_slow {
            return self.clock.body_limit(None);
        }
        let stalled = self.stalled_since + self.timeouts.body;
        let at_rate = Duration::from_secs(self.machine.message_bytes() / self.timeouts.min_rate.max(1));
        let left = (self.timeouts.body + at_rate).saturating_sub(self.body_wait);
        self.clock.body_limit(Some(stalled.min(Instant::now() + left)))
    }

    /// Writes what the transport takes and reads what is there. Ready, if anything came of it.
    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let wrote = self.poll_write(cx);
        let read = self.poll_read(cx);
        if wrote.is_ready() { wrote } else { read }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut progress = Poll::Pending;
        while self.broken.is_none() && (self.unflushed || !self.machine.output().is_empty()) {
            let output = self.machine.output();
            let written = if output.is_empty() {
                // Before a reply is waited for, everything must have left.
                Pin::new(&mut self.transport).poll_flush(cx).map_ok(|()| None)
            } else {
                let mut slices = [IoSlice::new(&[]); 16];
                let filled = output.io_slices(&mut slices);
                Pin::new(&mut self.transport).poll_write_vectored(cx, &slices[..filled]).map_ok(Some)
            };
            match written {
                Poll::Pending => break,
                Poll::Ready(Ok(None)) => self.unflushed = false,
                Poll::Ready(Ok(Some(0))) => self.broken = Some(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(Some(n))) => {
                    self.machine.wrote(n);
                    self.unflushed = true;
                    self.stalled_since = Instant::now();
                }
                Poll::Ready(Err(error)) => self.broken = Some(error),
            }
            progress = Poll::Ready(());
        }
        progress
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended {
            return Poll::Pending;
        }
        let mut buffer = ReadBuf::new(&mut self.buffer);
        let read = ready!(Pin::new(&mut self.transport).poll_read(cx, &mut buffer));
        let bytes = buffer.filled();
        match read {
            // The machine looks at what it has before it is given more, so it has room.
            Ok(()) if !bytes.is_empty() && self.machine.input(bytes) == bytes.len() => return Poll::Ready(()),
            Ok(()) => {}
            Err(error) => {
                self.broken.get_or_insert(error);
            }
        }
        self.ended = true;
        self.machine.input_ended();
        Poll::Ready(())
    }

    /// After a write failed, whatever the server said before it closed is read: it is the reason, and the
    /// failure only its consequence.
    async fn last_words(&mut self) -> Result<()> {
        if self.broken.is_some() && !self.ended {
            let reading = poll_fn(|cx| {
                while !self.ended {
                    ready!(self.poll_read(cx));
                }
                Poll::Ready(())
            });
            // In vain or not: the connection is broken.
            let _: Result<(), _> = timeout(LAST_WORDS, reading).await;
            self.ended = true;
            self.machine.input_ended();
        }
        Ok(())
    }

    fn timed_out(&mut self, phase: Phase, why: LimitKind) -> Error {
        let message = too_slow(phase, why, &self.timeouts);
        let error = self.machine.abort(Kind::Timeout, message);
        match hint::for_silence(phase) {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

// ---- Helpers of setting up ----

async fn connector_for(endpoint: &Endpoint) -> Result<Option<&Connector>> {
    Ok(match endpoint.security {
        Security::None => None,
        _ => Some(endpoint.connector().await?),
    })
}

fn client_name(endpoint: &Endpoint, stream: &TcpStream) -> ClientName {
    let own_address = || ClientName::literal(transport::local_ip(stream).unwrap_or([127, 0, 0, 1].into()));
    endpoint.client_name.clone().unwrap_or_else(own_address)
}

/// TLS that was wanted and not had: with [`Security::Opportunistic`], and nothing secret to send, plaintext will do.
fn may_fall_back(endpoint: &Endpoint, error: &Error) -> bool {
    let about_tls = matches!(error.phase(), Phase::StartTls | Phase::Tls);
    about_tls && error.kind() != Kind::Protocol && !endpoint.demands_trust()
}

/// Sets a limit to something that the machine has no part in.
async fn within<T>(
    clock: &mut Clock,
    timeouts: &Timeouts,
    phase: Phase,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    let began = Instant::now();
    let limit = clock.limit(began, timeouts.limit(phase));
    let outcome = timeout_at(limit.at, future).await;
    clock.spend(began);
    outcome.unwrap_or_else(|_| {
        let error = Error::new(Kind::Timeout, phase, too_slow(phase, limit.why, timeouts));
        Err(match hint::for_silence(phase) {
            Some(hint) => error.with_hint(hint),
            None => error,
        })
    })
}

// ---- Words ----

fn too_slow(phase: Phase, why: LimitKind, timeouts: &Timeouts) -> String {
    let what = match phase {
        Phase::Connect => "the connection was not made",
        Phase::Tls => "the TLS handshake did not end",
        Phase::Greeting => "the server did not greet",
        Phase::Hello => "the server did not answer EHLO",
        Phase::StartTls => "the server did not answer STARTTLS",
        Phase::Auth => "the server did not answer the login",
        Phase::Mail => "the server did not answer MAIL",
        Phase::Rcpt => "the server did not answer RCPT",
        Phase::Data => "the server did not answer DATA",
        Phase::Body => "the server did not take the message fast enough",
        Phase::EndOfData => "the server did not confirm the message",
        _ => "the server did not answer",
    };
    match why {
        LimitKind::Phase => format!("{what} within {:?}", timeouts.limit(phase)),
        LimitKind::Waiting => {
            format!("{what}, and the {:?} allowed for waiting are over", timeouts.waiting.unwrap_or_default())
        }
        LimitKind::Deadline => {
            format!("{what} before the deadline of {:?}", timeouts.deadline.unwrap_or_default())
        }
    }
}

fn refused(kind: Kind, phase: Phase, message: impl Into<String>, reply: Reply) -> Error {
    let error = Error::new(kind, phase, message);
    match hint::for_reply(phase, &reply) {
        Some(hint) => error.with_hint(hint).with_reply(reply),
        None => error.with_reply(reply),
    }
}

fn sender_refused(envelope: &Envelope) -> String {
    match envelope.reverse_path() {
        Some(address) => format!("the server refused the sender {address}"),
        None => "the server refused the null reverse-path <>".into(),
    }
}

fn recipients_refused(envelope: &Envelope, outcomes: &[Outcome]) -> String {
    let refused = envelope.recipients().iter().zip(outcomes);
    let refused = refused.filter(|(_, outcome)| matches!(outcome, Outcome::Refused(_)));
    let names: Vec<&str> = refused.map(|(address, _)| address.as_str()).collect();
    match names[..] {
        [name] if envelope.recipients().len() == 1 => format!("the server refused the recipient {name}"),
        _ if names.len() == envelope.recipients().len() => {
            format!("the server refused all {} recipients, {} among them", names.len(), names[0])
        }
        _ => format!("the message was to go to all recipients or none, and the server refused {}", names.join(", ")),
    }
}

/// A step that came where the message's fate or an answer was awaited.
fn not_sent(step: Step) -> Error {
    match step {
        Step::NotSent { phase: phase @ Phase::Data, reply } => {
            refused(Kind::Refused, phase, "the server refused to take the message", reply)
        }
        Step::NotSent { phase: phase @ Phase::Body, reply } => {
            refused(Kind::Refused, phase, "the server refused the message while it was being sent", reply)
        }
        Step::NotSent { phase: phase @ Phase::EndOfData, reply } => {
            refused(Kind::Refused, phase, "the server refused the message", reply)
        }
        Step::NotSent { phase, reply } => refused(Kind::Refused, phase, "the server ended the session", reply),
        Step::Closed => Error::new(Kind::Closed, Phase::Setup, "the session is over"),
        step => Error::new(Kind::Protocol, Phase::Command, format!("the session took an unexpected turn: {step:?}")),
    }
}

fn lost(phase: Phase, cause: io::Error) -> Error {
    Error::new(Kind::Closed, phase, format!("the connection failed: {cause}")).with_source(cause)
}
