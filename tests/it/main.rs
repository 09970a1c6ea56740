//! The running service over sockets, every test on every database.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod appwrite;
mod appwrite_complaints;
mod appwrite_refusals;
mod bad_input;
mod http;
mod list_model;
mod lists;
mod meiro;
mod micro_faults;
mod passwords;
mod plans;
mod server;
mod sessions;
mod storage;
mod support;
mod users;
