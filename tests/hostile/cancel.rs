//! Cancellation: each future is dropped after its first poll, its second, its third … until it
//! comes to its end. The connection refuses further use then, nothing is stored in part, and no
//! task is left. A caller that panics does not send half a message.

use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use envoi::proto::Protocol;
use envoi::tls::Security;
use envoi::{
    Address, Attachment, Connection, Credentials, Endpoint, Envelope, Error, Message, Result,
};
use futures::stream;
use futures::{FutureExt as _, StreamExt as _};
use tokio::io::{AsyncRead, DuplexStream, ReadBuf, duplex};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::server::{ServerBehavior, ServerState, address, envelope, text_message};

/// What the future comes to, if it does within so many polls; else it is dropped.
pub async fn polled<F: Future>(future: F, mut polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        polls -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

const LINE: ServerBehavior = ServerBehavior {
    pipelining: true,
    chunking: false,
    lmtp: false,
    binary: false,
    prdr: false,
    dsn: false,
    tls: None,
};

/// A wire on which little fits, so that there is much to wait for.
fn wire(
    behavior: ServerBehavior,
    narrow: bool,
) -> (DuplexStream, ServerState, JoinHandle<io::Result<()>>) {
    let (client, server) = duplex(if narrow { 7 } else { 64 * 1024 });
    let state = ServerState::default();
    let serving = tokio::spawn({
        let state = state.clone();
        async move { state.serve(server, behavior, usize::MAX).await }
    });
    (client, state, serving)
}

fn endpoint() -> Endpoint {
    LINE.endpoint()
}

/// The connection was given up in the middle, and says so; nothing of it goes on.
async fn assert_given_up(
    mut connection: Connection,
    serving: JoinHandle<io::Result<()>>,
    context: &str,
) {
    let outcomes: [Result<(), Error>; 4] = [
        connection
            .send(text_message(9, &["late@example.com"], 10))
            .await
            .map(|_| ()),
        connection.noop().await.map(|_| ()),
        connection
            .mail(address("late@example.org"))
            .await
            .map(|_| ()),
        connection.reset().await.map(|_| ()),
    ];
    for outcome in outcomes {
        let error = outcome
            .err()
            .unwrap_or_else(|| panic!("{context}: it goes on"));
        assert!(error.to_string().contains("given up"), "{context}: {error}");
    }
    let messages = stream::iter([text_message(9, &["late@example.com"], 10)]);
    let outcomes: Vec<_> = connection.send_all(messages).collect().await;
    let [Err(error)] = &outcomes[..] else {
        panic!("{context}: {outcomes:?}");
    };
    assert!(error.to_string().contains("given up"), "{context}: {error}");
    connection.quit().await;
    assert_nothing_left(serving, context).await;
}

async fn assert_nothing_left(serving: JoinHandle<io::Result<()>>, context: &str) {
    // The client's end is gone.
    assert!(serving.await.unwrap().is_err(), "{context}: it said QUIT");
    assert_eq!(
        Handle::current().metrics().num_alive_tasks(),
        0,
        "{context}: a task is left"
    );
}

#[tokio::test(start_paused = true)]
async fn connect_can_be_cancelled_after_each_poll() {
    for behavior in [
        LINE,
        ServerBehavior {
            tls: Some(Security::Required),
            ..LINE
        },
        ServerBehavior {
            tls: Some(Security::Implicit),
            ..LINE
        },
    ] {
        let endpoint = behavior.endpoint();
        // The store is read once.
        let (client, _, _) = wire(behavior, false);
        drop(Connection::from_stream(client, &endpoint).await.unwrap());
        for polls in 1.. {
            let (client, state, serving) = wire(behavior, behavior.tls.is_none());
            let connected = polled(Connection::from_stream(client, &endpoint), polls).await;
            let done = connected
                .map(|connection| drop(connection.unwrap()))
                .is_some();
            assert_nothing_left(serving, &format!("{behavior:?}, {polls} polls")).await;
            assert!(state.records().stored.is_empty());
            if done {
                assert!(polls > 3);
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn send_can_be_cancelled_after_each_poll() {
    for behavior in [
        LINE,
        ServerBehavior {
            pipelining: false,
            ..LINE
        },
        ServerBehavior {
            chunking: true,
            ..LINE
        },
        ServerBehavior { lmtp: true, ..LINE },
    ] {
        let endpoint = behavior.endpoint();
        for polls in 1.. {
            let context = format!("{behavior:?}, {polls} polls");
            let (client, state, serving) = wire(behavior, true);
            let mut connection = Connection::from_stream(client, &endpoint).await.unwrap();
            let outcome = polled(
                connection.send(text_message(0, &["you@example.com"], 100)),
                polls,
            )
            .await;
            if let Some(outcome) = outcome {
                assert!(polls > 10);
                state.audit(0, &outcome, &context);
                assert!(
                    connection
                        .send(text_message(1, &["you@example.com"], 100))
                        .await
                        .is_ok(),
                    "{context}"
                );
                break;
            }
            assert_given_up(connection, serving, &context).await;
            let records = state.records();
            assert!(
                records.broken.is_empty(),
                "{context}: a part of a message was stored"
            );
            assert!(
                records.stored.values().all(|&times| times == 1) && records.stored.len() <= 1,
                "{context}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn send_all_can_be_cancelled_after_each_poll() {
    for behavior in [
        LINE,
        ServerBehavior {
            chunking: true,
            ..LINE
        },
    ] {
        for polls in 1.. {
            let context = format!("{behavior:?}, {polls} polls");
            let (client, state, serving) = wire(behavior, true);
            let mut connection = Connection::from_stream(client, &behavior.endpoint())
                .await
                .unwrap();
            let mut told = Vec::new();
            let sending = async {
                let messages =
                    stream::iter(0..4).map(|n| text_message(n, &["you@example.com"], 50));
                let mut outcomes = pin!(connection.send_all(messages));
                while let Some(outcome) = outcomes.next().await {
                    told.push(outcome);
                }
            };
            let ended = polled(sending, polls).await.is_some();
            for (id, outcome) in told.iter().enumerate() {
                state.audit(id, outcome, &context);
            }
            if ended {
                assert_eq!(told.len(), 4);
                break;
            }
            if told.is_empty() && connection.noop().await.is_ok() {
                // No message was in flight yet, and the connection can be used.
                assert!(state.records().envelopes.is_empty(), "{context}");
                let outcome = connection
                    .send(text_message(9, &["you@example.com"], 50))
                    .await;
                assert!(outcome.is_ok(), "{context}");
                state.audit(9, &outcome, &context);
                continue;
            }
            assert_given_up(connection, serving, &context).await;
            assert!(state.records().broken.is_empty(), "{context}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn single_steps_can_be_cancelled_after_each_poll() {
    type Done<'c> = Pin<Box<dyn Future<Output = Result<()>> + 'c>>;
    type Step = for<'c> fn(&'c mut Connection) -> Done<'c>;
    let steps: [(&str, usize, Step); 7] = [
        ("AUTH", 0, |connection| {
            Box::pin(async {
                let credentials = Credentials::new("alice", "correct horse");
                connection.login(None, &credentials).await.map(|_| ())
            })
        }),
        ("NOOP", 0, |connection| {
            connection.noop().map(|done| done.map(|_| ())).boxed_local()
        }),
        ("RSET", 1, |connection| {
            connection
                .reset()
                .map(|done| done.map(|_| ()))
                .boxed_local()
        }),
        ("MAIL", 0, |connection| {
            connection
                .mail(address("me@example.org"))
                .map(|done| done.map(|_| ()))
                .boxed_local()
        }),
        ("RCPT", 1, |connection| {
            connection
                .rcpt(address("you@example.com"))
                .map(|done| done.map(|_| ()))
                .boxed_local()
        }),
        ("DATA", 2, |connection| {
            Box::pin(async {
                let mut writer = connection.data().await?;
                for piece in ["X-Id: 0\r\n", "\r\n", ".\r\nend\r\n"] {
                    writer.write(piece).await?;
                }
                writer.finish().await.map(|_| ())
            })
        }),
        ("VRFY", 0, |connection| {
            connection
                .command("VRFY you")
                .map(|done| done.map(|_| ()))
                .boxed_local()
        }),
    ];
    for (name, before, step) in steps {
        for polls in 1.. {
            let context = format!("{name}, {polls} polls");
            let (client, state, serving) = wire(LINE, true);
            let mut connection = Connection::from_stream(client, &endpoint().auth_in_clear(true))
                .await
                .unwrap();
            if before > 0 {
                connection.mail(address("me@example.org")).await.unwrap();
            }
            if before > 1 {
                connection.rcpt(address("you@example.com")).await.unwrap();
            }
            if polled(step(&mut connection), polls).await.is_some() {
                assert!(polls > 2, "{context}");
                connection.noop().await.unwrap();
                break;
            }
            assert_given_up(connection, serving, &context).await;
            assert!(state.records().broken.is_empty(), "{context}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_can_be_dropped_after_each_piece() {
    for pieces in 0..3 {
        let (client, state, serving) = wire(LINE, false);
        let mut connection = Connection::from_stream(client, &endpoint()).await.unwrap();
        connection.mail(address("me@example.org")).await.unwrap();
        connection.rcpt(address("you@example.com")).await.unwrap();
        let mut writer = connection.data().await.unwrap();
        for piece in ["X-Id: 0\r\n\r\n", "end\r\n"].iter().take(pieces) {
            writer.write(*piece).await.unwrap();
        }
        drop(writer);
        assert_given_up(connection, serving, &format!("{pieces} pieces")).await;
        assert!(state.records().stored.is_empty() && state.records().broken.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn quit_can_be_cancelled_after_each_poll() {
    for polls in 1.. {
        let (client, _office, serving) = wire(LINE, true);
        let connection = Connection::from_stream(client, &endpoint()).await.unwrap();
        let done = polled(connection.quit(), polls).await.is_some();
        let _served = serving.await.unwrap();
        assert_eq!(
            Handle::current().metrics().num_alive_tasks(),
            0,
            "{polls} polls"
        );
        if done {
            assert!(polls > 2);
            return;
        }
    }
}

/// A caller's stream that panics when it was read so often.
struct Bomb(usize);

impl AsyncRead for Bomb {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0 = self.0.checked_sub(1).expect("the bomb goes off");
        let piece = b"X-Id: 0\r\n\r\nend\r\n";
        buffer.put_slice(&piece[..piece.len().min(buffer.remaining())]);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_callers_stream_does_not_end_the_message() {
    let built = || {
        envoi::mail_builder::MessageBuilder::new()
            .from("me@example.org")
            .to("you@example.com")
            .text_body("X")
    };
    type Make = fn(usize) -> Message<'static>;
    let messages: [(&str, Make); 2] = [
        ("a ready message", |reads| {
            Message::raw_stream(Bomb(reads)).envelope(envelope(&["you@example.com"]))
        }),
        ("an attachment", |reads| {
            let built = envoi::mail_builder::MessageBuilder::new()
                .from("me@example.org")
                .to("you@example.com")
                .header("X-Id", envoi::mail_builder::headers::raw::Raw::new("0"))
                .text_body("end");
            Message::from(built).attach(Attachment::reader("a.txt", "text/plain", Bomb(reads)))
        }),
    ];
    for (what, message) in messages {
        for reads in [0, 1, 10_000] {
            let (client, state, serving) = wire(LINE, false);
            let mut connection = Connection::from_stream(client, &endpoint()).await.unwrap();
            let outcome = AssertUnwindSafe(connection.send(message(reads)))
                .catch_unwind()
                .await;
            assert!(
                outcome.is_err(),
                "{what}, after {reads} reads: the panic is the caller's to see"
            );
            if reads == 0 && what == "a ready message" {
                // Its headers are read before anything is said to the server.
                assert!(connection.verify().await.is_ok() && state.records().asked_for == 0);
                continue;
            }
            assert_given_up(connection, serving, what).await;
            assert!(
                state.records().stored.is_empty() && state.records().broken.is_empty(),
                "{what}"
            );
        }
    }
    // In the caller's stream of messages, between two of them: nothing was going on.
    let (client, state, _serving) = wire(LINE, false);
    let mut connection = Connection::from_stream(client, &endpoint()).await.unwrap();
    let bomb = stream::iter(0..2).map(|n| {
        if n == 0 {
            text_message(0, &["you@example.com"], 10)
        } else {
            panic!("again")
        }
    });
    let sending = async {
        let outcomes: Vec<_> = connection.send_all(bomb).collect().await;
        outcomes
    };
    assert!(AssertUnwindSafe(sending).catch_unwind().await.is_err());
    let _ = connection.send(built()).await;
    assert!(
        state.records().broken.len() <= 1,
        "what was sent afterwards is whole: it has no number"
    );
    assert!(state.records().stored.len() <= 1);
}

/// A caller's stream that fails when it was read so often.
struct Dud(usize);

impl AsyncRead for Dud {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(left) = self.0.checked_sub(1) else {
            return Poll::Ready(Err(io::ErrorKind::Other.into()));
        };
        self.0 = left;
        buffer.put_slice(b"A: b\r\n\r\nBcc: c\r\n");
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_failed_body_never_reports_its_end() {
    // Asked again, the body of a message gives an error, and never its end: who drives the machine
    // himself might take it for one.
    let built = || {
        envoi::mail_builder::MessageBuilder::new()
            .from("me@example.org")
            .to("you@example.com")
            .text_body("X")
    };
    let attached = |reader: Box<dyn AsyncRead + Send + Unpin>| {
        Message::from(built()).attach(Attachment::reader("a.txt", "text/plain", reader))
    };
    let ready = |reader: Box<dyn AsyncRead + Send + Unpin>| {
        Message::raw_stream(reader).envelope(envelope(&["you@example.com"]))
    };
    for reads in [0, 1, 2, 10_000] {
        let bombs = [
            ready(Box::new(Bomb(reads))),
            attached(Box::new(Bomb(reads))),
        ];
        let duds = [ready(Box::new(Dud(reads))), attached(Box::new(Dud(reads)))];
        for (at, message) in bombs.into_iter().chain(duds).enumerate() {
            // The headers of a ready message are read first of all.
            let prepared = AssertUnwindSafe(message.prepare()).catch_unwind().await;
            if reads == 0 && at % 2 == 0 {
                assert!(!matches!(prepared, Ok(Ok(_))));
                continue;
            }
            let mut body = prepared
                .expect("it does not panic before it is read")
                .unwrap()
                .into_body();
            // The panic, or the error.
            while matches!(
                AssertUnwindSafe(body.chunk()).catch_unwind().await,
                Ok(Some(Ok(_)))
            ) {}
            for _ in 0..3 {
                let chunk = AssertUnwindSafe(body.chunk())
                    .catch_unwind()
                    .await
                    .expect("it does not panic again");
                assert!(
                    chunk.is_some_and(|chunk| chunk.is_err()),
                    "after {reads} reads"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_recipient_callback_leaves_the_connection_unusable() {
    let behavior = ServerBehavior { lmtp: true, ..LINE };
    let (client, state, serving) = wire(behavior, false);
    let endpoint = behavior.endpoint();
    assert_eq!(endpoint.protocol(), Protocol::Lmtp);
    let mut connection = Connection::from_stream(client, &endpoint).await.unwrap();
    let envelope: Envelope = envelope(&["a@example.com", "b@example.com"]);
    connection
        .mail(envelope.reverse_path().cloned())
        .await
        .unwrap();
    for recipient in envelope.recipients() {
        connection.rcpt(Address::clone(recipient)).await.unwrap();
    }
    let mut writer = connection.data().await.unwrap();
    writer.write("X-Id: 0\r\n\r\nend\r\n").await.unwrap();
    let finished = AssertUnwindSafe(writer.finish_each(|_, _| panic!("no")))
        .catch_unwind()
        .await;
    assert!(finished.is_err());
    // The second recipient's answer must not be taken for that to another command.
    assert_given_up(connection, serving, "finish_each").await;
    assert_eq!(state.records().stored.len(), 2);
}
