//! How a session is conducted.

use super::{ClientName, Limits};

/// Whether to ask for TLS with STARTTLS (RFC 3207).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
#[non_exhaustive]
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
