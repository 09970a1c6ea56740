//! Refusals in its words: `{"message":"User not found","code":404,"version":"0.9.4"}`.

use http::request::Parts;
use http::{StatusCode, header};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::params::{EMAIL, NAME, SEARCH, UID};
use super::project;
use super::route::Operation;
use crate::http::dialect::{self, Object};
use crate::http::reply::{has_reason, http_status};
use crate::pb::ErrorReason;

/// The version of the server whose answers these are.
const VERSION: &str = "0.9.4";

/// Why an operation gives no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// A parameter is at fault, in words for the caller.
    Parameter(String),
    /// What the stack said.
    Status(Status),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// What a caller is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: StatusCode,
    message: String,
}

/// Our fields and the parameters they come from, in the order in which these are looked at; what they must be, where
/// its sentence says it better than our reason.
const FIELDS: [(&str, &str, Option<&str>); 10] = [
    ("id", "userId", Some(UID)),
    ("user_id", "userId", Some(UID)),
    ("session_id", "sessionId", Some(UID)),
    ("email", "email", Some(EMAIL)),
    ("password", "password", None),
    ("new_password", "password", None),
    ("name", "name", Some(NAME)),
    ("search", "search", Some(SEARCH)),
    ("email_verified", "emailVerification", None),
    ("prefs", "prefs", None),
];

impl Refusal {
    pub(super) fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What a status means to a caller of `operation`.
    pub(super) fn of(status: &Status, operation: Operation, head: &Parts) -> Self {
        let is = |reason| has_reason(status, reason);
        match status.code() {
            Code::InvalidArgument if is(ErrorReason::FieldInvalid) => fields(status),
            Code::InvalidArgument if is(ErrorReason::NamespaceMissing) => project_missing(),
            Code::NotFound if is(ErrorReason::UserNotFound) => {
                Self::new(StatusCode::NOT_FOUND, "User not found")
            }
            Code::AlreadyExists if is(ErrorReason::EmailTaken) => {
                Self::new(operation.taken(), "User already registered")
            }
            Code::Unauthenticated => guest(operation),
            Code::PermissionDenied if is(ErrorReason::ForeignOrigin) => origin(head),
            Code::PermissionDenied if is(ErrorReason::NamespaceMismatch) => {
                Self::new(StatusCode::FORBIDDEN, status.message())
            }
            Code::PermissionDenied => application(status, operation, head),
            _ => Self::other(status),
        }
    }

    /// Its servers keep faults of their own to themselves.
    fn other(status: &Status) -> Self {
        let code = http_status(status);
        if code.is_server_error() && code != StatusCode::NOT_IMPLEMENTED {
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Server Error")
        } else {
            Self::new(code, status.message())
        }
    }

    pub(super) fn body(&self) -> Vec<u8> {
        let object = Object::new().text("message", &self.message);
        object.number("code", self.code.as_u16().into()).text("version", VERSION).end()
    }
}

pub(super) fn project_missing() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "Missing or unknown project ID")
}

/// What is said of a parameter that is not what it must be.
pub(super) fn parameter(name: &str, must: &str) -> String {
    format!("Invalid {name}: {must}")
}

/// What is said of a parameter that was not given.
pub(super) fn required(name: &str) -> String {
    format!("Param \"{name}\" is not optional.")
}

fn names_project(status: &Status) -> bool {
    dialect::violations(status).iter().any(|(field, _)| project::is_named_by(field))
}

fn fields(status: &Status) -> Refusal {
    if names_project(status) {
        return project_missing();
    }
    let violations = dialect::violations(status);
    let known = FIELDS.iter().find_map(|(ours, theirs, must)| {
        let (_, why) = violations.iter().find(|(field, _)| field == ours)?;
        Some(parameter(theirs, must.unwrap_or(why)))
    });
    Refusal::new(StatusCode::BAD_REQUEST, known.unwrap_or_else(|| status.message().to_owned()))
}

fn guest(operation: Operation) -> Refusal {
    let message = format!("User (role: guest) missing scope ({})", operation.scope());
    Refusal::new(StatusCode::UNAUTHORIZED, message)
}

fn application(status: &Status, operation: Operation, head: &Parts) -> Refusal {
    let (project, host) = (project::name(head), host(head));
    // Some of our scopes are finer than theirs: whoever is to mend the key must know which it lacks.
    let lacking = status.get_details_error_info().and_then(|info| info.metadata.get("scope").cloned());
    let scope = lacking.unwrap_or_else(|| operation.scope().to_owned());
    let message = format!("app.{project}@service.{host} (role: application) missing scope ({scope})");
    Refusal::new(StatusCode::UNAUTHORIZED, message)
}

/// By the host of a page, or by the name under which we were called.
fn origin(head: &Parts) -> Refusal {
    let origin = head.headers.get(header::ORIGIN).and_then(|value| value.to_str().ok());
    let uri = origin.and_then(|origin| origin.parse::<http::Uri>().ok());
    let host = match origin {
        Some(origin) => uri.and_then(|uri| Some(uri.host()?.to_owned())).unwrap_or_else(|| origin.to_owned()),
        None => host(head).to_owned(),
    };
    let message = format!(
        "Invalid Origin. Register your new client ({host}) as a new Web platform on your project console dashboard"
    );
    Refusal::new(StatusCode::FORBIDDEN, message)
}

/// The name under which we were called, without the port.
fn host(head: &Parts) -> &str {
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| head.uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default();
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}
