//! What protected a connection, or why its certificate was not accepted.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Certificate;

/// What protected a connection, and which server was at the other end: enough to log how each
/// message was sent.
///
/// `Display` writes it in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The protocol version: `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The cipher suite, by its name in the IANA registry: `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The key exchange group: `X25519MLKEM768`. `None` if a session was resumed without a key
    /// exchange.
    pub key_exchange: Option<String>,
    /// The certificates that the server sent, its own first. Connections to the same server share
    /// them.
    pub chain: Arc<[Certificate]>,
    /// Why the server is not verified, if it need not be (see
    /// [`Security::Opportunistic`](crate::tls::Security)).
    pub not_verified_reason: Option<CertificateFailure>,
    /// The subject of the trust anchor that verified the server, or the TLSA record.
    pub verified_by: Option<String>,
    /// Whether a session was resumed, for which no certificate is sent.
    pub resumed: bool,
    /// The duration of the handshake.
    pub handshake_duration: Duration,
}

impl TlsInfo {
    /// The server's own certificate.
    pub fn peer(&self) -> Option<&Certificate> {
        self.chain.first()
    }

    /// Whether the server's certificate was verified: it leads to a trust anchor, is valid now and
    /// has the server's name.
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
/// It is the [source](Error::source) of the [`Error`](crate::Error) that a failed verification
/// returns:
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateFailure {
    /// What is wrong.
    pub problem: CertificateProblem,
    /// The certificates that the server sent, its own first. What cannot be parsed as a certificate
    /// is left out.
    pub chain: Vec<Certificate>,
    /// The index in the chain of the certificate that is concerned.
    pub index: Option<usize>,
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// The chain does not lead to a trust anchor.
    UnknownIssuer,
    /// The certificate is self-signed and not trusted.
    SelfSigned,
    /// A certificate has expired.
    Expired,
    /// A certificate is not valid yet.
    NotYetValid,
    /// The certificate is not for the name that was connected to.
    WrongName,
    /// A signature in the chain does not match.
    BadSignature,
    /// A certificate was revoked by its issuer.
    Revoked,
    /// The certificate is not for a server, or an issuer is not an authority.
    WrongPurpose,
    /// The key is not the pinned one.
    WrongKey,
    /// The size of a key is insecure or not supported.
    WeakKey,
    /// A certificate cannot be parsed, or the server sent none.
    Malformed,
    /// Another problem, which the message describes.
    Other,
}

impl CertificateFailure {
    /// What to do.
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
