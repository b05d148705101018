//! A program that is killed while it sends: the server keeps the message only if it was complete.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::future::pending;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use envoi::testing::{Builder, Fault, Server, Step};
use envoi::{Client, Journal, JournalState, Message};
use futures::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use support::{hello_to, program};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Runs a program.
fn start(name: &str, arguments: &[&str]) -> Child {
    Command::new(program::path(name))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Kills the program once something has happened, and waits until the server has noticed that.
async fn kill(mut child: Child, server: &Server, happened: impl Fn() -> bool) {
    let ended = async {
        while !happened() {
            tokio::task::yield_now().await;
        }
        child.start_kill().unwrap();
        let status = child.wait().await.unwrap();
        while server.connections().iter().any(|session| session.is_open) {
            tokio::task::yield_now().await;
        }
        status
    };
    let status = timeout(Duration::from_secs(60), ended).await.unwrap();
    assert_eq!(status.signal(), Some(9));
}

fn has_command(server: &Server, command: &str) -> bool {
    let sessions = server.connections();
    let mut lines = sessions.iter().flat_map(|session| session.commands());
    lines.any(|line| line.starts_with(command))
}

#[tokio::test]
async fn a_killed_program_sends_no_part_of_a_message() {
    for (step, command, kept) in [
        (Step::Hello, "EHLO", 0),
        (Step::Rcpt, "RCPT", 0),
        (Step::Body(0), "DATA", 0),
        (Step::Accepted, "DATA", 1),
    ] {
        let builder = Server::builder().plaintext().without("PIPELINING");
        let server = builder.fault(Fault::hang(step)).start().await.unwrap();
        let url = server.url();
        let arguments = "--from me@example.org --to you@example.com --subject a --body b --url";
        let mut arguments: Vec<&str> = arguments.split(' ').collect();
        arguments.push(&url);
        let child = start("send", &arguments);
        kill(child, &server, || {
            has_command(&server, command) && server.messages().len() == kept
        })
        .await;
        assert_eq!(server.messages().len(), kept, "{step}");
    }
}

/// Whether all threads of a process wait for something else than the processor, and none of them
/// ran between two looks at it.
#[cfg(target_os = "linux")]
fn is_waiting(id: u32) -> bool {
    let look = || -> io::Result<Vec<String>> {
        let tasks = fs::read_dir(format!("/proc/{id}/task"))?;
        let statuses = tasks.map(|task| fs::read_to_string(task?.path().join("status")));
        let statuses = statuses.collect::<io::Result<Vec<_>>>()?;
        let runs = |line: &&str| line.starts_with("State:") || line.contains("ctxt_switches:");
        let words = |status: String| status.lines().filter(runs).collect();
        Ok(statuses.into_iter().map(words).collect())
    };
    let (first, second) = (look().unwrap(), look().unwrap());
    first == second && first.iter().all(|status| status.contains("(sleeping)"))
}

/// Other systems do not tell.
#[cfg(not(target_os = "linux"))]
fn is_waiting(_: u32) -> bool {
    true
}

type Offers = fn(Builder) -> Builder;

/// The ways in which a message goes, by what the server offers.
const FRAMINGS: [(&str, Offers); 3] = [
    ("DATA", |server| server.without("PIPELINING")),
    ("BDAT", |server| {
        server.without("PIPELINING").offer("CHUNKING")
    }),
    ("one flight", |server| server.offer("CHUNKING")),
];

/// Whatever the step at which the program is killed: without a record of the hand-over the server
/// does not have the message, and with one, the journal says that it may have it.
#[tokio::test]
async fn the_journal_of_a_killed_program_agrees_with_the_server() {
    for (framing, offers) in FRAMINGS {
        // In one flight, the hand-over does not wait for the replies to MAIL and RCPT.
        let in_flight = framing == "one flight";
        let chunks = framing != "DATA";
        for (step, command, is_handed_over) in [
            (Step::Greeting, "", false),
            (Step::Hello, "EHLO", false),
            (Step::Mail, "MAIL", in_flight),
            (Step::Rcpt, "RCPT", in_flight),
            (Step::Data, if chunks { "BDAT" } else { "DATA" }, chunks),
            (Step::Body(0), "", true),
            (Step::Message, "", true),
            (Step::Accepted, "", true),
        ] {
            let kept = usize::from(step == Step::Accepted);
            let folder = tempfile::tempdir().unwrap();
            let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
            std::fs::write(file("recipients.csv"), "email\nyou@example.com\n").unwrap();
            let template = "From: me@example.org\r\nTo: {{email}}\r\n\r\nHello.\r\n";
            std::fs::write(file("template.eml"), template).unwrap();
            let server = offers(Server::builder().plaintext()).fault(Fault::hang(step));
            let server = server.start().await.unwrap();
            let journal = file("journal");
            let child = start(
                "bulk",
                &[
                    "--url",
                    &server.url(),
                    "--recipients",
                    &file("recipients.csv"),
                    "--template",
                    &file("template.eml"),
                    "--journal",
                    &journal,
                ],
            );
            let id = child.id().unwrap();
            kill(child, &server, || {
                let text = std::fs::read_to_string(&journal).unwrap_or_default();
                let has_arrived = match command {
                    "" => !server.connections().is_empty(),
                    _ => has_command(&server, command),
                };
                // Without a record, the program has done all that it does.
                let has_ended = match is_handed_over {
                    true => text.contains("handing-over"),
                    false => has_arrived && is_waiting(id),
                };
                has_arrived && server.messages().len() == kept && has_ended
            })
            .await;
            assert_eq!(server.messages().len(), kept, "{framing}, {step}");
            let journal = Journal::open(&journal).await.unwrap();
            let states: Vec<_> = journal.to_vec().iter().map(|entry| entry.state).collect();
            let expected: &[_] = match is_handed_over {
                true => &[JournalState::InDoubt],
                false => &[],
            };
            assert_eq!(states, expected, "{framing}, {step}");
        }
    }
}

/// The environment variable that makes a program of this test.
const PROGRAM: &str = "ENVOI_TEST_KILLED";

/// The program that is killed in the tests below, which start it in a process of its own: it sends
/// messages in a window, and writes each hand-over and each outcome into a file.
#[tokio::test]
async fn program_with_callbacks() {
    let Ok(settings) = std::env::var(PROGRAM) else {
        return;
    };
    let settings: Value = serde_json::from_str(&settings).unwrap();
    let text = |name: &str| settings[name].as_str().unwrap().to_owned();
    let mut options = File::options();
    options.append(true).create(true);
    let file = Arc::new(options.open(text("file")).unwrap());
    let record = move |line: String| (&*file).write_all(format!("{line}\n").as_bytes());
    // The line after which nothing happens until the process is killed.
    let stops_after = text("stops_after");
    let messages = (0..settings["messages"].as_u64().unwrap()).map(|index| {
        let (record, stops_after) = (record.clone(), stops_after.clone());
        let to = format!("{index}@example.com");
        Message::from(hello_to(&[&to])).on_handover(move |_| {
            let (record, stops_after) = (record.clone(), stops_after.clone());
            async move {
                for line in [format!("called {index}"), format!("handed over {index}")] {
                    record(line.clone())?;
                    if line == stops_after {
                        pending::<()>().await;
                    }
                }
                Ok::<_, io::Error>(())
            }
        })
    });
    let client = Client::from_url(&text("url")).unwrap();
    let mut connection = client.connect().await.unwrap();
    let mut outcomes = pin!(connection.send_all(stream::iter(messages)).enumerate());
    while let Some((index, outcome)) = outcomes.next().await {
        let line = format!("sent {index}");
        assert!(outcome.unwrap().all_accepted());
        record(line.clone()).unwrap();
        if line == stops_after {
            break;
        }
    }
    pending::<()>().await;
}

/// The file of [`program_with_callbacks`].
struct Records {
    folder: TempDir,
}

impl Records {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Records { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("records")
    }

    fn start(&self, server: &Server, messages: usize, stops_after: &str) -> Child {
        let settings = json!({
            "url": server.url(),
            "file": self.path(),
            "messages": messages,
            "stops_after": stops_after,
        });
        let module = module_path!().split_once("::").unwrap().1;
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::program_with_callbacks")])
            .env(PROGRAM, settings.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// The numbers of the messages with this line.
    fn numbers(&self, line: &str) -> BTreeSet<usize> {
        let text = fs::read_to_string(self.path()).unwrap_or_default();
        let numbers = text.lines().filter_map(|found| {
            let number = found.strip_prefix(line)?.strip_prefix(' ')?;
            Some(number.parse().unwrap())
        });
        numbers.collect()
    }

    /// Checks that the file and the server agree, and returns the messages that the server has.
    fn check(&self, server: &Server, case: &str) -> BTreeSet<usize> {
        let messages = server.messages();
        let number = |to: &str| to.strip_suffix("@example.com").unwrap().parse().unwrap();
        let received: BTreeSet<usize> = messages
            .iter()
            .map(|message| number(&message.recipients[0]))
            .collect();
        assert_eq!(received.len(), messages.len(), "{case}: one came twice");
        let handed_over = self.numbers("handed over");
        assert!(
            received.is_subset(&handed_over),
            "{case}: received without a record: {received:?}, {handed_over:?}"
        );
        let sent = self.numbers("sent");
        assert!(
            sent.is_subset(&received),
            "{case}: recorded as sent, and not received: {sent:?}, {received:?}"
        );
        received
    }
}

/// In the callback, before or after its record, and after the final reply.
#[tokio::test]
async fn the_records_of_a_program_that_is_killed_in_its_callback_agree_with_the_server() {
    for (framing, offers) in FRAMINGS {
        for (stops_after, handed_over, kept) in [
            ("called 0", 0, 0),
            ("handed over 0", 1, 0),
            ("sent 0", 1, 1),
        ] {
            let case = format!("{framing}, {stops_after}");
            let server = offers(Server::builder().plaintext()).start().await.unwrap();
            let records = Records::new();
            let child = records.start(&server, 1, stops_after);
            let (line, _) = stops_after.rsplit_once(' ').unwrap();
            kill(child, &server, || !records.numbers(line).is_empty()).await;
            assert_eq!(records.check(&server, &case).len(), kept, "{case}");
            let recorded = records.numbers("handed over").len();
            assert_eq!(recorded, handed_over, "{case}");
        }
    }
}

/// Several messages are in flight, and the fourth one has come to this point.
#[tokio::test]
async fn the_records_of_a_killed_window_agree_with_the_server() {
    let fourth = "3@example.com";
    for (framing, offers) in FRAMINGS {
        for (step, stops_after, kept) in [
            (Some(Step::Rcpt), "", 3),
            (Some(Step::Body(0)), "", 3),
            (Some(Step::Message), "", 3),
            (Some(Step::Accepted), "", 4),
            (None, "called 3", 3),
            (None, "handed over 3", 3),
            (None, "sent 3", 4),
        ] {
            let case = format!("{framing}, {step:?}, {stops_after}");
            let mut server = offers(Server::builder().plaintext());
            if let Some(step) = step {
                server = server.fault(Fault::hang(step).matching(fourth));
            }
            let server = server.start().await.unwrap();
            let records = Records::new();
            let child = records.start(&server, 6, stops_after);
            kill(child, &server, || {
                let has_come = match (step, stops_after.rsplit_once(' ')) {
                    (Some(_), _) => has_command(&server, &format!("RCPT TO:<{fourth}>")),
                    (None, line) => records.numbers(line.unwrap().0).contains(&3),
                };
                has_come && records.numbers("sent").len() >= 3 && server.messages().len() >= kept
            })
            .await;
            let mut received = records.check(&server, &case);
            if stops_after == "sent 3" {
                // Others may have followed.
                received.retain(|number| *number < kept);
            }
            let expected: BTreeSet<usize> = (0..kept).collect();
            assert_eq!(received, expected, "{case}");
        }
    }
}

/// At any moment.
#[tokio::test]
async fn the_records_agree_with_the_server_whenever_the_program_is_killed() {
    for (framing, offers) in FRAMINGS {
        for received in [1, 40, 90, 160] {
            let server = offers(Server::builder().plaintext()).start().await.unwrap();
            let records = Records::new();
            let child = records.start(&server, 200, "");
            kill(child, &server, || server.messages().len() >= received).await;
            let case = format!("{framing}, {received}");
            assert!(records.check(&server, &case).len() >= received, "{case}");
        }
    }
}
