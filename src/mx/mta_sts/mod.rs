//! MTA-STS (RFC 8461): a domain publishes which servers take its mail, and that they have TLS with
//! certificates that can be verified.
//!
//! - An [`StsRecord`], a TXT record, announces the policy and names its version.
//! - A [`PolicyFetcher`] gets the [`Policy`] by HTTPS, whose certificate is the proof that it is
//!   the domain's.
//! - A [`PolicyState`] decides, without I/O, when a policy is fetched, and which one is applied: a
//!   policy is kept for the time that it names, so that an attacker who suppresses the record or
//!   the fetch gains nothing from it.
//! - A [`PolicyCache`] joins them, and keeps the policies in memory and in a folder.
//!
//! DANE goes first: where TLSA records authenticate a server, the policy does not matter (RFC 8461,
//! 2). Records that are all unusable authenticate nothing, and the policy applies.

mod cache;
mod error;
mod fetch;
mod folder;
mod policy;
mod record;
mod state;

pub(crate) use cache::fetch;
pub use cache::{Discovery, DiscoveryError, PolicyCache};
pub use error::{FetchError, FetchErrorKind};
pub use fetch::PolicyFetcher;
pub use policy::{Mode, MxPattern, Policy, PolicyError};
pub use record::{StsRecord, StsRecordError};
pub use state::{PolicyState, StoredPolicy};

/// The maximum size of a policy in bytes (RFC 8461, 3.3).
const MAX_POLICY: usize = 64 * 1024;
