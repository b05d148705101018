//! Where a server is, and how to talk with it: the settings that a connection is made with.

use std::net::IpAddr;
#[cfg(unix)]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::connectors::Connectors;
use crate::config::login::LoginSettings;
use crate::config::token::{TokenRequest, TokenSource};
use crate::error::{Error, Result};
use crate::idna;
use crate::proto::{ClientName, Limits, Mechanism, Protocol, SaslExchange, SaslFailure};
use crate::text::{printable, quoted};
use crate::tls::{
    ClientCertificate, Connector, Security, TlsSettings, Trust, TrustSummary, VerifyMode,
};
use crate::transport::{Destination, Route, SocketOptions};
#[cfg(feature = "proxy")]
use crate::transport::{Proxy, ProxyHeader};
use crate::{Credentials, Secret, Timeouts};

/// A server and how to talk with it. Cheap to clone; clones share the trust store, which is read
/// once, and the TLS sessions.
///
/// ```
/// use envoi::tls::Security;
/// use envoi::{Credentials, Endpoint};
///
/// // STARTTLS on port 587, the usual way for programs:
/// let submission = Endpoint::new("mail.example.org")
///     .credentials(Credentials::new("alice@example.org", "secret"));
/// assert_eq!(submission.port_number(), 587);
/// // TLS from the first byte:
/// let implicit = Endpoint::new("mail.example.org").security(Security::Implicit);
/// assert_eq!(implicit.port_number(), 465);
/// ```
#[derive(Clone)]
#[must_use = "a method returns the changed value"]
pub struct Endpoint {
    pub(crate) protocol: Protocol,
    pub(crate) host: String,
    /// Where to connect to in place of host and port.
    local: Option<Destination>,
    pub(crate) port: Option<u16>,
    pub(crate) route: Route,
    pub(crate) security: Security,
    pub(crate) tls: Arc<Connectors>,
    pub(crate) client_name: Option<ClientName>,
    pub(crate) login: LoginSettings,
    pub(crate) auth_in_clear: bool,
    pub(crate) all_or_nothing: bool,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    pub(crate) check_after_idle: Duration,
}

impl Endpoint {
    /// A server from a URL:
    ///
    /// | URL | means |
    /// |---|---|
    /// | `smtp://user:password@host:587` | STARTTLS required; the port may be left out |
    /// | `smtps://user:password@host:465` | TLS from the first byte; the port may be left out |
    /// | `smtp://host:25?tls=opportunistic` | TLS when it works, else plaintext, said in the receipt |
    /// | `smtp://host:25?tls=none` | never TLS |
    /// | `lmtp://host:24` | [LMTP](Self::lmtp), without TLS unless `?tls=` asks for it; the port may be left out |
    /// | `lmtp+unix:///run/dovecot/lmtp` | [LMTP over a Unix socket](Self::lmtp_unix); the path is percent-encoded |
    ///
    /// User, password and host are percent-encoded; an IPv6 address stands in brackets. The keys
    /// behind the `?` are `tls`, `auth` (a mechanism, or several in order with commas between),
    /// `auth-in-clear=yes`, `helo`, `trust` (a file of certificates, a key store or a folder; may
    /// be repeated), `trust-password-file` (the file with the key stores' password), `pin` (the
    /// SHA-256 of the server's public key: on top of `trust`, or, without it, all that counts),
    /// `server-name`, `min-tls`, `max-tls` (1.2 or 1.3) and `timeout` (seconds, as
    /// [`Timeouts::uniform`]).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request), with what is wrong: an unknown key too,
    /// and one given twice. The URL is not quoted, as it may hold a password. No file is read yet.
    pub fn from_url(url: &str) -> Result<Self> {
        crate::config::url::parse(url)
    }

    /// A server by name (beyond ASCII, too) or address, with STARTTLS required on port 587, and no
    /// login.
    pub fn new(host: impl Into<String>) -> Self {
        Endpoint {
            protocol: Protocol::Smtp,
            host: idna::host(host.into()),
            local: None,
            port: None,
            route: Route::default(),
            security: Security::default(),
            tls: Arc::new(Connectors::new(TlsSettings::default())),
            client_name: None,
            login: LoginSettings::default(),
            auth_in_clear: false,
            all_or_nothing: false,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            check_after_idle: Duration::from_secs(30),
        }
    }

    /// A server that takes mail by LMTP (RFC 2033) and puts it into mailboxes, such as Dovecot: on
    /// port 24, without TLS unless [`security`](Self::security) asks for it afterwards.
    ///
    /// After a message the server answers for each recipient, and [`Outcome`](crate::Outcome) has
    /// each one's own answer: one whose mailbox is full does not keep the message from the others.
    ///
    /// ```
    /// use envoi::Endpoint;
    /// use envoi::tls::Security;
    ///
    /// assert_eq!(Endpoint::lmtp("mailbox.example.org").port_number(), 24);
    /// let protected = Endpoint::lmtp("mailbox.example.org").security(Security::Required);
    /// ```
    pub fn lmtp(host: impl Into<String>) -> Self {
        Endpoint {
            protocol: Protocol::Lmtp,
            security: Security::None,
            ..Endpoint::new(host)
        }
    }

    /// A server that takes mail by LMTP at a Unix socket of this machine. It has no port, and its
    /// certificate, if it is asked for one, is one for `localhost`.
    ///
    /// ```
    /// let endpoint = envoi::Endpoint::lmtp_unix("/run/dovecot/lmtp");
    /// ```
    #[cfg(unix)]
    pub fn lmtp_unix(socket: impl Into<PathBuf>) -> Self {
        Endpoint {
            local: Some(Destination::Unix(socket.into())),
            ..Endpoint::lmtp("localhost")
        }
    }

    /// Another port than the usual one, which is 24 for LMTP, 465 for implicit TLS, else 587.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Connect from this address of the machine, which has several. Servers of the other family are
    /// out of reach then, unless an address of that family is given as well, by another call.
    ///
    /// ```
    /// let from: std::net::IpAddr = "192.0.2.1".parse().unwrap();
    /// let endpoint = envoi::Endpoint::new("mail.example.org").bind(from);
    /// ```
    pub fn bind(mut self, address: impl Into<IpAddr>) -> Self {
        self.route.tcp.bind(address.into());
        self
    }

    /// What the operating system is told about each connection.
    pub fn socket_options(mut self, options: SocketOptions) -> Self {
        self.route.tcp.options = options;
        self
    }

    /// Connect through a proxy. TLS is between this program and the server all the same, and so is
    /// its check of the server's name. To the server this client is `[127.0.0.1]` then, unless it
    /// has a [name](Self::client_name): its address means nothing there.
    #[cfg(feature = "proxy")]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.route.proxy = Some(proxy);
        self
    }

    /// Begin each connection with a header of the PROXY protocol, for a server that expects one.
    #[cfg(feature = "proxy")]
    pub fn proxy_header(mut self, header: ProxyHeader) -> Self {
        self.route.header = Some(header);
        self
    }

    /// Whether and how TLS protects the connection.
    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// Whom to trust, which versions of TLS, under which name.
    pub fn tls(mut self, tls: TlsSettings) -> Self {
        self.tls = Arc::new(Connectors::new(tls));
        self
    }

    /// Log in after connecting.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.login.credentials = Some(credentials);
        self
    }

    /// Who logs in; the [password](Self::password) comes apart. [Credentials](Self::credentials) go
    /// before both.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.login.user = Some(user.into());
        self
    }

    /// The password of the [user](Self::user), who may be named in the URL; it is taken for a token
    /// where only OAUTHBEARER or XOAUTH2 is [allowed](Self::mechanism).
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.login.password = Some(password.into());
        self
    }

    /// Log the [user](Self::user) in with a token of OAuth 2 that this function gives. It is asked
    /// at each login, and once more where the server does not accept the token, as it does when
    /// that has expired.
    ///
    /// ```
    /// use envoi::{Endpoint, TokenRequest};
    ///
    /// async fn token(request: TokenRequest) -> Result<String, std::io::Error> {
    ///     match request {
    ///         TokenRequest::Current => Ok("the one in the cache, if it is good for some minutes".into()),
    ///         TokenRequest::Fresh => Ok("a new one from the identity provider".into()),
    ///     }
    /// }
    ///
    /// let endpoint = Endpoint::new("smtp.example.org").user("alice@example.org").token_source(token);
    /// ```
    pub fn token_source<F, T, E>(
        mut self,
        source: impl Fn(TokenRequest) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Into<Secret>,
        E: Into<SaslFailure>,
    {
        self.login.tokens = Some(TokenSource::new(source));
        self
    }

    /// Log in by a mechanism of another maker: this function gives an exchange for each connection.
    pub fn login_with<X: SaslExchange + 'static>(
        mut self,
        exchange: impl Fn() -> X + Send + Sync + 'static,
    ) -> Self {
        self.login.exchanges = Some(Arc::new(move || Box::new(exchange())));
        self
    }

    /// Whom to trust, in place of what was set before. Pinned keys stay pinned, and the other TLS
    /// settings are as they were.
    pub fn trust(self, trust: Trust) -> Self {
        self.map_trust(|before| trust.with_pins_of(&before))
    }

    /// Trust the system's store, too.
    pub fn system_trust(self) -> Self {
        self.map_trust(Trust::with_system)
    }

    /// The server must have this public key; see [`Trust::pin`].
    pub fn pin(self, hash: impl Into<String>) -> Self {
        self.map_trust(|trust| trust.pin(hash))
    }

    /// The password of the key stores that are trusted.
    pub fn trust_password(self, password: impl Into<Secret>) -> Self {
        self.map_trust(|trust| trust.password(password))
    }

    /// The file with the password of the key stores that are trusted; see [`Trust::password_file`].
    pub fn trust_password_file(self, path: impl Into<PathBuf>) -> Self {
        self.map_trust(|trust| trust.password_file(path))
    }

    /// The certificate to show to a server that asks for one.
    pub fn client_certificate(self, certificate: ClientCertificate) -> Self {
        let tls = self.tls.settings.clone().client_certificate(certificate);
        self.tls(tls)
    }

    fn map_trust(self, change: impl FnOnce(Trust) -> Trust) -> Self {
        let tls = self.tls.settings.clone().map_trust(change);
        self.tls(tls)
    }

    /// Log in with this mechanism alone, not with the best one that both sides know.
    pub fn mechanism(self, mechanism: Mechanism) -> Self {
        self.mechanisms([mechanism])
    }

    /// Log in with one of these mechanisms, the first one that the server offers and the
    /// credentials fit: another order than that of [`Mechanism::ALL`], or fewer.
    pub fn mechanisms(mut self, order: impl IntoIterator<Item = Mechanism>) -> Self {
        self.login.mechanisms = order.into_iter().collect();
        self
    }

    /// Let the credentials cross the network without protection: whoever listens has them then.
    pub fn auth_in_clear(mut self) -> Self {
        self.auth_in_clear = true;
        self
    }

    /// The name that this client gives itself in EHLO; by default its address, in brackets.
    pub fn client_name(mut self, name: ClientName) -> Self {
        self.client_name = Some(name);
        self
    }

    /// Send a message to all of its recipients or to none. By default a refused recipient does not
    /// keep the message from the others. It is the answer to RCPT that counts: in LMTP, a recipient
    /// that the server refuses behind the message does not take it from the others again.
    pub fn all_or_nothing(mut self) -> Self {
        self.all_or_nothing = true;
        self
    }

    /// Time limits.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// A limit for the whole call, the message included; the other [time limits](Self::timeouts)
    /// stay as they are.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.timeouts.deadline = Some(deadline);
        self
    }

    /// Bounds on what the server sends.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// On a connection that is kept, by the caller or a pool, and was idle for so long, a message
    /// begins with MAIL alone, and the rest follows when that is answered; 30 seconds by default.
    ///
    /// A server, or a device in between such as NAT, may have forgotten the connection without a
    /// sign. A small message that goes with its commands in one flight (PIPELINING and CHUNKING)
    /// would be lost there with an unknown outcome; so it is not sent, and a `Pool` sends it over a
    /// new connection. It costs one round trip. [`Duration::ZERO`] asks so before each message,
    /// [`Duration::MAX`] never.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let endpoint = envoi::Endpoint::new("mail.example.org").check_after_idle(Duration::from_secs(10));
    /// ```
    pub fn check_after_idle(mut self, idle: Duration) -> Self {
        self.check_after_idle = idle;
        self
    }

    /// SMTP or LMTP.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The Unix socket that is connected to, if the server is at one.
    #[cfg(unix)]
    pub fn socket(&self) -> Option<&Path> {
        match &self.local {
            Some(Destination::Unix(path)) => Some(path),
            _ => None,
        }
    }

    /// Where the server is.
    pub(crate) fn destination(&self) -> Destination {
        let host_and_port = || Destination::Host(self.host.clone(), self.port_number());
        self.local.clone().unwrap_or_else(host_and_port)
    }

    /// The name of the server in receipts.
    pub(crate) fn server_name(&self) -> String {
        match &self.local {
            Some(local) => local.to_string(),
            None => printable(self.host.as_str()),
        }
    }

    /// The host, of a name beyond ASCII the A-labels (`xn--…`); `localhost` for a socket.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port that is connected to.
    pub fn port_number(&self) -> u16 {
        self.port.unwrap_or(match (self.protocol, self.security) {
            (Protocol::Lmtp, _) => 24,
            (Protocol::Smtp, Security::Implicit) => 465,
            (Protocol::Smtp, _) => 587,
        })
    }

    /// What can be known to be wrong before anything is connected to.
    pub(crate) fn check(&self) -> Result<()> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        if self.host.is_empty() || !self.host.chars().all(fine) {
            return Err(
                Error::request(format!("{} cannot be a host name", quoted(&self.host)))
                    .with_hint("Give a name such as mail.example.org, or an IP address."),
            );
        }
        self.route.check(&self.destination())?;
        if self.security == Security::None && self.tls.settings.has_pins() {
            let message =
                "a key is pinned, and TLS is switched off, so that the server shows no key";
            return Err(Error::request(message).with_hint(
                "Leave the pin out; or have TLS used (tls=required in the URL, or \
                    Security::Required).",
            ));
        }
        self.login.check()
    }

    /// Credentials that must not be shown to just anybody, or a key that the server must have:
    /// opportunistic TLS is verified then, and does not fall back.
    pub(crate) fn demands_trust(&self) -> bool {
        self.security != Security::Opportunistic
            || self.login.is_given()
            || self.tls.settings.has_pins()
    }

    fn verify_mode(&self) -> VerifyMode {
        match self.demands_trust() {
            true => VerifyMode::Verified,
            false => VerifyMode::Reported,
        }
    }

    /// Makes the TLS handshakes of this endpoint. The trust store is read on first use.
    pub(crate) async fn connector(&self, until: std::time::Instant) -> Result<&Connector> {
        self.tls.get(self.verify_mode(), until).await
    }

    /// Reads the trust store again.
    pub(crate) async fn reload_trust(&self) -> Result<TrustSummary> {
        self.tls.reload(self.verify_mode()).await
    }
}

impl std::fmt::Debug for Endpoint {
    /// Without the credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("protocol", &self.protocol)
            .field("host", &self.host)
            .field("destination", &self.destination())
            .field("security", &self.security)
            .field("login", &self.login.is_given())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file;

    /// The message of the error, if the trust of the endpoint cannot be loaded.
    async fn failure(endpoint: &Endpoint) -> Option<String> {
        let connector = endpoint.connector(file::time_limit()).await;
        connector.err().map(|error| error.message().to_owned())
    }

    #[tokio::test]
    async fn a_setting_never_leaves_a_connector_of_other_settings() {
        // Nothing is trusted, which is an error only where the server must be verified.
        let endpoint = Endpoint::new("mail.example.org")
            .security(Security::Opportunistic)
            .trust(Trust::empty());
        assert_eq!(failure(&endpoint).await, None);
        let before = || endpoint.clone();
        for (setting, changed) in [
            ("security", before().security(Security::Required)),
            (
                "credentials",
                before().credentials(Credentials::new("u", "p")),
            ),
            ("user", before().user("u")),
            ("token_source", {
                let token = |_| async { Ok::<_, std::io::Error>("token") };
                before().token_source(token)
            }),
            ("mechanism", before().mechanism(Mechanism::External)),
            ("pin", before().trust(Trust::empty()).pin("not a hash")),
            ("trust", before().trust(Trust::empty().path("/nonexistent"))),
            (
                "trust, no file",
                before().trust_password_file("/nonexistent"),
            ),
            (
                "tls",
                before().tls(TlsSettings::default().server_name("not a name")),
            ),
            ("client certificate", {
                before().client_certificate(ClientCertificate::file("/nonexistent"))
            }),
        ] {
            assert!(failure(&changed).await.is_some(), "{setting}");
        }
        // What needs no other connector shares it, and so the sessions to resume.
        let limit = file::time_limit();
        let (same, password) = (before(), before().password("p"));
        let connector = endpoint.connector(limit).await.unwrap();
        for shared in [same, password] {
            assert!(std::ptr::eq(
                shared.connector(limit).await.unwrap(),
                connector
            ));
        }
    }
}
