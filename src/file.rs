//! Files that settings and messages name: opened without waiting for another process, and read
//! within limits of size and time.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// A file for a setting that is not a regular file (a FIFO, a device) has this time to reach its
/// end. It is enough for a program that computes what it writes, and short enough for a person who
/// waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// When reading a file for a setting must end, unless the caller has less time.
pub(crate) fn time_limit() -> Instant {
    Instant::now() + PATIENCE
}

/// Opens a file for reading. A FIFO opens at once, without a process that writes to it, and a
/// terminal does not become that of this process.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        options.custom_flags(flags.bits().cast_signed());
    }
    options.open(path)
}

/// Reads a file to its end, which must come within `limit` bytes and, for anything but a regular
/// file, before `until`.
pub(crate) fn read(path: &Path, limit: u64, until: Instant) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    // A FIFO that no process has opened for writing yet has no end either: it is waited for.
    let mut must_wait = !metadata.is_file() && !metadata.is_dir();
    if metadata.is_file() && metadata.len() > limit {
        return Err(too_large(limit));
    }
    let expected = metadata.len().min(limit) + 1;
    // One piece of memory where the size is known: what is read may be a secret, and leaves no copy
    // on the way.
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or_default());
    loop {
        if must_wait {
            wait(&file, until)?;
        }
        match (&file).take(limit + 1 - bytes.len() as u64).read_to_end(&mut bytes) {
            Ok(_) if bytes.len() as u64 > limit => return Err(too_large(limit)),
            Ok(_) => return Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => must_wait = true,
            Err(error) => return Err(error),
        }
    }
}

/// Waits until there is something to read, or the end.
#[cfg(unix)]
fn wait(file: &File, until: Instant) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(endless()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(not(unix))]
fn wait(_: &File, _: Instant) -> io::Result<()> {
    Err(endless())
}

fn too_large(limit: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {}", size(limit)))
}

fn endless() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it is a FIFO or a device, and its end did not come in time")
}

/// A limit in words: `16 MiB`.
fn size(bytes: u64) -> String {
    match bytes {
        1_048_576.. => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{} KiB", bytes / 1024),
    }
}

/// The text of a file: PowerShell's `>` writes UTF-16, and editors put a byte order mark before
/// UTF-8.
pub(crate) fn utf8(bytes: &[u8]) -> Cow<'_, [u8]> {
    let utf16 = |unit: fn([u8; 2]) -> u16| {
        let units = bytes[2..].chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        Cow::Owned(char::decode_utf16(units).map(|char| char.unwrap_or('\u{FFFD}')).collect::<String>().into_bytes())
    };
    match bytes {
        [0xFF, 0xFE, ..] => utf16(u16::from_le_bytes),
        [0xFE, 0xFF, ..] => utf16(u16::from_be_bytes),
        [0xEF, 0xBB, 0xBF, rest @ ..] => Cow::Borrowed(rest),
        _ => Cow::Borrowed(bytes),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;

    use super::*;

    fn fifo(folder: &tempfile::TempDir) -> PathBuf {
        let path = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    #[test]
    fn a_regular_file_is_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [7; 2048]).unwrap();
        assert_eq!(read(&path, 2048, time_limit()).unwrap(), [7; 2048]);
        let error = read(&path, 2047, time_limit()).unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (io::ErrorKind::FileTooLarge, "it is larger than 1 KiB"));
        // Its size is reported as 0.
        assert!(!read(Path::new("/proc/version"), 2048, time_limit()).unwrap().is_empty());
    }

    #[test]
    fn a_device_without_an_end_is_refused() {
        let error = read(Path::new("/dev/zero"), 1 << 20, time_limit()).unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
        assert_eq!(read(Path::new("/dev/null"), 1, time_limit()).unwrap(), b"");
    }

    #[test]
    fn a_fifo_without_a_writer_ends_with_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(&fifo(&folder), 1 << 20, Instant::now()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_fifo_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(&folder);
        let writer = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut file = File::options().write(true).open(path).unwrap();
                for _ in 0..100 {
                    file.write_all(&[7; 2048]).unwrap();
                }
            }
        });
        assert_eq!(read(&path, 1 << 20, time_limit()).unwrap().len(), 204_800);
        writer.join().unwrap();
    }

    #[test]
    fn a_fifo_that_stays_open_ends_with_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(&folder);
        // Opened for both: there is a writer all the time, which writes nothing more.
        let mut writer = File::options().read(true).write(true).open(&path).unwrap();
        writer.write_all(b"the beginning").unwrap();
        let error = read(&path, 1 << 20, Instant::now()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
