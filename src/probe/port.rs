//! One port: who begins, what is offered, what TLS does.
//!
//! Each question that needs it has a connection of its own, one after another: one in clear, one as
//! a client would have it, and one for the version of TLS that this did not choose.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::{Port, PortSecurity, Timings, Version, preference};
use crate::connection::clock::Clock;
use crate::connection::{client_name, open, within};
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::proto::{ClientName, Protocol};
use crate::tls::{Connector, Security, TlsInfo, TlsVersion, TrustSummary, VerifyMode};
use crate::transport::{Connected, Destination};
use crate::{Connection, Endpoint, Timeouts, diagnose};

/// Nobody waits for a diagnosis as long as mail can wait.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection that is not made by then, after two repetitions (RFC 6298), is not made because a
/// firewall drops it.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// What all looks have in common.
pub(super) struct Prober {
    /// With the limits that hold here.
    endpoint: Endpoint,
    /// The versions and all else as the endpoint has them. Whatever the certificate is, the
    /// handshake goes on, and the verdict is reported: so the rest can be seen, too.
    connector: Connector,
    /// For one version alone.
    alone: Vec<(TlsVersion, Connector)>,
}

/// A port, and the connection that is ready for a login.
pub(super) struct PortProbe {
    pub(super) port: Port,
    pub(super) connection: Option<Connection>,
}

impl Prober {
    pub(super) async fn new(endpoint: &Endpoint) -> Result<Self> {
        let mut endpoint = endpoint.clone();
        // What cannot be logged in with is found before anything is connected to.
        endpoint.login.chosen()?;
        endpoint.auth_in_clear = false;
        if endpoint.timeouts == Timeouts::default() {
            endpoint.timeouts = Timeouts::uniform(PATIENCE);
            endpoint.timeouts.connect = CONNECT_PATIENCE;
        }
        let limits = &mut endpoint.timeouts;
        limits.deadline = limits.deadline.or(limits.total_wait);
        let settings = endpoint.tls.clone();
        let connectors = tokio::task::spawn_blocking(move || {
            // Once for all versions: a FIFO can be read only once.
            let connector = Connector::new(&settings, VerifyMode::Reported)?.without_resumption();
            let mut alone = Vec::new();
            if !settings.has_own_config() {
                for version in [TlsVersion::Tls13, TlsVersion::Tls12] {
                    alone.push((
                        version,
                        connector
                            .with_versions(version, version)?
                            .without_resumption(),
                    ));
                }
            }
            Ok((connector, alone))
        });
        let (connector, alone) = connectors.await.unwrap_or_else(|panic| {
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
            alone,
        })
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.endpoint.login.name()
    }

    pub(super) fn trusted(&self) -> TrustSummary {
        self.connector.trusted()
    }

    pub(super) async fn look(&self, number: u16) -> PortProbe {
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
        let connection = match self.learn(&mut port).await {
            Ok(connection) => connection,
            Err(error) => {
                port.failure = Some(error);
                None
            }
        };
        PortProbe { port, connection }
    }

    /// Fills in what can be learnt. The error is why the port cannot be used as it is wanted.
    async fn learn(&self, port: &mut Port) -> Result<Option<Connection>> {
        let clock = Clock::start(&self.endpoint.timeouts);
        let began = Instant::now();
        let endpoint = self.endpoint.clone().port(port.number);
        let Connected {
            stream,
            peer: reached,
            local_addr: own_address,
        } = open(&mut clock.clone(), &endpoint, &endpoint.destination()).await?;
        port.timings.connect = Some(began.elapsed());
        port.address = match reached {
            Destination::Address(address) => Some(address),
            Destination::Host(..) => None,
        };
        let name = client_name(&endpoint, own_address);
        let site = Target {
            observer: self,
            endpoint,
            reached,
            name,
            clock,
        };

        let Some(stream) = site.who_begins(stream, port).await? else {
            port.speaks = Some(PortSecurity::Tls);
            return site.learn_tls(port, Security::Implicit).await;
        };
        port.speaks = Some(PortSecurity::Plaintext);
        let session = site.session_over(stream, Security::None, None).await?;
        port.greeting = session.greeting().cloned();
        let offered = session.capabilities().clone();
        port.before_tls = Some(offered.clone());
        if offered.offers("STARTTLS") {
            session.quit().await;
            return site.learn_tls(port, Security::Required).await;
        }
        port.timings.ready = Some(began.elapsed());
        if self.demands_tls() {
            session.quit().await;
            let greeting = port.greeting.as_ref();
            let lmtp = self.endpoint.protocol == Protocol::Lmtp;
            let missing = diagnose::starttls_missing(&offered, greeting, Some(port.number), lmtp);
            return Err(self.unprotected(missing));
        }
        Ok(Some(session))
    }

    /// Logs in where there is a connection for it, the best port first. Once a server has refused
    /// the login it is not asked again: with a wrong password, each attempt may bring the account
    /// closer to being locked.
    pub(super) async fn log_in(&self, looks: &mut [PortProbe]) {
        if !self.endpoint.login.is_given() {
            return;
        }
        let mut order: Vec<&mut PortProbe> = looks.iter_mut().collect();
        order.sort_by_key(|look| std::cmp::Reverse(preference(look.port.number)));
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

    /// With credentials, nothing less than verified TLS will do.
    fn demands_tls(&self) -> bool {
        self.endpoint.login.is_given()
            || !matches!(
                self.endpoint.security,
                Security::None | Security::Opportunistic
            )
    }

    /// Why plaintext will not do.
    fn unprotected(&self, starttls_missing: Error) -> Error {
        if self.endpoint.security != Security::None {
            return starttls_missing;
        }
        let message = "the login was not tried: the server offers no TLS, and the password would cross the network in clear";
        Error::new(ErrorKind::Insecure, Phase::Auth, message).with_hint_if(starttls_missing.hint())
    }
}

/// One port at the address that answered.
struct Target<'a> {
    observer: &'a Prober,
    /// With the port that is looked at.
    endpoint: Endpoint,
    reached: Destination,
    name: ClientName,
    /// Its deadline holds for all connections together.
    clock: Clock,
}

impl Target<'_> {
    /// What the server does inside TLS. Gives the connection, if it is as it is wanted.
    async fn learn_tls(&self, port: &mut Port, security: Security) -> Result<Option<Connection>> {
        let began = Instant::now();
        let outcome = self.session(security, &self.observer.connector).await;
        match &outcome {
            Ok(session) => {
                port.timings.ready = Some(began.elapsed());
                port.note(session);
            }
            Err(error) => port.tls = tls_before(error).cloned(),
        }
        self.try_versions(port, security).await;
        port.timings.tls = port.tls.as_ref().map(|tls| tls.handshake_duration);

        let distrust = port
            .tls
            .as_ref()
            .and_then(|tls| tls.not_verified_reason.clone());
        match (outcome, distrust) {
            (Ok(session), Some(failure)) if self.observer.demands_tls() => {
                session.quit().await;
                Err(failure.into_error())
            }
            (Ok(session), _) => Ok(Some(session)),
            // Plaintext will do, and was there.
            (Err(_), _) if port.before_tls.is_some() && !self.observer.demands_tls() => Ok(None),
            (Err(error), _) => Err(error),
        }
    }

    /// Each version alone; not again the one that was chosen before.
    async fn try_versions(&self, port: &mut Port, security: Security) {
        for (version, connector) in &self.observer.alone {
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
                    port.note(&session);
                }
                session.quit().await;
                Ok(())
            }
            // It is not the version that is refused.
            Err(error) if tls_before(&error).is_some() => {
                if port.tls.is_none() {
                    port.tls = tls_before(&error).cloned();
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Who speaks first: that tells plaintext from TLS. Gives the connection with a greeting on it,
    /// or none where TLS is spoken.
    async fn who_begins(&self, stream: TcpStream, port: &mut Port) -> Result<Option<TcpStream>> {
        let listening = async {
            let began = Instant::now();
            if let Ok(heard) = timeout(self.head_start(), first_bytes(&stream)).await {
                return match &heard?[..] {
                    [] => Err(closed("the server closed the connection without a word")),
                    heard if diagnose::speaks_tls(heard) => Ok(None),
                    _ => {
                        port.timings.greeting = Some(began.elapsed());
                        Ok(Some(stream))
                    }
                };
            }
            // It waits for us to begin, or is only slow. One connection at a time: there are
            // servers that can do no more.
            drop(stream);
            let stream = self.connect().await?;
            let began = Instant::now();
            match &self.answer_to_hello(stream).await?[..] {
                [] => Err(closed(
                    "the server says nothing, and closes the connection when TLS begins",
                )),
                heard if diagnose::speaks_tls(heard) => Ok(None),
                [b'0'..=b'9', ..] => {
                    port.timings.greeting = Some(began.elapsed());
                    self.connect().await.map(Some)
                }
                // Something else: the handshake finds the words for it.
                _ => Err(
                    match self
                        .session(Security::Implicit, &self.observer.connector)
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
            listening,
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

    /// How long the greeting may take before TLS is tried. Port 25 has servers that let clients
    /// wait on purpose and note those that speak out of turn.
    fn head_start(&self) -> Duration {
        let limit = self.observer.endpoint.timeouts.greeting;
        match self.endpoint.port_number() {
            25 => limit.mul_f32(0.75),
            465 => Duration::from_millis(100).min(limit / 2),
            _ => Duration::from_secs(1).min(limit / 2),
        }
    }

    /// What the server says to the beginning of a TLS handshake.
    async fn answer_to_hello(&self, mut stream: TcpStream) -> Result<Vec<u8>> {
        let hello = self
            .observer
            .connector
            .client_hello(&self.observer.endpoint.host)?;
        stream
            .write_all(&hello)
            .await
            .map_err(|error| Error::connection_lost(Phase::Tls, error))?;
        first_bytes(&stream).await
    }

    async fn connect(&self) -> Result<TcpStream> {
        open(&mut self.clock.clone(), &self.endpoint, &self.reached)
            .await
            .map(|opened| opened.stream)
    }

    async fn session(&self, security: Security, connector: &Connector) -> Result<Connection> {
        self.session_over(self.connect().await?, security, Some(connector))
            .await
    }

    async fn session_over(
        &self,
        stream: TcpStream,
        security: Security,
        connector: Option<&Connector>,
    ) -> Result<Connection> {
        let endpoint = &self.observer.endpoint;
        let (name, clock) = (self.name.clone(), self.clock.clone());
        Connection::establish(endpoint, Box::new(stream), name, security, connector, clock).await
    }
}

impl Port {
    /// What a session inside TLS tells.
    fn note(&mut self, session: &Connection) {
        self.inside_tls = Some(session.capabilities().clone());
        self.tls = session.tls().cloned();
        if self.greeting.is_none() {
            self.greeting = session.greeting().cloned();
        }
    }
}

/// What was negotiated before it went wrong.
fn tls_before(error: &Error) -> Option<&TlsInfo> {
    error.receipt().and_then(|receipt| receipt.tls.as_ref())
}

/// What comes first; it stays in the stream. Nothing at all where the server closes the connection.
async fn first_bytes(stream: &TcpStream) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 8];
    let heard = stream
        .peek(&mut bytes)
        .await
        .map_err(|error| Error::connection_lost(Phase::Greeting, error))?;
    bytes.truncate(heard);
    Ok(bytes)
}

fn closed(message: &str) -> Error {
    Error::new(ErrorKind::Closed, Phase::Greeting, message).with_hint(
        "Check the port. The server, or a firewall before it, may also refuse this \
            client's address.",
    )
}
