//! A program that is killed while it sends: the server keeps the message only if it was complete.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use envoi::testing::{Builder, Fault, Server, Step};
use envoi::{Journal, JournalState};
use support::program;
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

/// Whatever the step at which the program is killed: without a record of the hand-over the server
/// does not have the message, and with one, the journal says that it may have it.
#[tokio::test]
async fn the_journal_of_a_killed_program_agrees_with_the_server() {
    type Offers = fn(Builder) -> Builder;
    let framings: [(&str, Offers); 3] = [
        ("DATA", |server| server.without("PIPELINING")),
        ("BDAT", |server| {
            server.without("PIPELINING").offer("CHUNKING")
        }),
        ("one flight", |server| server.offer("CHUNKING")),
    ];
    for (framing, offers) in framings {
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
            kill(child, &server, || {
                let text = std::fs::read_to_string(&journal).unwrap_or_default();
                let has_arrived = match command {
                    "" => !server.connections().is_empty(),
                    _ => has_command(&server, command),
                };
                has_arrived
                    && server.messages().len() == kept
                    && text.contains("handing-over") == is_handed_over
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
