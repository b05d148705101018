//! The password of key stores.

use std::path::PathBuf;
use std::time::Instant;

#[cfg(feature = "keystores")]
use zeroize::Zeroizing;

use crate::{Result, Secret};

/// The password of key stores: as given, or the file to read it from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Password {
    Given(Secret),
    /// The first line of the file.
    File(PathBuf),
}

impl Password {
    /// Reads the password. `what` describes it in errors.
    pub(super) fn read(&self, what: &str, until: Instant) -> Result<Secret> {
        match self {
            Password::Given(secret) => Ok(secret.clone()),
            Password::File(path) => {
                let text = Secret::read(path, what, until)?;
                Ok(Secret::new(
                    text.expose().lines().next().unwrap_or_default(),
                ))
            }
        }
    }
}

/// The password as key stores hash it: UTF-16, big-endian. The buffer has room for a NUL after it.
#[cfg(feature = "keystores")]
pub(super) fn utf16(password: &str) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * password.len() + 2));
    bytes.extend(password.encode_utf16().flat_map(u16::to_be_bytes));
    bytes
}
