//! What is read while the message goes: bytes, files and streams, encoded block by block.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::{BufMut, Bytes};
use encodify::base64::MIME;
use tokio::io::AsyncReadExt;
use tokio::task::{JoinHandle, spawn_blocking};

use super::attachment::Reader;
use crate::address::quoted;
use crate::proto::Chunk;
use crate::{Error, Kind, Phase, Result};

/// What is read at once. A multiple of the 57 bytes that make one line of base64, so that each block is whole lines: 78 KiB.
pub(super) const BLOCK: usize = 57 * 1024;

/// How many blocks are read and encoded by one call on a blocking thread, while as many are on their way out.
const BATCH: usize = 4;

/// How the bytes go.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// As lines of base64 (RFC 2045, 6.8).
    Base64,
    AsIs,
}

impl Form {
    /// The size that so many bytes have in this form.
    pub(super) fn size_of(self, bytes: u64) -> u64 {
        match self {
            Form::AsIs => bytes,
            Form::Base64 => {
                let symbols = bytes.div_ceil(3) * 4;
                symbols + symbols.div_ceil(76) * 2
            }
        }
    }

    /// A block in this form. All blocks but the last are [`BLOCK`] bytes.
    fn chunk(self, block: Bytes) -> Chunk {
        match self {
            Form::AsIs => Chunk::from(block),
            Form::Base64 => base64(&block),
        }
    }
}

fn base64(block: &[u8]) -> Chunk {
    let mut lines = Vec::with_capacity(MIME.encoded_len(block.len()));
    MIME.encode_append(block, &mut lines);
    Chunk::base64_lines(lines.into())
}

/// What is read when its turn comes.
pub(super) enum Input {
    Bytes(Bytes),
    File(KnownFile),
    Reader(Stream),
}

impl Input {
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Input::Bytes(bytes) => Some(bytes.len() as u64),
            Input::File(file) => Some(file.size),
            Input::Reader(stream) => stream.size,
        }
    }

    /// The same from its beginning; `None` where it can be read only once.
    pub(super) fn again(&self) -> Option<Self> {
        match self {
            Input::Bytes(bytes) => Some(Input::Bytes(bytes.clone())),
            Input::File(file) => Some(Input::File(file.clone())),
            Input::Reader(_) => None,
        }
    }
}

/// Runs what may wait for a disk.
pub(super) async fn on_blocking_thread<T: Send + 'static>(
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(call).await.unwrap_or_else(|failure| Err(thread_failed(failure)))
}

fn thread_failed(failure: tokio::task::JoinError) -> Error {
    Error::new(Kind::Input, Phase::Body, "the thread that reads the message's files was stopped").with_source(failure)
}

/// A file as it was when the message was prepared.
#[derive(Clone)]
pub(super) struct KnownFile {
    path: Arc<Path>,
    pub(super) size: u64,
    modified: Option<SystemTime>,
}

impl KnownFile {
    pub(super) fn look(path: PathBuf) -> Result<Self> {
        let fault = |what: String| Error::new(Kind::Input, Phase::Setup, what);
        let shown = quoted(&path.to_string_lossy());
        // Asked before it is opened: opening a pipe would wait for its other end.
        let failed = |error: io::Error| fault(format!("cannot read the file {shown}: {error}")).with_source(error);
        let metadata = std::fs::metadata(&path).map_err(failed)?;
        if metadata.is_dir() {
            return Err(fault(format!("{shown} is a directory, not a file")));
        }
        if !metadata.is_file() {
            return Err(fault(format!("{shown} is not a regular file"))
                .with_hint("Read a pipe or a device with a reader, as a stream."));
        }
        let metadata = File::open(&path).and_then(|file| file.metadata()).map_err(failed)?;
        Ok(KnownFile { path: path.into(), size: metadata.len(), modified: metadata.modified().ok() })
    }

    pub(super) fn open(&self, phase: Phase) -> Result<OpenFile> {
        let failed = |error| self.failed(phase, error);
        let file = File::open(&self.path).map_err(failed)?;
        let file = OpenFile { file, known: self.clone(), left: self.size, phase };
        file.check_unchanged()?;
        Ok(file)
    }

    fn is_as(&self, metadata: &Metadata) -> bool {
        metadata.len() == self.size && metadata.modified().ok() == self.modified
    }

    fn failed(&self, phase: Phase, error: io::Error) -> Error {
        let shown = quoted(&self.path.to_string_lossy());
        Error::new(Kind::Input, phase, format!("cannot read the file {shown}: {error}")).with_source(error)
    }
}

/// A file while it is read.
pub(super) struct OpenFile {
    file: File,
    known: KnownFile,
    left: u64,
    phase: Phase,
}

impl OpenFile {
    /// The next block: full, but for the last one. Then `None`, and it is certain that the file is the one that was looked at.
    pub(super) fn next_block(&mut self) -> Result<Option<Bytes>> {
        if self.left == 0 {
            self.check_unchanged()?;
            return Ok(None);
        }
        let mut block = vec![0; BLOCK.min(usize::try_from(self.left).unwrap_or(BLOCK))];
        match self.file.read_exact(&mut block) {
            Ok(()) => self.left -= block.len() as u64,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(self.changed()),
            Err(error) => return Err(self.known.failed(self.phase, error)),
        }
        Ok(Some(block.into()))
    }

    fn check_unchanged(&self) -> Result<()> {
        let metadata = self.file.metadata().map_err(|error| self.known.failed(self.phase, error))?;
        if self.known.is_as(&metadata) { Ok(()) } else { Err(self.changed()) }
    }

    fn changed(&self) -> Error {
        let shown = quoted(&self.known.path.to_string_lossy());
        Error::new(Kind::Input, self.phase, format!("the file {shown} was changed while the message was sent"))
            .with_hint("Nothing was delivered. Send it again when nobody writes to the file.")
    }
}

/// Bytes or a file, read and encoded a batch at a time on a blocking thread: one batch goes while the next is made.
/// No thread waits for a slow server.
pub(super) struct Batches {
    ready: VecDeque<Chunk>,
    running: Option<JoinHandle<Result<Batch>>>,
}

/// What was read, and where the rest comes from, unless that was all.
type Batch = (VecDeque<Chunk>, Option<Supply>);

impl Batches {
    /// The blocks of these bytes. If they are one block, no thread is asked.
    pub(super) fn of_bytes(bytes: Bytes, form: Form) -> Self {
        if bytes.len() <= BLOCK {
            let chunk = (!bytes.is_empty()).then(|| form.chunk(bytes));
            return Batches { ready: chunk.into_iter().collect(), running: None };
        }
        Self::start(Supply { source: Source::Bytes(bytes), form })
    }

    pub(super) fn of_file(file: KnownFile, form: Form) -> Self {
        Self::start(Supply { source: Source::Closed(file), form })
    }

    fn start(supply: Supply) -> Self {
        Batches { ready: VecDeque::new(), running: Some(spawn_blocking(move || supply.batch())) }
    }

    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Chunk>>> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(chunk)));
            }
            let Some(running) = &mut self.running else {
                return Poll::Ready(None);
            };
            match ready!(Pin::new(running).poll(cx)).unwrap_or_else(|failure| Err(thread_failed(failure))) {
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok((batch, supply)) => {
                    self.ready = batch;
                    self.running = supply.map(|supply| spawn_blocking(move || supply.batch()));
                }
            }
        }
    }
}

/// What batches are made from.
struct Supply {
    source: Source,
    form: Form,
}

enum Source {
    Bytes(Bytes),
    Closed(KnownFile),
    Open(OpenFile),
}

impl Supply {
    /// The next batch, and what there is for the one after.
    fn batch(mut self) -> Result<(VecDeque<Chunk>, Option<Self>)> {
        let mut batch = VecDeque::with_capacity(BATCH);
        while batch.len() < BATCH {
            match self.next_block()? {
                Some(block) => batch.push_back(self.form.chunk(block)),
                None => return Ok((batch, None)),
            }
        }
        Ok((batch, Some(self)))
    }

    fn next_block(&mut self) -> Result<Option<Bytes>> {
        if let Source::Closed(file) = &self.source {
            self.source = Source::Open(file.open(Phase::Body)?);
        }
        match &mut self.source {
            Source::Bytes(bytes) if bytes.is_empty() => Ok(None),
            Source::Bytes(bytes) => Ok(Some(bytes.split_to(BLOCK.min(bytes.len())))),
            Source::Open(file) => file.next_block(),
            Source::Closed(_) => Ok(None), // It was opened above.
        }
    }
}

/// A caller's reader, polled in place.
pub(super) struct Stream {
    reader: Reader,
    size: Option<u64>,
    seen: u64,
    block: Vec<u8>,
    ended: bool,
    /// What it is, for errors.
    what: String,
}

impl Stream {
    pub(super) fn new(reader: Reader, size: Option<u64>, what: impl Into<String>) -> Self {
        Stream { reader, size, seen: 0, block: Vec::new(), ended: false, what: what.into() }
    }

    /// The next block, full but for the last one, whatever the pieces that the reader gives.
    pub(super) fn poll_chunk(&mut self, form: Form, cx: &mut Context<'_>) -> Poll<Option<Result<Chunk>>> {
        self.block.reserve_exact(BLOCK - self.block.len());
        while !self.ended && self.block.len() < BLOCK {
            let room = BLOCK - self.block.len();
            match ready!(pin!(self.reader.read_buf(&mut (&mut self.block).limit(room))).poll(cx)) {
                Ok(0) => self.ended = true,
                Ok(read) => self.seen += read as u64,
                Err(error) => return Poll::Ready(Some(Err(self.failed(error)))),
            }
            match self.size {
                Some(size) if self.seen > size => return Poll::Ready(Some(Err(self.not_as_stated(size, "more")))),
                Some(size) if self.seen < size && self.ended => {
                    return Poll::Ready(Some(Err(self.not_as_stated(size, "fewer"))));
                }
                _ => {}
            }
        }
        if self.block.is_empty() {
            return Poll::Ready(None);
        }
        let chunk = match form {
            Form::AsIs => Chunk::from(std::mem::take(&mut self.block)),
            Form::Base64 => base64(&self.block),
        };
        self.block.clear();
        Poll::Ready(Some(Ok(chunk)))
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::new(Kind::Input, Phase::Body, format!("{} cannot be read: {error}", self.what)).with_source(error)
    }

    fn not_as_stated(&self, size: u64, how: &str) -> Error {
        let message = format!("{} has {how} than the {size} bytes that were stated", self.what);
        Error::new(Kind::Input, Phase::Body, message).with_hint("Nothing was delivered.")
    }
}
