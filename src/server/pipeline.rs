//! The lifecycle of a request, from its headers to its reply: the same steps in the same order for every
//! dialect.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::HOST;
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderValue, Method as Verb, Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::auth::authenticator::{Authenticator, Peer};
use crate::auth::keyring::{KeyRing, Principal};
use crate::config::Config;
use crate::domain::caller::Caller;
use crate::domain::idempotency::IdempotencyHeader;
use crate::domain::scope::Scope;
use crate::error::tally::LogLimiter;
use crate::error::{Error, Result};
use crate::http::{self as gateway, BODY_TIMEOUT, Call, Content, End, Expected, Gateway, Target};
use crate::telemetry::{CallContext, TRACE_PARENT, Traces};

use super::connection::Connection;
use super::cors::Cors;
use super::health::Probe;
use super::infra::Infra;
use super::limits::{LoadLimits, Permits};
use super::metrics::Calls;
use super::outcomes::Outcomes;
use super::unread::Unread;

/// The header that names a request in the logs of caller and server.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// The header that names the span of a call to its caller (W3C Trace Context).
const TRACE_RESPONSE: &str = "traceresponse";

/// The header that names a change, so that the same one asked for again is made once.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Limits the log line about requests without a valid key.
static KEYS_REFUSED: LogLimiter = LogLimiter::after(1);

/// The longest time that the message of a health check may take to arrive: the call has no permit meanwhile.
const NAME_TIMEOUT: Duration = Duration::from_secs(5);

/// A request whose body took longer than this to arrive is authenticated again: its key may have been revoked
/// meanwhile.
const REAUTH_AFTER: Duration = Duration::from_millis(100);

/// Takes requests to the RPCs.
#[derive(Debug)]
pub(super) struct Pipeline {
    gateway: Gateway,
    authenticator: Authenticator,
    scope_of: fn(&str) -> Option<Scope>,
    limits: LoadLimits,
    cors: Cors,
    health_is_public: bool,
    reflection_is_public: bool,
    outcomes: Outcomes,
    traces: Traces,
    infra: Infra,
    requests: AtomicU64,
    /// Begins this process's request ids, to tell them from those of other replicas.
    instance_prefix: String,
}

impl Pipeline {
    pub(super) fn new(
        config: &Config,
        gateway: Gateway,
        keys: KeyRing,
        scope_of: fn(&str) -> Option<Scope>,
        infra: Infra,
        traces: Traces,
        instance_id: u32,
    ) -> Self {
        Self {
            traces,
            outcomes: Outcomes::new(config, gateway.schema()),
            infra,
            gateway,
            authenticator: Authenticator::new(config, keys),
            scope_of,
            limits: LoadLimits::new(config),
            cors: Cors::new(config),
            health_is_public: config.open.health,
            reflection_is_public: config.open.reflection,
            requests: AtomicU64::new(0),
            instance_prefix: format!("{instance_id:08x}-"),
        }
    }

    pub(super) fn limits(&self) -> &LoadLimits {
        &self.limits
    }

    pub(super) fn calls(&self) -> &Calls {
        self.outcomes.calls()
    }

    pub(super) fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Returns true while programs of this machine are served without a key.
    pub(super) fn is_local_mode(&self) -> bool {
        self.authenticator.is_local_mode()
    }

    /// Answers a request.
    pub(super) async fn respond(
        &self,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
        peer: &Peer,
    ) -> Response<Body> {
        let begun = Instant::now();
        let mut permits = Permits::new(connection.begin());
        let (request, unread) = Unread::lend(request);
        let mut id = self.request_id(request.headers());
        let headers_only = request.method() == Verb::HEAD;
        let origin = self.cors.origin(request.headers());
        let is_probe = Probe::of(request.uri().path()).is_some();
        let trace = request.headers().get(TRACE_PARENT).cloned();
        let context = CallContext::new(id.clone(), request.uri().clone(), trace);
        let mut located = None;
        let call = async {
            // Boxed, since a task is copied twice before it runs.
            let done = Box::pin(self.process(&mut located, request, connection, peer, &mut permits));
            let done = AssertUnwindSafe(done).catch_unwind().await;
            // The panic hook has logged where; the connection and all other calls go on.
            let done = done.unwrap_or_else(|_| Err(Error::internal("a call panicked").into()));
            if !is_probe {
                self.outcomes.note(located.as_ref(), &done, begun.elapsed());
            }
            (done, CallContext::span())
        };
        let (done, span) = context.scope(call).await;
        let mut response = done.unwrap_or_else(|status| match located {
            Some(call) => call.refuse(&status),
            None => gateway::failed(&status),
        });
        if headers_only {
            response = response.map(|_| Body::empty());
        }
        // No two replies have the same: HPACK's table is kept for what does repeat (RFC 7541 §7.1.3).
        id.set_sensitive(true);
        response.headers_mut().insert(REQUEST_ID, id);
        if let Some(mut header) = span.and_then(|span| span.header()) {
            header.set_sensitive(true);
            response.headers_mut().insert(TRACE_RESPONSE, header);
        }
        self.cors.share(origin, &mut response);
        unread.finish(&mut response).await;
        gateway::hold_permits(Arc::new(permits), response)
    }

    /// The steps. `permits` outlive them: the reply holds them until it is sent or dropped.
    async fn process<'p>(
        &'p self,
        located: &mut Option<Call<'p>>,
        request: Request<Body>,
        connection: &Connection,
        peer: &Peer,
        permits: &mut Permits,
    ) -> Result<Response<Body>, Status> {
        let (mut head, body) = request.into_parts();
        if !has_one_host(&head) {
            return Ok(gateway::malformed("HTTP/1.1 asks for one Host header"));
        }
        if let Some(response) = self.answer_infra(&head, connection, peer, permits)? {
            return Ok(response);
        }
        // 1. Locate: which dialect, which RPC. What asks for none is answered in the dialect's own words.
        let call = match self.gateway.locate(&mut head) {
            Ok(call) => &*located.insert(call),
            Err(response) => return Ok(*response),
        };
        self.outcomes.note_method(call);
        // 2. Authenticate and authorize, once. Unknown callers get nothing, not even memory for what they
        //    send.
        let admitted = self.admit(call, &head, peer);
        let authenticated = admitted.as_ref().is_ok_and(|(principal, _)| !principal.is_anonymous());
        if let Some(response) = call.refuse_unauthenticated(authenticated) {
            return Ok(response);
        }
        let (principal, mut caller) = admitted?;
        CallContext::note_caller(&principal.name);
        // Callers that are not admitted begin no trace. Health and reflection are asked again and again, and tell nothing in one.
        if let Some(span) = caller.as_ref().and_then(|_| self.traces.begin(&head.headers)) {
            CallContext::trace(span, call.dialect().as_str());
        }
        // 3. The caller's permits, before anything is read.
        self.take_permits(call.target(), &principal, caller.as_ref(), connection, permits)?;
        // 4. The whole message, before a permit of all calls: a client that opens calls and sends nothing
        //    must not hold up others. A stream is read as it is worked on.
        let expected = match call.expects(&head, body.is_end_stream()) {
            Ok(expected) => expected,
            Err(response) => return Ok(*response),
        };
        let asked_at = Instant::now();
        let content = receive(expected, call.target(), &mut head, body).await?;
        if asked_at.elapsed() > REAUTH_AFTER {
            (_, caller) = self.admit(call, &head, peer)?;
        }
        self.run(call, head, content, (&principal, caller), connection, permits).await
    }

    /// Answers what asks for no RPC: a preflight, or one of the server; `None` for all else.
    fn answer_infra(
        &self,
        head: &Parts,
        connection: &Connection,
        peer: &Peer,
        permits: &mut Permits,
    ) -> Result<Option<Response<Body>>> {
        if let Some(response) = self.cors.preflight(head) {
            return Ok(Some(response));
        }
        self.infra.answer(head, (&self.authenticator, peer), (&self.limits, connection), permits)
    }

    async fn run(
        &self,
        call: &Call<'_>,
        head: Parts,
        content: Content,
        (principal, caller): (&Principal, Option<Caller>),
        connection: &Connection,
        permits: &mut Permits,
    ) -> Result<Response<Body>, Status> {
        // 5. A permit of all calls, for those that end by themselves.
        let ends = matches!(call.target(), Target::Rpc(method) if !method.is_stream());
        let _permit = if ends { self.limits.start(principal, permits)? } else { None };
        // 6. The caller's own deadline: an answer that comes after it is of no use.
        let timeout = caller.as_ref().map(|_| call.timeout(&head.headers)).transpose()?.flatten();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut extensions = Extensions::new();
        if let Some(mut caller) = caller {
            caller.deadline = deadline;
            extensions.insert(caller);
            if let Some(header) = idempotency_header(&head.headers) {
                extensions.insert(header);
            }
        }
        // 7. Decode, the RPC, encode.
        let end = end(call.target(), connection, deadline);
        let answer = call.answer(head, extensions, content, end);
        let unanswered = self.outcomes.watch(call);
        let answered = match timeout {
            Some(Duration::ZERO) => Err(Error::DeadlinePassed),
            Some(timeout) if ends => {
                tokio::time::timeout(timeout, answer).await.map_err(|_| Error::DeadlinePassed)
            }
            _ => Ok(answer.await),
        };
        std::mem::forget(unanswered);
        Ok(answered?)
    }

    /// Authenticates the request, and authorizes it for its RPCs.
    fn admit(&self, call: &Call<'_>, head: &Parts, peer: &Peer) -> Result<(Arc<Principal>, Option<Caller>)> {
        let public = match call.target() {
            Target::Health { .. } => self.health_is_public,
            Target::Reflection => self.reflection_is_public,
            Target::Rpc(_) => {
                // An RPC that has no scope is refused first, with or without a key.
                if call.rpcs().any(|rpc| (self.scope_of)(rpc).is_none()) {
                    return Err(Error::MethodUnknown);
                }
                let principal = self.authenticator.authenticate(head, peer);
                let principal = principal.inspect_err(|error| log_stranger(error, peer))?;
                let scopes = call.rpcs().filter_map(self.scope_of);
                let caller = self.authenticator.authorize(&principal, head, peer, scopes)?;
                return Ok((principal, Some(caller)));
            }
        };
        Ok((self.authenticator.authenticate_infra(head, peer, public)?, None))
    }

    fn take_permits(
        &self,
        target: Target<'_>,
        principal: &Principal,
        caller: Option<&Caller>,
        connection: &Connection,
        permits: &mut Permits,
    ) -> Result<()> {
        match (target, caller) {
            (Target::Rpc(method), Some(caller)) => {
                connection.mark_authenticated();
                if method.is_stream() {
                    self.limits.open_stream(principal, permits)
                } else {
                    let own = self.authenticator.limits(&caller.namespace);
                    self.limits.admit(principal, &caller.namespace, own, permits)
                }
            }
            // Health is asked most urgently when the server is full: one answer takes no permit.
            (Target::Health { watch: false }, _) => Ok(()),
            _ => self.limits.open_infra_stream(connection, permits),
        }
    }

    /// The caller's own id for the request, if it fits in a log line, or a new one.
    fn request_id(&self, headers: &HeaderMap) -> HeaderValue {
        let fits = |id: &&HeaderValue| {
            (1..=64).contains(&id.len()) && id.as_bytes().iter().all(|b| b.is_ascii_graphic() && *b != b'"')
        };
        if let Some(id) = headers.get(REQUEST_ID).filter(fits) {
            return id.clone();
        }
        self.new_request_id()
    }

    /// A request id that no other request has.
    pub(super) fn new_request_id(&self) -> HeaderValue {
        let mut number = itoa::Buffer::new();
        let number = number.format(self.requests.fetch_add(1, Ordering::Relaxed));
        let id = [self.instance_prefix.as_bytes(), number.as_bytes()].concat();
        HeaderValue::from_maybe_shared(Bytes::from(id)).unwrap_or_else(|_| HeaderValue::from_static("none"))
    }
}

/// Logs that requests come without a valid key, once a minute with their number and the address of the last.
fn log_stranger(error: &Error, peer: &Peer) {
    if matches!(error, Error::KeyUnknown)
        && let Some(requests) = KEYS_REFUSED.count()
    {
        tracing::info!(requests, address = %peer.address.ip(), "requests without a valid key were refused");
    }
}

/// The content of a request, in memory unless it is a stream.
async fn receive(
    expected: Expected,
    target: Target<'_>,
    head: &mut Parts,
    body: Body,
) -> Result<Content, Status> {
    let time = if matches!(target, Target::Health { .. }) { NAME_TIMEOUT } else { BODY_TIMEOUT };
    Ok(match expected {
        Expected::Nothing => Content::Whole(Bytes::new()),
        Expected::Plain(max) => Content::Whole(gateway::receive_plain(head, body, max).await?),
        Expected::Message(max) => Content::Whole(gateway::receive_message(head, body, max, time).await?),
        Expected::Stream => Content::Stream(body),
    })
}

/// When a stream has to end, if its client does not end it. Streams of health end by themselves when the
/// server stops.
fn end(target: Target<'_>, connection: &Connection, deadline: Option<Instant>) -> Option<End> {
    match target {
        Target::Reflection => {}
        Target::Rpc(method) if method.is_stream() => {}
        _ => return None,
    }
    let leaving = connection.leaving().clone().cancelled_owned();
    let passed = async move {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    };
    Some(Box::pin(async move {
        tokio::select! {
            () = leaving => Status::new(Code::Unavailable, "this connection is closing: call again on another"),
            () = passed => Error::DeadlinePassed.into(),
        }
    }))
}

/// HTTP/1.1 names the host once (RFC 9112 §3.2): of two, one of us could look at the wrong one.
fn has_one_host(head: &Parts) -> bool {
    head.version != Version::HTTP_11 || head.headers.get_all(HOST).iter().count() == 1
}

/// The idempotency key that the headers carry. Several are a list (RFC 9110 §5.3), which is no key.
fn idempotency_header(headers: &HeaderMap) -> Option<IdempotencyHeader> {
    let values: Vec<_> = headers.get_all(IDEMPOTENCY_KEY).iter().collect();
    let texts = values.iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    (!values.is_empty()).then(|| IdempotencyHeader(texts.collect::<Vec<_>>().join(", ")))
}
