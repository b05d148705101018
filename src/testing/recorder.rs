//! A [`Recorder`] keeps messages in memory.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::WaitError;
use super::arrivals::Arrivals;
use super::assertions::{assert_addresses, assert_contains, assert_message};
use crate::mailer::{Mailer, SendFuture, Submission};
use crate::message::PreparedMessage;
use crate::proto::Reply;
use crate::{
    Address, DeliveryOptions, Envelope, Error, ErrorKind, Message, Outcome, Phase, Receipt,
    Recipient,
};

/// A [`Mailer`] for tests: keeps messages in memory instead of sending them, and fails when it is
/// told to.
///
/// It uses no socket, so it is faster than a [`Server`](super::Server) and tests the program alone.
/// Use a server to test how connections are set up and lost. Messages are checked, repaired and
/// refused like those that are sent, and a recorded message has the bytes that would have left.
///
/// Clones share the messages and the failures: give one to the program and keep another.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> envoi::Result<()> {
/// use envoi::mail_builder::MessageBuilder;
/// use envoi::testing::Recorder;
/// use envoi::{Error, ErrorKind, Mailer, Phase};
///
/// /// The program under test.
/// async fn notify(mailer: &dyn Mailer) -> envoi::Result<()> {
///     let mail = MessageBuilder::new()
///         .from("alice@example.org")
///         .to("bob@example.com")
///         .bcc("archive@example.org")
///         .subject("Done")
///         .text_body("It is done.");
///     mailer.send(mail.into()).await.map(|_| ())
/// }
///
/// let recorder = Recorder::new();
/// notify(&recorder).await?;
/// let message = &recorder.messages()[0];
/// assert_eq!(message.envelope.recipients().len(), 2);
/// assert!(message.text().contains("Subject: Done\r\n"));
/// assert!(!message.text().contains("archive"));
///
/// recorder.fail_next(Error::new(ErrorKind::Connect, Phase::Connect, "no route to host"));
/// assert!(notify(&recorder).await.unwrap_err().is_transient());
/// assert_eq!(recorder.messages().len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    arrivals: Arrivals<RecordedMessage>,
}

#[derive(Default)]
struct State {
    /// The failures of the next messages.
    next_failures: VecDeque<Error>,
    /// The failure of all messages.
    failure: Option<Error>,
    refused: Vec<(Address, Reply)>,
}

/// A message that a [`Recorder`] took.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedMessage {
    /// The envelope, with the recipients for which the message was accepted.
    pub envelope: Envelope,
    /// The delivery options.
    pub delivery: DeliveryOptions,
    /// The whole message as it would have left: with CRLF line ends, without Bcc, without
    /// dot-stuffing.
    pub bytes: Bytes,
}

impl RecordedMessage {
    /// The message as text. Bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Takes the message apart: subject, texts, attachments (feature `testing-parse`).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> envoi::Result<()> {
    /// # use envoi::{mail_builder::MessageBuilder, testing::Recorder};
    /// let recorder = Recorder::new();
    /// let mail = MessageBuilder::new()
    ///     .from("me@example.org")
    ///     .to("alice@example.com")
    ///     .subject("Grüße")
    ///     .text_body("Hello.");
    /// recorder.send(mail).await?;
    /// let mail = recorder.messages()[0].parse();
    /// mail.assert_subject("Grüße");
    /// mail.assert_text("Hello.");
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "testing-parse")]
    pub fn parse(&self) -> super::ParsedMessage {
        super::ParsedMessage::new(&self.bytes)
    }

    /// Checks the recipients, as
    /// [`ReceivedMessage::assert_recipients`](super::ReceivedMessage::assert_recipients) does.
    ///
    /// # Panics
    ///
    /// If they differ.
    #[track_caller]
    pub fn assert_recipients<'a>(&self, expected: impl IntoIterator<Item = &'a str>) {
        let recipients = self.envelope.recipients().iter();
        assert_addresses(expected, recipients.map(|address| address.as_str()));
    }

    /// Checks that the message contains a text, as
    /// [`ReceivedMessage::assert_contains`](super::ReceivedMessage::assert_contains) does.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[track_caller]
    pub fn assert_contains(&self, text: &str) {
        assert_contains(&self.bytes, text);
    }

    /// Checks the whole message, as
    /// [`ReceivedMessage::assert_message`](super::ReceivedMessage::assert_message) does.
    ///
    /// # Panics
    ///
    /// If it differs.
    #[track_caller]
    pub fn assert_message(&self, expected: &str) {
        assert_message(&self.bytes, expected);
    }
}

impl Recorder {
    /// Creates a recorder that accepts every message.
    pub fn new() -> Self {
        Recorder::default()
    }

    /// Fails the next message with this error, and the one after it with that of the next call, and
    /// so on. The outcomes in the error's receipt follow from the error, unless it has a receipt.
    pub fn fail_next(&self, error: Error) {
        self.state().next_failures.push_back(error);
    }

    /// Fails every message with this error, until the call with `None`.
    pub fn fail_with(&self, error: impl Into<Option<Error>>) {
        self.state().failure = error.into();
    }

    /// Refuses a recipient with this reply, such as `550 5.1.1 No such user`, while the others are
    /// accepted. If all recipients of a message are refused, it fails.
    ///
    /// # Panics
    ///
    /// If the address or the reply is not valid, or the reply not negative.
    pub fn refuse_recipient(&self, address: &str, reply: &str) {
        let address = Address::new(address).unwrap_or_else(|error| panic!("{error}"));
        let reply: Reply = reply.parse().unwrap_or_else(|error| panic!("{error}"));
        assert!(reply.code() >= 400, "the reply {reply} refuses nothing");
        self.state().refused.push((address, reply));
    }

    /// The messages that were accepted, in order.
    pub fn messages(&self) -> Vec<RecordedMessage> {
        self.shared.arrivals.all()
    }

    /// Waits for the next message that this method has not returned yet.
    ///
    /// Waits without a limit: use `tokio::time::timeout` if the message may not arrive.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it loses no message.
    pub async fn next_message(&self) -> RecordedMessage {
        self.shared.arrivals.next().await
    }

    /// Waits until `n` messages have been accepted since the start or [`clear`](Self::clear), and
    /// returns all.
    ///
    /// # Errors
    ///
    /// They were not accepted within this time, by tokio's clock.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// # use envoi::{mail_builder::MessageBuilder, testing::Recorder};
    /// let recorder = Recorder::new();
    /// let mailer = recorder.clone();
    /// tokio::spawn(async move {
    ///     let mail = MessageBuilder::new()
    ///         .from("me@example.org")
    ///         .to("alice@example.com")
    ///         .text_body("Hello.");
    ///     mailer.send(mail).await
    /// });
    /// let messages = recorder.wait_for(1, Duration::from_secs(10)).await?;
    /// messages[0].assert_recipients(["alice@example.com"]);
    ///
    /// let error = recorder.wait_for(2, Duration::from_millis(10)).await.unwrap_err();
    /// assert_eq!(error.to_string(), "1 of 2 messages arrived within 10ms");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_for(
        &self,
        n: usize,
        timeout: Duration,
    ) -> Result<Vec<RecordedMessage>, WaitError> {
        self.shared.arrivals.wait_for(n, timeout, String::new).await
    }

    /// Removes all messages, also those that [`next_message`](Self::next_message) has not returned.
    /// Failures stay.
    pub fn clear(&self) {
        drop(self.shared.arrivals.take());
    }

    /// Keeps a message, unless it has to fail.
    ///
    /// # Errors
    ///
    /// The error that was set; [`ErrorKind::Refused`] if all recipients are refused; and as for
    /// [`Message::prepare`] and [`Body::chunk`](crate::Body::chunk).
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it keeps nothing, and uses up no failure.
    pub async fn send(&self, message: impl Into<Message<'_>>) -> crate::Result<Receipt> {
        let started = Instant::now();
        let PreparedMessage {
            envelope,
            delivery,
            mut body,
            ..
        } = message.into().prepare().await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = body.chunk().await {
            bytes.extend_from_slice(chunk?.bytes());
            body.report_progress(bytes.len() as u64, false);
        }
        let submission = Submission {
            server: "recorder".to_owned(),
            envelope: &envelope,
            started,
        };
        let mut accepted = Vec::new();
        let mut refused = Vec::new();
        {
            let mut state = self.state();
            let failure = state.next_failures.pop_front();
            if let Some(error) = failure.or_else(|| state.failure.clone()) {
                return Err(match error.receipt() {
                    Some(_) => error,
                    None => submission.failed(error, false),
                });
            }
            for (index, recipient) in envelope.recipients().iter().enumerate() {
                let key = recipient.mailbox_key();
                let is_it = |(address, _): &&(Address, Reply)| address.mailbox_key() == key;
                match state.refused.iter().find(is_it) {
                    None => accepted.push(recipient.clone()),
                    Some((_, reply)) => refused.push((index, reply.clone())),
                }
            }
        }
        if !accepted.is_empty()
            && let Err(error) = body.hand_over(&accepted, bytes.len() as u64).await
        {
            return Err(submission.failed(error, false));
        }
        body.report_progress(bytes.len() as u64, true);
        // Held until the message is kept: its number is used once.
        let _state = self.state();
        let number = self.shared.arrivals.len() + 1;
        let reply = format!("250 2.0.0 Ok: queued as R{number}");
        let mut receipt = submission.accepted(&reply, bytes.len() as u64);
        for (index, reply) in &refused {
            let recipient = &mut receipt.recipients[*index];
            let outcome = Outcome::Refused(reply.clone());
            *recipient = Recipient::new(recipient.address.clone(), outcome);
        }
        if accepted.is_empty()
            && let Some((_, reply)) = refused.pop()
        {
            (receipt.reply, receipt.bytes, receipt.handed_over) = (None, 0, false);
            let message = "the server accepted no recipient";
            let error = Error::new(ErrorKind::Refused, Phase::Rcpt, message);
            return Err(error.with_reply(reply).with_receipt(receipt));
        }
        self.shared.arrivals.push(RecordedMessage {
            envelope: Envelope::new(envelope.reverse_path().cloned(), accepted)?,
            delivery,
            bytes: bytes.into(),
        });
        Ok(receipt)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is never left half-written. A failed test must not make others fail.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("messages", &self.shared.arrivals.len())
            .field("failure", &self.state().failure)
            .finish_non_exhaustive()
    }
}

impl Mailer for Recorder {
    fn send<'a>(&'a self, message: Message<'a>) -> SendFuture<'a> {
        Box::pin(Recorder::send(self, message))
    }
}
