//! Reads from a [`std::io::Read`] in a message.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::{JoinHandle, spawn_blocking};

/// How much is read at a time.
const BLOCK: usize = 64 * 1024;

/// Makes a source for [`Attachment::reader`](crate::Attachment::reader) and
/// [`Message::raw_stream`](crate::Message::raw_stream) of a [`Read`]: a decompressor, a pipe, a
/// response of another blocking client. It is read on a thread for blocking calls, so it may block;
/// 64 KiB are in memory.
///
/// Files need no reader: [`Attachment::file`](crate::Attachment::file) can be sent again.
///
/// A read that is running when the message is given up continues in the background, and keeps the
/// thread as long.
///
/// ```
/// use envoi::{Attachment, blocking};
///
/// let program = std::process::Command::new("echo")
///     .arg("a report")
///     .stdout(std::process::Stdio::piped())
///     .spawn()
///     .unwrap();
/// let output = blocking::reader(program.stdout.unwrap());
/// let attachment = Attachment::reader("report.txt", "text/plain", output);
/// ```
pub fn reader(source: impl Read + Send + 'static) -> impl AsyncRead + Send + Unpin + 'static {
    Reader::Idle(Some(Source {
        read: Box::new(source),
        buffer: vec![0; BLOCK],
        unread: 0..0,
    }))
}

struct Source {
    read: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// What was read and not returned yet.
    unread: std::ops::Range<usize>,
}

enum Reader {
    /// `None` if a read has panicked.
    Idle(Option<Source>),
    Reading(JoinHandle<io::Result<Source>>),
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let reader = self.get_mut();
        loop {
            match reader {
                Reader::Idle(source) => match source.take() {
                    Some(mut source) if !source.unread.is_empty() => {
                        let length = source.unread.len().min(buf.remaining());
                        buf.put_slice(&source.buffer[source.unread.start..][..length]);
                        source.unread.start += length;
                        *reader = Reader::Idle(Some(source));
                        return Poll::Ready(Ok(()));
                    }
                    Some(source) => *reader = Reader::Reading(spawn_blocking(|| source.read())),
                    None => return Poll::Ready(Err(io::Error::other("an earlier read failed"))),
                },
                Reader::Reading(reading) => {
                    let result = ready!(Pin::new(reading).poll(cx));
                    *reader = Reader::Idle(None);
                    let source = result??;
                    let has_ended = source.unread.is_empty();
                    *reader = Reader::Idle(Some(source));
                    if has_ended {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl Source {
    fn read(mut self) -> io::Result<Self> {
        let length = loop {
            match self.read.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.unread = 0..length;
        Ok(self)
    }
}
