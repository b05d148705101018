//! Decodes text files for the bodies of a message.

use super::section::excerpt;
use crate::{Error, ErrorKind, Phase, Result};

/// Decodes the bytes of a text file as UTF-8, and removes a byte order mark. The result suits
/// [`text_body`](mail_builder::MessageBuilder::text_body) and
/// [`html_body`](mail_builder::MessageBuilder::html_body).
///
/// ```
/// use envoi::message::decode_text;
///
/// assert_eq!(decode_text(b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe".to_vec())?, "Grüße");
/// let error = decode_text(b"Hello,\nGr\xfc\xdfe".to_vec()).unwrap_err();
/// assert!(error.message().contains(r#"line 2 is not UTF-8: "Gr\xfc\xdfe""#));
/// # Ok::<(), envoi::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::Input`](crate::ErrorKind::Input): the text is in another encoding, which is not
/// guessed. The error names the line and shows its bytes.
pub fn decode_text(bytes: impl Into<Vec<u8>>) -> Result<String> {
    let bytes = bytes.into();
    let refused = |message: String, from: &str| {
        let hint = format!("Convert it to UTF-8 before: iconv -f {from} -t UTF-8.");
        Error::new(ErrorKind::Input, Phase::Setup, message).with_hint(hint)
    };
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] = &*bytes {
        return Err(refused(
            format!(
                "it is UTF-16, not UTF-8: it begins with {}",
                excerpt(&bytes)
            ),
            "UTF-16",
        ));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text
            .strip_prefix('\u{feff}')
            .map(str::to_owned)
            .unwrap_or(text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let bytes = error.as_bytes();
            let line = bytes[..at]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            let number = bytes[..line].iter().filter(|byte| **byte == b'\n').count() + 1;
            let end = bytes[at..]
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(bytes.len(), |end| at + end);
            let excerpt = excerpt(&bytes[line.max(at.saturating_sub(30))..end]);
            Err(refused(
                format!("line {number} is not UTF-8: {excerpt}"),
                "LATIN1",
            ))
        }
    }
}
