//! A [`Pool`] of connections to one server, which are kept open and shared.
//!
//! deadpool does the queueing. This module decides when a connection may be reused and when a
//! message is retried on a fresh one. The connection knows whether another transaction can start on
//! it.

use std::convert::Infallible;
use std::fmt;
use std::ops::{Deref, DerefMut};
#[cfg(feature = "tower")]
use std::pin::Pin;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
#[cfg(feature = "tower")]
use std::task::{Context, Poll, ready};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult};
use futures_util::future::{BoxFuture, Either, join_all, select};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::client::{HAS_MESSAGE, Turn, with_recipients};
use crate::connection::clock::{Clock, FAR, Limit, LimitKind};
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::message::{Message, PreparedMessage};
use crate::receipt::Receipt;
use crate::{CheckReport, Client, Connection, Envelope, telemetry};

/// The limits of a [`Pool`].
///
/// ```
/// use std::time::Duration;
/// use envoi::{Client, PoolConfig};
///
/// # fn example() -> envoi::Result<()> {
/// let mut config = PoolConfig::new(4);
/// config.idle_timeout = Duration::from_secs(20);
/// let pool = Client::from_url("smtp://mail.example.org")?.pool(config);
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolConfig {
    /// The maximum number of connections; at least 1. Servers limit the connections of a client: 10
    /// or 20 are usual.
    pub max_size: u16,
    /// The maximum time that a call waits for a connection while all are in use; 1 minute by
    /// default.
    pub acquire_timeout: Duration,
    /// The time after which an unused connection is closed; 1 minute by default. A server may close
    /// it after 5 minutes (RFC 5321, 4.5.3.2.7), and a busy one does so earlier. A connection that
    /// has been idle for some time is [checked](crate::Endpoint::check_after_idle) before a message
    /// is sent over it.
    pub idle_timeout: Duration,
    /// The time after which a connection is no longer reused, counted from its opening; 30 minutes
    /// by default.
    pub max_lifetime: Duration,
    /// The time that [`Pool::close`] gives running and waiting calls to finish; 10 seconds by
    /// default.
    pub close: Duration,
    /// The maximum number of messages sent over a connection; 1000 by default. A lower limit of the
    /// server applies too: it is either announced (LIMITS, RFC 9422) or shows as a 421 to the next
    /// message.
    pub max_messages: usize,
}

impl PoolConfig {
    /// Creates limits with this many connections and defaults for everything else.
    pub fn new(connections: u16) -> Self {
        PoolConfig {
            max_size: connections,
            acquire_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            max_lifetime: Duration::from_secs(30 * 60),
            close: Duration::from_secs(10),
            max_messages: 1000,
        }
    }
}

impl From<u16> for PoolConfig {
    fn from(connections: u16) -> Self {
        PoolConfig::new(connections)
    }
}

/// Connections to one server that are kept open and shared: a message is sent over an idle
/// connection if there is one, and the number of connections is limited. Made by [`Client::pool`].
///
/// Cheap to clone; clones share the connections. If all connections are in use, callers wait in
/// FIFO order. An idle connection is reused if the server has not closed it and it is within its
/// [limits](PoolConfig); reuse needs no extra round trip. A connection is not reused after a
/// failure that ended the session, or after a future was dropped.
///
/// The pool has no background task. A connection that is released for good sends QUIT without
/// waiting for the reply. One that has expired is released when the pool is used the next time, if
/// the server has not closed it before; so [`close`](Self::close) a pool that is no longer needed,
/// or drop all its clones.
///
/// ```
/// # #[cfg(not(feature = "testing"))]
/// # fn main() {}
/// # #[cfg(feature = "testing")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use envoi::{Client, mail_builder::MessageBuilder, testing::Server};
///
/// let server = Server::start().await?;
/// let pool = Client::from_url(&server.url())?.pool(2);
/// let sending = (0..20).map(|number| {
///     let pool = pool.clone();
///     tokio::spawn(async move {
///         let mail = MessageBuilder::new()
///             .from("me@example.org")
///             .to("you@example.com")
///             .text_body(format!("No. {number}"));
///         pool.send(mail).await
///     })
/// });
/// for sent in sending.collect::<Vec<_>>() {
///     assert!(sent.await??.all_accepted());
/// }
/// pool.close().await;
/// assert!(server.connections().len() <= 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pool {
    slots: managed::Pool<Manager>,
    /// The calls of all clones that are sending or waiting for a connection.
    calls: watch::Sender<Calls>,
    #[cfg(feature = "tower")]
    reservation: Reservation,
}

#[derive(Default)]
struct Calls {
    number: usize,
    /// No further call may start.
    closed: bool,
}

impl Client {
    /// Creates a pool of at most this many connections, or with [other limits](PoolConfig). A
    /// connection is opened when it is needed.
    ///
    /// ```
    /// let client = envoi::Client::from_url("smtp://mail.example.org").unwrap();
    /// let pool = client.pool(4);
    /// ```
    #[must_use = "a pool that is dropped closes its connections"]
    pub fn pool(&self, limits: impl Into<PoolConfig>) -> Pool {
        Pool::new(self.clone(), limits.into())
    }
}

impl Pool {
    fn new(client: Client, mut limits: PoolConfig) -> Self {
        limits.max_size = limits.max_size.max(1);
        let size = limits.max_size.into();
        let sweep = Mutex::new((Instant::now(), 0));
        let manager = Manager {
            client,
            limits,
            sweep,
        };
        let pool = managed::Pool::builder(manager)
            .max_size(size)
            // LIFO: the connection used last is reused first, so that superfluous ones expire.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1);
        let slots = pool.build().expect("with a runtime, a pool can be built");
        Pool {
            slots,
            calls: watch::Sender::default(),
            #[cfg(feature = "tower")]
            reservation: Reservation::default(),
        }
    }

    /// The client that opens the connections.
    pub fn client(&self) -> &Client {
        &self.slots.manager().client
    }

    /// Sends a message over an idle connection, or over a new one if there is none. Returns what
    /// [`Client::send`] returns; the client's retry policy applies.
    ///
    /// If an idle connection turns out to be dead, the message is sent over a new one. A connection
    /// is dead if the session ends before the transaction starts, for any reason (it is closed, the
    /// RSET of the previous message is not answered, unsolicited data has arrived); or if the
    /// transaction had started but not the whole message was sent, and MAIL was not answered, or
    /// answered with 421: the server has not accepted anything. A message that contains a stream is
    /// not sent again once its transaction has started, since it can be read only once.
    ///
    /// # Errors
    ///
    /// See [`Client::send`]. [`ErrorKind::Timeout`] if all connections were in use for longer than
    /// the [limit](PoolConfig::acquire_timeout) or until the deadline; [`ErrorKind::PoolClosed`] if
    /// the pool was [closed](Self::close).
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for a connection, it gives up its place in the queue. Dropped later,
    /// it closes its connection, whose place in the pool is free again; the message was not sent,
    /// unless all of it had been written: then it may have been delivered. See
    /// [`guide::interruptions`](crate::guide::interruptions), also for the end of a program.
    pub async fn send(&self, message: impl Into<Message<'_>>) -> Result<Receipt> {
        self.send_boxed(message.into()).await
    }

    /// Boxed for the reasons of `Client::send_boxed`.
    fn send_boxed<'a>(&'a self, message: Message<'a>) -> BoxFuture<'a, Result<Receipt>> {
        let sending = self
            .client()
            .send_by(message, move |message, clock, started| async move {
                self.attempt(&mut Some(message), clock, started).await
            });
        Box::pin(sending)
    }

    /// Makes one attempt to send a message, which is taken when the transaction starts.
    pub(crate) async fn attempt(
        &self,
        message: &mut Option<PreparedMessage>,
        clock: Clock,
        started: Instant,
    ) -> Result<Receipt> {
        let endpoint = self.client().endpoint();
        let envelope = &message.as_ref().expect(HAS_MESSAGE).envelope;
        let acquire = async {
            let turn = self.turn(envelope, &clock).await?;
            let call = self.start_call()?;
            let acquired = self.acquire(clock.clone()).await?;
            turn.start();
            Ok((call, acquired))
        };
        let (_call, (mut pooled, is_kept)) = match acquire.await {
            Ok(acquire) => acquire,
            Err(error) => return Err(with_recipients(error, endpoint, envelope, started)),
        };
        let message = message.take().expect(HAS_MESSAGE);
        let again = is_kept.then(|| message.try_clone()).flatten();
        let error = match pooled.send_prepared(message, started, Some(endpoint)).await {
            Ok(receipt) => return Ok(receipt),
            Err(error) => error,
        };
        let is_dead = pooled.was_stale(&error) && clock.has_time_for(Duration::ZERO);
        let Some(message) = again.filter(|_| is_dead) else {
            return Err(error);
        };
        if let Err(error) = pooled.renew(endpoint).await {
            return Err(with_recipients(error, endpoint, &message.envelope, started));
        }
        pooled.send_prepared(message, started, Some(endpoint)).await
    }

    /// Returns a connection for exclusive use until it is dropped: for several messages in a row
    /// ([`Connection::send_all`]; [`send_all`](Self::send_all) of the pool continues over another
    /// connection by itself), or for single steps.
    ///
    /// # Errors
    ///
    /// See [`Client::connect`], and [`send`](Self::send) if no connection is free.
    ///
    /// ```no_run
    /// # async fn example(pool: envoi::Pool) -> envoi::Result<()> {
    /// let mut connection = pool.get().await?;
    /// let reply = connection.command("VRFY alice").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it gives up its place in the queue, or closes the connection that it
    /// was setting up.
    pub async fn get(&self) -> Result<PooledConnection> {
        let _call = self.start_call()?;
        self.ready_connection().await
    }

    /// Checks that messages can be sent, over an idle connection, which must answer NOOP, or over a
    /// new one if there is none. The connection is kept. As a health check it needs no connection
    /// of its own each time.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// As for [`get`](Self::get).
    pub async fn check(&self) -> Result<CheckReport> {
        let started = Instant::now();
        let _call = self.start_call()?;
        self.check_connection(started)
            .await
            .map(|(_, report)| report)
    }

    /// Opens connections before they are needed: as many as this, at least 1, or as the pool may
    /// have. Returns the report of the [check](Self::check) of the first one. A connection that
    /// stays unused is closed after the [idle time-out](PoolConfig::idle_timeout), as all are.
    ///
    /// ```no_run
    /// # async fn example() -> envoi::Result<()> {
    /// let pool = envoi::Client::from_url("smtp://mail.example.org")?.pool(8);
    /// // Before the first message, for example before a web server accepts requests:
    /// println!("{}", pool.warm_up(4).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get). If the first connection cannot be opened, no other is tried. The
    /// connections that were opened are kept in any case; if a server takes fewer than it was
    /// asked for, the pool needs a lower [limit](PoolConfig::max_size).
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it closes the connections that it was setting up.
    pub async fn warm_up(&self, connections: u16) -> Result<CheckReport> {
        let started = Instant::now();
        let _call = self.start_call()?;
        // Held until all are open, so that each is another one.
        let (_first, report) = self.check_connection(started).await?;
        let number = connections.min(self.slots.manager().limits.max_size);
        let others = join_all((1..number).map(|_| self.check_connection(started))).await;
        let open = 1 + others.iter().filter(|other| other.is_ok()).count();
        match others.into_iter().find_map(Result::err) {
            None => Ok(report),
            Some(error) => {
                Err(error.context(format_args!("{open} of {number} connections opened")))
            }
        }
    }

    /// A connection that the server still answers on, and the report on it.
    async fn check_connection(&self, started: Instant) -> Result<(PooledConnection, CheckReport)> {
        let client = self.client();
        let clock = Clock::start(&client.endpoint().timeouts);
        let (mut pooled, is_kept) = self.acquire(clock).await?;
        // A connection that the server has given up without notice is replaced.
        if is_kept && pooled.verify().await.is_err() {
            pooled.renew(client.endpoint()).await?;
        }
        let report = CheckReport::new(&mut pooled, client.endpoint(), started).await?;
        Ok((pooled, report))
    }

    /// A connection that is ready for a message.
    pub(crate) async fn ready_connection(&self) -> Result<PooledConnection> {
        let clock = Clock::start(&self.client().endpoint().timeouts);
        Ok(self.acquire(clock).await?.0)
    }

    /// A connection that is ready for a message, and whether it has been used before.
    async fn acquire(&self, clock: Clock) -> Result<(PooledConnection, bool)> {
        let mut pooled = self.acquire_slot(&clock).await?;
        if let Some(kept) = &mut pooled.slot.connection {
            kept.start_message(clock);
            if kept.is_ready().await {
                return Ok((pooled, true));
            }
            pooled.renew(self.client().endpoint()).await?;
        } else {
            pooled.connect(clock).await?;
        }
        Ok((pooled, false))
    }

    /// Waits for the rate limit. A pool that is closed meanwhile ends the wait.
    pub(crate) async fn turn(&self, envelope: &Envelope, clock: &Clock) -> Result<Turn> {
        let closed = async {
            let mut calls = self.calls.subscribe();
            let _ = calls.wait_for(|calls| calls.closed).await;
        };
        let turn = self.client().turn(envelope, clock);
        match select(pin!(turn), pin!(closed)).await {
            Either::Left((turn, _)) => turn,
            Either::Right(_) => Err(was_closed()),
        }
    }

    pub(crate) fn start_call(&self) -> Result<Call<'_>> {
        let begin = |calls: &mut Calls| {
            calls.number += usize::from(!calls.closed);
            !calls.closed
        };
        if self.calls.send_if_modified(begin) {
            Ok(Call(&self.calls))
        } else {
            Err(was_closed())
        }
    }

    pub(crate) fn limits(&self) -> &PoolConfig {
        &self.slots.manager().limits
    }

    /// The number of connections that can be had without waiting.
    pub(crate) fn free_slots(&self) -> usize {
        let status = self.slots.status();
        status.available + (status.max_size - status.size)
    }

    /// Whether this is the only clone, and it has no connections once those that have expired are
    /// closed. A call has a clone from before it begins.
    #[cfg(feature = "mx")]
    pub(crate) fn is_unused(&self) -> bool {
        let limits = self.limits();
        self.slots.retain(|slot, _| slot.is_reusable(limits));
        self.slots.status().size == 0 && self.calls.sender_count() == 1
    }

    /// Whether all connections are in use, and calls wait for one.
    pub(crate) fn has_waiting_calls(&self) -> bool {
        let status = self.slots.status();
        status.waiting > 0 && status.size == status.max_size
    }

    /// A slot of the pool, with its idle connection if it has one that is alive.
    async fn acquire_slot(&self, clock: &Clock) -> Result<PooledConnection> {
        let limits = &self.slots.manager().limits;
        #[cfg(feature = "tower")]
        if let Some(mut reserved) = self.reservation.take() {
            if !reserved.slot.is_reusable(limits) {
                reserved.slot.release();
            }
            return Ok(reserved);
        }
        let limit = clock.deadline_before(Limit {
            at: Instant::now() + limits.acquire_timeout.min(FAR),
            why: LimitKind::Phase(limits.acquire_timeout),
        });
        self.wait_for_slot(Some(limit)).await
    }

    /// Reserves a slot for the next call on this value, without a limit to the wait.
    #[cfg(feature = "tower")]
    pub(crate) fn poll_reserve(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let ReservationState::None = self.reservation.state() {
            let pool = self.clone();
            let waiting = async move { pool.wait_for_slot(None).await };
            *self.reservation.state() = ReservationState::Waiting(Box::pin(waiting));
        }
        let state = self.reservation.state();
        if let ReservationState::Waiting(waiting) = state {
            let reserved = ready!(waiting.as_mut().poll(cx));
            // An error must not leave a future that has ended.
            *state = ReservationState::None;
            *state = ReservationState::Ready(Box::new(reserved?));
        }
        Poll::Ready(Ok(()))
    }

    /// Returns a clone that has the reservation of this value.
    #[cfg(feature = "tower")]
    pub(crate) fn take_reservation(&mut self) -> Self {
        Pool {
            reservation: std::mem::take(&mut self.reservation),
            ..self.clone()
        }
    }

    /// Waits for a slot of the pool, up to a limit if there is one.
    async fn wait_for_slot(&self, limit: Option<Limit>) -> Result<PooledConnection> {
        let host = &self.client().endpoint().server;
        telemetry::in_span("pool_wait", host, pin!(self.next_slot(limit))).await
    }

    async fn next_slot(&self, limit: Option<Limit>) -> Result<PooledConnection> {
        let manager = self.slots.manager();
        if manager.is_sweep_due(Instant::now(), self.slots.status().available) {
            self.slots
                .retain(|slot, _| slot.is_reusable(&manager.limits));
        }
        let wait = managed::Timeouts {
            wait: limit.as_ref().map(|limit| limit.at - Instant::now()),
            ..managed::Timeouts::new()
        };
        match self.slots.timeout_get(&wait).await {
            Ok(slot) => Ok(PooledConnection {
                slot,
                pool: self.clone(),
            }),
            Err(PoolError::Timeout(_)) => Err(match limit {
                Some(limit) => self.full(limit.why),
                None => was_closed(),
            }),
            Err(_) => Err(was_closed()),
        }
    }

    fn full(&self, why: LimitKind) -> Error {
        let limits = &self.slots.manager().limits;
        let until = match why {
            LimitKind::Deadline(limit) => format!(" up to the deadline of {limit:?}"),
            LimitKind::Phase(Duration::ZERO) => String::new(),
            LimitKind::Phase(limit) | LimitKind::Login(limit) | LimitKind::Waiting(limit) => {
                format!(" for {limit:?}")
            }
        };
        let connections = match limits.max_size {
            1 => "the one connection of the pool was".to_owned(),
            all => format!("all {all} connections of the pool were"),
        };
        let hint = match why {
            LimitKind::Deadline(_) => {
                "Nothing was sent; it can be tried again. Allow more connections, if the server \
                    allows that many at once (PoolConfig), or a \
                 later deadline (Timeouts), or give fewer messages at a time."
            }
            _ => {
                "Nothing was sent; it can be tried again. Allow more connections, if the server \
                    allows that many at once, or a longer wait \
                 (PoolConfig), or give fewer messages at a time."
            }
        };
        Error::new(
            ErrorKind::Timeout,
            Phase::Setup,
            format!("{connections} in use{until}"),
        )
        .with_hint(hint)
    }

    /// Closes the pool for all its clones. Later calls get an error ([`ErrorKind::PoolClosed`]), as
    /// does the next [retry](Client::retries) of a message. Within [`PoolConfig::close`], calls
    /// that are waiting for a connection get one and calls that are sending finish; then the calls
    /// that are still waiting get this error. Idle connections send QUIT, which takes at most
    /// [`Timeouts::quit`](crate::Timeouts::quit). Connections from [`get`](Self::get) send it when
    /// they are returned; `close` does not wait for them. Messages that wait for the client's rate
    /// limit (feature `rate-limit`) get the error at once.
    ///
    /// Returns the number of calls that had not finished in time. Each of them still has its own
    /// result, so no message is lost: those that are waiting get the error at once, and those that
    /// are sending continue.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the pool stays closed to new calls, and waiting calls still get a
    /// connection.
    pub async fn close(&self) -> usize {
        self.calls.send_modify(|calls| calls.closed = true);
        let mut calls = self.calls.subscribe();
        let all_ended = calls.wait_for(|calls| calls.number == 0);
        let left = match timeout(self.slots.manager().limits.close, all_ended).await {
            Ok(_) => 0,
            Err(_) => self.calls.borrow().number,
        };
        let unused = self.slots.retain(|_, _| false).removed;
        self.slots.close();
        let connections = unused
            .into_iter()
            .filter_map(|mut slot| slot.connection.take());
        join_all(connections.map(|connection| connection.quit())).await;
        left
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Manager { client, limits, .. } = self.slots.manager();
        f.debug_struct("Pool")
            .field("client", client)
            .field("limits", limits)
            .finish()
    }
}

/// The connection that is reserved for the next call of a service. A clone has none.
#[cfg(feature = "tower")]
#[derive(Default)]
struct Reservation(Mutex<ReservationState>);

#[cfg(feature = "tower")]
#[derive(Default)]
enum ReservationState {
    #[default]
    None,
    Waiting(Pin<Box<dyn Future<Output = Result<PooledConnection>> + Send>>),
    Ready(Box<PooledConnection>),
}

#[cfg(feature = "tower")]
impl Reservation {
    fn state(&mut self) -> &mut ReservationState {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<PooledConnection> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::take(&mut *state) {
            ReservationState::Ready(reserved) => Some(*reserved),
            ReservationState::None | ReservationState::Waiting(_) => None,
        }
    }
}

#[cfg(feature = "tower")]
impl Clone for Reservation {
    fn clone(&self) -> Self {
        Reservation::default()
    }
}

/// A call that started before the pool was closed. It ends when dropped.
pub(crate) struct Call<'p>(&'p watch::Sender<Calls>);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|calls| calls.number -= 1);
    }
}

pub(crate) fn was_closed() -> Error {
    Error::new(ErrorKind::PoolClosed, Phase::Setup, "the pool was closed")
        .with_hint("Make another one of the client.")
}

/// A connection of a [`Pool`], from [`Pool::get`]. Dropping it returns it to the pool for reuse;
/// but if its session has ended, a call on it was dropped, or a transaction is open, it is closed,
/// and its slot is free for a new one.
///
/// Session state survives the return to the pool; do not authenticate as another user.
pub struct PooledConnection {
    slot: Object<Manager>,
    pool: Pool,
}

impl fmt::Debug for PooledConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledConnection")
            .field("connection", &self.slot.connection)
            .finish_non_exhaustive()
    }
}

impl PooledConnection {
    async fn connect(&mut self, clock: Clock) -> Result<()> {
        let connecting = Connection::connect_by(self.pool.client().endpoint(), clock);
        self.slot.connection = Some(Box::new(connecting.await?));
        Ok(())
    }
}

impl Deref for PooledConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.slot.connection.as_ref().expect("it was connected")
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut Connection {
        self.slot.connection.as_mut().expect("it was connected")
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        self.slot.given_back = Instant::now();
        if let Some(connection) = &mut self.slot.connection {
            connection.flush_now();
        }
        if !self.slot.is_reusable(&self.pool.slots.manager().limits) {
            self.slot.release();
        }
    }
}

/// A slot for a connection. If it is empty, its user opens one, within the limits of the call.
struct Slot {
    connection: Option<Box<Connection>>,
    given_back: Instant,
}

impl Slot {
    /// Whether the slot has a connection that may be reused, as far as is known without asking the
    /// server.
    fn is_reusable(&self, limits: &PoolConfig) -> bool {
        self.connection.as_ref().is_some_and(|connection| {
            connection.is_between_messages()
                && connection.messages_left() != Some(0)
                && connection.messages_started() < limits.max_messages
                && connection.age() < limits.max_lifetime
                && self.given_back.elapsed() < limits.idle_timeout
        })
    }

    fn release(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.try_quit();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.release();
    }
}

struct Manager {
    client: Client,
    limits: PoolConfig,
    /// When all idle connections were last looked at, and the number of calls since.
    sweep: Mutex<(Instant, usize)>,
}

impl Manager {
    /// Whether all idle connections are to be looked at. In constant time for each call, so not
    /// before as many calls as there are connections; but in a second at the latest.
    fn is_sweep_due(&self, now: Instant, idle: usize) -> bool {
        let mut sweep = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, calls) = &mut *sweep;
        *calls += 1;
        let is_due = *calls >= idle || now.duration_since(*at) >= Duration::from_secs(1);
        if is_due {
            *sweep = (now, 0);
        }
        is_due
    }
}

impl managed::Manager for Manager {
    type Type = Slot;
    type Error = Infallible;

    async fn create(&self) -> Result<Slot, Infallible> {
        Ok(Slot {
            connection: None,
            given_back: Instant::now(),
        })
    }

    async fn recycle(&self, slot: &mut Slot, _: &Metrics) -> RecycleResult<Infallible> {
        // Its limits, too: not all idle connections are looked at before each call.
        let is_reusable = slot.is_reusable(&self.limits);
        let is_alive = match &mut slot.connection {
            Some(connection) if is_reusable && connection.is_for_this_call() => {
                connection.is_alive().await
            }
            _ => false,
        };
        if is_alive {
            Ok(())
        } else {
            Err(RecycleError::message("there is none, or it is over"))
        }
    }
}
