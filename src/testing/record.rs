//! What a test can inspect: received messages and sessions.

use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::assertions::{assert_addresses, assert_contains, assert_lines, assert_message};
use super::dialogue::{ANY, Dialogue, Turn, general};

/// A message that the server accepted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReceivedMessage {
    /// The queue id in the reply.
    pub id: String,
    /// The index of the connection in [`Server::connections`](super::Server::connections).
    pub connection: usize,
    /// The name that the client sent with EHLO, HELO or LHLO.
    pub helo: String,
    /// The TLS version of the connection, such as `TLSv1.3`; `None` for plaintext.
    pub tls: Option<String>,
    /// The user that is logged in.
    pub login: Option<String>,
    /// The envelope sender; `None` for the null path, `<>`.
    pub reverse_path: Option<String>,
    /// The parameters of MAIL as sent: `SIZE=1234`, `BODY=8BITMIME`.
    pub parameters: Vec<String>,
    /// The recipients for which the server accepted the message.
    pub recipients: Vec<String>,
    /// The parameters of RCPT for each of the recipients as sent: `NOTIFY=SUCCESS`.
    pub recipient_parameters: Vec<Vec<String>>,
    /// The message's size in bytes, without dot-stuffing and the final dot.
    pub size: u64,
    /// The message had a CR or LF that was not part of a CRLF, which RFC 5321, 2.3.8 forbids.
    pub bare_line_ends: bool,
    pub(super) file: Arc<MessageFile>,
}

/// In [`Session::groups`]: a line that is too long, or contains bytes that are not allowed.
pub(super) const UNREADABLE: &str = "<unreadable>";

/// The file of a message, which is deleted when this is dropped.
#[derive(Debug)]
pub(super) struct MessageFile {
    path: PathBuf,
    /// Deleted after its last file.
    _folder: Arc<TempDir>,
}

impl MessageFile {
    /// The file for the message with this queue id; it is not created.
    pub(super) fn new(folder: Arc<TempDir>, id: &str) -> Self {
        MessageFile {
            path: folder.path().join(format!("{id}.eml")),
            _folder: folder,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for MessageFile {
    fn drop(&mut self) {
        // It does not exist if messages are discarded. What remains is deleted with the folder.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl ReceivedMessage {
    /// Returns the message without dot-stuffing and the final dot.
    ///
    /// # Errors
    ///
    /// The file cannot be read; with [`Builder::discard`](super::Builder::discard) it does not
    /// exist.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        std::fs::read(self.file.path())
    }

    /// Takes the message apart: subject, texts, attachments (feature `testing-parse`).
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    #[cfg(feature = "testing-parse")]
    pub fn parse(&self) -> io::Result<super::ParsedMessage> {
        Ok(super::ParsedMessage::new(&self.read()?))
    }

    /// The file that [`read`](Self::read) reads, for messages that are too large for memory. It
    /// exists as long as this value, a clone of it, or the server.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Checks the recipients, in any order and without regard to case.
    ///
    /// # Panics
    ///
    /// If they differ; the text lists what is missing and what is not expected.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use envoi::{Client, mail_builder::MessageBuilder, testing::Server};
    /// let server = Server::start().await?;
    /// let mail = MessageBuilder::new()
    ///     .from("me@example.org")
    ///     .to(vec!["alice@example.com", "bob@example.com"])
    ///     .subject("Hello")
    ///     .text_body("Dear Alice,\nhello.");
    /// Client::from_url(&server.url())?.send(mail).await?;
    /// let message = server.next_message().await;
    /// message.assert_recipients(["bob@example.com", "alice@example.com"]);
    /// message.assert_contains("Subject: Hello\n");
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn assert_recipients<'a>(&self, expected: impl IntoIterator<Item = &'a str>) {
        assert_addresses(expected, self.recipients.iter().map(String::as_str));
    }

    /// Checks that the message contains this text. A line end of the text, LF or CRLF, is one of
    /// the message.
    ///
    /// # Panics
    ///
    /// If it does not, with the message; or if the message cannot be read.
    #[track_caller]
    pub fn assert_contains(&self, text: &str) {
        assert_contains(&self.bytes(), text);
    }

    /// Checks the whole message, header and body, line by line. The line ends of the text may be LF
    /// or CRLF.
    ///
    /// # Panics
    ///
    /// If it differs, with the lines that differ; or if the message cannot be read.
    #[track_caller]
    pub fn assert_message(&self, expected: &str) {
        assert_message(&self.bytes(), expected);
    }

    #[track_caller]
    fn bytes(&self) -> Vec<u8> {
        match self.read() {
            Ok(bytes) => bytes,
            Err(error) => panic!("cannot read {}: {error}", self.path().display()),
        }
    }
}

/// One connection to the server.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Session {
    /// The lines that the client sent, in groups. The lines of a group arrived without waiting for
    /// a reply to one of them, as with pipelining (RFC 2920). `***` replaces the data of AUTH.
    ///
    /// The network may split a large group, which then counts as several.
    pub groups: Vec<Vec<String>>,
    /// The TLS version, such as `TLSv1.3`; `None` for plaintext.
    pub tls: Option<String>,
    /// The connection is open.
    pub is_open: bool,
    /// Why the connection ended, unless by QUIT or between two commands.
    pub failure: Option<String>,
    /// What the server did before the first group, and after each group.
    pub(super) answers: Vec<Vec<Turn>>,
    /// The rest of the last group, which had arrived when the server ended the session.
    pub(super) not_executed: Vec<String>,
}

impl Session {
    /// The lines that the client sent, in order.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().flatten().map(String::as_str)
    }

    /// Checks the lines that the client sent, in order.
    ///
    /// # Panics
    ///
    /// If they differ, with the lines that differ.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = envoi::testing::Server::builder().plaintext().start().await?;
    /// let mut connection = envoi::Client::from_url(&server.url())?.connect().await?;
    /// connection.noop().await?;
    /// connection.quit().await;
    /// let session = &server.connections()[0];
    /// session.assert_commands(["EHLO [127.0.0.1]", "NOOP", "QUIT"]);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn assert_commands<'a>(&self, expected: impl IntoIterator<Item = &'a str>) {
        let expected: Vec<_> = expected.into_iter().collect();
        let actual: Vec<_> = self.commands().collect();
        assert_lines("the commands differ", &expected, &actual);
    }

    /// The session as a dialogue, which a [`ScriptedServer`](super::ScriptedServer) plays without
    /// the settings of this server. `***` stands for the client's name, the sizes of messages, and
    /// credentials; `MESSAGE` for each message. It begins at the last
    /// [`Server::clear`](super::Server::clear), if that came after the start of the session.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use envoi::testing::{ScriptedServer, Server};
    /// use envoi::{Client, mail_builder::MessageBuilder};
    ///
    /// let mail = || {
    ///     MessageBuilder::new()
    ///         .from("alice@example.org")
    ///         .to(vec!["bob@example.com", "carol@example.com"])
    ///         .text_body("Hello.")
    /// };
    /// let server = Server::builder()
    ///     .refuse_recipient("bob@example.com", "550 5.1.1 No such user")
    ///     .start()
    ///     .await?;
    /// Client::from_url(&server.url())?.send(mail()).await?;
    /// let dialogue = server.connections()[0].dialogue();
    /// assert!(dialogue.to_string().contains("\nS: 550 5.1.1 No such user\n"));
    ///
    /// let server = ScriptedServer::start(&dialogue).await?;
    /// let receipt = Client::from_url(server.url())?.send(mail()).await?;
    /// assert!(!receipt.recipients[0].outcome.is_accepted());
    /// server.finish().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn dialogue(&self) -> Dialogue {
        let mut turns = self.answers.first().cloned().unwrap_or_default();
        let mut in_chunks = false;
        for (i, group) in self.groups.iter().enumerate() {
            let answers = self.answers.get(i + 1).map_or(&[][..], Vec::as_slice);
            let is_last = i + 1 == self.groups.len();
            let rest = self.not_executed.iter().filter(|_| is_last);
            for command in group.iter().chain(rest) {
                turns.push(match command.as_str() {
                    // Of a message in chunks, each chunk has been added already.
                    "." if mem::take(&mut in_chunks) => continue,
                    "." => Turn::Message,
                    UNREADABLE => Turn::Client(format!("{ANY}\r\n").into()),
                    command => Turn::Client(format!("{}\r\n", general(command)).into()),
                });
                in_chunks = command.get(..5) == Some("BDAT ");
                if in_chunks {
                    turns.push(Turn::Message);
                }
            }
            let part = answers.iter().find(|turn| matches!(turn, Turn::Body(_)));
            match part.filter(|_| in_chunks) {
                // The last chunk did not arrive whole.
                Some(part) => {
                    turns.pop();
                    turns.push(part.clone());
                    turns.extend(answers.iter().filter(|turn| *turn != part).cloned());
                }
                None => turns.extend(answers.iter().cloned()),
            }
        }
        if !matches!(turns.last(), Some(Turn::Close | Turn::Reset)) {
            turns.push(Turn::QuitOrClose);
        }
        Dialogue::from_turns(turns)
    }

    /// Adds a line of the client.
    pub(super) fn record(&mut self, command: &str, is_new_group: bool) {
        if is_new_group || self.groups.is_empty() {
            self.answers.resize(self.groups.len() + 1, Vec::new());
            self.groups.push(Vec::new());
        }
        if let Some(group) = self.groups.last_mut() {
            group.push(command.to_string());
        }
    }

    /// Adds what the server does after the last group.
    pub(super) fn answer(&mut self, turn: Turn) {
        self.answers.resize(self.groups.len() + 1, Vec::new());
        self.answers[self.groups.len()].push(turn);
    }

    /// Removes all lines.
    pub(super) fn clear(&mut self) {
        (self.groups, self.answers) = (Vec::new(), Vec::new());
        self.not_executed = Vec::new();
    }
}
