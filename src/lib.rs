//! envoi sends mail: an async SMTP client to build into programs.
//!
//! It streams attachments of any size, tells what became of a message for each recipient, and says
//! what is wrong and what to do when something fails. This page is a tour of two minutes; those who
//! come from other software find their settings in [`migration`].
//!
//! # Send a message
//!
//! A [`Client`] is made from a URL. The message is built by [mail-builder](mail_builder), and
//! attachments are added to it as a [`Message`]; they are read when their turn comes.
//!
//! ```no_run
//! use envoi::{Attachment, Client, Message, mail_builder::MessageBuilder};
//!
//! # async fn example() -> envoi::Result<()> {
//! let client = Client::from_url("smtp://alice%40example.org:secret@mail.example.org")?;
//! let mail = MessageBuilder::new()
//!     .from(("Alice", "alice@example.org"))
//!     .to("bob@example.com")
//!     .bcc("archive@example.org") // gets it, and is not in it
//!     .subject("The film")
//!     .text_body("Enjoy!");
//! let receipt = client.send(Message::from(mail).attach(Attachment::file("film.mp4"))).await?;
//! # Ok(())
//! # }
//! ```
//!
//! `smtp://` is STARTTLS on port 587, `smtps://` is TLS from the first byte on port 465, and
//! `smtp://host:25?tls=none` is plaintext; `lmtp://` and `lmtp+unix://` deliver to mailboxes by
//! LMTP. [`Endpoint::from_url`] lists the rest. An [`Endpoint`] has the same settings as methods:
//!
//! ```
//! use std::time::Duration;
//! use envoi::tls::{Security, Trust};
//! use envoi::{Client, Credentials, Endpoint};
//!
//! let endpoint = Endpoint::new("mail.example.org")
//!     .security(Security::Implicit)
//!     .trust(Trust::system().path("/etc/company/ca.pem"))
//!     .credentials(Credentials::new("alice@example.org", "secret"))
//!     .deadline(Duration::from_secs(600));
//! let client = Client::new(endpoint);
//! ```
//!
//! # What became of it
//!
//! One refused recipient does not keep the message from the others, unless
//! [`Endpoint::all_or_nothing`] says so. `send` fails only where nobody will get the message, or
//! nobody knows; so look at the [`Receipt`].
//!
//! ```
//! # #[cfg(not(feature = "testing"))]
//! # fn main() {}
//! # #[cfg(feature = "testing")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use envoi::{Client, Outcome, mail_builder::MessageBuilder, testing::Server};
//!
//! // A server inside this process, as the tests of a program have it.
//! let server = Server::builder()
//!     .login("alice", "secret")
//!     .refuse_recipient("nobody@example.com", "550 5.1.1 No such user")
//!     .start()
//!     .await?;
//!
//! let mail = MessageBuilder::new()
//!     .from("alice@example.org")
//!     .to(vec!["bob@example.com", "nobody@example.com"])
//!     .subject("Hello")
//!     .text_body("Hello.");
//! let receipt = Client::from_url(&server.url())?.send(mail).await?;
//!
//! assert!(!receipt.all_accepted());
//! for recipient in receipt.not_accepted() {
//!     let Outcome::Refused(reply) = &recipient.outcome else { panic!() };
//!     assert_eq!(recipient.address.as_str(), "nobody@example.com");
//!     assert_eq!(reply.to_string(), "550 5.1.1 No such user");
//! }
//! let tls = receipt.tls.as_ref().expect("STARTTLS was required");
//! assert!(tls.is_verified());
//! assert_eq!(receipt.reply.as_ref().unwrap().text(), "Ok: queued as 00000001");
//!
//! let arrived = server.next_message().await;
//! assert_eq!(arrived.recipients, ["bob@example.com"]);
//! # Ok(())
//! # }
//! ```
//!
//! # When it fails
//!
//! An [`Error`] is made to be shown: its `Display` has what happened, the server's own words and a
//! hint. For the program, its [`ErrorKind`] says what to do about it, its [`Phase`] where it came
//! up.
//!
//! ```no_run
//! # async fn example(client: envoi::Client, message: envoi::Message<'_>) {
//! match client.send(message).await {
//!     Ok(receipt) => println!("sent, {} bytes", receipt.bytes),
//!     // Handed over whole, and no answer came: it may have been delivered. Sending it again may make two of it.
//!     Err(error) if error.outcome_unknown() => eprintln!("look at the server's log: {error}"),
//!     Err(error) if error.is_transient() => eprintln!("later: {error}"),
//!     Err(error) => eprintln!("{error}"),
//! }
//! # }
//! ```
//!
//! With `Client::retries` (feature `retries`), what failed for a passing reason is sent again by
//! itself, and never what may have been delivered.
//!
//! # Many messages
//!
//! A [`Connection`] is kept for as many messages as you like. [`Connection::send_all`] sends a
//! stream of them without waiting for the answer to each, so that distance costs no time. It has
//! the single steps, too: `mail`, `rcpt`, `data`, `reset`, `noop`, and `command` for any other.
//!
//! ```no_run
//! # async fn example(client: envoi::Client, messages: Vec<envoi::Message<'_>>) -> envoi::Result<()> {
//! let mut connection = client.connect().await?;
//! for message in messages {
//!     let receipt = connection.send(message).await?;
//!     println!("{:?}", receipt.reply);
//! }
//! connection.quit().await;
//! # Ok(())
//! # }
//! ```
//!
//! Tasks that send at the same time share a few connections by `Client::pool` (feature `pool`).
//!
//! # Where to look
//!
//! | | |
//! |---|---|
//! | [`Client`], [`Endpoint`], [`Timeouts`] | the server, and how to talk with it |
//! | [`Connection`] | a session that is kept, and its single steps |
//! | [`message`] | what is sent, and how it becomes a stream of bytes |
//! | [`delivery`] | what is asked for it: reports of delivery, times, priority, TLS all the way |
//! | [`Receipt`], [`Outcome`], [`Error`] | what became of it |
//! | [`tls`] | when TLS is used, whom to trust, what was negotiated |
//! | [`testing`] | an SMTP or LMTP server inside the process, for the tests of your program |
//! | [`proto`] | the protocol as a machine without socket and clock, for other runtimes, tests and fuzzers |
//! | [`migration`] | the settings of Oracle, Java and others, and what they are called here |
//!
//! # Features
//!
//! | Feature | |
//! |---|---|
//! | `client` (default) | everything that touches a socket; without it, there is [`proto`] alone, without tokio and rustls |
//! | `aws-lc-rs` (default), `ring` | the cryptography behind TLS, one of the two |
//! | `idna` (default) | domains and hosts beyond ASCII as A-labels, where the server does not offer SMTPUTF8 |
//! | `keystores` | trust and client certificates from PKCS#12, JKS and Oracle wallets |
//! | `mozilla-roots` | Mozilla's root certificates inside the program |
//! | `pool` | [`Pool`]: connections that are kept and shared |
//! | `proxy` | [`Proxy`]: SOCKS5 and HTTP CONNECT; [`ProxyHeader`] |
//! | `retries` | [`RetryPolicy`]: what failed for a passing reason is sent again |
//! | `tracing` | spans and events |
//! | `testing` | the [`testing`] module |

// What a feature brings cannot be linked to without it.
#![cfg_attr(
    not(all(
        feature = "client",
        feature = "pool",
        feature = "proxy",
        feature = "retries",
        feature = "testing"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]

pub mod proto;

mod address;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod config;
#[cfg(feature = "client")]
mod connection;
#[cfg(feature = "client")]
#[doc = include_str!("../docs/migration.md")]
pub mod migration {}
pub mod delivery {
    //! What is asked of the server for a message beyond its addresses: parameters of MAIL and RCPT.
    //!
    //! A [`DeliveryOptions`](crate::DeliveryOptions) that exists can be written into a command, as
    //! an [`Address`](crate::Address) can: each value is checked by its type when it is made.
    //! Whether the server offers what is asked for is looked at before MAIL; nothing is left out in
    //! silence.

    pub use crate::proto::params::{
        DeliverBy, DsnReturn, EnvelopeId, FutureRelease, Notify, OriginalRecipient, Priority,
    };
}
mod date;
mod diagnose;
mod envelope;
mod error;
#[cfg(feature = "client")]
mod file;
mod idna;
#[cfg(feature = "client")]
pub mod message;
#[cfg(feature = "pool")]
mod pool;
#[cfg(feature = "client")]
pub mod probe;
#[cfg(feature = "client")]
mod receipt;
#[cfg(feature = "retries")]
mod retry;
mod secret;
#[cfg(feature = "testing")]
pub mod testing;
mod text;
#[cfg(feature = "client")]
pub mod tls;
#[cfg(feature = "client")]
mod trace;
#[cfg(feature = "client")]
mod transport;

#[cfg(feature = "client")]
pub use mail_builder;

pub use address::Address;
#[cfg(feature = "client")]
pub use client::Client;
#[cfg(feature = "client")]
pub use config::endpoint::Endpoint;
#[cfg(feature = "client")]
pub use config::timeouts::Timeouts;
#[cfg(feature = "client")]
pub use config::token::TokenRequest;
#[cfg(feature = "client")]
pub use connection::{Connection, DataWriter};
pub use envelope::Envelope;
pub use error::{Error, ErrorKind, Phase, Result};
#[cfg(feature = "client")]
pub use message::{Attachment, Body, LineEnds, Message, UploadProgress};
#[cfg(feature = "pool")]
pub use pool::{Pool, PoolConfig, PooledConnection};
#[cfg(feature = "client")]
pub use probe::probe;
pub use proto::params::DeliveryOptions;
#[cfg(feature = "client")]
pub use receipt::{Outcome, Receipt, Recipient};
#[cfg(feature = "retries")]
pub use retry::RetryPolicy;
pub use secret::{Credentials, Secret};
#[cfg(feature = "client")]
pub use transport::SocketOptions;
#[cfg(feature = "proxy")]
pub use transport::{Proxy, ProxyHeader};

/// The README's programs are compiled with the documentation's.
#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../README.md")]
struct Readme;
