//! A CA and a certificate signed by it, generated for one server.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
#[cfg(feature = "sasl")]
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Identity;
use crate::tls;

/// The end of the year 9999, after which a certificate cannot be valid (RFC 5280, 4.1.2.5).
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// An IP address among these names becomes an IP address of the certificate.
pub(super) const LOCALHOST: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

impl Identity {
    /// Generates an identity for the names and addresses of the loopback interface.
    pub(super) fn localhost() -> io::Result<Self> {
        Identity::new(LOCALHOST.map(String::from).into(), None)
    }

    /// Generates an identity for these names and IP addresses.
    pub(super) fn new(names: Vec<String>, valid_until: Option<SystemTime>) -> io::Result<Self> {
        let mut ca = CertificateParams::default();
        ca.distinguished_name = name("envoi testing CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().map_err(io::Error::other)?)
            .map_err(io::Error::other)?;

        let common_name = names.first().map(String::as_str).unwrap_or_default();
        let distinguished_name = name(common_name);
        let mut leaf = CertificateParams::new(names).map_err(io::Error::other)?;
        leaf.distinguished_name = distinguished_name;
        if let Some(time) = valid_until {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            let since = since.map_err(io::Error::other)?.min(LAST);
            leaf.not_after = date_time_ymd(1970, 1, 1) + since;
        }
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let leaf = leaf.signed_by(&key, &ca).map_err(io::Error::other)?;

        Identity::with(vec![leaf.der().clone()], key.into(), ca.pem())
    }

    /// The identity of this chain and the key of its first certificate.
    pub(super) fn from_pem(chain: &str, key: &str) -> io::Result<Self> {
        let certificates = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(io::Error::other)?;
        let last = chain.rfind("-----BEGIN ").unwrap_or_default();
        Identity::with(certificates, key, chain[last..].to_owned())
    }

    fn with(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        ca_pem: String,
    ) -> io::Result<Self> {
        #[cfg(feature = "sasl")]
        let end_point = Sha256::digest(chain.first().map(AsRef::as_ref).unwrap_or_default());
        let config =
            ServerConfig::builder_with_provider(tls::provider().map_err(io::Error::other)?)
                .with_safe_default_protocol_versions()
                .map_err(io::Error::other)?
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .map_err(io::Error::other)?;
        Ok(Identity {
            ca_pem,
            acceptor: Some(TlsAcceptor::from(Arc::new(config))),
            #[cfg(feature = "sasl")]
            end_point: end_point.to_vec(),
        })
    }
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
