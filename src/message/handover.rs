//! The hand-over of a message: the caller's callback before its last byte.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use futures_util::future::BoxFuture;

use crate::{Address, Error, ErrorKind, Phase, Result};

/// A message that is about to be handed over in a transaction, for
/// [`Message::on_handover`](super::Message::on_handover).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handover {
    /// The recipients that may get the message in this transaction: those that the server accepted
    /// and those that it has not answered yet, as it does where the message goes in one flight with
    /// its commands.
    pub recipients: Vec<Address>,
    /// The number of this hand-over in the call that sends the message, from 1. A later one belongs
    /// to a retry or to a further transaction. `Failover` makes a call for each server.
    pub number: u32,
    /// The size of the message in bytes, without added dots and the final one.
    pub bytes: u64,
}

/// The function that the caller gave.
pub(super) type HandoverCallback =
    Arc<dyn Fn(Handover) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The hand-overs of a message in all of its transactions.
#[derive(Clone)]
pub(crate) struct Handovers {
    callback: HandoverCallback,
    count: Arc<Count>,
}

#[derive(Default)]
struct Count {
    started: AtomicU32,
    is_permitted: AtomicBool,
}

impl Handovers {
    pub(super) fn new(callback: HandoverCallback) -> Self {
        Handovers {
            callback,
            count: Arc::default(),
        }
    }

    pub(super) fn callback(&self) -> HandoverCallback {
        self.callback.clone()
    }

    /// Calls the callback for another transaction, once the future is polled.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Handover`] with the error of the callback.
    pub(crate) fn start(
        &self,
        recipients: Vec<Address>,
        bytes: u64,
    ) -> BoxFuture<'static, Result<()>> {
        let Handovers { callback, count } = self.clone();
        Box::pin(async move {
            let number = 1 + count.started.fetch_add(1, Ordering::Relaxed);
            let handover = Handover {
                recipients,
                number,
                bytes,
            };
            callback(handover).await.map_err(refused)?;
            count.is_permitted.store(true, Ordering::Relaxed);
            Ok(())
        })
    }

    /// Whether the callback has permitted a hand-over.
    pub(crate) fn is_permitted(&self) -> bool {
        self.count.is_permitted.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Handovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handovers").finish_non_exhaustive()
    }
}

fn refused(error: BoxError) -> Error {
    let message = format!("the program did not permit the hand-over of the message: {error}");
    Error::new(ErrorKind::Handover, Phase::Handover, message)
        .with_hint(
            "The message was not sent. The callback of Message::on_handover returned this error: \
                remove its cause, and send the message again.",
        )
        .with_source(error)
}
