//! The submission of one message: in one transaction, or in several if the server takes fewer
//! recipients at once.

use std::collections::VecDeque;
use std::sync::Arc;

use super::outcome::TransactionOutcome;
use super::{errors, not_sent};
use crate::Address;
use crate::diagnose::Facts;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::message::{Body, Handovers, PreparedMessage};
use crate::proto::{Event, Step};
use crate::receipt::{Delivery, Outcome, Recipient, SessionInfo};

/// A message that is being sent, in one or more transactions, each for a batch of the recipients
/// and with an outcome of its own. Batches finish in the order in which they are started.
pub(super) struct Submission {
    batches: Vec<RecipientBatch>,
    /// The number of recipients of the message.
    recipients: usize,
    /// The number of batches that were started.
    started: usize,
    /// The number of batches that have an outcome.
    finished: usize,
    /// The number of transactions that were started.
    transactions: u32,
    /// For each batch with more recipients than the server takes in a transaction, the recipients
    /// beyond that: they form further batches.
    overflow: VecDeque<VecDeque<(usize, Address)>>,
    /// The maximum size of the next overflow batch.
    overflow_size: usize,
    /// The maximum size of every overflow batch.
    overflow_max: usize,
    is_repeatable: bool,
    /// The hand-overs, if the caller awaits them.
    handovers: Option<Handovers>,
    /// The message was handed over in a transaction that has ended.
    handed_over: bool,
    /// The bytes of the message that were sent.
    bytes: u64,
    /// The session of the last transaction.
    session: Option<Arc<SessionInfo>>,
    #[cfg(feature = "pool")]
    sender_accepted: bool,
}

struct RecipientBatch {
    /// The indices of the recipients in the envelope.
    places: Vec<usize>,
    recipients: Vec<Address>,
    /// It follows a batch with too many recipients.
    is_overflow: bool,
    outcome: TransactionOutcome,
    /// The result, once the transaction has one.
    result: Option<Result<()>>,
}

impl Submission {
    /// `parts` has the indices of the recipients in the envelope, each in one batch. Overflow
    /// batches may follow if the message can be repeated.
    pub(super) fn new(
        message: &PreparedMessage,
        parts: Vec<Vec<usize>>,
        is_repeatable: bool,
    ) -> Self {
        let envelope = &message.envelope;
        let batch = |places: Vec<usize>| {
            let recipients = places
                .iter()
                .map(|place| envelope.recipients()[*place].clone())
                .collect();
            RecipientBatch::new(envelope.reverse_path(), places, recipients)
        };
        Submission {
            batches: parts.into_iter().map(batch).collect(),
            recipients: envelope.recipients().len(),
            started: 0,
            finished: 0,
            transactions: 0,
            overflow: VecDeque::new(),
            overflow_size: 0,
            overflow_max: usize::MAX,
            is_repeatable,
            handovers: message.body.handovers().cloned(),
            handed_over: false,
            bytes: 0,
            session: None,
            #[cfg(feature = "pool")]
            sender_accepted: false,
        }
    }

    /// Starts the next batch, and returns its recipients.
    pub(super) fn next_batch(&mut self) -> Option<Vec<Address>> {
        if self.started == self.batches.len() {
            let batch = self.overflow_batch()?;
            self.batches.push(batch);
        }
        let batch = &mut self.batches[self.started];
        self.started += 1;
        Some(std::mem::take(&mut batch.recipients))
    }

    /// Takes an overflow batch from one group, as the groups keep to the LIMITS of the server. Its
    /// size depends on the outcomes of the batches before.
    fn overflow_batch(&mut self) -> Option<RecipientBatch> {
        if !self.has_overflow() {
            return None;
        }
        let group = self.overflow.front_mut()?;
        let (places, recipients) = group.drain(..self.overflow_size.min(group.len())).unzip();
        if group.is_empty() {
            self.overflow.pop_front();
        }
        let sender = self.batches[0].outcome.sender().cloned();
        Some(RecipientBatch {
            is_overflow: true,
            ..RecipientBatch::new(sender.as_ref(), places, recipients)
        })
    }

    /// All started batches have finished, and recipients are left for another one.
    fn has_overflow(&self) -> bool {
        self.unanswered() == 0 && !self.overflow.is_empty()
    }

    /// The transaction of the [next batch](Self::next_batch) was started in this session.
    pub(super) fn on_transaction_started(&mut self, session: &Arc<SessionInfo>) {
        self.transactions += 1;
        self.session = Some(session.clone());
    }

    /// The session of the last transaction that was started.
    pub(super) fn session(&self) -> Option<&Arc<SessionInfo>> {
        self.session.as_ref()
    }

    /// No more of the message is given in the last transaction, in which `bytes` of it were sent.
    pub(super) fn on_upload_ended(&mut self, body: &Body, bytes: u64) {
        self.bytes = bytes;
        self.handed_over |= body.is_handed_over();
    }

    /// Another batch can be started now, after the first one.
    pub(super) fn has_next_batch(&self) -> bool {
        (1..self.batches.len()).contains(&self.started) || self.has_overflow()
    }

    /// The number of batches so far.
    pub(super) fn batch_count(&self) -> usize {
        self.batches.len()
    }

    /// The number of batches that were started and have no outcome.
    pub(super) fn unanswered(&self) -> usize {
        self.started - self.finished
    }

    pub(super) fn is_over(&self) -> bool {
        self.finished == self.batches.len() && self.overflow.is_empty()
    }

    /// The server accepted MAIL in a transaction.
    #[cfg(feature = "pool")]
    pub(super) fn sender_accepted(&self) -> bool {
        self.sender_accepted
    }

    /// The session ended before the server took anything of the message: all of it can be sent in
    /// another one.
    pub(super) fn is_untouched(&self) -> bool {
        let is_untouched = |batch: &RecipientBatch| {
            let error = batch
                .result
                .as_ref()
                .and_then(|result| result.as_ref().err());
            error.is_some_and(is_end_of_session)
        };
        self.refusal().is_none() && self.batches.iter().all(is_untouched)
    }

    /// The error by which the callback has refused the hand-over.
    fn refusal(&self) -> Option<&Error> {
        self.handovers.as_ref().and_then(Handovers::refusal)
    }

    /// Handles an event, which concerns the first batch without an outcome.
    pub(super) fn on_step(&mut self, step: Step) {
        #[cfg(feature = "pool")]
        if let Step::Event(Event::Sender { reply }) = &step {
            self.sender_accepted |= reply.is_positive();
        }
        let refusal = self.refusal().cloned();
        let Some(batch) = self.batches.get_mut(self.finished) else {
            return;
        };
        batch.result = match step {
            Step::Event(Event::Withdrawn) => {
                let error = refusal.clone().unwrap_or_else(|| not_sent(step));
                Some(Err(batch.outcome.connection_lost(error)))
            }
            step => batch.outcome.on_step(step),
        };
        if batch.result.is_none() {
            return;
        }
        self.finished += 1;
        self.collect_overflow();
        if let Some(refusal) = refusal
            && self.unanswered() == 0
        {
            // The remaining recipients do not get the message either.
            self.connection_lost(refusal, 0);
        }
    }

    /// Collects the recipients that were too many for the batch that finished last. Each overflow
    /// batch must have gained a recipient, as 452 may also mean that the server is out of space. It
    /// has at most twice as many as the one before, so a server cannot make a large message repeat
    /// all of its recipients again and again.
    fn collect_overflow(&mut self) {
        let batch = &self.batches[self.finished - 1];
        let mut overflow = batch.outcome.over_limit().to_vec();
        let mut has_gained =
            matches!(batch.result, Some(Ok(()))) || batch.outcome.has_recipient_result();
        if batch.is_overflow {
            let all_refused =
                matches!(&batch.result, Some(Err(error)) if error.phase() == Phase::Rcpt);
            if !has_gained && (!all_refused || batch.outcome.may_be_at_limit()) {
                self.overflow.clear();
            }
        } else if overflow.is_empty() {
            return;
        } else if let Some(Err(error)) = &batch.result
            && let refused @ [_, ..] = batch.outcome.refused_with_too_many(error)
        {
            // With one more than these, all would be refused again.
            self.overflow_max = self.overflow_max.min(refused.len());
            overflow.extend(refused);
            overflow.sort_unstable();
            has_gained = true;
        }
        self.overflow_size = (2 * (batch.places.len() - batch.outcome.over_limit().len()).max(1))
            .min(self.overflow_max);
        if has_gained && self.is_repeatable && !overflow.is_empty() {
            let recipient = |index: usize| {
                (
                    batch.places[index],
                    batch.outcome.recipients[index].address.clone(),
                )
            };
            self.overflow
                .push_front(overflow.into_iter().map(recipient).collect());
        }
    }

    /// Handles the end of the session, or a batch that could not be started. Of the batches without
    /// an outcome, the first `unknown` may have been delivered.
    pub(super) fn connection_lost(&mut self, error: Error, unknown: usize) {
        let unknown = unknown.min(self.unanswered());
        let refusal = self.refusal().cloned();
        // The remaining recipients get this error, too.
        let (places, recipients): (Vec<_>, Vec<_>) = std::mem::take(&mut self.overflow)
            .into_iter()
            .flatten()
            .unzip();
        if !places.is_empty() {
            self.batches
                .push(RecipientBatch::new(None, places, recipients));
        }
        for (i, batch) in self.batches[self.finished..].iter_mut().enumerate() {
            let error = match &refusal {
                Some(refusal) if i >= unknown => refusal.clone(),
                _ => error.clone().with_outcome_unknown(i < unknown),
            };
            batch.result = Some(Err(batch.outcome.connection_lost(error)));
        }
        (self.started, self.finished) = (self.batches.len(), self.batches.len());
    }

    /// The delivery, for the receipt; and the error, if no recipient accepted the message, or the
    /// outcome is unknown.
    pub(super) fn finish(self, session: &Facts<'_>) -> (Delivery, Result<()>) {
        let session = &Facts {
            recipients: self.recipients,
            ..*session
        };
        let refusal = self.refusal().cloned();
        let several = self.batches.len() > 1;
        let mut reply = None;
        let mut recipients: Vec<Option<Recipient>> = Vec::new();
        let mut failure: Option<Error> = None;
        let mut untried_reason = None;
        let mut is_incomplete = false;
        let mut is_over_limit = false;
        for RecipientBatch {
            places,
            mut outcome,
            result,
            ..
        } in self.batches
        {
            reply = outcome.reply.clone().or(reply);
            is_over_limit |= !outcome.over_limit().is_empty();
            if let Some(Err(error)) = result {
                let error = match &refusal {
                    Some(refusal) if is_end_of_session(&error) => refusal.clone(),
                    _ => error.advised(&outcome.facts(session)),
                };
                outcome.ended_by(&error);
                // Not if the session ended before the reply to MAIL.
                if several
                    && error.kind() == ErrorKind::Refused
                    && error.phase() == Phase::Mail
                    && let Some(reply) = error.reply()
                {
                    // The message as a whole may succeed, without an error that says this.
                    outcome
                        .recipients
                        .iter_mut()
                        .for_each(|recipient| recipient.outcome = Outcome::Refused(reply.clone()));
                }
                let untried = outcome
                    .recipients
                    .iter()
                    .any(|recipient| recipient.outcome == Outcome::NotTried);
                is_incomplete |= untried;
                // The batches after a 421 only found the session closed.
                if untried || error.reply().is_some_and(|reply| reply.code() == 421) {
                    untried_reason.get_or_insert_with(|| error.to_string());
                }
                outcome.advise(session, Some(&error));
                if failure
                    .as_ref()
                    .is_none_or(|before| error.outcome_unknown() && !before.outcome_unknown())
                {
                    failure = Some(error);
                }
            } else {
                outcome.advise(session, None);
            }
            for (place, recipient) in places.into_iter().zip(outcome.recipients) {
                recipients.resize_with(recipients.len().max(place + 1), || None);
                match &mut recipients[place] {
                    Some(earlier) => earlier.update(recipient),
                    first => *first = Some(recipient),
                }
            }
        }
        let mut delivery = Delivery {
            recipients: recipients.into_iter().flatten().collect(),
            reply,
            incomplete_reason: None,
            transactions: self.transactions,
            handed_over: self.handed_over
                || self.handovers.as_ref().is_some_and(Handovers::is_permitted),
            bytes: self.bytes,
        };
        // Whatever the server refused, too: the message is not to be sent again.
        if let (Some(error), Some(refusal)) = (&mut failure, refusal)
            && !error.outcome_unknown()
        {
            *error = refusal;
        }
        let is_accepted = |recipient: &Recipient| recipient.outcome.is_accepted();
        match failure {
            Some(error)
                if error.outcome_unknown() || !delivery.recipients.iter().any(is_accepted) =>
            {
                (delivery, Err(error))
            }
            _ => {
                let once = is_over_limit && !self.is_repeatable;
                let untried_reason = untried_reason.filter(|_| is_incomplete);
                delivery.incomplete_reason =
                    untried_reason.or_else(|| once.then(|| errors::ONCE.to_owned()));
                (delivery, Ok(()))
            }
        }
    }
}

/// The session ended, and the message was certainly not sent for that reason.
fn is_end_of_session(error: &Error) -> bool {
    let has_ended = match error.reply() {
        Some(reply) => reply.code() == 421,
        None => error.kind() == ErrorKind::Closed,
    };
    has_ended && !error.outcome_unknown()
}

impl RecipientBatch {
    fn new(sender: Option<&Address>, places: Vec<usize>, recipients: Vec<Address>) -> Self {
        let outcome = TransactionOutcome::new(sender.cloned(), recipients.clone());
        RecipientBatch {
            places,
            recipients,
            is_overflow: false,
            outcome,
            result: None,
        }
    }
}
