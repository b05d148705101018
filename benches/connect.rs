//! The time from nothing to a small message sent over a new TLS connection, beside a bare loop that
//! does the same handshake and dialogue; and what else the start of a process costs.
//!
//! ```text
//! cargo bench --bench connect                    # everything: a minute
//! cargo bench --bench connect -- --rounds 200 process
//! ```
//!
//! Both take turns. In one process, each round opens a connection; the handshake is a full one, or
//! resumes the session of the round before. In fresh processes, each round starts a process, and
//! the time is that of its work: it includes the runtime, the trust store and the start-up of the
//! cryptography.
//!
//! In one process, the loop runs on the same runtime, with tokio-rustls; the second row is for a
//! loop that blocks, which spares the wake-ups of the runtime's threads. In fresh processes, the
//! loop blocks, and starts no runtime.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoi::mail_builder::MessageBuilder;
use envoi::tls::rustls::client::Resumption;
use envoi::tls::rustls::{ClientConfig, ClientConnection};
use envoi::tls::{Security, TlsSettings, Trust};
use envoi::{Client, Endpoint, Message};
use support::bare::{AsyncBare, Bare, trust};
use support::sink::Sink;
use support::{Arguments, Rounds, Run, Spread};
use tokio::runtime::Runtime;

/// The length of the text of the message, in bytes.
const TEXT: usize = 1_000;

/// A part of the start of a process, which returns the time that it took.
type Part = fn() -> Duration;

/// Each is measured twice, in a process of its own.
const PARTS: [(&str, Part); 6] = [
    ("runtime of tokio, with threads", || took(runtime)),
    ("the system's trust store", || {
        took(|| Trust::system().load())
    }),
    ("message built and encoded", || {
        let runtime = runtime();
        took(|| {
            runtime
                .block_on(message().prepare())
                .expect("it is in order")
        })
    }),
    ("connection of rustls, with its key share", || {
        let config = without_trust();
        let name = || "localhost".try_into().expect("a name");
        took(|| ClientConnection::new(config.clone(), name()).expect("it is in order"))
    }),
    ("provider of rustls", || took(without_trust)),
    ("thread for blocking calls", || {
        let runtime = runtime();
        took(|| runtime.block_on(async { tokio::task::spawn_blocking(|| ()).await }))
    }),
];

fn main() {
    let arguments = support::arguments();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["sink", ..] => support::sink::serve(arguments[1..].to_vec()),
        ["envoi", port, ca_file] => {
            let url = format!("smtps://127.0.0.1:{port}?trust={ca_file}");
            support::report(|| by_envoi(&runtime(), &Client::from_url(&url).expect("the URL")));
        }
        ["bare", port, ca_file] => {
            support::report(|| by_a_bare_loop(port, trust(Path::new(ca_file))));
        }
        ["part", number] => {
            let (_, part) = PARTS[number.parse::<usize>().expect("a number")];
            println!("{} {}", part().as_secs_f64(), part().as_secs_f64());
        }
        _ => suite(&Arguments::parse(&words)),
    }
}

fn suite(arguments: &Arguments) {
    let mut sink = Sink::start(&["PIPELINING", "CHUNKING", "SIZE 0"]);
    let ca_file = sink.ca_file.to_str().expect("a path in UTF-8").to_owned();
    let port = sink.port(true).to_string();
    println!(
        "{:36}{:>9} {:>9}   time of the loop / time of envoi, worst to best",
        "", "envoi µs", "loop µs"
    );
    let mut row = |name: &str, rounds, round: &mut dyn FnMut() -> [Run; 2]| {
        if !arguments.select(name) {
            return;
        }
        let rounds = Rounds::measure(rounds, || {
            let round = round();
            for _ in 0..2 {
                assert_eq!(sink.arrived().messages, 1);
            }
            round
        });
        let [envoi, bare] = rounds.medians(|run| run.seconds * 1e6);
        println!("{name:36}{envoi:9.0} {bare:9.0}   {}", rounds.speed());
    };

    let runtime = runtime();
    let mut full = ClientConfig::clone(&trust(Path::new(&ca_file)));
    full.resumption = Resumption::disabled();
    let full = Arc::new(full);
    let same = client(&port, TlsSettings::default().rustls_config(full.clone()));
    let own = client(&port, TlsSettings::new(Trust::empty().path(&ca_file)));
    let resuming = trust(Path::new(&ca_file));
    for (name, client, config) in [
        ("full handshake", &same, &full),
        ("resumed session", &own, &resuming),
    ] {
        let envoi = || timed(|| by_envoi(&runtime, client));
        let rounds = arguments.rounds * 20;
        row(&format!("one process, {name}"), rounds, &mut || {
            let bare = || by_tokio_rustls(&runtime, &port, config.clone());
            [envoi(), timed(bare)]
        });
        row(&format!("{name}, loop that blocks"), rounds, &mut || {
            let bare = || by_a_bare_loop(&port, config.clone());
            [envoi(), timed(bare)]
        });
    }
    row("fresh processes", arguments.rounds, &mut || {
        ["envoi", "bare"].map(|which| support::run(&[which, &port, &ca_file]))
    });

    println!(
        "\n{:44}{:>12}   {:>12}",
        "start of a process, in µs", "first", "second"
    );
    for (number, (name, _)) in PARTS.iter().enumerate() {
        if arguments.select(name) {
            let number = number.to_string();
            let runs: Vec<_> = (0..arguments.rounds)
                .map(|_| support::figures(&["part", &number]))
                .collect();
            let first = Spread::of(runs.iter().map(|run| run[0] * 1e6));
            let second = Spread::of(runs.iter().map(|run| run[1] * 1e6));
            println!("{name:44}{:12.0}   {:12.0}", first.median, second.median);
        }
    }
}

fn client(port: &str, tls: TlsSettings) -> Client {
    let endpoint = Endpoint::new("127.0.0.1").port(port.parse().expect("a port"));
    Client::new(endpoint.security(Security::Implicit).tls(tls))
}

fn message() -> Message<'static> {
    let mail = MessageBuilder::new()
        .from("me@example.org")
        .to("you@example.com")
        .subject("A benchmark");
    Message::from(mail.text_body("A short line of text.\r\n".repeat(TEXT / 23)))
}

fn by_envoi(runtime: &Runtime, client: &Client) -> u64 {
    let receipt = runtime.block_on(client.send(message()));
    assert!(receipt.expect("the message is taken").all_accepted());
    1
}

fn by_a_bare_loop(port: &str, tls: Arc<ClientConfig>) -> u64 {
    let mut bare = Bare::connect_with(port.parse().expect("a port"), Some(tls));
    bare.exchange(&wire(), 3);
    bare.exchange(b"QUIT\r\n", 0);
    1
}

fn by_tokio_rustls(runtime: &Runtime, port: &str, tls: Arc<ClientConfig>) -> u64 {
    runtime.block_on(async {
        let mut bare = AsyncBare::connect(port.parse().expect("a port"), tls).await;
        bare.exchange(&wire(), 3).await;
        bare.exchange(b"QUIT\r\n", 0).await;
    });
    1
}

/// The same commands as envoi's, in one write.
fn wire() -> Vec<u8> {
    let text = "A short line of text.\r\n".repeat(TEXT / 23);
    let header = format!(
        "From: <me@example.org>\r\nTo: <you@example.com>\r\n{}\r\n",
        "X".repeat(200)
    );
    let commands = format!(
        "MAIL FROM:<me@example.org>\r\nRCPT TO:<you@example.com>\r\nBDAT {} LAST\r\n{header}{text}",
        header.len() + text.len()
    );
    commands.into_bytes()
}

fn without_trust() -> Arc<ClientConfig> {
    let provider = envoi::tls::rustls::crypto::aws_lc_rs::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("the versions of TLS");
    let roots = tokio_rustls::rustls::RootCertStore::empty();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

fn timed(work: impl FnOnce() -> u64) -> Run {
    let began = Instant::now();
    let messages = work();
    let seconds = began.elapsed().as_secs_f64();
    Run {
        seconds,
        messages,
        whole: seconds,
        ..Run::default()
    }
}

fn took<T>(work: impl FnOnce() -> T) -> Duration {
    let began = Instant::now();
    let _result = work();
    began.elapsed()
}

/// A runtime as `#[tokio::main]` creates it.
fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}
