//! The signals by which a user or a service manager ends the program.

use futures::Stream;

/// An item for each SIGINT (Ctrl-C) and SIGTERM.
#[cfg(unix)]
pub fn stream() -> impl Stream<Item = ()> {
    use std::task::Poll;
    use tokio::signal::unix::{SignalKind, signal};

    let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
    // Where a signal cannot be handled, it ends the process.
    let mut signals: Vec<_> = kinds.into_iter().flat_map(signal).collect();
    futures::stream::poll_fn(move |cx| {
        let has_come = signals
            .iter_mut()
            .any(|signal| signal.poll_recv(cx).is_ready());
        match has_come {
            true => Poll::Ready(Some(())),
            false => Poll::Pending,
        }
    })
}

/// An item for each Ctrl-C.
#[cfg(not(unix))]
pub fn stream() -> impl Stream<Item = ()> {
    futures::stream::unfold((), |()| async {
        tokio::signal::ctrl_c().await.ok().map(|()| ((), ()))
    })
}
