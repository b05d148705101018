//! TLS settings and the connectors made from them.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::OnceCell;

use crate::error::Result;
use crate::tls::{Connector, SharedConnector, TlsSettings, TrustSummary, VerifyMode};

/// TLS settings, which do not change, and a connector for each verify mode. Other settings are
/// another value of this type, so a connector always matches its settings.
pub(crate) struct Connectors {
    pub(crate) settings: TlsSettings,
    verified: OnceCell<Arc<SharedConnector>>,
    reported: OnceCell<Arc<SharedConnector>>,
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

    /// Returns the connector for this verify mode. Its files are read on first use, unless a client
    /// with equal settings has read them and they have not changed since; a file that is not
    /// regular is read until `until` at most.
    pub(crate) async fn get(&self, demand: VerifyMode, until: Instant) -> Result<&Connector> {
        match self.cell(demand).get() {
            Some(shared) => Ok(shared.renewed().await),
            None => Ok(self.load(demand, until).await?.renewed().await),
        }
    }

    /// Reads the trust store and the client certificate again.
    pub(crate) async fn reload(&self, demand: VerifyMode) -> Result<TrustSummary> {
        let shared = SharedConnector::of(&self.settings, demand);
        let summary = shared.reload().await?;
        let _ = self.cell(demand).set(shared);
        Ok(summary)
    }

    async fn load(&self, demand: VerifyMode, until: Instant) -> Result<&Arc<SharedConnector>> {
        let load = || async {
            let shared = SharedConnector::of(&self.settings, demand);
            shared.load(until).await?;
            Ok(shared)
        };
        self.cell(demand).get_or_try_init(load).await
    }

    fn cell(&self, demand: VerifyMode) -> &OnceCell<Arc<SharedConnector>> {
        match demand {
            VerifyMode::Verified => &self.verified,
            VerifyMode::Reported => &self.reported,
        }
    }
}
