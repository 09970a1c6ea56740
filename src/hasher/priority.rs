//! Hashing yields the CPU to everything else the server does, down to a floor.
//!
//! Niceness alone is not enough: the kernel lets a thread go on for some milliseconds before one that wakes
//! up takes its place, however nice it is, and a server of short calls wakes up thousands of times a second.
//! So bcrypt yields before each round; other schemes, which run in code that is not ours, are only nice.

use std::time::{Duration, Instant};

/// The time between measurements of a thread's CPU time.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(1);

/// A yield that takes this long shows more work than one call's.
const CONTENTION: Duration = Duration::from_micros(250);

/// The time to back off then.
const BACKOFF: Duration = Duration::from_millis(2);

/// The longest debt of CPU time after which a thread stops yielding.
const DEBT_WINDOW: Duration = Duration::from_millis(500);

/// Returns the share of a CPU of each of `workers` threads that together have `percent` of one: at most a
/// half.
fn share(percent: u32, workers: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "some threads")]
    let share = f64::from(percent) / 100.0 / workers.max(1) as f64;
    share.clamp(0.0, 0.5)
}

/// The niceness at which `workers` threads together get about `percent` of one CPU when every CPU has one
/// more thread that never rests.
///
/// The kernel shares a CPU by weights: 1024 at niceness 0, and a fifth less for each step. (Linux,
/// `sched(7)`.)
pub(super) fn niceness(percent: u32, workers: usize) -> i32 {
    let share = share(percent, workers);
    (0..=19)
        .rev()
        .find(|nice| {
            let weight = 1.25_f64.powi(-nice);
            weight / (weight + 1.0) >= share
        })
        .unwrap_or(0)
}

/// Yields to other threads, unless this one is behind its share of the floor.
pub(super) struct CpuYielder {
    share: f64,
    /// When its time was last looked at, and how much CPU time it had by then.
    seen: Instant,
    used: Duration,
    /// Seconds of CPU time that it lacks of its share; negative: ahead.
    debt: f64,
}

impl CpuYielder {
    /// For this thread, one of `workers` with a floor of `percent`.
    pub(super) fn new(percent: u32, workers: usize) -> Self {
        let share = share(percent, workers);
        Self { share, seen: Instant::now(), used: cpu_time(), debt: 0.0 }
    }

    /// After a time without work, which does not count.
    pub(super) fn begin(&mut self) {
        (self.seen, self.used) = (Instant::now(), cpu_time());
    }

    /// To be called between pieces of work that take a fraction of a millisecond.
    pub(super) fn yield_if_over_budget(&mut self) {
        let now = Instant::now();
        if now - self.seen >= SAMPLE_INTERVAL {
            self.look(now, cpu_time());
        }
        if self.is_over_budget() {
            std::thread::yield_now();
            if now.elapsed() >= CONTENTION {
                std::thread::sleep(BACKOFF);
            }
        }
    }

    fn look(&mut self, now: Instant, used: Duration) {
        let had = used.saturating_sub(self.used);
        self.debt = next_debt(self.debt, self.share, now - self.seen, had);
        (self.seen, self.used) = (now, used);
    }

    fn is_over_budget(&self) -> bool {
        self.debt <= 0.0
    }
}

/// Returns how far behind its `share` a thread is after some time in which it `had` so much, in seconds. It
/// is never far ahead or behind, so that neither quiet nor busy times count for long.
fn next_debt(before: f64, share: f64, passed: Duration, had: Duration) -> f64 {
    let most = DEBT_WINDOW.as_secs_f64() * share;
    (before + passed.as_secs_f64() * share - had.as_secs_f64()).clamp(-most, most)
}

/// CPU time of this thread so far.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Lowers the priority of this thread. Where that is not allowed it stays as it is: hashing then takes its share
/// like any other thread.
pub(super) fn lower(nice: i32) {
    // Without an id it is the calling thread alone, on Linux.
    let _ = rustix::process::setpriority_process(None, nice);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_shared_by_the_workers() {
        // 1.25^-10 is 0.107, a share of 9.7 percent; 1.25^-13 is 0.055, a share of 5.2 percent.
        assert_eq!(niceness(10, 1), 9);
        assert_eq!(niceness(10, 2), 13);
        assert_eq!(niceness(10, 64), 19);
        assert_eq!(niceness(1, 1_000), 19);
        assert_eq!([niceness(50, 1), niceness(100, 1), niceness(400, 2)], [0; 3]);
        assert_eq!(niceness(0, 4), 19);
    }

    #[test]
    fn a_thread_is_behind_when_it_had_less_than_its_share_for_a_while() {
        let (second, tenth) = (Duration::from_secs(1), Duration::from_millis(100));
        let mut debt = next_debt(0.0, 0.05, second, second);
        assert!((debt + 0.025).abs() < 1e-9, "never further ahead: {debt}");
        for _ in 0..4 {
            debt = next_debt(debt, 0.05, tenth, Duration::ZERO);
        }
        assert!(debt < 0.0, "{debt}");
        assert!(next_debt(debt, 0.05, 2 * tenth, Duration::ZERO) > 0.0);
        assert!(
            (next_debt(0.0, 0.05, 60 * second, Duration::ZERO) - 0.025).abs() < 1e-9,
            "never further behind"
        );
        assert!(next_debt(0.0, 0.0, second, Duration::ZERO) <= 0.0, "who has no share is never behind");
    }

    #[test]
    fn a_thread_yields_until_it_lacks_its_share() {
        let (begun, mut yielder) = (Instant::now(), CpuYielder::new(10, 2));
        (yielder.seen, yielder.used) = (begun, Duration::ZERO);
        let mut at = |millis, used| {
            yielder.look(begun + Duration::from_millis(millis), Duration::from_millis(used));
            yielder.is_over_budget()
        };
        assert!(at(100, 50), "it had half of a CPU, ten times its share");
        assert!(at(580, 50), "that was enough for half a second");
        assert!(!at(620, 50), "and no longer");
        assert!(at(630, 60), "what it was behind it has now");
    }

    #[test]
    fn cpu_time_is_counted_per_thread() {
        let span = Duration::from_millis(50);
        let most = cpu_time() + span;
        let other = std::thread::spawn(move || {
            let patience = Instant::now();
            while cpu_time() < span && patience.elapsed() < Duration::from_mins(1) {
                std::hint::spin_loop();
            }
            cpu_time()
        });
        assert!(other.join().unwrap() >= span);
        assert!(cpu_time() < most, "who waits computes nothing");
    }

    #[test]
    fn only_this_thread_steps_aside() {
        let of_this_thread = || rustix::process::getpriority_process(None).unwrap();
        let before = of_this_thread();
        let lowered = std::thread::spawn(move || {
            lower(19);
            of_this_thread()
        });
        assert_eq!(lowered.join().unwrap(), 19);
        assert_eq!(of_this_thread(), before);
    }
}
