//! The client certificate: its sources and its defects.

use std::fs;
use std::path::Path;

use tokio_rustls::rustls::server::WebPkiClientVerifier;

use super::*;

fn store(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/tls/tests/stores")
        .join(name)
}

#[tokio::test]
async fn a_client_certificate_is_sent_from_every_format() {
    let root = Party::authority("Root", None);
    let server = Party::server(Some(&root));
    let ca = fs::read(store("ca.der")).unwrap();
    let config = demanding(&CertificateDer::from(ca), &server);

    // Of X.509 version 1: servers on rustls refuse it, others accept it.
    let old = ClientCertificate::file(store("client-v1.pem")).key(store("client.key"));
    assert_eq!(old.load().unwrap().subject, "CN=client");
    connector(&trusting(&root).client_certificate(old));

    let (certificate, key) = (
        fs::read(store("client.pem")).unwrap(),
        fs::read(store("client.key")).unwrap(),
    );
    let ca = fs::read(store("ca.pem")).unwrap();
    for own in [
        ClientCertificate::file(store("client.pem")).key(store("client.key")),
        ClientCertificate::pem([&certificate[..], &key].concat()),
        // In any order.
        ClientCertificate::pem([&key[..], &ca, &certificate].concat()),
        ClientCertificate::pem(&certificate).key_pem(&key),
        ClientCertificate::file(store("client.p12")).password("changeit"),
        ClientCertificate::file(store("client-legacy.p12")).password("changeit"),
        ClientCertificate::file(store("keys.p12")).password("changeit"),
        ClientCertificate::file(store("ewallet.p12")).password("changeit"),
        ClientCertificate::file(store("keys.jks")).password("changeit"),
        ClientCertificate::file(store("keys.jceks")).password("changeit"),
    ] {
        assert_eq!(own.load().unwrap().subject, "CN=client", "{own:?}");
        first_reply(&trusting(&root).client_certificate(own), &config)
            .await
            .unwrap();
    }
}

#[test]
fn faults_of_a_client_certificate_are_named() {
    let (client, ca) = (store("client.pem"), store("ca.pem"));
    let folder = tempfile::tempdir().unwrap();
    let encrypted = folder.path().join("encrypted.key");
    fs::write(
        &encrypted,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    for (own, text) in [
        (
            ClientCertificate::file("/none/client.pem"),
            "cannot be read from /none/client.pem: No such file",
        ),
        (
            ClientCertificate::file(&client),
            "client.pem holds no private key",
        ),
        (
            ClientCertificate::file(&client).key(&ca),
            "ca.pem holds no private key",
        ),
        (
            ClientCertificate::file(&client).key(&encrypted),
            "encrypted.key holds a key that is encrypted",
        ),
        (
            ClientCertificate::file(&ca).key(store("client.key")),
            "certificate and key do not belong together",
        ),
        (
            ClientCertificate::file(store("client.key")),
            "client.key holds a private key, not a certificate. Give the certificate that was \
                issued for this key",
        ),
        (
            ClientCertificate::file(&client).key(store("client.p12")),
            "client.p12 is a key store (PKCS#12). Name it as the client certificate",
        ),
        (
            ClientCertificate::file(store("keys.jks")),
            "that needs a password, and none was given",
        ),
        (
            ClientCertificate::file(store("java.jks")).password("changeit"),
            "without a key that has a certificate",
        ),
        #[cfg(unix)]
        (
            ClientCertificate::file("/dev/zero"),
            "cannot be read from /dev/zero: it is larger than 16 MiB",
        ),
        (
            ClientCertificate::file(store("client.p12")),
            "that needs a password, and none was given",
        ),
        (
            ClientCertificate::file(store("client.p12")).password("wrong"),
            "that the password given does not open",
        ),
        (
            ClientCertificate::file(store("openssl.p12")).password("changeit"),
            "without a key that has a certificate",
        ),
    ] {
        let error = own.load().unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Config, Phase::Setup)
        );
        assert_says(&error, &["the client certificate", text]);
        let settings = TlsSettings::new(Trust::empty().path(&ca)).client_certificate(own);
        assert_eq!(
            Connector::new(&settings, VerifyMode::Verified)
                .unwrap_err()
                .to_string(),
            error.to_string()
        );
    }
    let error = ClientCertificate::file(&client)
        .password_file("/none/password")
        .load()
        .unwrap_err();
    assert_says(
        &error,
        &["the file \"/none/password\" with the key store's password cannot be read"],
    );
}

/// Keys that the crypto provider refuses without saying why.
#[test]
fn faults_of_a_client_key_are_named() {
    let weak = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tls/tests/weak");
    let own = ClientCertificate::file(weak.join("short-leaf.pem")).key(weak.join("short-leaf.key"));
    let text = "short-leaf.key holds an RSA key of 1024 bits; 2048 are needed. Use a key for RSA";
    assert_says(&own.load().unwrap_err(), &[text]);
    let pem = |label, base64| format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n");
    let sec1 = "MHQCAQEEIOjej+QTZNR+Zz3e2BwKpixYNPqcEHCmyYtrX67v/WuLoAcGBSuBBAAK\n\
                oUQDQgAEsxjr33mKB4Kwq4gDqoum5FJqk6LLf0BhDHetGToqAU3VlOShPVOvty1F\n\
                zrMWaTRUWeQ2brd1vEW7jGygX3sq8w==";
    let pkcs8 = "MIGEAgEAMBAGByqGSM49AgEGBSuBBAAKBG0wawIBAQQgphLg3SIIbiYA+jDJZtEI\n\
                 RGOuHLbbTMfEKykuK9oZRZGhRANCAAQWR+DAg8E2uIh8c65/8exc+8nWtTmsO9eQ\n\
                 D4eNEB40f2ZTJFzJTK2xQCVf5X8hI2K1yPpRM2Ah1ErnjcV0orsf";
    let ed448 = "MEcCAQAwBQYDK2VxBDsEOVdMdfOzpj7tSMmQ5gyCt48WmrYFzOcdw2DOiLxZwXXE\n\
                 kdo0wKYGTnD4WbSr1Vx6oAXw1J+bn15L4g==";
    for (key, text) in [
        (
            pem("EC PRIVATE KEY", sec1),
            "an ECDSA key on the curve secp256k1, which is not supported",
        ),
        (
            pem("PRIVATE KEY", pkcs8),
            "an ECDSA key on the curve secp256k1, which is not supported",
        ),
        (
            pem("PRIVATE KEY", ed448),
            "a key of the kind Ed448, which is not supported",
        ),
    ] {
        let own = ClientCertificate::file(store("client.pem")).key_pem(key);
        assert_says(&own.load().unwrap_err(), &[text, "ECDSA (P-256, P-384)"]);
    }
}

#[tokio::test]
async fn a_demanded_client_certificate_is_named() {
    let root = Party::authority("Root", None);
    let server = Party::server(Some(&root));
    let config = demanding(&root.der, &server);
    for (version, text) in [
        (
            TlsVersion::Tls12,
            "demands a client certificate, and none was sent (TLS alert certificate_required, 116)",
        ),
        // TLS 1.3 reports it only after the handshake.
        (
            TlsVersion::Tls13,
            "demands a client certificate, and none was sent (TLS alert certificate_required, 116)",
        ),
    ] {
        let settings = trusting(&root).min_version(version).max_version(version);
        let error = first_reply(&settings, &config).await.unwrap_err();
        assert_eq!((error.kind(), error.phase()), (ErrorKind::Tls, Phase::Tls));
        assert_says(&error, &[text, "TlsSettings::client_certificate"]);

        let other = Party::new(named("client", &[]), Some(&Party::authority("Other", None)));
        let other = ClientCertificate::pem(&other.pem).key_pem(&other.key);
        let error = first_reply(&settings.clone().client_certificate(other), &config)
            .await
            .unwrap_err();
        assert_eq!((error.kind(), error.phase()), (ErrorKind::Tls, Phase::Tls));
        assert_says(&error, &["does not accept the client certificate"]);

        let client = Party::new(named("client", &[]), Some(&root));
        let client = ClientCertificate::pem(&client.pem).key_pem(&client.key);
        first_reply(&settings.client_certificate(client), &config)
            .await
            .unwrap();
    }
}

/// A server that requires a client certificate issued by `root`.
fn demanding(root: &CertificateDer<'static>, server: &Party) -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .unwrap();
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
    let (mut stream, _) = connector(settings)
        .handshake(HOST, serve(config), TlsMode::StartTls)
        .await?;
    stream
        .read_u8()
        .await
        .map(drop)
        .map_err(|error| late_alert(&error, HOST).unwrap())
}
