//! The dialogue as people read it: bounded, without secrets, without the message.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::Reply;

/// Lines that are kept from the beginning of a session, and the newest ones.
const HEAD: usize = 100;
const TAIL: usize = 300;
/// What is shown of a line, and of the lines of one reply.
const LINE: usize = 400;
const REPLY_LINES: usize = 60;

/// What both sides said, for a log or a support request. Secrets are replaced, the message is not in it, and a long session
/// is cut in the middle. Its `Display` is one line for each line of the dialogue.
///
/// ```text
/// S: 220 mail.example.org ESMTP
/// C: EHLO client.example.org
/// S: 250-mail.example.org
/// S: 250 AUTH PLAIN LOGIN
/// C: AUTH PLAIN ***
/// S: 235 2.7.0 Authentication successful
/// ```
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    /// Shared with the receipts that have a copy.
    head: Vec<Arc<str>>,
    omitted: usize,
    tail: VecDeque<Arc<str>>,
}

impl Transcript {
    /// The lines, in order; where some were left out, one says how many.
    pub fn lines(&self) -> impl Iterator<Item = Arc<str>> + '_ {
        let gap = (self.omitted > 0).then(|| format!("-- {} lines left out", self.omitted).into());
        self.head.iter().cloned().chain(gap).chain(self.tail.iter().cloned())
    }

    /// Nothing was said.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Something that happened between the lines.
    pub(crate) fn note(&mut self, text: &str) {
        self.push("--", text);
    }

    pub(super) fn client(&mut self, line: &str) {
        self.push("C:", line);
    }

    pub(super) fn server(&mut self, reply: &Reply) {
        let last = reply.lines().len().saturating_sub(1);
        for (i, line) in reply.lines().iter().enumerate().take(REPLY_LINES) {
            let mark = if i == last { ' ' } else { '-' };
            self.push("S:", &format!("{}{mark}{line}", reply.code()));
        }
        if last >= REPLY_LINES {
            self.note(&format!("{} more lines of this reply", last + 1 - REPLY_LINES));
        }
    }

    /// The dialogue of another connection goes before this one.
    #[cfg(feature = "client")]
    pub(crate) fn precede(&mut self, earlier: &Transcript) {
        let later = std::mem::replace(self, earlier.clone());
        later.lines().for_each(|line| self.keep(line));
    }

    fn push(&mut self, who: &str, text: &str) {
        let line = match text.char_indices().nth(LINE) {
            Some((cut, _)) => format!("{who} {}…", &text[..cut]),
            None => format!("{who} {text}"),
        };
        #[cfg(feature = "tracing")]
        tracing::debug!(target: "envoi::dialogue", "{line}");
        self.keep(line.into());
    }

    fn keep(&mut self, line: Arc<str>) {
        if self.head.len() < HEAD {
            return self.head.push(line);
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
            self.omitted += 1;
        }
        self.tail.push_back(line);
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// What must not be shown, though a server may echo it.
#[derive(Default)]
pub(crate) struct Secrets(Vec<Zeroizing<String>>);

/// A shorter secret would be found in innocent words.
const SHORTEST: usize = 4;

impl Secrets {
    /// In messages, words of the server's are quoted, and some characters escaped; what they quote may be JSON, and escaped itself.
    pub(crate) fn add(&mut self, secret: Zeroizing<String>) {
        let once = escaped(&secret);
        let twice = escaped(&once);
        for form in [secret, once, twice] {
            if form.len() >= SHORTEST && !self.0.contains(&form) {
                // The longest first: one may be a part of another, whose rest would be left then.
                let at = self.0.partition_point(|other| other.len() >= form.len());
                self.0.insert(at, form);
            }
        }
    }

    /// The same, and its forms in base64: what it is by itself, and what stays the same of it in the midst of other bytes.
    pub(crate) fn add_with_base64(&mut self, secret: &str) {
        self.add(Zeroizing::new(secret.to_owned()));
        for form in [Zeroizing::new(secret.to_owned()), escaped(secret)] {
            self.add(Zeroizing::new(BASE64.encode(&*form)));
            for before in 0..3 {
                // Six bits to a character: those at the ends are shared with the neighbours.
                let bytes = Zeroizing::new([&[0; 2][..before], form.as_bytes()].concat());
                let encoded = Zeroizing::new(BASE64.encode(&bytes));
                let own = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
                self.add(Zeroizing::new(encoded.get(own).unwrap_or_default().to_owned()));
            }
        }
    }

    /// The text with stars for secrets, if it holds one.
    pub(crate) fn redacted(&self, text: &str) -> Option<String> {
        let mut redacted = None;
        for secret in &self.0 {
            let shown: &str = redacted.as_deref().unwrap_or(text);
            if shown.contains(secret.as_str()) {
                redacted = Some(shown.replace(secret.as_str(), "***"));
            }
        }
        redacted
    }
}

/// As `Debug` writes it between its quotes.
fn escaped(text: &str) -> Zeroizing<String> {
    // With room for all of it, no half of a secret is left behind.
    let mut quoted = Zeroizing::new(String::with_capacity(10 * text.len() + 2));
    let _ = write!(quoted, "{text:?}");
    Zeroizing::new(quoted[1..quoted.len() - 1].to_owned())
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::{Limits, ReplyParser};
    use super::*;

    #[test]
    fn a_long_session_is_cut_in_the_middle() {
        let mut transcript = Transcript::default();
        (0..1000).for_each(|n| transcript.client(&format!("NOOP {n}")));
        let lines: Vec<_> = transcript.lines().collect();
        assert_eq!(lines.len(), HEAD + 1 + TAIL);
        assert_eq!(&*lines[0], "C: NOOP 0");
        assert_eq!(&*lines[HEAD], "-- 600 lines left out");
        assert_eq!(&**lines.last().unwrap(), "C: NOOP 999");
    }

    #[test]
    fn nothing_is_left_out_of_what_fits() {
        let mut transcript = Transcript::default();
        assert!(transcript.is_empty());
        (0..HEAD + TAIL).for_each(|n| transcript.client(&format!("NOOP {n}")));
        assert!(!transcript.is_empty());
        assert_eq!(transcript.lines().count(), HEAD + TAIL);
        assert!(transcript.lines().all(|line| line.starts_with("C: NOOP")));
    }

    #[test]
    fn a_reply_is_shown_line_by_line() {
        let said = |lines: usize| {
            let text: String = (1..lines).map(|n| format!("250-{n}\r\n")).collect();
            let mut bytes = BytesMut::from(format!("{text}250 {lines}\r\n").as_str());
            let mut transcript = Transcript::default();
            transcript.server(&ReplyParser::new(Limits::default()).parse(&mut bytes).unwrap().unwrap());
            transcript.to_string()
        };
        assert_eq!(said(1), "S: 250 1\n");
        assert_eq!(said(3), "S: 250-1\nS: 250-2\nS: 250 3\n");
        assert!(said(REPLY_LINES).ends_with("S: 250 60\n"));
        assert!(said(REPLY_LINES + 2).ends_with("S: 250-60\n-- 2 more lines of this reply\n"));
    }

    #[test]
    fn echoed_secrets_are_replaced() {
        let mut secrets = Secrets::default();
        secrets.add(Zeroizing::new("hunter2".into()));
        secrets.add(Zeroizing::new("a".into()));
        assert_eq!(secrets.redacted("bad password hunter2, hunter2").unwrap(), "bad password ***, ***");
        assert_eq!(secrets.redacted("a bad password"), None);
        // A part of another one leaves nothing of that.
        secrets.add(Zeroizing::new("ter2".into()));
        assert_eq!(secrets.redacted("hunter2 or ter2").unwrap(), "*** or ***");

        secrets.add_with_base64("se\"cret\\");
        for (echo, shown) in [
            ("se\"cret\\".to_owned(), "***"),
            // As a message quotes it.
            (format!("{:?}", "se\"cret\\"), "\"***\""),
            (BASE64.encode("se\"cret\\"), "***"),
        ] {
            assert_eq!(secrets.redacted(&echo).as_deref(), Some(shown), "{echo}");
        }
        // In the midst of other bytes, all characters go that are of the secret alone; so many are left before and behind them.
        for (before, behind, left) in
            [("", ".", (0, 2)), ("a", "", (2, 0)), ("ab", "c", (3, 3)), ("abcd", "ef", (6, 4))]
        {
            let echo = BASE64.encode(format!("{before}se\"cret\\{behind}"));
            let shown = format!("{}***{}", &echo[..left.0], &echo[echo.len() - left.1..]);
            assert_eq!(secrets.redacted(&echo), Some(shown), "{echo}");
        }
    }
}
