//! The settings that users come with: which port, which TLS, which login.

use envoi::mail_builder::MessageBuilder;
use envoi::tls::PlaintextReason;
use envoi::{Address, Client, Endpoint, Receipt};

use crate::servers::{ALICE, BOB, Delivered, Server, both, lockstep, someone};

/// The plainest message, the same whenever it is built.
pub fn hello(to: &Address) -> MessageBuilder<'static> {
    MessageBuilder::new()
        .from(("Alice", "alice@envoi.test"))
        .to(to.to_string())
        .subject("Grüße")
        .message_id("hello@envoi.test")
        .date(1_700_000_000i64)
        .text_body("Hello.\n")
}

/// Sends it with these settings, and compares what was delivered.
async fn deliver(server: &Server, url: &str) -> (Receipt, Delivered) {
    let to = someone("settings");
    let client = Client::from_url(url).unwrap();
    let receipt = client
        .send(hello(&to))
        .await
        .unwrap_or_else(|error| panic!("{url}: {error}"));
    assert!(receipt.all_accepted(), "{receipt:?}");
    let delivered = server.delivered(&to).await;
    assert_eq!(delivered.message, hello(&to).write_to_vec().unwrap());
    assert_eq!(receipt.bytes, delivered.message.len() as u64);
    // The server's final words have its queue id, which it wrote into the message, too.
    let words = receipt.reply.as_ref().unwrap().text();
    let id = words.split([' ', '=']).next_back().unwrap();
    assert!(
        delivered.trace.contains(&format!("id {id}")),
        "{words}: {}",
        delivered.trace
    );
    (receipt, delivered)
}

fn assert_tls(receipt: &Receipt) {
    let tls = receipt.tls.as_ref().unwrap();
    assert_eq!(tls.version, "TLSv1.3");
    assert!(
        tls.is_verified() && tls.not_verified_reason.is_none(),
        "{tls}"
    );
    assert_eq!(
        tls.verified_by.as_deref(),
        Some("CN=envoi test CA,O=envoi tests")
    );
    assert_eq!(tls.peer().unwrap().subject, "CN=mail.envoi.test");
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn port_25_delivers_without_tls_and_login() {
    for server in both() {
        let (receipt, delivered) =
            deliver(server, &(server.plain() + "&helo=client.envoi.test")).await;
        assert!(
            receipt.tls.is_none()
                && receipt.mechanism.is_none()
                && receipt.plaintext_reason.is_none()
        );
        // Greeting, EHLO, the commands with the message.
        assert_eq!(receipt.round_trips, 3);
        assert!(
            delivered.trace.contains("client.envoi.test"),
            "{}",
            delivered.trace
        );
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn port_587_delivers_with_starttls_and_each_mechanism() {
    for server in both() {
        for mechanism in ["PLAIN", "LOGIN"] {
            let (receipt, delivered) = deliver(
                server,
                &format!("{}&auth={mechanism}", server.starttls(ALICE)),
            )
            .await;
            assert_eq!(receipt.mechanism.unwrap().as_str(), mechanism);
            assert_tls(&receipt);
            assert!(
                delivered.trace.contains("with ESMTPSA")
                    || delivered.trace.contains("with esmtpsa")
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn port_465_delivers_with_implicit_tls() {
    for server in both() {
        let (receipt, _) = deliver(server, &server.implicit(ALICE)).await;
        assert_eq!(receipt.mechanism.unwrap().as_str(), "PLAIN");
        assert_tls(&receipt);
        assert_eq!(receipt.server, "localhost");
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_non_ascii_password_logs_in() {
    for server in both() {
        for mechanism in ["PLAIN", "LOGIN"] {
            let _ = deliver(
                server,
                &format!("{}&auth={mechanism}", server.starttls(BOB)),
            )
            .await;
        }
        let _ = deliver(server, &server.implicit(BOB)).await;
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn opportunistic_tls_reports_its_result() {
    for server in both() {
        let url = server.plain().replace("tls=none", "tls=opportunistic");
        let (receipt, _) = deliver(server, &url).await;
        assert!(receipt.tls.is_none());
        assert_eq!(receipt.plaintext_reason, Some(PlaintextReason::NotOffered));
        // With credentials, it is as strict as `required`.
        let (receipt, _) = deliver(server, &(server.starttls(ALICE) + "&tls=opportunistic")).await;
        assert_tls(&receipt);
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn opportunistic_tls_accepts_any_certificate_without_credentials() {
    for server in both() {
        // No CA of the servers' is trusted here. That both want a login comes after TLS.
        let url = format!(
            "smtp://localhost:{}?tls=opportunistic&timeout=30",
            server.port_587
        );
        let connection = Client::from_url(&url).unwrap().connect().await.unwrap();
        let tls = connection.tls().unwrap();
        assert!(!tls.is_verified());
        let why = tls.not_verified_reason.as_ref().unwrap().to_string();
        assert!(why.contains("envoi test CA"), "{why}");
        connection.quit().await;
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn tls_versions_and_names_can_be_configured() {
    for server in both() {
        let (receipt, _) = deliver(server, &(server.starttls(ALICE) + "&max-tls=1.2")).await;
        assert_eq!(receipt.tls.unwrap().version, "TLSv1.2");
        // The certificate is for the address, too.
        let _ = deliver(
            server,
            &server.implicit(ALICE).replace("localhost", "127.0.0.1"),
        )
        .await;
        let _ = deliver(
            server,
            &(server.implicit(ALICE) + "&server-name=mail.envoi.test"),
        )
        .await;
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_server_without_pipelining_gets_one_command_at_a_time() {
    let server = lockstep();
    let endpoint = Endpoint::from_url(&server.starttls(ALICE)).unwrap();
    let mut connection = envoi::Connection::connect(&endpoint).await.unwrap();
    assert!(!connection.capabilities().offers("PIPELINING"));
    let to = [someone("lockstep"), someone("lockstep")];
    let envelope =
        envoi::Envelope::new(Address::new("alice@envoi.test").unwrap(), to.clone()).unwrap();
    let receipt = connection
        .send(envoi::Message::from(hello(&to[0])).envelope(envelope))
        .await
        .unwrap();
    assert!(receipt.all_accepted());
    // MAIL, two RCPT, DATA, the message.
    assert_eq!(receipt.round_trips, 5);
    connection.quit().await;
    for to in to {
        assert!(server.delivered(&to).await.text().ends_with("Hello.\r\n"));
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn one_connection_delivers_many_messages() {
    for server in both() {
        for url in server.settings() {
            let mut connection = Client::from_url(&url).unwrap().connect().await.unwrap();
            let to: Vec<Address> = (0..20).map(|_| someone("many")).collect();
            for to in &to {
                let receipt = connection.send(hello(to)).await.unwrap();
                assert!(receipt.all_accepted());
                assert_eq!(
                    receipt.round_trips, 1,
                    "the commands and the message in one group"
                );
            }
            connection.verify().await.unwrap();
            connection.quit().await;
            for to in &to {
                assert_eq!(
                    server.delivered(to).await.message,
                    hello(to).write_to_vec().unwrap()
                );
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn send_all_delivers_every_message() {
    for server in both() {
        for url in server.settings() {
            let mut connection = Client::from_url(&url).unwrap().connect().await.unwrap();
            let to: Vec<Address> = (0..50).map(|_| someone("flow")).collect();
            let messages =
                futures::stream::iter(to.iter().map(|to| envoi::Message::from(hello(to))));
            let outcomes: Vec<_> = futures::StreamExt::collect(connection.send_all(messages)).await;
            assert_eq!(outcomes.len(), to.len());
            for (outcome, to) in outcomes.iter().zip(&to) {
                assert_eq!(&outcome.as_ref().unwrap().recipients[0].address, to);
            }
            assert!(
                connection.round_trips() < 40,
                "{}",
                connection.round_trips()
            );
            connection.quit().await;
            for to in [&to[0], &to[49]] {
                let _ = server.delivered(to).await;
            }
        }
    }
}
