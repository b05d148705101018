//! Dialogues in text files, and a server that plays them.

mod script;
mod server;
mod transcript;

use std::error::Error;
use std::fmt;
use std::str::FromStr;

pub use server::ScriptedServer;

use script::Line;
pub(super) use script::{ANY, Turn};
pub(super) use transcript::general;

/// A session as text: what the server sends, and what the client must send.
///
/// It comes from a file, from the transcript of a [`Receipt`](crate::Receipt) or an
/// [`Error`](crate::Error), or from a [`Session`](super::Session) with the server for tests.
/// `Display` writes it as a file, and a [`ScriptedServer`] plays it.
///
/// ```
/// use envoi::mail_builder::MessageBuilder;
/// use envoi::testing::{Dialogue, ScriptedServer};
/// use envoi::{Client, ErrorKind};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dialogue: Dialogue = "
/// ## Recipients are refused one at a time.
/// S: 220 mail.example.org ESMTP
/// C: EHLO ***
/// S: 250 mail.example.org
/// C: MAIL FROM:<alice@example.org>
/// S: 250 2.1.0 Ok
/// C: RCPT TO:<bob@example.com>
/// S: 550 5.1.1 No such user
/// QUIT-OR-CLOSE
/// "
/// .parse()?;
/// let server = ScriptedServer::start(&dialogue).await?;
/// let mail = MessageBuilder::new()
///     .from("alice@example.org")
///     .to("bob@example.com")
///     .text_body("Hello.");
/// let error = Client::from_url(&server.url())?.send(mail).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Refused);
/// server.finish().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Format
///
/// | Line | Meaning |
/// |---|---|
/// | `S: TEXT` | the server sends this line and CRLF |
/// | `S* TEXT` | the server sends this text, with escapes, and no CRLF |
/// | `C: TEXT` | the client sends this line and CRLF; `***` stands for any text |
/// | `C* TEXT` | the client sends this text, with escapes, and no CRLF |
/// | `C<<` | the client sends the lines that follow, up to and including the line `.` |
/// | `MESSAGE` | the client sends a message: after DATA up to the final dot, after BDAT the chunk |
/// | `BODY N` | the client sends N bytes of a message, and not its end |
/// | `TLS` | the TLS handshake |
/// | `CLOSE`, `RESET` | the server closes or resets the connection |
/// | `WAIT-CLOSE` | the client closes the connection without sending anything |
/// | `QUIT-OR-CLOSE` | the client may send RSET, then sends QUIT or closes the connection |
/// | `CONNECT` | the client connects again |
///
/// Escapes are `\r`, `\n`, `\t`, `\0`, `\\` and `\xNN`. Empty lines are ignored, and lines that
/// begin with `#`. Lines such as `tls: required` may come before the script and are ignored, too:
/// they are settings of the client in envoi's own tests.
///
/// Consecutive lines of one side are one group. The server sends its group at once. The client must
/// send its group without waiting for a reply in between, which is pipelining (RFC 2920), and
/// nothing more before the server's next group.
#[derive(Clone, Debug)]
pub struct Dialogue {
    lines: Vec<Line>,
}

/// Why a text is not a dialogue, or what a client did that is not in a dialogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialogueError {
    line: Option<usize>,
    message: String,
}

impl DialogueError {
    fn at((line, message): (usize, String)) -> Self {
        DialogueError {
            line: Some(line),
            message,
        }
    }

    /// The number of the line, from 1; `None` for what happened after the last one.
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for DialogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => write!(f, "at the end: {}", self.message),
        }
    }
}

impl Error for DialogueError {}

impl FromStr for Dialogue {
    type Err = DialogueError;

    fn from_str(text: &str) -> Result<Self, DialogueError> {
        let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
        let script = lines.skip_while(|(_, line)| is_setting(line));
        let lines = script::parse(script).map_err(DialogueError::at)?;
        if lines.is_empty() {
            return Err(DialogueError::at((
                1,
                "the dialogue has no script".to_owned(),
            )));
        }
        Ok(Dialogue { lines })
    }
}

/// Whether this is a line that may come before a script: a setting, a comment, or an empty line.
fn is_setting(line: &str) -> bool {
    let is_key = |(key, _): (&str, &str)| {
        key.starts_with(|c: char| c.is_ascii_lowercase())
            && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
    };
    line.starts_with('#') || line.trim().is_empty() || line.split_once(": ").is_some_and(is_key)
}

impl fmt::Display for Dialogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines
            .iter()
            .try_for_each(|line| writeln!(f, "{}", line.turn))
    }
}

impl Dialogue {
    /// Converts a [`Transcript`](crate::proto::Transcript), or its text from a bug report.
    ///
    /// `***` stands for what differs when the dialogue is played: the client's name, the size of
    /// the message, and credentials. `MESSAGE` is in place of the message, which transcripts do not
    /// include. After the last reply, the client may send RSET and QUIT. A failed TLS handshake
    /// becomes the end of the connection.
    ///
    /// What was sent in the middle of a message, before an early reply, is not known: it becomes
    /// the first byte of the message.
    ///
    /// # Errors
    ///
    /// The text has a line that is not one of a transcript, or the transcript is not complete: of
    /// a long session, it lacks the lines in the middle.
    ///
    /// ```
    /// use envoi::mail_builder::MessageBuilder;
    /// use envoi::testing::{Dialogue, ScriptedServer, Server};
    /// use envoi::{Client, Message};
    ///
    /// fn mail() -> MessageBuilder<'static> {
    ///     MessageBuilder::new()
    ///         .from("alice@example.org")
    ///         .to("bob@example.com")
    ///         .text_body("Hello.")
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let builder = Server::builder().answer(|line| (line == ".").then(|| "451 Busy".into()));
    /// let server = builder.start().await?;
    /// let error = Client::from_url(&server.url())?.send(mail()).await.unwrap_err();
    /// let transcript = &error.receipt().unwrap().transcript;
    ///
    /// // The server is not needed any more.
    /// let dialogue = Dialogue::from_transcript(transcript)?;
    /// let server = ScriptedServer::start(&dialogue).await?;
    /// let again = Client::from_url(&server.url())?.send(mail()).await.unwrap_err();
    /// assert_eq!(again.reply(), error.reply());
    /// server.finish().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_transcript(transcript: impl fmt::Display) -> Result<Self, DialogueError> {
        let lines = transcript::convert(&transcript.to_string()).map_err(DialogueError::at)?;
        Ok(Dialogue { lines })
    }

    /// Makes a dialogue of turns, whose lines have the numbers that `Display` gives them.
    pub(super) fn from_turns(turns: impl IntoIterator<Item = Turn>) -> Self {
        let mut lines = Vec::new();
        for turn in turns {
            let number = lines.len() + 1;
            match turn {
                Turn::Server(bytes) => {
                    let each = bytes.split_inclusive(|byte| *byte == b'\n').enumerate();
                    lines.extend(each.map(|(i, line)| Line {
                        number: number + i,
                        turn: Turn::Server(line.into()),
                    }));
                }
                turn => lines.push(Line { number, turn }),
            }
        }
        Dialogue { lines }
    }

    /// Removes the logins: AUTH and its replies. The dialogue can then be played to a client that
    /// does not log in.
    ///
    /// A login with SCRAM needs this, unless the server refused it at once: each side proves that
    /// it knows the password, by a number that the client chooses anew for each login.
    #[must_use]
    pub fn without_login(mut self) -> Self {
        let mut in_login = false;
        self.lines.retain(|line| match &line.turn {
            Turn::Client(command) => {
                in_login |= is_auth(command);
                !in_login
            }
            Turn::Server(reply) if in_login => {
                in_login = reply.starts_with(b"334") || reply.get(3) == Some(&b'-');
                false
            }
            _ => true,
        });
        self
    }

    /// The number of the line that begins a login which depends on a number of the client.
    fn unplayable_login(&self) -> Option<usize> {
        let mut login = None;
        let mut is_hidden = false;
        for line in &self.lines {
            match &line.turn {
                Turn::Client(command) => {
                    if is_auth(command) {
                        login = command[5..].starts_with(b"SCRAM-").then_some(line.number);
                    }
                    is_hidden = command.ends_with(format!("{ANY}\r\n").as_bytes());
                }
                Turn::Server(reply) if is_hidden && login.is_some() => {
                    if reply.starts_with(b"334") {
                        return login;
                    }
                    login = None;
                }
                _ => {}
            }
        }
        None
    }

    /// The mechanisms with which the client logs in.
    fn mechanisms(&self) -> Vec<String> {
        let mut mechanisms = Vec::new();
        for line in &self.lines {
            if let Turn::Client(command) = &line.turn
                && is_auth(command)
            {
                let words = String::from_utf8_lossy(&command[5..]);
                let name = words
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                if !mechanisms.contains(&name) {
                    mechanisms.push(name);
                }
            }
        }
        mechanisms
    }

    /// Whether a command of the client begins with this verb.
    fn has_command(&self, verb: &str) -> bool {
        self.lines.iter().any(|line| match &line.turn {
            Turn::Client(command) => command.starts_with(verb.as_bytes()),
            _ => false,
        })
    }
}

fn is_auth(command: &[u8]) -> bool {
    command
        .get(..5)
        .is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "))
}
