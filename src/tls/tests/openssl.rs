//! Handshakes with `openssl s_server`, which can behave like old, unusual or demanding servers.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use tokio::net::TcpStream;

use super::*;

struct Server {
    process: Child,
    address: String,
    // The process ends at EOF on its standard input.
    _input: ChildStdin,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server with the certificate of `party`, on its own port.
fn start(party: &Party, options: &[&str]) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (
        folder.path().join("server.pem"),
        folder.path().join("server.key"),
    );
    std::fs::write(&certificate, &party.pem).unwrap();
    std::fs::write(&key, &party.key).unwrap();
    serve_files(&certificate, &key, options)
}

fn serve_files(certificate: &Path, key: &Path, options: &[&str]) -> Server {
    let mut command = Command::new("openssl");
    command
        .args(["s_server", "-accept", "127.0.0.1:0", "-cert"])
        .arg(certificate)
        .arg("-key")
        .arg(key);
    command
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = command.spawn().expect("openssl is installed");
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let address = lines
        .find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(str::to_owned))
        .unwrap();
    // Its output is drained, so that it does not block.
    std::thread::spawn(move || lines.for_each(drop));
    let _input = process.stdin.take().unwrap();
    Server {
        process,
        address,
        _input,
    }
}

async fn handshake(
    server: &Server,
    settings: &TlsSettings,
    verify_mode: VerifyMode,
) -> Result<TlsInfo> {
    let stream = TcpStream::connect(&server.address).await.unwrap();
    Ok(Connector::new(settings, verify_mode)
        .unwrap()
        .handshake(HOST, stream, TlsMode::Implicit)
        .await?
        .1)
}

#[tokio::test]
#[ignore = "needs openssl"]
async fn old_tls_versions_are_named() {
    let root = Party::authority("Root", None);
    let party = Party::server(Some(&root));
    for option in ["-tls1", "-tls1_1"] {
        let server = start(&party, &[option, "-cipher", "ALL:@SECLEVEL=0"]);
        let error = handshake(&server, &trusting(&root), VerifyMode::Verified)
            .await
            .unwrap_err();
        assert_eq!((error.kind(), error.phase()), (ErrorKind::Tls, Phase::Tls));
        assert_says(
            &error,
            &[
                "the server speaks TLSv1.1 or older, this client offers TLSv1.3 and TLSv1.2",
                "is too old",
            ],
        );
    }
    let server = start(&party, &["-tls1_2"]);
    let settings = trusting(&root).min_version(TlsVersion::Tls13);
    let error = handshake(&server, &settings, VerifyMode::Verified)
        .await
        .unwrap_err();
    assert_says(
        &error,
        &["the server speaks TLSv1.2 or older, this client offers TLSv1.3. Allow TLS 1.2, too"],
    );
    let server = start(&party, &["-tls1_3"]);
    let settings = trusting(&root).max_version(TlsVersion::Tls12);
    let error = handshake(&server, &settings, VerifyMode::Verified)
        .await
        .unwrap_err();
    assert_says(
        &error,
        &["the server speaks another, this client offers TLSv1.2. Allow TLS 1.3, too"],
    );
}

#[tokio::test]
#[ignore = "needs openssl"]
async fn no_common_cipher_with_openssl_is_named() {
    let root = Party::authority("Root", None);
    // Without forward secrecy.
    let server = start(
        &Party::server(Some(&root)),
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"],
    );
    let error = handshake(&server, &trusting(&root), VerifyMode::Verified)
        .await
        .unwrap_err();
    assert_says(
        &error,
        &["have no cipher suite, key exchange or signature in common (the server refused at once)"],
    );
}

#[tokio::test]
#[ignore = "needs openssl"]
async fn a_client_certificate_demanded_by_openssl_is_named() {
    let root = Party::authority("Root", None);
    let party = Party::server(Some(&root));
    let server = start(&party, &["-Verify", "1", "-tls1_2", "-verify_return_error"]);
    let error = handshake(&server, &trusting(&root), VerifyMode::Verified)
        .await
        .unwrap_err();
    assert_says(
        &error,
        &[
            "broke off the TLS handshake after it had shown its certificate",
            "demands a client certificate",
        ],
    );

    let server = start(&party, &["-Verify", "1", "-tls1_3", "-verify_return_error"]);
    let stream = TcpStream::connect(&server.address).await.unwrap();
    let connector = connector(&trusting(&root));
    let (mut stream, _) = connector
        .handshake(HOST, stream, TlsMode::Implicit)
        .await
        .unwrap();
    let error = late_alert(&stream.read_u8().await.unwrap_err(), HOST).unwrap();
    assert_says(
        &error,
        &["demands a client certificate, and none was sent (TLS alert certificate_required, 116)"],
    );
}

/// `openssl x509 -req` creates such certificates, and old servers have them.
#[tokio::test]
#[ignore = "needs openssl"]
async fn an_x509_v1_certificate_is_named() {
    let stores = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tls/tests/stores");
    let settings = TlsSettings::new(Trust::empty().path(stores.join("ca.pem")));
    for version in ["-tls1_2", "-tls1_3"] {
        let start = || {
            serve_files(
                &stores.join("client-v1.pem"),
                &stores.join("client.key"),
                &[version],
            )
        };
        let server = start();
        let error = handshake(&server, &settings, VerifyMode::Verified)
            .await
            .unwrap_err();
        assert_says(
            &error,
            &["\"CN=client\", is of an old form (X.509 version 1 or 2) without server names"],
        );

        let server = start();
        let info = handshake(&server, &settings, VerifyMode::Reported)
            .await
            .unwrap();
        assert!(!info.is_verified());
        assert!(
            info.not_verified_reason
                .unwrap()
                .to_string()
                .contains("is of an old form")
        );
        // Its key cannot be checked, so a pin proves nothing.
        let pin = info.chain[0].pin();
        let server = start();
        let info = handshake(
            &server,
            &TlsSettings::new(Trust::empty().pin(pin)),
            VerifyMode::Reported,
        )
        .await
        .unwrap();
        assert!(!info.is_verified());
    }
}

/// Opportunistic TLS accepts it like any certificate, and reports that it is not verified.
#[tokio::test]
#[ignore = "needs openssl"]
async fn a_key_of_1024_bits_is_named() {
    let weak = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tls/tests/weak");
    let settings = TlsSettings::new(Trust::empty().path(weak.join("root.pem")));
    for version in ["-tls1_2", "-tls1_3"] {
        let options = [version, "-cipher", "ALL:@SECLEVEL=0"];
        let server = serve_files(
            &weak.join("short-leaf.pem"),
            &weak.join("short-leaf.key"),
            &options,
        );
        let error = handshake(&server, &settings, VerifyMode::Verified)
            .await
            .unwrap_err();
        assert_says(
            &error,
            &[
                "\"CN=mail.example.com\", has an RSA key of 1024 bits; 2048 are needed",
                "issued anew",
            ],
        );
        assert_eq!(cause(&error).problem, CertificateProblem::WeakKey);

        let server = serve_files(
            &weak.join("short-leaf.pem"),
            &weak.join("short-leaf.key"),
            &options,
        );
        let info = handshake(&server, &settings, VerifyMode::Reported)
            .await
            .unwrap();
        assert!(
            !info.is_verified()
                && info
                    .not_verified_reason
                    .unwrap()
                    .to_string()
                    .contains("1024 bits")
        );
    }
}

#[tokio::test]
#[ignore = "needs openssl"]
async fn an_unknown_critical_extension_of_openssl_is_named() {
    let root = Party::authority("Root", None);
    let mut params = named(HOST, &[HOST]);
    let mut extension =
        rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4, 5], vec![0x05, 0x00]);
    extension.set_criticality(true);
    params.custom_extensions = vec![extension];
    let server = start(&Party::new(params, Some(&root)), &["-tls1_3"]);
    let error = handshake(&server, &trusting(&root), VerifyMode::Verified)
        .await
        .unwrap_err();
    assert_says(
        &error,
        &["\"CN=mail.example.com\", has a critical extension that is not supported: 1.2.3.4.5"],
    );
}

#[tokio::test]
#[ignore = "needs openssl"]
async fn handshakes_with_openssl_succeed() {
    let root = Party::authority("Root", None);
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let server = start(&Party::server(Some(&root)), &[option]);
        let info = handshake(&server, &trusting(&root), VerifyMode::Verified)
            .await
            .unwrap();
        assert_eq!(info.version, version);
        assert!(info.is_verified());
    }
}

#[tokio::test]
#[ignore = "needs openssl"]
async fn clients_with_equal_settings_resume_sessions_of_openssl() {
    let root = Party::authority("Root", None);
    for option in ["-tls1_2", "-tls1_3"] {
        // It returns each line reversed: the tickets of TLS 1.3 have come before the first one.
        let server = start(&Party::server(Some(&root)), &[option, "-rev"]);
        let _shared = SharedConnector::of(&trusting(&root), VerifyMode::Verified);
        for resumed in [false, true, true] {
            let client = SharedConnector::of(&trusting(&root), VerifyMode::Verified);
            let connector = client.load(file::time_limit()).await.unwrap();
            let stream = TcpStream::connect(&server.address).await.unwrap();
            let handshake = connector.handshake(HOST, stream, TlsMode::Implicit);
            let (mut stream, info) = handshake.await.unwrap();
            stream.write_all(b"hello\n").await.unwrap();
            stream.read_exact(&mut [0; 6]).await.unwrap();
            assert_eq!(
                (info.resumed, info.is_verified()),
                (resumed, true),
                "{option}"
            );
            stream.shutdown().await.unwrap();
        }
        // The next server has another key for its tickets.
    }
}
