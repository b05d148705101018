//! The message as DATA brings it → the message: dots taken out, its end found.
//!
//! Written apart from the client's own stuffing, so that each is a check on the other.

use memchr::memchr2;

/// Takes the stuffing out (RFC 5321, 4.5.2), in pieces of any size.
#[derive(Default)]
pub(super) struct Decoder {
    at: At,
    pub(super) bare_line_ends: bool,
}

/// Where the last piece ended.
#[derive(Clone, Copy, Default)]
enum At {
    /// Behind CRLF, or at the beginning of it all.
    #[default]
    LineStart,
    /// A dot stands at the start of the line.
    Dot,
    /// A dot and a CR do.
    DotCr,
    Line,
    /// In a line, behind a CR that has been passed on.
    Cr,
}

impl Decoder {
    /// Appends what belongs to the message to `message`. Where the final dot is in `input`, says
    /// how many of its bytes belong to the message and its end; what is behind them are commands.
    pub(super) fn decode(&mut self, input: &[u8], message: &mut Vec<u8>) -> Option<usize> {
        let mut i = 0;
        while i < input.len() {
            match (self.at, input[i]) {
                (At::LineStart, b'.') => {
                    self.at = At::Dot;
                    i += 1;
                }
                (At::Dot, b'\r') => {
                    self.at = At::DotCr;
                    i += 1;
                }
                (At::DotCr, b'\n') => return Some(i + 1),
                // The dot was stuffing. A CR without LF behind it was the line's.
                (At::DotCr, _) => {
                    message.push(b'\r');
                    self.bare_line_ends = true;
                    self.at = At::Line;
                }
                (At::Cr, b'\n') => {
                    message.push(b'\n');
                    self.at = At::LineStart;
                    i += 1;
                }
                (At::Cr, _) => {
                    self.bare_line_ends = true;
                    self.at = At::Line;
                }
                (At::LineStart | At::Dot | At::Line, _) => {
                    let end = i + self.lines(&input[i..]);
                    message.extend_from_slice(&input[i..end]);
                    i = end;
                }
            }
        }
        None
    }

    /// How many bytes, from the middle of a line on, are part of the message as they are: up to a
    /// line that starts with a dot.
    fn lines(&mut self, input: &[u8]) -> usize {
        let mut i = 0;
        while let Some(found) = memchr2(b'\r', b'\n', &input[i..]) {
            i += found;
            if input[i] == b'\n' {
                // Not the end of a line (RFC 5321, 2.3.8): a dot behind it is no stuffing, and ends
                // nothing.
                self.bare_line_ends = true;
                i += 1;
                continue;
            }
            match input.get(i + 1) {
                None => {
                    self.at = At::Cr;
                    return input.len();
                }
                Some(b'\n') => match input.get(i + 2) {
                    None | Some(b'.') => {
                        self.at = At::LineStart;
                        return i + 2;
                    }
                    Some(_) => i += 2,
                },
                Some(_) => {
                    self.bare_line_ends = true;
                    i += 1;
                }
            }
        }
        self.at = At::Line;
        input.len()
    }
}
