//! A pool against real servers: how many connections they see, and what becomes of one that they
//! close meanwhile.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use envoi::mail_builder::MessageBuilder;
use envoi::{Address, Client, Endpoint, Message, Pool, PoolConfig};
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};

use crate::servers::{ALICE, NO_LOGIN, Server, both, dovecot, exim, postfix, someone, special};
use crate::settings::hello;

async fn send(pool: &Pool, to: &Address) -> u32 {
    let receipt = pool.send(hello(to)).await.unwrap();
    assert!(receipt.all_accepted());
    receipt.round_trips
}

/// Twenty tasks, so many messages each, and four connections; all arrive once.
async fn send_from_tasks(client: Client, server: &Server, each: usize) {
    let pool = client.pool(4);
    let tasks = (0..20).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let to: Vec<Address> = (0..each).map(|_| someone("pool")).collect();
            for to in &to {
                send(&pool, to).await;
            }
            to
        })
    });
    let recipients = join_all(tasks).await;
    pool.close().await;
    for to in recipients.into_iter().flat_map(Result::unwrap) {
        assert_eq!(
            server.delivered(&to).await.message,
            hello(&to).write_to_vec().unwrap()
        );
    }
}

/// From an address by which the log tells it from the clients of other tests.
fn client(url: &str, address: [u8; 4]) -> Client {
    Client::new(Endpoint::from_url(url).unwrap().bind(IpAddr::from(address)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers"]
async fn twenty_tasks_share_four_connections() {
    let server = postfix();
    send_from_tasks(client(&server.starttls(ALICE), [127, 0, 0, 77]), server, 10).await;
    let here = "from unknown[127.0.0.77]";
    server
        .until_logged(4, &["disconnect", here, "quit=1"])
        .await;
    assert_eq!(server.logged(&[": connect", here]), 4);
    assert_eq!(server.logged(&["lost connection", here]), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers"]
async fn twenty_tasks_share_a_pool_on_each_server() {
    for server in both() {
        send_from_tasks(Client::from_url(&server.plain()).unwrap(), server, 2).await;
    }
    let dovecot = dovecot();
    for url in dovecot.lmtp() {
        send_from_tasks(Client::from_url(&url).unwrap(), &dovecot.server, 2).await;
    }
}

/// Postfix says 421 and closes; the next message finds that out, and goes over a new connection.
#[tokio::test]
#[ignore = "needs real servers"]
async fn a_connection_closed_by_421_is_replaced() {
    let server = special("HASTY");
    let pool = client(&server.starttls(NO_LOGIN), [127, 0, 0, 78]).pool(1);
    let here = "from unknown[127.0.0.78]";
    let to = [someone("idle"), someone("idle"), someone("idle")];
    let first = send(&pool, &to[0]).await;
    assert_eq!(send(&pool, &to[1]).await, 1);
    server.until_logged(1, &["timeout after", here]).await;
    assert_eq!(
        send(&pool, &to[2]).await,
        first,
        "as over any new connection"
    );
    pool.close().await;
    assert_eq!(server.logged(&[": connect", here]), 2);
    for to in &to {
        assert_eq!(
            server.delivered(to).await.message,
            hello(to).write_to_vec().unwrap()
        );
    }
}

/// Exim takes so many messages in a connection, answers 421 to each MAIL beyond, and closes no
/// connection.
const EXIM_LIMIT: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers"]
async fn send_all_stops_at_exims_message_limit() {
    let server = exim();
    // To the second one, Exim offers no CHUNKING.
    for (address, chunking) in [([127, 0, 0, 80], true), ([127, 0, 0, 79], false)] {
        let mut connection = client(&server.plain(), address).connect().await.unwrap();
        assert_eq!(connection.capabilities().offers("CHUNKING"), chunking);
        let (to, taken) = (someone("queued"), AtomicUsize::new(0));
        let messages = stream::iter(0..1100).map(|number| {
            taken.fetch_add(1, Ordering::Relaxed);
            numbered(&to, number)
        });
        let outcomes: Vec<_> = connection.send_all(messages).collect().await;
        assert!(
            outcomes.len() > EXIM_LIMIT && outcomes.len() == taken.into_inner(),
            "{}",
            outcomes.len()
        );
        for (number, outcome) in outcomes.into_iter().enumerate() {
            assert_eq!(
                outcome.is_ok(),
                number < EXIM_LIMIT,
                "{number}: {outcome:?}"
            );
            if let Err(error) = outcome {
                assert!(error.is_transient() && !error.outcome_unknown(), "{error}");
                assert_eq!(error.reply().unwrap().code(), 421, "{error}");
            }
        }
        assert_eq!(arrived(server, &to), (0..EXIM_LIMIT).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers"]
async fn a_pool_continues_after_exims_message_limit() {
    let server = exim();
    for address in [[127, 0, 0, 80], [127, 0, 0, 79]] {
        let mut limits = PoolConfig::new(1);
        limits.max_messages = usize::MAX;
        let pool = client(&server.plain(), address).pool(limits);
        let to = someone("queued");
        let messages = stream::iter(0..1100).map(|number| numbered(&to, number));
        let outcomes: Vec<_> = pool.send_all(messages).collect().await;
        assert_eq!(outcomes.len(), 1100);
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(arrived(server, &to), (0..1100).collect::<Vec<_>>());
        pool.close().await;
    }
}

fn numbered(to: &Address, number: usize) -> Message<'static> {
    let mail = MessageBuilder::new()
        .from("me@envoi.test")
        .to(to.as_str().to_owned());
    Message::from(
        mail.subject(format!("Number {number}"))
            .text_body("Hello.\n"),
    )
}

/// The numbers of those that Exim accepted.
fn arrived(server: &Server, to: &Address) -> Vec<usize> {
    let number = |headers: String| {
        let (_, rest) = headers.split_once("Subject: Number ").unwrap();
        rest.lines().next().unwrap().trim().parse().unwrap()
    };
    let mut numbers: Vec<usize> = server.queued(to).into_iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_check_works_with_each_server_and_sends_nothing() {
    for server in both() {
        for url in [server.starttls(ALICE), server.implicit(ALICE)] {
            let pool = Client::from_url(&url).unwrap().pool(2);
            let report = pool.warm_up(2).await.unwrap();
            assert!(report.tls.as_ref().unwrap().is_verified(), "{report}");
            assert!(report.mechanism.is_some() && report.capabilities.size_limit().is_some());
            assert_eq!(report.certificates.len(), 2, "{:?}", report.certificates);
            // Both connections answer NOOP.
            assert!(pool.check().await.is_ok());
            let to = someone("check");
            send(&pool, &to).await;
            let _ = server.delivered(&to).await;
            pool.close().await;
        }
    }
    for url in dovecot().lmtp() {
        let report = Client::from_url(&url).unwrap().check().await.unwrap();
        // STARTTLS is of use over TCP, not at a socket.
        let is_tcp = url.starts_with("lmtp:");
        assert_eq!(report.advice.len(), usize::from(is_tcp), "{report}");
        assert!(
            report
                .advice
                .iter()
                .all(|advice| advice.ends_with("Say tls=required."))
        );
    }
}

#[cfg(feature = "failover")]
#[tokio::test]
#[ignore = "needs real servers"]
async fn the_next_server_takes_what_the_first_refuses_for_the_moment() {
    let [exim, postfix] = [exim(), postfix()];
    // The password is wrong at the first; nothing listens at the second.
    let wrong = exim.starttls(ALICE).replace("dummy", "wrong");
    let closed = "smtp://127.0.0.1:1?tls=none";
    let urls = [
        wrong,
        closed.to_owned(),
        postfix.starttls(ALICE),
        exim.plain(),
    ];
    let servers = urls.iter().map(|url| Client::from_url(url).unwrap().into());
    let failover = envoi::Failover::new(servers);
    let to = someone("failover");
    let receipt = failover.send(hello(&to)).await.unwrap();
    assert!(receipt.all_accepted());
    assert_eq!(receipt.transactions, 1);
    let _ = postfix.delivered(&to).await;
}
