//! The machine needs no I/O library: the example on a blocking socket, against the server inside
//! the process.

#[allow(dead_code, reason = "its main is not called here")]
#[path = "../../examples/blocking.rs"]
mod blocking;

use std::net::TcpStream;

use blocking::Session;
use envoi::proto::Step;
use envoi::testing::{Builder, Server};
use envoi::{Address, Envelope, Phase};
use tokio::runtime::Runtime;

const MESSAGE: &str = "Subject: Hello\n\nHello.\n.\n..\n";

/// Sends the message to two recipients. The server lives on the runtime's threads, the client on
/// this one.
fn send(server: Builder) -> (Vec<Step>, Option<Vec<u8>>, Vec<String>) {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(server.plaintext().start()).unwrap();
    let to =
        ["you@example.com", "nobody@example.com"].map(|address| Address::new(address).unwrap());
    let envelope = Envelope::new(Address::new("me@example.org").unwrap(), to).unwrap();

    let mut session =
        Session::new(TcpStream::connect((server.host(), server.port())).unwrap()).unwrap();
    let steps = session.send(&envelope, MESSAGE.into()).unwrap();
    session.quit();

    let arrived = server
        .messages()
        .first()
        .map(|message| message.read().unwrap());
    let commands = server.connections()[0]
        .commands()
        .map(str::to_owned)
        .collect();
    (steps, arrived, commands)
}

#[test]
fn sends_with_and_without_pipelining() {
    for keywords in [&[][..], &["PIPELINING"]] {
        let server = keywords.iter().fold(Server::builder(), |server, keyword| {
            server.without(*keyword)
        });
        let (steps, arrived, commands) =
            send(server.refuse_recipient("nobody@example.com", "550 5.1.1 No such user"));
        let recipients: Vec<u16> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Recipient { reply, .. } => Some(reply.code()),
                _ => None,
            })
            .collect();
        assert_eq!(recipients, [250, 550]);
        assert!(
            matches!(steps.last(), Some(Step::Accepted { reply }) if reply.is_positive()),
            "{steps:?}"
        );
        assert_eq!(arrived.unwrap(), MESSAGE.replace('\n', "\r\n").into_bytes());
        assert_eq!(commands.last().map(String::as_str), Some("QUIT"));
    }
}

#[test]
fn tells_a_refusal() {
    let refuse = |command: &str| (command == ".").then(|| "554 5.6.0 Not this one".into());
    let (steps, arrived, _) = send(Server::builder().answer(refuse));
    let Some(Step::Rejected {
        phase: Phase::EndOfData,
        reply,
    }) = steps.last()
    else {
        panic!("{steps:?}")
    };
    assert_eq!(reply.to_string(), "554 5.6.0 Not this one");
    assert_eq!(arrived, None);
}

#[test]
fn knows_when_nobody_can_know() {
    let runtime = Runtime::new().unwrap();
    let garbage = |command: &str| (command == ".").then(|| "not a reply".into());
    let server = runtime
        .block_on(Server::builder().plaintext().answer(garbage).start())
        .unwrap();
    let to = Address::new("you@example.com").unwrap();
    let envelope = Envelope::new(Address::new("me@example.org").unwrap(), [to]).unwrap();
    let mut session =
        Session::new(TcpStream::connect((server.host(), server.port())).unwrap()).unwrap();
    assert!(
        session
            .send(&envelope, MESSAGE.into())
            .unwrap_err()
            .outcome_unknown()
    );
}
