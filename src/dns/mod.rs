//! DNS as a sender of mail needs it: MX, addresses, TLSA and TXT, each answer with what DNSSEC says
//! about it.
//!
//! This module knows DNS alone: it does not decide what an answer means for a message. An
//! [`Answer`] keeps proven facts, unproven facts and failures apart, so that a failure cannot be
//! mistaken for an absence.

mod answer;
mod cache;
mod error;
pub(crate) mod fields;
mod name;
mod reply;
mod resolver;
mod settings;
mod system;
#[cfg(test)]
mod tests;
mod transport;
mod validator;

pub use answer::{Absence, Addresses, Answer, Mx, MxRecords};
pub use error::{LookupError, LookupErrorKind};
pub use name::{DomainName, DomainNameError};
pub use resolver::Resolver;
