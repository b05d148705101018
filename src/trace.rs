//! Spans and events for `tracing`, where that feature is on; nothing where it is not.
//!
//! What is told: which step of which session with which host, how long it took, and how it failed.
//! The dialogue comes from the transcript, which holds no secret.

use crate::error::Result;

/// Runs a step of a session with `host` in a span of its own, and tells how it ended.
pub(crate) async fn in_span<T>(
    step: &'static str,
    host: &str,
    running: impl Future<Output = Result<T>>,
) -> Result<T> {
    #[cfg(feature = "tracing")]
    return traced(step, host, running).await;
    #[cfg(not(feature = "tracing"))]
    {
        let _ = (step, host);
        running.await
    }
}

#[cfg(feature = "tracing")]
async fn traced<T>(
    step: &'static str,
    host: &str,
    running: impl Future<Output = Result<T>>,
) -> Result<T> {
    use tracing::Instrument as _;
    let span = tracing::info_span!("smtp", step, host);
    let told = async {
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
    told.instrument(span).await
}
