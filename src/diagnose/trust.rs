//! What to do about certificates to trust that cannot be loaded.

/// Nothing to trust is named.
pub(crate) const NO_ANCHORS: &str = "Name the certificates to trust: the system's store \
    (Trust::system) or a file (Trust::path, trust= in the URL).";

/// The stores that are named are empty.
pub(crate) const EMPTY_STORES: &str = "Install the system's store (on Debian and Alpine the \
    package ca-certificates), or name a file with the certificates to trust (Trust::path, trust= \
    in the URL).";

/// A key store needs another password, or any.
#[cfg(feature = "keystores")]
pub(crate) const STORE_PASSWORD: &str =
    "Give the password that it was made with (Trust::password, trust-password-file= in the URL).";
