//! What the machine reports.

use super::{ExchangeFault, Phase, Reply};

/// What a reply of the server means to the caller.
///
/// [`Machine::step`](super::Machine::step) returns each event once, in the order of the replies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an event may be the only report of a recipient's refusal"]
#[non_exhaustive]
pub enum Event {
    /// The result of a login.
    Login {
        /// Positive for a login that succeeded.
        reply: Reply,
        /// Why the login failed, where that is known better than by the reply: the client gave it
        /// up for this reason, or the server explained itself in the terms of the mechanism.
        reason: Option<String>,
        /// What the reason speaks against, where that is not the credentials.
        fault: Option<ExchangeFault>,
    },
    /// The reply to MAIL: whether the server accepts the sender.
    Sender {
        /// The reply.
        reply: Reply,
    },
    /// The reply to RCPT: whether the server accepts a recipient.
    Recipient {
        /// The recipient's index in the order given.
        index: usize,
        /// The reply.
        reply: Reply,
    },
    /// The result of the message for one accepted recipient, where the server answers for each
    /// ([LMTP](super::Protocol::Lmtp), PRDR). It is final. [`Accepted`](Self::Accepted) or
    /// [`Rejected`](Self::Rejected) follows the last one.
    RecipientResult {
        /// The recipient's index in the order given.
        index: usize,
        /// The reply to the message for this recipient.
        reply: Reply,
    },
    /// The server accepted the message, for the recipients that it had accepted; with a
    /// [`RecipientResult`](Self::RecipientResult) for each, for those with a positive one.
    Accepted {
        /// The final reply; in LMTP the last positive one.
        reply: Reply,
    },
    /// The server rejected the message.
    Rejected {
        /// What was refused: the sender, the recipients (all, or one where all had to be accepted),
        /// DATA, the message in its middle ([`Phase::Body`]) or the whole message
        /// ([`Phase::EndOfData`]).
        phase: Phase,
        /// The refusal; of several refused recipients, the last one's.
        reply: Reply,
    },
    /// The message was [withdrawn](super::Machine::withdraw), and every command before it was
    /// answered. The server does not have it.
    Withdrawn,
    /// The reply to [`Machine::noop`](super::Machine::noop),
    /// [`Machine::reset`](super::Machine::reset) or [`Machine::command`](super::Machine::command).
    Reply {
        /// The reply, positive or not.
        reply: Reply,
    },
}
