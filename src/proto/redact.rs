//! Redacts secrets that a peer may echo.
//!
//! A secret is found in its original form; escaped as in `Debug`, JSON, URLs, HTML, xtext (RFC
//! 3461) and quoted-printable; in base64 at any position of a longer text; in hexadecimal digits;
//! and if it is split between the lines of a reply.

use std::fmt::Write as _;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use memchr::memmem;
use zeroize::Zeroizing;

use crate::text::{printable, shown};

/// The forms in which secrets are searched.
#[derive(Default)]
pub(crate) struct Secrets(Vec<Zeroizing<String>>);

/// The minimum length of a secret: a shorter one would occur in ordinary words.
const SHORTEST: usize = 4;

/// How many levels of escaping are undone: a server may quote JSON in a word that an error quotes.
const ESCAPED: usize = 3;

/// The first characters of escapes that may be nested: those of URLs, and of JSON and `Debug`.
const NESTED: [u8; 2] = [b'%', b'\\'];

/// The first characters of other escapes: xtext, quoted-printable and HTML. They are undone last,
/// and once, which keeps the number of views small.
const OUTERMOST: [u8; 3] = [b'+', b'=', b'&'];

/// What may separate bytes in hexadecimal digits.
const SEPARATORS: [u8; 3] = [b':', b'-', b' '];

pub(super) const STARS: &str = "***";

/// The first characters of the escapes to undo next, and how many levels of nested ones may follow.
fn inner_marks(times: usize) -> impl Iterator<Item = (u8, usize)> {
    let nested = NESTED
        .into_iter()
        .map(move |mark| (mark, times.saturating_sub(1)));
    let last = OUTERMOST.into_iter().map(|mark| (mark, 0));
    nested
        .chain(last)
        .take(if times == 0 { 0 } else { usize::MAX })
}

impl Secrets {
    /// Adds a secret in its original form.
    pub(crate) fn add(&mut self, secret: Zeroizing<String>) {
        // Searched in the shown form too, in which some characters are replaced.
        let form = Zeroizing::new(printable(secret.as_str()));
        if form.len() >= SHORTEST && !self.0.contains(&form) {
            self.0.push(form);
        }
    }

    /// Adds a secret and its forms in base64, hexadecimal digits and HTML forms.
    pub(crate) fn add_with_base64(&mut self, secret: &str) {
        self.add(Zeroizing::new(secret.to_owned()));
        // HTML forms encode a blank like this.
        if secret.contains(' ') {
            self.add(build_form(secret.len(), |form| {
                form.extend(secret.chars().map(|c| if c == ' ' { '+' } else { c }))
            }));
        }
        let mut hex = build_form(2 * secret.len(), |form| {
            secret
                .bytes()
                .try_for_each(|byte| write!(form, "{byte:02x}"))
                .unwrap_or_default();
        });
        self.add(hex.clone());
        hex.make_ascii_uppercase();
        self.add(hex);
        self.add_base64(secret);
        let escaped = escaped(secret);
        if *escaped != secret {
            self.add_base64(&escaped);
        }
    }

    /// Adds the base64 of a secret by itself, and the characters of it that do not depend on the
    /// bytes around it.
    pub(crate) fn add_base64(&mut self, secret: &str) {
        for alphabet in [&STANDARD, &URL_SAFE] {
            self.add(Zeroizing::new(alphabet.encode(secret)));
            for before in 0..3 {
                // A character is six bits: those at the ends also contain bits of the bytes around
                // it.
                let bytes = Zeroizing::new([&[0; 2][..before], secret.as_bytes()].concat());
                let encoded = Zeroizing::new(alphabet.encode(&bytes));
                let own = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
                self.add(Zeroizing::new(
                    encoded.get(own).unwrap_or_default().to_owned(),
                ));
            }
        }
    }

    /// Returns the text with secrets replaced by stars, if it contains one.
    pub(crate) fn redacted(&self, text: &str) -> Option<String> {
        let found = self.find(text);
        (!found.is_empty()).then(|| with_stars(text, &found))
    }

    /// Redacts a truncated text: the beginning of a secret at its end is replaced too.
    pub(crate) fn redacted_cut(&self, text: &str) -> String {
        let mut found = self.find(text);
        let longest = self.0.iter().filter_map(|form| {
            let mut cuts = (SHORTEST..=form.len())
                .rev()
                .filter(|cut| form.is_char_boundary(*cut));
            cuts.find(|cut| text.ends_with(&form[..*cut]))
        });
        found.extend(longest.max().map(|length| text.len() - length..text.len()));
        with_stars(text, &merged(found))
    }

    /// Redacts the lines of a reply, including secrets that continue in the next line. `body`
    /// returns the text of a line.
    pub(crate) fn redact_lines(&self, lines: &mut [String], body: impl Fn(&str) -> &str) {
        if self.0.is_empty() {
            return;
        }
        let mut found: Vec<_> = lines.iter().map(|line| self.find(line)).collect();
        if lines.len() > 1 {
            // It may be split anywhere, as base64 is, or at a blank.
            self.find_across(lines, "", &body, &mut found);
            self.find_across(lines, " ", &body, &mut found);
        }
        for (line, found) in lines
            .iter_mut()
            .zip(found)
            .filter(|(_, found)| !found.is_empty())
        {
            *line = with_stars(line, &merged(found));
        }
    }

    fn find_across(
        &self,
        lines: &[String],
        separator: &str,
        body: &impl Fn(&str) -> &str,
        found: &mut [Vec<Range<usize>>],
    ) {
        let mut joined = Zeroizing::new(String::with_capacity(
            lines.iter().map(|line| line.len() + 1).sum(),
        ));
        // The position of each line's text, in the line and in all of them.
        let mut places = Vec::with_capacity(lines.len());
        for line in lines {
            let body = body(line).trim_start();
            let start = line.len() - body.len();
            let body = body.trim_end();
            places.push((start, joined.len()..joined.len() + body.len()));
            joined.push_str(body);
            joined.push_str(separator);
        }
        let across = self.find(&joined);
        let mut across = across.iter().peekable();
        for ((start, place), found) in places.into_iter().zip(found) {
            while let Some(range) = across.peek() {
                let (from, to) = (range.start.max(place.start), range.end.min(place.end));
                if from < to {
                    found.push(start + from - place.start..start + to - place.start);
                }
                if range.end > place.end {
                    break;
                }
                across.next();
            }
        }
    }

    /// The positions of secrets in a text, in order and not overlapping.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        if !self.0.is_empty() {
            let view = View::new(text);
            self.find_in(&view, ESCAPED, &mut found);
            for separator in SEPARATORS {
                if let Some(inner) = view.unescaped(separator) {
                    self.find_in(&inner, 0, &mut found);
                }
            }
        }
        merged(found)
    }

    /// Searches the text as it is, and then with up to `times` levels of escapes undone.
    fn find_in(&self, view: &View, times: usize, found: &mut Vec<Range<usize>>) {
        for form in self.0.iter().filter(|form| form.len() <= view.bytes.len()) {
            let places = memmem::find_iter(&view.bytes, form.as_bytes());
            found.extend(places.map(|at| view.place(at..at + form.len())));
        }
        for (mark, times) in inner_marks(times) {
            if let Some(inner) = view.unescaped(mark) {
                self.find_in(&inner, times, found);
            }
        }
    }
}

/// A text as it is shown, or with escapes undone.
struct View {
    bytes: Zeroizing<Vec<u8>>,
    /// For each byte the position of its character in the shown text; at the end, the length of the
    /// text.
    starts: Vec<usize>,
}

impl View {
    fn new(text: &str) -> Self {
        View::of(|| text.char_indices().map(|(at, c)| (c, at)), text.len())
    }

    /// Makes a view of characters and their positions. Counts first: a growing buffer would leave
    /// copies of a secret.
    fn of<I: Iterator<Item = (char, usize)>>(chars: impl Fn() -> I, end: usize) -> Self {
        let length = chars().map(|(c, _)| shown(c).len_utf8()).sum();
        let mut view = View {
            bytes: Zeroizing::new(Vec::with_capacity(length)),
            starts: Vec::with_capacity(length + 1),
        };
        for (c, start) in chars() {
            view.bytes
                .extend_from_slice(shown(c).encode_utf8(&mut [0; 4]).as_bytes());
            view.starts.resize(view.bytes.len(), start);
        }
        view.starts.push(end);
        view
    }

    fn place(&self, range: Range<usize>) -> Range<usize> {
        self.starts[range.start]..self.starts[range.end]
    }

    /// Undoes the escapes with this first character once, such as those of URLs (`%41`). `None` if
    /// there are none.
    fn unescaped(&self, mark: u8) -> Option<View> {
        memchr::memchr(mark, &self.bytes)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.bytes.len()));
        let mut starts = Vec::with_capacity(self.bytes.len());
        let (mut at, mut found_any) = (0, false);
        while at < self.bytes.len() {
            let escape = if self.bytes[at] == mark {
                unescape(&self.bytes[at..])
            } else {
                None
            };
            found_any |= escape.is_some();
            let (own, length) = escape.unwrap_or((Own::Byte(self.bytes[at]), 1));
            // No escape is shorter than what it stands for.
            own.write_to(&mut bytes);
            starts.resize(bytes.len(), self.starts[at]);
            at += length;
        }
        if !found_any {
            return None;
        }
        let chars = || {
            let mut at = 0;
            bytes
                .utf8_chunks()
                .flat_map(|chunk| {
                    let invalid = (!chunk.invalid().is_empty())
                        .then_some(('\u{FFFD}', chunk.invalid().len()));
                    chunk
                        .valid()
                        .chars()
                        .map(|c| (c, c.len_utf8()))
                        .chain(invalid)
                })
                .map(move |(c, length)| {
                    at += length;
                    (c, at - length)
                })
        };
        Some(View::of(
            || chars().map(|(c, at)| (c, starts[at])),
            self.starts[self.bytes.len()],
        ))
    }
}

/// What an escape stands for: a byte of UTF-8, a character, or nothing.
enum Own {
    Byte(u8),
    Char(char),
    Nothing,
}

impl Own {
    fn write_to(self, bytes: &mut Vec<u8>) {
        match self {
            Own::Byte(byte) => bytes.push(byte),
            Own::Nothing => {}
            Own::Char(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// The escape at the start of the text and its length in bytes.
fn unescape(text: &[u8]) -> Option<(Own, usize)> {
    let number = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits)
            .ok()
            .filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        digits.and_then(|digits| u32::from_str_radix(digits, 16).ok())
    };
    let byte = |digits: &[u8]| {
        number(digits)
            .and_then(|number| u8::try_from(number).ok())
            .map(Own::Byte)
    };
    let char = |digits: &[u8]| number(digits).and_then(char::from_u32).map(Own::Char);
    let simple = |byte: u8| Some((Own::Byte(byte), 2));
    match text {
        [b'%' | b'+' | b'=', a, b, ..] => byte(&[*a, *b]).map(|own| (own, 3)),
        [b':' | b'-' | b' ', a, b, ..] => byte(&[*a, *b]).map(|_| (Own::Nothing, 1)),
        [b'&', rest @ ..] => entity(rest).map(|(own, length)| (Own::Char(own), length + 1)),
        [b'\\', b'x', a, b, ..] => byte(&[*a, *b]).map(|own| (own, 4)),
        // \u{1b}
        [b'\\', b'u', b'{', rest @ ..] => {
            let end = rest.iter().take(7).position(|byte| *byte == b'}');
            end.and_then(|end| char(&rest[..end]).map(|own| (own, 4 + end)))
        }
        [b'\\', b'u', a, b, c, d, ..] => match char(&[*a, *b, *c, *d]) {
            Some(own) => Some((own, 6)),
            // Two surrogates (RFC 8259, 7).
            None => surrogates(text).map(|c| (Own::Char(c), 12)),
        },
        [b'\\', b'n', ..] => simple(b'\n'),
        [b'\\', b'r', ..] => simple(b'\r'),
        [b'\\', b't', ..] => simple(b'\t'),
        [b'\\', b'b', ..] => simple(8),
        [b'\\', b'f', ..] => simple(12),
        [b'\\', b'0', ..] => simple(0),
        [b'\\', own @ (b'\\' | b'/' | b'"' | b'\''), ..] => simple(*own),
        _ => None,
    }
}

/// The character that an HTML entity stands for, and its length in bytes without the `&`.
fn entity(text: &[u8]) -> Option<(char, usize)> {
    // With leading zeros, a number may be longer than the longest name.
    let end = text.iter().take(12).position(|byte| *byte == b';')?;
    let name = std::str::from_utf8(&text[..end]).ok()?;
    let own = match name {
        "amp" | "AMP" => '&',
        "lt" | "LT" => '<',
        "gt" | "GT" => '>',
        "quot" | "QUOT" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let number = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(number.ok()?)?
        }
    };
    Some((own, end + 1))
}

fn surrogates(text: &[u8]) -> Option<char> {
    let text = std::str::from_utf8(text.get(..12)?).ok()?;
    let unit = |escape: &str| u16::from_str_radix(escape.strip_prefix("\\u")?, 16).ok();
    char::decode_utf16([unit(text.get(..6)?)?, unit(text.get(6..)?)?])
        .next()?
        .ok()
}

/// A form of a secret, allocated for `bytes` bytes: a growing buffer would leave copies in memory.
fn build_form(bytes: usize, make: impl FnOnce(&mut String)) -> Zeroizing<String> {
    let mut form = Zeroizing::new(String::with_capacity(bytes));
    make(&mut form);
    form
}

/// Escapes like `Debug`, without the quotes.
fn escaped(text: &str) -> Zeroizing<String> {
    let quoted = build_form(10 * text.len() + 2, |form| {
        write!(form, "{text:?}").unwrap_or_default()
    });
    Zeroizing::new(quoted[1..quoted.len() - 1].to_owned())
}

fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => merged.push(range),
        }
    }
    merged
}

/// The ranges are in order and do not overlap.
fn with_stars(text: &str, ranges: &[Range<usize>]) -> String {
    let mut shown = String::with_capacity(text.len() + ranges.len() * STARS.len());
    let mut at = 0;
    for range in ranges {
        shown.push_str(&text[at..range.start]);
        shown.push_str(STARS);
        at = range.end;
    }
    shown.push_str(&text[at..]);
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secrets(secret: &str) -> Secrets {
        let mut secrets = Secrets::default();
        secrets.add_with_base64(secret);
        secrets
    }

    #[test]
    fn a_secret_is_replaced_and_other_text_is_kept() {
        let mut secrets = Secrets::default();
        secrets.add(Zeroizing::new("hunter2".into()));
        secrets.add(Zeroizing::new("a".into()));
        assert_eq!(
            secrets.redacted("bad password hunter2, hunter2").unwrap(),
            "bad password ***, ***"
        );
        assert_eq!(secrets.redacted("a bad password"), None);
        // A secret within another one must not leave parts of that.
        secrets.add(Zeroizing::new("ter2".into()));
        assert_eq!(secrets.redacted("hunter2 or ter2").unwrap(), "*** or ***");
    }

    #[test]
    fn base64_of_a_secret_within_other_bytes_is_replaced() {
        // All characters that belong to the secret alone are replaced; those shared with the text
        // around it stay.
        let secrets = secrets("se\"cret\\");
        assert_eq!(
            secrets.redacted(&STANDARD.encode("se\"cret\\")).as_deref(),
            Some("***")
        );
        for (before, after, left) in [
            ("", ".", (0, 2)),
            ("a", "", (2, 0)),
            ("ab", "c", (3, 3)),
            ("abcd", "ef", (6, 4)),
        ] {
            let echo = STANDARD.encode(format!("{before}se\"cret\\{after}"));
            let shown = format!("{}***{}", &echo[..left.0], &echo[echo.len() - left.1..]);
            assert_eq!(secrets.redacted(&echo), Some(shown), "{echo}");
        }
    }

    #[test]
    fn each_encoded_form_of_a_secret_is_replaced() {
        for secret in [
            "se\"cret\\",
            "a&b<c>d'e;",
            "pass\u{7}word",
            "p\u{9b}\u{202e}ss\tw ö%41rd",
            "🔑key",
            "x\ny\rz\0",
        ] {
            let percent: String = secret.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let json: String = secret
                .encode_utf16()
                .map(|unit| format!("\\u{unit:04X}"))
                .collect();
            let braces: String = secret
                .chars()
                .map(|c| c.escape_unicode().to_string())
                .collect();
            let twice = format!("{:?}", format!("{secret:?}"));
            let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
            let form = percent.replace("%20", "+");
            let spaced: Vec<String> = secret.bytes().map(|byte| format!("{byte:02X}")).collect();
            let named = ["&amp;", "&lt;", "&gt;", "&quot;", "&apos;"];
            let html = "&<>\"'"
                .chars()
                .zip(named)
                .fold(secret.to_owned(), |html, (c, name)| html.replace(c, name));
            for echo in [
                html.clone(),
                html.replace('&', "\\u0026"),
                secret
                    .chars()
                    .map(|c| format!("&#{};", u32::from(c)))
                    .collect(),
                secret
                    .chars()
                    .map(|c| format!("&#x{:x};", u32::from(c)))
                    .collect(),
                secret
                    .chars()
                    .map(|c| format!("&#X{:06X};", u32::from(c)))
                    .collect(),
                percent.to_uppercase().replace('%', "+"),
                percent.to_uppercase().replace('%', "="),
                spaced.join(":"),
                spaced.join("-"),
                spaced.join(" "),
                secret.to_owned(),
                printable(secret),
                format!("{secret:?}"),
                format!("{:?}", printable(secret)),
                twice,
                percent.to_uppercase(),
                percent.replace('%', "%25"),
                form,
                json,
                braces,
                hex.to_uppercase(),
                hex,
                STANDARD.encode(secret),
                URL_SAFE.encode(secret),
                STANDARD.encode(format!("\0alice\0{secret}")),
                STANDARD.encode(&format!("{secret:?}")[1..]),
                STANDARD
                    .encode(secret)
                    .replace('=', "%3D")
                    .replace('+', "%2B"),
            ] {
                let text = format!("the password {echo} is wrong");
                let redacted = secrets(secret)
                    .redacted(&text)
                    .unwrap_or_else(|| panic!("{secret:?}: {echo:?}"));
                assert!(redacted.contains("***"), "{redacted}");
                assert!(
                    redacted.starts_with("the password ") && redacted.ends_with(" is wrong"),
                    "{redacted}"
                );
            }
        }
    }

    #[test]
    fn a_secret_split_across_lines_is_replaced() {
        let secrets = secrets("correct horse battery");
        let encoded = STANDARD.encode("correct horse battery");
        for (lines, shown) in [
            (
                vec![
                    "no: corre".to_owned(),
                    "ct horse bat".into(),
                    "tery!".into(),
                ],
                vec!["no: ***", "***", "***!"],
            ),
            (
                vec!["correct".into(), "horse  ".into(), " battery".into()],
                vec!["***", "***  ", " ***"],
            ),
            (
                vec![encoded[..10].into(), encoded[10..].into()],
                vec!["***", "***"],
            ),
            (
                vec!["5.7.8 correct ho".into(), "5.7.8 rse battery".into()],
                vec!["5.7.8 ***", "5.7.8 ***"],
            ),
            (
                vec!["correct horse battery".into(), "x".into()],
                vec!["***", "x"],
            ),
            (
                vec!["correct".into(), "horses".into()],
                vec!["correct", "horses"],
            ),
        ] {
            let mut redacted = lines.clone();
            secrets.redact_lines(&mut redacted, |line| {
                line.strip_prefix("5.7.8 ").unwrap_or(line)
            });
            assert_eq!(redacted, shown, "{lines:?}");
        }
    }

    #[test]
    fn redaction_takes_linear_time() {
        // The maximum number of nested escapes.
        for text in [
            "%25", "%", "\\\\", "\\u{5c}", "%5C%25", "\\x25", "+2B", "=3D", "&amp;", "&#38;", "&#",
            "&",
        ]
        .map(|escape| escape.repeat(20_000))
        {
            let looked_at = bytes_in_views(&View::new(&text), ESCAPED);
            assert!(
                looked_at <= 3 * text.len(),
                "{:?}: {looked_at} of {}",
                &text[..6],
                text.len()
            );
        }
        // The worst case: an escape of each kind in a long text.
        let text = format!("{}%61\\n+61=61&lt;", "a".repeat(20_000));
        let looked_at = bytes_in_views(&View::new(&text), ESCAPED);
        assert!(
            looked_at <= 40 * text.len(),
            "{looked_at} of {}",
            text.len()
        );
    }

    /// Uses the limits of `find_in`.
    fn bytes_in_views(view: &View, times: usize) -> usize {
        let inner =
            inner_marks(times).filter_map(|(mark, times)| Some((view.unescaped(mark)?, times)));
        view.bytes.len()
            + inner
                .map(|(inner, times)| bytes_in_views(&inner, times))
                .sum::<usize>()
    }

    #[test]
    fn a_truncated_secret_is_replaced() {
        let secrets = secrets("correct horse");
        assert_eq!(secrets.redacted_cut("you said correct ho"), "you said ***");
        assert_eq!(
            secrets.redacted_cut("you said correct horse, corr"),
            "you said ***, ***"
        );
        assert_eq!(secrets.redacted_cut("you said cor"), "you said cor");
        assert_eq!(secrets.redacted_cut("correct is"), "correct is");
    }

    proptest! {
        #[test]
        fn a_secret_is_replaced_in_any_surroundings(
            before in any::<String>(),
            after in "[%\\\\u{}0-9a-fx\"\u{7}\u{9b}ö]{0,12}",
            secret in "[%\\\\u{}0-9a-f \u{7}\u{9b}\u{202e}ö🔑]{4,12}",
            lines in prop::collection::vec("(5[.]7[.]8 ?)?[%\\\\u0-9a-f \u{7}ö🔑]{0,6}", 0..5),
        ) {
            let secrets = secrets(&secret);
            for echo in [secret.clone(), format!("{secret:?}")] {
                let text = format!("{before}{echo}{after}");
                prop_assert!(secrets.redacted(&text).is_some(), "{:?}", text);
                prop_assert!(secrets.redacted(&printable(text.as_str())).is_some(), "{:?}", text);
            }
            let _ = secrets.redacted_cut(&printable(format!("{after}{before}")));
            let shown = lines.iter().map(|line| printable(line.as_str()));
            let mut redacted: Vec<String> = shown.collect();
            secrets.redact_lines(&mut redacted, |line| line.strip_prefix("5.7.8").unwrap_or(line));
            prop_assert_eq!(redacted.len(), lines.len());
            prop_assert!(redacted.iter().all(|line| secrets.redacted(line).is_none()));
        }
    }
}
