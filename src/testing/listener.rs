//! Where connections come in.

use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use super::Shared;
use super::session::{self, Stream};

pub(super) enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Without it a reply may wait for the client's delayed acknowledgement. Where it fails, the connection is gone.
                let _ = stream.set_nodelay(true);
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            Listener::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

pub(super) async fn accept(listener: Listener, shared: Arc<Shared>) {
    // When this task is aborted, the set is dropped, and with it every session.
    let mut sessions = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok(stream) => {
                sessions.spawn(session::serve(stream, shared.clone()));
            }
            // The client is gone already, or this process has too many files open: no reason to end.
            Err(_) => tokio::task::yield_now().await,
        }
        while sessions.try_join_next().is_some() {}
    }
}
