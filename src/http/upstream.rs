//! The RPCs, called inside the process: no socket and no HTTP/2, the same implementations for every dialect.

use http::{Extensions, Method as Verb, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service as _;

use super::body::{End, until};
use super::frames::{self, frame};
use super::receive::timed;
use super::transcode::schema::Method;
use crate::error::Error;
use crate::grpc::status::refusal;
use crate::pb::ErrorReason;

use bytes::Bytes;

/// The implementations of the RPCs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Upstream(Routes);

impl Upstream {
    /// The RPCs of these routes.
    pub fn new(routes: Routes) -> Self {
        Self(routes.prepare())
    }

    /// Calls the RPC that the path names, in gRPC. With an `end` it is a stream: its messages must arrive in
    /// time, and it ends at the latest when `end` resolves.
    pub(super) async fn serve(&self, request: Request<Body>, end: Option<End>) -> Response<Body> {
        let Some(mut end) = end else { return self.call(request).await };
        let response = tokio::select! {
            biased;
            response = self.call(request.map(timed)) => response,
            status = &mut end => return status.into_http(),
        };
        response.map(|body| until(end, body))
    }

    /// Calls a unary RPC with its encoded message, and returns the encoded reply.
    pub(super) async fn unary(
        &self,
        method: &Method,
        message: &[u8],
        extensions: Extensions,
    ) -> Result<Bytes, Status> {
        let response = self.serve(request(method, message, extensions), None).await;
        let reply = begun(response)?.collect().await?;
        check(reply.trailers().and_then(Status::from_header_map))?;
        Ok(frames::single(reply.to_bytes())
            .ok_or_else(|| Error::internal("a reply that is not one message"))?)
    }

    /// Calls a server-streaming RPC with its encoded message, and returns the body of its reply.
    /// Fails with the status of the call if it fails before its first message.
    pub(super) async fn stream(
        &self,
        method: &Method,
        message: &[u8],
        extensions: Extensions,
        end: Option<End>,
    ) -> Result<Body, Status> {
        begun(self.serve(request(method, message, extensions), end).await)
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        match self.0.clone().call(request).await {
            Ok(response) => attach_error_info(response),
            Err(never) => match never {},
        }
    }
}

/// Extensions carry the caller. RPCs read no headers.
fn request(method: &Method, message: &[u8], extensions: Extensions) -> Request<Body> {
    let mut request = Request::new(Body::new(Full::new(frame(message))));
    *request.method_mut() = Verb::POST;
    *request.uri_mut() = method.uri.clone();
    *request.extensions_mut() = extensions;
    request
}

/// The body of a reply, or the status of a call that failed before it.
fn begun(response: Response<Body>) -> Result<Body, Status> {
    check(Status::from_header_map(response.headers()))?;
    Ok(response.into_body())
}

fn check(status: Option<Status>) -> Result<(), Status> {
    status.filter(|status| status.code() != Code::Ok).map_or(Ok(()), Err)
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
