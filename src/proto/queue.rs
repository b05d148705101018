//! The commands that were sent and the replies that are outstanding: a command enters the output
//! and its reply the queue in one step.

use std::collections::VecDeque;

use super::encode::Command;
use super::sasl::{Login, SecretLine};
use super::transcript::Transcript;
use super::{Output, Phase, Reply};

/// The machine's side of the dialogue.
#[derive(Default)]
pub(super) struct CommandQueue {
    pub(super) output: Output,
    /// The number of bytes of the session that the transport accepted.
    pub(super) written: u64,
    /// The outstanding replies; the next one answers the front.
    pub(super) queue: Queue,
    /// The ends, counted from the beginning of the session, of the commands that the transport has
    /// not accepted whole. They are the newest ones in the queue.
    pub(super) unsent: VecDeque<u64>,
    pub(super) transcript: Transcript,
    /// What follows the output and may not be written yet.
    pub(super) held: VecDeque<HeldFlight>,
}

/// A part of the output that is held back. Until it is [released](CommandQueue::release), its
/// commands were not given: no reply to them is outstanding, and the transcript does not have them.
pub(super) struct HeldFlight {
    pub(super) part: Part,
    pub(super) output: Output,
    /// The outstanding replies, each with the end of its command in the output.
    pub(super) replies: Vec<(u64, PendingReply)>,
    notes: Vec<Note>,
}

/// What a [`HeldFlight`] contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// The end of a message, which waits for its hand-over.
    End,
    /// The end of a message that waits only for those before it.
    PermittedEnd,
    /// What follows the end of a message: the commands of further ones.
    Following,
}

/// A line for the transcript.
enum Note {
    Client(String),
    Remark(String),
}

impl HeldFlight {
    fn new(part: Part) -> Self {
        HeldFlight {
            part,
            output: Output::default(),
            replies: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl CommandQueue {
    /// Creates a queue for a server that speaks first.
    pub(super) fn new(first: PendingReply) -> Self {
        let mut wire = CommandQueue::default();
        wire.queue.push_back(first);
        wire
    }

    pub(super) fn push(&mut self, command: Command<'_>, expected: PendingReply) {
        match self.held.back_mut() {
            None => {
                self.transcript.client(self.output.put_line(command));
                self.outstanding(expected);
            }
            Some(flight) => {
                let line = flight.output.put_line(command).to_owned();
                flight.notes.push(Note::Client(line));
                flight.replies.push((flight.output.len() as u64, expected));
            }
        }
    }

    /// Adds a line of a message to the transcript.
    pub(super) fn note_client(&mut self, line: &str) {
        match self.held.back_mut() {
            None => self.transcript.client(line),
            Some(flight) => flight.notes.push(Note::Client(line.to_owned())),
        }
    }

    /// Adds a remark to the transcript.
    pub(super) fn note(&mut self, text: &str) {
        match self.held.back_mut() {
            None => self.transcript.note(text),
            Some(flight) => flight.notes.push(Note::Remark(text.to_owned())),
        }
    }

    /// Where the bytes of a message are added.
    pub(super) fn tail(&mut self) -> &mut Output {
        match self.held.back_mut() {
            None => &mut self.output,
            Some(flight) => &mut flight.output,
        }
    }

    /// Whether the end of a message is held back.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// The number of messages whose end waits for their hand-over.
    pub(super) fn held_messages(&self) -> usize {
        let ends = self.held.iter().filter(|flight| flight.part == Part::End);
        ends.count()
    }

    /// The number of bytes that were not written, including those that are held back.
    pub(super) fn unwritten(&self) -> usize {
        let held: usize = self.held.iter().map(|flight| flight.output.len()).sum();
        self.output.len() + held
    }

    /// Holds back what is added from now on, the end of a message. `is_permitted` says that it
    /// waits only for the messages before it.
    pub(super) fn hold_end(&mut self, is_permitted: bool) {
        let part = match is_permitted {
            true => Part::PermittedEnd,
            false => Part::End,
        };
        self.held.push_back(HeldFlight::new(part));
    }

    /// What is added from now on follows the end that is held back.
    pub(super) fn end_is_whole(&mut self) {
        self.held.push_back(HeldFlight::new(Part::Following));
    }

    /// Permits the first end that waits for its hand-over.
    pub(super) fn permit(&mut self) {
        let mut flights = self.held.iter_mut();
        if let Some(flight) = flights.find(|flight| flight.part == Part::End) {
            flight.part = Part::PermittedEnd;
        }
    }

    /// Drops the first end that waits for its hand-over.
    pub(super) fn drop_end(&mut self) {
        let end = self.held.iter().position(|flight| flight.part == Part::End);
        end.map(|index| self.held.remove(index));
    }

    /// The number of ends before the first one that waits for its hand-over.
    pub(super) fn permitted_ends(&self) -> usize {
        let before = self
            .held
            .iter()
            .take_while(|flight| flight.part != Part::End);
        before
            .filter(|flight| flight.part == Part::PermittedEnd)
            .count()
    }

    /// Drops everything that is held back.
    pub(super) fn drop_held(&mut self) {
        self.held.clear();
    }

    /// Moves into the output what waits for no end of a message: up to the next end. Returns
    /// whether that is permitted.
    pub(super) fn release_following(&mut self) -> bool {
        while let Some(flight) = self.held.front() {
            match flight.part {
                Part::Following => self.release_first(),
                Part::PermittedEnd => return true,
                Part::End => return false,
            }
        }
        false
    }

    /// Moves the first part of what is held back into the output.
    pub(super) fn release_first(&mut self) {
        if let Some(flight) = self.held.pop_front() {
            let HeldFlight {
                mut output,
                replies,
                notes,
                ..
            } = flight;
            for note in notes {
                match note {
                    Note::Client(line) => self.transcript.client(&line),
                    Note::Remark(text) => self.transcript.note(&text),
                }
            }
            let begins_at = self.end();
            for (end, mut expected) in replies {
                if let PendingReply::EndOfData { begins_at: at } = &mut expected {
                    *at = begins_at + end;
                }
                self.unsent.push_back(begins_at + end);
                self.queue.push_back(expected);
            }
            output.move_to(usize::MAX, &mut self.output);
        }
    }

    /// Adds a line of a login. The transcript has `shown` in its place.
    pub(super) fn push_secret(&mut self, line: SecretLine, shown: &str, login: Login) {
        self.output.put_secret(line);
        self.transcript.client(shown);
        self.outstanding(PendingReply::Login(login));
    }

    /// Adds the reply to the command at the end of the output.
    pub(super) fn outstanding(&mut self, mut expected: PendingReply) {
        if let PendingReply::EndOfData { begins_at } = &mut expected {
            *begins_at = self.end();
        }
        self.unsent.push_back(self.end());
        self.queue.push_back(expected);
    }

    /// The end of the output, counted from the beginning of the session.
    pub(super) fn end(&self) -> u64 {
        self.written + self.output.len() as u64
    }

    /// The transport accepted `n` bytes of the output.
    pub(super) fn wrote(&mut self, n: usize) {
        self.output.advance(n);
        self.written += n as u64;
        while self.unsent.front().is_some_and(|end| *end <= self.written) {
            self.unsent.pop_front();
        }
    }

    /// Whether the command that the next reply answers was written whole. Before that, the server
    /// cannot have read it.
    pub(super) fn is_front_sent(&self) -> bool {
        self.queue.len() > self.unsent.len()
    }

    /// Whether the server has answered everything that it was sent, and nothing was written of a
    /// message that it waits for.
    pub(super) fn is_quiet(&self) -> bool {
        match self.queue.front() {
            Some(PendingReply::EndOfData { begins_at }) => self.written <= *begins_at,
            _ => !self.is_front_sent(),
        }
    }
}

/// The replies that are outstanding, in the order of their commands.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) entries: VecDeque<PendingReply>,
    /// The number of replies that another transaction has to wait for.
    barriers: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn all(&self, is_so: impl Fn(&PendingReply) -> bool) -> bool {
        self.entries.iter().all(is_so)
    }

    pub(super) fn front(&self) -> Option<&PendingReply> {
        self.entries.front()
    }

    /// Whether all of them answer transactions that were given whole, so that another one may
    /// follow (RFC 2920).
    pub(super) fn lets_follow(&self) -> bool {
        self.barriers == 0
    }

    pub(super) fn push_back(&mut self, expected: PendingReply) {
        self.barriers += usize::from(expected.is_barrier());
        self.entries.push_back(expected);
    }

    pub(super) fn push_front(&mut self, expected: PendingReply) {
        self.barriers += usize::from(expected.is_barrier());
        self.entries.push_front(expected);
    }

    pub(super) fn pop_front(&mut self) -> Option<PendingReply> {
        let expected = self.entries.pop_front()?;
        self.barriers -= usize::from(expected.is_barrier());
        Some(expected)
    }

    /// Ignores the replies to the remaining chunks of a message that was refused in its middle.
    pub(super) fn discard_chunks(&mut self) {
        for expected in &mut self.entries {
            if matches!(
                expected,
                PendingReply::Chunk | PendingReply::EndOfData { .. }
            ) {
                *expected = PendingReply::DiscardedChunk;
            }
        }
        self.barriers = self
            .entries
            .iter()
            .filter(|expected| expected.is_barrier())
            .count();
    }

    pub(super) fn clear(&mut self) {
        *self = Queue::default();
    }
}

/// An outstanding reply, by the command that it answers.
pub(super) enum PendingReply {
    Greeting,
    Ehlo,
    Helo,
    Lhlo,
    StartTls,
    Login(Login),
    Mail,
    Rcpt(usize),
    Data,
    /// A chunk of the message that is not the last one.
    Chunk,
    /// The message of the first transaction, which begins at this byte of the session. It stays in
    /// front until the last of its replies.
    EndOfData {
        begins_at: u64,
    },
    /// The lone dot after a 354 that came although no recipient was accepted (RFC 2920, 3.1).
    EmptyMessage,
    /// A chunk of a message that was refused before it.
    DiscardedChunk,
    /// RSET that the machine sends by itself.
    AutoRset,
    Reset,
    Noop,
    Command,
    Quit,
}

/// What a reply means to the command that it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The command was carried out.
    Success,
    /// The client is to go on: with a response, with the message, or by reading a reply for each
    /// recipient (PRDR).
    GoOn,
    /// The command was refused, for now or for good.
    Refusal,
}

impl PendingReply {
    /// What this reply means, or `None` if the command cannot have it as an answer.
    pub(super) fn meaning(&self, reply: &Reply) -> Option<Meaning> {
        use PendingReply as P;
        match (self, reply.code()) {
            // The caller judges these, or they matter no more.
            (P::Reset | P::Noop | P::Command | P::Quit, _) => Some(Meaning::Success),
            (P::Greeting | P::StartTls, 220) => Some(Meaning::Success),
            (P::Ehlo | P::Helo | P::Lhlo, 250) => Some(Meaning::Success),
            // RFC 4954, 6.
            (P::Login(_), 235) => Some(Meaning::Success),
            (P::Greeting | P::StartTls | P::Ehlo | P::Helo | P::Lhlo, 200..=299) => None,
            (P::Login(_) | P::Data, 200..=299) => None,
            (_, 200..=299) => Some(Meaning::Success),
            (P::Login(_), 334) | (P::Data, 300..=399) | (P::EndOfData { .. }, 353) => {
                Some(Meaning::GoOn)
            }
            (_, 400..=599) => Some(Meaning::Refusal),
            _ => None,
        }
    }

    /// Whether the outcome of what it belongs to was reported before.
    pub(super) fn is_of_no_interest(&self) -> bool {
        matches!(
            self,
            PendingReply::DiscardedChunk | PendingReply::EmptyMessage | PendingReply::AutoRset
        )
    }

    /// Whether another transaction must wait for it, as it does not answer one that was given
    /// whole.
    fn is_barrier(&self) -> bool {
        !matches!(
            self,
            PendingReply::Mail
                | PendingReply::Rcpt(_)
                | PendingReply::EndOfData { .. }
                | PendingReply::AutoRset
        )
    }

    /// Whether a copy of the reply may be held for each recipient.
    pub(super) fn is_of_transaction(&self) -> bool {
        use PendingReply as E;
        matches!(
            self,
            E::Mail | E::Rcpt(_) | E::Data | E::Chunk | E::EndOfData { .. }
        )
    }

    pub(super) fn phase(&self) -> Phase {
        match self {
            PendingReply::Greeting => Phase::Greeting,
            PendingReply::Ehlo | PendingReply::Helo | PendingReply::Lhlo => Phase::Hello,
            PendingReply::StartTls => Phase::StartTls,
            PendingReply::Login(_) => Phase::Auth,
            PendingReply::Mail => Phase::Mail,
            PendingReply::Rcpt(_) => Phase::Rcpt,
            PendingReply::Data => Phase::Data,
            PendingReply::Chunk | PendingReply::DiscardedChunk => Phase::Body,
            PendingReply::EndOfData { .. } | PendingReply::EmptyMessage => Phase::EndOfData,
            PendingReply::AutoRset | PendingReply::Reset => Phase::Reset,
            PendingReply::Noop => Phase::Noop,
            PendingReply::Command => Phase::Command,
            PendingReply::Quit => Phase::Quit,
        }
    }

    /// The reply that is in order, for errors.
    pub(super) fn wanted(&self) -> &'static str {
        match self {
            PendingReply::Greeting => "the greeting (220)",
            PendingReply::Ehlo => "the answer to EHLO (250)",
            PendingReply::Helo => "the answer to HELO (250)",
            PendingReply::Lhlo => "the answer to LHLO (250)",
            PendingReply::StartTls => "the go-ahead for TLS (220)",
            PendingReply::Login(_) => "a challenge (334) or the result of the login (235)",
            PendingReply::Mail => "the answer to MAIL (250)",
            PendingReply::Rcpt(_) => "the answer to RCPT (250)",
            PendingReply::Data => "the go-ahead for the message (354)",
            PendingReply::Chunk => "the answer to a chunk of the message (250)",
            PendingReply::DiscardedChunk => "the answer to a chunk of the message that was refused",
            PendingReply::EndOfData { .. } => "the answer to the whole message (250)",
            PendingReply::EmptyMessage => "the answer to the empty message",
            PendingReply::AutoRset | PendingReply::Reset => "the answer to RSET (250)",
            PendingReply::Noop => "the answer to NOOP (250)",
            PendingReply::Command => "the answer to the command",
            PendingReply::Quit => "the answer to QUIT (221)",
        }
    }
}
