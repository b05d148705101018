//! Any bytes as a trust store or a client certificate: PEM, DER, PKCS#12, JKS. They are read in
//! bounded time and memory (libFuzzer watches both), or the error says what is wrong with them.

use envoi::tls::{ClientCertificate, Trust};
use envoi::{Error, ErrorKind, Result};

/// That of the stores in `src/tls/tests/stores`.
const PASSWORD: &str = "changeit";

fn check_error<T>(result: Result<T>) -> Option<T> {
    let error: Error = match result {
        Ok(loaded) => return Some(loaded),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(
        !format!("{error} {error:?}").contains(PASSWORD),
        "{error:?}"
    );
    check_printable(&error.to_string());
    assert!(
        !error.message().is_empty() && error.message().len() < 1000,
        "{error}"
    );
    None
}

/// Names in certificates are untrusted.
fn check_printable(text: &str) {
    assert!(
        !text.contains(|c: char| c.is_control() && c != '\n'),
        "{text:?}"
    );
}

pub fn check(bytes: &[u8]) {
    let trust = Trust::empty().pem(bytes);
    for trust in [trust.clone(), trust.password(PASSWORD)] {
        let Some(summary) = check_error(trust.load()) else {
            continue;
        };
        assert!(!summary.anchors.is_empty());
        assert!(
            summary.anchors.len() <= bytes.len() / 50,
            "no certificate is that small"
        );
        check_printable(&summary.to_string());
    }
    let certificate = ClientCertificate::pem(bytes);
    for certificate in [certificate.clone(), certificate.password(PASSWORD)] {
        if let Some(certificate) = check_error(certificate.load()) {
            check_printable(&certificate.to_string());
        }
    }
}
