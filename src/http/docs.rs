//! The description of the JSON API: `/openapi.json` for programs, and `/docs`, which shows it and asks no other host for
//! anything.

use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method as Verb, Response};
use http_body_util::Full;
use sha2::{Digest as _, Sha256};
use tonic::body::Body;

use super::reply;

/// Nothing but what the page itself is made of. Swagger UI sets styles of elements.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// A document of the program.
#[derive(Debug)]
pub struct Document {
    path: &'static str,
    media_type: &'static str,
    content: &'static [u8],
    /// Of `content`. Every browser reads gzip.
    encoding: Option<&'static str>,
    /// Differs between versions of the program.
    etag: OnceLock<String>,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const GZIP: Option<&str> = Some("gzip");

static DOCUMENTS: [Document; 5] = [
    Document::new("/openapi.json", "application/json", include_bytes!("../../proto/openapi.json"), None),
    Document::new("/docs", HTML, include_bytes!("docs/index.html"), None),
    Document::new("/docs/start.js", SCRIPT, include_bytes!("docs/start.js"), None),
    Document::new("/docs/swagger-ui.js", SCRIPT, include_bytes!("docs/swagger-ui.js.gz"), GZIP),
    Document::new("/docs/swagger-ui.css", STYLE, include_bytes!("docs/swagger-ui.css.gz"), GZIP),
];

impl Document {
    const fn new(
        path: &'static str,
        media_type: &'static str,
        content: &'static [u8],
        encoding: Option<&'static str>,
    ) -> Self {
        Self { path, media_type, content, encoding, etag: OnceLock::new() }
    }

    /// The document at a path.
    pub fn of(path: &str) -> Option<&'static Self> {
        DOCUMENTS.iter().find(|document| document.path == path)
    }

    /// Answers a request for it. A client keeps it and asks each time if it is still the same.
    pub fn answer(&self, head: &Parts) -> Response<Body> {
        if !matches!(head.method, Verb::GET | Verb::HEAD) {
            return reply::other_verb(&head.method, &[&Verb::GET]);
        }
        let mut response = Response::new(Body::new(Full::new(Bytes::from_static(self.content))));
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: HeaderValue| headers.insert(name, value);
        set(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        set(header::CONTENT_LENGTH, HeaderValue::from(self.content.len()));
        set(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        set(header::CONTENT_SECURITY_POLICY, POLICY);
        set(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        set(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if let Some(encoding) = self.encoding {
            set(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        reply::tagged(head, Some(self.etag()), response)
    }

    fn etag(&self) -> &str {
        self.etag.get_or_init(|| {
            let digest = hex::encode(Sha256::digest(self.content));
            format!("\"{}\"", digest.get(..16).unwrap_or_default())
        })
    }
}
