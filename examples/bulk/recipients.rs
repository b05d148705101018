//! The recipients: a CSV file with a header line.

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
        let email = columns.iter().position(|name| name == "email");
        let email = email
            .ok_or_else(|| Failure::request("line 1 of the recipients has no column `email`"))?;
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

/// The key of a mailbox in the journal. The case of a domain does not matter.
pub fn key(address: &Address) -> String {
    match address.as_str().rsplit_once('@') {
        Some((local, domain)) => format!("{local}@{}", domain.to_lowercase()),
        None => address.to_string(),
    }
}
