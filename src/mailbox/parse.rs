//! The parser of mailboxes and lists.

use std::borrow::Cow;

use super::encoded_word::{Charset, encoded_word};
use super::{Entry, Group, Mailbox, MailboxError, MailboxFault, checked_name};
use crate::address::{Address, AddressError};

/// [`Address::new`] or [`Address::lenient`].
pub(super) type AddressParser = fn(String) -> Result<Address, AddressError>;

/// A part of a name or an address, with its quotes or brackets.
#[derive(Clone, Copy)]
enum Piece<'a> {
    Word(&'a str),
    Quoted(&'a str),
    Literal(&'a str),
}

/// A piece, and whether a blank or a comment is before it.
type Spaced<'a> = (bool, Piece<'a>);

/// Where in an entry the parser is.
#[derive(Default)]
enum Place {
    /// In a name, or in an address without angle brackets.
    #[default]
    Name,
    /// In angle brackets.
    Angle,
    AfterAngle,
}

/// The entry that is being parsed.
#[derive(Default)]
struct Partial<'a> {
    place: Place,
    name: Vec<Spaced<'a>>,
    address: Vec<Spaced<'a>>,
    /// The last comment.
    comment: Option<&'a str>,
    is_spaced: bool,
}

impl<'a> Partial<'a> {
    fn push(&mut self, piece: Piece<'a>) -> Result<(), MailboxFault> {
        let spaced = (std::mem::take(&mut self.is_spaced), piece);
        match self.place {
            Place::Name => self.name.push(spaced),
            Place::Angle => self.address.push(spaced),
            Place::AfterAngle => return Err(MailboxFault::TextAfterAddress),
        }
        Ok(())
    }

    /// Whether a source route is being parsed: `<@a.example,@b.example:user@c.example>`.
    fn is_in_route(&self) -> bool {
        matches!(self.address.first(), Some((_, Piece::Word(word))) if word.starts_with('@'))
    }

    /// Ends the entry at a comma, a semicolon or the end of the text.
    fn finish(self, parse: AddressParser) -> Result<Option<Mailbox>, MailboxFault> {
        let address = match self.place {
            Place::Angle => return Err(MailboxFault::Unterminated('<')),
            Place::AfterAngle => &self.address,
            Place::Name if self.name.is_empty() => return Ok(None),
            Place::Name => &self.name,
        };
        let has_at = |(_, piece): &Spaced<'_>| matches!(piece, Piece::Word(w) if w.contains('@'));
        if !address.is_empty() && !address.iter().any(has_at) {
            return Err(MailboxFault::NoAddress);
        }
        let address = parse(addr_spec(address)).map_err(MailboxFault::Address)?;
        let name = match self.place {
            Place::AfterAngle => checked_name(phrase(&self.name))?,
            _ => None,
        };
        let name = match (name, self.comment) {
            (None, Some(comment)) => checked_name(phrase(&words(comment)))?,
            (name, _) => name,
        };
        Ok(Some(Mailbox { name, address }))
    }
}

pub(super) fn parse(text: &str, address: AddressParser) -> Result<Vec<Entry>, MailboxError> {
    let text = unfolded(text);
    let error = |from: usize, to: usize, fault| MailboxError {
        text: text[from..to].trim().to_owned(),
        fault,
    };
    let is_bad = |(_, c): &(usize, char)| c.is_control() && *c != '\t';
    if let Some((at, c)) = text.char_indices().find(is_bad) {
        return Err(error(
            0,
            at + c.len_utf8(),
            MailboxFault::ControlCharacter(c),
        ));
    }
    let mut entries = Vec::new();
    let mut group: Option<Group> = None;
    let mut partial = Partial::default();
    // The entry begins at `start`, and what is before `at` was parsed.
    let (mut start, mut at) = (0, 0);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = match c {
            '"' => quoted_length(rest),
            '(' => comment_length(rest),
            '[' => rest.find(']').map(|end| end + 1),
            c if is_special(c) => Some(1),
            _ => Some(rest.find(is_special).unwrap_or(rest.len())),
        };
        let Some(length) = length else {
            return Err(error(start, text.len(), MailboxFault::Unterminated(c)));
        };
        let token = &rest[..length];
        at += length;
        let fail = |fault| error(start, at, fault);
        match (c, &partial.place) {
            (' ' | '\t', _) => partial.is_spaced = true,
            ('(', _) => {
                partial.is_spaced = true;
                partial.comment = Some(&token[1..length - 1]);
            }
            ('"', _) => partial.push(Piece::Quoted(token)).map_err(fail)?,
            ('[', _) => partial.push(Piece::Literal(token)).map_err(fail)?,
            ('<', Place::Name) => partial.place = Place::Angle,
            ('>', Place::Angle) => partial.place = Place::AfterAngle,
            (',', Place::Angle) if partial.is_in_route() => partial.is_spaced = false,
            (':', Place::Angle) if partial.is_in_route() => partial.address.clear(),
            (',' | ';', Place::Name | Place::AfterAngle) => {
                let mailbox = std::mem::take(&mut partial).finish(address);
                add(mailbox.map_err(fail)?, &mut group, &mut entries);
                if c == ';' {
                    entries.extend(group.take().map(Entry::Group));
                }
                start = at;
            }
            (':', Place::Name) if group.is_none() => {
                let name = std::mem::take(&mut partial).name;
                let new = Group::new(phrase(&name), []);
                group = Some(new.map_err(|error| fail(error.fault))?);
                start = at;
            }
            (c, _) if is_special(c) => return Err(fail(MailboxFault::Unexpected(c))),
            _ => partial.push(Piece::Word(token)).map_err(fail)?,
        }
    }
    let mailbox = partial.finish(address);
    let mailbox = mailbox.map_err(|fault| error(start, at, fault))?;
    if group.is_some() {
        return Err(error(start, at, MailboxFault::Unterminated(':')));
    }
    add(mailbox, &mut group, &mut entries);
    Ok(entries)
}

fn add(mailbox: Option<Mailbox>, group: &mut Option<Group>, entries: &mut Vec<Entry>) {
    match group {
        Some(group) => group.mailboxes.extend(mailbox),
        None => entries.extend(mailbox.map(Entry::Mailbox)),
    }
}

/// The text without line breaks that a blank follows (RFC 5322, 2.2.3).
fn unfolded(text: &str) -> Cow<'_, str> {
    if !text.contains('\n') {
        return Cow::Borrowed(text);
    }
    let mut lines = text.split('\n');
    let mut unfolded = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        if line.starts_with([' ', '\t']) {
            unfolded.truncate(unfolded.strip_suffix('\r').unwrap_or(&unfolded).len());
        } else {
            unfolded.push('\n');
        }
        unfolded.push_str(line);
    }
    Cow::Owned(unfolded)
}

/// Whether the character is not part of a word: a blank, or one of RFC 5322's `specials` that
/// separate the parts of a list.
fn is_special(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t' | '"' | '(' | ')' | '<' | '>' | '[' | ']' | ',' | ';' | ':'
    )
}

/// The length of the quoted string at the beginning.
fn quoted_length(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    });
    end.map(|end| end + 2)
}

/// The length of the comment at the beginning, with the comments in it.
fn comment_length(text: &str) -> Option<usize> {
    let (mut depth, mut is_escaped) = (0_usize, false);
    let end = text.bytes().position(|byte| {
        match byte {
            b'(' if !is_escaped => depth += 1,
            b')' if !is_escaped => depth -= 1,
            _ => {}
        }
        is_escaped = byte == b'\\' && !is_escaped;
        depth == 0
    });
    end.map(|end| end + 1)
}

/// The words of a comment.
fn words(comment: &str) -> Vec<Spaced<'_>> {
    let words = comment.split([' ', '\t']).filter(|word| !word.is_empty());
    words.map(|word| (true, Piece::Word(word))).collect()
}

/// The address of these pieces, without the blanks that RFC 5322, 4.4 allows around `@` and dots.
fn addr_spec(pieces: &[Spaced<'_>]) -> String {
    let mut address = String::new();
    for (is_spaced, piece) in pieces {
        let (Piece::Word(text) | Piece::Quoted(text) | Piece::Literal(text)) = piece;
        let is_joined = address.ends_with(['@', '.']) || text.starts_with(['@', '.']);
        if *is_spaced && !is_joined && !address.is_empty() {
            address.push(' ');
        }
        address.push_str(text);
    }
    address
}

/// The name of these pieces, decoded.
fn phrase(pieces: &[Spaced<'_>]) -> String {
    let mut name = String::new();
    // A character may be cut in two by encoded words that follow each other.
    let mut encoded: Option<(Charset, Vec<u8>)> = None;
    for (is_spaced, piece) in pieces {
        let word = match piece {
            Piece::Word(word) => encoded_word(word),
            _ => None,
        };
        // The blanks between two encoded words are not part of the text (RFC 2047, 6.2).
        if let (Some((charset, bytes)), Some((next, more))) = (&mut encoded, &word)
            && charset == next
        {
            bytes.extend(more);
            continue;
        }
        let is_joined = encoded.is_some() && word.is_some();
        if let Some((charset, bytes)) = encoded.take() {
            name += &charset.decode(&bytes);
        }
        if *is_spaced && !is_joined && !name.is_empty() {
            name.push(' ');
        }
        match (word, piece) {
            (Some(word), _) => encoded = Some(word),
            (None, Piece::Quoted(text)) => name += &unescaped(&text[1..text.len() - 1]),
            (None, Piece::Word(text)) => name += &unescaped(text),
            (None, Piece::Literal(text)) => name += text,
        }
    }
    if let Some((charset, bytes)) = encoded {
        name += &charset.decode(&bytes);
    }
    name
}

/// The text without the backslashes of quoted pairs, and with blanks for tabs.
fn unescaped(text: &str) -> String {
    let mut unescaped = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => unescaped.extend(chars.next()),
            '\t' => unescaped.push(' '),
            c => unescaped.push(c),
        }
    }
    unescaped
}
