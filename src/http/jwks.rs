//! `/.well-known/jwks.json`: the public keys of assertions.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method as Verb, Response, StatusCode};
use tonic::body::Body;

use super::reply;

/// The path of the keys.
pub const PATH: &str = "/.well-known/jwks.json";

/// Verifiers may keep the keys for a time that is far shorter than the one for which a key is published before it signs.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// Answers a request for the keys, a JSON Web Key Set. An empty one is not kept.
pub fn answer(head: &Parts, keys: Bytes, is_empty: bool) -> Response<Body> {
    if !matches!(head.method, Verb::GET | Verb::HEAD) {
        return reply::other_verb(&head.method, &[&Verb::GET]);
    }
    let mut response = reply::whole(StatusCode::OK, "application/json", keys);
    if !is_empty {
        response.headers_mut().insert(header::CACHE_CONTROL, CACHE_CONTROL);
    }
    response
}
