//! Servers that take only so much at once, and say so beforehand (LIMITS, RFC 9422) or when it is
//! too much (452 and 552 to RCPT): a message goes in parts, and each recipient has an outcome.

use std::sync::atomic::{AtomicUsize, Ordering};

use envoi::mail_builder::MessageBuilder;
use envoi::testing::{Builder, Server};
use envoi::{Attachment, Client, Endpoint, Error, ErrorKind, Message, Outcome, Receipt};
use futures::stream::{self, StreamExt as _};
use support::hello_to;

fn server(limits: &str) -> Builder {
    Server::builder()
        .plaintext()
        .offer(format!("LIMITS {limits}"))
}

fn client(server: &Server) -> Client {
    Client::from_url(&server.url()).unwrap()
}

/// The recipients of each message that came, in order.
fn arrived(server: &Server) -> Vec<Vec<String>> {
    server
        .messages()
        .into_iter()
        .map(|message| message.recipients)
        .collect()
}

/// What became of each recipient, and the queue id where it was accepted.
fn recipients(receipt: &Receipt) -> Vec<String> {
    let one = |recipient: &envoi::Recipient| match &recipient.outcome {
        Outcome::Accepted(_) => recipient
            .final_reply
            .as_ref()
            .unwrap()
            .text()
            .replace("Ok: queued as 0000000", ""),
        Outcome::Refused(reply) => reply.code().to_string(),
        Outcome::Unknown => "unknown".into(),
        Outcome::NotTried => "not tried".into(),
    };
    receipt.recipients.iter().map(one).collect()
}

#[tokio::test]
async fn a_message_is_split_at_rcptmax() {
    let server = server("RCPTMAX=2")
        .refuse_recipient("c@x.org", "550 5.1.1 No")
        .start()
        .await
        .unwrap();
    let receipt = client(&server)
        .send(hello_to(&[
            "a@x.org", "b@y.org", "c@x.org", "d@y.org", "e@x.org",
        ]))
        .await
        .unwrap();
    assert_eq!(recipients(&receipt), ["1", "1", "550", "2", "3"]);
    assert_eq!(
        receipt.reply.as_ref().unwrap().text(),
        "Ok: queued as 00000003"
    );
    assert_eq!(
        arrived(&server),
        [&["a@x.org", "b@y.org"][..], &["d@y.org"], &["e@x.org"]]
    );
    let messages = server.messages();
    let first = messages[0].read().unwrap();
    assert!(
        messages
            .iter()
            .all(|message| message.read().unwrap() == first),
        "the parts are the same message"
    );
    assert_eq!(
        (receipt.bytes, receipt.incomplete_reason),
        (first.len() as u64, None)
    );

    // A part without accepted recipients does not stop the other parts.
    let receipt = client(&server)
        .send(hello_to(&["c@x.org", "C@x.org", "d@y.org"]))
        .await
        .unwrap();
    assert_eq!(recipients(&receipt), ["550", "550", "4"]);
}

#[tokio::test]
async fn recipients_of_a_domain_stay_together_under_rcptdomainmax() {
    let server = server("RCPTDOMAINMAX=1").start().await.unwrap();
    let receipt = client(&server)
        .send(hello_to(&["a@x.org", "b@y.org", "c@X.org"]))
        .await
        .unwrap();
    assert_eq!(recipients(&receipt), ["1", "2", "1"]);
    assert_eq!(
        arrived(&server),
        [&["a@x.org", "c@X.org"][..], &["b@y.org"]]
    );
}

#[tokio::test]
async fn a_message_that_cannot_be_split_is_refused_before_mail() {
    let server = server("RCPTMAX=1").start().await.unwrap();
    let fails = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("LIMITS"), "{error}");
        assert_eq!(
            recipients(error.receipt().unwrap()),
            ["not tried", "not tried"]
        );
    };
    let to = ["a@x.org", "b@x.org"];
    let once = Attachment::reader("a", "a/b", tokio::io::empty());
    fails(
        client(&server)
            .send(Message::from(hello_to(&to)).attach(once))
            .await
            .unwrap_err(),
    );
    let endpoint = Endpoint::from_url(&server.url())
        .unwrap()
        .all_or_nothing(true);
    fails(Client::new(endpoint).send(hello_to(&to)).await.unwrap_err());
    assert!(
        server
            .connections()
            .iter()
            .all(|session| !session.commands().any(|line| line.starts_with("MAIL")))
    );
}

#[tokio::test]
async fn a_session_at_mailmax_is_refused_before_mail() {
    let server = server("MAILMAX=2 RCPTMAX=1").start().await.unwrap();
    let mut connection = client(&server).connect().await.unwrap();
    assert_eq!(connection.messages_left(), Some(2));
    // More parts than any session takes.
    let error = connection
        .send(hello_to(&["a@x.org", "b@x.org", "c@x.org"]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let _ = connection.send(hello_to(&["a@x.org"])).await.unwrap();
    // More than this one takes now.
    let error = connection
        .send(hello_to(&["a@x.org", "b@x.org"]))
        .await
        .unwrap_err();
    assert!(
        error.kind() == ErrorKind::Closed && error.is_transient(),
        "{error}"
    );
    let _ = connection.send(hello_to(&["b@x.org"])).await.unwrap();
    let error = connection.send(hello_to(&["c@x.org"])).await.unwrap_err();
    assert!(error.to_string().contains("new connection"), "{error}");
    connection.verify().await.unwrap();
    connection.quit().await;
    assert_eq!(arrived(&server), [["a@x.org"], ["b@x.org"]]);
}

#[tokio::test]
async fn a_client_opens_a_connection_for_every_mailmax_messages() {
    let server = server("MAILMAX=2 RCPTMAX=1").start().await.unwrap();
    let to = ["a@x.org", "b@x.org", "c@x.org", "d@x.org", "e@x.org"];
    let receipt = client(&server).send(hello_to(&to)).await.unwrap();
    assert!(receipt.all_accepted());
    assert_eq!(recipients(&receipt), ["1", "2", "3", "4", "5"]);
    assert_eq!(server.connections().len(), 3);
    // The receipt tells of all of them, up to the last message's answer.
    let transcript = receipt.transcript.to_string();
    assert_eq!(
        (
            transcript.matches("C: EHLO").count(),
            transcript.matches("C: QUIT").count()
        ),
        (3, 2),
        "{transcript}"
    );
    assert!(receipt.round_trips > 3 * 3, "{}", receipt.round_trips);
}

#[tokio::test]
async fn a_pool_opens_a_connection_for_every_mailmax_messages() {
    let server = server("MAILMAX=2 RCPTMAX=1").start().await.unwrap();
    let pool = client(&server).pool(1);
    let to = ["b@x.org", "c@x.org", "d@x.org", "e@x.org", "f@x.org"];
    let messages = [
        hello_to(&["a@x.org"]),
        hello_to(&to),
        hello_to(&["g@x.org"]),
    ]
    .map(Message::from);
    let outcomes: Vec<_> = pool.send_all(stream::iter(messages)).collect().await;
    let all: Vec<_> = outcomes
        .iter()
        .map(|outcome| recipients(outcome.as_ref().unwrap()))
        .collect();
    assert_eq!(all, [&["1"][..], &["2", "3", "4", "5", "6"], &["7"]]);
    assert_eq!(
        (server.messages().len(), server.connections().len()),
        (7, 4)
    );
}

/// The replies to all parts of a message are held together.
#[tokio::test]
async fn stored_replies_are_bounded_over_all_parts() {
    const RECIPIENTS: usize = 600;
    let reply = format!("550 5.1.1 {}", "x".repeat(4000));
    let refuse = move |line: &str| line.starts_with("RCPT").then(|| reply.clone());
    let server = server("RCPTMAX=2").answer(refuse).start().await.unwrap();
    let to: Vec<String> = (0..RECIPIENTS).map(|n| format!("user{n}@x.org")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let error = client(&server).send(hello_to(&to)).await.unwrap_err();
    let kept =
        error
            .receipt()
            .unwrap()
            .recipients
            .iter()
            .map(|recipient| match &recipient.outcome {
                Outcome::Refused(reply) => reply.text().len(),
                outcome => panic!("{outcome:?}"),
            });
    let kept: usize = kept.sum();
    assert!(
        (256 * RECIPIENTS..1024 * 1024 + 256 * RECIPIENTS).contains(&kept),
        "{kept}"
    );
}

#[tokio::test]
async fn a_connection_lost_between_parts_leaves_later_recipients_untried() {
    let mails = AtomicUsize::new(0);
    let going_down = move |line: &str| {
        let is_second = line.starts_with("MAIL") && mails.fetch_add(1, Ordering::Relaxed) == 1;
        is_second.then(|| "421 4.3.2 Going down".to_owned())
    };
    let server = server("RCPTMAX=1")
        .answer(going_down)
        .start()
        .await
        .unwrap();
    let receipt = client(&server)
        .send(hello_to(&["a@x.org", "b@x.org", "c@x.org"]))
        .await
        .unwrap();
    assert_eq!(recipients(&receipt), ["1", "421", "not tried"]);
    let why = receipt.incomplete_reason.unwrap();
    assert!(why.contains("421 4.3.2 Going down"), "{why}");
}

#[tokio::test]
async fn send_all_obeys_the_limits() {
    let server = server("MAILMAX=5 RCPTMAX=2")
        .refuse_recipient("no@x.org", "550 5.1.1 No")
        .start()
        .await
        .unwrap();
    let mut connection = client(&server).connect().await.unwrap();
    let once = Attachment::reader("a", "a/b", tokio::io::empty());
    let messages = [
        hello_to(&["a@x.org", "b@x.org", "no@x.org", "c@x.org", "d@x.org"]).into(),
        hello_to(&["e@x.org"]).into(),
        Message::from(hello_to(&["f@x.org", "g@x.org", "h@x.org"])).attach(once),
        hello_to(&["i@x.org"]).into(),
        // One more than the session takes; what follows is not touched.
        hello_to(&["j@x.org"]).into(),
        hello_to(&["k@x.org"]).into(),
    ];
    let outcomes: Vec<_> = connection.send_all(stream::iter(messages)).collect().await;
    let kinds: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().map_err(Error::kind).map(recipients))
        .collect();
    assert_eq!(
        kinds[0],
        Ok(["1", "1", "550", "2", "3"].map(String::from).to_vec())
    );
    assert_eq!(kinds[1], Ok(vec!["4".to_owned()]));
    assert_eq!(kinds[2], Err(ErrorKind::Unsupported));
    assert_eq!(kinds[3], Ok(vec!["5".to_owned()]));
    assert_eq!(kinds[4..], [Err(ErrorKind::Closed)]);
    connection.quit().await;
    assert_eq!(server.messages().len(), 5);
}

const TOO_MANY: &str = "452 4.5.3 Too many recipients";

/// Takes so many recipients in a transaction, as Postfix does: those that it refuses for another
/// reason do not count.
fn takes(number: usize, too_many: &'static str, builder: Builder) -> Builder {
    let accepted = AtomicUsize::new(0);
    builder.answer(move |line| {
        if line.starts_with("MAIL") {
            accepted.store(0, Ordering::Relaxed);
        }
        let counts = line.starts_with("RCPT") && !line.contains("<no");
        (counts && accepted.fetch_add(1, Ordering::Relaxed) >= number).then(|| too_many.to_owned())
    })
}

fn plain() -> Builder {
    Server::builder().plaintext()
}

/// How many transactions began, on all connections.
fn transactions(server: &Server) -> usize {
    let of_session = |session: &envoi::testing::Session| {
        session
            .commands()
            .filter(|line| line.starts_with("MAIL"))
            .count()
    };
    server.connections().iter().map(of_session).sum()
}

const FIVE: [&str; 5] = ["a@x.org", "b@x.org", "c@x.org", "d@x.org", "e@x.org"];

#[tokio::test]
async fn recipients_beyond_452_are_served_by_further_transactions() {
    let ways: [fn() -> Builder; 5] = [
        plain,
        || plain().without("PIPELINING"),
        || plain().offer("CHUNKING"),
        || plain().offer("CHUNKING").without("PIPELINING"),
        || Server::builder().lmtp(),
    ];
    for way in ways {
        for too_many in [
            TOO_MANY,
            "552 5.5.3 Too many recipients",
            "552 too many recipients",
            "452 4.5.3",
        ] {
            let server = takes(2, too_many, way()).start().await.unwrap();
            let receipt = client(&server).send(hello_to(&FIVE)).await.unwrap();
            assert!(receipt.all_accepted(), "{too_many}: {receipt:?}");
            assert_eq!((receipt.transactions, receipt.incomplete_reason), (3, None));
            assert_eq!(
                arrived(&server),
                [
                    &["a@x.org", "b@x.org"][..],
                    &["c@x.org", "d@x.org"],
                    &["e@x.org"]
                ]
            );
            assert_eq!((transactions(&server), server.connections().len()), (3, 1));
            let messages = server.messages();
            let first = messages[0].read().unwrap();
            assert!(
                messages
                    .iter()
                    .all(|message| message.read().unwrap() == first),
                "it is the same message"
            );
        }
    }
    // Over one connection of the caller's, and what is refused for another reason keeps its own
    // reply.
    let server = takes(1, TOO_MANY, plain())
        .refuse_recipient("no@x.org", "550 5.1.1 No")
        .start()
        .await
        .unwrap();
    let mut connection = client(&server).connect().await.unwrap();
    let receipt = connection
        .send(hello_to(&[
            "a@x.org",
            "no@x.org",
            "b@x.org",
            "no2@x.org",
            "c@x.org",
        ]))
        .await
        .unwrap();
    assert_eq!(recipients(&receipt), ["1", "550", "2", "1", "3"]);
    assert_eq!(
        arrived(&server),
        [&["a@x.org", "no2@x.org"][..], &["b@x.org"], &["c@x.org"]]
    );
    connection.quit().await;
}

/// A further transaction may have a single recipient; the message has more.
#[tokio::test]
async fn advice_counts_all_recipients_of_the_message() {
    let accepted = AtomicUsize::new(0);
    let one_alone = plain().answer(move |line| {
        let is_refused = line.starts_with("RCPT") && accepted.fetch_add(1, Ordering::Relaxed) > 0;
        is_refused.then(|| TOO_MANY.to_owned())
    });
    let server = one_alone.start().await.unwrap();
    let receipt = client(&server)
        .send(hello_to(&["a@x.org", "b@x.org"]))
        .await
        .unwrap();
    assert_eq!(
        (recipients(&receipt), receipt.transactions),
        (vec!["1".into(), "452".into()], 2)
    );
    let hint = receipt.recipients[1].hint().unwrap();
    assert!(hint.contains("fewer recipients in one message"), "{hint}");
}

#[tokio::test]
async fn a_server_may_take_fewer_recipients_than_it_announced() {
    // LIMITS allows three, and the server takes two of them.
    let server = takes(2, TOO_MANY, server("RCPTMAX=3"))
        .start()
        .await
        .unwrap();
    let receipt = client(&server).send(hello_to(&FIVE)).await.unwrap();
    assert!(receipt.all_accepted(), "{receipt:?}");
    assert_eq!(
        arrived(&server),
        [
            &["a@x.org", "b@x.org"][..],
            &["d@x.org", "e@x.org"],
            &["c@x.org"]
        ]
    );
    // A session that takes one message: each further transaction is one of another session.
    let server = takes(2, TOO_MANY, server_with_one_message())
        .start()
        .await
        .unwrap();
    let receipt = client(&server).send(hello_to(&FIVE)).await.unwrap();
    assert!(receipt.all_accepted(), "{receipt:?}");
    assert_eq!((receipt.transactions, server.connections().len()), (3, 3));
    // A connection of the caller's has no other.
    let mut connection = client(&server).connect().await.unwrap();
    let receipt = connection.send(hello_to(&FIVE)).await.unwrap();
    assert_eq!(recipients(&receipt)[2..], ["452"; 3]);
    assert!(receipt.incomplete_reason.unwrap().contains("LIMITS"));
    assert!(receipt.recipients[2].is_transient());
}

fn server_with_one_message() -> Builder {
    server("MAILMAX=1")
}

#[tokio::test]
async fn other_refusals_cause_no_further_transaction() {
    for (reply, transient) in [
        ("452 4.3.1 Insufficient system storage", true),
        ("452 4.2.2 Mailbox full", true),
        ("552 5.2.2 Mailbox full", false),
        ("552 4.2.2 Mailbox full", false),
        ("451 4.5.3 Too many recipients", true),
        ("550 5.5.3 Too many recipients", false),
    ] {
        let server = takes(1, reply, plain()).start().await.unwrap();
        let receipt = client(&server)
            .send(hello_to(&["a@x.org", "b@x.org"]))
            .await
            .unwrap();
        assert_eq!(
            (recipients(&receipt), transactions(&server)),
            (vec!["1".into(), reply[..3].into()], 1),
            "{reply}"
        );
        assert_eq!(
            (receipt.transactions, receipt.recipients[1].is_transient()),
            (1, transient),
            "{reply}"
        );
    }
    // Before any recipient was accepted, it is not one either.
    let server = takes(0, TOO_MANY, plain()).start().await.unwrap();
    let error = client(&server)
        .send(hello_to(&["a@x.org", "b@x.org"]))
        .await
        .unwrap_err();
    assert_eq!(
        (recipients(error.receipt().unwrap()), transactions(&server)),
        (vec!["452".into(); 2], 1)
    );
    assert_eq!(error.receipt().unwrap().transactions, 1);
}

#[tokio::test]
async fn further_transactions_stop_when_none_gains_a_recipient() {
    // The disk is full from the second recipient on.
    let asked = AtomicUsize::new(0);
    let full = move |line: &str| {
        (line.starts_with("RCPT") && asked.fetch_add(1, Ordering::Relaxed) > 0)
            .then(|| "452 No space".to_owned())
    };
    let server = plain().answer(full).start().await.unwrap();
    let receipt = client(&server).send(hello_to(&FIVE)).await.unwrap();
    assert_eq!(recipients(&receipt), ["1", "452", "452", "452", "452"]);
    assert_eq!((receipt.transactions, transactions(&server)), (2, 2));
    assert!(receipt.recipients[4].is_transient());

    // The message itself is refused: the others are not asked to take it.
    let refused = |line: &str| (line == ".").then(|| "554 5.7.1 Spam".to_owned());
    let asked = AtomicUsize::new(0);
    let answer = move |line: &str| {
        let is_second = line.starts_with("RCPT") && asked.fetch_add(1, Ordering::Relaxed) > 0;
        refused(line).or(is_second.then(|| TOO_MANY.to_owned()))
    };
    let server = plain().answer(answer).start().await.unwrap();
    let error = client(&server).send(hello_to(&FIVE)).await.unwrap_err();
    assert_eq!(error.reply().unwrap().code(), 554);
    assert_eq!(transactions(&server), 1);

    // Recipients that are refused for good are done with, and do not keep the message from the
    // others.
    let unknown: Vec<String> = (0..9).map(|n| format!("u{n}@x.org")).collect();
    let to: Vec<&str> = ["a@x.org"]
        .into_iter()
        .chain(unknown.iter().map(String::as_str))
        .chain(["z@x.org"])
        .collect();
    let accepted = AtomicUsize::new(0);
    let answer = move |line: &str| {
        if line.starts_with("MAIL") {
            accepted.store(0, Ordering::Relaxed);
        } else if line.starts_with("RCPT") {
            if accepted.load(Ordering::Relaxed) == 1 {
                return Some(TOO_MANY.to_owned());
            } else if line.contains("<u") {
                return Some("550 5.1.1 Unknown".to_owned());
            }
            accepted.store(1, Ordering::Relaxed);
        }
        None
    };
    let server = plain().answer(answer).start().await.unwrap();
    let receipt = client(&server).send(hello_to(&to)).await.unwrap();
    assert_eq!(
        recipients(&receipt)
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
        {
            let mut expected = vec!["550"; 11];
            (expected[0], expected[10]) = ("1", "2");
            expected
        }
    );
}

/// By a server that takes one recipient at a time, a large message is not asked for all of its
/// recipients again and again.
#[tokio::test]
async fn further_transactions_cost_linear_work() {
    const NUMBER: usize = 300;
    let server = takes(1, TOO_MANY, plain().offer("CHUNKING"))
        .start()
        .await
        .unwrap();
    let to: Vec<String> = (0..NUMBER).map(|n| format!("a{n}@x.org")).collect();
    let receipt = client(&server)
        .send(hello_to(&to.iter().map(String::as_str).collect::<Vec<_>>()))
        .await
        .unwrap();
    assert!(receipt.all_accepted());
    assert_eq!(server.messages().len(), NUMBER);
    let sessions = server.connections();
    let asked = sessions[0]
        .commands()
        .filter(|line| line.starts_with("RCPT"))
        .count();
    assert!(asked <= 3 * NUMBER, "{asked} RCPT for {NUMBER} recipients");
}

#[tokio::test]
async fn a_one_shot_stream_is_sent_to_the_first_accepted_recipients_only() {
    for too_many in [TOO_MANY, "552 5.5.3 Too many recipients"] {
        let server = takes(1, too_many, plain()).start().await.unwrap();
        let once = Attachment::reader("a", "a/b", tokio::io::empty());
        let to = hello_to(&["a@x.org", "b@x.org"]);
        let receipt = client(&server)
            .send(Message::from(to).attach(once))
            .await
            .unwrap();
        assert_eq!(recipients(&receipt), ["1", &too_many[..3]]);
        assert_eq!((receipt.transactions, transactions(&server)), (1, 1));
        let why = receipt.incomplete_reason.unwrap();
        assert!(
            why.contains("fewer recipients at once") && why.contains("stream"),
            "{why}"
        );
        assert!(receipt.recipients[1].is_transient(), "552 counts as 452");
    }
    // To all or none: the server cannot take it for all.
    let server = takes(1, TOO_MANY, plain()).start().await.unwrap();
    let endpoint = Endpoint::from_url(&server.url())
        .unwrap()
        .all_or_nothing(true);
    let error = Client::new(endpoint)
        .send(hello_to(&["a@x.org", "b@x.org"]))
        .await
        .unwrap_err();
    assert_eq!(
        (error.reply().unwrap().code(), transactions(&server)),
        (452, 1)
    );
    assert!(server.messages().is_empty());
}

#[tokio::test]
async fn a_session_that_ends_before_a_further_transaction_keeps_the_outcomes() {
    let mails = AtomicUsize::new(0);
    let accepted = AtomicUsize::new(0);
    let answer = move |line: &str| {
        if line.starts_with("MAIL") && mails.fetch_add(1, Ordering::Relaxed) == 1 {
            return Some("421 4.3.2 Going down".to_owned());
        }
        (line.starts_with("RCPT") && accepted.fetch_add(1, Ordering::Relaxed) == 1)
            .then(|| TOO_MANY.to_owned())
    };
    let server = plain().answer(answer).start().await.unwrap();
    let receipt = client(&server)
        .send(hello_to(&["a@x.org", "b@x.org"]))
        .await
        .unwrap();
    assert_eq!(recipients(&receipt), ["1", "421"]);
    assert!(receipt.recipients[1].is_transient());
}

#[tokio::test]
async fn send_all_serves_recipients_beyond_452() {
    let ways: [fn() -> Builder; 4] = [
        plain,
        || plain().without("PIPELINING"),
        || plain().offer("CHUNKING"),
        || Server::builder().lmtp().offer("LIMITS RCPTMAX=4"),
    ];
    for way in ways {
        let server = takes(2, TOO_MANY, way()).start().await.unwrap();
        let mut connection = client(&server).connect().await.unwrap();
        // One to ten recipients, and now and then one that can be read once only.
        let number = |n: usize| n * 7 % 10 + 1;
        let to = |n: usize| {
            (0..number(n))
                .map(|i| format!("m{n}r{i}@x.org"))
                .collect::<Vec<_>>()
        };
        let messages = (0..100).map(|n| {
            let mail = MessageBuilder::new()
                .from("me@example.org")
                .to(to(n))
                .subject(format!("{n}"))
                .text_body("Hello.");
            match n % 10 {
                // Two recipients.
                3 => Message::from(mail).attach(Attachment::reader("a", "a/b", tokio::io::empty())),
                _ => mail.into(),
            }
        });
        let outcomes: Vec<_> = connection.send_all(stream::iter(messages)).collect().await;
        assert_eq!(outcomes.len(), 100);
        for (n, outcome) in outcomes.into_iter().enumerate() {
            let receipt = outcome.unwrap();
            assert!(receipt.all_accepted(), "{n}: {receipt:?}");
            assert_eq!(receipt.transactions as usize, number(n).div_ceil(2), "{n}");
        }
        connection.quit().await;
        let mut all: Vec<String> = (0..100).flat_map(to).collect();
        let mut came = arrived(&server).concat();
        all.sort();
        came.sort();
        assert_eq!(came, all, "exactly once");
    }
}

/// In the middle of it the session ends.
#[tokio::test]
async fn send_all_keeps_outcomes_when_cut_before_a_further_transaction() {
    for cut_at in 0..12 {
        let mails = AtomicUsize::new(0);
        let accepted = AtomicUsize::new(0);
        let answer = move |line: &str| {
            if line.starts_with("MAIL") {
                accepted.store(0, Ordering::Relaxed);
                if mails.fetch_add(1, Ordering::Relaxed) == cut_at {
                    return Some("421 4.3.2 Going down".to_owned());
                }
            }
            let counts = line.starts_with("RCPT");
            (counts && accepted.fetch_add(1, Ordering::Relaxed) >= 1).then(|| TOO_MANY.to_owned())
        };
        let server = plain().answer(answer).start().await.unwrap();
        let mut connection = client(&server).connect().await.unwrap();
        let messages = (0..4).map(|n| {
            hello_to(
                &["a", "b", "c"]
                    .map(|to| format!("{to}{n}@x.org"))
                    .each_ref()
                    .map(String::as_str),
            )
        });
        let outcomes: Vec<_> = connection
            .send_all(stream::iter(messages.map(Message::from)))
            .collect()
            .await;
        let mut accepted: Vec<String> = Vec::new();
        for outcome in &outcomes {
            let receipt = outcome
                .as_ref()
                .unwrap_or_else(|error| error.receipt().unwrap());
            for recipient in &receipt.recipients {
                match &recipient.outcome {
                    Outcome::Accepted(_) => accepted.push(recipient.address.to_string()),
                    Outcome::Unknown => panic!("cut at {cut_at}: {recipient:?}"),
                    _ => assert!(recipient.is_transient(), "cut at {cut_at}: {recipient:?}"),
                }
            }
        }
        let mut came = arrived(&server).concat();
        came.sort();
        accepted.sort();
        assert_eq!(came, accepted, "cut at {cut_at}");
    }
}

/// Exim with `recipients_max_reject` takes too many recipients for a sign of spam, and refuses the
/// message.
#[tokio::test]
async fn a_message_refused_for_too_many_recipients_is_split() {
    let ways: [fn() -> Builder; 3] = [
        plain,
        || plain().without("PIPELINING"),
        || plain().offer("CHUNKING"),
    ];
    for way in ways {
        // As many as it takes, or never the message.
        for takes in [2, 0] {
            let asked = AtomicUsize::new(0);
            let answer = move |line: &str| match line.get(..4).unwrap_or(line) {
                "MAIL" => {
                    asked.store(0, Ordering::Relaxed);
                    None
                }
                "RCPT" => {
                    let too_many = asked.fetch_add(1, Ordering::Relaxed) >= 2;
                    too_many.then(|| "552 too many recipients".to_owned())
                }
                "DATA" | "." => {
                    let too_many = asked.load(Ordering::Relaxed) > takes;
                    too_many.then(|| "554 Too many recipients".to_owned())
                }
                _ => None,
            };
            let server = way().answer(answer).start().await.unwrap();
            let result = client(&server).send(hello_to(&FIVE)).await;
            if takes == 0 {
                let error = result.unwrap_err();
                assert_eq!(
                    (error.reply().unwrap().code(), transactions(&server)),
                    (554, 2),
                    "{error}"
                );
                assert_eq!(
                    recipients(error.receipt().unwrap())[..3],
                    ["554", "554", "552"]
                );
                continue;
            }
            let receipt = result.unwrap();
            assert!(receipt.all_accepted(), "{receipt:?}");
            assert_eq!((receipt.transactions, receipt.incomplete_reason), (4, None));
            assert_eq!(
                arrived(&server),
                [
                    &["a@x.org", "b@x.org"][..],
                    &["c@x.org", "d@x.org"],
                    &["e@x.org"]
                ]
            );
        }
    }
    // What is refused for another reason is not tried again in parts.
    let server = takes(
        2,
        "552 too many recipients",
        plain().refuse_message("a@x.org", "554 5.7.1 Spam"),
    );
    let server = server.start().await.unwrap();
    let error = client(&server).send(hello_to(&FIVE)).await.unwrap_err();
    assert_eq!(
        (error.reply().unwrap().code(), transactions(&server)),
        (554, 1),
        "{error}"
    );
}
