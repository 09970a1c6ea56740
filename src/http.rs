//! Eight dialects on one port, told apart by content type and path: gRPC, gRPC-Web, Connect, JSON in gRPC frames,
//! JSON by the routes in the proto, and the JSON of three systems that this one stands in for.
//!
//! Every dialect ends in the same RPCs ([`Upstream`]), and sees no key and no limit: [`Gateway::locate`] says
//! which RPC a request asks for, then the server authenticates and reads it, and [`Call::answer`] does the rest.

mod body;
mod coding;
mod dialects;
mod docs;
mod frames;
pub mod jwks;
mod receive;
mod reply;
#[cfg(test)]
mod tests;
mod timeout;
mod upstream;

pub use body::{End, HeldPermits, hold_permits};
pub use dialects::{Call, Content, DialectName, Expected, Gateway, Settings, Target};
pub use docs::Document;
pub use receive::{BODY_TIMEOUT, receive_message, receive_plain};
pub use reply::{FailedStream, error as failed, other_verb};
pub use transcode::json;
pub use transcode::schema::{Schema, SchemaError};
pub use upstream::Upstream;

use http::StatusCode;
use tonic::Code;

use crate::error::Error;
use crate::grpc::status::refusal;
use crate::pb::ErrorReason;
use transcode::json::ReadError;

/// The reply to a request that is none, in whatever dialect.
pub fn malformed(why: &str) -> http::Response<tonic::body::Body> {
    reply::error(&Error::Malformed(why.to_owned()).into())
}

/// The JSON error for what HTTP cannot read as a request, by the HTTP status.
pub fn unreadable_head(status: StatusCode) -> Vec<u8> {
    let (code, reason, message) = match status {
        StatusCode::URI_TOO_LONG => (Code::OutOfRange, ErrorReason::TooLarge, "the URL is too long"),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            (Code::OutOfRange, ErrorReason::TooLarge, "the headers are too many or too long")
        }
        _ => (
            Code::InvalidArgument,
            ErrorReason::Malformed,
            "the request line or a header is not as HTTP/1.1 has it; in a URL, escape what is not a letter, digit or one of -._~",
        ),
    };
    let mut body = Vec::new();
    reply::error_body(&refusal(code, reason, message), &mut body);
    body
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Malformed(why) => Self::Malformed(why),
            ReadError::Fields(faults) => Self::Invalid(faults),
        }
    }
}
