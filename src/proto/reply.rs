//! Parses replies incrementally and within limits.
//!
//! This module parses the syntax of a reply (RFC 5321, 4.2) and of its enhanced status code (RFC
//! 2034, RFC 3463). It does not know which command a reply belongs to, nor what it means there.

use std::str::FromStr;
use std::sync::Arc;
use std::{fmt, mem};

use bytes::{Buf, BytesMut};
use memchr::memchr;

use super::Limits;
use super::redact::Secrets;
use crate::text::{beginning, printable_bytes};

/// A reply: its code and all its lines.
///
/// The lines are as they were sent, except that a tab becomes a blank, and control characters,
/// invisible characters and bytes that are not UTF-8 become U+FFFD. In a transaction, what exceeds
/// [`Limits::kept_reply_bytes`] is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    /// Shared by the copies, of which each recipient may have one.
    lines: Arc<Vec<String>>,
}

impl FromStr for Reply {
    type Err = ReplyError;

    /// Reads a whole reply, of which the last line needs no line end.
    ///
    /// ```
    /// let reply: envoi::proto::Reply = "550 5.1.1 No such user".parse()?;
    /// assert_eq!((reply.code(), reply.text().as_str()), (550, "No such user"));
    /// let reply: envoi::proto::Reply = "250-mail.example.org\n250 SIZE".parse()?;
    /// assert_eq!(reply.lines(), ["mail.example.org", "SIZE"]);
    /// # Ok::<(), envoi::proto::ReplyError>(())
    /// ```
    fn from_str(text: &str) -> Result<Self, ReplyError> {
        let mut input = BytesMut::from(text);
        input.extend_from_slice(b"\n");
        let reply = ReplyParser::new(Limits::default()).parse(&mut input)?;
        // What follows is one line end at most.
        reply
            .filter(|_| matches!(&input[..], b"" | b"\n"))
            .ok_or_else(|| ReplyError::NotAReply(text.to_owned()))
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Reply {
    /// Writes a map of the code, the enhanced status code and the text.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;

        let mut fields = serializer.serialize_struct("Reply", 3)?;
        fields.serialize_field("code", &self.code)?;
        let enhanced = self.enhanced().map(|code| code.to_string());
        fields.serialize_field("enhanced", &enhanced)?;
        fields.serialize_field("text", &self.text())?;
        fields.end()
    }
}

impl Reply {
    /// The three-digit code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The lines without their codes.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The text of the reply: the lines without codes and enhanced status codes, separated by line
    /// feeds.
    pub fn text(&self) -> String {
        let lines: Vec<&str> = self
            .lines
            .iter()
            .map(|line| self.split_enhanced(line).1)
            .collect();
        lines.join("\n")
    }

    /// The enhanced status code (RFC 3463), if there is one that agrees with the code.
    pub fn enhanced(&self) -> Option<EnhancedCode> {
        self.lines
            .first()
            .and_then(|line| self.split_enhanced(line).0)
    }

    /// The word in the place of the enhanced status code, if it has the form of one, of any class.
    #[cfg(feature = "client")]
    pub(crate) fn enhanced_of_any_class(&self) -> Option<EnhancedCode> {
        self.lines
            .first()
            .and_then(|line| EnhancedCode::parse(line.split(' ').next()?))
    }

    /// 2xx: success.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3xx: more input is needed.
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// 4xx: a transient failure.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5xx: a permanent failure.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// Truncates the reply to `bytes` bytes. A line counts as some more bytes than it has, so that
    /// a reply of many short lines is truncated too. The beginning of the first line always stays.
    /// Returns the size that is kept, counted in this way.
    pub(super) fn shorten(&mut self, bytes: usize) -> usize {
        const LINE: usize = 16;
        let (mut left, mut kept) = (bytes, 0);
        let lines = Arc::make_mut(&mut self.lines);
        for line in lines.iter_mut() {
            if kept > 0 && left < LINE {
                break;
            }
            kept += 1;
            left = left.saturating_sub(LINE);
            if line.len() > left {
                let end = (0..=left)
                    .rev()
                    .find(|end| line.is_char_boundary(*end))
                    .unwrap_or_default();
                line.truncate(end);
                line.push('…');
                line.shrink_to_fit();
                left = 0;
                break;
            }
            left -= line.len();
        }
        lines.truncate(kept);
        lines.shrink_to_fit();
        bytes - left
    }

    pub(super) fn redact(&mut self, secrets: &Secrets) {
        let code = self.code;
        secrets.redact_lines(Arc::make_mut(&mut self.lines).as_mut_slice(), |line| {
            split_enhanced(code, line).1
        });
    }

    fn split_enhanced<'a>(&self, line: &'a str) -> (Option<EnhancedCode>, &'a str) {
        split_enhanced(self.code, line)
    }
}

/// A code of another class than the reply's is ordinary text that looks like one (RFC 2034, 4).
fn split_enhanced(code: u16, line: &str) -> (Option<EnhancedCode>, &str) {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match EnhancedCode::parse(word) {
        Some(enhanced) if u16::from(enhanced.class) == code / 100 => {
            (Some(enhanced), rest.trim_start())
        }
        _ => (None, line),
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced() {
            write!(f, " {enhanced}")?;
        }
        for line in self.lines.iter() {
            let text = self.split_enhanced(line).1;
            if !text.is_empty() {
                write!(f, " {text}")?;
            }
        }
        Ok(())
    }
}

/// An enhanced status code, `class.subject.detail` (RFC 3463).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct EnhancedCode {
    /// The class: 2 for success, 4 for a transient failure, 5 for a permanent one.
    pub class: u8,
    /// The subject: 1 the address, 2 the mailbox, 3 the mail system, 4 the network, 5 the protocol,
    /// 6 the content, 7 policy.
    pub subject: u16,
    /// The detail within the subject.
    pub detail: u16,
}

impl EnhancedCode {
    fn parse(word: &str) -> Option<Self> {
        let number = |part: &str| {
            let digits = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse::<u16>().ok()).flatten()
        };
        let mut parts = word.split('.');
        let class = match parts.next()? {
            "2" => 2,
            "4" => 4,
            "5" => 5,
            _ => return None,
        };
        let code = EnhancedCode {
            class,
            subject: number(parts.next()?)?,
            detail: number(parts.next()?)?,
        };
        parts.next().is_none().then_some(code)
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// Whether these are the first bytes of TLS: a record's type (RFC 8446, 5.1), then the major
/// version 3.
pub(crate) fn speaks_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x14..=0x18] | [0x14..=0x18, 0x03, ..])
}

/// The maximum number of characters of a malformed line that are shown.
pub(super) const LINE_SHOWN: usize = 80;

/// Why bytes are not a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyError {
    /// A line does not start with a code from 200 to 599 and a blank, a hyphen or its end.
    NotAReply(String),
    /// The lines of a reply have different codes: the first code, and the line that differs.
    CodeChanged(u16, String),
    /// A line is longer than [`Limits::line`].
    LineTooLong(usize),
    /// A reply has more lines than [`Limits::reply_lines`].
    TooManyLines(usize),
    /// A reply is longer than [`Limits::reply_bytes`].
    ReplyTooLong(usize),
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyError::NotAReply(line) if line.is_empty() => {
                f.write_str("an empty line came, which is not an SMTP reply")
            }
            ReplyError::NotAReply(line) => write!(
                f,
                "what came is not an SMTP reply: {:?}",
                beginning(line, LINE_SHOWN)
            ),
            ReplyError::CodeChanged(code, line) => {
                write!(
                    f,
                    "a reply that began with {code} went on with {:?}",
                    beginning(line, LINE_SHOWN)
                )
            }
            ReplyError::LineTooLong(limit) => write!(
                f,
                "a line of a reply is longer than the limit of {limit} bytes"
            ),
            ReplyError::TooManyLines(limit) => {
                write!(f, "a reply has more lines than the limit of {limit}")
            }
            ReplyError::ReplyTooLong(limit) => {
                write!(f, "a reply is longer than the limit of {limit} bytes")
            }
        }
    }
}

impl std::error::Error for ReplyError {}

impl ReplyError {
    /// Redacts secrets, before `Display` truncates the line. `begun` are the lines before it.
    pub(super) fn redact(&mut self, begun: Option<&Reply>, secrets: &Secrets) {
        if let ReplyError::NotAReply(line) | ReplyError::CodeChanged(_, line) = self {
            let mut lines = begun.map(|reply| reply.lines.to_vec()).unwrap_or_default();
            lines.push(mem::take(line));
            secrets.redact_lines(&mut lines, body);
            *line = lines.pop().unwrap_or_default();
        }
    }
}

/// The text of a line, which may begin with its code.
fn body(line: &str) -> &str {
    let code = line
        .get(..3)
        .filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
    let rest = line.get(3..).and_then(|rest| {
        rest.strip_prefix([' ', '-'])
            .or(rest.is_empty().then_some(""))
    });
    let (code, text) = match (code.and_then(|code| code.parse().ok()), rest) {
        (Some(code), Some(text)) => (code, text),
        _ => (500, line),
    };
    split_enhanced(code, text).1
}

/// The lines of a partial reply and the bytes after it, as they are shown: on one line, without
/// secrets. The last line may be truncated.
pub(super) fn unfinished(begun: Option<&Reply>, rest: &[u8], secrets: &Secrets) -> String {
    let mut reply = begun.cloned().unwrap_or(Reply {
        code: 0,
        lines: Arc::default(),
    });
    let lines = Arc::make_mut(&mut reply.lines);
    let known = lines.len();
    lines.extend(rest.split(|byte| *byte == b'\n').map(printable_bytes));
    secrets.redact_lines(lines, body);
    let rest = lines.split_off(known).join("\u{FFFD}");
    let text = if begun.is_some() {
        format!("{reply} {rest}")
    } else {
        rest
    };
    beginning(&secrets.redacted_cut(text.trim_end()), LINE_SHOWN).to_owned()
}

/// Parses replies from a buffer, line by line as they arrive.
///
/// ```
/// use bytes::BytesMut;
/// use envoi::proto::{Limits, ReplyParser};
///
/// let mut parser = ReplyParser::new(Limits::default());
/// let mut input = BytesMut::from("250-mail.example.org\r\n250 SI");
/// assert_eq!(parser.parse(&mut input)?, None);
/// input.extend_from_slice(b"ZE 1000\r\n");
/// let reply = parser.parse(&mut input)?.expect("the reply is whole");
/// assert_eq!(reply.lines(), ["mail.example.org", "SIZE 1000"]);
/// # Ok::<(), envoi::proto::ReplyError>(())
/// ```
#[derive(Debug)]
pub struct ReplyParser {
    limits: Limits,
    /// The partial reply.
    partial: Option<Reply>,
    /// Its length so far.
    bytes: usize,
    /// The number of bytes of the input without a line end.
    scanned: usize,
    /// The number of empty lines since the last reply.
    empty_lines: usize,
}

impl ReplyParser {
    /// Creates a parser.
    pub fn new(limits: Limits) -> Self {
        ReplyParser {
            limits,
            partial: None,
            bytes: 0,
            scanned: 0,
            empty_lines: 0,
        }
    }

    /// Whether some but not all lines of a reply have been parsed.
    pub fn is_mid_reply(&self) -> bool {
        self.partial.is_some()
    }

    /// The lines of a partial reply.
    pub(super) fn begun(&self) -> Option<&Reply> {
        self.partial.as_ref()
    }

    /// A partial 421, whose remaining lines will not arrive once the input has ended.
    pub(super) fn unterminated_421(&self, input: &[u8]) -> Option<Reply> {
        let mut reply = self.partial.clone().unwrap_or_else(|| Reply {
            code: 421,
            lines: Arc::default(),
        });
        let (code, text) = input.split_at_checked(3).unwrap_or_default();
        if code == b"421" && matches!(text, [] | [b' ' | b'-' | b'\r', ..]) {
            Arc::make_mut(&mut reply.lines).push(printable_bytes(
                text.get(1..).unwrap_or_default().trim_ascii_end(),
            ));
        }
        (reply.code == 421 && !reply.lines.is_empty()).then_some(reply)
    }

    /// Parses the next reply if it is complete, and leaves what follows in `input`. Up to
    /// [`Limits::empty_lines`] empty lines before it are skipped. `input` must continue where the
    /// last call left it.
    ///
    /// # Errors
    ///
    /// [`ReplyError`], after which the parser cannot be used.
    pub fn parse(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, ReplyError> {
        while let Some(end) = self.line_end(input)? {
            let line = &input[..end];
            // A bare LF also ends a line: some servers send no CR, and neither has any other use in
            // a reply.
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let is_skipped = line.is_empty()
                && self.partial.is_none()
                && self.empty_lines < self.limits.empty_lines;
            let taken = if is_skipped {
                self.empty_lines += 1;
                Ok(false)
            } else {
                self.take_line(line, end + 1)
            };
            input.advance(end + 1);
            if taken? {
                (self.bytes, self.empty_lines) = (0, 0);
                return Ok(self.partial.take());
            }
        }
        Ok(None)
    }

    fn line_end(&mut self, input: &BytesMut) -> Result<Option<usize>, ReplyError> {
        let end = memchr(b'\n', &input[self.scanned..]).map(|found| self.scanned + found);
        if end.unwrap_or(input.len()) > self.limits.line {
            return Err(ReplyError::LineTooLong(self.limits.line));
        }
        self.scanned = if end.is_some() { 0 } else { input.len() };
        Ok(end)
    }

    /// Adds a line to the reply. Returns whether it is the last one.
    fn take_line(&mut self, line: &[u8], length: usize) -> Result<bool, ReplyError> {
        let (code, is_last) = match line {
            [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] => {
                let digit = |d: &u8| u16::from(d - b'0');
                let code = digit(a) * 100 + digit(b) * 10 + digit(c);
                match rest {
                    [] | [b' ', ..] => (code, true),
                    [b'-', ..] => (code, false),
                    _ => return Err(ReplyError::NotAReply(printable_bytes(line))),
                }
            }
            _ => return Err(ReplyError::NotAReply(printable_bytes(line))),
        };
        let reply = self.partial.get_or_insert_with(|| Reply {
            code,
            // Most replies have one line.
            lines: Arc::new(Vec::with_capacity(1)),
        });
        if reply.code != code {
            return Err(ReplyError::CodeChanged(reply.code, printable_bytes(line)));
        }
        self.bytes += length;
        if self.bytes > self.limits.reply_bytes {
            return Err(ReplyError::ReplyTooLong(self.limits.reply_bytes));
        }
        if reply.lines.len() == self.limits.reply_lines {
            return Err(ReplyError::TooManyLines(self.limits.reply_lines));
        }
        Arc::make_mut(&mut reply.lines).push(printable_bytes(line.get(4..).unwrap_or_default()));
        Ok(is_last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::*;

    fn parse(bytes: &str) -> Result<Option<Reply>, ReplyError> {
        let mut input = BytesMut::from(bytes);
        ReplyParser::new(Limits::default()).parse(&mut input)
    }

    fn reply(bytes: &str) -> Reply {
        parse(bytes).unwrap().unwrap()
    }

    #[test]
    fn common_forms_of_replies_are_accepted() {
        assert_eq!(reply("250 ok\r\n").text(), "ok");
        assert_eq!(reply("250\r\n").text(), "");
        assert_eq!(reply("250 \r\n").text(), "");
        assert_eq!(reply("250 ok\n").text(), "ok");
        assert_eq!(
            reply("250-a\r\n250-\r\n250-b\r\n250\r\n").lines(),
            ["a", "", "b", ""]
        );
        assert_eq!(reply("599 x\r\n").code(), 599);
        assert_eq!(parse("250-a\r\n").unwrap(), None);
        assert_eq!(parse("250 a\r").unwrap(), None);
        for (bytes, is_mid_reply) in [
            ("250-a\r\n25", true),
            ("250-a\r\n250 b\r\n", false),
            ("250-a", false),
        ] {
            let mut parser = ReplyParser::new(Limits::default());
            let _ = parser.parse(&mut BytesMut::from(bytes)).unwrap();
            assert_eq!(parser.is_mid_reply(), is_mid_reply, "{bytes:?}");
        }
    }

    #[test]
    fn a_long_reply_is_shortened() {
        let shortened = |bytes: &str, limit| {
            let mut reply = reply(bytes);
            reply.shorten(limit);
            (
                reply.lines().to_vec(),
                reply.enhanced().map(|code| code.to_string()),
            )
        };
        let lines = "550-5.1.1 first\r\n550-5.1.1 second\r\n550 5.1.1 third\r\n";
        assert_eq!(
            shortened(lines, 1000),
            (reply(lines).lines().to_vec(), Some("5.1.1".into()))
        );
        assert_eq!(shortened(lines, 60).0, ["5.1.1 first", "5.1.1 second"]);
        assert_eq!(shortened(lines, 48).0, ["5.1.1 first", "5.1.1…"]);
        assert_eq!(
            shortened(lines, 30),
            (vec!["5.1.1 first".into()], Some("5.1.1".into()))
        );
        assert_eq!(shortened("250 h\u{e4}h\u{e4}\r\n", 18).0, ["h…"]);
        assert_eq!(shortened("250\r\n", 0).0, [""]);
        assert_eq!(
            shortened(&("250-\r\n".repeat(500) + "250 \r\n"), 160)
                .0
                .len(),
            10
        );
        // What is left out uses no memory either.
        let mut long = reply(&format!("250 {}\r\n", "x".repeat(4000)));
        assert_eq!(long.shorten(100), 100);
        assert!(
            long.lines[0].capacity() < 200,
            "{}",
            long.lines[0].capacity()
        );
    }

    #[test]
    fn enhanced_codes_are_parsed() {
        let enhanced = |bytes| reply(bytes).enhanced().map(|code| code.to_string());
        assert_eq!(
            enhanced("550 5.1.1 no such user\r\n").as_deref(),
            Some("5.1.1")
        );
        assert_eq!(enhanced("250 2.0.0\r\n").as_deref(), Some("2.0.0"));
        assert_eq!(enhanced("452 4.2.2 full\r\n").as_deref(), Some("4.2.2"));
        assert_eq!(
            enhanced("550 5.7.139 blocked\r\n").as_deref(),
            Some("5.7.139")
        );
        for none in [
            "550 4.1.1 x\r\n",
            "250 2.0 x\r\n",
            "250 2.0.0.0 x\r\n",
            "250 2.0.1000 x\r\n",
            "250 2..0 x\r\n",
            "354 3.0.0 x\r\n",
        ] {
            assert_eq!(enhanced(none), None, "{none}");
        }
        let refusal = reply("550-5.7.1 first\r\n550 5.7.1 second\r\n");
        assert_eq!(refusal.text(), "first\nsecond");
        assert_eq!(refusal.to_string(), "550 5.7.1 first second");
    }

    #[test]
    fn malformed_replies_are_refused() {
        for (bytes, fault) in [
            ("hello\r\n", "not an SMTP reply"),
            (&"\r\n".repeat(17), "an empty line came"),
            ("250-a\r\n\r\n", "an empty line came"),
            ("25 x\r\n", "not an SMTP reply"),
            ("250x\r\n", "not an SMTP reply"),
            ("150 x\r\n", "not an SMTP reply"),
            ("600 x\r\n", "not an SMTP reply"),
            ("HTTP/1.1 400 Bad Request\r\n", "HTTP/1.1"),
            ("250-a\r\n251 b\r\n", "began with 250"),
        ] {
            assert!(
                parse(bytes).unwrap_err().to_string().contains(fault),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn limits_hold_in_any_cut() {
        let limits = Limits {
            line: 20,
            reply_lines: 3,
            reply_bytes: 50,
            ..Limits::default()
        };
        for (bytes, expected) in [
            (
                format!("250 {}\r\n", "x".repeat(16)),
                Err(ReplyError::LineTooLong(20)),
            ),
            (format!("250 {}\r\n", "x".repeat(15)), Ok(true)),
            (
                "250-\r\n".repeat(3) + "250 \r\n",
                Err(ReplyError::TooManyLines(3)),
            ),
            ("250-\r\n".repeat(2) + "250 \r\n", Ok(true)),
            (
                format!("250-{0}\r\n250-{0}\r\n250 {0}xx\r\n", "x".repeat(10)),
                Ok(true),
            ),
            (
                format!("250-{0}\r\n250-{0}\r\n250 {0}xxx\r\n", "x".repeat(10)),
                Err(ReplyError::ReplyTooLong(50)),
            ),
        ] {
            let mut whole = ReplyParser::new(limits.clone());
            let at_once = whole
                .parse(&mut BytesMut::from(bytes.as_str()))
                .map(|reply| reply.is_some());
            let (mut split, mut input, mut one_by_one) =
                (ReplyParser::new(limits.clone()), BytesMut::new(), Ok(false));
            for byte in bytes.bytes() {
                input.extend_from_slice(&[byte]);
                one_by_one = split.parse(&mut input).map(|reply| reply.is_some());
                if one_by_one.is_err() {
                    break;
                }
            }
            assert_eq!(at_once, expected, "{bytes:?}");
            assert_eq!(one_by_one, expected, "{bytes:?}");
        }
    }

    #[test]
    fn control_characters_in_replies_are_replaced() {
        assert_eq!(
            reply("550 \u{1b}[2Jgone\u{7}\r\n").text(),
            "\u{FFFD}[2Jgone\u{FFFD}"
        );
        assert_eq!(
            reply("250 \u{202e}dehcaerton\u{2069}\r\n").text(),
            "\u{FFFD}dehcaerton\u{FFFD}"
        );
        let mut input = BytesMut::from(&b"550 caf\xe9\r\n"[..]);
        let latin1 = ReplyParser::new(Limits::default())
            .parse(&mut input)
            .unwrap()
            .unwrap();
        assert_eq!(latin1.text(), "caf\u{FFFD}");
    }

    proptest! {
        /// Also lines that consist of codes and blanks.
        #[test]
        fn a_redacted_reply_keeps_its_lines(lines in prop::collection::vec("[25]?[. \
            0-9-]{0,7}(secr| ?et)?", 0..6), rest in "[-0-9 a-z\n]{0,20}") {
            let mut secrets = Secrets::default();
            secrets.add(Zeroizing::new("secret".into()));
            let mut reply = Reply { code: 550, lines: lines.into() };
            let shown = unfinished(Some(&reply), rest.as_bytes(), &secrets);
            let number = reply.lines.len();
            reply.redact(&secrets);
            prop_assert_eq!(reply.lines.len(), number);
            prop_assert!(!reply.text().replace('\n', "").contains("secret"));
            prop_assert!(!shown.contains("secret"));
        }
    }
}
