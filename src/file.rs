//! Reads the files of settings and messages: opens them without blocking, and reads them within
//! limits of size and time.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

/// The time limit for reading a setting from a file that is not regular (a FIFO, a device). It is
/// long enough for a program that computes its output, and short enough for a user who waits.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// The maximum size of a secret. Files up to this size are read into one allocation, because
/// growing it would leave copies.
const SECRET_BUFFER: u64 = 64 * 1024;

/// If fewer bytes are free, `read_to_end` reads into a buffer of its own, which is not wiped.
const PROBE: usize = 32;

/// The time by which reading a setting must end, unless the caller has less time.
pub(crate) fn time_limit() -> Instant {
    Instant::now() + TIME_LIMIT
}

/// Opens a file for reading. A FIFO opens without waiting for a writer, and a terminal does not
/// become the controlling terminal.
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

/// Reads a whole file of at most `limit` bytes. Files that are not regular must end before `until`.
/// The buffer may contain a secret, and is wiped.
pub(crate) fn read(path: &Path, limit: u64, until: Instant) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    // A FIFO without a writer reports EOF: wait for one.
    let mut must_wait = !metadata.is_file() && !metadata.is_dir();
    if metadata.is_file() && metadata.len() > limit {
        return Err(too_large(limit));
    }
    let mut bytes = buffer(metadata.len(), limit);
    loop {
        if must_wait {
            wait(&file, until)?;
        }
        match (&file)
            .take(limit + 1 - bytes.len() as u64)
            .read_to_end(&mut bytes)
        {
            Ok(_) if bytes.len() as u64 > limit => return Err(too_large(limit)),
            Ok(_) => return Ok(bytes),
            // Some devices are always ready without data.
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    && must_wait
                    && Instant::now() >= until =>
            {
                return Err(endless());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => must_wait = true,
            Err(error) => return Err(error),
        }
    }
}

/// Reads at most `limit` bytes to EOF. The buffer is wiped.
pub(crate) fn read_all(reader: impl io::Read, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = buffer(0, limit);
    reader.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        Err(too_large(limit))
    } else {
        Ok(bytes)
    }
}

/// An empty buffer for `expected` bytes, at least for a secret, in one allocation.
fn buffer(expected: u64, limit: u64) -> Zeroizing<Vec<u8>> {
    let capacity = usize::try_from(expected.max(SECRET_BUFFER).min(limit)).unwrap_or_default();
    Zeroizing::new(Vec::with_capacity(capacity + 1 + PROBE))
}

/// Waits for data or EOF.
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
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("it is larger than {}", size(limit)),
    )
}

fn endless() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        "it is a FIFO or a device, and its end did not come in time",
    )
}

/// A limit as text: `16 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        1_048_576.. => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{} KiB", bytes / 1024),
    }
}

/// Converts a text file to UTF-8: PowerShell's `>` writes UTF-16, and editors write a byte order
/// mark. An unpaired surrogate becomes a byte that is not UTF-8.
pub(crate) fn utf8(bytes: &[u8]) -> Cow<'_, [u8]> {
    let utf16 = |unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes[2..].as_chunks::<2>();
        // In one allocation: a unit becomes 3 bytes at most.
        let mut text = Vec::with_capacity(3 * pairs.len() + 1);
        for char in char::decode_utf16(pairs.iter().copied().map(unit)) {
            match char {
                Ok(char) => text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
                Err(_) => text.push(0xFF),
            }
        }
        text.extend(rest.iter().map(|_| 0xFF));
        Cow::Owned(text)
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
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        path
    }

    #[test]
    fn a_regular_file_is_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [7; 2048]).unwrap();
        assert_eq!(read(&path, 2048, time_limit()).unwrap()[..], [7; 2048]);
        let error = read(&path, 2047, time_limit()).unwrap_err();
        assert_eq!(
            (error.kind(), &*error.to_string()),
            (io::ErrorKind::FileTooLarge, "it is larger than 1 KiB")
        );
        // The reported size is 0.
        #[cfg(target_os = "linux")]
        assert!(
            !read(Path::new("/proc/version"), 2048, time_limit())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_device_without_an_end_is_refused() {
        let error = read(Path::new("/dev/zero"), 1 << 20, time_limit()).unwrap_err();
        assert_eq!(
            (error.kind(), &*error.to_string()),
            (io::ErrorKind::FileTooLarge, "it is larger than 1 MiB")
        );
        assert_eq!(
            read(Path::new("/dev/null"), 1, time_limit()).unwrap()[..],
            *b""
        );
    }

    #[test]
    fn a_fifo_without_a_writer_times_out() {
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

    /// Neither the buffer nor `read_to_end` allocates again.
    #[test]
    fn a_secret_is_read_into_a_single_allocation() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(&folder);
        // Two pieces, between which the reader waits.
        let pieces: &[&[u8]] = &[&[7; 40_000], &[7; 25_000]];
        let writer = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut file = File::options().write(true).open(path).unwrap();
                pieces
                    .iter()
                    .for_each(|piece| file.write_all(piece).unwrap());
            }
        });
        let bytes = read(&path, SECRET_BUFFER, time_limit()).unwrap();
        writer.join().unwrap();
        let room = buffer(0, SECRET_BUFFER).capacity();
        assert_eq!((bytes.len(), bytes.capacity()), (65_000, room));
        let bytes = read_all(&[7; 65_536][..], SECRET_BUFFER).unwrap();
        assert_eq!((bytes.len(), bytes.capacity()), (65_536, room));
        assert_eq!(
            read_all(&[7; 65_537][..], SECRET_BUFFER)
                .unwrap_err()
                .kind(),
            io::ErrorKind::FileTooLarge
        );
        // The buffer of a short file has enough spare capacity for `read_to_end`, too.
        let short = folder.path().join("short");
        std::fs::write(&short, "secret").unwrap();
        assert!(
            read(&short, SECRET_BUFFER, time_limit())
                .unwrap()
                .capacity()
                > 6 + PROBE
        );
    }

    #[test]
    fn a_truncated_character_is_not_text() {
        let le = |units: &[u16]| {
            [0xFEFF]
                .iter()
                .chain(units)
                .flat_map(|unit| unit.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let be = |units: &[u16]| {
            [0xFEFF]
                .iter()
                .chain(units)
                .flat_map(|unit| unit.to_be_bytes())
                .collect::<Vec<u8>>()
        };
        let text: Vec<u16> = "pä€😀".encode_utf16().collect();
        for bytes in [le(&text), be(&text)] {
            assert_eq!(*utf8(&bytes), *"pä€😀".as_bytes());
            // Half a unit at the end.
            assert!(std::str::from_utf8(&utf8(&[&bytes[..], b"x"].concat())).is_err());
        }
        for units in [
            &[0xD83D][..],
            &[0xDE00],
            &[0xDE00, 0xD83D],
            &[0x70, 0xD83D, 0x70],
        ] {
            assert!(
                std::str::from_utf8(&utf8(&le(units))).is_err(),
                "{units:x?}"
            );
            assert!(
                std::str::from_utf8(&utf8(&be(units))).is_err(),
                "{units:x?}"
            );
        }
    }

    #[test]
    fn a_fifo_that_stays_open_times_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(&folder);
        // Opened for both, so that there is always a writer, which writes nothing more.
        let mut writer = File::options().read(true).write(true).open(&path).unwrap();
        writer.write_all(b"the beginning").unwrap();
        let error = read(&path, 1 << 20, Instant::now()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
