//! What failed for a passing reason is sent again: to whom, how often, and when not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use envoi::mail_builder::MessageBuilder;
use envoi::testing::{Builder, Server};
use envoi::{Client, Endpoint, Error, ErrorKind, Message, Outcome, Receipt, RetryPolicy};
use support::{hello, hello_to};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn at_once(count: usize) -> RetryPolicy {
    let mut retries = RetryPolicy::new(count);
    retries.initial_backoff = Duration::from_millis(1);
    retries
}

/// Gives these answers to the commands that begin so, one after the other, and its own then.
fn answering(command: &'static str, answers: &'static [&'static str]) -> Builder {
    let asked = AtomicUsize::new(0);
    Server::builder().plaintext().answer(move |line| {
        let fits = line.starts_with(command);
        fits.then(|| {
            answers
                .get(asked.fetch_add(1, Ordering::SeqCst))
                .map(|answer| (*answer).to_owned())
        })?
    })
}

fn client(server: &Server, count: usize) -> Client {
    Client::from_url(&server.url())
        .unwrap()
        .retries(at_once(count))
}

fn outcomes(receipt: &Receipt) -> Vec<u16> {
    let code = |outcome: &Outcome| match outcome {
        Outcome::Accepted(reply) | Outcome::Refused(reply) => reply.code(),
        Outcome::Unknown => 1,
        Outcome::NotTried => 0,
    };
    receipt
        .recipients
        .iter()
        .map(|recipient| code(&recipient.outcome))
        .collect()
}

#[tokio::test]
async fn a_transient_failure_is_retried_until_accepted() {
    for (command, answers) in [
        ("EHLO", &["421 4.3.2 Not now", "451 4.3.0 Not now"][..]),
        ("MAIL", &["451 4.3.0 Not now", "421 4.3.2 Not now"]),
        ("RCPT", &["450 4.7.1 Greylisted", "450 4.7.1 Greylisted"]),
    ] {
        let server = answering(command, answers).start().await.unwrap();
        let receipt = client(&server, 2).send(hello()).await.unwrap();
        assert_eq!(outcomes(&receipt), [250], "{command}");
        assert_eq!(server.connections().len(), 3);
        assert!(
            receipt.transcript.to_string().contains(answers[0]),
            "of all attempts"
        );
        assert_eq!(server.messages().len(), 1);
    }
}

#[tokio::test]
async fn retries_stop_at_their_number() {
    let server = answering("MAIL", &["451 4.3.0 Not now"; 3])
        .start()
        .await
        .unwrap();
    let error = client(&server, 2).send(hello()).await.unwrap_err();
    assert!(
        error
            .message()
            .starts_with("at the last of 3 attempts: the server refused the sender"),
        "{error}"
    );
    assert!(error.is_transient());
    assert_eq!(server.connections().len(), 3);
    let server = answering("MAIL", &["451 4.3.0 Not now"])
        .start()
        .await
        .unwrap();
    let error = client(&server, 0).send(hello()).await.unwrap_err();
    assert!(
        error.message().starts_with("the server refused the sender"),
        "{error}"
    );
}

#[tokio::test]
async fn only_recipients_without_the_message_are_retried() {
    let server = answering(
        "RCPT TO:<later@example.com>",
        &["450 4.2.1 Busy", "450 4.2.1 Busy"],
    );
    let server = server
        .refuse_recipient("nobody@example.com", "550 5.1.1 No such user")
        .start()
        .await
        .unwrap();
    let to = vec!["you@example.com", "nobody@example.com", "later@example.com"];
    let receipt = client(&server, 5).send(hello_to(&to)).await.unwrap();
    assert_eq!(outcomes(&receipt), [250, 550, 250]);
    let messages = server.messages();
    let recipients: Vec<_> = messages
        .iter()
        .map(|message| message.recipients.clone())
        .collect();
    assert_eq!(recipients, [["you@example.com"], ["later@example.com"]]);
    // The same message: Message-ID, date and all.
    assert_eq!(messages[0].read().unwrap(), messages[1].read().unwrap());
    assert_eq!(server.connections().len(), 3);
}

#[tokio::test]
async fn a_partial_success_keeps_its_outcomes_when_retries_fail() {
    let server = answering(
        "RCPT TO:<later@example.com>",
        &["450 4.2.1 Busy", "550 5.7.1 Never"],
    )
    .start()
    .await
    .unwrap();
    let receipt = client(&server, 5)
        .send(hello_to(&["you@example.com", "later@example.com"]))
        .await
        .unwrap();
    assert_eq!(outcomes(&receipt), [250, 550]);
    assert!(receipt.reply.unwrap().is_positive());
    assert_eq!(server.connections().len(), 2);
}

#[tokio::test]
async fn all_or_nothing_retries_all_recipients_or_none() {
    let to = || hello_to(&["you@example.com", "later@example.com"]);
    let server = answering("RCPT TO:<later@example.com>", &["450 4.2.1 Busy"])
        .start()
        .await
        .unwrap();
    let endpoint = Endpoint::from_url(&server.url())
        .unwrap()
        .all_or_nothing(true);
    let receipt = Client::new(endpoint)
        .retries(at_once(5))
        .send(to())
        .await
        .unwrap();
    assert_eq!(outcomes(&receipt), [250, 250]);
    assert_eq!(server.messages().len(), 1);

    let server = answering("RCPT TO:<later@example.com>", &["450 4.2.1 Busy"]);
    let server = server
        .refuse_recipient("you@example.com", "550 5.1.1 No such user")
        .start()
        .await
        .unwrap();
    let endpoint = Endpoint::from_url(&server.url())
        .unwrap()
        .all_or_nothing(true);
    let error = Client::new(endpoint)
        .retries(at_once(5))
        .send(to())
        .await
        .unwrap_err();
    assert_eq!(outcomes(error.receipt().unwrap()), [550, 450]);
    assert_eq!(server.connections().len(), 1);
}

#[tokio::test]
async fn permanent_failures_are_not_retried() {
    // Refused for good.
    let server = answering("MAIL", &["550 5.7.1 Never"])
        .start()
        .await
        .unwrap();
    assert!(
        client(&server, 5)
            .send(hello())
            .await
            .unwrap_err()
            .is_permanent()
    );
    assert_eq!(server.connections().len(), 1);
    // A stream is gone.
    let server = answering("MAIL", &["451 4.3.0 Not now"])
        .start()
        .await
        .unwrap();
    let prepared = Message::from(hello()).prepare().await.unwrap();
    let envelope = prepared.envelope();
    let stream = Message::raw_stream(&b"Subject: once\r\n\r\n"[..]).envelope(envelope.clone());
    assert!(
        client(&server, 5)
            .send(stream)
            .await
            .unwrap_err()
            .is_transient()
    );
    assert_eq!(server.connections().len(), 1);
    // No time.
    let server = answering("MAIL", &["451 4.3.0 Not now"])
        .start()
        .await
        .unwrap();
    let endpoint = Endpoint::from_url(&server.url())
        .unwrap()
        .deadline(Duration::from_secs(3000));
    let mut retries = RetryPolicy::new(5);
    (retries.initial_backoff, retries.max_backoff) =
        (Duration::from_secs(3600), Duration::from_secs(3600));
    assert!(
        Client::new(endpoint)
            .retries(retries)
            .send(hello())
            .await
            .unwrap_err()
            .is_transient()
    );
    assert_eq!(server.connections().len(), 1);
}

/// A server that ends each connection when the message is there, without an answer.
#[tokio::test]
async fn an_unknown_outcome_is_not_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "smtp://127.0.0.1:{}?tls=none",
        listener.local_addr().unwrap().port()
    );
    let server = tokio::spawn(async move {
        let mut connections = 0;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections += 1;
            assert_eq!(connections, 1);
            // Room for a whole line, so that no reply comes before its command.
            let mut heard = Vec::with_capacity(64 * 1024);
            for line in [
                "220 there\r\n",
                "250 there\r\n",
                "250 Ok\r\n",
                "250 Ok\r\n",
                "354 Go\r\n",
            ] {
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

/// The message went with its commands, and the session broke down after MAIL was refused: nothing
/// is unknown, and the message goes again.
#[tokio::test]
async fn a_refused_sender_followed_by_a_violation_is_not_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "smtp://127.0.0.1:{}?tls=none",
        listener.local_addr().unwrap().port()
    );
    let server = tokio::spawn(async move {
        for replies in [
            "450 4.7.1 Later\r\nxyzzy\r\n",
            "250 Ok\r\n250 Ok\r\n250 Ok\r\n",
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            for (said, end) in [
                ("220 there\r\n", "\r\n"),
                (
                    "250-there\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
                    "Hello.\r\n",
                ),
                (replies, ""),
            ] {
                stream.write_all(said.as_bytes()).await.unwrap();
                heard.clear();
                while !heard.ends_with(end.as_bytes()) {
                    assert!(stream.read_buf(&mut heard).await.unwrap() > 0);
                }
            }
        }
    });
    let receipt = Client::from_url(&url)
        .unwrap()
        .retries(at_once(1))
        .send(hello())
        .await
        .unwrap();
    assert_eq!(outcomes(&receipt), [250]);
    server.await.unwrap();
}

#[tokio::test]
async fn a_refused_connection_is_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "smtp://127.0.0.1:{}?tls=none",
        listener.local_addr().unwrap().port()
    );
    drop(listener);
    let error = Client::from_url(&url)
        .unwrap()
        .retries(at_once(2))
        .send(hello())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.receipt().unwrap().recipients.len()),
        (ErrorKind::Connect, 1)
    );
    assert!(error.message().contains("3 attempts"), "{error}");
}

/// Of each session, the recipients that were asked about.
fn asked(server: &Server) -> Vec<Vec<String>> {
    let of_session = |session: &envoi::testing::Session| {
        let asked = session
            .commands()
            .filter_map(|line| line.strip_prefix("RCPT TO:<"));
        asked
            .map(|line| line.split('@').next().unwrap().to_owned())
            .collect()
    };
    server.connections().iter().map(of_session).collect()
}

fn two() -> MessageBuilder<'static> {
    hello_to(&["a@example.com", "b@example.com"])
}

#[tokio::test]
async fn a_part_lost_before_its_message_is_retried() {
    // RFC 9422: each recipient in a transaction of its own.
    let server = answering("RCPT TO:<b@", &["421 4.3.2 Going down"])
        .offer("LIMITS RCPTMAX=1")
        .start()
        .await
        .unwrap();
    let receipt = client(&server, 3).send(two()).await.unwrap();
    assert_eq!(
        (outcomes(&receipt), receipt.transactions),
        (vec![250, 250], 3)
    );
    assert_eq!(asked(&server), [vec!["a", "b"], vec!["b"]]);
    assert_eq!(receipt.incomplete_reason, None);
    // The same where it did not come to b at all, as MAIL of its part was answered so.
    let mails = AtomicUsize::new(0);
    let going_down = move |line: &str| {
        let second = line.starts_with("MAIL") && mails.fetch_add(1, Ordering::SeqCst) == 1;
        second.then(|| "421 4.3.2 Going down".to_owned())
    };
    let server = Server::builder()
        .plaintext()
        .offer("LIMITS RCPTMAX=1")
        .answer(going_down)
        .start()
        .await
        .unwrap();
    let three = hello_to(&["a@example.com", "b@example.com", "c@example.com"]);
    let receipt = client(&server, 3).send(three).await.unwrap();
    assert_eq!(outcomes(&receipt), [250, 250, 250]);
    assert_eq!(server.messages().len(), 3);
}

/// Without an answer, and the connection is closed.
#[tokio::test]
async fn a_connection_lost_between_parts_is_replaced() {
    for (lost_at, again) in [("MAIL", true), ("RCPT", true), ("DATA", true), (".", false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "smtp://127.0.0.1:{}?tls=none",
            listener.local_addr().unwrap().port()
        );
        let server = tokio::spawn(async move {
            let mut mails = 0;
            for session in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = tokio::io::BufReader::new(stream);
                let mut in_message = false;
                stream.write_all(b"220 there\r\n").await.unwrap();
                let mut line = String::new();
                while tokio::io::AsyncBufReadExt::read_line(&mut stream, &mut line)
                    .await
                    .unwrap_or(0)
                    > 0
                {
                    mails += usize::from(line.starts_with("MAIL"));
                    let ends = if lost_at == "." {
                        line == ".\r\n"
                    } else {
                        line.starts_with(lost_at)
                    };
                    if session == 0 && mails == 2 && ends {
                        break;
                    }
                    let answer = match line.get(..4) {
                        _ if in_message && line != ".\r\n" => "",
                        Some("EHLO") => "250-there\r\n250 LIMITS RCPTMAX=1\r\n",
                        Some("DATA") => "354 Go\r\n",
                        _ => "250 Ok\r\n",
                    };
                    in_message = (in_message || answer.starts_with("354")) && line != ".\r\n";
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    line.clear();
                }
            }
        });
        let result = Client::from_url(&url)
            .unwrap()
            .retries(at_once(3))
            .send(two())
            .await;
        match result {
            Ok(receipt) => assert!(again && receipt.all_accepted(), "{lost_at}: {receipt:?}"),
            Err(error) => {
                assert!(!again && error.outcome_unknown(), "{lost_at}: {error}");
                assert_eq!(outcomes(error.receipt().unwrap()), [250, 1]);
            }
        }
        server.abort();
    }
}

/// A refused login that is tried again and again locks an account.
#[tokio::test]
async fn a_permanent_failure_after_a_partial_success_ends_the_attempts() {
    for (refusal, sessions) in [("535 5.7.8 Wrong password", 2), ("454 4.7.0 Not now", 6)] {
        let logins = AtomicUsize::new(0);
        let answer = move |line: &str| {
            if line.starts_with("AUTH") && logins.fetch_add(1, Ordering::SeqCst) > 0 {
                return Some(refusal.to_owned());
            }
            line.starts_with("RCPT TO:<b@")
                .then(|| "450 4.2.1 Busy".to_owned())
        };
        let server = Server::builder()
            .login("alice", "secret")
            .require_login(true);
        let server = server
            .mechanisms([envoi::proto::Mechanism::Plain])
            .answer(answer)
            .start()
            .await
            .unwrap();
        let receipt = client(&server, 5).send(two()).await.unwrap();
        assert_eq!(outcomes(&receipt), [250, 450]);
        assert_eq!(server.connections().len(), sessions, "{refusal}");
        assert_eq!(
            receipt.recipients[1].is_transient(),
            refusal.starts_with('4')
        );
        assert!(receipt.incomplete_reason.unwrap().contains(&refusal[..3]));
    }
}

/// LIMITS allow one message in a session, and the session for the second part is refused.
#[tokio::test]
async fn a_refused_second_session_is_retried() {
    for (refusal, sessions) in [("535 5.7.8 Wrong password", 2), ("454 4.7.0 Not now", 3)] {
        let logins = AtomicUsize::new(0);
        let answer = move |line: &str| {
            let second = line.starts_with("AUTH") && logins.fetch_add(1, Ordering::SeqCst) == 1;
            second.then(|| refusal.to_owned())
        };
        let server = Server::builder()
            .login("alice", "secret")
            .offer("LIMITS MAILMAX=1 RCPTMAX=1");
        let server = server
            .mechanisms([envoi::proto::Mechanism::Plain])
            .answer(answer)
            .start()
            .await
            .unwrap();
        let to = hello_to(&["a@example.com", "b@example.com", "c@example.com"]);
        let receipt = client(&server, 5).send(to).await.unwrap();
        let permanent = refusal.starts_with('5');
        assert_eq!(
            outcomes(&receipt),
            if permanent {
                [250, 0, 0]
            } else {
                [250, 250, 250]
            }
        );
        assert_eq!(
            server.connections().len(),
            if permanent { sessions } else { sessions + 1 }
        );
        assert_eq!(receipt.incomplete_reason.is_some(), permanent);
        assert!(
            receipt
                .recipients
                .iter()
                .all(|recipient| !recipient.is_transient())
        );
    }
}

#[tokio::test]
async fn only_transiently_refused_parts_are_retried() {
    // One for good, one accepted, one for the moment.
    let server = answering("RCPT TO:<c@", &["450 4.2.1 Busy"])
        .refuse_recipient("a@example.com", "550 5.1.1 No");
    let server = server.offer("LIMITS RCPTMAX=1").start().await.unwrap();
    let to = hello_to(&["a@example.com", "b@example.com", "c@example.com"]);
    let receipt = client(&server, 3).send(to).await.unwrap();
    assert_eq!(outcomes(&receipt), [550, 250, 250]);
    assert_eq!(asked(&server), [vec!["a", "b", "c"], vec!["c"]]);
    // None accepted: what was refused for good does not keep the other from another attempt.
    let server = answering("RCPT TO:<b@", &["450 4.2.1 Busy"])
        .refuse_recipient("a@example.com", "550 5.1.1 No");
    let server = server.offer("LIMITS RCPTMAX=1").start().await.unwrap();
    let receipt = client(&server, 3).send(two()).await.unwrap();
    assert_eq!(outcomes(&receipt), [550, 250]);
}

/// To whom the outcome is unknown, never; to the others, by their own reasons.
#[tokio::test]
async fn an_unknown_outcome_excludes_only_its_recipients() {
    let ends = AtomicUsize::new(0);
    let answer = move |line: &str| {
        if line == "." && ends.fetch_add(1, Ordering::SeqCst) == 0 {
            return Some("250 2.0.0 Saved\n452 4.2.2 Over quota\n421 4.3.2 Going down".to_owned());
        }
        None
    };
    let server = Server::builder()
        .lmtp()
        .answer(answer)
        .start()
        .await
        .unwrap();
    let to = ["a", "b", "c", "d"]
        .map(|name| format!("{name}@example.com"))
        .to_vec();
    let mail = MessageBuilder::new()
        .from("me@example.org")
        .to(to)
        .text_body("Hello.");
    let error = client(&server, 3).send(mail).await.unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
    // 421 is the answer for c; for d there is none.
    assert_eq!(outcomes(error.receipt().unwrap()), [250, 250, 250, 1]);
    assert_eq!(asked(&server)[1..], [["b", "c"]]);
    assert!(
        error
            .receipt()
            .unwrap()
            .recipients
            .iter()
            .all(|recipient| !recipient.is_transient())
    );
}

#[tokio::test]
async fn all_or_nothing_reports_every_refusal() {
    let server = answering("RCPT TO:<b@", &["550 5.1.1 No"])
        .start()
        .await
        .unwrap();
    let endpoint = Endpoint::from_url(&server.url())
        .unwrap()
        .all_or_nothing(true);
    let error = Client::new(endpoint)
        .retries(at_once(5))
        .send(two())
        .await
        .unwrap_err();
    assert_eq!(
        (
            outcomes(error.receipt().unwrap()),
            server.connections().len()
        ),
        (vec![0, 550], 1)
    );
    assert!(
        error
            .receipt()
            .unwrap()
            .recipients
            .iter()
            .all(|recipient| !recipient.is_transient())
    );
}

#[tokio::test]
async fn a_permanent_tls_failure_ends_the_attempts() {
    let hellos = AtomicUsize::new(0);
    let answer = move |line: &str| {
        if line.starts_with("STARTTLS") && hellos.fetch_add(1, Ordering::SeqCst) > 0 {
            return Some("554 5.7.0 No TLS".to_owned());
        }
        line.starts_with("RCPT TO:<b@")
            .then(|| "450 4.2.1 Busy".to_owned())
    };
    let server = Server::builder().answer(answer).start().await.unwrap();
    let receipt = client(&server, 5).send(two()).await.unwrap();
    assert_eq!(
        (outcomes(&receipt), server.connections().len()),
        (vec![250, 450], 2)
    );
    assert!(!receipt.recipients[1].is_transient());
}

/// What the server has no room for in one transaction, and where the session ends before the next.
#[tokio::test]
async fn recipients_beyond_452_are_retried() {
    for too_many in [
        "452 4.5.3 Too many recipients",
        "552 5.5.3 Too many recipients",
    ] {
        let (mails, asked) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let answer = move |line: &str| {
            if line.starts_with("MAIL") && mails.fetch_add(1, Ordering::SeqCst) == 1 {
                return Some("421 4.3.2 Going down".to_owned());
            }
            let second = line.starts_with("RCPT") && asked.fetch_add(1, Ordering::SeqCst) == 1;
            second.then(|| too_many.to_owned())
        };
        let server = Server::builder()
            .plaintext()
            .answer(answer)
            .start()
            .await
            .unwrap();
        let receipt = client(&server, 3).send(two()).await.unwrap();
        assert_eq!(
            (outcomes(&receipt), receipt.transactions),
            (vec![250, 250], 3),
            "{too_many}"
        );
        assert_eq!(server.connections().len(), 2);
    }
}
