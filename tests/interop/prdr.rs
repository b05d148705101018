//! Exim's PRDR: one reply for each recipient behind the message, where it has something to say
//! about each.

use std::pin::pin;

use envoi::{Address, Client, Endpoint, Envelope, ErrorKind, Message, Outcome, Phase};
use futures::stream::{self, StreamExt as _};

use crate::servers::{ALICE, Server, exim, someone};
use crate::settings::hello;

fn to_all(recipients: impl IntoIterator<Item = Address>) -> Message<'static> {
    let alice = Address::new("alice@envoi.test").unwrap();
    Message::from(hello(&alice)).envelope(Envelope::new(alice, recipients).unwrap())
}

fn codes<'a>(recipients: impl IntoIterator<Item = &'a envoi::Recipient>) -> Vec<u16> {
    let code = |recipient: &envoi::Recipient| match &recipient.outcome {
        Outcome::Accepted(reply) | Outcome::Refused(reply) => reply.code(),
        other => panic!("{other:?}"),
    };
    recipients.into_iter().map(code).collect()
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn prdr_reports_one_refusing_recipient() {
    let exim = exim();
    for url in exim.settings() {
        let mut connection = Client::from_url(&url).unwrap().connect().await.unwrap();
        let (first, last) = (someone("prdr"), someone("prdr"));
        let unknown_user = Address::new("nobody@envoi.test").unwrap();
        let to = [
            first.clone(),
            someone("choosy"),
            unknown_user,
            someone("moody"),
            last.clone(),
        ];
        let receipt = connection.send(to_all(to)).await.unwrap();
        assert_eq!(
            codes(&receipt.recipients),
            [250, 550, 550, 450, 250],
            "{url}: {}",
            receipt.transcript
        );
        assert!(
            receipt.transcript.to_string().contains("353"),
            "{}",
            receipt.transcript
        );
        // Behind DATA as behind BDAT.
        let alice = Address::new("alice@envoi.test").unwrap();
        let envelope = Envelope::new(alice, [someone("choosy"), first.clone()]).unwrap();
        let message = Message::raw_stream(&b"Subject: x\r\n\r\nHello.\r\n"[..]).envelope(envelope);
        let receipt = connection.send(message).await.unwrap();
        assert_eq!(
            codes(&receipt.recipients),
            [550, 250],
            "{url}: {}",
            receipt.transcript
        );
        connection.quit().await;
        for (to, count) in [(first, 2), (last, 1)] {
            assert_eq!(exim.mailbox(&to, count).await.len(), count);
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn prdr_reports_a_message_refused_by_all() {
    let exim = exim();
    let mut connection = Client::from_url(&exim.starttls(ALICE))
        .unwrap()
        .connect()
        .await
        .unwrap();
    // Exim ends with 250 where the refusals differ.
    for (names, expected) in [
        (["choosy", "choosy"], [550, 550]),
        (["choosy", "moody"], [550, 450]),
    ] {
        let error = connection
            .send(to_all(names.map(someone)))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Refused, Phase::EndOfData),
            "{error}"
        );
        assert_eq!(
            codes(&error.receipt().unwrap().recipients),
            expected,
            "{}",
            connection.transcript()
        );
    }
    let to = someone("prdr");
    assert!(connection.send(hello(&to)).await.unwrap().all_accepted());
    connection.quit().await;
    let _ = exim.delivered(&to).await;
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn send_all_reports_prdr_replies() {
    let exim = exim();
    let mut connection = Client::from_url(&exim.plain())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let to: Vec<Address> = (0..50).map(|_| someone("prdr")).collect();
    let messages = stream::iter(to.clone()).map(|to| to_all([someone("choosy"), to]));
    let mut outcomes = pin!(connection.send_all(messages));
    while let Some(outcome) = outcomes.next().await {
        assert_eq!(codes(&outcome.unwrap().recipients), [550, 250]);
    }
    for to in &to {
        let _ = exim.delivered(to).await;
    }
}

/// For all or none: PRDR is not asked for, and Exim takes the message for all.
#[tokio::test]
#[ignore = "needs real servers"]
async fn all_or_nothing_does_not_use_prdr() {
    let exim = exim();
    all_or_nothing_at(exim).await;
}

async fn all_or_nothing_at(exim: &Server) {
    let endpoint = Endpoint::from_url(&exim.plain())
        .unwrap()
        .all_or_nothing(true);
    let to = [someone("choosy"), someone("prdr")];
    let receipt = Client::new(endpoint)
        .send(to_all(to.clone()))
        .await
        .unwrap();
    assert!(receipt.all_accepted());
    assert!(
        !receipt.transcript.to_string().contains(" PRDR\n"),
        "{}",
        receipt.transcript
    );
    for to in &to {
        let _ = exim.delivered(to).await;
    }
}
