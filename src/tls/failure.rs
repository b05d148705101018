//! The failure of a verification: which certificate, why, and what to do.
//!
//! `webpki` names a reason, but no certificate. So the reason is looked up in the chain that the server sent.

use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::pki_types::UnixTime;

use super::Certificate;
use super::certificate::{apart, pin_text, utc};
use super::store::TrustStore;
use crate::text::printable;
use crate::{Error, Kind, Phase};

/// Why the server's certificate was not accepted, with the chain that it sent.
///
/// It is the [source](std::error::Error::source) of the [`Error`](crate::Error) that a failed verification gives:
///
/// ```
/// use std::error::Error;
/// use envoi::tls::CertificateFailure;
///
/// fn save_chain(error: &envoi::Error) -> Option<String> {
///     let failure = error.source()?.downcast_ref::<CertificateFailure>()?;
///     Some(failure.chain.iter().map(|certificate| certificate.to_pem()).collect())
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CertificateFailure {
    /// What is wrong.
    pub problem: CertificateProblem,
    /// The certificates that the server sent, its own first. What cannot be read as a certificate is left out.
    pub chain: Vec<Certificate>,
    /// Which of the chain it concerns, as an index.
    pub culprit: Option<usize>,
    message: String,
    hint: String,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// It leads to no certificate that is trusted.
    UnknownIssuer,
    /// It vouches for itself, and is not trusted.
    SelfSigned,
    /// It was good until some time ago.
    Expired,
    /// It will be good from some time on.
    NotYetValid,
    /// It is for other names than the one connected to.
    WrongName,
    /// A signature in the chain does not match.
    BadSignature,
    /// It was revoked by its issuer.
    Revoked,
    /// It is not meant for a server, or that of an authority.
    WrongPurpose,
    /// Its key is not the one that is pinned.
    WrongKey,
    /// It cannot be read, or the server sent none.
    Malformed,
    /// Something else; the message has the words.
    Other,
}

impl CertificateFailure {
    /// Finds the words for a chain that is not accepted.
    pub(super) fn new(why: Why, chain: Vec<Certificate>, host: &str, store: &TrustStore, now: UnixTime) -> Self {
        let story = Story { chain: &chain, host, store, now: system_time(now) };
        let Told { problem, culprit, message, hint } = story.tell(why);
        CertificateFailure { problem, chain, culprit, message, hint }
    }

    /// What to do now.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    pub(crate) fn into_error(self) -> Error {
        Error::new(Kind::Tls, Phase::Tls, self.message.clone()).with_hint(self.hint.clone()).with_source(self)
    }
}

impl fmt::Display for CertificateFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for CertificateFailure {}

/// Why a chain is not accepted.
pub(super) enum Why {
    NoCertificate,
    WrongKey,
    Invalid(webpki::Error),
}

/// What there is to tell from.
struct Story<'a> {
    chain: &'a [Certificate],
    host: &'a str,
    store: &'a TrustStore,
    now: SystemTime,
}

struct Told {
    problem: CertificateProblem,
    culprit: Option<usize>,
    message: String,
    hint: String,
}

const TRUST_IT: &str = "(Trust::path, or trust= in the URL)";

impl Story<'_> {
    fn tell(&self, why: Why) -> Told {
        let host = self.host;
        match why {
            Why::NoCertificate => told(
                CertificateProblem::Malformed,
                None,
                format!("{host} sent no certificate"),
                "Ask the administrator of the server for one that has a certificate.",
            ),
            Why::WrongKey => self.wrong_key(),
            Why::Invalid(error) => self.invalid(error),
        }
    }

    fn invalid(&self, error: webpki::Error) -> Told {
        use webpki::Error as E;
        let host = self.host;
        match error {
            E::UnknownIssuer => self.unknown_issuer(),
            // It is looked at before the issuer is, though that nobody trusts it says more.
            E::CaUsedAsEndEntity if self.chain.first().is_some_and(Certificate::is_self_issued) => {
                self.unknown_issuer()
            }
            E::CertExpired { not_after, .. } => self.expired(system_time(not_after)),
            E::CertNotValidYet { not_before, .. } => self.not_yet_valid(system_time(not_before)),
            E::CertNotValidForName(_) => self.wrong_name(),
            E::InvalidSignatureForPublicKey | E::SignatureAlgorithmMismatch => self.bad_signature(),
            E::CertRevoked => told(
                CertificateProblem::Revoked,
                None,
                format!("the certificate of {host}, or one above it, was revoked by its issuer"),
                "Do not send anything to it: its key may be in wrong hands. The server's administrator must install a new one.",
            ),
            E::CaUsedAsEndEntity => told(
                CertificateProblem::WrongPurpose,
                Some(0),
                format!(
                    "the certificate of {host}, {}, is that of an authority (CA:TRUE), not of a server",
                    self.subject(0)
                ),
                format!(
                    "The server's administrator must have one issued for a server; or, if you know that this is the \
                     server's, trust this very certificate: add it {TRUST_IT}."
                ),
            ),
            E::EndEntityUsedAsCa => told(
                CertificateProblem::WrongPurpose,
                None,
                format!(
                    "the certificate of {host} was issued by one that may not issue any: it is no authority (CA:TRUE is missing)"
                ),
                "The server's administrator must have its certificate issued anew.",
            ),
            E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => told(
                CertificateProblem::WrongPurpose,
                Some(0),
                format!(
                    "the certificate of {host}, {}, is not meant for a server (its extended key usage lacks serverAuth)",
                    self.subject(0)
                ),
                "The server's administrator must have it issued anew, for a TLS server.",
            ),
            E::UnsupportedCertVersion => told(
                CertificateProblem::Malformed,
                Some(0),
                format!(
                    "the certificate of {host}, {}, is of an old form (X.509 version 1 or 2) without server names",
                    self.subject(0)
                ),
                "The server's administrator must have it issued anew, as X.509 version 3 with the server's name.",
            ),
            E::BadDer | E::BadDerTime | E::TrailingData(_) | E::MalformedExtensions => self.malformed(),
            E::UnsupportedSignatureAlgorithmContext(_) | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
                told(
                    CertificateProblem::BadSignature,
                    None,
                    format!(
                        "a certificate that {host} sent is signed in a way that is no longer safe, or not supported (SHA-1 or MD5, for example)"
                    ),
                    "The server's administrator must have it issued anew, signed with SHA-256.",
                )
            }
            E::NameConstraintViolation => told(
                CertificateProblem::UnknownIssuer,
                None,
                format!(
                    "the certificate of {host} was issued by an authority that may not issue any for this name (name constraints)"
                ),
                "The server's administrator must have it issued by another authority.",
            ),
            error => told(
                CertificateProblem::Other,
                None,
                format!("the certificate of {host} cannot be verified: {error}"),
                "Show this message to the server's administrator.",
            ),
        }
    }

    /// Walks from the server's certificate to the one whose issuer is neither sent nor trusted.
    fn unknown_issuer(&self) -> Told {
        let host = self.host;
        let trusted = self.store.text();
        if self.chain.is_empty() {
            return self.malformed();
        }
        let mut at = 0;
        let mut seen = vec![0];
        while !self.chain[at].is_self_issued()
            && let Some(next) = (0..self.chain.len())
                .find(|next| !seen.contains(next) && self.chain[at].is_issued_by(&self.chain[*next]))
        {
            seen.push(next);
            at = next;
        }
        let (last, subject) = (&self.chain[at], self.subject(at));
        let fingerprint = &last.sha256;
        if at == 0 && last.is_self_issued() {
            return told(
                CertificateProblem::SelfSigned,
                Some(at),
                format!(
                    "the certificate of {host}, {subject}, is self-signed: no authority vouches for it, and it is not among {trusted}"
                ),
                format!(
                    "If its SHA-256 fingerprint is the one that the server's administrator names ({fingerprint}), save the \
                     certificate as a file and trust that {TRUST_IT}; else this is not your server."
                ),
            );
        }
        if last.is_self_issued() {
            return told(
                CertificateProblem::UnknownIssuer,
                Some(at),
                format!(
                    "the certificate of {host}, {}, was issued under {subject}, which is not among {trusted}",
                    self.subject(0)
                ),
                format!(
                    "If {subject} is your own authority, or that of the server's owner, get its certificate from whoever runs it (its \
                     SHA-256 fingerprint must be {fingerprint}), save it as a file and trust that {TRUST_IT}."
                ),
            );
        }
        let issuer = quoted(&last.issuer);
        let hint = match last.issuer_at() {
            // Only a certificate that was issued to be found says where: that is a public authority, which issues by an intermediate.
            Some(at) => format!(
                "The server most likely left out an intermediate certificate: its administrator must install the full chain (by \
                 the certificate's own account, the missing one is at {at})."
            ),
            None => format!(
                "If {issuer} is an authority of your own, get its certificate from whoever runs it, save it as a file and trust that \
                 {TRUST_IT}. If it is an intermediate of a public one, the server left it out: its administrator must install the full chain."
            ),
        };
        let sent = match self.chain.len() {
            1 => "the server sent no other certificate".to_owned(),
            number => format!("it is not among the {number} certificates that the server sent"),
        };
        let which = match at {
            0 => format!("the certificate of {host}, {subject}, was issued by {issuer}, which is missing"),
            _ => format!("the certificate of {host} leads to {subject}, whose issuer {issuer} is missing"),
        };
        told(CertificateProblem::UnknownIssuer, Some(at), format!("{which}: {sent}, nor is it among {trusted}"), hint)
    }

    fn wrong_key(&self) -> Told {
        let host = self.host;
        let Some(leaf) = self.chain.first() else { return self.malformed() };
        let pins: Vec<_> = self.store.pins.iter().map(pin_text).collect();
        let (key, pinned) = (leaf.pin(), pins.join(" or "));
        let message = format!("the key of {host} is {key}, and not the one that is pinned, {pinned}");
        let hint = if pins.iter().any(|pin| *pin == pin_text(&leaf.hash())) {
            format!("The pin is the hash of the certificate. Pin the hash of its key instead, which is {key}")
        } else {
            "The server has probably got a new key: ask its administrator for its hash, and pin that. If it has not, somebody else \
             answers in the server's place."
                .to_owned()
        };
        told(CertificateProblem::WrongKey, Some(0), message, hint)
    }

    fn malformed(&self) -> Told {
        told(
            CertificateProblem::Malformed,
            None,
            format!("a certificate that {} sent cannot be read", self.host),
            "The server's administrator must have it issued anew.",
        )
    }

    fn expired(&self, not_after: SystemTime) -> Told {
        let at = self.chain.iter().position(|certificate| same_second(certificate.not_after, not_after));
        let (ago, now) = (apart(not_after, self.now), utc(self.now));
        told(
            CertificateProblem::Expired,
            at,
            format!("{} expired {ago} ago, at {} (now it is {now})", self.which(at), utc(not_after)),
            "The server's administrator must install a new one (and reload the server, if there is one already). \
             If the time given as now is wrong, set this machine's clock.",
        )
    }

    fn not_yet_valid(&self, not_before: SystemTime) -> Told {
        let at = self.chain.iter().position(|certificate| same_second(certificate.not_before, not_before));
        let (left, now) = (apart(self.now, not_before), utc(self.now));
        told(
            CertificateProblem::NotYetValid,
            at,
            format!(
                "{} is not valid yet: it will be in {left}, from {} on (now it is {now})",
                self.which(at),
                utc(not_before)
            ),
            "If the time given as now is wrong, set this machine's clock; else the server's administrator installed the \
             certificate too early.",
        )
    }

    fn wrong_name(&self) -> Told {
        let host = self.host;
        let wanted = match host.parse::<IpAddr>() {
            Ok(_) => format!("the IP address {host}"),
            Err(_) => host.to_owned(),
        };
        let names = self.chain.first().map_or(&[][..], |leaf| &leaf.names);
        if names.is_empty() {
            return told(
                CertificateProblem::WrongName,
                Some(0),
                format!(
                    "the certificate that {host} sent, {}, names no server at all: it has no subject alternative name \
                     (the CN does not count: RFC 9525, 2)",
                    self.subject(0)
                ),
                format!(
                    "The server's administrator must have it issued anew, with {wanted} as subject alternative name."
                ),
            );
        }
        let mut list = names.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        if names.len() > 8 {
            list.push_str(&format!(" and {} more", names.len() - 8));
        }
        told(
            CertificateProblem::WrongName,
            Some(0),
            format!("the certificate that {host} sent is for {list}, not for {wanted}"),
            "Connect to a name that it is for; or, if you are sure that this is the server you mean, set that name as the \
             server name (TlsSettings::server_name, or server-name= in the URL).",
        )
    }

    fn bad_signature(&self) -> Told {
        let anchors = &self.store.summary.anchors;
        let namesake = self.chain.iter().enumerate().find_map(|(at, certificate)| {
            let anchor = anchors.iter().find(|anchor| certificate.is_issued_by(&anchor.certificate))?;
            Some((at, anchor))
        });
        let (at, message) = match namesake {
            Some((at, anchor)) => (
                Some(at),
                format!(
                    "{} says that {} issued it, but its signature is not by the key of the certificate of that name which is trusted ({})",
                    self.which(Some(at)),
                    quoted(&anchor.certificate.subject),
                    anchor.origin
                ),
            ),
            None => (None, format!("a signature in the chain of certificates that {} sent does not match", self.host)),
        };
        told(
            CertificateProblem::BadSignature,
            at,
            message,
            "The authority has probably got a new key: get its present certificate and trust that. If it has not, somebody \
             else answers in the server's place.",
        )
    }

    fn subject(&self, at: usize) -> String {
        self.chain.get(at).map_or_else(|| "which cannot be read".into(), |certificate| quoted(&certificate.subject))
    }

    fn which(&self, at: Option<usize>) -> String {
        let host = self.host;
        match at {
            Some(0) => format!("the certificate of {host}, {},", self.subject(0)),
            Some(at) => {
                format!("a certificate in the chain that {host} sent, {} (not the server's own),", self.subject(at))
            }
            None => format!("a certificate in the chain of {host}"),
        }
    }
}

fn told(problem: CertificateProblem, culprit: Option<usize>, message: String, hint: impl Into<String>) -> Told {
    Told { problem, culprit, message: printable(message), hint: printable(hint.into()) }
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

fn same_second(a: SystemTime, b: SystemTime) -> bool {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).ok();
    seconds(a) == seconds(b)
}
