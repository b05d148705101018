//! A look at a server, without sending anything: can it be used, how, and if not, why.
//!
//! [`probe`] tries the usual ports, or the one given, all at the same time. It finds out by the
//! bytes whether a port begins in plaintext or with TLS, learns what is offered before and inside
//! TLS, which versions of TLS are accepted, which certificates the server sends and whether they
//! are trusted, and logs in if the [`Endpoint`] has credentials. No credentials go over a
//! connection that is not protected by TLS with a verified certificate, whatever the endpoint
//! allows.
//!
//! The [`Report`] is plain data, and text for people: it ends with the URL and the lines of Rust to
//! use.
//!
//! `port.rs` checks one port, `advice.rs` recommends settings, and `display.rs` formats the report.

mod advice;
mod display;
mod port;

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use crate::proto::{Capabilities, Mechanism, Protocol, Reply};
use crate::text::printable;
use crate::tls::{Certificate, TlsInfo, TlsVersion, TrustSummary};
use crate::{Endpoint, Error, Result};

pub use advice::Advice;
use port::Prober;

/// The ports of SMTP: between servers, with TLS from the first byte, and for submission; and that
/// of LMTP.
const USUAL: [u16; 3] = [25, 465, 587];
const USUAL_OF_LMTP: [u16; 1] = [24];

/// Looks at the server of an endpoint: at its port if it has one that was set, else at 25, 465 and
/// 587, or, for LMTP, at 24. [The module](self) tells what it looks for.
///
/// The endpoint says whom to trust, with what to log in, and what is wanted: by default a
/// connection with TLS. Its [time limits](Endpoint::timeouts) hold for each step; as long as they
/// are the default ones, which are meant for mail that can wait, it is ten seconds. A port as a
/// whole takes four times as long at most.
///
/// # Errors
///
/// Only what keeps it from looking at all: a Unix socket, a host that cannot be one or a user
/// without a password ([`ErrorKind::Request`](crate::ErrorKind::Request)), a trust store that
/// cannot be read ([`ErrorKind::Config`](crate::ErrorKind::Config)). That nobody answers is a
/// result like any other: see [`Port::failure`].
///
/// ```no_run
/// use envoi::{Credentials, Endpoint};
///
/// # async fn example() -> envoi::Result<()> {
/// let endpoint = Endpoint::new("mail.example.org").credentials(Credentials::new("me@example.org", "secret"));
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
    if let Some(path) = endpoint.socket() {
        let message = format!(
            "a server is looked at by its ports, and {} is a Unix socket",
            path.display()
        );
        return Err(Error::request(message)
            .with_hint("Send it a message: the transcript and the error say the rest."));
    }
    let began = Instant::now();
    let observer = Prober::new(endpoint).await?;
    let usual = match endpoint.protocol() {
        Protocol::Smtp => &USUAL[..],
        Protocol::Lmtp => &USUAL_OF_LMTP,
    };
    let numbers = endpoint.port.map_or(usual.to_vec(), |port| vec![port]);
    let mut looks = join_all(numbers.into_iter().map(|number| observer.look(number))).await;
    observer.log_in(&mut looks).await;
    let (ports, connections): (Vec<_>, Vec<_>) = looks
        .into_iter()
        .map(|look| (look.port, look.connection))
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
        user: observer.user().map(printable),
        trusted: observer.trusted(),
        ports,
        advice: None,
        elapsed: began.elapsed(),
    };
    report.advice = report
        .best()
        .and_then(|port| advice::advise(endpoint, port));
    Ok(report)
}

/// What was found. `Display` tells it to people.
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
    /// The host, as it was asked for.
    pub host: String,
    /// Who logs in, if that was to be tried.
    pub user: Option<String>,
    /// Whom this client trusts.
    pub trusted: TrustSummary,
    /// What was found on each port, in the order of their numbers.
    pub ports: Vec<Port>,
    /// What to use, now or when what is missing was mended. `None` where there is no mail server.
    pub advice: Option<Advice>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Report {
    /// At least one port can be used as the endpoint wants it.
    pub fn is_usable(&self) -> bool {
        self.ports.iter().any(Port::is_usable)
    }

    /// The port to use; if none can be used as it is, the one that is closest to it. `None` only
    /// where there are no ports.
    pub fn best(&self) -> Option<&Port> {
        self.ports.iter().max_by_key(|port| port.rank())
    }

    /// The certificates that the server sent, each once, as PEM with a line about each: for a file
    /// that an administrator checks, and that can then be [trusted](crate::tls::Trust::path). Empty
    /// where none was sent.
    pub fn certificates_pem(&self) -> String {
        let mut seen: Vec<&Certificate> = Vec::new();
        let mut pem = String::new();
        for port in &self.ports {
            for certificate in port.tls.iter().flat_map(|tls| &tls.chain) {
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

/// What was found on one port. What could not be learnt is `None` or empty.
#[derive(Debug)]
#[non_exhaustive]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// The address that was connected to.
    pub address: Option<SocketAddr>,
    /// How a conversation begins here.
    pub speaks: Option<PortSecurity>,
    /// The server's first words.
    pub greeting: Option<Reply>,
    /// What it offers in clear; `None` where TLS comes first.
    pub before_tls: Option<Capabilities>,
    /// What it offers inside TLS.
    pub inside_tls: Option<Capabilities>,
    /// What was negotiated, which certificates were sent, and whether they are trusted.
    pub tls: Option<TlsInfo>,
    /// Which versions of TLS it accepts, the newest first. Empty where it has no TLS, or where a
    /// configuration of the caller's own decides about the versions.
    pub versions: Vec<Version>,
    /// The mechanism that logged in.
    pub login: Option<Mechanism>,
    /// How long the steps took.
    pub timings: Timings,
    /// Why it cannot be used as it is wanted; `None` where it can.
    pub failure: Option<Error>,
}

impl Port {
    /// It can be used as it is wanted: protected by TLS with a verified certificate, unless the
    /// endpoint wants less, and with the login that the endpoint has.
    pub fn is_usable(&self) -> bool {
        self.failure.is_none()
    }

    /// The larger, the better: usable first, and protected; else by how far it came.
    fn rank(&self) -> (bool, bool, u8, u8) {
        use crate::Phase;
        let protected = self.tls.as_ref().is_some_and(|tls| tls.is_verified());
        let came = match self.failure.as_ref().map(Error::phase) {
            None => 6,
            // Something else than a mail server, or nothing.
            Some(_) if self.speaks.is_none() => 0,
            Some(Phase::Auth) => 5,
            Some(Phase::Tls) => 4,
            Some(Phase::StartTls) => 3,
            Some(Phase::Hello) => 2,
            Some(Phase::Greeting) => 1,
            Some(_) => 0,
        };
        (self.is_usable(), protected, came, preference(self.number))
    }
}

/// TLS from the first byte before STARTTLS (RFC 8314, 3), and last the port between servers, which
/// takes no logins as a rule.
fn preference(port: u16) -> u8 {
    match port {
        465 => 3,
        587 => 2,
        25 => 0,
        _ => 1,
    }
}

/// How a conversation begins on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortSecurity {
    /// In plaintext, by the server's greeting; TLS may follow by STARTTLS.
    Plaintext,
    /// With TLS, from the first byte.
    Tls,
}

impl PortSecurity {
    /// As one lower-case word: `plaintext` or `tls`.
    pub fn as_str(self) -> &'static str {
        match self {
            PortSecurity::Plaintext => "plaintext",
            PortSecurity::Tls => "tls",
        }
    }
}

/// Whether a version of TLS is accepted.
#[derive(Debug)]
#[non_exhaustive]
pub struct Version {
    /// The version.
    pub version: TlsVersion,
    /// Why it is not accepted, as far as can be said; `None` where it is.
    pub failure: Option<Error>,
}

impl Version {
    /// The server speaks it.
    pub fn is_accepted(&self) -> bool {
        self.failure.is_none()
    }
}

/// How long the steps took; `None` for what did not come to its end.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Timings {
    /// Name lookup and connecting.
    pub connect: Option<Duration>,
    /// From the connection to the greeting, where that is the server's first word.
    pub greeting: Option<Duration>,
    /// The TLS handshake.
    pub tls: Option<Duration>,
    /// All that comes before a message or a login: connecting, greeting, TLS, EHLO.
    pub ready: Option<Duration>,
    /// The login.
    pub login: Option<Duration>,
}
