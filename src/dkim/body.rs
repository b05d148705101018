//! The canonical form of a body (RFC 6376, 3.4.3 and 3.4.4) and its hash, from pieces of any size.

use memchr::{memchr, memchr2, memchr3};
use sha2::{Digest as _, Sha256};

use super::Canonicalization;

/// Hashes a body while it is read. Constant memory.
pub(super) struct BodyHash {
    canonicalizer: BodyCanonicalizer,
    hash: Sha256,
}

impl BodyHash {
    pub(super) fn new(canonicalization: Canonicalization) -> Self {
        BodyHash {
            canonicalizer: BodyCanonicalizer::new(canonicalization),
            hash: Sha256::new(),
        }
    }

    pub(super) fn canonicalization(&self) -> Canonicalization {
        self.canonicalizer.canonicalization
    }

    pub(super) fn update(&mut self, piece: &[u8]) {
        let hash = &mut self.hash;
        self.canonicalizer
            .push(piece, &mut |bytes| hash.update(bytes));
    }

    pub(super) fn finish(mut self) -> [u8; 32] {
        let hash = &mut self.hash;
        self.canonicalizer.finish(&mut |bytes| hash.update(bytes));
        self.hash.finalize().into()
    }
}

/// Brings a body into its canonical form. Only CRLF ends a line; a bare CR or LF is content.
///
/// What cannot be written before more has been read is held back: line ends, which are left out at
/// the end of the body; white space, which is left out at the end of a line; and a CR.
struct BodyCanonicalizer {
    canonicalization: Canonicalization,
    /// The number of line ends that are held back. They come before the space and the CR.
    line_ends: u64,
    /// White space is held back, which becomes one space. It comes before the CR.
    space: bool,
    cr: bool,
    /// Something has been written.
    has_content: bool,
}

impl BodyCanonicalizer {
    fn new(canonicalization: Canonicalization) -> Self {
        BodyCanonicalizer {
            canonicalization,
            line_ends: 0,
            space: false,
            cr: false,
            has_content: false,
        }
    }

    fn is_relaxed(&self) -> bool {
        self.canonicalization == Canonicalization::Relaxed
    }

    /// Passes the canonical form of the next piece to `write`.
    fn push(&mut self, piece: &[u8], write: &mut impl FnMut(&[u8])) {
        if !self.is_relaxed() || has_single_spaces(piece) {
            return self.push_plain(piece, write);
        }
        // Most lines of a text have nothing to change.
        let mut rest = piece;
        while !rest.is_empty() {
            let (line, next) = rest.split_at(memchr(b'\n', rest).map_or(rest.len(), |at| at + 1));
            rest = next;
            if has_single_spaces(line) {
                self.push_plain(line, write);
            } else {
                self.push_any(line, write);
            }
        }
    }

    /// Writes a piece in which only its end may have to be held back.
    fn push_plain(&mut self, piece: &[u8], write: &mut impl FnMut(&[u8])) {
        // A space and a CR that are held back depend on the first byte.
        let is_open = self.space || self.cr;
        let (first, piece) = piece.split_at(usize::from(is_open).min(piece.len()));
        self.push_any(first, write);
        if self.space || self.cr {
            return self.push_any(piece, write);
        }
        let mut content = piece.strip_suffix(b"\r").unwrap_or(piece);
        while let Some(before) = content.strip_suffix(b"\r\n") {
            content = before;
        }
        if !content.is_empty() {
            self.write(content, write);
        }
        self.push_any(&piece[content.len()..], write);
    }

    /// Writes any piece.
    fn push_any(&mut self, piece: &[u8], write: &mut impl FnMut(&[u8])) {
        let mut rest = piece;
        while let [first, next @ ..] = rest {
            rest = match first {
                b'\n' if self.cr => {
                    (self.space, self.cr) = (false, false);
                    self.line_ends += 1;
                    next
                }
                b'\r' => {
                    if self.cr {
                        self.write(b"", write);
                    }
                    self.cr = true;
                    next
                }
                b' ' | b'\t' if self.is_relaxed() => {
                    if self.cr {
                        self.write(b"", write);
                    }
                    self.space = true;
                    next
                }
                _ => {
                    let end = match self.is_relaxed() {
                        true => memchr3(b' ', b'\t', b'\r', rest),
                        false => memchr(b'\r', rest),
                    };
                    let (content, next) = rest.split_at(end.unwrap_or(rest.len()));
                    self.write(content, write);
                    next
                }
            };
        }
    }

    /// Writes what was held back, and then `content`.
    fn write(&mut self, content: &[u8], write: &mut impl FnMut(&[u8])) {
        for _ in 0..std::mem::take(&mut self.line_ends) {
            write(b"\r\n");
        }
        if std::mem::take(&mut self.space) {
            write(b" ");
        }
        if std::mem::take(&mut self.cr) {
            write(b"\r");
        }
        write(content);
        self.has_content = true;
    }

    /// Ends the body: with one line end, unless nothing is left of it in the relaxed form.
    fn finish(&mut self, write: &mut impl FnMut(&[u8])) {
        if self.cr {
            self.write(b"", write);
        }
        if self.has_content || !self.is_relaxed() {
            write(b"\r\n");
        }
    }
}

/// Whether the relaxed form changes no white space in this piece, whatever comes before and after
/// it: there are single spaces alone, none of them before a CR or at the end.
fn has_single_spaces(piece: &[u8]) -> bool {
    let Some(first) = memchr2(b' ', b'\t', piece) else {
        return true;
    };
    // The byte before the piece may be white space.
    if first == 0 {
        return false;
    }
    let rest = &piece[first..];
    let mut has_other = matches!(rest.last(), Some(b' ' | b'\t'));
    // Without branches, so that the compiler uses vector instructions.
    for (byte, next) in rest.iter().zip(rest.iter().skip(1)) {
        has_other |= *byte == b'\t' || *byte == b' ' && matches!(*next, b' ' | b'\t' | b'\r');
    }
    !has_other
}
