//! The bytes of a message, and the two ways to frame them: with DATA (RFC 5321) and in chunks (RFC
//! 3030).

mod chunking;
mod dot_stuffing;
mod line_ends;
mod text_scan;

use bytes::Bytes;

pub(super) use chunking::OutgoingMessage;
pub use dot_stuffing::Stuffer;
pub(crate) use line_ends::LineEndNormalizer;
use text_scan::TextScan;

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
    /// Not known before the message is sent, as of a stream.
    Unknown,
}

/// A piece of a message.
#[derive(Clone, Debug)]
pub struct Chunk {
    bytes: Bytes,
    /// `None` until the bytes have been scanned.
    scan: Option<TextScan>,
}

impl Chunk {
    /// Lines of base64 from an encoder, each of which ends with CRLF. They are not scanned for
    /// dots, line ends and 8-bit bytes.
    #[cfg(feature = "client")]
    pub(crate) fn base64_lines(bytes: Bytes) -> Self {
        debug_assert!(bytes.is_empty() || bytes.ends_with(b"\r\n"));
        Chunk {
            bytes,
            scan: Some(TextScan::of_base64_lines()),
        }
    }

    /// Scans the bytes on this thread, so that the machine need not do it on its own.
    #[cfg(feature = "client")]
    pub(crate) fn scanned(mut self) -> Self {
        self.scan();
        self
    }

    /// The bytes of this piece, before dot-stuffing.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the bytes of this piece, before dot-stuffing.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// What a scan of the bytes finds. They are scanned once.
    fn scan(&mut self) -> &TextScan {
        self.scan.get_or_insert_with(|| TextScan::new(&self.bytes))
    }

    pub(in crate::proto) fn is_seven_bit(&mut self) -> bool {
        self.scan().is_ascii
    }

    pub(crate) fn has_nul(&mut self) -> bool {
        self.scan().has_nul
    }

    /// Whether a CR or LF is bare. `after_cr` says whether the piece before ended with a CR.
    pub(crate) fn has_bare_line_end(&mut self, after_cr: bool) -> bool {
        let starts_with_lf = self.bytes.starts_with(b"\n");
        !self.bytes.is_empty() && (self.scan().has_bare_line_end || after_cr != starts_with_lf)
    }
}

impl<B: Into<Bytes>> From<B> for Chunk {
    fn from(bytes: B) -> Self {
        Chunk {
            bytes: bytes.into(),
            scan: None,
        }
    }
}
