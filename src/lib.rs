#![doc = include_str!("README.md")]

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
mod headers;
pub mod http;
pub mod metrics;
pub mod ops;
pub mod server;
pub mod store;
mod telemetry;
pub mod throttle;

/// The messages, clients and servers that `proto/` declares.
#[expect(clippy::all, clippy::allow_attributes, clippy::pedantic, reason = "generated")]
pub mod pb {
    tonic::include_proto!("users");
}

/// `proto/` compiled, with its `google.api.http` options and its comments.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/usersd.descriptors"));
