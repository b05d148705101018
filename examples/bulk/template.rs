//! The template: a raw message in which `{{column}}` is replaced.
//!
//! Each place has its own encoding: encoded words in headers, quoted names in lists of addresses,
//! parameters by RFC 2231, percent-encoding in the URLs of List headers, character references in
//! HTML, backslashes in calendars, and the transfer encoding of each text part. So the template is
//! taken apart once, and each message is put together from its pieces.

use std::borrow::Cow;

use base64::Engine as _;
use csv::StringRecord;
use envoi::Address;
use envoi::mail_builder::headers::{Header as _, address, content_type, date::Date, text};
use mail_parser::{ContentType, Encoding, MessageParser, MessagePart, MimeHeaders as _, PartType};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use crate::{Failure, recipients};

/// A template that was taken apart.
pub struct Template {
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
    sender: Option<String>,
    has_date: bool,
    has_message_id: bool,
}

enum Piece {
    /// Bytes that are the same in each message.
    Literal(Vec<u8>),
    /// A field of text, with encoded words.
    Text(String, Text),
    /// A field of addresses, each with a name and an address.
    Addresses(String, Vec<(Text, Text)>),
    /// A field of a value and its parameters.
    Parameters(String, String, Vec<(String, Text)>),
    /// Another field. In a list field, values in angle brackets are parts of URLs.
    Structured(String, Text, bool),
    /// A text, with the field that says how it is encoded.
    Body(Body),
}

struct Body {
    text: Text,
    escape: fn(&str) -> Cow<'_, str>,
    encoding: Encoding,
    is_8bit: bool,
    /// The fields that the part has beside its encoding.
    fields: Vec<Piece>,
    /// It is a part of a multipart.
    is_in_multipart: bool,
    /// The delimiter of a multipart follows at once.
    needs_line_end: bool,
}

/// A text with columns in it.
struct Text(Vec<Segment>);

enum Segment {
    Literal(String),
    Column(usize),
}

/// Fields with addresses.
const ADDRESSES: &[&str] = &[
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "resent-from",
    "resent-sender",
    "resent-to",
    "resent-cc",
    "resent-bcc",
    "disposition-notification-to",
    "return-receipt-to",
    "mail-followup-to",
    "mail-reply-to",
    "errors-to",
];

/// Fields with a structure that has no encoded words.
const STRUCTURED: &[&str] = &[
    "message-id",
    "in-reply-to",
    "references",
    "date",
    "content-id",
    "return-path",
    "auto-submitted",
    "precedence",
];

/// Fields that say how a message is to be read.
const FIXED: &[&str] = &[
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
];

/// What a URL in angle brackets cannot have.
const NOT_IN_URL: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>');

impl Template {
    /// Takes a message apart, whose columns must all be known.
    pub fn parse(bytes: &[u8], columns: &[String]) -> Result<Self, Failure> {
        let (bytes, first_line) = without_preface(bytes);
        let message = MessageParser::new().parse(bytes);
        let message = message.ok_or_else(|| Failure::request("the template is not a message"))?;
        let parser = Parser {
            bytes,
            columns,
            first_line,
        };
        let mut pieces = Vec::new();
        let mut at = 0;
        let mut parts: Vec<&MessagePart<'_>> = message.parts.iter().collect();
        parts.sort_by_key(|part| part.offset_header);
        for part in parts {
            let start = part.offset_header as usize;
            // The parts of a message in the message are not looked at.
            if start < at {
                continue;
            }
            pieces.push(Piece::Literal(bytes[at..start].to_vec()));
            at = part.offset_body as usize;
            let text = match &part.body {
                PartType::Text(text) | PartType::Html(text) if text.contains("{{") => Some(text),
                _ => None,
            };
            let fields = parser.fields(part, text.is_some(), start == 0)?;
            let Some(text) = text else {
                pieces.extend(fields);
                if !matches!(part.body, PartType::Multipart(_)) {
                    let end = (part.offset_end as usize).max(at);
                    pieces.push(Piece::Literal(bytes[at..end].to_vec()));
                    at = end;
                }
                continue;
            };
            if part.is_encoding_problem {
                return Err(parser.failure(
                    part.offset_body as usize,
                    "the text is not encoded as its Content-Transfer-Encoding says",
                ));
            }
            at = part.offset_end as usize;
            let encoding = part.content_transfer_encoding().unwrap_or_default();
            pieces.push(Piece::Body(Body {
                text: parser.text(text, part.offset_body as usize)?,
                escape: escape(part),
                encoding: part.encoding,
                is_8bit: encoding.eq_ignore_ascii_case("8bit"),
                fields,
                is_in_multipart: start > 0,
                needs_line_end: bytes[at..].starts_with(b"--"),
            }));
        }
        pieces.push(Piece::Literal(bytes[at..].to_vec()));
        let sender = message.sender().or_else(|| message.from());
        let sender = sender
            .and_then(|list| list.first())
            .and_then(|address| address.address());
        // The value may not be valid before its columns are replaced.
        let has = |name: &str| {
            let mut fields = message.headers().iter();
            fields.any(|field| {
                let value = &bytes[field.offset_start as usize..field.offset_end as usize];
                field.name.as_str().eq_ignore_ascii_case(name) && !value.trim_ascii().is_empty()
            })
        };
        Ok(Template {
            sender: sender.map(str::to_owned),
            has_date: has("date"),
            has_message_id: has("message-id"),
            bytes: bytes.to_vec(),
            pieces,
        })
    }

    /// The template as it was read.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The sender of the envelope by the headers.
    pub fn sender(&self) -> Result<Address, Failure> {
        let sender = self
            .sender
            .as_deref()
            .ok_or_else(|| Failure::request("the template has no sender. Give one by --from."))?;
        Address::new(sender)
            .map_err(|error| Failure::request(format!("the sender of the template: {error}")))
    }

    /// Makes the message for a row. A message without a date or Message-ID gets one; the
    /// Message-ID is that of the key, so that a message in doubt that is sent again can be
    /// recognized.
    pub fn render(
        &self,
        row: &StringRecord,
        key: &str,
        sender: &Address,
    ) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(self.bytes.len() + 256);
        if !self.has_date {
            out.extend(format!("Date: {}\r\n", Date::now().to_rfc822()).bytes());
        }
        if !self.has_message_id {
            let hash = Sha256::new()
                .chain_update(&self.bytes)
                .chain_update(key)
                .finalize();
            let id: String = hash[..16]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let sender = sender.to_ascii();
            let domain = sender
                .as_ref()
                .map_or("localhost", |sender| sender.domain());
            out.extend(format!("Message-ID: <{id}@{domain}>\r\n").bytes());
        }
        for piece in &self.pieces {
            piece.render(row, &mut out)?;
        }
        Ok(out)
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    columns: &'a [String],
    /// The number of its first line in the file.
    first_line: usize,
}

impl Parser<'_> {
    /// The header section of a part. Of a part whose text is encoded anew, it has no transfer
    /// encoding and no empty line.
    fn fields(
        &self,
        part: &MessagePart<'_>,
        is_encoded: bool,
        is_first: bool,
    ) -> Result<Vec<Piece>, Failure> {
        let mut pieces = Vec::new();
        let mut at = part.offset_header as usize;
        let (mut has_type, mut has_version) = (false, false);
        for header in &part.headers {
            let (start, end) = (header.offset_field as usize, header.offset_end as usize);
            pieces.push(Piece::Literal(self.bytes[at..start].to_vec()));
            at = end;
            let raw = &self.bytes[start..end];
            let value = &self.bytes[header.offset_start as usize..end];
            let name = header.name.as_str().to_owned();
            let lower = name.to_ascii_lowercase();
            if name.contains("{{") {
                return Err(self.failure(start, "a column cannot be in the name of a header"));
            }
            has_version |= lower == "mime-version";
            let value = unfolded(value);
            let decoded = decode(&value);
            let parsed = header.value.as_content_type();
            let mut parameters = parsed.iter().flat_map(|parsed| parameters(parsed));
            let has_column = value.contains("{{")
                || decoded.contains("{{")
                || parameters.any(|(_, value)| value.contains("{{"));
            pieces.push(match (lower.as_str(), parsed) {
                ("content-transfer-encoding", _) if is_encoded && !has_column => continue,
                ("content-type", Some(parsed)) if is_encoded => {
                    has_type = true;
                    self.parameters(name, parsed, &decoded, true, start)?
                }
                // One without a value is left out.
                ("content-type", None) if is_encoded => continue,
                _ if !has_column => Piece::Literal(raw.to_vec()),
                ("content-type" | "content-disposition", Some(parsed)) => {
                    self.parameters(name, parsed, &decoded, false, start)?
                }
                (field, _) if FIXED.contains(&field) => {
                    return Err(self.failure(start, &format!("a column cannot be in {name}")));
                }
                (field, _) if ADDRESSES.contains(&field) => {
                    Piece::Addresses(name, self.addresses(&value, start)?)
                }
                (field, _) if STRUCTURED.contains(&field) || field.starts_with("list-") => {
                    if decoded != value {
                        let cause = format!("{name} has an encoded word and a column");
                        return Err(self.failure(start, &cause));
                    }
                    let is_list = field.starts_with("list-");
                    Piece::Structured(name, self.text(&value, start)?, is_list)
                }
                _ => Piece::Text(name, self.text(&decoded, start)?),
            });
        }
        let end = part.offset_body as usize;
        if !is_encoded {
            pieces.push(Piece::Literal(self.bytes[at..end].to_vec()));
            return Ok(pieces);
        }
        if is_first && !has_version {
            pieces.push(Piece::Literal(b"MIME-Version: 1.0\r\n".to_vec()));
        }
        if !has_type {
            let field = b"Content-Type: text/plain; charset=utf-8\r\n";
            pieces.push(Piece::Literal(field.to_vec()));
        }
        Ok(pieces)
    }

    /// A field whose parameters have columns. That of a text that is encoded anew says UTF-8.
    fn parameters(
        &self,
        name: String,
        parsed: &ContentType<'_>,
        decoded: &str,
        is_encoded: bool,
        offset: usize,
    ) -> Result<Piece, Failure> {
        let mut found = parameters(parsed);
        let kind = match parsed.subtype() {
            Some(subtype) => format!("{}/{subtype}", parsed.ctype()),
            None => parsed.ctype().to_owned(),
        };
        let in_values = found.iter().filter(|(name, value)| {
            let is_fixed = name == "boundary" || name == "charset";
            !is_fixed && value.contains("{{")
        });
        let in_values: usize = in_values.map(|(_, value)| count_columns(value)).sum();
        let all: usize = found.iter().map(|(_, value)| count_columns(value)).sum();
        if in_values < all.max(count_columns(decoded)) {
            let cause = format!(
                "in {name}, a column can only be in the value of a parameter, and not of \
                    `boundary` or `charset`"
            );
            return Err(self.failure(offset, &cause));
        }
        if is_encoded {
            found.retain(|(name, _)| name != "charset");
            found.insert(0, ("charset".to_owned(), "utf-8".to_owned()));
        }
        let parameters = found
            .into_iter()
            .map(|(name, value)| Ok((name, self.text(&value, offset)?)));
        let parameters = parameters.collect::<Result<_, Failure>>()?;
        Ok(Piece::Parameters(name, kind, parameters))
    }

    /// Splits a list of addresses.
    fn addresses(&self, value: &str, offset: usize) -> Result<Vec<(Text, Text)>, Failure> {
        let (mut items, mut item) = (Vec::new(), String::new());
        let (mut is_quoted, mut is_escaped) = (false, false);
        for c in value.chars() {
            match c {
                _ if is_escaped => is_escaped = false,
                '\\' if is_quoted => is_escaped = true,
                '"' => is_quoted = !is_quoted,
                ',' if !is_quoted => {
                    items.push(std::mem::take(&mut item));
                    continue;
                }
                ';' | ':' if !is_quoted => {
                    return Err(self.failure(offset, "a group of addresses cannot have columns"));
                }
                _ => {}
            }
            item.push(c);
        }
        items.push(item);
        let items = items
            .iter()
            .map(|item| item.trim())
            .filter(|item| !item.is_empty());
        items
            .map(|item| {
                let (name, address) = match item.rsplit_once('<') {
                    Some((name, address)) => (name, address.trim_end_matches('>')),
                    None => ("", item),
                };
                let name = decode(&unquoted(name.trim()));
                Ok((
                    self.text(&name, offset)?,
                    self.text(address.trim(), offset)?,
                ))
            })
            .collect()
    }

    /// Finds the columns in a text, which begins at this place of the template.
    fn text(&self, text: &str, offset: usize) -> Result<Text, Failure> {
        let mut segments = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let failure = |cause: &str| {
                let read = text.len() - after.len();
                let line = self.line(offset) + text[..read].matches('\n').count();
                Failure::request(format!("line {line} of the template: {cause}"))
            };
            let Some((name, remaining)) = after.split_once("}}") else {
                return Err(failure("a `{{` without `}}`"));
            };
            // What is not valid was replaced by this character.
            if text.contains('\u{fffd}') {
                return Err(failure(
                    "a text with columns is not valid in its character set",
                ));
            }
            let column = recipients::column(self.columns, name.trim());
            let column = column.map_err(|cause| failure(&cause))?;
            segments.push(Segment::Literal(before.to_owned()));
            segments.push(Segment::Column(column));
            rest = remaining;
        }
        segments.push(Segment::Literal(rest.to_owned()));
        Ok(Text(segments))
    }

    fn failure(&self, offset: usize, cause: &str) -> Failure {
        let line = self.line(offset);
        Failure::request(format!("line {line} of the template: {cause}"))
    }

    fn line(&self, offset: usize) -> usize {
        self.first_line + count_lines(&self.bytes[..offset])
    }
}

impl Text {
    fn render<'r>(
        &self,
        row: &'r StringRecord,
        mut encode: impl FnMut(&str, &'r str) -> Result<Cow<'r, str>, String>,
    ) -> Result<String, String> {
        let mut text = String::new();
        for segment in &self.0 {
            match segment {
                Segment::Literal(literal) => text += literal,
                Segment::Column(column) => {
                    let value = encode(&text, row.get(*column).unwrap_or_default())?;
                    text += &value;
                }
            }
        }
        Ok(text)
    }

    fn plain(&self, row: &StringRecord) -> String {
        let plain = self.render(row, |_, value| Ok(value.into()));
        plain.unwrap_or_default()
    }
}

impl Piece {
    fn render(&self, row: &StringRecord, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Piece::Literal(bytes) => out.extend(bytes),
            Piece::Text(name, text) => {
                let text = one_line(&text.plain(row));
                out.extend(format!("{name}: ").bytes());
                text::Text::new(text).write_header(out, name.len() + 2);
            }
            Piece::Addresses(name, list) => {
                let mut addresses = Vec::with_capacity(list.len());
                for (name, address) in list {
                    let (name, address) = (one_line(&name.plain(row)), address.plain(row));
                    let address =
                        Address::new(address.trim()).map_err(|error| error.to_string())?;
                    let name = (!name.is_empty()).then_some(name);
                    let address = address.to_ascii().unwrap_or(Cow::Borrowed(&address));
                    addresses.push(address::Address::new_address(name, address.to_string()));
                }
                out.extend(format!("{name}: ").bytes());
                address::Address::new_list(addresses).write_header(out, name.len() + 2);
            }
            Piece::Parameters(name, kind, parameters) => {
                let mut field = content_type::ContentType::new(kind);
                for (name, value) in parameters {
                    field = field.attribute(name, one_line(&value.plain(row)));
                }
                out.extend(format!("{name}: ").bytes());
                field.write_header(out, name.len() + 2);
            }
            Piece::Structured(name, text, is_list) => {
                let text = text.render(row, |before, value| {
                    let url = before.rfind('<').map(|at| &before[at + 1..]);
                    let url = url.filter(|url| *is_list && !url.contains('>'));
                    if let Some(url) = url {
                        // A value at the beginning is a URL by itself.
                        let set = if url.is_empty() {
                            NOT_IN_URL
                        } else {
                            NON_ALPHANUMERIC
                        };
                        return Ok(utf8_percent_encode(value, set).into());
                    }
                    let is_quoted = before.matches('"').count() % 2 == 1;
                    let is_date = name.to_ascii_lowercase().ends_with("date");
                    let is_allowed = |c: char| match c {
                        ' '..='~' if is_quoted => true,
                        ' ' | ',' | ':' => is_date,
                        _ => c.is_ascii_alphanumeric() || "!#$%&'*+-./=?^_`{|}~@".contains(c),
                    };
                    match value.chars().all(is_allowed) {
                        true if is_quoted => {
                            Ok(value.replace('\\', "\\\\").replace('"', "\\\"").into())
                        }
                        true => Ok(value.into()),
                        false => Err(format!("a value is not valid in the field {name}")),
                    }
                })?;
                out.extend(format!("{name}: {text}\r\n").bytes());
            }
            Piece::Body(body) => body.render(row, out)?,
        }
        Ok(())
    }
}

impl Body {
    fn render(&self, row: &StringRecord, out: &mut Vec<u8>) -> Result<(), String> {
        for field in &self.fields {
            field.render(row, out)?;
        }
        let text = self.text.render(row, |_, value| Ok((self.escape)(value)))?;
        let text = text.replace("\r\n", "\n").replace(['\r', '\n'], "\r\n");
        // A value may have a line that is a delimiter of the multipart; a signature is none.
        let is_plain = |line: &str| {
            let may_delimit = self.is_in_multipart && line.starts_with("--") && line != "-- ";
            line.len() <= 998 && !may_delimit
        };
        let fits = text.split("\r\n").all(is_plain) && (text.is_ascii() || self.is_8bit);
        let (encoding, content): (_, Vec<u8>) = match self.encoding {
            Encoding::Base64 => ("base64", base64_lines(text.as_bytes())),
            Encoding::None if fits && text.is_ascii() => ("7bit", text.into_bytes()),
            Encoding::None if fits => ("8bit", text.into_bytes()),
            _ => ("quoted-printable", quoted_printable(&text)),
        };
        out.extend(format!("Content-Transfer-Encoding: {encoding}\r\n\r\n").bytes());
        out.extend(content);
        if self.needs_line_end && !out.ends_with(b"\r\n") {
            out.extend(b"\r\n");
        }
        Ok(())
    }
}

/// Leaves out what envoi removes before the first field of a message: a BOM, blank lines, and an
/// mbox line. Returns the number of the first line that is left, too.
fn without_preface(bytes: &[u8]) -> (&[u8], usize) {
    let mut rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        if !line.trim_ascii().is_empty() && !line.starts_with(b"From ") {
            break;
        }
        rest = &rest[end + 1..];
    }
    let removed = bytes.len() - rest.len();
    (rest, 1 + count_lines(&bytes[..removed]))
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// The parameters of a field, decoded. Some programs use encoded words there.
fn parameters(parsed: &ContentType<'_>) -> Vec<(String, String)> {
    let attributes = parsed.attributes().unwrap_or_default();
    // mail-parser makes a parameter of the language of an encoded one (RFC 2231, 5).
    let is_language = |name: &str| {
        let name = name.strip_suffix("-language");
        name.is_some_and(|name| attributes.iter().any(|other| other.name == name))
    };
    let attributes = attributes
        .iter()
        .filter(|attribute| !is_language(&attribute.name));
    let decoded =
        attributes.map(|attribute| (attribute.name.to_string(), decode(&attribute.value)));
    decoded.collect()
}

fn count_columns(text: &str) -> usize {
    text.matches("{{").count()
}

/// How a value is written in the text of a part.
fn escape(part: &MessagePart<'_>) -> fn(&str) -> Cow<'_, str> {
    let subtype = part.content_type().and_then(|kind| kind.subtype());
    match subtype {
        _ if matches!(part.body, PartType::Html(_)) => escape_html,
        Some("calendar" | "vcard") => escape_calendar,
        _ => |value| value.into(),
    }
}

/// The value of a field on one line.
fn unfolded(value: &[u8]) -> String {
    let value = String::from_utf8_lossy(value);
    value
        .replace("\r\n", "\n")
        .replace('\n', "")
        .trim()
        .to_owned()
}

/// Decodes encoded words (RFC 2047).
fn decode(text: &str) -> String {
    if !text.contains("=?") {
        return text.to_owned();
    }
    let field = format!("Subject: {text}\r\n\r\n");
    let message = MessageParser::new().parse(&field);
    let subject = message.as_ref().and_then(|message| message.subject());
    subject.unwrap_or(text).to_owned()
}

/// Removes the quotes of a name.
fn unquoted(name: &str) -> String {
    let (mut text, mut chars) = (String::new(), name.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => {}
            '\\' => text.extend(chars.next()),
            c => text.push(c),
        }
    }
    text
}

/// A header field has one line, whatever the value has.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn escape_html(value: &str) -> Cow<'_, str> {
    if !value.contains(['&', '<', '>', '"', '\'']) {
        return value.into();
    }
    let value = value
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    value.replace('"', "&quot;").replace('\'', "&#39;").into()
}

/// Escapes a text of a calendar or card (RFC 5545, 3.3.11; RFC 6350, 3.4).
fn escape_calendar(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', ';', ',', '\r', '\n']) {
        return value.into();
    }
    let value = value
        .replace('\\', "\\\\")
        .replace(';', "\\;")
        .replace(',', "\\,");
    value
        .replace("\r\n", "\n")
        .replace(['\r', '\n'], "\\n")
        .into()
}

fn base64_lines(bytes: &[u8]) -> Vec<u8> {
    let mut lines = Vec::new();
    for line in bytes.chunks(57) {
        lines.extend(
            base64::engine::general_purpose::STANDARD
                .encode(line)
                .bytes(),
        );
        lines.extend(b"\r\n");
    }
    lines
}

/// Encodes a text with CRLF line ends as quoted-printable (RFC 2045, 6.7).
fn quoted_printable(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for (index, line) in text.split("\r\n").enumerate() {
        if index > 0 {
            out.extend(b"\r\n");
        }
        let mut length = 0;
        for (at, byte) in line.bytes().enumerate() {
            // A blank at the end of a line could get lost.
            let is_last = at + 1 == line.len();
            let is_plain = match byte {
                b' ' | b'\t' => !is_last,
                b'!'..=b'~' => byte != b'=',
                _ => false,
            };
            let needed = if is_plain { 1 } else { 3 };
            if length + needed > 75 {
                out.extend(b"=\r\n");
                length = 0;
            }
            // A hyphen at the beginning could begin the delimiter of a multipart.
            if is_plain && !(byte == b'-' && length == 0) {
                out.push(byte);
                length += 1;
            } else {
                out.extend(format!("={byte:02X}").bytes());
                length += 3;
            }
        }
    }
    out
}
