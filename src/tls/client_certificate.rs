//! The certificate that the client presents if a server requests one.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::files::FileState;
use super::formats::{self, FormatError, KeyStore};
use super::issuers::Issuers;
#[cfg(feature = "keystores")]
use super::keystore::own;
use super::password::Password;
use super::reasons::rustls_text;
use super::store::{MAX_FILE, wallet_stores};
use super::trust::strip_file_prefix;
use super::{Certificate, connector, defects};
use crate::{Error, ErrorKind, Phase, Result, Secret, file};

/// A client certificate with its key, presented to servers that request one.
///
/// Certificate and key are PEM (in one file or two), or, with the feature `keystores`, in a key
/// store: PKCS#12, JKS, or an Oracle wallet. The format is recognized by the content.
///
/// ```no_run
/// use envoi::tls::{ClientCertificate, TlsSettings, Trust};
///
/// let certificate = ClientCertificate::file("client.pem").key("client.key");
/// println!("we are {}", certificate.load()?);
/// let settings = TlsSettings::new(Trust::system()).client_certificate(certificate);
/// # let _ = settings;
/// # Ok::<(), envoi::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use = "a method returns the changed value"]
pub struct ClientCertificate {
    certificate: Part,
    key: Option<Part>,
    password: Option<Password>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Part {
    File(PathBuf),
    Bytes(Arc<[u8]>),
}

impl Hash for ClientCertificate {
    /// Without the password.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.certificate.hash(state);
        self.key.hash(state);
    }
}

impl fmt::Debug for ClientCertificate {
    /// Shows the sources, never the contents, which may include a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("ClientCertificate");
        fields.field("certificate", &self.certificate.name());
        fields
            .field("key", &self.key.as_ref().map(Part::name))
            .finish_non_exhaustive()
    }
}

impl ClientCertificate {
    /// Reads a file with the certificate, and with those of its issuers that the server may not
    /// have: PEM, or a key store. If the key is in another file, name it with [`key`](Self::key).
    /// From a key store, the first key that has a certificate is used.
    ///
    /// The path may be the folder of an Oracle wallet; see [`Trust::folder`](super::Trust::folder)
    /// for which of its files is read. It may begin with `file:`, as Oracle writes it.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        ClientCertificate {
            certificate: Part::File(path.into()),
            key: None,
            password: None,
        }
    }

    /// Uses a certificate in memory, in any format that a [file](Self::file) may have.
    pub fn pem(bytes: impl AsRef<[u8]>) -> Self {
        ClientCertificate {
            certificate: Part::Bytes(bytes.as_ref().into()),
            key: None,
            password: None,
        }
    }

    /// Sets the file with the key: PEM or DER, not encrypted.
    pub fn key(mut self, path: impl Into<PathBuf>) -> Self {
        self.key = Some(Part::File(path.into()));
        self
    }

    /// Uses a key in memory.
    pub fn key_pem(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.key = Some(Part::Bytes(bytes.as_ref().into()));
        self
    }

    /// Sets the password of the key store and of the key in it.
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.password = Some(Password::Given(password.into()));
        self
    }

    /// Reads the password of the key store from the first line of a file; see
    /// [`Trust::password_file`](super::Trust::password_file).
    pub fn password_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.password = Some(Password::File(path.into()));
        self
    }

    /// The files of the certificate, the key and the password, if nothing is in memory.
    pub(crate) fn paths(&self) -> Option<(&PathBuf, Option<&PathBuf>, Option<&PathBuf>)> {
        fn file(part: &Part) -> Option<&PathBuf> {
            match part {
                Part::File(path) => Some(path),
                Part::Bytes(_) => None,
            }
        }
        let key = match &self.key {
            Some(part) => Some(file(part)?),
            None => None,
        };
        let password = match &self.password {
            Some(Password::File(path)) => Some(path),
            Some(Password::Given(_)) => return None,
            None => None,
        };
        Some((file(&self.certificate)?, key, password))
    }

    /// Loads the certificate now and returns it. A client loads it itself; call this to check a
    /// setting early. Blocks on file I/O as [`Trust::load`](super::Trust::load) does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`]: a file cannot be read, it contains no certificate or no key, the two
    /// do not belong together, or the password is wrong; or the build has neither the feature
    /// `aws-lc-rs` nor `ring`, which provide the cryptography that reads the key here.
    pub fn load(&self) -> Result<Certificate> {
        let certified = self.certified(&*connector::provider()?, file::time_limit())?;
        let leaf = certified
            .cert
            .first()
            .and_then(|der| Certificate::read(der));
        leaf.ok_or_else(|| {
            self.certificate.unusable(FormatError::new(
                "holds a certificate that cannot be read",
                DAMAGED,
            ))
        })
    }

    /// The state of the files that would be read now. Blocks on file I/O.
    pub(super) fn files(&self) -> FileState {
        let mut files = FileState::default();
        for part in [Some(&self.certificate), self.key.as_ref()]
            .into_iter()
            .flatten()
        {
            if let Part::File(path) = part {
                files.add(&strip_file_prefix(path));
            }
        }
        if let Some(Password::File(path)) = &self.password {
            files.add(path);
        }
        files
    }

    /// The chain, with the client's certificate first, and the key as the crypto provider loads it.
    pub(super) fn certified(
        &self,
        provider: &CryptoProvider,
        until: Instant,
    ) -> Result<CertifiedKey> {
        let KeyAndCertificates {
            key,
            certificates: mut chain,
            is_chain,
        } = self.read(until)?;
        // The errors of the provider do not say what is wrong with a key.
        let defect = defects::of_key(&key);
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| {
                let part = self.key.as_ref().unwrap_or(&self.certificate);
                let reason = defect.unwrap_or_else(|| {
                    format!(
                        "a key of a kind that is not supported ({})",
                        rustls_text(&error)
                    )
                });
                part.unusable(FormatError::new(format!("holds {reason}"), KEY_KINDS))
                    .with_source(error)
            })?;
        // The certificates of a file are in no particular order; the key identifies the client's
        // own. (The check in rustls cannot read X.509 version 1, which `openssl x509 -req`
        // creates.)
        let public = key.public_key();
        let belongs = |der: &CertificateDer<'_>| match &public {
            Some(public) => {
                Certificate::read(der).is_some_and(|certificate| certificate.has_key(public))
            }
            None => true,
        };
        let Some(own) = chain.iter().position(belongs) else {
            return Err(self.certificate.unusable(FormatError::new(
                "holds no certificate for the key: certificate and key do not belong together",
                "Give the certificate that was issued for this key, or the key of this \
                    certificate.",
            )));
        };
        if is_chain {
            let leaf = chain.remove(own);
            chain.insert(0, leaf);
        } else {
            let mut issuers = Issuers::new(chain.iter().map(|der| &der[..]));
            let path = issuers.path(own, MAX_CHAIN);
            chain = path.into_iter().map(|at| chain[at].clone()).collect();
        }
        Ok(CertifiedKey::new(chain, key))
    }

    fn read(&self, until: Instant) -> Result<KeyAndCertificates> {
        let password = self
            .password
            .as_ref()
            .map(|password| password.read("the key store's password", until))
            .transpose()?;
        if let Part::File(path) = &self.certificate
            && strip_file_prefix(path).is_dir()
        {
            return self.read_wallet(&strip_file_prefix(path), password.as_ref(), until);
        }
        self.read_part(&self.certificate, password.as_ref(), until)
    }

    /// The first store of a wallet that opens.
    fn read_wallet(
        &self,
        folder: &Path,
        password: Option<&Secret>,
        until: Instant,
    ) -> Result<KeyAndCertificates> {
        let mut first = None;
        for store in wallet_stores(folder, password.is_some()) {
            match self.read_part(&Part::File(store), password, until) {
                Ok(own) => return Ok(own),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| {
            self.certificate.unusable(FormatError::new(
                "is a folder without a wallet",
                "Give a file, or the folder of a wallet.",
            ))
        }))
    }

    fn read_part(
        &self,
        part: &Part,
        password: Option<&Secret>,
        until: Instant,
    ) -> Result<KeyAndCertificates> {
        let bytes = part.read(until)?;
        if let Some(format) = KeyStore::of(&bytes) {
            return own(format, &bytes, password).map_err(|why| part.unusable(why));
        }
        let found = formats::certificates(&bytes, None).map_err(|why| {
            let hint = if why.reason == formats::KEY_ALONE {
                CERTIFICATE_FIRST.into()
            } else {
                why.hint
            };
            part.unusable(FormatError { hint, ..why })
        })?;
        let key = match &self.key {
            Some(part) => private_key(&part.read(until)?).map_err(|why| part.unusable(why))?,
            None => private_key(&bytes).map_err(|why| part.unusable(why))?,
        };
        Ok(KeyAndCertificates {
            key,
            certificates: found.certificates,
            is_chain: true,
        })
    }
}

/// A key, and the certificates that contain its own.
pub(super) struct KeyAndCertificates {
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// The other certificates are its issuers. Otherwise they may be unrelated.
    pub(super) is_chain: bool,
}

/// The maximum length of a chain. Longer ones are not in use, and no server accepts them.
pub(super) const MAX_CHAIN: usize = 16;

const CERTIFICATE_FIRST: &str = "Give the certificate that was issued for this key \
    (ClientCertificate::file), and name this file as its key \
                                 (ClientCertificate::key).";
const DAMAGED: &str = "Get the file anew: it is damaged.";
const KEY_KINDS: &str = "Use a key for RSA (2048 bits or more), ECDSA (P-256, P-384) or Ed25519.";

impl Part {
    fn name(&self) -> String {
        match self {
            Part::File(path) => path.display().to_string(),
            Part::Bytes(_) => "what was given in memory".into(),
        }
    }

    fn read(&self, until: Instant) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Part::File(path) => read(&strip_file_prefix(path), until),
            Part::Bytes(bytes) => Ok(bytes.to_vec().into()),
        }
    }

    fn unusable(&self, why: FormatError) -> Error {
        let message = format!(
            "the client certificate cannot be used: {} {}",
            self.name(),
            why.reason
        );
        Error::new(ErrorKind::Config, Phase::Setup, message).with_hint(why.hint)
    }
}

fn read(path: &Path, until: Instant) -> Result<Zeroizing<Vec<u8>>> {
    file::read(path, MAX_FILE, until).map_err(|error| {
        let message = format!(
            "the client certificate cannot be read from {}: {error}",
            path.display()
        );
        let hint = match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::FileTooLarge => {
                "Give a regular file with the certificate or its key in PEM, or a key store."
            }
            _ => "Check the path, and that the user who runs this program may read it.",
        };
        Error::new(ErrorKind::Config, Phase::Setup, message)
            .with_hint(hint)
            .with_source(error)
    })
}

fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, FormatError> {
    let text = file::utf8(bytes);
    if let Ok(key) = PrivateKeyDer::from_pem_slice(&text) {
        return Ok(key);
    }
    let encrypted = [
        &b"BEGIN ENCRYPTED PRIVATE KEY"[..],
        b"Proc-Type: 4,ENCRYPTED",
    ];
    if encrypted
        .iter()
        .any(|label| memchr::memmem::find(&text, label).is_some())
    {
        return Err(FormatError::new(
            "holds a key that is encrypted",
            "Decrypt it (openssl pkey -in FILE -out key.pem), or put both into a PKCS#12 store, \
                which may have a password.",
        ));
    }
    if let Some(format) = KeyStore::of(bytes) {
        let hint =
            "Name it as the client certificate (ClientCertificate::file): a key store holds both.";
        return Err(FormatError::new(format.what(), hint));
    }
    PrivateKeyDer::try_from(bytes.to_vec()).map_err(|_| {
        FormatError::new(
            "holds no private key",
            "Name the file that does (ClientCertificate::key).",
        )
    })
}

#[cfg(not(feature = "keystores"))]
fn own(format: KeyStore, _: &[u8], _: Option<&Secret>) -> Result<KeyAndCertificates, FormatError> {
    Err(formats::not_built(format))
}
