//! Headers that ask for something beside the call: preconditions of RFC 9110 §13, by the entity tags in messages.

use http::header::{self, HeaderName};
use http::{HeaderMap, Response, StatusCode};
use tonic::Status;
use tonic::body::Body;

use crate::error::Error;
use crate::headers::{IDEMPOTENCY_KEY, KEY, NAMESPACE};
use crate::http::reply;
use crate::pb::ErrorReason;
use transcode::schema::{Method, Schema};

/// The prefix with which grpc-gateway takes metadata, and metadata that has a header of its own name here, beside keys and
/// namespaces.
const METADATA_PREFIX: &str = "grpc-metadata-";
const OTHERS: [&str; 3] = [IDEMPOTENCY_KEY, "grpc-timeout", "x-request-id"];

/// Refuses what a caller of grpc-gateway sends as metadata and means to be read: a call that goes on without its
/// namespace acts in another one.
pub(super) fn reject_unread_metadata(headers: &HeaderMap) -> Result<(), Error> {
    let unread = headers.keys().find_map(|name| {
        let name = name.as_str().strip_prefix(METADATA_PREFIX)?;
        [&KEY[..], &NAMESPACE, &OTHERS].concat().contains(&name).then_some(name)
    });
    match unread {
        Some(name) => {
            Err(Error::invalid(format!("{METADATA_PREFIX}{name}"), format!("is not read: send it as {name}")))
        }
        None => Ok(()),
    }
}

/// Puts the tag of `If-Match` into the request's `etag`. `*` asks for no more than every call does: that there is such a
/// user.
///
/// # Errors
///
/// [`Error::invalid`] for a list of tags, for a call that takes none, and if the message has one too.
pub(super) fn put_if_match(
    schema: &Schema,
    method: &Method,
    headers: &HeaderMap,
    message: &mut Vec<u8>,
) -> Result<(), Error> {
    let Some(tag) = only(headers, &header::IF_MATCH)? else { return Ok(()) };
    if tag == "*" || schema.put_etag(method.input, tag, message) {
        return Ok(());
    }
    Err(Error::invalid("if-match", "must not be given to a call that takes no etag, nor beside one"))
}

/// The one tag of a header.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let tag = value.to_str().map(str::trim).ok().filter(|tag| !tag.is_empty() && !tag.contains(','));
    match tag.filter(|_| values.next().is_none()) {
        Some(tag) => Ok(Some(tag)),
        None => Err(Error::invalid(name.as_str(), "must be one entity tag")),
    }
}

/// The reply to a call that failed: 412 if that is what `If-Match` asked for.
pub(super) fn failure(headers: &HeaderMap, status: &Status) -> Response<Body> {
    if headers.contains_key(header::IF_MATCH) && reply::has_reason(status, ErrorReason::EtagMismatch) {
        return reply::error_as(StatusCode::PRECONDITION_FAILED, status);
    }
    reply::error(status)
}
