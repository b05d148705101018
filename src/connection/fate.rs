//! What becomes of a message on its way: the machine's steps → an outcome for each recipient.

use super::{not_sent, words};
use crate::Address;
use crate::error::{Error, Phase, Result};
use crate::proto::{Reply, Step};
use crate::receipt::{Outcome, Recipient};

/// A message in one transaction, as far as the server has told about it.
pub(super) struct Fate {
    sender: Option<Address>,
    /// In the envelope's order.
    pub(super) recipients: Vec<Recipient>,
    /// Those whose outcome is final, whatever follows.
    decided: Vec<bool>,
    /// The server's final words: on the message, or on why it was not sent.
    pub(super) reply: Option<Reply>,
}

impl Fate {
    /// Of a message that the server was not asked about yet.
    pub(super) fn new(sender: Option<Address>, recipients: Vec<Address>) -> Self {
        Fate {
            sender,
            decided: vec![false; recipients.len()],
            recipients: recipients.into_iter().map(Recipient::untried).collect(),
            reply: None,
        }
    }

    /// Takes an event. `Some`, where it was the last one about this message.
    pub(super) fn hear(&mut self, step: Step) -> Option<Result<()>> {
        match step {
            Step::Recipient { index, ref reply } | Step::Verdict { index, ref reply } => {
                self.decided[index] = matches!(step, Step::Verdict { .. });
                let (reply, is_positive) = (reply.clone(), reply.is_positive());
                self.recipients[index].final_reply = (is_positive && self.decided[index]).then(|| reply.clone());
                self.recipients[index].outcome =
                    if is_positive { Outcome::Accepted(reply) } else { Outcome::Refused(reply) };
                None
            }
            Step::Sent { reply } => {
                for recipient in self.recipients.iter_mut().filter(|recipient| recipient.outcome.is_accepted()) {
                    recipient.final_reply.get_or_insert_with(|| reply.clone());
                }
                self.reply = Some(reply);
                Some(Ok(()))
            }
            Step::NotSent { phase, reply } => {
                match phase {
                    // The replies to RCPT behind it only say that MAIL was missing.
                    Phase::Mail => {
                        self.recipients.iter_mut().for_each(|recipient| recipient.outcome = Outcome::NotTried)
                    }
                    Phase::Rcpt => self.accepted_become(&Outcome::NotTried),
                    _ => self.accepted_become(&Outcome::Refused(reply.clone())),
                }
                self.reply = Some(reply.clone());
                Some(Err(words::refusal(phase, reply, self.sender.as_ref(), &self.recipients)))
            }
            Step::Closed => Some(Err(self.lost(not_sent(step)))),
            _ => None,
        }
    }

    /// The session ended before the message had its final reply: the error, as it is to be told of this message.
    pub(super) fn lost(&mut self, error: Error) -> Error {
        self.reply = error.reply().cloned();
        if !error.outcome_unknown() {
            self.accepted_become(&Outcome::NotTried);
            return error;
        }
        // A small message may have gone whole before the replies to RCPT came.
        let undecided = self.recipients.iter_mut().zip(&self.decided).filter(|(_, decided)| !**decided);
        undecided.for_each(|(recipient, _)| recipient.outcome.become_unknown());
        words::unknown(error, &self.recipients)
    }

    fn accepted_become(&mut self, outcome: &Outcome) {
        for recipient in self.recipients.iter_mut().filter(|recipient| recipient.outcome.is_accepted()) {
            recipient.outcome = outcome.clone();
        }
    }
}
