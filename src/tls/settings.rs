//! The TLS settings of a client.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::CryptoProvider;

#[cfg(feature = "mx")]
use super::dane::Dane;
use super::files::Files;
use super::{ClientCertificate, TlsVersion, Trust};

/// The TLS settings of a client: trust anchors, versions, and the name to verify.
///
/// The default trusts the [system's store](Trust::system) and allows TLS 1.2 and 1.3.
///
/// # Sharing
///
/// All clients of the process with equal settings share what was loaded: the trust anchors are
/// parsed once, and the TLS sessions of one client are resumed by the others
/// ([`TlsInfo::resumed`](super::TlsInfo::resumed)). Sessions are never shared between settings that
/// differ, in trust, client certificate, key, versions, provider, server name or TLSA records, nor
/// between clients that verify the server and those that only report
/// ([`Security::Opportunistic`](super::Security::Opportunistic)). What the last eight settings
/// loaded is kept when no client uses it any more, unless they have a password, a client
/// certificate or TLSA records.
///
/// The files, and those of the system's store, are looked at again by each new client, and by the
/// others when they connect and have not done so for a minute. If they have changed (size, times or
/// inode; of a folder, those of each file in it), they are loaded again. If that fails, the new
/// client gets the error, and the others continue with what they have. Files that are not regular
/// are read once for each new client. The stores of macOS and Windows, which are not files, are
/// loaded again after an hour.
#[derive(Clone, Debug)]
#[must_use = "a method returns the changed value"]
pub struct TlsSettings {
    pub(crate) trust: Trust,
    pub(crate) min: TlsVersion,
    pub(crate) max: TlsVersion,
    pub(crate) server_name: Option<String>,
    pub(crate) client_certificate: Option<ClientCertificate>,
    #[cfg(feature = "mx")]
    pub(crate) dane: Option<Dane>,
    pub(crate) provider: Option<Arc<CryptoProvider>>,
    pub(crate) config: Option<Arc<ClientConfig>>,
}

impl PartialEq for TlsSettings {
    /// Compares the crypto provider and the `rustls` configuration by their address.
    fn eq(&self, other: &Self) -> bool {
        let same_provider = match (&self.provider, &other.provider) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (one, two) => one.is_none() && two.is_none(),
        };
        let same_config = match (&self.config, &other.config) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (one, two) => one.is_none() && two.is_none(),
        };
        #[cfg(feature = "mx")]
        if self.dane != other.dane {
            return false;
        }
        same_provider
            && same_config
            && (self.min, self.max) == (other.min, other.max)
            && self.server_name == other.server_name
            && self.client_certificate == other.client_certificate
            && self.trust == other.trust
    }
}

impl Eq for TlsSettings {}

impl Hash for TlsSettings {
    /// Without passwords, provider and configuration.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.trust.hash(state);
        (self.min, self.max).hash(state);
        self.server_name.hash(state);
        self.client_certificate.hash(state);
        #[cfg(feature = "mx")]
        self.dane.hash(state);
    }
}

impl Default for TlsSettings {
    fn default() -> Self {
        TlsSettings::new(Trust::system())
    }
}

impl TlsSettings {
    /// Creates settings with this trust, and with TLS 1.2 and 1.3.
    pub fn new(trust: Trust) -> Self {
        TlsSettings {
            trust,
            min: TlsVersion::Tls12,
            max: TlsVersion::Tls13,
            server_name: None,
            client_certificate: None,
            #[cfg(feature = "mx")]
            dane: None,
            provider: None,
            config: None,
        }
    }

    /// Sets the trust anchors.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    pub(crate) fn map_trust(mut self, change: impl FnOnce(Trust) -> Trust) -> Self {
        self.trust = change(self.trust);
        self
    }

    /// Sets the minimum version; the default is TLS 1.2.
    pub fn min_version(mut self, version: TlsVersion) -> Self {
        self.min = version;
        self
    }

    /// Sets the maximum version; the default is TLS 1.3.
    pub fn max_version(mut self, version: TlsVersion) -> Self {
        self.max = version;
        self
    }

    /// Sets the name or IP address that the server's certificate is verified against and that is
    /// sent as SNI (RFC 6066, 3), instead of the host connected to. For servers that are reached by
    /// a name that is not in their certificate.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(crate::idna::host(name.into()));
        self
    }

    /// Sets the certificate to present if the server requests one; there is none by default.
    pub fn client_certificate(mut self, certificate: ClientCertificate) -> Self {
        self.client_certificate = Some(certificate);
        self
    }

    /// Has the server verified by its TLSA records, in place of the trust anchors and of the name
    /// connected to, and sends their base domain as SNI. [`Security::Opportunistic`
    /// ](super::Security::Opportunistic) is as strict as `Required` then.
    ///
    /// Together with a [`rustls_config`](Self::rustls_config), which verifies servers itself, this
    /// is refused before connecting ([`ErrorKind::Request`](crate::ErrorKind::Request)).
    ///
    /// The clients of [`mx`](crate::mx) do this for each server that has such records.
    #[cfg(feature = "mx")]
    pub fn dane(mut self, dane: Dane) -> Self {
        self.trust = Trust::empty();
        self.server_name = Some(dane.base_domain().to_owned());
        self.dane = Some(dane);
        self
    }

    /// Sets the crypto provider, for example one that is validated by FIPS 140; the default is that
    /// of the feature `aws-lc-rs`, else of `ring`. A build without both features needs this
    /// setting: without a provider, TLS fails before connecting, with
    /// [`ErrorKind::Config`](crate::ErrorKind::Config). The default provider of the process is
    /// never used.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use envoi::tls::{TlsSettings, rustls::crypto::CryptoProvider};
    ///
    /// fn settings(provider: CryptoProvider) -> TlsSettings {
    ///     TlsSettings::default().crypto_provider(Arc::new(provider))
    /// }
    /// ```
    pub fn crypto_provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// The TLSA records.
    #[cfg(feature = "mx")]
    pub fn get_dane(&self) -> Option<&Dane> {
        self.dane.as_ref()
    }

    /// Whom to trust.
    pub fn get_trust(&self) -> &Trust {
        &self.trust
    }

    /// The oldest version allowed.
    pub fn get_min_version(&self) -> TlsVersion {
        self.min
    }

    /// The newest version allowed.
    pub fn get_max_version(&self) -> TlsVersion {
        self.max
    }

    /// The name to verify, where it is not that of the host.
    pub fn get_server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The certificate of the client.
    pub fn get_client_certificate(&self) -> Option<&ClientCertificate> {
        self.client_certificate.as_ref()
    }

    /// Whether the server must show a certain key: one that is pinned, or by its TLSA records.
    pub(crate) fn demands_key(&self) -> bool {
        self.config.is_none() && (!self.trust.pins.is_empty() || self.has_dane())
    }

    /// Whether the server is verified by TLSA records.
    pub(crate) fn has_dane(&self) -> bool {
        #[cfg(feature = "mx")]
        return self.dane.is_some();
        #[cfg(not(feature = "mx"))]
        false
    }

    /// The state of the files that would be read now. Blocks on file I/O.
    pub(super) fn files(&self) -> Files {
        if self.config.is_some() {
            return Files::default();
        }
        let client = self.client_certificate.as_ref();
        Files {
            trust: self.trust.files(),
            client: client.map(ClientCertificate::files).unwrap_or_default(),
        }
    }

    /// Whether the settings contain a password, or load a key.
    pub(super) fn has_secrets(&self) -> bool {
        self.trust.password.is_some() || self.client_certificate.is_some()
    }

    /// Whether the caller's `rustls` configuration decides about the versions.
    pub(crate) fn has_own_config(&self) -> bool {
        self.config.is_some()
    }

    /// Sets your own `rustls` configuration ([`rustls`](super::rustls) is re-exported). It alone
    /// decides about cryptography, trust, versions and verification; the other settings except the
    /// server name are ignored.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use envoi::tls::{TlsSettings, rustls};
    ///
    /// fn settings(config: rustls::ClientConfig) -> TlsSettings {
    ///     TlsSettings::default().rustls_config(Arc::new(config))
    /// }
    /// ```
    pub fn rustls_config(mut self, config: Arc<ClientConfig>) -> Self {
        self.config = Some(config);
        self
    }
}
