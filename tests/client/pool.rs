//! The pool: how many connections there are, which of them is used again, whose turn it is, and
//! what is said at the end.

use std::io::Cursor;
use std::pin::pin;
use std::time::Duration;

use envoi::mail_builder::MessageBuilder;
use envoi::testing::{Builder, Server, Session};
use envoi::tls::{TlsSettings, TlsVersion, Trust};
use envoi::{
    Address, Client, Endpoint, Envelope, ErrorKind, Message, Outcome, Phase, Pool, PoolConfig,
    PooledConnection, RetryPolicy,
};
use futures::future::{BoxFuture, Either, join_all, select};
use futures::{FutureExt as _, StreamExt as _};
use support::{hello, hello_to};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time;

/// It can be read once only.
fn stream() -> Message<'static> {
    let envelope = Envelope::new(me(), [Address::new("you@example.com").unwrap()]).unwrap();
    Message::raw_stream(Cursor::new("Subject: Hello\r\n\r\nHello.\r\n")).envelope(envelope)
}

fn me() -> Address {
    Address::new("me@example.org").unwrap()
}

fn plain() -> Builder {
    Server::builder().plaintext()
}

fn pool(server: &Server, limits: impl Into<PoolConfig>) -> Pool {
    Client::from_url(&server.url()).unwrap().pool(limits)
}

#[tokio::test]
async fn connections_of_pools_and_clients_resume_tls_sessions() {
    let server = Server::start().await.unwrap();
    let settings = || TlsSettings::new(Trust::empty().pem(server.ca_pem()));
    let client = || {
        let endpoint = Endpoint::from_url(&server.url()).unwrap();
        Client::new(endpoint.tls(settings()))
    };
    let pool = client().pool(2);
    let first = pool.get().await.unwrap();
    assert!(!first.tls().unwrap().resumed);
    let second = pool.get().await.unwrap();
    assert!(second.tls().unwrap().resumed);
    // Another pool, and a client, with equal settings.
    let other = client().pool(1);
    assert!(other.get().await.unwrap().tls().unwrap().resumed);
    let receipt = client().send(hello()).await.unwrap();
    assert!(receipt.tls.unwrap().resumed);
    // With other settings, nothing is resumed.
    let endpoint = Endpoint::from_url(&server.url()).unwrap();
    let strict = settings().min_version(TlsVersion::Tls13);
    let receipt = Client::new(endpoint.tls(strict)).send(hello()).await;
    assert!(!receipt.unwrap().tls.unwrap().resumed);
}

/// With more idle connections than calls.
#[tokio::test]
async fn an_expired_connection_is_released_when_the_pool_is_used() {
    let server = plain().start().await.unwrap();
    let mut limits = PoolConfig::new(8);
    limits.idle_timeout = Duration::from_millis(500);
    let pool = pool(&server, limits);
    // Within a second, a call looks at the connections that it takes; later, at all.
    for (round, after) in [(1, 600), (2, 1500)] {
        let all = join_all((0..8).map(|_| pool.get())).await;
        assert!(all.iter().all(Result::is_ok));
        drop(all);
        later(Duration::from_millis(after)).await;
        drop(pool.get().await.unwrap());
        let connections = || server.connections().into_iter();
        until(|| connections().filter(said_quit).count() >= 8 * round).await;
    }
}

/// In so many round trips.
async fn sent(pool: &Pool) -> u32 {
    let receipt = pool.send(hello()).await.unwrap();
    assert!(receipt.all_accepted());
    receipt.round_trips
}

/// Tasks of the server's run meanwhile.
async fn until(mut it_is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !it_is_so() {
            tokio::task::yield_now().await;
        }
    };
    time::timeout(Duration::from_secs(10), waiting)
        .await
        .expect("it does not come to that");
}

fn said_quit(session: &Session) -> bool {
    session.commands().last() == Some("QUIT")
}

/// Later, as tokio's clock has it, without any waiting.
async fn later(by: Duration) {
    time::pause();
    time::advance(by).await;
    time::resume();
}

/// A server that takes a connection for each script, one after the other, and says its lines: the
/// first at once, the others each in answer to a line, or to a message. At its end it closes. Gives
/// what it heard on each, when all are over.
async fn scripted(scripts: &[&[&'static str]]) -> (Endpoint, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::from_url(&format!(
        "smtp://{}?tls=none",
        listener.local_addr().unwrap()
    ))
    .unwrap();
    let scripts: Vec<_> = scripts.iter().map(|script| script.to_vec()).collect();
    let serving = tokio::spawn(async move {
        let mut heard = Vec::new();
        for script in scripts {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut said = Vec::new();
            let mut end = "";
            for line in script {
                let mut turn = Vec::new();
                while !turn.ends_with(end.as_bytes())
                    && stream.read_buf(&mut turn).await.unwrap_or(0) > 0
                {}
                said.extend(turn);
                stream.write_all(line.as_bytes()).await.unwrap();
                end = if line.starts_with("354") {
                    "\r\n.\r\n"
                } else {
                    "\r\n"
                };
            }
            heard.push(String::from_utf8(said).unwrap());
        }
        heard
    });
    (endpoint, serving)
}

/// By all tasks.
fn _is_shared(pool: Pool, connection: PooledConnection) {
    fn shared(_: impl Send + Sync + Clone + 'static) {}
    fn sent(_: impl Send + 'static) {}
    shared(pool);
    sent(connection);
}

#[tokio::test]
async fn a_reused_connection_costs_no_extra_round_trip() {
    for (server, first, each) in [
        (plain().offer("CHUNKING"), 3, 1),
        (plain(), 4, 2),
        (plain().without("PIPELINING"), 6, 4),
    ] {
        let server = server.start().await.unwrap();
        let pool = pool(&server, 4);
        assert_eq!(sent(&pool).await, first);
        for _ in 0..5 {
            assert_eq!(sent(&pool).await, each, "as on any connection that is kept");
        }
        pool.close().await;
        until(|| !server.connections()[0].is_open).await;
        let sessions = server.connections();
        assert_eq!(sessions.len(), 1);
        assert_eq!(
            sessions[0]
                .commands()
                .filter(|line| line.starts_with("MAIL"))
                .count(),
            6
        );
        assert!(
            !sessions[0]
                .commands()
                .any(|line| ["RSET", "NOOP"].contains(&line))
        );
    }
}

#[tokio::test]
async fn a_pool_sends_what_a_client_can_send() {
    for server in [
        Server::builder().login("alice", "p@ss"),
        Server::builder().implicit_tls().login("alice", "p@ss"),
        Server::builder().lmtp(),
        #[cfg(unix)]
        Server::builder().lmtp_unix(),
    ] {
        let server = server.start().await.unwrap();
        let pool = pool(&server, 1);
        let (first, second) = (
            pool.send(hello()).await.unwrap(),
            pool.send(hello()).await.unwrap(),
        );
        assert!(first.all_accepted() && second.all_accepted());
        assert_eq!(first.mechanism, second.mechanism);
        assert_eq!(first.tls.is_some(), second.tls.is_some());
        drop(pool);
        until(|| server.connections().iter().all(said_quit)).await;
        assert_eq!(server.connections().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_opens_at_most_the_configured_connections() {
    let server = plain().start().await.unwrap();
    let pool = pool(&server, 3);
    let sending = (0..60).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move { pool.send(hello()).await.unwrap().all_accepted() })
    });
    for accepted in join_all(sending).await {
        assert!(accepted.unwrap());
    }
    assert_eq!(server.messages().len(), 60);
    assert!(
        server.connections().len() <= 3,
        "{}",
        server.connections().len()
    );
}

#[tokio::test]
async fn waiting_callers_are_served_in_order() {
    const TO: [&str; 5] = [
        "a@example.com",
        "b@example.com",
        "c@example.com",
        "d@example.com",
        "e@example.com",
    ];
    let server = plain().start().await.unwrap();
    let pool = pool(&server, 1);
    let used = pool.get().await.unwrap();
    let mut sending = join_all(TO.iter().map(|to| pool.send(hello_to(&[to]))));
    // All come to the queue, in this order.
    assert!((&mut sending).now_or_never().is_none());
    drop(used);
    for sent in sending.await {
        assert!(sent.unwrap().all_accepted());
    }
    let recipients: Vec<_> = server
        .messages()
        .into_iter()
        .map(|message| message.recipients.concat())
        .collect();
    assert_eq!(recipients, TO);
    assert_eq!(server.connections().len(), 1);
}

#[tokio::test]
async fn waiting_for_a_connection_ends_after_its_limit() {
    let server = plain().start().await.unwrap();
    let mut limits = PoolConfig::new(1);
    limits.acquire_timeout = Duration::from_secs(20);
    let pool = pool(&server, limits.clone());
    let used = pool.get().await.unwrap();

    time::pause();
    let began = time::Instant::now();
    let error = pool.send(hello()).await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), 20);
    assert_eq!(
        (error.kind(), error.phase(), error.is_transient()),
        (ErrorKind::Timeout, Phase::Setup, true)
    );
    assert_eq!(
        error.message(),
        "the one connection of the pool was in use for 20s"
    );
    assert!(error.hint().unwrap().contains("PoolConfig"), "{error}");
    assert_eq!(
        error.receipt().unwrap().recipients[0].outcome,
        Outcome::NotTried
    );

    // The deadline is for the whole call.
    limits.max_size = 2;
    let endpoint = pool
        .client()
        .endpoint()
        .clone()
        .deadline(Duration::from_secs(5));
    let hasty = Client::new(endpoint).pool(limits.clone());
    let both = [hasty.get().await.unwrap(), hasty.get().await.unwrap()];
    let error = hasty.get().await.unwrap_err();
    assert_eq!(
        error.message(),
        "all 2 connections of the pool were in use up to the deadline of 5s"
    );
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("later deadline") && !hint.contains("longer wait"),
        "a longer wait would change nothing: {hint}"
    );
    drop(both);
    time::resume();

    // Without any wait, for those who would rather do something else.
    limits.acquire_timeout = Duration::ZERO;
    let impatient = Client::new(pool.client().endpoint().clone()).pool(limits);
    for _ in 0..2 {
        sent(&impatient).await;
    }
    let both = [
        impatient.get().await.unwrap(),
        impatient.get().await.unwrap(),
    ];
    let error = impatient.send(hello()).await.unwrap_err();
    assert_eq!(error.message(), "all 2 connections of the pool were in use");
    drop(both);
    drop(used);
    sent(&pool).await;
}

#[tokio::test]
async fn a_connection_is_closed_after_its_lifetime() {
    let seconds = Duration::from_secs;
    let server = plain().start().await.unwrap();
    let pool = pool(&server, 2);
    let both = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    drop(both);
    for _ in 0..3 {
        later(seconds(19)).await;
        sent(&pool).await;
    }
    assert!(server.connections().iter().all(|session| session.is_open));
    // One does for these messages, and the other has been idle for a minute.
    later(seconds(4)).await;
    sent(&pool).await;
    until(|| {
        server
            .connections()
            .iter()
            .filter(|session| said_quit(session))
            .count()
            == 1
    })
    .await;
    // The other one has its half hour, however busy it is.
    for _ in 0..31 {
        later(seconds(58)).await;
        sent(&pool).await;
    }
    until(|| {
        server
            .connections()
            .iter()
            .filter(|session| said_quit(session))
            .count()
            == 2
    })
    .await;
    assert_eq!(server.connections().len(), 3);
}

#[tokio::test]
async fn a_connection_is_closed_after_its_number_of_messages() {
    let mut limits = PoolConfig::new(1);
    limits.max_messages = 2;
    for server in [plain(), plain().offer("LIMITS MAILMAX=2")] {
        let server = server.start().await.unwrap();
        let pool = pool(&server, limits.clone());
        for _ in 0..4 {
            sent(&pool).await;
        }
        until(|| server.connections().iter().all(said_quit)).await;
        assert_eq!(server.connections().len(), 2);
        limits.max_messages = 1000;
    }
    // A message in three parts, where a session takes two: the connections come one after the
    // other.
    let server = plain()
        .offer("LIMITS MAILMAX=2 RCPTMAX=1")
        .start()
        .await
        .unwrap();
    let pool = pool(&server, 1);
    let three = || {
        MessageBuilder::new().from("me@example.org").to(vec![
            "a@b.example",
            "c@b.example",
            "d@b.example",
        ])
    };
    for round_trips in [4 + 2 + 4, 2 + 4 + 2] {
        let receipt = pool.send(three().text_body("Hello.")).await.unwrap();
        assert!(receipt.all_accepted());
        assert_eq!(receipt.round_trips, round_trips);
    }
    until(|| server.connections().iter().all(said_quit)).await;
    assert_eq!(
        (server.connections().len(), server.messages().len()),
        (3, 6)
    );
}

const GREETING: &str = "220 there\r\n";
const OK: &str = "250 Ok\r\n";
/// In answer to EHLO, MAIL, RCPT, DATA, and the message.
const FIRST: &[&str] = &[GREETING, OK, OK, OK, "354 Go\r\n", OK];

#[tokio::test]
async fn a_connection_that_ended_while_idle_is_replaced() {
    const AND_421: &[&str] = &[
        GREETING,
        OK,
        OK,
        OK,
        "354 Go\r\n",
        "250 Ok\r\n421 4.4.2 Idle\r\n",
    ];
    const AND_MORE: &[&str] = &[GREETING, OK, OK, OK, "354 Go\r\n", "250 Ok\r\n250 Ok\r\n"];
    for first_script in [FIRST, AND_421, AND_MORE] {
        let (endpoint, serving) = scripted(&[first_script, FIRST]).await;
        let pool = Client::new(endpoint).pool(1);
        // There would be nothing to send again: the connection is looked at before the message is
        // touched.
        let (first, second) = (
            pool.send(stream()).await.unwrap(),
            pool.send(stream()).await.unwrap(),
        );
        assert!(first.all_accepted() && second.all_accepted());
        assert_eq!(
            second.transcript.to_string().matches("EHLO").count(),
            1,
            "{}",
            second.transcript
        );
        let heard = serving.await.unwrap();
        assert!(
            heard[0].ends_with("\r\n.\r\n"),
            "{first_script:?}: {heard:?}"
        );
    }
}

#[tokio::test]
async fn a_message_is_sent_again_if_the_kept_session_ends_at_mail() {
    // What the server says to the second message on the connection, then it closes.
    for (last_words, again) in [
        // It was as good as closed: nothing of the message was taken.
        (&[""][..], true),
        (&["421 4.4.2 Idle too long\r\n"], true),
        // It serves this client, and does not like the message.
        (&["451 4.3.0 Not now\r\n"], false),
        (&["550 5.1.8 Not you\r\n"], false),
        // It had begun.
        (&[OK, ""], false),
        (&[OK, "421 4.3.2 Going down\r\n"], false),
        (&[OK, OK, ""], false),
        // The outcome is unknown.
        (&[OK, OK, "354 Go\r\n", ""], false),
    ] {
        let script = [FIRST, last_words].concat();
        let (endpoint, serving) = scripted(&[&script, FIRST]).await;
        let pool = Client::new(endpoint).pool(1);
        sent(&pool).await;
        let second = pool.send(hello()).await;
        assert_eq!(second.is_ok(), again, "{last_words:?}: {second:?}");
        match second {
            Ok(receipt) => {
                assert!(receipt.all_accepted());
                // The vain attempt is told, too.
                assert_eq!(
                    receipt.transcript.to_string().matches("EHLO").count(),
                    2,
                    "{}",
                    receipt.transcript
                );
                assert_eq!(
                    receipt.round_trips,
                    6 + u32::from(!last_words[0].is_empty())
                );
            }
            Err(error) => {
                assert_eq!(error.outcome_unknown(), last_words.len() == 4, "{error}");
                // The slot is free: another attempt gets a new connection.
                sent(&pool).await;
            }
        }
        assert_eq!(serving.await.unwrap().len(), 2);
    }
    // The outcome is also unknown after the whole message was written at once.
    const OFFER: &str = "250-there\r\n250-PIPELINING\r\n250 CHUNKING\r\n";
    let (endpoint, serving) =
        scripted(&[&[GREETING, OFFER, "250 Ok\r\n250 Ok\r\n250 Ok\r\n", ""]]).await;
    let pool = Client::new(endpoint).pool(1);
    assert_eq!(sent(&pool).await, 3);
    let error = pool.send(hello()).await.unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
    serving.await.unwrap();
    // A stream cannot go again.
    let script = [FIRST, &["421 4.4.2 Idle too long\r\n"]].concat();
    let (endpoint, serving) = scripted(&[&script]).await;
    let pool = Client::new(endpoint).pool(1);
    sent(&pool).await;
    let error = pool.send(stream()).await.unwrap_err();
    assert_eq!(error.reply().unwrap().code(), 421);
    serving.await.unwrap();
    // One attempt more, and not a loop: the new connection is no better.
    let script = [FIRST, &["421 4.4.2 Idle too long\r\n"]].concat();
    let (endpoint, serving) = scripted(&[&script, &[GREETING, OK, "421 4.3.2 Full\r\n"]]).await;
    let pool = Client::new(endpoint).pool(1);
    sent(&pool).await;
    let error = pool.send(hello()).await.unwrap_err();
    assert_eq!(error.reply().unwrap().text(), "Full");
    serving.await.unwrap();
    // And none if the server has gone.
    let error = pool.send(hello()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert_eq!(
        error.receipt().unwrap().recipients[0].outcome,
        Outcome::NotTried
    );
}

/// In what state a kept connection is when the next message comes, and how its session ends: by
/// these words of the server's, or by a close. Nothing of the next message was said by then, so it
/// goes over a new connection, whatever it is read from.
#[tokio::test]
async fn a_session_that_ends_between_messages_is_replaced() {
    const REFUSED: &[&str] = &[GREETING, OK, OK, "550 5.1.1 No such user\r\n"];
    const SPAM: &[&str] = &[GREETING, OK, OK, OK, "354 Go\r\n", "554 5.7.1 Spam\r\n"];
    for (before, is_refused) in [(FIRST, false), (REFUSED, true), (SPAM, true)] {
        for last_words in [
            "",
            "421 4.3.2 Going down\r\n",
            "250 Ok\r\n250 Ok\r\n",
            "500 5.5.1 What?\r\n",
            "nonsense\r\n",
            "25",
        ] {
            // After a refused recipient, RSET is under way. Otherwise nothing is, and what the
            // server says comes unasked.
            let is_asked = before.len() == REFUSED.len();
            let mut script = before.to_vec();
            let unasked;
            if is_asked {
                script.push(last_words);
            } else {
                unasked =
                    Box::leak(format!("{}{last_words}", script.pop().unwrap()).into_boxed_str());
                script.push(unasked);
            }
            for is_stream in [false, true] {
                let (endpoint, serving) = scripted(&[&script, FIRST]).await;
                let pool = Client::new(endpoint).pool(1);
                assert_eq!(pool.send(hello()).await.is_err(), is_refused);
                let second = if is_stream {
                    pool.send(stream()).await
                } else {
                    pool.send(hello()).await
                };
                let context = format!("{before:?} {last_words:?}");
                assert!(
                    second
                        .unwrap_or_else(|error| panic!("{context}: {error}"))
                        .all_accepted()
                );
                let heard = serving.await.unwrap();
                assert_eq!(heard[0].matches("MAIL").count(), 1, "{context}: {heard:?}");
            }
        }
    }
    // So does the connection that a caller gets.
    let (endpoint, serving) = scripted(&[
        &[REFUSED, &["421 4.3.2 Going down\r\n"][..]].concat(),
        FIRST,
    ])
    .await;
    let pool = Client::new(endpoint).pool(1);
    pool.send(hello()).await.unwrap_err();
    assert!(
        pool.get()
            .await
            .unwrap()
            .send(hello())
            .await
            .unwrap()
            .all_accepted()
    );
    serving.await.unwrap();
}

/// MAIL is out, alone or with more, and the server does not answer it: garbage, half a reply,
/// nothing until the time is over.
#[tokio::test]
async fn a_session_that_ends_before_the_reply_to_mail_is_replaced() {
    const OFFERS: [&str; 2] = ["250 there\r\n", "250-there\r\n250 PIPELINING\r\n"];
    for offer in OFFERS {
        for last_words in [
            "",
            "421 4.3.2 Going down\r\n",
            "354 Go\r\n",
            "nonsense\r\n",
            "25",
            "250-Ok\r\n",
        ] {
            let first: &[&str] = match offer {
                "250 there\r\n" => &[GREETING, "250 there\r\n", OK, OK, "354 Go\r\n", OK, ""],
                offer => &[GREETING, offer, "250 Ok\r\n250 Ok\r\n354 Go\r\n", OK, ""],
            };
            let mut first = first.to_vec();
            *first.last_mut().unwrap() = last_words;
            let (endpoint, serving) = scripted(&[&first, FIRST]).await;
            let pool = Client::new(endpoint).pool(1);
            sent(&pool).await;
            let second = pool.send(hello()).await;
            assert!(
                second
                    .unwrap_or_else(|error| panic!("{offer:?} {last_words:?}: {error}"))
                    .all_accepted()
            );
            serving.await.unwrap();
        }
    }
}

/// The peer of a kept connection is gone without a sign. With PIPELINING and CHUNKING, a small
/// message would go whole with MAIL.
#[tokio::test]
async fn a_connection_idle_for_30_seconds_is_checked_before_use() {
    const OFFER: &str = "250-there\r\n250-PIPELINING\r\n250 CHUNKING\r\n";
    const WHOLE: &[&str] = &[GREETING, OFFER, "250 Ok\r\n250 Ok\r\n250 Ok\r\n"];
    let seconds = Duration::from_secs;
    for (idle, is_asked) in [(29, false), (31, true)] {
        let script = [WHOLE, &[""]].concat();
        let (endpoint, serving) = scripted(&[&script, WHOLE]).await;
        let pool = Client::new(endpoint).pool(1);
        sent(&pool).await;
        later(seconds(idle)).await;
        let second = pool.send(hello()).await;
        match second {
            Ok(receipt) => assert!(is_asked && receipt.all_accepted(), "{receipt:?}"),
            Err(error) => {
                assert!(!is_asked && error.outcome_unknown(), "{error}");
                sent(&pool).await;
            }
        }
        let heard = serving.await.unwrap();
        let (_, second) = heard[0].rsplit_once("MAIL").unwrap();
        assert_eq!(second.contains("BDAT"), !is_asked, "{heard:?}");
    }
    // It costs a round trip, and none once the server has answered. The setting is that of the
    // endpoint.
    for (setting, round_trips) in [
        (seconds(10), [2, 1]),
        (Duration::ZERO, [2, 2]),
        (Duration::MAX, [1, 1]),
    ] {
        let server = plain().offer("CHUNKING").start().await.unwrap();
        let endpoint = Endpoint::from_url(&server.url())
            .unwrap()
            .check_after_idle(setting);
        let pool = Client::new(endpoint).pool(1);
        sent(&pool).await;
        later(seconds(11)).await;
        assert_eq!(
            [sent(&pool).await, sent(&pool).await],
            round_trips,
            "{setting:?}"
        );
        assert_eq!(server.connections().len(), 1);
        // A connection that is kept by the caller does the same.
        let mut connection = pool.client().connect().await.unwrap();
        later(seconds(11)).await;
        assert_eq!(
            connection.send(hello()).await.unwrap().round_trips,
            round_trips[0]
        );
        later(seconds(11)).await;
        let messages = futures::stream::iter([hello().into(), hello().into()]);
        let outcomes: Vec<_> = connection.send_all(messages).collect().await;
        assert!(
            outcomes
                .into_iter()
                .all(|outcome| outcome.unwrap().all_accepted())
        );
        let sessions = server.connections();
        let groups = sessions[1]
            .groups
            .iter()
            .filter(|group| group.last().unwrap().starts_with("MAIL"))
            .count();
        let expected = match setting {
            Duration::ZERO => 3,
            Duration::MAX => 0,
            _ => 2,
        };
        assert_eq!(groups, expected, "{setting:?}: {:?}", sessions[1].groups);
        connection.quit().await;
    }
}

/// A server that takes one message on each connection, tells when more comes, and does not answer
/// that.
async fn silent_after_one() -> (Endpoint, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::from_url(&format!(
        "smtp://{}?tls=none",
        listener.local_addr().unwrap()
    ))
    .unwrap();
    let (more_came, more) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let more_came = more_came.clone();
            tokio::spawn(async move {
                let mut heard = Vec::new();
                for line in FIRST {
                    stream.write_all(line.as_bytes()).await.unwrap();
                    let end = if line.starts_with("354") {
                        &b"\r\n.\r\n"[..]
                    } else {
                        b"\r\n"
                    };
                    heard.clear();
                    while !heard.ends_with(end) && stream.read_buf(&mut heard).await.unwrap() > 0 {}
                }
                let _ = more_came.send(());
                while stream.read_buf(&mut heard).await.is_ok_and(|n| n > 0) {}
            });
        }
    });
    (endpoint, more)
}

/// What comes of a call whose command the server does not answer for so long.
async fn unanswered_for<T>(
    by: Duration,
    call: impl Future<Output = T>,
    more: &mut mpsc::UnboundedReceiver<()>,
) -> T {
    let mut call = pin!(call);
    match select(call.as_mut(), pin!(more.recv())).await {
        Either::Left(_) => panic!("it was answered"),
        Either::Right(_) => later(by).await,
    }
    call.await
}

/// A server that never answers MAIL: the time for a command is over, and the message goes over a
/// new connection; not past the deadline.
#[tokio::test]
async fn a_message_is_sent_again_if_mail_on_a_kept_connection_times_out() {
    let seconds = Duration::from_secs;
    for (deadline, later) in [(None, seconds(301)), (Some(seconds(200)), seconds(201))] {
        let (endpoint, mut more) = silent_after_one().await;
        let mut timeouts = envoi::Timeouts::default();
        timeouts.deadline = deadline;
        let pool = Client::new(endpoint.timeouts(timeouts)).pool(1);
        sent(&pool).await;
        match (
            unanswered_for(later, pool.send(hello()), &mut more).await,
            deadline,
        ) {
            (Ok(receipt), None) => assert!(receipt.all_accepted()),
            (Err(error), Some(_)) => {
                assert_eq!(
                    (error.kind(), error.phase()),
                    (ErrorKind::Timeout, Phase::Mail),
                    "{error}"
                );
            }
            (result, _) => panic!("{result:?}"),
        }
    }
}

/// The next connection of a stream of messages is made by the limits of the message that needs it,
/// and not by those of a message that has failed.
#[tokio::test]
async fn a_deadline_that_has_passed_does_not_apply_to_the_next_message() {
    let (endpoint, mut more) = silent_after_one().await;
    let timeouts = envoi::Timeouts::default().with_deadline(Duration::from_secs(200));
    let pool = Client::new(endpoint.timeouts(timeouts)).pool(1);
    let (messages, source) = mpsc::unbounded_channel::<Message<'static>>();
    let source = futures::stream::unfold(source, |mut source| async {
        source.recv().await.map(|next| (next, source))
    });
    let mut outcomes = pin!(pool.send_all(source));
    messages.send(hello().into()).unwrap();
    assert!(outcomes.next().await.unwrap().unwrap().all_accepted());
    messages.send(hello().into()).unwrap();
    let error = unanswered_for(Duration::from_secs(201), outcomes.next(), &mut more)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Timeout, Phase::Mail),
        "{error}"
    );
    assert!(outcomes.next().now_or_never().is_none());
    messages.send(hello().into()).unwrap();
    assert!(outcomes.next().await.unwrap().unwrap().all_accepted());
    drop(messages);
    assert!(outcomes.next().await.is_none());
}

/// A 421 that answers the RSET after a refused message is told to the next one.
#[tokio::test]
async fn a_421_after_a_refused_message_is_reported() {
    const OFFERS: &str = "250-there\r\n250-PIPELINING\r\n250 CHUNKING\r\n";
    let last = "421 4.3.2 Going down\r\n";
    let (endpoint, _serving) =
        scripted(&[&[GREETING, OFFERS, "250 Ok\r\n250 Ok\r\n550 No\r\n", last]]).await;
    let mut connection = Client::new(endpoint).connect().await.unwrap();
    assert_eq!(
        connection
            .send(hello())
            .await
            .unwrap_err()
            .reply()
            .unwrap()
            .code(),
        550
    );
    let error = connection.send(hello()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Closed, "the session is over"),
        "{error}"
    );
    assert!(error.is_transient() && !error.outcome_unknown(), "{error}");
    assert_eq!(error.reply().unwrap().to_string(), last.trim_end());
    assert_eq!(
        error.receipt().unwrap().recipients[0].outcome,
        Outcome::NotTried
    );
}

#[tokio::test]
async fn a_pool_splits_a_message_for_a_server_that_takes_fewer_recipients() {
    let accepted = std::sync::atomic::AtomicUsize::new(0);
    let server = plain().offer("LIMITS MAILMAX=2").answer(move |line| {
        use std::sync::atomic::Ordering::SeqCst;
        if line.starts_with("MAIL") {
            accepted.store(0, SeqCst);
        }
        let too_many = line.starts_with("RCPT") && accepted.fetch_add(1, SeqCst) > 0;
        too_many.then(|| "452 4.5.3 Too many recipients".to_owned())
    });
    let server = server.start().await.unwrap();
    let pool = pool(&server, 1);
    for _ in 0..2 {
        let mail = MessageBuilder::new().from("me@example.org").to(vec![
            "a@b.example",
            "c@b.example",
            "d@b.example",
        ]);
        let receipt = pool.send(mail.text_body("Hello.")).await.unwrap();
        assert!(
            receipt.all_accepted() && receipt.transactions == 3,
            "{receipt:?}"
        );
    }
    assert_eq!(
        (server.messages().len(), server.connections().len()),
        (6, 3)
    );
}

#[tokio::test]
async fn a_connection_returned_in_mid_transaction_is_closed() {
    type Use = for<'c> fn(&'c mut PooledConnection) -> BoxFuture<'c, ()>;
    let uses: [(&str, bool, Use); 6] = [
        ("nothing", true, |_| Box::pin(async {})),
        ("a transaction", false, |connection| {
            Box::pin(async { assert!(connection.mail(me()).await.unwrap().is_positive()) })
        }),
        ("a transaction that was reset", true, |connection| {
            Box::pin(async {
                assert!(connection.mail(me()).await.unwrap().is_positive());
                assert!(connection.reset().await.unwrap().is_positive());
            })
        }),
        ("a call that was dropped", false, |connection| {
            Box::pin(async { assert!(connection.send(hello()).now_or_never().is_none()) })
        }),
        ("a message that was not ended", false, |connection| {
            Box::pin(async {
                assert!(connection.mail(me()).await.unwrap().is_positive());
                assert!(connection.rcpt(me()).await.unwrap().is_positive());
                connection
                    .data()
                    .await
                    .unwrap()
                    .write("Subject: half\r\n")
                    .await
                    .unwrap();
            })
        }),
        ("a refused sender", true, |connection| {
            Box::pin(async {
                let refused = Address::new("nobody@example.org").unwrap();
                assert_eq!(connection.mail(refused).await.unwrap().code(), 550);
            })
        }),
    ];
    for (what, is_kept, used) in uses {
        let refuse = |line: &str| {
            line.starts_with("MAIL FROM:<nobody@")
                .then(|| "550 5.1.8 Not you".to_owned())
        };
        let server = plain().answer(refuse).start().await.unwrap();
        let pool = pool(&server, 1);
        let mut connection = pool.get().await.unwrap();
        used(&mut connection).await;
        drop(connection);
        sent(&pool).await;
        assert_eq!(
            server.connections().len(),
            if is_kept { 1 } else { 2 },
            "{what}"
        );
        assert_eq!(server.messages().len(), 1, "{what}");
        until(|| server.connections()[0].is_open == is_kept).await;
    }
}

/// Its transaction is dropped at the server, too: by the time that the next message goes, that is
/// done.
#[tokio::test]
async fn a_refused_message_does_not_delay_the_next() {
    for (server, each) in [(plain().offer("CHUNKING"), 1), (plain(), 2)] {
        let server = server
            .refuse_recipient("nobody@example.com", "550 5.1.1 No such user")
            .start()
            .await
            .unwrap();
        let pool = pool(&server, 1);
        sent(&pool).await;
        let error = pool
            .send(hello_to(&["nobody@example.com"]))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome_unknown()),
            (ErrorKind::Refused, false)
        );
        until(|| server.connections()[0].commands().last() == Some("RSET")).await;
        assert_eq!(sent(&pool).await, each);
        assert_eq!(server.connections().len(), 1);
    }
}

/// Those who wait get their turn, and no others.
#[tokio::test]
async fn a_closed_pool_serves_waiting_callers_and_refuses_others() {
    let server = plain().start().await.unwrap();
    let pool = pool(&server, 2);
    let [first, mut used] = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    let mut waiting = join_all((0..5).map(|_| pool.send(hello())));
    assert!((&mut waiting).now_or_never().is_none());
    let mut closing = Box::pin(pool.close());
    assert!((&mut closing).now_or_never().is_none());
    for refused in [pool.get().await.err(), pool.send(hello()).await.err()] {
        let error = refused.unwrap();
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::PoolClosed, "the pool was closed")
        );
        assert!(error.is_transient() && !error.is_permanent());
        if let Some(receipt) = error.receipt() {
            assert_eq!(receipt.recipients[0].outcome, Outcome::NotTried);
            assert!(receipt.recipients[0].is_transient());
        }
    }
    drop(first);
    let (outcomes, left) = futures::future::join(waiting, closing).await;
    assert_eq!(left, 0);
    assert!(
        outcomes
            .into_iter()
            .all(|outcome| outcome.unwrap().all_accepted())
    );
    until(|| {
        server
            .connections()
            .iter()
            .filter(|session| said_quit(session))
            .count()
            == 1
    })
    .await;
    // The other one was not waited for, and does its work.
    assert!(used.send(hello()).await.unwrap().all_accepted());
    drop(used);
    until(|| server.connections().iter().all(said_quit)).await;
    assert_eq!((pool.close().await, server.connections().len()), (0, 2));
}

#[tokio::test]
async fn close_ends_after_its_time() {
    let server = plain().start().await.unwrap();
    let mut limits = PoolConfig::new(1);
    limits.close = Duration::from_millis(10);
    let pool = pool(&server, limits);
    let mut used = pool.get().await.unwrap();
    let waiting = [
        tokio::spawn(send_by(pool.clone())),
        tokio::spawn(send_by(pool.clone())),
    ];
    // Both come to the queue.
    tokio::task::yield_now().await;
    assert_eq!(pool.close().await, 2);
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), Err(ErrorKind::PoolClosed));
    }
    assert!(used.send(hello()).await.unwrap().all_accepted());
}

/// A stream of messages that was begun before goes to its end.
#[tokio::test]
async fn send_all_started_before_close_is_finished() {
    let server = plain().start().await.unwrap();
    let pool = pool(&server, 1);
    let messages = futures::stream::iter((0..100).map(|_| Message::from(hello())));
    let mut outcomes = Box::pin(pool.send_all(messages));
    assert!(outcomes.next().await.unwrap().is_ok());
    let closing = async { (pool.close().await, server.messages().len()) };
    let mut closing = std::pin::pin!(closing);
    assert!(closing.as_mut().now_or_never().is_none());
    assert!(
        outcomes
            .by_ref()
            .all(async |outcome| outcome.unwrap().all_accepted())
            .await
    );
    assert!(closing.as_mut().now_or_never().is_none());
    drop(outcomes);
    assert_eq!(closing.await, (0, 100));
}

async fn send_by(pool: Pool) -> Result<bool, ErrorKind> {
    pool.send(hello())
        .await
        .map(|receipt| receipt.all_accepted())
        .map_err(|error| error.kind())
}

/// Retries of a message end with the pool, and do not hold it open.
#[tokio::test]
async fn close_between_attempts_ends_the_retries() {
    let server = plain().answer(|line| {
        line.starts_with("RCPT")
            .then(|| "450 4.2.1 Busy".to_owned())
    });
    let server = server.start().await.unwrap();
    let mut retries = RetryPolicy::new(1000);
    (retries.initial_backoff, retries.max_backoff) =
        (Duration::from_millis(1), Duration::from_millis(1));
    let pool = Client::from_url(&server.url())
        .unwrap()
        .retries(retries)
        .pool(1);
    let sending = tokio::spawn({
        let pool = pool.clone();
        async move { pool.send(hello()).await }
    });
    until(|| {
        server
            .connections()
            .iter()
            .any(|session| session.commands().count() > 20)
    })
    .await;
    assert_eq!(pool.close().await, 0);
    let error = sending.await.unwrap().unwrap_err();
    assert!(
        error.kind() == ErrorKind::PoolClosed && error.is_transient(),
        "{error}"
    );
    let receipt = error.receipt().unwrap();
    assert!(
        matches!(&receipt.recipients[0].outcome, Outcome::Refused(reply) if reply.code() == 450)
    );
}

#[test]
fn a_pool_can_be_dropped_outside_of_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(plain().start()).unwrap();
    let [dropped, outlives] = [pool(&server, 1), pool(&server, 1)];
    for pool in [&dropped, &outlives] {
        runtime.block_on(sent(pool));
    }
    let used = runtime.block_on(dropped.get()).unwrap();
    drop(dropped);
    drop(used);
    runtime.block_on(until(|| said_quit(&server.connections()[0])));
    drop(runtime);
    drop(outlives);
}

#[tokio::test]
async fn a_pool_retries_transient_failures() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let server = plain().answer(move |line| {
        let refused =
            line.starts_with("RCPT") && asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2;
        refused.then(|| "450 4.7.1 Greylisted".to_owned())
    });
    let server = server.start().await.unwrap();
    let mut retries = RetryPolicy::new(2);
    retries.initial_backoff = Duration::from_millis(1);
    let pool = Client::from_url(&server.url())
        .unwrap()
        .retries(retries)
        .pool(1);
    sent(&pool).await;
    assert_eq!(
        (server.messages().len(), server.connections().len()),
        (1, 1)
    );
}

#[tokio::test]
async fn a_failed_connection_frees_its_slot() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let server = plain().answer(move |line| {
        let refused =
            line.starts_with("EHLO") && asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 3;
        refused.then(|| "421 4.7.0 Too many connections".to_owned())
    });
    let server = server.start().await.unwrap();
    let mut limits = PoolConfig::new(1);
    limits.acquire_timeout = Duration::ZERO;
    let pool = pool(&server, limits);
    let error = pool.send(hello()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.reply().unwrap().code()),
        (ErrorKind::Refused, 421)
    );
    assert_eq!(
        error.receipt().unwrap().recipients[0].outcome,
        Outcome::NotTried
    );
    assert!(pool.get().await.is_err() && pool.get().await.is_err());
    sent(&pool).await;
    assert_eq!(server.connections().len(), 4);
}
