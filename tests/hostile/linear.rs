//! No server can make the work grow faster than the number of recipients, or of messages in flight:
//! instructions are counted by valgrind, for some and for four times as many.

use std::process::Command;
use std::time::Duration;

use envoi::delivery::Notify;
use envoi::mail_builder::MessageBuilder;
use envoi::tls::Security;
use envoi::{Address, Connection, DeliveryOptions, Endpoint, Envelope, Message, Timeouts};
use futures::stream::{self, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

/// The instructions for a task of this size.
fn steps(task: &str, size: usize) -> u64 {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--collect-atstart=no",
        ])
        .arg("--toggle-collect=*linear*measured*")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "linear::task", "--include-ignored"])
        .env("LINEAR_TASK", task)
        .env("LINEAR_SIZE", size.to_string())
        .output()
        .expect("valgrind is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .expect("valgrind counts")
        .1;
    collected
        .split_whitespace()
        .next()
        .and_then(|count| count.parse().ok())
        .expect("a count")
}

fn assert_linear(task: &str) {
    const SOME: usize = 250;
    let (some, many) = (steps(task, SOME), steps(task, 4 * SOME));
    let growth = many as f64 / some as f64;
    println!(
        "{task}: {some} instructions, {many} for four times as many recipients or messages: \
            {growth:.2} times as many"
    );
    assert!(
        growth < 4.3,
        "{task}: {some} instructions, and {many} for four times as many"
    );
}

macro_rules! linear {
    ($($task:ident)*) => {$(
        #[test]
        #[ignore = "needs valgrind"]
        fn $task() {
            assert_linear(stringify!($task));
        }
    )*};
}

linear! {
    one_transaction
    all_refused
    one_recipient_at_a_time
    one_domain_at_a_time
    parts_in_a_row_of_messages
    too_many_for_one_transaction
    reports_for_each
    verdicts_for_each
    single_steps
    a_session_that_ends_in_between
    messages_in_flight
    messages_in_flight_in_two_parts
    messages_in_flight_that_are_lost
    messages_in_flight_that_are_refused
}

/// What `steps` runs in valgrind.
#[test]
#[ignore = "is run by the others"]
fn task() {
    let Ok(task) = std::env::var("LINEAR_TASK") else {
        return;
    };
    let size = std::env::var("LINEAR_SIZE").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    measured(&mut || runtime.block_on(run(&task, size)));
}

#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}

async fn run(task: &str, size: usize) {
    let offers = match task {
        "one_recipient_at_a_time" | "a_session_that_ends_in_between" => "250-LIMITS RCPTMAX=1\r\n",
        "parts_in_a_row_of_messages" => "250-CHUNKING\r\n250-LIMITS RCPTMAX=1\r\n",
        "one_domain_at_a_time" => "250-LIMITS RCPTDOMAINMAX=1\r\n",
        "single_steps" => "250-LIMITS RCPTDOMAINMAX=1000000\r\n",
        "reports_for_each" => "250-DSN\r\n",
        "messages_in_flight_in_two_parts" => "250-CHUNKING\r\n250-LIMITS RCPTMAX=1\r\n",
        _ if task.starts_with("messages_in_flight") => "250-CHUNKING\r\n",
        _ => "",
    };
    let server = Server {
        offers: format!("250-mail.example.org\r\n{offers}250 PIPELINING\r\n"),
        refuses: matches!(task, "all_refused" | "messages_in_flight_that_are_refused"),
        replies_from: if task.starts_with("messages_in_flight") {
            size
        } else {
            0
        },
        replies: task != "messages_in_flight_that_are_lost",
        most: if task == "too_many_for_one_transaction" {
            10
        } else {
            usize::MAX
        },
        ends_after: if task == "a_session_that_ends_in_between" {
            size / 2
        } else {
            usize::MAX
        },
        is_lmtp: task == "verdicts_for_each",
    };
    let (client, stream) = duplex(64 * 1024);
    tokio::spawn(server.serve(stream));
    let new = if task == "verdicts_for_each" {
        Endpoint::lmtp
    } else {
        Endpoint::new
    };
    // In valgrind, a machine under load takes minutes.
    let never = Duration::from_secs(24 * 60 * 60);
    let endpoint = new("mail.example.org")
        .security(Security::None)
        .timeouts(Timeouts::uniform(never))
        .check_after_idle(never)
        .send_window(size);
    let mut connection = Connection::from_stream(client, &endpoint).await.unwrap();

    let recipients: Vec<Address> = (0..size)
        .map(|n| Address::new(format!("user@n{n}.example.com")).unwrap())
        .collect();
    let mut delivery = DeliveryOptions::new();
    if task == "reports_for_each" {
        for recipient in &recipients {
            delivery = delivery.notify_for(recipient.clone(), Notify::SUCCESS);
        }
    }
    if task == "single_steps" {
        connection.mail(None).await.unwrap();
        for recipient in recipients {
            assert!(connection.rcpt(recipient).await.unwrap().is_positive());
        }
        let mut writer = connection.data().await.unwrap();
        writer.write("Subject: x\r\n\r\n").await.unwrap();
        writer.finish().await.unwrap();
        return;
    }
    if task.starts_with("messages_in_flight") {
        let parts = if task.ends_with("two_parts") { 2 } else { 1 };
        return many_in_flight(&mut connection, &recipients[..parts], size, task).await;
    }
    let envelope = Envelope::new(None, recipients).unwrap();
    let mail = MessageBuilder::new()
        .from("me@example.org")
        .to("you@example.com")
        .text_body("Hello.");
    let message = Message::from(mail).envelope(envelope).delivery(delivery);
    let result = match task {
        "parts_in_a_row_of_messages" => {
            let outcomes: Vec<_> = connection.send_all(stream::iter([message])).collect().await;
            outcomes.into_iter().next().unwrap()
        }
        _ => connection.send(message).await,
    };
    match task {
        "all_refused" => assert!(result.is_err()),
        "a_session_that_ends_in_between" => assert!(!result.unwrap().all_accepted()),
        _ => assert!(result.unwrap().all_accepted()),
    }
}

/// Sends as many messages as the window has, which are in flight together.
async fn many_in_flight(connection: &mut Connection, to: &[Address], size: usize, task: &str) {
    let envelope = Envelope::new(None, to.to_vec()).unwrap();
    let message = || Message::raw("Subject: x\r\n\r\nHello.\r\n").envelope(envelope.clone());
    let messages = stream::iter((0..size).map(|_| message()));
    let outcomes: Vec<_> = connection.send_all(messages).collect().await;
    assert_eq!(outcomes.len(), size);
    for outcome in outcomes {
        match task {
            "messages_in_flight_that_are_lost" => assert!(outcome.unwrap_err().outcome_unknown()),
            "messages_in_flight_that_are_refused" => assert!(outcome.unwrap_err().is_permanent()),
            _ => assert!(outcome.unwrap().all_accepted()),
        }
    }
}

struct Server {
    offers: String,
    refuses: bool,
    /// The number of messages after which it replies; it holds the replies before.
    replies_from: usize,
    /// Whether it replies then, or closes.
    replies: bool,
    /// So many recipients in a transaction.
    most: usize,
    /// So many messages in a session.
    ends_after: usize,
    is_lmtp: bool,
}

impl Server {
    async fn serve(self, mut stream: DuplexStream) {
        stream.write_all(b"220 mail.example.org\r\n").await.unwrap();
        let (mut buffer, mut input) = (vec![0; 64 * 1024], Vec::new());
        let (mut accepted, mut messages, mut in_data) = (0, 0, false);
        let (mut answers, mut in_session) = (String::new(), false);
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(n) => input.extend_from_slice(&buffer[..n]),
            }
            let mut at = 0;
            while let Some(end) = memchr::memchr(b'\n', &input[at..]) {
                let line = &input[at..=at + end];
                let size = match line.strip_prefix(b"BDAT ") {
                    Some(rest) => std::str::from_utf8(rest)
                        .unwrap()
                        .split(' ')
                        .next()
                        .unwrap()
                        .trim()
                        .parse()
                        .unwrap(),
                    None => 0,
                };
                if input.len() < at + end + 1 + size {
                    break;
                }
                let is_message = size > 0 || in_data && line == b".\r\n";
                if is_message {
                    in_data = false;
                    messages += 1;
                    let times = if self.is_lmtp { accepted } else { 1 };
                    (0..times).for_each(|_| answers += "250 2.0.0 Ok\r\n");
                    accepted = 0;
                } else if in_data {
                } else if line.starts_with(b"EHLO") || line.starts_with(b"LHLO") {
                    answers += &self.offers;
                    in_session = false;
                } else if line.starts_with(b"MAIL") && messages >= self.ends_after {
                    answers += "421 4.3.2 Bye\r\n";
                    stream.write_all(answers.as_bytes()).await.unwrap();
                    return;
                } else if line.starts_with(b"RCPT") && (self.refuses || accepted >= self.most) {
                    answers += if self.refuses {
                        "550 5.1.1 No\r\n"
                    } else {
                        "452 4.5.3 Too many\r\n"
                    };
                    in_session = true;
                } else if line == b"DATA\r\n" {
                    in_data = accepted > 0;
                    answers += if in_data {
                        "354 Go\r\n"
                    } else {
                        "503 5.5.1 No\r\n"
                    };
                } else {
                    accepted = if line.starts_with(b"MAIL") {
                        0
                    } else {
                        accepted
                    };
                    accepted += usize::from(line.starts_with(b"RCPT"));
                    in_session = true;
                    answers += "250 2.1.0 Ok\r\n";
                }
                at += end + 1 + size;
            }
            input.drain(..at);
            if in_session && messages < self.replies_from {
                continue;
            }
            if in_session && !self.replies || stream.write_all(answers.as_bytes()).await.is_err() {
                return;
            }
            answers.clear();
        }
    }
}
