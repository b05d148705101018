//! Header fields: which are signed, and their canonical form (RFC 6376, 3.4.1, 3.4.2 and 5.4.2).

use std::collections::HashMap;

use super::Canonicalization;

/// The fields of a header section by name, the last one of each name at the end of its list.
pub(super) struct Fields<'a>(HashMap<String, Vec<&'a [u8]>>);

impl<'a> Fields<'a> {
    /// Reads a header section with CRLF line ends, with or without the empty line after it.
    pub(super) fn read(section: &'a [u8]) -> Self {
        let mut fields: HashMap<String, Vec<&[u8]>> = HashMap::new();
        let mut rest = section;
        while !rest.is_empty() {
            let (field, next) = rest.split_at(end_of_field(rest));
            rest = next;
            if let Some((name, _)) = split(field) {
                fields.entry(name).or_default().push(field);
            }
        }
        Fields(fields)
    }

    /// The number of fields of this name.
    pub(super) fn count(&self, name: &str) -> usize {
        let fields = self.0.get(&name.to_ascii_lowercase());
        fields.map_or(0, Vec::len)
    }

    /// The bytes to sign: the fields of these names, from the last one of a name to its first, then
    /// the signature's own field, whose `b=` is empty. A name without a further field stands for
    /// none, so that none can be added.
    pub(super) fn hash_input(
        &self,
        names: &[&str],
        canonicalization: Canonicalization,
        signature: &str,
    ) -> Vec<u8> {
        let (mut input, mut left) = (Vec::new(), self.0.clone());
        for name in names {
            let fields = left.get_mut(&name.to_ascii_lowercase());
            if let Some(field) = fields.and_then(Vec::pop) {
                write_field(field, canonicalization, &mut input);
                input.extend_from_slice(b"\r\n");
            }
        }
        write_field(signature.as_bytes(), canonicalization, &mut input);
        input
    }
}

/// The length of the first field, with its last line end.
fn end_of_field(section: &[u8]) -> usize {
    let line_ends = memchr::memmem::find_iter(section, b"\r\n");
    line_ends
        .map(|at| at + 2)
        .find(|end| !matches!(section.get(*end), Some(b' ' | b'\t')))
        .unwrap_or(section.len())
}

/// The name in lower case, and the value.
fn split(field: &[u8]) -> Option<(String, &[u8])> {
    let colon = memchr::memchr(b':', field)?;
    let name = field[..colon].trim_ascii_end().to_ascii_lowercase();
    let name = String::from_utf8(name).ok()?;
    Some((name, &field[colon + 1..]))
}

/// Writes the canonical form of a field, without the line end after it.
fn write_field(field: &[u8], canonicalization: Canonicalization, out: &mut Vec<u8>) {
    let field = field.strip_suffix(b"\r\n").unwrap_or(field);
    let relaxed = match canonicalization {
        Canonicalization::Simple => None,
        Canonicalization::Relaxed => split(field),
    };
    let Some((name, value)) = relaxed else {
        return out.extend_from_slice(field);
    };
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    let words = value.split(|byte| matches!(byte, b' ' | b'\t'));
    // White space follows each line end of folding.
    let words = words.map(|word| word.strip_suffix(b"\r\n").unwrap_or(word));
    for (at, word) in words.filter(|word| !word.is_empty()).enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}
