//! What to do now: advice for people, by what went wrong.
//!
//! The texts say the next step, not the theory. They know replies and phases; of sockets and TLS they know nothing.

use crate::error::{Error, Kind, Phase};
use crate::proto::{Capabilities, Reply};

pub(crate) const INSECURE: &str = "Use a connection with TLS (smtp:// with STARTTLS on port 587, or smtps:// on port 465), \
    or say by name that the password may cross the network in clear (auth-in-clear=yes).";

pub(crate) const INJECTED: &str = "Somebody between you and the server may be tampering with the connection, or the \
    server's software is old and faulty (see CVE-2011-0411). Nothing was sent. Use implicit TLS (smtps://, port 465) if the server has it.";

#[cfg(feature = "client")]
pub(crate) const SILENT_IN_TLS: &str = "TLS works here, but no mail server speaks inside it: check host and port.";

/// The server offers STARTTLS nowhere in its answer to EHLO.
pub(crate) fn starttls_missing(offered: &Capabilities) -> Error {
    let names: Vec<&str> = offered.keywords().iter().map(|keyword| keyword.name.as_str()).collect();
    let offers = if names.is_empty() { "nothing at all".to_owned() } else { names.join(", ") };
    // A firewall that rewrites SMTP overwrites what it does not want with X of the same length.
    let rewritten = names.iter().any(|name| name.len() >= 7 && name.starts_with("XXXX"));
    let hint = if rewritten {
        "A device between you and the server rewrites SMTP (a firewall's \"SMTP inspection\" or \"fixup\"): have it switched off, \
         or use implicit TLS (smtps://, port 465)."
    } else {
        "Use the submission port 587, or smtps:// on port 465, where servers offer TLS. If this server has no TLS at all and the \
         network can be trusted, say tls=none; tls=opportunistic uses TLS only when it is offered."
    };
    let message = format!("TLS is required, and the server does not offer STARTTLS; it offers {offers}");
    Error::new(Kind::Tls, Phase::StartTls, message).with_hint(hint)
}

/// No mechanism that can be used, or not the one wanted.
pub(crate) fn no_mechanism(offered: &Capabilities) -> &'static str {
    if !offered.auth().is_empty() {
        "Choose one of the mechanisms that the server offers."
    } else if offered.offers("STARTTLS") {
        "Many servers offer the login only inside TLS: use STARTTLS (the default of smtp://)."
    } else {
        "Port 25 is often without a login: use the submission port 587 (STARTTLS) or 465 (smtps://), or leave the credentials out."
    }
}

/// What came instead of a reply looks like something else that is well known.
pub(crate) fn for_stranger(line: &str) -> Option<&'static str> {
    if line.starts_with("HTTP/") || line.starts_with("<") {
        Some("That is a web server: check the host and the port.")
    } else if line.starts_with("SSH-") {
        Some("That is an SSH server: check the host and the port.")
    } else if line.starts_with("* OK") || line.starts_with("+OK") {
        Some("That is a server for reading mail (IMAP or POP3): mail is sent through another port, mostly 587 or 465.")
    } else {
        None
    }
}

/// These are the first bytes of TLS: a record's type (RFC 8446, 5.1), then the major version 3.
pub(crate) fn speaks_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x14..=0x18] | [0x14..=0x18, 0x03, ..])
}

/// The connection ended in this phase, with these bytes unread.
pub(crate) fn for_end(phase: Phase, unread: &[u8]) -> Option<&'static str> {
    match (phase, unread) {
        (Phase::Greeting, bytes) if speaks_tls(bytes) => {
            Some("That was TLS: this port speaks TLS from the first byte. Use smtps:// (port 465).")
        }
        (Phase::Greeting, []) => Some(
            "If this port speaks TLS from the first byte (as 465 does), use smtps://. Otherwise the server or a firewall may refuse this client's address.",
        ),
        _ => None,
    }
}

/// Nothing came in this phase for as long as was allowed.
#[cfg(feature = "client")]
pub(crate) fn for_silence(phase: Phase) -> Option<&'static str> {
    Some(match phase {
        Phase::Connect => {
            "Check host and port, and whether a firewall drops connections to this port: 25 is blocked in many networks, 587 and 465 are not."
        }
        Phase::Greeting => {
            "If this port speaks TLS from the first byte (as 465 does), use smtps://: the server waits for you to begin."
        }
        Phase::Tls => {
            "The server is silent in the middle of the handshake: check that the port and the kind of TLS (STARTTLS or implicit) fit together."
        }
        Phase::EndOfData => "The message may have been delivered: look at the server's log before you send it again.",
        _ => return None,
    })
}

/// A refusal in this phase.
pub(crate) fn for_reply(phase: Phase, reply: &Reply) -> Option<&'static str> {
    let enhanced = reply.enhanced().map(|code| (code.class, code.subject, code.detail));
    let text = reply.text().to_ascii_lowercase();
    let says = |words: &str| text.contains(words);
    Some(match (phase, reply.code(), enhanced) {
        (_, 530, _) if says("starttls") => {
            "The server wants TLS first: use tls=required (the default of smtp://) on port 587, or smtps:// on port 465."
        }
        (_, 530, _) => LOGIN_FIRST,
        (Phase::StartTls, 554 | 503, _) if says("already") => {
            "TLS is active on this port from the first byte: use smtps:// instead of smtp://."
        }
        (Phase::Auth, _, Some((5, 7, 9))) => {
            "The account needs an application-specific password or another way to log in; create one in the account's security settings."
        }
        (Phase::Auth, _, Some((5, 7, 139))) => {
            "Basic authentication is switched off for this mailbox or tenant: an administrator must allow SMTP AUTH, or use OAuth 2."
        }
        (Phase::Auth, 454 | 421, _) => "The server cannot check logins at the moment: try again later.",
        (Phase::Auth, 432, _) => "The password must be changed before this mechanism works: log in once another way.",
        (Phase::Auth, 534 | 538, _) => {
            "The server wants another mechanism, or TLS, or a stronger one for this account."
        }
        (Phase::Auth, 535, _) => {
            "Check user name and password; many servers want the whole address as the user name, and some an application password."
        }
        (Phase::Mail, 501 | 553, Some((5, 1, 7))) | (Phase::Mail, 501, None) => {
            "The server does not like the sender's address: check From, and whether this login may use it."
        }
        (_, _, Some((5, 7, 60))) => {
            "The login is not allowed to send as this sender: use the mailbox's own address, or have \"send as\" granted."
        }
        (Phase::Rcpt, _, Some((5, 1, 1))) => "There is no such mailbox: check the recipient's address.",
        (Phase::Rcpt, _, Some((5, 7, 1))) if says("relay") => RELAY,
        (Phase::Rcpt, _, _) if says("relay") => RELAY,
        // Postfix's words on a submission port, to those who have not logged in.
        (Phase::Mail | Phase::Rcpt, 554, Some((5, 7, 1))) if says("client host rejected: access denied") => LOGIN_FIRST,
        (Phase::Mail | Phase::EndOfData | Phase::Body, 552, _) | (_, _, Some((5, 3, 4))) => {
            "The message is larger than the server or the mailbox takes: send less, or put the attachment where it can be fetched from."
        }
        (_, 421, _) => "The server is busy or going down, or it limits this client: try again later.",
        (_, 450..=452, _) => "The server asks to try again later.",
        _ => return None,
    })
}

const LOGIN_FIRST: &str = "The server wants a login first: give a user name and a password.";

const RELAY: &str = "The server forwards mail to other domains only for those who log in: give credentials, or use the server that is meant for sending.";
