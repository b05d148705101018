//! The course of a message to its recipients: one transaction, or several, where the server takes
//! fewer recipients at once.

use std::collections::VecDeque;

use super::errors;
use super::outcome::TransactionOutcome;
use crate::diagnose::{self, Facts};
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::proto::{Reply, Step};
use crate::receipt::{Outcome, Receipt, Recipient};
use crate::{Address, Envelope};

/// A message on its way, in one part or several. Each part is a transaction of its own, with an
/// outcome of its own. Parts end in the order in which they begin.
pub(super) struct Submission {
    parts: Vec<RecipientBatch>,
    /// How many recipients the message has.
    recipients: usize,
    /// How many of them have begun.
    begun: usize,
    /// How many of them have an outcome.
    ended: usize,
    /// How many transactions were opened for them.
    transactions: u32,
    /// Of the parts that had more recipients than the server takes in a transaction, the recipients
    /// that were left over: for further parts.
    left_over: VecDeque<VecDeque<(usize, Address)>>,
    /// The next further part has so many recipients at most.
    further_size: usize,
    /// No further part has more than so many.
    further_max: usize,
    is_repeatable: bool,
    #[cfg(feature = "pool")]
    sender_accepted: bool,
}

struct RecipientBatch {
    /// Where its recipients stand in the envelope.
    places: Vec<usize>,
    recipients: Vec<Address>,
    /// It follows a part whose recipients were too many.
    is_further: bool,
    fate: TransactionOutcome,
    /// What became of it.
    outcome: Option<Result<()>>,
}

impl Submission {
    /// `parts` has the places of the recipients in the envelope, each in one part. More parts may
    /// follow where the message can be repeated.
    pub(super) fn new(envelope: &Envelope, parts: Vec<Vec<usize>>, is_repeatable: bool) -> Self {
        let part = |places: Vec<usize>| {
            let recipients = places
                .iter()
                .map(|place| envelope.recipients()[*place].clone())
                .collect();
            RecipientBatch::new(envelope.reverse_path(), places, recipients)
        };
        Submission {
            parts: parts.into_iter().map(part).collect(),
            recipients: envelope.recipients().len(),
            begun: 0,
            ended: 0,
            transactions: 0,
            left_over: VecDeque::new(),
            further_size: 0,
            further_max: usize::MAX,
            is_repeatable,
            #[cfg(feature = "pool")]
            sender_accepted: false,
        }
    }

    /// The recipients of the next part, which begins now.
    pub(super) fn next_part(&mut self) -> Option<Vec<Address>> {
        if self.begun == self.parts.len() {
            let part = self.further_part()?;
            self.parts.push(part);
        }
        let part = &mut self.parts[self.begun];
        self.begun += 1;
        Some(std::mem::take(&mut part.recipients))
    }

    /// Of one group, as it keeps to the server's LIMITS. Its size depends on what became of the
    /// parts before.
    fn further_part(&mut self) -> Option<RecipientBatch> {
        if !self.may_go_further() {
            return None;
        }
        let group = self.left_over.front_mut()?;
        let (places, recipients) = group.drain(..self.further_size.min(group.len())).unzip();
        if group.is_empty() {
            self.left_over.pop_front();
        }
        let sender = self.parts[0].fate.sender().cloned();
        Some(RecipientBatch {
            is_further: true,
            ..RecipientBatch::new(sender.as_ref(), places, recipients)
        })
    }

    /// All parts that have begun have ended, and recipients are left over.
    fn may_go_further(&self) -> bool {
        self.unanswered() == 0 && !self.left_over.is_empty()
    }

    /// The transaction of the part that [begins](Self::next_part) was opened.
    pub(super) fn opened(&mut self) {
        self.transactions += 1;
    }

    /// There is another part to begin now, after the first one.
    pub(super) fn goes_on(&self) -> bool {
        (1..self.parts.len()).contains(&self.begun) || self.may_go_further()
    }

    /// In how many parts it goes.
    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// How many parts have begun and have no outcome.
    pub(super) fn unanswered(&self) -> usize {
        self.begun - self.ended
    }

    pub(super) fn is_over(&self) -> bool {
        self.ended == self.parts.len() && self.left_over.is_empty()
    }

    /// The server accepted MAIL of some part.
    #[cfg(feature = "pool")]
    pub(super) fn sender_accepted(&self) -> bool {
        self.sender_accepted
    }

    /// The session ended before the server took anything of it: all of it can go over another one.
    pub(super) fn is_not_reached(&self) -> bool {
        let ended = |error: &Error| match error.reply() {
            Some(reply) => reply.code() == 421,
            None => error.kind() == ErrorKind::Closed,
        };
        let is_not_reached = |part: &RecipientBatch| {
            part.outcome.as_ref().is_some_and(|outcome| {
                outcome
                    .as_ref()
                    .is_err_and(|error| ended(error) && !error.outcome_unknown())
            })
        };
        self.parts.iter().all(is_not_reached)
    }

    /// Takes an event, which is about the first part without an outcome.
    pub(super) fn on_step(&mut self, step: Step) {
        #[cfg(feature = "pool")]
        if let Step::Sender { reply } = &step {
            self.sender_accepted |= reply.is_positive();
        }
        if let Some(part) = self.parts.get_mut(self.ended) {
            part.outcome = part.fate.on_step(step);
            if part.outcome.is_some() {
                self.ended += 1;
                self.find_left_over();
            }
        }
    }

    /// The part that ended last may have had too many recipients. Each further part must have
    /// gained one, as 452 may also say that the server is out of space. It tries no more than twice
    /// as many as the one before, so that a server cannot make a large message ask for all of its
    /// recipients again and again.
    fn find_left_over(&mut self) {
        let part = &self.parts[self.ended - 1];
        let mut left_over = part.fate.over_limit().to_vec();
        let mut has_gained = matches!(part.outcome, Some(Ok(()))) || part.fate.has_verdict();
        if part.is_further {
            let all_refused =
                matches!(&part.outcome, Some(Err(error)) if error.phase() == Phase::Rcpt);
            if !has_gained && (!all_refused || part.fate.may_be_at_limit()) {
                self.left_over.clear();
            }
        } else if left_over.is_empty() {
            return;
        } else if let Some(Err(error)) = &part.outcome
            && let refused @ [_, ..] = part.fate.refused_with_too_many(error)
        {
            // One more than these, and all are refused again.
            self.further_max = self.further_max.min(refused.len());
            left_over.extend(refused);
            left_over.sort_unstable();
            has_gained = true;
        }
        self.further_size =
            (2 * (part.places.len() - part.fate.over_limit().len()).max(1)).min(self.further_max);
        if has_gained && self.is_repeatable && !left_over.is_empty() {
            let recipient = |index: usize| {
                (
                    part.places[index],
                    part.fate.recipients[index].address.clone(),
                )
            };
            self.left_over
                .push_front(left_over.into_iter().map(recipient).collect());
        }
    }

    /// The session ended, or the next part could not begin. Of the parts without an outcome, the
    /// first so many may have been delivered.
    pub(super) fn connection_lost(&mut self, error: Error, unknown: usize) {
        let unknown = unknown.min(self.unanswered());
        // Those who were left over are told of this error, too.
        let (places, recipients): (Vec<_>, Vec<_>) = std::mem::take(&mut self.left_over)
            .into_iter()
            .flatten()
            .unzip();
        if !places.is_empty() {
            self.parts
                .push(RecipientBatch::new(None, places, recipients));
        }
        let copy = error.copy();
        let mut first = Some(error);
        for (i, part) in self.parts[self.ended..].iter_mut().enumerate() {
            let error = first.take().unwrap_or_else(|| copy.copy());
            part.outcome = Some(Err(part
                .fate
                .connection_lost(error.with_outcome_unknown(i < unknown))));
        }
        (self.begun, self.ended) = (self.parts.len(), self.parts.len());
    }

    /// What became of the message goes into the receipt. It has failed where nobody gets it, or
    /// nobody knows.
    pub(super) fn end(self, receipt: &mut Receipt, session: &Facts<'_>) -> Result<()> {
        let session = &Facts {
            recipients: self.recipients,
            ..*session
        };
        let several = self.parts.len() > 1;
        let mut recipients: Vec<Option<Recipient>> = Vec::new();
        let mut failure: Option<Error> = None;
        let mut untried_because = None;
        let mut is_incomplete = false;
        let mut is_over_limit = false;
        for RecipientBatch {
            places,
            mut fate,
            outcome,
            ..
        } in self.parts
        {
            receipt.reply = fate.reply.clone().or(receipt.reply.take());
            is_over_limit |= !fate.over_limit().is_empty();
            if let Some(Err(error)) = outcome {
                let error = error.advised(&fate.facts(session));
                fate.ended_by(&error);
                // Not so where the session ended before its MAIL was answered.
                if several
                    && error.kind() == ErrorKind::Refused
                    && error.phase() == Phase::Mail
                    && let Some(reply) = error.reply()
                {
                    // There may be no error that tells of it.
                    fate.recipients
                        .iter_mut()
                        .for_each(|recipient| recipient.outcome = Outcome::Refused(reply.clone()));
                }
                let untried = fate
                    .recipients
                    .iter()
                    .any(|recipient| recipient.outcome == Outcome::NotTried);
                is_incomplete |= untried;
                // The parts after a 421 only found the session closed.
                if untried || error.reply().is_some_and(|reply| reply.code() == 421) {
                    untried_because.get_or_insert_with(|| error.to_string());
                }
                fate.advise(session, Some(&error));
                if failure
                    .as_ref()
                    .is_none_or(|before| error.outcome_unknown() && !before.outcome_unknown())
                {
                    failure = Some(error);
                }
            } else {
                fate.advise(session, None);
            }
            for (place, recipient) in places.into_iter().zip(fate.recipients) {
                recipients.resize_with(recipients.len().max(place + 1), || None);
                match &mut recipients[place] {
                    Some(earlier) => earlier.update(recipient),
                    first => *first = Some(recipient),
                }
            }
        }
        receipt.recipients = recipients.into_iter().flatten().collect();
        receipt.transactions = self.transactions;
        match failure {
            Some(error)
                if error.outcome_unknown()
                    || !receipt
                        .recipients
                        .iter()
                        .any(|one| one.outcome.is_accepted()) =>
            {
                Err(error)
            }
            _ => {
                let once = is_over_limit && !self.is_repeatable;
                let untried_because = untried_because.filter(|_| is_incomplete);
                receipt.incomplete_reason =
                    untried_because.or_else(|| once.then(|| errors::ONCE.to_owned()));
                Ok(())
            }
        }
    }
}

impl RecipientBatch {
    fn new(sender: Option<&Address>, places: Vec<usize>, recipients: Vec<Address>) -> Self {
        let fate = TransactionOutcome::new(sender.cloned(), recipients.clone());
        RecipientBatch {
            places,
            recipients,
            is_further: false,
            fate,
            outcome: None,
        }
    }
}

/// What ended the session, for everything that ended with it.
pub(super) struct SharedError {
    message: String,
    /// The 421 that ended it, if one did.
    shutdown: Option<Reply>,
    error: Option<Error>,
}

impl SharedError {
    pub(super) fn new(error: Error) -> Self {
        let shutdown = error.reply().filter(|reply| reply.code() == 421).cloned();
        SharedError {
            message: error.message().to_owned(),
            shutdown,
            error: Some(error),
        }
    }

    /// The first one gets the error itself, with its cause; the others one that says the same.
    pub(super) fn error(&mut self) -> Error {
        self.error.take().unwrap_or_else(|| match &self.shutdown {
            Some(reply) => Error::refused(
                ErrorKind::Closed,
                Phase::Mail,
                errors::ENDED_BEFORE,
                reply.clone(),
            ),
            None => Error::new(ErrorKind::Closed, Phase::Body, self.message.as_str())
                .with_hint(diagnose::for_end(Phase::Body, false)),
        })
    }

    /// The error itself, where nobody has got it.
    pub(super) fn left(self) -> Option<Error> {
        self.error
    }
}
