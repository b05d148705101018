//! Reports the upload progress to the caller.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// The minimum time between two reports.
const INTERVAL: Duration = Duration::from_millis(100);

/// The upload progress of a message, for [`Message::progress`](super::Message::progress).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct UploadProgress {
    /// The number of bytes that the transport has accepted, if only into its buffers. The server
    /// has accepted the message only when sending has succeeded.
    pub sent: u64,
    /// The size of the message, as SIZE counts it (RFC 1870). `None` if the size of a stream is not
    /// known.
    pub total: Option<u64>,
}

/// The function that the caller gave.
pub(super) type ProgressCallback = Arc<dyn Fn(UploadProgress) + Send + Sync>;

/// Calls the callback, but not too often.
pub(super) struct ProgressReporter {
    callback: ProgressCallback,
    reported: u64,
    reported_at: Option<Instant>,
}

impl ProgressReporter {
    pub(super) fn new(callback: ProgressCallback) -> Self {
        ProgressReporter {
            callback,
            reported: 0,
            reported_at: None,
        }
    }

    pub(super) fn callback(&self) -> ProgressCallback {
        self.callback.clone()
    }

    pub(super) fn report(&mut self, progress: UploadProgress, is_last: bool) {
        let is_due = is_last || self.reported_at.is_none_or(|at| at.elapsed() >= INTERVAL);
        if progress.sent > self.reported && is_due {
            (self.reported, self.reported_at) = (progress.sent, Some(Instant::now()));
            (self.callback)(progress);
        }
    }
}
