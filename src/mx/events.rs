//! What TLS reports count of a session (RFC 8460, 4.3).

use std::error::Error as _;

use super::policy::{HostPolicy, Protection};
use super::tls_report::ResultType;
use crate::dns::LookupError;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::receipt::{CertificateFailure, CertificateProblem, PlaintextReason, Receipt};

/// The result type of a failure, and its text.
pub(super) type Failure = (ResultType, String);

/// The result of a session with a host under this policy; `None` if it did not come to TLS, as
/// without a connection.
pub(super) fn of_session(
    policy: &HostPolicy,
    result: &Result<Receipt>,
) -> Option<Result<(), Failure>> {
    match result {
        Ok(receipt) => of_receipt(policy, receipt),
        Err(error) => of_error(error)
            .map(Err)
            .or_else(|| of_receipt(policy, error.receipt()?)),
    }
}

/// The result type of TLSA records that could not be had; `None` if that does not concern the
/// domain.
pub(super) fn of_lookup(error: &LookupError) -> Option<ResultType> {
    (!error.is_of_resolver()).then_some(ResultType::DnssecInvalid)
}

/// The failure of TLS that ended a session.
fn of_error(error: &Error) -> Option<Failure> {
    let source = error.source();
    if let Some(failure) = source.and_then(|source| source.downcast_ref()) {
        return Some(of_certificate(failure));
    }
    let result = match (error.kind(), error.phase()) {
        // It is not offered, or refused.
        (ErrorKind::Tls, Phase::StartTls) => ResultType::StartTlsNotSupported,
        // A time-out and a lost connection, too.
        (ErrorKind::Tls, _) | (_, Phase::StartTls | Phase::Tls) => ResultType::ValidationFailure,
        _ => return None,
    };
    Some((result, error.message().to_owned()))
}

/// What a session with TLS, or in plaintext where that was allowed, means under the policy.
fn of_receipt(policy: &HostPolicy, receipt: &Receipt) -> Option<Result<(), Failure>> {
    let Some(tls) = &receipt.tls else {
        let reason = receipt.plaintext_reason.as_ref()?;
        let result = match reason {
            PlaintextReason::NotOffered | PlaintextReason::Refused(_) => {
                ResultType::StartTlsNotSupported
            }
            PlaintextReason::Failed(_) => ResultType::ValidationFailure,
        };
        return Some(Err((result, reason.to_string())));
    };
    Some(match &policy.protection {
        Protection::Dane(dane) if !dane.is_usable() => {
            let message = "none of the TLSA records is usable".to_owned();
            Err((ResultType::TlsaInvalid, message))
        }
        Protection::Testing {
            unlisted: Some(unlisted),
            ..
        } => Err((ResultType::ValidationFailure, unlisted.clone())),
        Protection::Testing { .. } => match &tls.not_verified_reason {
            Some(failure) => Err(of_certificate(failure)),
            None => Ok(()),
        },
        Protection::Dane(_) | Protection::MtaSts(_) | Protection::Opportunistic => Ok(()),
    })
}

fn of_certificate(failure: &CertificateFailure) -> Failure {
    let result = match failure.problem {
        CertificateProblem::WrongName => ResultType::CertificateHostMismatch,
        CertificateProblem::Expired => ResultType::CertificateExpired,
        _ => ResultType::CertificateNotTrusted,
    };
    (result, failure.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::Endpoint;
    use crate::mx::mta_sts::StoredPolicy;
    use crate::receipt::TlsInfo;
    use crate::tls::dane::{Dane, TlsaRecord};

    fn policy(protection: Protection) -> HostPolicy {
        HostPolicy {
            protection,
            reason: String::new(),
        }
    }

    fn testing(unlisted: Option<&str>) -> HostPolicy {
        let text = "version: STSv1\nmode: testing\nmx: mx.example.org\nmax_age: 86400";
        let stored = StoredPolicy::new("1", text.parse().unwrap(), SystemTime::now());
        policy(Protection::Testing {
            policy: Arc::new(stored),
            unlisted: unlisted.map(str::to_owned),
        })
    }

    fn certificate(problem: CertificateProblem) -> CertificateFailure {
        CertificateFailure {
            problem,
            chain: Vec::new(),
            index: None,
            message: "what is wrong".into(),
            hint: String::new(),
        }
    }

    fn receipt(failure: Option<CertificateFailure>) -> Receipt {
        let mut receipt = Receipt::new(&*Endpoint::new("mx.example.org").server_name());
        receipt.tls = Some(Arc::new(TlsInfo {
            version: "TLSv1.3".into(),
            cipher: String::new(),
            key_exchange: None,
            chain: Arc::default(),
            not_verified_reason: failure,
            verified_by: None,
            resumed: false,
            handshake_duration: Duration::ZERO,
        }));
        receipt
    }

    fn plaintext(reason: PlaintextReason) -> Receipt {
        let mut receipt = receipt(None);
        receipt.tls = None;
        receipt.plaintext_reason = Some(reason);
        receipt
    }

    fn result_type(policy: &HostPolicy, result: Result<Receipt>) -> Option<Option<ResultType>> {
        let outcome = of_session(policy, &result)?;
        Some(outcome.err().map(|(result, _)| result))
    }

    fn failure(result: ResultType) -> Option<Option<ResultType>> {
        Some(Some(result))
    }

    #[test]
    fn certificates_have_types_of_their_own() {
        use CertificateProblem::{Expired, SelfSigned, WrongKey, WrongName};
        for (problem, expected) in [
            (Expired, ResultType::CertificateExpired),
            (WrongName, ResultType::CertificateHostMismatch),
            (SelfSigned, ResultType::CertificateNotTrusted),
            (WrongKey, ResultType::CertificateNotTrusted),
        ] {
            let error = certificate(problem).into_error().context("DANE");
            let any = policy(Protection::Opportunistic);
            assert_eq!(result_type(&any, Err(error)), failure(expected));
            let listed = testing(None);
            let unverified = receipt(Some(certificate(problem)));
            assert_eq!(
                result_type(&listed, Ok(unverified.clone())),
                failure(expected)
            );
            // Without a policy, the certificate does not matter.
            assert_eq!(result_type(&any, Ok(unverified)), Some(None));
        }
    }

    #[test]
    fn other_failures_of_tls_are_reported_in_words() {
        let any = policy(Protection::Opportunistic);
        let error = Error::new(ErrorKind::Tls, Phase::Tls, "no suite in common");
        let expected = (
            ResultType::ValidationFailure,
            "no suite in common".to_owned(),
        );
        assert_eq!(of_session(&any, &Err(error)), Some(Err(expected)));
        for phase in [Phase::StartTls, Phase::Tls] {
            let error = Error::new(ErrorKind::Timeout, phase, "too slow");
            let expected = failure(ResultType::ValidationFailure);
            assert_eq!(result_type(&any, Err(error)), expected);
        }
        let reason = PlaintextReason::Failed("the handshake failed".into());
        let expected = (
            ResultType::ValidationFailure,
            "the handshake failed".to_owned(),
        );
        assert_eq!(
            of_session(&any, &Ok(plaintext(reason))),
            Some(Err(expected))
        );
    }

    /// Whether TLS was required or not.
    #[test]
    fn starttls_that_is_refused_is_not_supported() {
        let any = policy(Protection::Opportunistic);
        let expected = failure(ResultType::StartTlsNotSupported);
        let error = Error::new(ErrorKind::Tls, Phase::StartTls, "no STARTTLS");
        assert_eq!(result_type(&any, Err(error)), expected);
        for reason in [
            PlaintextReason::NotOffered,
            PlaintextReason::Refused("454 4.7.0 Not now".into()),
        ] {
            assert_eq!(result_type(&any, Ok(plaintext(reason))), expected);
        }
    }

    #[test]
    fn sessions_that_did_not_come_to_tls_are_left_out() {
        let any = policy(Protection::Opportunistic);
        let refused = Error::new(ErrorKind::Connect, Phase::Connect, "no connection");
        assert_eq!(result_type(&any, Err(refused)), None);
        let mut greeting = receipt(None);
        greeting.tls = None;
        let error = Error::new(ErrorKind::Refused, Phase::Greeting, "refused");
        assert_eq!(result_type(&any, Err(error.with_receipt(greeting))), None);
        // TLS worked, and the message was refused.
        let error = Error::new(ErrorKind::Refused, Phase::Mail, "refused");
        let error = error.with_receipt(receipt(None));
        assert_eq!(result_type(&any, Err(error)), Some(None));
    }

    #[test]
    fn a_resolver_that_fails_is_not_reported_to_the_domain() {
        use crate::dns::LookupErrorKind::{Bogus, Network, Refused, ServerFailure, TimedOut};
        let of = |kind| {
            let name = "_25._tcp.mx.example.org".parse().unwrap();
            of_lookup(&LookupError::new(name, "TLSA", kind, ""))
        };
        let invalid = Some(ResultType::DnssecInvalid);
        assert_eq!([Bogus, ServerFailure].map(of), [invalid; 2]);
        assert_eq!([TimedOut, Refused, Network].map(of), [None; 3]);
    }

    #[test]
    fn policies_have_failures_of_their_own() {
        let unlisted = testing(Some("it is not listed"));
        assert_eq!(
            result_type(&unlisted, Ok(receipt(None))),
            failure(ResultType::ValidationFailure)
        );
        assert_eq!(result_type(&testing(None), Ok(receipt(None))), Some(None));
        let dane = |usage| {
            let record = TlsaRecord::new(usage, 1, 1, [7; 32]);
            policy(Protection::Dane(Dane::new("mx.example.org", [record])))
        };
        assert_eq!(result_type(&dane(3), Ok(receipt(None))), Some(None));
        assert_eq!(
            result_type(&dane(1), Ok(receipt(None))),
            failure(ResultType::TlsaInvalid)
        );
    }
}
