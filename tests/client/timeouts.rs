//! Time: a limit for each phase that a trickle does not renew, and limits for the whole. The clock
//! is tokio's, paused, so that ten minutes pass at once.

use std::io::Cursor;
use std::time::Duration;

use envoi::testing::Server;
use envoi::tls::{Security, TlsSettings, Trust};
use envoi::{Connection, Endpoint, Envelope, Error, ErrorKind, LineEnds, Message, Phase, Timeouts};
use futures::StreamExt as _;
use support::address;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

/// The capacity of the wire for unread bytes.
const WIRE: usize = 16 * 1024;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn message(bytes: usize) -> Message<'static> {
    let envelope = Envelope::new(address("me@example.org"), [address("you@example.com")]).unwrap();
    Message::raw_stream(Cursor::new(
        [&b"A: b\r\n\r\n"[..], &vec![b'x'; bytes]].concat(),
    ))
    .envelope(envelope)
}

/// Sends a message to the server, and tells what came of it and how long it took.
async fn send(
    timeouts: Timeouts,
    message: Message<'static>,
    server: impl AsyncFnOnce(DuplexStream),
) -> (Result<(), Error>, Duration) {
    let (client, stream) = duplex(WIRE);
    let endpoint = Endpoint::new("mail.example.org")
        .security(Security::None)
        .timeouts(timeouts);
    let began = Instant::now();
    let sending = async {
        let mut connection = Connection::from_stream(client, &endpoint).await?;
        connection.send(message).await.map(|_| ())
    };
    // The server's part never ends before the client's.
    let serving = async {
        server(stream).await;
        std::future::pending::<()>().await
    };
    tokio::select! {
        result = sending => (result, began.elapsed()),
        () = serving => unreachable!(),
    }
}

/// Says each line when something was read, but for the first.
async fn converse(stream: &mut DuplexStream, lines: &[&str]) {
    for line in lines {
        stream.write_all(line.as_bytes()).await.unwrap();
        let _heard = stream.read(&mut [0; 4096]).await.unwrap();
    }
}

async fn trickle(stream: &mut DuplexStream, line: &str, every: Duration) {
    for byte in line.bytes().cycle() {
        sleep(every).await;
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
    }
}

#[track_caller]
fn assert_timeout(outcome: &(Result<(), Error>, Duration), phase: Phase, after: Duration) {
    let (result, took) = outcome;
    let error = result.as_ref().unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Timeout, phase),
        "{error}"
    );
    assert!(
        *took >= after && *took < after + seconds(2),
        "after {took:?}: {error}"
    );
}

const UP_TO_DATA: [&str; 4] = [
    "220 mail.example.org\r\n",
    "250 mail.example.org\r\n",
    "250 Ok\r\n",
    "250 Ok\r\n",
];

#[tokio::test(start_paused = true)]
async fn each_phase_has_its_own_timeout() {
    let silent = send(Timeouts::default(), message(10), async |_stream| {
        std::future::pending().await
    })
    .await;
    assert_timeout(&silent, Phase::Greeting, seconds(300));
    assert!(silent.0.unwrap_err().hint().unwrap().contains("smtps"));

    for (answers, phase, limit) in [
        (1, Phase::Hello, 300),
        (2, Phase::Mail, 300),
        (3, Phase::Rcpt, 300),
        (4, Phase::Data, 120),
    ] {
        let outcome = send(Timeouts::default(), message(10), async |mut stream| {
            converse(&mut stream, &UP_TO_DATA[..answers]).await;
            std::future::pending().await
        });
        assert_timeout(&outcome.await, phase, seconds(limit));
    }
}

#[tokio::test(start_paused = true)]
async fn a_trickle_of_bytes_renews_no_timeout() {
    let outcome = send(Timeouts::default(), message(10), async |mut stream| {
        trickle(&mut stream, "220-still here\r\n", seconds(10)).await;
    });
    assert_timeout(&outcome.await, Phase::Greeting, seconds(300));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_after_the_message_is_an_unknown_outcome() {
    let outcome = send(Timeouts::default(), message(10), async |mut stream| {
        converse(&mut stream, &UP_TO_DATA).await;
        converse(&mut stream, &["354 go\r\n"]).await;
        std::future::pending().await
    });
    let outcome = outcome.await;
    assert_timeout(&outcome, Phase::EndOfData, seconds(600));
    let error = outcome.0.unwrap_err();
    assert!(error.outcome_unknown() && !error.is_transient() && !error.is_permanent());
    assert_eq!(
        error.receipt().unwrap().recipients[0].outcome,
        envoi::Outcome::Unknown
    );
}

/// With PRDR, several replies come in a row: the limit is one for each.
#[tokio::test(start_paused = true)]
async fn the_total_wait_grows_with_the_recipients() {
    let to = [address("you@example.com"), address("they@example.com")];
    let envelope = Envelope::new(address("me@example.org"), to).unwrap();
    let message = Message::raw_stream(Cursor::new(b"A: b\r\n\r\nx")).envelope(envelope);
    let (result, took) = send(Timeouts::default(), message, async |mut stream| {
        converse(
            &mut stream,
            &[
                "220 mail.example.org\r\n",
                "250-mail.example.org\r\n250 PRDR\r\n",
            ],
        )
        .await;
        converse(
            &mut stream,
            &["250 Ok\r\n", "250 Ok\r\n", "250 Ok\r\n", "354 go\r\n"],
        )
        .await;
        for line in ["353 Each\r\n", "250 Ok\r\n", "550 No\r\n", "250 Ok\r\n"] {
            sleep(seconds(500)).await;
            stream.write_all(line.as_bytes()).await.unwrap();
        }
        std::future::pending().await
    })
    .await;
    result.unwrap();
    assert_eq!(took.as_secs(), 2000);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_reads_nothing_times_out() {
    let outcome = send(
        Timeouts::default(),
        message(1_000_000),
        async |mut stream| {
            converse(&mut stream, &UP_TO_DATA).await;
            stream.write_all(b"354 go\r\n").await.unwrap();
            std::future::pending().await
        },
    );
    let outcome = outcome.await;
    assert_timeout(&outcome, Phase::Body, seconds(180));
    assert!(!outcome.0.unwrap_err().outcome_unknown());
}

/// Without PIPELINING, a chunk is answered before the next goes: that is a wait for the server,
/// too.
#[tokio::test(start_paused = true)]
async fn a_missing_reply_to_a_chunk_times_out() {
    let binary = message(1_000_000).line_ends(LineEnds::Keep);
    let outcome = send(Timeouts::default(), binary, async |mut stream| {
        converse(
            &mut stream,
            &["220 x\r\n", "250-x\r\n250-CHUNKING\r\n250 BINARYMIME\r\n"],
        )
        .await;
        converse(&mut stream, &["250 Ok\r\n", "250 Ok\r\n"]).await;
        while stream.read(&mut [0; 4096]).await.unwrap() > 0 {}
    });
    let outcome = outcome.await;
    assert_timeout(&outcome, Phase::Body, seconds(180));
    assert!(!outcome.0.unwrap_err().outcome_unknown());
}

#[tokio::test(start_paused = true)]
async fn a_server_below_the_minimum_rate_times_out() {
    // 100 bytes a second are less than the 500 that are asked for: after 3 minutes' grace, and what
    // the bytes that went have bought, it is over.
    let mut timeouts = Timeouts::default();
    timeouts.min_rate = 500;
    let (result, took) = send(timeouts, message(1_000_000), async |mut stream| {
        converse(&mut stream, &UP_TO_DATA).await;
        stream.write_all(b"354 go\r\n").await.unwrap();
        loop {
            sleep(seconds(1)).await;
            let _heard = stream.read(&mut [0; 100]).await.unwrap();
        }
    })
    .await;
    let error = result.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Timeout, Phase::Body),
        "{error}"
    );
    assert!(took > seconds(180) && took < seconds(1200), "{took:?}");
}

/// What TLS has encrypted is more than the server takes in the time in which it must take a byte.
#[tokio::test(start_paused = true)]
async fn each_byte_that_leaves_tls_renews_the_timeout_of_the_body() {
    let certified = Server::start().await.unwrap();
    let (client, wire) = duplex(WIRE);
    let (mut from_client, mut to_client) = tokio::io::split(wire);
    let (network, server) = duplex(WIRE);
    let (mut from_server, mut to_server) = tokio::io::split(network);
    let upwards = tokio::spawn(async move {
        let mut buffer = [0; 1000];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            to_server.write_all(&buffer[..length]).await.unwrap();
            sleep(seconds(1)).await;
        }
    });
    let downwards = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    });
    let acceptor = TlsAcceptor::from(certified.tls_config());
    let serving = tokio::spawn(async move {
        let mut stream = acceptor.accept(server).await.unwrap();
        for line in UP_TO_DATA.iter().chain(&["354 go\r\n"]) {
            stream.write_all(line.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            if !line.starts_with("354") {
                let _heard = stream.read(&mut [0; 4096]).await.unwrap();
            }
        }
        let mut message = Vec::new();
        while !message.ends_with(b"\r\n.\r\n") {
            stream.read_buf(&mut message).await.unwrap();
        }
        stream.write_all(b"250 Ok\r\n").await.unwrap();
        stream.flush().await.unwrap();
        message.len()
    });
    let mut timeouts = Timeouts::default();
    timeouts.body = seconds(20);
    let endpoint = Endpoint::new("localhost")
        .security(Security::Implicit)
        .tls(TlsSettings::new(Trust::empty().pem(certified.ca_pem())))
        .timeouts(timeouts);
    let mut connection = Connection::from_stream(client, &endpoint).await.unwrap();
    let began = Instant::now();
    let _receipt = connection.send(message(200_000)).await.unwrap();
    assert!(serving.await.unwrap() > 200_000);
    assert!(began.elapsed() > seconds(180), "{:?}", began.elapsed());
    upwards.abort();
    downwards.abort();
}

#[tokio::test(start_paused = true)]
async fn a_slow_message_source_causes_no_timeout() {
    let (mut source, reader) = duplex(100);
    let writing = tokio::spawn(async move {
        source.write_all(b"A: b\r\n\r\n").await.unwrap();
        for _ in 0..10 {
            sleep(seconds(1000)).await;
            source.write_all(b"a line\r\n").await.unwrap();
        }
    });
    let envelope = Envelope::new(address("me@example.org"), [address("you@example.com")]).unwrap();
    let slow = Message::raw_stream(reader).envelope(envelope);
    let (result, took) = send(Timeouts::default(), slow, async |mut stream| {
        converse(&mut stream, &UP_TO_DATA).await;
        stream.write_all(b"354 go\r\n").await.unwrap();
        let mut message = Vec::new();
        while !message.ends_with(b"\r\n.\r\n") {
            stream.read_buf(&mut message).await.unwrap();
        }
        stream.write_all(b"250 Ok\r\n").await.unwrap();
        std::future::pending().await
    })
    .await;
    result.unwrap();
    writing.await.unwrap();
    assert!(took >= seconds(10_000));
}

/// The message comes in pieces, two at a time, and each time before the server's limit is over.
#[tokio::test(start_paused = true)]
async fn pieces_of_the_message_do_not_renew_the_timeout_of_a_server_that_reads_nothing() {
    let (mut source, reader) = duplex(1_000_000);
    let writing = tokio::spawn(async move {
        source.write_all(b"A: b\r\n\r\n").await.unwrap();
        while source.write_all(&[b'x'; 57 * 1024]).await.is_ok() {
            // The next one is there as soon as this one was taken.
            source.write_all(&[b'x'; 57 * 1024]).await.unwrap();
            sleep(seconds(100)).await;
        }
    });
    let envelope = Envelope::new(address("me@example.org"), [address("you@example.com")]).unwrap();
    let slow = Message::raw_stream(reader).envelope(envelope);
    let outcome = send(Timeouts::default(), slow, async |mut stream| {
        converse(&mut stream, &UP_TO_DATA).await;
        stream.write_all(b"354 go\r\n").await.unwrap();
        std::future::pending().await
    });
    assert_timeout(&outcome.await, Phase::Body, seconds(180));
    writing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_uniform_timeout_bounds_the_total_wait() {
    // Each answer comes just in time, and together they take more than four times the limit.
    let late = Timeouts::uniform(seconds(10));
    let outcome = send(late, message(10), async |mut stream| {
        for line in UP_TO_DATA {
            sleep(seconds(9)).await;
            stream.write_all(line.as_bytes()).await.unwrap();
        }
        sleep(seconds(9)).await;
        stream.write_all(b"354 go\r\n").await.unwrap();
        std::future::pending().await
    });
    // `connect` and `send` are two calls here; each has four times the limit.
    let (result, took) = outcome.await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(took <= seconds(80), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_send() {
    let timeouts = Timeouts::default().with_deadline(seconds(30));
    let outcome = send(timeouts, message(1_000_000), async |mut stream| {
        converse(&mut stream, &UP_TO_DATA).await;
        stream.write_all(b"354 go\r\n").await.unwrap();
        loop {
            sleep(seconds(1)).await;
            let _heard = stream.read(&mut [0; 1000]).await.unwrap();
        }
    });
    let outcome = outcome.await;
    assert_timeout(&outcome, Phase::Body, seconds(30));
    assert!(outcome.0.unwrap_err().to_string().contains("deadline"));
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_quit_takes_one_second() {
    let (client, mut stream) = duplex(WIRE);
    let endpoint = Endpoint::new("mail.example.org").security(Security::None);
    let greeting = converse(&mut stream, &UP_TO_DATA[..2]);
    let (connection, ()) = tokio::join!(Connection::from_stream(client, &endpoint), async {
        tokio::time::timeout(seconds(1), greeting).await.ok();
    });
    let connection = connection.unwrap();
    let began = Instant::now();
    connection.quit().await;
    assert_eq!(began.elapsed(), seconds(1));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"QUIT\r\n"), "{rest:?}");
}

#[tokio::test(start_paused = true)]
async fn maximal_timeouts_do_not_overflow() {
    let forever = Timeouts::uniform(Duration::MAX).with_deadline(Duration::MAX);
    let (result, _) = send(forever, message(100_000), async |mut stream| {
        converse(&mut stream, &UP_TO_DATA).await;
        stream.write_all(b"354 go\r\n").await.unwrap();
        let mut message = Vec::new();
        while !message.ends_with(b"\r\n.\r\n") {
            sleep(seconds(1)).await;
            stream.read_buf(&mut message).await.unwrap();
        }
        stream.write_all(b"250 Ok\r\n").await.unwrap();
    })
    .await;
    result.unwrap();
}

/// Each call has its own time, however old the connection is: with a deadline, and with a limit for
/// all waiting.
#[tokio::test(start_paused = true)]
async fn each_call_on_a_kept_connection_has_its_own_time() {
    let (client, mut stream) = duplex(WIRE);
    let mut timeouts = Timeouts::default().with_deadline(seconds(30));
    timeouts.total_wait = Some(seconds(25));
    let endpoint = Endpoint::new("mail.example.org")
        .security(Security::None)
        .timeouts(timeouts);
    let serving = tokio::spawn(async move {
        converse(&mut stream, &UP_TO_DATA[..2]).await;
        loop {
            sleep(seconds(10)).await;
            stream.write_all(b"250 Ok\r\n").await.unwrap();
            if stream.read(&mut [0; 100]).await.unwrap() == 0 {
                return stream;
            }
        }
    });
    let mut connection = Connection::from_stream(client, &endpoint).await.unwrap();
    for _ in 0..5 {
        sleep(seconds(60)).await;
        connection.verify().await.unwrap();
        connection.command("VRFY you").await.unwrap();
        connection.reset().await.unwrap();
    }
    // From MAIL on it is one call, whatever is asked in between.
    connection.mail(address("me@example.org")).await.unwrap();
    connection.noop().await.unwrap();
    let error = connection.noop().await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Timeout && error.to_string().contains("25s allowed for waiting"),
        "{error}"
    );
    serving.abort();
}

/// What was refused before the time is over stays refused, also where the message has gone.
#[tokio::test(start_paused = true)]
async fn a_refusal_before_a_timeout_stays_a_refusal() {
    for (offer, replies, phase, code) in [
        (
            "250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
            "450 Later\r\n",
            Phase::Mail,
            450,
        ),
        (
            "250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
            "250 Ok\r\n550 No\r\n",
            Phase::Rcpt,
            550,
        ),
        (
            "250-x\r\n250 PIPELINING\r\n",
            "550 No\r\n",
            Phase::Mail,
            550,
        ),
        (
            "250-x\r\n250 PIPELINING\r\n",
            "250 Ok\r\n550 No\r\n",
            Phase::Rcpt,
            550,
        ),
    ] {
        let envelope =
            Envelope::new(address("me@example.org"), [address("you@example.com")]).unwrap();
        let message = Message::raw("A: b\r\n\r\nc\r\n").envelope(envelope);
        let (result, elapsed) = send(
            Timeouts::uniform(seconds(20)),
            message,
            async |mut stream| {
                converse(&mut stream, &["220 x\r\n", offer, replies]).await;
            },
        )
        .await;
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase(), elapsed),
            (ErrorKind::Refused, phase, seconds(20)),
            "{error}"
        );
        assert_eq!(error.reply().map(envoi::proto::Reply::code), Some(code));
        assert!(!error.outcome_unknown());
    }
}

/// Messages that come while a reply is waited for do not renew its limit.
#[tokio::test(start_paused = true)]
async fn send_all_does_not_renew_the_timeout_of_a_reply() {
    let (client, mut stream) = duplex(WIRE);
    let endpoint = Endpoint::new("mail.example.org")
        .security(Security::None)
        .check_after_idle(Duration::MAX);
    let serving = tokio::spawn(async move {
        converse(
            &mut stream,
            &["220 x\r\n", "250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n"],
        )
        .await;
        while stream.read(&mut [0; 4096]).await.unwrap() > 0 {}
    });
    let mut connection = Connection::from_stream(client, &endpoint).await.unwrap();
    let letters = futures::stream::unfold((), async |()| {
        sleep(seconds(70)).await;
        let envelope =
            Envelope::new(address("me@example.org"), [address("you@example.com")]).unwrap();
        Some((Message::raw("A: b\r\n\r\nc\r\n").envelope(envelope), ()))
    });
    let began = Instant::now();
    let outcomes: Vec<_> = connection.send_all(letters).collect().await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.as_ref().is_err_and(Error::outcome_unknown)),
        "{outcomes:?}"
    );
    assert_eq!((began.elapsed(), outcomes.len()), (seconds(70 + 300), 5));
    drop(connection);
    serving.await.unwrap();
}

/// A slow network is within the lowest rate for each message, and so it is for many in a row.
#[tokio::test(start_paused = true)]
async fn send_all_accepts_a_slow_server_above_the_minimum_rate() {
    let (client, stream) = duplex(1000);
    let endpoint = Endpoint::new("mail.example.org")
        .security(Security::None)
        .timeouts(Timeouts::uniform(seconds(20)));
    let serving = tokio::spawn(async move {
        let (mut stream, mut input, mut in_data) = (stream, Vec::new(), false);
        stream.write_all(b"220 x\r\n").await.unwrap();
        let mut buffer = [0; 500];
        loop {
            // 5,000 bytes a second, ten times as much as there must be.
            sleep(Duration::from_millis(100)).await;
            let length = stream.read(&mut buffer).await.unwrap();
            if length == 0 {
                return;
            }
            input.extend_from_slice(&buffer[..length]);
            while let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = input.drain(..end + 2).collect();
                let reply = match &line[..end] {
                    b"." => "250 stored\r\n",
                    _ if in_data => continue,
                    b"DATA" => "354 go\r\n",
                    line if line.starts_with(b"EHLO") => "250-x\r\n250 PIPELINING\r\n",
                    _ => "250 ok\r\n",
                };
                in_data = reply.starts_with("354");
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        }
    });
    let mut connection = Connection::from_stream(client, &endpoint).await.unwrap();
    let letters = futures::stream::iter(0..10).map(|_| {
        let envelope =
            Envelope::new(address("me@example.org"), [address("you@example.com")]).unwrap();
        Message::raw("A: b\r\n\r\n".to_owned() + &"x\r\n".repeat(20_000)).envelope(envelope)
    });
    let began = Instant::now();
    let outcomes: Vec<_> = connection.send_all(letters).collect().await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert!(began.elapsed() > seconds(100));
    drop(connection);
    serving.await.unwrap();
}
