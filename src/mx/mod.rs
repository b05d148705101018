//! Mail without a relay: to the servers of each recipient's own domain.

pub mod mta_sts;
pub mod tls_report;

pub use crate::dns::{
    Absence, Addresses, Answer, DomainName, DomainNameError, LookupError, LookupErrorKind, Mx,
    MxRecords, Resolver,
};
pub use crate::tls::dane::{Dane, TlsaRecord};
