//! A program that is killed while it sends: the server keeps the message only if it was complete.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use envoi::testing::{Fault, Server, Step};
use support::program;
use tokio::process::Command;
use tokio::time::timeout;

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
        let mut child = Command::new(program::path("send"))
            .args(arguments.split(' '))
            .arg(&url)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let ended = async {
            let arrived = || {
                let sessions = server.connections();
                let mut lines = sessions.iter().flat_map(|session| session.commands());
                lines.any(|line| line.starts_with(command)) && server.messages().len() == kept
            };
            while !arrived() {
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
        assert_eq!(status.signal(), Some(9), "{step}");
        assert_eq!(server.messages().len(), kept, "{step}");
    }
}
