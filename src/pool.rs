//! A [`Pool`]: connections to one server, kept and shared, and so many of them at most.
//!
//! Who gets one when, deadpool knows, and that a place is free again when its user is gone. Here stands what a connection must be to be
//! used again, and when a message goes once more. What may be said on it, the connection knows.

use std::convert::Infallible;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult};
use futures::future::join_all;
use tokio::time::Instant;

use crate::client::with_recipients;
use crate::error::{Error, Kind, Phase, Result};
use crate::message::{Body, Message};
use crate::receipt::Receipt;
use crate::timeouts::{Clock, FAR, Limit, LimitKind};
use crate::{Client, Connection, Envelope};

/// How many connections a [`Pool`] makes, and how long each of them is kept.
///
/// ```
/// use std::time::Duration;
/// use envoi::{Client, PoolLimits};
///
/// # fn example() -> envoi::Result<()> {
/// let mut limits = PoolLimits::new(4);
/// limits.idle = Duration::from_secs(20);
/// let pool = Client::from_url("smtp://mail.example.org")?.pool(limits);
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolLimits {
    /// How many connections there are at most, and at least 1. Servers take only so many from one client: 10 or 20 are usual.
    pub connections: u16,
    /// How long a call waits for one of them while all are in use; 1 minute by default.
    pub wait: Duration,
    /// How long a connection is kept that nobody uses; 1 minute by default. A server may close it after 5 minutes (RFC 5321, 4.5.3.2.7),
    /// and one that is busy does so earlier.
    pub idle: Duration,
    /// How long a connection is used, from its beginning; 30 minutes by default.
    pub age: Duration,
    /// How many messages go over a connection; 1000 by default. Where the server takes fewer, its own limit counts, if it tells (LIMITS,
    /// RFC 9422); else a 421 at the next message does.
    pub messages: usize,
}

impl PoolLimits {
    /// So many connections, and the defaults for the rest.
    pub fn new(connections: u16) -> Self {
        PoolLimits {
            connections,
            wait: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            age: Duration::from_secs(30 * 60),
            messages: 1000,
        }
    }
}

impl From<u16> for PoolLimits {
    fn from(connections: u16) -> Self {
        PoolLimits::new(connections)
    }
}

/// Connections to one server that are kept and shared: the next message goes over one that is there already, and there are never more than
/// so many. Made by [`Client::pool`].
///
/// Cheap to clone, and clones share the connections. Whoever finds all of them in use waits, and is served in the order of coming.
/// One that is kept is used again if the server has not ended it meanwhile, and it is within its [limits](PoolLimits); it costs no
/// round trip more than any other. It is not used again after a failure that ended the session, nor after a future that was dropped.
///
/// Nothing runs in the background. A connection that is let go says QUIT without waiting for the answer. One whose time is over is
/// let go when the pool is used the next time, if the server has not closed it before; so [`close`](Self::close) a pool that has done its work,
/// or drop all its clones.
///
/// ```
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
pub struct Pool(managed::Pool<Manager>);

impl Pool {
    pub(crate) fn new(client: Client, mut limits: PoolLimits) -> Self {
        limits.connections = limits.connections.max(1);
        let size = limits.connections.into();
        let pool = managed::Pool::builder(Manager { client, limits })
            .max_size(size)
            // The one used last is the first to be used again: so those that are not needed come to their time.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1);
        Pool(pool.build().expect("with a runtime, a pool can be built"))
    }

    /// The client that the connections are made by.
    pub fn client(&self) -> &Client {
        &self.0.manager().client
    }

    /// Sends a message over a connection of the pool. A new one is made where none is kept. What comes back is that of
    /// [`Client::send`]; the client's retries count here, too.
    ///
    /// Where a connection that was kept proves dead when the message begins (it is closed, or MAIL is answered by 421), the message goes once
    /// more, over a new one: the server has taken nothing of it. Not so a message with a stream in it, which can be read once only.
    ///
    /// # Errors
    ///
    /// As for [`Client::send`]. [`Kind::Timeout`] where all connections were in use for longer than the [limit](PoolLimits::wait), or up to the
    /// deadline; [`Kind::Request`] where the pool was closed.
    pub async fn send(&self, message: impl Into<Message<'_>>) -> Result<Receipt> {
        let attempt = |envelope, body, clock, started| self.attempt(envelope, body, clock, started);
        self.client().send_by(message.into(), attempt).await
    }

    async fn attempt(&self, envelope: Envelope, body: Body, clock: Clock, started: Instant) -> Result<Receipt> {
        let endpoint = self.client().endpoint();
        let mut pooled = match self.place(&clock).await {
            Ok(pooled) => pooled,
            Err(error) => return Err(with_recipients(error, endpoint, &envelope, started)),
        };
        let mut again = None;
        match &mut pooled.slot.connection {
            Some(kept) => {
                kept.begin_message(clock);
                again = body.restart().map(|body| (envelope.clone(), body));
            }
            None => {
                if let Err(error) = pooled.connect(clock).await {
                    return Err(with_recipients(error, endpoint, &envelope, started));
                }
            }
        }
        let error = match pooled.send_prepared(envelope, body, started, Some(endpoint)).await {
            Ok(receipt) => return Ok(receipt),
            Err(error) => error,
        };
        let Some((envelope, body)) = again.filter(|_| was_dead(&error)) else { return Err(error) };
        if let Err(error) = pooled.renew(endpoint).await {
            return Err(with_recipients(error, endpoint, &envelope, started));
        }
        pooled.send_prepared(envelope, body, started, Some(endpoint)).await
    }

    /// A connection for the caller alone, until it is dropped: for several messages in a row ([`Connection::send_all`]), or for single steps.
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
        let clock = Clock::start(&self.client().endpoint().timeouts);
        let mut pooled = self.place(&clock).await?;
        if pooled.slot.connection.is_none() {
            pooled.connect(clock).await?;
        }
        Ok(pooled)
    }

    /// A place among the connections, with the one that was kept there, if one was and is alive.
    async fn place(&self, clock: &Clock) -> Result<PooledConnection> {
        let limits = &self.0.manager().limits;
        self.0.retain(|slot, _| slot.is_fit(limits));
        let now = Instant::now();
        let limit = clock.deadline_before(Limit { at: now + limits.wait.min(FAR), why: LimitKind::Phase(limits.wait) });
        let wait = managed::Timeouts { wait: Some(limit.at - now), ..managed::Timeouts::new() };
        match self.0.timeout_get(&wait).await {
            Ok(slot) => Ok(PooledConnection { slot, pool: self.clone() }),
            Err(PoolError::Timeout(_)) => Err(self.full(limit.why)),
            Err(_) => Err(Error::request("the pool was closed").with_hint("Make another one of the client.")),
        }
    }

    fn full(&self, why: LimitKind) -> Error {
        let limits = &self.0.manager().limits;
        let until = match why {
            LimitKind::Deadline(limit) => format!("up to the deadline of {limit:?}"),
            LimitKind::Phase(limit) | LimitKind::Login(limit) | LimitKind::Waiting(limit) => format!("for {limit:?}"),
        };
        let connections = match limits.connections {
            1 => "the one connection of the pool was".to_owned(),
            all => format!("all {all} connections of the pool were"),
        };
        Error::new(Kind::Timeout, Phase::Setup, format!("{connections} in use {until}")).with_hint(
            "Nothing was sent; it can be tried again. Allow more connections, if the server takes so many at once, or a longer wait \
             (PoolLimits), or give fewer messages at a time.",
        )
    }

    /// Closes the pool, for all its clones: those connections that nobody uses say QUIT, and those in use as soon as they are given back. Who
    /// waits for one, or asks for one later, gets an error. Takes no longer than [`Timeouts::quit`](crate::Timeouts::quit).
    pub async fn close(&self) {
        let unused = self.0.retain(|_, _| false).removed;
        self.0.close();
        let connections = unused.into_iter().filter_map(|mut slot| slot.connection.take());
        join_all(connections.map(|connection| connection.quit())).await;
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Manager { client, limits } = self.0.manager();
        f.debug_struct("Pool").field("client", client).field("limits", limits).finish()
    }
}

/// The connection had ended before the server took anything of the message.
fn was_dead(error: &Error) -> bool {
    let ended = error.reply().map_or(error.kind() == Kind::Closed, |reply| reply.code() == 421);
    ended && matches!(error.phase(), Phase::Command | Phase::Mail) && !error.outcome_unknown()
}

/// A connection of a [`Pool`], from [`Pool::get`]. Dropped, it goes back, and the next user gets it; unless its session has ended, a
/// call on it was dropped, or a transaction is open: then it is closed, and its place is free for a new one.
///
/// What is done to the session stays done: it is not to be logged in as somebody else.
pub struct PooledConnection {
    slot: Object<Manager>,
    pool: Pool,
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
            connection.say_now();
        }
        if !self.slot.is_fit(&self.pool.0.manager().limits) {
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
    fn is_fit(&self, limits: &PoolLimits) -> bool {
        self.connection.as_ref().is_some_and(|connection| {
            connection.is_between_messages()
                && connection.messages_left() != Some(0)
                && connection.messages_begun() < limits.messages
                && connection.age() < limits.age
                && self.given_back.elapsed() < limits.idle
        })
    }

    fn let_go(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.leave_now();
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
    limits: PoolLimits,
}

impl managed::Manager for Manager {
    type Type = Slot;
    type Error = Infallible;

    async fn create(&self) -> Result<Slot, Infallible> {
        Ok(Slot { connection: None, given_back: Instant::now() })
    }

    async fn recycle(&self, slot: &mut Slot, _: &Metrics) -> RecycleResult<Infallible> {
        let is_alive = match &mut slot.connection {
            Some(connection) => connection.is_alive().await,
            None => false,
        };
        if is_alive { Ok(()) } else { Err(RecycleError::message("there is none, or it is over")) }
    }
}
