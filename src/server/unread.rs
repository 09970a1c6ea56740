//! Unread bodies: a request that is refused early over HTTP/1.1 must not break the connection.
//!
//! A client that still writes its request when the connection is closed sees a broken pipe, and often not the
//! answer. So of every body that is left over when the answer is ready, a bounded rest is read; where there
//! is more, the answer says that the connection closes (RFC 9112 §9.3 and §9.6). HTTP/2 needs none of it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Request, Response, Version};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tonic::body::Body;

/// The most that is read of a rest, in bytes and in time.
const MAX_REST: u64 = 256 * 1024;
const MAX_TIME: Duration = Duration::from_secs(1);

/// The body of a request, which its reader gives back where it stops before the end.
pub(super) struct Unread(Option<Arc<Loan>>);

struct Loan {
    returned: Mutex<Option<Incoming>>,
    /// True while the client waits for `100 Continue` before it sends the body.
    waits: AtomicBool,
}

/// The body while it is read.
struct Lent {
    body: Option<Incoming>,
    loan: Arc<Loan>,
}

impl Unread {
    /// Lends the body to the code that answers the request.
    pub(super) fn lend(request: Request<Incoming>) -> (Request<Body>, Self) {
        if request.version() >= Version::HTTP_2 || request.body().is_end_stream() {
            return (request.map(Body::new), Self(None));
        }
        let waits = AtomicBool::new(request.headers().contains_key(EXPECT));
        let loan = Arc::new(Loan { returned: Mutex::default(), waits });
        let lent = |body| Body::new(Lent { body: Some(body), loan: Arc::clone(&loan) });
        (request.map(lent), Self(Some(loan)))
    }

    /// Reads what is left of the body, or has the response say that the connection closes.
    pub(super) async fn finish(self, response: &mut Response<Body>) {
        let Some(loan) = self.0 else { return };
        let returned = loan.returned.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(body) = returned.filter(|body| !body.is_end_stream()) else { return };
        if loan.waits.load(Ordering::Relaxed) || !read_rest(body).await {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Returns true if it came to the end.
async fn read_rest(body: Incoming) -> bool {
    if body.size_hint().lower() > MAX_REST {
        return false;
    }
    let mut rest = Limited::new(body, usize::try_from(MAX_REST).unwrap_or(usize::MAX));
    let all = async {
        loop {
            match rest.frame().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return false,
                None => return true,
            }
        }
    };
    tokio::time::timeout(MAX_TIME, all).await.unwrap_or(false)
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        this.loan.waits.store(false, Ordering::Relaxed);
        this.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.loan.returned.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
    }
}
