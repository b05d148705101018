//! What a test can inspect: received messages and sessions.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

/// A message that the server accepted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReceivedMessage {
    /// The queue id in the reply.
    pub id: String,
    /// The index of the connection in [`Server::connections`](super::Server::connections).
    pub connection: usize,
    /// The name that the client sent with EHLO, HELO or LHLO.
    pub helo: String,
    /// The TLS version of the connection, such as `TLSv1.3`; `None` for plaintext.
    pub tls: Option<String>,
    /// The user that is logged in.
    pub login: Option<String>,
    /// The envelope sender; `None` for the null path, `<>`.
    pub reverse_path: Option<String>,
    /// The parameters of MAIL as sent: `SIZE=1234`, `BODY=8BITMIME`.
    pub parameters: Vec<String>,
    /// The recipients for which the server accepted the message.
    pub recipients: Vec<String>,
    /// The parameters of RCPT for each of the recipients as sent: `NOTIFY=SUCCESS`.
    pub recipient_parameters: Vec<Vec<String>>,
    /// The message's size in bytes, without dot-stuffing and the final dot.
    pub size: u64,
    /// The message had a CR or LF that was not part of a CRLF, which RFC 5321, 2.3.8 forbids.
    pub bare_line_ends: bool,
    pub(super) path: PathBuf,
    pub(super) _folder: Arc<TempDir>,
}

impl ReceivedMessage {
    /// Returns the message without dot-stuffing and the final dot.
    ///
    /// # Errors
    ///
    /// The file cannot be read; with [`Builder::discard`](super::Builder::discard) it does not
    /// exist.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        std::fs::read(&self.path)
    }

    /// The file that [`read`](Self::read) reads, for messages that are too large for memory. It
    /// exists as long as this value, a clone of it, or the server.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// One connection to the server.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Session {
    /// The lines that the client sent, in groups. The lines of a group arrived without waiting for
    /// a reply to one of them, as with pipelining (RFC 2920). `<secret>` replaces the data of AUTH.
    ///
    /// The network may split a large group, which then counts as several.
    pub groups: Vec<Vec<String>>,
    /// The TLS version, such as `TLSv1.3`; `None` for plaintext.
    pub tls: Option<String>,
    /// The connection is open.
    pub is_open: bool,
    /// Why the connection ended, unless by QUIT or between two commands.
    pub failure: Option<String>,
}

impl Session {
    /// The lines that the client sent, in order.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().flatten().map(String::as_str)
    }
}
