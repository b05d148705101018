//! Invalid values for parameters of MAIL or RCPT.

use std::fmt;
use std::time::Duration;

use crate::address::Address;
use crate::text::quoted;

/// A value that is not valid for a parameter of MAIL or RCPT.
///
/// [`Error::from`](crate::Error) turns it into an error of the kind
/// [`Request`](crate::ErrorKind::Request), with advice.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParameterError {
    /// Not a time within which a message can be delivered (BY).
    DeliverBy(Duration),
    /// Not a time for which a message can be held (HOLDFOR).
    HoldFor(Duration),
    /// A time before 1970 or after 9999, until which no message can be held (HOLDUNTIL).
    HoldUntil,
    /// A priority that is less than -9 or more than 9 (MT-PRIORITY).
    PriorityOutOfRange(i8),
    /// Not a number for a priority (MT-PRIORITY).
    PriorityNotANumber(String),
    /// Not an event on which a report can be sent (NOTIFY).
    Notify(String),
    /// Not a part of a message that a report can return (RET).
    DsnReturn(String),
    /// Not an identifier for a message in reports (ENVID).
    EnvelopeId(String),
    /// Not an original recipient (ORCPT): its type and its address.
    OriginalRecipient(String, String),
    /// An option is set for this address, which is not a recipient of the message.
    NotARecipient(Address),
}

impl fmt::Display for ParameterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParameterError::DeliverBy(time) => {
                write!(f, "{time:?} is not a valid delivery time")
            }
            ParameterError::HoldFor(time) => {
                write!(f, "{time:?} is not a valid hold time")
            }
            ParameterError::HoldUntil => {
                f.write_str("a message cannot be held until a time before 1970 or after 9999")
            }
            ParameterError::PriorityOutOfRange(number) => {
                write!(f, "{number} is not a priority")
            }
            ParameterError::PriorityNotANumber(text) => {
                write!(f, "{} is not a priority", quoted(text))
            }
            ParameterError::Notify(word) => {
                write!(f, "{} is not a NOTIFY value", quoted(word))
            }
            ParameterError::DsnReturn(word) => {
                write!(f, "{} is not a RET value", quoted(word))
            }
            ParameterError::EnvelopeId(id) => {
                write!(f, "{} is not a valid envelope identifier", quoted(id))
            }
            ParameterError::OriginalRecipient(address_type, address) => {
                let shown = quoted(&format!("{address_type};{address}"));
                write!(f, "{shown} is not a valid original recipient")
            }
            ParameterError::NotARecipient(address) => write!(
                f,
                "options are set for {address}, which is not a recipient of the message"
            ),
        }
    }
}

impl std::error::Error for ParameterError {}
