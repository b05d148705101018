//! Loaded trust anchors, from the system, files, folders and memory.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tokio_rustls::rustls::pki_types::{CertificateDer, TrustAnchor};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_cert::certificate::Raw;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;

use super::files::FileState;
use super::formats::{self, FormatError};
use super::reasons::webpki_text;
use super::{Anchor, Certificate, Trust, TrustSummary};
use crate::diagnose::trust as advice;
use crate::text::printable;
use crate::{Error, ErrorKind, Phase, Result, Secret, date, file};

/// The maximum size of a file. No trust store is larger.
pub(super) const MAX_FILE: u64 = 16 * 1024 * 1024;

/// The maximum number of files in a folder, and their maximum total size.
const MAX_FILES: usize = 10_000;
const MAX_FOLDER: u64 = 256 * 1024 * 1024;

/// An authority that expires within this time causes a warning.
const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The origin of the system's anchors.
pub(crate) const SYSTEM: &str = "the system's store";

/// Loaded trust anchors, both in readable form and as `webpki` needs them.
#[derive(Debug, Default)]
pub(super) struct TrustStore {
    /// What was loaded, and from which files, if other clients may share it.
    pub(super) trust: Trust,
    pub(super) files: FileState,
    /// In the same order as `summary.anchors`.
    pub(super) roots: Vec<TrustAnchor<'static>>,
    pub(super) summary: TrustSummary,
    /// SHA-256 hashes of public keys, one of which must be that of the server.
    pub(super) pins: Vec<[u8; 32]>,
    /// There are no anchors but the pins, so that only the key is checked.
    pub(super) only_pins: bool,
    pub(super) revocation_lists: Vec<CertRevocationList<'static>>,
    pub(super) accepts_any_certificate: bool,
    /// The origins without duplicates, for error messages.
    origins: Vec<String>,
    /// The fingerprints of the certificates in `summary.anchors`.
    seen: HashSet<String>,
}

/// What is needed to read the sources.
#[derive(Clone, Copy)]
pub(super) struct ReadContext<'a> {
    /// The password of the key stores.
    pub(super) password: Option<&'a Secret>,
    /// The deadline for reading a FIFO or a device.
    pub(super) until: Instant,
}

impl TrustStore {
    /// Fails if there is no trust anchor.
    pub(super) fn require_anchors(&self) -> Result<()> {
        if !self.roots.is_empty() || self.only_pins || self.accepts_any_certificate {
            return Ok(());
        }
        let mut message =
            String::from("no trusted certificate was found, so no server can be verified");
        for warning in &self.summary.warnings {
            message.push_str("; ");
            message.push_str(warning);
        }
        let hint = if self.origins.is_empty() {
            advice::NO_ANCHORS
        } else {
            advice::EMPTY_STORES
        };
        Err(config(message).with_hint(hint))
    }

    /// Describes the trust anchors, as a part of a sentence: "what is trusted (2 certificates, from
    /// ca.pem)".
    pub(super) fn text(&self) -> String {
        let origins = self.origins.join(", ");
        match &self.summary.anchors[..] {
            [] => "what is trusted (no certificate at all)".into(),
            [only] => format!(
                "what is trusted (one certificate, \"{}\", from {origins})",
                only.certificate.subject
            ),
            [..] => format!(
                "what is trusted ({} certificates, from {origins})",
                self.summary.anchors.len()
            ),
        }
    }

    pub(super) fn add_system(&mut self) {
        let origin = SYSTEM;
        self.origins.push(origin.into());
        // The library would block on a FIFO, and read a file of any size.
        if let Some(path) = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from)
            && path
                .metadata()
                .is_ok_and(|metadata| !metadata.is_file() || metadata.len() > MAX_FILE)
        {
            let (path, limit) = (path.display(), file::size(MAX_FILE));
            let warning = format!(
                "{origin}: {path}, which SSL_CERT_FILE names, is not a regular file of {limit} or \
                    less"
            );
            self.summary.warnings.push(warning);
            return;
        }
        let folders = std::env::var_os("SSL_CERT_DIR").unwrap_or_default();
        let is_too_large = |folder: &PathBuf| match files_within_limits(folder) {
            Ok(Some(paths)) => paths
                .iter()
                .any(|path| fs::metadata(path).is_ok_and(|metadata| metadata.len() > MAX_FILE)),
            Ok(None) => true,
            // The library reports the reason.
            Err(_) => false,
        };
        if let Some(folder) = std::env::split_paths(&folders).find(is_too_large) {
            let (folder, limit, file) = (
                folder.display(),
                file::size(MAX_FOLDER),
                file::size(MAX_FILE),
            );
            self.summary.warnings.push(format!(
                "{origin}: {folder}, which SSL_CERT_DIR names, has more than {MAX_FILES} files, \
                    or {limit}, or a \
                 file of more than {file}"
            ));
            return;
        }
        let result = rustls_native_certs::load_native_certs();
        for der in &result.certs {
            // An unusable certificate says nothing about the others, and users cannot fix the
            // system's store.
            let _ = self.add(der, origin);
        }
        for error in result.errors {
            self.summary.warnings.push(format!("{origin}: {error}"));
        }
    }

    /// Adds Mozilla's roots with their name constraints, which are not in the certificates.
    #[cfg(feature = "mozilla-roots")]
    pub(super) fn add_mozilla(&mut self) {
        let origin = "Mozilla's roots";
        self.origins.push(origin.into());
        for der in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
            let Ok(own) = webpki::anchor_from_trusted_cert(der) else {
                continue;
            };
            let same = |root: &&TrustAnchor<'_>| {
                root.subject == own.subject
                    && root.subject_public_key_info == own.subject_public_key_info
            };
            if let Some(allowed) = webpki_roots::TLS_SERVER_ROOTS.iter().find(same)
                && self.add(der, origin).is_ok()
                && let Some(added) = self.roots.last_mut().filter(|added| same(&&**added))
            {
                *added = allowed.clone();
            }
        }
    }

    pub(super) fn add_path(
        &mut self,
        path: &Path,
        folder: bool,
        context: ReadContext<'_>,
    ) -> Result<()> {
        self.origins.push(path.display().to_string());
        if folder {
            self.add_folder(path, context)
        } else {
            self.add_file(path, context)
        }
    }

    pub(super) fn add_bytes(&mut self, bytes: &[u8], context: ReadContext<'_>) -> Result<()> {
        let origin = "what was given in memory";
        self.origins.push(origin.into());
        let found =
            formats::certificates(bytes, context.password).map_err(|why| unusable(origin, why))?;
        self.add_all(found, origin)
    }

    pub(super) fn add_revocation_lists(&mut self, path: &Path, until: Instant) -> Result<()> {
        let origin = path.display().to_string();
        let bytes = file::read(path, MAX_FILE, until).map_err(|error| {
            config(format!(
                "the list of revoked certificates cannot be read from {origin}: {error}"
            ))
            .with_hint(
                "Give a file with lists of revoked certificates (X509 CRL), in PEM or \
                    DER, or leave it out.",
            )
            .with_source(error)
        })?;
        let now = SystemTime::now();
        for der in formats::revocation_lists(&bytes).map_err(|why| unusable(&origin, why))? {
            let list = OwnedCertRevocationList::from_der(&der).map_err(|error| {
                config(format!(
                    "{origin} holds a list of revoked certificates that cannot be used: {}",
                    webpki_text(&error)
                ))
                .with_hint("Get the file anew, or leave it out.")
            })?;
            self.revocation_lists.push(CertRevocationList::from(list));
            let next = CertificateList::<Raw>::from_der(&der)
                .ok()
                .and_then(|list| list.tbs_cert_list.next_update);
            if let Some(next) = next
                .map(|time| time.to_system_time())
                .filter(|next| *next < now)
            {
                let ago = date::between(next, now);
                self.summary.warnings.push(format!(
                    "{origin} is out of date: a newer list was due {ago} ago"
                ));
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path, context: ReadContext<'_>) -> Result<()> {
        let origin = path.display().to_string();
        let bytes =
            file::read(path, MAX_FILE, context.until).map_err(|error| cannot_read(path, error))?;
        let found = formats::certificates(&bytes, context.password)
            .map_err(|why| unusable(&origin, why))?;
        self.add_all(found, &origin)
    }

    fn add_folder(&mut self, path: &Path, context: ReadContext<'_>) -> Result<()> {
        let paths = files_within_limits(path).map_err(|error| cannot_read(path, error))?;
        let Some(mut paths) = paths else {
            let message = format!(
                "{} has more than {MAX_FILES} files, or {}, which is too much for a trust store",
                path.display(),
                file::size(MAX_FOLDER)
            );
            return Err(config(message)
                .with_hint("Put the certificates to trust into a folder of their own."));
        };
        paths.sort();

        let mut found_any = self.add_wallet(path, context)?;
        let mut skipped = Vec::new();
        for path in paths.into_iter().filter(|path| !is_of_wallet(path)) {
            match self.add_if_certificate(&path, context) {
                Ok(()) => found_any = true,
                Err(why) => skipped.push((path, why)),
            }
        }
        if !found_any {
            return Err(no_certificate_in(path, skipped));
        }
        for (path, why) in skipped {
            self.summary.warnings.push(format!(
                "{} was skipped: it {}",
                path.display(),
                why.reason
            ));
        }
        Ok(())
    }

    /// Adds the wallet in a folder, if there is one. One of its stores must open, since the folder
    /// was given for it.
    fn add_wallet(&mut self, folder: &Path, context: ReadContext<'_>) -> Result<bool> {
        let mut failed: Option<Error> = None;
        for store in wallet_stores(folder, context.password.is_some()) {
            match (self.add_file(&store, context), failed.take()) {
                (Ok(()), None) => return Ok(true),
                (Ok(()), Some(first)) => {
                    // Without a password, the other store cannot have been meant.
                    if context.password.is_some() {
                        self.summary.warnings.push(first.message().to_owned());
                    }
                    return Ok(true);
                }
                (Err(error), None) => failed = Some(error),
                (Err(second), Some(first)) => {
                    let error = config(format!("{}; {}", first.message(), second.message()));
                    failed = Some(error.with_hint(first.hint().unwrap_or_default().to_owned()));
                }
            }
        }
        failed.map_or(Ok(false), Err)
    }

    /// Adds a file in a folder, which need not contain a certificate.
    fn add_if_certificate(
        &mut self,
        path: &Path,
        context: ReadContext<'_>,
    ) -> Result<(), FormatError> {
        // Reading a FIFO or a device would block.
        if !path.is_file() {
            return Err(FormatError::new("is not a file", ""));
        }
        let bytes = file::read(path, MAX_FILE, context.until);
        let bytes =
            bytes.map_err(|error| FormatError::new(format!("cannot be read: {error}"), ""))?;
        let found = formats::certificates(&bytes, context.password)?;
        self.add_all(found, &path.display().to_string())
            .map_err(|error| FormatError::new(format!("cannot be used: {}", error.message()), ""))
    }

    /// Adds all certificates of a source; fails if none of them can be used.
    fn add_all(&mut self, found: formats::ParsedCertificates, origin: &str) -> Result<()> {
        for note in found.notes {
            self.summary.warnings.push(format!("{origin} {note}"));
        }
        let mut usable = false;
        for der in &found.certificates {
            match self.add(der, origin) {
                Ok(()) => usable = true,
                Err(reason) => self
                    .summary
                    .warnings
                    .push(format!("a certificate of {origin} was skipped: {reason}")),
            }
        }
        if usable {
            return Ok(());
        }
        Err(config(format!("no certificate of {origin} can be read"))
            .with_hint("Get the file anew: it is damaged."))
    }

    fn add(&mut self, der: &CertificateDer<'_>, origin: &str) -> Result<(), String> {
        let certificate = Certificate::read(der).ok_or("it cannot be read")?;
        if self.seen.contains(&certificate.sha256) {
            return Ok(());
        }
        let root = webpki::anchor_from_trusted_cert(der)
            .map_err(|error| webpki_text(&error))?
            .to_owned();
        self.seen.insert(certificate.sha256.clone());
        self.roots.push(root);
        self.summary.anchors.push(Anchor {
            certificate,
            origin: origin.into(),
        });
        Ok(())
    }

    /// Adds warnings about certificates that have expired or soon will.
    pub(super) fn add_expiry_warnings(&mut self) {
        let now = SystemTime::now();
        for anchor in &self.summary.anchors {
            let certificate = &anchor.certificate;
            let (subject, until, origin) = (
                &certificate.subject,
                certificate.not_after_text(),
                &anchor.origin,
            );
            if certificate.not_after < now {
                let ago = date::between(certificate.not_after, now);
                self.summary.warnings.push(format!(
                    "{subject} ({origin}) expired {ago} ago, at {until}"
                ));
            } else if certificate.not_after < now + SOON {
                let left = date::between(now, certificate.not_after);
                self.summary.warnings.push(format!(
                    "{subject} ({origin}) expires in {left}, at {until}"
                ));
            }
        }
        // Both contain file names.
        for anchor in &mut self.summary.anchors {
            anchor.origin = printable(mem::take(&mut anchor.origin));
        }
        for warning in &mut self.summary.warnings {
            *warning = printable(mem::take(warning));
        }
    }
}

/// The files in a folder, unless there are too many or they are too large.
fn files_within_limits(folder: &Path) -> io::Result<Option<Vec<PathBuf>>> {
    let entries = fs::read_dir(folder)?
        .take(MAX_FILES + 1)
        .map(|entry| entry.map(|entry| entry.path()));
    let paths = entries.collect::<io::Result<Vec<_>>>()?;
    let sizes = paths
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|metadata| metadata.len());
    let size = sizes.fold(0, u64::saturating_add);
    Ok((paths.len() <= MAX_FILES && size <= MAX_FOLDER).then_some(paths))
}

/// The key stores in the folder of an Oracle wallet: the one with a password, and the one that
/// opens without.
const WALLET: &str = "ewallet.p12";
const AUTO_LOGIN: &str = "cwallet.sso";

/// The key stores that a folder has as an Oracle wallet, in the order in which they are tried.
pub(super) fn wallet_stores(folder: &Path, has_password: bool) -> impl Iterator<Item = PathBuf> {
    let names = if has_password {
        [WALLET, AUTO_LOGIN]
    } else {
        [AUTO_LOGIN, WALLET]
    };
    names
        .map(|name| folder.join(name))
        .into_iter()
        .filter(|path| path.exists())
}

/// Whether the file is one of a wallet's key stores or of their lock files, which are empty.
fn is_of_wallet(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    [WALLET, AUTO_LOGIN].contains(&name.strip_suffix(".lck").unwrap_or(name))
}

/// The error for a folder without a certificate, with what it contains instead.
fn no_certificate_in(path: &Path, skipped: Vec<(PathBuf, FormatError)>) -> Error {
    let mut message = format!("{} holds no certificate", path.display());
    for (path, why) in skipped.iter().take(3) {
        let name = path.file_name().unwrap_or_default().display();
        message.push_str(&format!("; {name} {}", why.reason));
    }
    if skipped.len() > 3 {
        message.push_str(&format!(
            "; and {} more files hold none either",
            skipped.len() - 3
        ));
    }
    if skipped.is_empty() {
        message.push_str(": it is empty");
    }
    // The hint for an empty file is the least useful.
    let hint = skipped
        .into_iter()
        .find(|(_, why)| !why.hint.is_empty() && why.reason != "is empty");
    config(message).with_hint(hint.map_or(
        "Put the certificates to trust into it, in PEM or DER form.".into(),
        |(_, why)| why.hint,
    ))
}

pub(super) fn config(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, Phase::Setup, message)
}

fn cannot_read(path: &Path, error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "Check the path.",
        io::ErrorKind::PermissionDenied => "Let the user that runs this program read it.",
        io::ErrorKind::IsADirectory => "This is a folder: use Trust::folder or Trust::path.",
        io::ErrorKind::NotADirectory => "This is a file: use Trust::file or Trust::path.",
        io::ErrorKind::TimedOut => {
            "Give a regular file, or let the other program write to the FIFO and close it in time."
        }
        _ => "Give a file or folder with the certificates to trust.",
    };
    let so = if error.kind() == io::ErrorKind::FileTooLarge {
        ", and so no trust store"
    } else {
        ""
    };
    config(format!(
        "the trusted certificates cannot be read from {}: {error}{so}",
        path.display()
    ))
    .with_hint(hint)
    .with_source(error)
}

fn unusable(origin: &str, why: FormatError) -> Error {
    config(format!("{origin} {}", why.reason)).with_hint(why.hint)
}
