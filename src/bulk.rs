//! Many messages over several connections of a pool: [`Pool::send_all`].
//!
//! Each connection sends the messages that it is given as
//! [`Connection::send_all`](crate::Connection::send_all) does. This module distributes them, opens
//! connections as they are needed and returns them to the pool when they are not, and passes the
//! messages of a connection that was lost to the others.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use crate::client::with_recipients;
use crate::connection::clock::Clock;
use crate::connection::{self, Admission, Incoming, Renewal, Settled, prepare_by};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::pool::{Call, Pool, PooledConnection};
use crate::receipt::Receipt;
use crate::telemetry;

/// The number of messages for which one connection is enough.
const FEW: usize = 8;

/// The time after a failed attempt to open a further connection, in which no other is made.
const PAUSE: Duration = Duration::from_secs(5);

/// How [`Pool::send_all_with`] uses the connections of a pool.
///
/// ```
/// use envoi::BulkConfig;
///
/// // Two connections of the pool stay free for single messages, if it has five.
/// let mut config = BulkConfig::default();
/// config.max_connections = 3;
/// config.ordered = false;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkConfig {
    /// The maximum number of connections, at least 1; by default, as many as the
    /// [pool](crate::PoolConfig::max_size) has.
    pub max_connections: u16,
    /// Whether the outcomes come in the order of the messages, which is the default. Otherwise, an
    /// outcome comes as soon as it is known.
    pub ordered: bool,
}

impl Default for BulkConfig {
    fn default() -> Self {
        BulkConfig {
            max_connections: u16::MAX,
            ordered: true,
        }
    }
}

impl Pool {
    /// Sends the messages of a stream over the connections of the pool, and yields the outcome of
    /// each, in their order. [`send_all_with`](Self::send_all_with) can use fewer connections, and
    /// yield the outcomes as they come.
    ///
    /// # Connections
    ///
    /// Each connection has a [window](crate::Endpoint::send_window) of messages in flight, as in
    /// [`Connection::send_all`](crate::Connection::send_all). One is opened first; another one
    /// follows for about every eight messages that wait or are in flight, if the pool has room for
    /// it. While the stream has no message ready, connections without messages in flight go back to
    /// the pool. If other calls wait for a connection, one of those in use goes back to the pool,
    /// as soon as its messages are answered.
    ///
    /// If the server ends a session before all messages are sent, as Exim does after 1,000
    /// messages, the messages that were not sent for this reason go over another connection. A
    /// connection is also replaced when it has reached the
    /// [limit](crate::PoolConfig::max_messages) of messages or that of the server (LIMITS, RFC
    /// 9422) and another transaction follows. A message with more transactions than the server
    /// accepts in a session is sent over as many connections as it needs.
    ///
    /// A connection that cannot be replaced, or whose replacement ends without a reply to any
    /// message, is given up; the others take its messages, and no further one is opened for 5
    /// seconds. If none is left, each message that was taken gets the error, and the stream ends;
    /// the messages that were not taken from `messages` are untouched.
    ///
    /// # Outcomes
    ///
    /// Each message has one outcome, and is sent once: a message whose outcome is
    /// [unknown](Error::outcome_unknown) is not sent again, nor is one that contains a stream and
    /// was started. The client's retry policy does not apply; its rate limit (feature `rate-limit`)
    /// does. The [deadline](crate::Timeouts::deadline) is that of each message, from when a
    /// connection takes it; waiting for a connection does not count. Messages that are in flight
    /// are kept until they are answered, and at most one window for each connection is taken in
    /// advance, also while an earlier outcome is missing.
    ///
    /// # Errors
    ///
    /// If no connection is available, as for [`get`](Self::get), the first message gets the error,
    /// and the stream ends. For the errors of messages, see
    /// [`Connection::send_all`](crate::Connection::send_all).
    ///
    /// # Cancel safety
    ///
    /// The future of the next outcome is cancel-safe: nothing is lost, and the next poll continues.
    /// While it is not polled, nothing is sent or read. Dropping the stream before its end closes
    /// the connections with messages in flight, which may have been delivered or not; a `Journal`
    /// (feature `journal`) knows which.
    ///
    /// ```no_run
    /// use envoi::mail_builder::MessageBuilder;
    /// use envoi::{Message, Pool};
    /// use futures::StreamExt as _;
    ///
    /// # async fn example(pool: Pool, subscribers: Vec<String>) {
    /// let messages = futures::stream::iter(subscribers).map(|subscriber| {
    ///     let mail = MessageBuilder::new().from("news@example.org").to(subscriber);
    ///     Message::from(mail.text_body("News."))
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
        let outcomes = self.send_all_with(messages, BulkConfig::default());
        outcomes.map(|(_, outcome)| outcome)
    }

    /// Sends the messages of a stream as [`send_all`](Self::send_all) does, over at most as many
    /// connections as `config` says, and yields the outcomes in the order that it says. Each comes
    /// with the number of its message, counted from 0 as by `enumerate`.
    ///
    /// # Errors
    ///
    /// As for [`send_all`](Self::send_all).
    ///
    /// # Cancel safety
    ///
    /// As for [`send_all`](Self::send_all).
    ///
    /// ```no_run
    /// # use envoi::{Message, Pool};
    /// use envoi::BulkConfig;
    /// use futures::StreamExt as _;
    ///
    /// # async fn example(pool: Pool, messages: Vec<Message<'static>>) {
    /// let mut config = BulkConfig::default();
    /// config.ordered = false;
    /// let messages = futures::stream::iter(messages);
    /// let mut outcomes = std::pin::pin!(pool.send_all_with(messages, config));
    /// let mut done = 0;
    /// while let Some((number, outcome)) = outcomes.next().await {
    ///     done += 1;
    ///     println!("{done} done; message {number}: {:?}", outcome.map(|receipt| receipt.reply));
    /// }
    /// # }
    /// ```
    pub fn send_all_with<'p, 'm: 'p>(
        &'p self,
        messages: impl Stream<Item = Message<'m>> + 'p,
        config: BulkConfig,
    ) -> impl Stream<Item = (usize, Result<Receipt>)> + 'p {
        let max_connections = config.max_connections.clamp(1, self.limits().max_size);
        let mut bulk = Bulk {
            pool: self,
            call: None,
            max_connections: max_connections.into(),
            window: self.client().endpoint().get_send_window().messages.max(1),
            messages: Box::pin(messages.fuse()),
            input_ended: false,
            taken: 0,
            queue: VecDeque::new(),
            workers: Vec::new(),
            opening: Vec::new(),
            paused_until: None,
            failing: Vec::new(),
            outcomes: Outcomes::new(config.ordered),
        };
        stream::poll_fn(move |cx| bulk.poll_next(cx))
    }

    /// How each message of [`send_all`](Self::send_all) waits for the rate limit.
    fn admission(&self) -> Option<Admission> {
        #[cfg(feature = "rate-limit")]
        if self.client().get_rate_limit().is_some() {
            let pool = self.clone();
            return Some(Arc::new(move |envelope, clock| {
                let pool = pool.clone();
                Box::pin(async move {
                    pool.turn(&envelope, &clock).await?.start();
                    Ok(envelope)
                })
            }));
        }
        None
    }
}

/// The state of the stream. One task polls all of it, and each part again after any change, so the
/// parts need not wake each other.
struct Bulk<'p, 'm, S> {
    pool: &'p Pool,
    /// Lasts from the first message to the end of the stream.
    call: Option<Call<'p>>,
    max_connections: usize,
    /// The maximum number of messages in flight over a connection.
    window: usize,
    messages: Pin<Box<S>>,
    /// No more messages are taken.
    input_ended: bool,
    /// The number of messages that were taken from the stream.
    taken: usize,
    /// The messages that no connection has, in their order.
    queue: VecDeque<Queued<'m>>,
    workers: Vec<Worker<'m>>,
    /// The connections that are being opened, or taken from the pool.
    opening: Vec<BoxFuture<'p, Result<PooledConnection>>>,
    /// Until when no further connection is opened.
    paused_until: Option<Instant>,
    /// The outcomes of messages without a connection, which are prepared for their recipients.
    failing: Vec<BoxFuture<'m, (usize, Result<Receipt>)>>,
    outcomes: Outcomes,
}

struct Queued<'m> {
    number: usize,
    message: Incoming<'m>,
    /// The outcome if no connection is left, of a message that a connection did not send.
    error: Option<Error>,
}

/// A connection with the messages that it was given.
struct Worker<'m> {
    settled: Pin<Box<dyn Stream<Item = Settled> + Send + 'm>>,
    inbox: Inbox<'m>,
    /// The numbers of its messages without an outcome. Their outcomes come in this order.
    numbers: VecDeque<usize>,
    /// Why the connection was given up; without the receipt, which is that of a message.
    failure: Option<Error>,
}

impl<'m, S: Stream<Item = Message<'m>>> Bulk<'_, 'm, S> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, Result<Receipt>)>> {
        loop {
            if let Some(outcome) = self.outcomes.next() {
                return Poll::Ready(Some(outcome));
            }
            if self.input_ended && self.outcomes.added == self.taken {
                self.opening.clear();
                if self.workers.is_empty() {
                    self.call = None;
                    return Poll::Ready(None);
                }
            }
            // Each part is polled, whatever the others return.
            let has_changed = self.poll_opening(cx)
                | self.poll_workers(cx)
                | self.poll_failing(cx)
                | self.poll_messages(cx);
            if !has_changed {
                return Poll::Pending;
            }
        }
    }

    /// Adds the connections that have been opened.
    fn poll_opening(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_changed = false;
        let mut index = 0;
        while let Some(opening) = self.opening.get_mut(index) {
            let Poll::Ready(opened) = opening.as_mut().poll(cx) else {
                index += 1;
                continue;
            };
            has_changed = true;
            drop(self.opening.swap_remove(index));
            match opened {
                Ok(connection) => self.workers.push(self.worker(connection)),
                Err(error) => self.connection_failed(error),
            }
        }
        has_changed
    }

    fn worker(&self, connection: PooledConnection) -> Worker<'m> {
        let inbox = Inbox::default();
        let renewal = Renewal {
            endpoint: self.pool.client().endpoint().clone(),
            max_messages: self.pool.limits().max_messages,
            admit: self.pool.admission(),
        };
        let settled = connection::send_all(connection, inbox.clone(), Some(renewal));
        Worker {
            settled: Box::pin(settled),
            inbox,
            numbers: VecDeque::new(),
            failure: None,
        }
    }

    /// Takes the outcomes of the messages in flight.
    fn poll_workers(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_changed = false;
        let mut index = 0;
        while let Some(worker) = self.workers.get_mut(index) {
            match worker.settled.as_mut().poll_next(cx) {
                Poll::Pending => {
                    index += 1;
                    continue;
                }
                Poll::Ready(Some(settled)) => {
                    self.settle(index, settled);
                    index += 1;
                }
                Poll::Ready(None) => {
                    let worker = self.workers.swap_remove(index);
                    self.remove(worker);
                }
            }
            has_changed = true;
        }
        has_changed
    }

    fn settle(&mut self, index: usize, settled: Settled) {
        let worker = &mut self.workers[index];
        let mut number = || {
            let number = worker.numbers.pop_front();
            number.expect("each outcome is that of a message")
        };
        let mut failure = match settled {
            Settled::Outcome(result) => return self.outcomes.add(number(), result),
            Settled::Unsent(unsent, error) => {
                let queued = Queued {
                    number: number(),
                    message: Incoming::Unsent(unsent),
                    error: Some(error.clone()),
                };
                insert(&mut self.queue, queued);
                error
            }
            Settled::Lost(error) => error,
        };
        // The connection takes no more messages, and no other one replaces it at once.
        worker.inbox.end();
        failure.take_receipt();
        worker.failure.get_or_insert(failure);
        self.paused_until = Some(Instant::now() + PAUSE);
    }

    /// Returns a connection to the pool, and takes back the messages that it was given and did not
    /// take.
    fn remove(&mut self, mut worker: Worker<'m>) {
        for message in worker.inbox.take_all() {
            let number = worker.numbers.pop_front();
            let queued = Queued {
                number: number.expect("each message in an inbox has a number"),
                message,
                error: None,
            };
            insert(&mut self.queue, queued);
        }
        if let Some(error) = worker.failure {
            self.connection_failed(error);
        }
    }

    /// A connection could not be opened, or replaced. If no other one is left, the stream ends.
    fn connection_failed(&mut self, error: Error) {
        self.paused_until = Some(Instant::now() + PAUSE);
        if !self.workers.is_empty() || !self.opening.is_empty() {
            return;
        }
        self.input_ended = true;
        let endpoint = self.pool.client().endpoint();
        for Queued {
            number,
            message,
            error: own_error,
        } in self.queue.drain(..)
        {
            let error = own_error.unwrap_or_else(|| error.clone());
            let (endpoint, started) = (endpoint.clone(), Instant::now());
            self.failing.push(Box::pin(async move {
                let result = Err(match message {
                    Incoming::Unsent(_) if error.receipt().is_some() => error,
                    // Another connection was to send it, and was lost before.
                    Incoming::Unsent(unsent) => {
                        let envelope = unsent.prepared.envelope();
                        with_recipients(error, &endpoint, envelope, unsent.taken_at)
                    }
                    Incoming::Message(message) => {
                        match prepare_by(&Clock::start(&endpoint.timeouts), message).await {
                            Ok(message) => {
                                with_recipients(error, &endpoint, message.envelope(), started)
                            }
                            Err(error) => error,
                        }
                    }
                });
                telemetry::sent(&endpoint.server, &result);
                (number, result)
            }));
        }
    }

    /// Adds the outcomes of the messages without a connection.
    fn poll_failing(&mut self, cx: &mut Context<'_>) -> bool {
        let outcomes = &mut self.outcomes;
        let before = self.failing.len();
        self.failing
            .retain_mut(|failing| match failing.as_mut().poll(cx) {
                Poll::Ready((number, result)) => {
                    outcomes.add(number, result);
                    false
                }
                Poll::Pending => true,
            });
        self.failing.len() < before
    }

    /// Takes messages from the stream as long as there is room for them, and distributes them.
    fn poll_messages(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_changed = self.yield_connection();
        while self.distribute() || self.take_message(cx) {
            has_changed = true;
        }
        self.open_connections() | self.release_idle() | has_changed
    }

    /// The number of messages for which one connection is enough while others can be opened.
    fn few(&self) -> usize {
        FEW.min(self.window)
    }

    /// The number of connections that can be opened now.
    fn connections_left(&self) -> usize {
        let others = self.workers.len() + self.opening.len();
        let left = self.max_connections.saturating_sub(others);
        let is_paused = || {
            self.paused_until
                .is_some_and(|until| Instant::now() < until)
        };
        match others {
            // The first one is waited for in the queue of the pool.
            0 => 1,
            _ if left == 0 || is_paused() => 0,
            _ => left.min(self.pool.free_slots()),
        }
    }

    /// Gives the first message in the queue to the connection with the fewest messages.
    fn distribute(&mut self) -> bool {
        let room = match self.opening.is_empty() && self.connections_left() == 0 {
            true => self.window,
            false => self.few(),
        };
        let open = self.workers.iter_mut();
        let open = open.filter(|worker| worker.numbers.len() < room && !worker.inbox.has_ended());
        let Some(worker) = open.min_by_key(|worker| worker.numbers.len()) else {
            return false;
        };
        let Some(queued) = self.queue.pop_front() else {
            return false;
        };
        worker.numbers.push_back(queued.number);
        worker.inbox.push(queued.message);
        true
    }

    /// Takes the next message from the stream into the queue, or notes its end. The queue has room
    /// for one message, and for those of the connections that can be opened.
    fn take_message(&mut self, cx: &mut Context<'_>) -> bool {
        let further = match self.workers.len() {
            0 => 0,
            _ => self.connections_left() + self.opening.len(),
        };
        let is_full = self.queue.len() >= (further * self.few()).max(1)
            || self.outcomes.missing(self.taken) >= self.window * self.max_connections;
        if self.input_ended || is_full {
            return false;
        }
        match self.messages.as_mut().poll_next(cx) {
            Poll::Ready(Some(message)) => {
                self.queue.push_back(Queued {
                    number: self.taken,
                    message: Incoming::Message(message),
                    error: None,
                });
                self.taken += 1;
                true
            }
            Poll::Ready(None) => {
                self.input_ended = true;
                true
            }
            Poll::Pending => false,
        }
    }

    /// Opens the connections that the messages in the queue need.
    fn open_connections(&mut self) -> bool {
        let wanted = match self.workers.is_empty() {
            true => self.queue.len().min(1),
            false => self.queue.len().div_ceil(self.few()),
        };
        let wanted = wanted.saturating_sub(self.opening.len());
        let number = wanted.min(self.connections_left());
        if number == 0 {
            return false;
        }
        if self.call.is_none() {
            match self.pool.start_call() {
                Ok(call) => self.call = Some(call),
                Err(error) => {
                    self.connection_failed(error);
                    return true;
                }
            }
        }
        let pool = self.pool;
        let opening = || -> BoxFuture<'_, _> { Box::pin(pool.ready_connection()) };
        self.opening
            .extend(std::iter::repeat_with(opening).take(number));
        true
    }

    /// Lets the connection with the fewest messages go back to the pool if other calls wait for
    /// one.
    fn yield_connection(&mut self) -> bool {
        let is_ending = |worker: &Worker<'_>| worker.inbox.has_ended();
        if self.workers.iter().any(is_ending) || !self.pool.has_waiting_calls() {
            return false;
        }
        let fewest = self
            .workers
            .iter()
            .min_by_key(|worker| worker.numbers.len());
        if let Some(worker) = fewest {
            worker.inbox.end();
        }
        fewest.is_some()
    }

    /// Returns the connections without messages to the pool.
    fn release_idle(&mut self) -> bool {
        let idle = self
            .workers
            .extract_if(.., |worker| worker.numbers.is_empty());
        let idle: Vec<_> = idle.collect();
        let has_changed = !idle.is_empty();
        idle.into_iter().for_each(|worker| self.remove(worker));
        has_changed
    }
}

/// A stream that is dropped before its end reports the messages that it took and gave to no
/// connection.
impl<S> Drop for Bulk<'_, '_, S> {
    fn drop(&mut self) {
        let server = &self.pool.client().endpoint().server;
        let in_inboxes = self.workers.iter().map(|worker| worker.inbox.len());
        for _ in 0..self.queue.len() + self.failing.len() + in_inboxes.sum::<usize>() {
            telemetry::dropped(server, Duration::ZERO);
        }
    }
}

/// Inserts a message at its place in the order.
fn insert<'m>(queue: &mut VecDeque<Queued<'m>>, queued: Queued<'m>) {
    let at = queue.partition_point(|other| other.number < queued.number);
    queue.insert(at, queued);
}

/// The messages that a connection was given and has not taken.
#[derive(Clone, Default)]
struct Inbox<'m>(Arc<Mutex<InboxState<'m>>>);

#[derive(Default)]
struct InboxState<'m> {
    messages: VecDeque<Incoming<'m>>,
    has_ended: bool,
}

impl<'m> Inbox<'m> {
    fn state(&self) -> MutexGuard<'_, InboxState<'m>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, message: Incoming<'m>) {
        self.state().messages.push_back(message);
    }

    /// Ends the stream after the messages that it has.
    fn end(&self) {
        self.state().has_ended = true;
    }

    fn has_ended(&self) -> bool {
        self.state().has_ended
    }

    fn len(&self) -> usize {
        self.state().messages.len()
    }

    fn take_all(&self) -> VecDeque<Incoming<'m>> {
        std::mem::take(&mut self.state().messages)
    }
}

impl<'m> Stream for Inbox<'m> {
    type Item = Incoming<'m>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Incoming<'m>>> {
        let mut state = self.state();
        match state.messages.pop_front() {
            Some(message) => Poll::Ready(Some(message)),
            None if state.has_ended => Poll::Ready(None),
            // Without a waker: `Bulk` polls the connection again after it has changed the inbox.
            None => Poll::Pending,
        }
    }
}

/// The outcomes that were not returned yet.
struct Outcomes {
    ordered: bool,
    waiting: BTreeMap<usize, Result<Receipt>>,
    added: usize,
    returned: usize,
}

impl Outcomes {
    fn new(ordered: bool) -> Self {
        Outcomes {
            ordered,
            waiting: BTreeMap::new(),
            added: 0,
            returned: 0,
        }
    }

    fn add(&mut self, number: usize, outcome: Result<Receipt>) {
        self.added += 1;
        self.waiting.insert(number, outcome);
    }

    fn next(&mut self) -> Option<(usize, Result<Receipt>)> {
        let first = self.waiting.first_entry()?;
        if self.ordered && *first.key() != self.returned {
            return None;
        }
        self.returned += 1;
        Some(first.remove_entry())
    }

    /// The number of messages whose outcome was not returned, of those that were taken.
    fn missing(&self, taken: usize) -> usize {
        taken - self.returned
    }
}
