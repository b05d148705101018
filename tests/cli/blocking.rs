//! The example `blocking`: its standard input, as an attachment.

use envoi::testing::{Fault, Server, Step};
use support::program::{self, Run};

async fn send(server: &Server, input: &[u8]) -> Run {
    let arguments = [
        &server.url(),
        "me@example.org",
        "The dump",
        "you@example.com",
        "unknown@example.com",
    ];
    program::run("blocking", &arguments, input, &[]).await
}

#[tokio::test]
async fn blocking_sends_its_input() {
    let server = Server::builder()
        .login("alice", "secret")
        .start()
        .await
        .unwrap();
    let input: Vec<u8> = (0..=u8::MAX).cycle().take(1_000_000).collect();
    let run = send(&server, &input).await;
    run.exits_with(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    let message = server.messages().remove(0);
    message.assert_recipients(["you@example.com", "unknown@example.com"]);
    let parsed = message.parse().unwrap();
    assert_eq!(parsed.subject.as_deref(), Some("The dump"));
    assert!(parsed.attachments[0].bytes == input, "the input differs");
}

#[tokio::test]
async fn blocking_exits_by_the_outcome() {
    let server = Server::builder()
        .refuse_recipient("unknown@example.com", "550 5.1.1 No such user")
        .start()
        .await
        .unwrap();
    let run = send(&server, b"a line\n").await;
    run.exits_with(1)
        .says("unknown@example.com: 550 5.1.1 No such user");
    assert_eq!(server.messages().len(), 1);

    server.add_fault(Fault::reply(Step::Message, "554 5.6.0 Not this one").times(1));
    send(&server, b"a line\n")
        .await
        .exits_with(1)
        .says("554 5.6.0 Not this one");
    server.add_fault(Fault::close(Step::Accepted));
    send(&server, b"a line\n")
        .await
        .exits_with(2)
        .says("It may have been delivered");
}

#[tokio::test]
async fn blocking_refuses_arguments_that_are_wrong() {
    let run = program::run("blocking", &["smtp://localhost"], b"", &[]).await;
    run.exits_with(1)
        .says("usage: blocking URL FROM SUBJECT TO");
    let wrong = ["ftp://localhost", "me@example.org", "a", "you@example.com"];
    program::run("blocking", &wrong, b"", &[])
        .await
        .exits_with(1)
        .says("ftp");
}
