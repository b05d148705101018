//! The bytes to write: commands that are sent together, and pieces of the message, uncopied.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::IoSlice;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use zeroize::Zeroizing;

/// A piece of up to this size is copied to the end of the previous one, which costs less than
/// another segment in a write.
const COPIED: usize = 4096;

/// The bytes to write, in order.
#[derive(Default)]
pub struct Output {
    segments: VecDeque<Bytes>,
    /// Small pieces, joined; they come after the segments.
    tail: BytesMut,
}

/// The number of bytes alone: they may be those of a login.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl Output {
    /// Whether nothing is left to write.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.tail.is_empty()
    }

    /// The number of bytes to write.
    pub fn len(&self) -> usize {
        self.segments.iter().map(Bytes::len).sum::<usize>() + self.tail.len()
    }

    /// The first bytes to write; empty only if nothing is left.
    pub fn front(&self) -> &[u8] {
        self.segments
            .front()
            .map_or(&self.tail[..], |segment| &segment[..])
    }

    /// Fills `slices` for a vectored write, and returns how many were filled.
    pub fn io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let pieces = self.segments.iter().map(|segment| &segment[..]).chain(tail);
        slices
            .iter_mut()
            .zip(pieces)
            .map(|(slice, piece)| *slice = IoSlice::new(piece))
            .count()
    }

    /// Removes the first `n` bytes, which were written.
    ///
    /// # Panics
    ///
    /// If there are fewer than `n`.
    pub fn advance(&mut self, mut n: usize) {
        while let Some(segment) = self.segments.front_mut() {
            if n < segment.len() {
                segment.advance(n);
                return;
            }
            n -= segment.len();
            self.segments.pop_front();
        }
        self.tail.advance(n);
    }

    /// Moves the first `n` bytes, or all if there are fewer, to the end of another output.
    pub(super) fn move_to(&mut self, mut n: usize, other: &mut Output) {
        while n > 0
            && let Some(mut segment) = self.segments.pop_front()
        {
            let piece = segment.split_to(n.min(segment.len()));
            n -= piece.len();
            other.put_bytes(piece);
            if !segment.is_empty() {
                self.segments.push_front(segment);
            }
        }
        other.put_slice(&self.tail.split_to(n.min(self.tail.len())));
    }

    pub(super) fn clear(&mut self) {
        *self = Output::default();
    }

    pub(super) fn put_slice(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Adds a line with its CRLF, and returns it without.
    pub(super) fn put_line(&mut self, line: impl fmt::Display) -> &str {
        let start = self.tail.len();
        // An error of `fmt` is one of `Display`, and no command has any.
        let _ = write!(self.tail, "{line}");
        let end = self.tail.len();
        self.put_slice(b"\r\n");
        str::from_utf8(&self.tail[start..end]).unwrap_or_default()
    }

    pub(super) fn put_bytes(&mut self, bytes: Bytes) {
        if bytes.len() <= COPIED {
            self.put_slice(&bytes);
        } else {
            self.put_segment(bytes);
        }
    }

    /// Adds a range of `bytes`.
    pub(super) fn put_range(&mut self, bytes: &Bytes, range: Range<usize>) {
        if range.len() <= COPIED {
            self.put_slice(&bytes[range]);
        } else {
            self.put_segment(bytes.slice(range));
        }
    }

    /// The line is wiped once it has been written.
    pub(super) fn put_secret(&mut self, line: Zeroizing<Vec<u8>>) {
        self.put_segment(Bytes::from_owner(line));
    }

    fn put_segment(&mut self, bytes: Bytes) {
        if !self.tail.is_empty() {
            self.segments.push_back(self.tail.split().freeze());
        }
        self.segments.push_back(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_stays_in_order_and_copies_only_small_chunks() {
        let large = Bytes::from(vec![b'x'; COPIED + 1]);
        let mut output = Output::default();
        output.put_slice(b"DATA\r\n");
        output.put_bytes(large.clone());
        output.put_bytes(Bytes::from_static(b".\r\n"));
        assert_eq!(output.len(), 6 + large.len() + 3);
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(output.io_slices(&mut slices), 3);
        assert_eq!(slices[1].as_ptr(), large.as_ptr());

        output.advance(6 + large.len() - 1);
        assert_eq!(output.front(), b"x");
        output.advance(2);
        assert_eq!(output.front(), b"\r\n");
        output.advance(2);
        assert!(output.is_empty());
    }

    #[test]
    fn output_can_advance_by_any_length() {
        let large = Bytes::from((0..2 * COPIED).map(|i| i as u8).collect::<Vec<_>>());
        for n in [
            0,
            1,
            4,
            5,
            COPIED,
            2 * COPIED + 3,
            2 * COPIED + 4,
            2 * COPIED + 5,
            usize::MAX,
        ] {
            let mut from = Output::default();
            from.put_slice(b"head");
            from.put_bytes(large.clone());
            from.put_slice(b"t");
            let all: Vec<u8> = [b"head", &large[..], b"t"].concat();
            let mut to = Output::default();
            to.put_slice(b"BDAT");
            from.move_to(n, &mut to);
            let split = n.min(all.len());
            assert_eq!((to.len(), from.len()), (4 + split, all.len() - split));
            let drain = |mut output: Output| {
                let mut bytes = Vec::new();
                while !output.is_empty() {
                    bytes.extend_from_slice(output.front());
                    output.advance(output.front().len());
                }
                bytes
            };
            assert_eq!([&drain(to)[4..], &drain(from)[..]].concat(), all);
        }
    }

    #[test]
    fn debug_shows_no_bytes_that_may_be_of_a_login() {
        let mut output = Output::default();
        output.put_secret(Zeroizing::new(b"AUTH PLAIN c2VjcmV0\r\n".to_vec()));
        assert_eq!(format!("{output:?}"), "Output { len: 21, .. }");
    }
}
