//! Makes text from untrusted sources safe to show.
//!
//! Replies, names in certificates, paths, hosts and URLs are shown on terminals and in logs. A
//! single list defines which characters could do harm there, and everything that is shown uses it.

use std::borrow::Cow;

/// Whether a character affects more than its own position: the controls C0, DEL and C1, which a
/// terminal interprets; line and paragraph separators; and characters that change the direction of
/// the text around them (CVE-2021-42574) or are invisible.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
            | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}'
            | '\u{FFF9}'..='\u{FFFB}'
            | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

/// Replaces each [unprintable](is_unprintable) character by U+FFFD, and a tab by a blank.
pub(crate) fn printable<'a>(text: impl Into<Cow<'a, str>>) -> String {
    to_printable(text.into()).into_owned()
}

/// [`printable`] without a copy of a text that has no such character.
pub(crate) fn to_printable(text: Cow<'_, str>) -> Cow<'_, str> {
    // Nearly all text is of this kind. Without a branch for each byte, it is scanned in blocks.
    let is_plain = text
        .bytes()
        .fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'));
    if is_plain || !text.contains(|c| shown(c) != c) {
        return text;
    }
    // Allocated in full: a growing buffer would leave copies, and the text may be a secret.
    let mut printable = String::with_capacity(text.chars().map(|c| shown(c).len_utf8()).sum());
    printable.extend(text.chars().map(shown));
    printable.into()
}

/// [`printable`] for bytes that should be UTF-8.
pub(crate) fn printable_bytes(bytes: &[u8]) -> String {
    printable(String::from_utf8_lossy(bytes))
}

/// The replacement for a character.
pub(crate) fn shown(c: char) -> char {
    match c {
        '\t' => ' ',
        c if is_unprintable(c) => '\u{FFFD}',
        c => c,
    }
}

/// Quotes a text for messages: [unprintable](is_unprintable) characters are escaped (`\u{200b}`),
/// and a long text is truncated.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 100;
    let start = beginning(text, SHOWN);
    let mut quoted = String::new();
    // `Debug` does not escape those that count as letters or marks.
    for c in format!("{start:?}").chars() {
        if is_unprintable(c) {
            quoted.extend(c.escape_unicode())
        } else {
            quoted.push(c)
        }
    }
    if start.len() < text.len() {
        quoted.push('…');
    }
    quoted
}

/// Returns the first `chars` characters of a text.
pub(crate) fn beginning(text: &str, chars: usize) -> &str {
    if text.len() <= chars {
        return text;
    }
    text.char_indices()
        .nth(chars)
        .map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_and_invisible_characters_are_replaced() {
        for c in [
            '\0',
            '\u{7}',
            '\u{8}',
            '\n',
            '\r',
            '\u{1B}',
            '\u{7F}',
            '\u{80}',
            '\u{85}',
            '\u{9B}',
            '\u{9F}',
            '\u{AD}',
            '\u{61C}',
            '\u{200B}',
            '\u{200C}',
            '\u{200D}',
            '\u{200E}',
            '\u{200F}',
            '\u{2028}',
            '\u{2029}',
            '\u{202A}',
            '\u{202E}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{180B}',
            '\u{180F}',
            '\u{FE00}',
            '\u{FE0F}',
            '\u{E0100}',
            '\u{E01EF}',
            '\u{FEFF}',
            '\u{FFF9}',
            '\u{E0041}',
        ] {
            assert_eq!(printable(format!("a{c}b")), "a\u{FFFD}b", "{c:?}");
            assert!(!quoted(&format!("a{c}b")).contains(is_unprintable), "{c:?}");
        }
        assert_eq!(printable("a\tb"), "a b");
        assert_eq!(
            quoted("\u{1B}\u{200B}\u{3164}"),
            r#""\u{1b}\u{200b}\u{3164}""#
        );
        assert_eq!(printable_bytes(b"caf\xE9"), "caf\u{FFFD}");
    }

    #[test]
    fn readable_text_is_kept() {
        for text in [
            "",
            "Grüße, 世界",
            "Ελλάδα",
            "عربى",
            "עברית",
            "नमस्ते",
            "e\u{301}",
            "✔ 🔑",
            "a\\b\"c",
        ] {
            assert_eq!(printable(text), text);
        }
        assert_eq!(quoted("Grüße"), "\"Grüße\"");
        assert_eq!(
            quoted(&"ö".repeat(101)),
            format!("\"{}\"…", "ö".repeat(100))
        );
    }

    proptest! {
        #[test]
        fn printable_text_has_no_unprintable_character(text in any::<String>()) {
            prop_assert!(!printable(text.as_str()).contains(is_unprintable));
            prop_assert!(!quoted(&text).contains(is_unprintable));
        }
    }
}
