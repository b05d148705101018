//! An SMTP or LMTP server inside the process, to test programs that send mail (feature `testing`).
//!
//! [`Server::start`] starts a server on a free port of the loopback interface. It offers STARTTLS
//! with a certificate that is generated on start, and keeps the messages that it accepts. It is
//! strict where a real server may be lenient: commands end with CRLF, parameters are accepted only
//! if their extension was offered, and only CRLF, dot, CRLF ends a message (RFC 5321, 4.1.1.4).
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
//! client.write_all(b"HELO me\r\nMAIL FROM:<a@example.org>\r\n").await?;
//! client.write_all(b"RCPT TO:<b@example.org>\r\nDATA\r\n").await?;
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
//! A message is written to a file as it arrives, so its size needs no memory. Commands are kept as
//! text, without secrets, in the groups in which they arrived: [`Session::groups`] shows what was
//! pipelined.
//!
//! A [`Fault`] makes the server refuse, delay, hang, or close or reset connections at any
//! [`Step`]; [`Builder::certificate_names`] and [`Builder::certificate_valid_until`] give it a
//! certificate that a client must not accept. The guide to [tests](crate::guide::testing) has an
//! overview. A [`Recorder`] needs no socket: it keeps messages in memory.

mod arrivals;
mod assertions;
mod body;
mod builder;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod certificate;
mod dialogue;
mod fault;
mod listener;
#[cfg(feature = "testing-parse")]
mod parsed;
mod record;
mod recorder;
mod session;
#[cfg(all(test, any(feature = "aws-lc-rs", feature = "ring")))]
mod tests;
mod url;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
use tokio_rustls::rustls::ServerConfig;

use arrivals::Arrivals;
use builder::Settings;
use fault::Faults;
use url::Url;

pub use assertions::WaitError;
pub use builder::Builder;
pub use dialogue::{Dialogue, DialogueError, ScriptedServer};
pub use fault::{Fault, Step};
#[cfg(feature = "testing-parse")]
pub use parsed::{ParsedAttachment, ParsedMessage};
pub use record::{ReceivedMessage, Session};
pub use recorder::{RecordedMessage, Recorder};

/// The number of connections that the error of [`Server::wait_for`] lists.
const SHOWN: usize = 10;

/// A mail server on the loopback interface or at a Unix socket. Dropping it ends the server and all
/// its connections.
///
/// Its files are in a temporary folder, which is deleted when the server and every
/// [`ReceivedMessage`] have been dropped. Envelopes and commands are in memory until
/// [`clear`](Self::clear).
pub struct Server {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    host: String,
    port: u16,
    socket: Option<PathBuf>,
    ca_file: PathBuf,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("host", &self.host())
            .field("port", &self.port)
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Starts a server with STARTTLS and without logins.
    ///
    /// # Errors
    ///
    /// See [`Builder::start`].
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

    /// Returns a builder for a server with other settings.
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

    /// The name to connect to, which is in the certificate: `localhost`. The certificate is valid
    /// for `127.0.0.1` and `::1` as well. Of a server with another [`Builder::address`], that
    /// address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port that the server listens on; 0 if it listens at a [socket](Self::socket).
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The Unix socket that the server listens at, if it does.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// The URL of the server: scheme, the first login, host, port, and the CA file to trust. No URL
    /// exists for LMTP with TLS from the first byte; the URL is that of LMTP without it then.
    pub fn url(&self) -> String {
        let settings = &self.shared.settings;
        let login = settings.logins.first();
        let url = Url {
            protocol: settings.protocol,
            security: settings.security,
            login: login.map(|(user, password)| (user.as_str(), password.as_str())),
            auth_in_clear: settings.auth_in_clear,
            ca_file: &self.ca_file,
        };
        match &self.socket {
            Some(path) => url.with_socket(path),
            None => url.with_port(&self.host, self.port),
        }
    }

    /// The certificate of the CA that signed the server's certificate, in PEM; empty in a build
    /// without the features `aws-lc-rs` and `ring`.
    pub fn ca_pem(&self) -> &str {
        &self.shared.identity.ca_pem
    }

    /// The file with [`ca_pem`](Self::ca_pem), in the server's temporary folder.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The TLS configuration of the server, with its certificate and key, for a test that
    /// implements another server. It needs the feature `aws-lc-rs` or `ring`.
    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    pub fn tls_config(&self) -> Arc<ServerConfig> {
        let acceptor = self.shared.identity.acceptor.as_ref();
        acceptor
            .expect("the build has cryptography")
            .config()
            .clone()
    }

    /// The accepted messages, in the order in which they were accepted.
    pub fn messages(&self) -> Vec<ReceivedMessage> {
        self.shared.arrivals.all()
    }

    /// Waits for the next message that this method has not returned yet.
    ///
    /// Waits without a limit: use `tokio::time::timeout` if the message may not arrive.
    pub async fn next_message(&self) -> ReceivedMessage {
        self.shared.arrivals.next().await
    }

    /// Waits until `n` messages have been accepted since the start or [`clear`](Self::clear), and
    /// returns all. It waits for the event, without polling.
    ///
    /// # Errors
    ///
    /// They did not arrive within this time, by tokio's clock. The error says how many arrived, and
    /// how the connections ended.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// # use envoi::{Client, mail_builder::MessageBuilder, testing::Server};
    /// let server = Server::start().await?;
    /// let client = Client::from_url(&server.url())?;
    /// for to in ["alice@example.com", "bob@example.com"] {
    ///     let mail = MessageBuilder::new().from("me@example.org").to(to).text_body("Hello.");
    ///     let client = client.clone();
    ///     tokio::spawn(async move { client.send(mail).await });
    /// }
    /// let messages = server.wait_for(2, Duration::from_secs(10)).await?;
    /// assert_eq!(messages.len(), 2);
    ///
    /// let error = server.wait_for(3, Duration::from_millis(10)).await.unwrap_err();
    /// assert!(error.to_string().starts_with("2 of 3 messages arrived within 10ms"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_for(
        &self,
        n: usize,
        timeout: Duration,
    ) -> Result<Vec<ReceivedMessage>, WaitError> {
        let details = || {
            let log = self.shared.log();
            let mut details = format!("; connections: {}", log.sessions.len());
            for (i, session) in log.sessions.iter().enumerate().rev().take(SHOWN) {
                let state = match (&session.failure, session.is_open) {
                    (Some(failure), _) => failure,
                    (None, true) => "open",
                    (None, false) => "closed",
                };
                let last = session.commands().last().unwrap_or("no command");
                details += &format!("\n  {i}: {last}; {state}");
            }
            details
        };
        self.shared.arrivals.wait_for(n, timeout, details).await
    }

    /// Adds a fault, which occurs from now on, also on connections that are open.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use envoi::Client;
    /// use envoi::testing::{Fault, Server, Step};
    ///
    /// let server = Server::start().await?;
    /// let client = Client::from_url(&server.url())?;
    /// client.connect().await?;
    ///
    /// server.add_fault(Fault::reply(Step::Greeting, "421 4.3.2 Down for maintenance"));
    /// assert!(client.connect().await.is_err());
    ///
    /// server.clear_faults();
    /// client.connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn add_fault(&self, fault: Fault) {
        self.shared.faults().add(fault);
    }

    /// Removes all faults. A connection that hangs or waits already goes on doing so.
    pub fn clear_faults(&self) {
        self.shared.faults().clear();
    }

    /// Removes all messages, also those that [`next_message`](Self::next_message) has not returned,
    /// and the lines of all connections, so that a server can run for long in constant memory. The
    /// file of a message is deleted when its last [`ReceivedMessage`] is dropped. Faults and logins
    /// stay, and [`ReceivedMessage::connection`] stays valid.
    pub fn clear(&self) {
        drop(self.take_messages());
    }

    /// Returns the messages that were accepted since the start or the last [`clear`](Self::clear),
    /// and clears the server: a test of many messages checks each of them, in constant memory.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use envoi::{Client, mail_builder::MessageBuilder, testing::Server};
    /// let server = Server::start().await?;
    /// let client = Client::from_url(&server.url())?;
    /// for number in 0..3 {
    ///     let mail = MessageBuilder::new()
    ///         .from("me@example.org")
    ///         .to("alice@example.com")
    ///         .text_body(format!("No. {number}"));
    ///     client.send(mail).await?;
    ///     let messages = server.take_messages();
    ///     messages[0].assert_contains(&format!("No. {number}"));
    /// }
    /// assert!(server.messages().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn take_messages(&self) -> Vec<ReceivedMessage> {
        for session in &mut self.shared.log().sessions {
            session.clear();
        }
        self.shared.arrivals.take()
    }

    /// Ends the server and all its connections, as dropping it does, and waits until its port is
    /// free for another server.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it has ended the server all the same.
    pub async fn shutdown(mut self) {
        self.task.abort();
        // The error says that the task was aborted.
        let _ = (&mut self.task).await;
    }

    /// All connections so far, closed ones included, in the order in which they were accepted.
    pub fn connections(&self) -> Vec<Session> {
        self.shared.log().sessions.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The state that the sessions and the handle of the server share.
struct Shared {
    settings: Settings,
    identity: Identity,
    folder: Arc<TempDir>,
    log: Mutex<Log>,
    faults: Mutex<Faults>,
    arrivals: Arrivals<ReceivedMessage>,
}

/// What the server proves itself with.
#[derive(Default)]
struct Identity {
    /// `None` in a build without cryptography.
    acceptor: Option<TlsAcceptor>,
    /// The certificate's hash, by that of its signature, ECDSA with SHA-256 (RFC 5929, 4.1).
    #[cfg(feature = "sasl")]
    end_point: Vec<u8>,
    ca_pem: String,
}

#[derive(Default)]
struct Log {
    sessions: Vec<Session>,
    /// The number of queue ids used, including those of messages that were refused.
    ids: u64,
}

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
impl Identity {
    fn localhost() -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a server with TLS needs envoi's feature `aws-lc-rs` or `ring`",
        ))
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        // The log is never left half-written. A failed test must not make others fail.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offers(&self, keyword: &str) -> bool {
        !self
            .settings
            .without
            .iter()
            .any(|left_out| left_out.eq_ignore_ascii_case(keyword))
    }
}
