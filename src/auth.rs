//! Who calls, and whether they may.

pub mod keyring;
pub mod layer;
pub mod limits;
mod pages;
pub mod policy;
