//! Many messages: an iterator drives the stream of `send_all`.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;

use super::runtime::block_on;
use crate::error::Result;
use crate::{Message, Receipt};

/// The messages as a stream. The next one is taken from the caller's iterator outside the runtime,
/// because the iterator may block, on another runtime, too.
pub(super) struct Input<'m>(Arc<Mutex<Slot<'m>>>);

#[derive(Default)]
struct Slot<'m> {
    message: Option<Message<'m>>,
    is_wanted: bool,
    has_ended: bool,
}

impl<'m> Input<'m> {
    fn slot(&self) -> MutexGuard<'_, Slot<'m>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'m> Stream for Input<'m> {
    type Item = Message<'m>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Message<'m>>> {
        let mut slot = self.slot();
        if slot.message.is_some() || slot.has_ended {
            return Poll::Ready(slot.message.take());
        }
        // Without a waker: `Outcomes` polls again once it has filled the slot.
        slot.is_wanted = true;
        Poll::Pending
    }
}

/// The outcome of each message.
pub(super) struct Outcomes<'m, I, S> {
    messages: I,
    input: Input<'m>,
    /// `None` after its end.
    outcomes: Option<Pin<Box<S>>>,
}

impl<'m, I, S> Outcomes<'m, I, S>
where
    I: Iterator<Item = Message<'m>>,
    S: Stream<Item = Result<Receipt>>,
{
    pub(super) fn new(messages: I, send_all: impl FnOnce(Input<'m>) -> S) -> Self {
        let slot = Arc::default();
        let input = Input(Arc::clone(&slot));
        Outcomes {
            messages,
            outcomes: Some(Box::pin(send_all(Input(slot)))),
            input,
        }
    }
}

impl<'m, I, S> Iterator for Outcomes<'m, I, S>
where
    I: Iterator<Item = Message<'m>>,
    S: Stream<Item = Result<Receipt>>,
{
    type Item = Result<Receipt>;

    fn next(&mut self) -> Option<Result<Receipt>> {
        loop {
            let outcomes = self.outcomes.as_mut()?;
            // Ends when there is an outcome, or with `Pending` when a message is wanted.
            let waiting = poll_fn(|cx| {
                let outcome = outcomes.as_mut().poll_next(cx);
                let is_wanted = std::mem::take(&mut self.input.slot().is_wanted);
                match outcome.is_ready() || is_wanted {
                    true => Poll::Ready(Ok(outcome)),
                    false => Poll::Pending,
                }
            });
            match block_on(waiting) {
                Ok(Poll::Pending) => {
                    let message = self.messages.next();
                    let mut slot = self.input.slot();
                    slot.has_ended = message.is_none();
                    slot.message = message;
                }
                Ok(Poll::Ready(Some(outcome))) => return Some(outcome),
                Ok(Poll::Ready(None)) => self.outcomes = None,
                Err(error) => {
                    self.outcomes = None;
                    return Some(Err(error));
                }
            }
        }
    }
}
