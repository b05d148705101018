//! Where connections come in.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use super::Shared;
use super::session::{self, Stream};

/// Between two attempts to take a connection, where there is no room for one.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) enum BoundListener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl BoundListener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            BoundListener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Without it a reply may wait for the client's delayed acknowledgement. Where it
                // fails, the connection is gone.
                let _ = stream.set_nodelay(true);
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            BoundListener::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

pub(super) async fn accept(listener: BoundListener, shared: Arc<Shared>) {
    // When this task is aborted, the set is dropped, and with it every session.
    let mut sessions = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok(stream) => {
                sessions.spawn(session::serve(stream, shared.clone()));
            }
            // The client is gone already: no reason to end.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
                ) => {}
            // This process or the system has too many files open. The client waits, and nothing
            // tells when one is closed. A thread waits, as the runtime may have no clock.
            Err(_) => {
                let _ = tokio::task::spawn_blocking(|| std::thread::sleep(PAUSE)).await;
            }
        }
        while sessions.try_join_next().is_some() {}
    }
}
