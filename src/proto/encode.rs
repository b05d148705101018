//! Encodes commands. Text that cannot contain a line break cannot smuggle a second command.
//!
//! The types here check their text once, when they are created; [`Command`] only assembles it. The
//! machine decides when a command may be sent.

use std::borrow::Cow;
use std::fmt;

use super::ClientName;
use super::params::DeliveryOptions;
use crate::address::Address;
use crate::text::quoted;

/// A command that envoi has no method for, such as VRFY, EXPN, HELP or ETRN, as one line of
/// printable text.
///
/// ```
/// use envoi::proto::RawCommand;
///
/// assert!(RawCommand::new("VRFY alice").is_ok());
/// assert!(RawCommand::new("ETRN @example.org").is_ok());
/// assert!(RawCommand::new("NOOP\r\nMAIL FROM:<>").is_err());
/// assert!(RawCommand::new("DATA").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawCommand(String);

/// Commands that change the state of the session, which the machine would not notice. Some start a
/// transaction by another name (RFC 821), fetch a message from elsewhere (BURL, RFC 4468), or make
/// the server the client (ATRN, RFC 2645).
const MANAGED: [&str; 18] = [
    "ATRN", "AUTH", "BDAT", "BURL", "DATA", "EHLO", "HELO", "LHLO", "MAIL", "QUIT", "RCPT", "RSET",
    "SAML", "SEND", "SOML", "STARTTLS", "TURN", "X-EXPS",
];

/// The maximum length of a command line without its end (RFC 5321, 4.5.3.1.4 has 512 octets,
/// extensions add to it).
const MAX_COMMAND: usize = 2000;

impl RawCommand {
    /// Checks a command line, without its CRLF.
    ///
    /// # Errors
    ///
    /// The line has a control character, is empty or too long, or is a command that changes the
    /// state of the session, for which envoi has methods.
    pub fn new(line: impl Into<String>) -> Result<Self, RawCommandError> {
        let line = line.into();
        let verb = line
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
            .next()
            .unwrap_or_default();
        let managed = MANAGED
            .into_iter()
            .find(|managed| managed.eq_ignore_ascii_case(verb));
        let fault = if let Some(c) = line.chars().find(|c| c.is_control()) {
            CommandFault::ControlCharacter(c)
        } else if verb.is_empty() {
            CommandFault::NoVerb
        } else if line.len() > MAX_COMMAND {
            CommandFault::TooLong
        } else if let Some(managed) = managed {
            CommandFault::Managed(managed.to_owned())
        } else {
            return Ok(RawCommand(line));
        };
        // What follows AUTH may be a password.
        let line = managed.map_or(line, str::to_owned);
        Err(RawCommandError { line, fault })
    }

    /// The line without its CRLF.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A line that cannot be sent as a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawCommandError {
    line: String,
    fault: CommandFault,
}

/// Why a line cannot be sent as a command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommandFault {
    /// It contains a control character.
    ControlCharacter(char),
    /// It does not begin with a word.
    NoVerb,
    /// It is longer than 2,000 bytes.
    TooLong,
    /// The command changes the state of the session; envoi has methods for it.
    Managed(String),
}

impl RawCommandError {
    /// The line; of a command for which envoi has methods, the verb alone, as what follows AUTH is
    /// a secret.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// What is wrong with it.
    pub fn fault(&self) -> &CommandFault {
        &self.fault
    }
}

impl fmt::Display for RawCommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command {} cannot be sent: ", quoted(&self.line))?;
        match &self.fault {
            CommandFault::ControlCharacter(c) => {
                write!(f, "it contains the control character {c:?}")
            }
            CommandFault::NoVerb => f.write_str("it does not start with a word"),
            CommandFault::TooLong => write!(f, "it is longer than {MAX_COMMAND} bytes"),
            CommandFault::Managed(verb) => write!(
                f,
                "{verb} changes the state of the session, as only envoi's own methods may"
            ),
        }
    }
}

impl std::error::Error for RawCommandError {}

/// The commands of the machine, except for the lines of a login, which are secret.
pub(super) enum Command<'a> {
    Ehlo(&'a ClientName),
    Helo(&'a ClientName),
    Lhlo(&'a ClientName),
    StartTls,
    Mail {
        reverse_path: Option<&'a Address>,
        size: Option<u64>,
        /// The BODY parameter of MAIL (RFC 6152, RFC 3030).
        body: Option<&'static str>,
        utf8: bool,
        prdr: bool,
        delivery: &'a DeliveryOptions,
    },
    Rcpt {
        recipient: &'a Address,
        utf8: bool,
        delivery: &'a DeliveryOptions,
    },
    Data,
    /// A chunk of this size (RFC 3030).
    Bdat(u64),
    /// The last chunk of a message.
    BdatLast(u64),
    Rset,
    Noop,
    Quit,
    Raw(&'a RawCommand),
}

/// The line without its CRLF.
impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Ehlo(name) => write!(f, "EHLO {}", name.as_str()),
            Command::Helo(name) => write!(f, "HELO {}", name.as_str()),
            Command::Lhlo(name) => write!(f, "LHLO {}", name.as_str()),
            Command::StartTls => f.write_str("STARTTLS"),
            Command::Mail {
                reverse_path,
                size,
                body,
                utf8,
                prdr,
                delivery,
            } => {
                // No blank after the colon (RFC 5321, 4.1.1.2).
                write!(
                    f,
                    "MAIL FROM:<{}>",
                    reverse_path
                        .map(|path| ascii_or_utf8(path, *utf8))
                        .as_deref()
                        .map_or("", Address::as_str)
                )?;
                if let Some(size) = size {
                    write!(f, " SIZE={size}")?;
                }
                if let Some(body) = body {
                    write!(f, " BODY={body}")?;
                }
                if *utf8 {
                    f.write_str(" SMTPUTF8")?;
                }
                if *prdr {
                    f.write_str(" PRDR")?;
                }
                delivery.write_mail(f)
            }
            Command::Rcpt {
                recipient,
                utf8,
                delivery,
            } => {
                let spelt = ascii_or_utf8(recipient, *utf8);
                write!(f, "RCPT TO:<{spelt}>")?;
                delivery.write_rcpt(recipient, &spelt, f)
            }
            Command::Data => f.write_str("DATA"),
            Command::Bdat(size) => write!(f, "BDAT {size}"),
            Command::BdatLast(size) => write!(f, "BDAT {size} LAST"),
            Command::Rset => f.write_str("RSET"),
            Command::Noop => f.write_str("NOOP"),
            Command::Quit => f.write_str("QUIT"),
            Command::Raw(command) => f.write_str(command.as_str()),
        }
    }
}

/// With U-labels if SMTPUTF8 is used (RFC 6531, 3.3), otherwise in ASCII.
fn ascii_or_utf8(address: &Address, utf8: bool) -> Cow<'_, Address> {
    let ascii = if utf8 { None } else { address.to_ascii() };
    ascii.unwrap_or_else(|| address.to_unicode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_a_login_shows_no_password() {
        for line in ["AUTH PLAIN c2VjcmV0", "auth PLAIN c2VjcmV0\r\n"] {
            let error = RawCommand::new(line).unwrap_err();
            let shown = format!("{error} {error:?} {}", error.line());
            assert!(
                !shown.contains("c2VjcmV0") && shown.contains("AUTH"),
                "{shown}"
            );
        }
    }

    #[test]
    fn raw_commands_are_single_lines() {
        for line in [
            "",
            " NOOP",
            "NOOP\n",
            "NOOP\r\nQUIT",
            "X\0",
            "data",
            "STARTTLS",
            "Auth PLAIN",
            "MAIL\tFROM:<>",
            "RCPT TO:<a@b>",
            "turn",
            "ATRN example.org",
            "SOML FROM:<a@b>",
            "BURL imap://x LAST",
            "DATA\u{a0}",
            "\u{ff24}\u{ff21}\u{ff34}\u{ff21}",
        ] {
            assert!(RawCommand::new(line).is_err(), "{line:?}");
        }
        for line in [
            "VRFY alice",
            "VRFY j\u{f6}rg SMTPUTF8",
            "EXPN staff",
            "HELP",
            "ETRN example.org",
            "XCLIENT NAME=x",
            "DATABASE",
        ] {
            assert_eq!(RawCommand::new(line).unwrap().as_str(), line);
        }
    }
}
