//! The RPCs: message to domain, one operation, domain to message.

pub mod codec;
mod convert;
pub mod keys;
pub mod namespaces;
pub mod status;
pub mod users;

use tonic::{Request, Response, Status};

use crate::domain::caller::Caller;
use crate::domain::idempotency::IdempotencyHeader;
use crate::error::{Error, Result};

/// The result of an RPC.
type Reply<T> = Result<Response<T>, Status>;

/// Returns the caller that the pipeline authenticated. Without one nothing is served.
fn caller<T>(request: &Request<T>) -> Result<Caller> {
    request.extensions().get().cloned().ok_or_else(|| Error::internal("a call has no authenticated caller"))
}

/// Returns the idempotency key that the headers carry, if they carry one.
fn idempotency_header<T>(request: &Request<T>) -> Option<IdempotencyHeader> {
    request.extensions().get().cloned()
}
