//! The result of sending a message: the [`Receipt`], with an outcome for each recipient.

mod build;
mod certificate;
mod expiry;
mod plaintext;
mod queue_id;
#[cfg(feature = "serde")]
mod serialize;
mod tls;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::Address;
use crate::proto::{Mechanism, Reply, Transcript};

#[cfg(feature = "retries")]
pub(crate) use build::Attempts;
pub(crate) use build::{Delivery, Effort, SessionInfo};
pub use certificate::Certificate;
pub use expiry::{CertificateUse, UsedCertificate};
#[cfg(feature = "tracing")]
pub(crate) use expiry::{expires_soon, validity};
pub use plaintext::PlaintextReason;
pub use tls::{CertificateFailure, CertificateProblem, TlsInfo};

/// The result of sending a message: an outcome for each recipient, and how the message was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a message that was accepted for one recipient may have been refused for another: \
    look at `recipients`"]
#[non_exhaustive]
pub struct Receipt {
    /// The host that was connected to, as it was given.
    pub server: String,
    /// The outcome for each recipient of the envelope, in order.
    pub recipients: Vec<Recipient>,
    /// The server's final reply to the message, which usually contains its queue id. For LMTP, the
    /// last positive reply; for a message sent in several transactions, the last transaction's.
    /// [Each recipient](Recipient::final_reply) has its own.
    pub reply: Option<Reply>,
    /// Why the message was not sent to all recipients although it was accepted for some: the
    /// session ended between two [transactions](Self::transactions), or the server accepts fewer
    /// recipients at once and the message is read from a stream, which cannot be sent again.
    pub incomplete_reason: Option<String>,
    /// The number of transactions (MAIL) that were used for the message, each with its own
    /// recipients and a copy of the message. It is 1 unless the server accepts fewer recipients at
    /// once than the message has, which it announces in advance (LIMITS, RFC 9422) or by 452 or 552
    /// to RCPT (RFC 5321, 4.5.3.1.10; see [`Connection::send`](crate::Connection::send)). Includes
    /// all attempts if the message was retried; 0 if none was started.
    pub transactions: u32,
    /// Whether the message was handed over in a transaction: the callback of
    /// [`Message::on_handover`](crate::Message::on_handover) permitted it or, without a callback,
    /// the whole message was given to the connection. If not, no server has the message, and no
    /// retry can duplicate it.
    pub handed_over: bool,
    /// What protected the connection; `None` for plaintext, and if no connection was made. Of a
    /// message that was sent over several connections, what protected the last one. Shared by the
    /// receipts of a session.
    pub tls: Option<Arc<TlsInfo>>,
    /// Why an opportunistic connection is not encrypted.
    pub plaintext_reason: Option<PlaintextReason>,
    /// The address of this machine from which it was connected. `None` where it is not that which
    /// the server sees, or is not known: through a proxy, by a Unix socket, over a
    /// [stream](crate::Connection::from_stream) of the caller, and if no connection was made.
    pub local_address: Option<IpAddr>,
    /// The SASL mechanism of the login, if there was one.
    pub mechanism: Option<Mechanism>,
    /// The bytes of the message that were sent, without dot-stuffing and the final dot; of a
    /// message in several transactions, those of the last one. If sending failed before the end of
    /// the message, up to 256 KiB of them may not have left.
    pub bytes: u64,
    /// The number of times that sending had to wait for the server: for this message alone on a
    /// [`Connection`](crate::Connection) that is kept open by the caller or a pool, otherwise since
    /// the greeting.
    pub round_trips: u32,
    /// The duration of the call.
    pub elapsed: Duration,
    /// The dialogue on the connection so far, without secrets.
    pub transcript: Transcript,
}

impl Receipt {
    /// Whether the message was accepted for every recipient.
    pub fn all_accepted(&self) -> bool {
        self.recipients
            .iter()
            .all(|recipient| recipient.outcome.is_accepted())
    }

    /// The recipients that the message was not accepted for, for any reason.
    pub fn not_accepted(&self) -> impl Iterator<Item = &Recipient> {
        self.recipients
            .iter()
            .filter(|recipient| !recipient.outcome.is_accepted())
    }

    /// The id under which the server queued the message, from its final [reply](Self::reply), for
    /// logs and for questions to the server's administrator. `None` if the reply is not of a known
    /// form.
    ///
    /// There is no standard for the position of the id. The replies of Postfix, Exim, Sendmail,
    /// qmail, OpenSMTPD, Dovecot and Exchange, and of Gmail, Microsoft 365 and Amazon SES are
    /// known.
    pub fn queue_id(&self) -> Option<&str> {
        self.reply.as_ref().and_then(queue_id::in_reply)
    }
}

/// A recipient and the outcome for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recipient {
    /// The address as it was given.
    pub address: Address,
    /// The outcome.
    pub outcome: Outcome,
    /// The server's final reply to the message, if it was accepted for this recipient. It is the
    /// same for all recipients, unless the server replies for each (LMTP, PRDR), or the message was
    /// sent in several transactions because the server accepts fewer recipients at once (LIMITS,
    /// RFC 9422).
    pub final_reply: Option<Reply>,
    /// The result of [`is_transient`](Self::is_transient).
    pub(crate) transient: bool,
    pub(crate) hint: Option<Cow<'static, str>>,
}

impl Recipient {
    /// A recipient with its outcome. A refusal with 4xx is [transient](Self::is_transient).
    pub fn new(address: Address, outcome: Outcome) -> Self {
        let transient = matches!(&outcome, Outcome::Refused(reply) if reply.is_transient());
        Recipient {
            address,
            outcome,
            final_reply: None,
            transient,
            hint: None,
        }
    }

    /// A recipient that the server has not been told about.
    pub(crate) fn untried(address: Address) -> Self {
        Recipient {
            address,
            outcome: Outcome::NotTried,
            final_reply: None,
            transient: false,
            hint: None,
        }
    }

    /// Whether the message may reach this recipient later: it was refused with 4xx, or it was not
    /// tried for a transient reason, such as a lost connection. A 552 that only means that the
    /// transaction has enough recipients counts as 452 (RFC 5321, 4.5.3.1.10). Never true if the
    /// message was accepted or the outcome is unknown.
    ///
    /// Each recipient has its own reason. [`Error::is_transient`](crate::Error::is_transient) is
    /// about one of them.
    pub fn is_transient(&self) -> bool {
        self.transient
    }

    /// Merges the outcome in another transaction. If the recipient was not tried there, an earlier
    /// refusal is kept, but whether it may be retried is updated.
    pub(crate) fn update(&mut self, later: Recipient) {
        match later.outcome {
            Outcome::NotTried => self.transient = later.transient,
            _ => *self = later,
        }
    }

    /// What to do if the message was not accepted for this recipient.
    /// [`Error::hint`](crate::Error::hint) is the same if all recipients were refused.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// The outcome of a message for a recipient.
///
/// The enum is exhaustive on purpose: SMTP has no fifth outcome, and a program that handles these
/// four handles all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "only an accepted recipient will get the message"]
pub enum Outcome {
    /// The server accepted responsibility for delivery (RFC 5321, 6.1). The reply is the one to
    /// RCPT, or the one to the message if the server replies for each recipient (LMTP, PRDR).
    Accepted(Reply),
    /// The server refused the recipient, or the message after it had accepted the recipient; of a
    /// message in several transactions, this recipient's transaction.
    Refused(Reply),
    /// The whole message was sent and no final reply arrived: it may have been delivered or not.
    Unknown,
    /// Not attempted: the session or transaction ended first.
    NotTried,
}

impl Outcome {
    /// Sets the outcome to `Unknown` unless the recipient was refused.
    pub(crate) fn become_unknown(&mut self) {
        if !matches!(self, Outcome::Refused(_)) {
            *self = Outcome::Unknown;
        }
    }

    /// Whether the server accepted the message for this recipient.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Outcome::Accepted(_))
    }
}
