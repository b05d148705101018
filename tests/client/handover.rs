//! The callback that is awaited before the last byte of a message: when it is called, what it gets,
//! and what an error of it means.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoi::mail_builder::MessageBuilder;
use envoi::testing::{Builder, Fault, Server, Step};
use envoi::{
    Attachment, Client, Endpoint, ErrorKind, Handover, Message, Outcome, Phase, RetryPolicy,
    Timeouts,
};
use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _};
use support::hello_to;
use tokio::sync::Notify;
use tokio::time::timeout;

/// What the callbacks got, in the order of the calls.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<Handover>>>);

impl Calls {
    fn of(&self, message: impl Into<Message<'static>>) -> Message<'static> {
        let calls = self.clone();
        message.into().on_handover(move |handover| {
            calls.0.lock().unwrap().push(handover);
            async { Ok::<_, io::Error>(()) }
        })
    }

    fn all(&self) -> Vec<Handover> {
        self.0.lock().unwrap().clone()
    }

    fn recipients(&self) -> Vec<Vec<String>> {
        let texts = |call: &Handover| call.recipients.iter().map(ToString::to_string).collect();
        self.all().iter().map(texts).collect()
    }

    fn numbers(&self) -> Vec<u32> {
        self.all().iter().map(|call| call.number).collect()
    }
}

fn refused(message: impl Into<Message<'static>>) -> Message<'static> {
    let full = || {
        Err(io::Error::new(
            io::ErrorKind::StorageFull,
            "the disk is full",
        ))
    };
    message.into().on_handover(move |_| async move { full() })
}

/// The ways in which a server takes a message: by DATA, as one chunk with its commands, and as one
/// chunk after the replies to them.
fn servers() -> [(&'static str, Builder); 3] {
    let server = || Server::builder().plaintext();
    [
        ("DATA", server()),
        ("one flight", server().offer("CHUNKING")),
        ("BDAT", server().offer("CHUNKING").without("PIPELINING")),
    ]
}

fn client(server: &Server) -> Client {
    Client::from_url(&server.url()).unwrap()
}

/// A message in several chunks, where the server takes it so.
fn binary() -> Message<'static> {
    let mail = hello_to(&["a@example.com"]);
    let bytes = vec![0xff; 3 * 1024 * 1024];
    let film = Attachment::bytes("film", "application/octet-stream", bytes);
    Message::from(mail).attach(film).binary(true)
}

#[tokio::test]
async fn the_callback_is_called_once_before_the_server_has_the_message() {
    for (framing, server) in servers() {
        let server = Arc::new(server.start().await.unwrap());
        let (calls, seen) = (Calls::default(), server.clone());
        let recording = calls.clone();
        let message = Message::from(hello_to(&["a@example.com", "b@example.com"]));
        let message = message.on_handover(move |handover| {
            recording.0.lock().unwrap().push(handover);
            let seen = seen.clone();
            async move {
                // The server, on the same thread, reads all that was written.
                for _ in 0..10_000 {
                    tokio::task::yield_now().await;
                }
                assert_eq!(seen.messages().len(), 0);
                Ok::<_, io::Error>(())
            }
        });
        let receipt = client(&server).send(message).await.unwrap();
        assert!(receipt.handed_over && receipt.all_accepted(), "{framing}");
        assert_eq!(calls.recipients(), [["a@example.com", "b@example.com"]]);
        assert_eq!(calls.all()[0].bytes, receipt.bytes, "{framing}");
        assert_eq!(calls.numbers(), [1]);
        assert_eq!(server.messages().len(), 1, "{framing}");
    }
}

#[tokio::test]
async fn an_error_means_that_the_message_was_not_sent() {
    for (framing, server) in servers() {
        let server = server.start().await.unwrap();
        let mut connection = client(&server).connect().await.unwrap();
        let message = hello_to(&["a@example.com", "b@example.com"]);
        let error = connection.send(refused(message.clone())).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Handover, Phase::Handover),
            "{framing}: {error}"
        );
        assert!(error.message().contains("the disk is full"), "{error}");
        assert!(error.is_permanent() && error.exit_code() == 74);
        let source = std::error::Error::source(&error).unwrap();
        let source = source.downcast_ref::<io::Error>().unwrap();
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        let receipt = error.receipt().unwrap();
        assert!(!receipt.handed_over);
        let untried = |recipient: &envoi::Recipient| {
            recipient.outcome == Outcome::NotTried && !recipient.is_transient()
        };
        assert!(receipt.recipients.iter().all(untried));
        // In chunks, the session goes on.
        let next = connection.send(message).await;
        let expected = usize::from(framing != "DATA");
        assert_eq!(usize::from(next.is_ok()), expected, "{framing}: {next:?}");
        drop(connection);
        assert_eq!(server.messages().len(), expected, "{framing}");
    }
}

#[tokio::test]
async fn a_message_in_several_chunks_is_withdrawn_before_the_last_one() {
    let server = Server::builder()
        .plaintext()
        .offer("CHUNKING")
        .offer("BINARYMIME");
    let server = server.start().await.unwrap();
    let mut connection = client(&server).connect().await.unwrap();
    let error = connection.send(refused(binary())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handover, "{error}");
    let calls = Calls::default();
    let receipt = connection.send(calls.of(binary())).await.unwrap();
    assert_eq!(
        (receipt.bytes, calls.numbers()),
        (calls.all()[0].bytes, vec![1])
    );
    assert!(!server.messages().is_empty() && server.messages().len() == 1);
}

#[tokio::test]
async fn a_message_that_the_server_refuses_before_is_not_handed_over() {
    // Of a message that goes in one flight, the replies may come too late for that.
    for (framing, server) in servers()
        .into_iter()
        .filter(|(name, _)| *name != "one flight")
    {
        let server = server.refuse_recipient("a@example.com", "550 5.1.1 No");
        let server = server.start().await.unwrap();
        let calls = Calls::default();
        let error = client(&server)
            .send(calls.of(hello_to(&["a@example.com"])))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Refused, Phase::Rcpt)
        );
        assert!(calls.all().is_empty(), "{framing}");
        assert!(!error.receipt().unwrap().handed_over);

        let message = hello_to(&["a@example.com", "b@example.com"]);
        let receipt = client(&server).send(calls.of(message)).await.unwrap();
        assert_eq!(calls.recipients(), [["b@example.com"]], "{framing}");
        assert!(receipt.handed_over);
    }
}

#[tokio::test]
async fn a_refusal_while_the_callback_waits_ends_the_wait() {
    let server = Server::builder()
        .plaintext()
        .offer("CHUNKING")
        .refuse_recipient("a@example.com", "550 5.1.1 No");
    let server = server.start().await.unwrap();
    let mut connection = client(&server).connect().await.unwrap();
    let message = Message::from(hello_to(&["a@example.com"]));
    let message = message.on_handover(|_| std::future::pending::<io::Result<()>>());
    let error = connection.send(message).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Refused, Phase::Rcpt)
    );
    assert!(!error.receipt().unwrap().handed_over);
    // Nothing is left of the message.
    let next = connection.send(hello_to(&["b@example.com"])).await;
    assert!(next.unwrap().all_accepted());
    assert_eq!(server.messages()[0].recipients, ["b@example.com"]);
}

#[tokio::test(start_paused = true)]
async fn only_the_deadline_limits_the_callback() {
    for (framing, server) in servers() {
        let server = server.start().await.unwrap();
        let endpoint = Endpoint::from_url(&server.url()).unwrap();
        let timeouts = Timeouts::uniform(Duration::from_secs(10));
        let slow = || {
            Message::from(hello_to(&["a@example.com"])).on_handover(|_| async {
                tokio::time::sleep(Duration::from_secs(1000)).await;
                Ok::<_, io::Error>(())
            })
        };
        let client = Client::new(endpoint.clone().timeouts(timeouts.clone()));
        assert!(client.send(slow()).await.unwrap().all_accepted());

        let timeouts = timeouts.with_deadline(Duration::from_secs(100));
        let client = Client::new(endpoint.timeouts(timeouts));
        let error = client.send(slow()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Timeout, Phase::Handover),
            "{framing}: {error}"
        );
        assert!(!error.outcome_unknown() && !error.receipt().unwrap().handed_over);
        assert_eq!(server.messages().len(), 1, "{framing}");
    }
}

#[tokio::test]
async fn a_cancelled_call_sends_no_end() {
    for (framing, server) in servers() {
        let server = server.start().await.unwrap();
        let mut connection = client(&server).connect().await.unwrap();
        let called = Arc::new(Notify::new());
        let calling = called.clone();
        let message = Message::from(hello_to(&["a@example.com"])).on_handover(move |_| {
            calling.notify_one();
            std::future::pending::<io::Result<()>>()
        });
        tokio::select! {
            _ = connection.send(message) => unreachable!(),
            () = called.notified() => {}
        }
        let next = connection.send(hello_to(&["a@example.com"])).await;
        assert_eq!(next.unwrap_err().kind(), ErrorKind::Closed);
        drop(connection);
        while server.connections()[0].is_open {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.messages().len(), 0, "{framing}");
    }
}

#[tokio::test]
async fn each_transaction_and_each_attempt_has_a_handover() {
    let server = Server::builder()
        .plaintext()
        .offer("LIMITS RCPTMAX=2")
        .fault(Fault::reply(Step::Message, "451 4.3.0 Later").times(1));
    let server = server.start().await.unwrap();
    let mut policy = RetryPolicy::new(1);
    policy.initial_backoff = Duration::from_millis(1);
    let client = client(&server).retries(policy);
    let calls = Calls::default();
    let message = hello_to(&["a@example.com", "b@example.com", "c@example.com"]);
    let receipt = client.send(calls.of(message)).await.unwrap();
    assert!(receipt.all_accepted() && receipt.transactions == 3);
    assert_eq!(
        calls.recipients(),
        [
            &["a@example.com", "b@example.com"][..],
            &["c@example.com"],
            &["a@example.com", "b@example.com"],
        ]
    );
    assert_eq!(calls.numbers(), [1, 2, 3]);
}

#[tokio::test]
async fn lmtp_reports_each_recipient_after_the_handover() {
    for chunking in [true, false] {
        let mut server = Server::builder()
            .plaintext()
            .lmtp()
            .refuse_message("b@example.com", "552 5.2.2 Full");
        if chunking {
            server = server.offer("CHUNKING");
        }
        let server = server.start().await.unwrap();
        let calls = Calls::default();
        let message = hello_to(&["a@example.com", "b@example.com"]);
        let receipt = client(&server).send(calls.of(message)).await.unwrap();
        assert_eq!(calls.recipients(), [["a@example.com", "b@example.com"]]);
        assert_eq!(receipt.not_accepted().count(), 1);
    }
}

#[tokio::test]
async fn callbacks_of_a_window_run_concurrently_and_messages_leave_in_order() {
    let server = Server::builder().plaintext().offer("CHUNKING");
    let server = server.start().await.unwrap();
    let mut connection = client(&server).connect().await.unwrap();
    // The callback of the first message waits for that of the last one.
    let last = Arc::new(Notify::new());
    let messages = (0..5).map(|index| {
        let last = last.clone();
        let to = format!("{index}@example.com");
        Message::from(hello_to(&[&to])).on_handover(move |_| {
            let last = last.clone();
            async move {
                match index {
                    0 => last.notified().await,
                    4 => last.notify_one(),
                    _ => {}
                }
                Ok::<_, io::Error>(())
            }
        })
    });
    let outcomes = connection.send_all(stream::iter(messages));
    let receipts: Vec<_> = outcomes.map(Result::unwrap).collect().await;
    assert!(receipts.len() == 5 && receipts.iter().all(|receipt| receipt.handed_over));
    let recipients: Vec<_> = server
        .messages()
        .into_iter()
        .map(|m| m.recipients)
        .collect();
    let expected: Vec<_> = (0..5).map(|i| vec![format!("{i}@example.com")]).collect();
    assert_eq!(recipients, expected);
}

/// `+`: handed over, `-`: withdrawn, ` `: without a callback.
#[tokio::test]
async fn a_withdrawn_message_does_not_stop_the_others_of_a_window() {
    for pattern in ["+-- +-- ", "-+-+-+-+", "--------", "- - -+- "] {
        for (framing, server) in servers() {
            let server = server.start().await.unwrap();
            let mut connection = client(&server).connect().await.unwrap();
            let calls = Calls::default();
            let to = |index: usize| format!("{index}@example.com");
            let messages = pattern.chars().enumerate().map(|(index, kind)| {
                let mail: MessageBuilder<'static> = hello_to(&[&to(index)]);
                match kind {
                    '+' => calls.of(mail),
                    '-' => refused(mail),
                    _ => mail.into(),
                }
            });
            let outcomes = connection.send_all(stream::iter(messages));
            let kinds = outcomes.map(|outcome| outcome.err().map(|error| error.kind()));
            let limit = Duration::from_secs(60);
            let kinds: Vec<_> = timeout(limit, kinds.collect()).await.unwrap();
            let mut expected: Vec<_> = pattern
                .chars()
                .map(|kind| (kind == '-').then_some(ErrorKind::Handover))
                .collect();
            let mut kept: Vec<_> = (0..8).filter(|index| expected[*index].is_none()).collect();
            if framing == "DATA" {
                // The connection is dropped, and nothing more is taken from the stream.
                let first = pattern.find('-').unwrap();
                kept.truncate(first);
                expected.truncate(first + 1);
            }
            assert_eq!(kinds[..expected.len()], expected, "{framing}, {pattern}");
            let messages = server.messages();
            let sent: Vec<_> = messages.iter().map(|m| m.recipients[0].clone()).collect();
            let kept: Vec<_> = kept.into_iter().map(to).collect();
            assert_eq!(sent, kept, "{framing}, {pattern}");
        }
    }
}

/// A message whose callback has returned an error was not sent, whatever becomes of its session
/// afterwards: its callback is not called again.
#[tokio::test]
async fn a_refused_message_is_not_retried_where_its_session_ends() {
    let faults = [
        // The first message is in doubt, and its reply is missing.
        ("in doubt", Fault::close(Step::Accepted)),
        // The first message goes over another connection.
        ("421", Fault::reply(Step::Message, "421 4.3.2 Going down")),
        ("reset", Fault::reset(Step::Message)),
    ];
    for (name, fault) in faults {
        let fault = fault.matching("0@").times(1);
        let server = Server::builder().plaintext().offer("CHUNKING").fault(fault);
        let server = server.start().await.unwrap();
        let pool = client(&server).pool(2);
        let refused = Arc::new(Notify::new());
        let calls: Arc<Mutex<Vec<(usize, u32)>>> = Arc::default();
        let messages = (0..4).map(|index| {
            let (refused, calls) = (refused.clone(), calls.clone());
            let to = format!("{index}@example.com");
            Message::from(hello_to(&[&to])).on_handover(move |handover| {
                calls.lock().unwrap().push((index, handover.number));
                let refused = refused.clone();
                async move {
                    match index {
                        // After the others have refused theirs.
                        0 if handover.number == 1 => refused.notified().await,
                        3 => refused.notify_one(),
                        _ => {}
                    }
                    match index {
                        0 => Ok(()),
                        _ => Err(io::Error::other("the disk is full")),
                    }
                }
            })
        });
        let outcomes = pool.send_all(stream::iter(messages));
        let limit = Duration::from_secs(60);
        let outcomes: Vec<_> = timeout(limit, outcomes.collect()).await.unwrap();
        let errors = outcomes[1..]
            .iter()
            .map(|outcome| outcome.as_ref().unwrap_err());
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Handover, "{name}: {error}");
            let recipient = &error.receipt().unwrap().recipients[0];
            assert_eq!(recipient.outcome, Outcome::NotTried, "{name}");
            assert!(!recipient.is_transient(), "{name}");
        }
        let calls = calls.lock().unwrap();
        let others = calls.iter().filter(|(index, _)| *index != 0);
        let others: Vec<_> = others.copied().collect();
        assert_eq!(others, [(1, 1), (2, 1), (3, 1)], "{name}");
    }
}

/// An error in one transaction of a message ends it: the others are not asked for, and those that
/// the server has refused for now are not retried.
#[tokio::test]
async fn a_refused_message_has_no_further_transaction() {
    // The first transaction has a recipient that may be accepted later.
    for (first_is_refused, calls, accepted) in [(true, 1, 0), (false, 2, 1)] {
        for (framing, server) in servers() {
            let server = server
                .offer("LIMITS RCPTMAX=2")
                .fault(Fault::reply(Step::Rcpt, "450 4.2.1 Busy").matching("b@"));
            let server = server.start().await.unwrap();
            let mut policy = RetryPolicy::new(3);
            policy.initial_backoff = Duration::from_millis(1);
            let client = client(&server).retries(policy);
            let recording = Calls::default();
            let calling = recording.clone();
            let message = Message::from(hello_to(&["a@x.org", "b@x.org", "c@x.org"]));
            let message = message.on_handover(move |handover| {
                let is_refused = first_is_refused || handover.number == 2;
                calling.0.lock().unwrap().push(handover);
                async move {
                    match is_refused {
                        true => Err(io::Error::other("the disk is full")),
                        false => Ok(()),
                    }
                }
            });
            let result = client.send(message).await;
            assert_eq!(recording.all().len(), calls, "{framing}");
            assert_eq!(server.messages().len(), accepted, "{framing}");
            let receipt = match &result {
                Ok(receipt) => receipt,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Handover, "{framing}: {error}");
                    error.receipt().unwrap()
                }
            };
            assert_eq!(result.is_ok(), accepted > 0, "{framing}");
            let others = receipt.not_accepted().count();
            assert_eq!(others, 3 - accepted, "{framing}");
            let last = &receipt.recipients[2];
            assert!(last.outcome == Outcome::NotTried && !last.is_transient());
            if accepted > 0 {
                let reason = receipt.incomplete_reason.as_deref().unwrap();
                assert!(reason.contains("the disk is full"), "{reason}");
            }
        }
    }
}

#[tokio::test]
async fn a_pool_stays_usable_after_a_refused_handover() {
    for (framing, server) in servers() {
        let server = server.start().await.unwrap();
        let pool = client(&server).pool(1);
        for _ in 0..3 {
            let message = hello_to(&["a@example.com"]);
            let error = pool.send(refused(message.clone())).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Handover, "{framing}: {error}");
            assert!(
                pool.send(message).await.unwrap().all_accepted(),
                "{framing}"
            );
        }
        assert_eq!(server.messages().len(), 3, "{framing}");
        // After DATA, the session cannot go on.
        let sessions = if framing == "DATA" { 4 } else { 1 };
        assert_eq!(server.connections().len(), sessions, "{framing}");
    }
}

/// A panic of the callback is that of the call, and the message is not sent.
#[tokio::test]
async fn a_panic_in_the_callback_ends_the_session() {
    for (framing, server) in servers() {
        let server = server.start().await.unwrap();
        let panicking = || {
            Message::from(hello_to(&["a@example.com"]))
                .on_handover(|_| async { panic!("in the callback") as io::Result<()> })
        };
        let mut connection = client(&server).connect().await.unwrap();
        let sending = AssertUnwindSafe(connection.send(panicking())).catch_unwind();
        assert!(sending.await.is_err(), "{framing}");
        let next = connection.send(hello_to(&["a@example.com"])).await;
        assert_eq!(next.unwrap_err().kind(), ErrorKind::Closed, "{framing}");
        let pool = client(&server).pool(1);
        let sending = AssertUnwindSafe(pool.send(panicking())).catch_unwind();
        assert!(sending.await.is_err(), "{framing}");
        let next = pool.send(hello_to(&["b@example.com"])).await;
        assert!(next.unwrap().all_accepted(), "{framing}");
        assert_eq!(server.messages().len(), 1, "{framing}");
    }
}
