//! Rows as SeaORM sees them.

pub(super) mod event;
pub(super) mod key;
pub(super) mod session;
pub(super) mod user;
