//! An SMTP session on a blocking socket of the standard library, without tokio, async and TLS.
//!
//! The machine in [`envoi::proto`] performs no I/O. [`Session`] below does: it writes the output of
//! the machine, reads while the machine waits, and keeps the time.
//!
//! ```text
//! cargo run --example machine -- localhost:25 alice@example.org bob@example.com
//! ```

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use envoi::proto::{AbortReason, ClientName, Event, Machine, Settings, Step, Transaction};
use envoi::{Address, Envelope, Phase};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, from, to @ ..] = &arguments[..] else {
        return Err("usage: machine HOST:PORT FROM TO…".into());
    };
    let to: Vec<Address> = to.iter().map(Address::new).collect::<Result<_, _>>()?;
    let envelope = Envelope::new(Address::new(from)?, to)?;
    let message = format!("From: <{from}>\nSubject: Hello\n\nHello.\n.. from a blocking socket\n");

    let mut session = Session::new(TcpStream::connect(server)?)?;
    let steps = session.send(&envelope, message);
    session.quit();
    for step in steps? {
        match step {
            Step::Event(Event::Recipient { index, reply })
            | Step::Event(Event::RecipientResult { index, reply }) => {
                println!("{}: {reply}", envelope.recipients()[index]);
            }
            Step::Event(Event::Accepted { reply }) => println!("sent: {reply}"),
            Step::Event(Event::Rejected { phase, reply }) => {
                println!("not sent, refused at {phase}: {reply}")
            }
            _ => {}
        }
    }
    Ok(())
}

/// The limit of a reply, long enough for the slowest phase (RFC 5321, 4.5.3.2).
const PATIENCE: Duration = Duration::from_secs(600);

/// The machine, its socket and its clock.
#[derive(Debug)]
pub struct Session {
    machine: Machine,
    stream: TcpStream,
    /// Nothing more can be written. Replies from before the server closed can still be read.
    broken: bool,
}

impl Session {
    /// Creates a session on a socket that was just connected.
    pub fn new(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let name = ClientName::literal(stream.local_addr()?.ip());
        Ok(Session {
            machine: Machine::new(Settings::new(name)),
            stream,
            broken: false,
        })
    }

    /// Sends a message, and returns the results; [`Event::Accepted`] or [`Event::Rejected`] is the
    /// last one.
    pub fn send(&mut self, envelope: &Envelope, message: String) -> envoi::Result<Vec<Step>> {
        while self.next()? != Step::Ready {}
        self.machine.begin(Transaction::new(envelope))?;
        let (mut message, mut steps) = (Some(message), Vec::new());
        loop {
            match self.next()? {
                // Pieces of any size; here there is only one.
                Step::Body { .. } => match message.take() {
                    Some(text) => self.machine.body(text.into_bytes())?,
                    None => self.machine.finish()?,
                },
                step => {
                    let last = matches!(
                        step,
                        Step::Event(Event::Accepted { .. })
                            | Step::Event(Event::Rejected { .. })
                            | Step::Closed
                    );
                    steps.push(step);
                    if last {
                        return Ok(steps);
                    }
                }
            }
        }
    }

    /// Ends the session with QUIT if its state permits, also after a refusal. The outcome changes
    /// nothing.
    pub fn quit(mut self) {
        if self.machine.quit().is_ok() {
            while self.next().is_ok_and(|step| step != Step::Closed) {}
        }
    }

    /// Performs I/O until the machine returns a step other than `Wait`.
    fn next(&mut self) -> envoi::Result<Step> {
        let mut waiting: Option<(Phase, Instant)> = None;
        loop {
            match self.machine.step()? {
                Step::Wait { phase } => {
                    if self.machine.should_read_first() && self.read_what_is_there() {
                        continue;
                    }
                    self.write();
                    // One limit for a reply as a whole: a byte now and then does not renew it.
                    let since = waiting
                        .filter(|(before, _)| *before == phase)
                        .map_or_else(Instant::now, |(_, at)| at);
                    waiting = Some((phase, since));
                    if let Err(error) = self.read(since + PATIENCE) {
                        // A refusal that was received before comes first.
                        return match self.machine.step()? {
                            Step::Closed => Err(error),
                            step => Ok(step),
                        };
                    }
                }
                step => return Ok(step),
            }
        }
    }

    /// Writes all output before it reads, which is sufficient for messages that fit into the
    /// socket's buffer. For larger messages, a driver must read while it writes: otherwise a server
    /// that replies early and the client wait for each other.
    fn write(&mut self) {
        while !self.broken && !self.machine.output().is_empty() {
            match self.stream.write(self.machine.output().front()) {
                Ok(n) if n > 0 => self.machine.wrote(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => self.broken = true,
            }
        }
    }

    /// Reads input that arrived before the next command is written, without waiting, and returns
    /// whether there was any.
    fn read_what_is_there(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = self
            .stream
            .set_nonblocking(true)
            .and_then(|()| self.stream.read(&mut buffer));
        let blocking = self.stream.set_nonblocking(false);
        match (read, blocking) {
            (Ok(n), Ok(())) if n > 0 => self.machine.input(&buffer[..n]) > 0,
            // The next read finds EOF.
            _ => false,
        }
    }

    fn read(&mut self, deadline: Instant) -> envoi::Result<()> {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        let mut buffer = [0; 4096];
        let read = self
            .stream
            .set_read_timeout(Some(left))
            .and_then(|()| self.stream.read(&mut buffer));
        match read {
            Ok(0) => self.machine.input_ended(),
            Ok(n) => assert_eq!(
                self.machine.input(&buffer[..n]),
                n,
                "a machine that waits has room"
            ),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                let reason = AbortReason::TimedOut("the server did not answer in time".into());
                return Err(self.machine.abort(reason).into());
            }
            Err(error) => {
                let text = format!("the connection failed: {error}");
                let reason = AbortReason::ConnectionFailed(text);
                return Err(self.machine.abort(reason).into());
            }
        }
        Ok(())
    }
}
