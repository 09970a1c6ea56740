//! Threads that only hash passwords, and admission to their queue.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bcrypt_lanes::{BcryptKey, Digest, Salt, hash_batch};
use tokio::sync::oneshot;

use crate::domain::caller::Flow;
use crate::error::{Error, Result};
use crate::telemetry::CallContext;

use super::HasherConfig;
use super::priority::{self, CpuYielder};
use super::queue::{Job, Outcome, Queue, Speed, Task, Work};
use super::stats::{Refusal, Scheme, Stats};

pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    pub(super) stats: Stats,
}

impl Shared {
    /// No code panics while it holds the lock. It is held for microseconds: a worker that is preempted within
    /// them would hold up admission until the CPU it waits for is free.
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Worker threads and their queue.
pub(super) struct Pool {
    shared: Arc<Shared>,
    max_wait: Duration,
}

impl Pool {
    /// `speed` is the initial estimate of the time of a round in a batch of each size.
    pub(super) fn new(config: &HasherConfig, lanes: usize, speed: Speed) -> std::io::Result<Self> {
        let queue = Mutex::new(Queue::new(config.workers, lanes, 1 << config.cost, speed));
        let shared = Arc::new(Shared { queue, wake: Condvar::new(), stats: Stats::default() });
        let pool = Self { shared, max_wait: config.max_wait };
        let (percent, workers) = (config.min_cpu_percent, config.workers);
        let nice = priority::niceness(percent, workers);
        for worker in 0..workers {
            let shared = Arc::clone(&pool.shared);
            let run = move || {
                priority::lower(nice);
                work(&shared, worker, CpuYielder::new(percent, workers));
            };
            std::thread::Builder::new().name(format!("hasher-{worker}")).spawn(run)?;
        }
        Ok(pool)
    }

    /// Reserves a slot in the queue for a job of `flow`. Fails with [`Error::HasherBusy`] if the job would
    /// have to wait longer than allowed, or if a usual one would not be done by the `deadline`.
    pub(super) fn admit(&self, flow: &Flow, deadline: Option<Instant>) -> Result<QueueReservation> {
        let now = Instant::now();
        let mut queue = self.shared.lock();
        let mut excess = queue.excess_wait(flow, self.max_wait, deadline, now);
        if excess > Duration::ZERO {
            // Drop cancelled jobs before rejecting.
            queue.waiting.drop_abandoned();
            excess = queue.excess_wait(flow, self.max_wait, deadline, now);
        }
        if excess > Duration::ZERO {
            let waits = queue.excess_wait(flow, self.max_wait, None, now) > Duration::ZERO;
            self.shared.stats.note_refusal(if waits { Refusal::Wait } else { Refusal::Deadline });
            return Err(Error::HasherBusy { retry_after: excess.max(Duration::from_millis(1)) });
        }
        queue.waiting.reserve(flow);
        Ok(QueueReservation { shared: Arc::clone(&self.shared), flow: flow.clone(), used: false })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn work(&self) -> Work {
        self.shared.lock().work
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.shared.lock().waiting.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

/// A slot in the queue for one job, released on drop.
pub(super) struct QueueReservation {
    shared: Arc<Shared>,
    flow: Flow,
    used: bool,
}

impl QueueReservation {
    /// One hash, when its turn comes.
    pub(super) async fn bcrypt(self, cost: u32, salt: Salt, key: BcryptKey) -> Result<Digest> {
        match self.run(Task::Bcrypt { cost, salt, key }).await? {
            Outcome::Digest(digest) => Ok(digest),
            Outcome::Right(_) => Err(Error::internal("another task's outcome")),
        }
    }

    /// Another scheme's check, which takes about so many rounds of bcrypt, and much memory if `large`.
    pub(super) async fn check(
        self,
        scheme: Scheme,
        rounds: u64,
        large: bool,
        check: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<bool> {
        match self.run(Task::Other { scheme, rounds, large, check: Box::new(check) }).await? {
            Outcome::Right(right) => Ok(right),
            Outcome::Digest(_) => Err(Error::internal("another task's outcome")),
        }
    }

    async fn run(mut self, task: Task) -> Result<Outcome> {
        let _span = CallContext::span().map(|call| call.begin_work("hash password"));
        let (reply, answer) = oneshot::channel();
        self.used = true;
        self.shared.lock().enqueue(&self.flow, Job::new(task, reply));
        self.shared.wake.notify_one();
        answer.await.map_err(Error::internal)
    }
}

impl Drop for QueueReservation {
    fn drop(&mut self) {
        if !self.used {
            self.shared.lock().waiting.release(&self.flow);
        }
    }
}

/// Runs jobs until the pool is closed.
fn work(shared: &Shared, worker: usize, mut yielder: CpuYielder) {
    let mut queue = shared.lock();
    while !queue.closed {
        let batch = queue.take(worker, Instant::now());
        let Some(rounds) = batch.first().map(Job::rounds) else {
            queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            yielder.begin();
            continue;
        };
        drop(queue);
        let (jobs, large) = (batch.len(), batch.iter().any(Job::is_large));
        let begun = Instant::now();
        let scheme = shared.stats.note_batch(&batch, begun);
        let outcomes = run(batch, &mut yielder);
        shared.stats.note_hashes(scheme, jobs, begun.elapsed());
        // Count before answering: the reader of the answer finds the slot free.
        shared.lock().done(worker, jobs, rounds, Instant::now());
        if large {
            shared.wake.notify_one(); // a worker may sleep because only large jobs were left
        }
        // Without the lock: the task that an answer wakes takes the CPU at once, and may want a slot.
        // Meanwhile this worker counts as idle.
        for (reply, outcome) in outcomes {
            // The caller may have left meanwhile.
            let _ = reply.send(outcome);
        }
        queue = shared.lock();
    }
}

/// Does jobs that go together: hashes of one cost, or a single other task.
fn run(batch: Vec<Job>, yielder: &mut CpuYielder) -> Vec<(oneshot::Sender<Outcome>, Outcome)> {
    let mut outcomes = Vec::with_capacity(batch.len());
    let (mut hashes, mut replies, mut rounds) = (Vec::new(), Vec::new(), 0);
    for job in batch {
        match job.task {
            Task::Bcrypt { cost, salt, key } => {
                rounds = 1 << cost;
                hashes.push((key, salt));
                replies.push(job.reply);
            }
            Task::Other { check, .. } => {
                // The code of many schemes is not ours; a worker that it ended would be missing ever after.
                let right = std::panic::catch_unwind(AssertUnwindSafe(check)).unwrap_or_default();
                outcomes.push((job.reply, Outcome::Right(right)));
            }
        }
    }
    let jobs: Vec<(&BcryptKey, Salt)> = hashes.iter().map(|(key, salt)| (key, *salt)).collect();
    let digests = hash_batch(rounds, &jobs, &mut || yielder.yield_if_over_budget());
    outcomes.extend(replies.into_iter().zip(digests.into_iter().map(Outcome::Digest)));
    outcomes
}
