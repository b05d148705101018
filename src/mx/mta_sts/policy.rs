//! [`Policy`]: which servers of a domain may be given its mail, and how.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::dns::DomainName;
use crate::dns::fields::is_name;
use crate::mx::tls_report::{AppliedPolicy, PolicyType};
use crate::text::quoted;

/// The maximum lifetime of a policy in seconds (RFC 8461, 3.2).
const MAX_AGE: u64 = 31_557_600;

/// A policy of MTA-STS (RFC 8461, 3.2).
///
/// `Display` writes it in the form in which it is published.
///
/// ```
/// use envoi::mx::mta_sts::{Mode, Policy};
///
/// let policy: Policy = "version: STSv1\n\
///     mode: enforce\n\
///     mx: mail.example.com\n\
///     mx: *.example.net\n\
///     max_age: 604800\n".parse()?;
/// assert_eq!(policy.mode, Mode::Enforce);
/// assert!(policy.allows(&"mx7.example.net".parse()?));
/// assert!(!policy.allows(&"example.net".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// What a sender does with servers that do not meet the policy.
    pub mode: Mode,
    /// The servers of the domain. Not empty, unless the mode is [`Mode::None`].
    pub mx: Vec<MxPattern>,
    /// The time for which the policy is valid after it was fetched: at most 31,557,600 seconds, a
    /// year.
    pub max_age: Duration,
}

/// What a sender does with servers that do not meet a policy (RFC 8461, 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It does not send to them.
    Enforce,
    /// It sends to them as without a policy, and reports what was wrong.
    Testing,
    /// The domain has no policy any more.
    None,
}

/// The name of a server, or of all servers whose name has one label more (RFC 8461, 4.1).
///
/// `Display` writes it as in the policy: `mail.example.com`, `*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MxPattern {
    /// The name, without `*.`.
    name: DomainName,
    is_wildcard: bool,
}

impl Policy {
    /// Parses the policy that a domain publishes. Lines end with LF or CRLF; empty lines and
    /// unknown fields are ignored, and of a repeated field other than `mx` all but the first. A
    /// lifetime above the maximum counts as the maximum.
    ///
    /// # Errors
    ///
    /// The text is not a policy of the version `STSv1`, or lacks a field that is required.
    pub fn parse(text: &[u8]) -> Result<Self, PolicyError> {
        let text = std::str::from_utf8(text).map_err(|_| PolicyError::NotText)?;
        let (mut version, mut mode, mut max_age) = (None, None, None);
        let mut mx = Vec::new();
        for (index, line) in text.split('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.trim_matches(BLANKS).is_empty() {
                continue;
            }
            let is_text = |text: &&str| !text.contains(|c: char| c.is_control() && c != '\t');
            let field = line.split_once(':').filter(|(name, _)| is_name(name));
            let Some((name, value)) = field.filter(|(_, value)| is_text(value)) else {
                return Err(PolicyError::Line {
                    number: index + 1,
                    text: line.to_owned(),
                });
            };
            let value = value.trim_matches(BLANKS);
            match name {
                "version" => version = version.or(Some(value)),
                "mode" => mode = mode.or(Some(value)),
                "max_age" => max_age = max_age.or(Some(value)),
                "mx" => mx.push(value.parse()?),
                _ => {}
            }
        }
        match version {
            Some("STSv1") => {}
            Some(other) => return Err(PolicyError::Version(other.to_owned())),
            None => return Err(PolicyError::Missing("version")),
        }
        let policy = Policy {
            mode: Mode::from_word(mode.ok_or(PolicyError::Missing("mode"))?)?,
            mx,
            max_age: max_age_from(max_age.ok_or(PolicyError::Missing("max_age"))?)?,
        };
        if policy.mx.is_empty() && policy.mode != Mode::None {
            return Err(PolicyError::Missing("mx"));
        }
        Ok(policy)
    }

    /// Whether the policy lists this server, which is the name in the MX record (RFC 8461, 4.1).
    pub fn allows(&self, host: &DomainName) -> bool {
        self.mx.iter().any(|pattern| pattern.matches(host))
    }

    /// The size of the memory that it takes, about, in bytes.
    pub(super) fn size(&self) -> usize {
        let name = |pattern: &MxPattern| 16 + pattern.name.as_str().len();
        let patterns = self.mx.iter().map(|mx| size_of::<MxPattern>() + name(mx));
        size_of::<Self>() + patterns.sum::<usize>()
    }

    /// Returns the policy as TLS reports describe it, for the domain that publishes it.
    pub fn as_applied(&self, domain: &DomainName) -> AppliedPolicy {
        AppliedPolicy {
            policy_type: PolicyType::Sts,
            domain: domain.clone(),
            strings: self.to_string().lines().map(str::to_owned).collect(),
            mx_hosts: self.mx.iter().map(MxPattern::to_string).collect(),
        }
    }
}

/// The whitespace of ABNF (RFC 5234, B.1).
const BLANKS: [char; 2] = [' ', '\t'];

impl Mode {
    /// Returns the mode as the word in the policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        }
    }

    fn from_word(word: &str) -> Result<Self, PolicyError> {
        [Mode::Enforce, Mode::Testing, Mode::None]
            .into_iter()
            .find(|mode| mode.as_str() == word)
            .ok_or_else(|| PolicyError::Mode(word.to_owned()))
    }
}

/// At most ten digits (RFC 8461, 3.2).
fn max_age_from(digits: &str) -> Result<Duration, PolicyError> {
    let seconds = Some(digits)
        .filter(|digits| digits.len() <= 10 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| PolicyError::MaxAge(digits.to_owned()))?;
    Ok(Duration::from_secs(MAX_AGE.min(seconds)))
}

impl MxPattern {
    /// Whether it is the name of this server, or the server's name has one label more where the
    /// pattern has a wildcard.
    pub fn matches(&self, host: &DomainName) -> bool {
        let (host, name) = (host.as_str(), self.name.as_str());
        match self.is_wildcard {
            true => host.split_once('.').is_some_and(|(_, rest)| rest == name),
            false => host == name,
        }
    }

    /// The patterns that [match](Self::matches) this server.
    pub(crate) fn all_of(host: &DomainName) -> impl Iterator<Item = Self> {
        let above = host.as_str().split_once('.');
        let above = above.and_then(|(_, rest)| DomainName::new(rest).ok());
        let wildcard = above.map(|name| MxPattern {
            name,
            is_wildcard: true,
        });
        let exact = MxPattern {
            name: host.clone(),
            is_wildcard: false,
        };
        [exact].into_iter().chain(wildcard)
    }
}

impl FromStr for MxPattern {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wildcard = text.strip_prefix("*.");
        let name = DomainName::new(wildcard.unwrap_or(text))
            .map_err(|_| PolicyError::Mx(text.to_owned()))?;
        Ok(MxPattern {
            name,
            is_wildcard: wildcard.is_some(),
        })
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Policy::parse(text.as_bytes())
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for MxPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wildcard = if self.is_wildcard { "*." } else { "" };
        write!(f, "{wildcard}{}", self.name)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "version: STSv1\nmode: {}", self.mode)?;
        for pattern in &self.mx {
            writeln!(f, "mx: {pattern}")?;
        }
        writeln!(f, "max_age: {}", self.max_age.as_secs())
    }
}

/// Why a text is not a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// It is not UTF-8.
    NotText,
    /// A line is not of the form `name: value`.
    Line {
        /// The number of the line, from 1 on.
        number: usize,
        /// The line.
        text: String,
    },
    /// It has another version than `STSv1`.
    Version(String),
    /// It has a mode other than `enforce`, `testing` and `none`.
    Mode(String),
    /// Its `max_age` is not a number of at most ten digits.
    MaxAge(String),
    /// An `mx` is not the name of a host, or one after `*.`.
    Mx(String),
    /// It lacks this field.
    Missing(&'static str),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyError::NotText => f.write_str("the policy is not UTF-8"),
            PolicyError::Line { number, text } => {
                let text = quoted(text);
                write!(
                    f,
                    "line {number} of the policy is not of the form name: value: {text}"
                )
            }
            PolicyError::Version(version) => {
                let version = quoted(version);
                write!(
                    f,
                    "the policy has the version {version}, which is not STSv1"
                )
            }
            PolicyError::Mode(mode) => {
                let mode = quoted(mode);
                write!(
                    f,
                    "the policy has the mode {mode}, not enforce, testing or none"
                )
            }
            PolicyError::MaxAge(age) => {
                let age = quoted(age);
                write!(
                    f,
                    "the max_age {age} of the policy is not a number of seconds"
                )
            }
            PolicyError::Mx(mx) => {
                let mx = quoted(mx);
                write!(
                    f,
                    "the mx {mx} of the policy is not a host or *. and a domain"
                )
            }
            PolicyError::Missing(field) => write!(f, "the policy has no {field}"),
        }
    }
}

impl std::error::Error for PolicyError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> DomainName {
        DomainName::new(text).unwrap()
    }

    #[test]
    fn a_policy_is_parsed() {
        // RFC 8461, 3.2.
        let published = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\n\
            mx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800";
        let policy: Policy = published.parse().unwrap();
        assert_eq!(policy.mode, Mode::Enforce);
        assert_eq!(policy.max_age, Duration::from_secs(604_800));
        let written = policy.to_string();
        assert_eq!(written, published.replace("\r\n", "\n") + "\n");
        assert_eq!(written.parse(), Ok(policy.clone()));
        for same in [
            published.replace("\r\n", "\n"),
            published.replace(": ", ":"),
            published.replace(": ", ":\t "),
            published.replace("\r\n", " \t\r\n"),
            published.replace("\r\n", "\r\n\r\n"),
            published.replace("mode", "unknown-1.x_: Grüße: =\r\nmode"),
            published.replace("\r\nmx: mail", "\r\nmode: none\r\nversion: 2\r\nmx: mail"),
            published.replace("mail.example.com", "MAIL.Example.com."),
            published.to_owned() + "\nmax_age: x",
        ] {
            assert_eq!(same.parse(), Ok(policy.clone()), "{same:?}");
        }
    }

    #[test]
    fn the_order_of_fields_is_free_and_none_needs_no_mx() {
        let policy: Policy = "max_age: 0\nmode: none\nversion: STSv1".parse().unwrap();
        assert_eq!((policy.mode, policy.max_age), (Mode::None, Duration::ZERO));
        assert!(policy.mx.is_empty() && !policy.allows(&name("mail.example.com")));
    }

    #[test]
    fn a_lifetime_above_a_year_is_a_year() {
        for age in ["31557600", "31557601", "9999999999", "0031557600"] {
            let policy: Policy = format!("version: STSv1\nmode: none\nmax_age: {age}")
                .parse()
                .unwrap();
            assert_eq!(policy.max_age, Duration::from_secs(MAX_AGE), "{age}");
        }
    }

    #[test]
    fn what_is_not_a_policy_is_refused() {
        let valid = "version: STSv1\nmode: testing\nmx: mail.example.com\nmax_age: 86400\n";
        let replaced = |from: &str, to: &str| valid.replace(from, to).parse::<Policy>();
        assert!(replaced("", "").is_ok());
        for (from, to, error) in [
            ("version: STSv1\n", "", PolicyError::Missing("version")),
            ("STSv1", "STSv2", PolicyError::Version("STSv2".into())),
            ("STSv1", "stsv1", PolicyError::Version("stsv1".into())),
            ("mode: testing\n", "", PolicyError::Missing("mode")),
            ("mode:", "Mode:", PolicyError::Missing("mode")),
            ("testing", "Testing", PolicyError::Mode("Testing".into())),
            ("testing", "report", PolicyError::Mode("report".into())),
            ("max_age: 86400\n", "", PolicyError::Missing("max_age")),
            ("86400", "", PolicyError::MaxAge("".into())),
            ("86400", "1d", PolicyError::MaxAge("1d".into())),
            ("86400", "-1", PolicyError::MaxAge("-1".into())),
            ("86400", "+1", PolicyError::MaxAge("+1".into())),
            (
                "86400",
                "00000000001",
                PolicyError::MaxAge("00000000001".into()),
            ),
            ("mx: mail.example.com\n", "", PolicyError::Missing("mx")),
            ("mail.example.com", "", PolicyError::Mx("".into())),
            ("mail.example.com", "*", PolicyError::Mx("*".into())),
            ("mail.example.com", "*.", PolicyError::Mx("*.".into())),
            ("mail.", "*.*.", PolicyError::Mx("*.*.example.com".into())),
            ("mail.", "m*.", PolicyError::Mx("m*.example.com".into())),
            ("mail.", ".", PolicyError::Mx(".example.com".into())),
            ("mail.", "a, ", PolicyError::Mx("a, example.com".into())),
        ] {
            assert_eq!(replaced(from, to), Err(error), "{from:?} → {to:?}");
        }
        for line in [
            "no colon",
            ": value",
            "-a: b",
            "a b: c",
            "mx : a.b",
            "x: a\u{1}b",
            "\u{feff}x: y",
        ] {
            let error = format!("{valid}{line}\n").parse::<Policy>().unwrap_err();
            let (number, text) = (5, line.to_owned());
            assert_eq!(error, PolicyError::Line { number, text }, "{line:?}");
        }
        assert_eq!(Policy::parse(b"version: \xff"), Err(PolicyError::NotText));
        assert!("<!DOCTYPE html>\n<html>".parse::<Policy>().is_err());
        assert_eq!("".parse::<Policy>(), Err(PolicyError::Missing("version")));
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for (pattern, host, matches) in [
            ("mail.example.com", "mail.example.com", true),
            ("mail.example.com", "MAIL.example.com.", true),
            ("mail.example.com", "a.mail.example.com", false),
            ("mail.example.com", "xmail.example.com", false),
            ("*.example.com", "mail.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "foo.bar.example.com", false),
            ("*.example.com", "mail.example.org", false),
            ("*.com", "example.com", true),
        ] {
            let pattern: MxPattern = pattern.parse().unwrap();
            assert_eq!(pattern.matches(&name(host)), matches, "{pattern} {host}");
            let is_among_all = MxPattern::all_of(&name(host)).any(|other| other == pattern);
            assert_eq!(is_among_all, matches, "{pattern} {host}");
        }
    }

    #[test]
    fn errors_show_no_control_characters() {
        let error = Policy::parse("mode: a\u{1b}[2J".as_bytes()).unwrap_err();
        assert!(!error.to_string().contains('\u{1b}'), "{error}");
    }

    fn host() -> impl Strategy<Value = String> {
        "[a-c]{1,2}(\\.[a-c]{1,2}){1,3}"
    }

    proptest! {
        #[test]
        fn a_written_policy_is_parsed_alike(
            mode in prop::sample::select(vec!["enforce", "testing", "none"]),
            hosts in prop::collection::vec(("(\\*\\.)?", host()), 1..5),
            age in 0..=MAX_AGE,
        ) {
            let line = |(star, host): &(String, String)| format!("mx: {star}{host}\n");
            let mx: String = hosts.iter().map(line).collect();
            let written = format!("version: STSv1\nmode: {mode}\n{mx}max_age: {age}\n");
            let policy: Policy = written.parse().unwrap();
            prop_assert_eq!(policy.to_string(), written);
        }

        /// Against the definition in RFC 8461, 4.1, label by label.
        #[test]
        fn patterns_match_by_labels(star in any::<bool>(), pattern in host(), host in host()) {
            let text = if star { format!("*.{pattern}") } else { pattern };
            let wanted: Vec<_> = text.split('.').collect();
            let labels: Vec<_> = host.split('.').collect();
            let expected = wanted.len() == labels.len()
                && (wanted.iter().zip(&labels))
                    .all(|(wanted, label)| *wanted == "*" || wanted == label);
            let pattern: MxPattern = text.parse().unwrap();
            prop_assert_eq!(pattern.matches(&name(&host)), expected);
            let all = MxPattern::all_of(&name(&host)).collect::<Vec<_>>();
            prop_assert_eq!(all.contains(&pattern), expected);
        }
    }
}
