//! Passwords in files and on standard input, for the examples `send` and `probe`.

use std::error::Error as _;
use std::io;
use std::path::Path;
use std::time::Instant;

use envoi::Secret;

/// The path of standard input.
pub fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// A password in a file, of which the end is waited for until then, or from standard input.
pub fn read(path: &Path, until: Instant) -> io::Result<Secret> {
    let secret = match is_stdin(path) {
        true => Secret::from_reader(io::stdin()),
        false => Secret::from_file_within(path, until.saturating_duration_since(Instant::now())),
    };
    // What caused the error does not have the name of the file, which may be the password given by
    // mistake.
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

/// Says that the file of an option is no password.
pub fn unreadable(option: &str, error: &io::Error) -> String {
    format!("{option} cannot be read as text: {error}")
}
