//! Authentication, authorization, and the limits of callers.

pub mod authenticator;
mod browser;
pub mod keyring;
pub mod limits;
pub mod policy;
