//! Checks: what is reported of a server without sending a message, and what expires soon.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use envoi::testing::Server;
use envoi::tls::{CertificateUse, ClientCertificate, Security, TlsSettings, Trust};
use envoi::{Client, Endpoint, ErrorKind};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
#[cfg(feature = "tracing")]
use support::log::Log;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate that is valid for 90 days, of which so many are left.
fn params(name: &str, days_left: u32) -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // Half a day more, so that the days that are left are not rounded down during the test.
    let end = SystemTime::now() + DAY * days_left + DAY / 2;
    params.not_before = (end - DAY * 90).into();
    params.not_after = end.into();
    params
}

fn authority(name: &str, days_left: u32) -> CertificateParams {
    let mut params = params(name, days_left);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// A server with TLS from the first byte and a certificate with so many days left, and settings
/// that trust its authority, which has as many as said.
async fn server(name: &str, days_left: u32, ca_days_left: u32) -> Endpoint {
    let ca = authority(&format!("{name} CA"), ca_days_left);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = params(name, days_left).signed_by(&key, &ca).unwrap();
    server_with(vec![leaf.der().clone()], key, &ca.pem()).await
}

/// A server with this chain, and settings that trust this authority.
async fn server_with(chain: Vec<CertificateDer<'static>>, key: KeyPair, trusted: &str) -> Endpoint {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(acceptor.accept(stream).await.unwrap());
            stream.write_all(b"220 localhost ESMTP\r\n").await.unwrap();
            let mut line = String::new();
            while stream.read_line(&mut line).await.unwrap_or(0) > 0 && !line.starts_with("QUIT") {
                stream.write_all(b"250 localhost\r\n").await.unwrap();
                line.clear();
            }
        }
    });
    let trust = Trust::empty().pem(trusted);
    Endpoint::new("localhost")
        .port(port)
        .security(Security::Implicit)
        .tls(TlsSettings::new(trust))
}

#[tokio::test]
async fn a_check_reports_certificates_that_expire_soon() {
    let endpoint = server("check.example.org", 13, 29).await;
    let own_key = KeyPair::generate().unwrap();
    let own = params("client.example.org", 5)
        .self_signed(&own_key)
        .unwrap();
    let certificate = ClientCertificate::pem(own.pem()).key_pem(own_key.serialize_pem());
    let report = Client::new(endpoint.client_certificate(certificate))
        .check()
        .await
        .unwrap();
    let used: Vec<_> = report
        .certificates
        .iter()
        .map(|used| {
            (
                used.usage,
                used.certificate.subject.as_str(),
                used.expires_soon(),
            )
        })
        .collect();
    assert_eq!(
        used,
        [
            (CertificateUse::Server, "CN=check.example.org", true),
            (CertificateUse::Client, "CN=client.example.org", true),
            // A fifth of 90 days is shorter than the 30 of other anchors.
            (CertificateUse::Anchor, "CN=check.example.org CA", false),
        ]
    );
    assert_eq!(report.expiring_within(DAY * 6).count(), 1);
    assert_eq!(report.expiring_within(DAY * 40).count(), 3);
    let [server, client] = &report.advice[..] else {
        panic!("{:?}", report.advice);
    };
    let expected = "the server's certificate CN=check.example.org expires in 13 days, at 2";
    assert!(server.starts_with(expected), "{server}");
    let expected = "the client certificate CN=client.example.org expires in 5 days, at 2";
    assert!(client.starts_with(expected), "{client}");
    assert!(report.to_string().contains(&format!("advice: {server}")));
}

/// Of all that the server sends, those that lead to the anchor.
#[tokio::test]
async fn a_check_reports_intermediate_certificates_that_expire_soon() {
    let new_key = || KeyPair::generate().unwrap();
    let root = CertifiedIssuer::self_signed(authority("Root", 90), new_key()).unwrap();
    let upper = CertifiedIssuer::signed_by(authority("Upper", 4), new_key(), &root).unwrap();
    let lower = CertifiedIssuer::signed_by(authority("Lower", 60), new_key(), &upper).unwrap();
    let unused = CertifiedIssuer::self_signed(authority("Unused", 1), new_key()).unwrap();
    let key = new_key();
    let leaf = params("leaf.example.org", 60)
        .signed_by(&key, &lower)
        .unwrap();
    let chain = [
        leaf.der(),
        unused.der(),
        upper.der(),
        lower.der(),
        root.der(),
    ];
    let chain = chain.map(|certificate| certificate.clone()).into();
    let endpoint = server_with(chain, key, &root.pem()).await;
    let report = Client::new(endpoint).check().await.unwrap();
    let used: Vec<_> = report
        .certificates
        .iter()
        .map(|used| (used.usage.as_str(), used.certificate.subject.as_str()))
        .collect();
    assert_eq!(
        used,
        [
            ("server", "CN=leaf.example.org"),
            ("intermediate", "CN=Lower"),
            ("intermediate", "CN=Upper"),
            ("anchor", "CN=Root"),
        ]
    );
    let [advice] = &report.advice[..] else {
        panic!("{:?}", report.advice);
    };
    let expected = "the intermediate certificate CN=Upper expires in 4 days, at 2";
    assert!(advice.starts_with(expected), "{advice}");
}

#[cfg(feature = "tracing")]
#[tokio::test]
async fn tracing_warns_of_a_certificate_once_a_day() {
    let soon = server("warned.example.org", 3, 3).await;
    let later = server("later.example.org", 60, 60).await;
    let (log, _guard) = Log::keep();
    let warnings = || {
        let text = log.text();
        let warnings: Vec<_> = text
            .lines()
            .filter(|line| line.contains("WARN"))
            .map(str::to_owned)
            .collect();
        warnings
    };
    for _ in 0..3 {
        Client::new(soon.clone()).check().await.unwrap();
        Client::new(later.clone()).check().await.unwrap();
    }
    let [server, anchor] = &warnings()[..] else {
        panic!("{}", log.text());
    };
    for words in [
        "certificate=\"server\"",
        "subject=\"CN=warned.example.org\"",
        "host=\"localhost\"",
        "the server's certificate CN=warned.example.org expires in 3 days",
        "Its administrator must renew it",
    ] {
        assert!(server.contains(words), "{words} is not in {server}");
    }
    assert!(anchor.contains("the trust anchor CN=warned.example.org CA expires in 3 days"));

    tokio::time::pause();
    tokio::time::advance(DAY + Duration::from_secs(1)).await;
    tokio::time::resume();
    Client::new(soon.clone()).check().await.unwrap();
    assert_eq!(warnings().len(), 4, "{}", log.text());
}

#[tokio::test]
async fn a_check_advises_on_what_works_and_could_be_better() {
    let advice = async |url: &str| Client::from_url(url).unwrap().check().await.unwrap().advice;
    let server = Server::builder()
        .login("alice", "secret")
        .auth_in_clear(true)
        .start()
        .await
        .unwrap();
    let port = server.port();
    assert!(advice(&server.url()).await.is_empty());

    let clear = format!("smtp://alice:secret@localhost:{port}?tls=none&auth-in-clear=yes");
    let clear = advice(&clear).await;
    assert_eq!(clear.len(), 2, "{clear:?}");
    assert!(clear[0].starts_with("The password went unencrypted (AUTH PLAIN): use TLS"));
    assert!(clear[1].contains("the server offers STARTTLS. Leave out tls=none."));

    let unverified = advice(&format!("smtp://localhost:{port}?tls=opportunistic")).await;
    assert_eq!(unverified.len(), 2, "{unverified:?}");
    assert!(unverified[0].starts_with("The server is not verified: "));
    assert!(unverified[1].starts_with("The server offers a login"));

    let plain = Server::builder().plaintext().start().await.unwrap();
    let port = plain.port();
    assert!(
        advice(&format!("smtp://localhost:{port}?tls=none"))
            .await
            .is_empty()
    );
    let fell_back = advice(&format!("smtp://localhost:{port}?tls=opportunistic")).await;
    assert_eq!(fell_back.len(), 1);
    assert!(fell_back[0].contains("the server does not offer STARTTLS. Require TLS once"));
}

#[tokio::test]
async fn a_check_sends_nothing_and_fails_as_sending_would() {
    let server = Server::builder()
        .login("alice", "secret")
        .start()
        .await
        .unwrap();
    let report = Client::from_url(&server.url())
        .unwrap()
        .check()
        .await
        .unwrap();
    assert!(report.tls.unwrap().is_verified());
    assert!(report.round_trips > 0);
    assert!(!report.transcript.to_string().contains("secret"));
    let wrong = server.url().replace("secret", "wrong");
    let error = Client::from_url(&wrong).unwrap().check().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    for session in server.connections() {
        assert!(!session.commands().any(|line| line.starts_with("MAIL")));
    }
}

#[cfg(feature = "pool")]
#[tokio::test]
async fn a_pool_is_warmed_up_and_checked_over_its_connections() {
    let server = Server::start().await.unwrap();
    let pool = Client::from_url(&server.url()).unwrap().pool(3);
    let report = pool.warm_up(10).await.unwrap();
    assert!(report.tls.unwrap().is_verified());
    assert_eq!(
        server.connections().len(),
        3,
        "not more than the pool may have"
    );
    let _ = pool.check().await.unwrap();
    let noops = |session: &envoi::testing::Session| {
        session.commands().filter(|line| *line == "NOOP").count()
    };
    assert_eq!(server.connections().iter().map(noops).sum::<usize>(), 1);
    assert!(pool.send(support::hello()).await.unwrap().all_accepted());
    assert_eq!(
        server.connections().len(),
        3,
        "no further connection was needed"
    );
    pool.close().await;
    assert_eq!(
        pool.check().await.unwrap_err().kind(),
        ErrorKind::PoolClosed
    );
    assert_eq!(
        pool.warm_up(1).await.unwrap_err().kind(),
        ErrorKind::PoolClosed
    );
}

#[cfg(feature = "pool")]
#[tokio::test]
async fn warming_up_says_how_many_connections_a_server_takes() {
    // Greets two, and refuses the others.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}?tls=none", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut streams = Vec::new();
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            if number >= 2 {
                stream
                    .write_all(b"421 Too many connections\r\n")
                    .await
                    .unwrap();
                continue;
            }
            stream.write_all(b"220 localhost\r\n").await.unwrap();
            let mut stream = BufReader::new(stream);
            stream.read_line(&mut String::new()).await.unwrap();
            stream.write_all(b"250 localhost\r\n").await.unwrap();
            streams.push(stream);
        }
    });
    let pool = Client::from_url(&url).unwrap().pool(4);
    let error = pool.warm_up(4).await.unwrap_err();
    assert!(error.is_transient());
    assert!(
        error.message().starts_with("2 of 4 connections opened: "),
        "{error}"
    );
}
