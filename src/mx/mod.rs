//! Mail without a relay: to the servers of each recipient's own domain.
//!
//! - [`MxClient`] sends messages, with its settings; [`MxReceipt`] is the result.
//! - `lookup.rs`: which hosts a domain has, and at which addresses
//! - `policy.rs`: how the connections to a host are protected
//! - [`mta_sts`]: the policies of domains by HTTPS; [`tls_report`]: what is reported of sessions;
//!   `events.rs`: which of them is a failure
//! - `route.rs`: which server is tried next: pure, without I/O
//! - `deliver.rs`: one message to the servers of one domain
//! - `filter.rs`, `problem.rs`, `receipt.rs`: allowed addresses; why mail cannot go to a domain;
//!   results

mod client;
mod deliver;
mod events;
mod filter;
mod lookup;
mod policy;
mod problem;
mod receipt;
mod route;

pub mod mta_sts;
pub mod tls_report;

pub use crate::dns::{
    Absence, Addresses, Answer, DomainName, DomainNameError, LookupError, LookupErrorKind, Mx,
    MxRecords, Resolver,
};
pub use crate::tls::dane::{Dane, TlsaRecord};
pub use client::MxClient;
pub(crate) use filter::AddressFilter;
pub use filter::is_public;
pub(crate) use lookup::{HostName, Hosts, hosts};
pub use policy::NoDane;
pub(crate) use policy::{HostPolicy, base_domains, find_dane, list_patterns};
pub use problem::MxProblem;
pub(crate) use problem::{problem, problem_of};
pub use receipt::{DomainResult, MxFailure, MxPolicy, MxReceipt, MxRecipient, Via};
