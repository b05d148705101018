//! Messages: built with mail-builder, with attachments of any size, or given as raw messages.
//!
//! Sending turns a [`Message`] into a [`PreparedMessage`] in three steps that fail before any
//! connection is made: the headers are checked and the envelope is read from them; files are
//! inspected; the message is serialized as text, with placeholders for what is read later. So its
//! size is known in advance, and it needs a few blocks of memory only. Its [`Body`] is the stream
//! of its bytes.

mod attachment;
mod body;
mod handover;
mod headers;
mod input;
mod layout;
mod mailboxes;
mod nesting;
mod prepared;
mod progress;
mod raw;
mod scan;
mod section;
#[cfg(feature = "dkim")]
mod signing;
mod text;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use mail_builder::MessageBuilder;
use tokio::io::AsyncRead;

pub use attachment::Attachment;
pub use body::Body;
pub use handover::Handover;
pub(crate) use handover::Handovers;
pub use prepared::{AttachmentInfo, PreparedMessage};
pub use progress::UploadProgress;
pub use raw::LineEnds;
pub use text::decode_text;

#[cfg(feature = "dkim")]
use crate::dkim::DkimSigner;
use crate::proto::Capabilities;
use crate::{DeliveryOptions, Envelope, Error, Result};
use attachment::Data;
use handover::HandoverCallback;
use progress::ProgressCallback;

/// A message to send.
///
/// It is either built with mail-builder's [`MessageBuilder`] or a raw message, which is complete
/// with its headers. Its Bcc header is never sent.
///
/// # What is repaired and what is refused
///
/// Either a valid message is sent or nothing is. The rules are the same for bytes, files and
/// streams, and for every way in which the server accepts the message. A message is refused before
/// anything is sent, with [`ErrorKind::Request`](crate::ErrorKind::Request); for a raw message the
/// error names the line and shows its bytes.
///
/// The header section of a raw message may have up to 1 MiB. In it:
///
/// | Found | What happens |
/// |---|---|
/// | a BOM, blank lines or an mbox line (`From …`) before the first field | removed |
/// | Bcc and Resent-Bcc, in any case, folded, with blanks before the colon | removed |
/// | a field without a value that must have one (`Cc:`, `Content-Type:`) | removed |
/// | LF alone as line end | becomes CRLF, unless [`LineEnds`] says otherwise: then refused |
/// | CR alone | refused: not every reader ends a line there |
/// | no header field at all, a line that is not a header field, an empty message | refused |
/// | bytes that are not UTF-8, UTF-16, a NUL | refused; UTF-8 needs SMTPUTF8 (RFC 6532) |
/// | a second field of a kind that may occur once (RFC 5322, 3.6) | refused |
/// | From with several addresses but no Sender, Sender with several (RFC 5322, 3.6.2) | refused |
///
/// In the body of a raw message, [`LineEnds`] decides about line ends, and a NUL is refused unless
/// the message is sent as binary. Nothing else in a raw message is changed or checked. A line of
/// more than 998 bytes is sent as it is, because servers may accept it and a signature may cover
/// it; [`PreparedMessage::longest_line`] reports it.
///
/// In a stream, and in a [large file](Message::raw_file), a NUL or a refused line end is found only
/// while the body is sent: sending fails then with [`ErrorKind::Input`](crate::ErrorKind::Input),
/// and as the message is not ended, nothing is delivered. To check the body of a large file before,
/// [prepare](Self::prepare) it, and read the [`Body`] of a copy to its end.
///
/// In a built message:
///
/// | Found | What happens |
/// |---|---|
/// | Bcc and Resent-Bcc | removed; recipients in Bcc are in the envelope |
/// | a list without an address, an identifier or a type without a value | the field is left out |
/// | To, Cc or Reply-To set more than once | one list |
/// | another field set more than once that may occur once | the last one counts |
/// | identifiers in angle brackets (`message_id("<a@b>")`) | the brackets are not doubled |
/// | a byte order mark at the front of a text or HTML body | removed |
/// | attachments that HTML refers to (`cid:`) | `multipart/related` with the HTML (RFC 2387) |
/// | an address that is not valid, a line break or NUL in a header | refused |
/// | an identifier, Content-ID or media type that is not valid | refused |
/// | an address field that is text, not addresses | refused |
/// | lists, groups or parts nested more than 100 deep | refused |
/// | From with several addresses and no Sender, or Sender with several | refused |
/// | Content-Type or Content-Transfer-Encoding beside those of the content | refused |
/// | `message/…` and `multipart/…` attachments | not encoded (RFC 2046, 5.2.1); a NUL is refused |
///
/// Use [`decode_text`] to make a body of the text in a file.
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
    source: Source<'x>,
    attachments: Vec<Attachment>,
    envelope: Option<Envelope>,
    delivery: DeliveryOptions,
    line_ends: LineEnds,
    may_be_binary: bool,
    progress: Option<ProgressCallback>,
    #[cfg(feature = "dkim")]
    signers: Vec<DkimSigner>,
    on_handover: Option<HandoverCallback>,
}

enum Source<'x> {
    Builder(Box<MessageBuilder<'x>>),
    Raw(Data),
    Prepared(Box<Body>, Vec<AttachmentInfo>),
}

impl<'x> From<MessageBuilder<'x>> for Message<'x> {
    /// The builder may have attachments in memory. [`Message::attach`] adds those that are
    /// streamed.
    fn from(builder: MessageBuilder<'x>) -> Self {
        Message::new(Source::Builder(Box::new(builder)))
    }
}

/// A message that was prepared, to be sent as it is. Its envelope, delivery options and progress
/// callback can be replaced; line ends and encodings were decided when it was prepared, and it
/// takes no further attachments.
impl From<PreparedMessage> for Message<'_> {
    fn from(prepared: PreparedMessage) -> Self {
        let PreparedMessage {
            envelope,
            delivery,
            attachments,
            mut body,
        } = prepared;
        // The form is chosen for each server.
        body.negotiate(&Capabilities::default());
        Message {
            envelope: Some(envelope),
            delivery,
            may_be_binary: body.has_binary_form(),
            progress: body.progress_callback(),
            on_handover: body.handovers().map(Handovers::callback),
            ..Message::new(Source::Prepared(Box::new(body), attachments))
        }
    }
}

impl Message<'static> {
    /// Creates a message from a raw message: headers, an empty line, body. It needs an
    /// [`envelope`](Self::envelope). [These rules](Self#what-is-repaired-and-what-is-refused) apply
    /// to its headers.
    ///
    /// ```
    /// use envoi::{Address, Envelope, Message};
    ///
    /// let to = Address::new("bob@example.com")?;
    /// let envelope = Envelope::new(Address::new("alice@example.org")?, [to])?;
    /// let message = Message::raw("Subject: Hello\n\nWorld.\n").envelope(envelope);
    /// # Ok::<(), envoi::Error>(())
    /// ```
    pub fn raw(message: impl Into<Bytes>) -> Self {
        Message::new(Source::Raw(Data::Bytes(message.into())))
    }

    /// Creates a message from a file that contains a raw message. The file is read twice: to check
    /// it before anything is sent, and to send it.
    ///
    /// Of a file of more than 16 MiB only the header section is checked before, and the rest while
    /// it is sent, since reading it twice would take a considerable part of the time. The size that
    /// is declared to the server (RFC 1870) is then that of the file: a bare CR or LF that becomes
    /// CRLF is not counted, and messages with 8-bit text are not distinguished from others
    /// ([`Content::Unknown`](crate::proto::Content::Unknown)). Exceptions, which are read twice
    /// whatever their size: a file whose first lines do not end with CRLF, any file with
    /// [`LineEnds::Keep`], and one for a server that does not offer 8BITMIME.
    pub fn raw_file(path: impl Into<PathBuf>) -> Self {
        Message::new(Source::Raw(Data::File(path.into())))
    }

    /// Creates a message from a stream of a raw message. It is read once, so its size is not
    /// announced to the server and it cannot be sent a second time. Its header section is read
    /// before anything is sent.
    pub fn raw_stream(reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Message::new(Source::Raw(Data::Reader(Box::new(reader))))
    }
}

impl<'x> Message<'x> {
    fn new(source: Source<'x>) -> Self {
        Message {
            source,
            attachments: Vec::new(),
            envelope: None,
            delivery: DeliveryOptions::default(),
            line_ends: LineEnds::default(),
            may_be_binary: false,
            progress: None,
            #[cfg(feature = "dkim")]
            signers: Vec::new(),
            on_handover: None,
        }
    }

    /// Adds an attachment, which is read when it is sent. A raw or prepared message cannot have
    /// further attachments: preparing it fails.
    pub fn attach(mut self, attachment: Attachment) -> Self {
        self.attachments.push(attachment);
        self
    }

    /// Sets the envelope: where the message goes, whatever its headers say. By default, a built
    /// message goes from its Sender, or else from the first address in From, to all addresses in
    /// To, Cc and Bcc.
    pub fn envelope(mut self, envelope: Envelope) -> Self {
        self.envelope = Some(envelope);
        self
    }

    /// Sets the ESMTP parameters: delivery reports, times, a priority … They replace those of the
    /// envelope.
    pub fn delivery(mut self, delivery: DeliveryOptions) -> Self {
        self.delivery = delivery;
        self
    }

    /// Sets how line ends other than CRLF are treated. A built message has none.
    pub fn line_ends(mut self, line_ends: LineEnds) -> Self {
        self.line_ends = line_ends;
        self
    }

    /// Allows attachments to be sent without base64, which makes them a quarter smaller, if the
    /// server offers BINARYMIME and CHUNKING (RFC 3030). Few servers do; all others get base64.
    /// Text and signed parts are not affected.
    ///
    /// The server has to encode the attachments itself if the next server does not accept binary
    /// messages, or it has to return the message. Has no effect on a raw message, which is never
    /// changed; a prepared message can only lose its binary form.
    ///
    /// ```
    /// use envoi::mail_builder::MessageBuilder;
    /// use envoi::{Attachment, Message};
    ///
    /// let mail = MessageBuilder::new()
    ///     .from("alice@example.org")
    ///     .to("bob@example.com")
    ///     .text_body("As promised.");
    /// let message = Message::from(mail).attach(Attachment::file("film.mp4")).binary(true);
    /// ```
    pub fn binary(mut self, yes: bool) -> Self {
        self.may_be_binary = yes;
        self
    }

    /// Calls a function with the upload progress: at most ten times a second, and once more when
    /// the whole message has been written. The task that sends calls it, so it should be quick:
    /// draw a bar, store a number, or pass the [`UploadProgress`] on through a channel, such as
    /// tokio's `watch`.
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
    /// let mail = MessageBuilder::new()
    ///     .from("alice@example.org")
    ///     .to("bob@example.com")
    ///     .text_body("Hello.");
    /// let message = Message::from(mail)
    ///     .progress(move |progress| seen.store(progress.sent, Ordering::Relaxed));
    /// ```
    pub fn progress(mut self, callback: impl Fn(UploadProgress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(callback));
        self
    }

    /// Calls an async function immediately before the last byte of the message may be written, and
    /// awaits it: before the final dot after DATA or, with CHUNKING, before the last BDAT. Up to
    /// then, it is certain that the message is not delivered; from then on, it may be. A program
    /// that records the hand-over in the callback, and the outcome afterwards, can be killed at any
    /// moment and knows of each message whether it was not sent, sent, or is in doubt.
    ///
    /// The callback is called once in each transaction that comes so far: again for a retry, for a
    /// further transaction of a message [in several](crate::Connection::send), and for another
    /// server. [`Handover`] has the recipients. A message that the server refuses before is not
    /// handed over.
    ///
    /// Meanwhile the rest of the message is written and replies are read. The server is not waited
    /// for, so only the [deadline](crate::Timeouts::deadline) limits the callback; a server may
    /// give up waiting after some minutes. The callbacks of the messages in flight over one
    /// connection run concurrently, and the messages leave in their order.
    ///
    /// If the callback returns an error, the message is not sent, with
    /// [`ErrorKind::Handover`](crate::ErrorKind::Handover). It is final: the callback is not called
    /// again in this call, so the message is neither retried nor sent in further transactions, even
    /// if the connection is lost or the server has refused some recipients for now. The session
    /// goes on after RSET where the message goes in chunks. DATA cannot be aborted, so the
    /// connection is then dropped; other messages in flight were then not sent. The future of the
    /// callback is dropped before its end if the call that sends is dropped, the deadline is
    /// reached, or the server refuses the message or ends the session: the message was not sent in
    /// this transaction then. [`Receipt::handed_over`](crate::Receipt::handed_over) says whether
    /// the callback has permitted a hand-over.
    ///
    /// The callback does not apply to [`DataWriter`](crate::DataWriter), where calling
    /// [`finish`](crate::DataWriter::finish) is the hand-over.
    ///
    /// ```
    /// use std::io::Write as _;
    ///
    /// use envoi::Message;
    /// use envoi::mail_builder::MessageBuilder;
    ///
    /// let mail = MessageBuilder::new()
    ///     .from("alice@example.org")
    ///     .to("bob@example.com")
    ///     .text_body("Hello.");
    /// let message = Message::from(mail).on_handover(|handover| async move {
    ///     let record = move || {
    ///         let mut journal = std::fs::File::options().append(true).open("journal")?;
    ///         for recipient in &handover.recipients {
    ///             writeln!(journal, "handing over to {recipient}")?;
    ///         }
    ///         journal.sync_data()
    ///     };
    ///     tokio::task::spawn_blocking(record).await?
    /// });
    /// ```
    pub fn on_handover<F, E>(
        mut self,
        callback: impl Fn(Handover) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.on_handover = Some(Arc::new(move |handover| {
            let permission = callback(handover);
            Box::pin(async move { permission.await.map_err(E::into) })
        }));
        self
    }

    /// Signs the message by DKIM when it is prepared, after all repairs. Each call adds a
    /// signature.
    ///
    /// The message is then read twice, to sign and to send it, so it cannot contain a
    /// [stream](Message::raw_stream). Only its encoded form is signed and sent, whatever
    /// [`binary`](Self::binary) says. A prepared message can be signed, too; its own signatures
    /// stay.
    ///
    /// ```no_run
    /// use envoi::Message;
    /// use envoi::dkim::{DkimKey, DkimSigner};
    /// use envoi::mail_builder::MessageBuilder;
    ///
    /// let rsa = DkimSigner::new("example.org", "2026", DkimKey::from_file("2026.pem")?)?;
    /// let ed25519 = DkimSigner::new("example.org", "2026e", DkimKey::from_file("2026e.pem")?)?;
    /// let mail = MessageBuilder::new()
    ///     .from("alice@example.org")
    ///     .to("bob@example.com")
    ///     .text_body("Hello.");
    /// let message = Message::from(mail).dkim(rsa).dkim(ed25519);
    /// # Ok::<(), envoi::Error>(())
    /// ```
    #[cfg(feature = "dkim")]
    pub fn dkim(mut self, signer: DkimSigner) -> Self {
        self.signers.push(signer);
        self
    }

    /// The attachments that are streamed; of a prepared message, see
    /// [`PreparedMessage::attachments`].
    pub fn get_attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// The envelope, where one was set.
    pub fn get_envelope(&self) -> Option<&Envelope> {
        self.envelope.as_ref()
    }

    /// The delivery options.
    pub fn get_delivery(&self) -> &DeliveryOptions {
        &self.delivery
    }

    /// What becomes of line ends that are not CRLF.
    pub fn get_line_ends(&self) -> LineEnds {
        self.line_ends
    }

    /// Whether attachments may go without base64.
    pub fn get_binary(&self) -> bool {
        self.may_be_binary
    }

    /// The signers that [`dkim`](Self::dkim) added.
    #[cfg(feature = "dkim")]
    pub fn get_dkim(&self) -> &[DkimSigner] {
        &self.signers
    }

    /// Returns a copy, for another attempt to send the message or for several clients; `None` if
    /// the message has a part that can be read only once ([`raw_stream`](Message::raw_stream),
    /// [`Attachment::reader`]).
    ///
    /// A built message without a Message-ID or date gets them when it is prepared, so each copy
    /// gets its own. If the copies are attempts to send one message, [prepare](Self::prepare) it
    /// first, and clone the [`PreparedMessage`].
    ///
    /// ```
    /// use envoi::mail_builder::MessageBuilder;
    /// use envoi::{Attachment, Message};
    ///
    /// let mail = MessageBuilder::new().from("alice@example.org").to("bob@example.com");
    /// let message = Message::from(mail.text_body("Hello."));
    /// assert!(message.try_clone().is_some());
    /// let stream = Attachment::reader("log.txt", "text/plain", tokio::io::empty());
    /// assert!(message.attach(stream).try_clone().is_none());
    /// ```
    pub fn try_clone(&self) -> Option<Self> {
        let source = match &self.source {
            Source::Builder(builder) => Source::Builder(builder.clone()),
            Source::Raw(data) => Source::Raw(data.try_clone()?),
            Source::Prepared(body, attachments) => {
                Source::Prepared(Box::new(body.restart()?), attachments.clone())
            }
        };
        let attachments = self.attachments.iter().map(Attachment::try_clone);
        Some(Message {
            source,
            attachments: attachments.collect::<Option<_>>()?,
            envelope: self.envelope.clone(),
            delivery: self.delivery.clone(),
            line_ends: self.line_ends,
            may_be_binary: self.may_be_binary,
            progress: self.progress.clone(),
            #[cfg(feature = "dkim")]
            signers: self.signers.clone(),
            on_handover: self.on_handover.clone(),
        })
    }

    /// Checks the message, inspects its files, and serializes it. Sending starts with this; call it
    /// yourself to find errors early, to look at what would be sent, or to send one message several
    /// times.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request): there is no sender or no recipient,
    /// something is [refused](Self#what-is-repaired-and-what-is-refused), a raw message has
    /// attachments or no envelope, or a message to [sign](Self::dkim) contains a stream or has no
    /// From header. [`ErrorKind::Input`](crate::ErrorKind::Input): a file is
    /// missing, cannot be read or is not a regular file, or a stream fails.
    ///
    /// Waits until a stream has given its header section, however long that takes.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> envoi::Result<()> {
    /// use envoi::Message;
    /// use envoi::mail_builder::MessageBuilder;
    ///
    /// let mail = MessageBuilder::new()
    ///     .from("alice@example.org")
    ///     .to("bob@example.com")
    ///     .bcc("eve@example.net")
    ///     .text_body("Hello");
    /// let prepared = Message::from(mail).prepare().await?;
    /// assert_eq!(prepared.envelope().recipients().len(), 2);
    /// assert!(!String::from_utf8_lossy(&prepared.headers()).contains("eve"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn prepare(self) -> Result<PreparedMessage> {
        let Message {
            source,
            attachments,
            envelope,
            delivery,
            line_ends,
            may_be_binary,
            progress,
            #[cfg(feature = "dkim")]
            signers,
            on_handover,
        } = self;
        let (envelope, infos, body) = match source {
            Source::Builder(builder) => {
                let mut builder = nesting::check(builder)?;
                headers::repair(&mut builder.headers);
                let envelope = match envelope {
                    Some(envelope) => envelope,
                    None => headers::envelope(&builder.headers)?,
                };
                let mut inspected = Vec::with_capacity(attachments.len());
                for attachment in attachments {
                    inspected.push(attachment.inspect().await?);
                }
                let infos = inspected.iter().map(AttachmentInfo::from).collect();
                let (segments, info, binary_info) =
                    layout::write_segments(*builder, inspected, may_be_binary)?;
                let body = Body::new(segments, info).with_binary_info(binary_info);
                (envelope, infos, body)
            }
            Source::Raw(data) => {
                let envelope = envelope_of("a raw message", envelope, &attachments)?;
                let (segments, info, check) = raw::prepare(data, line_ends).await?;
                (
                    envelope,
                    Vec::new(),
                    Body::new(segments, info).with_check(check),
                )
            }
            Source::Prepared(body, infos) => {
                let envelope = envelope_of("a prepared message", envelope, &attachments)?;
                let body = match may_be_binary {
                    true => *body,
                    false => body.with_binary_info(None),
                };
                (envelope, infos, body)
            }
        };
        delivery.check_recipients(envelope.recipients())?;
        // After every repair, and before framing: what is signed is what leaves.
        #[cfg(feature = "dkim")]
        let body = match signers.is_empty() {
            true => body,
            false => Box::pin(signing::sign(body, signers)).await?,
        };
        Ok(PreparedMessage {
            envelope,
            delivery,
            attachments: infos,
            body: body
                .with_progress(progress)
                .with_handovers(on_handover.map(Handovers::new)),
        })
    }
}

/// The envelope of a message that is complete with its headers and attachments.
fn envelope_of(
    what: &str,
    envelope: Option<Envelope>,
    attachments: &[Attachment],
) -> Result<Envelope> {
    let envelope = envelope.ok_or_else(|| {
        Error::request(format!("{what} needs an envelope"))
            .with_hint("Give it one: its headers are not read for where it goes.")
    })?;
    if !attachments.is_empty() {
        return Err(Error::request(format!("{what} takes no attachments"))
            .with_hint("Only a message built with mail-builder does."));
    }
    Ok(envelope)
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Message");
        match &self.source {
            Source::Builder(builder) => fields.field("builder", builder),
            Source::Raw(data) => fields.field("raw", data),
            Source::Prepared(body, _) => fields.field("prepared", body),
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
    fn message_is_send() {
        fn is_send<T: Send>(_: &T) {}
        let message = Message::from(MessageBuilder::new()).attach(Attachment::reader(
            "a",
            "a/b",
            tokio::io::empty(),
        ));
        is_send(&message);
        is_send(&message.prepare());
        is_send(&None::<PreparedMessage>);
    }
}
