//! What protected a connection: the proof.

use std::fmt;
use std::time::Duration;

use super::{Certificate, CertificateFailure};

/// What protected a connection, and with whom: enough to log, for each message, how it travelled.
///
/// `Display` gives it in one line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The version of the protocol: `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The cipher suite, by its name in the registry of IANA: `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The group of the key exchange: `X25519MLKEM768`. `None` where a resumed session made none.
    pub key_exchange: Option<String>,
    /// The certificates that the server sent, its own first.
    pub chain: Vec<Certificate>,
    /// The server's certificate was verified: it leads to a trusted authority, is valid now and
    /// bears the server's name.
    pub verified: bool,
    /// Why it is not verified, where it need not be (see
    /// [`Security::Opportunistic`](super::Security)).
    pub not_verified_reason: Option<CertificateFailure>,
    /// By whom it was verified: the subject of the trusted authority at the end of the chain.
    pub verified_by: Option<String>,
    /// An earlier session with this server was resumed: no certificate was sent anew.
    pub resumed: bool,
    /// How long the handshake took.
    pub handshake_duration: Duration,
}

impl TlsInfo {
    /// The server's own certificate.
    pub fn peer(&self) -> Option<&Certificate> {
        self.chain.first()
    }
}

impl fmt::Display for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.version, self.cipher)?;
        if let Some(group) = &self.key_exchange {
            write!(f, ", {group}")?;
        }
        if self.resumed {
            f.write_str(", resumed")?;
        }
        if let Some(peer) = self.peer() {
            write!(f, "; with {}", peer.subject)?;
        }
        match (&self.verified_by, &self.not_verified_reason) {
            (Some(anchor), _) => write!(f, ", verified by {anchor}"),
            (None, Some(reason)) => write!(f, ", not verified: {reason}"),
            (None, None) => Ok(()),
        }
    }
}
