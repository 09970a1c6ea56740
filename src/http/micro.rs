//! The JSON of the first `users` service (micro): `POST /users/Users/<Method>` and `POST /users/<method>`, its error
//! body, its replies that were empty.

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method as Verb, Response, StatusCode, header};
use http_body::Body as _;
use tonic::body::Body;
use tonic::{Code, Status};

use super::call::{Stack, media_type, read_body};
use super::json::{self, Style};
use super::schema::{Method, Schema};
use super::{Front, reply};
use crate::error::Error;
use crate::grpc::status::refusal;
use crate::pb::ErrorReason;

const SERVICE: &str = "users.Users";

/// RPCs whose replies had no fields; callers that compare them with `{}` still find that.
const EMPTY: [&str; 5] = ["Create", "Update", "Delete", "UpdatePassword", "Logout"];

/// Whether the path is of this dialect, whether or not it has a method.
pub(super) fn owns(path: &str) -> bool {
    path.starts_with("/users/")
}

/// Returns true for a gRPC call of the micro framework: its client names the content type once more, whatever that is, and
/// no other client does.
pub(super) fn sends(headers: &HeaderMap) -> bool {
    headers.contains_key("x-content-type")
}

/// Answers a request of the dialect.
pub(super) async fn handle<S: Stack>(front: &Front<S>, mut head: Parts, body: Body) -> Response<Body> {
    let Some(method) = find(&front.schema, head.uri.path()) else {
        let status = refusal(Code::NotFound, ErrorReason::MethodUnknown, "there is no such method");
        return failed("users", &status, StatusCode::NOT_FOUND);
    };
    if head.method != Verb::POST {
        let status = refusal(Code::Unimplemented, ErrorReason::MethodUnknown, "methods are called by POST");
        let mut response = failed(&id(method), &status, StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    if let Err(status) = front.stack.admit(&mut head, method.path.path()) {
        return failed(&id(method), &status, reply::http_status(&status));
    }
    if !body.is_end_stream() && !is_json(&head) {
        let status =
            refusal(Code::InvalidArgument, ErrorReason::Malformed, "the body must be application/json");
        return failed(&id(method), &status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let content = read_body(&head, body, front.settings.max_body).await;
    let answer = match content {
        Ok(content) => call(front, method, &content, head).await,
        Err(status) => Err(status),
    };
    match answer {
        Ok(answer) => {
            let (metadata, out, _) = answer.into_parts();
            reply::json(StatusCode::OK, out, &metadata)
        }
        Err(status) => failed(&id(method), &status, reply::http_status(&status)),
    }
}

/// Calls an RPC in the dialect's JSON; nothing at all stands for `{}`.
///
/// # Errors
///
/// The status of the call, or what is wrong with the JSON.
pub(super) async fn call<S: Stack>(
    front: &Front<S>,
    method: &Method,
    content: &[u8],
    head: Parts,
) -> Result<tonic::Response<Vec<u8>>, Status> {
    let content = if content.is_empty() { b"{}" } else { content };
    let message = json::read(&front.schema, method.input, content, Style::MICRO).map_err(Error::from)?;
    let (metadata, message, extensions) = front.call(method, message, head).await?.into_parts();
    let mut out = Vec::with_capacity(2 * message.len() + 64);
    if &*method.service == SERVICE && EMPTY.contains(&&*method.name) {
        out.extend_from_slice(b"{}");
    } else {
        json::write(&front.schema, method.output, &message, Style::MICRO, &mut out)
            .map_err(Error::internal)?;
    }
    Ok(tonic::Response::from_parts(metadata, out, extensions))
}

/// The error body: `{"id":"users.Create","code":404,"detail":"no such user","status":"Not Found"}`.
pub(super) fn error_body(id: &str, status: &Status, http_status: StatusCode) -> Vec<u8> {
    let mut body = b"{\"id\":".to_vec();
    json::write_string(&mut body, id);
    body.extend_from_slice(format!(",\"code\":{},\"detail\":", http_status.as_u16()).as_bytes());
    json::write_string(&mut body, status.message());
    body.extend_from_slice(b",\"status\":");
    json::write_string(&mut body, http_status.canonical_reason().unwrap_or("Client Closed Request"));
    body.push(b'}');
    body
}

/// `users.Create`: the package and the method, as the framework named its errors.
pub(super) fn id(method: &Method) -> String {
    let package = method.service.rsplit_once('.').map_or(&*method.service, |(package, _)| package);
    format!("{package}.{}", method.name)
}

fn failed(id: &str, status: &Status, http_status: StatusCode) -> Response<Body> {
    let mut response = reply::json(http_status, error_body(id, status, http_status), status.metadata());
    reply::advise(status, http_status, response.headers_mut());
    response
}

/// `/users/Users/UpdatePassword`, `/users/updatePassword`, `/users/update-password`, all in any case.
fn find<'s>(schema: &'s Schema, path: &str) -> Option<&'s Method> {
    let mut parts = path.strip_prefix("/users/")?.split('/');
    let first = parts.next()?;
    let name = match parts.next() {
        Some(name) if first.eq_ignore_ascii_case("users") => name,
        Some(_) => return None,
        None => first,
    };
    let name = name.replace('-', "");
    let mut methods = schema.methods().filter(|method| &*method.service == SERVICE);
    methods.find(|method| parts.clone().next().is_none() && method.name.eq_ignore_ascii_case(&name))
}

/// Plain `curl -d` sends JSON as a form.
fn is_json(head: &Parts) -> bool {
    media_type(&head.headers)
        .is_none_or(|media| media.ends_with("json") || media == "application/x-www-form-urlencoded")
}
