//! Accepts connections.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;

use super::Shared;
use super::session;
use crate::transport::Stream;

/// The delay before accepting again when there are too many open files.
const PAUSE: Duration = Duration::from_millis(20);

/// The stream to a client, with its socket.
pub(super) trait Peer: Stream {
    /// Makes the system reset the connection when the stream is dropped, if it can.
    fn reset_on_close(&self);
}

impl Peer for TcpStream {
    fn reset_on_close(&self) {
        // If this fails, the connection has been reset already.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

#[cfg(unix)]
impl Peer for UnixStream {
    fn reset_on_close(&self) {}
}

impl Peer for TlsStream<BufReader<Box<dyn Peer>>> {
    fn reset_on_close(&self) {
        self.get_ref().0.get_ref().reset_on_close();
    }
}

pub(super) enum BoundListener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl BoundListener {
    async fn accept(&self) -> io::Result<Box<dyn Peer>> {
        match self {
            BoundListener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Otherwise a reply may wait for the client's delayed acknowledgement. If this
                // fails, the connection is closed already.
                let _ = stream.set_nodelay(true);
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            BoundListener::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

pub(super) async fn accept(listener: BoundListener, shared: Arc<Shared>) {
    // When this task is aborted, the set is dropped, and every session with it.
    let mut sessions = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok(stream) => {
                sessions.spawn(session::serve(stream, shared.clone()));
            }
            // The client has closed the connection already.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
                ) => {}
            // Too many files are open in this process or the system. The client waits; there is no
            // event for a file that is closed. The pause uses a thread, as the runtime may have no
            // timer.
            Err(_) => {
                let _ = tokio::task::spawn_blocking(|| std::thread::sleep(PAUSE)).await;
            }
        }
        while sessions.try_join_next().is_some() {}
    }
}
