//! The errors of a message that was not accepted.

use crate::Address;
use crate::error::{Error, ErrorKind, Phase};
use crate::proto::Reply;
use crate::receipt::{Outcome, Recipient};

/// Why recipients remain that would need another transaction.
pub(super) const ONCE: &str = "the server takes fewer recipients at once than the message has, \
    and the message is read from a stream, so \
    that it could not be sent again for the others";

/// What 421 means for a message that was not sent (RFC 5321, 3.8).
pub(super) const ENDED_BEFORE: &str = "the server ended the session before it took the message";

/// The server refused in this phase. `recipients` is empty if they are not known here.
pub(super) fn refusal(
    phase: Phase,
    reply: Reply,
    sender: Option<&Address>,
    recipients: &[Recipient],
) -> Error {
    let message = match phase {
        // 421 is about the session, not about the command (RFC 5321, 3.8).
        _ if reply.code() == 421 => ENDED_BEFORE.into(),
        Phase::Mail => match sender {
            Some(address) => format!("the server refused the sender {address}"),
            None => "the server refused the null reverse-path <>".into(),
        },
        Phase::Rcpt => refused_recipients(recipients),
        Phase::Data => format!("the server refused to take {}", message_to(recipients)),
        Phase::Body => format!(
            "the server refused {} while it was being sent",
            message_to(recipients)
        ),
        Phase::Setup
        | Phase::Connect
        | Phase::Tls
        | Phase::Greeting
        | Phase::Hello
        | Phase::StartTls
        | Phase::Auth
        | Phase::Handover
        | Phase::EndOfData
        | Phase::Reset
        | Phase::Noop
        | Phase::Command
        | Phase::Quit => format!("the server refused {}", message_to(recipients)),
    };
    Error::refused(ErrorKind::Refused, phase, message, reply)
}

/// The connection ended after the whole message was written and before the reply.
pub(super) fn unknown(error: Error, recipients: &[Recipient]) -> Error {
    // In LMTP, the outcome of some recipients may be known.
    let unknown = recipients
        .iter()
        .filter(|recipient| recipient.outcome == Outcome::Unknown);
    error.context(format_args!(
        "it is not known whether the server took {}",
        message_to(unknown)
    ))
}

/// The maximum number of recipients that an error names.
const NAMED: usize = 10;

fn refused_recipients(recipients: &[Recipient]) -> String {
    let refused = recipients
        .iter()
        .filter(|recipient| matches!(recipient.outcome, Outcome::Refused(_)));
    let names: Vec<&str> = refused
        .map(|recipient| recipient.address.as_str())
        .collect();
    match names[..] {
        [name] if recipients.len() == 1 => format!("the server refused the recipient {name}"),
        [first, ..] if names.len() == recipients.len() => {
            format!(
                "the server refused all {} recipients, {first} among them",
                names.len()
            )
        }
        _ => {
            let (named, others) = names.split_at(names.len().min(NAMED));
            let more = if others.is_empty() {
                String::new()
            } else {
                format!(" and {} more", others.len())
            };
            let named = named.join(", ");
            format!(
                "the message was to go to all recipients or none, and the server refused \
                    {named}{more}"
            )
        }
    }
}

fn message_to<'a>(recipients: impl IntoIterator<Item = &'a Recipient>) -> String {
    let mut recipients = recipients.into_iter();
    match (recipients.next(), recipients.count()) {
        (None, _) => "the message".into(),
        (Some(only), 0) => format!("the message to {}", only.address),
        (Some(first), others) => format!("the message to {} and {others} more", first.address),
    }
}
