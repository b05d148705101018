//! Limits for what a server can make the machine store or do.

use std::ops::RangeInclusive;

/// Limits for what a server can make the machine store. No real server comes near the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The maximum length of a line of a reply, and of a challenge, in bytes. RFC 5321 has 512, and
    /// RFC 4954 has 12,288 for a challenge; the default is 16 KiB.
    pub line: usize,
    /// The maximum number of lines in a reply; 2,000 by default.
    pub reply_lines: usize,
    /// The maximum size of a reply in bytes; 256 KiB by default.
    pub reply_bytes: usize,
    /// The maximum size in bytes that is kept of a reply to MAIL, RCPT, DATA or a message; the rest
    /// of its text is left out. 4 KiB by default. A message has such a reply for each of its
    /// recipients, and they are kept together: once 1 MiB of them is kept, at most 256 bytes of
    /// each further reply are.
    pub kept_reply_bytes: usize,
    /// The maximum number of empty lines before a reply, which are skipped; 16 by default. None are
    /// allowed before the TLS handshake of STARTTLS.
    pub empty_lines: usize,
    /// The maximum number of challenges in a login; the longest mechanisms need three, the default
    /// is 16.
    pub challenges: usize,
    /// The range of SCRAM iterations; 4,096 to 600,000 by default. RFC 7677, 4 requires the
    /// minimum: with fewer, a server that impersonates the real one could guess passwords that much
    /// faster. No recommendation exceeds the maximum, which takes about half a second: with more, a
    /// server could keep the client busy.
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
