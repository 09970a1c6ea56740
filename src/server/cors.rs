//! Cross-origin requests (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>): browsers let pages of the origins in
//! `http.cors_origins` call in every dialect and read the replies, and no other page.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method as Verb, Response, StatusCode};
use tonic::body::Body;

use crate::config::Config;

/// The verbs of all dialects; a path that lacks one answers so itself.
const VERBS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");

/// Headers of replies that pages may read, beside those that every page may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "etag, retry-after, www-authenticate, allow, accept-post, x-request-id, grpc-status, grpc-message, \
     grpc-status-details-bin, grpc-encoding, grpc-accept-encoding, content-encoding, \
     connect-content-encoding, connect-accept-encoding",
);

/// The time for which a browser need not ask again, in seconds: the longest that one keeps an answer.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// The origins whose pages may call.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Vec<HeaderValue>,
}

impl Cors {
    pub(super) fn new(config: &Config) -> Self {
        let origins = config.http.cors_origins.iter();
        Self { origins: origins.filter_map(|origin| HeaderValue::from_str(origin).ok()).collect() }
    }

    /// The origin of the page that sends a request, if it is listed.
    pub(super) fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if self.origins.is_empty() {
            return None;
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        let origin = origins.next().filter(|_| origins.next().is_none())?;
        self.origins.iter().find(|listed| *listed == origin).cloned()
    }

    /// The answer to a browser that asks, without a key, if a page of a listed origin may send a request. All headers
    /// are allowed: those that nothing reads do no harm.
    pub(super) fn preflight(&self, head: &Parts) -> Option<Response<Body>> {
        if head.method != Verb::OPTIONS || !head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        self.origin(&head.headers)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, VERBS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        if let Some(asked) = head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        Some(response)
    }

    /// Adds the headers by which a browser lets the page at `origin`, which is listed, read the response. `Vary` is set whenever
    /// any origin is listed, so that caches tell origins apart.
    pub(super) fn share(&self, origin: Option<HeaderValue>, response: &mut Response<Body>) {
        if self.origins.is_empty() {
            return;
        }
        let headers = response.headers_mut();
        headers.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}
