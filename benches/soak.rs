//! A long run: many messages through a pool to a server with random faults. It fails if a message
//! is lost, sent twice or reported wrongly, if memory grows, or if the metrics disagree.
//!
//! ```text
//! cargo bench --bench soak                    # 100,000 messages: a minute; Linux
//! cargo bench --bench soak -- 5000            # fewer
//! cargo bench --bench soak -- --seed 17       # the faults of an earlier run
//! ```
//!
//! Each message has a number, in its recipient and in its text. The server, in this process, reads
//! what it has accepted and counts the messages by this number:
//!
//! | Result at the client | The server has it |
//! |---|---|
//! | accepted | once |
//! | not accepted: refused, or not sent | never |
//! | the outcome is unknown | once or never |
//!
//! [`FAULTS`] concern 2 % of the messages, beside a greeting that is refused. Most messages are
//! sent by `Pool::send` with retries, the others by `Pool::send_all`. The faults of a seed occur at
//! the same times, but which message meets one depends on the order in which the connections run.

mod support;

use std::collections::VecDeque;
use std::iter;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use envoi::mail_builder::MessageBuilder;
use envoi::testing::{Fault, Server, Step};
use envoi::{Client, Endpoint, Message, Pool, PoolConfig, Receipt, RetryPolicy, Timeouts};
use futures::stream::{self, StreamExt as _};
use metrics_exporter_prometheus::PrometheusBuilder;

const MESSAGES: usize = 100_000;
const CONNECTIONS: u16 = 8;
/// The tasks that send one message at a time; with the streams, more than there are connections.
const SENDERS: usize = 12;
/// The tasks that send streams of messages, and the number of messages in each stream.
const STREAMS: usize = 2;
const IN_STREAM: usize = 100;
/// The time that the client allows for a reply, and how slow a slow server is.
const TIMEOUT: Duration = Duration::from_millis(500);
const SLOW: Duration = Duration::from_millis(50);
/// The faults of messages, each of which occurs once in this many.
const ONE_IN: u64 = 500;
const FAULTS: [fn() -> Fault; 10] = [
    || Fault::reply(Step::Mail, "421 4.3.2 Closing"),
    || Fault::reply(Step::Rcpt, "421 4.3.2 Closing"),
    || Fault::reply(Step::Message, "421 4.3.2 Closing"),
    || Fault::reply(Step::Rcpt, "451 4.7.1 Greylisted"),
    || Fault::reply(Step::Message, "451 4.3.0 Try later"),
    || Fault::reset(Step::Mail),
    || Fault::reset(Step::Message),
    || Fault::reset(Step::Accepted),
    || Fault::delay(Step::Message, SLOW),
    // Longer than the client waits, though the message is accepted.
    || Fault::delay(Step::Accepted, TIMEOUT.saturating_mul(2)),
];
/// What memory may grow by after a tenth of the messages: 80 bytes for each message of a whole run,
/// as what the allocators of the threads keep differs by some MB.
const GROWTH_KIBIBYTES: f64 = 8_000.0;
/// How often the server's messages are read.
const PERIOD: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let (messages, seed) = parse(&support::arguments());
    println!("{messages} messages, seed {seed}");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let problems = runtime.block_on(soak(messages, seed));
    for problem in &problems {
        println!("FAILED: {problem}");
    }
    match problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The number of messages, and the seed.
fn parse(arguments: &[String]) -> (usize, u64) {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let (mut messages, mut seed) = (MESSAGES, u64::from(since_1970.subsec_micros()));
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--seed" {
            let number = rest.next().and_then(|number| number.parse().ok());
            seed = number.expect("--seed N");
        } else {
            messages = argument.parse().expect("a number of messages");
        }
    }
    (messages, seed)
}

/// The result of a message at the client.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Accepted,
    Transient,
    Permanent,
    Unknown,
}

impl Outcome {
    /// With the label of the metric.
    const ALL: [(Outcome, &str); 4] = [
        (Outcome::Accepted, "accepted"),
        (Outcome::Transient, "transient"),
        (Outcome::Permanent, "permanent"),
        (Outcome::Unknown, "unknown"),
    ];

    fn of(result: &envoi::Result<Receipt>) -> Self {
        match result {
            Ok(_) => Outcome::Accepted,
            Err(error) if error.outcome_unknown() => Outcome::Unknown,
            Err(error) if error.is_transient() => Outcome::Transient,
            Err(_) => Outcome::Permanent,
        }
    }
}

/// The messages of a run, by their numbers, and the result of each.
struct Messages {
    next: AtomicUsize,
    /// The number of those that were sent in streams.
    in_streams: AtomicUsize,
    outcomes: Vec<OnceLock<Outcome>>,
    problems: Mutex<Vec<String>>,
}

impl Messages {
    fn new(count: usize) -> Self {
        Messages {
            next: AtomicUsize::default(),
            in_streams: AtomicUsize::default(),
            outcomes: iter::repeat_with(OnceLock::new).take(count).collect(),
            problems: Mutex::default(),
        }
    }

    /// The number of the next message.
    fn take(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.outcomes.len()).then_some(number)
    }

    fn are_taken(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.outcomes.len()
    }

    /// Keeps the result of a message, which must name its recipient.
    fn record(&self, number: usize, result: &envoi::Result<Receipt>) {
        let receipt = match result {
            Ok(receipt) => Some(receipt),
            Err(error) => error.receipt(),
        };
        let recipients = receipt.map_or(&[][..], |receipt| &receipt.recipients);
        let to = recipient(number);
        if let Some(other) = recipients.iter().find(|it| it.address.as_str() != to) {
            self.fail(format!(
                "message {number} has the result of {}",
                other.address
            ));
        }
        if self.outcomes[number].set(Outcome::of(result)).is_err() {
            self.fail(format!("message {number} has two results"));
        }
    }

    fn fail(&self, problem: String) {
        self.problems.lock().expect("the problems").push(problem);
    }
}

async fn soak(count: usize, seed: u64) -> Vec<String> {
    // With buckets: a summary keeps each value for a time.
    let recorder = PrometheusBuilder::new().set_buckets(&[0.001, 0.01, 0.1, 1.0, 10.0]);
    let recorder = recorder.expect("buckets").install_recorder();
    let metrics = recorder.expect("the only recorder");
    let server = server(seed).await;
    let pool = pool(&server);
    let messages = Arc::new(Messages::new(count));
    let mut accepted = Accepted(vec![0; count]);
    let mut memory = Vec::new();

    let began = Instant::now();
    let one_by_one = (0..SENDERS).map(|_| tokio::spawn(send_each(pool.clone(), messages.clone())));
    let streams = (0..STREAMS).map(|_| tokio::spawn(send_streams(pool.clone(), messages.clone())));
    let tasks: Vec<_> = one_by_one.chain(streams).collect();
    while !tasks.iter().all(|task| task.is_finished()) {
        tokio::time::sleep(PERIOD).await;
        accepted.read(&server);
        metrics.run_upkeep();
        let done = messages.next.load(Ordering::Relaxed).min(count);
        if done * 10 / count > memory.len() {
            memory.push(support::status("VmRSS:"));
        }
    }
    for task in tasks {
        task.await.expect("it sends");
    }
    let seconds = began.elapsed().as_secs_f64();
    let open = pool.close().await;
    // What the server accepts after its client has given up, too.
    tokio::time::sleep(3 * TIMEOUT).await;
    accepted.read(&server);

    println!(
        "{:.0} messages a second, {} in streams, {} connections",
        count as f64 / seconds,
        messages.in_streams.load(Ordering::Relaxed),
        server.connections().len()
    );
    println!("memory after each tenth, in KiB: {memory:.0?}");
    let text = metrics.render();
    let mut problems = std::mem::take(&mut *messages.problems.lock().expect("the problems"));
    problems.extend(accepted.compare(&messages, &text));
    for gauge in ["envoi_sends_in_progress", "envoi_open_connections"] {
        if sum(&text, gauge, "") != 0 {
            problems.push(format!("{gauge} is not 0 after the end"));
        }
    }
    if open != 0 {
        problems.push(format!("{open} calls are left when the pool is closed"));
    }
    let grown = memory.last().unwrap_or(&0.0) - memory.first().unwrap_or(&0.0);
    if grown > GROWTH_KIBIBYTES {
        problems.push(format!("memory has grown by {grown} KiB"));
    }
    problems
}

async fn server(seed: u64) -> Server {
    let mut builder = Server::builder().login("alice", "secret").offer("CHUNKING");
    for (fault, seed) in FAULTS.iter().zip(seed..) {
        builder = builder.fault(fault().one_in(ONE_IN, seed));
    }
    let greeting = Fault::reply(Step::Greeting, "421 4.3.2 Too many connections");
    let builder = builder.fault(greeting.one_in(20, seed));
    builder.start().await.expect("a server")
}

fn pool(server: &Server) -> Pool {
    let endpoint = Endpoint::from_url(&server.url()).expect("the server's URL");
    let endpoint = endpoint.timeouts(Timeouts::uniform(TIMEOUT));
    let mut retries = RetryPolicy::new(2);
    retries.initial_backoff = Duration::from_millis(5);
    let mut limits = PoolConfig::new(CONNECTIONS);
    limits.max_messages = 500;
    Client::new(endpoint).retries(retries).pool(limits)
}

async fn send_each(pool: Pool, messages: Arc<Messages>) {
    while let Some(number) = messages.take() {
        messages.record(number, &pool.send(message(number)).await);
    }
}

async fn send_streams(pool: Pool, messages: Arc<Messages>) {
    while !messages.are_taken() {
        let taken = Mutex::new(VecDeque::new());
        let numbers = iter::from_fn(|| messages.take()).take(IN_STREAM);
        let stream = stream::iter(numbers).map(|number| {
            taken.lock().expect("the numbers").push_back(number);
            message(number)
        });
        let mut results = pin!(pool.send_all(stream));
        while let Some(result) = results.next().await {
            let number = taken.lock().expect("the numbers").pop_front();
            match (number, &result) {
                (Some(number), _) => {
                    messages.in_streams.fetch_add(1, Ordering::Relaxed);
                    messages.record(number, &result);
                }
                // No connection, or one that was lost between two messages.
                (None, Err(_)) => {}
                (None, Ok(receipt)) => messages.fail(format!("a receipt too many: {receipt:?}")),
            }
        }
    }
}

fn recipient(number: usize) -> String {
    format!("no.{number}@example.com")
}

/// A message of up to 4 KB, and one in a hundred of 100 KB.
fn message(number: usize) -> Message<'static> {
    let lines = match number % 100 {
        99 => 2_000,
        rest => rest,
    };
    let mail = MessageBuilder::new()
        .from("me@example.org")
        .to(recipient(number))
        .subject(format!("Message {number}"))
        .text_body("A line of text, which is forty bytes long.\n".repeat(lines));
    Message::from(mail)
}

/// How often the server has accepted each message.
struct Accepted(Vec<u32>);

impl Accepted {
    /// Reads the messages that the server has accepted since.
    fn read(&mut self, server: &Server) {
        for message in server.take_messages() {
            let [recipient] = &message.recipients[..] else {
                panic!("a message to {:?}", message.recipients)
            };
            let number = recipient.split(['.', '@']).nth(1);
            let number = number.and_then(|number| number.parse::<usize>().ok());
            let number = number.expect("the recipient has the number");
            // The whole message, and not that of another transaction.
            message.assert_contains(&format!("Subject: Message {number}\n"));
            self.0[number] += 1;
        }
    }

    /// Compares with the results at the client, and with the metrics.
    fn compare(&self, messages: &Messages, metrics: &str) -> Vec<String> {
        let mut problems = Vec::new();
        for (number, (outcome, times)) in messages.outcomes.iter().zip(&self.0).enumerate() {
            match (outcome.get(), times) {
                (Some(Outcome::Accepted), 1) | (Some(Outcome::Unknown), 0 | 1) => {}
                (Some(Outcome::Transient | Outcome::Permanent), 0) => {}
                (outcome, times) => problems.push(format!(
                    "message {number}: {outcome:?} at the client, {times} times at the server"
                )),
            }
        }
        for (outcome, label) in Outcome::ALL {
            let numbers = messages.outcomes.iter().zip(&self.0);
            let of_kind = numbers.filter(|(it, _)| it.get() == Some(&outcome));
            let times: Vec<u32> = of_kind.map(|(_, times)| *times).collect();
            let accepted: u32 = times.iter().sum();
            println!(
                "{label}: {}, of which the server has {accepted}",
                times.len()
            );
            let labels = format!("outcome=\"{label}\"");
            let counted = sum(metrics, "envoi_messages_total", &labels);
            if counted != times.len() as u64 {
                problems.push(format!("the metrics count {counted} messages as {label}"));
            }
        }
        let counted = sum(metrics, "envoi_messages_total", "");
        if counted != messages.outcomes.len() as u64 {
            problems.push(format!("the metrics count {counted} messages"));
        }
        println!("retries: {}", sum(metrics, "envoi_retries_total", ""));
        problems
    }
}

/// The sum of the values of a metric with these labels.
fn sum(metrics: &str, name: &str, labels: &str) -> u64 {
    let lines = metrics.lines().filter_map(|line| line.rsplit_once(' '));
    let lines = lines.filter(|(metric, _)| metric.starts_with(&format!("{name}{{")));
    let lines = lines.filter(|(metric, _)| metric.contains(labels));
    lines
        .map(|(_, value)| value.parse::<u64>().expect("a whole number"))
        .sum()
}
