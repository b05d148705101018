//! The bounds on what is in flight.

/// The bounds on the messages that [`Connection::send_all`](crate::Connection::send_all) and
/// `Pool::send_all` have in flight: sent, or being sent, and not answered yet.
///
/// The window bounds the throughput: at a round-trip time of 100 ms, 64 messages in flight are 640
/// messages a second. It also bounds the damage of a lost connection: at most this many messages,
/// and messages of at most this size together, get an [unknown](crate::Error::outcome_unknown)
/// outcome then.
///
/// ```
/// use envoi::{Endpoint, SendWindow};
///
/// let endpoint = Endpoint::new("mail.example.org").send_window(SendWindow::new(1_024));
/// // At most 16 MB at once:
/// let mut window = SendWindow::new(1_024);
/// window.bytes = Some(16_000_000);
/// let endpoint = endpoint.send_window(window);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendWindow {
    /// The maximum number of messages in flight; at least 1, and 64 by default. They are kept in
    /// memory until they are answered, except for the contents of files and streams.
    pub messages: usize,
    /// The maximum size in bytes of the messages in flight together; no limit by default. A message
    /// that is larger, or of unknown size, is sent while no other one is in flight. One message
    /// more is prepared, and waits until it fits.
    pub bytes: Option<u64>,
}

impl SendWindow {
    /// Creates a window of this many messages, whatever their size.
    pub fn new(messages: usize) -> Self {
        SendWindow {
            messages,
            bytes: None,
        }
    }
}

impl Default for SendWindow {
    /// 64 messages.
    fn default() -> Self {
        SendWindow::new(64)
    }
}

impl From<usize> for SendWindow {
    fn from(messages: usize) -> Self {
        SendWindow::new(messages)
    }
}
