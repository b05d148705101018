//! Answers, kept as long as they may be.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use tokio::time::Instant;

/// The maximum size of all answers together, in bytes.
const MAX_SIZE: usize = 4 * 1024 * 1024;
/// The maximum size of one answer: a few large ones must not displace all others.
const MAX_ANSWER_SIZE: usize = MAX_SIZE / 64;

#[derive(Debug)]
pub(super) struct Cache<K, V> {
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
    pub(super) fn new() -> Self {
        Cache {
            entries: HashMap::new(),
            by_expiry: BTreeSet::new(),
            size: 0,
        }
    }

    pub(super) fn get(&self, key: &K, now: Instant) -> Option<V> {
        let entry = self.entries.get(key)?;
        (entry.expires > now).then(|| entry.value.clone())
    }

    /// Keeps an answer of this size, its key included. Where there is too little room, those that
    /// would expire first are removed.
    pub(super) fn insert(&mut self, key: K, value: V, size: usize, now: Instant, expires: Instant) {
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
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

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
