//! Turns a transcript into a script.

use super::script::{ANY, Line, Turn};
use crate::proto::transcript::{
    ANOTHER_CONNECTION, CONNECTION_ENDED, NOT_A_REPLY, UNFINISHED_REPLY, UNREAD,
};

/// A line end in a text that is shown on one line.
const CRLF: &str = "\u{FFFD}\u{FFFD}";

/// Converts the lines of a transcript. The error is the number of a line and what is wrong with it.
pub(super) fn convert(transcript: &str) -> Result<Vec<Line>, (usize, String)> {
    let mut script = Script::default();
    for (i, line) in transcript.lines().enumerate() {
        script.number = i + 1;
        // In a report, the lines may be indented.
        let line = line.trim_start();
        if let Some(text) = line.strip_prefix("S: ") {
            script.server(text);
        } else if let Some(text) = line.strip_prefix("C: ") {
            script.client(text);
        } else if let Some(note) = line.strip_prefix("-- ") {
            script.note(note).map_err(|error| (script.number, error))?;
        } else if !line.is_empty() {
            return Err((script.number, format!("not a line of a transcript: {line}")));
        }
    }
    if script.lines.is_empty() {
        return Err((1, "the transcript is empty".to_owned()));
    }
    script.end_connection();
    Ok(script.lines)
}

/// The client's line with [`ANY`] in place of what differs from one session to the next: the
/// client's name, and sizes.
pub(in crate::testing) fn general(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let verb = words[0].to_ascii_uppercase();
    let general = words.iter().enumerate().map(|(i, &word)| {
        let is_size = word
            .get(..5)
            .is_some_and(|key| key.eq_ignore_ascii_case("SIZE="));
        match verb.as_str() {
            "EHLO" | "LHLO" | "HELO" | "BDAT" if i == 1 => ANY.to_owned(),
            "MAIL" if is_size => format!("SIZE={ANY}"),
            _ => word.to_owned(),
        }
    });
    let general = general.collect::<Vec<_>>().join(" ");
    // A line that was too long for the transcript.
    match general.strip_suffix('…') {
        Some(start) => format!("{start}{ANY}"),
        None => general,
    }
}

#[derive(Default)]
struct Script {
    lines: Vec<Line>,
    /// The number of the line that is being converted.
    number: usize,
    /// A message has been noted, whose end comes next.
    at_end_of_message: bool,
    /// The last message was noted as incomplete, after this number of bytes.
    incomplete: Option<u64>,
}

impl Script {
    fn push(&mut self, turn: Turn) {
        self.lines.push(Line {
            number: self.number,
            turn,
        });
    }

    fn server(&mut self, text: &str) {
        let text = text.strip_suffix('…').unwrap_or(text);
        self.push(Turn::Server(format!("{text}\r\n").into_bytes()));
    }

    fn client(&mut self, text: &str) {
        self.incomplete = None;
        if text == "." && std::mem::take(&mut self.at_end_of_message) {
            return self.push(Turn::Message);
        }
        self.push(Turn::Client(format!("{}\r\n", general(text)).into_bytes()));
        if text.starts_with("BDAT ") {
            self.push(Turn::Message);
        }
    }

    fn note(&mut self, note: &str) -> Result<(), String> {
        // A number comes first in the others.
        let (number, after) = note.split_once(' ').unwrap_or((note, ""));
        if let Some(line) = note.strip_prefix(NOT_A_REPLY) {
            self.server(line);
        } else if let Some(text) = note.strip_prefix(UNFINISHED_REPLY) {
            self.push(Turn::Server(text.into()));
        } else if let Some(text) = note.strip_prefix(UNREAD) {
            // Its line ends are on one line, as two characters that cannot be printed.
            let lines = text.strip_suffix(CRLF).unwrap_or(text);
            lines.split(CRLF).for_each(|line| self.server(line));
        } else if note == CONNECTION_ENDED {
            self.push(Turn::Close);
        } else if note == ANOTHER_CONNECTION {
            self.end_connection();
            self.push(Turn::Connect);
        } else if note.starts_with("TLS handshake failed") {
            self.push(Turn::Close);
        } else if note.starts_with("TLS handshake") {
            self.push(Turn::Tls);
        } else if note.starts_with("the message, ") {
            self.at_end_of_message = true;
        } else if after == "bytes of the message, and not its end" {
            self.incomplete = number.parse().ok();
        } else if after == "more lines of this reply" {
            self.end_reply();
        } else if after == "lines left out" {
            return Err(format!("the transcript is not complete: {note}"));
        }
        Ok(())
    }

    /// Makes the line before this one the last one of its reply.
    fn end_reply(&mut self) {
        if let Some(Turn::Server(line)) = self.lines.last_mut().map(|line| &mut line.turn)
            && let Some(separator) = line.get_mut(3)
        {
            *separator = b' ';
        }
    }

    /// Puts the bytes of an incomplete message in their place: before the reply that came early.
    fn end_message(&mut self) {
        let Some(bytes) = self.incomplete.take() else {
            return;
        };
        let begins_message = |turn: &Turn| match turn {
            Turn::Server(reply) => reply.starts_with(b"354"),
            turn => *turn == Turn::Message,
        };
        let begins_transaction = |turn: &Turn| match turn {
            Turn::Client(command) => command.starts_with(b"MAIL "),
            _ => false,
        };
        let last = |is: &dyn Fn(&Turn) -> bool| self.lines.iter().rposition(|line| is(&line.turn));
        // Before the first chunk, nothing of the message has been sent.
        let Some(at) = last(&begins_message).filter(|at| Some(*at) > last(&begins_transaction))
        else {
            return;
        };
        let is_chunk = self.lines[at].turn == Turn::Message;
        if is_chunk {
            self.lines.remove(at);
        }
        if bytes > 0 {
            let at = if is_chunk { at } else { at + 1 };
            let number = self.number;
            // How many bytes are sent before an early reply arrives is a matter of time.
            let turn = Turn::Body(1);
            self.lines.insert(at, Line { number, turn });
        }
    }

    fn end_connection(&mut self) {
        self.end_message();
        self.at_end_of_message = false;
        if self
            .lines
            .last()
            .is_some_and(|line| line.turn != Turn::Close)
        {
            self.push(Turn::QuitOrClose);
        }
    }
}
