//! For tests of DKIM: canonical forms of whole messages, by the words of RFC 6376, and a key whose
//! signature is what it is given to sign.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envoi::dkim::Canonicalization::{self, Relaxed, Simple};
use envoi::dkim::DkimKey;
use envoi::tls::rustls::sign::{Signer, SigningKey};
use envoi::tls::rustls::{Error, SignatureAlgorithm, SignatureScheme};

/// The canonical form of a body (RFC 6376, 3.4.3 and 3.4.4).
pub fn body_form(canonicalization: Canonicalization, body: &[u8]) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = vec![Vec::new()];
    let mut rest = body;
    while let [first, next @ ..] = rest {
        rest = next;
        match (first, next) {
            (b'\r', [b'\n', after @ ..]) => {
                rest = after;
                lines.push(Vec::new());
            }
            _ => lines.last_mut().unwrap().push(*first),
        }
    }
    if canonicalization == Relaxed {
        for line in &mut lines {
            *line = reduced(line);
            if line.last() == Some(&b' ') {
                line.pop();
            }
        }
    }
    while lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    if lines.is_empty() && canonicalization == Simple {
        lines.push(Vec::new());
    }
    let lines = lines.iter().flat_map(|line| [line, &b"\r\n"[..]].concat());
    lines.collect()
}

/// The text with one space for each sequence of spaces and tabs.
fn reduced(text: &[u8]) -> Vec<u8> {
    let mut reduced: Vec<u8> = Vec::new();
    for byte in text {
        match byte {
            b' ' | b'\t' if reduced.last() == Some(&b' ') => {}
            b'\t' => reduced.push(b' '),
            byte => reduced.push(*byte),
        }
    }
    reduced
}

/// The canonical form of a field (RFC 6376, 3.4.1 and 3.4.2), without a line end after it.
fn field_form(canonicalization: Canonicalization, field: &str) -> String {
    if canonicalization == Simple {
        return field.to_owned();
    }
    let (name, value) = field.split_once(':').unwrap();
    let value = reduced(value.replace("\r\n", "").as_bytes());
    let value = String::from_utf8(value).unwrap();
    let value = value.strip_prefix(' ').unwrap_or(&value);
    let value = value.strip_suffix(' ').unwrap_or(value);
    format!(
        "{}:{value}",
        name.to_lowercase().trim_end_matches([' ', '\t'])
    )
}

/// What is signed of a header section, whose lines end with CRLF, for the names in `h=` and the
/// signature's field without the value of `b=` (RFC 6376, 3.7 and 5.4.2).
pub fn header_form(
    canonicalization: Canonicalization,
    section: &str,
    names: &str,
    signature: &str,
) -> String {
    let mut fields: Vec<String> = Vec::new();
    for line in section.split_terminator("\r\n") {
        match fields.last_mut() {
            Some(field) if line.starts_with([' ', '\t']) => *field += &format!("\r\n{line}"),
            _ => fields.push(line.to_owned()),
        }
    }
    let mut form = String::new();
    for name in names.split(':').map(str::to_lowercase) {
        let is_named = |field: &&String| {
            let (of_field, _) = field.split_once(':').unwrap();
            of_field.to_lowercase().trim_end_matches([' ', '\t']) == name
        };
        let last = fields.iter().rposition(|field| is_named(&field));
        if let Some(last) = last {
            form += &field_form(canonicalization, &fields.remove(last));
            form += "\r\n";
        }
    }
    form + &field_form(canonicalization, signature)
}

/// A DKIM-Signature field, taken apart.
pub struct SignatureField {
    /// Up to `b=`, without its value.
    pub unsigned: String,
    tags: HashMap<String, String>,
}

impl SignatureField {
    /// Reads one field, with or without CRLF at its end. `b=` is its last tag.
    pub fn read(field: &str) -> Self {
        let (unsigned, _) = field.rsplit_once("b=").unwrap();
        let (name, tags) = field.split_once(':').unwrap();
        assert_eq!(name, "DKIM-Signature");
        let compact: String = tags.chars().filter(|c| !c.is_whitespace()).collect();
        let tags = compact.split(';').map(|tag| tag.split_once('=').unwrap());
        SignatureField {
            unsigned: format!("{unsigned}b="),
            tags: tags
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    /// The value of a tag without white space.
    pub fn tag(&self, name: &str) -> &str {
        &self.tags[name]
    }

    /// The bytes of a tag in base64.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        STANDARD.decode(self.tag(name)).unwrap()
    }
}

/// A key for RSA whose signature is what it is given to sign.
pub fn recording_key() -> DkimKey {
    DkimKey::from_signing_key(Arc::new(Recording)).unwrap()
}

#[derive(Debug)]
struct Recording;

impl SigningKey for Recording {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&self.scheme())
            .then(|| Box::new(Recording) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::RSA
    }
}

impl Signer for Recording {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(message.to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::RSA_PKCS1_SHA256
    }
}
