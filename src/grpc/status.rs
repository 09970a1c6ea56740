//! [`Error`] to [`Status`], with the standard details. The only place that builds a status from an error, and
//! the only one that logs a cause, so that each failure is logged once and nothing internal gets out.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::error::tally::{LogBudget, note_cause};
use crate::error::{Error, with_causes};
use crate::pb::ErrorReason;
use crate::telemetry::{CallContext, CallStatus};

/// `domain` of every `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "usersd";

/// When a call that the database could not serve may be tried again: most causes pass in less.
const DATABASE_RETRY: Duration = Duration::from_secs(1);

/// When a call may be repeated that was in progress: a change takes less.
const CALL_RETRY: Duration = Duration::from_secs(1);

/// Limits the log lines about failures of ours: where every call fails, the first ones tell why.
static OURS: LogBudget = LogBudget::new(60);

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (code, reason) = error.kind();
        note(code, reason);
        let mut details = details(reason, metadata(&error));
        match &error {
            Error::Invalid(fields) => {
                for (field, why) in fields.iter() {
                    details.add_bad_request_violation(field, why);
                }
            }
            Error::HasherBusy { retry_after }
            | Error::TooManyAttempts { retry_after }
            | Error::TooManyCodes { retry_after }
            | Error::Overloaded { retry_after }
            | Error::CallerLimited { retry_after } => {
                details.set_retry_info(Some(*retry_after));
            }
            Error::QuotaExceeded { namespace, retry_after, .. } => {
                details.add_quota_failure_violation(namespace, error.to_string());
                if let Some(retry_after) = retry_after {
                    details.set_retry_info(Some(*retry_after));
                }
            }
            Error::IdempotencyKeyInUse => {
                details.set_retry_info(Some(CALL_RETRY));
            }
            // Told of in all: an outage would write a line for each call.
            Error::DatabaseUnavailable(cause) => {
                let cause = with_causes(cause.as_ref());
                tracing::debug!(cause, reason = reason.as_str_name(), "call failed");
                note_cause(cause);
                details.set_retry_info(Some(DATABASE_RETRY));
            }
            Error::Internal(cause) | Error::DatabaseTooSlow(cause) | Error::OutcomeUnknown(cause) => {
                if let Some(left_out) = OURS.take() {
                    let (cause, code) = (with_causes(cause.as_ref()), code_name(code));
                    tracing::error!(cause, code, reason = reason.as_str_name(), left_out, "call failed");
                }
            }
            _ => {}
        }
        Status::with_error_details(code, error.to_string(), details)
    }
}

/// A status without an [`Error`], for what the transport itself refuses.
pub fn refusal(code: Code, reason: ErrorReason, message: &str) -> Status {
    note(code, reason);
    Status::with_error_details(code, message, details(reason, HashMap::new()))
}

/// Notes for metrics and log lines how the call fails.
fn note(code: Code, reason: ErrorReason) {
    CallContext::note_failure(CallStatus { code: code_name(code), reason: reason.as_str_name() });
}

/// The name of a code, as `google/rpc/code.proto` has it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn details(reason: ErrorReason, metadata: HashMap<String, String>) -> ErrorDetails {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason.as_str_name(), DOMAIN, metadata);
    details
}

fn metadata(error: &Error) -> HashMap<String, String> {
    let (name, value, holder) = match error {
        Error::IdTaken => ("field", "id", &None),
        Error::UsernameTaken { holder } => ("field", "username", holder),
        Error::EmailTaken { holder } => ("field", "email", holder),
        Error::ScopeMissing { scope } => ("scope", *scope, &None),
        Error::QuotaExceeded { limit, value, .. } => {
            let pairs = [("limit", (*limit).to_owned()), ("value", value.to_string())];
            return pairs.map(|(name, value)| (name.to_owned(), value)).into();
        }
        Error::SecondFactorRequired { challenge } => ("challenge", challenge.0.as_str(), &None),
        _ => return HashMap::new(),
    };
    let mut metadata = HashMap::from([(name.to_owned(), value.to_owned())]);
    if let Some(holder) = holder {
        metadata.insert("holder".to_owned(), holder.clone());
    }
    metadata
}
