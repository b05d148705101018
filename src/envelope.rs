//! The envelope: where a message goes, whatever its headers say.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use crate::address::{Address, AddressError};
use crate::mailbox::Mailbox;

/// The envelope of a message: the reverse-path, to which bounces are sent, and the recipients (RFC
/// 5321, 2.3.1).
///
/// It decides where the message goes, whatever its headers say.
///
/// ```
/// use envoi::Envelope;
///
/// let envelope = Envelope::new("me@example.org", ["you@example.com", "her@example.net"])?;
/// assert_eq!(envelope.recipients().len(), 2);
/// // A notification that must not bounce has the null reverse-path, `<>`.
/// let notice = Envelope::new(None, ["you@example.com"])?;
/// assert!(notice.reverse_path().is_none());
/// # Ok::<(), envoi::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Parts")
)]
pub struct Envelope {
    reverse_path: Option<Address>,
    recipients: Vec<Address>,
}

impl Envelope {
    /// Creates an envelope from a sender and at least one recipient, in the given order.
    ///
    /// The sender is an [`Address`], a [`Mailbox`], a text, or `None` for the null reverse-path;
    /// see [`ReversePath`]. The recipients are addresses, mailboxes (as of a
    /// [`MailboxList`](crate::MailboxList)) or texts. A text is an address alone; [`Mailbox`]
    /// parses those with a name.
    ///
    /// A mailbox that is given more than once gets the message once. Two addresses are the same
    /// mailbox if their local parts are equal to the byte and their domains are the same name, in
    /// any case and spelling (RFC 5321, 2.4).
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`]: there is no recipient, or a text is not an address.
    pub fn new<R>(
        reverse_path: impl TryInto<ReversePath, Error: Into<AddressError>>,
        recipients: impl IntoIterator<Item = R>,
    ) -> Result<Self, EnvelopeError>
    where
        R: TryInto<Address, Error: Into<AddressError>>,
    {
        let ReversePath(reverse_path) = reverse_path
            .try_into()
            .map_err(|error| EnvelopeError::ReversePath(error.into()))?;
        let recipients = recipients.into_iter().map(|recipient| {
            let address = recipient.try_into();
            address.map_err(|error| EnvelopeError::Recipient(error.into()))
        });
        let mut seen = HashSet::new();
        let mut recipients: Vec<Address> = recipients.collect::<Result<_, _>>()?;
        recipients.retain(|recipient| seen.insert(recipient.mailbox_key()));
        if recipients.is_empty() {
            return Err(EnvelopeError::NoRecipient);
        }
        Ok(Envelope {
            reverse_path,
            recipients,
        })
    }

    /// Returns an envelope for some of the recipients, by their indices.
    #[cfg(feature = "retries")]
    pub(crate) fn only(&self, recipients: &[usize]) -> Self {
        let recipients = recipients
            .iter()
            .map(|index| self.recipients[*index].clone())
            .collect();
        Envelope {
            reverse_path: self.reverse_path.clone(),
            recipients,
        }
    }

    /// Returns the address for bounces; `None` is the null reverse-path.
    pub fn reverse_path(&self) -> Option<&Address> {
        self.reverse_path.as_ref()
    }

    /// Returns the recipients in the order given; never empty.
    pub fn recipients(&self) -> &[Address] {
        &self.recipients
    }

    /// Whether every address [can be written in ASCII](Address::to_ascii). Otherwise the server
    /// must offer SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.reverse_path
            .iter()
            .chain(&self.recipients)
            .all(|address| address.to_ascii().is_some())
    }
}

/// An envelope as data. Both parts must be there; the null reverse-path is null.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "Envelope", deny_unknown_fields)]
struct Parts {
    // Not simply an `Option`, which may be left out.
    #[serde(deserialize_with = "serde::Deserialize::deserialize")]
    reverse_path: Option<Address>,
    recipients: Vec<Address>,
}

#[cfg(feature = "serde")]
impl TryFrom<Parts> for Envelope {
    type Error = EnvelopeError;

    fn try_from(parts: Parts) -> Result<Self, EnvelopeError> {
        Envelope::new(parts.reverse_path, parts.recipients)
    }
}

/// The sender in the envelope: the address for bounces, or the null reverse-path (RFC 5321, 4.5.5).
///
/// [`Envelope::new`] makes it from what it is given: an [`Address`], a [`Mailbox`], `None` for the
/// null reverse-path, or a text, of which `<>` is the null reverse-path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReversePath(Option<Address>);

impl From<Option<Address>> for ReversePath {
    fn from(address: Option<Address>) -> Self {
        ReversePath(address)
    }
}

impl From<Address> for ReversePath {
    fn from(address: Address) -> Self {
        ReversePath(Some(address))
    }
}

impl From<&Address> for ReversePath {
    fn from(address: &Address) -> Self {
        ReversePath(Some(address.clone()))
    }
}

impl From<Mailbox> for ReversePath {
    fn from(mailbox: Mailbox) -> Self {
        ReversePath(Some(mailbox.into()))
    }
}

impl From<&Mailbox> for ReversePath {
    fn from(mailbox: &Mailbox) -> Self {
        ReversePath(Some(mailbox.into()))
    }
}

impl FromStr for ReversePath {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text {
            "<>" => Ok(ReversePath(None)),
            address => Ok(ReversePath(Some(Address::new(address)?))),
        }
    }
}

impl TryFrom<&str> for ReversePath {
    type Error = AddressError;

    fn try_from(text: &str) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl TryFrom<String> for ReversePath {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl TryFrom<&String> for ReversePath {
    type Error = AddressError;

    fn try_from(text: &String) -> Result<Self, AddressError> {
        text.parse()
    }
}

/// A reason why an envelope is not valid.
///
/// [`Error::from`](crate::Error) makes it an error of the kind
/// [`Request`](crate::ErrorKind::Request), with advice.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// There is no recipient.
    NoRecipient,
    /// The sender is not an address.
    ReversePath(AddressError),
    /// A recipient is not an address.
    Recipient(AddressError),
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnvelopeError::NoRecipient => f.write_str("the message has no recipient"),
            EnvelopeError::ReversePath(error) => write!(f, "the sender: {error}"),
            EnvelopeError::Recipient(error) => write!(f, "a recipient: {error}"),
        }
    }
}

impl std::error::Error for EnvelopeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            EnvelopeError::NoRecipient => None,
            EnvelopeError::ReversePath(error) | EnvelopeError::Recipient(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_given_twice_is_one_recipient() {
        let given = [
            "bob@example.com",
            "Bob@example.com",
            "bob@EXAMPLE.com",
            "bob@b\u{fc}cher.example",
            "bob@example.com",
            #[cfg(feature = "idna")]
            "bob@XN--bcher-kva.example",
        ];
        let envelope =
            Envelope::new(None, given.map(|address| Address::new(address).unwrap())).unwrap();
        let kept: Vec<_> = envelope.recipients().iter().map(Address::as_str).collect();
        assert_eq!(
            kept,
            [
                "bob@example.com",
                "Bob@example.com",
                "bob@b\u{fc}cher.example"
            ]
        );
    }

    #[test]
    fn an_envelope_is_made_of_texts_addresses_and_mailboxes() {
        let bob = Address::new("bob@example.com").unwrap();
        let named: Mailbox = "Bob <bob@example.com>".parse().unwrap();
        let text = String::from("bob@example.com");
        let expected = Envelope::new(Some(bob.clone()), vec![bob.clone()]).unwrap();
        for envelope in [
            Envelope::new("bob@example.com", ["bob@example.com"]),
            Envelope::new(&text, std::slice::from_ref(&text)),
            Envelope::new(text.clone(), vec![text.clone()]),
            Envelope::new(&bob, [&bob]),
            Envelope::new(&named, [&named]),
            Envelope::new(
                named.clone(),
                crate::MailboxList::from_iter([named.clone()]),
            ),
        ] {
            assert_eq!(envelope.as_ref(), Ok(&expected));
        }
        assert!(
            Envelope::new("<>", [&bob])
                .unwrap()
                .reverse_path()
                .is_none()
        );
        let error = Envelope::new("bob", [&bob]).unwrap_err();
        assert!(matches!(error, EnvelopeError::ReversePath(_)), "{error}");
        let error = Envelope::new("", [&bob]).unwrap_err();
        assert!(matches!(error, EnvelopeError::ReversePath(_)), "{error}");
        let error = Envelope::new(None, ["bob@example.com", "Bob <bob@example.com>"]).unwrap_err();
        assert!(matches!(error, EnvelopeError::Recipient(_)), "{error}");
    }

    #[test]
    fn an_envelope_has_a_recipient() {
        assert!(
            Envelope::new(None, [""; 0])
                .unwrap_err()
                .to_string()
                .contains("no recipient")
        );
    }
}
