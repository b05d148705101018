//! Verifies a chain of certificates by TLSA records (RFC 7672, 3).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, Der, ServerName, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime,
};
use tokio_rustls::rustls::{self, CertificateError, DigitallySignedStruct};
use webpki::{
    EndEntityCert, KeyUsage, RawPublicKeyEntity, RequiredEkuNotFoundContext, VerifiedPath,
};
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::AnyRef;

use super::{Dane, Kind, Matching, Selector, TlsaRecord, Usage, key_of};
use crate::tls::failure::VerifyError;
use crate::tls::{Certificate, CertificateFailure, chains};

/// The maximum number of trust anchors that records and chain together make. A server has one or
/// two.
const MAX_ANCHORS: usize = 64;

/// Why a chain is not accepted.
pub(super) enum DaneError {
    /// The records are all unusable: nothing is required of the chain.
    NoUsableRecord,
    /// No record is of the server, nor of an authority that it sent or that a record holds.
    NoMatch,
    /// The chain does not lead to the authority of a record, or is not valid up to there.
    Chain(VerifyError),
}

impl From<VerifyError> for DaneError {
    fn from(why: VerifyError) -> Self {
        DaneError::Chain(why)
    }
}

impl From<webpki::Error> for DaneError {
    fn from(error: webpki::Error) -> Self {
        DaneError::Chain(VerifyError::Invalid(error))
    }
}

impl Dane {
    /// The record that verifies the chain, with the authority that it is of.
    pub(in crate::tls) fn verify_chain(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<String, CertificateFailure> {
        self.accept(chain, now, algorithms)
            .map_err(|why| self.failure(why, chains::read(chain), now))
    }

    fn accept(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<String, DaneError> {
        let (leaf, intermediates) = chain.split_first().ok_or(VerifyError::NoCertificate)?;
        let records = self.strongest();
        if records.is_empty() {
            return Err(DaneError::NoUsableRecord);
        }
        // The signature of the handshake cannot be checked with such a key.
        if Certificate::read(leaf).is_some_and(|certificate| certificate.wrong_size().is_some()) {
            return Err(VerifyError::WeakKey.into());
        }
        if let Some(record) = self.of_server(leaf) {
            return Ok(format!("the TLSA record {record}"));
        }
        let candidates = candidates(&records, leaf, intermediates);
        if candidates.is_empty() {
            return Err(DaneError::NoMatch);
        }
        let anchors: Vec<_> = candidates
            .iter()
            .map(|candidate| candidate.anchor.clone())
            .collect();
        let candidate = |path: &VerifiedPath<'_>| {
            let at = anchors
                .iter()
                .position(|anchor| std::ptr::eq(anchor, path.anchor()));
            at.map(|at| &candidates[at])
                .ok_or(webpki::Error::UnknownIssuer)
        };
        let check = |path: &VerifiedPath<'_>| candidate(path)?.check(path, now);
        let certificate = EndEntityCert::try_from(leaf)?;
        let path = certificate.verify_for_usage(
            algorithms.all,
            &anchors,
            intermediates,
            now,
            KeyUsage::server_auth(),
            None,
            Some(&check),
        )?;
        self.check_name(&certificate, leaf, &path)?;
        let Candidate {
            record, authority, ..
        } = candidate(&path)?;
        Ok(match authority {
            Some(authority) => format!("the TLSA record {record} ({})", authority.subject),
            None => format!("the TLSA record {record}"),
        })
    }

    /// The record of usage 3 that is of this server. Only the certificate or its key counts, not
    /// its names, its dates or its issuer (RFC 7672, 3.1.1).
    pub(in crate::tls) fn of_server(&self, leaf: &[u8]) -> Option<&TlsaRecord> {
        let records = self.strongest().into_iter();
        let mut of_servers = records.filter(|(_, kind)| kind.usage == Usage::EndEntity);
        let found =
            of_servers.find(|(record, kind)| kind.data_of(leaf).as_deref() == Some(record.data()));
        found.map(|(record, _)| record)
    }

    /// Checks that the certificate has one of the names (RFC 7672, 3.2.3).
    fn check_name(
        &self,
        certificate: &EndEntityCert<'_>,
        leaf: &CertificateDer<'_>,
        path: &VerifiedPath<'_>,
    ) -> Result<(), webpki::Error> {
        let mut refused = webpki::Error::MalformedDnsIdentifier;
        for name in &self.names {
            let server = ServerName::try_from(name.as_str());
            let Ok(server @ ServerName::DnsName(_)) = server else {
                continue;
            };
            match certificate.verify_is_valid_for_subject_name(&server) {
                Ok(()) => return Ok(()),
                Err(error) => refused = error,
            }
        }
        // The common name counts in a certificate without DNS names. webpki does not apply name
        // constraints to it: below any, it does not count.
        let has_constraints = |certificate: CertificateDer<'_>| {
            Certificate::read(&certificate).is_none_or(|read| read.has_name_constraints())
        };
        let is_limited = path.anchor().name_constraints.is_some()
            || path
                .intermediate_certificates()
                .any(|certificate| has_constraints(certificate.der()));
        if is_limited || certificate.valid_dns_names().next().is_some() {
            return Err(refused);
        }
        let names = Certificate::read(leaf).map_or(Vec::new(), |read| read.dns_names());
        let is_named = |name: &String| names.iter().any(|presented| is_name_of(presented, name));
        match self.names.iter().any(is_named) {
            true => Ok(()),
            false => Err(refused),
        }
    }
}

/// Whether a name in a certificate is that of a host. A wildcard is the whole first label, and
/// stands for one label (RFC 7672, 3.2.3).
fn is_name_of(presented: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    match presented.strip_prefix("*.") {
        Some(parent) => host
            .split_once('.')
            .is_some_and(|(_, rest)| parent.contains('.') && rest.eq_ignore_ascii_case(parent)),
        None => presented.eq_ignore_ascii_case(host),
    }
}

/// A trust anchor by a record of usage 2.
struct Candidate<'a> {
    record: &'a TlsaRecord,
    anchor: TrustAnchor<'static>,
    /// `None` for a key alone.
    authority: Option<Certificate>,
}

impl<'a> Candidate<'a> {
    /// The anchor that a certificate is.
    fn certificate(record: &'a TlsaRecord, der: &[u8]) -> Option<Self> {
        Some(Candidate {
            record,
            anchor: webpki::anchor_from_trusted_cert(&CertificateDer::from(der))
                .ok()?
                .to_owned(),
            authority: Some(Certificate::read(der)?),
        })
    }

    /// The anchor that the key of the record is for certificates of this issuer: a key has no name.
    fn key(record: &'a TlsaRecord, issuer: &[u8]) -> Option<Self> {
        let key = AnyRef::from_der(record.data()).ok()?;
        Some(Candidate {
            record,
            anchor: TrustAnchor {
                subject: Der::from(issuer.to_vec()),
                subject_public_key_info: Der::from(key.value().to_vec()),
                name_constraints: None,
            },
            authority: None,
        })
    }

    /// Checks of the anchor what webpki checks of the authorities below it.
    fn check(&self, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), webpki::Error> {
        let Some(authority) = &self.authority else {
            return Ok(());
        };
        let not_before = unix_time(authority.not_before);
        if now < not_before {
            return Err(webpki::Error::CertNotValidYet {
                time: now,
                not_before,
            });
        }
        let not_after = unix_time(authority.not_after);
        if now > not_after {
            return Err(webpki::Error::CertExpired {
                time: now,
                not_after,
            });
        }
        if authority.is_for_no_server() {
            let context = RequiredEkuNotFoundContext {
                required: KeyUsage::server_auth(),
                present: Vec::new(),
            };
            return Err(webpki::Error::RequiredEkuNotFoundContext(context));
        }
        let Some(limit) = authority.authority() else {
            // RFC 5280, 6.1.4 (k): that a certificate of version 1 or 2 is of an authority
            // is known otherwise, here by the record.
            return match authority.is_version_3() {
                true => Err(webpki::Error::EndEntityUsedAsCa),
                false => Ok(()),
            };
        };
        let below = path.intermediate_certificates();
        let below = below.filter(|below| below.subject() != below.issuer());
        match limit {
            Some(limit) if below.count() > usize::from(limit) => {
                Err(webpki::Error::PathLenConstraintViolated)
            }
            _ => Ok(()),
        }
    }
}

/// The trust anchors: each certificate that was sent and that a record is of; where none was sent,
/// what the record holds. The server's own certificate is not one; usage 3 is for that.
fn candidates<'a>(
    records: &[(&'a TlsaRecord, Kind)],
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Vec<Candidate<'a>> {
    let records = records
        .iter()
        .filter(|(_, kind)| kind.usage == Usage::TrustAnchor);
    let above = intermediates
        .iter()
        .filter(|certificate| *certificate != leaf);
    // Selected and hashed once for each kind: a server may send many, and have many records.
    let mut kinds: Vec<Kind> = Vec::new();
    for (_, kind) in records.clone() {
        if !kinds.contains(kind) {
            kinds.push(*kind);
        }
    }
    let mut sent = Vec::new();
    for kind in kinds {
        sent.extend(
            above
                .clone()
                .filter_map(|der| Some((kind, der, kind.data_of(der)?))),
        );
    }
    let mut found = Vec::new();
    for (record, kind) in records {
        let matching: Vec<_> = sent
            .iter()
            .filter(|(of, _, data)| of == kind && data == record.data())
            .filter_map(|(_, der, _)| Candidate::certificate(record, der))
            .collect();
        match (kind.matching, kind.selector) {
            _ if !matching.is_empty() => found.extend(matching),
            (Matching::Full, Selector::Certificate) => {
                found.extend(Candidate::certificate(record, record.data()));
            }
            (Matching::Full, Selector::Key) => {
                found.extend(
                    issuers(leaf, intermediates)
                        .filter_map(|issuer| Candidate::key(record, &issuer)),
                );
            }
            _ => {}
        }
        if found.len() >= MAX_ANCHORS {
            break;
        }
    }
    found.truncate(MAX_ANCHORS);
    found
}

/// The names of the issuers in the chain, as webpki compares them.
fn issuers(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> impl Iterator<Item = Vec<u8>> {
    let mut names: Vec<_> = [leaf]
        .into_iter()
        .chain(intermediates)
        .filter_map(|der| Some(EndEntityCert::try_from(der).ok()?.issuer().to_vec()))
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

/// Verifies the signature of a TLS 1.2 handshake by the key in a certificate that webpki does not
/// parse (X.509 version 1, or an unknown critical extension). For usage 3 its key is all that
/// counts.
pub(in crate::tls) fn verify_tls12_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let key = public_key(certificate)?;
    let key = RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateError::BadEncoding)?;
    let mut of_scheme = algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| *scheme == signed.scheme)
        .flat_map(|(_, algorithms)| algorithms.iter());
    let is_valid = of_scheme.any(|algorithm| {
        key.verify_signature(*algorithm, message, signed.signature())
            .is_ok()
    });
    match is_valid {
        true => Ok(HandshakeSignatureValid::assertion()),
        false => Err(CertificateError::BadSignature.into()),
    }
}

/// Verifies the signature of a TLS 1.3 handshake by the key in such a certificate.
pub(in crate::tls) fn verify_tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let key = public_key(certificate)?;
    verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
}

fn public_key(certificate: &[u8]) -> Result<SubjectPublicKeyInfoDer<'static>, rustls::Error> {
    let key = key_of(certificate).ok_or(CertificateError::BadEncoding)?;
    Ok(SubjectPublicKeyInfoDer::from(key))
}

fn unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
}
