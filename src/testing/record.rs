//! What a test gets to see: the messages that arrived, and what was said.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

/// A message that the server accepted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReceivedMessage {
    /// The queue id in the reply to the client.
    pub id: String,
    /// Which of [`Server::connections`](super::Server::connections) it came on.
    pub connection: usize,
    /// The name that the client gave with EHLO, HELO or LHLO.
    pub helo: String,
    /// The TLS version of the connection, such as `TLSv1.3`; `None` where it was plaintext.
    pub tls: Option<String>,
    /// Who had logged in.
    pub login: Option<String>,
    /// The sender of the envelope; `None` for the null path, `<>`.
    pub reverse_path: Option<String>,
    /// MAIL's parameters as they came: `SIZE=1234`, `BODY=8BITMIME`.
    pub parameters: Vec<String>,
    /// The recipients that the server accepted, and did not refuse the message for.
    pub recipients: Vec<String>,
    /// The parameters of RCPT for each of them as they came: `NOTIFY=SUCCESS`.
    pub recipient_parameters: Vec<Vec<String>>,
    /// The message's size in bytes, without dot-stuffing and the final dot.
    pub size: u64,
    /// There was a CR or an LF that did not belong to a CRLF, which RFC 5321, 2.3.8 forbids.
    pub bare_line_ends: bool,
    pub(super) path: PathBuf,
    pub(super) _folder: Arc<TempDir>,
}

impl ReceivedMessage {
    /// The message, without dot-stuffing and the final dot.
    ///
    /// # Errors
    ///
    /// Those of reading a file; there is none with [`Builder::discard`](super::Builder::discard).
    pub fn read(&self) -> io::Result<Vec<u8>> {
        std::fs::read(&self.path)
    }

    /// The file that [`read`](Self::read) reads, for messages that are too large for memory. It is
    /// there for as long as this value, a clone of it, or the server.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// One connection to the server.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Session {
    /// The lines that the client sent, in groups: those of a group came without waiting for an
    /// answer to one of them, as pipelining does (RFC 2920). `<secret>` stands for what AUTH sends.
    ///
    /// A large group may be torn by the network, and then counts as several.
    pub groups: Vec<Vec<String>>,
    /// The TLS version, such as `TLSv1.3`; `None` where it is plaintext.
    pub tls: Option<String>,
    /// It goes on.
    pub is_open: bool,
    /// Why it ended, unless by QUIT or between two commands.
    pub failure: Option<String>,
}

impl Session {
    /// The lines that the client sent, one after another.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().flatten().map(String::as_str)
    }
}
