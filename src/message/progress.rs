//! How far a message is: told to the caller while it goes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// So often at most, the caller is told.
const INTERVAL: Duration = Duration::from_millis(100);

/// How far a message is on its way, for [`Message::progress`](super::Message::progress).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct UploadProgress {
    /// So many bytes of the message have been taken by the transport, if only into its buffers. The
    /// server has the message when sending has ended well, and not before.
    pub sent: u64,
    /// Of so many, as SIZE counts them (RFC 1870). `None` where a stream's size is not known.
    pub total: Option<u64>,
}

/// What the caller gave to be told by.
pub(super) type ProgressCallback = Arc<dyn Fn(UploadProgress) + Send + Sync>;

/// Tells the caller, and not too often.
pub(super) struct ProgressReporter {
    listener: ProgressCallback,
    told: u64,
    told_at: Option<Instant>,
}

impl ProgressReporter {
    pub(super) fn new(listener: ProgressCallback) -> Self {
        ProgressReporter {
            listener,
            told: 0,
            told_at: None,
        }
    }

    /// For the same message from its beginning.
    pub(super) fn again(&self) -> Self {
        ProgressReporter::new(self.listener.clone())
    }

    pub(super) fn report(&mut self, progress: UploadProgress, is_last: bool) {
        let is_due = is_last || self.told_at.is_none_or(|at| at.elapsed() >= INTERVAL);
        if progress.sent > self.told && is_due {
            (self.told, self.told_at) = (progress.sent, Some(Instant::now()));
            (self.listener)(progress);
        }
    }
}
