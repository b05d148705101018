//! A [`Journal`] of hand-overs: which messages were sent, refused, or are in doubt, whatever
//! happens to the process.

mod file;
mod record;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Phase};
use crate::receipt::Receipt;
use file::Writer;
use record::Record;

/// The note of a message whose outcome was not recorded.
const ENDED: &str = "the process ended before the outcome was known";

/// The note of a message in doubt that was tried again, before the outcome of the last copy.
const EARLIER: &str = "an earlier copy may have been delivered; the last one was not: ";

type Result<T, E = JournalError> = std::result::Result<T, E>;

/// A file with a line for each [hand-over](crate::Message::on_handover) of a message, and one for
/// its outcome. A program that is killed at any moment, and opens the journal again, knows of each
/// message whether it was not sent, was sent, was refused, or is in doubt.
///
/// A message has a key, which the program chooses: an address, the id of an order. Before the last
/// byte of the message may be written, [`hand_over`](Self::hand_over) writes `handing-over` to the
/// disk; when the outcome is known, [`record`](Self::record) writes it. A key whose last line is
/// `handing-over` when the journal is opened is [in doubt](JournalState::InDoubt). A key without a
/// line was not sent.
///
/// Cheap to clone; clones share the file. Hand-overs that wait at the same time share one
/// `fdatasync`. The file is locked, so that no other process uses it, and readable by its owner
/// alone (mode 0600). It grows by about 200 bytes for each message, is never rewritten, and its
/// keys and notes, of at most 500 characters, are kept in memory: use one journal for each mailing.
///
/// # File format
///
/// Lines of text. The first one is `envoi-journal 1 FINGERPRINT CHECKSUM`, each other one
/// `CHECKSUM TIME STATE KEY NOTE`. The checksum is the first 32 bits of the SHA-256 hash of the
/// rest of the line; spaces, `%` and all bytes but printable ASCII are percent-encoded in the key.
/// A damaged end, which was being written when the process or machine stopped, is removed when the
/// journal is opened; damage at any other place is an [error](JournalError::Damaged).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use envoi::{Journal, JournalState};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("news.journal");
/// let journal = Journal::open(&path).await?;
/// assert_eq!(journal.state("bob@example.com"), None);
/// journal.hand_over("bob@example.com").await?;
/// journal.close().await?;
///
/// // Another process, after the first one was killed.
/// let journal = Journal::open(&path).await?;
/// assert_eq!(journal.state("bob@example.com"), Some(JournalState::InDoubt));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

struct Shared {
    path: PathBuf,
    fingerprint: Option<String>,
    entries: Mutex<Entries>,
    writer: Writer,
}

/// The last state of each key, in the order in which the keys came.
#[derive(Default)]
struct Entries {
    list: Vec<Entry>,
    indexes: HashMap<Arc<[u8]>, usize>,
}

struct Entry {
    entry: JournalEntry,
    /// An earlier attempt was in doubt when the last one was handed over.
    was_in_doubt: bool,
}

impl Entry {
    /// Whether a copy of the message may have been delivered before this one.
    fn is_in_doubt(&self) -> bool {
        self.was_in_doubt || self.entry.state == JournalState::InDoubt
    }
}

/// A key of a [`Journal`], and what is known of its message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalEntry {
    /// The key, as it was given.
    pub key: Arc<[u8]>,
    /// The state of the message.
    pub state: JournalState,
    /// The reply of the server, or the error; empty for a hand-over.
    pub note: String,
}

/// The state of a message in a [`Journal`]. A message without a state was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JournalState {
    /// This process has handed over the message, or is doing so, and its outcome is not known yet.
    HandingOver,
    /// At least one recipient was accepted.
    Sent,
    /// It was refused permanently.
    Refused,
    /// Nothing was delivered, and it can be sent again: a 4xx reply, or a failure before its end.
    NotSent,
    /// It may have been delivered: its outcome is unknown, or the process ended after the hand-over
    /// and before it recorded the outcome.
    InDoubt,
}

impl JournalState {
    const ALL: [JournalState; 5] = [
        JournalState::HandingOver,
        JournalState::Sent,
        JournalState::Refused,
        JournalState::NotSent,
        JournalState::InDoubt,
    ];

    /// Returns the state as the word that stands in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            JournalState::HandingOver => "handing-over",
            JournalState::Sent => "sent",
            JournalState::Refused => "refused",
            JournalState::NotSent => "not-sent",
            JournalState::InDoubt => "in-doubt",
        }
    }

    /// The state of a message with this outcome: in doubt if any recipient's outcome is unknown,
    /// otherwise sent if any was accepted, otherwise refused or not sent.
    ///
    /// The request itself may be what is wrong with a message ([`ErrorKind::Request`]), or that the
    /// server lacks an extension ([`ErrorKind::Unsupported`]); such a message counts as refused. A
    /// permanent failure that concerns all messages, such as a refused session, a login that is
    /// refused or missing (530, RFC 4954, 6), or an invalid setting of the endpoint, says nothing
    /// about this one, which was not sent.
    pub fn of(outcome: &crate::Result<Receipt>) -> Self {
        match outcome {
            Ok(_) => JournalState::Sent,
            Err(error) if error.outcome_unknown() => JournalState::InDoubt,
            Err(error) if error.is_permanent() && is_of_message(error) => JournalState::Refused,
            Err(_) => JournalState::NotSent,
        }
    }
}

/// Whether the message itself has failed, and not the session that was to send it.
fn is_of_message(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Refused => error.is_refusal_of_message(),
        // A message that is not valid has no recipients yet. A setting of the endpoint that is not
        // valid concerns those of all messages.
        ErrorKind::Request if error.phase() == Phase::Setup => error
            .receipt()
            .is_none_or(|receipt| receipt.recipients.is_empty()),
        ErrorKind::Request | ErrorKind::Unsupported => {
            error.phase() == Phase::Setup || error.phase().is_of_message()
        }
        _ => false,
    }
}

impl fmt::Display for JournalState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Journal {
    /// Opens the journal in this file, or creates it.
    ///
    /// # Errors
    ///
    /// [`JournalError::InUse`] if another process has opened it, or this one has;
    /// [`JournalError::NotAJournal`], [`JournalError::OtherVersion`] and [`JournalError::Damaged`]
    /// for its content, which is not changed; [`JournalError::Io`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it may have created the file.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Journal::open_with(path.into(), None).await
    }

    /// Opens the journal in this file, or creates it, for messages with this in common: a template,
    /// the name of a mailing. The file has the SHA-256 hash of it.
    ///
    /// # Errors
    ///
    /// [`JournalError::OtherFingerprint`] if the journal was created for something else; otherwise
    /// as for [`open`](Self::open).
    ///
    /// # Cancel safety
    ///
    /// As for [`open`](Self::open).
    pub async fn open_for(path: impl Into<PathBuf>, common: impl AsRef<[u8]>) -> Result<Self> {
        Journal::open_with(path.into(), Some(record::fingerprint(common.as_ref()))).await
    }

    async fn open_with(path: PathBuf, fingerprint: Option<String>) -> Result<Self> {
        let opening = tokio::task::spawn_blocking(move || {
            let mut entries = Entries::default();
            let on_record = |record| entries.set(record);
            let (file, fingerprint) = file::open(&path, fingerprint.as_deref(), on_record)?;
            let journal = Journal(Arc::new(Shared {
                writer: Writer::start(path.clone(), file)?,
                path,
                fingerprint,
                entries: Mutex::new(entries),
            }));
            // The process that handed them over has ended.
            for entry in journal.to_vec() {
                if entry.state == JournalState::HandingOver {
                    journal.set(&entry.key, JournalState::InDoubt, ENDED)?;
                }
            }
            Ok(journal)
        });
        opening.await.unwrap_or(Err(JournalError::Closed))
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The SHA-256 hash, in hexadecimal digits, of what the journal was [created
    /// for](Self::open_for).
    pub fn fingerprint(&self) -> Option<&str> {
        self.0.fingerprint.as_deref()
    }

    /// The state of the message with this key; `None` if it was never handed over and has no
    /// outcome.
    pub fn state(&self, key: impl AsRef<[u8]>) -> Option<JournalState> {
        self.entries().state(key.as_ref())
    }

    /// A copy of all entries, in the order in which the keys were first recorded.
    pub fn to_vec(&self) -> Vec<JournalEntry> {
        let entries = self.entries();
        entries
            .list
            .iter()
            .map(|entry| entry.entry.clone())
            .collect()
    }

    /// Records that the message with this key is about to be handed over, and waits until this is
    /// on the disk. It is what [`Message::on_handover`](crate::Message::on_handover) is for. Only a
    /// key that is recorded as sent is refused: the program decides whether a message that was
    /// refused, or is in doubt, is sent again, and gives each message its own key.
    ///
    /// # Errors
    ///
    /// The message must not be sent then. [`JournalError::AlreadySent`] if the key is recorded as
    /// sent; [`JournalError::Io`] if the file cannot be written, now or earlier;
    /// [`JournalError::Closed`] after [`close`](Self::close).
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it may have recorded the hand-over. Record the outcome in any case:
    /// without one, the message will be in doubt.
    pub async fn hand_over(&self, key: impl AsRef<[u8]>) -> Result<()> {
        let record = Record::new(key.as_ref(), JournalState::HandingOver, "");
        let line = record.to_line();
        let synced = {
            let mut entries = self.entries();
            if entries.state(&record.key) == Some(JournalState::Sent) {
                return Err(JournalError::AlreadySent(
                    String::from_utf8_lossy(&record.key).into_owned(),
                ));
            }
            entries.set(record);
            self.0.writer.append_synced(line)?
        };
        synced.await
    }

    /// Records the outcome of a message, and returns its state, which is [that of the
    /// outcome](JournalState::of), with two exceptions: a message that was in doubt before, and was
    /// refused or not sent this time, stays in doubt, as the earlier copy may have been delivered;
    /// and one that was sent stays so, whatever the outcome of a further copy. A message that was
    /// not sent and never handed over gets no entry.
    ///
    /// Nothing is waited for: a process that is killed at once may leave the message in doubt.
    /// [`sync`](Self::sync) waits. A message to several recipients has one state; give each
    /// recipient a message and a key of its own if each must have one.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`] if the file could not be written earlier; the failure to write this
    /// record is the error of a later call. [`JournalError::Closed`] after [`close`](Self::close).
    pub fn record(
        &self,
        key: impl AsRef<[u8]>,
        outcome: &crate::Result<Receipt>,
    ) -> Result<JournalState> {
        let key = key.as_ref();
        let mut state = JournalState::of(outcome);
        let note = match outcome {
            Ok(receipt) => receipt.reply.as_ref().map(ToString::to_string),
            Err(error) => Some(match error.reply() {
                Some(reply) => reply.to_string(),
                None => error.message().to_owned(),
            }),
        };
        let mut note = note.unwrap_or_default();
        let entries = self.entries();
        match (state, entries.get(key)) {
            (JournalState::NotSent, None) => return Ok(state),
            (_, Some(entry)) if entry.entry.state == JournalState::Sent => {
                return Ok(JournalState::Sent);
            }
            (JournalState::NotSent | JournalState::Refused, Some(entry)) if entry.is_in_doubt() => {
                state = JournalState::InDoubt;
                note = format!("{EARLIER}{note}");
            }
            _ => {}
        }
        self.append(entries, Record::new(key, state, &note))?;
        Ok(state)
    }

    /// Records a state, with a note for people who read the file: what a program found out in
    /// another way, such as that a message in doubt was delivered.
    ///
    /// # Errors
    ///
    /// As for [`record`](Self::record).
    pub fn set(&self, key: impl AsRef<[u8]>, state: JournalState, note: &str) -> Result<()> {
        self.append(self.entries(), Record::new(key.as_ref(), state, note))
    }

    /// Appends a record while no other one can be, so that the lines are in the order of the
    /// states.
    fn append(&self, mut entries: MutexGuard<'_, Entries>, record: Record) -> Result<()> {
        let line = record.to_line();
        entries.set(record);
        self.0.writer.append(line)
    }

    /// Waits until everything that was recorded is on the disk.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`] if anything could not be written; [`JournalError::Closed`] after
    /// [`close`](Self::close).
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it changes nothing.
    pub async fn sync(&self) -> Result<()> {
        self.0.writer.append_synced(String::new())?.await
    }

    /// Waits until everything that was recorded is on the disk, and unlocks the file. Later calls
    /// on clones fail with [`JournalError::Closed`]. The last clone that is dropped does the same
    /// without waiting.
    ///
    /// # Errors
    ///
    /// As for [`sync`](Self::sync).
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it closes the file all the same.
    pub async fn close(self) -> Result<()> {
        self.0.writer.close()?.await
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.0.path)
            .finish_non_exhaustive()
    }
}

impl Entries {
    fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.indexes.get(key).map(|index| &self.list[*index])
    }

    fn state(&self, key: &[u8]) -> Option<JournalState> {
        self.get(key).map(|entry| entry.entry.state)
    }

    fn set(&mut self, record: Record) {
        let Record { key, state, note } = record;
        if let Some(index) = self.indexes.get(key.as_slice()) {
            let Entry {
                entry,
                was_in_doubt,
            } = &mut self.list[*index];
            *was_in_doubt = state == JournalState::HandingOver
                && (*was_in_doubt || entry.state == JournalState::InDoubt);
            (entry.state, entry.note) = (state, note);
            return;
        }
        let key: Arc<[u8]> = key.into();
        self.indexes.insert(key.clone(), self.list.len());
        self.list.push(Entry {
            entry: JournalEntry { key, state, note },
            was_in_doubt: false,
        });
    }
}

/// Why a [`Journal`] cannot be used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum JournalError {
    /// The file cannot be opened, read or written. After a failed write, nothing more is written.
    Io(PathBuf, Arc<io::Error>),
    /// Another process, or another part of this one, has opened the file.
    InUse(PathBuf),
    /// The file is something else.
    NotAJournal(PathBuf),
    /// The file was written by another version, in a format that this one does not know.
    OtherVersion(PathBuf),
    /// The journal was created for [something else](Journal::open_for).
    OtherFingerprint(PathBuf),
    /// This line of the file was changed, or is damaged.
    Damaged(PathBuf, usize),
    /// The message with this key was sent earlier.
    AlreadySent(String),
    /// The journal was closed.
    Closed,
}

impl JournalError {
    fn io(path: &Path, error: io::Error) -> Self {
        JournalError::Io(path.to_owned(), Arc::new(error))
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Io(path, error) => {
                write!(f, "the journal {} cannot be used: {error}", path.display())
            }
            JournalError::InUse(path) => write!(
                f,
                "the journal {} is in use by another process. Wait until that has ended.",
                path.display()
            ),
            JournalError::NotAJournal(path) => write!(
                f,
                "{} is not a journal, and was not changed. Give the path of a new file.",
                path.display()
            ),
            JournalError::OtherVersion(path) => write!(
                f,
                "the journal {} has a format that this version does not know. Use the version that \
                    wrote it, or a later one.",
                path.display()
            ),
            JournalError::OtherFingerprint(path) => write!(
                f,
                "the journal {} belongs to other messages. Give the path of a new file.",
                path.display()
            ),
            JournalError::Damaged(path, line) => write!(
                f,
                "line {line} of the journal {} is damaged. What it said is not known, so nothing \
                    is sent: compare the server's log with the keys around it, and remove it.",
                path.display()
            ),
            JournalError::AlreadySent(key) => write!(
                f,
                "the message with the key {} was sent earlier",
                crate::text::printable(key.clone())
            ),
            JournalError::Closed => f.write_str("the journal was closed"),
        }
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            JournalError::Io(_, error) => Some(&**error),
            _ => None,
        }
    }
}
