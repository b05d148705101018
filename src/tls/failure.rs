//! Diagnoses a failed verification: which certificate, why, and what to do.
//!
//! `webpki` gives a reason but no certificate, so the reason is looked up in the chain that the
//! server sent.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};

use super::certificate::pin_text;
use super::issuers::Issuers;
use super::reasons::webpki_text;
use super::store::TrustStore;
use super::trust::Anchor;
use super::{Certificate, CertificateFailure, CertificateProblem};
use crate::diagnose::certificate as advice;
use crate::text::printable;
use crate::{Error, ErrorKind, Phase, date};

impl CertificateFailure {
    /// Describes why a chain is not accepted.
    pub(super) fn new(
        why: VerifyError,
        chain: Vec<Certificate>,
        host: &str,
        store: &TrustStore,
        now: UnixTime,
    ) -> Self {
        let diagnoser = Diagnoser {
            chain: &chain,
            host,
            store,
            now: system_time(now),
            path: match chain.len() {
                0 => Vec::new(),
                length => Issuers::new(chain.iter().map(Certificate::der)).path(0, length),
            },
        };
        let Diagnosis {
            problem,
            index,
            message,
            hint,
        } = diagnoser.diagnose(why);
        CertificateFailure {
            problem,
            chain,
            index,
            message,
            hint,
        }
    }

    pub(crate) fn into_error(self) -> Error {
        Error::new(ErrorKind::Tls, Phase::Tls, self.message.clone())
            .with_hint(self.hint.clone())
            .with_source(self)
    }
}

/// Why a chain is not accepted.
pub(super) enum VerifyError {
    NoCertificate,
    WrongKey,
    /// The key of the server's certificate cannot verify a handshake.
    WeakKey,
    Invalid(webpki::Error),
}

/// What a diagnosis is made from.
struct Diagnoser<'a> {
    chain: &'a [Certificate],
    host: &'a str,
    store: &'a TrustStore,
    now: SystemTime,
    /// The indexes in the chain of the server's certificate and of its issuers, if they were sent.
    path: Vec<usize>,
}

struct Diagnosis {
    problem: CertificateProblem,
    index: Option<usize>,
    message: String,
    hint: String,
}

impl Diagnoser<'_> {
    fn diagnose(&self, why: VerifyError) -> Diagnosis {
        let host = self.host;
        match why {
            VerifyError::NoCertificate => diagnosis(
                CertificateProblem::Malformed,
                None,
                format!("{host} sent no certificate"),
                advice::NO_CERTIFICATE,
            ),
            VerifyError::WrongKey => self.wrong_key(),
            VerifyError::WeakKey => self
                .weak_key(Some(0))
                .unwrap_or_else(|| self.malformed(None)),
            VerifyError::Invalid(error) => self.invalid(error),
        }
    }

    fn invalid(&self, error: webpki::Error) -> Diagnosis {
        use webpki::Error as E;
        let host = self.host;
        match error {
            E::UnknownIssuer => self.unknown_issuer(),
            // webpki checks this before the issuer, but the unknown issuer matters more.
            E::CaUsedAsEndEntity if self.chain.first().is_some_and(Certificate::is_self_issued) => {
                self.unknown_issuer()
            }
            E::CertExpired { not_after, .. } => self.expired(system_time(not_after)),
            E::CertNotValidYet { not_before, .. } => self.not_yet_valid(system_time(not_before)),
            E::CertNotValidForName(_) => self.wrong_name(),
            E::InvalidSignatureForPublicKey => {
                let weak = self
                    .path
                    .iter()
                    .copied()
                    .skip(1)
                    .find_map(|at| self.weak_key(Some(at)));
                weak.or_else(|| self.weak_key(None))
                    .unwrap_or_else(|| self.bad_signature())
            }
            E::SignatureAlgorithmMismatch => {
                let at = self.find(Certificate::names_two_algorithms);
                self.reissue(
                    CertificateProblem::BadSignature,
                    at,
                    "names two algorithms for its one signature",
                )
            }
            E::CertRevoked => {
                let at = self.find(|certificate| self.is_revoked(certificate));
                let which = match at {
                    Some(at) => self.which(Some(at)),
                    None => format!("the certificate of {host}, or one above it,"),
                };
                diagnosis(
                    CertificateProblem::Revoked,
                    at,
                    format!("{which} was revoked by its issuer"),
                    advice::REVOKED,
                )
            }
            E::CaUsedAsEndEntity => diagnosis(
                CertificateProblem::WrongPurpose,
                Some(0),
                format!(
                    "the certificate of {host}, {}, is that of an authority (CA:TRUE), not of a \
                        server",
                    self.subject(0)
                ),
                advice::AUTHORITY_AS_SERVER,
            ),
            E::EndEntityUsedAsCa => {
                let at = self.find_above(|certificate| certificate.authority().is_none());
                let issuer = at.map_or(String::new(), |at| format!(", {},", self.subject(at)));
                diagnosis(
                    CertificateProblem::WrongPurpose,
                    at,
                    format!(
                        "the certificate of {host} was issued by one{issuer} that may not issue \
                            any: it is not an authority (CA:TRUE is missing)"
                    ),
                    advice::ISSUER_IS_NOT_AUTHORITY,
                )
            }
            E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => {
                let at = self.find(Certificate::is_for_no_server).unwrap_or_default();
                let which = self.which(Some(at));
                let reach = if at == 0 {
                    ""
                } else {
                    ", which holds for all that it issued"
                };
                diagnosis(
                    CertificateProblem::WrongPurpose,
                    Some(at),
                    format!(
                        "{which} is not meant for a server (its extended key usage lacks \
                            serverAuth{reach})"
                    ),
                    match at {
                        0 => advice::PURPOSE,
                        _ => advice::PURPOSE_OF_ISSUER,
                    },
                )
            }
            E::PathLenConstraintViolated => self.too_many_authorities(),
            E::InvalidCertValidity => {
                let at = self.find(|certificate| certificate.not_before > certificate.not_after);
                let dates =
                    at.and_then(|at| self.chain.get(at))
                        .map_or(String::new(), |certificate| {
                            format!(
                                " (valid from {} until {})",
                                certificate.not_before_text(),
                                certificate.not_after_text()
                            )
                        });
                self.reissue(
                    CertificateProblem::Malformed,
                    at,
                    &format!("ends before it begins{dates}"),
                )
            }
            E::UnsupportedCriticalExtension => {
                let at =
                    self.find(|certificate| !certificate.unknown_critical_extensions().is_empty());
                let names = at
                    .map(|at| self.chain[at].unknown_critical_extensions())
                    .unwrap_or_default();
                let names = match names.len() {
                    0 => String::new(),
                    1..=4 => format!(": {}", names.join("; ")),
                    more => format!(": {} and {} more", names[..4].join("; "), more - 4),
                };
                diagnosis(
                    CertificateProblem::Other,
                    at,
                    format!(
                        "{} has a critical extension that is not supported{names}",
                        self.which(at)
                    ),
                    match at {
                        // Without it no signature of the handshake is checked, so a pin would prove
                        // nothing.
                        Some(0) | None => advice::CRITICAL_EXTENSION,
                        Some(_) => advice::CRITICAL_EXTENSION_OF_ISSUER,
                    },
                )
            }
            E::UnsupportedCertVersion => diagnosis(
                CertificateProblem::Malformed,
                Some(0),
                format!(
                    "the certificate of {host}, {}, is of an old form (X.509 version 1 or 2) \
                        without server names",
                    self.subject(0)
                ),
                advice::OLD_VERSION,
            ),
            E::UnsupportedSignatureAlgorithmContext(context) => {
                self.unsupported_signature(&context.signature_algorithm_id)
            }
            E::UnsupportedSignatureAlgorithmForPublicKeyContext(context) => {
                self.unsupported_signature(&context.signature_algorithm_id)
            }
            E::NameConstraintViolation => self.name_limits(),
            E::MaximumNameConstraintComparisonsExceeded
            | E::MaximumPathBuildCallsExceeded
            | E::MaximumPathDepthExceeded
            | E::MaximumSignatureChecksExceeded => diagnosis(
                CertificateProblem::Other,
                None,
                format!(
                    "the chain of {} certificates that {host} sent takes more work to verify than \
                        is done: {}",
                    self.chain.len(),
                    webpki_text(&error)
                ),
                advice::TOO_MUCH_WORK,
            ),
            E::BadDer
            | E::BadDerTime
            | E::TrailingData(_)
            | E::MalformedExtensions
            | E::ExtensionValueInvalid
            | E::InvalidSerialNumber
            | E::MalformedDnsIdentifier
            | E::MalformedNameConstraint
            | E::InvalidNetworkMaskConstraint => self.malformed(Some(&error)),
            error => diagnosis(
                CertificateProblem::Other,
                None,
                format!(
                    "the certificate of {host}, {}, cannot be verified: {}",
                    self.subject(0),
                    webpki_text(&error)
                ),
                advice::OTHER,
            ),
        }
    }

    /// Whether the certificate is on a revocation list.
    fn is_revoked(&self, certificate: &Certificate) -> bool {
        let der = CertificateDer::from(certificate.der());
        webpki::EndEntityCert::try_from(&der).is_ok_and(|read| {
            let lists = self
                .store
                .revocation_lists
                .iter()
                .filter(|list| list.issuer() == read.issuer());
            lists
                .filter_map(|list| list.find_serial(read.serial()).ok())
                .any(|entry| entry.is_some())
        })
    }

    /// The first matching certificate on the path, or else in the chain.
    fn find(&self, is_so: impl Fn(&Certificate) -> bool) -> Option<usize> {
        let is_so = |at: &usize| is_so(&self.chain[*at]);
        let in_path = self.path.iter().copied().find(is_so);
        in_path.or_else(|| (0..self.chain.len()).find(is_so))
    }

    /// The first matching certificate above the server's own.
    fn find_above(&self, is_so: impl Fn(&Certificate) -> bool) -> Option<usize> {
        self.path
            .iter()
            .copied()
            .skip(1)
            .find(|at| is_so(&self.chain[*at]))
    }

    /// The trust anchor with the name of the issuer of the last certificate on the path.
    fn anchor(&self) -> Option<&Anchor> {
        let last = &self.chain[*self.path.last()?];
        self.store
            .summary
            .anchors
            .iter()
            .find(|anchor| last.is_issued_by(&anchor.certificate))
    }

    /// Diagnoses a key of an unsupported size in a certificate of the chain, or in the anchor above
    /// it.
    fn weak_key(&self, at: Option<usize>) -> Option<Diagnosis> {
        let (which, certificate) = match at {
            Some(at) => (self.which(Some(at)), self.chain.get(at)?),
            None => {
                let anchor = self.anchor()?;
                let subject = in_quotes(&anchor.certificate.subject);
                (
                    format!("the trusted certificate {subject} ({}),", anchor.origin),
                    &anchor.certificate,
                )
            }
        };
        let size = certificate.wrong_size()?;
        let hint = match at {
            Some(0) => advice::SHORT_KEY,
            _ => advice::SHORT_KEY_OF_ISSUER,
        };
        let message = format!(
            "{which} has an RSA key of {} bits; {}",
            size.bits, size.needed
        );
        Some(diagnosis(CertificateProblem::WeakKey, at, message, hint))
    }

    /// Diagnoses a certificate of the chain that must be replaced because of what it is or
    /// contains.
    fn reissue(&self, problem: CertificateProblem, at: Option<usize>, what: &str) -> Diagnosis {
        let hint = match at {
            Some(0) | None => advice::REISSUE,
            _ => advice::REISSUE_ISSUER,
        };
        diagnosis(problem, at, format!("{} {what}", self.which(at)), hint)
    }

    /// Diagnoses a signature algorithm that is broken, unknown, or not for its key.
    fn unsupported_signature(&self, algorithm: &[u8]) -> Diagnosis {
        let at = self.find(|certificate| certificate.is_signed_with(algorithm));
        let Some(at) = at else {
            let host = self.host;
            let message = format!(
                "a certificate that {host} sent is signed in a way that is no longer safe, or not \
                    supported (SHA-1 or MD5, for example)"
            );
            let hint = advice::OLD_SIGNATURE;
            return diagnosis(CertificateProblem::BadSignature, None, message, hint);
        };
        let certificate = &self.chain[at];
        let why = if certificate.has_broken_signature() {
            "is no longer safe"
        } else {
            "is not supported for this key"
        };
        diagnosis(
            CertificateProblem::BadSignature,
            Some(at),
            format!(
                "{} is signed with {}, which {why}",
                self.which(Some(at)),
                certificate.signature_algorithm()
            ),
            match at {
                0 => advice::OLD_SIGNATURE,
                _ => advice::OLD_SIGNATURE_OF_ISSUER,
            },
        )
    }

    /// Diagnoses an authority with more authorities below it than it allows (RFC 5280, 4.2.1.9).
    fn too_many_authorities(&self) -> Diagnosis {
        let path = &self.path;
        let found = path.iter().enumerate().skip(1).find_map(|(height, at)| {
            let allowed = usize::from(self.chain[*at].authority()??);
            // The authorities between it and the server's certificate; self-issued ones do not
            // count.
            let below = path[1..height]
                .iter()
                .filter(|at| !self.chain[**at].is_self_issued())
                .count();
            (below > allowed).then_some((*at, allowed, below))
        });
        let at = found.map(|(at, ..)| at);
        let numbers = found.map_or(String::new(), |(_, allowed, below)| {
            format!(": {allowed} at most, and there are {below}")
        });
        diagnosis(
            CertificateProblem::WrongPurpose,
            at,
            format!(
                "{} has more authorities below it than it allows (pathLenConstraint){numbers}",
                self.which(at)
            ),
            advice::TOO_MANY_AUTHORITIES,
        )
    }

    /// Diagnoses a name outside of what an authority may issue for, or constraints of a kind that
    /// is not supported (RFC 5280, 4.2.1.10).
    fn name_limits(&self) -> Diagnosis {
        let host = self.host;
        let anchor = self.anchor().map(|anchor| {
            let subject = in_quotes(&anchor.certificate.subject);
            (
                None,
                format!("the trusted certificate {subject} ({})", anchor.origin),
                &anchor.certificate,
            )
        });
        let above = self.path.iter().copied().skip(1);
        let above = above.map(|at| {
            (
                Some(at),
                format!("the authority {}", self.subject(at)),
                &self.chain[at],
            )
        });
        let limits: Vec<_> = above
            .chain(anchor)
            .filter_map(|(at, which, certificate)| Some((at, which, certificate.name_limits()?)))
            .collect();
        let names = self.chain.first().map_or(&[][..], |leaf| &leaf.names);
        let outside = limits.iter().find_map(|(at, which, limits)| {
            Some((at, which, names.iter().find(|name| limits.excludes(name))?))
        });
        let unchecked = limits
            .iter()
            .find_map(|(at, which, limits)| Some((at, which, limits.unchecked()?)));
        if let (None, Some((at, which, kind))) = (outside, unchecked) {
            return diagnosis(
                CertificateProblem::Other,
                *at,
                format!(
                    "the certificate of {host} cannot be verified: {which} limits by {kind} what \
                        it may be used for (name constraints), \
                     and such limits cannot be checked here"
                ),
                advice::UNSUPPORTED_CONSTRAINTS,
            );
        }
        let by = outside.map_or(String::new(), |(_, which, name)| {
            format!(": {which} excludes {name}")
        });
        diagnosis(
            CertificateProblem::UnknownIssuer,
            outside.and_then(|(at, ..)| *at),
            format!(
                "the certificate of {host} was issued by an authority that may not issue any for \
                    this name (name constraints){by}"
            ),
            advice::OTHER_AUTHORITY,
        )
    }

    /// Walks from the server's certificate to the one whose issuer is neither sent nor trusted.
    fn unknown_issuer(&self) -> Diagnosis {
        let host = self.host;
        let trusted = self.store.text();
        if self.chain.is_empty() {
            return self.malformed(None);
        }
        let at = self.path.last().copied().unwrap_or_default();
        let (last, subject) = (&self.chain[at], self.subject(at));
        let fingerprint = &last.sha256;
        if at == 0 && last.is_self_issued() {
            return diagnosis(
                CertificateProblem::SelfSigned,
                Some(at),
                format!(
                    "the certificate of {host}, {subject}, is self-signed: no authority vouches \
                        for it, and it is not among {trusted}"
                ),
                advice::self_signed(fingerprint),
            );
        }
        if last.is_self_issued() {
            return diagnosis(
                CertificateProblem::UnknownIssuer,
                Some(at),
                format!(
                    "the certificate of {host}, {}, was issued under {subject}, which is not \
                        among {trusted}",
                    self.subject(0)
                ),
                advice::private_authority(&subject, fingerprint),
            );
        }
        let issuer = in_quotes(&last.issuer);
        let hint = match &last.issuer_at {
            Some(url) => advice::missing_intermediate(url),
            None => advice::missing_issuer(&issuer),
        };
        let sent = match self.chain.len() {
            1 => "the server sent no other certificate".to_owned(),
            number => format!("it is not among the {number} certificates that the server sent"),
        };
        let which = match at {
            0 => format!(
                "the certificate of {host}, {subject}, was issued by {issuer}, which is missing"
            ),
            _ => format!(
                "the certificate of {host} leads to {subject}, whose issuer {issuer} is missing"
            ),
        };
        diagnosis(
            CertificateProblem::UnknownIssuer,
            Some(at),
            format!("{which}: {sent}, nor is it among {trusted}"),
            hint,
        )
    }

    fn wrong_key(&self) -> Diagnosis {
        let host = self.host;
        let Some(leaf) = self.chain.first() else {
            return self.malformed(None);
        };
        let pins: Vec<_> = self.store.pins.iter().map(pin_text).collect();
        let (key, pinned) = (leaf.pin(), pins.join(" or "));
        let message =
            format!("the key of {host} is {key}, and not the one that is pinned, {pinned}");
        let hint = if pins.iter().any(|pin| *pin == pin_text(&leaf.hash())) {
            advice::certificate_pinned(&key)
        } else {
            advice::NEW_KEY.to_owned()
        };
        diagnosis(CertificateProblem::WrongKey, Some(0), message, hint)
    }

    /// Diagnoses a certificate that webpki cannot parse, for this reason.
    fn malformed(&self, error: Option<&webpki::Error>) -> Diagnosis {
        let is_unreadable = |certificate: &Certificate| {
            let der = CertificateDer::from(certificate.der());
            error.is_some() && webpki::EndEntityCert::try_from(&der).err().as_ref() == error
        };
        let at = self.find(is_unreadable);
        let which = match at {
            Some(at) => format!("{} cannot be read", self.which(Some(at))),
            None => format!("a certificate that {} sent cannot be read", self.host),
        };
        let why = error.map_or(String::new(), |error| format!(": {}", webpki_text(error)));
        let hint = advice::REISSUE;
        diagnosis(
            CertificateProblem::Malformed,
            at,
            format!("{which}{why}"),
            hint,
        )
    }

    fn expired(&self, not_after: SystemTime) -> Diagnosis {
        let at = self
            .chain
            .iter()
            .position(|certificate| same_second(certificate.not_after, not_after));
        let (ago, now) = (date::between(not_after, self.now), date::rfc3339(self.now));
        diagnosis(
            CertificateProblem::Expired,
            at,
            format!(
                "{} expired {ago} ago, at {} (now it is {now})",
                self.which(at),
                date::rfc3339(not_after)
            ),
            advice::EXPIRED,
        )
    }

    fn not_yet_valid(&self, not_before: SystemTime) -> Diagnosis {
        let at = self
            .chain
            .iter()
            .position(|certificate| same_second(certificate.not_before, not_before));
        let (left, now) = (date::between(self.now, not_before), date::rfc3339(self.now));
        diagnosis(
            CertificateProblem::NotYetValid,
            at,
            format!(
                "{} is not valid yet: it will be in {left}, from {} on (now it is {now})",
                self.which(at),
                date::rfc3339(not_before)
            ),
            advice::NOT_YET_VALID,
        )
    }

    fn wrong_name(&self) -> Diagnosis {
        let host = self.host;
        let wanted = match host.parse::<IpAddr>() {
            Ok(_) => format!("the IP address {host}"),
            Err(_) => host.to_owned(),
        };
        let names = self.chain.first().map_or(&[][..], |leaf| &leaf.names);
        if names.is_empty() {
            return diagnosis(
                CertificateProblem::WrongName,
                Some(0),
                format!(
                    "the certificate that {host} sent, {}, names no server at all: it has no \
                        subject alternative name \
                     (the CN does not count: RFC 9525, 2)",
                    self.subject(0)
                ),
                advice::no_name(&wanted),
            );
        }
        let mut list = names.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        if names.len() > 8 {
            list.push_str(&format!(" and {} more", names.len() - 8));
        }
        diagnosis(
            CertificateProblem::WrongName,
            Some(0),
            format!("the certificate that {host} sent is for {list}, not for {wanted}"),
            advice::OTHER_NAME,
        )
    }

    fn bad_signature(&self) -> Diagnosis {
        let anchors = &self.store.summary.anchors;
        let namesake = self.chain.iter().enumerate().find_map(|(at, certificate)| {
            let anchor = anchors
                .iter()
                .find(|anchor| certificate.is_issued_by(&anchor.certificate))?;
            Some((at, anchor))
        });
        let (at, message) = match namesake {
            Some((at, anchor)) => (
                Some(at),
                format!(
                    "{} says that {} issued it, but its signature is not by the key of the \
                        certificate of that name which is trusted ({})",
                    self.which(Some(at)),
                    in_quotes(&anchor.certificate.subject),
                    anchor.origin
                ),
            ),
            None => (
                None,
                format!(
                    "a signature in the chain of certificates that {} sent does not match",
                    self.host
                ),
            ),
        };
        diagnosis(
            CertificateProblem::BadSignature,
            at,
            message,
            advice::NEW_AUTHORITY_KEY,
        )
    }

    fn subject(&self, at: usize) -> String {
        self.chain.get(at).map_or_else(
            || "which cannot be read".into(),
            |certificate| in_quotes(&certificate.subject),
        )
    }

    fn which(&self, at: Option<usize>) -> String {
        let host = self.host;
        match at {
            Some(0) => format!("the certificate of {host}, {},", self.subject(0)),
            Some(at) => {
                format!(
                    "a certificate in the chain that {host} sent, {} (not the server's own),",
                    self.subject(at)
                )
            }
            None => format!("a certificate in the chain of {host}"),
        }
    }
}

fn diagnosis(
    problem: CertificateProblem,
    index: Option<usize>,
    message: String,
    hint: impl Into<String>,
) -> Diagnosis {
    Diagnosis {
        problem,
        index,
        message: printable(message),
        hint: printable(hint.into()),
    }
}

/// A name from a certificate, which RFC 4514 has escaped already.
fn in_quotes(name: &str) -> String {
    format!("\"{name}\"")
}

fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

fn same_second(a: SystemTime, b: SystemTime) -> bool {
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH)
            .map(|since| since.as_secs())
            .ok()
    };
    seconds(a) == seconds(b)
}
