//! The client for programs without async (feature `blocking`): [`Client`], [`Connection`] and
//! [`Pool`] with the methods of their async namesakes.
//!
//! ```no_run
//! use envoi::blocking::Client;
//! use envoi::mail_builder::MessageBuilder;
//!
//! fn main() -> envoi::Result<()> {
//!     let client = Client::from_url("smtp://alice%40example.org:secret@mail.example.org")?;
//!     let mail = MessageBuilder::new()
//!         .from("alice@example.org")
//!         .to("bob@example.com")
//!         .subject("Hello")
//!         .text_body("Hello Bob.");
//!     let receipt = client.send(mail)?;
//!     for recipient in receipt.not_accepted() {
//!         eprintln!("{} will not get it: {:?}", recipient.address, recipient.outcome);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! The program needs no dependency on tokio. Messages, endpoints, receipts and errors are those of
//! the async client, and each type is converted from its namesake by `From`, and into it, except a
//! [`Connection`]: the runtime of blocking calls polls its socket only during such calls. So a pool
//! that is used both ways has connections for blocking calls, and others for async calls.
//!
//! # Cost
//!
//! The first call creates a runtime, which all clients of the process share: two file descriptors,
//! and no thread. Each call runs on the thread that makes it, so threads send at the same time, and
//! a connection that is not in use costs what it costs the async client. Attachments are read on
//! threads that end after 10 seconds without work. The feature adds no crate.
//!
//! # Within an async program
//!
//! A call blocks its thread. Made by a task of a tokio runtime, it would stop all other tasks on
//! the same thread, possibly for good: so it fails at once, with
//! [`ErrorKind::Config`](crate::ErrorKind::Config). In [`tokio::task::spawn_blocking`] and
//! `block_in_place`, and on threads of your own, calls are permitted. A task within
//! [`tokio::task::unconstrained`] is not recognized, and tokio panics.
//!
//! Values may be created and dropped anywhere. The functions that a message or endpoint calls
//! ([`Message::progress`](crate::Message::progress), token sources) run inside the runtime, and
//! cannot make blocking calls.
//!
//! # Time-outs
//!
//! A call cannot be cancelled; [`Timeouts::deadline`](crate::Timeouts::deadline) limits it.

mod chunks;
mod connection;
mod data_writer;
#[cfg(feature = "mx")]
mod mx;
#[cfg(feature = "pool")]
mod pool;
mod reader;
mod runtime;
mod send_all;

use std::str::FromStr;

use crate::error::{Error, Result};
use crate::tls::TrustSummary;
use crate::{CheckReport, Endpoint, Message, Receipt};

pub use chunks::{chunks, prepare};
pub use connection::Connection;
pub use data_writer::DataWriter;
#[cfg(feature = "mx")]
pub use mx::MxClient;
#[cfg(feature = "pool")]
pub use pool::Pool;
pub use reader::reader;
use runtime::block_on;

/// Sends messages, and blocks until each is sent. The blocking form of [`crate::Client`].
///
/// Cheap to clone; clones share the trust store and the TLS sessions. The [module](self) has an
/// example.
#[derive(Clone, Debug)]
pub struct Client(crate::Client);

impl Client {
    /// Creates a client for the server that the endpoint describes.
    pub fn new(endpoint: Endpoint) -> Self {
        Client(crate::Client::new(endpoint))
    }

    /// Creates a client from a URL, in the format of [`Endpoint::from_url`].
    ///
    /// # Errors
    ///
    /// As for [`crate::Client::from_url`].
    pub fn from_url(url: &str) -> Result<Self> {
        crate::Client::from_url(url).map(Client)
    }

    /// Sets when and how often a message is retried after a transient failure; by default, it is
    /// not.
    #[cfg(feature = "retries")]
    #[must_use]
    pub fn retries(self, retries: crate::RetryPolicy) -> Self {
        Client(self.0.retries(retries))
    }

    /// Limits the messages in a time, as [`crate::Client::rate_limit`] does.
    #[cfg(feature = "rate-limit")]
    #[must_use]
    pub fn rate_limit(self, limiter: impl Into<crate::RateLimiter>) -> Self {
        Client(self.0.rate_limit(limiter))
    }

    /// The endpoint of the server.
    pub fn endpoint(&self) -> &Endpoint {
        self.0.endpoint()
    }

    /// Loads the trust anchors and the client certificate again, for later connections.
    ///
    /// # Errors
    ///
    /// As for [`crate::Client::reload_trust`].
    pub fn reload_trust(&self) -> Result<TrustSummary> {
        block_on(self.0.reload_trust())
    }

    /// Checks whether messages can be sent, without sending one.
    ///
    /// # Errors
    ///
    /// As for [`crate::Client::check`].
    pub fn check(&self) -> Result<CheckReport> {
        block_on(self.0.check())
    }

    /// Opens a connection, secured and logged in, for any number of messages.
    ///
    /// # Errors
    ///
    /// As for [`crate::Client::connect`].
    pub fn connect(&self) -> Result<Connection> {
        block_on(self.0.connect()).map(Connection::from)
    }

    /// Sends a message over a new connection.
    ///
    /// # Errors
    ///
    /// As for [`crate::Client::send`].
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> Result<Receipt> {
        block_on(self.0.send(message))
    }

    /// Creates a pool of at most this many connections, or with other limits.
    #[cfg(feature = "pool")]
    #[must_use = "a pool that is dropped closes its connections"]
    pub fn pool(&self, limits: impl Into<crate::PoolConfig>) -> Pool {
        Pool::from(self.0.pool(limits))
    }
}

impl From<crate::Client> for Client {
    fn from(client: crate::Client) -> Self {
        Client(client)
    }
}

impl From<Client> for crate::Client {
    fn from(client: Client) -> Self {
        client.0
    }
}

impl FromStr for Client {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Client::from_url(url)
    }
}
