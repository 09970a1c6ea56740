//! Rows as SeaORM sees them.

#[expect(unreachable_pub, reason = "SeaORM's derive asks for pub")]
pub(super) mod event;
#[expect(unreachable_pub, reason = "SeaORM's derive asks for pub")]
pub(super) mod session;
pub(super) mod user;
