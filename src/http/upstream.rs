//! The RPCs, called inside the process: no socket and no HTTP/2, the same implementations for every dialect.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::ready;
use std::sync::Arc;

use http::{Method as Verb, Request, Response};
use prost::Message;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use super::body::{End, until};
use crate::error::Error;
use crate::grpc::status::refusal;
use crate::pb::ErrorReason;
use transcode::schema::Method;

use bytes::Bytes;

type Reply = BoxFuture<Response<Body>, Infallible>;
type Serve = Box<dyn Fn(Request<Body>) -> Reply + Send + Sync>;
type Unary = Box<dyn Fn(tonic::Request<&[u8]>) -> BoxFuture<tonic::Response<Bytes>, Status> + Send + Sync>;

/// The implementations of the RPCs.
#[derive(Default)]
pub struct Upstream {
    /// The gRPC services by their names.
    services: HashMap<&'static str, Serve>,
    /// The unary RPCs by their paths, for dialects that have the message whole: without gRPC's frames and headers a
    /// call of JSON costs a tenth less.
    unary: HashMap<&'static str, Unary>,
}

impl Upstream {
    /// Adds the RPCs of `service`, as tonic generates one.
    pub fn add<S>(&mut self, service: S)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Reply>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        self.insert(S::NAME, move |request| service.clone().call(request));
    }

    /// Adds `rpc` of `service` for the dialects of JSON.
    pub fn add_unary<T, Q, R, F>(
        &mut self,
        path: &'static str,
        service: &Arc<T>,
        rpc: fn(Arc<T>, tonic::Request<Q>) -> F,
    ) where
        T: Send + Sync + 'static,
        Q: Message + Default + 'static,
        R: Message,
        F: Future<Output = Result<tonic::Response<R>, Status>> + Send + 'static,
    {
        let service = Arc::clone(service);
        self.insert_unary(path, move |request| {
            let (metadata, extensions, message) = request.into_parts();
            let message = match Q::decode(message) {
                Ok(message) => message,
                Err(error) => return Box::pin(ready(Err(Error::Malformed(error.to_string()).into()))),
            };
            let request = tonic::Request::from_parts(metadata, extensions, message);
            let reply = rpc(Arc::clone(&service), request);
            Box::pin(async move { Ok(reply.await?.map(|reply| reply.encode_to_vec().into())) })
        });
    }

    pub(super) fn insert(
        &mut self,
        name: &'static str,
        serve: impl Fn(Request<Body>) -> Reply + Send + Sync + 'static,
    ) {
        self.services.insert(name, Box::new(serve));
    }

    pub(super) fn insert_unary(
        &mut self,
        path: &'static str,
        unary: impl Fn(tonic::Request<&[u8]>) -> BoxFuture<tonic::Response<Bytes>, Status> + Send + Sync + 'static,
    ) {
        self.unary.insert(path, Box::new(unary));
    }

    /// Calls the RPC that the path names, in gRPC. With an `end` it is a stream, and ends at the latest when `end`
    /// resolves.
    pub(super) async fn serve(&self, request: Request<Body>, end: Option<End>) -> Response<Body> {
        let Some(mut end) = end else { return self.call(request).await };
        let response = tokio::select! {
            biased;
            response = self.call(request) => response,
            status = &mut end => return status.into_http(),
        };
        response.map(|body| until(end, body))
    }

    /// Calls a unary RPC with its encoded message, and returns the encoded reply.
    pub(super) async fn unary(
        &self,
        method: &Method,
        request: tonic::Request<&[u8]>,
    ) -> Result<tonic::Response<Bytes>, Status> {
        let unary = self.unary.get(method.path()).ok_or(Error::MethodUnknown)?;
        unary(request).await
    }

    /// Calls a streaming RPC with its messages in gRPC's frames, and returns its reply in them.
    /// Fails with the status of the call if it fails before its first message.
    pub(super) async fn stream(
        &self,
        method: &Method,
        messages: tonic::Request<Body>,
        end: Option<End>,
    ) -> Result<Response<Body>, Status> {
        let response = self.serve(request(method, messages), end).await;
        match Status::from_header_map(response.headers()) {
            Some(status) if status.code() != Code::Ok => Err(status),
            _ => Ok(response),
        }
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let name = request.uri().path().get(1..).and_then(|path| path.split_once('/')).map(|(name, _)| name);
        let Some(serve) = name.and_then(|name| self.services.get(name)) else {
            return Status::from(Error::MethodUnknown).into_http();
        };
        let Ok(response) = serve(request).await;
        attach_error_info(response)
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.services.keys()).finish()
    }
}

/// The request as tonic takes it. Extensions carry the caller.
fn request(method: &Method, messages: tonic::Request<Body>) -> Request<Body> {
    let (metadata, extensions, messages) = messages.into_parts();
    let mut request = Request::new(messages);
    *request.method_mut() = Verb::POST;
    *request.uri_mut() = method.uri.clone();
    *request.headers_mut() = metadata.into_headers();
    *request.extensions_mut() = extensions;
    request
}

/// Gives the refusals of tonic itself the reason that all of ours have. Ours carry details, its do not.
fn attach_error_info(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    if !headers.contains_key(Status::GRPC_STATUS) || headers.contains_key("grpc-status-details-bin") {
        return response;
    }
    let Some(status) = Status::from_header_map(headers) else { return response };
    let message = status.message();
    let refused = match status.code() {
        Code::Unimplemented if message.is_empty() => Error::MethodUnknown.into(),
        Code::Unimplemented => {
            let known = response.headers().get("grpc-accept-encoding").cloned();
            let mut refused: Response<Body> =
                refusal(Code::Unimplemented, ErrorReason::EncodingUnknown, message).into_http();
            if let Some(known) = known {
                refused.headers_mut().insert("grpc-accept-encoding", known);
            }
            return refused;
        }
        Code::OutOfRange => refusal(Code::OutOfRange, ErrorReason::TooLarge, "the message is too long"),
        // Incomplete frames, or flags that were not announced: the caller's mistake, not ours.
        Code::Internal => refusal(Code::InvalidArgument, ErrorReason::Malformed, message),
        _ => return response,
    };
    refused.into_http()
}
