//! The addresses of MAIL and RCPT, validated once, by type.
//!
//! An [`Address`] can always be written into a command: it contains no line break, and no blank or
//! angle bracket outside of a quoted string. This module knows the syntax of RFC 5321, 4.1.2 (RFC
//! 6531, 3.3 for non-ASCII letters), but not headers, servers or DNS.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use crate::idna;
use crate::text::{is_unprintable, quoted};

/// The maximum length of a local part in octets (RFC 5321, 4.5.3.1.1).
const MAX_LOCAL_PART: usize = 64;
/// The maximum length of a domain in octets (RFC 5321, 4.5.3.1.2).
const MAX_DOMAIN: usize = 255;

/// A mailbox, `local-part@domain`, that is safe to write into a command. Cheap to clone.
///
/// ```
/// use envoi::Address;
///
/// let address = Address::new("alice@example.org")?;
/// assert_eq!(address.local_part(), "alice");
/// assert_eq!(address.domain(), "example.org");
/// assert!(Address::new("alice@example.org>\r\nDATA").is_err());
/// # Ok::<(), envoi::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Arc<str>);

impl Address {
    /// Checks an address: a dot-atom or a quoted string without angle brackets, an `@`, and a
    /// domain or an address literal. Letters may be non-ASCII; before the `@` they need a server
    /// with SMTPUTF8.
    ///
    /// A non-ASCII domain, or one with A-labels (`xn--…`), is refused if it is not a valid
    /// internationalized name (RFC 5890; feature `idna`). One that IDNA maps to a valid name, such
    /// as `BÜCHER.example`, is accepted, and that name is sent to the server.
    ///
    /// Control and format characters, non-ASCII spaces, and characters that Unicode lets a renderer
    /// leave out are refused: most are invisible, so that an address with one looks like another
    /// address.
    ///
    /// ```
    /// use envoi::Address;
    ///
    /// assert!(Address::new("\"alice smith\"@example.org").is_ok());
    /// let error = Address::new("alice@example.org\u{200b}").unwrap_err();
    /// assert!(error.to_string().contains("U+200B"));
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong and where.
    pub fn new(address: impl Into<String>) -> Result<Self, AddressError> {
        Self::check(address.into(), Rules::Strict)
    }

    /// Like [`new`](Self::new), but also accepts mailboxes that exist although the syntax forbids
    /// them, as some carriers have issued them (`john..doe.@example.org`), and quoted strings with
    /// angle brackets (`"john<doe>"@example.org`).
    ///
    /// # Errors
    ///
    /// What is wrong and where. Line breaks and NUL are refused here, too.
    pub fn lenient(address: impl Into<String>) -> Result<Self, AddressError> {
        Self::check(address.into(), Rules::Lenient)
    }

    /// Returns the part before the last `@`, as it was given.
    pub fn local_part(&self) -> &str {
        &self.0[..self.at()]
    }

    /// Returns the part after the last `@`, as it was given.
    pub fn domain(&self) -> &str {
        &self.0[self.at() + 1..]
    }

    /// Returns the whole address, as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the address is ASCII as it was given.
    pub fn is_ascii(&self) -> bool {
        self.0.is_ascii()
    }

    /// Returns the address in ASCII, which every server accepts: its domain as A-labels (`xn--…`,
    /// RFC 5890). `None` if the local part is not ASCII, which needs a server with SMTPUTF8 (RFC
    /// 6531), or the domain has no such form.
    ///
    /// ```
    /// use envoi::Address;
    ///
    /// let address = Address::new("alice@b\u{fc}cher.example")?;
    /// # #[cfg(feature = "idna")]
    /// assert_eq!(address.to_ascii().unwrap().as_str(), "alice@xn--bcher-kva.example");
    /// assert!(Address::new("j\u{f6}rg@example.org")?.to_ascii().is_none());
    /// # Ok::<(), envoi::Error>(())
    /// ```
    pub fn to_ascii(&self) -> Option<Cow<'_, Address>> {
        if self.is_ascii() {
            return Some(Cow::Borrowed(self));
        }
        let domain = idna::to_ascii(self.domain()).filter(|_| self.local_part().is_ascii())?;
        let address = format!("{}@{domain}", self.local_part());
        Some(Cow::Owned(Address(address.into())))
    }

    /// Returns the address as it is written with SMTPUTF8: a domain beyond ASCII as U-labels.
    pub(crate) fn to_unicode(&self) -> Cow<'_, Address> {
        match idna::to_unicode(self.domain()) {
            domain if *domain == *self.domain() => Cow::Borrowed(self),
            domain => Cow::Owned(Address(format!("{}@{domain}", self.local_part()).into())),
        }
    }

    /// Returns the domain in one spelling for all of its spellings.
    pub(crate) fn domain_key(&self) -> String {
        idna::to_ascii(self.domain())
            .as_deref()
            .unwrap_or(self.domain())
            .to_ascii_lowercase()
    }

    /// Returns a key that is equal for two addresses of one mailbox (RFC 5321, 2.4).
    pub(crate) fn mailbox_key(&self) -> (String, String) {
        (self.local_part().to_owned(), self.domain_key())
    }

    fn at(&self) -> usize {
        self.0
            .rfind('@')
            .expect("an address was checked to have an @")
    }

    fn check(address: String, rules: Rules) -> Result<Self, AddressError> {
        match find_fault(&address, rules) {
            None => Ok(Address(address.into())),
            Some(fault) => Err(AddressError { address, fault }),
        }
    }
}

/// A text that is not a valid address.
///
/// [`Error::from`](crate::Error) makes it an error of the kind
/// [`Request`](crate::ErrorKind::Request), with advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    address: String,
    fault: AddressFault,
}

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressFault {
    /// The text is empty.
    Empty,
    /// A control or format character, a space beyond ASCII, or a character that is not visible.
    InvisibleCharacter(char),
    /// There is no `@`.
    NoAt,
    /// Nothing precedes the `@`.
    NoLocalPart,
    /// Nothing follows the `@`.
    NoDomain,
    /// The part before the `@` is longer than 64 bytes (RFC 5321, 4.5.3.1.1).
    LocalPartTooLong,
    /// The domain is longer than 255 bytes (RFC 5321, 4.5.3.1.2).
    DomainTooLong,
    /// A character that the part before the `@` cannot have.
    CharacterInLocalPart(char),
    /// A dot at an end of the part before the `@`, or two dots together.
    MisplacedDot,
    /// A character that the quoted string before the `@` cannot have.
    CharacterInQuotedString(char),
    /// A quote within the quoted string before the `@`.
    MisplacedQuote,
    /// The quoted string before the `@` does not end.
    UnterminatedQuotedString,
    /// A character that a domain cannot have.
    CharacterInDomain(char),
    /// A domain that is not a valid internationalized name (RFC 5890).
    InvalidIdn(String),
    /// A label of the domain is empty or longer than 63 bytes.
    LabelLength,
    /// The address literal does not end with `]`.
    UnterminatedLiteral,
    /// The brackets hold neither an IPv4 address nor `IPv6:` and an IPv6 address.
    InvalidLiteral,
}

impl AddressError {
    /// The text that is not an address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What is wrong with it.
    pub fn fault(&self) -> &AddressFault {
        &self.fault
    }
}

impl From<Infallible> for AddressError {
    /// What is an address already cannot fail to become one.
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = quoted(&self.address);
        write!(f, "the address {address} is not valid: {}", self.fault)
    }
}

impl std::error::Error for AddressError {}

impl fmt::Display for AddressFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            AddressFault::Empty => "it is empty",
            AddressFault::InvisibleCharacter(c) => return write!(f, "it contains {}", named(*c)),
            AddressFault::NoAt => "it has no @",
            AddressFault::NoLocalPart => "nothing stands before the @",
            AddressFault::NoDomain => "nothing stands after the @",
            AddressFault::LocalPartTooLong => {
                return write!(
                    f,
                    "the part before the @ is longer than {MAX_LOCAL_PART} bytes"
                );
            }
            AddressFault::DomainTooLong => {
                return write!(f, "the domain is longer than {MAX_DOMAIN} bytes");
            }
            AddressFault::CharacterInLocalPart(c) => {
                return write!(f, "the part before the @ contains {}", named(*c));
            }
            AddressFault::MisplacedDot => {
                "the part before the @ has a dot at an end, or two together"
            }
            AddressFault::CharacterInQuotedString(c) => {
                return write!(f, "the quoted part contains {}", named(*c));
            }
            AddressFault::MisplacedQuote => "a quote stands inside the quoted part",
            AddressFault::UnterminatedQuotedString => "the quoted part before the @ does not end",
            AddressFault::CharacterInDomain(c) => {
                return write!(f, "the domain contains {}", named(*c));
            }
            AddressFault::InvalidIdn(domain) => {
                return write!(
                    f,
                    "the domain {} is not a valid internationalized name",
                    quoted(domain)
                );
            }
            AddressFault::LabelLength => {
                "the domain has an empty label or one longer than 63 bytes"
            }
            AddressFault::UnterminatedLiteral => "the address literal does not end with ]",
            AddressFault::InvalidLiteral => {
                "the brackets hold no IPv4 address and no IPv6: address"
            }
        };
        f.write_str(text)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    Strict,
    Lenient,
}

fn find_fault(address: &str, rules: Rules) -> Option<AddressFault> {
    if address.is_empty() {
        return Some(AddressFault::Empty);
    }
    if let Some(c) = address.chars().find(|c| is_invisible(*c)) {
        return Some(AddressFault::InvisibleCharacter(c));
    }
    let Some((local, domain)) = address.rsplit_once('@') else {
        return Some(AddressFault::NoAt);
    };
    if local.len() > MAX_LOCAL_PART {
        return Some(AddressFault::LocalPartTooLong);
    }
    if domain.len() > MAX_DOMAIN {
        return Some(AddressFault::DomainTooLong);
    }
    find_local_part_fault(local, rules).or_else(|| find_domain_fault(domain))
}

fn find_local_part_fault(local: &str, rules: Rules) -> Option<AddressFault> {
    if local.is_empty() {
        return Some(AddressFault::NoLocalPart);
    }
    if let Some(inner) = local.strip_prefix('"') {
        return find_quoted_string_fault(inner, rules);
    }
    if let Some(c) = local.chars().find(|c| !is_atext(*c) && *c != '.') {
        return Some(AddressFault::CharacterInLocalPart(c));
    }
    if rules == Rules::Strict && local.split('.').any(str::is_empty) {
        return Some(AddressFault::MisplacedDot);
    }
    None
}

/// `inner` is what follows the opening quote (RFC 5321, 4.1.2: Quoted-string).
fn find_quoted_string_fault(inner: &str, rules: Rules) -> Option<AddressFault> {
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '"' if chars.as_str().is_empty() => return None,
            '"' => return Some(AddressFault::MisplacedQuote),
            '\\' => match chars.next() {
                Some(c) => c,
                None => break,
            },
            c => c,
        };
        if rules == Rules::Strict && matches!(c, '<' | '>') {
            return Some(AddressFault::CharacterInQuotedString(c));
        }
    }
    Some(AddressFault::UnterminatedQuotedString)
}

fn find_domain_fault(domain: &str) -> Option<AddressFault> {
    if domain.is_empty() {
        return Some(AddressFault::NoDomain);
    }
    if let Some(literal) = domain.strip_prefix('[') {
        return find_literal_fault(literal);
    }
    let allowed =
        |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.' || !c.is_ascii();
    if let Some(c) = domain.chars().find(|c| !allowed(*c)) {
        return Some(AddressFault::CharacterInDomain(c));
    }
    let Some(ascii) = idna::checked(domain) else {
        return Some(AddressFault::InvalidIdn(domain.to_owned()));
    };
    let is_bad = |label: &str| label.is_empty() || label.len() > 63;
    ascii
        .split('.')
        .any(is_bad)
        .then_some(AddressFault::LabelLength)
}

/// `literal` is what follows the opening bracket (RFC 5321, 4.1.3).
fn find_literal_fault(literal: &str) -> Option<AddressFault> {
    let Some(address) = literal.strip_suffix(']') else {
        return Some(AddressFault::UnterminatedLiteral);
    };
    // The case of the tag does not matter (RFC 5234, 2.3).
    let valid = match address.split_once(':') {
        Some((tag, v6)) if tag.eq_ignore_ascii_case("IPv6") => {
            v6.parse::<std::net::Ipv6Addr>().is_ok()
        }
        _ => address.parse::<std::net::Ipv4Addr>().is_ok(),
    };
    (!valid).then_some(AddressFault::InvalidLiteral)
}

/// RFC 5322, 3.2.3, and RFC 6531, 3.3 for non-ASCII characters.
pub(crate) fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii()
}

/// Characters beyond those that are [unprintable](is_unprintable) that are not seen in an address,
/// or change how others are seen: the rest of Unicode's Default_Ignorable_Code_Point and category
/// Cf, and the blank Braille pattern.
const NOT_IN_ADDRESSES: [RangeInclusive<char>; 4] = [
    '\u{2800}'..='\u{2800}',
    '\u{fff0}'..='\u{fff8}',
    '\u{13430}'..='\u{1343f}',
    '\u{1bca0}'..='\u{1bca3}',
];

/// Format characters that are visible, as they enclose or mark the characters after them: Unicode's
/// Prepended_Concatenation_Mark.
const FORMAT_MARKS: [RangeInclusive<char>; 7] = [
    '\u{600}'..='\u{605}',
    '\u{6dd}'..='\u{6dd}',
    '\u{70f}'..='\u{70f}',
    '\u{890}'..='\u{891}',
    '\u{8e2}'..='\u{8e2}',
    '\u{110bd}'..='\u{110bd}',
    '\u{110cd}'..='\u{110cd}',
];

/// Whether the character is a control or format character, or invisible in an address.
pub(crate) fn is_invisible(c: char) -> bool {
    let is_plain = c.is_ascii_graphic() || c == ' ';
    let is_in = |ranges: &[RangeInclusive<char>]| ranges.iter().any(|range| range.contains(&c));
    !is_plain
        && (is_unprintable(c)
            || c.is_whitespace()
            || is_in(&NOT_IN_ADDRESSES)
            || is_in(&FORMAT_MARKS))
}

fn named(c: char) -> String {
    match c {
        '\r' => "a carriage return (CR)".into(),
        '\n' => "a line feed (LF)".into(),
        '\0' => "a NUL".into(),
        ' ' => "a blank".into(),
        '<' | '>' => format!("an angle bracket ({c})"),
        c if FORMAT_MARKS.iter().any(|range| range.contains(&c)) => {
            format!("U+{:04X}, which has no place in an address", u32::from(c))
        }
        c if !c.is_ascii() && is_invisible(c) => {
            format!("U+{:04X}, which is not visible", u32::from(c))
        }
        c => format!("{:?}", c),
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(address: &str) -> Result<Self, AddressError> {
        Address::new(address)
    }
}

impl TryFrom<&str> for Address {
    type Error = AddressError;

    fn try_from(address: &str) -> Result<Self, AddressError> {
        Address::new(address)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(address: String) -> Result<Self, AddressError> {
        Address::new(address)
    }
}

impl TryFrom<&String> for Address {
    type Error = AddressError;

    fn try_from(address: &String) -> Result<Self, AddressError> {
        Address::new(address)
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Address {
    /// Accepts what [`lenient`](Self::lenient) does, so that every address that was serialized can
    /// be read again.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let address = String::deserialize(deserializer)?;
        Address::lenient(address).map_err(serde::de::Error::custom)
    }
}

impl AsRef<str> for Address {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.as_str().to_owned()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_rfc_5321_are_accepted() {
        for address in [
            "alice@example.org",
            "a.b+tag@sub.example.org",
            "\"a@b\"@example.org",
            "\"a\\\"b\"@example.org",
            "\"a b\"@example.org",
            "\" \"@example.org",
            "\"a\\ b\"@example.org",
            "e\u{301}t\u{e9}@example.org",
            "postmaster@[192.0.2.1]",
            "postmaster@[IPv6:2001:db8::1]",
            "postmaster@[ipv6:2001:db8::1]",
            "jörg@exämple.org",
            "o'brien@x",
        ] {
            assert!(Address::new(address).is_ok(), "{address}");
        }
    }

    #[test]
    fn invalid_addresses_are_refused_with_their_fault() {
        for (address, fault) in [
            ("", "empty"),
            ("alice", "no @"),
            ("@example.org", "before the @"),
            ("alice@", "after the @"),
            ("a b@example.org", "a blank"),
            ("alice@exa mple.org", "a blank"),
            ("<alice@example.org>", "angle bracket"),
            ("alice@example.org\r\nDATA", "CR"),
            ("alice\n@example.org", "LF"),
            ("alice\0@example.org", "NUL"),
            ("\"a>\"@example.org", "angle bracket"),
            ("\"a\"b\"@example.org", "a quote"),
            ("\"a\\\"@example.org", "does not end"),
            ("a..b@example.org", "two together"),
            (".a@example.org", "a dot at an end"),
            ("a@b@c", "'@'"),
            ("\"a\\@example.org", "does not end"),
            ("a@example..org", "empty label"),
            ("a@[1.2.3]", "brackets"),
            ("a@[1.2.3.4", "does not end"),
            ("a\u{2028}b@example.org", "U+2028, which is not visible"),
            ("alice\t@example.org", "'\\t'"),
            ("\"a\tb\"@example.org", "'\\t'"),
        ] {
            let error = Address::new(address).unwrap_err().to_string();
            assert!(error.contains(fault), "{address:?}: {error}");
        }
        assert!(Address::new(format!("{}@example.org", "a".repeat(65))).is_err());
        assert!(Address::new(format!("a@{}", "a.".repeat(128))).is_err());
    }

    #[cfg(feature = "idna")]
    #[test]
    fn a_domain_invalid_in_idna_is_refused() {
        for domain in [
            "\u{2488}example.org",
            "\u{df}\u{2024}org",
            "x\u{3002}\u{3002}org",
            "\u{3002}x.org",
            "\u{301}x.org",
            "\u{661}.org",
            "\u{e4}-.example",
            "\u{e4}\u{2100}.example",
            "xn--.org",
            "xn--a.org",
            "XN--A.org",
            "mail.xn--a",
            "xn--bcher-kva.xn--.example",
            "ex\u{e4}mple..org",
        ] {
            for error in [
                Address::new(format!("b@{domain}")),
                Address::lenient(format!("b@{domain}")),
            ] {
                let error = error.unwrap_err();
                let fault = AddressFault::InvalidIdn(domain.to_owned());
                assert_eq!(error.fault(), &fault, "{error}");
                assert!(
                    error
                        .to_string()
                        .ends_with("is not a valid internationalized name"),
                    "{domain}: {error}"
                );
            }
        }
        for domain in [
            "x\u{3002}org",
            "EX\u{c4}MPLE.org",
            "xn--bcher-kva.example",
            "XN--BCHER-KVA.example",
            "_dmarc.example.org",
            "r3---sn.example.org",
            "xn.example",
            // 75 bytes, and 31 as an A-label.
            &format!("{}.example", "\u{4f8b}".repeat(25)),
        ] {
            assert!(Address::new(format!("b@{domain}")).is_ok(), "{domain}");
        }
    }

    #[test]
    fn lenient_accepts_extra_dots_but_no_line_break() {
        assert!(Address::new("test.test.@example.jp").is_err());
        for address in [
            "test.test.@example.jp",
            "a..b@example.jp",
            "\"a<b>\"@example.org",
        ] {
            assert_eq!(Address::lenient(address).unwrap().as_str(), address);
        }
        for address in [
            "a\r\n@example.org",
            "\"a\r\nb\"@example.org",
            "a b@example.org",
            "a>@example.org",
        ] {
            assert!(Address::lenient(address).is_err(), "{address:?}");
        }
    }

    #[test]
    fn invisible_characters_in_an_address_are_refused() {
        for c in "\u{85}\u{a0}\u{ad}\u{34f}\u{61c}\u{115f}\u{180e}\u{200b}\u{200d}\u{200e}\
                  \u{202e}\u{2060}\u{2066}\u{206f}\u{2800}\u{3000}\u{3164}\u{fe0f}\
                  \u{feff}\u{ffa0}\u{e0041}\u{e0100}"
            .chars()
        {
            for address in [
                format!("{c}alice@example.org"),
                format!("ali{c}ce@example.org"),
                format!("alice{c}@example.org"),
                format!("alice@{c}example.org"),
                format!("alice@example.org{c}"),
                format!("\"alice{c}smith\"@example.org"),
            ] {
                let results = [Address::new(address.clone()), Address::lenient(address)];
                for error in results.map(Result::unwrap_err) {
                    let named = format!("it contains U+{:04X}, which is not visible", u32::from(c));
                    assert!(error.to_string().contains(&named), "{error}");
                }
            }
        }
    }

    #[test]
    fn format_characters_in_an_address_are_refused() {
        for c in "\u{600}\u{605}\u{6dd}\u{70f}\u{890}\u{891}\u{8e2}\u{110bd}\u{110cd}".chars() {
            for address in [
                format!("ali{c}ce@example.org"),
                format!("alice@{c}example.org"),
            ] {
                let error = Address::new(address).unwrap_err().to_string();
                let named = format!(
                    "it contains U+{:04X}, which has no place in an address",
                    u32::from(c)
                );
                assert!(error.contains(&named), "{error}");
            }
        }
        // Kaithi letters, signs and digits around the number signs.
        for c in ('\u{11080}'..='\u{110bc}').chain('\u{110be}'..='\u{110c2}') {
            assert!(Address::new(format!("{c}@example.org")).is_ok(), "{c:?}");
        }
    }
}
