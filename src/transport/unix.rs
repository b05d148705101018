//! Unix sockets: other programs of this machine.

#[cfg(unix)]
use std::io;
use std::path::Path;

use super::Stream;
use crate::error::{Error, Result};
#[cfg(unix)]
use crate::error::{Kind, Phase};

/// Opens a connection to a Unix socket, where another program of this machine listens.
#[cfg(unix)]
pub(crate) async fn connect_to_socket(path: &Path) -> Result<Box<dyn Stream>> {
    let connected = tokio::net::UnixStream::connect(path).await;
    connected.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "Sockets have owners and modes, as files have: this program's user must be allowed to write to it."
            }
            _ => "Check the path, and that the server runs; its configuration says where it makes the socket.",
        };
        let message = format!("no connection to the socket {} ({error})", path.display());
        Error::new(Kind::Connect, Phase::Connect, message).with_hint(hint).with_source(error)
    })
}

#[cfg(not(unix))]
pub(crate) async fn connect_to_socket(path: &Path) -> Result<Box<dyn Stream>> {
    Err(Error::request(format!("there are no Unix sockets on this system, and so not {}", path.display())))
}
