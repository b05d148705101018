//! Encodes text for parameters of MAIL or RCPT.

use std::fmt;

use crate::Address;

/// `xtext` (RFC 3461, 4): `+` and two hexadecimal digits for each byte that is not printable, and
/// for `+` and `=`.
pub(super) struct Xtext<'a>(pub(super) &'a str);

impl fmt::Display for Xtext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        self.0.bytes().try_for_each(|byte| match byte {
            b'+' | b'=' => write!(f, "+{byte:02X}"),
            b'!'..=b'~' => f.write_char(byte.into()),
            _ => write!(f, "+{byte:02X}"),
        })
    }
}

/// An address with its type, as in ORCPT: `rfc822` in xtext, or, if it is non-ASCII, `utf-8` with
/// `\x{…}` for each character that is not printable ASCII, and for `\`, `+` and `=` (RFC 6533, 3:
/// utf-8-addr-xtext). The result is ASCII, which every server accepts.
pub(super) struct TypedAddress<'a>(pub(super) &'a Address);

impl fmt::Display for TypedAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        if self.0.is_ascii() {
            return write!(f, "rfc822;{}", Xtext(self.0.as_str()));
        }
        f.write_str("utf-8;")?;
        self.0.as_str().chars().try_for_each(|c| match c {
            '\\' | '+' | '=' => write!(f, "\\x{{{:X}}}", u32::from(c)),
            '!'..='~' => f.write_char(c),
            _ => write!(f, "\\x{{{:X}}}", u32::from(c)),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn xtext_matches_the_examples_of_the_rfcs() {
        assert_eq!(Xtext("QQ314159").to_string(), "QQ314159");
        assert_eq!(
            Xtext("a+b=c d\u{e9}\r\n").to_string(),
            "a+2Bb+3Dc+20d+C3+A9+0D+0A"
        );
        let typed = |address| TypedAddress(&Address::new(address).unwrap()).to_string();
        assert_eq!(typed("e=mc2@example.com"), "rfc822;e+3Dmc2@example.com");
        assert_eq!(
            typed("j\u{f6}rg+x@ex\u{e4}mple.org"),
            r"utf-8;j\x{F6}rg\x{2B}x@ex\x{E4}mple.org"
        );
        assert_eq!(
            typed("\u{1f4e7}@example.org"),
            r"utf-8;\x{1F4E7}@example.org"
        );
    }

    proptest! {
        /// The text is one word of a command without an equals sign, and can be decoded.
        #[test]
        fn xtext_is_a_single_word(text in any::<String>()) {
            let encoded = Xtext(&text).to_string();
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'='));
            let mut pieces = encoded.split('+');
            let mut decoded = pieces.next().unwrap_or_default().as_bytes().to_vec();
            for piece in pieces {
                decoded.push(u8::from_str_radix(&piece[..2], 16).unwrap());
                decoded.extend_from_slice(&piece.as_bytes()[2..]);
            }
            prop_assert_eq!(decoded, text.into_bytes());
        }
    }
}
