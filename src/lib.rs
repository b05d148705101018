//! envoi sends mail.

pub mod proto;

mod address;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod connection;
#[cfg(feature = "client")]
mod endpoint;
mod error;
mod hint;
#[cfg(feature = "client")]
#[doc = include_str!("../docs/coming-from.md")]
pub mod coming_from {}
#[cfg(feature = "client")]
pub mod message;
#[cfg(feature = "client")]
pub mod probe;
#[cfg(feature = "client")]
mod receipt;
mod secret;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "client")]
mod timeouts;
#[cfg(feature = "client")]
pub mod tls;
#[cfg(feature = "client")]
mod trace;
#[cfg(feature = "client")]
mod transport;
#[cfg(feature = "client")]
mod url;

#[cfg(feature = "client")]
pub use mail_builder;

pub use address::{Address, Envelope};
#[cfg(feature = "client")]
pub use client::Client;
#[cfg(feature = "client")]
pub use connection::{Connection, DataWriter};
#[cfg(feature = "client")]
pub use endpoint::Endpoint;
pub use error::{Error, Kind, Phase, Result};
#[cfg(feature = "client")]
pub use message::{Attachment, Body, LineEnds, Message};
#[cfg(feature = "client")]
pub use probe::probe;
#[cfg(feature = "client")]
pub use receipt::{Outcome, Receipt, Recipient};
pub use secret::{Credentials, Secret};
#[cfg(feature = "client")]
pub use timeouts::Timeouts;
