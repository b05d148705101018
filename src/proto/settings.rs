//! The settings of a session.

use super::{ClientName, Limits};

/// When to use STARTTLS (RFC 3207).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartTls {
    /// Never.
    Never,
    /// If the server offers it.
    IfOffered,
    /// Always; the session fails if the server does not offer or accept it.
    Required,
}

/// The protocol to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// SMTP (RFC 5321): a message has one reply for all of its recipients.
    #[default]
    Smtp,
    /// LMTP (RFC 2033), for delivery into mailboxes: a message has a reply for each accepted
    /// recipient.
    Lmtp,
}

/// The settings of a session of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// The name in EHLO or LHLO.
    pub client_name: ClientName,
    /// When to use STARTTLS.
    pub starttls: StartTls,
    /// Whether the transport is already protected, by TLS from the first byte.
    pub secure: bool,
    /// Allows a login without TLS, though an eavesdropper may get the password.
    pub auth_in_clear: bool,
    /// The host and port that were connected to, which some mechanisms send to the server (RFC
    /// 7628, 3.1) or need.
    pub server: Option<(String, u16)>,
    /// The client nonce of SCRAM, printable and without a comma. `None` means a fresh random nonce
    /// for each login; anything else is only for tests and fuzzers that need reproducible bytes.
    pub nonce: Option<String>,
    /// The size of a chunk in bytes (RFC 3030), if a message is sent in several. A chunk is
    /// buffered until it is full. 256 KiB by default; more has no benefit.
    pub chunk_size: usize,
    /// Limits for what the server sends.
    pub limits: Limits,
}

impl Settings {
    /// SMTP without TLS, and without a login in clear.
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
