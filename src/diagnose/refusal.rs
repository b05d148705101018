//! Advice about a negative reply, chosen by everything that the session knows: a pure function of
//! plain facts.

use std::borrow::Cow;

use super::replies::{ROWS, Row};
use crate::error::Phase;
use crate::proto::{Capabilities, ExchangeFault, Mechanism, Reply};

/// How many bytes of a reply are examined, to the end of a word.
const LOOKED_AT: usize = 2000;

/// What is known about a session and its failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// The command that was answered.
    pub(crate) phase: Phase,
    pub(crate) reply: Option<&'a Reply>,
    pub(crate) port: Option<u16>,
    /// The protocol is LMTP, not SMTP.
    pub(crate) lmtp: bool,
    /// The server is one of the recipients' domain, by its MX records: the program chose neither it
    /// nor its port, and has no login there.
    pub(crate) is_mx: bool,
    /// TLS is active.
    pub(crate) secure: bool,
    /// TLS is not active because STARTTLS was not offered or failed, not because it is switched
    /// off.
    pub(crate) fell_back: bool,
    /// The last reply to EHLO.
    pub(crate) offered: &'a Capabilities,
    /// The mechanism of the successful login.
    pub(crate) logged_in: Option<Mechanism>,
    /// The user of the login; empty if it has none.
    pub(crate) user: &'a str,
    /// The mechanism of the failed login.
    pub(crate) tried: Option<Mechanism>,
    /// The fault that its exchange reported.
    pub(crate) fault: Option<ExchangeFault>,
    /// The login was refused because of its mechanism, not its credentials.
    pub(crate) about_mechanism: bool,
    /// The sender of the message; `None` outside of a transaction, and for the null reverse-path.
    pub(crate) sender: Option<&'a str>,
    /// The number of recipients of the message; 0 outside of a transaction.
    pub(crate) recipients: usize,
}

/// Advice about a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advice {
    pub(crate) text: Cow<'static, str>,
    /// Whether the request will be refused again until something is changed, whatever the code
    /// says.
    pub(crate) lasts: bool,
}

/// The advice about the reply; `None` if there is none.
pub(crate) fn for_refusal(facts: &Facts<'_>) -> Option<Advice> {
    let reply = facts.reply?;
    if let Some(text) = facts
        .tried
        .and_then(|mechanism| for_login(mechanism, facts, reply))
    {
        return Some(Advice {
            text: text.into(),
            lasts: false,
        });
    }
    let code = reply.code().to_string();
    let enhanced = reply
        .enhanced()
        .map(|code| format!("{}.{}", code.subject, code.detail))
        .unwrap_or_default();
    let text = words(reply);
    let fits = |row: &&Row| {
        row.when.iter().all(|when| when.holds(facts))
            && (row.phases.is_empty() || row.phases.contains(&facts.phase))
            && row.codes.iter().any(|begin| code.starts_with(begin))
            && (row.enhanced.is_empty() || row.enhanced.contains(&enhanced.as_str()))
            && (row.words.is_empty() || row.words.iter().any(|word| has_word(&text, word)))
    };
    ROWS.iter().find(fits).map(|row| match row.advice {
        Say::It(text) => Advice {
            text: text.into(),
            lasts: false,
        },
        Say::UseTls(why) => Advice {
            text: format!("{why}{}", use_tls(facts)).into(),
            lasts: true,
        },
    })
}

/// How to get TLS if it is not active, by policy, protocol and offer.
fn use_tls(facts: &Facts<'_>) -> &'static str {
    if facts.is_mx {
        return ", and it does not work here: the domain's postmaster must put STARTTLS in order.";
    }
    match (facts.lmtp, facts.offered.offers("STARTTLS")) {
        (true, true) if facts.fell_back => {
            ", and STARTTLS failed: with tls=required the error tells why."
        }
        (true, true) => ": say tls=required, so that STARTTLS is used.",
        (true, false) => {
            ", and offers no STARTTLS here: its administrator must put STARTTLS in order, or do \
             without TLS for this client."
        }
        (false, true) if facts.fell_back => {
            ", and STARTTLS failed: with tls=required the error tells why. If the server has \
             smtps:// (port 465), use that."
        }
        (false, true) => {
            ": leave out tls=none, so that STARTTLS is used, or use smtps:// (port 465)."
        }
        (false, false) if When::OnSubmissionPort.holds(facts) => {
            ", and offers no STARTTLS here: use smtps:// (port 465) if the server has that; else \
             its administrator must put STARTTLS in order."
        }
        (false, false) => {
            ", and offers no STARTTLS here: use smtps:// (port 465), or the submission port 587, \
             where servers offer TLS."
        }
    }
}

/// The words of a reply, in lower case and on one line, since servers break lines anywhere.
/// Addresses, host names and URLs are left out, as they may contain any word; those of a block list
/// are replaced by a marker.
fn words(reply: &Reply) -> String {
    let text = reply.text();
    let mut line = String::new();
    for word in text.split_whitespace() {
        line += word;
        line.push(' ');
        if line.len() > LOOKED_AT {
            break;
        }
    }
    let line = without_brackets(&line);
    let mut words = String::new();
    for word in line.split_whitespace() {
        for run in word.split_inclusive(|c: char| !is_in_name(c)) {
            let name = run.trim_end_matches(|c: char| !is_in_name(c));
            match name_in(name) {
                Some(instead) => words = words + instead + &run[name.len()..],
                None => words += run,
            }
        }
        words.push(' ');
    }
    words.make_ascii_lowercase();
    words
}

/// The line without what is in angle brackets, unless it is the name of a line break.
fn without_brackets(line: &str) -> String {
    let mut kept = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('<') {
        kept += before;
        let Some((inside, after)) = after.split_once('>') else {
            rest = after;
            break;
        };
        if ["lf", "cr", "crlf"]
            .iter()
            .any(|name| inside.eq_ignore_ascii_case(name))
        {
            kept = kept + "<" + inside + ">";
        }
        rest = after;
    }
    kept + rest
}

/// Whether the character may be part of an address, a host name or a URL.
fn is_in_name(c: char) -> bool {
    c.is_alphanumeric() || "@.-_+=/?&%#~:".contains(c)
}

/// The meaning of an address, a URL or a host name, which is usually nothing; `None` for other
/// words.
fn name_in(run: &str) -> Option<&'static str> {
    let (has_scheme, rest) = match run.split_once("://") {
        Some((_, rest)) => (true, rest),
        None => (false, run),
    };
    let host = rest
        .split(['/', ':', '?'])
        .next()
        .unwrap_or_default()
        .trim_end_matches('.');
    let labels = || host.split('.');
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .chars()
                .all(|c| c.is_alphanumeric() || "-_".contains(c))
    };
    // Some servers omit the blank between two sentences.
    let is_sentence = host.ends_with(char::is_lowercase)
        && labels()
            .next_back()
            .is_some_and(|last| last.starts_with(char::is_uppercase));
    let is_host = labels().count() > 1 && labels().all(is_label) && !is_sentence;
    if run.contains('@') || !(has_scheme || is_host) {
        return run.contains('@').then_some("");
    }
    let has = |names: &[&str]| {
        labels().any(|label| names.iter().any(|name| name.eq_ignore_ascii_case(label)))
    };
    Some(match () {
        () if has(&["dbl"]) && has(&["spamhaus"]) => "spamhaus dbl",
        () if has(&["surbl", "uribl"]) => "uribl",
        () if has(&BLOCK_LISTS) => "dnsbl",
        () => "",
    })
}

/// Labels in the host names of block lists.
const BLOCK_LISTS: [&str; 9] = [
    "spamhaus",
    "spamcop",
    "barracudacentral",
    "sorbs",
    "uceprotect",
    "abuseat",
    "dnsbl",
    "rbl",
    "psbl",
];

/// Whether the text contains the word or an inflection of it (`relay`, `relaying`), and not only as
/// a part of another word.
fn has_word(text: &str, word: &str) -> bool {
    let begins_within = |text: &str| text.ends_with(|c: char| c.is_ascii_alphanumeric());
    text.match_indices(word).any(|(at, _)| {
        let after = &text.as_bytes()[at + word.len()..];
        let goes_on = matches!(after, [b'-', next, ..] if next.is_ascii_alphanumeric());
        let is_within =
            word.starts_with(|c: char| c.is_ascii_alphanumeric()) && begins_within(&text[..at]);
        !goes_on && !is_within
    })
}

/// A fault of the exchange says nothing about the credentials.
fn for_login(mechanism: Mechanism, facts: &Facts<'_>, reply: &Reply) -> Option<&'static str> {
    match facts.fault {
        Some(ExchangeFault::Broken) => return Some(BROKEN),
        Some(ExchangeFault::Distrusted) => return Some(super::DISTRUSTED),
        None if facts.about_mechanism && mechanism.is_bound() => return Some(BOUND),
        None => {}
    }
    (mechanism.takes_token() && reply.code() == 535).then_some(
        "The token has expired, or is not one for sending by SMTP: check its scope \
            (https://mail.google.com/ at Google, \
         https://outlook.office.com/SMTP.Send at Microsoft), that it is this user's, and that the \
         mailbox allows SMTP AUTH.",
    )
}

/// The conditions of a row other than the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// TLS is not active.
    InClear,
    InTls,
    /// The server offers STARTTLS, which is switched off (`tls=none`).
    StartTlsUnused,
    Smtp,
    Lmtp,
    /// The server is one of the recipients' domain.
    Mx,
    /// There was no successful login.
    LoggedOut,
    LoggedIn,
    /// The server offers no login.
    NoLoginOffered,
    /// The port is for submission (587 or 465).
    OnSubmissionPort,
    /// The sender's address is the user name of the login.
    SenderIsUser,
    OneRecipient,
    /// A login was refused because of its mechanism.
    AboutMechanism,
}

impl When {
    fn holds(self, facts: &Facts<'_>) -> bool {
        match self {
            When::InClear => !facts.secure,
            When::InTls => facts.secure,
            When::StartTlsUnused => {
                !facts.secure && !facts.fell_back && !facts.lmtp && facts.offered.offers("STARTTLS")
            }
            When::Smtp => !facts.lmtp,
            When::Lmtp => facts.lmtp,
            When::Mx => facts.is_mx,
            When::LoggedOut => facts.logged_in.is_none(),
            When::LoggedIn => facts.logged_in.is_some(),
            When::NoLoginOffered => facts.offered.auth().is_empty(),
            When::OnSubmissionPort => matches!(facts.port, Some(587 | 465)),
            When::SenderIsUser => facts
                .sender
                .is_some_and(|sender| sender.eq_ignore_ascii_case(facts.user)),
            When::OneRecipient => facts.recipients == 1,
            When::AboutMechanism => facts.about_mechanism,
        }
    }
}

/// The advice of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    It(&'static str),
    /// The server requires TLS, followed by how to get it. The code may be transient, but the
    /// failure is not.
    UseTls(&'static str),
}

const BROKEN: &str = "The server does not keep to this mechanism: choose another one that it \
    offers (auth= in the URL), and show this message to \
     its administrator. If each of them fails like this, a device in between may be tampering \
     with the connection.";
const BOUND: &str = "The server offers this mechanism, which is tied to the TLS connection, and \
    does not take it: another server may be in between, so \
     no other mechanism is tried. If the connection is in order, name one without -PLUS (auth= in \
     the URL), or ask the server's administrator.";

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use bytes::BytesMut;

    use super::*;
    use crate::proto::{Limits, ReplyParser};

    fn reply(text: &str) -> Reply {
        let mut bytes = BytesMut::from(format!("{text}\r\n").as_str());
        ReplyParser::new(Limits::default())
            .parse(&mut bytes)
            .unwrap()
            .unwrap()
    }

    fn advice(facts: Facts<'_>, text: &str) -> Advice {
        for_refusal(&Facts {
            reply: Some(&reply(text)),
            ..facts
        })
        .unwrap()
    }

    fn offering(lines: &str) -> Capabilities {
        Capabilities::from_reply(&reply(&format!("250-mail.example.org\r\n{lines}250 HELP")))
    }

    fn clear(offered: &Capabilities) -> Facts<'_> {
        Facts {
            phase: Phase::Mail,
            reply: None,
            port: None,
            lmtp: false,
            is_mx: false,
            secure: false,
            fell_back: false,
            offered,
            logged_in: None,
            user: "",
            tried: None,
            fault: None,
            about_mechanism: false,
            sender: Some("alice@example.org"),
            recipients: 1,
        }
    }

    fn secure(offered: &Capabilities) -> Facts<'_> {
        Facts {
            secure: true,
            ..clear(offered)
        }
    }

    fn logged_in(offered: &Capabilities) -> Facts<'_> {
        Facts {
            logged_in: Some(Mechanism::Plain),
            user: "bob@example.org",
            ..secure(offered)
        }
    }

    #[test]
    fn tls_is_advised_only_without_tls() {
        let offered = offering("250-STARTTLS\r\n");
        for text in [
            "451 5.7.3 STARTTLS is required to send mail",
            "530 5.7.0 Must issue a STARTTLS command first",
            "451 4.7.0 Must issue STARTTLS first",
            "550 5.7.29 Gmail requires all senders to use TLS/SSL for SMTP connections",
            "553 This route requires encryption (TLS)",
        ] {
            let told = advice(clear(&offered), text);
            assert!(
                told.lasts && told.text.contains("leave out tls=none"),
                "{text}: {told:?}"
            );
            let told = advice(clear(&offering("")), text);
            assert!(
                told.lasts && told.text.contains("offers no STARTTLS here"),
                "{text}: {told:?}"
            );
            let told = advice(secure(&offered), text);
            assert!(
                !told.lasts && told.text.contains("though TLS is active"),
                "{text}: {told:?}"
            );
        }
    }

    /// Checks the advice for replies, by a part of its text.
    #[track_caller]
    fn table(facts: Facts<'_>, cases: &[(Phase, &str, &str)]) {
        for (phase, text, part) in cases {
            let told = advice(
                Facts {
                    phase: *phase,
                    ..facts
                },
                text,
            );
            assert!(
                told.text.contains(part),
                "{text}: {part:?} is missing in: {}",
                told.text
            );
        }
    }

    use Phase::{Auth, EndOfData, Greeting, Hello, Mail, Rcpt};

    #[test]
    fn advice_without_a_login_follows_the_reply() {
        let offered = offering("250-AUTH PLAIN LOGIN\r\n");
        table(
            secure(&offered),
            &[
                (Greeting, "554 5.7.1 Go away", "check the host and the port"),
                (
                    Hello,
                    "421 4.7.0 Try again later, closing connection. (EHLO) a1-b2.3 - gsmtp",
                    "helo=",
                ),
                (Hello, "501 5.5.4 HELO/EHLO argument is invalid", "helo="),
                (Hello, "550 5.7.506 Access Denied, Bad HELO", "helo="),
                (
                    Auth,
                    "451 Authentication failed: Maximum credits exceeded",
                    "quota of the account",
                ),
                (
                    Auth,
                    "451 Authentication failed: Could not authenticate",
                    "Check user name and password",
                ),
                (
                    Auth,
                    "454 4.7.0 Temporary authentication failure",
                    "cannot check logins",
                ),
                (
                    Auth,
                    "535 Login Fail. Please enter your authorization code to login.",
                    "app password",
                ),
                (
                    Auth,
                    "535 5.7.0 NEOBHODIM parol prilozheniya / Application password is REQUIRED",
                    "app password",
                ),
                (
                    Auth,
                    "550 User has no permission",
                    "switched off for this account",
                ),
                (
                    Auth,
                    "535 5.7.8 Error: authentication failed: This user does not have access \
                        rights to this service",
                    "switched off for this account",
                ),
                (
                    Auth,
                    "550 5.7.30 Basic authentication is not supported for Client Submission.",
                    "OAuth 2",
                ),
                (
                    Auth,
                    "535 Authentication failed: The provided authorization grant is invalid, \
                        expired, or revoked",
                    "API key",
                ),
                (
                    Auth,
                    "535 5.7.0 (#AUTH005) Too many bad auth attempts.",
                    "too many wrong ones",
                ),
                (
                    Auth,
                    "503 AUTH command used when not advertised",
                    "leave the credentials out",
                ),
                (
                    Auth,
                    "550 encryption required for requested authentication mechanism",
                    "though TLS is active",
                ),
                (
                    Mail,
                    "550 5.7.57 Client not authenticated to send mail",
                    "give a user name and a password",
                ),
                (
                    Mail,
                    "530 5.7.1 Client was not authenticated",
                    "give a user name and a password",
                ),
                (
                    Mail,
                    "550 Unauthenticated senders not allowed",
                    "give a user name and a password",
                ),
                (
                    Rcpt,
                    "550 Please turn on SMTP Authentication in your mail client",
                    "give a user name and a password",
                ),
                (
                    Rcpt,
                    "553 5.7.1 <a@example.org>: Sender address rejected: not logged in",
                    "Without a login",
                ),
                (
                    Rcpt,
                    "553 5.7.1 <a@example.org>: Sender address rejected: not owned by user bob",
                    "Without a login",
                ),
                (
                    Rcpt,
                    "550 5.7.64 TenantAttribution; Relay Access Denied",
                    "connector",
                ),
                (
                    Rcpt,
                    "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
                    "give a user name and a password",
                ),
                (
                    Rcpt,
                    "554 Relay rejected for policy reasons.",
                    "give a user name and a password",
                ),
                (
                    Rcpt,
                    "550 5.4.1 Recipient address rejected: Access denied",
                    "no such mailbox",
                ),
                (
                    Rcpt,
                    "550 5.1.1 you@example.com... User unknown or not listed in Domino Directory",
                    "no such mailbox",
                ),
                (
                    Rcpt,
                    "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; not authenticated",
                    "certain senders",
                ),
                (
                    Rcpt,
                    "556 5.1.10 Recipient address has null MX",
                    "no mail at all",
                ),
                (
                    Rcpt,
                    "450 4.1.2 <b@example.com>: Recipient address rejected: Domain not found",
                    "recipient's address was not found in DNS",
                ),
                (
                    Rcpt,
                    "450 4.1.1 <b@example.com>: Recipient address rejected: unverified address: \
                        Address verification in progress",
                    "in some minutes",
                ),
                (
                    Rcpt,
                    "550 Sender verify failed",
                    "a sender address that exists",
                ),
                (
                    Rcpt,
                    "452 4.2.2 <b@example.com> Mailbox has too many messages, over quota",
                    "mailbox is full",
                ),
                (
                    Rcpt,
                    "452 Insufficient disk space; try again later",
                    "has no room",
                ),
                (
                    Rcpt,
                    "452 4.5.3 Error: too many recipients",
                    "the message has only one",
                ),
                (
                    EndOfData,
                    "552 Requested mail action aborted: exceeded storage allocation. Quota \
                        exceeded",
                    "mailbox is full",
                ),
                (
                    EndOfData,
                    "550 5.7.1 [192.0.2.1 14] Messages missing a valid address in From: header \
                        are not accepted.",
                    "header",
                ),
                (EndOfData, "554 5.4.6 Too many hops", "in circles"),
                (
                    EndOfData,
                    "550 5.7.1 Our system has detected the very low reputation of the sending \
                        domain",
                    "sender's domain is on a block list",
                ),
                (Mail, "451 4.3.5 Server configuration error", "not set up"),
            ],
        );
        let about_mechanism = Facts {
            about_mechanism: true,
            ..secure(&offered)
        };
        let words = "535 5.7.8 Error: authentication failed: no mechanism available";
        table(about_mechanism, &[(Auth, words, "auth= in the URL")]);
        let two = Facts {
            recipients: 2,
            ..secure(&offered)
        };
        table(
            two,
            &[(
                Rcpt,
                "452 4.5.3 Error: too many recipients",
                "fewer recipients in one message",
            )],
        );
        let submission = Facts {
            port: Some(587),
            ..clear(&offered)
        };
        table(
            submission,
            &[(
                Greeting,
                "554 5.7.1 Go away",
                "whether this network may connect",
            )],
        );
        let starttls = offering("250-STARTTLS\r\n250-AUTH PLAIN\r\n");
        table(
            clear(&starttls),
            &[(
                Auth,
                "550 encryption required for requested authentication",
                "leave out tls=none",
            )],
        );
        let none = offering("");
        let submission = |facts| Facts {
            port: Some(587),
            ..facts
        };
        let told = advice(
            submission(secure(&none)),
            "530 5.7.0 Authentication required",
        );
        assert!(
            told.text.contains("offers none: ask its administrator"),
            "{told:?}"
        );
        let told = advice(
            submission(clear(&none)),
            "451 5.7.3 STARTTLS is required to send mail",
        );
        assert!(
            told.lasts && told.text.contains("if the server has that"),
            "{told:?}"
        );
        let told = advice(secure(&offering("")), "530 5.7.0 Authentication required");
        assert!(told.text.contains("use its submission port"), "{told:?}");
    }

    #[test]
    fn advice_after_a_login_follows_the_reply() {
        let offered = offering("250-AUTH PLAIN LOGIN\r\n");
        table(
            logged_in(&offered),
            &[
                (
                    Mail,
                    "530 5.7.57 Client not authenticated to send mail",
                    "The login succeeded",
                ),
                (
                    Mail,
                    "550 5.1.8 Access denied, bad outbound sender AS(42004)",
                    "barred from sending",
                ),
                (
                    EndOfData,
                    "550 5.7.501 Access denied, spam abuse detected",
                    "barred from sending",
                ),
                (
                    EndOfData,
                    "550 5.4.6 Unusual sending activity detected. Please try after sometime",
                    "barred from sending",
                ),
                (
                    EndOfData,
                    "550 5.7.705 Access denied, tenant has exceeded threshold",
                    "whole organization",
                ),
                (
                    EndOfData,
                    "550 5.7.708 Service unavailable. Access denied, traffic not accepted from \
                        this IP",
                    "trial tenant",
                ),
                (
                    EndOfData,
                    "550 5.7.750 Service unavailable. Client blocked from sending from \
                        unregistered domains",
                    "registered",
                ),
                (
                    EndOfData,
                    "553 Relaying disallowed as alice@example.org",
                    "use the login's own address",
                ),
                (
                    Mail,
                    "553 Mail from must equal authorized user",
                    "use the login's own address",
                ),
                (
                    Mail,
                    "501 Mail from address must be same as authorization user.",
                    "use the login's own address",
                ),
                (
                    Rcpt,
                    "550-Requested action not taken: mailbox unavailable\r\n550 Sender address is \
                        not allowed.",
                    "use the login's own address",
                ),
                (
                    Mail,
                    "553 5.7.1 Sender address rejected: not owned by auth user.",
                    "use the login's own address",
                ),
                (
                    EndOfData,
                    "550 not local sender over smtp",
                    "use the login's own address",
                ),
                (
                    EndOfData,
                    "550 Request failed; Mailbox unavailable",
                    "use the login's own address",
                ),
                (
                    EndOfData,
                    "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
                    "use the login's own address",
                ),
                (
                    EndOfData,
                    "554 Message rejected: Email address is not verified. The following \
                        identities failed the check in region EU-WEST-1: a@example.org",
                    "verified with it",
                ),
                (
                    EndOfData,
                    "550 The from address does not match a verified Sender Identity.",
                    "verified with it",
                ),
                (
                    EndOfData,
                    "550 5.7.1 relaying denied. Unconfigured Sending Domain <example.org>",
                    "verified with it",
                ),
                (
                    EndOfData,
                    "421 Domain sandbox1.mailgun.org is not allowed to send: Sandbox subdomains \
                        are for test purposes only.",
                    "on trial",
                ),
                (
                    EndOfData,
                    "454 Throttling failure: Daily message quota exceeded.",
                    "limit for a day",
                ),
                (
                    EndOfData,
                    "454 Throttling failure: Maximum sending rate exceeded.",
                    "too short a time",
                ),
                (
                    EndOfData,
                    "550 Domain example.org has exceeded the max emails per hour (100/100 (100%)) \
                        allowed.",
                    "limit for an hour",
                ),
                (
                    EndOfData,
                    "550 Sender frequency limited.",
                    "too short a time",
                ),
                (
                    Rcpt,
                    "554 5.7.1 <b@example.com>: Relay access denied",
                    "The login succeeded",
                ),
                (
                    Rcpt,
                    "554 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org",
                    "on a block list",
                ),
            ],
        );
        let own = Facts {
            user: "Alice@example.org",
            ..logged_in(&offered)
        };
        table(
            own,
            &[(
                EndOfData,
                "553 Relaying disallowed as eve@example.org",
                "look at the From header",
            )],
        );
    }

    /// The server did not choose the words of an address, a host name or a URL.
    #[test]
    fn names_in_a_reply_give_no_advice() {
        let words = |text: &str| words(&reply(text)).trim().to_owned();
        for (text, expected) in [
            ("550 <relay@example.org>: User unknown", ": user unknown"),
            (
                "550 <\"a relay\"@example.org> b.relay+dkim@example.org: no",
                "no",
            ),
            (
                "421 relay.example.org[192.0.2.1]: shutting down",
                "[]: shutting down",
            ),
            (
                "550 No. See https://relay.example.org/dkim?spf=fail#x.",
                "no. see",
            ),
            ("550 No. See support.example.org/relay", "no. see"),
            (
                "550 Bare <LF> (EHLO) helo/ehlo",
                "bare <lf> (ehlo) helo/ehlo",
            ),
            ("550 Message rejected.Too many", "message rejected.too many"),
            ("550 in zen.spamhaus.org", "in dnsbl"),
            ("550 in 1.2.0.192.dbl.spamhaus.org.", "in spamhaus dbl"),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
        for (text, word, is_there) in [
            ("no relaying here", "relay", true),
            ("ip-blacklisted", "blacklist", true),
            ("must use ssl-valid domain", "use ssl", false),
            ("no unrelayed mail", "relay", false),
            ("4.7.0 (ehlo)", "(ehlo)", true),
        ] {
            assert_eq!(has_word(text, word), is_there, "{text}");
        }
    }

    #[test]
    fn the_cause_takes_precedence_over_other_words() {
        let offered = offering("250-AUTH PLAIN LOGIN\r\n");
        table(
            secure(&offered),
            &[
                (
                    Rcpt,
                    "550 5.1.1 <b@example.org>: Recipient address rejected: User unknown in relay \
                        recipient table",
                    "no such mailbox",
                ),
                (
                    Rcpt,
                    "550 <b@example.org>: User unknown in relay recipient table",
                    "no such mailbox",
                ),
                (
                    Rcpt,
                    "550 5.1.1 <relay@example.org>: Recipient address rejected: User unknown",
                    "no such mailbox",
                ),
                (
                    Rcpt,
                    "550 5.1.1 <dkim@example.org>: Recipient address rejected: User unknown",
                    "no such mailbox",
                ),
                (
                    Rcpt,
                    "550 5.1.1 User unknown; too many of them harm your reputation",
                    "no such mailbox",
                ),
                (
                    Auth,
                    "550 5.7.1 Login rate limit exceeded",
                    "too many logins",
                ),
                (
                    Rcpt,
                    "550 5.1.1 spam@relay.example.org: rejected",
                    "no such mailbox",
                ),
                (
                    Mail,
                    "421 4.3.0 relay.example.org shutting down",
                    "busy or going down",
                ),
                (Mail, "421 4.3.0 relay shutting down", "busy or going down"),
                (
                    Mail,
                    "550-5.7.1 Invalid credentials for relay [192.0.2.1]. The IP address you \
                        have\r\n550 5.7.1 \
                     registered ... must present one of your domain names in the HELO or EHLO \
                     command.",
                    "registered for the sender's domain",
                ),
                (
                    EndOfData,
                    "550-5.7.1 [192.0.2.1] The IP you are using to send mail is not authorized to \
                        send\r\n550-5.7.1 \
                     email directly to our servers. Please use the SMTP relay at your \
                     service\r\n550 5.7.1 \
                     provider instead. https://support.example.org/mail/?p=NotAuthorizedError",
                    "no mail directly",
                ),
                (
                    Auth,
                    "554 5.7.1 Service unavailable; blocked using zen.spamhaus.org",
                    "block list",
                ),
                (
                    Auth,
                    "554 5.7.1 <a[192.0.2.1]>: Client host rejected: Access denied",
                    "network address",
                ),
                (
                    Auth,
                    "550 Your IP address has been blocked",
                    "network address",
                ),
                (
                    Auth,
                    "535 5.7.8 Your account email address is not verified",
                    "is not verified",
                ),
                (
                    Auth,
                    "535 5.7.8 The server does not support this authentication type (mechanism \
                        disabled)",
                    "auth= in the URL",
                ),
                (
                    Auth,
                    "421 4.7.0 Too many connections from your IP",
                    "over fewer connections",
                ),
                (
                    Auth,
                    "432 4.3.2 Concurrent connections limit exceeded",
                    "over fewer connections",
                ),
                (
                    Auth,
                    "535 5.7.8 Error: authentication failed",
                    "Check user name and password",
                ),
                (
                    Hello,
                    "550 Too many connections from your IP",
                    "over fewer connections",
                ),
                (
                    Greeting,
                    "554 Too many connections from your IP",
                    "over fewer connections",
                ),
                (
                    Greeting,
                    "554 5.7.1 You connect too fast",
                    "too short a time",
                ),
                (
                    Rcpt,
                    "550 5.7.511 Access denied, banned sender[192.0.2.1]. To request removal from \
                        this list \
                     please forward this message to delist@microsoft.com",
                    "network address that you send from",
                ),
                (
                    EndOfData,
                    "550 5.7.30 REQUIRETLS support required",
                    "REQUIRETLS",
                ),
                (Mail, "550 5.2.1 Account disabled", "sender's own account"),
                (Mail, "552 5.2.2 Over quota", "sender's own mailbox"),
                (
                    Mail,
                    "550 The envelope sender must use ssl-valid domain",
                    "The server's words say why",
                ),
                (
                    Rcpt,
                    "450 4.2.1 The user you are trying to contact is receiving mail too quickly",
                    "The recipient gets more mail",
                ),
                (
                    EndOfData,
                    "554 5.7.1 Message rejected due to URL reputation",
                    "links",
                ),
                (
                    Rcpt,
                    "550 5.7.68 TenantInboundAttribution; Direct Send not allowed",
                    "Direct Send",
                ),
                (
                    Rcpt,
                    "552 Requested mail action aborted: exceeded storage allocation",
                    "mailbox is full",
                ),
                (
                    EndOfData,
                    "550 The recipient may contain a non-existent account, please check",
                    "no such mailbox",
                ),
                (
                    Mail,
                    "550 Requested action not taken: mailbox unavailable invalid DNS MX or A/AAAA \
                        resource record",
                    "domain of the sender's address",
                ),
            ],
        );
        let told = advice(
            secure(&offered),
            "550 5.1.8 Access denied, bad outbound sender",
        );
        assert!(!told.text.contains("password"), "{told:?}");
        let told = advice(secure(&offered), "550 5.7.502 Access denied, banned sender");
        assert!(!told.text.contains("password"), "{told:?}");
        table(
            logged_in(&offered),
            &[
                (
                    EndOfData,
                    "550 5.2.1 Your account is disabled",
                    "sender's own account",
                ),
                (
                    EndOfData,
                    "552 5.2.2 Your mailbox is over quota",
                    "sender's own mailbox",
                ),
                (
                    EndOfData,
                    "552 5.2.2 The email account that you tried to reach is over quota",
                    "recipient's mailbox",
                ),
                (
                    Rcpt,
                    "554 5.7.1 Relaying not allowed: a@example.org does not match alias",
                    "use the login's own address",
                ),
                (
                    EndOfData,
                    "554 Sending suspended for this account.",
                    "stopped sending",
                ),
                (
                    EndOfData,
                    "554 Access denied: User `arn:aws:iam::1:user/u' is not authorized to perform \
                     `ses:SendRawEmail' on resource",
                    "ses:SendRawEmail",
                ),
            ],
        );
    }

    #[test]
    fn advice_on_tls_depends_on_policy_protocol_and_offer() {
        let (starttls, none) = (offering("250-STARTTLS\r\n"), offering(""));
        let lmtp = |facts| Facts {
            lmtp: true,
            ..facts
        };
        let fell_back = Facts {
            fell_back: true,
            ..clear(&starttls)
        };
        for (facts, part) in [
            (clear(&starttls), "leave out tls=none"),
            (clear(&none), "offers no STARTTLS here: use smtps://"),
            (fell_back, "STARTTLS failed: with tls=required"),
            (
                lmtp(clear(&starttls)),
                "say tls=required, so that STARTTLS is used",
            ),
            (
                lmtp(clear(&none)),
                "its administrator must put STARTTLS in order",
            ),
            (lmtp(fell_back), "STARTTLS failed: with tls=required"),
        ] {
            for (phase, text) in [
                (Mail, "530 5.7.0 Must issue a STARTTLS command first"),
                (
                    Auth,
                    "538 5.7.11 Encryption required for requested authentication mechanism",
                ),
            ] {
                let told = advice(Facts { phase, ..facts }, text);
                assert!(told.lasts && told.text.contains(part), "{text}: {told:?}");
            }
        }
    }

    /// Replies for each row, with each of its codes, enhanced codes and words.
    fn replies(row: &Row) -> Vec<String> {
        let Row {
            codes,
            enhanced,
            words,
            ..
        } = row;
        let enhanced: &[&str] = if enhanced.is_empty() {
            &["", "0.0"]
        } else {
            enhanced
        };
        let words: &[&str] = if words.is_empty() { &["no"] } else { words };
        let mut replies = Vec::new();
        for code in *codes {
            let code = format!("{code:0<3}");
            for enhanced in enhanced {
                let class = if enhanced.is_empty() {
                    String::new()
                } else {
                    format!("{}.{enhanced} ", &code[..1])
                };
                replies.extend(words.iter().map(|word| format!("{code} {class}{word}")));
            }
        }
        replies
    }

    /// The sessions that a row may apply to: offers, TLS active, logged in.
    fn sessions(phase: Phase) -> Vec<(bool, bool, bool)> {
        // The first phases occur before TLS and a login only.
        match phase {
            Phase::StartTls => vec![(true, false, false)],
            Greeting | Hello | Auth => vec![(true, false, false), (true, true, false)],
            Mail => vec![
                (true, false, false),
                (false, false, false),
                (true, true, false),
                (false, true, false),
                (true, true, true),
            ],
            _ => vec![
                (true, false, false),
                (true, true, false),
                (true, true, true),
                (true, false, true),
            ],
        }
    }

    /// A server of the recipients' domain.
    #[test]
    fn advice_about_a_server_that_the_dns_names_follows_the_reply() {
        let offered = offering("250-STARTTLS\r\n");
        let facts = Facts {
            is_mx: true,
            ..clear(&offered)
        };
        table(
            facts,
            &[
                (Greeting, "554 5.7.1 No", "refuses mail from this machine"),
                (
                    Mail,
                    "530 5.7.0 Authentication required",
                    "MX records name the wrong one",
                ),
                (
                    Mail,
                    "530 5.7.0 Must issue a STARTTLS command first",
                    "must put STARTTLS in order",
                ),
                (
                    Rcpt,
                    "554 5.7.1 <a@example.org>: Relay access denied",
                    "though the domain's MX records name it",
                ),
                (
                    Rcpt,
                    "553 5.7.1 <a@example.org>: Sender address rejected: not logged in",
                    "from its own users alone",
                ),
                (Rcpt, "550 5.1.1 No such user", "no such mailbox"),
            ],
        );
    }

    #[test]
    fn no_advice_contradicts_the_facts() {
        let none = offering("");
        let all = offering("250-STARTTLS\r\n250-AUTH PLAIN LOGIN\r\n");
        let (mut told_so_far, mut faults) = (BTreeSet::new(), BTreeMap::new());
        for row in ROWS {
            let texts: Vec<(String, Reply)> = replies(row)
                .into_iter()
                .map(|text| (text.clone(), reply(&text)))
                .collect();
            let phases = if row.phases.is_empty() {
                &[Greeting, Auth, Mail, Rcpt, EndOfData]
            } else {
                row.phases
            };
            let cases = phases.iter().flat_map(|phase| {
                sessions(*phase)
                    .into_iter()
                    .map(|session| (*phase, session))
            });
            for (phase, (offers, secure, login)) in cases {
                let facts = Facts {
                    phase,
                    secure,
                    logged_in: login.then_some(Mechanism::Plain),
                    user: if login { "bob@example.org" } else { "" },
                    ..clear(if offers { &all } else { &none })
                };
                let ways = [
                    (false, false, false),
                    (false, true, false),
                    (true, false, false),
                    (false, false, true),
                    (false, true, true),
                ];
                let ways = ways.into_iter().filter(|(_, fell_back, is_mx)| {
                    !(secure && *fell_back || *is_mx && (login || phase == Auth))
                });
                let cases = ways.flat_map(|way| texts.iter().map(move |text| (way, text)));
                for ((lmtp, fell_back, is_mx), (text, reply)) in cases {
                    let facts = Facts {
                        lmtp,
                        is_mx,
                        fell_back,
                        reply: Some(reply),
                        ..facts
                    };
                    let advice = for_refusal(&facts);
                    let advice =
                        advice.unwrap_or_else(|| panic!("{phase} {text}: there is no advice"));
                    let told = |words: &[&str]| words.iter().any(|word| advice.text.contains(word));
                    let login_advised = [
                        "give a user name",
                        "with a login",
                        "Without a login",
                        "log in,",
                        "log in:",
                    ];
                    let login_assumed = ["This login", "this login", "The login", "login's own"];
                    let tls_advised = [
                        "tls=none",
                        "tls=required",
                        "smtps://",
                        "use TLS",
                        "STARTTLS is used",
                        "wants TLS",
                    ];
                    let own_choice = [
                        "give a user name",
                        "give the user name",
                        "Without a login",
                        "submission port",
                        "check the host",
                        "smtps://",
                        "tls=",
                    ];
                    let delayed = ["later", "for the moment", "at the moment"];
                    let contradicts = login && told(&login_advised)
                    || !login && phase != Auth && told(&login_assumed)
                    || secure && (told(&tls_advised) || advice.lasts)
                    // Some servers do so for greylisting.
                    || reply.is_permanent() && !text.contains("list") && told(&delayed)
                    || !matches!(phase, Auth | Hello) && told(&["Check user name and password"])
                    || (fell_back || lmtp || !offers) && told(&["leave out tls=none"])
                    || lmtp && told(&["smtps://", "587", "465", "smtp://"])
                    || is_mx && told(&own_choice)
                    || !offers && told(&["STARTTLS is used", "STARTTLS failed"])
                    || offers && told(&["offers no STARTTLS"]);
                    if contradicts {
                        faults.insert(
                            advice.text.clone(),
                            format!(
                                "{phase} {text}, TLS {secure}, login {login}, LMTP {lmtp}, \
                                MX {is_mx}, fell back {fell_back}"
                            ),
                        );
                    }
                    told_so_far.insert(advice.text);
                }
            }
        }
        assert!(faults.is_empty(), "{faults:#?}");
        // Every row has a case, except for those about ports, addresses and numbers.
        for row in ROWS {
            let (Say::It(text) | Say::UseTls(text)) = row.advice;
            let elsewhere = row
                .when
                .iter()
                .any(|when| matches!(when, When::OnSubmissionPort | When::SenderIsUser));
            let given = told_so_far.iter().any(|told| told.starts_with(text));
            assert!(elsewhere || given, "never given: {text}");
        }
    }
}
