//! Texts for the errors of `webpki` and `rustls`, whose `Display` shows the name of a variant.

use tokio_rustls::rustls::{self, CertificateError};

/// What is wrong with a certificate or a revocation list, as the end of a sentence whose subject is
/// "it".
pub(super) fn webpki_text(error: &webpki::Error) -> &'static str {
    use webpki::Error as E;
    #[allow(deprecated)]
    match error {
        E::BadDer => "it is damaged (its DER encoding)",
        E::BadDerTime => "a date in it is damaged",
        E::CaUsedAsEndEntity => "it is that of an authority (CA:TRUE)",
        E::CertDistrusted => "its key is distrusted",
        E::CertExpired { .. } => "it has expired",
        E::CertNotValidForName(_) => "it is for another name",
        E::CertNotValidYet { .. } => "it is not valid yet",
        E::CertRevoked => "it was revoked",
        E::CrlExpired { .. } => "a newer revocation list was due",
        E::EmptyEkuExtension => "its extended key usage names no purpose",
        E::EndEntityUsedAsCa => "it is not an authority (CA:TRUE is missing)",
        E::ExtensionValueInvalid => "an extension in it is damaged, or there twice",
        E::InvalidCertValidity => "it ends before it begins",
        E::InvalidCrlNumber => "the number of the revocation list is damaged (CRL number)",
        E::InvalidNetworkMaskConstraint => "the network mask in its name constraints is damaged",
        E::InvalidSerialNumber => "its serial number is damaged or too long",
        E::InvalidCrlSignatureForPublicKey => "the signature of the revocation list does not match",
        E::InvalidSignatureForPublicKey => "its signature does not match",
        E::IssuerNotCrlSigner => {
            "its issuer may not sign revocation lists (its key usage lacks cRLSign)"
        }
        E::MalformedDnsIdentifier => "a DNS name in it is malformed",
        E::MalformedExtensions => "its extensions are damaged",
        E::MalformedNameConstraint => "its name constraints are damaged",
        E::MaximumNameConstraintComparisonsExceeded => {
            "it takes more comparisons of name constraints than are made"
        }
        E::MaximumPathBuildCallsExceeded => "there are too many ways from it to an authority",
        E::MaximumPathDepthExceeded => {
            "there are too many certificates between it and an authority"
        }
        E::MaximumSignatureChecksExceeded => "it takes more checks of signatures than are made",
        E::NameConstraintViolation => {
            "its issuer may not issue any for this name (name constraints)"
        }
        E::PathLenConstraintViolated => {
            "there are more authorities above it than one of them allows (pathLenConstraint)"
        }
        E::RequiredEkuNotFound | E::RequiredEkuNotFoundContext(_) => {
            "its extended key usage lacks serverAuth"
        }
        E::SignatureAlgorithmMismatch => "it names two algorithms for one signature",
        E::TrailingData(_) => "it has more bytes than it should",
        E::UnknownIssuer => "its issuer is not known",
        E::UnknownRevocationStatus => "no revocation list is for it",
        E::UnsupportedCertVersion => "it is not X.509 version 3",
        E::UnsupportedCriticalExtension => "it has a critical extension that is not supported",
        E::UnsupportedCrlIssuingDistributionPoint => {
            "the issuing distribution point of the revocation list is not supported"
        }
        E::UnsupportedCrlVersion => "the revocation list is not X.509 version 2",
        E::UnsupportedDeltaCrl => {
            "it is a revocation list of changes alone (delta), which is not supported"
        }
        E::UnsupportedIndirectCrl => "it is an indirect revocation list, which is not supported",
        E::UnsupportedNameType => "names of this kind are not supported",
        E::UnsupportedRevocationReason => "a reason in the revocation list is not supported",
        E::UnsupportedRevocationReasonsPartitioning => {
            "it is a revocation list for some reasons alone, which is not supported"
        }
        E::UnsupportedCrlSignatureAlgorithm | E::UnsupportedCrlSignatureAlgorithmContext(_) => {
            "the revocation list is signed with an algorithm that is not supported"
        }
        E::UnsupportedCrlSignatureAlgorithmForPublicKey
        | E::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
            "the revocation list is signed with an algorithm that does not fit its issuer's key"
        }
        E::UnsupportedSignatureAlgorithm | E::UnsupportedSignatureAlgorithmContext(_) => {
            "it is signed with an algorithm that is not supported"
        }
        E::UnsupportedSignatureAlgorithmForPublicKey
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "it is signed with an algorithm that does not fit its issuer's key"
        }
        _ => "it cannot be verified",
    }
}

/// Why a handshake failed, according to `rustls`.
pub(super) fn rustls_text(error: &rustls::Error) -> String {
    use rustls::Error as E;
    match error {
        E::InappropriateMessage { .. } => "a message came that does not belong there".into(),
        E::InappropriateHandshakeMessage { .. } => {
            "a handshake message came that does not belong there".into()
        }
        E::InvalidMessage(why) => format!("a message is damaged ({})", split_words(why)),
        E::PeerIncompatible(why) => format!("the server lacks something ({})", split_words(why)),
        E::PeerMisbehaved(why) => format!("the server does not keep to TLS ({})", split_words(why)),
        E::AlertReceived(alert) => format!("the server sent an alert ({})", split_words(alert)),
        E::InvalidCertificate(why) => certificate_text(why),
        E::InvalidCertRevocationList(why) => {
            format!("a revocation list cannot be used ({})", split_words(why))
        }
        E::InvalidEncryptedClientHello(why) => {
            format!("the encrypted client hello failed ({})", split_words(why))
        }
        E::InconsistentKeys(why) => format!(
            "certificate and key do not belong together ({})",
            split_words(why)
        ),
        // The other errors have readable texts.
        other => other.to_string(),
    }
}

/// Why a custom verifier does not accept a certificate.
pub(super) fn certificate_text(error: &CertificateError) -> String {
    match error {
        CertificateError::Other(other) => other.to_string(),
        other => split_words(other),
    }
}

/// The name of a variant as separate words: `NoCipherSuitesInCommon` becomes "no cipher suites in
/// common". Its contents are left out unless they are text.
pub(super) fn split_words(error: &impl std::fmt::Debug) -> String {
    let name = format!("{error:?}");
    let end = name
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(name.len());
    let mut words = String::new();
    for letter in name[..end].chars() {
        if letter.is_ascii_uppercase()
            && words.ends_with(|last: char| last.is_ascii_lowercase() || last.is_ascii_digit())
        {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
        .strip_suffix(" context")
        .map(str::to_owned)
        .unwrap_or(words)
}
