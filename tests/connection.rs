//! The connection and the client against the server inside the process.

use envoi::mail_builder::MessageBuilder;
use envoi::testing::Server;
use envoi::{Address, Attachment, Client, Connection, Endpoint, Kind, Message, Outcome};
use futures::FutureExt as _;

fn hello_to(to: Vec<&'static str>) -> MessageBuilder<'static> {
    MessageBuilder::new().from("me@example.org").to(to).subject("Hello").text_body("Hello.\n.dot\n")
}

fn hello() -> MessageBuilder<'static> {
    hello_to(vec!["you@example.com"])
}

#[tokio::test]
async fn starttls_login_and_a_streamed_attachment() {
    let server = Server::builder().login("alice", "p@ss").start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let content: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let attachment = Attachment::reader("data.bin", "application/octet-stream", std::io::Cursor::new(content.clone()));
    let receipt = client.send(Message::from(hello()).attach(attachment)).await.unwrap();
    assert!(receipt.all_accepted());
    let tls = receipt.tls.as_ref().unwrap();
    assert_eq!(tls.version, "TLSv1.3");
    assert!(tls.verified);
    assert_eq!(receipt.auth.unwrap().as_str(), "PLAIN");
    let captured = server.next_message().await;
    assert_eq!(captured.login.as_deref(), Some("alice"));
    assert_eq!(captured.size, receipt.bytes);
    let session = &server.connections()[0];
    let commands: Vec<&str> = session.commands().collect();
    assert_eq!(commands.last(), Some(&"QUIT"), "{commands:?}");
}

#[tokio::test]
async fn many_messages_on_one_connection_and_step_by_step() {
    let server =
        Server::builder().refuse_recipient("nobody@example.com", "550 5.1.1 No such user").start().await.unwrap();
    let endpoint = Endpoint::from_url(&server.url()).unwrap();
    let mut connection = Connection::connect(&endpoint).await.unwrap();
    for _ in 0..3 {
        let receipt = connection.send(hello()).await.unwrap();
        assert_eq!(receipt.round_trips, 2, "the group up to DATA, and the message");
    }
    connection.verify().await.unwrap();

    let error = connection.send(hello_to(vec!["nobody@example.com"])).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.is_permanent());

    assert!(connection.mail(Address::new("me@example.org").unwrap()).await.unwrap().is_positive());
    assert_eq!(connection.rcpt(Address::new("nobody@example.com").unwrap()).await.unwrap().code(), 550);
    assert!(connection.rcpt(Address::new("you@example.com").unwrap()).await.unwrap().is_positive());
    let mut writer = connection.data().await.unwrap();
    writer.write("Subject: steps\r\n").await.unwrap();
    writer.write("\n.").await.unwrap();
    writer.write("end").await.unwrap();
    let reply = writer.finish().await.unwrap();
    assert!(reply.is_positive());
    assert_eq!(connection.command("VRFY you").await.unwrap().code(), 252);
    connection.quit().await;
    assert_eq!(server.messages().len(), 4);
    assert_eq!(server.messages()[3].read().unwrap(), b"Subject: steps\r\n\r\n.end\r\n");
    assert_eq!(server.connections().len(), 1);
}

#[tokio::test]
async fn one_refused_recipient_does_not_fail_the_other() {
    let server =
        Server::builder().refuse_recipient("nobody@example.com", "550 5.1.1 No such user").start().await.unwrap();
    let endpoint = Endpoint::from_url(&server.url()).unwrap();
    let two = || hello_to(vec!["nobody@example.com", "you@example.com"]);
    let receipt = Client::new(endpoint.clone()).send(two()).await.unwrap();
    assert!(!receipt.all_accepted());
    assert!(matches!(&receipt.recipients[0].outcome, Outcome::Refused(reply) if reply.code() == 550));
    assert!(receipt.recipients[1].outcome.is_accepted());

    let error = Client::new(endpoint.all_or_nothing()).send(two()).await.unwrap_err();
    assert_eq!(error.receipt().unwrap().recipients[1].outcome, Outcome::NotTried);
    assert_eq!(server.messages().len(), 1);
}

#[tokio::test]
async fn a_dropped_future_leaves_a_connection_that_refuses() {
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
    let receipt = tokio::spawn(async move { client.send(hello()).await }).await.unwrap().unwrap();
    assert!(receipt.all_accepted());
}
