//! Who we are: the certificate that a server may ask the client for.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::formats::{self, Unusable};
use super::{Certificate, connector};
use crate::{Error, Kind, Phase, Result, Secret};

/// A certificate of the client's own, with its key: shown to servers that ask for one.
///
/// Certificate and key are PEM (both in one file, or each in its own), or, with the feature `keystores`, a PKCS#12 store.
/// The format is recognised by the content.
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
#[derive(Clone)]
pub struct ClientCertificate {
    certificate: Part,
    key: Option<Part>,
    password: Option<Secret>,
}

#[derive(Clone)]
enum Part {
    File(PathBuf),
    Bytes(Arc<[u8]>),
}

impl fmt::Debug for ClientCertificate {
    /// Where it is read from; never what it holds, a key among it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("ClientCertificate");
        fields.field("certificate", &self.certificate.name());
        fields.field("key", &self.key.as_ref().map(Part::name)).finish_non_exhaustive()
    }
}

impl ClientCertificate {
    /// A file with the certificate, and those of its issuers that the server may lack: PEM or PKCS#12. Unless it holds the key
    /// too, name the [file that does](Self::key).
    pub fn file(path: impl Into<PathBuf>) -> Self {
        ClientCertificate { certificate: Part::File(path.into()), key: None, password: None }
    }

    /// The same from memory.
    pub fn pem(bytes: impl AsRef<[u8]>) -> Self {
        ClientCertificate { certificate: Part::Bytes(bytes.as_ref().into()), key: None, password: None }
    }

    /// The file with the key: PEM or DER, not encrypted.
    pub fn key(mut self, path: impl Into<PathBuf>) -> Self {
        self.key = Some(Part::File(path.into()));
        self
    }

    /// The key from memory.
    pub fn key_pem(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.key = Some(Part::Bytes(bytes.as_ref().into()));
        self
    }

    /// The password of the PKCS#12 store.
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Loads it now, and says whose it is. A client does the same by itself; call this to check a setting early.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`]: a file cannot be read, there is no certificate or no key in it, the two do not belong together, or the
    /// password is wrong.
    pub fn load(&self) -> Result<Certificate> {
        let certified = self.certified(&*connector::provider()?)?;
        let leaf = certified.cert.first().and_then(|der| Certificate::read(der));
        leaf.ok_or_else(|| self.certificate.unusable(Unusable::new("holds a certificate that cannot be read", DAMAGED)))
    }

    /// The chain, the client's own certificate first, and the key as the cryptography takes it.
    pub(super) fn certified(&self, provider: &CryptoProvider) -> Result<CertifiedKey> {
        let (key, mut chain) = self.read()?;
        let key = provider.key_provider.load_private_key(key).map_err(|error| {
            let part = self.key.as_ref().unwrap_or(&self.certificate);
            part.unusable(Unusable::new(format!("holds a key of a kind that is not supported ({error})"), KEY_KINDS))
                .with_source(error)
        })?;
        // The order of a file is anybody's guess; the key says which certificate is ours. (The check of rustls cannot read X.509
        // version 1, which `openssl x509 -req` makes.)
        let public = key.public_key();
        let belongs = |der: &CertificateDer<'_>| match &public {
            Some(public) => Certificate::read(der).is_some_and(|certificate| certificate.has_key(public)),
            None => true,
        };
        let Some(own) = chain.iter().position(belongs) else {
            return Err(self.certificate.unusable(Unusable::new(
                "holds no certificate for the key: certificate and key do not belong together",
                "Give the certificate that was issued for this key, or the key of this certificate.",
            )));
        };
        let leaf = chain.remove(own);
        chain.insert(0, leaf);
        Ok(CertifiedKey::new(chain, key))
    }

    fn read(&self) -> Result<(PrivateKeyDer<'static>, Vec<CertificateDer<'static>>)> {
        let bytes = self.certificate.read()?;
        if formats::is_pkcs12(&bytes) {
            return pkcs12(&bytes, self.password.as_ref()).map_err(|why| self.certificate.unusable(why));
        }
        let found = formats::certificates(&bytes, None).map_err(|why| self.certificate.unusable(why))?;
        let key = match &self.key {
            Some(part) => private_key(&part.read()?).map_err(|why| part.unusable(why))?,
            None => private_key(&bytes).map_err(|why| self.certificate.unusable(why))?,
        };
        Ok((key, found.certificates))
    }
}

const DAMAGED: &str = "Get the file anew: it is damaged.";
const KEY_KINDS: &str = "Use a key for RSA (2048 bits or more), ECDSA (P-256, P-384) or Ed25519.";

impl Part {
    fn name(&self) -> String {
        match self {
            Part::File(path) => path.display().to_string(),
            Part::Bytes(_) => "what was given in memory".into(),
        }
    }

    fn read(&self) -> Result<Vec<u8>> {
        match self {
            Part::File(path) => read(path),
            Part::Bytes(bytes) => Ok(bytes.to_vec()),
        }
    }

    fn unusable(&self, why: Unusable) -> Error {
        let message = format!("the client certificate cannot be used: {} {}", self.name(), why.reason);
        Error::new(Kind::Config, Phase::Setup, message).with_hint(why.hint)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| {
        let message = format!("the client certificate cannot be read from {}: {error}", path.display());
        Error::new(Kind::Config, Phase::Setup, message)
            .with_hint("Check the path, and that the user who runs this program may read it.")
            .with_source(error)
    })
}

fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Unusable> {
    let text = formats::utf8(bytes);
    if let Ok(key) = PrivateKeyDer::from_pem_slice(&text) {
        return Ok(key);
    }
    let encrypted = [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"];
    if encrypted.iter().any(|label| memchr::memmem::find(&text, label).is_some()) {
        return Err(Unusable::new(
            "holds a key that is encrypted",
            "Decrypt it (openssl pkey -in FILE -out key.pem), or put both into a PKCS#12 store, which may have a password.",
        ));
    }
    PrivateKeyDer::try_from(bytes.to_vec())
        .map_err(|_| Unusable::new("holds no private key", "Name the file that does (ClientCertificate::key)."))
}

#[cfg(feature = "keystores")]
fn pkcs12(
    bytes: &[u8],
    password: Option<&Secret>,
) -> Result<(PrivateKeyDer<'static>, Vec<CertificateDer<'static>>), Unusable> {
    let store = super::keystore::pkcs12(bytes, password)?;
    let own = store.own.into_iter().find_map(|(key, chain)| key.filter(|_| !chain.is_empty()).zip(Some(chain)));
    own.ok_or_else(|| {
        Unusable::new(
            "is a key store (PKCS#12) without a key that has a certificate",
            "Make one of both: openssl pkcs12 -export -inkey client.key -in client.pem -out client.p12.",
        )
    })
}

#[cfg(not(feature = "keystores"))]
fn pkcs12(_: &[u8], _: Option<&Secret>) -> Result<(PrivateKeyDer<'static>, Vec<CertificateDer<'static>>), Unusable> {
    Err(formats::not_built("is a key store (PKCS#12)"))
}
