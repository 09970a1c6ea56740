//! The queue of hashing jobs, and the estimate of their waits. It knows no threads.
//!
//! [`Shares`] decides whose turn it is. Jobs that cost the same leave together, as many as run in lock-step.

use std::time::{Duration, Instant};

use bcrypt_lanes::{BcryptKey, Digest, MAX_LANES, Salt};
use tokio::sync::oneshot;

use crate::domain::caller::Flow;

use super::shares::Shares;
use super::stats::Scheme;

/// Nanoseconds that a round takes in a batch of so many: the entry for none is not used.
pub(super) type Speed = [f64; MAX_LANES + 1];

/// The work of a job.
pub(super) enum Task {
    /// bcrypt.
    Bcrypt { cost: u32, salt: Salt, key: BcryptKey },
    /// Another scheme, which takes about as long as so many rounds of bcrypt. Returns true if the password is
    /// right. Of those that take much memory one runs at a time.
    Other { scheme: Scheme, rounds: u64, large: bool, check: Box<dyn FnOnce() -> bool + Send> },
}

/// The result of a job.
pub(super) enum Outcome {
    Digest(Digest),
    Right(bool),
}

/// A task and the channel for its result.
pub(super) struct Job {
    pub(super) task: Task,
    pub(super) reply: oneshot::Sender<Outcome>,
    /// Since when it waits.
    pub(super) queued: Instant,
}

impl Job {
    pub(super) fn new(task: Task, reply: oneshot::Sender<Outcome>) -> Self {
        Self { task, reply, queued: Instant::now() }
    }

    /// The duration in rounds, the unit in which work is counted.
    pub(super) fn rounds(&self) -> u64 {
        match self.task {
            Task::Bcrypt { cost, .. } => 1 << cost,
            Task::Other { rounds, .. } => rounds,
        }
    }

    pub(super) fn is_large(&self) -> bool {
        matches!(self.task, Task::Other { large: true, .. })
    }
}

/// Which jobs may be next.
#[derive(Clone, Copy)]
pub(super) enum Eligible {
    /// All of them.
    Any,
    /// Those that do not take much memory, since one that does is running.
    Small,
    /// bcrypt of this cost, to join a batch.
    Cost(u32),
}

impl Eligible {
    pub(super) fn accepts(self, job: &Job) -> bool {
        match self {
            Self::Any => true,
            Self::Small => !job.is_large(),
            Self::Cost(wanted) => matches!(job.task, Task::Bcrypt { cost, .. } if cost == wanted),
        }
    }

    pub(super) fn begins_batch(self) -> bool {
        !matches!(self, Self::Cost(_))
    }
}

/// The work of a pool since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Jobs that were enqueued.
    pub taken_on: u64,
    /// Jobs that are done.
    pub done: u64,
    /// Rounds of the jobs that are done.
    pub rounds_done: u64,
}

/// A batch that a worker has begun with.
struct Running {
    begun: Instant,
    expected: Duration,
    /// True for batches of bcrypt, which measure the speed.
    measures: bool,
    /// True if it takes much memory.
    large: bool,
}

/// The waiting jobs, and the batches that run.
pub(super) struct Queue {
    pub(super) waiting: Shares,
    running: Vec<Option<Running>>,
    speed: Speed,
    /// The time of a round alone when the machine was measured.
    at_start: f64,
    lanes: usize,
    /// Rounds of a reserved job, whose cost is not known yet.
    usual: u64,
    pub(super) work: Work,
    pub(super) closed: bool,
}

impl Queue {
    pub(super) fn new(workers: usize, lanes: usize, usual: u64, speed: Speed) -> Self {
        let running = (0..workers).map(|_| None).collect();
        let at_start = speed[1];
        Self {
            waiting: Shares::default(),
            running,
            speed,
            at_start,
            lanes,
            usual,
            work: Work::default(),
            closed: false,
        }
    }

    /// Workers that are at a batch.
    pub(super) fn busy(&self) -> usize {
        self.running.iter().flatten().count()
    }

    /// Returns the time that a job of `flow` that came now would wait for a worker.
    pub(super) fn wait(&self, flow: &Flow, now: Instant) -> Duration {
        let idle = self.running.iter().filter(|batch| batch.is_none()).count();
        if self.waiting.len() < idle * self.lanes {
            return Duration::ZERO;
        }
        let ahead = as_float(self.waiting.ahead(flow, self.usual));
        let queued = ahead * self.speed[self.lanes] / as_float(self.lanes as u64) / 1e9;
        let running = self.running.iter().flatten();
        let left: f64 =
            running.map(|batch| batch.expected.saturating_sub(now - batch.begun).as_secs_f64()).sum();
        let nanos = (queued + left) / as_float(self.running.len() as u64) * self.slowdown(now);
        Duration::try_from_secs_f64(nanos).unwrap_or(Duration::MAX)
    }

    /// By how much a usual job of `flow` that came now would wait longer than `max_wait`, or end after its
    /// `deadline`.
    pub(super) fn excess_wait(
        &self,
        flow: &Flow,
        max_wait: Duration,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Duration {
        let wait = self.wait(flow, now);
        // A job that would begin at once and alone is taken unless the machine at its best is too slow: what
        // was slow a while ago may be over, and only a job can tell.
        let nanos_a_round = if self.waiting.len() == 0 && wait.is_zero() {
            self.speed[1].min(self.at_start)
        } else {
            self.speed[self.lanes] * self.slowdown(now)
        };
        let late = deadline.map_or(Duration::ZERO, |deadline| {
            let nanos = as_float(self.usual) * nanos_a_round;
            let took = Duration::try_from_secs_f64(nanos / 1e9).unwrap_or(Duration::MAX);
            wait.saturating_add(took).saturating_sub(deadline.saturating_duration_since(now))
        });
        wait.saturating_sub(max_wait).max(late)
    }

    /// Returns how many times longer than expected the slowest batch takes already: the machine has other
    /// things to do.
    fn slowdown(&self, now: Instant) -> f64 {
        let late = |batch: &Running| {
            // Another scheme may take next to nothing: that its thread was preempted for a moment tells
            // nothing.
            let least = if batch.measures { 1e-9 } else { 0.01 };
            (now - batch.begun).as_secs_f64() / batch.expected.as_secs_f64().max(least)
        };
        self.running.iter().flatten().map(late).fold(1.0, f64::max)
    }

    /// Enqueues a job in its reserved slot.
    pub(super) fn enqueue(&mut self, flow: &Flow, job: Job) {
        self.work.taken_on += 1;
        self.waiting.enqueue(flow, job);
    }

    /// The next jobs, for `worker` to do together. Empty if none waits that may run now.
    pub(super) fn take(&mut self, worker: usize, now: Instant) -> Vec<Job> {
        self.waiting.drop_abandoned();
        let mut batch: Vec<Job> = Vec::with_capacity(self.lanes);
        while batch.len() < self.lanes {
            let eligible = match batch.first().map(|job| &job.task) {
                // A worker that waited for memory could hash meanwhile: the job waits in the queue instead.
                None if self.running.iter().flatten().any(|batch| batch.large) => Eligible::Small,
                None => Eligible::Any,
                Some(Task::Bcrypt { cost, .. }) => Eligible::Cost(*cost),
                Some(Task::Other { .. }) => break, // runs alone
            };
            let Some(job) = self.waiting.take(eligible) else { break };
            batch.push(job);
        }
        if let Some(job) = batch.first() {
            let nanos = as_float(job.rounds()) * self.speed[batch.len()];
            let expected = Duration::try_from_secs_f64(nanos / 1e9).unwrap_or(Duration::MAX);
            let measures = matches!(job.task, Task::Bcrypt { .. });
            self.running[worker] = Some(Running { begun: now, expected, measures, large: job.is_large() });
        }
        batch
    }

    /// Notes that `worker` is done with a batch of so many jobs of so many rounds each.
    pub(super) fn done(&mut self, worker: usize, jobs: usize, rounds: u64, now: Instant) {
        let Some(batch) = self.running[worker].take() else { return };
        self.work.done += jobs as u64;
        self.work.rounds_done += jobs as u64 * rounds;
        if !batch.measures {
            return;
        }
        let measured = (now - batch.begun).as_secs_f64() * 1e9 / as_float(rounds.max(1));
        let speed = &mut self.speed[jobs];
        *speed += (measured - *speed) / 8.0;
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn as_float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests;
