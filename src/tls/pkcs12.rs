//! PKCS#12 (RFC 7292): the format of Oracle wallets (`ewallet.p12`), of Java's key stores, and of
//! `openssl pkcs12`.
//!
//! Bags other than certificates and keys, such as the secret bags of a wallet, are skipped. A key
//! is decrypted only if one is requested.

use std::collections::HashMap;

use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt as _, KeyInit, KeyIvInit as _};
use hmac::digest::block_api::BlockSizeUser;
use hmac::digest::{Digest, FixedOutputReset};
use hmac::{Mac as _, SimpleHmac};
use pkcs5::pbes2::{Kdf, Parameters};
use pkcs12::cms::content_info::ContentInfo;
use pkcs12::cms::encrypted_data::EncryptedData;
use pkcs12::kdf::{self, Pkcs12KeyType};
use pkcs12::pbe_params::{EncryptedPrivateKeyInfo, Pkcs12PbeParams};
use pkcs12::pfx::Pfx;
use pkcs12::safe_bag::SafeBag;
use pkcs12::{AuthenticatedSafe, CertBag, MacData};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, OctetString};
use x509_cert::der::{self, Decode as _, Reader as _, SliceReader};
use x509_cert::spki::AlgorithmIdentifierOwned;
use zeroize::Zeroizing;

use super::client_certificate::{KeyAndCertificates, MAX_CHAIN};
use super::issuers::Issuers;
use super::password::utf16;

/// The maximum number of hash rounds, which take some seconds. Today's stores need 2,048 up to a
/// million in total.
pub(super) const MAX_ROUNDS: u64 = 10_000_000;

/// The maximum number of entries of all kinds. The stores of operating systems have some hundred.
pub(super) const MAX_ENTRIES: usize = 10_000;

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ENCRYPTED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.6");
const LOCAL_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.21");
const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const SHA224: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.4");
/// The attribute with which Java and Oracle mark a trusted certificate.
const TRUSTED_KEY_USAGE: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("2.16.840.1.113894.746875.1.1");

/// Why a store cannot be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    WrongPassword,
    /// The number of rounds that the store asks for.
    TooManyRounds(u64),
    TooManyEntries,
    Unsupported(String),
    Malformed(String),
}

impl From<der::Error> for OpenError {
    fn from(error: der::Error) -> Self {
        OpenError::Malformed(error.to_string())
    }
}

/// The password in both encodings.
struct Password<'a> {
    /// For the algorithms that PKCS#12 defines itself: UTF-16, in which a character such as an
    /// emoji has two units, and a NUL (RFC 7292, B.1; Java and openssl encode such characters
    /// alike).
    utf16: Zeroizing<Vec<u8>>,
    /// For PKCS#5 algorithms.
    utf8: &'a str,
}

/// The number of hash rounds so far.
#[derive(Default)]
struct RoundCounter {
    rounds: u64,
}

impl RoundCounter {
    /// Counts the rounds of a derivation of `blocks` blocks.
    fn take(&mut self, rounds: u64, blocks: u64) -> Result<(), OpenError> {
        let rounds = self.rounds.saturating_add(rounds.saturating_mul(blocks));
        if rounds > MAX_ROUNDS {
            return Err(OpenError::TooManyRounds(rounds));
        }
        self.rounds = rounds;
        Ok(())
    }
}

/// An opened store.
pub(super) struct Store<'a> {
    certificates: Vec<StoredCertificate>,
    keys: Vec<StoredKey>,
    password: Password<'a>,
    work: RoundCounter,
    /// The password has opened something.
    password_verified: bool,
}

struct StoredCertificate {
    der: CertificateDer<'static>,
    local_key_id: Option<Vec<u8>>,
    is_trusted: bool,
}

struct StoredKey {
    /// A PKCS#8 structure.
    key: Zeroizing<Vec<u8>>,
    is_encrypted: bool,
    local_key_id: Option<Vec<u8>>,
}

impl<'a> Store<'a> {
    /// Opens a store, and checks its integrity with the password.
    pub(super) fn open(bytes: &[u8], password: &'a str) -> Result<Self, OpenError> {
        let mut utf16 = utf16(password);
        utf16.extend([0, 0]);
        let mut store = Store {
            certificates: Vec::new(),
            keys: Vec::new(),
            password: Password {
                utf16,
                utf8: password,
            },
            work: RoundCounter::default(),
            password_verified: false,
        };
        let pfx = Pfx::from_der(bytes)?;
        if pfx.auth_safe.content_type != DATA {
            return Err(OpenError::Unsupported(
                "its integrity is protected by a signature".into(),
            ));
        }
        let content = pfx.auth_safe.content.decode_as::<OctetString>()?;
        let parts = AuthenticatedSafe::from_der(content.as_bytes());
        // The total is checked before any hashing is done.
        store.work.take(
            declared_rounds(&pfx, parts.as_deref().unwrap_or_default()),
            1,
        )?;
        if let Some(mac) = &pfx.mac_data {
            store.check(mac, content.as_bytes())?;
            store.password_verified = true;
        }
        for part in parts? {
            match part.content_type {
                DATA => store.read_bags(part.content.decode_as::<OctetString>()?.as_bytes())?,
                ENCRYPTED_DATA => {
                    let part = part.content.decode_as::<EncryptedData>()?.enc_content_info;
                    if let Some(encrypted) = part.encrypted_content {
                        let bags = store.decrypt(&part.content_enc_alg, encrypted.as_bytes())?;
                        store.password_verified = true;
                        store.read_bags(&bags)?;
                    }
                }
                other => {
                    return Err(OpenError::Unsupported(format!(
                        "a part of it is of the kind {other}"
                    )));
                }
            }
        }
        Ok(store)
    }

    /// Checks the MAC, whose key is derived from the password (RFC 7292, 4).
    fn check(&mut self, mac: &MacData, content: &[u8]) -> Result<(), OpenError> {
        u64::try_from(mac.iterations)
            .map_err(|_| OpenError::Malformed("a negative count".into()))?;
        let password = &self.password.utf16;
        let matches = match mac.mac.algorithm.oid {
            SHA1 => mac_matches::<sha1::Sha1>(mac, password, content),
            SHA224 => mac_matches::<sha2::Sha224>(mac, password, content),
            SHA256 => mac_matches::<sha2::Sha256>(mac, password, content),
            SHA384 => mac_matches::<sha2::Sha384>(mac, password, content),
            SHA512 => mac_matches::<sha2::Sha512>(mac, password, content),
            other => return Err(OpenError::Unsupported(format!("the MAC {other}"))),
        };
        if matches {
            Ok(())
        } else {
            Err(OpenError::WrongPassword)
        }
    }

    /// Reads the bags of a part (RFC 7292, 4.2).
    fn read_bags(&mut self, bags: &[u8]) -> Result<(), OpenError> {
        let mut reader = SliceReader::new(bags)?;
        reader.sequence(|reader| {
            while !reader.is_finished() {
                if self.certificates.len() + self.keys.len() >= MAX_ENTRIES {
                    return Err(OpenError::TooManyEntries);
                }
                self.read_bag(reader.tlv_bytes()?)?;
            }
            Ok(())
        })
    }

    fn read_bag(&mut self, bag: &[u8]) -> Result<(), OpenError> {
        // Skipped bags need not be well-formed otherwise.
        let kind =
            ObjectIdentifier::decode(&mut SliceReader::new(AnyRef::from_der(bag)?.value())?)?;
        let read = [
            pkcs12::PKCS_12_CERT_BAG_OID,
            pkcs12::PKCS_12_KEY_BAG_OID,
            pkcs12::PKCS_12_PKCS8_KEY_BAG_OID,
        ];
        if !read.contains(&kind) {
            return Ok(());
        }
        let bag = &SafeBag::from_der(bag)?;
        let value = AnyRef::from_der(&bag.bag_value)?.value();
        let local_key_id =
            attribute::<OctetString>(bag, LOCAL_KEY_ID).map(|id| id.as_bytes().to_vec());
        if kind != pkcs12::PKCS_12_CERT_BAG_OID {
            let is_encrypted = kind == pkcs12::PKCS_12_PKCS8_KEY_BAG_OID;
            self.keys.push(StoredKey {
                key: Zeroizing::new(value.to_vec()),
                is_encrypted,
                local_key_id,
            });
            return Ok(());
        }
        let certificate = CertBag::from_der(value)?;
        // The other type is SDSI (RFC 7292, 4.2.3), which is not in use.
        if certificate.cert_id == pkcs12::PKCS_12_X509_CERT_OID {
            let is_marked = attribute::<ObjectIdentifier>(bag, TRUSTED_KEY_USAGE).is_some();
            self.certificates.push(StoredCertificate {
                der: CertificateDer::from(certificate.cert_value.as_bytes().to_vec()),
                is_trusted: is_marked || local_key_id.as_deref().is_some_and(is_trusted_by_oracle),
                local_key_id,
            });
        }
        Ok(())
    }

    fn decrypt(
        &self,
        algorithm: &AlgorithmIdentifierOwned,
        encrypted: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let parameters = algorithm
            .parameters
            .as_ref()
            .ok_or(OpenError::Malformed("it lacks a parameter".into()))?;
        if algorithm.oid == PBES2 {
            let parameters = parameters.decode_as::<Parameters>()?;
            // No program writes scrypt, whose memory would have to be limited as well.
            if !matches!(parameters.kdf, Kdf::Pbkdf2(_)) {
                return Err(OpenError::Unsupported("scrypt".into()));
            }
            return match parameters.decrypt(self.password.utf8, encrypted) {
                Ok(plain) => Ok(Zeroizing::new(plain)),
                Err(pkcs5::Error::DecryptFailed) => Err(OpenError::WrongPassword),
                Err(error) => Err(OpenError::Unsupported(error.to_string())),
            };
        }
        let parameters = parameters.decode_as::<Pkcs12PbeParams>()?;
        u64::try_from(parameters.iterations)
            .map_err(|_| OpenError::Malformed("a negative count".into()))?;
        match algorithm.oid {
            pkcs12::PKCS_12_PBE_WITH_SHAAND3_KEY_TRIPLE_DES_CBC => {
                self.pbes1::<des::TdesEde3>(&parameters, 24, encrypted)
            }
            pkcs12::PKCS_12_PBE_WITH_SHAAND2_KEY_TRIPLE_DES_CBC => {
                self.pbes1::<des::TdesEde2>(&parameters, 16, encrypted)
            }
            pkcs12::PKCS_12_PBE_WITH_SHAAND128_BIT_RC2_CBC => {
                self.pbes1::<rc2::Rc2>(&parameters, 16, encrypted)
            }
            pkcs12::PKCS_12_PBEWITH_SHAAND40_BIT_RC2_CBC => {
                self.pbes1::<rc2::Rc2>(&parameters, 5, encrypted)
            }
            other => Err(OpenError::Unsupported(format!("the encryption {other}"))),
        }
    }

    /// Decrypts with the encryption that PKCS#12 defines itself (RFC 7292, C).
    fn pbes1<C: KeyInit + BlockCipherDecrypt>(
        &self,
        parameters: &Pkcs12PbeParams,
        key_length: usize,
        encrypted: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (salt, rounds) = (parameters.salt.as_bytes(), parameters.iterations);
        let derive = |purpose, length| {
            Zeroizing::new(kdf::derive_key::<sha1::Sha1>(
                &self.password.utf16,
                salt,
                purpose,
                rounds,
                length,
            ))
        };
        let (key, iv) = (
            derive(Pkcs12KeyType::EncryptionKey, key_length),
            derive(Pkcs12KeyType::Iv, 8),
        );
        let cipher = cbc::Decryptor::<C>::new_from_slices(&key, &iv);
        let cipher =
            cipher.map_err(|_| OpenError::Malformed("a key of the wrong length".into()))?;
        cipher
            .decrypt_padded_vec::<Pkcs7>(encrypted)
            .map(Zeroizing::new)
            .map_err(|_| OpenError::WrongPassword)
    }

    /// Whether the password has opened anything in the store.
    pub(super) fn password_verified(&self) -> bool {
        self.password_verified
    }

    pub(super) fn has_certificates(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// Whether the store has a key.
    pub(super) fn has_key(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The certificates to trust: those that are marked so, and those that do not belong to a key,
    /// since openssl marks none. The chain of a key is presented by its owner, not trusted by it.
    pub(super) fn into_trusted(self) -> Vec<CertificateDer<'static>> {
        let mut certificates = self.certificates;
        if !self.keys.is_empty() {
            let belongs = Chains::new(&certificates).belonging_to(&self.keys);
            let mut belongs = belongs.into_iter();
            certificates
                .retain(|certificate| !belongs.next().unwrap_or(false) || certificate.is_trusted);
        }
        certificates
            .into_iter()
            .map(|certificate| certificate.der)
            .collect()
    }

    /// The first key that can be read and has a certificate, with the certificates that it may
    /// belong to: its chain, or all of the store if the chain is not known.
    pub(super) fn into_own(mut self) -> Result<Option<KeyAndCertificates>, OpenError> {
        let mut error = None;
        if self.certificates.is_empty() {
            return Ok(None);
        }
        for stored in std::mem::take(&mut self.keys) {
            let key = match self.open_key(&stored) {
                Ok(Some(key)) => key,
                Ok(None) => continue,
                Err(reason) => {
                    error = error.or(Some(reason));
                    continue;
                }
            };
            let mut chains = Chains::new(&self.certificates);
            let own = chains.own(&stored);
            let chain = own.map(|own| chains.issuers.path(own, MAX_CHAIN));
            let is_chain = chain.is_some();
            let chain = chain.unwrap_or_else(|| (0..self.certificates.len()).collect());
            let certificates = chain
                .into_iter()
                .map(|at| self.certificates[at].der.clone())
                .collect();
            return Ok(Some(KeyAndCertificates {
                key,
                certificates,
                is_chain,
            }));
        }
        error.map_or(Ok(None), Err)
    }

    /// `None` if the kind of the key is unknown.
    fn open_key(
        &mut self,
        stored: &StoredKey,
    ) -> Result<Option<PrivateKeyDer<'static>>, OpenError> {
        let key = if stored.is_encrypted {
            let encrypted = EncryptedPrivateKeyInfo::from_der(&stored.key)?;
            self.work
                .take(rounds_of(&encrypted.encryption_algorithm), 1)?;
            self.decrypt(
                &encrypted.encryption_algorithm,
                encrypted.encrypted_data.as_bytes(),
            )?
        } else {
            stored.key.clone()
        };
        Ok(PrivateKeyDer::try_from(key.to_vec()).ok())
    }
}

/// The hash rounds that the MAC and the encrypted parts of a store ask for.
fn declared_rounds(pfx: &Pfx, parts: &[ContentInfo]) -> u64 {
    let mac = pfx
        .mac_data
        .as_ref()
        .map_or(0, |mac| u64::try_from(mac.iterations).unwrap_or(0));
    let encrypted = parts
        .iter()
        .filter(|part| part.content_type == ENCRYPTED_DATA);
    let rounds = encrypted.map(|part| {
        let part = part.content.decode_as::<EncryptedData>();
        part.map_or(0, |part| rounds_of(&part.enc_content_info.content_enc_alg))
    });
    rounds.fold(mac, u64::saturating_add)
}

/// The hash rounds that a decryption asks for. Unreadable parameters are refused when it is
/// decrypted.
fn rounds_of(algorithm: &AlgorithmIdentifierOwned) -> u64 {
    let Some(parameters) = &algorithm.parameters else {
        return 0;
    };
    if algorithm.oid == PBES2 {
        return match parameters
            .decode_as::<Parameters>()
            .map(|parameters| parameters.kdf)
        {
            Ok(Kdf::Pbkdf2(derivation)) => u64::from(derivation.iteration_count).saturating_mul(2),
            _ => 0,
        };
    }
    let rounds = parameters
        .decode_as::<Pkcs12PbeParams>()
        .map(|parameters| parameters.iterations);
    // The key, which may need two blocks of SHA-1, and the initialization vector.
    rounds.map_or(0, |rounds| {
        u64::try_from(rounds).unwrap_or(0).saturating_mul(3)
    })
}

fn mac_matches<D: Digest + FixedOutputReset + BlockSizeUser>(
    mac: &MacData,
    password: &[u8],
    content: &[u8],
) -> bool {
    let (salt, length) = (mac.mac_salt.as_bytes(), <D as Digest>::output_size());
    let key = Zeroizing::new(kdf::derive_key::<D>(
        password,
        salt,
        Pkcs12KeyType::Mac,
        mac.iterations,
        length,
    ));
    let Ok(expected) = <SimpleHmac<D> as hmac::KeyInit>::new_from_slice(&key) else {
        return false;
    };
    expected
        .chain_update(content)
        .verify_slice(mac.mac.digest.as_bytes())
        .is_ok()
}

/// The first value of an attribute of a bag.
fn attribute<'a, T: der::Choice<'a> + der::DecodeValue<'a>>(
    bag: &'a SafeBag,
    oid: ObjectIdentifier,
) -> Option<T> {
    let attribute = bag
        .bag_attributes
        .as_ref()?
        .iter()
        .find(|attribute| attribute.oid == oid)?;
    attribute.values.iter().next()?.decode_as().ok()
}

/// Oracle gives each entry of a wallet an identifier that states its kind: here, a trusted
/// certificate.
fn is_trusted_by_oracle(local_key_id: &[u8]) -> bool {
    matches!(
        local_key_id,
        [
            0xE6,
            0xB6,
            0x52,
            0xDD,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            0,
            0,
            0,
            3,
            ..
        ]
    )
}

/// The chains of certificates that belong to keys.
struct Chains<'a> {
    certificates: &'a [StoredCertificate],
    issuers: Issuers,
    by_id: HashMap<&'a [u8], usize>,
}

impl<'a> Chains<'a> {
    fn new(certificates: &'a [StoredCertificate]) -> Self {
        let mut by_id = HashMap::new();
        for (at, certificate) in certificates.iter().enumerate() {
            if let Some(id) = &certificate.local_key_id {
                by_id.entry(id.as_slice()).or_insert(at);
            }
        }
        Chains {
            certificates,
            issuers: Issuers::new(certificates.iter().map(|certificate| &certificate.der[..])),
            by_id,
        }
    }

    /// The certificate of a key. Without identifiers it is the first one, as in all programs that
    /// write stores.
    fn own(&self, key: &StoredKey) -> Option<usize> {
        match &key.local_key_id {
            Some(id) => self.by_id.get(id.as_slice()).copied(),
            None => (!self.certificates.is_empty()).then_some(0),
        }
    }

    /// Marks the certificates that belong to the chain of a key. A chain ends where it meets one
    /// that is marked already.
    fn belonging_to(&mut self, keys: &[StoredKey]) -> Vec<bool> {
        let mut belongs = vec![false; self.certificates.len()];
        for key in keys {
            let Some(own) = self.own(key) else { continue };
            let mut chain = vec![own];
            while let Some(last) = chain.last()
                && !std::mem::replace(&mut belongs[*last], true)
                && chain.len() < MAX_CHAIN
                && let Some(issuer) = self.issuers.above(&chain)
            {
                chain.push(issuer);
            }
        }
        belongs
    }
}

#[cfg(test)]
mod tests {
    use pkcs12::DigestInfo;
    use pkcs12::pfx::Version;
    use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
    use x509_cert::attr::Attribute;
    use x509_cert::der::Encode as _;
    use x509_cert::der::asn1::Any;

    use super::*;
    use crate::tls::{Certificate, ClientCertificate, connector};

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    /// A certificate for `name`, issued by `issuer`, all with the same key.
    fn certificate(name: &str, issuer: &str, key: &KeyPair) -> StoredCertificate {
        let issuer = Issuer::new(params(issuer), key);
        let der = params(name).signed_by(key, &issuer).unwrap().der().to_vec();
        StoredCertificate {
            der: der.into(),
            local_key_id: None,
            is_trusted: false,
        }
    }

    fn key_of(id: usize) -> StoredKey {
        let local_key_id = Some(id.to_be_bytes().to_vec());
        StoredKey {
            key: Zeroizing::default(),
            is_encrypted: false,
            local_key_id,
        }
    }

    fn data(der: Vec<u8>) -> ContentInfo {
        let content = Any::encode_from(&OctetString::new(der).unwrap()).unwrap();
        ContentInfo {
            content_type: DATA,
            content,
        }
    }

    /// A store without encryption.
    fn store_of(bags: &[SafeBag], mac_data: Option<MacData>) -> Vec<u8> {
        let safe = vec![data(bags.to_vec().to_der().unwrap())]
            .to_der()
            .unwrap();
        Pfx {
            version: Version::V3,
            auth_safe: data(safe),
            mac_data,
        }
        .to_der()
        .unwrap()
    }

    fn certificate_bag(der: &[u8]) -> SafeBag {
        let cert_value = OctetString::new(der).unwrap();
        let bag = CertBag {
            cert_id: pkcs12::PKCS_12_X509_CERT_OID,
            cert_value,
        };
        SafeBag {
            bag_id: pkcs12::PKCS_12_CERT_BAG_OID,
            bag_value: bag.to_der().unwrap(),
            bag_attributes: None,
        }
    }

    #[test]
    fn reading_takes_linear_steps_in_the_entries() {
        const NUMBER: usize = 400;
        let key = KeyPair::generate().unwrap();
        type Name = fn(usize) -> String;
        let shapes: [(&str, Name, Name); 4] = [
            (
                "one chain",
                |at| format!("{at}"),
                |at| format!("{}", at + 1),
            ),
            ("one issuer", |at| format!("{at}"), |_| "0".into()),
            ("the same name", |_| "A".into(), |_| "A".into()),
            (
                "in circles",
                |at| format!("{}", at % 2),
                |at| format!("{}", (at + 1) % 2),
            ),
        ];
        for (shape, name, issuer) in shapes {
            let mut certificates: Vec<_> = (0..NUMBER)
                .map(|at| certificate(&name(at), &issuer(at), &key))
                .collect();
            for (id, certificate) in certificates.iter_mut().enumerate() {
                certificate.local_key_id = Some(id.to_be_bytes().to_vec());
            }
            let keys: Vec<_> = (0..NUMBER).map(key_of).collect();
            let mut chains = Chains::new(&certificates);
            let belongs = chains.belonging_to(&keys);
            assert!(belongs.iter().all(|belongs| *belongs), "{shape}");
            assert!(
                chains.issuers.steps <= 3 * NUMBER,
                "{shape}: {} steps",
                chains.issuers.steps
            );
            let before = chains.issuers.steps;
            assert!(chains.issuers.path(0, MAX_CHAIN).len() <= MAX_CHAIN);
            assert!(
                chains.issuers.steps - before <= MAX_CHAIN * MAX_CHAIN,
                "{shape}"
            );
        }
    }

    /// As in an Oracle wallet, where each entry may have its own identifier.
    #[test]
    fn the_certificate_of_a_key_is_found_by_its_public_key() {
        let keys: Vec<_> = (0..3).map(|_| KeyPair::generate().unwrap()).collect();
        let [root, other, client] = &keys[..] else {
            panic!()
        };
        let authority = Issuer::new(params("Root"), root);
        let bags = [
            params("Stranger").self_signed(other).unwrap(),
            params("Root").self_signed(root).unwrap(),
            params("Client").signed_by(client, &authority).unwrap(),
        ];
        let mut bags: Vec<_> = bags
            .iter()
            .map(|certificate| certificate_bag(certificate.der()))
            .collect();
        let id = Attribute {
            oid: LOCAL_KEY_ID,
            values: vec![Any::encode_from(&OctetString::new([7; 24]).unwrap()).unwrap()]
                .try_into()
                .unwrap(),
        };
        bags.push(SafeBag {
            bag_id: pkcs12::PKCS_12_KEY_BAG_OID,
            bag_value: client.serialize_der(),
            bag_attributes: Some(vec![id].try_into().unwrap()),
        });
        let own = ClientCertificate::pem(store_of(&bags, None));
        assert_eq!(own.load().unwrap().subject, "CN=Client");
        let provider = connector::provider().unwrap();
        let certified = own.certified(&provider, crate::file::time_limit()).unwrap();
        let chain: Vec<_> = certified
            .cert
            .iter()
            .map(|der| Certificate::read(der).unwrap().subject)
            .collect();
        assert_eq!(chain, ["CN=Client", "CN=Root"]);
    }

    #[test]
    fn number_of_entries_is_limited() {
        let key = KeyPair::generate().unwrap();
        let bag = certificate_bag(&certificate("A", "A", &key).der);
        let bags = vec![bag; MAX_ENTRIES + 1];
        assert!(matches!(
            Store::open(&store_of(&bags, None), ""),
            Err(OpenError::TooManyEntries)
        ));
        let store = Store::open(&store_of(&bags[1..], None), "")
            .unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(store.into_trusted().len(), MAX_ENTRIES);
    }

    #[test]
    fn a_store_with_too_many_iterations_is_refused() {
        let mac = |iterations| {
            let algorithm = AlgorithmIdentifierOwned {
                oid: SHA1,
                parameters: None,
            };
            let mac = DigestInfo {
                algorithm,
                digest: OctetString::new([0; 20]).unwrap(),
            };
            store_of(
                &[],
                Some(MacData {
                    mac,
                    mac_salt: OctetString::new([0; 8]).unwrap(),
                    iterations,
                }),
            )
        };
        assert!(matches!(
            Store::open(&mac(10_000_001), ""),
            Err(OpenError::TooManyRounds(10_000_001))
        ));
        assert!(matches!(
            Store::open(&mac(i32::MAX), ""),
            Err(OpenError::TooManyRounds(0x7FFF_FFFF))
        ));
        assert!(matches!(
            Store::open(&mac(-1), ""),
            Err(OpenError::Malformed(_))
        ));
        assert!(matches!(
            Store::open(&mac(1), ""),
            Err(OpenError::WrongPassword)
        ));
        // The rounds of all parts are added.
        let mut work = RoundCounter::default();
        assert!(work.take(MAX_ROUNDS / 4, 3).is_ok() && work.take(MAX_ROUNDS / 4, 1).is_ok());
        assert!(matches!(
            work.take(1, 1),
            Err(OpenError::TooManyRounds(10_000_001))
        ));
        assert!(matches!(
            work.take(u64::MAX, 3),
            Err(OpenError::TooManyRounds(u64::MAX))
        ));
    }

    /// The MAC does not match any password: if the total is refused, it was not checked.
    #[test]
    fn iterations_of_all_parts_are_added_before_decryption() {
        let parameters = Pkcs12PbeParams {
            salt: OctetString::new([0; 8]).unwrap(),
            iterations: 3_000_000,
        };
        let part = |rounds| {
            let parameters = Pkcs12PbeParams {
                iterations: rounds,
                ..parameters.clone()
            };
            let algorithm = AlgorithmIdentifierOwned {
                oid: pkcs12::PKCS_12_PBE_WITH_SHAAND3_KEY_TRIPLE_DES_CBC,
                parameters: Some(Any::encode_from(&parameters).unwrap()),
            };
            let encrypted = EncryptedData {
                version: pkcs12::cms::content_info::CmsVersion::V0,
                enc_content_info: pkcs12::cms::enveloped_data::EncryptedContentInfo {
                    content_type: DATA,
                    content_enc_alg: algorithm,
                    encrypted_content: Some(OctetString::new([0; 8]).unwrap()),
                },
                unprotected_attrs: None,
            };
            ContentInfo {
                content_type: ENCRYPTED_DATA,
                content: Any::encode_from(&encrypted).unwrap(),
            }
        };
        let store = |rounds: [i32; 2]| {
            let algorithm = AlgorithmIdentifierOwned {
                oid: SHA1,
                parameters: None,
            };
            let mac = DigestInfo {
                algorithm,
                digest: OctetString::new([0; 20]).unwrap(),
            };
            let mac = MacData {
                mac,
                mac_salt: OctetString::new([0; 8]).unwrap(),
                iterations: 1,
            };
            let safe = rounds.map(part).to_vec().to_der().unwrap();
            Pfx {
                version: Version::V3,
                auth_safe: data(safe),
                mac_data: Some(mac),
            }
            .to_der()
            .unwrap()
        };
        assert!(matches!(
            Store::open(&store([1, 1]), ""),
            Err(OpenError::WrongPassword)
        ));
        let refused = Store::open(&store([3_000_000, 2_000_000]), "");
        assert!(matches!(refused, Err(OpenError::TooManyRounds(15_000_001))));
    }
}
