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
        let mut reader = csv::Reader::from_reader(text);
        let columns = reader.headers().map_err(|error| at(&error, 1))?.clone();
        let columns: Vec<String> = columns.iter().map(|name| name.trim().to_owned()).collect();
        let email = column(&columns, "email")
            .map_err(|cause| Failure::request(format!("line 1 of the recipients: {cause}")))?;
        let mut recipients = Recipients {
            columns,
            rows: Vec::new(),
            lines: Vec::new(),
            addresses: Vec::new(),
        };
        let mut record = StringRecord::new();
        loop {
            let line = reader.position().line();
            if !reader
                .read_record(&mut record)
                .map_err(|error| at(&error, line))?
            {
                return Ok(recipients);
            }
            let line = record.position().map_or(line, csv::Position::line);
            let address = Address::new(record[email].trim()).map_err(|error| {
                Failure::request(format!("line {line} of the recipients: {error}"))
            })?;
            recipients.addresses.push(address);
            recipients.lines.push(line);
            recipients.rows.push(record.clone());
        }
    }
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

fn at(error: &csv::Error, line: u64) -> Failure {
    let line = error.position().map_or(line, csv::Position::line);
    let cause = match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => {
            format!("it has {len} fields in place of {expected_len}")
        }
        _ => error.to_string(),
    };
    Failure::request(format!("line {line} of the recipients: {cause}"))
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
