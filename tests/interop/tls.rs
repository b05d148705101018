//! TLS as real servers get it wrong, or demand it.

use std::error::Error as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use envoi::tls::{CertificateFailure, CertificateProblem, ClientCertificate};
use envoi::{Client, Endpoint, ErrorKind, Phase};

use crate::servers::{ALICE, NO_LOGIN, Server, postfix, someone, special};
use crate::settings::hello;

fn endpoint(server: &Server) -> Endpoint {
    Endpoint::from_url(&server.starttls(NO_LOGIN)).unwrap()
}

/// A copy of the server's CA. The settings of no other test are equal to those with it, so no
/// ticket of another test is used: Postfix takes those of all its ports.
fn own_ca(server: &Server, folder: &Path) -> PathBuf {
    let ca = folder.join(format!("{}.pem", server.port_587));
    std::fs::copy(&server.ca, &ca).unwrap();
    // A file that was just written is read again by each client.
    let written = SystemTime::now() - Duration::from_secs(60);
    let file = File::options().write(true).open(&ca).unwrap();
    file.set_modified(written).unwrap();
    ca
}

/// Each is a client of its own, made from the same URL. A ticket of TLS 1.3 is used once (RFC 8446,
/// C.4). Postfix sends one in a full handshake, and none in a handshake that used one.
#[tokio::test]
#[ignore = "needs real servers"]
async fn clients_with_equal_settings_resume_sessions() {
    let folder = tempfile::tempdir().unwrap();
    for (mut server, user, expected) in [
        (special("TLS12"), NO_LOGIN, [false, true, true, true]),
        (postfix().clone(), ALICE, [false, true, false, true]),
    ] {
        server.ca = own_ca(&server, folder.path());
        let url = server.starttls(user);
        let (mut clients, mut resumed) = (Vec::new(), Vec::new());
        for _ in expected {
            let client = Client::from_url(&url).unwrap();
            let receipt = client.send(hello(&someone("resumed"))).await.unwrap();
            let tls = receipt.tls.unwrap();
            assert!(tls.is_verified());
            resumed.push(tls.resumed);
            // More than eight others may connect meanwhile.
            clients.push(client);
        }
        assert_eq!(resumed, expected, "{url}");
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_missing_intermediate_is_explained() {
    let mut server = special("CHAIN");
    let middle = server.ca.with_file_name("middle.pem");
    let folder = tempfile::tempdir().unwrap();
    server.ca = own_ca(&server, folder.path());
    let to = someone("chain");
    let error = Client::new(endpoint(&server))
        .send(hello(&to))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Tls, Phase::Tls),
        "{error}"
    );
    let failure = error
        .source()
        .unwrap()
        .downcast_ref::<CertificateFailure>()
        .unwrap();
    assert_eq!(failure.problem, CertificateProblem::UnknownIssuer);
    assert_eq!(failure.chain.len(), 1);
    // The missing one is named, and who must install it.
    assert!(
        error.to_string().contains("CN=envoi test intermediate"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("administrator"), "{error}");

    // With the intermediate in the trust, the mail goes.
    let url = format!("{}&trust={}", server.starttls(NO_LOGIN), middle.display());
    let receipt = Client::from_url(&url)
        .unwrap()
        .send(hello(&to))
        .await
        .unwrap();
    assert!(receipt.tls.as_ref().unwrap().is_verified());
    let _ = server.delivered(&to).await;

    // Where trust is not demanded, the mail goes and the receipt says what was wrong.
    let to = someone("chain");
    let url = format!(
        "smtp://localhost:{}?tls=opportunistic&trust={}",
        server.port_587,
        server.ca.display()
    );
    let receipt = Client::from_url(&url)
        .unwrap()
        .send(hello(&to))
        .await
        .unwrap();
    let tls = receipt.tls.as_ref().unwrap();
    assert!(!tls.is_verified());
    assert!(
        tls.not_verified_reason
            .as_ref()
            .unwrap()
            .to_string()
            .contains("CN=envoi test intermediate")
    );
    let _ = server.delivered(&to).await;
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_demanded_client_certificate_is_explained() {
    let server = special("CLIENT");
    let to = someone("client");
    let error = Client::new(endpoint(&server))
        .send(hello(&to))
        .await
        .unwrap_err();
    // Postfix ends the handshake, and then says in SMTP what it misses.
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Refused, Phase::Hello),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("No client certificate presented"),
        "{error}"
    );
    assert!(
        error.hint().unwrap().contains("Get a client certificate"),
        "{error}"
    );

    let certificate = ClientCertificate::file(server.ca.with_file_name("client.pem"));
    let certificate = certificate.key(server.ca.with_file_name("client.key"));
    let client = Client::new(endpoint(&server).client_certificate(certificate));
    let receipt = client.send(hello(&to)).await.unwrap();
    assert!(receipt.all_accepted());
    let delivered = server.delivered(&to).await;
    assert!(
        delivered.trace.contains("client.envoi.test"),
        "{}",
        delivered.trace
    );
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_server_with_tls_1_2_only_works() {
    let server = special("TLS12");
    let to = someone("tls12");
    let receipt = Client::new(endpoint(&server))
        .send(hello(&to))
        .await
        .unwrap();
    assert_eq!(receipt.tls.as_ref().unwrap().version, "TLSv1.2");
    assert!(receipt.tls.as_ref().unwrap().is_verified());
    let _ = server.delivered(&to).await;

    let url = format!("{}&min-tls=1.3", server.starttls(NO_LOGIN));
    let error = Client::from_url(&url)
        .unwrap()
        .send(hello(&to))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().contains("version"), "{error}");
    assert!(error.hint().unwrap().contains("min-tls=1.2"), "{error}");
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_broken_tls_server_is_explained() {
    let server = special("BROKEN");
    let to = someone("broken");
    let error = Client::new(endpoint(&server))
        .send(hello(&to))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");

    // Opportunistic: delivered in plaintext, once, and the receipt says why.
    let url = format!(
        "smtp://localhost:{}?tls=opportunistic&trust={}",
        server.port_587,
        server.ca.display()
    );
    let receipt = Client::from_url(&url)
        .unwrap()
        .send(hello(&to))
        .await
        .unwrap();
    assert!(receipt.all_accepted() && receipt.tls.is_none());
    let reason = receipt.plaintext_reason.as_ref().unwrap();
    assert!(reason.to_string().contains("TLS"), "{reason}");
    println!("{reason}");
    let delivered = server.delivered(&to).await;
    assert!(!delivered.trace.contains("TLSv1"), "{}", delivered.trace);

    // With a login, there is no falling back.
    let error = Client::from_url(&url.replace("localhost", "alice:secret@localhost")).unwrap();
    let error = error.send(hello(&to)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
}
