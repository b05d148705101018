//! Reads the header section of a raw message: what is removed from it, and what is refused.
//!
//! A raw message may come from any program. The rules are listed in the documentation of
//! [`Message`](super::Message) and applied only here, to bytes, files and streams alike, before
//! anything is sent. The section is held in memory, so its size is limited.

use memchr::memchr;

use super::raw::LineEnds;
use super::scan::{BareLineEnd, bare_line_end, nul};
use crate::text::quoted;
use crate::{Error, Phase, Result};

/// The maximum size of a header section in bytes, since it is held in memory. Exim has the same
/// limit.
const MAX: usize = 1 << 20;

/// The fields that name hidden recipients (RFC 5322, 3.6.3 and 3.6.6).
const BCC_FIELDS: [&str; 2] = ["Bcc", "Resent-Bcc"];

/// The fields that a message has at most once (RFC 5322, 3.6; RFC 2045, 3; RFC 2183, 2).
const UNIQUE_FIELDS: [&str; 15] = [
    "From",
    "Sender",
    "Date",
    "Reply-To",
    "To",
    "Cc",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Subject",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-ID",
    "Content-Disposition",
];

/// The fields that may be given more than once and must not be empty, as all of [`ONCE`] but
/// Subject must not (RFC 5322, 3.6.6).
const NOT_EMPTY: [&str; 5] = [
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Date",
];

/// The name in its usual spelling, if a message has this field at most once.
pub(super) fn unique_field_name(name: &str) -> Option<&'static str> {
    UNIQUE_FIELDS
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(name))
}

/// Whether the field is never sent.
pub(super) fn is_bcc(name: &str) -> bool {
    BCC_FIELDS
        .iter()
        .any(|hidden| hidden.eq_ignore_ascii_case(name))
}

/// Whether the field is left out if it has no value.
pub(super) fn must_have_value(name: &str) -> bool {
    let mut known = UNIQUE_FIELDS
        .iter()
        .chain(&NOT_EMPTY)
        .filter(|known| **known != "Subject");
    known.any(|known| known.eq_ignore_ascii_case(name))
}

/// The error for a field `name` that has several addresses but must have one (RFC 5322, 3.6.2).
pub(super) fn too_many_addresses(place: &str, name: &str, count: usize) -> Error {
    let (message, hint) = match name {
        "From" => (
            format!("{place}the From header has {count} addresses, and there is no Sender header"),
            "Name the one who sends the message in Sender (RFC 5322, 3.6.2).",
        ),
        _ => (
            format!("{place}the {name} header has {count} addresses"),
            "It names the one who sends the message: give one address (RFC 5322, 3.6.2).",
        ),
    };
    Error::request(message).with_hint(hint)
}

/// A header section as it is sent.
#[derive(Debug)]
pub(super) struct Section {
    /// The fields, and the empty line if there is one, with CRLF line ends.
    pub(super) bytes: Vec<u8>,
    /// The number of bytes of the message that the section was read from.
    pub(super) consumed: usize,
    /// The number of lines of the message that were removed.
    pub(super) removed_lines: u64,
    /// The section has bytes beyond ASCII, which are UTF-8.
    pub(super) is_utf8: bool,
    /// The fields in the section that a message has at most once.
    pub(super) unique_fields: Vec<&'static str>,
}

/// Finds the end of the header section, however the message is split into pieces.
#[derive(Default)]
pub(super) struct EndFinder {
    /// The start of the current line.
    line: usize,
    /// There is no line end before this position.
    searched: usize,
    /// A line has been found that is not removed from the front.
    has_begun: bool,
}

impl EndFinder {
    /// Returns whether the section ends within `message`, which is the message so far. If it does,
    /// later bytes have no influence.
    ///
    /// # Errors
    ///
    /// The section is too long.
    pub(super) fn has_end(&mut self, message: &[u8]) -> Result<bool> {
        while let Some(length) = memchr(b'\n', &message[self.searched..]) {
            let next = self.searched + length + 1;
            let line = &message[self.line..next];
            (self.line, self.searched) = (next, next);
            if self.has_begun && matches!(line, b"\n" | b"\r\n") {
                return Ok(true);
            }
            self.has_begun |= !is_preamble(line);
            if next > MAX {
                return Err(too_long());
            }
        }
        self.searched = message.len();
        if self.searched > MAX {
            Err(too_long())
        } else {
            Ok(false)
        }
    }
}

fn too_long() -> Error {
    Error::request(format!(
        "the header section of the message is longer than {MAX} bytes"
    ))
    .with_hint("An empty line ends the header section. Is it missing?")
}

impl Section {
    /// Reads the section at the front of a message. `message` must contain all of it.
    ///
    /// # Errors
    ///
    /// Something cannot be repaired; the error names the line.
    pub(super) fn read(message: &[u8], line_ends: LineEnds) -> Result<Self> {
        if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] = message {
            // Shows the first line only, since how much more has been read depends on the source.
            let start = excerpt(split_line(message).0);
            return Err(Error::request(format!(
                "the message is UTF-16, not UTF-8: it begins with {start}"
            ))
            .with_hint("Save the message as UTF-8."));
        }
        let mut reader = SectionReader::new(line_ends, MESSAGE);
        let mut rest = message;
        while !rest.is_empty() {
            let (line, next) = split_line(rest);
            rest = next;
            reader.number += 1;
            if reader.is_at_front && is_preamble(line) {
                continue;
            }
            // A byte order mark is removed, the line after it stays.
            let line = if reader.is_at_front {
                line.strip_prefix(BOM).unwrap_or(line)
            } else {
                line
            };
            if reader.push_line(line)? {
                break;
            }
        }
        let mut section = reader.end()?;
        section.consumed = message.len() - rest.len();
        Ok(section)
    }

    /// Reads the section of a part that brings its own headers and is written as it is. Its fields
    /// follow those of the message, and it may have none.
    pub(super) fn of_raw_part(part: &[u8]) -> Result<Self> {
        let mut reader = SectionReader::new(LineEnds::Normalize, PART);
        let mut rest = part;
        while !rest.is_empty() {
            let (line, next) = split_line(rest);
            rest = next;
            reader.number += 1;
            reader.is_at_front = false;
            if reader.push_line(line)? {
                break;
            }
        }
        let mut section = reader.end()?;
        section.consumed = part.len() - rest.len();
        Ok(section)
    }
}

const MESSAGE: &str = "the message";
const PART: &str = "the part that brings its own headers";

const BOM: &[u8] = "\u{feff}".as_bytes();

/// Splits off the first line, with its end.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1))
}

/// Whether the line is removed if no field has come before it: it is blank, or a program that keeps
/// several messages in one file wrote it between them (`From alice@example.org Mon Sep 17 …`, RFC
/// 4155).
fn is_preamble(line: &[u8]) -> bool {
    let line = line.strip_prefix(BOM).unwrap_or(line);
    let unquoted = &line[line.iter().take_while(|byte| **byte == b'>').count()..];
    line.trim_ascii().is_empty() || unquoted.starts_with(b"From ") && field_name(line).is_none()
}

/// The name of the field that begins in this line (RFC 5322, 2.2). Blanks before the colon are
/// obsolete syntax but accepted (RFC 5322, 4.5).
fn field_name(line: &[u8]) -> Option<&str> {
    let name = &line[..memchr(b':', line)?];
    let name = name.trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(name).ok().filter(|_| is_name)
}

/// Reads a section line by line.
struct SectionReader {
    line_ends: LineEnds,
    /// The number of the current line, from 1.
    number: u64,
    /// No field has been read.
    is_at_front: bool,
    /// What the section belongs to, for errors.
    what: &'static str,
    /// The current field is removed.
    is_removed: bool,
    /// The current field, which may be continued: its name, its start, the start of its value, and
    /// its line.
    field: Option<(String, usize, usize, u64)>,
    bytes: Vec<u8>,
    lines: u64,
    unique_fields: Vec<&'static str>,
    /// The number of addresses in From, and the line of the field.
    authors: Option<(usize, u64)>,
}

impl SectionReader {
    fn new(line_ends: LineEnds, what: &'static str) -> Self {
        SectionReader {
            line_ends,
            number: 0,
            is_at_front: true,
            what,
            is_removed: false,
            field: None,
            bytes: Vec::new(),
            lines: 0,
            unique_fields: Vec::new(),
            authors: None,
        }
    }

    /// Adds the next line. Returns whether it is the empty line that ends the section.
    fn push_line(&mut self, line: &[u8]) -> Result<bool> {
        let text = self.check_line(line)?;
        let is_empty = text.is_empty();
        match text.first() {
            None => self.end_field()?,
            // Continues the field (RFC 5322, 2.2.3).
            Some(b' ' | b'\t') if self.field.is_some() || self.is_removed => {}
            _ => {
                self.end_field()?;
                self.start_field(text)?;
            }
        }
        self.is_at_front = false;
        if is_empty || !self.is_removed {
            self.bytes.extend_from_slice(text);
            self.bytes.extend_from_slice(b"\r\n");
            self.lines += 1;
        }
        Ok(is_empty)
    }

    /// Checks a line and returns it without its end.
    fn check_line<'a>(&self, line: &'a [u8]) -> Result<&'a [u8]> {
        let (number, what) = (self.number, self.what);
        let (text, byte) = match line {
            [text @ .., b'\r', b'\n'] => (text, None),
            [text @ .., b'\n'] => (
                text,
                (self.line_ends != LineEnds::Normalize).then_some(b'\n'),
            ),
            text => (text, None),
        };
        if memchr(b'\r', text).is_some() {
            return Err(Error::request(format!(
                "line {number} of {what} ends with CR alone: {}",
                excerpt(text)
            ))
            .with_hint(
                "In a header section, not every reader ends a line there. Convert the \
                    line ends to CRLF.",
            ));
        }
        if let Some(byte) = byte {
            return Err(bare_line_end(
                Phase::Setup,
                what,
                BareLineEnd { line: number, byte },
            ));
        }
        if memchr(0, text).is_some() {
            return Err(nul(Phase::Setup, self.what, number));
        }
        if let Err(error) = std::str::from_utf8(text) {
            let excerpt = excerpt(&text[error.valid_up_to().saturating_sub(30)..]);
            return Err(
                Error::request(format!("line {number} of {what} is not UTF-8: {excerpt}"))
                    .with_hint("Save it as UTF-8, or encode this header (RFC 2047)."),
            );
        }
        Ok(text)
    }

    fn start_field(&mut self, text: &[u8]) -> Result<()> {
        let (number, what) = (self.number, self.what);
        let Some(name) = field_name(text) else {
            let message = format!(
                "line {number} of {what} is not a header field: {}",
                excerpt(text)
            );
            let hint = match self.unique_fields.is_empty() && self.bytes.is_empty() {
                true => {
                    "A message begins with its header fields, such as \"Subject: Hello\", and an \
                        empty line ends them."
                }
                false => "An empty line ends the header section. Is it missing before this line?",
            };
            return Err(Error::request(message).with_hint(hint));
        };
        self.is_removed =
            is_bcc(name) || self.what == PART && name.eq_ignore_ascii_case("MIME-Version");
        if !self.is_removed {
            let value = self.bytes.len() + memchr(b':', text).map_or(text.len(), |colon| colon + 1);
            self.field = Some((name.to_owned(), self.bytes.len(), value, number));
        }
        Ok(())
    }

    /// Checks the completed field.
    fn end_field(&mut self) -> Result<()> {
        self.is_removed = false;
        let Some((name, start, value, number)) = self.field.take() else {
            return Ok(());
        };
        let value = &self.bytes[value..];
        if value.trim_ascii().is_empty() && must_have_value(&name) {
            self.lines -= self.bytes[start..]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count() as u64;
            self.bytes.truncate(start);
            return Ok(());
        }
        let Some(name) = unique_field_name(&name) else {
            return Ok(());
        };
        if self.unique_fields.contains(&name) {
            return Err(Error::request(format!(
                "line {number} of {} is a second {name} header",
                self.what
            ))
            .with_hint("A message has one at most (RFC 5322, 3.6). Remove the other."));
        }
        match name {
            "From" => self.authors = Some((count_addresses(value), number)),
            "Sender" if count_addresses(value) > 1 => {
                return Err(too_many_addresses(
                    &self.line_prefix(number),
                    name,
                    count_addresses(value),
                ));
            }
            _ => {}
        }
        self.unique_fields.push(name);
        Ok(())
    }

    fn line_prefix(&self, number: u64) -> String {
        format!("line {number} of {}: ", self.what)
    }

    fn end(mut self) -> Result<Section> {
        self.end_field()?;
        if let Some((count @ 2.., number)) = self.authors
            && !self.unique_fields.contains(&"Sender")
        {
            return Err(too_many_addresses(&self.line_prefix(number), "From", count));
        }
        if self.what == MESSAGE && matches!(&*self.bytes, b"" | b"\r\n") {
            let message = match self.is_at_front {
                true => "the message is empty",
                false => {
                    "the message has no header field that may be sent: Bcc and fields without a \
                        value are left out"
                }
            };
            return Err(Error::request(message).with_hint(
                "A message begins with its header fields, such as \"Subject: Hello\".",
            ));
        }
        Ok(Section {
            is_utf8: !self.bytes.is_ascii(),
            consumed: 0,
            removed_lines: self.number - self.lines,
            unique_fields: self.unique_fields,
            bytes: self.bytes,
        })
    }
}

/// Counts the addresses in a list, including those in groups. Without an `@`, an address cannot be
/// told from a name, and does not count.
pub(super) fn count_addresses(list: &[u8]) -> usize {
    let (mut in_quotes, mut is_escaped, mut comments) = (false, false, 0_usize);
    let (mut in_angle, mut has_at, mut count) = (false, false, 0);
    for byte in list {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_quotes || comments > 0,
            b'"' if comments == 0 => in_quotes = !in_quotes,
            _ if in_quotes => {}
            b'(' => comments += 1,
            b')' => comments = comments.saturating_sub(1),
            _ if comments > 0 => {}
            b'<' => in_angle = true,
            b'>' => in_angle = false,
            b'@' => has_at = true,
            // Angle brackets may contain an obsolete route before the address (RFC 5322, 4.4).
            b',' | b';' if !in_angle => count += usize::from(std::mem::take(&mut has_at)),
            _ => {}
        }
    }
    count + usize::from(has_at)
}

/// Quotes bytes for an error: escapes what is not text or is a control character, and cuts what is
/// long.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 60;
    match std::str::from_utf8(bytes) {
        Ok(text) => quoted(text),
        Err(_) if bytes.len() <= SHOWN => format!("\"{}\"", bytes.escape_ascii()),
        Err(_) => format!("\"{}\"…", bytes[..SHOWN].escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn read(message: &[u8]) -> Result<String> {
        let section = Section::read(message, LineEnds::Normalize)?;
        Ok(String::from_utf8(section.bytes).unwrap())
    }

    #[test]
    fn section_is_repaired() {
        for (message, expected) in [
            ("Subject: x", "Subject: x\r\n"),
            ("Subject: x\n\nbody", "Subject: x\r\n\r\n"),
            ("\u{feff}Subject: x\r\n\r\n", "Subject: x\r\n\r\n"),
            ("\u{feff}Bcc: h@x\r\nTo: a@x\r\n\r\n", "To: a@x\r\n\r\n"),
            ("\u{feff}\r\n\u{feff}To: a@x\r\n\r\n", "To: a@x\r\n\r\n"),
            (
                "\r\n\n \t\r\nTo: a@x\r\nBcc: h@x\r\n\r\n",
                "To: a@x\r\n\r\n",
            ),
            (
                "From 1f2e Mon Sep 17 00:00:00 2001\nFrom: a@x\n\n",
                "From: a@x\r\n\r\n",
            ),
            (
                "From 1f2e Mon Sep 17 00:00:00 2001\n>From b@x\n\nFrom: a@x\n\n",
                "From: a@x\r\n\r\n",
            ),
            ("From : a@x\nBcc : h@x\n b@x\n\n", "From : a@x\r\n\r\n"),
            ("bcc: x\r\n y\r\n\tz\r\nTo: a@x\r\n\r\n", "To: a@x\r\n\r\n"),
            (
                "To: a@x\r\n b@x\r\nBCC: x\r\n y\r\n\r\nbody",
                "To: a@x\r\n b@x\r\n\r\n",
            ),
            ("Resent-Bcc\t: x\nTo: a@x\n\nbody\n", "To: a@x\r\n\r\n"),
            ("Bcc: x\r\n \r\nTo: a@x\r\n", "To: a@x\r\n"),
            (
                "Bccx: stays\r\nX-Bcc: stays\r\n",
                "Bccx: stays\r\nX-Bcc: stays\r\n",
            ),
            (
                "Cc: \r\nTo:\r\n \r\nSubject:\r\nX-A:\r\n\r\n",
                "Subject:\r\nX-A:\r\n\r\n",
            ),
            ("Cc:\r\nCc: a@x\r\n\r\n", "Cc: a@x\r\n\r\n"),
            (
                "From: Doe, John <a@x>\r\n\r\n",
                "From: Doe, John <a@x>\r\n\r\n",
            ),
            (
                "From: \"b@x, c\" (d@x, e@x) <@f,@g:a@x>\r\n\r\n",
                "From: \"b@x, c\" (d@x, e@x) <@f,@g:a@x>\r\n\r\n",
            ),
            (
                "From: a@x,\r\n b@x\r\nSender: a@x\r\n\r\n",
                "From: a@x,\r\n b@x\r\nSender: a@x\r\n\r\n",
            ),
        ] {
            assert_eq!(read(message.as_bytes()).unwrap(), expected, "{message:?}");
            let mut finder = EndFinder::default();
            let end = (0..=message.len())
                .find(|end| finder.has_end(&message.as_bytes()[..*end]).unwrap());
            let consumed = Section::read(message.as_bytes(), LineEnds::Normalize)
                .unwrap()
                .consumed;
            assert_eq!(end.unwrap_or(message.len()), consumed, "{message:?}");
        }
    }

    #[test]
    fn refusal_names_the_line() {
        for (message, says) in [
            (&b""[..], "the message is empty"),
            (b"\r\n\n", "the message is empty"),
            (
                b"Bcc: x@y\r\nTo: \r\n\r\n",
                "the message has no header field that may be sent",
            ),
            (
                b"Hello",
                "line 1 of the message is not a header field: \"Hello\"",
            ),
            (
                b"\n\nHello\n",
                "line 3 of the message is not a header field: \"Hello\"",
            ),
            (
                b"To: a@x\nHello Bob,\n\nbody",
                "line 2 of the message is not a header field: \"Hello Bob,\"",
            ),
            (
                b"X Y: z\n\n",
                "line 1 of the message is not a header field: \"X Y: z\"",
            ),
            (
                b": z\n\n",
                "line 1 of the message is not a header field: \": z\"",
            ),
            (
                b"  folded\nTo: a@x\n\n",
                "line 1 of the message is not a header field",
            ),
            (
                b"To: a@x\nFrom b@x Mon Sep 17\n\n",
                "line 2 of the message is not a header field",
            ),
            (
                b"Subject: Gr\xfc\xdfe\n\n",
                "line 1 of the message is not UTF-8: \"Subject: Gr\\xfc\\xdfe\"",
            ),
            (
                b"To: a@x\nX: a\n \x1b[0m\xff\n\n",
                "line 3 of the message is not UTF-8: \" \\x1b[0m\\xff\"",
            ),
            (b"Bcc: \xff\n\n", "line 1 of the message is not UTF-8"),
            (
                b"\xff\xfeS\0",
                "UTF-16, not UTF-8: it begins with \"\\xff\\xfeS\\x00\"",
            ),
            (b"\xfe\xff\0S", "UTF-16"),
            (
                b"To: a@x\r\nX: \0\r\n\r\n",
                "line 2 of the message has a NUL",
            ),
            (
                b"Subject: x\r\rfoo\r\nBcc: h@x\r\n\r\n",
                "line 1 of the message ends with CR alone",
            ),
            (
                b"To: a@x\r\r\nBcc: h@x\r\n\r\n",
                "line 1 of the message ends with CR alone",
            ),
            (
                b"To: a@x\rBcc: h@x\r\r",
                "line 1 of the message ends with CR alone",
            ),
            (
                b"Subject: a\nsubject : b\n\n",
                "line 2 of the message is a second Subject header",
            ),
            (
                b"Content-Type: a/b\nCONTENT-TYPE: a/b\n\n",
                "line 2 of the message is a second Content-Type header",
            ),
            (
                b"To: c@x\nFrom: a@x, B <b@x>\n\n",
                "line 2 of the message: the From header has 2 addresses",
            ),
            (b"From: g:a@x,b@x;\n\n", "the From header has 2 addresses"),
            (
                b"From: a@x\nSender: a@x, b@x\n\n",
                "line 2 of the message: the Sender header has 2 addresses",
            ),
        ] {
            let error = read(message).unwrap_err();
            assert!(
                error.to_string().contains(says),
                "{error} should say {says}"
            );
            assert!(
                error.hint().is_some() && error.kind() == ErrorKind::Request,
                "{error}"
            );
        }
        let long = [b"X: ".repeat(MAX), b"\r\n\r\n".to_vec()].concat();
        assert!(
            EndFinder::default()
                .has_end(&long)
                .unwrap_err()
                .to_string()
                .contains("longer than")
        );
        assert!(
            EndFinder::default()
                .has_end(&b"\n".repeat(MAX + 1))
                .is_err()
        );
    }

    #[test]
    fn the_error_for_utf_16_does_not_depend_on_how_much_was_read() {
        let message = b"\xfe\xff\xffx\n\n\xf4c\n\n";
        let texts: Vec<_> = (6..=message.len())
            .map(|end| read(&message[..end]).unwrap_err().to_string())
            .collect();
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    }

    #[test]
    fn lone_lf_is_refused_unless_normalized() {
        for message in [
            "Subject: x\n\nfoo\r\nBcc: h@x\r\n\r\n",
            "To: a@x\r\nSubject: x\n\r\n",
            "Bcc: h@x\n\r\n",
        ] {
            for line_ends in [LineEnds::Keep, LineEnds::Refuse] {
                let error = Section::read(message.as_bytes(), line_ends).unwrap_err();
                assert!(error.to_string().contains("ends with LF alone"), "{error}");
            }
        }
    }
}
