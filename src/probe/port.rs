//! Checks one port: how a session begins, what is offered, and which TLS versions are accepted.
//!
//! Each check that needs a connection of its own gets one, one after another: one in clear, one as
//! a client would use it, and one for the TLS version that was not negotiated.

use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::{Instant, timeout};

use super::{Port, PortSecurity, Timings, Version, preference};
use crate::connection::clock::Clock;
use crate::connection::{open, within};
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::proto::{ProtocolError, speaks_tls};
use crate::tls::{Connector, Security, TlsInfo, TlsVersion, TrustSummary, VerifyMode};
use crate::transport::{Connected, Destination, Stream};
use crate::{Connection, Endpoint, Timeouts};

/// The default time-out of a step: a diagnosis should not take as long as mail can wait.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// The time-out for connecting. A connection that is not established by then, after two SYN
/// retransmissions (RFC 6298), is being dropped by a firewall.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many of the server's first bytes are peeked at.
const FIRST_BYTES: usize = 8;

/// A stream whose first bytes can be peeked at.
type Peekable = BufReader<Box<dyn Stream>>;

fn peekable(stream: Box<dyn Stream>) -> Peekable {
    BufReader::with_capacity(FIRST_BYTES, stream)
}

/// What the checks of all ports share.
pub(super) struct Prober {
    /// With the time-outs of the probe.
    endpoint: Endpoint,
    /// With the TLS versions and everything else as in the endpoint. The handshake continues with
    /// any certificate and reports the verification result, so that the rest can be checked too.
    connector: Connector,
    /// For a single version each.
    single_version: Vec<(TlsVersion, Connector)>,
}

/// The result for a port, and a connection that is ready for a login.
pub(super) struct PortProbe {
    pub(super) port: Port,
    pub(super) connection: Option<Connection>,
}

impl Prober {
    pub(super) async fn new(endpoint: &Endpoint) -> Result<Self> {
        let mut endpoint = endpoint.clone();
        // Unusable credentials are reported before connecting.
        endpoint.login.chosen()?;
        endpoint.auth_in_clear = false;
        if endpoint.timeouts == Timeouts::default() {
            endpoint.timeouts = Timeouts::uniform(STEP_TIMEOUT);
            endpoint.timeouts.connect = CONNECT_TIMEOUT;
        }
        let limits = &mut endpoint.timeouts;
        limits.deadline = limits.deadline.or(limits.total_wait);
        let settings = endpoint.tls.settings.clone();
        let connectors = tokio::task::spawn_blocking(move || {
            // Loaded once for all versions: a FIFO can be read only once.
            let connector = Connector::new(&settings, VerifyMode::Reported)?.without_resumption();
            let mut single_version = Vec::new();
            if !settings.has_own_config() {
                for version in [TlsVersion::Tls13, TlsVersion::Tls12] {
                    single_version.push((
                        version,
                        connector
                            .with_versions(version, version)?
                            .without_resumption(),
                    ));
                }
            }
            Ok((connector, single_version))
        });
        let (connector, single_version) = connectors.await.unwrap_or_else(|panic| {
            Err(Error::new(
                ErrorKind::Config,
                Phase::Setup,
                "the trust store could not be loaded",
            )
            .with_source(panic))
        })?;
        Ok(Prober {
            endpoint,
            connector,
            single_version,
        })
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.endpoint.login.name()
    }

    pub(super) fn trusted(&self) -> TrustSummary {
        self.connector.trusted()
    }

    pub(super) async fn probe(&self, number: u16) -> PortProbe {
        let mut port = Port {
            number,
            address: None,
            speaks: None,
            greeting: None,
            before_tls: None,
            inside_tls: None,
            tls: None,
            versions: Vec::new(),
            login: None,
            timings: Timings::default(),
            failure: None,
        };
        let connection = match self.check(&mut port).await {
            Ok(connection) => connection,
            Err(error) => {
                port.failure = Some(error);
                None
            }
        };
        PortProbe { port, connection }
    }

    /// Fills in the results. Returns an error if the port cannot be used as the endpoint requires.
    async fn check(&self, port: &mut Port) -> Result<Option<Connection>> {
        let clock = Clock::start(&self.endpoint.timeouts);
        let began = Instant::now();
        let endpoint = self.endpoint.clone().port(port.number);
        let Connected {
            stream,
            peer,
            local_addr,
        } = open(&mut clock.clone(), &endpoint, &endpoint.destination()).await?;
        port.timings.connect = Some(began.elapsed());
        port.address = peer.address();
        let target = Target {
            prober: self,
            endpoint,
            peer,
            local_addr,
            clock,
        };

        let Some(stream) = target.detect_security(peekable(stream), port).await? else {
            port.speaks = Some(PortSecurity::Tls);
            return target.check_tls(port, Security::Implicit).await;
        };
        port.speaks = Some(PortSecurity::Plaintext);
        let session = target.session_over(stream, Security::None, None).await?;
        port.greeting = session.greeting().cloned();
        let offered = session.capabilities().clone();
        port.before_tls = Some(offered.clone());
        if offered.offers("STARTTLS") {
            session.quit().await;
            return target.check_tls(port, Security::Required).await;
        }
        port.timings.ready = Some(began.elapsed());
        if self.requires_tls() {
            session.quit().await;
            let greeting = port.greeting.as_ref();
            let missing = ProtocolError::starttls_not_offered(
                &offered,
                greeting,
                Some(port.number),
                self.endpoint.protocol,
            );
            return Err(self.plaintext_error(missing.into()));
        }
        Ok(Some(session))
    }

    /// Logs in on the ports that have a connection, the best one first. After a refused login no
    /// other port is tried: with a wrong password, each attempt may bring the account closer to
    /// being locked.
    pub(super) async fn log_in(&self, probes: &mut [PortProbe]) {
        if !self.endpoint.login.is_given() {
            return;
        }
        let mut order: Vec<&mut PortProbe> = probes.iter_mut().collect();
        order.sort_by_key(|probe| std::cmp::Reverse(preference(probe.port.number)));
        let mut refused_on = None;
        for PortProbe { port, connection } in order {
            let Some(connection) = connection else {
                continue;
            };
            if let Some(number) = refused_on {
                let message =
                    format!("the login was not tried here: it was refused on port {number}");
                let error = Error::new(ErrorKind::Auth, Phase::Auth, message);
                port.failure = Some(
                    error.with_hint("Too many failed logins lock the account at some servers."),
                );
                continue;
            }
            let began = Instant::now();
            match connection.log_in(&self.endpoint).await {
                Ok(()) => {
                    port.login = connection.mechanism();
                    port.timings.login = Some(began.elapsed());
                }
                Err(error) => {
                    refused_on = error.reply().map(|_| port.number);
                    port.failure = Some(error);
                }
            }
        }
    }

    /// Whether verified TLS is required, which it always is with credentials.
    fn requires_tls(&self) -> bool {
        self.endpoint.login.is_given()
            || !matches!(
                self.endpoint.security,
                Security::None | Security::Opportunistic
            )
    }

    /// The error for a port where plaintext is not sufficient.
    fn plaintext_error(&self, starttls_missing: Error) -> Error {
        if self.endpoint.security != Security::None {
            return starttls_missing;
        }
        let message = "the login was not tried: the server offers no TLS, and the password would \
            cross the network in clear";
        Error::new(ErrorKind::Insecure, Phase::Auth, message).with_hint_if(starttls_missing.hint())
    }
}

/// One port at the address that accepted the connection.
struct Target<'a> {
    prober: &'a Prober,
    /// With the port that is checked.
    endpoint: Endpoint,
    peer: Destination,
    local_addr: Option<IpAddr>,
    /// Its deadline applies to all connections together.
    clock: Clock,
}

impl Target<'_> {
    /// Checks the port inside TLS. Returns the connection if it meets the requirements.
    async fn check_tls(&self, port: &mut Port, security: Security) -> Result<Option<Connection>> {
        let began = Instant::now();
        let outcome = self.session(security, &self.prober.connector).await;
        match &outcome {
            Ok(session) => {
                port.timings.ready = Some(began.elapsed());
                port.record(session);
            }
            Err(error) => port.tls = tls_info(error).cloned(),
        }
        self.try_versions(port, security).await;
        port.timings.tls = port.tls.as_ref().map(|tls| tls.handshake_duration);

        let verify_failure = port
            .tls
            .as_ref()
            .and_then(|tls| tls.not_verified_reason.clone());
        match (outcome, verify_failure) {
            (Ok(session), Some(failure)) if self.prober.requires_tls() => {
                session.quit().await;
                Err(failure.into_error())
            }
            (Ok(session), _) => Ok(Some(session)),
            // The plaintext connection before was sufficient.
            (Err(_), _) if port.before_tls.is_some() && !self.prober.requires_tls() => Ok(None),
            (Err(error), _) => Err(error),
        }
    }

    /// Tries each version separately, except the one that was negotiated before.
    async fn try_versions(&self, port: &mut Port, security: Security) {
        for (version, connector) in &self.prober.single_version {
            let chosen = port
                .tls
                .as_ref()
                .is_some_and(|tls| tls.version == version.to_string());
            let failure = if chosen {
                None
            } else {
                self.try_version(port, security, connector).await.err()
            };
            port.versions.push(Version {
                version: *version,
                failure,
            });
        }
    }

    async fn try_version(
        &self,
        port: &mut Port,
        security: Security,
        connector: &Connector,
    ) -> Result<()> {
        match self.session(security, connector).await {
            Ok(session) => {
                if port.tls.is_none() {
                    port.record(&session);
                }
                session.quit().await;
                Ok(())
            }
            // It is not the version that was refused.
            Err(error) if tls_info(&error).is_some() => {
                if port.tls.is_none() {
                    port.tls = tls_info(&error).cloned();
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Determines from the first bytes whether the port begins in plaintext or with TLS. Returns a
    /// connection on which the greeting is pending, or `None` for TLS.
    async fn detect_security(
        &self,
        mut stream: Peekable,
        port: &mut Port,
    ) -> Result<Option<Peekable>> {
        let detection = async {
            let began = Instant::now();
            if let Ok(received) = timeout(self.greeting_delay(), first_bytes(&mut stream)).await {
                return match &received?[..] {
                    [] => Err(closed(
                        "the server closed the connection without sending anything",
                    )),
                    received if speaks_tls(received) => Ok(None),
                    _ => {
                        port.timings.greeting = Some(began.elapsed());
                        Ok(Some(stream))
                    }
                };
            }
            // The server waits for the client to begin, or is slow. Uses one connection at a time,
            // since some servers allow no more.
            drop(stream);
            let stream = self.connect().await?;
            let began = Instant::now();
            match &self.reply_to_client_hello(stream).await?[..] {
                [] => Err(closed(
                    "the server sends nothing, and closes the connection when TLS begins",
                )),
                received if speaks_tls(received) => Ok(None),
                [b'0'..=b'9', ..] => {
                    port.timings.greeting = Some(began.elapsed());
                    self.connect().await.map(Some)
                }
                // Something else: a handshake produces the error that describes it.
                _ => Err(
                    match self
                        .session(Security::Implicit, &self.prober.connector)
                        .await
                    {
                        Err(error) => error,
                        Ok(_) => closed("the server speaks TLS at one time and not at another"),
                    },
                ),
            }
        };
        let outcome = within(
            &mut self.clock.clone(),
            &self.endpoint,
            Phase::Greeting,
            pin!(detection),
        )
        .await;
        outcome.map_err(|error| match (error.kind(), error.phase()) {
            (ErrorKind::Timeout, Phase::Greeting) => {
                let message = format!("{}, and does not answer TLS either", error.message());
                Error::new(ErrorKind::Timeout, Phase::Greeting, message).with_hint(
                    "Check the port. A firewall or a proxy that accepts connections for a server \
                        that is down looks like this, too.",
                )
            }
            _ => error,
        })
    }

    /// How long to wait for the greeting before trying TLS. Some servers on port 25 delay it on
    /// purpose and take note of clients that send something before it.
    fn greeting_delay(&self) -> Duration {
        let limit = self.prober.endpoint.timeouts.greeting;
        match self.endpoint.get_port() {
            25 => limit.mul_f32(0.75),
            465 => Duration::from_millis(100).min(limit / 2),
            _ => Duration::from_secs(1).min(limit / 2),
        }
    }

    /// The reply of the server to a TLS ClientHello.
    async fn reply_to_client_hello(&self, mut stream: Peekable) -> Result<Vec<u8>> {
        let hello = self
            .prober
            .connector
            .client_hello(&self.prober.endpoint.host)?;
        stream
            .write_all(&hello)
            .await
            .map_err(|error| Error::connection_lost(Phase::Tls, error))?;
        first_bytes(&mut stream).await
    }

    async fn connect(&self) -> Result<Peekable> {
        open(&mut self.clock.clone(), &self.endpoint, &self.peer)
            .await
            .map(|connected| peekable(connected.stream))
    }

    async fn session(&self, security: Security, connector: &Connector) -> Result<Connection> {
        self.session_over(self.connect().await?, security, Some(connector))
            .await
    }

    async fn session_over(
        &self,
        stream: Peekable,
        security: Security,
        connector: Option<&Connector>,
    ) -> Result<Connection> {
        let endpoint = &self.prober.endpoint;
        let (stream, clock) = (Box::new(stream), self.clock.clone());
        Connection::establish(
            endpoint,
            stream,
            self.local_addr,
            security,
            connector,
            clock,
        )
        .await
    }
}

impl Port {
    /// Records what a session inside TLS knows.
    fn record(&mut self, session: &Connection) {
        self.inside_tls = Some(session.capabilities().clone());
        self.tls = session.tls().cloned();
        if self.greeting.is_none() {
            self.greeting = session.greeting().cloned();
        }
    }
}

/// What had been negotiated before the error.
fn tls_info(error: &Error) -> Option<&TlsInfo> {
    error.receipt().and_then(|receipt| receipt.tls.as_deref())
}

/// Peeks at the first bytes. Returns none if the server closes the connection.
async fn first_bytes(stream: &mut Peekable) -> Result<Vec<u8>> {
    match stream.fill_buf().await {
        Ok(bytes) => Ok(bytes.to_vec()),
        Err(error) => Err(Error::connection_lost(Phase::Greeting, error)),
    }
}

fn closed(message: &str) -> Error {
    Error::new(ErrorKind::Closed, Phase::Greeting, message).with_hint(
        "Check the port. The server, or a firewall before it, may also refuse this \
            client's address.",
    )
}
