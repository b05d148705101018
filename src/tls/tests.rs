//! Every failure here happens for real: a server with such a certificate, at the other end of a stream.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::*;
use crate::hint::speaks_tls;
use crate::{Error, Kind, Phase, Result};

const HOST: &str = "mail.example.com";

/// An authority, or a server: a certificate, its key, and how it issues others.
struct Party {
    der: CertificateDer<'static>,
    pem: String,
    key: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Party {
    fn new(params: CertificateParams, above: Option<&Party>) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        Party {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            key: key.serialize_der(),
            issuer: Issuer::new(params, key),
        }
    }

    fn authority(name: &str, above: Option<&Party>) -> Self {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Party::new(params, above)
    }

    fn server(above: Option<&Party>) -> Self {
        Party::new(named(HOST, &[HOST]), above)
    }
}

fn named(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn provider() -> Arc<CryptoProvider> {
    connector::provider().unwrap()
}

fn server_config(chain: &[&Party]) -> ServerConfig {
    let key = PrivateKeyDer::try_from(chain[0].key.clone()).unwrap();
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12, &TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.iter().map(|party| party.der.clone()).collect(), key)
        .unwrap()
}

/// A server at the other end: it greets inside TLS, reads to the end and closes.
fn serve(config: &Arc<ServerConfig>) -> DuplexStream {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let acceptor = TlsAcceptor::from(config.clone());
    tokio::spawn(async move {
        if let Ok(mut stream) = acceptor.accept(server).await {
            let _ = stream.write_all(b"220 hello\r\n").await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    client
}

async fn connect(connector: &Connector, config: ServerConfig) -> Result<TlsInfo> {
    let handshake = connector.handshake(HOST, serve(&Arc::new(config)), Opening::StartTls);
    Ok(sendable(handshake).await?.1)
}

/// The driver's futures are spawned, and so must be `Send`.
fn sendable<F: Future + Send>(future: F) -> F {
    future
}

fn trusting(party: &Party) -> TlsSettings {
    TlsSettings::new(Trust::empty().pem(&party.pem))
}

fn connector(settings: &TlsSettings) -> Connector {
    Connector::new(settings, Demand::Verified).unwrap()
}

/// The failure of a client that trusts `trusted` with a server that shows `chain`.
async fn failure(trusted: &Party, chain: &[&Party]) -> Error {
    let error = connect(&connector(&trusting(trusted)), server_config(chain)).await.unwrap_err();
    assert_eq!((error.kind(), error.phase()), (Kind::Tls, Phase::Tls));
    assert!(error.is_permanent());
    error
}

fn cause(error: &Error) -> &CertificateFailure {
    error.source().unwrap().downcast_ref().unwrap()
}

#[track_caller]
fn says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[tokio::test]
async fn tells_what_was_negotiated() {
    let root = Party::authority("Root", None);
    let middle = Party::authority("Middle", Some(&root));
    let server = Party::server(Some(&middle));
    let info = connect(&connector(&trusting(&root)), server_config(&[&server, &middle])).await.unwrap();

    assert!(info.verified);
    assert_eq!(info.verified_by.as_deref(), Some("CN=Root"));
    assert_eq!(info.not_verified_because, None);
    assert_eq!(info.version, "TLSv1.3");
    assert_eq!(info.cipher, "TLS13_AES_256_GCM_SHA384");
    assert!(info.key_exchange.is_some());
    assert!(!info.resumed);
    assert_eq!(info.chain.len(), 2);
    let peer = info.peer().unwrap();
    assert_eq!((peer.subject.as_str(), peer.issuer.as_str()), ("CN=mail.example.com", "CN=Middle"));
    assert_eq!(peer.names, [HOST]);
    assert_eq!(peer.not_after_text(), "4096-01-01T00:00:00Z");
    assert_eq!(peer.sha256.len(), 32 * 3 - 1);
    assert_eq!(peer.to_pem().replace("\r\n", "\n"), server.pem.replace("\r\n", "\n"));
    says_info(&info, "TLSv1.3, TLS13_AES_256_GCM_SHA384");
    says_info(&info, "with CN=mail.example.com, verified by CN=Root");
}

fn says_info(info: &TlsInfo, part: &str) {
    assert!(info.to_string().contains(part), "{info}");
}

#[tokio::test]
async fn resumes_sessions_of_both_versions() {
    let root = Party::authority("Root", None);
    let server = Party::server(Some(&root));
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let connector = connector(&trusting(&root).min_version(version).max_version(version));
        let config = Arc::new(server_config(&[&server]));
        for round in 0..2 {
            let (mut stream, info) = connector.handshake(HOST, serve(&config), Opening::Implicit).await.unwrap();
            assert_eq!(info.version, version.to_string());
            assert_eq!(info.resumed, round == 1, "{version}");
            assert!(info.verified);
            assert_eq!(info.peer().unwrap().subject, "CN=mail.example.com");
            // TLS 1.3 sends its tickets after the handshake.
            stream.read_exact(&mut [0; 11]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn takes_hosts_with_dots_brackets_and_addresses() {
    let root = Party::authority("Root", None);
    let server = Party::new(named("server", &[HOST, "127.0.0.1", "::1"]), Some(&root));
    let connector = connector(&trusting(&root));
    let config = Arc::new(server_config(&[&server]));
    for host in [HOST, "mail.example.com.", "MAIL.example.com", "127.0.0.1", "::1", "[::1]"] {
        let result = connector.handshake(host, serve(&config), Opening::Implicit).await;
        assert!(result.is_ok(), "{host}: {:?}", result.err());
    }
    let error = connector.handshake("127.0.0.2", serve(&config), Opening::Implicit).await.unwrap_err();
    says(&error, &["is for mail.example.com, 127.0.0.1, ::1, not for the IP address 127.0.0.2"]);
    let error = connector.handshake("mail server", serve(&config), Opening::Implicit).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    says(&error, &["\"mail server\" is no name that a certificate can bear"]);
}

#[tokio::test]
async fn checks_another_name_if_told() {
    let root = Party::authority("Root", None);
    let server = Party::new(named("other", &["other.example.net"]), Some(&root));
    let settings = trusting(&root).server_name("other.example.net.");
    assert!(connect(&connector(&settings), server_config(&[&server])).await.unwrap().verified);
    assert_eq!(
        Connector::new(&trusting(&root).server_name("a b"), Demand::Verified).unwrap_err().phase(),
        Phase::Setup
    );
}

#[tokio::test]
async fn unknown_issuer_without_intermediate() {
    let (root, other) = (Party::authority("Root", None), Party::authority("Other", None));
    let middle = Party::authority("Middle", Some(&root));
    let server = Party::server(Some(&middle));
    let error = failure(&other, &[&server]).await;
    says(
        &error,
        &[
            "the certificate of mail.example.com, \"CN=mail.example.com\", was issued by \"CN=Middle\", which is missing",
            "the server sent no other certificate",
            "there is one, \"CN=Other\" (the certificates given in memory)",
            "its administrator must install the full chain",
        ],
    );
    assert_eq!(cause(&error).problem, CertificateProblem::UnknownIssuer);
    assert_eq!(cause(&error).culprit, Some(0));
    assert_eq!(cause(&error).chain[0].der(), server.der.as_ref());
    // The same with the right root: the intermediate is still missing.
    says(&failure(&root, &[&server]).await, &["\"CN=Middle\", which is missing"]);
}

#[tokio::test]
async fn unknown_issuer_of_an_intermediate() {
    let (root, other) = (Party::authority("Root", None), Party::authority("Other", None));
    let middle = Party::authority("Middle", Some(&root));
    let server = Party::server(Some(&middle));
    let error = failure(&other, &[&server, &middle]).await;
    says(
        &error,
        &[
            "leads to \"CN=Middle\", whose issuer \"CN=Root\" is missing",
            "it is not among the 2 certificates that the server sent",
        ],
    );
    assert_eq!(cause(&error).culprit, Some(1));
    // The root is sent too, which proves nothing.
    let error = failure(&other, &[&server, &middle, &root]).await;
    says(&error, &["was issued under \"CN=Root\", which is not among the trusted certificates"]);
    assert_eq!(cause(&error).culprit, Some(2));
    assert_eq!(cause(&error).chain.len(), 3);
}

#[tokio::test]
async fn self_signed() {
    let other = Party::authority("Other", None);
    // As rcgen makes it, and as `openssl req -x509` does, which marks it as an authority.
    for server in [Party::server(None), {
        let mut params = named(HOST, &[HOST]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Party::new(params, None)
    }] {
        let error = failure(&other, &[&server]).await;
        assert_eq!(cause(&error).problem, CertificateProblem::SelfSigned);
        let fingerprint = &cause(&error).chain[0].sha256;
        says(&error, &["\"CN=mail.example.com\", is self-signed: no authority vouches for it", fingerprint]);

        let info = connect(&connector(&trusting(&server)), server_config(&[&server])).await.unwrap();
        assert_eq!(info.verified_by.as_deref(), Some("CN=mail.example.com"));
    }
}

#[tokio::test]
async fn a_trusted_certificate_of_a_server_must_still_be_valid_and_bear_the_name() {
    let mut params = named("other.example.com", &["other.example.com"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let server = Party::new(params.clone(), None);
    assert_eq!(cause(&failure(&server, &[&server]).await).problem, CertificateProblem::WrongName);
    params.not_after = rcgen::date_time_ymd(2001, 2, 3);
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    let server = Party::new(params, None);
    assert_eq!(cause(&failure(&server, &[&server]).await).problem, CertificateProblem::Expired);
}

#[tokio::test]
async fn expired_and_not_yet_valid() {
    let root = Party::authority("Root", None);
    let mut params = named(HOST, &[HOST]);
    params.not_after = (SystemTime::now() - Duration::from_secs(3 * 86_400 + 60)).into();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    let error = failure(&root, &[&Party::new(params.clone(), Some(&root))]).await;
    says(
        &error,
        &["the certificate of mail.example.com, \"CN=mail.example.com\", expired 3 days ago, at 2", "(now it is 2"],
    );
    says(&error, &["The server's administrator must install a new one"]);
    assert_eq!((cause(&error).problem, cause(&error).culprit), (CertificateProblem::Expired, Some(0)));

    params.not_after = rcgen::date_time_ymd(4000, 1, 1);
    params.not_before = (SystemTime::now() + Duration::from_secs(5 * 3600 + 60)).into();
    let error = failure(&root, &[&Party::new(params, Some(&root))]).await;
    says(&error, &["is not valid yet: it will be in 5 hours, from 2", "set this machine's clock"]);
    assert_eq!(cause(&error).problem, CertificateProblem::NotYetValid);
}

#[tokio::test]
async fn expired_intermediate() {
    let root = Party::authority("Root", None);
    let mut params = named("Middle", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let middle = Party::new(params, Some(&root));
    let error = failure(&root, &[&Party::server(Some(&middle)), &middle]).await;
    says(
        &error,
        &["a certificate in the chain that mail.example.com sent, \"CN=Middle\" (not the server's own), expired"],
    );
    says(&error, &["at 2002-01-01T00:00:00Z"]);
    assert_eq!(cause(&error).culprit, Some(1));
}

#[tokio::test]
async fn wrong_name() {
    let root = Party::authority("Root", None);
    let names: Vec<_> = (1..=20).map(|number| format!("mx{number}.example.net")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let error = failure(&root, &[&Party::new(named("mx", &names), Some(&root))]).await;
    says(
        &error,
        &["is for mx1.example.net, mx2.example.net, ", "mx8.example.net and 12 more, not for mail.example.com"],
    );
    says(&error, &["server-name= in the URL"]);
    assert_eq!(cause(&error).problem, CertificateProblem::WrongName);

    let error = failure(&root, &[&Party::new(named(HOST, &[]), Some(&root))]).await;
    says(
        &error,
        &["\"CN=mail.example.com\", names no server at all", "with mail.example.com as subject alternative name"],
    );
}

#[tokio::test]
async fn wrong_signature() {
    let (old, new) = (Party::authority("Root", None), Party::authority("Root", None));
    let error = failure(&old, &[&Party::server(Some(&new))]).await;
    assert_eq!(cause(&error).problem, CertificateProblem::BadSignature);
    says(
        &error,
        &["says that \"CN=Root\" issued it, but its signature is not by the key", "has probably got a new key"],
    );
}

#[tokio::test]
async fn wrong_purpose() {
    let root = Party::authority("Root", None);
    let mut params = named(HOST, &[HOST]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let error = failure(&root, &[&Party::new(params, Some(&root))]).await;
    assert_eq!(cause(&error).problem, CertificateProblem::WrongPurpose);
    says(&error, &["lacks serverAuth"]);

    let mut params = named(HOST, &[HOST]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let error = failure(&root, &[&Party::new(params, Some(&root))]).await;
    says(&error, &["is that of an authority (CA:TRUE), not of a server"]);

    let server = Party::server(Some(&root));
    let error = failure(&root, &[&Party::server(Some(&server)), &server]).await;
    says(&error, &["issued by one that may not issue any"]);
}

#[tokio::test]
async fn only_reported() {
    let (root, other) = (Party::authority("Root", None), Party::authority("Other", None));
    let server = Party::server(Some(&root));
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let settings = trusting(&other).min_version(version).max_version(version);
        let connector = Connector::new(&settings, Demand::Reported).unwrap();
        let config = Arc::new(server_config(&[&server]));
        for round in 0..2 {
            let (mut stream, info) = connector.handshake(HOST, serve(&config), Opening::StartTls).await.unwrap();
            stream.read_exact(&mut [0; 11]).await.unwrap();
            assert!(!info.verified);
            assert_eq!(info.resumed, round == 1);
            assert!(
                info.not_verified_because.as_deref().unwrap().contains("was issued by \"CN=Root\", which is missing")
            );
        }
        let info = connect(&Connector::new(&trusting(&root), Demand::Reported).unwrap(), server_config(&[&server]))
            .await
            .unwrap();
        assert!(info.verified);
        assert_eq!(info.verified_by.as_deref(), Some("CN=Root"));
    }
}

#[tokio::test]
async fn no_version_in_common() {
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
        says(&error, &["have no version of TLS in common", &format!("this client offers {ours}")]);
    }
    let error = Connector::new(
        &trusting(&root).min_version(TlsVersion::Tls13).max_version(TlsVersion::Tls12),
        Demand::Verified,
    )
    .unwrap_err();
    says(&error, &["the minimum version of TLS, TLSv1.3, is above the maximum, TLSv1.2"]);
}

#[tokio::test]
async fn no_cipher_in_common() {
    let root = Party::authority("Root", None);
    let server = Party::server(Some(&root));
    // A server whose only suite is for another sort of key than its own.
    let mut provider = CryptoProvider::clone(&provider());
    provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains("ECDHE_RSA"));
    let key = PrivateKeyDer::try_from(server.key.clone()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.der.clone()], key)
        .unwrap();
    let error = connect(&connector(&trusting(&root)), config).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Tls);
    says(&error, &["no cipher suite, key exchange or signature in common"]);
}

#[tokio::test]
async fn client_certificate_demanded() {
    let root = Party::authority("Root", None);
    let server = Party::server(Some(&root));
    let mut roots = RootCertStore::empty();
    roots.add(root.der.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let key = PrivateKeyDer::try_from(server.key.clone()).unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12, &TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.der.clone()], key)
        .unwrap();
    let config = Arc::new(config);

    let settings = trusting(&root).max_version(TlsVersion::Tls12);
    let error = connector(&settings).handshake(HOST, serve(&config), Opening::StartTls).await.unwrap_err();
    says(&error, &["client certificate"]);

    // TLS 1.3 says so only when the handshake is over.
    let (mut stream, _) = connector(&trusting(&root)).handshake(HOST, serve(&config), Opening::StartTls).await.unwrap();
    let error = stream.read_u8().await.unwrap_err();
    let error = late_alert(&error, HOST).unwrap();
    assert_eq!((error.kind(), error.phase()), (Kind::Tls, Phase::Tls));
    says(
        &error,
        &["mail.example.com demands a client certificate, and none was sent (TLS alert certificate_required, 116)"],
    );
}

/// A server that says this as soon as it heard something, and closes.
fn babble(bytes: &'static [u8]) -> DuplexStream {
    let (client, mut server) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        server.read_u8().await.unwrap();
        server.write_all(bytes).await.unwrap();
    });
    client
}

#[tokio::test]
async fn no_tls_at_the_other_end() {
    let connector = connector(&trusting(&Party::authority("Root", None)));
    for (opening, bytes, parts) in [
        (
            Opening::Implicit,
            &b"220 mail.example.com ESMTP Postfix\r\n250 more"[..],
            &["speaks plaintext on this port", "\"220 mail.example.com ESMTP Postfix\"", "smtp://mail.example.com:587"]
                [..],
        ),
        (
            Opening::Implicit,
            b"554 5.7.1 \x1b[31mgo away\r\n",
            &["refuses the connection", "\"554 5.7.1 .[31mgo away\""],
        ),
        (Opening::Implicit, b"SSH-2.0-OpenSSH_9.2\r\n", &["is an SSH server on this port"]),
        (Opening::Implicit, b"HTTP/1.1 400 Bad Request\r\n", &["is a web server on this port"]),
        (Opening::Implicit, b"* OK IMAP4rev1\r\n", &["is an IMAP server"]),
        (Opening::Implicit, b"+OK POP3\r\n", &["is a POP3 server"]),
        (
            Opening::Implicit,
            b"\x00\x00\x00\x00\x00\x00",
            &["does not speak TLS on this port: its first bytes are \"......\""],
        ),
        (Opening::Implicit, b"22", &["does not speak TLS on this port: its first bytes are \"22\""]),
        (Opening::Implicit, b"", &["closed the connection instead of answering the TLS handshake", "try STARTTLS"]),
        (Opening::StartTls, b"", &["though it had agreed to STARTTLS"]),
        (
            Opening::StartTls,
            b"454 4.7.0 TLS not available\r\n",
            &["agreed to STARTTLS and then went on in clear text: \"454 4.7.0 TLS"],
        ),
        (Opening::StartTls, b"\x16\x03\x03", &["closed the connection in the middle of the TLS handshake"]),
        (
            Opening::StartTls,
            b"\x15\x03\x01\x00\x02\x02\x46",
            &["the server speaks TLSv1.0, this client offers TLSv1.3 and TLSv1.2"],
        ),
        (Opening::StartTls, b"\x15\x03\x03\x00\x02\x02\x28", &["no cipher suite, key exchange or signature in common"]),
        (
            Opening::StartTls,
            b"\x15\x03\x03\x00\x02\x02\x70",
            &["does not know this name (TLS alert unrecognised_name, 112)"],
        ),
        (
            Opening::StartTls,
            b"\x15\x03\x03\x00\x02\x02\x50",
            &["failed in the TLS handshake by its own account (TLS alert internal_error, 80)"],
        ),
        (
            Opening::StartTls,
            b"\x16\x03\x03\x00\x05\x02\x00\x00\x01\x00",
            &["the TLS handshake with mail.example.com failed"],
        ),
    ] {
        let error = connector.handshake(HOST, babble(bytes), opening).await.unwrap_err();
        assert_eq!((error.kind(), error.phase()), (Kind::Tls, Phase::Tls), "{error}");
        says(&error, parts);
        assert!(error.hint().is_some(), "{error}");
        assert!(error.source().is_some(), "{error}");
    }
}

#[test]
fn first_bytes_of_tls() {
    assert!(speaks_tls(b"\x15\x03\x01\x00\x02"));
    assert!(speaks_tls(b"\x16"));
    assert!(!speaks_tls(b""));
    assert!(!speaks_tls(b"220 mail"));
}

#[tokio::test]
async fn a_configuration_of_the_callers_own() {
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
    // Its trust is not even looked at.
    let settings = TlsSettings::new(Trust::empty()).rustls_config(Arc::new(config(roots)));
    let info = connect(&connector(&settings), server_config(&[&server])).await.unwrap();
    assert!(info.verified);
    assert_eq!(info.verified_by.as_deref(), Some("the rustls configuration given"));

    let settings = TlsSettings::new(Trust::empty()).rustls_config(Arc::new(config(RootCertStore::empty())));
    let error = connect(&connector(&settings), server_config(&[&server])).await.unwrap_err();
    says(&error, &["the certificate of mail.example.com was not accepted: "]);
}

mod trust {
    use super::*;
    use std::fs;

    fn config_error(trust: Trust) -> Error {
        let error = trust.load().unwrap_err();
        assert_eq!((error.kind(), error.phase()), (Kind::Config, Phase::Setup));
        assert!(error.hint().is_some(), "{error}");
        error
    }

    #[test]
    fn files_are_recognised_by_their_content() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (Party::authority("A", None), Party::authority("B", None));
        let utf16: Vec<u8> = [0xFEFF].into_iter().chain(a.pem.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        for (name, content, subjects) in [
            ("pem", a.pem.clone().into_bytes(), &["CN=A"][..]),
            ("two.der", format!("{}junk\n{}", a.pem, b.pem).into_bytes(), &["CN=A", "CN=B"]),
            ("twice", format!("{0}{0}", a.pem).into_bytes(), &["CN=A"]),
            ("der.pem", a.der.to_vec(), &["CN=A"]),
            ("crlf", a.pem.replace('\n', "\r\n").into_bytes(), &["CN=A"]),
            ("byte-order-mark", format!("\u{FEFF}{}", a.pem).into_bytes(), &["CN=A"]),
            ("utf-16", utf16, &["CN=A"]),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, &content).unwrap();
            for trust in [Trust::empty().file(&path), Trust::empty().path(&path), Trust::empty().pem(&content)] {
                let summary = trust.load().unwrap_or_else(|error| panic!("{name}: {error}"));
                let found: Vec<_> = summary.anchors.iter().map(|anchor| anchor.certificate.subject.as_str()).collect();
                assert_eq!(found, subjects, "{name}");
                assert!(summary.warnings.is_empty(), "{summary}");
            }
        }
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let a = Party::authority("A", None);
        let key = pem("PRIVATE KEY", &a.key);
        let cut = a.pem.split_at(a.pem.len() / 2).0;
        for (content, text) in [
            (&b""[..], "is empty"),
            (b" \r\n", "is empty"),
            (b"hello", "holds no certificate"),
            (key.as_bytes(), "holds a private key, not a certificate"),
            (&a.key, "holds a private key, not a certificate"),
            (pem("ENCRYPTED PRIVATE KEY", &a.key).as_bytes(), "holds a private key, not a certificate"),
            (cut.as_bytes(), "has a section that is damaged"),
            (pem("CERTIFICATE", b"nonsense").as_bytes(), "can be read"),
            (&a.der[..a.der.len() - 1], "is DER, but not a certificate that can be read"),
            (pem("PUBLIC KEY", &a.key).as_bytes(), "is PEM, but holds no certificate"),
            (pem("PKCS7", &a.key).as_bytes(), "is a PKCS#7 bundle"),
            (pem("TRUSTED CERTIFICATE", &a.der).as_bytes(), "that openssl alone reads"),
            (b"\xFE\xED\xFE\xED\0\0\0\x02", "is a Java key store (JKS)"),
            (b"\xA1\xF8\x4E\x36", "auto-login wallet of Oracle"),
            (b"\x30\x82\x01\x00\x02\x01\x03\x30", "is a key store (PKCS#12)"),
        ] {
            let path = folder.path().join("file.pem");
            fs::write(&path, content).unwrap();
            let error = config_error(Trust::empty().file(&path));
            says(&error, &[text, &path.display().to_string()]);
        }
        says(&config_error(Trust::empty().file(folder.path().join("none"))), &["/none: No such file"]);
        says(
            &config_error(Trust::empty().path(folder.path().join("none"))),
            &["/none: No such file", "Check the path"],
        );
        says(&config_error(Trust::empty().file(folder.path())), &["use Trust::folder or Trust::path"]);
        says(&config_error(Trust::empty()), &["no trusted certificate was found"]);
    }

    fn pem(label: &str, der: &[u8]) -> String {
        use base64::Engine as _;
        let base64 = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
    }

    #[test]
    fn folders_skip_what_holds_no_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let a = Party::authority("A", None);
        says(&config_error(Trust::empty().folder(folder.path())), &["holds no certificate (0 files were looked at)"]);
        fs::write(folder.path().join("README"), "no certificate").unwrap();
        fs::create_dir(folder.path().join("more")).unwrap();
        says(&config_error(Trust::empty().path(folder.path())), &["holds no certificate (2 files were looked at)"]);
        fs::write(folder.path().join("a.pem"), &a.pem).unwrap();
        fs::write(folder.path().join("same.pem"), &a.pem).unwrap();
        let summary = Trust::empty().path(folder.path()).load().unwrap();
        assert_eq!(summary.anchors.len(), 1);
        assert!(summary.anchors[0].origin.ends_with("a.pem"));
        assert_eq!(summary.warnings.len(), 2, "{summary}");
        assert!(summary.warnings[0].ends_with("README was skipped: it holds no certificate"), "{summary}");
        assert!(
            summary.to_string().starts_with("1 trusted certificate\n  CN=A (expires 4096-01-01T00:00:00Z; "),
            "{summary}"
        );
    }

    #[test]
    fn warns_of_what_expires() {
        let mut params = named("Old", &[]);
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        let old = Party::new(params.clone(), None);
        params.not_after = (SystemTime::now() + Duration::from_secs(20 * 86_400 + 60)).into();
        let soon = Party::new(params, None);
        let summary = Trust::empty().pem(old.pem).pem(soon.pem).load().unwrap();
        assert_eq!(summary.warnings.len(), 2, "{summary}");
        assert!(summary.warnings[0].contains("days ago, at 2002-01-01T00:00:00Z"), "{summary}");
        assert!(summary.warnings[1].contains("expires in 20 days, at 2"), "{summary}");
    }

    #[test]
    fn says_what_else_a_file_holds() {
        let a = Party::authority("A", None);
        let summary = Trust::empty().pem(format!("{}{}", pem("PRIVATE KEY", &a.key), a.pem)).load().unwrap();
        assert_eq!(
            summary.warnings,
            ["the certificates given in memory holds a private key too; only its certificates are used"]
        );
    }

    #[test]
    fn the_systems_store_is_read_only_if_asked_for() {
        let a = Party::authority("A", None);
        assert_eq!(Trust::empty().pem(&a.pem).load().unwrap().anchors.len(), 1);
        // A machine may have none; where there is one, all of it can be read.
        let native = rustls_native_certs::load_native_certs().certs;
        let summary = Trust::system().pem(&a.pem).load().unwrap();
        let unreadable = native.iter().filter(|der| Certificate::read(der).is_none()).count();
        assert_eq!(unreadable, 0);
        assert_eq!(summary.anchors.len(), native.len() + 1, "{summary}");
    }
}

#[test]
fn policies_and_versions_by_their_words() {
    for security in [Security::None, Security::Opportunistic, Security::Required] {
        assert_eq!(security.to_string().parse::<Security>().unwrap(), security);
    }
    assert!("implicit".parse::<Security>().unwrap_err().to_string().contains("smtps://"));
    assert!("Required".parse::<Security>().unwrap_err().to_string().contains("none, opportunistic or required"));
    assert_eq!("TLSv1.2".parse::<TlsVersion>().unwrap(), TlsVersion::Tls12);
    assert_eq!("1.1".parse::<TlsVersion>().unwrap_err().kind(), Kind::Request);
}
