//! The message as DATA carries it: CRLF line ends, and dots doubled (RFC 5321, 2.3.8 and 4.5.2).
//!
//! [`Stuffer`] turns any pieces of a message into what goes on the wire, and ends it. It knows
//! nothing of headers or MIME, and does not buffer: what needs no change passes through uncopied.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::{memchr2, memmem};

/// What bytes a message holds, as far as it is known before it goes (RFC 6152).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// ASCII alone.
    SevenBit,
    /// There are bytes beyond ASCII.
    EightBit,
    /// Nobody has looked: a stream that can be read only once.
    Unknown,
}

/// A piece of a message.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub(crate) bytes: Bytes,
    /// Whole lines that end with CRLF, none of which starts with a dot or holds an 8-bit byte: they need no look.
    pub(crate) is_clean: bool,
}

impl Chunk {
    /// Lines of base64, as an encoder made them: each ends with CRLF, and no scan is spent on them.
    /// The piece before must have ended a line, too.
    #[cfg(feature = "client")]
    pub(crate) fn base64_lines(bytes: Bytes) -> Self {
        debug_assert!(bytes.is_empty() || bytes.ends_with(b"\r\n"));
        Chunk { bytes, is_clean: true }
    }

    /// The bytes of this piece, before dot-stuffing.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl<B: Into<Bytes>> From<B> for Chunk {
    fn from(bytes: B) -> Self {
        Chunk { bytes: bytes.into(), is_clean: false }
    }
}
