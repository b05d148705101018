//! The outcome of a transaction: from the machine's steps to an outcome for each recipient.

use std::collections::BTreeSet;

use super::{errors, not_sent};
use crate::Address;
use crate::diagnose::{self, Advice, Facts};
use crate::error::{Error, Phase, Result};
use crate::proto::{Event, Reply, Step};
use crate::receipt::{Outcome, Recipient};

/// The outcome of one transaction so far.
pub(super) struct TransactionOutcome {
    sender: Option<Address>,
    /// In the envelope's order.
    pub(super) recipients: Vec<Recipient>,
    /// The indices of the recipients whose outcome is final, whatever follows: those with a final
    /// reply of their own (LMTP, PRDR).
    decided: BTreeSet<usize>,
    /// The indices of the recipients whose RCPT was accepted, whatever happened afterwards.
    accepted: Vec<usize>,
    /// The indices of the recipients that were refused as too many for the transaction.
    over_limit: Vec<usize>,
    /// The final reply: to the message, or the refusal because of which it was not sent.
    pub(super) reply: Option<Reply>,
}

impl TransactionOutcome {
    /// The outcome before anything was sent.
    pub(super) fn new(sender: Option<Address>, recipients: Vec<Address>) -> Self {
        TransactionOutcome {
            sender,
            decided: BTreeSet::new(),
            accepted: Vec::new(),
            over_limit: Vec::new(),
            recipients: recipients.into_iter().map(Recipient::untried).collect(),
            reply: None,
        }
    }

    /// Handles an event. `Some` if it was the last one about this message.
    pub(super) fn on_step(&mut self, step: Step) -> Option<Result<()>> {
        match step {
            Step::Event(Event::Recipient { index, ref reply })
            | Step::Event(Event::RecipientResult { index, ref reply }) => {
                let is_final = matches!(step, Step::Event(Event::RecipientResult { .. }));
                if is_final {
                    self.decided.insert(index);
                }
                let (reply, is_positive) = (reply.clone(), reply.is_positive());
                let is_over_limit =
                    !self.accepted.is_empty() && !is_final && is_recipient_limit(&reply);
                if is_over_limit {
                    self.over_limit.push(index);
                } else if is_positive && !is_final {
                    self.accepted.push(index);
                }
                self.recipients[index].transient = is_over_limit || reply.is_transient();
                self.recipients[index].final_reply =
                    (is_positive && is_final).then(|| reply.clone());
                self.recipients[index].outcome = if is_positive {
                    Outcome::Accepted(reply)
                } else {
                    Outcome::Refused(reply)
                };
                None
            }
            Step::Event(Event::Accepted { reply }) => {
                for recipient in self
                    .recipients
                    .iter_mut()
                    .filter(|recipient| recipient.outcome.is_accepted())
                {
                    recipient.final_reply.get_or_insert_with(|| reply.clone());
                }
                self.reply = Some(reply);
                Some(Ok(()))
            }
            Step::Event(Event::Rejected { phase, reply }) => {
                match phase {
                    // The replies to RCPT after it only say that MAIL was missing.
                    Phase::Mail => self
                        .recipients
                        .iter_mut()
                        .for_each(|recipient| recipient.outcome = Outcome::NotTried),
                    Phase::Rcpt => self.set_accepted_to(&Outcome::NotTried),
                    Phase::Data
                    | Phase::Body
                    | Phase::Setup
                    | Phase::Connect
                    | Phase::Tls
                    | Phase::Greeting
                    | Phase::Hello
                    | Phase::StartTls
                    | Phase::Auth
                    | Phase::Handover
                    | Phase::EndOfData
                    | Phase::Reset
                    | Phase::Noop
                    | Phase::Command
                    | Phase::Quit => self.set_accepted_to(&Outcome::Refused(reply.clone())),
                }
                self.reply = Some(reply.clone());
                Some(Err(errors::refusal(
                    phase,
                    reply,
                    self.sender.as_ref(),
                    &self.recipients,
                )))
            }
            Step::Closed => Some(Err(self.connection_lost(not_sent(step)))),
            _ => None,
        }
    }

    /// Handles the end of the session before the final reply. Returns the error for this message.
    pub(super) fn connection_lost(&mut self, error: Error) -> Error {
        self.reply = error.reply().cloned();
        if !error.outcome_unknown() {
            self.set_accepted_to(&Outcome::NotTried);
            return error;
        }
        // A small message may have been written whole before the replies to RCPT arrived.
        for (index, recipient) in self.recipients.iter_mut().enumerate() {
            if !self.decided.contains(&index) {
                recipient.outcome.become_unknown();
            }
        }
        errors::unknown(error, &self.recipients)
    }

    /// The facts of the message, added to those of the session.
    pub(super) fn facts<'a>(&'a self, session: &Facts<'a>) -> Facts<'a> {
        let sender = self.sender.as_ref().map(Address::as_str);
        Facts { sender, ..*session }
    }

    /// Adds a hint for each recipient that does not get the message. `error` is why the transaction
    /// failed for the remaining ones.
    pub(super) fn advise(&mut self, session: &Facts<'_>, error: Option<&Error>) {
        let refused_in = error.map_or(Phase::Rcpt, Error::phase);
        let mut before: Option<(Phase, Reply, Advice)> = None;
        for index in 0..self.recipients.len() {
            let reply = match &self.recipients[index].outcome {
                Outcome::Refused(reply) => reply,
                Outcome::Accepted(_) => continue,
                Outcome::NotTried | Outcome::Unknown => {
                    self.recipients[index].hint = error
                        .and_then(Error::hint)
                        .map(|hint| hint.to_owned().into());
                    continue;
                }
            };
            let phase = match refused_in {
                _ if self.decided.contains(&index) => Phase::EndOfData,
                Phase::Mail | Phase::Rcpt => refused_in,
                // The recipient was refused by RCPT, before the message was by this reply.
                _ if self.reply.as_ref() != Some(reply) => Phase::Rcpt,
                _ => refused_in,
            };
            let facts = Facts {
                phase,
                reply: Some(reply),
                ..self.facts(session)
            };
            // Most recipients are refused for the same reason.
            let known = before.take_if(|(at, same, _)| *at == phase && same == reply);
            let advice = known
                .map(|(_, _, advice)| advice)
                .or_else(|| diagnose::for_refusal(&facts));
            let reply = reply.clone();
            let recipient = &mut self.recipients[index];
            recipient.transient &= !advice.as_ref().is_some_and(|advice| advice.lasts);
            recipient.hint = advice.as_ref().map(|advice| advice.text.clone());
            before = advice.map(|advice| (phase, reply, advice));
        }
    }

    fn set_accepted_to(&mut self, outcome: &Outcome) {
        for recipient in self
            .recipients
            .iter_mut()
            .filter(|recipient| recipient.outcome.is_accepted())
        {
            recipient.outcome = outcome.clone();
            recipient.transient =
                matches!(outcome, Outcome::Refused(reply) if reply.is_transient());
        }
    }

    pub(super) fn sender(&self) -> Option<&Address> {
        self.sender.as_ref()
    }

    /// The indices of the recipients that the server refused as too many for this transaction.
    pub(super) fn over_limit(&self) -> &[usize] {
        &self.over_limit
    }

    /// The recipients that were accepted until there were too many, and the server refused the
    /// message for that. It does so where it takes too many recipients for a sign of spam (Exim's
    /// `recipients_max_reject`): 552 to RCPT, 554 to DATA.
    pub(super) fn refused_with_too_many(&self, error: &Error) -> &[usize] {
        let is_552 = |index: &usize| {
            let outcome = &self.recipients[*index].outcome;
            matches!(outcome, Outcome::Refused(reply) if reply.code() == 552)
        };
        let names_recipients =
            |reply: &Reply| reply.text().to_ascii_lowercase().contains("recipients");
        let is_refused = error.reply().is_some_and(|reply| {
            reply.is_permanent() && (error.phase() == Phase::Data || names_recipients(reply))
        });
        if is_refused && self.over_limit.iter().any(is_552) {
            &self.accepted
        } else {
            &[]
        }
    }

    /// A recipient has a final reply of its own (LMTP, PRDR).
    pub(super) fn has_recipient_result(&self) -> bool {
        !self.decided.is_empty()
    }

    /// A RCPT was refused for what may be a limit on recipients, and none was accepted.
    pub(super) fn may_be_at_limit(&self) -> bool {
        let at_limit = |recipient: &Recipient| {
            let outcome = &recipient.outcome;
            matches!(outcome, Outcome::Refused(reply) if is_recipient_limit(reply))
        };
        self.accepted.is_empty() && self.recipients.iter().any(at_limit)
    }

    /// Handles the error that ended the transaction: it decides whether the recipients that were
    /// not tried may get the message later.
    pub(super) fn ended_by(&mut self, error: &Error) {
        let refused = |recipient: &Recipient| matches!(recipient.outcome, Outcome::Refused(_));
        // Several recipients may have been refused where the message was to go to all or none, for
        // different reasons.
        let transient = if error.phase() == Phase::Rcpt && error.reply().is_some() {
            let mut recipients = self
                .recipients
                .iter()
                .filter(|recipient| refused(recipient));
            recipients.all(Recipient::is_transient)
        } else {
            error.is_transient()
        };
        // A transient code for what is permanent.
        let lasts = error
            .reply()
            .filter(|reply| reply.is_transient() && error.is_permanent());
        for recipient in &mut self.recipients {
            match &recipient.outcome {
                Outcome::NotTried => recipient.transient = transient,
                Outcome::Refused(reply) if lasts == Some(reply) => recipient.transient = false,
                _ => {}
            }
        }
    }
}

/// The transaction has as many recipients as the server takes in one: 452, and 552 in its place,
/// with X.5.3 or no enhanced code (RFC 5321, 4.5.3.1.10; RFC 3463, 3.6). The same codes also say
/// that a disk or a mailbox is full.
fn is_recipient_limit(reply: &Reply) -> bool {
    let is_about_recipients = || {
        reply
            .enhanced_of_any_class()
            .is_none_or(|code| (code.subject, code.detail) == (5, 3))
    };
    matches!(reply.code(), 452 | 552) && is_about_recipients()
}
