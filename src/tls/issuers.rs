//! Walks from a certificate up through its issuers, by name.

use std::collections::HashMap;

use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::{Decode as _, Encode as _};

/// Which of several certificates issued which, by name. Works in linear time, since a peer or
/// a file determines the certificates.
pub(super) struct Issuers {
    /// The name of the issuer of each certificate; `None` if it cannot be read or the certificate
    /// is self-issued.
    issuers: Vec<Option<Vec<u8>>>,
    by_subject: HashMap<Vec<u8>, Vec<usize>>,
    /// The number of certificates that were compared.
    pub(super) steps: usize,
}

impl Issuers {
    /// Reads the names of certificates in DER.
    pub(super) fn new<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut found = Issuers {
            issuers: Vec::new(),
            by_subject: HashMap::new(),
            steps: 0,
        };
        for (at, der) in certificates.into_iter().enumerate() {
            found.steps += 1;
            // The raw profile accepts violations of RFC 5280 elsewhere than in the names.
            let names = CertificateInner::<Raw>::from_der(der).and_then(|certificate| {
                let names = certificate.tbs_certificate();
                Ok((names.subject().to_der()?, names.issuer().to_der()?))
            });
            let issuer = names.ok().and_then(|(subject, issuer)| {
                let is_self_issued = subject == issuer;
                found.by_subject.entry(subject).or_default().push(at);
                (!is_self_issued).then_some(issuer)
            });
            found.issuers.push(issuer);
        }
        found
    }

    /// The issuer of the last certificate of a path, unless it is already in the path.
    pub(super) fn above(&mut self, path: &[usize]) -> Option<usize> {
        let issuer = self.issuers[*path.last()?].as_ref()?;
        for at in self.by_subject.get(issuer)? {
            self.steps += 1;
            if !path.contains(at) {
                return Some(*at);
            }
        }
        None
    }

    /// A certificate and the issuers above it, at most `limit` certificates in total.
    pub(super) fn path(&mut self, first: usize, limit: usize) -> Vec<usize> {
        let mut path = vec![first];
        while path.len() < limit
            && let Some(issuer) = self.above(&path)
        {
            path.push(issuer);
        }
        path
    }
}
