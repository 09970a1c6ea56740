//! Failed calls in sum, and limits for log lines that would otherwise be one a call.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Why the last call found no database.
static CAUSE: Mutex<String> = Mutex::new(String::new());

/// Notes why a call found no database.
pub fn note_cause(cause: String) {
    *CAUSE.lock().unwrap_or_else(PoisonError::into_inner) = cause;
}

/// Returns why the last call found no database.
pub fn last_cause() -> String {
    CAUSE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Failed calls by reason, at one time or between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answered `DATABASE_UNAVAILABLE`.
    pub unavailable: u64,
    /// Answered `DEADLINE_PASSED`.
    pub deadline_passed: u64,
    /// Given up by their callers.
    pub abandoned: u64,
}

impl Counts {
    /// Those that came after `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            unavailable: self.unavailable.saturating_sub(earlier.unavailable),
            deadline_passed: self.deadline_passed.saturating_sub(earlier.deadline_passed),
            abandoned: self.abandoned.saturating_sub(earlier.abandoned),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = [
            ("DATABASE_UNAVAILABLE", self.unavailable),
            ("DEADLINE_PASSED", self.deadline_passed),
            ("left by their callers", self.abandoned),
        ];
        let all: u64 = reasons.iter().map(|(_, count)| count).sum();
        write!(f, "{all} calls failed")?;
        let named = reasons.iter().filter(|(_, count)| *count > 0);
        for (n, (reason, count)) in named.enumerate() {
            write!(f, "{}{reason} {count}", if n == 0 { ": " } else { ", " })?;
        }
        Ok(())
    }
}

/// Limits a log line that may be due many times a second to one a minute, with how often it was due.
#[derive(Debug)]
pub struct LogLimiter {
    min: u64,
    /// The number of times that the line was due since it was last written, and when that was.
    state: Mutex<(u64, Option<Instant>)>,
}

impl LogLimiter {
    const INTERVAL: Duration = Duration::from_mins(1);

    /// Writes no line before it was due `min` times.
    pub const fn after(min: u64) -> Self {
        Self { min, state: Mutex::new((0, None)) }
    }

    /// Counts one more time; returns how many there were since the last line if it is time for a line.
    pub fn count(&self) -> Option<u64> {
        self.count_at(Instant::now())
    }

    fn count_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (times, last) = &mut *state;
        *times += 1;
        let recent = last.is_some_and(|last| now.saturating_duration_since(last) < Self::INTERVAL);
        if *times < self.min || recent {
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(times))
    }
}

/// Limits log lines that are each worth reading to some a minute, with how many were left out.
#[derive(Debug)]
pub struct LogBudget {
    per_minute: u64,
    state: Mutex<Budget>,
}

#[derive(Debug)]
struct Budget {
    /// When the minute began.
    since: Option<Instant>,
    written: u64,
    left_out: u64,
}

impl LogBudget {
    /// Writes so many lines a minute.
    pub const fn new(per_minute: u64) -> Self {
        Self { per_minute, state: Mutex::new(Budget { since: None, written: 0, left_out: 0 }) }
    }

    /// Returns how many lines were left out since the last one, if there is room for one now.
    pub fn take(&self) -> Option<u64> {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |since: Instant| now.saturating_duration_since(since) < LogLimiter::INTERVAL;
        if !state.since.is_some_and(recent) {
            (state.since, state.written) = (Some(now), 0);
        }
        if state.written >= self.per_minute {
            state.left_out += 1;
            return None;
        }
        state.written += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_listed_by_reason() {
        let all = Counts { unavailable: 500, deadline_passed: 2, abandoned: 0 };
        assert_eq!(all.to_string(), "502 calls failed: DATABASE_UNAVAILABLE 500, DEADLINE_PASSED 2");
        assert_eq!(all.since(all).to_string(), "0 calls failed");
    }

    #[test]
    fn a_line_that_is_due_often_is_written_once_a_minute_with_a_count() {
        let (begun, lines) = (Instant::now(), [LogLimiter::after(1), LogLimiter::after(3)]);
        let counts = lines.map(|line| {
            [0, 1, 59, 60, 61, 200].map(|seconds| line.count_at(begun + Duration::from_secs(seconds)))
        });
        assert_eq!(counts[0], [Some(1), None, None, Some(3), None, Some(2)]);
        assert_eq!(counts[1], [None, None, Some(3), None, None, Some(3)]);
    }

    #[test]
    fn a_budget_of_lines_is_one_for_each_minute_and_tells_what_was_left_out() {
        let (begun, lines) = (Instant::now(), LogBudget::new(2));
        let taken = [0, 1, 2, 59, 60, 61, 62, 200].map(|s| lines.take_at(begun + Duration::from_secs(s)));
        assert_eq!(taken, [Some(0), Some(0), None, None, Some(2), Some(0), None, Some(1)]);
    }
}
