//! The fields of a TXT record, as MTA-STS (RFC 8461, 3.1) and TLS reports (RFC 8460, 3) have them:
//! `v=STSv1; id=20160831085700Z;`.

use std::fmt;

use crate::text::quoted;

/// Why no fields were found in TXT records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FieldsError {
    /// This many records have the version, of which there may be one.
    Several(usize),
    /// A part of the record is not `name=value`.
    Malformed(String),
}

impl fmt::Display for FieldsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldsError::Several(number) => {
                write!(f, "there are {number} such records, where one is allowed")
            }
            FieldsError::Malformed(part) => {
                write!(f, "{} is not a field of the form name=value", quoted(part))
            }
        }
    }
}

/// Returns the one record that is meant; `None` if there is none.
pub(crate) fn only<'r>(
    records: impl IntoIterator<Item = &'r [u8]>,
    is_meant: impl Fn(&[u8]) -> bool,
) -> Result<Option<&'r [u8]>, FieldsError> {
    let mut found = records.into_iter().filter(|record| is_meant(record));
    let Some(first) = found.next() else {
        return Ok(None);
    };
    match found.count() {
        0 => Ok(Some(first)),
        others => Err(FieldsError::Several(1 + others)),
    }
}

/// Returns the fields after the version, of the one record that begins with this version. Records
/// of another version or purpose are left out; `None` if no others are there.
pub(crate) fn of_version<'r>(
    records: impl IntoIterator<Item = &'r [u8]>,
    version: &str,
) -> Result<Option<Vec<(&'r str, &'r str)>>, FieldsError> {
    let record = only(records, |record| has_version(record, version))?;
    let fields = record.and_then(|record| after_version(record, version));
    fields.map(parse).transpose()
}

/// Whether the record begins with this version and a semicolon.
pub(crate) fn has_version(record: &[u8], version: &str) -> bool {
    after_version(record, version).is_some()
}

/// What follows the version and its semicolon.
fn after_version<'r>(record: &'r [u8], version: &str) -> Option<&'r [u8]> {
    let rest = record.strip_prefix(version.as_bytes())?;
    let delimiter = rest.iter().position(|byte| !is_blank(*byte))?;
    (rest[delimiter] == b';').then(|| &rest[delimiter + 1..])
}

/// Takes the fields apart. What is between the last semicolon and the end may be empty.
fn parse(rest: &[u8]) -> Result<Vec<(&str, &str)>, FieldsError> {
    let text = std::str::from_utf8(rest)
        .map_err(|_| FieldsError::Malformed(String::from_utf8_lossy(rest).into_owned()))?;
    let mut fields = Vec::new();
    let mut parts = text.split(';').peekable();
    while let Some(part) = parts.next() {
        let trimmed = part.trim_matches([' ', '\t']);
        if trimmed.is_empty() && parts.peek().is_none() {
            break;
        }
        let field = trimmed.split_once('=').filter(|(name, value)| {
            is_name(name) && !value.is_empty() && !value.contains(|c: char| c.is_control())
        });
        fields.push(field.ok_or_else(|| FieldsError::Malformed(trimmed.to_owned()))?);
    }
    Ok(fields)
}

/// A letter or digit, and at most 31 of letters, digits, `_`, `-` and `.`; in policies, too.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    name.len() <= 32
        && name.bytes().all(allowed)
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}
