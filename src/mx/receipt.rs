//! The result of a message to the servers of its recipients' domains.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::receipt::{Attempts, Outcome, PlaintextReason, Receipt, Recipient, TlsInfo};

/// How a connection to a server was to be protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MxPolicy {
    /// DANE (RFC 7672): the server has TLSA records that DNSSEC validates. TLS is required.
    Dane,
    /// MTA-STS (RFC 8461): the domain requires TLS with a trusted certificate.
    MtaSts,
    /// TLS that is not verified, as the domain asks for nothing.
    Opportunistic,
    /// Plaintext: the domain asks for nothing, and TLS is not offered or failed.
    None,
}

impl MxPolicy {
    /// The policy as a lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            MxPolicy::Dane => "dane",
            MxPolicy::MtaSts => "mta-sts",
            MxPolicy::Opportunistic => "opportunistic",
            MxPolicy::None => "none",
        }
    }
}

impl fmt::Display for MxPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The server that a message was last given to for a recipient, and what protected the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Via {
    /// The host by its name; of a recipient with an address literal, the literal.
    pub host: String,
    /// The address that was connected to.
    pub address: IpAddr,
    /// The policy that was applied.
    pub policy: MxPolicy,
    /// Why that policy was applied.
    pub policy_reason: String,
    /// What protected the connection; `None` for plaintext, and where TLS failed.
    pub tls: Option<Arc<TlsInfo>>,
    /// Why the connection is not encrypted.
    pub plaintext_reason: Option<PlaintextReason>,
    /// Whether DNSSEC validated the way to the server: the answer with the MX records of the
    /// domain, or that there are none, and the addresses of the host.
    pub dnssec: bool,
}

impl Via {
    /// Whether the server had to be verified, and was: by its TLSA records, or by a trust anchor
    /// and the policy of the domain. A certificate that is valid without such a policy proves
    /// nothing, as the name of the host is not proven; [`TlsInfo`] tells.
    pub fn is_verified(&self) -> bool {
        let is_required = matches!(self.policy, MxPolicy::Dane | MxPolicy::MtaSts);
        is_required && self.tls.as_ref().is_some_and(|tls| tls.is_verified())
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = place(&self.host, self.address);
        write!(
            f,
            "{place}, policy {} ({})",
            self.policy, self.policy_reason
        )?;
        match (&self.tls, &self.plaintext_reason) {
            (Some(tls), _) => write!(f, ", {tls}"),
            (None, Some(reason)) => write!(f, ", not encrypted: {reason}"),
            (None, None) => Ok(()),
        }
    }
}

/// A server that was passed over, and why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MxFailure {
    /// The host by its name; `None` if the domain's hosts could not be found, or were not tried
    /// before the deadline.
    pub host: Option<String>,
    /// The address; `None` if it is about the host as a whole.
    pub address: Option<IpAddr>,
    /// What failed.
    pub error: Error,
}

/// The result for the recipients of one domain.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DomainResult {
    /// The domain, in ASCII; of an address literal, the literal.
    pub domain: String,
    /// The receipt, or why no recipient was accepted or the outcome is unknown, as
    /// [`Client::send`](crate::Client::send) returns it. An error has a
    /// [receipt](Error::receipt), too.
    pub result: Result<Receipt>,
    /// The servers that were passed over, in their order, whatever the result: a host whose
    /// addresses were not found or not allowed, a connection that failed, a refusal with 4xx.
    pub failures: Vec<MxFailure>,
    /// For each recipient, in the order of the receipt.
    pub(super) vias: Vec<Option<Via>>,
}

impl DomainResult {
    fn recipients(&self) -> &[Recipient] {
        receipt_of(&self.result).map_or(&[], |receipt| &receipt.recipients)
    }
}

/// A recipient of an [`MxReceipt`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MxRecipient<'r> {
    /// The recipient and the outcome.
    pub recipient: &'r Recipient,
    /// The last server that was reached; `None` if none was.
    pub via: Option<&'r Via>,
    /// The result for its domain.
    pub domain: &'r DomainResult,
}

/// The result of sending a message to the servers of each recipient's domain.
///
/// [`into_result`](Self::into_result) makes a [`Receipt`] of it.
#[derive(Clone, Debug)]
#[must_use = "a message that was accepted for one recipient may have been refused for another: \
    look at `recipients`"]
#[non_exhaustive]
pub struct MxReceipt {
    /// The result of each domain, in the order of its first recipient.
    pub domains: Vec<DomainResult>,
    /// The duration of the call.
    pub elapsed: Duration,
    /// For each recipient of the envelope, its domain and its place there.
    pub(super) places: Vec<(usize, usize)>,
}

impl MxReceipt {
    /// The recipients, in the order of the envelope.
    pub fn recipients(&self) -> impl Iterator<Item = MxRecipient<'_>> {
        self.places.iter().filter_map(|&(domain, place)| {
            let domain = &self.domains[domain];
            Some(MxRecipient {
                recipient: domain.recipients().get(place)?,
                via: domain.vias[place].as_ref(),
                domain,
            })
        })
    }

    /// Whether the message was accepted for every recipient.
    pub fn all_accepted(&self) -> bool {
        self.recipients()
            .all(|to| to.recipient.outcome.is_accepted())
    }

    /// Returns one receipt for all recipients, as [`Client::send`](crate::Client::send) does. Where
    /// they are of several domains, it has the domains in place of the server, no
    /// [reply](Receipt::reply) and no [TLS](Receipt::tls), and the sums of all bytes, round trips
    /// and transactions.
    ///
    /// # Errors
    ///
    /// No recipient was accepted, or an outcome is [unknown](Error::outcome_unknown). The error is
    /// that of a domain whose outcome is unknown, else of one that failed permanently, else of one
    /// that failed transiently; of equal ones, that of the first domain by name, whatever the order
    /// of the recipients. Its message begins with that domain, and has the others after it.
    pub fn into_result(mut self) -> Result<Receipt> {
        let elapsed = self.elapsed;
        if self.domains.len() == 1
            && let Some(DomainResult { result, .. }) = self.domains.pop()
        {
            return with_elapsed(result, elapsed);
        }
        let recipients: Vec<Recipient> = self.recipients().map(|to| to.recipient.clone()).collect();
        let names: Vec<&str> = self.domains.iter().map(|one| one.domain.as_str()).collect();
        let whole = Receipt::new(names.join(", "));
        let mut sum = Attempts::new(&[]);
        sum.recipients = recipients;
        let mut bytes = 0;
        let mut reasons = Vec::new();
        for DomainResult { domain, result, .. } in self.domains {
            let (receipt, error) = match result {
                Ok(receipt) => (Some(receipt), None),
                Err(mut error) => (error.take_receipt(), Some(error)),
            };
            if let Some(receipt) = &receipt {
                sum.add(&[], receipt);
                bytes += receipt.bytes;
            }
            reasons.extend(Reason::of(domain, receipt, error));
        }
        reasons.sort_by(|one, other| (one.rank, &one.domain).cmp(&(other.rank, &other.domain)));
        let message = match &reasons[..] {
            [
                Reason {
                    error: Some(error), ..
                },
            ] => error.message().to_owned(),
            all => {
                let texts: Vec<&str> = all.iter().map(|reason| reason.text.as_str()).collect();
                texts.join("; ")
            }
        };
        let is_accepted = |recipient: &Recipient| recipient.outcome.is_accepted();
        let any_accepted = sum.recipients.iter().any(is_accepted);
        let untried = |recipient: &Recipient| recipient.outcome == Outcome::NotTried;
        let any_untried = sum.recipients.iter().any(untried);
        let mut receipt = sum.into_receipt(whole, None).with_elapsed(elapsed);
        receipt.bytes = bytes;
        let decisive = reasons.into_iter().next().and_then(|reason| reason.error);
        match decisive.filter(|error| !any_accepted || error.outcome_unknown()) {
            Some(error) => Err(error.with_message(message).with_receipt(receipt)),
            None => {
                receipt.incomplete_reason = any_untried.then_some(message);
                Ok(receipt)
            }
        }
    }
}

/// Why the message was not accepted for all recipients of a domain.
struct Reason {
    /// The reasons with the lowest number decide the result.
    rank: u8,
    domain: String,
    text: String,
    error: Option<Error>,
}

impl Reason {
    /// The reason of a result; `None` if the receipt names none.
    fn of(domain: String, receipt: Option<Receipt>, error: Option<Error>) -> Option<Self> {
        const UNKNOWN: u8 = 0;
        const PERMANENT: u8 = 1;
        const OF_THE_REQUEST: u8 = 2;
        const TRANSIENT: u8 = 3;
        let rank = match &error {
            Some(error) if error.outcome_unknown() => UNKNOWN,
            Some(error) if error.is_transient() => TRANSIENT,
            Some(error) => match error.kind() {
                ErrorKind::Request | ErrorKind::Input | ErrorKind::Config | ErrorKind::Handover => {
                    OF_THE_REQUEST
                }
                _ => PERMANENT,
            },
            None if receipt
                .as_ref()?
                .not_accepted()
                .all(Recipient::is_transient) =>
            {
                TRANSIENT
            }
            None => PERMANENT,
        };
        let text = match &error {
            Some(error) => error.event(),
            None => receipt?.incomplete_reason?,
        };
        Some(Reason {
            rank,
            domain,
            text,
            error,
        })
    }
}

/// A server, by its host and address. A literal is both.
pub(super) fn place(host: &str, address: IpAddr) -> String {
    match host.starts_with('[') {
        true => host.to_owned(),
        false => format!("{host} [{address}]"),
    }
}

/// What failed at several places, each of which is named, with the replies of the servers.
pub(super) fn events(errors: &[Error]) -> String {
    let events: Vec<String> = errors.iter().map(Error::event).collect();
    events.join("; ")
}

pub(super) fn receipt_of(result: &Result<Receipt>) -> Option<&Receipt> {
    match result {
        Ok(receipt) => Some(receipt),
        Err(error) => error.receipt(),
    }
}

/// The result with this time in its receipt.
pub(super) fn with_elapsed(result: Result<Receipt>, elapsed: Duration) -> Result<Receipt> {
    match result {
        Ok(receipt) => Ok(receipt.with_elapsed(elapsed)),
        Err(mut error) => Err(match error.take_receipt() {
            Some(receipt) => error.with_receipt(receipt.with_elapsed(elapsed)),
            None => error,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Phase;

    fn failed(domain: &str, error: Error) -> DomainResult {
        let mut receipt = Receipt::new(domain);
        let mut recipient = Recipient::untried(format!("a@{domain}").parse().unwrap());
        recipient.transient = error.is_transient();
        if error.outcome_unknown() {
            recipient.outcome = Outcome::Unknown;
        }
        receipt.recipients = vec![recipient];
        DomainResult {
            domain: domain.to_owned(),
            result: Err(error.with_receipt(receipt)),
            failures: Vec::new(),
            vias: vec![None],
        }
    }

    fn accepted(domain: &str) -> DomainResult {
        let mut receipt = Receipt::new(domain);
        let outcome = Outcome::Accepted("250 2.1.5 Ok".parse().unwrap());
        let recipient = Recipient::new(format!("a@{domain}").parse().unwrap(), outcome);
        receipt.recipients = vec![recipient];
        DomainResult {
            domain: domain.to_owned(),
            result: Ok(receipt),
            failures: Vec::new(),
            vias: vec![None],
        }
    }

    fn result(domains: Vec<DomainResult>) -> Result<Receipt> {
        let places = (0..domains.len()).map(|domain| (domain, 0)).collect();
        let receipt = MxReceipt {
            domains,
            elapsed: Duration::ZERO,
            places,
        };
        receipt.into_result()
    }

    /// In order: each outweighs those after it.
    fn failures() -> Vec<DomainResult> {
        let error = |kind, phase, text: &str| Error::new(kind, phase, text).with_hint("A hint.");
        let lost = error(ErrorKind::Closed, Phase::EndOfData, "d: it was lost");
        let refused = error(ErrorKind::Refused, Phase::Rcpt, "c: it was refused");
        let reply: crate::proto::Reply = "550 5.1.1 No such user".parse().unwrap();
        let mut null_mx = error(ErrorKind::Connect, Phase::Connect, "e: it has no mail");
        null_mx.set_transient(false);
        vec![
            failed("d.example", lost.with_outcome_unknown(true)),
            failed("c.example", refused.with_reply(reply)),
            failed("e.example", null_mx),
            failed(
                "a.example",
                error(ErrorKind::Request, Phase::Mail, "a: it is invalid"),
            ),
            failed(
                "b.example",
                error(ErrorKind::Timeout, Phase::Greeting, "b: it is silent"),
            ),
        ]
    }

    #[test]
    fn the_error_of_several_domains_does_not_depend_on_the_order_of_the_recipients() {
        let all = failures();
        for first in 0..all.len() {
            let expected = all[first].result.as_ref().unwrap_err();
            let mut domains = all[first..].to_vec();
            let texts: Vec<String> = domains
                .iter()
                .map(|domain| domain.result.as_ref().unwrap_err().event())
                .collect();
            for _ in 0..domains.len() {
                domains.rotate_left(1);
                for domains in [domains.clone(), domains.iter().rev().cloned().collect()] {
                    let error = result(domains).unwrap_err();
                    assert_eq!(
                        (error.kind(), error.phase(), error.exit_code()),
                        (expected.kind(), expected.phase(), expected.exit_code())
                    );
                    assert_eq!(error.reply(), expected.reply());
                    assert_eq!(error.hint(), expected.hint());
                    // Each has its reply, and no hint.
                    let texts = texts.join("; ");
                    let message = match all.len() - first {
                        1 => expected.message(),
                        _ => &texts,
                    };
                    assert_eq!(error.message(), message);
                    assert_eq!(
                        error.to_string(),
                        format!("{texts}. {}", expected.hint().unwrap())
                    );
                }
            }
        }
    }

    #[test]
    fn the_reason_of_an_incomplete_receipt_has_no_hints() {
        let mut domains = failures().split_off(2);
        domains.insert(1, accepted("f.example"));
        let receipt = result(domains).unwrap();
        assert_eq!(
            receipt.incomplete_reason.unwrap(),
            "e: it has no mail; a: it is invalid; b: it is silent"
        );
        let outcomes = receipt.recipients.iter();
        let accepted: Vec<bool> = outcomes.map(|to| to.outcome.is_accepted()).collect();
        assert_eq!(accepted, [false, true, false, false]);
    }

    #[test]
    fn a_server_is_shown_with_the_reason_of_its_policy() {
        let via = |host: &str, plaintext_reason| Via {
            host: host.to_owned(),
            address: [192, 0, 2, 1].into(),
            policy: MxPolicy::None,
            policy_reason: "the MX records are not signed".into(),
            tls: None,
            plaintext_reason,
            dnssec: false,
        };
        assert_eq!(
            via("mx.example.org", None).to_string(),
            "mx.example.org [192.0.2.1], policy none (the MX records are not signed)"
        );
        assert_eq!(
            via("[192.0.2.1]", Some(PlaintextReason::NotOffered)).to_string(),
            "[192.0.2.1], policy none (the MX records are not signed), not encrypted: the server \
                does not offer STARTTLS"
        );
    }
}
