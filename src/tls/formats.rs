//! Finds the certificates in a file. The format is recognized by the content, not by the name.

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::{PemObject as _, SectionKind};

use super::Certificate;
#[cfg(feature = "keystores")]
use super::keystore::trusted;
use crate::Secret;
use crate::file::utf8;

/// The certificates that were found, and notes about other contents.
#[derive(Debug)]
pub(super) struct ParsedCertificates {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) notes: Vec<String>,
}

/// Why no certificate was found: the rest of a sentence that begins with the name of the file.
#[derive(Debug)]
pub(super) struct FormatError {
    pub(super) reason: String,
    pub(super) hint: String,
}

impl FormatError {
    pub(super) fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        FormatError {
            reason: reason.into(),
            hint: hint.into(),
        }
    }
}

/// Finds the certificates to trust in the contents of a file. The password is for a key store.
pub(super) fn certificates(
    bytes: &[u8],
    password: Option<&Secret>,
) -> Result<ParsedCertificates, FormatError> {
    if bytes.trim_ascii().is_empty() {
        return Err(FormatError::new(
            "is empty",
            "Give a file with a certificate in PEM or DER form.",
        ));
    }
    if let Some(format) = KeyStore::of(bytes) {
        return trusted(format, bytes, password);
    }
    match first_element(bytes) {
        // PKCS#8 and PKCS#1 begin with version 0, SEC 1 with version 1.
        Some([0x02, 0x01, 0x00 | 0x01, ..]) => Err(private_key()),
        // The object identifier of signedData (RFC 2315, 14).
        Some(
            [
                0x06,
                0x09,
                0x2A,
                0x86,
                0x48,
                0x86,
                0xF7,
                0x0D,
                0x01,
                0x07,
                0x02,
                ..,
            ],
        ) => Err(pkcs7()),
        Some(_) if Certificate::read(bytes).is_some() => Ok(ParsedCertificates {
            certificates: vec![CertificateDer::from(bytes.to_vec())],
            notes: Vec::new(),
        }),
        Some(_) => Err(FormatError::new(
            "is DER, but not a certificate that can be read",
            "Get the file anew: it is damaged, or something else (a request for a certificate, a \
                list of revoked ones).",
        )),
        None => pem(&utf8(bytes)),
    }
}

/// The formats of key stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyStore {
    Pkcs12,
    Jks,
    /// An Oracle auto-login wallet.
    AutoLogin,
}

impl KeyStore {
    /// The format of these bytes, if they are a key store.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            // The second is JCEKS: JKS with stronger encryption of keys.
            [0xFE, 0xED, 0xFE, 0xED, ..] | [0xCE, 0xCE, 0xCE, 0xCE, ..] => Some(KeyStore::Jks),
            [0xA1, 0xF8, 0x4E, ..] => Some(KeyStore::AutoLogin),
            // RFC 7292, 4: the version, 3, comes first.
            _ => matches!(first_element(bytes), Some([0x02, 0x01, 0x03, ..]))
                .then_some(KeyStore::Pkcs12),
        }
    }

    /// Describes the format: the rest of a sentence that begins with the name of the file.
    pub(super) fn what(self) -> &'static str {
        match self {
            KeyStore::Pkcs12 => "is a key store (PKCS#12)",
            KeyStore::Jks => "is a Java key store (JKS)",
            KeyStore::AutoLogin => "is an auto-login wallet of Oracle (cwallet.sso)",
        }
    }
}

/// The revocation lists in the contents of a file.
pub(super) fn revocation_lists(bytes: &[u8]) -> Result<Vec<Vec<u8>>, FormatError> {
    if first_element(bytes).is_some() {
        return Ok(vec![bytes.to_vec()]);
    }
    let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes);
    let lists: Vec<_> = sections
        .flatten()
        .filter(|(kind, _)| *kind == SectionKind::Crl)
        .map(|(_, der)| der)
        .collect();
    if lists.is_empty() {
        return Err(FormatError::new(
            "holds no list of revoked certificates",
            "Give a file with a section BEGIN X509 CRL.",
        ));
    }
    Ok(lists)
}

fn pem(text: &[u8]) -> Result<ParsedCertificates, FormatError> {
    let mut found = ParsedCertificates {
        certificates: Vec::new(),
        notes: Vec::new(),
    };
    let (mut key, mut other) = (false, false);
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        match section {
            Ok((SectionKind::Certificate, der)) => found.certificates.push(der.into()),
            Ok((
                SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey,
                _,
            )) => key = true,
            Ok(_) => other = true,
            Err(_) => found
                .notes
                .push("has a PEM section that is cut off or damaged".into()),
        }
    }
    let has = |label: &str| memchr::memmem::find(text, label.as_bytes()).is_some();
    if !found.certificates.is_empty() {
        if key {
            found
                .notes
                .push("holds a private key too; only its certificates are used".into());
        }
        Ok(found)
    } else if key || has("PRIVATE KEY-----") {
        Err(private_key())
    } else if has("-----BEGIN PKCS7-----") {
        Err(pkcs7())
    } else if has("-----BEGIN TRUSTED CERTIFICATE-----") {
        Err(FormatError::new(
            "has its certificate in the form that openssl alone reads (TRUSTED CERTIFICATE)",
            "Convert it: openssl x509 -in FILE -out ca.pem.",
        ))
    } else if let Some(note) = found.notes.pop() {
        Err(FormatError::new(
            note,
            "Get the file anew: it was changed on the way.",
        ))
    } else if other || has("-----BEGIN ") {
        Err(FormatError::new(
            "is PEM, but holds no certificate",
            "Give a file with a section BEGIN CERTIFICATE.",
        ))
    } else {
        Err(FormatError::new(
            "holds no certificate",
            "Give a file with a certificate in PEM or DER form.",
        ))
    }
}

/// The start of a DER SEQUENCE, enough to tell a certificate from a key and a key store.
fn first_element(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        // In the long form, the number of length bytes comes first.
        [0x30, length @ 0x81..=0x84, rest @ ..] => rest.get(usize::from(length - 0x80)..),
        // The short form, or (some key stores, in BER) the indefinite one.
        [0x30, 0x00..=0x80, rest @ ..] => Some(rest),
        _ => None,
    }
}

pub(super) const KEY_ALONE: &str = "holds a private key, not a certificate";

fn private_key() -> FormatError {
    FormatError::new(
        KEY_ALONE,
        "Give the certificate of the authority that issued the server's certificate; the key \
            never leaves its owner.",
    )
}

fn pkcs7() -> FormatError {
    FormatError::new(
        "is a PKCS#7 bundle, which is not read",
        "Convert it: openssl pkcs7 -in FILE -print_certs -out ca.pem (with -inform DER if it is \
            not text).",
    )
}

#[cfg(not(feature = "keystores"))]
fn trusted(
    format: KeyStore,
    _: &[u8],
    _: Option<&Secret>,
) -> Result<ParsedCertificates, FormatError> {
    Err(not_built(format))
}

#[cfg(not(feature = "keystores"))]
pub(super) fn not_built(format: KeyStore) -> FormatError {
    FormatError::new(
        format!("{}, which this build does not read", format.what()),
        "Build envoi with the feature keystores; or export its certificates as PEM: openssl \
            pkcs12 -in FILE -nokeys -out ca.pem, or \
         keytool -exportcert -rfc.",
    )
}
