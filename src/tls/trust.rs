//! Whom to believe: a value, put together before any connection and summed up when it is loaded.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::Certificate;
use super::password::Password;
use super::store::{Reading, TrustStore, config};
use crate::{Result, Secret, file};

/// Whom to believe when a server shows its certificate: the system's store, files and folders, or
/// both.
///
/// A certificate that is trusted is usually that of an authority, which then vouches for the
/// servers; it may also be a server's own, self-signed or not.
///
/// Nothing is read until the trust is [loaded](Self::load), and the system's store is not read at
/// all unless it was asked for. It is read by `rustls-native-certs`, not by
/// `rustls-platform-verifier`: so every certificate can be listed, combined with files, and named
/// when a verification fails. On Linux it is the file or folder that OpenSSL uses (`SSL_CERT_FILE`
/// and `SSL_CERT_DIR` are honoured), on macOS the keychain, on Windows the `ROOT` store.
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
    pub(crate) system: bool,
    #[cfg(feature = "mozilla-roots")]
    pub(crate) mozilla: bool,
    pub(crate) sources: Vec<Source>,
    pub(crate) pins: Vec<String>,
    pub(crate) revocation_lists: Vec<PathBuf>,
    pub(crate) accepts_anything: bool,
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
            .field("accepts_anything", &self.accepts_anything)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Source {
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

    /// Adds the certificates of a file: PEM (any number of them), DER, and with the feature
    /// `keystores` PKCS#12, JKS and Oracle's auto-login wallets (`cwallet.sso`). The format is
    /// recognised by the content, not by the name.
    ///
    /// Of a key store those certificates count that are marked as trusted, as Java and Oracle do,
    /// or that do not belong to a key in it, as `openssl pkcs12 -nokeys` writes them. Most need the
    /// [password](Self::password); an auto-login wallet needs none. A path may begin with `file:`,
    /// as Oracle writes them.
    ///
    /// A file has at most 16 MiB. A FIFO or a device is read to its end, for which there are 5
    /// seconds, and no more than the client's deadline allows.
    pub fn file(self, path: impl Into<PathBuf>) -> Self {
        self.with(Source::File(path.into()))
    }

    /// Adds the certificates of all files of a folder, but not of the folders in it. What holds no
    /// certificate is listed as skipped in the [summary](TrustSummary::warnings). The folder may be
    /// an Oracle wallet: its `ewallet.p12` is then read as if it were named itself, or its
    /// `cwallet.sso`, which needs no password. Where there are both, it is the one that opens: with
    /// a [password](Self::password) `ewallet.p12` first, without one `cwallet.sso` first.
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

    /// The password of the key stores among the files: one for all of them. The other files need
    /// none.
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.password = Some(Password::Given(password.into()));
        self
    }

    /// The file with the password of the key stores, which is its first line. It is read when the
    /// trust is loaded, and again when it is loaded again. It has at most 64 KiB.
    pub fn password_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.password = Some(Password::File(path.into()));
        self
    }

    /// Adds a pin: the SHA-256 hash of the server's public key, as [`Certificate::pin`] gives it
    /// (`sha256//` and Base64, as curl writes it; plain Base64 and hexadecimal digits do, too).
    /// With several pins, one must match: so a key can be changed without a gap.
    ///
    /// Alone, on an [empty](Self::empty) trust, the key is all that counts: not the issuer, not the
    /// dates, not the name. On top of other trust, the certificate must be verified as ever, and
    /// must have a pinned key, also where that other trust turns out to be empty. A pin holds under
    /// [`Security::Opportunistic`](super::Security::Opportunistic), too, which then does not fall
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

    /// Adds a file with lists of revoked certificates (CRL: RFC 5280, 5), in PEM or DER: what is on
    /// one of them is refused. Of an issuer whose list is not given nothing is known, and nothing
    /// is fetched. A list that is out of date still counts, with a warning; to take a newer one,
    /// load again. A certificate that is accepted for itself, as trusted or by its
    /// [pinned](Self::pin) key alone, must not be on a list of its issuer either.
    pub fn revocation_list(mut self, path: impl Into<PathBuf>) -> Self {
        self.revocation_lists.push(path.into());
        self
    }

    /// Accepts any certificate whatsoever: there is encryption, but **whoever sits between can read
    /// and change everything, the password of the login included**. For a test on your own machine;
    /// to use a self-signed certificate, trust [it](Self::path) or [its key](Self::pin) instead.
    ///
    /// [`TlsInfo::is_verified`](super::TlsInfo::is_verified) then says what the verification by what is
    /// added to it would have given.
    pub fn dangerous_accept_any_certificate() -> Self {
        Trust {
            accepts_anything: true,
            ..Trust::default()
        }
    }

    /// Whoever changes what is trusted does not mean to drop a pin.
    pub(crate) fn with_pins_of(mut self, other: &Trust) -> Self {
        self.pins.extend(other.pins.iter().cloned());
        self
    }

    fn with(mut self, source: Source) -> Self {
        self.sources.push(source);
        self
    }

    /// Loads it now, and says what was found. A client does the same by itself; call this to check
    /// a setting early, or to log what is trusted. It reads files, and so blocks for some
    /// milliseconds; for 5 seconds at most, where one of them is a FIFO or a device.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): a file or folder that was named cannot be
    /// read, is empty or holds no certificate (the message says what it holds instead); or there is
    /// no certificate in all of it.
    pub fn load(&self) -> Result<TrustSummary> {
        let store = self.read(file::time_limit())?;
        store.demand_anchors()?;
        Ok(store.summary)
    }

    /// Reads every source. That the system's store is empty is no error yet: where nothing is
    /// verified, it need not be.
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
        let reading = Reading {
            password: password.as_ref(),
            until,
        };
        for source in &self.sources {
            match source {
                Source::File(path) => store.add_path(&local(path), false, reading)?,
                Source::Folder(path) => store.add_path(&local(path), true, reading)?,
                Source::Path(path) => {
                    store.add_path(&local(path), local(path).is_dir(), reading)?
                }
                Source::Bytes(bytes) => store.add_bytes(bytes, reading)?,
            }
        }
        for path in &self.revocation_lists {
            store.add_revocation_lists(&local(path), until)?;
        }
        store.pins = self
            .pins
            .iter()
            .map(|pin| key_hash(pin))
            .collect::<Result<_>>()?;
        store.only_pins = !store.pins.is_empty() && self.has_pins_alone();
        store.accepts_anything = self.accepts_anything;
        store.sum_up();
        Ok(store)
    }
}

impl Trust {
    /// Nothing is named but keys. Whether the rest turns out to be empty does not matter.
    fn has_pins_alone(&self) -> bool {
        #[cfg(feature = "mozilla-roots")]
        if self.mozilla {
            return false;
        }
        !self.system && self.sources.is_empty()
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
    /// What somebody should look at: authorities that expired, or will within 30 days, and files
    /// that were skipped.
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

/// The hash that a pin says.
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
    bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).ok_or_else(|| {
        config(format!("{pin:?} is no pin: that is the SHA-256 hash of a public key, 32 bytes in \
            Base64 or hexadecimal digits")).with_hint(
            "Get it from the server's certificate (openssl x509 -in FILE -noout -pubkey | openssl \
                pkey -pubin -outform DER | \
             openssl dgst -sha256 -binary | base64).",
        )
    })
}

/// A path without the prefix that Oracle writes before that of a wallet: `file:/etc/wallet`.
pub(super) fn local(path: &Path) -> PathBuf {
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
