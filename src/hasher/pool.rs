//! Threads that do nothing but bcrypt, and the queue before them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::{Error, Result};

use super::lanes::{Digest, Key, Reading, Salt, bcrypt};

struct Job {
    cost: u32,
    salt: Salt,
    key: Key,
    reply: oneshot::Sender<Digest>,
}

impl Job {
    /// The rounds it takes: the unit in which work is counted.
    fn rounds(&self) -> u64 {
        1 << self.cost
    }
}

/// What a pool has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Jobs that were not refused.
    pub taken_on: u64,
    /// Rounds of the jobs that are done.
    pub rounds_done: u64,
}

struct State {
    queue: VecDeque<Job>,
    /// Rounds in the queue.
    queued_rounds: u64,
    /// Rounds that workers have begun with.
    running_rounds: u64,
    running: usize,
    /// What a round takes, a moving average.
    nanos_per_round: f64,
    work: Work,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    /// No code panics while it holds the lock, and the numbers in there are only estimates.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Worker threads and their queue.
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: usize,
    max_wait: Duration,
}

impl Pool {
    /// # Errors
    ///
    /// [`Error::Internal`] if a thread cannot be started.
    pub(super) fn new(workers: usize, max_wait: Duration) -> Result<Self> {
        let state = State {
            queue: VecDeque::new(),
            queued_rounds: 0,
            running_rounds: 0,
            running: 0,
            nanos_per_round: measure(),
            work: Work::default(),
            closed: false,
        };
        let pool = Self {
            shared: Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() }),
            workers,
            max_wait,
        };
        for n in 0..workers {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new()
                .name(format!("hasher-{n}"))
                .spawn(move || work(&shared))
                .map_err(Error::internal)?;
        }
        Ok(pool)
    }

    /// One hash, when its turn comes.
    ///
    /// # Errors
    ///
    /// [`Error::HasherBusy`] at once if its turn would come later than `max_wait`.
    pub(super) async fn run(&self, cost: u32, salt: Salt, key: Key) -> Result<Digest> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            // Places whose callers have left are free: a queue of leavers must not refuse those who stay.
            if state.expected_wait(self.workers) > self.max_wait {
                state.drop_abandoned();
            }
            let wait = state.expected_wait(self.workers);
            if wait > self.max_wait {
                let over = wait.saturating_sub(self.max_wait);
                return Err(Error::HasherBusy { retry_after: over.max(Duration::from_millis(1)) });
            }
            let job = Job { cost, salt, key, reply };
            state.work.taken_on += 1;
            state.queued_rounds += job.rounds();
            state.queue.push_back(job);
        }
        self.shared.wake.notify_one();
        answer.await.map_err(Error::internal)
    }

    pub(super) fn work(&self) -> Work {
        self.shared.lock().work
    }

    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.shared.lock().queue.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl State {
    /// How long a job would wait for a worker that came now.
    fn expected_wait(&self, workers: usize) -> Duration {
        if self.queue.len() + self.running < workers {
            return Duration::ZERO;
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let nanos = (self.queued_rounds + self.running_rounds) as f64 * self.nanos_per_round / workers as f64;
        Duration::try_from_secs_f64(nanos / 1e9).unwrap_or(Duration::MAX)
    }

    fn drop_abandoned(&mut self) {
        self.queue.retain(|job| !job.reply.is_closed());
        self.queued_rounds = self.queue.iter().map(Job::rounds).sum();
    }

    /// The next job that somebody still waits for.
    fn take(&mut self) -> Option<Job> {
        while let Some(job) = self.queue.pop_front() {
            self.queued_rounds -= job.rounds();
            if !job.reply.is_closed() {
                self.running_rounds += job.rounds();
                self.running += 1;
                return Some(job);
            }
        }
        None
    }

    fn done(&mut self, rounds: u64, took: Duration) {
        self.running -= 1;
        self.running_rounds -= rounds;
        self.work.rounds_done += rounds;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let measured = took.as_nanos() as f64 / rounds as f64;
        self.nanos_per_round += (measured - self.nanos_per_round) / 8.0;
    }
}

/// A worker's life.
fn work(shared: &Shared) {
    let mut state = shared.lock();
    while !state.closed {
        let Some(job) = state.take() else {
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(state);
        let begun = Instant::now();
        let digest = bcrypt(job.cost, &[(&job.key, job.salt)]);
        let rounds = job.rounds();
        let took = begun.elapsed();
        // Count before answering: who reads the answer finds the place free.
        state = shared.lock();
        state.done(rounds, took);
        // The caller may have left meanwhile.
        let _ = job.reply.send(digest[0]);
    }
}

/// Nanoseconds of a round on this machine, from a hash that takes a few milliseconds.
fn measure() -> f64 {
    const COST: u32 = 6;
    let begun = Instant::now();
    bcrypt(COST, &[(&Key::new(b"measure", Reading::Whole), [0; 16])]);
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let nanos = begun.elapsed().as_nanos() as f64;
    nanos / f64::from(1_u32 << COST)
}
