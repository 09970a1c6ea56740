//! Runs the streams of an HTTP/2 connection: on the connection's own task while they need not wait, and on tasks of their
//! own from then on.
//!
//! hyper gives each stream to an executor. With a task for each, a call that is answered from memory costs a task, a
//! wake-up of the connection, often from another thread, and a write of its own. So streams are collected while the connection
//! reads what came, and polled once after that: replies that are ready by then leave together, in one write.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hyper::rt::Executor;

/// Streams that are collected at a time. More get a task each at once.
const MAX_COLLECTED: usize = 64;

/// The time for which a connection polls streams; those that are left then get a task each.
const POLL_TIME: Duration = Duration::from_millis(1);

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// Streams opened by the connection that this thread is polling; `None` while it polls none.
    static OPENED: RefCell<Option<Vec<Stream>>> = const { RefCell::new(None) };
}

/// Collects the streams that a connection opens for [`poll`], and spawns a task for any other future.
#[derive(Clone, Copy)]
pub(super) struct StreamExecutor;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let stream: Stream = Box::pin(stream);
        let alone = OPENED.with_borrow_mut(|opened| match opened {
            Some(opened) if opened.len() < MAX_COLLECTED => {
                opened.push(stream);
                None
            }
            _ => Some(stream),
        });
        if let Some(stream) = alone {
            tokio::spawn(stream);
        }
    }
}

/// Polls a connection, and once each stream that it opens meanwhile. What a stream has to send wakes the connection.
pub(super) fn poll<C: Future>(connection: Pin<&mut C>, context: &mut Context<'_>) -> Poll<C::Output> {
    OPENED.set(Some(Vec::new()));
    let over = Collecting;
    let polled = connection.poll(context);
    let opened = OPENED.take();
    drop(over);
    let mut begun = None;
    for stream in opened.into_iter().flatten() {
        if begun.get_or_insert_with(Instant::now).elapsed() < POLL_TIME {
            poll_once(stream);
        } else {
            tokio::spawn(stream);
        }
    }
    polled
}

/// Ends the collecting of streams, also where the connection panics.
struct Collecting;

impl Drop for Collecting {
    fn drop(&mut self) {
        OPENED.take();
    }
}

/// A stream that is not ready gets a task, which polls it again: no wake-up between the two is missed.
fn poll_once(mut stream: Stream) {
    // As on a task of its own, a panic ends this stream alone.
    let waiting = catch_unwind(AssertUnwindSafe(move || {
        let mut context = Context::from_waker(Waker::noop());
        stream.as_mut().poll(&mut context).is_pending().then_some(stream)
    }));
    if let Ok(Some(stream)) = waiting {
        tokio::spawn(stream);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};
    use std::pin::pin;

    use tokio::sync::oneshot;

    use super::*;

    /// Polls a connection once, which opens these streams and goes on.
    async fn open(streams: Vec<Stream>) {
        let mut streams = Some(streams);
        let mut connection = pin!(poll_fn(|_| {
            streams.take().into_iter().flatten().for_each(|stream| StreamExecutor.execute(stream));
            Poll::<()>::Pending
        }));
        poll_fn(|context| {
            assert!(poll(connection.as_mut(), context).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    fn sends(reply: oneshot::Sender<()>, after: impl Future<Output = ()> + Send + 'static) -> Stream {
        Box::pin(async move {
            after.await;
            reply.send(()).unwrap();
        })
    }

    #[tokio::test]
    async fn a_stream_that_need_not_wait_is_over_with_the_poll_that_opened_it() {
        let (reply, mut replied) = oneshot::channel();
        open(vec![sends(reply, ready(()))]).await;
        replied.try_recv().unwrap();
    }

    #[tokio::test]
    async fn a_stream_that_waits_goes_on_beside_its_connection() {
        let (go, gone) = oneshot::channel::<()>();
        let (reply, replied) = oneshot::channel();
        open(vec![sends(reply, async { gone.await.unwrap() }), Box::pin(pending())]).await;
        go.send(()).unwrap();
        replied.await.unwrap();
    }

    #[tokio::test]
    async fn a_stream_that_panics_ends_alone() {
        let (reply, replied) = oneshot::channel();
        let panics = Box::pin(async { panic!("on purpose") });
        open(vec![panics, sends(reply, ready(()))]).await;
        replied.await.unwrap();
    }

    #[tokio::test]
    async fn more_than_a_connection_polls_at_a_time_get_tasks() {
        let channels = (0..=MAX_COLLECTED).map(|_| oneshot::channel());
        let (senders, mut receivers): (Vec<_>, Vec<_>) = channels.unzip();
        open(senders.into_iter().map(|reply| sends(reply, ready(()))).collect()).await;
        let mut last = receivers.pop().unwrap();
        last.try_recv().unwrap_err();
        last.await.unwrap();
        for mut first in receivers {
            first.try_recv().unwrap();
        }
    }
}
