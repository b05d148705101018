//! The receipt of a message that does not go to a server.

use tokio::time::Instant;

use crate::proto::Reply;
use crate::receipt::Delivery;
use crate::{Address, Envelope, Error, Outcome, Receipt, Recipient};

/// A message that a mailer without a server is sending.
pub(crate) struct Submission<'e> {
    /// What [`Receipt::server`] names.
    pub(crate) server: String,
    pub(crate) envelope: &'e Envelope,
    pub(crate) started: Instant,
}

impl Submission<'_> {
    /// The receipt of a message that was taken for all recipients, with a reply as of a server.
    pub(crate) fn accepted(&self, reply: &str, bytes: u64) -> Receipt {
        let reply: Reply = reply.parse().expect("it is one");
        let accept = |address: &Address| Recipient {
            final_reply: Some(reply.clone()),
            ..Recipient::new(address.clone(), Outcome::Accepted(reply.clone()))
        };
        let mut receipt = Receipt::new(&self.server);
        receipt.recipients = self.envelope.recipients().iter().map(accept).collect();
        receipt.reply = Some(reply);
        receipt.transactions = 1;
        receipt.handed_over = true;
        receipt.bytes = bytes;
        receipt.with_elapsed(self.started.elapsed())
    }

    /// Adds the receipt to an error that concerns all recipients.
    pub(crate) fn failed(&self, error: Error, handed_over: bool) -> Error {
        let mut untried = Delivery::untried(
            self.envelope.recipients(),
            error.is_transient(),
            error.reply().cloned(),
        );
        if error.outcome_unknown() {
            let recipients = untried.recipients.iter_mut();
            recipients.for_each(|recipient| recipient.outcome.become_unknown());
        }
        let mut receipt = Receipt::new(&self.server).with_untried(untried);
        receipt.handed_over = handed_over;
        error.with_receipt(receipt.with_elapsed(self.started.elapsed()))
    }
}
