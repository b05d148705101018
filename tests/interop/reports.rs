//! What real servers make of what is asked of them with MAIL and RCPT: reports of delivery, and
//! addresses beyond ASCII.

use envoi::delivery::{DsnReturn, EnvelopeId, Notify, OriginalRecipient, Priority};
use envoi::mail_builder::MessageBuilder;
use envoi::{Address, Client, DeliveryOptions, Envelope, ErrorKind, Message, Outcome};

use crate::servers::{ALICE, both, someone};
use crate::settings::hello;

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_success_report_has_the_requested_envelope_id_and_recipient() {
    for server in both() {
        for url in [server.plain(), server.starttls(ALICE)] {
            let (sender, to, other) = (
                someone("reported-to"),
                someone("report"),
                someone("no-report"),
            );
            let original =
                OriginalRecipient::of_type("rfc822", "e=mc2+original@example.org").unwrap();
            let delivery = DeliveryOptions::new()
                .notify(Notify::SUCCESS | Notify::FAILURE)
                .notify_for(other.clone(), Notify::NEVER)
                .original_recipient(to.clone(), original)
                .returned(DsnReturn::Headers)
                .envelope_id(EnvelopeId::new("invoice=47+11 b").unwrap());
            let envelope = Envelope::new(sender.clone(), [to.clone(), other.clone()]).unwrap();
            let message = Message::from(hello(&to))
                .envelope(envelope)
                .delivery(delivery);
            let receipt = Client::from_url(&url).unwrap().send(message).await.unwrap();
            assert!(receipt.all_accepted(), "{}", receipt.transcript);
            let _ = (server.delivered(&to).await, server.delivered(&other).await);

            let report = server.delivered(&sender).await.text().to_owned();
            let has = |field: &str| {
                let found = report.lines().any(|line| line.eq_ignore_ascii_case(field));
                assert!(found, "{field} is missing at {}:\n{report}", server.name);
            };
            // Exim repeats them as they came.
            match server.name {
                "Exim" => {
                    has("Original-Envelope-Id: invoice+3D47+2B11+20b");
                    has("Original-Recipient: rfc822;e+3Dmc2+2Boriginal@example.org");
                }
                _ => {
                    has("Original-Envelope-Id: invoice=47+11 b");
                    has("Original-Recipient: rfc822;e=mc2+original@example.org");
                }
            }
            assert!(
                report.contains(to.as_str()) && !report.contains(other.as_str()),
                "{report}"
            );
            assert!(report.contains("Action: "), "{report}");
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_non_ascii_domain_is_sent_as_a_labels() {
    for server in both() {
        let to = someone("a-labels");
        let mail = MessageBuilder::new()
            .from("alice@b\u{fc}cher.example")
            .to(to.to_string())
            .text_body("Hello.\n");
        let receipt = Client::from_url(&server.plain())
            .unwrap()
            .send(mail)
            .await
            .unwrap();
        let said = receipt.transcript.to_string();
        let mail = said
            .lines()
            .find(|line| line.starts_with("C: MAIL"))
            .unwrap();
        assert!(
            mail.contains("<alice@xn--bcher-kva.example>") && !mail.contains("SMTPUTF8"),
            "{said}"
        );
        let delivered = server.delivered(&to).await;
        assert!(
            delivered.trace.contains("alice@xn--bcher-kva.example"),
            "{}",
            delivered.trace
        );
        assert!(
            delivered
                .text()
                .contains("From: <alice@xn--bcher-kva.example>\r\n"),
            "{}",
            delivered.text()
        );
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn unsupported_delivery_options_are_refused_before_mail() {
    for server in both() {
        let to = someone("priority");
        let message = Message::from(hello(&to))
            .delivery(DeliveryOptions::new().priority(Priority::new(1).unwrap()));
        let error = Client::from_url(&server.plain())
            .unwrap()
            .send(message)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let receipt = error.receipt().unwrap();
        assert_eq!(receipt.recipients[0].outcome, Outcome::NotTried);
        assert!(!receipt.transcript.to_string().contains("MAIL"));
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_report_to_a_non_ascii_address_arrives() {
    for server in both() {
        let (sender, ascii) = (someone("reported-to"), someone("utf8-report"));
        let to = Address::new(format!("j\u{f6}rg-{ascii}")).unwrap();
        let envelope = Envelope::new(sender.clone(), [to.clone()]).unwrap();
        let message = Message::from(hello(&to))
            .envelope(envelope)
            .delivery(DeliveryOptions::new().notify(Notify::SUCCESS));
        let receipt = Client::from_url(&server.plain())
            .unwrap()
            .send(message)
            .await
            .unwrap();
        assert!(receipt.all_accepted(), "{}", receipt.transcript);
        let _ = server.delivered(&to).await;
        let report = server.delivered(&sender).await;
        let report = String::from_utf8_lossy(&report.message).into_owned();
        assert!(
            report.contains("Original-Recipient: utf-8;")
                || report.contains("Original-Recipient: utf-8; "),
            "{report}"
        );
    }
}
