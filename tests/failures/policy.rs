//! What the policies promise, on real connections: when there is TLS, when there is none, and what
//! the receipt tells of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoi::testing;
use envoi::tls::{PlaintextReason, Security, TlsInfo, TlsSettings, TlsVersion, Trust};
use envoi::{Client, Endpoint, Error, ErrorKind, Phase, Receipt, Timeouts};
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::case::{Party, World, hello, hurried, leaf};
use crate::servers::Server::{Plain, StartTls};
use crate::servers::{CLOSE, SILENCE, Server, config, start};

const PATIENCE: Duration = Duration::from_secs(60);

/// Sends over the connection that `adapt` makes of an opportunistic one, and tells what each
/// connection heard.
async fn send(
    server: Server,
    world: &World,
    adapt: impl FnOnce(Endpoint) -> Endpoint,
) -> (Result<Receipt, Error>, Vec<Vec<String>>) {
    let running = start(&server, world).await;
    let endpoint = Endpoint::new("localhost")
        .port(running.port)
        .security(Security::Opportunistic);
    let endpoint = endpoint.trust(Trust::empty().pem(&world.root.pem));
    let client = Client::new(adapt(
        endpoint.timeouts(Timeouts::uniform(Duration::from_secs(20))),
    ));
    let result = timeout(PATIENCE, client.send(hello()))
        .await
        .expect("the client hangs");
    let heard = running.heard.lock().unwrap().clone();
    (result, heard)
}

fn unknown(world: &World) -> ServerConfig {
    config(&[&Party::new(leaf(&["localhost"]), Some(&world.other))])
}

fn good(world: &World) -> ServerConfig {
    config(&[&world.good()])
}

fn has(commands: &[String], verb: &str) -> bool {
    commands.iter().any(|line| line.starts_with(verb))
}

#[tokio::test]
async fn opportunistic_tls_accepts_and_reports_any_certificate() {
    let world = World::new();
    let (receipt, heard) = send(StartTls(unknown, &[]), &world, |endpoint| endpoint).await;
    let tls = receipt.unwrap().tls.expect("TLS is used");
    assert!(!tls.is_verified() && tls.verified_by.is_none());
    let reason = tls.not_verified_reason.as_ref().unwrap();
    assert!(
        reason
            .to_string()
            .contains("\"CN=Unknown Root\", which is missing"),
        "{reason}"
    );
    assert_eq!(heard.len(), 1);

    let (receipt, _) = send(StartTls(good, &[]), &world, |endpoint| endpoint).await;
    let receipt = receipt.unwrap();
    assert_eq!(receipt.plaintext_reason, None);
    let tls = receipt.tls.unwrap();
    assert!(tls.is_verified() && tls.not_verified_reason.is_none());
    assert_eq!(tls.verified_by.as_deref(), Some("CN=Example Root"));
}

#[tokio::test]
async fn opportunistic_tls_falls_back_once_and_reports_the_reason() {
    let world = World::new();
    let hurry = |endpoint| hurried(endpoint, &World::new());
    for (script, connections, because) in [
        (
            &[("EHLO", "250 mail.example.org")][..],
            1,
            "the server does not offer STARTTLS",
        ),
        (
            &[("STARTTLS", "454 4.7.0 TLS not available")],
            2,
            "the server said: 454 4.7.0 TLS not available",
        ),
        (
            &[("STARTTLS", "502 5.5.1 What?")],
            2,
            "the server said: 502 5.5.1 What?",
        ),
        (
            &[("STARTTLS", CLOSE)],
            2,
            "the connection ended before the go-ahead for TLS",
        ),
        (
            &[("STARTTLS", SILENCE)],
            2,
            "the server did not answer STARTTLS within 700ms",
        ),
        (
            &[("TLS", CLOSE)],
            2,
            "instead of answering the TLS handshake",
        ),
        (
            &[("TLS", SILENCE)],
            2,
            "the TLS handshake did not end within 700ms",
        ),
    ] {
        let (receipt, heard) = send(Plain(script), &world, hurry).await;
        let receipt = receipt.unwrap();
        assert!(receipt.tls.is_none());
        let reason = receipt.plaintext_reason.unwrap();
        assert!(reason.to_string().contains(because), "{reason}");
        let is_refused = matches!(reason, PlaintextReason::Refused(_));
        assert_eq!(is_refused, because.starts_with("the server said"));
        assert_eq!(heard.len(), connections, "{because}");
        let last = heard.last().unwrap();
        assert!(has(last, "MAIL") && !has(last, "STARTTLS"), "{last:?}");
        assert!(connections == 1 || !has(&heard[0], "MAIL"), "{heard:?}");
    }
    // The second connection fails: there is no third.
    let refusing = Plain(&[("TLS", CLOSE), ("MAIL", "451 4.3.0 Not now")]);
    let (result, heard) = send(refusing, &world, |endpoint| endpoint).await;
    let error = result.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase(), heard.len()),
        (ErrorKind::Refused, Phase::Mail, 2),
        "{error}"
    );
    assert!(error.receipt().unwrap().plaintext_reason.is_some());
    // What looks like an attack is no reason to go without TLS.
    let injecting = Plain(&[("STARTTLS", "220 go\r\n250 injected")]);
    let (result, heard) = send(injecting, &world, |endpoint| endpoint).await;
    assert_eq!(
        (result.unwrap_err().kind(), heard.len()),
        (ErrorKind::Protocol, 1)
    );
}

#[tokio::test]
async fn a_failed_fallback_reports_both_reasons() {
    let world = World::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(listener);
        for line in [
            "220 hello\r\n",
            "250-hello\r\n250 STARTTLS\r\n",
            "454 4.7.0 No TLS\r\n",
        ] {
            stream.write_all(line.as_bytes()).await.unwrap();
            let _heard = stream.read(&mut [0; 4096]).await;
        }
    });
    let endpoint = Endpoint::new("127.0.0.1")
        .port(port)
        .security(Security::Opportunistic);
    let client = Client::new(endpoint.trust(Trust::empty().pem(&world.root.pem)));
    let error = timeout(PATIENCE, client.send(hello()))
        .await
        .unwrap()
        .unwrap_err();
    server.await.unwrap();
    let text = error.to_string();
    assert!(
        text.contains("TLS, which failed first (the server offers STARTTLS and refused it)"),
        "{text}"
    );
    assert!(text.contains("Connection refused"), "{text}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn opportunistic_tls_with_credentials_is_as_strict_as_required() {
    let world = World::new();
    let login = |endpoint: Endpoint| endpoint.user("alice").password("secret");
    let (receipt, _) = send(StartTls(good, &[]), &world, login).await;
    let receipt = receipt.unwrap();
    assert!(receipt.tls.unwrap().is_verified() && receipt.mechanism.is_some());
    for (server, kind) in [
        (StartTls(unknown, &[]), ErrorKind::Tls),
        (
            Plain(&[("STARTTLS", "454 4.7.0 TLS not available")]),
            ErrorKind::Tls,
        ),
        (Plain(&[("TLS", CLOSE)]), ErrorKind::Tls),
        (
            Plain(&[("EHLO", "250-mail.example.org\r\n250 AUTH PLAIN LOGIN")]),
            ErrorKind::Insecure,
        ),
    ] {
        let (result, heard) = send(server, &world, login).await;
        let error = result.unwrap_err();
        assert_eq!((error.kind(), heard.len()), (kind, 1), "{error}");
        assert!(
            !has(&heard[0], "AUTH") && !has(&heard[0], "MAIL"),
            "{heard:?}"
        );
    }
}

#[tokio::test]
async fn required_tls_never_continues_in_clear_and_none_never_asks() {
    let world = World::new();
    for script in [
        &[("EHLO", "250 mail.example.org")][..],
        &[("STARTTLS", "454 4.7.0 No TLS")],
        &[("TLS", CLOSE)],
    ] {
        let (result, heard) = send(Plain(script), &world, |endpoint| {
            endpoint.security(Security::Required)
        })
        .await;
        assert_eq!(
            (result.unwrap_err().kind(), heard.len()),
            (ErrorKind::Tls, 1)
        );
        assert!(!has(&heard[0], "MAIL"));
    }
    let (receipt, heard) = send(Plain(&[]), &world, |endpoint| {
        endpoint.security(Security::None)
    })
    .await;
    let receipt = receipt.unwrap();
    assert!(receipt.tls.is_none() && receipt.plaintext_reason.is_none());
    assert!(!has(&heard[0], "STARTTLS"));
}

#[tokio::test]
async fn tls_versions_stay_within_their_bounds() {
    let world = World::new();
    for (min, max, spoken) in [
        (TlsVersion::Tls12, TlsVersion::Tls12, "TLSv1.2"),
        (TlsVersion::Tls13, TlsVersion::Tls13, "TLSv1.3"),
        (TlsVersion::Tls12, TlsVersion::Tls13, "TLSv1.3"),
    ] {
        let settings = TlsSettings::new(Trust::empty().pem(&world.root.pem))
            .min_version(min)
            .max_version(max);
        let (receipt, _) = send(StartTls(good, &[]), &world, |endpoint| {
            endpoint.tls(settings)
        })
        .await;
        assert_eq!(receipt.unwrap().tls.unwrap().version, spoken);
    }
}

/// Shows one certificate, and keeps the name that was asked for.
#[derive(Debug)]
struct Doorman {
    key: Arc<CertifiedKey>,
    asked: Mutex<Vec<Option<String>>>,
}

impl ResolvesServerCert for Doorman {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.asked
            .lock()
            .unwrap()
            .push(hello.server_name().map(str::to_owned));
        Some(self.key.clone())
    }
}

#[tokio::test]
async fn the_certificate_is_checked_for_the_configured_name() {
    let world = World::new();
    let party = Party::new(
        leaf(&["localhost", "127.0.0.1", "mail.example.net"]),
        Some(&world.root),
    );
    let der = party.key.serialize_der().try_into().unwrap();
    let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
    let key = CertifiedKey::from_der(vec![party.der.clone()], der, &provider).unwrap();
    let doorman = Arc::new(Doorman {
        key: Arc::new(key),
        asked: Mutex::default(),
    });
    let mut tls = good(&world);
    tls.cert_resolver = doorman.clone();

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = acceptor.accept(stream).await;
        }
    });
    for (host, server_name, asked) in [
        ("localhost", None, Some("localhost")),
        (
            "localhost",
            Some("mail.example.net"),
            Some("mail.example.net"),
        ),
        // The root's dot is no part of SNI (RFC 6066, 3), and an address is never sent.
        (
            "localhost",
            Some("mail.example.net."),
            Some("mail.example.net"),
        ),
        ("127.0.0.1", None, None),
        (
            "127.0.0.1",
            Some("mail.example.net"),
            Some("mail.example.net"),
        ),
        ("localhost", Some("127.0.0.1"), None),
        (
            "localhost",
            Some("other.example.net"),
            Some("other.example.net"),
        ),
    ] {
        let mut settings = TlsSettings::new(Trust::empty().pem(&world.root.pem));
        if let Some(name) = server_name {
            settings = settings.server_name(name);
        }
        let endpoint = Endpoint::new(host)
            .port(port)
            .security(Security::Implicit)
            .tls(settings);
        let error = timeout(PATIENCE, Client::new(endpoint).send(hello()))
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(
            doorman.asked.lock().unwrap().last().unwrap().as_deref(),
            asked
        );
        // The server closes once it is trusted: only the wrong name fails before.
        let is_wrong = server_name == Some("other.example.net");
        assert_eq!(
            error.phase(),
            if is_wrong {
                Phase::Tls
            } else {
                Phase::Greeting
            },
            "{error}"
        );
    }
    server.abort();
}

fn proof(tls: &TlsInfo, resumed: bool) {
    assert_eq!(tls.resumed, resumed);
    assert!(
        tls.version.starts_with("TLSv1.") && tls.cipher.starts_with("TLS"),
        "{tls}"
    );
    assert!(tls.key_exchange.is_some() || resumed, "{tls}");
    assert!(tls.is_verified() && tls.not_verified_reason.is_none());
    assert_eq!(tls.verified_by.as_deref(), Some("CN=envoi testing CA"));
    let peer = tls.peer().expect("the certificate is there");
    assert_eq!(
        (peer.subject.as_str(), peer.issuer.as_str()),
        ("CN=localhost", "CN=envoi testing CA")
    );
    assert_eq!(peer.names, ["localhost", "127.0.0.1", "::1"]);
    assert!(peer.not_before < peer.not_after);
    assert_eq!(peer.sha256.len(), 32 * 3 - 1);
}

#[tokio::test]
async fn every_receipt_has_the_anchor_and_sessions_are_resumed() {
    let refused = "nobody@example.com";
    let server = testing::Server::builder()
        .refuse_recipient(refused, "550 5.1.1 No such user")
        .start()
        .await
        .unwrap();
    let trust = Trust::empty().pem(server.ca_pem());
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let settings = TlsSettings::new(trust.clone())
            .min_version(version)
            .max_version(version);
        let client = Client::new(Endpoint::new("localhost").port(server.port()).tls(settings));
        proof(
            client.send(hello()).await.unwrap().tls.as_ref().unwrap(),
            false,
        );
        proof(
            client.send(hello()).await.unwrap().tls.as_ref().unwrap(),
            true,
        );
        // A clone is the same client.
        let mut connection = client.clone().connect().await.unwrap();
        proof(connection.tls().unwrap(), true);
        proof(
            connection
                .send(hello())
                .await
                .unwrap()
                .tls
                .as_ref()
                .unwrap(),
            true,
        );

        let message = envoi::mail_builder::MessageBuilder::new()
            .from("me@example.org")
            .to(refused)
            .text_body("Hello.\n");
        let error = client.send(message).await.unwrap_err();
        proof(error.receipt().unwrap().tls.as_ref().unwrap(), true);
    }
}

#[tokio::test]
async fn a_failed_handshake_reports_the_chain() {
    let world = World::new();
    let (result, _) = send(StartTls(unknown, &[]), &world, |endpoint| {
        endpoint.security(Security::Required)
    })
    .await;
    let error = result.unwrap_err();
    let failure = std::error::Error::source(&error)
        .unwrap()
        .downcast_ref::<envoi::tls::CertificateFailure>()
        .unwrap();
    assert_eq!(failure.chain[0].issuer, "CN=Unknown Root");
    assert_eq!(Some(failure.hint()), error.hint());
    let transcript = error.receipt().unwrap().transcript.to_string();
    assert!(
        transcript.contains("TLS handshake failed: the certificate of localhost"),
        "{transcript}"
    );
}
