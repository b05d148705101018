//! The bounds on what a server can make the machine hold or do.

use std::ops::RangeInclusive;

/// Bounds on what a server can make the machine hold. No real server comes near the defaults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes in a line of a reply, and in a challenge. RFC 5321 has 512, and RFC 4954 12,288 for a
    /// challenge; the default is 16 KiB.
    pub line: usize,
    /// Lines in a reply; 2,000 by default.
    pub reply_lines: usize,
    /// Bytes in a reply; 256 KiB by default.
    pub reply_bytes: usize,
    /// Bytes that are kept of a reply to MAIL, RCPT, DATA or a message, whose further text is left
    /// out; 4 KiB by default. A message has such a reply for each of its recipients, and they are
    /// held together: once 1 MiB of them is held, no more than 256 bytes of each further reply are
    /// kept.
    pub kept_reply_bytes: usize,
    /// Empty lines before a reply, which are skipped; 16 by default. At the end of the session in
    /// clear, when the TLS handshake is to follow, there may be none.
    pub empty_lines: usize,
    /// Challenges in a login; the longest mechanisms need three, the default is 16.
    pub challenges: usize,
    /// Rounds in which SCRAM hashes the password; 4,096 to 600,000 by default. RFC 7677, 4 asks for
    /// no fewer, as whoever answers in the server's place could try passwords that much faster. No
    /// more are recommended anywhere, and these take about half a second: a server could keep the
    /// client busy with them.
    pub scram_iterations: RangeInclusive<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            line: 16 * 1024,
            reply_lines: 2000,
            reply_bytes: 256 * 1024,
            kept_reply_bytes: 4 * 1024,
            empty_lines: 16,
            challenges: 16,
            scram_iterations: 4096..=600_000,
        }
    }
}
