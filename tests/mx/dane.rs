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
        return match (error.is_transient(), error.exit_code()) {
            (true, 75) => Decision::Delayed,
            (false, 69) => Decision::Returned,
            (false, 79) if error.outcome_unknown() => Decision::Unknown,
            _ => panic!("{error:?}"),
        };
    }
    let via = to.via.unwrap();
    match &via.tls {
        Some(tls) if tls.is_verified() => Decision::Verified,
        Some(_) => Decision::Encrypted,
        None => Decision::Plain,
    }
}

/// The domains for which Postfix comes to another decision. The rule that decides each is in
/// `docs/direct-delivery.md`.
const DIFFERENCES: [(&str, Decision); 8] = [
    // Unsigned MX records lead to a signed host.
    ("insecure-mx-mismatch.unsigned", Decision::Delayed),
    ("domain-leaves", Decision::Delayed),
    ("domain-enters.unsigned", Decision::Delayed),
    // Unbound validates these signatures.
    ("ed448.example.", Decision::Delayed),
    // The authority of the record has expired.
    ("ta-is-below-expired", Decision::Verified),
    // The certificate is for the recipient's domain, which is an alias without MX records.
    ("implicit-alias", Decision::Delayed),
    // The outcome is not known.
    ("lost", Decision::Delayed),
    // All servers refuse the session with 5xx.
    ("refuses-session", Decision::Delayed),
];

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
        let via = receipt.recipients().next().unwrap().via;
        if let Some(via) = via.filter(|_| !case.is_not_about_tls()) {
            let policy = match case.decision {
                Decision::Plain => MxPolicy::None,
                Decision::Encrypted if !case.is_unusable() => MxPolicy::Opportunistic,
                _ => MxPolicy::Dane,
            };
            assert_eq!(via.policy, policy, "{context}");
            // The alias of `host-leaves` is proven, but not where it leads.
            let is_proven = via.dnssec || case.domain == "host-leaves";
            assert!(is_proven || policy != MxPolicy::Dane, "{context}");
        }
        if let Err(error) = &receipt.domains[0].result {
            let is_about_tls = !case.is_not_about_tls();
            assert_eq!(error.kind() == ErrorKind::Tls, is_about_tls, "{context}");
            let text = error.to_string();
            assert!(text.contains("DANE") || !is_about_tls, "{context}");
            assert!(text.contains("mx.") || !is_about_tls, "{context}");
            // The program chose neither the server nor its port.
            let hint = error.hint().expect("a hint");
            let of_own_choice = [
                "smtps://",
                "submission",
                "heck the host",
                "tls=",
                "user name",
            ];
            assert!(
                !of_own_choice.iter().any(|words| hint.contains(words)),
                "{context}"
            );
        }
    }
    client.close().await;

    let recipients: Vec<_> = CASES.iter().map(cases::Case::recipient).collect();
    let by_postfix = move || Postfix::start(lab().resolver()).send(&recipients);
    let results = tokio::task::spawn_blocking(by_postfix).await.unwrap();
    for (case, (decision, line)) in CASES.iter().zip(results) {
        let (_, expected) = *DIFFERENCES
            .iter()
            .find(|(domain, _)| *domain == case.domain)
            .unwrap_or(&(case.domain, case.decision));
        assert_eq!(decision, expected, "{}: {line}", case.domain);
    }
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
