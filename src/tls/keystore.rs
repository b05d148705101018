//! PKCS#12: Oracle wallets (`ewallet.p12`), Java's key stores, what `openssl pkcs12` writes.

use memchr::memmem;
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

/// So many rounds of hashing are some seconds. Today's stores ask for 2,048 up to a million, in all.
const MAX_ROUNDS: u64 = 10_000_000;

/// Longer chains are not seen, and no server takes them.
const MAX_CHAIN: usize = 16;

/// Opens a PKCS#12 store (RFC 7292).
pub(super) fn pkcs12(bytes: &[u8], password: Option<&Secret>) -> Result<KeyStore, Unusable> {
    if rounds(bytes) > MAX_ROUNDS {
        return Err(Unusable::new(
            format!("is a key store (PKCS#12) that asks for more than {MAX_ROUNDS} rounds of hashing to be opened"),
            "No program writes such stores; it may be made to keep others busy. Make it anew.",
        ));
    }
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

/// How many rounds of hashing the parts of a store ask for that are protected each by itself. `p12-keystore` refuses a part that asks
/// for more than a million, or for more than a gigabyte of memory (scrypt), but not a thousand such parts. What lies inside of an
/// encrypted part is not counted: to hide something there takes the password.
fn rounds(bytes: &[u8]) -> u64 {
    // The object identifiers of PBKDF2 (RFC 8018, A.2), of the ways of PKCS#12 (RFC 7292, C), and of scrypt (RFC 7914, 7).
    const PBKDF2: &[u8] = &[0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x05, 0x0C];
    const PKCS12: &[u8] = &[0x06, 0x0A, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x0C, 0x01];
    const SCRYPT: &[u8] = &[0x06, 0x09, 0x2B, 0x06, 0x01, 0x04, 0x01, 0xDA, 0x47, 0x04, 0x0B];
    let behind = |kind: &'static [u8], skipped: usize| {
        memmem::find_iter(bytes, kind).filter_map(move |at| rounds_in(bytes.get(at + kind.len() + skipped..)?))
    };
    // The last byte of that identifier says which of the ways it is. No program writes scrypt.
    let scrypts = memmem::find_iter(bytes, SCRYPT).map(|_| MAX_ROUNDS + 1);
    behind(PBKDF2, 0).chain(behind(PKCS12, 1)).chain(scrypts).fold(0, u64::saturating_add)
}

/// The number in `SEQUENCE { salt OCTET STRING, rounds INTEGER, ... }`.
fn rounds_in(parameters: &[u8]) -> Option<u64> {
    let (content, _) = element(0x30, parameters)?;
    let (_salt, rest) = element(0x04, content)?;
    let (number, _) = element(0x02, rest)?;
    Some(number.iter().fold(0, |rounds: u64, byte| rounds.saturating_mul(256).saturating_add((*byte).into())))
}

/// What a DER element of this tag holds, and what follows it.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match bytes {
        [first, length @ 0..=0x7F, rest @ ..] if *first == tag => (usize::from(*length), rest),
        // A long length is preceded by the number of its bytes.
        [first, count @ 0x81..=0x84, rest @ ..] if *first == tag => {
            let (length, rest) = rest.split_at_checked(usize::from(count - 0x80))?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// A certificate and its issuers, as far as they are there.
fn chain(der: &[u8], all: &[Certificate]) -> Vec<CertificateDer<'static>> {
    let mut chain = vec![CertificateDer::from(der.to_vec())];
    let mut last = Certificate::read(der);
    while let Some(certificate) = last
        && !certificate.is_self_issued()
        && chain.len() < MAX_CHAIN
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

#[cfg(test)]
mod tests {
    use super::*;

    /// PBKDF2's parameters as DER, with so many rounds.
    fn pbkdf2(rounds: u32) -> Vec<u8> {
        let mut der = vec![0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x05, 0x0C];
        der.extend([0x30, 12, 0x04, 4, 1, 2, 3, 4, 0x02, 4]);
        der.extend(rounds.to_be_bytes());
        der
    }

    /// The same for what PKCS#12 had of its own, behind a length of two bytes.
    fn pbe(rounds: u16) -> Vec<u8> {
        let mut der = vec![0x06, 0x0A, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x0C, 0x01, 0x03];
        der.extend([0x30, 0x82, 0, 0x87, 0x04, 0x81, 0x80]);
        der.extend([7; 128]);
        der.extend([0x02, 2]);
        der.extend(rounds.to_be_bytes());
        der
    }

    #[test]
    fn a_store_that_would_keep_everybody_busy_is_not_opened() {
        assert_eq!(rounds(&[pbkdf2(1_000_000), vec![0x30], pbe(2048), pbkdf2(5)].concat()), 1_002_053);
        assert_eq!(rounds(&pbkdf2(1_000_000)[..20]), 0);
        assert!(rounds(&[0x06, 0x09, 0x2B, 0x06, 0x01, 0x04, 0x01, 0xDA, 0x47, 0x04, 0x0B]) > MAX_ROUNDS);
        let reason = |parts: usize| {
            let store = [vec![0x30, 0x82, 1, 0, 0x02, 0x01, 0x03], pbkdf2(1_000_000).repeat(parts)].concat();
            pkcs12(&store, None).err().expect("it is no store").reason
        };
        assert!(reason(11).contains("more than 10000000 rounds"));
        assert!(!reason(10).contains("rounds"));
    }
}
