//! A [`DataWriter`] that blocks.

use std::io;

use tokio::io::AsyncWriteExt as _;

use super::runtime::block_on;
use crate::error::{Error, Result};
use crate::proto::Reply;

/// Takes a message piece by piece, as an [`io::Write`]. The blocking form of [`crate::DataWriter`]:
/// [`finish`](Self::finish) ends the message; dropped before that, the message is not sent, and the
/// connection refuses further use.
///
/// Line ends become CRLF, and dots are doubled where they must be. `flush` does not end the
/// message. The [`Error`] of a failure is inside the [`io::Error`]; [`io::Error::downcast`] returns
/// it. After a failure of the source, as in [`io::copy`], drop the writer: `finish` would send a
/// truncated message.
///
/// ```no_run
/// use envoi::Address;
/// # type Failure = Box<dyn std::error::Error>;
/// # fn example(mut connection: envoi::blocking::Connection) -> Result<(), Failure> {
///
/// connection.mail(Address::new("alice@example.org")?)?;
/// connection.rcpt(Address::new("bob@example.com")?)?;
/// let mut writer = connection.data()?;
/// std::io::copy(&mut std::fs::File::open("message.eml")?, &mut writer)?;
/// let reply = writer.finish()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the message is sent by `finish` only"]
pub struct DataWriter<'c>(crate::DataWriter<'c>);

impl<'c> DataWriter<'c> {
    pub(super) fn new(writer: crate::DataWriter<'c>) -> Self {
        DataWriter(writer)
    }

    /// Ends the message, and waits for the server's final reply.
    ///
    /// # Errors
    ///
    /// As for [`crate::DataWriter::finish`].
    pub fn finish(self) -> Result<Reply> {
        block_on(self.0.finish())
    }

    /// Ends the message, and calls `each` with the final reply for each accepted recipient (LMTP),
    /// as [`crate::DataWriter::finish_each`] does.
    ///
    /// # Errors
    ///
    /// As for [`crate::DataWriter::finish_each`].
    pub fn finish_each(self, each: impl FnMut(usize, &Reply)) -> Result<Reply> {
        block_on(self.0.finish_each(each))
    }
}

impl io::Write for DataWriter<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let writing = async { Ok(tokio::io::AsyncWriteExt::write(&mut self.0, piece).await) };
        block_on(writing).map_err(io::Error::other)?
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushing = async { Ok(self.0.flush().await) };
        block_on(flushing).map_err(|error: Error| io::Error::other(error))?
    }
}
