//! An SMTP or LMTP server inside the process, for the tests of programs that send mail (feature `testing`).
//!
//! [`Server::start`] gives a server on a free port of the loopback interface that offers STARTTLS
//! with a certificate of its own, made on the spot, and keeps what it is sent. It is strict where a real
//! server may be lenient: commands end with CRLF, parameters stand only where their extension
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
//! A message goes to a file as it comes, so its size costs no memory. Commands are kept as text, with
//! secrets left out, in the groups in which they came: [`Session::groups`] shows what was pipelined.

mod body;
mod certificate;
mod session;
#[cfg(test)]
mod tests;

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tempfile::TempDir;
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::proto::{Mechanism, Protocol};
use session::Stream;

/// What needs no escape in a URL's user, password or path.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');

/// What a server is to be like; made by [`Server::builder`].
#[must_use = "nothing listens before `start`"]
pub struct Builder {
    settings: Settings,
}

/// A function that may answer in place of the server.
type Answer = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

struct Settings {
    protocol: Protocol,
    is_at_socket: bool,
    security: Security,
    logins: Vec<(String, String)>,
    tokens: Vec<(String, String)>,
    mechanisms: Vec<Mechanism>,
    auth_in_clear: bool,
    require_login: bool,
    max_size: Option<u64>,
    without: Vec<String>,
    offered: Vec<String>,
    refused: Vec<(String, String)>,
    prdr: bool,
    refused_messages: Vec<(String, String)>,
    answer: Option<Answer>,
    discard: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Security {
    StartTls,
    Implicit,
    Plaintext,
}

impl Builder {
    /// TLS after the STARTTLS command, the default.
    pub fn starttls(mut self) -> Self {
        self.settings.security = Security::StartTls;
        self
    }

    /// TLS from the first byte.
    pub fn implicit_tls(mut self) -> Self {
        self.settings.security = Security::Implicit;
        self
    }

    /// No TLS at all.
    pub fn plaintext(mut self) -> Self {
        self.settings.security = Security::Plaintext;
        self
    }

    /// Speaks LMTP (RFC 2033) instead of SMTP: LHLO, and an answer for each recipient behind a message. Without TLS, unless
    /// [`starttls`](Self::starttls) follows.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use envoi::{Client, Outcome, mail_builder::MessageBuilder, testing::Server};
    ///
    /// let server = Server::builder().lmtp().refuse_message("bob@example.com", "552 5.2.2 Mailbox full").start().await?;
    /// let mail = MessageBuilder::new()
    ///     .from("me@example.org")
    ///     .to(vec!["alice@example.com", "bob@example.com"])
    ///     .text_body("Hello.");
    /// let receipt = Client::from_url(&server.url())?.send(mail).await?;
    /// assert!(receipt.recipients[0].outcome.is_accepted());
    /// assert!(matches!(&receipt.recipients[1].outcome, Outcome::Refused(reply) if reply.code() == 552));
    /// # Ok(())
    /// # }
    /// ```
    pub fn lmtp(mut self) -> Self {
        self.settings.protocol = Protocol::Lmtp;
        self.plaintext()
    }

    /// [LMTP](Self::lmtp) at a Unix socket in the server's temporary folder.
    #[cfg(unix)]
    pub fn lmtp_unix(mut self) -> Self {
        self.settings.is_at_socket = true;
        self.lmtp()
    }

    /// Accepts this user with this password; called again, another one too. AUTH is offered inside TLS only, unless [`auth_in_clear`](Self::auth_in_clear) says otherwise.
    pub fn login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.settings.logins.push((user.into(), password.into()));
        self
    }

    /// Accepts this user with this token of OAuth 2, if OAUTHBEARER or XOAUTH2 is among the [mechanisms](Self::mechanisms);
    /// called again, another one too.
    pub fn token(mut self, user: impl Into<String>, token: impl Into<String>) -> Self {
        self.settings.tokens.push((user.into(), token.into()));
        self
    }

    /// Offers these mechanisms, in place of PLAIN and LOGIN: those, SCRAM, CRAM-MD5, OAUTHBEARER and XOAUTH2 are known.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use envoi::proto::Mechanism;
    ///
    /// let server = envoi::testing::Server::builder()
    ///     .login("alice", "secret")
    ///     .mechanisms([Mechanism::ScramSha256, Mechanism::ScramSha256Plus])
    ///     .start()
    ///     .await?;
    /// let connection = envoi::Client::from_url(&server.url())?.connect().await?;
    /// assert_eq!(connection.mechanism(), Some(Mechanism::ScramSha256Plus));
    /// # Ok(())
    /// # }
    /// ```
    pub fn mechanisms(mut self, mechanisms: impl IntoIterator<Item = Mechanism>) -> Self {
        self.settings.mechanisms = mechanisms.into_iter().collect();
        self
    }

    /// Offers AUTH without TLS, too.
    pub fn auth_in_clear(mut self) -> Self {
        self.settings.auth_in_clear = true;
        self
    }

    /// Refuses MAIL before a login, with 530.
    pub fn require_login(mut self) -> Self {
        self.settings.require_login = true;
        self
    }

    /// The largest message taken, in bytes, announced with SIZE (RFC 1870). Without it there is no limit, and
    /// `SIZE 0` says so.
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.settings.max_size = Some(bytes);
        self
    }

    /// Leaves an extension out of the answer to EHLO, and takes none of its parameters. A keyword that
    /// the server does not know changes nothing.
    ///
    /// Without `ENHANCEDSTATUSCODES`, replies have no such codes.
    pub fn without(mut self, keyword: impl Into<String>) -> Self {
        self.settings.without.push(keyword.into());
        self
    }

    /// Offers another extension in its answer to EHLO, by this line of it, and takes its parameters: `DSN`, `DELIVERBY 240`,
    /// `FUTURERELEASE 86400 2030-01-01T00:00:00Z`, `MT-PRIORITY MIXER`, `REQUIRETLS` (inside TLS only), `LIMITS RCPTMAX=10` …
    /// What it was asked for is in [`Captured::parameters`] and [`Captured::recipient_parameters`]; nothing more comes of
    /// it, but that limits are enforced, and chunks are taken (`CHUNKING`, `BINARYMIME`).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use envoi::delivery::Notify;
    /// use envoi::{Client, Delivery, Message, mail_builder::MessageBuilder};
    ///
    /// let server = envoi::testing::Server::builder().offer("DSN").start().await?;
    /// let mail = MessageBuilder::new().from("a@example.org").to("b@example.org").text_body("Hello.");
    /// let message = Message::from(mail).delivery(Delivery::new().notify(Notify::SUCCESS));
    /// let receipt = Client::from_url(&server.url())?.send(message).await?;
    /// let arrived = server.next_message().await;
    /// assert_eq!(arrived.recipient_parameters, [["NOTIFY=SUCCESS", "ORCPT=rfc822;b@example.org"]]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn offer(mut self, line: impl Into<String>) -> Self {
        self.settings.offered.push(line.into());
        self
    }

    /// Refuses a recipient, compared without regard to case, with this reply: `550 5.1.1 No such user`.
    pub fn refuse_recipient(mut self, address: impl Into<String>, reply: impl Into<String>) -> Self {
        self.settings.refused.push((address.into(), reply.into()));
        self
    }

    /// Offers PRDR: a client that asks for it gets an answer for each recipient behind the message, as Exim gives it.
    pub fn prdr(mut self) -> Self {
        self.settings.prdr = true;
        self
    }

    /// Takes this recipient, compared without regard to case, and refuses the message for it with this reply when it has come. Where
    /// there is one reply for all recipients ([LMTP](Self::lmtp) and [PRDR](Self::prdr) have one for each), it is refused for all.
    pub fn refuse_message(mut self, recipient: impl Into<String>, reply: impl Into<String>) -> Self {
        self.settings.refused_messages.push((recipient.into(), reply.into()));
        self
    }

    /// Lets a function see each command before it is carried out, and answer in its place.
    ///
    /// It gets the line as [`Session::groups`] has it, and `.` when a message has come whole. What it
    /// returns is sent as it is (several lines for a multi-line reply), and the command is not
    /// carried out, the message not kept; after a 421 the connection is closed.
    ///
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// let old_server = envoi::testing::Server::builder()
    ///     .answer(|command| command.starts_with("EHLO").then(|| "502 5.5.1 What do you mean?".into()))
    ///     .start()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn answer(mut self, answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        self.settings.answer = Some(Box::new(answer));
        self
    }

    /// Throws the contents of messages away as they come: only their size is kept. For benchmarks.
    pub fn discard(mut self) -> Self {
        self.settings.discard = true;
        self
    }

    /// Starts the server on the runtime of the caller, which must have tokio's I/O enabled.
    ///
    /// # Errors
    ///
    /// The temporary folder cannot be made, or no port of the loopback interface can be had.
    pub async fn start(self) -> io::Result<Server> {
        let folder = tempfile::Builder::new().prefix("envoi-").tempdir()?;
        let certificate = certificate::Certificate::new()?;
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, &certificate.ca_pem)?;

        let socket = self.settings.is_at_socket.then(|| folder.path().join("lmtp.sock"));
        let (listener, port) = match &socket {
            #[cfg(unix)]
            Some(path) => (Listener::Unix(UnixListener::bind(path)?), 0),
            _ => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                let port = listener.local_addr()?.port();
                (Listener::Tcp(listener), port)
            }
        };
        let shared = Arc::new(Shared {
            settings: self.settings,
            tls: certificate.acceptor,
            end_point: certificate.end_point,
            folder: Arc::new(folder),
            log: Mutex::default(),
            arrived: Notify::new(),
        });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Ok(Server { shared, task, port, socket, ca_pem: certificate.ca_pem, ca_file })
    }
}

enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Without it a reply may wait for the client's delayed acknowledgement. Where it fails, the connection is gone.
                let _ = stream.set_nodelay(true);
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            Listener::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

async fn accept(listener: Listener, shared: Arc<Shared>) {
    // When this task is aborted, the set is dropped, and with it every session.
    let mut sessions = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok(stream) => {
                sessions.spawn(session::serve(stream, shared.clone()));
            }
            // The client is gone already, or this process has too many files open: no reason to end.
            Err(_) => tokio::task::yield_now().await,
        }
        while sessions.try_join_next().is_some() {}
    }
}

/// A mail server on the loopback interface, or at a Unix socket. It ends when it is dropped, and all its connections with it.
///
/// Its files are in a temporary folder, which goes when the server and every [`Captured`] are dropped.
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
        Builder {
            settings: Settings {
                protocol: Protocol::Smtp,
                is_at_socket: false,
                security: Security::StartTls,
                logins: Vec::new(),
                tokens: Vec::new(),
                mechanisms: vec![Mechanism::Plain, Mechanism::Login],
                auth_in_clear: false,
                require_login: false,
                max_size: None,
                without: Vec::new(),
                offered: Vec::new(),
                refused: Vec::new(),
                prdr: false,
                refused_messages: Vec::new(),
                answer: None,
                discard: false,
            },
        }
    }

    /// The name to connect to, which the certificate bears: `localhost`. It is good for `127.0.0.1` and `::1` as well.
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

    /// All that a client needs to know, in one line: scheme, the first login, host, port, and the CA file to trust. There is none for
    /// LMTP with TLS from the first byte; this one is for LMTP without then.
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
        let trust = format!("trust={}", utf8_percent_encode(&self.ca_file.to_string_lossy(), PATH));
        let query = if settings.security == Security::StartTls && settings.protocol == Protocol::Lmtp {
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
            Some(path) => format!("lmtp+unix://{login}{}?{query}", utf8_percent_encode(&path.to_string_lossy(), PATH)),
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

    /// The server's end of TLS, with its certificate and key, for a server of the test's own that does what this
    /// one does not.
    pub fn tls_config(&self) -> Arc<ServerConfig> {
        self.shared.tls.config().clone()
    }

    /// The messages that were accepted, in the order in which they were.
    pub fn messages(&self) -> Vec<Captured> {
        self.shared.log().messages.clone()
    }

    /// The next message that this method has not given out yet, as soon as it has been accepted.
    ///
    /// It waits without limit: put `tokio::time::timeout` around it where a message may fail to come.
    pub async fn next_message(&self) -> Captured {
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

/// A message that the server accepted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Captured {
    /// The queue id in the reply to the client.
    pub id: String,
    /// Which of [`Server::connections`] it came on.
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
    path: PathBuf,
    _folder: Arc<TempDir>,
}

impl Captured {
    /// The message, without dot-stuffing and the final dot.
    ///
    /// # Errors
    ///
    /// Those of reading a file; there is none with [`Builder::discard`].
    pub fn read(&self) -> io::Result<Vec<u8>> {
        std::fs::read(&self.path)
    }

    /// The file that [`read`](Self::read) reads, for messages that are too large for memory. It is there for as
    /// long as this value, a clone of it, or the server.
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
    messages: Vec<Captured>,
    given_out: usize,
    sessions: Vec<Session>,
    /// Queue ids used up, by messages that were refused in the end, too.
    ids: u64,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        // No panic leaves the log half-written; a test that failed must not fail the others with it.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offers(&self, keyword: &str) -> bool {
        !self.settings.without.iter().any(|left_out| left_out.eq_ignore_ascii_case(keyword))
    }
}
