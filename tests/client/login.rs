//! Logging in: every mechanism that the embedded server knows, the choice among them, tokens that
//! expire, and a man in the middle.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use envoi::proto::{Mechanism, SaslExchange, SaslFailure, SaslSession};
use envoi::testing::Server;
use envoi::tls::{Security, TlsSettings, TlsVersion, Trust, rustls};
use envoi::{Connection, Credentials, Endpoint, Error, ErrorKind, Phase, TokenRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const PASSWORD: &str = "correct horse";
const TOKEN: &str = "ya29.good-token";

const ALL: [Mechanism; 9] = [
    Mechanism::ScramSha256Plus,
    Mechanism::ScramSha1Plus,
    Mechanism::ScramSha256,
    Mechanism::ScramSha1,
    Mechanism::Plain,
    Mechanism::Login,
    Mechanism::CramMd5,
    Mechanism::OAuthBearer,
    Mechanism::XOAuth2,
];

async fn server(mechanisms: &[Mechanism]) -> Server {
    let server = Server::builder()
        .login("alice", PASSWORD)
        .token("alice", TOKEN)
        .require_login(true);
    server
        .mechanisms(mechanisms.iter().copied())
        .start()
        .await
        .unwrap()
}

fn endpoint(server: &Server) -> Endpoint {
    Endpoint::new(server.host())
        .port(server.port())
        .trust(Trust::empty().pem(server.ca_pem().as_bytes()))
}

fn credentials(mechanism: Mechanism, secret: Option<&str>) -> Credentials {
    match mechanism {
        Mechanism::OAuthBearer | Mechanism::XOAuth2 => {
            Credentials::token("alice", secret.unwrap_or(TOKEN))
        }
        _ => Credentials::new("alice", secret.unwrap_or(PASSWORD)),
    }
}

async fn connect(endpoint: &Endpoint) -> Result<Connection, Error> {
    Connection::connect(endpoint).await
}

#[tokio::test]
async fn every_mechanism_logs_in_and_shows_no_secret() {
    let server = server(&ALL).await;
    for mechanism in ALL {
        let endpoint = endpoint(&server)
            .mechanism(mechanism)
            .credentials(credentials(mechanism, None));
        let connection = connect(&endpoint)
            .await
            .unwrap_or_else(|error| panic!("{mechanism}: {error}"));
        assert_eq!(connection.mechanism(), Some(mechanism));
        let transcript = connection.transcript().to_string();
        for secret in [
            PASSWORD,
            TOKEN,
            "Y29ycmVjdCBob3JzZQ",
            "eWEyOS5nb29kLXRva2Vu",
            "dj0",
        ] {
            assert!(!transcript.contains(secret), "{mechanism}: {transcript}");
        }
        assert!(
            transcript.contains(&format!("AUTH {mechanism}")),
            "{transcript}"
        );
        connection.quit().await;
    }
}

#[tokio::test]
async fn a_wrong_password_or_token_fails_with_kind_auth() {
    let server = server(&ALL).await;
    for mechanism in ALL {
        let endpoint = endpoint(&server)
            .mechanism(mechanism)
            .credentials(credentials(mechanism, Some("battery-staple")));
        let error = connect(&endpoint).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Auth, Phase::Auth),
            "{mechanism}: {error}"
        );
        assert_eq!(error.reply().unwrap().code(), 535, "{mechanism}: {error}");
        let (says, advises) = match mechanism {
            Mechanism::OAuthBearer | Mechanism::XOAuth2 => {
                ("\"invalid_token\" (scope \"mail\")", "expired")
            }
            Mechanism::Plain | Mechanism::Login | Mechanism::CramMd5 => {
                ("did not accept", "password")
            }
            _ => ("the password is wrong", "password"),
        };
        assert!(error.message().contains(says), "{mechanism}: {error}");
        assert!(
            error.hint().unwrap().contains(advises),
            "{mechanism}: {error}"
        );
    }
}

#[tokio::test]
async fn channel_binding_works_with_both_tls_versions() {
    for security in [Security::Required, Security::Implicit] {
        let server = Server::builder().login("alice", PASSWORD);
        let server = if security == Security::Implicit {
            server.implicit_tls()
        } else {
            server
        };
        let server = server
            .mechanisms([Mechanism::ScramSha1Plus, Mechanism::ScramSha256Plus])
            .start()
            .await
            .unwrap();
        for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
            let trust = Trust::empty().pem(server.ca_pem().as_bytes());
            let endpoint = endpoint(&server)
                .security(security)
                .tls(
                    TlsSettings::new(trust)
                        .min_version(version)
                        .max_version(version),
                )
                .credentials(Credentials::new("alice", PASSWORD));
            // The second time, the TLS session may be resumed.
            for _ in 0..2 {
                let connection = connect(&endpoint).await.unwrap();
                assert_eq!(connection.tls().unwrap().version, version.to_string());
                assert_eq!(connection.mechanism(), Some(Mechanism::ScramSha256Plus));
                connection.quit().await;
            }
        }
    }
}

#[tokio::test]
async fn the_strongest_suitable_mechanism_is_used() {
    for (offered, credentials, used) in [
        (
            &ALL[..],
            Credentials::new("alice", PASSWORD),
            Mechanism::ScramSha256Plus,
        ),
        (
            &ALL[3..],
            Credentials::new("alice", PASSWORD),
            Mechanism::ScramSha1,
        ),
        (
            &ALL[4..],
            Credentials::new("alice", PASSWORD),
            Mechanism::Plain,
        ),
        (
            &ALL[..],
            Credentials::token("alice", TOKEN),
            Mechanism::OAuthBearer,
        ),
        (
            &[Mechanism::CramMd5, Mechanism::XOAuth2],
            Credentials::new("alice", PASSWORD),
            Mechanism::CramMd5,
        ),
    ] {
        let server = server(offered).await;
        let connection = connect(&endpoint(&server).credentials(credentials))
            .await
            .unwrap();
        assert_eq!(connection.mechanism(), Some(used), "{offered:?}");
    }
}

#[tokio::test]
async fn a_password_file_is_read_at_each_login() {
    let server = server(&[Mechanism::Plain, Mechanism::OAuthBearer]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    let endpoint = endpoint(&server).user("alice").password_file(&path);
    let missing = connect(&endpoint).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Config, "{missing}");
    assert!(missing.to_string().contains("password"), "{missing}");

    std::fs::write(&path, "\n").unwrap();
    let empty = connect(&endpoint).await.unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::Config, "{empty}");
    assert!(empty.message().contains(path.to_str().unwrap()), "{empty}");

    std::fs::write(&path, "the old one\n").unwrap();
    let refused = connect(&endpoint).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Auth);
    assert!(
        !format!("{refused:?}").contains("the old one"),
        "{refused:?}"
    );
    std::fs::write(&path, format!("{PASSWORD}\n")).unwrap();
    connect(&endpoint).await.unwrap();

    // As a token, if the mechanism takes one.
    std::fs::write(&path, TOKEN).unwrap();
    let with_token = endpoint.clone().mechanism(Mechanism::OAuthBearer);
    connect(&with_token).await.unwrap();
    // The last of the two settings counts.
    connect(&endpoint.clone().password(PASSWORD)).await.unwrap();
    let last = endpoint.clone().password(PASSWORD).password_file(&path);
    assert_eq!(connect(&last).await.unwrap_err().kind(), ErrorKind::Auth);

    // Found before connecting.
    let without_user = Endpoint::new("localhost").port(1).password_file(&path);
    assert_eq!(
        connect(&without_user).await.unwrap_err().kind(),
        ErrorKind::Request
    );
}

#[tokio::test]
async fn a_password_that_saslprep_refuses_uses_another_mechanism() {
    let server = Server::builder()
        .login("alice", "pass\u{1F511}word")
        .mechanisms(ALL)
        .start()
        .await
        .unwrap();
    let connection =
        connect(&endpoint(&server).credentials(Credentials::new("alice", "pass\u{1F511}word")))
            .await;
    assert_eq!(connection.unwrap().mechanism(), Some(Mechanism::Plain));
}

#[tokio::test]
async fn mechanisms_are_tried_in_the_callers_order() {
    let server = server(&ALL).await;
    let order = [
        Mechanism::External,
        Mechanism::CramMd5,
        Mechanism::ScramSha256,
    ];
    let mine = endpoint(&server)
        .credentials(Credentials::new("alice", PASSWORD))
        .mechanisms(order);
    assert_eq!(
        connect(&mine).await.unwrap().mechanism(),
        Some(Mechanism::CramMd5)
    );

    let error = connect(
        &mine
            .clone()
            .mechanisms([Mechanism::External, Mechanism::XOAuth2]),
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert!(
        error.message().contains("SCRAM-SHA-256-PLUS")
            && error.message().contains("EXTERNAL, XOAUTH2"),
        "{error}"
    );
    let error = connect(&mine.mechanism(Mechanism::XOAuth2))
        .await
        .unwrap_err();
    assert_eq!(error.message(), "XOAUTH2 is not a mechanism for a password");
}

#[tokio::test]
async fn without_tls_mechanisms_that_reveal_the_password_come_last() {
    let server = Server::builder()
        .plaintext()
        .auth_in_clear(true)
        .login("alice", PASSWORD)
        .mechanisms(ALL);
    let server = server.answer(|command| {
        command
            .starts_with("AUTH SCRAM")
            .then(|| "504 5.5.4 Not me".into())
    });
    let server = server.start().await.unwrap();
    let endpoint = endpoint(&server)
        .security(Security::None)
        .credentials(Credentials::new("alice", PASSWORD));
    assert_eq!(
        connect(&endpoint).await.unwrap_err().kind(),
        ErrorKind::Insecure
    );
    let connection = connect(&endpoint.auth_in_clear(true)).await.unwrap();
    assert_eq!(connection.mechanism(), Some(Mechanism::CramMd5));
    let session = &server.connections()[1];
    let tried: Vec<_> = session
        .commands()
        .filter(|command| command.starts_with("AUTH"))
        .collect();
    assert_eq!(
        tried,
        [
            "AUTH SCRAM-SHA-256 ***",
            "AUTH SCRAM-SHA-1 ***",
            "AUTH CRAM-MD5"
        ]
    );
}

#[tokio::test]
async fn the_next_mechanism_is_tried_only_after_certain_replies() {
    for (reply, next) in [
        ("504 5.5.4 Unrecognized authentication type", true),
        ("534 5.7.9 Authentication mechanism is too weak", true),
        ("538 5.7.11 Encryption required", true),
        ("432 4.7.12 A password transition is needed", true),
        ("535 5.7.4 Security features not supported", true),
        (
            "535 5.7.8 Error: authentication failed: Invalid authentication mechanism",
            true,
        ),
        (
            "535 5.7.8 Error: authentication failed: no mechanism available",
            true,
        ),
        ("550 5.7.1 Unsupported authentication mechanism", true),
        (
            "535 5.7.8 Error: authentication failed: invalid password",
            false,
        ),
        ("421 4.7.0 Too many errors", false),
        ("535 5.7.8 Authentication credentials invalid", false),
        ("534 5.7.9 Application-specific password required", false),
        ("454 4.7.0 Temporary authentication failure", false),
        ("530 5.7.0 Must issue a STARTTLS command first", false),
    ] {
        let server = Server::builder()
            .login("alice", PASSWORD)
            .mechanisms([Mechanism::ScramSha256, Mechanism::Plain]);
        let server =
            server.answer(move |command| command.starts_with("AUTH SCRAM").then(|| reply.into()));
        let server = server.start().await.unwrap();
        let outcome =
            connect(&endpoint(&server).credentials(Credentials::new("alice", PASSWORD))).await;
        match outcome {
            Ok(connection) => assert!(
                next && connection.mechanism() == Some(Mechanism::Plain),
                "{reply}"
            ),
            Err(error) => {
                assert!(!next && error.kind() == ErrorKind::Auth, "{reply}: {error}");
                assert_eq!(error.is_transient(), reply.starts_with('4'), "{reply}");
                assert!(error.hint().is_some(), "{reply}");
            }
        }
    }
}

#[tokio::test]
async fn a_failed_exchange_is_not_followed_by_a_plaintext_password() {
    let server = Server::builder()
        .login("alice", PASSWORD)
        .mechanisms([Mechanism::ScramSha256, Mechanism::Plain]);
    // r=x,s=AAAA,i=4096: a nonce that is not the client's. The answer is `*`, as a command to this
    // server.
    let server = server.answer(|command| match command {
        command if command.starts_with("AUTH SCRAM") => Some("334 cj14LHM9QUFBQSxpPTQwOTY=".into()),
        "*" => Some("504 5.5.4 Take another one".into()),
        _ => None,
    });
    let server = server.start().await.unwrap();
    let error = connect(&endpoint(&server).credentials(Credentials::new("alice", PASSWORD)))
        .await
        .unwrap_err();
    assert!(error.message().contains("another login"), "{error}");
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("tamper") && !hint.contains("password"),
        "{hint}"
    );
    let tried = server.connections()[0]
        .commands()
        .filter(|command| command.starts_with("AUTH"))
        .count();
    assert_eq!(tried, 1);
    assert!(
        !server.connections()[0]
            .commands()
            .any(|command| command.starts_with("AUTH PLAIN"))
    );
}

#[tokio::test]
async fn user_names_with_escapes_arrive_unchanged() {
    const NAME: &str = "x=1,y=2C@example.org";
    let server = Server::builder()
        .login(NAME, PASSWORD)
        .token(NAME, TOKEN)
        .mechanisms(ALL)
        .start()
        .await
        .unwrap();
    for mechanism in ALL {
        let credentials = match mechanism {
            Mechanism::OAuthBearer | Mechanism::XOAuth2 => Credentials::token(NAME, TOKEN),
            _ => Credentials::new(NAME, PASSWORD),
        };
        let mut all = vec![credentials.clone()];
        if !matches!(
            mechanism,
            Mechanism::Login | Mechanism::CramMd5 | Mechanism::XOAuth2
        ) {
            all.push(credentials.authorize_as(NAME));
        }
        if mechanism == Mechanism::OAuthBearer {
            // Whose it is, the token tells.
            all.push(Credentials::token("", TOKEN));
        }
        for credentials in all {
            let connection = connect(
                &endpoint(&server)
                    .mechanism(mechanism)
                    .credentials(credentials),
            )
            .await;
            connection
                .unwrap_or_else(|error| panic!("{mechanism}: {error}"))
                .quit()
                .await;
        }
    }
}

#[tokio::test]
async fn refused_channel_binding_is_given_up_only_if_the_reply_names_the_mechanism() {
    let [plus, plain] = [Mechanism::ScramSha256Plus, Mechanism::Plain];
    for reply in [
        "504 5.5.4 Unrecognized authentication type",
        "535 5.7.8 Error: authentication failed: Invalid authentication mechanism",
        "534 5.7.9 Authentication mechanism is too weak",
        "538 5.7.11 Encryption required",
        "432 4.7.12 A password transition is needed",
    ] {
        for (named, used) in [
            (&[][..], None),
            (&[plus], None),
            (&[plus, Mechanism::ScramSha1], Some(Mechanism::ScramSha1)),
            (&[plus, plain], Some(plain)),
        ] {
            let server = Server::builder().login("alice", PASSWORD).mechanisms(ALL);
            let server =
                server.answer(move |command| command.contains("-PLUS").then(|| reply.into()));
            let server = server.start().await.unwrap();
            let endpoint = endpoint(&server).credentials(Credentials::new("alice", PASSWORD));
            let outcome = connect(&endpoint.mechanisms(named.iter().copied())).await;
            let context = format!("{reply}, {named:?}");
            let tried = server.connections()[0]
                .commands()
                .filter(|command| command.starts_with("AUTH"))
                .count();
            match (outcome, used) {
                (Ok(connection), used) => assert_eq!(connection.mechanism(), used, "{context}"),
                (Err(error), None) => {
                    assert_eq!(
                        (error.kind(), tried),
                        (ErrorKind::Auth, 1),
                        "{context}: {error}"
                    );
                    let hint = error.hint().unwrap();
                    assert!(
                        hint.contains("another server may be in between")
                            && !hint.contains("password"),
                        "{hint}"
                    );
                }
                (Err(error), Some(_)) => panic!("{context}: {error}"),
            }
        }
    }
}

/// A server whose part of the exchange is faulty: it challenges AUTH with this mechanism so, and
/// takes others as they are.
fn faulty(mechanism: &'static str, challenge: &'static str) -> envoi::testing::Builder {
    Server::builder()
        .login("alice", PASSWORD)
        .mechanisms(ALL[2..].iter().copied())
        .answer(move |command| {
            match command
                .strip_prefix("AUTH ")
                .and_then(|auth| auth.split(' ').next())
            {
                Some(name) if name.starts_with(mechanism) => Some(format!("334 {challenge}")),
                _ if command == "*" => Some("501 5.7.0 Authentication aborted".into()),
                _ => None,
            }
        })
}

/// Not base64; an extension that must be known (`m=x`); fields that are missing (`r=x,s=?`); not
/// UTF-8.
const BROKEN: [&str; 4] = [
    "<not base64>",
    "bT14LHI9eSxzPUFBQUEsaT00MDk2",
    "cj14LHM9Pw==",
    "gICA",
];

#[tokio::test]
async fn a_broken_exchange_is_followed_only_by_mechanisms_that_hide_the_password() {
    for challenge in BROKEN {
        let server = faulty("SCRAM", challenge).start().await.unwrap();
        let endpoint = endpoint(&server).credentials(Credentials::new("alice", PASSWORD));
        let connection = connect(&endpoint)
            .await
            .unwrap_or_else(|error| panic!("{challenge}: {error}"));
        assert_eq!(
            connection.mechanism(),
            Some(Mechanism::CramMd5),
            "{challenge}"
        );
        let order = [Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login];
        let error = connect(&endpoint.mechanisms(order)).await.unwrap_err();
        let hint = error.hint().unwrap();
        assert!(
            hint.contains("mechanism") && !hint.contains("password"),
            "{challenge}: {error}"
        );
        let said = server.connections();
        assert!(
            !said.iter().any(|session| session
                .commands()
                .any(|said| said.starts_with("AUTH PLAIN"))),
            "{challenge}"
        );
    }
    let server = faulty("CRAM-MD5", "<not base64>").start().await.unwrap();
    let order = [Mechanism::CramMd5, Mechanism::ScramSha1];
    let endpoint = endpoint(&server)
        .credentials(Credentials::new("alice", PASSWORD))
        .mechanisms(order);
    assert_eq!(
        connect(&endpoint).await.unwrap().mechanism(),
        Some(Mechanism::ScramSha1)
    );
}

#[tokio::test]
async fn without_verified_tls_a_broken_exchange_ends_the_login() {
    for challenge in BROKEN {
        let server = faulty("SCRAM", challenge)
            .plaintext()
            .auth_in_clear(true)
            .start()
            .await
            .unwrap();
        let clear = endpoint(&server)
            .security(Security::None)
            .auth_in_clear(true);
        let error = connect(&clear.credentials(Credentials::new("alice", PASSWORD)))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{challenge}: {error}");
        let tried = server.connections()[0]
            .commands()
            .filter(|command| command.starts_with("AUTH"))
            .count();
        assert_eq!(tried, 1, "{challenge}");

        let server = faulty("SCRAM", challenge).start().await.unwrap();
        let unverified = endpoint(&server)
            .trust(Trust::dangerous_accept_any_certificate())
            .auth_in_clear(true);
        let error = connect(&unverified.credentials(Credentials::new("alice", PASSWORD)))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{challenge}: {error}");
    }
}

#[tokio::test]
async fn mechanisms_excluded_by_a_broken_exchange_stay_excluded() {
    // CRAM-MD5 is not known after all: that is no way to PLAIN.
    let server = Server::builder()
        .login("alice", PASSWORD)
        .mechanisms(ALL[2..].iter().copied())
        .answer(|command| match command {
            command if command.starts_with("AUTH SCRAM") => Some("334 <not base64>".into()),
            "AUTH CRAM-MD5" => Some("504 5.5.4 Unrecognized authentication type".into()),
            "*" => Some("501 5.7.0 Authentication aborted".into()),
            _ => None,
        });
    let server = server.start().await.unwrap();
    let order = [
        Mechanism::ScramSha256,
        Mechanism::CramMd5,
        Mechanism::Plain,
        Mechanism::ScramSha1,
    ];
    let endpoint = endpoint(&server)
        .credentials(Credentials::new("alice", PASSWORD))
        .mechanisms(order);
    assert_eq!(
        connect(&endpoint).await.unwrap_err().kind(),
        ErrorKind::Auth
    );
    let session = &server.connections()[0];
    let tried: Vec<_> = session
        .commands()
        .filter(|command| command.starts_with("AUTH"))
        .collect();
    assert_eq!(
        tried,
        [
            "AUTH SCRAM-SHA-256 ***",
            "AUTH CRAM-MD5",
            "AUTH SCRAM-SHA-1 ***"
        ]
    );
}

#[tokio::test]
async fn each_refusal_of_a_login_has_its_own_hint() {
    let mut hints = Vec::new();
    for reply in [
        "535 5.7.8 x",
        "454 4.7.0 x",
        "530 5.7.0 x",
        "534 5.7.9 x",
        "538 5.7.11 x",
        "432 4.7.12 x",
    ] {
        let server = Server::builder().login("alice", PASSWORD);
        let server = server
            .answer(move |command| command.starts_with("AUTH").then(|| reply.into()))
            .start()
            .await
            .unwrap();
        let error = connect(&endpoint(&server).credentials(Credentials::new("alice", PASSWORD)))
            .await
            .unwrap_err();
        assert_eq!(error.reply().unwrap().code().to_string(), reply[..3]);
        hints.push(error.hint().unwrap().to_owned());
    }
    let all = hints.len();
    hints.sort();
    hints.dedup();
    assert_eq!(hints.len(), all, "{hints:#?}");
}

#[tokio::test]
async fn an_oversized_challenge_is_a_protocol_error() {
    let challenge = format!("{}334 \n", format!("334-{}\n", "A".repeat(1000)).repeat(20));
    let server = Server::builder()
        .login("alice", PASSWORD)
        .mechanisms([Mechanism::CramMd5]);
    let server =
        server.answer(move |command| command.starts_with("AUTH").then(|| challenge.clone()));
    let server = server.start().await.unwrap();
    let error = connect(&endpoint(&server).credentials(Credentials::new("alice", PASSWORD)))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Protocol, Phase::Auth)
    );
    assert!(error.message().contains("16384 bytes"), "{error}");
}

/// Asks in order for these tokens, and counts.
fn source(
    tokens: &[&'static str],
) -> (
    Arc<AtomicUsize>,
    impl Fn(TokenRequest) -> std::future::Ready<Result<&'static str, String>> + use<>,
) {
    let (asked, tokens) = (Arc::new(AtomicUsize::new(0)), tokens.to_vec());
    let count = asked.clone();
    let source = move |request| {
        let before = count.fetch_add(1, Ordering::Relaxed);
        assert_eq!(request == TokenRequest::Fresh, before > 0);
        std::future::ready(
            tokens
                .get(before)
                .copied()
                .ok_or("the identity provider is away".to_owned()),
        )
    };
    (asked, source)
}

#[tokio::test]
async fn an_expired_token_is_renewed_once() {
    let server = server(&[Mechanism::Plain, Mechanism::OAuthBearer, Mechanism::XOAuth2]).await;
    for (tokens, times, outcome) in [
        (&[TOKEN][..], 1, Ok(())),
        (&["old", TOKEN], 2, Ok(())),
        (&["old", "older", TOKEN], 2, Err("\"invalid_token\"")),
        (
            &["old"],
            2,
            Err("no token can be had to log in with: the identity provider is away"),
        ),
        (&[], 1, Err("the identity provider is away")),
        (&["two words"], 1, Err("no token can have")),
    ] {
        let (asked, source) = source(tokens);
        let connection = connect(&endpoint(&server).user("alice").token_source(source)).await;
        assert_eq!(asked.load(Ordering::Relaxed), times, "{tokens:?}");
        match (connection, outcome) {
            (Ok(connection), outcome) => {
                assert!(outcome.is_ok(), "{tokens:?}");
                assert_eq!(connection.mechanism(), Some(Mechanism::OAuthBearer));
                assert!(!connection.transcript().to_string().contains(TOKEN));
            }
            (Err(error), Err(says)) => {
                assert!(error.message().contains(says), "{tokens:?}: {error}");
                assert_eq!(error.phase(), Phase::Auth);
            }
            (Err(error), Ok(())) => panic!("{tokens:?}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_token_with_insufficient_scope_is_not_renewed() {
    // {"status":"insufficient_scope"}, and what follows its answer.
    let server = Server::builder()
        .token("alice", TOKEN)
        .mechanisms([Mechanism::OAuthBearer])
        .answer(|command| {
            let refusal = "334 eyJzdGF0dXMiOiJpbnN1ZmZpY2llbnRfc2NvcGUifQ==";
            match command {
                command if command.starts_with("AUTH") => Some(refusal.into()),
                "AQ==" => Some("535 5.7.8 No".into()),
                _ => None,
            }
        });
    let server = server.start().await.unwrap();
    let (asked, source) = source(&["a", "b"]);
    let error = connect(&endpoint(&server).user("alice").token_source(source))
        .await
        .unwrap_err();
    assert!(error.message().contains("insufficient_scope"), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_error_of_the_token_source_does_not_show_the_refused_token() {
    let server = Server::builder()
        .login("alice", PASSWORD)
        .token("alice", TOKEN);
    let server = server
        .mechanisms([Mechanism::OAuthBearer])
        .start()
        .await
        .unwrap();
    let source = |request| async move {
        match request {
            TokenRequest::Current => Ok("S3cr3tTok"),
            _ => Err(std::io::Error::other("S3cr3tTok is expired")),
        }
    };
    let error = connect(&endpoint(&server).user("alice").token_source(source))
        .await
        .unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(
        shown.contains("*** is expired") && !shown.contains("S3cr3tTok"),
        "{shown}"
    );
}

/// A mechanism that envoi has not: the server asks, and the answer is the question backwards.
struct Backwards(Arc<Mutex<Option<String>>>);

impl SaslExchange for Backwards {
    fn mechanism(&self) -> Mechanism {
        Mechanism::Other("BACKWARDS")
    }

    fn start(&mut self, session: &SaslSession<'_>) -> Result<Option<Vec<u8>>, SaslFailure> {
        let (host, _) = session.settings.server.as_ref().ok_or("no host")?;
        *self.0.lock().unwrap() = Some(format!(
            "{host} {}",
            session.channel.ok_or("no TLS")?.name()
        ));
        Ok(None)
    }

    fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslFailure> {
        Ok(challenge.iter().rev().copied().collect())
    }
}

#[tokio::test]
async fn a_custom_mechanism_logs_in() {
    let server = Server::builder()
        .implicit_tls()
        .answer(|command| match command {
            command if command.starts_with("EHLO") => {
                Some("250-localhost\n250 AUTH BACKWARDS".into())
            }
            "AUTH BACKWARDS" => Some("334 YWJj".into()),
            "Y2Jh" => Some("235 2.7.0 Ok".into()),
            _ => None,
        });
    let server = server.start().await.unwrap();
    let seen = Arc::new(Mutex::new(None));
    let exchange = seen.clone();
    let secure = endpoint(&server).security(Security::Implicit);
    let connection = connect(
        &secure
            .clone()
            .login_with(move || Backwards(exchange.clone())),
    )
    .await
    .unwrap();
    assert_eq!(connection.mechanism(), Some(Mechanism::Other("BACKWARDS")));
    assert_eq!(
        seen.lock().unwrap().as_deref(),
        Some("localhost tls-exporter")
    );
    assert!(
        connection
            .transcript()
            .to_string()
            .contains("C: AUTH BACKWARDS\nS: 334 YWJj\nC: ***\nS: 235")
    );

    let mut connection = connect(&secure).await.unwrap();
    connection.login_with(Backwards(seen)).await.unwrap();
}

/// A man in the middle: the client trusts its certificate, and what it reads inside TLS it
/// passes on, changed or not.
async fn stand_between(own: &Server, real: &Server, change: fn(&str) -> String) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(own.tls_config());
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(rustls::pki_types::pem::PemObject::from_pem_slice(real.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let connector = TlsConnector::from(Arc::new(
        config.with_root_certificates(roots).with_no_client_auth(),
    ));
    let target = (real.host().to_owned(), real.port());
    tokio::spawn(async move {
        let client = acceptor
            .accept(listener.accept().await.unwrap().0)
            .await
            .unwrap();
        let server = TcpStream::connect((target.0.as_str(), target.1))
            .await
            .unwrap();
        let server = connector
            .connect("localhost".try_into().unwrap(), server)
            .await
            .unwrap();
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_server, mut to_server) = tokio::io::split(server);
        let upwards = async { tokio::io::copy(&mut from_client, &mut to_server).await };
        let downwards = async {
            let mut buffer = [0; 4096];
            loop {
                match from_server.read(&mut buffer).await {
                    Ok(size @ 1..) => {
                        let said = change(std::str::from_utf8(&buffer[..size]).unwrap());
                        to_client.write_all(said.as_bytes()).await?;
                        to_client.flush().await?;
                    }
                    _ => return to_client.shutdown().await,
                }
            }
        };
        let _ = tokio::join!(upwards, downwards);
    });
    port
}

#[tokio::test]
async fn a_man_in_the_middle_fails_channel_binding() {
    let offered = [Mechanism::ScramSha256, Mechanism::ScramSha256Plus];
    let real = Server::builder()
        .implicit_tls()
        .login("alice", PASSWORD)
        .mechanisms(offered)
        .start()
        .await
        .unwrap();
    let own = Server::builder().implicit_tls().start().await.unwrap();
    let takes_plus_out = |said: &str| said.replace("SCRAM-SHA-256-PLUS", "NOTHING");
    for (change, version, says) in [
        (
            str::to_owned as fn(&str) -> String,
            TlsVersion::Tls13,
            "another server is in between",
        ),
        (
            str::to_owned,
            TlsVersion::Tls12,
            "another server is in between",
        ),
        (
            takes_plus_out,
            TlsVersion::Tls13,
            "something in between may have removed it",
        ),
    ] {
        let port = stand_between(&own, &real, change).await;
        let tls =
            TlsSettings::new(Trust::empty().pem(own.ca_pem().as_bytes())).max_version(version);
        let endpoint = Endpoint::new("localhost")
            .port(port)
            .security(Security::Implicit)
            .tls(tls);
        let error = connect(&endpoint.credentials(Credentials::new("alice", PASSWORD)))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
        assert!(error.message().contains(says), "{error}");
    }
}
