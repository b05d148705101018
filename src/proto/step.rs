//! What the machine says is next.

use super::{ExchangeFault, Phase, Reply};

/// What is next: something to do for the driver, or an event.
///
/// `Wait`, `Upgrade`, `Ready`, `Body` and `Closed` say what the machine waits for, and are said
/// again until it gets it. The others are events: each is told once, in the order in which the
/// server made them happen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a step that is not looked at may be the only news of a recipient's refusal"]
#[non_exhaustive]
pub enum Step {
    /// Write what is in the [output](super::Machine::output), and read; the phase tells which time
    /// limit holds.
    Wait {
        /// What the machine waits for.
        phase: Phase,
    },
    /// Make the TLS handshake, then call [`Machine::upgraded`](super::Machine::upgraded).
    Upgrade,
    /// Nothing is under way: give a command, a login or a transaction, or go on with the one that
    /// is open, or quit.
    Ready,
    /// Give the next piece of the message ([`Machine::body`](super::Machine::body)) or its end
    /// ([`Machine::finish`](super::Machine::finish)).
    Body {
        /// So many bytes are welcome now; more are taken, too.
        room: usize,
    },
    /// The session is over.
    Closed,

    /// The server's verdict on the login.
    Login {
        /// Positive for a login that succeeded.
        reply: Reply,
        /// Why it did not, where that is known better than by the reply: the client gave it up for
        /// this reason, or the server explained itself in the mechanism's own words.
        reason: Option<String>,
        /// What the reason speaks against, where that is not the credentials.
        fault: Option<ExchangeFault>,
    },
    /// The server's verdict on the sender.
    Sender {
        /// The reply to MAIL.
        reply: Reply,
    },
    /// The server's verdict on a recipient.
    Recipient {
        /// Which one, counted from 0 in the order given.
        index: usize,
        /// The reply to RCPT.
        reply: Reply,
    },
    /// The server's verdict on the message for one recipient that it had accepted, where it gives
    /// one for each ([LMTP](super::Protocol::Lmtp), PRDR). It is final, whatever follows.
    /// [`Accepted`](Self::Accepted) or [`Rejected`](Self::Rejected) comes behind the last one.
    RecipientResult {
        /// Which recipient.
        index: usize,
        /// The reply to the message for this recipient.
        reply: Reply,
    },
    /// The server took the message, for the recipients that it had accepted; where there was a
    /// [`RecipientResult`](Self::RecipientResult) for each, for those with a positive one.
    Accepted {
        /// The final reply; in LMTP the last positive one.
        reply: Reply,
    },
    /// The server did not take the message.
    Rejected {
        /// What was refused: the sender, the recipients (all, or one where all had to be accepted),
        /// DATA, the message under way ([`Phase::Body`]) or the whole message
        /// ([`Phase::EndOfData`]).
        phase: Phase,
        /// The refusal; of several refused recipients, the last one's.
        reply: Reply,
    },
    /// The answer to [`Machine::noop`](super::Machine::noop),
    /// [`Machine::reset`](super::Machine::reset) or [`Machine::command`](super::Machine::command).
    Reply {
        /// The answer, be it positive or not.
        reply: Reply,
    },
}
