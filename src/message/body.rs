//! [`Body`]: the bytes of a message, one chunk after another.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::input::{BLOCK, Batches, Encoder, Form, Input, Stream};
use super::layout::Segment;
use super::progress::{ProgressReporter, UploadProgress};
use super::raw::LineCheck;
use super::scan::MessageInfo;
use crate::proto::{Capabilities, Chunk, Content, Transaction};
use crate::{DeliveryOptions, Error, ErrorKind, Phase, Result};

/// The bytes of a message, one chunk after another, with what must be known of them before they go.
///
/// Made by [`Message::prepare`](crate::Message::prepare). Its bytes are a message before
/// dot-stuffing: line ends and dots are the business of the [`Stuffer`](crate::proto::Stuffer).
pub struct Body {
    pieces: Vec<Segment>,
    next: usize,
    flow: BodyState,
    check: Option<LineCheck>,
    facts: MessageInfo,
    /// Those of the binary form, if it has one.
    binary_facts: Option<MessageInfo>,
    is_binary: bool,
    teller: Option<ProgressReporter>,
    delivery: DeliveryOptions,
}

/// What is going out.
enum BodyState {
    /// The next piece is to be started.
    Next,
    Text(Bytes),
    Batches(Batches),
    Stream(Box<(Stream, Encoder)>),
    /// An error was given, or the caller's reader panicked: the end of the message will not come.
    Failed,
}

impl Body {
    pub(super) fn new(
        pieces: Vec<Segment>,
        facts: MessageInfo,
        check: Option<LineCheck>,
        teller: Option<ProgressReporter>,
    ) -> Self {
        Body {
            pieces,
            next: 0,
            flow: BodyState::Next,
            check,
            facts,
            binary_facts: None,
            is_binary: false,
            teller,
            delivery: DeliveryOptions::default(),
        }
    }

    pub(super) fn or_binary(self, binary_facts: Option<MessageInfo>) -> Self {
        Body {
            binary_facts,
            ..self
        }
    }

    pub(super) fn with_delivery(self, delivery: DeliveryOptions) -> Self {
        Body { delivery, ..self }
    }

    /// What is asked of the server beyond taking the message, as
    /// [`Message::delivery`](crate::Message::delivery) set it.
    pub fn delivery(&self) -> &DeliveryOptions {
        &self.delivery
    }

    fn facts(&self) -> &MessageInfo {
        self.binary_facts
            .as_ref()
            .filter(|_| self.is_binary)
            .unwrap_or(&self.facts)
    }

    /// Takes the form that suits the server, before the first chunk is asked for:
    /// [binary](crate::Message::binary), where the message may go so and the server takes that.
    pub fn negotiate(&mut self, server: &Capabilities) {
        self.is_binary =
            self.binary_facts.is_some() && server.offers("BINARYMIME") && server.offers("CHUNKING");
    }

    /// Its size on the wire as the SIZE extension counts it (RFC 1870): lines with CRLF, the last
    /// one too, no doubled dots, and no final dot. Exact to the byte. `None` where a stream's size
    /// is not known.
    pub fn size(&self) -> Option<u64> {
        self.facts().size
    }

    /// What bytes it is made of.
    pub fn content(&self) -> Content {
        self.facts().content
    }

    /// Whether some header has bytes beyond ASCII, which needs a server with SMTPUTF8 (RFC 6531).
    /// In a ready message the headers of its parts are not looked at.
    pub fn has_utf8_headers(&self) -> bool {
        self.facts().utf8_headers
    }

    /// Says in a transaction what is known of the message.
    pub(crate) fn describe(&self, transaction: &mut Transaction) {
        transaction.size = self.size();
        transaction.content = self.content();
        transaction.utf8_headers = self.has_utf8_headers();
        transaction.delivery = self.delivery.clone();
    }

    /// The length of its longest line, without the line end; 76 where that is a line of an
    /// attachment whose size is not known. Servers need not take more than 998 (RFC 5321,
    /// 4.5.3.1.6). `None` for a ready message that is a stream, and for the binary form, which need
    /// not have lines.
    pub fn longest_line(&self) -> Option<u64> {
        self.facts().longest_line
    }

    /// Whether it can be had again from its beginning. It cannot if there is a stream in it.
    pub fn can_restart(&self) -> bool {
        self.pieces.iter().all(|piece| piece.again().is_some())
    }

    /// The same body from its beginning, to the byte: with the same Message-ID, date and
    /// boundaries. What suits the server is to be asked again. `None` if it [cannot be had
    /// again](Self::can_restart).
    pub fn restart(&self) -> Option<Body> {
        let pieces = self
            .pieces
            .iter()
            .map(Segment::again)
            .collect::<Option<Vec<_>>>()?;
        // Only a stream's lines are looked at as they go, and none begins again.
        let again = Body::new(
            pieces,
            self.facts.clone(),
            None,
            self.teller.as_ref().map(ProgressReporter::again),
        );
        Some(
            again
                .or_binary(self.binary_facts.clone())
                .with_delivery(self.delivery.clone()),
        )
    }

    /// The transport has taken so many bytes of it; all of them, if it is the last time.
    pub(crate) fn report_progress(&mut self, sent: u64, is_last: bool) {
        let total = self.size();
        if let Some(teller) = &mut self.teller {
            teller.report(UploadProgress { sent, total }, is_last);
        }
    }

    /// The next chunk; `None` at the end of the message. No chunk is empty.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Input`](crate::ErrorKind::Input): a file is not what it was when the message
    /// was prepared, a stream failed or is not of the stated size, or its line ends are refused.
    /// The message must then not be ended: the connection has to be dropped. What comes after an
    /// error is an error.
    pub async fn chunk(&mut self) -> Option<Result<Chunk>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// [`chunk`](Self::chunk) for callers that poll.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Chunk>>> {
        // A panic in here leaves it failed.
        let mut flow = std::mem::replace(&mut self.flow, BodyState::Failed);
        let chunk = self.poll_flow(&mut flow, cx);
        if !matches!(chunk, Poll::Ready(Some(Err(_)))) {
            self.flow = flow;
        }
        chunk
    }

    fn poll_flow(
        &mut self,
        flow: &mut BodyState,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Chunk>>> {
        let chunk = ready!(self.poll_pieces(flow, cx)).transpose()?;
        if let Some(check) = &mut self.check {
            match &chunk {
                Some(chunk) => check.feed(chunk.bytes())?,
                None => check.end()?,
            }
        }
        Poll::Ready(chunk.map(Ok))
    }

    /// The next chunk before its lines are looked at.
    fn poll_pieces(
        &mut self,
        flow: &mut BodyState,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Chunk>>> {
        loop {
            let chunk = match flow {
                BodyState::Next if self.next == self.pieces.len() => return Poll::Ready(None),
                BodyState::Next => {
                    *flow = start(&mut self.pieces[self.next], self.is_binary);
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
                None => *flow = BodyState::Next,
                chunk => return Poll::Ready(chunk),
            }
        }
    }
}

/// Begins a piece. What can be had again stays where it is.
fn start(piece: &mut Segment, is_binary: bool) -> BodyState {
    let left = piece.again().unwrap_or(Segment::Gone);
    match std::mem::replace(piece, left) {
        Segment::Text(text) => BodyState::Text(text),
        Segment::Field { binary, .. } if is_binary => BodyState::Text(binary),
        Segment::Field { encoded, .. } => BodyState::Text(encoded),
        Segment::Input(input, form) => match (input, form.chosen(is_binary)) {
            (Input::Bytes(bytes), Form::AsIs) => BodyState::Text(bytes),
            (Input::Bytes(bytes), _) => BodyState::Batches(Batches::of_bytes(bytes)),
            (Input::File(file), form) => BodyState::Batches(Batches::of_file(file, form)),
            (Input::Stream(stream), form) => {
                BodyState::Stream(Box::new((stream, Encoder::new(form))))
            }
        },
        Segment::Gone => BodyState::Failed,
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("facts", self.facts())
            .finish_non_exhaustive()
    }
}
