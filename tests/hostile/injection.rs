//! Injection by the caller (CRLF injection, CWE-93): CR, LF and NUL in whatever a program may have
//! from its own users. It is refused before anything is connected to, as a bad request that names
//! what is wrong; where it is no danger, it goes encoded.

use envoi::delivery::{EnvelopeId, OriginalRecipient};
use envoi::mail_builder::MessageBuilder;
use envoi::mail_builder::headers::address::Address as Mailbox;
use envoi::mail_builder::headers::content_type::ContentType;
use envoi::mail_builder::headers::message_id::MessageId;
use envoi::mail_builder::headers::raw::Raw;
use envoi::mail_builder::headers::text::Text;
use envoi::mail_builder::headers::url::URL;
use envoi::mail_builder::mime::MimePart;
use envoi::proto::{ClientName, Mechanism, RawCommand};
use envoi::{
    Address, Attachment, Client, Connection, Credentials, DeliveryOptions, Endpoint, Error,
    ErrorKind, Message,
};
use futures::FutureExt as _;

use crate::script::{Act, meet, plain, send_reply};
use crate::server::envelope;

/// What breaks out of a line, and what would follow.
const BREAKS: [&str; 7] = [
    "\r\nDATA",
    "\nRSET\n",
    "\rQUIT",
    "\0",
    "\r\n",
    "\n",
    "\r\n.\r\n",
];

#[test]
fn no_argument_adds_a_command() {
    type Attempt = fn(&str) -> Result<(), Error>;
    let attempts: &[(&str, Attempt)] = &[
        ("the part before the @", |x| {
            Address::new(format!("a{x}@example.org"))
                .map(drop)
                .map_err(Error::from)
        }),
        ("the domain", |x| {
            Address::new(format!("a@example.org{x}"))
                .map(drop)
                .map_err(Error::from)
        }),
        ("a quoted part before the @", |x| {
            Address::new(format!("\"a{x}b\"@example.org"))
                .map(drop)
                .map_err(Error::from)
        }),
        ("a quoted pair", |x| {
            Address::new(format!("\"a\\{x}b\"@example.org"))
                .map(drop)
                .map_err(Error::from)
        }),
        ("an address literal", |x| {
            Address::new(format!("a@[127.0.0.1{x}]"))
                .map(drop)
                .map_err(Error::from)
        }),
        ("an address taken leniently", |x| {
            Address::lenient(format!("\"a{x}\"@example.org"))
                .map(drop)
                .map_err(Error::from)
        }),
        ("the client's name", |x| {
            ClientName::new(format!("client{x}.example.org"))
                .map(drop)
                .map_err(Error::from)
        }),
        ("a command", |x| {
            RawCommand::new(format!("VRFY alice{x}"))
                .map(drop)
                .map_err(Error::from)
        }),
        ("the first word of a command", |x| {
            RawCommand::new(format!("VRFY{x}"))
                .map(drop)
                .map_err(Error::from)
        }),
        ("ENVID", |x| {
            EnvelopeId::new(format!("a{x}b"))
                .map(drop)
                .map_err(Error::from)
        }),
        ("the type of ORCPT", |x| {
            OriginalRecipient::of_type(&format!("rfc822{x}"), "a")
                .map(drop)
                .map_err(Error::from)
        }),
        ("ORCPT", |x| {
            OriginalRecipient::of_type("rfc822", &format!("a{x}"))
                .map(drop)
                .map_err(Error::from)
        }),
        ("NOTIFY", |x| {
            format!("never{x}")
                .parse::<envoi::delivery::Notify>()
                .map(drop)
                .map_err(Error::from)
        }),
        ("RET", |x| {
            format!("full{x}")
                .parse::<envoi::delivery::DsnReturn>()
                .map(drop)
                .map_err(Error::from)
        }),
    ];
    for (what, attempt) in attempts {
        attempt("").unwrap_or_else(|error| panic!("{what}: {error}"));
        for breaks in BREAKS {
            let error = attempt(breaks)
                .err()
                .unwrap_or_else(|| panic!("{what} took {breaks:?}"));
            assert_eq!(error.kind(), ErrorKind::Request, "{what}: {error}");
            assert!(
                !error.to_string().contains(['\r', '\n', '\0']),
                "{what}: {error:?} breaks out of a log's line"
            );
        }
    }
    // What ends a parameter or a path (RFC 5321, 4.1.2; RFC 3461, 4).
    for address in [
        "a> SIZE=1@example.org",
        "a@example.org> BODY=7BIT",
        "a b@example.org",
        "<a@example.org>",
        "a@b\tc",
    ] {
        assert!(
            Address::new(address).is_err() && Address::lenient(address).is_err(),
            "{address}"
        );
    }
    for command in [
        "MAIL FROM:<>",
        "data",
        "BDAT 5 LAST",
        "Auth PLAIN",
        "starttls",
        "QUIT",
        "EHLO x",
        "rset",
        "",
    ] {
        assert!(RawCommand::new(command).is_err(), "{command}");
    }
}

#[tokio::test]
async fn no_value_adds_a_header() {
    type Attempt = fn(&str) -> Message<'static>;
    fn mail() -> MessageBuilder<'static> {
        MessageBuilder::new()
            .from("me@example.org")
            .to("you@example.com")
            .text_body("x")
    }
    let attempts: &[(&str, Attempt)] = &[
        ("a subject", |x| mail().subject(format!("a{x}b")).into()),
        ("the name of a sender", |x| {
            mail()
                .from((format!("a{x}b"), "me@example.org".to_owned()))
                .into()
        }),
        ("the name of a recipient", |x| {
            mail()
                .cc((format!("a{x}"), "you@example.com".to_owned()))
                .into()
        }),
        ("an address in a header alone", |x| {
            Message::from(mail().reply_to(format!("a{x}@example.org")))
                .envelope(envelope(&["you@example.com"]))
        }),
        ("the name of a group", |x| {
            mail()
                .header(
                    "Reply-To",
                    Mailbox::new_group(Some(format!("g{x}")), vec!["a@example.org".into()]),
                )
                .into()
        }),
        ("a member of a group", |x| {
            mail()
                .header(
                    "Reply-To",
                    Mailbox::new_group(Some("g"), vec![format!("a{x}@example.org").into()]),
                )
                .into()
        }),
        ("a message-id", |x| {
            mail().message_id(format!("a{x}@example.org")).into()
        }),
        ("a reference", |x| {
            mail()
                .header("References", MessageId::new(format!("a{x}@example.org")))
                .into()
        }),
        ("a raw header", |x| {
            mail().header("X-A", Raw::new(format!("a{x}b"))).into()
        }),
        ("a text header", |x| {
            mail().header("X-A", Text::new(format!("a{x}b"))).into()
        }),
        ("a URL header", |x| {
            mail()
                .header(
                    "List-Unsubscribe",
                    URL::new(format!("https://example.org/{x}")),
                )
                .into()
        }),
        ("the name of a header", |x| {
            mail().header(format!("X-A{x}"), Text::new("b")).into()
        }),
        ("a content type", |x| {
            mail()
                .header("X-Type", ContentType::new(format!("text/plain{x}")))
                .into()
        }),
        ("a parameter of a content type", |x| {
            mail()
                .header(
                    "X-Type",
                    ContentType::new("text/plain").attribute("name", format!("a{x}")),
                )
                .into()
        }),
        ("the name of such a parameter", |x| {
            mail()
                .header(
                    "X-Type",
                    ContentType::new("text/plain").attribute(format!("name{x}"), "a"),
                )
                .into()
        }),
        ("the file name of a builder's attachment", |x| {
            mail()
                .attachment("text/plain", format!("a{x}.txt"), "a")
                .into()
        }),
        ("its content type", |x| {
            mail()
                .attachment(format!("text/plain{x}"), "a.txt", "a")
                .into()
        }),
        ("the content id of an inline part", |x| {
            mail().inline("image/png", format!("logo{x}"), "a").into()
        }),
        ("a header of a part in a part", |x| {
            let inner = MimePart::new("text/plain", "a").header("X-A", Text::new(format!("a{x}")));
            mail()
                .body(MimePart::new(
                    "multipart/mixed",
                    vec![MimePart::new("multipart/mixed", vec![inner])],
                ))
                .into()
        }),
        ("the file name of an attachment", |x| {
            Message::from(mail()).attach(Attachment::bytes(format!("a{x}.txt"), "text/plain", "a"))
        }),
        ("its name, given anew", |x| {
            Message::from(mail())
                .attach(Attachment::bytes("a", "text/plain", "a").name(format!("a{x}")))
        }),
        ("the content type of an attachment", |x| {
            Message::from(mail()).attach(Attachment::bytes("a", format!("text/plain{x}"), "a"))
        }),
        ("the content id of an attachment", |x| {
            Message::from(mail())
                .attach(Attachment::bytes("a", "image/png", "a").inline(format!("logo{x}")))
        }),
    ];
    for (what, attempt) in attempts {
        attempt("")
            .prepare()
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        for breaks in BREAKS
            .iter()
            .chain(&["\r\n ", "\r\nBcc: victim@example.org", "\n\t"])
        {
            let prepared = attempt(breaks).prepare().await;
            let error = prepared
                .err()
                .unwrap_or_else(|| panic!("{what} took {breaks:?}"));
            assert_eq!(error.kind(), ErrorKind::Request, "{what}: {error}");
            assert!(
                !error.to_string().contains(['\r', '\n', '\0']),
                "{what}: {error:?} breaks out of a log's line"
            );
        }
    }
}

#[tokio::test]
async fn no_display_name_adds_a_mailbox() {
    // No line break is needed to add a mailbox to a list: a display name or an address that ends
    // itself.
    for (name, email) in [
        ("x\" <evil@example.net>, \"y", "me@example.org"),
        ("x <evil@example.net>,", "me@example.org"),
        ("x\\", "me@example.org"),
        ("x", "me@example.org>, <evil@example.net"),
        ("x", "me@example.org, evil@example.net"),
        ("x", "me@example.org (evil@example.net"),
    ] {
        let mail = MessageBuilder::new()
            .from((name, email))
            .to("you@example.com")
            .text_body("x");
        let prepared = Message::from(mail)
            .envelope(envelope(&["you@example.com"]))
            .prepare()
            .await;
        // Refused, or so quoted that it is one mailbox.
        let Ok(prepared) = prepared else {
            continue;
        };
        let mut body = prepared.into_body();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.chunk().await {
            bytes.extend_from_slice(chunk.unwrap().bytes());
        }
        let text = String::from_utf8(bytes).unwrap().replace("\r\n ", " ");
        let from = text
            .lines()
            .find_map(|line| line.strip_prefix("From: "))
            .unwrap();
        assert_eq!(outside_quotes(from), 1, "{name:?} {email:?}: {from}");
    }
}

/// How many angle addresses there are, but for quoted ones (RFC 5322, 3.2.4).
fn outside_quotes(header: &str) -> usize {
    let (mut in_quotes, mut escaped, mut found) = (false, false, 0);
    for c in header.chars() {
        match c {
            _ if std::mem::take(&mut escaped) => {}
            '\\' if in_quotes => escaped = true,
            '"' => in_quotes = !in_quotes,
            '<' | ',' if !in_quotes => found += 1,
            _ => {}
        }
    }
    assert!(!in_quotes && !escaped, "{header}: a quote is open");
    found
}

#[tokio::test]
async fn no_host_or_url_adds_a_line() {
    for breaks in BREAKS {
        let host =
            Endpoint::new(format!("mail{breaks}.example.org")).security(envoi::tls::Security::None);
        let error = Client::new(host)
            .connect()
            .await
            .err()
            .unwrap_or_else(|| panic!("a host with {breaks:?}"));
        assert_eq!(error.kind(), ErrorKind::Request, "{error}");
        assert!(!error.to_string().contains(['\r', '\n', '\0']), "{error:?}");

        let hexed: String = breaks.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for part in [hexed.as_str(), breaks] {
            for url in [
                format!("smtp://mail{part}.example.org"),
                format!("smtp://mail.example.org:25{part}"),
                format!("smtp://mail.example.org?helo=a{part}b"),
                format!("smtp{part}://mail.example.org"),
                format!("smtp://mail.example.org?tls=none{part}"),
                format!("smtp://mail.example.org?auth=PLAIN{part}"),
                format!("smtp://mail.example.org?min-tls=1.2{part}"),
                format!("smtp://mail.example.org?timeout=5{part}"),
                format!("smtp://mail.example.org?x{part}=y"),
            ] {
                let error = match Client::from_url(&url) {
                    // A host is looked at where it is connected to.
                    Ok(client) => client
                        .connect()
                        .await
                        .err()
                        .unwrap_or_else(|| panic!("{url:?}")),
                    Err(error) => error,
                };
                assert_eq!(error.kind(), ErrorKind::Request, "{url:?}: {error}");
                assert!(
                    !error.to_string().contains(['\r', '\n', '\0']),
                    "{url:?}: {error:?}"
                );
            }
        }
    }
}

/// The client logs in with this to a server that offers the mechanism, and says what it said.
async fn log_in(mechanism: Mechanism, credentials: Credentials) -> (Result<(), Error>, String) {
    let offer = send_reply(&format!(
        "250-hostile.example.org\r\n250 AUTH {mechanism}\r\n"
    ));
    let mut acts = vec![
        send_reply("220 hi\r\n"),
        Act::Hear("EHLO"),
        offer,
        Act::Hear("AUTH"),
    ];
    acts.extend([
        send_reply("334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2U+\r\n"),
        Act::Rest(1),
        send_reply("334 \r\n"),
        Act::Rest(1),
    ]);
    acts.extend([send_reply("535 5.7.8 no\r\n"), Act::Listen]);
    let endpoint = plain()
        .auth_in_clear(true)
        .mechanism(mechanism)
        .credentials(credentials);
    let meeting = meet(acts, async |stream| {
        Connection::from_stream(stream, &endpoint).await.map(|_| ())
    })
    .await;
    (meeting.result, String::from_utf8(meeting.heard).unwrap())
}

#[tokio::test(start_paused = true)]
async fn no_credential_adds_a_field() {
    type Make = fn(&str) -> Credentials;
    let makers: [(&str, Make); 7] = [
        ("a user", |x| {
            Credentials::new(format!("alice{x}"), "secret")
        }),
        ("a password", |x| {
            Credentials::new("alice", format!("secret{x}"))
        }),
        ("a token", |x| {
            Credentials::token("alice", format!("token{x}"))
        }),
        ("a token's user", |x| {
            Credentials::token(format!("alice{x}"), "token")
        }),
        ("whom to act for", |x| {
            Credentials::new("admin", "secret").authorize_as(format!("alice{x}"))
        }),
        ("whom to act for with a token", |x| {
            Credentials::token("admin", "token").authorize_as(format!("alice{x}"))
        }),
        ("a trace", |x| Credentials::anonymous(format!("alice{x}"))),
    ];
    for (what, make) in makers {
        for &mechanism in Mechanism::ALL {
            // \x01 parts the fields of XOAUTH2 and OAUTHBEARER (RFC 7628, 3.1); a comma those of
            // SCRAM (RFC 5802, 5.1).
            for breaks in BREAKS
                .iter()
                .chain(&["\x01auth=Bearer other\x01\x01", ",p=x", "=2C"])
            {
                let (result, said) = log_in(mechanism, make(breaks)).await;
                let context = format!("{what} with {breaks:?}, {mechanism}: {said:?}");
                assert!(result.is_err(), "{context}");
                // One command or response a line, and all in base64.
                for line in said
                    .strip_suffix("\r\n")
                    .unwrap_or(&said)
                    .split("\r\n")
                    .skip(1)
                {
                    let rest = line
                        .strip_prefix(&format!("AUTH {mechanism}"))
                        .unwrap_or(line)
                        .trim_start();
                    let is_base64 = rest
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"+/=*".contains(&b));
                    assert!(is_base64, "{context}");
                }
                let said_fields = said.lines().flat_map(|line| line.rsplit(' ').next());
                for field in said_fields.filter_map(decoded) {
                    // A NUL in a user's name would shift the fields of PLAIN (RFC 4616, 2).
                    assert!(
                        field.iter().filter(|&&byte| byte == 0).count() <= 2,
                        "{context}"
                    );
                    let fields = String::from_utf8_lossy(&field)
                        .matches("auth=Bearer ")
                        .count();
                    assert!(fields <= 1, "{context}");
                }
            }
        }
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = (0u32, 0);
    let mut bytes = Vec::new();
    for byte in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|letter| *letter == byte)?;
        bits = (bits.0 << 6 | value as u32, bits.1 + 6);
        if bits.1 >= 8 {
            bits.1 -= 8;
            bytes.push((bits.0 >> bits.1) as u8);
            bits.0 &= (1 << bits.1) - 1;
        }
    }
    Some(bytes)
}

#[tokio::test]
async fn no_trust_store_password_is_shown() {
    use envoi::tls::Trust;
    let folder = tempfile::tempdir().unwrap();
    let (store, file) = (folder.path().join("a.p12"), folder.path().join("password"));
    std::fs::write(&store, b"\x30\x03\x02\x01\x03").unwrap();
    for breaks in BREAKS {
        // It goes nowhere but into the store's key: no line to break out of, and nothing of it in
        // an error.
        let trust = Trust::empty()
            .file(&store)
            .password(format!("hunter2{breaks}"));
        let error = trust.load().unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(
            error.kind() == ErrorKind::Config && !text.contains("hunter2"),
            "{text}"
        );
        // In a file, its first line is the password.
        std::fs::write(&file, format!("hunter2{breaks}")).unwrap();
        let url = format!(
            "smtp://localhost:1?trust={}&trust-password-file={}",
            store.to_str().unwrap(),
            file.to_str().unwrap()
        );
        let error = Client::from_url(&url).unwrap().connect().await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(
            error.kind() == ErrorKind::Config && !text.contains("hunter2"),
            "{text}"
        );
    }
}

#[test]
fn invalid_requests_fail_before_connecting() {
    // Without a runtime there is no connection: the fault is found before one is needed.
    let bad = MessageBuilder::new()
        .from("me@example.org")
        .to("you@example.com")
        .subject("a\r\nb")
        .text_body("x");
    let client = Client::new(plain());
    let outcome = client
        .send(bad)
        .now_or_never()
        .expect("there is nothing to wait for");
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Request);
    // RFC 4616, 2 (PLAIN); RFC 4013, 2.3 (SCRAM); RFC 6750, 2.1 (tokens); RFC 4422, 3.4.1 (who is
    // acted for).
    let login =
        |user: &str, password: &str| plain().auth_in_clear(true).user(user).password(password);
    let url = |url: &str| Endpoint::from_url(url).unwrap();
    let tokens = |user: &str| {
        plain()
            .user(user)
            .token_source(async |_| Ok::<_, std::io::Error>("token"))
    };
    for (what, endpoint, words) in [
        ("a password", login("alice", "hunter2\0"), "NUL"),
        ("a user", login("al\0ice", "hunter2"), "NUL"),
        // RFC 4616, 2: neither is empty. A server may bind anonymously then (RFC 4513, 5.1.2).
        (
            "an empty password",
            login("alice", ""),
            "the password is empty",
        ),
        (
            "an empty password from a URL",
            url("smtp://alice:@mail.example.org"),
            "the password is empty",
        ),
        (
            "an empty user",
            login("", "hunter2"),
            "the user name is empty",
        ),
        (
            "a user for whom to act",
            plain().credentials(Credentials::new("a", "hunter2").authorize_as("b\0")),
            "NUL",
        ),
        (
            "another for whom to act",
            plain().credentials(Credentials::external().authorize_as("b\0")),
            "NUL",
        ),
        (
            "an empty authorization identity",
            plain().credentials(Credentials::new("a", "hunter2").authorize_as("")),
            "is empty",
        ),
        (
            "a NUL with a token",
            plain().credentials(Credentials::token("a", "hunter2").authorize_as("b\0")),
            "NUL",
        ),
        (
            "fields with a token",
            plain().credentials(Credentials::token("a", "hunter2").authorize_as("b\x01host=x\x01")),
            "the user to act for contains a control",
        ),
        (
            "a NUL for SCRAM",
            plain()
                .credentials(Credentials::new("a", "hunter2").authorize_as("b\0"))
                .mechanism(Mechanism::ScramSha1),
            "NUL",
        ),
        (
            "a user of XOAUTH2 that is empty",
            plain()
                .credentials(Credentials::token("", "hunter2"))
                .mechanism(Mechanism::XOAuth2),
            "is empty",
        ),
        (
            "a trace",
            plain().credentials(Credentials::anonymous("a\0")),
            "control",
        ),
        (
            "a trace with a line end",
            plain().credentials(Credentials::anonymous("a\r\n")),
            "control",
        ),
        (
            "a trace that turns the text",
            plain().credentials(Credentials::anonymous("a\u{202e}b")),
            "cannot be seen",
        ),
        (
            "a trace that is too long",
            plain().credentials(Credentials::anonymous("x".repeat(256))),
            "255",
        ),
        (
            "a trace that is no address",
            plain().credentials(Credentials::anonymous("a b@c")),
            "not an address",
        ),
        (
            "a token",
            plain().credentials(Credentials::token("alice", "hunter2\0")),
            "token",
        ),
        (
            "a token with a line end",
            plain().credentials(Credentials::token("alice", "hunter2\n")),
            "token",
        ),
        (
            "a token that is empty",
            plain().credentials(Credentials::token("alice", "")),
            "token",
        ),
        (
            "a password that is a token",
            login("alice", "hunter2 ").mechanism(Mechanism::XOAuth2),
            "token",
        ),
        (
            "a token's user",
            tokens("alice\x01auth=Bearer x"),
            "control",
        ),
        (
            "what SCRAM prohibits",
            login("alice", "hunter2\u{7}").mechanism(Mechanism::ScramSha256),
            "RFC 4013",
        ),
        (
            "what SCRAM prohibits, and PLAIN does, too",
            login("alice", "hunter2\0").mechanisms([Mechanism::ScramSha1, Mechanism::Plain]),
            "NUL",
        ),
    ] {
        let client = Client::new(endpoint);
        let message = crate::server::text_message(0, &["you@example.com"], 10);
        let outcome = client
            .send(message)
            .now_or_never()
            .unwrap_or_else(|| panic!("{what}: it connects"));
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request, "{what}: {error}");
        assert!(error.to_string().contains(words), "{what}: {error}");
        assert!(error.hint().is_some(), "{what}: {error}");
        assert!(
            !format!("{error} {error:?}").contains("hunter2"),
            "{what}: {error}"
        );
        assert!(
            !error.to_string().contains(char::is_control),
            "{what}: {error:?}"
        );
    }
    let delivery = DeliveryOptions::new().envelope_id(EnvelopeId::new("a b+c=d").unwrap());
    assert!(format!("{delivery:?}").contains("a b+c=d"));
}
