//! The RPCs: message to domain, one operation, domain to message.

pub mod codec;
mod convert;
pub mod keys;
pub mod status;
pub mod users;

use tonic::Request;

use crate::domain::caller::Caller;
use crate::error::{Error, Result};

/// Returns the caller that the pipeline authenticated. Without one nothing is served.
fn caller<T>(request: &Request<T>) -> Result<Caller> {
    request.extensions().get().cloned().ok_or_else(|| Error::internal("a call has no authenticated caller"))
}
