//! A [`Pool`]: connections to one server, kept and shared, and so many of them at most.
//!
//! Who gets one when, deadpool knows, and that a place is free again when its user is gone. Here
//! stands what a connection must be to be used again, and when a message goes once more. What may
//! be said on it, the connection knows.

use std::convert::Infallible;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult};
use futures::future::{join_all, ready};
use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::client::with_recipients;
use crate::connection::clock::{Clock, FAR, Limit, LimitKind};
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::message::{Body, Message};
use crate::receipt::Receipt;
use crate::{Client, Connection, Envelope, connection};

/// How many connections a [`Pool`] makes, and how long each of them is kept.
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
    /// How many connections there are at most, and at least 1. Servers take only so many from one
    /// client: 10 or 20 are usual.
    pub max_size: u16,
    /// How long a call waits for one of them while all are in use; 1 minute by default.
    pub acquire_timeout: Duration,
    /// How long a connection is kept that nobody uses; 1 minute by default. A server may close it
    /// after 5 minutes (RFC 5321, 4.5.3.2.7), and one that is busy does so earlier. One that was
    /// idle for a while is [asked](crate::Endpoint::check_after_idle) before a message goes over
    /// it.
    pub idle_timeout: Duration,
    /// How long a connection is used, from its beginning; 30 minutes by default.
    pub max_lifetime: Duration,
    /// How long [`Pool::close`] lets those finish who send or wait; 10 seconds by default.
    pub close: Duration,
    /// How many messages go over a connection; 1000 by default. Where the server takes fewer, its
    /// own limit counts, if it tells (LIMITS, RFC 9422); else a 421 at the next message does.
    pub max_messages: usize,
}

impl PoolConfig {
    /// So many connections, and the defaults for the rest.
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

/// Connections to one server that are kept and shared: the next message goes over one that is there
/// already, and there are never more than so many. Made by [`Client::pool`].
///
/// Cheap to clone, and clones share the connections. Whoever finds all of them in use waits, and is
/// served in the order of coming. One that is kept is used again if the server has not ended it
/// meanwhile, and it is within its [limits](PoolConfig); it costs no round trip more than any
/// other. It is not used again after a failure that ended the session, nor after a future that was
/// dropped.
///
/// Nothing runs in the background. A connection that is let go says QUIT without waiting for the
/// answer. One whose time is over is let go when the pool is used the next time, if the server has
/// not closed it before; so [`close`](Self::close) a pool that has done its work, or drop all its
/// clones.
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
///         let mail = MessageBuilder::new().from("me@example.org").to("you@example.com").text_body(format!("No. {number}"));
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
    /// The calls of all clones: those that send, and those that wait for a connection.
    calls: watch::Sender<Calls>,
}

#[derive(Default)]
struct Calls {
    number: usize,
    /// No more may begin.
    closed: bool,
}

impl Client {
    /// A pool of at most this many connections, or with [other limits](PoolConfig), for all tasks
    /// that send. A connection is opened when it is needed.
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
        let pool = managed::Pool::builder(Manager { client, limits })
            .max_size(size)
            // The one used last is the first to be used again: so those that are not needed come to
            // their time.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1);
        let slots = pool.build().expect("with a runtime, a pool can be built");
        Pool {
            slots,
            calls: watch::Sender::default(),
        }
    }

    /// The client that the connections are made by.
    pub fn client(&self) -> &Client {
        &self.slots.manager().client
    }

    /// Sends a message over a connection of the pool. A new one is made where none is kept. What
    /// comes back is that of [`Client::send`]; the client's retries count here, too.
    ///
    /// Where a connection that was kept proves dead, the message goes over a new one. It is dead
    /// where the session ends before the message begins, whatever the reason (it is closed, RSET
    /// after the message before is not answered, something came unasked); or where the message was
    /// begun and not handed over whole, and MAIL is not answered at all, or by 421: the server has
    /// taken nothing of it. Once it was begun, a message with a stream in it is not sent again, as
    /// it can be read once only.
    ///
    /// # Errors
    ///
    /// As for [`Client::send`]. [`ErrorKind::Timeout`] where all connections were in use for longer
    /// than the [limit](PoolConfig::acquire_timeout), or up to the deadline;
    /// [`ErrorKind::PoolClosed`] where the pool was [closed](Self::close).
    pub async fn send(&self, message: impl Into<Message<'_>>) -> Result<Receipt> {
        let attempt = |envelope, body, clock, started| self.attempt(envelope, body, clock, started);
        self.client().send_by(message.into(), attempt).await
    }

    async fn attempt(
        &self,
        envelope: Envelope,
        body: Body,
        clock: Clock,
        started: Instant,
    ) -> Result<Receipt> {
        let endpoint = self.client().endpoint();
        let connected = async {
            let call = self.begin_call()?;
            Ok((call, self.connected(clock.clone()).await?))
        };
        let (_call, (mut pooled, is_kept)) = match connected.await {
            Ok(connected) => connected,
            Err(error) => return Err(with_recipients(error, endpoint, &envelope, started)),
        };
        let again = body
            .restart()
            .filter(|_| is_kept)
            .map(|body| (envelope.clone(), body));
        let error = match pooled
            .send_prepared(envelope, body, started, Some(endpoint))
            .await
        {
            Ok(receipt) => return Ok(receipt),
            Err(error) => error,
        };
        let is_dead = pooled.was_stale(&error) && clock.has_time_for(Duration::ZERO);
        let Some((envelope, body)) = again.filter(|_| is_dead) else {
            return Err(error);
        };
        if let Err(error) = pooled.renew(endpoint).await {
            return Err(with_recipients(error, endpoint, &envelope, started));
        }
        pooled
            .send_prepared(envelope, body, started, Some(endpoint))
            .await
    }

    /// Sends the messages of a stream over one connection of the pool, as [`Connection::send_all`]
    /// does, and gives what became of each, in their order. The server may end the session before
    /// all are sent, as Exim does after 1,000 messages: the messages that were not sent for this
    /// reason, and those that follow, go over another connection in its place. It is also replaced
    /// when it has had as many messages as its [limits](PoolConfig::max_messages) or the server's
    /// (LIMITS, RFC 9422) allow, once another message or part of one is to go. A message with more
    /// parts than the server takes in a session goes over as many connections as it needs.
    ///
    /// A message whose outcome is [unknown](Error::outcome_unknown) is not sent again, nor is one
    /// with a stream in it. Where a session ends in which no message was answered, no other
    /// follows: each message under way gets its error, and the stream ends. Up to 64 messages are
    /// kept until they are answered. The client's retries do not count here.
    ///
    /// # Errors
    ///
    /// One error, and no message is taken, where no connection is to be had, as for
    /// [`get`](Self::get). Those of the messages are as for [`Connection::send_all`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, the stream closes the connection; messages under way may have been
    /// delivered or not.
    ///
    /// ```no_run
    /// use envoi::mail_builder::MessageBuilder;
    /// use envoi::{Message, Pool};
    /// use futures::StreamExt as _;
    ///
    /// # async fn example(pool: Pool, subscribers: Vec<String>) {
    /// let messages = futures::stream::iter(subscribers).map(|subscriber| {
    ///     Message::from(MessageBuilder::new().from("news@example.org").to(subscriber).text_body("News."))
    /// });
    /// let mut outcomes = std::pin::pin!(pool.send_all(messages));
    /// while let Some(outcome) = outcomes.next().await {
    ///     if let Err(error) = outcome {
    ///         eprintln!("{error}");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn send_all<'p, 'm: 'p>(
        &'p self,
        messages: impl Stream<Item = Message<'m>> + 'p,
    ) -> impl Stream<Item = Result<Receipt>> + 'p {
        let manager = self.slots.manager();
        let renewal = (
            manager.client.endpoint().clone(),
            manager.limits.max_messages,
        );
        let got = async move {
            let got = async { Ok((self.begin_call()?, self.ready_connection().await?)) };
            (got.await, messages, renewal)
        };
        stream::once(got).flat_map(|(got, messages, renewal)| match got {
            Ok((call, connection)) => {
                let outcomes = connection::send_all(connection, messages, Some(renewal));
                // The call lasts as long as the stream.
                let during = move |outcome| {
                    let _ = &call;
                    outcome
                };
                outcomes.map(during).left_stream()
            }
            Err(error) => stream::once(ready(Err(error))).right_stream(),
        })
    }

    /// A connection for the caller alone, until it is dropped: for several messages in a row
    /// ([`Connection::send_all`]; where they are to go on over another connection by themselves,
    /// [`send_all`](Self::send_all)), or for single steps.
    ///
    /// # Errors
    ///
    /// As for [`Client::connect`], and, for want of a free one, as for [`send`](Self::send).
    ///
    /// ```no_run
    /// # async fn example(pool: envoi::Pool) -> envoi::Result<()> {
    /// let mut connection = pool.get().await?;
    /// let reply = connection.command("VRFY alice").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(&self) -> Result<PooledConnection> {
        let _call = self.begin_call()?;
        self.ready_connection().await
    }

    async fn ready_connection(&self) -> Result<PooledConnection> {
        let clock = Clock::start(&self.client().endpoint().timeouts);
        Ok(self.connected(clock).await?.0)
    }

    /// A connection that is ready for a message, and whether it was kept.
    async fn connected(&self, clock: Clock) -> Result<(PooledConnection, bool)> {
        let mut pooled = self.place(&clock).await?;
        if let Some(kept) = &mut pooled.slot.connection {
            kept.begin_message(clock);
            if kept.is_ready().await {
                return Ok((pooled, true));
            }
            pooled.renew(self.client().endpoint()).await?;
        } else {
            pooled.connect(clock).await?;
        }
        Ok((pooled, false))
    }

    fn begin_call(&self) -> Result<Call<'_>> {
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

    /// A place among the connections, with the one that was kept there, if one was and is alive.
    async fn place(&self, clock: &Clock) -> Result<PooledConnection> {
        let limits = &self.slots.manager().limits;
        self.slots.retain(|slot, _| slot.is_fit(limits));
        let now = Instant::now();
        let limit = clock.deadline_before(Limit {
            at: now + limits.acquire_timeout.min(FAR),
            why: LimitKind::Phase(limits.acquire_timeout),
        });
        let wait = managed::Timeouts {
            wait: Some(limit.at - now),
            ..managed::Timeouts::new()
        };
        match self.slots.timeout_get(&wait).await {
            Ok(slot) => Ok(PooledConnection {
                slot,
                pool: self.clone(),
            }),
            Err(PoolError::Timeout(_)) => Err(self.full(limit.why)),
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
                    takes so many at once (PoolConfig), or a \
                 later deadline (Timeouts), or give fewer messages at a time."
            }
            _ => {
                "Nothing was sent; it can be tried again. Allow more connections, if the server \
                    takes so many at once, or a longer wait \
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

    /// Closes the pool, for all its clones. Calls that begin from now on get an error
    /// ([`ErrorKind::PoolClosed`]), as does the next of the [retries](Client::retries) of a
    /// message. Those that wait for a connection get their turn, and those that send finish, for as
    /// long as [`PoolConfig::close`] allows; those that still wait then get the same error. Unused
    /// connections say QUIT, which takes no longer than [`Timeouts::quit`](crate::Timeouts::quit).
    /// Those from [`get`](Self::get) say it as soon as they are given back, and are not waited for.
    ///
    /// Returns the number of calls that had not finished when the time was over. Each of them has
    /// an outcome of its own, so no message is lost: those that wait get the error at once, and
    /// those that send go on.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it leaves the pool closed to new calls, and those that wait still
    /// get their turn.
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
        let Manager { client, limits } = self.slots.manager();
        f.debug_struct("Pool")
            .field("client", client)
            .field("limits", limits)
            .finish()
    }
}

/// A call that was begun before the pool was closed. Dropped, it has ended.
struct Call<'p>(&'p watch::Sender<Calls>);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|calls| calls.number -= 1);
    }
}

fn was_closed() -> Error {
    Error::new(ErrorKind::PoolClosed, Phase::Setup, "the pool was closed")
        .with_hint("Make another one of the client.")
}

/// A connection of a [`Pool`], from [`Pool::get`]. Dropped, it goes back, and the next user gets
/// it; unless its session has ended, a call on it was dropped, or a transaction is open: then it is
/// closed, and its place is free for a new one.
///
/// What is done to the session stays done: it is not to be logged in as somebody else.
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
        // In boxes, as both are large.
        self.slot.connection = Some(Box::new(Box::pin(connecting).await?));
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
        if !self.slot.is_fit(&self.pool.slots.manager().limits) {
            self.slot.let_go();
        }
    }
}

/// A place for a connection. Empty, it has none: its user makes one, in the user's time.
struct Slot {
    connection: Option<Box<Connection>>,
    given_back: Instant,
}

impl Slot {
    /// It has a connection that may be used again, for all that is known here.
    fn is_fit(&self, limits: &PoolConfig) -> bool {
        self.connection.as_ref().is_some_and(|connection| {
            connection.is_between_messages()
                && connection.messages_left() != Some(0)
                && connection.messages_started() < limits.max_messages
                && connection.age() < limits.max_lifetime
                && self.given_back.elapsed() < limits.idle_timeout
        })
    }

    fn let_go(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.try_quit();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.let_go();
    }
}

struct Manager {
    client: Client,
    limits: PoolConfig,
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
        let is_alive = match &mut slot.connection {
            Some(connection) => connection.is_alive().await,
            None => false,
        };
        if is_alive {
            Ok(())
        } else {
            Err(RecycleError::message("there is none, or it is over"))
        }
    }
}
