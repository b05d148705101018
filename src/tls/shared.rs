//! Connectors, which all clients of the process with equal settings share.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use super::files::Files;
use super::registry::{Registry, forget_store, lock};
use super::store::config;
use super::{Connector, TlsSettings, TrustSummary, VerifyMode};
use crate::{Result, file};

/// The time for which a connector is used before its files are looked at again.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The maximum time that a connection waits for that.
const CHECK_LIMIT: Duration = Duration::from_secs(1);

static CONNECTORS: LazyLock<Mutex<Registry<SharedConnector>>> = LazyLock::new(Mutex::default);

/// The connector of all clients with equal settings.
pub(crate) struct SharedConnector {
    settings: TlsSettings,
    verify_mode: VerifyMode,
    /// Empty until the files have been read.
    connector: OnceLock<Connector>,
    /// Locked while the files are looked at and read, so only threads that may block wait for it.
    /// They belong to the runtime of the client that waits, whose clock, if it is paused, stands
    /// still meanwhile.
    last_check: Mutex<Option<Check>>,
}

/// When the files were looked at.
struct Check {
    at: Instant,
    /// What was loaded is what they contained.
    is_current: bool,
}

impl SharedConnector {
    /// The connector of these settings. Nothing is read yet.
    pub(crate) fn of(settings: &TlsSettings, verify_mode: VerifyMode) -> Arc<Self> {
        let mut registry = lock(&CONNECTORS);
        let key = registry.key((settings, verify_mode));
        let is_same = |other: &SharedConnector| {
            other.verify_mode == verify_mode && other.settings == *settings
        };
        let shared = registry.find(key, is_same).unwrap_or_else(|| {
            let new = Arc::new(SharedConnector {
                settings: settings.clone(),
                verify_mode,
                connector: OnceLock::new(),
                last_check: Mutex::default(),
            });
            registry.add(key, &new);
            new
        });
        // Keys and passwords are wiped with the last client. The TLSA records of one server would
        // displace what others share.
        if !settings.has_secrets() && !settings.has_dane() {
            registry.keep(shared.clone());
        }
        shared
    }

    /// Returns the connector for the files as they are now, for a client that has not used it
    /// before. The files are read, on a blocking thread, unless they have been read and have not
    /// changed since; those that are not regular until `until` at most. If that fails, nothing
    /// changes for the clients that use the connector already.
    ///
    /// If the future is dropped, the thread continues.
    pub(crate) async fn load(self: &Arc<Self>, until: Instant) -> Result<&Connector> {
        let (shared, asked_at) = (self.clone(), Instant::now());
        let look = move || {
            let mut last_check = shared.lock_last_check();
            // Another client may have looked while this one waited.
            let is_current = |check: &Check| check.is_current && check.at >= asked_at;
            if !last_check.as_ref().is_some_and(is_current) {
                let at = Instant::now();
                shared.read_if_changed(until)?;
                *last_check = Some(Check {
                    at,
                    is_current: true,
                });
            }
            Ok(())
        };
        spawn_blocking(look).await.unwrap_or_else(panicked)?;
        Ok(self.connector.get().expect("it has been loaded"))
    }

    /// Returns the connector, which has been [loaded](Self::load). If its files have not been
    /// looked at for a minute, and have changed, they are read again. If that fails or takes long,
    /// nothing changes.
    pub(crate) async fn renewed(self: &Arc<Self>) -> &Connector {
        self.renew_after(CHECK_INTERVAL).await;
        self.connector.get().expect("it has been loaded")
    }

    pub(super) async fn renew_after(self: &Arc<Self>, interval: Duration) {
        if self.lock_if_due(interval).is_none() {
            return;
        }
        let shared = self.clone();
        let look = spawn_blocking(move || {
            let Some(mut last_check) = shared.lock_if_due(interval) else {
                return;
            };
            let at = Instant::now();
            // What is being written, or can be read once, is not read.
            let is_current = shared.settings.files().are_settled()
                && shared.read_if_changed(file::time_limit()).is_ok();
            *last_check = Some(Check { at, is_current });
        });
        let _ = timeout(CHECK_LIMIT, look).await;
    }

    /// Reads the files again, changed or not, and returns the trust anchors. Nothing changes if
    /// that fails.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<TrustSummary> {
        let shared = self.clone();
        let read = move || {
            let mut last_check = shared.lock_last_check();
            let at = Instant::now();
            forget_store(&shared.settings.trust);
            let summary = shared.read(shared.settings.files(), file::time_limit())?;
            *last_check = Some(Check {
                at,
                is_current: true,
            });
            Ok(summary)
        };
        spawn_blocking(read).await.unwrap_or_else(panicked)
    }

    fn lock_last_check(&self) -> MutexGuard<'_, Option<Check>> {
        self.last_check
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the last look, if it is at least this long ago. `None` if it is locked: then the files
    /// are being looked at.
    fn lock_if_due(&self, interval: Duration) -> Option<MutexGuard<'_, Option<Check>>> {
        let last_check = match self.last_check.try_lock() {
            Ok(last_check) => last_check,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        last_check
            .as_ref()
            .is_none_or(|check| check.at.elapsed() >= interval)
            .then_some(last_check)
    }

    fn read_if_changed(&self, until: Instant) -> Result<()> {
        let files = self.settings.files();
        match self.connector.get() {
            Some(connector) if connector.is_from(&files) => Ok(()),
            _ => self.read(files, until).map(|_| ()),
        }
    }

    fn read(&self, files: Files, until: Instant) -> Result<TrustSummary> {
        let fresh = Connector::load(&self.settings, self.verify_mode, files, until)?;
        let summary = fresh.trusted();
        if let Err(fresh) = self.connector.set(fresh) {
            self.connector
                .get()
                .expect("it has been loaded")
                .replace_by(&fresh);
        }
        Ok(summary)
    }
}

fn panicked<T>(panic: JoinError) -> Result<T> {
    Err(config("the trust store could not be loaded").with_source(panic))
}
