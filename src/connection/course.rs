//! The course of a message to its recipients: one transaction, or several, where the server takes fewer recipients at once.

use super::fate::Fate;
use crate::error::{Error, Kind, Phase, Result};
use crate::hint::{self, Facts};
use crate::proto::Step;
use crate::receipt::{Outcome, Receipt};
use crate::{Address, Envelope};

/// A message on its way, in one part or several. Each part is a transaction of its own, with an outcome of its own.
pub(super) struct Course {
    parts: Vec<Part>,
    /// How many of them have begun.
    begun: usize,
}

struct Part {
    /// Where its recipients stand in the envelope.
    places: Vec<usize>,
    recipients: Vec<Address>,
    fate: Fate,
    /// What became of it.
    outcome: Option<Result<()>>,
}

impl Course {
    /// `parts` has the places of the recipients in the envelope, each in one part.
    pub(super) fn new(envelope: &Envelope, parts: Vec<Vec<usize>>) -> Self {
        let part = |places: Vec<usize>| {
            let recipients: Vec<Address> = places.iter().map(|place| envelope.recipients()[*place].clone()).collect();
            let fate = Fate::new(envelope.reverse_path().cloned(), recipients.clone());
            Part { places, recipients, fate, outcome: None }
        };
        Course { parts: parts.into_iter().map(part).collect(), begun: 0 }
    }

    /// The recipients of the next part, which begins now.
    pub(super) fn next_part(&mut self) -> Option<Vec<Address>> {
        let part = self.parts.get_mut(self.begun)?;
        self.begun += 1;
        Some(std::mem::take(&mut part.recipients))
    }

    /// There is another part to begin, after the first one.
    pub(super) fn goes_on(&self) -> bool {
        (1..self.parts.len()).contains(&self.begun)
    }

    /// In how many parts it goes.
    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// How many parts have begun and have no outcome.
    pub(super) fn unanswered(&self) -> usize {
        self.parts[..self.begun].iter().filter(|part| part.outcome.is_none()).count()
    }

    pub(super) fn is_over(&self) -> bool {
        self.parts.iter().all(|part| part.outcome.is_some())
    }

    /// Takes an event, which is about the first part without an outcome.
    pub(super) fn hear(&mut self, step: Step) {
        if let Some(part) = self.parts.iter_mut().find(|part| part.outcome.is_none()) {
            part.outcome = part.fate.hear(step);
        }
    }

    /// The session ended, or the next part could not begin. Of the parts without an outcome, the first so many may have been delivered.
    pub(super) fn lost(&mut self, error: Error, unknown: usize) {
        let unknown = unknown.min(self.unanswered());
        let mut loss = Loss::new(error);
        for (i, part) in self.parts.iter_mut().filter(|part| part.outcome.is_none()).enumerate() {
            part.outcome = Some(Err(part.fate.lost(loss.error().with_outcome_unknown(i < unknown))));
        }
        self.begun = self.parts.len();
    }

    /// What became of the message goes into the receipt. It has failed where nobody gets it, or nobody knows.
    pub(super) fn end(self, receipt: &mut Receipt, session: &Facts<'_>) -> Result<()> {
        let several = self.parts.len() > 1;
        let mut recipients = Vec::new();
        let mut failure: Option<Error> = None;
        for Part { places, mut fate, outcome, .. } in self.parts {
            receipt.reply = fate.reply.take().or(receipt.reply.take());
            if let Some(Err(error)) = outcome {
                let error = error.advised(session);
                if several
                    && error.phase() == Phase::Mail
                    && let Some(reply) = error.reply()
                {
                    // There may be no error that tells of it.
                    fate.recipients
                        .iter_mut()
                        .for_each(|recipient| recipient.outcome = Outcome::Refused(reply.clone()));
                }
                if failure.as_ref().is_none_or(|before| error.outcome_unknown() && !before.outcome_unknown()) {
                    failure = Some(error);
                }
            }
            recipients.extend(places.into_iter().zip(fate.recipients));
        }
        recipients.sort_by_key(|(place, _)| *place);
        receipt.recipients = recipients.into_iter().map(|(_, recipient)| recipient).collect();
        match failure {
            Some(error)
                if error.outcome_unknown() || !receipt.recipients.iter().any(|one| one.outcome.is_accepted()) =>
            {
                Err(error)
            }
            Some(error) => {
                let untried = receipt.recipients.iter().any(|recipient| recipient.outcome == Outcome::NotTried);
                receipt.incomplete_because = untried.then(|| error.to_string());
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// What ended the session, for everything that ended with it.
pub(super) struct Loss {
    message: String,
    error: Option<Error>,
}

impl Loss {
    pub(super) fn new(error: Error) -> Self {
        Loss { message: error.message().to_owned(), error: Some(error) }
    }

    /// The first one gets the error itself, with its cause; the others one that says the same.
    pub(super) fn error(&mut self) -> Error {
        self.error.take().unwrap_or_else(|| {
            Error::new(Kind::Closed, Phase::Body, self.message.as_str()).with_hint(hint::for_end(Phase::Body, false))
        })
    }

    /// The error itself, where nobody has got it.
    pub(super) fn left(self) -> Option<Error> {
        self.error
    }
}
