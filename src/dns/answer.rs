//! What the DNS answers, and what DNSSEC proves of it.

use std::fmt;
use std::net::IpAddr;

use super::{DomainName, LookupError};

/// The answer to a question, of any record type.
///
/// The variants are what RFC 7672, 2.1.1 and RFC 4035, 4.3 tell apart. A failure is a variant of
/// its own: it never is an absence.
#[derive(Clone, Debug)]
pub enum Answer<T> {
    /// The records, validated by DNSSEC.
    Secure(T),
    /// DNSSEC proves that there are no such records.
    SecureAbsence(Absence),
    /// The answer of a zone that is provably not signed: neither proven nor refused.
    Insecure(Result<T, Absence>),
    /// No answer that may be used: an error of the server, a time-out, or data that DNSSEC refuses.
    Failed(LookupError),
}

impl<T> Answer<T> {
    /// Whether DNSSEC proves the answer, be it records or their absence.
    pub fn is_secure(&self) -> bool {
        matches!(self, Answer::Secure(_) | Answer::SecureAbsence(_))
    }

    /// Returns the records, if the answer has any.
    pub fn records(&self) -> Option<&T> {
        match self {
            Answer::Secure(records) | Answer::Insecure(Ok(records)) => Some(records),
            Answer::SecureAbsence(_) | Answer::Insecure(Err(_)) | Answer::Failed(_) => None,
        }
    }

    /// Returns the absence, if the answer is one. `None` for a failure.
    pub fn absence(&self) -> Option<Absence> {
        match self {
            Answer::SecureAbsence(absence) | Answer::Insecure(Err(absence)) => Some(*absence),
            Answer::Secure(_) | Answer::Insecure(Ok(_)) | Answer::Failed(_) => None,
        }
    }

    /// Returns the answer with its records replaced by what `convert` makes of them.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Answer::Secure(records) => Answer::Secure(convert(records)),
            Answer::SecureAbsence(absence) => Answer::SecureAbsence(absence),
            Answer::Insecure(answer) => Answer::Insecure(answer.map(convert)),
            Answer::Failed(error) => Answer::Failed(error),
        }
    }
}

/// Why there are no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Absence {
    /// The name does not exist (NXDOMAIN).
    NoSuchName,
    /// The name exists, and has no records of this type (NODATA, RFC 2308, 2.2).
    NoRecords,
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Absence::NoSuchName => "the name does not exist (NXDOMAIN)",
            Absence::NoRecords => "there are no records of this type (NODATA)",
        })
    }
}

/// The MX records of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MxRecords {
    /// The name that has the records: the one that was asked for, or where its CNAMEs lead.
    pub name: DomainName,
    /// The CNAMEs that lead there, in order, beginning with the name that was asked for. Empty if
    /// that name has the records itself.
    pub aliases: Vec<DomainName>,
    /// The records, in the order of the answer. There are none if no record has a valid name.
    pub exchanges: Vec<Mx>,
}

/// An MX record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Mx {
    /// The preference: servers with lower numbers are tried first.
    pub preference: u16,
    /// The server. `None` for the root, `.`: a null MX, which says that the domain accepts no mail
    /// (RFC 7505).
    pub host: Option<DomainName>,
}

/// The IPv4 and IPv6 addresses of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Addresses {
    /// The name that has the addresses: the one that was asked for, or where its CNAMEs lead.
    pub name: DomainName,
    /// The CNAMEs that lead there, in order, beginning with the name that was asked for. Empty if
    /// that name has the addresses itself.
    pub aliases: Vec<DomainName>,
    /// Whether the name that was asked for is in a signed zone, and DNSSEC proves its own record:
    /// its addresses, or its CNAME wherever that leads. With an [insecure](Answer::Insecure) answer
    /// it is true where a secure CNAME leads out of the signed zones, which RFC 7672, 2.2.2 tells
    /// apart.
    pub is_name_secure: bool,
    /// The addresses, in the order of the answers. There is at least one.
    pub addresses: Vec<IpAddr>,
    /// The failure of one of the two lookups, A and AAAA, where the other had addresses.
    pub incomplete: Option<LookupError>,
}

#[cfg(test)]
impl MxRecords {
    /// Those of example.org, by preference and host; the host of a null MX is `.`.
    pub(crate) fn example(exchanges: &[(u16, &str)]) -> Self {
        let name = |text| DomainName::new(text).unwrap();
        let exchanges = exchanges.iter().map(|(preference, host)| Mx {
            preference: *preference,
            host: (*host != ".").then(|| name(host)),
        });
        MxRecords {
            name: name("example.org"),
            aliases: Vec::new(),
            exchanges: exchanges.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::LookupErrorKind;

    #[test]
    fn a_failure_has_neither_records_nor_an_absence() {
        let name = DomainName::new("example.org").unwrap();
        let error = LookupError::new(name, "MX", LookupErrorKind::Bogus, "expired");
        let answer = Answer::<()>::Failed(error);
        assert!(answer.records().is_none() && answer.absence().is_none());
        assert!(!answer.is_secure());
        assert!(matches!(answer.map(|()| 1), Answer::Failed(_)));
    }

    #[test]
    fn an_absence_is_secure_or_not() {
        for absence in [Absence::NoSuchName, Absence::NoRecords] {
            let (secure, insecure) = (
                Answer::<()>::SecureAbsence(absence),
                Answer::<()>::Insecure(Err(absence)),
            );
            assert!(secure.is_secure() && !insecure.is_secure());
            assert_eq!(
                (secure.absence(), insecure.absence()),
                (Some(absence), Some(absence))
            );
        }
    }
}
