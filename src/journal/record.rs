//! The lines of the file: their text, and what is read from it.

use std::fmt::Write as _;
use std::time::SystemTime;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use sha2::{Digest as _, Sha256};

use super::JournalState;
use crate::date;
use crate::text::printable;

/// The beginning of the first line, with the version of the format.
pub(super) const MAGIC: &str = "envoi-journal 1 ";

/// The beginning of the first line in each version.
pub(super) const ANY_VERSION: &str = "envoi-journal ";

/// The maximum length of the first line.
pub(super) const MAX_HEADER: u64 = 256;

/// The maximum length of a note in characters.
const MAX_NOTE: usize = 500;

/// A key has no space, so that a line can be split at spaces.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// The first line: `envoi-journal 1 FINGERPRINT CHECKSUM`.
pub(super) fn header(fingerprint: Option<&str>) -> String {
    let text = format!("{MAGIC}{}", fingerprint.unwrap_or("-"));
    format!("{text} {}\n", checksum(text.as_bytes()))
}

/// The fingerprint in a complete first line of this version.
pub(super) fn parse_header(line: &[u8]) -> Option<Option<String>> {
    let text = str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (text, sum) = text.rsplit_once(' ')?;
    let fingerprint = text.strip_prefix(MAGIC)?;
    (checksum(text.as_bytes()) == sum).then(|| (fingerprint != "-").then(|| fingerprint.to_owned()))
}

/// Whether this is the beginning of a first line that was not written to its end.
pub(super) fn is_torn_header(line: &[u8]) -> bool {
    let magic = MAGIC.as_bytes();
    let longest = header(Some(&fingerprint(b""))).len();
    !line.ends_with(b"\n")
        && line.len() < longest
        && (magic.starts_with(line) || line.starts_with(magic))
}

/// The fingerprint of what a journal is about.
pub(super) fn fingerprint(of: &[u8]) -> String {
    hex(&Sha256::digest(of))
}

/// A line of the journal: `CHECKSUM TIME STATE KEY NOTE`, the note being optional.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Vec<u8>,
    pub(super) state: JournalState,
    pub(super) note: String,
}

impl Record {
    pub(super) fn new(key: &[u8], state: JournalState, note: &str) -> Self {
        let note = printable(note.chars().take(MAX_NOTE).collect::<String>());
        Record {
            key: key.to_owned(),
            state,
            note: note.trim().to_owned(),
        }
    }

    pub(super) fn to_line(&self) -> String {
        let time = date::rfc3339(SystemTime::now());
        let key = percent_encode(&self.key, ESCAPED);
        let mut text = format!("{time} {} {key}", self.state);
        if !self.note.is_empty() {
            text.push(' ');
            text.push_str(&self.note);
        }
        format!("{} {text}\n", checksum(text.as_bytes()))
    }

    /// Parses a complete line; `None` if it is damaged.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let line = str::from_utf8(line).ok()?.strip_suffix('\n')?;
        let (sum, text) = line.split_once(' ')?;
        if checksum(text.as_bytes()) != sum {
            return None;
        }
        let mut fields = text.splitn(4, ' ');
        let (_time, state, key) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Record {
            key: percent_decode_str(key).collect(),
            state: JournalState::ALL
                .into_iter()
                .find(|known| known.as_str() == state)?,
            note: fields.next().unwrap_or_default().to_owned(),
        })
    }
}

/// The first 32 bits of a SHA-256 hash.
fn checksum(text: &[u8]) -> String {
    hex(&Sha256::digest(text)[..4])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
