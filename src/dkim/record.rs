//! [`DkimRecord`]: the DNS record with the public key.

use std::fmt;

/// The maximum length of one string of a TXT record in bytes (RFC 1035, 3.3.14).
const MAX_STRING: usize = 255;

/// The DNS record to publish for a signer: a TXT record (RFC 6376, 3.6.2).
///
/// `Display` writes it as a line of a zone file, with the value in strings of at most 255 bytes.
/// Many DNS providers take name and value as they are, and split the value themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DkimRecord {
    /// Its name, without a trailing dot: `selector._domainkey.example.org`.
    pub name: String,
    /// Its value: `v=DKIM1; k=rsa; p=…`.
    pub value: String,
}

impl fmt::Display for DkimRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. IN TXT (", self.name)?;
        let mut rest = &*self.value;
        while !rest.is_empty() {
            // ASCII alone.
            let (string, next) = rest.split_at(MAX_STRING.min(rest.len()));
            write!(f, " \"{string}\"")?;
            rest = next;
        }
        f.write_str(" )")
    }
}
