//! Cancellation of what connects by itself, over the loopback interface, where the system decides
//! what a poll finds: a client that sends, a connection through TLS, the source of a token, the
//! wait before the next attempt. Each future is dropped after its first poll, its second … No task
//! is left, nothing is stored in part or twice, and nothing goes on in the background.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use envoi::proto::Mechanism;
use envoi::tls::Security;
use envoi::{Client, Connection, Endpoint, RetryPolicy, TokenRequest};
use tokio::io::duplex;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use crate::cancel::polled;
use crate::server::{ServerBehavior, ServerState, text_message};

const YOU: &[&str] = &["you@example.com"];

/// A server on a TCP socket, and the number of its clients so far.
pub struct TcpServer {
    pub endpoint: Endpoint,
    pub state: ServerState,
    pub clients: Arc<AtomicUsize>,
    tasks: usize,
}

impl TcpServer {
    /// Starts a server whose sessions with the first clients end at this step.
    pub async fn open(behavior: ServerBehavior, dying: usize, killed_at: usize) -> TcpServer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, clients) = (ServerState::default(), Arc::new(AtomicUsize::new(0)));
        tokio::spawn({
            let (state, clients) = (state.clone(), clients.clone());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let dies = clients.fetch_add(1, Ordering::Relaxed) < dying;
                    let killed_at = if dies {
                        state.records().steps + killed_at
                    } else {
                        usize::MAX
                    };
                    let state = state.clone();
                    stream.set_nodelay(true).unwrap();
                    tokio::spawn(async move { state.serve(stream, behavior, killed_at).await });
                }
            }
        });
        let endpoint = behavior.endpoint().port(port).auth_in_clear(true);
        TcpServer {
            endpoint,
            state,
            clients,
            tasks: Handle::current().metrics().num_alive_tasks(),
        }
    }

    /// The server's sessions end when the client's are gone, and then there is no task but the
    /// listener.
    async fn assert_nothing_left(&self, context: &str) {
        let settled = async {
            while Handle::current().metrics().num_alive_tasks() > self.tasks {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), settled)
            .await
            .unwrap_or_else(|_| panic!("{context}: a task is left"));
        let records = self.state.records();
        assert!(
            records.broken.is_empty(),
            "{context}: a part of a message was stored"
        );
        assert!(
            records.stored.values().all(|times| *times == 1),
            "{context}: {:?}",
            records.stored
        );
    }
}

fn behavior() -> [ServerBehavior; 4] {
    let line = ServerBehavior {
        pipelining: true,
        ..ServerBehavior::default()
    };
    [
        line,
        ServerBehavior {
            chunking: true,
            tls: Some(Security::Implicit),
            ..line
        },
        ServerBehavior {
            tls: Some(Security::Required),
            ..line
        },
        ServerBehavior { lmtp: true, ..line },
    ]
}

#[tokio::test]
async fn client_connect_can_be_cancelled_after_each_poll() {
    for behavior in behavior() {
        let tcp_server = TcpServer::open(behavior, 0, 0).await;
        let endpoint = tcp_server
            .endpoint
            .clone()
            .user("alice")
            .password("correct horse");
        for polls in 1.. {
            let context = format!("{behavior:?}, {polls} polls");
            let connected = polled(Connection::connect(&endpoint), polls).await;
            let done = connected
                .map(|connection| drop(connection.unwrap()))
                .is_some();
            tcp_server.assert_nothing_left(&context).await;
            if done {
                assert!(polls > 3, "{context}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn client_send_can_be_cancelled_after_each_poll() {
    for behavior in behavior() {
        let tcp_server = TcpServer::open(behavior, 0, 0).await;
        let client = Client::new(tcp_server.endpoint.clone());
        for polls in 1.. {
            let context = format!("{behavior:?}, {polls} polls");
            let outcome = polled(client.send(text_message(polls, YOU, 100)), polls).await;
            tcp_server.assert_nothing_left(&context).await;
            if let Some(outcome) = outcome {
                assert!(polls > 5 && outcome.is_ok(), "{context}");
                tcp_server.state.audit(polls, &outcome, &context);
                break;
            }
        }
    }
}

#[tokio::test]
async fn client_send_all_can_be_cancelled_after_each_poll() {
    use futures::StreamExt as _;
    for behavior in behavior() {
        let tcp_server = TcpServer::open(behavior, 0, 0).await;
        for polls in 1.. {
            let context = format!("{behavior:?}, {polls} polls");
            let mut told = Vec::new();
            let sending = async {
                let mut connection = Client::new(tcp_server.endpoint.clone())
                    .connect()
                    .await
                    .unwrap();
                let messages =
                    futures::stream::iter(0..3).map(|n| text_message(3 * polls + n, YOU, 50));
                let mut outcomes = std::pin::pin!(connection.send_all(messages));
                while let Some(outcome) = outcomes.next().await {
                    told.push(outcome);
                }
            };
            let ended = polled(sending, polls).await.is_some();
            tcp_server.assert_nothing_left(&context).await;
            for (n, outcome) in told.iter().enumerate() {
                tcp_server.state.audit(3 * polls + n, outcome, &context);
            }
            if ended {
                assert_eq!(told.len(), 3, "{context}");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_delay_can_be_cancelled_after_each_poll() {
    // Two attempts end at MAIL, the third one would not. What was dropped makes none, however long
    // one waits.
    let behavior = ServerBehavior::default();
    let mut most = 0;
    for polls in 1.. {
        let context = format!("{polls} polls");
        let tcp_server = TcpServer::open(behavior, 2, 8).await;
        let client = Client::new(tcp_server.endpoint.clone()).retries(RetryPolicy::new(2));
        let outcome = polled(client.send(text_message(0, YOU, 100)), polls).await;
        // A client that has just come is let in; the next attempt would be later.
        sleep(Duration::from_millis(100)).await;
        tcp_server.assert_nothing_left(&context).await;
        let attempts = tcp_server.clients.load(Ordering::Relaxed);
        sleep(Duration::from_secs(60 * 60)).await;
        assert_eq!(
            tcp_server.clients.load(Ordering::Relaxed),
            attempts,
            "{context}"
        );
        if let Some(outcome) = outcome {
            assert!(attempts == 3 && most == 3, "{context}: {attempts}");
            tcp_server.state.audit(0, &outcome, &context);
            assert!(outcome.is_ok(), "{context}: {outcome:?}");
            break;
        }
        most = most.max(attempts);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_source_can_be_cancelled_after_each_poll() {
    // What it holds is let go with the login; and it is not asked again behind one's back.
    let (held, asked) = (Arc::new(()), Arc::new(AtomicUsize::new(0)));
    let source = {
        let (held, asked) = (held.clone(), asked.clone());
        move |request| {
            let (holds, asked) = (held.clone(), asked.clone());
            async move {
                assert_eq!(request, TokenRequest::Current);
                asked.fetch_add(1, Ordering::Relaxed);
                for _ in 0..3 {
                    sleep(Duration::from_secs(1)).await;
                }
                drop(holds);
                Ok::<_, std::io::Error>("token")
            }
        }
    };
    let behavior = ServerBehavior::default();
    let endpoint = behavior
        .endpoint()
        .auth_in_clear(true)
        .user("alice")
        .mechanism(Mechanism::XOAuth2)
        .token_source(source);
    let holders = Arc::strong_count(&held);
    for polls in 1.. {
        let context = format!("{polls} polls");
        let (client, server) = duplex(64);
        let state = ServerState::default();
        let serving = tokio::spawn(async move { state.serve(server, behavior, usize::MAX).await });
        let before = asked.load(Ordering::Relaxed);
        let connected = polled(Connection::from_stream(client, &endpoint), polls).await;
        assert_eq!(
            Arc::strong_count(&held),
            holders,
            "{context}: the source holds on to something"
        );
        let done = connected
            .map(|connection| drop(connection.unwrap()))
            .is_some();
        assert!(serving.await.unwrap().is_err(), "{context}");
        assert_eq!(
            Handle::current().metrics().num_alive_tasks(),
            0,
            "{context}: a task is left"
        );
        assert!(asked.load(Ordering::Relaxed) <= before + 1, "{context}");
        if done {
            assert!(polls > 5, "{context}");
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn probe_can_be_cancelled_after_each_poll() {
    // The probe connects more than once.
    let server = envoi::testing::Server::builder()
        .starttls()
        .start()
        .await
        .unwrap();
    let endpoint = Endpoint::from_url(&server.url()).unwrap();
    let before = Handle::current().metrics().num_alive_tasks();
    for polls in [1, 2, 3, 5, 8, 13] {
        let _looked = polled(envoi::probe(&endpoint), polls).await;
    }
    timeout(Duration::from_secs(10), async {
        while Handle::current().metrics().num_alive_tasks() > before {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("tasks are left");
}
