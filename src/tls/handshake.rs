//! Explains why a handshake failed, from the error of `rustls` and the server's first bytes.

use std::io;

use tokio_rustls::rustls::{self, AlertDescription, CertificateError};

use super::reasons::{certificate_text, rustls_text, split_words};
use super::{CertificateFailure, TlsMode};
use crate::diagnose::handshake as advice;
use crate::proto::speaks_tls;
use crate::{Error, ErrorKind, Phase};

/// Describes the failure of a handshake with `host`. `offered` are the client's versions.
pub(super) fn explain(
    error: io::Error,
    received: &[u8],
    host: &str,
    mode: TlsMode,
    offered: &str,
) -> Error {
    if !received.is_empty() && !speaks_tls(received) {
        return plaintext(received, host, mode).with_source(error);
    }
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
            match other.0.downcast_ref::<CertificateFailure>() {
                Some(failure) => failure.clone().into_error(),
                None => {
                    certificate(host, &CertificateError::Other(other.clone())).with_source(error)
                }
            }
        }
        Some(rustls::Error::InvalidCertificate(problem)) => {
            certificate(host, problem).with_source(error)
        }
        Some(rustls::Error::AlertReceived(alert)) => {
            explain_alert(*alert, received, host, offered).with_source(error)
        }
        Some(rustls::Error::PeerIncompatible(reason)) => match chosen_version(received) {
            Some(version) if !offered.contains(version) => {
                no_version(host, Some(version), offered).with_source(error)
            }
            _ => nothing_in_common(host, &split_words(reason)).with_source(error),
        },
        Some(rustls::Error::NoCertificatesPresented) => tls(
            format!("{host} sent no certificate"),
            advice::NO_CERTIFICATE,
        )
        .with_source(error),
        Some(problem) => tls(
            format!(
                "the TLS handshake with {host} failed: {}",
                rustls_text(problem)
            ),
            advice::NOT_TLS,
        )
        .with_source(error),
        None => cut_off(error, received, host, mode),
    }
}

/// Explains an alert that arrives instead of the first reply inside TLS. With TLS 1.3, a server may
/// refuse a missing or unacceptable client certificate after the client has completed the handshake
/// (RFC 8446, 4.4.2.4), so the alert belongs to the handshake.
pub(crate) fn late_alert(error: &io::Error, host: &str) -> Option<Error> {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())?;
    match cause {
        // The handshake succeeded otherwise, so the alert can only be about the client certificate.
        rustls::Error::AlertReceived(alert) => {
            Some(explain_alert(*alert, &[HANDSHAKE], host, "").with_source(cause.clone()))
        }
        _ => None,
    }
}

/// The types of records (RFC 8446, 5.1).
const ALERT: u8 = 0x15;
const HANDSHAKE: u8 = 0x16;

fn tls(message: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::new(ErrorKind::Tls, Phase::Tls, message).with_hint(hint)
}

/// The server sent plaintext where TLS was to begin.
fn plaintext(received: &[u8], host: &str, mode: TlsMode) -> Error {
    let line = first_line(received);
    #[cfg(feature = "mx")]
    if mode == TlsMode::Https {
        return tls(
            format!("{host} does not speak TLS on this port: its first bytes are {line:?}"),
            advice::NOT_TLS,
        );
    }
    if mode == TlsMode::StartTls {
        return tls(
            format!("{host} agreed to STARTTLS and then went on in clear text: {line:?}"),
            advice::PLAINTEXT_AFTER_STARTTLS,
        );
    }
    let other = match received {
        [b'S', b'S', b'H', b'-', ..] => Some("an SSH server"),
        [b'H', b'T', b'T', b'P', b'/', ..] | [b'<', ..] => Some("a web server"),
        [b'*', b' ', b'O', b'K', ..] => Some("an IMAP server"),
        [b'+', b'O', b'K', ..] => Some("a POP3 server"),
        _ => None,
    };
    if let Some(other) = other {
        return tls(
            format!(
                "{host} is {other} on this port, and not a mail server that speaks TLS: it says \
                    {line:?}"
            ),
            advice::OTHER_SERVER,
        );
    }
    let hint = |hint| match mode {
        TlsMode::ImplicitLmtp => advice::IMPLICIT_LMTP.to_owned(),
        _ => hint,
    };
    match received {
        [b'2', b'2', b'0', ..] => tls(
            format!(
                "{host} speaks plaintext on this port, where TLS was to begin with the first \
                    byte: it says {line:?}"
            ),
            hint(advice::use_starttls(host)),
        ),
        [b'4' | b'5', b'0'..=b'9', b'0'..=b'9', ..] => tls(
            format!(
                "{host} refuses the connection, and in plaintext, where TLS was to begin with the \
                    first byte: it says {line:?}"
            ),
            hint(advice::REFUSED_IN_PLAINTEXT.into()),
        ),
        _ => tls(
            format!("{host} does not speak TLS on this port: its first bytes are {line:?}"),
            hint(advice::UNKNOWN_SERVER.into()),
        ),
    }
}

/// The first line, shortened. Bytes that are not printable ASCII become dots.
fn first_line(received: &[u8]) -> String {
    let line = received
        .split(|byte| matches!(byte, b'\r' | b'\n'))
        .next()
        .unwrap_or_default();
    let printable = |byte: &u8| {
        if matches!(byte, b' '..=b'~') {
            char::from(*byte)
        } else {
            '.'
        }
    };
    let mut text: String = line.iter().take(120).map(printable).collect();
    if line.len() > 120 {
        text.push('…');
    }
    text
}

/// The connection was closed or failed below TLS.
fn cut_off(error: io::Error, received: &[u8], host: &str, mode: TlsMode) -> Error {
    use io::ErrorKind as E;
    let closed = matches!(
        error.kind(),
        E::UnexpectedEof | E::ConnectionReset | E::ConnectionAborted | E::BrokenPipe | E::WriteZero
    );
    if !closed {
        let kind = if error.kind() == E::TimedOut {
            ErrorKind::Timeout
        } else {
            ErrorKind::Closed
        };
        return Error::new(
            kind,
            Phase::Tls,
            format!("the connection to {host} failed during the TLS handshake: {error}"),
        )
        .with_source(error);
    }
    let how = if error.kind() == E::UnexpectedEof {
        "closed the connection"
    } else {
        "broke off the connection"
    };
    let (when, hint) = match (received.is_empty(), mode) {
        (true, TlsMode::Implicit) => ("instead of answering the TLS handshake", advice::CLOSED),
        (true, TlsMode::ImplicitLmtp) => (
            "instead of answering the TLS handshake",
            advice::IMPLICIT_LMTP,
        ),
        (true, TlsMode::StartTls) => (
            "instead of answering the TLS handshake, though it had agreed to STARTTLS",
            advice::CLOSED_AFTER_STARTTLS,
        ),
        #[cfg(feature = "mx")]
        (true, TlsMode::Https) => (
            "instead of answering the TLS handshake",
            advice::CLOSED_MIDWAY,
        ),
        (false, _) => ("in the middle of the TLS handshake", advice::CLOSED_MIDWAY),
    };
    tls(format!("{host} {how} {when}"), hint).with_source(error)
}

/// The caller's verifier refused the certificate, or a signature in the handshake does not match.
fn certificate(host: &str, problem: &CertificateError) -> Error {
    match problem {
        CertificateError::BadSignature => tls(
            format!(
                "{host} does not hold the key of the certificate that it shows: its signature \
                    does not match"
            ),
            advice::WRONG_SIGNATURE,
        ),
        _ => tls(
            format!(
                "the certificate of {host} was not accepted: {}",
                certificate_text(problem)
            ),
            advice::OTHER_VERIFIER,
        ),
    }
}

fn explain_alert(alert: AlertDescription, received: &[u8], host: &str, offered: &str) -> Error {
    use AlertDescription as A;
    let at_once = received.first() == Some(&ALERT);
    match alert {
        A::ProtocolVersion => no_version(host, chosen_version(received), offered),
        A::HandshakeFailure | A::InsufficientSecurity if at_once => {
            nothing_in_common(host, "the server refused at once")
        }
        A::CertificateRequired | A::NoCertificate => client_certificate(
            host,
            "demands a client certificate, and none was sent",
            alert,
        ),
        // Before TLS 1.3 there is no alert of its own for a missing certificate.
        A::HandshakeFailure => client_certificate(
            host,
            "broke off the TLS handshake after it had shown its certificate: as a rule, it \
                demands a client certificate",
            alert,
        ),
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown
        | A::UnknownCA
        | A::AccessDenied
        | A::DecryptError => client_certificate(
            host,
            "does not accept the client certificate, or demands one and got none",
            alert,
        ),
        A::UnrecognisedName => tls(
            format!(
                "{host} says that it does not know this name (TLS alert {})",
                name(alert)
            ),
            advice::UNKNOWN_NAME,
        ),
        A::InternalError => tls(
            format!(
                "{host} failed in the TLS handshake by its own account (TLS alert {})",
                name(alert)
            ),
            advice::SERVER_FAILED,
        ),
        _ => tls(
            format!(
                "{host} broke off the TLS handshake (TLS alert {})",
                name(alert)
            ),
            advice::OTHER_ALERT,
        ),
    }
}

fn client_certificate(host: &str, what: &str, alert: AlertDescription) -> Error {
    tls(
        format!("{host} {what} (TLS alert {})", name(alert)),
        advice::CLIENT_CERTIFICATE,
    )
}

fn nothing_in_common(host: &str, detail: &str) -> Error {
    tls(
        format!(
            "{host} and this client have no cipher suite, key exchange or signature in common \
                ({detail})"
        ),
        advice::NO_SUITE,
    )
}

fn no_version(host: &str, chosen_version: Option<&str>, offered: &str) -> Error {
    let (old, new) = (offered.contains("TLSv1.2"), offered.contains("TLSv1.3"));
    let server = match (chosen_version, old, new) {
        (Some(version), ..) => format!("the server speaks {version}"),
        // No version after TLS 1.3 exists yet, so the server's is older than those offered.
        (None, true, true) => "the server speaks TLSv1.1 or older".into(),
        (None, false, true) => "the server speaks TLSv1.2 or older".into(),
        (None, ..) => "the server speaks another".into(),
    };
    let hint = match chosen_version {
        Some("SSLv3" | "TLSv1.0" | "TLSv1.1") => advice::OLD_SERVER,
        None if old && new => advice::OLD_SERVER,
        _ if new => advice::ALLOW_TLS_1_2,
        _ => advice::ALLOW_TLS_1_3,
    };
    tls(
        format!(
            "{host} and this client have no version of TLS in common: {server}, this client \
                offers {offered}"
        ),
        hint,
    )
}

/// The version that the server chose in its ServerHello (RFC 5246, 7.4.1.3). The version in the
/// record of an alert is not used: it is usually TLS 1.2, whatever the server speaks.
fn chosen_version(received: &[u8]) -> Option<&'static str> {
    let [HANDSHAKE, 3, _, _, _, 2, _, _, _, 3, minor, ..] = received else {
        return None;
    };
    ["SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2"]
        .get(usize::from(*minor))
        .copied()
}

/// An alert as its name in the RFC and its number: `handshake_failure (40)`.
fn name(alert: AlertDescription) -> String {
    let number = u8::from(alert);
    let mut text = String::new();
    for letter in alert.as_str().unwrap_or("unknown").chars() {
        // UnknownCA, RecordOverflow: a new word where a capital follows a small letter.
        if letter.is_ascii_uppercase() && text.ends_with(|last: char| last.is_ascii_lowercase()) {
            text.push('_');
        }
        text.push(letter);
    }
    format!("{}, {number}", text.to_ascii_lowercase())
}
