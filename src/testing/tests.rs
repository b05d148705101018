use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;

const TRANSACTION: &str = "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n";

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect((server.host(), server.port()))
        .await
        .unwrap()
}

/// Writes everything at once, then reads until the server closes the connection.
async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), what: &[u8]) -> String {
    stream.write_all(what).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).await.unwrap();
    replies
}

async fn codes(server: &Server, what: &str) -> Vec<String> {
    let replies = exchange(&mut connect(server).await, what.as_bytes()).await;
    replies
        .lines()
        .filter(|line| line.as_bytes()[3] == b' ')
        .map(|line| line[..3].to_string())
        .collect()
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut replies = Vec::new();
    while !replies.ends_with(end.as_bytes()) {
        replies.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(replies).unwrap()
}

async fn handshake(
    server: &Server,
    name: &'static str,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(server.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(crate::tls::provider().unwrap())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from(name).unwrap(), stream)
        .await
}

async fn starttls(server: &Server) -> TlsStream<TcpStream> {
    let mut stream = connect(server).await;
    stream.write_all(b"EHLO me\r\nSTARTTLS\r\n").await.unwrap();
    let replies = read_until(&mut stream, "220 2.0.0 Ready to start TLS\r\n").await;
    assert!(replies.contains("250-STARTTLS\r\n") || replies.contains("250 STARTTLS\r\n"));
    handshake(server, "localhost", stream).await.unwrap()
}

#[tokio::test]
async fn message_is_captured_over_starttls_after_login() {
    let server = Server::builder()
        .login("alice", "dummy123")
        .require_login(true)
        .start()
        .await
        .unwrap();
    let mut stream = starttls(&server).await;
    let rest = "EHLO client.example.org\r\nAUTH PLAIN AGFsaWNlAGR1bW15MTIz\r\n\
        MAIL FROM:<a@example.org> SIZE=22 BODY=8BITMIME\r\nRCPT TO:<b@example.org>\r\nRCPT \
        TO:<c@example.org>\r\nDATA\r\n\
        Subject: x\r\n\r\n..dot\r\n...\r\n.\r\nQUIT\r\n";
    let replies = exchange(&mut stream, rest.as_bytes()).await;
    assert_eq!(
        replies,
        "250-localhost greets client.example.org\r\n250-PIPELINING\r\n250-SIZE \
            0\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
         250-ENHANCEDSTATUSCODES\r\n250 AUTH PLAIN LOGIN\r\n\
         235 2.7.0 Authentication successful\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n\
         354 End data with <CR><LF>.<CR><LF>\r\n250 2.0.0 Ok: queued as 00000001\r\n221 2.0.0 \
         Bye\r\n"
    );

    let message = server.next_message().await;
    assert_eq!(message.id, "00000001");
    assert_eq!(message.helo, "client.example.org");
    assert_eq!(message.tls.as_deref(), Some("TLSv1.3"));
    assert_eq!(message.login.as_deref(), Some("alice"));
    assert_eq!(message.reverse_path.as_deref(), Some("a@example.org"));
    assert_eq!(message.parameters, ["SIZE=22", "BODY=8BITMIME"]);
    assert_eq!(message.recipients, ["b@example.org", "c@example.org"]);
    assert_eq!(message.read().unwrap(), b"Subject: x\r\n\r\n.dot\r\n..\r\n");
    assert_eq!(message.size, 24);
    assert!(!message.bare_line_ends);
    assert_eq!(server.messages().len(), 1);

    let session = &server.connections()[message.connection];
    assert_eq!(session.tls.as_deref(), Some("TLSv1.3"));
    assert_eq!(session.groups[0], ["EHLO me", "STARTTLS"]);
    assert_eq!(
        session.groups[1][..2],
        ["EHLO client.example.org", "AUTH PLAIN ***"]
    );
    assert!(session.commands().any(|command| command == "."));
    assert_eq!(session.failure, None);
}

#[tokio::test]
async fn certificate_is_valid_for_ip_addresses() {
    let server = Server::builder().implicit_tls().start().await.unwrap();
    for name in ["localhost", "127.0.0.1", "::1"] {
        let mut stream = handshake(&server, name, connect(&server).await)
            .await
            .unwrap();
        assert!(
            exchange(&mut stream, b"QUIT\r\n")
                .await
                .starts_with("220 localhost")
        );
    }
    let error = handshake(&server, "example.org", connect(&server).await)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn untrusted_certificate_is_recorded_as_failure() {
    let server = Server::builder().implicit_tls().start().await.unwrap();
    handshake(&server, "example.org", connect(&server).await)
        .await
        .unwrap_err();
    while server.connections().iter().any(|session| session.is_open) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(
        server.connections()[0]
            .failure
            .as_ref()
            .unwrap()
            .contains("BadCertificate")
    );
}

#[tokio::test]
async fn starttls_discards_earlier_state() {
    let server = Server::builder()
        .login("a", "b")
        .auth_in_clear(true)
        .start()
        .await
        .unwrap();
    let mut stream = connect(&server).await;
    stream
        .write_all(b"EHLO me\r\nAUTH PLAIN AGEAYg==\r\nMAIL FROM:<a@b>\r\nSTARTTLS\r\n")
        .await
        .unwrap();
    read_until(&mut stream, "220 2.0.0 Ready to start TLS\r\n").await;
    let mut stream = handshake(&server, "localhost", stream).await.unwrap();
    let replies = exchange(
        &mut stream,
        b"RCPT TO:<a@b>\r\nMAIL FROM:<a@b>\r\nEHLO me\r\nSTARTTLS\r\nQUIT\r\n",
    )
    .await;
    let codes: Vec<_> = replies
        .lines()
        .filter(|line| !line.starts_with("250"))
        .map(|line| &line[..3])
        .collect();
    assert_eq!(codes, ["503", "503", "554", "221"]);
    assert!(!replies.contains("250-STARTTLS") && !replies.contains("250 STARTTLS"));
}

#[tokio::test]
async fn commands_pipelined_after_starttls_are_refused() {
    let server = Server::start().await.unwrap();
    assert_eq!(
        codes(&server, "EHLO me\r\nSTARTTLS\r\nNOOP\r\nNOOP\r\n").await,
        ["220", "250", "554"]
    );
}

#[tokio::test]
async fn commands_out_of_order_or_malformed_are_refused() {
    let server = Server::builder()
        .login("a", "b")
        .max_size(1000)
        .start()
        .await
        .unwrap();
    let table: &[(&str, &[&str])] = &[
        ("MAIL FROM:<a@b>", &["503"]),
        ("EHLO", &["501"]),
        ("EHLO a b", &["501"]),
        (
            "ehlo me\r\nmail from:<a@b>\r\nrcpt to:<c@d>",
            &["250", "250", "250"],
        ),
        (
            "HELO me\r\nRCPT TO:<a@b>\r\nDATA\r\nSTARTTLS\r\nAUTH PLAIN\r\nXYZ\r\n",
            &["250", "503", "503", "503", "503", "500", "500"],
        ),
        ("HELO me\r\nMAIL FROM:<a@b> SIZE=1", &["250", "555"]),
        (
            "EHLO me\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\nDATA",
            &["250", "250", "503", "554"],
        ),
        (
            "EHLO me\r\nMAIL FROM:<a@b>\r\nRSET\r\nRCPT TO:<a@b>",
            &["250", "250", "250", "503"],
        ),
        (
            "EHLO me\r\nMAIL FROM:<a@b>\r\nEHLO me\r\nRCPT TO:<a@b>",
            &["250", "250", "250", "503"],
        ),
        (
            "EHLO me\r\nMAIL FROM: <a@b>\r\nMAIL FROM:a@b\r\nMAIL FROM:<a>\r\nMAIL TO:<a@b>",
            &["250", "501", "501", "501", "501"],
        ),
        (
            "EHLO me\r\nMAIL FROM:<a@b>x\r\nMAIL FROM:<a@b> X=1\r\nMAIL FROM:<a@b> BODY=X",
            &["250", "501", "555", "501"],
        ),
        (
            "EHLO me\r\nMAIL FROM:<a@b> SIZE=1001\r\nMAIL FROM:<a@b> SIZE=x\r\nMAIL FROM:<a@b> \
                SIZE=1000",
            &["250", "552", "501", "250"],
        ),
        (
            "EHLO me\r\nMAIL FROM:<ä@b>\r\nMAIL FROM:<ä@b> SMTPUTF8\r\nRCPT TO:<ö@b>",
            &["250", "550", "250", "250"],
        ),
        (
            "EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<>\r\nRCPT TO:<Postmaster>\r\nRCPT TO:<a@b> X",
            &["250", "250", "501", "250", "555"],
        ),
        ("EHLO me\r\nMAIL FROM:<\"a>b\\\"\"@c>", &["250", "250"]),
        ("EHLO me\r\nAUTH PLAIN AGEAYg==", &["250", "538"]),
        (
            "NOOP\r\nVRFY a\r\nHELP\r\nEXPN a\r\nBDAT 1\r\nQUIT\r\nNOOP",
            &["250", "252", "214", "502", "502", "221"],
        ),
        (
            "NOOP\nNOOP\r\nNO\rOP\r\nNO\0OP",
            &["500", "250", "500", "500"],
        ),
    ];
    for (commands, expected) in table {
        let codes = codes(&server, &format!("{commands}\r\n")).await;
        assert_eq!(codes[1..], **expected, "{commands}");
    }
    let long = format!("NOOP {}\r\nNOOP\r\n", "x".repeat(3 * 12_288));
    assert_eq!(codes(&server, &long).await, ["220", "500", "250"]);
}

#[tokio::test]
async fn logins_work_in_every_form() {
    let server = Server::builder()
        .plaintext()
        .auth_in_clear(true)
        .login("a", "b")
        .login("c", "d")
        .require_login(true)
        .start()
        .await
        .unwrap();
    let table: &[(&str, &[&str])] = &[
        ("MAIL FROM:<a@b>", &["530"]),
        ("AUTH PLAIN AGEAYg==\r\nMAIL FROM:<a@b>", &["235", "250"]),
        ("AUTH plain AGMAZA==", &["235"]),
        ("AUTH PLAIN YQBhAGI=", &["235"]),
        ("AUTH PLAIN YwBhAGI=", &["535"]),
        (
            "AUTH PLAIN\r\nAGEAYg==\r\nAUTH PLAIN AGEAYg==",
            &["334", "235", "503"],
        ),
        ("AUTH PLAIN =", &["501"]),
        ("AUTH PLAIN *", &["501"]),
        ("AUTH PLAIN\r\n*\r\nNOOP", &["334", "501", "250"]),
        ("AUTH PLAIN AGEAYw==", &["535"]),
        ("AUTH LOGIN\r\nYQ==\r\nYg==", &["334", "334", "235"]),
        ("AUTH LOGIN YQ==\r\nYg==", &["334", "235"]),
        ("AUTH LOGIN\r\n*", &["334", "501"]),
        ("AUTH LOGIN\r\nYQ==\r\nYw==", &["334", "334", "535"]),
        ("AUTH CRAM-MD5", &["504"]),
    ];
    for (commands, expected) in table {
        let codes = codes(&server, &format!("EHLO me\r\n{commands}\r\n")).await;
        assert_eq!(codes[2..], **expected, "{commands}");
    }
    let shown: Vec<_> = server
        .connections()
        .iter()
        .flat_map(|session| session.groups.concat())
        .collect();
    assert!(
        shown
            .iter()
            .all(|command| !command.contains("AGEA") && !command.contains("Yg==")),
        "{shown:?}"
    );
}

#[tokio::test]
async fn end_of_message_is_found_in_every_cut() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let mut stream = connect(&server).await;
    stream.write_all(b"EHLO me\r\n").await.unwrap();
    let body = b"x\r\n.y\r\n.\r\nNOOP\r\n";
    for split in 0..=body.len() {
        stream.write_all(TRANSACTION.as_bytes()).await.unwrap();
        read_until(&mut stream, "354 End data with <CR><LF>.<CR><LF>\r\n").await;
        stream.write_all(&body[..split]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        stream.write_all(&body[split..]).await.unwrap();
        let replies = read_until(&mut stream, "250 2.0.0 Ok\r\n").await;
        assert!(replies.contains("queued as"), "{split}: {replies}");
        assert_eq!(
            server.next_message().await.read().unwrap(),
            b"x\r\ny\r\n",
            "{split}"
        );
    }
}

/// A simple decoder that needs the whole input.
fn decode_line_by_line(input: &[u8]) -> (Vec<u8>, usize) {
    let mut message = Vec::new();
    let mut i = 0;
    loop {
        let line = &input[i..i
            + input[i..]
                .windows(2)
                .position(|pair| pair == b"\r\n")
                .unwrap()
            + 2];
        i += line.len();
        if line == b".\r\n" {
            return (message, i);
        }
        message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
}

#[test]
fn dots_are_removed_for_any_line_ends_and_splits() {
    let alphabet = b".\r\na";
    for n in 0..4usize.pow(6) {
        let mut input: Vec<u8> = (0..6)
            .map(|place| alphabet[n / 4usize.pow(place) % 4])
            .collect();
        input.extend_from_slice(b"\r\n.\r\nNOOP");
        let (message, end) = decode_line_by_line(&input);
        let text = String::from_utf8_lossy(&message).replace("\r\n", "");
        for split in 0..=input.len() {
            let mut decoder = body::Decoder::default();
            let mut out = Vec::new();
            let found = decoder.decode(&input[..split], &mut out).or_else(|| {
                decoder
                    .decode(&input[split..], &mut out)
                    .map(|end| split + end)
            });
            assert_eq!(
                (&out, found),
                (&message, Some(end)),
                "{:?} {split}",
                String::from_utf8_lossy(&input)
            );
            assert_eq!(
                decoder.bare_line_ends,
                text.contains(['\r', '\n']),
                "{:?}",
                String::from_utf8_lossy(&input)
            );
        }
    }
}

#[tokio::test]
async fn large_message_is_kept_or_discarded() {
    let line = "..A line of seventy-six characters, as encoders of base64 make them, and a dot\r\n";
    let mut body = line.repeat(20_000).into_bytes();
    body.extend_from_slice(b".\r\n");
    for is_kept in [true, false] {
        let builder = Server::builder().plaintext();
        let server = if is_kept {
            builder
        } else {
            builder.discard(true)
        }
        .start()
        .await
        .unwrap();
        let mut stream = connect(&server).await;
        stream.write_all(b"HELO me\r\n").await.unwrap();
        stream.write_all(TRANSACTION.as_bytes()).await.unwrap();
        read_until(&mut stream, "354 End data with <CR><LF>.<CR><LF>\r\n").await;
        stream.write_all(&body).await.unwrap();
        let message = server.next_message().await;
        assert_eq!(message.size, 20_000 * (line.len() as u64 - 1));
        match is_kept {
            true => assert_eq!(
                message.read().unwrap(),
                line[1..].repeat(20_000).into_bytes()
            ),
            false => assert_eq!(message.read().unwrap_err().kind(), io::ErrorKind::NotFound),
        }
    }
}

#[tokio::test]
async fn message_over_the_limit_is_refused_after_receipt() {
    let server = Server::builder()
        .plaintext()
        .max_size(100_000)
        .start()
        .await
        .unwrap();
    for (size, expected) in [(100_000, "250"), (100_001, "552"), (3_000_000, "552")] {
        let body = "x".repeat(size - 2);
        let codes = codes(
            &server,
            &format!("EHLO me\r\n{TRANSACTION}{body}\r\n.\r\nQUIT\r\n"),
        )
        .await;
        assert_eq!(codes[5..], [expected, "221"], "{size}");
    }
    assert_eq!(server.messages().len(), 1);
    let files = std::fs::read_dir(server.ca_file().parent().unwrap())
        .unwrap()
        .count();
    assert_eq!(files, 2, "the CA and the one message");
}

#[tokio::test]
async fn bare_line_ends_are_reported_and_end_nothing() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let body = "a\n.\nb\r.\rc\n.\r\nd\r\n.\n\r\n.\r\n";
    exchange(
        &mut connect(&server).await,
        format!("HELO me\r\n{TRANSACTION}{body}").as_bytes(),
    )
    .await;
    let message = server.next_message().await;
    assert!(message.bare_line_ends);
    assert_eq!(message.read().unwrap(), b"a\n.\nb\r.\rc\n.\r\nd\r\n\n\r\n");
}

#[tokio::test]
async fn configured_replies_replace_those_of_the_server() {
    let server = Server::builder()
        .plaintext()
        .refuse_recipient("nobody@example.org", "550 5.1.1 No such user")
        .answer(|command| match command {
            "EHLO old" => Some("502 5.5.1 What?".into()),
            "MAIL FROM:<two@lines>" => Some("451-4.3.0 First\n451 4.3.0 Second".into()),
            "." => Some("554 5.7.1 Spam".into()),
            "NOOP" => Some("421 4.3.2 Going down".into()),
            _ => None,
        })
        .start()
        .await
        .unwrap();
    let input = "EHLO old\r\nHELO old\r\nMAIL FROM:<two@lines>\r\nMAIL FROM:<a@b>\r\nRCPT \
        TO:<Nobody@Example.org>\r\n\
        RCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\nNOOP\r\nNOOP\r\n";
    let replies = exchange(&mut connect(&server).await, input.as_bytes()).await;
    assert!(replies.contains("451-4.3.0 First\r\n451 4.3.0 Second\r\n"));
    assert!(replies.ends_with(
        "550 5.1.1 No such user\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n554 \
            5.7.1 Spam\r\n\
         421 4.3.2 Going down\r\n"
    ));
    assert!(server.messages().is_empty());
}

#[tokio::test]
async fn extensions_left_out_are_not_offered() {
    let server = Server::builder()
        .without("pipelining")
        .without("SIZE")
        .without("8BITMIME")
        .without("ENHANCEDSTATUSCODES")
        .without("STARTTLS")
        .start()
        .await
        .unwrap();
    let input = "EHLO me\r\nMAIL FROM:<a@b> SIZE=1\r\nMAIL FROM:<a@b> BODY=8BITMIME\r\nMAIL \
        FROM:<a@b>\r\nSTARTTLS\r\nQUIT\r\n";
    assert_eq!(
        exchange(&mut connect(&server).await, input.as_bytes()).await,
        "220 localhost ESMTP envoi\r\n250-localhost greets me\r\n250 SMTPUTF8\r\n555 Unsupported \
            parameter\r\n\
         555 Unsupported parameter\r\n250 Ok\r\n502 Command not implemented\r\n221 Bye\r\n"
    );
}

#[tokio::test]
async fn groups_show_what_was_pipelined() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let mut stream = connect(&server).await;
    let last = "354 End data with <CR><LF>.<CR><LF>\r\n";
    for (what, reply) in [
        ("", "envoi\r\n"),
        ("EHLO me\r\n", "CODES\r\n"),
        (TRANSACTION, last),
        ("x\r\n.\r\nNOOP\r\n", "Ok\r\n"),
    ] {
        stream.write_all(what.as_bytes()).await.unwrap();
        read_until(&mut stream, reply).await;
    }
    stream.write_all(b"QUIT\r\n").await.unwrap();
    read_until(&mut stream, "Bye\r\n").await;
    assert_eq!(
        server.connections()[0].groups,
        [
            &["EHLO me"][..],
            &[
                "MAIL FROM:<a@example.org>",
                "RCPT TO:<b@example.org>",
                "DATA"
            ],
            &[".", "NOOP"],
            &["QUIT"]
        ]
    );
}

#[tokio::test]
async fn disconnect_during_data_stores_no_message() {
    let server = Server::builder().plaintext().start().await.unwrap();
    exchange(
        &mut connect(&server).await,
        format!("HELO me\r\n{TRANSACTION}half a mess").as_bytes(),
    )
    .await;
    assert!(server.messages().is_empty());
    let session = &server.connections()[0];
    assert!(
        session.failure.as_ref().unwrap().contains("after 11 bytes"),
        "{session:?}"
    );
}

#[tokio::test]
async fn dropping_the_server_closes_connections_and_keeps_returned_messages() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let mut stream = connect(&server).await;
    let (host, port) = (server.host().to_string(), server.port());
    stream
        .write_all(format!("HELO me\r\n{TRANSACTION}x\r\n.\r\n").as_bytes())
        .await
        .unwrap();
    let message = server.next_message().await;
    drop(server);
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(TcpStream::connect((host, port)).await.is_err());
    assert_eq!(message.read().unwrap(), b"x\r\n");
    let path = message.path().to_path_buf();
    drop(message);
    assert!(!path.exists());
}

#[tokio::test]
async fn url_has_login_and_trust() {
    let starttls = Server::builder()
        .login("a@b", "c:d/e%")
        .start()
        .await
        .unwrap();
    let trust = format!("trust={}", starttls.ca_file().display());
    assert_eq!(
        starttls.url(),
        format!(
            "smtp://a%40b:c%3Ad%2Fe%25@localhost:{}?{trust}",
            starttls.port()
        )
    );
    let plain = Server::builder()
        .plaintext()
        .login("a", "b")
        .auth_in_clear(true)
        .start()
        .await
        .unwrap();
    assert_eq!(
        plain.url(),
        format!(
            "smtp://a:b@localhost:{}?tls=none&auth-in-clear=yes",
            plain.port()
        )
    );
}

#[tokio::test]
async fn lmtp_replies_for_each_recipient() {
    let builder = Server::builder()
        .lmtp()
        .max_size(100)
        .refuse_recipient("no@b", "550 5.1.1 Unknown");
    let server = builder
        .refuse_message("Full@b", "552 5.2.2 Full")
        .start()
        .await
        .unwrap();
    assert!(server.url().starts_with("lmtp://localhost:") && server.url().ends_with("?tls=none"));
    let to = |names: &[&str]| -> String {
        let rcpts: String = names
            .iter()
            .map(|name| format!("RCPT TO:<{name}@b>\r\n"))
            .collect();
        format!("LHLO me\r\nMAIL FROM:<a@b>\r\n{rcpts}DATA\r\n")
    };
    let table: &[(String, &[&str])] = &[
        (
            "EHLO me\r\nHELO me\r\nLHLO\r\nLHLO me\r\n".into(),
            &["500", "500", "501", "250"],
        ),
        (
            to(&["x", "no", "full", "y"]) + "x\r\n.\r\n",
            &[
                "250", "250", "250", "550", "250", "250", "354", "250", "552", "250",
            ],
        ),
        (
            to(&["full"]) + "x\r\n.\r\nNOOP\r\n",
            &["250", "250", "250", "354", "552", "250"],
        ),
        (to(&["no"]), &["250", "250", "550", "503"]),
        // Too large for each recipient.
        (
            to(&["x", "y"]) + &"x".repeat(101) + "\r\n.\r\n",
            &["250", "250", "250", "250", "354", "552", "552"],
        ),
    ];
    for (commands, expected) in table {
        assert_eq!(
            codes(&server, commands).await[1..],
            **expected,
            "{commands}"
        );
    }
    let messages = server.messages();
    assert_eq!(
        (messages.len(), &messages[0].recipients[..]),
        (1, &["x@b".to_owned(), "y@b".to_owned()][..])
    );
    assert!(codes(&Server::start().await.unwrap(), "LHLO me\r\n").await == ["220", "500"]);
}

#[tokio::test]
async fn prdr_replies_for_each_recipient() {
    let builder = Server::builder()
        .plaintext()
        .prdr(true)
        .refuse_message("full@b", "552 5.2.2 Full");
    let server = builder.start().await.unwrap();
    let message = "DATA\r\nx\r\n.\r\n";
    let table: &[(&str, &[&str])] = &[
        (
            "MAIL FROM:<a@b> PRDR\r\nRCPT TO:<x@b>\r\nRCPT TO:<full@b>\r\n",
            &["250", "250", "250", "354", "353", "250", "552", "250"],
        ),
        (
            "MAIL FROM:<a@b> PRDR\r\nRCPT TO:<x@b>\r\n",
            &["250", "250", "354", "250"],
        ),
        (
            "MAIL FROM:<a@b>\r\nRCPT TO:<x@b>\r\nRCPT TO:<full@b>\r\n",
            &["250", "250", "250", "354", "552"],
        ),
    ];
    for (commands, expected) in table {
        let codes = codes(&server, &format!("EHLO me\r\n{commands}{message}")).await;
        assert_eq!(codes[2..], **expected, "{commands}");
    }
    assert_eq!(server.messages().len(), 2);
    let other = Server::builder().plaintext().start().await.unwrap();
    assert_eq!(
        codes(&other, "EHLO me\r\nMAIL FROM:<a@b> PRDR\r\n").await,
        ["220", "250", "555"]
    );
}

#[tokio::test]
async fn commands_between_chunks_drop_the_message() {
    let server = Server::builder()
        .plaintext()
        .offer("CHUNKING")
        .start()
        .await
        .unwrap();
    let transaction =
        "EHLO me\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nBDAT 3\r\nab\n";
    for between in ["RCPT TO:<c@example.org>", "DATA"] {
        let replies = codes(
            &server,
            &format!("{transaction}{between}\r\nBDAT 3 LAST\r\ncd\nQUIT\r\n"),
        )
        .await;
        assert_eq!(
            replies,
            ["220", "250", "250", "250", "250", "503", "503", "221"],
            "{between}"
        );
    }
    assert_eq!(server.messages().len(), 0);
    assert_eq!(
        std::fs::read_dir(server.ca_file().parent().unwrap())
            .unwrap()
            .count(),
        1
    );
    let after = format!("{transaction}DATA\r\nRSET\r\nMAIL FROM:<a@example.org>\r\nQUIT\r\n");
    assert_eq!(
        codes(&server, &after).await[5..],
        ["503", "250", "250", "221"]
    );
}

#[tokio::test]
async fn requested_checks_are_applied() {
    let server = Server::builder()
        .plaintext()
        .check_eight_bit(true)
        .check_line_length(true)
        .check_size(true);
    let server = server
        .offer("CHUNKING")
        .offer("BINARYMIME")
        .start()
        .await
        .unwrap();
    let long = "x".repeat(999);
    let longest = "x".repeat(998);
    for (parameters, text, code) in [
        ("", "abc", "250"),
        ("", "gr\u{fc}n", "554"),
        (" BODY=7BIT", "gr\u{fc}n", "554"),
        (" BODY=8BITMIME", "gr\u{fc}n", "250"),
        (" SMTPUTF8", "gr\u{fc}n", "250"),
        ("", &longest, "250"),
        ("", &long, "554"),
        (" SIZE=5", "abc", "250"),
        (" SIZE=4", "abc", "552"),
        (" size=4", "abc", "552"),
    ] {
        let mail = format!(
            "EHLO me\r\nMAIL FROM:<a@example.org>{parameters}\r\nRCPT TO:<b@example.org>\r\n"
        );
        let by_data = codes(&server, &format!("{mail}DATA\r\n{text}\r\n.\r\n")).await;
        assert_eq!(by_data.last().unwrap(), code, "{parameters} {text}");
        // A line that is split between chunks is still one line.
        let (head, tail) = text.split_at(2);
        let rest = tail.len() + 2;
        let by_chunks = codes(
            &server,
            &format!("{mail}BDAT 2\r\n{head}BDAT {rest} LAST\r\n{tail}\r\n"),
        )
        .await;
        assert_eq!(by_chunks.last().unwrap(), code, "{parameters} {text}");
    }
    let mail = "EHLO me\r\nMAIL FROM:<a@example.org> BODY=BINARYMIME\r\nRCPT \
        TO:<b@example.org>\r\nBDAT 999 LAST\r\n";
    assert_eq!(
        codes(&server, &format!("{mail}{long}"))
            .await
            .last()
            .unwrap(),
        "250"
    );
    assert_eq!(codes(&server, &format!("{mail}{long}")).await.len(), 5);
}

/// A transaction with a message of some size, and the commands after it.
fn send_of(size: usize) -> String {
    format!(
        "EHLO me\r\n{TRANSACTION}{}\r\n.\r\nNOOP\r\nQUIT\r\n",
        "x".repeat(size)
    )
}

/// Waits until the server has seen the end of its only connection, and returns why it ended.
async fn failure(server: &Server) -> String {
    loop {
        if let [session] = &server.connections()[..]
            && !session.is_open
        {
            return session.failure.clone().unwrap_or_default();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn reply_faults_occur_at_their_step_and_replace_the_command() {
    let table: &[(Step, &[&str], usize)] = &[
        (
            Step::Greeting,
            &["599", "250", "250", "250", "354", "250", "250", "221"],
            1,
        ),
        (
            Step::Hello,
            &[
                "220", "599", "503", "503", "503", "500", "500", "250", "221",
            ],
            0,
        ),
        (
            Step::Mail,
            &[
                "220", "250", "599", "503", "503", "500", "500", "250", "221",
            ],
            0,
        ),
        (
            Step::Rcpt,
            &[
                "220", "250", "250", "599", "554", "500", "500", "250", "221",
            ],
            0,
        ),
        (
            Step::Data,
            &[
                "220", "250", "250", "250", "599", "500", "500", "250", "221",
            ],
            0,
        ),
        (
            Step::Body(3),
            &["220", "250", "250", "250", "354", "599", "250", "221"],
            0,
        ),
        (
            Step::Body(8),
            &["220", "250", "250", "250", "354", "250", "250", "221"],
            1,
        ),
        (
            Step::Message,
            &["220", "250", "250", "250", "354", "599", "250", "221"],
            0,
        ),
        (
            Step::Accepted,
            &["220", "250", "250", "250", "354", "599", "250", "221"],
            1,
        ),
        (
            Step::Noop,
            &["220", "250", "250", "250", "354", "250", "599", "221"],
            1,
        ),
        (
            Step::Quit,
            &["220", "250", "250", "250", "354", "250", "250", "599"],
            1,
        ),
    ];
    for (step, expected, kept) in table {
        let fault = Fault::reply(*step, "599 Fault");
        let builder = Server::builder().plaintext().fault(fault);
        let server = builder.start().await.unwrap();
        assert_eq!(codes(&server, &send_of(6)).await, **expected, "{step:?}");
        assert_eq!(server.messages().len(), *kept, "{step:?}");
    }
}

#[tokio::test]
async fn a_reply_in_a_chunk_refuses_the_message() {
    let fault = Fault::reply(Step::Body(3), "552 5.3.4 Too large");
    let builder = Server::builder().plaintext().offer("CHUNKING");
    let server = builder.fault(fault).start().await.unwrap();
    let mail = "EHLO me\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n";
    let chunks = "BDAT 3\r\na\r\nBDAT 3\r\nb\r\nBDAT 0 LAST\r\nQUIT\r\n";
    assert_eq!(
        codes(&server, &format!("{mail}{chunks}")).await[4..],
        ["250", "552", "503", "221"]
    );
    assert!(server.messages().is_empty());
}

#[tokio::test]
async fn faults_close_or_reset_the_connection_after_earlier_replies() {
    let table = [
        (Step::Greeting, "", 0),
        (Step::Data, "250", 0),
        (Step::Body(0), "354", 0),
        (Step::Message, "354", 0),
        (Step::Accepted, "354", 1),
    ];
    for (step, last, kept) in table {
        let fault = Fault::close(step);
        let builder = Server::builder().plaintext().fault(fault);
        let server = builder.start().await.unwrap();
        let received = codes(&server, &send_of(10)).await;
        assert_eq!(received.last().map_or("", String::as_str), last, "{step:?}");
        let expected = format!("a fault closed the connection at {step}");
        assert_eq!(failure(&server).await, expected);
        assert_eq!(server.messages().len(), kept, "{step:?}");

        let fault = Fault::reset(step);
        let builder = Server::builder().plaintext().fault(fault);
        let server = builder.start().await.unwrap();
        let mut stream = connect(&server).await;
        // The connection may be reset before this is written.
        let _ = stream.write_all(send_of(10).as_bytes()).await;
        let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{step:?}");
        assert_eq!(server.messages().len(), kept, "{step:?}");
        // The file of a message that was not kept is deleted.
        assert!(failure(&server).await.contains("reset the connection"));
        let folder = server.ca_file().parent().unwrap();
        let files = std::fs::read_dir(folder).unwrap().count();
        assert_eq!(files, 1 + kept, "{step:?}");
    }
}

#[tokio::test]
async fn a_fault_resets_connections_inside_tls_too() {
    let fault = Fault::reset(Step::Noop);
    let builder = Server::builder().implicit_tls().fault(fault);
    let server = builder.start().await.unwrap();
    let stream = connect(&server).await;
    let mut stream = handshake(&server, "localhost", stream).await.unwrap();
    stream.write_all(b"NOOP\r\n").await.unwrap();
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_fault_in_place_of_the_handshake_ends_the_connection() {
    for builder in [Server::builder().implicit_tls(), Server::builder()] {
        let faults = Fault::reply(Step::Handshake, "554 5.3.0 TLS is broken");
        let server = builder.fault(faults).start().await.unwrap();
        let mut stream = connect(&server).await;
        stream.write_all(b"EHLO me\r\nSTARTTLS\r\n").await.unwrap();
        let mut replies = String::new();
        // Unread input resets the connection after the reply.
        let _ = stream.read_to_string(&mut replies).await;
        assert!(
            replies.ends_with("554 5.3.0 TLS is broken\r\n"),
            "{replies}"
        );
        assert!(
            failure(&server)
                .await
                .contains("replied to the TLS handshake")
        );
    }
}

#[tokio::test]
async fn a_server_that_hangs_ends_with_the_client() {
    let fault = Fault::hang(Step::Data);
    let builder = Server::builder().plaintext().fault(fault);
    let server = builder.start().await.unwrap();
    // It ends because the client has closed its side.
    let received = codes(&server, &send_of(3_000_000)).await;
    assert_eq!(received, ["220", "250", "250", "250"]);
    assert_eq!(failure(&server).await, "a fault did not reply at DATA");
}

#[tokio::test]
async fn a_delay_takes_no_time_where_the_clock_is_paused() {
    let hour = Duration::from_secs(3600);
    let builder = Server::builder().plaintext();
    let builder = builder.fault(Fault::delay(Step::Mail, hour));
    let builder = builder.fault(Fault::delay(Step::Command, hour));
    let server = builder.start().await.unwrap();
    let before = tokio::time::Instant::now();
    tokio::time::pause();
    let received = codes(&server, "EHLO me\r\nMAIL FROM:<a@b>\r\nQUIT\r\n").await;
    assert_eq!(received, ["220", "250", "250", "221"]);
    // Three commands, and MAIL once more.
    let elapsed = before.elapsed();
    assert!(elapsed >= 4 * hour && elapsed < 5 * hour, "{elapsed:?}");
}

#[tokio::test]
async fn faults_are_counted_and_matched() {
    let noops = "NOOP\r\n".repeat(6);
    let table: &[(Fault, &str, &[&str])] = &[
        (
            Fault::reply(Step::Noop, "4").after(2).times(2),
            "",
            &["250", "250", "4", "4", "250", "250"],
        ),
        (
            Fault::reply(Step::Noop, "4").every(2),
            "",
            &["250", "4", "250", "4", "250", "4"],
        ),
        (
            Fault::reply(Step::Noop, "4").every(2).after(1).times(1),
            "",
            &["250", "250", "4", "250", "250", "250"],
        ),
        (
            Fault::reply(Step::Command, "4").matching("noop x"),
            "NOOP X\r\n",
            &["4", "250"],
        ),
    ];
    let first = |replies: &str| -> Vec<String> {
        let words = replies.lines().skip(1).map(|line| line.split(' ').next());
        words.flatten().map(String::from).collect()
    };
    for (fault, more, expected) in table {
        let builder = Server::builder().plaintext().fault(fault.clone());
        let server = builder.start().await.unwrap();
        let input = format!("{more}{noops}");
        let replies = exchange(&mut connect(&server).await, input.as_bytes()).await;
        assert_eq!(first(&replies)[..expected.len()], **expected, "{fault:?}");
    }
    // At random: as often as it says, with the seed at the same times, and the limits hold.
    let noops = "NOOP\r\n".repeat(1_000);
    let at_random = async |fault: Fault| {
        let builder = Server::builder().plaintext().fault(fault);
        let server = builder.start().await.unwrap();
        let replies = exchange(&mut connect(&server).await, noops.as_bytes()).await;
        let replies = first(&replies);
        let occurred = replies
            .iter()
            .enumerate()
            .filter(|(_, reply)| *reply == "4");
        occurred.map(|(at, _)| at).collect::<Vec<_>>()
    };
    let fault = |seed| Fault::reply(Step::Noop, "4").one_in(10, seed);
    let occurred = at_random(fault(1)).await;
    assert!((60..150).contains(&occurred.len()), "{occurred:?}");
    assert_eq!(at_random(fault(1)).await, occurred);
    assert_ne!(at_random(fault(2)).await, occurred);
    let limited = at_random(fault(1).after(100).times(5)).await;
    assert!(limited.len() == 5 && limited[0] >= 100, "{limited:?}");
    for (per_connection, expected) in [(true, "4"), (false, "250")] {
        let fault = Fault::reply(Step::Noop, "4").times(1);
        let fault = fault.per_connection(per_connection);
        let builder = Server::builder().plaintext().fault(fault);
        let server = builder.start().await.unwrap();
        for expected in ["4", expected] {
            let replies = exchange(&mut connect(&server).await, b"NOOP\r\n").await;
            assert_eq!(first(&replies), [expected]);
        }
    }
    // After a message, the addresses of its envelope are compared.
    let fault = Fault::reply(Step::Message, "554 5.7.1 No").matching("B@Example.org");
    let builder = Server::builder().plaintext().fault(fault);
    let server = builder.start().await.unwrap();
    assert_eq!(codes(&server, &send_of(6)).await[5], "554");
    let other = send_of(6).replace("b@example.org", "c@example.org");
    assert_eq!(codes(&server, &other).await[5], "250");
}

#[tokio::test]
async fn faults_are_added_and_removed_while_the_server_runs() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let mut stream = connect(&server).await;
    read_until(&mut stream, "envoi\r\n").await;
    server.add_fault(Fault::reply(Step::Noop, "450 4.3.0 Later"));
    stream.write_all(b"NOOP\r\n").await.unwrap();
    assert_eq!(read_until(&mut stream, "\r\n").await, "450 4.3.0 Later\r\n");
    server.clear_faults();
    stream.write_all(b"NOOP\r\n").await.unwrap();
    assert_eq!(read_until(&mut stream, "\r\n").await, "250 2.0.0 Ok\r\n");
}

#[tokio::test]
async fn waiting_returns_all_messages_or_says_what_happened() {
    let server = Server::builder().plaintext().start().await.unwrap();
    assert!(server.wait_for(0, Duration::ZERO).await.unwrap().is_empty());
    let sends = async {
        codes(&server, &send_of(1)).await;
        codes(&server, &send_of(2)).await;
    };
    let (messages, ()) =
        futures_util::future::join(server.wait_for(2, Duration::from_secs(60)), sends).await;
    let sizes: Vec<_> = messages
        .unwrap()
        .iter()
        .map(|message| message.size)
        .collect();
    assert_eq!(sizes, [3, 4]);
    server.add_fault(Fault::close(Step::Rcpt));
    codes(&server, &send_of(3)).await;
    let error = server
        .wait_for(3, Duration::from_millis(5))
        .await
        .unwrap_err();
    assert_eq!((error.arrived, error.expected), (2, 3));
    assert_eq!(
        format!("{error:?}"),
        "2 of 3 messages arrived within 5ms; connections: 3\n  2: RCPT TO:<b@example.org>; a fault \
         closed the connection at RCPT\n  1: QUIT; closed\n  0: QUIT; closed"
    );
}

#[tokio::test]
async fn clearing_deletes_messages_and_their_files() {
    let server = Server::builder().plaintext().start().await.unwrap();
    codes(&server, &send_of(1)).await;
    let kept = server.messages().remove(0);
    let path = kept.path().to_path_buf();
    server.clear();
    assert!(server.messages().is_empty() && path.exists());
    assert_eq!(server.connections()[kept.connection].commands().count(), 0);
    drop(kept);
    assert!(!path.exists());
    codes(&server, &send_of(2)).await;
    assert_eq!(server.next_message().await.size, 4);
}

#[tokio::test]
async fn a_port_is_free_after_shutdown() {
    let first = Server::builder().plaintext().start().await.unwrap();
    let port = first.port();
    let taken = Server::builder().plaintext().port(port).start().await;
    assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let mut stream = connect(&first).await;
    read_until(&mut stream, "envoi\r\n").await;
    first.shutdown().await;
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    let second = Server::builder()
        .plaintext()
        .port(port)
        .start()
        .await
        .unwrap();
    assert_eq!(codes(&second, &send_of(1)).await.len(), 8);
}

#[tokio::test]
async fn a_given_certificate_is_presented() {
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(ca, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::new(["mail.example.org".to_owned()]).unwrap();
    leaf.distinguished_name = rcgen::DistinguishedName::new();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let builder = || Server::builder().implicit_tls();

    let chain = leaf.pem() + &ca.pem();
    let server = builder().certificate_pem(chain.clone(), key.serialize_pem());
    let server = server.start().await.unwrap();
    assert_eq!(server.ca_pem(), ca.pem());
    let stream = connect(&server).await;
    handshake(&server, "mail.example.org", stream)
        .await
        .unwrap();

    // The key of the CA is not the server's.
    let wrong = builder().certificate_pem(chain, ca.key().serialize_pem());
    assert!(wrong.start().await.is_err());
    assert!(
        builder()
            .certificate_pem("no", "PEM")
            .start()
            .await
            .is_err()
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_listens_at_another_address() {
    let server = Server::builder().address([127, 0, 1, 77]).plaintext();
    let server = server.start().await.unwrap();
    assert_eq!(server.host(), "127.0.1.77");
    let client = crate::Client::from_url(&server.url()).unwrap();
    assert!(client.connect().await.unwrap().tls().is_none());
}

#[tokio::test]
async fn certificates_can_be_expired_or_for_other_names() {
    let yesterday = std::time::SystemTime::now() - Duration::from_secs(86_400);
    let never = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(u32::MAX.into()) * 1000;
    let builder = || Server::builder().implicit_tls();
    for (builder, name, expected) in [
        (
            builder().certificate_valid_until(yesterday),
            "localhost",
            "expired",
        ),
        (builder().certificate_valid_until(never), "localhost", ""),
        (
            builder().certificate_names(["mail.example.org"]),
            "localhost",
            "not valid for name",
        ),
        (
            builder().certificate_names(["mail.example.org"]),
            "mail.example.org",
            "",
        ),
    ] {
        let server = builder.start().await.unwrap();
        let result = handshake(&server, name, connect(&server).await).await;
        let text = result.err().map(|error| error.to_string());
        let text = text.unwrap_or_default();
        assert_eq!(text.is_empty(), expected.is_empty(), "{text}");
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn assertions_print_what_differs() {
    let server = Server::builder().plaintext().start().await.unwrap();
    codes(&server, &send_of(1)).await;
    let message = server.next_message().await;
    message.assert_recipients(["B@example.org"]);
    message.assert_contains("x\n");
    message.assert_message("x");
    let session = &server.connections()[0];
    let panic = |check: &dyn Fn()| {
        let check = std::panic::AssertUnwindSafe(check);
        let error = std::panic::catch_unwind(check).unwrap_err();
        error.downcast_ref::<String>().unwrap().clone()
    };
    assert_eq!(
        panic(&|| message.assert_recipients(["a@example.org", "b@example.org"])),
        "the recipients differ (- expected, + received):\n- a@example.org\n  b@example.org\n"
    );
    assert_eq!(
        panic(&|| message.assert_contains("y\n")),
        "the message does not contain \"y\\n\":\nx\n"
    );
    assert_eq!(
        panic(&|| message.assert_message("y\n")),
        "the message differs (- expected, + received):\n- y\n+ x\n"
    );
    assert_eq!(
        panic(&|| session.assert_commands(session.commands().skip(1))),
        "the commands differ (- expected, + received):\n+ EHLO me\n  MAIL FROM:<a@example.org>\n  \
         RCPT TO:<b@example.org>\n  DATA\n  … 3 equal lines\n"
    );
}
