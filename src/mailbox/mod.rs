//! Mailboxes with names, and lists of them, as people write them and as headers have them:
//! `"Bob, Jr." <bob@example.org>, Friends: carol@example.org, dave@example.org;`.
//!
//! An [`Address`] is what MAIL and RCPT take. A [`Mailbox`] adds the name that a mail program
//! shows, and a [`MailboxList`] is what stands in a To field, an address book or a setting.
//!
//! ```
//! use envoi::{Envelope, MailboxList, mail_builder::MessageBuilder};
//!
//! let to: MailboxList = r#""Bob, Jr." <bob@example.org>, carol@example.org (Carol)"#.parse()?;
//! let names: Vec<_> = to.mailboxes().filter_map(|mailbox| mailbox.name()).collect();
//! assert_eq!(names, ["Bob, Jr.", "Carol"]);
//! assert_eq!(to.to_string(), r#""Bob, Jr." <bob@example.org>, Carol <carol@example.org>"#);
//!
//! let mail = MessageBuilder::new().from("alice@example.org").to(to.clone()).text_body("Hello.");
//! // Or the envelope alone:
//! let envelope = Envelope::new("alice@example.org", to)?;
//! # Ok::<(), envoi::Error>(())
//! ```
//!
//! # What is parsed
//!
//! The syntax of RFC 5322, 3.4, with its obsolete forms, and letters beyond ASCII (RFC 6532):
//!
//! - names as words, as quoted strings and as encoded words (RFC 2047) in UTF-8, US-ASCII,
//!   ISO-8859-1 and windows-1252; encoded words in other character sets stay as they are;
//! - groups, comments, folded lines, empty elements of a list, and source routes, which are
//!   dropped (RFC 5321, appendix C). A comment is the name of a mailbox that has no other.
//!
//! Some forms that the syntax forbids are parsed, too, as they have one meaning only: a name with
//! dots, at signs or square brackets and without quotes, and semicolons between mailboxes.
//!
//! Names may have any character but control characters and line separators. Addresses are
//! validated as [`Address::new`] does. Parsing takes time that is linear in the length of the text.

mod encoded_word;
mod parse;
#[cfg(feature = "serde")]
mod serde;

use std::fmt;
use std::str::FromStr;

use crate::address::{Address, AddressError, is_atext};
use crate::text::quoted;
use parse::{AddressParser, parse};

/// A mailbox: an address, and the name of its user if there is one.
///
/// `Display` writes it so that it can be parsed again; the name is in quotes where it must be.
///
/// ```
/// use envoi::{Address, Mailbox};
///
/// let bob: Mailbox = r#""Bob, Jr." <bob@example.org>"#.parse()?;
/// assert_eq!((bob.name(), bob.address().as_str()), (Some("Bob, Jr."), "bob@example.org"));
/// let carol = Mailbox::with_name("Carol", Address::new("carol@example.org")?)?;
/// assert_eq!(carol.to_string(), "Carol <carol@example.org>");
/// # Ok::<(), envoi::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mailbox {
    name: Option<String>,
    address: Address,
}

impl Mailbox {
    /// Creates a mailbox with a name. A name of blanks alone counts as none.
    ///
    /// # Errors
    ///
    /// [`MailboxFault::ControlCharacter`] in the name.
    pub fn with_name(name: impl Into<String>, address: Address) -> Result<Self, MailboxError> {
        let name = name.into();
        match checked_name(name.clone()) {
            Ok(name) => Ok(Mailbox { name, address }),
            Err(fault) => Err(MailboxError { text: name, fault }),
        }
    }

    /// Returns the name, decoded and without quotes.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the address.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl From<Address> for Mailbox {
    fn from(address: Address) -> Self {
        Mailbox {
            name: None,
            address,
        }
    }
}

impl From<Mailbox> for Address {
    fn from(mailbox: Mailbox) -> Self {
        mailbox.address
    }
}

impl From<&Mailbox> for Address {
    fn from(mailbox: &Mailbox) -> Self {
        mailbox.address.clone()
    }
}

impl FromStr for Mailbox {
    type Err = MailboxError;

    /// Parses one mailbox, with or without a name.
    fn from_str(text: &str) -> Result<Self, MailboxError> {
        Mailbox::parse(text, Address::new)
    }
}

impl Mailbox {
    fn parse(text: &str, address: AddressParser) -> Result<Self, MailboxError> {
        let one = |fault| MailboxError {
            text: text.to_owned(),
            fault,
        };
        let mut entries = parse(text, address)?.into_iter();
        match (entries.next(), entries.next()) {
            (Some(Entry::Mailbox(mailbox)), None) => Ok(mailbox),
            (None, _) => Err(one(MailboxFault::Empty)),
            _ => Err(one(MailboxFault::NotOne)),
        }
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} <{}>", Phrase(name), self.address),
            None => self.address.fmt(f),
        }
    }
}

/// A list of mailboxes and groups, in order.
///
/// `Display` writes it in one line that can be parsed again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MailboxList(Vec<Entry>);

/// An entry of a [`MailboxList`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Entry {
    /// A mailbox.
    Mailbox(Mailbox),
    /// A group with a name.
    Group(Group),
}

/// Mailboxes with a common name: `Friends: carol@example.org, dave@example.org;`. It may be empty,
/// as in `undisclosed-recipients:;`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    name: String,
    mailboxes: Vec<Mailbox>,
}

impl Group {
    /// Creates a group.
    ///
    /// # Errors
    ///
    /// [`MailboxFault::ControlCharacter`] in the name, or [`MailboxFault::Empty`] for a name of
    /// blanks alone.
    pub fn new(
        name: impl Into<String>,
        mailboxes: impl IntoIterator<Item = Mailbox>,
    ) -> Result<Self, MailboxError> {
        let name = name.into();
        match checked_name(name.clone()).and_then(|name| name.ok_or(MailboxFault::Empty)) {
            Ok(name) => Ok(Group {
                name,
                mailboxes: mailboxes.into_iter().collect(),
            }),
            Err(fault) => Err(MailboxError { text: name, fault }),
        }
    }

    /// Returns the name, decoded and without quotes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the mailboxes.
    pub fn mailboxes(&self) -> &[Mailbox] {
        &self.mailboxes
    }
}

impl MailboxList {
    /// Creates an empty list.
    pub fn new() -> Self {
        MailboxList::default()
    }

    /// Appends a mailbox or a group.
    pub fn push(&mut self, entry: impl Into<Entry>) {
        self.0.push(entry.into());
    }

    /// Returns the entries: mailboxes, and groups as such.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// Returns all mailboxes, those of groups included.
    pub fn mailboxes(&self) -> impl Iterator<Item = &Mailbox> {
        self.0.iter().flat_map(|entry| match entry {
            Entry::Mailbox(mailbox) => std::slice::from_ref(mailbox),
            Entry::Group(group) => &group.mailboxes,
        })
    }

    /// Whether there is no entry. A list with an empty group is not empty, but has no
    /// [mailbox](Self::mailboxes).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Mailbox> for Entry {
    fn from(mailbox: Mailbox) -> Self {
        Entry::Mailbox(mailbox)
    }
}

impl From<Address> for Entry {
    fn from(address: Address) -> Self {
        Entry::Mailbox(address.into())
    }
}

impl From<Group> for Entry {
    fn from(group: Group) -> Self {
        Entry::Group(group)
    }
}

impl<E: Into<Entry>> FromIterator<E> for MailboxList {
    fn from_iter<I: IntoIterator<Item = E>>(entries: I) -> Self {
        MailboxList(entries.into_iter().map(Into::into).collect())
    }
}

impl<E: Into<Entry>> Extend<E> for MailboxList {
    fn extend<I: IntoIterator<Item = E>>(&mut self, entries: I) {
        self.0.extend(entries.into_iter().map(Into::into));
    }
}

impl IntoIterator for MailboxList {
    type Item = Mailbox;
    type IntoIter = std::vec::IntoIter<Mailbox>;

    /// All mailboxes, those of groups included, as [`Envelope::new`](crate::Envelope::new) takes
    /// them.
    fn into_iter(self) -> Self::IntoIter {
        let mut mailboxes = Vec::with_capacity(self.0.len());
        for entry in self.0 {
            match entry {
                Entry::Mailbox(mailbox) => mailboxes.push(mailbox),
                Entry::Group(group) => mailboxes.extend(group.mailboxes),
            }
        }
        mailboxes.into_iter()
    }
}

impl FromStr for MailboxList {
    type Err = MailboxError;

    /// Parses a list, which may be empty.
    fn from_str(text: &str) -> Result<Self, MailboxError> {
        parse(text, Address::new).map(MailboxList)
    }
}

impl fmt::Display for MailboxList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(&self.0, f)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Mailbox(mailbox) => mailbox.fmt(f),
            Entry::Group(group) => group.fmt(f),
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blank = if self.mailboxes.is_empty() { "" } else { " " };
        write!(f, "{}:{blank}", Phrase(&self.name))?;
        write_list(&self.mailboxes, f)?;
        f.write_str(";")
    }
}

fn write_list(list: &[impl fmt::Display], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    list.iter().enumerate().try_for_each(|(at, entry)| {
        let comma = if at > 0 { ", " } else { "" };
        write!(f, "{comma}{entry}")
    })
}

/// Conversions from text, beside `FromStr`.
macro_rules! try_from_text {
    ($($type:ty),*) => {$(
        impl TryFrom<&str> for $type {
            type Error = MailboxError;

            fn try_from(text: &str) -> Result<Self, MailboxError> {
                text.parse()
            }
        }

        impl TryFrom<String> for $type {
            type Error = MailboxError;

            fn try_from(text: String) -> Result<Self, MailboxError> {
                text.parse()
            }
        }
    )*};
}

try_from_text!(Mailbox, MailboxList);

/// A text that is not a mailbox or a list of mailboxes.
///
/// [`Error::from`](crate::Error) makes it an error of the kind
/// [`Request`](crate::ErrorKind::Request), with advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxError {
    text: String,
    fault: MailboxFault,
}

impl MailboxError {
    /// The part of the text that is not valid: in a list, the entry up to the fault.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is wrong with it.
    pub fn fault(&self) -> &MailboxFault {
        &self.fault
    }
}

/// What is wrong with a mailbox or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MailboxFault {
    /// There is no mailbox, or no name of a group.
    Empty,
    /// There are several mailboxes, or a group, where one mailbox is expected.
    NotOne,
    /// The address is not valid.
    Address(AddressError),
    /// There is a name without an address.
    NoAddress,
    /// There is text after the address.
    TextAfterAddress,
    /// This character begins a part that does not end: `"`, `(`, `<`, `[`, or `:` for a group.
    Unterminated(char),
    /// This character is in a place where it has no meaning.
    Unexpected(char),
    /// A name has a control character or a line separator.
    ControlCharacter(char),
}

impl fmt::Display for MailboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = quoted(&self.text);
        match &self.fault {
            // It has the text of the address.
            MailboxFault::Address(error) => error.fmt(f),
            fault => write!(f, "the mailbox {text} is not valid: {fault}"),
        }
    }
}

impl fmt::Display for MailboxFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MailboxFault::Empty => f.write_str("it is empty"),
            MailboxFault::NotOne => f.write_str("it is a list, not one mailbox"),
            MailboxFault::Address(error) => error.fault().fmt(f),
            MailboxFault::NoAddress => f.write_str("it has no address"),
            MailboxFault::TextAfterAddress => f.write_str("there is text after the address"),
            MailboxFault::Unterminated('"') => f.write_str("a quoted name does not end"),
            MailboxFault::Unterminated('(') => f.write_str("a comment does not end"),
            MailboxFault::Unterminated(':') => f.write_str("a group does not end with a semicolon"),
            MailboxFault::Unterminated(c) => write!(f, "what begins with {c:?} does not end"),
            MailboxFault::Unexpected(c) => write!(f, "{c:?} has no meaning there"),
            MailboxFault::ControlCharacter('\r' | '\n') => f.write_str("it contains a line break"),
            MailboxFault::ControlCharacter(c) => {
                write!(
                    f,
                    "it contains the control character U+{:04X}",
                    u32::from(*c)
                )
            }
        }
    }
}

impl std::error::Error for MailboxError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            MailboxFault::Address(error) => Some(error),
            _ => None,
        }
    }
}

/// A name as it is written: as words if these are parsed to the same name, else as a quoted string.
struct Phrase<'a>(&'a str);

impl fmt::Display for Phrase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        let is_word = |word: &str| !word.is_empty() && word.chars().all(is_atext);
        if self.0.split(' ').all(is_word) && !self.0.contains("=?") {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            if matches!(c, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}

/// Returns the name if it can be written in a line; `None` if it is blank.
fn checked_name(name: String) -> Result<Option<String>, MailboxFault> {
    let is_bad = |c: &char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    match name.chars().find(is_bad) {
        Some(c) => Err(MailboxFault::ControlCharacter(c)),
        None if name.trim().is_empty() => Ok(None),
        None => Ok(Some(name)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The entries as `name|address` and `group[…]`.
    fn parsed(text: &str) -> Vec<String> {
        let show = |mailbox: &Mailbox| {
            let name = mailbox.name().unwrap_or_default();
            format!("{name}|{}", mailbox.address())
        };
        let list: MailboxList = text
            .parse()
            .unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let entries = list.entries().iter().map(|entry| match entry {
            Entry::Mailbox(mailbox) => show(mailbox),
            Entry::Group(group) => {
                let mailboxes: Vec<_> = group.mailboxes().iter().map(show).collect();
                format!("{}[{}]", group.name(), mailboxes.join(" "))
            }
        });
        entries.collect()
    }

    #[test]
    fn lists_are_parsed_as_rfc_5322_says() {
        for (text, expected) in [
            ("", &[][..]),
            (" , ,", &[]),
            ("bob@example.org", &["|bob@example.org"]),
            ("<bob@example.org>", &["|bob@example.org"]),
            (
                r#""Bob, Jr." <bob@example.org>, Carol Doe<carol@example.org>"#,
                &["Bob, Jr.|bob@example.org", "Carol Doe|carol@example.org"],
            ),
            // RFC 5322, A.1.2, A.1.3 and A.6.1.
            (
                "Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>",
                &[
                    "Mary Smith|mary@x.test",
                    "|jdoe@example.org",
                    "Who?|one@y.test",
                ],
            ),
            (
                r#"<boss@nil.test>, "Giant; \"Big\" Box" <sysservices@example.net>"#,
                &[
                    "|boss@nil.test",
                    "Giant; \"Big\" Box|sysservices@example.net",
                ],
            ),
            (
                "A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;",
                &["A Group[Ed Jones|c@a.test |joe@where.test John|jdoe@one.test]"],
            ),
            ("Undisclosed recipients:;", &["Undisclosed recipients[]"]),
            (
                "Joe Q. Public <john.q.public@example.com>",
                &["Joe Q. Public|john.q.public@example.com"],
            ),
            (
                "Mary Smith <@node.test,@b.test:mary@example.net>, , jdoe@test  . example",
                &["Mary Smith|mary@example.net", "|jdoe@test.example"],
            ),
            // RFC 5322, A.5.
            (
                "Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>",
                &["Pete|pete@silly.test"],
            ),
            (
                "A Group(Some people)\r\n     :Chris Jones <c@(Chris's host.)public.example>,\r\n\
                     \tjoe@example.org,\r\n  John <jdoe@one.test> (my dear friend); (the end)",
                &["A Group[Chris Jones|c@public.example |joe@example.org John|jdoe@one.test]"],
            ),
            (
                "(Empty list)(start)Hidden recipients  :(none(that I know))  ;",
                &["Hidden recipients[]"],
            ),
            (
                "a@x.test, G: b@x.test;, c@x.test",
                &["|a@x.test", "G[|b@x.test]", "|c@x.test"],
            ),
            (
                "bob@example.org (Bob \\(Smith\\))",
                &["Bob (Smith)|bob@example.org"],
            ),
            (
                r#""bob smith"@example.org"#,
                &[r#"|"bob smith"@example.org"#],
            ),
            (
                r#""a,b<c" <"x:y"@[IPv6:::1]>"#,
                &[r#"a,b<c|"x:y"@[IPv6:::1]"#],
            ),
            ("postmaster@[192.0.2.1]", &["|postmaster@[192.0.2.1]"]),
            (
                "J\u{f6}rg <j\u{f6}rg@b\u{fc}cher.example>",
                &["J\u{f6}rg|j\u{f6}rg@b\u{fc}cher.example"],
            ),
        ] {
            assert_eq!(parsed(text), expected, "{text:?}");
        }
    }

    #[test]
    fn forms_beyond_the_syntax_with_one_meaning_are_parsed() {
        for (text, expected) in [
            (
                "bob@example.org <bob@example.org>",
                &["bob@example.org|bob@example.org"][..],
            ),
            (
                "[List] Bob <bob@example.org>",
                &["[List] Bob|bob@example.org"],
            ),
            ("a@x.test; Bob <b@x.test>;", &["|a@x.test", "Bob|b@x.test"]),
            (
                "O\u{2019}Brien\u{a0}P. <p@x.test>",
                &["O\u{2019}Brien\u{a0}P.|p@x.test"],
            ),
        ] {
            assert_eq!(parsed(text), expected, "{text:?}");
        }
    }

    #[test]
    fn encoded_words_are_decoded() {
        for (word, name) in [
            ("=?utf-8?Q?J=C3=B6rg_M?= X", "J\u{f6}rg M X"),
            ("=?UTF-8?B?SsO2cmc=?=", "J\u{f6}rg"),
            ("=?UTF-8?B?SsO2cmc?=", "J\u{f6}rg"),
            ("=?iso-8859-1*de?q?J=F6rg?=", "J\u{f6}rg"),
            ("=?windows-1252?Q?=80=93?=", "\u{20ac}\u{201c}"),
            (
                "=?us-ascii?q?a?= =?utf-8?q?b?=\r\n =?utf-8?q?c?= d",
                "abc d",
            ),
            // A character cut in two.
            ("=?utf-8?q?=E2=82?= =?utf-8?q?=AC?=", "\u{20ac}"),
            ("=?utf-8?q?=FF?=", "\u{fffd}"),
            ("=?utf-8?q?a?=\"b\"", "ab"),
            // Not encoded words, or not in a known form.
            ("\"=?utf-8?q?a?=\"", "=?utf-8?q?a?="),
            ("=?koi8-r?q?a?=", "=?koi8-r?q?a?="),
            ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
            ("=?utf-8?q?=G0?=", "=?utf-8?q?=G0?="),
            ("=?utf-8?q?=4?=", "=?utf-8?q?=4?="),
            ("=?utf-8?b?!?=", "=?utf-8?b?!?="),
            ("=?utf-8?q?a?b?=", "=?utf-8?q?a?b?="),
            ("=?=", "=?="),
        ] {
            let mailbox: Mailbox = format!("{word} <a@example.org>").parse().unwrap();
            assert_eq!(mailbox.name(), Some(name), "{word}");
            assert_eq!(mailbox.to_string().parse(), Ok(mailbox), "{word}");
        }
        let named: Mailbox = "a@example.org (=?utf-8?q?J=C3=B6rg?=)".parse().unwrap();
        assert_eq!(named.name(), Some("J\u{f6}rg"));
    }

    #[test]
    fn invalid_lists_are_refused_with_their_fault() {
        use MailboxFault::*;
        for (text, at, fault) in [
            ("Bob", "Bob", NoAddress),
            ("a@x.test, Bob", "Bob", NoAddress),
            ("Bob, Jr. <bob@x.test>", "Bob,", NoAddress),
            ("\"a@b\"", "\"a@b\"", NoAddress),
            ("Bob <bob>", "Bob <bob>", NoAddress),
            ("a@x.test \"Bob", "a@x.test \"Bob", Unterminated('"')),
            ("\"a\\\"", "\"a\\\"", Unterminated('"')),
            ("a@x.test (b (c)", "a@x.test (b (c)", Unterminated('(')),
            ("(b \\)", "(b \\)", Unterminated('(')),
            ("Bob <a@x.test", "Bob <a@x.test", Unterminated('<')),
            ("a@[1.2.3.4", "a@[1.2.3.4", Unterminated('[')),
            ("G: a@x.test, b@x.test", "b@x.test", Unterminated(':')),
            ("a> b@x.test", "a>", Unexpected('>')),
            ("a) b@x.test", "a)", Unexpected(')')),
            ("a] b@x.test", "a]", Unexpected(']')),
            ("<<a@x.test>>", "<<", Unexpected('<')),
            ("<a@x.test> <b@x.test>", "<a@x.test> <", Unexpected('<')),
            ("<a@x.test, b@x.test>", "<a@x.test,", Unexpected(',')),
            ("<a:b@x.test>", "<a:", Unexpected(':')),
            ("G: H: a@x.test;;", "H:", Unexpected(':')),
            ("<a@x.test> b", "<a@x.test> b", TextAfterAddress),
            (": a@x.test;", ":", Empty),
            (
                "a@x.test\r\nBcc: b@x.test",
                "a@x.test",
                ControlCharacter('\r'),
            ),
            ("a@x.test\nb@x.test", "a@x.test", ControlCharacter('\n')),
            ("a\0 <a@x.test>", "a\0", ControlCharacter('\0')),
            (
                "=?utf-8?q?a=0D=0Ab?= <a@x.test>",
                "=?utf-8?q?a=0D=0Ab?= <a@x.test>",
                { ControlCharacter('\r') },
            ),
            (
                "=?utf-8?q?=E2=80=A8?= <a@x.test>",
                "=?utf-8?q?=E2=80=A8?= <a@x.test>",
                { ControlCharacter('\u{2028}') },
            ),
        ] {
            let error = text.parse::<MailboxList>().unwrap_err();
            assert_eq!((error.text(), error.fault()), (at, &fault), "{text:?}");
            assert!(text.parse::<Mailbox>().is_err());
        }
        for text in [
            "Bob bob@x.test",
            "bob@x..test",
            "<>",
            "Bob <bob smith@x.test>",
            "a@b@c",
        ] {
            let error = text.parse::<Mailbox>().unwrap_err();
            assert!(matches!(error.fault(), Address(_)), "{text:?}: {error}");
        }
        for (text, fault) in [("", Empty), ("a@x.test, b@x.test", NotOne), ("G:;", NotOne)] {
            assert_eq!(text.parse::<Mailbox>().unwrap_err().fault(), &fault);
        }
        let address = crate::Address::new("a@x.test").unwrap();
        let error = Mailbox::with_name("a\r\nBcc: b", address.clone()).unwrap_err();
        assert_eq!(error.fault(), &ControlCharacter('\r'));
        assert!(Group::new("a\nb", []).is_err() && Group::new(" ", []).is_err());
        assert_eq!(Mailbox::with_name(" ", address.clone()), Ok(address.into()));
    }

    fn name() -> impl Strategy<Value = String> {
        // What has a meaning in lists and encoded words, and any other text but line separators,
        // which are refused.
        let special = r#"[ a-c\\"(),.:;<>@\[\]?=_*öß€]{0,12}"#;
        let encoded = r"=\?(utf-8|koi8-r)\?[qQbB]\?[a-zA-Z0-9=_]{0,6}\?=( [a-z])?";
        prop_oneof![special, encoded, r"[\PC&&[^\u{2028}\u{2029}]]{0,12}"]
    }

    fn address() -> impl Strategy<Value = Address> {
        let local_part = r#"([a-z]{1,5}(\.[a-zö]{1,3})?|"[ a-c(),.:;@\[\]]{0,6}")"#;
        let domain = r"([a-z]{1,5}\.example|bücher\.example|\[192\.0\.2\.[1-9]\])";
        (local_part, domain)
            .prop_map(|(local, domain)| Address::new(format!("{local}@{domain}")).unwrap())
    }

    fn mailbox() -> impl Strategy<Value = Mailbox> {
        (name(), address()).prop_map(|(name, address)| Mailbox::with_name(name, address).unwrap())
    }

    fn list() -> impl Strategy<Value = MailboxList> {
        let mailboxes = || proptest::collection::vec(mailbox(), 0..4);
        let named = name().prop_filter("a name", |name| !name.trim().is_empty());
        let group = (named, mailboxes())
            .prop_map(|(name, mailboxes)| Entry::Group(Group::new(name, mailboxes).unwrap()));
        let entry = prop_oneof![3 => mailbox().prop_map(Entry::Mailbox), 1 => group];
        proptest::collection::vec(entry, 0..4).prop_map(MailboxList::from_iter)
    }

    proptest! {
        #[test]
        fn what_is_printed_is_parsed_to_the_same_list(list in list()) {
            let text = list.to_string();
            prop_assert_eq!(text.parse::<MailboxList>(), Ok(list), "{}", text);
        }

        #[cfg(feature = "client")]
        #[test]
        fn a_header_is_parsed_to_the_list_that_it_was_written_from(list in list()) {
            use mail_builder::headers::Header as _;

            let mut header = Vec::new();
            let value = mail_builder::headers::address::Address::from(list.clone());
            value.write_header(&mut header, 4);
            let header = String::from_utf8(header).unwrap();
            let parsed = header.trim_end_matches("\r\n").parse::<MailboxList>();
            prop_assert_eq!(parsed, Ok(list), "{}", header);
        }

        #[test]
        fn any_text_is_refused_or_parsed_to_what_can_be_printed(
            text in r#"([ \t\\"(),.:;<>@\[\]?=a-cö]|\r\n |=\?utf-8\?q\?=..\?=|\PC){0,24}"#
        ) {
            if let Ok(list) = text.parse::<MailboxList>() {
                let printed = list.to_string();
                prop_assert!(!printed.contains(char::is_control), "{printed:?}");
                prop_assert_eq!(printed.parse::<MailboxList>(), Ok(list), "{}", printed);
            }
        }
    }
}
