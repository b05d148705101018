//! Retries after transient failures: when, how often, and for which recipients.
//!
//! [`send`] is given a function for a single attempt; it sees outcomes, not connections. backon
//! computes the delays.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::time::sleep;

use crate::connection::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::message::PreparedMessage;
use crate::receipt::{Attempts, Outcome, Receipt, Recipient};
use crate::{Envelope, telemetry};

/// When and how often a [`Client`](crate::Client) retries a message after a transient failure: no
/// connection, a connection lost or a time-out reached before the whole message was sent, a 4xx
/// reply.
///
/// Only the recipients that [may succeed later](crate::Recipient::is_transient) are retried, with a
/// message that is equal to the byte. The result of the last attempt for each recipient decides. So
/// a permanently refused login ends the retries, even if some recipients were accepted, and if some
/// recipients were refused permanently, the others are retried. A recipient whose outcome is
/// [unknown](crate::Error::outcome_unknown) is never retried. A message that contains a stream is
/// not retried, since it can be read only once, nor is one whose [hand-over was
/// refused](crate::Message::on_handover), nor any message by a pool that was
/// [closed](crate::ErrorKind::PoolClosed). No delay exceeds the
/// [deadline](crate::Timeouts::deadline), which is the only limit for all attempts together.
///
/// ```
/// use envoi::{Client, RetryPolicy};
///
/// # fn example() -> envoi::Result<()> {
/// let client = Client::from_url("smtp://mail.example.org")?.retries(RetryPolicy::new(3));
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The maximum number of retries after the first attempt.
    pub max_retries: usize,
    /// The delay before the first retry; 1 second by default. It doubles for each further retry. A
    /// random time of up to the same length is added, so that many clients do not retry at the same
    /// moment.
    pub initial_backoff: Duration,
    /// The maximum delay, without the random time; 1 minute by default.
    pub max_backoff: Duration,
}

impl RetryPolicy {
    /// Creates a policy of up to `count` retries, after 1 second, 2, 4 …, plus a random time.
    pub fn new(count: usize) -> Self {
        RetryPolicy {
            max_retries: count,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
        }
    }

    fn delays(&self) -> impl Iterator<Item = Duration> {
        ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(self.initial_backoff)
            .with_max_delay(self.max_backoff)
            .with_max_times(self.max_retries)
            .build()
    }
}

/// Sends a message, and retries it as long as there are recipients that may succeed.
pub(crate) async fn send<F: Future<Output = Result<Receipt>>>(
    retries: &RetryPolicy,
    clock: &Clock,
    all_or_nothing: bool,
    mut message: PreparedMessage,
    mut attempt: impl FnMut(PreparedMessage) -> F,
) -> Result<Receipt> {
    let envelope = message.envelope.clone();
    let mut state = RetryState::new(&envelope);
    let mut delays = retries.delays();
    loop {
        let again = message.try_clone();
        message.envelope = envelope.only(&state.current);
        let handovers = message.body.handovers().cloned();
        let result = state.record(attempt(message).await);
        let remaining = state.remaining(all_or_nothing);
        let stays = result
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::PoolClosed)
            || handovers.is_some_and(|handovers| handovers.refusal().is_some());
        let delay = delays
            .next()
            .filter(|delay| !remaining.is_empty() && !stays && clock.has_time_for(*delay));
        let (Some(delay), Some(again)) = (delay, again) else {
            return state.end(result);
        };
        telemetry::retried(&result, delay);
        state.keep_unknown(result);
        sleep(delay).await;
        (state.current, message) = (remaining, again);
    }
}

/// The combined result of all attempts.
struct RetryState {
    total: Attempts,
    /// The indexes of the recipients of the current attempt.
    current: Vec<usize>,
    attempts: u32,
    /// The receipt of the last attempt in which a recipient was accepted.
    accepted: Option<Receipt>,
    /// The error of the first attempt after which an outcome was unknown.
    unknown: Option<Error>,
    /// Why the last attempt did not reach all of its recipients.
    incomplete_reason: Option<String>,
}

impl RetryState {
    fn new(envelope: &Envelope) -> Self {
        RetryState {
            total: Attempts::new(envelope.recipients()),
            current: (0..envelope.recipients().len()).collect(),
            attempts: 0,
            accepted: None,
            unknown: None,
            incomplete_reason: None,
        }
    }

    /// Merges the result of an attempt.
    fn record(&mut self, result: Result<Receipt>) -> Result<Receipt> {
        self.attempts += 1;
        match result {
            Ok(receipt) => {
                self.incomplete_reason = receipt.incomplete_reason.clone();
                self.total.add(&self.current, &receipt);
                self.accepted = Some(receipt.clone());
                Ok(receipt)
            }
            Err(mut error) => {
                // Unless the receipt has another outcome for the recipient.
                self.current.iter().for_each(|index| {
                    self.total.recipients[*index].transient = error.is_transient()
                });
                let Some(receipt) = error.take_receipt() else {
                    self.incomplete_reason = Some(error.to_string());
                    return Err(error);
                };
                let untried = |recipient: &Recipient| recipient.outcome == Outcome::NotTried;
                self.incomplete_reason = receipt
                    .recipients
                    .iter()
                    .any(untried)
                    .then(|| error.to_string());
                self.total.add(&self.current, &receipt);
                Err(error.with_receipt(receipt))
            }
        }
    }

    /// Keeps the unknown outcome while other recipients are retried.
    fn keep_unknown(&mut self, result: Result<Receipt>) {
        if let Err(error) = result
            && error.outcome_unknown()
        {
            self.unknown.get_or_insert(error);
        }
    }

    /// The indexes of the recipients to retry.
    fn remaining(&self, all_or_nothing: bool) -> Vec<usize> {
        let is_final =
            |recipient: &Recipient| !recipient.outcome.is_accepted() && !recipient.is_transient();
        if all_or_nothing && self.total.recipients.iter().any(is_final) {
            return Vec::new();
        }
        (0..self.total.recipients.len())
            .filter(|index| self.total.recipients[*index].is_transient())
            .collect()
    }

    /// The combined result: an unknown outcome of a recipient, else that some recipients were
    /// accepted, else the last failure.
    fn end(mut self, result: Result<Receipt>) -> Result<Receipt> {
        let attempts = self.attempts;
        let result = match (self.unknown.take(), result, self.accepted.take()) {
            (Some(unknown), _, _) => Err(unknown),
            (None, Err(error), Some(receipt)) if !error.outcome_unknown() => Ok(receipt),
            (None, Err(error), _) if attempts > 1 => {
                Err(error.context(format_args!("at the last of {attempts} attempts")))
            }
            (None, result, _) => result,
        };
        match result {
            Ok(receipt) => Ok(self.total.into_receipt(receipt, self.incomplete_reason)),
            Err(mut error) => Err(match error.take_receipt() {
                Some(receipt) => error.with_receipt(self.total.into_receipt(receipt, None)),
                None => error,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use mail_builder::MessageBuilder;
    use tokio::time::Instant;

    use super::*;
    use crate::error::Phase;
    use crate::{Message, Timeouts};

    #[tokio::test(start_paused = true)]
    async fn retry_delays_double_up_to_the_deadline() {
        let mail = MessageBuilder::new()
            .from("me@example.org")
            .to("you@example.com")
            .text_body("Hello.");
        let message = Message::from(mail).prepare().await.unwrap();
        let send = async |count, timeouts: &Timeouts, message: PreparedMessage| {
            let mut at = Vec::new();
            let attempt = |_| {
                at.push(Instant::now());
                let error = Error::new(ErrorKind::Connect, Phase::Connect, "no");
                std::future::ready(Err(error.with_receipt(Receipt::new("there"))))
            };
            let clock = Clock::start(timeouts);
            let result =
                super::send(&RetryPolicy::new(count), &clock, false, message, attempt).await;
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Connect);
            at.windows(2)
                .map(|pair| pair[1] - pair[0])
                .collect::<Vec<_>>()
        };
        let seconds = Duration::from_secs;
        let delays = send(8, &Timeouts::default(), message.try_clone().unwrap()).await;
        assert_eq!(delays.len(), 8);
        for (delay, shortest) in delays.into_iter().zip([1, 2, 4, 8, 16, 32, 60, 60]) {
            assert!(
                seconds(shortest) <= delay
                    && delay <= seconds(2 * shortest) + Duration::from_millis(1),
                "{delay:?}"
            );
        }
        // At most two seconds, then two to four, and no time for the next.
        let timeouts = Timeouts::default().with_deadline(seconds(7));
        let delays = send(8, &timeouts, message).await;
        assert!(
            delays.len() == 2 && delays.iter().sum::<Duration>() < seconds(7),
            "{delays:?}"
        );
    }
}
