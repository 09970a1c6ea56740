//! The names of fields at fault, as callers of JSON wrote them.

use std::borrow::Cow;

use tonic::Status;
use tonic_types::{FieldViolation, StatusExt as _};

use transcode::schema::{MessageId, Schema};

/// The status of a call with that message, with the fields at fault in JSON's spelling.
pub(super) fn spelled<'s>(schema: &Schema, input: MessageId, status: &'s Status) -> Cow<'s, Status> {
    let Some(bad) = status.get_details_bad_request() else { return Cow::Borrowed(status) };
    let (mut details, mut message) = (status.get_error_details(), status.message().to_owned());
    let mut violations = bad.field_violations;
    for FieldViolation { field, description, .. } in &mut violations {
        let name = schema.json_path(input, field);
        message = message.replace(&format!("{field} {description}"), &format!("{name} {description}"));
        *field = name;
    }
    details.set_bad_request(violations);
    Cow::Owned(Status::with_error_details(status.code(), message, details))
}
