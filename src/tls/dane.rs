//! TLSA records (RFC 6698), which say by which certificate or key a server is recognized, and the
//! verification by them (RFC 7672).

mod failure;
mod verify;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256, Sha512};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

pub(super) use self::verify::{verify_tls12_signature, verify_tls13_signature};
use super::{Certificate, connector};
use crate::Result;

/// A TLSA record (RFC 6698, 2.1): the certificate or key that a server presents, or one of an
/// authority above it.
///
/// `Display` writes the zone-file form (RFC 6698, 2.2): `3 1 1 8CB0…`, with the digits in lower
/// case.
///
/// ```
/// use envoi::mx::TlsaRecord;
///
/// let record = TlsaRecord::new(3, 1, 1, [0xAB; 32]);
/// assert!(record.is_usable());
/// assert!(record.to_string().starts_with("3 1 1 abab"));
/// // The certificate usages for public authorities are not for mail servers.
/// assert!(!TlsaRecord::new(1, 1, 1, [0xAB; 32]).is_usable());
/// // A SHA-256 digest has 32 octets.
/// assert!(!TlsaRecord::new(3, 1, 1, [0xAB; 20]).is_usable());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TlsaRecord {
    usage: u8,
    selector: u8,
    matching: u8,
    data: Vec<u8>,
}

impl TlsaRecord {
    /// Creates a record of its four fields, whatever their values.
    pub fn new(usage: u8, selector: u8, matching: u8, data: impl Into<Vec<u8>>) -> Self {
        TlsaRecord {
            usage,
            selector,
            matching,
            data: data.into(),
        }
    }

    /// Parses the RDATA of a record. `None` if it has fewer octets than the three fields before the
    /// data.
    pub fn from_rdata(rdata: &[u8]) -> Option<Self> {
        match rdata {
            [usage, selector, matching, data @ ..] => {
                Some(TlsaRecord::new(*usage, *selector, *matching, data))
            }
            _ => None,
        }
    }

    /// The record for the public key of a server's certificate: `3 1 1`, the form that RFC 7672,
    /// 3.1 recommends. It stays valid when the certificate is renewed for the same key.
    pub fn of_key(certificate: &Certificate) -> Self {
        TlsaRecord::new(
            Usage::EndEntity as u8,
            1,
            Matching::Sha256 as u8,
            certificate.key_hash(),
        )
    }

    /// The certificate usage (RFC 6698, 2.1.1): 2 for an authority above the server (DANE-TA), 3
    /// for the server itself (DANE-EE).
    pub fn usage(&self) -> u8 {
        self.usage
    }

    /// The selector (RFC 6698, 2.1.2): 0 for the whole certificate, 1 for its public key.
    pub fn selector(&self) -> u8 {
        self.selector
    }

    /// The matching type (RFC 6698, 2.1.3): 0 for the selected content itself, 1 for its SHA-256
    /// digest, 2 for its SHA-512 digest.
    pub fn matching(&self) -> u8 {
        self.matching
    }

    /// The selected content, or its digest.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Whether a mail server can be verified by this record: its certificate usage is 2 or 3 (0 and
    /// 1 are unusable, RFC 7672, 3.1.3), selector and matching type are known, and the data has the
    /// form that they imply.
    ///
    /// TLS is required for a server whose records are all unusable, too, but its certificate is not
    /// verified (RFC 7672, 2.2).
    pub fn is_usable(&self) -> bool {
        self.kind().is_some()
    }

    /// Whether the record is usable and has the data of this certificate. That is all that counts
    /// for a server's own certificate and usage 3. An authority of usage 2 must also have issued
    /// the server's certificate.
    pub fn matches(&self, certificate: &Certificate) -> bool {
        self.kind()
            .and_then(|kind| kind.data_of(certificate.der()))
            .is_some_and(|data| data == self.data)
    }

    /// What a usable record says.
    pub(super) fn kind(&self) -> Option<Kind> {
        let kind = Kind {
            usage: match self.usage {
                2 => Usage::TrustAnchor,
                3 => Usage::EndEntity,
                _ => return None,
            },
            selector: match self.selector {
                0 => Selector::Certificate,
                1 => Selector::Key,
                _ => return None,
            },
            matching: match self.matching {
                0 => Matching::Full,
                1 => Matching::Sha256,
                2 => Matching::Sha512,
                _ => return None,
            },
        };
        let has_its_form = match (kind.matching, kind.selector) {
            (Matching::Sha256, _) => self.data.len() == 32,
            (Matching::Sha512, _) => self.data.len() == 64,
            (Matching::Full, Selector::Certificate) => Certificate::read(&self.data).is_some(),
            (Matching::Full, Selector::Key) => {
                SubjectPublicKeyInfoOwned::from_der(&self.data).is_ok()
            }
        };
        has_its_form.then_some(kind)
    }
}

impl fmt::Display for TlsaRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ", self.usage, self.selector, self.matching)?;
        self.data
            .iter()
            .try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// The first three fields of a usable record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) usage: Usage,
    pub(super) selector: Selector,
    pub(super) matching: Matching,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    TrustAnchor = 2,
    EndEntity = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selector {
    Certificate,
    Key,
}

/// The matching types, the strongest digest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Matching {
    Full = 0,
    Sha256 = 1,
    Sha512 = 2,
}

impl Kind {
    /// The octets that a record of this kind has for a certificate; `None` if it cannot be parsed.
    pub(super) fn data_of(self, certificate: &[u8]) -> Option<Vec<u8>> {
        let selected = match self.selector {
            Selector::Certificate => certificate.to_vec(),
            Selector::Key => key_of(certificate)?,
        };
        Some(match self.matching {
            Matching::Full => selected,
            Matching::Sha256 => Sha256::digest(selected).to_vec(),
            Matching::Sha512 => Sha512::digest(selected).to_vec(),
        })
    }
}

/// The public key of a certificate: its SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) in DER.
fn key_of(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = CertificateInner::<Raw>::from_der(certificate).ok()?;
    let key = parsed.tbs_certificate().subject_public_key_info();
    key.to_der().ok()
}

/// How a mail server is verified by its TLSA records (RFC 7672, 3).
///
/// With a record of usage 3, the server must have its certificate or key, and nothing else counts.
/// With one of usage 2, the certificate must be issued under the authority of the record, be valid
/// now, and have one of the names. Of records that differ in their digest alone, those with the
/// strongest one decide (RFC 7671, 9). If no record is usable, any certificate is accepted, and TLS
/// is used all the same.
///
/// The records must come from an answer that DNSSEC [proves](crate::mx::Answer::Secure). With any
/// other, an attacker who can forge answers would choose the server.
///
/// ```
/// use envoi::mx::{Dane, TlsaRecord};
/// use envoi::tls::TlsSettings;
/// use envoi::Endpoint;
///
/// # let digest = [0xAB; 32];
/// let records = [TlsaRecord::new(3, 1, 1, digest)];
/// let dane = Dane::new("mx1.example.org", records).name("example.org");
/// let endpoint = Endpoint::new("mx1.example.org")
///     .port(25)
///     .tls(TlsSettings::default().dane(dane));
/// # let _ = endpoint;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "a method returns the changed value"]
pub struct Dane {
    /// Sorted, so that the order of an answer does not matter.
    records: Arc<[TlsaRecord]>,
    /// The reference identifiers (RFC 7672, 3.2.2), the TLSA base domain first.
    names: Vec<String>,
}

impl Dane {
    /// Sets the records and the TLSA base domain that has them (RFC 7672, 2.2.3): the host of the
    /// MX record, or where its CNAMEs lead. It is sent as SNI, and the certificate may be for it.
    pub fn new(
        base_domain: impl Into<String>,
        records: impl IntoIterator<Item = TlsaRecord>,
    ) -> Self {
        let mut records: Vec<_> = records.into_iter().collect();
        records.sort_unstable();
        records.dedup();
        Dane {
            records: records.into(),
            names: vec![base_domain.into()],
        }
    }

    /// Adds a name that the certificate may be for, too (RFC 7672, 3.2.2): the host of the MX
    /// record, the recipient domain, or where its CNAMEs lead.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if !self.names.contains(&name) {
            self.names.push(name);
        }
        self
    }

    /// The records, sorted and without duplicates.
    pub fn records(&self) -> &[TlsaRecord] {
        &self.records
    }

    /// The TLSA base domain.
    pub fn base_domain(&self) -> &str {
        &self.names[0]
    }

    /// Whether a record is [usable](TlsaRecord::is_usable), so that the server must be verified.
    pub fn is_usable(&self) -> bool {
        self.records.iter().any(TlsaRecord::is_usable)
    }

    /// Verifies a chain of certificates in DER, the server's own first, and returns what verifies
    /// it, as [`TlsInfo::verified_by`](crate::tls::TlsInfo::verified_by) has it. A handshake also
    /// proves that the server has the key.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Tls`](crate::ErrorKind::Tls): no record verifies the chain, or none is
    ///   usable. The source is a [`CertificateFailure`](crate::tls::CertificateFailure).
    /// - [`ErrorKind::Config`](crate::ErrorKind::Config): this build has no cryptography.
    pub fn verify(&self, chain: &[impl AsRef<[u8]>], now: SystemTime) -> Result<String> {
        let algorithms = connector::provider()?.signature_verification_algorithms;
        let chain: Vec<_> = chain
            .iter()
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.verify_chain(&chain, UnixTime::since_unix_epoch(now), algorithms)
            .map_err(|failure| failure.into_error())
    }

    /// The usable records, without those whose digest is weaker than that of another with the same
    /// usage and selector (RFC 7671, 9). A record with the content itself always counts.
    fn strongest(&self) -> Vec<(&TlsaRecord, Kind)> {
        let usable: Vec<_> = self
            .records
            .iter()
            .filter_map(|record| Some((record, record.kind()?)))
            .collect();
        let is_weaker = |one: &Kind, other: &Kind| {
            (one.usage, one.selector) == (other.usage, other.selector)
                && one.matching != Matching::Full
                && one.matching < other.matching
        };
        let counts = |kind: &Kind| !usable.iter().any(|(_, other)| is_weaker(kind, other));
        usable
            .iter()
            .filter(|(_, kind)| counts(kind))
            .copied()
            .collect()
    }
}
