//! What goes wrong says so, at once, with what to do.

use std::error::Error as _;
use std::time::{Duration, Instant};

use envoi::tls::{CertificateFailure, CertificateProblem, Trust};
use envoi::{Client, Endpoint, Error, ErrorKind, Outcome, Phase};

use crate::servers::{ALICE, NO_LOGIN, Tap, both, postfix, someone};
use crate::settings::hello;

/// Sends, and gives the error, which must come within 10 seconds.
async fn failure(client: Client) -> Error {
    let began = Instant::now();
    let error = client.send(hello(&someone("failure"))).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(10), "{error}");
    // Seen where the test fails.
    println!("{error}");
    assert!(!error.outcome_unknown());
    assert!(error.receipt().unwrap().not_accepted().count() == 1);
    error
}

async fn failure_at(url: &str) -> Error {
    failure(Client::from_url(url).unwrap()).await
}

fn assert_hint(error: &Error, says: &str) {
    assert!(
        error.hint().is_some_and(|hint| hint.contains(says)),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_wrong_password_fails_with_kind_auth() {
    for server in both() {
        for url in [
            server.starttls("alice%40envoi.test:wrong@"),
            server.implicit("alice%40envoi.test:wrong@"),
        ] {
            for mechanism in ["PLAIN", "LOGIN"] {
                let error = failure_at(&format!("{url}&auth={mechanism}")).await;
                assert_eq!(
                    (error.kind(), error.phase()),
                    (ErrorKind::Auth, Phase::Auth)
                );
                assert_eq!(error.reply().unwrap().code(), 535);
                assert!(error.is_permanent());
                assert!(error.message().contains("alice@envoi.test"), "{error}");
                assert_hint(&error, "Check user name and password");
                assert!(!format!("{error} {error:?}").contains("wrong"), "{error:?}");
                let receipt = error.receipt().unwrap();
                assert!(receipt.tls.as_ref().unwrap().is_verified());
                assert_eq!(receipt.recipients[0].outcome, Outcome::NotTried);
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn credentials_are_not_sent_in_clear() {
    for server in both() {
        let tap = Tap::on(server.port_25).await;
        let error = failure_at(&format!("smtp://{ALICE}127.0.0.1:{}?tls=none", tap.port)).await;
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Insecure, Phase::Auth)
        );
        assert_hint(&error, "auth-in-clear=yes");
        assert_eq!(tap.log(), "EHLO [127.0.0.1]\r\n");
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_login_on_a_port_without_auth_fails() {
    for server in both() {
        let tap = Tap::on(server.port_25).await;
        let url = format!(
            "smtp://{ALICE}127.0.0.1:{}?tls=none&auth-in-clear=yes",
            tap.port
        );
        let error = failure_at(&url).await;
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Auth, Phase::Auth)
        );
        assert_hint(&error, "587");
        assert_eq!(tap.log(), "EHLO [127.0.0.1]\r\n");
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn required_tls_fails_if_not_offered() {
    for server in both() {
        for user in [ALICE, NO_LOGIN] {
            let tap = Tap::on(server.port_25).await;
            let error = failure_at(&format!(
                "smtp://{user}127.0.0.1:{}?trust={}",
                tap.port,
                server.ca.display()
            ))
            .await;
            assert_eq!(
                (error.kind(), error.phase()),
                (ErrorKind::Tls, Phase::StartTls)
            );
            assert!(
                error.message().contains("it offers") && error.message().contains("PIPELINING"),
                "{error}"
            );
            assert_hint(&error, "587");
            assert_eq!(tap.log(), "EHLO [127.0.0.1]\r\n");
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn implicit_tls_on_the_starttls_port_is_explained() {
    for server in both() {
        for port in [server.port_25, server.port_587] {
            let url = format!(
                "smtps://{ALICE}localhost:{port}?trust={}&timeout=5",
                server.ca.display()
            );
            let error = failure_at(&url).await;
            assert_eq!((error.kind(), error.phase()), (ErrorKind::Tls, Phase::Tls));
            assert!(error.message().contains("220 "), "{error}");
            assert_hint(&error, "Use STARTTLS");
            assert_hint(&error, "smtp://localhost instead of smtps://");
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn starttls_on_the_implicit_tls_port_is_explained() {
    for server in both() {
        let url = format!(
            "smtp://{ALICE}localhost:{}?trust={}&timeout=2",
            server.port_465,
            server.ca.display()
        );
        let error = failure_at(&url).await;
        // Both sides wait for the other to begin.
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Timeout, Phase::Greeting)
        );
        assert_hint(&error, "use smtps://");
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn an_untrusted_authority_fails() {
    let other = rcgen::generate_simple_self_signed(["other.envoi.test".to_owned()])
        .unwrap()
        .cert
        .pem();
    for server in both() {
        for url in [server.starttls(ALICE), server.implicit(ALICE)] {
            let endpoint = Endpoint::from_url(&url)
                .unwrap()
                .trust(Trust::empty().pem(&other));
            let error = failure(Client::new(endpoint)).await;
            assert_eq!((error.kind(), error.phase()), (ErrorKind::Tls, Phase::Tls));
            assert!(
                error.message().contains("CN=envoi test CA,O=envoi tests"),
                "{error}"
            );
            assert!(error.message().contains("CN=mail.envoi.test"), "{error}");
            assert_hint(&error, "trust");
            let failure = error
                .source()
                .unwrap()
                .downcast_ref::<CertificateFailure>()
                .unwrap();
            assert_eq!(failure.problem, CertificateProblem::UnknownIssuer);
            assert_eq!(failure.chain.len(), 2);
            // The CA that it names is the one to trust.
            let named = failure.chain[failure.index.unwrap()].to_pem();
            let endpoint = Endpoint::from_url(&url)
                .unwrap()
                .trust(Trust::empty().pem(named));
            let to = someone("trusted");
            assert!(
                Client::new(endpoint)
                    .send(hello(&to))
                    .await
                    .unwrap()
                    .all_accepted()
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_wrong_certificate_name_fails() {
    for server in both() {
        let error = failure_at(&(server.starttls(ALICE) + "&server-name=smtp.example.org")).await;
        assert_eq!((error.kind(), error.phase()), (ErrorKind::Tls, Phase::Tls));
        assert!(
            error.message().contains("localhost, mail.envoi.test"),
            "{error}"
        );
        assert!(error.message().contains("smtp.example.org"), "{error}");
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn relaying_to_other_domains_is_refused() {
    for server in both() {
        let client = Client::from_url(&server.plain()).unwrap();
        let to = envoi::Address::new("other@example.org").unwrap();
        let error = client.send(hello(&to)).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Refused, Phase::Rcpt),
            "{error}"
        );
        assert!(error.is_permanent());
        assert_hint(&error, "give a user name and a password");
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn submission_without_a_login_is_refused() {
    for server in both() {
        for url in [server.starttls(NO_LOGIN), server.implicit(NO_LOGIN)] {
            let error = failure_at(&url).await;
            assert_eq!(
                (error.kind(), error.phase()),
                (ErrorKind::Refused, Phase::Rcpt)
            );
            assert!(error.is_permanent());
            assert_hint(&error, "user name and a password");
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn submission_without_tls_is_refused() {
    let server = postfix();
    let error = failure_at(&format!("smtp://localhost:{}?tls=none", server.port_587)).await;
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Refused, Phase::Mail)
    );
    assert_eq!(error.reply().unwrap().code(), 530);
    assert_hint(&error, "leave out tls=none");
}
