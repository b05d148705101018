//! Fuzzes a server: the machine produces the bytes of a correct client, and the fuzzer changes some
//! before they are sent.
//!
//! Sessions that are well-formed up to a certain byte reach states of a server that random bytes
//! do not. The number of a session is the seed of all changes, so that sessions can be repeated.
//! Session 0 changes nothing, and checks that the server accepts the message.
//!
//! ```text
//! cargo run --example fuzz_server -- localhost:2525 alice@example.org bob@example.com 1000
//! ```
//!
//! Use it on your own server, built with a sanitizer, and watch the server: it shows more than the
//! client can see.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use envoi::proto::{ClientName, Event, Machine, Settings, Step, Transaction};
use envoi::{Address, Envelope, ErrorKind};

/// After this silence, the server hangs or waits for more input.
const SILENCE: Duration = Duration::from_millis(500);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, from, to, sessions] = &arguments[..] else {
        return Err("usage: fuzz_server HOST:PORT FROM TO SESSIONS".into());
    };
    let envelope = Envelope::new(Address::new(from)?, [Address::new(to)?])?;
    for seed in 0..sessions.parse()? {
        // If the server cannot be reached any more, the previous session is the cause.
        let stream = TcpStream::connect(server)
            .map_err(|error| format!("before session {seed}: {error}"))?;
        let seen = session(stream, &envelope, seed)?;
        println!("{seed}: {seen}");
        if seed == 0 && !matches!(seen, Seen::Sent) {
            return Err("the server does not take the message as it should be".into());
        }
    }
    Ok(())
}

/// The result of a session. None of them is wrong in itself: servers may treat malformed input as
/// they like. Compare many sessions with the server's log: a message that was *sent* must have
/// arrived once and unchanged.
#[derive(Debug)]
pub enum Seen {
    /// The server accepted the message.
    Sent,
    /// The server refused with this reply.
    Refused(String),
    /// The server closed the connection.
    Closed,
    /// The server sent nothing for a while.
    Silent,
    /// The server sent an invalid or unexpected reply.
    OutOfStep(String),
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Seen::Sent => write!(f, "sent"),
            Seen::Refused(reply) => write!(f, "refused: {reply}"),
            Seen::Closed => write!(f, "closed by the server"),
            Seen::Silent => write!(f, "the server waits, or hangs"),
            Seen::OutOfStep(how) => write!(f, "out of step: {how}"),
        }
    }
}

/// Sends one message with the changes of the seed.
pub fn session(mut stream: TcpStream, envelope: &Envelope, seed: u64) -> std::io::Result<Seen> {
    stream.set_read_timeout(Some(SILENCE))?;
    let mut machine = Machine::new(Settings::new(ClientName::literal(
        stream.local_addr()?.ip(),
    )));
    let mut changes = Changes::new(seed);
    let mut message = Some("Subject: fuzz\r\n\r\nA line.\r\n.A dot.\r\n");
    let mut begun = false;
    loop {
        match machine.step() {
            Ok(Step::Wait { .. }) => {
                let mut bytes = Vec::new();
                while !machine.output().is_empty() {
                    let front = machine.output().front().len();
                    bytes.extend_from_slice(machine.output().front());
                    // The machine continues as if its own bytes had been sent.
                    machine.wrote(front);
                }
                if stream.write_all(&changes.apply(bytes)).is_err() {
                    return Ok(Seen::Closed);
                }
                let mut buffer = [0; 4096];
                match stream.read(&mut buffer) {
                    Ok(0) => machine.input_ended(),
                    Ok(n) if machine.input(&buffer[..n]) == n => {}
                    Ok(_) => {
                        return Ok(Seen::OutOfStep("more input than the machine reads".into()));
                    }
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                        ) =>
                    {
                        return Ok(Seen::Silent);
                    }
                    Err(_) => return Ok(Seen::Closed),
                }
            }
            Ok(Step::Ready) if !begun => {
                begun = true;
                machine
                    .begin(Transaction::new(envelope))
                    .expect("no transaction is open");
            }
            Ok(Step::Body { .. }) => match message.take() {
                Some(text) => machine.body(text).expect("a message was asked for"),
                None => machine.finish().expect("a message was asked for"),
            },
            Ok(Step::Event(Event::Accepted { .. })) => return Ok(Seen::Sent),
            Ok(Step::Event(Event::Rejected { reply, .. })) => {
                return Ok(Seen::Refused(reply.to_string()));
            }
            Ok(Step::Closed) => return Ok(Seen::Closed),
            Ok(_) => {}
            Err(error) => {
                return Ok(match envoi::Error::from(error) {
                    error if error.kind() == ErrorKind::Closed => Seen::Closed,
                    error => Seen::OutOfStep(error.message().to_owned()),
                });
            }
        }
    }
}

/// The changes, generated from a seed (SplitMix64).
struct Changes {
    state: u64,
    /// The number of remaining changes.
    left: u64,
}

/// Sequences that have caused defects in servers.
const PIECES: [&[u8]; 12] = [
    b"\r\n.\r\n",
    b"\n.\n",
    b"\r.\r",
    b"\n.\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"RSET\r\n",
    b"MAIL FROM:<>\r\n",
    b"BDAT 4294967295 LAST\r\n",
    b"\xFF\xF4\xFF\xFD\x06",
];

impl Changes {
    fn new(seed: u64) -> Self {
        let mut changes = Changes {
            state: seed,
            left: 0,
        };
        changes.left = if seed == 0 { 0 } else { 1 + changes.below(3) };
        changes
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31) % limit
    }

    /// Changes about one of three groups, so that the others bring the server into a state first.
    fn apply(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        if bytes.is_empty() || self.left == 0 || self.below(3) > 0 {
            return bytes;
        }
        self.left -= 1;
        let at = self.below(bytes.len() as u64) as usize;
        let end = (at + 1 + self.below(16) as usize).min(bytes.len());
        match self.below(6) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.truncate(at),
            3 => {
                let copy = bytes[at..end].repeat(1 + self.below(2000) as usize);
                bytes.splice(at..at, copy);
            }
            4 => {
                let line = bytes[..end].to_vec();
                bytes.extend(line);
            }
            _ => {
                let piece = PIECES[self.below(PIECES.len() as u64) as usize];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
        bytes
    }
}
