//! The JSON of the first `users` service (micro): `POST /users/Users/<Method>` and `POST /users/<method>`,
//! its error body, its replies that were empty.

use http::request::Parts;
use http::{HeaderValue, Method as Verb, Response, StatusCode, header};
use serde::Serialize;
use tonic::Status;
use tonic::body::Body;

use super::client::Client;
use super::{Expected, Located, Target};
use crate::error::Error;
use crate::http::receive::{ends_with_ignore_case, media_type};
use crate::http::reply;
use transcode::json::{self, Style};
use transcode::schema::{Method, Schema};

const SERVICE: &str = "users.Users";

/// RPCs whose replies had no fields; callers that compare them with `{}` still find that.
const EMPTY: [&str; 5] = ["Create", "Update", "Delete", "UpdatePassword", "Logout"];

/// Returns true if the path is of this dialect, whether or not it has a method.
pub(super) fn owns(path: &str) -> bool {
    path.starts_with("/users/")
}

pub(super) fn locate<'g>(schema: &'g Schema, head: &Parts) -> Located<&'g Method> {
    let Some(method) = find(schema, head.uri.path()) else {
        let (code, status) = reply::not_found("no such method");
        return Err(Box::new(failed("users", &status, code)));
    };
    if head.method != Verb::POST {
        let (code, status) = reply::wrong_verb("methods are called by POST");
        let mut response = failed(&id_of(method), &status, code);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return Err(Box::new(response));
    }
    Ok(method)
}

pub(super) fn expects(target: Target<'_>, head: &Parts, is_empty: bool, max: usize) -> Located<Expected> {
    // Plain `curl -d` sends JSON as a form.
    let json = |media: &str| {
        ends_with_ignore_case(media, "json")
            || media.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    };
    if is_empty || media_type(&head.headers).is_none_or(json) {
        return Ok(Expected::Plain(max));
    }
    let (code, status) = reply::wrong_media_type();
    Err(Box::new(failed(&id(target), &status, code)))
}

pub(super) async fn answer(client: Client<'_>, content: &[u8]) -> Response<Body> {
    let id = id_of(client.method);
    match call(client, content).await {
        Ok(json) => reply::json(StatusCode::OK, json),
        Err(status) => refuse(&id, &status),
    }
}

/// Calls an RPC in the dialect's JSON; no content stands for `{}`.
pub(super) async fn call(client: Client<'_>, content: &[u8]) -> Result<Vec<u8>, Status> {
    let (schema, method) = (client.schema(), client.method);
    let content = if content.is_empty() { b"{}" } else { content };
    let message = json::read(schema, method.input, content, Style::MICRO).map_err(Error::from)?;
    let reply = client.unary(&message).await?;
    let mut out = Vec::with_capacity(2 * reply.len() + 64);
    if &*method.service == SERVICE && EMPTY.contains(&&*method.name) {
        out.extend_from_slice(b"{}");
    } else {
        json::write(schema, method.output, &reply, Style::MICRO, &mut out).map_err(Error::internal)?;
    }
    Ok(out)
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    id: &'a str,
    code: u16,
    detail: &'a str,
    status: &'a str,
}

/// The error body: `{"id":"users.Create","code":404,"detail":"no such user","status":"Not Found"}`.
pub(super) fn error_body(id: &str, status: &Status, http_status: StatusCode) -> Vec<u8> {
    reply::serialized(&ErrorBody {
        id,
        code: http_status.as_u16(),
        detail: status.message(),
        status: http_status.canonical_reason().unwrap_or("Client Closed Request"),
    })
}

/// The id of errors of a call: the package and the method, `users.Create`, as the framework named them.
pub(super) fn id(target: Target<'_>) -> String {
    match target {
        Target::Rpc(method) => id_of(method),
        Target::Health { .. } | Target::Reflection => "users".to_owned(),
    }
}

pub(super) fn id_of(method: &Method) -> String {
    let package = method.service.rsplit_once('.').map_or(&*method.service, |(package, _)| package);
    format!("{package}.{}", method.name)
}

pub(super) fn refuse(id: &str, status: &Status) -> Response<Body> {
    failed(id, status, reply::http_status(status))
}

fn failed(id: &str, status: &Status, http_status: StatusCode) -> Response<Body> {
    reply::failure(http_status, error_body(id, status, http_status), status)
}

/// `/users/Users/UpdatePassword`, `/users/updatePassword`, `/users/update-password`, all in any case.
fn find<'g>(schema: &'g Schema, path: &str) -> Option<&'g Method> {
    let mut parts = path.strip_prefix("/users/")?.split('/');
    let first = parts.next()?;
    let name = match parts.next() {
        Some(name) if first.eq_ignore_ascii_case("users") => name,
        Some(_) => return None,
        None => first,
    };
    let name = name.replace('-', "");
    let mut methods = schema.methods().filter(|method| &*method.service == SERVICE && !method.is_stream());
    methods.find(|method| parts.clone().next().is_none() && method.name.eq_ignore_ascii_case(&name))
}
