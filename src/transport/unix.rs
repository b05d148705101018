//! Unix sockets: programs on this machine.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;

use crate::error::{Error, ErrorKind, Phase, Result};

/// The delay before trying again when the server's backlog is full.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// Connects to a Unix socket. Where TCP would wait in the server's backlog, a non-blocking connect
/// to a Unix socket fails at once if the backlog is full; so it is repeated for as long as the
/// caller waits.
pub(super) async fn connect(path: &Path) -> Result<UnixStream> {
    let error = loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(RETRY_DELAY).await
            }
            Err(error) => break error,
        }
    };
    let (kind, hint) = match error.kind() {
        // The path does not fit into an address, or contains a NUL: it never will be connected to.
        io::ErrorKind::InvalidInput => (
            ErrorKind::Config,
            "The path of a socket has about 100 bytes at most: name it by a symbolic link or a \
                relative path.",
        ),
        io::ErrorKind::PermissionDenied => (
            ErrorKind::Connect,
            "Sockets have owners and modes, as files have: this program's user must be allowed to \
                write to it.",
        ),
        _ => (
            ErrorKind::Connect,
            "Check the path, and that the server runs; its configuration says where it makes the \
                socket.",
        ),
    };
    let message = format!("no connection to the socket {} ({error})", path.display());
    Err(Error::new(kind, Phase::Connect, message)
        .with_hint(hint)
        .with_source(error))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_path_that_is_too_long_is_permanent() {
        let path = format!("/run/{}.sock", "x".repeat(200));
        let error = connect(Path::new(&path)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.is_permanent() && error.hint().unwrap().contains("100 bytes"));
        let error = connect(Path::new("/nonexistent/a.sock")).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Connect && error.is_transient());
    }

    #[tokio::test]
    async fn connecting_waits_for_a_full_backlog() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("busy.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut waiting = Vec::new();
        let full = loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let mut connecting = Box::pin(connect(&path));
        assert!(connecting.as_mut().now_or_never().is_none(), "it waits");
        listener.accept().await.unwrap();
        assert!(connecting.await.is_ok());
    }
}
