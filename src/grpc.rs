//! The RPCs: message to domain, one operation, domain to message.

pub mod codec;
mod convert;
pub mod status;
pub mod users;
