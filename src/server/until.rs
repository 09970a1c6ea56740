//! Streams that end when the server does.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::body::Body;
use tonic::{Code, Status};

/// The body of a gRPC stream, until `drain` is cancelled: then it ends with a status that has clients connect again.
pub(super) fn until(drain: CancellationToken, body: Body) -> Body {
    Body::new(Until { body, drain: Box::pin(drain.cancelled_owned()), ended: false })
}

struct Until {
    body: Body,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let frame = Pin::new(&mut this.body).poll_frame(context);
        if frame.is_ready() || this.drain.as_mut().poll(context).is_pending() {
            return frame;
        }
        this.ended = true;
        let mut trailers = HeaderMap::new();
        Status::new(Code::Unavailable, "the server is shutting down").add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }
}
