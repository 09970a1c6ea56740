//! Replies over HTTP: JSON bodies, and a gRPC status as HTTP status and `{code, message, details}`.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method as Verb, Response, StatusCode};
use serde::Serialize;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::coding;
use crate::grpc::status::refusal;
use crate::pb::ErrorReason;
use transcode::json::{self, Style, Wire, next_wire};
use transcode::schema::Schema;

/// `google.rpc.ErrorInfo` and its like. `None` is a fault in tonic-types that a test would show.
static DETAILS: LazyLock<Option<Schema>> =
    LazyLock::new(|| Schema::decode(tonic_types::pb::FILE_DESCRIPTOR_SET).ok());

/// The code of a stream that failed at its start, as an extension of a response whose HTTP status is 200.
#[derive(Clone, Copy, Debug)]
pub struct FailedStream(pub Code);

/// A JSON reply.
pub(super) fn json(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    whole(status, "application/json", body.into())
}

/// A reply that is in memory.
pub(super) fn whole(status: StatusCode, media: &'static str, body: Bytes) -> Response<Body> {
    let length = HeaderValue::from(body.len());
    let mut response = with_body(status, media, Body::new(http_body_util::Full::new(body)));
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
}

/// A refusal by HTTP's own status, for clients that read no JSON of ours, with words for people.
pub(super) fn text(status: StatusCode, why: String) -> Response<Body> {
    whole(status, "text/plain; charset=utf-8", why.into())
}

/// A reply whose length is not known.
pub(super) fn with_body(status: StatusCode, media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer to a failed call in the canonical form.
pub fn error(status: &Status) -> Response<Body> {
    error_as(http_status(status), status)
}

/// As [`error`], for what HTTP has a status of its own: no such path, another verb, another media type.
pub(super) fn error_as(http_status: StatusCode, status: &Status) -> Response<Body> {
    let mut body = Vec::new();
    error_body(status, &mut body);
    failure(http_status, body, status)
}

/// The JSON of a reply's model.
pub(super) fn serialized(model: &impl Serialize) -> Vec<u8> {
    // Models have text keys and no failing parts.
    serde_json::to_vec(model).unwrap_or_default()
}

/// Appends `{code, message, details}`.
pub(super) fn error_body(status: &Status, body: &mut Vec<u8>) {
    body.extend_from_slice(format!("{{\"code\":{},\"message\":", i32::from(status.code())).as_bytes());
    json::write_string(body, status.message());
    body.extend_from_slice(b",\"details\":[");
    write_details(status.details(), body);
    body.extend_from_slice(b"]}");
}

/// A JSON reply that stands for a status, with the headers that say what to do about it.
pub(super) fn failure(http_status: StatusCode, body: Vec<u8>, status: &Status) -> Response<Body> {
    let mut response = json(http_status, body);
    set_retry_headers(status, http_status, response.headers_mut());
    response
}

/// The refusal of a path without an operation, for which HTTP has a status of its own.
pub(super) fn not_found(message: &str) -> (StatusCode, Status) {
    (StatusCode::NOT_FOUND, refusal(Code::NotFound, ErrorReason::MethodUnknown, message))
}

/// The refusal of a verb that the path does not have.
pub(super) fn wrong_verb(message: &str) -> (StatusCode, Status) {
    (StatusCode::METHOD_NOT_ALLOWED, refusal(Code::Unimplemented, ErrorReason::MethodUnknown, message))
}

/// The refusal of a body that is no JSON.
pub(super) fn wrong_media_type() -> (StatusCode, Status) {
    let status = refusal(Code::InvalidArgument, ErrorReason::Malformed, "the body must be application/json");
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, status)
}

/// A reply without a body.
pub(super) fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// 204 for OPTIONS, 405 for the others, both with the verbs there are.
pub fn other_verb(verb: &Verb, verbs: &[&Verb]) -> Response<Body> {
    other_verb_as(verb, verbs, |why| {
        let (code, status) = wrong_verb(&why);
        error_as(code, &status)
    })
}

/// As [`other_verb`], where clients take the status for the error.
pub(super) fn other_verb_in_text(verb: &Verb, verbs: &[&Verb]) -> Response<Body> {
    other_verb_as(verb, verbs, |why| text(StatusCode::METHOD_NOT_ALLOWED, why))
}

fn other_verb_as(
    verb: &Verb,
    verbs: &[&Verb],
    refused: impl FnOnce(String) -> Response<Body>,
) -> Response<Body> {
    let mut allowed: Vec<&str> = verbs.iter().map(|verb| verb.as_str()).collect();
    if allowed.contains(&"GET") && !allowed.contains(&"HEAD") {
        allowed.push("HEAD");
    }
    allowed.push("OPTIONS");
    let allowed = allowed.join(", ");
    let mut response = if verb == Verb::OPTIONS {
        no_content()
    } else {
        refused(format!("method not allowed; allowed: {allowed}"))
    };
    if let Ok(allowed) = allowed.parse() {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// Sets `ETag`, and answers 304 if `If-None-Match` names it.
pub(super) fn tagged(head: &Parts, etag: Option<&str>, mut response: Response<Body>) -> Response<Body> {
    let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) else { return response };
    if matches!(head.method, Verb::GET | Verb::HEAD) && is_known(&head.headers, &etag) {
        let mut unchanged = no_content();
        *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
        // What a 200 would say about caches (RFC 9110 §15.4.5).
        if let Some(cache) = response.headers_mut().remove(header::CACHE_CONTROL) {
            unchanged.headers_mut().insert(header::CACHE_CONTROL, cache);
        }
        response = unchanged;
    }
    response.headers_mut().insert(header::ETAG, etag);
    response
}

/// Weak comparison (RFC 9110 §13.1.2). Our tags have no commas.
fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|list| {
        list.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == *etag)
    })
}

/// Sets the headers that tell a client how to react to a failure.
pub(super) fn set_retry_headers(status: &Status, http_status: StatusCode, headers: &mut HeaderMap) {
    if http_status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if has_unknown_encoding(status) {
        headers.insert(header::ACCEPT_ENCODING, coding::KNOWN);
    }
    if let Some(delay) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(delay)));
    }
}

/// Rounded up: a caller that comes back too early is refused again.
fn whole_seconds(delay: Duration) -> u64 {
    delay.as_secs() + u64::from(delay.subsec_nanos() > 0)
}

/// The HTTP status of a gRPC one; a message too large and one encoded have their own in HTTP.
pub(super) fn http_status(status: &Status) -> StatusCode {
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted if has_reason(status, ErrorReason::TooLarge) => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        Code::Unimplemented if has_unknown_encoding(status) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        code => canonical_status(code),
    }
}

/// The HTTP status of a code. Source: `google/rpc/code.proto`.
pub(super) fn canonical_status(code: Code) -> StatusCode {
    let number = match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Cancelled => 499,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    };
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Returns true if the request was compressed in a way that is not known.
pub(super) fn has_unknown_encoding(status: &Status) -> bool {
    status.code() == Code::Unimplemented && has_reason(status, ErrorReason::EncodingUnknown)
}

/// Returns true if the status carries that reason.
pub(super) fn has_reason(status: &Status, reason: ErrorReason) -> bool {
    status.get_details_error_info().is_some_and(|info| info.reason == reason.as_str_name())
}

/// A detail of a status.
pub(super) struct Detail<'s> {
    /// The whole `google.protobuf.Any`.
    any: &'s [u8],
    /// The type that it names, after the last slash.
    pub(super) name: Cow<'s, str>,
    /// The encoded message.
    pub(super) value: &'s [u8],
}

impl Detail<'_> {
    /// Appends the message as JSON. Returns false if its type is not known, or the bytes are not of it.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> bool {
        let known = DETAILS.as_ref().and_then(|schema| Some((schema, schema.message_id(&self.name)?)));
        known.is_some_and(|(schema, id)| json::write(schema, id, self.value, Style::CANONICAL, out).is_ok())
    }
}

/// The details of an encoded `google.rpc.Status`, without stack traces, which callers must not see.
pub(super) fn details(mut status: &[u8]) -> impl Iterator<Item = Detail<'_>> {
    let fields = std::iter::from_fn(move || next_wire(&mut status).ok().flatten());
    let anys = fields.filter_map(|field| match field {
        (3, Wire::Bytes(any)) => Some(detail(any)),
        _ => None,
    });
    anys.filter(|detail| detail.name != "google.rpc.DebugInfo")
}

fn detail(any: &[u8]) -> Detail<'_> {
    let (mut url, mut value, mut rest): (&[u8], &[u8], &[u8]) = (&[], &[], any);
    while let Ok(Some((number, Wire::Bytes(bytes)))) = next_wire(&mut rest) {
        match number {
            1 => url = bytes,
            2 => value = bytes,
            _ => {}
        }
    }
    let name = url.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    Detail { any, name: String::from_utf8_lossy(name), value }
}

/// Appends the details with commas between. One that cannot be written is left out rather than losing the others.
fn write_details(status: &[u8], out: &mut Vec<u8>) {
    let Some((schema, any)) =
        DETAILS.as_ref().and_then(|schema| Some((schema, schema.message_id("google.protobuf.Any")?)))
    else {
        return;
    };
    let start = out.len();
    for detail in details(status) {
        let before = out.len();
        if before > start {
            out.push(b',');
        }
        if json::write(schema, any, detail.any, Style::CANONICAL, out).is_err() {
            out.truncate(before);
        }
    }
}
