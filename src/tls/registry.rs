//! Values that are found again by equal settings: trust stores, and connectors.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::Trust;
use super::files::FileState;
use super::store::TrustStore;
use crate::Result;

/// The number of values that are kept after their last user was dropped: a program that makes a
/// client for each message reads its trust store once, and resumes its sessions.
const KEPT: usize = 8;

static STORES: LazyLock<Mutex<Registry<TrustStore>>> = LazyLock::new(Mutex::default);

/// The trust store of these files: one that is in use, if there is one.
pub(super) fn trust_store(
    trust: &Trust,
    files: FileState,
    until: Instant,
) -> Result<Arc<TrustStore>> {
    let key = lock(&STORES).key(trust);
    let is_same = |store: &TrustStore| store.trust == *trust && store.files.is_same(&files);
    if let Some(store) = lock(&STORES).find(key, is_same) {
        return Ok(store);
    }
    let mut store = trust.read(until)?;
    (store.trust, store.files) = (trust.clone(), files);
    let store = Arc::new(store);
    lock(&STORES).add(key, &store);
    Ok(store)
}

/// Lets the next call of [`trust_store`] read the files, changed or not.
pub(super) fn forget_store(trust: &Trust) {
    let mut registry = lock(&STORES);
    let key = registry.key(trust);
    registry.entries.remove(&key);
}

/// Values that are found by their key for as long as they are used.
pub(super) struct Registry<T> {
    hasher: RandomState,
    /// By the hash of the key, since a key may contain a secret.
    entries: HashMap<u64, Weak<T>>,
    /// The last ones, which are found when they are not used, too.
    kept: VecDeque<Arc<T>>,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Registry {
            hasher: RandomState::new(),
            entries: HashMap::new(),
            kept: VecDeque::new(),
        }
    }
}

impl<T> Registry<T> {
    pub(super) fn key(&self, key: impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    pub(super) fn find(&self, key: u64, is_same: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let found = self.entries.get(&key)?.upgrade()?;
        is_same(&found).then_some(found)
    }

    pub(super) fn add(&mut self, key: u64, value: &Arc<T>) {
        // Entries out of use are removed before the table grows, which takes constant time for
        // each entry.
        if self.entries.len() == self.entries.capacity() {
            self.entries.retain(|_, value| value.strong_count() > 0);
            self.entries.reserve(self.entries.len() + 1);
        }
        self.entries.insert(key, Arc::downgrade(value));
    }

    pub(super) fn keep(&mut self, value: Arc<T>) {
        self.kept.retain(|kept| !Arc::ptr_eq(kept, &value));
        self.kept.push_back(value);
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }
}

#[cfg(test)]
impl<T> Registry<T> {
    pub(super) fn size(&self) -> usize {
        self.entries.len() + self.kept.len()
    }
}

pub(super) fn lock<T>(registry: &Mutex<Registry<T>>) -> MutexGuard<'_, Registry<T>> {
    // Nothing panics while it is locked.
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}
