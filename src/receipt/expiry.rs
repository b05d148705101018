//! The certificates that a connection depends on, and when they have to be renewed.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::Certificate;
use crate::date;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a connection needs a certificate for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CertificateUse {
    /// It is the server's own.
    Server,
    /// It is the client certificate.
    Client,
    /// It is between the server's own and the trust anchor, and the server sends it.
    Intermediate,
    /// It is the trust anchor that verified the server.
    Anchor,
}

impl CertificateUse {
    /// Returns the use as one lower-case word for logs and JSON: `server`, `client`,
    /// `intermediate` or `anchor`.
    pub fn as_str(self) -> &'static str {
        match self {
            CertificateUse::Server => "server",
            CertificateUse::Client => "client",
            CertificateUse::Intermediate => "intermediate",
            CertificateUse::Anchor => "anchor",
        }
    }

    /// The time before the end of the validity from which a certificate should be renewed.
    fn notice(self) -> Duration {
        match self {
            // ACME clients renew a certificate of 90 days when 30 are left.
            CertificateUse::Server | CertificateUse::Client | CertificateUse::Intermediate => {
                DAY * 14
            }
            // A new anchor must reach every client first.
            CertificateUse::Anchor => DAY * 30,
        }
    }
}

/// A certificate that a connection depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsedCertificate {
    /// What it is needed for.
    pub usage: CertificateUse,
    /// Its properties.
    pub certificate: Certificate,
}

impl UsedCertificate {
    /// The time until it expires; zero if it has.
    pub fn remaining(&self) -> Duration {
        let left = self.certificate.not_after.duration_since(SystemTime::now());
        left.unwrap_or_default()
    }

    /// Whether it should be renewed now: it has expired, or will within 14 days (a trust anchor: 30
    /// days), or within a fifth of its validity, if that is shorter, as for certificates that are
    /// valid for a week.
    pub fn expires_soon(&self) -> bool {
        expires_soon(self.usage, &self.certificate, SystemTime::now())
    }
}

impl fmt::Display for UsedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&validity(self.usage, &self.certificate, SystemTime::now()))
    }
}

/// Whether the certificate should be renewed.
pub(crate) fn expires_soon(
    usage: CertificateUse,
    certificate: &Certificate,
    now: SystemTime,
) -> bool {
    let validity = certificate
        .not_after
        .duration_since(certificate.not_before)
        .unwrap_or_default();
    let left = certificate.not_after.duration_since(now);
    left.map_or(true, |left| left < usage.notice().min(validity / 5))
}

/// The end of its validity as text.
pub(crate) fn validity(
    usage: CertificateUse,
    certificate: &Certificate,
    now: SystemTime,
) -> String {
    let what = match usage {
        CertificateUse::Server => "the server's certificate",
        CertificateUse::Client => "the client certificate",
        CertificateUse::Intermediate => "the intermediate certificate",
        CertificateUse::Anchor => "the trust anchor",
    };
    let (subject, until) = (&certificate.subject, certificate.not_after_text());
    if certificate.not_after < now {
        let ago = date::between(certificate.not_after, now);
        format!("{what} {subject} expired {ago} ago, at {until}")
    } else {
        let left = date::between(now, certificate.not_after);
        format!("{what} {subject} expires in {left}, at {until}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Trust;

    #[test]
    fn a_certificate_expires_soon_by_its_use_and_its_validity() {
        let pem = rcgen::generate_simple_self_signed(["mail.example.org".to_owned()])
            .unwrap()
            .cert
            .pem();
        let summary = Trust::empty().pem(pem).load().unwrap();
        let now = SystemTime::now();
        let certificate = |lasts: u32, left: u32| Certificate {
            not_before: now + DAY * left - DAY * lasts,
            not_after: now + DAY * left,
            ..summary.anchors[0].certificate.clone()
        };
        use CertificateUse::{Anchor, Client, Server};
        for (usage, lasts, left, soon) in [
            (Server, 365, 14, false),
            (Server, 365, 13, true),
            (Client, 365, 13, true),
            (Anchor, 3650, 30, false),
            (Anchor, 3650, 29, true),
            // Let's Encrypt: renewed when a third of 90 days is left, or of 45.
            (Server, 90, 29, false),
            (Server, 45, 14, false),
            (Server, 45, 8, true),
            (Server, 6, 2, false),
            (Server, 6, 1, true),
            (Server, 90, 0, true),
        ] {
            let certificate = certificate(lasts, left);
            assert_eq!(
                expires_soon(usage, &certificate, now),
                soon,
                "{usage:?} of {lasts} days, {left} left"
            );
        }
        let expired = certificate(90, 0);
        assert!(expires_soon(Server, &expired, now + DAY));
        let text = validity(Server, &expired, now + DAY * 3);
        assert!(
            text.starts_with(
                "the server's certificate CN=rcgen self signed cert expired 3 days ago"
            ),
            "{text}"
        );
        assert!(validity(Client, &certificate(90, 5), now).contains("expires in 5 days, at 2"));
    }
}
