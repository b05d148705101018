//! Answers, kept as long as they may be.

use std::collections::HashMap;
use std::hash::Hash;

use tokio::time::Instant;

/// The maximum number of answers.
const MAX_ENTRIES: usize = 4096;

#[derive(Debug)]
pub(super) struct Cache<K, V>(HashMap<K, (Instant, V)>);

impl<K: Clone + Eq + Hash, V: Clone> Cache<K, V> {
    pub(super) fn new() -> Self {
        Cache(HashMap::new())
    }

    pub(super) fn get(&self, key: &K, now: Instant) -> Option<V> {
        let (expires, value) = self.0.get(key)?;
        (*expires > now).then(|| value.clone())
    }

    pub(super) fn insert(&mut self, key: K, value: V, now: Instant, expires: Instant) {
        if expires <= now {
            return;
        }
        if self.0.len() >= MAX_ENTRIES && !self.0.contains_key(&key) {
            self.0.retain(|_, (expires, _)| *expires > now);
        }
        if self.0.len() >= MAX_ENTRIES && !self.0.contains_key(&key) {
            let next = self.0.iter().min_by_key(|(_, (expires, _))| *expires);
            if let Some(next) = next.map(|(key, _)| key.clone()) {
                self.0.remove(&next);
            }
        }
        self.0.insert(key, (expires, value));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_expire() {
        let (mut cache, now) = (Cache::new(), Instant::now());
        let second = Duration::from_secs(1);
        cache.insert("a", 1, now, now + second);
        cache.insert("b", 2, now, now);
        assert_eq!(cache.get(&"a", now), Some(1));
        assert_eq!(cache.get(&"a", now + second), None);
        assert_eq!(cache.get(&"b", now), None);
        assert_eq!(cache.0.len(), 1);
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        let (mut cache, now) = (Cache::new(), Instant::now());
        for at in 0..MAX_ENTRIES as u32 + 100 {
            cache.insert(at, at, now, now + Duration::from_secs(u64::from(at) + 1));
        }
        assert_eq!(cache.0.len(), MAX_ENTRIES);
        // Those that would expire first made room.
        assert_eq!(cache.get(&99, now), None);
        assert_eq!(cache.get(&100, now), Some(100));
    }
}
