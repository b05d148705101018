//! Encodes a message for DATA: CRLF line ends and doubled dots (RFC 5321, 2.3.8 and 4.5.2).
//!
//! A [`Stuffer`] encodes a message in pieces of any size, and ends it. It knows nothing of headers
//! or MIME and buffers nothing: what needs no change is passed on uncopied.

use super::{Chunk, LineEndNormalizer, TextScan};
use crate::proto::Output;

/// Doubles dots at the beginning of lines and makes every line end CRLF: a bare LF and a bare CR
/// each end a line, so that no server can find an end of the message where there is none.
///
/// ```
/// use envoi::proto::{Output, Stuffer};
///
/// let (mut stuffer, mut output) = (Stuffer::new(), Output::default());
/// stuffer.push("a line\n.signature".into(), &mut output);
/// stuffer.finish(&mut output);
/// assert_eq!(output.front(), b"a line\r\n..signature\r\n.\r\n");
/// assert_eq!(stuffer.bytes(), 20); // without the second dot and the final one
/// ```
#[derive(Debug)]
pub struct Stuffer {
    line_ends: LineEndNormalizer,
    changes: Changes,
    bytes: u64,
}

/// How a message is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changes {
    /// Line ends are normalized and dots doubled; a dot ends the message.
    LineEndsAndDots,
    LineEnds,
    Nothing,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Stuffer {
    /// Creates an encoder for DATA.
    pub fn new() -> Self {
        Stuffer {
            line_ends: LineEndNormalizer::new(),
            changes: Changes::LineEndsAndDots,
            bytes: 0,
        }
    }

    /// Creates an encoder for a message of known size (RFC 3030): line ends become CRLF, dots are
    /// not doubled.
    pub fn without_dots() -> Self {
        Stuffer {
            changes: Changes::LineEnds,
            ..Self::new()
        }
    }

    /// Creates an encoder for a message that is sent unchanged (RFC 3030, 3).
    pub fn verbatim() -> Self {
        Stuffer {
            changes: Changes::Nothing,
            ..Self::new()
        }
    }

    pub(in crate::proto) fn is_verbatim(&self) -> bool {
        self.changes == Changes::Nothing
    }

    fn doubles_dots(&self) -> bool {
        self.changes == Changes::LineEndsAndDots
    }

    /// The number of bytes so far, with line ends as they are sent, but without added dots (RFC
    /// 1870, 5).
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Encodes the next piece of the message into `output`.
    pub fn push(&mut self, chunk: Chunk, output: &mut Output) {
        let at_line_start = self.line_ends.is_at_line_start();
        let chunk = match self.is_verbatim() {
            true => chunk,
            false => self.line_ends.normalize(chunk),
        };
        let Chunk { bytes, scan } = chunk;
        if bytes.is_empty() {
            return;
        }
        let mut written = 0;
        if self.doubles_dots() {
            let dot_at_front = at_line_start && bytes[0] == b'.';
            let scan = scan.unwrap_or_else(|| TextScan::new(&bytes));
            for dot in dot_at_front.then_some(0).into_iter().chain(scan.dots) {
                // The dot ends one range and begins the next one.
                output.put_range(&bytes, written..dot + 1);
                written = dot;
            }
        }
        output.put_range(&bytes, written..bytes.len());
        self.bytes += bytes.len() as u64;
    }

    /// Ends the message: completes its last line if necessary, and adds the final dot (RFC 5321,
    /// 4.1.1.4).
    pub fn finish(&mut self, output: &mut Output) {
        if self.is_verbatim() {
            return;
        }
        let end = self.line_ends.end();
        self.bytes += end.len() as u64;
        output.put_slice(end);
        if self.doubles_dots() {
            output.put_slice(b".\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn drained(mut output: Output) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !output.is_empty() {
            bytes.extend_from_slice(output.front());
            output.advance(output.front().len());
        }
        bytes
    }

    fn stuffed(pieces: &[&[u8]]) -> (Vec<u8>, u64) {
        let (mut stuffer, mut output) = (Stuffer::new(), Output::default());
        for piece in pieces {
            stuffer.push(Bytes::copy_from_slice(piece).into(), &mut output);
        }
        stuffer.finish(&mut output);
        (drained(output), stuffer.bytes())
    }

    #[test]
    fn text_is_stuffed_alike_in_any_cut() {
        for (message, wire) in [
            ("", ".\r\n"),
            ("a", "a\r\n.\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a\n", "a\r\n.\r\n"),
            ("a\r", "a\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            ("..\r\n.\r\n", "...\r\n..\r\n.\r\n"),
            ("a\n.\nb", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\r.\rb", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\n\n.b", "a\r\n\r\n..b\r\n.\r\n"),
            ("a\r\r\nb", "a\r\n\r\nb\r\n.\r\n"),
            ("a\n\rb", "a\r\n\r\nb\r\n.\r\n"),
            ("a.b\r\nc.", "a.b\r\nc.\r\n.\r\n"),
            ("a\r\n\r\n", "a\r\n\r\n.\r\n"),
        ] {
            let dots = stuffed(&[message.as_bytes()]).1;
            for split in 0..=message.len() {
                let (head, tail) = message.as_bytes().split_at(split);
                let (bytes, length) = stuffed(&[head, b"", tail]);
                assert_eq!(
                    String::from_utf8_lossy(&bytes),
                    wire,
                    "{message:?} split at {split}"
                );
                assert_eq!(length, dots);
            }
            let one_by_one: Vec<&[u8]> = message.as_bytes().chunks(1).collect();
            assert_eq!(stuffed(&one_by_one).0, wire.as_bytes(), "{message:?}");
        }
    }

    #[test]
    fn text_without_dots_is_not_copied() {
        let text = Bytes::from("a line that is long enough to be sent as it is\r\n".repeat(200));
        let (mut stuffer, mut output) = (Stuffer::new(), Output::default());
        stuffer.push(text.clone().into(), &mut output);
        assert_eq!(output.front().as_ptr(), text.as_ptr());
        assert_eq!(output.len(), text.len());
    }
}
