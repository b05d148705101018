//! The script of a dialogue: what each side does, line by line.
//!
//! `tests/support` includes this file, because the tests of the machine need it in builds without
//! the feature `testing`.

use std::fmt::{self, Write as _};

/// What one side does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The server sends these bytes.
    Server(Vec<u8>),
    /// The client sends these bytes. In a line, [`ANY`] stands for any text.
    Client(Vec<u8>),
    /// The client sends a message: after DATA up to the final dot, after BDAT the chunk.
    Message,
    /// The client sends this number of bytes of a message, and not its end.
    Body(usize),
    /// The TLS handshake.
    Tls,
    /// The server closes the connection.
    Close,
    /// The server resets the connection.
    Reset,
    /// The client closes the connection without sending anything.
    WaitClose,
    /// The client sends QUIT, which is answered, or closes the connection; RSET may come before.
    QuitOrClose,
    /// The client connects again.
    Connect,
}

/// A turn with the number of its line, from 1.
#[derive(Clone, Debug)]
pub struct Line {
    pub number: usize,
    pub turn: Turn,
}

/// Stands for any text in a line of the client.
pub const ANY: &str = "***";

/// Parses the lines of a script, which come with their numbers. The error is the number of a line
/// and what is wrong with it.
pub fn parse<'a>(
    lines: impl IntoIterator<Item = (usize, &'a str)>,
) -> Result<Vec<Line>, (usize, String)> {
    let mut script = Vec::new();
    let mut lines = lines.into_iter();
    while let Some((number, line)) = lines.next() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let mut push = |turn| script.push(Line { number, turn });
        if line != "C<<" {
            push(turn(line).map_err(|error| (number, format!("{error}: {line}")))?);
            continue;
        }
        loop {
            let Some((_, line)) = lines.next() else {
                return Err((number, "no `.` ends it: C<<".to_owned()));
            };
            push(Turn::Client(format!("{line}\r\n").into_bytes()));
            if line == "." {
                break;
            }
        }
    }
    Ok(script)
}

fn turn(line: &str) -> Result<Turn, String> {
    // A line without text may have lost its last blank.
    let (word, text) = line.split_once(' ').unwrap_or((line, ""));
    Ok(match word {
        "S:" => Turn::Server(format!("{text}\r\n").into_bytes()),
        "S*" => Turn::Server(unescape(text)?),
        "C:" => Turn::Client(format!("{text}\r\n").into_bytes()),
        "C*" => Turn::Client(unescape(text)?),
        "BODY" => Turn::Body(text.parse().map_err(|_| "not a number")?),
        "MESSAGE" if text.is_empty() => Turn::Message,
        "TLS" if text.is_empty() => Turn::Tls,
        "CLOSE" if text.is_empty() => Turn::Close,
        "RESET" if text.is_empty() => Turn::Reset,
        "WAIT-CLOSE" if text.is_empty() => Turn::WaitClose,
        "QUIT-OR-CLOSE" if text.is_empty() => Turn::QuitOrClose,
        "CONNECT" if text.is_empty() => Turn::Connect,
        _ => return Err("not a line of a script".into()),
    })
}

/// Undoes the escapes `\r`, `\n`, `\t`, `\0`, `\\` and `\xNN`.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let escape = after.chars().next().ok_or("a lone backslash at the end")?;
        let mut length = escape.len_utf8();
        bytes.push(match escape {
            'r' => b'\r',
            'n' => b'\n',
            't' => b'\t',
            '0' => b'\0',
            '\\' => b'\\',
            'x' => {
                let digits = after.get(1..3);
                // The number's parser allows a sign.
                let digits = digits.filter(|digits| !digits.starts_with('+'));
                let digits = digits.ok_or("\\x without two digits")?;
                length = 3;
                u8::from_str_radix(digits, 16).map_err(|_| "\\x without two digits")?
            }
            other => return Err(format!("no such escape: \\{other}")),
        });
        rest = &after[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

impl fmt::Display for Turn {
    /// Writes the lines of a script that stand for this turn, without the last line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Turn::Server(bytes) => write_bytes(f, 'S', bytes),
            Turn::Client(bytes) => write_bytes(f, 'C', bytes),
            Turn::Message => f.write_str("MESSAGE"),
            Turn::Body(size) => write!(f, "BODY {size}"),
            Turn::Tls => f.write_str("TLS"),
            Turn::Close => f.write_str("CLOSE"),
            Turn::Reset => f.write_str("RESET"),
            Turn::WaitClose => f.write_str("WAIT-CLOSE"),
            Turn::QuitOrClose => f.write_str("QUIT-OR-CLOSE"),
            Turn::Connect => f.write_str("CONNECT"),
        }
    }
}

fn write_bytes(f: &mut fmt::Formatter<'_>, side: char, bytes: &[u8]) -> fmt::Result {
    for (i, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if i > 0 {
            f.write_char('\n')?;
        }
        let text = line.strip_suffix(b"\r\n").map(str::from_utf8);
        match text {
            Some(Ok("")) => write!(f, "{side}:")?,
            Some(Ok(text)) if !text.contains(char::is_control) => write!(f, "{side}: {text}")?,
            _ => write!(f, "{side}* {}", Escaped(line))?,
        }
    }
    Ok(())
}

/// Bytes with the escapes that [`unescape`] undoes.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| match byte {
            b'\r' => f.write_str("\\r"),
            b'\n' => f.write_str("\\n"),
            b'\t' => f.write_str("\\t"),
            b'\0' => f.write_str("\\0"),
            b'\\' => f.write_str("\\\\"),
            b' '..=b'~' => f.write_char(char::from(*byte)),
            byte => write!(f, "\\x{byte:02x}"),
        })
    }
}
