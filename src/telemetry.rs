//! Spans and events of `tracing`; without that feature, nothing.
//!
//! Each step of a session is a span with its host; its end is an event with the duration and the
//! failure. The events of the dialogue come from the transcript, which contains no secrets.

use std::pin::Pin;

use crate::error::Result;
#[cfg(feature = "tracing")]
pub(crate) use warnings::expires_soon;

/// Runs a step of a session in a span of its own, and emits its result. Takes a pinned future, as
/// each function that takes one by value reserves its size again.
pub(crate) async fn in_span<T>(
    step: &'static str,
    host: &str,
    running: Pin<&mut impl Future<Output = Result<T>>>,
) -> Result<T> {
    #[cfg(feature = "tracing")]
    return traced(step, host, running).await;
    #[cfg(not(feature = "tracing"))]
    {
        let _ = (step, host);
        running.await
    }
}

/// Reports that a server is paused after failures.
#[cfg(feature = "failover")]
pub(crate) fn server_paused(host: &str, pause: std::time::Duration) {
    #[cfg(feature = "tracing")]
    {
        let seconds = pause.as_secs_f64();
        tracing::warn!(host, seconds, "the server is paused after failures");
    }
    #[cfg(not(feature = "tracing"))]
    let _ = (host, pause);
}

/// Reports that a server that was paused works again.
#[cfg(feature = "failover")]
pub(crate) fn server_works(host: &str) {
    #[cfg(feature = "tracing")]
    tracing::info!(host, "the server works again");
    #[cfg(not(feature = "tracing"))]
    let _ = host;
}

#[cfg(feature = "tracing")]
async fn traced<T>(
    step: &'static str,
    host: &str,
    running: Pin<&mut impl Future<Output = Result<T>>>,
) -> Result<T> {
    use tracing::Instrument as _;
    let span = tracing::info_span!("smtp", step, host);
    let traced = async {
        let began = tokio::time::Instant::now();
        let result = running.await;
        let seconds = began.elapsed().as_secs_f64();
        match &result {
            Ok(_) => tracing::info!(seconds, "done"),
            Err(error) => tracing::warn!(
                seconds,
                phase = error.phase().as_str(),
                kind = error.kind().as_str(),
                outcome_unknown = error.outcome_unknown(),
                "{error}"
            ),
        }
        result
    };
    traced.instrument(span).await
}

#[cfg(feature = "tracing")]
mod warnings {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex, PoisonError};
    use std::time::{Duration, SystemTime};

    use tokio::time::Instant;

    use crate::diagnose::certificate as advice;
    use crate::receipt::{self, Certificate, CertificateUse};

    /// The interval between two warnings about a certificate.
    const INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

    /// The maximum number of certificates that are remembered.
    const REMEMBERED: usize = 1000;

    /// When each certificate was warned about, by its fingerprint.
    static WARNED: LazyLock<Mutex<HashMap<String, Instant>>> = LazyLock::new(Mutex::default);

    /// Warns about a certificate in use that expires soon, at most once a day.
    pub(crate) fn expires_soon(usage: CertificateUse, certificate: &Certificate, host: &str) {
        let now = SystemTime::now();
        if !receipt::expires_soon(usage, certificate, now) || !is_due(&certificate.sha256) {
            return;
        }
        let hint = match usage {
            CertificateUse::Server => advice::RENEW_SERVER,
            CertificateUse::Client => advice::RENEW_CLIENT,
            CertificateUse::Anchor => advice::RENEW_ANCHOR,
        };
        tracing::warn!(
            host,
            certificate = usage.as_str(),
            subject = certificate.subject,
            not_after = certificate.not_after_text(),
            "{}. {hint}",
            receipt::validity(usage, certificate, now)
        );
    }

    fn is_due(fingerprint: &str) -> bool {
        let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        warned.retain(|_, at| now.saturating_duration_since(*at) < INTERVAL);
        if warned.contains_key(fingerprint) {
            return false;
        }
        if warned.len() >= REMEMBERED {
            warned.clear();
        }
        warned.insert(fingerprint.to_owned(), now);
        true
    }
}
