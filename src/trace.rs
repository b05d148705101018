//! Spans and events of `tracing`; without that feature, nothing.
//!
//! Each step of a session is a span with its host; its end is an event with the duration and the
//! failure. The events of the dialogue come from the transcript, which contains no secrets.

use crate::error::Result;

/// Runs a step of a session in a span of its own, and emits its result.
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
