//! The settings of a server, and how it is started.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
use std::time::SystemTime;

use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

use super::arrivals::Arrivals;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
use super::certificate::LOCALHOST;
use super::fault::{Fault, Faults};
use super::listener::{BoundListener, accept};
use super::session::auth;
use super::{Identity, Server, Shared};
use crate::proto::{Mechanism, Protocol};

/// The settings of a server; made by [`Server::builder`].
#[must_use = "nothing listens before `start`"]
pub struct Builder {
    settings: Settings,
    faults: Faults,
}

/// A function that may reply in place of the server.
type Answer = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

pub(super) struct Settings {
    pub(super) protocol: Protocol,
    pub(super) uses_socket: bool,
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
    address: IpAddr,
    port: u16,
    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    /// The chain and the key.
    certificate_pem: Option<(String, String)>,
    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    pub(super) certificate_names: Vec<String>,
    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    pub(super) certificate_valid_until: Option<SystemTime>,
}

/// The checks of each message.
#[derive(Clone, Copy, Default)]
pub(super) struct Checks {
    pub(super) eight_bit: bool,
    pub(super) line_length: bool,
    pub(super) size: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Security {
    StartTls,
    Implicit,
    Plaintext,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("protocol", &self.settings.protocol)
            .field("security", &self.settings.security)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(super) fn new() -> Self {
        Builder {
            settings: Settings {
                protocol: Protocol::Smtp,
                uses_socket: false,
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
                address: Ipv4Addr::LOCALHOST.into(),
                port: 0,
                #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
                certificate_pem: None,
                #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
                certificate_names: LOCALHOST.map(String::from).into(),
                #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
                certificate_valid_until: None,
            },
            faults: Faults::default(),
        }
    }

    /// Uses TLS after the STARTTLS command, which is the default.
    pub fn starttls(mut self) -> Self {
        self.settings.security = Security::StartTls;
        self
    }

    /// Uses TLS from the first byte.
    pub fn implicit_tls(mut self) -> Self {
        self.settings.security = Security::Implicit;
        self
    }

    /// Uses no TLS.
    pub fn plaintext(mut self) -> Self {
        self.settings.security = Security::Plaintext;
        self
    }

    /// Speaks LMTP (RFC 2033) instead of SMTP: LHLO, and a reply for each recipient after a
    /// message. Without TLS, unless [`starttls`](Self::starttls) follows.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use envoi::{Client, Outcome, mail_builder::MessageBuilder, testing::Server};
    ///
    /// let server = Server::builder()
    ///     .lmtp()
    ///     .refuse_message("bob@example.com", "552 5.2.2 Mailbox full")
    ///     .start()
    ///     .await?;
    /// let mail = MessageBuilder::new()
    ///     .from("me@example.org")
    ///     .to(vec!["alice@example.com", "bob@example.com"])
    ///     .text_body("Hello.");
    /// let receipt = Client::from_url(&server.url())?.send(mail).await?;
    /// assert!(receipt.recipients[0].outcome.is_accepted());
    /// let outcome = &receipt.recipients[1].outcome;
    /// assert!(matches!(outcome, Outcome::Refused(reply) if reply.code() == 552));
    /// # Ok(())
    /// # }
    /// ```
    pub fn lmtp(mut self) -> Self {
        self.settings.protocol = Protocol::Lmtp;
        self.plaintext()
    }

    /// Listens at a Unix socket in the server's temporary folder, and speaks [LMTP](Self::lmtp).
    #[cfg(unix)]
    pub fn lmtp_unix(mut self) -> Self {
        self.settings.uses_socket = true;
        self.lmtp()
    }

    /// Accepts this user with this password. Call it once for each user. AUTH is offered inside TLS
    /// only, unless [`auth_in_clear`](Self::auth_in_clear) is set.
    pub fn login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.settings.logins.push((user.into(), password.into()));
        self
    }

    /// Accepts this user with this OAuth 2 token, if OAUTHBEARER or XOAUTH2 is among the
    /// [mechanisms](Self::mechanisms). Call it once for each user.
    pub fn token(mut self, user: impl Into<String>, token: impl Into<String>) -> Self {
        self.settings.tokens.push((user.into(), token.into()));
        self
    }

    /// Offers these mechanisms instead of PLAIN and LOGIN: any that this build of envoi implements,
    /// except EXTERNAL and ANONYMOUS.
    ///
    /// ```
    /// # #[cfg(not(feature = "sasl"))]
    /// # fn main() {}
    /// # #[cfg(feature = "sasl")]
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

    /// Offers AUTH without TLS too.
    pub fn auth_in_clear(mut self, yes: bool) -> Self {
        self.settings.auth_in_clear = yes;
        self
    }

    /// Refuses MAIL before a login, with 530.
    pub fn require_login(mut self, yes: bool) -> Self {
        self.settings.require_login = yes;
        self
    }

    /// Sets the maximum message size in bytes, which is announced with SIZE (RFC 1870). By default
    /// there is no limit, and `SIZE 0` is announced.
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.settings.max_size = Some(bytes);
        self
    }

    /// Leaves an extension out of the reply to EHLO and refuses its parameters. Has no effect if
    /// the server does not have the extension.
    ///
    /// Without `ENHANCEDSTATUSCODES`, replies have no such codes.
    pub fn without(mut self, keyword: impl Into<String>) -> Self {
        self.settings.without.push(keyword.into());
        self
    }

    /// Adds a line to the reply to EHLO, which offers another extension, and accepts its
    /// parameters: `DSN`, `DELIVERBY 240`, `FUTURERELEASE 86400 2030-01-01T00:00:00Z`, `MT-PRIORITY
    /// MIXER`, `REQUIRETLS` (inside TLS only), `LIMITS RCPTMAX=10` … The parameters are recorded in
    /// [`ReceivedMessage::parameters`](super::ReceivedMessage::parameters) and
    /// [`ReceivedMessage::recipient_parameters`](super::ReceivedMessage::recipient_parameters).
    /// They have no further effect, except that limits are enforced and chunks are accepted
    /// (`CHUNKING`, `BINARYMIME`).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use envoi::delivery::Notify;
    /// use envoi::{Client, DeliveryOptions, Message, mail_builder::MessageBuilder};
    ///
    /// let server = envoi::testing::Server::builder().offer("DSN").start().await?;
    /// let mail = MessageBuilder::new()
    ///     .from("a@example.org")
    ///     .to("b@example.org")
    ///     .text_body("Hello.");
    /// let message = Message::from(mail).delivery(DeliveryOptions::new().notify(Notify::SUCCESS));
    /// let receipt = Client::from_url(&server.url())?.send(message).await?;
    /// let arrived = server.next_message().await;
    /// let parameters = ["NOTIFY=SUCCESS", "ORCPT=rfc822;b@example.org"];
    /// assert_eq!(arrived.recipient_parameters, [parameters]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn offer(mut self, line: impl Into<String>) -> Self {
        self.settings.offered.push(line.into());
        self
    }

    /// Refuses a recipient with this reply, such as `550 5.1.1 No such user`. The address is
    /// compared without regard to case.
    pub fn refuse_recipient(
        mut self,
        address: impl Into<String>,
        reply: impl Into<String>,
    ) -> Self {
        self.settings.refused.push((address.into(), reply.into()));
        self
    }

    /// Offers PRDR: a client that asks for it gets a reply for each recipient after the message, as
    /// Exim sends it.
    pub fn prdr(mut self, yes: bool) -> Self {
        self.settings.prdr = yes;
        self
    }

    /// Accepts this recipient, compared without regard to case, but refuses the message for it with
    /// this reply once the message has arrived. [LMTP](Self::lmtp) and [PRDR](Self::prdr) have one
    /// reply for each recipient; without them, the message is refused for all.
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

    /// Adds a fault: what the server does at a step of a session in place of what it should. See
    /// [`Fault`] for examples, and [`Server::add_fault`] to add one while the server runs.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.add(fault);
        self
    }

    /// Calls a function for each command before it is executed, which may reply in its place.
    ///
    /// The function gets the line as it is in [`Session::groups`](super::Session::groups), and `.`
    /// when a message is complete. What it returns is sent as it is (several lines for a multi-line
    /// reply); the command is not executed, the message is not kept, and after a 421 the connection
    /// is closed.
    ///
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// let old_server = envoi::testing::Server::builder()
    ///     .answer(|command| command.starts_with("EHLO").then(|| "502 5.5.1 Unknown".into()))
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

    /// Refuses a message with bytes beyond ASCII, with 554, unless MAIL declared them by
    /// `BODY=8BITMIME` (RFC 6152), `BODY=BINARYMIME` or `SMTPUTF8`.
    pub fn check_eight_bit(mut self, yes: bool) -> Self {
        self.settings.checks.eight_bit = yes;
        self
    }

    /// Refuses a message with a line of more than 998 bytes before its CRLF, with 554 (RFC 5321,
    /// 4.5.3.1.6), unless MAIL declared `BODY=BINARYMIME`.
    pub fn check_line_length(mut self, yes: bool) -> Self {
        self.settings.checks.line_length = yes;
        self
    }

    /// Refuses a message that is larger than `SIZE=` of MAIL declared (RFC 1870), with 552.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use envoi::{Client, mail_builder::MessageBuilder};
    ///
    /// let server =
    ///     envoi::testing::Server::builder()
    ///         .check_size(true)
    ///         .check_eight_bit(true)
    ///         .check_line_length(true)
    ///         .start()
    ///         .await?;
    /// let mail = MessageBuilder::new()
    ///     .from("a@example.org")
    ///     .to("b@example.org")
    ///     .text_body("Gr\u{fc}\u{df}e.");
    /// Client::from_url(&server.url())?.send(mail).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn check_size(mut self, yes: bool) -> Self {
        self.settings.checks.size = yes;
        self
    }

    /// Listens on this port of the loopback interface instead of a free one. Has no effect at a
    /// Unix socket. Tests that run at the same time need a port each.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// use envoi::testing::Server;
    ///
    /// // A server that is restarted while its clients remain.
    /// let server = Server::start().await?;
    /// let port = server.port();
    /// server.shutdown().await;
    /// let server = Server::builder().port(port).start().await?;
    /// assert_eq!(server.port(), port);
    /// # Ok(())
    /// # }
    /// ```
    pub fn port(mut self, port: u16) -> Self {
        self.settings.port = port;
        self
    }

    /// Listens at this address of the machine instead of `127.0.0.1`. The
    /// certificate must be for that address to be verified, see
    /// [`certificate_names`](Self::certificate_names).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// use envoi::testing::Server;
    ///
    /// # #[cfg(target_os = "linux")] {
    /// let server = Server::builder().address([127, 0, 1, 10]).start().await?;
    /// assert_eq!(server.host(), "127.0.1.10");
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    pub fn address(mut self, address: impl Into<IpAddr>) -> Self {
        self.settings.address = address.into();
        self
    }

    /// Presents this chain, in PEM, of which the first certificate is the server's own, instead of
    /// a certificate that the server generates. The second text is its private key, in PEM, too.
    /// [`Server::ca_pem`], which the server's URL trusts, is the last of the chain.
    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    pub fn certificate_pem(mut self, chain: impl Into<String>, key: impl Into<String>) -> Self {
        self.settings.certificate_pem = Some((chain.into(), key.into()));
        self
    }

    /// Makes the certificate valid for these names and IP addresses instead of `localhost`,
    /// `127.0.0.1` and `::1`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use envoi::{Client, ErrorKind, testing::Server};
    ///
    /// let builder = Server::builder().certificate_names(["mail.example.org"]);
    /// let server = builder.start().await?;
    /// let error = Client::from_url(&server.url())?.connect().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Tls);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    pub fn certificate_names<S: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = S>,
    ) -> Self {
        self.settings.certificate_names = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the time at which the certificate expires, with seconds as its unit, which may have
    /// passed. By default it does not expire in practice.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::{Duration, SystemTime};
    ///
    /// use envoi::{Client, ErrorKind, testing::Server};
    ///
    /// let yesterday = SystemTime::now() - Duration::from_secs(24 * 60 * 60);
    /// let builder = Server::builder().certificate_valid_until(yesterday);
    /// let server = builder.start().await?;
    /// let error = Client::from_url(&server.url())?.connect().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Tls);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    pub fn certificate_valid_until(mut self, time: SystemTime) -> Self {
        self.settings.certificate_valid_until = Some(time);
        self
    }

    /// Discards the contents of messages and keeps only their size. For benchmarks.
    pub fn discard(mut self, yes: bool) -> Self {
        self.settings.discard = yes;
        self
    }

    /// Starts the server on the current runtime, which must have tokio's I/O enabled.
    ///
    /// # Errors
    ///
    /// The temporary folder cannot be created, or the server cannot bind to its address and port; a
    /// name or the expiry of the certificate is not valid, or its key is of another;
    /// [`Unsupported`](io::ErrorKind::Unsupported) if the server does not implement a mechanism, or
    /// this build lacks a feature that is needed: `aws-lc-rs` or `ring` for TLS, the feature of a
    /// [mechanism](Self::mechanisms).
    pub async fn start(self) -> io::Result<Server> {
        self.check_mechanisms()?;
        let folder = tempfile::Builder::new().prefix("envoi-").tempdir()?;
        let identity = self.identity()?;
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, &identity.ca_pem)?;

        let socket = self
            .settings
            .uses_socket
            .then(|| folder.path().join("lmtp.sock"));
        let (listener, port) = match &socket {
            #[cfg(unix)]
            Some(path) => (BoundListener::Unix(UnixListener::bind(path)?), 0),
            _ => {
                let listener =
                    TcpListener::bind((self.settings.address, self.settings.port)).await?;
                let port = listener.local_addr()?.port();
                (BoundListener::Tcp(listener), port)
            }
        };
        let host = match self.settings.address {
            IpAddr::V4(Ipv4Addr::LOCALHOST) => "localhost".to_owned(),
            address => address.to_string(),
        };
        let shared = Arc::new(Shared {
            settings: self.settings,
            identity,
            folder: Arc::new(folder),
            log: Mutex::default(),
            faults: Mutex::new(self.faults),
            arrivals: Arrivals::default(),
        });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Ok(Server {
            shared,
            host,
            task,
            port,
            socket,
            ca_file,
        })
    }

    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    fn identity(&self) -> io::Result<Identity> {
        if let Some((chain, key)) = &self.settings.certificate_pem {
            return Identity::from_pem(chain, key);
        }
        let names = self.settings.certificate_names.clone();
        Identity::new(names, self.settings.certificate_valid_until)
    }

    #[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
    fn identity(&self) -> io::Result<Identity> {
        match self.settings.security {
            Security::Plaintext => Ok(Identity::default()),
            _ => Identity::localhost(),
        }
    }

    /// Checks that the server can handle each mechanism that it is to offer.
    fn check_mechanisms(&self) -> io::Result<()> {
        let mut mechanisms = self.settings.mechanisms.iter().copied();
        let Some(mechanism) = mechanisms.find(|mechanism| !auth::is_handled(*mechanism)) else {
            return Ok(());
        };
        let message = match mechanism.missing_feature() {
            Some(feature) => format!("a server with {mechanism} needs envoi's feature `{feature}`"),
            None => format!("the server for tests does not implement {mechanism}"),
        };
        Err(io::Error::new(io::ErrorKind::Unsupported, message))
    }
}
