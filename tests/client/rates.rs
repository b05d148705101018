//! Rate limits: what waits, what counts, and what ends a wait.

use std::time::Duration;

use envoi::testing::Server;
use envoi::{Client, Endpoint, ErrorKind, Message, Rate, RateLimiter, RateLimits};
use futures::StreamExt as _;
use futures::future::join_all;
use support::{hello, hello_to};
use tokio::net::TcpListener;
use tokio::time::Instant;

const HOUR: Rate = Rate::per_hour(1);

async fn plain() -> Server {
    Server::builder().plaintext().start().await.unwrap()
}

#[tokio::test]
async fn a_rate_holds_for_clones_and_pools_together() {
    let server = plain().await;
    let window = Duration::from_millis(300);
    let client = Client::from_url(&server.url())
        .unwrap()
        .rate_limit(Rate::new(3, window));
    let pool = client.pool(4);
    let began = Instant::now();
    let by_pool = (0..4).map(async |_| pool.send(hello()).await);
    let by_clones = (0..3).map(async |_| client.clone().send(hello()).await);
    let (by_pool, by_clones) = tokio::join!(join_all(by_pool), join_all(by_clones));
    for receipt in by_pool.into_iter().chain(by_clones) {
        assert!(receipt.unwrap().all_accepted());
    }
    // The seventh starts in the third window.
    assert!(began.elapsed() >= window * 2);
    assert_eq!(server.messages().len(), 7);
}

#[tokio::test]
async fn a_stream_of_messages_waits_for_the_rate() {
    let server = plain().await;
    let window = Duration::from_millis(200);
    let limits = RateLimits::new().per_domain(Rate::new(2, window));
    let pool = Client::from_url(&server.url())
        .unwrap()
        .rate_limit(limits)
        .pool(1);
    let began = Instant::now();
    let messages = futures::stream::iter(0..5).map(|_| Message::from(hello()));
    let receipts: Vec<_> = pool.send_all(messages).collect().await;
    assert!(
        receipts
            .into_iter()
            .all(|receipt| receipt.unwrap().all_accepted())
    );
    assert!(began.elapsed() >= window * 2);
}

#[tokio::test]
async fn waiting_counts_against_the_deadline() {
    let server = plain().await;
    let endpoint = Endpoint::from_url(&server.url()).unwrap();
    // The limiter is shared by clients.
    let limiter = RateLimiter::new(RateLimits::new().per_domain(HOUR));
    let first = Client::new(endpoint.clone()).rate_limit(limiter.clone());
    assert!(first.send(hello()).await.unwrap().all_accepted());
    let hurried = Client::new(endpoint.deadline(Duration::from_millis(100))).rate_limit(limiter);
    for result in [
        hurried.send(hello()).await,
        hurried.pool(1).send(hello()).await,
        hurried
            .pool(1)
            .send_all(futures::stream::iter([Message::from(hello())]))
            .collect::<Vec<_>>()
            .await
            .remove(0),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.is_transient());
        let expected = "the rate limit left no turn before the deadline of 100ms";
        assert!(error.message().ends_with(expected), "{error}");
    }
    // Another domain has its own rate, and has to wait for nothing.
    let receipt = hurried.send(hello_to(&["you@example.net"])).await;
    assert!(receipt.unwrap().all_accepted());
    assert_eq!(server.messages().len(), 2);
}

#[tokio::test]
async fn a_message_without_a_connection_is_not_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let endpoint = Endpoint::from_url(&format!("smtp://127.0.0.1:{port}?tls=none")).unwrap();
    let client = Client::new(endpoint.deadline(Duration::from_secs(10))).rate_limit(HOUR);
    for _ in 0..3 {
        let error = client.send(hello()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    }
}

#[tokio::test]
async fn closing_a_pool_ends_the_wait_for_the_rate() {
    let server = plain().await;
    let pool = Client::from_url(&server.url())
        .unwrap()
        .rate_limit(HOUR)
        .pool(2);
    assert!(pool.send(hello()).await.unwrap().all_accepted());
    let waiting = pool.send(hello());
    let (waiting, left) = tokio::join!(waiting, pool.close());
    assert_eq!(waiting.unwrap_err().kind(), ErrorKind::PoolClosed);
    assert_eq!(left, 0);
    assert_eq!(server.messages().len(), 1);
}
