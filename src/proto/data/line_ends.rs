//! Makes the line ends of a text CRLF (RFC 5321, 2.3.8).

use memchr::memchr2;

use super::Chunk;

/// Makes every line of a text end with CRLF: a bare LF and a bare CR each end a line, so that no
/// server can find an end of the message where there is none.
///
/// The text is given in pieces of any size. A piece without a bare line end is passed on uncopied.
#[derive(Debug)]
pub(crate) struct LineEndNormalizer {
    /// The last byte so far. The LF that belongs to a CR at the end of a piece is expected in the
    /// next one.
    last: u8,
}

impl LineEndNormalizer {
    pub(crate) fn new() -> Self {
        LineEndNormalizer { last: b'\n' }
    }

    /// Whether the next byte begins a line.
    pub(super) fn is_at_line_start(&self) -> bool {
        self.last == b'\n'
    }

    /// Returns the next piece with its line ends made CRLF.
    pub(crate) fn normalize(&mut self, mut piece: Chunk) -> Chunk {
        let Some(&last) = piece.bytes.last() else {
            return piece;
        };
        let after_cr = self.last == b'\r';
        self.last = last;
        match piece.has_bare_line_end(after_cr) {
            true => normalized(&piece.bytes, after_cr).into(),
            false => piece,
        }
    }

    /// Ends the text, and returns what the end of its last line lacks.
    pub(crate) fn end(&mut self) -> &'static [u8] {
        match std::mem::replace(&mut self.last, b'\n') {
            b'\n' => b"",
            b'\r' => b"\n",
            _ => b"\r\n",
        }
    }
}

/// Copies a piece with bare line ends. A CR at its end is left for the next piece to complete.
fn normalized(piece: &[u8], after_cr: bool) -> Vec<u8> {
    // Room for the missing bytes of lines of 32 characters.
    let mut lines = Vec::with_capacity(piece.len() + piece.len() / 32 + 2);
    let mut rest = piece;
    if after_cr {
        lines.push(b'\n');
        rest = rest.strip_prefix(b"\n").unwrap_or(rest);
    }
    while let Some(end) = memchr2(b'\r', b'\n', rest) {
        let length = match rest[end..] {
            [b'\r'] => break,
            [b'\r', b'\n', ..] => 2,
            _ => 1,
        };
        lines.extend_from_slice(&rest[..end]);
        lines.extend_from_slice(b"\r\n");
        rest = &rest[end + length..];
    }
    lines.extend_from_slice(rest);
    lines
}
