//! JSON inside gRPC frames, `application/grpc+json`, as programs written with the micro framework send it.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::call::{Stack, read_body};
use super::schema::Schema;
use super::{Front, micro, reply};
use crate::error::Error;
use crate::grpc::status::refusal;
use crate::pb::ErrorReason;

/// The one media type of the dialect.
pub(super) const MEDIA_TYPE: &str = "application/grpc+json";

/// A flag, then the length of the message.
const PREFIX: usize = 5;

/// Answers a request whose frames hold JSON.
pub(super) async fn handle<S: Stack>(front: &Front<S>, mut head: Parts, body: Body) -> Response<Body> {
    let Some(method) = front.schema.method(head.uri.path()) else {
        let status = refusal(Code::Unimplemented, ErrorReason::MethodUnknown, "there is no such method");
        return failed("users", &status);
    };
    if let Err(status) = front.stack.admit(&mut head, method.path.path()) {
        return failed(&micro::id(method), &status);
    }
    let content = read_body(&head, body, front.settings.max_body.saturating_add(PREFIX)).await;
    let answer = match content {
        Ok(content) => match unframe(&content) {
            Ok(json) => micro::call(front, method, json, head).await,
            Err(status) => Err(status),
        },
        Err(status) => Err(status),
    };
    match answer {
        Ok(answer) => {
            let (metadata, json, _) = answer.into_parts();
            succeeded(&metadata, &json)
        }
        Err(status) => failed(&micro::id(method), &status),
    }
}

/// The one message in the frames of a unary call; a call without any is an empty message.
fn unframe(frames: &[u8]) -> Result<&[u8], Status> {
    let malformed = |why: &str| Err(Error::Malformed(why.to_owned()).into());
    match frames {
        [] => Ok(frames),
        [0, a, b, c, d, message @ ..] => {
            let length = u32::from_be_bytes([*a, *b, *c, *d]);
            if usize::try_from(length) == Ok(message.len()) {
                Ok(message)
            } else {
                malformed("the frame is cut")
            }
        }
        [1, ..] => Err(refusal(Code::Unimplemented, ErrorReason::Malformed, "compression is not supported")),
        _ => malformed("the body is not a gRPC frame"),
    }
}

fn succeeded(metadata: &MetadataMap, json: &[u8]) -> Response<Body> {
    let mut data = BytesMut::with_capacity(PREFIX + json.len());
    data.put_u8(0);
    // A reply of 4 GiB cannot come: the stack would have to frame it first.
    data.put_u32(u32::try_from(json.len()).unwrap_or(u32::MAX));
    data.put_slice(json);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Frame::data(data.freeze()), Frame::trailers(trailers)];
    let frames = futures_util::stream::iter(frames.map(Ok::<Frame<Bytes>, Status>));
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    reply::pass_on(metadata, response.headers_mut());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}

/// A reply in protobuf to a client of the framework, with the error in its words: generated clients read the first detail as
/// the error where there is one, and cannot read ours.
pub(super) fn in_its_words(schema: &Schema, path: &str, response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => {
            let id = schema.method(path).map_or_else(|| "users".to_owned(), micro::id);
            let mut failed = failed(&id, &status);
            if let Some(media) = response.headers().get(header::CONTENT_TYPE) {
                failed.headers_mut().insert(header::CONTENT_TYPE, media.clone());
            }
            failed
        }
        _ => response,
    }
}

/// The framework parses the status message as its error; it knows no details.
fn failed(id: &str, status: &Status) -> Response<Body> {
    let body = micro::error_body(id, status, reply::http_status(status));
    let message = String::from_utf8_lossy(&body).into_owned();
    let mut response = Status::new(status.code(), message).into_http::<Body>();
    reply::pass_on(status.metadata(), response.headers_mut());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}
