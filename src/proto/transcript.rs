//! The dialogue in readable form: bounded, without secrets and without the message.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::Reply;
use crate::text::{beginning, printable};

/// The number of lines kept from the beginning of a session, and of the most recent ones.
const HEAD: usize = 100;
const TAIL: usize = 300;
/// The maximum number of characters shown of a line, and of lines shown of a reply.
const LINE: usize = 400;
const REPLY_LINES: usize = 60;

/// The dialogue of a session, for a log or a support request. Secrets are redacted, the message is
/// not included, and the middle of a long session is left out. `Display` writes one line for each
/// line of the dialogue.
///
/// ```text
/// S: 220 mail.example.org ESMTP
/// C: EHLO client.example.org
/// S: 250-mail.example.org
/// S: 250 AUTH PLAIN LOGIN
/// C: AUTH PLAIN ***
/// S: 235 2.7.0 Authentication successful
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// Shared with the copies in receipts.
    head: Vec<Arc<str>>,
    omitted: usize,
    tail: VecDeque<Arc<str>>,
}

impl Transcript {
    /// The lines in order. If some were left out, a line states how many.
    pub fn lines(&self) -> impl Iterator<Item = Arc<str>> + '_ {
        let gap = (self.omitted > 0).then(|| format!("-- {} lines left out", self.omitted).into());
        self.head
            .iter()
            .cloned()
            .chain(gap)
            .chain(self.tail.iter().cloned())
    }

    /// Whether there are no lines.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Adds a remark about an event between the lines.
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
            self.note(&format!(
                "{} more lines of this reply",
                last + 1 - REPLY_LINES
            ));
        }
    }

    /// Prepends the dialogue of another connection.
    #[cfg(feature = "client")]
    pub(crate) fn precede(&mut self, earlier: &Transcript) {
        let later = std::mem::replace(self, earlier.clone());
        later.lines().for_each(|line| self.keep(line));
    }

    fn push(&mut self, who: &str, text: &str) {
        let text = printable(text);
        let start = beginning(&text, LINE);
        let line = format!(
            "{who} {start}{}",
            if start.len() < text.len() { "…" } else { "" }
        );
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

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::{Limits, ReplyParser};
    use super::*;

    #[test]
    fn a_long_transcript_is_shortened_in_the_middle() {
        let mut transcript = Transcript::default();
        (0..1000).for_each(|n| transcript.client(&format!("NOOP {n}")));
        let lines: Vec<_> = transcript.lines().collect();
        assert_eq!(lines.len(), HEAD + 1 + TAIL);
        assert_eq!(&*lines[0], "C: NOOP 0");
        assert_eq!(&*lines[HEAD], "-- 600 lines left out");
        assert_eq!(&**lines.last().unwrap(), "C: NOOP 999");
    }

    #[test]
    fn a_short_transcript_is_complete() {
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
            transcript.server(
                &ReplyParser::new(Limits::default())
                    .parse(&mut bytes)
                    .unwrap()
                    .unwrap(),
            );
            transcript.to_string()
        };
        assert_eq!(said(1), "S: 250 1\n");
        assert_eq!(said(3), "S: 250-1\nS: 250-2\nS: 250 3\n");
        assert!(said(REPLY_LINES).ends_with("S: 250 60\n"));
        assert!(said(REPLY_LINES + 2).ends_with("S: 250-60\n-- 2 more lines of this reply\n"));
    }
}
