//! The properties of a certificate.

use std::fmt;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_cert::name::Name;

use crate::date;

/// The properties of an X.509 certificate.
///
/// `Display` writes them in one line: subject, issuer, validity.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Certificate {
    /// The subject, as a name of RFC 4514: `CN=mail.example.com,O=Example`.
    pub subject: String,
    /// The issuer, in the same form. Equal to the subject if the certificate is self-signed.
    pub issuer: String,
    /// The server names that the certificate is valid for: DNS names and IP addresses (RFC 5280,
    /// 4.2.1.6).
    pub names: Vec<String>,
    /// The start of its validity.
    pub not_before: SystemTime,
    /// The end of its validity.
    pub not_after: SystemTime,
    /// The SHA-256 fingerprint, in the form that `openssl x509 -fingerprint` and `keytool` print:
    /// `3A:0F:…`.
    pub sha256: String,
    pub(crate) subject_name: Name,
    pub(crate) issuer_name: Name,
    /// The address of its issuer's certificate, if the certificate states it.
    pub(crate) issuer_at: Option<String>,
    pub(crate) der: Vec<u8>,
}

impl Certificate {
    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate in PEM.
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

    /// The start of its validity in RFC 3339 format: `2026-01-31T00:00:00Z`.
    pub fn not_before_text(&self) -> String {
        date::rfc3339(self.not_before)
    }

    /// The end of its validity in RFC 3339 format: `2026-04-30T23:59:59Z`.
    pub fn not_after_text(&self) -> String {
        date::rfc3339(self.not_after)
    }

    /// Whether subject and issuer are the same name.
    pub fn is_self_issued(&self) -> bool {
        self.subject_name == self.issuer_name
    }

    /// Whether `other` has the name of this certificate's issuer.
    pub(crate) fn is_issued_by(&self, other: &Certificate) -> bool {
        self.issuer_name == other.subject_name
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
