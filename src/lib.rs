//! envoi sends mail.

pub mod proto;

mod address;
mod error;
mod hint;
#[cfg(feature = "client")]
pub mod message;
#[cfg(feature = "client")]
mod receipt;
mod secret;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "client")]
pub mod tls;

pub use address::{Address, Envelope};
pub use error::{Error, Kind, Phase, Result};
#[cfg(feature = "client")]
pub use mail_builder;
#[cfg(feature = "client")]
pub use message::{Attachment, Body, LineEnds, Message};
#[cfg(feature = "client")]
pub use receipt::{Outcome, Receipt, Recipient};
pub use secret::{Credentials, Secret};
