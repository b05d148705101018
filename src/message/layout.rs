//! mail-builder's message, laid out once as text with holes.
//!
//! mail-builder writes every header and part, but for the binary ones: each is moved out
//! beforehand, and a placeholder stands for it. Where that very placeholder is written, by its
//! address and not by its content, there is a *hole*, which is read and encoded when its turn
//! comes. So headers, folding, charsets and file names are mail-builder's, and an attachment of any
//! size costs no memory.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use mail_builder::headers::HeaderType;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};
use mail_builder::{MessageBuilder, Writer};
use memchr::{memchr, memchr_iter};

use super::attachment::{Label, Looked, read_text};
use super::headers;
use super::input::{Form, Input, Text};
use super::scan::{MessageInfo, MessageScanner};
use super::section::{self, Section};
use crate::proto::{Output, Stuffer};
use crate::{Error, Result};

/// A stretch of a message.
pub(super) enum Segment {
    /// Goes as it is.
    Text(Bytes),
    /// A header field that is another one, or is not there, by whether the message goes binary.
    Field { encoded: Bytes, binary: Bytes },
    /// Is read when its turn comes.
    Input(Input, Form),
    /// Was a stream that can be read only once, and its turn has come.
    Gone,
}

impl Segment {
    /// The same from its beginning; `None` where it can be read only once.
    pub(super) fn again(&self) -> Option<Self> {
        match self {
            Segment::Text(text) => Some(Segment::Text(text.clone())),
            Segment::Field { encoded, binary } => Some(Segment::Field {
                encoded: encoded.clone(),
                binary: binary.clone(),
            }),
            Segment::Input(Input::Bytes(bytes), form) => {
                Some(Segment::Input(Input::Bytes(bytes.clone()), *form))
            }
            Segment::Input(Input::File(file), form) => {
                Some(Segment::Input(Input::File(file.clone()), *form))
            }
            Segment::Input(Input::Stream(_), _) | Segment::Gone => None,
        }
    }
}

/// Lays a message out, with attachments that were looked at. If it `may_be_binary`, the last part
/// of what is returned are the facts of that form.
pub(super) fn lay_out(
    mut builder: MessageBuilder<'_>,
    attachments: Vec<Looked>,
    may_be_binary: bool,
) -> Result<(Vec<Segment>, MessageInfo, Option<MessageInfo>)> {
    // One byte for each hole that there can be: its address is the placeholder.
    let marks =
        vec![b'.'; attachments.len() + parts(&mut builder).map(|part| leaves(part)).sum::<usize>()];
    // The name of a field that depends on the form is known by its address, too.
    let field = TRANSFER_ENCODING.to_owned();
    let mut builder = builder; // With a lifetime that ends before the marks do.
    let mut holes = Placeholders {
        marks: &marks,
        field: &field,
        may_be_binary,
        inputs: Vec::new(),
    };

    headers::check_message(&mut builder.headers)?;
    headers::spell_domains_in_ascii(&mut builder.headers);
    for Looked { label, input, text } in attachments {
        let encoding = holes.encoding(text);
        let part = part_of(label, holes.reserve(input, text), encoding);
        builder.attachments.get_or_insert_default().push(part);
    }
    put_together(&mut builder);
    let mut utf8_headers = headers::have_utf8(&builder.headers);
    if let Some(body) = &mut builder.body {
        headers::repair_and_check_part(body)?;
        utf8_headers |= headers::part_has_utf8(body);
        utf8_headers |= repair_and_check_top(&builder.headers, body)?;
        extract_binary_parts(body, &mut holes)?;
    }

    let mut paper = SegmentWriter {
        holes,
        text: Vec::new(),
        fields: Vec::new(),
        odd_field: false,
        pieces: Vec::new(),
    };
    builder.serialize(&mut paper);
    paper.end_text();
    if paper.odd_field || paper.holes.inputs.iter().any(Option::is_some) {
        // Not to be seen with a mail-builder that this crate was tested with. If it ever is,
        // nothing may be sent.
        return Err(Error::request(
            "an attachment did not find its place in the message",
        ));
    }

    let mut pieces = Vec::with_capacity(paper.pieces.len());
    let (mut survey, mut binary_survey, mut has_binary) =
        (MessageScanner::new(), MessageScanner::new(), false);
    for piece in paper.pieces {
        match piece {
            Segment::Text(text) => {
                let text = if may_be_binary { with_crlf(text) } else { text };
                if may_be_binary {
                    binary_survey.read(&text);
                }
                survey.read(&text);
                pieces.push(Segment::Text(text));
            }
            Segment::Field { encoded, binary } => {
                binary_survey.read(&binary);
                survey.read(&encoded);
                pieces.push(Segment::Field { encoded, binary });
            }
            Segment::Input(input, form) => {
                let size = input.size();
                match form {
                    Form::Text(text) => survey.read_text(text),
                    form => survey.skip_base64(size.map(|size| form.size_of(size))),
                }
                binary_survey.skip_binary(size.map(|size| form.chosen(true).size_of(size)));
                has_binary |= matches!(form, Form::Either);
                pieces.push(Segment::Input(input, form));
            }
            Segment::Gone => {}
        }
    }
    let mut facts = survey.end();
    facts.check_text()?;
    facts.utf8_headers = utf8_headers;
    let binary_facts = has_binary.then(|| {
        let mut binary_facts = binary_survey.end().of_binary();
        binary_facts.utf8_headers = facts.utf8_headers;
        binary_facts
    });
    Ok((pieces, facts, binary_facts))
}

/// The lines of a piece of text as they go behind DATA: in the binary form, nobody makes their ends
/// CRLF any more.
fn with_crlf(text: Bytes) -> Bytes {
    let (mut stuffer, mut output) = (Stuffer::without_dots(), Output::default());
    stuffer.push(text.into(), &mut output);
    stuffer.finish(&mut output);
    let mut lines = BytesMut::with_capacity(output.len());
    while !output.is_empty() {
        lines.extend_from_slice(output.front());
        output.advance(output.front().len());
    }
    lines.freeze()
}

/// Puts the parts together as mail-builder would, but for those that are shown within the HTML
/// body, which are related to it (RFC 2387). Beside a body of the caller's making mail-builder
/// leaves all else out: attachments go around it.
fn put_together(builder: &mut MessageBuilder<'_>) {
    let attachments = builder.attachments.take();
    let (text, html) = (
        builder.text_body.take().map(without_mark),
        builder.html_body.take().map(without_mark),
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

/// Text that was read from a file may begin with a byte order mark, which is none of it.
fn without_mark(mut part: MimePart<'_>) -> MimePart<'_> {
    if let BodyPart::Text(text) = &mut part.contents
        && text.starts_with('\u{feff}')
    {
        *text = text.trim_start_matches('\u{feff}').to_owned().into();
    }
    part
}

/// A part that another one may show.
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

/// HTML is among what is shown, so that it can refer to other parts.
fn has_html(part: &MimePart<'_>) -> bool {
    match &part.contents {
        BodyPart::Multipart(parts) => parts.iter().any(has_html),
        _ => {
            media_type(part).is_some_and(|media_type| media_type.eq_ignore_ascii_case("text/html"))
        }
    }
}

/// The type of a part, without parameters.
fn media_type<'a>(part: &'a MimePart<'_>) -> Option<&'a str> {
    let (_, value) = part
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("Content-Type"))?;
    headers::text_of(value)?.split(';').next().map(str::trim)
}

/// A part and those that it shows. Which type the first of them has must be said (RFC 2387, 3.1).
fn related<'x>(shown: MimePart<'x>, inline: Vec<MimePart<'x>>) -> MimePart<'x> {
    let media_type = media_type(&shown).unwrap_or("text/html").to_owned();
    let related = ContentType::new("multipart/related").attribute("type", media_type);
    let mut parts = vec![shown];
    parts.extend(inline);
    MimePart::new(related, parts)
}

/// Checks what the headers of the message and those of its content are together. Says whether
/// content that brings its own headers has UTF-8 in them.
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
        names.extend(section.once.iter().map(|name| Cow::Borrowed(*name)));
        is_utf8 = section.is_utf8;
        body.contents = BodyPart::Binary(
            [&section.bytes, &contents[section.consumed..]]
                .concat()
                .into(),
        );
    } else {
        // mail-builder writes one of them, or both.
        names.extend(["Content-Type", TRANSFER_ENCODING].map(Cow::Borrowed));
    }
    for (name, _) in message {
        if section::once(name).is_some()
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

/// The parts that a message is made of, at the top.
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

fn leaves(part: &MimePart<'_>) -> usize {
    match &part.contents {
        BodyPart::Multipart(parts) => parts.iter().map(leaves).sum(),
        _ => 1,
    }
}

/// What is within a part, which the multiparts around it say, too (RFC 2045, 6.4).
#[derive(Clone, Copy, Default)]
struct Within {
    /// Something may go binary.
    binary: bool,
    /// Something goes with bytes beyond ASCII.
    eight_bit: bool,
}

/// Moves what mail-builder would write as base64, or must not, out of the part and the parts in it.
fn extract_binary_parts<'m>(
    part: &mut MimePart<'m>,
    holes: &mut Placeholders<'m>,
) -> Result<Within> {
    if let BodyPart::Multipart(parts) = &mut part.contents {
        // What is signed must not change (RFC 1847, 2.1).
        let is_labelled = |(name, _): &(Cow<'_, str>, HeaderType<'_>)| name == TRANSFER_ENCODING;
        let is_fixed = |(_, value): &(Cow<'_, str>, HeaderType<'_>)| {
            let is_signed =
                |value: &ContentType<'_>| value.c_type.eq_ignore_ascii_case("multipart/signed");
            value.as_content_type().is_some_and(is_signed)
        };
        let is_labelled = part.headers.iter().any(is_labelled);
        let around = holes.may_be_binary;
        holes.may_be_binary &= !is_labelled && !part.headers.iter().any(is_fixed);
        let mut within = Within::default();
        for inner in parts {
            let inner = extract_binary_parts(inner, holes)?;
            within.binary |= inner.binary;
            within.eight_bit |= inner.eight_bit;
        }
        holes.may_be_binary = around;
        let encoding = if within.eight_bit { "8bit" } else { "binary" };
        if within.binary {
            part.headers
                .push((holes.field.into(), Raw::new(encoding).into()));
        } else if within.eight_bit && !is_labelled {
            part.headers
                .push((TRANSFER_ENCODING.into(), Raw::new(encoding).into()));
        }
        return Ok(within);
    }
    // These are written as they are: a part that brings its own headers in its contents, or its own
    // encoding. And streamed attachments, which are holes already.
    if let Some((name, value)) = part
        .headers
        .iter()
        .find(|(name, _)| name == TRANSFER_ENCODING)
    {
        let is_eight_bit =
            headers::text_of(value).is_some_and(|encoding| encoding.eq_ignore_ascii_case("8bit"));
        return Ok(Within {
            binary: holes.is_field(name.as_bytes()),
            eight_bit: is_eight_bit && (holes.is_mark(part) || !is_ascii(part)),
        });
    }
    if part.headers.is_empty() {
        return Ok(Within::default());
    }
    let is_composite = media_type(part).is_some_and(headers::is_composite);
    if !is_composite && is_text(part) && !must_be_base64(part) {
        return Ok(Within::default());
    }
    let contents = std::mem::replace(&mut part.contents, BodyPart::Multipart(Vec::new()));
    let bytes = match contents {
        BodyPart::Text(Cow::Owned(text)) => Bytes::from(text),
        BodyPart::Text(Cow::Borrowed(text)) => Bytes::copy_from_slice(text.as_bytes()),
        BodyPart::Binary(Cow::Owned(binary)) => Bytes::from(binary),
        BodyPart::Binary(Cow::Borrowed(binary)) => Bytes::copy_from_slice(binary),
        BodyPart::Multipart(_) => Bytes::new(), // It was seen above that it is none.
    };
    let text = is_composite
        .then(|| read_text("an attachment", &bytes))
        .transpose()?;
    part.headers.push(holes.encoding(text));
    part.contents = BodyPart::Binary(holes.reserve(Input::Bytes(bytes), text).into());
    Ok(Within {
        binary: holes.may_be_binary,
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

/// mail-builder's own idea of it: such a part is written as text, as 7bit, quoted-printable or
/// base64, as its content needs.
fn is_text(part: &MimePart<'_>) -> bool {
    matches!(part.contents, BodyPart::Text(_))
        || content_type(part, "Content-Type").is_some_and(ContentType::is_text)
}

/// Text that would not arrive as it was attached, or that 7bit must not hold (RFC 2045, 2.7):
/// mail-builder takes care of LF alone.
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

/// The part for a streamed attachment, whose contents are the placeholder.
fn part_of<'m>(
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

/// What was moved out of the message, in the order of the placeholders.
struct Placeholders<'m> {
    marks: &'m [u8],
    /// The name of a field that depends on the form.
    field: &'m str,
    /// Here and now.
    may_be_binary: bool,
    inputs: Vec<Option<(Input, Form)>>,
}

impl<'m> Placeholders<'m> {
    /// Takes what stands for a placeholder, and gives the placeholder.
    fn reserve(&mut self, input: Input, text: Option<Text>) -> &'m [u8] {
        let at = self.inputs.len();
        let form = match text {
            Some(text) => Form::Text(text),
            None if self.may_be_binary => Form::Either,
            None => Form::Base64,
        };
        self.inputs.push(Some((input, form)));
        &self.marks[at..=at]
    }

    /// The field that says how a part goes which may go binary, or else as base64, or as text. With
    /// it, mail-builder hands the contents over as they are, in one write.
    fn encoding(&self, text: Option<Text>) -> (Cow<'m, str>, HeaderType<'m>) {
        let name = if self.may_be_binary {
            self.field
        } else {
            TRANSFER_ENCODING
        };
        let encoding = match text {
            Some(Text {
                may_be_eight_bit: true,
                ..
            }) => "8bit",
            Some(_) => "7bit",
            None => "base64",
        };
        (name.into(), Raw::new(encoding).into())
    }

    /// The part's contents are a placeholder.
    fn is_mark(&self, part: &MimePart<'_>) -> bool {
        matches!(&part.contents, BodyPart::Binary(bytes) if self.place(bytes).is_some())
    }

    /// The number of the placeholder that these bytes are: it is the address that counts.
    fn place(&self, bytes: &[u8]) -> Option<usize> {
        let at = bytes
            .as_ptr()
            .addr()
            .checked_sub(self.marks.as_ptr().addr())?;
        (bytes.len() == 1 && at < self.marks.len()).then_some(at)
    }

    /// These bytes are the name of such a field, by their address.
    fn is_field(&self, bytes: &[u8]) -> bool {
        std::ptr::eq(bytes, self.field.as_bytes())
    }

    /// What stands for these bytes, if they are a placeholder.
    fn find(&mut self, bytes: &[u8]) -> Option<(Input, Form)> {
        let at = self.place(bytes)?;
        self.inputs.get_mut(at)?.take()
    }
}

/// The field of a part whose contents are a hole, and of a multipart around such parts.
const BASE64_FIELD: &[u8] = b"Content-Transfer-Encoding: base64\r\n";
const SEVEN_BIT_FIELD: &[u8] = b"Content-Transfer-Encoding: 7bit\r\n";
const EIGHT_BIT_FIELD: &[u8] = b"Content-Transfer-Encoding: 8bit\r\n";
const BINARY_FIELD: &[u8] = b"Content-Transfer-Encoding: binary\r\n";

/// What mail-builder writes on.
struct SegmentWriter<'m> {
    holes: Placeholders<'m>,
    text: Vec<u8>,
    /// Where in the text a field begins that depends on the form.
    fields: Vec<usize>,
    /// Such a field is not what it was to be.
    odd_field: bool,
    pieces: Vec<Segment>,
}

impl SegmentWriter<'_> {
    fn end_text(&mut self) {
        let mut text = Bytes::from(std::mem::take(&mut self.text));
        let length = text.len();
        for at in std::mem::take(&mut self.fields) {
            let before = text.split_to(at - (length - text.len()));
            self.pieces.push(Segment::Text(before));
            let known = [BASE64_FIELD, SEVEN_BIT_FIELD, EIGHT_BIT_FIELD, BINARY_FIELD];
            let Some(field) = known.into_iter().find(|field| text.starts_with(field)) else {
                return self.odd_field = true;
            };
            drop(text.split_to(field.len()));
            // In a multipart, for its parts say it themselves.
            let encoded = if field == BINARY_FIELD { &[] } else { field };
            let [encoded, binary] = [encoded, BINARY_FIELD].map(Bytes::from_static);
            self.pieces.push(Segment::Field { encoded, binary });
        }
        self.pieces.push(Segment::Text(text));
    }
}

impl Writer for SegmentWriter<'_> {
    fn write(&mut self, bytes: &[u8]) {
        if self.holes.is_field(bytes) {
            self.fields.push(self.text.len());
        }
        match self.holes.find(bytes) {
            None => self.text.extend_from_slice(bytes),
            Some((input, form)) => {
                self.end_text();
                self.pieces.push(Segment::Input(input, form));
            }
        }
    }

    fn write_byte(&mut self, byte: u8) {
        self.text.push(byte);
    }

    // Encoded text goes straight into its place, however long it is.
    fn append_with<T>(&mut self, _: usize, append: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        append(&mut self.text)
    }

    fn append_limit(&self) -> usize {
        usize::MAX
    }
}
