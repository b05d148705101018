//! TLS settings together with the connectors that were made from them.

use std::time::Instant;

use tokio::sync::OnceCell;

use crate::error::{Error, ErrorKind, Phase, Result};
use crate::file;
use crate::tls::{Connector, TlsSettings, TrustSummary, VerifyMode};

/// TLS settings, which do not change, and a connector for each way to verify. What decides about
/// trust is thereby the key of the cache: other settings are another value of this type.
pub(crate) struct Connectors {
    pub(crate) settings: TlsSettings,
    verified: OnceCell<Connector>,
    reported: OnceCell<Connector>,
}

impl Connectors {
    /// Connectors that will be made from these settings.
    pub(crate) fn new(settings: TlsSettings) -> Self {
        Connectors {
            settings,
            verified: OnceCell::new(),
            reported: OnceCell::new(),
        }
    }

    /// The connector that verifies in this way. The trust store is read when it is first asked for,
    /// on a thread that may block; a file that is not a regular one, until `until` at most.
    pub(crate) async fn get(&self, demand: VerifyMode, until: Instant) -> Result<&Connector> {
        let connector = match demand {
            VerifyMode::Verified => &self.verified,
            VerifyMode::Reported => &self.reported,
        };
        let settings = self.settings.clone();
        let load = || blocking(move || Connector::load(&settings, demand, until));
        connector.get_or_try_init(load).await
    }

    /// Reads the trust store again, on a thread that may block.
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
