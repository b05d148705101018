//! The password of key stores.

use std::path::PathBuf;
use std::time::Instant;

use crate::{Result, Secret};

/// The password of key stores: as it was given, or the file that it is read from when the stores
/// are.
#[derive(Clone)]
pub(super) enum Password {
    Given(Secret),
    /// Its first line.
    File(PathBuf),
}

impl Password {
    pub(super) fn read(&self, until: Instant) -> Result<Secret> {
        match self {
            Password::Given(secret) => Ok(secret.clone()),
            Password::File(path) => {
                let text = Secret::read(path, "the trust store's password", until)?;
                Ok(Secret::new(text.expose().lines().next().unwrap_or_default()))
            }
        }
    }
}
