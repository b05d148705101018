//! Messages taken apart, for assertions (feature `testing-parse`).

use mail_parser::{
    Addr, Address, HeaderName, Message, MessageParser, MessagePart, MimeHeaders, PartType,
};

use super::assertions::assert_lines;

/// A message taken apart: its header fields, texts and attachments, decoded. From
/// [`ReceivedMessage::parse`](super::ReceivedMessage::parse) and
/// [`RecordedMessage::parse`](super::RecordedMessage::parse).
///
/// Parsing is lenient: what cannot be decoded is left as it is.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use envoi::{Client, mail_builder::MessageBuilder, testing::Server};
///
/// let server = Server::start().await?;
/// let mail = MessageBuilder::new()
///     .from(("Müller & Söhne", "office@example.org"))
///     .to("bob@example.com")
///     .subject("Rechnung für März")
///     .text_body("Dear Bob,\nplease pay.\n")
///     .html_body("<p>Dear Bob,</p>")
///     .attachment("application/pdf", "März.pdf", &b"%PDF-1.7"[..]);
/// Client::from_url(&server.url())?.send(mail).await?;
///
/// let mail = server.next_message().await.parse()?;
/// mail.assert_subject("Rechnung für März");
/// mail.assert_text("Dear Bob,\nplease pay.");
/// assert_eq!(mail.from, ["Müller & Söhne <office@example.org>"]);
/// assert_eq!(mail.html.as_deref(), Some("<p>Dear Bob,</p>"));
/// assert_eq!(mail.header("mime-version"), Some("1.0"));
/// let invoice = mail.attachment("März.pdf").expect("an invoice");
/// assert_eq!(invoice.content_type, "application/pdf");
/// assert_eq!(invoice.bytes, b"%PDF-1.7");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParsedMessage {
    /// The header fields in order, with their names as sent and their values unfolded and decoded.
    pub headers: Vec<(String, String)>,
    /// The subject.
    pub subject: Option<String>,
    /// The mailboxes in From: `bob@example.com`, or `Bob <bob@example.com>` with a name, which is
    /// not quoted. Groups are resolved.
    pub from: Vec<String>,
    /// The mailboxes in To.
    pub to: Vec<String>,
    /// The mailboxes in Cc.
    pub cc: Vec<String>,
    /// The mailboxes in Reply-To.
    pub reply_to: Vec<String>,
    /// The plain text of the body, with LF line ends; that of all its parts if there are several.
    /// `None` if there is none, also if there is HTML.
    pub text: Option<String>,
    /// The HTML of the body, with LF line ends; that of all its parts if there are several.
    pub html: Option<String>,
    /// The attachments, inline ones included, in order.
    pub attachments: Vec<ParsedAttachment>,
}

/// An attachment of a [`ParsedMessage`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParsedAttachment {
    /// The file name.
    pub name: Option<String>,
    /// The media type without parameters, in lower case: `application/pdf`. `text/plain` if there
    /// is none (RFC 2045, 5.2).
    pub content_type: String,
    /// The content ID without its angle brackets, as HTML refers to it.
    pub content_id: Option<String>,
    /// Content-Disposition is `inline`.
    pub is_inline: bool,
    /// The decoded content. That of text is in UTF-8.
    pub bytes: Vec<u8>,
}

impl ParsedMessage {
    /// Takes the bytes of a message apart. An empty message gives an empty value.
    ///
    /// ```
    /// let mail = envoi::testing::ParsedMessage::new(b"Subject: Hello\r\n\r\nDear Bob\r\n");
    /// assert_eq!(mail.subject.as_deref(), Some("Hello"));
    /// assert_eq!(mail.text.as_deref(), Some("Dear Bob\n"));
    /// ```
    pub fn new(message: &[u8]) -> Self {
        let Some(parsed) = MessageParser::default().parse(message) else {
            return ParsedMessage::default();
        };
        // Once more for the fields as text: the first time, known ones are parsed by their syntax.
        // The default applies only if another field is named.
        let as_text = MessageParser::new()
            .header_text(HeaderName::Subject)
            .default_header_text();
        let headers = as_text.parse_headers(message);
        let headers = headers.iter().flat_map(Message::headers).map(|header| {
            let value = header.value.as_text().unwrap_or_default();
            (header.name.as_str().to_owned(), value.to_owned())
        });
        ParsedMessage {
            headers: headers.collect(),
            subject: parsed.subject().map(String::from),
            from: mailboxes(parsed.from()),
            to: mailboxes(parsed.to()),
            cc: mailboxes(parsed.cc()),
            reply_to: mailboxes(parsed.reply_to()),
            text: joined(parsed.text_bodies().filter_map(|part| match &part.body {
                PartType::Text(text) => Some(&**text),
                _ => None,
            })),
            html: joined(parsed.html_bodies().filter_map(|part| match &part.body {
                PartType::Html(html) => Some(&**html),
                _ => None,
            })),
            attachments: parsed.attachments().map(ParsedAttachment::new).collect(),
        }
    }

    /// The value of the first header field with this name, compared without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| &**value)
    }

    /// The first attachment with this file name.
    pub fn attachment(&self, name: &str) -> Option<&ParsedAttachment> {
        let mut attachments = self.attachments.iter();
        attachments.find(|attachment| attachment.name.as_deref() == Some(name))
    }

    /// Checks the subject.
    ///
    /// # Panics
    ///
    /// If it differs.
    #[track_caller]
    pub fn assert_subject(&self, expected: &str) {
        let actual: Vec<_> = self.subject.as_deref().into_iter().collect();
        assert_lines("the subject differs", &[expected], &actual);
    }

    /// Checks the plain text of the body line by line. The line ends of the text may be LF or CRLF,
    /// and the last one may be missing.
    ///
    /// # Panics
    ///
    /// If it differs, with the lines that differ.
    #[track_caller]
    pub fn assert_text(&self, expected: &str) {
        assert_body("the text of the body differs", expected, &self.text);
    }

    /// Checks the HTML of the body, as [`assert_text`](Self::assert_text) does.
    ///
    /// # Panics
    ///
    /// If it differs, with the lines that differ.
    #[track_caller]
    pub fn assert_html(&self, expected: &str) {
        assert_body("the HTML of the body differs", expected, &self.html);
    }
}

impl ParsedAttachment {
    fn new(part: &MessagePart<'_>) -> Self {
        let content_type = part.content_type();
        let disposition = part.content_disposition();
        ParsedAttachment {
            name: part.attachment_name().map(String::from),
            content_type: content_type.map_or_else(
                || "text/plain".to_owned(),
                |given| {
                    let subtype = given.subtype().unwrap_or_default();
                    format!("{}/{subtype}", given.ctype()).to_ascii_lowercase()
                },
            ),
            content_id: part.content_id().map(String::from),
            is_inline: disposition.is_some_and(|given| given.is_inline()),
            bytes: part.contents().to_vec(),
        }
    }
}

fn mailboxes(addresses: Option<&Address<'_>>) -> Vec<String> {
    let show = |mailbox: &Addr<'_>| match (&mailbox.name, mailbox.address.as_deref()) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (Some(name), None) => name.to_string(),
        (None, address) => address.unwrap_or_default().to_owned(),
    };
    addresses
        .into_iter()
        .flat_map(Address::iter)
        .map(show)
        .collect()
}

/// All parts as one text, with LF line ends; `None` if there are no parts.
fn joined<'a>(parts: impl Iterator<Item = &'a str>) -> Option<String> {
    parts
        .map(|part| part.replace("\r\n", "\n"))
        .reduce(|before, part| before + &part)
}

#[track_caller]
fn assert_body(what: &str, expected: &str, actual: &Option<String>) {
    let expected: Vec<_> = expected.lines().collect();
    let actual: Vec<_> = actual.iter().flat_map(|text| text.lines()).collect();
    assert_lines(what, &expected, &actual);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &str = "From: =?utf-8?Q?J=C3=BCrgen?= <j@example.org>\r\n\
        To: Team: a@example.org, \"B, C\" <b@example.org>;\r\n\
        X-Long: first\r\n second\r\n\
        Content-Type: multipart/mixed; boundary=x\r\n\r\n\
        --x\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<b>1</b>\r\n\r\n\
        --x\r\nContent-Type: IMAGE/Png\r\nContent-ID: <logo@x>\r\n\
        Content-Disposition: inline\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw==\r\n\
        --x\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nbody\r\n\
        --x--\r\n";

    #[test]
    fn parts_are_told_apart() {
        let mail = ParsedMessage::new(MIXED.as_bytes());
        assert_eq!(mail.from, ["Jürgen <j@example.org>"]);
        assert_eq!(mail.to, ["a@example.org", "B, C <b@example.org>"]);
        assert_eq!((&mail.subject, &mail.text), (&None, &None));
        mail.assert_html("<b>1</b>");
        assert_eq!(mail.header("x-long"), Some("first second"));
        assert_eq!(mail.header("from"), Some("Jürgen <j@example.org>"));
        assert_eq!(mail.header("subject"), None);
        let [image, message] = &mail.attachments[..] else {
            panic!("{:?}", mail.attachments)
        };
        assert_eq!(image.content_type, "image/png");
        assert_eq!(image.content_id.as_deref(), Some("logo@x"));
        assert_eq!((image.is_inline, &image.bytes[..]), (true, &b"\x89PNG"[..]));
        assert_eq!(message.content_type, "message/rfc822");
        assert!(message.bytes.starts_with(b"Subject: inner\r\n"));
        assert_eq!(ParsedMessage::new(b""), ParsedMessage::default());
    }

    #[test]
    #[should_panic(expected = "the text of the body differs (- expected, + received):\n- a\n+ b\n")]
    fn a_text_that_differs_is_printed() {
        ParsedMessage::new(b"Subject: x\r\n\r\nb\r\n").assert_text("a");
    }

    #[test]
    #[should_panic(expected = "the subject differs (- expected, + received):\n- y\n")]
    fn a_missing_subject_is_reported() {
        ParsedMessage::new(b"From: a@example.org\r\n\r\nb\r\n").assert_subject("y");
    }
}
