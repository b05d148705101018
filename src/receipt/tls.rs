//! What protected a connection, or why its certificate was not accepted.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::Certificate;

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
    /// Why it is not verified, where it need not be (see
    /// [`Security::Opportunistic`](crate::tls::Security)).
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

    /// The server's certificate was verified: it leads to a trusted authority, is valid now and
    /// bears the server's name.
    pub fn is_verified(&self) -> bool {
        self.not_verified_reason.is_none()
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

/// Why the server's certificate was not accepted, with the chain that it sent.
///
/// It is the [source](Error::source) of the [`Error`](crate::Error) that a failed
/// verification gives:
///
/// ```
/// use std::error::Error;
/// use envoi::tls::CertificateFailure;
///
/// fn save_chain(error: &envoi::Error) -> Option<String> {
///     let failure = error.source()?.downcast_ref::<CertificateFailure>()?;
///     Some(failure.chain.iter().map(|certificate| certificate.to_pem()).collect())
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CertificateFailure {
    /// What is wrong.
    pub problem: CertificateProblem,
    /// The certificates that the server sent, its own first. What cannot be read as a certificate
    /// is left out.
    pub chain: Vec<Certificate>,
    /// Which of the chain it concerns, as an index.
    pub index: Option<usize>,
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// It leads to no certificate that is trusted.
    UnknownIssuer,
    /// It vouches for itself, and is not trusted.
    SelfSigned,
    /// It was good until some time ago.
    Expired,
    /// It will be good from some time on.
    NotYetValid,
    /// It is for other names than the one connected to.
    WrongName,
    /// A signature in the chain does not match.
    BadSignature,
    /// It was revoked by its issuer.
    Revoked,
    /// It is not meant for a server, or that of an authority.
    WrongPurpose,
    /// Its key is not the one that is pinned.
    WrongKey,
    /// Its key is of a size that gives no security, or is not supported.
    WeakKey,
    /// It cannot be read, or the server sent none.
    Malformed,
    /// Something else; the message has the words.
    Other,
}

impl CertificateFailure {
    /// What to do now.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl fmt::Display for CertificateFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CertificateFailure {}
