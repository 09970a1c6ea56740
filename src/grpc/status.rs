//! [`Error`] to [`Status`], with the standard details. The only place that builds a status from an error, and
//! the only one that logs a cause, so that each failure is logged once and nothing internal gets out.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::error::{Error, with_causes};
use crate::pb::ErrorReason;

/// `domain` of every `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "usersd";

/// How long a caller refused for want of room should stay away. Most calls take less than a millisecond, so
/// there is room again by then; a shorter time would only bring the crowd back at once.
const OVERLOADED_RETRY: Duration = Duration::from_millis(100);

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (code, reason) = error.kind();
        let mut details = details(reason, metadata(&error));
        match &error {
            Error::Invalid(fields) => {
                for (field, why) in fields.iter() {
                    details.add_bad_request_violation(field, why);
                }
            }
            Error::HasherBusy { retry_after } => {
                details.set_retry_info(Some(*retry_after));
            }
            Error::Overloaded => {
                details.set_retry_info(Some(OVERLOADED_RETRY));
            }
            Error::Internal(cause) | Error::DatabaseUnavailable(cause) => {
                tracing::error!(
                    cause = with_causes(cause.as_ref()),
                    reason = reason.as_str_name(),
                    "call failed"
                );
            }
            _ => {}
        }
        Status::with_error_details(code, error.to_string(), details)
    }
}

/// A status that no [`Error`] stands behind: what the transport itself refuses.
#[must_use]
pub fn refusal(code: Code, reason: ErrorReason, message: &str) -> Status {
    Status::with_error_details(code, message, details(reason, HashMap::new()))
}

fn details(reason: ErrorReason, metadata: HashMap<String, String>) -> ErrorDetails {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason.as_str_name(), DOMAIN, metadata);
    details
}

fn metadata(error: &Error) -> HashMap<String, String> {
    let (field, holder) = match error {
        Error::IdTaken => ("id", &None),
        Error::UsernameTaken { holder } => ("username", holder),
        Error::EmailTaken { holder } => ("email", holder),
        _ => return HashMap::new(),
    };
    let mut metadata = HashMap::from([("field".to_owned(), field.to_owned())]);
    if let Some(holder) = holder {
        metadata.insert("holder".to_owned(), holder.clone());
    }
    metadata
}
