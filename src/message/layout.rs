//! mail-builder's message, laid out once as text with holes.
//!
//! mail-builder writes every header and part, but for the binary ones: each is moved out beforehand, and
//! a placeholder stands for it. Where that very placeholder is written, by its address and not by its content, there is a
//! *hole*, which is read and encoded when its turn comes. So headers, folding, charsets and file names are mail-builder's, and
//! an attachment of any size costs no memory.

use std::borrow::Cow;

use bytes::Bytes;
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
use crate::{Error, Result};

/// A stretch of a message.
pub(super) enum Piece {
    /// Goes as it is.
    Text(Bytes),
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
            Piece::Input(Input::Bytes(bytes), form) => Some(Piece::Input(Input::Bytes(bytes.clone()), *form)),
            Piece::Input(Input::File(file), form) => Some(Piece::Input(Input::File(file.clone()), *form)),
            Piece::Input(Input::Stream(_), _) | Piece::Gone => None,
        }
    }
}

/// Lays a message out, with attachments that were looked at.
pub(super) fn lay_out(
    mut builder: MessageBuilder<'_>,
    attachments: Vec<(Label, Input)>,
) -> Result<(Vec<Piece>, Facts)> {
    // One byte for each hole that there can be: its address is the placeholder.
    let marks = vec![0; attachments.len() + parts(&mut builder).map(|part| leaves(part)).sum::<usize>()];
    let mut builder = builder; // With a lifetime that ends before the marks do.
    let mut holes = Holes { marks: &marks, inputs: Vec::new() };

    spell_as_mail_builder_does(&mut builder);
    headers::spell_domains_in_ascii(&mut builder.headers);
    for (label, input) in attachments {
        builder.attachments.get_or_insert_default().push(part_of(label, holes.dig(input)));
    }
    wrap_body(&mut builder);
    headers::check(&builder.headers)?;
    parts(&mut builder).try_for_each(|part| headers::check_part(part))?;
    let parts_have_utf8 = parts(&mut builder).any(|part| headers::part_has_utf8(part));
    parts(&mut builder).for_each(|part| dig(part, &mut holes));

    let mut paper = Paper { holes, text: Vec::new(), pieces: Vec::new() };
    builder.serialize(&mut paper);
    paper.end_text();
    if paper.holes.inputs.iter().any(Option::is_some) {
        // Not to be seen with a mail-builder that this crate was tested with. If it ever is, nothing may be sent.
        return Err(Error::request("an attachment did not find its place in the message"));
    }

    let mut pieces = Vec::with_capacity(paper.pieces.len());
    let mut survey = Survey::new();
    for piece in paper.pieces {
        match piece {
            Piece::Text(text) => survey.take(text, |kept| pieces.push(Piece::Text(kept))),
            Piece::Input(input, form) => {
                survey.skip_base64(input.size().map(|size| form.size_of(size)));
                pieces.push(Piece::Input(input, form));
            }
            Piece::Gone => {}
        }
    }
    let mut facts = survey.end(|kept| pieces.push(Piece::Text(kept)));
    facts.utf8_headers |= parts_have_utf8;
    Ok((pieces, facts))
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

/// Moves what mail-builder would write as base64 out of the part and the parts in it.
fn dig<'m>(part: &mut MimePart<'m>, holes: &mut Holes<'m>) {
    if let BodyPart::Multipart(parts) = &mut part.contents {
        return parts.iter_mut().for_each(|inner| dig(inner, holes));
    }
    // These are written as they are: a part that brings its own headers in its contents, or its own encoding.
    if part.headers.is_empty() || part.headers.iter().any(|(name, _)| name == TRANSFER_ENCODING) {
        return;
    }
    if is_text(part) && !must_be_base64(part) {
        return;
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
    part.headers.push(base64_header());
}

const TRANSFER_ENCODING: &str = "Content-Transfer-Encoding";

/// With this header mail-builder hands the contents over as they are, in one write.
fn base64_header<'x>() -> (Cow<'x, str>, HeaderType<'x>) {
    (TRANSFER_ENCODING.into(), Raw::new("base64").into())
}

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
fn part_of<'m>(label: Label, mark: &'m [u8]) -> MimePart<'m> {
    let disposition = if label.content_id.is_some() { "inline" } else { "attachment" };
    let disposition = ContentType::new(disposition).attribute("filename", label.name);
    let mut part = MimePart::new(label.content_type, mark).header("Content-Disposition", disposition);
    if let Some(content_id) = label.content_id {
        part = part.cid(content_id);
    }
    part.headers.push(base64_header());
    part
}

/// What was moved out of the message, in the order of the placeholders.
struct Holes<'m> {
    marks: &'m [u8],
    inputs: Vec<Option<Input>>,
}

impl<'m> Holes<'m> {
    /// Takes what stands for a placeholder, and gives the placeholder.
    fn dig(&mut self, input: Input) -> &'m [u8] {
        let at = self.inputs.len();
        self.inputs.push(Some(input));
        &self.marks[at..=at]
    }

    /// What stands for these bytes, if they are a placeholder: it is the address that counts.
    fn find(&mut self, bytes: &[u8]) -> Option<Input> {
        let at = bytes.as_ptr().addr().checked_sub(self.marks.as_ptr().addr())?;
        self.inputs.get_mut(at).filter(|_| bytes.len() == 1)?.take()
    }
}

/// What mail-builder writes on.
struct Paper<'m> {
    holes: Holes<'m>,
    text: Vec<u8>,
    pieces: Vec<Piece>,
}

impl Paper<'_> {
    fn end_text(&mut self) {
        self.pieces.push(Piece::Text(std::mem::take(&mut self.text).into()));
    }
}

impl Writer for Paper<'_> {
    fn write(&mut self, bytes: &[u8]) {
        match self.holes.find(bytes) {
            None => self.text.extend_from_slice(bytes),
            Some(input) => {
                self.end_text();
                self.pieces.push(Piece::Input(input, Form::Base64));
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
