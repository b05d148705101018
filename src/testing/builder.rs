//! What a server is to be like, and its start.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::sync::Notify;

use super::listener::{BoundListener, accept};
use super::{Server, Shared, certificate};
use crate::proto::{Mechanism, Protocol};

/// What a server is to be like; made by [`Server::builder`].
#[must_use = "nothing listens before `start`"]
pub struct Builder {
    settings: Settings,
}

/// A function that may answer in place of the server.
type Answer = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

pub(super) struct Settings {
    pub(super) protocol: Protocol,
    pub(super) is_at_socket: bool,
    pub(super) security: Security,
    pub(super) logins: Vec<(String, String)>,
    pub(super) tokens: Vec<(String, String)>,
    pub(super) mechanisms: Vec<Mechanism>,
    pub(super) auth_in_clear: bool,
    pub(super) require_login: bool,
    pub(super) max_size: Option<u64>,
    pub(super) without: Vec<String>,
    pub(super) offered: Vec<String>,
    pub(super) refused: Vec<(String, String)>,
    pub(super) prdr: bool,
    pub(super) refused_messages: Vec<(String, String)>,
    pub(super) answer: Option<Answer>,
    pub(super) discard: bool,
    pub(super) checks: Checks,
}

/// What is checked of each message.
#[derive(Clone, Copy, Default)]
pub(super) struct Checks {
    pub(super) eight_bit: bool,
    pub(super) line_length: bool,
    pub(super) size: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Security {
    StartTls,
    Implicit,
    Plaintext,
}

impl Builder {
    pub(super) fn new() -> Self {
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
                checks: Checks::default(),
            },
        }
    }

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

    /// Speaks LMTP (RFC 2033) instead of SMTP: LHLO, and an answer for each recipient behind a
    /// message. Without TLS, unless [`starttls`](Self::starttls) follows.
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

    /// Accepts this user with this password; called again, another one too. AUTH is offered inside
    /// TLS only, unless [`auth_in_clear`](Self::auth_in_clear) says otherwise.
    pub fn login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.settings.logins.push((user.into(), password.into()));
        self
    }

    /// Accepts this user with this token of OAuth 2, if OAUTHBEARER or XOAUTH2 is among the
    /// [mechanisms](Self::mechanisms); called again, another one too.
    pub fn token(mut self, user: impl Into<String>, token: impl Into<String>) -> Self {
        self.settings.tokens.push((user.into(), token.into()));
        self
    }

    /// Offers these mechanisms, in place of PLAIN and LOGIN: those, SCRAM, CRAM-MD5, OAUTHBEARER
    /// and XOAUTH2 are known.
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

    /// The largest message taken, in bytes, announced with SIZE (RFC 1870). Without it there is no
    /// limit, and `SIZE 0` says so.
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.settings.max_size = Some(bytes);
        self
    }

    /// Leaves an extension out of the answer to EHLO, and takes none of its parameters. A keyword
    /// that the server does not know changes nothing.
    ///
    /// Without `ENHANCEDSTATUSCODES`, replies have no such codes.
    pub fn without(mut self, keyword: impl Into<String>) -> Self {
        self.settings.without.push(keyword.into());
        self
    }

    /// Offers another extension in its answer to EHLO, by this line of it, and takes its
    /// parameters: `DSN`, `DELIVERBY 240`, `FUTURERELEASE 86400 2030-01-01T00:00:00Z`,
    /// `MT-PRIORITY MIXER`, `REQUIRETLS` (inside TLS only), `LIMITS RCPTMAX=10` … What it was asked
    /// for is in [`ReceivedMessage::parameters`](super::ReceivedMessage::parameters) and
    /// [`ReceivedMessage::recipient_parameters`](super::ReceivedMessage::recipient_parameters);
    /// nothing more comes of it, but that limits are enforced, and chunks are taken (`CHUNKING`,
    /// `BINARYMIME`).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use envoi::delivery::Notify;
    /// use envoi::{Client, DeliveryOptions, Message, mail_builder::MessageBuilder};
    ///
    /// let server = envoi::testing::Server::builder().offer("DSN").start().await?;
    /// let mail = MessageBuilder::new().from("a@example.org").to("b@example.org").text_body("Hello.");
    /// let message = Message::from(mail).delivery(DeliveryOptions::new().notify(Notify::SUCCESS));
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

    /// Refuses a recipient, compared without regard to case, with this reply:
    /// `550 5.1.1 No such user`.
    pub fn refuse_recipient(
        mut self,
        address: impl Into<String>,
        reply: impl Into<String>,
    ) -> Self {
        self.settings.refused.push((address.into(), reply.into()));
        self
    }

    /// Offers PRDR: a client that asks for it gets an answer for each recipient behind the message,
    /// as Exim gives it.
    pub fn prdr(mut self) -> Self {
        self.settings.prdr = true;
        self
    }

    /// Takes this recipient, compared without regard to case, and refuses the message for it with
    /// this reply when it has come. Where there is one reply for all recipients ([LMTP](Self::lmtp)
    /// and [PRDR](Self::prdr) have one for each), it is refused for all.
    pub fn refuse_message(
        mut self,
        recipient: impl Into<String>,
        reply: impl Into<String>,
    ) -> Self {
        self.settings
            .refused_messages
            .push((recipient.into(), reply.into()));
        self
    }

    /// Lets a function see each command before it is carried out, and answer in its place.
    ///
    /// It gets the line as [`Session::groups`](super::Session::groups) has it, and `.` when a
    /// message has come whole. What it returns is sent as it is (several lines for a multi-line
    /// reply), and the command is not carried out, the message not kept; after a 421 the connection
    /// is closed.
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
    pub fn answer(
        mut self,
        answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.settings.answer = Some(Box::new(answer));
        self
    }

    /// Refuses a message with bytes beyond ASCII, with 554, where MAIL did not declare them: by
    /// `BODY=8BITMIME` (RFC 6152), `BODY=BINARYMIME` or `SMTPUTF8`.
    pub fn check_eight_bit(mut self) -> Self {
        self.settings.checks.eight_bit = true;
        self
    }

    /// Refuses a message with a line of more than 998 bytes before its CRLF, with 554 (RFC 5321,
    /// 4.5.3.1.6), unless MAIL declared `BODY=BINARYMIME`.
    pub fn check_line_length(mut self) -> Self {
        self.settings.checks.line_length = true;
        self
    }

    /// Refuses a message that is larger than MAIL declared by `SIZE=` (RFC 1870), with 552.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use envoi::{Client, mail_builder::MessageBuilder};
    ///
    /// let server =
    ///     envoi::testing::Server::builder().check_size().check_eight_bit().check_line_length().start().await?;
    /// let mail = MessageBuilder::new().from("a@example.org").to("b@example.org").text_body("Gr\u{fc}\u{df}e.");
    /// Client::from_url(&server.url())?.send(mail).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn check_size(mut self) -> Self {
        self.settings.checks.size = true;
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

        let socket = self
            .settings
            .is_at_socket
            .then(|| folder.path().join("lmtp.sock"));
        let (listener, port) = match &socket {
            #[cfg(unix)]
            Some(path) => (BoundListener::Unix(UnixListener::bind(path)?), 0),
            _ => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                let port = listener.local_addr()?.port();
                (BoundListener::Tcp(listener), port)
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
        Ok(Server {
            shared,
            task,
            port,
            socket,
            ca_pem: certificate.ca_pem,
            ca_file,
        })
    }
}
