//! Which servers get a message, and what becomes of it.

use std::error::Error as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoi::mail_builder::MessageBuilder;
use envoi::mx::{LookupError, LookupErrorKind, MxClient, MxPolicy, MxProblem, MxReceipt, Resolver};
use envoi::testing::{Fault, Server, Step};
use envoi::{Attachment, ErrorKind, Message, Outcome, RetryPolicy, Timeouts};

use crate::lab::lab;

fn client() -> MxClient {
    let resolver = Resolver::new(lab().resolver())
        .anchors(&lab().anchors)
        .unwrap();
    MxClient::new(resolver).timeouts(Timeouts::uniform(Duration::from_secs(10)))
}

/// A server at this address, in plaintext.
async fn plain(last: u8) -> Server {
    faulty(last, None).await
}

async fn faulty(last: u8, fault: impl Into<Option<Fault>>) -> Server {
    let builder = Server::builder()
        .address(lab().address(last))
        .port(25)
        .plaintext();
    let builder = match fault.into() {
        Some(fault) => builder.fault(fault),
        None => builder,
    };
    builder.start().await.unwrap()
}

fn mail(recipients: &[&str]) -> MessageBuilder<'static> {
    let recipients: Vec<String> = recipients.iter().map(|to| to.to_string()).collect();
    MessageBuilder::new()
        .from("me@example.org")
        .to(recipients)
        .subject("Hello")
        .text_body("Hello.")
}

async fn send(client: &MxClient, recipients: &[&str]) -> MxReceipt {
    client.send(mail(recipients)).await.unwrap()
}

/// The host that each recipient's message went to, and whether it was accepted.
fn summary(receipt: &MxReceipt) -> Vec<(Option<&str>, bool)> {
    let recipients = receipt.recipients();
    recipients
        .map(|to| {
            let host = to.via.map(|via| via.host.split('.').next().unwrap());
            (host, to.recipient.outcome.is_accepted())
        })
        .collect()
}

fn problem(receipt: &MxReceipt) -> MxProblem {
    let error = receipt.domains[0].result.as_ref().unwrap_err();
    *error.source().unwrap().downcast_ref().unwrap()
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn the_next_host_follows_one_that_fails() {
    let refusing = faulty(31, Fault::reply(Step::Greeting, "554 5.7.1 No")).await;
    let accepting = plain(32).await;
    let receipt = send(
        &client(),
        &["a@next.delivery.example", "b@next.delivery.example"],
    )
    .await;
    assert_eq!(summary(&receipt), [(Some("next3"), true); 2]);
    let via = receipt.recipients().next().unwrap().via.unwrap();
    assert_eq!(via.address, IpAddr::from(lab().address(32)));
    assert_eq!((via.policy, via.dnssec), (MxPolicy::None, false));
    assert!(via.plaintext_reason.is_some() && !via.is_verified());
    // One transaction for both.
    assert_eq!(accepting.messages().len(), 1);
    accepting.messages()[0]
        .assert_recipients(["a@next.delivery.example", "b@next.delivery.example"]);
    assert_eq!(refusing.connections().len(), 1);
    let failed: Vec<_> = receipt.domains[0]
        .failures
        .iter()
        .map(|failure| (failure.address.unwrap(), failure.error.kind()))
        .collect();
    assert_eq!(
        failed,
        [
            (lab().address(30).into(), ErrorKind::Connect),
            (lab().address(31).into(), ErrorKind::Refused),
        ]
    );
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_server_that_says_nothing_or_goes_down_leads_to_the_next_host() {
    let patience = Timeouts::uniform(Duration::from_millis(500));
    for (domain, first, fault, second, kind) in [
        (
            "silent",
            85,
            Fault::hang(Step::Greeting),
            86,
            ErrorKind::Timeout,
        ),
        (
            "leaving",
            87,
            Fault::reply(Step::Rcpt, "421 4.3.2 Shutting down").matching("b@"),
            88,
            ErrorKind::Refused,
        ),
    ] {
        let first = faulty(first, fault).await;
        let second = plain(second).await;
        let recipients = ["a", "b"].map(|local| format!("{local}@{domain}.delivery.example"));
        let recipients = recipients.each_ref().map(String::as_str);
        let client = client().timeouts(patience.clone());
        let receipt = send(&client, &recipients).await;
        // The first got nothing, also not for the recipient that it had accepted.
        let host = format!("{domain}2");
        assert_eq!(summary(&receipt), [(Some(host.as_str()), true); 2]);
        assert!(first.messages().is_empty());
        second.messages()[0].assert_recipients(recipients);
        assert_eq!(receipt.domains[0].failures[0].error.kind(), kind);
        // It is avoided from then on.
        let receipt = send(&client, &recipients).await;
        assert_eq!(summary(&receipt), [(Some(host.as_str()), true); 2]);
        assert_eq!(first.connections().len(), 1);
        assert_eq!(second.connections().len(), 1);
    }
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn only_recipients_refused_for_now_go_to_the_next_host() {
    let first = faulty(
        33,
        Fault::reply(Step::Rcpt, "450 4.2.1 Later").matching("b@"),
    )
    .await;
    let second = plain(34).await;
    let recipients = ["a@partly.delivery.example", "b@partly.delivery.example"];
    let receipt = send(&client(), &recipients).await;
    assert_eq!(
        summary(&receipt),
        [(Some("partly1"), true), (Some("partly2"), true)]
    );
    first.messages()[0].assert_recipients([recipients[0]]);
    second.messages()[0].assert_recipients([recipients[1]]);
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_permanent_refusal_and_an_unknown_outcome_are_final() {
    for (domain, first, fault, second, code) in [
        (
            "final",
            35,
            Fault::reply(Step::Rcpt, "550 5.1.1 No such user"),
            36,
            69,
        ),
        ("unknown", 37, Fault::close(Step::Message), 38, 79),
    ] {
        let _first = faulty(first, fault).await;
        let second = plain(second).await;
        let receipt = send(&client(), &[&format!("a@{domain}.delivery.example")]).await;
        let host = format!("{domain}1");
        assert_eq!(summary(&receipt), [(Some(host.as_str()), false)]);
        assert!(second.connections().is_empty());
        let error = receipt.into_result().unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
    }
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn it_may_succeed_later_where_one_server_says_so() {
    let _first = faulty(50, Fault::reply(Step::Mail, "451 4.3.0 Later")).await;
    let _second = faulty(51, Fault::reply(Step::Greeting, "554 5.7.1 No")).await;
    let receipt = send(&client(), &["a@later.delivery.example"]).await;
    let recipient = receipt.recipients().next().unwrap();
    assert_eq!(recipient.via.unwrap().host, "later2.delivery.example");
    assert!(recipient.recipient.is_transient());
    let error = receipt.into_result().unwrap_err();
    assert!(error.is_transient(), "{error}");
    // Each host with its own reply.
    let text = error.to_string();
    let places: Vec<usize> = ["later1.", "451 4.3.0 Later", "later2.", "554 5.7.1 No"]
        .iter()
        .map(|part| text.find(part).unwrap_or_else(|| panic!("{part}: {text}")))
        .collect();
    assert!(places.is_sorted(), "{text}");
    assert_eq!(text.matches("451 4.3.0 Later").count(), 1, "{text}");
}

/// The second server says nothing of the recipient that the first one put off.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_recipient_refused_for_now_stays_so_where_the_next_session_is_refused() {
    let _first = faulty(
        24,
        Fault::reply(Step::Rcpt, "450 4.2.1 Later").matching("b@"),
    )
    .await;
    let _second = faulty(25, Fault::reply(Step::Greeting, "554 5.7.1 No")).await;
    let recipients = ["a@put-off.delivery.example", "b@put-off.delivery.example"];
    for recipients in [&recipients[1..], &recipients] {
        let receipt = send(&client(), recipients).await;
        let recipient = receipt.recipients().last().unwrap();
        assert!(!recipient.recipient.outcome.is_accepted());
        assert!(recipient.recipient.is_transient(), "{recipient:?}");
        if let Err(error) = receipt.into_result() {
            assert_eq!(error.exit_code(), 75, "{error}");
        }
    }
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_sender_refused_for_good_is_final_after_a_host_that_is_down() {
    let _second = faulty(27, Fault::reply(Step::Mail, "550 5.7.1 No")).await;
    let receipt = send(&client(), &["a@sender.delivery.example"]).await;
    let recipient = receipt.recipients().next().unwrap();
    assert!(!recipient.recipient.is_transient(), "{recipient:?}");
    assert_eq!(receipt.into_result().unwrap_err().exit_code(), 69);
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn domains_are_told_apart_by_what_the_dns_says() {
    let implicit = plain(39).await;
    let receipt = send(&client(), &["a@implicit.delivery.example"]).await;
    assert_eq!(summary(&receipt), [(Some("implicit"), true)]);
    assert_eq!(implicit.messages().len(), 1);
    for (domain, expected) in [
        ("null.delivery.example", MxProblem::NullMx),
        ("missing.delivery.example", MxProblem::NoSuchDomain),
        ("nothing.delivery.example", MxProblem::NoAddress),
        ("invalid.delivery.example", MxProblem::NoValidHost),
        ("lost.delivery.example", MxProblem::NoSuchHost),
    ] {
        let receipt = send(&client(), &[&format!("a@{domain}")]).await;
        assert_eq!(summary(&receipt), [(None, false)]);
        assert_eq!(problem(&receipt), expected, "{domain}");
        let error = receipt.into_result().unwrap_err();
        assert!(error.is_permanent() && error.exit_code() == 69, "{error}");
        let message = error.message();
        assert!(
            error.hint().is_some() && message.starts_with(domain),
            "{message}"
        );
    }
    for (domain, kind) in [
        ("expired.example", LookupErrorKind::Bogus),
        ("circle.signed.example", LookupErrorKind::ServerFailure),
    ] {
        let receipt = send(&client(), &[&format!("a@{domain}")]).await;
        let error = receipt.into_result().unwrap_err();
        assert!(error.is_transient() && error.exit_code() == 75, "{error}");
        let source: &LookupError = error.source().unwrap().downcast_ref().unwrap();
        assert_eq!(source.kind(), kind, "{error}");
    }
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn own_names_and_addresses_are_left_out() {
    let (best, own, backup) = (plain(40).await, plain(41).await, plain(42).await);
    let own_name = |name: &str| client().own_names([name.parse().unwrap()]);
    let recipient = ["a@own.delivery.example"];
    let receipt = send(&own_name("OWN2.delivery.example."), &recipient).await;
    assert_eq!(summary(&receipt), [(Some("own1"), true)]);
    let receipt = send(&own_name("own1.delivery.example"), &recipient).await;
    assert_eq!(problem(&receipt), MxProblem::OwnHost);
    // An alias of this machine, of which the backup would give the message back.
    for domain in ["own-host", "own-alias"] {
        let recipient = format!("a@{domain}.delivery.example");
        let receipt = send(&own_name("own2.delivery.example"), &[&recipient]).await;
        assert_eq!(problem(&receipt), MxProblem::OwnHost, "{domain}");
        assert_eq!(receipt.domains[0].failures.len(), 1);
    }
    // An address that is not allowed.
    let refused: IpAddr = lab().address(40).into();
    let filtered = client().address_filter(move |address| address != refused);
    let receipt = send(&filtered, &recipient).await;
    assert_eq!(summary(&receipt), [(Some("own2"), true)]);
    assert_eq!(receipt.domains[0].failures[0].address, Some(refused));
    let receipt = send(&client().public_only(true), &recipient).await;
    assert_eq!(summary(&receipt), [(None, false)]);
    assert_eq!(receipt.domains[0].failures.len(), 3);
    assert_eq!(problem(&receipt), MxProblem::AddressRefused);
    assert!(receipt.into_result().unwrap_err().is_permanent());
    assert_eq!(
        [best, own, backup].map(|server| server.messages().len()),
        [1, 1, 0]
    );
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn all_addresses_of_a_host_are_tried_up_to_the_bound() {
    let second = plain(44).await;
    // Of a name that is an alias for the domain, too.
    for domain in ["two.delivery.example", "alias.delivery.example"] {
        let receipt = send(&client(), &[&format!("a@{domain}")]).await;
        assert_eq!(summary(&receipt), [(Some("twohost"), true)], "{domain}");
    }
    assert_eq!(second.messages().len(), 2);
    let receipt = send(&client(), &["a@many.delivery.example"]).await;
    assert_eq!(receipt.domains[0].failures.len(), 10);
    let receipt = send(&client().max_addresses(3), &["a@many.delivery.example"]).await;
    assert_eq!(receipt.domains[0].failures.len(), 3);
    assert!(receipt.into_result().unwrap_err().is_transient());
    // Those that are not allowed, too.
    for (client, bound) in [(client(), 10), (client().max_addresses(3), 3)] {
        let receipt = send(&client.public_only(true), &["a@many.delivery.example"]).await;
        assert_eq!(receipt.domains[0].failures.len(), bound);
        assert_eq!(problem(&receipt), MxProblem::AddressRefused);
    }
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn tls_is_used_where_it_works() {
    let _tls = lab()
        .server(45, "tlshost.delivery.example:self-signed")
        .start()
        .await
        .unwrap();
    let receipt = send(&client(), &["a@tls.delivery.example"]).await;
    let via = receipt.recipients().next().unwrap().via.unwrap();
    assert_eq!(via.policy, MxPolicy::Opportunistic);
    assert!(via.tls.is_some() && !via.is_verified(), "{via}");
    // Where it fails, plaintext, by one more connection.
    let fault = Fault::reply(Step::StartTls, "454 4.7.0 TLS not available");
    let broken = lab()
        .server(46, "brokenhost.delivery.example")
        .fault(fault)
        .start();
    let broken = broken.await.unwrap();
    let receipt = send(&client(), &["a@broken.delivery.example"]).await;
    let via = receipt.recipients().next().unwrap().via.unwrap();
    assert_eq!(via.policy, MxPolicy::None);
    assert!(via.plaintext_reason.is_some() && via.tls.is_none(), "{via}");
    assert_eq!(broken.connections().len(), 2);
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn connections_are_kept_and_closed() {
    let server = plain(47).await;
    let client = client();
    for _ in 0..3 {
        let receipt = send(&client, &["a@kept.delivery.example"]).await;
        assert!(receipt.all_accepted());
    }
    assert_eq!(server.connections().len(), 1);
    assert_eq!(client.close().await, 0);
    let receipt = client
        .send(mail(&["a@kept.delivery.example"]))
        .await
        .unwrap();
    let error = receipt.into_result().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PoolClosed);
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_server_that_failed_is_tried_last_for_a_while() {
    let first = faulty(48, Fault::close(Step::Greeting)).await;
    let _second = plain(49).await;
    let client = client();
    for _ in 0..3 {
        let receipt = send(&client, &["a@avoided.delivery.example"]).await;
        assert_eq!(summary(&receipt), [(Some("avoided2"), true)]);
    }
    assert_eq!(first.connections().len(), 1);
    // Forgotten at once.
    let forgetful = client.avoid_failed(Duration::ZERO);
    for _ in 0..2 {
        let receipt = send(&forgetful, &["a@avoided.delivery.example"]).await;
        assert_eq!(summary(&receipt), [(Some("avoided2"), true)]);
    }
    assert_eq!(first.connections().len(), 3);
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn literals_and_streams() {
    let server = plain(60).await;
    let literal = format!("a@[{}]", lab().address(60));
    let receipt = send(&client(), &[&literal]).await;
    assert!(receipt.all_accepted());
    let via = receipt.recipients().next().unwrap().via.unwrap();
    assert_eq!(via.host, literal[2..]);
    assert_eq!(receipt.domains[0].domain, literal[2..]);
    // A stream can go to one domain.
    let stream = |recipients: &[&str]| {
        let file = Attachment::reader("a", "text/plain", &b"once"[..]);
        Message::from(mail(recipients)).attach(file)
    };
    let receipt = client().send(stream(&[&literal])).await.unwrap();
    assert!(receipt.all_accepted());
    let error = client()
        .send(stream(&[&literal, "b@null.delivery.example"]))
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request);
    assert_eq!(server.messages().len(), 2);
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn domains_have_results_of_their_own() {
    let _server = plain(61).await;
    let literal = format!("a@[{}]", lab().address(61));
    let recipients = [
        "x@null.delivery.example",
        &literal,
        "y@missing.delivery.example",
    ];
    let receipt = send(&client(), &recipients).await;
    assert_eq!(receipt.domains.len(), 3);
    let accepted: Vec<bool> = summary(&receipt)
        .iter()
        .map(|(_, accepted)| *accepted)
        .collect();
    assert_eq!(accepted, [false, true, false]);
    let receipt = receipt.into_result().unwrap();
    let addresses: Vec<&str> = receipt
        .recipients
        .iter()
        .map(|to| to.address.as_str())
        .collect();
    assert_eq!(addresses, recipients);
    assert_eq!(receipt.recipients[0].outcome, Outcome::NotTried);
    assert!(!receipt.recipients[0].is_transient());
    let reason = receipt.incomplete_reason.unwrap();
    for part in ["null MX", "NXDOMAIN"] {
        assert!(reason.contains(part), "{reason}");
    }
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn each_domain_has_its_hand_over() {
    let _first = plain(62).await;
    let _second = faulty(63, Fault::reply(Step::Message, "451 4.3.0 Later").times(1)).await;
    let literals = [62, 63].map(|last| format!("a@[{}]", lab().address(last)));
    let handed_over = Arc::new(Mutex::new(Vec::new()));
    let noted = handed_over.clone();
    let message = Message::from(mail(&[&literals[0], &literals[1]])).on_handover(move |handover| {
        let recipients = handover.recipients.iter().map(|to| to.to_string());
        noted.lock().unwrap().extend(recipients);
        async { Ok::<_, std::io::Error>(()) }
    });
    let receipt = client()
        .retries(RetryPolicy::new(1))
        .send(message)
        .await
        .unwrap();
    assert!(receipt.all_accepted());
    let mut handed_over = handed_over.lock().unwrap().clone();
    handed_over.sort();
    // The second is sent again, after a refusal.
    assert_eq!(
        handed_over,
        [&literals[0], &literals[1], &literals[1]].map(String::clone)
    );
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn domains_are_served_side_by_side_within_the_bound() {
    let servers = Arc::new([plain(82).await, plain(83).await, plain(84).await]);
    let literals = [82, 83, 84].map(|last| format!("a@[{}]", lab().address(last)));
    let literals = literals.each_ref().map(String::as_str);
    // The hand-over of each domain waits for those of the others.
    let together = Arc::new(tokio::sync::Barrier::new(3));
    let message = Message::from(mail(&literals)).on_handover(move |_| {
        let together = together.clone();
        async move {
            together.wait().await;
            Ok::<_, std::io::Error>(())
        }
    });
    let receipt = client().concurrency(3).send(message).await.unwrap();
    assert!(receipt.all_accepted());

    // One after the other: at each hand-over, one more server has a connection.
    let connected = Arc::new(Mutex::new(Vec::new()));
    let (noted, all) = (connected.clone(), servers.clone());
    let message = Message::from(mail(&literals)).on_handover(move |_| {
        let number = all.iter().filter(|server| server.connections().len() > 1);
        noted.lock().unwrap().push(number.count());
        async { Ok::<_, std::io::Error>(()) }
    });
    let receipt = client().concurrency(1).send(message).await.unwrap();
    assert!(receipt.all_accepted());
    assert_eq!(*connected.lock().unwrap(), [1, 2, 3]);
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_dropped_call_tries_no_further_server() {
    let first = faulty(64, Fault::hang(Step::Mail)).await;
    let second = plain(65).await;
    let recipients = ["a@dropped.delivery.example"];
    let client = client();
    {
        let sending = client.send(mail(&recipients));
        let reached = async {
            while first.connections().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            sent = sending => panic!("{sent:?}"),
            () = reached => {}
        }
    }
    assert!(second.connections().is_empty());
    first.clear_faults();
    let receipt = send(&client, &recipients).await;
    assert_eq!(summary(&receipt), [(Some("dropped1"), true)]);
}

/// RFC 6761, 6.3: the DNS is not asked, so that a resolver that does not answer is enough.
#[tokio::test]
async fn localhost_is_this_machine() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let client = MxClient::new(Resolver::new(silent.local_addr().unwrap()))
        .mta_sts(false)
        .port(server.port());
    for domain in ["localhost", "mail.localhost"] {
        let to = format!("root@{domain}");
        let receipt = send(&client, &[&to]).await;
        let recipient = receipt.recipients().next().unwrap();
        assert!(recipient.recipient.outcome.is_accepted(), "{receipt:?}");
        assert_eq!(recipient.via.unwrap().host, domain);
        // Recipients are often user input.
        let receipt = send(&client.clone().public_only(true), &[&to]).await;
        assert_eq!(problem(&receipt), MxProblem::AddressRefused);
    }
    assert_eq!(server.messages().len(), 2);
    assert!(silent.recv_from(&mut [0; 512]).is_err());
}
