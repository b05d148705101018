//! The messages that `send_all` has taken and whose outcome it has not returned, in their order.
//!
//! No step takes longer the more messages there are, except for the end of the session, which
//! concerns all of them.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::clock::Clock;
use super::submission::Submission;
use super::{Connection, MessageStart, not_sent};
use crate::SendWindow;
use crate::error::{Error, Result};
use crate::message::PreparedMessage;
use crate::proto::Step;
use crate::receipt::{Delivery, Receipt};

/// A message of which nothing was sent, because the session ended before. Another connection can
/// send it.
pub(crate) struct Unsent {
    pub(crate) prepared: Box<PreparedMessage>,
    /// When it was taken from the stream.
    pub(crate) taken_at: Instant,
    pub(super) clock: Clock,
}

/// The outcome of a message.
pub(crate) enum Settled {
    Outcome(Result<Receipt>),
    /// It was not sent, and its outcome is this error unless another connection sends it.
    Unsent(
        #[cfg_attr(not(feature = "pool"), expect(dead_code, reason = "a pool has others"))] Unsent,
        Error,
    ),
    /// The session ended between two messages.
    Lost(Error),
}

/// The messages in flight, each with a number that stays.
pub(super) struct InFlight {
    window: SendWindow,
    messages: VecDeque<InFlightMessage>,
    /// The number of the first message.
    first: usize,
    /// The number of the first message without an outcome, or of one before it.
    first_pending: usize,
    /// The messages that were not started.
    queued: VecDeque<usize>,
    /// The messages that need a further transaction, which can be started.
    with_further: BTreeSet<usize>,
    /// The messages that the end of the session left untouched, and that can be sent again.
    untouched: BTreeSet<usize>,
    /// The size of the messages that were started.
    bytes: u64,
    /// The session has ended, and is not replaced.
    given_up: bool,
}

pub(super) struct InFlightMessage {
    stage: Stage,
    start: MessageStart,
    /// The time limits of the message; moved to the connection when this becomes the oldest pending
    /// message.
    clock: Option<Clock>,
    /// The message from its beginning: for its first transaction, and where a further one may
    /// follow, or another connection.
    pub(super) prepared: Option<Box<PreparedMessage>>,
    /// Its share of the window.
    size: u64,
}

enum Stage {
    Queued,
    Started(Submission),
    /// It could not be prepared, or no connection was available for it.
    Failed(Error),
    /// Not a message: the connection was lost between two of them.
    Lost(Error),
}

impl InFlight {
    pub(super) fn new(window: SendWindow) -> Self {
        InFlight {
            window,
            messages: VecDeque::new(),
            first: 0,
            first_pending: 0,
            queued: VecDeque::new(),
            with_further: BTreeSet::new(),
            untouched: BTreeSet::new(),
            bytes: 0,
            given_up: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether another message can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.messages.len() < self.window.messages.max(1)
    }

    /// Adds a message to the queue.
    pub(super) fn push(
        &mut self,
        prepared: Box<PreparedMessage>,
        start: MessageStart,
        clock: Clock,
    ) {
        self.queued.push_back(self.first + self.messages.len());
        // One of unknown size is sent alone, if the size is limited.
        let size = prepared.size().or(self.window.bytes);
        self.messages.push_back(InFlightMessage {
            stage: Stage::Queued,
            start,
            clock: Some(clock),
            prepared: Some(prepared),
            size: size.unwrap_or_default(),
        });
    }

    /// Adds a message that cannot be sent.
    pub(super) fn push_failed(&mut self, error: Error, start: MessageStart) {
        self.push_ended(Stage::Failed(error), start);
    }

    /// Adds the loss of the connection between two messages.
    pub(super) fn push_lost(&mut self, error: Error, start: MessageStart) {
        self.push_ended(Stage::Lost(error), start);
    }

    fn push_ended(&mut self, stage: Stage, start: MessageStart) {
        self.messages.push_back(InFlightMessage {
            stage,
            start,
            clock: None,
            prepared: None,
            size: 0,
        });
    }

    /// Removes the first message if it has its outcome.
    pub(super) fn pop_finished(&mut self) -> Option<InFlightMessage> {
        let given_up = self.given_up;
        let message = self.messages.front_mut()?;
        if !message.is_over() || message.is_untouched() && !given_up {
            return None;
        }
        if !given_up {
            message.prepared = None;
        }
        if let Stage::Started(_) = message.stage {
            self.bytes = self.bytes.saturating_sub(message.size);
        }
        self.first += 1;
        self.messages.pop_front()
    }

    /// Removes all messages, in their order.
    pub(super) fn take_messages(&mut self) -> impl Iterator<Item = InFlightMessage> + use<> {
        let messages = std::mem::take(&mut self.messages);
        messages.into_iter().filter(InFlightMessage::is_message)
    }

    /// The time limits of the first message without an outcome, once.
    pub(super) fn first_clock(&mut self) -> Option<Clock> {
        self.first_pending = self.first_pending.max(self.first);
        while let Some(message) = self.messages.get_mut(self.first_pending - self.first) {
            if !message.is_over() {
                return message.clock.take();
            }
            self.first_pending += 1;
        }
        None
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Whether a message is queued that the window has room for.
    pub(super) fn can_start_queued(&self) -> bool {
        let fits = |message: &InFlightMessage| {
            let limit = self.window.bytes.unwrap_or(u64::MAX);
            self.bytes == 0 || self.bytes.saturating_add(message.size) <= limit
        };
        let first = self.queued.front();
        first
            .and_then(|number| self.messages.get(number - self.first))
            .is_some_and(fits)
    }

    /// The first message in the queue.
    pub(super) fn first_queued(&mut self) -> Option<&mut InFlightMessage> {
        let number = self.queued.front()?;
        self.messages.get_mut(number - self.first)
    }

    /// Moves the first message out of the queue, and returns its number.
    pub(super) fn start_queued(&mut self, submission: Submission) -> usize {
        let number = self.queued.pop_front().unwrap_or(self.first);
        if let Some(message) = self.messages.get_mut(number - self.first) {
            message.stage = Stage::Started(submission);
            self.bytes = self.bytes.saturating_add(message.size);
        }
        self.update(number);
        number
    }

    /// The first message that needs a further transaction, which can be started.
    pub(super) fn first_with_further(&self) -> Option<usize> {
        self.with_further.first().copied()
    }

    /// Whether the end of the session left a message untouched that can be sent again.
    pub(super) fn has_untouched(&self) -> bool {
        !self.untouched.is_empty()
    }

    /// The message with this number, if it was started.
    pub(super) fn started(
        &mut self,
        number: usize,
    ) -> Option<(&mut Submission, &mut Option<Box<PreparedMessage>>)> {
        let message = self.messages.get_mut(number.checked_sub(self.first)?)?;
        match &mut message.stage {
            Stage::Started(submission) => Some((submission, &mut message.prepared)),
            _ => None,
        }
    }

    /// All messages that were started, with their numbers.
    pub(super) fn all_started(&mut self) -> impl Iterator<Item = (usize, &mut Submission)> {
        let numbered = (self.first..).zip(&mut self.messages);
        numbered.filter_map(|(number, message)| match &mut message.stage {
            Stage::Started(submission) => Some((number, submission)),
            _ => None,
        })
    }

    /// Notes what the last event, or a transaction that was started, means for what comes next.
    pub(super) fn update(&mut self, number: usize) {
        let message = self.messages.get(number - self.first);
        let Some(message) = message else {
            return;
        };
        let has_further = matches!(&message.stage, Stage::Started(s) if s.has_next_batch());
        for (set, is_in) in [
            (&mut self.with_further, has_further),
            (&mut self.untouched, message.is_untouched()),
        ] {
            match is_in {
                true => set.insert(number),
                false => set.remove(&number),
            };
        }
    }

    /// Queues the messages that were not sent because the session ended for another connection.
    pub(super) fn requeue_untouched(&mut self) {
        for message in &mut self.messages {
            if message.is_untouched() {
                message.stage = Stage::Queued;
                self.bytes = self.bytes.saturating_sub(message.size);
            }
        }
        let numbered = (self.first..).zip(&self.messages);
        let queued = numbered.filter(|(_, message)| matches!(message.stage, Stage::Queued));
        self.queued = queued.map(|(number, _)| number).collect();
        self.with_further.clear();
        self.untouched.clear();
        self.first_pending = self.first;
    }

    /// Ends the messages that were not started, each by this submission. None is sent again over
    /// this connection; with `keep`, those of which nothing was sent can be sent over another.
    pub(super) fn give_up(
        &mut self,
        keep: bool,
        mut end: impl FnMut(&InFlightMessage) -> Submission,
    ) {
        self.given_up = true;
        for message in &mut self.messages {
            let mut is_unsent = message.is_untouched();
            if let Stage::Queued = message.stage {
                is_unsent = true;
                message.stage = Stage::Started(end(message));
                self.bytes = self.bytes.saturating_add(message.size);
            }
            if !(keep && is_unsent) {
                message.prepared = None;
            }
        }
        self.queued.clear();
        self.with_further.clear();
        self.untouched.clear();
    }
}

impl InFlightMessage {
    fn is_over(&self) -> bool {
        match &self.stage {
            Stage::Queued => false,
            Stage::Started(submission) => submission.is_over(),
            Stage::Failed(_) | Stage::Lost(_) => true,
        }
    }

    /// Whether its outcome can be returned.
    fn is_finished(&self) -> bool {
        self.is_over() && !self.is_untouched()
    }

    /// The time since it was taken from the stream.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.at.elapsed()
    }

    /// Whether it is a message, and not the loss of the connection.
    fn is_message(&self) -> bool {
        !matches!(self.stage, Stage::Lost(_))
    }

    /// The session ended before the server took anything of the message, and it can be sent again.
    fn is_untouched(&self) -> bool {
        match &self.stage {
            Stage::Started(submission) => self.prepared.is_some() && submission.is_untouched(),
            _ => false,
        }
    }

    /// Splits the recipients into transactions.
    pub(super) fn new_submission(&self, connection: &Connection) -> Submission {
        let message = self.prepared.as_deref();
        connection.new_submission(message.expect("a message in the queue was prepared"))
    }

    /// The outcome of the message.
    pub(super) fn finish(mut self, connection: &Connection) -> Settled {
        let unsent = self.prepared.take().map(|prepared| Unsent {
            prepared,
            taken_at: self.start.at,
            // That of the first message without an outcome was given to the connection.
            clock: self
                .clock
                .take()
                .unwrap_or_else(|| connection.driver.clock.clone()),
        });
        let is_message = self.is_message();
        match (self.result(connection), unsent) {
            (Err(error), _) if !is_message => Settled::Lost(error),
            (Err(error), Some(unsent)) => Settled::Unsent(unsent, error),
            (result, _) => Settled::Outcome(result),
        }
    }

    /// The outcome, if it is known, of a message that is not waited for any more.
    pub(super) fn into_outcome(self, connection: &Connection) -> Option<Result<Receipt>> {
        self.is_finished().then(|| self.result(connection))
    }

    fn result(self, connection: &Connection) -> Result<Receipt> {
        let facts = connection.facts();
        let mut session = connection.info.clone();
        let (delivery, result) = match self.stage {
            Stage::Started(submission) => {
                if let Some(of_transaction) = submission.session() {
                    session.clone_from(of_transaction);
                }
                submission.finish(&facts)
            }
            Stage::Failed(error) | Stage::Lost(error) => (Delivery::default(), Err(error)),
            Stage::Queued => (Delivery::default(), Err(not_sent(Step::Closed))),
        };
        let receipt = connection.receipt(&session, delivery, self.start);
        match result {
            Ok(()) => Ok(receipt),
            Err(error) => Err(error.advised(&facts).with_receipt(receipt)),
        }
    }
}
