//! Delivery status notifications (DSN, RFC 3461): when they are sent, what they return, and the
//! names in them.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

use super::ParameterError;
use super::xtext::{TypedAddress, Xtext};
use crate::address::Address;

/// When a report is sent to the sender: NOTIFY (RFC 3461, 4.1). By default, servers report
/// failures, and usually delays.
///
/// ```
/// use envoi::delivery::Notify;
///
/// let notify = Notify::SUCCESS | Notify::FAILURE;
/// assert_eq!(notify, "success,failure".parse()?);
/// assert_eq!(notify.to_string(), "SUCCESS,FAILURE");
/// # Ok::<(), envoi::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify(u8);

impl Notify {
    /// Never, not even on failure.
    pub const NEVER: Notify = Notify(0);
    /// When the message was delivered, as far as the last server with this extension knows.
    pub const SUCCESS: Notify = Notify(1);
    /// When the message cannot be delivered.
    pub const FAILURE: Notify = Notify(2);
    /// When delivery takes longer than usual.
    pub const DELAY: Notify = Notify(4);

    const NAMES: [(Notify, &str); 3] = [
        (Notify::SUCCESS, "SUCCESS"),
        (Notify::FAILURE, "FAILURE"),
        (Notify::DELAY, "DELAY"),
    ];
}

impl BitOr for Notify {
    type Output = Notify;

    fn bitor(self, other: Notify) -> Notify {
        Notify(self.0 | other.0)
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Notify::NAMES
            .iter()
            .filter(|(notify, _)| self.0 & notify.0 != 0)
            .map(|(_, name)| *name);
        let names: Vec<&str> = names.collect();
        f.write_str(if names.is_empty() { "NEVER" } else { "" })?;
        f.write_str(&names.join(","))
    }
}

impl FromStr for Notify {
    type Err = ParameterError;

    /// Parses `never`, or some of `success`, `failure` and `delay`, separated by commas.
    fn from_str(list: &str) -> Result<Self, ParameterError> {
        if list.eq_ignore_ascii_case("never") {
            return Ok(Notify::NEVER);
        }
        list.split(',').try_fold(Notify::NEVER, |notify, word| {
            let known = Notify::NAMES
                .iter()
                .find(|(_, name)| name.eq_ignore_ascii_case(word));
            known
                .map(|(one, _)| notify | *one)
                .ok_or_else(|| ParameterError::Notify(word.to_owned()))
        })
    }
}

/// What a failure report returns of the message: RET (RFC 3461, 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DsnReturn {
    /// The whole message.
    Full,
    /// Its headers.
    Headers,
}

impl fmt::Display for DsnReturn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DsnReturn::Full => "FULL",
            DsnReturn::Headers => "HDRS",
        })
    }
}

impl FromStr for DsnReturn {
    type Err = ParameterError;

    /// Parses `full` or `hdrs`.
    fn from_str(word: &str) -> Result<Self, ParameterError> {
        match word.to_ascii_lowercase().as_str() {
            "full" => Ok(DsnReturn::Full),
            "hdrs" => Ok(DsnReturn::Headers),
            _ => Err(ParameterError::DsnReturn(word.to_owned())),
        }
    }
}

/// The sender's identifier for a message, which is repeated in reports: ENVID (RFC 3461, 4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeId(String);

impl EnvelopeId {
    /// Checks an identifier: up to 100 characters of printable ASCII. Blanks, `+` and `=` count as
    /// three characters, since they are encoded.
    ///
    /// # Errors
    ///
    /// [`ParameterError::EnvelopeId`].
    pub fn new(id: impl Into<String>) -> Result<Self, ParameterError> {
        let id = id.into();
        let printable = id.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if id.is_empty() || !printable || Xtext(&id).to_string().len() > 100 {
            return Err(ParameterError::EnvelopeId(id));
        }
        Ok(EnvelopeId(id))
    }

    /// The identifier as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvelopeId {
    /// As a parameter of MAIL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Xtext(&self.0).fmt(f)
    }
}

impl FromStr for EnvelopeId {
    type Err = ParameterError;

    fn from_str(id: &str) -> Result<Self, ParameterError> {
        EnvelopeId::new(id)
    }
}

/// The recipient before the address was rewritten on the way: ORCPT (RFC 3461, 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalRecipient(String);

impl OriginalRecipient {
    /// A mail address, which may be non-ASCII (RFC 6533).
    pub fn address(address: &Address) -> Self {
        OriginalRecipient(TypedAddress(address).to_string())
    }

    /// An address of another type, such as `x400`.
    ///
    /// # Errors
    ///
    /// [`ParameterError::OriginalRecipient`]: the type does not consist of letters, digits and
    /// hyphens, the address is not printable ASCII, or both together have more than 500 characters
    /// when encoded.
    pub fn of_type(address_type: &str, address: &str) -> Result<Self, ParameterError> {
        let is_word = !address_type.is_empty()
            && address_type
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let printable =
            !address.is_empty() && address.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let encoded = format!("{address_type};{}", Xtext(address));
        if !is_word || !printable || encoded.len() > 500 {
            return Err(ParameterError::OriginalRecipient(
                address_type.to_owned(),
                address.to_owned(),
            ));
        }
        Ok(OriginalRecipient(encoded))
    }

    /// The original recipient from its form in the command, if that can be written there: a type
    /// and an address in one word.
    #[cfg(feature = "serde")]
    pub(super) fn encoded(text: &str) -> Option<Self> {
        let (address_type, address) = text.split_once(';')?;
        let is_type = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let is_word = |byte: u8| byte.is_ascii_graphic() && byte != b'=';
        let is_valid = !address_type.is_empty()
            && address_type.bytes().all(is_type)
            && !address.is_empty()
            && address.bytes().all(is_word);
        is_valid.then(|| OriginalRecipient(text.to_owned()))
    }
}

impl fmt::Display for OriginalRecipient {
    /// As a parameter of RCPT.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_lists_are_parsed() {
        for (list, written) in [
            ("never", "NEVER"),
            ("Success", "SUCCESS"),
            ("delay,success,failure,delay", "SUCCESS,FAILURE,DELAY"),
        ] {
            assert_eq!(list.parse::<Notify>().unwrap().to_string(), written);
        }
        for list in ["", "never,success", "success,", "success failure", "always"] {
            assert!(list.parse::<Notify>().is_err(), "{list:?}");
        }
        assert_eq!("HDRS".parse::<DsnReturn>().unwrap(), DsnReturn::Headers);
        assert!("headers".parse::<DsnReturn>().is_err());
    }

    #[test]
    fn envelope_ids_are_short_and_printable() {
        assert_eq!(EnvelopeId::new("a b+c").unwrap().to_string(), "a+20b+2Bc");
        assert!(EnvelopeId::new("x".repeat(100)).is_ok());
        assert!(EnvelopeId::new(format!("{} ", "x".repeat(97))).is_ok());
        for id in [
            "",
            "a\r\nDATA",
            "\u{e9}",
            &"x".repeat(101),
            &format!("{} ", "x".repeat(98)),
        ] {
            assert!(EnvelopeId::new(id).is_err(), "{id:?}");
        }
        assert_eq!(
            OriginalRecipient::of_type("x400", "/C=de/")
                .unwrap()
                .to_string(),
            "x400;/C+3Dde/"
        );
        for (address_type, address) in [
            ("", "a"),
            ("x 4", "a"),
            ("x400", ""),
            ("x400", "a\n"),
            ("x400", "\u{e9}"),
        ] {
            assert!(
                OriginalRecipient::of_type(address_type, address).is_err(),
                "{address_type:?} {address:?}"
            );
        }
        assert!(OriginalRecipient::of_type("x400", &"=".repeat(200)).is_err());
    }
}
