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
use crate::server::{Office, ServerBehavior, letter};

const TO: &[&str] = &["you@example.com"];

/// An office with as many counters as clients come, and a pool of two connections to it.
struct Hall {
    office: Office,
    pool: Pool,
    /// Letters so far: each has a number of its own.
    letters: usize,
}

impl Hall {
    async fn open(manners: ServerBehavior) -> Hall {
        Hall::with_first_killed(manners, usize::MAX).await
    }

    /// The first counter dies at this step of the office.
    async fn with_first_killed(manners: ServerBehavior, mut killed_at: usize) -> Hall {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = manners
            .endpoint()
            .port(listener.local_addr().unwrap().port());
        let office = Office::default();
        tokio::spawn({
            let office = office.clone();
            async move {
                let mut counters = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    // The office says each reply in two halves.
                    stream.set_nodelay(true).unwrap();
                    let (office, killed_at) = (
                        office.clone(),
                        std::mem::replace(&mut killed_at, usize::MAX),
                    );
                    counters.spawn(async move { office.serve(stream, manners, killed_at).await });
                }
            }
        });
        let mut limits = PoolConfig::new(2);
        limits.acquire_timeout = Duration::from_secs(10);
        Hall {
            office,
            pool: Client::new(endpoint).pool(limits),
            letters: 0,
        }
    }

    fn letter(&mut self) -> (usize, envoi::Message<'static>) {
        self.letters += 1;
        (self.letters, letter(self.letters, TO, 100))
    }

    /// Both connections are to be had at once, and work.
    async fn assert_whole(&mut self, context: &str) {
        let both = join_all([self.pool.get(), self.pool.get()]).await;
        for connection in both {
            let mut connection = connection.unwrap_or_else(|error| panic!("{context}: {error}"));
            let (id, letter) = self.letter();
            let outcome = connection.send(letter).await;
            assert!(outcome.is_ok(), "{context}: {outcome:?}");
            self.office.audit(id, &outcome, context);
        }
        let books = self.office.books();
        assert!(
            books.broken.is_empty(),
            "{context}: a part of a message was stored"
        );
        assert!(
            books.stored.values().all(|&times| times == 1),
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
    for manners in WAYS {
        for kept in [true, false] {
            let mut hall = Hall::open(*manners).await;
            for polls in 1.. {
                let context = format!("{manners:?}, kept: {kept}, {polls} polls");
                if kept {
                    hall.assert_whole(&context).await;
                } else {
                    hall.pool = hall.pool.client().pool(2);
                }
                let (id, letter) = hall.letter();
                let outcome = polled(hall.pool.send(letter), polls).await;
                hall.assert_whole(&context).await;
                if let Some(outcome) = outcome {
                    hall.office.audit(id, &outcome, &context);
                    assert!(polls > 2 && outcome.is_ok());
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn waiting_for_a_connection_can_be_cancelled_after_each_poll() {
    let mut hall = Hall::open(LINE).await;
    for (what, places_are_free) in [("in the queue", false), ("as its turn has come", true)] {
        let (one, other) = (
            hall.pool.get().await.unwrap(),
            hall.pool.get().await.unwrap(),
        );
        let (_, letter) = hall.letter();
        let pool = hall.pool.clone();
        let mut waiting = Box::pin(pool.send(letter));
        assert!((&mut waiting).now_or_never().is_none());
        if places_are_free {
            drop((one, other));
            drop(waiting);
        } else {
            drop(waiting);
            drop((one, other));
        }
        hall.assert_whole(what).await;
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
                let letters =
                    futures::stream::iter([id, id + 1_000_000]).map(|id| letter(id, TO, 100));
                let receipts: Vec<_> = connection.send_all(letters).collect().await;
                assert!(receipts.iter().all(Result::is_ok));
            })
        }),
        ("RSET", |pool, _| {
            Box::pin(async move { drop(pool.get().await.unwrap().reset().await.unwrap()) })
        }),
    ];
    for (what, used) in uses {
        let mut hall = Hall::open(LINE).await;
        for polls in 1.. {
            let context = format!("{what}, {polls} polls");
            let (id, _) = hall.letter();
            let done = polled(used(&hall.pool, id), polls).await.is_some();
            hall.assert_whole(&context).await;
            if done {
                assert!(polls > 2, "{context}");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_tasks_leave_the_pool_whole() {
    let mut hall = Hall::open(LINE).await;
    for round in 0..50 {
        let context = format!("round {round}");
        let sending: Vec<_> = (0..10)
            .map(|_| {
                let (pool, (id, letter)) = (hall.pool.clone(), hall.letter());
                tokio::spawn(async move { (id, pool.send(letter).await) })
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
                hall.office.audit(id, &outcome, &context);
            }
        }
        hall.assert_whole(&context).await;
    }
}

#[tokio::test]
async fn pool_close_can_be_cancelled_after_each_poll() {
    for polls in 1.. {
        let mut hall = Hall::open(LINE).await;
        hall.assert_whole("before").await;
        let closed = polled(hall.pool.close(), polls).await.is_some();
        let error = hall
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
    for manners in WAYS {
        for killed_at in 0.. {
            let context = format!("{manners:?}, killed at step {killed_at}");
            let mut hall = Hall::with_first_killed(*manners, killed_at).await;
            let mut all_went = true;
            for number in 0..5 {
                // Each second one is refused, after which RSET is under way.
                let (id, mut letter) = hall.letter();
                let is_refused = number % 2 == 1;
                if is_refused {
                    letter = crate::server::letter(id, &["nobody@example.com"], 100);
                }
                let outcome = hall.pool.send(letter).await;
                all_went &= outcome.is_ok() != is_refused;
                hall.office.audit(id, &outcome, &context);
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
            if hall.office.books().steps <= killed_at {
                assert!(all_went);
                break;
            }
            hall.assert_whole(&context).await;
        }
    }
}
