//! Lookups that failed.

use std::fmt;

use super::DomainName;
use crate::text::printable;

/// A lookup that failed: there may or may not be such records. It may succeed later.
///
/// `Display` writes the name, the record type and the cause; [`hint`](Self::hint) is the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupError {
    name: DomainName,
    record_type: &'static str,
    kind: LookupErrorKind,
    detail: String,
    /// Whether other anchors than those of the root were given.
    has_own_anchors: bool,
}

/// Why a lookup failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LookupErrorKind {
    /// DNSSEC refuses the answer: a signature is missing, expired or invalid, or a proof is
    /// missing.
    Bogus,
    /// The resolver could not get an answer (SERVFAIL). One that validates itself answers so for
    /// data that DNSSEC refuses, too.
    ServerFailure,
    /// The resolver did not answer in time.
    TimedOut,
    /// The resolver does not answer questions of this machine (REFUSED), or does not know how to
    /// answer (another error).
    Refused,
    /// The resolver cannot be reached.
    Network,
    /// The answer cannot be understood, or contradicts itself.
    Malformed,
    /// The CNAMEs lead in a circle, or through too many names.
    TooManyAliases,
}

impl LookupError {
    /// An error of this kind. [`Resolver`](super::Resolver) makes its own; programs need it for
    /// their tests.
    pub fn new(
        name: DomainName,
        record_type: &'static str,
        kind: LookupErrorKind,
        detail: impl Into<String>,
    ) -> Self {
        LookupError {
            name,
            record_type,
            kind,
            detail: printable(detail.into()),
            has_own_anchors: false,
        }
    }

    pub(super) fn with_own_anchors(mut self, yes: bool) -> Self {
        self.has_own_anchors = yes;
        self
    }

    /// Returns the name that was looked up.
    pub fn name(&self) -> &DomainName {
        &self.name
    }

    /// Returns the type of the records that were looked up: `MX`, `A`, `AAAA`, `TLSA` or `TXT`.
    pub fn record_type(&self) -> &'static str {
        self.record_type
    }

    /// Returns why the lookup failed.
    pub fn kind(&self) -> LookupErrorKind {
        self.kind
    }

    /// Whether it is the resolver that failed, or the way to it, so that nothing is known of the
    /// domain.
    pub(crate) fn is_of_resolver(&self) -> bool {
        match self.kind {
            LookupErrorKind::TimedOut | LookupErrorKind::Refused | LookupErrorKind::Network => true,
            LookupErrorKind::Bogus
            | LookupErrorKind::ServerFailure
            | LookupErrorKind::Malformed
            | LookupErrorKind::TooManyAliases => false,
        }
    }

    /// Returns what is known beyond the kind, in plain text. It may be empty.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self.kind {
            LookupErrorKind::Bogus if self.has_own_anchors => {
                "the domain's DNSSEC signatures are broken, or its answers are forged on the way: \
                 try later, and tell the domain's postmaster; if every domain fails, check the \
                 trust anchors of DNSSEC that were given, which may be old or of another zone, \
                 this machine's clock, and that the resolver passes DNSSEC records on"
            }
            LookupErrorKind::Bogus => {
                "the domain's DNSSEC signatures are broken, or its answers are forged on the way: \
                 try later, and tell the domain's postmaster; if every domain fails, check this \
                 machine's clock, and that the resolver passes DNSSEC records on"
            }
            LookupErrorKind::ServerFailure => {
                "the domain's DNS servers do not answer, or its DNSSEC signatures are broken: \
                 try later"
            }
            LookupErrorKind::TimedOut => {
                "check that the resolver is reachable by UDP and TCP, or name another; else try \
                 later"
            }
            LookupErrorKind::Refused => {
                "name a recursive resolver that answers this machine's questions"
            }
            LookupErrorKind::Network => {
                "check the address of the resolver and the network of this machine"
            }
            LookupErrorKind::Malformed => {
                "the domain's DNS server or a device on the way is faulty: try later, or another \
                 resolver"
            }
            LookupErrorKind::TooManyAliases => {
                "the domain's CNAME records are faulty: tell its postmaster"
            }
        }
    }
}

impl fmt::Display for LookupErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LookupErrorKind::Bogus => "DNSSEC refuses the answer (bogus)",
            LookupErrorKind::ServerFailure => "the resolver got no answer (SERVFAIL)",
            LookupErrorKind::TimedOut => "the resolver did not answer in time",
            LookupErrorKind::Refused => "the resolver refused the question",
            LookupErrorKind::Network => "the resolver cannot be reached",
            LookupErrorKind::Malformed => "the answer cannot be understood",
            LookupErrorKind::TooManyAliases => "the CNAME records do not end",
        })
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LookupError {
            name,
            record_type,
            kind,
            detail,
            ..
        } = self;
        write!(f, "looking up {record_type} of {name}: {kind}")?;
        match detail.as_str() {
            "" => Ok(()),
            detail => write!(f, ": {detail}"),
        }
    }
}

impl std::error::Error for LookupError {}
