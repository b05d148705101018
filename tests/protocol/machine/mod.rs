//! What a caller may ask of the machine, and what it is told: the calls one by one, where
//! `tests/dialogues` has conversations.

mod ends;
mod handshake;
mod logins;
mod messages;
mod misuse;
mod units;

use envoi::proto::{ClientName, Machine, Settings, Step, Transaction};
use envoi::{Envelope, Error};
use support::address;

/// A machine and what it said.
#[derive(Debug)]
struct Client {
    machine: Machine,
    wire: String,
}

impl Client {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::new(ClientName::new("me").unwrap());
        change(&mut settings);
        Client {
            machine: Machine::new(settings),
            wire: String::new(),
        }
    }

    /// Greeted, and offered these.
    fn ready(offers: &[&str]) -> Self {
        Client::ready_with(offers, |_| {})
    }

    fn ready_with(offers: &[&str], change: impl FnOnce(&mut Settings)) -> Self {
        let mut client = Client::new(change);
        client.feed("220 mail.example.org hello\r\n").unwrap();
        let lines: String = offers
            .iter()
            .map(|offer| format!("250-{offer}\r\n"))
            .collect();
        client
            .feed(&format!("250-mail.example.org\r\n{lines}250 HELP\r\n"))
            .unwrap();
        assert_eq!(client.steps().unwrap(), [Step::Ready]);
        client
    }

    /// All steps up to one that wants something, which is the last.
    fn steps(&mut self) -> Result<Vec<Step>, Error> {
        let mut steps = Vec::new();
        loop {
            let step = self.machine.step()?;
            while !self.machine.output().is_empty() {
                let front = self.machine.output().front();
                self.wire.push_str(&String::from_utf8_lossy(front));
                self.machine.wrote(front.len());
            }
            let waits = matches!(
                step,
                Step::Wait { .. } | Step::Upgrade | Step::Ready | Step::Body { .. } | Step::Closed
            );
            steps.push(step);
            if waits {
                return Ok(steps);
            }
        }
    }

    /// A message as far as 354.
    fn go_ahead(&mut self) {
        self.machine.begin(transaction()).unwrap();
        for reply in ["250 Ok\r\n", "250 Ok\r\n", "354 Go\r\n"] {
            self.feed(reply).unwrap();
        }
    }

    /// A message of three bytes, which goes with its commands.
    fn give_a_chunk(&mut self) {
        let mut transaction = transaction();
        transaction.size = Some(3);
        self.machine.begin(transaction).unwrap();
        self.steps().unwrap();
        self.machine.body("x\r\n").unwrap();
        self.machine.finish().unwrap();
    }

    fn feed(&mut self, bytes: &str) -> Result<Vec<Step>, Error> {
        self.steps()?;
        self.read(bytes.as_bytes());
        self.steps()
    }

    /// Passes bytes to the machine without asking for the next step.
    fn read(&mut self, bytes: &[u8]) {
        assert_eq!(self.machine.input(bytes), bytes.len());
    }

    /// The server says no more: the error, which is the end.
    fn end(&mut self) -> Error {
        self.steps().unwrap();
        self.machine.input_ended();
        let error = self.steps().unwrap_err();
        assert_eq!(self.machine.step().unwrap(), Step::Closed);
        error
    }
}

fn transaction() -> Transaction {
    Transaction::new(
        &Envelope::new(address("me@example.org"), [address("you@example.com")]).unwrap(),
    )
}
