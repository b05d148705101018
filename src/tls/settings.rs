//! What a client wants of TLS.

use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;

use super::{ClientCertificate, TlsVersion, Trust};

/// What a client wants of TLS: whom to trust, which versions, under which name the server is
/// checked.
///
/// The default trusts the [system's store](Trust::system) and speaks TLS 1.2 and 1.3.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    pub(crate) trust: Trust,
    pub(crate) min: TlsVersion,
    pub(crate) max: TlsVersion,
    pub(crate) server_name: Option<String>,
    pub(crate) client_certificate: Option<ClientCertificate>,
    pub(crate) config: Option<Arc<ClientConfig>>,
}

impl Default for TlsSettings {
    fn default() -> Self {
        TlsSettings::new(Trust::system())
    }
}

impl TlsSettings {
    /// TLS 1.2 and 1.3, and this trust.
    pub fn new(trust: Trust) -> Self {
        TlsSettings {
            trust,
            min: TlsVersion::Tls12,
            max: TlsVersion::Tls13,
            server_name: None,
            client_certificate: None,
            config: None,
        }
    }

    /// Whom to trust, in place of what was set before.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    pub(crate) fn map_trust(mut self, change: impl FnOnce(Trust) -> Trust) -> Self {
        self.trust = change(self.trust);
        self
    }

    /// The oldest version to speak; TLS 1.2 unless set.
    pub fn min_version(mut self, version: TlsVersion) -> Self {
        self.min = version;
        self
    }

    /// The newest version to speak; TLS 1.3 unless set.
    pub fn max_version(mut self, version: TlsVersion) -> Self {
        self.max = version;
        self
    }

    /// The name, or IP address, that the server's certificate must bear, and that is sent as SNI
    /// (RFC 6066, 3), in place of the host connected to. For servers that are reached by another
    /// name than their own.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(crate::idna::host(name.into()));
        self
    }

    /// The certificate to show to a server that asks the client for one; none unless set.
    pub fn client_certificate(mut self, certificate: ClientCertificate) -> Self {
        self.client_certificate = Some(certificate);
        self
    }

    /// A key is pinned that the server must have.
    pub(crate) fn has_pins(&self) -> bool {
        self.config.is_none() && !self.trust.pins.is_empty()
    }

    /// A configuration of the caller's own decides about the versions.
    pub(crate) fn has_own_config(&self) -> bool {
        self.config.is_some()
    }

    /// A `rustls` configuration of your own ([`rustls`](super::rustls) is re-exported). It decides
    /// alone: trust, versions and verification are its own, and the other settings but the server
    /// name are not looked at.
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
