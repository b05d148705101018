//! The envelope: where a message goes, whatever its headers say.

use std::collections::HashSet;
use std::fmt;

use crate::address::Address;

/// The envelope of a message: the reverse-path, to which bounces are sent, and the recipients (RFC
/// 5321, 2.3.1).
///
/// It decides where the message goes, whatever its headers say.
///
/// ```
/// use envoi::{Address, Envelope};
///
/// let to = Address::new("you@example.com")?;
/// let envelope = Envelope::new(Address::new("me@example.org")?, [to])?;
/// assert_eq!(envelope.recipients().len(), 1);
/// // A notification that must not bounce has the null reverse-path, `<>`.
/// let notice = Envelope::new(None, [Address::new("you@example.com")?])?;
/// assert!(notice.reverse_path().is_none());
/// # Ok::<(), envoi::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    reverse_path: Option<Address>,
    recipients: Vec<Address>,
}

impl Envelope {
    /// Creates an envelope from a sender (`None` is the null reverse-path) and at least one
    /// recipient, in the given order.
    ///
    /// A mailbox that is given more than once gets the message once. Two addresses are the same
    /// mailbox if their local parts are equal to the byte and their domains are the same name, in
    /// any case and spelling (RFC 5321, 2.4).
    ///
    /// # Errors
    ///
    /// [`EnvelopeError::NoRecipient`].
    pub fn new(
        reverse_path: impl Into<Option<Address>>,
        recipients: impl IntoIterator<Item = Address>,
    ) -> Result<Self, EnvelopeError> {
        let mut seen = HashSet::new();
        let mut recipients: Vec<Address> = recipients.into_iter().collect();
        recipients.retain(|recipient| seen.insert(recipient.mailbox_key()));
        if recipients.is_empty() {
            return Err(EnvelopeError::NoRecipient);
        }
        Ok(Envelope {
            reverse_path: reverse_path.into(),
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

/// A reason why an envelope is not valid.
///
/// [`Error::from`](crate::Error) makes it an error of the kind
/// [`Request`](crate::ErrorKind::Request), with advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// There is no recipient.
    NoRecipient,
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnvelopeError::NoRecipient => f.write_str("the message has no recipient"),
        }
    }
}

impl std::error::Error for EnvelopeError {}

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
    fn an_envelope_has_a_recipient() {
        assert!(
            Envelope::new(None, [])
                .unwrap_err()
                .to_string()
                .contains("no recipient")
        );
    }
}
