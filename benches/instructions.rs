//! Counts the instructions of the hot paths with valgrind, independently of other load.
//!
//! ```text
//! cargo bench --bench instructions               # compares with instructions.txt
//! cargo bench --bench instructions -- --write    # updates instructions.txt
//! ```
//!
//! The comparison fails if a count grew by more than 5 %. `--write` raises a count only if the
//! compiler changed. To accept a higher count, add `instructions of NAME: COUNT` and the reason to
//! CHANGELOG.md; later counts are compared with that one.
//!
//! Counts are comparable only for the same compiler and kind of processor, because memchr and the
//! encoder select their code by the features of the processor. Otherwise nothing is compared, and
//! the last line says so.

use std::fmt::Write as _;
use std::hint::black_box;
use std::process::{Command, ExitCode};

use bytes::{Bytes, BytesMut};
use envoi::mail_builder::MessageBuilder;
use envoi::proto::{
    ClientName, Event, Limits, Machine, Output, ReplyParser, Settings, Step, Stuffer, Transaction,
};
use envoi::tls::Security;
use envoi::{Address, Attachment, Envelope, Message};
use envoi::{Connection, Endpoint};
use futures::StreamExt as _;

#[path = "support/replies.rs"]
mod replies;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
const CHANGELOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/CHANGELOG.md");
const NAMES: [&str; 7] = [
    "replies", "stuffing", "raw", "encoding", "session", "send", "send-all",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["work", name] => work(name),
        ["--write"] => write(),
        [] => return compare(),
        _ => panic!("not known: {words:?}; there is --write"),
    }
    ExitCode::SUCCESS
}

fn write() {
    let (old, kind) = (Baseline::read(), kind());
    let mut text = String::from(
        "# Counted by `cargo bench --bench instructions -- --write`; benches/instructions.rs says \
            more.\n",
    );
    let _ = writeln!(text, "{kind}");
    for name in NAMES {
        let count = count(name);
        let kept = old
            .count(name)
            .filter(|_| old.kind == kind)
            .map_or(count, |old| old.min(count));
        let _ = writeln!(text, "{name} {kept}");
    }
    print!("{text}");
    std::fs::write(BASELINE, text).expect("the baseline is written");
}

fn compare() -> ExitCode {
    let (baseline, kind) = (Baseline::read(), kind());
    let changelog = std::fs::read_to_string(CHANGELOG).expect("the changelog");
    let comparable = baseline.kind == kind;
    let mut grown = Vec::new();
    for name in NAMES {
        let counted = count(name);
        let stored = baseline
            .count(name)
            .unwrap_or_else(|| panic!("{name} is not in {BASELINE}: use --write"));
        let known = stored.max(accepted(&changelog, name).unwrap_or(0));
        let change = 100.0 * (counted as f64 / known as f64 - 1.0);
        println!("{name:10} {counted:12} instructions, {change:+.1} %");
        if comparable && change > 5.0 {
            grown.push(format!(
                "{name} has grown from {known} instructions to {counted}"
            ));
        }
    }
    if !comparable {
        println!(
            "NOT compared: counted with {kind}, and the baseline with {}",
            baseline.kind
        );
    } else if !grown.is_empty() {
        println!(
            "{}.\nTo accept it, add `instructions of NAME: COUNT` and the reason to CHANGELOG.md.",
            grown.join("; ")
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The count that a line of the changelog accepts.
fn accepted(changelog: &str, name: &str) -> Option<u64> {
    let (_, behind) = changelog.split_once(&format!("instructions of {name}: "))?;
    behind
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

struct Baseline {
    kind: String,
    counts: Vec<(String, u64)>,
}

impl Baseline {
    /// Empty if there is no file.
    fn read() -> Self {
        let text = std::fs::read_to_string(BASELINE).unwrap_or_default();
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let kind = lines.next().unwrap_or_default().to_owned();
        let counts = lines.map(|line| {
            let (name, count) = line.split_once(' ').expect("a name and a count");
            (name.to_owned(), count.parse().expect("a count"))
        });
        Baseline {
            kind,
            counts: counts.collect(),
        }
    }

    fn count(&self, name: &str) -> Option<u64> {
        self.counts
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, count)| *count)
    }
}

/// The compiler and the kind of processor, on which the counts depend.
fn kind() -> String {
    let rustc = Command::new("rustc")
        .arg("--version")
        .output()
        .expect("rustc tells its version");
    let rustc = String::from_utf8_lossy(&rustc.stdout).trim().to_owned();
    #[cfg(target_arch = "x86_64")]
    let vectors = if std::arch::is_x86_feature_detected!("avx2") {
        " with AVX2"
    } else {
        ""
    };
    #[cfg(not(target_arch = "x86_64"))]
    let vectors = "";
    format!("{rustc}, {}{vectors}", std::env::consts::ARCH)
}

/// Runs this program under valgrind, and counts the instructions within [`measured`].
fn count(name: &str) -> u64 {
    let program = std::env::current_exe().expect("this program's own path");
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--collect-atstart=no",
        ])
        .arg("--toggle-collect=*measured*")
        .arg(program)
        .args(["work", name])
        .output()
        .expect("valgrind is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
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

#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}

fn work(name: &str) {
    match name {
        "replies" => replies(),
        "stuffing" => stuffing(),
        "raw" => raw(),
        "encoding" => encoding(),
        "session" => session(),
        "send" => small_messages(false),
        "send-all" => small_messages(true),
        name => panic!("nothing is called {name}"),
    }
}

const EHLO: &[u8] = b"250-mail.example.org\r\n250-PIPELINING\r\n250-SIZE \
        52428800\r\n250-ETRN\r\n250-ENHANCEDSTATUSCODES\r\n\
                      250-8BITMIME\r\n250-DSN\r\n250 SMTPUTF8\r\n";

/// Replies of a server, received in one piece.
fn replies() {
    let mut input = BytesMut::new();
    for _ in 0..50 {
        input.extend_from_slice(EHLO);
        input.extend_from_slice(
            b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n",
        );
        input.extend_from_slice(b"250 2.0.0 Ok: queued as 4F2A1C\r\n");
    }
    let mut parser = ReplyParser::new(Limits::default());
    measured(&mut || {
        while let Some(reply) = parser.parse(&mut input).expect("replies") {
            black_box(reply.enhanced());
        }
    });
    assert!(input.is_empty());
}

/// Lines of 75 characters, one in fifty of which begins with a dot.
fn lines(count: usize) -> String {
    let line = |number: usize| {
        format!(
            "{}{number:074}\r\n",
            if number.is_multiple_of(50) { "." } else { "=" }
        )
    };
    (0..count).map(line).collect()
}

/// Text in pieces.
fn stuffing() {
    let text = Bytes::from(lines(4_000));
    let (mut stuffer, mut output) = (Stuffer::new(), Output::default());
    measured(&mut || {
        for start in (0..text.len()).step_by(60_000) {
            stuffer.push(
                text.slice(start..text.len().min(start + 60_000)).into(),
                &mut output,
            );
            while !output.is_empty() {
                output.advance(output.front().len());
            }
        }
    });
    assert_eq!(stuffer.bytes(), text.len() as u64);
}

/// A raw message of 54 KB, checked and stuffed.
fn raw() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let address = |text: &str| Address::new(text).expect("an address");
    let envelope = Envelope::new(address("me@example.org"), [address("you@example.com")])
        .expect("an envelope");
    let text = Bytes::from(format!("Subject: Hello\r\n\r\n{}", lines(700)));
    let (mut stuffer, mut output) = (Stuffer::new(), Output::default());
    measured(&mut || {
        runtime.block_on(async {
            let message = Message::raw(text.clone()).envelope(envelope.clone());
            let prepared = message.prepare().await.expect("the message is in order");
            let mut body = prepared.into_body();
            while let Some(chunk) = body.chunk().await {
                stuffer.push(chunk.expect("memory is read"), &mut output);
                while !output.is_empty() {
                    output.advance(output.front().len());
                }
            }
        });
    });
    assert_eq!(stuffer.bytes(), text.len() as u64);
}

/// An attachment of a thousand lines of base64, as part of a message.
fn encoding() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let data = Bytes::from(vec![0x5a; 57 * 1000]);
    let mut bytes = 0;
    measured(&mut || {
        runtime.block_on(async {
            let mail = MessageBuilder::new()
                .from("me@example.org")
                .to("you@example.com")
                .message_id("1@example.org");
            let attachment =
                Attachment::bytes("data.bin", "application/octet-stream", data.clone());
            let message = Message::from(mail.date(0_u64).text_body("Attached.")).attach(attachment);
            let prepared = message.prepare().await.expect("the message is in order");
            let mut body = prepared.into_body();
            while let Some(chunk) = body.chunk().await {
                bytes += chunk.expect("memory is read").bytes().len();
            }
        });
    });
    assert!(bytes > 78_000);
}

/// A session of the machine with one small message.
fn session() {
    let envelope = Envelope::new(
        Address::new("me@example.org").expect("an address"),
        [Address::new("you@example.com").expect("an address")],
    );
    let envelope = envelope.expect("an envelope");
    let name = ClientName::literal([127, 0, 0, 1].into());
    let replies: [&[u8]; 7] = [
        b"220 mail.example.org ESMTP\r\n",
        EHLO,
        b"250 2.1.0 Ok\r\n",
        b"250 2.1.5 Ok\r\n",
        b"354 Go on\r\n",
        b"250 2.0.0 Ok: queued as 4F2A1C\r\n",
        b"221 2.0.0 Bye\r\n",
    ];
    let message = Bytes::from(format!(
        "Subject: Hello\r\n\r\n{}",
        "A short line of text.\r\n".repeat(40)
    ));
    let mut sent = false;
    measured(&mut || {
        let mut machine = Machine::new(Settings::new(name.clone()));
        let mut replies = replies.iter();
        loop {
            match machine.step().expect("a session without fault") {
                Step::Wait { .. } => {
                    while !machine.output().is_empty() {
                        machine.wrote(machine.output().front().len());
                    }
                    let reply = replies
                        .next()
                        .expect("no more replies than these are waited for");
                    assert_eq!(machine.input(reply), reply.len());
                }
                Step::Ready if sent => machine.quit().expect("it is ready"),
                Step::Ready => machine
                    .begin(Transaction::new(&envelope))
                    .expect("it is ready"),
                Step::Body { .. } => {
                    machine.body(message.clone()).expect("it is asked for");
                    machine.finish().expect("it is asked for");
                }
                Step::Event(Event::Accepted { .. }) => sent = true,
                Step::Closed => break,
                _ => {}
            }
        }
    });
    assert!(sent);
}

/// A hundred small messages over one connection, whose server replies at once. The message is built
/// before.
fn small_messages(as_stream: bool) {
    const COUNT: usize = 100;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let endpoint = Endpoint::new("mail.example.org").security(Security::None);
    let stream = replies::Replies::default();
    let connected = runtime.block_on(Connection::from_stream(stream, &endpoint));
    let mut connection = connected.expect("the server replies");
    let text = format!(
        "Subject: Hello\r\n\r\n{}",
        "A short line of text.\r\n".repeat(40)
    );
    let text = Bytes::from(text);
    let envelope = Envelope::new(
        Address::new("me@example.org").expect("an address"),
        [Address::new("you@example.com").expect("an address")],
    );
    let envelope = envelope.expect("an envelope");
    let mut messages = vec![];
    messages.resize_with(COUNT, || {
        Message::raw(text.clone()).envelope(envelope.clone())
    });
    let mut sent = 0;
    measured(&mut || {
        let messages = std::mem::take(&mut messages);
        runtime.block_on(async {
            if as_stream {
                let mut outcomes =
                    std::pin::pin!(connection.send_all(futures::stream::iter(messages)));
                while let Some(outcome) = outcomes.next().await {
                    sent += usize::from(outcome.expect("it is taken").all_accepted());
                }
            } else {
                for message in messages {
                    let outcome = connection.send(message).await;
                    sent += usize::from(outcome.expect("it is taken").all_accepted());
                }
            }
        });
    });
    assert_eq!(sent, COUNT);
}
