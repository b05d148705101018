//! Several recipients, each with an outcome of its own.

use envoi::mail_builder::MessageBuilder;
use envoi::{Address, Client, Connection, Endpoint, Envelope, ErrorKind, Message, Outcome, Phase};

use crate::servers::{ALICE, Server, both, few, lockstep, someone};
use crate::settings::hello;
use support::address;

fn unknown_user() -> Address {
    address("nobody@envoi.test")
}

fn later() -> Address {
    address("later@envoi.test")
}

fn to_all(recipients: impl IntoIterator<Item = Address>) -> Message<'static> {
    let envelope = Envelope::new(address("alice@envoi.test"), recipients).unwrap();
    Message::from(hello(&unknown_user())).envelope(envelope)
}

fn assert_refused(outcome: &Outcome, code: u16, enhanced: &str) {
    let Outcome::Refused(reply) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(reply.code(), code, "{reply}");
    // Exim's enhanced code is part of its text; it is found all the same.
    assert_eq!(reply.enhanced().unwrap().to_string(), enhanced, "{reply}");
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_refused_recipient_does_not_affect_others() {
    for server in both() {
        for url in server.settings() {
            let (first, last) = (someone("first"), someone("last"));
            let client = Client::from_url(&url).unwrap();
            let receipt = client
                .send(to_all([
                    first.clone(),
                    unknown_user(),
                    later(),
                    last.clone(),
                ]))
                .await
                .unwrap();
            let outcomes: Vec<&Outcome> = receipt
                .recipients
                .iter()
                .map(|recipient| &recipient.outcome)
                .collect();
            assert!(
                outcomes[0].is_accepted() && outcomes[3].is_accepted(),
                "{outcomes:?}"
            );
            assert_refused(outcomes[1], 550, "5.1.1");
            assert_refused(outcomes[2], 450, "4.2.1");
            assert!(!receipt.all_accepted());
            let without: Vec<&str> = receipt
                .not_accepted()
                .map(|recipient| recipient.address.as_str())
                .collect();
            assert_eq!(without, ["nobody@envoi.test", "later@envoi.test"]);
            for to in [first, last] {
                assert!(server.delivered(&to).await.text().ends_with("Hello.\r\n"));
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn all_or_nothing_sends_to_all_or_none() {
    for server in both() {
        all_or_nothing_at(server).await;
    }
    all_or_nothing_at(&lockstep()).await;
}

async fn all_or_nothing_at(server: &Server) {
    let endpoint = Endpoint::from_url(&server.starttls(ALICE))
        .unwrap()
        .all_or_nothing(true);
    let mut connection = Connection::connect(&endpoint).await.unwrap();
    let to = someone("all");
    let error = connection
        .send(to_all([to.clone(), unknown_user()]))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Refused, Phase::Rcpt),
        "{error}"
    );
    assert!(error.message().contains("nobody@envoi.test"), "{error}");
    let recipients = &error.receipt().unwrap().recipients;
    assert_eq!(recipients[0].outcome, Outcome::NotTried);
    assert_refused(&recipients[1].outcome, 550, "5.1.1");
    // The session goes on, and what comes next is all that arrives.
    let other = someone("all");
    let receipt = connection
        .send(to_all([to.clone(), other.clone()]))
        .await
        .unwrap();
    assert!(receipt.all_accepted());
    connection.quit().await;
    let _ = server.delivered(&to).await;
    let _ = server.delivered(&other).await;
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_message_with_all_recipients_refused_fails() {
    for server in both() {
        let mut connection = Client::from_url(&server.plain())
            .unwrap()
            .connect()
            .await
            .unwrap();
        let error = connection.send(to_all([unknown_user()])).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Refused, Phase::Rcpt),
            "{error}"
        );
        assert!(error.is_permanent() && !error.outcome_unknown());
        assert_eq!(
            error.message(),
            "the server refused the recipient nobody@envoi.test"
        );
        assert!(error.hint().unwrap().contains("no such mailbox"), "{error}");

        let error = connection.send(to_all([later()])).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert_eq!(error.reply().unwrap().code(), 450);
        assert!(error.hint().unwrap().contains("later"), "{error}");

        let error = connection
            .send(to_all([later(), unknown_user()]))
            .await
            .unwrap_err();
        assert_eq!(
            error.message(),
            "the server refused all 2 recipients, later@envoi.test among them"
        );
        let recipients = &error.receipt().unwrap().recipients;
        assert_refused(&recipients[0].outcome, 450, "4.2.1");
        assert_refused(&recipients[1].outcome, 550, "5.1.1");

        // With PIPELINING, the server may have said 354 all the same: the session is in order.
        let to = someone("left");
        let receipt = connection.send(hello(&to)).await.unwrap();
        assert!(receipt.all_accepted());
        connection.quit().await;
        assert!(server.delivered(&to).await.text().ends_with("Hello.\r\n"));
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_hundred_recipients_get_the_message() {
    for server in both() {
        let to: Vec<Address> = (0..100).map(|_| someone("hundred")).collect();
        let receipt = Client::from_url(&server.plain())
            .unwrap()
            .send(to_all(to.clone()))
            .await
            .unwrap();
        assert!(receipt.all_accepted());
        assert_eq!(
            receipt.round_trips, 3,
            "greeting, EHLO, one group with the message"
        );
        for to in [&to[0], &to[50], &to[99]] {
            let _ = server.delivered(to).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn the_null_reverse_path_is_accepted() {
    for server in both() {
        let to = someone("null");
        let envelope = Envelope::new(None, [to.clone()]).unwrap();
        let message = MessageBuilder::new()
            .from("daemon@envoi.test")
            .to("x@envoi.test")
            .text_body("a notice\n");
        let receipt = Client::from_url(&server.starttls(ALICE))
            .unwrap()
            .send(Message::from(message).envelope(envelope))
            .await;
        assert!(receipt.unwrap().all_accepted());
        let trace = server.delivered(&to).await.trace.to_ascii_lowercase();
        assert!(trace.starts_with("return-path: <>\n"), "{trace}");
    }
}

/// Servers that take three recipients at once, one by one and in a flow, over a connection of its
/// own or of a pool: each recipient gets the message once.
#[tokio::test]
#[ignore = "needs real servers"]
async fn recipients_beyond_the_limit_get_the_message_once() {
    for server in few() {
        let client = Client::from_url(&server.plain()).unwrap();
        let pool = client.pool(1);
        let mut to = Vec::new();
        for number in [3usize, 4, 10] {
            for from_pool in [false, true] {
                let some: Vec<Address> = (0..number).map(|_| someone("few")).collect();
                let message = to_all(some.iter().cloned());
                let result = if from_pool {
                    pool.send(message).await
                } else {
                    client.send(message).await
                };
                let receipt =
                    result.unwrap_or_else(|error| panic!("{} {number}: {error}", server.name));
                assert!(
                    receipt.all_accepted(),
                    "{} {number}: {receipt:?}",
                    server.name
                );
                let least = number.div_ceil(3);
                let transactions = receipt.transactions as usize;
                assert!(
                    (least..=least + 1).contains(&transactions),
                    "{} {number}: {transactions}",
                    server.name
                );
                to.extend(some);
            }
        }
        // With one that is refused for good among them, and larger than a message that goes with
        // its commands.
        let some: Vec<Address> = (0..5).map(|_| someone("few")).collect();
        let with_refused = [some[0].clone(), unknown_user(), some[1].clone()]
            .into_iter()
            .chain(some[2..].iter().cloned());
        let large = hello(&unknown_user())
            .text_body("x".repeat(76).as_str().to_owned() + "\r\n" + &"Hello.\r\n".repeat(20_000));
        let envelope = Envelope::new(address("alice@envoi.test"), with_refused).unwrap();
        let receipt = client
            .send(Message::from(large).envelope(envelope))
            .await
            .unwrap();
        let refused: Vec<&str> = receipt
            .not_accepted()
            .map(|recipient| recipient.address.as_str())
            .collect();
        assert_eq!(
            refused,
            ["nobody@envoi.test"],
            "{}: {receipt:?}",
            server.name
        );
        to.extend(some);

        let mut connection = client.connect().await.unwrap();
        let flow: Vec<Vec<Address>> = (1..12)
            .map(|n| (0..n).map(|_| someone("few")).collect())
            .collect();
        let messages = futures::stream::iter(flow.iter().map(|to| to_all(to.iter().cloned())));
        let outcomes: Vec<_> = futures::StreamExt::collect(connection.send_all(messages)).await;
        for outcome in outcomes {
            let receipt = outcome.unwrap_or_else(|error| panic!("{}: {error}", server.name));
            assert!(receipt.all_accepted(), "{}: {receipt:?}", server.name);
        }
        to.extend(flow.concat());
        connection.quit().await;
        pool.close().await;
        for to in &to {
            assert!(server.delivered(to).await.text().ends_with("Hello.\r\n"));
        }
    }
}
