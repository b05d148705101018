//! [`DkimKey`]: private keys from PEM, or of the program's own cryptography.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use tokio_rustls::rustls::sign::SigningKey;
use tokio_rustls::rustls::{self, SignatureAlgorithm, SignatureScheme};
use x509_cert::der::Decode as _;
use x509_cert::spki::SubjectPublicKeyInfoRef;
use zeroize::Zeroizing;

use crate::file;
use crate::text::quoted;
use crate::tls::{defect_of_key, rsa_bits};
use crate::{Error, ErrorKind, Phase, Result};

/// The maximum size of a file with a key, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// The sizes of RSA keys that all verifiers accept, in bits (RFC 8301, 3.2).
const RSA_BITS: std::ops::RangeInclusive<usize> = 1024..=4096;

const KINDS: &str = "Make a key for RSA (openssl genrsa -out dkim.pem 2048) or for Ed25519 \
    (openssl genpkey -algorithm ed25519 -out dkim.pem).";

const DAMAGED: (&str, &str) = (
    "holds a key that is cut off or damaged",
    "Copy the file anew, with all its lines.",
);

/// The algorithm of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DkimAlgorithm {
    /// `rsa-sha256` (RFC 6376, 3.3.3), which every verifier knows.
    RsaSha256,
    /// `ed25519-sha256` (RFC 8463): short keys and signatures. Not every verifier knows it yet, so
    /// sign with RSA as well.
    Ed25519Sha256,
}

impl DkimAlgorithm {
    /// The name in the tag `a=`.
    pub fn as_str(self) -> &'static str {
        match self {
            DkimAlgorithm::RsaSha256 => "rsa-sha256",
            DkimAlgorithm::Ed25519Sha256 => "ed25519-sha256",
        }
    }

    /// The name in the tag `k=` of the DNS record.
    pub(super) fn key_type(self) -> &'static str {
        match self {
            DkimAlgorithm::RsaSha256 => "rsa",
            DkimAlgorithm::Ed25519Sha256 => "ed25519",
        }
    }

    fn scheme(self) -> SignatureScheme {
        match self {
            DkimAlgorithm::RsaSha256 => SignatureScheme::RSA_PKCS1_SHA256,
            DkimAlgorithm::Ed25519Sha256 => SignatureScheme::ED25519,
        }
    }
}

impl fmt::Display for DkimAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A private key to sign with, for RSA or Ed25519. Cheap to clone.
///
/// ```
/// # #[cfg(any(feature = "aws-lc-rs", feature = "ring"))] {
/// use envoi::dkim::{DkimAlgorithm, DkimKey};
///
/// // That of RFC 8032, 7.1.
/// let key = DkimKey::from_pem(
///     "-----BEGIN PRIVATE KEY-----\n\
///      MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
///      -----END PRIVATE KEY-----\n",
/// )?;
/// assert_eq!(key.algorithm(), DkimAlgorithm::Ed25519Sha256);
/// # }
/// # Ok::<(), envoi::Error>(())
/// ```
#[derive(Clone)]
pub struct DkimKey {
    key: Arc<dyn SigningKey>,
    algorithm: DkimAlgorithm,
}

impl DkimKey {
    /// Reads a key from a file: PEM, in PKCS#8 (`BEGIN PRIVATE KEY`) or, for RSA, in PKCS#1 (`BEGIN
    /// RSA PRIVATE KEY`), not encrypted. Other sections of the file are ignored.
    ///
    /// An RSA key has 2048 to 4096 bits: shorter ones are not secure, and verifiers need not accept
    /// longer ones (RFC 8301, 3.2). What was read is wiped; the key itself is held by the
    /// cryptography, of which aws-lc-rs wipes it when it is dropped.
    ///
    /// Blocks on file I/O. A FIFO or a device is read to EOF, for at most 5 seconds.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`]: the file cannot be read, has more than 64 KiB, or has no key that can
    /// sign; or the build has neither the feature `aws-lc-rs` nor `ring`.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let shown = path.to_string_lossy();
        if shown.contains("-----BEGIN") {
            // Not shown.
            return Err(
                config("a DKIM key was given in place of the path of its file".into())
                    .with_hint("Give the path, or read the key by DkimKey::from_pem."),
            );
        }
        let name = format!("the file {}", quoted(&shown));
        let pem = file::read(path, MAX_FILE, file::time_limit()).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => "Check the path.",
                io::ErrorKind::PermissionDenied => "Let the user that runs this program read it.",
                _ => "Give a regular file that holds the key in PEM.",
            };
            config(format!("the DKIM key cannot be read from {name}: {error}"))
                .with_hint(hint)
                .with_source(error)
        })?;
        Self::parse(&pem, &name)
    }

    /// Reads a key in memory, in the format of [`from_file`](Self::from_file).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`]: there is no key that can sign, or the build has neither the feature
    /// `aws-lc-rs` nor `ring`.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self> {
        Self::parse(pem.as_ref(), "what was given in memory")
    }

    /// Uses a key of the program's own cryptography: of another provider
    /// ([`KeyProvider::load_private_key`](crate::tls::rustls::crypto::KeyProvider)), or in a
    /// hardware module or a key service. Its signer is called on a thread that may block. If it
    /// fails, the message is not sent, with [`ErrorKind::Config`], which is not retried: a signer
    /// of a service that may be away for a moment retries by itself.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`]: the key signs neither by `RSA_PKCS1_SHA256` nor by `ED25519`, or an
    /// RSA key has fewer than 1024 or more than 4096 bits.
    pub fn from_signing_key(key: Arc<dyn SigningKey>) -> Result<Self> {
        Self::check(key, "the signing key")
    }

    /// The algorithm of its signatures.
    pub fn algorithm(&self) -> DkimAlgorithm {
        self.algorithm
    }

    /// The public key as in the tag `p=` of a DNS record, if the key tells it.
    pub(super) fn public_key(&self) -> Option<String> {
        let info = self.key.public_key()?;
        Some(match self.algorithm {
            // A SubjectPublicKeyInfo, as in the examples of RFC 6376, and as verifiers expect it.
            DkimAlgorithm::RsaSha256 => STANDARD.encode(&info),
            // The bare key (RFC 8463, 4).
            DkimAlgorithm::Ed25519Sha256 => STANDARD.encode(bare_key(&info)?),
        })
    }

    /// Signs the header section in its canonical form. `digest` is its SHA-256 hash.
    pub(super) fn sign(&self, input: &[u8], digest: &[u8]) -> Result<Vec<u8>> {
        let signer = self.key.choose_scheme(&[self.algorithm.scheme()]);
        let signed = match (signer, self.algorithm) {
            // The signer hashes what it signs.
            (Some(signer), DkimAlgorithm::RsaSha256) => signer.sign(input),
            // Ed25519 signs the hash as its message (RFC 8463, 3).
            (Some(signer), DkimAlgorithm::Ed25519Sha256) => signer.sign(digest),
            (None, _) => Err(rustls::Error::General("the key has no signer".into())),
        };
        signed.map_err(|error| {
            config(format!("the message cannot be signed: {error}"))
                .with_hint("Check the module or service that holds the key.")
                .with_source(error)
        })
    }

    fn parse(pem: &[u8], name: &str) -> Result<Self> {
        let unusable = |reason: String, hint: &str| {
            config(format!("the DKIM key cannot be used: {name} {reason}")).with_hint(hint)
        };
        let text = Zeroizing::new(file::utf8(pem).into_owned());
        let der = private_key(&text).map_err(|(reason, hint)| unusable(reason.into(), hint))?;
        let der =
            PrivateKeyDer::try_from(&der[..]).map_err(|_| unusable(DAMAGED.0.into(), DAMAGED.1))?;
        let key = load(&der)?.map_err(|error| {
            let failure = match defect_of_key(&der) {
                Some(reason) => unusable(format!("holds {reason}"), KINDS),
                None => unusable(DAMAGED.0.into(), DAMAGED.1),
            };
            failure.with_source(error)
        })?;
        Self::check(key, name)
    }

    /// Checks that a key can sign.
    fn check(key: Arc<dyn SigningKey>, name: &str) -> Result<Self> {
        let unusable = |reason: String| {
            config(format!("the DKIM key cannot be used: {name} {reason}")).with_hint(KINDS)
        };
        let algorithm = match key.algorithm() {
            SignatureAlgorithm::RSA => Some(DkimAlgorithm::RsaSha256),
            SignatureAlgorithm::ED25519 => Some(DkimAlgorithm::Ed25519Sha256),
            _ => None,
        };
        let algorithm = algorithm
            .filter(|algorithm| key.choose_scheme(&[algorithm.scheme()]).is_some())
            .ok_or_else(|| unusable("is neither for RSA with SHA-256 nor for Ed25519".into()))?;
        let bits = key
            .public_key()
            .and_then(|info| rsa_bits(bare_key(&info)?))
            .filter(|_| algorithm == DkimAlgorithm::RsaSha256);
        if let Some(bits) = bits.filter(|bits| !RSA_BITS.contains(bits)) {
            return Err(unusable(format!(
                "is for RSA with {bits} bits, which verifiers need not accept"
            )));
        }
        Ok(DkimKey { key, algorithm })
    }
}

impl fmt::Debug for DkimKey {
    /// Shows the algorithm, never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DkimKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, Phase::Setup, message)
}

/// The bits of the key in a SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
fn bare_key<'a>(info: &'a SubjectPublicKeyInfoDer<'_>) -> Option<&'a [u8]> {
    let info = SubjectPublicKeyInfoRef::from_der(info).ok()?;
    Some(info.subject_public_key.raw_bytes())
}

/// Loads a key by the cryptography of this build, from a reference:
/// `KeyProvider::load_private_key` would take a copy of it, which is not wiped.
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
fn load(der: &PrivateKeyDer<'_>) -> Result<Result<Arc<dyn SigningKey>, rustls::Error>> {
    #[cfg(feature = "aws-lc-rs")]
    use rustls::crypto::aws_lc_rs::sign::any_supported_type;
    #[cfg(not(feature = "aws-lc-rs"))]
    use rustls::crypto::ring::sign::any_supported_type;
    Ok(any_supported_type(der))
}

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
fn load(_: &PrivateKeyDer<'_>) -> Result<Result<Arc<dyn SigningKey>, rustls::Error>> {
    Err(
        config("this build has no cryptography for keys of DKIM".into()).with_hint(
            "Build envoi with the feature aws-lc-rs or ring, or give a key of your own provider \
                (DkimKey::from_signing_key).",
        ),
    )
}

/// Finds the private key in PEM and decodes it. The reader of `rustls` is not used, since it leaves
/// copies of the key in memory.
fn private_key(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, (&'static str, &'static str)> {
    const BEGIN: &[&[u8]] = &[
        b"-----BEGIN PRIVATE KEY-----",
        b"-----BEGIN RSA PRIVATE KEY-----",
    ];
    let has = |label: &str| memmem::find(text, label.as_bytes()).is_some();
    if has("Proc-Type: 4,ENCRYPTED") || has("BEGIN ENCRYPTED PRIVATE KEY") {
        return Err((
            "holds a key that is encrypted",
            "Decrypt it: openssl pkey -in FILE -out dkim.pem.",
        ));
    }
    let found = BEGIN
        .iter()
        .find_map(|begin| memmem::find(text, begin).map(|at| &text[at + begin.len()..]));
    let Some(rest) = found else {
        return Err(if has("BEGIN EC PRIVATE KEY") {
            ("holds an ECDSA key, which DKIM does not have", KINDS)
        } else if has("BEGIN OPENSSH PRIVATE KEY") {
            ("holds a key in the format of OpenSSH", KINDS)
        } else if has("PUBLIC KEY-----") {
            (
                "holds a public key",
                "Give the private key that it belongs to; the public one is published in DNS.",
            )
        } else if has("BEGIN CERTIFICATE") {
            ("holds a certificate, which DKIM does not use", KINDS)
        } else {
            ("holds no private key in PEM", KINDS)
        });
    };
    let encoded = &rest[..memmem::find(rest, b"-----END ").ok_or(DAMAGED)?];
    let mut compact = Zeroizing::new(Vec::with_capacity(encoded.len()));
    compact.extend(encoded.iter().filter(|byte| !byte.is_ascii_whitespace()));
    let mut der = Zeroizing::new(vec![0; compact.len()]);
    let length = STANDARD
        .decode_slice(&*compact, &mut der)
        .map_err(|_| DAMAGED)?;
    // Shortens it in place.
    der.truncate(length);
    Ok(der)
}
