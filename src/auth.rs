//! Who calls, and whether they may.

pub mod keyring;
pub mod layer;
pub mod limits;
pub mod policy;
