//! Reads passwords from files and standard input, for the examples `send` and `probe`.

use std::error::Error as _;
use std::io;
use std::path::Path;
use std::time::Instant;

use envoi::Secret;

/// Whether the path stands for standard input.
pub fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Reads a password from standard input, or from a file, whose end must be reached by `until`.
pub fn read(path: &Path, until: Instant) -> io::Result<Secret> {
    let secret = match is_stdin(path) {
        true => Secret::from_reader(io::stdin()),
        false => Secret::from_file_within(path, until.saturating_duration_since(Instant::now())),
    };
    // The cause of the error lacks the name of the file, which may be the password by mistake.
    secret.map_err(|error| {
        match error
            .source()
            .and_then(|source| source.downcast_ref::<io::Error>())
        {
            Some(cause) => io::Error::new(cause.kind(), cause.to_string()),
            None => io::ErrorKind::Other.into(),
        }
    })
}

/// The message for a file that cannot be read as a password.
pub fn unreadable(option: &str, error: &io::Error) -> String {
    format!("{option} cannot be read as text: {error}")
}
