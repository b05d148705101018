//! A pool, and cancellation: whatever future is dropped, and after whichever poll, the pool still
//! hands out all of its connections, and none that was left in the middle of something is used
//! again. No message is stored in part, or twice; nor where the server dies.

use std::net::Ipv4Addr;
use std::time::Duration;

use envoi::tls::Security;
use envoi::{Client, ErrorKind, Phase, Pool, PoolConfig};
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::cancel::polled;
use crate::server::{ServerBehavior, ServerState, text_message};

const TO: &[&str] = &["you@example.com"];

/// A server with a session for each client, and a pool of two connections to it.
struct PooledServer {
    state: ServerState,
    pool: Pool,
    /// Letters so far: each has a number of its own.
    sent: usize,
}

impl PooledServer {
    async fn open(behavior: ServerBehavior) -> PooledServer {
        PooledServer::with_first_killed(behavior, usize::MAX).await
    }

    /// The first session ends at this step.
    async fn with_first_killed(behavior: ServerBehavior, mut killed_at: usize) -> PooledServer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = behavior
            .endpoint()
            .port(listener.local_addr().unwrap().port());
        let state = ServerState::default();
        tokio::spawn({
            let state = state.clone();
            async move {
                let mut sessions = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    // The server writes each reply in two halves.
                    stream.set_nodelay(true).unwrap();
                    let (state, killed_at) =
                        (state.clone(), std::mem::replace(&mut killed_at, usize::MAX));
                    sessions.spawn(async move { state.serve(stream, behavior, killed_at).await });
                }
            }
        });
        let mut limits = PoolConfig::new(2);
        limits.acquire_timeout = Duration::from_secs(10);
        PooledServer {
            state,
            pool: Client::new(endpoint).pool(limits),
            sent: 0,
        }
    }

    fn text_message(&mut self) -> (usize, envoi::Message<'static>) {
        self.sent += 1;
        (self.sent, text_message(self.sent, TO, 100))
    }

    /// Both connections are to be had at once, and work.
    async fn assert_whole(&mut self, context: &str) {
        let both = join_all([self.pool.get(), self.pool.get()]).await;
        for connection in both {
            let mut connection = connection.unwrap_or_else(|error| panic!("{context}: {error}"));
            let (id, message) = self.text_message();
            let outcome = connection.send(message).await;
            assert!(outcome.is_ok(), "{context}: {outcome:?}");
            self.state.audit(id, &outcome, context);
        }
        let records = self.state.records();
        assert!(
            records.broken.is_empty(),
            "{context}: a part of a message was stored"
        );
        assert!(
            records.stored.values().all(|&times| times == 1),
            "{context}: a message was stored twice"
        );
    }
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
const WAYS: &[ServerBehavior] = &[
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
    ServerBehavior {
        tls: Some(Security::Required),
        ..LINE
    },
];

#[tokio::test]
async fn pool_send_can_be_cancelled_after_each_poll() {
    for behavior in WAYS {
        for kept in [true, false] {
            let mut pooled = PooledServer::open(*behavior).await;
            for polls in 1.. {
                let context = format!("{behavior:?}, kept: {kept}, {polls} polls");
                if kept {
                    pooled.assert_whole(&context).await;
                } else {
                    pooled.pool = pooled.pool.client().pool(2);
                }
                let (id, message) = pooled.text_message();
                let outcome = polled(pooled.pool.send(message), polls).await;
                pooled.assert_whole(&context).await;
                if let Some(outcome) = outcome {
                    pooled.state.audit(id, &outcome, &context);
                    assert!(polls > 2 && outcome.is_ok());
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn waiting_for_a_connection_can_be_cancelled_after_each_poll() {
    let mut pooled = PooledServer::open(LINE).await;
    for (what, places_are_free) in [("in the queue", false), ("as its turn has come", true)] {
        let (one, other) = (
            pooled.pool.get().await.unwrap(),
            pooled.pool.get().await.unwrap(),
        );
        let (_, message) = pooled.text_message();
        let pool = pooled.pool.clone();
        let mut waiting = Box::pin(pool.send(message));
        assert!((&mut waiting).now_or_never().is_none());
        if places_are_free {
            drop((one, other));
            drop(waiting);
        } else {
            drop(waiting);
            drop((one, other));
        }
        pooled.assert_whole(what).await;
    }
}

#[tokio::test]
async fn calls_on_a_pooled_connection_can_be_cancelled_after_each_poll() {
    type Use = for<'p> fn(&'p Pool, usize) -> BoxFuture<'p, ()>;
    let uses: [(&str, Use); 3] = [
        ("a transaction", |pool, id| {
            Box::pin(async move {
                let mut connection = pool.get().await.unwrap();
                let envelope = crate::server::envelope(TO);
                connection
                    .mail(envelope.reverse_path().cloned())
                    .await
                    .unwrap();
                connection
                    .rcpt(envelope.recipients()[0].clone())
                    .await
                    .unwrap();
                let mut writer = connection.data().await.unwrap();
                writer.write(format!("X-Id: {id}\r\n\r\n")).await.unwrap();
                writer.write("end\r\n").await.unwrap();
                writer.finish().await.unwrap();
            })
        }),
        ("a stream of messages", |pool, id| {
            Box::pin(async move {
                use futures::StreamExt as _;
                let mut connection = pool.get().await.unwrap();
                let sent =
                    futures::stream::iter([id, id + 1_000_000]).map(|id| text_message(id, TO, 100));
                let receipts: Vec<_> = connection.send_all(sent).collect().await;
                assert!(receipts.iter().all(Result::is_ok));
            })
        }),
        ("RSET", |pool, _| {
            Box::pin(async move { drop(pool.get().await.unwrap().reset().await.unwrap()) })
        }),
    ];
    for (what, used) in uses {
        let mut pooled = PooledServer::open(LINE).await;
        for polls in 1.. {
            let context = format!("{what}, {polls} polls");
            let (id, _) = pooled.text_message();
            let done = polled(used(&pooled.pool, id), polls).await.is_some();
            pooled.assert_whole(&context).await;
            if done {
                assert!(polls > 2, "{context}");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_tasks_leave_the_pool_whole() {
    let mut pooled = PooledServer::open(LINE).await;
    for round in 0..50 {
        let context = format!("round {round}");
        let sending: Vec<_> = (0..10)
            .map(|_| {
                let (pool, (id, message)) = (pooled.pool.clone(), pooled.text_message());
                tokio::spawn(async move { (id, pool.send(message).await) })
            })
            .collect();
        for task in sending.iter().step_by(2) {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            task.abort();
        }
        for task in sending {
            if let Ok((id, outcome)) = task.await {
                assert!(outcome.is_ok(), "{context}: {outcome:?}");
                pooled.state.audit(id, &outcome, &context);
            }
        }
        pooled.assert_whole(&context).await;
    }
}

#[tokio::test]
async fn pool_close_can_be_cancelled_after_each_poll() {
    for polls in 1.. {
        let mut pooled = PooledServer::open(LINE).await;
        pooled.assert_whole("before").await;
        let closed = polled(pooled.pool.close(), polls).await.is_some();
        let error = pooled
            .pool
            .get()
            .await
            .expect_err("it is closed all the same");
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::PoolClosed, "the pool was closed")
        );
        if closed {
            break;
        }
    }
}

/// At most once (RFC 5321, 4.1.1.4): what goes again by itself, over a new connection, had not
/// begun on the old one. What had not begun does go again, wherever the old one ends.
#[tokio::test]
async fn a_pool_stores_at_most_once_wherever_the_server_dies() {
    for behavior in WAYS {
        for killed_at in 0.. {
            let context = format!("{behavior:?}, killed at step {killed_at}");
            let mut pooled = PooledServer::with_first_killed(*behavior, killed_at).await;
            let mut all_went = true;
            for number in 0..5 {
                // Each second one is refused, after which RSET is under way.
                let (id, mut message) = pooled.text_message();
                let is_refused = number % 2 == 1;
                if is_refused {
                    message = crate::server::text_message(id, &["nobody@example.com"], 100);
                }
                let outcome = pooled.pool.send(message).await;
                all_went &= outcome.is_ok() != is_refused;
                pooled.state.audit(id, &outcome, &context);
                if let Err(error) = outcome {
                    // On a kept connection it fails only after MAIL was accepted, or where it was
                    // handed over whole.
                    let phases = [Phase::Rcpt, Phase::Data, Phase::Body, Phase::EndOfData];
                    let had_begun = error.outcome_unknown() || phases.contains(&error.phase());
                    assert!(
                        number == 0 || had_begun,
                        "{context}, message {number}: {error}"
                    );
                }
            }
            if pooled.state.records().steps <= killed_at {
                assert!(all_went);
                break;
            }
            pooled.assert_whole(&context).await;
        }
    }
}
