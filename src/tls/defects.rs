//! Defects of certificates other than their dates and names: keys, signatures, extensions.

#[cfg(feature = "mx")]
use std::net::IpAddr;

use tokio_rustls::rustls::pki_types::PrivateKeyDer;
#[cfg(feature = "mx")]
use x509_cert::certificate::Version;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef, UintRef};
#[cfg(feature = "mx")]
use x509_cert::der::oid::db::rfc5280::ID_CE_NAME_CONSTRAINTS;
use x509_cert::der::oid::db::rfc5280::ID_KP_SERVER_AUTH;
use x509_cert::der::{Decode as _, Encode as _, Error, Reader as _, SliceReader};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, NameConstraints};
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::Certificate;

/// The supported sizes of RSA keys, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The supported extensions (RFC 5280, 4.2.1): key usage, subject alternative name, basic
/// constraints, name constraints, CRL distribution points, extended key usage.
const UNDERSTOOD: [&str; 6] = [
    "2.5.29.15",
    "2.5.29.17",
    "2.5.29.19",
    "2.5.29.30",
    "2.5.29.31",
    "2.5.29.37",
];

/// An RSA key of an unsupported size.
pub(super) struct WrongSize {
    pub(super) bits: usize,
    pub(super) needed: &'static str,
}

impl WrongSize {
    fn of(bits: usize) -> Option<Self> {
        let needed = if bits < *RSA_BITS.start() {
            "2048 are needed"
        } else {
            "no more than 8192 are supported"
        };
        (!RSA_BITS.contains(&bits)).then_some(WrongSize { bits, needed })
    }
}

/// The size of the modulus, which comes first (RFC 8017, A.1).
fn modulus_bits<'a>(reader: &mut SliceReader<'a>) -> Result<usize, Error> {
    let modulus = UintRef::decode(reader)?;
    let leading = modulus
        .as_bytes()
        .first()
        .map_or(0, |byte| byte.leading_zeros() as usize);
    reader.drain(reader.remaining_len())?;
    Ok(modulus.as_bytes().len() * 8 - leading)
}

/// The size of an RSAPublicKey (RFC 8017, A.1.1) in bits.
pub(crate) fn rsa_bits(key: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(key).ok()?;
    reader.sequence(modulus_bits).ok()
}

/// Why a private key is not supported: its size, its curve or its kind.
pub(crate) fn of_key(key: &PrivateKeyDer<'_>) -> Option<String> {
    let why = match key {
        PrivateKeyDer::Pkcs1(key) => rsa_defect(key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => curve_of(key.secret_sec1_der()).map(curve_defect),
        PrivateKeyDer::Pkcs8(key) => pkcs8_defect(key.secret_pkcs8_der()),
        _ => return None,
    };
    why.ok().flatten()
}

fn rsa_defect(der: &[u8]) -> Result<Option<String>, Error> {
    let bits = SliceReader::new(der)?.sequence(|reader| {
        u8::decode(reader)?;
        modulus_bits(reader)
    })?;
    Ok(
        WrongSize::of(bits)
            .map(|size| format!("an RSA key of {} bits; {}", size.bits, size.needed)),
    )
}

/// The curve in an ECPrivateKey (RFC 5915, 3); `None` if it is not a named one.
fn curve_of(der: &[u8]) -> Result<Option<ObjectIdentifier>, Error> {
    SliceReader::new(der)?.sequence(|reader| {
        u8::decode(reader)?;
        reader.tlv_bytes()?;
        let parameters = AnyRef::decode(reader)?;
        reader.drain(reader.remaining_len())?;
        Ok(ObjectIdentifier::from_der(parameters.value()).ok())
    })
}

fn curve_defect(curve: Option<ObjectIdentifier>) -> Option<String> {
    let Some(number) = curve.map(|curve| curve.to_string()) else {
        return Some(
            "an ECDSA key whose curve has parameters of its own and no name, which is not \
            supported"
                .into(),
        );
    };
    let name = match number.as_str() {
        "1.2.840.10045.3.1.7" | "1.3.132.0.34" => return None,
        "1.2.840.10045.3.1.1" => "P-192",
        "1.3.132.0.33" => "P-224",
        "1.3.132.0.35" => "P-521",
        "1.3.132.0.10" => "secp256k1",
        "1.3.36.3.3.2.8.1.1.7" => "brainpoolP256r1",
        "1.3.36.3.3.2.8.1.1.11" => "brainpoolP384r1",
        "1.3.36.3.3.2.8.1.1.13" => "brainpoolP512r1",
        number => number,
    };
    Some(format!(
        "an ECDSA key on the curve {name}, which is not supported"
    ))
}

/// Finds the defect of a PKCS#8 key (RFC 5208, 5).
fn pkcs8_defect(der: &[u8]) -> Result<Option<String>, Error> {
    let (algorithm, key) = SliceReader::new(der)?.sequence(|reader| {
        u8::decode(reader)?;
        let algorithm = AlgorithmIdentifierOwned::decode(reader)?;
        let key = <&OctetStringRef>::decode(reader)?.as_bytes();
        reader.drain(reader.remaining_len())?;
        Ok::<_, Error>((algorithm, key))
    })?;
    let number = algorithm.oid.to_string();
    let kind = match number.as_str() {
        "1.2.840.113549.1.1.1" => return rsa_defect(key),
        "1.2.840.10045.2.1" => {
            let curve = algorithm
                .parameters
                .and_then(|curve| curve.decode_as().ok());
            return Ok(curve_defect(curve));
        }
        "1.3.101.112" => return Ok(None),
        "1.2.840.113549.1.1.10" => "RSA-PSS",
        "1.2.840.10040.4.1" => "DSA",
        "1.3.101.110" => "X25519",
        "1.3.101.111" => "X448",
        "1.3.101.113" => "Ed448",
        number => number,
    };
    Ok(Some(format!(
        "a key of the kind {kind}, which is not supported"
    )))
}

impl Certificate {
    fn parsed(&self) -> Option<CertificateInner<Raw>> {
        CertificateInner::<Raw>::from_der(self.der()).ok()
    }

    /// The size of its RSA key, if it is too short or too long.
    pub(super) fn wrong_size(&self) -> Option<WrongSize> {
        let parsed = self.parsed()?;
        let key = parsed.tbs_certificate().subject_public_key_info();
        if key.algorithm.oid.to_string() != "1.2.840.113549.1.1.1" {
            return None;
        }
        rsa_bits(key.subject_public_key.raw_bytes()).and_then(WrongSize::of)
    }

    /// Whether it is signed with this algorithm, which is encoded as `webpki` returns it.
    pub(super) fn is_signed_with(&self, algorithm: &[u8]) -> bool {
        let of = |parsed: CertificateInner<Raw>| parsed.signature_algorithm().to_der().ok();
        self.parsed()
            .and_then(of)
            .is_some_and(|own| own.ends_with(algorithm))
    }

    /// The name of its signature algorithm, as in openssl, or its number.
    pub(super) fn signature_algorithm(&self) -> String {
        let number = self
            .parsed()
            .map(|parsed| parsed.signature_algorithm().oid.to_string())
            .unwrap_or_default();
        let name = match number.as_str() {
            "1.2.840.113549.1.1.2" => "md2WithRSAEncryption",
            "1.2.840.113549.1.1.4" => "md5WithRSAEncryption",
            "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" => "sha1WithRSAEncryption",
            "1.2.840.113549.1.1.14" => "sha224WithRSAEncryption",
            "1.2.840.10040.4.3" => "dsaWithSHA1",
            "2.16.840.1.101.3.4.3.2" => "dsaWithSHA256",
            "1.2.840.10045.4.1" => "ecdsa-with-SHA1",
            "1.2.840.113549.1.1.10" => "rsassaPss",
            "1.3.101.113" => "Ed448",
            _ => return number,
        };
        name.into()
    }

    /// Whether its signature algorithm is broken, so that the signature can be forged.
    pub(super) fn has_broken_signature(&self) -> bool {
        let name = self.signature_algorithm();
        ["md2", "md5", "sha1", "SHA1"]
            .iter()
            .any(|hash| name.contains(hash))
    }

    /// Whether it names two algorithms for its signature (RFC 5280, 4.1.1.2).
    pub(super) fn names_two_algorithms(&self) -> bool {
        self.parsed().is_some_and(|parsed| {
            parsed.signature_algorithm() != parsed.tbs_certificate().signature()
        })
    }

    /// Whether its extended key usage excludes servers (RFC 5280, 4.2.1.12).
    pub(super) fn is_for_no_server(&self) -> bool {
        let usage = self
            .parsed()
            .map(|parsed| parsed.tbs_certificate().get_extension::<ExtendedKeyUsage>());
        match usage {
            Some(Ok(Some((_, ExtendedKeyUsage(purposes))))) => {
                !purposes.contains(&ID_KP_SERVER_AUTH)
            }
            _ => false,
        }
    }

    /// If it may issue certificates (RFC 5280, 4.2.1.9): how many authorities may be below it.
    pub(super) fn authority(&self) -> Option<Option<u8>> {
        let parsed = self.parsed()?;
        let (_, constraints) = parsed
            .tbs_certificate()
            .get_extension::<BasicConstraints>()
            .ok()
            .flatten()?;
        constraints.ca.then_some(constraints.path_len_constraint)
    }

    /// Its unsupported critical extensions: their names, or their numbers (OIDs).
    pub(super) fn unknown_critical_extensions(&self) -> Vec<String> {
        let parsed = self.parsed();
        let extensions = parsed
            .as_ref()
            .and_then(|parsed| parsed.tbs_certificate().extensions());
        let critical = extensions
            .into_iter()
            .flatten()
            .filter(|extension| extension.critical);
        let numbers = critical.map(|extension| extension.extn_id.to_string());
        numbers
            .filter(|number| !UNDERSTOOD.contains(&number.as_str()))
            .map(|number| extension_name(&number))
            .collect()
    }

    /// Its name constraints (RFC 5280, 4.2.1.10).
    pub(super) fn name_limits(&self) -> Option<NameLimits> {
        let parsed = self.parsed()?;
        let (_, constraints) = parsed
            .tbs_certificate()
            .get_extension::<NameConstraints>()
            .ok()
            .flatten()?;
        let (permitted, excluded) = (
            constraints.permitted_subtrees,
            constraints.excluded_subtrees,
        );
        let bases = |subtrees: Option<Vec<_>>| -> Vec<GeneralName> {
            subtrees
                .into_iter()
                .flatten()
                .map(
                    |subtree: x509_cert::ext::pkix::constraints::name::GeneralSubtree| subtree.base,
                )
                .collect()
        };
        Some(NameLimits {
            permitted: bases(permitted),
            excluded: bases(excluded),
        })
    }

    /// Whether it has name constraints, in whatever form.
    #[cfg(feature = "mx")]
    pub(super) fn has_name_constraints(&self) -> bool {
        self.parsed().is_none_or(|parsed| {
            let extensions = parsed.tbs_certificate().extensions();
            let mut extensions = extensions.into_iter().flatten();
            extensions.any(|extension| extension.extn_id == ID_CE_NAME_CONSTRAINTS)
        })
    }

    /// Whether it is of X.509 version 3, which has extensions.
    #[cfg(feature = "mx")]
    pub(super) fn is_version_3(&self) -> bool {
        self.parsed()
            .is_none_or(|parsed| parsed.tbs_certificate().version() == Version::V3)
    }

    /// Its DNS names; without any, the common names (RFC 7672, 3.2.3).
    #[cfg(feature = "mx")]
    pub(super) fn dns_names(&self) -> Vec<String> {
        let is_dns_name = |name: &&String| name.parse::<IpAddr>().is_err();
        let names: Vec<_> = self.names.iter().filter(is_dns_name).cloned().collect();
        match names.is_empty() {
            true => super::name::common_names(&self.subject_name),
            false => names,
        }
    }
}

/// Name constraints.
pub(super) struct NameLimits {
    permitted: Vec<GeneralName>,
    excluded: Vec<GeneralName>,
}

impl NameLimits {
    /// The kind of names that it constrains but that is not supported here.
    pub(super) fn unchecked(&self) -> Option<&'static str> {
        self.permitted
            .iter()
            .chain(&self.excluded)
            .find_map(|base| match base {
                GeneralName::DirectoryName(_) => Some("directory names"),
                GeneralName::UniformResourceIdentifier(_) => Some("URIs"),
                GeneralName::Rfc822Name(_) => Some("mail addresses"),
                GeneralName::DnsName(_) | GeneralName::IpAddress(_) => None,
                _ => Some("names of another kind"),
            })
    }

    /// Whether a DNS name violates the constraints.
    pub(super) fn excludes(&self, name: &str) -> bool {
        let is_below = |base: &GeneralName| match base {
            GeneralName::DnsName(base) => {
                let (base, name) = (
                    base.as_str().trim_start_matches('.').to_ascii_lowercase(),
                    name.to_ascii_lowercase(),
                );
                base.is_empty() || name == base || name.ends_with(&format!(".{base}"))
            }
            _ => false,
        };
        let limited = self
            .permitted
            .iter()
            .any(|base| matches!(base, GeneralName::DnsName(_)));
        limited && !self.permitted.iter().any(is_below) || self.excluded.iter().any(is_below)
    }
}

/// The name of an extension in its RFC, with its number.
fn extension_name(number: &str) -> String {
    let name = match number {
        "2.5.29.9" => "subjectDirectoryAttributes",
        "2.5.29.16" => "privateKeyUsagePeriod",
        "2.5.29.18" => "issuerAltName",
        "2.5.29.32" => "certificatePolicies",
        "2.5.29.33" => "policyMappings",
        "2.5.29.36" => "policyConstraints",
        "2.5.29.46" => "freshestCRL",
        "2.5.29.54" => "inhibitAnyPolicy",
        "1.3.6.1.5.5.7.1.1" => "authorityInfoAccess",
        "1.3.6.1.5.5.7.1.3" => "qcStatements",
        "1.3.6.1.5.5.7.1.11" => "subjectInfoAccess",
        "1.3.6.1.5.5.7.1.24" => "TLS feature",
        "1.3.6.1.4.1.11129.2.4.3" => "precertificate poison",
        "2.16.840.1.113730.1.1" => "Netscape certificate type",
        _ => return number.to_owned(),
    };
    format!("{name}, {number}")
}
