//! The hand-overs that are in progress on a connection.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;

use crate::error::Result;

/// The callbacks of the messages whose end the machine holds back, in their order. They run
/// concurrently; their results are taken in order, as the bytes leave in order.
///
/// Each wake-up polls all of them: no more than the window of `send_all` has. In one of 64
/// messages, the default, that costs less than a microsecond for each message.
#[derive(Default)]
pub(super) struct HandoverQueue(VecDeque<Running>);

struct Running {
    callback: BoxFuture<'static, Result<()>>,
    /// The result, until the hand-overs before it have theirs.
    result: Option<Result<()>>,
}

impl HandoverQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, callback: BoxFuture<'static, Result<()>>) {
        self.0.push_back(Running {
            callback,
            result: None,
        });
    }

    /// Drops the first callbacks until as many are left as the machine holds messages back: the
    /// server has refused the others meanwhile, or the session is over.
    pub(super) fn keep_last(&mut self, count: usize) {
        let dropped = self.0.len().saturating_sub(count);
        self.0.drain(..dropped);
    }

    /// Polls all callbacks, and returns the result of the first one.
    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        for running in &mut self.0 {
            if running.result.is_none()
                && let Poll::Ready(result) = running.callback.as_mut().poll(cx)
            {
                running.result = Some(result);
            }
        }
        match self.0.front_mut().and_then(|first| first.result.take()) {
            Some(result) => {
                self.0.pop_front();
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    }
}
