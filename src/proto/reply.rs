//! Bytes → [`Reply`]: incremental and bounded.
//!
//! This module knows the form of a reply (RFC 5321, 4.2) and of its enhanced status code (RFC 3463,
//! RFC 2034); which command a reply answers, and what it means there, it does not know.

use std::fmt;

/// A server's reply: its code and all its lines.
///
/// Its text is shown as it came, but for control characters, which could do harm on a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    lines: Vec<String>,
}

/// An enhanced status code, `class.subject.detail` (RFC 3463).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnhancedCode {
    /// 2 for success, 4 for a failure that may pass, 5 for one that lasts.
    pub class: u8,
    /// What it is about: 1 the address, 2 the mailbox, 3 the mail system, 4 the network, 5 the protocol, 6 the content, 7 policy.
    pub subject: u16,
    /// The detail within the subject.
    pub detail: u16,
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl Reply {
    /// The three-digit code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The lines without their codes, as they came.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// 2xx: done.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3xx: go on.
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// 4xx: not now.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5xx: no.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        for line in &self.lines {
            write!(f, " {line}")?;
        }
        Ok(())
    }
}
