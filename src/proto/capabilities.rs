//! EHLO's lines → [`Capabilities`] (RFC 5321, 4.1.1.1).
//!
//! This module knows how servers write what they offer, also the odd ones. What to make of an offer
//! is the machine's business.

use super::Reply;

/// What a server said that it offers, in its newest answer to EHLO.
///
/// ```
/// # use envoi::proto::{Capabilities, Limits, ReplyParser};
/// # let mut parser = ReplyParser::new(Limits::default());
/// # let mut bytes = bytes::BytesMut::from("250-mail.example.org hello\r\n250-SIZE 1000\r\n250 AUTH=PLAIN LOGIN\r\n");
/// # let reply = parser.parse(&mut bytes)?.unwrap();
/// let capabilities = Capabilities::from_reply(&reply);
/// assert_eq!(capabilities.size_limit(), Some(1000));
/// assert_eq!(capabilities.auth(), ["PLAIN", "LOGIN"]);
/// assert!(!capabilities.offers("PIPELINING"));
/// # Ok::<(), envoi::proto::BadReply>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    server_name: String,
    keywords: Vec<Keyword>,
}

/// A line of the answer to EHLO: a keyword and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keyword {
    /// The keyword in upper case.
    pub name: String,
    /// What follows it, as it came, but for blanks at its ends.
    pub parameters: String,
}

impl Capabilities {
    /// Reads the answer to EHLO. Its first line greets, each other one is a keyword; the answer to
    /// HELO has the first line alone, and so offers nothing.
    pub fn from_reply(reply: &Reply) -> Self {
        let mut lines = reply.lines().iter();
        let greeting = lines.next().map_or("", String::as_str);
        Capabilities {
            server_name: greeting.split_whitespace().next().unwrap_or_default().to_owned(),
            keywords: lines.filter_map(|line| Keyword::parse(line)).collect(),
        }
    }

    /// The name that the server gave itself; empty where it gave none.
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// All that was offered, known or not, in the server's order.
    pub fn keywords(&self) -> &[Keyword] {
        &self.keywords
    }

    /// The keyword was offered; its case does not matter.
    pub fn offers(&self, keyword: &str) -> bool {
        self.keywords.iter().any(|offered| offered.name.eq_ignore_ascii_case(keyword))
    }

    /// The largest message in bytes that the server takes (RFC 1870). `None` where it names no
    /// limit: no SIZE, or one without a value, with 0, or with a value that cannot be read.
    pub fn size_limit(&self) -> Option<u64> {
        let size = self.keywords.iter().find(|offered| offered.name == "SIZE")?;
        size.parameters.split_whitespace().next()?.parse().ok().filter(|limit| *limit > 0)
    }

    /// The SASL mechanisms in upper case, each once: those of all AUTH lines, and of the old form `AUTH=`.
    pub fn auth(&self) -> Vec<String> {
        let mut mechanisms = Vec::new();
        for line in self.keywords.iter().filter(|offered| offered.name == "AUTH") {
            for mechanism in line.parameters.split([' ', '\t', '=', ',']).filter(|word| !word.is_empty()) {
                let mechanism = mechanism.to_ascii_uppercase();
                if !mechanisms.contains(&mechanism) {
                    mechanisms.push(mechanism);
                }
            }
        }
        mechanisms
    }
}

impl Keyword {
    /// `AUTH=PLAIN LOGIN` is how servers wrote it before RFC 2554; no keyword has an equals sign in its name.
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        let parameters = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '=');
        (!name.is_empty()).then(|| Keyword { name: name.to_ascii_uppercase(), parameters: parameters.to_owned() })
    }
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
    fn reads_auth_in_every_form() {
        for lines in [
            &["AUTH PLAIN LOGIN"][..],
            &["AUTH=PLAIN LOGIN"],
            &["AUTH PLAIN", "AUTH=LOGIN"],
            &["AUTH PLAIN LOGIN", "AUTH=PLAIN LOGIN"],
            &["auth plain login"],
            &["Auth  Plain\tLOGIN  "],
            &["AUTH = PLAIN LOGIN"],
            &["AUTH=", "AUTH PLAIN,LOGIN"],
            &["  AUTH PLAIN", "AUTH LOGIN"],
        ] {
            assert_eq!(offered(lines).auth(), ["PLAIN", "LOGIN"], "{lines:?}");
        }
        assert!(offered(&["AUTHENTICATE PLAIN"]).auth().is_empty());
        assert!(offered(&["AUTH"]).auth().is_empty());
    }

    #[test]
    fn reads_size_in_every_form() {
        for (line, limit) in [
            ("SIZE 104857600", Some(104_857_600)),
            ("size=1000", Some(1000)),
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
    fn keeps_what_it_does_not_know() {
        let capabilities = offered(&["X-Novelty one two", "8bitmime", ""]);
        let unknown = &capabilities.keywords()[0];
        assert_eq!((unknown.name.as_str(), unknown.parameters.as_str()), ("X-NOVELTY", "one two"));
        assert!(capabilities.offers("8BITMIME") && capabilities.offers("help"));
        assert_eq!(capabilities.keywords().len(), 3);
        assert_eq!(capabilities.server_name(), "mail.example.org");
    }
}
