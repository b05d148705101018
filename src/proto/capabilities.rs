//! Parses the reply to EHLO into [`Capabilities`] (RFC 5321, 4.1.1.1).
//!
//! This module parses what servers offer, including obsolete and unusual forms. The machine decides
//! how to use it.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use super::{Reply, ServerLimits};
use crate::date;

/// The extensions that a server offers, according to its last reply to EHLO.
///
/// ```
/// # use envoi::proto::{Capabilities, Limits, ReplyParser};
/// # let mut parser = ReplyParser::new(Limits::default());
/// # let text = "250-mail.example.org hello\r\n250-SIZE 1000\r\n250 AUTH=PLAIN LOGIN\r\n";
/// # let mut bytes = bytes::BytesMut::from(text);
/// # let reply = parser.parse(&mut bytes)?.unwrap();
/// let capabilities = Capabilities::from_reply(&reply);
/// assert_eq!(capabilities.size_limit(), Some(1000));
/// assert_eq!(capabilities.auth(), ["PLAIN", "LOGIN"]);
/// assert!(!capabilities.offers("PIPELINING"));
/// # Ok::<(), envoi::proto::ReplyError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    server_name: String,
    keywords: Vec<Keyword>,
    /// Parsed once, as each transaction asks for them.
    limits: ServerLimits,
}

/// A line of the reply to EHLO: a keyword and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keyword {
    /// The keyword in upper case.
    pub name: String,
    /// The parameters as sent, without blanks at the ends.
    pub parameters: String,
}

/// How long a server can hold a message (RFC 4865).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FutureReleaseLimits {
    /// The maximum duration; `None` if it cannot be parsed.
    pub max_interval: Option<Duration>,
    /// The latest point in time; `None` if it cannot be parsed.
    pub max_until: Option<SystemTime>,
}

impl Capabilities {
    /// Parses the reply to EHLO. The first line is a greeting, each other line a keyword. The reply
    /// to HELO has only the first line, and so offers nothing.
    pub fn from_reply(reply: &Reply) -> Self {
        let mut lines = reply.lines().iter();
        let greeting = lines.next().map_or("", String::as_str);
        let mut capabilities = Capabilities {
            server_name: greeting
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
            keywords: lines.filter_map(|line| Keyword::parse(line)).collect(),
            limits: ServerLimits::default(),
        };
        capabilities.limits = capabilities.parse_limits();
        capabilities
    }

    /// The name in the server's greeting; empty if it sent none.
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// All keywords, known or not, in the server's order.
    pub fn keywords(&self) -> &[Keyword] {
        &self.keywords
    }

    /// Whether the keyword is offered, in any case.
    pub fn offers(&self, keyword: &str) -> bool {
        self.keywords
            .iter()
            .any(|offered| offered.name.eq_ignore_ascii_case(keyword))
    }

    /// The parameters of a keyword that is offered, in any case.
    pub fn parameters(&self, keyword: &str) -> Option<&str> {
        let found = self
            .keywords
            .iter()
            .find(|offered| offered.name.eq_ignore_ascii_case(keyword))?;
        Some(&found.parameters)
    }

    /// The words in the parameters of a keyword.
    fn words(&self, keyword: &str) -> impl Iterator<Item = &str> {
        self.parameters(keyword)
            .unwrap_or_default()
            .split_whitespace()
    }

    /// The maximum message size in bytes (SIZE, RFC 1870). `None` if the server states no limit: no
    /// SIZE, or one without a value, with 0, or with a value that cannot be parsed.
    pub fn size_limit(&self) -> Option<u64> {
        self.words("SIZE")
            .next()?
            .parse()
            .ok()
            .filter(|limit| *limit > 0)
    }

    /// The minimum time within which a message can be requested to be delivered or returned
    /// (DELIVERBY, RFC 2852). `None` if there is no such limit, or no DELIVERBY.
    pub fn min_deliver_by(&self) -> Option<Duration> {
        self.words("DELIVERBY")
            .next()?
            .parse()
            .ok()
            .map(Duration::from_secs)
    }

    /// How long the server can hold a message (FUTURERELEASE, RFC 4865); `None` if it cannot.
    pub fn future_release(&self) -> Option<FutureReleaseLimits> {
        self.parameters("FUTURERELEASE")?;
        let mut words = self.words("FUTURERELEASE");
        Some(FutureReleaseLimits {
            max_interval: words
                .next()
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
            max_until: words.next().and_then(date::from_text),
        })
    }

    /// The profile of priorities (MT-PRIORITY, RFC 6710), such as `MIXER`, `STANAG4406` or `NSEP`,
    /// if the server names one.
    pub fn priority_profile(&self) -> Option<&str> {
        self.words("MT-PRIORITY").next()
    }

    /// The limits of the server (LIMITS, RFC 9422). A limit that is absent or cannot be parsed is
    /// `None`.
    pub fn limits(&self) -> ServerLimits {
        self.limits
    }

    fn parse_limits(&self) -> ServerLimits {
        let limit = |name: &str| {
            let mut named = self.words("LIMITS").filter_map(|word| word.split_once('='));
            let (_, number) = named.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
            number.parse().ok().filter(|limit| *limit > 0)
        };
        ServerLimits {
            mail_max: limit("MAILMAX"),
            rcpt_max: limit("RCPTMAX"),
            rcpt_domain_max: limit("RCPTDOMAINMAX"),
        }
    }

    /// The SASL mechanisms in upper case, without duplicates: those of all AUTH lines, and of the
    /// obsolete forms `AUTH=` and `X-EXPS` (Exchange).
    pub fn auth(&self) -> Vec<String> {
        // A hash set, since a server may name tens of thousands.
        let (mut mechanisms, mut seen) = (Vec::new(), HashSet::new());
        for line in self
            .keywords
            .iter()
            .filter(|offered| is_auth(&offered.name))
        {
            for mechanism in line
                .parameters
                .split([' ', '\t', '=', ','])
                .filter(|word| !word.is_empty())
            {
                let mechanism = mechanism.to_ascii_uppercase();
                if seen.insert(mechanism.clone()) {
                    mechanisms.push(mechanism);
                }
            }
        }
        mechanisms
    }
}

impl Keyword {
    /// `AUTH=PLAIN LOGIN` is the form from before RFC 2554. No other keyword has such a form:
    /// `SIZE=5` is not SIZE.
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        let end = line.find(char::is_whitespace).unwrap_or(line.len());
        let auth = line
            .split_once('=')
            .filter(|(name, _)| is_auth(&name.trim_end().to_ascii_uppercase()));
        let (name, parameters) = auth.unwrap_or_else(|| line.split_at(end));
        let parameters = match auth {
            Some(_) => parameters.trim_start_matches(|c: char| c.is_whitespace() || c == '='),
            None => parameters.trim_start(),
        };
        let name = name.trim_end().to_ascii_uppercase();
        (!name.is_empty()).then(|| Keyword {
            name,
            parameters: parameters.to_owned(),
        })
    }
}

/// Whether it is AUTH, or Exchange's old name for it.
fn is_auth(keyword: &str) -> bool {
    matches!(keyword, "AUTH" | "X-EXPS")
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::{Limits, ReplyParser};
    use super::*;

    fn offered(lines: &[&str]) -> Capabilities {
        let mut answer = String::from("250-mail.example.org greets you\r\n");
        for line in lines {
            answer += &format!("250-{line}\r\n");
        }
        answer += "250 HELP\r\n";
        let reply = ReplyParser::new(Limits::default()).parse(&mut BytesMut::from(answer.as_str()));
        Capabilities::from_reply(&reply.unwrap().unwrap())
    }

    #[test]
    fn auth_is_read_in_every_form() {
        for lines in [
            &["AUTH PLAIN LOGIN"][..],
            &["AUTH=PLAIN LOGIN"],
            &["AUTH PLAIN", "AUTH=LOGIN"],
            &["AUTH PLAIN LOGIN", "AUTH=PLAIN LOGIN"],
            &["auth plain login"],
            &["Auth  Plain\tLOGIN  "],
            &["AUTH = PLAIN LOGIN"],
            &["AUTH=", "AUTH PLAIN,LOGIN"],
            &["X-EXPS PLAIN LOGIN"],
            &["X-EXPS=PLAIN", "x-exps LOGIN"],
            &["  AUTH PLAIN", "AUTH LOGIN"],
        ] {
            assert_eq!(offered(lines).auth(), ["PLAIN", "LOGIN"], "{lines:?}");
        }
        assert!(offered(&["AUTHENTICATE PLAIN"]).auth().is_empty());
        assert!(offered(&["AUTH"]).auth().is_empty());
    }

    #[test]
    fn size_is_read_in_every_form() {
        for (line, limit) in [
            ("SIZE 104857600", Some(104_857_600)),
            ("size  1000", Some(1000)),
            ("SIZE", None),
            ("SIZE 0", None),
            ("SIZE many", None),
            ("SIZE -1", None),
            ("SIZE 99999999999999999999999999", None),
            ("SIZE 18446744073709551615", Some(u64::MAX)),
        ] {
            let capabilities = offered(&[line]);
            assert_eq!(capabilities.size_limit(), limit, "{line}");
            assert!(capabilities.offers("SIZE"), "{line}");
        }
    }

    #[test]
    fn only_auth_may_have_an_equals_sign() {
        let capabilities = offered(&[
            "SIZE=5",
            "STARTTLS=1",
            "LIMITS=RCPTMAX=1",
            "PIPELINING = yes",
            "AUTHX=PLAIN",
            "=x",
        ]);
        assert!(
            !["SIZE", "STARTTLS", "LIMITS", "AUTH"]
                .iter()
                .any(|keyword| capabilities.offers(keyword))
        );
        assert!(capabilities.offers("SIZE=5") && capabilities.offers("PIPELINING"));
        assert_eq!(
            (capabilities.size_limit(), capabilities.limits().rcpt_max),
            (None, None)
        );
        assert!(capabilities.auth().is_empty());
    }

    #[test]
    fn parameters_of_other_keywords_are_read() {
        let capabilities = offered(&[
            "DELIVERBY 240",
            "FUTURERELEASE 86400 2027-01-01T00:00:00Z",
            "mt-priority STANAG4406",
            "LIMITS mailmax=100 RCPTMAX=20 RCPTDOMAINMAX=0 NOVELTY=x y",
        ]);
        assert_eq!(
            capabilities.min_deliver_by(),
            Some(Duration::from_secs(240))
        );
        let offer = capabilities.future_release().unwrap();
        assert_eq!(offer.max_interval, Some(Duration::from_secs(86400)));
        assert_eq!(
            offer.max_until,
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_798_761_600))
        );
        assert_eq!(capabilities.priority_profile(), Some("STANAG4406"));
        let limits = capabilities.limits();
        assert_eq!(
            (limits.mail_max, limits.rcpt_max, limits.rcpt_domain_max),
            (Some(100), Some(20), None)
        );

        let bare = offered(&["DELIVERBY", "FUTURERELEASE soon", "MT-PRIORITY", "LIMITS"]);
        assert_eq!(
            (bare.min_deliver_by(), bare.priority_profile()),
            (None, None)
        );
        assert_eq!(bare.future_release(), Some(FutureReleaseLimits::default()));
        assert_eq!(bare.limits(), ServerLimits::default());
        assert_eq!(offered(&[]).future_release(), None);
    }

    #[test]
    fn unknown_keywords_are_kept() {
        let capabilities = offered(&["X-Novelty one two", "8bitmime", ""]);
        let unknown = &capabilities.keywords()[0];
        assert_eq!(
            (unknown.name.as_str(), unknown.parameters.as_str()),
            ("X-NOVELTY", "one two")
        );
        assert!(capabilities.offers("8BITMIME") && capabilities.offers("help"));
        assert_eq!(capabilities.keywords().len(), 3);
        assert_eq!(capabilities.server_name(), "mail.example.org");
    }
}
