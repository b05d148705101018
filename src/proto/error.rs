//! Why a session ended early, or a call was refused.
//!
//! A [`ProtocolError`] has a typed [`Reason`]. [`Error::from`](crate::Error) adds its
//! [kind](crate::ErrorKind) and advice, which are defined elsewhere.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::redact::Secrets;
use super::{Capabilities, Mechanism, Phase, Protocol, Reply, ReplyError, SaslFailure};
use crate::address::Address;
use crate::date;
use crate::text::printable;

/// The result type of the machine.
pub(super) type Result<T, E = ProtocolError> = std::result::Result<T, E>;

/// A failure of a session, or of a call to its [`Machine`](super::Machine): the phase, a typed
/// [`Reason`], and the server's reply, if a reply caused it.
///
/// `Display` describes what happened. [`Error::from`](crate::Error) adds the kind and advice.
///
/// ```
/// use envoi::proto::{ClientName, Machine, Reason, Settings};
///
/// let mut machine = Machine::new(Settings::new(ClientName::new("client.example.org")?));
/// let error = machine.noop().unwrap_err();
/// assert!(matches!(error.reason(), Reason::OutOfTurn { .. }));
/// assert_eq!(envoi::Error::from(error).kind(), envoi::ErrorKind::Request);
/// # Ok::<(), envoi::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ProtocolError(Box<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    phase: Phase,
    reason: Reason,
    reply: Option<Reply>,
    outcome_unknown: bool,
}

impl ProtocolError {
    pub(crate) fn new(phase: Phase, reason: Reason) -> Self {
        ProtocolError(Box::new(Inner {
            phase,
            reason,
            reply: None,
            outcome_unknown: false,
        }))
    }

    /// The mechanism does not support the credentials, or cannot start.
    pub(super) fn login_unusable(failure: SaslFailure) -> Self {
        let reason = Reason::LoginUnusable(printable(failure.to_string()));
        Self::new(Phase::Auth, reason)
    }

    /// TLS is required, and this reply to EHLO does not offer STARTTLS.
    pub(crate) fn starttls_not_offered(
        capabilities: &Capabilities,
        greeting: Option<&Reply>,
        port: Option<u16>,
        protocol: Protocol,
    ) -> Self {
        let keywords = capabilities.keywords().iter();
        let reason = Reason::StartTlsNotOffered {
            offered: keywords.map(|keyword| keyword.name.clone()).collect(),
            greeting: greeting.cloned(),
            port,
            protocol,
        };
        Self::new(Phase::StartTls, reason)
    }

    /// A negative reply.
    pub(super) fn refused(phase: Phase, reason: Reason, reply: Reply) -> Self {
        Self::new(phase, reason).with_reply(reply)
    }

    pub(super) fn with_reply(mut self, reply: Reply) -> Self {
        self.0.reply = Some(reply);
        self
    }

    pub(super) fn with_outcome_unknown(mut self, unknown: bool) -> Self {
        self.0.outcome_unknown = unknown;
        self
    }

    /// Redacts secrets in the texts of the server and of the driver.
    pub(super) fn redacted(mut self, secrets: &Secrets) -> Self {
        self.0.reason.redact(secrets);
        self
    }

    /// The phase in which it occurred.
    pub fn phase(&self) -> Phase {
        self.0.phase
    }

    /// The reason.
    pub fn reason(&self) -> &Reason {
        &self.0.reason
    }

    /// The server's reply that caused the failure, if it was a reply.
    pub fn reply(&self) -> Option<&Reply> {
        self.0.reply.as_ref()
    }

    /// Whether the message may have been delivered: all of it was sent, and a final reply is
    /// missing.
    pub fn outcome_unknown(&self) -> bool {
        self.0.outcome_unknown
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.reason.fmt(f)
    }
}

impl fmt::Debug for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtocolError")
            .field("phase", &self.0.phase)
            .field("reason", &self.0.reason)
            .field("reply", &self.0.reply)
            .field("outcome_unknown", &self.0.outcome_unknown)
            .finish()
    }
}

impl std::error::Error for ProtocolError {}

/// Why a session ended early, or a call to the machine was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    // ---- Refusals by the server; see `ProtocolError::reply` ----
    /// The server refused the session with its greeting.
    SessionRefused,
    /// The server refused this client's EHLO or LHLO.
    HelloRefused {
        /// `EHLO` or `LHLO`.
        command: &'static str,
        /// The client name.
        client_name: String,
    },
    /// The server does not know LHLO, the first command of LMTP.
    LhloUnknown,
    /// The server offered STARTTLS and refused it.
    StartTlsRefused,
    /// The server replied 421 during setup.
    Unavailable,
    /// The server ended the session with a 421 that is not a reply to a command.
    ShutDown,
    /// The server ended the session with 421 before it accepted the message.
    ShutDownBeforeMessage,
    /// The server ended the session with 421 after the whole message was sent, instead of a final
    /// reply.
    ShutDownBeforeConfirmation,
    /// The server ended the session with 421 before it had replied for every recipient (LMTP,
    /// PRDR).
    ShutDownBetweenRecipients,

    // ---- The server violates SMTP ----
    /// The server begins with TLS instead of a greeting.
    TlsBeforeGreeting,
    /// What was received is not a reply, or exceeds a limit.
    MalformedReply {
        /// A description of the reply that was awaited; `None` where none was.
        expected: Option<&'static str>,
        /// What is wrong with it.
        error: ReplyError,
    },
    /// The reply is not one to the command.
    UnexpectedReply {
        /// A description of the reply that was awaited.
        expected: &'static str,
        /// The reply.
        reply: Reply,
    },
    /// A reply was received, and none was expected.
    UnsolicitedReply(Reply),
    /// A part of a reply was received, and none was expected.
    UnsolicitedInput(String),
    /// Bytes were received in clear after the server's reply to STARTTLS, as if they belonged
    /// inside TLS (CVE-2011-0411).
    InjectedBeforeTls(String),
    /// A challenge is longer than [`Limits::line`](super::Limits::line).
    ChallengeTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// A login has more challenges than [`Limits::challenges`](super::Limits::challenges).
    TooManyChallenges {
        /// The limit.
        limit: usize,
        /// The mechanism of the login.
        mechanism: Mechanism,
    },

    // ---- The connection, and the driver ----
    /// The connection was closed.
    ConnectionEnded {
        /// What was missing.
        before: Missing,
        /// Whether TLS was active.
        secure: bool,
        /// The server's port, if known.
        port: Option<u16>,
    },
    /// The driver ended the session.
    Aborted(AbortReason),

    // ---- TLS and login ----
    /// TLS is required, and the server does not offer STARTTLS.
    StartTlsNotOffered {
        /// The keywords that it offers.
        offered: Vec<String>,
        /// The greeting.
        greeting: Option<Reply>,
        /// The server's port, if known.
        port: Option<u16>,
        /// The protocol.
        protocol: Protocol,
    },
    /// A login outside of TLS, which the [settings](super::Settings::auth_in_clear) do not allow.
    LoginInClear(Protocol),
    /// The server does not offer the mechanism.
    MechanismNotOffered {
        /// The requested mechanism.
        mechanism: Mechanism,
        /// The mechanisms that the server offers.
        offered: Vec<String>,
        /// Whether STARTTLS is offered and TLS is not active.
        starttls_unused: bool,
        /// The server's port, if known.
        port: Option<u16>,
        /// The protocol.
        protocol: Protocol,
    },
    /// The mechanism does not support the credentials, or cannot start, for the given reason.
    LoginUnusable(String),
    /// The server reported a successful login without proving its identity.
    LoginNotVerified {
        /// The mechanism of the login.
        mechanism: Mechanism,
        /// The reason that the mechanism gives.
        failure: String,
    },

    // ---- The server cannot accept the message ----
    /// The message exceeds the size limit of the server (SIZE, RFC 1870).
    MessageTooLarge {
        /// The size of the message in bytes.
        size: u64,
        /// The server's limit in bytes.
        limit: u64,
    },
    /// The message is declared to contain bytes beyond ASCII, and the server does not offer
    /// 8BITMIME.
    EightBitNotOffered,
    /// A piece of the message has bytes beyond ASCII, and the server does not offer 8BITMIME.
    EightBitFound,
    /// The message is binary, and the server does not offer BINARYMIME and CHUNKING.
    BinaryNotOffered,
    /// The address has no ASCII form, and the server does not offer SMTPUTF8.
    AddressNotAscii(Address),
    /// The message has headers beyond ASCII, and the server does not offer SMTPUTF8.
    HeadersNotAscii,
    /// The command is not ASCII, and the server does not offer SMTPUTF8.
    CommandNotAscii,
    /// The message requires TLS on the whole way (REQUIRETLS, RFC 8689), and TLS is not active.
    NotEncrypted,
    /// The server does not offer an extension that the message's [options](crate::DeliveryOptions)
    /// need.
    ExtensionNotOffered {
        /// The extension's keyword.
        keyword: &'static str,
        /// The number of its RFC.
        rfc: u16,
        /// A description of what needs it.
        need: &'static str,
    },
    /// The message is to be delivered within less time than the server accepts (DELIVERBY, RFC
    /// 2852).
    DeliverByTooShort {
        /// The requested time.
        within: Duration,
        /// The server's minimum.
        min: Duration,
    },
    /// The message is to be held for longer than the server can hold it (FUTURERELEASE, RFC 4865).
    HoldTooLong {
        /// The requested time.
        hold: Duration,
        /// The server's maximum.
        max: Duration,
    },
    /// The message is to be held until later than the server can hold it (FUTURERELEASE, RFC 4865).
    HoldTooLate {
        /// The requested time.
        until: SystemTime,
        /// The server's maximum.
        max: SystemTime,
    },
    /// The message has more recipients than the server accepts in a transaction (LIMITS, RFC 9422).
    TooManyRecipients {
        /// The number of recipients.
        number: usize,
        /// The server's limit.
        max: usize,
    },
    /// The recipients are in more domains than the server accepts in a transaction (LIMITS, RFC
    /// 9422).
    TooManyDomains {
        /// The number of domains.
        number: usize,
        /// The server's limit.
        max: usize,
    },
    /// The message needs more transactions than the server accepts in a session (LIMITS, RFC 9422).
    TooManyParts {
        /// The number of transactions.
        parts: usize,
        /// The server's limit.
        max: usize,
    },
    /// The session has had as many transactions as the server accepts (LIMITS, RFC 9422).
    SessionFull {
        /// The server's limit.
        max: usize,
        /// The transactions that were started.
        begun: usize,
    },

    // ---- The caller ----
    /// The call is not allowed in the state of the session.
    OutOfTurn {
        /// A description of the call.
        call: &'static str,
        /// Why it is not allowed.
        cause: OutOfTurn,
    },
    /// The session is over.
    SessionOver,
    /// No transaction is open.
    NoTransaction,
    /// The transaction has no recipient.
    NoRecipient,
    /// No recipient was accepted.
    NoRecipientAccepted,
    /// The transaction for [`Machine::mail`](super::Machine::mail) has recipients, which must be
    /// added one by one.
    RecipientsGiven,
    /// The recipient has no ASCII form, and the transaction was started without SMTPUTF8.
    RecipientNotAscii(Address),
    /// A piece of a message that is not binary has a NUL (RFC 2045, 2.8).
    NulInText,
    /// The message does not have the announced size.
    SizeDiffers {
        /// The announced size in bytes.
        announced: u64,
    },
}

/// What was missing when the connection was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// Nothing: no reply was expected.
    Nothing,
    /// The rest of a reply, which began with this.
    RestOfReply(String),
    /// The rest of the message, which had not been sent.
    RestOfMessage,
    /// The final reply to the message.
    FinalReply,
    /// Another reply, with its description.
    Reply(&'static str),
}

/// Why a call is not allowed in the state of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutOfTurn {
    /// Another call is expected.
    State,
    /// The reply to an earlier command is missing, or its event has not been taken.
    Unanswered,
    /// The end of a message is held back until its hand-over.
    NotHandedOver,
    /// The reply to the previous chunk is missing.
    ChunkUnanswered,
    /// A part of a reply was received, and its rest must come first.
    ReplyIncomplete,
}

/// Why the driver [ends](super::Machine::abort) a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AbortReason {
    /// The server took more time than allowed, with a text that says what took too long.
    TimedOut(String),
    /// The connection failed, with a text that says how.
    ConnectionFailed(String),
    /// The message cannot be read to its end, with a text that says why.
    InputFailed(String),
}

impl Reason {
    /// Redacts secrets in all texts that do not come from envoi itself.
    fn redact(&mut self, secrets: &Secrets) {
        let redact = |text: &mut String| {
            if let Some(redacted) = secrets.redacted(text) {
                *text = redacted;
            }
        };
        match self {
            Reason::HelloRefused {
                client_name: text, ..
            }
            | Reason::UnsolicitedInput(text)
            | Reason::InjectedBeforeTls(text)
            | Reason::ConnectionEnded {
                before: Missing::RestOfReply(text),
                ..
            }
            | Reason::Aborted(
                AbortReason::TimedOut(text)
                | AbortReason::ConnectionFailed(text)
                | AbortReason::InputFailed(text),
            )
            | Reason::LoginUnusable(text)
            | Reason::LoginNotVerified { failure: text, .. } => redact(text),
            Reason::StartTlsNotOffered { offered, .. }
            | Reason::MechanismNotOffered { offered, .. } => offered.iter_mut().for_each(redact),
            // Replies are redacted when they are received.
            Reason::SessionRefused
            | Reason::LhloUnknown
            | Reason::StartTlsRefused
            | Reason::Unavailable
            | Reason::ShutDown
            | Reason::ShutDownBeforeMessage
            | Reason::ShutDownBeforeConfirmation
            | Reason::ShutDownBetweenRecipients
            | Reason::TlsBeforeGreeting
            | Reason::MalformedReply { .. }
            | Reason::UnexpectedReply { .. }
            | Reason::UnsolicitedReply(_)
            | Reason::ChallengeTooLong { .. }
            | Reason::TooManyChallenges { .. }
            | Reason::ConnectionEnded { .. }
            | Reason::LoginInClear(_)
            | Reason::MessageTooLarge { .. }
            | Reason::EightBitNotOffered
            | Reason::EightBitFound
            | Reason::BinaryNotOffered
            | Reason::AddressNotAscii(_)
            | Reason::HeadersNotAscii
            | Reason::CommandNotAscii
            | Reason::NotEncrypted
            | Reason::ExtensionNotOffered { .. }
            | Reason::DeliverByTooShort { .. }
            | Reason::HoldTooLong { .. }
            | Reason::HoldTooLate { .. }
            | Reason::TooManyRecipients { .. }
            | Reason::TooManyDomains { .. }
            | Reason::TooManyParts { .. }
            | Reason::SessionFull { .. }
            | Reason::OutOfTurn { .. }
            | Reason::SessionOver
            | Reason::NoTransaction
            | Reason::NoRecipient
            | Reason::NoRecipientAccepted
            | Reason::RecipientsGiven
            | Reason::RecipientNotAscii(_)
            | Reason::NulInText
            | Reason::SizeDiffers { .. } => {}
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Reason::SessionRefused => "the server refused the session",
            Reason::HelloRefused {
                command,
                client_name,
            } => {
                return write!(
                    f,
                    "the server refused {command} from this client, {client_name}"
                );
            }
            Reason::LhloUnknown => "the server does not know LHLO, with which LMTP begins",
            Reason::StartTlsRefused => "the server offers STARTTLS and refused it",
            Reason::Unavailable => "the server does not serve this client now",
            Reason::ShutDown => "the server ended the session unasked",
            Reason::ShutDownBeforeMessage => {
                "the server ended the session before it took the message"
            }
            Reason::ShutDownBeforeConfirmation => {
                "the server ended the session before it confirmed the message"
            }
            Reason::ShutDownBetweenRecipients => {
                "the server ended the session before it had answered for every recipient"
            }
            Reason::TlsBeforeGreeting => {
                "the server speaks TLS from the first byte on this port, where its greeting \
                    should come in clear"
            }
            Reason::MalformedReply { expected, error } => {
                return match expected {
                    Some(expected) => write!(f, "expected {expected}, but {error}"),
                    None => write!(f, "no reply was awaited, and {error}"),
                };
            }
            Reason::UnexpectedReply { expected, reply } => {
                return write!(f, "expected {expected}, but the server sent {reply}");
            }
            Reason::UnsolicitedReply(reply) => {
                return write!(f, "the server sent {reply}, and nothing was asked");
            }
            Reason::UnsolicitedInput(unread) => {
                return write!(f, "the server sent {unread:?}, and nothing was asked");
            }
            Reason::InjectedBeforeTls(unread) => {
                return write!(
                    f,
                    "bytes came in clear after the server's go-ahead for TLS, as if they \
                        belonged inside it: {unread:?}"
                );
            }
            Reason::ChallengeTooLong { limit } => {
                return write!(
                    f,
                    "the server sent a challenge longer than the limit of {limit} bytes"
                );
            }
            Reason::TooManyChallenges { limit, mechanism } => {
                return write!(
                    f,
                    "the server sent more challenges than the limit of {limit} for {mechanism}"
                );
            }
            Reason::ConnectionEnded { before, .. } => match before {
                Missing::Nothing => "the server closed the connection",
                Missing::RestOfReply(unread) => {
                    return write!(
                        f,
                        "the connection ended in the middle of a reply: {unread:?}"
                    );
                }
                Missing::RestOfMessage => "the connection ended in the middle of the message",
                Missing::FinalReply => {
                    "the connection ended before the server confirmed the message"
                }
                Missing::Reply(expected) => {
                    return write!(f, "the connection ended before {expected} came");
                }
            },
            Reason::Aborted(
                AbortReason::TimedOut(text)
                | AbortReason::ConnectionFailed(text)
                | AbortReason::InputFailed(text),
            ) => text,
            Reason::StartTlsNotOffered { offered, .. } => {
                let offers = match offered.is_empty() {
                    true => "nothing at all".to_owned(),
                    false => offered.join(", "),
                };
                return write!(
                    f,
                    "TLS is required, and the server does not offer STARTTLS; it offers {offers}"
                );
            }
            Reason::LoginInClear(_) => "the credentials would cross the network unprotected",
            Reason::MechanismNotOffered { offered, .. } if offered.is_empty() => {
                "the server offers no login here"
            }
            Reason::MechanismNotOffered {
                mechanism, offered, ..
            } => {
                return write!(
                    f,
                    "the server does not offer {mechanism}; it offers {}",
                    offered.join(", ")
                );
            }
            Reason::LoginUnusable(failure) => failure,
            Reason::LoginNotVerified { mechanism, failure } => {
                return write!(f, "the login with {mechanism} failed: {failure}");
            }
            Reason::MessageTooLarge { size, limit } => {
                return write!(
                    f,
                    "the message has {size} bytes, and the server takes at most {limit}"
                );
            }
            Reason::EightBitNotOffered => {
                "the message has bytes beyond ASCII, and the server does not offer 8BITMIME"
            }
            Reason::EightBitFound => {
                "the message has bytes beyond ASCII, and the server does not offer 8BITMIME; it \
                    was not sent"
            }
            Reason::BinaryNotOffered => {
                "the message must go as it is, and the server does not offer BINARYMIME and \
                    CHUNKING"
            }
            Reason::AddressNotAscii(address) => {
                return write!(
                    f,
                    "the address {address} is not ASCII, and the server does not offer SMTPUTF8"
                );
            }
            Reason::HeadersNotAscii => {
                "the message has headers that are not ASCII, and the server does not offer SMTPUTF8"
            }
            Reason::CommandNotAscii => {
                "the command is not ASCII, and the server does not offer SMTPUTF8"
            }
            Reason::NotEncrypted => {
                "the message is to go by TLS alone, all the way (REQUIRETLS), and this connection \
                    is not encrypted"
            }
            Reason::ExtensionNotOffered { keyword, need, .. } => {
                return write!(f, "{need}, and the server does not offer {keyword}");
            }
            Reason::DeliverByTooShort { within, min } => {
                return write!(
                    f,
                    "the message is to be delivered within {within:?} or returned, and the server \
                        takes no less than {min:?}"
                );
            }
            Reason::HoldTooLong { hold, max } => {
                return write!(
                    f,
                    "the message is to be held for {hold:?}, and the server holds one for {max:?} \
                        at most"
                );
            }
            Reason::HoldTooLate { until, max } => {
                let text = |time| date::seconds(time).map(date::to_text).unwrap_or_default();
                return write!(
                    f,
                    "the message is to be held until {}, and the server holds none beyond {}",
                    text(*until),
                    text(*max)
                );
            }
            Reason::TooManyRecipients { number, max } => {
                return write!(
                    f,
                    "the message has {number} recipients, and the server takes {max} at once \
                        (LIMITS)"
                );
            }
            Reason::TooManyDomains { number, max } => {
                return write!(
                    f,
                    "the message has {number} domains of recipients, and the server takes {max} \
                        at once (LIMITS)"
                );
            }
            Reason::TooManyParts { parts, max } => {
                return write!(
                    f,
                    "the message goes in {parts} parts, and the server takes {max} in a session \
                        (LIMITS)"
                );
            }
            Reason::SessionFull { max, begun } => {
                return write!(
                    f,
                    "the server takes {max} messages in a session (LIMITS), and has had {begun}"
                );
            }
            Reason::OutOfTurn { call, cause } => {
                let why = match cause {
                    OutOfTurn::State => " now",
                    OutOfTurn::Unanswered => {
                        ": the answer to what was sent before is not there, or was not looked at"
                    }
                    OutOfTurn::NotHandedOver => ": a message waits for its hand-over",
                    OutOfTurn::ChunkUnanswered => ": the chunk before it is not answered",
                    OutOfTurn::ReplyIncomplete => ": what the server sends is not whole",
                };
                return write!(f, "{call} is out of turn{why}");
            }
            Reason::SessionOver => "the session is over",
            Reason::NoTransaction => "no transaction is open",
            Reason::NoRecipient => "the message has no recipient",
            Reason::NoRecipientAccepted => "no recipient was accepted, so no message can be sent",
            Reason::RecipientsGiven => {
                "the transaction has recipients, which are given one by one here"
            }
            Reason::RecipientNotAscii(address) => {
                return write!(
                    f,
                    "the address {address} is not ASCII, and the transaction was begun without \
                        SMTPUTF8"
                );
            }
            Reason::NulInText => "the message has a NUL, which text cannot have; it was not sent",
            Reason::SizeDiffers { announced } => {
                return write!(
                    f,
                    "the message has another size than the {announced} bytes announced; it was \
                        not sent"
                );
            }
        };
        f.write_str(text)
    }
}

impl AbortReason {
    /// Makes the text safe to show.
    pub(super) fn printable(self) -> Self {
        match self {
            AbortReason::TimedOut(text) => AbortReason::TimedOut(printable(text)),
            AbortReason::ConnectionFailed(text) => AbortReason::ConnectionFailed(printable(text)),
            AbortReason::InputFailed(text) => AbortReason::InputFailed(printable(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_another_origin_keeps_a_secret() {
        let mut secrets = Secrets::default();
        secrets.add_with_base64("correct-horse");
        let text = || "no such user: correct-horse".to_owned();
        for reason in [
            Reason::HelloRefused {
                command: "EHLO",
                client_name: text(),
            },
            Reason::UnsolicitedInput(text()),
            Reason::InjectedBeforeTls(text()),
            Reason::ConnectionEnded {
                before: Missing::RestOfReply(text()),
                secure: true,
                port: None,
            },
            Reason::Aborted(AbortReason::TimedOut(text())),
            Reason::Aborted(AbortReason::ConnectionFailed(text())),
            Reason::Aborted(AbortReason::InputFailed(text())),
            Reason::StartTlsNotOffered {
                offered: vec!["PIPELINING".into(), text()],
                greeting: None,
                port: None,
                protocol: Protocol::Smtp,
            },
            Reason::MechanismNotOffered {
                mechanism: Mechanism::Plain,
                offered: vec![text(), "LOGIN".into()],
                starttls_unused: false,
                port: None,
                protocol: Protocol::Smtp,
            },
            Reason::LoginUnusable(text()),
            Reason::LoginNotVerified {
                mechanism: Mechanism::Plain,
                failure: text(),
            },
        ] {
            let error = ProtocolError::new(Phase::Auth, reason).redacted(&secrets);
            for shown in [error.to_string(), format!("{error:?}")] {
                let is_redacted = shown.contains("***") && !shown.contains("horse");
                assert!(is_redacted, "{shown}");
            }
        }
    }
}
