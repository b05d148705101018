//! The TLS policy and the protocol versions.

use std::fmt;
use std::str::FromStr;

use crate::text::quoted;
use crate::{Error, Result};

/// When a connection is protected by TLS.
///
/// The words are the values of the `tls` key in a URL: `none`, `opportunistic`, `required`.
/// `implicit` is not one of them: the scheme `smtps:` selects it.
///
/// ```
/// use envoi::tls::Security;
///
/// assert_eq!("opportunistic".parse::<Security>()?, Security::Opportunistic);
/// assert_eq!(Security::default().to_string(), "required");
/// assert!("maybe".parse::<Security>().is_err());
/// # Ok::<(), envoi::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Security {
    /// Never uses TLS: everything is sent in plaintext.
    None,
    /// Uses TLS if the server offers STARTTLS and the handshake succeeds; otherwise plaintext, on a
    /// new connection. The certificate need not be trusted. With credentials or a [pinned
    /// key](super::Trust::pin), it is as strict as `Required`.
    Opportunistic,
    /// Requires STARTTLS (RFC 3207) with a trusted certificate; otherwise no mail is sent.
    #[default]
    Required,
    /// Requires TLS from the first byte (RFC 8314, 3.3; port 465) with a trusted certificate.
    Implicit,
}

impl Security {
    /// The policy as a lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Security::None => "none",
            Security::Opportunistic => "opportunistic",
            Security::Required => "required",
            Security::Implicit => "implicit",
        }
    }
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A supported TLS version. Older ones (SSL 3, TLS 1.0 and 1.1) are broken and not supported (RFC
/// 8996).
///
/// ```
/// use envoi::tls::TlsVersion;
///
/// assert_eq!("1.3".parse::<TlsVersion>()?, TlsVersion::Tls13);
/// assert_eq!(TlsVersion::Tls12.to_string(), "TLSv1.2");
/// # Ok::<(), envoi::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TlsVersion::Tls12 => "TLSv1.2",
            TlsVersion::Tls13 => "TLSv1.3",
        })
    }
}

impl FromStr for TlsVersion {
    type Err = Error;

    /// Parses `1.2` or `1.3`, with or without `TLS` or `TLSv` before it.
    ///
    /// # Errors
    ///
    /// Anything else, including older versions of TLS.
    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        let number = lower
            .strip_prefix("tlsv")
            .or_else(|| lower.strip_prefix("tls"))
            .unwrap_or(&lower);
        match number {
            "1.2" => Ok(TlsVersion::Tls12),
            "1.3" => Ok(TlsVersion::Tls13),
            _ => Err(Error::request(format!(
                "{} is not a version of TLS that is supported",
                quoted(text)
            ))
            .with_hint("Use 1.2 or 1.3.")),
        }
    }
}
