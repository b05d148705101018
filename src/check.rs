//! Checks that messages can be sent, without sending one.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::connection::clock::Clock;
use crate::connection::connector_for;
use crate::diagnose::certificate as renewal;
use crate::diagnose::check::{SessionFacts, for_session};
use crate::error::Result;
use crate::proto::{Capabilities, Mechanism, Protocol, Transcript};
use crate::tls::{CertificateUse, PlaintextReason, Security, TlsInfo, UsedCertificate};
use crate::{Client, Connection, Endpoint};

/// The result of a check: how messages would be sent, and what to improve.
///
/// `Display` writes it in a few lines.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckReport {
    /// The host that was connected to, as it was given.
    pub server: String,
    /// What protects the connection; `None` for plaintext.
    pub tls: Option<TlsInfo>,
    /// Why an opportunistic connection is not encrypted.
    pub plaintext_reason: Option<PlaintextReason>,
    /// The SASL mechanism of the login, if there was one.
    pub mechanism: Option<Mechanism>,
    /// The extensions that the server offers, such as its [limit of the message
    /// size](Capabilities::size_limit).
    pub capabilities: Capabilities,
    /// The certificates that the connection depends on: the server's own, the client certificate,
    /// the intermediate certificates, and the trust anchor that verified the server. Empty in
    /// plaintext.
    pub certificates: Vec<UsedCertificate>,
    /// What to improve, the most important first, each with the next step: certificates that
    /// [expire soon](UsedCertificate::expires_soon), a connection without protection, a login that
    /// is missing. Empty if nothing needs attention.
    pub advice: Vec<String>,
    /// The number of times that the session had to wait for the server, from the greeting on.
    pub round_trips: u32,
    /// The duration of the check.
    pub elapsed: Duration,
    /// The dialogue on the connection so far, without secrets.
    pub transcript: Transcript,
}

impl CheckReport {
    /// The certificates that expire within this time, or have expired.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn example(report: &envoi::CheckReport) {
    /// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    /// for used in report.expiring_within(30 * DAY) {
    ///     eprintln!("{used}");
    /// }
    /// # }
    /// ```
    pub fn expiring_within(&self, time: Duration) -> impl Iterator<Item = &UsedCertificate> {
        self.certificates
            .iter()
            .filter(move |used| used.remaining() <= time)
    }

    /// Reports on a connection of this endpoint. A shared borrow of it would make the future of the
    /// caller one that cannot be spawned, as a stream of the user need not be `Sync`.
    pub(crate) async fn new(
        connection: &mut Connection,
        endpoint: &Endpoint,
        started: Instant,
    ) -> Result<Self> {
        let mut certificates = Vec::new();
        if let Some(tls) = connection.tls()
            && let Some(connector) =
                connector_for(endpoint, &Clock::start(endpoint.get_timeouts())).await?
        {
            connector.for_each_certificate(tls, |usage, certificate| {
                let certificate = certificate.clone();
                certificates.push(UsedCertificate { usage, certificate });
            });
        }
        let expiring = certificates.iter().filter(|used| used.expires_soon());
        let mut advice: Vec<String> = expiring.map(renew).collect();
        advice.extend(for_session(&SessionFacts {
            tls: connection.tls(),
            plaintext_reason: connection.plaintext_reason(),
            tls_is_off: endpoint.get_security() == Security::None,
            is_local: !endpoint.destination().has_port(),
            lmtp: endpoint.protocol() == Protocol::Lmtp,
            offered: connection.capabilities(),
            mechanism: connection.mechanism(),
        }));
        Ok(CheckReport {
            server: endpoint.server_name(),
            tls: connection.tls().cloned(),
            plaintext_reason: connection.plaintext_reason().cloned(),
            mechanism: connection.mechanism(),
            capabilities: connection.capabilities().clone(),
            certificates,
            advice,
            round_trips: connection.round_trips(),
            elapsed: started.elapsed(),
            transcript: connection.transcript().clone(),
        })
    }
}

fn renew(used: &UsedCertificate) -> String {
    let hint = match used.usage {
        CertificateUse::Server => renewal::RENEW_SERVER,
        CertificateUse::Client => renewal::RENEW_CLIENT,
        CertificateUse::Intermediate => renewal::RENEW_INTERMEDIATE,
        CertificateUse::Anchor => renewal::RENEW_ANCHOR,
    };
    format!("{used}. {hint}")
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is ready", self.server)?;
        match (&self.tls, &self.plaintext_reason) {
            (Some(tls), _) => write!(f, "\n  {tls}")?,
            (None, Some(reason)) => write!(f, "\n  not encrypted: {reason}")?,
            (None, None) => f.write_str("\n  not encrypted")?,
        }
        if let Some(mechanism) = self.mechanism {
            write!(f, "\n  logged in with {mechanism}")?;
        }
        if let Some(limit) = self.capabilities.size_limit() {
            write!(f, "\n  messages of up to {limit} bytes")?;
        }
        for advice in &self.advice {
            write!(f, "\n  advice: {advice}")?;
        }
        Ok(())
    }
}

impl Client {
    /// Checks that messages can be sent: connects, secures the connection, logs in, quits, and
    /// sends nothing. Use it when a program starts, to find wrong settings before the first message
    /// does, or as a health check. `Pool::check` uses a connection of the pool instead.
    ///
    /// The retry policy does not apply. [`probe`](crate::probe()) examines a server whose settings
    /// are not known.
    ///
    /// ```
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use envoi::{Client, testing::Server};
    ///
    /// let server = Server::builder().login("alice", "secret").start().await?;
    /// let report = Client::from_url(&server.url())?.check().await?;
    /// assert!(report.tls.is_some_and(|tls| tls.is_verified()));
    /// assert!(report.advice.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Connection::connect`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it closes the connection.
    pub async fn check(&self) -> Result<CheckReport> {
        let started = Instant::now();
        let mut connection = self.connect().await?;
        let report = CheckReport::new(&mut connection, self.endpoint(), started).await;
        connection.quit_detached().await;
        report
    }
}
