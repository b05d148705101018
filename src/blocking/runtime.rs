//! Runs futures to their end on the calling thread.

use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::coop::poll_proceed;

#[cfg(feature = "pool")]
use crate::connection::in_blocking_call;
use crate::error::{Error, ErrorKind, Phase, Result};

/// Waits for a future on this thread.
///
/// # Errors
///
/// That of the future; [`ErrorKind::Config`] if this thread is running a task of a tokio runtime,
/// or if the runtime cannot be created.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    if Handle::try_current().is_ok() && is_in_task() {
        let message = "a blocking call was made in an async task, whose thread it would block";
        return Err(
            Error::new(ErrorKind::Config, Phase::Setup, message).with_hint(
                "Use the async type of the same name there, or make the call in \
             tokio::task::spawn_blocking.",
            ),
        );
    }
    #[cfg(feature = "pool")]
    let future = in_blocking_call(future);
    runtime()?.block_on(future)
}

/// The runtime of the process. Several threads can block on it at once: each polls its own future,
/// and one of them waits for the sockets and timers of all.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| {
            let message = format!("the runtime of blocking calls cannot be created: {error}");
            Error::new(ErrorKind::Config, Phase::Setup, message)
                .with_hint("The process may have too many open files.")
                .with_source(error)
        })?;
    Ok(RUNTIME.get_or_init(|| runtime))
}

/// Whether this thread is polling a task of a tokio runtime, where `block_on` panics.
///
/// tokio has no function for this, but it limits the work of a task in each poll, and not the work
/// in `spawn_blocking`, in `block_in_place` and outside its threads. Whether there is a limit shows
/// when it is used up.
fn is_in_task() -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let mut units = Vec::new();
    // The limit is a u8.
    let is_limited = (0..=u8::MAX).any(|_| match poll_proceed(&mut cx) {
        Poll::Ready(unit) => {
            units.push(unit);
            false
        }
        Poll::Pending => true,
    });
    // Dropped, each unit restores the limit to what it was before: the first one last.
    while units.pop().is_some() {}
    is_limited
}

#[cfg(test)]
mod tests {
    use tokio::task::coop::has_budget_remaining;

    use super::*;

    fn units_left() -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        let mut units = Vec::new();
        while let Poll::Ready(unit) = poll_proceed(&mut cx)
            && units.len() < 1000
        {
            units.push(unit);
        }
        let count = units.len();
        while units.pop().is_some() {}
        count
    }

    #[tokio::test]
    async fn a_task_is_recognized_and_keeps_its_budget() {
        let before = units_left();
        assert!((1..=255).contains(&before), "{before}");
        assert!(is_in_task());
        assert_eq!(units_left(), before);
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(unit) = poll_proceed(&mut cx) {
            unit.made_progress();
        }
        assert!(is_in_task() && !has_budget_remaining());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn threads_that_may_block_are_recognized() {
        assert!(is_in_task());
        assert!(!tokio::task::spawn_blocking(is_in_task).await.unwrap());
        assert!(!std::thread::spawn(is_in_task).join().unwrap());
        let task = tokio::spawn(async {
            assert!(is_in_task());
            assert!(!tokio::task::block_in_place(is_in_task));
            assert!(is_in_task());
        });
        task.await.unwrap();
    }
}
