//! How much is let in: permits of all calls together, of one caller's, and of streams that have no end of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::auth::keyring::Known;
use crate::auth::limits::{Limit, Meter, Namespaces};
use crate::config::Config;
use crate::domain::namespace::Namespace;
use crate::error::{Error, Result};
use crate::http::Permits;

use super::connection::Connection;

/// Streams of `Health/Watch` and reflection at a time, which last for as long as their client likes: on one connection, on
/// all that showed a good key or certificate, and on all others, which cannot keep those out.
const MAX_STREAMS_OF_CONNECTION: Limit = Limit { calls: 8, rate: None };
const MAX_STREAMS: Limit = Limit { calls: 1_000, rate: None };
const MAX_STREAMS_OF_STRANGERS: Limit = Limit { calls: 64, rate: None };

/// The limits of the server, and what is used of them.
#[derive(Debug)]
pub(super) struct Limits {
    all: Arc<Meter>,
    of_all: Limit,
    of_one: Limit,
    namespaces: Arc<Namespaces>,
    streams: Arc<Meter>,
    streams_of_strangers: Arc<Meter>,
    since: Instant,
}

/// A permit of a meter, released on drop.
struct Permit(Arc<Meter>);

impl Permit {
    fn take(meter: &Arc<Meter>, limit: Limit) -> Result<Self, Duration> {
        meter.enter(limit).map(|()| Self(Arc::clone(meter)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A permit of one caller's concurrency limit, released on drop.
struct CallerPermit(Arc<Known>);

impl Drop for CallerPermit {
    fn drop(&mut self) {
        self.0.meter.leave();
    }
}

impl Limits {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            all: Arc::default(),
            of_all: Limit { calls: config.limits.calls, rate: config.limits.rate },
            of_one: Limit { calls: config.limits.calls_per_caller, rate: config.limits.rate_per_caller },
            namespaces: Arc::new(Namespaces::new(config.limits.calls_per_namespace)),
            streams: Arc::default(),
            streams_of_strangers: Arc::default(),
            since: Instant::now(),
        }
    }

    /// Calls that are worked on right now. Where no key is needed, also those whose reply is not sent yet.
    pub(super) fn in_flight(&self) -> usize {
        self.all.running()
    }

    /// Takes a permit of the caller's and one of its namespace's, from before the request is read until its reply is sent, so
    /// that sending or reading slowly delays no other tenant; and counts the request against the caller's rate. Callers
    /// without a key cannot be told apart: they have only the limits of all together.
    pub(super) fn admit(
        &self,
        caller: &Arc<Known>,
        namespace: Option<&Namespace>,
        permits: &Permits,
    ) -> Result<()> {
        if caller.is_open() {
            return Ok(());
        }
        let limited = |retry_after| Error::CallerLimited { retry_after };
        caller.meter.enter(self.of_one).map_err(limited)?;
        let permit = CallerPermit(Arc::clone(caller));
        let shared = namespace.map(|namespace| self.namespaces.enter(namespace)).transpose();
        let shared = shared.map_err(limited)?;
        caller.meter.take(self.of_one, self.since).map_err(limited)?;
        permits.keep((permit, shared));
        Ok(())
    }

    /// Takes a permit of all calls. Rejects immediately when there is none: queueing would only add latency.
    ///
    /// With a key it ends with the call, since the reply has the caller's permit. Without, nothing else bounds replies that
    /// are not read: the first call of a request takes one for all, and `permits` keep it.
    pub(super) fn start(
        &self,
        caller: &Known,
        counted: &AtomicBool,
        permits: &Permits,
    ) -> Result<impl Send + use<>> {
        let limited = |retry_after| Error::Overloaded { retry_after };
        let held = caller.is_open() && counted.load(Ordering::Relaxed);
        let permit = if held { None } else { Some(Permit::take(&self.all, self.of_all).map_err(limited)?) };
        self.all.take(self.of_all, self.since).map_err(limited)?;
        if caller.is_open() {
            counted.store(true, Ordering::Relaxed);
            if let Some(permit) = permit {
                permits.keep(permit);
            }
            return Ok(None);
        }
        Ok(permit)
    }

    /// Takes the permits of a stream that has no end of its own.
    pub(super) fn open_stream(&self, connection: Option<&Arc<Connection>>, permits: &Permits) -> Result<()> {
        let limited = |retry_after| Error::CallerLimited { retry_after };
        let named = connection.is_some_and(|connection| connection.is_named());
        if let Some(connection) = connection {
            permits.keep(Permit::take(&connection.streams, MAX_STREAMS_OF_CONNECTION).map_err(limited)?);
        }
        let (meter, limit) = if named {
            (&self.streams, MAX_STREAMS)
        } else {
            (&self.streams_of_strangers, MAX_STREAMS_OF_STRANGERS)
        };
        permits.keep(Permit::take(meter, limit).map_err(limited)?);
        Ok(())
    }
}
