//! [`Body`]: the bytes of a message, one chunk after another.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::handover::Handovers;
use super::input::{BLOCK, Batches, Encoder, Form, PartSource, Stream, on_blocking_thread};
use super::layout::Segment;
use super::progress::{ProgressCallback, ProgressReporter, UploadProgress};
use super::raw::LineCheck;
use super::scan::{MessageInfo, MessageScanner};
use crate::proto::{Capabilities, Chunk, Content, LineEndNormalizer};
use crate::{Error, ErrorKind, Phase, Result};

/// The bytes of a message in chunks, exactly as a server receives them: line ends are CRLF, that of
/// the last line included, unless the message is [binary](Content::Binary). Only the framing is
/// added when it is sent: dots are doubled after DATA, and sizes precede chunks (RFC 3030).
///
/// [`PreparedMessage::into_body`](super::PreparedMessage::into_body) returns it.
pub struct Body {
    segments: Vec<Segment>,
    next: usize,
    state: BodyState,
    check: Option<LineCheck>,
    line_ends: LineEndNormalizer,
    info: MessageInfo,
    /// The properties of the binary form, if the message has one.
    binary_info: Option<MessageInfo>,
    is_binary: bool,
    reporter: Option<ProgressReporter>,
    handovers: Option<Handovers>,
}

/// What is being sent.
enum BodyState {
    /// The next segment has not been started.
    Next,
    Text(Bytes),
    Batches(Batches),
    Stream(Box<(Stream, Encoder)>),
    /// An error was returned, or the caller's reader panicked: the rest of the message is not
    /// available.
    Failed,
}

impl Body {
    pub(super) fn new(segments: Vec<Segment>, info: MessageInfo) -> Self {
        Body {
            segments,
            next: 0,
            state: BodyState::Next,
            check: None,
            line_ends: LineEndNormalizer::new(),
            info,
            binary_info: None,
            is_binary: false,
            reporter: None,
            handovers: None,
        }
    }

    pub(super) fn with_binary_info(self, binary_info: Option<MessageInfo>) -> Self {
        Body {
            binary_info,
            ..self
        }
    }

    /// Sets the size, which is known after the body was read.
    #[cfg(feature = "dkim")]
    pub(super) fn with_size(mut self, size: u64) -> Self {
        self.info.size = Some(size);
        self
    }

    pub(super) fn with_check(self, check: Option<LineCheck>) -> Self {
        Body { check, ..self }
    }

    pub(super) fn with_progress(self, callback: Option<ProgressCallback>) -> Self {
        let reporter = callback.map(ProgressReporter::new);
        Body { reporter, ..self }
    }

    pub(super) fn progress_callback(&self) -> Option<ProgressCallback> {
        self.reporter.as_ref().map(ProgressReporter::callback)
    }

    pub(super) fn with_handovers(self, handovers: Option<Handovers>) -> Self {
        Body { handovers, ..self }
    }

    /// The hand-overs, if [`Message::on_handover`](crate::Message::on_handover) set a callback.
    pub(crate) fn handovers(&self) -> Option<&Handovers> {
        self.handovers.as_ref()
    }

    /// Awaits the hand-over of the whole message, if the caller set a callback.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Handover`].
    #[cfg(any(
        feature = "directory",
        all(feature = "sendmail", unix),
        feature = "testing"
    ))]
    pub(crate) async fn hand_over(
        &mut self,
        recipients: &[crate::Address],
        bytes: u64,
    ) -> Result<()> {
        match &self.handovers {
            Some(handovers) => handovers.start(recipients.to_vec(), bytes).await,
            None => Ok(()),
        }
    }

    /// Whether the message was handed over: with the permission of the callback or, without one,
    /// once every chunk was returned.
    pub(crate) fn is_handed_over(&self) -> bool {
        match &self.handovers {
            Some(handovers) => handovers.is_permitted(),
            None => matches!(self.state, BodyState::Next) && self.next == self.segments.len(),
        }
    }

    fn info(&self) -> &MessageInfo {
        self.binary_info
            .as_ref()
            .filter(|_| self.is_binary)
            .unwrap_or(&self.info)
    }

    pub(super) fn negotiate(&mut self, server: &Capabilities) {
        self.is_binary =
            self.binary_info.is_some() && server.offers("BINARYMIME") && server.offers("CHUNKING");
    }

    pub(super) fn has_binary_form(&self) -> bool {
        self.binary_info.is_some()
    }

    /// Determines the content of a large file for a server that may not offer 8BITMIME: whether it
    /// takes the message must be known before anything is sent. Cancel-safe.
    pub(crate) async fn find_content(&mut self, is_8bitmime_offered: bool) -> Result<()> {
        if self.info.content != Content::Unknown || is_8bitmime_offered {
            return Ok(());
        }
        let unchecked_file = self.segments.iter().find_map(|segment| match segment {
            Segment::Source(PartSource::File(file), Form::Unchecked { .. }) => Some(file.clone()),
            _ => None,
        });
        if let Some(file) = unchecked_file {
            self.info.content = on_blocking_thread(move || {
                let mut scanner = MessageScanner::new();
                file.scan(&mut scanner, Phase::Setup)?;
                Ok(scanner.end().content)
            })
            .await?;
        }
        Ok(())
    }

    pub(super) fn size(&self) -> Option<u64> {
        self.info().size
    }

    pub(super) fn content(&self) -> Content {
        self.info().content
    }

    pub(super) fn has_utf8_headers(&self) -> bool {
        self.info().utf8_headers
    }

    pub(super) fn longest_line(&self) -> Option<u64> {
        self.info().longest_line
    }

    /// The fields of the header section, without the empty line after them.
    pub(super) fn headers(&self) -> Vec<u8> {
        let mut headers = Vec::new();
        // Each segment in the section has whole lines.
        for segment in &self.segments {
            let text = match segment {
                Segment::Text(text) => text,
                Segment::Field { binary, .. } if self.is_binary => binary,
                Segment::Field { encoded, .. } => encoded,
                Segment::Source(..) | Segment::Consumed => break,
            };
            for line in text.split_inclusive(|byte| *byte == b'\n') {
                if line == b"\r\n" {
                    return headers;
                }
                headers.extend_from_slice(line);
            }
        }
        headers
    }

    /// Puts a header field of ASCII before all others.
    pub(super) fn prepend(&mut self, field: Vec<u8>) {
        self.info.prepend(&field);
        if let Some(info) = &mut self.binary_info {
            info.prepend(&field);
        }
        if let Some(check) = &mut self.check {
            check.skip(field.len());
        }
        self.segments.insert(0, Segment::Text(field.into()));
    }

    pub(super) fn can_restart(&self) -> bool {
        !self.segments.iter().any(Segment::is_one_shot)
    }

    /// Returns a copy that starts at the beginning; `None` if the message contains a stream.
    pub(crate) fn restart(&self) -> Option<Body> {
        let segments = self
            .segments
            .iter()
            .map(Segment::try_clone)
            .collect::<Option<Vec<_>>>()?;
        // Only a stream is checked while it is sent, and a stream cannot be restarted.
        let copy = Body::new(segments, self.info.clone());
        Some(
            copy.with_binary_info(self.binary_info.clone())
                .with_progress(self.progress_callback())
                .with_handovers(self.handovers.clone()),
        )
    }

    /// Whether the upload progress is reported to the caller.
    pub(crate) fn reports_progress(&self) -> bool {
        self.reporter.is_some()
    }

    /// Reports that the transport has accepted `sent` bytes; all of them, if `is_last`.
    pub(crate) fn report_progress(&mut self, sent: u64, is_last: bool) {
        // The size of a large raw file may be too small.
        let total = self.size().map(|size| size.max(sent));
        if let Some(reporter) = &mut self.reporter {
            reporter.report(UploadProgress { sent, total }, is_last);
        }
    }

    /// Returns the next chunk, which is never empty, or `None` at the end of the message.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Input`](crate::ErrorKind::Input): a file has changed since the message was
    /// prepared, a stream failed or does not have the stated size, or a line end or a NUL is
    /// refused. Do not end the message then: drop the connection. Every further call returns an
    /// error.
    pub async fn chunk(&mut self) -> Option<Result<Chunk>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// Polls for the next chunk; see [`chunk`](Self::chunk).
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Chunk>>> {
        // If `poll_checked_chunk` panics, the state stays `Failed`.
        let mut state = std::mem::replace(&mut self.state, BodyState::Failed);
        let chunk = self.poll_checked_chunk(&mut state, cx);
        if !matches!(chunk, Poll::Ready(Some(Err(_)))) {
            self.state = state;
        }
        chunk
    }

    fn poll_checked_chunk(
        &mut self,
        state: &mut BodyState,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Chunk>>> {
        let chunk = ready!(self.poll_segments(state, cx)).transpose()?;
        if let Some(check) = &mut self.check {
            match &chunk {
                Some(chunk) => check.feed(chunk.bytes())?,
                None => check.end()?,
            }
        }
        if self.content() == Content::Binary {
            return Poll::Ready(chunk.map(Ok));
        }
        let chunk = match chunk {
            Some(chunk) => Some(self.line_ends.normalize(chunk)),
            None => match self.line_ends.end() {
                b"" => None,
                missing => Some(Bytes::from_static(missing).into()),
            },
        };
        Poll::Ready(chunk.map(Ok))
    }

    /// The next chunk, before its line ends are checked and repaired.
    fn poll_segments(
        &mut self,
        state: &mut BodyState,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Chunk>>> {
        loop {
            let chunk = match state {
                BodyState::Next if self.next == self.segments.len() => return Poll::Ready(None),
                BodyState::Next => {
                    *state = start_segment(&mut self.segments[self.next], self.is_binary);
                    self.next += 1;
                    continue;
                }
                BodyState::Text(text) if text.is_empty() => None,
                BodyState::Text(text) => {
                    Some(Ok(Chunk::from(text.split_to(BLOCK.min(text.len())))))
                }
                BodyState::Batches(batches) => ready!(batches.poll_chunk(cx)),
                BodyState::Stream(stream) => ready!(stream.0.poll_chunk(&stream.1, cx)),
                BodyState::Failed => Some(Err(Error::new(
                    ErrorKind::Input,
                    Phase::Body,
                    "the message failed before its end",
                ))),
            };
            match chunk {
                None => *state = BodyState::Next,
                chunk => return Poll::Ready(chunk),
            }
        }
    }
}

/// Starts a segment. A segment that can be read again stays in place.
fn start_segment(segment: &mut Segment, is_binary: bool) -> BodyState {
    let left = segment.try_clone().unwrap_or(Segment::Consumed);
    match std::mem::replace(segment, left) {
        Segment::Text(text) => BodyState::Text(text),
        Segment::Field { binary, .. } if is_binary => BodyState::Text(binary),
        Segment::Field { encoded, .. } => BodyState::Text(encoded),
        Segment::Source(source, form) => match (source, form.resolve(is_binary)) {
            (PartSource::Bytes(bytes), Form::AsIs) => BodyState::Text(bytes),
            (PartSource::Bytes(bytes), _) => BodyState::Batches(Batches::encode_bytes(bytes)),
            (PartSource::File(file), form) => BodyState::Batches(Batches::read_file(file, form)),
            (PartSource::Stream(stream), form) => {
                BodyState::Stream(Box::new((stream, Encoder::new(form))))
            }
        },
        Segment::Consumed => BodyState::Failed,
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("info", self.info())
            .finish_non_exhaustive()
    }
}
