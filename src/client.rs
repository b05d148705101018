//! A [`Client`] sends messages to the server of an endpoint or URL, with one connection for each
//! message.

use std::pin::pin;
use std::str::FromStr;

use futures_util::future::BoxFuture;
use tokio::time::Instant;
#[cfg(feature = "rate-limit")]
use tokio::time::timeout_at;

use crate::connection::clock::Clock;
use crate::connection::prepare_by;
use crate::error::{Error, Result};
#[cfg(feature = "rate-limit")]
use crate::error::{ErrorKind, Phase};
use crate::message::{Message, PreparedMessage};
use crate::receipt::{Delivery, Receipt};
use crate::tls::TrustSummary;
use crate::{Connection, Endpoint, Envelope, telemetry};
#[cfg(feature = "rate-limit")]
use crate::{RateLimiter, RatePermit};
#[cfg(feature = "retries")]
use crate::{RetryPolicy, retry};

/// Sends messages: opens a connection, logs in, sends, quits. To send many messages to one server,
/// keep a [`Connection`] from [`connect`](Self::connect), or use `Client::pool` (feature `pool`)
/// from several tasks.
///
/// Cheap to clone. All clients of the process with equal [TLS
/// settings](crate::tls::TlsSettings#sharing) share the trust store and the TLS sessions.
///
/// ```no_run
/// use envoi::Client;
/// use envoi::mail_builder::MessageBuilder;
///
/// # async fn example() -> envoi::Result<()> {
/// let client = Client::from_url("smtp://alice%40example.org:secret@mail.example.org:587")?;
/// let message = MessageBuilder::new()
///     .from("alice@example.org")
///     .to("bob@example.com")
///     .subject("Hello")
///     .text_body("Hello Bob.");
/// let receipt = client.send(message).await?;
/// for recipient in receipt.not_accepted() {
///     eprintln!("{} will not get it: {:?}", recipient.address, recipient.outcome);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    #[cfg(feature = "retries")]
    retries: Option<RetryPolicy>,
    #[cfg(feature = "rate-limit")]
    rate_limiter: Option<RateLimiter>,
}

impl Client {
    /// Creates a client for the server that the endpoint describes.
    pub fn new(endpoint: Endpoint) -> Self {
        Client {
            endpoint,
            #[cfg(feature = "retries")]
            retries: None,
            #[cfg(feature = "rate-limit")]
            rate_limiter: None,
        }
    }

    /// Creates a client from a URL, in the format of [`Endpoint::from_url`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request): the URL is not valid. The message does
    /// not contain the password.
    pub fn from_url(url: &str) -> Result<Self> {
        Endpoint::from_url(url).map(Client::new)
    }

    /// Sets when and how often a message is retried after a transient failure; by default, it is
    /// not.
    #[cfg(feature = "retries")]
    #[must_use]
    pub fn retries(mut self, retries: RetryPolicy) -> Self {
        self.retries = Some(retries);
        self
    }

    /// Limits how many messages start in a given time: those of this client, of its later clones
    /// and of their pools together. A call waits for its turn, within the
    /// [deadline](crate::Timeouts::deadline) and otherwise for as long as it takes. Messages over a
    /// [`Connection`] of the caller are not limited; see [`RateLimiter::acquire`].
    ///
    /// ```
    /// use envoi::{Client, Rate};
    ///
    /// # fn example() -> envoi::Result<()> {
    /// let client = Client::from_url("smtp://mail.example.org")?.rate_limit(Rate::per_second(10));
    /// # Ok(())
    /// # }
    /// # example().unwrap();
    /// ```
    #[cfg(feature = "rate-limit")]
    #[must_use]
    pub fn rate_limit(mut self, limiter: impl Into<RateLimiter>) -> Self {
        self.rate_limiter = Some(limiter.into());
        self
    }

    /// The limiter that messages wait for.
    #[cfg(feature = "rate-limit")]
    pub fn get_rate_limit(&self) -> Option<&RateLimiter> {
        self.rate_limiter.as_ref()
    }

    /// The endpoint of the server.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Loads the trust anchors and the client certificate again, for later connections of all
    /// clients with equal TLS settings. Returns the new trust anchors. A changed file is [noticed
    /// within a minute](crate::tls::TlsSettings#sharing) anyway; use this to load it at once, or to
    /// see whether that fails.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), see
    /// [`Trust::load`](crate::tls::Trust::load). Nothing changes in this case.
    ///
    /// ```no_run
    /// # async fn renewed(client: envoi::Client) -> envoi::Result<()> {
    /// println!("{}", client.reload_trust().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it may load the certificates all the same.
    pub async fn reload_trust(&self) -> Result<TrustSummary> {
        self.endpoint.reload_trust().await
    }

    /// Opens a connection, secured and logged in, for any number of messages.
    ///
    /// # Errors
    ///
    /// See [`Connection::connect`].
    ///
    /// # Cancel safety
    ///
    /// As for [`Connection::connect`].
    pub async fn connect(&self) -> Result<Connection> {
        Connection::connect(&self.endpoint).await
    }

    /// Sends a message over a new connection; over several, if the server accepts fewer messages in
    /// a session than the message has transactions (see [`Connection::send`]).
    ///
    /// # Errors
    ///
    /// Bad input is reported before connecting. An error means that no recipient was accepted, or
    /// that the outcome is unknown ([`Error::outcome_unknown`]); [`Error::receipt`] has the outcome
    /// for each recipient. If some recipients were accepted and others refused, the result is a
    /// receipt, which lists both.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it closes its connection, and no further attempt is made. The
    /// message was not sent, unless all of it had been written: then it may have been delivered.
    /// [`guide::interruptions`](crate::guide::interruptions) has the details, also of connections
    /// that are lost and programs that end.
    pub async fn send(&self, message: impl Into<Message<'_>>) -> Result<Receipt> {
        self.send_boxed(message.into()).await
    }

    /// Boxed, since the future is large and every future that awaits it would be too. As a trait
    /// object, since its code would otherwise be compiled again in each crate that awaits it.
    fn send_boxed<'a>(&'a self, message: Message<'a>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(
            self.send_by(message, move |message, clock, started| async move {
                self.attempt(&mut Some(message), clock, started).await
            }),
        )
    }

    /// Prepares a message and sends it, with as many attempts as the retry policy allows.
    pub(crate) async fn send_by<F: Future<Output = Result<Receipt>>>(
        &self,
        message: Message<'_>,
        attempt: impl Fn(PreparedMessage, Clock, Instant) -> F,
    ) -> Result<Receipt> {
        // Pinned here, as each function that takes the future would move it.
        let sending = pin!(self.prepare_and_send(message, attempt));
        telemetry::in_send(&self.endpoint.server, sending).await
    }

    async fn prepare_and_send<F: Future<Output = Result<Receipt>>>(
        &self,
        message: Message<'_>,
        attempt: impl Fn(PreparedMessage, Clock, Instant) -> F,
    ) -> Result<Receipt> {
        let started = Instant::now();
        let mut clock = Clock::start(&self.endpoint.timeouts);
        let message = prepare_by(&clock, message).await?;
        self.endpoint
            .check()
            .map_err(|error| with_recipients(error, &self.endpoint, message.envelope(), started))?;
        clock.allow_for(message.envelope.recipients().len(), &self.endpoint.timeouts);
        let attempt = |message, clock| attempt(message, clock, started);
        #[cfg(feature = "retries")]
        if let Some(retries) = &self.retries {
            let attempt = |message| attempt(message, clock.clone());
            let all_or_nothing = self.endpoint.all_or_nothing;
            let result = retry::send(retries, &clock, all_or_nothing, message, attempt);
            return result
                .await
                .map(|receipt| receipt.with_elapsed(started.elapsed()));
        }
        let result = attempt(message, clock).await;
        result.map(|receipt| receipt.with_elapsed(started.elapsed()))
    }

    /// Waits until the rate limit allows a message with this envelope, within the deadline.
    #[cfg(feature = "rate-limit")]
    pub(crate) async fn turn(&self, envelope: &Envelope, clock: &Clock) -> Result<Turn> {
        let Some(limiter) = &self.rate_limiter else {
            return Ok(Turn(None));
        };
        let waiting = limiter.acquire(envelope);
        let turn = async {
            let Some((at, length)) = clock.deadline() else {
                return Ok(waiting.await);
            };
            timeout_at(at, waiting).await.map_err(|_| {
                let message =
                    format!("the rate limit left no turn before the deadline of {length:?}");
                Error::new(ErrorKind::Timeout, Phase::Setup, message).with_hint(
                    "Nothing was sent; it can be tried again. Allow a higher rate, if the server \
                        does (RateLimits), or a later deadline (Timeouts), or give fewer messages \
                        at a time.",
                )
            })
        };
        let permit = telemetry::in_span("rate_wait", &self.endpoint.server, pin!(turn)).await?;
        Ok(Turn(Some(permit)))
    }

    #[cfg(not(feature = "rate-limit"))]
    pub(crate) async fn turn(&self, _: &Envelope, _: &Clock) -> Result<Turn> {
        Ok(Turn)
    }

    /// Makes one attempt to send a message over a new connection. The message is taken when the
    /// transaction starts.
    pub(crate) async fn attempt(
        &self,
        message: &mut Option<PreparedMessage>,
        clock: Clock,
        started: Instant,
    ) -> Result<Receipt> {
        let envelope = &message.as_ref().expect(HAS_MESSAGE).envelope;
        let connect = async {
            let turn = self.turn(envelope, &clock).await?;
            let connection = Connection::connect_by(&self.endpoint, clock).await?;
            turn.start();
            Ok(connection)
        };
        let mut connection = match connect.await {
            Ok(connection) => connection,
            Err(error) => return Err(with_recipients(error, &self.endpoint, envelope, started)),
        };
        let message = message.take().expect(HAS_MESSAGE);
        let result = connection
            .send_prepared(message, started, Some(&self.endpoint))
            .await;
        connection.quit_detached().await;
        result
    }
}

/// Why an attempt can take its message.
pub(crate) const HAS_MESSAGE: &str = "an attempt has a message";

/// The turn of a message, which starts once a connection is ready for it.
#[cfg(feature = "rate-limit")]
pub(crate) struct Turn(Option<RatePermit>);
#[cfg(not(feature = "rate-limit"))]
pub(crate) struct Turn;

impl Turn {
    pub(crate) fn start(self) {
        #[cfg(feature = "rate-limit")]
        if let Some(permit) = self.0 {
            permit.consume();
        }
    }
}

/// Adds an outcome for each recipient to the error of a connection that could not be opened.
pub(crate) fn with_recipients(
    mut error: Error,
    endpoint: &Endpoint,
    envelope: &Envelope,
    started: Instant,
) -> Error {
    let receipt = error
        .take_receipt()
        .unwrap_or_else(|| Receipt::new(endpoint.server_name()));
    let untried = Delivery::untried(
        envelope.recipients(),
        error.is_transient(),
        error.reply().cloned(),
    );
    let receipt = receipt
        .with_untried(untried)
        .with_elapsed(started.elapsed());
    error.with_receipt(receipt)
}

impl FromStr for Client {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Client::from_url(url)
    }
}
