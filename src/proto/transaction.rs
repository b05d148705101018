//! One mail transaction: what is asked for, and its state (RFC 5321, 3.3).

use std::collections::HashSet;

use super::error::Result;
use super::params::DeliveryOptions;
use super::{Capabilities, Content, Phase, Protocol, ProtocolError, Reason, Reply};
use crate::address::Address;
use crate::envelope::Envelope;

/// What the machine must know to offer a message to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transaction {
    /// The address for bounces; `None` is the null reverse-path.
    pub reverse_path: Option<Address>,
    /// The recipients of the message.
    pub recipients: Vec<Address>,
    /// The size of the message, where it is known, as RFC 1870 counts it: with CRLF at the line
    /// ends, without added dots and the final one. It is declared, and checked against the server's
    /// limit. A small message of a known size goes as one chunk (RFC 3030) where the server takes
    /// that, and must then be of exactly this size.
    pub size: Option<u64>,
    /// Whether the message has bytes beyond ASCII.
    pub content: Content,
    /// The message's headers are not ASCII, so that the server must offer SMTPUTF8 (RFC 6531).
    /// Addresses are looked at apart.
    pub utf8_headers: bool,
    /// What is asked of the server beyond taking the message.
    pub delivery: DeliveryOptions,
    /// Send to every recipient or to none, by the replies to RCPT. Where the server answers for
    /// each recipient once more after the message, as in LMTP, a refusal then does not keep the
    /// message from the others.
    pub all_or_nothing: bool,
    /// Wait for the reply to MAIL before anything else is sent, also with PIPELINING: for a
    /// connection that was idle for long, whose server may be gone without notice. A small message
    /// that went with MAIL, as one chunk, would have an unknown outcome then.
    pub await_sender: bool,
    /// Hold the end of the message back until [`Machine::hand_over`](super::Machine::hand_over) is
    /// called: the final dot or, where the message goes in chunks, the last chunk with its BDAT.
    pub hand_over: bool,
    /// The bytes of replies that are kept before each further one is shortened to a few.
    pub(crate) reply_budget: usize,
}

/// Bytes of all replies to a message that are kept before each further one is shortened.
pub(crate) const REPLY_BUDGET: usize = 1024 * 1024;

/// Bytes that are kept of a reply in any case: a whole one, as real servers write it.
const REPLY_FLOOR: usize = 256;

impl Transaction {
    /// Creates a transaction for an envelope and a message of which nothing is known.
    pub fn new(envelope: &Envelope) -> Self {
        Transaction {
            recipients: envelope.recipients().to_vec(),
            ..Self::open(envelope.reverse_path().cloned())
        }
    }

    /// Creates a transaction that gets its recipients one by one.
    pub fn open(reverse_path: Option<Address>) -> Self {
        Transaction {
            reverse_path,
            recipients: Vec::new(),
            size: None,
            content: Content::Unknown,
            utf8_headers: false,
            delivery: DeliveryOptions::default(),
            all_or_nothing: false,
            await_sender: false,
            hand_over: false,
            reply_budget: REPLY_BUDGET,
        }
    }

    /// Whether SMTPUTF8 is asked for: only if the message cannot be sent without it, as it bounces
    /// at the first server on its way that does not know SMTPUTF8. A domain beyond ASCII has a form
    /// in ASCII.
    pub(super) fn needs_utf8(&self) -> bool {
        self.utf8_headers || self.first_non_ascii().is_some()
    }

    /// The first address that cannot be written in ASCII.
    fn first_non_ascii(&self) -> Option<&Address> {
        self.reverse_path
            .iter()
            .chain(&self.recipients)
            .find(|address| address.to_ascii().is_none())
    }

    /// Checks that the server can take this message, by what it offers.
    pub(super) fn check(&self, server: &Capabilities, secure: bool) -> Result<()> {
        self.find_obstacle(server, secure).map_or(Ok(()), |reason| {
            Err(ProtocolError::new(Phase::Mail, reason))
        })
    }

    fn find_obstacle(&self, server: &Capabilities, secure: bool) -> Option<Reason> {
        // First: no other form of the message would do without it.
        if self.needs_utf8() && !server.offers("SMTPUTF8") {
            return Some(match self.first_non_ascii() {
                Some(address) => Reason::AddressNotAscii(address.clone()),
                None => Reason::HeadersNotAscii,
            });
        }
        if let (Some(size), Some(limit)) = (self.size, server.size_limit())
            && size > limit
        {
            return Some(Reason::MessageTooLarge { size, limit });
        }
        if self.content == Content::EightBit && !server.offers("8BITMIME") {
            return Some(Reason::EightBitNotOffered);
        }
        if self.content == Content::Binary
            && !(server.offers("BINARYMIME") && server.offers("CHUNKING"))
        {
            return Some(Reason::BinaryNotOffered);
        }
        if self.delivery.requires_tls() && !secure {
            return Some(Reason::NotEncrypted);
        }
        let limits = server.limits().find_excess(&self.recipients);
        limits.or_else(|| self.delivery.find_obstacle(server))
    }

    /// PRDR is asked for if there is more than one recipient, and not for a message to all or none,
    /// which the server could then accept for some only.
    pub(super) fn final_replies(&self, protocol: Protocol, server: &Capabilities) -> FinalReplies {
        match protocol {
            Protocol::Lmtp => FinalReplies::Each,
            Protocol::Smtp
                if server.offers("PRDR") && self.recipients.len() > 1 && !self.all_or_nothing =>
            {
                FinalReplies::OneOr353
            }
            Protocol::Smtp => FinalReplies::One,
        }
    }
}

/// A transaction that gets its recipients one by one.
impl From<Option<Address>> for Transaction {
    fn from(reverse_path: Option<Address>) -> Self {
        Transaction::open(reverse_path)
    }
}

/// A transaction that gets its recipients one by one.
impl From<Address> for Transaction {
    fn from(reverse_path: Address) -> Self {
        Transaction::open(Some(reverse_path))
    }
}

/// The state of a transaction without an outcome.
#[derive(Debug)]
pub(super) struct TransactionState {
    pub(super) transaction: Transaction,
    /// All recipients are known: DATA may follow them.
    pub(super) complete: bool,
    /// SMTPUTF8 was asked for with MAIL.
    pub(super) utf8: bool,
    /// The command that is written next.
    pub(super) next: Next,
    pub(super) mail_reply: Option<Reply>,
    /// The number of RCPT that were answered.
    pub(super) answered: usize,
    /// The recipients that were accepted.
    pub(super) accepted: Vec<usize>,
    /// The domains of the recipients that were given one by one, where the server limits them.
    pub(super) domains: HashSet<String>,
    pub(super) final_replies: FinalReplies,
    /// The replies to the message for the first of the accepted recipients.
    pub(super) verdicts: Vec<Reply>,
    pub(super) last_rcpt_refusal: Option<Reply>,
    pub(super) framing: Framing,
    /// The end of the message is held back: until its own hand-over, or that of a message before
    /// it.
    pub(super) is_end_held: bool,
    /// The caller withdrew the message in place of its hand-over.
    pub(super) is_withdrawn: bool,
    /// The size of a message after DATA that was given whole, and whose end is held back.
    pub(super) held_size: Option<u64>,
    /// Where the message ends, of all bytes of the session, once its end may be written.
    pub(super) ends_at: Option<u64>,
}

/// The command of a transaction that is written next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Mail,
    /// RCPT for this recipient, if there is one; else DATA or BDAT, once all recipients are known.
    Rcpt(usize),
    /// DATA or BDAT was written.
    Done,
}

/// How the message is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// With DATA, up to the final dot.
    Data,
    /// As one chunk of this many bytes (RFC 3030), together with the commands.
    Chunk(u64),
    /// As one chunk of this many bytes, which is held back together with its BDAT.
    HeldChunk(u64),
    /// As several chunks. The session goes on after a refusal in the middle.
    Chunks,
}

/// The replies that follow the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FinalReplies {
    /// One reply for all recipients (RFC 5321, 4.1.1.4).
    One,
    /// One reply for all recipients or, as PRDR was asked for, 353 and then
    /// [`EachAndOne`](Self::EachAndOne).
    OneOr353,
    /// A reply for each accepted recipient, and one for the message (draft-hall-prdr).
    EachAndOne,
    /// A reply for each accepted recipient (RFC 2033, 4.2).
    Each,
}

/// The maximum size of a message that goes as one chunk together with its commands, in one round
/// trip. A larger one gains nothing by chunks, as DATA costs no more.
const SMALL: u64 = 64 * 1024;

impl TransactionState {
    pub(super) fn new(transaction: Transaction, complete: bool) -> Self {
        TransactionState {
            utf8: transaction.needs_utf8(),
            transaction,
            complete,
            next: Next::Mail,
            mail_reply: None,
            answered: 0,
            accepted: Vec::new(),
            domains: HashSet::new(),
            final_replies: FinalReplies::One,
            verdicts: Vec::new(),
            last_rcpt_refusal: None,
            framing: Framing::Data,
            is_end_held: false,
            is_withdrawn: false,
            held_size: None,
            ends_at: None,
        }
    }

    /// Shortens a reply to the share that is left for it.
    pub(super) fn keep(&mut self, reply: &mut Reply, most: usize) {
        let budget = &mut self.transaction.reply_budget;
        *budget = budget.saturating_sub(reply.shorten(most.min((*budget).max(REPLY_FLOOR))));
    }

    /// The best framing that the server offers.
    pub(super) fn best_framing(&self, server: &Capabilities) -> Framing {
        match self.transaction.size {
            _ if !server.offers("CHUNKING") => Framing::Data,
            // An empty one would be whole with its command already, before its end is known.
            Some(size) if (1..=SMALL).contains(&size) && self.is_end_held => {
                Framing::HeldChunk(size)
            }
            Some(size) if (1..=SMALL).contains(&size) => Framing::Chunk(size),
            _ if self.transaction.content == Content::Binary => Framing::Chunks,
            _ => Framing::Data,
        }
    }

    /// Whether every command before the message was answered.
    fn all_commands_answered(&self) -> bool {
        self.next == Next::Done && self.mail_reply.is_some() && self.all_answered()
    }

    /// Whether the message will not be handed over, and no reply to its commands is outstanding.
    pub(super) fn is_given_up(&self) -> bool {
        let is_refused = matches!(self.framing, Framing::HeldChunk(_))
            && self.ends_at.is_none()
            && self.refusal().is_some();
        (self.is_withdrawn || is_refused) && self.all_commands_answered()
    }

    /// Whether its last byte is among the first `written` bytes of the session.
    pub(super) fn is_handed_over(&self, written: u64) -> bool {
        self.ends_at.is_some_and(|end| written >= end)
    }

    /// Whether the next reply to the message is the last one and decides on it, even if it is 421.
    pub(super) fn is_last_reply_next(&self) -> bool {
        let left = self.accepted.len().saturating_sub(self.verdicts.len());
        match self.final_replies {
            FinalReplies::One | FinalReplies::OneOr353 => true,
            FinalReplies::EachAndOne => false,
            FinalReplies::Each => left <= 1,
        }
    }

    /// Whether the message may be accepted even if the next recipient is refused.
    pub(super) fn may_yet_be_sent(&self) -> bool {
        let others =
            !self.accepted.is_empty() || self.answered + 1 < self.transaction.recipients.len();
        others && self.refusal().is_none()
    }

    /// Whether every recipient was answered.
    pub(super) fn all_answered(&self) -> bool {
        self.answered == self.transaction.recipients.len()
    }

    /// The recipient that the next reply to the message is for, if it is for one.
    pub(super) fn next_verdict(&self) -> Option<usize> {
        let for_each = matches!(
            self.final_replies,
            FinalReplies::Each | FinalReplies::EachAndOne
        );
        self.accepted
            .get(self.verdicts.len())
            .copied()
            .filter(|_| for_each && self.refusal().is_none())
    }

    /// The final reply, given the last one. The message is accepted if it is for one recipient at
    /// least: Exim ends with 250 also where each recipient was refused, some permanently and others
    /// for the moment.
    pub(super) fn conclusion(&self, last: Reply) -> Reply {
        let taken = self.verdicts.iter().rfind(|verdict| verdict.is_positive());
        match (self.final_replies, taken) {
            (FinalReplies::Each, Some(taken)) => taken.clone(),
            (FinalReplies::EachAndOne, None) if last.is_positive() => {
                self.verdicts.last().cloned().unwrap_or(last)
            }
            _ => last,
        }
    }

    /// Why the message was rejected: by this reply, unless one before it was decisive.
    pub(super) fn reason(&self, phase: Phase, reply: Reply) -> (Phase, Reply) {
        match self.refusal() {
            Some((phase, refusal)) => (phase, refusal.clone()),
            None => (phase, reply),
        }
    }

    /// The refusal by which certainly no recipient gets the message, even if it was handed over and
    /// no further reply comes.
    pub(super) fn final_refusal(&self) -> Option<(Phase, &Reply)> {
        let all_refused = self.verdicts.len() == self.accepted.len()
            && !self.verdicts.iter().any(Reply::is_positive);
        let verdict = self.verdicts.last().filter(|_| all_refused);
        self.refusal()
            .or(verdict.map(|reply| (Phase::EndOfData, reply)))
    }

    /// The refusal by which the message will not be accepted, if that is certain.
    pub(super) fn refusal(&self) -> Option<(Phase, &Reply)> {
        if let Some(reply) = self
            .mail_reply
            .as_ref()
            .filter(|reply| !reply.is_positive())
        {
            return Some((Phase::Mail, reply));
        }
        let reply = self.last_rcpt_refusal.as_ref()?;
        let none_accepted = self.complete && self.all_answered() && self.accepted.is_empty();
        (self.transaction.all_or_nothing || none_accepted).then_some((Phase::Rcpt, reply))
    }
}
