//! Channel binding: ties a login to its TLS connection (RFC 5056).

use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tokio_rustls::rustls::{ClientConnection, ProtocolVersion};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode as _;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc5912;

use crate::proto::ChannelBinding;

/// The binding that servers expect: `tls-exporter` for TLS 1.3 (RFC 9266, 3), and
/// `tls-server-end-point` for TLS 1.2, where rustls does not report whether the extended master
/// secret makes the exporter unique. `None` if no binding is defined.
pub(crate) fn channel_binding(connection: &ClientConnection) -> Option<ChannelBinding> {
    if connection.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
        let exported = connection
            .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""))
            .ok()?;
        return Some(ChannelBinding::tls_exporter(exported));
    }
    end_point(connection.peer_certificates()?.first()?)
}

const ECDSA_WITH_SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");

/// The hash of a certificate with the hash function of its signature, but SHA-256 for MD5 and SHA-1
/// (RFC 5929, 4.1).
pub(super) fn end_point(der: &[u8]) -> Option<ChannelBinding> {
    let certificate = CertificateInner::<Raw>::from_der(der).ok()?;
    let hash = match certificate.signature_algorithm().oid {
        rfc5912::MD_5_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_1_WITH_RSA_ENCRYPTION
        | ECDSA_WITH_SHA_1
        | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
        | rfc5912::ECDSA_WITH_SHA_256 => Sha256::digest(der).to_vec(),
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 => {
            Sha384::digest(der).to_vec()
        }
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_512 => {
            Sha512::digest(der).to_vec()
        }
        // Ed25519 has no separate hash, and RSASSA-PSS has it in its parameters; no server is known
        // that binds to either.
        _ => return None,
    };
    Some(ChannelBinding::tls_server_end_point(hash))
}
