//! Messages that are ready: their header section is read, and they are looked over before they go,
//! if they can be.

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;

use super::attachment::{Data, Reader};
use super::input::{BLOCK, Form, Input, KnownFile, Stream, on_blocking_thread};
use super::layout::Segment;
use super::scan::{Bare, Lines, MessageInfo, MessageScanner};
use super::section::{EndFinder, Section};
use crate::proto::Content;
use crate::{Error, ErrorKind, Phase, Result};

/// What becomes of line ends in the body of a ready message that are not CRLF.
///
/// After DATA a bare CR or LF never reaches the server, where it could be taken for the end of the
/// message and what follows for commands (RFC 5321, 2.3.8 and 4.1.1.4).
///
/// The header section goes with CRLF, whatever is chosen here. A CR alone in it is refused, since
/// not all readers take it for a line end, and so is an LF alone where line ends are not
/// normalized: what is a header field to one reader must be one to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LineEnds {
    /// A CR or LF alone becomes CRLF. So does the text of files from any system.
    #[default]
    Normalize,
    /// A CR or LF alone is an error: nothing may be changed.
    Refuse,
    /// A CR or LF alone stays as it is, and so does a NUL. A message that has one goes in chunks,
    /// and only to a server that offers BINARYMIME and CHUNKING (RFC 3030); for any other, sending
    /// fails before anything is sent. So it is with a stream, of which nobody knows.
    Keep,
}

/// A ready message whose header section was read.
struct Ready {
    section: Section,
    /// What comes after it.
    rest: Vec<Segment>,
    /// `None` of a stream, which was not read further than that.
    facts: Option<MessageInfo>,
}

/// Looks a ready message over.
pub(super) async fn prepare(
    data: Data,
    line_ends: LineEnds,
) -> Result<(Vec<Segment>, MessageInfo, Option<LineCheck>)> {
    let Ready {
        section,
        mut rest,
        facts,
    } = match data {
        Data::Bytes(bytes) if bytes.len() <= BLOCK => of_bytes(bytes, line_ends)?,
        Data::Bytes(bytes) => on_blocking_thread(move || of_bytes(bytes, line_ends)).await?,
        Data::File(path) => {
            on_blocking_thread(move || match KnownFile::look(path)? {
                (_, Some(content)) => of_bytes(content, line_ends),
                (file, None) => of_file(file, line_ends),
            })
            .await?
        }
        Data::Reader(reader) => of_stream(reader, line_ends).await?,
    };
    let check = (facts.is_none() && line_ends == LineEnds::Refuse)
        .then(|| LineCheck::new(section.removed_lines));
    let mut facts = facts.unwrap_or_else(MessageInfo::unknown);
    facts.utf8_headers = section.is_utf8;
    let mut pieces = vec![Segment::Text(section.bytes.into())];
    pieces.append(&mut rest);
    match (line_ends, facts.bare) {
        (LineEnds::Refuse, Some(bare)) => Err(refused(
            ErrorKind::Request,
            Phase::Setup,
            "the message",
            bare,
        )),
        (LineEnds::Keep, bare)
            if bare.is_some() || facts.nul.is_some() || facts.content == Content::Unknown =>
        {
            Ok((pieces, facts.of_binary(), check))
        }
        _ => {
            facts.check_text()?;
            Ok((pieces, facts, check))
        }
    }
}

/// A survey that knows of the header section.
fn survey_after(section: &Section) -> MessageScanner {
    let mut survey = MessageScanner::new();
    survey.skip_lines(section.removed_lines);
    survey.read(&section.bytes);
    survey
}

fn of_bytes(bytes: Bytes, line_ends: LineEnds) -> Result<Ready> {
    // Only so much of it is looked at.
    EndFinder::default().has_end(&bytes)?;
    let section = Section::read(&bytes, line_ends)?;
    let rest = bytes.slice(section.consumed..);
    let mut survey = survey_after(&section);
    survey.read(&rest);
    Ok(Ready {
        section,
        rest: vec![Segment::Text(rest)],
        facts: Some(survey.end()),
    })
}

/// A file is read twice: now, and as it goes. It must not change in between.
fn of_file(file: KnownFile, line_ends: LineEnds) -> Result<Ready> {
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
    let mut survey = survey_after(&section);
    survey.read(&front[section.consumed..]);
    drop(front);
    loop {
        match open.read_block(&mut block)? {
            0 => break,
            length => survey.read(&block[..length]),
        }
    }
    let rest = Segment::Input(
        Input::File(file.without_front(section.consumed as u64)),
        Form::AsIs,
    );
    Ok(Ready {
        section,
        rest: vec![rest],
        facts: Some(survey.end()),
    })
}

/// Of a stream, no more is read than the header section and what comes along with it.
async fn of_stream(mut reader: Reader, line_ends: LineEnds) -> Result<Ready> {
    const WHAT: &str = "the message's stream";
    let (mut front, mut finder) = (BytesMut::new(), EndFinder::default());
    while !finder.has_end(&front)? {
        front.reserve(BLOCK);
        let read = reader.read_buf(&mut front).await;
        if read.map_err(|error| super::input::unreadable_stream(WHAT, Phase::Setup, error))? == 0 {
            break;
        }
    }
    let section = Section::read(&front, line_ends)?;
    let rest = front.freeze().split_off(section.consumed);
    let stream = Segment::Input(Input::Stream(Stream::new(reader, None, WHAT)), Form::AsIs);
    Ok(Ready {
        section,
        rest: vec![Segment::Text(rest), stream],
        facts: None,
    })
}

pub(super) fn refused(kind: ErrorKind, phase: Phase, what: &str, bare: Bare) -> Error {
    let name = if bare.byte == b'\r' { "CR" } else { "LF" };
    Error::new(
        kind,
        phase,
        format!("line {} of {what} ends with {name} alone", bare.line),
    )
    .with_hint("Lines end with CRLF. Nothing was sent; it can be, if line ends may be normalized.")
}

/// Looks at the line ends of a stream that is refused where one is not CRLF.
pub(super) struct LineCheck {
    lines: Lines,
}

impl LineCheck {
    /// For a message of which so many lines do not go.
    fn new(removed_lines: u64) -> Self {
        let mut lines = Lines::new();
        lines.skip(removed_lines);
        LineCheck { lines }
    }

    /// Looks at the next piece of the message.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<()> {
        self.lines.feed(piece);
        self.result()
    }

    /// The message is over.
    pub(super) fn end(&mut self) -> Result<()> {
        self.lines.end();
        self.result()
    }

    fn result(&self) -> Result<()> {
        match self.lines.bare() {
            Some(bare) => Err(refused(ErrorKind::Input, Phase::Body, "the message", bare)),
            None => Ok(()),
        }
    }
}
