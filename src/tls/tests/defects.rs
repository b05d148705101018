//! Keys, signatures and extensions that cause a certificate to be refused: which certificate, and
//! what to do.

use rcgen::{CustomExtension, DistinguishedName, GeneralSubtree, NameConstraints};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::*;
use crate::tls::failure::VerifyError;
use crate::tls::reasons::{certificate_text, rustls_text, split_words, webpki_text};
use crate::tls::store::TrustStore;

/// As `tests/weak/make.sh` creates them.
const ROOT: &str = include_str!("weak/root.pem");
const SHORT_ROOT: &str = include_str!("weak/short-root.pem");
const SHORT_LEAF: &str = include_str!("weak/short-leaf.pem");
const LEAF_OF_SHORT_ROOT: [&str; 2] = [
    include_str!("weak/leaf-of-short-root.pem"),
    include_str!("weak/leaf-of-short-root.key"),
];
const SHA1_LEAF: [&str; 2] = [
    include_str!("weak/sha1-leaf.pem"),
    include_str!("weak/sha1-leaf.key"),
];
const SHA1_MIDDLE: &str = include_str!("weak/sha1-middle.pem");
const LEAF_OF_SHA1_MIDDLE: [&str; 2] = [
    include_str!("weak/leaf-of-sha1-middle.pem"),
    include_str!("weak/leaf-of-sha1-middle.key"),
];

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// The failure of a client that trusts `trusted` with a server that sends these certificates.
async fn failure_with(trusted: &str, chain: &[&str], key: &str) -> Error {
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12, &TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.iter().map(|pem| der(pem)).collect(), key)
        .unwrap();
    let settings = TlsSettings::new(Trust::empty().pem(trusted));
    connect(&connector(&settings), config).await.unwrap_err()
}

#[tokio::test]
async fn a_short_key_of_an_authority_is_named() {
    let [leaf, key] = LEAF_OF_SHORT_ROOT;
    for chain in [&[leaf, SHORT_ROOT][..], &[leaf]] {
        let error = failure_with(SHORT_ROOT, chain, key).await;
        assert_says(
            &error,
            &[
                "\"CN=Short Root\"",
                "has an RSA key of 1024 bits; 2048 are needed",
                "issued by an authority",
            ],
        );
        assert_eq!(cause(&error).problem, CertificateProblem::WeakKey);
        assert_eq!(cause(&error).index, (chain.len() > 1).then_some(1));
    }
}

#[test]
fn a_short_key_of_a_server_is_named() {
    // No server on rustls has such a key: see `openssl.rs`.
    let failure = chain_failure(VerifyError::WeakKey, &[der(SHORT_LEAF)]);
    let text = failure.to_string();
    assert_eq!(
        text,
        "the certificate of mail.example.com, \"CN=mail.example.com\", has an RSA key of 1024 \
            bits; 2048 are needed"
    );
    assert_eq!(
        (failure.problem, failure.index),
        (CertificateProblem::WeakKey, Some(0))
    );
    let own = Certificate::read(&der(SHORT_LEAF)).unwrap();
    assert!(
        own.wrong_size().is_some()
            && Certificate::read(&der(ROOT))
                .unwrap()
                .wrong_size()
                .is_none()
    );
}

#[tokio::test]
async fn a_sha1_signature_is_named() {
    let [leaf, key] = SHA1_LEAF;
    let error = failure_with(ROOT, &[leaf], key).await;
    assert_says(
        &error,
        &[
            "the certificate of mail.example.com",
            "is signed with sha1WithRSAEncryption, which is no longer safe",
        ],
    );
    assert_eq!(cause(&error).index, Some(0));
    let [leaf, key] = LEAF_OF_SHA1_MIDDLE;
    let error = failure_with(ROOT, &[leaf, SHA1_MIDDLE], key).await;
    assert_says(
        &error,
        &["\"CN=Old Middle\" (not the server's own), is signed with sha1WithRSAEncryption"],
    );
    assert_eq!(
        (cause(&error).problem, cause(&error).index),
        (CertificateProblem::BadSignature, Some(1))
    );
}

#[tokio::test]
async fn an_authority_not_for_servers_is_named() {
    let root = Party::authority("Root", None);
    let mut params = named("Middle", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    let middle = Party::new(params, Some(&root));
    let error = failure(&root, &[&Party::server(Some(&middle)), &middle]).await;
    assert_says(
        &error,
        &[
            "\"CN=Middle\" (not the server's own), is not meant for a server",
            "by another authority",
        ],
    );
    assert_eq!(
        (cause(&error).problem, cause(&error).index),
        (CertificateProblem::WrongPurpose, Some(1))
    );
}

fn limited(above: Option<&Party>, permitted: Vec<GeneralSubtree>) -> Party {
    let mut params = named("Limited", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: permitted,
        excluded_subtrees: vec![],
    });
    Party::new(params, above)
}

#[tokio::test]
async fn violated_name_constraints_are_named() {
    let root = Party::authority("Root", None);
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Example");
    // An authority in the chain, and the trust anchor itself.
    for above in [Some(&root), None] {
        let middle = limited(above, vec![GeneralSubtree::DirectoryName(name.clone())]);
        let error = failure(
            above.unwrap_or(&middle),
            &[&Party::server(Some(&middle)), &middle],
        )
        .await;
        assert_says(
            &error,
            &[
                "\"CN=Limited\"",
                "limits by directory names",
                "cannot be checked here",
                "Trust::pin, pin= in the URL",
            ],
        );
    }
    let limits = vec![
        GeneralSubtree::DnsName("example.net".into()),
        GeneralSubtree::DirectoryName(name),
    ];
    let middle = limited(Some(&root), limits);
    let error = failure(&root, &[&Party::server(Some(&middle)), &middle]).await;
    assert_says(
        &error,
        &[
            "may not issue any for this name (name constraints)",
            "\"CN=Limited\" excludes mail.example.com",
        ],
    );
}

#[tokio::test]
async fn an_unknown_critical_extension_is_named() {
    let root = Party::authority("Root", None);
    let extension = |oid: &[u64]| {
        let mut extension = CustomExtension::from_oid_content(oid, vec![0x05, 0x00]);
        extension.set_criticality(true);
        extension
    };
    // No server on rustls sends such a certificate: see `openssl.rs`.
    let mut params = named(HOST, &[HOST]);
    params.custom_extensions = vec![extension(&[1, 2, 3, 4, 5])];
    let failure_of_leaf = chain_failure(
        VerifyError::Invalid(webpki::Error::UnsupportedCriticalExtension),
        &[Party::new(params, Some(&root)).der],
    );
    assert!(
        failure_of_leaf
            .to_string()
            .contains("has a critical extension that is not supported: 1.2.3.4.5")
    );
    assert_eq!(failure_of_leaf.index, Some(0));

    let mut params = named("Middle", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.custom_extensions = vec![extension(&[2, 5, 29, 36])];
    let middle = Party::new(params, Some(&root));
    let error = failure(&root, &[&Party::server(Some(&middle)), &middle]).await;
    assert_says(
        &error,
        &[
            "\"CN=Middle\" (not the server's own),",
            "policyConstraints, 2.5.29.36",
            "issued anew",
            "pin= in the URL",
        ],
    );
    assert_eq!(cause(&error).index, Some(1));
}

#[tokio::test]
async fn path_length_and_reversed_dates_are_named() {
    let root = Party::authority("Root", None);
    let mut params = named("Upper", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let upper = Party::new(params, Some(&root));
    let lower = Party::authority("Lower", Some(&upper));
    let error = failure(&root, &[&Party::server(Some(&lower)), &lower, &upper]).await;
    assert_says(
        &error,
        &[
            "\"CN=Upper\" (not the server's own), has more authorities below it",
            ": 0 at most, and there are 1",
        ],
    );
    assert_eq!(
        (cause(&error).problem, cause(&error).index),
        (CertificateProblem::WrongPurpose, Some(2))
    );

    let mut params = named(HOST, &[HOST]);
    params.not_before = rcgen::date_time_ymd(2030, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let error = failure(&root, &[&Party::new(params, Some(&root))]).await;
    assert_says(
        &error,
        &[
            "ends before it begins (valid from 2030-01-01T00:00:00Z until 2020-01-01T00:00:00Z)",
            "issued anew",
        ],
    );
    assert_eq!(cause(&error).index, Some(0));
}

fn chain_failure(why: VerifyError, chain: &[CertificateDer<'_>]) -> CertificateFailure {
    let chain = chain
        .iter()
        .filter_map(|der| Certificate::read(der))
        .collect();
    let now = tokio_rustls::rustls::pki_types::UnixTime::now();
    CertificateFailure::new(why, chain, HOST, &TrustStore::default(), now)
}

/// All errors of webpki 0.103.
#[allow(deprecated)]
fn webpki_errors() -> Vec<webpki::Error> {
    use webpki::Error as E;
    let time = tokio_rustls::rustls::pki_types::UnixTime::now();
    let name = tokio_rustls::rustls::pki_types::ServerName::try_from(HOST).unwrap();
    let algorithm = || webpki::UnsupportedSignatureAlgorithmContext {
        signature_algorithm_id: vec![1],
        supported_algorithms: vec![],
    };
    let key = || webpki::UnsupportedSignatureAlgorithmForPublicKeyContext {
        signature_algorithm_id: vec![1],
        public_key_algorithm_id: vec![2],
    };
    vec![
        E::BadDer,
        E::BadDerTime,
        E::CaUsedAsEndEntity,
        E::CertDistrusted,
        E::CertExpired {
            time,
            not_after: time,
        },
        E::CertNotValidForName(webpki::InvalidNameContext {
            expected: name,
            presented: vec![],
        }),
        E::CertNotValidYet {
            time,
            not_before: time,
        },
        E::CertRevoked,
        E::CrlExpired {
            time,
            next_update: time,
        },
        E::EmptyEkuExtension,
        E::EndEntityUsedAsCa,
        E::ExtensionValueInvalid,
        E::InvalidCertValidity,
        E::InvalidCrlNumber,
        E::InvalidNetworkMaskConstraint,
        E::InvalidSerialNumber,
        E::InvalidCrlSignatureForPublicKey,
        E::InvalidSignatureForPublicKey,
        E::IssuerNotCrlSigner,
        E::MalformedDnsIdentifier,
        E::MalformedExtensions,
        E::MalformedNameConstraint,
        E::MaximumNameConstraintComparisonsExceeded,
        E::MaximumPathBuildCallsExceeded,
        E::MaximumPathDepthExceeded,
        E::MaximumSignatureChecksExceeded,
        E::NameConstraintViolation,
        E::PathLenConstraintViolated,
        E::RequiredEkuNotFound,
        E::SignatureAlgorithmMismatch,
        E::TrailingData(webpki::DerTypeId::Certificate),
        E::UnknownIssuer,
        E::UnknownRevocationStatus,
        E::UnsupportedCertVersion,
        E::UnsupportedCriticalExtension,
        E::UnsupportedCrlIssuingDistributionPoint,
        E::UnsupportedCrlVersion,
        E::UnsupportedDeltaCrl,
        E::UnsupportedIndirectCrl,
        E::UnsupportedNameType,
        E::UnsupportedRevocationReason,
        E::UnsupportedRevocationReasonsPartitioning,
        E::UnsupportedCrlSignatureAlgorithm,
        E::UnsupportedCrlSignatureAlgorithmContext(algorithm()),
        E::UnsupportedSignatureAlgorithm,
        E::UnsupportedSignatureAlgorithmContext(algorithm()),
        E::UnsupportedCrlSignatureAlgorithmForPublicKey,
        E::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(key()),
        E::UnsupportedSignatureAlgorithmForPublicKey,
        E::UnsupportedSignatureAlgorithmForPublicKeyContext(key()),
    ]
}

/// Whether the text contains the name of a variant: two capitals with lower-case letters between.
fn has_identifier(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| {
            let capitals = word.chars().filter(char::is_ascii_uppercase).count();
            word.starts_with(|c: char| c.is_ascii_uppercase())
                && capitals > 1
                && word.contains(|c: char| c.is_ascii_lowercase())
        })
}

#[test]
fn every_webpki_error_has_a_text_and_a_hint() {
    let root = Party::authority("Root", None);
    let chain = [Party::server(Some(&root)).der, root.der];
    let mut texts = Vec::new();
    for error in webpki_errors() {
        let name = format!("{error:?}");
        let words = webpki_text(&error);
        assert!(
            !has_identifier(words) && words != "it cannot be verified",
            "{name}: {words}"
        );
        let failure = chain_failure(VerifyError::Invalid(error), &chain);
        let text = format!("{failure}. {}", failure.hint());
        // These are readable by themselves.
        let plain = text
            .replace("serverAuth", "")
            .replace("Trust::", "")
            .replace("TlsSettings::", "")
            .replace("pathLenConstraint", "");
        assert!(!has_identifier(&plain), "{name}: {text}");
        assert!(
            text.contains("mail.example.com") && !failure.hint().is_empty(),
            "{name}: {text}"
        );
        texts.push(text);
    }
    assert!(texts.len() > 45);
}

#[test]
fn rustls_errors_have_plain_texts() {
    use tokio_rustls::rustls::{
        AlertDescription, CertificateError, Error as E, InvalidMessage, PeerIncompatible,
        PeerMisbehaved,
    };
    for (error, words) in [
        (
            E::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
            "no cipher suites in common",
        ),
        (
            E::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedCipherSuite),
            "selected unoffered cipher suite",
        ),
        (
            E::InvalidMessage(InvalidMessage::MissingData("ServerHello")),
            "missing data",
        ),
        (
            E::InvalidMessage(InvalidMessage::UnsupportedCompression),
            "unsupported compression",
        ),
        (
            E::AlertReceived(AlertDescription::HandshakeFailure),
            "handshake failure",
        ),
        (
            E::InvalidCertificate(CertificateError::UnhandledCriticalExtension),
            "unhandled critical extension",
        ),
        (
            E::InvalidCertificate(CertificateError::BadEncoding),
            "bad encoding",
        ),
        (E::DecryptError, "decrypt"),
        (E::General("x".into()), "x"),
    ] {
        let text = rustls_text(&error);
        assert!(
            text.contains(words) && !has_identifier(&text),
            "{error:?}: {text}"
        );
    }
    assert_eq!(
        split_words(&PeerIncompatible::Tls12NotOffered),
        "tls12 not offered"
    );
    assert_eq!(
        certificate_text(&CertificateError::NotValidForName),
        "not valid for name"
    );
}

/// `Debug` and `Display` of these errors show names of variants, so only `reasons.rs` may make
/// texts of them.
#[test]
fn no_text_contains_the_name_of_a_variant() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tls");
    for name in [
        "failure.rs",
        "verify.rs",
        "handshake.rs",
        "connector.rs",
        "store.rs",
        "client_certificate.rs",
    ] {
        let source = std::fs::read_to_string(folder.join(name)).unwrap();
        for forbidden in [
            "{error:?}",
            "{reason:?}",
            "{problem:?}",
            "{problem}",
            "{alert:?}",
            "{why:?}",
            "verified: {error}",
            "set up: {error}",
        ] {
            assert!(!source.contains(forbidden), "{name} has {forbidden}");
        }
    }
}
