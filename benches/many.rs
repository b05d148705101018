//! Many connections on one runtime: the memory of idle ones in a pool, and of messages that are
//! sent at once, beside bare connections of tokio-rustls; the number of threads; and the time that
//! a pool takes to hand out one of its idle connections.
//!
//! ```text
//! cargo bench --bench many                 # 2,000 idle connections, 200 senders
//! cargo bench --bench many -- 500          # 500 idle ones
//! ```
//!
//! The server is a process of its own. Each connection takes a file descriptor in both processes:
//! the soft limit is raised to the hard one, which `ulimit -Hn` shows.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoi::mail_builder::MessageBuilder;
use envoi::{Attachment, Client, Message, Pool, PoolConfig};
use futures::stream::{self, StreamExt as _};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::bare::AsyncBare;
use support::sink::Sink;

const IDLE: u64 = 2_000;
const SENDERS: usize = 200;
/// The number of messages of each sender, and the size of the file attached to each.
const MESSAGES: usize = 5;
const FILE: u64 = 100_000;
/// The number of connections that are set up at once.
const AT_ONCE: usize = 50;
/// The number of times that a connection is taken and given back.
const TAKEN: u32 = 2_000;

fn main() {
    let arguments = support::arguments();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["sink", ..] => support::sink::serve(arguments[1..].to_vec()),
        ["child", ..] => runtime().block_on(child(&words[1..])),
        [] => suite(IDLE),
        [count] => suite(count.parse().expect("a number of connections")),
        _ => panic!("not known: {words:?}"),
    }
}

fn suite(idle: u64) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("the soft limit can be raised");
    let needed = idle + 100;
    if limit.maximum.is_some_and(|limit| limit < needed) {
        panic!("{needed} file descriptors are needed: ulimit -Hn {needed}");
    }
    // Without CHUNKING, as the loop: both end with the dot.
    let sink = Sink::start(&["PIPELINING", "8BITMIME", "SIZE 0"]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("attachment.bin");
    support::write_noise(&file, FILE);
    let run = |which: &str, what: &str, count: u64| {
        let (port, count) = (sink.port(true).to_string(), count.to_string());
        let ca_file = sink.ca_file.to_str().expect("a path in UTF-8");
        let file = file.to_str().expect("a path in UTF-8");
        support::figures(&["child", which, what, &count, &port, ca_file, file])
    };
    println!("{:46}{:>9} {:>13}", "", "envoi", "tokio-rustls");
    for (what, count, name) in [
        ("idle", idle, format!("{idle} idle connections")),
        (
            "send",
            SENDERS as u64,
            format!("{SENDERS} senders of {FILE} bytes"),
        ),
    ] {
        let [envoi, bare] = ["envoi", "bare"].map(|which| run(which, what, count));
        for (at, unit) in ["KiB each", "threads", "CPU ms each"].iter().enumerate() {
            let label = format!("{name}, {unit}");
            println!("{label:46}{:9.2} {:13.2}", envoi[at], bare[at]);
        }
    }
    for count in [20, 200, idle] {
        let took = run("envoi", "take", count)[0];
        println!(
            "{:46}{took:9.1}",
            format!("taken from {count} idle ones, µs each")
        );
    }
}

async fn child(arguments: &[&str]) {
    let [which, what, count, port, ca_file, file] = arguments else {
        panic!("not known: {arguments:?}")
    };
    let count: usize = count.parse().expect("a number");
    match *which {
        "envoi" => by_envoi(what, count, port, ca_file, file).await,
        _ => by_tokio_rustls(what, count, port, ca_file, file).await,
    }
}

async fn by_envoi(what: &str, count: usize, port: &str, ca_file: &str, file: &str) {
    let url = format!("smtps://127.0.0.1:{port}?trust={ca_file}");
    let mut limits = PoolConfig::new(u16::try_from(count).expect("a number of 16 bits"));
    limits.idle_timeout = Duration::from_secs(3600);
    let client = Client::from_url(&url).expect("the URL");
    let pool = client.pool(limits);
    // What is needed once.
    drop(pool.get().await.expect("the sink is there"));
    let start = Usage::now();
    fill(&pool, count).await;
    match what {
        "idle" => start.print(count),
        "take" => {
            let began = Instant::now();
            for _ in 0..TAKEN {
                drop(pool.get().await.expect("there is one"));
            }
            println!("{}", began.elapsed().as_secs_f64() * 1e6 / f64::from(TAKEN));
        }
        _ => {
            let start = Usage::now();
            let file: Arc<Path> = Path::new(file).into();
            let senders = (0..count).map(|_| {
                let (pool, file) = (pool.clone(), file.clone());
                tokio::spawn(async move {
                    for _ in 0..MESSAGES {
                        let receipt = pool.send(message(&file)).await;
                        assert!(receipt.expect("it is taken").all_accepted());
                    }
                })
            });
            for sender in senders.collect::<Vec<_>>() {
                sender.await.expect("it sends");
            }
            start.print(count);
        }
    }
}

/// Opens all connections of a pool, and gives them back.
async fn fill(pool: &Pool, count: usize) {
    let connections = stream::iter(0..count).map(|_| pool.get());
    let all: Vec<_> = connections.buffer_unordered(AT_ONCE).collect().await;
    assert!(all.iter().all(Result::is_ok), "the sink takes all");
}

fn message(file: &Path) -> Message<'static> {
    let mail = MessageBuilder::new()
        .from("me@example.org")
        .to("you@example.com")
        .subject("A benchmark");
    Message::from(mail.text_body("Attached.")).attach(Attachment::file(file))
}

async fn by_tokio_rustls(what: &str, count: usize, port: &str, ca_file: &str, file: &str) {
    let port = port.parse().expect("a port");
    let config = support::bare::trust(Path::new(ca_file));
    let connect = || AsyncBare::connect(port, config.clone());
    drop(connect().await);
    let start = Usage::now();
    let connections = stream::iter(0..count).map(|_| connect());
    let all: Vec<_> = connections.buffer_unordered(AT_ONCE).collect().await;
    if what == "idle" {
        return start.print(count);
    }
    let start = Usage::now();
    let file = std::fs::read(file).expect("the attachment");
    // As long as in base64.
    let line = [&[b'x'; 76][..], b"\r\n"].concat();
    let text = line.repeat(file.len().div_ceil(57));
    let wire: Arc<[u8]> = [&text[..], b".\r\n"].concat().into();
    let senders = all.into_iter().map(|mut bare| {
        let wire = wire.clone();
        tokio::spawn(async move {
            let commands = b"MAIL FROM:<me@example.org>\r\nRCPT TO:<you@example.com>\r\nDATA\r\n";
            for _ in 0..MESSAGES {
                bare.exchange(commands, 3).await;
                bare.exchange(&wire, 1).await;
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.expect("it sends");
    }
    start.print(count);
}

/// What this process uses.
struct Usage {
    kibibytes: f64,
    cpu: f64,
}

impl Usage {
    fn now() -> Self {
        Usage {
            kibibytes: support::status("VmRSS:"),
            cpu: support::cpu_seconds(),
        }
    }

    /// Prints what each connection has taken since, and the number of threads now: one for blocking
    /// calls lives for ten seconds after its last.
    fn print(&self, connections: usize) {
        let now = Usage::now();
        println!(
            "{} {} {}",
            (now.kibibytes - self.kibibytes) / connections as f64,
            support::status("Threads:"),
            (now.cpu - self.cpu) * 1e3 / connections as f64
        );
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}
