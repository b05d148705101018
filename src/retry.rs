//! Trying again what failed for a passing reason: when, how often, and for whom.
//!
//! How a message is sent once, [`send`] is told; it knows outcomes, no connection. The delays are
//! backon's.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::time::sleep;

use crate::Envelope;
use crate::connection::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Body;
use crate::proto::Transcript;
use crate::receipt::{Outcome, Receipt, Recipient};

/// How often a [`Client`](crate::Client) sends a message again that failed for a reason that may
/// pass: no connection, a connection that was lost or a time limit that was reached before the
/// message was handed over, a 4xx reply.
///
/// It goes to those recipients alone who may get it [later](crate::Recipient::is_transient), as the
/// same message to the byte: each recipient's own reason counts, by the last attempt for it. So a
/// login that is refused for good ends the attempts, also where some have the message, and where
/// some recipients were refused for good, the others are tried again. It never goes to a recipient
/// whose outcome is [unknown](crate::Error::outcome_unknown). A message with a stream in it can be
/// read once only, and is not sent again, nor is any by a pool that was
/// [closed](crate::ErrorKind::PoolClosed). No delay goes beyond the
/// [deadline](crate::Timeouts::deadline); it is the only limit that spans all attempts.
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
    /// How often at most, after the first attempt.
    pub max_retries: usize,
    /// The delay before the first of them; 1 second by default. Each is twice as long as the one
    /// before, and as much again at most is added by chance, so that many clients do not come back
    /// at once.
    pub initial_backoff: Duration,
    /// No delay is longer, but for what is added by chance; 1 minute by default.
    pub max_backoff: Duration,
}

impl RetryPolicy {
    /// So many at most, after 1 second, 2, 4 … and some more by chance.
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

/// Sends a message, and again for as long as there is somebody left who may get it.
pub(crate) async fn send<F: Future<Output = Result<Receipt>>>(
    retries: &RetryPolicy,
    clock: &Clock,
    all_or_nothing: bool,
    envelope: Envelope,
    mut body: Body,
    mut attempt: impl FnMut(Envelope, Body) -> F,
) -> Result<Receipt> {
    let mut story = RetryState::new(&envelope);
    let mut delays = retries.delays();
    loop {
        let again = body.restart();
        let to = envelope.only(&story.asked);
        let result = story.record(attempt(to, body).await);
        let left = story.left(all_or_nothing);
        let stays = result
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::PoolClosed);
        let delay = delays
            .next()
            .filter(|delay| !left.is_empty() && !stays && clock.has_time_for(*delay));
        let (Some(delay), Some(again)) = (delay, again) else {
            return story.end(result);
        };
        story.keep_unknown(result);
        sleep(delay).await;
        (story.asked, body) = (left, again);
    }
}

/// What came of all attempts together.
struct RetryState {
    /// In the order of the whole envelope.
    recipients: Vec<Recipient>,
    /// To whom the message goes now, by their numbers.
    asked: Vec<usize>,
    attempts: u32,
    round_trips: u32,
    transactions: u32,
    transcript: Transcript,
    /// Of the last attempt in which the message was accepted for somebody.
    accepted: Option<Receipt>,
    /// Of the first attempt after which the outcome was unknown for some recipient.
    unknown: Option<Error>,
    /// Why the last attempt did not come to all of its recipients.
    incomplete_reason: Option<String>,
}

impl RetryState {
    fn new(envelope: &Envelope) -> Self {
        RetryState {
            recipients: envelope
                .recipients()
                .iter()
                .cloned()
                .map(Recipient::untried)
                .collect(),
            asked: (0..envelope.recipients().len()).collect(),
            attempts: 0,
            round_trips: 0,
            transactions: 0,
            transcript: Transcript::default(),
            accepted: None,
            unknown: None,
            incomplete_reason: None,
        }
    }

    /// Takes what is new out of a result.
    fn record(&mut self, result: Result<Receipt>) -> Result<Receipt> {
        self.attempts += 1;
        match result {
            Ok(mut receipt) => {
                self.incomplete_reason = receipt.incomplete_reason.clone();
                self.keep(&mut receipt);
                self.accepted = Some(receipt.clone());
                Ok(receipt)
            }
            Err(mut error) => {
                // Unless the receipt says otherwise of a recipient.
                self.asked
                    .iter()
                    .for_each(|index| self.recipients[*index].transient = error.is_transient());
                let Some(mut receipt) = error.take_receipt() else {
                    self.incomplete_reason = Some(error.to_string());
                    return Err(error);
                };
                let untried = |recipient: &Recipient| recipient.outcome == Outcome::NotTried;
                self.incomplete_reason = receipt
                    .recipients
                    .iter()
                    .any(untried)
                    .then(|| error.to_string());
                self.keep(&mut receipt);
                Err(error.with_receipt(receipt))
            }
        }
    }

    fn keep(&mut self, receipt: &mut Receipt) {
        for (&index, recipient) in self.asked.iter().zip(&receipt.recipients) {
            self.recipients[index].update(recipient.clone());
        }
        self.round_trips += receipt.round_trips;
        self.transactions += receipt.transactions;
        receipt.transcript.precede(&self.transcript);
        self.transcript = receipt.transcript.clone();
    }

    /// Another attempt follows for others, and does not change that an outcome is unknown.
    fn keep_unknown(&mut self, result: Result<Receipt>) {
        if let Err(error) = result
            && error.outcome_unknown()
        {
            self.unknown.get_or_insert(error);
        }
    }

    /// Those for whom another attempt may do, by their numbers.
    fn left(&self, all_or_nothing: bool) -> Vec<usize> {
        let is_final =
            |recipient: &Recipient| !recipient.outcome.is_accepted() && !recipient.is_transient();
        if all_or_nothing && self.recipients.iter().any(is_final) {
            return Vec::new();
        }
        (0..self.recipients.len())
            .filter(|index| self.recipients[*index].is_transient())
            .collect()
    }

    /// What is told of all attempts: that the outcome is unknown for some, or that some have the
    /// message, whatever became of the others, or the last failure.
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
            Ok(mut receipt) => {
                receipt.incomplete_reason = self.incomplete_reason.take();
                Ok(self.complete(receipt))
            }
            Err(mut error) => Err(match error.take_receipt() {
                Some(receipt) => error.with_receipt(self.complete(receipt)),
                None => error,
            }),
        }
    }

    fn complete(self, mut receipt: Receipt) -> Receipt {
        receipt.recipients = self.recipients;
        receipt.round_trips = self.round_trips;
        receipt.transactions = self.transactions;
        receipt.transcript = self.transcript;
        receipt
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
        let (envelope, body) = Message::from(mail).prepare().await.unwrap();
        let send = async |count, timeouts: &Timeouts, body: Body| {
            let mut at = Vec::new();
            let attempt = |_, _| {
                at.push(Instant::now());
                let error = Error::new(ErrorKind::Connect, Phase::Connect, "no");
                std::future::ready(Err(error.with_receipt(Receipt::nothing_sent("there"))))
            };
            let clock = Clock::start(timeouts);
            let result = super::send(
                &RetryPolicy::new(count),
                &clock,
                false,
                envelope.clone(),
                body,
                attempt,
            )
            .await;
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Connect);
            at.windows(2)
                .map(|pair| pair[1] - pair[0])
                .collect::<Vec<_>>()
        };
        let seconds = Duration::from_secs;
        let delays = send(8, &Timeouts::default(), body.restart().unwrap()).await;
        assert_eq!(delays.len(), 8);
        for (delay, shortest) in delays.into_iter().zip([1, 2, 4, 8, 16, 32, 60, 60]) {
            assert!(
                seconds(shortest) <= delay
                    && delay <= seconds(2 * shortest) + Duration::from_millis(1),
                "{delay:?}"
            );
        }
        // Two seconds at most, then two to four, and no time for the next.
        let timeouts = Timeouts::default().with_deadline(seconds(7));
        let delays = send(8, &timeouts, body).await;
        assert!(
            delays.len() == 2 && delays.iter().sum::<Duration>() < seconds(7),
            "{delays:?}"
        );
    }
}
