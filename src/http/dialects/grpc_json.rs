//! JSON inside gRPC frames, `application/grpc+json`, as programs written with the micro framework send it.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::body::Body;
use tonic::{Code, Status};

use super::client::Client;
use super::{Located, micro};
use crate::error::Error;
use crate::grpc::status::refusal;
use crate::http::frames::{frame, single};
use crate::http::reply;
use crate::pb::ErrorReason;
use transcode::schema::{Method, Schema};

/// The one media type of the dialect.
pub(super) const MEDIA_TYPE: &str = "application/grpc+json";

pub(super) fn locate<'g>(schema: &'g Schema, head: &Parts) -> Located<&'g Method> {
    let method = schema.method(head.uri.path()).filter(|method| !method.is_stream());
    method.ok_or_else(|| {
        let unknown = refusal(Code::Unimplemented, ErrorReason::MethodUnknown, "no such method");
        Box::new(refuse("users", &unknown))
    })
}

pub(super) async fn answer(client: Client<'_>, content: Bytes) -> Response<Body> {
    let id = micro::id_of(client.method);
    let answered = match unframe(content) {
        Ok(json) => micro::call(client, &json).await,
        Err(status) => Err(status),
    };
    answered.map_or_else(|status| refuse(&id, &status), |json| succeeded(&json))
}

/// The one message of a unary call; a call without any is an empty message.
fn unframe(body: Bytes) -> Result<Bytes, Status> {
    match body.first() {
        None => Ok(body),
        Some(0) => single(body).ok_or_else(|| Error::Malformed("the frame is incomplete".to_owned()).into()),
        Some(1) => Err(refusal(Code::Unimplemented, ErrorReason::Malformed, "compression is not supported")),
        Some(_) => Err(Error::Malformed("the body is not a gRPC frame".to_owned()).into()),
    }
}

fn succeeded(json: &[u8]) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Frame::data(frame(json)), Frame::trailers(trailers)];
    let frames = futures_util::stream::iter(frames.map(Ok::<Frame<Bytes>, Status>));
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}

/// The framework parses the status message as its error, and knows no details.
pub(super) fn refuse(id: &str, status: &Status) -> Response<Body> {
    let body = micro::error_body(id, status, reply::http_status(status));
    let message = String::from_utf8_lossy(&body).into_owned();
    let mut response = Status::new(status.code(), message).into_http::<Body>();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}
