//! The hand-over of a message: the caller's callback before its last byte.

use std::error::Error as StdError;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::{Address, Error, ErrorKind, Phase, Result, telemetry};

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
    /// to a retry, to a further transaction, or to another server of a `Failover`.
    pub number: u32,
    /// The size of the message in bytes, without added dots and the final one.
    pub bytes: u64,
}

/// The function that the caller gave.
pub(super) type HandoverCallback =
    Arc<dyn Fn(Handover) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The hand-overs of a message in all of its transactions in a call, which share what the callback
/// has decided.
#[derive(Clone)]
pub(crate) struct Handovers {
    callback: HandoverCallback,
    decisions: Arc<Decisions>,
}

#[derive(Default)]
struct Decisions {
    /// The number of calls of the callback.
    started: AtomicU32,
    is_permitted: AtomicBool,
    /// The first error of the callback.
    refusal: OnceLock<Error>,
}

impl Handovers {
    pub(super) fn new(callback: HandoverCallback) -> Self {
        Handovers {
            callback,
            decisions: Arc::default(),
        }
    }

    pub(super) fn callback(&self) -> HandoverCallback {
        self.callback.clone()
    }

    /// Calls the callback for another transaction, once the future is polled. It is not called
    /// again after it has returned an error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Handover`] with the error of the callback.
    pub(crate) fn start(
        &self,
        recipients: Vec<Address>,
        bytes: u64,
    ) -> BoxFuture<'static, Result<()>> {
        let Handovers {
            callback,
            decisions,
        } = self.clone();
        Box::pin(async move {
            if let Some(refusal) = decisions.refusal.get() {
                return Err(refusal.clone());
            }
            let number = 1 + decisions.started.fetch_add(1, Ordering::Relaxed);
            let handover = Handover {
                recipients,
                number,
                bytes,
            };
            let began = Instant::now();
            let result = callback(handover).await;
            let result =
                result.map_err(|error| decisions.refusal.get_or_init(|| refused(error)).clone());
            if result.is_ok() {
                decisions.is_permitted.store(true, Ordering::Relaxed);
            }
            telemetry::handover(number, &result, began.elapsed());
            result
        })
    }

    /// Whether the callback has permitted a hand-over.
    pub(crate) fn is_permitted(&self) -> bool {
        self.decisions.is_permitted.load(Ordering::Relaxed)
    }

    /// The error by which the callback has refused a hand-over. The message is not sent any more.
    pub(crate) fn refusal(&self) -> Option<&Error> {
        self.decisions.refusal.get()
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
