//! The settings for connections to a server.

use std::net::IpAddr;
#[cfg(unix)]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::connectors::Connectors;
use crate::config::login::{LoginSettings, PasswordFile};
use crate::config::settings::Settings;
use crate::config::token::{TokenRequest, TokenSource};
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::idna;
use crate::proto::{
    ClientName, ClientNameError, Limits, Mechanism, Protocol, SaslExchange, SaslFailure,
};
use crate::telemetry::Host;
use crate::text::{printable, quoted};
use crate::tls::{
    ClientCertificate, Connector, Security, TlsSettings, Trust, TrustSummary, VerifyMode,
};
use crate::transport::{Destination, Route, SocketOptions};
#[cfg(feature = "proxy")]
use crate::transport::{Proxy, ProxyHeader};
use crate::{Credentials, Secret, SendWindow, Timeouts};

/// A server and the settings for connections to it. Cheap to clone. All endpoints of the process
/// with equal [TLS settings](TlsSettings#sharing) share the trust store and the TLS sessions.
///
/// ```
/// use envoi::tls::Security;
/// use envoi::{Credentials, Endpoint};
///
/// // STARTTLS on port 587, the usual way for programs:
/// let submission = Endpoint::new("mail.example.org")
///     .credentials(Credentials::new("alice@example.org", "secret"));
/// assert_eq!(submission.get_port(), 587);
/// // TLS from the first byte:
/// let implicit = Endpoint::new("mail.example.org").security(Security::Implicit);
/// assert_eq!(implicit.get_port(), 465);
/// ```
#[derive(Clone)]
#[must_use = "a method returns the changed value"]
pub struct Endpoint {
    pub(crate) protocol: Protocol,
    pub(crate) host: String,
    /// The name of the server in receipts, spans and metrics.
    pub(crate) server: Host,
    /// The address to connect to, instead of host and port.
    local: Option<Destination>,
    /// The server is one of the recipients' domain, by its MX records.
    pub(crate) is_mx: bool,
    pub(crate) port: Option<u16>,
    pub(crate) route: Route,
    pub(crate) security: Security,
    pub(crate) tls: Arc<Connectors>,
    pub(crate) client_name: Option<Result<ClientName, ClientNameError>>,
    pub(crate) login: LoginSettings,
    pub(crate) auth_in_clear: bool,
    pub(crate) all_or_nothing: bool,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    pub(crate) check_after_idle: Duration,
    pub(crate) send_window: SendWindow,
}

impl Endpoint {
    /// Creates an endpoint from a URL:
    ///
    /// | URL | means |
    /// |---|---|
    /// | `smtp://user:password@host:587` | STARTTLS required; the port may be left out |
    /// | `smtps://user:password@host:465` | TLS from the first byte; the port may be left out |
    /// | `smtp://host:25?tls=opportunistic` | TLS if it works, else plaintext (see the receipt) |
    /// | `smtp://host:25?tls=none` | never TLS |
    /// | `lmtp://host:24` | [LMTP](Self::lmtp), TLS only if `?tls=` requests it; optional port |
    /// | `lmtp+unix:///run/dovecot/lmtp` | [LMTP at a Unix socket](Self::lmtp_unix) |
    ///
    /// User, password, host and path are percent-encoded; an IPv6 address is in brackets. The keys
    /// after the `?` are `tls`, `auth` (a mechanism, or several in order of preference, separated
    /// by commas), `auth-in-clear=yes`, `helo`, `trust` (a file of certificates, a key store or a
    /// folder; may be repeated), `trust-password-file` (the file with the key stores' password),
    /// `pin` (the SHA-256 of the server's public key: checked in addition to `trust`, or, without
    /// it, the only check), `server-name`, `min-tls`, `max-tls` (1.2 or 1.3), `client-cert`,
    /// `client-key` and `client-password-file` (the [client certificate](ClientCertificate)),
    /// `password-file` (the user's [password](Self::password_file)) and `timeout` (seconds, as
    /// [`Timeouts::uniform`]). [`Settings`](crate::Settings) have the same keys.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request): the URL is not valid, which includes an
    /// unknown key and one that is given twice. The URL is not quoted, as it may contain a
    /// password. No file is read yet.
    pub fn from_url(url: &str) -> Result<Self> {
        Settings::from_url(url)?.endpoint()
    }

    /// Creates an endpoint for a server by name (which may be non-ASCII) or address, with STARTTLS
    /// required on port 587, and without a login.
    pub fn new(host: impl Into<String>) -> Self {
        let host = idna::host(host.into());
        Endpoint {
            protocol: Protocol::Smtp,
            server: Host::new(&printable(&host)),
            host,
            local: None,
            is_mx: false,
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
            send_window: SendWindow::default(),
        }
    }

    /// Creates an endpoint for a server that accepts mail by LMTP (RFC 2033) and stores it in
    /// mailboxes, such as Dovecot: on port 24, without TLS unless [`security`](Self::security) is
    /// set afterwards.
    ///
    /// The server replies for each recipient after the message, and [`Outcome`](crate::Outcome) has
    /// the reply for each: a full mailbox does not prevent delivery to the others.
    ///
    /// ```
    /// use envoi::Endpoint;
    /// use envoi::tls::Security;
    ///
    /// assert_eq!(Endpoint::lmtp("mailbox.example.org").get_port(), 24);
    /// let protected = Endpoint::lmtp("mailbox.example.org").security(Security::Required);
    /// ```
    pub fn lmtp(host: impl Into<String>) -> Self {
        Endpoint {
            protocol: Protocol::Lmtp,
            security: Security::None,
            ..Endpoint::new(host)
        }
    }

    /// Creates an endpoint for a server that accepts mail by LMTP at a Unix socket of this machine.
    /// It has no port, and its certificate, if TLS is used, is verified against `localhost`.
    ///
    /// ```
    /// let endpoint = envoi::Endpoint::lmtp_unix("/run/dovecot/lmtp");
    /// ```
    #[cfg(unix)]
    pub fn lmtp_unix(socket: impl Into<PathBuf>) -> Self {
        let socket = Destination::Unix(socket.into());
        Endpoint {
            server: Host::new(&socket.to_string()),
            local: Some(socket),
            ..Endpoint::lmtp("localhost")
        }
    }

    /// Sets the port. The default is 24 for LMTP, 465 for implicit TLS, and 587 otherwise.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Connects from this local address. Servers of the other address family cannot be reached
    /// then, unless an address of that family is set by another call.
    ///
    /// ```
    /// let from: std::net::IpAddr = "192.0.2.1".parse().unwrap();
    /// let endpoint = envoi::Endpoint::new("mail.example.org").bind(from);
    /// ```
    pub fn bind(mut self, address: impl Into<IpAddr>) -> Self {
        self.route.tcp.bind(address.into());
        self
    }

    /// Sets the socket options of each connection.
    pub fn socket_options(mut self, options: SocketOptions) -> Self {
        self.route.tcp.options = options;
        self
    }

    /// Connects through a proxy. TLS is still between this program and the server, and so is the
    /// verification of the server's name. The server sees the client name `[127.0.0.1]`, unless a
    /// [name](Self::client_name) is set, as the local address means nothing to it.
    #[cfg(feature = "proxy")]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.route.proxy = Some(proxy);
        self
    }

    /// Begins each connection with a header of the PROXY protocol, for a server that expects one.
    #[cfg(feature = "proxy")]
    pub fn proxy_header(mut self, header: ProxyHeader) -> Self {
        self.route.header = Some(header);
        self
    }

    /// Sets whether and how TLS protects the connection.
    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// Sets the TLS settings: trust anchors, versions, and the name to verify.
    pub fn tls(mut self, tls: TlsSettings) -> Self {
        self.tls = Arc::new(Connectors::new(tls));
        self
    }

    /// Logs in after connecting.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.login.credentials = Some(credentials);
        self
    }

    /// Sets the user; the [password](Self::password) is set separately.
    /// [Credentials](Self::credentials) override both.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.login.user = Some(user.into());
        self
    }

    /// Sets the password of the [user](Self::user), which may also be given in the URL. It is used
    /// as a token if only OAUTHBEARER or XOAUTH2 is [allowed](Self::mechanism).
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.login.password = Some(password.into());
        self.login.password_file = None;
        self
    }

    /// Reads the password of the [user](Self::user) from a file at each login, so that a new
    /// password takes effect without a restart. It replaces a [password](Self::password). The
    /// format of the file is that of [`Secret::from_file`].
    ///
    /// Logging in fails with [`ErrorKind::Config`] if the file cannot be read, or is empty.
    ///
    /// ```
    /// let endpoint = envoi::Endpoint::new("mail.example.org")
    ///     .user("alice@example.org")
    ///     .password_file("/run/secrets/smtp-password");
    /// ```
    pub fn password_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.login.password_file = Some(PasswordFile::new(path.into()));
        self.login.password = None;
        self
    }

    /// Logs the [user](Self::user) in with an OAuth 2 token from this function. It is called at
    /// each login, and once more if the server does not accept the token, as when it has expired.
    ///
    /// ```
    /// use envoi::{Endpoint, TokenRequest};
    ///
    /// async fn token(request: TokenRequest) -> Result<String, std::io::Error> {
    ///     match request {
    ///         TokenRequest::Fresh => Ok("a new one from the identity provider".into()),
    ///         _ => Ok("a cached token that is still valid".into()),
    ///     }
    /// }
    ///
    /// let endpoint = Endpoint::new("smtp.example.org")
    ///     .user("alice@example.org")
    ///     .token_source(token);
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

    /// Logs in with a SASL mechanism that the caller implements: this function returns an exchange
    /// for each connection.
    pub fn login_with<X: SaslExchange + 'static>(
        mut self,
        exchange: impl Fn() -> X + Send + Sync + 'static,
    ) -> Self {
        self.login.exchanges = Some(Arc::new(move || Box::new(exchange())));
        self
    }

    /// Sets the trust anchors. Pinned keys stay pinned, and the other TLS settings do not change.
    pub fn trust(self, trust: Trust) -> Self {
        self.map_trust(|before| trust.with_pins_of(&before))
    }

    /// Trusts the system's store too.
    pub fn system_trust(self) -> Self {
        self.map_trust(Trust::with_system)
    }

    /// Requires the server to have this public key; see [`Trust::pin`].
    pub fn pin(self, hash: impl Into<String>) -> Self {
        self.map_trust(|trust| trust.pin(hash))
    }

    /// Sets the password of the key stores with the trust anchors.
    pub fn trust_password(self, password: impl Into<Secret>) -> Self {
        self.map_trust(|trust| trust.password(password))
    }

    /// Sets the file with the password of the key stores with the trust anchors; see
    /// [`Trust::password_file`].
    pub fn trust_password_file(self, path: impl Into<PathBuf>) -> Self {
        self.map_trust(|trust| trust.password_file(path))
    }

    /// Sets the certificate to present if the server requests one.
    pub fn client_certificate(self, certificate: ClientCertificate) -> Self {
        let tls = self.tls.settings.clone().client_certificate(certificate);
        self.tls(tls)
    }

    fn map_trust(self, change: impl FnOnce(Trust) -> Trust) -> Self {
        let tls = self.tls.settings.clone().map_trust(change);
        self.tls(tls)
    }

    /// Logs in with this mechanism only, instead of the best one that both sides support.
    pub fn mechanism(self, mechanism: Mechanism) -> Self {
        self.mechanisms([mechanism])
    }

    /// Logs in with one of these mechanisms: the first one that the server offers and that the
    /// credentials fit. Use it to change the order of [`Mechanism::ALL`], or to allow fewer.
    pub fn mechanisms(mut self, order: impl IntoIterator<Item = Mechanism>) -> Self {
        self.login.mechanisms = order.into_iter().collect();
        self
    }

    /// Allows credentials to be sent without TLS, where an eavesdropper can read them.
    pub fn auth_in_clear(mut self, yes: bool) -> Self {
        self.auth_in_clear = yes;
        self
    }

    /// Sets the client name for EHLO; the default is the local address, in brackets.
    /// A name that cannot stand there makes connecting fail with [`ErrorKind::Config`].
    ///
    /// ```
    /// let endpoint = envoi::Endpoint::new("mail.example.org").client_name("client.example.org");
    /// assert_eq!(endpoint.get_client_name().unwrap().as_str(), "client.example.org");
    /// ```
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = Some(ClientName::new(name));
        self
    }

    /// Sends a message to all of its recipients or to none. By default, a refused recipient does
    /// not prevent delivery to the others. The replies to RCPT decide: in LMTP, a recipient that
    /// the server refuses after the message does not revoke the delivery to the others.
    pub fn all_or_nothing(mut self, yes: bool) -> Self {
        self.all_or_nothing = yes;
        self
    }

    /// Sets the time-outs.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Sets a deadline for the whole call, including the message; the other
    /// [time-outs](Self::timeouts) do not change.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.timeouts.deadline = Some(deadline);
        self
    }

    /// Sets limits for what the server sends.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the idle time after which a connection, kept open by the caller or a pool, is checked:
    /// the next message starts with MAIL alone, and the rest follows when that is answered. 30
    /// seconds by default.
    ///
    /// A server, or a device in between such as NAT, may have dropped the connection without
    /// notice. A small message that is sent together with its commands (PIPELINING and CHUNKING)
    /// would be lost with an unknown outcome. With the check it is not sent, and a `Pool` sends it
    /// over a new connection. The check takes one round trip. [`Duration::ZERO`] checks before each
    /// message, [`Duration::MAX`] never.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let endpoint = envoi::Endpoint::new("mail.example.org")
    ///     .check_after_idle(Duration::from_secs(10));
    /// ```
    pub fn check_after_idle(mut self, idle: Duration) -> Self {
        self.check_after_idle = idle;
        self
    }

    /// Sets how many messages [`Connection::send_all`](crate::Connection::send_all) and
    /// `Pool::send_all` have in flight.
    ///
    /// ```
    /// let endpoint = envoi::Endpoint::new("mail.example.org").send_window(1_024);
    /// assert_eq!(endpoint.get_send_window().messages, 1_024);
    /// ```
    pub fn send_window(mut self, window: impl Into<SendWindow>) -> Self {
        self.send_window = window.into();
        self
    }

    /// The protocol: SMTP or LMTP.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The Unix socket to connect to, if there is one.
    #[cfg(unix)]
    pub fn socket(&self) -> Option<&Path> {
        match &self.local {
            Some(Destination::Unix(path)) => Some(path),
            _ => None,
        }
    }

    /// The address of the server.
    pub(crate) fn destination(&self) -> Destination {
        let host_and_port = || Destination::Host(self.host.clone(), self.get_port());
        self.local.clone().unwrap_or_else(host_and_port)
    }

    /// The settings of this endpoint for a server of a domain: a host at an address that was found
    /// for it, by SMTP, on the port between servers unless another was set, without a login.
    #[cfg(feature = "mx")]
    pub(crate) fn of_host(&self, host: &str, address: IpAddr) -> Self {
        let port = self.mx_port();
        Endpoint {
            protocol: Protocol::Smtp,
            host: host.to_owned(),
            server: Host::new(&printable(host)),
            local: Some(Destination::Address((address, port).into())),
            is_mx: true,
            port: Some(port),
            login: LoginSettings::default(),
            ..self.clone()
        }
    }

    /// The port between servers, unless another was set.
    #[cfg(feature = "mx")]
    pub(crate) fn mx_port(&self) -> u16 {
        self.port.unwrap_or(25)
    }

    /// The name of the server in receipts.
    pub(crate) fn server_name(&self) -> String {
        self.server.name().to_owned()
    }

    /// The host; a non-ASCII name as A-labels (`xn--…`); `localhost` for a socket.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port to connect to.
    pub fn get_port(&self) -> u16 {
        self.port.unwrap_or(match (self.protocol, self.security) {
            (Protocol::Lmtp, _) => 24,
            (Protocol::Smtp, Security::Implicit) => 465,
            (Protocol::Smtp, _) => 587,
        })
    }

    /// Whether and how TLS protects the connection.
    pub fn get_security(&self) -> Security {
        self.security
    }

    /// The TLS settings.
    pub fn get_tls(&self) -> &TlsSettings {
        &self.tls.settings
    }

    /// The name that this client gives itself in EHLO, if one was set that can stand there.
    pub fn get_client_name(&self) -> Option<&ClientName> {
        self.client_name.as_ref()?.as_ref().ok()
    }

    /// The mechanisms that a login may use, in their order; empty for any.
    pub fn get_mechanisms(&self) -> &[Mechanism] {
        &self.login.mechanisms
    }

    /// Whether the credentials may cross the network without protection.
    pub fn get_auth_in_clear(&self) -> bool {
        self.auth_in_clear
    }

    /// Whether a message goes to all of its recipients or to none.
    pub fn get_all_or_nothing(&self) -> bool {
        self.all_or_nothing
    }

    /// The time limits.
    pub fn get_timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// The bounds on what the server sends.
    pub fn get_limits(&self) -> &Limits {
        &self.limits
    }

    /// The idle time after which a message begins with MAIL alone.
    pub fn get_check_after_idle(&self) -> Duration {
        self.check_after_idle
    }

    /// How many messages are in flight at once.
    pub fn get_send_window(&self) -> SendWindow {
        self.send_window
    }

    /// The options of the sockets.
    pub fn get_socket_options(&self) -> &SocketOptions {
        &self.route.tcp.options
    }

    /// The proxy.
    #[cfg(feature = "proxy")]
    pub fn get_proxy(&self) -> Option<&Proxy> {
        self.route.proxy.as_ref()
    }

    /// Checks what can be checked before connecting.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_host()?;
        if self.port == Some(0) {
            return Err(
                Error::request("the port is 0, which is not a port of a server")
                    .with_hint("Give a port from 1 to 65535, or leave it out."),
            );
        }
        let destination = self.destination();
        if self.port.is_some() && !destination.has_port() {
            let message = format!("{destination} has no TCP port, and one was set");
            return Err(Error::request(message).with_hint("Leave the port out."));
        }
        self.route.check(&destination)?;
        if self.security == Security::None && self.tls.settings.demands_key() {
            let given = match self.tls.settings.has_dane() {
                true => "TLSA records are given",
                false => "a key is pinned",
            };
            let message =
                format!("{given}, and TLS is switched off, so that the server shows no key");
            return Err(Error::request(message).with_hint(
                "Leave that out; or have TLS used (tls=required in the URL, or \
                    Security::Required).",
            ));
        }
        if self.tls.settings.has_dane() && self.tls.settings.has_own_config() {
            let message = "TLSA records are given, and a rustls configuration does not verify them";
            return Err(Error::request(message)
                .with_hint("Leave out TlsSettings::rustls_config, or do without DANE."));
        }
        if let Some(Err(error)) = &self.client_name {
            return Err(
                Error::new(ErrorKind::Config, Phase::Setup, error.to_string())
                    .with_hint("Give up to 255 printable ASCII characters without a blank.")
                    .with_source(error.clone()),
            );
        }
        self.login.check()
    }

    fn check_host(&self) -> Result<()> {
        let host = self.host.as_str();
        let fine = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if !host.is_empty() && host.chars().all(fine) || idna::is_ipv6(host) {
            return Ok(());
        }
        // It may be the part of a URL with the password.
        if host.contains(['@', '/']) {
            return Err(
                Error::request("the host is not a name or an IP address").with_hint(
                    "Give a name such as mail.example.org; a URL is read by Endpoint::from_url.",
                ),
            );
        }
        let hint = match host.rsplit_once(':') {
            Some((name, port)) if name.chars().all(fine) && port.parse::<u16>().is_ok() => {
                "Give the port apart from the host (Endpoint::port)."
            }
            _ if !host.is_ascii() && cfg!(not(feature = "idna")) => {
                "Build envoi with its feature `idna`, or give the name in ASCII (xn--…)."
            }
            _ => "Give a name such as mail.example.org, or an IP address.",
        };
        Err(Error::request(format!("{} is not a valid host name", quoted(host))).with_hint(hint))
    }

    /// Whether the endpoint has credentials or the key of the server: opportunistic TLS is verified
    /// then, and does not fall back.
    pub(crate) fn demands_trust(&self) -> bool {
        self.security != Security::Opportunistic
            || self.login.is_given()
            || self.tls.settings.demands_key()
    }

    fn verify_mode(&self) -> VerifyMode {
        match self.demands_trust() {
            true => VerifyMode::Verified,
            false => VerifyMode::Reported,
        }
    }

    /// The connector for the TLS handshakes of this endpoint. The trust store is read on first use.
    pub(crate) async fn connector(&self, until: std::time::Instant) -> Result<&Connector> {
        self.tls.get(self.verify_mode(), until).await
    }

    /// Reads the trust store again.
    pub(crate) async fn reload_trust(&self) -> Result<TrustSummary> {
        self.tls.reload(self.verify_mode()).await
    }
}

impl std::str::FromStr for Endpoint {
    type Err = Error;

    /// Reads a URL as [`from_url`](Self::from_url) does.
    fn from_str(url: &str) -> Result<Self> {
        Endpoint::from_url(url)
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

    #[test]
    fn hosts_and_ports_are_checked_before_connecting() {
        for host in [
            "mail.example.org",
            "192.0.2.1",
            "::1",
            "fe80::1%eth0",
            "_a.b",
        ] {
            assert!(Endpoint::new(host).check().is_ok(), "{host}");
        }
        for (endpoint, says) in [
            (
                Endpoint::new("h:25"),
                "\"h:25\" is not a valid host name. Give the port apart",
            ),
            (Endpoint::new("h").port(0), "the port is 0"),
            (Endpoint::new(""), "is not a valid host name"),
            (Endpoint::new("a b"), "is not a valid host name"),
            (Endpoint::new("fe80::1%a b"), "is not a valid host name"),
            (
                Endpoint::new("alice:secret@h"),
                "is not a name or an IP address",
            ),
            (Endpoint::new("smtp://alice:secret@h"), "Endpoint::from_url"),
            #[cfg(unix)]
            (
                Endpoint::lmtp_unix("/run/lmtp").port(25),
                "/run/lmtp has no TCP port, and one was",
            ),
            #[cfg(unix)]
            (
                Endpoint::lmtp_unix("/run/lmtp").bind([127, 0, 0, 1]),
                "cannot be connected to from an IP address",
            ),
        ] {
            let error = endpoint.check().unwrap_err();
            assert!(error.kind() == ErrorKind::Request && error.is_permanent());
            let text = error.to_string();
            assert!(text.contains(says) && !text.contains("secret"), "{text}");
        }
        #[cfg(not(feature = "idna"))]
        {
            let error = Endpoint::new("b\u{fc}cher.example").check().unwrap_err();
            assert!(error.hint().unwrap().contains("`idna`"), "{error}");
        }
    }

    /// The message of the error, if the trust anchors of the endpoint cannot be loaded.
    async fn failure(endpoint: &Endpoint) -> Option<String> {
        let connector = endpoint.connector(file::time_limit()).await;
        connector.err().map(|error| error.message().to_owned())
    }

    #[tokio::test]
    async fn a_setting_never_leaves_a_connector_of_other_settings() {
        // There is no trust anchor, which is an error only if the server must be verified.
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
        // Settings that need no other connector share it, and so the sessions to resume.
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
