//! One mail transaction: what is asked for, and how far it came (RFC 5321, 3.3).

use std::collections::HashSet;

use super::error::Result;
use super::params::DeliveryOptions;
use super::{Capabilities, Content, Phase, Protocol, ProtocolError, Reason, Reply};
use crate::address::Address;
use crate::envelope::Envelope;

/// What the machine must know to offer a message to the server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Transaction {
    /// Where bounces go; `None` is the null reverse-path.
    pub reverse_path: Option<Address>,
    /// Whom the message is for.
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
    /// Send to every recipient or to none, by what the server says to RCPT. Where it answers for
    /// each recipient once more behind the message, as in LMTP, those that it refuses then do not
    /// keep the message from the others.
    pub all_or_nothing: bool,
    /// Wait for the answer to MAIL before anything else goes, also where the server takes
    /// PIPELINING: for a connection that was idle for long, whose server may be gone without a
    /// sign. A small message that went with MAIL, as one chunk, would have an unknown outcome then.
    pub await_sender: bool,
    /// So many bytes of replies are kept before each further one is shortened to a few.
    pub(crate) reply_budget: usize,
}

/// Bytes of all replies to a message that are kept before each further one is shortened.
pub(crate) const REPLY_BUDGET: usize = 1024 * 1024;

/// Bytes that are kept of a reply in any case: a whole one, as real servers write it.
const REPLY_FLOOR: usize = 256;

impl Transaction {
    /// A transaction for an envelope, and for a message of which nothing is known.
    pub fn new(envelope: &Envelope) -> Self {
        Transaction {
            recipients: envelope.recipients().to_vec(),
            ..Self::open(envelope.reverse_path().cloned())
        }
    }

    /// A transaction that gets its recipients one by one.
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
            reply_budget: REPLY_BUDGET,
        }
    }

    /// SMTPUTF8 is asked for where there is no way without it: then every server on the way needs
    /// it, and the message is lost at one that does not have it. A domain beyond ASCII has a form
    /// for all of them.
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

    /// The server can take this message, as far as it said what it can.
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

    /// PRDR is of use with more than one recipient. It is not for a message to all or none: without
    /// it the server cannot take that for some only.
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

/// How far the transaction under way came.
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
    /// How many RCPT were answered.
    pub(super) answered: usize,
    /// The recipients that were accepted.
    pub(super) accepted: Vec<usize>,
    /// The domains of the recipients that were given one by one, where the server limits them.
    pub(super) domains: HashSet<String>,
    pub(super) final_replies: FinalReplies,
    /// The replies to the message for the first ones of those that were accepted.
    pub(super) verdicts: Vec<Reply>,
    pub(super) last_rcpt_refusal: Option<Reply>,
    pub(super) framing: Framing,
    /// Where the message ends, of all bytes of the session, once it was given whole.
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

/// How the message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Behind DATA.
    Data,
    /// As one chunk of so many bytes (RFC 3030), together with the commands.
    Chunk(u64),
    /// As chunks of which the last one has what is left. A refusal then comes in time, and the
    /// session goes on.
    Chunks,
}

/// What the server will say behind the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FinalReplies {
    /// One reply for all recipients (RFC 5321, 4.1.1.4).
    One,
    /// The same; or, as PRDR was asked for, 353, and then what follows that.
    OneOr353,
    /// A reply for each accepted recipient, and one for the message (draft-hall-prdr).
    EachAndOne,
    /// A reply for each accepted recipient (RFC 2033, 4.2).
    Each,
}

/// A message up to this size goes as a chunk together with the commands, if it can: its sender then
/// waits once. A larger one gains nothing by it, as DATA costs no more than chunks do; so only what
/// must goes as chunks.
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
            ends_at: None,
        }
    }

    /// Shortens a reply to the share that is left for it.
    pub(super) fn keep(&mut self, reply: &mut Reply, most: usize) {
        let budget = &mut self.transaction.reply_budget;
        *budget = budget.saturating_sub(reply.shorten(most.min((*budget).max(REPLY_FLOOR))));
    }

    /// How the message can best go.
    pub(super) fn best_framing(&self, server: &Capabilities) -> Framing {
        match self.transaction.size {
            _ if !server.offers("CHUNKING") => Framing::Data,
            // An empty one would be whole with its command already, before its end is known.
            Some(size) if (1..=SMALL).contains(&size) => Framing::Chunk(size),
            _ if self.transaction.content == Content::Binary => Framing::Chunks,
            _ => Framing::Data,
        }
    }

    /// Its last byte is among the first so many of the session, which the transport took.
    pub(super) fn is_handed_over(&self, written: u64) -> bool {
        self.ends_at.is_some_and(|end| written >= end)
    }

    /// The next reply to the message is the last one, and says what becomes of it, also where it is
    /// 421.
    pub(super) fn is_last_reply_next(&self) -> bool {
        let left = self.accepted.len().saturating_sub(self.verdicts.len());
        match self.final_replies {
            FinalReplies::One | FinalReplies::OneOr353 => true,
            FinalReplies::EachAndOne => false,
            FinalReplies::Each => left <= 1,
        }
    }

    /// Another recipient than the next one was accepted or may be, and so the message.
    pub(super) fn may_yet_be_sent(&self) -> bool {
        let others =
            !self.accepted.is_empty() || self.answered + 1 < self.transaction.recipients.len();
        others && self.refusal().is_none()
    }

    /// Every recipient was written and answered.
    pub(super) fn all_answered(&self) -> bool {
        self.answered == self.transaction.recipients.len()
    }

    /// Whom the next reply to the message is for, if it is for one recipient.
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

    /// What was said of the message in all, when this was said last. It was taken if it was for one
    /// recipient at least; Exim ends with 250 also where it was refused for each, for some of them
    /// for good and for others for the moment.
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

    /// Why it was not sent: this, unless there was a reason before.
    pub(super) fn reason(&self, phase: Phase, reply: Reply) -> (Phase, Reply) {
        match self.refusal() {
            Some((phase, refusal)) => (phase, refusal.clone()),
            None => (phase, reply),
        }
    }

    /// Why no recipient gets the message, if that is certain, also where it has gone and the server
    /// says no more.
    pub(super) fn final_refusal(&self) -> Option<(Phase, &Reply)> {
        let all_refused = self.verdicts.len() == self.accepted.len()
            && !self.verdicts.iter().any(Reply::is_positive);
        let verdict = self.verdicts.last().filter(|_| all_refused);
        self.refusal()
            .or(verdict.map(|reply| (Phase::EndOfData, reply)))
    }

    /// Why the message will not be sent, if that is certain by now.
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
