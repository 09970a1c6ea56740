//! What every call goes through, whatever form it came in: one list, a reason each.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::Full;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_health::pb::health_server::{Health, HealthServer};
use tower::Service;

use crate::auth::keyring::{KeyRing, Known};
use crate::auth::layer::Gate;
use crate::auth::limits::{Limit, Meter, NamespacePermit, Namespaces};
use crate::config::Config;
use crate::domain::caller::Caller;
use crate::error::tally::FAILED;
use crate::error::{Error, Result};
use crate::grpc::keys::KeysService;
use crate::grpc::status::refusal;
use crate::grpc::users::UsersService;
use crate::http::{Admission, Guarded, receive};
use crate::ops::Operations;
use crate::pb::ErrorReason;
use crate::pb::keys_server::KeysServer;
use crate::pb::users_server::UsersServer;

/// The RPCs behind their gate and limits.
#[derive(Clone, Debug)]
pub(super) struct Stack {
    routes: Routes,
    gate: Arc<Gate>,
    limits: Arc<Limits>,
    max_body: usize,
}

/// How much is let in: of all together, of one caller, and of strangers where no key is needed to learn something.
#[derive(Debug)]
struct Limits {
    all: Meter,
    of_all: Limit,
    of_one: Limit,
    namespaces: Arc<Namespaces>,
    strangers: Arc<Known>,
    since: Instant,
    open_health: bool,
    open_reflection: bool,
}

/// Streams of strangers at a time. Reflection talks both ways for as long as its client likes.
const STRANGERS: Limit = Limit { calls: 64, rate: None };

/// Longest message of health and reflection: names.
const MAX_NAME: usize = 4 * 1024;

/// A body that took longer to come than this was let in by what may not be true any more.
const LONG_AGO: Duration = Duration::from_millis(100);

/// A place among the calls of one caller, until it is dropped.
struct Own(Arc<Known>);

impl Drop for Own {
    fn drop(&mut self) {
        self.0.meter.leave();
    }
}

/// A permit from the limit of all calls and from that of the caller's namespace, released on drop.
struct Place {
    limits: Arc<Limits>,
    _namespace: Option<NamespacePermit>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limits.all.leave();
    }
}

/// A call that is worked on. Dropped with it, it counts one whose caller left: clients with a deadline often do when it
/// passes, and no other trace of the call is left.
struct Unanswered;

impl Drop for Unanswered {
    fn drop(&mut self) {
        FAILED.abandoned();
    }
}

impl Limits {
    fn new(config: &Config) -> Self {
        Self {
            all: Meter::default(),
            of_all: Limit { calls: config.limits_calls, rate: config.limits_rate },
            of_one: Limit { calls: config.limits_calls_per_caller, rate: config.limits_rate_per_caller },
            namespaces: Arc::new(Namespaces::new(config.limits_calls_per_namespace)),
            strangers: Arc::new(Known::open()),
            since: Instant::now(),
            open_health: config.open_health,
            open_reflection: config.open_reflection,
        }
    }

    /// A place among the caller's own calls, from before its message is read until its reply is sent: who sends slowly or
    /// reads slowly holds back nobody else. Where there are no keys, everyone is one caller and only all together are counted.
    fn enter_own(&self, caller: &Arc<Known>) -> Result<Own> {
        let limit = if Arc::ptr_eq(caller, &self.strangers) {
            STRANGERS
        } else if caller.is_open() {
            Limit { calls: usize::MAX, rate: None }
        } else {
            self.of_one
        };
        caller.meter.enter(limit).map_err(|retry_after| Error::CallerLimited { retry_after })?;
        Ok(Own(Arc::clone(caller)))
    }

    /// A place among all. Full means no, at once: a queue would only make everyone late.
    fn enter_all(self: &Arc<Self>, known: &Known, caller: Option<&Caller>) -> Result<Place> {
        let mut namespace = None;
        if let (false, Some(caller)) = (known.is_open(), caller) {
            let limited = |retry_after| Error::CallerLimited { retry_after };
            namespace = Some(self.namespaces.enter(&caller.namespace).map_err(limited)?);
            known.meter.take(self.of_one, self.since).map_err(limited)?;
        }
        let limited = |retry_after| Error::Overloaded { retry_after };
        self.all.enter(self.of_all).map_err(limited)?;
        let place = Place { limits: Arc::clone(self), _namespace: namespace };
        self.all.take(self.of_all, self.since).map_err(limited)?;
        Ok(place)
    }
}

impl Stack {
    /// # Errors
    ///
    /// If the proto's descriptors cannot be served to clients.
    pub(super) fn new(
        config: &Config,
        ops: Operations,
        keys: KeyRing,
        health: HealthServer<impl Health>,
    ) -> Result<Self, tonic_reflection::server::Error> {
        let max_body = config.http_max_body;
        let users = UsersServer::new(UsersService::new(ops.clone())).max_decoding_message_size(max_body);
        let keys_service = KeysServer::new(KeysService::new(ops, keys.clone()));
        let mut routes = Routes::builder();
        routes.add_service(users).add_service(keys_service.max_decoding_message_size(max_body));
        // Clients in use speak one or the other version of reflection.
        routes.add_service(health);
        routes.add_service(describe().build_v1()?.max_decoding_message_size(MAX_NAME));
        routes.add_service(describe().build_v1alpha()?.max_decoding_message_size(MAX_NAME));
        Ok(Self {
            routes: routes.routes().prepare(),
            gate: Arc::new(Gate::new(config, keys)),
            limits: Arc::new(Limits::new(config)),
            max_body,
        })
    }

    /// Calls that are worked on right now.
    pub(super) fn in_flight(&self) -> usize {
        self.limits.all.running()
    }

    /// Whether programs of this machine are served without a key now.
    pub(super) fn is_open(&self) -> bool {
        self.gate.is_open()
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

    async fn guarded(self, request: Request<Body>) -> Result<Response<Body>> {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path();
        // Health is asked most urgently when the server is full: it takes no place.
        if path.starts_with("/grpc.health.v1.Health/") {
            self.admit_any(&head, self.limits.open_health)?;
            return Ok(self.call_routes(received(head, body, MAX_NAME).await?).await);
        }
        if path.starts_with("/grpc.reflection.") {
            let caller = self.admit_any(&head, self.limits.open_reflection)?;
            let own = self.limits.enter_own(&caller)?;
            return Ok(hold(self.call_routes(Request::from_parts(head, body)).await, own));
        }
        // 1. Who calls: strangers get nothing, not even memory for what they send. Only here is a caller made; one that
        //    came with the request is overwritten.
        let (known, caller) = self.gate.admit(&head, path)?;
        let own = self.limits.enter_own(&known)?;
        head.extensions.insert(caller);
        // 2. The whole message, before a place among all: a client that opens streams and sends nothing must not hold the
        //    places of others. What took long may come from who is not let in any more.
        let begun = Instant::now();
        let request = received(head, body, self.max_body).await?;
        let mut request = if begun.elapsed() > LONG_AGO { self.admitted_again(request)? } else { request };
        // 3. A place.
        let _place = self.limits.enter_all(&known, request.extensions().get())?;
        // 4. The caller's own deadline: an answer nobody waits for is not worked on.
        let unanswered = Unanswered;
        let response = match deadline(request.headers())? {
            Some(Duration::ZERO) => Err(Error::DeadlinePassed),
            Some(span) => {
                if let Some(caller) = request.extensions_mut().get_mut::<Caller>() {
                    caller.deadline = Instant::now().checked_add(span);
                }
                let answered = tokio::time::timeout(span, self.call_routes(request)).await;
                answered.map_err(|_| Error::DeadlinePassed)
            }
            None => Ok(self.call_routes(request).await),
        };
        std::mem::forget(unanswered);
        Ok(hold(response?, own))
    }

    fn admitted_again(&self, request: Request<Body>) -> Result<Request<Body>> {
        let (mut head, body) = request.into_parts();
        let (_, caller) = self.gate.admit(&head, head.uri.path())?;
        head.extensions.insert(caller);
        Ok(Request::from_parts(head, body))
    }

    /// Lets in what is no RPC of ours: everyone where it is `open`, else whoever is known.
    fn admit_any(&self, head: &Parts, open: bool) -> Result<Arc<Known>> {
        if open {
            self.gate.check_open(head).map(|_| Arc::clone(&self.limits.strangers))
        } else {
            self.gate.identify(head)
        }
    }

    async fn call_routes(&self, request: Request<Body>) -> Response<Body> {
        match self.routes.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl Guarded for Stack {
    fn admit(&self, head: &Parts, path: &str) -> Result<Admission, Status> {
        let (known, _) = self.gate.authorize(head, path)?;
        let own = self.limits.enter_own(&known)?;
        Ok(Admission { named: !known.is_open(), place: Box::new(own) })
    }
}

/// The response with a place that is given back when all of it is sent.
fn hold(response: Response<Body>, own: Own) -> Response<Body> {
    response.map(|body| Body::new(Held { body, _own: own }))
}

struct Held {
    body: Body,
    _own: Own,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
async fn received(head: Parts, mut body: Body, max_body: usize) -> Result<Request<Body>> {
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
        Code::Unimplemented if said.is_empty() => Error::MethodUnknown.into(),
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
