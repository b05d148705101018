//! The CPU time of small messages, beside a bare loop that writes the same bytes from memory to the
//! same sink; and the throughput of `send_all` at a long round-trip time, beside the limit that its
//! window sets.
//!
//! ```text
//! cargo bench --bench small                  # everything
//! cargo bench --bench small -- --rounds 3
//! cargo bench --bench small -- send_all      # the rows with this word
//! ```
//!
//! Each row is a process of its own, and all rows take turns. The CPU time is that of the client
//! alone, user and system, without the start of the process. The messages are made for each row by
//! mail-builder, whose share the row "mail-builder" has: it serializes the same message, and sends
//! nothing. "prepare" also checks it, as sending begins with that.
//!
//! Valgrind counts the allocations for each message; the difference of two runs is that of the
//! messages alone:
//!
//! ```text
//! cargo bench --bench small --no-run
//! for count in 1000 2000; do valgrind target/release/deps/small-… count send_all $count; done
//! ```

mod support;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use envoi::mail_builder::MessageBuilder;
use envoi::{Client, Message, PoolConfig, SendWindow};
use futures::StreamExt as _;
use support::bare::Bare;
use support::delay::Delay;
use support::sink::Sink;
use support::{Arguments, Spread};

/// The rows, and the number of messages that each of them sends.
const ROWS: [(&str, usize); 7] = [
    ("loop, 64 at once", 50_000),
    ("send_all", 20_000),
    ("loop, one by one", 20_000),
    ("send", 20_000),
    ("pool", 20_000),
    ("prepare", 50_000),
    ("mail-builder", 50_000),
];
const AT_ONCE: usize = 64;
/// The size of the text in bytes.
const TEXT: usize = 1_000;
/// The windows at a long round-trip time, and the number of messages.
const WINDOWS: [(usize, usize); 2] = [(64, 2_000), (1_024, 30_000)];
const ROUND_TRIP: Duration = Duration::from_millis(100);

fn main() {
    let arguments = support::arguments();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<usize>().expect("a number");
    match words[..] {
        ["sink", ..] => support::sink::serve(arguments[1..].to_vec()),
        ["row", row, port, count] => {
            support::report(|| run(row, number(port).try_into().expect("a port"), number(count)));
        }
        ["window", window, port, count] => {
            let port = number(port).try_into().expect("a port");
            support::report(|| through_window(number(window), port, number(count)));
        }
        ["count", row, count] => {
            let mut sink = Sink::start(&EXTENSIONS);
            run(row, sink.port(false), number(count));
            if sends(row) {
                sink.arrived();
            }
        }
        _ => suite(&Arguments::parse(&words)),
    }
}

const EXTENSIONS: [&str; 4] = ["PIPELINING", "8BITMIME", "SIZE 0", "CHUNKING"];

fn suite(arguments: &Arguments) {
    let mut sink = Sink::start(&EXTENSIONS);
    let rows = || ROWS.into_iter().filter(|(name, _)| arguments.select(name));
    let mut cpu: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..arguments.rounds {
        for (row, count) in rows() {
            let port = sink.port(false).to_string();
            let used = support::run(&["row", row, &port, &count.to_string()]);
            if sends(row) {
                assert_eq!(sink.arrived().messages, used.messages);
            }
            cpu.entry(row)
                .or_default()
                .push(used.cpu * 1e6 / used.messages as f64);
        }
    }
    if !cpu.is_empty() {
        println!("{:34}µs of CPU a message, median (range)", "");
    }
    for (row, _) in rows() {
        let figures = cpu.remove(row).unwrap_or_default();
        println!("{row:34}{:.1}", Spread::of(figures));
    }
    windows(&mut sink, arguments);
}

/// Sends over a connection with a long round-trip time.
fn windows(sink: &mut Sink, arguments: &Arguments) {
    let milliseconds = ROUND_TRIP.as_millis();
    let name = |window: usize| format!("window of {window}, {milliseconds} ms round trip");
    let delay = Delay::start(sink.port(false), ROUND_TRIP);
    let rows = || {
        let selected = |(window, _): &(usize, usize)| arguments.select(&name(*window));
        WINDOWS.into_iter().filter(selected)
    };
    let mut rates: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for _ in 0..arguments.rounds.div_ceil(3) {
        for (window, count) in rows() {
            let (size, port) = (window.to_string(), delay.port().to_string());
            let used = support::run(&["window", &size, &port, &count.to_string()]);
            assert_eq!(sink.arrived().messages, used.messages);
            let rates = rates.entry(window).or_default();
            rates.push(used.messages as f64 / used.seconds);
        }
    }
    if !rates.is_empty() {
        println!("{:34}messages a second, median (range), and the limit", "");
    }
    for (window, _) in rows() {
        let figures = rates.remove(&window).unwrap_or_default();
        let limit = window as f64 / ROUND_TRIP.as_secs_f64();
        let spread = Spread::of(figures);
        println!("{:34}{spread:<26.0}{limit:.0}", name(window));
    }
}

fn sends(row: &str) -> bool {
    !["prepare", "mail-builder"].contains(&row)
}

fn mail() -> MessageBuilder<'static> {
    MessageBuilder::new()
        .from("me@example.org")
        .to("you@example.com")
        .subject("A benchmark")
        .text_body("A short line of text.\r\n".repeat(TEXT / 23))
}

fn messages(count: usize) -> impl futures::Stream<Item = Message<'static>> {
    futures::stream::iter((0..count).map(|_| Message::from(mail())))
}

fn run(row: &str, port: u16, count: usize) -> u64 {
    match row {
        "loop, 64 at once" => bare_loop(port, count, AT_ONCE),
        "loop, one by one" => bare_loop(port, count, 1),
        "mail-builder" => (0..count).for_each(|_| {
            black_box(mail().write_to_vec().expect("memory"));
        }),
        _ => runtime().block_on(by_envoi(row, port, count)),
    }
    count as u64
}

async fn by_envoi(row: &str, port: u16, count: usize) {
    let client = client(port);
    match row {
        "prepare" => {
            for _ in 0..count {
                let prepared = Message::from(mail()).prepare().await;
                black_box(prepared.expect("the message is in order"));
            }
        }
        "send" => {
            let mut connection = client.connect().await.expect("the sink is there");
            for _ in 0..count {
                let receipt = connection.send(mail()).await.expect("it is taken");
                assert!(receipt.all_accepted());
            }
            connection.quit().await;
        }
        "pool" => {
            let mut limits = PoolConfig::new(1);
            limits.max_messages = count;
            let pool = client.pool(limits);
            for _ in 0..count {
                let receipt = pool.send(mail()).await.expect("it is taken");
                assert!(receipt.all_accepted());
            }
            pool.close().await;
        }
        "send_all" => send_all(&client, count).await,
        _ => panic!("not a row: {row}"),
    }
}

async fn send_all(client: &Client, count: usize) {
    let mut connection = client.connect().await.expect("the sink is there");
    let outcomes = connection.send_all(messages(count));
    outcomes
        .for_each(|outcome| async { assert!(outcome.expect("it is taken").all_accepted()) })
        .await;
    connection.quit().await;
}

fn through_window(window: usize, port: u16, count: usize) -> u64 {
    let endpoint = client(port).endpoint().clone();
    let client = Client::new(endpoint.send_window(SendWindow::new(window)));
    runtime().block_on(send_all(&client, count));
    count as u64
}

fn bare_loop(port: u16, count: usize, at_once: usize) {
    let content = mail().write_to_vec().expect("memory");
    let commands = format!(
        "MAIL FROM:<me@example.org>\r\nRCPT TO:<you@example.com>\r\nBDAT {} LAST\r\n",
        content.len()
    );
    let one = [commands.as_bytes(), &content].concat();
    let all = one.repeat(at_once);
    let mut bare = Bare::connect(port, None);
    for sent in (0..count).step_by(at_once) {
        let now = at_once.min(count - sent);
        bare.exchange(&all[..one.len() * now], 3 * now);
    }
}

fn client(port: u16) -> Client {
    Client::from_url(&format!("smtp://localhost:{port}?tls=none")).expect("the sink's URL")
}

/// A runtime as `#[tokio::main]` creates it.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}
