//! Messages to servers with TLSA records.

use std::time::Duration;

use envoi::mail_builder::MessageBuilder;
use envoi::mx::{MxClient, MxPolicy, MxReceipt, Resolver};
use envoi::{ErrorKind, Timeouts};

use crate::cases::{self, CASES, Decision};
use crate::lab::lab;
use crate::postfix::Postfix;

fn client() -> MxClient {
    let resolver = Resolver::new(lab().resolver())
        .anchors(&lab().anchors)
        .unwrap();
    MxClient::new(resolver).timeouts(Timeouts::uniform(Duration::from_secs(10)))
}

async fn send(client: &MxClient, recipient: String) -> MxReceipt {
    let mail = MessageBuilder::new()
        .from("me@client.example")
        .to(recipient)
        .subject("Hello")
        .text_body("Hello.");
    client.send(mail).await.unwrap()
}

fn decision(receipt: &MxReceipt) -> Decision {
    let to = receipt.recipients().next().unwrap();
    if !to.recipient.outcome.is_accepted() {
        let error = receipt.domains[0].result.as_ref().unwrap_err();
        assert!(error.is_transient() && error.exit_code() == 75, "{error}");
        return Decision::Delayed;
    }
    let via = to.via.unwrap();
    match &via.tls {
        Some(tls) if tls.is_verified() => Decision::Verified,
        Some(_) => Decision::Encrypted,
        None => Decision::Plain,
    }
}

/// One test for both, as they need the same addresses.
#[tokio::test]
#[ignore = "needs root, NSD, Unbound and Postfix"]
async fn messages_are_sent_and_delayed_as_the_records_say_and_as_by_postfix() {
    let _servers = cases::start().await;
    let client = client();
    for case in CASES {
        let receipt = send(&client, case.recipient()).await;
        let context = format!("{}: {:#?}", case.domain, receipt.domains);
        assert_eq!(decision(&receipt), case.decision, "{context}");
        if let Some(via) = receipt.recipients().next().unwrap().via {
            let policy = match case.is_dane() {
                true => MxPolicy::Dane,
                false if via.tls.is_some() => MxPolicy::Opportunistic,
                false => MxPolicy::None,
            };
            assert_eq!(via.policy, policy, "{context}");
            // The alias of `host-leaves` is proven, but not where it leads.
            let is_proven = via.dnssec || case.domain == "host-leaves";
            assert!(is_proven || !case.is_dane(), "{context}");
        }
        if let Err(error) = &receipt.domains[0].result {
            // Of `bogus`, no address is known.
            let is_known = case.domain != "bogus";
            assert_eq!(error.kind() == ErrorKind::Tls, is_known, "{context}");
            let text = error.to_string();
            assert!(text.contains("DANE") || !is_known, "{context}");
            assert!(text.contains("mx."), "{context}");
            assert!(error.hint().is_some(), "{context}");
        }
    }
    client.close().await;

    let recipients: Vec<_> = CASES.iter().map(cases::Case::recipient).collect();
    let by_postfix = move || Postfix::start(lab().resolver()).send(&recipients);
    let results = tokio::task::spawn_blocking(by_postfix).await.unwrap();
    let mut differences = Vec::new();
    for (case, (decision, line)) in CASES.iter().zip(results) {
        if decision != case.decision {
            println!("{}: {decision:?}: {line}", case.domain);
            differences.push((case.domain, decision));
        }
    }
    // Postfix uses the records of a host that unsigned MX records lead to, unless
    // smtp_tls_dane_insecure_mx_policy is `may`. RFC 7672, 2.2.1 does not require it: the name of
    // the host may be forged.
    let stricter = [("insecure-mx-mismatch.unsigned", Decision::Delayed)];
    assert_eq!(differences, stricter);
}

/// With DANE switched off, the records are not looked up.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn without_dane_tls_is_opportunistic() {
    let _server = lab().server(191, "mx.off.dane.example").start().await;
    let receipt = send(&client().dane(false), "a@off.dane.example".into()).await;
    assert_eq!(decision(&receipt), Decision::Encrypted);
    let receipt = send(&client(), "a@off.dane.example".into()).await;
    assert_eq!(decision(&receipt), Decision::Delayed);
}
