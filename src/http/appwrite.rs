//! The Users API of Appwrite 0.9, with the three operations that 0.10 added: `/appwrite/v1/users`.

use http::request::Parts;
use http::{HeaderValue, Method as Verb, Response, StatusCode, header};
use serde_json::{Map, Value};
use tonic::body::Body;
use tonic::metadata::MetadataMap;

use super::call::{Stack, media_type, read_body};
use super::{Front, dialect, reply};

mod model;
mod operations;
mod params;
mod project;
mod refusal;
mod route;

use operations::Answer;
use refusal::{Failure, Refusal};
use route::Operation;

/// Its SDKs tell JSON by the beginning.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");

/// On answers without a body: the Python SDK looks at the type in any case, and would parse what is called JSON.
const EMPTY: HeaderValue = HeaderValue::from_static("text/html; charset=UTF-8");

const VERBS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");

const HEADERS: HeaderValue = HeaderValue::from_static(
    "Origin, Cookie, Set-Cookie, X-Requested-With, Content-Type, X-Appwrite-Project, X-Appwrite-Key, \
     X-Appwrite-Locale, X-Appwrite-Mode, X-Appwrite-JWT, X-Appwrite-Response-Format, X-SDK-Version, Cache-Control, \
     Expires, Pragma",
);

/// Whether the path is of this dialect, whether or not it has an operation.
pub(super) fn owns(path: &str) -> bool {
    path.starts_with("/appwrite/")
}

/// One request to an operation.
struct Request<'a, S> {
    front: &'a Front<S>,
    head: Parts,
    operation: Operation,
    /// Empty where the path has none.
    user: String,
    session: String,
    /// The members of the body; none if it is no JSON object.
    body: Map<String, Value>,
}

/// Answers a request of the dialect.
pub(super) async fn handle<S: Stack>(front: &Front<S>, mut head: Parts, body: Body) -> Response<Body> {
    if head.method == Verb::OPTIONS {
        return options();
    }
    let path = head.uri.path().to_owned();
    let Some((operation, [user, session])) = Operation::find(&head.method, &path) else {
        return failed(&Refusal::new(StatusCode::NOT_FOUND, "Not Found"), None);
    };
    let settled = project::settle(&mut head);
    // Who may not call is told so first, as it was there, whatever is wrong with the parameters.
    match front.stack.admit(&mut head, operation.method()) {
        Ok(admission) if settled || admission.named => {}
        Err(status) if settled => {
            return failed(&Refusal::of(&status, operation, &head), Some(&status));
        }
        _ => return failed(&refusal::project_missing(), None),
    }
    let body = if operation.has_body() && is_json(&head) {
        match read_body(&head, body, front.settings.max_body).await {
            Ok(body) => dialect::object(&body),
            Err(status) => return failed(&Refusal::of(&status, operation, &head), Some(&status)),
        }
    } else {
        None
    };
    // What is no UTF-8 is no id either, escaped or not.
    let [user, session] = [user, session].map(|raw| dialect::segment(raw).unwrap_or_else(|_| raw.to_owned()));
    let request = Request { front, head, operation, user, session, body: body.unwrap_or_default() };
    match request.answer().await {
        Ok(answer) => answered(answer),
        Err(Failure::Parameter(text)) => failed(&Refusal::new(StatusCode::BAD_REQUEST, text), None),
        Err(Failure::Status(status)) => {
            failed(&Refusal::of(&status, operation, &request.head), Some(&status))
        }
    }
}

/// Anything else is a body without parameters, as it was there.
fn is_json(head: &Parts) -> bool {
    media_type(&head.headers).as_deref() == Some("application/json")
}

fn answered(answer: Answer) -> Response<Body> {
    match answer {
        Answer::Ok(body) => json(StatusCode::OK, body),
        Answer::Created(body) => json(StatusCode::CREATED, body),
        Answer::NoContent => no_content(),
    }
}

/// `status` is what stands behind it, if the stack said it.
fn failed(refusal: &Refusal, status: Option<&tonic::Status>) -> Response<Body> {
    let mut response = json(refusal.code, refusal.body());
    if let Some(status) = status {
        reply::advise(status, refusal.code, response.headers_mut());
    }
    response
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = reply::json(status, body, &MetadataMap::new());
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, EMPTY);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Names no origin as allowed: no web page is served.
fn options() -> Response<Body> {
    let mut response = no_content();
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, VERBS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, VERBS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    response
}
