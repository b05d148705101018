//! The messages that a server or a recorder keeps, and waiting for them.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::WaitError;

/// The messages that arrived, in order.
pub(super) struct Arrivals<T> {
    log: Mutex<Log<T>>,
    arrived: Notify,
}

struct Log<T> {
    messages: Vec<T>,
    /// The number of messages that `next` has returned.
    returned: usize,
}

impl<T> Default for Arrivals<T> {
    fn default() -> Self {
        Arrivals {
            log: Mutex::new(Log {
                messages: Vec::new(),
                returned: 0,
            }),
            arrived: Notify::new(),
        }
    }
}

impl<T: Clone> Arrivals<T> {
    pub(super) fn push(&self, message: T) {
        self.log().messages.push(message);
        self.arrived.notify_waiters();
    }

    pub(super) fn len(&self) -> usize {
        self.log().messages.len()
    }

    pub(super) fn all(&self) -> Vec<T> {
        self.log().messages.clone()
    }

    /// Waits for the next message that was not returned yet.
    pub(super) async fn next(&self) -> T {
        self.until(|log| {
            let message = log.messages.get(log.returned).cloned()?;
            log.returned += 1;
            Some(message)
        })
        .await
    }

    /// Waits for `n` messages, and returns all. The error ends with what `details` returns.
    pub(super) async fn wait_for(
        &self,
        n: usize,
        timeout: Duration,
        details: impl FnOnce() -> String,
    ) -> Result<Vec<T>, WaitError> {
        let all = self.until(|log| (log.messages.len() >= n).then(|| log.messages.clone()));
        let result = tokio::time::timeout(timeout, all).await;
        result.map_err(|_| WaitError {
            expected: n,
            arrived: self.len(),
            waited: timeout,
            details: details(),
        })
    }

    /// Returns and removes all messages, also those that `next` has not returned.
    pub(super) fn take(&self) -> Vec<T> {
        let mut log = self.log();
        log.returned = 0;
        mem::take(&mut log.messages)
    }

    async fn until<R>(&self, mut take: impl FnMut(&mut Log<T>) -> Option<R>) -> R {
        loop {
            // Created before the check, so that no message is missed between the two.
            let arrival = self.arrived.notified();
            if let Some(result) = take(&mut self.log()) {
                return result;
            }
            arrival.await;
        }
    }

    fn log(&self) -> MutexGuard<'_, Log<T>> {
        // The log is never left half-written. A failed test must not make others fail.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
