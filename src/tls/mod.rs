//! TLS: the policy, the trust anchors, what was negotiated, and what went wrong.
//!
//! - [`Security`] decides when TLS is used: `None`, `Opportunistic`, `Required`, `Implicit`.
//! - [`Trust`] is the set of trust anchors: the system's store, files and folders of certificates,
//!   or both. It can be loaded and summarized before any connection is made.
//! - [`TlsSettings`] holds everything else: the allowed versions, another server name, your own
//!   `rustls` configuration.
//! - [`ClientCertificate`] is presented to a server that requests a client certificate.
//! - [`TlsInfo`] describes what protected a connection, and which anchor verified the server.
//! - [`PlaintextReason`] says why a connection with opportunistic TLS is not encrypted.
//! - A failed verification is an [`Error`](crate::Error) of kind [`Tls`](crate::ErrorKind::Tls)
//!   that names the certificate, the reason and the next step. Its source is a
//!   [`CertificateFailure`] with the chain that the server sent.
//!
//! ```
//! use envoi::tls::{TlsSettings, TlsVersion, Trust};
//!
//! # fn main() -> envoi::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("company-ca.pem");
//! # let ca = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap();
//! # std::fs::write(&path, ca.cert.pem()).unwrap();
//! let trust = Trust::empty().path(&path);
//! for anchor in trust.load()?.anchors {
//!     let certificate = &anchor.certificate;
//!     println!("{} (expires {})", certificate.subject, certificate.not_after_text());
//! }
//! let settings = TlsSettings::new(trust).min_version(TlsVersion::Tls13);
//! # let _ = settings;
//! # Ok(())
//! # }
//! ```

mod binding;
mod certificate;
mod chains;
mod client_certificate;
mod connector;
#[cfg(feature = "mx")]
pub(crate) mod dane;
mod defects;
mod failure;
mod files;
mod formats;
mod handshake;
mod issuers;
#[cfg(feature = "keystores")]
mod jks;
#[cfg(feature = "keystores")]
mod keystore;
mod name;
mod password;
#[cfg(feature = "keystores")]
mod pkcs12;
mod reasons;
mod recording;
mod registry;
mod security;
mod settings;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod trust;
mod verify;
#[cfg(feature = "keystores")]
mod wallet;

pub use crate::receipt::{
    Certificate, CertificateFailure, CertificateProblem, CertificateUse, PlaintextReason, TlsInfo,
    UsedCertificate,
};
pub use client_certificate::ClientCertificate;
pub use security::{Security, TlsVersion};
pub use settings::TlsSettings;
pub use trust::{Anchor, Trust, TrustSummary};

/// The version of `rustls` that envoi uses, for [your own
/// configuration](TlsSettings::rustls_config).
pub use tokio_rustls::rustls;

pub(crate) use binding::channel_binding;
#[cfg(all(feature = "testing", any(feature = "aws-lc-rs", feature = "ring")))]
pub(crate) use connector::provider;
pub(crate) use connector::{Connector, TlsMode, TlsStream, VerifyMode};
#[cfg(feature = "dkim")]
pub(crate) use defects::of_key as defect_of_key;
#[cfg(any(feature = "dkim", feature = "mx"))]
pub(crate) use defects::rsa_bits;
pub(crate) use handshake::late_alert;
pub(crate) use password::Password;
pub(crate) use shared::SharedConnector;
pub(crate) use store::SYSTEM;
pub(crate) use trust::Source;
