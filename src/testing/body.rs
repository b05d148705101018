//! Decodes a message sent with DATA: removes dot-stuffing and finds the end.
//!
//! Independent of the client's dot-stuffing, so that each is a check on the other.

use memchr::memchr2;

/// Removes dot-stuffing (RFC 5321, 4.5.2) from pieces of any size.
#[derive(Default)]
pub(super) struct Decoder {
    position: Position,
    pub(super) bare_line_ends: bool,
}

/// The position at the end of the last piece.
#[derive(Clone, Copy, Default)]
enum Position {
    /// After CRLF, or at the start of the message.
    #[default]
    LineStart,
    /// After a dot at the start of a line.
    Dot,
    /// After a dot and a CR at the start of a line.
    DotCr,
    Line,
    /// In a line, after a CR that has been passed on.
    Cr,
}

impl Decoder {
    /// Appends the decoded message to `message`. If the final dot is in `input`, returns how many
    /// of its bytes belong to the message and its end; the rest are commands.
    pub(super) fn decode(&mut self, input: &[u8], message: &mut Vec<u8>) -> Option<usize> {
        let mut i = 0;
        while i < input.len() {
            match (self.position, input[i]) {
                (Position::LineStart, b'.') => {
                    self.position = Position::Dot;
                    i += 1;
                }
                (Position::Dot, b'\r') => {
                    self.position = Position::DotCr;
                    i += 1;
                }
                (Position::DotCr, b'\n') => return Some(i + 1),
                // The dot was stuffing. A CR without LF after it belongs to the line.
                (Position::DotCr, _) => {
                    message.push(b'\r');
                    self.bare_line_ends = true;
                    self.position = Position::Line;
                }
                (Position::Cr, b'\n') => {
                    message.push(b'\n');
                    self.position = Position::LineStart;
                    i += 1;
                }
                (Position::Cr, _) => {
                    self.bare_line_ends = true;
                    self.position = Position::Line;
                }
                (Position::LineStart | Position::Dot | Position::Line, _) => {
                    let end = i + self.lines(&input[i..]);
                    message.extend_from_slice(&input[i..end]);
                    i = end;
                }
            }
        }
        None
    }

    /// The number of bytes, starting within a line, that belong to the message unchanged: up to a
    /// line that starts with a dot.
    fn lines(&mut self, input: &[u8]) -> usize {
        let mut i = 0;
        while let Some(found) = memchr2(b'\r', b'\n', &input[i..]) {
            i += found;
            if input[i] == b'\n' {
                // Not a line end (RFC 5321, 2.3.8): a dot after it is neither stuffing nor the end.
                self.bare_line_ends = true;
                i += 1;
                continue;
            }
            match input.get(i + 1) {
                None => {
                    self.position = Position::Cr;
                    return input.len();
                }
                Some(b'\n') => match input.get(i + 2) {
                    None | Some(b'.') => {
                        self.position = Position::LineStart;
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
        self.position = Position::Line;
        input.len()
    }
}
