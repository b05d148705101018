//! [`TlsReport`]: the JSON of RFC 8460.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::{AppliedPolicy, ResultType};
use crate::date;
use crate::dns::DomainName;

/// The report of a day for a domain (RFC 8460, 4.4). serde writes it in the RFC's form, as
/// [`to_json`](Self::to_json) does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsReport {
    /// The domain to which the report goes.
    pub domain: DomainName,
    /// The name of the organization that reports.
    pub organization_name: String,
    /// The address of its contact.
    pub contact_info: String,
    /// The id of the report, which is the same whenever this report is made.
    pub report_id: String,
    /// The first second of the day, in seconds since 1970.
    pub start: u64,
    /// The last second of the day, in seconds since 1970.
    pub end: u64,
    /// The results, by the policies that were applied.
    pub policies: Vec<PolicyReport>,
}

/// The results under one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyReport {
    /// The policy.
    pub policy: AppliedPolicy,
    /// The number of sessions that succeeded.
    pub successful_sessions: u64,
    /// The number of those that failed.
    pub failed_sessions: u64,
    /// The failures by their kind and place. Where the [limits](super::TlsReports) are reached, a
    /// failure of another kind is counted in `failed_sessions` only, which is then greater than the
    /// sum of these sessions.
    pub failures: Vec<FailureDetail>,
}

/// Failures of one kind, with one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub struct FailureDetail {
    /// The result type.
    #[serde(rename = "result-type")]
    pub result: ResultType,
    /// The address from which the server was connected to.
    #[serde(rename = "sending-mta-ip", skip_serializing_if = "Option::is_none")]
    pub local_address: Option<IpAddr>,
    /// The server, as its MX record names it.
    #[serde(
        rename = "receiving-mx-hostname",
        skip_serializing_if = "Option::is_none"
    )]
    pub mx_host: Option<String>,
    /// The address of the server.
    #[serde(rename = "receiving-ip", skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The number of sessions.
    #[serde(rename = "failed-session-count")]
    pub sessions: u64,
    /// The text of the failure.
    #[serde(
        rename = "failure-reason-code",
        skip_serializing_if = "String::is_empty"
    )]
    pub reason: String,
}

impl TlsReport {
    /// Returns the report as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("it has no maps with other keys than text")
    }

    /// Returns the name of the file (RFC 8460, 5.1), of this sender's domain: an attachment of a
    /// message to a `mailto:` destination has it, as `application/tlsrpt+json`. Compressed by gzip,
    /// it is `application/tlsrpt+gzip`, and `.gz` is appended.
    pub fn file_name(&self, sender: &DomainName) -> String {
        let (domain, start, end) = (&self.domain, self.start, self.end);
        format!("{sender}!{domain}!{start}!{end}.json")
    }

    /// Returns the subject of the message to a `mailto:` destination (RFC 8460, 5.3). The message
    /// also has the header fields `TLS-Report-Domain` and `TLS-Report-Submitter`, with the domain
    /// of the report and the sender's.
    pub fn subject(&self, sender: &DomainName) -> String {
        let mut subject = format!("Report Domain: {} Submitter: {sender}", self.domain);
        // In the form of a Message-ID.
        let _ = write!(subject, " Report-ID: <{}@{sender}>", self.report_id);
        subject
    }
}

impl Serialize for TlsReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        struct DateRange {
            start_datetime: String,
            end_datetime: String,
        }
        let mut report = serializer.serialize_struct("TlsReport", 5)?;
        report.serialize_field("organization-name", &self.organization_name)?;
        let range = DateRange {
            start_datetime: date::to_text(self.start),
            end_datetime: date::to_text(self.end),
        };
        report.serialize_field("date-range", &range)?;
        report.serialize_field("contact-info", &self.contact_info)?;
        report.serialize_field("report-id", &self.report_id)?;
        report.serialize_field("policies", &self.policies)?;
        report.end()
    }
}

impl Serialize for PolicyReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        struct Summary {
            total_successful_session_count: u64,
            total_failure_session_count: u64,
        }
        let mut policy = serializer.serialize_struct("PolicyReport", 3)?;
        policy.serialize_field("policy", &self.policy)?;
        let summary = Summary {
            total_successful_session_count: self.successful_sessions,
            total_failure_session_count: self.failed_sessions,
        };
        policy.serialize_field("summary", &summary)?;
        if self.failures.is_empty() {
            policy.skip_field("failure-details")?;
        } else {
            policy.serialize_field("failure-details", &self.failures)?;
        }
        policy.end()
    }
}
