//! LMTP and PRDR: each recipient's own answer, over TCP and a Unix socket, one message or many.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use envoi::proto::Protocol;
use envoi::testing::{Builder, Server};
#[cfg(unix)]
use envoi::testing::{Fault, Step};
use envoi::{Address, Client, Endpoint, ErrorKind, Message, Outcome, Phase, Timeouts};
use futures::stream::{self, StreamExt as _};

const FULL: &str = "full@example.com";

fn builder() -> Builder {
    Server::builder()
        .lmtp()
        .refuse_message(FULL, "552 5.2.2 Mailbox full")
}

fn message(to: &[&str]) -> Message<'static> {
    support::hello_to(to).into()
}

/// `250`, `552`, `?` and `-` for the recipients.
fn outcomes(recipients: &[envoi::Recipient]) -> String {
    let word = |recipient: &envoi::Recipient| match &recipient.outcome {
        Outcome::Accepted(reply) | Outcome::Refused(reply) => reply.code().to_string(),
        Outcome::Unknown => "?".into(),
        Outcome::NotTried => "-".into(),
    };
    recipients.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(unix)]
#[tokio::test]
async fn lmtp_delivers_over_a_unix_socket() {
    let server = Server::builder()
        .lmtp_unix()
        .refuse_message(FULL, "552 5.2.2 Mailbox full")
        .start()
        .await
        .unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    assert_eq!(
        (client.endpoint().protocol(), client.endpoint().socket()),
        (Protocol::Lmtp, server.socket())
    );
    let receipt = client
        .send(message(&["a@example.com", FULL, "b@example.com"]))
        .await
        .unwrap();
    assert_eq!(outcomes(&receipt.recipients), "250 552 250");
    assert_eq!(
        Some(receipt.server.as_str()),
        server.socket().and_then(|path| path.to_str())
    );
    let arrived = server.next_message().await;
    assert_eq!((arrived.helo.as_str(), arrived.tls), ("[127.0.0.1]", None));
    assert_eq!(arrived.recipients, ["a@example.com", "b@example.com"]);
}

#[cfg(unix)]
#[tokio::test]
async fn opportunistic_tls_falls_back_at_a_unix_socket() {
    use envoi::tls::Security;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lmtp.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        let mut heard = Vec::new();
        for _ in 0..2 {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            stream.write_all(b"220 here LMTP\r\n").await.unwrap();
            let mut line = String::new();
            while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                let reply = match line.trim_end() {
                    "LHLO [127.0.0.1]" => "250-here\r\n250 STARTTLS\r\n",
                    // A handshake does not follow.
                    "STARTTLS" => "220 2.0.0 Go ahead\r\n",
                    _ => "221 2.0.0 Bye\r\n",
                };
                stream.write_all(reply.as_bytes()).await.unwrap();
                heard.push(std::mem::take(&mut line));
                if heard.last().unwrap().starts_with("STARTTLS") {
                    break;
                }
            }
        }
        heard.concat()
    });
    let endpoint = Endpoint::lmtp_unix(&path).security(Security::Opportunistic);
    let connection = Client::new(endpoint).connect().await.unwrap();
    assert!(connection.tls().is_none());
    connection.quit().await;
    let heard = "LHLO [127.0.0.1]\r\nSTARTTLS\r\nLHLO [127.0.0.1]\r\nQUIT\r\n";
    assert_eq!(serving.await.unwrap(), heard);
}

#[tokio::test]
async fn lmtp_delivers_over_tls_after_a_login() {
    let server = builder()
        .starttls()
        .login("alice", "secret")
        .require_login(true)
        .start()
        .await
        .unwrap();
    let receipt = Client::from_url(&server.url())
        .unwrap()
        .send(message(&["a@example.com"]))
        .await
        .unwrap();
    assert!(receipt.all_accepted() && receipt.tls.is_some() && receipt.mechanism.is_some());
    let server = builder().implicit_tls().start().await.unwrap();
    let endpoint = Endpoint::from_url(&server.url())
        .unwrap()
        .security(envoi::tls::Security::Implicit);
    let receipt = Client::new(endpoint.trust(envoi::tls::Trust::empty().pem(server.ca_pem())))
        .send(message(&[FULL]))
        .await;
    assert_eq!(receipt.unwrap_err().receipt().unwrap().recipients.len(), 1);
}

#[tokio::test]
async fn a_message_refused_for_every_recipient_fails() {
    let server = builder()
        .refuse_message("later@example.com", "452 4.2.2 Over quota")
        .start()
        .await
        .unwrap();
    let mut connection = Client::from_url(&server.url())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let error = connection
        .send(message(&[FULL, "later@example.com"]))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Refused, Phase::EndOfData)
    );
    assert_eq!(outcomes(&error.receipt().unwrap().recipients), "552 452");
    assert_eq!(
        error.message(),
        "the server refused the message to full@example.com and 1 more"
    );
    assert!(
        connection
            .send(message(&["a@example.com"]))
            .await
            .unwrap()
            .all_accepted()
    );
    connection.quit().await;
}

/// The received replies are the outcome; for the other recipients it is unknown.
#[tokio::test]
async fn recipients_without_a_reply_are_unknown_when_the_session_ends() {
    for (answer, kind, expected) in [
        (
            "250 2.0.0 Saved\n421 4.3.2 Going down",
            ErrorKind::Closed,
            "250 421 ?",
        ),
        ("552 5.2.2 Full\nnonsense", ErrorKind::Protocol, "552 ? ?"),
    ] {
        let answered = move |command: &str| (command == ".").then(|| answer.to_owned());
        let server = Server::builder()
            .lmtp()
            .answer(answered)
            .start()
            .await
            .unwrap();
        let mut connection = Client::from_url(&server.url())
            .unwrap()
            .connect()
            .await
            .unwrap();
        let to = message(&["a@example.com", "b@example.com", "c@example.com"]);
        let error = connection.send(to).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome_unknown()),
            (kind, true),
            "{error}"
        );
        assert_eq!(
            outcomes(&error.receipt().unwrap().recipients),
            expected,
            "{error}"
        );
        let unknown = if kind == ErrorKind::Closed {
            "the message to c@"
        } else {
            "the message to b@example.com and 1 more"
        };
        assert!(error.message().contains(unknown), "{error}");
    }
}

#[tokio::test]
async fn send_all_reports_each_recipients_reply() {
    let server = builder().start().await.unwrap();
    let mut connection = Client::from_url(&server.url())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let messages = stream::iter(0..100).map(|n| match n % 3 {
        0 => message(&["a@example.com", FULL]),
        1 => message(&[FULL]),
        _ => message(&["a@example.com"]),
    });
    let mut results = pin!(connection.send_all(messages));
    for n in 0..100 {
        let (expected, recipients) = match (n % 3, results.next().await.unwrap()) {
            (0, Ok(receipt)) => ("250 552", receipt.recipients),
            (1, Err(error)) => ("552", error.receipt().unwrap().recipients.clone()),
            (2, Ok(receipt)) => ("250", receipt.recipients),
            (_, other) => panic!("message {n}: {other:?}"),
        };
        assert_eq!(outcomes(&recipients), expected, "message {n}");
    }
    assert!(results.next().await.is_none());
}

/// In the middle of a window: the message whose answers had begun, and those behind it.
#[tokio::test]
async fn send_all_leaves_messages_in_flight_unknown_when_cut() {
    let messages = AtomicUsize::new(0);
    let answer = move |command: &str| {
        let is_second = command == "." && messages.fetch_add(1, Ordering::Relaxed) == 1;
        is_second.then(|| "250 2.0.0 Saved\n421 4.3.2 Going down".to_owned())
    };
    let server = builder().answer(answer).start().await.unwrap();
    let mut connection = Client::from_url(&server.url())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let three = || message(&["a@example.com", "b@example.com", "c@example.com"]);
    let outcomes: Vec<String> = connection
        .send_all(stream::repeat_with(three).take(2))
        .map(|result| match result {
            Ok(receipt) => outcomes(&receipt.recipients),
            Err(error) => format!(
                "{} {}",
                error.outcome_unknown(),
                outcomes(&error.receipt().unwrap().recipients)
            ),
        })
        .collect()
        .await;
    assert_eq!(outcomes, ["250 250 250", "true 250 421 ?"]);
}

#[tokio::test]
async fn single_steps_report_each_recipients_reply() {
    let server = builder()
        .refuse_recipient("nobody@example.com", "550 5.1.1 Unknown")
        .start()
        .await
        .unwrap();
    let mut connection = Client::from_url(&server.url())
        .unwrap()
        .connect()
        .await
        .unwrap();
    connection.mail(None).await.unwrap();
    for to in ["a@example.com", "nobody@example.com", FULL] {
        connection.rcpt(Address::new(to).unwrap()).await.unwrap();
    }
    let writer = connection.data().await.unwrap();
    let mut verdicts = Vec::new();
    let reply = writer
        .finish_each(|index, reply| verdicts.push((index, reply.code())))
        .await
        .unwrap();
    assert_eq!(
        (reply.code(), &verdicts[..]),
        (250, &[(0, 250), (2, 552)][..])
    );
    connection.quit().await;
}

#[tokio::test]
async fn prdr_reports_each_recipients_reply() {
    let builder = Server::builder()
        .plaintext()
        .prdr(true)
        .refuse_message(FULL, "552 5.2.2 Mailbox full");
    let server = builder
        .refuse_message("picky@example.com", "450 4.7.1 Not today")
        .start()
        .await
        .unwrap();
    let mut connection = Client::from_url(&server.url())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let receipt = connection
        .send(message(&["a@example.com", FULL]))
        .await
        .unwrap();
    assert_eq!(outcomes(&receipt.recipients), "250 552");
    assert_eq!(receipt.reply.unwrap().text(), "Ok: queued as 00000001");
    // One recipient has no use for it, and the refusal is one of the message.
    let error = connection.send(message(&[FULL])).await.unwrap_err();
    assert_eq!(
        (error.phase(), error.reply().unwrap().code()),
        (Phase::EndOfData, 552)
    );
    let error = connection
        .send(message(&["picky@example.com", FULL]))
        .await
        .unwrap_err();
    assert_eq!(outcomes(&error.receipt().unwrap().recipients), "450 552");
    connection.quit().await;
    let arrived = server.messages();
    assert_eq!(
        (arrived.len(), &arrived[0].recipients[..]),
        (1, &["a@example.com".to_owned()][..])
    );
    assert!(arrived[0].parameters.contains(&"PRDR".to_owned()));
}

/// More recipients than the server takes at once (RFC 5321, 4.5.3.1.10). That the message was
/// refused for each of the first says nothing of the others.
#[tokio::test]
async fn recipients_beyond_452_are_tried_after_a_refused_message() {
    let accepted = AtomicUsize::new(0);
    let one = move |line: &str| {
        if line.starts_with("MAIL") {
            accepted.store(0, Ordering::Relaxed);
        }
        let too_many = line.starts_with("RCPT") && accepted.fetch_add(1, Ordering::Relaxed) > 0;
        too_many.then(|| "452 4.5.3 Too many recipients".to_owned())
    };
    let server = builder().answer(one).start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let receipt = client
        .send(message(&[FULL, "a@example.com", "b@example.com"]))
        .await
        .unwrap();
    assert_eq!(
        (outcomes(&receipt.recipients).as_str(), receipt.transactions),
        ("552 250 250", 3)
    );
    let transient: Vec<bool> = receipt
        .recipients
        .iter()
        .map(envoi::Recipient::is_transient)
        .collect();
    assert_eq!(transient, [false; 3]);
}

/// A socket has no port, so no hint suggests another one.
#[cfg(unix)]
#[tokio::test]
async fn hints_about_a_socket_name_no_port() {
    for (fault, kind) in [
        (Fault::hang(Step::Greeting), ErrorKind::Timeout),
        (Fault::close(Step::Greeting), ErrorKind::Closed),
    ] {
        let server = builder().lmtp_unix().fault(fault).start().await.unwrap();
        let endpoint = Endpoint::from_url(&server.url()).unwrap();
        let timeouts = Timeouts::uniform(Duration::from_millis(200));
        let client = Client::new(endpoint.timeouts(timeouts));
        let error = client.connect().await.unwrap_err();
        assert_eq!((error.kind(), error.phase()), (kind, Phase::Greeting));
        let hint = error.hint().unwrap();
        assert!(
            hint.contains("socket") && hint.contains("another service"),
            "{hint}"
        );
        assert!(!hint.contains("port") && !hint.contains("smtp"), "{hint}");
    }
}
