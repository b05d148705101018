//! What is negotiated, and servers that do not speak TLS.

use tokio_rustls::rustls::pki_types::{ServerName, UnixTime};

use super::*;

#[tokio::test]
async fn the_negotiated_parameters_are_reported() {
    let root = Party::authority("Root", None);
    let middle = Party::authority("Middle", Some(&root));
    let server = Party::server(Some(&middle));
    let info = connect(
        &connector(&trusting(&root)),
        server_config(&[&server, &middle]),
    )
    .await
    .unwrap();

    assert!(info.is_verified());
    assert_eq!(info.verified_by.as_deref(), Some("CN=Root"));
    assert!(info.not_verified_reason.is_none());
    assert_eq!(info.version, "TLSv1.3");
    assert_eq!(info.cipher, "TLS13_AES_256_GCM_SHA384");
    assert!(info.key_exchange.is_some());
    assert!(!info.resumed);
    assert_eq!(info.chain.len(), 2);
    let peer = info.peer().unwrap();
    assert_eq!(
        (peer.subject.as_str(), peer.issuer.as_str()),
        ("CN=mail.example.com", "CN=Middle")
    );
    assert_eq!(peer.names, [HOST]);
    assert_eq!(peer.not_after_text(), "4096-01-01T00:00:00Z");
    assert_eq!(peer.sha256.len(), 32 * 3 - 1);
    assert_eq!(
        peer.to_pem().replace("\r\n", "\n"),
        server.pem.replace("\r\n", "\n")
    );
    says_info(&info, "TLSv1.3, TLS13_AES_256_GCM_SHA384");
    says_info(&info, "with CN=mail.example.com, verified by CN=Root");
}

fn says_info(info: &TlsInfo, part: &str) {
    assert!(info.to_string().contains(part), "{info}");
}

#[tokio::test]
async fn sessions_are_resumed_in_both_tls_versions() {
    let root = Party::authority("Root", None);
    let server = Party::server(Some(&root));
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let connector = connector(&trusting(&root).min_version(version).max_version(version));
        let config = Arc::new(server_config(&[&server]));
        for round in 0..2 {
            let (mut stream, info) = connector
                .handshake(HOST, serve(&config), TlsMode::Implicit)
                .await
                .unwrap();
            assert_eq!(info.version, version.to_string());
            assert_eq!(info.resumed, round == 1, "{version}");
            assert!(info.is_verified());
            assert_eq!(info.peer().unwrap().subject, "CN=mail.example.com");
            // TLS 1.3 sends its tickets after the handshake.
            stream.read_exact(&mut [0; 11]).await.unwrap();
        }
    }
}

/// Servers keep their ticket keys when their certificate is renewed.
#[tokio::test]
async fn a_session_ends_with_the_certificate_of_its_server() {
    let root = Party::authority("Root", None);
    let config = Arc::new(server_config(&[&Party::server(Some(&root))]));
    let mut params = named(HOST, &[HOST]);
    params.not_after = rcgen::date_time_ymd(2000, 1, 1);
    let expired = [Party::new(params, Some(&root)).der];
    let name = ServerName::try_from(HOST).unwrap();
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let connector = connector(&trusting(&root).min_version(version).max_version(version));
        let is_resumed = async || {
            let handshake = connector.handshake(HOST, serve(&config), TlsMode::Implicit);
            let (mut stream, info) = handshake.await.unwrap();
            stream.read_exact(&mut [0; 11]).await.unwrap();
            info.resumed
        };
        assert!(!is_resumed().await && is_resumed().await, "{version}");
        // As if the sessions were of a certificate that was valid then.
        let then = UnixTime::since_unix_epoch(Duration::from_secs(900_000_000));
        let known = connector.known_chains();
        known.add_verified(&name, &expired, "CN=Root".into(), then);
        assert!(!is_resumed().await && is_resumed().await, "{version}");
    }
}

#[tokio::test]
async fn hosts_with_dots_brackets_and_addresses_are_verified() {
    let root = Party::authority("Root", None);
    let server = Party::new(named("server", &[HOST, "127.0.0.1", "::1"]), Some(&root));
    let connector = connector(&trusting(&root));
    let config = Arc::new(server_config(&[&server]));
    for host in [
        HOST,
        "mail.example.com.",
        "MAIL.example.com",
        "127.0.0.1",
        "::1",
        "[::1]",
    ] {
        let result = connector
            .handshake(host, serve(&config), TlsMode::Implicit)
            .await;
        assert!(result.is_ok(), "{host}: {:?}", result.err());
    }
    let error = connector
        .handshake("127.0.0.2", serve(&config), TlsMode::Implicit)
        .await
        .unwrap_err();
    assert_says(
        &error,
        &["is for mail.example.com, 127.0.0.1, ::1, not for the IP address 127.0.0.2"],
    );
    let error = connector
        .handshake("mail server", serve(&config), TlsMode::Implicit)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_says(
        &error,
        &["\"mail server\" is not a name that a certificate can contain"],
    );
}

#[tokio::test]
async fn a_configured_server_name_is_verified() {
    let root = Party::authority("Root", None);
    let server = Party::new(named("other", &["other.example.net"]), Some(&root));
    let settings = trusting(&root).server_name("other.example.net.");
    assert!(
        connect(&connector(&settings), server_config(&[&server]))
            .await
            .unwrap()
            .is_verified()
    );
    assert_eq!(
        Connector::new(&trusting(&root).server_name("a b"), VerifyMode::Verified)
            .unwrap_err()
            .phase(),
        Phase::Setup
    );
}

#[tokio::test]
async fn no_common_version_is_named() {
    let root = Party::authority("Root", None);
    let server = Party::server(Some(&root));
    for (ours, theirs) in [(TlsVersion::Tls13, &TLS12), (TlsVersion::Tls12, &TLS13)] {
        let key = PrivateKeyDer::try_from(server.key.clone()).unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[theirs])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![server.der.clone()], key)
            .unwrap();
        let settings = trusting(&root).min_version(ours).max_version(ours);
        let error = connect(&connector(&settings), config).await.unwrap_err();
        assert_says(
            &error,
            &[
                "have no version of TLS in common",
                &format!("this client offers {ours}. Allow TLS 1."),
            ],
        );
    }
    let error = Connector::new(
        &trusting(&root)
            .min_version(TlsVersion::Tls13)
            .max_version(TlsVersion::Tls12),
        VerifyMode::Verified,
    )
    .unwrap_err();
    assert_says(
        &error,
        &["the minimum version of TLS, TLSv1.3, is above the maximum, TLSv1.2"],
    );
}

#[tokio::test]
async fn no_common_cipher_is_named() {
    let root = Party::authority("Root", None);
    let server = Party::server(Some(&root));
    // A server whose only suite is for another kind of key than its own.
    let mut provider = CryptoProvider::clone(&provider());
    provider
        .cipher_suites
        .retain(|suite| format!("{:?}", suite.suite()).contains("ECDHE_RSA"));
    let key = PrivateKeyDer::try_from(server.key.clone()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.der.clone()], key)
        .unwrap();
    let error = connect(&connector(&trusting(&root)), config)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert_says(
        &error,
        &["no cipher suite, key exchange or signature in common"],
    );
}

/// A server that sends these bytes as soon as it has received something, and closes.
fn send_bytes(bytes: &'static [u8]) -> DuplexStream {
    let (client, mut server) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        server.read_u8().await.unwrap();
        server.write_all(bytes).await.unwrap();
    });
    client
}

#[tokio::test]
async fn a_peer_without_tls_is_named() {
    let connector = connector(&trusting(&Party::authority("Root", None)));
    for (mode, bytes, parts) in [
        (
            TlsMode::Implicit,
            &b"220 mail.example.com ESMTP Postfix\r\n250 more"[..],
            &[
                "speaks plaintext on this port",
                "\"220 mail.example.com ESMTP Postfix\"",
                "smtp://mail.example.com instead of",
            ][..],
        ),
        (
            TlsMode::Implicit,
            b"554 5.7.1 \x1b[31mgo away\r\n",
            &["refuses the connection", "\"554 5.7.1 .[31mgo away\""],
        ),
        (
            TlsMode::Implicit,
            b"SSH-2.0-OpenSSH_9.2\r\n",
            &["is an SSH server on this port"],
        ),
        (
            TlsMode::Implicit,
            b"HTTP/1.1 400 Bad Request\r\n",
            &["is a web server on this port"],
        ),
        (
            TlsMode::Implicit,
            b"* OK IMAP4rev1\r\n",
            &["is an IMAP server"],
        ),
        (TlsMode::Implicit, b"+OK POP3\r\n", &["is a POP3 server"]),
        (
            TlsMode::Implicit,
            b"\x00\x00\x00\x00\x00\x00",
            &["does not speak TLS on this port: its first bytes are \"......\""],
        ),
        (
            TlsMode::Implicit,
            b"22",
            &["does not speak TLS on this port: its first bytes are \"22\""],
        ),
        (
            TlsMode::Implicit,
            b"",
            &[
                "closed the connection instead of answering the TLS handshake",
                "try STARTTLS",
            ],
        ),
        (
            TlsMode::StartTls,
            b"",
            &["though it had agreed to STARTTLS"],
        ),
        (
            TlsMode::StartTls,
            b"454 4.7.0 TLS not available\r\n",
            &["agreed to STARTTLS and then went on in clear text: \"454 4.7.0 TLS"],
        ),
        (
            TlsMode::StartTls,
            b"\x16\x03\x03",
            &["closed the connection in the middle of the TLS \
            handshake"],
        ),
        (
            TlsMode::StartTls,
            b"\x15\x03\x01\x00\x02\x02\x46",
            &["the server speaks TLSv1.1 or older, this client offers TLSv1.3 and TLSv1.2"],
        ),
        // The ServerHello of an old server, which ignores what it does not know.
        (
            TlsMode::StartTls,
            b"\x16\x03\x02\x00\x2a\x02\x00\x00\x26\x03\x02random random random random \
                rand\x00\x00\x2f\x00",
            &["the server speaks TLSv1.1, this client offers TLSv1.3 and TLSv1.2"],
        ),
        (
            TlsMode::StartTls,
            b"\x15\x03\x03\x00\x02\x02\x28",
            &["no cipher suite, key exchange or \
            signature in common"],
        ),
        (
            TlsMode::StartTls,
            b"\x15\x03\x03\x00\x02\x02\x70",
            &["does not know this name (TLS alert unrecognised_name, 112)"],
        ),
        (
            TlsMode::StartTls,
            b"\x15\x03\x03\x00\x02\x02\x50",
            &["failed in the TLS handshake by its own account (TLS alert internal_error, 80)"],
        ),
        (
            TlsMode::StartTls,
            b"\x16\x03\x03\x00\x05\x02\x00\x00\x01\x00",
            &["the TLS handshake with mail.example.com failed"],
        ),
    ] {
        let error = connector
            .handshake(HOST, send_bytes(bytes), mode)
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Tls, Phase::Tls),
            "{error}"
        );
        assert_says(&error, parts);
        assert!(error.hint().is_some(), "{error}");
        assert!(error.source().is_some(), "{error}");
    }
}

#[test]
fn first_bytes_of_tls_are_recognised() {
    assert!(speaks_tls(b"\x15\x03\x01\x00\x02"));
    assert!(speaks_tls(b"\x16"));
    assert!(!speaks_tls(b""));
    assert!(!speaks_tls(b"220 mail"));
}

#[tokio::test]
async fn a_custom_rustls_config_is_used() {
    let root = Party::authority("Root", None);
    let server = Party::server(Some(&root));
    let mut roots = RootCertStore::empty();
    roots.add(root.der.clone()).unwrap();
    let config = |roots| {
        rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    };
    // Its trust anchors are not used.
    let settings = TlsSettings::new(Trust::empty()).rustls_config(Arc::new(config(roots)));
    let info = connect(&connector(&settings), server_config(&[&server]))
        .await
        .unwrap();
    assert!(info.is_verified());
    assert_eq!(
        info.verified_by.as_deref(),
        Some("the rustls configuration given")
    );

    let settings =
        TlsSettings::new(Trust::empty()).rustls_config(Arc::new(config(RootCertStore::empty())));
    let error = connect(&connector(&settings), server_config(&[&server]))
        .await
        .unwrap_err();
    assert_says(
        &error,
        &["the certificate of mail.example.com was not accepted: "],
    );
}

#[test]
fn policies_and_versions_parse_their_display() {
    for security in [Security::None, Security::Opportunistic, Security::Required] {
        assert_eq!(security.to_string().parse::<Security>().unwrap(), security);
    }
    assert!(
        "implicit"
            .parse::<Security>()
            .unwrap_err()
            .to_string()
            .contains("smtps://")
    );
    assert!(
        "Required"
            .parse::<Security>()
            .unwrap_err()
            .to_string()
            .contains("none, opportunistic or required")
    );
    assert_eq!("TLSv1.2".parse::<TlsVersion>().unwrap(), TlsVersion::Tls12);
    assert_eq!(
        "1.1".parse::<TlsVersion>().unwrap_err().kind(),
        ErrorKind::Request
    );
}
