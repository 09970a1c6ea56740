//! What every call goes through, whatever form it came in: one list, a reason each.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use http_body_util::Full;
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_health::pb::health_server::{Health, HealthServer};
use tower::Service;

use crate::auth::layer::Gate;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::grpc::status::refusal;
use crate::grpc::users::UsersService;
use crate::http::receive;
use crate::ops::Operations;
use crate::pb::ErrorReason;
use crate::pb::users_server::UsersServer;

/// The RPCs behind their gate and limits.
#[derive(Clone, Debug)]
pub(super) struct Stack {
    routes: Routes,
    gate: Arc<Gate>,
    calls: Arc<Semaphore>,
    most_calls: usize,
    max_body: usize,
}

impl Stack {
    /// # Errors
    ///
    /// If the proto's descriptors cannot be served to clients.
    pub(super) fn new(
        config: &Config,
        ops: Operations,
        health: HealthServer<impl Health>,
    ) -> Result<Self, tonic_reflection::server::Error> {
        let users = UsersServer::new(UsersService::new(ops)).max_decoding_message_size(config.http_max_body);
        let mut routes = Routes::builder();
        routes.add_service(users).add_service(health);
        // Clients in use speak one or the other version of reflection.
        routes.add_service(describe().build_v1()?).add_service(describe().build_v1alpha()?);
        Ok(Self {
            routes: routes.routes().prepare(),
            gate: Arc::new(Gate::new(config)),
            calls: Arc::new(Semaphore::new(config.limits_calls)),
            most_calls: config.limits_calls,
            max_body: config.http_max_body,
        })
    }

    /// Calls that are worked on right now.
    pub(super) fn in_flight(&self) -> usize {
        self.most_calls - self.calls.available_permits()
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let called = AssertUnwindSafe(self.guarded(request)).catch_unwind().await;
        let refused = match called {
            Ok(Ok(response)) => return explain(response),
            Ok(Err(error)) => error,
            // The panic hook has logged where; the connection and all other calls go on.
            Err(_) => Error::internal("a call panicked"),
        };
        Status::from(refused).into_http()
    }

    async fn guarded(self, mut request: Request<Body>) -> Result<Response<Body>> {
        // Health is asked most urgently when the server is full: it takes no place and needs no caller.
        let is_health = request.uri().path().starts_with("/grpc.health.v1.Health/");
        self.gate.check_origin(&request)?;
        if is_health {
            return Ok(self.call_routes(request).await);
        }
        // 1. The whole message, before anything else is given to the call: a client that opens streams and sends nothing
        //    must not hold the places of others. Reflection talks both ways and cannot be waited for.
        if !request.uri().path().starts_with("/grpc.reflection.") {
            request = received(request, self.max_body).await?;
        }
        // 2. Full means no, at once: a queue would only make everyone late.
        let _place = self.calls.try_acquire().map_err(|_| Error::Overloaded)?;
        // 3. Who calls. Only here is a caller made; one that came with the request is overwritten.
        let caller = self.gate.admit(&request)?;
        request.extensions_mut().insert(caller);
        // 4. The caller's own deadline: an answer nobody waits for is not worked on.
        match deadline(request.headers())? {
            Some(Duration::ZERO) => Err(Error::DeadlinePassed),
            Some(span) => {
                let answered = tokio::time::timeout(span, self.call_routes(request)).await;
                answered.map_err(|_| Error::DeadlinePassed)
            }
            None => Ok(self.call_routes(request).await),
        }
    }

    async fn call_routes(&self, request: Request<Body>) -> Response<Body> {
        match self.routes.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl Service<Request<Body>> for Stack {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let stack = self.clone();
        Box::pin(async move { Ok(stack.answer(request).await) })
    }
}

/// What grpcurl and the like learn the methods from.
fn describe() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(crate::DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // With these a client can show what the details of a status say.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// The frames of a message: five bytes and the message. One frame too many is seen by whoever reads them.
const FRAMES: usize = 16;

/// The request with its body in memory.
async fn received(request: Request<Body>, max_body: usize) -> Result<Request<Body>> {
    let (head, mut body) = request.into_parts();
    if body.is_end_stream() {
        return Ok(Request::from_parts(head, body));
    }
    let body = receive(&mut body, max_body, FRAMES).await?;
    Ok(Request::from_parts(head, Body::new(Full::new(body))))
}

/// The span of gRPC's `grpc-timeout`: at most eight digits and a unit.
fn deadline(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let wrong =
        || Error::invalid("grpc-timeout", "must be one to eight digits and one of H, M, S, m, u and n");
    let text = value.to_str().map_err(|_| wrong())?;
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    Ok(Some(match unit {
        "H" => Duration::from_hours(number),
        "M" => Duration::from_mins(number),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(wrong()),
    }))
}

/// Gives the refusals of the transport itself the reason that all of ours have. Ours carry details, its do not.
fn explain(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    if !headers.contains_key(Status::GRPC_STATUS) || headers.contains_key("grpc-status-details-bin") {
        return response;
    }
    let Some(status) = Status::from_header_map(headers) else { return response };
    let said = status.message();
    let refused = match status.code() {
        Code::Unimplemented if said.is_empty() => {
            refusal(Code::Unimplemented, ErrorReason::MethodUnknown, "there is no such method")
        }
        Code::Unimplemented => {
            let known = response.headers().get("grpc-accept-encoding").cloned();
            let mut refused: Response<Body> =
                refusal(Code::Unimplemented, ErrorReason::EncodingUnknown, said).into_http();
            if let Some(known) = known {
                refused.headers_mut().insert("grpc-accept-encoding", known);
            }
            return refused;
        }
        Code::OutOfRange => refusal(Code::OutOfRange, ErrorReason::TooLarge, "the message is too long"),
        // Frames that are cut or have flags that nobody announced: the caller's mistake, not ours.
        Code::Internal => refusal(Code::InvalidArgument, ErrorReason::Malformed, said),
        _ => return response,
    };
    refused.into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_as_grpc_says() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            deadline(&headers).ok().flatten()
        };
        assert_eq!(parse("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse("100m"), Some(Duration::from_millis(100)));
        assert_eq!(parse("99999999H"), Some(Duration::from_hours(99_999_999)));
        for wrong in ["", "S", "5", "5s", "-5S", "123456789S", "5.5S", "+5S", "5 S"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(deadline(&HeaderMap::new()).unwrap(), None);
    }
}
