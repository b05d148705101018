//! Refused senders, recipients and messages, with the replies of real servers, and unknown
//! outcomes.

use std::future::pending;
use std::io;
use std::time::Duration;

use envoi::mail_builder::MessageBuilder;
use envoi::{Address, Client, Envelope, ErrorKind, Message, Phase, Timeouts};
use futures::StreamExt as _;

use crate::case::{Case, World, case, hello, hurried, play};
use crate::servers::{CLOSE, RESET, SILENCE, Script, Server, start};

const URL: &str = "smtp://127.0.0.1:{port}?tls=none";

fn refused(name: &'static str, script: Script, phase: Phase, exit: u8) -> Case {
    case(
        name,
        Server::Plain(script),
        URL,
        ErrorKind::Refused,
        phase,
        exit,
    )
}

fn mail(name: &'static str, script: Script, exit: u8) -> Case {
    refused(name, script, Phase::Mail, exit)
}

fn rcpt(name: &'static str, script: Script, exit: u8) -> Case {
    refused(name, script, Phase::Rcpt, exit)
}

fn end(name: &'static str, script: Script, exit: u8) -> Case {
    refused(name, script, Phase::EndOfData, exit)
}

/// Of a size that is known to the byte, as a made message's is not: its Message-ID is longer one
/// day than the other.
fn large() -> Message<'static> {
    ready(&format!(
        "From: me@example.org\r\n\r\n{}",
        "A line of text.\r\n".repeat(1000)
    ))
}

/// More than the buffers on the way hold.
fn huge() -> Message<'static> {
    ready(&format!(
        "From: me@example.org\r\n\r\n{}",
        "A line of text.\r\n".repeat(500_000)
    ))
}

fn beyond_ascii() -> Message<'static> {
    ready("From: me@example.org\r\n\r\nGr\u{fc}\u{df}e\r\n")
}

fn ready(text: &str) -> Message<'static> {
    let address = |text| Address::new(text).unwrap();
    let envelope = Envelope::new(address("me@example.org"), [address("you@example.com")]).unwrap();
    Message::raw(text.to_owned()).envelope(envelope)
}

fn to_three() -> Message<'static> {
    let to = vec!["a@example.com", "b@example.com", "c@example.com"];
    MessageBuilder::new()
        .from("me@example.org")
        .to(to)
        .subject("Hello")
        .text_body("Hello.\n")
        .into()
}

fn refused_by_program() -> Message<'static> {
    hello().on_handover(|_| async { Err("the journal is full") })
}

fn never_permitted() -> Message<'static> {
    hello().on_handover(|_| pending::<io::Result<()>>())
}

#[tokio::test]
async fn message_failures_have_their_pinned_texts() {
    let cases = vec![
        // The sender.
        mail(
            "501 5.1.7",
            &[("MAIL", "501 5.1.7 Bad sender address syntax")],
            69,
        ),
        mail(
            "550 5.7.60, not allowed to send as",
            &[(
                "MAIL",
                "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
            )],
            69,
        ),
        mail(
            "550 5.7.57, not logged in, Exchange",
            &[(
                "MAIL",
                "550 5.7.57 SMTP; Client was not authenticated to send anonymous mail during MAIL \
                    FROM",
            )],
            69,
        ),
        mail(
            "the sender's domain is unknown",
            &[(
                "MAIL",
                "450 4.1.8 <me@example.org>: Sender address rejected: Domain not found",
            )],
            75,
        ),
        rcpt(
            "553 5.7.1, the sender is not the user's",
            &[(
                "RCPT",
                "553 5.7.1 <me@example.org>: Sender address rejected: not owned by user alice",
            )],
            69,
        ),
        mail(
            "421 to MAIL",
            &[("MAIL", "421 4.3.2 Service shutting down, closing channel")],
            75,
        ),
        mail(
            "TLS first, Exchange",
            &[("MAIL", "451 5.7.3 STARTTLS is required to send mail")],
            69,
        ),
        refused(
            "the name in EHLO, Google's relay",
            &[(
                "EHLO",
                "421 4.7.0 Try again later, closing connection. (EHLO) a1-b2.3 - gsmtp",
            )],
            Phase::Hello,
            75,
        ),
        case(
            "EHLO without codes",
            Server::Plain(&[("EHLO", "250 mail.example.org\r\nPIPELINING\r\nSIZE 1000")]),
            URL,
            ErrorKind::Protocol,
            Phase::Command,
            76,
        ),
        case(
            "EHLO without codes after the first line",
            Server::Plain(&[("EHLO", "250-mail.example.org\r\nPIPELINING\r\nSIZE 1000")]),
            URL,
            ErrorKind::Protocol,
            Phase::Hello,
            76,
        ),
        case(
            "TLS first, after STARTTLS failed",
            Server::Plain(&[
                ("EHLO", "250-mail.example.org\r\n250 STARTTLS"),
                ("STARTTLS", "454 4.7.0 TLS not available"),
                ("MAIL", "530 5.7.0 Must issue a STARTTLS command first"),
            ]),
            "smtp://127.0.0.1:{port}?tls=opportunistic",
            ErrorKind::Refused,
            Phase::Mail,
            69,
        ),
        // The recipients.
        rcpt(
            "too many recipients, and it is one",
            &[("RCPT", "452 4.5.3 Error: too many recipients")],
            75,
        ),
        rcpt(
            "452 without more",
            &[("RCPT", "452 Insufficient disk space")],
            75,
        ),
        rcpt(
            "550 5.1.1",
            &[(
                "RCPT",
                "550 5.1.1 <you@example.com>: Recipient address rejected: User unknown in local \
                    recipient table",
            )],
            69,
        ),
        rcpt(
            "550 5.1.1, all of three",
            &[("RCPT", "550 5.1.1 User unknown")],
            69,
        )
        .message(to_three),
        rcpt(
            "550 5.1.10, Office 365",
            &[(
                "RCPT",
                "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient you@example.com not found \
                    by SMTP address lookup",
            )],
            69,
        ),
        rcpt(
            "one of three, and all or nothing",
            &[("RCPT TO:<b@", "550 5.1.1 User unknown")],
            69,
        )
        .message(to_three)
        .with(|endpoint, _| endpoint.all_or_nothing(true)),
        rcpt(
            "relaying denied, Postfix",
            &[("RCPT", "554 5.7.1 <you@example.com>: Relay access denied")],
            69,
        ),
        rcpt(
            "relaying denied, Exim",
            &[("RCPT", "550 relay not permitted")],
            69,
        ),
        rcpt(
            "relaying denied for now",
            &[("RCPT", "454 4.7.1 <you@example.com>: Relay access denied")],
            75,
        ),
        rcpt(
            "relaying denied, Exchange",
            &[(
                "RCPT",
                "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain",
            )],
            69,
        ),
        rcpt(
            "greylisted",
            &[(
                "RCPT",
                "451 4.7.1 Greylisting in action, please come back later",
            )],
            75,
        ),
        rcpt(
            "greylisted, Postgrey",
            &[(
                "RCPT",
                "450 4.2.0 <you@example.com>: Recipient address rejected: Greylisted, see \
                    http://postgrey.schweikert.ch/help/example.com.html",
            )],
            75,
        ),
        rcpt(
            "the mailbox is full",
            &[(
                "RCPT",
                "452 4.2.2 <you@example.com> The recipient's inbox is out of storage space and \
                    inactive",
            )],
            75,
        ),
        rcpt(
            "the mailbox is full for good",
            &[("RCPT", "552 5.2.2 <you@example.com>: Mailbox over quota")],
            69,
        ),
        rcpt(
            "on a block list",
            &[(
                "RCPT",
                "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using \
                    zen.spamhaus.org; https://www.spamhaus.org/query/ip/192.0.2.7",
            )],
            69,
        ),
        rcpt(
            "blocked, Outlook",
            &[(
                "RCPT",
                "550 5.7.1 Unfortunately, messages from [192.0.2.7] weren't sent. Please contact \
                    your Internet service provider since part of their network is on our block \
                    list (S3150).",
            )],
            69,
        ),
        rcpt(
            "no name for the address",
            &[(
                "RCPT",
                "450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.7]",
            )],
            75,
        ),
        rcpt(
            "the name given in EHLO",
            &[(
                "RCPT",
                "504 5.5.2 <[127.0.0.1]>: Helo command rejected: need fully-qualified hostname",
            )],
            69,
        ),
        rcpt(
            "SPF",
            &[(
                "RCPT",
                "550 5.7.23 <you@example.com>: Recipient address rejected: Message rejected due \
                    to: SPF fail - not authorized",
            )],
            69,
        ),
        rcpt(
            "421 to RCPT",
            &[("RCPT", "421 4.7.0 Too many recipients in this session")],
            75,
        ),
        rcpt(
            "login first, Postfix",
            &[(
                "RCPT",
                "554 5.7.1 <client.example.org[192.0.2.7]>: Client host rejected: Access denied",
            )],
            69,
        ),
        rcpt("no closer reason", &[("RCPT", "550 Rejected")], 69),
        // The rates.
        rcpt(
            "too much mail, Postfix",
            &[("RCPT", "450 4.7.1 Error: too much mail from 192.0.2.7")],
            75,
        ),
        rcpt(
            "received too quickly, Gmail",
            &[(
                "RCPT",
                "450-4.2.1 The user you are trying to contact is receiving mail at a rate \
                    that\r\n450-4.2.1 prevents additional messages from being delivered. For \
                    more\r\n450 4.2.1 information, go to \
                    https://support.google.com/mail/?p=ReceivingRate a1-b2.3 - gsmtp",
            )],
            75,
        ),
        end(
            "an unusual rate, Gmail",
            &[(
                ".",
                "421-4.7.0 [192.0.2.7      15] Our system has detected an unusual rate \
                    of\r\n421-4.7.0 unsolicited mail originating from your IP address. To protect \
                    our\r\n421 4.7.0 users from spam, mail sent from your IP address has been \
                    temporarily rate limited. a1-b2.3 - gsmtp",
            )],
            75,
        ),
        end(
            "the daily limit, Gmail",
            &[(
                ".",
                "550-5.4.5 Daily user sending limit exceeded. For more information on \
                    Gmail\r\n550 5.4.5 sending limits go to \
                    https://support.google.com/a/answer/166852 a1-b2.3 - gsmtp",
            )],
            69,
        ),
        mail(
            "server busy, Office 365",
            &[(
                "MAIL",
                "451 4.7.500 Server busy. Please try again later from [192.0.2.7]. (S77719) \
                    [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]",
            )],
            75,
        ),
        end(
            "too many at a time, Office 365",
            &[(
                ".",
                "432 4.3.2 Concurrent connections limit exceeded. Visit \
                    https://aka.ms/concurrent_sending for more information. \
                    [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]",
            )],
            75,
        ),
        // The message.
        case(
            "too large, by SIZE",
            Server::Plain(&[("EHLO", "250-mail.example.org\r\n250 SIZE 10240")]),
            URL,
            ErrorKind::Unsupported,
            Phase::Mail,
            69,
        )
        .message(large),
        mail(
            "too large, at MAIL",
            &[("MAIL", "552 5.3.4 Message size exceeds fixed limit")],
            69,
        ),
        end(
            "too large, afterwards",
            &[(".", "552 5.3.4 Error: message file too big")],
            69,
        ),
        end(
            "the storage is full",
            &[(".", "452 4.3.1 Insufficient system storage")],
            75,
        ),
        end(
            "the mailbox is full, afterwards",
            &[(".", "552 5.2.2 Mailbox quota exceeded")],
            69,
        ),
        end(
            "not allowed to send as, Office 365",
            &[(
                ".",
                "554 5.2.252 SendAsDenied; alice@example.org not allowed to send as \
                    me@example.org; \
                    STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied",
            )],
            69,
        ),
        end(
            "neither SPF nor DKIM, Gmail",
            &[(
                ".",
                "550-5.7.26 This mail has been blocked because the sender is \
                    unauthenticated.\r\n550-5.7.26 Gmail requires all senders to authenticate \
                    with either SPF or DKIM.\r\n550 5.7.26 For instructions on setting up \
                    authentication, go to \
                    https://support.google.com/mail/answer/81126#authentication a1-b2.3 - gsmtp",
            )],
            69,
        ),
        end(
            "DMARC",
            &[(
                ".",
                "550 5.7.1 Unauthenticated email from example.org is not accepted due to domain's \
                    DMARC policy.",
            )],
            69,
        ),
        end(
            "DMARC, Office 365",
            &[(
                ".",
                "550 5.7.509 Access denied, sending domain EXAMPLE.ORG does not pass DMARC \
                    verification and has a DMARC policy of reject.",
            )],
            69,
        ),
        end(
            "taken for spam",
            &[(".", "554 5.7.1 Message rejected as spam by content filter")],
            69,
        ),
        end(
            "a bare line feed",
            &[(".", "554 5.6.0 Message contains bare LF")],
            69,
        ),
        end(
            "a bare line feed, Exchange",
            &[(
                ".",
                "550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal; message contains bare linefeeds",
            )],
            69,
        ),
        end(
            "no conversion of 8-bit text",
            &[(
                ".",
                "554 5.6.3 Conversion required but not supported: 8BITMIME",
            )],
            69,
        ),
        case(
            "8-bit text, and no 8BITMIME",
            Server::Plain(&[("EHLO", "250-mail.example.org\r\n250 SIZE 10240")]),
            URL,
            ErrorKind::Unsupported,
            Phase::Mail,
            69,
        )
        .message(beyond_ascii),
        end(
            "no closer reason, to three",
            &[(".", "554 5.0.0 Transaction failed")],
            69,
        )
        .message(to_three),
        refused(
            "DATA is refused",
            &[("DATA", "554 5.5.1 No valid recipients")],
            Phase::Data,
            69,
        ),
        refused(
            "421 to DATA",
            &[("DATA", "421 4.3.2 System shutting down")],
            Phase::Data,
            75,
        ),
        end(
            "421 to the message",
            &[(".", "421 4.3.2 System shutting down")],
            75,
        ),
        // The hand-over.
        case(
            "the program refuses the hand-over",
            Server::Plain(&[]),
            URL,
            ErrorKind::Handover,
            Phase::Handover,
            74,
        )
        .message(refused_by_program),
        case(
            "the hand-over is not permitted before the deadline",
            Server::Plain(&[]),
            URL,
            ErrorKind::Timeout,
            Phase::Handover,
            75,
        )
        .with(|endpoint, _| {
            let second = Duration::from_secs(1);
            endpoint.timeouts(Timeouts::default().with_deadline(second))
        })
        .message(never_permitted),
        refused(
            "421 while the hand-over is waited for",
            &[
                ("EHLO", "250 mail.example.org"),
                ("BODY", "421 4.4.2 mail.example.org Error: timeout exceeded"),
            ],
            Phase::Body,
            75,
        )
        .message(never_permitted),
        case(
            "closed while the hand-over is waited for",
            Server::Plain(&[("EHLO", "250 mail.example.org"), ("BODY", CLOSE)]),
            URL,
            ErrorKind::Closed,
            Phase::Handover,
            75,
        )
        .message(never_permitted),
        case(
            "reset at RCPT",
            Server::Plain(&[("RCPT", RESET)]),
            URL,
            ErrorKind::Closed,
            Phase::Rcpt,
            75,
        ),
        case(
            "closed at RCPT",
            Server::Plain(&[("RCPT", CLOSE)]),
            URL,
            ErrorKind::Closed,
            Phase::Rcpt,
            75,
        ),
        case(
            "no answer to MAIL",
            Server::Plain(&[("MAIL", SILENCE)]),
            URL,
            ErrorKind::Timeout,
            Phase::Mail,
            75,
        )
        .with(hurried),
        case(
            "an answer that fits nothing",
            Server::Plain(&[("MAIL", "354 Go ahead")]),
            URL,
            ErrorKind::Protocol,
            Phase::Mail,
            76,
        ),
        end(
            "an attachment that is not taken, Gmail",
            &[(
                ".",
                "552-5.7.0 This message was blocked because its content presents a \
                    potential\r\n552-5.7.0 security issue. Please visit \
                    https://support.google.com/mail/?p=BlockedMessage to\r\n552 5.7.0 review our \
                    message content and attachment content guidelines. a1-b2.3 - gsmtp",
            )],
            69,
        ),
        end(
            "no closer reason, for now",
            &[(".", "451 4.3.0 Error: queue file write error")],
            75,
        ),
        case(
            "reset in mid-message",
            Server::Plain(&[("EHLO", "250 mail.example.org"), ("BODY", RESET)]),
            URL,
            ErrorKind::Closed,
            Phase::Body,
            75,
        )
        .message(huge),
        case(
            "the message is not taken",
            Server::Plain(&[("EHLO", "250 mail.example.org"), ("BODY", SILENCE)]),
            URL,
            ErrorKind::Timeout,
            Phase::Body,
            75,
        )
        .message(huge)
        .with(hurried),
        case(
            "the message is refused while it goes",
            Server::Plain(&[
                ("EHLO", "250 mail.example.org"),
                ("BODY", "552 5.3.4 Message too big"),
            ]),
            URL,
            ErrorKind::Refused,
            Phase::Body,
            69,
        )
        .message(huge),
        // The outcome is unknown.
        case(
            "closed after the message",
            Server::Plain(&[(".", CLOSE)]),
            URL,
            ErrorKind::Closed,
            Phase::EndOfData,
            79,
        ),
        case(
            "no answer to the message",
            Server::Plain(&[(".", SILENCE)]),
            URL,
            ErrorKind::Timeout,
            Phase::EndOfData,
            79,
        )
        .with(hurried),
        case(
            "garbage after the message",
            Server::Plain(&[(".", "what?")]),
            URL,
            ErrorKind::Protocol,
            Phase::EndOfData,
            79,
        )
        .message(to_three),
    ];
    play("messages", cases).await;
}

/// Some recipients were accepted, so that there is no error: what to do about the others is said of
/// each.
#[tokio::test]
async fn a_partial_refusal_has_advice_for_each_recipient() {
    let script: Script = &[
        ("RCPT TO:<a@", "550 5.1.1 User unknown"),
        ("RCPT TO:<b@", "452 4.2.2 Mailbox full"),
        ("RCPT TO:<d@", "452 4.3.1 Insufficient system storage"),
    ];
    let running = start(&Server::Plain(script), &World::new()).await;
    let client = Client::from_url(&URL.replace("{port}", &running.port.to_string())).unwrap();
    let to = vec![
        "a@example.com",
        "b@example.com",
        "c@example.com",
        "d@example.com",
    ];
    let message = MessageBuilder::new()
        .from("me@example.org")
        .to(to)
        .text_body("Hello.\n");
    let receipt = client.send(message).await.unwrap();
    let hints: Vec<_> = receipt
        .recipients
        .iter()
        .map(|recipient| recipient.hint().unwrap_or_default())
        .collect();
    let expected = ["no such mailbox", "mailbox is full", "", "no room"];
    for (hint, part) in hints.iter().zip(expected) {
        assert!(
            hint.contains(part) && hint.is_empty() == part.is_empty(),
            "{hint:?}: {part:?}"
        );
    }
}

/// What is said of a message in a stream is what is said of a single one.
#[tokio::test]
async fn send_all_reports_the_texts_of_a_single_send() {
    let world = World::new();
    let script = &[
        ("MAIL FROM:<bad@", "550 5.1.7 No"),
        ("RCPT TO:<refused@", "550 5.1.1 No such user"),
        ("RCPT TO:<last@", "421 4.3.2 Going down"),
    ];
    let running = start(&Server::Plain(script), &world).await;
    let url = URL.replace("{port}", &running.port.to_string());
    let mut connection = Client::from_url(&url).unwrap().connect().await.unwrap();
    let messages = [
        ("me", "you"),
        ("bad", "you"),
        ("me", "refused"),
        ("me", "last"),
    ]
    .map(|(from, to)| {
        let message = MessageBuilder::new()
            .from(format!("{from}@example.org"))
            .to(format!("{to}@example.com"));
        Message::from(message.text_body("Hello.\n"))
    });
    let outcomes: Vec<_> = connection
        .send_all(futures::stream::iter(messages))
        .collect()
        .await;
    let texts: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().err().map(ToString::to_string))
        .collect();
    for (text, begins) in texts[1..].iter().zip([
        "the server refused the sender bad@example.org; the server said: 550 5.1.7 No. The server \
            does not take this",
        "the server refused the recipient refused@example.com; the server said: 550 5.1.1 No such \
            user. There is no such",
        "the server ended the session before it took the message; the server said: 421 4.3.2 \
            Going down. The server is",
    ]) {
        let text = text.as_deref().unwrap_or_default();
        assert!(text.starts_with(begins), "{text}");
    }
    assert_eq!(texts[0], None);
}
