//! Prepared messages: one value that every way of sending takes, and whose bytes are those that
//! leave.

use std::cell::Cell;
use std::io::Cursor;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use envoi::proto::Content;
use envoi::testing::{Builder, Fault, Recorder, Server, Step};
use envoi::{
    Address, Attachment, Client, Connection, DeliveryOptions, Envelope, Error, ErrorKind, Failover,
    LineEnds, Mailer, Message, Phase, PreparedMessage, Receipt, RetryPolicy,
};
use futures::stream::{self, StreamExt as _};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use support::{address, hello, noise};
use tower::Service as _;

fn envelope() -> Envelope {
    Envelope::new(address("me@example.org"), [address("you@example.com")]).unwrap()
}

fn raw(message: &str) -> Message<'static> {
    Message::raw(message.to_owned()).envelope(envelope())
}

fn assert_sent(result: Result<Receipt, Error>) {
    assert!(result.unwrap().all_accepted());
}

async fn bytes_of(message: PreparedMessage) -> Result<Vec<u8>, Error> {
    let mut body = message.into_body();
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await {
        bytes.extend_from_slice(chunk?.bytes());
    }
    Ok(bytes)
}

fn copy(message: &PreparedMessage) -> PreparedMessage {
    message.try_clone().expect("it contains no stream")
}

/// A server for each way to frame a message: DATA, one or more chunks, chunks of any bytes, LMTP.
fn servers() -> [Builder; 4] {
    let plain = || Server::builder().plaintext();
    [
        plain(),
        plain().offer("CHUNKING"),
        plain().offer("CHUNKING").offer("BINARYMIME"),
        Server::builder().lmtp(),
    ]
}

/// Where the bytes of a message come from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Bytes,
    File,
    Stream,
    /// A built message with attachments.
    Built,
}

/// Makes a message, as often as it is called.
fn message(source: Source, text: &[u8], path: &Path) -> Message<'static> {
    let envelope = envelope();
    match source {
        Source::Bytes => Message::raw(text.to_vec()).envelope(envelope),
        Source::File => Message::raw_file(path).envelope(envelope),
        Source::Stream => Message::raw_stream(Cursor::new(text.to_vec())).envelope(envelope),
        Source::Built => {
            let mail = hello().message_id("1@example.org").date(0_u64);
            Message::from(mail.text_body(String::from_utf8_lossy(text).into_owned()))
                .attach(Attachment::bytes("a", "message/rfc822", text.to_vec()))
                .attach(Attachment::file(path))
                .binary(true)
        }
    }
}

#[test]
fn the_bytes_of_a_prepared_message_are_those_that_a_server_receives() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let servers = servers().map(|builder| runtime.block_on(builder.start()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("message.eml");
    let text = proptest::collection::vec(
        prop::sample::select(vec![
            &b"\r\n"[..],
            b"\r\n",
            b"\n",
            b"\r",
            b".",
            b"text",
            b"\r\n.\r\n",
            b"Gr\xc3\xbc\xc3\x9fe",
            b"\0",
        ]),
        0..12,
    );
    let source = prop::sample::select(vec![
        Source::Bytes,
        Source::File,
        Source::Stream,
        Source::Built,
    ]);
    let line_ends =
        prop::sample::select(vec![LineEnds::Normalize, LineEnds::Refuse, LineEnds::Keep]);
    let header: [&str; 3] = ["", "short", "long"];
    let header = prop::sample::select(header.to_vec());
    let sent_messages = Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(150));
    let cases = (
        text,
        source,
        line_ends,
        header,
        0..servers.len(),
        0..3_usize,
    );
    let result = runner.run(&cases, |(text, source, line_ends, header, to, blocks)| {
        let text = [
            &b"X-First: 1\r\n\r\n"[..],
            &text.concat(),
            &b"A line.\r\n".repeat(blocks * 8_000),
            &text.concat(),
        ]
        .concat();
        std::fs::write(&path, &text).unwrap();
        let server = &servers[to];
        server.clear();
        runtime.block_on(async {
            let prepare = async || {
                let message = message(source, &text, &path).line_ends(line_ends);
                let prepared = message.prepare().await?;
                match header {
                    "" => Ok(prepared),
                    "short" => prepared.prepend_header("X-Added", "yes"),
                    _ => prepared.prepend_header("X-Added", &"word ".repeat(40)),
                }
            };
            let Ok(mut prepared) = prepare().await else {
                // Refused before anything is sent.
                return Ok(());
            };
            let client = Client::from_url(&server.url()).unwrap();
            let mut connection = client.connect().await.unwrap();
            let sent = match prepared.try_clone() {
                Some(copy) => connection.send(copy).await,
                None => connection.send(prepare().await.unwrap()).await,
            };
            prepared.negotiate(connection.capabilities());
            let (size, content) = (prepared.size(), prepared.content());
            let bytes = bytes_of(prepared).await;
            match sent {
                Ok(receipt) => {
                    sent_messages.set(sent_messages.get() + 1);
                    let bytes = bytes.map_err(|error| TestCaseError::fail(error.to_string()))?;
                    let received = server.next_message().await.read().unwrap();
                    prop_assert_eq!(
                        String::from_utf8_lossy(&received),
                        String::from_utf8_lossy(&bytes)
                    );
                    prop_assert_eq!(receipt.bytes, bytes.len() as u64);
                    prop_assert!(size.is_none_or(|size| size == bytes.len() as u64));
                    prop_assert!(content == Content::Binary || bytes.ends_with(b"\r\n"));
                    let added = format!(
                        "X-Added: {}",
                        if header == "short" { "yes" } else { "word" }
                    );
                    prop_assert_eq!(bytes.starts_with(added.as_bytes()), !header.is_empty());
                }
                // A bare line end in a stream, a NUL, or a server that does not take any bytes.
                Err(error) => prop_assert!(
                    bytes.is_err() || text.contains(&0) || error.kind() == ErrorKind::Unsupported,
                    "{}",
                    error
                ),
            }
            Ok(())
        })
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(sent_messages.get() > 50, "most messages are sent");
}

#[tokio::test]
async fn every_way_of_sending_takes_a_prepared_message() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.bin");
    std::fs::write(&path, noise(100_000)).unwrap();
    let built = Message::from(hello()).attach(Attachment::file(&path));
    // Without Message-ID and date, which are the same wherever it goes.
    let prepared = built.prepare().await.unwrap();
    let prepared = prepared.prepend_header("X-Added", "yes").unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let pool = client.pool(1);

    assert_sent(client.send(copy(&prepared)).await);
    let mut connection = client.connect().await.unwrap();
    assert_sent(connection.send(copy(&prepared)).await);
    let messages = || stream::iter([&prepared; 2]).map(|message| copy(message).into());
    let outcomes: Vec<_> = connection.send_all(messages()).collect().await;
    assert!(outcomes.len() == 2 && outcomes.iter().all(Result::is_ok));
    assert_sent(pool.send(copy(&prepared)).await);
    let outcomes: Vec<_> = pin!(pool.send_all(messages())).collect().await;
    assert!(outcomes.len() == 2 && outcomes.iter().all(Result::is_ok));
    let failover = Failover::new([client.clone().into()]);
    assert_sent(failover.send(copy(&prepared)).await);
    assert_sent(client.clone().call(copy(&prepared).into()).await);
    let mailer: &dyn Mailer = &client;
    assert_sent(mailer.send(copy(&prepared).into()).await);
    let (blocking, message) = (envoi::blocking::Client::from(client), copy(&prepared));
    let sending = tokio::task::spawn_blocking(move || blocking.send(message));
    assert_sent(sending.await.unwrap());

    let recorder = Recorder::new();
    assert_sent(recorder.send(copy(&prepared)).await);
    let expected = bytes_of(prepared).await.unwrap();
    assert_eq!(recorder.messages()[0].bytes, expected);
    let received = server.messages();
    assert_eq!(received.len(), 11);
    for message in received {
        assert!(message.read().unwrap() == expected);
    }
}

#[test]
fn blocking_programs_prepare_and_read() {
    let prepared = envoi::blocking::prepare(raw("A: b\n\nc")).unwrap();
    let chunks = envoi::blocking::chunks(prepared.into_body());
    let bytes = chunks.map(|chunk| chunk.unwrap().into_bytes());
    assert_eq!(bytes.collect::<Vec<_>>().concat(), b"A: b\r\n\r\nc\r\n");
    // An error is the last item.
    let stream = Message::raw_stream(&b"A: b\r\n\r\nc\nd"[..]).envelope(envelope());
    let prepared = envoi::blocking::prepare(stream.line_ends(LineEnds::Refuse)).unwrap();
    let items: Vec<_> = envoi::blocking::chunks(prepared.into_body()).collect();
    let errors = items.iter().filter(|item| item.is_err()).count();
    assert!(errors == 1 && items.last().unwrap().is_err());
}

#[tokio::test]
async fn a_prepared_message_is_retried_with_progress() {
    let server = Server::builder()
        .plaintext()
        .fault(Fault::reply(Step::Message, "451 4.3.0 Not now").times(2))
        .start()
        .await
        .unwrap();
    let reported = Arc::new(AtomicU64::new(0));
    let seen = reported.clone();
    let message = Message::from(hello()).progress(move |progress| {
        assert!(progress.sent <= progress.total.unwrap());
        seen.fetch_add(progress.sent, Ordering::Relaxed);
    });
    let prepared = message.prepare().await.unwrap();
    let mut policy = RetryPolicy::new(2);
    policy.initial_backoff = std::time::Duration::from_millis(1);
    let client = Client::from_url(&server.url()).unwrap().retries(policy);
    let receipt = client.send(copy(&prepared)).await.unwrap();
    assert_eq!(receipt.transactions, 3);
    // Each attempt reports its end.
    assert_eq!(reported.load(Ordering::Relaxed), 3 * receipt.bytes);
    assert_eq!(prepared.size(), Some(receipt.bytes));
    let received = server.messages()[0].read().unwrap();
    assert_eq!(received, bytes_of(copy(&prepared)).await.unwrap());

    // The callback of the message that is sent replaces it.
    let message = Message::from(prepared).progress(|_| {});
    assert_sent(client.send(message).await);
    assert_eq!(reported.load(Ordering::Relaxed), 3 * receipt.bytes);
}

#[tokio::test]
async fn a_prepared_message_goes_to_other_recipients() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let prepared = Message::from(hello()).prepare().await.unwrap();
    for to in ["a@example.com", "b@example.com"] {
        let envelope = Envelope::new(address("bounces@example.org"), [address(to)]).unwrap();
        let message = Message::from(copy(&prepared)).envelope(envelope);
        assert_sent(client.send(message).await);
        let received = server.next_message().await;
        received.assert_recipients([to]);
        assert_eq!(
            received.reverse_path.as_deref(),
            Some("bounces@example.org")
        );
        assert_eq!(
            received.read().unwrap(),
            bytes_of(copy(&prepared)).await.unwrap()
        );
    }
    // The rest was decided when it was prepared.
    let message = Message::from(copy(&prepared)).attach(Attachment::bytes("a", "a/b", "c"));
    let error = client.send(message).await.unwrap_err();
    assert!(
        error
            .message()
            .contains("a prepared message takes no attachments")
    );
    let message = Message::from(prepared);
    assert_eq!(message.get_envelope().unwrap().recipients().len(), 1);
    assert_eq!(message.get_delivery(), &DeliveryOptions::default());
    assert!(message.try_clone().is_some());
}

#[tokio::test]
async fn a_prepared_stream_is_sent_once() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    for message in [
        Message::raw_stream(&b"A: b\r\n\r\nc"[..]).envelope(envelope()),
        Message::from(hello()).attach(Attachment::reader("a", "a/b", &b"content"[..])),
    ] {
        let prepared = message.prepare().await.unwrap();
        let prepared = prepared.prepend_header("X-Added", "yes").unwrap();
        assert!(!prepared.can_clone() && prepared.try_clone().is_none());
        assert_eq!(prepared.size(), None);
        let message = Message::from(prepared);
        assert!(message.try_clone().is_none());
        assert_sent(client.send(message).await);
        let received = server.next_message().await.read().unwrap();
        assert!(received.starts_with(b"X-Added: yes\r\n"));
    }
}

#[tokio::test]
async fn facts_of_a_prepared_message_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("film.mp4");
    std::fs::write(&path, noise(1000)).unwrap();
    let attached = || {
        Message::from(hello())
            .attach(Attachment::file(&path))
            .attach(Attachment::bytes("logo.png", "image/png", "x").inline("logo"))
            .attach(Attachment::reader("log", "a/b", tokio::io::empty()).size(0))
    };
    let prepared = attached().binary(true).prepare().await.unwrap();
    let facts = prepared.attachments().iter().map(|attachment| {
        let (name, size) = (attachment.name.as_str(), attachment.size.unwrap());
        (
            name,
            attachment.content_type.as_str(),
            attachment.content_id.as_deref(),
            size,
        )
    });
    assert_eq!(
        facts.collect::<Vec<_>>(),
        [
            ("film.mp4", "video/mp4", None, 1000),
            ("logo.png", "image/png", Some("logo"), 1),
            ("log", "a/b", None, 0)
        ]
    );
    assert!(prepared.has_binary_form());
    assert!(!prepared.without_binary_form().has_binary_form());
    assert!(!attached().prepare().await.unwrap().has_binary_form());

    // It is kept as it was when it was prepared.
    let prepared = Message::from(hello())
        .attach(Attachment::file(&path))
        .prepare()
        .await;
    std::fs::write(&path, "another").unwrap();
    let error = bytes_of(prepared.unwrap()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Input, Phase::Body)
    );
}

#[tokio::test]
async fn a_header_is_put_in_front() {
    let long = "a word and another, ".repeat(8);
    for (name, value, written) in [
        ("X-A", "b", "X-A: b\r\n"),
        ("X-A", "", "X-A: \r\n"),
        (
            "Received",
            "from a by b;\r\n\tThu, 1 Jan 1970",
            "Received: from a by b;\r\n\tThu, 1 Jan 1970\r\n",
        ),
        (
            "X-A",
            "Gr\u{fc}\u{df}e",
            "X-A: =?utf-8?B?R3LDvMOfZQ==?=\r\n",
        ),
        ("Sender", "<a@example.org>", "Sender: <a@example.org>\r\n"),
        (
            "X-A",
            &long[..59],
            "X-A: a word and another, a word and another, a word and another,\r\n",
        ),
        (
            "X-A",
            &long[..99],
            "X-A: a word and another, a word and another, a word and another, a word and\r\n \
             another, a word and another,\r\n",
        ),
    ] {
        let prepared = raw("Subject: x\r\n\r\nbody\r\n").prepare().await.unwrap();
        let prepared = prepared.prepend_header(name, value).unwrap();
        let headers = String::from_utf8(prepared.headers()).unwrap();
        assert_eq!(headers, format!("{written}Subject: x\r\n"));
        let longest = headers
            .lines()
            .map(str::len)
            .max()
            .map(|length| length as u64);
        assert_eq!(prepared.longest_line(), longest);
        let size = prepared.size();
        let bytes = bytes_of(prepared).await.unwrap();
        assert_eq!(size, Some(bytes.len() as u64));
        assert_eq!(bytes, format!("{headers}\r\nbody\r\n").as_bytes());
    }
}

#[tokio::test]
async fn a_header_that_breaks_the_message_is_refused() {
    for (name, value, says) in [
        ("X-A", "b\r\nX-B: c", "a line break"),
        ("X-A", "b\nc", "a line break"),
        ("X-A", "b\rc", "a line break"),
        ("X-A", "b\n c", "a line break"),
        ("X-A", "b\r\n\r\nbody", "a line break"),
        ("X-A", "b\r\n", "a line break"),
        ("X-A", "b\0", "a NUL"),
        ("X A", "b", "is not the name of a header"),
        ("", "b", "is not the name of a header"),
        ("X-A:", "b", "is not the name of a header"),
        ("X-A\r\nX-B", "b", "is not the name of a header"),
        ("\u{fc}", "b", "is not the name of a header"),
        ("bcc", "a@example.org", "is never sent"),
        ("Resent-Bcc", "a@example.org", "is never sent"),
        ("subject", "another", "a second Subject header"),
        ("Sender", "a@example.org, b@example.org", "has 2 addresses"),
        ("Sender", " ", "has no value"),
        ("Content-Type", "text", "not a media type"),
    ] {
        let prepared = raw("Subject: x\r\n\r\nbody\r\n").prepare().await.unwrap();
        let error = prepared.prepend_header(name, value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request, "{name}: {value:?}");
        assert!(
            error.to_string().contains(says),
            "{name}: {value:?}: {error}"
        );
    }
}

#[tokio::test]
async fn a_header_in_front_moves_no_line_number() {
    let text = &b"Subject: x\r\n\r\nfine\r\nnot fine\n"[..];
    let stream = Message::raw_stream(text).envelope(envelope());
    let prepared = stream.line_ends(LineEnds::Refuse).prepare().await.unwrap();
    let prepared = prepared.prepend_header("X-A", "b\r\n c\r\n d").unwrap();
    let prepared = prepared.prepend_header("X-B", "e").unwrap();
    let error = bytes_of(prepared).await.unwrap_err();
    assert!(error.message().contains("line 4 of the message"), "{error}");
}

/// Sends a message step by step.
async fn step_by_step(connection: &mut Connection, mut message: PreparedMessage) -> Vec<u8> {
    message.negotiate(connection.capabilities());
    assert!(connection.mail(&message).await.unwrap().is_positive());
    for recipient in message.envelope().recipients() {
        let reply = connection.rcpt(Address::clone(recipient)).await;
        assert!(reply.unwrap().is_positive());
    }
    let mut writer = connection.data().await.unwrap();
    let (mut body, mut bytes) = (message.into_body(), Vec::new());
    while let Some(chunk) = body.chunk().await {
        let chunk = chunk.unwrap();
        bytes.extend_from_slice(chunk.bytes());
        writer.write(chunk).await.unwrap();
    }
    writer.finish().await.unwrap();
    bytes
}

#[tokio::test]
async fn a_data_writer_takes_the_chunks_as_they_are() {
    for builder in servers() {
        let server = builder.start().await.unwrap();
        let client = Client::from_url(&server.url()).unwrap();
        let mut connection = client.connect().await.unwrap();
        let takes_any_bytes = connection.capabilities().offers("BINARYMIME");
        let attached = Message::from(hello())
            .attach(Attachment::bytes("a.bin", "a/b", noise(200_000)))
            .binary(true);
        let repaired = raw("Subject: x\n\n.dot\rand\nno end");
        let long = raw(&format!("Subject: x\n\n{}", ".a line\n".repeat(40_000)));
        let mut messages = vec![attached, repaired, long];
        if takes_any_bytes {
            messages.push(raw("Subject: x\r\n\r\n.\n\0\r\u{fc}.").line_ends(LineEnds::Keep));
        }
        for message in messages {
            let prepared = message.prepare().await.unwrap();
            let bytes = step_by_step(&mut connection, prepared).await;
            let received = server.next_message().await;
            assert!(received.read().unwrap() == bytes);
            let is_binary = received
                .parameters
                .iter()
                .any(|parameter| parameter == "BODY=BINARYMIME");
            assert!(is_binary || !received.bare_line_ends && bytes.ends_with(b"\r\n"));
        }
        connection.quit().await;
    }
}

#[tokio::test]
async fn a_message_that_the_server_cannot_take_is_refused_and_not_changed() {
    let server = Server::builder()
        .plaintext()
        .without("8BITMIME")
        .start()
        .await
        .unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let prepared = raw("Subject: x\r\n\r\nGr\u{fc}\u{df}e\r\n")
        .prepare()
        .await
        .unwrap();
    let error = client.send(copy(&prepared)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(server.messages().is_empty());
    // Another one takes the same bytes.
    let server = Server::builder().plaintext().start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    assert_sent(client.send(copy(&prepared)).await);
    let received = server.messages()[0].read().unwrap();
    assert_eq!(received, bytes_of(prepared).await.unwrap());
}
