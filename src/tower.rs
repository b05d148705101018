//! [`Client`] and [`Pool`] as services of tower (feature `tower`).

use std::task::{Context, Poll};

use tower_service::Service;

#[cfg(feature = "pool")]
use crate::Pool;
use crate::mailer::SendFuture;
use crate::{Client, Error, Message, Receipt};

/// Sends a message over a new connection, so it is always ready. See [`Client::send`].
///
/// The layers of tower apply: a time-out, a concurrency limit, a buffer, retries. A policy of
/// `tower::retry` copies a message by [`Message::try_clone`], which should be
/// [prepared](Message::prepare) before, so that each attempt has the same Message-ID;
/// `Client::retries` retries only the recipients that need it, and never a message that may have
/// been delivered.
///
/// ```
/// # #[cfg(not(feature = "testing"))]
/// # fn main() {}
/// # #[cfg(feature = "testing")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// use std::time::Duration;
///
/// use envoi::mail_builder::MessageBuilder;
/// use envoi::{Client, Message, testing::Server};
/// use tower::{ServiceBuilder, ServiceExt};
///
/// let server = Server::start().await?;
/// let client = Client::from_url(&server.url())?;
/// let service = ServiceBuilder::new()
///     .concurrency_limit(10)
///     .timeout(Duration::from_secs(60))
///     .service(client);
/// let mail = MessageBuilder::new().from("me@example.org").to("you@example.com");
/// let receipt = service.oneshot(Message::from(mail.text_body("Hello."))).await?;
/// assert!(receipt.all_accepted());
/// # Ok(())
/// # }
/// ```
impl Service<Message<'static>> for Client {
    type Response = Receipt;
    type Error = Error;
    type Future = SendFuture<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, message: Message<'static>) -> SendFuture<'static> {
        let client = self.clone();
        Box::pin(async move { client.send(message).await })
    }
}

/// Sends a message over a connection of the pool. See [`Pool::send`].
///
/// It is ready when a connection is free, or may be opened, and reserves it for the next call,
/// which opens or replaces it where necessary. The wait has no limit but that of the caller,
/// because an error of `poll_ready` means that a service is of no more use: it fails only if the
/// pool was [closed](Pool::close).
///
/// The reservation belongs to this value: a clone must become ready itself. It ends with the call,
/// or when the value is dropped. Drop a value that is ready, or that waits to be, and is not used:
/// it keeps a connection, or its turn, from the others.
#[cfg(feature = "pool")]
impl Service<Message<'static>> for Pool {
    type Response = Receipt;
    type Error = Error;
    type Future = SendFuture<'static>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_reserve(cx)
    }

    fn call(&mut self, message: Message<'static>) -> SendFuture<'static> {
        let pool = self.take_reservation();
        Box::pin(async move { pool.send(message).await })
    }
}
