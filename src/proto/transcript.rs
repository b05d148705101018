//! The dialogue in readable form: bounded, without secrets and without the message.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::Reply;
use crate::text::{beginning, to_printable};

/// The number of lines kept from the beginning of a session, and of the most recent ones.
const HEAD: usize = 2 * BLOCK;
const TAIL: usize = 6 * BLOCK;
/// The number of lines in a block, which copies share.
const BLOCK: usize = 50;
/// The maximum number of characters shown of a line, and of lines shown of a reply.
const LINE: usize = 400;
const REPLY_LINES: usize = 60;

/// Notes that `testing` reads to play a dialogue. The last three are followed by a text.
pub(crate) const CONNECTION_ENDED: &str = "the connection ended";
#[cfg(feature = "client")]
pub(crate) const ANOTHER_CONNECTION: &str = "another connection";
pub(crate) const NOT_A_REPLY: &str = "not a reply: ";
pub(crate) const UNFINISHED_REPLY: &str = "an unfinished reply: ";
pub(crate) const UNREAD: &str = "too early: ";

/// The dialogue of a session, for a log or a support request. Secrets are redacted, the message is
/// not included, and the middle of a long session is left out. `Display` writes one line for each
/// line of the dialogue. A copy is cheap: it shares the lines, except for the last few.
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
    /// Blocks of lines that are full: first those of the head, then as many as the tail needs.
    blocks: VecDeque<Arc<str>>,
    /// The number of blocks that were dropped between the head and the tail.
    dropped: usize,
    /// The lines after the blocks, fewer than a block has.
    recent: String,
    recent_lines: usize,
}

impl Transcript {
    /// The lines in order. If some were left out, a line states how many.
    pub fn lines(&self) -> impl Iterator<Item = Cow<'_, str>> + '_ {
        let blocks = self.blocks.iter().map(|block| &**block);
        let mut lines = blocks.chain([&*self.recent]).flat_map(str::lines);
        let omitted = self.omitted();
        let head: Vec<&str> = lines.by_ref().take(HEAD).collect();
        let gap = (omitted > 0).then(|| Cow::from(format!("-- {omitted} lines left out")));
        // Of the first block after the head, the last lines may belong to the tail.
        let tail = lines.skip(omitted - self.dropped * BLOCK);
        let head = head.into_iter().map(Cow::from);
        head.chain(gap).chain(tail.map(Cow::from))
    }

    /// The number of lines between the head and the tail.
    fn omitted(&self) -> usize {
        let all = (self.blocks.len() + self.dropped) * BLOCK + self.recent_lines;
        all.saturating_sub(HEAD + TAIL)
    }

    /// Whether there are no lines.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.recent.is_empty()
    }

    /// Adds a remark about an event between the lines.
    pub(crate) fn note(&mut self, text: &str) {
        self.push(format_args!("-- "), text);
    }

    pub(super) fn client(&mut self, line: &str) {
        self.push(format_args!("C: "), line);
    }

    pub(super) fn server(&mut self, reply: &Reply) {
        let (code, last) = (reply.code(), reply.lines().len().saturating_sub(1));
        for (i, line) in reply.lines().iter().enumerate().take(REPLY_LINES) {
            let mark = if i == last { ' ' } else { '-' };
            self.push(format_args!("S: {code}{mark}"), line);
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
        self.append(&later);
    }

    /// Appends the dialogue of another connection.
    #[cfg(feature = "client")]
    pub(crate) fn append(&mut self, later: &Transcript) {
        if !self.is_empty() && !later.is_empty() {
            let _ = writeln!(self.recent, "-- {ANOTHER_CONNECTION}");
            self.end_line();
        }
        for line in later.lines() {
            let _ = writeln!(self.recent, "{line}");
            self.end_line();
        }
    }

    fn push(&mut self, before: fmt::Arguments<'_>, text: &str) {
        #[cfg(feature = "tracing")]
        let start = self.recent.len();
        let text = to_printable(text.into());
        let shown = beginning(&text, LINE);
        let _ = self.recent.write_fmt(before);
        self.recent.push_str(shown);
        if shown.len() < text.len() {
            self.recent.push('…');
        }
        #[cfg(feature = "tracing")]
        tracing::debug!(target: "envoi::dialogue", "{}", &self.recent[start..]);
        self.recent.push('\n');
        self.end_line();
    }

    /// Counts a line that was added, with its line end.
    fn end_line(&mut self) {
        self.recent_lines += 1;
        if self.recent_lines < BLOCK {
            return;
        }
        self.blocks.push_back(self.recent.as_str().into());
        self.recent.clear();
        self.recent_lines = 0;
        if self.blocks.len() > (HEAD + TAIL) / BLOCK {
            self.blocks.remove(HEAD / BLOCK);
            self.dropped += 1;
        }
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
