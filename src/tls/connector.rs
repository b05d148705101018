//! Turns a plain stream into a TLS stream.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore as _, Resumption, WantsClientCert,
};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, HandshakeKind, ProtocolVersion,
    SupportedProtocolVersion,
};

use super::chains::KnownChains;
use super::files::{FileState, Files};
use super::handshake;
use super::reasons::rustls_text;
use super::recording::RecordingStream;
use super::registry::trust_store;
use super::verify::Verifier;
use super::{
    Certificate, CertificateFailure, CertificateUse, TlsInfo, TlsSettings, TlsVersion, TrustSummary,
};
use crate::{Error, ErrorKind, Phase, Result, file};

/// What is required of the server's certificate. A connector has a single mode, so that a session
/// that began without verification is never resumed where verification is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum VerifyMode {
    /// The certificate must be trusted.
    Verified,
    /// Any certificate is accepted; the [`TlsInfo`] reports whether it is trusted.
    Reported,
}

/// How TLS began, for error hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsMode {
    /// With the first byte.
    Implicit,
    /// With the first byte, for LMTP, which no scheme of URLs and no port stands for.
    ImplicitLmtp,
    /// After STARTTLS.
    StartTls,
    /// With the first byte, of a web server.
    #[cfg(feature = "mx")]
    Https,
}

/// The TLS stream over `S`.
pub(crate) type TlsStream<S> = tokio_rustls::client::TlsStream<RecordingStream<S>>;

/// Performs TLS handshakes. A client keeps one connector, which caches the sessions to resume.
/// Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    loaded: Arc<RwLock<Arc<Loaded>>>,
}

/// The loaded settings. A reload replaces them as a whole, together with the cached sessions: a
/// session that other trust anchors verified is not resumed.
#[derive(Debug)]
struct Loaded {
    config: Arc<ClientConfig>,
    /// `None` if the caller's configuration verifies.
    verifier: Option<Arc<Verifier>>,
    /// The client certificate that is presented; `None` if the caller's configuration decides.
    own: Option<Certificate>,
    server_name: Option<ServerName<'static>>,
    versions: String,
    known: Arc<KnownChains>,
    /// Not used by the caller's configuration, which has its own.
    sessions: Arc<ClientSessionMemoryCache>,
    /// The files of the client certificate; the store of the verifier has its own.
    client_files: FileState,
}

impl Connector {
    /// Loads the trust anchors and checks the settings, for a connector that is not shared. Blocks
    /// on file I/O for some milliseconds, or some seconds if one of the files is a FIFO or a
    /// device.
    pub(crate) fn new(settings: &TlsSettings, verify_mode: VerifyMode) -> Result<Self> {
        let files = settings.files();
        Connector::load(settings, verify_mode, files, file::time_limit())
    }

    /// Loads the trust anchors from these files and checks the settings, until `until` at most if
    /// one of the files is a FIFO or a device.
    pub(super) fn load(
        settings: &TlsSettings,
        verify_mode: VerifyMode,
        files: Files,
        until: Instant,
    ) -> Result<Self> {
        Loaded::new(settings, verify_mode, files, until).map(Connector::from)
    }

    /// Whether it was loaded from these files, as they are.
    pub(super) fn is_from(&self, files: &Files) -> bool {
        let loaded = self.loaded();
        // The caller's configuration has no files.
        loaded.verifier.as_ref().is_none_or(|verifier| {
            verifier.store.files.is_same(&files.trust) && loaded.client_files.is_same(&files.client)
        })
    }

    /// The trust anchors; none if the caller's configuration decides.
    pub(crate) fn trusted(&self) -> TrustSummary {
        self.loaded()
            .verifier
            .as_ref()
            .map(|verifier| verifier.store.summary.clone())
            .unwrap_or_default()
    }

    /// Calls a function with each certificate that a connection with these properties depends on.
    pub(crate) fn for_each_certificate(
        &self,
        info: &TlsInfo,
        mut each: impl FnMut(CertificateUse, &Certificate),
    ) {
        let loaded = self.loaded();
        let verifier = loaded.verifier.as_ref();
        let store = verifier.map(|verifier| &verifier.store);
        let has_dates =
            |peer: &&Certificate| verifier.is_none_or(|verifier| verifier.checks_dates(peer));
        if let Some(peer) = info.peer().filter(has_dates) {
            each(CertificateUse::Server, peer);
        }
        if let Some(own) = &loaded.own {
            each(CertificateUse::Client, own);
        }
        let Some(verified_by) = &info.verified_by else {
            return;
        };
        for intermediate in intermediates(&info.chain, verified_by) {
            each(CertificateUse::Intermediate, intermediate);
        }
        let anchors = store.map_or(&[][..], |store| &store.summary.anchors);
        let anchors = anchors.iter().map(|anchor| &anchor.certificate);
        // An anchor that was renewed may be there twice, under the same name.
        if let Some(anchor) = anchors
            .filter(|anchor| anchor.subject == *verified_by && info.peer() != Some(anchor))
            .max_by_key(|certificate| certificate.not_after)
        {
            each(CertificateUse::Anchor, anchor);
        }
    }

    #[cfg(test)]
    pub(super) fn known_chains(&self) -> Arc<KnownChains> {
        self.loaded().known.clone()
    }

    fn loaded(&self) -> Arc<Loaded> {
        // Nothing panics while the lock is held, and the value is replaced as a whole.
        self.loaded
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Uses what another connector has loaded, for later handshakes of this one and its clones.
    pub(super) fn replace_by(&self, fresh: &Connector) {
        let fresh = fresh.loaded();
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// Performs the handshake with the server `host`, a name or IP address with or without a
    /// trailing dot or brackets, over a connected stream. It has no time-out of its own.
    pub(crate) async fn handshake<S>(
        &self,
        host: &str,
        stream: S,
        mode: TlsMode,
    ) -> Result<(TlsStream<S>, TlsInfo)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let loaded = self.loaded();
        let server = loaded.server(host)?;
        loaded.forget_expired(&server);
        let began = Instant::now();
        let stream = RecordingStream {
            inner: stream,
            received: Some(Vec::new()),
            written: 0,
        };
        let connect = TlsConnector::from(loaded.config.clone())
            .connect(server.clone(), stream)
            .into_fallible();
        let mut stream = connect.await.map_err(|(error, stream)| {
            let received = stream.received.unwrap_or_default();
            handshake::explain(error, &received, &server.to_str(), mode, &loaded.versions)
        })?;
        stream.get_mut().0.received = None;
        stream.get_mut().1.set_buffer_limit(Some(BUFFER));
        let mut info = loaded.info(stream.get_ref().1, &server)?;
        info.handshake_duration = began.elapsed();
        Ok((stream, info))
    }

    /// A connector with other versions and its own sessions. Nothing is read again.
    pub(crate) fn with_versions(&self, min: TlsVersion, max: TlsVersion) -> Result<Self> {
        let loaded = self.loaded();
        // The caller's configuration decides about the versions.
        let Some(verifier) = &loaded.verifier else {
            return Ok(self.clone());
        };
        let supported = versions(min, max)?;
        let config = config(loaded.config.crypto_provider(), &supported, verifier)?;
        let mut config =
            config.with_client_cert_resolver(loaded.config.client_auth_cert_resolver.clone());
        let sessions = sessions();
        config.resumption = Resumption::store(sessions.clone());
        Ok(Connector::from(Loaded {
            config: Arc::new(config),
            verifier: Some(verifier.clone()),
            own: loaded.own.clone(),
            server_name: loaded.server_name.clone(),
            versions: versions_text(&supported),
            known: loaded.known.clone(),
            sessions,
            client_files: FileState::default(),
        }))
    }

    /// Disables resumption: each handshake is a full one, and shows the certificates of this
    /// server.
    pub(crate) fn without_resumption(self) -> Self {
        let loaded = self.loaded();
        let mut config = ClientConfig::clone(&loaded.config);
        config.resumption = Resumption::disabled();
        Connector::from(Loaded {
            config: Arc::new(config),
            verifier: loaded.verifier.clone(),
            own: loaded.own.clone(),
            server_name: loaded.server_name.clone(),
            versions: loaded.versions.clone(),
            known: loaded.known.clone(),
            sessions: loaded.sessions.clone(),
            client_files: FileState::default(),
        })
    }

    /// The ClientHello of a handshake with this host, to see how a server reacts to it.
    pub(crate) fn client_hello(&self, host: &str) -> Result<Vec<u8>> {
        let loaded = self.loaded();
        let failure = |error| {
            Error::new(
                ErrorKind::Config,
                Phase::Setup,
                format!("TLS cannot be set up: {}", rustls_text(&error)),
            )
            .with_source(error)
        };
        let mut connection =
            ClientConnection::new(loaded.config.clone(), loaded.server(host)?).map_err(failure)?;
        let mut hello = Vec::new();
        connection
            .write_tls(&mut hello)
            .map_err(|error| Error::connection_lost(Phase::Tls, error))?;
        Ok(hello)
    }
}

impl From<Loaded> for Connector {
    fn from(loaded: Loaded) -> Self {
        Connector {
            loaded: Arc::new(RwLock::new(Arc::new(loaded))),
        }
    }
}

impl Loaded {
    fn new(
        settings: &TlsSettings,
        verify_mode: VerifyMode,
        files: Files,
        until: Instant,
    ) -> Result<Self> {
        let server_name = settings
            .server_name
            .as_deref()
            .map(|name| server_name(name, Phase::Setup))
            .transpose()?;
        let supported = versions(settings.min, settings.max)?;
        let versions = versions_text(&supported);
        if let Some(config) = &settings.config {
            return Ok(Loaded {
                config: config.clone(),
                verifier: None,
                own: None,
                server_name,
                versions,
                known: Arc::default(),
                sessions: sessions(),
                client_files: files.client,
            });
        }
        let provider = settings.provider.clone().map_or_else(provider, Ok)?;
        let store = trust_store(&settings.trust, files.trust, until)?;
        if verify_mode == VerifyMode::Verified && !settings.has_dane() {
            store.require_anchors()?;
        }
        let known = Arc::<KnownChains>::default();
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Arc::new(Verifier {
            store,
            #[cfg(feature = "mx")]
            dane: settings.dane.clone(),
            verify_mode,
            algorithms,
            known: known.clone(),
        });
        let own = settings
            .client_certificate
            .as_ref()
            .map(|own| own.certified(&provider, until))
            .transpose()?;
        let config = config(&provider, &supported, &verifier)?;
        let own_leaf = own
            .as_ref()
            .and_then(|own| Certificate::read(own.cert.first()?));
        let mut config = match own {
            Some(own) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
            None => config.with_no_client_auth(),
        };
        let sessions = sessions();
        config.resumption = Resumption::store(sessions.clone());
        Ok(Loaded {
            config: Arc::new(config),
            verifier: Some(verifier),
            own: own_leaf,
            server_name,
            versions,
            known,
            sessions,
            client_files: files.client,
        })
    }

    /// Removes the sessions of a server whose certificate has expired since. A server with a new
    /// certificate may resume them, and would be refused for the old one.
    fn forget_expired(&self, server: &ServerName<'static>) {
        if self.known.has_expired(server, UnixTime::now()) {
            while self.sessions.take_tls13_ticket(server).is_some() {}
            self.sessions.remove_tls12_session(server);
        }
    }

    /// The name that the server's certificate must have.
    fn server(&self, host: &str) -> Result<ServerName<'static>> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => server_name(host, Phase::Tls),
        }
    }

    /// What was negotiated. Fails if a session was resumed whose certificate would no longer be
    /// accepted.
    fn info(&self, connection: &ClientConnection, server: &ServerName<'_>) -> Result<TlsInfo> {
        let chain = connection.peer_certificates().unwrap_or_default();
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let (verified_by, not_verified_reason) = self.verification(chain, server)?;
        Ok(TlsInfo {
            version: connection
                .protocol_version()
                .map(version_text)
                .unwrap_or_default(),
            cipher: connection
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or("unknown")
                .to_owned(),
            key_exchange: connection
                .negotiated_key_exchange_group()
                .map(|group| format!("{:?}", group.name())),
            chain: self.known.certificates(server, chain),
            not_verified_reason,
            verified_by,
            resumed,
            handshake_duration: Duration::ZERO,
        })
    }

    /// The anchor that verifies the certificate, or why it is not verified.
    fn verification(
        &self,
        chain: &[CertificateDer<'_>],
        server: &ServerName<'_>,
    ) -> Result<(Option<String>, Option<CertificateFailure>)> {
        let Some(verifier) = &self.verifier else {
            // The caller's verifier accepted it.
            return Ok((Some("the rustls configuration given".into()), None));
        };
        match verifier.verify(chain, server, UnixTime::now()) {
            Ok(anchor) => Ok((Some(anchor), None)),
            Err(failure) if verifier.only_reports() => Ok((None, Some(failure))),
            Err(failure) => Err(failure.into_error()),
        }
    }
}

/// The certificates between the server's own and the anchor with this subject. None if the chain
/// does not lead to it; others that the server sends do not matter.
fn intermediates<'c>(chain: &'c [Certificate], anchor: &str) -> Vec<&'c Certificate> {
    let mut path = Vec::new();
    let Some((mut last, others)) = chain.split_first() else {
        return path;
    };
    while last.issuer != anchor && last.subject != anchor {
        // With the same name, the verifier takes one that is valid.
        let issuers = others.iter().filter(|other| other.subject == last.issuer);
        let issuer = issuers.max_by_key(|issuer| issuer.not_after);
        let Some(issuer) = issuer.filter(|issuer| !path.contains(issuer)) else {
            return Vec::new();
        };
        path.push(issuer);
        last = issuer;
    }
    path
}

/// The part of the configuration that does not depend on the client certificate.
fn config(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    verifier: &Arc<Verifier>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let config =
        ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
    let config = config.map_err(|error| {
        Error::new(
            ErrorKind::Config,
            Phase::Setup,
            format!("TLS cannot be set up: {}", rustls_text(&error)),
        )
        .with_source(error)
    })?;
    Ok(config
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone()))
}

/// A cache for as many sessions as that of rustls by default: eight for each of 32 servers.
fn sessions() -> Arc<ClientSessionMemoryCache> {
    Arc::new(ClientSessionMemoryCache::new(256))
}

fn versions_text(versions: &[&SupportedProtocolVersion]) -> String {
    versions
        .iter()
        .map(|version| version_text(version.version))
        .collect::<Vec<_>>()
        .join(" and ")
}

/// The versions from `min` to `max`.
fn versions(min: TlsVersion, max: TlsVersion) -> Result<Vec<&'static SupportedProtocolVersion>> {
    if min > max {
        let message = format!("the minimum version of TLS, {min}, is above the maximum, {max}");
        return Err(Error::new(ErrorKind::Config, Phase::Setup, message)
            .with_hint("Raise the one or lower the other."));
    }
    let all = [(TlsVersion::Tls13, &TLS13), (TlsVersion::Tls12, &TLS12)];
    Ok(all
        .into_iter()
        .filter(|(version, _)| (min..=max).contains(version))
        .map(|(_, supported)| supported)
        .collect())
}

/// The crypto provider of this build, always explicit: never the default of the process, which
/// another crate may set, or none.
pub(crate) fn provider() -> Result<Arc<CryptoProvider>> {
    #[cfg(feature = "aws-lc-rs")]
    return Ok(Arc::new(
        tokio_rustls::rustls::crypto::aws_lc_rs::default_provider(),
    ));
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Ok(Arc::new(
        tokio_rustls::rustls::crypto::ring::default_provider(),
    ));
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    Err(Error::new(
        ErrorKind::Config,
        Phase::Setup,
        "this build has no cryptography for TLS",
    )
    .with_hint(
        "Build envoi with the feature aws-lc-rs or ring, or give a provider of your own \
            (TlsSettings::crypto_provider).",
    ))
}

/// The server name of a host: without the trailing dot, brackets and zone.
fn server_name(host: &str, phase: Phase) -> Result<ServerName<'static>> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let bare = bare.split('%').next().unwrap_or(bare);
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    ServerName::try_from(bare.to_owned()).map_err(|error| {
        Error::new(
            ErrorKind::Config,
            phase,
            format!("{host:?} is not a name that a certificate can contain"),
        )
        .with_hint(
            "Use a DNS name (xn--… for one with other letters than ASCII) or an IP \
                address as server name.",
        )
        .with_source(error)
    })
}

fn version_text(version: ProtocolVersion) -> String {
    match version {
        ProtocolVersion::TLSv1_2 => TlsVersion::Tls12.to_string(),
        ProtocolVersion::TLSv1_3 => TlsVersion::Tls13.to_string(),
        other => format!("{other:?}"),
    }
}

/// How much plaintext rustls accepts, encrypts and writes to the socket at once: seven full
/// records, of 16 KiB each (RFC 8446, 5.1).
///
/// rustls allocates each record, and frees it once it is written. An allocator returns large
/// amounts of free memory to the system, which has to provide and zero them again for the next
/// write: glibc, when 128 KiB at the end of the heap are free (mallopt(3), M_TRIM_THRESHOLD). Seven
/// records stay below that, and need fewer system calls than the four of rustls' default.
const BUFFER: usize = 7 * 16 * 1024;
