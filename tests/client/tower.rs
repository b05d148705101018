//! `Client` and `Pool` as services of tower, with its layers.

use std::future::{Ready, ready};
use std::io;
use std::pin::pin;
use std::time::Duration;

use envoi::testing::Server;
use envoi::{Client, Error, ErrorKind, Message, Pool, PoolConfig, Receipt};
use futures::FutureExt as _;
use futures::future::join_all;
use support::hello;
use tower::retry::Policy;
use tower::{Service as _, ServiceBuilder, ServiceExt as _};

fn message() -> Message<'static> {
    hello().into()
}

async fn pool(server: &Server, size: u16) -> Pool {
    Client::from_url(&server.url()).unwrap().pool(size)
}

#[tokio::test]
async fn a_ready_pool_has_a_connection_for_the_next_call() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let mut first = pool(&server, 1).await;
    let mut second = first.clone();
    first.ready().await.unwrap();
    // It stays ready, and a clone is not.
    first.ready().await.unwrap();
    let mut waiting = Box::pin(second.ready());
    assert!(waiting.as_mut().now_or_never().is_none());
    let sending = first.call(message());
    // The reservation went to the call, so this value waits like others.
    assert!(first.ready().now_or_never().is_none());
    // Or its place in the queue would stay taken.
    drop(first);
    assert!(sending.await.unwrap().all_accepted());
    let ready = waiting.await.unwrap();
    // A call without a reservation waits for its turn.
    let mut third = ready.clone();
    let mut unready = third.call(message());
    assert!(unready.as_mut().now_or_never().is_none());
    assert!(ready.call(message()).await.unwrap().all_accepted());
    assert!(unready.await.unwrap().all_accepted());
    assert_eq!(server.connections().len(), 1);
}

#[tokio::test]
async fn a_dropped_service_gives_its_connection_back() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let mut config = PoolConfig::new(1);
    config.acquire_timeout = Duration::from_millis(10);
    let pool = Client::from_url(&server.url()).unwrap().pool(config);
    let mut service = pool.clone();
    service.ready().await.unwrap();
    let error = pool.send(hello()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    // Becoming ready has no limit of the pool.
    let mut waiting = pool.clone();
    let mut waiting = pin!(waiting.ready());
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(service);
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_closed_pool_is_not_ready() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let mut service = pool(&server, 1).await;
    let mut reserved = service.clone();
    reserved.ready().await.unwrap();
    service.clone().close().await;
    let error = service.ready().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PoolClosed);
    assert_eq!(
        service.ready().await.unwrap_err().kind(),
        ErrorKind::PoolClosed
    );
    let error = reserved.call(message()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PoolClosed);
}

/// Retries transient failures, and copies the message by `try_clone`.
#[derive(Clone)]
struct Transient(usize);

impl Policy<Message<'static>, Receipt, Error> for Transient {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Message<'static>,
        result: &mut Result<Receipt, Error>,
    ) -> Option<Ready<()>> {
        self.0 = self.0.checked_sub(1)?;
        result
            .as_ref()
            .is_err_and(Error::is_transient)
            .then(|| ready(()))
    }

    fn clone_request(&mut self, message: &Message<'static>) -> Option<Message<'static>> {
        message.try_clone()
    }
}

#[tokio::test]
async fn the_layers_of_tower_apply() {
    let busy = std::sync::atomic::AtomicUsize::new(0);
    let answer = move |command: &str| {
        let is_first = command.starts_with("MAIL")
            && busy.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        is_first.then(|| "451 4.3.0 Try again".into())
    };
    let server = Server::builder().plaintext().answer(answer);
    let server = server.start().await.unwrap();
    let service = ServiceBuilder::new()
        .buffer(16)
        .concurrency_limit(4)
        .timeout(Duration::from_secs(60))
        .retry(Transient(2))
        .service(pool(&server, 2).await);
    let sending = (0..20).map(|_| service.clone().oneshot(message()));
    for receipt in join_all(sending).await {
        assert!(receipt.unwrap().all_accepted());
    }
    assert_eq!(server.messages().len(), 20);
    assert!(server.connections().len() <= 2);

    let mut client = Client::from_url(&server.url()).unwrap();
    assert!(
        client
            .ready()
            .await
            .unwrap()
            .call(message())
            .await
            .unwrap()
            .all_accepted()
    );
    // A message that hangs is dropped by the time-out.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}?tls=none", silent.local_addr().unwrap());
    let slow = ServiceBuilder::new()
        .timeout(Duration::from_millis(20))
        .service(Client::from_url(&url).unwrap());
    let error = slow.oneshot(message()).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>(), "{error}");
}

#[tokio::test]
async fn services_await_the_handover() {
    async fn check<S>(mut service: S)
    where
        S: tower::Service<Message<'static>, Response = Receipt, Error = Error>,
    {
        let message = message().on_handover(|_| async { Ok::<_, io::Error>(()) });
        let receipt = service.ready().await.unwrap().call(message).await.unwrap();
        assert!(receipt.all_accepted() && receipt.handed_over);
        let refused = message_refused();
        let error = service.ready().await.unwrap().call(refused).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Handover);
    }
    fn message_refused() -> Message<'static> {
        message().on_handover(|_| async { Err("the disk is full") })
    }
    let server = Server::builder().plaintext().start().await.unwrap();
    check(Client::from_url(&server.url()).unwrap()).await;
    check(pool(&server, 1).await).await;
    assert_eq!(server.messages().len(), 2);
}
