//! The recipients: a CSV file with a header line.

use std::borrow::Cow;
use std::path::Path;

use csv::StringRecord;
use envoi::Address;

use crate::Failure;

/// The columns, and a row for each recipient.
pub struct Recipients {
    pub columns: Vec<String>,
    pub rows: Vec<StringRecord>,
    /// The line of each row in the file.
    pub lines: Vec<u64>,
    /// The address in each row.
    pub addresses: Vec<Address>,
}

impl Recipients {
    /// Reads all recipients, and checks their addresses.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = std::fs::read(path)
            .map_err(|error| Failure::new(66, format!("--recipients cannot be read: {error}")))?;
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let mut lines = Lines {
            text,
            at: 0,
            number: 1,
        };
        let mut reader = csv::Reader::from_reader(text);
        let columns = reader
            .headers()
            .map_err(|error| failure(&error, &mut lines))?;
        let columns: Vec<String> = columns.iter().map(|name| name.trim().to_owned()).collect();
        let email = column(&columns, "email").map_err(|cause| lines.failure(&cause))?;
        let mut recipients = Recipients {
            columns,
            rows: Vec::new(),
            lines: Vec::new(),
            addresses: Vec::new(),
        };
        let mut record = StringRecord::new();
        while reader
            .read_record(&mut record)
            .map_err(|error| failure(&error, &mut lines))?
        {
            lines.go_to(record.position());
            let address = Address::new(record[email].trim())
                .map_err(|error| lines.failure(&error.to_string()))?;
            recipients.addresses.push(address);
            recipients.lines.push(lines.number);
            recipients.rows.push(record.clone());
        }
        match is_unclosed(&text[lines.at..]) {
            true => Err(lines.failure("a quote is not closed")),
            false => Ok(recipients),
        }
    }
}

/// The number of the line in which a record begins. That of `csv` is too small where lines end with
/// CRLF.
struct Lines<'t> {
    text: &'t [u8],
    at: usize,
    number: u64,
}

impl Lines<'_> {
    /// Goes on to a record, which begins after empty lines.
    fn go_to(&mut self, position: Option<&csv::Position>) {
        let start = position.map_or(self.at, |position| position.byte() as usize);
        let mut after = self.text[start..].iter();
        let begins = after.position(|byte| !b"\r\n".contains(byte));
        let start = start + begins.unwrap_or_default();
        let passed = self.text[self.at..start].iter();
        self.number += passed.filter(|byte| **byte == b'\n').count() as u64;
        self.at = start;
    }

    fn failure(&self, cause: &str) -> Failure {
        Failure::request(format!("line {} of the recipients: {cause}", self.number))
    }
}

/// Whether the last record, which is in this text, has a quote that is not closed, and so all lines
/// that follow. A quote at its end would close it, and change nothing.
fn is_unclosed(text: &[u8]) -> bool {
    let records = |text: &[u8]| {
        let mut reader = csv::ReaderBuilder::new();
        let mut reader = reader.has_headers(false).flexible(true).from_reader(text);
        reader.byte_records().flatten().collect::<Vec<_>>()
    };
    records(text) == records(&[text, b"\""].concat())
}

/// Finds a column. A name that two columns have is ambiguous.
pub fn column(columns: &[String], name: &str) -> Result<usize, String> {
    let mut found = (0..columns.len()).filter(|index| columns[*index] == name);
    let shown = name.escape_debug();
    match (found.next(), found.next()) {
        (Some(column), None) => Ok(column),
        (None, _) => Err(format!("there is no column `{shown}`")),
        (Some(_), Some(_)) => Err(format!("there are two columns `{shown}`")),
    }
}

fn failure(error: &csv::Error, lines: &mut Lines<'_>) -> Failure {
    lines.go_to(error.position());
    let cause = match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => {
            format!("it has {len} fields in place of {expected_len}")
        }
        _ => error.to_string(),
    };
    lines.failure(&cause)
}

/// The key of a mailbox in the journal. The case and the form of a domain do not matter.
pub fn key(address: &Address) -> String {
    let address = address.to_ascii().unwrap_or(Cow::Borrowed(address));
    format!(
        "{}@{}",
        address.local_part(),
        address.domain().to_lowercase()
    )
}
