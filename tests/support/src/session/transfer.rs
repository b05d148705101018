//! A transaction as its caller sees it, and what must hold of it on the wire.

use std::collections::HashSet;

use envoi::Address;
use envoi::proto::{Capabilities, Content, Protocol, Transaction};

use super::delivery_options::{self, Wish};
use super::wire::{Chunk, Went, parameters};
use super::{normalised, unstuffed};

/// A message up to this size goes as one chunk where its size is known.
const SMALL: u64 = 64 * 1024;

pub struct Transfer {
    /// Its recipients are those that were given so far.
    pub transaction: Transaction,
    pub wishes: Vec<Wish>,
    /// Whom those are about that are about one recipient.
    pub one: Address,
    /// It was opened by MAIL alone.
    pub by_steps: bool,
    /// A refusal of that, or of one recipient where all are wanted, ends it without another word.
    pub is_doomed: bool,
    /// The server refused MAIL, and so has no transaction.
    pub is_unopened: bool,
    /// Where it begins on the wire, with MAIL; unknown while the end of a message before it is
    /// held back.
    pub begins_at: Option<usize>,
    /// The recipients with a reply, and those of them that were accepted.
    pub told: Vec<usize>,
    pub accepted: Vec<usize>,
    /// Who was given a verdict of his own on the message, and whether it was positive.
    pub verdicts: Vec<(usize, bool)>,
    pub text: Vec<u8>,
    /// Where the message begins and ends on the wire; the end, once it may be written.
    pub starts_at: Option<usize>,
    pub ends_at: Option<usize>,
    /// Its end was given, and is held back: until its hand-over, or that of a message before it.
    pub is_held: bool,
    /// The caller has permitted its end.
    pub is_permitted: bool,
    /// The caller has withdrawn it.
    pub is_withdrawn: bool,
    /// It goes behind BDAT, and not behind DATA.
    pub in_chunks: bool,
    pub is_sent: bool,
    /// Its outcome was told, or the session failed.
    pub is_over: bool,
}

/// What a session's transactions are measured by.
pub struct Session<'a> {
    pub protocol: Protocol,
    pub protected: bool,
    pub chunk_size: usize,
    pub server: &'a Capabilities,
    /// All that the server said since the upgrade, in upper case.
    pub heard: &'a [u8],
}

impl Session<'_> {
    /// The newest EHLO had this keyword. It may have stood in the words of the machine's alone.
    fn offers(&self, keyword: &str) -> bool {
        self.server.offers(keyword)
            && self
                .heard
                .windows(keyword.len())
                .any(|window| window == keyword.as_bytes())
    }
}

impl Transfer {
    /// The replies so far say that no recipient gets it.
    pub fn is_refused(&self) -> bool {
        let all_refused =
            self.told.len() == self.transaction.recipients.len() && self.accepted.is_empty();
        let all_verdicts = !self.accepted.is_empty() && self.verdicts.len() == self.accepted.len();
        self.is_unopened
            || all_refused
            || all_verdicts && self.verdicts.iter().all(|(_, positive)| !positive)
    }

    pub fn new(mut transaction: Transaction, wishes: &[Wish], begins_at: Option<usize>) -> Self {
        let anybody = || Address::new("you@example.com").unwrap();
        let one = transaction
            .recipients
            .first()
            .cloned()
            .unwrap_or_else(anybody);
        transaction.delivery = delivery_options::delivery(wishes, &one);
        Transfer {
            transaction,
            wishes: wishes.to_vec(),
            one,
            by_steps: false,
            is_doomed: false,
            is_unopened: false,
            begins_at,
            told: Vec::new(),
            accepted: Vec::new(),
            verdicts: Vec::new(),
            text: Vec::new(),
            starts_at: None,
            ends_at: None,
            is_held: false,
            is_permitted: false,
            is_withdrawn: false,
            in_chunks: false,
            is_sent: false,
            is_over: false,
        }
    }

    /// Whether the caller is to permit its end.
    pub fn awaits_permission(&self) -> bool {
        let is_undecided = !self.is_permitted && !self.is_withdrawn && !self.is_over;
        self.is_held && self.transaction.hand_over && is_undecided
    }

    /// The size that a chunk is announced with before the message is there.
    fn announced(&self) -> Option<u64> {
        self.transaction
            .size
            .filter(|size| (1..=SMALL).contains(size))
    }

    /// Nothing of the message must go before every recipient was answered: all may be refused,
    /// and large.
    pub fn waits(&self) -> bool {
        let goes_in_several =
            self.transaction.content == Content::Binary && self.announced().is_none();
        self.transaction.all_or_nothing || goes_in_several
    }

    /// The commands keep to what the server offers, and leave out nothing that was asked for.
    pub fn check_commands(&self, went: &Went, session: &Session) {
        let path = self.transaction.reverse_path.as_ref();
        let (_, rest) = split("MAIL FROM:", path, went.mail);
        let mut found = parameters(rest);
        for parameter in found.keys().filter(|parameter| **parameter != "BODY") {
            let keyword = delivery_options::extension(parameter);
            assert!(
                session.offers(keyword),
                "{keyword} is not offered: {:?}",
                went.mail
            );
        }
        for (parameter, expected) in delivery_options::in_mail(&self.wishes) {
            let value = found
                .remove(parameter)
                .unwrap_or_else(|| panic!("{parameter} is missing: {:?}", went.mail));
            assert_eq!(
                delivery_options::decoded(parameter, value),
                expected,
                "{:?}",
                went.mail
            );
            assert!(
                parameter != "REQUIRETLS" || session.protected,
                "in clear: {:?}",
                went.mail
            );
        }
        if let Some(size) = found.remove("SIZE") {
            let size = size.parse().expect("a size is a number");
            assert_eq!(Some(size), self.transaction.size);
            assert!(
                session
                    .server
                    .size_limit()
                    .is_none_or(|limit| size <= limit),
                "more than the server takes"
            );
        }
        let body = found.remove("BODY");
        match body {
            Some("8BITMIME") => assert!(session.offers("8BITMIME")),
            Some("BINARYMIME") => {
                assert!(session.offers("BINARYMIME") && session.offers("CHUNKING"))
            }
            other => assert_eq!(other, None),
        }
        assert_eq!(
            body == Some("BINARYMIME"),
            self.transaction.content == Content::Binary
        );
        let utf8 = found.remove("SMTPUTF8").is_some();
        assert!(utf8 || !self.transaction.utf8_headers);
        if found.remove("PRDR").is_some() {
            assert_eq!(session.protocol, Protocol::Smtp);
            assert!(!self.transaction.all_or_nothing && self.transaction.recipients.len() > 1);
        } else {
            assert!(
                session.protocol == Protocol::Lmtp || self.verdicts.is_empty(),
                "unrequested verdicts"
            );
        }
        assert!(found.is_empty(), "{found:?} was not requested");

        assert!(went.rcpts.len() <= self.transaction.recipients.len());
        for (rcpt, recipient) in went.rcpts.iter().zip(&self.transaction.recipients) {
            let (path, rest) = split("RCPT TO:", Some(recipient), rcpt);
            let found = parameters(rest);
            assert!(
                found.is_empty() || session.offers("DSN"),
                "DSN is not offered: {rcpt:?}"
            );
            let found = found.iter().map(|(parameter, value)| {
                (*parameter, delivery_options::decoded(parameter, value))
            });
            let expected = delivery_options::in_rcpt(&self.wishes, *recipient == self.one, path);
            assert!(
                found.eq(expected
                    .iter()
                    .map(|(parameter, value)| (*parameter, value.clone()))),
                "{rcpt:?}"
            );
            assert!(utf8 || rcpt.is_ascii(), "without SMTPUTF8: {rcpt:?}");
        }
        assert!(
            utf8 || went.mail.is_ascii(),
            "without SMTPUTF8: {:?}",
            went.mail
        );
        self.check_limits(went, session);
    }

    /// No more at once than the server takes (RFC 9422).
    fn check_limits(&self, went: &Went, session: &Session) {
        let limits = session.server.limits();
        assert!(
            limits.rcpt_max.is_none_or(|max| went.rcpts.len() <= max),
            "{} recipients",
            went.rcpts.len()
        );
        let domain = |recipient: &Address| {
            // A domain beyond ASCII has another spelling, whatever stands before it.
            let plain = Address::new(format!("x@{}", recipient.domain())).expect("it is a domain");
            plain
                .to_ascii()
                .as_deref()
                .unwrap_or(recipient)
                .domain()
                .to_lowercase()
        };
        let domains: HashSet<String> = self
            .transaction
            .recipients
            .iter()
            .take(went.rcpts.len())
            .map(domain)
            .collect();
        assert!(
            limits
                .rcpt_domain_max
                .is_none_or(|max| domains.len() <= max),
            "the domains {domains:?}"
        );
    }

    /// What went of the message is what was given, and nothing that a server could take for a whole
    /// one if it was not.
    pub fn check_message(&self, went: &Went, wire: usize, session: &Session) {
        let is_binary = self.transaction.content == Content::Binary;
        let text = if is_binary {
            self.text.clone()
        } else {
            normalised(&self.text)
        };
        let is_whole = self.ends_at.is_some_and(|end| wire >= end);
        if let Some(message) = went.message {
            assert!(!is_binary, "a binary message behind DATA");
            assert!(went.chunks.is_empty(), "chunks and DATA");
            assert!(
                message.is_ascii() || session.offers("8BITMIME"),
                "bytes beyond ASCII, and no 8BITMIME"
            );
            if is_whole {
                assert_eq!(unstuffed(message).expect("the message has an end"), text);
            } else {
                assert_eq!(end_of_data(message), None, "an end that was not permitted");
            }
            return;
        }
        let Some((last, others)) = went.chunks.split_last() else {
            return assert!(!is_whole, "a message of which nothing went");
        };
        assert!(session.offers("CHUNKING"));
        for chunk in others {
            assert!(!chunk.is_last, "a chunk behind the last one");
            assert_eq!(chunk.bytes.len(), chunk.size);
        }
        if let Some(size) = self.announced() {
            assert!(
                last.is_last && last.size as u64 == size && others.is_empty(),
                "one chunk as announced"
            );
        } else {
            assert!(is_binary, "only what must goes in several chunks");
            let size = session.chunk_size.max(1);
            assert!(
                others.iter().all(|chunk| chunk.size == size),
                "chunks of one size but for the last"
            );
            assert!(last.size == size || last.is_last && last.size < size);
        }
        let joined: Vec<u8> = went
            .chunks
            .iter()
            .flat_map(|chunk: &Chunk| chunk.bytes)
            .copied()
            .collect();
        assert!(text.starts_with(&joined), "what went is not what was given");
        assert!(
            is_binary || joined.is_ascii() || session.offers("8BITMIME"),
            "bytes beyond ASCII, and no 8BITMIME"
        );
        assert_eq!(
            last.is_last && last.bytes.len() == last.size,
            is_whole,
            "a message is whole where it was ended"
        );
        assert!(!is_whole || joined == text);
    }
}

/// Where the strictest server finds the end of a message after DATA.
pub fn end_of_data(message: &[u8]) -> Option<usize> {
    if message.starts_with(b".\r\n") {
        return Some(3);
    }
    let end = message
        .windows(5)
        .position(|window| window == b"\r\n.\r\n")?;
    Some(end + 5)
}

/// The path of a command and what stands behind it. An address beyond ASCII has two spellings.
fn split<'a>(verb: &str, path: Option<&Address>, command: &'a str) -> (&'a str, &'a str) {
    let command = command
        .strip_prefix(verb)
        .expect("the command has its verb");
    let spellings = [path.map_or("", Address::as_str).to_owned()].into_iter();
    let ascii = path
        .and_then(Address::to_ascii)
        .map(|address| address.as_str().to_owned());
    for spelling in spellings.chain(ascii) {
        if command.starts_with(&format!("<{spelling}>")) {
            return (&command[1..=spelling.len()], &command[spelling.len() + 2..]);
        }
    }
    panic!("{command:?} is not for {path:?}");
}
