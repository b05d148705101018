//! Where in a session something happens.

use std::fmt;

/// Where in the session something happened. Each phase has a time limit of its own (RFC 5321,
/// 4.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Before any connection: the message, the settings, the files are looked at.
    Setup,
    /// The host is looked up and connected to.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The server's first reply.
    Greeting,
    /// EHLO or HELO and its answer.
    Hello,
    /// The STARTTLS command and its answer.
    StartTls,
    /// The login.
    Auth,
    /// MAIL: the sender.
    Mail,
    /// RCPT: a recipient.
    Rcpt,
    /// DATA, up to the go-ahead.
    Data,
    /// The message itself goes out.
    Body,
    /// The message is out, its final reply is awaited.
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
    /// The phase as one lower-case word, as logs and JSON have it.
    pub fn as_str(self) -> &'static str {
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
            Phase::EndOfData => "end-of-data",
            Phase::Reset => "rset",
            Phase::Noop => "noop",
            Phase::Command => "command",
            Phase::Quit => "quit",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
