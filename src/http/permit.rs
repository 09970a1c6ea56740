//! Permits that are held until a reply is sent.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Extensions, Response};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// Most bytes of a reply that are handed to the HTTP library at a time: where it copies them (HTTP/1.1 over TLS), so much
/// of a reply may outlive its permits.
const MAX_PIECE: usize = 64 * 1024;

/// The permits of one request, released together when the last clone is dropped.
///
/// Travels in the extensions of the request, and stays with its reply until all of that is sent or dropped: no layer
/// between can let go of it.
#[derive(Clone, Default)]
pub struct Permits(Arc<Mutex<Vec<Box<dyn Send>>>>);

impl Permits {
    /// Those of the request, or new ones if it comes without.
    pub fn of(extensions: &mut Extensions) -> Self {
        extensions.get_or_insert_default::<Self>().clone()
    }

    /// Keeps one more.
    pub fn keep(&self, permit: impl Send + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(permit));
    }

    /// The response, which keeps these permits until it is sent or dropped.
    #[must_use]
    pub fn held_by(self, response: Response<Body>) -> Response<Body> {
        response.map(|body| Body::new(Held { body, permits: self, rest: Bytes::new() }))
    }
}

/// A body with its permits.
struct Held {
    body: Body,
    permits: Permits,
    /// What of a data frame is not handed on yet.
    rest: Bytes,
}

/// Bytes with their permits: the HTTP library may drop a body as soon as it has queued its bytes.
struct HeldBytes {
    bytes: Bytes,
    _permits: Permits,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
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
        let permits = Permits::of(&mut Extensions::new());
        permits.keep(Arc::clone(&permit));
        let body = Body::new(http_body_util::Full::new(Bytes::from(vec![7; length])));
        (permit, permits.held_by(Response::new(body)).into_body())
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
        assert!(Permits::default().held_by(Response::new(Body::empty())).body().is_end_stream());
    }
}
