//! What went over the wire, as the strictest server reads it: commands, messages behind DATA, and
//! chunks behind BDAT. It knows nothing of the machine that wrote it.

use std::collections::BTreeMap;
use std::ops::Range;

pub enum Said<'a> {
    Command(&'a str),
    /// A message behind DATA, as far as it went.
    Message(&'a [u8]),
    Chunk(Chunk<'a>),
    /// A command without its end, behind which nothing went.
    Cut(&'a [u8]),
}

/// A chunk as BDAT announced it, and as far as it went (RFC 3030).
#[derive(Clone, Copy)]
pub struct Chunk<'a> {
    pub size: usize,
    pub is_last: bool,
    pub bytes: &'a [u8],
}

/// All that was said, with its place. Where the messages behind DATA stand is told by the server's
/// replies, so it must be given.
pub fn read<'a>(wire: &'a [u8], messages: &[Range<usize>]) -> Vec<(usize, Said<'a>)> {
    let (mut said, mut at) = (Vec::new(), 0);
    while at < wire.len() {
        let begins_at = at;
        if let Some(message) = messages.iter().find(|message| message.start == at) {
            at = message.end.min(wire.len());
            said.push((begins_at, Said::Message(&wire[begins_at..at])));
            continue;
        }
        let Some(length) = wire[at..].windows(2).position(|pair| pair == b"\r\n") else {
            said.push((begins_at, Said::Cut(&wire[at..])));
            break;
        };
        let command = std::str::from_utf8(&wire[at..at + length]).expect("commands are text");
        at += length + 2;
        if let Some(announced) = command.strip_prefix("BDAT ") {
            let (number, is_last) = announced
                .strip_suffix(" LAST")
                .map_or((announced, false), |number| (number, true));
            let size = number.parse().expect("BDAT has a size, and perhaps LAST");
            let bytes = &wire[at..wire.len().min(at + size)];
            at += bytes.len();
            said.push((
                begins_at,
                Said::Chunk(Chunk {
                    size,
                    is_last,
                    bytes,
                }),
            ));
        } else {
            said.push((begins_at, Said::Command(command)));
        }
    }
    said
}

/// A transaction as it went.
pub struct Went<'a> {
    /// MAIL and all RCPT.
    pub mail: &'a str,
    pub rcpts: Vec<&'a str>,
    pub chunks: Vec<Chunk<'a>>,
    pub message: Option<&'a [u8]>,
    /// RSET went behind it, or the lone dot that is an empty message.
    pub is_dropped: bool,
}

/// The transactions among all that was said.
pub fn transactions<'a>(said: &[(usize, Said<'a>)]) -> Vec<Went<'a>> {
    let mut transactions: Vec<Went> = Vec::new();
    for (_, said) in said {
        match said {
            Said::Command(mail) if mail.starts_with("MAIL ") => transactions.push(Went {
                mail,
                rcpts: Vec::new(),
                chunks: Vec::new(),
                message: None,
                is_dropped: false,
            }),
            Said::Command(command) => {
                let Some(went) = transactions.last_mut() else {
                    continue;
                };
                went.is_dropped |= matches!(*command, "RSET" | ".");
                if command.starts_with("RCPT ") {
                    went.rcpts.push(command);
                }
            }
            Said::Message(bytes) => {
                transactions
                    .last_mut()
                    .expect("a message has a sender")
                    .message = Some(bytes)
            }
            Said::Chunk(chunk) => transactions
                .last_mut()
                .expect("a chunk has a sender")
                .chunks
                .push(*chunk),
            Said::Cut(_) => {}
        }
    }
    transactions
}

/// The parameters behind the path of MAIL or RCPT (RFC 5321, 4.1.2): each with one blank before it,
/// none twice.
pub fn parameters(text: &str) -> BTreeMap<&str, &str> {
    let mut found = BTreeMap::new();
    if text.is_empty() {
        return found;
    }
    for parameter in text
        .strip_prefix(' ')
        .expect("a blank stands before each")
        .split(' ')
    {
        let (keyword, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        assert!(
            !keyword.is_empty()
                && keyword
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        );
        assert!(!parameter.ends_with('='), "{parameter:?} has no value");
        assert!(
            value
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'='),
            "{parameter:?}"
        );
        assert!(
            found.insert(keyword, value).is_none(),
            "{keyword} stands there twice"
        );
    }
    found
}

/// The text that was written as xtext (RFC 3461, 4).
pub fn from_xtext(text: &str) -> String {
    let mut pieces = text.split('+');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).expect("two digits behind +"));
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).expect("it was text")
}

/// The address behind `utf-8;` in ORCPT (RFC 6533, 3).
pub fn from_utf8_xtext(text: &str) -> String {
    assert!(
        !text.contains('+'),
        "it has another meaning in xtext: {text:?}"
    );
    let mut pieces = text.split(r"\x{");
    let mut decoded = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (digits, rest) = piece.split_once('}').expect("a brace behind the digits");
        decoded.push(
            u32::from_str_radix(digits, 16)
                .ok()
                .and_then(char::from_u32)
                .expect("a character"),
        );
        assert!(
            !rest.contains('\\'),
            "a backslash of the address itself: {text:?}"
        );
        decoded.push_str(rest);
    }
    decoded
}
