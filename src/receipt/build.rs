//! Builds a [`Receipt`] from facts about the session, the delivery and the effort. A new field goes
//! into one of these three, which the connection or the submission fills in; [`Attempts`] decides
//! what it is for a message that was retried.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{PlaintextReason, Receipt, Recipient};
use crate::Address;
use crate::proto::{Mechanism, Reply, Transcript};
use crate::receipt::TlsInfo;

/// What is known of a session, for the receipts of its messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionInfo {
    pub(crate) server: String,
    pub(crate) tls: Option<Arc<TlsInfo>>,
    pub(crate) plaintext_reason: Option<PlaintextReason>,
    pub(crate) local_address: Option<IpAddr>,
    pub(crate) mechanism: Option<Mechanism>,
}

/// What the server decided about a message.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) reply: Option<Reply>,
    pub(crate) incomplete_reason: Option<String>,
    pub(crate) transactions: u32,
    pub(crate) handed_over: bool,
    pub(crate) bytes: u64,
}

/// What sending a message took.
#[derive(Debug, Default)]
pub(crate) struct Effort {
    pub(crate) round_trips: u32,
    pub(crate) elapsed: Duration,
    pub(crate) transcript: Transcript,
}

impl From<Receipt> for SessionInfo {
    fn from(receipt: Receipt) -> Self {
        SessionInfo {
            server: receipt.server,
            tls: receipt.tls,
            plaintext_reason: receipt.plaintext_reason,
            local_address: receipt.local_address,
            mechanism: receipt.mechanism,
        }
    }
}

impl Delivery {
    /// The delivery of a message for which there was no session.
    pub(crate) fn untried(recipients: &[Address], transient: bool, reply: Option<Reply>) -> Self {
        let untried = |address: &Address| Recipient {
            transient,
            ..Recipient::untried(address.clone())
        };
        Delivery {
            recipients: recipients.iter().map(untried).collect(),
            reply,
            ..Delivery::default()
        }
    }
}

impl Receipt {
    pub(crate) fn build(session: &SessionInfo, delivery: Delivery, effort: Effort) -> Self {
        let SessionInfo {
            server,
            tls,
            plaintext_reason,
            local_address,
            mechanism,
        } = session.clone();
        let Delivery {
            recipients,
            reply,
            incomplete_reason,
            transactions,
            handed_over,
            bytes,
        } = delivery;
        let Effort {
            round_trips,
            elapsed,
            transcript,
        } = effort;
        Receipt {
            server,
            recipients,
            reply,
            incomplete_reason,
            transactions,
            handed_over,
            tls,
            plaintext_reason,
            local_address,
            mechanism,
            bytes,
            round_trips,
            elapsed,
            transcript,
        }
    }

    /// The receipt of a message that was not sent yet to any recipient. Programs need it only to
    /// test how they handle receipts; the fields are public.
    ///
    /// ```
    /// use envoi::{Address, Outcome, Receipt, Recipient};
    ///
    /// /// The code under test.
    /// fn bounced(receipt: &Receipt) -> Vec<&str> {
    ///     let refused = |recipient: &&Recipient| matches!(recipient.outcome, Outcome::Refused(_));
    ///     receipt.recipients.iter().filter(refused).map(|r| r.address.as_str()).collect()
    /// }
    ///
    /// let mut receipt = Receipt::new("mail.example.org");
    /// for (address, outcome) in [
    ///     ("alice@example.com", Outcome::Accepted("250 2.1.5 Ok".parse()?)),
    ///     ("bob@example.com", Outcome::Refused("550 5.1.1 No such user".parse()?)),
    /// ] {
    ///     receipt.recipients.push(Recipient::new(Address::new(address)?, outcome));
    /// }
    /// assert_eq!(bounced(&receipt), ["bob@example.com"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(server: impl Into<String>) -> Self {
        let session = SessionInfo {
            server: server.into(),
            ..SessionInfo::default()
        };
        Receipt::build(&session, Delivery::default(), Effort::default())
    }

    /// The receipt of a session that failed before it was ready, as that of a message that was to
    /// be sent in it.
    pub(crate) fn with_untried(mut self, untried: Delivery) -> Self {
        self.recipients = untried.recipients;
        self.reply = untried.reply;
        self
    }

    /// The time from the call to its end, at the end of the call.
    pub(crate) fn with_elapsed(mut self, elapsed: Duration) -> Self {
        self.elapsed = elapsed;
        self
    }
}

/// All attempts to send one message, added up.
#[cfg(feature = "retries")]
pub(crate) struct Attempts {
    /// In the order of the whole envelope.
    pub(crate) recipients: Vec<Recipient>,
    transactions: u32,
    handed_over: bool,
    round_trips: u32,
    transcript: Transcript,
}

#[cfg(feature = "retries")]
impl Attempts {
    pub(crate) fn new(recipients: &[Address]) -> Self {
        Attempts {
            recipients: recipients.iter().cloned().map(Recipient::untried).collect(),
            transactions: 0,
            handed_over: false,
            round_trips: 0,
            transcript: Transcript::default(),
        }
    }

    /// Adds an attempt for the recipients with these indices.
    pub(crate) fn add(&mut self, recipients: &[usize], attempt: &Receipt) {
        for (&index, recipient) in recipients.iter().zip(&attempt.recipients) {
            self.recipients[index].update(recipient.clone());
        }
        self.round_trips += attempt.round_trips;
        self.transactions += attempt.transactions;
        self.handed_over |= attempt.handed_over;
        let mut transcript = attempt.transcript.clone();
        transcript.precede(&self.transcript);
        self.transcript = transcript;
    }

    /// The receipt of all attempts, by that of the attempt that decided the result.
    pub(crate) fn into_receipt(
        self,
        decisive: Receipt,
        incomplete_reason: Option<String>,
    ) -> Receipt {
        let Attempts {
            recipients,
            transactions,
            handed_over,
            round_trips,
            transcript,
        } = self;
        // In full, so that a new field is either summed or taken from the decisive attempt.
        let Receipt {
            server,
            recipients: _,
            reply,
            incomplete_reason: _,
            transactions: _,
            handed_over: _,
            tls,
            plaintext_reason,
            local_address,
            mechanism,
            bytes,
            round_trips: _,
            elapsed,
            transcript: _,
        } = decisive;
        Receipt {
            server,
            recipients,
            reply,
            incomplete_reason,
            transactions,
            handed_over,
            tls,
            plaintext_reason,
            local_address,
            mechanism,
            bytes,
            round_trips,
            elapsed,
            transcript,
        }
    }
}
