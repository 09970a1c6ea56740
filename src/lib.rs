//! Accounts, passwords and sessions for other services, over gRPC and JSON, on SQLite or PostgreSQL.

pub mod auth;
pub mod blocklist;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod devices;
pub mod domain;
pub mod error;
pub mod grpc;
pub mod hasher;
pub mod headers;
pub mod http;
pub mod ops;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod throttle;

/// The messages, clients and servers that `proto/` declares.
#[expect(missing_docs, clippy::all, clippy::allow_attributes, clippy::pedantic, reason = "generated")]
pub mod pb {
    tonic::include_proto!("users");
}

/// `proto/` compiled, with its `google.api.http` options and its comments.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/usersd.descriptors"));
