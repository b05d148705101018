//! How a session is conducted, and the bounds on what its server sends.

use std::ops::RangeInclusive;

use super::ClientName;

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

/// Which protocol is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// SMTP (RFC 5321): the reply to a message holds for all of its recipients.
    #[default]
    Smtp,
    /// LMTP (RFC 2033), for delivery into mailboxes: after a message comes a reply for each
    /// recipient that was accepted before.
    Lmtp,
}

/// How the machine conducts a session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// SMTP, or LMTP.
    pub protocol: Protocol,
    /// The name in EHLO or LHLO.
    pub client_name: ClientName,
    /// Whether to ask for TLS.
    pub starttls: StartTls,
    /// The transport is protected already, by TLS from the first byte.
    pub secure: bool,
    /// Allow a login without TLS, though whoever listens may get the password from it.
    pub auth_in_clear: bool,
    /// The host that was connected to and its port, which some mechanisms tell the server (RFC
    /// 7628, 3.1) or need to know.
    pub server: Option<(String, u16)>,
    /// The client's nonce in SCRAM, printable and without a comma. `None`, as it must be but in
    /// tests and fuzzers that want the same bytes again: a fresh random one for each login.
    pub nonce: Option<String>,
    /// How many bytes a chunk has (RFC 3030), where a message goes as several. So much of it is
    /// held until the chunk is full. 256 KiB by default; more gains nothing.
    pub chunk_size: usize,
    /// Bounds on what the server sends.
    pub limits: Limits,
}

impl Settings {
    /// SMTP without TLS, and no login without it.
    pub fn new(client_name: ClientName) -> Self {
        Settings {
            protocol: Protocol::Smtp,
            client_name,
            starttls: StartTls::Never,
            secure: false,
            auth_in_clear: false,
            server: None,
            nonce: None,
            chunk_size: 256 * 1024,
            limits: Limits::default(),
        }
    }
}
