//! A pool against real servers: how many connections they see, and what becomes of one that they close meanwhile.

use std::net::IpAddr;

use envoi::{Address, Client, Endpoint, Pool};
use futures::future::join_all;

use crate::servers::{ALICE, NOBODY, Server, both, dovecot, postfix, someone, special};
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
        assert_eq!(server.delivered(&to).await.message, hello(&to).write_to_vec().unwrap());
    }
}

/// From an address by which the log tells it from the clients of other tests.
fn client(url: &str, address: [u8; 4]) -> Client {
    Client::new(Endpoint::from_url(url).unwrap().bind(IpAddr::from(address)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers"]
async fn twenty_tasks_and_four_connections() {
    let server = postfix();
    send_from_tasks(client(&server.starttls(ALICE), [127, 0, 0, 77]), server, 10).await;
    let here = "from unknown[127.0.0.77]";
    server.until_logged(4, &["disconnect", here, "quit=1"]).await;
    assert_eq!(server.logged(&[": connect", here]), 4);
    assert_eq!(server.logged(&["lost connection", here]), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers"]
async fn twenty_tasks_and_other_servers() {
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
async fn a_connection_that_the_server_gave_up() {
    let server = special("HASTY");
    let pool = client(&server.starttls(NOBODY), [127, 0, 0, 78]).pool(1);
    let here = "from unknown[127.0.0.78]";
    let to = [someone("idle"), someone("idle"), someone("idle")];
    let first = send(&pool, &to[0]).await;
    assert_eq!(send(&pool, &to[1]).await, 1);
    server.until_logged(1, &["timeout after", here]).await;
    assert_eq!(send(&pool, &to[2]).await, first, "as over any new connection");
    pool.close().await;
    assert_eq!(server.logged(&[": connect", here]), 2);
    for to in &to {
        assert_eq!(server.delivered(to).await.message, hello(to).write_to_vec().unwrap());
    }
}
