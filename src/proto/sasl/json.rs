//! Parses the members of a JSON object (RFC 8259), for the errors of OAUTHBEARER and XOAUTH2. They
//! are only shown to users: nested values are checked and kept as text.

/// The value of a member.
#[derive(Debug, PartialEq)]
pub(super) enum Value {
    /// A string, decoded.
    String(String),
    /// Any other value, as it was written.
    Other(String),
}

/// The members of the object `text`, in order; `None` if it is not an object.
pub(super) fn members(text: &str) -> Option<Vec<(String, Value)>> {
    let mut reader = Reader { rest: text };
    reader.skip_space();
    let members = reader.object(0)?;
    reader.skip_space();
    reader.rest.is_empty().then_some(members)
}

/// The depth to which arrays and objects may be nested.
const MAX_DEPTH: usize = 16;

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Consumes `token` if the rest begins with it.
    fn take(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    /// Consumes at least one digit.
    fn digits(&mut self) -> Option<()> {
        let rest = self
            .rest
            .trim_start_matches(|digit: char| digit.is_ascii_digit());
        let is_some = rest.len() < self.rest.len();
        self.rest = rest;
        is_some.then_some(())
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let start = self.rest;
        match start.chars().next()? {
            '"' => return self.string().map(Value::String),
            '{' => drop(self.object(depth + 1)?),
            '[' => self.array(depth + 1)?,
            't' => self.take("true")?,
            'f' => self.take("false")?,
            'n' => self.take("null")?,
            _ => self.number()?,
        }
        let length = start.len() - self.rest.len();
        Some(Value::Other(start[..length].to_owned()))
    }

    fn object(&mut self, depth: usize) -> Option<Vec<(String, Value)>> {
        self.take("{")?;
        let mut members = Vec::new();
        self.list(depth, "}", |reader| {
            let name = reader.string()?;
            reader.skip_space();
            reader.take(":")?;
            reader.skip_space();
            members.push((name, reader.value(depth)?));
            Some(())
        })?;
        Some(members)
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.take("[")?;
        self.list(depth, "]", |reader| reader.value(depth).map(drop))
    }

    /// What follows the opening bracket: items between commas, and the closing bracket.
    fn list(
        &mut self,
        depth: usize,
        end: &str,
        mut item: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip_space();
        if self.take(end).is_some() {
            return Some(());
        }
        loop {
            self.skip_space();
            item(self)?;
            self.skip_space();
            if self.take(end).is_some() {
                return Some(());
            }
            self.take(",")?;
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take("-");
        if self.take("0").is_none() {
            self.digits()?;
        }
        if self.take(".").is_some() {
            self.digits()?;
        }
        if self.take("e").or_else(|| self.take("E")).is_some() {
            let _ = self.take("+").or_else(|| self.take("-"));
            self.digits()?;
        }
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        self.take("\"")?;
        let mut text = String::new();
        loop {
            let next = self.character()?;
            text.push(match next {
                '"' => return Some(text),
                '\\' => self.escape()?,
                control if control < ' ' => return None,
                other => other,
            });
        }
    }

    fn character(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next();
        self.rest = characters.as_str();
        next
    }

    /// What follows the backslash.
    fn escape(&mut self) -> Option<char> {
        Some(match self.character()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.code_unit()?;
                let mut units = vec![first];
                // The second half of a surrogate pair.
                if (0xD800..0xDC00).contains(&first) {
                    self.take("\\u")?;
                    units.push(self.code_unit()?);
                }
                let mut decoded = char::decode_utf16(units);
                let character = decoded.next()?.ok()?;
                return decoded.next().is_none().then_some(character);
            }
            plain @ ('"' | '\\' | '/') => plain,
            _ => return None,
        })
    }

    /// Four hexadecimal digits.
    fn code_unit(&mut self) -> Option<u16> {
        let (digits, rest) = self.rest.split_at_checked(4)?;
        self.rest = rest;
        let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hexadecimal.then(|| u16::from_str_radix(digits, 16).ok())?
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_keep_the_order_of_the_text() {
        let text = r#" {"status" : "invalid_token","b":[1, {"c":null}],"a":-1.5e3,"\u00e9\ud83d\ude00\n":""} "#;
        let string = |text: &str| Value::String(text.into());
        let other = |text: &str| Value::Other(text.into());
        assert_eq!(
            members(text).unwrap(),
            [
                ("status".into(), string("invalid_token")),
                ("b".into(), other(r#"[1, {"c":null}]"#)),
                ("a".into(), other("-1.5e3")),
                ("\u{e9}\u{1F600}\n".into(), string("")),
            ]
        );
        assert_eq!(members("{}"), Some(Vec::new()));
    }

    #[test]
    fn text_that_is_not_an_object_has_no_members() {
        for text in [
            "",
            "null",
            "[]",
            "\"a\"",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":+1}",
            "{\"a\":.5}",
            "{\"a\":1e}",
            "{\"a\":tru}",
            "{a:1}",
            "{\"a\":1} x",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\ud83d\"}",
            "{\"a\":\"\\ud83d\\u0041\"}",
            "{\"a\":\"\\ude00\"}",
            "{\"a\":\"\\u+123\"}",
            "{\"a\":[1 2]}",
        ] {
            assert_eq!(members(text), None, "{text}");
        }
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(members(&nested(MAX_DEPTH)).is_some());
        assert!(members(&nested(MAX_DEPTH + 1)).is_none());
        assert!(members(&nested(1_000_000)).is_none());
    }

    proptest! {
        /// serde_json is the reference; a repeated name is kept here, and a number may be of any
        /// size.
        #[test]
        fn members_are_those_of_serde_json(
            text in r#"\{("[a-c]{0,2}(\\[nu"\\/]|\\u00[0-9a-f]{2})?" ?: ?("[ -~]{0,4}"|-?[0-9]{1,3}(\.[0-9]{0,2})?|\[[0-9,"]{0,4}\]|\{\}|null|true),? ?){0,3}\}"#
        ) {
            let expected = serde_json::from_str::<serde_json::Map<_, _>>(&text).ok();
            let read = members(&text);
            prop_assert_eq!(read.is_some(), expected.is_some());
            for (name, value) in expected.into_iter().flatten() {
                let last = read.iter().flatten().rfind(|(read, _)| *read == name).unwrap();
                match (&last.1, value) {
                    (Value::String(read), serde_json::Value::String(text)) => {
                        prop_assert_eq!(read, &text)
                    }
                    (Value::Other(read), value) => {
                        let read: serde_json::Value = serde_json::from_str(read).unwrap();
                        prop_assert_eq!(read, value)
                    }
                    (read, value) => prop_assert!(false, "{:?} {}", read, value),
                }
            }
        }
    }
}
