//! The running service over sockets, every test on every database.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::print_stdout,
    reason = "tests of faults and of fairness show their figures with --nocapture"
)]

mod appwrite;
mod appwrite_complaints;
mod appwrite_refusals;
mod assertions;
mod authz;
mod bad_input;
mod batch;
mod blocklist;
mod cache;
mod challenges;
mod cluster;
mod codes;
mod codes_limits;
mod compression;
mod conformance;
mod connect;
mod connect_streams;
mod connections;
mod cors;
mod create_or_restore;
mod everything;
mod factors;
mod faults;
mod foreign_hashes;
mod health;
mod history;
mod history_of_processes;
mod housekeeping;
mod http;
mod key_changes;
mod key_makers;
mod keys;
mod list_model;
mod lists;
mod logs;
mod many_hits;
mod meiro;
mod memory;
mod metrics;
mod micro_faults;
mod namespace_deletion;
mod namespace_reuse;
mod namespaces;
mod newer_schema;
mod openapi;
mod outages;
mod pages;
mod passwords;
mod peppers;
mod permits;
mod plans;
mod prefs;
mod process;
mod proof;
mod proxy;
mod quotas;
mod races;
mod released;
mod repeats;
mod server;
mod session_lists;
mod sessions;
mod status;
mod steps;
mod storage;
mod streams;
mod support;
mod tail;
mod tenants;
mod throttle;
mod throttle_limits;
mod totals;
mod traces;
mod trash;
mod unread;
mod unreadable;
mod users;
