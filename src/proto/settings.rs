//! How a session is conducted, and the bounds on what its server sends.

use super::ClientName;

/// Bounds on what a server can make the machine hold. No real server comes near the defaults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes in a line of a reply. RFC 5321 has 512, and RFC 4954 12,288 for a challenge; the default is 16 KiB.
    pub line: usize,
    /// Lines in a reply; 2,000 by default.
    pub reply_lines: usize,
    /// Bytes in a reply; 256 KiB by default.
    pub reply_bytes: usize,
    /// Challenges in a login; the longest mechanisms need three, the default is 16.
    pub challenges: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { line: 16 * 1024, reply_lines: 2000, reply_bytes: 256 * 1024, challenges: 16 }
    }
}

/// Whether to ask for TLS with STARTTLS (RFC 3207).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartTls {
    /// Not at all.
    Never,
    /// If the server offers it.
    IfOffered,
    /// It must be offered and accepted, or the session fails.
    Required,
}

/// How the machine conducts a session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The name in EHLO.
    pub client_name: ClientName,
    /// Whether to ask for TLS.
    pub starttls: StartTls,
    /// The transport is protected already, by TLS from the first byte.
    pub secure: bool,
    /// Allow a login that shows the password to whoever listens.
    pub auth_in_clear: bool,
    /// Bounds on what the server sends.
    pub limits: Limits,
}

impl Settings {
    /// No TLS, and no login without it.
    pub fn new(client_name: ClientName) -> Self {
        Settings {
            client_name,
            starttls: StartTls::Never,
            secure: false,
            auth_in_clear: false,
            limits: Limits::default(),
        }
    }
}
