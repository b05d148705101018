//! Spans and events of `tracing`, and metrics of the facade `metrics`; without these features,
//! nothing.
//!
//! This is the one place where they are made: the rest of the crate says what happens, and each
//! function here makes the span, the event and the metric of it, with the same names. The events of
//! the dialogue come from the transcript, which contains no secrets. `docs/observability.md` lists
//! all of them.

#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "tracing")]
mod warnings;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

#[cfg(any(feature = "metrics", feature = "tracing"))]
use tokio::time::Instant;

use crate::error::Result;
use crate::proto::Phase;
use crate::receipt::Receipt;
#[cfg(any(feature = "metrics", feature = "tracing"))]
use crate::{error::Error, receipt::Recipient};
#[cfg(feature = "metrics")]
pub(crate) use metrics::OpenConnection;
#[cfg(feature = "metrics")]
pub use metrics::describe_metrics;
#[cfg(feature = "tracing")]
pub(crate) use warnings::expires_soon;
#[cfg(all(feature = "mx", feature = "tracing"))]
pub(crate) use warnings::policy_not_fetched;

/// The target of all events but those of the dialogue.
#[cfg(feature = "tracing")]
const TARGET: &str = "envoi";

/// The name of a server in receipts, spans and metrics. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Host(Arc<HostData>);

struct HostData {
    name: Arc<str>,
    #[cfg(feature = "metrics")]
    keys: metrics::Keys,
}

impl Host {
    pub(crate) fn new(name: &str) -> Self {
        Host(Arc::new(HostData {
            name: name.into(),
            #[cfg(feature = "metrics")]
            keys: metrics::Keys::default(),
        }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }
}

/// Runs a step of a session in a span of its own, and reports its result. Takes a pinned future, as
/// each function that takes one by value reserves its size again.
pub(crate) async fn in_span<T>(
    step: &'static str,
    host: &Host,
    running: Pin<&mut impl Future<Output = Result<T>>>,
) -> Result<T> {
    #[cfg(not(any(feature = "metrics", feature = "tracing")))]
    {
        let _ = (step, host);
        running.await
    }
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    {
        let span = StepSpan::new(step, host);
        let result = span.run(running).await;
        span.end(result.as_ref().err());
        result
    }
}

/// Runs a call that sends one message, with all of its attempts, in a span of its own, and reports
/// its result. A call that is dropped is reported, too.
pub(crate) async fn in_send(
    host: &Host,
    running: Pin<&mut impl Future<Output = Result<Receipt>>>,
) -> Result<Receipt> {
    #[cfg(not(any(feature = "metrics", feature = "tracing")))]
    {
        let _ = host;
        running.await
    }
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    {
        let mut call = SendCall::start(host);
        let result = call.span.run(running).await;
        call.has_ended = true;
        call.span.end_send(&result, call.span.began.elapsed());
        result
    }
}

/// Reports the result of a message that shared its connection with others in flight.
pub(crate) fn sent(host: &Host, result: &Result<Receipt>) {
    #[cfg(not(any(feature = "metrics", feature = "tracing")))]
    let _ = (host, result);
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    {
        let elapsed = receipt_of(result).map_or(Duration::ZERO, |receipt| receipt.elapsed);
        StepSpan::new("send", host).end_send(result, elapsed);
    }
}

/// Reports that a message that shared its connection with others was dropped after this time,
/// before its outcome.
pub(crate) fn dropped(host: &Host, elapsed: Duration) {
    #[cfg(not(any(feature = "metrics", feature = "tracing")))]
    let _ = (host, elapsed);
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    StepSpan::new("send", host).end_dropped(elapsed);
}

/// Reports that a message is tried again after a delay, and the result of the last attempt.
#[cfg(feature = "retries")]
pub(crate) fn retried(result: &Result<Receipt>, delay: Duration) {
    #[cfg(not(any(feature = "metrics", feature = "tracing")))]
    let _ = result;
    #[cfg(not(feature = "tracing"))]
    let _ = delay;
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    let host = receipt_of(result).map_or("", |receipt| &receipt.server);
    #[cfg(feature = "metrics")]
    metrics::retried(host);
    #[cfg(feature = "tracing")]
    {
        let delay = delay.as_secs_f64();
        match result {
            Ok(_) => tracing::warn!(target: TARGET, host, delay, "retries some recipients"),
            Err(error) => tracing::warn!(
                target: TARGET,
                host,
                delay,
                phase = error.phase().as_str(),
                kind = error.kind().as_str(),
                "retries: {error}"
            ),
        }
    }
}

/// Reports how long a wait for the server took in this phase.
pub(crate) fn waited(phase: Phase, waited: Duration) {
    #[cfg(not(feature = "metrics"))]
    let _ = (phase, waited);
    #[cfg(feature = "metrics")]
    metrics::waited(phase, waited);
}

/// Reports how the callback before the end of a message ended, and how long it took.
pub(crate) fn handover(number: u32, result: &Result<()>, elapsed: Duration) {
    #[cfg(not(any(feature = "metrics", feature = "tracing")))]
    let _ = (result, elapsed);
    #[cfg(not(feature = "tracing"))]
    let _ = number;
    #[cfg(feature = "metrics")]
    metrics::handover(self::result(result.as_ref().err()), elapsed);
    #[cfg(feature = "tracing")]
    {
        let seconds = elapsed.as_secs_f64();
        match result {
            Ok(()) => tracing::debug!(target: TARGET, seconds, number, "handed over"),
            Err(error) => tracing::debug!(
                target: TARGET,
                seconds,
                number,
                phase = error.phase().as_str(),
                kind = error.kind().as_str(),
                "{error}"
            ),
        }
    }
}

/// Reports that a server is paused after failures.
#[cfg(feature = "failover")]
pub(crate) fn server_paused(host: &str, pause: Duration) {
    #[cfg(not(any(feature = "metrics", feature = "tracing")))]
    let _ = host;
    #[cfg(not(feature = "tracing"))]
    let _ = pause;
    #[cfg(feature = "metrics")]
    metrics::paused(host, true);
    #[cfg(feature = "tracing")]
    {
        let seconds = pause.as_secs_f64();
        tracing::warn!(target: TARGET, host, seconds, "the server is paused after failures");
    }
}

/// Reports that a server that was paused works again.
#[cfg(feature = "failover")]
pub(crate) fn server_works(host: &str) {
    #[cfg(not(any(feature = "metrics", feature = "tracing")))]
    let _ = host;
    #[cfg(feature = "metrics")]
    metrics::paused(host, false);
    #[cfg(feature = "tracing")]
    tracing::info!(target: TARGET, host, "the server works again");
}

/// The receipt of a message, whatever its result.
#[cfg(any(feature = "metrics", feature = "tracing"))]
fn receipt_of(result: &Result<Receipt>) -> Option<&Receipt> {
    match result {
        Ok(receipt) => Some(receipt),
        Err(error) => error.receipt(),
    }
}

/// The outcome of a message, as a word.
#[cfg(any(feature = "metrics", feature = "tracing"))]
fn outcome(result: &Result<Receipt>) -> &'static str {
    match result {
        Ok(receipt) if receipt.all_accepted() => "accepted",
        Ok(_) => "partial",
        Err(error) if error.outcome_unknown() => "unknown",
        Err(error) if error.is_transient() => "transient",
        Err(_) => "permanent",
    }
}

/// The outcome for a recipient, as a word.
#[cfg(feature = "metrics")]
fn recipient_outcome(recipient: &Recipient) -> &'static str {
    use crate::receipt::Outcome;
    match recipient.outcome {
        Outcome::Accepted(_) => "accepted",
        Outcome::Refused(_) => "refused",
        Outcome::Unknown => "unknown",
        Outcome::NotTried => "not-tried",
    }
}

/// A step that is running.
#[cfg(any(feature = "metrics", feature = "tracing"))]
struct StepSpan {
    #[cfg(feature = "metrics")]
    step: &'static str,
    #[cfg(feature = "metrics")]
    host: Host,
    began: Instant,
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl StepSpan {
    fn new(step: &'static str, host: &Host) -> Self {
        StepSpan {
            began: Instant::now(),
            #[cfg(feature = "tracing")]
            span: tracing::info_span!(target: TARGET, "smtp", step, host = host.name()),
            #[cfg(feature = "metrics")]
            step,
            #[cfg(feature = "metrics")]
            host: host.clone(),
        }
    }

    async fn run<F: Future>(&self, running: F) -> F::Output {
        #[cfg(feature = "tracing")]
        return tracing::Instrument::instrument(running, self.span.clone()).await;
        #[cfg(not(feature = "tracing"))]
        running.await
    }

    fn end(&self, error: Option<&Error>) {
        let elapsed = self.began.elapsed();
        #[cfg(feature = "metrics")]
        metrics::step(self.step, &self.host, result(error), elapsed);
        #[cfg(feature = "tracing")]
        self.span.in_scope(|| {
            let seconds = elapsed.as_secs_f64();
            match error {
                None => tracing::debug!(target: TARGET, seconds, "done"),
                Some(error) => tracing::debug!(
                    target: TARGET,
                    seconds,
                    phase = error.phase().as_str(),
                    kind = error.kind().as_str(),
                    outcome_unknown = error.outcome_unknown(),
                    "{error}"
                ),
            }
        });
    }

    fn end_send(&self, result: &Result<Receipt>, elapsed: Duration) {
        let receipt = receipt_of(result);
        #[cfg(feature = "metrics")]
        {
            // Of several servers, the one that decided the result.
            let other = receipt.filter(|receipt| receipt.server != self.host.name());
            let other = other.map(|receipt| Host::new(&receipt.server));
            let host = other.as_ref().unwrap_or(&self.host);
            let error = result.as_ref().err();
            metrics::step(self.step, host, self::result(error), elapsed);
            metrics::message(host, outcome(result), receipt);
        }
        #[cfg(feature = "tracing")]
        self.span.in_scope(|| {
            let seconds = elapsed.as_secs_f64();
            let outcome = outcome(result);
            let bytes = receipt.map_or(0, |receipt| receipt.bytes);
            let recipients = receipt.map_or(&[] as &[Recipient], |receipt| &receipt.recipients);
            let accepted = recipients
                .iter()
                .filter(|r| r.outcome.is_accepted())
                .count();
            let recipients = recipients.len();
            let queue_id = receipt.and_then(Receipt::queue_id);
            match result {
                Ok(_) if accepted == recipients => tracing::info!(
                    target: TARGET, seconds, outcome, bytes, recipients, accepted, queue_id, "sent"
                ),
                Ok(_) => tracing::warn!(
                    target: TARGET, seconds, outcome, bytes, recipients, accepted, queue_id,
                    "not accepted for all recipients"
                ),
                Err(error) => tracing::warn!(
                    target: TARGET, seconds, outcome, bytes, recipients, accepted, queue_id,
                    phase = error.phase().as_str(),
                    kind = error.kind().as_str(),
                    "{error}"
                ),
            }
        });
    }

    fn end_dropped(&self, elapsed: Duration) {
        #[cfg(feature = "metrics")]
        {
            metrics::step(self.step, &self.host, "dropped", elapsed);
            metrics::message(&self.host, "dropped", None);
        }
        #[cfg(feature = "tracing")]
        self.span.in_scope(|| {
            let seconds = elapsed.as_secs_f64();
            tracing::warn!(
                target: TARGET,
                seconds,
                outcome = "dropped",
                "the call was dropped before its end"
            );
        });
    }
}

/// The result of a step, as a word.
#[cfg(feature = "metrics")]
fn result(error: Option<&Error>) -> &'static str {
    error.map_or("ok", |error| error.kind().as_str())
}

/// A call that sends a message, until it ends or is dropped.
#[cfg(any(feature = "metrics", feature = "tracing"))]
struct SendCall {
    span: StepSpan,
    has_ended: bool,
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl SendCall {
    fn start(host: &Host) -> Self {
        #[cfg(feature = "metrics")]
        metrics::send_started(host);
        SendCall {
            span: StepSpan::new("send", host),
            has_ended: false,
        }
    }
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl Drop for SendCall {
    fn drop(&mut self) {
        #[cfg(feature = "metrics")]
        metrics::send_ended(&self.span.host);
        if !self.has_ended {
            self.span.end_dropped(self.span.began.elapsed());
        }
    }
}
