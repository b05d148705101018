//! What a pool needs to know and to do about an idle connection.

#[cfg(feature = "blocking")]
use std::future::Future;
use std::time::Duration;

use super::Connection;
use super::call::CallGuard;
use crate::error::{Error, ErrorKind};
use crate::proto::Step;

#[cfg(feature = "blocking")]
tokio::task_local! {
    /// Set within a blocking call.
    static IN_BLOCKING_CALL: ();
}

/// Runs a future as a blocking call.
#[cfg(feature = "blocking")]
pub(crate) fn in_blocking_call<F: Future>(future: F) -> impl Future<Output = F::Output> {
    IN_BLOCKING_CALL.scope((), future)
}

/// Whether this is a blocking call, whose runtime polls its sockets only during such calls.
pub(super) fn is_in_blocking_call() -> bool {
    #[cfg(feature = "blocking")]
    return IN_BLOCKING_CALL.try_with(|()| ()).is_ok();
    #[cfg(not(feature = "blocking"))]
    false
}

impl Connection {
    /// Whether the runtime that polls the socket serves this call: an async call on a connection of
    /// a blocking one would wait for good, and so would a blocking call on a connection of a
    /// runtime that does not run now.
    pub(crate) fn is_for_this_call(&self) -> bool {
        self.is_blocking == is_in_blocking_call()
    }

    /// No call was given up, no transaction is open, and the session has not ended, by what was
    /// read so far.
    pub(crate) fn is_between_messages(&self) -> bool {
        !self.in_call && self.driver.machine.is_between_transactions()
    }

    /// Reads what has arrived meanwhile: the server has not ended the session, nor sent anything
    /// unsolicited.
    pub(crate) async fn is_alive(&mut self) -> bool {
        self.driver.read_available().await;
        // The reply to RSET after a refused message may still be outstanding.
        matches!(self.driver.step(), Ok(Step::Ready | Step::Wait { .. }))
    }

    /// Waits for outstanding replies, such as that to RSET after a refused message. `false` if the
    /// session ends instead: nothing of the next message was sent then.
    pub(crate) async fn is_ready(&mut self) -> bool {
        let Ok(mut call) = CallGuard::start(self) else {
            return false;
        };
        let result = call.driver.until_ready().await;
        call.complete();
        result.is_ok()
    }

    /// The last message failed on a connection that had ended before the server took anything of
    /// it: its MAIL was not accepted, and it was not handed over whole.
    pub(crate) fn was_stale(&self, error: &Error) -> bool {
        let ended = match error.reply() {
            Some(reply) => reply.code() == 421,
            None => matches!(
                error.kind(),
                ErrorKind::Closed | ErrorKind::Timeout | ErrorKind::Protocol
            ),
        };
        ended && !self.sender_accepted && !error.outcome_unknown()
    }

    /// The time since the session was set up.
    pub(crate) fn age(&self) -> Duration {
        self.connected_at.elapsed()
    }

    /// The number of messages that were started in this session.
    pub(crate) fn messages_started(&self) -> usize {
        self.driver.machine.transactions_begun()
    }

    /// Writes what is left of the last message's dialogue, without waiting.
    pub(crate) fn flush_now(&mut self) {
        // An error ends the session, which the next check of the connection finds.
        let _ = self.driver.step();
        self.driver.try_flush(false);
    }

    /// Sends QUIT without waiting, for `Drop`.
    pub(crate) fn try_quit(mut self) {
        if !self.in_call && self.driver.machine.quit().is_ok() {
            self.driver.try_flush(true);
        }
    }
}
