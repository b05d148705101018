//! What failed for a passing reason is sent again: to whom, how often, and when not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use envoi::mail_builder::MessageBuilder;
use envoi::testing::{Builder, Server};
use envoi::{Client, Endpoint, Error, Kind, Message, Outcome, Receipt, Retries};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn hello() -> MessageBuilder<'static> {
    hello_to(vec!["you@example.com"])
}

fn hello_to(to: Vec<&'static str>) -> MessageBuilder<'static> {
    MessageBuilder::new().from("me@example.org").to(to).subject("Hello").text_body("Hello.")
}

fn at_once(count: usize) -> Retries {
    let mut retries = Retries::new(count);
    retries.first_delay = Duration::from_millis(1);
    retries
}

/// Gives these answers to the commands that begin so, one after the other, and its own then.
fn answering(command: &'static str, answers: &'static [&'static str]) -> Builder {
    let asked = AtomicUsize::new(0);
    Server::builder().plaintext().answer(move |line| {
        let fits = line.starts_with(command);
        fits.then(|| answers.get(asked.fetch_add(1, Ordering::SeqCst)).map(|answer| (*answer).to_owned()))?
    })
}

fn client(server: &Server, count: usize) -> Client {
    Client::from_url(&server.url()).unwrap().retries(at_once(count))
}

fn outcomes(receipt: &Receipt) -> Vec<u16> {
    let code = |outcome: &Outcome| match outcome {
        Outcome::Accepted(reply) | Outcome::Refused(reply) => reply.code(),
        Outcome::Unknown => 1,
        Outcome::NotTried => 0,
    };
    receipt.recipients.iter().map(|recipient| code(&recipient.outcome)).collect()
}

#[tokio::test]
async fn until_it_is_accepted() {
    for (command, answers) in [
        ("EHLO", &["421 4.3.2 Not now", "451 4.3.0 Not now"][..]),
        ("MAIL", &["451 4.3.0 Not now", "421 4.3.2 Not now"]),
        ("RCPT", &["450 4.7.1 Greylisted", "450 4.7.1 Greylisted"]),
    ] {
        let server = answering(command, answers).start().await.unwrap();
        let receipt = client(&server, 2).send(hello()).await.unwrap();
        assert_eq!(outcomes(&receipt), [250], "{command}");
        assert_eq!(server.connections().len(), 3);
        assert!(receipt.transcript.to_string().contains(answers[0]), "of all attempts");
        assert_eq!(server.messages().len(), 1);
    }
}

#[tokio::test]
async fn no_more_than_allowed() {
    let server = answering("MAIL", &["451 4.3.0 Not now"; 3]).start().await.unwrap();
    let error = client(&server, 2).send(hello()).await.unwrap_err();
    assert!(error.message().starts_with("at the last of 3 attempts: the server refused the sender"), "{error}");
    assert!(error.is_transient());
    assert_eq!(server.connections().len(), 3);
    let server = answering("MAIL", &["451 4.3.0 Not now"]).start().await.unwrap();
    let error = client(&server, 0).send(hello()).await.unwrap_err();
    assert!(error.message().starts_with("the server refused the sender"), "{error}");
}

#[tokio::test]
async fn only_those_who_do_not_have_it_yet() {
    let server = answering("RCPT TO:<later@example.com>", &["450 4.2.1 Busy", "450 4.2.1 Busy"]);
    let server = server.refuse_recipient("nobody@example.com", "550 5.1.1 No such user").start().await.unwrap();
    let to = vec!["you@example.com", "nobody@example.com", "later@example.com"];
    let receipt = client(&server, 5).send(hello_to(to)).await.unwrap();
    assert_eq!(outcomes(&receipt), [250, 550, 250]);
    let messages = server.messages();
    let recipients: Vec<_> = messages.iter().map(|message| message.recipients.clone()).collect();
    assert_eq!(recipients, [["you@example.com"], ["later@example.com"]]);
    // The same message: Message-ID, date and all.
    assert_eq!(messages[0].read().unwrap(), messages[1].read().unwrap());
    assert_eq!(server.connections().len(), 3);
}

#[tokio::test]
async fn some_have_it_and_the_rest_fails() {
    let server =
        answering("RCPT TO:<later@example.com>", &["450 4.2.1 Busy", "550 5.7.1 Never"]).start().await.unwrap();
    let receipt = client(&server, 5).send(hello_to(vec!["you@example.com", "later@example.com"])).await.unwrap();
    assert_eq!(outcomes(&receipt), [250, 550]);
    assert!(receipt.reply.unwrap().is_positive());
    assert_eq!(server.connections().len(), 2);
}

#[tokio::test]
async fn all_or_nothing_goes_to_all_again_or_to_none() {
    let to = || hello_to(vec!["you@example.com", "later@example.com"]);
    let server = answering("RCPT TO:<later@example.com>", &["450 4.2.1 Busy"]).start().await.unwrap();
    let endpoint = Endpoint::from_url(&server.url()).unwrap().all_or_nothing();
    let receipt = Client::new(endpoint).retries(at_once(5)).send(to()).await.unwrap();
    assert_eq!(outcomes(&receipt), [250, 250]);
    assert_eq!(server.messages().len(), 1);

    let server = answering("RCPT TO:<later@example.com>", &["450 4.2.1 Busy"]);
    let server = server.refuse_recipient("you@example.com", "550 5.1.1 No such user").start().await.unwrap();
    let endpoint = Endpoint::from_url(&server.url()).unwrap().all_or_nothing();
    let error = Client::new(endpoint).retries(at_once(5)).send(to()).await.unwrap_err();
    assert_eq!(outcomes(error.receipt().unwrap()), [550, 450]);
    assert_eq!(server.connections().len(), 1);
}

#[tokio::test]
async fn never_again() {
    // Refused for good.
    let server = answering("MAIL", &["550 5.7.1 Never"]).start().await.unwrap();
    assert!(client(&server, 5).send(hello()).await.unwrap_err().is_permanent());
    assert_eq!(server.connections().len(), 1);
    // A stream is gone.
    let server = answering("MAIL", &["451 4.3.0 Not now"]).start().await.unwrap();
    let envelope = Message::from(hello()).prepare().await.unwrap().0;
    let stream = Message::ready_stream(&b"Subject: once\r\n\r\n"[..]).envelope(envelope);
    assert!(client(&server, 5).send(stream).await.unwrap_err().is_transient());
    assert_eq!(server.connections().len(), 1);
    // No time.
    let server = answering("MAIL", &["451 4.3.0 Not now"]).start().await.unwrap();
    let endpoint = Endpoint::from_url(&server.url()).unwrap().deadline(Duration::from_secs(3000));
    let mut retries = Retries::new(5);
    (retries.first_delay, retries.longest_delay) = (Duration::from_secs(3600), Duration::from_secs(3600));
    assert!(Client::new(endpoint).retries(retries).send(hello()).await.unwrap_err().is_transient());
    assert_eq!(server.connections().len(), 1);
}

/// A server that ends each connection when the message is there, without an answer.
#[tokio::test]
async fn never_where_the_outcome_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://127.0.0.1:{}?tls=none", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let mut connections = 0;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections += 1;
            assert_eq!(connections, 1);
            let mut heard = Vec::new();
            for line in ["220 there\r\n", "250 there\r\n", "250 Ok\r\n", "250 Ok\r\n", "354 Go\r\n"] {
                stream.write_all(line.as_bytes()).await.unwrap();
                stream.read_buf(&mut heard).await.unwrap();
            }
        }
    });
    let client = Client::from_url(&url).unwrap().retries(at_once(5));
    let error: Error = client.send(hello()).await.unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
    assert_eq!(outcomes(error.receipt().unwrap()), [1]);
    assert!(!server.is_finished());
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://127.0.0.1:{}?tls=none", listener.local_addr().unwrap().port());
    drop(listener);
    let error = Client::from_url(&url).unwrap().retries(at_once(2)).send(hello()).await.unwrap_err();
    assert_eq!((error.kind(), error.receipt().unwrap().recipients.len()), (Kind::Connect, 1));
    assert!(error.message().contains("3 attempts"), "{error}");
}
