//! What must not be shown, though a peer may echo it.
//!
//! A secret is found as it is, escaped in the ways of `Debug`, JSON and URLs, in base64 at any place
//! of a longer text, in hexadecimal digits, and where the lines of a reply break it.

use std::fmt::Write as _;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use memchr::memmem;
use zeroize::Zeroizing;

use crate::text::{printable, shown};

/// The forms in which secrets are looked for.
#[derive(Default)]
pub(crate) struct Secrets(Vec<Zeroizing<String>>);

/// A shorter secret would be found in innocent words.
const SHORTEST: usize = 4;

/// How often a secret may have been escaped: a server quotes JSON in a word that an error quotes.
const ESCAPED: usize = 3;

const STARS: &str = "***";

impl Secrets {
    /// Adds a secret as it is.
    pub(crate) fn add(&mut self, secret: Zeroizing<String>) {
        // It is looked for in what is shown, where some characters are replaced.
        let form = Zeroizing::new(printable(secret.as_str()));
        if form.len() >= SHORTEST && !self.0.contains(&form) {
            self.0.push(form);
        }
    }

    /// Adds a secret, and what base64, hexadecimal digits and forms make of it.
    pub(crate) fn add_with_base64(&mut self, secret: &str) {
        self.add(Zeroizing::new(secret.to_owned()));
        // As HTML forms write a blank.
        if secret.contains(' ') {
            self.add(made(secret.len(), |form| form.extend(secret.chars().map(|c| if c == ' ' { '+' } else { c }))));
        }
        let mut hex = made(2 * secret.len(), |form| {
            secret.bytes().try_for_each(|byte| write!(form, "{byte:02x}")).unwrap_or_default();
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

    /// Adds the base64 of a secret by itself, and what stays the same of it in the midst of other bytes.
    pub(crate) fn add_base64(&mut self, secret: &str) {
        for alphabet in [&STANDARD, &URL_SAFE] {
            self.add(Zeroizing::new(alphabet.encode(secret)));
            for before in 0..3 {
                // Six bits to a character: those at the ends are shared with the neighbours.
                let bytes = Zeroizing::new([&[0; 2][..before], secret.as_bytes()].concat());
                let encoded = Zeroizing::new(alphabet.encode(&bytes));
                let own = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
                self.add(Zeroizing::new(encoded.get(own).unwrap_or_default().to_owned()));
            }
        }
    }

    /// The text with stars for secrets, if it holds one.
    pub(crate) fn redacted(&self, text: &str) -> Option<String> {
        let found = self.find(text);
        (!found.is_empty()).then(|| with_stars(text, &found))
    }

    /// The same for a text that was cut off: what is the beginning of a secret at its end goes, too.
    pub(crate) fn redacted_cut(&self, text: &str) -> String {
        let mut found = self.find(text);
        let longest = self.0.iter().filter_map(|form| {
            let mut cuts = (SHORTEST..=form.len()).rev().filter(|cut| form.is_char_boundary(*cut));
            cuts.find(|cut| text.ends_with(&form[..*cut]))
        });
        found.extend(longest.max().map(|length| text.len() - length..text.len()));
        with_stars(text, &merged(found))
    }

    /// Puts stars for secrets into the lines of a reply, also where one goes on in the next line.
    /// `body` gives the end of a line that counts.
    pub(crate) fn redact_lines(&self, lines: &mut [String], body: impl Fn(&str) -> &str) {
        if self.0.is_empty() {
            return;
        }
        let mut found: Vec<_> = lines.iter().map(|line| self.find(line)).collect();
        if lines.len() > 1 {
            // It may be broken anywhere, as base64 is, or at a blank.
            self.find_across(lines, "", &body, &mut found);
            self.find_across(lines, " ", &body, &mut found);
        }
        for (line, found) in lines.iter_mut().zip(found).filter(|(_, found)| !found.is_empty()) {
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
        let mut joined = Zeroizing::new(String::with_capacity(lines.iter().map(|line| line.len() + 1).sum()));
        // Where each line's body is, in the line and among all.
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

    /// Where secrets are in a text: in order, and apart.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        if !self.0.is_empty() {
            self.find_in(&View::new(text), ESCAPED, &mut found);
        }
        merged(found)
    }

    /// Looks into the text as it is, and then without its escapes, so many times.
    fn find_in(&self, view: &View, times: usize, found: &mut Vec<Range<usize>>) {
        for form in self.0.iter().filter(|form| form.len() <= view.bytes.len()) {
            let places = memmem::find_iter(&view.bytes, form.as_bytes());
            found.extend(places.map(|at| view.place(at..at + form.len())));
        }
        for mark in [b'%', b'\\'] {
            if times > 0 && memchr::memchr(mark, &view.bytes).is_some() {
                self.find_in(&view.unescaped(mark), times - 1, found);
            }
        }
    }
}

/// A text as it is shown, or what it becomes without its escapes: each byte with the place in the
/// text that it comes from.
struct View {
    bytes: Zeroizing<Vec<u8>>,
    places: Vec<Range<usize>>,
}

impl View {
    fn new(text: &str) -> Self {
        let mut view = View::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            view.push(c, at..at + c.len_utf8());
        }
        view
    }

    /// With room for all of it, a growing buffer leaves no copy of a secret behind.
    fn with_capacity(bytes: usize) -> Self {
        // U+FFFD has three bytes, and may stand for one.
        View { bytes: Zeroizing::new(Vec::with_capacity(3 * bytes)), places: Vec::with_capacity(3 * bytes) }
    }

    fn push(&mut self, c: char, place: Range<usize>) {
        let mut utf8 = [0; 4];
        for byte in shown(c).encode_utf8(&mut utf8).bytes() {
            self.bytes.push(byte);
            self.places.push(place.clone());
        }
    }

    fn place(&self, range: Range<usize>) -> Range<usize> {
        self.places[range.start].start..self.places[range.end - 1].end
    }

    /// What is left when the escapes with this mark are undone once: those of URLs (`%41`), or of JSON and `Debug`.
    fn unescaped(&self, mark: u8) -> View {
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.bytes.len()));
        let mut places = Vec::with_capacity(self.bytes.len());
        let mut at = 0;
        while at < self.bytes.len() {
            let text = &self.bytes[at..];
            let (own, length) = if text[0] == mark { unescape(text) } else { (Own::Byte(text[0]), 1) };
            let place = self.place(at..at + length);
            for byte in own.bytes() {
                bytes.push(byte);
                places.push(place.clone());
            }
            at += length;
        }
        let mut view = View::with_capacity(bytes.len());
        let mut at = 0;
        for chunk in bytes.utf8_chunks() {
            let valid = chunk.valid().chars().map(|c| (c, c.len_utf8()));
            let invalid = (!chunk.invalid().is_empty()).then_some(('\u{FFFD}', chunk.invalid().len()));
            for (c, length) in valid.chain(invalid) {
                view.push(c, places[at].start..places[at + length - 1].end);
                at += length;
            }
        }
        view
    }
}

/// What an escape stands for: a byte of UTF-8, or a character.
enum Own {
    Byte(u8),
    Char(char),
}

impl Own {
    fn bytes(&self) -> impl Iterator<Item = u8> {
        let mut utf8 = [0; 4];
        let length = match self {
            Own::Byte(byte) => {
                utf8[0] = *byte;
                1
            }
            Own::Char(c) => c.encode_utf8(&mut utf8).len(),
        };
        utf8.into_iter().take(length)
    }
}

/// What the text, which is not empty, begins with, and how many bytes of it that takes.
fn unescape(text: &[u8]) -> (Own, usize) {
    let number = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        digits.and_then(|digits| u32::from_str_radix(digits, 16).ok())
    };
    let byte = |digits: &[u8]| number(digits).and_then(|number| u8::try_from(number).ok()).map(Own::Byte);
    let char = |digits: &[u8]| number(digits).and_then(char::from_u32).map(Own::Char);
    let simple = |byte: u8| Some((Own::Byte(byte), 2));
    let escape = match text {
        [b'%', a, b, ..] => byte(&[*a, *b]).map(|own| (own, 3)),
        [b'\\', b'x', a, b, ..] => char(&[*a, *b]).map(|own| (own, 4)),
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
    };
    escape.unwrap_or((Own::Byte(text[0]), 1))
}

fn surrogates(text: &[u8]) -> Option<char> {
    let text = std::str::from_utf8(text.get(..12)?).ok()?;
    let unit = |escape: &str| u16::from_str_radix(escape.strip_prefix("\\u")?, 16).ok();
    char::decode_utf16([unit(text.get(..6)?)?, unit(text.get(6..)?)?]).next()?.ok()
}

/// A form of a secret, of so many bytes at most: with room for all of it, a growing buffer leaves no
/// half of the secret behind.
fn made(bytes: usize, make: impl FnOnce(&mut String)) -> Zeroizing<String> {
    let mut form = Zeroizing::new(String::with_capacity(bytes));
    make(&mut form);
    form
}

/// As `Debug` writes it between its quotes.
fn escaped(text: &str) -> Zeroizing<String> {
    let quoted = made(10 * text.len() + 2, |form| write!(form, "{text:?}").unwrap_or_default());
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

/// The ranges are in order, and apart.
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
    use super::*;

    fn secrets(secret: &str) -> Secrets {
        let mut secrets = Secrets::default();
        secrets.add_with_base64(secret);
        secrets
    }

    #[test]
    fn a_secret_is_replaced_and_words_are_not() {
        let mut secrets = Secrets::default();
        secrets.add(Zeroizing::new("hunter2".into()));
        secrets.add(Zeroizing::new("a".into()));
        assert_eq!(secrets.redacted("bad password hunter2, hunter2").unwrap(), "bad password ***, ***");
        assert_eq!(secrets.redacted("a bad password"), None);
        // A part of another one leaves nothing of that.
        secrets.add(Zeroizing::new("ter2".into()));
        assert_eq!(secrets.redacted("hunter2 or ter2").unwrap(), "*** or ***");
    }

    #[test]
    fn base64_in_the_midst_of_other_bytes() {
        // All characters go that are of the secret alone; so many are left before and after them.
        let secrets = secrets("se\"cret\\");
        assert_eq!(secrets.redacted(&STANDARD.encode("se\"cret\\")).as_deref(), Some("***"));
        for (before, after, left) in [("", ".", (0, 2)), ("a", "", (2, 0)), ("ab", "c", (3, 3)), ("abcd", "ef", (6, 4))]
        {
            let echo = STANDARD.encode(format!("{before}se\"cret\\{after}"));
            let shown = format!("{}***{}", &echo[..left.0], &echo[echo.len() - left.1..]);
            assert_eq!(secrets.redacted(&echo), Some(shown), "{echo}");
        }
    }

    #[test]
    fn each_form_is_found() {
        for secret in ["se\"cret\\", "pass\u{7}word", "p\u{9b}\u{202e}ss\tw ö%41rd", "🔑key", "x\ny\rz\0"] {
            let percent: String = secret.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let json: String = secret.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
            let braces: String = secret.chars().map(|c| c.escape_unicode().to_string()).collect();
            let twice = format!("{:?}", format!("{secret:?}"));
            let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
            let form = percent.replace("%20", "+");
            for echo in [
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
                STANDARD.encode(secret).replace('=', "%3D").replace('+', "%2B"),
            ] {
                let text = format!("the password {echo} is wrong");
                let redacted = secrets(secret).redacted(&text).unwrap_or_else(|| panic!("{secret:?}: {echo:?}"));
                assert!(redacted.contains("***"), "{redacted}");
                assert!(redacted.starts_with("the password ") && redacted.ends_with(" is wrong"), "{redacted}");
            }
        }
    }

    #[test]
    fn a_secret_that_is_broken_into_lines_is_found() {
        let secrets = secrets("correct horse battery");
        let encoded = STANDARD.encode("correct horse battery");
        for (lines, shown) in [
            (vec!["no: corre".to_owned(), "ct horse bat".into(), "tery!".into()], vec!["no: ***", "***", "***!"]),
            (vec!["correct".into(), "horse  ".into(), " battery".into()], vec!["***", "***  ", " ***"]),
            (vec![encoded[..10].into(), encoded[10..].into()], vec!["***", "***"]),
            (vec!["5.7.8 correct ho".into(), "5.7.8 rse battery".into()], vec!["5.7.8 ***", "5.7.8 ***"]),
            (vec!["correct horse battery".into(), "x".into()], vec!["***", "x"]),
            (vec!["correct".into(), "horses".into()], vec!["correct", "horses"]),
        ] {
            let mut redacted = lines.clone();
            secrets.redact_lines(&mut redacted, |line| line.strip_prefix("5.7.8 ").unwrap_or(line));
            assert_eq!(redacted, shown, "{lines:?}");
        }
    }

    #[test]
    fn what_is_cut_off_may_be_the_beginning_of_a_secret() {
        let secrets = secrets("correct horse");
        assert_eq!(secrets.redacted_cut("you said correct ho"), "you said ***");
        assert_eq!(secrets.redacted_cut("you said correct horse, corr"), "you said ***, ***");
        assert_eq!(secrets.redacted_cut("you said cor"), "you said cor");
        assert_eq!(secrets.redacted_cut("correct is"), "correct is");
    }
}
