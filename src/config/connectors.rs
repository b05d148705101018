//! TLS settings and the connectors made from them.

use std::time::Instant;

use tokio::sync::OnceCell;

use crate::error::{Error, ErrorKind, Phase, Result};
use crate::file;
use crate::tls::{Connector, TlsSettings, TrustSummary, VerifyMode};

/// TLS settings, which do not change, and a connector for each verify mode. Other settings are
/// another value of this type, so a cached connector always matches its settings.
pub(crate) struct Connectors {
    pub(crate) settings: TlsSettings,
    verified: OnceCell<Connector>,
    reported: OnceCell<Connector>,
}

impl Connectors {
    /// Keeps the settings; the connectors are made when needed.
    pub(crate) fn new(settings: TlsSettings) -> Self {
        Connectors {
            settings,
            verified: OnceCell::new(),
            reported: OnceCell::new(),
        }
    }

    /// Returns the connector for this verify mode. The trust store is read on first use, on a
    /// blocking thread; a file that is not regular is read until `until` at most.
    pub(crate) async fn get(&self, demand: VerifyMode, until: Instant) -> Result<&Connector> {
        let connector = match demand {
            VerifyMode::Verified => &self.verified,
            VerifyMode::Reported => &self.reported,
        };
        let settings = self.settings.clone();
        let load = || blocking(move || Connector::load(&settings, demand, until));
        connector.get_or_try_init(load).await
    }

    /// Reads the trust store again, on a blocking thread.
    pub(crate) async fn reload(&self, demand: VerifyMode) -> Result<TrustSummary> {
        let connector = self.get(demand, file::time_limit()).await?.clone();
        blocking(move || connector.reload()).await
    }
}

async fn blocking<T: Send + 'static>(
    load: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let loaded = tokio::task::spawn_blocking(load).await;
    loaded.map_err(|panic| {
        let message = "the trust store could not be loaded";
        Error::new(ErrorKind::Config, Phase::Setup, message).with_source(panic)
    })?
}
