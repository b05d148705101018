//! Contents that are read while the message is sent: bytes, files and streams, encoded in blocks.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use encodify::base64::MIME;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::task::{JoinHandle, spawn_blocking};

use super::attachment::Reader;
use super::scan::{LineCounter, MessageScanner};
use crate::proto::Chunk;
use crate::text::quoted;
use crate::{Error, ErrorKind, Phase, Result, file};

/// The size of a block in bytes: 1,024 lines of base64 with 57 bytes each, so that a block begins
/// and ends with a line.
pub(super) const BLOCK: usize = 57 * 1024;

/// Room for a block as lines of base64.
const ENCODED_BLOCK: usize = 78 * 1024;

/// The number of blocks that one call on a blocking thread reads and encodes, while as many are
/// being sent: at least 1 MB. Waking the thread costs as much as encoding several blocks, and on a
/// busy machine the thread may have to wait for a processor. With more blocks, the first ones would
/// have left the processor's cache before they are encrypted.
const BATCH: usize = 1_000_000_usize.div_ceil(BLOCK);

/// The maximum size of a file whose size is reported as 0, which is held in memory.
const MAX_WITHOUT_SIZE: u64 = 16 * 1024 * 1024;

/// How contents are encoded.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// As lines of base64 (RFC 2045, 6.8).
    Base64,
    AsIs,
    /// Unchanged if the server accepts that (RFC 3030), otherwise as base64.
    Either,
    /// As text, which is not encoded. Its line ends become CRLF unless the message is sent as
    /// binary.
    Text(TextInfo),
    /// The rest of a raw message that is checked while it is read.
    Unchecked {
        refuses_bare_line_ends: bool,
    },
}

/// What is known of contents that are sent as text.
#[derive(Clone, Copy)]
pub(super) struct TextInfo {
    /// `None` for a stream.
    pub(super) lines: Option<LineCounter>,
    /// The contents may have bytes beyond ASCII.
    pub(super) may_be_eight_bit: bool,
}

impl Form {
    /// The form that is used for a message that is sent as binary or not.
    pub(super) fn resolve(self, is_binary: bool) -> Self {
        match self {
            Form::Either if is_binary => Form::AsIs,
            Form::Either => Form::Base64,
            Form::Text(_) => Form::AsIs,
            form => form,
        }
    }

    /// The size of `bytes` bytes in this form.
    pub(super) fn size_of(self, bytes: u64) -> u64 {
        match self {
            Form::AsIs | Form::Text(_) | Form::Unchecked { .. } => bytes,
            // Saturating, since a caller may state any size.
            Form::Base64 | Form::Either => {
                let symbols = bytes.div_ceil(3).saturating_mul(4);
                symbols.saturating_add(symbols.div_ceil(76) * 2)
            }
        }
    }
}

/// Turns blocks into chunks.
pub(super) struct Encoder {
    form: Form,
    pool: BufferPool,
}

impl Encoder {
    pub(super) fn new(form: Form) -> Self {
        Encoder {
            form,
            pool: BufferPool::default(),
        }
    }

    /// Makes a chunk of the first `length` bytes of a block. All blocks but the last are full.
    fn chunk(&self, block: Buffer, length: usize) -> Chunk {
        match self.form {
            Form::AsIs | Form::Text(_) | Form::Unchecked { .. } => {
                Chunk::from(block.into_bytes(length)).scanned()
            }
            Form::Base64 | Form::Either => self.base64(&block.bytes[..length]),
        }
    }

    fn base64(&self, block: &[u8]) -> Chunk {
        let mut lines = self.pool.take();
        let length = MIME
            .encode_slice(block, &mut lines.bytes)
            .expect("a block fits");
        Chunk::base64_lines(lines.into_bytes(length))
    }
}

/// A pool of buffers, reused when their chunks are dropped, so that a large message does not
/// allocate for each chunk.
#[derive(Clone, Default)]
struct BufferPool(Arc<Mutex<Vec<Vec<u8>>>>);

impl BufferPool {
    /// Returns a buffer with room for a block in any form.
    fn take(&self) -> Buffer {
        let bytes = self.lock().pop();
        Buffer {
            bytes: bytes.unwrap_or_else(|| vec![0; ENCODED_BLOCK]),
            pool: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Buffer {
    bytes: Vec<u8>,
    pool: BufferPool,
}

impl Buffer {
    fn into_bytes(self, length: usize) -> Bytes {
        Bytes::from_owner(self).split_to(length)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.lock().push(std::mem::take(&mut self.bytes));
    }
}

/// The source of contents that are read when they are sent.
pub(super) enum PartSource {
    Bytes(Bytes),
    File(KnownFile),
    Stream(Stream),
}

impl PartSource {
    /// Inspects a file. Blocks on file I/O.
    pub(super) fn from_path(path: PathBuf) -> Result<Self> {
        let (file, content) = KnownFile::inspect(path)?;
        Ok(content.map_or(PartSource::File(file), PartSource::Bytes))
    }

    pub(super) fn size(&self) -> Option<u64> {
        match self {
            PartSource::Bytes(bytes) => Some(bytes.len() as u64),
            PartSource::File(file) => Some(file.size),
            PartSource::Stream(stream) => stream.size,
        }
    }
}

/// Runs blocking file I/O.
pub(super) async fn on_blocking_thread<T: Send + 'static>(
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(call)
        .await
        .unwrap_or_else(|failure| Err(thread_failed(failure)))
}

fn thread_failed(failure: tokio::task::JoinError) -> Error {
    Error::new(
        ErrorKind::Input,
        Phase::Body,
        "the thread that reads the message's files was stopped",
    )
    .with_source(failure)
}

/// A file as it was when the message was prepared.
#[derive(Clone)]
pub(super) struct KnownFile {
    path: Arc<Path>,
    pub(super) size: u64,
    /// The number of bytes at the front that are not sent.
    front: u64,
    modified: Option<SystemTime>,
}

impl KnownFile {
    /// Inspects a file. Also returns the contents if its size is reported as 0 although it has
    /// some.
    pub(super) fn inspect(path: PathBuf) -> Result<(Self, Option<Bytes>)> {
        let failed = |error| read_error(&path, Phase::Setup, error);
        let check = |metadata: &Metadata| {
            let kind = metadata.file_type();
            if kind.is_file() {
                return Ok(());
            }
            let (what, hint) = match kind.is_dir() {
                true => (
                    "a directory, not a file",
                    "Name the files in it one by one, or pack it into an archive.",
                ),
                false => (
                    "not a regular file",
                    "A pipe or a device can be read as a stream, by a reader (Attachment::reader, \
                        Message::raw_stream).",
                ),
            };
            let message = format!("{} is {what}", quoted(&path.to_string_lossy()));
            Err(Error::new(ErrorKind::Input, Phase::Setup, message).with_hint(hint))
        };
        // Checked before the file is opened, since a process at the other end of a FIFO would
        // notice that; and again afterwards, as the file may have been replaced.
        check(&std::fs::metadata(&path).map_err(failed)?)?;
        let file = file::open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        check(&metadata)?;
        let known = KnownFile {
            path: path.into(),
            size: metadata.len(),
            front: 0,
            modified: metadata.modified().ok(),
        };
        let content = if known.size == 0 {
            known.read_without_size(file)?
        } else {
            Bytes::new()
        };
        Ok((known, (!content.is_empty()).then_some(content)))
    }

    /// Leaves out the first `front` bytes.
    pub(super) fn without_front(self, front: u64) -> Self {
        KnownFile { front, ..self }
    }

    /// The number of bytes that are sent.
    pub(super) fn len(&self) -> u64 {
        self.size - self.front
    }

    /// Scans what is sent of the file. Blocks on file I/O.
    pub(super) fn scan(&self, scanner: &mut MessageScanner, phase: Phase) -> Result<()> {
        let (mut open, mut block) = (self.open(phase)?, vec![0; BLOCK]);
        loop {
            match open.read_block(&mut block)? {
                0 => return Ok(()),
                length => scanner.read(&block[..length]),
            }
        }
    }

    /// Reads a file of reported size 0. In /proc every file has this size, and only reading it
    /// shows whether it is empty.
    fn read_without_size(&self, file: File) -> Result<Bytes> {
        let mut content = Vec::new();
        let read = file.take(MAX_WITHOUT_SIZE + 1).read_to_end(&mut content);
        let length = read.map_err(|error| read_error(&self.path, Phase::Setup, error))?;
        if length as u64 > MAX_WITHOUT_SIZE {
            let (shown, limit) = (
                quoted(&self.path.to_string_lossy()),
                file::size(MAX_WITHOUT_SIZE),
            );
            let message = format!(
                "the file {shown} has more than {limit}, although its size is reported as 0"
            );
            return Err(
                Error::new(ErrorKind::Input, Phase::Setup, message).with_hint(VIRTUAL_FILE_HINT)
            );
        }
        Ok(content.into())
    }

    /// Opens the file again, if it is unchanged. Does not block if a FIFO has taken its place.
    pub(super) fn open(&self, phase: Phase) -> Result<OpenFile> {
        let failed = |error| read_error(&self.path, phase, error);
        let file = file::open(&self.path).map_err(failed)?;
        let mut file = OpenFile {
            file,
            known: self.clone(),
            left: self.len(),
            phase,
        };
        file.check_unchanged()?;
        if self.front > 0 {
            file.file
                .seek(SeekFrom::Start(self.front))
                .map_err(failed)?;
        }
        Ok(file)
    }

    fn changed_error(&self, phase: Phase) -> Error {
        let shown = quoted(&self.path.to_string_lossy());
        Error::new(
            ErrorKind::Input,
            phase,
            format!("the file {shown} has changed since it was looked at"),
        )
        .with_hint("Nothing was delivered. Send it again when nothing is writing to the file.")
    }

    fn matches(&self, metadata: &Metadata) -> bool {
        metadata.is_file()
            && metadata.len() == self.size
            && metadata.modified().ok() == self.modified
    }
}

const VIRTUAL_FILE_HINT: &str = "The sizes of files that are made up when they are read, as \
    in /proc and /sys, say nothing: copy it into a regular file and send that, or send it as a \
    stream, by a reader.";

fn read_error(path: &Path, phase: Phase, error: io::Error) -> Error {
    let shown = quoted(&path.to_string_lossy());
    let failure = Error::new(
        ErrorKind::Input,
        phase,
        format!("cannot read the file {shown}: {error}"),
    );
    let is_sending = phase != Phase::Setup;
    let hint = match error.kind() {
        _ if is_sending => {
            "Nothing was delivered. The file could be read before: send it again when nothing \
                moves or deletes it."
        }
        io::ErrorKind::NotFound => {
            "Check its name and folder; a relative path begins at the current one."
        }
        io::ErrorKind::PermissionDenied => "Let this program's user read the file and its folders.",
        _ => "Check that the file can be read, by copying it.",
    };
    failure.with_hint(hint).with_source(error)
}

pub(super) fn stream_read_error(what: &str, phase: Phase, error: io::Error) -> Error {
    Error::new(
        ErrorKind::Input,
        phase,
        format!("{what} cannot be read: {error}"),
    )
    .with_source(error)
}

/// A file that is being read.
pub(super) struct OpenFile {
    file: File,
    known: KnownFile,
    left: u64,
    phase: Phase,
}

impl OpenFile {
    /// Reads the next block and returns its length. All blocks but the last are full. Returns 0 at
    /// the end, after checking that the file has not changed.
    pub(super) fn read_block(&mut self, block: &mut [u8]) -> Result<usize> {
        let length = BLOCK.min(usize::try_from(self.left).unwrap_or(BLOCK));
        if length == 0 {
            self.check_unchanged()?;
            // The size that a file system reports may be wrong.
            let mut rest = Vec::new();
            let read = (&self.file).take(1).read_to_end(&mut rest);
            return match read.map_err(|error| read_error(&self.known.path, self.phase, error))? {
                0 => Ok(0),
                _ => Err(self.size_mismatch("more")),
            };
        }
        match self.file.read_exact(&mut block[..length]) {
            Ok(()) => self.left -= length as u64,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.check_unchanged()?;
                return Err(self.size_mismatch("fewer"));
            }
            Err(error) => return Err(read_error(&self.known.path, self.phase, error)),
        }
        Ok(length)
    }

    /// Returns the last byte of a file that is not empty. Nothing can be read after that.
    pub(super) fn last_byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.file
            .seek(SeekFrom::End(-1))
            .and_then(|_| self.file.read_exact(&mut byte))
            .map_err(|error| read_error(&self.known.path, self.phase, error))?;
        Ok(byte[0])
    }

    fn check_unchanged(&self) -> Result<()> {
        let metadata = self
            .file
            .metadata()
            .map_err(|error| read_error(&self.known.path, self.phase, error))?;
        if self.known.matches(&metadata) {
            Ok(())
        } else {
            Err(self.known.changed_error(self.phase))
        }
    }

    fn size_mismatch(&self, how: &str) -> Error {
        let shown = quoted(&self.known.path.to_string_lossy());
        let message = format!(
            "the file {shown} has {how} than the {} bytes of its size",
            self.known.size
        );
        Error::new(ErrorKind::Input, self.phase, message)
            .with_hint(format!("Nothing was delivered. {VIRTUAL_FILE_HINT}"))
    }
}

/// Chunks of bytes or of a file, read and encoded in batches on a blocking thread: one batch is
/// sent while the next one is made. The thread does not wait for a slow server.
pub(super) struct Batches {
    ready: VecDeque<Chunk>,
    running: Option<JoinHandle<Result<Batch>>>,
}

impl Batches {
    /// Encodes bytes as base64; a single block without a thread.
    pub(super) fn encode_bytes(bytes: Bytes) -> Self {
        if bytes.len() > BLOCK {
            return Self::start(BatchReader::new(Source::Bytes(bytes), Form::Base64));
        }
        let chunk = (!bytes.is_empty()).then(|| Chunk::base64_lines(MIME.encode(&bytes).into()));
        Batches {
            ready: chunk.into_iter().collect(),
            running: None,
        }
    }

    pub(super) fn read_file(file: KnownFile, form: Form) -> Self {
        Self::start(BatchReader::new(Source::File(file, None), form))
    }

    fn start(reader: Box<BatchReader>) -> Self {
        Batches {
            ready: VecDeque::new(),
            running: Some(reader.next_batch()),
        }
    }

    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Chunk>>> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(chunk)));
            }
            let Some(running) = &mut self.running else {
                return Poll::Ready(None);
            };
            match ready!(Pin::new(running).poll(cx))
                .unwrap_or_else(|failure| Err(thread_failed(failure)))
            {
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(batch) => {
                    self.ready = batch.chunks;
                    self.running = batch.rest.map(BatchReader::next_batch);
                }
            }
        }
    }
}

struct Batch {
    chunks: VecDeque<Chunk>,
    /// The reader for the next batch, if there is one.
    rest: Option<Box<BatchReader>>,
}

/// Reads and encodes batches.
struct BatchReader {
    source: Source,
    encoder: Encoder,
    check: Option<FileCheck>,
}

enum Source {
    /// Encoded as base64; bytes that are not encoded need no batches.
    Bytes(Bytes),
    /// Opened for the first batch.
    File(KnownFile, Option<OpenFile>),
}

impl BatchReader {
    fn new(source: Source, form: Form) -> Box<Self> {
        Box::new(BatchReader {
            source,
            encoder: Encoder::new(form),
            check: FileCheck::new(form),
        })
    }

    fn next_batch(self: Box<Self>) -> JoinHandle<Result<Batch>> {
        spawn_blocking(move || self.batch())
    }

    fn batch(mut self: Box<Self>) -> Result<Batch> {
        let mut chunks = VecDeque::with_capacity(BATCH);
        while chunks.len() < BATCH {
            match self.next_chunk()? {
                Some(chunk) => chunks.push_back(chunk),
                None => return Ok(Batch { chunks, rest: None }),
            }
        }
        Ok(Batch {
            chunks,
            rest: Some(self),
        })
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        match &mut self.source {
            Source::Bytes(bytes) => {
                let block = bytes.split_to(BLOCK.min(bytes.len()));
                Ok((!block.is_empty()).then(|| self.encoder.base64(&block)))
            }
            Source::File(known, open) => {
                let file = match open {
                    Some(file) => file,
                    None => open.insert(known.open(Phase::Body)?),
                };
                let mut block = self.encoder.pool.take();
                let length = file.read_block(&mut block.bytes)?;
                let mut chunk = (length > 0).then(|| self.encoder.chunk(block, length));
                if let Some(check) = &mut self.check
                    && check.has_fault(chunk.as_mut())
                {
                    return Err(check.error(known));
                }
                Ok(chunk)
            }
        }
    }
}

/// Checks a raw message while it is read.
struct FileCheck {
    refuses_bare_line_ends: bool,
    after_cr: bool,
}

impl FileCheck {
    fn new(form: Form) -> Option<Self> {
        match form {
            Form::Unchecked {
                refuses_bare_line_ends,
            } => Some(FileCheck {
                refuses_bare_line_ends,
                after_cr: false,
            }),
            Form::Base64 | Form::AsIs | Form::Either | Form::Text(_) => None,
        }
    }

    /// Whether the next chunk, or the end of the message, must not be sent.
    fn has_fault(&mut self, chunk: Option<&mut Chunk>) -> bool {
        let (after_cr, refuses) = (self.after_cr, self.refuses_bare_line_ends);
        let Some(chunk) = chunk else {
            return refuses && after_cr;
        };
        self.after_cr = chunk.bytes().ends_with(b"\r");
        chunk.has_nul() || refuses && chunk.has_bare_line_end(after_cr)
    }

    /// Reads the file from its beginning, to name the line.
    fn error(&self, file: &KnownFile) -> Error {
        let mut scanner = MessageScanner::new();
        let scanned = file
            .clone()
            .without_front(0)
            .scan(&mut scanner, Phase::Body);
        let checked = scanned.and_then(|()| {
            let info = scanner.end();
            info.check_text(self.refuses_bare_line_ends, Phase::Body)
        });
        checked
            .err()
            .unwrap_or_else(|| file.changed_error(Phase::Body))
    }
}

/// A reader given by the caller, polled in place.
pub(super) struct Stream {
    reader: Reader,
    size: Option<u64>,
    seen: u64,
    /// The block that is being filled.
    block: Option<Buffer>,
    filled: usize,
    ended: bool,
    /// A description for errors.
    what: String,
}

impl Stream {
    pub(super) fn new(reader: Reader, size: Option<u64>, what: impl Into<String>) -> Self {
        Stream {
            reader,
            size,
            seen: 0,
            block: None,
            filled: 0,
            ended: false,
            what: what.into(),
        }
    }

    /// Polls for the next block, which is full unless it is the last, however little the reader
    /// returns at a time.
    pub(super) fn poll_chunk(
        &mut self,
        encoder: &Encoder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Chunk>>> {
        let mut block = self.block.take().unwrap_or_else(|| encoder.pool.take());
        while !self.ended && self.filled < BLOCK {
            let mut room = ReadBuf::new(&mut block.bytes[self.filled..BLOCK]);
            match Pin::new(&mut self.reader).poll_read(cx, &mut room) {
                Poll::Pending => {
                    self.block = Some(block);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) => {
                    let read = room.filled().len();
                    self.ended = read == 0;
                    self.filled += read;
                    self.seen += read as u64;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(self.failed(error)))),
            }
            match self.size {
                Some(size) if self.seen > size => {
                    return Poll::Ready(Some(Err(self.size_mismatch(size, "more"))));
                }
                Some(size) if self.seen < size && self.ended => {
                    return Poll::Ready(Some(Err(self.size_mismatch(size, "fewer"))));
                }
                _ => {}
            }
        }
        let filled = std::mem::take(&mut self.filled);
        Poll::Ready((filled > 0).then(|| Ok(encoder.chunk(block, filled))))
    }

    fn failed(&self, error: io::Error) -> Error {
        stream_read_error(&self.what, Phase::Body, error)
    }

    fn size_mismatch(&self, size: u64, how: &str) -> Error {
        let message = format!(
            "{} has {how} than the {size} bytes that were stated",
            self.what
        );
        Error::new(ErrorKind::Input, Phase::Body, message).with_hint("Nothing was delivered.")
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A file that is checked while it is sent is refused exactly if it would be before.
        #[test]
        fn a_check_in_pieces_finds_what_a_scan_of_the_whole_finds(
            text in vec(
                prop::sample::select(vec![&b"\r\n"[..], b"\r", b"\n", b"\0", b"text"]),
                0..9,
            ),
            lengths in vec(1usize..6, 1..4),
            refuses_bare_line_ends: bool,
        ) {
            let text = text.concat();
            let mut scanner = MessageScanner::new();
            scanner.read(&text);
            let whole = scanner.end().check_text(refuses_bare_line_ends, Phase::Body);

            let form = Form::Unchecked { refuses_bare_line_ends };
            let mut check = FileCheck::new(form).expect("a form that is checked");
            let (mut rest, mut has_fault) = (&text[..], false);
            for length in lengths.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, next) = rest.split_at((*length).min(rest.len()));
                has_fault |= check.has_fault(Some(&mut Bytes::copy_from_slice(piece).into()));
                rest = next;
            }
            has_fault |= check.has_fault(None);
            prop_assert_eq!(has_fault, whole.is_err());
        }
    }
}
