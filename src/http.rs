//! HTTP in front of the gRPC stack: gRPC itself, gRPC-Web, JSON by the routes in the proto, and the JSON of systems
//! that this one stands in for, all on one port and told apart by content type.
//!
//! JSON is a client of the stack inside the process. Tables made once from the descriptor set ([`Schema`]) turn JSON
//! text into protobuf bytes and back ([`json`]) without a message type in between, so that a new RPC has its JSON
//! form without a line of code, and keys, limits and logs exist once, in the stack. Systems whose JSON has models of
//! its own (`appwrite`, `meiro`) are clients of it by typed messages.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method as Verb, Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer as _, ServiceExt as _};

mod appwrite;
mod call;
mod dialect;
mod escape;
mod grpc_json;
pub mod json;
mod meiro;
mod micro;
mod permit;
mod query;
mod reply;
mod rest;
mod route;
pub mod schema;
#[cfg(test)]
mod tests;

pub use call::{Admission, Guarded, Stack};
pub(crate) use call::{RECEIVE, receive};
pub use permit::Permits;
pub use schema::{Schema, SchemaError};

use schema::Method;

/// Takes every request of the port and hands it to the stack in the form that it knows.
#[derive(Clone, Debug)]
pub struct Front<S> {
    schema: Arc<Schema>,
    stack: S,
    web: GrpcWebService<S>,
    settings: Settings,
}

/// What an operator decides of the JSON side.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of JSON that one request may have. gRPC messages have the limit that the stack sets.
    pub max_body: usize,
    /// Whether prefs that come by the Appwrite API are all there are; otherwise they are merged into those that
    /// the user has.
    pub appwrite_replaces_prefs: bool,
}

impl<S: Stack> Front<S> {
    /// In front of `stack`, which must serve the RPCs of `schema`.
    pub fn new(schema: Arc<Schema>, stack: S, settings: Settings) -> Self {
        Self { schema, web: GrpcWebLayer::new().layer(stack.clone()), stack, settings }
    }

    /// Answers any request.
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let media = call::media_type(request.headers()).unwrap_or_default();
        if media.starts_with("application/grpc-web") {
            return infallible(self.web.clone().oneshot(request).await);
        }
        if media == grpc_json::MEDIA_TYPE {
            let (head, body) = request.into_parts();
            return grpc_json::handle(self, head, body).await;
        }
        if media.starts_with("application/grpc") {
            let micro = micro::sends(request.headers()).then(|| request.uri().path().to_owned());
            let response = infallible(self.stack.clone().oneshot(request).await);
            return match micro {
                Some(path) => grpc_json::in_its_words(&self.schema, &path, response),
                None => response,
            };
        }
        let (head, body) = request.into_parts();
        let headers_only = head.method == Verb::HEAD;
        let path = head.uri.path();
        let response = if micro::owns(path) {
            micro::handle(self, head, body).await
        } else if appwrite::owns(path) {
            appwrite::handle(self, head, body).await
        } else if meiro::owns(path) {
            meiro::handle(self, head, body).await
        } else {
            rest::handle(self, head, body).await
        };
        if headers_only { response.map(|_| Body::empty()) } else { response }
    }

    /// Calls an RPC with its encoded message, for whoever turns other forms into messages: extensions and headers of
    /// the HTTP request in `head` go with it.
    async fn call(
        &self,
        method: &Method,
        message: Vec<u8>,
        head: Parts,
    ) -> Result<tonic::Response<Bytes>, Status> {
        call::call(self.stack.clone(), method, message, head).await
    }
}

/// Refuses a request that is none, whatever dialect it is in.
pub(crate) fn malformed(why: &str) -> Response<Body> {
    reply::error(&crate::error::Error::Malformed(why.to_owned()).into())
}

fn infallible<T>(result: Result<T, std::convert::Infallible>) -> T {
    match result {
        Ok(value) => value,
        Err(never) => match never {},
    }
}
