//! Whose turn it is to have a connection to the database.
//!
//! Namespaces take turns by the time that they had connections for, and within each its keys do: next is the
//! one that had least. One namespace never has all of them, so that a short read of another finds one free
//! however long the statements of the first take: a database does not preempt one tenant's statement for another's.
//!
//! Source: Goyal, Vin and Cheng, "Start-time Fair Queueing", SIGCOMM 1996.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::domain::caller::Flow;
use crate::error::{Error, Result};

/// Longest wait for a connection.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(5);

/// By how much a namespace can be ahead of others at most: what it did before counts no longer than this.
const MAX_AHEAD: u64 = 1_000_000_000;

/// A namespace is slow that has connections for longer than this on average, in nanoseconds, since most
/// statements take a fraction of a millisecond; and for so many times as long as the quickest that are there:
/// behind a slow disk or network all take long, and none is to have less for that.
const SLOW: u64 = 5_000_000;
const SLOWER: u64 = 4;

/// For how long another namespace counts as there after its last call.
const SHARED_WINDOW: Duration = Duration::from_secs(1);

/// From so many waiters of one key on, those that have left are looked for from time to time.
const CLEANUP_THRESHOLD: usize = 64;

/// Permits for connections, each known by its number.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
    limits: TurnLimits,
}

/// Most permits that one namespace has at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct TurnLimits {
    /// In any case.
    pub(super) most: usize,
    /// While others are there and its statements take long: they use the CPUs that the others' need.
    pub(super) slow: usize,
}

/// The permit for one connection, released when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    turns: Arc<Turns>,
    namespace: Arc<str>,
    connection: usize,
    since: Instant,
}

/// Connections by what they do now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) in_use: usize,
    pub(super) free: usize,
    /// Calls that wait.
    pub(super) waiting: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Free connections. The one that was released last is used next: its caches are warm, and those that a
    /// low load does not need are not even opened.
    free: Vec<usize>,
    tenants: HashMap<Arc<str>, Tenant>,
    /// The time that the namespace served last had been given by then, in nanoseconds.
    served: u64,
    /// The namespace that was served last, and when it was last another one than before.
    last: Option<Arc<str>>,
    changed: Option<Instant>,
    /// The time for which the quickest namespaces hold connections, in nanoseconds; 0: not known yet. Rises
    /// slowly if there is none as quick any more.
    quickest: u64,
}

/// One namespace.
#[derive(Debug, Default)]
struct Tenant {
    /// Nanoseconds that it had connections for, on the scale of [`State::served`].
    used: u64,
    /// Permits that it has now.
    held: usize,
    /// The mean time that it held a connection lately, in nanoseconds.
    mean: u64,
    /// The keys that wait; the next to be served stands first.
    queues: VecDeque<WaitQueue>,
}

/// The calls of one key that wait.
#[derive(Debug)]
struct WaitQueue {
    key: Arc<str>,
    waiters: VecDeque<oneshot::Sender<Permit>>,
}

impl Turns {
    /// For connections with the numbers from 0 on.
    pub(super) fn new(connections: usize, limits: TurnLimits) -> Self {
        let free = (0..connections).rev().collect();
        Self { state: Mutex::new(State { free, ..State::default() }), limits }
    }

    /// The connections now.
    pub(super) fn usage(&self) -> Usage {
        let state = self.lock();
        let queues = state.tenants.values().flat_map(|tenant| &tenant.queues);
        let waiters = queues.flat_map(|queue| &queue.waiters).filter(|waiter| !waiter.is_closed());
        Usage {
            in_use: state.tenants.values().map(|tenant| tenant.held).sum(),
            free: state.free.len(),
            waiting: waiters.count(),
        }
    }

    /// Waits for a connection. Leaving gives the turn up.
    /// Fails with [`Error::DatabaseUnavailable`] if none came free within [`MAX_WAIT`].
    pub(super) async fn acquire(self: &Arc<Self>, flow: &Flow) -> Result<Permit> {
        self.acquire_within(flow, MAX_WAIT).await
    }

    async fn acquire_within(self: &Arc<Self>, flow: &Flow, span: Duration) -> Result<Permit> {
        let waiter = match self.enter(flow, Instant::now()) {
            Ok(permit) => return Ok(permit),
            Err(waiter) => waiter,
        };
        match tokio::time::timeout(span, waiter).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Error::DatabaseUnavailable("no connection came free in time".into())),
        }
    }

    /// Takes a free connection, or joins those that wait.
    ///
    /// While a connection is free, every namespace that waits has as many as it may have: one that has fewer
    /// takes it.
    fn enter(self: &Arc<Self>, flow: &Flow, now: Instant) -> Result<Permit, oneshot::Receiver<Permit>> {
        let mut state = self.lock();
        let (served, limits, slow) = (state.served, state.limits(self.limits, now), state.slow());
        let tenant = state.tenant(&flow.namespace);
        if tenant.queues.is_empty()
            && tenant.may(limits, slow)
            && let Some(connection) = state.free.pop()
        {
            state.serve(&flow.namespace, now);
            return Ok(self.permit(&flow.namespace, connection, now));
        }
        let tenant = state.tenant(&flow.namespace);
        if tenant.held == 0 && tenant.queues.is_empty() {
            tenant.used = tenant.used.max(served);
        }
        Err(tenant.wait(&flow.key))
    }

    fn permit(self: &Arc<Self>, namespace: &Arc<str>, connection: usize, since: Instant) -> Permit {
        Permit { turns: Arc::clone(self), namespace: Arc::clone(namespace), connection, since }
    }

    /// Takes a connection back and hands it to the next.
    fn release(self: &Arc<Self>, permit: &Permit, now: Instant) {
        let mut state = self.lock();
        state.free.push(permit.connection);
        state.charge(&permit.namespace, now - permit.since);
        let mut served = Vec::new();
        let limits = state.limits(self.limits, now);
        while let Some((waiter, namespace, connection)) = state.next(limits, now) {
            served.push((waiter, self.permit(&namespace, connection, now)));
        }
        drop(state);
        for (waiter, permit) in served {
            // One that has just left hands it on by dropping it.
            let _ = waiter.send(permit);
        }
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A namespace that is alone has nothing to leave to others but what `most` does.
    fn limits(&self, limits: TurnLimits, now: Instant) -> TurnLimits {
        let company =
            self.changed.is_some_and(|changed| now.saturating_duration_since(changed) < SHARED_WINDOW);
        if company { limits } else { TurnLimits { slow: limits.most, ..limits } }
    }

    /// From how long on average a namespace is slow, in nanoseconds.
    fn slow(&self) -> u64 {
        SLOW.max(SLOWER.saturating_mul(self.quickest))
    }

    /// Notes that `namespace` got a connection.
    fn serve(&mut self, namespace: &Arc<str>, now: Instant) {
        if self.last.as_ref() != Some(namespace) {
            self.changed = self.last.replace(Arc::clone(namespace)).map(|_| now);
            let mean = self.tenant(namespace).mean;
            if mean > 0 {
                let risen = if self.quickest == 0 { SLOW } else { self.quickest + self.quickest / 8 };
                self.quickest = mean.min(risen);
            }
        }
        let served = self.served;
        let tenant = self.tenant(namespace);
        if tenant.held == 0 {
            tenant.used = tenant.used.max(served);
        }
        tenant.held += 1;
        self.served = served.max(tenant.used);
    }

    fn tenant(&mut self, namespace: &Arc<str>) -> &mut Tenant {
        self.tenants.entry(Arc::clone(namespace)).or_default()
    }

    /// Ends a permit of `namespace` that it had for `span`.
    fn charge(&mut self, namespace: &Arc<str>, span: Duration) {
        let served = self.served;
        let Some(tenant) = self.tenants.get_mut(namespace) else { return };
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        tenant.used = tenant.used.saturating_add(span).min(served.saturating_add(MAX_AHEAD));
        tenant.held = tenant.held.saturating_sub(1);
        tenant.mean = tenant.mean - tenant.mean / 8 + span / 8;
        let many = self.tenants.len() > CLEANUP_THRESHOLD;
        if self.tenants.values().all(|tenant| tenant.queues.is_empty()) {
            // No namespace waits, so none has fallen behind. That one is slow is remembered.
            self.tenants.retain(|_, tenant| {
                tenant.used = tenant.used.min(served);
                tenant.held > 0 || (tenant.mean > SLOW && !many)
            });
        } else if many {
            self.tenants
                .retain(|_, tenant| tenant.held > 0 || !tenant.queues.is_empty() || tenant.used > served);
        }
    }

    /// The waiter that is next, if a connection is free for it.
    fn next(
        &mut self,
        limits: TurnLimits,
        now: Instant,
    ) -> Option<(oneshot::Sender<Permit>, Arc<str>, usize)> {
        if self.free.is_empty() {
            return None;
        }
        let slow = self.slow();
        loop {
            let waiting = self.tenants.iter_mut().filter(|(_, tenant)| !tenant.queues.is_empty());
            let may = waiting.filter(|(_, tenant)| tenant.may(limits, slow));
            let (namespace, tenant) = may.min_by_key(|(_, tenant)| (tenant.used, tenant.held))?;
            if let Some(waiter) = tenant.next() {
                let namespace = Arc::clone(namespace);
                self.serve(&namespace, now);
                return self.free.pop().map(|connection| (waiter, namespace, connection));
            }
        }
    }
}

impl Tenant {
    fn may(&self, limits: TurnLimits, slow: u64) -> bool {
        self.held < if self.mean > slow { limits.slow } else { limits.most }
    }

    fn wait(&mut self, key: &Arc<str>) -> oneshot::Receiver<Permit> {
        let (waiter, permit) = oneshot::channel();
        let at = self.queues.iter().position(|line| line.key == *key).unwrap_or_else(|| {
            self.queues.push_back(WaitQueue { key: Arc::clone(key), waiters: VecDeque::new() });
            self.queues.len() - 1
        });
        let waiters = &mut self.queues[at].waiters;
        if waiters.len() >= CLEANUP_THRESHOLD && waiters.len().is_power_of_two() {
            waiters.retain(|waiter| !waiter.is_closed());
        }
        waiters.push_back(waiter);
        permit
    }

    /// The first waiter of the key whose turn it is, which then goes to the end. `None` if all have left.
    fn next(&mut self) -> Option<oneshot::Sender<Permit>> {
        while let Some(mut line) = self.queues.pop_front() {
            while let Some(waiter) = line.waiters.pop_front() {
                if !waiter.is_closed() {
                    if !line.waiters.is_empty() {
                        self.queues.push_back(line);
                    }
                    return Some(waiter);
                }
            }
        }
        None
    }
}

impl Permit {
    /// The number of the connection.
    pub(super) fn connection(&self) -> usize {
        self.connection
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        Arc::clone(&self.turns).release(self, Instant::now());
    }
}

#[cfg(test)]
mod tests;
