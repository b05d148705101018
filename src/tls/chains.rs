//! The chains that servers have sent: one that was verified is not verified again for each
//! connection, and its certificates are kept once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::Certificate;

/// The maximum number of servers whose chain is kept.
const MAX_SERVERS: usize = 256;

/// The last chain of each server, for one set of trust anchors.
#[derive(Debug, Default)]
pub(super) struct KnownChains(Mutex<HashMap<ServerName<'static>, KnownChain>>);

#[derive(Debug)]
struct KnownChain {
    certificates: Arc<[Certificate]>,
    verified: Option<Verified>,
}

/// The result of a verification. With the same anchors, chain and name, it depends on the time
/// alone.
#[derive(Debug)]
struct Verified {
    anchor: String,
    at: UnixTime,
    /// When the first certificate of the chain expires.
    until: UnixTime,
}

impl KnownChains {
    /// The certificates of a chain.
    pub(super) fn certificates(
        &self,
        server: &ServerName<'_>,
        chain: &[CertificateDer<'_>],
    ) -> Arc<[Certificate]> {
        if let Some(known) = self.find(server, chain, |known| known.certificates.clone()) {
            return known;
        }
        let certificates: Arc<[_]> = read(chain).into();
        self.add(server, certificates.clone(), None);
        certificates
    }

    /// The trust anchor that verified this chain for this server, if that holds now.
    pub(super) fn anchor(
        &self,
        server: &ServerName<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Option<String> {
        self.find(server, chain, |known| {
            let holds = |verified: &&Verified| verified.at <= now && now <= verified.until;
            Some(known.verified.as_ref().filter(holds)?.anchor.clone())
        })?
    }

    /// Whether the chain that was verified for this server has expired since.
    pub(super) fn has_expired(&self, server: &ServerName<'static>, now: UnixTime) -> bool {
        let known = self.lock();
        let verified = known.get(server).and_then(|known| known.verified.as_ref());
        // The dates of a pinned key do not matter: it may have been accepted after its end.
        verified.is_some_and(|verified| verified.at <= verified.until && verified.until < now)
    }

    /// Records that a trust anchor verified this chain for this server.
    pub(super) fn add_verified(
        &self,
        server: &ServerName<'_>,
        chain: &[CertificateDer<'_>],
        anchor: String,
        at: UnixTime,
    ) {
        let certificates = read(chain);
        let ends = certificates
            .iter()
            .map(|certificate| certificate.not_after.duration_since(UNIX_EPOCH));
        let until = ends.map(Result::unwrap_or_default).min();
        let verified = Verified {
            anchor,
            at,
            until: UnixTime::since_unix_epoch(until.unwrap_or(Duration::ZERO)),
        };
        self.add(server, certificates.into(), Some(verified));
    }

    fn find<T>(
        &self,
        server: &ServerName<'_>,
        chain: &[CertificateDer<'_>],
        result: impl FnOnce(&KnownChain) -> T,
    ) -> Option<T> {
        let known = self.lock();
        let known = known.get(&server.to_owned())?;
        let is_same = known.certificates.len() == chain.len()
            && known
                .certificates
                .iter()
                .zip(chain)
                .all(|(certificate, der)| certificate.der() == der.as_ref());
        is_same.then(|| result(known))
    }

    fn add(
        &self,
        server: &ServerName<'_>,
        certificates: Arc<[Certificate]>,
        verified: Option<Verified>,
    ) {
        let mut known = self.lock();
        if known.len() >= MAX_SERVERS {
            known.clear();
        }
        let chain = KnownChain {
            certificates,
            verified,
        };
        known.insert(server.to_owned(), chain);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServerName<'static>, KnownChain>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the certificates of a chain. What is not a certificate is left out.
pub(super) fn read(chain: &[CertificateDer<'_>]) -> Vec<Certificate> {
    chain
        .iter()
        .filter_map(|der| Certificate::read(der))
        .collect()
}
