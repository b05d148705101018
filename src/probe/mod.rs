//! Checks a server without sending a message: whether it can be used, how, and if not, why.
//!
//! [`probe`] tries the usual ports, or the given one, concurrently. It determines from the first
//! bytes whether a port begins in plaintext or with TLS, which extensions are offered before and
//! inside TLS, which TLS versions are accepted, which certificates the server sends and whether
//! they are trusted. It logs in if the [`Endpoint`] has credentials. Credentials are only sent over
//! TLS with a verified certificate, whatever the endpoint allows.
//!
//! The [`Report`] is plain data that can be displayed; the text ends with the URL and the lines of
//! Rust to use.
//!
//! An [`Inspector`] (feature `mx`) examines what a domain publishes, and its servers.
//!
//! `port.rs` checks one port, `advice.rs` recommends settings, and `display.rs` formats the report.

mod advice;
mod display;
#[cfg(feature = "mx")]
mod domain;
mod port;

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::proto::{Capabilities, Mechanism, Protocol, Reply};
use crate::text::printable;
use crate::tls::{Certificate, TlsInfo, TlsVersion, TrustSummary};
use crate::{Endpoint, Error, Result};

pub use advice::Advice;
#[cfg(feature = "mx")]
pub use domain::{DomainReport, Inspector, Published, ServerReport, SessionReport};
use port::Prober;

/// The usual ports of SMTP: relay, implicit TLS and submission; and that of LMTP.
const USUAL_PORTS: [u16; 3] = [25, 465, 587];
const USUAL_LMTP_PORTS: [u16; 1] = [24];

/// Checks the server of an endpoint: at its port if one is set, otherwise at 25, 465 and 587, or at
/// 24 for LMTP. See [the module](self) for what is checked.
///
/// The endpoint defines the trust, the credentials and the required security (TLS by default). Its
/// [time-outs](Endpoint::timeouts) apply to each step. The default time-outs
/// are meant for mail that can wait, so ten seconds are used in their place. A port takes at most
/// four times as long in total.
///
/// # Errors
///
/// Only if nothing can be checked: the endpoint has no TCP port (a Unix socket), its host name is
/// not valid, or it has a user without a password
/// ([`ErrorKind::Request`](crate::ErrorKind::Request)); or a trust store cannot be read
/// ([`ErrorKind::Config`](crate::ErrorKind::Config)). A server that does not answer is not an
/// error: see [`Port::failure`].
///
/// ```no_run
/// use envoi::{Credentials, Endpoint};
///
/// # async fn example() -> envoi::Result<()> {
/// let endpoint = Endpoint::new("mail.example.org")
///     .credentials(Credentials::new("me@example.org", "secret"));
/// let report = envoi::probe(&endpoint).await?;
/// println!("{report}");
/// if let Some(advice) = report.advice.filter(|advice| advice.usable) {
///     println!("put this into the configuration: {}", advice.url);
/// }
/// # Ok(())
/// # }
/// ```
pub async fn probe(endpoint: &Endpoint) -> Result<Report> {
    endpoint.check()?;
    let destination = endpoint.destination();
    if !destination.has_port() {
        let message = format!("only TCP ports can be probed, and {destination} has no port");
        return Err(Error::request(message)
            .with_hint("Send a message instead: the transcript and the error show what happens."));
    }
    let began = Instant::now();
    let prober = Prober::new(endpoint).await?;
    let usual = match endpoint.protocol() {
        Protocol::Smtp => &USUAL_PORTS[..],
        Protocol::Lmtp => &USUAL_LMTP_PORTS,
    };
    let numbers = endpoint.port.map_or(usual.to_vec(), |port| vec![port]);
    let mut probes = join_all(numbers.into_iter().map(|number| prober.probe(number))).await;
    prober.log_in(&mut probes).await;
    let (ports, connections): (Vec<_>, Vec<_>) = probes
        .into_iter()
        .map(|probe| (probe.port, probe.connection))
        .unzip();
    join_all(
        connections
            .into_iter()
            .flatten()
            .map(|connection| connection.quit()),
    )
    .await;

    let mut report = Report {
        host: endpoint.host.clone(),
        user: prober.user().map(printable),
        trusted: prober.trusted(),
        ports,
        advice: None,
        elapsed: began.elapsed(),
    };
    report.advice = report
        .best()
        .and_then(|port| advice::advise(endpoint, port));
    Ok(report)
}

/// The result of a probe. `Display` formats it for a terminal.
///
/// ```
/// use envoi::Endpoint;
///
/// # #[cfg(not(feature = "testing"))]
/// # fn main() {}
/// # #[cfg(feature = "testing")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = envoi::testing::Server::builder().login("alice", "secret").start().await?;
/// let report = envoi::probe(&Endpoint::from_url(&server.url())?).await?;
/// assert!(report.is_usable());
/// let port = report.best().unwrap();
/// let tls = port.tls.as_ref().unwrap();
/// println!("{}, verified by {}", tls.version, tls.verified_by.as_ref().unwrap());
/// assert!(!report.to_string().contains("secret"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The host, as given in the endpoint.
    pub host: String,
    /// The user, if a login was to be tried.
    pub user: Option<String>,
    /// The trust anchors of this client.
    pub trusted: TrustSummary,
    /// The results for the ports, in ascending order.
    pub ports: Vec<Port>,
    /// The recommended settings, which may need the port's failure to be fixed first. `None` if no
    /// mail server was found.
    pub advice: Option<Advice>,
    /// The duration of the probe.
    pub elapsed: Duration,
}

impl Report {
    /// Whether at least one port can be used as the endpoint requires.
    pub fn is_usable(&self) -> bool {
        self.ports.iter().any(Port::is_usable)
    }

    /// The best port to use. If no port is usable, the one that came closest. `None` if there are
    /// no ports.
    pub fn best(&self) -> Option<&Port> {
        self.ports.iter().max_by_key(|port| port.rank())
    }

    /// The certificates that the server sent, without duplicates, as PEM with a description of
    /// each. Written to a file and checked by an administrator, they can be
    /// [trusted](crate::tls::Trust::path). Empty if none was sent.
    pub fn certificates_pem(&self) -> String {
        let mut seen: Vec<&Certificate> = Vec::new();
        let mut pem = String::new();
        for port in &self.ports {
            for certificate in port.tls.iter().flat_map(|tls| tls.chain.iter()) {
                if !seen.contains(&certificate) {
                    seen.push(certificate);
                    pem += &printable(format!(
                        "# {}, port {}: {certificate}",
                        self.host, port.number
                    ));
                    pem += "\n";
                    pem += &printable(format!("# SHA-256 {}", certificate.sha256));
                    pem += "\n";
                    pem += &certificate.to_pem();
                }
            }
        }
        pem
    }
}

/// The results for one port. What is not known is `None` or empty.
#[derive(Debug)]
#[non_exhaustive]
pub struct Port {
    /// The port number.
    pub number: u16,
    /// The address that was connected to.
    pub address: Option<SocketAddr>,
    /// How a session begins on this port.
    pub speaks: Option<PortSecurity>,
    /// The greeting of the server.
    pub greeting: Option<Reply>,
    /// The extensions offered in clear; `None` if the port begins with TLS.
    pub before_tls: Option<Capabilities>,
    /// The extensions offered inside TLS.
    pub inside_tls: Option<Capabilities>,
    /// The negotiated parameters, the certificates, and whether they are trusted.
    pub tls: Option<TlsInfo>,
    /// The TLS versions that were tried, the newest first. Empty without TLS, or if the endpoint
    /// has its own rustls configuration, which decides about the versions.
    pub versions: Vec<Version>,
    /// The mechanism that logged in.
    pub login: Option<Mechanism>,
    /// The durations of the steps.
    pub timings: Timings,
    /// Why the port cannot be used as the endpoint requires; `None` if it can.
    pub failure: Option<Error>,
}

impl Port {
    /// Whether the port can be used as the endpoint requires: protected by TLS with a verified
    /// certificate, unless the endpoint allows less, and with a successful login if it has
    /// credentials.
    pub fn is_usable(&self) -> bool {
        self.failure.is_none()
    }

    /// The rank of the port: usable first, then protected, then by the phase that was reached.
    fn rank(&self) -> (bool, bool, u8, u8) {
        use crate::Phase;
        let protected = self.tls.as_ref().is_some_and(|tls| tls.is_verified());
        let reached = match self.failure.as_ref().map(Error::phase) {
            None => 6,
            // Not a mail server, or no answer.
            Some(_) if self.speaks.is_none() => 0,
            Some(Phase::Auth) => 5,
            Some(Phase::Tls) => 4,
            Some(Phase::StartTls) => 3,
            Some(Phase::Hello) => 2,
            Some(Phase::Greeting) => 1,
            Some(
                Phase::Setup
                | Phase::Connect
                | Phase::Mail
                | Phase::Rcpt
                | Phase::Data
                | Phase::Body
                | Phase::Handover
                | Phase::EndOfData
                | Phase::Reset
                | Phase::Noop
                | Phase::Command
                | Phase::Quit,
            ) => 0,
        };
        (
            self.is_usable(),
            protected,
            reached,
            preference(self.number),
        )
    }
}

/// Implicit TLS is preferred to STARTTLS (RFC 8314, 3); the relay port, which usually accepts no
/// logins, comes last.
fn preference(port: u16) -> u8 {
    match port {
        465 => 3,
        587 => 2,
        25 => 0,
        _ => 1,
    }
}

/// How a session begins on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PortSecurity {
    /// In plaintext, with the greeting of the server; STARTTLS may follow.
    Plaintext,
    /// With TLS from the first byte.
    Tls,
}

impl PortSecurity {
    /// A lower-case word: `plaintext` or `tls`.
    pub fn as_str(self) -> &'static str {
        match self {
            PortSecurity::Plaintext => "plaintext",
            PortSecurity::Tls => "tls",
        }
    }
}

/// Whether a TLS version is accepted.
#[derive(Debug)]
#[non_exhaustive]
pub struct Version {
    /// The version.
    pub version: TlsVersion,
    /// Why the version is not accepted; `None` if it is.
    pub failure: Option<Error>,
}

impl Version {
    /// Whether the server accepts the version.
    pub fn is_accepted(&self) -> bool {
        self.failure.is_none()
    }
}

/// The durations of the steps; `None` for a step that was not completed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Timings {
    /// Name lookup and connecting.
    pub connect: Option<Duration>,
    /// From the connection to the greeting, if the server sends it without TLS.
    pub greeting: Option<Duration>,
    /// The TLS handshake.
    pub tls: Option<Duration>,
    /// Everything before a login or a message: connecting, greeting, TLS, EHLO.
    pub ready: Option<Duration>,
    /// The login.
    pub login: Option<Duration>,
}
