//! Encoded words: text beyond ASCII in headers (RFC 2047).

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The character sets of encoded words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Charset {
    Utf8,
    /// Also for ISO-8859-1 and US-ASCII, as browsers and mail programs decode them.
    Windows1252,
}

impl Charset {
    fn of(name: &str) -> Option<Self> {
        // A language may follow (RFC 2231, 5).
        let name = name.split('*').next().unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" => Some(Charset::Utf8),
            "us-ascii" | "ascii" | "iso-8859-1" | "latin1" | "windows-1252" | "cp1252" => {
                Some(Charset::Windows1252)
            }
            _ => None,
        }
    }

    /// Decodes bytes; those that are not of the character set become U+FFFD.
    pub(super) fn decode(self, bytes: &[u8]) -> String {
        match self {
            Charset::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
            Charset::Windows1252 => {
                let decode = |byte: &u8| match byte {
                    0x80..=0x9F => WINDOWS_1252[usize::from(byte - 0x80)],
                    _ => char::from(*byte),
                };
                bytes.iter().map(decode).collect()
            }
        }
    }
}

/// The characters of windows-1252 from 0x80 to 0x9F.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{FFFD}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{FFFD}', 'Ž',
    '\u{FFFD}', '\u{FFFD}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{FFFD}',
    'ž', 'Ÿ',
];

/// The decoder of Base64 in encoded words: some programs leave out the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The character set and bytes of an encoded word: `=?utf-8?Q?J=C3=B6rg?=` (RFC 2047, 2).
pub(super) fn encoded_word(word: &str) -> Option<(Charset, Vec<u8>)> {
    let mut parts = word.strip_prefix("=?")?.strip_suffix("?=")?.split('?');
    let (charset, encoding, text) = (parts.next()?, parts.next()?, parts.next()?);
    let charset = Charset::of(charset).filter(|_| parts.next().is_none())?;
    let bytes = match encoding {
        "B" | "b" => BASE64.decode(text).ok()?,
        "Q" | "q" => quoted_printable(text)?,
        _ => return None,
    };
    Some((charset, bytes))
}

/// The encoding Q (RFC 2047, 4.2).
fn quoted_printable(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'_' => b' ',
            b'=' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(16 * digit()? + digit()?).ok()?
            }
            byte => byte,
        });
    }
    Some(bytes)
}
