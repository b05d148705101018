//! Many messages in a row: `Connection::send_all`, against a server that counts how often it was
//! waited for.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use envoi::mail_builder::MessageBuilder;
use envoi::testing::{Builder, Server};
use envoi::tls::Security;
use envoi::{
    Attachment, Client, Connection, Endpoint, Error, ErrorKind, Message, Outcome, Phase,
    PoolConfig, Receipt, SendWindow, Timeouts,
};
use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

fn message(to: &str) -> Message<'static> {
    support::hello_to(&[to]).into()
}

/// A server that takes everything, but answers only what had come when it looked: every answer is
/// this late.
async fn far_away(
    mut stream: DuplexStream,
    chunking: bool,
    delay: Duration,
    lose_at: Option<usize>,
) -> usize {
    let offers = if chunking {
        "250-CHUNKING\r\n250 PIPELINING\r\n"
    } else {
        "250 PIPELINING\r\n"
    };
    stream.write_all(b"220 far.example.org\r\n").await.unwrap();
    let (mut input, mut messages, mut in_data) = (Vec::new(), 0, false);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return messages,
            Ok(n) => input.extend_from_slice(&buffer[..n]),
        }
        tokio::time::sleep(delay).await;
        let mut answers = String::new();
        loop {
            if in_data {
                let end = input
                    .windows(5)
                    .position(|bytes| bytes == b"\r\n.\r\n")
                    .map(|end| end + 5);
                // A message without a byte is a dot alone.
                let Some(end) = input.starts_with(b".\r\n").then_some(3).or(end) else {
                    break;
                };
                input.drain(..end);
                in_data = false;
                messages += 1;
                answers += "250 2.0.0 Ok\r\n";
                continue;
            }
            let Some(end) = input.windows(2).position(|bytes| bytes == b"\r\n") else {
                break;
            };
            let line = String::from_utf8_lossy(&input[..end]).into_owned();
            let mut words = line.split(' ');
            match words.next() {
                Some("EHLO") => answers += &format!("250-far.example.org\r\n{offers}"),
                Some("DATA") => {
                    answers += "354 go\r\n";
                    in_data = true;
                }
                Some("BDAT") => {
                    let size: usize = words.next().unwrap().parse().unwrap();
                    if input.len() < end + 2 + size {
                        break;
                    }
                    input.drain(..size);
                    messages += 1;
                    if lose_at == Some(messages) {
                        stream.write_all(answers.as_bytes()).await.unwrap();
                        return messages;
                    }
                    answers += "250 2.0.0 Ok\r\n";
                }
                Some("RCPT") if line.contains("leave") => {
                    stream
                        .write_all(format!("{answers}421 4.3.2 going down\r\n").as_bytes())
                        .await
                        .unwrap();
                    return messages;
                }
                Some("RCPT") if line.contains("<nobody@") => answers += "550 5.1.1 no\r\n",
                Some("QUIT") => answers += "221 bye\r\n",
                _ => answers += "250 2.1.0 Ok\r\n",
            }
            input.drain(..end + 2);
        }
        if stream.write_all(answers.as_bytes()).await.is_err() {
            return messages;
        }
    }
}

async fn connect(
    chunking: bool,
    delay: Duration,
    lose_at: Option<usize>,
) -> (Connection, tokio::task::JoinHandle<usize>) {
    let (client, server) = duplex(1024 * 1024);
    let serving = tokio::spawn(far_away(server, chunking, delay, lose_at));
    let endpoint = Endpoint::new("far.example.org").security(Security::None);
    (
        Connection::from_stream(client, &endpoint).await.unwrap(),
        serving,
    )
}

#[tokio::test(start_paused = true)]
async fn send_all_throughput_does_not_depend_on_latency() {
    let delay = Duration::from_millis(100);
    for (chunking, at_most) in [(true, 20), (false, 620)] {
        let (mut connection, serving) = connect(chunking, delay, None).await;
        let began = tokio::time::Instant::now();
        let outcomes: Vec<_> = connection
            .send_all(stream::iter(0..500).map(|n| message(&format!("user{n}@example.com"))))
            .collect()
            .await;
        assert_eq!(outcomes.len(), 500);
        for (n, outcome) in outcomes.iter().enumerate() {
            let receipt = outcome.as_ref().unwrap();
            assert_eq!(
                receipt.recipients[0].address.as_str(),
                format!("user{n}@example.com")
            );
            assert!(receipt.all_accepted() && receipt.bytes > 0);
        }
        let waits = began.elapsed().as_millis() / delay.as_millis();
        assert!(
            waits <= at_most,
            "{waits} round trips, chunking: {chunking}"
        );
        connection.quit().await;
        assert_eq!(serving.await.unwrap(), 500);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_does_not_stop_the_next() {
    for chunking in [true, false] {
        let (mut connection, _serving) = connect(chunking, Duration::from_millis(1), None).await;
        let bad = MessageBuilder::new()
            .from("me@example.org")
            .to("x@example.com")
            .subject("a\r\nb")
            .text_body("");
        let messages = vec![
            message("one@example.com"),
            message("nobody@example.com"),
            message("two@example.com"),
            Message::from(bad),
            message("three@example.com"),
        ];
        let outcomes: Vec<_> = connection.send_all(stream::iter(messages)).collect().await;
        let told: Vec<Result<(), ErrorKind>> = outcomes
            .iter()
            .map(|outcome| outcome.as_ref().map(|_| ()).map_err(|error| error.kind()))
            .collect();
        assert_eq!(
            told,
            [
                Ok(()),
                Err(ErrorKind::Refused),
                Ok(()),
                Err(ErrorKind::Request),
                Ok(())
            ],
            "chunking: {chunking}"
        );
        connection.verify().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn every_message_has_an_outcome_after_a_lost_connection() {
    let (mut connection, serving) = connect(true, Duration::from_millis(10), Some(3)).await;
    let many = stream::iter(0..10).map(|n| message(&format!("user{n}@example.com")));
    let outcomes: Vec<_> = connection.send_all(many).collect().await;
    assert_eq!(serving.await.unwrap(), 3);
    assert_eq!(outcomes.len(), 10);
    assert!(outcomes[0].is_ok() && outcomes[1].is_ok());
    for (n, outcome) in outcomes.into_iter().enumerate().skip(2) {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{n}: {error}");
        // All of them had gone in one flow, and these were not answered.
        assert!(error.outcome_unknown(), "{n}");
        assert_eq!(
            error.receipt().unwrap().recipients[0].outcome,
            Outcome::Unknown
        );
    }
    assert!(connection.verify().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn every_message_has_an_outcome_after_a_421() {
    let (mut connection, serving) = connect(true, Duration::from_millis(10), None).await;
    let names = ["one", "leave", "two", "three"];
    let many = stream::iter(names).map(|name| message(&format!("{name}@example.com")));
    let outcomes: Vec<_> = connection.send_all(many).collect().await;
    assert_eq!(serving.await.unwrap(), 1);
    assert_eq!(outcomes.len(), names.len());
    assert!(outcomes[0].is_ok());
    for outcome in &outcomes[1..] {
        let error = outcome.as_ref().unwrap_err();
        assert!(error.is_transient() && !error.outcome_unknown(), "{error}");
        assert_ne!(
            error.receipt().unwrap().recipients[0].outcome,
            Outcome::Unknown,
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_refuses_use_after_a_dropped_send_all() {
    let (mut connection, _serving) = connect(true, Duration::from_secs(10), None).await;
    {
        let mut outcomes =
            pin!(connection.send_all(stream::repeat_with(|| message("you@example.com"))));
        let first = tokio::time::timeout(Duration::from_millis(50), outcomes.next()).await;
        assert!(first.is_err());
    }
    let error = connection
        .send(message("you@example.com"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("given up"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_dropped_after_its_outcomes_leaves_a_usable_connection() {
    let (mut connection, _serving) = connect(true, Duration::from_secs(1), None).await;
    for taken in [1, 3] {
        let messages = stream::iter((0..taken).map(|_| message("you@example.com")));
        let mut outcomes = pin!(connection.send_all(messages.chain(stream::pending())));
        for _ in 0..taken {
            assert!(outcomes.next().await.unwrap().is_ok());
        }
    }
    assert!(connection.send(message("you@example.com")).await.is_ok());
}

#[tokio::test]
async fn a_stream_dropped_without_messages_in_flight_leaves_a_usable_connection() {
    let (mut connection, _serving) = connect(true, Duration::from_millis(1), None).await;
    {
        let mut outcomes = pin!(connection.send_all(stream::pending::<Message<'_>>()));
        assert!(outcomes.next().now_or_never().is_none());
    }
    assert!(connection.send(message("you@example.com")).await.is_ok());

    // The reply to RSET is outstanding when the stream is dropped.
    let server = Server::builder()
        .plaintext()
        .refuse_recipient("bob@example.com", "550 5.1.1 No such user")
        .start()
        .await
        .unwrap();
    let mut connection = Connection::connect(&Endpoint::from_url(&server.url()).unwrap())
        .await
        .unwrap();
    {
        let messages = stream::iter([message("bob@example.com")]).chain(stream::pending());
        let mut outcomes = pin!(connection.send_all(messages));
        assert!(outcomes.next().await.unwrap().is_err());
        assert!(outcomes.next().now_or_never().is_none());
    }
    assert!(connection.send(message("you@example.com")).await.is_ok());
    assert!(connection.noop().await.unwrap().is_positive());
}

#[tokio::test]
async fn send_all_delivers_to_the_embedded_server() {
    let server = Server::start().await.unwrap();
    let mut connection = Connection::connect(&Endpoint::from_url(&server.url()).unwrap())
        .await
        .unwrap();
    let many = stream::iter(0..100).map(|n| message(&format!("user{n}@example.com")));
    let sent = connection
        .send_all(many)
        .filter(|outcome| std::future::ready(outcome.is_ok()))
        .count()
        .await;
    assert_eq!(sent, 100);
    connection.quit().await;
    assert_eq!(server.messages().len(), 100);
}

type Outcomes = Vec<Result<Receipt, Error>>;

/// How many were sent, and how many not; none is unknown, and what was not sent can be sent again.
fn counted(outcomes: &Outcomes) -> (usize, usize) {
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert!(error.is_transient() && !error.outcome_unknown(), "{error}");
        assert!(
            error.kind() == ErrorKind::Closed
                || error.reply().is_some_and(|reply| reply.code() == 421),
            "{error}"
        );
        let outcome = &error.receipt().unwrap().recipients[0].outcome;
        assert!(
            matches!(outcome, Outcome::NotTried | Outcome::Refused(_)),
            "{error}"
        );
    }
    let sent = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    (sent, outcomes.len() - sent)
}

/// Answers 421 to each command of this kind after so many, in each connection.
fn with_421_after(most: usize, verb: &'static str) -> Builder {
    let seen = AtomicUsize::new(0);
    Server::builder()
        .plaintext()
        .offer("CHUNKING")
        .answer(move |command| {
            if command.starts_with("EHLO") {
                seen.store(0, Ordering::Relaxed);
            }
            let is_over = command.starts_with(verb) && seen.fetch_add(1, Ordering::Relaxed) >= most;
            is_over.then(|| "421 4.7.0 Too many messages in this connection".to_owned())
        })
}

/// It closes with bytes unread, so that the client may see a reset.
#[tokio::test]
async fn messages_not_reached_before_421_are_not_sent() {
    for (verb, builder) in [
        ("MAIL", with_421_after(4, "MAIL")),
        ("RSET", with_421_after(4, "RSET")),
        ("RCPT", with_421_after(4, "RCPT")),
        ("MAIL", with_421_after(4, "MAIL").without("PIPELINING")),
    ] {
        let server = builder.start().await.unwrap();
        let mut connection = Client::from_url(&server.url())
            .unwrap()
            .connect()
            .await
            .unwrap();
        let many = stream::iter(0..100).map(|n| message(&format!("user{n}@example.com")));
        let outcomes: Outcomes = connection.send_all(many).collect().await;
        let (sent, not_sent) = counted(&outcomes);
        assert!(
            not_sent > 0 && sent == server.messages().len(),
            "{verb}: {sent} sent, {not_sent} not"
        );
        assert!(sent >= 4, "{verb}: {sent}");
        assert!(outcomes[..sent].iter().all(Result::is_ok), "{verb}");
    }
}

/// Each message arrives once, over as many connections as that takes.
#[tokio::test]
async fn a_pool_continues_send_all_over_another_connection() {
    for pipelining in [true, false] {
        let builder = with_421_after(10, "MAIL");
        let builder = if pipelining {
            builder
        } else {
            builder.without("PIPELINING")
        };
        let server = builder.start().await.unwrap();
        let pool = Client::from_url(&server.url()).unwrap().pool(1);
        let many = stream::iter(0..100).map(|n| message(&format!("user{n}@example.com")));
        let outcomes: Outcomes = pool.send_all(many).collect().await;
        assert_eq!(counted(&outcomes), (100, 0));
        for (n, outcome) in outcomes.iter().enumerate() {
            let to = &outcome.as_ref().unwrap().recipients[0].address;
            assert_eq!(
                to.as_str(),
                format!("user{n}@example.com"),
                "outcomes come in order"
            );
        }
        let mut arrived: Vec<_> = server
            .messages()
            .iter()
            .map(|message| message.recipients[0].clone())
            .collect();
        assert_eq!(arrived.len(), 100);
        arrived.sort();
        arrived.dedup();
        assert_eq!((arrived.len(), server.connections().len()), (100, 10));
    }
}

/// Its limits are kept, and no connection ends by 421.
#[tokio::test]
async fn a_pool_replaces_a_connection_at_its_number_of_messages() {
    for (limits, line) in [(10, "CHUNKING"), (1000, "LIMITS MAILMAX=10")] {
        let server = Server::builder()
            .plaintext()
            .offer(line)
            .start()
            .await
            .unwrap();
        let mut pool_limits = PoolConfig::new(1);
        pool_limits.max_messages = limits;
        let pool = Client::from_url(&server.url()).unwrap().pool(pool_limits);
        let many = stream::iter(0..35).map(|n| message(&format!("user{n}@example.com")));
        let outcomes: Outcomes = pool.send_all(many).collect().await;
        assert_eq!(counted(&outcomes), (35, 0), "{line}");
        pool.close().await;
        let connections = server.connections();
        assert_eq!(connections.len(), 4, "{line}");
        assert!(
            connections
                .iter()
                .all(|connection| connection.commands().last() == Some("QUIT")),
            "{line}"
        );
    }
}

/// No connection is made, and no outcome is added, after the last message.
#[tokio::test]
async fn a_pool_opens_no_connection_without_another_message() {
    for (limits, line) in [(10, "CHUNKING"), (1000, "LIMITS MAILMAX=10")] {
        let server = Server::builder()
            .plaintext()
            .offer(line)
            .start()
            .await
            .unwrap();
        let mut pool_limits = PoolConfig::new(1);
        pool_limits.max_messages = limits;
        let pool = Client::from_url(&server.url()).unwrap().pool(pool_limits);
        let many = stream::iter(0..30).map(|n| message(&format!("user{n}@example.com")));
        let outcomes: Outcomes = pool.send_all(many).collect().await;
        assert_eq!(counted(&outcomes), (30, 0), "{line}");
        pool.close().await;
        assert_eq!(server.connections().len(), 3, "{line}");
    }
}

/// 421 to the last message that the pool's limits allow in a session.
#[tokio::test]
async fn a_pool_continues_after_421_at_its_own_limit() {
    for most in [1, 9, 10] {
        let server = with_421_after(most, "MAIL").start().await.unwrap();
        let mut pool_limits = PoolConfig::new(1);
        pool_limits.max_messages = most + 1;
        let pool = Client::from_url(&server.url()).unwrap().pool(pool_limits);
        let many = stream::iter(0..30).map(|n| message(&format!("user{n}@example.com")));
        let outcomes: Outcomes = pool.send_all(many).collect().await;
        assert_eq!(counted(&outcomes), (30, 0), "{most}");
        assert_eq!(server.messages().len(), 30, "{most}");
    }
    // Where the first message of a session gets it, no other session follows.
    let server = with_421_after(0, "MAIL").start().await.unwrap();
    let mut pool_limits = PoolConfig::new(1);
    pool_limits.max_messages = 1;
    let pool = Client::from_url(&server.url()).unwrap().pool(pool_limits);
    let outcomes: Outcomes = pool
        .send_all(stream::repeat_with(|| message("you@example.com")))
        .collect()
        .await;
    assert_eq!(counted(&outcomes).0, 0);
    assert_eq!(server.connections().len(), 2);
}

/// A server that answers no message is not tried again and again.
#[tokio::test]
async fn a_pool_gives_up_if_no_message_is_answered() {
    let server = with_421_after(0, "MAIL").start().await.unwrap();
    let pool = Client::from_url(&server.url()).unwrap().pool(1);
    let many = stream::repeat_with(|| message("you@example.com"));
    let outcomes: Outcomes = pool.send_all(many).collect().await;
    let (sent, not_sent) = counted(&outcomes);
    assert!(sent == 0 && (1..=64).contains(&not_sent), "{not_sent}");
    assert_eq!(server.connections().len(), 2);

    let pool = Client::from_url("smtp://127.0.0.1:1?tls=none")
        .unwrap()
        .pool(1);
    let outcomes: Outcomes = pool
        .send_all(stream::repeat_with(|| message("you@example.com")))
        .collect()
        .await;
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].as_ref().unwrap_err().kind(), ErrorKind::Connect);
}

/// A session that ended because of a message says nothing about the server.
#[tokio::test]
async fn a_pool_continues_after_messages_whose_content_fails() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let pool = Client::from_url(&server.url()).unwrap().pool(1);
    let many = stream::iter(0..10).map(|n| match n {
        0 | 3..6 | 9 => message("you@example.com")
            .attach(Attachment::reader("a.txt", "text/plain", &b"content"[..]).size(1_000_000)),
        _ => message("you@example.com"),
    });
    let outcomes: Outcomes = pool.send_all(many).collect().await;
    let failed: Vec<_> = (0..10).filter(|n| outcomes[*n].is_err()).collect();
    assert_eq!(failed, [0, 3, 4, 5, 9]);
    for n in failed {
        let error = outcomes[n].as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input, "{error}");
    }
    assert_eq!(server.messages().len(), 5);
}

/// The last bytes of a message may be written together with the commands of the next one.
#[tokio::test]
async fn send_all_reports_progress_up_to_the_last_byte() {
    for (keyword, size) in [("CHUNKING", 100), ("CHUNKING", 1_000_000), ("DSN", 100)] {
        let server = Server::builder().plaintext().offer(keyword);
        let server = server.start().await.unwrap();
        let client = Client::from_url(&server.url()).unwrap();
        let mut connection = client.connect().await.unwrap();
        let last: Arc<Mutex<Vec<_>>> = Arc::new(Mutex::new(vec![None; 5]));
        let messages = stream::iter(0..5).map(|n| {
            let last = last.clone();
            let content = vec![b'x'; size];
            message("you@example.com")
                .attach(Attachment::bytes(
                    "a.bin",
                    "application/octet-stream",
                    content,
                ))
                .progress(move |progress| last.lock().unwrap()[n] = Some(progress))
        });
        let outcomes: Outcomes = connection.send_all(messages).collect().await;
        for (n, outcome) in outcomes.iter().enumerate() {
            let bytes = outcome.as_ref().unwrap().bytes;
            let last = last.lock().unwrap()[n].unwrap();
            let expected = (bytes, Some(bytes));
            assert_eq!((last.sent, last.total), expected, "{n}: {keyword}, {size}");
        }
    }
}

#[tokio::test]
async fn receipts_count_the_bytes_with_and_without_pipelining() {
    for keyword in ["PIPELINING", "HELP"] {
        for chunking in ["CHUNKING", "DSN"] {
            let builder = Server::builder()
                .plaintext()
                .without(keyword)
                .offer(chunking);
            let server = builder.offer("LIMITS RCPTMAX=1").start().await.unwrap();
            let mut connection = Client::from_url(&server.url())
                .unwrap()
                .connect()
                .await
                .unwrap();
            let to = |to: Vec<&'static str>| {
                Message::from(
                    MessageBuilder::new()
                        .from("me@example.org")
                        .to(to)
                        .text_body("Hello.\n"),
                )
            };
            let many = [
                to(vec!["a@x.org"]),
                to(vec!["b@x.org", "c@x.org"]),
                to(vec!["d@x.org"]),
            ];
            let outcomes: Outcomes = connection.send_all(stream::iter(many)).collect().await;
            let bytes: Vec<u64> = outcomes
                .into_iter()
                .map(|outcome| outcome.unwrap().bytes)
                .collect();
            let sizes: Vec<u64> = server
                .messages()
                .iter()
                .map(|message| message.size)
                .collect();
            assert_eq!(
                bytes,
                [sizes[0], sizes[1], sizes[3]],
                "without {keyword}, {chunking}"
            );
        }
    }
}

/// Where less than the message was refused, none of it was sent; a chunk goes with its commands.
#[tokio::test(start_paused = true)]
async fn the_receipt_of_an_error_counts_the_bytes_that_were_sent() {
    for chunking in [true, false] {
        let (mut connection, _serving) = connect(chunking, Duration::from_millis(1), None).await;
        let messages = || ["one@example.com", "nobody@example.com"].map(message);
        let mut outcomes: Outcomes = connection
            .send_all(stream::iter(messages()))
            .collect()
            .await;
        for message in messages() {
            outcomes.push(connection.send(message).await);
        }
        for outcome in outcomes {
            match outcome {
                Ok(receipt) => assert!(receipt.bytes > 0),
                Err(error) => {
                    let bytes = error.receipt().unwrap().bytes;
                    assert_eq!(bytes > 0, chunking, "{bytes} bytes, chunking: {chunking}");
                }
            }
        }
    }
}

/// The number of a hundred messages whose outcome is unknown when no reply comes.
async fn unknown_with(window: SendWindow) -> usize {
    let (client, server) = duplex(1024 * 1024);
    tokio::spawn(silent(server, "250-CHUNKING\r\n250 PIPELINING\r\n"));
    let endpoint = Endpoint::new("silent.example.org")
        .security(Security::None)
        .timeouts(Timeouts::uniform(Duration::from_secs(1)))
        .send_window(window);
    let mut connection = Connection::from_stream(client, &endpoint).await.unwrap();
    let many = stream::iter(0..100).map(|_| message("you@example.com"));
    let outcomes: Outcomes = connection.send_all(many).collect().await;
    let errors = outcomes.iter().map(|outcome| outcome.as_ref().unwrap_err());
    errors.filter(|error| error.outcome_unknown()).count()
}

#[tokio::test(start_paused = true)]
async fn the_window_bounds_what_becomes_unknown() {
    assert_eq!(unknown_with(SendWindow::default()).await, 64);
    for messages in [0, 1, 7, 100] {
        let window = SendWindow::new(messages);
        assert_eq!(unknown_with(window).await, messages.max(1));
    }
    let prepared = message("you@example.com").prepare().await.unwrap();
    let size = prepared.size().unwrap();
    for (bytes, unknown) in [(0, 1), (size / 2, 1), (size * 7 / 2, 3), (u64::MAX, 64)] {
        let mut window = SendWindow::default();
        window.bytes = Some(bytes);
        assert_eq!(unknown_with(window).await, unknown, "{bytes} bytes");
    }
}

/// With a limit of bytes, all messages are sent, larger ones and those of unknown size alone.
#[tokio::test(start_paused = true)]
async fn a_window_of_bytes_stops_no_message() {
    let (client, server) = duplex(1024 * 1024);
    let serving = tokio::spawn(far_away(server, true, Duration::from_millis(1), None));
    let mut window = SendWindow::new(8);
    window.bytes = Some(1_000);
    let endpoint = Endpoint::new("far.example.org")
        .security(Security::None)
        .send_window(window);
    let mut connection = Connection::from_stream(client, &endpoint).await.unwrap();
    let messages = stream::iter(0..30).map(|n| match n % 3 {
        0 => message("you@example.com"),
        1 => support::hello_to(&["you@example.com"])
            .text_body("A line.\n".repeat(1_000))
            .into(),
        _ => message("you@example.com").attach(Attachment::reader(
            "a.txt",
            "text/plain",
            &b"content"[..],
        )),
    });
    let outcomes: Outcomes = connection.send_all(messages).collect().await;
    assert!(outcomes.iter().all(|outcome| outcome.is_ok()));
    connection.quit().await;
    assert_eq!(serving.await.unwrap(), 30);
}

/// A message that no other connection could be made for has the facts of that attempt.
#[tokio::test]
async fn a_failed_renewal_is_in_the_receipt() {
    let server = Server::start().await.unwrap();
    let mut limits = PoolConfig::new(1);
    limits.max_messages = 1;
    let pool = Client::from_url(&server.url()).unwrap().pool(limits);
    let first_is_sent = tokio::sync::Notify::new();
    let messages = stream::unfold((0, Some(server)), |(n, mut server)| {
        let first_is_sent = &first_is_sent;
        async move {
            if n > 0 {
                first_is_sent.notified().await;
                // No connection is accepted any more.
                server = None;
            }
            Some((message("you@example.com"), (n + 1, server)))
        }
    });
    let outcomes = pool.send_all(messages.take(2));
    let outcomes: Outcomes = outcomes
        .inspect(|_| first_is_sent.notify_one())
        .collect()
        .await;
    assert!(outcomes[0].as_ref().unwrap().tls.is_some());
    let error = outcomes[1].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    let receipt = error.receipt().unwrap();
    assert_eq!(receipt.recipients.len(), 1);
    assert!(receipt.tls.is_none(), "{receipt:?}");
}

/// Greets, offers this, and says no more.
async fn silent(mut stream: DuplexStream, offers: &str) {
    stream
        .write_all(b"220 silent.example.org\r\n")
        .await
        .unwrap();
    let mut buffer = [0; 1024];
    let _ = stream.read(&mut buffer).await.unwrap();
    stream
        .write_all(format!("250-silent.example.org\r\n{offers}").as_bytes())
        .await
        .unwrap();
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

async fn connect_to_silent(offers: &'static str, timeouts: Timeouts) -> Connection {
    let (client, server) = duplex(1024 * 1024);
    tokio::spawn(silent(server, offers));
    let endpoint = Endpoint::new("silent.example.org")
        .security(Security::None)
        .timeouts(timeouts);
    Connection::from_stream(client, &endpoint).await.unwrap()
}

/// The deadline of a message that comes later is not that of those before it.
#[tokio::test(start_paused = true)]
async fn each_message_has_its_own_deadline() {
    for (offers, unknown) in [
        ("250-CHUNKING\r\n250 PIPELINING\r\n", true),
        ("250 PIPELINING\r\n", false),
    ] {
        let timeouts = Timeouts::default().with_deadline(Duration::from_secs(1));
        let mut connection = connect_to_silent(offers, timeouts).await;
        let slowly = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Some((message("you@example.com"), ()))
        });
        let mut outcomes = pin!(connection.send_all(slowly));
        let began = tokio::time::Instant::now();
        let error = outcomes.next().await.unwrap().unwrap_err();
        let waited = began.elapsed();
        assert!(
            waited >= Duration::from_millis(1300) && waited < Duration::from_millis(1400),
            "{waited:?}"
        );
        assert_eq!(
            (error.kind(), error.outcome_unknown()),
            (ErrorKind::Timeout, unknown),
            "{error}"
        );
        assert!(
            error.message().contains("before the deadline of 1s"),
            "{error}"
        );
        let hint = error.hint().unwrap();
        assert!(
            unknown || hint.contains("increase the deadline") && !hint.contains("timeout="),
            "{hint}"
        );
    }
}

/// All waiting together has its limit, however often the next message interrupts it.
#[tokio::test(start_paused = true)]
async fn the_total_wait_is_bounded_while_messages_arrive() {
    let mut timeouts = Timeouts::default();
    (timeouts.total_wait, timeouts.total_wait_per_recipient) =
        (Some(Duration::from_secs(2)), Duration::ZERO);
    let mut connection = connect_to_silent("250-CHUNKING\r\n250 PIPELINING\r\n", timeouts).await;
    let steadily = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Some((message("you@example.com"), ()))
    });
    let mut outcomes = pin!(connection.send_all(steadily));
    let began = tokio::time::Instant::now();
    let error = outcomes.next().await.unwrap().unwrap_err();
    assert!(
        error.message().contains("allowed for waiting are over"),
        "{error}"
    );
    assert!(
        began.elapsed() < Duration::from_millis(2400),
        "{:?}",
        began.elapsed()
    );
}

/// A runtime whose one thread for files is in use, until the test ends.
fn without_files(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let (release, released) = mpsc::channel::<()>();
    runtime.spawn_blocking(move || released.recv());
    runtime.block_on(test);
    drop(release);
}

fn with_file() -> Message<'static> {
    message("you@example.com").attach(Attachment::file(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/Cargo.toml"
    )))
}

#[test]
fn timeouts_hold_while_the_next_message_is_prepared() {
    without_files(async {
        let timeouts = Timeouts::uniform(Duration::from_millis(100));
        let mut connection =
            connect_to_silent("250-CHUNKING\r\n250 PIPELINING\r\n", timeouts).await;
        let messages = stream::iter([message("you@example.com"), with_file()]);
        let outcomes: Outcomes = connection.send_all(messages).collect().await;
        let first = outcomes[0].as_ref().unwrap_err();
        assert!(
            first.kind() == ErrorKind::Timeout && first.outcome_unknown(),
            "{first}"
        );
        // It had not begun.
        let second = outcomes[1].as_ref().unwrap_err();
        assert!(
            second.is_transient() && second.kind() == ErrorKind::Closed,
            "{second}"
        );
        assert_eq!(outcomes.len(), 2);
    });
}

#[test]
fn the_deadline_includes_preparing_the_message() {
    without_files(async {
        let deadline = Timeouts::default().with_deadline(Duration::from_millis(50));
        let mut connection = connect_to_silent("250 PIPELINING\r\n", deadline.clone()).await;
        let client = Client::new(
            Endpoint::new("127.0.0.1")
                .port(1)
                .security(Security::None)
                .timeouts(deadline),
        );
        let all = connection
            .send_all(stream::iter([with_file()]))
            .collect::<Outcomes>()
            .await;
        let sent = [
            connection.send(with_file()).await,
            client.send(with_file()).await,
            client.pool(1).send(with_file()).await,
        ];
        for result in all.into_iter().chain(sent) {
            let error = result.unwrap_err();
            assert_eq!(
                (error.kind(), error.phase()),
                (ErrorKind::Timeout, Phase::Setup),
                "{error}"
            );
            assert_eq!(
                error.message(),
                "the message was not prepared before the deadline of 50ms"
            );
            assert!(
                error.is_transient() && error.hint().unwrap().contains("increase the deadline"),
                "{error}"
            );
        }
    });
}
