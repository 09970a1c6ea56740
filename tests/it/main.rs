//! The running service over sockets, every test on every database.

mod bad_input;
mod http;
mod micro_faults;
mod passwords;
mod server;
mod sessions;
mod storage;
mod support;
mod users;
