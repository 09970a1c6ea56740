//! Which of the waiting jobs is next: fair queueing by work.
//!
//! Namespaces take turns, and within each its keys do: next is the one that has had the least work done,
//! counted in rounds, of those that have a job. One that joins starts level with the one served last, so
//! that idle time is not made up for. A tenant with many keys or with dear hashes thus gets no more than
//! one with a single key and usual hashes.
//!
//! Source: Goyal, Vin and Cheng, "Start-time Fair Queueing", SIGCOMM 1996.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::domain::caller::Flow;

use super::queue::{Eligible, Job};

/// The jobs of one key.
struct CallerQueue {
    key: Arc<str>,
    /// Rounds that it was given, on the scale of its tenant's `served`.
    used: u64,
    /// Slots for jobs to come.
    reserved: usize,
    jobs: VecDeque<Job>,
}

impl CallerQueue {
    fn len(&self) -> usize {
        self.reserved + self.jobs.len()
    }

    fn load(&self, usual: u64) -> Load {
        let waiting: u64 = self.jobs.iter().map(Job::rounds).sum();
        Load {
            jobs: self.len() as u64,
            rounds: waiting.saturating_add(usual.saturating_mul(self.reserved as u64)),
        }
    }

    fn position(&self, eligible: Eligible) -> Option<usize> {
        self.jobs.iter().position(|job| eligible.accepts(job))
    }
}

/// The queues of one namespace.
struct Tenant {
    namespace: Arc<str>,
    /// Rounds that it was given, on the scale of [`Shares::served`].
    used: u64,
    /// The share that the key served last had been given by then.
    served: u64,
    queues: Vec<CallerQueue>,
}

impl Tenant {
    fn len(&self) -> usize {
        self.queues.iter().map(CallerQueue::len).sum()
    }

    fn load(&self, usual: u64) -> Load {
        self.queues.iter().map(|queue| queue.load(usual)).fold(Load::default(), Load::and)
    }

    fn has(&self, eligible: Eligible) -> bool {
        self.queues.iter().any(|queue| queue.position(eligible).is_some())
    }

    /// Rounds of its own jobs that come before one of `key` that joined now.
    fn ahead(&self, key: &str, usual: u64) -> u64 {
        let own = self.queues.iter().find(|queue| *queue.key == *key);
        let before = own.map_or(0, |queue| queue.load(usual).rounds);
        let start = own.map_or(0, |queue| queue.used).max(self.served).saturating_add(before);
        let others = self.queues.iter().filter(|queue| *queue.key != *key);
        others.map(|queue| queue.load(usual).before(queue.used, start)).fold(before, u64::saturating_add)
    }

    fn queue_mut(&mut self, key: &Arc<str>) -> &mut CallerQueue {
        let at = self.queues.iter().position(|queue| queue.key == *key).unwrap_or_else(|| {
            self.queues.push(CallerQueue {
                key: Arc::clone(key),
                used: 0,
                reserved: 0,
                jobs: VecDeque::new(),
            });
            self.queues.len() - 1
        });
        let queue = &mut self.queues[at];
        if queue.jobs.is_empty() {
            queue.used = queue.used.max(self.served);
        }
        queue
    }

    fn take(&mut self, eligible: Eligible) -> Option<Job> {
        let fits = self.queues.iter_mut().filter(|queue| queue.position(eligible).is_some());
        let queue = fits.min_by_key(|queue| queue.used)?;
        let job = queue.jobs.remove(queue.position(eligible)?)?;
        if eligible.begins_batch() {
            self.served = self.served.max(queue.used);
        }
        queue.used = queue.used.saturating_add(job.rounds());
        Some(job)
    }

    /// Forgets the keys that have no job, unless they are ahead of the others.
    fn prune(&mut self) {
        let served = self.served;
        self.queues.retain(|queue| queue.len() > 0 || queue.used > served);
    }
}

/// The load that waits in a queue or for a tenant.
#[derive(Clone, Copy, Default)]
struct Load {
    jobs: u64,
    rounds: u64,
}

impl Load {
    fn and(self, other: Self) -> Self {
        Self { jobs: self.jobs + other.jobs, rounds: self.rounds.saturating_add(other.rounds) }
    }

    /// Rounds of it that are begun before the turn of one that stands at `start`, where this one stands at
    /// `used`.
    fn before(self, used: u64, start: u64) -> u64 {
        let (Some(lead), true) = (start.checked_sub(used), self.jobs > 0) else { return 0 };
        let one = (self.rounds / self.jobs).max(1);
        (lead / one + 1).saturating_mul(one).min(self.rounds)
    }
}

/// All waiting jobs.
#[derive(Default)]
pub(super) struct Shares {
    tenants: Vec<Tenant>,
    /// The share that the tenant served last had been given by then.
    served: u64,
}

impl Shares {
    /// Jobs and reserved slots.
    pub(super) fn len(&self) -> usize {
        self.tenants.iter().map(Tenant::len).sum()
    }

    /// Rounds of the jobs that come before one of `flow` that joined now, where a job that is not there yet
    /// has `usual`.
    pub(super) fn ahead(&self, flow: &Flow, usual: u64) -> u64 {
        let own = self.tenants.iter().find(|tenant| tenant.namespace == flow.namespace);
        let before = own.map_or(0, |tenant| tenant.ahead(&flow.key, usual));
        let start = own.map_or(0, |tenant| tenant.used).max(self.served).saturating_add(before);
        let others = self.tenants.iter().filter(|tenant| tenant.namespace != flow.namespace);
        others.map(|tenant| tenant.load(usual).before(tenant.used, start)).fold(before, u64::saturating_add)
    }

    /// Reserves a slot for a job of `flow`.
    pub(super) fn reserve(&mut self, flow: &Flow) {
        self.queue_mut(flow).reserved += 1;
    }

    /// Releases a reserved slot.
    pub(super) fn release(&mut self, flow: &Flow) {
        let queue = self.queue_mut(flow);
        queue.reserved = queue.reserved.saturating_sub(1);
        self.prune();
    }

    /// Enqueues a job in its reserved slot.
    pub(super) fn enqueue(&mut self, flow: &Flow, job: Job) {
        let queue = self.queue_mut(flow);
        queue.reserved = queue.reserved.saturating_sub(1);
        queue.jobs.push_back(job);
    }

    /// Drops the jobs of callers that have left.
    pub(super) fn drop_abandoned(&mut self) {
        for queue in self.tenants.iter_mut().flat_map(|tenant| &mut tenant.queues) {
            queue.jobs.retain(|job| !job.reply.is_closed());
        }
        self.prune();
    }

    /// The next eligible job. Those that are skipped keep their turn.
    pub(super) fn take(&mut self, eligible: Eligible) -> Option<Job> {
        let fits = self.tenants.iter_mut().filter(|tenant| tenant.has(eligible));
        let tenant = fits.min_by_key(|tenant| tenant.used)?;
        let job = tenant.take(eligible)?;
        if eligible.begins_batch() {
            self.served = self.served.max(tenant.used);
        }
        tenant.used = tenant.used.saturating_add(job.rounds());
        Some(job)
    }

    /// Forgets the tenants that have no job, unless they are ahead of the others; all of them if no job
    /// waits.
    pub(super) fn prune(&mut self) {
        if self.len() == 0 {
            *self = Self::default();
            return;
        }
        let served = self.served;
        self.tenants.retain_mut(|tenant| {
            tenant.prune();
            !tenant.queues.is_empty() || tenant.used > served
        });
    }

    fn queue_mut(&mut self, flow: &Flow) -> &mut CallerQueue {
        let at = self.tenants.iter().position(|tenant| tenant.namespace == flow.namespace);
        let at = at.unwrap_or_else(|| {
            let namespace = Arc::clone(&flow.namespace);
            self.tenants.push(Tenant { namespace, used: 0, served: 0, queues: Vec::new() });
            self.tenants.len() - 1
        });
        let tenant = &mut self.tenants[at];
        if tenant.queues.iter().all(|queue| queue.jobs.is_empty()) {
            tenant.used = tenant.used.max(self.served);
        }
        tenant.queue_mut(&flow.key)
    }
}
