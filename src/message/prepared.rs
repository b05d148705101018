//! [`PreparedMessage`]: a message that is ready to be sent, to any number of servers.

use std::fmt;

use super::body::Body;
use super::headers;
use super::raw::LineEnds;
use super::section::{self, Section};
use crate::proto::{Capabilities, Content, Transaction};
use crate::{DeliveryOptions, Envelope, Error, Result};

/// A message that was checked, repaired and serialized: what [`Message::prepare`] returns.
///
/// Its bytes are exactly those that leave, to the CRLF of the last line. They do not depend on the
/// server, unless the message has a [binary form](Self::has_binary_form); only the framing is added
/// when it is sent. A message that a server cannot take as it is, such as 8-bit text without
/// 8BITMIME, is refused and not changed.
///
/// It can be looked at, kept, given further header fields, and [cloned](Self::try_clone) where its
/// sources can be read again. It is sent as any other message is:
///
/// ```no_run
/// use envoi::mail_builder::MessageBuilder;
/// use envoi::{Client, Message};
///
/// # async fn example(client: Client) -> envoi::Result<()> {
/// let mail = MessageBuilder::new()
///     .from("alice@example.org")
///     .to("bob@example.com")
///     .text_body("Hello");
/// let prepared = Message::from(mail).prepare().await?;
/// println!("{:?} bytes to {:?}", prepared.size(), prepared.envelope().recipients());
/// client.send(prepared.prepend_header("X-Tenant", "4711")?).await?;
/// # Ok(())
/// # }
/// ```
///
/// # One message, many servers
///
/// A message that is prepared once is equal to the byte wherever it goes: Message-ID, date and
/// boundaries are the same, and so is a signature. The attempts of a retry policy, the servers of a
/// [`Failover`](crate::Failover) and the transactions to several groups of recipients share one
/// preparation by themselves. To send it by several clients, or to several envelopes, clone it:
///
/// ```no_run
/// use envoi::{Client, Envelope, Message};
///
/// # async fn example(
/// #     message: Message<'_>, clients: Vec<Client>, mut envelopes: Vec<Envelope>,
/// # ) -> envoi::Result<()> {
/// let prepared = message.prepare().await?;
/// for (client, envelope) in clients.iter().zip(envelopes) {
///     let copy = prepared.try_clone().expect("it contains no stream");
///     client.send(Message::from(copy).envelope(envelope)).await?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// [`Message::prepare`]: super::Message::prepare
pub struct PreparedMessage {
    pub(crate) envelope: Envelope,
    pub(crate) delivery: DeliveryOptions,
    pub(super) attachments: Vec<AttachmentInfo>,
    pub(crate) body: Body,
}

/// What is known of an attachment of a [`PreparedMessage`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttachmentInfo {
    /// The name that the recipient sees.
    pub name: String,
    /// The content type.
    pub content_type: String,
    /// The Content-ID by which an HTML body refers to it.
    pub content_id: Option<String>,
    /// The size in bytes before it is encoded; `None` for a stream of unknown size.
    pub size: Option<u64>,
}

impl PreparedMessage {
    /// Where the message goes.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The ESMTP parameters that [`Message::delivery`](super::Message::delivery) set.
    pub fn delivery(&self) -> &DeliveryOptions {
        &self.delivery
    }

    /// The attachments that are streamed, in their order. Those in memory that the
    /// [`MessageBuilder`](mail_builder::MessageBuilder) was given are not among them.
    pub fn attachments(&self) -> &[AttachmentInfo] {
        &self.attachments
    }

    /// The header fields as they leave, each with its CRLF, without the empty line after them.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> envoi::Result<()> {
    /// # use envoi::mail_builder::MessageBuilder;
    /// # use envoi::Message;
    /// let mail = MessageBuilder::new()
    ///     .from("alice@example.org")
    ///     .to("bob@example.com")
    ///     .text_body("Hello");
    /// let prepared = Message::from(mail).prepare().await?;
    /// let prepared = prepared.prepend_header("X-Tenant", "4711")?;
    /// assert!(prepared.headers().starts_with(b"X-Tenant: 4711\r\nFrom: "));
    /// # Ok(())
    /// # }
    /// ```
    pub fn headers(&self) -> Vec<u8> {
        self.body.headers()
    }

    /// The exact size on the wire in bytes, as the SIZE extension counts it (RFC 1870): every line,
    /// the last one included, ends with CRLF; doubled dots and the final dot do not count. `None`
    /// if the message contains a stream of unknown size. Of a [large raw
    /// file](super::Message::raw_file), the size is too small by one byte for each bare CR or LF.
    pub fn size(&self) -> Option<u64> {
        self.body.size()
    }

    /// Which bytes the message contains.
    pub fn content(&self) -> Content {
        self.body.content()
    }

    /// Whether a header contains bytes beyond ASCII, which needs a server with SMTPUTF8 (RFC 6531).
    /// The headers of the parts of a raw message are not checked.
    pub fn has_utf8_headers(&self) -> bool {
        self.body.has_utf8_headers()
    }

    /// The length of the longest line in bytes, without the line end. It is at least 76 if the
    /// message contains a base64 attachment of unknown size. Servers need not accept more than 998
    /// (RFC 5321, 4.5.3.1.6). `None` for a raw message that is a stream or a [large
    /// file](super::Message::raw_file), and for the binary form, which need not have lines.
    pub fn longest_line(&self) -> Option<u64> {
        self.body.longest_line()
    }

    /// Puts a header field before all others, as trace fields and signatures are (RFC 5321, 4.4;
    /// RFC 6376, 3.5).
    ///
    /// The field is written as `NAME: VALUE`. A line of more than 78 characters is folded at its
    /// blanks, unless the value is folded already: that is written as it is. A value beyond ASCII
    /// is encoded as text (RFC 2047).
    ///
    /// A field that a signature covers has to be there before the message is signed: put it in
    /// front, and sign `Message::from(prepared)`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request): the name is not valid; the value has a
    /// NUL or a line break that is not folding; the message has the field already and may have it
    /// only once; or the field is Bcc, which is never sent.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> envoi::Result<()> {
    /// # use envoi::{Address, Envelope, Message};
    /// let to = Address::new("bob@example.com")?;
    /// let envelope = Envelope::new(Address::new("alice@example.org")?, [to])?;
    /// let raw = || Message::raw("Subject: Hello\n\nWorld.\n").envelope(envelope.clone());
    /// let prepared = raw().prepare().await?.prepend_header("List-Id", "<news.example.org>")?;
    /// assert_eq!(prepared.headers(), b"List-Id: <news.example.org>\r\nSubject: Hello\r\n");
    ///
    /// let injected = raw().prepare().await?.prepend_header("X-A", "b\r\nX-C: d");
    /// assert!(injected.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn prepend_header(mut self, name: &str, value: &str) -> Result<Self> {
        let field = headers::write_field(name, value)?;
        if section::is_bcc(name) {
            return Err(Error::request(format!("the {name} header is never sent"))
                .with_hint("Add its addresses to the envelope."));
        }
        let section = [&field[..], &self.headers()].concat();
        // The rules for a header section apply to the new one.
        let checked = Section::read(&section, LineEnds::Refuse)?;
        if checked.bytes.len() != section.len() {
            return Err(Error::request(format!("the {name} header has no value"))
                .with_hint("Give it one, or leave the header out."));
        }
        self.body.prepend(field);
        Ok(self)
    }

    /// Whether the message may also be sent in a binary form, with attachments that are not encoded
    /// (RFC 3030), to servers that accept it: [`Message::binary`](super::Message::binary) allowed
    /// it, and it has contents to which this applies. The bytes are then not the same for each
    /// server.
    pub fn has_binary_form(&self) -> bool {
        self.body.has_binary_form()
    }

    /// Drops the binary form: the bytes are the same for each server from now on. Do this before
    /// computing a signature or a hash of a message that may have one.
    #[must_use = "the method returns the changed message"]
    pub fn without_binary_form(self) -> Self {
        PreparedMessage {
            body: self.body.with_binary_info(None),
            ..self
        }
    }

    /// Chooses the form for a server, which [`size`](Self::size), [`content`](Self::content) and
    /// the bytes are those of from now on: the [binary one](Self::has_binary_form) if there is one
    /// and the server offers BINARYMIME and CHUNKING. A client does this by itself; it is for
    /// programs that drive a [`Machine`](crate::proto::Machine).
    pub fn negotiate(&mut self, server: &Capabilities) {
        self.body.negotiate(server);
    }

    /// Whether [`try_clone`](Self::try_clone) returns a copy. It does not if the message contains a
    /// stream.
    pub fn can_clone(&self) -> bool {
        self.body.can_restart()
    }

    /// Returns a copy that is equal to the byte: Message-ID, date and boundaries are the same. No
    /// form is [chosen](Self::negotiate) in it. `None` if the message contains a stream, which can
    /// be read only once.
    pub fn try_clone(&self) -> Option<Self> {
        Some(PreparedMessage {
            envelope: self.envelope.clone(),
            delivery: self.delivery.clone(),
            attachments: self.attachments.clone(),
            body: self.body.restart()?,
        })
    }

    /// Returns the bytes of the message, to be read in chunks.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> envoi::Result<()> {
    /// # use envoi::{Address, Envelope, Message};
    /// let to = Address::new("bob@example.com")?;
    /// let envelope = Envelope::new(Address::new("alice@example.org")?, [to])?;
    /// let message = Message::raw("Subject: Hello\n\nThe end").envelope(envelope);
    /// let mut body = message.prepare().await?.into_body();
    /// let mut bytes = Vec::new();
    /// while let Some(chunk) = body.chunk().await {
    ///     bytes.extend_from_slice(chunk?.bytes());
    /// }
    /// assert_eq!(bytes, b"Subject: Hello\r\n\r\nThe end\r\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_body(self) -> Body {
        self.body
    }
}

/// A transaction that gets its recipients one by one, as for
/// [`Connection::mail`](crate::Connection::mail), and describes this message.
impl From<&PreparedMessage> for Transaction {
    fn from(message: &PreparedMessage) -> Self {
        let mut transaction = Transaction::open(message.envelope.reverse_path().cloned());
        transaction.size = message.size();
        transaction.content = message.content();
        transaction.utf8_headers = message.has_utf8_headers();
        transaction.delivery = message.delivery.clone();
        transaction
    }
}

impl fmt::Debug for PreparedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedMessage")
            .field("envelope", &self.envelope)
            .field("delivery", &self.delivery)
            .field("attachments", &self.attachments)
            .field("body", &self.body)
            .finish()
    }
}
