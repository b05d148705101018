//! The service as a program: settings, metrics, SIGTERM.

#![cfg(unix)]

use std::process::Stdio;

use envoi::testing::Server;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

async fn http(address: &str, line: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn the_program_sends_and_ends_at_sigterm() {
    let mail = Server::builder()
        .login("shop", "secret")
        .start()
        .await
        .unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_envoi-axum-example"))
        .env("MAIL_URL", mail.url())
        .env("SENDER", "The shop <shop@example.org>")
        .env("LISTEN", "127.0.0.1:0")
        .env("NO_COLOR", "1")
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = log.next_line().await.unwrap().unwrap();
    let (_, address) = first.split_once("http://").expect(&first);

    let body = r#"{"to": "bob@example.com"}"#;
    let sent = http(address, "POST /invitations", body).await;
    assert!(sent.starts_with("HTTP/1.1 200 OK"), "{sent}");
    let metrics = http(address, "GET /metrics", "").await;
    // The labels have no order.
    let mut counters = metrics
        .lines()
        .filter(|line| line.starts_with("envoi_messages_total"));
    let is_accepted = |line: &str| line.contains(r#"outcome="accepted""#) && line.ends_with("} 1");
    assert!(counters.any(is_accepted), "{metrics}");

    let id = child.id().unwrap().to_string();
    let killed = Command::new("kill").args(["-TERM", &id]).status().await;
    assert!(killed.unwrap().success());
    assert!(child.wait().await.unwrap().success());
    let mut lines = Vec::new();
    while let Some(line) = log.next_line().await.unwrap() {
        assert!(!line.contains("secret"), "{line}");
        lines.push(line);
    }
    assert!(lines.last().unwrap().contains("ended"), "{lines:?}");
    mail.messages()[0].assert_recipients(["bob@example.com"]);
    for session in mail.connections() {
        assert_eq!(session.commands().last(), Some("QUIT"));
    }
}
