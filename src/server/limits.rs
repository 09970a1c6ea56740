//! Load limits: permits of all calls together, of one caller's and one namespace's, and of streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::auth::keyring::Principal;
use crate::auth::limits::{Limit, NamespacePermit, Namespaces, Permit, UsageCounter};
use crate::config::Config;
use crate::domain::namespace::Namespace;
use crate::domain::quota::{Quota, Quotas};
use crate::error::{Error, Result};
use crate::metrics::{ByLabel, Counter, Registry};
use crate::ops::quotas::exceeded;

use super::connection::{Connection, OpenRequest};

/// Streams at a time: all that are authenticated or on a connection that showed a valid key or certificate;
/// of these, those of one caller; and all others, which cannot keep those out.
const MAX_STREAMS: Limit = Limit { calls: 1_000, rate: None };
const MAX_STREAMS_OF_CALLER: Limit = Limit { calls: 100, rate: None };
const MAX_ANONYMOUS_STREAMS: Limit = Limit { calls: 64, rate: None };

/// Streams of `Health/Watch` and reflection on one connection at a time.
const MAX_STREAMS_OF_CONNECTION: Limit = Limit { calls: 8, rate: None };

/// The limits of the server, and what is used of them.
#[derive(Debug)]
pub(super) struct LoadLimits {
    global: Arc<UsageCounter>,
    global_limit: Limit,
    caller_limit: Limit,
    namespaces: Arc<Namespaces>,
    /// The limits of namespaces that have none of their own.
    namespace_limits: Quotas,
    streams: Arc<UsageCounter>,
    anonymous_streams: Arc<UsageCounter>,
    since: Instant,
    /// Permits of callers that were given since the start.
    admitted: AtomicU64,
    refused: ByLabel<Counter, { LimitName::ALL.len() }>,
}

/// The limits, by the names of their settings.
#[derive(Clone, Copy, Debug)]
enum LimitName {
    Calls,
    Rate,
    CallsPerCaller,
    RatePerCaller,
    CallsPerNamespace,
    Streams,
    NamespaceRate,
}

impl LimitName {
    const ALL: [&str; 7] = [
        "calls",
        "rate",
        "calls_per_caller",
        "rate_per_caller",
        "calls_per_namespace",
        "streams",
        "max_calls_per_second",
    ];
}

/// The permits of one request, held until its reply is sent or dropped.
pub(super) struct Permits {
    _open: OpenRequest,
    caller: Option<Permit>,
    namespace: Option<NamespacePermit>,
    global: Option<Permit>,
    streams: Vec<Permit>,
}

impl Permits {
    pub(super) fn new(open: OpenRequest) -> Self {
        Self { _open: open, caller: None, namespace: None, global: None, streams: Vec::new() }
    }
}

impl LoadLimits {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            global: Arc::default(),
            global_limit: Limit { calls: config.limits.calls, rate: config.limits.rate },
            caller_limit: Limit {
                calls: config.limits.calls_per_caller,
                rate: config.limits.rate_per_caller,
            },
            namespaces: Arc::new(Namespaces::new(config.limits.calls_per_namespace)),
            namespace_limits: config.namespaces.limits(),
            streams: Arc::default(),
            anonymous_streams: Arc::default(),
            since: Instant::now(),
            admitted: AtomicU64::new(0),
            refused: ByLabel::new("limit", LimitName::ALL, Counter::default),
        }
    }

    /// Registers the metrics of the limits.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "usersd_calls_refused",
            "Calls that were refused at a limit (OVERLOADED, CALLER_LIMITED), by its setting",
            self.refused.clone(),
        );
    }

    /// Counts a refusal, and turns it into an error.
    fn check<T>(&self, name: LimitName, taken: Result<T, Duration>) -> Result<T> {
        taken.map_err(|retry_after| {
            self.refused.of(name as usize).inc();
            match name {
                LimitName::Calls | LimitName::Rate => Error::Overloaded { retry_after },
                _ => Error::CallerLimited { retry_after },
            }
        })
    }

    /// Calls that are in progress. Where no key is needed, also those whose reply is not sent yet.
    pub(super) fn in_flight(&self) -> usize {
        self.global.running()
    }

    /// Streams that are open.
    pub(super) fn streams_open(&self) -> usize {
        self.streams.running() + self.anonymous_streams.running()
    }

    /// Calls that were given a permit since the start.
    pub(super) fn admitted(&self) -> u64 {
        self.admitted.load(Ordering::Relaxed)
    }

    /// Counts a call against the calls a second of its namespace, which may have limits of its `own`.
    fn take_namespace_token(&self, namespace: &Namespace, own: Quotas) -> Result<()> {
        let quota = Quota::CallsPerSecond;
        let Some(limit) = own.or(self.namespace_limits).most(quota) else { return Ok(()) };
        // Administration of namespaces is not limited: it must be able to raise a limit.
        if *namespace == Namespace::root() {
            return Ok(());
        }
        self.namespaces.acquire_token(namespace, limit, self.since).map_err(|retry_after| {
            self.refused.of(LimitName::NamespaceRate as usize).inc();
            exceeded(namespace, quota, limit, Some(retry_after))
        })
    }

    /// Takes a permit of the caller's and one of its namespace's, from before the request is read until its
    /// reply is sent, so that sending or reading slowly delays no other tenant; and counts the request
    /// against the caller's rate. Callers without a key cannot be told apart: they have only the limits of
    /// all together.
    pub(super) fn admit(
        &self,
        principal: &Principal,
        namespace: &Namespace,
        own: Quotas,
        permits: &mut Permits,
    ) -> Result<()> {
        self.admitted.fetch_add(1, Ordering::Relaxed);
        if !principal.is_anonymous() {
            let caller = principal.calls.acquire(self.caller_limit);
            permits.caller = Some(self.check(LimitName::CallsPerCaller, caller)?);
            let of_namespace = self.check(LimitName::CallsPerNamespace, self.namespaces.enter(namespace))?;
            permits.namespace = Some(of_namespace);
            self.take_token(principal)?;
        }
        // Last: a call that is refused at its caller's limit takes nothing from the namespace's other callers.
        self.take_namespace_token(namespace, own)
    }

    /// Takes a permit of all calls. Rejects immediately when there is none: queueing would only add latency.
    ///
    /// With a key it ends with the call, since the reply has the caller's permit. Without, nothing else
    /// bounds replies that are not read, so `permits` keep it.
    pub(super) fn start(&self, principal: &Principal, permits: &mut Permits) -> Result<Option<Permit>> {
        let permit = self.check(LimitName::Calls, self.global.acquire(self.global_limit))?;
        self.check(LimitName::Rate, self.global.acquire_token(self.global_limit, self.since))?;
        if principal.is_anonymous() {
            permits.global = Some(permit);
            return Ok(None);
        }
        Ok(Some(permit))
    }

    /// Takes the permits of a stream of the caller's, and counts it against the caller's rate. A stream takes
    /// no permit of a call: it may last for hours.
    pub(super) fn open_stream(&self, principal: &Principal, permits: &mut Permits) -> Result<()> {
        if !principal.is_anonymous() {
            let stream = principal.streams.acquire(MAX_STREAMS_OF_CALLER);
            permits.streams.push(self.check(LimitName::Streams, stream)?);
            self.take_token(principal)?;
        }
        permits.streams.push(self.check(LimitName::Streams, self.streams.acquire(MAX_STREAMS))?);
        Ok(())
    }

    /// Counts a call against the rate of the caller.
    fn take_token(&self, principal: &Principal) -> Result<()> {
        let token = principal.calls.acquire_token(self.caller_limit, self.since);
        self.check(LimitName::RatePerCaller, token)
    }

    /// Takes the permits of a stream of `Health/Watch` or reflection, whose caller may be unknown.
    pub(super) fn open_infra_stream(&self, connection: &Connection, permits: &mut Permits) -> Result<()> {
        let of_connection = connection.streams.acquire(MAX_STREAMS_OF_CONNECTION);
        let of_connection = self.check(LimitName::Streams, of_connection)?;
        let (counter, limit) = if connection.is_authenticated() {
            (&self.streams, MAX_STREAMS)
        } else {
            (&self.anonymous_streams, MAX_ANONYMOUS_STREAMS)
        };
        permits.streams.extend([of_connection, self.check(LimitName::Streams, counter.acquire(limit))?]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::domain::key::AllowedNamespaces;
    use crate::domain::scope::Scopes;
    use crate::server::connection::Lifetimes;
    use crate::server::connections::Connections;

    #[tokio::test]
    async fn a_call_refused_at_its_callers_limit_takes_nothing_from_the_namespace() {
        let mut config = Config::default();
        config.namespaces.max_calls_per_second = 1;
        config.limits.calls_per_caller = 1;
        let entry = Connections::new(&config)
            .admit("192.0.2.1:1".parse().unwrap(), &CancellationToken::new())
            .await
            .unwrap();
        let connection = Arc::new(Connection::new(entry, Lifetimes::new(&config)));
        let (limits, shop) = (LoadLimits::new(&config), Namespace::parse("shop").unwrap());
        let admit = |caller: &Principal, namespace: &Namespace| {
            let mut permits = Permits::new(connection.begin());
            limits.admit(caller, namespace, Quotas::default(), &mut permits).map(|()| permits)
        };
        let caller = |name| Principal::new(name, AllowedNamespaces::All, Scopes::ALL);
        let (busy, other) = (caller("busy"), caller("other"));
        let _open = admit(&busy, &Namespace::default()).unwrap();
        assert!(matches!(admit(&busy, &shop), Err(Error::CallerLimited { .. })));
        assert!(admit(&other, &shop).is_ok());
    }
}
