//! Trust anchors: a value that can be summarized before any connection is made.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::Certificate;
use super::files::FileState;
use super::password::Password;
use super::store::{ReadContext, TrustStore, config};
use crate::{Result, Secret, file};

/// The trust anchors for server certificates: the system's store, files and folders, or both.
///
/// A trusted certificate usually belongs to an authority, which issues certificates to servers. It
/// may also be a server's own certificate, self-signed or not.
///
/// Nothing is read until the trust is [loaded](Self::load), and the system's store is only read if
/// requested. It is read by `rustls-native-certs`, not by `rustls-platform-verifier`: so every
/// certificate can be listed, combined with files, and named if a verification fails. On Linux it
/// is the file or folder that OpenSSL uses (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured), on
/// macOS the keychain, on Windows the `ROOT` store.
///
/// ```no_run
/// use envoi::tls::Trust;
///
/// let company = Trust::empty().path("/etc/company/ca.pem");    // these alone
/// let both = Trust::system().path("/etc/company/ca.pem");      // and the system's
/// println!("{}", both.load()?);
/// # Ok::<(), envoi::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
#[must_use = "a method returns the changed value"]
pub struct Trust {
    pub(crate) system: bool,
    #[cfg(feature = "mozilla-roots")]
    pub(crate) mozilla: bool,
    pub(crate) sources: Vec<Source>,
    pub(crate) pins: Vec<String>,
    pub(crate) revocation_lists: Vec<PathBuf>,
    pub(crate) accepts_any_certificate: bool,
    pub(crate) password: Option<Password>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Trust");
        fields
            .field("system", &self.system)
            .field("sources", &self.sources)
            .field("pins", &self.pins);
        fields.field("revocation_lists", &self.revocation_lists);
        fields
            .field("accepts_anything", &self.accepts_any_certificate)
            .finish_non_exhaustive()
    }
}

impl Hash for Trust {
    /// Without the password.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.system.hash(state);
        self.sources.hash(state);
        self.pins.hash(state);
        self.revocation_lists.hash(state);
        self.accepts_any_certificate.hash(state);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    File(PathBuf),
    Folder(PathBuf),
    /// A file or a folder, whichever exists.
    Path(PathBuf),
    Bytes(Arc<[u8]>),
}

impl Trust {
    /// The system's store, which browsers and other programs use.
    pub fn system() -> Self {
        Trust::empty().with_system()
    }

    /// An empty set, to which anchors can be added. It cannot be loaded while it is empty.
    pub fn empty() -> Self {
        Trust::default()
    }

    /// Adds the system's store.
    pub fn with_system(mut self) -> Self {
        self.system = true;
        self
    }

    /// Adds Mozilla's root certificates, as of the time when this program was built.
    #[cfg(feature = "mozilla-roots")]
    pub fn with_mozilla(mut self) -> Self {
        self.mozilla = true;
        self
    }

    /// Adds the certificates of a file: PEM (any number of certificates), DER, and with the feature
    /// `keystores` PKCS#12, JKS and Oracle's auto-login wallets (`cwallet.sso`). The format is
    /// recognized by the content, not by the name.
    ///
    /// From a key store, the certificates are used that are marked as trusted, as Java and Oracle
    /// do, or that do not belong to a key in it, as `openssl pkcs12 -nokeys` writes them. Most need
    /// the [password](Self::password); an auto-login wallet does not. A path may begin with
    /// `file:`, as Oracle writes it.
    ///
    /// The maximum size is 16 MiB. A FIFO or a device is read to EOF, for at most 5 seconds and
    /// within the client's deadline.
    pub fn file(self, path: impl Into<PathBuf>) -> Self {
        self.with(Source::File(path.into()))
    }

    /// Adds the certificates of all files in a folder, but not of its subfolders. Files without a
    /// certificate are listed as skipped in the [summary](TrustSummary::warnings). If the folder is
    /// an Oracle wallet, its `ewallet.p12` is read as if it were given itself, or its
    /// `cwallet.sso`, which needs no password. If it has both, the first one that opens is used:
    /// with a [password](Self::password) `ewallet.p12` is tried first, without one `cwallet.sso`.
    pub fn folder(self, path: impl Into<PathBuf>) -> Self {
        self.with(Source::Folder(path.into()))
    }

    /// Adds a [file](Self::file) or a [folder](Self::folder), whichever exists.
    pub fn path(self, path: impl Into<PathBuf>) -> Self {
        self.with(Source::Path(path.into()))
    }

    /// Adds certificates in memory, in any format that a [file](Self::file) may have.
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

    /// Sets the password of the key stores, one for all of them. Other files need none.
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.password = Some(Password::Given(password.into()));
        self
    }

    /// Reads the password of the key stores from the first line of a file each time the trust is
    /// loaded. The maximum size is 64 KiB.
    pub fn password_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.password = Some(Password::File(path.into()));
        self
    }

    /// Adds a pin: the SHA-256 hash of the server's public key, as [`Certificate::pin`] returns it
    /// (`sha256//` and Base64, as in curl; plain Base64 and hexadecimal digits are accepted too).
    /// If there are several pins, one of them must match, so a key can be replaced without
    /// interruption.
    ///
    /// With [empty](Self::empty) trust otherwise, only the key is checked: not the issuer, the
    /// dates or the name. With other trust, the certificate must also be verified as usual, even if
    /// that other trust turns out to be empty. A pin applies to
    /// [`Security::Opportunistic`](super::Security::Opportunistic) too, which then does not fall
    /// back; with [`Security::None`](super::Security::None) it is refused.
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

    /// Adds a file of certificate revocation lists (CRL: RFC 5280, 5), in PEM or DER. A certificate
    /// on one of them is refused. Certificates of issuers without a list are not checked, and
    /// nothing is downloaded. A list that is out of date is used with a warning; load again to read
    /// a newer one. A certificate that is trusted itself, or by its [pinned](Self::pin) key alone,
    /// must not be on a list of its issuer either.
    pub fn revocation_list(mut self, path: impl Into<PathBuf>) -> Self {
        self.revocation_lists.push(path.into());
        self
    }

    /// Accepts any certificate: the connection is encrypted, but **an attacker in between can read
    /// and change everything, including the password of the login**. For a test on your own
    /// machine; to use a self-signed certificate, trust [it](Self::path) or [its key](Self::pin)
    /// instead.
    ///
    /// [`TlsInfo::is_verified`](super::TlsInfo::is_verified) then reports the result of
    /// verification by the anchors that are added.
    pub fn dangerous_accept_any_certificate() -> Self {
        Trust {
            accepts_any_certificate: true,
            ..Trust::default()
        }
    }

    /// Whether the system's store is used.
    pub fn get_system(&self) -> bool {
        self.system
    }

    /// Whether Mozilla's root certificates are used.
    #[cfg(feature = "mozilla-roots")]
    pub fn get_mozilla(&self) -> bool {
        self.mozilla
    }

    /// The paths of the files and folders, as they were given.
    pub fn get_paths(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().filter_map(|source| match source {
            Source::File(path) | Source::Folder(path) | Source::Path(path) => Some(path.as_path()),
            Source::Bytes(_) => None,
        })
    }

    /// The pins, as they were given.
    pub fn get_pins(&self) -> &[String] {
        &self.pins
    }

    /// The files of revocation lists.
    pub fn get_revocation_lists(&self) -> &[PathBuf] {
        &self.revocation_lists
    }

    /// Whether any certificate is accepted.
    pub fn get_accepts_any_certificate(&self) -> bool {
        self.accepts_any_certificate
    }

    /// The file that the password of the key stores is read from.
    pub fn get_password_file(&self) -> Option<&Path> {
        match self.password.as_ref()? {
            Password::File(path) => Some(path),
            Password::Given(_) => None,
        }
    }

    /// Changing the anchors must not drop a pin.
    pub(crate) fn with_pins_of(mut self, other: &Trust) -> Self {
        self.pins.extend(other.pins.iter().cloned());
        self
    }

    fn with(mut self, source: Source) -> Self {
        self.sources.push(source);
        self
    }

    /// Loads the certificates now and summarizes them. A client loads them itself; call this to
    /// check a setting early, or to log the trust anchors. Blocks on file I/O for some
    /// milliseconds, or for up to 5 seconds if one of the files is a FIFO or a device.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): a file or folder cannot be read, is empty
    /// or contains no certificate (the message says what it contains instead); or there is no
    /// certificate at all.
    pub fn load(&self) -> Result<TrustSummary> {
        let store = self.read(file::time_limit())?;
        store.require_anchors()?;
        Ok(store.summary)
    }

    /// Reads every source. An empty system store is not an error here, since verification may not
    /// be needed.
    pub(super) fn read(&self, until: Instant) -> Result<TrustStore> {
        let mut store = TrustStore::default();
        if self.system {
            store.add_system();
        }
        #[cfg(feature = "mozilla-roots")]
        if self.mozilla {
            store.add_mozilla();
        }
        let password = self
            .password
            .as_ref()
            .map(|password| password.read("the trust store's password", until))
            .transpose()?;
        let context = ReadContext {
            password: password.as_ref(),
            until,
        };
        for source in &self.sources {
            match source {
                Source::File(path) => store.add_path(&strip_file_prefix(path), false, context)?,
                Source::Folder(path) => store.add_path(&strip_file_prefix(path), true, context)?,
                Source::Path(path) => store.add_path(
                    &strip_file_prefix(path),
                    strip_file_prefix(path).is_dir(),
                    context,
                )?,
                Source::Bytes(bytes) => store.add_bytes(bytes, context)?,
            }
        }
        for path in &self.revocation_lists {
            store.add_revocation_lists(&strip_file_prefix(path), until)?;
        }
        store.pins = self
            .pins
            .iter()
            .map(|pin| key_hash(pin))
            .collect::<Result<_>>()?;
        store.only_pins = !store.pins.is_empty() && self.has_pins_alone();
        store.accepts_any_certificate = self.accepts_any_certificate;
        store.add_expiry_warnings();
        Ok(store)
    }
}

impl Trust {
    /// The state of the files that would be read now. Blocks on file I/O.
    pub(super) fn files(&self) -> FileState {
        let mut files = FileState::default();
        if self.system {
            files.add_system();
        }
        let lists = self.revocation_lists.iter().map(PathBuf::as_path);
        for path in self.get_paths().chain(lists) {
            files.add(&strip_file_prefix(path));
        }
        if let Some(path) = self.get_password_file() {
            files.add(path);
        }
        files
    }

    /// Whether only keys are given; whether the rest turns out to be empty does not matter.
    fn has_pins_alone(&self) -> bool {
        #[cfg(feature = "mozilla-roots")]
        if self.mozilla {
            return false;
        }
        !self.system && self.sources.is_empty()
    }
}

/// A trust anchor.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Anchor {
    /// The certificate: subject, issuer, validity, fingerprint.
    pub certificate: Certificate,
    /// Its source: the path of a file, or `the system's store`.
    pub origin: String,
}

/// The contents of a [`Trust`]. `Display` lists the certificates and the warnings, one a line.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TrustSummary {
    /// The trust anchors, without duplicates.
    pub anchors: Vec<Anchor>,
    /// Problems to look at: authorities that have expired or will within 30 days, and files that
    /// were skipped.
    pub warnings: Vec<String>,
}

impl fmt::Display for TrustSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.anchors.len() == 1 { "" } else { "s" };
        writeln!(f, "{} trusted certificate{plural}", self.anchors.len())?;
        for anchor in &self.anchors {
            let certificate = &anchor.certificate;
            writeln!(
                f,
                "  {} (expires {}; {})",
                certificate.subject,
                certificate.not_after_text(),
                anchor.origin
            )?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        Ok(())
    }
}

/// Parses the hash of a pin.
fn key_hash(pin: &str) -> Result<[u8; 32]> {
    let digits = pin
        .strip_prefix("sha256//")
        .or_else(|| pin.strip_prefix("sha256:"))
        .unwrap_or(pin)
        .trim();
    let hex: String = digits.chars().filter(|digit| *digit != ':').collect();
    let bytes = if hex.len() == 64 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        (0..32)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok())
            .collect()
    } else {
        STANDARD_NO_PAD.decode(digits.trim_end_matches('=')).ok()
    };
    let hash = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    hash.ok_or_else(|| {
        let message = format!(
            "{pin:?} is not a pin: a pin is the SHA-256 hash of a public key, 32 bytes in Base64 \
             or hexadecimal digits"
        );
        config(message).with_hint(
            "Get it from the server's certificate (openssl x509 -in FILE -noout -pubkey | \
             openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64).",
        )
    })
}

/// Removes the prefix of a path in Oracle's notation: `file:/etc/wallet`.
pub(super) fn strip_file_prefix(path: &Path) -> PathBuf {
    let rest = path.to_str().and_then(|text| text.strip_prefix("file:"));
    let rest = rest.map(|rest| {
        if rest.starts_with("///") {
            &rest[2..]
        } else {
            rest
        }
    });
    rest.map_or_else(|| path.to_owned(), PathBuf::from)
}
