//! Names of the DNS, in one spelling.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::idna;
use crate::text::quoted;

/// The maximum length of a name as text, without the final dot (RFC 1035, 2.3.4).
const MAX_NAME: usize = 253;
/// The maximum length of a label (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// The name of a domain or a host: A-labels (RFC 5890) in lower case, without the final dot. Cheap
/// to clone.
///
/// Two names that are one in the DNS are equal.
///
/// ```
/// use envoi::mx::DomainName;
///
/// let name: DomainName = "MX1.Example.ORG.".parse()?;
/// assert_eq!(name.as_str(), "mx1.example.org");
/// # #[cfg(feature = "idna")]
/// assert_eq!(DomainName::new("b\u{fc}cher.example")?.as_str(), "xn--bcher-kva.example");
/// assert!(DomainName::new("two..dots").is_err());
/// # Ok::<(), envoi::mx::DomainNameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainName(Arc<str>);

impl DomainName {
    /// Checks a name: labels of letters, digits, hyphens and underscores, each of 1 to 63 bytes,
    /// together at most 253. One final dot is removed. A name beyond ASCII becomes A-labels
    /// (feature `idna`).
    ///
    /// # Errors
    ///
    /// The text is not such a name. The root of the DNS is not, either.
    pub fn new(name: &str) -> Result<Self, DomainNameError> {
        let error = |reason| DomainNameError {
            name: name.to_owned(),
            reason,
        };
        let relative = name.strip_suffix('.').unwrap_or(name);
        let allowed =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') || !c.is_ascii();
        if relative.is_empty() {
            return Err(error("it is empty"));
        }
        if !relative.chars().all(allowed) {
            return Err(error("it contains a character that names do not have"));
        }
        let ascii = idna::to_ascii(relative)
            .ok_or_else(|| error("it is not a valid internationalized name"))?;
        if ascii.len() > MAX_NAME {
            return Err(error("it is longer than 253 bytes"));
        }
        if ascii
            .split('.')
            .any(|label| label.is_empty() || label.len() > MAX_LABEL)
        {
            return Err(error("it has an empty label or one longer than 63 bytes"));
        }
        Ok(DomainName(ascii.to_ascii_lowercase().into()))
    }

    /// Whether it is `localhost`, or a name below it, which are this machine (RFC 6761, 6.3).
    pub(crate) fn is_localhost(&self) -> bool {
        let above = self.0.strip_suffix("localhost");
        above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    }

    /// Returns the name: A-labels, in lower case, without the final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DomainName {
    type Err = DomainNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl TryFrom<&str> for DomainName {
    type Error = DomainNameError;

    fn try_from(name: &str) -> Result<Self, Self::Error> {
        Self::new(name)
    }
}

impl AsRef<str> for DomainName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A text that is not the name of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainNameError {
    name: String,
    reason: &'static str,
}

impl DomainNameError {
    /// Returns the text that is not a name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn reason(&self) -> &'static str {
        self.reason
    }
}

impl fmt::Display for DomainNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = quoted(&self.name);
        write!(f, "{name} is not the name of a domain: {}", self.reason)
    }
}

impl std::error::Error for DomainNameError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_one_spelling() {
        for (text, name) in [
            ("example.org", "example.org"),
            ("EXAMPLE.org.", "example.org"),
            ("_25._tcp.MX1.example.org", "_25._tcp.mx1.example.org"),
            ("xn--BCHER-kva.example", "xn--bcher-kva.example"),
            ("org", "org"),
        ] {
            assert_eq!(DomainName::new(text).unwrap().as_str(), name, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "example..org",
            ".example.org",
            "example.org..",
            "two words.org",
            "a@example.org",
            "[127.0.0.1]",
            "a\0.org",
            "a\r\n.org",
            "caf\\233.org",
            &format!("{}.org", "a".repeat(64)),
            &["a".repeat(49).as_str(); 6].join("."),
        ] {
            let error = DomainName::new(text).expect_err(text);
            assert_eq!(error.name(), text);
        }
    }

    #[cfg(feature = "idna")]
    #[test]
    fn names_beyond_ascii_become_a_labels() {
        let name = DomainName::new("mx.B\u{dc}CHER.example").unwrap();
        assert_eq!(name.as_str(), "mx.xn--bcher-kva.example");
        assert!(DomainName::new("\u{200d}.org").is_err());
    }

    proptest! {
        #[test]
        fn a_name_is_its_own_spelling(text in "\\PC{0,80}") {
            if let Ok(name) = DomainName::new(&text) {
                prop_assert_eq!(DomainName::new(name.as_str()).unwrap(), name.clone());
                prop_assert!(name.as_str().is_ascii() && name.as_str().len() <= MAX_NAME);
            }
        }
    }
}
