//! Every failure here happens for real: a server with such a certificate, at the other end of a stream.

mod client_certificate;
mod openssl;
mod stores;
mod trust;

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
    assert!(info.not_verified_because.is_none());
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
            "what is trusted (one certificate, \"CN=Other\", from what was given in memory)",
            "If \"CN=Middle\" is an authority of your own, get its certificate from whoever runs it",
        ],
    );
    assert_eq!(cause(&error).problem, CertificateProblem::UnknownIssuer);
    assert_eq!(cause(&error).culprit, Some(0));
    assert_eq!(cause(&error).chain[0].der(), server.der.as_ref());
    let mut params = named(HOST, &[HOST]);
    let mut access =
        rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], issuer_at("http://ca.example/1.crt"));
    access.set_criticality(false);
    params.custom_extensions = vec![access];
    let error = failure(&other, &[&Party::new(params, Some(&middle))]).await;
    says(
        &error,
        &["most likely left out an intermediate certificate", "the missing one is at http://ca.example/1.crt"],
    );
    // The same with the right root: the intermediate is still missing.
    says(&failure(&root, &[&server]).await, &["\"CN=Middle\", which is missing"]);
}

/// The extension that says where the issuer's certificate is (RFC 5280, 4.2.2.1).
fn issuer_at(address: &str) -> Vec<u8> {
    let length = address.len() as u8;
    let mut der = vec![0x30, length + 14, 0x30, length + 12, 6, 8, 0x2B, 6, 1, 5, 5, 7, 0x30, 2, 0x86, length];
    der.extend_from_slice(address.as_bytes());
    der
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
    says(&error, &["was issued under \"CN=Root\", which is not among what is trusted"]);
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
                info.not_verified_because
                    .as_ref()
                    .unwrap()
                    .to_string()
                    .contains("was issued by \"CN=Root\", which is missing")
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
async fn pinned_keys() {
    let root = Party::authority("Root", None);
    let server = Party::server(Some(&root));
    let pin = Certificate::read(&server.der).unwrap().pin();
    let hash = Certificate::read(&server.der).unwrap().key_hash();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let colons: Vec<_> = hash.iter().map(|byte| format!("{byte:02X}")).collect();
    let other = Certificate::read(&root.der).unwrap().pin();

    // Alone, in every form: neither issuer nor name count.
    let forms = [&pin, pin.trim_start_matches("sha256//"), pin.trim_end_matches('='), &hex, &colons.join(":")]
        .map(str::to_owned);
    for form in forms {
        let settings = TlsSettings::new(Trust::empty().pin(&other).pin(form)).server_name("other.example.com");
        let info = connect(&connector(&settings), server_config(&[&server])).await.unwrap();
        assert_eq!(info.verified_by.unwrap(), format!("the pinned key {pin}"));
    }
    let error = connect(&connector(&TlsSettings::new(Trust::empty().pin(&other))), server_config(&[&server]))
        .await
        .unwrap_err();
    assert_eq!(cause(&error).problem, CertificateProblem::WrongKey);
    says(&error, &[&format!("the key of mail.example.com is {pin}, and not the one that is pinned, {other}")]);

    // The fingerprint of the certificate, by mistake.
    let fingerprint = &cause(&error).chain[0].sha256;
    let error = connect(&connector(&TlsSettings::new(Trust::empty().pin(fingerprint))), server_config(&[&server]))
        .await
        .unwrap_err();
    says(&error, &[&format!("Pin the hash of its key instead, which is {pin}")]);

    // On top of other trust, both count.
    let on_top = |trusted: &Party, pin: &str| connector(&TlsSettings::new(Trust::empty().pem(&trusted.pem).pin(pin)));
    let info = connect(&on_top(&root, &pin), server_config(&[&server])).await.unwrap();
    assert_eq!(info.verified_by.as_deref(), Some("CN=Root"));
    assert!(connect(&on_top(&root, &other), server_config(&[&server])).await.is_err());
    let error = connect(&on_top(&Party::authority("Other", None), &pin), server_config(&[&server])).await.unwrap_err();
    assert_eq!(cause(&error).problem, CertificateProblem::UnknownIssuer);
}

#[tokio::test]
async fn revoked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.pem");
    let root = Party::authority("Root", None);
    let mut params = named(HOST, &[HOST]);
    params.serial_number = Some(77.into());
    let server = Party::new(params, Some(&root));
    let list = |serial: u64, until: i32| {
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2001, 1, 1),
            next_update: rcgen::date_time_ymd(until, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: serial.into(),
                revocation_time: rcgen::date_time_ymd(2001, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        std::fs::write(&path, list.signed_by(&root.issuer).unwrap().pem().unwrap()).unwrap();
    };
    list(77, 4000);
    let trust = Trust::empty().pem(&root.pem).revocation_list(&path);
    let error = connect(&connector(&TlsSettings::new(trust.clone())), server_config(&[&server])).await.unwrap_err();
    assert_eq!(cause(&error).problem, CertificateProblem::Revoked);
    says(&error, &["was revoked by its issuer. Do not send anything to it"]);

    list(78, 2002);
    assert!(trust.load().unwrap().warnings[0].contains("list.pem is out of date: a newer list was due "));
    assert!(connect(&connector(&TlsSettings::new(trust.clone())), server_config(&[&server])).await.unwrap().verified);
    std::fs::write(&path, &root.pem).unwrap();
    assert_eq!(trust.load().unwrap_err().kind(), Kind::Config);
}

#[tokio::test]
async fn anything_goes_if_asked_for() {
    let server = Party::server(None);
    let settings = TlsSettings::new(Trust::dangerous_accept_anything());
    let info = connect(&connector(&settings), server_config(&[&server])).await.unwrap();
    assert!(!info.verified);
    assert!(info.not_verified_because.unwrap().to_string().contains("is self-signed"));
    let settings = TlsSettings::new(Trust::dangerous_accept_anything().pem(&server.pem));
    assert!(connect(&connector(&settings), server_config(&[&server])).await.unwrap().verified);
}

#[tokio::test]
async fn loads_again_while_it_lives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let (old, new) = (Party::authority("Old", None), Party::authority("New", None));
    let server = Party::server(Some(&new));
    std::fs::write(&path, &old.pem).unwrap();
    let connector = connector(&TlsSettings::new(Trust::empty().path(&path)));
    let clone = connector.clone();
    assert!(connect(&clone, server_config(&[&server])).await.is_err());

    std::fs::write(&path, &new.pem).unwrap();
    assert_eq!(connector.reload().unwrap().anchors[0].certificate.subject, "CN=New");
    let config = Arc::new(server_config(&[&server]));
    let (mut stream, _) = clone.handshake(HOST, serve(&config), Opening::Implicit).await.unwrap();
    stream.read_exact(&mut [0; 11]).await.unwrap();

    // What cannot be loaded changes nothing.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(connector.reload().unwrap_err().kind(), Kind::Config);
    let (mut stream, info) = clone.handshake(HOST, serve(&config), Opening::Implicit).await.unwrap();
    stream.read_exact(&mut [0; 11]).await.unwrap();
    assert!(info.resumed);

    // A session that another trust let begin is not resumed.
    std::fs::write(&path, &old.pem).unwrap();
    connector.reload().unwrap();
    assert!(clone.handshake(HOST, serve(&config), Opening::Implicit).await.is_err());
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
        says(&error, &["have no version of TLS in common", &format!("this client offers {ours}. Allow TLS 1.")]);
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

/// A server that demands a client certificate issued by `root`.
fn demanding(root: &CertificateDer<'static>, server: &Party) -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let key = PrivateKeyDer::try_from(server.key.clone()).unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12, &TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.der.clone()], key)
        .unwrap();
    Arc::new(config)
}

/// The first reply inside TLS, or why there is none.
async fn first_reply(settings: &TlsSettings, config: &Arc<ServerConfig>) -> Result<()> {
    let (mut stream, _) = connector(settings).handshake(HOST, serve(config), Opening::StartTls).await?;
    stream.read_u8().await.map(drop).map_err(|error| late_alert(&error, HOST).unwrap())
}

#[tokio::test]
async fn client_certificate_demanded() {
    let root = Party::authority("Root", None);
    let server = Party::server(Some(&root));
    let config = demanding(&root.der, &server);
    for (version, text) in [
        (TlsVersion::Tls12, "demands a client certificate, and none was sent (TLS alert certificate_required, 116)"),
        // TLS 1.3 says so only when the handshake is over.
        (TlsVersion::Tls13, "demands a client certificate, and none was sent (TLS alert certificate_required, 116)"),
    ] {
        let settings = trusting(&root).min_version(version).max_version(version);
        let error = first_reply(&settings, &config).await.unwrap_err();
        assert_eq!((error.kind(), error.phase()), (Kind::Tls, Phase::Tls));
        says(&error, &[text, "TlsSettings::client_certificate"]);

        let stranger = Party::new(named("client", &[]), Some(&Party::authority("Other", None)));
        let stranger = ClientCertificate::pem(&stranger.pem).key_pem(&stranger.key);
        let error = first_reply(&settings.clone().client_certificate(stranger), &config).await.unwrap_err();
        assert_eq!((error.kind(), error.phase()), (Kind::Tls, Phase::Tls));
        says(&error, &["does not accept the client certificate"]);

        let client = Party::new(named("client", &[]), Some(&root));
        let client = ClientCertificate::pem(&client.pem).key_pem(&client.key);
        first_reply(&settings.client_certificate(client), &config).await.unwrap();
    }
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
            &[
                "speaks plaintext on this port",
                "\"220 mail.example.com ESMTP Postfix\"",
                "smtp://mail.example.com instead of",
            ][..],
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
            &["the server speaks TLSv1.1 or older, this client offers TLSv1.3 and TLSv1.2"],
        ),
        // The hello of an old server, which takes no notice of what it does not know.
        (
            Opening::StartTls,
            b"\x16\x03\x02\x00\x2a\x02\x00\x00\x26\x03\x02random random random random rand\x00\x00\x2f\x00",
            &["the server speaks TLSv1.1, this client offers TLSv1.3 and TLSv1.2"],
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
