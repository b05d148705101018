//! The bytes of a message as they leave, for senders that do not speak SMTP.

use super::Body;
use crate::Result;
use crate::proto::{Content, Output, Stuffer};

/// Reads a [`Body`] with the line ends that a server would receive: CRLF, unless the message is
/// binary, which leaves unchanged.
pub(crate) struct OutgoingBytes {
    body: Body,
    stuffer: Stuffer,
    output: Output,
    /// The number of bytes at the front of the output that were returned.
    returned: usize,
    has_ended: bool,
}

impl OutgoingBytes {
    pub(crate) fn new(body: Body) -> Self {
        let stuffer = match body.content() {
            Content::Binary => Stuffer::verbatim(),
            _ => Stuffer::without_dots(),
        };
        OutgoingBytes {
            body,
            stuffer,
            output: Output::default(),
            returned: 0,
            has_ended: false,
        }
    }

    /// Returns the next piece of the message, which is never empty; `None` at its end.
    ///
    /// # Errors
    ///
    /// See [`Body::chunk`].
    pub(crate) async fn next(&mut self) -> Result<Option<&[u8]>> {
        self.output.advance(std::mem::take(&mut self.returned));
        while self.output.is_empty() && !self.has_ended {
            match self.body.chunk().await {
                Some(chunk) => self.stuffer.push(chunk?, &mut self.output),
                None => {
                    self.stuffer.finish(&mut self.output);
                    self.has_ended = true;
                }
            }
        }
        let front = self.output.front();
        self.returned = front.len();
        Ok((!front.is_empty()).then_some(front))
    }

    /// Reports that all pieces returned so far were written; all of the message, if `is_last`.
    pub(crate) fn report_progress(&mut self, is_last: bool) {
        let unreturned = self.output.len() - self.returned;
        let written = self.stuffer.bytes() - unreturned as u64;
        self.body.report_progress(written, is_last);
    }

    /// The number of bytes that were read so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.stuffer.bytes()
    }
}
