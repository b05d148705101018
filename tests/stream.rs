//! Many messages in a row: `Connection::send_all`, against a server that counts how often it was waited for.

use std::pin::pin;
use std::time::Duration;

use envoi::mail_builder::MessageBuilder;
use envoi::testing::Server;
use envoi::tls::Security;
use envoi::{Connection, Endpoint, Kind, Message, Outcome};
use futures::stream::{self, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

fn message(to: &str) -> Message<'static> {
    Message::from(MessageBuilder::new().from("me@example.org").to(to.to_owned()).subject("Hello").text_body("Hello.\n"))
}

/// A server that takes everything, but answers only what had come when it looked: every answer is this late.
async fn far_away(mut stream: DuplexStream, chunking: bool, delay: Duration, lose_at: Option<usize>) -> usize {
    let offers = if chunking { "250-CHUNKING\r\n250 PIPELINING\r\n" } else { "250 PIPELINING\r\n" };
    stream.write_all(b"220 far.example.org\r\n").await.unwrap();
    let (mut input, mut messages, mut in_data) = (Vec::new(), 0, false);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return messages,
            Ok(n) => input.extend_from_slice(&buffer[..n]),
        }
        tokio::time::sleep(delay).await;
        let mut answers = String::new();
        loop {
            if in_data {
                let end = input.windows(5).position(|bytes| bytes == b"\r\n.\r\n").map(|end| end + 5);
                // A message without a byte is a dot alone.
                let Some(end) = input.starts_with(b".\r\n").then_some(3).or(end) else { break };
                input.drain(..end);
                in_data = false;
                messages += 1;
                answers += "250 2.0.0 Ok\r\n";
                continue;
            }
            let Some(end) = input.windows(2).position(|bytes| bytes == b"\r\n") else { break };
            let line = String::from_utf8_lossy(&input[..end]).into_owned();
            let mut words = line.split(' ');
            match words.next() {
                Some("EHLO") => answers += &format!("250-far.example.org\r\n{offers}"),
                Some("DATA") => {
                    answers += "354 go\r\n";
                    in_data = true;
                }
                Some("BDAT") => {
                    let size: usize = words.next().unwrap().parse().unwrap();
                    if input.len() < end + 2 + size {
                        break;
                    }
                    input.drain(..size);
                    messages += 1;
                    if lose_at == Some(messages) {
                        stream.write_all(answers.as_bytes()).await.unwrap();
                        return messages;
                    }
                    answers += "250 2.0.0 Ok\r\n";
                }
                Some("RCPT") if line.contains("leave") => {
                    stream.write_all(format!("{answers}421 4.3.2 going down\r\n").as_bytes()).await.unwrap();
                    return messages;
                }
                Some("RCPT") if line.contains("nobody") => answers += "550 5.1.1 no\r\n",
                Some("QUIT") => answers += "221 bye\r\n",
                _ => answers += "250 2.1.0 Ok\r\n",
            }
            input.drain(..end + 2);
        }
        if stream.write_all(answers.as_bytes()).await.is_err() {
            return messages;
        }
    }
}

async fn connect(
    chunking: bool,
    delay: Duration,
    lose_at: Option<usize>,
) -> (Connection, tokio::task::JoinHandle<usize>) {
    let (client, server) = duplex(1024 * 1024);
    let serving = tokio::spawn(far_away(server, chunking, delay, lose_at));
    let endpoint = Endpoint::new("far.example.org").security(Security::None);
    (Connection::over(client, &endpoint).await.unwrap(), serving)
}

#[tokio::test(start_paused = true)]
async fn throughput_does_not_depend_on_the_distance() {
    let delay = Duration::from_millis(100);
    for (chunking, at_most) in [(true, 20), (false, 620)] {
        let (mut connection, serving) = connect(chunking, delay, None).await;
        let began = tokio::time::Instant::now();
        let outcomes: Vec<_> =
            connection.send_all(stream::iter(0..500).map(|n| message(&format!("user{n}@example.com")))).collect().await;
        assert_eq!(outcomes.len(), 500);
        for (n, outcome) in outcomes.iter().enumerate() {
            let receipt = outcome.as_ref().unwrap();
            assert_eq!(receipt.recipients[0].address.as_str(), format!("user{n}@example.com"));
            assert!(receipt.all_accepted() && receipt.bytes > 0);
        }
        let waits = began.elapsed().as_millis() / delay.as_millis();
        assert!(waits <= at_most, "{waits} round trips, chunking: {chunking}");
        connection.quit().await;
        assert_eq!(serving.await.unwrap(), 500);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_does_not_keep_the_next() {
    for chunking in [true, false] {
        let (mut connection, _serving) = connect(chunking, Duration::from_millis(1), None).await;
        let bad = MessageBuilder::new().from("me@example.org").to("x@example.com").subject("a\r\nb").text_body("");
        let messages = vec![
            message("one@example.com"),
            message("nobody@example.com"),
            message("two@example.com"),
            Message::from(bad),
            message("three@example.com"),
        ];
        let outcomes: Vec<_> = connection.send_all(stream::iter(messages)).collect().await;
        let told: Vec<Result<(), Kind>> =
            outcomes.iter().map(|outcome| outcome.as_ref().map(|_| ()).map_err(|error| error.kind())).collect();
        assert_eq!(told, [Ok(()), Err(Kind::Refused), Ok(()), Err(Kind::Request), Ok(())], "chunking: {chunking}");
        connection.verify().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_leaves_no_message_without_an_outcome() {
    let (mut connection, serving) = connect(true, Duration::from_millis(10), Some(3)).await;
    let many = stream::iter(0..10).map(|n| message(&format!("user{n}@example.com")));
    let outcomes: Vec<_> = connection.send_all(many).collect().await;
    assert_eq!(serving.await.unwrap(), 3);
    assert_eq!(outcomes.len(), 10);
    assert!(outcomes[0].is_ok() && outcomes[1].is_ok());
    for (n, outcome) in outcomes.into_iter().enumerate().skip(2) {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), Kind::Closed, "{n}: {error}");
        // All of them had gone in one flow, and these were not answered.
        assert!(error.outcome_unknown(), "{n}");
        assert_eq!(error.receipt().unwrap().recipients[0].outcome, Outcome::Unknown);
    }
    assert!(connection.verify().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_down_leaves_no_message_without_an_outcome() {
    let (mut connection, serving) = connect(true, Duration::from_millis(10), None).await;
    let names = ["one", "leave", "two", "three"];
    let many = stream::iter(names).map(|name| message(&format!("{name}@example.com")));
    let outcomes: Vec<_> = connection.send_all(many).collect().await;
    assert_eq!(serving.await.unwrap(), 1);
    assert_eq!(outcomes.len(), names.len());
    assert!(outcomes[0].is_ok());
    for outcome in &outcomes[1..] {
        let error = outcome.as_ref().unwrap_err();
        assert!(error.is_transient() && !error.outcome_unknown(), "{error}");
        assert_ne!(error.receipt().unwrap().recipients[0].outcome, Outcome::Unknown, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_is_dropped_leaves_a_connection_that_refuses() {
    let (mut connection, _serving) = connect(true, Duration::from_secs(10), None).await;
    {
        let mut outcomes = pin!(connection.send_all(stream::repeat_with(|| message("you@example.com"))));
        let first = tokio::time::timeout(Duration::from_millis(50), outcomes.next()).await;
        assert!(first.is_err());
    }
    let error = connection.send(message("you@example.com")).await.unwrap_err();
    assert!(error.to_string().contains("given up"), "{error}");
}

#[tokio::test]
async fn through_the_server_of_the_testing_module() {
    let server = Server::start().await.unwrap();
    let mut connection = Connection::connect(&Endpoint::from_url(&server.url()).unwrap()).await.unwrap();
    let many = stream::iter(0..100).map(|n| message(&format!("user{n}@example.com")));
    let sent = connection.send_all(many).filter(|outcome| std::future::ready(outcome.is_ok())).count().await;
    assert_eq!(sent, 100);
    connection.quit().await;
    assert_eq!(server.messages().len(), 100);
}
