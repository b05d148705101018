//! What to do now: advice for people, by what went wrong.
//!
//! The texts say the next step, not the theory. They know replies and phases; of sockets and TLS they know nothing.
//! `tests/failures/snapshots` shows each of them beside the failure that it is for.

use crate::error::{Error, Kind, Phase};
#[cfg(feature = "client")]
use crate::proto::Mechanism;
use crate::proto::{Capabilities, Reply};

pub(crate) const INSECURE: &str = "Use a connection with TLS (smtp:// with STARTTLS on port 587, or smtps:// on port 465), \
    or say by name that the password may cross the network in clear (auth-in-clear=yes).";

pub(crate) const INJECTED: &str = "Somebody between you and the server may be tampering with the connection, or the \
    server's software is old and faulty (see CVE-2011-0411). Nothing was sent. Use implicit TLS (smtps://, port 465) if the server has it.";

pub(crate) const NO_LMTP: &str =
    "This server speaks SMTP, as it seems: use smtp:// or smtps://, or the port or socket where it speaks LMTP.";

pub(crate) const UNKNOWN: &str = "The message was handed over whole: it may have been delivered, or not. Look for it in the server's log, \
    or ask the recipient, before you send it again.";

pub(crate) const NUL: &str = "Encode the part that has it as base64. A ready message can also go as it is (LineEnds::Keep), to a server \
    that offers BINARYMIME.";

// ---- What is offered ----

/// The server offers STARTTLS nowhere in its answer to EHLO, or what it said was rewritten on the way, as the greeting shows, too.
pub(crate) fn starttls_missing(offered: &Capabilities, greeting: Option<&Reply>) -> Error {
    let names: Vec<&str> = offered.keywords().iter().map(|keyword| keyword.name.as_str()).collect();
    let offers = if names.is_empty() { "nothing at all".to_owned() } else { names.join(", ") };
    let rewritten = greeting.is_some_and(|greeting| is_rewritten(&greeting.text()));
    let hint = if rewritten || names.iter().any(|name| is_rewritten(name)) {
        "A device between you and the server rewrites SMTP (a firewall's \"SMTP inspection\" or \"fixup\"): have it switched off, \
         or use implicit TLS (smtps://, port 465)."
    } else {
        "Use the submission port 587, or smtps:// on port 465, where servers offer TLS. If this server has no TLS at all and the \
         network can be trusted, say tls=none; tls=opportunistic uses TLS only when it is offered."
    };
    let message = format!("TLS is required, and the server does not offer STARTTLS; it offers {offers}");
    Error::new(Kind::Tls, Phase::StartTls, message).with_hint(hint)
}

/// A firewall that rewrites SMTP overwrites a keyword with X (and a letter at its end) of the same length, and the words
/// of the greeting with asterisks.
pub(crate) fn is_rewritten(text: &str) -> bool {
    text.starts_with("XXXX") || text.contains("*****")
}

/// No mechanism that can be used, or not the one wanted.
pub(crate) fn no_mechanism(offered: &Capabilities, secure: bool) -> &'static str {
    if !offered.auth().is_empty() {
        "Choose one of the mechanisms that the server offers (auth= in the URL), or leave the choice to envoi."
    } else if !secure && offered.offers("STARTTLS") {
        "Many servers offer the login only inside TLS: leave out tls=none, so that STARTTLS is used."
    } else {
        "Port 25 is often without a login: use the submission port 587 (STARTTLS) or 465 (smtps://), or leave the credentials out."
    }
}

/// A message that is to go by TLS alone, and a connection that is not so.
pub(crate) fn must_be_tls(connection: &str) -> Error {
    let message =
        format!("the message is to go by TLS alone, all the way (REQUIRETLS), and this connection {connection}");
    Error::new(Kind::Tls, Phase::Mail, message).with_hint(
        "Use verified TLS for it: smtps://, or smtp:// without tls=none and tls=opportunistic. Otherwise send the message without this demand.",
    )
}

// ---- No reply ----

/// What came instead of a reply in this phase looks like something else that is well known.
pub(crate) fn for_stranger(phase: Phase, line: &str) -> &'static str {
    let begins = |words: &[&str]| words.iter().any(|word| line.starts_with(word));
    if begins(&["HTTP/", "<"]) {
        "That is a web server: check the host and the port."
    } else if begins(&["SSH-"]) {
        "That is an SSH server: check the host and the port."
    } else if begins(&["* OK", "* BYE", "* PREAUTH", "+OK", "-ERR"]) {
        "That is a server for reading mail (IMAP or POP3): mail is sent through another port, mostly 587 or 465."
    } else if phase == Phase::Greeting {
        "That is no mail server, or a device in between disturbs it: check the host and the port."
    } else {
        "The server, or a device in between, does not keep to SMTP: show this message to the server's administrator."
    }
}

/// These are the first bytes of TLS: a record's type (RFC 8446, 5.1), then the major version 3.
pub(crate) fn speaks_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x14..=0x18] | [0x14..=0x18, 0x03, ..])
}

/// The server begins with TLS, where its greeting should come.
pub(crate) fn tls_first() -> Error {
    let message = "the server speaks TLS from the first byte on this port, where its greeting should come in clear";
    Error::new(Kind::Tls, Phase::Greeting, message)
        .with_hint("Use smtps:// instead of smtp:// (its usual port is 465), or the port for STARTTLS (587).")
}

/// The connection ended in this phase; `secure` if inside TLS.
pub(crate) fn for_end(phase: Phase, secure: bool) -> &'static str {
    match phase {
        Phase::Greeting if secure => {
            "TLS works, and no mail server greets behind it: check the host and the port. The server may also refuse this client's \
             address; its log says so."
        }
        Phase::Greeting => {
            "If this port speaks TLS from the first byte (as 465 does), use smtps://. Otherwise the server or a firewall may refuse this client's address."
        }
        Phase::Body => {
            "The message is not delivered, as its end did not go: it can be sent again. If that fails, too, the server's log says why."
        }
        _ => {
            "It can be tried again. If it ends here again, the server's log says why: it may refuse this client, or be out of order."
        }
    }
}

/// Nothing came in this phase for as long as was allowed; `secure` if inside TLS.
#[cfg(feature = "client")]
pub(crate) fn for_silence(phase: Phase, secure: bool) -> &'static str {
    match phase {
        Phase::Connect => {
            "Check host and port, and whether a firewall drops connections to this port: 25 is blocked in many networks, 587 and 465 are not."
        }
        Phase::Greeting if secure => {
            "TLS works, and no mail server greets behind it: check the host and the port. A mail server that is overloaded may also \
             need more time (timeout= in the URL)."
        }
        Phase::Greeting => {
            "If this port speaks TLS from the first byte (as 465 does), use smtps://: the server waits for you to begin."
        }
        Phase::Tls => {
            "Check that the port and the kind of TLS fit together: smtp:// with STARTTLS is on port 587, smtps:// on 465. If they do, the \
             server is overloaded, or a device in between holds TLS up."
        }
        Phase::Body => {
            "The server is overloaded, or the network is slow or was lost. The message is not delivered, as its end did not go: it can be sent again."
        }
        Phase::EndOfData => UNKNOWN,
        _ => {
            "The server is overloaded, or the network was lost: try again later. A server that is slow and alive needs more time (timeout= in the URL)."
        }
    }
}

// ---- Refusals ----

/// The first row of [`REFUSALS`] that fits.
pub(crate) fn for_reply(phase: Phase, reply: &Reply) -> Option<&'static str> {
    let code = reply.code().to_string();
    let enhanced = reply.enhanced().map(|code| format!("{}.{}", code.subject, code.detail)).unwrap_or_default();
    // A line may be broken anywhere.
    let text = reply.text().to_ascii_lowercase().replace('\n', " ");
    let fits = |row: &&Row| {
        let Row(phases, codes, enhanced_codes, words, _) = row;
        (phases.is_empty() || phases.contains(&phase))
            && codes.iter().any(|begin| code.starts_with(begin))
            && (enhanced_codes.is_empty() || enhanced_codes.contains(&enhanced.as_str()))
            && (words.is_empty() || words.iter().any(|word| text.contains(word)))
    };
    REFUSALS.iter().find(fits).map(|row| row.4)
}

/// A refusal of a login with this mechanism, where that makes a difference.
#[cfg(feature = "client")]
pub(crate) fn for_login(mechanism: Mechanism, reply: &Reply) -> Option<&'static str> {
    (mechanism.takes_token() && reply.code() == 535).then_some(
        "The token has expired, or is not one for sending by SMTP: check its scope (https://mail.google.com/ at Google, \
         https://outlook.office.com/SMTP.Send at Microsoft), that it is this user's, and that the mailbox allows SMTP AUTH.",
    )
}

/// Phases (none: all); how the code begins; enhanced codes without their class (none: any; "" for a reply without one); words, of
/// which one must be there (none: whatever it says); the advice.
struct Row(&'static [Phase], &'static [&'static str], &'static [&'static str], &'static [&'static str], &'static str);

const ANY: &[Phase] = &[];
const HELLO: &[Phase] = &[Phase::Hello];
const AUTH: &[Phase] = &[Phase::Auth];
const GREETING: &[Phase] = &[Phase::Greeting];
const STARTTLS: &[Phase] = &[Phase::StartTls];
const MAIL: &[Phase] = &[Phase::Mail];
const RCPT: &[Phase] = &[Phase::Rcpt];
/// Where the size of a message is refused.
const SIZED: &[Phase] = &[Phase::Mail, Phase::Body, Phase::EndOfData];

/// What servers say, the particular before the general. The words are those of Postfix, Exim, Exchange, Gmail, Office 365 and others, in
/// small letters.
#[rustfmt::skip]
const REFUSALS: &[Row] = &[
    // TLS or a login first.
    Row(HELLO, &["530"], &[], &["starttls"],
        "The server answers nothing before TLS, not even EHLO, without which there is no STARTTLS: use smtps:// \
         (port 465), or have its administrator correct that."),
    Row(ANY, &["530"], &[], &["starttls"],
        "The server wants TLS first: leave out tls=none, so that STARTTLS is used, or use smtps:// (port 465)."),
    Row(HELLO, &["500", "502", "504", "530"], &[], &[],
        "This may be no mail server (an FTP server greets with 220, too), or one that speaks LMTP (lmtp://): check the \
         host and the port."),
    Row(ANY, &["530"], &[], &[], LOGIN_FIRST),
    Row(ANY, &["5"], &["7.57"], &[], LOGIN_FIRST),
    // Postfix on a submission port, to those who have not logged in.
    Row(ANY, &["5"], &["7.1"], &["client host rejected: access denied"], LOGIN_FIRST),
    // Postfix ends the handshake without the certificate, and says so to EHLO.
    Row(ANY, &["4", "5"], &[], &["client certificate"], "Get a client certificate that the server's administrator accepts, and give it \
        (TlsSettings::client_certificate). If you gave one, look at its dates and its issuer."),

    // STARTTLS.
    Row(STARTTLS, &["5"], &[], &["already"],
        "The server takes this connection for one inside TLS: a tunnel or proxy between has probably added TLS. \
         Connect to the server itself. Only where the tunnel begins on this very machine, tls=none leaves TLS to it."),
    Row(STARTTLS, &["4"], &[], &[],
        "The server's TLS is out of order: try again later. If it lasts, its administrator must look at its \
         certificate, key and log."),
    Row(STARTTLS, &["5"], &[], &[],
        "Use smtps:// (port 465) if the server has that; else its administrator must put STARTTLS in order."),

    // The login.
    Row(AUTH, &["534", "535"], &["7.9"], &["application", "app password", "app-specific"],
        "The account needs a password made for programs (an app password): create one in the account's security \
         settings, and give it in place of the usual one."),
    Row(AUTH, &["5"], &["7.14"], &["browser"],
        "The provider wants the account's owner to confirm this login: log in with a browser, then try again. With \
         an app password, made in the account's security settings, it does not ask as a rule."),
    Row(AUTH, &["5"], &["7.139"], &["credentials were incorrect"], WRONG_PASSWORD),
    Row(AUTH, &["5"], &["7.139"], &["disabled"],
        "Logins with a password are switched off here (basic authentication, SMTP AUTH): an administrator must allow \
         SMTP AUTH for this mailbox or the whole tenant, or the mail must go another way (OAuth 2, another server)."),
    Row(AUTH, &["5"], &["7.139"], &[],
        "A rule of the organization stopped this login (conditional access, security defaults, a second factor): its \
         administrator sees which one in the log of sign-ins."),
    Row(AUTH, &["5"], &["7.13"], &[],
        "The account is switched off or locked: ask its administrator."),
    Row(AUTH, &["432"], &[], &[],
        "The server must store the password anew for this mechanism: log in once with PLAIN (auth=PLAIN in the URL), \
         inside TLS."),
    Row(AUTH, &["538"], &[], &[], WANTS_TLS),
    Row(AUTH, &["5"], &["7.11"], &[], WANTS_TLS),
    Row(AUTH, &["4", "5"], &[], &["too many"],
        "There were too many logins, or too many wrong ones: check the password, wait some minutes (or hours), and \
         then log in less often: send many messages over one connection."),
    Row(AUTH, &["4"], &[], &[],
        "The server cannot check logins at the moment: try again later."),
    Row(AUTH, &["504", "534"], &[], &[], OTHER_MECHANISM),
    Row(AUTH, &["5"], &["7.4", "7.9"], &[], OTHER_MECHANISM),
    Row(AUTH, &["5"], &[], &["invalid authentication mechanism", "mechanism not supported"], OTHER_MECHANISM),
    Row(AUTH, &["5"], &[], &[], WRONG_PASSWORD),

    // Where this client comes from.
    Row(ANY, &["4", "5"], &[], &["blocked using", "block list", "blocklist", "blacklist", "spamhaus", "dnsbl", "banned sending ip", "reputation"],
        "The network address that you send from is on a block list: find out why in the list that the server names, \
         and have it removed. From a home or cloud network, send through your provider's submission server (port \
         587, with a login) instead."),
    Row(ANY, &["4", "5"], &["7.25"], &[], NO_NAME),
    Row(ANY, &["4", "5"], &[], &["ptr resource", "ptr record", "reverse dns", "reverse hostname", "your hostname"], NO_NAME),
    Row(ANY, &["4", "5"], &[], &["helo command", "ehlo command", "helo name", "ehlo name", "invalid helo", "bad helo"], CLIENT_NAME),
    Row(HELLO, &["5"], &[], &[], CLIENT_NAME),
    Row(GREETING, &["5"], &[], &[],
        "The server takes no mail from here: check the host and the port. To send, use your provider's submission \
         server (port 587, with a login)."),

    // The sender.
    Row(ANY, &["5"], &["7.60", "2.252"], &[], SEND_AS),
    Row(ANY, &["5"], &[], &["not owned by", "sendasdenied", "permissions to send as", "not allowed to send as"], SEND_AS),
    Row(ANY, &["4", "5"], &["7.20", "7.21", "7.22", "7.23", "7.24", "7.26", "7.509"], &[], VOUCH),
    Row(ANY, &["4", "5"], &[], &["dmarc", "dkim", "spf fail", "sender policy framework", "unauthenticated email"], VOUCH),
    Row(ANY, &["4", "5"], &["1.8"], &[], SENDER_DOMAIN),
    Row(ANY, &["4", "5"], &[], &["sender address rejected: domain not found"], SENDER_DOMAIN),
    Row(MAIL, &["5"], &["1.7"], &[], SENDER),
    Row(MAIL, &["501"], &[], &[], SENDER),

    // How much and how often.
    Row(ANY, &["4", "5"], &[], &["greylist", "graylist", "grey-list"],
        "The server refuses mail from a new sender at first (greylisting): try again in some minutes, from the same \
         machine and with the same sender."),
    Row(ANY, &["5"], &["4.5", "1.90"], &[], QUOTA),
    Row(ANY, &["5"], &[], &["sending limit", "daily limit", "submissionquota"], QUOTA),
    Row(ANY, &["4"], &[], &["too many", "too much", "at a rate", "unusual rate", "rate limit", "limit exceeded", "server busy"],
        "It was too much in too short a time: try again later, then send more slowly and over fewer connections."),

    // The recipient.
    Row(ANY, &["4", "5"], &[], &["relay", "rcpthosts"],
        "The server takes mail for other domains only from those who log in: give a user name and a password, or use \
         the server that is meant for sending. If you did log in, ask its administrator whether this login may send \
         there."),
    Row(ANY, &["4"], &["2.2"], &[],
        "The recipient's mailbox is full: try again later. If it stays full, only its owner can change that."),
    Row(ANY, &["5"], &["2.2"], &[],
        "The recipient's mailbox is full: only its owner can change that. Reach the recipient another way."),
    Row(RCPT, &["5"], &["1.1", "1.10"], &[], NO_MAILBOX),
    Row(RCPT, &["5"], &[], &["user unknown", "unknown user", "no such user", "no such recipient", "recipient not found"], NO_MAILBOX),

    // The message.
    Row(ANY, &["5"], &["3.4"], &[], TOO_LARGE),
    Row(SIZED, &["552"], &["", "2.3"], &[], TOO_LARGE),
    Row(ANY, &["4"], &["3.1"], &[],
        "The server has no room for the message at the moment: try again later, and tell its administrator if that \
         lasts."),
    Row(ANY, &["4", "5"], &["6.11"], &[], LINE_ENDS),
    Row(ANY, &["4", "5"], &[], &["bare lf", "bare <lf>", "bare cr", "bare <cr>", "bare linefeed", "bare line feed", "smtplf"], LINE_ENDS),
    Row(ANY, &["5"], &["6.1", "6.3"], &[],
        "A server on the way does not take text beyond ASCII: encode the message's parts as quoted-printable or \
         base64."),
    Row(ANY, &["5"], &[], &["security issue", "attachment"],
        "The server does not take such an attachment (a program, or an archive with one, as a rule): put it where it \
         can be fetched from."),
    Row(ANY, &["5"], &[], &["spam", "content filter", "unsolicited", "virus"],
        "A filter takes the message for unwanted: look at its subject, links and attachments. If it is wrong, the \
         server's administrator can let such mail pass."),

    // All the rest.
    Row(ANY, &["421"], &[], &[],
        "The server is busy or going down, or it limits this client: try again later, over a new connection."),
    Row(ANY, &["4"], &[], &[],
        "It is a refusal for the moment: try again later. If it lasts, ask the server's administrator."),
    Row(RCPT, &["5"], &[], &[],
        "The server's words say why it takes no mail for this address from here. If they do not, ask its \
         administrator."),
    Row(ANY, &["5"], &[], &[],
        "The server's words say why, and the same will be refused again. If they do not say enough, ask its \
         administrator."),
];

const LOGIN_FIRST: &str = "The server wants a login first: give a user name and a password, and use TLS (smtp:// with STARTTLS on port \
     587, or smtps:// on port 465).";
const WRONG_PASSWORD: &str = "Check user name and password. Many servers want the whole mail address as the user name, and some a password \
     that is made for programs (an app password) or for SMTP alone.";
const WANTS_TLS: &str = "The server takes this login only inside TLS: leave out tls=none, so that STARTTLS is used, or use smtps:// \
     (port 465).";
const OTHER_MECHANISM: &str = "The server does not take this mechanism for this account: choose another one that it offers (auth= in the URL), \
     or ask its administrator which.";
const CLIENT_NAME: &str = "The server does not like the name that this client gives itself: give this machine's full name, as DNS has it \
     (helo= in the URL, Endpoint::client_name).";
const NO_NAME: &str = "The network address that you send from has no name in DNS, or one that does not lead back to it: have its \
     reverse entry (PTR) set by whoever gave you the address, or send through your provider's submission server \
     (port 587, with a login).";
const SEND_AS: &str = "This login may not send as this sender: use the login's own address as sender, or have the right to send as the \
     other one granted.";
const VOUCH: &str = "The sender's domain does not vouch for mail that comes this way (SPF, DKIM, DMARC): send through the server \
     that is meant for the domain, or have this one named in its DNS (SPF) and the mail signed (DKIM).";
const SENDER: &str =
    "The server does not take this address as a sender: check its spelling, and whether this login may use it.";
const SENDER_DOMAIN: &str = "The domain of the sender's address was not found in DNS: check its spelling, or have its DNS entries put in \
     order.";
const QUOTA: &str = "The limit for a day is used up: wait until it is over, or have it raised.";
const NO_MAILBOX: &str = "There is no such mailbox: check the spelling of the recipient's address.";
const TOO_LARGE: &str =
    "The message is larger than the server takes: send less, or put the attachment where it can be fetched from.";
const LINE_ENDS: &str = "Some line does not end with CRLF as it reaches the server. envoi ends every line so: a filter or proxy on this \
     side may change it. Encode the message's parts as quoted-printable or base64, and nothing can.";
