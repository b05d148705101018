//! A trait to program against: [`Mailer`] sends messages, over SMTP or in another way.
//!
//! An application stores an `Arc<dyn Mailer>`, or takes an `impl Mailer`, and does not depend on
//! where its messages go:
//!
//! | Mailer | Feature | Where the messages go | For |
//! |---|---|---|---|
//! | [`Client`] | | to the server, over a connection for each message | few messages |
//! | [`Pool`] | `pool` | to the server, over connections that are kept open | services |
//! | [`Failover`](crate::Failover) | `failover` | to one of several servers | high availability |
//! | [`MxClient`](crate::mx::MxClient) | `mx` | to the servers of the recipients' domains | no relay |
//! | [`Sendmail`] | `sendmail` | to the MTA of this machine, without a connection | cron, jails |
//! | [`Directory`] | `directory` | into `.eml` files | development |
//! | [`Recorder`](crate::testing::Recorder) | `testing` | into memory | tests |
//!
//! ```
//! # #[cfg(not(feature = "testing"))]
//! # fn main() {}
//! # #[cfg(feature = "testing")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> envoi::Result<()> {
//! use std::sync::Arc;
//!
//! use envoi::mail_builder::MessageBuilder;
//! use envoi::testing::Recorder;
//! use envoi::{Mailer, Result};
//!
//! struct App {
//!     mailer: Arc<dyn Mailer>,
//! }
//!
//! impl App {
//!     async fn welcome(&self, address: &str) -> Result<()> {
//!         let mail = MessageBuilder::new()
//!             .from("shop@example.org")
//!             .to(address)
//!             .subject("Welcome")
//!             .text_body("Hello.");
//!         self.mailer.send(mail.into()).await?;
//!         Ok(())
//!     }
//! }
//!
//! // In production: `Arc::new(Client::from_url(url)?)`.
//! let recorder = Recorder::new();
//! let app = App { mailer: Arc::new(recorder.clone()) };
//! app.welcome("alice@example.com").await?;
//! assert_eq!(recorder.messages()[0].envelope.recipients()[0].as_str(), "alice@example.com");
//! # Ok(())
//! # }
//! ```
//!
//! # The bytes of a message
//!
//! Every mailer checks, repairs and refuses messages by [the same
//! rules](crate::Message#what-is-repaired-and-what-is-refused), and gives on the same bytes: a Bcc
//! header never leaves, also not into a file or a recorder. Bcc recipients are in the envelope.

#[cfg(feature = "directory")]
mod directory;
#[cfg(all(feature = "sendmail", unix))]
mod sendmail;
#[cfg(any(
    feature = "directory",
    all(feature = "sendmail", unix),
    feature = "testing"
))]
mod submission;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

#[cfg(feature = "pool")]
use crate::Pool;
use crate::{Client, Message, Receipt, Result};

#[cfg(feature = "directory")]
pub use directory::Directory;
#[cfg(all(feature = "sendmail", unix))]
pub use sendmail::Sendmail;
#[cfg(any(
    feature = "directory",
    all(feature = "sendmail", unix),
    feature = "testing"
))]
pub(crate) use submission::Submission;

/// The future of [`Mailer::send`]. Its cancel safety is that of the mailer; for instance, see
/// [`Client::send`].
pub type SendFuture<'a> = Pin<Box<dyn Future<Output = Result<Receipt>> + Send + 'a>>;

/// Sends messages.
///
/// The trait can be used as `dyn Mailer`, and is implemented for references, `Box` and `Arc`. The
/// [module](self) lists the mailers and has an example.
///
/// # Implementing it
///
/// A mailer of your own can wrap another one, to log or to change messages, or use another service.
/// It keeps the contract of [`Client::send`]: an error means that no recipient was accepted, or
/// that [the outcome is unknown](crate::Error::outcome_unknown); a receipt has the outcome for each
/// recipient. [`Message::prepare`] returns the message as it leaves: its envelope and its bytes.
///
/// ```
/// use envoi::mailer::SendFuture;
/// use envoi::{Mailer, Message};
///
/// /// Prints the outcome of each message.
/// #[derive(Debug)]
/// struct Logged<M>(M);
///
/// impl<M: Mailer> Mailer for Logged<M> {
///     fn send<'a>(&'a self, message: Message<'a>) -> SendFuture<'a> {
///         Box::pin(async move {
///             let result = self.0.send(message).await;
///             match &result {
///                 Ok(receipt) => println!("sent, {:?}", receipt.queue_id()),
///                 Err(error) => println!("{error}"),
///             }
///             result
///         })
///     }
/// }
/// ```
pub trait Mailer: fmt::Debug + Send + Sync {
    /// Sends a message. A [`MessageBuilder`](crate::mail_builder::MessageBuilder) becomes one by
    /// `into()`.
    ///
    /// # Errors
    ///
    /// No recipient was accepted, or the outcome is
    /// [unknown](crate::Error::outcome_unknown); [`Error::receipt`](crate::Error::receipt) has the
    /// outcome for each recipient.
    fn send<'a>(&'a self, message: Message<'a>) -> SendFuture<'a>;
}

impl Mailer for Client {
    fn send<'a>(&'a self, message: Message<'a>) -> SendFuture<'a> {
        Box::pin(Client::send(self, message))
    }
}

#[cfg(feature = "pool")]
impl Mailer for Pool {
    fn send<'a>(&'a self, message: Message<'a>) -> SendFuture<'a> {
        Box::pin(Pool::send(self, message))
    }
}

impl<M: Mailer + ?Sized> Mailer for &M {
    fn send<'a>(&'a self, message: Message<'a>) -> SendFuture<'a> {
        (**self).send(message)
    }
}

impl<M: Mailer + ?Sized> Mailer for Box<M> {
    fn send<'a>(&'a self, message: Message<'a>) -> SendFuture<'a> {
        (**self).send(message)
    }
}

impl<M: Mailer + ?Sized> Mailer for Arc<M> {
    fn send<'a>(&'a self, message: Message<'a>) -> SendFuture<'a> {
        (**self).send(message)
    }
}
