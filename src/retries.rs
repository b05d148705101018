//! Trying again what failed for a passing reason: when, how often, and for whom.
//!
//! How a message is sent once, [`send`] is told; it knows outcomes, no connection. The delays are backon's.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::time::sleep;

use crate::Envelope;
use crate::error::Result;
use crate::message::Body;
use crate::proto::Transcript;
use crate::receipt::{Outcome, Receipt, Recipient};
use crate::timeouts::Clock;

/// How often a [`Client`](crate::Client) sends a message again that failed for a reason that may pass: no connection, a connection that was lost
/// or a time limit that was reached before the message was handed over, a 4xx reply.
///
/// It goes to those recipients alone for whom it was neither accepted nor refused for good, as the same message to the byte. A message
/// whose outcome is [unknown](crate::Error::outcome_unknown) is never sent again, nor is one with a stream in it, which can be read once only. No delay goes
/// beyond the [deadline](crate::Timeouts::deadline); it is the only limit that spans all attempts.
///
/// ```
/// use envoi::{Client, Retries};
///
/// # fn example() -> envoi::Result<()> {
/// let client = Client::from_url("smtp://mail.example.org")?.retries(Retries::new(3));
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retries {
    /// How often at most, after the first attempt.
    pub count: usize,
    /// The delay before the first of them; 1 second by default. Each is twice as long as the one before, and as much again at most is
    /// added by chance, so that many clients do not come back at once.
    pub first_delay: Duration,
    /// No delay is longer, but for what is added by chance; 1 minute by default.
    pub longest_delay: Duration,
}

impl Retries {
    /// So many at most, after 1 second, 2, 4 … and some more by chance.
    pub fn new(count: usize) -> Self {
        Retries { count, first_delay: Duration::from_secs(1), longest_delay: Duration::from_secs(60) }
    }

    fn delays(&self) -> impl Iterator<Item = Duration> {
        ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(self.first_delay)
            .with_max_delay(self.longest_delay)
            .with_max_times(self.count)
            .build()
    }
}

/// Sends a message, and again for as long as there is somebody left who may get it.
pub(crate) async fn send<F: Future<Output = Result<Receipt>>>(
    retries: &Retries,
    clock: &Clock,
    all_or_nothing: bool,
    envelope: Envelope,
    mut body: Body,
    mut attempt: impl FnMut(Envelope, Body) -> F,
) -> Result<Receipt> {
    let mut story = Story::new(&envelope);
    let mut delays = retries.delays();
    loop {
        let again = body.restart();
        let to = envelope.only(&story.asked);
        let result = story.tell(attempt(to, body).await);
        let left = story.left(&result, all_or_nothing);
        let delay = delays.next().filter(|delay| !left.is_empty() && clock.has_time_for(*delay));
        let (Some(delay), Some(again)) = (delay, again) else {
            return story.end(result);
        };
        sleep(delay).await;
        (story.asked, body) = (left, again);
    }
}

/// What came of all attempts together.
struct Story {
    /// In the order of the whole envelope.
    recipients: Vec<Recipient>,
    /// To whom the message goes now, by their numbers.
    asked: Vec<usize>,
    attempts: u32,
    round_trips: u32,
    transcript: Transcript,
    /// Of the last attempt in which the message was accepted for somebody.
    accepted: Option<Receipt>,
}

impl Story {
    fn new(envelope: &Envelope) -> Self {
        Story {
            recipients: envelope.recipients().iter().cloned().map(Recipient::untried).collect(),
            asked: (0..envelope.recipients().len()).collect(),
            attempts: 0,
            round_trips: 0,
            transcript: Transcript::default(),
            accepted: None,
        }
    }

    /// Takes what is new out of a result.
    fn tell(&mut self, result: Result<Receipt>) -> Result<Receipt> {
        self.attempts += 1;
        match result {
            Ok(mut receipt) => {
                self.keep(&mut receipt);
                self.accepted = Some(receipt.clone());
                Ok(receipt)
            }
            Err(mut error) => {
                let Some(mut receipt) = error.take_receipt() else { return Err(error) };
                self.keep(&mut receipt);
                Err(error.with_receipt(receipt))
            }
        }
    }

    fn keep(&mut self, receipt: &mut Receipt) {
        for (&index, recipient) in self.asked.iter().zip(&receipt.recipients) {
            // An earlier refusal says more than that it did not come to this recipient again.
            if recipient.outcome != Outcome::NotTried {
                self.recipients[index] = recipient.clone();
            }
        }
        self.round_trips += receipt.round_trips;
        receipt.transcript.precede(&self.transcript);
        self.transcript = receipt.transcript.clone();
    }

    /// Those for whom another attempt may do, by their numbers.
    fn left(&self, result: &Result<Receipt>, all_or_nothing: bool) -> Vec<usize> {
        let (unknown, passing) = match result {
            Err(error) => (error.outcome_unknown(), error.is_transient()),
            Ok(_) => (false, false),
        };
        let may_do = |outcome: &Outcome| match outcome {
            Outcome::Refused(reply) => reply.is_transient(),
            Outcome::NotTried => passing,
            Outcome::Accepted(_) | Outcome::Unknown => false,
        };
        let for_good = |outcome: &Outcome| matches!(outcome, Outcome::Refused(reply) if !reply.is_transient());
        if unknown || (all_or_nothing && self.recipients.iter().any(|recipient| for_good(&recipient.outcome))) {
            return Vec::new();
        }
        (0..self.recipients.len()).filter(|index| may_do(&self.recipients[*index].outcome)).collect()
    }

    fn end(self, result: Result<Receipt>) -> Result<Receipt> {
        let result = match (result, self.accepted) {
            // Some have it, whatever became of the others.
            (Err(error), Some(receipt)) if !error.outcome_unknown() => Ok(receipt),
            (result, _) => result,
        };
        let complete = |mut receipt: Receipt| {
            receipt.recipients = self.recipients;
            receipt.round_trips = self.round_trips;
            receipt.transcript = self.transcript;
            receipt
        };
        match result {
            Ok(receipt) => Ok(complete(receipt)),
            Err(mut error) => {
                let receipt = error.take_receipt().map(complete);
                let error = match self.attempts {
                    1 => error,
                    attempts => error.about(format_args!("at the last of {attempts} attempts")),
                };
                Err(match receipt {
                    Some(receipt) => error.with_receipt(receipt),
                    None => error,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mail_builder::MessageBuilder;
    use tokio::time::Instant;

    use super::*;
    use crate::error::{Error, Kind, Phase};
    use crate::{Message, Timeouts};

    #[tokio::test(start_paused = true)]
    async fn delays_double_and_end_with_the_deadline() {
        let mail = MessageBuilder::new().from("me@example.org").to("you@example.com").text_body("Hello.");
        let (envelope, body) = Message::from(mail).prepare().await.unwrap();
        let send = async |count, timeouts: &Timeouts, body: Body| {
            let mut at = Vec::new();
            let attempt = |_, _| {
                at.push(Instant::now());
                let error = Error::new(Kind::Connect, Phase::Connect, "no");
                std::future::ready(Err(error.with_receipt(Receipt::nothing_sent("there"))))
            };
            let clock = Clock::start(timeouts);
            let result = super::send(&Retries::new(count), &clock, false, envelope.clone(), body, attempt).await;
            assert_eq!(result.unwrap_err().kind(), Kind::Connect);
            at.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()
        };
        let seconds = Duration::from_secs;
        let delays = send(8, &Timeouts::default(), body.restart().unwrap()).await;
        assert_eq!(delays.len(), 8);
        for (delay, shortest) in delays.into_iter().zip([1, 2, 4, 8, 16, 32, 60, 60]) {
            assert!(
                seconds(shortest) <= delay && delay <= seconds(2 * shortest) + Duration::from_millis(1),
                "{delay:?}"
            );
        }
        // Two seconds at most, then two to four, and no time for the next.
        let timeouts = Timeouts::default().with_deadline(seconds(7));
        let delays = send(8, &timeouts, body).await;
        assert!(delays.len() == 2 && delays.iter().sum::<Duration>() < seconds(7), "{delays:?}");
    }
}
