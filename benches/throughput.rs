//! The throughput, CPU time and memory of envoi, beside a bare loop that writes the same bytes from
//! memory to the same sink.
//!
//! ```text
//! cargo bench --bench throughput                      # everything: some minutes
//! cargo bench --bench throughput -- 50 --rounds 3     # 50 MB alone, and the small messages
//! ```
//!
//! envoi and the loop take turns, each in a process of its own, so that changes of the machine's
//! speed affect both, and CPU time and peak memory are those of the client alone. The sink is a
//! third process on the same cores. envoi's time is that of its whole work, from creating the
//! runtime to the reply to QUIT; the loop's begins when its bytes are in memory.
//!
//! On a busy machine the ratio approaches 1. It is meaningful only if the bare loop runs at full
//! speed. Single rounds are between half and twice the median.

mod support;

use std::path::{Path, PathBuf};

use envoi::mail_builder::MessageBuilder;
use envoi::{Address, Attachment, Client, Envelope, Message};
use futures::StreamExt as _;
use support::bare::Bare;
use support::sink::{Arrived, Sink};
use support::{Run, median};

const SIZES: [u64; 4] = [1, 50, 500, 1000];
/// The number of small messages, and the size of their text in bytes.
const COUNT: usize = 5_000;
const TEXT: usize = 1_000;
/// As many as envoi keeps in flight.
const WINDOW: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["sink", ..] => support::sink::serve(arguments[1..].to_vec()),
        ["envoi", what, url, file] => support::report(|| by_envoi(what, url, file)),
        ["bare", what, port, ca_file, file] => by_a_bare_loop(what, port, ca_file, file),
        _ => suite(&words),
    }
}

fn suite(arguments: &[&str]) {
    let (mut sizes, mut rounds) = (Vec::new(), None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--rounds" => rounds = rest.next().and_then(|number| number.parse().ok()),
            size => sizes.push(
                size.parse()
                    .unwrap_or_else(|_| panic!("not a size in MB: {size}")),
            ),
        }
    }
    if sizes.is_empty() {
        sizes = SIZES.into();
    }
    // The first accepts messages by DATA, the second by BDAT.
    let mut sinks = [&[][..], &["CHUNKING"]]
        .map(|more| Sink::start(&[&["PIPELINING", "8BITMIME", "SIZE 0"], more].concat()));
    let folder = tempfile::tempdir().expect("a temporary folder");
    println!(
        "{:31}{:^24} {:^14}   ratio to the limit",
        "", "envoi", "bare loop"
    );
    println!(
        "{:31}{:>8} {:>7} {:>7} {:>7} {:>7}",
        "", "MB/s", "CPU s", "peak MB", "MB/s", "CPU s"
    );
    for megabytes in sizes {
        let rounds = rounds.unwrap_or(match megabytes {
            0..=10 => 15,
            11..=100 => 9,
            101..=500 => 3,
            _ => 2,
        });
        for what in ["attachment", "chunks", "ready"] {
            let work = Work::large(what, megabytes * 1_000_000, folder.path());
            let (name, sink) = if what == "chunks" {
                ("by BDAT", 1)
            } else {
                (what, 0)
            };
            for tls in [false, true] {
                work.compare(
                    &format!("{name}, {megabytes} MB"),
                    &mut sinks[sink],
                    tls,
                    rounds,
                );
            }
        }
    }
    println!(
        "{:31}{:>8} {:>7} {:>7} {:>7} {:>7}",
        "", "mess./s", "CPU s", "peak MB", "mess./s", "CPU s"
    );
    for (what, name) in [("one", "one by one"), ("stream", "as a stream")] {
        let work = Work::small(what, folder.path());
        for tls in [false, true] {
            work.compare(
                &format!("{COUNT} of 1 KB {name}"),
                &mut sinks[1],
                tls,
                rounds.unwrap_or(5),
            );
        }
    }
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
        match what {
            "ready" => support::write_ready(&file, size),
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

    /// Each round sends once with envoi and once with the bare loop.
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
        let mut both: [Vec<Run>; 2] = Default::default();
        for _ in 0..rounds {
            both[0].push(support::run(&["envoi", self.what, &url, &file]));
            self.check(sink.arrived(), tls);
            both[1].push(support::run(&["bare", self.what, &port, &ca_file, &wire]));
            self.check(sink.arrived(), tls);
        }
        let of_both =
            |figure: fn(&Run) -> f64| both.each_ref().map(|runs| median(runs.iter().map(figure)));
        let amount = if self.messages > 1 {
            self.messages as f64
        } else {
            self.bytes as f64 / 1e6
        };
        let rate = of_both(|run| run.seconds).map(|seconds| amount / seconds);
        let (cpu, peak) = (of_both(|run| run.cpu), of_both(|run| run.peak));
        let mut ratios: Vec<f64> = both[0]
            .iter()
            .zip(&both[1])
            .map(|(envoi, bare)| bare.seconds / envoi.seconds)
            .collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "{:31}{:8.0} {:7.3} {:7.1} {:7.0} {:7.3}   {:.2} (from {:.2} to {:.2})",
            format!("{name}, {}", if tls { "TLS" } else { "plain" }),
            rate[0],
            cpu[0],
            peak[0],
            rate[1],
            cpu[1],
            median(ratios.iter().copied()),
            ratios[0],
            ratios[rounds - 1],
        );
    }

    /// Everything must have arrived, encrypted or not as expected.
    fn check(&self, arrived: Arrived, tls: bool) {
        assert_eq!((arrived.messages, arrived.tls), (self.messages, tls));
        // Message-ID and boundaries are different for each, and their lengths vary by a few bytes.
        assert!(
            arrived.bytes.abs_diff(self.bytes) < 100 * self.messages,
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
        "attachment" | "chunks" => {
            Message::from(mail().text_body("Attached.")).attach(Attachment::file(file))
        }
        "ready" => Message::raw_file(file).envelope(
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
    let (_, mut body) = message.prepare().await.expect("the message is in order");
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
        "attachment" | "ready" => support::report(|| {
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
            if what == "chunks" {
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
