//! The facts of one certificate, as people and logs need them.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode as _;
use x509_cert::der::Encode as _;
use x509_cert::der::oid::db::rfc5280::ID_AD_CA_ISSUERS;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AuthorityInfoAccessSyntax, SubjectAltName};
use x509_cert::name::Name;

use crate::date;
use crate::text::printable;

/// The facts of one X.509 certificate.
///
/// `Display` gives them in one line: subject, issuer, validity.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Certificate {
    /// Whom it is for, as RFC 4514 writes a name: `CN=mail.example.com,O=Example`.
    pub subject: String,
    /// Who issued it, in the same form. Equal to the subject where it is self-signed.
    pub issuer: String,
    /// The names of the server that it is good for: its DNS names and IP addresses (RFC 5280,
    /// 4.2.1.6).
    pub names: Vec<String>,
    /// It is good from here on.
    pub not_before: SystemTime,
    /// It is good until here.
    pub not_after: SystemTime,
    /// The SHA-256 fingerprint, in the form that `openssl x509 -fingerprint` and `keytool` print:
    /// `3A:0F:…`.
    pub sha256: String,
    subject_name: Name,
    issuer_name: Name,
    issuer_at: Option<String>,
    der: CertificateDer<'static>,
}

impl Certificate {
    /// Reads the facts; `None` if this is no certificate at all.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        // The raw profile: a serial number that is too long, or a date in the other of the two
        // forms, is against RFC 5280, seen in the field, and no reason not to say what the
        // certificate is.
        let parsed = CertificateInner::<Raw>::from_der(der).ok()?;
        let certificate = parsed.tbs_certificate();
        let names = match certificate.get_extension::<SubjectAltName>() {
            Ok(Some((_, names))) => names.0.iter().filter_map(name_text).collect(),
            _ => Vec::new(),
        };
        Some(Certificate {
            subject: printable(certificate.subject().to_string()),
            issuer: printable(certificate.issuer().to_string()),
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
            der: CertificateDer::from(der.to_vec()),
        })
    }

    /// The certificate itself, in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate as PEM text, as trust stores and administrators take it.
    pub fn to_pem(&self) -> String {
        let base64 = STANDARD.encode(&self.der);
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        let mut rest = base64.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        pem
    }

    /// The start of its validity as RFC 3339 text: `2026-01-31T00:00:00Z`.
    pub fn not_before_text(&self) -> String {
        date::rfc3339(self.not_before)
    }

    /// The end of its validity as RFC 3339 text: `2026-04-30T23:59:59Z`.
    pub fn not_after_text(&self) -> String {
        date::rfc3339(self.not_after)
    }

    /// The SHA-256 hash of its public key, in the form that [`Trust::pin`](super::Trust::pin)
    /// takes: `sha256//AbC…=`. It stays the same when a certificate is renewed for the same key.
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
        // It was parsed before; and the hash of nothing is no key's.
        Sha256::digest(key.unwrap_or_default()).into()
    }

    /// This is its public key, as a SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) in DER.
    pub(super) fn has_key(&self, key: &[u8]) -> bool {
        self.key_hash() == <[u8; 32]>::from(Sha256::digest(key))
    }

    /// Its issuer is itself, by name: no other authority vouches for it.
    pub fn is_self_issued(&self) -> bool {
        self.subject_name == self.issuer_name
    }

    /// `other` bears the name of this certificate's issuer.
    pub(super) fn is_issued_by(&self, other: &Certificate) -> bool {
        self.issuer_name == other.subject_name
    }

    /// Where the certificate of its issuer can be had, by its own account.
    pub(super) fn issuer_at(&self) -> Option<&str> {
        self.issuer_at.as_deref()
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, until) = (self.not_before_text(), self.not_after_text());
        write!(
            f,
            "{}, issued by {}, valid from {from} until {until}",
            self.subject, self.issuer
        )
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject)
            .field("issuer", &self.issuer)
            .field("names", &self.names)
            .field("not_before", &self.not_before_text())
            .field("not_after", &self.not_after_text())
            .field("sha256", &self.sha256)
            .finish()
    }
}

/// A name that a server can be called by; the other kinds (a mail address, a URI) say nothing here.
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

/// The address of the issuer's certificate (RFC 5280, 4.2.2.1), for a browser; not those for a
/// directory (`ldap:`).
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
    let bytes: Vec<String> = Sha256::digest(der)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    bytes.join(":")
}

/// A pin as curl and [`Trust::pin`](super::Trust::pin) write it.
pub(super) fn pin_text(hash: &[u8; 32]) -> String {
    format!("sha256//{}", STANDARD.encode(hash))
}
