//! The RPCs: message to domain, one operation, domain to message.

pub mod codec;
pub mod status;
