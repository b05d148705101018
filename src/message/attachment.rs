//! [`Attachment`]: a file, bytes or a stream to send with a message.

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::io::AsyncRead;

use super::AttachmentInfo;
use super::headers::is_composite;
use super::input::{KnownFile, PartSource, Stream, TextInfo, on_blocking_thread};
use super::scan::MessageScanner;
use crate::text::quoted;
use crate::{Error, Phase, Result};

/// A file, bytes or a stream to send with a message, read only while it is sent.
///
/// At most a few blocks of it are in memory at a time, whatever its size. It is sent as base64, so
/// it arrives byte for byte, even if it is text. An attachment of a type `message/…` or
/// `multipart/…` is not encoded, since the headers in it must stay visible (RFC 2045, 6.4; RFC
/// 2046, 5.2.1): it is sent as text, with CRLF line ends. To have it arrive byte for byte, send it
/// as `application/octet-stream`, which is also the type guessed for a file `….eml`.
///
/// ```
/// use envoi::Attachment;
///
/// let report = Attachment::file("reports/2024.pdf");
/// let notes = Attachment::bytes("notes.txt", "text/plain; charset=utf-8", "Grüße");
/// let log = Attachment::reader("log.txt", "text/plain", tokio::io::empty()).size(0);
/// // Shown within an HTML body by <img src="cid:logo">.
/// let logo = Attachment::file("logo.png").name("our logo.png").inline("logo");
/// ```
#[must_use = "a method returns the changed value"]
pub struct Attachment {
    label: Label,
    size: Option<u64>,
    data: Data,
}

/// The header fields of an attachment.
#[derive(Clone, Debug)]
pub(super) struct Label {
    pub(super) name: String,
    pub(super) content_type: String,
    pub(super) content_id: Option<String>,
}

/// An attachment that has been inspected.
pub(super) struct InspectedAttachment {
    pub(super) label: Label,
    pub(super) input: PartSource,
    /// The properties of contents that are not encoded.
    pub(super) text: Option<TextInfo>,
}

impl From<&InspectedAttachment> for AttachmentInfo {
    fn from(attachment: &InspectedAttachment) -> Self {
        let Label {
            name,
            content_type,
            content_id,
        } = attachment.label.clone();
        AttachmentInfo {
            name,
            content_type,
            content_id,
            size: attachment.input.size(),
        }
    }
}

/// The source of an attachment or of a raw message, before it is inspected.
pub(super) enum Data {
    Bytes(Bytes),
    File(PathBuf),
    Reader(Reader),
}

/// A reader given by the caller. It can be read once.
pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;

impl Attachment {
    /// Attaches a file. Its name is taken from the path, and its content type is guessed from the
    /// extension; an unknown one becomes `application/octet-stream`.
    ///
    /// The file is inspected when the message is prepared, and opened again when it is sent. If it
    /// has changed by then, or changes while it is read, sending fails and nothing is delivered.
    ///
    /// The blocking threads of the runtime read it, about 1 MB at a time. They do not wait for the
    /// server, so few serve many messages: `max_blocking_threads` of `tokio::runtime::Builder`
    /// limits how many of them there are.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Attachment::new(name, guess_content_type(&path), Data::File(path))
    }

    /// Attaches bytes in memory: a `Vec<u8>`, a `String`, a `&'static [u8]`, or [`Bytes`].
    pub fn bytes(
        name: impl Into<String>,
        content_type: impl Into<String>,
        bytes: impl Into<Bytes>,
    ) -> Self {
        Attachment::new(name, content_type, Data::Bytes(bytes.into()))
    }

    /// Attaches what a reader returns until EOF. It is read once, so the message cannot be sent a
    /// second time, and its size is not announced to the server unless [`size`](Self::size) states
    /// it.
    pub fn reader(
        name: impl Into<String>,
        content_type: impl Into<String>,
        reader: impl AsyncRead + Send + Unpin + 'static,
    ) -> Self {
        Attachment::new(name, content_type, Data::Reader(Box::new(reader)))
    }

    fn new(name: impl Into<String>, content_type: impl Into<String>, data: Data) -> Self {
        let label = Label {
            name: name.into(),
            content_type: content_type.into(),
            content_id: None,
        };
        Attachment {
            label,
            size: None,
            data,
        }
    }

    /// Sets the name that the recipient sees.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.label.name = name.into();
        self
    }

    /// Sets the content type, with parameters if it has any.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.label.content_type = content_type.into();
        self
    }

    /// States the size in bytes. Only a [`reader`](Self::reader) needs it. If the reader returns
    /// more or fewer bytes, sending fails and nothing is delivered.
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Shows the attachment within the HTML body, which refers to it by `cid:` and this Content-ID:
    /// both go into a `multipart/related` (RFC 2387). In a message without an HTML body it is a
    /// normal attachment.
    pub fn inline(mut self, content_id: impl Into<String>) -> Self {
        self.label.content_id = Some(content_id.into());
        self
    }

    /// The name that the recipient sees.
    pub fn get_name(&self) -> &str {
        &self.label.name
    }

    /// The content type.
    pub fn get_content_type(&self) -> &str {
        &self.label.content_type
    }

    /// The size in bytes, if it was stated.
    pub fn get_size(&self) -> Option<u64> {
        self.size
    }

    /// The Content-ID by which the HTML body refers to the attachment.
    pub fn get_inline(&self) -> Option<&str> {
        self.label.content_id.as_deref()
    }

    /// Returns a copy; `None` for an attachment from a [`reader`](Self::reader), which can be read
    /// only once.
    pub fn try_clone(&self) -> Option<Self> {
        Some(Attachment {
            label: self.label.clone(),
            size: self.size,
            data: self.data.try_clone()?,
        })
    }

    /// Inspects the source.
    pub(super) async fn inspect(self) -> Result<InspectedAttachment> {
        let Attachment { label, size, data } = self;
        let what = format!("the attachment {}", quoted(&label.name));
        let is_text = is_composite(&label.content_type);
        let input = match data {
            Data::Bytes(bytes) => PartSource::Bytes(bytes),
            Data::File(path) => on_blocking_thread(move || PartSource::from_path(path)).await?,
            Data::Reader(reader) => {
                // 8bit is declared in advance. The server need not offer 8BITMIME if there turn out
                // to be no such bytes.
                let text = is_text.then_some(TextInfo {
                    lines: None,
                    may_be_eight_bit: true,
                });
                return Ok(InspectedAttachment {
                    label,
                    input: PartSource::Stream(Stream::new(reader, size, what)),
                    text,
                });
            }
        };
        if let Some(stated) = size
            && input.size() != size
        {
            return Err(Error::request(format!(
                "{what} is not of the {stated} bytes that were stated"
            )));
        }
        let text = match (is_text, &input) {
            (true, PartSource::Bytes(bytes)) => Some(read_text(&what, bytes)?),
            (true, PartSource::File(file)) => {
                let file = file.clone();
                Some(on_blocking_thread(move || read_text_file(&what, &file)).await?)
            }
            _ => None,
        };
        Ok(InspectedAttachment { label, input, text })
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment")
            .field("label", &self.label)
            .field("size", &self.size)
            .field("data", &self.data)
            .finish()
    }
}

impl Data {
    /// Returns a copy; `None` for a reader.
    pub(super) fn try_clone(&self) -> Option<Self> {
        match self {
            Data::Bytes(bytes) => Some(Data::Bytes(bytes.clone())),
            Data::File(path) => Some(Data::File(path.clone())),
            Data::Reader(_) => None,
        }
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Data::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Data::File(path) => write!(f, "{path:?}"),
            Data::Reader(_) => f.write_str("a reader"),
        }
    }
}

/// Scans contents that are not encoded.
///
/// # Errors
///
/// The contents have a NUL and cannot be sent as text.
pub(super) fn read_text(what: &str, bytes: &[u8]) -> Result<TextInfo> {
    let mut scanner = MessageScanner::new();
    scanner.read(bytes);
    end_of_text(what, &scanner)
}

fn read_text_file(what: &str, file: &KnownFile) -> Result<TextInfo> {
    let mut scanner = MessageScanner::new();
    file.scan(&mut scanner, Phase::Setup)?;
    end_of_text(what, &scanner)
}

fn end_of_text(what: &str, scanner: &MessageScanner) -> Result<TextInfo> {
    let (text, nul) = scanner.text();
    match nul {
        None => Ok(text),
        Some(line) => Err(Error::request(format!(
            "line {line} of {what} has a NUL, and content of its type is not encoded"
        ))
        .with_hint("Attach it as application/octet-stream (RFC 2046, 5.2.1).")),
    }
}

/// Guesses the content type of common files. An `.eml` is not among them: `message/rfc822` must not
/// be base64 (RFC 2046, 5.2.1), and only base64 arrives unchanged.
fn guess_content_type(path: &Path) -> &'static str {
    let extension = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_ascii_lowercase();
    match extension.as_str() {
        "csv" => "text/csv",
        "doc" => "application/msword",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "gif" => "image/gif",
        "gz" => "application/gzip",
        "htm" | "html" => "text/html",
        "ics" => "text/calendar",
        "jpeg" | "jpg" => "image/jpeg",
        "json" => "application/json",
        "log" | "md" | "txt" => "text/plain",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "ppt" => "application/vnd.ms-powerpoint",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "svg" => "image/svg+xml",
        "webp" => "image/webp",
        "xls" => "application/vnd.ms-excel",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "xml" => "application/xml",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_follows_the_file_name() {
        for (path, name, content_type) in [
            ("a/report.PDF", "report.PDF", "application/pdf"),
            ("/photo.jpeg", "photo.jpeg", "image/jpeg"),
            ("archive.tar.gz", "archive.tar.gz", "application/gzip"),
            ("README", "README", "application/octet-stream"),
            ("forwarded.eml", "forwarded.eml", "application/octet-stream"),
        ] {
            let label = Attachment::file(path).label;
            assert_eq!(
                (label.name.as_str(), label.content_type.as_str()),
                (name, content_type)
            );
        }
    }

    #[test]
    fn getters_return_what_was_set() {
        let attachment = Attachment::bytes("a.txt", "text/plain", "abc");
        assert_eq!(attachment.get_name(), "a.txt");
        assert_eq!(attachment.get_content_type(), "text/plain");
        assert_eq!(
            (attachment.get_size(), attachment.get_inline()),
            (None, None)
        );
        let attachment = attachment
            .name("b.png")
            .content_type("image/png")
            .size(3)
            .inline("logo");
        assert_eq!(attachment.get_name(), "b.png");
        assert_eq!(attachment.get_content_type(), "image/png");
        assert_eq!(attachment.get_size(), Some(3));
        assert_eq!(attachment.get_inline(), Some("logo"));
    }
}
