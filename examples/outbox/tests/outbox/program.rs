//! Runs the program.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::stores::TestStore;

/// A command of the program on a store.
pub fn outbox(store: &TestStore, command: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_outbox"));
    program.arg(command).args(["--store", &store.url()]);
    program.stdin(Stdio::null());
    program
}

/// Writes a small message.
pub fn message(store: &TestStore) -> PathBuf {
    let path = store.folder().join("message.eml");
    let text = "From: a@example.org\r\nSubject: Test\r\n\r\nHello.\r\n";
    std::fs::write(&path, text).unwrap();
    path
}

/// Adds a message to these recipients, and returns its id.
pub fn add(store: &TestStore, to: &[&str], more: &[&str]) -> String {
    let path = message(store);
    let output = outbox(store, "add")
        .args(["--from", "a@example.org", "--message"])
        .arg(path)
        .arg("--to")
        .args(to)
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output).trim().to_owned()
}

/// Starts a worker.
pub fn start(store: &TestStore, url: &str, options: &[&str]) -> Child {
    let mut command = outbox(store, "run");
    command.args(["--url", url]).args(options);
    // It prints nothing there. One that a failed test leaves must not keep that of the tests open.
    command.stdout(Stdio::null());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs a worker until its end.
pub fn run(store: &TestStore, url: &str, options: &[&str]) -> Output {
    start(store, url, options).wait_with_output().unwrap()
}

/// The jobs of a state.
pub fn list(store: &TestStore, state: &str) -> Vec<Value> {
    let output = outbox(store, "list")
        .args(["--json", "--state", state])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The number of jobs in each state.
pub fn status(store: &TestStore) -> Value {
    let output = outbox(store, "status").arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until a condition holds, for a minute at most.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
