//! Reads what is trusted before it is used, for the examples `send`, `probe` and `bulk`.

use std::path::Path;

use envoi::tls::Trust;
use envoi::{Error, Result};

/// Fails if files are trusted that cannot be read or used, so that this is found before anything is
/// looked up or connected, even where no certificate is verified. What is not a regular file can be
/// read once, by the client.
pub fn check(trust: &Trust) -> Result<(), Error> {
    let is_special = |path: &Path| {
        let metadata = std::fs::metadata(path);
        metadata.is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
    };
    let mut files = trust.get_paths().chain(trust.get_password_file());
    match trust.get_paths().next() {
        Some(_) if !files.any(is_special) => trust.load().map(|_| ()),
        _ => Ok(()),
    }
}
