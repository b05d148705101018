//! What TLS reports count of a session (RFC 8460, 4.3).

use std::error::Error as _;

use super::policy::{HostPolicy, Protection};
use super::tls_report::ResultType;
use crate::connection::NO_STARTTLS;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::receipt::{CertificateFailure, CertificateProblem, Receipt};

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

/// The failure of TLS that ended a session.
fn of_error(error: &Error) -> Option<Failure> {
    let source = error.source();
    if let Some(failure) = source.and_then(|source| source.downcast_ref()) {
        return Some(of_certificate(failure));
    }
    if error.kind() != ErrorKind::Tls {
        return None;
    }
    let message = error.message().to_owned();
    Some(match error.phase() {
        // STARTTLS is not offered, or refused.
        Phase::StartTls => (ResultType::StartTlsNotSupported, message),
        _ => (ResultType::ValidationFailure, message),
    })
}

/// What a session with TLS, or in plaintext where that was allowed, means under the policy.
fn of_receipt(policy: &HostPolicy, receipt: &Receipt) -> Option<Result<(), Failure>> {
    let Some(tls) = &receipt.tls else {
        let reason = receipt.plaintext_reason.as_deref()?;
        return Some(Err(match reason {
            NO_STARTTLS => (ResultType::StartTlsNotSupported, reason.to_owned()),
            reason => (ResultType::ValidationFailure, reason.to_owned()),
        }));
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

    fn plaintext(reason: &str) -> Receipt {
        let mut receipt = receipt(None);
        receipt.tls = None;
        receipt.plaintext_reason = Some(reason.to_owned());
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
        let error = Error::new(ErrorKind::Tls, Phase::StartTls, "no STARTTLS");
        let expected = failure(ResultType::StartTlsNotSupported);
        assert_eq!(result_type(&any, Err(error)), expected);
        let reason = "the handshake failed";
        let expected = (ResultType::ValidationFailure, reason.to_owned());
        assert_eq!(
            of_session(&any, &Ok(plaintext(reason))),
            Some(Err(expected))
        );
        assert_eq!(
            result_type(&any, Ok(plaintext(NO_STARTTLS))),
            failure(ResultType::StartTlsNotSupported)
        );
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
