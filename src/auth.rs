//! Authentication, authorization, and the limits of callers.

pub mod authenticator;
pub mod keyring;
pub mod limits;
mod pages;
pub mod policy;
