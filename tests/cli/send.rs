//! The `send` example as a program: what it delivers, says and exits with.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use envoi::testing::{Builder, ReceivedMessage, Server};
use serde_json::Value;
use support::program::{self, Run};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// Longer than any of these takes; a test that hangs should fail.
const PATIENCE: Duration = Duration::from_secs(60);

const PASSWORD: &str = "Xyzzy-4711";

async fn send_with(arguments: &[&str], input: &[u8]) -> Run {
    program::run(
        "send",
        arguments,
        input,
        &[("ENVOI_TEST_PASSWORD", PASSWORD)],
    )
    .await
}

async fn send(arguments: &[&str]) -> Run {
    send_with(arguments, b"").await
}

/// From me to you through that server, and what else is asked for.
async fn send_to(url: &str, more: &[&str]) -> Run {
    let mut arguments = vec![
        "--url",
        url,
        "--from",
        "me@example.org",
        "--to",
        "you@example.com",
    ];
    arguments.extend(more);
    send(&arguments).await
}

async fn received(server: &Server) -> (ReceivedMessage, String) {
    let message = timeout(PATIENCE, server.next_message())
        .await
        .expect("no message came");
    let text = String::from_utf8(message.read().unwrap()).unwrap();
    (message, text)
}

/// The base64 part that follows these words in the message.
fn attachment_after(words: &str, message: &str) -> Vec<u8> {
    let part = message
        .split(words)
        .nth(1)
        .unwrap_or_else(|| panic!("no {words} in {message}"));
    let content = part.split_once("\r\n\r\n").unwrap().1;
    let base64: String = content
        .lines()
        .take_while(|line| !line.starts_with("--"))
        .collect();
    base64::engine::general_purpose::STANDARD
        .decode(base64)
        .unwrap()
}

fn file_in(folder: &tempfile::TempDir, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

fn keys(object: &Value) -> Vec<&str> {
    // In alphabetical order, as the map has them.
    object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// A server that greets with the first of these, says the next each time it has read a line, or a
/// message after DATA, and closes after the last.
async fn scripted(replies: &'static [&'static str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let (greeting, replies) = replies.split_first().unwrap();
        stream.write_all(greeting.as_bytes()).await.unwrap();
        let mut in_message = false;
        for reply in replies {
            let mut line = String::new();
            while stream.read_line(&mut line).await.unwrap_or(0) > 0
                && in_message
                && line != ".\r\n"
            {
                line.clear();
            }
            in_message = line.starts_with("DATA");
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    format!("smtp://127.0.0.1:{port}?tls=none")
}

// ---- What is delivered ----

#[tokio::test]
async fn send_delivers_text_html_and_attachments_over_starttls() {
    let server = Server::builder()
        .login("alice", PASSWORD)
        .start()
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..300_000u32).map(|n| (n / 3) as u8).collect();
    let film = file_in(&folder, "film.mp4", &content);
    let notes = file_in(&folder, "notes.txt", "a\nb");
    let html = file_in(&folder, "body.html", "<p>Gr\u{fc}\u{df}e</p>");
    let more = [
        "carl@example.com",
        "--cc",
        "dora@example.com",
        "--bcc",
        "eve@example.net",
        "--subject",
        "The film",
        "--body",
        "As promised.",
        "--html",
        &html,
        "--attach",
        &film,
        &notes,
    ];
    let run = send_to(&server.url(), &more).await;
    run.exits_with(0);
    assert_eq!(run.stderr, "");
    for words in [
        "accepted for carl@example.com",
        "said: 250",
        "TLSv1.3",
        "logged in with PLAIN",
        "round trips",
    ] {
        assert!(
            run.stdout.contains(words),
            "{words:?} is not in: {}",
            run.stdout
        );
    }
    assert!(run.stdout.lines().count() < 10, "{}", run.stdout);

    let (message, text) = received(&server).await;
    assert_eq!(message.login.as_deref(), Some("alice"));
    assert_eq!(message.reverse_path.as_deref(), Some("me@example.org"));
    assert_eq!(
        message.recipients,
        [
            "you@example.com",
            "carl@example.com",
            "dora@example.com",
            "eve@example.net"
        ]
    );
    assert!(
        text.contains("Subject: The film\r\n") && text.contains("As promised."),
        "{}",
        &text[..1000]
    );
    assert!(text.contains("carl@example.com") && text.contains("Cc: "));
    assert!(!text.contains("eve@") && !text.to_lowercase().contains("\nbcc:"));
    assert_eq!(attachment_after("filename=\"film.mp4\"", &text), content);
    assert_eq!(attachment_after("filename=\"notes.txt\"", &text), b"a\nb");
}

#[tokio::test]
async fn send_reads_the_password_from_a_file_or_variable() {
    let server = Server::builder()
        .implicit_tls()
        .login("alice", PASSWORD)
        .require_login(true)
        .start()
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let password = file_in(&folder, "password", format!("{PASSWORD}\n"));
    let url = format!("smtps://alice@localhost:{}", server.port());
    let ca = server.ca_file().to_str().unwrap();
    for source in [
        ["--password-file", &password],
        ["--password-env", "ENVOI_TEST_PASSWORD"],
    ] {
        let run = send_to(
            &url,
            &[
                "--trust", ca, "--auth", "login", source[0], source[1], "--json",
            ],
        )
        .await;
        run.exits_with(0);
        assert_eq!(run.json()["auth"], "LOGIN");
        assert_eq!(received(&server).await.0.tls.as_deref(), Some("TLSv1.3"));
    }
    let piped = [
        "--url",
        &url,
        "--from",
        "a@b.c",
        "--to",
        "b@b.c",
        "--trust",
        ca,
        "--password-file",
        "-",
    ];
    send_with(&piped, format!("{PASSWORD}\r\n").as_bytes())
        .await
        .exits_with(0);
    // As some editors save it.
    send_with(&piped, format!("\u{feff}{PASSWORD}\r\n").as_bytes())
        .await
        .exits_with(0);
    // What cannot be one is not tried.
    for (empty, says) in [
        ("", "empty"),
        ("\n", "empty"),
        (&"x".repeat(70_000), "65536 bytes"),
    ] {
        send_with(&piped, empty.as_bytes())
            .await
            .exits_with(64)
            .says(says);
    }
    // Only one line end does not belong to it.
    send_with(&piped, format!("{PASSWORD}\n\n").as_bytes())
        .await
        .exits_with(77);
    send_to(&url, &["--trust", ca])
        .await
        .exits_with(64)
        .says("no password");
    send_to(
        &url,
        &["--trust", ca, "--password-env", "ENVOI_NO_SUCH_VARIABLE"],
    )
    .await
    .exits_with(64);
    send_to(&url, &["--trust", ca, "--password-file", "/no/such/file"])
        .await
        .exits_with(66);
}

#[tokio::test]
async fn send_delivers_a_body_with_dots_in_plaintext() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let text = ".\n..\n.dot\nlast";
    let file = file_in(&folder, "body.txt", text);
    let url = server.url();
    let arguments = [
        "--url",
        &url,
        "--from",
        "me@example.org",
        "--to",
        "you@example.com",
        "--body-file",
    ];
    send(&[&arguments[..], &[&file]].concat())
        .await
        .exits_with(0);
    send_with(&[&arguments[..], &["-"]].concat(), text.as_bytes())
        .await
        .exits_with(0);
    for _ in 0..2 {
        let (message, received) = received(&server).await;
        assert_eq!((message.tls, message.login), (None, None));
        assert!(
            received
                .trim_end()
                .ends_with("\r\n\r\n.\r\n..\r\n.dot\r\nlast"),
            "{received}"
        );
    }
    // No body at all is an empty one.
    send_to(&url, &["--helo", "client.example.org"])
        .await
        .exits_with(0);
    let (message, empty) = received(&server).await;
    assert_eq!(message.helo, "client.example.org");
    assert!(empty.contains("text/plain"), "{empty}");
}

#[tokio::test]
async fn send_reads_a_raw_message_from_a_file_or_stdin() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ready = "From: x@example.org\nBcc: eve@example.net,\n fay@example.net\nSubject: \
        ready\n\n.\n..a\nend\n";
    let file = file_in(&folder, "ready.eml", ready);
    let url = server.url();
    for (name, bcc) in [(file.as_str(), "eve@example.net"), ("-", "fay@example.net")] {
        let arguments = [
            "--url",
            &url,
            "--from",
            "<>",
            "--to",
            "you@example.com",
            "--bcc",
            bcc,
            "--message",
            name,
        ];
        send_with(&arguments, ready.as_bytes()).await.exits_with(0);
        let (message, text) = received(&server).await;
        assert_eq!(
            text,
            "From: x@example.org\r\nSubject: ready\r\n\r\n.\r\n..a\r\nend\r\n"
        );
        assert_eq!(message.recipients, ["you@example.com", bcc]);
        assert_eq!(message.reverse_path, None);
    }
}

#[tokio::test]
async fn send_repairs_or_refuses_a_raw_message_before_connecting() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let to = [
        "--url",
        &server.url(),
        "--from",
        "a@x.example",
        "--to",
        "b@x.example",
        "--json",
        "--message",
    ];
    for (message, says) in [
        (&b""[..], "the message is empty"),
        (
            b"Hello Bob,\n\nbye\n",
            "line 1 of the message is not a header field: \"Hello Bob,\"",
        ),
        (
            b"To: b@x\nHello Bob,\n",
            "line 2 of the message is not a header field: \"Hello Bob,\"",
        ),
        (
            b"Subject: Gr\xfc\xdfe\n\nbody\n",
            "line 1 of the message is not UTF-8: \"Subject: Gr\\xfc\\xdfe\"",
        ),
        (b"\xff\xfeS\0u\0", "the message is UTF-16, not UTF-8"),
        (
            b"Subject: x\r\rfoo\r\nBcc: h@x\r\n\r\nbody\r\n",
            "line 1 of the message ends with CR alone",
        ),
        (
            b"From: a@x, b@x\n\nbody\n",
            "line 1 of the message: the From header has 2 addresses",
        ),
        (
            b"Subject: a\nSubject: b\n\nbody\n",
            "line 2 of the message is a second Subject header",
        ),
    ] {
        let file = file_in(&folder, "bad.eml", message);
        for path in [file.as_str(), "-"] {
            let run = send_with(&[&to[..], &[path]].concat(), message).await;
            run.exits_with(64);
            let error = &run.json()["error"];
            assert!(
                error["message"].as_str().unwrap().contains(says),
                "{path}: {error}"
            );
            assert!(
                error["kind"] == "request"
                    && error["phase"] == "setup"
                    && error["hint"].is_string(),
                "{error}"
            );
        }
    }
    assert!(server.connections().is_empty());
    let expected = "From: a@x\r\nSubject: Gr\u{fc}\u{df}e\r\n\r\nBcc: of the text\r\n";
    for front in [
        "\u{feff}",
        "\n \n",
        "From 1f2e Mon Sep 17 00:00:00 2001\n",
        "\u{feff}Bcc: h@x\n",
        "bcc : h@x,\n\ti@x\nCc:\n",
    ] {
        let message = format!(
            "{front}From: a@x\nResent-BCC: h@x\nSubject: Gr\u{fc}\u{df}e\n\nBcc: of the text\n"
        );
        let file = file_in(&folder, "good.eml", &message);
        for path in [file.as_str(), "-"] {
            send_with(&[&to[..], &[path]].concat(), message.as_bytes())
                .await
                .exits_with(0);
            let (message, text) = received(&server).await;
            assert_eq!(text, expected, "{front:?}");
            assert!(
                message
                    .parameters
                    .iter()
                    .any(|parameter| parameter == "SMTPUTF8"),
                "{message:?}"
            );
        }
    }
}

#[tokio::test]
async fn send_strips_the_byte_order_mark_of_text_files() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let text = file_in(&folder, "text.txt", "\u{feff}Hello.\n");
    let html = file_in(&folder, "text.html", "\u{feff}<p>Hello.</p>\n");
    send_to(&server.url(), &["--body-file", &text, "--html", &html])
        .await
        .exits_with(0);
    let (_, message) = received(&server).await;
    assert!(
        message.contains("\r\n\r\nHello.\r\n") && message.contains("\r\n\r\n<p>Hello.</p>\r\n"),
        "{message}"
    );
    let connections = server.connections().len();
    for (bytes, says, hint) in [
        (
            &b"Hello,\nGr\xfc\xdfe\n"[..],
            "line 2 is not UTF-8: \"Gr\\xfc\\xdfe\"",
            "iconv -f LATIN1 -t UTF-8",
        ),
        (
            b"\xff\xfeH\0i\0",
            "it is UTF-16, not UTF-8",
            "iconv -f UTF-16 -t UTF-8",
        ),
        (
            b"\xfe\xff\0H\0i",
            "it is UTF-16, not UTF-8",
            "iconv -f UTF-16 -t UTF-8",
        ),
    ] {
        let file = file_in(&folder, "other.txt", bytes);
        for option in ["--body-file", "--html"] {
            let run = send_to(&server.url(), &[option, &file]).await;
            run.exits_with(66)
                .says(&format!("{option} cannot be read as text: {says}"))
                .says(hint);
        }
    }
    assert_eq!(server.connections().len(), connections);
}

#[tokio::test]
async fn send_takes_quoted_local_parts_and_removes_duplicates() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let url = server.url();
    let arguments = [
        "--url",
        &url,
        "--from",
        "\"a b\"@example.org",
        "--to",
        "\"c <d\\\" e\"@x.example",
    ];
    assert_eq!(
        send(&arguments).await.code,
        64,
        "angle brackets are taken leniently only"
    );
    let arguments = [
        "--url",
        &url,
        "--from",
        "\"a b\"@example.org",
        "--to",
        "\"c\\\" e\"@x.example",
        "--cc",
        "d@X.example",
    ];
    send(&[&arguments[..], &["--bcc", "d@x.example", "D@x.example"]].concat())
        .await
        .exits_with(0);
    let (message, text) = received(&server).await;
    assert_eq!(message.reverse_path.as_deref(), Some("\"a b\"@example.org"));
    assert_eq!(
        message.recipients,
        ["\"c\\\" e\"@x.example", "d@X.example", "D@x.example"]
    );
    assert!(
        text.contains("From: <\"a b\"@example.org>\r\n")
            && text.contains("To: <\"c\\\" e\"@x.example>\r\n"),
        "{text}"
    );
    let run = send(&[
        "--url",
        &url,
        "--from",
        "a@example.org",
        "--to",
        "b@example.org\u{200b}",
    ])
    .await;
    run.exits_with(64)
        .says("it contains U+200B, which is not visible");
}

#[tokio::test]
async fn send_reads_an_attachment_from_stdin() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let url = server.url();
    let content: Vec<u8> = (0..1_000_000u32).map(|n| (n / 3) as u8).collect();
    let arguments = [
        "--url",
        &url,
        "--from",
        "",
        "--bcc",
        "you@example.com",
        "--attach",
        "-",
    ];
    send_with(&arguments, &content).await.exits_with(0);
    let (message, text) = received(&server).await;
    assert_eq!(message.reverse_path, None);
    assert!(
        !text.contains("From: ") && !text.contains("To: "),
        "{}",
        &text[..500]
    );
    assert_eq!(attachment_after("filename=\"attachment\"", &text), content);
}

// ---- The JSON ----

#[tokio::test]
async fn send_json_has_exactly_the_documented_keys() {
    let server = Server::builder()
        .login("alice", PASSWORD)
        .start()
        .await
        .unwrap();
    let run = send_to(&server.url(), &["--json"]).await;
    run.exits_with(0);
    assert_eq!(run.stdout.lines().count(), 1);
    let all = [
        "auth",
        "bytes",
        "error",
        "outcome",
        "recipients",
        "reply",
        "round_trips",
        "seconds",
        "server",
        "tls",
    ];
    let json = run.json();
    assert_eq!(keys(&json), all);
    assert_eq!(keys(&json["reply"]), ["code", "enhanced", "text"]);
    assert_eq!(
        keys(&json["recipients"][0]),
        ["accepted", "address", "code", "enhanced", "outcome", "text"]
    );
    assert_eq!(
        keys(&json["tls"]),
        [
            "cipher",
            "issuer",
            "not_after",
            "peer",
            "verified",
            "version"
        ]
    );
    assert_eq!(
        (&json["outcome"], &json["server"]),
        (&"sent".into(), &"localhost".into())
    );
    assert_eq!(json["recipients"][0]["outcome"], "accepted");
    assert_eq!(json["recipients"][0]["accepted"], true);
    assert_eq!(json["recipients"][0]["code"], 250);
    assert_eq!(
        (&json["reply"]["code"], &json["error"]),
        (&250.into(), &Value::Null)
    );
    assert_eq!(
        (&json["tls"]["version"], &json["tls"]["verified"]),
        (&"TLSv1.3".into(), &true.into())
    );
    let not_after = json["tls"]["not_after"].as_str().unwrap();
    assert!(
        not_after.len() == 20 && &not_after[10..11] == "T" && not_after.ends_with('Z'),
        "{not_after}"
    );
    assert_eq!(json["bytes"], server.messages()[0].size);
    assert!(json["seconds"].is_f64() && json["round_trips"].as_u64().unwrap() > 3);

    let run = send_to("smtp://localhost?colour=red", &["--json"]).await;
    run.exits_with(64).says("colour");
    let json = run.json();
    assert_eq!(keys(&json), all);
    assert_eq!(
        keys(&json["error"]),
        ["hint", "kind", "message", "phase", "transient"]
    );
    assert_eq!(
        (&json["outcome"], &json["error"]["kind"]),
        (&"failed".into(), &"request".into())
    );
    assert_eq!(
        (&json["error"]["phase"], &json["error"]["transient"]),
        (&"setup".into(), &false.into())
    );
    for absent in [
        "server",
        "reply",
        "recipients",
        "tls",
        "auth",
        "bytes",
        "round_trips",
    ] {
        assert_eq!(json[absent], Value::Null, "{absent}");
    }
}

// ---- The server says no ----

#[tokio::test]
async fn send_reports_refused_recipients() {
    let server = Server::builder()
        .plaintext()
        .refuse_recipient("nobody@example.com", "550 5.1.1 No such user")
        .refuse_recipient("later@example.com", "451 4.7.1 Come back later")
        .start()
        .await
        .unwrap();
    let url = server.url();
    let to = |recipients: &[&'static str], more: &[&'static str]| {
        let url = url.clone();
        let arguments = [
            &["--from", "me@example.org", "--json", "--to"],
            recipients,
            more,
        ]
        .concat();
        async move { send(&[&["--url", &url][..], &arguments].concat()).await }
    };

    let run = to(&["you@example.com", "nobody@example.com"], &[]).await;
    run.exits_with(69).says("nobody@example.com");
    let json = run.json();
    assert_eq!(
        (&json["outcome"], &json["reply"]["code"]),
        (&"partial".into(), &250.into())
    );
    assert!(
        json["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("no such mailbox"),
        "{json}"
    );
    assert_eq!(json["recipients"][0]["accepted"], true);
    let refused = &json["recipients"][1];
    assert_eq!(
        (&refused["outcome"], &refused["accepted"]),
        (&"refused".into(), &false.into())
    );
    assert_eq!(
        (&refused["code"], &refused["enhanced"]),
        (&550.into(), &"5.1.1".into())
    );
    assert_eq!(refused["text"], "No such user");

    let run = to(&["nobody@example.com"], &[]).await;
    run.exits_with(69);
    assert_eq!(
        (&run.json()["outcome"], &run.json()["error"]["phase"]),
        (&"failed".into(), &"rcpt".into())
    );

    let run = to(&["later@example.com"], &[]).await;
    run.exits_with(75);
    assert_eq!(run.json()["error"]["transient"], true);
    to(&["later@example.com", "you@example.com"], &[])
        .await
        .exits_with(75);
    // For good outweighs for now, in either order.
    to(&["later@example.com", "nobody@example.com"], &[])
        .await
        .exits_with(69);
    to(
        &["nobody@example.com", "later@example.com", "you@example.com"],
        &[],
    )
    .await
    .exits_with(69);
    let run = to(&["nobody@example.com", "later@example.com"], &[]).await;
    let error = &run.exits_with(69).json()["error"];
    let hint = error["hint"].as_str().unwrap();
    assert!(
        hint.contains("For nobody@example.com: ") && hint.contains("For later@example.com: "),
        "{hint}"
    );
    assert_eq!(error["transient"], false);

    let before = server.messages().len();
    let run = to(
        &["you@example.com", "nobody@example.com"],
        &["--all-or-nothing"],
    )
    .await;
    run.exits_with(69);
    let json = run.json();
    assert_eq!(
        (&json["outcome"], &json["recipients"][0]["outcome"]),
        (&"failed".into(), &"not-tried".into())
    );
    assert_eq!(json["recipients"][0]["accepted"], Value::Null);
    assert_eq!(server.messages().len(), before);
}

#[tokio::test]
async fn send_exits_by_the_refused_command() {
    for (command, reply, code) in [
        ("MAIL", "550 5.7.1 Not you", 69),
        ("MAIL", "451 4.3.0 Not now", 75),
        (".", "554 5.6.0 Not this", 69),
        (".", "452 4.3.1 Full", 75),
        ("DATA", "421 4.3.2 Going down", 75),
        ("EHLO", "550 5.7.1 Not from there", 69),
        ("EHLO", "421 4.3.2 Going down", 75),
    ] {
        let server = Server::builder()
            .plaintext()
            .answer(move |line| line.starts_with(command).then(|| reply.to_owned()))
            .start()
            .await
            .unwrap();
        let run = send_to(&server.url(), &["--json"]).await;
        run.exits_with(code).says(&reply[4..]);
        assert_eq!(
            run.json()["reply"]["code"].as_u64().unwrap().to_string(),
            reply[..3]
        );
    }
    send_to(&scripted(&["554 5.7.1 Go away\r\n"]).await, &[])
        .await
        .exits_with(69);
    send_to(&scripted(&["421 4.3.2 Too many\r\n"]).await, &[])
        .await
        .exits_with(75);
}

#[tokio::test]
async fn send_refuses_what_the_server_does_not_support() {
    let server = Server::builder()
        .plaintext()
        .without("SMTPUTF8")
        .max_size(1000)
        .start()
        .await
        .unwrap();
    let to = ["--url", &server.url(), "--from", "me@example.org", "--to"];
    send(&[&to[..], &["j\u{f6}rg@example.org"]].concat())
        .await
        .exits_with(64);
    let bare = Server::builder()
        .plaintext()
        .without("SMTPUTF8")
        .without("8BITMIME")
        .start()
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ready = file_in(
        &folder,
        "ready.eml",
        "Subject: Gru\u{df}\n\nGr\u{fc}\u{df}e\n",
    );
    for message in [
        &[][..],
        &["--body", "Gr\u{fc}\u{df}e"],
        &["--message", &ready],
    ] {
        let arguments = [
            "--url",
            &bare.url(),
            "--from",
            "me@example.org",
            "--to",
            "j\u{f6}rg@example.org",
        ];
        send(&[&arguments[..], message].concat())
            .await
            .exits_with(64)
            .says("does not offer SMTPUTF8");
    }
    send(
        &[
            &to[..],
            &["you@example.com", "--body", &"long ".repeat(1000)],
        ]
        .concat(),
    )
    .await
    .exits_with(69);
    assert_eq!(server.messages().len(), 0);
}

#[tokio::test]
async fn send_uses_a_labels_or_smtputf8_for_other_addresses() {
    let server = Server::builder()
        .plaintext()
        .without("SMTPUTF8")
        .start()
        .await
        .unwrap();
    let url = server.url();
    let to = [
        "--url",
        &url,
        "--from",
        "me@b\u{fc}cher.example",
        "--to",
        "you@ex\u{e4}mple.org",
        "--json",
    ];
    let run = send(&to).await;
    assert_eq!(
        run.exits_with(0).json()["recipients"][0]["address"],
        "you@ex\u{e4}mple.org"
    );
    let (message, text) = received(&server).await;
    assert_eq!(
        message.reverse_path.as_deref(),
        Some("me@xn--bcher-kva.example")
    );
    assert_eq!(message.recipients, ["you@xn--exmple-cua.org"]);
    assert!(text.is_ascii(), "{text}");

    let server = Server::builder().plaintext().start().await.unwrap();
    let url = server.url();
    let to = [
        "--url",
        &url,
        "--from",
        "me@example.org",
        "--to",
        "j\u{f6}rg@ex\u{e4}mple.org",
    ];
    send(&to).await.exits_with(0);
    assert_eq!(
        received(&server).await.0.recipients,
        ["j\u{f6}rg@ex\u{e4}mple.org"]
    );
}

#[tokio::test]
async fn send_passes_delivery_options() {
    let all = [
        ("DSN", &["--notify", "success,delay"][..]),
        ("DSN", &["--ret", "hdrs"]),
        ("DSN", &["--envid", "invoice 4711"]),
        ("DELIVERBY", &["--deliver-by", "60"]),
        ("FUTURERELEASE", &["--hold", "3600"]),
        ("MT-PRIORITY", &["--priority", "-3"]),
        ("REQUIRETLS", &["--require-tls"]),
    ];
    let everything: Vec<&str> = all
        .iter()
        .flat_map(|(_, option)| option.iter().copied())
        .collect();
    let offers = [
        "DSN",
        "DELIVERBY 60",
        "FUTURERELEASE 3600 2030-01-01T00:00:00Z",
        "MT-PRIORITY MIXER",
        "REQUIRETLS",
    ];
    let server = offers
        .into_iter()
        .fold(Server::builder(), |server, line| server.offer(line))
        .start()
        .await
        .unwrap();
    send_to(&server.url(), &everything).await.exits_with(0);
    let (message, _) = received(&server).await;
    let asked = [
        "RET=HDRS",
        "ENVID=invoice+204711",
        "BY=60;R",
        "HOLDFOR=3600",
        "MT-PRIORITY=-3",
        "REQUIRETLS",
    ];
    let parameters = message
        .parameters
        .iter()
        .filter(|parameter| !parameter.starts_with("SIZE"));
    assert_eq!(parameters.collect::<Vec<_>>(), asked);
    assert_eq!(
        message.recipient_parameters,
        [["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;you@example.com"]]
    );

    // Nothing of it is offered, or not as much.
    let bare = Server::start().await.unwrap();
    for (keyword, option) in all {
        send_to(&bare.url(), option)
            .await
            .exits_with(69)
            .says(keyword);
    }
    send_to(&server.url(), &["--deliver-by", "59"])
        .await
        .exits_with(69);
    send_to(&server.url(), &["--hold", "3601"])
        .await
        .exits_with(69);
    // TLS is missing here already.
    let plain = Server::builder()
        .plaintext()
        .offer("REQUIRETLS")
        .start()
        .await
        .unwrap();
    send_to(&plain.url(), &["--require-tls"])
        .await
        .exits_with(76)
        .says("REQUIRETLS");
    assert!(bare.messages().is_empty() && plain.messages().is_empty());

    for option in [
        &["--notify", "never,success"][..],
        &["--notify", ""],
        &["--ret", "headers"],
        &["--envid", "a\nb"],
        &["--deliver-by", "0"],
        &["--deliver-by", "soon"],
        &["--hold", "-1"],
        &["--priority", "10"],
        &["--priority", "high"],
    ] {
        send_to(&server.url(), option).await.exits_with(64);
    }
}

#[tokio::test]
async fn send_logs_in_with_each_mechanism() {
    let server = Server::builder()
        .login("alice", PASSWORD)
        .start()
        .await
        .unwrap();
    let url = server.url().replace(PASSWORD, "wrong");
    let run = send_to(&url, &["--json"]).await;
    run.exits_with(77).says("535");
    let json = run.json();
    assert_eq!(
        (&json["error"]["kind"], &json["error"]["phase"]),
        (&"auth".into(), &"auth".into())
    );
    assert_eq!(json["tls"]["version"], "TLSv1.3");
    assert_eq!(json["recipients"][0]["outcome"], "not-tried");
    // The option, not the URL, has the last word.
    send_to(&url, &["--password-env", "ENVOI_TEST_PASSWORD"])
        .await
        .exits_with(0);
    send_to(&url, &["--auth", "NTLM"]).await.exits_with(64);

    let server = Server::builder()
        .without("AUTH")
        .login("alice", PASSWORD)
        .start()
        .await
        .unwrap();
    send_to(&server.url(), &[]).await.exits_with(77);

    let server = Server::builder()
        .login("alice", PASSWORD)
        .answer(|line| {
            line.starts_with("AUTH")
                .then(|| "454 4.7.0 Temporary failure".into())
        })
        .start()
        .await
        .unwrap();
    send_to(&server.url(), &[]).await.exits_with(75);
}

// ---- TLS ----

#[tokio::test]
async fn send_never_sends_credentials_in_clear() {
    let server = Server::builder()
        .plaintext()
        .auth_in_clear(true)
        .login("alice", PASSWORD)
        .start()
        .await
        .unwrap();
    let allowed = server.url();
    let url = allowed.replace("&auth-in-clear=yes", "");
    assert_ne!(url, allowed);
    let run = send_to(&url, &["--json"]).await;
    run.exits_with(76).says("auth-in-clear");
    assert_eq!(run.json()["error"]["kind"], "insecure");
    let opportunistic = url.replace("tls=none", "tls=opportunistic");
    send_to(
        &opportunistic,
        &["--trust", server.ca_file().to_str().unwrap()],
    )
    .await
    .exits_with(76);
    for session in server.connections() {
        assert!(
            session
                .commands()
                .all(|line| line.starts_with("EHLO") || line == "QUIT"),
            "{session:?}"
        );
    }
    send_to(&allowed, &[]).await.exits_with(0);
}

#[tokio::test]
async fn send_obeys_the_tls_policy() {
    let server = Server::start().await.unwrap();
    let untrusted = Server::start().await.unwrap();
    let (ca, other) = (
        server.ca_file().to_str().unwrap(),
        untrusted.ca_file().to_str().unwrap(),
    );
    let url = format!("smtp://localhost:{}", server.port());

    // Who is not trusted; the options replace what the URL says.
    let run = send_to(&url, &["--trust", other, "--json"]).await;
    run.exits_with(76);
    assert_eq!(
        (&run.json()["error"]["kind"], &run.json()["tls"]),
        (&"tls".into(), &Value::Null)
    );
    send_to(&server.url(), &["--trust", other])
        .await
        .exits_with(76);
    send_to(
        &untrusted
            .url()
            .replace(&untrusted.port().to_string(), &server.port().to_string()),
        &["--trust", ca],
    )
    .await
    .exits_with(0);
    send_to(&url, &["--trust", other, ca]).await.exits_with(0);
    send_to(&url, &["--trust", other, "--trust", ca, "--system-trust"])
        .await
        .exits_with(0);

    // Opportunistic: not verified, and said so; in clear where there is no TLS, and said so.
    let run = send_to(
        &format!("{url}?tls=opportunistic"),
        &["--trust", other, "--json"],
    )
    .await;
    run.exits_with(0);
    assert_eq!(run.json()["tls"]["verified"], false);
    let plain = Server::builder().plaintext().start().await.unwrap();
    let url = format!("smtp://localhost:{}", plain.port());
    let run = send_to(&format!("{url}?tls=opportunistic"), &["--trust", ca]).await;
    assert!(
        run.exits_with(0).stdout.contains("not encrypted"),
        "{}",
        run.stdout
    );

    // No STARTTLS there, no TLS there.
    let run = send_to(&url, &["--trust", ca, "--json"]).await;
    run.exits_with(76).says("STARTTLS");
    assert_eq!(run.json()["error"]["phase"], "starttls");
    send_to(&url.replace("smtp:", "smtps:"), &["--trust", ca])
        .await
        .exits_with(76);
    assert_eq!(plain.messages().len(), 1);
}

#[tokio::test]
async fn send_exits_by_the_reply_to_starttls() {
    for (reply, code) in [
        ("454 4.7.0 TLS is not available now", 75),
        ("502 5.5.1 Not implemented", 76),
    ] {
        let server = Server::builder()
            .answer(move |line| (line == "STARTTLS").then(|| reply.to_owned()))
            .start()
            .await
            .unwrap();
        send_to(&server.url(), &[])
            .await
            .exits_with(code)
            .says(reply);
    }
}

#[tokio::test]
async fn send_reports_unusable_trust() {
    let server = Server::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url = server.url();
    send_to(&url, &["--trust", "/no/such/ca.pem"])
        .await
        .exits_with(78);
    send_to(
        &url,
        &["--trust", &file_in(&folder, "ca.pem", "no certificate")],
    )
    .await
    .exits_with(78);
    assert!(server.connections().is_empty());
}

// ---- No answer ----

#[tokio::test]
async fn send_reports_a_refused_connection() {
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let run = send_to(&format!("smtp://127.0.0.1:{port}?tls=none"), &["--json"]).await;
    run.exits_with(75);
    let json = run.json();
    assert_eq!(
        (&json["error"]["kind"], &json["error"]["phase"]),
        (&"connect".into(), &"connect".into())
    );
    assert_eq!(json["recipients"][0]["outcome"], "not-tried");

    // Closed before the message was handed over: it was not sent.
    send_to(&scripted(&["220 hello\r\n"]).await, &[])
        .await
        .exits_with(75);
    send_to(
        &scripted(&["220 hello\r\n", "250 mail\r\n", "250 OK\r\n"]).await,
        &[],
    )
    .await
    .exits_with(75);
    send_to(&scripted(&["SSH-2.0-OpenSSH_9.2\r\n"]).await, &[])
        .await
        .exits_with(76);
}

#[tokio::test]
async fn send_times_out_on_a_silent_server() {
    // Its backlog accepts the connection, and no reply comes.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "smtp://127.0.0.1:{}?tls=none",
        silent.local_addr().unwrap().port()
    );
    for limit in ["--timeout", "--deadline"] {
        let started = Instant::now();
        let run = send_to(&url, &[limit, "0.5", "--json"]).await;
        run.exits_with(75);
        assert_eq!(run.json()["error"]["kind"], "timeout");
        let took = started.elapsed();
        assert!(
            took > Duration::from_millis(500) && took < Duration::from_secs(10),
            "{limit}: {took:?}"
        );
    }
    // The URL's limit is not lost with a deadline.
    send_to(&format!("{url}&timeout=0.5"), &["--deadline", "3600"])
        .await
        .exits_with(75);
    for (limit, value) in [
        ("--timeout", "soon"),
        ("--timeout", "0"),
        ("--deadline", "-1"),
        ("--deadline", "inf"),
    ] {
        send_to(&url, &[&format!("{limit}={value}")])
            .await
            .exits_with(64)
            .says(limit);
    }
}

#[tokio::test]
async fn send_exits_79_without_a_final_reply() {
    const READY: [&str; 5] = [
        "220 hello\r\n",
        "250 mail\r\n",
        "250 OK\r\n",
        "250 OK\r\n",
        "354 go\r\n",
    ];
    for last in ["", "what?\r\n", "250-and"] {
        let replies: Vec<&str> = READY.into_iter().chain([last]).collect();
        let run = send_to(&scripted(replies.leak()).await, &["--json"]).await;
        run.exits_with(79);
        let json = run.json();
        assert_eq!(
            (&json["outcome"], &json["recipients"][0]["outcome"]),
            (&"unknown".into(), &"unknown".into())
        );
        assert_eq!(json["recipients"][0]["accepted"], Value::Null);
        assert_eq!(json["error"]["transient"], false);
    }
    // It outweighs a refusal for good.
    let replies = &[
        "220 hello\r\n",
        "250 mail\r\n",
        "250 OK\r\n",
        "250 OK\r\n",
        "550 no\r\n",
        "354 go\r\n",
        "",
    ];
    send_to(&scripted(replies).await, &["--bcc", "nobody@example.com"])
        .await
        .exits_with(79);
}

// ---- Bad requests and inputs ----

#[tokio::test]
async fn send_refuses_invalid_arguments_before_connecting() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let url = server.url();
    let base = ["--url", &url, "--from", "me@example.org", "--json"];
    let cases: &[&[&str]] = &[
        &[],
        &["--to", "you"],
        &["--to", "you@example.com>\r\nRCPT TO:<eve@example.net"],
        &["--to"],
        &["--to", "you@exa mple.com"],
        &["--to", "you@example.com", "--cc", ""],
        &["--to", "you@example.com", "--bcc", "no-domain"],
        &[
            "--to",
            "you@example.com",
            "--subject",
            "Hello\r\nBcc: eve@example.net",
        ],
        &["--to", "you@example.com", "--helo", "a b"],
        &["--to", "you@example.com", "--frobnicate"],
        &["--to", "you@example.com", "--body", "a", "--body-file", "-"],
        &["--to", "you@example.com", "--body-file", "-", "--html", "-"],
        &["--to", "you@example.com", "--attach", "-", "-"],
        &[
            "--to",
            "you@example.com",
            "--message",
            "-",
            "--subject",
            "a",
        ],
        &["--to", "you@example.com", "--message", "-", "--attach", "a"],
        &["--to", "you@example.com", "--json=yes"],
        &["--to", "you@example.com", "--from", "me@example.org"],
        &[
            "--to",
            "you@example.com",
            "--password-env",
            "ENVOI_TEST_PASSWORD",
        ],
        &["--to", "you@example.com", "--retries", "many"],
    ];
    for case in cases {
        let run = send_with(&[&base[..], case].concat(), b"Subject: a\n\nb\n").await;
        run.exits_with(64);
        assert_eq!(run.json()["error"]["kind"], "request", "{case:?}");
    }
    for url in [
        "mail.example.org",
        "http://localhost",
        "smtps://localhost?tls=required",
        "smtp://localhost?tls=none&tls=none",
    ] {
        send_to(url, &[]).await.exits_with(64);
    }
    assert!(server.connections().is_empty());
}

#[tokio::test]
async fn send_checks_a_server_without_a_message() {
    let server = Server::builder()
        .login("alice", PASSWORD)
        .max_size(1_000_000)
        .start()
        .await
        .unwrap();
    let run = send(&["--check", "--json", "--url", &server.url()]).await;
    run.exits_with(0);
    let json = run.json();
    assert_eq!(json["outcome"], "checked");
    assert_eq!(json["server"], "localhost");
    assert_eq!(json["recipients"], Value::Array(vec![]));
    assert_eq!(json["auth"], "PLAIN");
    assert_eq!(json["bytes"], 0);
    assert_eq!(json["error"], Value::Null);
    assert_eq!(json["tls"]["verified"], true);
    assert_eq!(json["check"]["size_limit"], 1_000_000);
    assert_eq!(json["check"]["advice"], Value::Array(vec![]));
    let used = json["check"]["certificates"].as_array().unwrap();
    let used: Vec<_> = used
        .iter()
        .map(|used| used["use"].as_str().unwrap())
        .collect();
    assert_eq!(used, ["server", "anchor"]);

    // The options of a message are allowed, and not used.
    let run = send_to(&server.url(), &["--check", "--attach", "/no/such/file"]).await;
    run.exits_with(0);
    for words in [
        "localhost is ready",
        "TLSv1.3",
        "logged in with PLAIN",
        "1000000 bytes",
    ] {
        assert!(
            run.stdout.contains(words),
            "{words} is not in: {}",
            run.stdout
        );
    }
    let wrong = server.url().replace(PASSWORD, "wrong");
    let run = send(&["--check", "--json", "--url", &wrong]).await;
    run.exits_with(77);
    assert_eq!(run.json()["outcome"], "failed");
    assert_eq!(run.json()["error"]["kind"], "auth");
    assert_eq!(run.json()["recipients"], Value::Array(vec![]));
    let run = send(&["--check", "--json", "--url", &server.url(), "--mx"]).await;
    run.exits_with(64);
    assert!(server.messages().is_empty());
    for session in server.connections() {
        assert!(!session.commands().any(|line| line.starts_with("MAIL")));
        assert_eq!(session.commands().last(), Some("QUIT"));
    }
    // Without it, a sender is needed.
    send(&["--url", &server.url(), "--to", "you@example.com"])
        .await
        .exits_with(64);
}

#[tokio::test]
async fn send_signs_with_each_key() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dkim/tests/keys");
    let rsa = format!("example.org,2026,{keys}/rsa-2048.pem");
    let ed25519 = format!("mail.example.org,ed,{keys}/ed25519.pem");
    let options = [
        "--body", "Hello.", "--dkim", &rsa, "--dkim", &ed25519, "--json",
    ];
    let run = send_to(&server.url(), &options).await;
    run.exits_with(0);
    let (_, text) = received(&server).await;
    let unfolded = text.replace("\r\n ", " ");
    let parts: Vec<&str> = unfolded.split("DKIM-Signature: ").collect();
    let starts = [
        "v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=2026;",
        "v=1; a=ed25519-sha256; c=relaxed/relaxed; d=mail.example.org;",
    ];
    assert_eq!(parts[0], "");
    for (part, start) in parts[1..].iter().zip(starts) {
        assert!(part.starts_with(start), "{part}");
    }
    assert_eq!(parts.len(), 3);
    assert!(run.json()["bytes"] == text.len());
    // A message that is read once.
    for option in ["--attach", "--message"] {
        let addresses = ["--from", "me@example.org", "--to", "you@example.com"];
        let url = server.url();
        let options = ["--url", &url, option, "-", "--dkim", &rsa, "--json"];
        let input = b"From: me@example.org\n\nHello.";
        let run = send_with(&[&addresses[..], &options].concat(), input).await;
        run.exits_with(64);
        let error = &run.json()["error"];
        assert!(error["message"].as_str().unwrap().contains("only once"));
        let hint = error["hint"].as_str().unwrap();
        assert!(hint.contains("file") && !hint.contains("::"), "{hint}");
    }
}

#[tokio::test]
async fn send_refuses_dkim_keys_and_names_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dkim/tests/keys");
    let text = std::fs::read_to_string(format!("{keys}/ed25519.pem")).unwrap();
    let damaged = file_in(&folder, "damaged.pem", &text[..text.len() - 40]);
    let secret = text.lines().nth(1).unwrap();
    for (option, code) in [
        ("example.org".to_owned(), 64),
        (format!("example.org,{keys}/ed25519.pem"), 64),
        (format!("example,2026,{keys}/ed25519.pem"), 64),
        (format!("example.org,20 26,{keys}/ed25519.pem"), 64),
        ("example.org,2026,/no/such/file".to_owned(), 78),
        (format!("example.org,2026,{keys}"), 78),
        (format!("example.org,2026,{keys}/rsa-1024.pem"), 78),
        (format!("example.org,2026,{damaged}"), 78),
        // What was meant for the file.
        (format!("example.org,2026,{text}"), 78),
    ] {
        for more in [&["--body", "Hello."][..], &["--check"]] {
            let options = [&["--json", "--dkim", &option], more].concat();
            let run = send_to("smtp://127.0.0.1:1?tls=none", &options).await;
            run.exits_with(code);
            let hint = run.json()["error"]["hint"].as_str().unwrap().to_owned();
            assert!(!hint.contains("::"), "{hint}");
            for output in [&run.stdout, &run.stderr] {
                assert!(!output.contains(&secret[..40]), "{output}");
            }
        }
    }
}

#[tokio::test]
async fn send_refuses_options_that_do_not_go_with_mx() {
    let envelope = [
        "--from",
        "me@example.org",
        "--to",
        "you@example.com",
        "--json",
    ];
    for (options, says) in [
        (
            &["--mx", "--url", "smtp://127.0.0.1:1"][..],
            "--url does not go with --mx: ",
        ),
        (&["--mx", "--check"], "--check does not go with --mx: "),
        (
            &["--mx", "--auth", "PLAIN"],
            "--auth does not go with --mx: ",
        ),
        (
            &["--mx", "--password-file", "f"],
            "--password-file does not go with --mx: ",
        ),
        (
            &["--mx", "--password-env", "V"],
            "--password-env does not go with --mx: ",
        ),
        (&["--mx", "--dane", "maybe"], "--dane takes on or off"),
        (
            &["--mx", "--resolver", "localhost"],
            "--resolver: the resolver is not given by its IP address",
        ),
        (
            &["--mx", "--resolver", "::1:5377"],
            "--resolver: it is not clear whether",
        ),
        (
            &["--url", "smtp://h", "--dane", "on"],
            "this is missing: --mx",
        ),
        (
            &["--url", "smtp://h", "--resolver", "127.0.0.1:53"],
            "this is missing: --mx",
        ),
        (&["--mx", "--mta-sts", "maybe"], "--mta-sts takes on or off"),
        (
            &["--url", "smtp://h", "--state", "folder"],
            "this is missing: --mx",
        ),
        (&[], "this is missing: --url <URL>"),
    ] {
        let run = send(&[&envelope[..], options].concat()).await;
        run.exits_with(64);
        let json = run.json();
        let message = json["error"]["message"].as_str().unwrap();
        assert!(message.starts_with(says), "{options:?}: {message}");
        assert!(json["error"]["hint"].as_str().is_some(), "{json}");
    }
}

/// Even where no certificate is verified.
#[tokio::test]
async fn trust_that_cannot_be_read_is_found_before_anything_is_looked_up() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let dns = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolver = dns.local_addr().unwrap().to_string();
    let url = format!("smtp://127.0.0.1:{}?tls=none", server.port());
    let place = format!("127.0.0.1:{}", server.port());
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("folder");
    std::fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    let garbage = file_in(&folder, "garbage", b"not a certificate");
    let message = ["--from", "me@example.org", "--to", "you@example.com"];
    let template = "From: me@example.org\r\nTo: {{email}}\r\n\r\nHello.\r\n";
    let template = file_in(&folder, "template.eml", template.as_bytes());
    let list = file_in(&folder, "list.csv", b"email\nyou@example.com\n");
    let journal = folder.path().join("journal");
    let mailing = [
        "--url",
        &url,
        "--template",
        &template,
        "--recipients",
        &list,
        "--journal",
        journal.to_str().unwrap(),
    ];
    let of_mx = ["--resolver", &resolver];
    for trust in ["/no/such/file", empty, &garbage] {
        for (program, arguments) in [
            ("send", [&["--url", &url], &message[..]].concat()),
            ("send", vec!["--url", &url, "--check"]),
            ("send", [&["--mx"], &message[..], &of_mx].concat()),
            (
                "send",
                [&["--mx", "--mta-sts", "off"], &message[..], &of_mx].concat(),
            ),
            ("probe", vec![&place]),
            ("probe", vec!["--url", &url]),
            ("probe", [&["--mx", "example.org"], &of_mx[..]].concat()),
            ("bulk", mailing.to_vec()),
        ] {
            let arguments = [&arguments[..], &["--trust", trust]].concat();
            let run = program::run(program, &arguments, b"", &[]).await;
            assert_eq!(run.code, 78, "{arguments:?}: {}", run.stderr);
            run.says(trust);
        }
    }
    assert!(server.connections().is_empty());
    dns.set_nonblocking(true).unwrap();
    assert!(dns.recv(&mut [0; 512]).is_err(), "a question was asked");
}

#[tokio::test]
async fn send_names_a_resolver_that_does_not_answer() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let message = [
        "--from",
        "me@example.org",
        "--to",
        "you@example.com",
        "--json",
    ];
    for (limit, says) in [
        (
            "--timeout",
            "looking up MX of example.com: the resolver did not answer in time: ",
        ),
        (
            "--deadline",
            "the lookups for example.com did not end before the deadline of ",
        ),
    ] {
        let options = ["--mx", "--resolver", &silent, limit, "0.3"];
        let run = send(&[&message[..], &options].concat()).await;
        run.exits_with(75).says(says).says(&silent).says("  hint: ");
    }
}

/// By `send` and `probe` alike, before anything is looked up.
#[tokio::test]
async fn anchors_and_resolvers_that_cannot_be_used_are_named_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let empty = file_in(&folder, "empty", b"");
    let other = file_in(&folder, "other", b"example. IN A 192.0.2.1\n");
    let message = ["--from", "me@example.org", "--to", "you@example.com"];
    for (option, value, code, says) in [
        (
            "--dnssec-anchor",
            "/no/such/file",
            66,
            "--dnssec-anchor: /no/such/file: ",
        ),
        ("--dnssec-anchor", &empty, 78, "there are none"),
        ("--dnssec-anchor", &other, 78, "one is of the type A"),
        ("--resolver", "[::1]:0", 64, "the port of the resolver is 0"),
        ("--resolver", "::1:53", 64, "ends with a port"),
        (
            "--resolver",
            "dns.example.org",
            64,
            "is not given by its IP address",
        ),
    ] {
        let options = [option, value, "--json"];
        for (program, arguments) in [
            ("send", [&["--mx"], &message[..], &options].concat()),
            ("probe", [&["--mx", "example.org"], &options[..]].concat()),
        ] {
            let run = program::run(program, &arguments, b"", &[]).await;
            run.exits_with(code).says(says).says("  hint: ");
            let json = run.json();
            let message = json["error"]["message"].as_str().unwrap();
            assert!(message.contains(says), "{message}");
            assert!(json["error"]["hint"].as_str().is_some(), "{json}");
            if option == "--dnssec-anchor" {
                assert!(message.contains(value), "{message}");
            }
        }
    }
}

#[tokio::test]
async fn send_reports_unreadable_inputs() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let latin1 = file_in(&folder, "latin1.txt", b"Gr\xfc\xdfe");
    for (option, path) in [
        ("--attach", "/no/such/file"),
        ("--attach", folder.path().to_str().unwrap()),
        ("--message", "/no/such/file"),
        ("--body-file", "/no/such/file"),
        ("--html", "/no/such/file"),
        ("--body-file", &latin1),
        ("--body-file", folder.path().to_str().unwrap()),
        ("--password-file", "/no/such/file"),
        ("--password-file", &latin1),
        ("--message", folder.path().to_str().unwrap()),
    ] {
        let run = send_to(&server.url(), &[option, path, "--json"]).await;
        run.exits_with(66);
        let error = &run.json()["error"];
        assert_eq!(error["kind"], "input", "{option}");
        let hint = error["hint"].as_str().unwrap_or_default();
        assert!(!hint.is_empty(), "{option} {path}");
        assert_eq!(
            hint.contains(" in it"),
            path == folder.path().to_str().unwrap(),
            "{option}: {hint}"
        );
    }
    assert!(server.connections().is_empty());
}

/// Standard input that does not end, and a file that is long in coming, count for the deadline.
#[tokio::test]
async fn send_applies_the_deadline_to_reading_text() {
    let server = Server::builder().plaintext().start().await.unwrap();
    for option in ["--body-file", "--html"] {
        let mut command = tokio::process::Command::new(program::path("send"));
        command.args([
            "--url",
            &server.url(),
            "--from",
            "me@example.org",
            "--to",
            "you@example.com",
        ]);
        command
            .args([option, "-", "--deadline", "0.2"])
            .kill_on_drop(true);
        command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        let mut child = command
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"the beginning").await.unwrap();
        let output = timeout(PATIENCE, child.wait_with_output())
            .await
            .expect("it hangs")
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(75), "{stderr}");
        assert!(
            stderr.contains("was not read before the deadline of 200ms")
                && stderr.contains("hint:"),
            "{stderr}"
        );
        drop(input);
    }
    assert!(server.connections().is_empty());
}

/// A list of all recipients is in the receipt; the error names some.
#[tokio::test]
async fn send_errors_name_few_recipients() {
    let refused: Vec<String> = (0..25)
        .map(|number| format!("no{number}@example.com"))
        .collect();
    let mut server = Server::builder().plaintext();
    for address in &refused {
        server = server.refuse_recipient(address, "550 5.1.1 No such user");
    }
    let server = server.start().await.unwrap();
    let to: Vec<&str> = refused.iter().map(String::as_str).collect();
    let run = send_to(&server.url(), &[&to[..10], &["--json"]].concat()).await;
    run.exits_with(69)
        .says("no8@example.com, no9@example.com\n");
    let run = send_to(&server.url(), &[&to[..], &["--json"]].concat()).await;
    run.exits_with(69)
        .says("no8@example.com, no9@example.com and 15 more\n");
    assert!(!run.stderr.contains("no10@"), "{}", run.stderr);
    assert_eq!(run.json()["recipients"].as_array().unwrap().len(), 26);
}

/// Hints name what the command line has, and not the API.
#[cfg(unix)]
#[tokio::test]
async fn send_hints_name_command_line_options() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let pipe = pipe.to_str().unwrap();
    for option in ["--attach", "--message", "--body-file", "--html"] {
        let run = send_to("smtp://127.0.0.1:1?tls=none", &["--json", option, pipe]).await;
        run.exits_with(66);
        let json = run.json();
        let hint = json["error"]["hint"].as_str().unwrap_or_default();
        assert!(
            hint.contains(" - ") && hint.contains("standard input") && !hint.contains("::"),
            "{option}: {json}"
        );
    }
    let server = Server::builder().implicit_tls().start().await.unwrap();
    for (more, says) in [
        (&["--trust", "/nothing-there"][..], ""),
        (&["--system-trust", "--trust", pipe], ""),
        (&["--client-cert", "/nothing-there"], ""),
        (&[], "--trust"),
    ] {
        // Without the trust that the server's own URL has.
        let url = server.url();
        let run = send_to(
            url.split('?').next().unwrap(),
            &[&["--json"], more].concat(),
        )
        .await;
        let json = run.json();
        let hint = json["error"]["hint"].as_str().unwrap_or_default();
        assert!(
            !hint.is_empty() && hint.contains(says) && !hint.contains("::"),
            "{more:?}: {json}"
        );
    }
}

#[test]
fn each_api_name_in_a_hint_has_an_option() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let report = fs::read_to_string(folder.join("examples/send/report.rs")).unwrap();
    let (_, options) = report.split_once("const OPTIONS").unwrap();
    let (options, _) = options.split_once("];").unwrap();
    let mut names = BTreeSet::new();
    for snapshot in fs::read_dir(folder.join("tests/failures/snapshots")).unwrap() {
        let text = fs::read_to_string(snapshot.unwrap().path()).unwrap();
        let hints = text.lines().filter_map(|line| line.strip_prefix("-> "));
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == ':' || c == '_';
        let words = hints.flat_map(|hint| hint.split(|c| !is_of_name(c)));
        let found =
            words.filter(|word| word.contains("::") && word.starts_with(char::is_uppercase));
        names.extend(found.map(str::to_owned));
    }
    assert!(names.len() > 5, "{names:?}");
    // `send` sets no callback.
    names.remove("Message::on_handover");
    names.retain(|name| !options.contains(name.as_str()));
    assert!(names.is_empty(), "without a row in OPTIONS: {names:?}");
}

#[tokio::test]
async fn send_retries_transient_failures() {
    let refused = AtomicU32::new(0);
    let twice = move |command: &str| {
        let now = command.starts_with("MAIL") && refused.fetch_add(1, Ordering::SeqCst) < 2;
        now.then(|| "451 4.3.0 Not now".to_owned())
    };
    let server = Server::builder()
        .plaintext()
        .answer(twice)
        .start()
        .await
        .unwrap();
    send_to(&server.url(), &["--retries", "0"])
        .await
        .exits_with(75);
    send_to(&server.url(), &["--retries", "2"])
        .await
        .exits_with(0);
    assert_eq!(server.connections().len(), 3);
}

/// RFC 5321, 4.5.3.1.10: what a server has no room for in one transaction goes in another one, by
/// itself.
#[tokio::test]
async fn send_splits_a_message_for_too_many_recipients() {
    let to = ["--to", "b@example.com", "--to", "c@example.com"];
    for too_many in [
        "452 4.5.3 Too many recipients",
        "552 5.5.3 Too many recipients",
    ] {
        let accepted = AtomicU32::new(0);
        let one = move |command: &str| {
            if command.starts_with("MAIL") {
                accepted.store(0, Ordering::SeqCst);
            }
            let too_much =
                command.starts_with("RCPT") && accepted.fetch_add(1, Ordering::SeqCst) > 0;
            too_much.then(|| too_many.to_owned())
        };
        let server = Server::builder()
            .plaintext()
            .answer(one)
            .start()
            .await
            .unwrap();
        let url = server.url();
        let run = send_to(
            &url,
            &[&["--to", "you@example.com", "--json"], &to[..]].concat(),
        )
        .await;
        assert_eq!(run.exits_with(0).json()["outcome"], "sent");
        assert_eq!(
            (server.messages().len(), server.connections().len()),
            (3, 1)
        );
        // Standard input can be read once: the others can get it another time, which 552 means as
        // well here.
        let once = [
            "--url",
            &url,
            "--from",
            "a@b.c",
            "--to",
            "you@example.com",
            "--message",
            "-",
            "--json",
        ];
        let run = send_with(
            &[&once, &to[..]].concat(),
            b"Subject: once\r\n\r\nHello.\r\n",
        )
        .await;
        let json = run.exits_with(75).json();
        assert_eq!(
            (&json["outcome"], &json["error"]["transient"]),
            (&"partial".into(), &true.into()),
            "{json}"
        );
        assert!(
            json["error"]["message"]
                .as_str()
                .unwrap()
                .contains("fewer recipients at once"),
            "{json}"
        );
        assert_eq!(json["recipients"][2]["code"].to_string(), too_many[..3]);
        assert_eq!(server.messages().len(), 4);
    }
}

/// One recipient has the message. A login that is refused for good then ends the attempts, and the
/// exit code does not say to try again.
#[tokio::test]
async fn send_keeps_a_partial_success_if_the_next_login_is_refused() {
    let logins = AtomicU32::new(0);
    let answer = move |command: &str| {
        if command.starts_with("AUTH") && logins.fetch_add(1, Ordering::SeqCst) > 0 {
            return Some("535 5.7.8 Wrong password".to_owned());
        }
        command
            .starts_with("RCPT TO:<b@")
            .then(|| "450 4.2.1 Busy".to_owned())
    };
    let server = Server::builder()
        .login("alice", "secret")
        .mechanisms([envoi::proto::Mechanism::Plain]);
    let server = server.answer(answer).start().await.unwrap();
    let options = [
        "--to",
        "you@example.com",
        "--to",
        "b@example.com",
        "--retries",
        "5",
        "--json",
    ];
    let run = send_to(&server.url(), &options).await;
    let json = run.exits_with(69).json();
    assert_eq!(
        (&json["outcome"], &json["error"]["transient"]),
        (&"partial".into(), &false.into()),
        "{json}"
    );
    assert!(
        json["error"]["message"].as_str().unwrap().contains("535"),
        "{json}"
    );
    assert_eq!(server.connections().len(), 2);
}

#[tokio::test]
async fn send_uses_binarymime_if_offered() {
    let folder = tempfile::tempdir().unwrap();
    let path = file_in(&folder, "data.bin", b"\0\xff\n.\r\n");
    for (server, is_binary) in [
        (
            Server::builder()
                .plaintext()
                .offer("CHUNKING")
                .offer("BINARYMIME"),
            true,
        ),
        (Server::builder().plaintext().offer("CHUNKING"), false),
        (Server::builder().plaintext(), false),
    ] {
        let server = server.start().await.unwrap();
        let run = send_to(&server.url(), &["--binary", "--json", "--attach", &path]).await;
        let message = timeout(PATIENCE, server.next_message())
            .await
            .expect("no message came");
        assert_eq!(run.exits_with(0).json()["bytes"], message.size);
        let bytes = message.read().unwrap();
        let has = |what: &[u8]| bytes.windows(what.len()).any(|part| part == what);
        assert_eq!(has(b"\r\n\r\n\0\xff\n.\r\n\r\n--"), is_binary);
        assert_eq!(has(b"AP8KLg0K"), !is_binary);
    }
}

#[tokio::test]
async fn send_draws_no_progress_bar_in_a_pipe() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = file_in(&folder, "large.bin", vec![0; 2_000_000]);
    let run = send_to(&server.url(), &["--progress", "--attach", &path]).await;
    assert_eq!(run.exits_with(0).stderr, "");
}

// ---- LMTP ----

fn mailboxes() -> Builder {
    let server = Server::builder().refuse_message("full@example.com", "552 5.2.2 Mailbox full");
    server
        .refuse_message("busy@example.com", "452 4.2.2 Over quota")
        .refuse_recipient("no@example.com", "550 5.1.1 Unknown")
}

/// By the recipients of the JSON.
fn outcomes(run: &Run) -> Vec<(String, u64)> {
    let json = run.json();
    let recipients = json["recipients"].as_array().unwrap().iter();
    let one = |one: &Value| {
        (
            one["outcome"].as_str().unwrap().to_owned(),
            one["code"].as_u64().unwrap_or(0),
        )
    };
    recipients.map(one).collect()
}

#[tokio::test]
async fn send_reports_each_lmtp_reply() {
    let mut servers = vec![mailboxes().lmtp().start().await.unwrap()];
    #[cfg(unix)]
    servers.push(mailboxes().lmtp_unix().start().await.unwrap());
    for server in servers {
        let url = server.url();
        let run = send_to(&url, &["--json"]).await;
        assert_eq!(run.exits_with(0).json()["outcome"], "sent");
        assert_eq!(outcomes(&run), [("accepted".to_owned(), 250)]);
        for (to, code, outcome, codes) in [
            (&["busy@example.com"][..], 75, "partial", &[250, 452][..]),
            (
                &["busy@example.com", "full@example.com"],
                69,
                "partial",
                &[250, 452, 552],
            ),
            (
                &["no@example.com", "busy@example.com"],
                69,
                "partial",
                &[250, 550, 452],
            ),
        ] {
            let run = send_to(&url, &[&["--json", "--to"], to].concat()).await;
            assert_eq!(run.exits_with(code).json()["outcome"], outcome);
            assert_eq!(
                outcomes(&run)
                    .iter()
                    .map(|(_, code)| *code)
                    .collect::<Vec<_>>(),
                codes,
                "{url}"
            );
        }
        let base = ["--url", &url, "--from", "me@example.org", "--json", "--to"];
        for (to, code) in [
            (&["full@example.com", "busy@example.com"][..], 69),
            (&["busy@example.com"], 75),
        ] {
            let run = send(&[&base, to].concat()).await;
            assert_eq!(run.exits_with(code).json()["outcome"], "failed");
            assert_eq!(run.json()["error"]["phase"], "end-of-data");
        }
    }
}

#[tokio::test]
async fn send_reports_unknown_lmtp_recipients() {
    let answer = |command: &str| {
        (command == ".").then(|| "552 5.2.2 Full\n250 2.0.0 Saved\nnonsense".to_owned())
    };
    let server = Server::builder()
        .lmtp()
        .answer(answer)
        .start()
        .await
        .unwrap();
    let run = send_to(
        &server.url(),
        &["--json", "--to", "b@example.com", "c@example.com"],
    )
    .await;
    assert_eq!(run.exits_with(79).json()["outcome"], "unknown");
    let expected = [("refused", 552), ("accepted", 250), ("unknown", 0)];
    assert_eq!(
        outcomes(&run),
        expected.map(|(word, code)| (word.to_owned(), code))
    );
}

#[tokio::test]
async fn send_reports_a_missing_unix_socket() {
    let run = send_to("lmtp+unix:///no/such%20socket", &["--json"]).await;
    run.exits_with(75).says("/no/such socket");
    assert_eq!(run.json()["server"], "/no/such socket");
}

#[tokio::test]
async fn send_prints_help_and_version() {
    let run = send(&["--help"]).await;
    assert!(run.exits_with(0).stdout.contains("--all-or-nothing"));
    let run = send(&["--version"]).await;
    assert!(run.exits_with(0).stdout.contains(env!("CARGO_PKG_VERSION")));
}

// ---- Secrets ----

#[tokio::test]
async fn send_never_prints_a_password() {
    let server = Server::builder()
        .login("alice", "another")
        .start()
        .await
        .unwrap();
    let plain = Server::builder().plaintext().start().await.unwrap();
    let (port, plain_port) = (server.port(), plain.port());
    let ca = server.ca_file().to_str().unwrap();
    let login = format!("alice:{PASSWORD}");
    let good = format!("smtp://{login}@localhost:{port}?trust={ca}");
    let base = ["--from", "me@example.org", "--to", "you@example.com"];

    let urls = [
        good.clone(),
        format!("{good}&colour=red"),
        format!("{good}&tls=maybe"),
        format!("{good}&helo=%0d"),
        format!("smtp://{login}@localhost:{port}?trust=/no/such/{port}"),
        format!("smtp://{login}@localhost:{plain_port}?tls=none"),
        format!("smtp://{login}@localhost:{plain_port}?trust={ca}"),
        format!("smtps://{login}@localhost:{plain_port}?trust={ca}"),
        format!("smtps://{login}@localhost:{port}?trust={ca}"),
        format!("smtps://{login}@localhost?tls=none"),
        format!("smtp://{login}@no-such-host.invalid?tls=none"),
        format!("smtp://{login}@ho st"),
        format!("smtp://{login}@:25"),
        format!("smtp://{login}@localhost:99999"),
        format!("smtp://{login}%@localhost"),
        format!("smtp://{login}/@localhost"),
        format!("smtp://{login}#@localhost"),
        format!("smtp://{login}?@localhost"),
        format!("smtp://alice:25?{PASSWORD}@localhost"),
        format!("smtp://alice:25?tls={PASSWORD}@localhost"),
        format!("smtp://alice:25?auth={PASSWORD}@localhost"),
        format!("smtp://alice%3A{PASSWORD}@localhost"),
        format!("imap://{login}@localhost"),
        format!("lmtp://{login}@localhost"),
        format!("smtp:{login}://localhost"),
        format!("{login}@localhost"),
        format!("smtp://{login}"),
    ];
    let mut cases: Vec<Vec<&str>> = urls
        .iter()
        .map(|url| [&base[..], &["--url", url]].concat())
        .collect();

    let (with_equals, url) = (
        format!("--url={good}"),
        format!("smtp://alice@localhost:{port}?trust={ca}"),
    );
    let secret = format!("--{PASSWORD}");
    let bad: &[&[&str]] = &[
        &[&with_equals, "--nonsense"],
        &["--url", &good, "--url", &good],
        &["--url", &good, PASSWORD],
        &["--url", "smtp://alice:one", PASSWORD, "@localhost"],
        &["--ur", &good],
        &["--urls", &good],
        &[&good],
        &[&secret],
        &["--url", &url, "--trust-password", &secret],
        &["--url", &url, &format!("--trust-password={PASSWORD}")],
        &[
            "--url",
            &url,
            "--trust-password",
            PASSWORD,
            "--trust-password",
            PASSWORD,
        ],
        &["--url", &url, "--trust-passwort", PASSWORD],
        &["--url", &url, "--password", PASSWORD],
        &["--url", &url, &format!("--password={PASSWORD}")],
        &["--url", &url, &format!("-p{PASSWORD}")],
        &["--url", &url, "--password-env", PASSWORD],
        &["--url", &url, "--password-file", PASSWORD],
        &["--url", &url, "--password-env", "ENVOI_TEST_PASSWORD"],
        &[
            "--url",
            &url,
            "--password-env",
            "ENVOI_TEST_PASSWORD",
            "--auth",
            "LOGIN",
        ],
        &["--url", &url, "--proxy", &good],
        &["--url", &good, "--subject", "a\nb"],
        &["--url", &good, "--attach", "/no/such/file"],
        &["--url", &good, "--message", "/no/such/file", "--body", "a"],
        &["--url", &good, "--json=yes"],
    ];
    cases.extend(bad.iter().map(|more| [&base[..], more].concat()));

    let in_base64 = [format!("\0alice\0{PASSWORD}"), PASSWORD.to_owned()]
        .map(|text| base64::engine::general_purpose::STANDARD.encode(text));
    for case in &cases {
        for json in [&[][..], &["--json"]] {
            let run = send(&[&case[..], json].concat()).await;
            assert_ne!(run.code, 0, "{case:?}");
            for secret in [PASSWORD, "Xyzzy", &in_base64[0], &in_base64[1]] {
                let said = format!("{}{}", run.stdout, run.stderr);
                assert!(!said.contains(secret), "{case:?} says {said}");
            }
            assert!(json.is_empty() || run.json()["error"]["message"].is_string());
        }
    }
}

#[tokio::test]
async fn send_transcript_hides_secrets() {
    let server = Server::builder()
        .login("alice", PASSWORD)
        .start()
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("transcript");
    send_to(&server.url(), &["--transcript", file.to_str().unwrap()])
        .await
        .exits_with(0);
    let text = std::fs::read_to_string(&file).unwrap();
    for line in [
        "S: 220 ",
        "C: STARTTLS\n",
        "-- TLS handshake: TLSv1.3",
        "C: AUTH PLAIN ***\n",
        "C: .\n",
        "S: 250 2.0.0 ",
    ] {
        assert!(text.contains(line), "{line:?} is not in: {text}");
    }
    assert!(!text.contains(PASSWORD), "{text}");

    // After a failure, too, and on standard error.
    let url = server.url().replace("alice", "mallory");
    send_to(&url, &["--transcript", "-"])
        .await
        .exits_with(77)
        .says("S: 535 ")
        .says("C: AUTH PLAIN ***");

    let nowhere = folder.path().join("missing/transcript");
    send_to(&server.url(), &["--transcript", nowhere.to_str().unwrap()])
        .await
        .exits_with(64);
    assert_eq!(server.messages().len(), 1);
}

#[tokio::test]
async fn send_accepts_a_pin_alone_or_with_trust() {
    let server = Server::start().await.unwrap();
    let client = envoi::Client::from_url(&server.url()).unwrap();
    let connection = client.connect().await.unwrap();
    let pin = connection
        .tls()
        .unwrap()
        .peer()
        .unwrap()
        .pin()
        .replace('/', "%2F")
        .replace('+', "%2B");
    connection.quit().await;

    let alone = format!("smtp://localhost:{}?pin={pin}", server.port());
    send_to(&alone, &[]).await.exits_with(0);
    send_to(&format!("{}&pin={pin}", server.url()), &[])
        .await
        .exits_with(0);
    let other = format!("sha256%2F%2F{}", "A".repeat(43) + "%3D");
    send_to(&format!("{}&pin={other}", server.url()), &[])
        .await
        .exits_with(76);
    // What is trusted instead does not take the pin away.
    let ca = server.ca_file().to_str().unwrap();
    let swapped = format!("smtp://localhost:{}?pin={other}", server.port());
    send_to(&swapped, &["--trust", ca]).await.exits_with(76);
    send_to(
        &format!("smtp://localhost:{}?pin=nonsense", server.port()),
        &[],
    )
    .await
    .exits_with(78);

    // It holds for opportunistic TLS, too: no other key will do, and no plaintext.
    send_to(&format!("{alone}&tls=opportunistic"), &[])
        .await
        .exits_with(0);
    let run = send_to(&format!("{swapped}&tls=opportunistic"), &["--json"]).await;
    run.exits_with(76);
    assert!(
        run.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("and not the one that is pinned")
    );
    let plain = Server::builder().plaintext().start().await.unwrap();
    let url = format!("smtp://localhost:{}?tls=opportunistic", plain.port());
    send_to(&format!("{url}&pin={pin}"), &[])
        .await
        .exits_with(76)
        .says("does not offer STARTTLS");
    send_to(&url, &[]).await.exits_with(0);
    // Without TLS, no key is seen.
    let url = format!("smtp://localhost:{}?tls=none&pin={pin}", plain.port());
    send_to(&url, &[])
        .await
        .exits_with(64)
        .says("a key is pinned, and TLS is switched off");

    // On top of a system's store that turns out to be empty, it is not all that counts.
    let folder = tempfile::tempdir().unwrap();
    let empty = file_in(&folder, "ca-certificates.crt", "");
    let arguments = [
        "--url",
        &alone,
        "--from",
        "a@b.c",
        "--to",
        "b@b.c",
        "--system-trust",
    ];
    let environment = [
        ("SSL_CERT_FILE", empty.as_str()),
        ("SSL_CERT_DIR", folder.path().to_str().unwrap()),
    ];
    let run = program::run("send", &arguments, b"", &environment).await;
    run.exits_with(78).says("no trusted certificate was found");
}

/// Nothing that is read for the settings is waited for without end, or read without a limit.
#[cfg(unix)]
#[tokio::test]
async fn send_bounds_reading_of_settings_files() {
    let server = Server::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo").to_str().unwrap().to_owned();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let stores = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tls/tests/stores");
    let certificate = format!("{stores}/client.pem");
    let with_password = format!("{}&trust-password-file=", server.url());
    for (endless, says, deadline) in [
        (fifo.as_str(), "its end did not come in time", "1"),
        ("/dev/zero", "it is larger than", "30"),
    ] {
        let url = format!("{with_password}{endless}");
        for (url, more) in [
            (server.url(), vec!["--trust", endless]),
            (server.url(), vec!["--client-cert", endless]),
            (
                server.url(),
                vec!["--client-cert", &certificate, "--client-key", endless],
            ),
            (url, vec![]),
        ] {
            let run = send_to(&url, &[&more[..], &["--deadline", deadline]].concat()).await;
            run.exits_with(78).says(says).says(endless);
        }
    }
    // The files with passwords are read before the endpoint is there, and by the same clock.
    for option in ["--password-file", "--trust-password-file"] {
        for limit in ["--deadline", "--timeout"] {
            let started = std::time::Instant::now();
            let run = send_to(&server.url(), &[option, &fifo, limit, "0.1"]).await;
            run.exits_with(if option == "--password-file" { 66 } else { 78 })
                .says("its end did not come in time");
            assert!(
                started.elapsed() < std::time::Duration::from_secs(4),
                "{option} {limit}"
            );
        }
    }
    let both = ["--trust-password-file", "-", "--password-file", "-"];
    send_to(&server.url(), &both)
        .await
        .exits_with(64)
        .says("only one option may read standard input");
    // Of the system's store, which opens it by itself, it is refused.
    let url = format!("smtp://localhost:{}", server.port());
    let arguments = [
        "--url",
        &url,
        "--from",
        "a@b.c",
        "--to",
        "b@b.c",
        "--deadline",
        "20",
    ];
    let run = program::run("send", &arguments, b"", &[("SSL_CERT_FILE", fifo.as_str())]).await;
    run.exits_with(78).says("is not a regular file");
    let large = tempfile::tempdir().unwrap();
    std::fs::File::create(large.path().join("film.pem"))
        .unwrap()
        .set_len(17 << 20)
        .unwrap();
    let folders = format!("{}:{}", folder.path().display(), large.path().display());
    let run = program::run(
        "send",
        &arguments,
        b"",
        &[("SSL_CERT_DIR", folders.as_str())],
    )
    .await;
    run.exits_with(78)
        .says("which SSL_CERT_DIR names, has")
        .says("a file of more than 16 MiB");
    // What another program writes in time is read.
    let password = folder.path().join("password").to_str().unwrap().to_owned();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&password)
            .status()
            .unwrap()
            .success()
    );
    let store = format!("{stores}/java.p12");
    let writing = tokio::task::spawn_blocking({
        let password = password.clone();
        move || std::fs::write(password, "changeit\n").unwrap()
    });
    // It is opened, and does not hold the server's issuer.
    send_to(
        &url,
        &["--trust", &store, "--trust-password-file", &password],
    )
    .await
    .exits_with(76);
    writing.await.unwrap();
    let missing = send_to(
        &url,
        &["--trust", &store, "--trust-password-file", PASSWORD],
    )
    .await;
    missing
        .exits_with(78)
        .says("--trust-password-file cannot be read as text: No such file");
    assert!(!missing.stderr.contains(PASSWORD) && !missing.stdout.contains(PASSWORD));
}

#[tokio::test]
async fn send_reads_oracle_wallets() {
    let server = Server::start().await.unwrap();
    let stores = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tls/tests/stores");
    let wallet = tempfile::tempdir().unwrap();
    std::fs::copy(
        format!("{stores}/oracle-cwallet.sso"),
        wallet.path().join("cwallet.sso"),
    )
    .unwrap();
    let folder = wallet.path().to_str().unwrap();
    // Each is read, and does not hold the server's issuer.
    for path in [
        folder.to_owned(),
        format!("file:{folder}"),
        format!("{folder}/cwallet.sso"),
    ] {
        send_to(&server.url(), &["--trust", &path])
            .await
            .exits_with(76)
            .says("what is trusted (10 certificates");
    }
    std::fs::copy(
        format!("{stores}/oracle-ewallet.p12"),
        wallet.path().join("ewallet.p12"),
    )
    .unwrap();
    for password in [
        &["--trust-password", "asdf1234"][..],
        &["--trust-password", "wrong"],
        &[],
    ] {
        let run = send_to(
            &server.url(),
            &[&["--trust", folder][..], password].concat(),
        )
        .await;
        run.exits_with(76).says("what is trusted (10 certificates");
    }
    std::fs::remove_file(wallet.path().join("cwallet.sso")).unwrap();
    send_to(&server.url(), &["--trust", folder])
        .await
        .exits_with(78)
        .says("needs a password, and none was given");
}

#[tokio::test]
async fn send_opens_trust_stores_with_a_password() {
    let stores = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tls/tests/stores");
    let server = Server::start().await.unwrap();
    let store = format!("{stores}/java.p12");
    // It is read, and does not hold the server's issuer.
    send_to(
        &server.url(),
        &["--trust", &store, "--trust-password", "changeit"],
    )
    .await
    .exits_with(76);
    send_to(
        &server.url(),
        &["--trust", &store, "--trust-password", "wrong"],
    )
    .await
    .exits_with(78)
    .says("password");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "changeit\n").unwrap();
    let url = format!(
        "smtp://localhost:{}?trust={store}&trust-password-file={}",
        server.port(),
        file.display()
    );
    send_to(&url, &[]).await.exits_with(76);
    send_to(&url, &["--trust", server.ca_file().to_str().unwrap()])
        .await
        .exits_with(0);
    let missing = format!("{}&trust-password-file=/nowhere", server.url());
    send_to(&missing, &[]).await.exits_with(78);
}

#[tokio::test]
async fn send_presents_a_client_certificate() {
    let stores = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tls/tests/stores");
    let server = Server::start().await.unwrap();
    let (certificate, key) = (
        format!("{stores}/client.pem"),
        format!("{stores}/client.key"),
    );
    send_to(
        &server.url(),
        &["--client-cert", &certificate, "--client-key", &key],
    )
    .await
    .exits_with(0);
    send_to(&server.url(), &["--client-cert", &certificate])
        .await
        .exits_with(78);
    send_to(&server.url(), &["--client-key", &key])
        .await
        .exits_with(64);
    let store = format!("{stores}/client.p12");
    send_to(
        &server.url(),
        &["--client-cert", &store, "--trust-password", "wrong"],
    )
    .await
    .exits_with(78);
}

/// RFC 5321, 4.1.1.10.
#[tokio::test]
async fn send_sends_quit_after_each_refusal() {
    let refusing = |command: &'static str, reply: &'static str| {
        let server = Server::builder().plaintext();
        server
            .answer(move |line| line.starts_with(command).then(|| reply.into()))
            .start()
    };
    for (command, reply) in [
        ("EHLO", "550 5.7.1 Not you"),
        ("MAIL", "550 5.7.1 Not you"),
        ("RCPT", "550 5.1.1 No such user"),
        ("DATA", "554 5.5.1 No"),
        (".", "554 5.7.1 Spam"),
    ] {
        let server = refusing(command, reply).await.unwrap();
        let mail = envoi::mail_builder::MessageBuilder::new()
            .from("me@example.org")
            .to("you@example.com")
            .text_body("Hello.");
        let error = envoi::Client::from_url(&server.url())
            .unwrap()
            .send(mail)
            .await
            .unwrap_err();
        assert_eq!(
            error.reply().map(|reply| reply.code()),
            reply[..3].parse().ok(),
            "{command}"
        );
        // The client does not wait for the answer, so the server may not have read it yet.
        while server.connections()[0].is_open {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            server.connections()[0].commands().last(),
            Some("QUIT"),
            "{command}"
        );
    }
}
