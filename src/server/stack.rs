//! What every call goes through, whatever form it came in: one list, a reason each.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use http_body_util::Full;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_health::pb::health_server::{Health, HealthServer};
use tower::Service;

use crate::auth::keyring::{KeyRing, Known};
use crate::auth::layer::Gate;
use crate::config::Config;
use crate::domain::caller::Caller;
use crate::error::tally::FAILED;
use crate::error::{Error, Result};
use crate::grpc::keys::KeysService;
use crate::grpc::status::refusal;
use crate::grpc::users::UsersService;
use crate::http::{Admission, Guarded, Permits, RECEIVE, receive};
use crate::ops::Operations;
use crate::pb::ErrorReason;
use crate::pb::keys_server::KeysServer;
use crate::pb::users_server::UsersServer;

use super::connection::Connection;
use super::limits::Limits;
use super::until::until;

/// The RPCs behind their gate and limits.
#[derive(Clone, Debug)]
pub(super) struct Stack {
    routes: Routes,
    gate: Arc<Gate>,
    limits: Arc<Limits>,
    /// Whoever asks health or reflection without a key.
    stranger: Arc<Known>,
    open_health: bool,
    open_reflection: bool,
    max_body: usize,
    /// Ends the streams that have no end of their own.
    drain: CancellationToken,
}

/// Longest message of health and reflection, which are names, and how long one of health may take to arrive: it has no
/// permit meanwhile.
const MAX_NAME: usize = 4 * 1024;
const RECEIVE_NAME: Duration = Duration::from_secs(5);

/// A body that took longer to come than this was let in by what may not be true any more.
const LONG_AGO: Duration = Duration::from_millis(100);

/// An authenticated request, in its extensions: one that makes several calls is authenticated once, and has one permit.
#[derive(Clone)]
struct Admitted {
    known: Arc<Known>,
    caller: Caller,
    since: Instant,
    /// Where no key is needed: whether the request has its permit of all calls already.
    counted: Arc<AtomicBool>,
}

/// A call that is worked on. Dropped with it, it counts one whose caller left: clients with a deadline often do when it
/// passes, and no other trace of the call is left.
struct Unanswered;

impl Drop for Unanswered {
    fn drop(&mut self) {
        FAILED.abandoned();
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
        let max_body = config.http.max_body;
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
            stranger: Arc::new(Known::open()),
            open_health: config.open.health,
            open_reflection: config.open.reflection,
            max_body,
            drain: CancellationToken::new(),
        })
    }

    /// Calls that are worked on right now.
    pub(super) fn in_flight(&self) -> usize {
        self.limits.in_flight()
    }

    /// Whether programs of this machine are served without a key now.
    pub(super) fn is_open(&self) -> bool {
        self.gate.is_open()
    }

    /// Ends the streams that have no end of their own.
    pub(super) fn end_streams(&self) {
        self.drain.cancel();
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
        let path = head.uri.path().to_owned();
        // Health is asked most urgently when the server is full: one answer takes no permit.
        if path.starts_with("/grpc.health.v1.Health/") {
            self.admit_any(&head, self.open_health)?;
            if path.ends_with("/Watch") {
                self.open_stream(&mut head)?;
            }
            return Ok(self.call_routes(received(head, body, MAX_NAME, RECEIVE_NAME).await?).await);
        }
        if path.starts_with("/grpc.reflection.") {
            let caller = self.admit_any(&head, self.open_reflection)?;
            let permits = Permits::of(&mut head.extensions);
            self.limits.admit(&caller, None, &permits)?;
            self.open_stream(&mut head)?;
            let response = self.call_routes(Request::from_parts(head, body)).await;
            return Ok(response.map(|body| until(self.drain.clone(), body)));
        }
        // 1. Who calls: strangers get nothing, not even memory for what they send. A request that comes by JSON was asked
        //    before, and has its permit.
        let mut admitted = self.admit_once(&mut head, &path)?;
        // 2. The whole message, before a permit of all: a client that opens streams and sends nothing must not hold up
        //    others. Authenticates again after a slow body: the key may have been revoked meanwhile.
        let request = received(head, body, self.max_body, RECEIVE).await?;
        let (mut head, body) = request.into_parts();
        if admitted.since.elapsed() > LONG_AGO {
            let (_, caller) = self.gate.admit(&head, &path)?;
            admitted = Admitted { caller, since: Instant::now(), ..admitted };
            head.extensions.insert(admitted.clone());
        }
        // 3. A permit of all calls. It ends with the call, at the latest with the reply.
        let permits = Permits::of(&mut head.extensions);
        let _permit = self.limits.start(&admitted.known, &admitted.counted, &permits)?;
        // 4. The caller's own deadline: an answer nobody waits for is not worked on.
        let mut caller = admitted.caller;
        let span = deadline(&head.headers)?;
        caller.deadline = span.and_then(|span| Instant::now().checked_add(span));
        head.extensions.insert(caller);
        let work = self.call_routes(Request::from_parts(head, body));
        let unanswered = Unanswered;
        let answered = match span {
            Some(Duration::ZERO) => Err(Error::DeadlinePassed),
            Some(span) => tokio::time::timeout(span, work).await.map_err(|_| Error::DeadlinePassed),
            None => Ok(work.await),
        };
        std::mem::forget(unanswered);
        answered
    }

    /// Authenticates and authorizes a request, and takes its caller's permit; for further calls of the same request, only
    /// authorizes them.
    fn admit_once(&self, head: &mut Parts, path: &str) -> Result<Admitted> {
        if let Some(admitted) = head.extensions.get::<Admitted>() {
            Gate::check_scope(&admitted.known, path)?;
            return Ok(admitted.clone());
        }
        let (known, caller) = self.gate.admit(head, path)?;
        if let Some(connection) = head.extensions.get::<Arc<Connection>>() {
            connection.name();
        }
        self.limits.admit(&known, Some(&caller.namespace), &Permits::of(&mut head.extensions))?;
        let admitted = Admitted { known, caller, since: Instant::now(), counted: Arc::default() };
        head.extensions.insert(admitted.clone());
        Ok(admitted)
    }

    fn open_stream(&self, head: &mut Parts) -> Result<()> {
        let permits = Permits::of(&mut head.extensions);
        self.limits.open_stream(head.extensions.get::<Arc<Connection>>(), &permits)
    }

    /// Lets in what is no RPC of ours: everyone where it is `open`, else whoever is known.
    fn admit_any(&self, head: &Parts, open: bool) -> Result<Arc<Known>> {
        if open {
            self.gate.check_open(head).map(|_| Arc::clone(&self.stranger))
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
    fn admit(&self, head: &mut Parts, path: &str) -> Result<Admission, Status> {
        let admitted = self.admit_once(head, path)?;
        Ok(Admission { named: !admitted.known.is_open() })
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

/// The request with its body in memory, which has so many bytes at most and comes within `time`.
async fn received(head: Parts, mut body: Body, max_body: usize, time: Duration) -> Result<Request<Body>> {
    if body.is_end_stream() {
        return Ok(Request::from_parts(head, body));
    }
    let body = receive(&mut body, max_body, FRAMES, time).await?;
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
