//! Parsed values and records. Holding one is proof that it was checked. No I/O.

pub mod assertion;
pub mod caller;
pub mod code;
pub mod device;
pub mod email;
pub mod event;
pub mod idempotency;
pub mod key;
pub mod key_file;
pub mod list;
pub mod namespace;
pub mod page;
pub mod page_token;
pub mod password;
pub mod postgres_url;
pub mod prefs;
pub mod quota;
pub mod scope;
pub mod secret;
pub mod session;
pub mod text;
pub mod time;
pub mod totp;
pub mod user;
pub mod user_id;
pub mod username;
mod value;
