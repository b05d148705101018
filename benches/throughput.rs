//! The throughput, CPU time and memory of envoi, beside a bare loop that writes the same bytes from
//! memory to the same sink.
//!
//! ```text
//! cargo bench --bench throughput                        # everything: some minutes
//! cargo bench --bench throughput -- 500 attachment tls  # 500 MB, the rows with these words
//! cargo bench --bench throughput -- 1 --rounds 1        # a quick run
//! ```
//!
//! envoi and the loop take turns, each in a process of its own, so that changes of the machine's
//! speed affect both, and CPU time and peak memory are those of the client alone. The sink is a
//! third process on the same cores. envoi's time is that of its whole work, from creating the
//! runtime to the reply to QUIT; the loop's begins when its bytes are in memory.
//!
//! A signed attachment is compared with the same one unsigned, sent by envoi in the same rounds.
//!
//! A row has the medians, then the ratios of single rounds: of the speed, where 1 is the loop's and
//! the lowest is the worst round, and of the CPU time, where the highest is the worst. On a busy
//! machine both ratios approach 1. They are meaningful only if the loop runs at full speed.

mod support;

use std::path::{Path, PathBuf};

use envoi::dkim::{DkimKey, DkimSigner};
use envoi::mail_builder::MessageBuilder;
use envoi::{Address, Attachment, Client, Envelope, Message};
use futures::StreamExt as _;
use support::bare::Bare;
use support::sink::{Arrived, Sink};
use support::{Arguments, Rounds};

const SIZES: [u64; 4] = [1, 50, 500, 1000];
/// The large messages, and their names. In `raw/N`, one line in N begins with a dot.
const LARGE: [(&str, &str); 5] = [
    ("attachment", "attachment"),
    ("bdat", "attachment by BDAT"),
    ("raw", "raw without dots"),
    ("raw/500", "raw, a dot in 500 lines"),
    ("raw/1", "raw, a dot on each line"),
];
/// An attachment whose message is signed with RSA, 2048 bits.
const SIGNED: &str = "signed";
/// The number of small messages, and the size of their text in bytes.
const COUNT: usize = 5_000;
const TEXT: usize = 1_000;
/// As many as envoi keeps in flight.
const WINDOW: usize = 64;

fn main() {
    let arguments = support::arguments();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["sink", ..] => support::sink::serve(arguments[1..].to_vec()),
        ["envoi", what, url, file] => support::report(|| by_envoi(what, url, file)),
        ["bare", what, port, ca_file, file] => by_a_bare_loop(what, port, ca_file, file),
        _ => suite(&Arguments::parse(&words)),
    }
}

fn suite(arguments: &Arguments) {
    // The first accepts messages by DATA, the second by BDAT.
    let mut sinks = [&[][..], &["CHUNKING"]]
        .map(|more| Sink::start(&[&["PIPELINING", "8BITMIME", "SIZE 0"], more].concat()));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sizes = match &arguments.sizes[..] {
        [] => &SIZES,
        sizes => sizes,
    };
    head("MB/s", "envoi", "bare loop");
    for megabytes in sizes {
        for (what, name) in LARGE {
            let name = format!("{name}, {megabytes} MB");
            if selected(arguments, &name).next().is_none() {
                continue;
            }
            let work = Work::large(what, megabytes * 1_000_000, folder.path());
            for (name, tls) in selected(arguments, &name) {
                let sink = &mut sinks[usize::from(what == "bdat")];
                work.compare(&name, sink, tls, arguments.rounds);
            }
        }
    }
    head("MB/s", "signed", "unsigned");
    for megabytes in sizes {
        let name = format!("attachment, {SIGNED} by DKIM, {megabytes} MB");
        if selected(arguments, &name).next().is_none() {
            continue;
        }
        let work = Work::large(SIGNED, megabytes * 1_000_000, folder.path());
        for (name, tls) in selected(arguments, &name) {
            work.compare(&name, &mut sinks[0], tls, arguments.rounds);
        }
    }
    head("mess./s", "envoi", "bare loop");
    for (what, name) in [("one", "one by one"), ("stream", "as a stream")] {
        let work = Work::small(what, folder.path());
        for (name, tls) in selected(arguments, &format!("{COUNT} of 1 KB {name}")) {
            work.compare(&name, &mut sinks[1], tls, arguments.rounds);
        }
    }
}

fn head(rate: &str, first: &str, second: &str) {
    println!(
        "{:39}{first:^24} {second:^14}  {:^19}  {:^19}",
        "", "speed, to the other", "CPU, to the other"
    );
    println!(
        "{:39}{rate:>8} {:>7} {:>7} {rate:>7} {:>7}  median (range)      median (range)",
        "", "CPU s", "peak MB", "CPU s"
    );
}

/// The rows of a name, in plaintext and over TLS, that the arguments select.
fn selected(arguments: &Arguments, name: &str) -> impl Iterator<Item = (String, bool)> {
    let rows = [("plain", false), ("TLS", true)].map(|(how, tls)| (format!("{name}, {how}"), tls));
    rows.into_iter().filter(|(name, _)| arguments.select(name))
}

/// The task of both.
struct Work {
    what: &'static str,
    /// The input of envoi.
    file: PathBuf,
    /// The output of the loop.
    wire: PathBuf,
    messages: u64,
    /// The size of the messages, as the sink counts it.
    bytes: u64,
}

impl Work {
    fn large(what: &'static str, size: u64, folder: &Path) -> Work {
        let (file, wire) = (folder.join("attachment.bin"), folder.join("wire"));
        match what.split_once('/').unwrap_or((what, "")) {
            ("raw", dots) => support::write_raw(&file, size, dots.parse().ok()),
            _ => support::write_noise(&file, size),
        }
        let bytes = runtime().block_on(write_wire(message(what, &file), &wire));
        Work {
            what,
            file,
            wire,
            messages: 1,
            bytes,
        }
    }

    fn small(what: &'static str, folder: &Path) -> Work {
        let (file, wire) = (folder.join("none"), folder.join("wire"));
        let bytes = runtime().block_on(write_wire(message(what, &file), &wire));
        Work {
            what,
            file,
            wire,
            messages: COUNT as u64,
            bytes: bytes * COUNT as u64,
        }
    }

    /// Each round sends once with envoi, and once with the bare loop or, of a signed message, the
    /// unsigned one.
    fn compare(&self, name: &str, sink: &mut Sink, tls: bool, rounds: usize) {
        let port = sink.port(tls).to_string();
        let ca_file = if tls {
            sink.ca_file.to_string_lossy().into_owned()
        } else {
            "none".into()
        };
        let url = match tls {
            false => format!("smtp://localhost:{port}?tls=none"),
            true => format!("smtps://localhost:{port}?trust={ca_file}"),
        };
        let (file, wire) = (self.file.to_string_lossy(), self.wire.to_string_lossy());
        let rounds = Rounds::measure(rounds, || {
            let envoi = support::run(&["envoi", self.what, &url, &file]);
            self.check(sink.arrived(), tls);
            let other = match self.what {
                SIGNED => support::run(&["envoi", "attachment", &url, &file]),
                what => support::run(&["bare", what, &port, &ca_file, &wire]),
            };
            self.check(sink.arrived(), tls);
            [envoi, other]
        });
        let amount = if self.messages > 1 {
            self.messages as f64
        } else {
            self.bytes as f64 / 1e6
        };
        let rate = rounds.medians(|run| amount / run.seconds);
        let (cpu, peak) = (
            rounds.medians(|run| run.cpu),
            rounds.medians(|run| run.peak),
        );
        println!(
            "{name:39}{:8.0} {:7.3} {:7.1} {:7.0} {:7.3}  {:19}  {}",
            rate[0],
            cpu[0],
            peak[0],
            rate[1],
            cpu[1],
            rounds.speed(),
            rounds.cpu(),
        );
    }

    /// Everything must have arrived, encrypted or not as expected.
    fn check(&self, arrived: Arrived, tls: bool) {
        assert_eq!((arrived.messages, arrived.tls), (self.messages, tls));
        // Message-ID and boundaries are different for each, and their lengths vary by a few bytes;
        // and only one of two messages is signed.
        let varies = if self.what == SIGNED { 1_000 } else { 100 };
        assert!(
            arrived.bytes.abs_diff(self.bytes) < varies * self.messages,
            "{arrived:?}, not {} bytes",
            self.bytes
        );
    }
}

fn message(what: &str, file: &Path) -> Message<'static> {
    let mail = || {
        MessageBuilder::new()
            .from("me@example.org")
            .to("you@example.com")
            .subject("A benchmark")
    };
    let address = |text: &str| Address::new(text).expect("an address");
    match what {
        "attachment" | "bdat" => {
            Message::from(mail().text_body("Attached.")).attach(Attachment::file(file))
        }
        SIGNED => {
            let path = concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/src/dkim/tests/keys/rsa-2048.pem"
            );
            let key = DkimKey::from_file(path).expect("a key");
            let signer = DkimSigner::new("example.org", "2026", key).expect("a signer");
            message("attachment", file).dkim(signer)
        }
        raw if raw.starts_with("raw") => Message::raw_file(file).envelope(
            Envelope::new(address("me@example.org"), [address("you@example.com")])
                .expect("an envelope"),
        ),
        _ => Message::from(mail().text_body("A short line of text.\r\n".repeat(TEXT / 23))),
    }
}

/// Writes a message as it is sent, with stuffed dots; returns its size without them.
async fn write_wire(message: Message<'static>, path: &Path) -> u64 {
    use std::io::Write as _;
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("room for a file"));
    let prepared = message.prepare().await.expect("the message is in order");
    let mut body = prepared.into_body();
    let (mut stuffer, mut output) = (
        envoi::proto::Stuffer::new(),
        envoi::proto::Output::default(),
    );
    let mut ended = false;
    while !ended {
        match body.chunk().await {
            Some(chunk) => stuffer.push(chunk.expect("the file is read"), &mut output),
            None => {
                stuffer.finish(&mut output);
                ended = true;
            }
        }
        while !output.is_empty() {
            let written = output.front().len();
            file.write_all(output.front()).expect("room for a file");
            output.advance(written);
        }
    }
    file.into_inner()
        .expect("room for a file")
        .sync_all()
        .expect("room for a file");
    stuffer.bytes()
}

fn by_envoi(what: &str, url: &str, file: &str) -> u64 {
    let count = if ["one", "stream"].contains(&what) {
        COUNT
    } else {
        1
    };
    runtime().block_on(async {
        let client = Client::from_url(url).expect("the sink's URL");
        let message = || message(what, file.as_ref());
        if count == 1 {
            let receipt = client.send(message()).await.expect("the message is taken");
            assert!(receipt.all_accepted());
            return;
        }
        let mut connection = client.connect().await.expect("the sink is there");
        if what == "one" {
            for _ in 0..COUNT {
                let receipt = connection
                    .send(message())
                    .await
                    .expect("the message is taken");
                assert!(receipt.all_accepted());
            }
        } else {
            let messages = futures::stream::iter((0..COUNT).map(|_| message()));
            let outcomes = connection.send_all(messages);
            outcomes
                .for_each(|outcome| async { assert!(outcome.expect("it is taken").all_accepted()) })
                .await;
        }
        connection.quit().await;
    });
    count as u64
}

fn by_a_bare_loop(what: &str, port: &str, ca_file: &str, wire: &str) {
    let wire = std::fs::read(wire).expect("the bytes of the message");
    let port = port.parse().expect("a port");
    let ca_file = Some(Path::new(ca_file)).filter(|_| ca_file != "none");
    let connect = || Bare::connect(port, ca_file);
    match what {
        what if what == "attachment" || what.starts_with("raw") => support::report(|| {
            connect().message(&wire);
            1
        }),
        _ => {
            // Without the final dot; the text contains no others.
            let content = &wire[..wire.len() - 3];
            let commands = format!(
                "MAIL FROM:<me@example.org>\r\nRCPT TO:<you@example.com>\r\nBDAT {} LAST\r\n",
                content.len()
            );
            let one = [commands.as_bytes(), content].concat();
            if what == "bdat" {
                return support::report(|| {
                    connect().exchange(&one, 3);
                    1
                });
            }
            let at_once = if what == "one" { 1 } else { WINDOW };
            let all = one.repeat(at_once);
            support::report(|| {
                let mut bare = connect();
                for sent in (0..COUNT).step_by(at_once) {
                    let count = at_once.min(COUNT - sent);
                    bare.exchange(&all[..one.len() * count], 3 * count);
                }
                COUNT as u64
            });
        }
    }
}

/// A runtime as `#[tokio::main]` creates it.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}
