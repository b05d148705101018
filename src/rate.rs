//! Limits how many messages are started in a given time.
//!
//! The start of each message is logged, and the next one starts once the window that ends with it
//! has room. A token bucket (GCRA), which needs no log, either lets twice the number start in some
//! windows, or spaces all messages evenly, so that no two of them could follow each other at once.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::connection::clock::FAR;
use crate::{Address, Envelope};

/// A number of messages in a time.
///
/// In no window of this length, wherever it begins, do more messages start. They may start all at
/// once, if none has started before; combine it with a rate of a shorter time to prevent that.
///
/// ```
/// use std::time::Duration;
/// use envoi::Rate;
///
/// assert_eq!(Rate::per_hour(100), Rate::new(100, Duration::from_secs(3600)));
/// assert_eq!(Rate::per_second(5).to_string(), "5 messages in 1s");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    messages: u32,
    window: Duration,
}

impl Rate {
    /// Creates a rate of this many messages, at least 1, in this time.
    pub const fn new(messages: u32, window: Duration) -> Self {
        Rate {
            messages: if messages == 0 { 1 } else { messages },
            window,
        }
    }

    /// Creates a rate of this many messages a second.
    pub const fn per_second(messages: u32) -> Self {
        Rate::new(messages, Duration::from_secs(1))
    }

    /// Creates a rate of this many messages a minute.
    pub const fn per_minute(messages: u32) -> Self {
        Rate::new(messages, Duration::from_secs(60))
    }

    /// Creates a rate of this many messages an hour.
    pub const fn per_hour(messages: u32) -> Self {
        Rate::new(messages, Duration::from_secs(60 * 60))
    }

    /// The number of messages.
    pub const fn messages(&self) -> u32 {
        self.messages
    }

    /// The time in which they may start.
    pub const fn window(&self) -> Duration {
        self.window
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.messages == 1 { "" } else { "s" };
        write!(f, "{} message{plural} in {:?}", self.messages, self.window)
    }
}

/// The rates that a [`RateLimiter`] keeps to, all of them at once.
///
/// ```
/// use envoi::{Client, Rate, RateLimits};
///
/// # fn example() -> envoi::Result<()> {
/// let limits = RateLimits::new()
///     .total(Rate::per_hour(500))
///     .total(Rate::per_second(5))
///     .per_domain(Rate::per_minute(20));
/// let client = Client::from_url("smtp://mail.example.org")?.rate_limit(limits);
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a method returns the changed value"]
pub struct RateLimits {
    /// The rates of all messages together.
    pub total: Vec<Rate>,
    /// The rates for each domain of recipients.
    pub per_domain: Vec<Rate>,
}

impl RateLimits {
    /// Creates an empty set, which limits nothing.
    pub fn new() -> Self {
        RateLimits::default()
    }

    /// Adds a rate of all messages together.
    pub fn total(mut self, rate: Rate) -> Self {
        self.total.push(rate);
        self
    }

    /// Adds a rate for each domain of recipients.
    pub fn per_domain(mut self, rate: Rate) -> Self {
        self.per_domain.push(rate);
        self
    }
}

impl From<Rate> for RateLimits {
    fn from(rate: Rate) -> Self {
        RateLimits::new().total(rate)
    }
}

/// Lets messages start at no more than the given [rates](RateLimits).
///
/// [`Client::rate_limit`](crate::Client::rate_limit) gives one to a client, which waits for it
/// before each attempt to send a message, and shares it with its clones and pools. Give clones of
/// one limiter to several clients where a rate holds for all of them.
///
/// A message counts once, however many recipients and transactions it has, and once for each domain
/// of its recipients, whose spelling does not matter. Each attempt of a
/// [retried](crate::Client::retries) message counts. It counts from when it has its turn: where it
/// then waits for a connection, it stays counted until it starts, and for the whole time of the
/// rate after that. If no connection can be had, it was not counted.
///
/// Messages that are limited by the same rates have their turn in FIFO order. A message to several
/// domains waits for each of them. The memory is 16 bytes for each message in the longest time, of
/// the total and of each domain, and never more than for the number that the rates allow.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use envoi::{Address, Envelope, Rate, RateLimiter};
/// use tokio::time::Instant;
///
/// let limiter = RateLimiter::new(Rate::per_second(2));
/// let envelope = Envelope::new(Address::new("a@example.org")?, [Address::new("b@example.org")?])?;
/// let began = Instant::now();
/// for _ in 0..3 {
///     limiter.acquire(&envelope).await.consume();
/// }
/// assert_eq!(began.elapsed(), Duration::from_secs(1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RateLimiter(Arc<Shared>);

struct Shared {
    limits: RateLimits,
    total: Arc<Scope>,
    domains: Mutex<Domains>,
}

impl RateLimiter {
    /// Creates a limiter that has not let any message start yet.
    pub fn new(limits: impl Into<RateLimits>) -> Self {
        let limits = limits.into();
        RateLimiter(Arc::new(Shared {
            total: Arc::new(Scope::new(&limits.total)),
            domains: Mutex::default(),
            limits,
        }))
    }

    /// The rates.
    pub fn limits(&self) -> &RateLimits {
        &self.0.limits
    }

    /// Waits for the turn of a message with this envelope. A [`Client`](crate::Client) and a
    /// `Pool` do it themselves; call it before sending over a
    /// [`Connection`](crate::Connection).
    ///
    /// Waits without a limit: use `tokio::time::timeout` if the message must not wait for long.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it gives up its turn, and nothing is counted.
    pub async fn acquire(&self, envelope: &Envelope) -> RatePermit {
        let mut entries = Vec::new();
        if !self.0.limits.per_domain.is_empty() {
            // In one order for all messages, so that no two wait for each other.
            let recipients = envelope.recipients().iter();
            let domains: BTreeSet<String> = recipients.map(Address::domain_key).collect();
            for domain in domains {
                let scope = self.0.domain(domain);
                entries.push(scope.enter().await);
            }
        }
        if !self.0.limits.total.is_empty() {
            entries.push(self.0.total.clone().enter().await);
        }
        RatePermit { entries }
    }
}

impl From<RateLimits> for RateLimiter {
    fn from(limits: RateLimits) -> Self {
        RateLimiter::new(limits)
    }
}

impl From<Rate> for RateLimiter {
    fn from(rate: Rate) -> Self {
        RateLimiter::new(rate)
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("limits", &self.0.limits)
            .finish_non_exhaustive()
    }
}

/// The turn of a message, from [`RateLimiter::acquire`]. Dropped, it is given back, and the message
/// is not counted.
#[must_use = "a permit that is dropped is given back: call `consume` when the message starts"]
#[derive(Debug)]
pub struct RatePermit {
    entries: Vec<Entry>,
}

impl RatePermit {
    /// Counts the message, which starts now.
    pub fn consume(self) {
        self.entries.into_iter().for_each(Entry::start);
    }
}

/// The domains in use.
#[derive(Default)]
struct Domains {
    scopes: HashMap<String, Arc<Scope>>,
    /// The number of domains at which those without effect are removed.
    sweep_at: usize,
}

/// The number of domains that are kept without a sweep.
const FEW_DOMAINS: usize = 64;

impl Shared {
    fn domain(&self, name: String) -> Arc<Scope> {
        let mut domains = lock(&self.domains);
        if domains.scopes.len() >= domains.sweep_at.max(FEW_DOMAINS) {
            let now = Instant::now();
            // A scope with other owners has messages that wait or are about to start.
            domains
                .scopes
                .retain(|_, scope| Arc::strong_count(scope) > 1 || !scope.is_idle(now));
            domains.sweep_at = 2 * domains.scopes.len();
        }
        let scope = || Arc::new(Scope::new(&self.limits.per_domain));
        domains.scopes.entry(name).or_insert_with(scope).clone()
    }
}

/// The messages that some rates limit together.
struct Scope {
    rates: Vec<Rate>,
    /// Held by the first of the messages that wait. The queue of tokio's mutex is FIFO.
    turn: tokio::sync::Mutex<()>,
    log: Mutex<Log>,
    /// A pending message has started, or was given up.
    changed: Notify,
}

impl Scope {
    fn new(rates: &[Rate]) -> Self {
        Scope {
            rates: rates.to_vec(),
            turn: tokio::sync::Mutex::default(),
            log: Mutex::default(),
            changed: Notify::new(),
        }
    }

    async fn enter(self: Arc<Self>) -> Entry {
        {
            let _turn = self.turn.lock().await;
            loop {
                let next = lock(&self.log).enter(&self.rates, Instant::now());
                match next {
                    Next::Entered => break,
                    Next::At(at) => {
                        let _ = timeout_at(at, self.changed.notified()).await;
                    }
                    Next::AfterPending => self.changed.notified().await,
                }
            }
        }
        Entry {
            scope: self,
            has_started: false,
        }
    }

    /// Whether the log has no effect any more.
    fn is_idle(&self, now: Instant) -> bool {
        let mut log = lock(&self.log);
        log.expire(&self.rates, now);
        log.starts.is_empty() && log.pending == 0
    }
}

/// A message that has entered a scope.
struct Entry {
    scope: Arc<Scope>,
    has_started: bool,
}

impl Entry {
    fn start(mut self) {
        lock(&self.scope.log).start(&self.scope.rates, Instant::now());
        self.has_started = true;
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("rates", &self.scope.rates)
            .finish_non_exhaustive()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.has_started {
            lock(&self.scope.log).give_up();
        }
        self.scope.changed.notify_one();
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while the lock is held.
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The messages of a scope that still count. It has no clock.
#[derive(Debug, Default)]
struct Log {
    /// When messages started, the oldest first: at most as many as the highest rate has.
    starts: VecDeque<Instant>,
    /// The number of messages that have entered and not started yet.
    pending: usize,
}

/// When the next message may enter.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It has entered.
    Entered,
    /// At this time, if no pending message is given up before.
    At(Instant),
    /// Once a pending message has started or was given up.
    AfterPending,
}

impl Log {
    /// Enters a message, if all rates allow it.
    ///
    /// A pending message may start at any later time, so it counts in every window.
    fn enter(&mut self, rates: &[Rate], now: Instant) -> Next {
        let mut at = now;
        for rate in rates {
            // The number of starts that the window may have beside the pending messages and this
            // one is `room - 1`: the start before those must be out of the window.
            let Some(room @ 1..) = (rate.messages as usize).checked_sub(self.pending) else {
                return Next::AfterPending;
            };
            if let Some(index) = self.starts.len().checked_sub(room) {
                at = at.max(self.starts[index] + rate.window.min(FAR));
            }
        }
        if at > now {
            return Next::At(at);
        }
        self.pending += 1;
        Next::Entered
    }

    fn start(&mut self, rates: &[Rate], now: Instant) {
        self.pending -= 1;
        self.starts.push_back(now);
        self.expire(rates, now);
    }

    fn give_up(&mut self) {
        self.pending -= 1;
    }

    /// Removes the starts that no window has any more.
    fn expire(&mut self, rates: &[Rate], now: Instant) {
        let longest = rates.iter().map(|rate| rate.window.min(FAR)).max();
        let most = rates.iter().map(|rate| rate.messages).max().unwrap_or(0) as usize;
        let is_over = |start: &Instant| longest.is_none_or(|longest| *start + longest <= now);
        while self.starts.len() > most || self.starts.front().is_some_and(is_over) {
            self.starts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelope(to: &[&str]) -> Envelope {
        let to = to.iter().map(|to| Address::new(*to).unwrap());
        Envelope::new(Address::new("me@example.org").unwrap(), to).unwrap()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Starts as many messages as said, as fast as the limiter allows, and returns when.
    async fn starts(limiter: &RateLimiter, number: usize) -> Vec<u64> {
        let (began, envelope) = (Instant::now(), envelope(&["you@example.com"]));
        let mut starts = Vec::new();
        for _ in 0..number {
            limiter.acquire(&envelope).await.consume();
            starts.push(began.elapsed().as_secs());
        }
        starts
    }

    #[tokio::test(start_paused = true)]
    async fn all_rates_hold_at_once() {
        let limits = RateLimits::new()
            .total(Rate::per_minute(4))
            .total(Rate::new(2, seconds(10)));
        let limiter = RateLimiter::new(limits);
        assert_eq!(
            starts(&limiter, 9).await,
            [0, 0, 10, 10, 60, 60, 70, 70, 120]
        );
        tokio::time::advance(seconds(59)).await;
        assert_eq!(starts(&limiter, 4).await, [0, 0, 10, 10]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_domain_has_its_own_rate() {
        let limits = RateLimits::new()
            .total(Rate::per_minute(3))
            .per_domain(Rate::new(1, seconds(10)));
        let limiter = RateLimiter::new(limits);
        let began = Instant::now();
        let mut at = Vec::new();
        for to in [
            &["a@one.example"][..],
            &[
                "a@zw\u{f6}lf.example",
                "b@ZW\u{d6}LF.example",
                "c@xn--zwlf-6qa.example",
            ],
            &["b@one.example"],
            &["a@three.example"],
            &["a@four.example", "a@one.example"],
        ] {
            limiter.acquire(&envelope(to)).await.consume();
            at.push(began.elapsed().as_secs());
        }
        // The third waits for its domain, the others for the total.
        assert_eq!(at, [0, 0, 10, 60, 60]);
    }

    #[tokio::test(start_paused = true)]
    async fn messages_to_several_domains_do_not_wait_for_each_other_forever() {
        let limits = RateLimits::new().per_domain(Rate::new(1, seconds(1)));
        let limiter = RateLimiter::new(limits);
        let tasks = (0..20).map(|number| {
            let limiter = limiter.clone();
            tokio::spawn(async move {
                let to = match number % 2 {
                    0 => envelope(&["a@one.example", "a@two.example"]),
                    _ => envelope(&["a@two.example", "a@one.example"]),
                };
                limiter.acquire(&to).await.consume();
            })
        });
        let began = Instant::now();
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(began.elapsed(), seconds(19));
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_in_order_and_a_turn_that_is_given_up_is_not_counted() {
        let limiter = RateLimiter::new(Rate::new(1, seconds(10)));
        let to = envelope(&["you@example.com"]);
        drop(limiter.acquire(&to).await);
        let first = limiter.acquire(&to).await;
        let began = Instant::now();
        let tasks = (0..4).map(|number| {
            let (limiter, to) = (limiter.clone(), to.clone());
            tokio::spawn(async move {
                limiter.acquire(&to).await.consume();
                (number, began.elapsed().as_secs())
            })
        });
        let mut tasks: Vec<_> = tasks.collect();
        tokio::time::sleep(seconds(3)).await;
        // The others wait for it, since it may start at any time.
        first.consume();
        tokio::time::sleep(seconds(1)).await;
        tasks.remove(1).abort();
        let mut turns = Vec::new();
        for task in tasks {
            turns.push(task.await.unwrap());
        }
        assert_eq!(turns, [(0, 13), (2, 23), (3, 33)]);
    }

    #[tokio::test(start_paused = true)]
    async fn domains_without_effect_are_forgotten() {
        let limiter = RateLimiter::new(RateLimits::new().per_domain(Rate::per_second(1)));
        for number in 0..10 * FEW_DOMAINS {
            let to = envelope(&[&format!("a@{number}.example")]);
            limiter.acquire(&to).await.consume();
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert!(lock(&limiter.0.domains).scopes.len() <= FEW_DOMAINS);
    }

    #[derive(Clone, Debug)]
    enum Action {
        Enter,
        Start,
        GiveUp,
        Pass(u64),
    }

    proptest! {
        #[test]
        fn no_window_ever_has_more_starts_than_its_rate(
            rates in prop::collection::vec((1_u32..6, 1_u64..40), 1..4),
            actions in prop::collection::vec(
                prop_oneof![
                    4 => Just(Action::Enter),
                    4 => Just(Action::Start),
                    1 => Just(Action::GiveUp),
                    2 => (0_u64..20).prop_map(Action::Pass),
                ],
                0..300,
            ),
        ) {
            let rates: Vec<_> = rates
                .into_iter()
                .map(|(messages, window)| Rate::new(messages, seconds(window)))
                .collect();
            let mut now = Instant::now();
            let mut log = Log::default();
            let (mut starts, mut pending) = (Vec::new(), 0);
            for action in actions {
                match action {
                    Action::Enter => match log.enter(&rates, now) {
                        Next::Entered => pending += 1,
                        // It is not kept waiting longer than needed.
                        Next::At(at) => {
                            prop_assert!(at > now);
                            let full = |rate: &Rate, at: Instant| {
                                let inside = |start: &&Instant| **start + rate.window > at;
                                pending + starts.iter().filter(inside).count()
                                    >= rate.messages as usize
                            };
                            let before = at - Duration::from_nanos(1);
                            prop_assert!(rates.iter().any(|rate| full(rate, before)));
                            prop_assert!(!rates.iter().any(|rate| full(rate, at)));
                        }
                        Next::AfterPending => prop_assert!(
                            rates.iter().any(|rate| pending >= rate.messages as usize)
                        ),
                    },
                    Action::Start if pending > 0 => {
                        pending -= 1;
                        log.start(&rates, now);
                        starts.push(now);
                    }
                    Action::GiveUp if pending > 0 => {
                        pending -= 1;
                        log.give_up();
                    }
                    Action::Pass(time) => now += seconds(time),
                    Action::Start | Action::GiveUp => {}
                }
            }
            for rate in &rates {
                for (index, first) in starts.iter().enumerate() {
                    let inside = |start: &&Instant| **start < *first + rate.window;
                    let number = starts[index..].iter().take_while(inside).count();
                    prop_assert!(number <= rate.messages as usize, "{} from {}", number, index);
                }
            }
        }
    }
}
