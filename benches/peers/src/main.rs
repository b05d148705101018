//! Compares envoi with lettre, mail-send and async-smtp. Each client does the same work as its
//! documentation recommends, in a process of its own.
//!
//! ```text
//! cd benches/peers
//! cargo run --release                                     # 8 minutes
//! cargo run --release -- --size 50 --rounds 1 --seconds 1 # a quick run
//! cargo run --release -- --update yes                     # docs/benchmarks.md and results.svg
//! ```
//!
//! Without `--update`, `results.md` and `results.svg` are written into the target folder. Every
//! comparison takes the same number of rounds, in which the clients take turns; the results are the
//! median, the lowest and the highest.
//!
//! **Large messages.** An attachment from a file, and a raw message from a file; in plaintext and
//! over TLS. The whole process is timed; CPU time and peak memory are the
//! client's own, without those of the sink. The sink (`benches/support/sink.rs`) is another process
//! on the same cores. It counts what arrives, and a client whose message does not arrive completely
//! ends the benchmark.
//!
//! **Small messages.** As many as possible in a few seconds on one kept connection, through a proxy
//! that delays each byte by half the round-trip time. Connecting is not counted.
//!
//! `build-cost` compares builds of the programs in `examples`.

mod clients;
mod proxy;
mod results;
#[path = "../../support/mod.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use clients::Target;
use support::sink::Sink;
use support::{Run, Spread};

const LARGE: [&str; 4] = ["envoi", "mail-send", "lettre", "async-smtp"];

/// The clients that send small messages, and whether the server offers CHUNKING. Without it, only
/// envoi is measured.
const SMALL: [(&str, &str, bool); 9] = [
    ("envoi, `send_all`, CHUNKING", "envoi-stream", true),
    ("envoi, `send_all`, PIPELINING alone", "envoi-stream", false),
    ("envoi, `send`, CHUNKING", "envoi", true),
    ("envoi, `send`, PIPELINING alone", "envoi", false),
    ("async-smtp", "async-smtp", true),
    ("mail-send", "mail-send", true),
    ("lettre, one connection", "lettre", true),
    ("envoi, its pool, CHUNKING", "envoi-pool", true),
    ("lettre, its pool", "lettre-pool", true),
];

const ROUND_TRIPS: [u64; 3] = [0, 20, 100];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["sink", ..] => support::sink::serve(arguments[1..].to_vec()),
        ["large", who, what, port, ca_file, file] => {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let target = target(port, ca_file);
            support::report(|| {
                runtime.block_on(clients::large(who, target, what == "raw", file.as_ref()));
                1
            });
        }
        ["small", who, port, seconds] => {
            let seconds = Duration::from_secs_f64(seconds.parse().expect("a number"));
            clients::small(who, target(port, "none"), seconds);
        }
        _ => all(&words),
    }
}

fn target<'a>(port: &str, ca_file: &'a str) -> Target<'a> {
    Target {
        port: port.parse().expect("a port"),
        ca_file: Some(Path::new(ca_file)).filter(|_| ca_file != "none"),
    }
}

fn all(arguments: &[&str]) {
    let (mut megabytes, mut rounds, mut seconds) = (500, 5, 2.0);
    let mut update = false;
    for pair in arguments.chunks(2) {
        match pair {
            ["--size", value] => megabytes = value.parse().expect("a size in MB"),
            ["--rounds", value] => rounds = value.parse().expect("a number of rounds"),
            ["--seconds", value] => seconds = value.parse().expect("seconds for small messages"),
            ["--update", "yes"] => update = true,
            other => panic!(
                "unknown arguments {other:?}; known are --size MB, --rounds N, --seconds S and \
                 --update yes"
            ),
        }
    }
    let load_before = results::load();
    let mut large = Vec::new();
    for what in ["attachment", "raw"] {
        for tls in [false, true] {
            large.extend(large_messages(what, tls, megabytes, rounds));
        }
    }
    let small = small_messages(seconds, rounds);
    let results = results::Results {
        megabytes,
        rounds,
        seconds,
        load_before,
        large,
        small,
    };
    match update {
        true => results.update(),
        false => results.write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target")),
    }
}

/// The runs of a client with a large message, one in each round.
pub struct Large {
    pub what: &'static str,
    pub tls: bool,
    pub who: &'static str,
    pub runs: Vec<Run>,
}

impl Large {
    pub fn spread(&self, figure: impl Fn(&Run) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(figure))
    }
}

fn large_messages(what: &'static str, tls: bool, megabytes: u64, rounds: usize) -> Vec<Large> {
    // Without CHUNKING, which the others do not use.
    let mut sink = Sink::start(&["PIPELINING", "8BITMIME", "SIZE 0"]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("attachment.bin");
    let size = megabytes * 1_000_000;
    let expected = if what == "raw" {
        support::write_raw(&file, size, Some(500));
        size
    } else {
        support::write_noise(&file, size);
        // base64 in lines of 76, each with CRLF (RFC 2045, 6.8).
        size.div_ceil(57) * 78
    };
    let port = sink.port(tls).to_string();
    let ca_file = if tls {
        sink.ca_file.to_string_lossy().into_owned()
    } else {
        "none".into()
    };
    let mut runs = [const { Vec::new() }; LARGE.len()];
    for _ in 0..rounds {
        for (who, runs) in LARGE.iter().zip(&mut runs) {
            runs.push(support::run(&[
                "large",
                who,
                what,
                &port,
                &ca_file,
                &file.to_string_lossy(),
            ]));
            let arrived = sink.arrived();
            assert_eq!((arrived.messages, arrived.tls), (1, tls), "{who}");
            // Headers differ, and some clients add a line end.
            assert!(
                arrived.bytes.abs_diff(expected) < 2_000,
                "{who}: {arrived:?}, not {expected} bytes"
            );
            eprintln!(
                "{what}, {}, {who}: {:?}",
                if tls { "TLS" } else { "plain" },
                runs[runs.len() - 1]
            );
        }
    }
    let results = LARGE.into_iter().zip(runs);
    let results = results.map(|(who, runs)| Large {
        what,
        tls,
        who,
        runs,
    });
    results.collect()
}

/// Messages per second for each of [`SMALL`] at each of [`ROUND_TRIPS`].
fn small_messages(seconds: f64, rounds: usize) -> Vec<[Spread; ROUND_TRIPS.len()]> {
    let mut sinks = [
        Sink::start(&["PIPELINING", "8BITMIME", "SIZE 0"]),
        Sink::start(&["PIPELINING", "8BITMIME", "SIZE 0", "CHUNKING"]),
    ];
    let mut rates = vec![[const { Vec::new() }; ROUND_TRIPS.len()]; SMALL.len()];
    for _ in 0..rounds {
        for ((name, who, chunking), rates) in SMALL.iter().zip(&mut rates) {
            for (milliseconds, rates) in ROUND_TRIPS.into_iter().zip(rates) {
                let sink = &mut sinks[usize::from(*chunking)];
                let port = match milliseconds {
                    0 => sink.port(false),
                    _ => proxy::start(sink.port(false), Duration::from_millis(milliseconds)),
                };
                let run = support::run(&["small", who, &port.to_string(), &seconds.to_string()]);
                let mut arrived = 0;
                // A pool may have opened several connections.
                while arrived < run.messages {
                    arrived += sink.arrived().messages;
                }
                assert_eq!(arrived, run.messages, "{name}");
                eprintln!(
                    "{name}, {milliseconds} ms: {arrived} in {:.2} s",
                    run.seconds
                );
                rates.push(arrived as f64 / run.seconds);
            }
        }
    }
    let rates = rates.into_iter();
    rates.map(|at_each| at_each.map(Spread::of)).collect()
}
