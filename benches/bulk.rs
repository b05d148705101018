//! The throughput of `Pool::send_all` with a journal, beside that without one: over four
//! connections to a server that answers each message after 10 ms.
//!
//! ```text
//! cargo bench --bench bulk                  # 2,000 messages, 5 rounds
//! cargo bench --bench bulk -- 500 --rounds 1
//! ```
//!
//! Both take turns in one process, with the server. Each message of the journal's rows is recorded
//! on the disk before it is handed over, and when it is answered. The journal is in the folder for
//! temporary files (`TMPDIR`): its disk decides how long a sync takes.

mod support;

use std::time::{Duration, Instant};

use envoi::mail_builder::MessageBuilder;
use envoi::testing::{Fault, Server, Step};
use envoi::{BulkConfig, Client, Journal, Message, Pool};
use futures::StreamExt as _;
use support::{Arguments, Spread};

const CONNECTIONS: u16 = 4;
const ANSWERED_AFTER: Duration = Duration::from_millis(10);

fn main() {
    let arguments = support::arguments();
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let count = words.first().and_then(|word| word.parse().ok());
    if count.is_some() {
        words.remove(0);
    }
    let arguments = Arguments::parse(&words);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime
        .expect("a runtime")
        .block_on(suite(count.unwrap_or(2_000), arguments.rounds));
}

async fn suite(count: usize, rounds: usize) {
    let slow = Fault::delay(Step::Accepted, ANSWERED_AFTER);
    let server = Server::builder().plaintext().offer("CHUNKING").fault(slow);
    let server = server.discard(true).start().await.expect("a server");
    let pool = Client::from_url(&server.url())
        .expect("a URL")
        .pool(CONNECTIONS);
    let folder = tempfile::tempdir().expect("a folder");
    let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let plain = rate(&pool, count, None).await;
        let path = folder.path().join(round.to_string());
        let journal = Journal::open(path).await.expect("a journal");
        let recorded = rate(&pool, count, Some(&journal)).await;
        journal.close().await.expect("a journal that is written");
        without.push(plain);
        with.push(recorded);
        ratios.push(recorded / plain);
    }
    println!("{:34}messages a second, median (range)", "");
    println!("{:34}{:.0}", "without a journal", Spread::of(without));
    println!("{:34}{:.0}", "with a journal", Spread::of(with));
    println!("{:34}{:.2}", "ratio", Spread::of(ratios));
}

/// The messages a second.
async fn rate(pool: &Pool, count: usize, journal: Option<&Journal>) -> f64 {
    let began = Instant::now();
    let messages = futures::stream::iter(0..count).map(|number| {
        let mail = MessageBuilder::new()
            .from("me@example.org")
            .to(address(number))
            .text_body("Hello.");
        let message = Message::from(mail);
        let Some(journal) = journal.cloned() else {
            return message;
        };
        message.on_handover(move |_| {
            let journal = journal.clone();
            async move { journal.hand_over(address(number)).await }
        })
    });
    let mut config = BulkConfig::default();
    config.ordered = false;
    let mut outcomes = std::pin::pin!(pool.send_all_with(messages, config));
    while let Some((number, outcome)) = outcomes.next().await {
        if let Some(journal) = journal {
            let _ = journal
                .record(address(number), &outcome)
                .expect("a journal that is written");
        }
        assert!(outcome.expect("a receipt").all_accepted());
    }
    count as f64 / began.elapsed().as_secs_f64()
}

fn address(number: usize) -> String {
    format!("user{number}@example.com")
}
