//! What a connection that is kept between messages is asked, and told, by whoever keeps it.

use std::time::Duration;

use super::Connection;
use super::call::CallGuard;
use crate::error::{Error, ErrorKind};
use crate::proto::Step;

impl Connection {
    /// No call was given up in the middle, no transaction is open, and the session has not ended,
    /// for all that was heard.
    pub(crate) fn is_between_messages(&self) -> bool {
        !self.in_call && self.driver.machine.is_between_transactions()
    }

    /// The same by all that has come meanwhile: the server has not ended the session, nor said what
    /// nobody asked for.
    pub(crate) async fn is_alive(&mut self) -> bool {
        self.driver.read_available().await;
        // An answer may still be awaited: to the RSET behind a refused message.
        matches!(self.driver.step(), Ok(Step::Ready | Step::Wait { .. }))
    }

    /// Waits for the answers to what was sent before, such as RSET after a refused message. `false`
    /// where the session ends instead: nothing was said of the next message then.
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

    /// Since when there is this session.
    pub(crate) fn age(&self) -> Duration {
        self.connected_at.elapsed()
    }

    /// How many messages have gone or failed in this session.
    pub(crate) fn messages_started(&self) -> usize {
        self.driver.machine.transactions_begun()
    }

    /// What is left to be said of the last message, as far as it can be written at once.
    pub(crate) fn flush_now(&mut self) {
        // An error ends the session, which is noticed before it is used again.
        let _ = self.driver.step();
        self.driver.try_flush(false);
    }

    /// Says QUIT, as far as it can be written at once: for those who cannot wait.
    pub(crate) fn try_quit(mut self) {
        if !self.in_call && self.driver.machine.quit().is_ok() {
            self.driver.try_flush(true);
        }
    }
}
