//! Work on a connection that is carried to its end.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;

/// Longest that a connection is kept busy with no caller waiting for it: by the rest of an abandoned
/// statement, by ROLLBACK, or by the ping with which the driver takes it back into the pool.
pub(super) const MAX_ABANDONED: Duration = Duration::from_secs(1);

/// Work on a connection. If its caller leaves, a task sees it through for as long as [`MAX_ABANDONED`], so
/// that no statement is cut in two on a connection that others will use.
pub(super) struct Running<T: Send + 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<T: Send + 'static> Running<T> {
    pub(super) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { work: Some(Box::pin(work)) }
    }
}

impl<T: Send + 'static> Future for Running<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(work) = self.work.as_mut() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Running<T> {
    fn drop(&mut self) {
        if let (Some(work), Ok(tasks)) = (self.work.take(), Handle::try_current()) {
            tasks.spawn(timeout(MAX_ABANDONED, work));
        }
    }
}
