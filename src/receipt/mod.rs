//! What became of a message: the [`Receipt`], with an outcome for each recipient.

mod certificate;
mod tls;

use std::borrow::Cow;
use std::time::Duration;

use crate::Address;
use crate::proto::{Mechanism, Reply, Transcript};

pub use certificate::Certificate;
pub use tls::{CertificateFailure, CertificateProblem, TlsInfo};

/// What became of one message: per recipient, and how it travelled.
#[derive(Clone, Debug)]
#[must_use = "a message that was accepted for one recipient may have been refused for another: \
    look at `recipients`"]
#[non_exhaustive]
pub struct Receipt {
    /// The host that was connected to, as it was asked for.
    pub server: String,
    /// The outcome for each recipient of the envelope, in its order.
    pub recipients: Vec<Recipient>,
    /// The server's final words on the message; its queue id is usually in them. In LMTP the last
    /// ones that took it for somebody; of a message that went in several parts, those on the last
    /// one. [Each recipient](Recipient::final_reply) has its own.
    pub reply: Option<Reply>,
    /// Why the message was not sent to all recipients that may get it, though it was accepted for
    /// some: the session ended between two [transactions](Self::transactions), or the server takes
    /// fewer recipients at once and the message, read from a stream, cannot be sent again.
    pub incomplete_reason: Option<String>,
    /// The number of transactions (MAIL) that the message took, each with recipients of its own and
    /// a copy of the message: 1, unless the server takes fewer recipients at once than the message
    /// has. It says so beforehand (LIMITS, RFC 9422), or by 452 or 552 to RCPT (RFC 5321,
    /// 4.5.3.1.10; [`Connection::send`](crate::Connection::send) has the rule). Of all attempts,
    /// where it was sent again; 0 where none began.
    pub transactions: u32,
    /// What protected the connection; `None` where it was plaintext.
    pub tls: Option<TlsInfo>,
    /// Why an opportunistic connection is not encrypted.
    pub plaintext_reason: Option<String>,
    /// The SASL mechanism that logged in, if any did.
    pub mechanism: Option<Mechanism>,
    /// Bytes of the message as it went, without dot-stuffing and the final dot.
    pub bytes: u64,
    /// How often the sender had to wait for the server: for this message alone on a
    /// [`Connection`](crate::Connection) that is kept, by the caller or a pool, else from the
    /// greeting on.
    pub round_trips: u32,
    /// From the call to its end.
    pub elapsed: Duration,
    /// What was said on the connection so far, without secrets.
    pub transcript: Transcript,
}

impl Receipt {
    /// Of a session that has just begun.
    pub(crate) fn nothing_sent(server: &str) -> Self {
        Receipt {
            server: server.to_owned(),
            recipients: Vec::new(),
            reply: None,
            incomplete_reason: None,
            transactions: 0,
            tls: None,
            plaintext_reason: None,
            mechanism: None,
            bytes: 0,
            round_trips: 0,
            elapsed: Duration::ZERO,
            transcript: Transcript::default(),
        }
    }

    /// The message was accepted for every recipient.
    pub fn all_accepted(&self) -> bool {
        self.recipients
            .iter()
            .all(|recipient| recipient.outcome.is_accepted())
    }

    /// The recipients that the message was not accepted for, whatever the reason.
    pub fn not_accepted(&self) -> impl Iterator<Item = &Recipient> {
        self.recipients
            .iter()
            .filter(|recipient| !recipient.outcome.is_accepted())
    }
}

/// One recipient and what became of the message for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recipient {
    /// The address as it was given.
    pub address: Address,
    /// What became of it.
    pub outcome: Outcome,
    /// The server's final words on the message for a recipient that it was accepted for: the same
    /// for all, unless the server answers for each (LMTP, PRDR), or the message went in several
    /// parts, as the server takes fewer recipients at once (LIMITS, RFC 9422).
    pub final_reply: Option<Reply>,
    /// What [`is_transient`](Self::is_transient) tells.
    pub(crate) transient: bool,
    pub(crate) hint: Option<Cow<'static, str>>,
}

impl Recipient {
    /// Before the server was asked.
    pub(crate) fn untried(address: Address) -> Self {
        Recipient {
            address,
            outcome: Outcome::NotTried,
            final_reply: None,
            transient: false,
            hint: None,
        }
    }

    /// The message may reach this recipient later: it was refused with 4xx, or was not tried for a
    /// reason that may pass, such as a lost connection. A 552 that only says that the transaction
    /// had enough recipients counts as 452 (RFC 5321, 4.5.3.1.10). Never true where the message was
    /// accepted or the outcome is unknown.
    ///
    /// Each recipient has a reason of its own. [`Error::is_transient`](crate::Error::is_transient)
    /// is about one of them.
    pub fn is_transient(&self) -> bool {
        self.transient
    }

    /// What another transaction told of this recipient. That it did not come to the recipient says
    /// less than an earlier refusal, except of whether another attempt may do.
    pub(crate) fn update(&mut self, later: Recipient) {
        match later.outcome {
            Outcome::NotTried => self.transient = later.transient,
            _ => *self = later,
        }
    }

    /// What to do where the message was not accepted for this recipient, as
    /// [`Error::hint`](crate::Error::hint) says it where all recipients were refused.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// What became of a message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "only an accepted recipient will get the message"]
pub enum Outcome {
    /// The server took the responsibility for delivery (RFC 5321, 6.1); the reply is the one to
    /// RCPT, or, where the server answers to the message for each recipient (LMTP, PRDR), that
    /// answer.
    Accepted(Reply),
    /// The server refused: the recipient, or the message after it had accepted the recipient, or,
    /// of a message in several parts, this part.
    Refused(Reply),
    /// The message was handed over whole and no final reply came: it may have been delivered, or
    /// not.
    Unknown,
    /// It did not come to this recipient: the session or the transaction ended before.
    NotTried,
}

impl Outcome {
    /// Unless the recipient was refused, nobody knows.
    pub(crate) fn become_unknown(&mut self) {
        if !matches!(self, Outcome::Refused(_)) {
            *self = Outcome::Unknown;
        }
    }

    /// The server took the message for this recipient.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Outcome::Accepted(_))
    }
}
