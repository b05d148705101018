//! Results as data, for logs and journals.
//!
//! They are written and not read: a receipt is what a server said to this client, and later
//! versions add to it. A program that needs it again keeps the values that it needs.

use std::net::IpAddr;

use serde::ser::{Serialize, Serializer};

use super::{Certificate, Outcome, Receipt, Recipient, TlsInfo};
use crate::Address;
use crate::proto::Reply;

impl Serialize for Receipt {
    /// Writes a map of the fields, with the [queue id](Receipt::queue_id); durations in seconds,
    /// and the transcript as a list of lines.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        #[serde(rename = "Receipt")]
        struct Fields<'a> {
            server: &'a str,
            recipients: &'a [Recipient],
            reply: Option<&'a Reply>,
            queue_id: Option<&'a str>,
            incomplete_reason: Option<&'a str>,
            transactions: u32,
            handed_over: bool,
            tls: Option<&'a TlsInfo>,
            plaintext_reason: Option<String>,
            local_address: Option<IpAddr>,
            mechanism: Option<&'static str>,
            bytes: u64,
            round_trips: u32,
            seconds: f64,
            transcript: Vec<&'a str>,
        }
        // In full, so that a new field is not forgotten.
        let Receipt {
            server,
            recipients,
            reply,
            incomplete_reason,
            transactions,
            handed_over,
            tls,
            plaintext_reason,
            local_address,
            mechanism,
            bytes,
            round_trips,
            elapsed,
            transcript,
        } = self;
        let transcript: Vec<_> = transcript.lines().collect();
        let fields = Fields {
            server,
            recipients,
            reply: reply.as_ref(),
            queue_id: self.queue_id(),
            incomplete_reason: incomplete_reason.as_deref(),
            transactions: *transactions,
            handed_over: *handed_over,
            tls: tls.as_deref(),
            plaintext_reason: plaintext_reason.as_ref().map(ToString::to_string),
            local_address: *local_address,
            mechanism: mechanism.map(|mechanism| mechanism.as_str()),
            bytes: *bytes,
            round_trips: *round_trips,
            seconds: elapsed.as_secs_f64(),
            transcript: transcript.iter().map(|line| &**line).collect(),
        };
        fields.serialize(serializer)
    }
}

impl Serialize for Recipient {
    /// Writes a map; `outcome` is `accepted`, `refused`, `unknown` or `not-tried`, and `reply` the
    /// reply that decided it.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        #[serde(rename = "Recipient")]
        struct Fields<'a> {
            address: &'a Address,
            outcome: &'static str,
            reply: Option<&'a Reply>,
            final_reply: Option<&'a Reply>,
            transient: bool,
            hint: Option<&'a str>,
        }
        let Recipient {
            address,
            outcome,
            final_reply,
            transient,
            hint,
        } = self;
        let (outcome, reply) = match outcome {
            Outcome::Accepted(reply) => ("accepted", Some(reply)),
            Outcome::Refused(reply) => ("refused", Some(reply)),
            Outcome::Unknown => ("unknown", None),
            Outcome::NotTried => ("not-tried", None),
        };
        let fields = Fields {
            address,
            outcome,
            reply,
            final_reply: final_reply.as_ref(),
            transient: *transient,
            hint: hint.as_deref(),
        };
        fields.serialize(serializer)
    }
}

impl Serialize for TlsInfo {
    /// Writes a map of the fields, with `verified`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        #[serde(rename = "TlsInfo")]
        struct Fields<'a> {
            version: &'a str,
            cipher: &'a str,
            key_exchange: Option<&'a str>,
            verified: bool,
            verified_by: Option<&'a str>,
            not_verified_reason: Option<String>,
            chain: &'a [Certificate],
            resumed: bool,
            handshake_seconds: f64,
        }
        let TlsInfo {
            version,
            cipher,
            key_exchange,
            chain,
            not_verified_reason,
            verified_by,
            resumed,
            handshake_duration,
        } = self;
        let fields = Fields {
            version,
            cipher,
            key_exchange: key_exchange.as_deref(),
            verified: self.is_verified(),
            verified_by: verified_by.as_deref(),
            not_verified_reason: not_verified_reason.as_ref().map(ToString::to_string),
            chain,
            resumed: *resumed,
            handshake_seconds: handshake_duration.as_secs_f64(),
        };
        fields.serialize(serializer)
    }
}

impl Serialize for Certificate {
    /// Writes a map of the fields; the dates as RFC 3339 has them.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        #[serde(rename = "Certificate")]
        struct Fields<'a> {
            subject: &'a str,
            issuer: &'a str,
            names: &'a [String],
            not_before: String,
            not_after: String,
            sha256: &'a str,
        }
        let fields = Fields {
            subject: &self.subject,
            issuer: &self.issuer,
            names: &self.names,
            not_before: self.not_before_text(),
            not_after: self.not_after_text(),
            sha256: &self.sha256,
        };
        fields.serialize(serializer)
    }
}
