//! The negative replies of servers, and the advice about each.
//!
//! The words are those of Postfix, Exim, Sendmail, qmail, Domino, Dovecot, Exchange, and of the
//! large providers.

use super::refusal::Say::{self, It, UseTls};
use super::refusal::When::{self, *};
use crate::error::Phase;

/// A reply to recognise, and the advice for it.
pub(super) struct Row {
    /// What must hold besides the reply.
    pub(super) when: &'static [When],
    /// The phases of the session; none stands for all.
    pub(super) phases: &'static [Phase],
    /// How the code begins.
    pub(super) codes: &'static [&'static str],
    /// Enhanced status codes without their class, "" for a reply without one; none stands for any.
    pub(super) enhanced: &'static [&'static str],
    /// Words of which the reply has one, in small letters; none stands for any reply.
    pub(super) words: &'static [&'static str],
    pub(super) advice: Say,
}

/// The advice for every refusal; a row adds what must hold.
const fn advise(advice: Say) -> Row {
    Row {
        when: &[],
        phases: &[],
        codes: &["4", "5"],
        enhanced: &[],
        words: &[],
        advice,
    }
}

const CLEAR: &[When] = &[InClear];
const TLS: &[When] = &[InTls];
const MX: &[When] = &[Mx];
const LOGGED_IN: &[When] = &[LoggedIn];
const LOGGED_OUT: &[When] = &[LoggedOut];
const LOGGED_OUT_OF_SMTP: &[When] = &[LoggedOut, Smtp];
const RELAY_CODES: &[&str] = &["450", "451", "452", "454", "5"];

const HELLO: &[Phase] = &[Phase::Hello];
const AUTH: &[Phase] = &[Phase::Auth];
const GREETING: &[Phase] = &[Phase::Greeting];
const STARTTLS: &[Phase] = &[Phase::StartTls];
const MAIL: &[Phase] = &[Phase::Mail];
const RCPT: &[Phase] = &[Phase::Rcpt];
/// The commands after EHLO and STARTTLS.
const COMMANDS: &[Phase] = &[
    Phase::Auth,
    Phase::Mail,
    Phase::Rcpt,
    Phase::Data,
    Phase::Noop,
    Phase::Command,
];
/// A message and its recipients, after EHLO and the login.
const MESSAGE: &[Phase] = &[
    Phase::Mail,
    Phase::Rcpt,
    Phase::Data,
    Phase::Body,
    Phase::EndOfData,
];
/// A message after its sender.
const RECIPIENTS: &[Phase] = &[Phase::Rcpt, Phase::Data, Phase::Body, Phase::EndOfData];
const CONTENT: &[Phase] = &[Phase::Data, Phase::Body, Phase::EndOfData];
/// The phases before a message.
const OPENING: &[Phase] = &[Phase::Greeting, Phase::Hello, Phase::Auth];
/// Where the size of a message is refused.
const SIZED: &[Phase] = &[Phase::Mail, Phase::Body, Phase::EndOfData];

/// The first row that fits is used, so the particular ones precede the general ones.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // TLS first.
    Row { when: TLS, phases: HELLO, codes: &["530"], words: &["starttls"],
        ..advise(It(TLS_UNSEEN)) },
    Row { when: &[InClear, Lmtp], phases: HELLO, codes: &["530"], words: &["starttls"],
        ..advise(It("The server answers nothing before TLS, not even LHLO, without which there is \
            no STARTTLS: have its administrator correct that.")) },
    Row { when: MX, phases: HELLO, codes: &["500", "502", "504", "530"],
        ..advise(It("The server does not speak SMTP as a mail server does: tell the domain's \
            postmaster by other means.")) },
    Row { when: CLEAR, phases: HELLO, codes: &["530"], words: &["starttls"],
        ..advise(It("The server answers nothing before TLS, not even EHLO, without which there is \
            no STARTTLS: use smtps:// (port 465), or have its administrator correct that.")) },
    // Exchange uses 451 5.7.3 for it.
    Row { when: CLEAR, phases: COMMANDS, words: STARTTLS_WANTED, ..advise(UseTls(WANTS_TLS)) },
    Row { when: CLEAR, phases: AUTH, codes: &["538"], ..advise(UseTls(LOGIN_WANTS_TLS)) },
    Row { when: CLEAR, phases: AUTH, enhanced: &["7.10", "7.11"],
        ..advise(UseTls(LOGIN_WANTS_TLS)) },
    Row { when: CLEAR, phases: AUTH, words: TLS_WANTED, ..advise(UseTls(LOGIN_WANTS_TLS)) },
    Row { when: CLEAR, phases: COMMANDS, enhanced: &["7.10", "7.29"], ..advise(UseTls(WANTS_TLS)) },
    Row { when: CLEAR, phases: COMMANDS, words: TLS_WANTED, ..advise(UseTls(WANTS_TLS)) },
    Row { when: TLS, phases: AUTH, codes: &["538"], ..advise(It(TLS_UNSEEN)) },
    Row { when: TLS, phases: COMMANDS, enhanced: &["7.10", "7.11", "7.29"],
        ..advise(It(TLS_UNSEEN)) },
    Row { when: TLS, phases: COMMANDS, words: STARTTLS_WANTED, ..advise(It(TLS_UNSEEN)) },
    Row { when: TLS, phases: COMMANDS, words: TLS_WANTED, ..advise(It(TLS_UNSEEN)) },
    Row { when: &[Lmtp], phases: HELLO, codes: &["500", "502", "504", "530"],
        ..advise(It("This may be a server that does not speak LMTP: check the host and the \
            port.")) },
    Row { phases: HELLO, codes: &["500", "502", "504", "530"],
        ..advise(It("This may be no mail server (an FTP server greets with 220, too), or one that \
            speaks LMTP (lmtp://): check the host and the port.")) },
    // Postfix completes the handshake without the certificate, and refuses EHLO.
    Row { words: &["client certificate"],
        ..advise(It("Get a client certificate that the server's administrator accepts, and give it \
            (TlsSettings::client_certificate). If you gave one, look at its dates and its \
            issuer.")) },

    // STARTTLS.
    Row { when: MX, phases: STARTTLS, codes: &["5"],
        ..advise(It("The server offers STARTTLS and refuses it: the domain's postmaster must put \
            it in order.")) },
    Row { phases: STARTTLS, codes: &["5"], words: &["already"],
        ..advise(It("The server takes this connection for one inside TLS: a tunnel or proxy \
            between has probably added TLS. Connect to the server itself. Only where the tunnel \
            begins on this very machine, tls=none leaves TLS to it.")) },
    Row { phases: STARTTLS, codes: &["4"],
        ..advise(It("The server's TLS is out of order: try again later. If it lasts, its \
            administrator must look at its certificate, key and log.")) },
    Row { when: &[Lmtp], phases: STARTTLS, codes: &["5"],
        ..advise(It("The server offers STARTTLS and refuses it: its administrator must put it in \
            order.")) },
    Row { phases: STARTTLS, codes: &["5"],
        ..advise(It("Use smtps:// (port 465) if the server has that; else its administrator must \
            put STARTTLS in order.")) },

    // Certain, whatever else the reply says.
    Row { phases: RCPT, codes: &["5"], enhanced: &["1.1"], ..advise(It(NO_MAILBOX)) },

    // A recipient that accepts some senders only.
    Row { phases: MESSAGE, enhanced: &["7.12", "7.120", "7.121", "7.122", "7.123", "7.124", "7.125",
        "7.126", "7.127", "7.128", "7.129", "7.130", "7.131", "7.132", "7.133", "7.134", "7.135",
        "7.136"], ..advise(It(MEMBERS_ONLY)) },
    Row { phases: MESSAGE, codes: &["5"], words: &["members-only", "not allowed to post",
        "closed mailing list", "allowed-senders list", "only accepting mail from specific",
        "restricted to members"], ..advise(It(MEMBERS_ONLY)) },

    // The account.
    Row { when: LOGGED_IN, enhanced: &["7.501", "7.502", "7.503"], ..advise(It(BARRED)) },
    Row { when: LOGGED_OUT, enhanced: &["7.501", "7.502", "7.503"], ..advise(It(SENDER_BARRED)) },
    Row { when: LOGGED_IN, words: SPAM_SENT, ..advise(It(BARRED)) },
    Row { when: LOGGED_OUT, words: SPAM_SENT, ..advise(It(SENDER_BARRED)) },
    Row { phases: MESSAGE, words: &["sending suspended", "sending is suspended", "sending paused",
        "sending is paused", "sending has been paused", "sending has been suspended",
        "sending is disabled", "account suspended", "your account has been suspended",
        "your account is suspended"],
        ..advise(It("The provider has stopped sending for this account: look for the reason in \
            what it wrote to the account's owner, and have the account allowed to send again.")) },
    Row { phases: MESSAGE, words: &["not authorized to perform"],
        ..advise(It("The credentials do not include the right to send as this sender (at Amazon \
            SES: ses:SendRawEmail, for its identity): the account's administrator must grant \
            it.")) },
    Row { when: LOGGED_OUT, enhanced: &["7.68"], ..advise(It(DIRECT_SEND)) },
    Row { when: LOGGED_OUT, words: &["direct send not allowed"], ..advise(It(DIRECT_SEND)) },
    Row { when: LOGGED_IN, enhanced: &["7.68"], ..advise(It(NO_CONNECTOR)) },
    Row { enhanced: &["7.705"],
        ..advise(It("The whole organization may not send for now, as too much of its mail looked \
            like spam, or there was too much of it: its administrator must find the cause, and \
            then have the block lifted by the provider.")) },
    Row { enhanced: &["7.708"],
        ..advise(It("The provider does not let this organization send from this network address \
            yet: it is a new or trial tenant as a rule, or one that sent spam. Its administrator \
            must have the block lifted by the provider's support.")) },
    Row { enhanced: &["7.750"],
        ..advise(It("The organization sent too much from domains that are not registered with it: \
            its administrator must register the sender's domain, and then have the block lifted by \
            the provider's support.")) },
    Row { enhanced: &["7.64", "7.51"], ..advise(It(NO_CONNECTOR)) },
    Row { words: &["test purposes only", "authorized recipients", "activate your", "sandbox"],
        ..advise(It("The account is on trial or not activated: activate it, add a domain of your \
            own and verify that, or send to the recipients alone that its settings name as \
            allowed.")) },
    Row { words: &["credits exceeded", "out of credit", "not enough credit", "no credits",
        "insufficient credits", "exceeded your messaging limit", "plan limit",
        "quota of your plan"], ..advise(It(CREDITS)) },

    // Google's relay, whose reply mentions EHLO too.
    Row { when: MX, words: &["credentials for relay"], ..advise(It(MX_RELAY)) },
    Row { when: LOGGED_OUT, words: &["credentials for relay"], ..advise(It(REGISTER)) },
    Row { when: LOGGED_IN, words: &["credentials for relay"], ..advise(It(REGISTER_LOGGED_IN)) },

    // The name in EHLO. Google's relay refuses it with 421 and mentions (EHLO).
    Row { phases: HELLO, words: &["(ehlo)", "(helo)", "ehlo argument", "helo argument"],
        ..advise(It(CLIENT_NAME)) },
    Row { enhanced: &["7.506"], ..advise(It(CLIENT_NAME)) },
    Row { words: &["helo command", "ehlo command", "helo name", "ehlo name", "invalid helo",
        "bad helo", "helo rejected", "valid helo", "helo/ehlo", "fqdn required"],
        ..advise(It(CLIENT_NAME)) },

    // The network address.
    Row { codes: &["5"], words: &["url reputation", "uri reputation", "link reputation", "uribl",
        "surbl"], ..advise(It(FILTERED)) },
    Row { words: &["reputation of the sending domain", "spamhaus dbl", "domain is listed",
        "blacklisted domain"],
        ..advise(It("The sender's domain is on a block list, or has a bad reputation: find out why \
            in the list that the server names, and have it removed.")) },
    Row { when: LOGGED_OUT_OF_SMTP, words: NOT_DIRECTLY, ..advise(It(NO_DIRECT_MAIL)) },
    Row { words: NOT_DIRECTLY, ..advise(It(ON_BLOCK_LIST_LOGGED_IN)) },
    Row { when: LOGGED_OUT_OF_SMTP, enhanced: &["7.511"], ..advise(It(ON_BLOCK_LIST)) },
    Row { enhanced: &["7.511"], ..advise(It(ON_BLOCK_LIST_LOGGED_IN)) },
    Row { when: LOGGED_OUT_OF_SMTP, words: BLOCK_LISTED, ..advise(It(ON_BLOCK_LIST)) },
    Row { words: BLOCK_LISTED, ..advise(It(ON_BLOCK_LIST_LOGGED_IN)) },
    Row { when: LOGGED_OUT_OF_SMTP, enhanced: &["7.25"], ..advise(It(NO_NAME)) },
    Row { when: LOGGED_OUT_OF_SMTP, words: NAMELESS, ..advise(It(NO_NAME)) },
    Row { enhanced: &["7.25"], ..advise(It(NO_NAME_LOGGED_IN)) },
    Row { words: NAMELESS, ..advise(It(NO_NAME_LOGGED_IN)) },
    Row { phases: OPENING, words: &["ip address has been blocked", "ip address is blocked",
        "ip has been blocked", "ip is blocked", "ip blocked", "ip address blocked",
        "ip address has been banned", "ip is banned", "ip banned", "host is blocked", "blocked ip"],
        ..advise(It(ADDRESS_BLOCKED)) },
    Row { phases: OPENING, codes: &["4"], words: CONNECTIONS, ..advise(It(TOO_OFTEN_FOR_NOW)) },
    Row { phases: OPENING, codes: &["5"], words: CONNECTIONS, ..advise(It(TOO_OFTEN)) },
    Row { phases: AUTH, words: &["client host rejected", "host not allowed", "ip not allowed",
        "ip address not allowed", "not allowed from this ip"], ..advise(It(ADDRESS_BLOCKED)) },
    Row { phases: &[Phase::Greeting, Phase::Hello], codes: &["5"], words: TOO_MUCH,
        ..advise(It(TOO_OFTEN)) },

    // The server, before its replies about others.
    Row { enhanced: &["3.5"], ..advise(It(MISCONFIGURED)) },
    Row { words: &["configuration error", "misconfigured", "license expired"],
        ..advise(It(MISCONFIGURED)) },

    // The login.
    Row { phases: AUTH, words: &["application-specific", "application specific", "app password",
        "app-specific", "application password", "authorization code",
        "client authorization password", "parol prilozheniya"], ..advise(It(APP_PASSWORD)) },
    Row { phases: AUTH, codes: &["534", "535"], enhanced: &["7.9"], words: &["application"],
        ..advise(It(APP_PASSWORD)) },
    Row { phases: AUTH, codes: &["5"], words: &["web browser"],
        ..advise(It("The provider wants the account's owner to confirm this login: log in with a \
            browser, then try again. With an app password, made in the account's security \
            settings, it does not ask as a rule.")) },
    Row { phases: AUTH, codes: &["5"], enhanced: &["7.139"], words: &["credentials were incorrect"],
        ..advise(It(WRONG_PASSWORD)) },
    Row { phases: AUTH, codes: &["5"], enhanced: &["7.139"], words: &["disabled"],
        ..advise(It(NO_BASIC_AUTH)) },
    Row { phases: AUTH, codes: &["5"], enhanced: &["7.30"], ..advise(It(NO_BASIC_AUTH)) },
    Row { phases: AUTH, codes: &["5"], words: &["basic authentication"],
        ..advise(It(NO_BASIC_AUTH)) },
    Row { phases: AUTH, codes: &["5"], enhanced: &["7.139"],
        ..advise(It("A rule of the organization stopped this login (conditional access, security \
            defaults, a second factor): its administrator sees which one in the log of \
            sign-ins.")) },
    Row { phases: AUTH, codes: &["5"], enhanced: &["7.13"], ..advise(It(LOCKED)) },
    Row { phases: AUTH, words: &["account is disabled", "account disabled",
        "account has been disabled", "account is locked", "account locked", "suspended",
        "user disabled", "user is disabled", "account is blocked", "account blocked",
        "deactivated"], ..advise(It(LOCKED)) },
    Row { phases: AUTH, codes: &["5"], words: &["no permission", "does not have access rights",
        "service is not enabled", "smtp is disabled", "smtp access is disabled",
        "not enabled for smtp", "smtp service"],
        ..advise(It("Sending by SMTP is switched off for this account: switch it on in the \
            account's settings, or have its administrator do so.")) },
    Row { phases: AUTH, codes: &["5"], words: &["authorization grant"],
        ..advise(It("The API key that is the password here is wrong, expired or revoked, or may \
            not send mail: make a new one, and give it with the user name that the provider names \
            for it (\"apikey\" at SendGrid).")) },
    Row { phases: AUTH, words: UNVERIFIED,
        ..advise(It("The account's address is not verified: verify it with the provider, as its \
            mail or its settings say.")) },
    Row { phases: AUTH, words: &["authentication type", "mechanism disabled",
        "mechanism not supported", "mechanism is not supported", "unsupported mechanism",
        "mechanism is disabled", "unrecognized authentication", "mechanism not allowed"],
        ..advise(It(OTHER_MECHANISM)) },
    Row { phases: AUTH, codes: &["432"],
        ..advise(It("The server must store the password anew for this mechanism: log in once with \
            PLAIN (auth=PLAIN in the URL), inside TLS.")) },
    Row { phases: AUTH, words: &["too many", "rate limit", "ratelimit", "rate exceeded",
        "limit exceeded", "throttl", "too often", "too frequent"],
        ..advise(It("There were too many logins, or too many wrong ones: check the password, wait \
            some minutes (or hours), and then log in less often: send many messages over one \
            connection.")) },
    Row { phases: AUTH, codes: &["4"], words: &["could not authenticate", "bad username",
        "invalid credentials", "credentials invalid", "wrong password", "incorrect password"],
        ..advise(It(WRONG_PASSWORD)) },
    Row { phases: AUTH, codes: &["4"],
        ..advise(It("The server cannot check logins at the moment: try again later.")) },
    Row { phases: AUTH, codes: &["504", "534"], ..advise(It(OTHER_MECHANISM)) },
    Row { phases: AUTH, codes: &["5"], enhanced: &["7.4", "7.9"], ..advise(It(OTHER_MECHANISM)) },
    Row { when: &[AboutMechanism], phases: AUTH, codes: &["5"], ..advise(It(OTHER_MECHANISM)) },
    Row { when: CLEAR, phases: AUTH, codes: &["530"], ..advise(UseTls(LOGIN_WANTS_TLS)) },
    Row { when: TLS, phases: AUTH, codes: &["530"],
        ..advise(It("The server wants something else before this login: its words say what. If \
            they do not, ask its administrator.")) },
    Row { when: &[StartTlsUnused], phases: AUTH, codes: &["500", "502", "503"],
        ..advise(It("The server takes no login here: many take it only inside TLS (leave out \
            tls=none), or on the submission port (587 or 465).")) },
    Row { when: &[Lmtp], phases: AUTH, codes: &["500", "502", "503"], ..advise(It(NO_LOGIN_HERE)) },
    Row { when: &[OnSubmissionPort], phases: AUTH, codes: &["500", "502", "503"],
        ..advise(It(NO_LOGIN_HERE)) },
    Row { phases: AUTH, codes: &["500", "502", "503"],
        ..advise(It("The server takes no login here: use its submission port (587 or 465), or \
            leave the credentials out.")) },
    Row { phases: AUTH, codes: &["5"], ..advise(It(WRONG_PASSWORD)) },

    // EHLO and the greeting.
    Row { phases: HELLO, codes: &["5"], ..advise(It(CLIENT_NAME)) },
    Row { when: &[OnSubmissionPort], phases: GREETING, codes: &["5"],
        ..advise(It("The server takes no mail from here: check the host. If it is right, ask its \
            administrator whether this network may connect.")) },
    Row { when: MX, phases: GREETING, codes: &["5"], ..advise(It(MX_REFUSES)) },
    Row { when: &[Lmtp], phases: GREETING, codes: &["5"],
        ..advise(It("The server takes no mail from here: check the host and the port. If they are \
            right, ask its administrator whether this client may connect.")) },
    Row { phases: GREETING, codes: &["5"],
        ..advise(It("The server takes no mail from here: check the host and the port. To send, use \
            your provider's submission server (port 587, with a login).")) },

    // The sender's domain.
    Row { words: &["null mx", "nullmx"], ..advise(It(TAKES_NO_MAIL)) },
    Row { words: &["basic authentication"], ..advise(It(NO_BASIC_AUTH)) },
    Row { phases: MESSAGE, enhanced: &["7.30"], ..advise(It(REQUIRETLS)) },
    Row { phases: MESSAGE, words: &["requiretls"], ..advise(It(REQUIRETLS)) },
    Row { enhanced: &["7.20", "7.21", "7.22", "7.23", "7.24", "7.26", "7.27", "7.32", "7.509",
        "7.515"], ..advise(It(VOUCH)) },
    Row { words: &["dmarc", "dkim", "spf fail", "spf check", "spf policy", "spf-check",
        "sender policy framework", "unauthenticated email", "authentication checks"],
        ..advise(It(VOUCH)) },
    Row { enhanced: &["1.8"], ..advise(It(SENDER_DOMAIN)) },
    Row { words: &["sender address rejected: domain not found", "domain of sender address",
        "invalid dns mx"], ..advise(It(SENDER_DOMAIN)) },

    // The senders that this login may use.
    Row { when: MX, words: &["sender address rejected: not logged in"],
        ..advise(It(MX_SENDER)) },
    Row { when: &[LoggedOut], words: &["sender address rejected: not logged in"],
        ..advise(It(SENDER_OF_A_LOGIN)) },
    Row { words: UNVERIFIED, ..advise(It(VERIFY_SENDER)) },
    Row { when: MX, codes: &["5"], enhanced: &["7.60", "2.252"], ..advise(It(MX_SENDER)) },
    Row { when: MX, words: OTHER_SENDER, ..advise(It(MX_SENDER)) },
    Row { when: LOGGED_OUT, codes: &["5"], enhanced: &["7.60", "2.252"],
        ..advise(It(SENDER_OF_A_LOGIN)) },
    Row { when: LOGGED_OUT, words: OTHER_SENDER, ..advise(It(SENDER_OF_A_LOGIN)) },
    Row { when: &[LoggedIn, SenderIsUser], words: &["relaying disallowed", "relaying not allowed:"],
        ..advise(It(SEND_AS_HEADER)) },
    Row { when: LOGGED_IN, words: &["relaying disallowed", "relaying not allowed:"],
        ..advise(It(SEND_AS)) },
    Row { when: &[LoggedIn, SenderIsUser], codes: &["5"], enhanced: &["7.60", "2.252"],
        ..advise(It(SEND_AS_HEADER)) },
    Row { when: &[LoggedIn, SenderIsUser], words: OTHER_SENDER, ..advise(It(SEND_AS_HEADER)) },
    Row { when: LOGGED_IN, codes: &["5"], enhanced: &["7.60", "2.252"], ..advise(It(SEND_AS)) },
    Row { when: LOGGED_IN, words: OTHER_SENDER, ..advise(It(SEND_AS)) },
    Row { when: LOGGED_IN, phases: &[Phase::Mail, Phase::EndOfData], codes: &["550"],
        enhanced: &[""], words: &["request failed; mailbox unavailable"], ..advise(It(SEND_AS)) },

    // A login is required first.
    Row { when: LOGGED_IN, phases: MESSAGE, codes: &["530"], ..advise(It(LOGIN_DOES_NOT_COUNT)) },
    Row { when: LOGGED_IN, phases: MESSAGE, enhanced: &["7.57"],
        ..advise(It(LOGIN_DOES_NOT_COUNT)) },
    Row { when: LOGGED_IN, phases: MESSAGE, words: LOGIN_WANTED,
        ..advise(It(LOGIN_DOES_NOT_COUNT)) },
    Row { when: MX, codes: &["530"], ..advise(It(MX_LOGIN)) },
    Row { when: MX, enhanced: &["7.57"], ..advise(It(MX_LOGIN)) },
    Row { when: MX, words: LOGIN_WANTED, ..advise(It(MX_LOGIN)) },
    Row { when: &[LoggedOut, Lmtp, NoLoginOffered], codes: &["530"], ..advise(It(NO_LOGIN)) },
    Row { when: &[LoggedOut, Lmtp, NoLoginOffered], enhanced: &["7.57"], ..advise(It(NO_LOGIN)) },
    Row { when: &[LoggedOut, Lmtp, NoLoginOffered], words: LOGIN_WANTED, ..advise(It(NO_LOGIN)) },
    Row { when: &[LoggedOut, Lmtp], codes: &["530"], ..advise(It(LOGIN_FIRST_IN_TLS)) },
    Row { when: &[LoggedOut, Lmtp], enhanced: &["7.57"], ..advise(It(LOGIN_FIRST_IN_TLS)) },
    Row { when: &[LoggedOut, Lmtp], words: LOGIN_WANTED, ..advise(It(LOGIN_FIRST_IN_TLS)) },
    Row { when: &[LoggedOut, InTls, NoLoginOffered, OnSubmissionPort], codes: &["530"],
        ..advise(It(NO_LOGIN)) },
    Row { when: &[LoggedOut, InTls, NoLoginOffered, OnSubmissionPort], words: LOGIN_WANTED,
        ..advise(It(NO_LOGIN)) },
    Row { when: &[LoggedOut, InTls, NoLoginOffered], codes: &["530"],
        ..advise(It(LOGIN_ELSEWHERE)) },
    Row { when: &[LoggedOut, InTls, NoLoginOffered], enhanced: &["7.57"],
        ..advise(It(LOGIN_ELSEWHERE)) },
    Row { when: &[LoggedOut, InTls, NoLoginOffered], words: LOGIN_WANTED,
        ..advise(It(LOGIN_ELSEWHERE)) },
    Row { when: &[LoggedOut, InTls], codes: &["530"], ..advise(It(LOGIN_FIRST_IN_TLS)) },
    Row { when: &[LoggedOut, InTls], enhanced: &["7.57"], ..advise(It(LOGIN_FIRST_IN_TLS)) },
    Row { when: &[LoggedOut, InTls], words: LOGIN_WANTED, ..advise(It(LOGIN_FIRST_IN_TLS)) },
    Row { when: &[LoggedOut, InClear], codes: &["530"], ..advise(It(LOGIN_FIRST)) },
    Row { when: &[LoggedOut, InClear], enhanced: &["7.57"], ..advise(It(LOGIN_FIRST)) },
    Row { when: &[LoggedOut, InClear], words: LOGIN_WANTED, ..advise(It(LOGIN_FIRST)) },

    // Quotas and rates.
    Row { words: &["greylist", "graylist", "grey-list"],
        ..advise(It("The server refuses mail from a new sender at first (greylisting): try again \
            in some minutes, from the same machine and with the same sender.")) },
    Row { codes: &["4"], words: &["address verification in progress"],
        ..advise(It("The server is asking whether the address exists: try again in some \
            minutes.")) },
    Row { words: &["per hour", "hourly"],
        ..advise(It("The limit for an hour is used up: wait until it is over, then send more \
            slowly, or have it raised.")) },
    Row { codes: &["5"], enhanced: &["4.5", "1.90"], ..advise(It(QUOTA)) },
    Row { words: &["sending limit", "daily limit", "daily message", "daily user", "daily quota",
        "daily sending", "submissionquota", "per day", "queue quota"], ..advise(It(QUOTA)) },

    Row { phases: MESSAGE, codes: &["4"], words: RECEIVES_TOO_MUCH,
        ..advise(It("The recipient gets more mail than its mailbox takes in this time: try again \
            later.")) },
    Row { phases: MESSAGE, codes: &["5"], words: RECEIVES_TOO_MUCH,
        ..advise(It("The recipient gets more mail than its mailbox takes in this time: wait some \
            hours, or reach the recipient another way.")) },

    // The sender's own mailbox.
    Row { phases: MAIL, enhanced: &["2.2"], ..advise(It(SENDER_FULL)) },
    Row { phases: MAIL, words: MAILBOX_FULL, ..advise(It(SENDER_FULL)) },
    Row { phases: MAIL, enhanced: &["2.1"], ..advise(It(SENDER_OFF)) },
    Row { when: LOGGED_IN, phases: RECIPIENTS, enhanced: &["2.2"], words: OWN_ACCOUNT,
        ..advise(It(SENDER_FULL)) },
    Row { when: LOGGED_IN, phases: RECIPIENTS, enhanced: &["2.1"], words: OWN_ACCOUNT,
        ..advise(It(SENDER_OFF)) },
    Row { when: LOGGED_IN, phases: CONTENT, enhanced: &["2.2"], words: &["account is",
        "account has"], ..advise(It(SENDER_FULL)) },
    Row { when: LOGGED_IN, phases: CONTENT, enhanced: &["2.1"], words: &["account is",
        "account has"], ..advise(It(SENDER_OFF)) },
    // A full mailbox or server, before rates.
    Row { phases: RECIPIENTS, codes: &["4"], enhanced: &["2.2"], ..advise(It(FULL_FOR_NOW)) },
    Row { phases: RECIPIENTS, codes: &["5"], enhanced: &["2.2"], ..advise(It(FULL)) },
    Row { phases: RECIPIENTS, codes: &["4"], words: MAILBOX_FULL, ..advise(It(FULL_FOR_NOW)) },
    Row { phases: RECIPIENTS, codes: &["5"], words: MAILBOX_FULL, ..advise(It(FULL)) },
    Row { phases: RCPT, codes: &["5"], words: &["storage allocation"], ..advise(It(FULL)) },
    Row { codes: &["4"], enhanced: &["3.1"], ..advise(It(NO_ROOM)) },
    Row { codes: &["4"], words: &["insufficient system", "insufficient disk",
        "insufficient storage", "not enough disk", "not enough space", "no space left", "disk full",
        "out of disk", "out of storage", "system full"], ..advise(It(NO_ROOM)) },
    // RFC 5321, 4.5.3.1.10.
    Row { when: &[OneRecipient], phases: RCPT, codes: &["450", "451", "452", "5"],
        enhanced: &["5.3"], ..advise(It(NO_MORE_RECIPIENTS)) },
    Row { when: &[OneRecipient], phases: RCPT, codes: &["450", "451", "452", "5"],
        words: &["too many recipients", "recipient limit", "maximum recipients"],
        ..advise(It(NO_MORE_RECIPIENTS)) },
    Row { phases: RCPT, enhanced: &["5.3"], words: &["recipient"], ..advise(It(FEWER_RECIPIENTS)) },
    Row { phases: &[Phase::Rcpt, Phase::Data], codes: &["450", "451", "452", "5"],
        words: &["too many recipients", "recipient limit", "maximum recipients"],
        ..advise(It(FEWER_RECIPIENTS)) },
    Row { codes: &["5"], enhanced: &["4.6", "4.14"], ..advise(It(LOOP)) },
    Row { codes: &["5"], words: &["too many hops", "hop count", "mail loop", "routing loop",
        "loop detected"], ..advise(It(LOOP)) },
    Row { codes: &["4"], words: TOO_MUCH, ..advise(It(TOO_OFTEN_FOR_NOW)) },
    Row { codes: &["5"], words: TOO_MUCH, ..advise(It(TOO_OFTEN)) },

    // The recipient.
    Row { codes: &["556"], ..advise(It(TAKES_NO_MAIL)) },
    Row { codes: &["5"], words: &["does not accept mail", "does not accept email"],
        ..advise(It(TAKES_NO_MAIL)) },
    Row { phases: RCPT, enhanced: &["1.2"], ..advise(It(RECIPIENT_DOMAIN)) },
    Row { phases: RCPT, words: &["recipient address rejected: domain not found", "recipient domain",
        "host or domain name not found", "domain does not exist", "no such domain"],
        ..advise(It(RECIPIENT_DOMAIN)) },
    Row { phases: RCPT, codes: &["5"], enhanced: &["1.10"], ..advise(It(NO_MAILBOX)) },
    Row { phases: MESSAGE, codes: &["5"], enhanced: &["4.1"], words: &["recipient address",
        "recipient addresses"], ..advise(It(NO_MAILBOX)) },
    Row { phases: RCPT, codes: &["5"], words: NO_SUCH_MAILBOX, ..advise(It(NO_MAILBOX)) },
    Row { phases: CONTENT, codes: &["5"], words: &["non-existent account"],
        ..advise(It(NO_MAILBOX)) },
    Row { when: LOGGED_IN, phases: MESSAGE, codes: RELAY_CODES, words: RELAYING,
        ..advise(It(RELAY_LOGGED_IN)) },
    Row { when: MX, phases: MESSAGE, codes: RELAY_CODES, words: RELAYING,
        ..advise(It(MX_RELAY)) },
    Row { when: LOGGED_OUT, phases: MESSAGE, codes: RELAY_CODES, words: RELAYING,
        ..advise(It(RELAY)) },
    Row { phases: RCPT, codes: &["5"], enhanced: &["1.3"], ..advise(It(RECIPIENT_SYNTAX)) },
    Row { phases: RCPT, codes: &["501"], ..advise(It(RECIPIENT_SYNTAX)) },
    Row { phases: RCPT, codes: &["5"], enhanced: &["1.6"],
        ..advise(It("The recipient has moved, and mail is not forwarded: ask for the new \
            address.")) },
    Row { phases: RCPT, codes: &["551"],
        ..advise(It("The recipient is not at this server; its words may name the right address or \
            server.")) },
    Row { phases: RECIPIENTS, codes: &["5"], enhanced: &["2.1"], ..advise(It(SWITCHED_OFF)) },
    Row { phases: RCPT, codes: &["5"], words: &["is disabled", "inactive", "suspended",
        "deactivated", "no longer"], ..advise(It(SWITCHED_OFF)) },

    // The sender's address.
    Row { words: &["sender verify", "verification failed", "callout", "callback",
        "sender address rejected: undeliverable", "sender address rejected: unverified",
        "unroutable sender"],
        ..advise(It("The server asked whether mail can be returned to the sender, and it cannot: \
            use a sender address that exists and gets mail.")) },
    Row { codes: &["5"], words: &["badmailfrom", "banned sender", "sender is blocked",
        "sender blocked", "sender blacklisted", "blocked sender"],
        ..advise(It("The server takes nothing from this sender's address: ask its administrator, \
            or the recipient, why.")) },
    Row { when: LOGGED_IN, phases: MAIL, codes: &["5"], enhanced: &["1.7"], ..advise(It(SENDER)) },
    Row { when: LOGGED_IN, phases: MAIL, codes: &["501"], ..advise(It(SENDER)) },
    Row { when: LOGGED_OUT, phases: MAIL, codes: &["5"], enhanced: &["1.7"],
        ..advise(It(SENDER_LOGGED_OUT)) },
    Row { when: LOGGED_OUT, phases: MAIL, codes: &["501"], ..advise(It(SENDER_LOGGED_OUT)) },

    // The message.
    Row { codes: &["5"], enhanced: &["3.4"], ..advise(It(TOO_LARGE)) },
    Row { phases: SIZED, codes: &["552"], enhanced: &["", "2.3"], ..advise(It(TOO_LARGE)) },
    Row { phases: SIZED, codes: &["5"], words: &["message too large", "message too big",
        "message size", "size limit", "message is too large"], ..advise(It(TOO_LARGE)) },
    Row { enhanced: &["6.11"], ..advise(It(LINE_ENDS)) },
    Row { words: &["bare lf", "bare <lf>", "bare cr", "bare <cr>", "bare linefeed",
        "bare line feed", "bare newline", "smtplf"], ..advise(It(LINE_ENDS)) },
    Row { codes: &["5"], enhanced: &["6.1", "6.3"],
        ..advise(It("A server on the way does not take text beyond ASCII: encode the message's \
            parts as quoted-printable or base64.")) },
    Row { codes: &["5"], words: &["rfc 5322", "rfc5322", "rfc compliant", "from: header",
        "message-id", "missing header", "duplicate header", "header are not", "headers are not",
        "invalid header"],
        ..advise(It("The server does not take the message's header section as it is: its words say \
            which header is missing or wrong.")) },
    Row { codes: &["5"], enhanced: &["7.512"],
        ..advise(It("The server does not take the message's header section as it is: its words say \
            which header is missing or wrong.")) },
    Row { codes: &["5"], words: &["security issue", "attachment", "executable"],
        ..advise(It("The server does not take such an attachment (a program, or an archive with \
            one, as a rule): put it where it can be fetched from.")) },
    Row { codes: &["5"], words: &["spam", "antispam", "content filter", "unsolicited", "virus",
        "content denied", "banned content"], ..advise(It(FILTERED)) },

    Row { when: MX, codes: &["5"], enhanced: &["7.1"],
        words: &["client host rejected: access denied"], ..advise(It(MX_REFUSES)) },
    // Postfix on a submission port, without a login.
    Row { when: &[LoggedOut, Lmtp], codes: &["5"], enhanced: &["7.1"],
        words: &["client host rejected: access denied"], ..advise(It(ADDRESS_BLOCKED)) },
    Row { when: &[LoggedOut, InClear], codes: &["5"], enhanced: &["7.1"],
        words: &["client host rejected: access denied"], ..advise(It(LOGIN_FIRST)) },
    Row { when: &[LoggedOut, InTls, NoLoginOffered], codes: &["5"], enhanced: &["7.1"],
        words: &["client host rejected: access denied"], ..advise(It(LOGIN_ELSEWHERE)) },
    Row { when: &[LoggedOut, InTls], codes: &["5"], enhanced: &["7.1"],
        words: &["client host rejected: access denied"], ..advise(It(LOGIN_FIRST_IN_TLS)) },

    // Everything else.
    Row { codes: &["421"],
        ..advise(It("The server is busy or going down, or it limits this client: try again later, \
            over a new connection.")) },
    Row { codes: &["4"],
        ..advise(It("It is a refusal for the moment: try again later. If it lasts, ask the \
            server's administrator.")) },
    Row { phases: RCPT, codes: &["5"],
        ..advise(It("The server's words say why it takes no mail for this address from here. If \
            they do not, ask its administrator.")) },
    Row { codes: &["5"],
        ..advise(It("The server's words say why, and the same will be refused again. If they do \
            not say enough, ask its administrator.")) },
];

const SPAM_SENT: &[&str] = &[
    "bad outbound sender",
    "spam abuse detected",
    "unusual sending activity",
    "suspicious sending activity",
    "account has been blocked from sending",
    "blocked for spamming",
];
const CONNECTIONS: &[&str] = &[
    "too many connections",
    "too many concurrent",
    "too many simultaneous",
    "too many open connections",
    "too many sessions",
    "concurrent connections",
    "concurrent connection limit",
    "connection limit",
    "maximum number of connections",
    "connection rate limit",
];
/// The network may not send mail directly.
const NOT_DIRECTLY: &[&str] = &[
    "using to send mail is not authorized",
    "relay at your service provider",
    "not authorized to send email directly",
    "not authorized to send mail directly",
];
const RECEIVES_TOO_MUCH: &[&str] = &[
    "receiving mail too quickly",
    "receiving mail at a rate",
    "receiving too much mail",
];
const OWN_ACCOUNT: &[&str] = &[
    "your account",
    "your mailbox",
    "your own mailbox",
    "sender's",
];
const STARTTLS_WANTED: &[&str] = &[
    "issue a starttls",
    "issue starttls",
    "starttls is required",
    "starttls required",
    "starttls first",
    "starttls command first",
    "requires starttls",
    "require starttls",
    "use starttls",
    "must starttls",
    "need starttls",
];
const TLS_WANTED: &[&str] = &[
    "encryption required",
    "encryption needed",
    "encryption is required",
    "requires encryption",
    "requires tls",
    "require tls",
    "tls required",
    "tls is required",
    "must use tls",
    "to use tls",
    "please use tls",
    "use ssl",
    "ssl required",
    "non-secure",
    "plaintext authentication disallowed",
    "secure connection",
    "encrypted connection",
    "must be encrypted",
    "tls first",
];
const LOGIN_WANTED: &[&str] = &[
    "authentication required",
    "authentication is required",
    "auth required",
    "authorization required",
    "must authenticate",
    "authenticate first",
    "need to authenticate",
    "please authenticate",
    "not authenticated",
    "send auth",
    "auth first",
    "auth command first",
    "unauthenticated sender",
    "turn on smtp authentication",
    "not logged in",
    "log in first",
    "login first",
    "login required",
    "must log in",
    "must login",
];
const BLOCK_LISTED: &[&str] = &[
    "blocked using",
    "block list",
    "block listed",
    "blocklist",
    "blacklist",
    "black list",
    "spamhaus",
    "dnsbl",
    "listed in the rbl",
    "banned sending ip",
    "reputation",
    "dynamic ip",
    "spams from your ip",
    "traffic not accepted from this ip",
    "ip address is not allowed",
];
const NAMELESS: &[&str] = &[
    "ptr resource",
    "ptr record",
    "reverse dns",
    "reverse hostname",
    "your hostname",
    "reverse lookup",
    "rdns",
    "ip name lookup",
];
/// The sender is not the login's address.
const OTHER_SENDER: &[&str] = &[
    "not owned by",
    "sendasdenied",
    "permissions to send as",
    "not allowed to send as",
    "permission to send as",
    "not authorized to send as",
    "not authorised to send from",
    "not authorized to send from",
    "not permitted to send from",
    "must match the authenticated",
    "does not match authenticated",
    "not match the authenticated",
    "not one of your addresses",
    "must equal authorized user",
    "same as authorization user",
    "same as authorized user",
    "must be the same as",
    "not local sender",
    "sender address is not allowed",
    "sender address not allowed",
    "sender not allowed",
    "sender mismatch",
    "unknown sender address",
    "local user only",
    "does not match alias",
    "not match any alias",
];
const UNVERIFIED: &[&str] = &[
    "is not verified",
    "address not verified",
    "verified sender identity",
    "sender signature",
    "sender not valid",
    "unconfigured sending domain",
    "not validated",
    "validate your sender",
    "sender is not valid",
    "domain not verified",
    "unverified domain",
    "unverified sender",
];
const TOO_MUCH: &[&str] = &[
    "too many",
    "too much",
    "too fast",
    "too quickly",
    "at a rate",
    "unusual rate",
    "rate limit",
    "ratelimit",
    "limit exceeded",
    "limit reached",
    "rate exceeded",
    "sending rate",
    "server busy",
    "frequency limited",
    "excessive volume",
    "unexpected volume",
    "throttl",
    "slow down",
    "max message per connection",
];
const RELAYING: &[&str] = &["relay", "rcpthosts", "not a gateway", "non-local"];
const MAILBOX_FULL: &[&str] = &[
    "over quota",
    "overquota",
    "quota exceeded",
    "quota is exceeded",
    "exceeded quota",
    "mailbox full",
    "mailbox is full",
    "full mailbox",
    "mailbox size limit",
    "over the quota",
    "inbox is out of storage",
    "storage allocation. quota",
    "disk quota",
    "mailbox for user is full",
    "user quota",
];
const NO_SUCH_MAILBOX: &[&str] = &[
    "user unknown",
    "unknown user",
    "no such user",
    "no such recipient",
    "recipient not found",
    "no such mailbox",
    "mailbox not found",
    "does not exist",
    "doesn't exist",
    "unknown recipient",
    "recipient unknown",
    "invalid recipient",
    "invalid mailbox",
    "no mailbox",
    "user not found",
    "not a valid mailbox",
    "addressee unknown",
    "unknown address",
    "address unknown",
    "undeliverable address",
    "badrcptto",
    "not listed in domino",
    "not listed in public name",
    "non-existent account",
    "no account",
    "no such address",
    "not a known user",
    "user doesn't have",
];

const WANTS_TLS: &str = "The server wants TLS first";
const LOGIN_WANTS_TLS: &str = "The server takes this login only inside TLS";
const TLS_UNSEEN: &str = "The server takes this connection for one in clear, though TLS is active: \
    what ends TLS before it (a proxy, a load balancer) does not tell it. Connect to the server \
    itself, or have its administrator correct that.";
const MX_LOGIN: &str = "The server takes mail from those alone who log in, and so is not one for \
    mail from other domains: the domain's MX records name the wrong one. Tell the domain's \
    postmaster by other means.";
const MX_RELAY: &str = "The server takes no mail for the domain of the recipient, though the \
    domain's MX records name it: tell the domain's postmaster by other means.";
const MX_REFUSES: &str = "The server refuses mail from this machine, and its words say why. As a \
    rule, the machine's address is on a block list, is one of a home or cloud network, or has no \
    name in the DNS (PTR).";
const MX_SENDER: &str = "The server takes this sender from its own users alone: use a sender of \
    a domain of your own.";
const LOGIN_FIRST: &str = "The server wants a login first: give a user name and a password, and \
    use TLS (smtp:// with STARTTLS on port 587, or smtps:// on port 465).";
const LOGIN_FIRST_IN_TLS: &str = "The server wants a login first: give a user name and a password.";
const LOGIN_ELSEWHERE: &str = "The server wants a login first, and offers none here: use its \
    submission port (587 or 465), and give a user name and a password.";
const NO_LOGIN: &str = "The server wants a login first, and offers none: ask its administrator, or \
    use another server.";
const LOGIN_DOES_NOT_COUNT: &str = "The login succeeded, and the server asks for one nevertheless: \
    ask its administrator whether this account may send here, and as this sender.";
const MEMBERS_ONLY: &str = "The recipient takes mail from certain senders alone (the members of \
    its organization or list, as a rule): have this sender allowed, by the recipient or its \
    administrator.";
const BARRED: &str = "The account was barred from sending, as spam came from it or its use was \
    unusual: find out what sent it, change the password, and have the account's administrator lift \
    the block (at Microsoft, in the list of restricted entities).";
const SENDER_BARRED: &str = "The sender was barred from sending, as spam came from its address or \
    domain: its administrator must find out what sent it, and have the block lifted (at Microsoft, \
    in the list of restricted entities).";
const NO_CONNECTOR: &str = "The server found no connector for this client: the organization's \
    administrator must \
            set one up for this machine's network address or certificate, and for the sender's \
            domain.";
const DIRECT_SEND: &str = "The organization takes no mail from its own domains without a login or \
    a connector (Direct Send is switched off): send through its submission server, or have its \
    administrator set up a connector for this machine's network address or certificate.";
const REGISTER: &str = "The relay knows its clients by the network address that is registered with \
    it, or by a login: have the address that you send from registered for the sender's domain, or \
    give a user name and a password.";
const REGISTER_LOGGED_IN: &str = "The relay does not take the sender's domain for this account or \
    this network address: have both registered with it for that domain.";
const NO_DIRECT_MAIL: &str = "The server takes no mail directly from the network address that you \
    send from, which is one of a home or cloud network as a rule: send through your provider's \
    submission server (port 587, with a login).";
const ADDRESS_BLOCKED: &str = "The server does not let the network address that you send from in. \
    It may have blocked it after wrong logins: if so, wait some hours. If not, ask its \
    administrator whether this network may connect.";
const TOO_OFTEN_FOR_NOW: &str = "It was too much in too short a time: try again later, then send \
    more slowly and over \
            fewer connections.";
const TOO_OFTEN: &str = "It was too much in too short a time: wait some hours, then send more \
    slowly and over \
            fewer connections.";
const NO_LOGIN_HERE: &str = "The server takes no login here: ask its administrator, or leave the \
    credentials out.";
const REQUIRETLS: &str = "The message is to go by TLS alone, all the way (REQUIRETLS), and the \
    next server does not promise that: send it without this demand, or another way.";
const SENDER_FULL: &str = "The sender's own mailbox is full, and the server sends nothing for it \
    before there is room: delete something in it, or have its quota raised.";
const SENDER_OFF: &str = "The sender's own account is switched off or may not send: ask its \
    administrator.";
const FILTERED: &str = "A filter takes the message for unwanted: look at its subject, links and \
    attachments. \
            If it is wrong, the server's administrator can let such mail pass.";
const CREDITS: &str = "The quota of the account is used up: wait until it is renewed, or have it \
    raised at the provider. The password is not the reason.";
const APP_PASSWORD: &str = "The account needs a password made for programs (an app password): \
    create one in the account's security settings, and give it in place of the usual one.";
const NO_BASIC_AUTH: &str = "Logins with a password are switched off here (basic authentication, \
    SMTP AUTH): an administrator must allow SMTP AUTH for this mailbox or the whole tenant, or the \
    mail must go another way (OAuth 2, another server).";
const LOCKED: &str = "The account is switched off or locked: ask its administrator.";
const WRONG_PASSWORD: &str = "Check user name and password. Many servers want the whole mail \
    address as the user name, and some a password that is made for programs (an app password) or \
    for SMTP alone.";
const OTHER_MECHANISM: &str = "The server does not take this mechanism for this account: choose \
    another one that it offers (auth= in the URL), or ask its administrator which.";
const CLIENT_NAME: &str = "The server does not like the name that this client gives itself: give \
    this machine's full name, as DNS has it (helo= in the URL, Endpoint::client_name, \
    MxClient::client_name).";
const ON_BLOCK_LIST: &str = "The network address that you send from is on a block list: find out \
    why in the list that the server names, and have it removed. From a home or cloud network, send \
    through your provider's submission server (port 587, with a login) instead.";
const ON_BLOCK_LIST_LOGGED_IN: &str = "The network address that the mail comes from is on a block \
    list: find out why in the list that the server names, and have it removed. If it is the \
    server's own address, its administrator must do so.";
const NO_NAME: &str = "The network address that you send from has no name in DNS, or one that does \
    not lead back to it: have its reverse entry (PTR) set by the provider of the address, or send \
    through your provider's submission server (port 587, with a login).";
const NO_NAME_LOGGED_IN: &str = "The network address that the mail comes from has no name in DNS, \
    or one that does not lead back to it: have its reverse entry (PTR) set by the provider of the \
    address.";
const SEND_AS: &str = "This login may not send as this sender: use the login's own address as \
    sender, or have the right to send as the other one granted.";
const SEND_AS_HEADER: &str = "This login may not send as this sender. The envelope has the login's \
    own address, so look at the From header of the message: it must be the same address, or one \
    that the login was granted.";
const SENDER_OF_A_LOGIN: &str = "Without a login, the server does not take this sender: give the \
    user name and the password of the sender's account, or use another sender.";
const VERIFY_SENDER: &str = "The provider sends only for addresses and domains that were verified \
    with it: verify the one that its words name (the sender; with an account on trial, the \
    recipient, too), in the region that you connect to, or use one that is verified.";
const VOUCH: &str = "The sender's domain does not vouch for mail that comes this way (SPF, DKIM, \
    DMARC): send through the server that is meant for the domain, or have this one named in its \
    DNS (SPF) and the mail signed (DKIM).";
const SENDER: &str = "The server does not take this address as a sender: check its spelling, and \
    whether this login may use it.";
const SENDER_LOGGED_OUT: &str = "The server does not take this address as a sender: check its \
    spelling.";
const SENDER_DOMAIN: &str = "The domain of the sender's address was not found in DNS: check its \
    spelling, or have its DNS entries put in order.";
const QUOTA: &str = "The limit for a day is used up: wait until it is over, or have it raised.";
const FULL_FOR_NOW: &str = "The recipient's mailbox is full: try again later. If it stays full, \
    only its owner can change that.";
const FULL: &str = "The recipient's mailbox is full: only its owner can change that. Reach the \
    recipient another way.";
const NO_ROOM: &str = "The server has no room for the message at the moment: try again later, and \
    tell its administrator if that lasts.";
const NO_MORE_RECIPIENTS: &str = "The server takes no further recipient for now, though the \
    message has only one: it counts them over several messages. Wait, then send to fewer in that \
    time.";
const FEWER_RECIPIENTS: &str =
    "The server takes fewer recipients in one message: send it to the others in another message.";
const RELAY: &str = "The server takes mail for other domains only from those who log in: give a \
    user name and a password, or use the server that is meant for sending.";
const RELAY_LOGGED_IN: &str = "The login succeeded, and the server does not send mail to this \
    recipient for it: use the login's own address as sender, or ask the server's administrator \
    whether this login may send there.";
const TAKES_NO_MAIL: &str = "The domain takes no mail at all, as its DNS entries say (null MX): \
    check the address that the server's words name.";
const RECIPIENT_DOMAIN: &str = "The domain of the recipient's address was not found in DNS: check \
    its spelling.";
const RECIPIENT_SYNTAX: &str =
    "The server does not take this as an address: check the spelling of the recipient's address.";
const NO_MAILBOX: &str = "There is no such mailbox: check the spelling of the recipient's address.";
const SWITCHED_OFF: &str = "The recipient's mailbox is switched off: reach the recipient another \
    way, or ask the administrator of the mailbox.";
const TOO_LARGE: &str = "The message is larger than the server takes: send less, or put the \
    attachment where it can be fetched from.";
const LINE_ENDS: &str = "Some line does not end with CRLF as it reaches the server. envoi ends \
    every line so: a filter or proxy on this side may change it. Encode the message's parts as \
    quoted-printable or base64, and nothing can.";
const LOOP: &str = "The mail goes in circles between servers: the administrator of the recipient's \
    domain must correct where it is forwarded to.";
const MISCONFIGURED: &str = "The server is not set up as it should be: show its words to its \
    administrator.";
