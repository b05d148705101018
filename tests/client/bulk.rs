//! Many messages over several connections: `Pool::send_all`.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use envoi::testing::{Builder, Fault, Server, Step};
#[cfg(feature = "journal")]
use envoi::{Address, Envelope, Journal, JournalError, JournalState};
use envoi::{
    Attachment, BulkConfig, Client, Endpoint, ErrorKind, Message, Outcome, Pool, PoolConfig,
    SendWindow,
};
use futures::FutureExt as _;
use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::mpsc;

fn message(number: usize) -> Message<'static> {
    support::hello_to(&[&address(number)]).into()
}

fn address(number: usize) -> String {
    format!("user{number}@example.com")
}

fn messages(count: usize) -> impl Stream<Item = Message<'static>> {
    stream::iter((0..count).map(message))
}

async fn start(builder: Builder) -> Server {
    builder.plaintext().start().await.unwrap()
}

fn pool(server: &Server, config: impl Into<PoolConfig>) -> Pool {
    Client::from_url(&server.url()).unwrap().pool(config)
}

fn as_completed() -> BulkConfig {
    let mut config = BulkConfig::default();
    config.ordered = false;
    config
}

/// The recipients that the server has accepted, each once.
fn received(server: &Server) -> BTreeSet<String> {
    let messages = server.messages();
    let recipients: Vec<_> = messages
        .iter()
        .map(|message| message.recipients[0].clone())
        .collect();
    let distinct: BTreeSet<_> = recipients.iter().cloned().collect();
    assert_eq!(distinct.len(), recipients.len(), "one came twice");
    distinct
}

/// Any number of connections share the messages, and each message has its own outcome.
#[tokio::test]
async fn messages_are_shared_by_all_connections() {
    for chunking in ["CHUNKING", "HELP"] {
        let server = start(Server::builder().offer(chunking)).await;
        let pool = pool(&server, 4);
        let outcomes: Vec<_> = pool.send_all(messages(500)).collect().await;
        assert_eq!(outcomes.len(), 500);
        for (number, outcome) in outcomes.into_iter().enumerate() {
            let to = &outcome.unwrap().recipients[0].address;
            assert_eq!(to.as_str(), address(number), "outcomes come in order");
        }
        assert_eq!(received(&server).len(), 500);
        let each: Vec<_> = server
            .connections()
            .iter()
            .map(|connection| {
                connection
                    .commands()
                    .filter(|c| c.starts_with("MAIL"))
                    .count()
            })
            .collect();
        assert_eq!(each.len(), 4, "{each:?}");
        assert!(each.iter().all(|number| *number > 10), "{each:?}");
    }
}

/// No connection is opened for the sake of a few messages, nor more than are allowed.
#[tokio::test]
async fn connections_are_opened_as_messages_need_them() {
    for (count, max_connections, expected) in [(0, 8, 0), (5, 8, 1), (200, 3, 3), (200, 0, 1)] {
        let server = start(Server::builder()).await;
        let pool = pool(&server, 8);
        let mut config = BulkConfig::default();
        config.max_connections = max_connections;
        let outcomes = pool.send_all_with(messages(count), config);
        let numbers: Vec<_> = outcomes
            .map(|(number, outcome)| {
                assert!(outcome.unwrap().all_accepted());
                number
            })
            .collect()
            .await;
        assert_eq!(numbers, Vec::from_iter(0..count));
        assert_eq!(server.connections().len(), expected, "{count} messages");
    }
}

/// A window of one message is one for each connection.
#[tokio::test]
async fn each_connection_has_a_window_of_its_own() {
    let server =
        start(Server::builder().fault(Fault::delay(Step::Accepted, Duration::from_millis(20))))
            .await;
    let endpoint = Endpoint::from_url(&server.url()).unwrap();
    let client = Client::new(endpoint.send_window(SendWindow::new(1)));
    let pool = client.pool(4);
    let taken = AtomicUsize::new(0);
    let source = messages(40).inspect(|_| {
        taken.fetch_add(1, Ordering::Relaxed);
    });
    let mut outcomes = pin!(pool.send_all_with(source, as_completed()));
    let mut done = BTreeSet::new();
    while let Some((number, outcome)) = outcomes.next().await {
        assert!(outcome.unwrap().all_accepted());
        assert!(done.insert(number));
        // Of four in flight, this one is not any more; none is taken while outcomes are not.
        let ahead = taken.load(Ordering::Relaxed) - done.len();
        assert!(ahead < 4, "{ahead}");
    }
    assert_eq!(done.len(), 40);
    assert_eq!(server.connections().len(), 4);
}

/// An outcome that is missing holds back the later ones, and with them further messages.
#[tokio::test]
async fn ordered_outcomes_bound_what_is_taken() {
    let server = start(
        Server::builder()
            .fault(Fault::delay(Step::Accepted, Duration::from_millis(300)).matching("user0@")),
    )
    .await;
    let endpoint = Endpoint::from_url(&server.url()).unwrap();
    let client = Client::new(endpoint.send_window(SendWindow::new(8)));
    let pool = client.pool(2);
    let taken = AtomicUsize::new(0);
    let source = messages(200).inspect(|_| {
        taken.fetch_add(1, Ordering::Relaxed);
    });
    let mut outcomes = pin!(pool.send_all(source));
    let mut number = 0;
    while let Some(outcome) = outcomes.next().await {
        let to = outcome.unwrap().recipients[0].address.to_string();
        assert_eq!(to, address(number));
        number += 1;
        assert!(taken.load(Ordering::Relaxed) <= number + 2 * 8);
    }
    assert_eq!(number, 200);
}

/// Sessions end by 421 and by loss; the messages that were not sent go over other connections, and
/// those in doubt go nowhere.
#[tokio::test]
async fn what_a_lost_connection_did_not_send_goes_over_others() {
    for ordered in [true, false] {
        let server = start(
            Server::builder()
                .offer("CHUNKING")
                .fault(
                    Fault::reply(Step::Mail, "421 4.3.2 Going down")
                        .after(20)
                        .per_connection(true),
                )
                .fault(Fault::close(Step::Accepted).every(37)),
        )
        .await;
        let pool = pool(&server, 4);
        let mut config = BulkConfig::default();
        config.ordered = ordered;
        let outcomes: Vec<_> = pool.send_all_with(messages(300), config).collect().await;
        let numbers: BTreeSet<_> = outcomes.iter().map(|(number, _)| *number).collect();
        assert_eq!(
            (numbers.len(), outcomes.len()),
            (300, 300),
            "each outcome once"
        );
        let received = received(&server);
        for (number, outcome) in outcomes {
            match outcome {
                Ok(_) => assert!(received.contains(&address(number))),
                Err(error) => {
                    assert!(error.outcome_unknown(), "{number}: {error}");
                    let recipient = &error.receipt().unwrap().recipients[0];
                    assert_eq!(recipient.address.as_str(), address(number));
                    assert_eq!(recipient.outcome, Outcome::Unknown);
                }
            }
        }
    }
}

/// The server takes fewer connections than the pool may have.
#[tokio::test]
async fn a_server_that_refuses_further_connections_gets_all_over_the_first() {
    let server = start(
        Server::builder()
            .fault(Fault::reply(Step::Greeting, "421 4.7.0 Too many connections").after(2)),
    )
    .await;
    let pool = pool(&server, 6);
    let outcomes: Vec<_> = pool.send_all(messages(300)).collect().await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(received(&server).len(), 300);
}

/// Every message that was taken has an outcome, and no other is taken.
#[tokio::test]
async fn without_a_connection_the_stream_ends() {
    let server = start(Server::builder().fault(Fault::close(Step::Mail).after(100))).await;
    let pool = pool(&server, 3);
    let taken = AtomicUsize::new(0);
    let source = stream::iter(0..).map(|number| {
        taken.fetch_add(1, Ordering::Relaxed);
        message(number)
    });
    let outcomes: Vec<_> = pool.send_all_with(source, as_completed()).collect().await;
    let numbers: BTreeSet<_> = outcomes.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers.len(), outcomes.len());
    assert_eq!(numbers.len(), taken.load(Ordering::Relaxed));
    let sent = outcomes
        .iter()
        .filter(|(_, outcome)| outcome.is_ok())
        .count();
    assert_eq!(sent, received(&server).len());
    assert!(
        sent >= 90 && outcomes.len() > sent,
        "{sent} of {}",
        outcomes.len()
    );
    for (number, outcome) in &outcomes {
        if let Err(error) = outcome {
            assert!(error.is_transient(), "{error}");
            let recipient = &error.receipt().unwrap().recipients[0];
            assert_eq!(recipient.address.as_str(), address(*number));
        }
    }
}

/// A stream that pauses keeps no connection from other calls.
#[tokio::test]
async fn a_stream_that_pauses_returns_its_connections() {
    let server = start(Server::builder()).await;
    let pool = pool(&server, 1);
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let source = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let mut outcomes = pin!(pool.send_all(source));
    for number in 0..3 {
        sender.send(message(number)).unwrap();
        assert!(outcomes.next().await.unwrap().unwrap().all_accepted());
        assert!(outcomes.next().now_or_never().is_none());
        let sent = pool.send(message(10 + number)).await.unwrap();
        assert!(sent.all_accepted());
    }
    drop(sender);
    assert!(outcomes.next().await.is_none());
    assert_eq!(server.connections().len(), 1);
    assert_eq!(received(&server).len(), 6);
}

/// Other calls get their turn while a long stream is sent.
#[tokio::test]
async fn a_stream_yields_a_connection_to_calls_that_wait() {
    for connections in [1, 2] {
        let server = start(Server::builder()).await;
        let pool = pool(&server, connections);
        let mut outcomes = pin!(pool.send_all(stream::iter(0..).map(message)));
        assert!(outcomes.next().await.unwrap().is_ok());
        let single = pool.send(message(usize::MAX));
        let mut single = pin!(single);
        let sent = loop {
            tokio::select! {
                sent = &mut single => break sent,
                outcome = outcomes.next() => assert!(outcome.unwrap().is_ok()),
            }
        };
        assert!(sent.unwrap().all_accepted());
        // The stream goes on.
        for _ in 0..100 {
            assert!(outcomes.next().await.unwrap().is_ok());
        }
        assert!(server.connections().len() <= connections.into());
    }
}

/// Two streams share a pool.
#[tokio::test]
async fn two_streams_share_a_pool() {
    let server = start(Server::builder()).await;
    let pool = pool(&server, 2);
    let first = pool.send_all(messages(300)).collect::<Vec<_>>();
    let second = stream::iter((0..300).map(|number| message(1000 + number)));
    let second = pool.send_all(second).collect::<Vec<_>>();
    let (first, second) = tokio::join!(first, second);
    assert!(first.iter().chain(&second).all(Result::is_ok));
    assert_eq!(received(&server).len(), 600);
}

/// Messages that cannot be sent cost the others nothing.
#[tokio::test]
async fn a_bad_message_has_its_own_outcome() {
    let server =
        start(Server::builder().refuse_recipient("user3@example.com", "550 5.1.1 No")).await;
    let pool = pool(&server, 2);
    let source = stream::iter((0..40).map(|number| match number % 10 {
        5 => message(number).attach(Attachment::file("/nonexistent")),
        _ => message(number),
    }));
    let outcomes: Vec<_> = pool.send_all(source).collect().await;
    for (number, outcome) in outcomes.iter().enumerate() {
        let kind = outcome.as_ref().err().map(|error| error.kind());
        let expected = match number {
            3 => Some(ErrorKind::Refused),
            _ if number % 10 == 5 => Some(ErrorKind::Input),
            _ => None,
        };
        assert_eq!(kind, expected, "{number}");
    }
}

/// Dropped at any time, the stream leaves a pool that can be used, and no message twice.
#[tokio::test]
async fn a_dropped_stream_leaves_a_usable_pool() {
    let server = start(Server::builder()).await;
    let pool = pool(&server, 3);
    for (round, taken) in [0, 1, 7, 60].into_iter().enumerate() {
        let source = stream::iter(0..).map(move |number| message(1000 * round + number));
        let mut outcomes = pin!(pool.send_all_with(source, as_completed()));
        for _ in 0..taken {
            assert!(outcomes.next().await.unwrap().1.is_ok());
        }
    }
    for number in 0..10 {
        assert!(pool.send(message(100_000 + number)).await.is_ok());
    }
    received(&server);
}

#[tokio::test]
async fn a_closed_pool_ends_the_stream_with_its_error() {
    let server = start(Server::builder()).await;
    let pool = pool(&server, 2);
    pool.close().await;
    let outcomes: Vec<_> = pool.send_all(messages(5)).collect().await;
    assert_eq!(outcomes.len(), 1);
    let error = outcomes[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PoolClosed);
    assert_eq!(error.receipt().unwrap().recipients.len(), 1);
}

/// The stream can be sent to another thread.
#[tokio::test]
async fn the_stream_is_send() {
    let server = start(Server::builder()).await;
    let pool = pool(&server, 2);
    let sending = tokio::spawn(async move { pool.send_all(messages(20)).count().await });
    assert_eq!(sending.await.unwrap(), 20);
}

/// A mailing that is given up again and again, with a faulty server: each recipient is accepted
/// exactly once, or is in doubt in the journal.
#[cfg(feature = "journal")]
#[tokio::test]
async fn a_mailing_with_a_journal_sends_nothing_twice() {
    const RECIPIENTS: usize = 600;
    let server = start(
        Server::builder()
            .offer("CHUNKING")
            .fault(Fault::reply(Step::Message, "451 4.3.0 Try later").one_in(40, 1))
            .fault(Fault::reply(Step::Mail, "421 4.3.2 Going down").one_in(120, 2))
            .fault(Fault::close(Step::Data).one_in(200, 3))
            .fault(Fault::close(Step::Message).one_in(200, 4))
            .fault(Fault::close(Step::Accepted).one_in(200, 5)),
    )
    .await;
    let pool = pool(&server, 4);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut round = 0;
    loop {
        round += 1;
        // The file of the process before is unlocked once its last lines are written.
        let journal = loop {
            match Journal::open(&path).await {
                Err(JournalError::InUse(_)) => tokio::task::yield_now().await,
                opened => break opened.unwrap(),
            }
        };
        let is_left = |number: &usize| {
            let state = journal.state(address(*number));
            matches!(state, None | Some(JournalState::NotSent))
        };
        let left: Vec<usize> = (0..RECIPIENTS).filter(is_left).collect();
        if left.is_empty() {
            journal.close().await.unwrap();
            break;
        }
        let messages = stream::iter(&left).map(|number| {
            let (journal, number) = (journal.clone(), *number);
            message(number).on_handover(move |_| {
                let journal = journal.clone();
                async move { journal.hand_over(address(number)).await }
            })
        });
        let mut outcomes = pin!(pool.send_all_with(messages, as_completed()));
        // Given up after some outcomes, the last of which is not recorded.
        for _ in 0..round * 7 % 90 {
            let Some((number, outcome)) = outcomes.next().await else {
                break;
            };
            journal.record(address(left[number]), &outcome).unwrap();
        }
        let _ = outcomes.next().await;
    }
    let received = received(&server);
    let text = std::fs::read_to_string(&path).unwrap();
    for number in 0..RECIPIENTS {
        let to = address(number);
        let last = text
            .lines()
            .rfind(|line| line.contains(&format!(" {to} ")))
            .unwrap_or_default();
        let is_in_doubt = last.contains(" in-doubt ");
        assert!(received.contains(&to) || is_in_doubt, "{to}: {last}");
        assert!(is_in_doubt || last.contains(" sent "), "{to}: {last}");
    }
}

/// The state of an outcome is refused only for what concerns the message, by each way to send it.
#[cfg(feature = "journal")]
#[tokio::test]
async fn a_state_tells_the_message_from_its_endpoint() {
    let invalid = || {
        let addresses = ["a@example.org", "b@example.com"].map(|text| Address::new(text).unwrap());
        let [from, to] = addresses;
        let envelope = Envelope::new(from, [to]).unwrap();
        Message::raw("Subject: a\nSubject: b\n\nHi.\n").envelope(envelope)
    };
    let of = |outcome: Option<envoi::Result<envoi::Receipt>>| JournalState::of(&outcome.unwrap());
    let server = start(Server::builder()).await;
    let refused =
        start(Server::builder().fault(Fault::reply(Step::Greeting, "554 Not here"))).await;
    let good = Endpoint::from_url(&server.url()).unwrap();
    let refused = Endpoint::from_url(&refused.url()).unwrap();
    let no_host = Endpoint::new("not a host");
    let login = start(Server::builder().login("me", "secret").auth_in_clear(true)).await;
    let nul = Endpoint::from_url(&login.url()).unwrap().user("m\0e");
    for (endpoint, is_valid, expected) in [
        (&good, true, JournalState::Sent),
        (&good, false, JournalState::Refused),
        (&refused, true, JournalState::NotSent),
        (&no_host, true, JournalState::NotSent),
        (&nul, true, JournalState::NotSent),
    ] {
        let message = || if is_valid { message(1) } else { invalid() };
        let client = Client::new(endpoint.clone());
        assert_eq!(of(Some(client.send(message()).await)), expected);
        let pool = client.pool(2);
        assert_eq!(of(Some(pool.send(message()).await)), expected);
        let mut outcomes = pin!(pool.send_all(stream::iter([message()])));
        assert_eq!(of(outcomes.next().await), expected);
        if let Ok(mut connection) = client.connect().await {
            let mut outcomes = pin!(connection.send_all(stream::iter([message()])));
            assert_eq!(of(outcomes.next().await), expected);
        }
    }
}
