//! Key stores: PKCS#12, JKS and Oracle's auto-login wallets.

use super::client_certificate::KeyAndCertificates;
use super::formats::{FormatError, KeyStore, ParsedCertificates};
use super::pkcs12::{MAX_ENTRIES, MAX_ROUNDS, OpenError, Store};
use super::{jks, wallet};
use crate::Secret;
use crate::diagnose::trust as advice;

/// The certificates of a store that are to be trusted.
pub(super) fn trusted(
    format: KeyStore,
    bytes: &[u8],
    password: Option<&Secret>,
) -> Result<ParsedCertificates, FormatError> {
    let mut notes = Vec::new();
    let (certificates, has_key, is_key_alone) = match format {
        KeyStore::Jks => {
            let store = jks::Store::open(bytes, password)?;
            if store.is_cut && store.trusted.is_empty() {
                return Err(FormatError::new(
                    format!("{} {SECRET_KEY}", format.what()),
                    CONVERT,
                ));
            }
            if store.is_cut {
                notes.push(format!("{} {SECRET_KEY}", format.what()));
            }
            (store.trusted, !store.own.is_empty(), false)
        }
        KeyStore::Pkcs12 => {
            let store = pkcs12(bytes, password)?;
            let (has_key, is_key_alone) = (store.has_key(), !store.has_certificates());
            (store.into_trusted(), has_key, is_key_alone)
        }
        KeyStore::AutoLogin => wallet::with_store(bytes, |store| {
            let (has_key, is_key_alone) = (store.has_key(), !store.has_certificates());
            Ok((store.into_trusted(), has_key, is_key_alone))
        })?,
    };
    match (certificates.is_empty(), has_key) {
        (false, _) => Ok(ParsedCertificates {
            certificates,
            notes,
        }),
        (true, false) => Err(FormatError::new(
            "is a key store that holds no certificate",
            IMPORT,
        )),
        (true, true) if is_key_alone => Err(FormatError::new(
            "is a key store that holds a key, but no certificate",
            IMPORT,
        )),
        (true, true) => Err(FormatError::new(
            "is a key store that holds a key with its certificates, but no trusted certificate",
            IMPORT,
        )),
    }
}

/// A key of a store, and the certificates that it may belong to.
pub(super) fn own(
    format: KeyStore,
    bytes: &[u8],
    password: Option<&Secret>,
) -> Result<KeyAndCertificates, FormatError> {
    match format {
        KeyStore::Jks => jks::Store::open(bytes, password)?.into_own(password)?,
        KeyStore::Pkcs12 => {
            let store = pkcs12(bytes, password)?;
            let is_opened = password.is_some() && store.password_verified();
            store.into_own().map_err(|error| match error {
                OpenError::WrongPassword if is_opened => key_password("PKCS#12"),
                error => explain(error, password.is_some()),
            })?
        }
        KeyStore::AutoLogin => wallet::with_store(bytes, |store| {
            store.into_own().map_err(|error| explain(error, true))
        })?,
    }
    .ok_or_else(|| {
        FormatError::new(
            format!("{} without a key that has a certificate", format.what()),
            "Make one of both: openssl pkcs12 -export -inkey client.key -in client.pem -out \
                client.p12.",
        )
    })
}

const SECRET_KEY: &str =
    "with a secret key, whose end is not found: what comes after it is not read";
const CONVERT: &str = "Convert it: keytool -importkeystore -srckeystore FILE -destkeystore ca.p12 \
    -deststoretype PKCS12.";

const IMPORT: &str = "Import the certificate of the authority as a trusted one: keytool \
    -importcert -file ca.pem -keystore FILE, \
                      or orapki wallet add -wallet FOLDER -trusted_cert -cert ca.pem; or give \
                      ca.pem itself.";

fn pkcs12<'a>(bytes: &[u8], password: Option<&'a Secret>) -> Result<Store<'a>, FormatError> {
    Store::open(bytes, password.map_or("", Secret::expose))
        .map_err(|error| explain(error, password.is_some()))
}

/// The password does not open the store, or none was given.
pub(super) fn wrong_password(given: bool) -> FormatError {
    let hint = advice::STORE_PASSWORD;
    match given {
        true => FormatError::new("is a key store that the password given does not open", hint),
        false => FormatError::new(
            "is a key store that needs a password, and none was given",
            hint,
        ),
    }
}

/// The password opens the store but not the key.
pub(super) fn key_password(kind: &str) -> FormatError {
    FormatError::new(
        format!("is a key store ({kind}) whose key has another password than the store"),
        "Give the key the password of the store: keytool -keypasswd -keystore FILE -alias NAME.",
    )
}

pub(super) fn explain(error: OpenError, password_given: bool) -> FormatError {
    match error {
        OpenError::WrongPassword => wrong_password(password_given),
        OpenError::TooManyRounds(rounds) => FormatError::new(
            format!(
                "is a key store (PKCS#12) that asks for {rounds} rounds of hashing to be opened, \
                 of which no more than {MAX_ROUNDS} are done"
            ),
            "No program writes such stores; it may be made to keep others busy. Make it anew.",
        ),
        OpenError::TooManyEntries => too_many_entries("PKCS#12"),
        OpenError::Unsupported(how) => FormatError::new(
            format!(
                "is a key store (PKCS#12) that is protected in a way that is not supported ({how})"
            ),
            REWRITE,
        ),
        OpenError::Malformed(how) => FormatError::new(
            format!("is a key store (PKCS#12) that cannot be read: {how}"),
            REWRITE,
        ),
    }
}

pub(super) fn too_many_entries(kind: &str) -> FormatError {
    FormatError::new(
        format!("is a key store ({kind}) with more than {MAX_ENTRIES} entries"),
        "Export the certificates that are needed into a file of their own.",
    )
}

const REWRITE: &str = "If other programs read it, export its certificates: openssl pkcs12 -in \
    FILE -nokeys -out ca.pem.";
