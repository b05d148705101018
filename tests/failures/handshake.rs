//! Everything about TLS but the certificate: versions, mix-ups of STARTTLS and implicit TLS,
//! handshakes that are cut off.

use std::sync::Arc;

use envoi::tls::{TlsSettings, TlsVersion, Trust};
use envoi::{Endpoint, ErrorKind, Phase};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::case::{World, case, hurried, play};
use crate::servers::Server::{Answers, Implicit, Openssl, Plain, Says, StartTls};
use crate::servers::{CLOSE, RESET, SILENCE, Script};

fn tls13_only(endpoint: Endpoint, world: &World) -> Endpoint {
    endpoint
        .tls(TlsSettings::new(Trust::empty().pem(&world.root.pem)).min_version(TlsVersion::Tls13))
}

fn demands_certificate(world: &World, version: &'static SupportedProtocolVersion) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(world.root.der.clone()).unwrap();
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let party = world.good();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(party.key.serialize_der()));
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![party.der.clone()], key)
        .unwrap()
}

const STARTTLS: &str = "smtp://localhost:{port}";
const IMPLICIT: &str = "smtps://localhost:{port}";
const TLS: (ErrorKind, Phase, u8) = (ErrorKind::Tls, Phase::Tls, 76);
const REFUSED: (ErrorKind, Phase, u8) = (ErrorKind::Tls, Phase::StartTls, 76);

/// A firewall that lets only the commands of RFC 821 pass: what it does not like it overwrites.
const REWRITTEN: Script = &[
    (
        "GREETING",
        "220 **************************************************",
    ),
    (
        "EHLO",
        "250-mail.example.org\r\n250-SIZE 1000000\r\n250-XXXXXXXA\r\n250 XXXB",
    ),
];
const REWRITTEN_COMMANDS: Script = &[
    (
        "GREETING",
        "220 ****************0****200***********************",
    ),
    ("EHLO", "500 5.5.1 command unrecognized: \"XXXX client\""),
    ("HELO", "250 mail.example.org"),
];

#[tokio::test]
#[ignore = "needs openssl"]
async fn handshake_failures_with_openssl_have_their_pinned_texts() {
    let row = |name, options| {
        case(
            name,
            Openssl(options),
            IMPLICIT,
            ErrorKind::Tls,
            Phase::Tls,
            76,
        )
    };
    let cases = vec![
        // Versions and ciphers.
        row(
            "the server speaks TLS 1.0 only",
            &["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        ),
        row(
            "the server speaks TLS 1.1 only",
            &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        ),
        row(
            "the client wants TLS 1.3 and the server has 1.2",
            &["-tls1_2"],
        )
        .with(tls13_only),
        row(
            "no cipher suite in common",
            &["-tls1_2", "-cipher", "AES128-SHA"],
        ),
        row(
            "a client certificate is demanded by openssl, TLS 1.2",
            &["-tls1_2", "-Verify", "1", "-verify_return_error"],
        ),
    ];
    play("openssl", cases).await;
}

#[tokio::test]
async fn handshake_failures_have_their_pinned_texts() {
    let plain = |script| Plain(script);
    let row = |name, server, url, (kind, phase, exit): (ErrorKind, Phase, u8)| {
        case(name, server, url, kind, phase, exit)
    };
    let cases = vec![
        // The two mix-ups.
        row(
            "a plaintext server where TLS should begin",
            plain(&[]),
            IMPLICIT,
            TLS,
        ),
        row(
            "a plaintext server where TLS should begin, and it refuses",
            plain(&[("GREETING", "554 5.7.1 You are not welcome here")]),
            IMPLICIT,
            TLS,
        ),
        row(
            "implicit TLS, and the server closes",
            Answers(b""),
            IMPLICIT,
            TLS,
        ),
        row(
            "implicit TLS, and the server is silent",
            Says(""),
            IMPLICIT,
            (ErrorKind::Timeout, Phase::Tls, 75),
        )
        .with(hurried),
        row(
            "a TLS server where STARTTLS should come",
            Implicit(&[]),
            STARTTLS,
            (ErrorKind::Timeout, Phase::Greeting, 75),
        )
        .with(hurried),
        row(
            "a TLS server where STARTTLS should come, which closes",
            plain(&[("GREETING", CLOSE)]),
            STARTTLS,
            (ErrorKind::Closed, Phase::Greeting, 75),
        ),
        row(
            "a TLS server where STARTTLS should come, which says so in an alert",
            Says("\x15\x03\x01\x00\x02\x02\x32"),
            STARTTLS,
            (ErrorKind::Tls, Phase::Greeting, 76),
        ),
        // Client certificates.
        row(
            "a client certificate is demanded, TLS 1.2",
            StartTls(|world| demands_certificate(world, &TLS12), &[]),
            STARTTLS,
            TLS,
        ),
        row(
            "a client certificate is demanded, TLS 1.3",
            StartTls(|world| demands_certificate(world, &TLS13), &[]),
            STARTTLS,
            TLS,
        ),
        // STARTTLS itself.
        row(
            "STARTTLS is not offered",
            plain(&[(
                "EHLO",
                "250-mail.example.org\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250 AUTH PLAIN LOGIN",
            )]),
            STARTTLS,
            REFUSED,
        ),
        row(
            "nothing is offered",
            plain(&[("EHLO", "250 mail.example.org")]),
            STARTTLS,
            REFUSED,
        ),
        row(
            "a firewall rewrites what is offered",
            plain(REWRITTEN),
            STARTTLS,
            REFUSED,
        ),
        row(
            "a firewall rewrites greeting and commands",
            plain(REWRITTEN_COMMANDS),
            STARTTLS,
            REFUSED,
        ),
        row(
            "STARTTLS is refused for now",
            plain(&[(
                "STARTTLS",
                "454 4.7.0 TLS not available due to local problem",
            )]),
            STARTTLS,
            (ErrorKind::Tls, Phase::StartTls, 75),
        ),
        row(
            "STARTTLS is refused",
            plain(&[("STARTTLS", "502 5.5.1 Command not implemented")]),
            STARTTLS,
            REFUSED,
        ),
        row(
            "STARTTLS inside TLS",
            plain(&[("STARTTLS", "554 5.5.1 Error: TLS already active")]),
            STARTTLS,
            REFUSED,
        ),
        row(
            "STARTTLS must come before MAIL",
            plain(&[("MAIL", "530 5.7.0 Must issue a STARTTLS command first")]),
            "smtp://localhost:{port}?tls=none",
            (ErrorKind::Refused, Phase::Mail, 69),
        ),
        row(
            "STARTTLS must come before AUTH",
            plain(&[("AUTH", "530 5.7.0 Must issue a STARTTLS command first")]),
            "smtp://alice:secret@localhost:{port}?tls=none&auth-in-clear=yes",
            (ErrorKind::Auth, Phase::Auth, 77),
        ),
        row(
            "STARTTLS must come before EHLO",
            plain(&[("EHLO", "530 5.7.0 Must issue a STARTTLS command first")]),
            STARTTLS,
            (ErrorKind::Refused, Phase::Hello, 69),
        ),
        // The handshake after it.
        row(
            "the handshake is cut off",
            plain(&[("TLS", CLOSE)]),
            STARTTLS,
            TLS,
        ),
        row(
            "the handshake is reset",
            plain(&[("TLS", RESET)]),
            STARTTLS,
            TLS,
        ),
        row(
            "the handshake is not answered",
            plain(&[("TLS", SILENCE)]),
            STARTTLS,
            (ErrorKind::Timeout, Phase::Tls, 75),
        )
        .with(hurried),
        row(
            "the handshake is answered in plaintext",
            plain(&[("TLS", "454 4.7.0 TLS not available")]),
            STARTTLS,
            TLS,
        ),
        row(
            "plaintext is injected behind the go-ahead",
            plain(&[("STARTTLS", "220 2.0.0 Ready to start TLS\r\n250 AUTH PLAIN")]),
            STARTTLS,
            (ErrorKind::Protocol, Phase::StartTls, 76),
        ),
    ];
    play("handshake", cases).await;
}
