//! Reads lines and writes replies.

use std::io;

use memchr::memchr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{BLOCK, ServerSession};
use crate::testing::dialogue::Turn;

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
        Ok(Some(match line.strip_suffix(b"\r\n") {
            None => Err("500 5.5.2 Line ends with LF alone"),
            Some(line) if line.iter().any(u8::is_ascii_control) => {
                Err("500 5.5.2 Control character in a command")
            }
            Some(line) => {
                String::from_utf8(line.to_vec()).map_err(|_| "500 5.5.2 Neither ASCII nor UTF-8")
            }
        }))
    }

    /// Flushes pending replies, then reads what is available. Returns `false` at EOF.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        self.flush().await?;
        self.input.reserve(BLOCK);
        Ok(self.stream.read_buf(&mut self.input).await? > 0)
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.is_new_group = true;
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
