//! [`MessageSigner`]: reads a message, and makes its DKIM-Signature fields (RFC 6376, 3.5 and 3.7).

use std::fmt;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use sha2::{Digest as _, Sha256};

use super::DkimSigner;
use super::body::BodyHash;
use super::header::Fields;
use crate::{Error, Result};

/// A line is folded before it has more bytes than this.
const LINE: usize = 76;

/// The largest piece of the header section that is copied at once.
const BLOCK: usize = 64 * 1024;

/// Signs a message that is given in pieces, for messages that envoi does not send;
/// [`Message::dkim`](crate::Message::dkim) does this when it prepares a message. Memory is needed
/// for the header section alone.
///
/// ```
/// # #[cfg(any(feature = "aws-lc-rs", feature = "ring"))] {
/// use envoi::dkim::{DkimKey, DkimSigner, MessageSigner};
///
/// # let pem = "-----BEGIN PRIVATE KEY-----\n\
/// #     MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
/// #     -----END PRIVATE KEY-----\n";
/// let signer = DkimSigner::new("example.org", "2026", DkimKey::from_pem(pem)?)?;
/// let message = "From: alice@example.org\r\nSubject: Hello\r\n\r\nHello.\r\n";
/// let mut signing = MessageSigner::new([signer]);
/// signing.update(message);
/// let signed = signing.finish()? + message;
/// assert!(signed.starts_with("DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;"));
/// # }
/// # Ok::<(), envoi::Error>(())
/// ```
#[must_use = "a signature is made by finish"]
pub struct MessageSigner {
    signers: Vec<DkimSigner>,
    /// The header section, with the empty line that ends it.
    section: Vec<u8>,
    is_in_body: bool,
    /// One for each canonicalization that a signer has.
    bodies: Vec<BodyHash>,
}

impl MessageSigner {
    /// Creates one signature for each signer, in one pass.
    pub fn new(signers: impl IntoIterator<Item = DkimSigner>) -> Self {
        let signers: Vec<DkimSigner> = signers.into_iter().collect();
        let mut bodies: Vec<BodyHash> = Vec::new();
        for signer in &signers {
            let (_, body) = signer.get_canonicalization();
            if bodies.iter().all(|known| known.canonicalization() != body) {
                bodies.push(BodyHash::new(body));
            }
        }
        MessageSigner {
            signers,
            section: Vec::new(),
            is_in_body: false,
            bodies,
        }
    }

    /// Reads the next piece of the message: the bytes that are sent, with CRLF line ends, before
    /// dots are doubled.
    pub fn update(&mut self, piece: impl AsRef<[u8]>) {
        let mut rest = piece.as_ref();
        while !self.is_in_body && !rest.is_empty() {
            let (block, next) = rest.split_at(BLOCK.min(rest.len()));
            let before = self.section.len();
            self.section.extend_from_slice(block);
            rest = match end_of_section(&self.section, before) {
                None => next,
                Some(end) => {
                    self.section.truncate(end);
                    self.is_in_body = true;
                    &rest[end - before..]
                }
            };
        }
        if !rest.is_empty() {
            for body in &mut self.bodies {
                body.update(rest);
            }
        }
    }

    /// Ends the message, and returns its DKIM-Signature fields, each ending with CRLF: they are put
    /// before the message. Blocks while the keys sign: some milliseconds, or what a key service
    /// takes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request): the message has no From header.
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): a key cannot sign.
    pub fn finish(self) -> Result<String> {
        let section = Fields::read(&self.section);
        if section.count("From") == 0 {
            return Err(
                Error::request("a message without a From header cannot be signed by DKIM")
                    .with_hint("Give it a From header, or send it without a signature."),
            );
        }
        let now = SystemTime::now();
        let hashes: Vec<_> = self
            .bodies
            .into_iter()
            .map(|body| (body.canonicalization(), body.finish()))
            .collect();
        let mut fields = String::new();
        for signer in &self.signers {
            let (header, body) = signer.get_canonicalization();
            let hash = hashes
                .iter()
                .find(|(canonicalization, _)| *canonicalization == body)
                .map_or(&[][..], |(_, hash)| hash);
            let names = signer.signed_names(&|name| section.count(name));
            let unsigned = unsigned_field(signer, &names, hash, now);
            let input = section.hash_input(&names, header, &unsigned);
            let signature = signer.key().sign(&input, &Sha256::digest(&input))?;
            fields.push_str(&unsigned);
            fields.push_str(&folded(&STANDARD.encode(signature)));
            fields.push_str("\r\n");
        }
        Ok(fields)
    }
}

impl fmt::Debug for MessageSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageSigner")
            .field("signers", &self.signers)
            .finish_non_exhaustive()
    }
}

/// The end of a header section with its empty line, of which the first `before` bytes have been
/// searched.
fn end_of_section(section: &[u8], before: usize) -> Option<usize> {
    if section.starts_with(b"\r\n") {
        return Some(2);
    }
    let start = before.saturating_sub(3);
    memmem::find(&section[start..], b"\r\n\r\n").map(|at| start + at + 4)
}

/// The field with an empty `b=`, which comes last, without a line end.
fn unsigned_field(signer: &DkimSigner, names: &[&str], hash: &[u8], now: SystemTime) -> String {
    let (header, body) = signer.get_canonicalization();
    let time = signer.get_signed_at().unwrap_or(now);
    let mut field = Field::new();
    field.tag("v=1;");
    field.tag(&format!("a={};", signer.key().algorithm()));
    field.tag(&format!("c={}/{};", header.as_str(), body.as_str()));
    field.tag(&format!("d={};", signer.domain()));
    field.tag(&format!("s={};", signer.selector()));
    if let Some(identity) = signer.get_identity() {
        field.tag(&format!("i={identity};"));
    }
    field.tag(&format!("t={};", seconds(time)));
    if let Some(expiry) = signer.get_expires_after() {
        let end = seconds(time).saturating_add(expiry.as_secs().max(1));
        field.tag(&format!("x={end};"));
    }
    for (at, name) in names.iter().enumerate() {
        let before = if at == 0 { "h=" } else { "" };
        let after = if at + 1 == names.len() { ';' } else { ':' };
        let word = format!("{before}{name}{after}");
        if at == 0 {
            field.tag(&word);
        } else {
            field.continue_tag(&word);
        }
    }
    field.tag(&format!("bh={};", STANDARD.encode(hash)));
    field.text.push_str("\r\n b=");
    field.text
}

/// The seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// A field that is folded while it is written.
struct Field {
    text: String,
    /// The length of the last line.
    line: usize,
}

impl Field {
    fn new() -> Self {
        let text = String::from("DKIM-Signature:");
        let line = text.len();
        Field { text, line }
    }

    /// Adds a tag.
    fn tag(&mut self, tag: &str) {
        self.add(tag, " ");
    }

    /// Adds a further word of the last tag.
    fn continue_tag(&mut self, word: &str) {
        self.add(word, "");
    }

    /// Adds a word after `separator`, or in a new line.
    fn add(&mut self, word: &str, separator: &str) {
        if self.line + separator.len() + word.len() > LINE {
            self.text.push_str("\r\n ");
            self.line = 1;
        } else {
            self.text.push_str(separator);
            self.line += separator.len();
        }
        self.text.push_str(word);
        self.line += word.len();
    }
}

/// Folds the base64 of a signature, after `b=`.
fn folded(encoded: &str) -> String {
    let mut lines = String::with_capacity(encoded.len() + encoded.len() / 16);
    let mut rest = encoded;
    while rest.len() > LINE - 3 {
        let (line, next) = rest.split_at(LINE - 3);
        lines.push_str(line);
        lines.push_str("\r\n ");
        rest = next;
    }
    lines + rest
}
