//! Reads certificates: names, dates, and the hash of the key.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::oid::db::rfc5280::ID_AD_CA_ISSUERS;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AuthorityInfoAccessSyntax, SubjectAltName};

use super::{Certificate, name};
use crate::text::printable;

impl Certificate {
    /// Parses a certificate; `None` if it is not one.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        // The raw profile: a serial number that is too long, or a date in the wrong one of the two
        // formats, violates RFC 5280, but occurs in the field, and the certificate can be described
        // all the same.
        let parsed = CertificateInner::<Raw>::from_der(der).ok()?;
        let certificate = parsed.tbs_certificate();
        let names = match certificate.get_extension::<SubjectAltName>() {
            Ok(Some((_, names))) => names.0.iter().filter_map(name_text).collect(),
            _ => Vec::new(),
        };
        let subject = printable(name::text(certificate.subject()));
        // Most are authorities, each its own issuer.
        let issuer = match certificate.issuer() == certificate.subject() {
            true => subject.clone(),
            false => printable(name::text(certificate.issuer())),
        };
        Some(Certificate {
            subject,
            issuer,
            names,
            not_before: certificate.validity().not_before.to_system_time(),
            not_after: certificate.validity().not_after.to_system_time(),
            sha256: fingerprint(der),
            subject_name: certificate.subject().clone(),
            issuer_name: certificate.issuer().clone(),
            issuer_at: certificate
                .get_extension()
                .ok()
                .flatten()
                .and_then(|(_, access)| issuer_at(&access)),
            der: der.to_vec(),
        })
    }

    /// The SHA-256 hash of the public key, in the form that [`Trust::pin`](super::Trust::pin)
    /// accepts: `sha256//AbC…=`. It does not change when a certificate is renewed for the same key.
    pub fn pin(&self) -> String {
        pin_text(&self.key_hash())
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }

    pub(super) fn key_hash(&self) -> [u8; 32] {
        let parsed = CertificateInner::<Raw>::from_der(&self.der);
        let key =
            parsed.and_then(|parsed| parsed.tbs_certificate().subject_public_key_info().to_der());
        // It has been parsed before; and no key has the hash of an empty string.
        Sha256::digest(key.unwrap_or_default()).into()
    }

    /// Whether this is its public key, as a SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) in DER.
    pub(super) fn has_key(&self, key: &[u8]) -> bool {
        self.key_hash() == <[u8; 32]>::from(Sha256::digest(key))
    }
}

/// A DNS name or an IP address; other kinds (a mail address, a URI) do not identify a server.
fn name_text(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().escape_default().to_string()),
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
                .ok()
                .map(|address| address.to_string())
        }
        _ => None,
    }
}

/// The HTTP address of the issuer's certificate (RFC 5280, 4.2.2.1); `ldap:` addresses are left
/// out.
fn issuer_at(access: &AuthorityInfoAccessSyntax) -> Option<String> {
    access
        .0
        .iter()
        .filter(|access| access.access_method == ID_AD_CA_ISSUERS)
        .find_map(|access| match &access.access_location {
            GeneralName::UniformResourceIdentifier(uri) if uri.as_str().starts_with("http") => {
                Some(uri.as_str().escape_default().to_string())
            }
            _ => None,
        })
}

fn fingerprint(der: &[u8]) -> String {
    let digits = b"0123456789ABCDEF";
    let mut text = String::with_capacity(3 * 32);
    for byte in Sha256::digest(der) {
        if !text.is_empty() {
            text.push(':');
        }
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(digits[usize::from(digit)]));
        }
    }
    text
}

/// A pin as curl and [`Trust::pin`](super::Trust::pin) write it.
pub(super) fn pin_text(hash: &[u8; 32]) -> String {
    format!("sha256//{}", STANDARD.encode(hash))
}
