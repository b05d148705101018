//! The connection and the client against the server inside the process.

use std::sync::{Arc, Mutex};

use envoi::proto::{Content, Transaction};
use envoi::testing::Server;
use envoi::tls::{PlaintextReason, Security, Trust};
use envoi::{
    Address, Attachment, Client, Connection, Endpoint, Envelope, ErrorKind, LineEnds, Message,
    Outcome, Phase, Timeouts,
};
use futures::FutureExt as _;
use support::{hello, hello_to};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_streamed_attachment_arrives_after_starttls_and_login() {
    let server = Server::builder()
        .login("alice", "p@ss")
        .start()
        .await
        .unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let content: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let attachment = Attachment::reader(
        "data.bin",
        "application/octet-stream",
        std::io::Cursor::new(content.clone()),
    );
    let receipt = client
        .send(Message::from(hello()).attach(attachment))
        .await
        .unwrap();
    assert!(receipt.all_accepted());
    let tls = receipt.tls.as_ref().unwrap();
    assert_eq!(tls.version, "TLSv1.3");
    assert!(tls.is_verified());
    assert_eq!(receipt.mechanism.unwrap().as_str(), "PLAIN");
    let captured = server.next_message().await;
    assert_eq!(captured.login.as_deref(), Some("alice"));
    assert_eq!(captured.size, receipt.bytes);
}

#[tokio::test]
async fn the_answer_to_quit_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for line in [
            "220 hello\r\n",
            "250 hello\r\n",
            "250 Ok\r\n",
            "250 Ok\r\n",
            "354 go\r\n",
        ] {
            stream.write_all(line.as_bytes()).await.unwrap();
            let _heard = stream.read(&mut [0; 4096]).await.unwrap();
        }
        stream.write_all(b"250 Ok\r\n").await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        rest
    });
    let mut timeouts = Timeouts::default();
    timeouts.quit = std::time::Duration::from_secs(3600);
    let receipt = Client::new(plaintext(port).timeouts(timeouts))
        .send(hello())
        .await
        .unwrap();
    assert!(receipt.all_accepted());
    // It was said nevertheless.
    assert_eq!(server.await.unwrap(), "QUIT\r\n");
}

#[tokio::test]
async fn one_connection_sends_whole_messages_and_single_steps() {
    let server = Server::builder()
        .refuse_recipient("nobody@example.com", "550 5.1.1 No such user")
        .start()
        .await
        .unwrap();
    let endpoint = Endpoint::from_url(&server.url()).unwrap();
    let mut connection = Connection::connect(&endpoint).await.unwrap();
    for _ in 0..3 {
        let receipt = connection.send(hello()).await.unwrap();
        assert_eq!(
            receipt.round_trips, 2,
            "the group up to DATA, and the message"
        );
    }
    connection.verify().await.unwrap();

    let error = connection
        .send(hello_to(&["nobody@example.com"]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.is_permanent());

    assert!(
        connection
            .mail(Address::new("me@example.org").unwrap())
            .await
            .unwrap()
            .is_positive()
    );
    assert_eq!(
        connection
            .rcpt(Address::new("nobody@example.com").unwrap())
            .await
            .unwrap()
            .code(),
        550
    );
    assert!(
        connection
            .rcpt(Address::new("you@example.com").unwrap())
            .await
            .unwrap()
            .is_positive()
    );
    let mut writer = connection.data().await.unwrap();
    writer.write("Subject: steps\r\n").await.unwrap();
    writer.write("\n.").await.unwrap();
    writer.write("end").await.unwrap();
    let reply = writer.finish().await.unwrap();
    assert!(reply.is_positive());
    assert_eq!(connection.command("VRFY you").await.unwrap().code(), 252);
    connection.quit().await;
    assert_eq!(server.connections()[0].commands().last(), Some("QUIT"));
    assert_eq!(server.messages().len(), 4);
    assert_eq!(
        server.messages()[3].read().unwrap(),
        b"Subject: steps\r\n\r\n.end\r\n"
    );
    assert_eq!(server.connections().len(), 1);
}

#[tokio::test]
async fn one_refused_recipient_does_not_fail_the_other() {
    let server = Server::builder()
        .refuse_recipient("nobody@example.com", "550 5.1.1 No such user")
        .start()
        .await
        .unwrap();
    let endpoint = Endpoint::from_url(&server.url()).unwrap();
    let two = || hello_to(&["nobody@example.com", "you@example.com"]);
    let receipt = Client::new(endpoint.clone()).send(two()).await.unwrap();
    assert!(!receipt.all_accepted());
    assert!(
        matches!(&receipt.recipients[0].outcome, Outcome::Refused(reply) if reply.code() == 550)
    );
    assert!(receipt.recipients[1].outcome.is_accepted());

    let error = Client::new(endpoint.all_or_nothing(true))
        .send(two())
        .await
        .unwrap_err();
    assert_eq!(
        error.receipt().unwrap().recipients[1].outcome,
        Outcome::NotTried
    );
    assert_eq!(server.messages().len(), 1);
}

#[tokio::test]
async fn a_connection_refuses_use_after_a_dropped_future() {
    let server = Server::start().await.unwrap();
    let endpoint = Endpoint::from_url(&server.url()).unwrap();
    let mut connection = Connection::connect(&endpoint).await.unwrap();
    // Polled once and dropped.
    assert!(connection.send(hello()).now_or_never().is_none());
    let error = connection.send(hello()).await.unwrap_err();
    assert!(error.to_string().contains("given up"), "{error}");
    assert!(server.messages().is_empty());
}

#[tokio::test]
async fn futures_can_be_spawned() {
    let server = Server::start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let receipt = tokio::spawn(async move { client.send(hello()).await })
        .await
        .unwrap()
        .unwrap();
    assert!(receipt.all_accepted());
}

/// A server that greets, and says each of the other lines when it has read something.
async fn scripted(lines: &'static [&'static str]) -> (u16, tokio::task::JoinHandle<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for (i, line) in lines.iter().enumerate() {
            if i > 0 {
                let _heard = stream.read(&mut [0; 4096]).await.unwrap();
            }
            stream.write_all(line.as_bytes()).await.unwrap();
        }
        stream
    });
    (port, task)
}

fn plaintext(port: u16) -> Endpoint {
    Endpoint::new("127.0.0.1")
        .port(port)
        .security(Security::None)
}

#[tokio::test]
async fn a_reply_sent_before_a_reset_is_reported() {
    let (port, server) = scripted(&[
        "220 hello\r\n",
        "250 hello\r\n",
        "250 Ok\r\n",
        "250 Ok\r\n",
        "354 go\r\n",
    ])
    .await;
    let refusing = tokio::spawn(async move {
        let mut stream = server.await.unwrap();
        stream.read_exact(&mut [0; 100_000]).await.unwrap();
        stream
            .write_all(b"552 5.3.4 Message too big\r\n")
            .await
            .unwrap();
        // Closed with bytes unread, which the system tells the client by a reset.
        drop(stream);
    });
    let large = [&b"A: b\r\n\r\n"[..], &vec![b'x'; 50_000_000]].concat();
    let large = Message::raw_stream(std::io::Cursor::new(large));
    let envelope = Envelope::new(None, [Address::new("you@example.com").unwrap()]).unwrap();
    let error = Client::new(plaintext(port))
        .send(large.envelope(envelope))
        .await
        .unwrap_err();
    refusing.await.unwrap();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Refused, Phase::Body),
        "{error}"
    );
    assert_eq!(error.reply().unwrap().code(), 552);
    assert!(!error.outcome_unknown());
}

#[tokio::test]
async fn an_idle_connection_reports_421_before_sending() {
    let (port, server) = scripted(&["220 hello\r\n", "250 hello\r\n"]).await;
    let mut connection = Connection::connect(&plaintext(port)).await.unwrap();
    let mut stream = server.await.unwrap();
    stream
        .write_all(b"421 4.4.2 idle for too long\r\n")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    // Until it has come.
    connection.verify().await.unwrap_err();
    let error = connection.send(hello()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");

    let (port, server) = scripted(&["220 hello\r\n", "250 hello\r\n"]).await;
    let mut connection = Connection::connect(&plaintext(port)).await.unwrap();
    server
        .await
        .unwrap()
        .write_all(b"250 what?\r\n")
        .await
        .unwrap();
    let error = connection.verify().await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Closed),
        "{error}"
    );
}

#[tokio::test]
async fn opportunistic_tls_falls_back_once_to_the_same_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        // The first connection agrees to TLS and breaks it off.
        let (mut first, _) = listener.accept().await.unwrap();
        for line in [
            "220 hello\r\n",
            "250-hello\r\n250 STARTTLS\r\n",
            "220 go\r\n",
        ] {
            first.write_all(line.as_bytes()).await.unwrap();
            let _heard = first.read(&mut [0; 4096]).await.unwrap();
        }
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        let lines = [
            "220 hello\r\n",
            "250-hello\r\n250 STARTTLS\r\n",
            "250 Ok\r\n",
            "250 Ok\r\n",
            "354 go\r\n",
            "250 Ok\r\n",
            "221 bye\r\n",
        ];
        let mut heard = String::new();
        for line in lines {
            second.write_all(line.as_bytes()).await.unwrap();
            let mut buffer = [0; 4096];
            let n = second.read(&mut buffer).await.unwrap();
            heard += &String::from_utf8_lossy(&buffer[..n]);
        }
        heard
    });
    let endpoint = plaintext(port)
        .security(Security::Opportunistic)
        .trust(Trust::empty());
    let receipt = Client::new(endpoint.clone()).send(hello()).await.unwrap();
    assert!(receipt.tls.is_none());
    let reason = receipt.plaintext_reason.unwrap();
    assert!(matches!(reason, PlaintextReason::Failed(_)), "{reason:?}");
    assert!(reason.to_string().contains("handshake"), "{reason}");
    assert!(!server.await.unwrap().contains("STARTTLS"));

    // With credentials, it verifies and does not fall back.
    let server = Server::builder()
        .login("alice", "secret")
        .start()
        .await
        .unwrap();
    let endpoint = Endpoint::new("localhost")
        .port(server.port())
        .security(Security::Opportunistic);
    let with_login = endpoint
        .trust(Trust::system())
        .user("alice")
        .password("secret");
    let error = Client::new(with_login).send(hello()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(server.messages().is_empty());
}

#[tokio::test]
async fn a_password_that_the_server_echoes_is_not_shown() {
    let (port, server) = scripted(&[
        "220 hello\r\n",
        "250-hello\r\n250 AUTH PLAIN\r\n",
        "535 5.7.8 no such password: hunter22 (AGFsaWNlAGh1bnRlcjIy)\r\n",
    ])
    .await;
    let endpoint = plaintext(port)
        .auth_in_clear(true)
        .user("alice")
        .password("hunter22");
    let error = Connection::connect(&endpoint).await.unwrap_err();
    server.await.unwrap();
    let transcript = error.receipt().unwrap().transcript.to_string();
    for text in [error.to_string(), format!("{error:?}"), transcript.clone()] {
        assert!(
            !text.contains("hunter22") && !text.contains("AGFsaWNl"),
            "{text}"
        );
        assert!(text.contains("no such password: *** (***)"), "{text}");
    }
    assert!(transcript.contains("C: AUTH PLAIN ***\n"), "{transcript}");
    assert_eq!(error.kind(), ErrorKind::Auth);
}

#[tokio::test]
async fn progress_is_reported_up_to_the_last_byte() {
    let server = Server::builder().start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let content = vec![b'x'; 3_000_000];
    for known in [true, false] {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = told.clone();
        let attachment = match known {
            true => Attachment::bytes("data.bin", "application/octet-stream", content.clone()),
            false => Attachment::reader(
                "data.bin",
                "application/octet-stream",
                std::io::Cursor::new(content.clone()),
            ),
        };
        let message = Message::from(hello()).attach(attachment);
        let receipt = client
            .send(message.progress(move |progress| tell.lock().unwrap().push(progress)))
            .await
            .unwrap();
        let told = told.lock().unwrap();
        assert!(told.is_sorted_by_key(|progress| progress.sent), "{told:?}");
        assert!(
            told.iter()
                .all(|progress| progress.total == known.then_some(receipt.bytes)),
            "{told:?}"
        );
        assert_eq!(told.last().unwrap().sent, receipt.bytes);
        let most = 2 + receipt.elapsed.as_millis() / 100;
        assert!(told.len() as u128 <= most, "{most}, {told:?}");
    }
}

#[tokio::test]
async fn raw_commands_return_their_replies() {
    let answer = |line: &str| {
        line.starts_with("EXPN")
            .then(|| "250-2.1.5 <a@example.org>\r\n250 2.1.5 J\u{f6}rg <b@example.org>".to_owned())
    };
    let server = Server::builder()
        .plaintext()
        .without("SMTPUTF8")
        .answer(answer)
        .start()
        .await
        .unwrap();
    let mut connection = Client::from_url(&server.url())
        .unwrap()
        .connect()
        .await
        .unwrap();
    assert_eq!(
        connection
            .command("EXPN staff")
            .await
            .unwrap()
            .lines()
            .len(),
        2
    );
    for (line, code) in [
        ("VRFY alice", 252),
        ("help", 214),
        ("ETRN example.org", 502),
        ("XYZZY", 500),
    ] {
        assert_eq!(
            connection.command(line).await.unwrap().code(),
            code,
            "{line}"
        );
    }
    // Inside a transaction, too.
    assert!(connection.mail(None).await.unwrap().is_positive());
    assert_eq!(connection.command("VRFY alice").await.unwrap().code(), 252);
    for line in ["DATA", "rset", "QUIT", "VRFY a\r\nDATA", "", "TURN"] {
        assert_eq!(
            connection.command(line).await.unwrap_err().kind(),
            ErrorKind::Request,
            "{line:?}"
        );
    }
    assert_eq!(
        connection
            .command("VRFY j\u{f6}rg SMTPUTF8")
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Unsupported
    );
    let commands: Vec<String> = server.connections()[0]
        .commands()
        .map(String::from)
        .collect();
    assert_eq!(
        commands[1..],
        [
            "EXPN staff",
            "VRFY alice",
            "help",
            "ETRN example.org",
            "XYZZY",
            "MAIL FROM:<> BODY=8BITMIME",
            "VRFY alice"
        ]
    );
    connection.quit().await;
}

fn binary_server() -> envoi::testing::Builder {
    Server::builder().offer("CHUNKING").offer("BINARYMIME")
}

fn film(content: &[u8]) -> Message<'static> {
    Message::from(hello())
        .attach(Attachment::bytes("film.mp4", "video/mp4", content.to_vec()))
        .binary(true)
}

#[tokio::test]
async fn binary_messages_are_sent_unchanged_in_chunks() {
    let content: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    for pipelining in [true, false] {
        let server = if pipelining {
            binary_server()
        } else {
            binary_server().without("PIPELINING")
        };
        let server = server.start().await.unwrap();
        let client = Client::from_url(&server.url()).unwrap();
        let stream = Attachment::reader(
            "film.mp4",
            "video/mp4",
            std::io::Cursor::new(content.clone()),
        );
        for message in [
            film(&content),
            Message::from(hello()).attach(stream).binary(true),
        ] {
            let receipt = client.send(message).await.unwrap();
            let captured = server.next_message().await;
            assert_eq!(captured.size, receipt.bytes);
            assert!(
                captured
                    .parameters
                    .iter()
                    .any(|parameter| parameter == "BODY=BINARYMIME")
            );
            let arrived = captured.read().unwrap();
            assert!(arrived.len() < 1_002_000);
            assert!(arrived.windows(content.len()).any(|bytes| bytes == content));
        }
        let session = &server.connections()[0];
        let chunks: Vec<_> = session
            .commands()
            .filter(|command| command.starts_with("BDAT"))
            .collect();
        assert_eq!(chunks[..3], ["BDAT 262144"; 3]);
        assert!(
            chunks.len() == 4 && chunks[3].ends_with(" LAST"),
            "{chunks:?}"
        );
    }
}

#[tokio::test]
async fn a_binary_message_is_sent_as_base64_without_binarymime() {
    let server = Server::builder().offer("CHUNKING").start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let receipt = client.send(film(&vec![0; 1_000_000])).await.unwrap();
    let captured = server.next_message().await;
    assert_eq!(captured.size, receipt.bytes);
    assert!(
        captured
            .parameters
            .iter()
            .all(|parameter| parameter != "BODY=BINARYMIME"),
        "{:?}",
        captured.parameters
    );
    assert!(
        captured
            .read()
            .unwrap()
            .windows(4)
            .any(|bytes| bytes == b"AAAA")
    );
}

#[tokio::test]
async fn a_refused_chunk_ends_the_message_but_not_the_session() {
    let content = vec![b'x'; 20_000_000];
    for pipelining in [true, false] {
        let seen = Arc::new(Mutex::new(0));
        let count = seen.clone();
        let server = if pipelining {
            binary_server()
        } else {
            binary_server().without("PIPELINING")
        };
        let answer = move |command: &str| {
            let mut count = count.lock().unwrap();
            *count += usize::from(command.starts_with("BDAT"));
            (*count == 3 && command.starts_with("BDAT"))
                .then(|| "552 5.2.2 Mailbox full".to_owned())
        };
        let server = server.answer(answer).start().await.unwrap();
        let endpoint = Endpoint::from_url(&server.url()).unwrap();
        let mut connection = Connection::connect(&endpoint).await.unwrap();
        let error = connection.send(film(&content)).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Refused, Phase::Body),
            "{error}"
        );
        assert!(error.is_permanent() && !error.outcome_unknown());
        // Much of it did not go.
        assert!(*seen.lock().unwrap() < 70, "{seen:?}");
        assert!(
            connection
                .send(film(&content[..1_000_000]))
                .await
                .unwrap()
                .all_accepted()
        );
        assert_eq!(server.messages().len(), 1);
        connection.quit().await;
    }
}

#[tokio::test]
async fn kept_line_ends_are_sent_with_binarymime_only() {
    let envelope = Envelope::new(
        Address::new("me@example.org").unwrap(),
        [Address::new("you@example.com").unwrap()],
    )
    .unwrap();
    let ready = "Subject: x\r\n\r\nLF\nCR\r.\n.\n";
    let message = || {
        Message::raw(ready)
            .envelope(envelope.clone())
            .line_ends(LineEnds::Keep)
    };
    let server = binary_server().start().await.unwrap();
    let receipt = Client::from_url(&server.url())
        .unwrap()
        .send(message())
        .await
        .unwrap();
    assert_eq!(receipt.bytes, ready.len() as u64);
    assert_eq!(
        server.next_message().await.read().unwrap(),
        ready.as_bytes()
    );

    let server = Server::builder().offer("CHUNKING").start().await.unwrap();
    let error = Client::from_url(&server.url())
        .unwrap()
        .send(message())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Unsupported, Phase::Mail),
        "{error}"
    );
    assert!(
        server.connections()[0]
            .commands()
            .all(|command| !command.starts_with("MAIL"))
    );
}

async fn open_binary(connection: &mut Connection) {
    let mut transaction = Transaction::open(Some(Address::new("me@example.org").unwrap()));
    transaction.content = Content::Binary;
    assert!(connection.mail(transaction).await.unwrap().is_positive());
    assert!(
        connection
            .rcpt(Address::new("you@example.com").unwrap())
            .await
            .unwrap()
            .is_positive()
    );
}

/// Without PIPELINING, each chunk waits for the answer to the one before it (RFC 3030, 4.2).
#[tokio::test]
async fn single_steps_write_pieces_of_any_size() {
    for keyword in ["PIPELINING", "HELP"] {
        let server = binary_server().without(keyword).start().await.unwrap();
        let mut connection = Client::from_url(&server.url())
            .unwrap()
            .connect()
            .await
            .unwrap();
        for pieces in [
            &[256 * 1024][..],
            &[700_000],
            &[100_000; 9],
            &[1, 262_143, 262_144, 262_145, 0],
        ] {
            open_binary(&mut connection).await;
            let mut writer = connection.data().await.unwrap();
            for size in pieces {
                writer.write(vec![b'x'; *size]).await.unwrap();
            }
            writer.finish().await.unwrap();
            assert_eq!(
                server.next_message().await.size,
                pieces.iter().sum::<usize>() as u64,
                "without {keyword}"
            );
        }
        connection.quit().await;
    }
}

/// The caller cannot know what the message has of it.
#[tokio::test]
async fn a_dropped_write_leaves_no_message_to_finish() {
    for polls in [0, 1] {
        let server = Server::builder().plaintext().start().await.unwrap();
        let mut connection = Client::from_url(&server.url())
            .unwrap()
            .connect()
            .await
            .unwrap();
        assert!(
            connection
                .mail(Address::new("me@example.org").unwrap())
                .await
                .unwrap()
                .is_positive()
        );
        assert!(
            connection
                .rcpt(Address::new("you@example.com").unwrap())
                .await
                .unwrap()
                .is_positive()
        );
        let mut writer = connection.data().await.unwrap();
        writer.write("Subject: whole\r\n\r\n").await.unwrap();
        {
            let write = writer.write(vec![b'x'; 64 * 1024 * 1024]);
            if polls == 1 {
                // More than fits into the socket.
                assert!(write.now_or_never().is_none());
            }
        }
        let error = writer.write("rest").await.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Closed, Phase::Body),
            "{error}"
        );
        let error = writer.finish().await.unwrap_err();
        assert!(error.message().contains("given up"), "{error}");
        assert!(!error.outcome_unknown());
        assert_eq!(
            connection.noop().await.unwrap_err().kind(),
            ErrorKind::Closed
        );
        drop(connection);
        assert!(server.messages().is_empty());
    }
}

#[tokio::test]
async fn mail_as_a_single_step_refuses_recipients() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let mut connection = Client::from_url(&server.url())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let envelope = Envelope::new(None, [Address::new("you@example.com").unwrap()]).unwrap();
    let error = connection
        .mail(Transaction::new(&envelope))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Request, Phase::Mail),
        "{error}"
    );
    // Nothing was said of it.
    assert!(connection.mail(None).await.unwrap().is_positive());
    let commands: Vec<String> = server.connections()[0]
        .commands()
        .map(String::from)
        .collect();
    assert_eq!(commands[1..], ["MAIL FROM:<> BODY=8BITMIME"]);
}

#[tokio::test]
async fn an_error_names_at_most_ten_recipients_and_their_number() {
    let answer = |line: &str| {
        (line.starts_with("RCPT") && !line.contains("good")).then(|| "550 5.1.1 No".to_owned())
    };
    let server = Server::builder()
        .plaintext()
        .answer(answer)
        .start()
        .await
        .unwrap();
    let endpoint = Endpoint::from_url(&server.url())
        .unwrap()
        .all_or_nothing(true);
    let to = (0..1000).map(|n| Address::new(format!("bad{n}@example.com")).unwrap());
    let to = [Address::new("good@example.com").unwrap()]
        .into_iter()
        .chain(to);
    let message = Message::from(hello()).envelope(Envelope::new(None, to).unwrap());
    let error = Client::new(endpoint).send(message).await.unwrap_err();
    let named = error.message().matches("@example.com").count();
    assert!(
        named == 10 && error.message().ends_with("bad9@example.com and 990 more"),
        "{error}"
    );
}

/// Every refusal has advice, by what the session knows: also where the answer to a single step is
/// the error, and where TLS is active and proves nothing.
#[tokio::test]
async fn errors_of_single_steps_have_advice() {
    let server = envoi::testing::Server::builder()
        .plaintext()
        .answer(|command| match command {
            "NOOP" => Some("502 5.5.1 Not implemented".into()),
            "DATA" => Some("451 4.3.1 Insufficient system storage".into()),
            _ => None,
        });
    let server = server.start().await.unwrap();
    let endpoint = envoi::Endpoint::from_url(&server.url()).unwrap();
    let mut connection = envoi::Connection::connect(&endpoint).await.unwrap();
    let error = connection.verify().await.unwrap_err();
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("the same will be refused again")),
        "{error}"
    );
    let address = |text| envoi::Address::new(text).unwrap();
    connection
        .mail(Some(address("me@example.org")))
        .await
        .unwrap();
    connection.rcpt(address("you@example.com")).await.unwrap();
    let error = connection.data().await.unwrap_err();
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("has no room")),
        "{error}"
    );

    let server = envoi::testing::Server::builder()
        .login("alice", "secret")
        .start()
        .await
        .unwrap();
    let url = server.url();
    let endpoint = envoi::Endpoint::from_url(url.split('?').next().unwrap()).unwrap();
    let endpoint = endpoint
        .trust(envoi::tls::Trust::dangerous_accept_any_certificate())
        .credentials(envoi::Credentials::new("alice", "secret"));
    let error = envoi::Connection::connect(&endpoint).await.unwrap_err();
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.starts_with("Have the certificate verified")),
        "{error}"
    );
}
