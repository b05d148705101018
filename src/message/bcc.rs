//! A Bcc header never leaves the machine: it is cut out of the bytes of every message.

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

/// The fields that name hidden recipients (RFC 5322, 3.6.3 and 3.6.6).
const HIDDEN: [&[u8]; 2] = [b"bcc", b"resent-bcc"];

/// Passes a message through without its Bcc and Resent-Bcc fields, whatever pieces it comes in.
///
/// It looks at the header section alone, with the line ends that the wire will have: a lone CR or LF
/// ends a line too. It holds back no more than a field name cut in two.
#[derive(Clone, Debug)]
pub(super) struct BccFilter {
    in_headers: bool,
    /// The next byte starts a line.
    at_line_start: bool,
    /// The line before ended with CR, so that an LF now belongs to it.
    after_cr: bool,
    /// The line, or the one before, belongs to a hidden field.
    hides: bool,
    /// The start of a line, too short to tell what field it is.
    held: Vec<u8>,
    hidden_lines: u64,
}

/// Bytes that stay.
pub(super) struct Kept {
    pub(super) bytes: Bytes,
    /// How many of them, at the front, are of the header section.
    pub(super) headers: usize,
}

impl BccFilter {
    pub(super) fn new() -> Self {
        BccFilter {
            in_headers: true,
            at_line_start: true,
            after_cr: false,
            hides: false,
            held: Vec::new(),
            hidden_lines: 0,
        }
    }

    /// The header section has not ended.
    pub(super) fn in_headers(&self) -> bool {
        self.in_headers
    }

    /// How many lines were cut out since this was asked last.
    pub(super) fn take_hidden_lines(&mut self) -> u64 {
        std::mem::take(&mut self.hidden_lines)
    }

    /// The next run of bytes that stay, taken from the front of the input; `None` when the input is used up.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Option<Kept> {
        if !self.held.is_empty() && !input.is_empty() {
            let mut joined = BytesMut::with_capacity(self.held.len() + input.len());
            joined.extend_from_slice(&self.held);
            joined.extend_from_slice(input);
            self.held.clear();
            *input = joined.freeze();
        }
        if !self.in_headers {
            return kept(std::mem::take(input), 0);
        }
        // `keep` bytes at the front stay. While a hidden field is skipped, it is 0.
        let mut keep = 0;
        while let Some(&first) = input.get(keep) {
            if self.at_line_start {
                let ends_line_before = std::mem::take(&mut self.after_cr) && first == b'\n';
                if ends_line_before {
                    self.pass(1, input, &mut keep);
                    continue;
                }
                match first {
                    b'\r' | b'\n' => {
                        self.in_headers = false;
                        if self.hides && first == b'\n' {
                            // After what was cut out, an LF could join a lone CR, and the blank line be gone.
                            drop(input.split_to(1));
                            return kept(Bytes::from_static(b"\r\n"), 0);
                        }
                        return kept(std::mem::take(input), keep);
                    }
                    b' ' | b'\t' => {} // A folded line shares the fate of the one before (RFC 5322, 2.2.3).
                    _ => match is_hidden(&input[keep..]) {
                        Some(true) if keep > 0 => return kept(input.split_to(keep), keep),
                        Some(hides) => self.hides = hides,
                        None => {
                            self.held = input[keep..].to_vec();
                            self.hides = false;
                            input.truncate(keep);
                            break;
                        }
                    },
                }
                self.at_line_start = false;
            }
            let rest = &input[keep..];
            let end = memchr2(b'\r', b'\n', rest);
            let length = end.map_or(rest.len(), |end| end + 1);
            if let Some(end) = end {
                self.at_line_start = true;
                self.after_cr = rest[end] == b'\r';
                self.hidden_lines += u64::from(self.hides);
            }
            self.pass(length, input, &mut keep);
        }
        kept(std::mem::take(input), keep)
    }

    /// What was held back, when the message ends there.
    pub(super) fn end(&mut self) -> Option<Kept> {
        let held = std::mem::take(&mut self.held);
        kept(held.into(), usize::MAX)
    }

    fn pass(&self, length: usize, input: &mut Bytes, keep: &mut usize) {
        match self.hides {
            true => drop(input.split_to(length)),
            false => *keep += length,
        }
    }
}

/// Nothing is kept of no bytes.
fn kept(bytes: Bytes, headers: usize) -> Option<Kept> {
    (!bytes.is_empty()).then_some(Kept { headers: headers.min(bytes.len()), bytes })
}

/// Whether a line starts a hidden field; `None` where it is too short to tell.
fn is_hidden(line: &[u8]) -> Option<bool> {
    for name in HIDDEN {
        let length = name.len().min(line.len());
        if line[..length].eq_ignore_ascii_case(&name[..length]) {
            // Blanks before the colon are an obsolete form that is still read (RFC 5322, 4.5.3).
            return line.get(name.len()).map(|next| matches!(next, b':' | b' ' | b'\t'));
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(pieces: &[&[u8]]) -> Vec<u8> {
        let mut filter = BccFilter::new();
        let mut output = Vec::new();
        for piece in pieces {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(kept) = filter.next(&mut input) {
                output.extend_from_slice(&kept.bytes);
            }
            assert!(input.is_empty());
            assert!(filter.held.len() <= 10);
        }
        output.extend(filter.end().into_iter().flat_map(|kept| kept.bytes));
        output
    }

    const CASES: &[(&str, &str)] = &[
        ("", ""),
        ("Bcc: x\r\n", ""),
        ("Bcc: x", ""),
        ("Bcc", "Bcc"),
        ("Bc", "Bc"),
        ("\r\nBcc: x\r\n", "\r\nBcc: x\r\n"),
        ("To: a\r\nBcc: x\r\nCc: b\r\n\r\nBcc: stays\r\n", "To: a\r\nCc: b\r\n\r\nBcc: stays\r\n"),
        ("bcc: x\r\n y\r\n\tz\r\nTo: a\r\n\r\n", "To: a\r\n\r\n"),
        ("To: a\r\n b\r\nBCC: x\r\n y\r\n\r\nbody", "To: a\r\n b\r\n\r\nbody"),
        ("Subject: x\rBcc: y\n\nbody\n", "Subject: x\r\r\nbody\n"),
        ("Resent-Bcc : x\nTo: a\n\nbody\n", "To: a\n\nbody\n"),
        ("Subject: x\rBcc: y\rTo: a\r\rBcc: stays", "Subject: x\rTo: a\r\rBcc: stays"),
        ("Bcc: x\r\nBcc: y\r\nResent-BCC: z\r\n\r\n", "\r\n"),
        ("Bccx: stays\r\nX-Bcc: stays\r\nResent-To: a\r\n", "Bccx: stays\r\nX-Bcc: stays\r\nResent-To: a\r\n"),
        ("Bcc: x\r\n \r\nTo: a\r\n", "To: a\r\n"),
        ("To: a\r\r\nBcc: stays\r\n", "To: a\r\r\nBcc: stays\r\n"),
    ];

    #[test]
    fn bcc_goes_in_any_cut() {
        for (message, expected) in CASES {
            let bytes = message.as_bytes();
            let expected = expected.as_bytes();
            assert_eq!(filtered(&[bytes]), expected, "{message:?}");
            assert_eq!(filtered(&bytes.chunks(1).collect::<Vec<_>>()), expected, "{message:?}, byte by byte");
            for cut in 0..bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                assert_eq!(filtered(&[head, b"", tail]), expected, "{message:?}, cut at {cut}");
            }
        }
    }
}
