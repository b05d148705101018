//! The guard of a call on a [`Connection`]: a call that was not completed leaves the connection
//! refusing further use.

use std::ops::{Deref, DerefMut};

use super::Connection;
use super::clock::Clock;
use crate::error::{Error, ErrorKind, Phase, Result};

/// A call in progress. The connection is usable again after [`complete`](Self::complete) only: a
/// guard that is dropped before, with the future that holds it, leaves a session in the middle of a
/// dialogue, which no other call can continue.
///
/// The mark is set when the call starts, not when the guard is dropped, so a guard that is leaked
/// ([`mem::forget`](std::mem::forget)) has the same effect.
pub(super) struct CallGuard<'c> {
    connection: &'c mut Connection,
}

impl<'c> CallGuard<'c> {
    /// Starts a call.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] after a call that was not completed.
    pub(super) fn start(connection: &'c mut Connection) -> Result<Self> {
        if connection.in_call {
            let message = "an earlier call on this connection was given up before it ended";
            return Err(Error::new(ErrorKind::Closed, Phase::Setup, message)
                .with_hint("Open a new connection."));
        }
        Ok(CallGuard::resume(connection))
    }

    /// Starts a call of a single step with time limits of its own. Inside an open transaction, the
    /// time limits of the transaction continue.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub(super) fn start_step(connection: &'c mut Connection) -> Result<Self> {
        let mut call = CallGuard::start(connection)?;
        if call.driver.machine.is_between_transactions() {
            call.driver.clock = Clock::start(&call.driver.timeouts);
        }
        Ok(call)
    }

    /// Continues a call that was [left open](Self::leave_open).
    pub(super) fn resume(connection: &'c mut Connection) -> Self {
        connection.in_call = true;
        CallGuard { connection }
    }

    /// The call outlives its guard: that of `send_all` lasts for as long as transactions are open,
    /// over any number of futures.
    pub(super) fn leave_open(self) {}

    /// The call has ended, with any result: the machine knows whether the session continues.
    pub(super) fn complete(self) {
        self.connection.in_call = false;
    }

    /// Completes the call, and adds advice to the error.
    pub(super) fn complete_with<T>(self, result: Result<T>) -> Result<T> {
        self.connection.in_call = false;
        result.map_err(|error| error.advised(&self.connection.facts()))
    }
}

impl Deref for CallGuard<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl DerefMut for CallGuard<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection
    }
}
