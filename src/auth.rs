//! Who calls, and whether they may.

pub mod layer;
