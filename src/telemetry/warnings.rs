//! Warnings about certificates that expire soon, and policies that cannot be had.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::TARGET;
use crate::diagnose::certificate as advice;
use crate::receipt::{self, Certificate, CertificateUse};

/// The interval between two warnings about a certificate.
const INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// The maximum number of certificates that are remembered.
const REMEMBERED: usize = 1000;

/// When each certificate was warned about, by its fingerprint.
static WARNED: LazyLock<Mutex<HashMap<String, Instant>>> = LazyLock::new(Mutex::default);

/// Warns about a certificate in use that expires soon, at most once a day.
pub(crate) fn expires_soon(usage: CertificateUse, certificate: &Certificate, host: &str) {
    let now = SystemTime::now();
    if !receipt::expires_soon(usage, certificate, now) || !is_due(&certificate.sha256) {
        return;
    }
    let hint = match usage {
        CertificateUse::Server => advice::RENEW_SERVER,
        CertificateUse::Client => advice::RENEW_CLIENT,
        CertificateUse::Intermediate => advice::RENEW_INTERMEDIATE,
        CertificateUse::Anchor => advice::RENEW_ANCHOR,
    };
    tracing::warn!(
        target: TARGET,
        host,
        certificate = usage.as_str(),
        subject = certificate.subject,
        not_after = certificate.not_after_text(),
        "{}. {hint}",
        receipt::validity(usage, certificate, now)
    );
}

/// Warns that a policy of MTA-STS could not be fetched (RFC 8461, 3.3). Fetches are not repeated
/// for a while.
#[cfg(feature = "mx")]
pub(crate) fn policy_not_fetched(
    domain: &crate::dns::DomainName,
    problem: &dyn std::fmt::Display,
    hint: &str,
) {
    tracing::warn!(target: TARGET, %domain, "{problem}. {hint}");
}

fn is_due(fingerprint: &str) -> bool {
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    warned.retain(|_, at| now.saturating_duration_since(*at) < INTERVAL);
    if warned.contains_key(fingerprint) {
        return false;
    }
    if warned.len() >= REMEMBERED {
        warned.clear();
    }
    warned.insert(fingerprint.to_owned(), now);
    true
}
