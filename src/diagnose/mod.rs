//! Advice for humans: what to do next about a failure.
//!
//! The texts state the next step, not the theory. They depend on plain facts only: replies, phases,
//! names. This module does not know where the facts come from. `tests/failures/snapshots` shows
//! each text together with its failure.

#[cfg(feature = "client")]
pub(crate) mod certificate;
#[cfg(feature = "client")]
pub(crate) mod check;
#[cfg(feature = "mx")]
pub(crate) mod dane;
#[cfg(feature = "client")]
pub(crate) mod handshake;
#[cfg(feature = "proxy")]
pub(crate) mod proxy;
#[cfg(feature = "client")]
mod refusal;
#[cfg(feature = "client")]
mod replies;
mod session;
#[cfg(feature = "client")]
pub(crate) mod trust;

use crate::proto::{Phase, Protocol, Reply};
#[cfg(feature = "client")]
pub(crate) use refusal::{Advice, Facts, for_refusal};

const INSECURE: &str = "Use a connection with TLS (smtp:// with STARTTLS on port 587, or smtps:// \
    on port 465), or explicitly allow the password to cross the network unencrypted \
    (auth-in-clear=yes).";

const INSECURE_LMTP: &str = "Use TLS (tls=required in the URL), or explicitly allow the \
    password to cross the network unencrypted (auth-in-clear=yes).";

/// TLS is active but not verified.
#[cfg(feature = "client")]
pub(crate) const UNVERIFIED: &str = "Have the certificate verified: trust its issuer (Trust::path, \
    or trust= in the URL), and leave out what makes verification optional (tls=opportunistic). Or \
    explicitly allow the password to go to an unverified server (auth-in-clear=yes).";

const INJECTED: &str = "Something between you and the server may be tampering with the \
    connection, or the server's software is old and faulty (see CVE-2011-0411). Nothing was sent. \
    Use implicit TLS (smtps://, port 465) if the server has it.";

const NO_LMTP: &str = "This server seems to speak SMTP: use smtp:// or smtps://, or the port or \
    socket where it speaks LMTP.";

const UNKNOWN: &str = "The message was handed over whole: it may have been delivered, or not. Look \
    for it in the server's log, or ask the recipient, before you send it again.";

pub(crate) const NUL: &str = "Encode the part that has it as base64. A raw message can also go as \
    it is (LineEnds::Keep), to a server that offers BINARYMIME.";

/// The server did not prove its identity, or the login is bound to another TLS connection.
const DISTRUSTED: &str = "Another server may be between this client and the right one, and tamper \
    with the login: compare the server's certificate with the one that its administrator names. If \
    the connection is in order, this mechanism is faulty on the server: choose another one (auth= \
    in the URL).";

// ---- What is offered ----

/// The reply to EHLO does not offer STARTTLS, or was rewritten on the way, as the greeting may show
/// too.
fn starttls_missing(
    offered: &[String],
    greeting: Option<&Reply>,
    port: Option<u16>,
    protocol: Protocol,
) -> &'static str {
    let is_rewritten = greeting.is_some_and(|greeting| is_rewritten(&greeting.text()))
        || offered.iter().any(|name| is_rewritten(name));
    match protocol {
        Protocol::Lmtp if is_rewritten => {
            "A device between you and the server rewrites LMTP (a firewall's \"SMTP inspection\" \
                or \"fixup\"): have it switched off."
        }
        Protocol::Lmtp => {
            "Its administrator must put STARTTLS in order. If this server has no TLS at all and \
                the network can be trusted, say tls=none; tls=opportunistic uses TLS only when it \
                is offered."
        }
        Protocol::Smtp if is_rewritten => {
            "A device between you and the server rewrites SMTP (a firewall's \"SMTP inspection\" \
                or \"fixup\"): have it switched off, or use implicit TLS (smtps://, port 465)."
        }
        Protocol::Smtp if port == Some(587) => {
            "Use smtps:// on port 465, where TLS comes first. If this server has no TLS at all and \
                the network can be trusted, say tls=none; tls=opportunistic uses TLS only when it \
                is offered."
        }
        Protocol::Smtp => {
            "Use the submission port 587, or smtps:// on port 465, where servers offer TLS. If \
                this server has no TLS at all and the network can be trusted, say tls=none; \
                tls=opportunistic uses TLS only when it is offered."
        }
    }
}

/// A firewall that rewrites SMTP overwrites a keyword with X (and a letter at its end) of the same
/// length, and the text of the greeting with asterisks.
fn is_rewritten(text: &str) -> bool {
    text.starts_with("XXXX") || text.contains("*****")
}

/// There is no usable mechanism, or not the requested one.
fn no_mechanism(
    offered: &[String],
    starttls_unused: bool,
    port: Option<u16>,
    protocol: Protocol,
) -> &'static str {
    match protocol {
        _ if !offered.is_empty() => {
            "Choose one of the mechanisms that the server offers (auth= in the URL), or leave the \
                choice to envoi."
        }
        Protocol::Lmtp if starttls_unused => {
            "Many servers offer the login only inside TLS: say tls=required, so that STARTTLS is \
                used."
        }
        Protocol::Lmtp => {
            "The server has no login here: ask its administrator, or leave the credentials out."
        }
        Protocol::Smtp if starttls_unused => {
            "Many servers offer the login only inside TLS: leave out tls=none, so that STARTTLS is \
                used."
        }
        Protocol::Smtp if matches!(port, Some(587 | 465)) => {
            "The server has no login on this port: ask its administrator, or leave the credentials \
                out."
        }
        Protocol::Smtp => {
            "Port 25 is often without a login: use the submission port 587 (STARTTLS) or 465 \
                (smtps://), or leave the credentials out."
        }
    }
}

/// The message requires TLS on the whole way, and the connection does not comply.
pub(crate) const REQUIRE_TLS: &str = "Use verified TLS for it: smtps://, or smtp:// without \
    tls=none and tls=opportunistic. Otherwise send the message without this demand.";

// ---- No reply ----

/// What was received instead of a reply in this phase looks like another known protocol.
fn hint_for_other_protocol(phase: Phase, line: &str) -> &'static str {
    let begins = |words: &[&str]| words.iter().any(|word| line.starts_with(word));
    if begins(&["HTTP/", "<"]) {
        "That is a web server: check the host and the port."
    } else if begins(&["SSH-"]) {
        "That is an SSH server: check the host and the port."
    } else if begins(&["* OK", "* BYE", "* PREAUTH", "+OK", "-ERR"]) {
        "That is a server for reading mail (IMAP or POP3): mail is sent through another port, \
            mostly 587 or 465."
    } else if is_offer(line) {
        "The server's answer to EHLO is broken: each of its lines must begin with the code 250 \
            (RFC 5321, 4.2.1). Show this message to the server's administrator."
    } else if phase == Phase::Greeting {
        "That is not a mail server, or a device in between disturbs it: check the host and the \
            port."
    } else {
        "The server, or a device in between, does not keep to SMTP: show this message to the \
            server's administrator."
    }
}

/// Whether this is a line of a reply to EHLO without its code.
fn is_offer(line: &str) -> bool {
    const OFFERS: [&str; 12] = [
        "8BITMIME",
        "AUTH",
        "BINARYMIME",
        "CHUNKING",
        "DSN",
        "ENHANCEDSTATUSCODES",
        "HELP",
        "LIMITS",
        "PIPELINING",
        "SIZE",
        "SMTPUTF8",
        "STARTTLS",
    ];
    let keyword = line.split([' ', '=']).next().unwrap_or_default();
    OFFERS
        .iter()
        .any(|offer| offer.eq_ignore_ascii_case(keyword))
}

/// The connection ended in this phase; `secure` if inside TLS. A socket of this machine and a
/// stream of the caller have no port.
pub(crate) fn hint_for_eof(phase: Phase, secure: bool, has_port: bool) -> &'static str {
    match phase {
        Phase::Greeting if !has_port => {
            "The server refuses this client, or the socket is that of another service: its log and \
                its configuration say more."
        }
        Phase::Greeting if secure => {
            "TLS works, but no mail server sends a greeting inside it: check the host and the \
                port. The server may also refuse this client's address; its log says so."
        }
        Phase::Greeting => {
            "If this port speaks TLS from the first byte (as 465 does), use smtps://. Otherwise \
                the server or a firewall may refuse this client's address."
        }
        Phase::Body => {
            "The message is not delivered, because its end was not sent: it can be sent again. If \
                that fails, too, the server's log says why."
        }
        Phase::Handover => {
            "The message was not sent, because the callback of Message::on_handover had not ended: \
                it can be sent again. A server may close the connection if the callback takes \
                minutes."
        }
        Phase::Setup
        | Phase::Connect
        | Phase::Tls
        | Phase::Hello
        | Phase::StartTls
        | Phase::Auth
        | Phase::Mail
        | Phase::Rcpt
        | Phase::Data
        | Phase::EndOfData
        | Phase::Reset
        | Phase::Noop
        | Phase::Command
        | Phase::Quit => {
            "It can be tried again. If it ends here again, the server's log says why: it may \
                refuse this client, or be out of order."
        }
    }
}

/// A time-out in this phase; `secure` if inside TLS. `setting` allows more time; it is named unless
/// it is the time-out of the phase.
#[cfg(feature = "client")]
pub(crate) fn hint_for_timeout(
    phase: Phase,
    secure: bool,
    has_port: bool,
    setting: &str,
    is_of_phase: bool,
) -> String {
    let hint = match phase {
        Phase::Connect if !has_port => {
            "The server does not take connections at its socket: it is overloaded, or it hangs. \
                Its log says more."
        }
        Phase::Greeting | Phase::Tls if !has_port => {
            "The socket may be that of another service, or of a server that speaks TLS in another \
                way: its configuration says where and how it takes mail."
        }
        Phase::Connect => {
            "Check host and port, and whether a firewall drops connections to this port: 25 is \
                blocked in many networks, 587 and 465 are not."
        }
        Phase::Greeting if secure => {
            let advice = "TLS works, but no mail server sends a greeting inside it: check the \
                host and the port.";
            return format!("{advice} For an overloaded mail server, increase {setting}.");
        }
        Phase::Greeting => {
            "If this port speaks TLS from the first byte (as 465 does), use smtps://: the server \
                waits for you to begin."
        }
        Phase::Tls => {
            "Check that the port and the kind of TLS fit together: smtp:// with STARTTLS is on \
                port 587, smtps:// on 465. If they do, the server is overloaded, or a device in \
                between holds TLS up."
        }
        Phase::Body => {
            "The server is overloaded, or the network is slow or was lost. The message is not \
                delivered, because its end was not sent: it can be sent again."
        }
        Phase::Handover => {
            let sent = "The message was not sent, because the callback of Message::on_handover had \
                not ended.";
            return format!("{sent} Make it faster, or increase {setting}.");
        }
        Phase::EndOfData => UNKNOWN,
        Phase::Setup
        | Phase::Hello
        | Phase::StartTls
        | Phase::Auth
        | Phase::Mail
        | Phase::Rcpt
        | Phase::Data
        | Phase::Reset
        | Phase::Noop
        | Phase::Command
        | Phase::Quit => {
            let later = "The server is overloaded, or the network was lost: try again later.";
            return format!("{later} {SLOW}, increase {setting}.");
        }
    };
    match is_of_phase {
        true => hint.to_owned(),
        false => format!("{hint} {SLOW}, increase {setting}."),
    }
}

#[cfg(feature = "client")]
const SLOW: &str = "For a slow server";

/// The message was not prepared before the deadline.
#[cfg(feature = "client")]
pub(crate) const SLOW_SOURCE: &str = "Its files or streams are slow to read: the deadline includes \
    that. Nothing was sent; increase the deadline.";
