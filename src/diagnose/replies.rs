//! What servers say when they refuse, and what to do about each.
//!
//! The words are those of Postfix, Exim, Sendmail, qmail, Domino, Dovecot, Exchange, and of the
//! large providers.

use super::refusal::Say::{self, It, UseTls};
use super::refusal::When::{self, *};
use crate::error::Phase;

/// What must hold besides the reply (none: nothing); phases (none: all); how the code begins;
/// enhanced codes without their class (none: any; "" for a reply without one); words, of which one
/// must be there (none: whatever it says); the advice.
pub(super) struct Row(
    pub(super) &'static [When],
    pub(super) &'static [Phase],
    pub(super) &'static [&'static str],
    pub(super) &'static [&'static str],
    pub(super) &'static [&'static str],
    pub(super) Say,
);

const ALWAYS: &[When] = &[];
const CLEAR: &[When] = &[InClear];
const TLS: &[When] = &[InTls];
const LOGGED_IN: &[When] = &[LoggedIn];
const LOGGED_OUT: &[When] = &[LoggedOut];
const LOGGED_OUT_OF_SMTP: &[When] = &[LoggedOut, Smtp];
const RELAY_CODES: &[&str] = &["450", "451", "452", "454", "5"];

const ANY: &[Phase] = &[];
const HELLO: &[Phase] = &[Phase::Hello];
const AUTH: &[Phase] = &[Phase::Auth];
const GREETING: &[Phase] = &[Phase::Greeting];
const STARTTLS: &[Phase] = &[Phase::StartTls];
const MAIL: &[Phase] = &[Phase::Mail];
const RCPT: &[Phase] = &[Phase::Rcpt];
/// The commands that come after EHLO and STARTTLS.
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

/// The particular before the general; in small letters.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // TLS first.
    Row(TLS, HELLO, &["530"], &[], &["starttls"], It(TLS_UNSEEN)),
    Row(&[InClear, Lmtp], HELLO, &["530"], &[], &["starttls"],
        It("The server answers nothing before TLS, not even LHLO, without which there is no \
        STARTTLS: have its administrator correct that.")),
    Row(CLEAR, HELLO, &["530"], &[], &["starttls"],
        It("The server answers nothing before TLS, not even EHLO, without which there is no \
            STARTTLS: use smtps:// (port 465), or have its administrator correct that.")),
    // Exchange has 451 5.7.3 for it.
    Row(CLEAR, COMMANDS, &["4", "5"], &[], STARTTLS_WANTED, UseTls(WANTS_TLS)),
    Row(CLEAR, AUTH, &["538"], &[], &[], UseTls(LOGIN_WANTS_TLS)),
    Row(CLEAR, AUTH, &["4", "5"], &["7.10", "7.11"], &[], UseTls(LOGIN_WANTS_TLS)),
    Row(CLEAR, AUTH, &["4", "5"], &[], TLS_WANTED, UseTls(LOGIN_WANTS_TLS)),
    Row(CLEAR, COMMANDS, &["4", "5"], &["7.10", "7.29"], &[], UseTls(WANTS_TLS)),
    Row(CLEAR, COMMANDS, &["4", "5"], &[], TLS_WANTED, UseTls(WANTS_TLS)),
    Row(TLS, AUTH, &["538"], &[], &[], It(TLS_UNSEEN)),
    Row(TLS, COMMANDS, &["4", "5"], &["7.10", "7.11", "7.29"], &[], It(TLS_UNSEEN)),
    Row(TLS, COMMANDS, &["4", "5"], &[], STARTTLS_WANTED, It(TLS_UNSEEN)),
    Row(TLS, COMMANDS, &["4", "5"], &[], TLS_WANTED, It(TLS_UNSEEN)),
    Row(&[Lmtp], HELLO, &["500", "502", "504", "530"], &[], &[],
        It("This may be a server that does not speak LMTP: check the host and the port.")),
    Row(ALWAYS, HELLO, &["500", "502", "504", "530"], &[], &[],
        It("This may be no mail server (an FTP server greets with 220, too), or one that speaks \
            LMTP (lmtp://): check the host and the port.")),
    // Postfix ends the handshake without the certificate, and says so to EHLO.
    Row(ALWAYS, ANY, &["4", "5"], &[], &["client certificate"],
        It("Get a client certificate that the server's administrator accepts, and give it \
            (TlsSettings::client_certificate). If you gave one, look at its dates and its \
            issuer.")),

    // STARTTLS.
    Row(ALWAYS, STARTTLS, &["5"], &[], &["already"],
        It("The server takes this connection for one inside TLS: a tunnel or proxy between has \
            probably added TLS. Connect to the server itself. Only where the tunnel begins on this \
            very machine, tls=none leaves TLS to it.")),
    Row(ALWAYS, STARTTLS, &["4"], &[], &[],
        It("The server's TLS is out of order: try again later. If it lasts, its administrator must \
            look at its certificate, key and log.")),
    Row(&[Lmtp], STARTTLS, &["5"], &[], &[],
        It("The server offers STARTTLS and refuses it: its administrator must put it in order.")),
    Row(ALWAYS, STARTTLS, &["5"], &[], &[],
        It("Use smtps:// (port 465) if the server has that; else its administrator must put \
            STARTTLS in order.")),

    // Sure, whatever else the reply says.
    Row(ALWAYS, RCPT, &["5"], &["1.1"], &[], It(NO_MAILBOX)),

    // A recipient for some senders alone.
    Row(ALWAYS, MESSAGE, &["4", "5"], &["7.12", "7.120", "7.121", "7.122", "7.123", "7.124",
        "7.125", "7.126", "7.127", "7.128", "7.129",
        "7.130", "7.131", "7.132", "7.133", "7.134", "7.135", "7.136"], &[], It(MEMBERS_ONLY)),
    Row(ALWAYS, MESSAGE, &["5"], &[], &["members-only", "not allowed to post",
        "closed mailing list", "allowed-senders list",
        "only accepting mail from specific", "restricted to members"], It(MEMBERS_ONLY)),

    // The account.
    Row(LOGGED_IN, ANY, &["4", "5"], &["7.501", "7.502", "7.503"], &[], It(BARRED)),
    Row(LOGGED_OUT, ANY, &["4", "5"], &["7.501", "7.502", "7.503"], &[], It(SENDER_BARRED)),
    Row(LOGGED_IN, ANY, &["4", "5"], &[], SPAM_SENT, It(BARRED)),
    Row(LOGGED_OUT, ANY, &["4", "5"], &[], SPAM_SENT, It(SENDER_BARRED)),
    Row(ALWAYS, MESSAGE, &["4", "5"], &[], &["sending suspended", "sending is suspended",
        "sending paused", "sending is paused", "sending has been paused",
        "sending has been suspended", "sending is disabled", "account suspended",
        "your account has been suspended", "your account is suspended"],
        It("The provider has stopped sending for this account: look for the reason in what it \
        wrote to the account's owner, and have the account allowed to send again.")),
    Row(ALWAYS, MESSAGE, &["4", "5"], &[], &["not authorized to perform"],
        It("The credentials do not include the right to send as this sender (at Amazon SES: \
        ses:SendRawEmail, for its identity): the account's administrator must grant it.")),
    Row(LOGGED_OUT, ANY, &["4", "5"], &["7.68"], &[], It(DIRECT_SEND)),
    Row(LOGGED_OUT, ANY, &["4", "5"], &[], &["direct send not allowed"], It(DIRECT_SEND)),
    Row(LOGGED_IN, ANY, &["4", "5"], &["7.68"], &[], It(NO_CONNECTOR)),
    Row(ALWAYS, ANY, &["4", "5"], &["7.705"], &[],
        It("The whole organization may not send for now, as too much of its mail looked like spam, \
            or there was too much of it: its administrator must find the cause, and then have the \
            block lifted by the provider.")),
    Row(ALWAYS, ANY, &["4", "5"], &["7.708"], &[],
        It("The provider does not let this organization send from this network address yet: it is \
            a new or trial tenant as a rule, or one that sent spam. Its administrator must have \
            the block lifted by the provider's support.")),
    Row(ALWAYS, ANY, &["4", "5"], &["7.750"], &[],
        It("The organization sent too much from domains that are not registered with it: its \
            administrator must register the sender's domain, and then have the block lifted by the \
            provider's support.")),
    Row(ALWAYS, ANY, &["4", "5"], &["7.64", "7.51"], &[],
        It(NO_CONNECTOR)),
    Row(ALWAYS, ANY, &["4", "5"], &[], &["test purposes only", "authorized recipients",
        "activate your", "sandbox"],
        It("The account is on trial or not activated: activate it, add a domain of your own and \
            verify that, or send to the recipients alone that its settings name as allowed.")),
    Row(ALWAYS, ANY, &["4", "5"], &[], &["credits exceeded", "out of credit", "not enough credit",
        "no credits", "insufficient credits",
        "exceeded your messaging limit", "plan limit", "quota of your plan"], It(CREDITS)),

    // Google's relay, which speaks of EHLO, too.
    Row(LOGGED_OUT, ANY, &["4", "5"], &[], &["credentials for relay"], It(REGISTER)),
    Row(LOGGED_IN, ANY, &["4", "5"], &[], &["credentials for relay"], It(REGISTER_LOGGED_IN)),

    // The name in EHLO. Google's relay refuses it with 421, and says (EHLO).
    Row(ALWAYS, HELLO, &["4", "5"], &[], &["(ehlo)", "(helo)", "ehlo argument", "helo argument"],
        It(CLIENT_NAME)),
    Row(ALWAYS, ANY, &["4", "5"], &["7.506"], &[], It(CLIENT_NAME)),
    Row(ALWAYS, ANY, &["4", "5"], &[], &["helo command", "ehlo command", "helo name", "ehlo name",
        "invalid helo", "bad helo", "helo rejected",
        "valid helo", "helo/ehlo", "fqdn required"], It(CLIENT_NAME)),

    // The network address.
    Row(ALWAYS, ANY, &["5"], &[], &["url reputation", "uri reputation", "link reputation",
        "uribl", "surbl"], It(FILTERED)),
    Row(ALWAYS, ANY, &["4", "5"], &[], &["reputation of the sending domain", "spamhaus dbl",
        "domain is listed", "blacklisted domain"],
        It("The sender's domain is on a block list, or has a bad reputation: find out why in the \
            list that the server names, and have it removed.")),
    Row(LOGGED_OUT_OF_SMTP, ANY, &["4", "5"], &[], NOT_DIRECTLY, It(NO_DIRECT_MAIL)),
    Row(ALWAYS, ANY, &["4", "5"], &[], NOT_DIRECTLY, It(ON_BLOCK_LIST_LOGGED_IN)),
    Row(LOGGED_OUT_OF_SMTP, ANY, &["4", "5"], &["7.511"], &[], It(ON_BLOCK_LIST)),
    Row(ALWAYS, ANY, &["4", "5"], &["7.511"], &[], It(ON_BLOCK_LIST_LOGGED_IN)),
    Row(LOGGED_OUT_OF_SMTP, ANY, &["4", "5"], &[], BLOCK_LISTED, It(ON_BLOCK_LIST)),
    Row(ALWAYS, ANY, &["4", "5"], &[], BLOCK_LISTED, It(ON_BLOCK_LIST_LOGGED_IN)),
    Row(LOGGED_OUT_OF_SMTP, ANY, &["4", "5"], &["7.25"], &[], It(NO_NAME)),
    Row(LOGGED_OUT_OF_SMTP, ANY, &["4", "5"], &[], NAMELESS, It(NO_NAME)),
    Row(ALWAYS, ANY, &["4", "5"], &["7.25"], &[], It(NO_NAME_LOGGED_IN)),
    Row(ALWAYS, ANY, &["4", "5"], &[], NAMELESS, It(NO_NAME_LOGGED_IN)),
    Row(ALWAYS, OPENING, &["4", "5"], &[], &["ip address has been blocked",
        "ip address is blocked", "ip has been blocked", "ip is blocked", "ip blocked",
        "ip address blocked", "ip address has been banned", "ip is banned", "ip banned",
        "host is blocked", "blocked ip"], It(ADDRESS_BLOCKED)),
    Row(ALWAYS, OPENING, &["4"], &[], CONNECTIONS, It(TOO_OFTEN_FOR_NOW)),
    Row(ALWAYS, OPENING, &["5"], &[], CONNECTIONS, It(TOO_OFTEN)),
    Row(ALWAYS, AUTH, &["4", "5"], &[], &["client host rejected", "host not allowed",
        "ip not allowed", "ip address not allowed", "not allowed from this ip"], It(ADDRESS_BLOCKED)),
    Row(ALWAYS, &[Phase::Greeting, Phase::Hello], &["5"], &[], TOO_MUCH, It(TOO_OFTEN)),

    // The server, before what it says of others.
    Row(ALWAYS, ANY, &["4", "5"], &["3.5"], &[], It(MISCONFIGURED)),
    Row(ALWAYS, ANY, &["4", "5"], &[], &["configuration error", "misconfigured",
        "license expired"], It(MISCONFIGURED)),

    // The login.
    Row(ALWAYS, AUTH, &["4", "5"], &[], &["application-specific", "application specific",
        "app password", "app-specific", "application password",
        "authorization code", "client authorization password", "parol prilozheniya"],
        It(APP_PASSWORD)),
    Row(ALWAYS, AUTH, &["534", "535"], &["7.9"], &["application"], It(APP_PASSWORD)),
    Row(ALWAYS, AUTH, &["5"], &[], &["web browser"],
        It("The provider wants the account's owner to confirm this login: log in with a browser, \
            then try again. With an app password, made in the account's security settings, it does \
            not ask as a rule.")),
    Row(ALWAYS, AUTH, &["5"], &["7.139"], &["credentials were incorrect"], It(WRONG_PASSWORD)),
    Row(ALWAYS, AUTH, &["5"], &["7.139"], &["disabled"], It(NO_BASIC_AUTH)),
    Row(ALWAYS, AUTH, &["5"], &["7.30"], &[], It(NO_BASIC_AUTH)),
    Row(ALWAYS, AUTH, &["5"], &[], &["basic authentication"], It(NO_BASIC_AUTH)),
    Row(ALWAYS, AUTH, &["5"], &["7.139"], &[],
        It("A rule of the organization stopped this login (conditional access, security defaults, \
            a second factor): its administrator sees which one in the log of sign-ins.")),
    Row(ALWAYS, AUTH, &["5"], &["7.13"], &[], It(LOCKED)),
    Row(ALWAYS, AUTH, &["4", "5"], &[], &["account is disabled", "account disabled",
        "account has been disabled", "account is locked",
        "account locked", "suspended", "user disabled", "user is disabled", "account is blocked",
        "account blocked", "deactivated"], It(LOCKED)),
    Row(ALWAYS, AUTH, &["5"], &[], &["no permission", "does not have access rights",
        "service is not enabled", "smtp is disabled",
        "smtp access is disabled", "not enabled for smtp", "smtp service"],
        It("Sending by SMTP is switched off for this account: switch it on in the account's \
            settings, or have its administrator do so.")),
    Row(ALWAYS, AUTH, &["5"], &[], &["authorization grant"],
        It("The API key that is the password here is wrong, expired or revoked, or may not send \
            mail: make a new one, and give it with the user name that the provider names for it \
            (\"apikey\" at SendGrid).")),
    Row(ALWAYS, AUTH, &["4", "5"], &[], UNVERIFIED,
        It("The account's address is not verified: verify it with the provider, as its mail or \
        its settings say.")),
    Row(ALWAYS, AUTH, &["4", "5"], &[], &["authentication type", "mechanism disabled",
        "mechanism not supported", "mechanism is not supported", "unsupported mechanism",
        "mechanism is disabled", "unrecognized authentication", "mechanism not allowed"],
        It(OTHER_MECHANISM)),
    Row(ALWAYS, AUTH, &["432"], &[], &[],
        It("The server must store the password anew for this mechanism: log in once with PLAIN \
            (auth=PLAIN in the URL), inside TLS.")),
    Row(ALWAYS, AUTH, &["4", "5"], &[], &["too many", "rate limit", "ratelimit", "rate exceeded",
        "limit exceeded", "throttl", "too often", "too frequent"],
        It("There were too many logins, or too many wrong ones: check the password, wait some \
            minutes (or hours), and then log in less often: send many messages over one \
            connection.")),
    Row(ALWAYS, AUTH, &["4"], &[], &["could not authenticate", "bad username",
        "invalid credentials", "credentials invalid", "wrong password",
        "incorrect password"], It(WRONG_PASSWORD)),
    Row(ALWAYS, AUTH, &["4"], &[], &[],
        It("The server cannot check logins at the moment: try again later.")),
    Row(ALWAYS, AUTH, &["504", "534"], &[], &[], It(OTHER_MECHANISM)),
    Row(ALWAYS, AUTH, &["5"], &["7.4", "7.9"], &[], It(OTHER_MECHANISM)),
    Row(&[AboutMechanism], AUTH, &["5"], &[], &[], It(OTHER_MECHANISM)),
    Row(CLEAR, AUTH, &["530"], &[], &[], UseTls(LOGIN_WANTS_TLS)),
    Row(TLS, AUTH, &["530"], &[], &[],
        It("The server wants something else before this login: its words say what. If they do not, \
            ask its administrator.")),
    Row(&[StartTlsUnused], AUTH, &["500", "502", "503"], &[], &[],
        It("The server takes no login here: many take it only inside TLS (leave out tls=none), or \
            on the submission port (587 or 465).")),
    Row(&[Lmtp], AUTH, &["500", "502", "503"], &[], &[], It(NO_LOGIN_HERE)),
    Row(&[OnSubmissionPort], AUTH, &["500", "502", "503"], &[], &[], It(NO_LOGIN_HERE)),
    Row(ALWAYS, AUTH, &["500", "502", "503"], &[], &[],
        It("The server takes no login here: use its submission port (587 or 465), or leave the \
            credentials out.")),
    Row(ALWAYS, AUTH, &["5"], &[], &[], It(WRONG_PASSWORD)),

    // EHLO and the greeting.
    Row(ALWAYS, HELLO, &["5"], &[], &[], It(CLIENT_NAME)),
    Row(&[OnSubmissionPort], GREETING, &["5"], &[], &[],
        It("The server takes no mail from here: check the host. If it is right, ask its \
            administrator whether this network may connect.")),
    Row(&[Lmtp], GREETING, &["5"], &[], &[],
        It("The server takes no mail from here: check the host and the port. If they are right, \
        ask its administrator whether this client may connect.")),
    Row(ALWAYS, GREETING, &["5"], &[], &[],
        It("The server takes no mail from here: check the host and the port. To send, use your \
            provider's submission server (port 587, with a login).")),

    // The sender's domain.
    Row(ALWAYS, ANY, &["4", "5"], &[], &["null mx", "nullmx"], It(TAKES_NO_MAIL)),
    Row(ALWAYS, ANY, &["4", "5"], &[], &["basic authentication"], It(NO_BASIC_AUTH)),
    Row(ALWAYS, MESSAGE, &["4", "5"], &["7.30"], &[], It(REQUIRETLS)),
    Row(ALWAYS, MESSAGE, &["4", "5"], &[], &["requiretls"], It(REQUIRETLS)),
    Row(ALWAYS, ANY, &["4", "5"], &["7.20", "7.21", "7.22", "7.23", "7.24", "7.26", "7.27",
        "7.32", "7.509", "7.515"], &[], It(VOUCH)),
    Row(ALWAYS, ANY, &["4", "5"], &[], &["dmarc", "dkim", "spf fail", "spf check", "spf policy",
        "spf-check", "sender policy framework",
        "unauthenticated email", "authentication checks"], It(VOUCH)),
    Row(ALWAYS, ANY, &["4", "5"], &["1.8"], &[], It(SENDER_DOMAIN)),
    Row(ALWAYS, ANY, &["4", "5"], &[], &["sender address rejected: domain not found",
        "domain of sender address", "invalid dns mx"], It(SENDER_DOMAIN)),

    // The sender that this login may have.
    Row(&[LoggedOut], ANY, &["4", "5"], &[], &["sender address rejected: not logged in"],
        It(SENDER_OF_A_LOGIN)),
    Row(ALWAYS, ANY, &["4", "5"], &[], UNVERIFIED, It(VERIFY_SENDER)),
    Row(LOGGED_OUT, ANY, &["5"], &["7.60", "2.252"], &[], It(SENDER_OF_A_LOGIN)),
    Row(LOGGED_OUT, ANY, &["4", "5"], &[], OTHER_SENDER, It(SENDER_OF_A_LOGIN)),
    Row(&[LoggedIn, SenderIsUser], ANY, &["4", "5"], &[], &["relaying disallowed",
        "relaying not allowed:"], It(SEND_AS_HEADER)),
    Row(LOGGED_IN, ANY, &["4", "5"], &[], &["relaying disallowed",
        "relaying not allowed:"], It(SEND_AS)),
    Row(&[LoggedIn, SenderIsUser], ANY, &["5"], &["7.60", "2.252"], &[], It(SEND_AS_HEADER)),
    Row(&[LoggedIn, SenderIsUser], ANY, &["4", "5"], &[], OTHER_SENDER, It(SEND_AS_HEADER)),
    Row(LOGGED_IN, ANY, &["5"], &["7.60", "2.252"], &[], It(SEND_AS)),
    Row(LOGGED_IN, ANY, &["4", "5"], &[], OTHER_SENDER, It(SEND_AS)),
    Row(LOGGED_IN, &[Phase::Mail, Phase::EndOfData], &["550"], &[""],
        &["request failed; mailbox unavailable"], It(SEND_AS)),

    // A login first.
    Row(LOGGED_IN, MESSAGE, &["530"], &[], &[], It(LOGIN_DOES_NOT_COUNT)),
    Row(LOGGED_IN, MESSAGE, &["4", "5"], &["7.57"], &[], It(LOGIN_DOES_NOT_COUNT)),
    Row(LOGGED_IN, MESSAGE, &["4", "5"], &[], LOGIN_WANTED, It(LOGIN_DOES_NOT_COUNT)),
    Row(&[LoggedOut, Lmtp, NoLoginOffered], ANY, &["530"], &[], &[], It(NO_LOGIN)),
    Row(&[LoggedOut, Lmtp, NoLoginOffered], ANY, &["4", "5"], &["7.57"], &[], It(NO_LOGIN)),
    Row(&[LoggedOut, Lmtp, NoLoginOffered], ANY, &["4", "5"], &[], LOGIN_WANTED, It(NO_LOGIN)),
    Row(&[LoggedOut, Lmtp], ANY, &["530"], &[], &[], It(LOGIN_FIRST_IN_TLS)),
    Row(&[LoggedOut, Lmtp], ANY, &["4", "5"], &["7.57"], &[], It(LOGIN_FIRST_IN_TLS)),
    Row(&[LoggedOut, Lmtp], ANY, &["4", "5"], &[], LOGIN_WANTED, It(LOGIN_FIRST_IN_TLS)),
    Row(&[LoggedOut, InTls, NoLoginOffered, OnSubmissionPort], ANY, &["530"], &[], &[],
        It(NO_LOGIN)),
    Row(&[LoggedOut, InTls, NoLoginOffered, OnSubmissionPort], ANY, &["4", "5"], &[], LOGIN_WANTED,
        It(NO_LOGIN)),
    Row(&[LoggedOut, InTls, NoLoginOffered], ANY, &["530"], &[], &[], It(LOGIN_ELSEWHERE)),
    Row(&[LoggedOut, InTls, NoLoginOffered], ANY, &["4", "5"], &["7.57"], &[], It(LOGIN_ELSEWHERE)),
    Row(&[LoggedOut, InTls, NoLoginOffered], ANY, &["4", "5"], &[], LOGIN_WANTED,
        It(LOGIN_ELSEWHERE)),
    Row(&[LoggedOut, InTls], ANY, &["530"], &[], &[], It(LOGIN_FIRST_IN_TLS)),
    Row(&[LoggedOut, InTls], ANY, &["4", "5"], &["7.57"], &[], It(LOGIN_FIRST_IN_TLS)),
    Row(&[LoggedOut, InTls], ANY, &["4", "5"], &[], LOGIN_WANTED, It(LOGIN_FIRST_IN_TLS)),
    Row(&[LoggedOut, InClear], ANY, &["530"], &[], &[], It(LOGIN_FIRST)),
    Row(&[LoggedOut, InClear], ANY, &["4", "5"], &["7.57"], &[], It(LOGIN_FIRST)),
    Row(&[LoggedOut, InClear], ANY, &["4", "5"], &[], LOGIN_WANTED, It(LOGIN_FIRST)),

    // How much and how often.
    Row(ALWAYS, ANY, &["4", "5"], &[], &["greylist", "graylist", "grey-list"],
        It("The server refuses mail from a new sender at first (greylisting): try again in some \
            minutes, from the same machine and with the same sender.")),
    Row(ALWAYS, ANY, &["4"], &[], &["address verification in progress"],
        It("The server is asking whether the address exists: try again in some minutes.")),
    Row(ALWAYS, ANY, &["4", "5"], &[], &["per hour", "hourly"],
        It("The limit for an hour is used up: wait until it is over, then send more slowly, or \
            have it raised.")),
    Row(ALWAYS, ANY, &["5"], &["4.5", "1.90"], &[], It(QUOTA)),
    Row(ALWAYS, ANY, &["4", "5"], &[], &["sending limit", "daily limit", "daily message",
        "daily user", "daily quota",
        "daily sending", "submissionquota", "per day", "queue quota"], It(QUOTA)),

    Row(ALWAYS, MESSAGE, &["4"], &[], RECEIVES_TOO_MUCH,
        It("The recipient gets more mail than its mailbox takes in this time: try again later.")),
    Row(ALWAYS, MESSAGE, &["5"], &[], RECEIVES_TOO_MUCH,
        It("The recipient gets more mail than its mailbox takes in this time: wait some hours, or \
        reach the recipient another way.")),

    // The sender's own mailbox.
    Row(ALWAYS, MAIL, &["4", "5"], &["2.2"], &[], It(SENDER_FULL)),
    Row(ALWAYS, MAIL, &["4", "5"], &[], MAILBOX_FULL, It(SENDER_FULL)),
    Row(ALWAYS, MAIL, &["4", "5"], &["2.1"], &[], It(SENDER_OFF)),
    Row(LOGGED_IN, RECIPIENTS, &["4", "5"], &["2.2"], OWN_ACCOUNT, It(SENDER_FULL)),
    Row(LOGGED_IN, RECIPIENTS, &["4", "5"], &["2.1"], OWN_ACCOUNT, It(SENDER_OFF)),
    Row(LOGGED_IN, CONTENT, &["4", "5"], &["2.2"], &["account is", "account has"],
        It(SENDER_FULL)),
    Row(LOGGED_IN, CONTENT, &["4", "5"], &["2.1"], &["account is", "account has"],
        It(SENDER_OFF)),
    // A mailbox or a server that is full, before what is too much in too short a time.
    Row(ALWAYS, RECIPIENTS, &["4"], &["2.2"], &[], It(FULL_FOR_NOW)),
    Row(ALWAYS, RECIPIENTS, &["5"], &["2.2"], &[], It(FULL)),
    Row(ALWAYS, RECIPIENTS, &["4"], &[], MAILBOX_FULL, It(FULL_FOR_NOW)),
    Row(ALWAYS, RECIPIENTS, &["5"], &[], MAILBOX_FULL, It(FULL)),
    Row(ALWAYS, RCPT, &["5"], &[], &["storage allocation"], It(FULL)),
    Row(ALWAYS, ANY, &["4"], &["3.1"], &[], It(NO_ROOM)),
    Row(ALWAYS, ANY, &["4"], &[], &["insufficient system", "insufficient disk",
        "insufficient storage", "not enough disk", "not enough space",
        "no space left", "disk full", "out of disk", "out of storage", "system full"], It(NO_ROOM)),
    // RFC 5321, 4.5.3.1.10.
    Row(&[OneRecipient], RCPT, &["450", "451", "452", "5"], &["5.3"], &[], It(NO_MORE_RECIPIENTS)),
    Row(&[OneRecipient], RCPT, &["450", "451", "452", "5"], &[], &["too many recipients",
        "recipient limit", "maximum recipients"], It(NO_MORE_RECIPIENTS)),
    Row(ALWAYS, RCPT, &["4", "5"], &["5.3"], &["recipient"], It(FEWER_RECIPIENTS)),
    Row(ALWAYS, &[Phase::Rcpt, Phase::Data], &["450", "451", "452", "5"], &[],
        &["too many recipients", "recipient limit", "maximum recipients"],
        It(FEWER_RECIPIENTS)),
    Row(ALWAYS, ANY, &["5"], &["4.6", "4.14"], &[], It(LOOP)),
    Row(ALWAYS, ANY, &["5"], &[], &["too many hops", "hop count", "mail loop", "routing loop",
        "loop detected"], It(LOOP)),
    Row(ALWAYS, ANY, &["4"], &[], TOO_MUCH,
        It(TOO_OFTEN_FOR_NOW)),
    Row(ALWAYS, ANY, &["5"], &[], TOO_MUCH,
        It(TOO_OFTEN)),

    // The recipient.
    Row(ALWAYS, ANY, &["556"], &[], &[], It(TAKES_NO_MAIL)),
    Row(ALWAYS, ANY, &["5"], &[], &["does not accept mail", "does not accept email"],
        It(TAKES_NO_MAIL)),
    Row(ALWAYS, RCPT, &["4", "5"], &["1.2"], &[], It(RECIPIENT_DOMAIN)),
    Row(ALWAYS, RCPT, &["4", "5"], &[], &["recipient address rejected: domain not found",
        "recipient domain", "host or domain name not found",
        "domain does not exist", "no such domain"], It(RECIPIENT_DOMAIN)),
    Row(ALWAYS, RCPT, &["5"], &["1.10"], &[], It(NO_MAILBOX)),
    Row(ALWAYS, MESSAGE, &["5"], &["4.1"], &["recipient address", "recipient addresses"],
        It(NO_MAILBOX)),
    Row(ALWAYS, RCPT, &["5"], &[], NO_SUCH_MAILBOX, It(NO_MAILBOX)),
    Row(ALWAYS, CONTENT, &["5"], &[], &["non-existent account"], It(NO_MAILBOX)),
    Row(LOGGED_IN, MESSAGE, RELAY_CODES, &[], RELAYING, It(RELAY_LOGGED_IN)),
    Row(LOGGED_OUT, MESSAGE, RELAY_CODES, &[], RELAYING, It(RELAY)),
    Row(ALWAYS, RCPT, &["5"], &["1.3"], &[], It(RECIPIENT_SYNTAX)),
    Row(ALWAYS, RCPT, &["501"], &[], &[], It(RECIPIENT_SYNTAX)),
    Row(ALWAYS, RCPT, &["5"], &["1.6"], &[],
        It("The recipient has moved, and mail is not forwarded: ask for the new address.")),
    Row(ALWAYS, RCPT, &["551"], &[], &[],
        It("The recipient is not at this server; its words may name the right address or server.")),
    Row(ALWAYS, RECIPIENTS, &["5"], &["2.1"], &[], It(SWITCHED_OFF)),
    Row(ALWAYS, RCPT, &["5"], &[], &["is disabled", "inactive", "suspended", "deactivated",
        "no longer"], It(SWITCHED_OFF)),

    // The sender's address.
    Row(ALWAYS, ANY, &["4", "5"], &[], &["sender verify", "verification failed", "callout",
        "callback", "sender address rejected: undeliverable",
        "sender address rejected: unverified", "unroutable sender"],
        It("The server asked whether mail can be returned to the sender, and it cannot: use a \
            sender address that exists and gets mail.")),
    Row(ALWAYS, ANY, &["5"], &[], &["badmailfrom", "banned sender", "sender is blocked",
        "sender blocked", "sender blacklisted",
        "blocked sender"],
        It("The server takes nothing from this sender's address: ask its administrator, or the \
            recipient, why.")),
    Row(LOGGED_IN, MAIL, &["5"], &["1.7"], &[], It(SENDER)),
    Row(LOGGED_IN, MAIL, &["501"], &[], &[], It(SENDER)),
    Row(LOGGED_OUT, MAIL, &["5"], &["1.7"], &[], It(SENDER_LOGGED_OUT)),
    Row(LOGGED_OUT, MAIL, &["501"], &[], &[], It(SENDER_LOGGED_OUT)),

    // The message.
    Row(ALWAYS, ANY, &["5"], &["3.4"], &[], It(TOO_LARGE)),
    Row(ALWAYS, SIZED, &["552"], &["", "2.3"], &[], It(TOO_LARGE)),
    Row(ALWAYS, SIZED, &["5"], &[], &["message too large", "message too big", "message size",
        "size limit", "message is too large"], It(TOO_LARGE)),
    Row(ALWAYS, ANY, &["4", "5"], &["6.11"], &[], It(LINE_ENDS)),
    Row(ALWAYS, ANY, &["4", "5"], &[], &["bare lf", "bare <lf>", "bare cr", "bare <cr>",
        "bare linefeed", "bare line feed", "bare newline", "smtplf"],
        It(LINE_ENDS)),
    Row(ALWAYS, ANY, &["5"], &["6.1", "6.3"], &[],
        It("A server on the way does not take text beyond ASCII: encode the message's parts as \
            quoted-printable or base64.")),
    Row(ALWAYS, ANY, &["5"], &[], &["rfc 5322", "rfc5322", "rfc compliant", "from: header",
        "message-id", "missing header", "duplicate header",
        "header are not", "headers are not", "invalid header"],
        It("The server does not take the message's header section as it is: its words say which \
            header is missing or wrong.")),
    Row(ALWAYS, ANY, &["5"], &["7.512"], &[],
        It("The server does not take the message's header section as it is: its words say which \
            header is missing or wrong.")),
    Row(ALWAYS, ANY, &["5"], &[], &["security issue", "attachment", "executable"],
        It("The server does not take such an attachment (a program, or an archive with one, as a \
            rule): put it where it can be fetched from.")),
    Row(ALWAYS, ANY, &["5"], &[], &["spam", "antispam", "content filter", "unsolicited", "virus",
        "content denied", "banned content"],
        It(FILTERED)),

    // Postfix on a submission port, to those who have not logged in.
    Row(&[LoggedOut, Lmtp], ANY, &["5"], &["7.1"], &["client host rejected: access denied"],
        It(ADDRESS_BLOCKED)),
    Row(&[LoggedOut, InClear], ANY, &["5"], &["7.1"], &["client host rejected: access denied"],
        It(LOGIN_FIRST)),
    Row(&[LoggedOut, InTls, NoLoginOffered], ANY, &["5"], &["7.1"],
        &["client host rejected: access denied"], It(LOGIN_ELSEWHERE)),
    Row(&[LoggedOut, InTls], ANY, &["5"], &["7.1"], &["client host rejected: access denied"],
        It(LOGIN_FIRST_IN_TLS)),

    // All the rest.
    Row(ALWAYS, ANY, &["421"], &[], &[],
        It("The server is busy or going down, or it limits this client: try again later, over a \
            new connection.")),
    Row(ALWAYS, ANY, &["4"], &[], &[],
        It("It is a refusal for the moment: try again later. If it lasts, ask the server's \
            administrator.")),
    Row(ALWAYS, RCPT, &["5"], &[], &[],
        It("The server's words say why it takes no mail for this address from here. If they do \
            not, ask its administrator.")),
    Row(ALWAYS, ANY, &["5"], &[], &[],
        It("The server's words say why, and the same will be refused again. If they do not say \
            enough, ask its administrator.")),
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
/// The network is not one for sending mail by itself.
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
    this machine's full name, as DNS has it (helo= in the URL, Endpoint::client_name).";
const ON_BLOCK_LIST: &str = "The network address that you send from is on a block list: find out \
    why in the list that the server names, and have it removed. From a home or cloud network, send \
    through your provider's submission server (port 587, with a login) instead.";
const ON_BLOCK_LIST_LOGGED_IN: &str = "The network address that the mail comes from is on a block \
    list: find out why in the list that the server names, and have it removed. If it is the \
    server's own address, its administrator must do so.";
const NO_NAME: &str = "The network address that you send from has no name in DNS, or one that does \
    not lead back to it: have its reverse entry (PTR) set by whoever gave you the address, or send \
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
    message has one alone: it counts them over several messages. Wait, then send to fewer in that \
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
