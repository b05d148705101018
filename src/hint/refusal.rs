//! What to do about a reply that refuses, by all that the session knows: a pure function of plain facts.

use std::borrow::Cow;

use crate::error::Phase;
use crate::proto::{ExchangeFault, Mechanism, Reply};

/// What is known of a session and of what failed in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// The command that was answered.
    pub(crate) phase: Phase,
    pub(crate) reply: Option<&'a Reply>,
    /// TLS is active.
    pub(crate) secure: bool,
    /// The mechanism of the login that succeeded.
    pub(crate) logged_in: Option<Mechanism>,
    /// The mechanism of the login that failed.
    pub(crate) tried: Option<Mechanism>,
    /// What the exchange of that login found.
    pub(crate) fault: Option<ExchangeFault>,
    /// That login was refused for its mechanism, and not for its credentials.
    pub(crate) about_mechanism: bool,
}

/// What to do about a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advice {
    pub(crate) text: Cow<'static, str>,
    /// The same request will be refused again until something is changed, whatever the code says.
    pub(crate) lasts: bool,
}

/// What to do about the reply of the facts; `None` where there is none.
pub(crate) fn for_refusal(facts: &Facts<'_>) -> Option<Advice> {
    let reply = facts.reply?;
    if let Some(text) = facts.tried.and_then(|mechanism| for_login(mechanism, facts, reply)) {
        return Some(Advice { text: text.into(), lasts: false });
    }
    let code = reply.code().to_string();
    let enhanced = reply.enhanced().map(|code| format!("{}.{}", code.subject, code.detail)).unwrap_or_default();
    // A line may be broken anywhere.
    let text = reply.text().to_ascii_lowercase().replace('\n', " ");
    let fits = |row: &&Row| {
        let Row(when, phases, codes, enhanced_codes, words, _) = row;
        when.holds(facts)
            && (phases.is_empty() || phases.contains(&facts.phase))
            && codes.iter().any(|begin| code.starts_with(begin))
            && (enhanced_codes.is_empty() || enhanced_codes.contains(&enhanced.as_str()))
            && (words.is_empty() || words.iter().any(|word| text.contains(word)))
    };
    REFUSALS.iter().find(fits).map(|row| match row.5 {
        Say::It(text) => Advice { text: text.into(), lasts: false },
        Say::ThatLasts(text) => Advice { text: text.into(), lasts: true },
    })
}

/// What is wrong with an exchange says nothing about the credentials.
fn for_login(mechanism: Mechanism, facts: &Facts<'_>, reply: &Reply) -> Option<&'static str> {
    match facts.fault {
        Some(ExchangeFault::Broken) => return Some(BROKEN),
        Some(ExchangeFault::Distrusted) => return Some(super::DISTRUSTED),
        None if facts.about_mechanism && mechanism.is_bound() => return Some(BOUND),
        None => {}
    }
    (mechanism.takes_token() && reply.code() == 535).then_some(
        "The token has expired, or is not one for sending by SMTP: check its scope (https://mail.google.com/ at Google, \
         https://outlook.office.com/SMTP.Send at Microsoft), that it is this user's, and that the mailbox allows SMTP AUTH.",
    )
}

/// What must hold for a row besides the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Always,
    /// TLS is not active.
    InClear,
    /// No login succeeded.
    LoggedOut,
    LoggedIn,
    /// A login was refused for its mechanism.
    AboutMechanism,
}

impl When {
    fn holds(self, facts: &Facts<'_>) -> bool {
        match self {
            When::Always => true,
            When::InClear => !facts.secure,
            When::LoggedOut => facts.logged_in.is_none(),
            When::LoggedIn => facts.logged_in.is_some(),
            When::AboutMechanism => facts.about_mechanism,
        }
    }
}

/// The advice of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Say {
    It(&'static str),
    /// The same, where a code for the moment stands for what will not pass by itself.
    ThatLasts(&'static str),
}

/// When; phases (none: all); how the code begins; enhanced codes without their class (none: any; "" for a reply without one); words, of
/// which one must be there (none: whatever it says); the advice.
struct Row(When, &'static [Phase], &'static [&'static str], &'static [&'static str], &'static [&'static str], Say);

use Say::{It, ThatLasts};
use When::{AboutMechanism, Always, InClear, LoggedIn, LoggedOut};

const ANY: &[Phase] = &[];
const HELLO: &[Phase] = &[Phase::Hello];
const AUTH: &[Phase] = &[Phase::Auth];
const GREETING: &[Phase] = &[Phase::Greeting];
const STARTTLS: &[Phase] = &[Phase::StartTls];
const MAIL: &[Phase] = &[Phase::Mail];
const RCPT: &[Phase] = &[Phase::Rcpt];
/// The commands that come after EHLO and STARTTLS.
const COMMANDS: &[Phase] = &[Phase::Auth, Phase::Mail, Phase::Rcpt, Phase::Data, Phase::Noop, Phase::Command];
/// Where the size of a message is refused.
const SIZED: &[Phase] = &[Phase::Mail, Phase::Body, Phase::EndOfData];

/// What servers say, the particular before the general. The words are those of Postfix, Exim, Exchange, Gmail, Office 365 and others, in
/// small letters.
#[rustfmt::skip]
const REFUSALS: &[Row] = &[
    // TLS or a login first.
    Row(Always, HELLO, &["530"], &[], &["starttls"],
        It("The server answers nothing before TLS, not even EHLO, without which there is no STARTTLS: use smtps:// \
         (port 465), or have its administrator correct that.")),
    // Exchange has 451 5.7.3 for it, which will not pass.
    Row(InClear, COMMANDS, &["4", "5"], &[], &["starttls"], ThatLasts(TLS_FIRST)),
    Row(Always, HELLO, &["500", "502", "504", "530"], &[], &[],
        It("This may be no mail server (an FTP server greets with 220, too), or one that speaks LMTP (lmtp://): check the \
         host and the port.")),
    Row(LoggedOut, ANY, &["530"], &[], &[], It(LOGIN_FIRST)),
    Row(LoggedOut, ANY, &["5"], &["7.57"], &[], It(LOGIN_FIRST)),
    Row(LoggedIn, ANY, &["530"], &["", "7.0", "7.57"], &[], It(LOGIN_DOES_NOT_COUNT)),
    // Postfix on a submission port, to those who have not logged in.
    Row(LoggedOut, ANY, &["5"], &["7.1"], &["client host rejected: access denied"], It(LOGIN_FIRST)),
    // Postfix ends the handshake without the certificate, and says so to EHLO.
    Row(Always, ANY, &["4", "5"], &[], &["client certificate"], It("Get a client certificate that the server's administrator accepts, and give it \
        (TlsSettings::client_certificate). If you gave one, look at its dates and its issuer.")),

    // STARTTLS.
    Row(Always, STARTTLS, &["5"], &[], &["already"],
        It("The server takes this connection for one inside TLS: a tunnel or proxy between has probably added TLS. \
         Connect to the server itself. Only where the tunnel begins on this very machine, tls=none leaves TLS to it.")),
    Row(Always, STARTTLS, &["4"], &[], &[],
        It("The server's TLS is out of order: try again later. If it lasts, its administrator must look at its \
         certificate, key and log.")),
    Row(Always, STARTTLS, &["5"], &[], &[],
        It("Use smtps:// (port 465) if the server has that; else its administrator must put STARTTLS in order.")),

    // The login.
    Row(Always, AUTH, &["534", "535"], &["7.9"], &["application", "app password", "app-specific"],
        It("The account needs a password made for programs (an app password): create one in the account's security \
         settings, and give it in place of the usual one.")),
    Row(Always, AUTH, &["5"], &["7.14"], &["browser"],
        It("The provider wants the account's owner to confirm this login: log in with a browser, then try again. With \
         an app password, made in the account's security settings, it does not ask as a rule.")),
    Row(Always, AUTH, &["5"], &["7.139"], &["credentials were incorrect"], It(WRONG_PASSWORD)),
    Row(Always, AUTH, &["5"], &["7.139"], &["disabled"],
        It("Logins with a password are switched off here (basic authentication, SMTP AUTH): an administrator must allow \
         SMTP AUTH for this mailbox or the whole tenant, or the mail must go another way (OAuth 2, another server).")),
    Row(Always, AUTH, &["5"], &["7.139"], &[],
        It("A rule of the organization stopped this login (conditional access, security defaults, a second factor): its \
         administrator sees which one in the log of sign-ins.")),
    Row(Always, AUTH, &["5"], &["7.13"], &[],
        It("The account is switched off or locked: ask its administrator.")),
    Row(Always, AUTH, &["432"], &[], &[],
        It("The server must store the password anew for this mechanism: log in once with PLAIN (auth=PLAIN in the URL), \
         inside TLS.")),
    Row(Always, AUTH, &["538"], &[], &[], It(WANTS_TLS)),
    Row(Always, AUTH, &["5"], &["7.11"], &[], It(WANTS_TLS)),
    Row(Always, AUTH, &["4", "5"], &[], &["too many"],
        It("There were too many logins, or too many wrong ones: check the password, wait some minutes (or hours), and \
         then log in less often: send many messages over one connection.")),
    Row(Always, AUTH, &["4"], &[], &[],
        It("The server cannot check logins at the moment: try again later.")),
    Row(Always, AUTH, &["504", "534"], &[], &[], It(OTHER_MECHANISM)),
    Row(Always, AUTH, &["5"], &["7.4", "7.9"], &[], It(OTHER_MECHANISM)),
    Row(AboutMechanism, AUTH, &["5"], &[], &[], It(OTHER_MECHANISM)),
    Row(Always, AUTH, &["5"], &[], &[], It(WRONG_PASSWORD)),

    // Where this client comes from.
    Row(Always, ANY, &["4", "5"], &[], &["blocked using", "block list", "blocklist", "blacklist", "spamhaus", "dnsbl", "banned sending ip", "reputation"],
        It("The network address that you send from is on a block list: find out why in the list that the server names, \
         and have it removed. From a home or cloud network, send through your provider's submission server (port \
         587, with a login) instead.")),
    Row(Always, ANY, &["4", "5"], &["7.25"], &[], It(NO_NAME)),
    Row(Always, ANY, &["4", "5"], &[], &["ptr resource", "ptr record", "reverse dns", "reverse hostname", "your hostname"], It(NO_NAME)),
    Row(Always, ANY, &["4", "5"], &[], &["helo command", "ehlo command", "helo name", "ehlo name", "invalid helo", "bad helo"], It(CLIENT_NAME)),
    Row(Always, HELLO, &["5"], &[], &[], It(CLIENT_NAME)),
    Row(Always, GREETING, &["5"], &[], &[],
        It("The server takes no mail from here: check the host and the port. To send, use your provider's submission \
         server (port 587, with a login).")),

    // The sender.
    Row(Always, ANY, &["5"], &["7.60", "2.252"], &[], It(SEND_AS)),
    Row(Always, ANY, &["5"], &[], &["not owned by", "sendasdenied", "permissions to send as", "not allowed to send as"], It(SEND_AS)),
    Row(Always, ANY, &["4", "5"], &["7.20", "7.21", "7.22", "7.23", "7.24", "7.26", "7.509"], &[], It(VOUCH)),
    Row(Always, ANY, &["4", "5"], &[], &["dmarc", "dkim", "spf fail", "sender policy framework", "unauthenticated email"], It(VOUCH)),
    Row(Always, ANY, &["4", "5"], &["1.8"], &[], It(SENDER_DOMAIN)),
    Row(Always, ANY, &["4", "5"], &[], &["sender address rejected: domain not found"], It(SENDER_DOMAIN)),
    Row(Always, MAIL, &["5"], &["1.7"], &[], It(SENDER)),
    Row(Always, MAIL, &["501"], &[], &[], It(SENDER)),

    // How much and how often.
    Row(Always, ANY, &["4", "5"], &[], &["greylist", "graylist", "grey-list"],
        It("The server refuses mail from a new sender at first (greylisting): try again in some minutes, from the same \
         machine and with the same sender.")),
    Row(Always, ANY, &["5"], &["4.5", "1.90"], &[], It(QUOTA)),
    Row(Always, ANY, &["5"], &[], &["sending limit", "daily limit", "submissionquota"], It(QUOTA)),
    Row(Always, ANY, &["4"], &[], &["too many", "too much", "at a rate", "unusual rate", "rate limit", "limit exceeded", "server busy"],
        It("It was too much in too short a time: try again later, then send more slowly and over fewer connections.")),

    // The recipient.
    Row(Always, ANY, &["4", "5"], &[], &["relay", "rcpthosts"],
        It("The server takes mail for other domains only from those who log in: give a user name and a password, or use \
         the server that is meant for sending. If you did log in, ask its administrator whether this login may send \
         there.")),
    Row(Always, ANY, &["4"], &["2.2"], &[],
        It("The recipient's mailbox is full: try again later. If it stays full, only its owner can change that.")),
    Row(Always, ANY, &["5"], &["2.2"], &[],
        It("The recipient's mailbox is full: only its owner can change that. Reach the recipient another way.")),
    Row(Always, RCPT, &["5"], &["1.1", "1.10"], &[], It(NO_MAILBOX)),
    Row(Always, RCPT, &["5"], &[], &["user unknown", "unknown user", "no such user", "no such recipient", "recipient not found"], It(NO_MAILBOX)),

    // The message.
    Row(Always, ANY, &["5"], &["3.4"], &[], It(TOO_LARGE)),
    Row(Always, SIZED, &["552"], &["", "2.3"], &[], It(TOO_LARGE)),
    Row(Always, ANY, &["4"], &["3.1"], &[],
        It("The server has no room for the message at the moment: try again later, and tell its administrator if that \
         lasts.")),
    Row(Always, ANY, &["4", "5"], &["6.11"], &[], It(LINE_ENDS)),
    Row(Always, ANY, &["4", "5"], &[], &["bare lf", "bare <lf>", "bare cr", "bare <cr>", "bare linefeed", "bare line feed", "smtplf"], It(LINE_ENDS)),
    Row(Always, ANY, &["5"], &["6.1", "6.3"], &[],
        It("A server on the way does not take text beyond ASCII: encode the message's parts as quoted-printable or \
         base64.")),
    Row(Always, ANY, &["5"], &[], &["security issue", "attachment"],
        It("The server does not take such an attachment (a program, or an archive with one, as a rule): put it where it \
         can be fetched from.")),
    Row(Always, ANY, &["5"], &[], &["spam", "content filter", "unsolicited", "virus"],
        It("A filter takes the message for unwanted: look at its subject, links and attachments. If it is wrong, the \
         server's administrator can let such mail pass.")),

    // All the rest.
    Row(Always, ANY, &["421"], &[], &[],
        It("The server is busy or going down, or it limits this client: try again later, over a new connection.")),
    Row(Always, ANY, &["4"], &[], &[],
        It("It is a refusal for the moment: try again later. If it lasts, ask the server's administrator.")),
    Row(Always, RCPT, &["5"], &[], &[],
        It("The server's words say why it takes no mail for this address from here. If they do not, ask its \
         administrator.")),
    Row(Always, ANY, &["5"], &[], &[],
        It("The server's words say why, and the same will be refused again. If they do not say enough, ask its \
         administrator.")),
];

const TLS_FIRST: &str =
    "The server wants TLS first: leave out tls=none, so that STARTTLS is used, or use smtps:// (port 465).";
const LOGIN_DOES_NOT_COUNT: &str = "The login succeeded, and the server asks for one nevertheless: ask its administrator whether this account \
     may send here.";
const LOGIN_FIRST: &str = "The server wants a login first: give a user name and a password, and use TLS (smtp:// with STARTTLS on port \
     587, or smtps:// on port 465).";
const WRONG_PASSWORD: &str = "Check user name and password. Many servers want the whole mail address as the user name, and some a password \
     that is made for programs (an app password) or for SMTP alone.";
const WANTS_TLS: &str = "The server takes this login only inside TLS: leave out tls=none, so that STARTTLS is used, or use smtps:// \
     (port 465).";
const BROKEN: &str = "The server does not keep to this mechanism: choose another one that it offers (auth= in the URL), and show this message to \
     its administrator. If each of them fails like this, a device in between may be tampering with the connection.";
const BOUND: &str = "The server offers this mechanism, which is tied to the TLS connection, and does not take it: another server may be in between, so \
     no other mechanism is tried. If the connection is in order, name one without -PLUS (auth= in the URL), or ask the server's administrator.";
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

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::proto::{Limits, ReplyParser};

    fn reply(text: &str) -> Reply {
        let mut bytes = BytesMut::from(format!("{text}\r\n").as_str());
        ReplyParser::new(Limits::default()).parse(&mut bytes).unwrap().unwrap()
    }

    fn advice(facts: Facts<'_>, text: &str) -> Advice {
        for_refusal(&Facts { reply: Some(&reply(text)), ..facts }).unwrap()
    }

    const CLEAR: Facts<'_> = Facts {
        phase: Phase::Mail,
        reply: None,
        secure: false,
        logged_in: None,
        tried: None,
        fault: None,
        about_mechanism: false,
    };

    #[test]
    fn tls_is_advised_outside_tls_alone_and_lasts() {
        for text in [
            "451 5.7.3 STARTTLS is required to send mail",
            "530 5.7.0 Must issue a STARTTLS command first",
            "451 4.7.0 Must issue STARTTLS first",
        ] {
            let clear = advice(CLEAR, text);
            assert!(clear.lasts && clear.text.contains("leave out tls=none"), "{text}: {clear:?}");
            let secure = advice(Facts { secure: true, ..CLEAR }, text);
            assert!(!secure.lasts && !secure.text.contains("tls=none"), "{text}: {secure:?}");
        }
    }

    #[test]
    fn a_login_is_not_advised_after_a_login() {
        for text in ["530 5.7.0 Authentication required", "530 5.7.57 Client not authenticated to send mail"] {
            assert!(advice(CLEAR, text).text.contains("give a user name and a password"), "{text}");
            let after = advice(Facts { secure: true, logged_in: Some(Mechanism::Plain), ..CLEAR }, text);
            assert!(after.text.contains("The login succeeded"), "{text}: {after:?}");
        }
    }
}
