//! `/v1` and every other route that follows from the `google.api.http` options.

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode, header};
use http_body::Body as _;
use tonic::body::Body;
use tonic::{Code, Status};

use super::call::{Stack, media_type, read_body};
use super::json::{self, Faults, Style};
use super::query::{Query, path_name};
use super::route::{Binding, Body as Target, Capture, Found};
use super::schema::Schema;
use super::{Front, reply};
use crate::error::{Error, Fields};
use crate::grpc::status::refusal;
use crate::pb::ErrorReason;

/// Answers a request by the route that its verb and path have.
pub(super) async fn handle<S: Stack>(front: &Front<S>, head: Parts, body: Body) -> Response<Body> {
    let path = head.uri.path().to_owned();
    let router = &front.schema.router;
    let found = match router.find(&head.method, &path) {
        Ok(Found::OtherVerbs(verbs)) if head.method == Method::HEAD && verbs.contains(&&Method::GET) => {
            router.find(&Method::GET, &path)
        }
        found => found,
    };
    let answer = match found {
        Ok(Found::Binding(binding, captures)) => call(front, binding, &captures, head, body).await,
        Ok(Found::OtherVerbs(verbs)) => return other_verb(&head.method, &verbs),
        Ok(Found::Nothing) => return no_route(),
        Err(_) => Err(malformed("the path is not percent-encoded UTF-8").into()),
    };
    answer.unwrap_or_else(|refused| match refused {
        Refused::Status(status) => reply::error(&status),
        Refused::MediaType => unsupported(),
    })
}

enum Refused {
    Status(Status),
    MediaType,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

async fn call<S: Stack>(
    front: &Front<S>,
    binding: &Binding,
    captures: &[Capture<'_>],
    mut head: Parts,
    body: Body,
) -> Result<Response<Body>, Refused> {
    let method = &front.schema.methods[binding.method];
    front.stack.admit(&mut head, method.path.path())?;
    let content = if binding.body == Target::None {
        Bytes::new()
    } else if !body.is_end_stream() && !is_json(&head) {
        return Err(Refused::MediaType);
    } else {
        read_body(&head, body, front.settings.max_body).await?
    };
    let query = head.uri.query().unwrap_or_default();
    let message = message(&front.schema, binding, captures, query, &content)?;
    let response = front.call(method, message, head).await?;
    let (metadata, message, _) = response.into_parts();
    let mut out = Vec::with_capacity(2 * message.len() + 64);
    let (schema, style) = (&*front.schema, Style::CANONICAL);
    match binding.response_body {
        Some(field) => json::write_field(schema, method.output, field, &message, style, &mut out),
        None => json::write(schema, method.output, &message, style, &mut out),
    }
    .map_err(|broken| Status::from(Error::internal(broken)))?;
    Ok(reply::json(StatusCode::OK, out, &metadata))
}

/// The encoded message that body, query and path make. The path wins over the body, the body over the query: what
/// is appended later counts.
fn message(
    schema: &Schema,
    binding: &Binding,
    captures: &[Capture<'_>],
    query: &str,
    body: &[u8],
) -> Result<Vec<u8>, Status> {
    let input = schema.methods[binding.method].input;
    let body = if body.is_empty() { b"{}" } else { body };
    let read = match binding.body {
        Target::None => Ok(Vec::new()),
        Target::All => json::read(schema, input, body, Style::CANONICAL),
        Target::Field(field) => json::read_field(schema, input, field, body, Style::CANONICAL),
    };
    let (mut message, mut faults) = match read {
        Ok(message) => (message, Fields::default()),
        Err(Faults::Fields(faults)) => (Vec::new(), faults),
        Err(malformed) => return Err(Error::from(malformed).into()),
    };
    let parameters = Query { schema, input, body: binding.body, captures };
    parameters
        .put(query, &mut message, &mut faults)
        .map_err(|_| malformed("the query is not percent-encoded UTF-8"))?;
    for capture in captures {
        if let Err(why) = json::put_text(schema, input, capture.field, &capture.text, &mut message) {
            faults.add(path_name(schema, input, capture.field), why);
        }
    }
    faults.none()?;
    Ok(message)
}

/// Whether the body has a JSON type, or none.
pub(super) fn is_json(head: &Parts) -> bool {
    media_type(&head.headers).is_none_or(|media| media == "application/json" || media.ends_with("+json"))
}

fn malformed(why: &str) -> Status {
    Error::Malformed(why.to_owned()).into()
}

/// 404 for a path that is not ours.
fn no_route() -> Response<Body> {
    let status = refusal(Code::NotFound, ErrorReason::MethodUnknown, "there is nothing at this path");
    reply::error_as(StatusCode::NOT_FOUND, &status)
}

fn unsupported() -> Response<Body> {
    let status = refusal(Code::InvalidArgument, ErrorReason::Malformed, "the body must be application/json");
    reply::error_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, &status)
}

/// 204 for OPTIONS, 405 for the others, both with the verbs there are.
fn other_verb(verb: &Method, verbs: &[&Method]) -> Response<Body> {
    let mut allowed: Vec<&str> = verbs.iter().map(|verb| verb.as_str()).collect();
    if allowed.contains(&"GET") && !allowed.contains(&"HEAD") {
        allowed.push("HEAD");
    }
    allowed.push("OPTIONS");
    let mut response = if verb == Method::OPTIONS {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        let status = refusal(Code::Unimplemented, ErrorReason::MethodUnknown, "the path has other verbs");
        reply::error_as(StatusCode::METHOD_NOT_ALLOWED, &status)
    };
    if let Ok(allowed) = allowed.join(", ").parse() {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}
