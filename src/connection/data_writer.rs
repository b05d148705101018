//! A [`DataWriter`]: takes the message of a transaction that is sent step by step.

use std::fmt;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::call::CallGuard;
use super::not_sent;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::proto::{Chunk, Event, Reply, Step};

/// Takes a message piece by piece. [`finish`](Self::finish) ends it; dropped before that, the
/// message is not sent, and the connection refuses further use.
///
/// It is an [`AsyncWrite`], too, so [`tokio::io::copy`] streams a file into it. Line ends and dots
/// are treated as by [`write`](Self::write). Neither `copy` nor
/// [`shutdown`](tokio::io::AsyncWriteExt::shutdown) ends the message: `shutdown` only flushes, as a
/// source that failed must not make a truncated message look complete. The [`Error`] of a failure
/// is inside the [`io::Error`]; [`io::Error::downcast`] returns it.
///
/// ```no_run
/// # use envoi::Connection;
/// # type Failure = Box<dyn std::error::Error>;
/// # async fn example(mut connection: Connection) -> Result<(), Failure> {
/// use envoi::Address;
///
/// connection.mail(Address::new("alice@example.org")?).await?;
/// connection.rcpt(Address::new("bob@example.com")?).await?;
/// let mut writer = connection.data().await?;
/// let mut file = tokio::fs::File::open("message.eml").await?;
/// tokio::io::copy(&mut file, &mut writer).await?;
/// let reply = writer.finish().await?;
/// # Ok(())
/// # }
/// ```
///
/// A [`PreparedMessage`](crate::PreparedMessage) has the parameters of MAIL, and chunks that are
/// sent as they are:
///
/// ```no_run
/// # use envoi::{Connection, Message};
/// # async fn example(mut connection: Connection, message: Message<'_>) -> envoi::Result<()> {
/// let mut prepared = message.prepare().await?;
/// prepared.negotiate(connection.capabilities());
/// connection.mail(&prepared).await?;
/// for recipient in prepared.envelope().recipients() {
///     connection.rcpt(recipient.clone()).await?;
/// }
/// let mut writer = connection.data().await?;
/// let mut body = prepared.into_body();
/// while let Some(chunk) = body.chunk().await {
///     writer.write(chunk?).await?;
/// }
/// let reply = writer.finish().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
///
/// - [`write`](Self::write), [`finish`](Self::finish) and [`finish_each`](Self::finish_each) are
///   not cancel-safe, as each of them says.
/// - A dropped future of [`AsyncWriteExt::write`](tokio::io::AsyncWriteExt::write) or `flush` has
///   written nothing that it did not report.
/// - A dropped future of [`copy`](tokio::io::copy) or `write_all` has written an unknown part of
///   its data, which the writer cannot notice. Drop the writer then, and do not call `finish`: it
///   would send a truncated message.
#[must_use = "the message is sent by `finish` only"]
pub struct DataWriter<'c> {
    state: State<'c>,
}

enum State<'c> {
    /// The next piece can be given.
    Idle(CallGuard<'c>),
    /// The message has failed, and every later call fails for the same reason.
    Failed(CallGuard<'c>, Error),
    /// [`AsyncWrite`] waits for the server to take what was written.
    Flushing(Flushing<'c>),
    /// The future of a `write` has the call: it is running, or it was dropped, and then the call is
    /// never completed.
    Writing,
}

type Flushing<'c> = Pin<Box<dyn Future<Output = (CallGuard<'c>, Result<()>)> + Send + 'c>>;

impl<'c> DataWriter<'c> {
    /// `call` lasts until the message is finished.
    pub(super) fn new(call: CallGuard<'c>) -> Self {
        DataWriter {
            state: State::Idle(call),
        }
    }

    /// Gives the next piece of the message, of any size: bytes, or a chunk of a
    /// [`Body`](crate::Body). Line ends become CRLF, and dots are doubled where they must be.
    /// Nothing else is changed: the header fields are sent as they are, Bcc included. In a
    /// transaction with [`Content::Binary`](crate::proto::Content::Binary), every byte is sent as
    /// it is.
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
    pub fn write(&mut self, piece: impl Into<Chunk>) -> impl Future<Output = Result<()>> {
        let state = mem::replace(&mut self.state, State::Writing);
        let piece = piece.into();
        async move {
            let (mut call, flushed) = state.into_idle().await?;
            let written = async {
                flushed?;
                call.driver.give_piece(piece)?;
                flush(&mut call).await
            };
            let result = written.await;
            let (state, result) = State::after(call, result);
            self.state = state;
            result
        }
    }

    /// Ends the message, and waits for the server's final reply, which is positive. Calling it is
    /// the hand-over: before, it is certain that the message is not delivered. In LMTP it is
    /// positive if the server accepted the message for at least one recipient;
    /// [`finish_each`](Self::finish_each) reports each.
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

    /// Ends the message like [`finish`](Self::finish), and calls `each` with the final reply for
    /// each accepted recipient (LMTP), as soon as it arrives, and with the index of the recipient
    /// in the order of [`rcpt`](super::Connection::rcpt), from 0. These replies are final, whatever
    /// the result is.
    ///
    /// # Errors
    ///
    /// As for [`finish`](Self::finish): the message was accepted for no recipient, or the outcome
    /// is unknown for the recipients that were not reported.
    ///
    /// # Cancel safety
    ///
    /// As for [`finish`](Self::finish).
    pub async fn finish_each(self, mut each: impl FnMut(usize, &Reply)) -> Result<Reply> {
        // Where a `write` was dropped, this returns, and the connection refuses further use.
        let (mut call, flushed) = self.state.into_idle().await?;
        let driver = &mut call.driver;
        let finished = async {
            flushed?;
            driver.machine.finish()?;
            // This call is the hand-over, also where the transaction asks for it.
            if driver.machine.held_messages() > 0 {
                driver.machine.hand_over()?;
            }
            loop {
                match driver.next(None).await? {
                    Step::Event(Event::RecipientResult { index, reply }) => each(index, &reply),
                    Step::Event(Event::Accepted { reply }) => return Ok(reply),
                    step => return Err(not_sent(step)),
                }
            }
        };
        let result = finished.await;
        call.complete_with(result)
    }

    /// Finishes a flush that was started before.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut CallGuard<'c>>> {
        if let State::Flushing(flushing) = &mut self.state {
            let (call, result) = ready!(flushing.as_mut().poll(cx));
            let (state, result) = State::after(call, result);
            self.state = state;
            result.map_err(into_io)?;
        }
        Poll::Ready(match &mut self.state {
            State::Idle(call) => Ok(call),
            State::Failed(_, error) => Err(into_io(error.clone())),
            _ => Err(into_io(write_was_cancelled())),
        })
    }

    /// Ends the message by this error.
    fn fail(&mut self, error: Error) -> io::Error {
        match mem::replace(&mut self.state, State::Writing) {
            State::Idle(call) => {
                let error = error.advised(&call.facts());
                self.state = State::Failed(call, error.clone());
                into_io(error)
            }
            other => {
                self.state = other;
                into_io(error)
            }
        }
    }

    fn start_flush(&mut self) {
        match mem::replace(&mut self.state, State::Writing) {
            State::Idle(mut call) => {
                self.state = State::Flushing(Box::pin(async move {
                    let result = flush(&mut call).await;
                    (call, result)
                }));
            }
            other => self.state = other,
        }
    }
}

impl<'c> State<'c> {
    /// The state after a piece was given with this result, to which advice is added.
    fn after(call: CallGuard<'c>, result: Result<()>) -> (Self, Result<()>) {
        match result.map_err(|error| error.advised(&call.facts())) {
            Ok(()) => (State::Idle(call), Ok(())),
            Err(error) => (State::Failed(call, error.clone()), Err(error)),
        }
    }

    /// The call, and the result of a flush that was in progress.
    async fn into_idle(self) -> Result<(CallGuard<'c>, Result<()>)> {
        match self {
            State::Idle(call) => Ok((call, Ok(()))),
            State::Failed(call, error) => Ok((call, Err(error))),
            State::Flushing(flushing) => Ok(flushing.await),
            State::Writing => Err(write_was_cancelled()),
        }
    }
}

impl fmt::Debug for DataWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataWriter").finish_non_exhaustive()
    }
}

/// See [`DataWriter`] for the rules.
impl AsyncWrite for DataWriter<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let writer = self.get_mut();
        loop {
            let call = ready!(writer.poll_idle(cx))?;
            let given = match call.driver.step() {
                Ok(Step::Body { room }) => {
                    let piece = &buf[..buf.len().min(room)];
                    let body = call.driver.give_piece(Bytes::copy_from_slice(piece));
                    body.map(|()| piece.len()).map_err(Error::from)
                }
                Ok(Step::Wait { .. }) => {
                    writer.start_flush();
                    continue;
                }
                Ok(step) => Err(not_sent(step)),
                Err(error) => Err(error),
            };
            return Poll::Ready(given.map_err(|error| writer.fail(error)));
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let writer = self.get_mut();
        ready!(writer.poll_idle(cx))?;
        writer.start_flush();
        writer.poll_idle(cx).map_ok(|_| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// Waits until the transport has everything of the message, and the machine asks for more.
async fn flush(call: &mut CallGuard<'_>) -> Result<()> {
    match call.driver.flush_body().await? {
        Step::Body { .. } => Ok(()),
        step => Err(not_sent(step)),
    }
}

fn into_io(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::Timeout => io::ErrorKind::TimedOut,
        ErrorKind::Closed => io::ErrorKind::BrokenPipe,
        ErrorKind::Input => io::ErrorKind::InvalidData,
        ErrorKind::Request
        | ErrorKind::Config
        | ErrorKind::Connect
        | ErrorKind::Protocol
        | ErrorKind::Tls
        | ErrorKind::Insecure
        | ErrorKind::Auth
        | ErrorKind::Refused
        | ErrorKind::Unsupported
        | ErrorKind::Handover
        | ErrorKind::PoolClosed => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

fn write_was_cancelled() -> Error {
    let message = "an earlier write to this message was given up before it ended";
    Error::new(ErrorKind::Closed, Phase::Body, message)
        .with_hint("The message was not sent. Open a new connection.")
}
