//! Rows as SeaORM sees them.

#[expect(unreachable_pub, reason = "the derive macro asks for it")]
pub(super) mod ended_key;
pub(super) mod event;
pub(super) mod key;
pub(super) mod session;
pub(super) mod user;
