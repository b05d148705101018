//! [`TlsEvent`]: the result of one session.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::dns::DomainName;
use crate::text::printable;

/// The result of one session with a server of a domain, or of a policy that could not be had: what
/// a TLS report counts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsEvent {
    /// When it happened.
    pub time: SystemTime,
    /// The domain of the recipients, to which the report goes.
    pub domain: DomainName,
    /// The policy that was applied.
    pub policy: AppliedPolicy,
    /// The server, as its MX record names it. `None` if none was connected to.
    pub mx_host: Option<DomainName>,
    /// The address of the server.
    pub address: Option<IpAddr>,
    /// The address from which it was connected to; `None` through a proxy.
    pub local_address: Option<IpAddr>,
    /// What failed; `None` for a success.
    pub failure: Option<TlsFailure>,
}

/// Why a session, or a policy, does not meet the expectations of a domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct TlsFailure {
    /// The result type.
    pub result: ResultType,
    /// What happened, for the domain's administrator. It may be empty.
    pub reason: String,
}

/// The policy that was applied to a session (RFC 8460, 4.4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub struct AppliedPolicy {
    /// The kind of the policy.
    pub policy_type: PolicyType,
    /// The TLSA records in the form of a zone file, or the lines of the policy of MTA-STS.
    #[serde(rename = "policy-string", skip_serializing_if = "Vec::is_empty")]
    pub strings: Vec<String>,
    /// The policy domain: for MTA-STS that of the recipients, for DANE the TLSA base domain of the
    /// server (RFC 8460, 1.1).
    #[serde(rename = "policy-domain", serialize_with = "as_text")]
    pub domain: DomainName,
    /// The hosts that a policy of MTA-STS allows.
    #[serde(rename = "mx-host", skip_serializing_if = "Vec::is_empty")]
    pub mx_hosts: Vec<String>,
}

/// The kind of a policy (RFC 8460, 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PolicyType {
    /// DANE.
    Tlsa,
    /// MTA-STS.
    Sts,
    /// Neither.
    NoPolicyFound,
}

/// What went wrong (RFC 8460, 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ResultType {
    /// The server does not offer STARTTLS, or refuses it.
    StartTlsNotSupported,
    /// The certificate is not for the name of the server.
    CertificateHostMismatch,
    /// The certificate has expired.
    CertificateExpired,
    /// The certificate is not trusted for another reason.
    CertificateNotTrusted,
    /// TLS failed for a reason without a type of its own, or the policy of MTA-STS does not list
    /// the server.
    ValidationFailure,
    /// None of the TLSA records is valid or matches.
    TlsaInvalid,
    /// DNSSEC refuses the records.
    DnssecInvalid,
    /// The sender requires DANE, and the server has none.
    DaneRequired,
    /// The policy of MTA-STS could not be fetched.
    StsPolicyFetchError,
    /// The policy of MTA-STS is not valid.
    StsPolicyInvalid,
    /// The certificate of the server of policies is not valid.
    StsWebpkiInvalid,
}

impl TlsEvent {
    /// The result of a session that succeeded, without the server and addresses, which are fields
    /// to set.
    pub fn new(time: SystemTime, domain: DomainName, policy: AppliedPolicy) -> Self {
        TlsEvent {
            time,
            domain,
            policy,
            mx_host: None,
            address: None,
            local_address: None,
            failure: None,
        }
    }

    /// Returns the event as a failure with this reason, which may be empty.
    #[must_use]
    pub fn with_failure(self, result: ResultType, reason: impl Into<String>) -> Self {
        let failure = TlsFailure {
            result,
            reason: printable(reason.into()),
        };
        TlsEvent {
            failure: Some(failure),
            ..self
        }
    }
}

impl AppliedPolicy {
    /// The domain has neither DANE nor MTA-STS.
    pub fn none(domain: DomainName) -> Self {
        AppliedPolicy {
            policy_type: PolicyType::NoPolicyFound,
            domain,
            strings: Vec::new(),
            mx_hosts: Vec::new(),
        }
    }

    /// DANE, with these records in the form of a zone file (`3 1 1 AB…`). The domain is the TLSA
    /// base domain.
    pub fn tlsa(domain: DomainName, records: impl IntoIterator<Item = String>) -> Self {
        AppliedPolicy {
            policy_type: PolicyType::Tlsa,
            domain,
            strings: records.into_iter().collect(),
            mx_hosts: Vec::new(),
        }
    }
}

impl PolicyType {
    /// Returns the type as the word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            PolicyType::Tlsa => "tlsa",
            PolicyType::Sts => "sts",
            PolicyType::NoPolicyFound => "no-policy-found",
        }
    }
}

impl ResultType {
    /// Returns the type as the word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            ResultType::StartTlsNotSupported => "starttls-not-supported",
            ResultType::CertificateHostMismatch => "certificate-host-mismatch",
            ResultType::CertificateExpired => "certificate-expired",
            ResultType::CertificateNotTrusted => "certificate-not-trusted",
            ResultType::ValidationFailure => "validation-failure",
            ResultType::TlsaInvalid => "tlsa-invalid",
            ResultType::DnssecInvalid => "dnssec-invalid",
            ResultType::DaneRequired => "dane-required",
            ResultType::StsPolicyFetchError => "sts-policy-fetch-error",
            ResultType::StsPolicyInvalid => "sts-policy-invalid",
            ResultType::StsWebpkiInvalid => "sts-webpki-invalid",
        }
    }
}

impl fmt::Display for PolicyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ResultType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for PolicyType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Serialize for ResultType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

fn as_text<S: Serializer>(name: &DomainName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}
