//! What the guide `docs/interruptions.md` says: of calls that are dropped, runtimes that shut down,
//! and connections that are lost. `pool.rs` has the tests of a pool that is closed, `tests/cli`
//! those of a process that is killed, and `tests/hostile` drops each call after each of its polls.

use std::pin::pin;
use std::time::Duration;

use envoi::RetryPolicy;
use envoi::testing::{Fault, Server, Step};
use envoi::{Address, Client, Endpoint, Envelope, Error, ErrorKind, Message, Outcome, Phase, Pool};
use futures::FutureExt as _;
use support::hello;
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(10);

/// A server without extensions that save round trips: each command has an event of its own.
async fn server(fault: Fault) -> Server {
    let builder = Server::builder().plaintext().without("PIPELINING");
    builder.fault(fault).start().await.unwrap()
}

fn client(server: &Server) -> Client {
    Client::from_url(&server.url()).unwrap()
}

/// Waits for something that a task of the server does.
async fn until(mut happened: impl FnMut() -> bool) {
    let waiting = async {
        while !happened() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, waiting).await.expect("it does not happen");
}

fn has_command(server: &Server, command: &str) -> bool {
    let sessions = server.connections();
    let mut commands = sessions.iter().flat_map(|session| session.commands());
    commands.any(|line| line.starts_with(command))
}

fn all_ended(server: &Server) -> bool {
    server.connections().iter().all(|session| !session.is_open)
}

/// Where the server hangs, what it has heard by then, and the number of messages that it has kept.
/// A message is complete with its dot, which is not listed among the commands.
fn hanging() -> [(Step, &'static str, usize); 6] {
    [
        (Step::Hello, "EHLO", 0),
        (Step::Mail, "MAIL", 0),
        (Step::Rcpt, "RCPT", 0),
        (Step::Data, "DATA", 0),
        (Step::Body(0), "DATA", 0),
        (Step::Accepted, "DATA", 1),
    ]
}

#[tokio::test]
async fn a_dropped_call_sends_nothing_unless_the_message_was_complete() {
    for (step, command, kept) in hanging() {
        let server = server(Fault::hang(step)).await;
        let client = client(&server);
        {
            let mut sending = pin!(client.send(hello()));
            until(|| {
                assert!(sending.as_mut().now_or_never().is_none(), "{step}");
                has_command(&server, command) && server.messages().len() == kept
            })
            .await;
        }
        until(|| all_ended(&server)).await;
        assert_eq!(server.messages().len(), kept, "{step}");
        // No attempt is made in the background, and no QUIT.
        assert_eq!(server.connections().len(), 1, "{step}");
        assert!(!has_command(&server, "QUIT"), "{step}");
    }
}

#[tokio::test]
async fn a_dropped_call_gives_up_its_place_in_the_pool() {
    let server = server(Fault::hang(Step::Mail).times(1)).await;
    let pool = client(&server).pool(1);
    {
        let mut sending = pin!(pool.send(hello()));
        let mut waiting = pin!(pool.send(hello()));
        until(|| {
            assert!(sending.as_mut().now_or_never().is_none());
            assert!(waiting.as_mut().now_or_never().is_none());
            has_command(&server, "MAIL")
        })
        .await;
    }
    assert!(pool.send(hello()).await.unwrap().all_accepted());
    assert_eq!(
        (server.messages().len(), server.connections().len()),
        (1, 2)
    );
}

/// As in the handler of a web service whose client disconnects.
#[tokio::test]
async fn a_spawned_call_goes_on() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let pool = client(&server).pool(1);
    let handler = tokio::spawn({
        let pool = pool.clone();
        async move {
            let sending = tokio::spawn(async move { pool.send(hello()).await });
            sending.await.unwrap()
        }
    });
    until(|| has_command(&server, "EHLO")).await;
    handler.abort();
    // A pool that is closed waits for it.
    assert_eq!(pool.close().await, 0);
    assert_eq!(server.messages().len(), 1);
    assert!(handler.await.is_err_and(|error| error.is_cancelled()));
}

#[tokio::test]
async fn a_deadline_says_what_a_dropped_call_does_not() {
    for (step, is_unknown) in [(Step::Mail, false), (Step::Accepted, true)] {
        let server = server(Fault::hang(step)).await;
        let endpoint = Endpoint::from_url(&server.url()).unwrap();
        let client = Client::new(endpoint.deadline(Duration::from_millis(200)));
        let error = client.send(hello()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{step}");
        assert_eq!(error.outcome_unknown(), is_unknown, "{step}: {error}");
        assert_eq!(error.is_transient(), !is_unknown, "{step}: {error}");
    }
}

fn runtime() -> Runtime {
    let mut builder = runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn a_runtime_that_shuts_down_drops_its_calls() {
    for (step, command, kept) in hanging() {
        let beside = runtime();
        let server = beside.block_on(server(Fault::hang(step)));
        let client = client(&server);
        let program = runtime();
        let _sending = program.spawn(async move { client.send(hello()).await });
        let arrived = || has_command(&server, command) && server.messages().len() == kept;
        beside.block_on(until(arrived));
        drop(program);
        beside.block_on(until(|| all_ended(&server)));
        assert_eq!(server.messages().len(), kept, "{step}");
        assert!(!has_command(&server, "QUIT"), "{step}");
    }
}

#[test]
fn a_pool_that_is_dropped_says_quit_and_one_that_outlives_its_runtime_does_not() {
    let beside = runtime();
    let server = beside
        .block_on(Server::builder().plaintext().start())
        .unwrap();
    let sent = |pool: &Pool| {
        let pool = pool.clone();
        async move { assert!(pool.send(hello()).await.unwrap().all_accepted()) }
    };
    let said_quit = |at: usize| server.connections()[at].commands().last() == Some("QUIT");
    let pools = [client(&server).pool(1), client(&server).pool(1)];
    let program = runtime();
    for pool in &pools {
        program.block_on(sent(pool));
    }
    let [dropped, outlives] = pools;
    drop(dropped);
    beside.block_on(until(|| said_quit(0)));
    drop(program);
    // Nothing reads or writes a socket whose runtime is gone. With another runtime, the pool opens
    // another connection.
    let next = runtime();
    next.block_on(sent(&outlives));
    beside.block_on(until(|| !server.connections()[1].is_open));
    assert!(!said_quit(1));
    next.block_on(outlives.close());
    beside.block_on(until(|| said_quit(2)));
    assert_eq!(server.messages().len(), 3);
}

/// What an error says.
fn outcome(error: &Error) -> (bool, Outcome) {
    let recipient = &error.receipt().unwrap().recipients[0];
    assert_eq!(recipient.is_transient(), error.is_transient(), "{error}");
    (error.is_transient(), recipient.outcome.clone())
}

#[tokio::test]
async fn a_lost_connection_leaves_a_message_unsent_or_in_doubt() {
    let unsent = (true, Outcome::NotTried);
    let in_doubt = (false, Outcome::Unknown);
    for (step, phase, expected, kept) in [
        (Step::Greeting, Phase::Greeting, &unsent, 0),
        (Step::Hello, Phase::Hello, &unsent, 0),
        (Step::Mail, Phase::Mail, &unsent, 0),
        (Step::Rcpt, Phase::Rcpt, &unsent, 0),
        (Step::Data, Phase::Data, &unsent, 0),
        (Step::Message, Phase::EndOfData, &in_doubt, 0),
        (Step::Accepted, Phase::EndOfData, &in_doubt, 1),
    ] {
        let server = server(Fault::close(step)).await;
        let error = client(&server).send(hello()).await.unwrap_err();
        assert_eq!((error.kind(), error.phase()), (ErrorKind::Closed, phase));
        assert_eq!(&outcome(&error), expected, "{error}");
        assert_eq!(error.outcome_unknown(), expected == &in_doubt);
        assert_eq!(server.messages().len(), kept, "{step}");
    }
    let refused = (false, Outcome::NotTried);
    for (step, kind, expected) in [
        (Step::StartTls, ErrorKind::Closed, &unsent),
        // As a rule, TLS is not set up as it should be.
        (Step::Handshake, ErrorKind::Tls, &refused),
        (Step::Auth, ErrorKind::Closed, &unsent),
    ] {
        let builder = Server::builder().login("alice", "secret");
        let server = builder.fault(Fault::close(step)).start().await.unwrap();
        let error = client(&server).send(hello()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{step}");
        assert_eq!(&outcome(&error), expected, "{error}");
    }
    // Whatever comes after the reply to the message changes nothing.
    let server = server(Fault::close(Step::Quit)).await;
    assert!(client(&server).send(hello()).await.unwrap().all_accepted());
}

#[tokio::test]
async fn a_connection_lost_in_the_message_leaves_it_unsent() {
    // More than the buffers of the sockets hold, so that the end cannot have been written.
    let raw = ["Subject: a\r\n\r\n", &"a line\r\n".repeat(2_000_000)].concat();
    let server = server(Fault::close(Step::Body(1000))).await;
    let to = [Address::new("you@example.com").unwrap()];
    let envelope = Envelope::new(None, to).unwrap();
    let message = Message::raw(raw).envelope(envelope);
    let error = client(&server).send(message).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Closed, Phase::Body)
    );
    assert_eq!(outcome(&error), (true, Outcome::NotTried));
    assert!(server.messages().is_empty());
}

#[tokio::test]
async fn a_lost_connection_is_retried_unless_the_message_is_in_doubt() {
    for (step, attempts) in [
        (Step::Greeting, 2),
        (Step::Mail, 2),
        (Step::Rcpt, 2),
        (Step::Data, 2),
        (Step::Message, 1),
        (Step::Accepted, 1),
    ] {
        let server = server(Fault::close(step).times(1)).await;
        let mut policy = RetryPolicy::new(3);
        policy.initial_backoff = Duration::from_millis(1);
        let result = client(&server).retries(policy).send(hello()).await;
        assert_eq!(result.is_ok(), attempts == 2, "{step}");
        assert_eq!(server.connections().len(), attempts, "{step}");
        assert!(server.messages().len() <= 1, "{step}");
    }
}

/// Without retries: nothing of the message was taken.
#[tokio::test]
async fn a_pool_replaces_a_kept_connection_that_is_lost_up_to_mail() {
    for (step, is_sent) in [
        (Step::Mail, true),
        (Step::Rcpt, false),
        (Step::Accepted, false),
    ] {
        let server = server(Fault::close(step).after(1).times(1)).await;
        let pool = client(&server).pool(1);
        assert!(pool.send(hello()).await.unwrap().all_accepted());
        assert_eq!(pool.send(hello()).await.is_ok(), is_sent, "{step}");
        assert!(pool.send(hello()).await.unwrap().all_accepted());
        assert_eq!(server.connections().len(), 2, "{step}");
    }
}
