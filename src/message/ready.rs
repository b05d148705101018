//! Messages that are ready: their Bcc is cut out, and they are looked over before they go, if they can be.

use bytes::Bytes;

use super::attachment::Data;
use super::bcc::{BccFilter, Kept};
use super::input::{BLOCK, Form, Input, KnownFile, Stream, on_blocking_thread};
use super::layout::Piece;
use super::survey::{Bare, Facts, Lines, Survey};
use crate::proto::Content;
use crate::{Error, Kind, Phase, Result};

/// What becomes of line ends in a ready message that are not CRLF.
///
/// After DATA a bare CR or LF never reaches the server, where it could be taken for the end of the message
/// and what follows for commands (RFC 5321, 2.3.8 and 4.1.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LineEnds {
    /// A CR or LF alone becomes CRLF. So does the text of files from any system.
    #[default]
    Normalize,
    /// A CR or LF alone is an error: nothing may be changed.
    Refuse,
    /// A CR or LF alone stays as it is, and so does a NUL. A message that has one goes in chunks, and only to a server that offers BINARYMIME and CHUNKING
    /// (RFC 3030); for any other, sending fails before anything is sent. So it is with a stream, of which nobody knows.
    Keep,
}

/// Looks a ready message over.
pub(super) async fn prepare(data: Data, line_ends: LineEnds) -> Result<(Vec<Piece>, Facts, Option<Cutter>)> {
    let (pieces, facts, cutter) = match data {
        Data::Bytes(bytes) if bytes.len() <= BLOCK => survey(bytes),
        Data::Bytes(bytes) => on_blocking_thread(|| Ok(survey(bytes))).await?,
        Data::File(path) => {
            on_blocking_thread(move || {
                let (file, content) = KnownFile::look(path)?;
                if let Some(content) = content {
                    return Ok(survey(content));
                }
                let mut survey = Survey::new();
                let mut open = file.open(Phase::Setup)?;
                let mut block = vec![0; BLOCK];
                loop {
                    match open.read_block(&mut block)? {
                        0 => break,
                        length => survey.read(&block[..length]),
                    }
                }
                // Its line ends were looked at, and the file must not change until it goes.
                let piece = Piece::Input(Input::File(file), Form::AsIs);
                Ok((vec![piece], survey.end(drop), Some(Cutter::new(LineEnds::Normalize))))
            })
            .await?
        }
        Data::Reader(reader) => {
            let stream = Input::Stream(Stream::new(reader, None, "the message's stream"));
            (vec![Piece::Input(stream, Form::AsIs)], Facts::unknown(), Some(Cutter::new(line_ends)))
        }
    };
    match (line_ends, facts.bare) {
        (LineEnds::Refuse, Some(bare)) => Err(refused(Kind::Request, Phase::Setup, bare)),
        (LineEnds::Keep, bare) if bare.is_some() || facts.nul.is_some() || facts.content == Content::Unknown => {
            Ok((pieces, facts.of_binary(), cutter))
        }
        _ => {
            facts.check_text()?;
            Ok((pieces, facts, cutter))
        }
    }
}

fn survey(bytes: Bytes) -> (Vec<Piece>, Facts, Option<Cutter>) {
    let mut pieces = Vec::new();
    let mut survey = Survey::new();
    survey.take(bytes, |kept| pieces.push(Piece::Text(kept)));
    let facts = survey.end(|kept| pieces.push(Piece::Text(kept)));
    (pieces, facts, None)
}

fn refused(kind: Kind, phase: Phase, bare: Bare) -> Error {
    let name = if bare.byte == b'\r' { "CR" } else { "LF" };
    Error::new(kind, phase, format!("line {} of the message ends with {name} alone", bare.line))
        .with_hint("Lines end with CRLF. Nothing was sent; it can be, if line ends may be normalized.")
}

/// Cuts the Bcc out of a ready message while it is read, and looks at its line ends where nobody could before.
pub(super) struct Cutter {
    filter: BccFilter,
    refuses: Option<Lines>,
    input: Bytes,
}

impl Cutter {
    fn new(line_ends: LineEnds) -> Self {
        let refuses = (line_ends == LineEnds::Refuse).then(Lines::new);
        Cutter { filter: BccFilter::new(), refuses, input: Bytes::new() }
    }

    /// The same at its beginning. Only a message that was looked over begins again.
    pub(super) fn again(&self) -> Self {
        Cutter::new(LineEnds::Normalize)
    }

    pub(super) fn give(&mut self, input: Bytes) {
        self.input = input;
    }

    /// What stays of what was given; `None` when more must be.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>> {
        let kept = self.filter.next(&mut self.input);
        self.check(kept)
    }

    /// What was held back, when the message is over.
    pub(super) fn end(&mut self) -> Result<Option<Bytes>> {
        let kept = self.filter.end();
        if kept.is_none()
            && let Some(lines) = &mut self.refuses
        {
            lines.end();
        }
        self.check(kept)
    }

    fn check(&mut self, kept: Option<Kept>) -> Result<Option<Bytes>> {
        let kept = kept.map(|kept| kept.bytes);
        if let Some(lines) = &mut self.refuses {
            lines.add_hidden(self.filter.take_hidden_lines());
            lines.feed(kept.as_deref().unwrap_or_default());
            if let Some(bare) = lines.bare() {
                return Err(refused(Kind::Input, Phase::Body, bare));
            }
        }
        Ok(kept)
    }
}
