//! Jobs a second, compared with plain `send_all` over as many connections.

use std::time::{Duration, Instant};

use envoi::{Client, Envelope, Message};
use futures::{StreamExt as _, stream};

use crate::program::{run, stderr};
use crate::server::{Faults, Server};
use crate::stores::TestStore;
use crate::survival::{add_jobs, number};

const CONNECTIONS: usize = 4;
const MESSAGE: &str = "From: a@example.org\r\nSubject: Test\r\n\r\nHello.\r\n";

fn server() -> Server {
    Server::start(Faults {
        delay: Duration::from_millis(10),
        ..Faults::default()
    })
}

/// Sends messages without a store, and returns their number a second.
async fn send_all(messages: usize) -> f64 {
    let server = server();
    let pool = Client::from_url(&server.url())
        .unwrap()
        .pool(CONNECTIONS as u16);
    pool.warm_up(CONNECTIONS as u16).await.unwrap();
    let begun = Instant::now();
    let sending = (0..CONNECTIONS).map(|part| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let mut connection = pool.get().await.unwrap();
            let messages = (part..messages).step_by(CONNECTIONS).map(|number| {
                let to = format!("job{number}@example.com");
                let from = envoi::Address::new("a@example.org").unwrap();
                let envelope =
                    Envelope::new(Some(from), [envoi::Address::new(to).unwrap()]).unwrap();
                Message::raw(MESSAGE).envelope(envelope)
            });
            let outcomes = connection.send_all(stream::iter(messages));
            outcomes
                .for_each(|outcome| async move { assert!(outcome.unwrap().all_accepted()) })
                .await;
        })
    });
    for sent in sending.collect::<Vec<_>>() {
        sent.await.unwrap();
    }
    assert_eq!(server.accepted(), messages);
    messages as f64 / begun.elapsed().as_secs_f64()
}

/// Measures a store; the figures mean something in a release build on an idle machine.
fn measure(store: &TestStore) {
    let jobs = number("OUTBOX_JOBS", 1000);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let plain = runtime.block_on(send_all(jobs));
    add_jobs(store, jobs, 0);
    let server = server();
    let begun = Instant::now();
    let ended = run(store, &server.url(), &["--until-empty", "--connections=4"]);
    let rate = jobs as f64 / begun.elapsed().as_secs_f64();
    assert!(ended.status.success(), "{}", stderr(&ended));
    assert_eq!(server.accepted(), jobs);
    println!(
        "send_all {plain:.0}/s, outbox {rate:.0}/s: {:.2}",
        rate / plain
    );
}

#[test]
#[ignore = "a measurement"]
fn sqlite() {
    measure(&TestStore::sqlite());
}

#[test]
#[ignore = "a measurement; needs PostgreSQL"]
fn postgres() {
    measure(&TestStore::postgres());
}

#[test]
#[ignore = "a measurement; needs Redis"]
fn redis() {
    measure(&TestStore::redis());
}
