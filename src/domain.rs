//! Parsed values and records. Holding one is proof that it was checked. No I/O.

pub mod caller;
pub mod email;
pub mod event;
pub mod namespace;
pub mod page;
pub mod password;
pub mod session;
pub mod text;
pub mod time;
pub mod user;
pub mod user_id;
pub mod username;
