//! Text that others control, on the way to a terminal or a log: names in certificates, hosts,
//! paths, URLs. In nothing that is shown is a character that a terminal obeys, that turns the
//! direction of the text, or that cannot be seen.

use envoi::delivery::Notify;
use envoi::mail_builder::MessageBuilder;
use envoi::mail_builder::headers::raw::Raw;
use envoi::proto::{ClientName, Mechanism, RawCommand};
use envoi::testing::Server;
use envoi::tls::{CertificateFailure, ClientCertificate, Security, TlsSettings, Trust, rustls};
use envoi::{Address, Attachment, Client, Endpoint, Error, Message, Proxy};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::secrets::error_text;
use crate::server::text_message;

/// One of each kind: escape sequences, C1, DEL, direction, zero width, separators, a byte order
/// mark, a tag.
const EVIL: &str =
    "\x1b[31m\u{9b}2J\x7f\u{202e}\u{2066}\u{200e}\u{61c}\u{200b}\u{2060}\u{2028}\u{feff}\u{e0041}";

pub fn is_evil(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
        || matches!(c, '\u{180b}'..='\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// Lines may end.
#[track_caller]
fn assert_harmless(context: &str, text: &str) {
    let found = text.chars().find(|c| *c != '\n' && is_evil(*c));
    assert!(found.is_none(), "{context}: {found:?} is in {text:?}");
}

#[track_caller]
fn assert_error(context: &str, error: &Error) {
    assert_harmless(context, &error_text(error));
    assert_harmless(context, &format!("{} {:?}", error.message(), error.hint()));
    if let Some(receipt) = error.receipt() {
        assert_harmless(context, &receipt.server);
    }
}

/// A certificate with such names: its own, and its issuer's.
fn certificate() -> (rcgen::Certificate, KeyPair) {
    let mut params =
        CertificateParams::new(vec!["localhost".to_owned(), "a\x1b[31m\x7fb".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("a{EVIL}b"));
    params
        .distinguished_name
        .push(DnType::OrganizationName, format!("{EVIL}, Größe"));
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap(), key)
}

#[tokio::test]
async fn control_characters_in_certificate_names_are_replaced() {
    let (certificate, key) = certificate();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = config
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            tokio::spawn(async move {
                use tokio::io::AsyncWriteExt as _;
                let _ = stream.write_all(b"554 5.7.1 no\r\n").await;
                let _ = stream.shutdown().await;
            });
        }
    });
    let endpoint = Endpoint::new("localhost")
        .port(port)
        .security(Security::Implicit);
    let misnamed =
        TlsSettings::new(Trust::empty().pem(certificate.pem())).server_name("mail.example.org");
    let error = Client::new(endpoint.clone().tls(misnamed))
        .send(text_message(0, &["you@example.com"], 10))
        .await
        .unwrap_err();
    assert!(error.message().contains("is for localhost"), "{error}");
    assert_error("another name", &error);
    for (name, trust) in [
        (
            "not trusted",
            Trust::empty().pem(Server::start().await.unwrap().ca_pem()),
        ),
        ("trusted", Trust::empty().pem(certificate.pem())),
        ("not verified", Trust::dangerous_accept_any_certificate()),
        (
            "another is pinned",
            Trust::empty().pin(format!("sha256//{}=", "A".repeat(43))),
        ),
    ] {
        let client = Client::new(endpoint.clone().tls(TlsSettings::new(trust)));
        let error = client
            .send(text_message(0, &["you@example.com"], 10))
            .await
            .unwrap_err();
        assert_error(name, &error);
        let source = std::error::Error::source(&error)
            .and_then(|source| source.downcast_ref::<CertificateFailure>());
        if let Some(failure) = source {
            assert_harmless(name, &format!("{failure} {failure:?} {}", failure.hint()));
            assert_harmless(name, &failure.chain[0].subject);
            assert!(
                failure.chain[0].to_string().contains("Größe"),
                "{failure:?}"
            );
        }
        if let Some(tls) = error.receipt().and_then(|receipt| receipt.tls.as_ref()) {
            let peer = tls.peer().unwrap();
            assert_harmless(
                name,
                &format!("{tls} {tls:?} {peer} {}{}", peer.subject, peer.issuer),
            );
            assert_harmless(name, tls.verified_by.as_deref().unwrap_or_default());
        }
    }
    let report = envoi::probe(&endpoint.trust(Trust::dangerous_accept_any_certificate()))
        .await
        .unwrap();
    assert_harmless("the report", &report.to_string());
    assert_harmless("the certificates", &report.certificates_pem());
    serving.abort();
}

#[test]
fn control_characters_in_settings_files_are_replaced() {
    let (certificate, key) = certificate();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(format!("{EVIL}{name}"));
    std::fs::write(path("ca.pem"), certificate.pem()).unwrap();
    std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(path("junk.pem"), "junk").unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    std::fs::write(path("folder").join(format!("{EVIL}junk")), "junk").unwrap();
    std::fs::create_dir(path("mixed")).unwrap();
    std::fs::write(path("mixed").join(format!("{EVIL}ca")), certificate.pem()).unwrap();
    std::fs::write(path("mixed").join(format!("{EVIL}junk")), "junk").unwrap();

    for name in ["ca.pem", "mixed"] {
        let summary = Trust::empty().path(path(name)).load().unwrap();
        assert_harmless(
            name,
            &format!("{summary:?} {}", summary.warnings.join("\n")),
        );
        for anchor in &summary.anchors {
            assert_harmless(name, &format!("{} {}", anchor.certificate, anchor.origin));
        }
    }
    for name in ["nowhere", "junk.pem", "folder", "key.pem"] {
        assert_error(name, &Trust::empty().path(path(name)).load().unwrap_err());
        assert_error(name, &Trust::empty().file(path(name)).load().unwrap_err());
        assert_error(
            name,
            &Trust::empty()
                .revocation_list(path(name))
                .load()
                .unwrap_err(),
        );
        assert_error(
            name,
            &ClientCertificate::file(path(name)).load().unwrap_err(),
        );
    }
    let certificate = ClientCertificate::file(path("ca.pem")).key(path("junk.pem"));
    assert_error("a key", &certificate.load().unwrap_err());
}

#[cfg(unix)]
#[tokio::test]
async fn control_characters_in_socket_file_and_proxy_names_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("{EVIL}.sock"));
    let client = Client::new(Endpoint::lmtp_unix(&path));
    let error = client
        .send(text_message(0, &["you@example.com"], 10))
        .await
        .unwrap_err();
    assert!(
        error.message().contains("no connection to the socket"),
        "{error}"
    );
    assert_error("a socket that is not there", &error);
    assert_error(
        "a socket and a probe",
        &envoi::probe(&Endpoint::lmtp_unix(&path)).await.unwrap_err(),
    );

    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"421 4.3.2 no\r\n")
            .await
            .unwrap();
    });
    let error = client
        .send(text_message(0, &["you@example.com"], 10))
        .await
        .unwrap_err();
    assert_error("a socket", &error);
    assert!(
        error.receipt().unwrap().server.ends_with(".sock"),
        "{error:?}"
    );
    serving.await.unwrap();

    let file = folder.path().join(format!("{EVIL}.pdf"));
    let client = Client::new(Endpoint::new("localhost"));
    let message = Message::from(
        MessageBuilder::new()
            .from("me@example.org")
            .to("you@example.com"),
    );
    assert_error(
        "an attachment",
        &client
            .send(message.attach(Attachment::file(&file)))
            .await
            .unwrap_err(),
    );
    assert_error(
        "a message",
        &client.send(Message::raw_file(&file)).await.unwrap_err(),
    );

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for url in [
        format!("socks5://{EVIL}:1080"),
        format!("http://{EVIL}"),
        format!("{EVIL}://localhost:1"),
        format!("http://localhost:1/{EVIL}"),
        format!("http://{EVIL}:{EVIL}@localhost:{port}"),
    ] {
        match Proxy::from_url(&url) {
            Ok(proxy) => {
                assert_harmless(&url, &format!("{proxy} {proxy:?}"));
                let client = Client::new(Endpoint::new("localhost").proxy(proxy));
                assert_error(
                    &url,
                    &client
                        .send(text_message(0, &["you@example.com"], 10))
                        .await
                        .unwrap_err(),
                );
            }
            Err(error) => assert_error(&url, &error),
        }
    }
}

#[tokio::test]
async fn control_characters_in_urls_and_hosts_are_replaced() {
    let hexed: String = EVIL.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for part in [hexed.as_str(), EVIL] {
        for url in [
            format!("smtp://mail{part}.example.org"),
            format!("smtp://mail.example.org:25{part}"),
            format!("smtp://[::1{part}]"),
            format!("smtp{part}://mail.example.org"),
            format!("smtp://mail.example.org/{part}"),
            format!("smtp://mail.example.org?helo=a{part}b"),
            format!("smtp://mail.example.org?tls={part}"),
            format!("smtp://mail.example.org?auth=PLAIN{part}"),
            format!("smtp://mail.example.org?min-tls={part}"),
            format!("smtp://mail.example.org?timeout={part}"),
            format!("smtp://mail.example.org?server-name={part}"),
            format!("smtp://mail.example.org?pin={part}"),
            format!("smtp://mail.example.org?trust=/nowhere/{part}"),
            format!("smtp://mail.example.org?trust-password-file=/nowhere/{part}"),
            format!("smtp://mail.example.org?{part}=y"),
            format!("lmtp+unix:///nowhere/{part}"),
            format!("lmtp+unix://{part}/nowhere"),
            format!("smtp://alice{part}:secret@mail.example.org?tls=none"),
        ] {
            let error = match Endpoint::from_url(&url) {
                Ok(endpoint) => {
                    // Nothing is sent to that host.
                    let endpoint = match endpoint.host().contains("mail.example.org") {
                        true => endpoint.bind([192, 0, 2, 1]),
                        false => endpoint,
                    };
                    Client::new(endpoint)
                        .send(text_message(0, &["you@example.com"], 10))
                        .await
                        .unwrap_err()
                }
                Err(error) => error,
            };
            assert_error(&url, &error);
        }
    }
    assert_error(
        "an address",
        &Address::new(format!("a{EVIL}@example.org"))
            .unwrap_err()
            .into(),
    );
    assert_error(
        "a domain",
        &Address::new(format!("a@{EVIL}.example.org"))
            .unwrap_err()
            .into(),
    );
    assert_error(
        "a client's name",
        &ClientName::new(EVIL).unwrap_err().into(),
    );
    assert_error("a command", &RawCommand::new(EVIL).unwrap_err().into());
    assert_error(
        "a mechanism",
        &EVIL.parse::<Mechanism>().unwrap_err().into(),
    );
    assert_error("reports", &EVIL.parse::<Notify>().unwrap_err().into());
    let client = Client::new(Endpoint::new("localhost"));
    let mail = || {
        MessageBuilder::new()
            .from("me@example.org")
            .to("you@example.com")
    };
    let long = format!("X-{EVIL}");
    assert_error(
        "a header's name",
        &client
            .send(mail().header(long, Raw::new("x")))
            .await
            .unwrap_err(),
    );
}
