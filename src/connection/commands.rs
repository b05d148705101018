//! The session step by step, as test tools and old APIs have it: MAIL, RCPT, DATA, and each with
//! its reply.

use bytes::Bytes;

use super::call::CallGuard;
use super::{Connection, not_sent};
use crate::Address;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::proto::{Machine, RawCommand, Reply, Step, Transaction};

impl Connection {
    /// MAIL: opens a transaction without recipients, for a reverse-path (`None` is the null one),
    /// or with more that is to be said of the message, as a [`Transaction`] has it. A negative
    /// reply is returned like a positive one, and opens none.
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
    pub async fn mail(&mut self, transaction: impl Into<Transaction>) -> Result<Reply> {
        let transaction = transaction.into();
        self.check_tls(&transaction)?;
        let mut call = CallGuard::start_step(self)?;
        let result = call.driver.ask(|machine| machine.mail(transaction)).await;
        call.complete_with(result)
    }

    /// RCPT: adds a recipient to the open transaction. A negative reply is returned like a positive
    /// one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) where no transaction is open;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed),
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) and
    /// [`ErrorKind::Protocol`](crate::ErrorKind::Protocol) where the session ends.
    pub async fn rcpt(&mut self, recipient: Address) -> Result<Reply> {
        let mut call = CallGuard::start_step(self)?;
        let driver = &mut call.driver;
        driver.clock.allow_for(1, &driver.timeouts);
        let result = driver.ask(|machine| machine.rcpt(recipient)).await;
        call.complete_with(result)
    }

    /// DATA: asks to give the message, and returns what takes it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused) where the server does not want it;
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) where no recipient was accepted.
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
            // The call goes on until the writer has finished.
            Ok(()) => Ok(DataWriter {
                call,
                write_cancelled: false,
            }),
            Err(error) => call.complete_with(Err(error)),
        }
    }

    /// RSET: drops the open transaction.
    ///
    /// # Errors
    ///
    /// Where the session ends.
    pub async fn reset(&mut self) -> Result<Reply> {
        let mut call = CallGuard::start_step(self)?;
        let result = call.driver.ask(Machine::reset).await;
        call.complete_with(result)
    }

    /// NOOP.
    ///
    /// # Errors
    ///
    /// Where the session ends.
    pub async fn noop(&mut self) -> Result<Reply> {
        let mut call = CallGuard::start_step(self)?;
        let result = call.driver.ask(Machine::noop).await;
        call.complete_with(result)
    }

    /// Gives any other command, and returns the answer, be it positive or not: VRFY and EXPN (with
    /// the parameter SMTPUTF8 behind a name beyond ASCII, RFC 6531, 3.7.4.2), HELP, ETRN …
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
    pub async fn command(&mut self, line: &str) -> Result<Reply> {
        let command = RawCommand::new(line)?;
        let mut call = CallGuard::start_step(self)?;
        let result = call.driver.ask(|machine| machine.command(&command)).await;
        call.complete_with(result)
    }
}

/// Takes a message piece by piece. [`finish`](Self::finish) ends it; dropped before that, the
/// message is not sent, and the connection refuses further use.
#[derive(Debug)]
#[must_use = "the message is sent by `finish` only"]
pub struct DataWriter<'c> {
    call: CallGuard<'c>,
    /// A `write` was not awaited to its end, so that it is not certain which pieces the message
    /// has.
    write_cancelled: bool,
}

impl DataWriter<'_> {
    /// Gives the next piece of the message, of any size. Line ends become CRLF, and dots are
    /// doubled where they must be. Nothing else of it is looked at: its headers go as they are, a
    /// Bcc among them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused) where the server refuses the message
    /// before its end; others where the session ends.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: once this was called, the future has to be awaited to its end. Dropped
    /// before, even if it was never polled, it leaves a writer that refuses every further call with
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed): the caller cannot know whether the piece is
    /// a part of the message, so the message is not sent, and the connection refuses further use.
    pub fn write(&mut self, piece: impl Into<Bytes>) -> impl Future<Output = Result<()>> {
        let was_cancelled = std::mem::replace(&mut self.write_cancelled, true);
        let piece = piece.into();
        async move {
            if was_cancelled {
                return Err(write_was_cancelled());
            }
            let result = self.write_piece(piece).await;
            self.write_cancelled = false;
            result.map_err(|error| error.advised(&self.call.facts()))
        }
    }

    async fn write_piece(&mut self, piece: Bytes) -> Result<()> {
        let driver = &mut self.call.driver;
        driver.machine.body(piece)?;
        match driver.flush_body().await? {
            Step::Body { .. } => Ok(()),
            step => Err(not_sent(step)),
        }
    }

    /// Ends the message, and waits for the server's final word on it, which is positive. In LMTP it
    /// is so if the server took the message for one recipient at least;
    /// [`finish_each`](Self::finish_each) tells of each.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused) where it is negative;
    /// [`Error::outcome_unknown`](crate::Error::outcome_unknown) where none comes;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), and nothing more is sent, where a
    /// [`write`](Self::write) was dropped before its end.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: dropped before its end, it leaves the outcome unknown, and a connection
    /// that refuses further use.
    pub async fn finish(self) -> Result<Reply> {
        self.finish_each(|_, _| {}).await
    }

    /// The same for LMTP: the function is given each accepted recipient's own final reply, as soon
    /// as it comes, with the recipient's number by the order of [`rcpt`](Connection::rcpt), from 0.
    /// What it was given holds, whatever the result is.
    ///
    /// # Errors
    ///
    /// As for [`finish`](Self::finish): the message was taken for nobody, or what became of it for
    /// those who were not told of is unknown.
    pub async fn finish_each(mut self, mut each: impl FnMut(usize, &Reply)) -> Result<Reply> {
        if self.write_cancelled {
            // The call that began with DATA does not end: the connection refuses further use.
            return Err(write_was_cancelled());
        }
        let driver = &mut self.call.driver;
        let finished = async {
            driver.machine.finish()?;
            loop {
                match driver.next(None).await? {
                    Step::RecipientResult { index, reply } => each(index, &reply),
                    Step::Accepted { reply } => return Ok(reply),
                    step => return Err(not_sent(step)),
                }
            }
        };
        let result = finished.await;
        self.call.complete_with(result)
    }
}

fn write_was_cancelled() -> Error {
    let message = "an earlier write to this message was given up before it ended";
    Error::new(ErrorKind::Closed, Phase::Body, message)
        .with_hint("The message was not sent. Open a new connection.")
}
