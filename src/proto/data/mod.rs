//! The bytes of a message, and the two ways to frame them: with DATA (RFC 5321) and in chunks (RFC
//! 3030).

mod chunking;
mod dot_stuffing;

use bytes::Bytes;
use memchr::memchr;

pub(super) use chunking::OutgoingMessage;
pub use dot_stuffing::Stuffer;

/// Which bytes a message contains, if that is known before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// ASCII only.
    SevenBit,
    /// Bytes beyond ASCII: the server must offer 8BITMIME (RFC 6152).
    EightBit,
    /// Any bytes, in lines or not, which must arrive unchanged: the server must offer BINARYMIME
    /// and CHUNKING (RFC 3030).
    Binary,
    /// A stream whose content is not known.
    Unknown,
}

/// A piece of a message.
#[derive(Clone, Debug)]
pub struct Chunk {
    bytes: Bytes,
    /// Whole lines of base64, which are not scanned.
    is_base64_lines: bool,
}

impl Chunk {
    /// Lines of base64 from an encoder: each ends with CRLF, and the previous piece ended with a
    /// line end. They are not scanned for dots, line ends and 8-bit bytes.
    #[cfg(feature = "client")]
    pub(crate) fn base64_lines(bytes: Bytes) -> Self {
        debug_assert!(bytes.is_empty() || bytes.ends_with(b"\r\n"));
        Chunk {
            bytes,
            is_base64_lines: true,
        }
    }

    /// The bytes of this piece, before dot-stuffing.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(in crate::proto) fn is_seven_bit(&self) -> bool {
        self.is_base64_lines || self.bytes.is_ascii()
    }

    pub(in crate::proto) fn has_nul(&self) -> bool {
        !self.is_base64_lines && memchr(0, &self.bytes).is_some()
    }
}

impl<B: Into<Bytes>> From<B> for Chunk {
    fn from(bytes: B) -> Self {
        Chunk {
            bytes: bytes.into(),
            is_base64_lines: false,
        }
    }
}
