//! The file: opened and recovered once, then written by one thread.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write as _};
#[cfg(unix)]
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};

use tokio::sync::oneshot;

use super::record::{self, Record};
use super::{JournalError, Result};

/// Opens the file, or creates it, locks it, and passes each record to `on_record`. Returns the
/// file, ready for further records, and its fingerprint.
///
/// A damaged end is cut off: it was being written when the process or the machine stopped.
pub(super) fn open(
    path: &Path,
    fingerprint: Option<&str>,
    on_record: impl FnMut(Record),
) -> Result<(File, Option<String>)> {
    let failure = |error| JournalError::io(path, error);
    let mut options = File::options();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    options.mode(0o600);
    let file = options.open(path).map_err(failure)?;
    let metadata = file.metadata().map_err(failure)?;
    if !metadata.is_file() {
        return Err(JournalError::NotAJournal(path.to_owned()));
    }
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => JournalError::InUse(path.to_owned()),
        fs::TryLockError::Error(error) => failure(error),
    })?;
    let Some(content) = read(path, &mut BufReader::new(&file), on_record)? else {
        create(path, &file, fingerprint).map_err(failure)?;
        return Ok((file, fingerprint.map(str::to_owned)));
    };
    if fingerprint.is_some_and(|wanted| content.fingerprint.as_deref() != Some(wanted)) {
        return Err(JournalError::OtherFingerprint(path.to_owned()));
    }
    if content.length < file.metadata().map_err(failure)?.len() {
        file.set_len(content.length)
            .and_then(|()| file.sync_all())
            .map_err(failure)?;
    }
    Ok((file, content.fingerprint))
}

/// What a file has beside its records.
pub(super) struct Content {
    fingerprint: Option<String>,
    /// The length without a damaged end.
    length: u64,
}

/// Reads a file; `None` if it is new, or was being created when the process stopped.
pub(super) fn read(
    path: &Path,
    reader: &mut impl BufRead,
    mut on_record: impl FnMut(Record),
) -> Result<Option<Content>> {
    let failure = |error| JournalError::io(path, error);
    let mut line = Vec::new();
    let mut header = io::Read::take(&mut *reader, record::MAX_HEADER);
    header.read_until(b'\n', &mut line).map_err(failure)?;
    let Some(fingerprint) = record::parse_header(&line) else {
        return match record::is_torn_header(&line) {
            true => Ok(None),
            false => Err(not_a_header(path, &line)),
        };
    };
    let mut length = line.len() as u64;
    let (mut number, mut damaged) = (1, None);
    loop {
        line.clear();
        number += 1;
        if reader.read_until(b'\n', &mut line).map_err(failure)? == 0 {
            return Ok(Some(Content {
                fingerprint,
                length,
            }));
        }
        match (Record::parse(&line), damaged) {
            (Some(record), None) => {
                length += line.len() as u64;
                on_record(record);
            }
            (None, None) => damaged = Some(number),
            (None, Some(_)) => {}
            // Only the end of the file can be torn.
            (Some(_), Some(number)) => return Err(JournalError::Damaged(path.to_owned(), number)),
        }
    }
}

fn not_a_header(path: &Path, line: &[u8]) -> JournalError {
    let path = path.to_owned();
    if line.starts_with(record::MAGIC.as_bytes()) {
        JournalError::Damaged(path, 1)
    } else if line.starts_with(record::ANY_VERSION.as_bytes()) {
        JournalError::OtherVersion(path)
    } else {
        JournalError::NotAJournal(path)
    }
}

/// Writes the first line, so that it and the entry in the directory survive a power failure.
fn create(path: &Path, mut file: &File, fingerprint: Option<&str>) -> io::Result<()> {
    // An empty file may have been created with another mode, which only its owner can change.
    #[cfg(unix)]
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    file.set_len(0)?;
    file.write_all(record::header(fingerprint).as_bytes())?;
    file.sync_all()?;
    #[cfg(unix)]
    {
        let parent = path.parent().filter(|path| !path.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Writes the records, on a thread of its own.
pub(super) struct Writer {
    requests: mpsc::Sender<Request>,
    /// Why no more records can be written.
    failure: Arc<OnceLock<JournalError>>,
}

struct Request {
    line: String,
    /// Gets the result of writing it to the disk.
    synced: Option<oneshot::Sender<Result<()>>>,
    /// Closes the file after it.
    is_last: bool,
}

impl Writer {
    pub(super) fn start(path: PathBuf, file: File) -> Result<Self> {
        let (requests, incoming) = mpsc::channel();
        let failure = Arc::new(OnceLock::new());
        let writer = Writer {
            requests,
            failure: Arc::clone(&failure),
        };
        let failed = path.clone();
        std::thread::Builder::new()
            .name("envoi-journal".into())
            .spawn(move || write(&path, file, &incoming, &failure))
            .map_err(|error| JournalError::io(&failed, error))?;
        Ok(writer)
    }

    /// Appends a line, without waiting for it.
    pub(super) fn append(&self, line: String) -> Result<()> {
        if let Some(failure) = self.failure.get() {
            return Err(failure.clone());
        }
        self.request(line, None, false)
    }

    /// Appends a line. The future waits until it and all lines before it are on the disk.
    pub(super) fn append_synced(
        &self,
        line: String,
    ) -> Result<impl Future<Output = Result<()>> + use<>> {
        self.request_synced(line, false)
    }

    /// Closes the file. The future waits until all lines are on the disk.
    pub(super) fn close(&self) -> Result<impl Future<Output = Result<()>> + use<>> {
        self.request_synced(String::new(), true)
    }

    fn request_synced(
        &self,
        line: String,
        is_last: bool,
    ) -> Result<impl Future<Output = Result<()>> + use<>> {
        let (synced, result) = oneshot::channel();
        self.request(line, Some(synced), is_last)?;
        Ok(async move { result.await.unwrap_or(Err(JournalError::Closed)) })
    }

    fn request(
        &self,
        line: String,
        synced: Option<oneshot::Sender<Result<()>>>,
        is_last: bool,
    ) -> Result<()> {
        let request = Request {
            line,
            synced,
            is_last,
        };
        // The thread has ended after the last request.
        self.requests
            .send(request)
            .map_err(|_| JournalError::Closed)
    }
}

/// Writes all lines that have come by one call, and syncs them by another if any is waited for:
/// those that come meanwhile share the next one.
fn write(
    path: &Path,
    mut file: File,
    requests: &mpsc::Receiver<Request>,
    failure: &OnceLock<JournalError>,
) {
    let (mut lines, mut waiting) = (String::new(), Vec::new());
    let mut is_over = false;
    while !is_over && let Ok(first) = requests.recv() {
        lines.clear();
        for request in std::iter::once(first).chain(requests.try_iter()) {
            lines.push_str(&request.line);
            waiting.extend(request.synced);
            is_over |= request.is_last;
        }
        if failure.get().is_none() {
            let written = file.write_all(lines.as_bytes());
            let synced = written.and_then(|()| match waiting.is_empty() {
                true => Ok(()),
                false => file.sync_data(),
            });
            if let Err(error) = synced {
                // What is on the disk is not known, so nothing follows it.
                let _ = failure.set(JournalError::io(path, error));
            }
        }
        if is_over {
            break;
        }
        answer(&mut waiting, failure);
    }
    if failure.get().is_none()
        && let Err(error) = file.sync_data()
    {
        let _ = failure.set(JournalError::io(path, error));
    }
    // Unlocks it.
    drop(file);
    answer(&mut waiting, failure);
}

fn answer(waiting: &mut Vec<oneshot::Sender<Result<()>>>, failure: &OnceLock<JournalError>) {
    let result = failure.get().cloned().map_or(Ok(()), Err);
    for synced in waiting.drain(..) {
        // The future that waited may have been dropped.
        let _ = synced.send(result.clone());
    }
}
