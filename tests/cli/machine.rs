//! The example `machine`: a session on a blocking socket, without an I/O library.

use envoi::testing::{Builder, Server};
use support::program::{self, Run};

async fn send(server: &Server) -> Run {
    let address = format!("{}:{}", server.host(), server.port());
    let arguments = [
        &address,
        "me@example.org",
        "you@example.com",
        "unknown@example.com",
    ];
    program::run("machine", &arguments, b"", &[]).await
}

async fn start(server: Builder) -> Server {
    server.plaintext().start().await.unwrap()
}

#[tokio::test]
async fn machine_sends_with_and_without_pipelining() {
    for keywords in [&[][..], &["PIPELINING"]] {
        let server = keywords.iter().fold(Server::builder(), |server, keyword| {
            server.without(*keyword)
        });
        let server =
            start(server.refuse_recipient("unknown@example.com", "550 5.1.1 No such user")).await;
        let run = send(&server).await;
        run.exits_with(0);
        let lines: Vec<&str> = run.stdout.lines().collect();
        assert!(lines[0].starts_with("you@example.com: 250"), "{lines:?}");
        assert_eq!(lines[1], "unknown@example.com: 550 5.1.1 No such user");
        assert!(lines[2].starts_with("sent: 250"), "{lines:?}");
        assert_eq!(lines.len(), 3);

        let message = server.messages()[0].read().unwrap();
        let expected = "From: <me@example.org>\r\nSubject: Hello\r\n\r\nHello.\r\n\
            .. from a blocking socket\r\n";
        assert_eq!(String::from_utf8(message).unwrap(), expected);
        assert_eq!(server.connections()[0].commands().last(), Some("QUIT"));
    }
}

#[tokio::test]
async fn machine_reports_a_refused_message() {
    let refuse = |command: &str| (command == ".").then(|| "554 5.6.0 Not this one".into());
    let server = start(Server::builder().answer(refuse)).await;
    let run = send(&server).await;
    run.exits_with(0);
    let last = run.stdout.lines().last().unwrap();
    assert!(
        last.starts_with("not sent, refused at ") && last.ends_with(": 554 5.6.0 Not this one"),
        "{last}"
    );
    assert!(server.messages().is_empty());
}

#[tokio::test]
async fn machine_fails_when_the_outcome_is_unknown() {
    let garbage = |command: &str| (command == ".").then(|| "not a reply".into());
    let server = start(Server::builder().answer(garbage)).await;
    send(&server).await.exits_with(1).says("not a reply");
}
