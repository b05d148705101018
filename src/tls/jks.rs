//! JKS: the older format of Java's key stores, still used for many a `cacerts`.
//!
//! A list of entries, followed by a checksum that includes the password. Certificates are not
//! encrypted, so Java opens a trust store without its password, and so does this module. Each key
//! is encrypted with the password.

use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt as _, KeyIvInit as _};
use md5::Md5;
use pkcs12::pbe_params::{EncryptedPrivateKeyInfo, Pkcs12PbeParams};
use sha1::{Digest as _, Sha1};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use zeroize::Zeroizing;

use super::client_certificate::KeyAndCertificates;
use super::formats::FormatError;
use super::keystore;
use super::password::utf16;
use super::pkcs12::{MAX_ENTRIES, MAX_ROUNDS};
use crate::Secret;

const CHECK_SUM: usize = 20;

/// The algorithms that protect the keys of JKS and of JCEKS.
const JKS_KEY_PROTECTION: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.42.2.17.1.1");
const JCEKS_KEY_PROTECTION: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.42.2.19.1");

/// An opened JKS or JCEKS store.
#[derive(Default)]
pub(super) struct Store<'a> {
    /// The trusted certificates.
    pub(super) trusted: Vec<CertificateDer<'static>>,
    /// The encrypted private keys, each with its chain.
    pub(super) own: Vec<(&'a [u8], Vec<&'a [u8]>)>,
    /// There are entries that were not read.
    pub(super) is_cut: bool,
    is_too_large: bool,
}

impl<'a> Store<'a> {
    /// Reads the certificates. The keys stay encrypted.
    pub(super) fn open(bytes: &'a [u8], password: Option<&Secret>) -> Result<Self, FormatError> {
        let (content, check_sum) = bytes
            .len()
            .checked_sub(CHECK_SUM)
            .map(|middle| bytes.split_at(middle))
            .ok_or_else(damaged)?;
        if let Some(password) = password
            && check(content, password.expose()) != check_sum
        {
            return Err(keystore::wrong_password(true));
        }
        let store = entries(&mut Reader(content)).ok_or_else(damaged)?;
        if store.is_too_large {
            Err(keystore::too_many_entries("JKS"))
        } else {
            Ok(store)
        }
    }

    /// The first key that has a certificate, with its chain. The key must have the password of the
    /// store.
    pub(super) fn into_own(
        self,
        password: Option<&Secret>,
    ) -> Result<Option<KeyAndCertificates>, FormatError> {
        let Some((key, chain)) = self.own.into_iter().find(|(_, chain)| !chain.is_empty()) else {
            return Ok(None);
        };
        let password = password.ok_or_else(|| keystore::wrong_password(false))?;
        let encrypted = EncryptedPrivateKeyInfo::from_der(key).map_err(|_| damaged())?;
        let algorithm = &encrypted.encryption_algorithm;
        let parameters = algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.decode_as().ok());
        let plain = match (algorithm.oid, parameters) {
            (JKS_KEY_PROTECTION, _) => {
                jks_key(encrypted.encrypted_data.as_bytes(), password.expose())
            }
            (JCEKS_KEY_PROTECTION, Some(parameters)) => jceks_key(
                &parameters,
                encrypted.encrypted_data.as_bytes(),
                password.expose(),
            ),
            (other, _) => {
                return Err(FormatError::new(
                    format!(
                        "is a Java key store (JKS) whose key is protected in a way that is not \
                            supported ({other})"
                    ),
                    "Convert it: keytool -importkeystore -srckeystore FILE -destkeystore \
                        client.p12 -deststoretype PKCS12.",
                ));
            }
        };
        let plain = plain.ok_or_else(|| keystore::key_password("JKS"))?;
        let key = PrivateKeyDer::try_from(plain.to_vec()).map_err(|_| damaged())?;
        let certificates = chain
            .into_iter()
            .map(|der| CertificateDer::from(der.to_vec()))
            .collect();
        Ok(Some(KeyAndCertificates {
            key,
            certificates,
            is_chain: true,
        }))
    }
}

fn damaged() -> FormatError {
    FormatError::new(
        "is a Java key store (JKS) that is damaged",
        "Get the file anew.",
    )
}

/// The checksum: SHA-1 of the password, the format's constant `Mighty Aphrodite`, and the contents.
fn check(content: &[u8], password: &str) -> [u8; CHECK_SUM] {
    let mut sum = Sha1::new();
    sum.update(&*utf16(password));
    sum.update("Mighty Aphrodite");
    sum.update(content);
    sum.finalize().into()
}

/// Decrypts a key of JKS: a salt, the key XORed with a stream of SHA-1 hashes that starts with the
/// salt, and the hash of password and key. `None` if the hash does not match.
fn jks_key(encrypted: &[u8], password: &str) -> Option<Zeroizing<Vec<u8>>> {
    let password = utf16(password);
    let (salt, rest) = encrypted.split_at_checked(CHECK_SUM)?;
    let (encrypted, check_sum) = rest.split_at_checked(rest.len().checked_sub(CHECK_SUM)?)?;
    let mut plain = Zeroizing::new(Vec::with_capacity(encrypted.len()));
    let mut stream: [u8; CHECK_SUM] = salt.try_into().ok()?;
    for block in encrypted.chunks(CHECK_SUM) {
        stream = Sha1::new()
            .chain_update(&*password)
            .chain_update(stream)
            .finalize()
            .into();
        plain.extend(block.iter().zip(stream).map(|(byte, mask)| byte ^ mask));
    }
    let expected: [u8; CHECK_SUM] = Sha1::new()
        .chain_update(&*password)
        .chain_update(&*plain)
        .finalize()
        .into();
    (check_sum == expected).then_some(plain)
}

/// Decrypts a key of JCEKS: Triple DES, with a key derived from each half of the salt by MD5.
/// `None` if the padding is wrong.
fn jceks_key(
    parameters: &Pkcs12PbeParams,
    encrypted: &[u8],
    password: &str,
) -> Option<Zeroizing<Vec<u8>>> {
    let mut salt: [u8; 8] = parameters.salt.as_bytes().try_into().ok()?;
    let rounds = u64::try_from(parameters.iterations)
        .ok()
        .filter(|rounds| *rounds <= MAX_ROUNDS)?;
    // Java tries to reverse the first of two equal halves, and its code does this.
    if salt[..4] == salt[4..] {
        let [a, b, _, d, ..] = salt;
        salt[..4].copy_from_slice(&[d, a, b, d]);
    }
    let mut derived = Zeroizing::new(Vec::with_capacity(32));
    for half in [&salt[..4], &salt[4..]] {
        let mut hash = Zeroizing::new(half.to_vec());
        for _ in 0..rounds {
            hash = Zeroizing::new(
                Md5::new()
                    .chain_update(&*hash)
                    .chain_update(password)
                    .finalize()
                    .to_vec(),
            );
        }
        derived.extend_from_slice(&hash);
    }
    let (key, iv) = derived.split_at_checked(24)?;
    let cipher = cbc::Decryptor::<des::TdesEde3>::new_from_slices(key, iv).ok()?;
    cipher
        .decrypt_padded_vec::<Pkcs7>(encrypted)
        .ok()
        .map(Zeroizing::new)
}

/// Reads all entries; `None` if the file is truncated or malformed.
fn entries<'a>(reader: &mut Reader<'a>) -> Option<Store<'a>> {
    let mut store = Store::default();
    let _magic = reader.number()?;
    let version = reader.number()?;
    let count = reader.number()?;
    let mut certificates_left = MAX_ENTRIES;
    for _ in 0..count {
        let tag = reader.number()?;
        let _alias = reader.text()?;
        let _created = reader.take(8)?;
        let key = match tag {
            1 => Some(reader.block()?),
            2 => None,
            // A secret key of JCEKS, which is a Java object. If its end cannot be found, the
            // entries before it are used.
            3 => match skip_java_stream(reader) {
                Some(()) => continue,
                None => {
                    store.is_cut = true;
                    break;
                }
            },
            _ => return None,
        };
        let certificates = if key.is_some() {
            reader.number()?.try_into().ok()?
        } else {
            1
        };
        if certificates > certificates_left || store.own.len() >= MAX_ENTRIES {
            // A count that the rest of the file is too short for is damage.
            let is_possible = certificates <= reader.0.len();
            return is_possible.then(|| Store {
                is_too_large: true,
                ..Store::default()
            });
        }
        certificates_left -= certificates;
        let chain = (0..certificates)
            .map(|_| reader.certificate(version))
            .collect::<Option<Vec<_>>>()?;
        match key {
            Some(key) => store.own.push((key, chain)),
            None => store.trusted.extend(
                chain
                    .into_iter()
                    .map(|der| CertificateDer::from(der.to_vec())),
            ),
        }
    }
    Some(store)
}

/// Skips a stream of one Java object, with the subset that sealed keys use (Java Object
/// Serialization Specification, 6.4.2).
fn skip_java_stream(reader: &mut Reader<'_>) -> Option<()> {
    (reader.take(4)? == [0xAC, 0xED, 0, 5]).then_some(())?;
    skip_java_object(reader, 8)
}

fn skip_java_object(reader: &mut Reader<'_>, depth: u8) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    match reader.byte()? {
        // null, a back-reference, a string
        0x70 => {}
        0x71 => drop(reader.take(4)?),
        0x74 => drop(reader.text()?),
        // An object: the fields of its superclasses come first.
        0x73 => {
            for kind in java_classes(reader, depth)?.iter().rev().flatten() {
                match kind {
                    b'B' | b'Z' => drop(reader.take(1)?),
                    b'C' | b'S' => drop(reader.take(2)?),
                    b'F' | b'I' => drop(reader.take(4)?),
                    b'D' | b'J' => drop(reader.take(8)?),
                    b'L' | b'[' => skip_java_object(reader, depth)?,
                    _ => return None,
                }
            }
        }
        // An array; here, of bytes.
        0x75 => {
            java_classes(reader, depth)?;
            reader.block()?;
        }
        _ => return None,
    }
    Some(())
}

/// The types of the fields of a class, and of its superclasses.
fn java_classes(reader: &mut Reader<'_>, depth: u8) -> Option<Vec<Vec<u8>>> {
    let mut classes = Vec::new();
    loop {
        match reader.byte()? {
            0x70 => return Some(classes),
            0x71 => return reader.take(4).map(|_| classes),
            0x72 => {
                let _name = reader.text()?;
                let _version = reader.take(8)?;
                // Serializable, without custom data.
                (reader.byte()? == 2).then_some(())?;
                let mut fields = Vec::new();
                for _ in 0..u16::from_be_bytes(reader.take(2)?.try_into().ok()?) {
                    let kind = reader.byte()?;
                    let _name = reader.text()?;
                    if matches!(kind, b'L' | b'[') {
                        skip_java_object(reader, depth)?;
                    }
                    fields.push(kind);
                }
                (reader.byte()? == 0x78).then_some(())?;
                classes.push(fields);
            }
            _ => return None,
        }
    }
}

/// The rest of the file. Numbers are big-endian; lengths are checked against the bytes that remain.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.take(4)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_be_bytes)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self
            .take(2)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u16::from_be_bytes)?;
        self.take(length.into())
    }

    fn block(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length.try_into().ok()?)
    }

    fn certificate(&mut self, version: u32) -> Option<&'a [u8]> {
        // Version 1 supported X.509 only and did not state the type.
        if version > 1 {
            self.text()?;
        }
        self.block()
    }
}
