//! Whom to believe: a value, put together before any connection and summed up when it is loaded.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tokio_rustls::rustls::pki_types::{CertificateDer, TrustAnchor};

use super::Certificate;
use super::certificate::apart;
use super::formats::{self, Unusable};
use crate::{Error, Kind, Phase, Result, Secret};

/// No trust store is larger; a file that is was named by mistake.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// An authority that expires within this time is worth a warning.
const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Whom to believe when a server shows its certificate: the system's store, files and folders, or both.
///
/// A certificate that is trusted is usually that of an authority, which then vouches for the servers; it may also be
/// a server's own, self-signed or not.
///
/// Nothing is read until the trust is [loaded](Self::load), and the system's store is not read at all unless it was
/// asked for. It is read by `rustls-native-certs`, not by `rustls-platform-verifier`: so every certificate can be
/// listed, combined with files, and named when a verification fails. On Linux it is the file or folder that OpenSSL
/// uses (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured), on macOS the keychain, on Windows the `ROOT` store.
///
/// ```no_run
/// use envoi::tls::Trust;
///
/// let company = Trust::empty().path("/etc/company/ca.pem");    // these alone
/// let both = Trust::system().path("/etc/company/ca.pem");      // and the system's
/// println!("{}", both.load()?);
/// # Ok::<(), envoi::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Trust {
    system: bool,
    #[cfg(feature = "mozilla-roots")]
    mozilla: bool,
    sources: Vec<Source>,
    pins: Vec<String>,
    accepts_anything: bool,
    password: Option<Secret>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Trust");
        fields.field("system", &self.system).field("sources", &self.sources).field("pins", &self.pins);
        fields.field("accepts_anything", &self.accepts_anything).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Folder(PathBuf),
    /// A file or a folder: whichever is there.
    Path(PathBuf),
    Bytes(Arc<[u8]>),
}

impl Trust {
    /// The system's store, as browsers and other programs here have it.
    pub fn system() -> Self {
        Trust::empty().with_system()
    }

    /// Nothing yet: add to it. Left as it is, it cannot be loaded.
    pub fn empty() -> Self {
        Trust::default()
    }

    /// Adds the system's store.
    pub fn with_system(mut self) -> Self {
        self.system = true;
        self
    }

    /// Adds Mozilla's root certificates, as they were when this program was built.
    #[cfg(feature = "mozilla-roots")]
    pub fn with_mozilla(mut self) -> Self {
        self.mozilla = true;
        self
    }

    /// Adds the certificates of a file: PEM (any number of them), DER, and with the feature `keystores` PKCS#12 and
    /// JKS. The format is recognised by the content, not by the name.
    ///
    /// Of a key store those certificates count that are marked as trusted, as Java and Oracle do, or that do not belong to a
    /// key in it, as `openssl pkcs12 -nokeys` writes them. Most need the [password](Self::password). A path may
    /// begin with `file:`, as Oracle writes them.
    pub fn file(self, path: impl Into<PathBuf>) -> Self {
        self.with(Source::File(path.into()))
    }

    /// Adds the certificates of all files of a folder, but not of the folders in it. What holds no certificate is
    /// listed as skipped in the [summary](TrustSummary::warnings). The folder may be an Oracle wallet: its `ewallet.p12` is
    /// then read as if it were named itself.
    pub fn folder(self, path: impl Into<PathBuf>) -> Self {
        self.with(Source::Folder(path.into()))
    }

    /// Adds a [file](Self::file) or a [folder](Self::folder), whichever it is.
    pub fn path(self, path: impl Into<PathBuf>) -> Self {
        self.with(Source::Path(path.into()))
    }

    /// Adds certificates from memory, in any form that a [file](Self::file) may have.
    ///
    /// ```
    /// # let ca = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert.pem();
    /// let trust = envoi::tls::Trust::empty().pem(ca);
    /// assert_eq!(trust.load()?.anchors.len(), 1);
    /// # Ok::<(), envoi::Error>(())
    /// ```
    pub fn pem(self, bytes: impl AsRef<[u8]>) -> Self {
        self.with(Source::Bytes(bytes.as_ref().into()))
    }

    /// The password of the key stores among the files: one for all of them. The other files need none.
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Adds a pin: the SHA-256 hash of the server's public key, as [`Certificate::pin`] gives it (`sha256//` and Base64, as
    /// curl writes it; plain Base64 and hexadecimal digits do, too). With several pins, one must match: so a key can be
    /// changed without a gap.
    ///
    /// Alone, on an [empty](Self::empty) trust, the key is all that counts: not the issuer, not the dates, not the name. On top of
    /// other trust, the certificate must be verified as ever, and must have a pinned key.
    ///
    /// ```
    /// # let der = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert;
    /// # let summary = envoi::tls::Trust::empty().pem(der.pem()).load()?;
    /// # let certificate = &summary.anchors[0].certificate;
    /// use envoi::tls::Trust;
    ///
    /// let pin = certificate.pin();
    /// let trust = Trust::empty().pin(pin);
    /// trust.load()?;
    /// assert!(Trust::empty().pin("not a hash").load().is_err());
    /// # Ok::<(), envoi::Error>(())
    /// ```
    pub fn pin(mut self, hash: impl Into<String>) -> Self {
        self.pins.push(hash.into());
        self
    }

    /// Accepts any certificate whatsoever: there is encryption, but **whoever sits between can read and change everything,
    /// the password of the login included**. For a test on your own machine; to use a self-signed certificate, trust
    /// [it](Self::path) or [its key](Self::pin) instead.
    ///
    /// [`TlsInfo::verified`](super::TlsInfo::verified) then says what the verification by what is added to it would have given.
    pub fn dangerous_accept_anything() -> Self {
        Trust { accepts_anything: true, ..Trust::default() }
    }

    fn with(mut self, source: Source) -> Self {
        self.sources.push(source);
        self
    }

    /// Loads it now, and says what was found. A client does the same by itself; call this to check a setting
    /// early, or to log what is trusted. It reads files, and so blocks for some milliseconds.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`]: a file or folder that was named cannot be read, is empty or holds no certificate (the message
    /// says what it holds instead); or there is no certificate in all of it.
    pub fn load(&self) -> Result<TrustSummary> {
        let store = self.read()?;
        store.demand_anchors()?;
        Ok(store.summary)
    }

    /// Reads every source. That the system's store is empty is no error yet: where nothing is verified, it need not be.
    pub(super) fn read(&self) -> Result<TrustStore> {
        let mut store = TrustStore::default();
        if self.system {
            store.add_system();
        }
        #[cfg(feature = "mozilla-roots")]
        if self.mozilla {
            store.add_mozilla();
        }
        let password = self.password.as_ref();
        for source in &self.sources {
            match source {
                Source::Bytes(bytes) => {
                    let origin = "what was given in memory";
                    let found = formats::certificates(bytes, password).map_err(|why| unusable(origin, why))?;
                    store.add_all(found, origin)?;
                    store.origins.push(origin.into());
                }
                Source::File(path) => store.add_path(&local(path), false, password)?,
                Source::Folder(path) => store.add_path(&local(path), true, password)?,
                Source::Path(path) => store.add_path(&local(path), local(path).is_dir(), password)?,
            }
        }
        store.pins = self.pins.iter().map(|pin| key_hash(pin)).collect::<Result<_>>()?;
        store.accepts_anything = self.accepts_anything;
        store.sum_up();
        Ok(store)
    }
}

/// One certificate that is trusted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Anchor {
    /// Its facts: subject, issuer, validity, fingerprint.
    pub certificate: Certificate,
    /// Where it comes from: the path of a file, or `the system's store`.
    pub origin: String,
}

/// What a [`Trust`] holds. `Display` gives the certificates and the warnings, one a line.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TrustSummary {
    /// The certificates that are trusted, each once.
    pub anchors: Vec<Anchor>,
    /// What somebody should look at: authorities that expired, or will within 30 days, and files that were skipped.
    pub warnings: Vec<String>,
}

impl fmt::Display for TrustSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.anchors.len() == 1 { "" } else { "s" };
        writeln!(f, "{} trusted certificate{plural}", self.anchors.len())?;
        for anchor in &self.anchors {
            let certificate = &anchor.certificate;
            writeln!(f, "  {} (expires {}; {})", certificate.subject, certificate.not_after_text(), anchor.origin)?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        Ok(())
    }
}

/// A trust that was read: the same certificates, as people read them and as `webpki` takes them.
#[derive(Debug, Default)]
pub(super) struct TrustStore {
    /// In the order of `summary.anchors`, one for one.
    pub(super) roots: Vec<TrustAnchor<'static>>,
    pub(super) summary: TrustSummary,
    /// SHA-256 hashes of public keys, one of which the server's must have.
    pub(super) pins: Vec<[u8; 32]>,
    pub(super) accepts_anything: bool,
    /// Where they come from, each source once, for the sentence that says what was trusted.
    origins: Vec<String>,
}

impl TrustStore {
    /// Fails where there is nobody to trust.
    pub(super) fn demand_anchors(&self) -> Result<()> {
        if !self.roots.is_empty() || !self.pins.is_empty() || self.accepts_anything {
            return Ok(());
        }
        let mut message = String::from("no trusted certificate was found, so no server can be verified");
        for warning in &self.summary.warnings {
            message.push_str("; ");
            message.push_str(warning);
        }
        let hint = if self.origins.is_empty() {
            "Name the certificates to trust: the system's store (Trust::system) or a file (Trust::path, trust= in the URL)"
        } else {
            "Install the system's store (on Debian and Alpine the package ca-certificates), or name a file with the \
             certificates to trust (Trust::path, trust= in the URL)"
        };
        Err(config(message).with_hint(hint))
    }

    /// What was trusted, as a part of a sentence: "what is trusted (2 certificates, from ca.pem)".
    pub(super) fn text(&self) -> String {
        let origins = self.origins.join(", ");
        match &self.summary.anchors[..] {
            [] => "what is trusted (no certificate at all)".into(),
            [only] => format!("what is trusted (one certificate, \"{}\", from {origins})", only.certificate.subject),
            [..] => format!("what is trusted ({} certificates, from {origins})", self.summary.anchors.len()),
        }
    }

    fn add_system(&mut self) {
        let origin = "the system's store";
        self.origins.push(origin.into());
        let result = rustls_native_certs::load_native_certs();
        for der in &result.certs {
            // One that cannot be used says nothing about the others, and nobody here can mend it.
            let _ = self.add(der, origin);
        }
        for error in result.errors {
            self.summary.warnings.push(format!("{origin}: {error}"));
        }
    }

    /// Each with what Mozilla allows it, which its certificate does not say.
    #[cfg(feature = "mozilla-roots")]
    fn add_mozilla(&mut self) {
        let origin = "Mozilla's roots";
        self.origins.push(origin.into());
        for der in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
            let Ok(own) = webpki::anchor_from_trusted_cert(der) else { continue };
            let same = |root: &&TrustAnchor<'_>| {
                root.subject == own.subject && root.subject_public_key_info == own.subject_public_key_info
            };
            if let Some(allowed) = webpki_roots::TLS_SERVER_ROOTS.iter().find(same)
                && self.add(der, origin).is_ok()
                && let Some(added) = self.roots.last_mut().filter(|added| same(&&**added))
            {
                *added = allowed.clone();
            }
        }
    }

    fn add_path(&mut self, path: &Path, folder: bool, password: Option<&Secret>) -> Result<()> {
        self.origins.push(path.display().to_string());
        if folder { self.add_folder(path, password) } else { self.add_file(path, password) }
    }

    fn add_file(&mut self, path: &Path, password: Option<&Secret>) -> Result<()> {
        let origin = path.display().to_string();
        let bytes = read(path).map_err(|error| cannot_read(path, error))?;
        let found = formats::certificates(&bytes, password).map_err(|why| unusable(&origin, why))?;
        self.add_all(found, &origin)
    }

    fn add_folder(&mut self, path: &Path, password: Option<&Secret>) -> Result<()> {
        let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut paths: Vec<_> =
            entries.map_err(|error| cannot_read(path, error))?.iter().map(fs::DirEntry::path).collect();
        paths.sort();

        let mut found_any = false;
        let mut skipped = Vec::new();
        for path in paths {
            if path.file_name().is_some_and(|name| name == WALLET) {
                // This file is why the folder was named.
                self.add_file(&path, password)?;
                found_any = true;
            } else {
                match self.add_if_certificate(&path, password) {
                    Ok(()) => found_any = true,
                    Err(why) => skipped.push((path, why)),
                }
            }
        }
        if !found_any {
            return Err(nothing_in(path, skipped));
        }
        for (path, why) in skipped {
            self.summary.warnings.push(format!("{} was skipped: it {}", path.display(), why.reason));
        }
        Ok(())
    }

    /// Adds a file of a folder, of which nobody said that it holds a certificate.
    fn add_if_certificate(&mut self, path: &Path, password: Option<&Secret>) -> Result<(), Unusable> {
        // A pipe or a device would be waited for.
        if !path.is_file() {
            return Err(Unusable::new("is not a file", ""));
        }
        let bytes = read(path).map_err(|error| Unusable::new(format!("cannot be read: {error}"), ""))?;
        let found = formats::certificates(&bytes, password)?;
        self.add_all(found, &path.display().to_string())
            .map_err(|error| Unusable::new(format!("cannot be used: {}", error.message()), ""))
    }

    /// Adds what a source holds; fails if none of it can be trusted.
    fn add_all(&mut self, found: formats::Found, origin: &str) -> Result<()> {
        for note in found.notes {
            self.summary.warnings.push(format!("{origin} {note}"));
        }
        let mut usable = false;
        for der in &found.certificates {
            match self.add(der, origin) {
                Ok(()) => usable = true,
                Err(reason) => self.summary.warnings.push(format!("a certificate of {origin} was skipped: {reason}")),
            }
        }
        if usable {
            return Ok(());
        }
        Err(config(format!("no certificate of {origin} can be read")).with_hint("Get the file anew: it is damaged"))
    }

    fn add(&mut self, der: &CertificateDer<'_>, origin: &str) -> Result<(), String> {
        if self.summary.anchors.iter().any(|anchor| anchor.certificate.der() == der.as_ref()) {
            return Ok(());
        }
        let certificate = Certificate::read(der).ok_or("it cannot be read")?;
        let root = webpki::anchor_from_trusted_cert(der).map_err(|error| error.to_string())?.to_owned();
        self.roots.push(root);
        self.summary.anchors.push(Anchor { certificate, origin: origin.into() });
        Ok(())
    }

    /// Warns of certificates that expired or soon will.
    fn sum_up(&mut self) {
        let now = SystemTime::now();
        for anchor in &self.summary.anchors {
            let certificate = &anchor.certificate;
            let (subject, until, origin) = (&certificate.subject, certificate.not_after_text(), &anchor.origin);
            if certificate.not_after < now {
                let ago = apart(certificate.not_after, now);
                self.summary.warnings.push(format!("{subject} ({origin}) expired {ago} ago, at {until}"));
            } else if certificate.not_after < now + SOON {
                let left = apart(now, certificate.not_after);
                self.summary.warnings.push(format!("{subject} ({origin}) expires in {left}, at {until}"));
            }
        }
    }
}

/// The key store in the folder of an Oracle wallet.
const WALLET: &str = "ewallet.p12";

/// A path without the prefix that Oracle writes before that of a wallet: `file:/etc/wallet`.
fn local(path: &Path) -> PathBuf {
    let rest = path.to_str().and_then(|text| text.strip_prefix("file:"));
    let rest = rest.map(|rest| if rest.starts_with("///") { &rest[2..] } else { rest });
    rest.map_or_else(|| path.to_owned(), PathBuf::from)
}

/// A folder without a certificate: what there is instead.
fn nothing_in(path: &Path, skipped: Vec<(PathBuf, Unusable)>) -> Error {
    let mut message = format!("{} holds no certificate", path.display());
    for (path, why) in skipped.iter().take(3) {
        let name = path.file_name().unwrap_or_default().display();
        message.push_str(&format!("; {name} {}", why.reason));
    }
    if skipped.len() > 3 {
        message.push_str(&format!("; and {} more files are none either", skipped.len() - 3));
    }
    if skipped.is_empty() {
        message.push_str(": it is empty");
    }
    // The lock files of a wallet are empty: what to do with the wallet says the file beside them.
    let hint = skipped.into_iter().find(|(_, why)| !why.hint.is_empty() && why.reason != "is empty");
    config(message)
        .with_hint(hint.map_or("Put the certificates to trust into it, in PEM or DER form".into(), |(_, why)| why.hint))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than 16 MiB, and so no trust store"));
    }
    Ok(bytes)
}

/// The hash that a pin says.
fn key_hash(pin: &str) -> Result<[u8; 32]> {
    let digits = pin.strip_prefix("sha256//").or_else(|| pin.strip_prefix("sha256:")).unwrap_or(pin).trim();
    let hex: String = digits.chars().filter(|digit| *digit != ':').collect();
    let bytes = if hex.len() == 64 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()).collect()
    } else {
        STANDARD_NO_PAD.decode(digits.trim_end_matches('=')).ok()
    };
    bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).ok_or_else(|| {
        config(format!("{pin:?} is no pin: that is the SHA-256 hash of a public key, 32 bytes in Base64 or hexadecimal digits")).with_hint(
            "Get it from the server's certificate: openssl x509 -in FILE -noout -pubkey | openssl pkey -pubin -outform DER | \
             openssl dgst -sha256 -binary | base64",
        )
    })
}

fn config(message: impl Into<String>) -> Error {
    Error::new(Kind::Config, Phase::Setup, message)
}

fn cannot_read(path: &Path, error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "Check the path",
        io::ErrorKind::PermissionDenied => "Let the user that runs this program read it",
        io::ErrorKind::IsADirectory => "This is a folder: use Trust::folder or Trust::path",
        io::ErrorKind::NotADirectory => "This is a file: use Trust::file or Trust::path",
        _ => "Give a file or folder with the certificates to trust",
    };
    config(format!("the trusted certificates cannot be read from {}: {error}", path.display()))
        .with_hint(hint)
        .with_source(error)
}

fn unusable(origin: &str, why: Unusable) -> Error {
    config(format!("{origin} {}", why.reason)).with_hint(why.hint)
}
