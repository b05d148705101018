//! Determines the properties of a message before it is sent: its size on the wire, whether it is
//! 8-bit, and its line ends.

use memchr::{memchr, memchr2};

use super::input::TextInfo;
use crate::diagnose;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::proto::Content;

/// Scans a message once and collects its properties.
#[derive(Debug)]
pub(super) struct MessageScanner {
    lines: LineCounter,
    eight_bit: bool,
    nul: Option<u64>,
    size_is_known: bool,
    content_is_known: bool,
}

/// The properties of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MessageInfo {
    /// The size on the wire, as RFC 1870 counts it: every line, the last one included, ends with
    /// CRLF; doubled dots and the final dot do not count.
    pub(super) size: Option<u64>,
    pub(super) content: Content,
    pub(super) utf8_headers: bool,
    pub(super) longest_line: Option<u64>,
    /// The first line that does not end with CRLF.
    pub(super) bare: Option<BareLineEnd>,
    /// The first line with a NUL, which is not allowed in text (RFC 2045, 2.8).
    pub(super) nul: Option<u64>,
    /// Bytes of `size` added to repair line ends.
    added: u64,
}

/// A line that ends with a bare CR or LF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BareLineEnd {
    pub(super) line: u64,
    pub(super) byte: u8,
}

impl MessageInfo {
    /// For a message of which at most the size is known before it is sent.
    pub(super) fn unknown(size: Option<u64>) -> Self {
        MessageInfo {
            size,
            content: Content::Unknown,
            utf8_headers: false,
            longest_line: None,
            bare: None,
            nul: None,
            added: 0,
        }
    }

    /// Checks that the message can be sent as text, before it is sent or, in [`Phase::Body`], while
    /// it is.
    pub(super) fn check_text(&self, refuses_bare_line_ends: bool, phase: Phase) -> Result<()> {
        const WHAT: &str = "the message";
        if let Some(bare) = self.bare.filter(|_| refuses_bare_line_ends) {
            return Err(bare_line_end(phase, WHAT, bare));
        }
        self.nul.map_or(Ok(()), |line| Err(nul(phase, WHAT, line)))
    }

    /// Adds a header field of ASCII, with CRLF at its line ends.
    pub(super) fn prepend(&mut self, field: &[u8]) {
        debug_assert!(field.is_ascii() && field.ends_with(b"\r\n"));
        let length = field.len() as u64;
        self.size = self.size.map(|size| size.saturating_add(length));
        let lines = field.split(|byte| *byte == b'\n');
        let longest = lines.map(|line| line.len().saturating_sub(1) as u64).max();
        self.longest_line = self.longest_line.max(self.longest_line.and(longest));
    }

    /// The properties of the same message if it is sent unchanged.
    pub(super) fn into_binary(self) -> Self {
        let size = self.size.map(|size| size - self.added);
        MessageInfo {
            size,
            content: Content::Binary,
            longest_line: None,
            ..self
        }
    }
}

/// The error for a line with a NUL in text.
pub(super) fn nul(phase: Phase, what: &str, line: u64) -> Error {
    let message = format!("line {line} of {what} has a NUL, which text cannot have");
    Error::new(kind_in(phase), phase, message).with_hint(diagnose::NUL)
}

/// The error for a line end that may not be repaired.
pub(super) fn bare_line_end(phase: Phase, what: &str, bare: BareLineEnd) -> Error {
    let name = if bare.byte == b'\r' { "CR" } else { "LF" };
    let message = format!("line {} of {what} ends with {name} alone", bare.line);
    let outcome = match phase {
        Phase::Body => "delivered",
        _ => "sent",
    };
    Error::new(kind_in(phase), phase, message).with_hint(format!(
        "Lines end with CRLF. Nothing was {outcome}; it can be, if line ends may be normalized."
    ))
}

/// The kind of an error in the message that is found in this phase.
fn kind_in(phase: Phase) -> ErrorKind {
    match phase {
        Phase::Body => ErrorKind::Input,
        _ => ErrorKind::Request,
    }
}

impl MessageScanner {
    pub(super) fn new() -> Self {
        MessageScanner {
            lines: LineCounter::new(),
            eight_bit: false,
            nul: None,
            size_is_known: true,
            content_is_known: true,
        }
    }

    /// Counts lines that are not sent, so that line numbers in errors are those of the source.
    pub(super) fn skip_lines(&mut self, lines: u64) {
        self.lines.skip(lines);
    }

    /// Scans the next piece of the message.
    pub(super) fn read(&mut self, piece: &[u8]) {
        self.eight_bit |= !piece.is_ascii();
        let mut rest = piece;
        if self.nul.is_none()
            && let Some(at) = memchr(0, piece)
        {
            self.lines.feed(&piece[..at]);
            self.nul = Some(self.lines.number());
            rest = &piece[at..];
        }
        self.lines.feed(rest);
    }

    /// Whether a line so far ends with a bare CR or LF.
    pub(super) fn has_bare_line_end(&self) -> bool {
        self.lines.bare.is_some()
    }

    /// Counts lines of base64 between two pieces. `length` is their size, if known.
    pub(super) fn skip_base64(&mut self, length: Option<u64>) {
        let longest = length.map_or(76, |length| length.saturating_sub(2).min(76));
        self.lines.longest = self.lines.longest.max(longest);
        match length {
            Some(length) => self.lines.size = self.lines.size.saturating_add(length),
            None => self.size_is_known = false,
        }
    }

    /// Counts text between two pieces, which starts at the beginning of a line.
    pub(super) fn read_text(&mut self, text: TextInfo) {
        self.eight_bit |= text.may_be_eight_bit;
        match text.lines {
            Some(lines) => self.lines.append(lines),
            None => (self.size_is_known, self.content_is_known) = (false, false),
        }
    }

    /// Counts bytes that are sent unchanged. `length` is their number, if known.
    pub(super) fn skip_binary(&mut self, length: Option<u64>) {
        match length {
            Some(length) => self.lines.size = self.lines.size.saturating_add(length),
            None => self.size_is_known = false,
        }
    }

    /// The lines so far and whether they have bytes beyond ASCII; and the line of a NUL, if there
    /// is one.
    pub(super) fn text(&self) -> (TextInfo, Option<u64>) {
        (
            TextInfo {
                lines: Some(self.lines),
                may_be_eight_bit: self.eight_bit,
            },
            self.nul,
        )
    }

    /// Ends the message. `utf8_headers` is set by the caller.
    pub(super) fn end(mut self) -> MessageInfo {
        self.lines.end();
        MessageInfo {
            size: self.size_is_known.then_some(self.lines.size),
            content: match self.eight_bit {
                _ if !self.content_is_known => Content::Unknown,
                true => Content::EightBit,
                false => Content::SevenBit,
            },
            utf8_headers: false,
            longest_line: Some(self.lines.longest),
            bare: self.lines.bare,
            nul: self.nul,
            added: self.lines.added,
        }
    }
}

/// Counts lines and bytes as they are sent: a bare CR or LF becomes CRLF, and a last line without
/// an end gets one.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineCounter {
    size: u64,
    /// The number of complete lines.
    count: u64,
    /// The length of the incomplete line.
    line: u64,
    longest: u64,
    after_cr: bool,
    bare: Option<BareLineEnd>,
    added: u64,
}

impl LineCounter {
    pub(super) fn new() -> Self {
        LineCounter {
            size: 0,
            count: 0,
            line: 0,
            longest: 0,
            after_cr: false,
            bare: None,
            added: 0,
        }
    }

    pub(super) fn bare(&self) -> Option<BareLineEnd> {
        self.bare
    }

    /// The number of the line that the next byte belongs to.
    fn number(&self) -> u64 {
        self.count + u64::from(self.after_cr) + 1
    }

    /// Counts lines that are not sent, so that line numbers in errors are those of the source.
    pub(super) fn skip(&mut self, lines: u64) {
        self.count += lines;
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.after_cr && !bytes.is_empty() {
            match bytes.strip_prefix(b"\n") {
                Some(rest) => bytes = rest,
                None => self.add(b'\r'),
            }
            self.end_line();
        }
        while let Some(end) = memchr2(b'\r', b'\n', bytes) {
            self.line += end as u64;
            bytes = match bytes[end..] {
                [b'\r', b'\n', ..] => &bytes[end + 2..],
                [b'\r'] => {
                    self.after_cr = true;
                    return;
                }
                _ => {
                    self.add(bytes[end]);
                    &bytes[end + 1..]
                }
            };
            self.end_line();
        }
        self.line += bytes.len() as u64;
    }

    /// Adds lines that were counted separately and start at the beginning of a line.
    fn append(&mut self, lines: LineCounter) {
        self.size += lines.size;
        self.count += lines.count;
        self.longest = self.longest.max(lines.longest);
        self.added += lines.added;
        (self.line, self.after_cr) = (lines.line, lines.after_cr);
    }

    pub(super) fn end(&mut self) {
        if self.after_cr {
            self.add(b'\r');
            self.end_line();
        } else if self.line > 0 {
            (self.size, self.added) = (self.size.saturating_add(2), self.added + 2);
            self.end_line();
        }
    }

    /// Counts the missing half of the CRLF of a line that ends with `byte` alone.
    fn add(&mut self, byte: u8) {
        (self.size, self.added) = (self.size.saturating_add(1), self.added + 1);
        self.bare.get_or_insert(BareLineEnd {
            line: self.count + 1,
            byte,
        });
    }

    fn end_line(&mut self) {
        self.after_cr = false;
        self.count += 1;
        self.longest = self.longest.max(self.line);
        self.line = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(segments: &[&[u8]]) -> MessageInfo {
        let mut scanner = MessageScanner::new();
        for piece in segments {
            scanner.read(piece);
        }
        scanner.end()
    }

    #[test]
    fn counts_what_the_wire_will_have() {
        for (message, size, longest, bare) in [
            ("", 0, 0, None),
            ("a", 3, 1, None),
            ("a\r\n", 3, 1, None),
            ("a\n", 3, 1, Some((1, b'\n'))),
            ("a\r", 3, 1, Some((1, b'\r'))),
            ("\n\r", 4, 0, Some((1, b'\n'))),
            ("a\r\r\nbc", 3 + 2 + 4, 2, Some((1, b'\r'))),
            ("a\r\nb\r\nc\nd", 12, 1, Some((3, b'\n'))),
        ] {
            for split in 0..=message.len() {
                let (head, tail) = message.as_bytes().split_at(split);
                let info = info(&[head, tail]);
                assert_eq!(info.size, Some(size), "{message:?}, split at {split}");
                assert_eq!(
                    info.longest_line,
                    Some(longest),
                    "{message:?}, split at {split}"
                );
                let bare = bare.map(|(line, byte)| BareLineEnd { line, byte });
                assert_eq!(info.bare, bare, "{message:?}, split at {split}");
            }
        }
    }

    #[test]
    fn tells_the_line_of_a_nul() {
        for (message, line) in [
            ("a\r\nb", None),
            ("\0", Some(1)),
            ("a\r\nb\0\r\n\0", Some(2)),
            ("a\rb\n\0", Some(3)),
            ("a\r\0", Some(2)),
        ] {
            for split in 0..=message.len() {
                let (head, tail) = message.as_bytes().split_at(split);
                assert_eq!(
                    info(&[head, tail]).nul,
                    line,
                    "{message:?}, split at {split}"
                );
            }
        }
    }
}
