//! [`Attachment`]: a file, bytes or a stream that goes along with a message.

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::io::AsyncRead;

use super::headers::is_composite;
use super::input::{BLOCK, Input, KnownFile, Stream, Text, on_blocking_thread};
use super::scan::MessageScanner;
use crate::text::quoted;
use crate::{Error, Phase, Result};

/// Something that goes along with a message and is read only when its turn comes.
///
/// However large it is, no more than a few blocks of it are in memory at a time. It goes as base64,
/// so it arrives byte for byte, text too. An attachment of a type `message/…` or `multipart/…` is
/// not encoded, as nothing may hide the headers in it (RFC 2045, 6.4; RFC 2046, 5.2.1): it goes as
/// text, with CRLF as line ends. To arrive byte for byte, it goes as `application/octet-stream`,
/// which is also what a file `….eml` is taken for.
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
pub struct Attachment {
    label: Label,
    size: Option<u64>,
    data: Data,
}

/// What its headers say.
#[derive(Debug)]
pub(super) struct Label {
    pub(super) name: String,
    pub(super) content_type: String,
    pub(super) content_id: Option<String>,
}

/// An attachment that was looked at.
pub(super) struct Looked {
    pub(super) label: Label,
    pub(super) input: Input,
    /// What is known of content that is not encoded.
    pub(super) text: Option<Text>,
}

/// Where the bytes of an attachment, or of a ready message, come from.
pub(super) enum Data {
    Bytes(Bytes),
    File(PathBuf),
    Reader(Reader),
}

/// A stream of the caller's: it can be read once.
pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;

impl Attachment {
    /// A file. It bears the name in its path, and a content type guessed from that name's
    /// extension; what is not known by it is `application/octet-stream`.
    ///
    /// The file is looked at when the message is prepared, and opened again when its turn comes.
    /// Where it has changed by then, or changes while it is read, sending fails and nothing is
    /// delivered.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Attachment::new(name, guess_content_type(&path), Data::File(path))
    }

    /// Bytes in memory: a `Vec<u8>`, a `String`, a `&'static [u8]`, or [`Bytes`].
    pub fn bytes(
        name: impl Into<String>,
        content_type: impl Into<String>,
        bytes: impl Into<Bytes>,
    ) -> Self {
        Attachment::new(name, content_type, Data::Bytes(bytes.into()))
    }

    /// Whatever a reader gives until it ends. It is read once, so the message cannot be sent a
    /// second time, and its size is not announced to the server, unless [`size`](Self::size) states
    /// what the reader will give.
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

    /// The name that the recipient sees, instead of the one that it has.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.label.name = name.into();
        self
    }

    /// The content type, with its parameters if there are any, instead of the one that it has.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.label.content_type = content_type.into();
        self
    }

    /// How many bytes it has. Only a [`reader`](Self::reader) needs to be told; one that gives more
    /// or fewer makes sending fail, and nothing is delivered.
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Shown within the HTML body where that refers to `cid:` and this Content-ID: in a
    /// `multipart/related` with that body (RFC 2387). In a message without an HTML body it goes
    /// along like any other attachment.
    pub fn inline(mut self, content_id: impl Into<String>) -> Self {
        self.label.content_id = Some(content_id.into());
        self
    }

    /// Looks at what is to be read.
    pub(super) async fn look(self) -> Result<Looked> {
        let Attachment { label, size, data } = self;
        let what = format!("the attachment {}", quoted(&label.name));
        let is_text = is_composite(&label.content_type);
        let input = match data {
            Data::Bytes(bytes) => Input::Bytes(bytes),
            Data::File(path) => on_blocking_thread(move || Input::of_file(path)).await?,
            Data::Reader(reader) => {
                // That it may have such bytes is said beforehand; the server need not take them if
                // there are none.
                let text = is_text.then_some(Text {
                    lines: None,
                    may_be_eight_bit: true,
                });
                return Ok(Looked {
                    label,
                    input: Input::Stream(Stream::new(reader, size, what)),
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
            (true, Input::Bytes(bytes)) => Some(read_text(&what, bytes)?),
            (true, Input::File(file)) => {
                let file = file.clone();
                Some(on_blocking_thread(move || read_text_file(&what, &file)).await?)
            }
            _ => None,
        };
        Ok(Looked { label, input, text })
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

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Data::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Data::File(path) => write!(f, "{path:?}"),
            Data::Reader(_) => f.write_str("a reader"),
        }
    }
}

/// Looks at content that is not encoded.
///
/// # Errors
///
/// It cannot go so.
pub(super) fn read_text(what: &str, bytes: &[u8]) -> Result<Text> {
    let mut survey = MessageScanner::new();
    survey.read(bytes);
    end_of_text(what, &survey)
}

fn read_text_file(what: &str, file: &KnownFile) -> Result<Text> {
    let (mut survey, mut block) = (MessageScanner::new(), vec![0; BLOCK]);
    let mut open = file.open(Phase::Setup)?;
    loop {
        match open.read_block(&mut block)? {
            0 => return end_of_text(what, &survey),
            length => survey.read(&block[..length]),
        }
    }
}

fn end_of_text(what: &str, survey: &MessageScanner) -> Result<Text> {
    let (text, nul) = survey.text();
    match nul {
        None => Ok(text),
        Some(line) => Err(Error::request(format!(
            "line {line} of {what} has a NUL, and content of its type is not encoded"
        ))
        .with_hint("Attach it as application/octet-stream (RFC 2046, 5.2.1).")),
    }
}

/// The content types of what is attached most. An `.eml` is not among them: `message/rfc822` must
/// not be base64 (RFC 2046, 5.2.1), and only so does it arrive as it is.
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
    fn a_file_is_known_by_its_name() {
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
}
