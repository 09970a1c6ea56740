//! Refusals in its words: `{"message":"User not found","code":404,"version":"0.9.4"}`.

use http::StatusCode;
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::project::{self, Origin};
use super::route::Operation;
use super::sentences::{EMAIL, NAME, SEARCH, UID, invalid};
use crate::http::dialects::params;
use crate::http::reply::{self, has_reason, http_status};
use crate::pb::ErrorReason;

/// The version of the server whose answers these are.
const VERSION: &str = "0.9.4";

/// Why an operation gives no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// A parameter is at fault, in words for the caller.
    Parameter(String),
    /// The status of a call.
    Status(Status),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// The answer to a caller.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: StatusCode,
    message: String,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    code: u16,
    version: &'a str,
}

/// Our fields and the parameters they come from, in the order in which these are looked at; what they must
/// be, where its sentence says it better than our reason.
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

    /// Translates a status for a caller of `operation`.
    pub(super) fn of(status: &Status, operation: Operation, origin: &Origin) -> Self {
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
            Code::PermissionDenied if is(ErrorReason::ForeignOrigin) => foreign_origin(origin),
            Code::PermissionDenied if is(ErrorReason::NamespaceMismatch) => {
                Self::new(StatusCode::FORBIDDEN, status.message())
            }
            Code::PermissionDenied => application(status, operation, origin),
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
        reply::serialized(&Body { message: &self.message, code: self.code.as_u16(), version: VERSION })
    }
}

pub(super) fn project_missing() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "Missing or unknown project ID")
}

fn names_project(status: &Status) -> bool {
    params::violations(status).iter().any(|(field, _)| project::is_named_by(field))
}

fn fields(status: &Status) -> Refusal {
    if names_project(status) {
        return project_missing();
    }
    let violations = params::violations(status);
    let known = FIELDS.iter().find_map(|(ours, theirs, must)| {
        let (_, why) = violations.iter().find(|(field, _)| field == ours)?;
        Some(invalid(theirs, must.unwrap_or(why)))
    });
    Refusal::new(StatusCode::BAD_REQUEST, known.unwrap_or_else(|| status.message().to_owned()))
}

fn guest(operation: Operation) -> Refusal {
    let message = format!("User (role: guest) missing scope ({})", operation.scope());
    Refusal::new(StatusCode::UNAUTHORIZED, message)
}

fn application(status: &Status, operation: Operation, origin: &Origin) -> Refusal {
    let (project, host) = (origin.project(), origin.host());
    // Some of our scopes are finer than theirs: the owner of the key must know which it lacks.
    let lacking = status.get_details_error_info().and_then(|info| info.metadata.get("scope").cloned());
    let scope = lacking.unwrap_or_else(|| operation.scope().to_owned());
    let message = format!("app.{project}@service.{host} (role: application) missing scope ({scope})");
    Refusal::new(StatusCode::UNAUTHORIZED, message)
}

/// By the host of a page, or by the name under which we were called.
fn foreign_origin(origin: &Origin) -> Refusal {
    let host = origin.page().unwrap_or_else(|| origin.host().to_owned());
    let message = format!(
        "Invalid Origin. Register your new client ({host}) as a new Web platform on your project console dashboard"
    );
    Refusal::new(StatusCode::FORBIDDEN, message)
}
