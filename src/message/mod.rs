//! What is sent: a message of mail-builder's with attachments of any size, or one that is ready.
//!
//! A [`Message`] becomes a [`Body`], a stream of chunks, when it is sent. It is built in three
//! steps, each of which fails before any connection is made: the headers are checked and read for
//! the envelope; files are looked at; the message is laid out as text with holes for what is read
//! later, so that its size is known and its memory is a few blocks.

mod attachment;
mod body;
mod headers;
mod input;
mod layout;
mod nesting;
mod progress;
mod raw;
mod scan;
mod section;
mod text;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use mail_builder::MessageBuilder;
use tokio::io::AsyncRead;

pub use attachment::Attachment;
pub use body::Body;
pub use progress::UploadProgress;
pub use raw::LineEnds;
pub use text::decode_text;

use crate::{DeliveryOptions, Envelope, Error, Result};
use attachment::Data;
use progress::{ProgressCallback, ProgressReporter};

/// A message to be sent.
///
/// It is made from mail-builder's [`MessageBuilder`], or from a message that is ready, headers and
/// all. The Bcc header of either never leaves the machine.
///
/// # What is repaired and what is refused
///
/// What leaves is a valid message, or nothing leaves. These rules hold for bytes, files and
/// streams, and whichever way the server takes the message. What is refused is refused before
/// anything is sent, as [`ErrorKind::Request`](crate::ErrorKind::Request), with the number of the
/// line and its bytes where the message is a ready one.
///
/// In the header section of a ready message, which may have 1 MiB:
///
/// | Found | What happens |
/// |---|---|
/// | a byte order mark (UTF-8), blank lines or an mbox line (`From alice@example.org Mon …`) before the first field | removed |
/// | Bcc and Resent-Bcc, in any case, folded, with blanks before the colon | removed |
/// | a field without a value that must have one (`Cc:`, `Content-Type:`) | removed |
/// | LF alone as line end | becomes CRLF, unless [`LineEnds`] says otherwise: then refused |
/// | CR alone | refused: not every reader ends a line there |
/// | no header field at all, a line that is none, an empty message | refused |
/// | bytes that are not UTF-8, UTF-16, a NUL | refused; UTF-8 needs a server with SMTPUTF8 (RFC 6532) |
/// | a second field of a kind that may be there once (RFC 5322, 3.6) | refused |
/// | From with several addresses and no Sender, or Sender with several (RFC 5322, 3.6.2) | refused |
///
/// In the body of a ready message, line ends go by [`LineEnds`], and a NUL is refused unless it
/// goes as binary. In a stream these are found when their turn comes: sending fails then
/// ([`ErrorKind::Input`](crate::ErrorKind::Input)), and the message is not ended, so that nothing
/// is delivered. Nothing else of a ready message is changed or looked at. A line of more than 998
/// bytes goes as it is: servers may take it, a signature may cover it, and [`Body::longest_line`]
/// tells of it.
///
/// In a built message:
///
/// | Found | What happens |
/// |---|---|
/// | Bcc and Resent-Bcc | removed; recipients in Bcc are in the envelope |
/// | a list without an address, an identifier or a type without a value | the field is left out |
/// | To, Cc or Reply-To set more than once | one list |
/// | another field set more than once that may be there once | the last one counts |
/// | identifiers in angle brackets (`message_id("<a@b>")`) | the brackets are not doubled |
/// | a byte order mark at the front of a text or HTML body | removed |
/// | attachments that HTML refers to (`cid:`) | `multipart/related` with the HTML (RFC 2387) |
/// | an address that is not valid, a line break or NUL in a header, a bad identifier, Content-ID or media type | refused |
/// | an address field that is text, not addresses | refused |
/// | lists, groups or parts nested more than 100 deep | refused |
/// | From with several addresses and no Sender, or Sender with several | refused |
/// | Content-Type or Content-Transfer-Encoding beside those of the content | refused |
/// | `message/…` and `multipart/…` as attachments | not encoded (RFC 2046, 5.2.1); with a NUL refused |
///
/// Text from a file becomes a body by [`decode_text`].
///
/// ```
/// use envoi::mail_builder::MessageBuilder;
/// use envoi::{Attachment, Message};
///
/// let mail = MessageBuilder::new()
///     .from(("Alice", "alice@example.org"))
///     .to("bob@example.com")
///     .subject("The film")
///     .text_body("As promised.");
/// let message = Message::from(mail).attach(Attachment::file("film.mp4"));
/// ```
#[must_use = "a message does nothing until it is sent"]
pub struct Message<'x> {
    what: Source<'x>,
    attachments: Vec<Attachment>,
    envelope: Option<Envelope>,
    delivery: DeliveryOptions,
    line_ends: LineEnds,
    may_be_binary: bool,
    listener: Option<ProgressCallback>,
}

enum Source<'x> {
    Built(Box<MessageBuilder<'x>>),
    Ready(Data),
}

impl<'x> From<MessageBuilder<'x>> for Message<'x> {
    /// The builder may have attachments in memory. Those that are streamed are added by
    /// [`Message::attach`].
    fn from(builder: MessageBuilder<'x>) -> Self {
        Message::new(Source::Built(Box::new(builder)))
    }
}

impl Message<'static> {
    /// A message that is ready: its headers, a blank line, its body. It needs an
    /// [`envelope`](Self::envelope). The rules for its headers are
    /// [above](Self#what-is-repaired-and-what-is-refused).
    ///
    /// ```
    /// use envoi::{Address, Envelope, Message};
    ///
    /// let envelope = Envelope::new(Address::new("alice@example.org")?, [Address::new("bob@example.com")?])?;
    /// let message = Message::raw("Subject: Hello\n\nWorld.\n").envelope(envelope);
    /// # Ok::<(), envoi::Error>(())
    /// ```
    pub fn raw(message: impl Into<Bytes>) -> Self {
        Message::new(Source::Ready(Data::Bytes(message.into())))
    }

    /// The same from a file. It is read twice: looked over before it goes, and as it goes.
    pub fn raw_file(path: impl Into<PathBuf>) -> Self {
        Message::new(Source::Ready(Data::File(path.into())))
    }

    /// The same from a stream, which is read once: its size is not announced to the server, and it
    /// cannot be sent a second time. Its header section is read before anything is sent.
    pub fn raw_stream(reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Message::new(Source::Ready(Data::Reader(Box::new(reader))))
    }
}

impl<'x> Message<'x> {
    fn new(what: Source<'x>) -> Self {
        Message {
            what,
            attachments: Vec::new(),
            envelope: None,
            delivery: DeliveryOptions::default(),
            line_ends: LineEnds::default(),
            may_be_binary: false,
            listener: None,
        }
    }

    /// Adds an attachment that is read when its turn comes. A ready message takes none: preparing
    /// it fails.
    pub fn attach(mut self, attachment: Attachment) -> Self {
        self.attachments.push(attachment);
        self
    }

    /// Where the message goes, whatever its headers say. Without it, a built message goes from its
    /// Sender, or else the first in From, to everyone in To, Cc and Bcc.
    pub fn envelope(mut self, envelope: Envelope) -> Self {
        self.envelope = Some(envelope);
        self
    }

    /// What is asked of the server beyond taking the message: reports of delivery, times, a
    /// priority … in place of what its envelope asks for.
    pub fn delivery(mut self, delivery: DeliveryOptions) -> Self {
        self.delivery = delivery;
        self
    }

    /// What becomes of line ends that are not CRLF. A built message has none.
    pub fn line_ends(mut self, line_ends: LineEnds) -> Self {
        self.line_ends = line_ends;
        self
    }

    /// Lets attachments go as they are, without base64 and so a quarter smaller, where the server
    /// offers BINARYMIME and CHUNKING (RFC 3030). Few do; to any other they go as base64, as they
    /// do without this. Text goes as ever, and so does what is signed.
    ///
    /// The server will have to encode them itself where the next one takes no binary messages, or
    /// return the message. A ready message is not changed, so this does nothing to it.
    ///
    /// ```
    /// use envoi::mail_builder::MessageBuilder;
    /// use envoi::{Attachment, Message};
    ///
    /// let mail = MessageBuilder::new().from("alice@example.org").to("bob@example.com").text_body("As promised.");
    /// let message = Message::from(mail).attach(Attachment::file("film.mp4")).binary();
    /// ```
    pub fn binary(mut self) -> Self {
        self.may_be_binary = true;
        self
    }

    /// Has this function told how far the message is while it goes: not more often than ten times a
    /// second, and once more when all of it has gone. It is called by the task that sends, so it
    /// should be quick: draw a bar, store a number, or pass the [`UploadProgress`] on through a
    /// channel, such as tokio's `watch`.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// use envoi::Message;
    /// use envoi::mail_builder::MessageBuilder;
    ///
    /// let sent = Arc::new(AtomicU64::new(0));
    /// let seen = sent.clone();
    /// let mail = MessageBuilder::new().from("alice@example.org").to("bob@example.com").text_body("Hello.");
    /// let message = Message::from(mail).progress(move |progress| seen.store(progress.sent, Ordering::Relaxed));
    /// ```
    pub fn progress(mut self, listener: impl Fn(UploadProgress) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Checks the message, looks at its files, and lays it out. Sending does this first of all; to
    /// do it oneself finds what is wrong early, and gives the bytes as they will go.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request): no sender, no recipient, what is
    /// [refused](Self#what-is-repaired-and-what-is-refused), or a ready message without an envelope
    /// or with attachments. [`ErrorKind::Input`](crate::ErrorKind::Input): a file that is missing,
    /// cannot be read or is none, or a stream that fails.
    ///
    /// A stream may give its header section late, or never: this waits for it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> envoi::Result<()> {
    /// use envoi::Message;
    /// use envoi::mail_builder::MessageBuilder;
    ///
    /// let mail = MessageBuilder::new().from("alice@example.org").to("bob@example.com").bcc("eve@example.net").text_body("Hello");
    /// let (envelope, mut body) = Message::from(mail).prepare().await?;
    /// assert_eq!(envelope.recipients().len(), 2);
    ///
    /// let mut bytes = Vec::new();
    /// while let Some(chunk) = body.chunk().await {
    ///     bytes.extend_from_slice(chunk?.bytes());
    /// }
    /// assert!(!String::from_utf8_lossy(&bytes).contains("eve"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn prepare(mut self) -> Result<(Envelope, Body)> {
        let delivery = std::mem::take(&mut self.delivery);
        let (envelope, body) = self.prepare_parts().await?;
        delivery.check_recipients(envelope.recipients())?;
        Ok((envelope, body.with_delivery(delivery)))
    }

    async fn prepare_parts(self) -> Result<(Envelope, Body)> {
        let teller = self.listener.map(ProgressReporter::new);
        match self.what {
            Source::Built(builder) => {
                let mut builder = nesting::check(builder)?;
                headers::repair(&mut builder.headers);
                let envelope = match self.envelope {
                    Some(envelope) => envelope,
                    None => headers::envelope(&builder.headers)?,
                };
                let mut attachments = Vec::with_capacity(self.attachments.len());
                for attachment in self.attachments {
                    attachments.push(attachment.look().await?);
                }
                let (pieces, facts, binary_facts) =
                    layout::lay_out(*builder, attachments, self.may_be_binary)?;
                Ok((
                    envelope,
                    Body::new(pieces, facts, None, teller).or_binary(binary_facts),
                ))
            }
            Source::Ready(data) => {
                let envelope = self.envelope.ok_or_else(|| {
                    Error::request("a ready message needs an envelope")
                        .with_hint("Give it one: its headers are not read for where it goes.")
                })?;
                if !self.attachments.is_empty() {
                    return Err(Error::request("a ready message takes no attachments")
                        .with_hint("Only a message of mail-builder's does."));
                }
                let (pieces, facts, check) = raw::prepare(data, self.line_ends).await?;
                Ok((envelope, Body::new(pieces, facts, check, teller)))
            }
        }
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Message");
        match &self.what {
            Source::Built(builder) => fields.field("builder", builder),
            Source::Ready(data) => fields.field("ready", data),
        };
        fields
            .field("attachments", &self.attachments)
            .field("envelope", &self.envelope)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_can_be_sent_from_any_task() {
        fn is_send<T: Send>(_: &T) {}
        let message = Message::from(MessageBuilder::new()).attach(Attachment::reader(
            "a",
            "a/b",
            tokio::io::empty(),
        ));
        is_send(&message);
        is_send(&message.prepare());
        is_send(&None::<Body>);
    }
}
