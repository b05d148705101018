//! A server in memory that replies at once: it takes what is written, and every reply can be read
//! in the same poll. What is measured with it is the client alone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The client's end of the connection.
pub struct Replies {
    /// The last line, until its end is written.
    line: Vec<u8>,
    /// The bytes of a message that are still to come.
    chunk: usize,
    replies: Vec<u8>,
    read: usize,
}

impl Default for Replies {
    fn default() -> Self {
        Replies {
            line: Vec::new(),
            chunk: 0,
            replies: b"220 mail.example.org ESMTP\r\n".to_vec(),
            read: 0,
        }
    }
}

impl Replies {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.chunk.min(bytes.len());
            self.chunk -= skipped;
            bytes = &bytes[skipped..];
            let Some(end) = memchr(b'\n', bytes) else {
                return self.line.extend_from_slice(bytes);
            };
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.reply();
            self.line.clear();
        }
    }

    fn reply(&mut self) {
        let mut words = self.line.trim_ascii().split(|byte| *byte == b' ');
        let reply: &[u8] = match words.next() {
            Some(b"EHLO") => {
                b"250-mail.example.org\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n\
                    250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n"
            }
            Some(b"MAIL") => b"250 2.1.0 Ok\r\n",
            Some(b"RCPT") => b"250 2.1.5 Ok\r\n",
            Some(b"BDAT") => {
                let size = words.next().and_then(|size| str::from_utf8(size).ok());
                self.chunk = size.and_then(|size| size.parse().ok()).expect("a size");
                b"250 2.0.0 Ok: queued as 4F2A1C\r\n"
            }
            _ => b"250 2.0.0 Ok\r\n",
        };
        self.replies.extend_from_slice(reply);
    }
}

impl AsyncRead for Replies {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let unread = &self.replies[self.read..];
        if unread.is_empty() {
            // The client only waits for what it asked for, and that is there.
            return Poll::Pending;
        }
        let count = unread.len().min(buffer.remaining());
        buffer.put_slice(&unread[..count]);
        self.read += count;
        if self.read == self.replies.len() {
            self.replies.clear();
            self.read = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replies {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
