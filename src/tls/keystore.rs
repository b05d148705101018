//! PKCS#12: Oracle wallets (`ewallet.p12`), Java's key stores, what `openssl pkcs12` writes.

use p12_keystore::Pkcs12Archive;
use p12_keystore::error::Error;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Certificate;
use super::formats::Unusable;
use crate::Secret;

/// What a key store holds.
#[derive(Default)]
pub(super) struct KeyStore {
    /// The certificates of others, which are there to be trusted.
    pub(super) trusted: Vec<CertificateDer<'static>>,
    /// The keys of its owner, each with its certificate and that of its issuers. The key is `None` where it is not read.
    pub(super) own: Vec<(Option<PrivateKeyDer<'static>>, Vec<CertificateDer<'static>>)>,
}

impl KeyStore {
    /// The trusted certificates, or why there are none.
    pub(super) fn into_trusted(self) -> Result<Vec<CertificateDer<'static>>, Unusable> {
        match (self.trusted.is_empty(), self.own.is_empty()) {
            (false, _) => Ok(self.trusted),
            (true, true) => Err(Unusable::new("is a key store that holds no certificate", IMPORT)),
            (true, false) => Err(Unusable::new(
                "is a key store that holds a key with its certificates, but no trusted certificate",
                IMPORT,
            )),
        }
    }
}

const IMPORT: &str = "Import the certificate of the authority as a trusted one: keytool -importcert -file ca.pem -keystore FILE, \
                      or orapki wallet add -wallet FOLDER -trusted_cert -cert ca.pem; or give ca.pem itself.";

/// Opens a PKCS#12 store (RFC 7292).
pub(super) fn pkcs12(bytes: &[u8], password: Option<&Secret>) -> Result<KeyStore, Unusable> {
    let archive = Pkcs12Archive::from_pkcs12(bytes, password.map_or("", Secret::expose))
        .map_err(|error| explain(&error, password.is_some()))?;

    let certificates: Vec<_> = archive.certs.iter().filter_map(|bag| Certificate::read(bag.cert.as_der())).collect();
    let mut store = KeyStore::default();
    for key in archive.keys {
        let id = key.local_key_id.as_ref().map(|id| id.0.as_slice());
        let own = archive.certs.iter().find(|bag| id.is_some() && bag.local_key_id.as_deref() == id);
        // Without an identifier, the certificate comes first, as everybody writes it.
        let own = own.or(archive.certs.first().filter(|_| id.is_none()));
        let chain = own.map(|bag| chain(bag.cert.as_der(), &certificates)).unwrap_or_default();
        store.own.push((PrivateKeyDer::try_from(key.key.as_der().to_vec()).ok(), chain));
    }
    // Java and Oracle mark what is trusted; openssl marks nothing. So a certificate counts if it is marked, or if it does not
    // belong to a key: a key's chain is what its owner shows, not whom he trusts.
    for bag in &archive.certs {
        let der = CertificateDer::from(bag.cert.as_der().to_vec());
        if bag.trusted || !store.own.iter().any(|(_, chain)| chain.contains(&der)) {
            store.trusted.push(der);
        }
    }
    Ok(store)
}

/// A certificate and its issuers, as far as they are there.
fn chain(der: &[u8], all: &[Certificate]) -> Vec<CertificateDer<'static>> {
    let mut chain = vec![CertificateDer::from(der.to_vec())];
    let mut last = Certificate::read(der);
    while let Some(certificate) = last
        && !certificate.is_self_issued()
    {
        last = all
            .iter()
            .find(|other| certificate.is_issued_by(other) && !chain.iter().any(|der| der.as_ref() == other.der()))
            .cloned();
        chain.extend(last.iter().map(|issuer| CertificateDer::from(issuer.der().to_vec())));
    }
    chain
}

/// The store is not opened by the password, or by none.
pub(super) fn wrong_password(given: bool) -> Unusable {
    let hint = "Give the password that it was made with (Trust::password, trust-password-file= in the URL).";
    match given {
        true => Unusable::new("is a key store that the password given does not open", hint),
        false => Unusable::new("is a key store that needs a password, and none was given", hint),
    }
}

fn explain(error: &Error, password_given: bool) -> Unusable {
    match error {
        Error::MacError(_) | Error::Pkcs5Error(_) | Error::UnpadError => wrong_password(password_given),
        Error::UnsupportedEncryptionScheme | Error::UnsupportedMacAlgorithm | Error::InvalidParameters => {
            Unusable::new(
                format!("is a key store (PKCS#12) that is protected in a way that is not supported ({error})"),
                REWRITE,
            )
        }
        _ => Unusable::new(format!("is a key store (PKCS#12) that cannot be read: {error}"), REWRITE),
    }
}

const REWRITE: &str =
    "If other programs read it, export its certificates: openssl pkcs12 -in FILE -nokeys -out ca.pem.";
