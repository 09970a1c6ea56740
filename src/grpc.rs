//! The RPCs: message to domain, one operation, domain to message.

pub mod codec;
mod convert;
pub mod keys;
pub mod status;
pub mod users;

use tonic::{Request, Response, Status};

use crate::domain::caller::Caller;
use crate::error::{Error, Result};

/// What an RPC gives.
type Reply<T> = Result<Response<T>, Status>;

/// Whom the gate let in. Without one nothing is served.
fn caller<T>(request: &Request<T>) -> Result<Caller> {
    request.extensions().get().cloned().ok_or_else(|| Error::internal("a call came past the gate"))
}
