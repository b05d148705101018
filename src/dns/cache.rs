//! Answers, kept as long as they may be, and lookups in flight.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

/// The maximum size of all answers together, in bytes.
const MAX_SIZE: usize = 4 * 1024 * 1024;
/// The maximum size of one answer: a few large ones must not displace all others.
const MAX_ANSWER_SIZE: usize = MAX_SIZE / 64;

/// The answers that are kept, and the lookups in flight: equal ones are one lookup.
pub(super) struct Lookups<K, V>(Mutex<State<K, V>>);

struct State<K, V> {
    cache: Cache<K, V>,
    in_flight: HashMap<K, InFlight<V>>,
}

/// A lookup in flight.
struct InFlight<V> {
    answer: Arc<OnceCell<V>>,
    /// The number of calls that wait for it.
    callers: usize,
}

/// What a lookup has found, and how it is kept.
pub(super) struct Found<V> {
    pub(super) value: V,
    /// The size of the value and its key, in bytes.
    pub(super) size: usize,
    pub(super) ttl: Duration,
}

impl<K: Clone + Eq + Hash + Ord, V: Clone> Lookups<K, V> {
    pub(super) fn new() -> Self {
        Lookups(Mutex::new(State {
            cache: Cache::new(),
            in_flight: HashMap::new(),
        }))
    }

    /// Returns the answer that is kept, or that of the lookup in flight, or else looks it up. If
    /// the call that does the lookup is dropped, another that waits for it starts its own.
    pub(super) async fn get_or_look_up<F>(&self, key: K, look_up: impl FnOnce() -> F) -> V
    where
        F: Future<Output = Found<V>>,
    {
        let caller = match self.enter(key) {
            Ok(kept) => return kept,
            Err(caller) => caller,
        };
        let looking_up = || async {
            let Found { value, size, ttl } = look_up().await;
            let now = Instant::now();
            let (key, kept) = (caller.key.clone(), value.clone());
            let mut state = self.lock();
            state.in_flight.remove(&key);
            state.cache.insert(key, kept, size, now, now + ttl);
            value
        };
        caller.answer.get_or_init(looking_up).await.clone()
    }

    fn enter(&self, key: K) -> Result<V, Caller<'_, K, V>> {
        let mut state = self.lock();
        if let Some(kept) = state.cache.get(&key, Instant::now()) {
            return Ok(kept);
        }
        let in_flight = state.in_flight.entry(key.clone());
        let in_flight = in_flight.or_insert_with(|| InFlight {
            answer: Arc::default(),
            callers: 0,
        });
        in_flight.callers += 1;
        Err(Caller {
            answer: in_flight.answer.clone(),
            lookups: self,
            key,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits for a lookup, which is forgotten with its last caller.
struct Caller<'l, K: Clone + Eq + Hash + Ord, V: Clone> {
    lookups: &'l Lookups<K, V>,
    key: K,
    answer: Arc<OnceCell<V>>,
}

impl<K: Clone + Eq + Hash + Ord, V: Clone> Drop for Caller<'_, K, V> {
    fn drop(&mut self) {
        let mut state = self.lookups.lock();
        // Once it has an answer, the place may have another lookup.
        let own = state.in_flight.get_mut(&self.key);
        let own = own.filter(|in_flight| Arc::ptr_eq(&in_flight.answer, &self.answer));
        if let Some(own) = own {
            own.callers -= 1;
            if own.callers == 0 {
                state.in_flight.remove(&self.key);
            }
        }
    }
}

#[derive(Debug)]
struct Cache<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// The keys of the entries, in the order in which they expire.
    by_expiry: BTreeSet<(Instant, K)>,
    /// The size of all entries.
    size: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    size: usize,
    expires: Instant,
}

impl<K: Clone + Eq + Hash + Ord, V: Clone> Cache<K, V> {
    fn new() -> Self {
        Cache {
            entries: HashMap::new(),
            by_expiry: BTreeSet::new(),
            size: 0,
        }
    }

    fn get(&self, key: &K, now: Instant) -> Option<V> {
        let entry = self.entries.get(key)?;
        (entry.expires > now).then(|| entry.value.clone())
    }

    /// Keeps an answer of this size, its key included. Where there is too little room, those that
    /// would expire first are removed.
    fn insert(&mut self, key: K, value: V, size: usize, now: Instant, expires: Instant) {
        self.remove(&key);
        if expires <= now || size > MAX_ANSWER_SIZE {
            return;
        }
        while self.size + size > MAX_SIZE
            && let Some((_, first)) = self.by_expiry.first().cloned()
        {
            self.remove(&first);
        }
        self.size += size;
        self.by_expiry.insert((expires, key.clone()));
        let entry = Entry {
            value,
            size,
            expires,
        };
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.size -= entry.size;
            self.by_expiry.remove(&(entry.expires, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::{join_all, pending};
    use futures_util::poll;
    use std::cell::Cell;
    use std::pin::pin;
    use tokio::task::yield_now;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn found(value: u32, ttl: Duration) -> Found<u32> {
        Found {
            value,
            size: 1,
            ttl,
        }
    }

    #[tokio::test]
    async fn equal_lookups_in_flight_are_one() {
        let (lookups, number) = (Lookups::new(), Cell::new(0));
        let look_up = async || {
            number.set(number.get() + 1);
            yield_now().await;
            found(number.get(), Duration::ZERO)
        };
        let calls = (0..20).map(|call| lookups.get_or_look_up(call % 2, look_up));
        let answers = join_all(calls).await;
        assert_eq!(number.get(), 2);
        let of_one: Vec<_> = answers.iter().step_by(2).collect();
        assert!(of_one.iter().all(|answer| *answer == of_one[0]));
        // Neither an answer that may not be kept nor the lookup is left.
        let is_empty =
            |state: &State<u32, u32>| state.in_flight.is_empty() && state.cache.entries.is_empty();
        assert!(is_empty(&lookups.lock()));
        lookups.get_or_look_up(0, look_up).await;
        assert_eq!(number.get(), 3);
    }

    #[tokio::test]
    async fn a_dropped_lookup_leaves_it_to_the_next() {
        let lookups = Lookups::new();
        let never = || lookups.get_or_look_up(1, pending::<Found<u32>>);
        let mut first = Box::pin(never());
        let mut dropped = Box::pin(never());
        let mut waits = pin!(lookups.get_or_look_up(1, async || found(7, SECOND)));
        assert!(poll!(&mut first).is_pending() && poll!(&mut dropped).is_pending());
        assert!(poll!(&mut waits).is_pending());
        drop(dropped);
        assert!(poll!(&mut waits).is_pending());
        drop(first);
        assert_eq!(waits.await, 7);
        assert_eq!(never().await, 7);
        // The last caller leaves nothing behind.
        drop(Box::pin(lookups.get_or_look_up(2, pending)));
        let mut last = Box::pin(lookups.get_or_look_up(2, pending));
        assert!(poll!(&mut last).is_pending());
        drop(last);
        assert!(lookups.lock().in_flight.is_empty());
    }

    #[test]
    fn entries_expire() {
        let (mut cache, now) = (Cache::new(), Instant::now());
        cache.insert("a", 1, 1, now, now + SECOND);
        cache.insert("b", 2, 1, now, now);
        assert_eq!(cache.get(&"a", now), Some(1));
        assert_eq!(cache.get(&"a", now + SECOND), None);
        assert_eq!(cache.get(&"b", now), None);
        assert_eq!(cache.entries.len(), 1);
    }

    #[test]
    fn the_size_is_bounded() {
        let (mut cache, now) = (Cache::new(), Instant::now());
        let (size, most) = (1024, MAX_SIZE as u32 / 1024);
        for at in 0..most + 100 {
            cache.insert(at, at, size, now, now + SECOND * (at + 1));
            assert!(cache.size <= MAX_SIZE);
        }
        assert_eq!(cache.entries.len(), most as usize);
        assert_eq!(cache.by_expiry.len(), most as usize);
        // Those that would expire first made room.
        assert_eq!(cache.get(&99, now), None);
        assert_eq!(cache.get(&100, now), Some(100));
        // What is replaced counts once.
        for _ in 0..10 {
            cache.insert(most, most, size, now, now + SECOND * most);
        }
        assert_eq!(cache.size, MAX_SIZE);
        assert_eq!(cache.entries.len(), most as usize);
    }

    #[test]
    fn a_large_answer_displaces_no_others() {
        let (mut cache, now) = (Cache::new(), Instant::now());
        cache.insert("small", 1, 1, now, now + SECOND);
        cache.insert("large", 2, MAX_ANSWER_SIZE + 1, now, now + SECOND);
        assert_eq!(cache.get(&"small", now), Some(1));
        assert_eq!(cache.get(&"large", now), None);
    }
}
