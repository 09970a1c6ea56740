//! The Users API of Appwrite 0.9, with the three operations that 0.10 added: `/appwrite/v1/users`.

use http::request::Parts;
use http::{HeaderValue, Method as Verb, Response, StatusCode, header};
use tonic::Status;
use tonic::body::Body;

use super::client::Client;
use super::{Expected, Located, params as shared};
use crate::http::receive::media_type;
use crate::http::reply;
use transcode::schema::{Method, Schema};

mod model;
mod operations;
mod params;
mod project;
mod refusal;
mod route;
mod sentences;

use operations::Request;
use project::Origin;
use refusal::{Failure, Refusal};
use route::Operation;

/// Its SDKs recognize JSON by the beginning.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");

/// On answers without a body: the Python SDK looks at the type in any case, and would parse what is called
/// JSON.
const EMPTY: HeaderValue = HeaderValue::from_static("text/html; charset=UTF-8");

const VERBS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");

const HEADERS: HeaderValue = HeaderValue::from_static(
    "Origin, Cookie, Set-Cookie, X-Requested-With, Content-Type, X-Appwrite-Project, X-Appwrite-Key, \
     X-Appwrite-Locale, X-Appwrite-Mode, X-Appwrite-JWT, X-Appwrite-Response-Format, X-SDK-Version, Cache-Control, \
     Expires, Pragma",
);

/// Returns true if the path is of this dialect, whether or not it has an operation.
pub(super) fn owns(path: &str) -> bool {
    path.starts_with("/appwrite/")
}

/// A call of an operation.
#[derive(Debug)]
pub(super) struct Appwrite {
    operation: Operation,
    /// Empty where the path has none.
    user: String,
    session: String,
    origin: Origin,
    /// True if the request names no project and carries no key.
    lacks_project: bool,
}

pub(super) fn locate<'g>(schema: &'g Schema, head: &mut Parts) -> Located<(&'g Method, Appwrite)> {
    if head.method == Verb::OPTIONS {
        return Err(Box::new(options()));
    }
    let not_found = || Box::new(failed(&Refusal::new(StatusCode::NOT_FOUND, "Not Found"), None));
    let (operation, ids) = Operation::find(&head.method, head.uri.path()).ok_or_else(not_found)?;
    let method = schema.method(operation.method()).ok_or_else(not_found)?;
    let [user, session] = ids.map(shared::id);
    let lacks_project = !project::apply_project_header(head);
    let origin = Origin::of(head);
    Ok((method, Appwrite { operation, user, session, origin, lacks_project }))
}

impl Appwrite {
    pub(super) fn more_rpcs(&self) -> &'static [&'static str] {
        self.operation.more_methods()
    }

    /// Requests without a project are refused as such, unless a certificate names their caller.
    pub(super) fn refuse_unauthenticated(&self, authenticated: bool) -> Option<Response<Body>> {
        (self.lacks_project && !authenticated).then(|| failed(&refusal::project_missing(), None))
    }

    pub(super) fn expects(&self, head: &Parts, max: usize) -> Expected {
        // Any other body is one without parameters, as in Appwrite.
        let is_json =
            media_type(&head.headers).is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
        if self.operation.has_body() && is_json { Expected::Plain(max) } else { Expected::Nothing }
    }

    pub(super) async fn answer(&self, client: Client<'_>, head: &Parts, content: &[u8]) -> Response<Body> {
        let body = shared::object(content).unwrap_or_default();
        let request = Request {
            client,
            head,
            operation: self.operation,
            user: &self.user,
            session: &self.session,
            body,
        };
        match request.answer().await {
            Ok(Some(body)) => json(self.operation.success(), body),
            Ok(None) => no_content(),
            Err(Failure::Parameter(text)) => failed(&Refusal::new(StatusCode::BAD_REQUEST, text), None),
            Err(Failure::Status(status)) => self.refuse(&status),
        }
    }

    pub(super) fn refuse(&self, status: &Status) -> Response<Body> {
        failed(&Refusal::of(status, self.operation, &self.origin), Some(status))
    }
}

/// `status` is the one that the refusal stands for, if any.
fn failed(refusal: &Refusal, status: Option<&Status>) -> Response<Body> {
    let mut response = json(refusal.code, refusal.body());
    if let Some(status) = status {
        reply::set_retry_headers(status, refusal.code, response.headers_mut());
    }
    response
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = reply::json(status, body);
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

fn no_content() -> Response<Body> {
    let mut response = reply::no_content();
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
