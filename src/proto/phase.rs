//! The phases of a session.

use std::fmt;

/// The phase of a session. Each phase has its own time-out (RFC 5321, 4.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Before any connection: checking the message, the settings and the files.
    Setup,
    /// Resolving the host and connecting.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The greeting.
    Greeting,
    /// EHLO or HELO and its reply.
    Hello,
    /// STARTTLS and its reply.
    StartTls,
    /// The login.
    Auth,
    /// MAIL: the sender.
    Mail,
    /// RCPT: a recipient.
    Rcpt,
    /// DATA and its reply.
    Data,
    /// Sending the message.
    Body,
    /// Waiting for the hand-over: for the caller, who decides whether the end of the message may be
    /// written. Only the deadline limits it.
    Handover,
    /// Waiting for the final reply to the message.
    EndOfData,
    /// RSET.
    Reset,
    /// NOOP.
    Noop,
    /// Another command.
    Command,
    /// QUIT.
    Quit,
}

impl Phase {
    /// The phase as a lower-case word, for logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Setup => "setup",
            Phase::Connect => "connect",
            Phase::Tls => "tls",
            Phase::Greeting => "greeting",
            Phase::Hello => "ehlo",
            Phase::StartTls => "starttls",
            Phase::Auth => "auth",
            Phase::Mail => "mail",
            Phase::Rcpt => "rcpt",
            Phase::Data => "data",
            Phase::Body => "body",
            Phase::Handover => "hand-over",
            Phase::EndOfData => "end-of-data",
            Phase::Reset => "rset",
            Phase::Noop => "noop",
            Phase::Command => "command",
            Phase::Quit => "quit",
        }
    }

    /// Whether the server decides about a message in this phase, not about the session.
    #[cfg(any(feature = "failover", feature = "journal", feature = "mx"))]
    pub(crate) fn is_of_message(self) -> bool {
        match self {
            Phase::Mail
            | Phase::Rcpt
            | Phase::Data
            | Phase::Body
            | Phase::Handover
            | Phase::EndOfData => true,
            Phase::Setup
            | Phase::Connect
            | Phase::Tls
            | Phase::Greeting
            | Phase::Hello
            | Phase::StartTls
            | Phase::Auth
            | Phase::Reset
            | Phase::Noop
            | Phase::Command
            | Phase::Quit => false,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
