//! Where a server is, and how to talk with it: the settings that a connection is made with.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::address::quoted;
use crate::error::{Error, Phase, Result};
use crate::proto::{ClientName, Limits, Mechanism};
use crate::tls::{ClientCertificate, Connector, Demand, Security, TlsSettings, Trust, TrustSummary};
use crate::{Credentials, Kind, Secret, Timeouts};

/// A server and how to talk with it. Cheap to clone; clones share the trust store, which is read once, and the TLS sessions.
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
pub struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) security: Security,
    pub(crate) tls: TlsSettings,
    pub(crate) client_name: Option<ClientName>,
    user: Option<String>,
    password: Option<Secret>,
    pub(crate) mechanism: Option<Mechanism>,
    pub(crate) auth_in_clear: bool,
    pub(crate) all_or_nothing: bool,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    /// Made from the settings above; a setting that it depends on puts a new one here.
    connector: Arc<OnceCell<Connector>>,
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
    ///
    /// User, password and host are percent-encoded; an IPv6 address stands in brackets. The keys behind the `?` are `tls`, `auth` (a mechanism),
    /// `auth-in-clear=yes`, `helo`, `trust` (a file of certificates, a key store or a folder; may be repeated), `trust-password-file` (the file with the key stores' password), `pin`
    /// (the SHA-256 of the server's public key: on top of `trust`, or, without it, all that counts), `server-name`, `min-tls`, `max-tls` (1.2 or 1.3) and `timeout`
    /// (seconds, as [`Timeouts::of`]).
    ///
    /// # Errors
    ///
    /// [`Kind::Request`], with what is wrong: an unknown key too, and one given twice. The URL is not quoted, as it may hold a password.
    pub fn from_url(url: &str) -> Result<Self> {
        crate::url::parse(url)
    }

    /// A server by name or address, with STARTTLS required on port 587, and no login.
    pub fn new(host: impl Into<String>) -> Self {
        Endpoint {
            host: host.into(),
            port: None,
            security: Security::default(),
            tls: TlsSettings::default(),
            client_name: None,
            user: None,
            password: None,
            mechanism: None,
            auth_in_clear: false,
            all_or_nothing: false,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            connector: Arc::default(),
        }
    }

    /// Another port than the usual one, which is 465 for implicit TLS, else 587.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Whether and how TLS protects the connection.
    #[must_use]
    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self.connector = Arc::default();
        self
    }

    /// Whom to trust, which versions of TLS, under which name.
    #[must_use]
    pub fn tls(mut self, tls: TlsSettings) -> Self {
        self.tls = tls;
        self.connector = Arc::default();
        self
    }

    /// Log in after connecting.
    #[must_use]
    pub fn credentials(self, credentials: Credentials) -> Self {
        let (user, password) = credentials.into_parts();
        self.user(user).password(password)
    }

    /// Who logs in; the [password](Self::password) comes apart.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self.connector = Arc::default();
        self
    }

    /// The password of the [user](Self::user), who may be named in the URL.
    #[must_use]
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Whom to trust, in place of what was set before. Pinned keys stay pinned, and the other TLS settings are as they were.
    #[must_use]
    pub fn trust(self, trust: Trust) -> Self {
        self.map_trust(|before| trust.with_pins_of(&before))
    }

    /// Trust the system's store, too.
    #[must_use]
    pub fn system_trust(self) -> Self {
        self.map_trust(Trust::with_system)
    }

    /// The server must have this public key; see [`Trust::pin`].
    #[must_use]
    pub fn pin(self, hash: impl Into<String>) -> Self {
        self.map_trust(|trust| trust.pin(hash))
    }

    /// The password of the key stores that are trusted.
    #[must_use]
    pub fn trust_password(self, password: impl Into<Secret>) -> Self {
        self.map_trust(|trust| trust.password(password))
    }

    /// The certificate to show to a server that asks for one.
    #[must_use]
    pub fn client_certificate(self, certificate: ClientCertificate) -> Self {
        let tls = self.tls.clone().client_certificate(certificate);
        self.tls(tls)
    }

    fn map_trust(self, change: impl FnOnce(Trust) -> Trust) -> Self {
        let tls = self.tls.clone().map_trust(change);
        self.tls(tls)
    }

    /// Log in with this mechanism alone, not with the best one that both sides know.
    #[must_use]
    pub fn mechanism(mut self, mechanism: Mechanism) -> Self {
        self.mechanism = Some(mechanism);
        self
    }

    /// Let the credentials cross the network without protection: whoever listens has them then.
    #[must_use]
    pub fn auth_in_clear(mut self) -> Self {
        self.auth_in_clear = true;
        self
    }

    /// The name that this client gives itself in EHLO; by default its address, in brackets.
    #[must_use]
    pub fn client_name(mut self, name: ClientName) -> Self {
        self.client_name = Some(name);
        self
    }

    /// Send a message to all of its recipients or to none. By default a refused recipient does not keep
    /// the message from the others.
    #[must_use]
    pub fn all_or_nothing(mut self) -> Self {
        self.all_or_nothing = true;
        self
    }

    /// Time limits.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// A limit for the whole call, the message included; the other [time limits](Self::timeouts) stay as they are.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.timeouts.deadline = Some(deadline);
        self
    }

    /// Bounds on what the server sends.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The host as it was given.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port that is connected to.
    pub fn port_number(&self) -> u16 {
        self.port.unwrap_or(match self.security {
            Security::Implicit => 465,
            _ => 587,
        })
    }

    /// What to log in with, if anything.
    ///
    /// # Errors
    ///
    /// A user without a password, or the reverse.
    pub(crate) fn login(&self) -> Result<Option<Credentials>> {
        match (&self.user, &self.password) {
            (Some(user), Some(password)) => Ok(Some(Credentials::new(user, password.clone()))),
            (None, None) => Ok(None),
            // The user is not named: with a colon that was encoded, the password is a part of it.
            (Some(_), None) => Err(Error::request("there is a user name and no password")
                .with_hint("Give one, or leave the user out to send without a login.")),
            (None, Some(_)) => Err(Error::request("there is a password and no user name")),
        }
    }

    /// What can be known to be wrong before anything is connected to.
    pub(crate) fn check(&self) -> Result<()> {
        let fine = |c: char| c.is_alphanumeric() || "-._:%".contains(c);
        if self.host.is_empty() || !self.host.chars().all(fine) {
            return Err(Error::request(format!("{} cannot be a host name", quoted(&self.host)))
                .with_hint("Give a name such as mail.example.org, or an IP address."));
        }
        self.login().map(|_| ())
    }

    /// Credentials that must not be shown to just anybody: opportunistic TLS is verified then, and does not fall back.
    pub(crate) fn demands_trust(&self) -> bool {
        self.security != Security::Opportunistic || self.user.is_some()
    }

    /// The trust store is read on first use, on a thread that may block.
    pub(crate) async fn connector(&self) -> Result<&Connector> {
        let load = || async {
            let settings = self.tls.clone();
            let demand = if self.demands_trust() { Demand::Verified } else { Demand::Reported };
            let loaded = tokio::task::spawn_blocking(move || Connector::new(&settings, demand)).await;
            loaded.map_err(|panic| {
                Error::new(Kind::Config, Phase::Setup, "the trust store could not be loaded").with_source(panic)
            })?
        };
        self.connector.get_or_try_init(load).await
    }

    /// Reads the trust store again, on a thread that may block.
    pub(crate) async fn reload_trust(&self) -> Result<TrustSummary> {
        let connector = self.connector().await?.clone();
        let loaded = tokio::task::spawn_blocking(move || connector.reload()).await;
        loaded.map_err(|panic| {
            Error::new(Kind::Config, Phase::Setup, "the trust store could not be loaded").with_source(panic)
        })?
    }
}

impl std::fmt::Debug for Endpoint {
    /// Without the credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("host", &self.host)
            .field("port", &self.port_number())
            .field("security", &self.security)
            .field("login", &self.user.is_some())
            .finish_non_exhaustive()
    }
}
