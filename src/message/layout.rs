//! Serializes a message of mail-builder once, as text with placeholders.
//!
//! mail-builder writes every header and every text part. The contents of a binary part are moved
//! out beforehand and replaced by a placeholder, which the writer recognizes by its address, not by
//! its content. The contents are read and encoded when they are sent. So mail-builder decides about
//! headers, folding, charsets and file names, and an attachment of any size needs no memory.

use std::borrow::Cow;

use bytes::Bytes;
use mail_builder::headers::HeaderType;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};
use mail_builder::{MessageBuilder, Writer};
use memchr::{memchr, memchr_iter};

use super::attachment::{InspectedAttachment, Label, read_text};
use super::headers;
use super::input::{Form, PartSource, TextInfo};
use super::scan::{MessageInfo, MessageScanner};
use super::section::{self, Section};
use crate::proto::LineEndNormalizer;
use crate::{Error, Phase, Result};

/// A segment of a message.
pub(super) enum Segment {
    /// Sent as it is.
    Text(Bytes),
    /// A header field that differs between the encoded and the binary form of the message, or is in
    /// one of them only.
    Field { encoded: Bytes, binary: Bytes },
    /// Read when it is sent.
    Source(PartSource, Form),
    /// A stream that can be read only once, and is being read or has been.
    Consumed,
}

impl Segment {
    /// Whether it is a stream, which can be read only once.
    pub(super) fn is_one_shot(&self) -> bool {
        matches!(
            self,
            Segment::Source(PartSource::Stream(_), _) | Segment::Consumed
        )
    }

    /// Returns a segment that starts at the beginning; `None` for a stream, which can be read only
    /// once.
    pub(super) fn try_clone(&self) -> Option<Self> {
        match self {
            Segment::Text(text) => Some(Segment::Text(text.clone())),
            Segment::Field { encoded, binary } => Some(Segment::Field {
                encoded: encoded.clone(),
                binary: binary.clone(),
            }),
            Segment::Source(PartSource::Bytes(bytes), form) => {
                Some(Segment::Source(PartSource::Bytes(bytes.clone()), *form))
            }
            Segment::Source(PartSource::File(file), form) => {
                Some(Segment::Source(PartSource::File(file.clone()), *form))
            }
            Segment::Source(PartSource::Stream(_), _) | Segment::Consumed => None,
        }
    }
}

/// Serializes a message with its inspected attachments. If it `may_be_binary` and has binary
/// contents, the last value returned describes its binary form.
pub(super) fn write_segments(
    mut builder: MessageBuilder<'_>,
    attachments: Vec<InspectedAttachment>,
    may_be_binary: bool,
) -> Result<(Vec<Segment>, MessageInfo, Option<MessageInfo>)> {
    // One byte for each possible placeholder, which is recognized by the address of this byte.
    let marks = vec![
        b'.';
        attachments.len()
            + parts(&mut builder)
                .map(|part| count_leaves(part))
                .sum::<usize>()
    ];
    // The name of a field that differs between the forms is also recognized by its address.
    let field = TRANSFER_ENCODING.to_owned();
    let mut builder = builder; // With a lifetime that ends before that of `marks`.
    let mut placeholders = Placeholders {
        marks: &marks,
        field: &field,
        may_be_binary,
        contents: Vec::new(),
    };

    headers::check_message(&mut builder.headers)?;
    headers::encode_domains(&mut builder.headers);
    for InspectedAttachment { label, input, text } in attachments {
        let encoding = placeholders.encoding(text);
        let part = attachment_part(label, placeholders.reserve(input, text), encoding);
        builder.attachments.get_or_insert_default().push(part);
    }
    assemble_body(&mut builder);
    let mut utf8_headers = headers::have_utf8(&builder.headers);
    if let Some(body) = &mut builder.body {
        headers::repair_and_check_part(body)?;
        utf8_headers |= headers::part_has_utf8(body);
        utf8_headers |= repair_and_check_top(&builder.headers, body)?;
        extract_binary_parts(body, &mut placeholders)?;
    }

    let mut writer = SegmentWriter {
        placeholders,
        // mail-builder writes words: without room for a header, the text would be moved often.
        text: Vec::with_capacity(1024),
        fields: Vec::new(),
        has_unknown_field: false,
        segments: Vec::new(),
    };
    builder.serialize(&mut writer);
    writer.end_line();
    writer.flush_text();
    if writer.has_unknown_field || writer.placeholders.contents.iter().any(Option::is_some) {
        // Does not happen with any mail-builder that this crate was tested with. If it ever does,
        // nothing may be sent.
        return Err(Error::request(
            "an attachment is missing from the serialized message",
        ));
    }

    let mut segments = Vec::with_capacity(writer.segments.len());
    let (mut scanner, mut binary_scanner, mut has_binary) =
        (MessageScanner::new(), MessageScanner::new(), false);
    for segment in writer.segments {
        match segment {
            Segment::Text(text) => {
                let text = if may_be_binary { with_crlf(text) } else { text };
                if may_be_binary {
                    binary_scanner.read(&text);
                }
                scanner.read(&text);
                segments.push(Segment::Text(text));
            }
            Segment::Field { encoded, binary } => {
                binary_scanner.read(&binary);
                scanner.read(&encoded);
                segments.push(Segment::Field { encoded, binary });
            }
            Segment::Source(input, form) => {
                let size = input.size();
                match form {
                    Form::Text(text) => scanner.read_text(text),
                    form => scanner.skip_base64(size.map(|size| form.size_of(size))),
                }
                binary_scanner.skip_binary(size.map(|size| form.resolve(true).size_of(size)));
                has_binary |= matches!(form, Form::Either);
                segments.push(Segment::Source(input, form));
            }
            Segment::Consumed => {}
        }
    }
    let mut info = scanner.end();
    info.check_text(false, Phase::Setup)?;
    info.utf8_headers = utf8_headers;
    let binary_info = has_binary.then(|| {
        let mut binary_info = binary_scanner.end().into_binary();
        binary_info.utf8_headers = info.utf8_headers;
        binary_info
    });
    Ok((segments, info, binary_info))
}

/// Converts the line ends of a text segment to CRLF, as is done for the encoded form when it is
/// read; the binary form is sent as it is.
fn with_crlf(text: Bytes) -> Bytes {
    let mut line_ends = LineEndNormalizer::new();
    let lines = line_ends.normalize(text.into()).into_bytes();
    match line_ends.end() {
        b"" => lines,
        missing => [&lines, missing].concat().into(),
    }
}

/// Assembles the parts as mail-builder would, except that parts shown within the HTML body become
/// related to it (RFC 2387). If the caller set a body, mail-builder ignores everything else: here
/// the attachments are added around it.
fn assemble_body(builder: &mut MessageBuilder<'_>) {
    let attachments = builder.attachments.take();
    let (text, html) = (
        builder.text_body.take().map(without_bom),
        builder.html_body.take().map(without_bom),
    );
    let (text, shown) = match builder.body.take() {
        Some(body) => (None, Some(body)),
        None => (text, html),
    };
    let (mut inline, mut attached) = (Vec::new(), Vec::new());
    let shows_parts = shown.as_ref().is_some_and(has_html);
    for part in attachments.unwrap_or_default() {
        let is_inline = shows_parts && is_inline(&part);
        if is_inline {
            &mut inline
        } else {
            &mut attached
        }
        .push(part);
    }
    let shown = match shown {
        Some(shown) if !inline.is_empty() => Some(related(shown, inline)),
        shown => shown,
    };
    let body = match (text, shown) {
        (Some(text), Some(shown)) => {
            Some(MimePart::new("multipart/alternative", vec![text, shown]))
        }
        (None, None) if attached.is_empty() => Some(MimePart::new("text/plain", "\n")),
        (text, shown) => text.or(shown),
    };
    builder.body = match attached.is_empty() {
        true => body,
        false => Some(MimePart::new(
            "multipart/mixed",
            body.into_iter().chain(attached).collect::<Vec<_>>(),
        )),
    };
}

/// Removes a byte order mark, which text that was read from a file may begin with.
fn without_bom(mut part: MimePart<'_>) -> MimePart<'_> {
    if let BodyPart::Text(text) = &mut part.contents
        && text.starts_with('\u{feff}')
    {
        *text = text.trim_start_matches('\u{feff}').to_owned().into();
    }
    part
}

/// Whether another part may show this one.
fn is_inline(part: &MimePart<'_>) -> bool {
    let is_inline = |(name, value): &(Cow<'_, str>, HeaderType<'_>)| {
        name.eq_ignore_ascii_case("Content-Disposition")
            && headers::text_of(value)
                .is_some_and(|text| text.trim().eq_ignore_ascii_case("inline"))
    };
    part.headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("Content-ID"))
        && part.headers.iter().any(is_inline)
}

/// Whether the part is HTML or contains it, so that it can refer to other parts.
fn has_html(part: &MimePart<'_>) -> bool {
    match &part.contents {
        BodyPart::Multipart(parts) => parts.iter().any(has_html),
        _ => {
            media_type(part).is_some_and(|media_type| media_type.eq_ignore_ascii_case("text/html"))
        }
    }
}

/// The media type of a part, without parameters.
fn media_type<'a>(part: &'a MimePart<'_>) -> Option<&'a str> {
    let (_, value) = part
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("Content-Type"))?;
    headers::text_of(value)?.split(';').next().map(str::trim)
}

/// Makes a multipart of a part and those that it shows. It must state the media type of the first
/// one (RFC 2387, 3.1).
fn related<'x>(shown: MimePart<'x>, inline: Vec<MimePart<'x>>) -> MimePart<'x> {
    let media_type = media_type(&shown).unwrap_or("text/html").to_owned();
    let related = ContentType::new("multipart/related").attribute("type", media_type);
    let mut parts = vec![shown];
    parts.extend(inline);
    MimePart::new(related, parts)
}

/// Checks the headers of the message together with those of its content. Returns whether content
/// with its own headers has UTF-8 in them.
fn repair_and_check_top(
    message: &[(Cow<'_, str>, HeaderType<'_>)],
    body: &mut MimePart<'_>,
) -> Result<bool> {
    let is_raw = body.headers.is_empty();
    let mut names: Vec<Cow<'_, str>> = body.headers.iter().map(|(name, _)| name.clone()).collect();
    let mut is_utf8 = false;
    if is_raw && !matches!(body.contents, BodyPart::Multipart(_)) {
        let contents = match &body.contents {
            BodyPart::Text(text) => text.as_bytes(),
            BodyPart::Binary(binary) => binary,
            BodyPart::Multipart(_) => b"",
        };
        let section = Section::of_raw_part(contents)?;
        names.extend(
            section
                .unique_fields
                .iter()
                .map(|name| Cow::Borrowed(*name)),
        );
        is_utf8 = section.is_utf8;
        body.contents = BodyPart::Binary(
            [&section.bytes, &contents[section.consumed..]]
                .concat()
                .into(),
        );
    } else {
        // mail-builder writes one or both of them.
        names.extend(["Content-Type", TRANSFER_ENCODING].map(Cow::Borrowed));
    }
    for (name, _) in message {
        if section::unique_field_name(name).is_some()
            && names.iter().any(|other| other.eq_ignore_ascii_case(name))
        {
            let message = format!("the message has a {name} header beside the one of its content");
            return Err(Error::request(message).with_hint(
                "Give the content its type instead: \
                    MessageBuilder::body(MimePart::new(type, content)).",
            ));
        }
    }
    Ok(is_utf8)
}

/// The top-level parts of the message.
fn parts<'a, 'x>(
    builder: &'a mut MessageBuilder<'x>,
) -> impl Iterator<Item = &'a mut MimePart<'x>> {
    let bodies = [
        &mut builder.body,
        &mut builder.text_body,
        &mut builder.html_body,
    ];
    bodies
        .into_iter()
        .flatten()
        .chain(builder.attachments.iter_mut().flatten())
}

fn count_leaves(part: &MimePart<'_>) -> usize {
    match &part.contents {
        BodyPart::Multipart(parts) => parts.iter().map(count_leaves).sum(),
        _ => 1,
    }
}

/// What a part contains that the multiparts around it must declare too (RFC 2045, 6.4).
#[derive(Clone, Copy, Default)]
struct PartContent {
    /// Contents that may be sent as binary.
    binary: bool,
    /// Contents with bytes beyond ASCII that are not encoded.
    eight_bit: bool,
}

/// Moves contents that mail-builder would write as base64, or would encode though they must not be
/// encoded, out of the part and the parts in it.
fn extract_binary_parts<'m>(
    part: &mut MimePart<'m>,
    placeholders: &mut Placeholders<'m>,
) -> Result<PartContent> {
    if let BodyPart::Multipart(parts) = &mut part.contents {
        // Signed parts must not change (RFC 1847, 2.1).
        let is_labelled = |(name, _): &(Cow<'_, str>, HeaderType<'_>)| name == TRANSFER_ENCODING;
        let is_fixed = |(_, value): &(Cow<'_, str>, HeaderType<'_>)| {
            let is_signed =
                |value: &ContentType<'_>| value.c_type.eq_ignore_ascii_case("multipart/signed");
            value.as_content_type().is_some_and(is_signed)
        };
        let is_labelled = part.headers.iter().any(is_labelled);
        let outer = placeholders.may_be_binary;
        placeholders.may_be_binary &= !is_labelled && !part.headers.iter().any(is_fixed);
        let mut content = PartContent::default();
        for inner in parts {
            let inner = extract_binary_parts(inner, placeholders)?;
            content.binary |= inner.binary;
            content.eight_bit |= inner.eight_bit;
        }
        placeholders.may_be_binary = outer;
        let encoding = if content.eight_bit { "8bit" } else { "binary" };
        if content.binary {
            part.headers
                .push((placeholders.field.into(), Raw::new(encoding).into()));
        } else if content.eight_bit && !is_labelled {
            part.headers
                .push((TRANSFER_ENCODING.into(), Raw::new(encoding).into()));
        }
        return Ok(content);
    }
    // Written as they are: a part with its own headers in its contents or with its own encoding,
    // and streamed attachments, whose contents are a placeholder already.
    if let Some((name, value)) = part
        .headers
        .iter()
        .find(|(name, _)| name == TRANSFER_ENCODING)
    {
        let is_eight_bit =
            headers::text_of(value).is_some_and(|encoding| encoding.eq_ignore_ascii_case("8bit"));
        return Ok(PartContent {
            binary: placeholders.is_field(name.as_bytes()),
            eight_bit: is_eight_bit && (placeholders.is_placeholder(part) || !is_ascii(part)),
        });
    }
    if part.headers.is_empty() {
        return Ok(PartContent::default());
    }
    let is_composite = media_type(part).is_some_and(headers::is_composite);
    if !is_composite && is_text(part) && !must_be_base64(part) {
        return Ok(PartContent::default());
    }
    let contents = std::mem::replace(&mut part.contents, BodyPart::Multipart(Vec::new()));
    let bytes = match contents {
        BodyPart::Text(Cow::Owned(text)) => Bytes::from(text),
        BodyPart::Text(Cow::Borrowed(text)) => Bytes::copy_from_slice(text.as_bytes()),
        BodyPart::Binary(Cow::Owned(binary)) => Bytes::from(binary),
        BodyPart::Binary(Cow::Borrowed(binary)) => Bytes::copy_from_slice(binary),
        BodyPart::Multipart(_) => Bytes::new(), // Handled above.
    };
    let text = is_composite
        .then(|| read_text("an attachment", &bytes))
        .transpose()?;
    part.headers.push(placeholders.encoding(text));
    part.contents = BodyPart::Binary(placeholders.reserve(PartSource::Bytes(bytes), text).into());
    Ok(PartContent {
        binary: placeholders.may_be_binary,
        eight_bit: text.is_some_and(|text| text.may_be_eight_bit),
    })
}

fn is_ascii(part: &MimePart<'_>) -> bool {
    match &part.contents {
        BodyPart::Text(text) => text.is_ascii(),
        BodyPart::Binary(binary) => binary.is_ascii(),
        BodyPart::Multipart(_) => true,
    }
}

const TRANSFER_ENCODING: &str = "Content-Transfer-Encoding";

/// The criterion of mail-builder: it writes such a part as text, and chooses 7bit, quoted-printable
/// or base64 by the content.
fn is_text(part: &MimePart<'_>) -> bool {
    matches!(part.contents, BodyPart::Text(_))
        || content_type(part, "Content-Type").is_some_and(ContentType::is_text)
}

/// Whether text would arrive changed, or must not be sent as 7bit (RFC 2045, 2.7). mail-builder
/// handles bare LF only.
fn must_be_base64(part: &MimePart<'_>) -> bool {
    let text = match &part.contents {
        BodyPart::Text(text) => text.as_bytes(),
        BodyPart::Binary(binary) => binary,
        BodyPart::Multipart(_) => return false,
    };
    let is_attachment =
        content_type(part, "Content-Disposition").is_some_and(ContentType::is_attachment);
    let has_lone_cr = || memchr_iter(b'\r', text).any(|at| text.get(at + 1) != Some(&b'\n'));
    memchr(0, text).is_some() || is_attachment && has_lone_cr()
}

fn content_type<'a, 'x>(part: &'a MimePart<'x>, name: &str) -> Option<&'a ContentType<'x>> {
    part.headers
        .iter()
        .filter(|(header, _)| header == name)
        .find_map(|(_, value)| match value {
            HeaderType::ContentType(content_type) => Some(content_type),
            _ => None,
        })
}

/// The part for a streamed attachment, with a placeholder as its contents.
fn attachment_part<'m>(
    label: Label,
    mark: &'m [u8],
    encoding: (Cow<'m, str>, HeaderType<'m>),
) -> MimePart<'m> {
    let disposition = if label.content_id.is_some() {
        "inline"
    } else {
        "attachment"
    };
    let disposition = ContentType::new(disposition).attribute("filename", label.name);
    let mut part =
        MimePart::new(label.content_type, mark).header("Content-Disposition", disposition);
    if let Some(content_id) = label.content_id {
        part = part.cid(content_id);
    }
    part.headers.push(encoding);
    part
}

/// The contents that were moved out of the message, in the order of their placeholders.
struct Placeholders<'m> {
    marks: &'m [u8],
    /// The name of a field that differs between the forms, recognized by its address.
    field: &'m str,
    /// Whether the part being processed may be sent as binary.
    may_be_binary: bool,
    contents: Vec<Option<(PartSource, Form)>>,
}

impl<'m> Placeholders<'m> {
    /// Stores contents and returns their placeholder.
    fn reserve(&mut self, input: PartSource, text: Option<TextInfo>) -> &'m [u8] {
        let at = self.contents.len();
        let form = match text {
            Some(text) => Form::Text(text),
            None if self.may_be_binary => Form::Either,
            None => Form::Base64,
        };
        self.contents.push(Some((input, form)));
        &self.marks[at..=at]
    }

    /// The Content-Transfer-Encoding field of a part with placeholder contents. With this field,
    /// mail-builder writes the contents unchanged, in one write.
    fn encoding(&self, text: Option<TextInfo>) -> (Cow<'m, str>, HeaderType<'m>) {
        let name = if self.may_be_binary {
            self.field
        } else {
            TRANSFER_ENCODING
        };
        let encoding = match text {
            Some(TextInfo {
                may_be_eight_bit: true,
                ..
            }) => "8bit",
            Some(_) => "7bit",
            None => "base64",
        };
        (name.into(), Raw::new(encoding).into())
    }

    /// Whether the contents of the part are a placeholder.
    fn is_placeholder(&self, part: &MimePart<'_>) -> bool {
        matches!(&part.contents, BodyPart::Binary(bytes) if self.index_of(bytes).is_some())
    }

    /// The index of the placeholder at this address.
    fn index_of(&self, bytes: &[u8]) -> Option<usize> {
        let at = bytes
            .as_ptr()
            .addr()
            .checked_sub(self.marks.as_ptr().addr())?;
        (bytes.len() == 1 && at < self.marks.len()).then_some(at)
    }

    /// Whether these bytes are the name of a field that differs between the forms, by their
    /// address.
    fn is_field(&self, bytes: &[u8]) -> bool {
        std::ptr::eq(bytes, self.field.as_bytes())
    }

    /// Takes the contents that these bytes stand for, if they are a placeholder.
    fn take(&mut self, bytes: &[u8]) -> Option<(PartSource, Form)> {
        let at = self.index_of(bytes)?;
        self.contents.get_mut(at)?.take()
    }
}

/// The field of a part whose contents are a placeholder, and of a multipart around such parts.
const BASE64_FIELD: &[u8] = b"Content-Transfer-Encoding: base64\r\n";
const SEVEN_BIT_FIELD: &[u8] = b"Content-Transfer-Encoding: 7bit\r\n";
const EIGHT_BIT_FIELD: &[u8] = b"Content-Transfer-Encoding: 8bit\r\n";
const BINARY_FIELD: &[u8] = b"Content-Transfer-Encoding: binary\r\n";

/// The writer that mail-builder writes to.
struct SegmentWriter<'m> {
    placeholders: Placeholders<'m>,
    text: Vec<u8>,
    /// The positions in the text of the fields that differ between the forms.
    fields: Vec<usize>,
    /// Such a field does not have one of the expected values.
    has_unknown_field: bool,
    segments: Vec<Segment>,
}

impl SegmentWriter<'_> {
    /// Ends the last line of the message, which would otherwise be ended by a chunk of its own.
    fn end_line(&mut self) {
        match self.text.last() {
            None | Some(b'\n') => {}
            Some(b'\r') => self.text.push(b'\n'),
            Some(_) => self.text.extend_from_slice(b"\r\n"),
        }
    }

    fn flush_text(&mut self) {
        let mut text = Bytes::from(std::mem::take(&mut self.text));
        let length = text.len();
        for at in std::mem::take(&mut self.fields) {
            let before = text.split_to(at - (length - text.len()));
            self.segments.push(Segment::Text(before));
            let known = [BASE64_FIELD, SEVEN_BIT_FIELD, EIGHT_BIT_FIELD, BINARY_FIELD];
            let Some(field) = known.into_iter().find(|field| text.starts_with(field)) else {
                return self.has_unknown_field = true;
            };
            drop(text.split_to(field.len()));
            // A multipart has the field only in the binary form.
            let encoded = if field == BINARY_FIELD { &[] } else { field };
            let [encoded, binary] = [encoded, BINARY_FIELD].map(Bytes::from_static);
            self.segments.push(Segment::Field { encoded, binary });
        }
        self.segments.push(Segment::Text(text));
    }
}

impl Writer for SegmentWriter<'_> {
    fn write(&mut self, bytes: &[u8]) {
        if self.placeholders.is_field(bytes) {
            self.fields.push(self.text.len());
        }
        match self.placeholders.take(bytes) {
            None => self.text.extend_from_slice(bytes),
            Some((input, form)) => {
                self.flush_text();
                self.segments.push(Segment::Source(input, form));
            }
        }
    }

    fn write_byte(&mut self, byte: u8) {
        self.text.push(byte);
    }

    // Encoded text of any length is appended in place.
    fn append_with<T>(&mut self, _: usize, append: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        append(&mut self.text)
    }

    fn append_limit(&self) -> usize {
        usize::MAX
    }
}
