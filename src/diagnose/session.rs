//! Turns typed failures into an [`Error`] with its kind and advice.

use std::borrow::Cow;

use super::{
    DISTRUSTED, INJECTED, INSECURE, INSECURE_LMTP, NO_LMTP, NUL, REQUIRE_TLS, UNKNOWN,
    hint_for_eof, hint_for_other_protocol, no_mechanism, starttls_missing,
};
#[cfg(feature = "client")]
use super::{Facts, for_refusal};
use crate::address::{AddressError, AddressFault};
use crate::envelope::EnvelopeError;
use crate::error::{Error, ErrorKind};
use crate::mailbox::{MailboxError, MailboxFault};
use crate::proto::params::{MAX_SECONDS, ParameterError};
use crate::proto::{
    AbortReason, ClientNameError, Mechanism, Phase, Protocol, ProtocolError, RawCommandError,
    Reason, ReplyError, UnknownMechanism,
};

impl From<ProtocolError> for Error {
    /// Adds the kind and advice.
    fn from(error: ProtocolError) -> Self {
        let reason = error.reason();
        let mut failure = Error::new(kind(reason), error.phase(), error.to_string());
        if let Some(reply) = error.reply() {
            failure = failure.with_reply(reply.clone());
        }
        if let Some(hint) = hint(error.phase(), reason) {
            failure = failure.with_hint(hint);
        }
        failure.with_outcome_unknown(error.outcome_unknown())
    }
}

impl Error {
    /// Sets whether the message may have been delivered, with the advice for it.
    #[must_use]
    pub fn with_outcome_unknown(mut self, unknown: bool) -> Self {
        let was_unknown = self.outcome_unknown();
        self.set_outcome_unknown(unknown);
        match unknown {
            true => self.with_hint(UNKNOWN),
            false if was_unknown => self.with_hint(hint_for_eof(Phase::Body, false, true)),
            false => self,
        }
    }

    /// Adds the advice about a negative reply, by what is known about the session. Existing advice
    /// is kept.
    #[cfg(feature = "client")]
    pub(crate) fn advised(mut self, session: &Facts<'_>) -> Self {
        if self.hint().is_some() {
            return self;
        }
        let facts = Facts {
            phase: self.phase(),
            reply: self.reply(),
            ..*session
        };
        let Some(advice) = for_refusal(&facts) else {
            return self;
        };
        if advice.lasts {
            self.set_transient(false);
        }
        self.with_hint(advice.text)
    }

    /// The connection failed before or after the machine was involved.
    #[cfg(feature = "client")]
    pub(crate) fn connection_lost(phase: Phase, cause: std::io::Error) -> Self {
        let message = format!("the connection failed: {cause}");
        Error::new(ErrorKind::Closed, phase, message)
            .with_hint(hint_for_eof(phase, false, true))
            .with_source(cause)
    }
}

fn kind(reason: &Reason) -> ErrorKind {
    match reason {
        Reason::SessionRefused
        | Reason::HelloRefused { .. }
        | Reason::LhloUnknown
        | Reason::Unavailable => ErrorKind::Refused,
        Reason::ShutDown
        | Reason::ShutDownBeforeMessage
        | Reason::ShutDownBeforeConfirmation
        | Reason::ShutDownBetweenRecipients
        | Reason::ConnectionEnded { .. }
        | Reason::SessionOver
        // The session works, but no further message is possible: it is treated like a session that
        // has ended.
        | Reason::SessionFull { .. } => ErrorKind::Closed,
        Reason::StartTlsRefused
        | Reason::TlsBeforeGreeting
        | Reason::StartTlsNotOffered { .. }
        | Reason::NotEncrypted => ErrorKind::Tls,
        Reason::MalformedReply { .. }
        | Reason::UnexpectedReply { .. }
        | Reason::UnsolicitedReply(_)
        | Reason::UnsolicitedInput(_)
        | Reason::InjectedBeforeTls(_)
        | Reason::ChallengeTooLong { .. }
        | Reason::TooManyChallenges { .. } => ErrorKind::Protocol,
        Reason::Aborted(AbortReason::TimedOut(_)) => ErrorKind::Timeout,
        Reason::Aborted(AbortReason::ConnectionFailed(_)) => ErrorKind::Closed,
        Reason::Aborted(AbortReason::InputFailed(_)) => ErrorKind::Input,
        Reason::LoginInClear(_) => ErrorKind::Insecure,
        Reason::MechanismNotOffered { .. } | Reason::LoginNotVerified { .. } => ErrorKind::Auth,
        Reason::MessageTooLarge { .. }
        | Reason::EightBitNotOffered
        | Reason::EightBitFound
        | Reason::BinaryNotOffered
        | Reason::HeadersNotAscii
        | Reason::CommandNotAscii
        | Reason::ExtensionNotOffered { .. }
        | Reason::DeliverByTooShort { .. }
        | Reason::HoldTooLong { .. }
        | Reason::HoldTooLate { .. }
        | Reason::TooManyRecipients { .. }
        | Reason::TooManyDomains { .. }
        | Reason::TooManyParts { .. } => ErrorKind::Unsupported,
        Reason::LoginUnusable(_)
        | Reason::AddressNotAscii(_)
        | Reason::OutOfTurn { .. }
        | Reason::NoTransaction
        | Reason::NoRecipient
        | Reason::NoRecipientAccepted
        | Reason::RecipientsGiven
        | Reason::RecipientNotAscii(_) => ErrorKind::Request,
        Reason::NulInText | Reason::SizeDiffers { .. } => ErrorKind::Input,
    }
}

fn hint(phase: Phase, reason: &Reason) -> Option<Cow<'static, str>> {
    let hint = match reason {
        Reason::LhloUnknown => NO_LMTP,
        Reason::TlsBeforeGreeting => {
            "Use smtps:// instead of smtp:// (its usual port is 465), or the port for STARTTLS \
                (587)."
        }
        Reason::MalformedReply {
            error: ReplyError::NotAReply(line),
            ..
        } => hint_for_other_protocol(phase, line),
        Reason::MalformedReply { .. }
        | Reason::UnexpectedReply { .. }
        | Reason::UnsolicitedReply(_)
        | Reason::ChallengeTooLong { .. }
        | Reason::TooManyChallenges { .. } => hint_for_other_protocol(phase, ""),
        Reason::InjectedBeforeTls(_) => INJECTED,
        Reason::ConnectionEnded { secure, port, .. } => {
            hint_for_eof(phase, *secure, port.is_some())
        }
        Reason::StartTlsNotOffered {
            offered,
            greeting,
            port,
            protocol,
        } => starttls_missing(offered, greeting.as_ref(), *port, *protocol),
        Reason::LoginInClear(Protocol::Smtp) => INSECURE,
        Reason::LoginInClear(Protocol::Lmtp) => INSECURE_LMTP,
        Reason::MechanismNotOffered {
            offered,
            starttls_unused,
            port,
            protocol,
            ..
        } => no_mechanism(offered, *starttls_unused, *port, *protocol),
        Reason::LoginNotVerified { .. } => DISTRUSTED,
        Reason::MessageTooLarge { .. } => {
            "Send less in one message, or put the attachment where it can be fetched from."
        }
        Reason::EightBitNotOffered | Reason::EightBitFound => {
            "Encode its parts as quoted-printable or base64."
        }
        Reason::BinaryNotOffered => "Encode its parts as base64, and let its line ends be CRLF.",
        Reason::LoginUnusable(_) => "Check the user name, and the password or token.",
        Reason::AddressNotAscii(_) => {
            "Use an ASCII form of the address, or a server that knows internationalized mail."
        }
        Reason::HeadersNotAscii => {
            "Encode the headers (RFC 2047), and use ASCII addresses in them, with A-labels (xn--) \
                for domains."
        }
        Reason::CommandNotAscii => "Write it in ASCII.",
        Reason::NotEncrypted => REQUIRE_TLS,
        Reason::ExtensionNotOffered { keyword, rfc, .. } => {
            let hint = format!("Do without it, or use a server that offers {keyword} (RFC {rfc}).");
            return Some(hint.into());
        }
        Reason::DeliverByTooShort { .. } => {
            "Allow more time (DELIVERBY), or have it delivered late, with a notice."
        }
        Reason::HoldTooLong { .. } | Reason::HoldTooLate { .. } => {
            "Hold it for a shorter time (FUTURERELEASE), or send it later."
        }
        Reason::TooManyRecipients { .. } | Reason::TooManyDomains { .. } => {
            "Send it in several parts. That happens by itself, unless the message is read from a \
                stream, or is to go to all recipients or to none."
        }
        Reason::TooManyParts { .. } => {
            "Client::send opens as many connections as it needs; or send it to fewer recipients \
                at a time."
        }
        Reason::SessionFull { .. } => "Send it over a new connection.",
        Reason::RecipientsGiven => {
            "Open it without them (Transaction::open), and give each by rcpt."
        }
        Reason::NulInText => NUL,
        // The advice about a negative reply depends on other facts of the session as well.
        Reason::SessionRefused
        | Reason::HelloRefused { .. }
        | Reason::StartTlsRefused
        | Reason::Unavailable
        | Reason::ShutDown
        | Reason::ShutDownBeforeMessage
        | Reason::ShutDownBeforeConfirmation
        | Reason::ShutDownBetweenRecipients
        | Reason::UnsolicitedInput(_)
        | Reason::Aborted(_)
        | Reason::OutOfTurn { .. }
        | Reason::SessionOver
        | Reason::NoTransaction
        | Reason::NoRecipient
        | Reason::NoRecipientAccepted
        | Reason::RecipientNotAscii(_)
        | Reason::SizeDiffers { .. } => return None,
    };
    Some(hint.into())
}

impl From<AddressError> for Error {
    /// An error of the kind [`Request`](ErrorKind::Request), with advice.
    fn from(error: AddressError) -> Self {
        let hint = match error.fault() {
            AddressFault::InvisibleCharacter(c) if !c.is_ascii_control() => {
                "It may have been copied along with the address. Type the address instead."
            }
            AddressFault::InvalidIdn(_) => {
                "Look in the domain for characters that only look like letters or full stops, and \
                    in its A-labels (xn--) for mistakes."
            }
            AddressFault::Empty
            | AddressFault::InvisibleCharacter(_)
            | AddressFault::NoAt
            | AddressFault::NoLocalPart
            | AddressFault::NoDomain
            | AddressFault::LocalPartTooLong
            | AddressFault::DomainTooLong
            | AddressFault::CharacterInLocalPart(_)
            | AddressFault::MisplacedDot
            | AddressFault::CharacterInQuotedString(_)
            | AddressFault::MisplacedQuote
            | AddressFault::UnterminatedQuotedString
            | AddressFault::CharacterInDomain(_)
            | AddressFault::LabelLength
            | AddressFault::UnterminatedLiteral
            | AddressFault::InvalidLiteral => {
                "An address looks like user@example.org, with no name, comment or brackets around \
                    it."
            }
        };
        request(&error).with_hint(hint)
    }
}

impl From<EnvelopeError> for Error {
    /// An error of the kind [`Request`](ErrorKind::Request), with advice.
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::NoRecipient => {
                request(&error).with_hint("Name at least one in To, Cc or Bcc.")
            }
            EnvelopeError::ReversePath(error) => Error::from(error).context("the sender"),
            EnvelopeError::Recipient(error) => Error::from(error).context("a recipient"),
        }
    }
}

impl From<MailboxError> for Error {
    /// An error of the kind [`Request`](ErrorKind::Request), with advice.
    fn from(error: MailboxError) -> Self {
        let hint = match error.fault() {
            MailboxFault::Address(address) => return Error::from(address.clone()),
            MailboxFault::NotOne => {
                "Give one mailbox. A name with a comma, a semicolon or a colon is put in quotes: \
                    \"Bob, Jr.\" <bob@example.org>."
            }
            MailboxFault::ControlCharacter(_) => {
                "Remove it. A list is one line, with commas between the mailboxes."
            }
            MailboxFault::Empty
            | MailboxFault::NoAddress
            | MailboxFault::TextAfterAddress
            | MailboxFault::Unterminated(_)
            | MailboxFault::Unexpected(_) => {
                "A mailbox looks like bob@example.org or Bob <bob@example.org>. A name with a \
                    comma, a semicolon or a colon is put in quotes: \"Bob, Jr.\" \
                    <bob@example.org>."
            }
        };
        request(&error).with_hint(hint)
    }
}

impl From<ParameterError> for Error {
    /// An error of the kind [`Request`](ErrorKind::Request), with advice.
    fn from(error: ParameterError) -> Self {
        let hint = match &error {
            ParameterError::DeliverBy(_) | ParameterError::HoldFor(_) => {
                return request(&error)
                    .with_hint(format!("Give a time from 1 to {MAX_SECONDS} seconds."));
            }
            ParameterError::HoldUntil => return request(&error),
            ParameterError::PriorityOutOfRange(_) | ParameterError::PriorityNotANumber(_) => {
                "Priorities are whole numbers from -9 to 9, the highest goes first."
            }
            ParameterError::Notify(_) => {
                "Give never alone, or some of success, failure and delay with commas between."
            }
            ParameterError::DsnReturn(_) => {
                "Give full for the whole message, or hdrs for its headers."
            }
            ParameterError::EnvelopeId(_) => {
                "It is made of up to 100 printable ASCII characters; a blank, + or = counts three \
                    times."
            }
            ParameterError::OriginalRecipient(..) => {
                "Give a type of address, such as rfc822 or x400, and up to 500 printable ASCII \
                    characters."
            }
            ParameterError::NotARecipient(_) => "Name recipients as they stand in the envelope.",
        };
        request(&error).with_hint(hint)
    }
}

impl From<ClientNameError> for Error {
    /// An error of the kind [`Request`](ErrorKind::Request), with advice.
    fn from(error: ClientNameError) -> Self {
        request(&error).with_hint(
            "Give the full name of this host, such as app.example.org, or its address in brackets.",
        )
    }
}

impl From<RawCommandError> for Error {
    /// An error of the kind [`Request`](ErrorKind::Request).
    fn from(error: RawCommandError) -> Self {
        request(&error)
    }
}

impl From<UnknownMechanism> for Error {
    /// An error of the kind [`Request`](ErrorKind::Request) that names the known mechanisms.
    fn from(error: UnknownMechanism) -> Self {
        let names: Vec<_> = Mechanism::ALL.iter().map(|known| known.as_str()).collect();
        let names = names.join(", ");
        request(&error).with_hint(format!("It knows {names}."))
    }
}

/// An invalid request, found before anything was sent.
fn request(error: &dyn std::error::Error) -> Error {
    Error::request(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;

    fn hint(address: &str) -> String {
        let error = Error::from(Address::new(address).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Request);
        error.hint().unwrap_or_default().to_owned()
    }

    #[test]
    fn advice_on_an_address_depends_on_its_fault() {
        assert!(hint("alice\u{200b}@example.org").contains("Type the address"));
        assert!(hint("Alice <alice@example.org>").contains("no name"));
        assert!(hint("alice\r\n@example.org").contains("no name"));
        #[cfg(feature = "idna")]
        assert!(hint("alice@xn--a.org").contains("A-labels"));
    }

    #[test]
    fn advice_on_an_unknown_mechanism_names_the_known_ones() {
        let error = Error::from("NTLM".parse::<Mechanism>().unwrap_err());
        assert!(error.hint().unwrap().contains("PLAIN, LOGIN"), "{error}");
    }

    #[test]
    fn advice_on_an_unknown_outcome_replaces_any_other() {
        let reason = Reason::Aborted(AbortReason::TimedOut("no reply".into()));
        let error = Error::from(ProtocolError::new(Phase::EndOfData, reason));
        assert_eq!((error.kind(), error.hint()), (ErrorKind::Timeout, None));
        let unknown = error.with_outcome_unknown(true);
        assert_eq!(unknown.hint(), Some(UNKNOWN));
        // Another transaction of the message, which had not been sent.
        let known = unknown.clone().with_outcome_unknown(false);
        assert!(unknown.outcome_unknown() && !known.outcome_unknown());
        assert_eq!(known.hint(), Some(hint_for_eof(Phase::Body, false, true)));
    }
}
