//! STARTTLS (RFC 3207, and "Why TLS is better without STARTTLS", USENIX Security 2021): nothing
//! that came in clear counts inside TLS, and nothing that belongs inside goes in clear. Where TLS
//! ends without its own end, what is half said does not count.

use envoi::proto::{ClientName, Machine, Mechanism, Settings, StartTls, Step};
use envoi::tls::{Security, TlsSettings, Trust};
use envoi::{Connection, Endpoint, ErrorKind, Phase};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::script::Handling::{Fails, Sent};
use crate::script::{Act, assert_handling, meet, send, send_reply};
use crate::server::{certificate, text_message};

fn endpoint(security: Security) -> Endpoint {
    Endpoint::new("localhost")
        .security(security)
        .tls(TlsSettings::new(Trust::empty().pem(&certificate().ca)))
}

/// In clear, up to the server's go-ahead.
fn to_starttls(go_ahead: &str) -> Vec<Act> {
    vec![
        send_reply("220 hostile.example.org\r\n"),
        Act::Hear("EHLO"),
        send_reply("250-hostile.example.org\r\n250 STARTTLS\r\n"),
        Act::Hear("STARTTLS\r\n"),
        send_reply(go_ahead),
    ]
}

/// Inside TLS, up to the message's end.
fn inside() -> Vec<Act> {
    let turns = [
        ("EHLO", "250 inside\r\n"),
        ("MAIL", "250 ok\r\n"),
        ("RCPT", "250 ok\r\n"),
        ("DATA\r\n", "354 go\r\n"),
    ];
    let acts = turns
        .into_iter()
        .flat_map(|(command, reply)| [Act::Hear(command), send_reply(reply)]);
    [vec![Act::Tls], acts.collect(), vec![Act::Hear("\r\n.\r\n")]].concat()
}

#[tokio::test(start_paused = true)]
async fn injected_and_stripped_starttls_fails_without_a_login() {
    let secret = |endpoint: Endpoint| endpoint.user("alice").password("correct horse");
    let required = || secret(endpoint(Security::Required));
    let then = |go_ahead: &str, acts: &[Act]| [to_starttls(go_ahead), acts.to_vec()].concat();
    let injected = Fails(ErrorKind::Protocol, Phase::StartTls, false, "in clear");
    for (attack, endpoint, acts, expected) in [
        (
            "replies behind the go-ahead, to be read inside TLS (CVE-2021-38371 and its like)",
            required(),
            then(
                "220 go\r\n250-injected\r\n250 AUTH PLAIN\r\n",
                &[Act::Tls, Act::Listen],
            ),
            injected,
        ),
        (
            "one byte behind the go-ahead",
            required(),
            then("220 go\r\n2", &[Act::Tls, Act::Listen]),
            injected,
        ),
        (
            "a line end too many",
            required(),
            then("220 go\r\n\r\n", &[Act::Tls, Act::Listen]),
            injected,
        ),
        (
            "replies in clear, a moment after the go-ahead",
            required(),
            then(
                "220 go\r\n",
                &[Act::Rest(1), send_reply("250 injected\r\n"), Act::Listen],
            ),
            Fails(ErrorKind::Tls, Phase::Tls, false, "clear text"),
        ),
        (
            "STARTTLS taken out of the answer to EHLO (stripping)",
            required(),
            vec![
                send_reply("220 hi\r\n"),
                Act::Hear("EHLO"),
                send_reply("250-hi\r\n250 AUTH PLAIN\r\n"),
                Act::Listen,
            ],
            Fails(ErrorKind::Tls, Phase::StartTls, false, "STARTTLS"),
        ),
        (
            "the keyword garbled (XXXXXXXA, as a certain firewall does)",
            required(),
            vec![
                send_reply("220 hi\r\n"),
                Act::Hear("EHLO"),
                send_reply("250-hi\r\n250-XXXXXXXA\r\n250 AUTH PLAIN\r\n"),
                Act::Listen,
            ],
            Fails(ErrorKind::Tls, Phase::StartTls, false, "STARTTLS"),
        ),
        (
            "EHLO refused, so that HELO offers nothing",
            required(),
            vec![
                send_reply("220 hi\r\n"),
                Act::Hear("EHLO"),
                send_reply("502 what?\r\n"),
                Act::Hear("HELO"),
                send_reply("250 hi\r\n"),
                Act::Listen,
            ],
            Fails(ErrorKind::Tls, Phase::StartTls, false, "STARTTLS"),
        ),
        (
            "STARTTLS refused",
            required(),
            then("454 not now\r\n", &[Act::Listen]),
            Fails(ErrorKind::Tls, Phase::StartTls, false, "not now"),
        ),
        (
            "stripping where TLS is opportunistic: the password stays at home",
            secret(endpoint(Security::Opportunistic)),
            vec![
                send_reply("220 hi\r\n"),
                Act::Hear("EHLO"),
                send_reply("250-hi\r\n250 AUTH PLAIN LOGIN\r\n"),
                Act::Listen,
            ],
            Fails(ErrorKind::Insecure, Phase::Auth, false, "unprotected"),
        ),
        (
            "a greeting that pretends to be further: it answers EHLO and STARTTLS before they came",
            required(),
            vec![
                send_reply("220 hi\r\n250 STARTTLS\r\n250 x\r\n220 go\r\n"),
                Act::Hear("EHLO"),
                Act::Listen,
            ],
            Fails(
                ErrorKind::Protocol,
                Phase::Hello,
                false,
                "nothing was asked",
            ),
        ),
        (
            "a greeting with the whole session in clear up to the go-ahead",
            required(),
            vec![
                send_reply("220 hi\r\n250-hi\r\n250 STARTTLS\r\n220 go\r\n"),
                Act::Hear("STARTTLS\r\n"),
                send_reply("250 and now in clear\r\n"),
                Act::Listen,
            ],
            Fails(
                ErrorKind::Protocol,
                Phase::Hello,
                false,
                "nothing was asked",
            ),
        ),
        (
            "a greeting that says that the login is done (235)",
            required(),
            vec![send_reply("235 welcome alice\r\n"), Act::Listen],
            Fails(ErrorKind::Protocol, Phase::Greeting, false, "235"),
        ),
        (
            "a login offered in clear, planted before TLS, that is not there inside",
            required(),
            vec![
                send_reply("220 hi\r\n"),
                Act::Hear("EHLO"),
                send_reply("250-hi\r\n250-AUTH PLAIN LOGIN\r\n250-SIZE 10\r\n250 STARTTLS\r\n"),
                Act::Hear("STARTTLS\r\n"),
                send_reply("220 go\r\n"),
                Act::Tls,
                Act::Hear("EHLO"),
                send_reply("250 inside\r\n"),
                Act::Listen,
            ],
            Fails(ErrorKind::Auth, Phase::Auth, false, "offers no login"),
        ),
    ] {
        let meeting = meet(acts, async |stream| {
            send(
                stream,
                &endpoint,
                text_message(0, &["you@example.com"], 100),
            )
            .await
        })
        .await;
        assert_handling(attack, &meeting.result, expected);
        let heard = String::from_utf8_lossy(&meeting.heard);
        for never in ["AUTH", "MAIL", "Y29ycmVjdCBob3JzZ", "AGFsaWNlAGNvcnJlY3Q"] {
            assert!(
                !heard.contains(never),
                "{attack}: the client said {never} in clear: {heard}"
            );
        }
    }
}

#[tokio::test]
async fn a_disturbed_handshake_never_leads_to_a_login_in_clear() {
    // A man in the middle can break any handshake. Without a login, opportunistic TLS goes on
    // in clear then, once; with one, never.
    for (attack, tears) in [
        ("garbage", &b"250 no TLS here\r\n"[..]),
        ("an alert", b"\x15\x03\x03\0\x02\x02\x28"),
        ("the end", b""),
    ] {
        for logs_in in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let serving = tokio::spawn(async move {
                let mut heard = Vec::new();
                let mut buffer = [0; 4096];
                for connection in 0.. {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut replies = vec![
                        &b"220 hi\r\n"[..],
                        b"250-hi\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n",
                    ];
                    replies.extend(if connection == 0 {
                        [&b"220 go\r\n"[..], tears]
                    } else {
                        [&b"235 ok\r\n"[..]; 2]
                    });
                    for reply in replies.into_iter().filter(|reply| !reply.is_empty()) {
                        // Without a login, the client has gone by then.
                        let _ = stream.write_all(reply).await;
                        if reply == b"220 go\r\n" && tears.is_empty() {
                            break;
                        }
                        let length = stream.read(&mut buffer).await.unwrap_or(0);
                        heard.extend_from_slice(&buffer[..length]);
                    }
                    if connection == 1 {
                        break;
                    }
                }
                heard
            });
            let mut endpoint = endpoint(Security::Opportunistic)
                .port(port)
                .auth_in_clear(true);
            if logs_in {
                endpoint = endpoint.user("alice").password("correct horse");
            }
            let connected = Connection::connect(&endpoint).await;
            assert_eq!(connected.is_err(), logs_in, "{attack}");
            if let Err(error) = connected {
                assert_eq!(
                    (error.kind(), error.phase()),
                    (ErrorKind::Tls, Phase::Tls),
                    "{attack}: {error}"
                );
                assert!(!serving.is_finished(), "{attack}: it came again");
                serving.abort();
            } else {
                assert!(connected.unwrap().plaintext_reason().is_some(), "{attack}");
                let heard = serving.await.unwrap();
                assert!(
                    !String::from_utf8_lossy(&heard).contains("AUTH"),
                    "{attack}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn capabilities_planted_in_clear_are_forgotten() {
    // In clear: a limit for the size, extensions, and the weakest mechanism. Inside: none of it.
    let planted = "250-planted.example.org\r\n250-SIZE \
        10\r\n250-CHUNKING\r\n250-PIPELINING\r\n250-AUTH LOGIN\r\n250 STARTTLS\r\n";
    let acts = vec![
        send_reply("220 hi\r\n"),
        Act::Hear("EHLO"),
        send_reply(planted),
        Act::Hear("STARTTLS\r\n"),
        send_reply("220 go\r\n"),
        Act::Tls,
        Act::Hear("EHLO"),
        send_reply("250-inside\r\n250 AUTH PLAIN\r\n"),
        Act::Hear("AUTH PLAIN "),
        send_reply("235 ok\r\n"),
        Act::Hear("MAIL"),
        send_reply("250 ok\r\n"),
        Act::Hear("RCPT"),
        send_reply("250 ok\r\n"),
        Act::Hear("DATA\r\n"),
        send_reply("354 go\r\n"),
        Act::Hear("\r\n.\r\n"),
        send_reply("250 stored\r\n"),
        Act::Listen,
    ];
    let endpoint = endpoint(Security::Required)
        .user("alice")
        .password("secret");
    let meeting = meet(acts, async |stream| {
        let mut connection = Connection::from_stream(stream, &endpoint).await?;
        assert_eq!(connection.mechanism(), Some(Mechanism::Plain));
        assert!(
            connection.capabilities().size_limit().is_none()
                && !connection.capabilities().offers("CHUNKING")
        );
        connection
            .send(text_message(0, &["you@example.com"], 100))
            .await
    });
    assert_handling("planted", &meeting.await.result, Sent);
}

#[test]
fn planted_capabilities_are_gone_before_the_next_ehlo() {
    // Before the next answer to EHLO, too: nothing of it can be asked for.
    let mut settings = Settings::new(ClientName::new("client.example.org").unwrap());
    settings.starttls = StartTls::Required;
    let mut machine = Machine::new(settings);
    for reply in [
        "220 hi\r\n",
        "250-hi\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n",
        "220 go\r\n",
    ] {
        assert_eq!(machine.input(reply.as_bytes()), reply.len());
        while !matches!(machine.step().unwrap(), Step::Wait { .. } | Step::Upgrade) {}
        let length = machine.output().len();
        machine.wrote(length);
    }
    assert_eq!(machine.capabilities().auth(), ["PLAIN"]);
    machine.upgraded().unwrap();
    assert!(machine.capabilities().keywords().is_empty() && machine.is_secure());
}

#[tokio::test(start_paused = true)]
async fn starttls_offered_inside_tls_is_ignored() {
    let mut acts = [
        to_starttls("220 go\r\n"),
        inside(),
        vec![send_reply("250 stored\r\n"), Act::Listen],
    ]
    .concat();
    for act in &mut acts {
        if matches!(act, Act::Say(reply) if reply == b"250 inside\r\n") {
            *act = send_reply("250-inside\r\n250 STARTTLS\r\n");
        }
    }
    let endpoint = endpoint(Security::Required);
    let meeting = meet(acts, async |stream| {
        send(
            stream,
            &endpoint,
            text_message(0, &["you@example.com"], 100),
        )
        .await
    })
    .await;
    assert_handling("STARTTLS inside TLS", &meeting.result, Sent);
    let heard = String::from_utf8_lossy(&meeting.heard).into_owned();
    assert_eq!(heard.matches("STARTTLS").count(), 1, "{heard}");
}

#[tokio::test(start_paused = true)]
async fn truncated_tls_gives_no_success() {
    // RFC 8446, 6.1: without close_notify, an attacker may have cut the connection.
    for (attack, end, expected) in [
        (
            "in the middle of the last reply",
            vec![send_reply("250-stored\r\n250 an"), Act::Cut],
            Fails(ErrorKind::Closed, Phase::EndOfData, true, ""),
        ),
        (
            "between two lines of it",
            vec![send_reply("250-stored\r\n"), Act::Cut],
            Fails(ErrorKind::Closed, Phase::EndOfData, true, ""),
        ),
        (
            "before its line end",
            vec![send_reply("250 stored"), Act::Cut],
            Fails(ErrorKind::Closed, Phase::EndOfData, true, ""),
        ),
        (
            "before it, with close_notify",
            vec![Act::Close],
            Fails(ErrorKind::Closed, Phase::EndOfData, true, ""),
        ),
        (
            "before its line end, with close_notify",
            vec![send_reply("250 stored"), Act::Close],
            Fails(ErrorKind::Closed, Phase::EndOfData, true, ""),
        ),
        (
            "behind it, without close_notify",
            vec![send_reply("250 stored\r\n"), Act::Cut],
            Sent,
        ),
        (
            "instead of 221",
            vec![send_reply("250 stored\r\n"), Act::Hear("QUIT"), Act::Cut],
            Sent,
        ),
        (
            "behind 221, without close_notify",
            vec![
                send_reply("250 stored\r\n"),
                Act::Hear("QUIT"),
                send_reply("221 bye\r\n"),
                Act::Cut,
            ],
            Sent,
        ),
        (
            "behind 221, with close_notify",
            vec![
                send_reply("250 stored\r\n"),
                Act::Hear("QUIT"),
                send_reply("221 bye\r\n"),
                Act::Close,
            ],
            Sent,
        ),
        (
            "in the middle of 221",
            vec![
                send_reply("250 stored\r\n"),
                Act::Hear("QUIT"),
                send_reply("221-bye\r\n2"),
                Act::Cut,
            ],
            Sent,
        ),
    ] {
        for security in [Security::Required, Security::Implicit] {
            let opening = match security {
                Security::Required => to_starttls("220 go\r\n"),
                _ => Vec::new(),
            };
            let mut acts = [opening, inside(), end.clone()].concat();
            if security == Security::Implicit {
                acts.insert(1, send_reply("220 hi\r\n"));
            }
            let endpoint = endpoint(security);
            let meeting = meet(acts, async |stream| {
                send(
                    stream,
                    &endpoint,
                    text_message(0, &["you@example.com"], 100),
                )
                .await
            })
            .await;
            assert_handling(attack, &meeting.result, expected);
        }
    }
}
