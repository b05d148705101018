//! An SMTP or LMTP server inside the process, for the tests of programs that send mail (feature
//! `testing`).
//!
//! [`Server::start`] gives a server on a free port of the loopback interface that offers STARTTLS
//! with a certificate of its own, made on the spot, and keeps what it is sent. It is strict where a
//! real server may be lenient: commands end with CRLF, parameters stand only where their extension
//! was offered, and only CRLF, dot, CRLF ends a message (RFC 5321, 4.1.1.4).
//!
//! ```
//! use envoi::testing::Server;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let server = Server::builder().plaintext().start().await?;
//!
//! // The program under test would be given `server.url()`; a bare socket does it, too.
//! let mut client = tokio::net::TcpStream::connect((server.host(), server.port())).await?;
//! client.write_all(b"HELO me\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n").await?;
//! client.write_all(b"Subject: Hello\r\n\r\n..dots\r\n.\r\nQUIT\r\n").await?;
//! client.read_to_end(&mut Vec::new()).await?;
//!
//! let message = server.next_message().await;
//! assert_eq!(message.recipients, ["b@example.org"]);
//! assert_eq!(message.read()?, b"Subject: Hello\r\n\r\n.dots\r\n");
//! # Ok(())
//! # }
//! ```
//!
//! A message goes to a file as it comes, so its size costs no memory. Commands are kept as text,
//! with secrets left out, in the groups in which they came: [`Session::groups`] shows what was
//! pipelined.

mod body;
mod builder;
mod certificate;
mod listener;
mod record;
mod session;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::proto::Protocol;
use builder::{Security, Settings};

pub use builder::Builder;
pub use record::{ReceivedMessage, Session};

/// What needs no escape in a URL's user, password or path.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');

/// A mail server on the loopback interface, or at a Unix socket. It ends when it is dropped, and
/// all its connections with it.
///
/// Its files are in a temporary folder, which goes when the server and every [`ReceivedMessage`]
/// are dropped.
pub struct Server {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    port: u16,
    socket: Option<PathBuf>,
    ca_pem: String,
    ca_file: PathBuf,
}

impl Server {
    /// Starts a server with STARTTLS and no logins.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::start`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let server = envoi::testing::Server::start().await?;
    /// assert!(server.url().starts_with("smtp://localhost:"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn start() -> io::Result<Server> {
        Server::builder().start().await
    }

    /// A server with other settings.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let server = envoi::testing::Server::builder()
    ///     .implicit_tls()
    ///     .login("alice", "p@ss")
    ///     .refuse_recipient("nobody@example.org", "550 5.1.1 No such user")
    ///     .start()
    ///     .await?;
    /// assert!(server.url().starts_with("smtps://alice:p%40ss@localhost:"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The name to connect to, which the certificate bears: `localhost`. It is good for `127.0.0.1`
    /// and `::1` as well.
    pub fn host(&self) -> &str {
        "localhost"
    }

    /// The port that was free; 0 where the server is at a [socket](Self::socket).
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The Unix socket that it listens at, if it is one.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// All that a client needs to know, in one line: scheme, the first login, host, port, and the
    /// CA file to trust. There is none for LMTP with TLS from the first byte; this one is for LMTP
    /// without then.
    pub fn url(&self) -> String {
        let settings = &self.shared.settings;
        let scheme = match (settings.protocol, settings.security) {
            (Protocol::Lmtp, _) => "lmtp",
            (Protocol::Smtp, Security::Implicit) => "smtps",
            (Protocol::Smtp, _) => "smtp",
        };
        let login = settings.logins.first().map(|(user, password)| {
            let escape = |text| utf8_percent_encode(text, UNRESERVED);
            format!("{}:{}@", escape(user), escape(password))
        });
        let trust = format!(
            "trust={}",
            utf8_percent_encode(&self.ca_file.to_string_lossy(), PATH)
        );
        let query =
            if settings.security == Security::StartTls && settings.protocol == Protocol::Lmtp {
                format!("tls=required&{trust}")
            } else if settings.security != Security::Plaintext {
                trust
            } else if settings.auth_in_clear && login.is_some() {
                "tls=none&auth-in-clear=yes".into()
            } else {
                "tls=none".into()
            };
        let login = login.unwrap_or_default();
        match &self.socket {
            Some(path) => format!(
                "lmtp+unix://{login}{}?{query}",
                utf8_percent_encode(&path.to_string_lossy(), PATH)
            ),
            None => format!("{scheme}://{login}{}:{}?{query}", self.host(), self.port),
        }
    }

    /// The certificate of the CA that signed the server's, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The file with [`ca_pem`](Self::ca_pem), in the server's temporary folder.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The server's end of TLS, with its certificate and key, for a server of the test's own that
    /// does what this one does not.
    pub fn tls_config(&self) -> Arc<ServerConfig> {
        self.shared.tls.config().clone()
    }

    /// The messages that were accepted, in the order in which they were.
    pub fn messages(&self) -> Vec<ReceivedMessage> {
        self.shared.log().messages.clone()
    }

    /// The next message that this method has not given out yet, as soon as it has been accepted.
    ///
    /// It waits without limit: put `tokio::time::timeout` around it where a message may fail to
    /// come.
    pub async fn next_message(&self) -> ReceivedMessage {
        loop {
            // Made before the look, so that no message falls between the two.
            let arrival = self.shared.arrived.notified();
            {
                let mut log = self.shared.log();
                if let Some(message) = log.messages.get(log.given_out).cloned() {
                    log.given_out += 1;
                    return message;
                }
            }
            arrival.await;
        }
    }

    /// The connections so far, those that ended too, in the order in which they were made.
    pub fn connections(&self) -> Vec<Session> {
        self.shared.log().sessions.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the sessions and the handle of the server both know.
struct Shared {
    settings: Settings,
    tls: TlsAcceptor,
    /// The hash of the certificate.
    end_point: Vec<u8>,
    folder: Arc<TempDir>,
    log: Mutex<Log>,
    arrived: Notify,
}

#[derive(Default)]
struct Log {
    messages: Vec<ReceivedMessage>,
    given_out: usize,
    sessions: Vec<Session>,
    /// Queue ids used up, by messages that were refused in the end, too.
    ids: u64,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        // No panic leaves the log half-written; a test that failed must not fail the others with
        // it.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offers(&self, keyword: &str) -> bool {
        !self
            .settings
            .without
            .iter()
            .any(|left_out| left_out.eq_ignore_ascii_case(keyword))
    }
}
