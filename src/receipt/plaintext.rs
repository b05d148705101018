//! [`PlaintextReason`]: why a connection is not encrypted.

use std::fmt;

/// Why a connection with [`Security::Opportunistic`](crate::tls::Security::Opportunistic) is not
/// encrypted. `Display` writes it as a clause, for logs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlaintextReason {
    /// The server does not offer STARTTLS.
    NotOffered,
    /// The server offers STARTTLS, and refused it, for this reason.
    Refused(String),
    /// TLS failed after STARTTLS, for this reason.
    Failed(String),
}

impl fmt::Display for PlaintextReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PlaintextReason::NotOffered => "the server does not offer STARTTLS",
            PlaintextReason::Refused(reason) | PlaintextReason::Failed(reason) => reason,
        })
    }
}
