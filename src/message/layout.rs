//! mail-builder's message, laid out once as text with holes.
//!
//! mail-builder writes every header and part, but for the binary ones: each is moved out beforehand, and
//! a placeholder stands for it. Where that very placeholder is written, by its address and not by its content, there is a
//! *hole*, which is read and encoded when its turn comes. So headers, folding, charsets and file names are mail-builder's, and
//! an attachment of any size costs no memory.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use mail_builder::headers::HeaderType;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};
use mail_builder::{MessageBuilder, Writer};
use memchr::{memchr, memchr_iter};

use super::attachment::Label;
use super::headers;
use super::input::{Form, Input};
use super::survey::{Facts, Survey};
use crate::proto::{Output, Stuffer};
use crate::{Error, Result};

/// A stretch of a message.
pub(super) enum Piece {
    /// Goes as it is.
    Text(Bytes),
    /// A header field that is another one, or is not there, by whether the message goes binary.
    Field { encoded: Bytes, binary: Bytes },
    /// Is read when its turn comes.
    Input(Input, Form),
    /// Was a stream that can be read only once, and its turn has come.
    Gone,
}

impl Piece {
    /// The same from its beginning; `None` where it can be read only once.
    pub(super) fn again(&self) -> Option<Self> {
        match self {
            Piece::Text(text) => Some(Piece::Text(text.clone())),
            Piece::Field { encoded, binary } => Some(Piece::Field { encoded: encoded.clone(), binary: binary.clone() }),
            Piece::Input(Input::Bytes(bytes), form) => Some(Piece::Input(Input::Bytes(bytes.clone()), *form)),
            Piece::Input(Input::File(file), form) => Some(Piece::Input(Input::File(file.clone()), *form)),
            Piece::Input(Input::Stream(_), _) | Piece::Gone => None,
        }
    }
}

/// Lays a message out, with attachments that were looked at. If it `may_be_binary`, the last part of what is returned are the
/// facts of that form.
pub(super) fn lay_out(
    mut builder: MessageBuilder<'_>,
    attachments: Vec<(Label, Input)>,
    may_be_binary: bool,
) -> Result<(Vec<Piece>, Facts, Option<Facts>)> {
    // One byte for each hole that there can be: its address is the placeholder.
    let marks = vec![b'.'; attachments.len() + parts(&mut builder).map(|part| leaves(part)).sum::<usize>()];
    // The name of a field that depends on the form is known by its address, too.
    let field = TRANSFER_ENCODING.to_owned();
    let mut builder = builder; // With a lifetime that ends before the marks do.
    let mut holes = Holes { marks: &marks, field: &field, may_be_binary, inputs: Vec::new() };

    spell_as_mail_builder_does(&mut builder);
    headers::spell_domains_in_ascii(&mut builder.headers);
    for (label, input) in attachments {
        let part = part_of(label, holes.dig(input), holes.encoding());
        builder.attachments.get_or_insert_default().push(part);
    }
    wrap_body(&mut builder);
    if may_be_binary {
        put_together(&mut builder);
    }
    headers::check(&builder.headers)?;
    parts(&mut builder).try_for_each(|part| headers::check_part(part))?;
    let parts_have_utf8 = parts(&mut builder).any(|part| headers::part_has_utf8(part));
    for part in parts(&mut builder) {
        dig(part, &mut holes);
    }

    let mut paper = Paper { holes, text: Vec::new(), fields: Vec::new(), odd_field: false, pieces: Vec::new() };
    builder.serialize(&mut paper);
    paper.end_text();
    if paper.odd_field || paper.holes.inputs.iter().any(Option::is_some) {
        // Not to be seen with a mail-builder that this crate was tested with. If it ever is, nothing may be sent.
        return Err(Error::request("an attachment did not find its place in the message"));
    }

    let mut pieces = Vec::with_capacity(paper.pieces.len());
    let (mut survey, mut binary_survey, mut has_binary) = (Survey::new(), Survey::new(), false);
    for piece in paper.pieces {
        match piece {
            Piece::Text(text) => {
                let text = if may_be_binary { with_crlf(text) } else { text };
                if may_be_binary {
                    binary_survey.take(text.clone(), drop);
                }
                survey.take(text, |kept| pieces.push(Piece::Text(kept)));
            }
            Piece::Field { encoded, binary } => {
                binary_survey.take(binary.clone(), drop);
                survey.take(encoded.clone(), drop);
                pieces.push(Piece::Field { encoded, binary });
            }
            Piece::Input(input, form) => {
                let size = input.size();
                survey.skip_base64(size.map(|size| form.size_of(size)));
                binary_survey.skip_binary(size.map(|size| form.chosen(true).size_of(size)));
                has_binary |= matches!(form, Form::Either);
                pieces.push(Piece::Input(input, form));
            }
            Piece::Gone => {}
        }
    }
    let mut facts = survey.end(|kept| pieces.push(Piece::Text(kept)));
    facts.check_text()?;
    facts.utf8_headers |= parts_have_utf8;
    let binary_facts = has_binary.then(|| {
        let mut binary_facts = binary_survey.end(drop).of_binary();
        binary_facts.utf8_headers = facts.utf8_headers;
        binary_facts
    });
    Ok((pieces, facts, binary_facts))
}

/// The lines of a piece of text as they go behind DATA: in the binary form, nobody makes their ends CRLF any more.
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

/// mail-builder adds these three unless it finds them in exactly this spelling; twice, they are an error (RFC 5322, 3.6).
fn spell_as_mail_builder_does(builder: &mut MessageBuilder<'_>) {
    for (name, _) in &mut builder.headers {
        for known in ["Message-ID", "Date", "MIME-Version"] {
            if name.eq_ignore_ascii_case(known) {
                *name = known.into();
            }
        }
    }
}

/// Beside a body of the caller's making mail-builder leaves all else out: attachments go around it.
fn wrap_body(builder: &mut MessageBuilder<'_>) {
    let Some(body) = &mut builder.body else { return };
    (builder.text_body, builder.html_body) = (None, None);
    let attachments = builder.attachments.take().unwrap_or_default();
    if !attachments.is_empty() {
        let mut parts = vec![std::mem::replace(body, MimePart::raw(""))];
        parts.extend(attachments);
        *body = MimePart::new("multipart/mixed", parts);
    }
}

/// Puts the parts together as mail-builder would: the multiparts around binary parts must bear a field for it.
fn put_together(builder: &mut MessageBuilder<'_>) {
    if builder.body.is_some() {
        return;
    }
    let text = match (builder.text_body.take(), builder.html_body.take()) {
        (Some(text), Some(html)) => Some(MimePart::new("multipart/alternative", vec![text, html])),
        (text, html) => text.or(html),
    };
    builder.body = match builder.attachments.take() {
        None => text,
        Some(attachments) => {
            let parts = text.into_iter().chain(attachments).collect::<Vec<_>>();
            Some(MimePart::new("multipart/mixed", parts))
        }
    };
}

/// The parts that a message is made of, at the top.
fn parts<'a, 'x>(builder: &'a mut MessageBuilder<'x>) -> impl Iterator<Item = &'a mut MimePart<'x>> {
    let bodies = [&mut builder.body, &mut builder.text_body, &mut builder.html_body];
    bodies.into_iter().flatten().chain(builder.attachments.iter_mut().flatten())
}

fn leaves(part: &MimePart<'_>) -> usize {
    match &part.contents {
        BodyPart::Multipart(parts) => parts.iter().map(leaves).sum(),
        _ => 1,
    }
}

/// Moves what mail-builder would write as base64 out of the part and the parts in it. Says whether something in it may go binary.
fn dig<'m>(part: &mut MimePart<'m>, holes: &mut Holes<'m>) -> bool {
    if let BodyPart::Multipart(parts) = &mut part.contents {
        // What is signed must not change (RFC 1847, 2.1).
        let is_fixed = |(name, value): &(Cow<'_, str>, HeaderType<'_>)| {
            let is_signed = |value: &ContentType<'_>| value.c_type.eq_ignore_ascii_case("multipart/signed");
            name.eq_ignore_ascii_case(TRANSFER_ENCODING) || value.as_content_type().is_some_and(is_signed)
        };
        let around = holes.may_be_binary;
        holes.may_be_binary &= !part.headers.iter().any(is_fixed);
        let mut has_binary = false;
        for inner in parts {
            has_binary |= dig(inner, holes);
        }
        holes.may_be_binary = around;
        if has_binary {
            // A multipart is binary if something in it is (RFC 2045, 6.4).
            part.headers.push((holes.field.into(), Raw::new("binary").into()));
        }
        return has_binary;
    }
    // These are written as they are: a part that brings its own headers in its contents, or its own encoding. And streamed
    // attachments, which are holes already.
    if part.headers.is_empty() || part.headers.iter().any(|(name, _)| name == TRANSFER_ENCODING) {
        return part.headers.last().is_some_and(|(name, _)| holes.is_field(name.as_bytes()));
    }
    if is_text(part) && !must_be_base64(part) {
        return false;
    }
    let contents = std::mem::replace(&mut part.contents, BodyPart::Multipart(Vec::new()));
    let bytes = match contents {
        BodyPart::Text(Cow::Owned(text)) => Bytes::from(text),
        BodyPart::Text(Cow::Borrowed(text)) => Bytes::copy_from_slice(text.as_bytes()),
        BodyPart::Binary(Cow::Owned(binary)) => Bytes::from(binary),
        BodyPart::Binary(Cow::Borrowed(binary)) => Bytes::copy_from_slice(binary),
        BodyPart::Multipart(_) => Bytes::new(), // It was seen above that it is none.
    };
    part.contents = BodyPart::Binary(holes.dig(Input::Bytes(bytes)).into());
    part.headers.push(holes.encoding());
    holes.may_be_binary
}

const TRANSFER_ENCODING: &str = "Content-Transfer-Encoding";

/// mail-builder's own idea of it: such a part is written as text, as 7bit, quoted-printable or base64, as its content needs.
fn is_text(part: &MimePart<'_>) -> bool {
    matches!(part.contents, BodyPart::Text(_)) || content_type(part, "Content-Type").is_some_and(ContentType::is_text)
}

/// Text that would not arrive as it was attached, or that 7bit must not hold (RFC 2045, 2.7): mail-builder
/// takes care of LF alone.
fn must_be_base64(part: &MimePart<'_>) -> bool {
    let text = match &part.contents {
        BodyPart::Text(text) => text.as_bytes(),
        BodyPart::Binary(binary) => binary,
        BodyPart::Multipart(_) => return false,
    };
    let is_attachment = content_type(part, "Content-Disposition").is_some_and(ContentType::is_attachment);
    let has_lone_cr = || memchr_iter(b'\r', text).any(|at| text.get(at + 1) != Some(&b'\n'));
    memchr(0, text).is_some() || is_attachment && has_lone_cr()
}

fn content_type<'a, 'x>(part: &'a MimePart<'x>, name: &str) -> Option<&'a ContentType<'x>> {
    part.headers.iter().filter(|(header, _)| header == name).find_map(|(_, value)| match value {
        HeaderType::ContentType(content_type) => Some(content_type),
        _ => None,
    })
}

/// The part for a streamed attachment, whose contents are the placeholder.
fn part_of<'m>(label: Label, mark: &'m [u8], encoding: (Cow<'m, str>, HeaderType<'m>)) -> MimePart<'m> {
    let disposition = if label.content_id.is_some() { "inline" } else { "attachment" };
    let disposition = ContentType::new(disposition).attribute("filename", label.name);
    let mut part = MimePart::new(label.content_type, mark).header("Content-Disposition", disposition);
    if let Some(content_id) = label.content_id {
        part = part.cid(content_id);
    }
    part.headers.push(encoding);
    part
}

/// What was moved out of the message, in the order of the placeholders.
struct Holes<'m> {
    marks: &'m [u8],
    /// The name of a field that depends on the form.
    field: &'m str,
    /// Here and now.
    may_be_binary: bool,
    inputs: Vec<Option<(Input, Form)>>,
}

impl<'m> Holes<'m> {
    /// Takes what stands for a placeholder, and gives the placeholder.
    fn dig(&mut self, input: Input) -> &'m [u8] {
        let at = self.inputs.len();
        self.inputs.push(Some((input, if self.may_be_binary { Form::Either } else { Form::Base64 })));
        &self.marks[at..=at]
    }

    /// The field that says how a part goes which may go binary, or else as base64. With it, mail-builder hands the contents over as
    /// they are, in one write.
    fn encoding(&self) -> (Cow<'m, str>, HeaderType<'m>) {
        let name = if self.may_be_binary { self.field } else { TRANSFER_ENCODING };
        (name.into(), Raw::new("base64").into())
    }

    /// These bytes are the name of such a field, by their address.
    fn is_field(&self, bytes: &[u8]) -> bool {
        std::ptr::eq(bytes, self.field.as_bytes())
    }

    /// What stands for these bytes, if they are a placeholder: it is the address that counts.
    fn find(&mut self, bytes: &[u8]) -> Option<(Input, Form)> {
        let at = bytes.as_ptr().addr().checked_sub(self.marks.as_ptr().addr())?;
        self.inputs.get_mut(at).filter(|_| bytes.len() == 1)?.take()
    }
}

/// The field of a part whose contents are a hole, and of a multipart around such parts.
const BASE64_FIELD: &[u8] = b"Content-Transfer-Encoding: base64\r\n";
const BINARY_FIELD: &[u8] = b"Content-Transfer-Encoding: binary\r\n";

/// What mail-builder writes on.
struct Paper<'m> {
    holes: Holes<'m>,
    text: Vec<u8>,
    /// Where in the text a field begins that depends on the form.
    fields: Vec<usize>,
    /// Such a field is not what it was to be.
    odd_field: bool,
    pieces: Vec<Piece>,
}

impl Paper<'_> {
    fn end_text(&mut self) {
        let mut text = Bytes::from(std::mem::take(&mut self.text));
        let length = text.len();
        for at in std::mem::take(&mut self.fields) {
            let before = text.split_to(at - (length - text.len()));
            self.pieces.push(Piece::Text(before));
            let encoded = match &text {
                rest if rest.starts_with(BASE64_FIELD) => BASE64_FIELD,
                // In a multipart, for its parts say it themselves.
                rest if rest.starts_with(BINARY_FIELD) => b"",
                _ => return self.odd_field = true,
            };
            drop(text.split_to(BINARY_FIELD.len()));
            let [encoded, binary] = [encoded, BINARY_FIELD].map(Bytes::from_static);
            self.pieces.push(Piece::Field { encoded, binary });
        }
        self.pieces.push(Piece::Text(text));
    }
}

impl Writer for Paper<'_> {
    fn write(&mut self, bytes: &[u8]) {
        if self.holes.is_field(bytes) {
            self.fields.push(self.text.len());
        }
        match self.holes.find(bytes) {
            None => self.text.extend_from_slice(bytes),
            Some((input, form)) => {
                self.end_text();
                self.pieces.push(Piece::Input(input, form));
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
