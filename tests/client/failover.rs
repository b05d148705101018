//! Several servers: which results lead to the next one, when a server is paused, and what the
//! result of all is.

use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoi::testing::{Builder, Server};
use envoi::{
    CircuitState, Client, Endpoint, Envelope, ErrorKind, Failover, FailoverPolicy, FailoverServer,
    Message, Outcome, RetryPolicy, Timeouts,
};
use futures::future::{Either, select};
use support::{address, hello, hello_to};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn plain() -> Builder {
    Server::builder().plaintext()
}

/// Answers the commands that begin so.
fn answering(command: &'static str, answer: &'static str) -> Builder {
    plain().answer(move |line| line.starts_with(command).then(|| answer.into()))
}

fn server(url: &str) -> FailoverServer {
    Client::from_url(url).unwrap().into()
}

/// The URL of a port that nothing listens on.
async fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("smtp://{}?tls=none", listener.local_addr().unwrap())
}

/// A server that takes a whole message and closes without an answer.
async fn closing_after_message() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}?tls=none", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for reply in [
            "220 a\r\n",
            "250 a\r\n",
            "250 Ok\r\n",
            "250 Ok\r\n",
            "354 Go\r\n",
        ] {
            stream.write_all(reply.as_bytes()).await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
        }
    });
    url
}

fn failures(failover: &Failover) -> Vec<u32> {
    let number = |circuit| match circuit {
        CircuitState::Closed { failures } => failures,
        other => panic!("{other:?}"),
    };
    let states = failover.servers();
    states.iter().map(|state| number(state.circuit)).collect()
}

#[tokio::test]
async fn a_message_goes_on_only_where_nothing_of_it_was_taken() {
    // How the first server behaves, whether the second one gets the message, and whether it counts
    // as a failure of the first.
    let cases = [
        (answering("EHLO", "421 4.3.2 Not now"), true, true),
        (answering("EHLO", "554 5.3.2 Not here"), true, true),
        (answering("MAIL", "421 4.3.2 Not now"), true, true),
        (answering("MAIL", "451 4.3.0 Not now"), true, true),
        (answering("MAIL", "550 5.7.1 Not you"), false, false),
        (answering("MAIL", "530 5.7.0 Log in first"), true, true),
        (answering("RCPT", "450 4.2.0 Greylisted"), true, false),
        (answering("RCPT", "550 5.1.1 Unknown"), false, false),
        (answering("DATA", "451 4.3.0 Not now"), true, false),
        (answering("DATA", "554 5.7.1 Spam"), false, false),
        (answering(".", "451 4.3.0 Not now"), true, false),
        (answering(".", "421 4.3.0 Not now"), true, true),
        (answering(".", "554 5.7.1 Spam"), false, false),
        (plain().max_size(10), true, false),
        (Server::builder().login("alice", "other"), true, true),
        (Server::builder(), true, true),
    ];
    for (number, (builder, goes_on, counts)) in cases.into_iter().enumerate() {
        let (first, second) = (
            builder.start().await.unwrap(),
            plain().start().await.unwrap(),
        );
        let url = match number {
            // The password is wrong; the certificate is not trusted.
            14 => first.url().replace("other", "wrong"),
            15 => format!("smtp://localhost:{}", first.port()),
            _ => first.url(),
        };
        let failover = Failover::new([server(&url), server(&second.url())]);
        let result = failover.send(hello()).await;
        assert_eq!(result.is_ok(), goes_on, "case {number}: {result:?}");
        assert_eq!(
            second.messages().len(),
            usize::from(goes_on),
            "case {number}"
        );
        assert_eq!(failures(&failover), [u32::from(counts), 0], "case {number}");
        assert!(first.messages().is_empty());
        if let Ok(receipt) = result {
            assert!(receipt.all_accepted());
            let replies = receipt.transcript.to_string();
            assert!(replies.contains("250 2.0.0"), "{replies}");
        }
    }
    let second = plain().start().await.unwrap();
    let failover = Failover::new([server(&closed().await), server(&second.url())]);
    assert!(failover.send(hello()).await.unwrap().all_accepted());
    assert_eq!(failures(&failover), [1, 0]);

    let failover = Failover::new([
        server(&closing_after_message().await),
        server(&second.url()),
    ]);
    let error = failover.send(hello()).await.unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
    assert_eq!(
        error.receipt().unwrap().recipients[0].outcome,
        Outcome::Unknown
    );
    assert_eq!(failures(&failover), [1, 0]);
    assert_eq!(second.messages().len(), 1, "never after an unknown outcome");
}

#[tokio::test]
async fn recipients_keep_what_a_server_has_decided() {
    let first = plain()
        .refuse_recipient("a@example.com", "550 5.1.1 Unknown")
        .refuse_recipient("b@example.com", "450 4.2.0 Greylisted")
        .start()
        .await
        .unwrap();
    let second = plain().start().await.unwrap();
    let failover = Failover::new([server(&first.url()), server(&second.url())]);
    // Nothing was accepted: the second server gets the message for the other recipient.
    let mail = hello_to(&["a@example.com", "b@example.com"]);
    let receipt = failover.send(mail).await.unwrap();
    assert_eq!(second.messages()[0].recipients, ["b@example.com"]);
    assert!(
        matches!(&receipt.recipients[0].outcome, Outcome::Refused(reply) if reply.code() == 550)
    );
    assert!(receipt.recipients[1].outcome.is_accepted());
    assert_eq!(receipt.transactions, 2);

    // One was accepted: the result stays, the recipient that was refused for the moment too.
    let mail = hello_to(&["b@example.com", "c@example.com"]);
    let receipt = failover.send(mail).await.unwrap();
    assert_eq!(second.messages().len(), 1);
    assert!(receipt.recipients[0].is_transient());
    assert!(receipt.recipients[1].outcome.is_accepted());

    // To all or none, and not to the first.
    let endpoint = Endpoint::from_url(&first.url())
        .unwrap()
        .all_or_nothing(true);
    let failover = Failover::new([endpoint.into(), server(&second.url())]);
    let mail = hello_to(&["a@example.com", "b@example.com"]);
    let error = failover.send(mail).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(second.messages().len(), 1);
}

#[tokio::test]
async fn a_stream_goes_on_until_its_transaction_has_started() {
    let stream = || {
        let to = [address("you@example.com")];
        let envelope = Envelope::new(address("me@example.org"), to).unwrap();
        Message::raw_stream(Cursor::new("Subject: Hello\r\n\r\nHello.\r\n")).envelope(envelope)
    };
    let second = plain().start().await.unwrap();
    let failover = Failover::new([server(&closed().await), server(&second.url())]);
    assert!(failover.send(stream()).await.unwrap().all_accepted());
    let busy = answering("MAIL", "451 4.3.0 Not now")
        .start()
        .await
        .unwrap();
    let failover = Failover::new([server(&busy.url()), server(&second.url())]);
    let error = failover.send(stream()).await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(second.messages().len(), 1);
}

#[tokio::test]
async fn a_server_that_fails_is_paused_and_tried_again() {
    let works = Arc::new(AtomicBool::new(false));
    let switch = works.clone();
    let first = plain()
        .answer(move |line| {
            let refuses = line.starts_with("EHLO") && !switch.load(Ordering::SeqCst);
            refuses.then(|| "421 4.3.2 Not now".into())
        })
        .start()
        .await
        .unwrap();
    let second = plain().start().await.unwrap();
    let mut policy = FailoverPolicy::default();
    policy.max_failures = 2;
    policy.pause = Duration::from_secs(60);
    let failover = Failover::new([server(&first.url()), server(&second.url())]).policy(policy);
    let send = async |failover: &Failover| {
        assert!(failover.send(hello()).await.unwrap().all_accepted());
        (first.connections().len(), second.messages().len())
    };
    assert_eq!(send(&failover).await, (1, 1));
    assert_eq!(send(&failover).await, (2, 2));
    // Paused, for all clones.
    assert_eq!(send(&failover.clone()).await, (2, 3));
    let states = failover.servers();
    let CircuitState::Open { remaining } = states[0].circuit else {
        panic!("{states:?}");
    };
    assert!(remaining <= Duration::from_secs(60) && !remaining.is_zero());
    let last = states[0].last_failure.as_ref().unwrap();
    assert!(last.reply().is_some_and(|reply| reply.code() == 421) && last.receipt().is_none());
    // The pause is over, and the server still fails: the next one is twice as long.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!(send(&failover).await, (3, 4));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!(send(&failover).await, (3, 5));
    works.store(true, Ordering::SeqCst);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!(send(&failover).await, (4, 5));
    assert_eq!(failures(&failover), [0, 0]);
    assert_eq!(first.messages().len(), 1);
}

#[tokio::test]
async fn a_trial_that_is_dropped_leaves_the_server_to_the_next_message() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}?tls=none", listener.local_addr().unwrap());
    let second = plain().start().await.unwrap();
    let mut policy = FailoverPolicy::default();
    policy.max_failures = 1;
    policy.pause = Duration::ZERO;
    let failover = Failover::new([server(&url), server(&second.url())]).policy(policy);
    let refuse = async || {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"421 Not now\r\n").await.unwrap();
    };
    let circuit = || failover.servers()[0].circuit;
    let next = CircuitState::Open {
        remaining: Duration::ZERO,
    };
    let (sent, ()) = tokio::join!(failover.send(hello()), refuse());
    assert!(sent.unwrap().all_accepted());
    assert_eq!(circuit(), next);

    let trial = Box::pin(failover.send(hello()));
    let accept = Box::pin(listener.accept());
    let Either::Right((accepted, trial)) = select(trial, accept).await else {
        panic!("the server has not greeted");
    };
    assert_eq!(circuit(), CircuitState::HalfOpen);
    drop(trial);
    assert_eq!(circuit(), next);
    drop(accepted);
    let (sent, ()) = tokio::join!(failover.send(hello()), refuse());
    assert!(sent.unwrap().all_accepted());
    assert_eq!(second.messages().len(), 2);
}

#[tokio::test]
async fn a_paused_server_is_tried_where_the_others_fail() {
    let first = answering("MAIL", "451 4.3.0 Not now")
        .start()
        .await
        .unwrap();
    let mut policy = FailoverPolicy::default();
    policy.max_failures = 1;
    let servers = [server(&first.url()), server(&closed().await)];
    let failover = Failover::new(servers).policy(policy);
    for number in 1..4 {
        let error = failover.send(hello()).await.unwrap_err();
        assert_eq!(first.connections().len(), number);
        assert!(error.is_transient());
        let recipients = &error.receipt().unwrap().recipients;
        assert!(recipients[0].is_transient());
    }
    let error = failover.send(hello()).await.unwrap_err();
    let message = error.message();
    assert!(message.contains("127.0.0.1 failed ("), "{message}");
    assert!(message.contains("), and localhost: "), "{message}");
}

#[tokio::test]
async fn a_transient_failure_of_one_server_makes_that_of_all_transient() {
    let refusing = Server::builder()
        .login("alice", "right")
        .start()
        .await
        .unwrap();
    let refusing = refusing.url().replace("right", "wrong");
    for servers in [
        [server(&closed().await), server(&refusing)],
        [server(&refusing), server(&closed().await)],
    ] {
        let error = Failover::new(servers).send(hello()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        assert!(error.is_transient());
        assert!(error.receipt().unwrap().recipients[0].is_transient());
    }
    let error = Failover::new([server(&refusing)])
        .send(hello())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert!(!error.receipt().unwrap().recipients[0].is_transient());
}

#[tokio::test]
async fn a_recipient_refused_for_now_goes_on_after_a_server_that_fails_for_good() {
    let puts_off = answering("RCPT", "450 4.2.0 Greylisted");
    let puts_off = puts_off.start().await.unwrap();
    let refuses = answering("EHLO", "554 5.3.2 Not here").start().await;
    let refuses = refuses.unwrap();
    let takes = plain().start().await.unwrap();
    let two = [server(&puts_off.url()), server(&refuses.url())];
    let error = Failover::new(two).send(hello()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(error.receipt().unwrap().recipients[0].is_transient());
    let three = [&puts_off, &refuses, &takes].map(|one| server(&one.url()));
    let receipt = Failover::new(three).send(hello()).await.unwrap();
    assert!(receipt.all_accepted());
}

#[tokio::test]
async fn weights_divide_the_messages_and_spares_wait() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(plain().start().await.unwrap());
    }
    let failover = Failover::new([
        server(&servers[0].url()),
        server(&servers[1].url()).weight(3),
        FailoverServer::from(Client::from_url(&servers[2].url()).unwrap().pool(2)).weight(1),
    ]);
    for _ in 0..8 {
        assert!(failover.send(hello()).await.unwrap().all_accepted());
    }
    let taken: Vec<_> = servers
        .iter()
        .map(|server| server.messages().len())
        .collect();
    assert_eq!(taken, [0, 6, 2]);
    let reports = failover.check().await;
    assert_eq!(reports.len(), 3);
    assert!(reports.iter().all(Result::is_ok));
}

#[tokio::test]
async fn retries_begin_with_the_first_server_again() {
    let first = answering("MAIL", "451 4.3.0 Not now")
        .start()
        .await
        .unwrap();
    let second = answering("RCPT", "450 4.2.0 Greylisted")
        .start()
        .await
        .unwrap();
    let mut retries = RetryPolicy::new(2);
    retries.initial_backoff = Duration::from_millis(1);
    let failover = Failover::new([server(&first.url()), server(&second.url())]).retries(retries);
    let error = failover.send(hello()).await.unwrap_err();
    assert!(
        error.message().starts_with("at the last of 3 attempts: "),
        "{error}"
    );
    assert_eq!(
        (first.connections().len(), second.connections().len()),
        (3, 3)
    );
    assert_eq!(error.receipt().unwrap().transactions, 6);
}

#[tokio::test]
async fn the_deadline_holds_for_all_servers_together() {
    let mut silent = Vec::new();
    let mut listeners = Vec::new();
    for _ in 0..3 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = Endpoint::new("127.0.0.1").port(port);
        let endpoint = endpoint.security(envoi::tls::Security::None);
        let limits = Timeouts::uniform(Duration::from_secs(4));
        silent.push(FailoverServer::from(endpoint.timeouts(limits)));
        listeners.push(listener);
    }
    let failover = Failover::new(silent).deadline(Duration::from_secs(6));
    // The kernel has accepted the connections. From now on the clock stands still while there is
    // something to do, and so only time-outs end the waits.
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let error = failover.send(hello()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(began.elapsed().as_secs(), 6, "{error}");
}

#[tokio::test]
async fn invalid_settings_are_found_before_anything_is_sent() {
    let works = plain().start().await.unwrap();
    let wrong = Endpoint::new("not a host");
    let failover = Failover::new([server(&works.url()), wrong.into()]);
    let error = failover.send(hello()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request);
    let error = Failover::new([]).send(hello()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request);
    assert!(works.connections().is_empty());
}

#[tokio::test]
async fn servers_of_one_host_are_named_by_their_ports() {
    let first = answering("MAIL", "451 4.3.0 Not now")
        .start()
        .await
        .unwrap();
    let second = plain().refuse_recipient("you@example.com", "452 4.2.2 Full");
    let second = second.start().await.unwrap();
    let failover = Failover::new([server(&first.url()), server(&second.url())]);
    let names: Vec<_> = [&first, &second]
        .map(|server| format!("localhost:{}", server.port()))
        .into();
    let states = failover.servers();
    assert_eq!(
        states.iter().map(|state| &state.server).collect::<Vec<_>>(),
        names.iter().collect::<Vec<_>>()
    );
    let error = failover.send(hello()).await.unwrap_err();
    for name in names {
        assert!(error.message().contains(&name), "{error}");
    }
}

#[tokio::test]
async fn closing_closes_the_pools_of_all_servers() {
    let (first, second) = (
        plain().start().await.unwrap(),
        plain().start().await.unwrap(),
    );
    let pools = [&first, &second].map(|server| Client::from_url(&server.url()).unwrap().pool(1));
    for pool in &pools {
        pool.warm_up(1).await.unwrap();
    }
    let failover = Failover::new(pools.map(FailoverServer::from));
    assert_eq!(failover.close().await, 0);
    for server in [first, second] {
        assert!(
            server.connections()[0]
                .commands()
                .any(|line| line == "QUIT")
        );
    }
    let error = failover.send(hello()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PoolClosed);
}

/// Each server that comes so far is a hand-over of its own, until one is refused.
#[tokio::test]
async fn each_server_has_a_handover() {
    let first = answering(".", "451 4.3.0 Not now").start().await.unwrap();
    let second = plain().start().await.unwrap();
    for (refused, numbers) in [(None, &[1, 2][..]), (Some(2), &[1, 2]), (Some(1), &[1])] {
        let servers = [server(&first.url()), server(&second.url())];
        let mut policy = RetryPolicy::new(2);
        policy.initial_backoff = Duration::from_millis(1);
        let failover = Failover::new(servers).retries(policy);
        let calls: Arc<Mutex<Vec<u32>>> = Arc::default();
        let calling = calls.clone();
        let message = Message::from(hello()).on_handover(move |handover| {
            calling.lock().unwrap().push(handover.number);
            async move {
                match refused == Some(handover.number) {
                    true => Err("the disk is full"),
                    false => Ok(()),
                }
            }
        });
        let result = failover.send(message).await;
        assert_eq!(*calls.lock().unwrap(), numbers);
        let received = usize::from(refused.is_none());
        assert_eq!(second.take_messages().len(), received);
        match result {
            Ok(receipt) => assert!(receipt.handed_over && refused.is_none()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Handover, "{error}"),
        }
        // It says nothing about the servers.
        assert_eq!(failures(&failover), [0, 0]);
    }
}
