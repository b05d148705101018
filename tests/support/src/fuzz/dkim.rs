//! Any message in any pieces has one signature: that of the canonical forms of the whole message.
//!
//! The first byte chooses the canonicalization, the next four are the lengths of the pieces, over
//! and over. Line ends of the header section are made CRLF, since no other message is sent.

use envoi::dkim::Canonicalization::{self, Relaxed, Simple};
use envoi::dkim::{DkimSigner, MessageSigner};
use sha2::{Digest as _, Sha256};

use crate::dkim::{SignatureField, body_form, header_form, recording_key};

fn sign(signer: &DkimSigner, message: &[u8], lengths: &[usize]) -> String {
    let mut signing = MessageSigner::new([signer.clone()]);
    let (mut rest, mut lengths) = (message, lengths.iter().cycle());
    while !rest.is_empty() {
        let (piece, next) = rest.split_at((*lengths.next().unwrap()).min(rest.len()));
        signing.update(piece);
        rest = next;
    }
    signing.finish().unwrap()
}

/// A header section that may be sent, from any text: each line is a field or continues one.
fn section(text: &str) -> String {
    let mut section = String::from("From: alice@example.org\r\n");
    for line in text.split(['\r', '\n']).filter(|line| !line.is_empty()) {
        let name = line
            .split(':')
            .next()
            .unwrap()
            .trim_end_matches([' ', '\t']);
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        let is_field = is_name && line.contains(':');
        if !is_field && !line.starts_with([' ', '\t']) {
            section.push_str("Subject: ");
        }
        section.push_str(line);
        section.push_str("\r\n");
    }
    section
}

pub fn check(data: &[u8]) {
    let Some(([choice, split @ ..], text)) = data.split_first_chunk::<5>() else {
        return;
    };
    let form = |bit: u8| -> Canonicalization { if choice & bit == 0 { Relaxed } else { Simple } };
    let (header, body) = (form(1), form(2));
    // A split that gets nowhere would go on for ever.
    let lengths: Vec<usize> = split
        .iter()
        .map(|byte| usize::from(*byte))
        .chain([1])
        .collect();
    let end = text.windows(2).position(|pair| pair == b"\n\n");
    let (head, content) = text.split_at(end.unwrap_or(text.len()));
    let section = section(&String::from_utf8_lossy(head));
    let content = content.get(2..).unwrap_or_default();
    let message = [section.as_bytes(), b"\r\n", content].concat();

    let signer = DkimSigner::new("example.org", "2026", recording_key())
        .unwrap()
        .canonicalization(header, body)
        .signed_at(std::time::SystemTime::UNIX_EPOCH);
    let whole = sign(&signer, &message, &[usize::MAX]);
    assert_eq!(sign(&signer, &message, &lengths), whole);
    assert_eq!(sign(&signer, &message, &[1]), whole);

    let field = SignatureField::read(&whole);
    let hash: [u8; 32] = Sha256::digest(body_form(body, content)).into();
    assert_eq!(field.bytes("bh"), hash);
    let expected = header_form(header, &section, field.tag("h"), &field.unsigned);
    assert_eq!(String::from_utf8(field.bytes("b")).unwrap(), expected);
}
