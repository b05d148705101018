//! Verifies server certificates with `webpki`, and keeps a failure with the chain.

use std::sync::Arc;

use tokio_rustls::rustls;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use webpki::{
    EndEntityCert, ExpirationPolicy, KeyUsage, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::chains::{self, KnownChains};
#[cfg(feature = "mx")]
use super::dane::{self, Dane};
use super::failure::VerifyError;
use super::store::TrustStore;
use super::{Certificate, CertificateFailure, VerifyMode};

/// Verifies server certificates against a set of trust anchors.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) store: Arc<TrustStore>,
    /// The TLSA records that verify the server in place of the store.
    #[cfg(feature = "mx")]
    pub(super) dane: Option<Dane>,
    pub(super) verify_mode: VerifyMode,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    /// What this verifier has accepted.
    pub(super) known: Arc<KnownChains>,
}

impl Verifier {
    /// The anchor that the chain leads to, or why it is not accepted.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<String, CertificateFailure> {
        if let Some(anchor) = self.known.anchor(server, chain, now) {
            return Ok(anchor);
        }
        let anchor = self.verify_now(chain, server, now)?;
        self.known.add_verified(server, chain, anchor.clone(), now);
        Ok(anchor)
    }

    fn verify_now(
        &self,
        chain: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<String, CertificateFailure> {
        #[cfg(feature = "mx")]
        if let Some(dane) = &self.dane {
            return dane.verify_chain(chain, now, self.algorithms);
        }
        self.verify_chain(chain, server, now).map_err(|why| {
            let chain = chains::read(chain);
            CertificateFailure::new(why, chain, &server.to_str(), &self.store, now)
        })
    }

    fn verify_chain(
        &self,
        chain: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<String, VerifyError> {
        let (leaf, intermediates) = chain.split_first().ok_or(VerifyError::NoCertificate)?;
        // Checked first, since the signature of the handshake is not checked for a certificate that
        // webpki cannot parse.
        let certificate = EndEntityCert::try_from(leaf).map_err(VerifyError::Invalid)?;
        if Certificate::read(leaf).is_some_and(|certificate| certificate.wrong_size().is_some()) {
            return Err(VerifyError::WeakKey);
        }
        let pins = &self.store.pins;
        if !pins.is_empty() {
            let pinned = Certificate::read(leaf)
                .filter(|certificate| pins.contains(&certificate.key_hash()));
            let pinned = pinned.ok_or(VerifyError::WrongKey)?;
            if self.store.only_pins {
                self.check_not_listed(&certificate)
                    .map_err(VerifyError::Invalid)?;
                return Ok(format!("the pinned key {}", pinned.pin()));
            }
        }
        let anchor = self
            .anchor(&certificate, leaf, intermediates, now)
            .map_err(VerifyError::Invalid)?;
        certificate
            .verify_is_valid_for_subject_name(server)
            .map_err(VerifyError::Invalid)?;
        Ok(anchor)
    }

    /// Whether the handshake continues even if the certificate is not accepted.
    pub(super) fn only_reports(&self) -> bool {
        // RFC 7672, 2.2: with unusable records alone, TLS is required without authentication.
        #[cfg(feature = "mx")]
        if let Some(dane) = &self.dane {
            return self.verify_mode == VerifyMode::Reported || !dane.is_usable();
        }
        self.verify_mode == VerifyMode::Reported || self.store.accepts_any_certificate
    }

    /// Whether the dates of this certificate of the server matter: not those of a key that is
    /// accepted for itself.
    pub(super) fn checks_dates(&self, certificate: &Certificate) -> bool {
        #[cfg(feature = "mx")]
        if let Some(dane) = &self.dane {
            return dane.of_server(certificate.der()).is_none();
        }
        let _ = certificate;
        !self.store.only_pins
    }

    /// The subject of the trust anchor at the end of the path.
    fn anchor(
        &self,
        certificate: &EndEntityCert<'_>,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<String, webpki::Error> {
        let lists: Vec<_> = self.store.revocation_lists.iter().collect();
        // Without lists there are no options. With lists, a certificate on a list is refused, and
        // one without a list is accepted.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build()
        });
        let path = certificate.verify_for_usage(
            self.algorithms.all,
            &self.store.roots,
            intermediates,
            now,
            KeyUsage::server_auth(),
            revocation,
            None,
        );
        let anchors = &self.store.summary.anchors;
        match path {
            Ok(path) => {
                let position = self
                    .store
                    .roots
                    .iter()
                    .position(|root| std::ptr::eq(root, path.anchor()));
                Ok(position
                    .map(|at| anchors[at].certificate.subject.clone())
                    .unwrap_or_default())
            }
            // This very certificate may be trusted. webpki requires an authority above each server
            // certificate, and refuses one that is marked as an authority itself, as `openssl req
            // -x509` marks all of them. It has already checked the dates.
            Err(webpki::Error::CaUsedAsEndEntity | webpki::Error::UnknownIssuer) => {
                let same = anchors
                    .iter()
                    .find(|anchor| anchor.certificate.der() == leaf.as_ref());
                let same = same.ok_or(path.err().unwrap_or(webpki::Error::UnknownIssuer))?;
                self.check_not_listed(certificate)?;
                Ok(same.certificate.subject.clone())
            }
            Err(error) => Err(error),
        }
    }

    /// A certificate that is accepted for itself has no path on which webpki would check the lists.
    /// The lists were given explicitly, so they are used without the issuer's key, which would be
    /// needed to check their signature.
    fn check_not_listed(&self, certificate: &EndEntityCert<'_>) -> Result<(), webpki::Error> {
        for list in &self.store.revocation_lists {
            if list.issuer() == certificate.issuer()
                && list.find_serial(certificate.serial())?.is_some()
            {
                return Err(webpki::Error::CertRevoked);
            }
        }
        Ok(())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // If the result is only reported, it is determined after the handshake.
        if !self.only_reports() {
            let chain: Vec<_> = [leaf].into_iter().chain(intermediates).cloned().collect();
            let failure = |failure| CertificateError::Other(OtherError(Arc::new(failure)));
            self.verify(&chain, server, now).map_err(failure)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        #[cfg(feature = "mx")]
        if self.is_known_by_key(certificate) {
            return dane::verify_tls12_signature(message, certificate, signed, &self.algorithms);
        }
        self.accept_unreadable(
            certificate,
            verify_tls12_signature(message, certificate, signed, &self.algorithms),
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        #[cfg(feature = "mx")]
        if self.is_known_by_key(certificate) {
            return dane::verify_tls13_signature(message, certificate, signed, &self.algorithms);
        }
        self.accept_unreadable(
            certificate,
            verify_tls13_signature(message, certificate, signed, &self.algorithms),
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Verifier {
    /// Whether a TLSA record is of this server, so that nothing in the certificate but its key
    /// counts.
    #[cfg(feature = "mx")]
    fn is_known_by_key(&self, certificate: &[u8]) -> bool {
        self.dane
            .as_ref()
            .is_some_and(|dane| dane.of_server(certificate).is_some())
    }

    /// Old servers have certificates of X.509 version 1, which webpki does not parse, or with RSA
    /// keys that are too short. If nothing is required of the certificate, TLS with such a
    /// certificate is better than plaintext; it is then reported as not verified.
    fn accept_unreadable(
        &self,
        certificate: &CertificateDer<'_>,
        result: Result<HandshakeSignatureValid, rustls::Error>,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let is_unusable = || {
            let read = Certificate::read(certificate);
            EndEntityCert::try_from(certificate).is_err()
                || read.is_some_and(|read| read.wrong_size().is_some())
        };
        if result.is_err() && self.only_reports() && is_unusable() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        result
    }
}
