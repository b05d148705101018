//! Setup of a session: connecting, TLS by the policy, and the login.

use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::Connection;
use super::clock::Clock;
use super::driver::{Driver, too_slow};
#[cfg(feature = "pool")]
use super::reuse::is_in_blocking_call;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::proto::{ClientName, Machine, Protocol, Settings, StartTls, Step};
use crate::receipt::{Delivery, PlaintextReason, SessionInfo};
use crate::tls::{Connector, Security, TlsMode};
use crate::transport::{Connected, Destination, Stream, Transport};
use crate::{Endpoint, file, telemetry};

impl Connection {
    /// Connects, secures the connection as the endpoint's policy says, and logs in if the endpoint
    /// has credentials.
    ///
    /// # Errors
    ///
    /// Every failure on the way, with its phase: no connection ([`ErrorKind::Connect`]), no
    /// TLS as demanded ([`ErrorKind::Tls`]), a refused session ([`ErrorKind::Refused`]) or login
    /// ([`ErrorKind::Auth`]), a trust store that cannot be read ([`ErrorKind::Config`]) …
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it closes the socket, without QUIT.
    pub async fn connect(endpoint: &Endpoint) -> Result<Connection> {
        let clock = Clock::start(&endpoint.timeouts);
        Connection::connect_by(endpoint, clock).await
    }

    /// Sets up the session over a stream that the caller has connected to the server. The
    /// endpoint's host is the name that the server's certificate is checked against. Unless the
    /// endpoint has a [name for the client](Endpoint::client_name), EHLO says `[127.0.0.1]`: the
    /// stream need not have an address.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect). With opportunistic TLS, a handshake that fails is an
    /// error here, as there is only one stream.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it drops the stream, without QUIT.
    pub async fn from_stream(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        endpoint: &Endpoint,
    ) -> Result<Connection> {
        endpoint.check()?;
        let clock = Clock::start(&endpoint.timeouts);
        let connector = connector_for(endpoint, &clock).await?;
        let session = Connection::establish(
            endpoint,
            Box::new(stream),
            None,
            endpoint.security,
            connector,
            clock,
        )
        .await?;
        session.logged_in(endpoint).await
    }

    /// Boxed, since the future is large and every future that awaits it would be too. As a trait
    /// object, since its code would otherwise be compiled again in each crate that awaits it.
    pub(crate) fn connect_by(
        endpoint: &Endpoint,
        clock: Clock,
    ) -> BoxFuture<'_, Result<Connection>> {
        Box::pin(async move {
            let connecting = pin!(Connection::connect_in(endpoint, clock));
            telemetry::in_span("connect", &endpoint.server, connecting).await
        })
    }

    async fn connect_in(endpoint: &Endpoint, mut clock: Clock) -> Result<Connection> {
        endpoint.check()?;
        let connector = connector_for(endpoint, &clock).await?;
        let Connected {
            stream,
            peer,
            local_addr,
        } = open(&mut clock, endpoint, &endpoint.destination()).await?;
        let began = Instant::now();
        let setting_up = Connection::establish(
            endpoint,
            stream,
            local_addr,
            endpoint.security,
            connector,
            clock.clone(),
        )
        .await;
        let session = match setting_up {
            Err(error) if may_fall_back(endpoint, &error) => {
                clock.spend(Phase::Setup, began.elapsed());
                Connection::fall_back(endpoint, &peer, error, clock).await?
            }
            outcome => outcome?,
        };
        session.logged_in(endpoint).await
    }

    /// Falls back to plaintext after TLS failed with this error: by one connection to the same
    /// address, once.
    async fn fall_back(
        endpoint: &Endpoint,
        peer: &Destination,
        mut error: Error,
        mut clock: Clock,
    ) -> Result<Connection> {
        // A failure now would not have happened if TLS worked.
        let also = |second: Error| {
            second.context(format!(
                "without TLS, which failed first ({})",
                error.message()
            ))
        };
        let Connected {
            stream, local_addr, ..
        } = open(&mut clock, endpoint, peer).await.map_err(also)?;
        let session =
            Connection::establish(endpoint, stream, local_addr, Security::None, None, clock).await;
        let mut session = session.map_err(also)?;
        if let Some(receipt) = error.take_receipt() {
            session
                .driver
                .machine
                .transcript_mut()
                .precede(&receipt.transcript);
        }
        let is_refusal = error.phase() == Phase::StartTls && error.reply().is_some();
        session.info_mut().plaintext_reason = Some(match is_refusal {
            true => PlaintextReason::Refused(error.to_string()),
            false => PlaintextReason::Failed(error.to_string()),
        });
        Ok(session)
    }

    /// Sets up a session over a stream that was connected from this local address.
    pub(crate) async fn establish(
        endpoint: &Endpoint,
        stream: Box<dyn Stream>,
        local_address: Option<IpAddr>,
        security: Security,
        connector: Option<&Connector>,
        clock: Clock,
    ) -> Result<Connection> {
        let mut settings = Settings::new(client_name(endpoint, local_address));
        settings.protocol = endpoint.protocol;
        settings.starttls = match security {
            Security::Required => StartTls::Required,
            // A server without STARTTLS has no key to show.
            Security::Opportunistic if endpoint.tls.settings.demands_key() => StartTls::Required,
            Security::Opportunistic => StartTls::IfOffered,
            _ => StartTls::Never,
        };
        settings.secure = security == Security::Implicit;
        settings.auth_in_clear = endpoint.auth_in_clear;
        let has_port = endpoint.destination().has_port();
        settings.server = has_port.then(|| (endpoint.host.clone(), endpoint.get_port()));
        settings.limits = endpoint.limits.clone();
        let mut session = Connection {
            driver: Driver::new(
                Machine::new(settings),
                stream,
                endpoint.timeouts.clone(),
                clock,
            ),
            server: endpoint.server.clone(),
            info: Arc::new(SessionInfo {
                server: endpoint.server_name(),
                local_address,
                ..SessionInfo::default()
            }),
            user: String::new(),
            is_mx: endpoint.is_mx,
            mechanisms: endpoint.login.mechanisms.clone(),
            auth_in_clear: endpoint.auth_in_clear,
            all_or_nothing: endpoint.all_or_nothing,
            #[cfg(feature = "pool")]
            connected_at: Instant::now(),
            #[cfg(feature = "pool")]
            is_blocking: is_in_blocking_call(),
            #[cfg(feature = "pool")]
            sender_accepted: false,
            check_after_idle: endpoint.check_after_idle,
            send_window: endpoint.send_window,
            round_trips_before: 0,
            in_call: false,
            #[cfg(feature = "metrics")]
            _counted: telemetry::OpenConnection::new(endpoint.server.clone()),
        };
        // The server may know the secret from an earlier connection, and say it before the login.
        endpoint.login.hide(session.driver.machine.secrets_mut());
        #[cfg(feature = "proxy")]
        if let Some(proxy) = &endpoint.route.proxy {
            proxy.hide(session.driver.machine.secrets_mut());
        }
        match session.set_up(endpoint, security, connector).await {
            Ok(()) => Ok(session),
            Err(error) => Err(session.abandoned(error).await),
        }
    }

    async fn set_up(
        &mut self,
        endpoint: &Endpoint,
        security: Security,
        connector: Option<&Connector>,
    ) -> Result<()> {
        if security == Security::Implicit {
            self.handshake(endpoint, connector).await?;
        }
        loop {
            match self.driver.next(None).await {
                Ok(Step::Upgrade) => {
                    self.handshake(endpoint, connector).await?;
                    self.driver.machine.upgraded()?;
                }
                Ok(Step::Ready) => break,
                Ok(_) => {}
                Err(error) => return Err(self.as_late_tls_alert(error)),
            }
        }
        if security == Security::Opportunistic && self.tls().is_none() {
            self.info_mut().plaintext_reason = Some(PlaintextReason::NotOffered);
        }
        Ok(())
    }

    async fn handshake(
        &mut self,
        endpoint: &Endpoint,
        connector: Option<&Connector>,
    ) -> Result<()> {
        let Transport::Plain(stream) =
            std::mem::replace(&mut self.driver.transport, Transport::Taken)
        else {
            return Err(Error::request("TLS is active already"));
        };
        let Some(connector) = connector else {
            return Err(Error::request("TLS was not prepared"));
        };
        let mode = match endpoint.protocol {
            _ if !self.driver.machine.is_secure() => TlsMode::StartTls,
            Protocol::Smtp => TlsMode::Implicit,
            Protocol::Lmtp => TlsMode::ImplicitLmtp,
        };
        let handshake = pin!(connector.handshake(&endpoint.host, stream, mode));
        let handshake = pin!(telemetry::in_span("tls", &endpoint.server, handshake));
        let outcome = within(&mut self.driver.clock, endpoint, Phase::Tls, handshake).await;
        let transcript = self.driver.machine.transcript_mut();
        match outcome {
            Ok((stream, info)) => {
                transcript.note(&format!("TLS handshake: {}, {}", info.version, info.cipher));
                #[cfg(feature = "tracing")]
                connector.for_each_certificate(&info, |usage, certificate| {
                    telemetry::expires_soon(usage, certificate, &endpoint.host);
                });
                self.driver.transport = Transport::Tls(Box::new(stream));
                self.info_mut().tls = Some(Arc::new(info));
                Ok(())
            }
            Err(error) => {
                transcript.note(&format!("TLS handshake failed: {}", error.message()));
                Err(error)
            }
        }
    }

    /// TLS 1.3 lets the server refuse a client's certificate after the client's part of the
    /// handshake is over: what ends the connection before the first reply inside TLS belongs to the
    /// handshake.
    fn as_late_tls_alert(&self, error: Error) -> Error {
        let first_inside_tls =
            self.tls().is_some() && matches!(error.phase(), Phase::Greeting | Phase::Hello);
        match std::error::Error::source(&error)
            .and_then(|source| source.downcast_ref::<io::Error>())
        {
            Some(source) if first_inside_tls => {
                crate::tls::late_alert(source, &self.info.server).unwrap_or(error)
            }
            _ => error,
        }
    }

    async fn logged_in(mut self, endpoint: &Endpoint) -> Result<Connection> {
        match self.log_in(endpoint).await {
            Ok(()) => Ok(self),
            Err(error) => Err(self.abandoned(error).await),
        }
    }

    /// Sends QUIT where it is in order, after this error ended the session.
    async fn abandoned(&mut self, error: Error) -> Error {
        self.send_quit(false).await;
        self.with_session(error)
    }

    /// The error with advice and the receipt of the session.
    fn with_session(&self, error: Error) -> Error {
        error.advised(&self.facts()).with_receipt(self.receipt(
            &self.info,
            Delivery::default(),
            self.message_start(Instant::now()),
        ))
    }
}

/// Reads the files for TLS, unless that was done before. The deadline holds for them; a file that
/// is waited for has a little less, so that there is time left to name it.
pub(crate) async fn connector_for<'e>(
    endpoint: &'e Endpoint,
    clock: &Clock,
) -> Result<Option<&'e Connector>> {
    if endpoint.security == Security::None {
        return Ok(None);
    }
    let until = file::time_limit();
    let Some((at, length)) = clock.deadline() else {
        return endpoint.connector(until).await.map(Some);
    };
    let left = at.saturating_duration_since(Instant::now());
    let until = until.min(std::time::Instant::now() + left / 10 * 9);
    let connector = timeout_at(at, endpoint.connector(until)).await;
    connector
        .map(|connector| connector.map(Some))
        .unwrap_or_else(|_| {
            let message =
                format!("the files for TLS were not read before the deadline of {length:?}");
            Err(Error::new(ErrorKind::Timeout, Phase::Setup, message).with_hint(
            "Check the files that are named as trusted, as client certificate and for their \
                password: a network drive may \
             not answer, or a key store may ask for much work.",
        ))
        })
}

/// The client name of the endpoint, or the local address if the server can make use of it.
fn client_name(endpoint: &Endpoint, local_addr: Option<IpAddr>) -> ClientName {
    let literal = || ClientName::literal(local_addr.unwrap_or([127, 0, 0, 1].into()));
    endpoint.get_client_name().cloned().unwrap_or_else(literal)
}

/// Connects as the endpoint says, within its time limits.
pub(crate) async fn open(
    clock: &mut Clock,
    endpoint: &Endpoint,
    destination: &Destination,
) -> Result<Connected> {
    let mut at_proxy = false;
    let opening = endpoint.route.open(destination, &mut at_proxy);
    let opened = within(clock, endpoint, Phase::Connect, pin!(opening)).await;
    opened.map_err(|error| endpoint.route.with_proxy_context(error, at_proxy))
}

/// TLS failed, and plaintext is allowed: with [`Security::Opportunistic`], and nothing secret to
/// send.
fn may_fall_back(endpoint: &Endpoint, error: &Error) -> bool {
    let about_tls = matches!(error.phase(), Phase::StartTls | Phase::Tls);
    about_tls && error.kind() != ErrorKind::Protocol && !endpoint.demands_trust()
}

/// Sets the time limit for a phase outside the machine. Takes a pinned future, as each function
/// that takes one by value reserves its size again.
pub(crate) async fn within<T>(
    clock: &mut Clock,
    endpoint: &Endpoint,
    phase: Phase,
    future: Pin<&mut impl Future<Output = Result<T>>>,
) -> Result<T> {
    let timeouts = &endpoint.timeouts;
    let began = Instant::now();
    let limit = clock.limit(phase, began, timeouts);
    let outcome = timeout_at(limit.at, future).await;
    let waited = began.elapsed();
    clock.spend(phase, waited);
    telemetry::waited(phase, waited);
    outcome.unwrap_or_else(|_| {
        let destination = endpoint.destination();
        let hint = limit.why.hint(phase, false, destination.has_port());
        let error = Error::new(ErrorKind::Timeout, phase, too_slow(phase, limit.why));
        Err(error.context(destination).with_hint(hint))
    })
}
