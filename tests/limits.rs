//! Servers that take only so much at once (LIMITS, RFC 9422): a message goes in parts, and each recipient has an outcome.

use std::sync::atomic::{AtomicUsize, Ordering};

use envoi::mail_builder::MessageBuilder;
use envoi::testing::{Builder, Server};
use envoi::{Attachment, Client, Endpoint, Error, Kind, Message, Outcome, Receipt};
use futures::stream::{self, StreamExt as _};

fn message(to: &[&str]) -> MessageBuilder<'static> {
    let to: Vec<String> = to.iter().map(|name| (*name).to_owned()).collect();
    MessageBuilder::new().from("me@example.org").to(to).subject("Hello").text_body("Hello.\n")
}

fn server(limits: &str) -> Builder {
    Server::builder().plaintext().offer(format!("LIMITS {limits}"))
}

fn client(server: &Server) -> Client {
    Client::from_url(&server.url()).unwrap()
}

/// The recipients of each message that came, in order.
fn arrived(server: &Server) -> Vec<Vec<String>> {
    server.messages().into_iter().map(|message| message.recipients).collect()
}

/// What became of each recipient, and the queue id where it was accepted.
fn told(receipt: &Receipt) -> Vec<String> {
    let one = |recipient: &envoi::Recipient| match &recipient.outcome {
        Outcome::Accepted(_) => recipient.final_reply.as_ref().unwrap().text().replace("Ok: queued as 0000000", ""),
        Outcome::Refused(reply) => reply.code().to_string(),
        Outcome::Unknown => "unknown".into(),
        Outcome::NotTried => "not tried".into(),
    };
    receipt.recipients.iter().map(one).collect()
}

#[tokio::test]
async fn a_message_goes_in_parts() {
    let server = server("RCPTMAX=2").refuse_recipient("c@x.org", "550 5.1.1 No").start().await.unwrap();
    let receipt =
        client(&server).send(message(&["a@x.org", "b@y.org", "c@x.org", "d@y.org", "e@x.org"])).await.unwrap();
    assert_eq!(told(&receipt), ["1", "1", "550", "2", "3"]);
    assert_eq!(receipt.reply.as_ref().unwrap().text(), "Ok: queued as 00000003");
    assert_eq!(arrived(&server), [&["a@x.org", "b@y.org"][..], &["d@y.org"], &["e@x.org"]]);
    let messages = server.messages();
    let first = messages[0].read().unwrap();
    assert!(messages.iter().all(|message| message.read().unwrap() == first), "the parts are the same message");
    assert_eq!((receipt.bytes, receipt.incomplete_because), (first.len() as u64, None));

    // A part that nobody is to get does not keep the others from going.
    let receipt = client(&server).send(message(&["c@x.org", "C@x.org", "d@y.org"])).await.unwrap();
    assert_eq!(told(&receipt), ["550", "550", "4"]);
}

#[tokio::test]
async fn domains_stay_together() {
    let server = server("RCPTDOMAINMAX=1").start().await.unwrap();
    let receipt = client(&server).send(message(&["a@x.org", "b@y.org", "c@X.org"])).await.unwrap();
    assert_eq!(told(&receipt), ["1", "2", "1"]);
    assert_eq!(arrived(&server), [&["a@x.org", "c@X.org"][..], &["b@y.org"]]);
}

#[tokio::test]
async fn what_cannot_be_split_is_not_begun() {
    let server = server("RCPTMAX=1").start().await.unwrap();
    let fails = |error: Error| {
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.to_string().contains("LIMITS"), "{error}");
        assert_eq!(told(error.receipt().unwrap()), ["not tried", "not tried"]);
    };
    let to = ["a@x.org", "b@x.org"];
    let once = Attachment::reader("a", "a/b", tokio::io::empty());
    fails(client(&server).send(Message::from(message(&to)).attach(once)).await.unwrap_err());
    let endpoint = Endpoint::from_url(&server.url()).unwrap().all_or_nothing();
    fails(Client::new(endpoint).send(message(&to)).await.unwrap_err());
    assert!(server.connections().iter().all(|session| !session.commands().any(|line| line.starts_with("MAIL"))));
}

#[tokio::test]
async fn a_session_that_is_used_up_says_so_before_mail() {
    let server = server("MAILMAX=2 RCPTMAX=1").start().await.unwrap();
    let mut connection = client(&server).connect().await.unwrap();
    assert_eq!(connection.messages_left(), Some(2));
    // More parts than any session takes.
    let error = connection.send(message(&["a@x.org", "b@x.org", "c@x.org"])).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    let _ = connection.send(message(&["a@x.org"])).await.unwrap();
    // More than this one takes now.
    let error = connection.send(message(&["a@x.org", "b@x.org"])).await.unwrap_err();
    assert!(error.kind() == Kind::Closed && error.is_transient(), "{error}");
    let _ = connection.send(message(&["b@x.org"])).await.unwrap();
    let error = connection.send(message(&["c@x.org"])).await.unwrap_err();
    assert!(error.to_string().contains("new connection"), "{error}");
    connection.verify().await.unwrap();
    connection.quit().await;
    assert_eq!(arrived(&server), [["a@x.org"], ["b@x.org"]]);
}

#[tokio::test]
async fn the_client_opens_as_many_connections_as_it_needs() {
    let server = server("MAILMAX=2 RCPTMAX=1").start().await.unwrap();
    let to = ["a@x.org", "b@x.org", "c@x.org", "d@x.org", "e@x.org"];
    let receipt = client(&server).send(message(&to)).await.unwrap();
    assert!(receipt.all_accepted());
    assert_eq!(told(&receipt), ["1", "2", "3", "4", "5"]);
    assert_eq!(server.connections().len(), 3);
    // The receipt tells of all of them, up to the last message's answer.
    let transcript = receipt.transcript.to_string();
    assert_eq!((transcript.matches("C: EHLO").count(), transcript.matches("C: QUIT").count()), (3, 2), "{transcript}");
    assert!(receipt.round_trips > 3 * 3, "{}", receipt.round_trips);
}

#[tokio::test]
async fn a_connection_lost_between_parts_leaves_the_rest_untried() {
    let mails = AtomicUsize::new(0);
    let going_down = move |line: &str| {
        let is_second = line.starts_with("MAIL") && mails.fetch_add(1, Ordering::Relaxed) == 1;
        is_second.then(|| "421 4.3.2 Going down".to_owned())
    };
    let server = server("RCPTMAX=1").answer(going_down).start().await.unwrap();
    let receipt = client(&server).send(message(&["a@x.org", "b@x.org", "c@x.org"])).await.unwrap();
    assert_eq!(told(&receipt), ["1", "421", "not tried"]);
    let why = receipt.incomplete_because.unwrap();
    assert!(why.contains("421 4.3.2 Going down"), "{why}");
}

#[tokio::test]
async fn a_stream_of_messages_keeps_to_the_limits() {
    let server = server("MAILMAX=5 RCPTMAX=2").refuse_recipient("no@x.org", "550 5.1.1 No").start().await.unwrap();
    let mut connection = client(&server).connect().await.unwrap();
    let once = Attachment::reader("a", "a/b", tokio::io::empty());
    let messages = [
        message(&["a@x.org", "b@x.org", "no@x.org", "c@x.org", "d@x.org"]).into(),
        message(&["e@x.org"]).into(),
        Message::from(message(&["f@x.org", "g@x.org", "h@x.org"])).attach(once),
        message(&["i@x.org"]).into(),
        // One more than the session takes; what follows is not touched.
        message(&["j@x.org"]).into(),
        message(&["k@x.org"]).into(),
    ];
    let outcomes: Vec<_> = connection.send_all(stream::iter(messages)).collect().await;
    let kinds: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().map_err(Error::kind).map(told)).collect();
    assert_eq!(kinds[0], Ok(["1", "1", "550", "2", "3"].map(String::from).to_vec()));
    assert_eq!(kinds[1], Ok(vec!["4".to_owned()]));
    assert_eq!(kinds[2], Err(Kind::Unsupported));
    assert_eq!(kinds[3], Ok(vec!["5".to_owned()]));
    assert_eq!(kinds[4..], [Err(Kind::Closed)]);
    connection.quit().await;
    assert_eq!(server.messages().len(), 5);
}
