//! Passwords and tokens from files and streams.

use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Phase, Result};
use crate::file;
use crate::secret::Secret;
use crate::text::quoted;

impl Secret {
    /// Reads a secret from a file, without one line end at its end. The file is UTF-8, or UTF-16
    /// with a byte order mark, as PowerShell writes it.
    ///
    /// Blocks on file I/O. A FIFO or a device is read to EOF, for at most 5 seconds.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): the file cannot be read, has more than 64
    /// KiB, or is not text.
    ///
    /// ```no_run
    /// let password = envoi::Secret::from_file("/run/secrets/smtp-password")?;
    /// let endpoint = envoi::Endpoint::new("mail.example.org")
    ///     .user("alice@example.org")
    ///     .password(password);
    /// # Ok::<(), envoi::Error>(())
    /// ```
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Secret::read(path.as_ref(), "the password", file::time_limit())
    }

    /// Like [`from_file`](Self::from_file), but waits at most `time` for the end of a FIFO or a
    /// device.
    ///
    /// # Errors
    ///
    /// As [`from_file`](Self::from_file).
    pub fn from_file_within(path: impl AsRef<Path>, time: Duration) -> Result<Self> {
        let now = Instant::now();
        // A century is more than any file takes.
        let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        Secret::read(path.as_ref(), "the password", now + time.min(century))
    }

    /// Reads a secret from a reader, such as standard input, to EOF, in the format of
    /// [`from_file`](Self::from_file). Blocks as the reader does, without a time-out.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): the reader fails, returns more than 64 KiB,
    /// or what it returns is not text.
    ///
    /// ```
    /// assert!(envoi::Secret::from_reader(&b"secret\n"[..])? == envoi::Secret::new("secret"));
    /// # Ok::<(), envoi::Error>(())
    /// ```
    pub fn from_reader(reader: impl io::Read) -> Result<Self> {
        let bytes = file::read_all(reader, Self::LIMIT);
        bytes
            .and_then(|bytes| Secret::decode(&bytes))
            .map_err(|error| {
                Error::new(
                    ErrorKind::Config,
                    Phase::Setup,
                    format!("the password cannot be read: {error}"),
                )
                .with_hint("Give the password as text, and close the stream after it.")
                .with_source(error)
            })
    }

    /// The maximum size of a file with a secret, in bytes.
    const LIMIT: u64 = 64 * 1024;

    /// Reads a file until `until` at most; `what` describes the secret in errors.
    pub(crate) fn read(path: &Path, what: &str, until: Instant) -> Result<Self> {
        let cannot = |error: io::Error| {
            let shown = quoted(&path.to_string_lossy());
            let hint = match error.kind() {
                io::ErrorKind::NotFound => "Check the path.",
                io::ErrorKind::PermissionDenied => "Let the user that runs this program read it.",
                _ => "Give a regular file that holds the password.",
            };
            Error::new(
                ErrorKind::Config,
                Phase::Setup,
                format!("the file {shown} with {what} cannot be read: {error}"),
            )
            .with_hint(hint)
            .with_source(error)
        };
        file::read(path, Self::LIMIT, until)
            .and_then(|bytes| Secret::decode(&bytes))
            .map_err(cannot)
    }

    /// Returns the text of a file, without one line end at its end.
    fn decode(bytes: &[u8]) -> io::Result<Self> {
        let owned;
        let text = match file::utf8(bytes) {
            Cow::Owned(text) => {
                owned = Zeroizing::new(text);
                &owned[..]
            }
            Cow::Borrowed(text) => text,
        };
        let text = std::str::from_utf8(text)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text in UTF-8"))?;
        let line = text
            .strip_suffix('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line));
        Ok(Secret::new(line.unwrap_or(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_from_a_reader_equals_one_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let utf16 = |text: &[u16]| {
            [0xFEFF]
                .iter()
                .chain(text)
                .flat_map(|unit| unit.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        for (bytes, secret) in [
            (b"secret".to_vec(), Some("secret")),
            (b"secret\r\n".to_vec(), Some("secret")),
            (b"two\n\n".to_vec(), Some("two\n")),
            ("\u{FEFF}päss\n".into(), Some("päss")),
            (
                utf16(&"päss\r\n".encode_utf16().collect::<Vec<_>>()),
                Some("päss"),
            ),
            (b"".to_vec(), Some("")),
            // Half a character would be another password.
            (utf16(&[0x70, 0xD83D]), None),
            (b"p\xE4ss".to_vec(), None),
            (vec![b'x'; 65_537], None),
        ] {
            std::fs::write(&path, &bytes).unwrap();
            let second = std::time::Duration::from_secs(1);
            for read in [
                Secret::from_reader(&*bytes),
                Secret::from_file(&path),
                Secret::from_file_within(&path, second),
            ] {
                match (read, secret) {
                    (Ok(read), Some(secret)) => assert_eq!(read.expose(), secret),
                    (Err(error), None) => assert_eq!(error.kind(), crate::ErrorKind::Config),
                    (read, _) => panic!("{bytes:?} {:?}", read.err()),
                }
            }
        }
    }
}
