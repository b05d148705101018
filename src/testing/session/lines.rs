//! Reads lines and writes replies.

use std::io;

use bytes::Buf as _;
use memchr::memchr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{BLOCK, PART, ServerSession};
use crate::testing::dialogue::Turn;
use crate::testing::record::UNREADABLE;

/// The maximum length of a line: what RFC 4954, 4 requires of a server with AUTH, far above RFC
/// 5321, 4.5.3.1.4.
const LINE_LIMIT: usize = 12_288;

impl ServerSession {
    /// Reads the next line without its CRLF, or returns the reply to an invalid one; `None` at EOF.
    pub(super) async fn line(&mut self) -> io::Result<Option<Result<String, &'static str>>> {
        let mut searched = 0;
        let mut is_too_long = false;
        let end = loop {
            if let Some(found) = memchr(b'\n', &self.input[searched..]) {
                break searched + found;
            }
            if self.input.len() > LINE_LIMIT {
                is_too_long = true;
                self.input.clear();
            }
            searched = self.input.len();
            if !self.fill().await? {
                return Ok(None);
            }
        };
        let line = self.input.split_to(end + 1);
        if is_too_long || line.len() > LINE_LIMIT {
            return Ok(Some(Err("500 5.5.2 Line too long")));
        }
        Ok(Some(checked(&line)))
    }

    /// Records the commands that have arrived, and that a session which ends does not execute.
    pub(super) fn record_rest(&mut self) {
        let mut rest = Vec::new();
        while let Some(end) = memchr(b'\n', &self.input) {
            let line = self.input.split_to(end + 1);
            let Ok(line) = checked(&line) else {
                rest.push(UNREADABLE.to_owned());
                continue;
            };
            rest.push(shown(&line));
            let mut words = line.split(' ');
            if words
                .next()
                .is_some_and(|verb| verb.eq_ignore_ascii_case("BDAT"))
                && let Some(size) = words.next().and_then(|size| size.parse().ok())
            {
                if self.input.len() < size {
                    self.record_turn(PART);
                    self.input.clear();
                    break;
                }
                self.input.advance(size);
            }
        }
        self.server.log().sessions[self.number].not_executed = rest;
    }

    /// Flushes pending replies, then reads what is available. Returns `false` at EOF.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        self.flush().await?;
        self.input.reserve(BLOCK);
        Ok(self.stream.read_buf(&mut self.input).await? > 0)
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            // What has arrived before the reply was sent belongs to the last group.
            self.is_new_group = self.input.is_empty();
            self.record_turn(Turn::Server(self.output.clone()));
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await?;
            self.output.clear();
        }
        Ok(())
    }

    /// Queues a reply. Its enhanced status codes (RFC 3463) are removed if the extension is not
    /// offered.
    pub(super) fn reply(&mut self, reply: &str) {
        let has_codes = self.server.offers("ENHANCEDSTATUSCODES");
        for line in reply.lines() {
            let is_code = |word: &str| {
                word.split('.').count() == 3
                    && word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.'))
            };
            match line.get(4..).and_then(|rest| rest.split_once(' ')) {
                Some((word, text)) if !has_codes && is_code(word) => {
                    self.output.extend_from_slice(&line.as_bytes()[..4]);
                    self.output.extend_from_slice(text.as_bytes());
                }
                _ => self.output.extend_from_slice(line.as_bytes()),
            }
            self.output.extend_from_slice(b"\r\n");
        }
    }
}

/// The line without its CRLF, or the reply to an invalid one.
fn checked(line: &[u8]) -> Result<String, &'static str> {
    match line.strip_suffix(b"\r\n") {
        None => Err("500 5.5.2 Line ends with LF alone"),
        Some(line) if line.iter().any(u8::is_ascii_control) => {
            Err("500 5.5.2 Control character in a command")
        }
        Some(line) => {
            String::from_utf8(line.to_vec()).map_err(|_| "500 5.5.2 Neither ASCII nor UTF-8")
        }
    }
}

/// A command as it is recorded, without the data of AUTH.
pub(super) fn shown(line: &str) -> String {
    let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
    match argument.split_once(' ') {
        Some((mechanism, _)) if verb.eq_ignore_ascii_case("AUTH") => {
            format!("AUTH {mechanism} ***")
        }
        _ => line.to_owned(),
    }
}
