//! A [`Client`]: from a URL to sent, one connection for each message.

use std::str::FromStr;

use tokio::time::Instant;

use crate::connection::clock::Clock;
use crate::connection::prepare_by;
use crate::error::{Error, Result};
use crate::message::{Body, Message};
use crate::receipt::{Receipt, Recipient};
use crate::tls::TrustSummary;
use crate::{Connection, Endpoint, Envelope};
#[cfg(feature = "retries")]
use crate::{RetryPolicy, retry};

/// Sends messages: opens a connection, logs in, sends, quits. For many messages to one server, keep
/// a [`Connection`] instead, from [`connect`](Self::connect), or several, for all tasks, by
/// `Client::pool` (feature `pool`).
///
/// Cheap to clone, and clones share the trust store and the TLS sessions.
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
}

impl Client {
    /// A client for the server that the endpoint describes.
    pub fn new(endpoint: Endpoint) -> Self {
        Client {
            endpoint,
            #[cfg(feature = "retries")]
            retries: None,
        }
    }

    /// A client from a URL; [`Endpoint::from_url`] tells what may stand in it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request), with what is wrong in the URL, and
    /// without the password.
    pub fn from_url(url: &str) -> Result<Self> {
        Endpoint::from_url(url).map(Client::new)
    }

    /// Send a message again that failed for a reason that may pass; by default it is not.
    #[cfg(feature = "retries")]
    #[must_use]
    pub fn retries(mut self, retries: RetryPolicy) -> Self {
        self.retries = Some(retries);
        self
    }

    /// The server and how to talk with it.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Loads the trusted certificates and the client certificate again, for the connections made
    /// from now on: after a certificate was renewed, without a restart. Says what is trusted now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), as for
    /// [`Trust::load`](crate::tls::Trust::load). All stays as it was then.
    ///
    /// ```no_run
    /// # async fn renewed(client: envoi::Client) -> envoi::Result<()> {
    /// println!("{}", client.reload_trust().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reload_trust(&self) -> Result<TrustSummary> {
        self.endpoint.reload_trust().await
    }

    /// Opens a connection, secured and logged in, for any number of messages.
    ///
    /// # Errors
    ///
    /// As for [`Connection::connect`].
    pub async fn connect(&self) -> Result<Connection> {
        Connection::connect(&self.endpoint).await
    }

    /// Sends a message over a connection of its own; over several, where the server takes fewer
    /// messages in a session than the message has parts (see [`Connection::send`]).
    ///
    /// # Errors
    ///
    /// Bad input is found before anything is connected to. An error says that the message was
    /// accepted for nobody, or that nobody knows ([`Error::outcome_unknown`]); [`Error::receipt`]
    /// has the outcome for each recipient. Where the message was accepted for some and refused for
    /// others, the receipt tells who got it.
    pub async fn send(&self, message: impl Into<Message<'_>>) -> Result<Receipt> {
        let attempt = |envelope, body, clock, started| self.attempt(envelope, body, clock, started);
        self.send_by(message.into(), attempt).await
    }

    /// Prepares a message and has it sent: by one attempt, or as many as the retries allow.
    pub(crate) async fn send_by<F: Future<Output = Result<Receipt>>>(
        &self,
        message: Message<'_>,
        attempt: impl Fn(Envelope, Body, Clock, Instant) -> F,
    ) -> Result<Receipt> {
        let started = Instant::now();
        let mut clock = Clock::start(&self.endpoint.timeouts);
        self.endpoint.check()?;
        let (envelope, body) = prepare_by(&clock, message).await?;
        clock.allow_for(envelope.recipients().len(), &self.endpoint.timeouts);
        // In a box: it is large, and those who await it would be, too.
        let attempt = |envelope, body, clock| Box::pin(attempt(envelope, body, clock, started));
        #[cfg(feature = "retries")]
        if let Some(retries) = &self.retries {
            let attempt = |envelope, body| attempt(envelope, body, clock.clone());
            let all_or_nothing = self.endpoint.all_or_nothing;
            let mut result =
                retry::send(retries, &clock, all_or_nothing, envelope, body, attempt).await;
            if let Ok(receipt) = &mut result {
                receipt.elapsed = started.elapsed();
            }
            return result;
        }
        attempt(envelope, body, clock).await
    }

    async fn attempt(
        &self,
        envelope: Envelope,
        body: Body,
        clock: Clock,
        started: Instant,
    ) -> Result<Receipt> {
        let mut connection = match Connection::connect_by(&self.endpoint, clock).await {
            Ok(connection) => connection,
            Err(error) => return Err(with_recipients(error, &self.endpoint, &envelope, started)),
        };
        let result = connection
            .send_prepared(envelope, body, started, Some(&self.endpoint))
            .await;
        connection.quit_detached().await;
        let mut receipt = result?;
        receipt.elapsed = started.elapsed();
        Ok(receipt)
    }
}

/// The error of a connection that was not to be had, with what it says of the message.
pub(crate) fn with_recipients(
    mut error: Error,
    endpoint: &Endpoint,
    envelope: &Envelope,
    started: Instant,
) -> Error {
    let mut receipt = error
        .take_receipt()
        .unwrap_or_else(|| Receipt::nothing_sent(&endpoint.server_name()));
    let transient = error.is_transient();
    let untried = |address| Recipient {
        transient,
        ..Recipient::untried(address)
    };
    receipt.recipients = envelope.recipients().iter().cloned().map(untried).collect();
    receipt.reply = error.reply().cloned();
    receipt.elapsed = started.elapsed();
    error.with_receipt(receipt)
}

impl FromStr for Client {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Client::from_url(url)
    }
}
