//! Who waits for a hash, in which order they are served, and how long that takes. Knows no threads.
//!
//! Each caller has a line of its own, and the lines take turns: one that floods waits behind itself. Jobs that cost the
//! same leave together, as many as run in lock-step.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::lanes::{Digest, Key, MOST, Salt};

/// Nanoseconds that a round takes in a batch of so many: the entry for none is not used.
pub(super) type Speed = [f64; MOST + 1];

/// What a job does.
pub(super) enum Task {
    /// bcrypt.
    Bcrypt { cost: u32, salt: Salt, key: Key },
    /// Another scheme, which takes about as long as so many rounds of bcrypt. Tells whether the password is right.
    Other { rounds: u64, check: Box<dyn FnOnce() -> bool + Send> },
}

/// What came of it.
pub(super) enum Outcome {
    Digest(Digest),
    Right(bool),
}

/// A task and who waits for it.
pub(super) struct Job {
    pub(super) task: Task,
    pub(super) reply: oneshot::Sender<Outcome>,
}

impl Job {
    /// How long it takes, in rounds: the unit in which work is counted.
    pub(super) fn rounds(&self) -> u64 {
        match self.task {
            Task::Bcrypt { cost, .. } => 1 << cost,
            Task::Other { rounds, .. } => rounds,
        }
    }

    fn has_cost(&self, wanted: u32) -> bool {
        matches!(self.task, Task::Bcrypt { cost, .. } if cost == wanted)
    }
}

/// What a pool has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Jobs that were put in line.
    pub taken_on: u64,
    /// Jobs that are done.
    pub done: u64,
    /// Rounds of the jobs that are done.
    pub rounds_done: u64,
}

/// The jobs of one caller.
struct Line {
    who: Arc<str>,
    /// Places that are kept for jobs to come.
    kept: usize,
    jobs: VecDeque<Job>,
}

impl Line {
    fn len(&self) -> usize {
        self.kept + self.jobs.len()
    }

    /// Rounds of the first `most` jobs, if all are alike.
    fn rounds(&self, most: usize, usual: u64) -> f64 {
        let waiting: u64 = self.jobs.iter().map(Job::rounds).sum();
        let all = waiting.saturating_add(usual.saturating_mul(self.kept as u64));
        as_float(all) * as_float(most.min(self.len()) as u64) / as_float(self.len().max(1) as u64)
    }
}

/// A batch that a worker has begun with.
struct Running {
    begun: Instant,
    expected: Duration,
    /// Whether it tells how fast bcrypt is.
    measures: bool,
}

/// The lines, and what the workers are at.
pub(super) struct Queue {
    /// The next to be served stands first.
    lines: VecDeque<Line>,
    running: Vec<Option<Running>>,
    speed: Speed,
    /// What a round took alone when the machine was measured.
    at_start: f64,
    lanes: usize,
    /// Rounds of a job that is not there yet.
    usual: u64,
    pub(super) work: Work,
    pub(super) closed: bool,
}

impl Queue {
    pub(super) fn new(workers: usize, lanes: usize, usual: u64, speed: Speed) -> Self {
        let running = (0..workers).map(|_| None).collect();
        let at_start = speed[1];
        Self {
            lines: VecDeque::new(),
            running,
            speed,
            at_start,
            lanes,
            usual,
            work: Work::default(),
            closed: false,
        }
    }

    /// How long a job of `who` that came now would wait for a worker.
    ///
    /// The lines take turns, so of each other line only as many come before it as of its own, itself included.
    pub(super) fn wait(&self, who: &str, now: Instant) -> Duration {
        let idle = self.running.iter().filter(|batch| batch.is_none()).count();
        if self.lines.iter().map(Line::len).sum::<usize>() < idle * self.lanes {
            return Duration::ZERO;
        }
        let own = self.lines.iter().find(|line| *line.who == *who).map_or(0, Line::len);
        let ahead: f64 = self.lines.iter().map(|line| line.rounds(own + 1, self.usual)).sum();
        let queued = ahead * self.speed[self.lanes] / as_float(self.lanes as u64) / 1e9;
        let running = self.running.iter().flatten();
        let left: f64 =
            running.map(|batch| batch.expected.saturating_sub(now - batch.begun).as_secs_f64()).sum();
        let nanos = (queued + left) / as_float(self.running.len() as u64) * self.slowdown(now);
        Duration::try_from_secs_f64(nanos).unwrap_or(Duration::MAX)
    }

    /// By how much a usual job of `who` that came now would wait longer than `max_wait`, or end after its `deadline`.
    pub(super) fn over(
        &self,
        who: &str,
        max_wait: Duration,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Duration {
        let wait = self.wait(who, now);
        // A job that would begin at once and alone is taken unless the machine at its best is too slow: what was slow a
        // while ago may be over, and only a job can tell.
        let nanos_a_round = if self.lines.is_empty() && wait.is_zero() {
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

    /// How many times longer than expected the slowest batch takes already: the machine has other things to do.
    fn slowdown(&self, now: Instant) -> f64 {
        let late = |batch: &Running| {
            // Another scheme may take next to nothing: that its thread was set aside for a moment tells nothing.
            let least = if batch.measures { 1e-9 } else { 0.01 };
            (now - batch.begun).as_secs_f64() / batch.expected.as_secs_f64().max(least)
        };
        self.running.iter().flatten().map(late).fold(1.0, f64::max)
    }

    /// Keeps a place for a job of `who`.
    pub(super) fn keep(&mut self, who: &Arc<str>) {
        self.line(who).kept += 1;
    }

    /// Gives a kept place up.
    pub(super) fn give_up(&mut self, who: &Arc<str>) {
        let line = self.line(who);
        line.kept = line.kept.saturating_sub(1);
        self.lines.retain(|line| line.len() > 0);
    }

    /// Puts a job in its kept place.
    pub(super) fn fill(&mut self, who: &Arc<str>, job: Job) {
        self.work.taken_on += 1;
        let line = self.line(who);
        line.kept = line.kept.saturating_sub(1);
        line.jobs.push_back(job);
    }

    fn line(&mut self, who: &Arc<str>) -> &mut Line {
        let at = self.lines.iter().position(|line| line.who == *who).unwrap_or_else(|| {
            self.lines.push_back(Line { who: Arc::clone(who), kept: 0, jobs: VecDeque::new() });
            self.lines.len() - 1
        });
        &mut self.lines[at]
    }

    /// Frees the places of those who have left.
    pub(super) fn drop_abandoned(&mut self) {
        for line in &mut self.lines {
            line.jobs.retain(|job| !job.reply.is_closed());
        }
        self.lines.retain(|line| line.len() > 0);
    }

    /// The next jobs, for `worker` to do together. Empty if nobody waits.
    pub(super) fn take(&mut self, worker: usize, now: Instant) -> Vec<Job> {
        let mut batch = Vec::with_capacity(self.lanes);
        while batch.len() < self.lanes {
            let Some(job) = self.next_like(batch.first()) else { break };
            let alone = matches!(job.task, Task::Other { .. });
            batch.push(job);
            if alone {
                break;
            }
        }
        self.lines.retain(|line| line.len() > 0);
        if let Some(job) = batch.first() {
            let nanos = as_float(job.rounds()) * self.speed[batch.len()];
            let expected = Duration::try_from_secs_f64(nanos / 1e9).unwrap_or(Duration::MAX);
            let measures = matches!(job.task, Task::Bcrypt { .. });
            self.running[worker] = Some(Running { begun: now, expected, measures });
        }
        batch
    }

    /// The next job of the line whose turn it is, and its line to the end. Behind a first job only those count that
    /// cost the same: a line that has none keeps its turn.
    fn next_like(&mut self, first: Option<&Job>) -> Option<Job> {
        for at in 0..self.lines.len() {
            let line = &mut self.lines[at];
            line.jobs.retain(|job| !job.reply.is_closed());
            let found = match first.map(|job| &job.task) {
                None => line.jobs.pop_front(),
                Some(Task::Bcrypt { cost, .. }) => {
                    let at = line.jobs.iter().position(|job| job.has_cost(*cost));
                    at.and_then(|at| line.jobs.remove(at))
                }
                Some(Task::Other { .. }) => None,
            };
            if found.is_some() {
                let served = self.lines.remove(at);
                self.lines.extend(served);
                return found;
            }
        }
        None
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

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lines.iter().map(Line::len).sum()
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn as_float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::super::lanes::Reading;
    use super::*;

    /// A round takes 1 µs in any batch; usual jobs have 1,000 rounds.
    fn queue(workers: usize, lanes: usize) -> Queue {
        Queue::new(workers, lanes, 1_000, [1_000.0; MOST + 1])
    }

    type Answers = Vec<oneshot::Receiver<Outcome>>;

    fn add(queue: &mut Queue, who: &str, task: Task, answers: &mut Answers) {
        let (reply, answer) = oneshot::channel();
        answers.push(answer);
        let who = Arc::from(who);
        queue.keep(&who);
        queue.fill(&who, Job { task, reply });
    }

    /// A job of 2^`cost` rounds that its salt tells from others.
    fn bcrypt(cost: u32, mark: u8) -> Task {
        Task::Bcrypt { cost, salt: [mark; 16], key: Key::new(b"", Reading::Whole) }
    }

    fn marks(batch: &[Job]) -> Vec<u8> {
        let mark = |job: &Job| match job.task {
            Task::Bcrypt { salt, .. } => salt[0],
            Task::Other { .. } => 255,
        };
        batch.iter().map(mark).collect()
    }

    #[test]
    fn a_batch_has_jobs_of_one_cost_and_no_more_than_the_lanes() {
        let (mut queue, mut answers, now) = (queue(1, 3), Vec::new(), Instant::now());
        for (cost, mark) in [(5, 1), (6, 2), (5, 3), (5, 4), (5, 5), (6, 6)] {
            add(&mut queue, "one", bcrypt(cost, mark), &mut answers);
        }
        add(&mut queue, "one", Task::Other { rounds: 9, check: Box::new(|| true) }, &mut answers);
        let batches: Vec<Vec<u8>> = (0..4).map(|_| marks(&queue.take(0, now))).collect();
        assert_eq!(batches, [vec![1, 3, 4], vec![2, 6], vec![5], vec![255]]);
        assert!(queue.take(0, now).is_empty());
    }

    #[test]
    fn a_line_of_another_cost_keeps_its_turn() {
        let (mut queue, mut answers, now) = (queue(1, 2), Vec::new(), Instant::now());
        for mark in 0..6 {
            add(&mut queue, "one", bcrypt(5, mark), &mut answers);
            add(&mut queue, "two", bcrypt(5, 10 + mark), &mut answers);
        }
        add(&mut queue, "other", bcrypt(4, 100), &mut answers);
        let batches: Vec<Vec<u8>> = (0..2).map(|_| marks(&queue.take(0, now))).collect();
        assert_eq!(batches, [vec![0, 10], vec![100]]);
    }

    #[test]
    fn a_slow_while_does_not_keep_out_whoever_has_a_deadline() {
        let (mut queue, mut answers, begun) = (queue(1, 2), Vec::new(), Instant::now());
        let who = Arc::from("one");
        for _ in 0..20 {
            add(&mut queue, "one", bcrypt(10, 1), &mut answers);
            queue.take(0, begun);
            queue.done(0, 1, 1 << 10, begun + Duration::from_mins(5));
        }
        let soon = Some(begun + Duration::from_secs(1));
        assert_eq!(queue.over(&who, Duration::from_secs(5), soon, begun), Duration::ZERO);
        let too_soon = Some(begun + Duration::from_micros(500));
        assert!(queue.over(&who, Duration::from_secs(5), too_soon, begun) > Duration::ZERO);
    }

    #[test]
    fn callers_take_turns() {
        let (mut queue, mut answers, now) = (queue(1, 2), Vec::new(), Instant::now());
        for mark in 0..6 {
            add(&mut queue, "flood", bcrypt(4, mark), &mut answers);
        }
        add(&mut queue, "other", bcrypt(4, 100), &mut answers);
        add(&mut queue, "third", bcrypt(4, 200), &mut answers);
        let batches: Vec<Vec<u8>> = (0..4).map(|_| marks(&queue.take(0, now))).collect();
        assert_eq!(batches, [vec![0, 100], vec![200, 1], vec![2, 3], vec![4, 5]]);
    }

    #[test]
    fn one_that_floods_waits_behind_itself() {
        let (mut queue, mut answers, now) = (queue(1, 1), Vec::new(), Instant::now());
        assert_eq!(queue.wait("flood", now), Duration::ZERO);
        for _ in 0..100 {
            add(&mut queue, "flood", bcrypt(10, 0), &mut answers);
        }
        queue.take(0, now);
        let waits = [queue.wait("flood", now), queue.wait("other", now)].map(|wait| wait.as_micros());
        assert_eq!(waits, [100 * 1_024, 2 * 1_024], "one runs, and of those who wait one comes first");
    }

    #[test]
    fn a_kept_place_counts_until_it_is_given_up() {
        let (mut queue, now) = (queue(1, 1), Instant::now());
        let who = Arc::from("one");
        queue.keep(&who);
        queue.keep(&who);
        assert_eq!(queue.wait("one", now), Duration::from_millis(2));
        assert!(queue.take(0, now).is_empty(), "there is no job yet");
        queue.give_up(&who);
        queue.give_up(&who);
        assert_eq!((queue.wait("one", now), queue.lines.len()), (Duration::ZERO, 0));
    }

    #[test]
    fn those_who_left_are_not_served() {
        let (mut queue, mut answers, now) = (queue(1, 4), Vec::new(), Instant::now());
        for mark in 0..4 {
            add(&mut queue, "one", bcrypt(4, mark), &mut answers);
        }
        answers.remove(1);
        answers.remove(1);
        assert_eq!(marks(&queue.take(0, now)), [0, 3]);
        add(&mut queue, "one", bcrypt(4, 9), &mut answers);
        answers.clear();
        queue.drop_abandoned();
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn a_machine_that_slows_down_is_seen_before_its_batch_ends() {
        let (mut queue, mut answers, now) = (queue(1, 1), Vec::new(), Instant::now());
        for _ in 0..3 {
            add(&mut queue, "one", bcrypt(10, 0), &mut answers);
        }
        queue.take(0, now);
        let expected = queue.wait("one", now);
        let later = queue.wait("one", now + Duration::from_micros(10 * 1_024));
        assert!(later > 5 * expected, "{expected:?}, {later:?}");
        queue.done(0, 1, 1_024, now + Duration::from_micros(9 * 1_024));
        assert!(
            (queue.speed[1] - 2_000.0).abs() < 1.0,
            "an eighth of nine times as slow: {}",
            queue.speed[1]
        );
    }
}
