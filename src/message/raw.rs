//! Raw messages: their header section is read, and their body is checked before it is sent or, of a
//! stream or a large file, while it is sent.

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;

use super::attachment::{Data, Reader};
use super::input::{BLOCK, Form, KnownFile, PartSource, Stream, on_blocking_thread};
use super::layout::Segment;
use super::scan::{LineCounter, MessageInfo, MessageScanner, bare_line_end};
use super::section::{EndFinder, Section};
use crate::proto::Content;
use crate::{Phase, Result};

/// How line ends other than CRLF in the body of a raw message are treated.
///
/// After DATA a bare CR or LF is never sent: a server could take it for the end of the message, and
/// what follows for commands (RFC 5321, 2.3.8 and 4.1.1.4).
///
/// The header section is always sent with CRLF. A bare CR in it is refused, since not all readers
/// take it for a line end. A bare LF is refused unless line ends are normalized: all readers must
/// see the same header fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LineEnds {
    /// A bare CR or LF becomes CRLF. Text files of any operating system can be sent like this.
    #[default]
    Normalize,
    /// A bare CR or LF is an error: nothing may be changed.
    Refuse,
    /// A bare CR or LF stays as it is, and so does a NUL. A message that contains one is sent in
    /// chunks, and only to a server that offers BINARYMIME and CHUNKING (RFC 3030); with any other
    /// server, sending fails before anything is sent. A stream is always treated so, since its
    /// content is not known.
    Keep,
}

/// The maximum size of a file in bytes that is read as a whole before it is sent. Most servers take
/// no larger messages. To read a file of this size once more costs some milliseconds; for larger
/// ones it would be a considerable part of the time in which they are sent.
const MAX_CHECKED_BEFORE: u64 = 16 * 1024 * 1024;

/// A raw message whose header section has been read.
struct RawMessage {
    section: Section,
    /// The segments after the header section.
    rest: Vec<Segment>,
    /// `None` for a stream, which has been read up to the body only. Of a large file, only the size
    /// is known.
    info: Option<MessageInfo>,
}

/// Checks a raw message.
pub(super) async fn prepare(
    data: Data,
    line_ends: LineEnds,
) -> Result<(Vec<Segment>, MessageInfo, Option<LineCheck>)> {
    let RawMessage {
        section,
        mut rest,
        info,
    } = match data {
        Data::Bytes(bytes) if bytes.len() <= BLOCK => read_bytes(bytes, line_ends)?,
        Data::Bytes(bytes) => on_blocking_thread(move || read_bytes(bytes, line_ends)).await?,
        Data::File(path) => {
            on_blocking_thread(move || match KnownFile::inspect(path)? {
                (_, Some(content)) => read_bytes(content, line_ends),
                (file, None) => read_file(file, line_ends),
            })
            .await?
        }
        Data::Reader(reader) => read_stream(reader, line_ends).await?,
    };
    let check = (info.is_none() && line_ends == LineEnds::Refuse)
        .then(|| LineCheck::new(section.removed_lines));
    let mut info = info.unwrap_or_else(|| MessageInfo::unknown(None));
    info.utf8_headers = section.is_utf8;
    let mut segments = vec![Segment::Text(section.bytes.into())];
    segments.append(&mut rest);
    match (line_ends, info.bare) {
        (LineEnds::Keep, bare)
            if bare.is_some() || info.nul.is_some() || info.content == Content::Unknown =>
        {
            Ok((segments, info.into_binary(), check))
        }
        _ => {
            info.check_text(line_ends == LineEnds::Refuse, Phase::Setup)?;
            Ok((segments, info, check))
        }
    }
}

/// A scanner that has read the header section.
fn scanner_after(section: &Section) -> MessageScanner {
    let mut scanner = MessageScanner::new();
    scanner.skip_lines(section.removed_lines);
    scanner.read(&section.bytes);
    scanner
}

fn read_bytes(bytes: Bytes, line_ends: LineEnds) -> Result<RawMessage> {
    // Limits the size of the header section.
    EndFinder::default().has_end(&bytes)?;
    let section = Section::read(&bytes, line_ends)?;
    let rest = bytes.slice(section.consumed..);
    let mut scanner = scanner_after(&section);
    scanner.read(&rest);
    Ok(RawMessage {
        section,
        rest: vec![Segment::Text(rest)],
        info: Some(scanner.end()),
    })
}

/// Reads the header section of a file and, unless it is large, the rest of it, too. It is read
/// again when it is sent, and must not change until then.
fn read_file(file: KnownFile, line_ends: LineEnds) -> Result<RawMessage> {
    let mut open = file.open(Phase::Setup)?;
    let mut block = vec![0; BLOCK];
    let (mut front, mut finder) = (Vec::new(), EndFinder::default());
    loop {
        let length = open.read_block(&mut block)?;
        front.extend_from_slice(&block[..length]);
        if finder.has_end(&front)? || length == 0 {
            break;
        }
    }
    let section = Section::read(&front, line_ends)?;
    let is_checked_later =
        file.size > MAX_CHECKED_BEFORE && line_ends != LineEnds::Keep && !has_bare_line_end(&front);
    let rest = file.without_front(section.consumed as u64);
    let (form, info) = if is_checked_later {
        let missing = match open.last_byte()? {
            b'\n' => 0,
            b'\r' => 1,
            _ => 2,
        };
        let size = section.bytes.len() as u64 + rest.len() + missing;
        let refuses_bare_line_ends = line_ends == LineEnds::Refuse;
        let form = Form::Unchecked {
            refuses_bare_line_ends,
        };
        (form, MessageInfo::unknown(Some(size)))
    } else {
        let mut scanner = scanner_after(&section);
        rest.scan(&mut scanner, Phase::Setup)?;
        (Form::AsIs, scanner.end())
    };
    Ok(RawMessage {
        section,
        rest: vec![Segment::Source(PartSource::File(rest), form)],
        info: Some(info),
    })
}

fn has_bare_line_end(text: &[u8]) -> bool {
    let mut scanner = MessageScanner::new();
    scanner.read(text);
    scanner.has_bare_line_end()
}

/// Reads the header section of a stream, and what arrives together with it.
async fn read_stream(mut reader: Reader, line_ends: LineEnds) -> Result<RawMessage> {
    const WHAT: &str = "the message's stream";
    let (mut front, mut finder) = (BytesMut::new(), EndFinder::default());
    while !finder.has_end(&front)? {
        front.reserve(BLOCK);
        let read = reader.read_buf(&mut front).await;
        if read.map_err(|error| super::input::stream_read_error(WHAT, Phase::Setup, error))? == 0 {
            break;
        }
    }
    let section = Section::read(&front, line_ends)?;
    let rest = front.freeze().split_off(section.consumed);
    let stream = Segment::Source(
        PartSource::Stream(Stream::new(reader, None, WHAT)),
        Form::AsIs,
    );
    Ok(RawMessage {
        section,
        rest: vec![Segment::Text(rest), stream],
        info: None,
    })
}

/// Checks the line ends of a stream while it is sent, for [`LineEnds::Refuse`].
pub(super) struct LineCheck {
    lines: LineCounter,
    /// The number of bytes at the front that are not those of the stream.
    skipped: usize,
}

impl LineCheck {
    /// For a message whose first `removed_lines` lines are not sent.
    fn new(removed_lines: u64) -> Self {
        let mut lines = LineCounter::new();
        lines.skip(removed_lines);
        LineCheck { lines, skipped: 0 }
    }

    /// Leaves out bytes that were put before the message.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.skipped += bytes;
    }

    /// Checks the next piece of the message.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<()> {
        let skipped = self.skipped.min(piece.len());
        self.skipped -= skipped;
        self.lines.feed(&piece[skipped..]);
        self.result()
    }

    /// Checks the end of the message.
    pub(super) fn end(&mut self) -> Result<()> {
        self.lines.end();
        self.result()
    }

    fn result(&self) -> Result<()> {
        match self.lines.bare() {
            Some(bare) => Err(bare_line_end(Phase::Body, "the message", bare)),
            None => Ok(()),
        }
    }
}
