//! A pool that blocks.

use super::runtime::block_on;
use super::send_all::Outcomes;
use super::{Client, Connection, send_all};
use crate::error::Result;
use crate::{CheckReport, Message, Receipt};

/// Connections to one server that are kept open and shared by threads. The blocking form of
/// [`crate::Pool`]; made by [`Client::pool`].
///
/// Cheap to clone; clones share the connections. If all connections are in use, callers wait in
/// FIFO order. Each method has the errors of its namesake.
///
/// ```no_run
/// use envoi::blocking::Client;
/// use envoi::mail_builder::MessageBuilder;
///
/// # fn main() -> envoi::Result<()> {
/// let pool = Client::from_url("smtp://mail.example.org")?.pool(4);
/// std::thread::scope(|scope| {
///     for number in 0..100 {
///         let pool = &pool;
///         scope.spawn(move || {
///             let mail = MessageBuilder::new().from("me@example.org").to("you@example.com");
///             pool.send(mail.text_body(format!("No. {number}")))
///         });
///     }
/// });
/// pool.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Pool(crate::Pool);

impl Pool {
    /// The client that opens the connections.
    pub fn client(&self) -> Client {
        self.0.client().clone().into()
    }

    /// Checks whether messages can be sent, as [`crate::Pool::check`] does.
    ///
    /// # Errors
    ///
    /// As for [`crate::Pool::check`].
    pub fn check(&self) -> Result<CheckReport> {
        block_on(self.0.check())
    }

    /// Opens connections in advance, as [`crate::Pool::warm_up`] does.
    ///
    /// # Errors
    ///
    /// As for [`crate::Pool::warm_up`].
    pub fn warm_up(&self, connections: u16) -> Result<CheckReport> {
        block_on(self.0.warm_up(connections))
    }

    /// Sends a message over an idle connection, or over a new one, as [`crate::Pool::send`] does.
    ///
    /// # Errors
    ///
    /// As for [`crate::Pool::send`].
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> Result<Receipt> {
        block_on(self.0.send(message))
    }

    /// Sends many messages over the connections of the pool, as [`crate::Pool::send_all`] does, and
    /// returns the outcome of each, in order. `messages` is used as by [`Connection::send_all`].
    pub fn send_all<'p, 'm: 'p>(
        &'p self,
        messages: impl IntoIterator<Item = Message<'m>, IntoIter: 'p>,
    ) -> impl Iterator<Item = Result<Receipt>> + 'p {
        Outcomes::new(messages.into_iter(), |messages: send_all::Input<'m>| {
            self.0.send_all(messages)
        })
    }

    /// Returns a connection for exclusive use until it is dropped.
    ///
    /// # Errors
    ///
    /// As for [`crate::Pool::get`].
    pub fn get(&self) -> Result<Connection> {
        block_on(self.0.get()).map(Connection::from)
    }

    /// Closes the pool for all its clones, and returns the number of calls that had not finished in
    /// time, as [`crate::Pool::close`] does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) in an async task: the pool stays open.
    pub fn close(&self) -> Result<usize> {
        block_on(async { Ok(self.0.close().await) })
    }
}

impl From<crate::Pool> for Pool {
    fn from(pool: crate::Pool) -> Self {
        Pool(pool)
    }
}

impl From<Pool> for crate::Pool {
    fn from(pool: Pool) -> Self {
        pool.0
    }
}
