//! A trust that was loaded: from the system, files, folders and memory.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::mem;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::pki_types::{CertificateDer, TrustAnchor};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_cert::certificate::Raw;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;

use super::certificate::apart;
use super::formats::{self, Unusable};
use super::{Anchor, Certificate, TrustSummary};
use crate::text::printable;
use crate::{Error, Kind, Phase, Result, Secret};

/// No trust store is larger; a file that is was named by mistake.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// An authority that expires within this time is worth a warning.
const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The origin of what the system trusts.
pub(crate) const SYSTEM: &str = "the system's store";

/// A trust that was read: the same certificates, as people read them and as `webpki` takes them.
#[derive(Debug, Default)]
pub(super) struct TrustStore {
    /// In the order of `summary.anchors`, one for one.
    pub(super) roots: Vec<TrustAnchor<'static>>,
    pub(super) summary: TrustSummary,
    /// SHA-256 hashes of public keys, one of which the server's must have.
    pub(super) pins: Vec<[u8; 32]>,
    pub(super) revocation_lists: Vec<CertRevocationList<'static>>,
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
            "Name the certificates to trust: the system's store (Trust::system) or a file (Trust::path, trust= in the URL)."
        } else {
            "Install the system's store (on Debian and Alpine the package ca-certificates), or name a file with the \
             certificates to trust (Trust::path, trust= in the URL)."
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

    pub(super) fn add_system(&mut self) {
        let origin = SYSTEM;
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
    pub(super) fn add_mozilla(&mut self) {
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

    pub(super) fn add_path(&mut self, path: &Path, folder: bool, password: Option<&Secret>) -> Result<()> {
        self.origins.push(path.display().to_string());
        if folder { self.add_folder(path, password) } else { self.add_file(path, password) }
    }

    pub(super) fn add_bytes(&mut self, bytes: &[u8], password: Option<&Secret>) -> Result<()> {
        let origin = "what was given in memory";
        self.origins.push(origin.into());
        let found = formats::certificates(bytes, password).map_err(|why| unusable(origin, why))?;
        self.add_all(found, origin)
    }

    pub(super) fn add_revocation_lists(&mut self, path: &Path) -> Result<()> {
        let origin = path.display().to_string();
        let bytes = read(path).map_err(|error| cannot_read(path, error))?;
        let now = SystemTime::now();
        for der in formats::revocation_lists(&bytes).map_err(|why| unusable(&origin, why))? {
            let list = OwnedCertRevocationList::from_der(&der).map_err(|error| {
                config(format!("{origin} holds a list of revoked certificates that cannot be used: {error}"))
                    .with_hint("Get the file anew, or leave it out.")
            })?;
            self.revocation_lists.push(CertRevocationList::from(list));
            let next = CertificateList::<Raw>::from_der(&der).ok().and_then(|list| list.tbs_cert_list.next_update);
            if let Some(next) = next.map(|time| time.to_system_time()).filter(|next| *next < now) {
                let ago = apart(next, now);
                self.summary.warnings.push(format!("{origin} is out of date: a newer list was due {ago} ago"));
            }
        }
        Ok(())
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
        Err(config(format!("no certificate of {origin} can be read")).with_hint("Get the file anew: it is damaged."))
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
    pub(super) fn sum_up(&mut self) {
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
        // File names are in both.
        for anchor in &mut self.summary.anchors {
            anchor.origin = printable(mem::take(&mut anchor.origin));
        }
        for warning in &mut self.summary.warnings {
            *warning = printable(mem::take(warning));
        }
    }
}

/// The key store in the folder of an Oracle wallet.
const WALLET: &str = "ewallet.p12";

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
    config(message).with_hint(
        hint.map_or("Put the certificates to trust into it, in PEM or DER form.".into(), |(_, why)| why.hint),
    )
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than 16 MiB, and so no trust store"));
    }
    Ok(bytes)
}

pub(super) fn config(message: impl Into<String>) -> Error {
    Error::new(Kind::Config, Phase::Setup, message)
}

fn cannot_read(path: &Path, error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "Check the path.",
        io::ErrorKind::PermissionDenied => "Let the user that runs this program read it.",
        io::ErrorKind::IsADirectory => "This is a folder: use Trust::folder or Trust::path.",
        io::ErrorKind::NotADirectory => "This is a file: use Trust::file or Trust::path.",
        _ => "Give a file or folder with the certificates to trust.",
    };
    config(format!("the trusted certificates cannot be read from {}: {error}", path.display()))
        .with_hint(hint)
        .with_source(error)
}

fn unusable(origin: &str, why: Unusable) -> Error {
    config(format!("{origin} {}", why.reason)).with_hint(why.hint)
}
