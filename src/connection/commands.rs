//! The session step by step: MAIL, RCPT, DATA and others, each with its reply.

use super::call::CallGuard;
use super::{Connection, DataWriter, not_sent};
use crate::Address;
use crate::error::Result;
use crate::proto::{Machine, RawCommand, Reply, Step, Transaction};

impl Connection {
    /// Sends MAIL: opens a transaction without recipients, for a reverse-path (`None` is the null
    /// one), or with further parameters, as a [`Transaction`]. A negative reply is returned like a
    /// positive one, and opens no transaction.
    ///
    /// ```no_run
    /// use envoi::delivery::Notify;
    /// use envoi::proto::Transaction;
    /// use envoi::{Address, Connection, DeliveryOptions, Result};
    ///
    /// # async fn example(mut connection: Connection) -> Result<()> {
    /// let mut transaction = Transaction::open(Some(Address::new("alice@example.org")?));
    /// transaction.delivery = DeliveryOptions::new().notify(Notify::SUCCESS);
    /// let reply = connection.mail(transaction).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) where one is open already, or the
    /// transaction has recipients: each is given by [`rcpt`](Self::rcpt), which returns the answer
    /// to it; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for what the server does
    /// not offer; [`ErrorKind::Closed`](crate::ErrorKind::Closed),
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) and
    /// [`ErrorKind::Protocol`](crate::ErrorKind::Protocol) where the session ends.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it leaves a connection that refuses further use.
    pub async fn mail(&mut self, transaction: impl Into<Transaction>) -> Result<Reply> {
        let transaction = transaction.into();
        self.check_tls(&transaction)?;
        let mut call = CallGuard::start_step(self)?;
        let result = call.driver.ask(|machine| machine.mail(transaction)).await;
        call.complete_with(result)
    }

    /// Sends RCPT: adds a recipient to the open transaction. A negative reply is returned like a
    /// positive one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) where no transaction is open;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed),
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) and
    /// [`ErrorKind::Protocol`](crate::ErrorKind::Protocol) where the session ends.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it leaves a connection that refuses further use.
    pub async fn rcpt(&mut self, recipient: Address) -> Result<Reply> {
        let mut call = CallGuard::start_step(self)?;
        let driver = &mut call.driver;
        driver.clock.allow_for(1, &driver.timeouts);
        let result = driver.ask(|machine| machine.rcpt(recipient)).await;
        call.complete_with(result)
    }

    /// Sends DATA, and returns the writer that takes the message.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused) where the server refuses it;
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) where no recipient was accepted.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, the future or the writer leaves a message that is not sent, and a
    /// connection that refuses further use. [`DataWriter`] has the details.
    pub async fn data(&mut self) -> Result<DataWriter<'_>> {
        let mut call = CallGuard::start_step(self)?;
        let asked = async {
            call.driver.until_ready().await?;
            call.driver.machine.data()?;
            match call.driver.next(None).await? {
                Step::Body { .. } => Ok(()),
                step => Err(not_sent(step)),
            }
        };
        match asked.await {
            // The call lasts until the writer is finished.
            Ok(()) => Ok(DataWriter::new(call)),
            Err(error) => call.complete_with(Err(error)),
        }
    }

    /// Sends RSET: drops the open transaction.
    ///
    /// # Errors
    ///
    /// Where the session ends.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it leaves a connection that refuses further use.
    pub async fn reset(&mut self) -> Result<Reply> {
        let mut call = CallGuard::start_step(self)?;
        let result = call.driver.ask(Machine::reset).await;
        call.complete_with(result)
    }

    /// Sends NOOP.
    ///
    /// # Errors
    ///
    /// Where the session ends.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it leaves a connection that refuses further use.
    pub async fn noop(&mut self) -> Result<Reply> {
        let mut call = CallGuard::start_step(self)?;
        let result = call.driver.ask(Machine::noop).await;
        call.complete_with(result)
    }

    /// Sends any other command, and returns the reply, positive or negative: VRFY and EXPN (with
    /// the parameter SMTPUTF8 after a name beyond ASCII, RFC 6531, 3.7.4.2), HELP, ETRN …
    ///
    /// ```no_run
    /// # async fn example(mut connection: envoi::Connection) -> envoi::Result<()> {
    /// for member in connection.command("EXPN staff").await?.lines() {
    ///     println!("{member}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) for what is not one printable line, or
    /// changes the session's state, as DATA, AUTH or QUIT do;
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a line beyond ASCII without
    /// SMTPUTF8; others where the session ends.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it leaves a connection that refuses further use.
    pub async fn command(&mut self, line: &str) -> Result<Reply> {
        let command = RawCommand::new(line)?;
        let mut call = CallGuard::start_step(self)?;
        let result = call.driver.ask(|machine| machine.command(&command)).await;
        call.complete_with(result)
    }
}
