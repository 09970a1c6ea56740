//! Threads that do nothing but hash, and who is let in to them.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::domain::caller::Flow;
use crate::error::{Error, Result};

use super::lanes::{Digest, Key, MOST, Salt, bcrypt};
use super::priority::{self, Courtesy};
use super::queue::{Job, Outcome, Queue, Task, Work};
use super::speed;

/// What a pool is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Threads.
    pub(super) workers: usize,
    /// Hashes that a thread runs in lock-step; `None`: what this machine is found to be best at.
    pub(super) lanes: Option<usize>,
    /// Longest wait for a thread.
    pub(super) max_wait: Duration,
    /// What the threads together may have of one CPU while all else is busy, in percent.
    pub(super) floor: u32,
    /// Rounds of most jobs.
    pub(super) usual: u64,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Shared {
    /// No code panics while it holds the lock. It is held for microseconds: a worker that is put aside within them would
    /// hold up who asks for a place, until the CPU it waits for is free.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Worker threads and their queue.
pub(super) struct Pool {
    shared: Arc<Shared>,
    max_wait: Duration,
}

impl Pool {
    /// # Errors
    ///
    /// [`Error::Internal`] if a thread cannot be started.
    pub(super) fn new(size: Size) -> Result<Self> {
        let speed = speed::measure(size.lanes.map_or(MOST, |lanes| lanes.clamp(1, MOST)));
        let lanes = size.lanes.map_or_else(|| speed::best(&speed), |lanes| lanes.clamp(1, MOST));
        let queue = Mutex::new(Queue::new(size.workers, lanes, size.usual, speed));
        let shared = Arc::new(Shared { queue, wake: Condvar::new() });
        let pool = Self { shared, max_wait: size.max_wait };
        let nice = priority::niceness(size.floor, size.workers);
        for worker in 0..size.workers {
            let shared = Arc::clone(&pool.shared);
            let life = move || {
                priority::lower(nice);
                work(&shared, worker, Courtesy::new(size.floor, size.workers));
            };
            std::thread::Builder::new()
                .name(format!("hasher-{worker}"))
                .spawn(life)
                .map_err(Error::internal)?;
        }
        Ok(pool)
    }

    /// A place in the queue for a job of `flow`.
    ///
    /// # Errors
    ///
    /// [`Error::HasherBusy`] if the job would have to wait longer than allowed, or if a usual one would not be done by
    /// the `deadline`.
    pub(super) fn admit(&self, flow: &Flow, deadline: Option<Instant>) -> Result<Place> {
        let now = Instant::now();
        let mut queue = self.shared.lock();
        let mut over = queue.over(flow, self.max_wait, deadline, now);
        if over > Duration::ZERO {
            // Places whose callers have left are free: a queue of leavers must not refuse those who stay.
            queue.drop_abandoned();
            over = queue.over(flow, self.max_wait, deadline, now);
        }
        if over > Duration::ZERO {
            return Err(Error::HasherBusy { retry_after: over.max(Duration::from_millis(1)) });
        }
        queue.keep(flow);
        Ok(Place { shared: Arc::clone(&self.shared), flow: flow.clone(), used: false })
    }

    pub(super) fn work(&self) -> Work {
        self.shared.lock().work
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.shared.lock().waiting()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

/// A place in the queue, kept for one job and given up when dropped.
pub(super) struct Place {
    shared: Arc<Shared>,
    flow: Flow,
    used: bool,
}

impl Place {
    /// One hash, when its turn comes.
    pub(super) async fn bcrypt(self, cost: u32, salt: Salt, key: Key) -> Result<Digest> {
        match self.run(Task::Bcrypt { cost, salt, key }).await? {
            Outcome::Digest(digest) => Ok(digest),
            Outcome::Right(_) => Err(Error::internal("another task's outcome")),
        }
    }

    /// Another scheme's check, which takes about so many rounds of bcrypt.
    pub(super) async fn check(
        self,
        rounds: u64,
        check: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<bool> {
        match self.run(Task::Other { rounds, check: Box::new(check) }).await? {
            Outcome::Right(right) => Ok(right),
            Outcome::Digest(_) => Err(Error::internal("another task's outcome")),
        }
    }

    async fn run(mut self, task: Task) -> Result<Outcome> {
        let (reply, answer) = oneshot::channel();
        self.used = true;
        self.shared.lock().fill(&self.flow, Job { task, reply });
        self.shared.wake.notify_one();
        answer.await.map_err(Error::internal)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.used {
            self.shared.lock().give_up(&self.flow);
        }
    }
}

/// A worker's life.
fn work(shared: &Shared, worker: usize, mut courtesy: Courtesy) {
    let mut queue = shared.lock();
    while !queue.closed {
        let batch = queue.take(worker, Instant::now());
        let Some(rounds) = batch.first().map(Job::rounds) else {
            queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            courtesy.begin();
            continue;
        };
        drop(queue);
        let jobs = batch.len();
        let outcomes = run(batch, &mut courtesy);
        // Count before answering: who reads the answer finds the place free.
        shared.lock().done(worker, jobs, rounds, Instant::now());
        // Without the lock: whom an answer wakes takes the CPU at once, and may want a place. Meanwhile this worker counts
        // as idle.
        for (reply, outcome) in outcomes {
            // The caller may have left meanwhile.
            let _ = reply.send(outcome);
        }
        queue = shared.lock();
    }
}

/// Does jobs that go together: hashes of one cost, or a single other task.
fn run(batch: Vec<Job>, courtesy: &mut Courtesy) -> Vec<(oneshot::Sender<Outcome>, Outcome)> {
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
    let jobs: Vec<(&Key, Salt)> = hashes.iter().map(|(key, salt)| (key, *salt)).collect();
    let digests = bcrypt(rounds, &jobs, || courtesy.pause());
    outcomes.extend(replies.into_iter().zip(digests.into_iter().map(Outcome::Digest)));
    outcomes
}
