//! envoi is an async SMTP client: it streams attachments of any size, reports an outcome for each
//! recipient, and explains what to do when sending fails.
//!
//! This page is a two-minute tour. Migrating from other software? See [`guide::migration`].
//!
//! # Send a message
//!
//! A [`Client`] is created from a URL. [mail-builder](mail_builder) builds the message, and
//! attachments are added to it as a [`Message`]. Files are read while they are sent.
//!
//! ```no_run
//! use envoi::{Attachment, Client, Message, mail_builder::MessageBuilder};
//!
//! # async fn example() -> envoi::Result<()> {
//! let client = Client::from_url("smtp://alice%40example.org:secret@mail.example.org")?;
//! let mail = MessageBuilder::new()
//!     .from(("Alice", "alice@example.org"))
//!     .to("bob@example.com")
//!     .bcc("archive@example.org") // receives the message; the header is not sent
//!     .subject("The film")
//!     .text_body("Enjoy!");
//! let receipt = client.send(Message::from(mail).attach(Attachment::file("film.mp4"))).await?;
//! for recipient in receipt.not_accepted() {
//!     println!("{}: {:?}", recipient.address, recipient.outcome);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `smtp://` is STARTTLS on port 587, `smtps://` is TLS from the first byte on port 465, and
//! `smtp://host:25?tls=none` is plaintext; `lmtp://` and `lmtp+unix://` are LMTP.
//! [`Endpoint::from_url`] lists all settings, and [`Endpoint`] has a method for each.
//!
//! # Results
//!
//! `send` returns an error only if no recipient was accepted or the outcome is unknown; check the
//! [`Receipt`] for partial failures. With [`Endpoint::all_or_nothing`], one refused recipient
//! prevents the message from being sent.
//!
//! The `Display` text of an [`Error`] contains the failure, the server's reply and a hint. Its
//! [`ErrorKind`] classifies the cause, its [`Phase`] is the step that failed.
//!
//! ```no_run
//! # async fn example(client: envoi::Client, message: envoi::Message<'_>) {
//! match client.send(message).await {
//!     Ok(receipt) => println!("sent, {} bytes", receipt.bytes),
//!     // No reply to the complete message: sending it again may deliver it twice.
//!     Err(error) if error.outcome_unknown() => eprintln!("check the server's log: {error}"),
//!     Err(error) if error.is_transient() => eprintln!("try again later: {error}"),
//!     Err(error) => eprintln!("{error}"),
//! }
//! # }
//! ```
//!
//! With `Client::retries` (feature `retries`), transient failures are retried automatically; a
//! message that may have been delivered never is.
//!
//! # Many messages
//!
//! A [`Connection`] sends any number of messages. [`Connection::send_all`] sends a stream of them
//! without waiting for each reply, so latency does not limit throughput. Single steps are `mail`,
//! `rcpt`, `data`, `reset`, `noop`, and `command` for any other. Concurrent tasks share
//! connections through `Client::pool` (feature `pool`).
//!
//! # Where to look
//!
//! | | |
//! |---|---|
//! | [`Client`], [`Endpoint`], [`Settings`], [`Timeouts`] | the server and its settings |
//! | [`Connection`] | a session and its single steps |
//! | [`message`] | messages and how they are streamed |
//! | [`PreparedMessage`] | a message as it leaves: to look at, to keep, to send several times |
//! | [`Address`], [`mailbox`] | addresses; mailboxes with names, and lists of them |
//! | [`delivery`] | ESMTP parameters: DSN, DELIVERBY, FUTURERELEASE, MT-PRIORITY, REQUIRETLS |
//! | [`Receipt`], [`Outcome`], [`Error`] | results |
//! | [`Client::check`], [`CheckReport`] | whether messages can be sent, and what expires soon |
//! | [`mailer`] | the trait [`Mailer`]: SMTP, files, `sendmail`, or memory in tests |
//! | [`mx`] | mail to the servers of each recipient's domain, without a relay |
//! | [`tls`] | policies, trust, and what was negotiated |
//! | [`mod@probe`] | examines a server without sending, and suggests settings |
//! | [`testing`] | an SMTP and LMTP server for tests, in the same process |
//! | [`proto`] | the protocol machine without I/O, for other runtimes, tests and fuzzers |
//! | [`guide::handover`] | a program that may be killed at any moment |
//! | [`guide::interruptions`] | a call is dropped, a program ends, a connection is lost |
//! | [`guide`] | settings, tests, metrics, troubleshooting, migration, examples, protocol … |
//!
//! # Features
//!
//! | Feature | |
//! |---|---|
//! | `client` (default) | sockets; without it, [`proto`] alone, without tokio and rustls |
//! | `aws-lc-rs` (default), `ring` | the cryptography of TLS, see [`tls::TlsSettings`] |
//! | `idna` (default) | A-labels for domains and hosts beyond ASCII |
//! | `sasl` | the mechanisms SCRAM and CRAM-MD5 |
//! | `blocking` | the module `blocking`: the client for programs without async |
//! | `dkim` | the module `dkim`: signs messages (RFC 6376, RFC 8463) |
//! | `directory` | `mailer::Directory`: writes messages into files, for development |
//! | `journal` | [`Journal`]: which messages were sent, whatever happens to the process |
//! | `keystores` | trust and client certificates from PKCS#12, JKS and Oracle wallets |
//! | `metrics` | counters, gauges and histograms, see [`guide::observability`] |
//! | `mozilla-roots` | Mozilla's root certificates, compiled in |
//! | `mx` | the module `mx`: mail to the servers of each recipient's domain, without a relay |
//! | `pool` | [`Pool`] |
//! | `proxy` | [`Proxy`]: SOCKS5 and HTTP CONNECT; [`ProxyHeader`]: the PROXY protocol |
//! | `retries` | [`RetryPolicy`] |
//! | `failover` | [`Failover`]: other servers take the messages where one fails |
//! | `rate-limit` | [`RateLimiter`]: messages per second, minute and hour, and for each domain |
//! | `sendmail` | `mailer::Sendmail`: gives messages to the program of this machine (Unix) |
//! | `tower` | [`Client`] and [`Pool`] as services of tower |
//! | `serde` | [`Settings`] from files; addresses, envelopes and results as data |
//! | `tracing` | spans and events, see [`guide::observability`] |
//! | `testing` | the module [`testing`] |
//! | `testing-parse` | `testing::ParsedMessage`: received messages taken apart |

#![cfg_attr(docsrs, feature(doc_cfg))]
// Doc links to feature-gated items break if the feature is off.
#![cfg_attr(
    not(all(
        feature = "client",
        feature = "dkim",
        feature = "failover",
        feature = "journal",
        feature = "mx",
        feature = "pool",
        feature = "proxy",
        feature = "rate-limit",
        feature = "retries",
        feature = "testing"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]

pub mod proto;

mod address;
#[cfg(feature = "blocking")]
pub mod blocking;
#[cfg(feature = "pool")]
mod bulk;
#[cfg(feature = "client")]
mod check;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod config;
#[cfg(feature = "client")]
mod connection;
pub mod delivery {
    //! ESMTP parameters of MAIL and RCPT: what is requested for a message beyond its addresses.
    //!
    //! Each value is validated when it is created, so that
    //! [`DeliveryOptions`](crate::DeliveryOptions), like an [`Address`](crate::Address), can always
    //! be written into a command. Before MAIL, the options are compared with what the server
    //! offers: an option that is not supported is an error, never dropped silently.

    pub use crate::proto::params::{
        DeliverBy, DsnReturn, EnvelopeId, FutureRelease, Notify, OriginalRecipient, Priority,
    };
}
mod date;
mod diagnose;
#[cfg(feature = "dkim")]
pub mod dkim;
#[cfg(feature = "mx")]
mod dns;
mod envelope;
mod error;
#[cfg(feature = "failover")]
mod failover;
#[cfg(feature = "client")]
mod file;
#[cfg(feature = "client")]
pub mod guide;
mod idna;
#[cfg(feature = "journal")]
mod journal;
pub mod mailbox;
#[cfg(feature = "client")]
pub mod mailer;
#[cfg(feature = "client")]
pub mod message;
#[cfg(feature = "mx")]
pub mod mx;
#[cfg(feature = "client")]
mod password_file;
#[cfg(feature = "pool")]
mod pool;
#[cfg(feature = "client")]
pub mod probe;
#[cfg(feature = "rate-limit")]
mod rate;
#[cfg(feature = "client")]
mod receipt;
#[cfg(feature = "retries")]
mod retry;
mod secret;
#[cfg(feature = "client")]
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod text;
#[cfg(feature = "client")]
pub mod tls;
#[cfg(feature = "tower")]
mod tower;
#[cfg(feature = "client")]
mod transport;

#[cfg(feature = "client")]
pub use mail_builder;

pub use address::{Address, AddressError, AddressFault};
#[cfg(feature = "pool")]
pub use bulk::BulkConfig;
#[cfg(feature = "client")]
pub use check::CheckReport;
#[cfg(feature = "client")]
pub use client::Client;
#[cfg(feature = "client")]
pub use config::endpoint::Endpoint;
#[cfg(feature = "client")]
pub use config::send_window::SendWindow;
#[cfg(feature = "client")]
pub use config::settings::Settings;
#[cfg(feature = "client")]
pub use config::timeouts::Timeouts;
#[cfg(feature = "client")]
pub use config::token::TokenRequest;
#[cfg(feature = "client")]
pub use connection::{Connection, DataWriter};
pub use envelope::{Envelope, EnvelopeError, ReversePath};
pub use error::{Error, ErrorKind, Phase, Result};
#[cfg(feature = "failover")]
pub use failover::{CircuitState, Failover, FailoverPolicy, FailoverServer, ServerState};
#[cfg(feature = "journal")]
pub use journal::{Journal, JournalEntry, JournalError, JournalState};
pub use mailbox::{Mailbox, MailboxError, MailboxFault, MailboxList};
#[cfg(feature = "client")]
pub use mailer::Mailer;
#[cfg(feature = "client")]
pub use message::{Attachment, Body, Handover, LineEnds, Message, PreparedMessage, UploadProgress};
#[cfg(feature = "pool")]
pub use pool::{Pool, PoolConfig, PooledConnection};
#[cfg(feature = "client")]
pub use probe::probe;
pub use proto::params::DeliveryOptions;
#[cfg(feature = "rate-limit")]
pub use rate::{Rate, RateLimiter, RateLimits, RatePermit};
#[cfg(feature = "client")]
pub use receipt::{Outcome, Receipt, Recipient};
#[cfg(feature = "retries")]
pub use retry::RetryPolicy;
pub use secret::{Credentials, Secret};
#[cfg(feature = "metrics")]
pub use telemetry::describe_metrics;
#[cfg(feature = "client")]
pub use transport::SocketOptions;
#[cfg(feature = "proxy")]
pub use transport::{Proxy, ProxyHeader};

/// Compiles and runs the README's programs as doctests.
#[cfg(all(doctest, feature = "testing"))]
#[doc = include_str!("../README.md")]
struct Readme;
