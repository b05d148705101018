//! The client's name in EHLO.

use std::fmt;
use std::net::IpAddr;

use crate::text::quoted;

/// The client name in EHLO: a domain or an address literal (RFC 5321, 4.1.4).
///
/// ```
/// use envoi::proto::ClientName;
///
/// let name = ClientName::new("client.example.org")?;
/// assert_eq!(name.as_str(), "client.example.org");
/// let literal = ClientName::literal("192.0.2.1".parse().unwrap());
/// assert_eq!(literal.as_str(), "[192.0.2.1]");
/// # Ok::<(), envoi::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientName(String);

impl ClientName {
    /// Checks a name: up to 255 printable ASCII characters without a blank.
    ///
    /// # Errors
    ///
    /// The text is not such a name.
    pub fn new(name: impl Into<String>) -> Result<Self, ClientNameError> {
        let name = name.into();
        if name.is_empty() || name.len() > 255 || !name.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ClientNameError(name));
        }
        Ok(ClientName(name))
    }

    /// The address literal, which every server understands and which needs no DNS record.
    pub fn literal(address: IpAddr) -> Self {
        ClientName(match address {
            IpAddr::V4(v4) => format!("[{v4}]"),
            IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
        })
    }

    /// The name as it is sent in EHLO.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is not valid as the client name in EHLO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientNameError(String);

impl ClientNameError {
    /// The text.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = quoted(&self.0);
        write!(f, "{name} cannot be the client's name in EHLO")
    }
}

impl std::error::Error for ClientNameError {}

impl From<ClientName> for String {
    fn from(name: ClientName) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_names_are_single_words() {
        for name in ["", "a b", "a\r\nMAIL", "a\0", "hôte"] {
            assert!(ClientName::new(name).is_err(), "{name:?}");
        }
        assert_eq!(
            ClientName::literal("::1".parse().unwrap()).as_str(),
            "[IPv6:::1]"
        );
    }
}
