//! What may happen often and is logged at most once a minute.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(super) struct Notices {
    /// Attempts that were dropped without a verdict.
    pub(super) dropped: Notice,
    /// Refunds that failed.
    pub(super) not_refunded: Notice,
}

impl Default for Notices {
    fn default() -> Self {
        // Some callers always leave: that is no news.
        Self { dropped: Notice::after(20), not_refunded: Notice::after(1) }
    }
}

pub(super) struct Notice {
    min: u64,
    state: Mutex<(u64, Option<Instant>)>,
}

impl Notice {
    const INTERVAL: Duration = Duration::from_mins(1);

    /// Worth a line when it happened `min` times.
    fn after(min: u64) -> Self {
        Self { min, state: Mutex::default() }
    }

    /// Counts one more. Returns how many there were since the last line, if one is due.
    pub(super) fn count(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, last) = &mut *state;
        *count += 1;
        if *count < self.min || last.is_some_and(|last| last.elapsed() < Self::INTERVAL) {
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_comes_when_there_are_some_and_then_once_a_minute() {
        let notice = Notice::after(3);
        let lines: Vec<_> = (0..100).filter_map(|_| notice.count()).collect();
        assert_eq!(lines, [3]);
        let past = Instant::now().checked_sub(Notice::INTERVAL).unwrap();
        notice.state.lock().unwrap().1 = Some(past);
        assert_eq!(notice.count(), Some(98), "with those that had no line");
    }
}
