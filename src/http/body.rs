//! Bodies of replies. They hold permits until the last byte is sent, and end streams that have no end of
//! their own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// Most bytes of a reply that are handed to the HTTP library at a time: where it copies them (HTTP/1.1 over
/// TLS), so much of a reply may outlive its permits.
const MAX_PIECE: usize = 64 * 1024;

/// The permits of one request, released together when the last clone is dropped.
pub type HeldPermits = Arc<dyn Send + Sync>;

/// Resolves when a stream must end, to the status with which it ends.
pub type End = Pin<Box<dyn Future<Output = Status> + Send>>;

/// The response, which keeps its permits until it is sent or dropped.
pub fn hold_permits(permits: HeldPermits, response: Response<Body>) -> Response<Body> {
    response.map(|body| ReplyBody { body, rest: Bytes::new(), permits: Some(permits), end: None }.into())
}

/// The body of a gRPC stream, which ends when `end` resolves, if not before.
pub(super) fn until(end: End, body: Body) -> Body {
    ReplyBody { body, rest: Bytes::new(), permits: None, end: Some(end) }.into()
}

struct ReplyBody {
    body: Body,
    /// The part of a data frame that was not handed on yet.
    rest: Bytes,
    permits: Option<HeldPermits>,
    end: Option<End>,
}

/// Bytes with their permits: the HTTP library may drop a body as soon as it has queued its bytes.
struct HeldBytes {
    bytes: Bytes,
    _permits: Option<HeldPermits>,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<ReplyBody> for Body {
    fn from(body: ReplyBody) -> Self {
        Self::new(body)
    }
}

impl ReplyBody {
    /// The next frame of the inner body, or the trailers of the status with which the stream must end.
    fn poll_inner(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let Some(end) = self.end.as_mut().filter(|_| frame.is_pending()) else { return frame };
        let status = ready!(end.as_mut().poll(context));
        (self.body, self.end) = (Body::empty(), None);
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.permits.is_none() {
            return this.poll_inner(context);
        }
        if this.rest.is_empty() {
            let frame = match ready!(this.poll_inner(context)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(bytes) => {
                    this.rest = Bytes::from_owner(HeldBytes { bytes, _permits: this.permits.clone() });
                }
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(MAX_PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt as _;

    use super::*;

    fn held(length: usize) -> (Arc<()>, Body) {
        let permit = Arc::new(());
        let body = Body::new(http_body_util::Full::new(Bytes::from(vec![7; length])));
        let permits: HeldPermits = Arc::new(Arc::clone(&permit));
        (permit, hold_permits(permits, Response::new(body)).into_body())
    }

    #[tokio::test]
    async fn bytes_on_their_way_keep_the_permits_when_the_body_is_gone() {
        let (permit, mut body) = held(MAX_PIECE + 1);
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((first.len(), body.is_end_stream()), (MAX_PIECE, false));
        let second = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((second.len(), body.is_end_stream()), (1, true));
        drop((body, first));
        assert_eq!(Arc::strong_count(&permit), 2, "the last byte is not sent");
        drop(second);
        assert_eq!(Arc::strong_count(&permit), 1);
    }

    #[tokio::test]
    async fn a_reply_that_is_dropped_releases_its_permits() {
        let (permit, body) = held(5);
        assert_eq!(body.size_hint().exact(), Some(5));
        drop(body);
        assert_eq!(Arc::strong_count(&permit), 1);
    }

    #[test]
    fn an_empty_reply_has_an_end() {
        assert!(hold_permits(Arc::new(()), Response::new(Body::empty())).body().is_end_stream());
    }
}
