//! The limits: how many failures a bucket may count, and the waits after too many.

use std::time::Duration;

use crate::config::ThrottleLimits;
use crate::domain::time::Timestamp;

/// The counts of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// Failures of this hour.
    pub(super) used: i64,
    /// Failures of the hour before.
    pub(super) used_before: i64,
    /// Attempts without a verdict.
    pub(super) pending: i64,
    /// Failures in a row.
    pub(super) streak: i64,
    /// The time of the last failure in a row.
    pub(super) last_failure: Timestamp,
}

impl Count {
    /// No attempt at all.
    pub(super) const NONE: Self =
        Self { used: 0, used_before: 0, pending: 0, streak: 0, last_failure: Timestamp(0) };
}

/// The room that a limit leaves for an attempt that is counted already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Headroom {
    /// It fits.
    Available,
    /// It does not fit beside the pending ones: some of them may turn out to be right.
    Pending,
    /// Failures alone fill the limit for this long.
    Exhausted(Duration),
}

impl Headroom {
    /// Returns the room that `limit` leaves for an attempt that `count` has among the pending ones. A refused
    /// one is not counted, so at the end of this hour its failures are those of the hour before.
    pub(super) fn of(count: &Count, limit: u32, now: Timestamp) -> Self {
        let (limit, failures) = (i64::from(limit), count.used + count.used_before);
        if failures + count.pending <= limit {
            Self::Available
        } else if failures < limit {
            Self::Pending
        } else if count.used < limit {
            Self::Exhausted(rest_of_hour(now))
        } else {
            Self::Exhausted(rest_of_hour(now) + HOUR)
        }
    }

    /// When to try again; `None`: it fits.
    pub(super) fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Available => None,
            // By then some of those that are pending have their verdict.
            Self::Pending => Some(Duration::from_secs(1)),
            Self::Exhausted(wait) => Some(wait),
        }
    }
}

/// The limits that failures alone have filled, for an attempt from an unknown origin. It is made
/// nevertheless, and no password is right: to refuse it would tell that two names are one user's, or who
/// signed in from an address.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Exhausted {
    /// True if the account's limit is filled, under several names.
    pub(super) account: bool,
    /// For how long a limit that several users share is filled.
    pub(super) shared: Option<Duration>,
}

/// Failures are counted by the hour.
const HOUR: Duration = Duration::from_hours(1);

/// Pending attempts are counted by windows of this length. An attempt whose process died counts until the
/// window after its own has ended: two to four minutes.
const WINDOW: Duration = Duration::from_mins(2);

/// Windows in an hour. Counts from further ahead come from a clock that was wrong, and start again.
pub(super) const WINDOWS_AN_HOUR: i64 = 30;

/// The hour, in which failures are counted, and the window, in which pending attempts are, of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) hour: i64,
    pub(super) window: i64,
}

impl Period {
    pub(super) fn at(now: Timestamp) -> Self {
        Self { hour: hour(now), window: now.0.div_euclid(WINDOW_MICROS) }
    }
}

/// The hour that `now` is in.
pub(super) fn hour(now: Timestamp) -> i64 {
    now.0.div_euclid(HOUR_MICROS)
}

/// Returns the rest of the hour that `now` is in.
pub fn rest_of_hour(now: Timestamp) -> Duration {
    Duration::from_micros((HOUR_MICROS - now.0.rem_euclid(HOUR_MICROS)).unsigned_abs())
}

#[expect(clippy::cast_possible_truncation, reason = "an hour")]
const HOUR_MICROS: i64 = HOUR.as_micros() as i64;

#[expect(clippy::cast_possible_truncation, reason = "two minutes")]
const WINDOW_MICROS: i64 = WINDOW.as_micros() as i64;

impl ThrottleLimits {
    /// The failures that an account may have in an hour. From unknown origins it is a tenth less, which stays
    /// for known ones: both together keep to the limit.
    pub(super) fn account_limit(&self, known: bool) -> u32 {
        if known { self.account } else { self.account - self.account / 10 }
    }

    /// Returns the wait that is left after failures in a row, at most the longest wait; zero if it is over.
    pub(super) fn remaining_wait(&self, count: &Count, now: Timestamp) -> Duration {
        let excess = self.current_streak(count, now) - i64::from(self.free);
        if excess < 0 {
            return Duration::ZERO;
        }
        let factor = 2_u32.saturating_pow(u32::try_from(excess).unwrap_or(u32::MAX));
        let wait = self.first_wait.saturating_mul(factor).min(self.longest_wait);
        let end = count.last_failure.plus(wait);
        let left = Duration::from_micros(u64::try_from(end.0.saturating_sub(now.0)).unwrap_or(0));
        left.min(self.longest_wait)
    }

    /// Returns true if the pending attempts would exceed the failures in a row that cost no wait, were all of
    /// them to fail. Only from the first failure on: right passwords at the same time are no guesses.
    pub(super) fn is_crowded(&self, count: &Count, now: Timestamp) -> bool {
        let streak = self.current_streak(count, now);
        streak > 0 && count.pending > 1 && streak + count.pending > i64::from(self.free)
    }

    /// Returns true if a lockout begins with the failure that `streak` and `account` now count: a wait, or
    /// `limit` failures that fill the hour. `streak_before` was the streak when the attempt was reserved: of
    /// guesses at the same time the one that reaches the limit begins the wait; after a wait, the one that
    /// follows it.
    pub(super) fn begins_lockout(
        &self,
        streak: &Count,
        streak_before: i64,
        account: Option<&Count>,
        limit: u32,
        now: Timestamp,
    ) -> bool {
        let free = i64::from(self.free);
        let waits = streak.streak == free || (streak.streak > free && streak_before >= free);
        let is_full = account.is_some_and(|count| count.used + count.used_before == i64::from(limit));
        (waits && !self.remaining_wait(streak, now).is_zero()) || is_full
    }

    /// Failures in a row before this time are forgotten: they have had their wait, and an hour.
    pub(super) fn forgotten_before(&self, now: Timestamp) -> Timestamp {
        now.minus(self.longest_wait.max(HOUR))
    }

    /// The failures in a row that still count. Those of a clock that was more than an hour ahead never do.
    fn current_streak(&self, count: &Count, now: Timestamp) -> i64 {
        let counts = self.forgotten_before(now) <= count.last_failure && count.last_failure <= now.plus(HOUR);
        if counts { count.streak } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_begin_after_five_failures_double_and_end() {
        let failed = Timestamp(1_000_000_000);
        let wait = |streak, after: u64| {
            let count = Count { streak, last_failure: failed, ..Count::NONE };
            ThrottleLimits::default()
                .remaining_wait(&count, failed.plus(Duration::from_secs(after)))
                .as_secs()
        };
        assert_eq!([wait(0, 0), wait(4, 0)], [0, 0]);
        assert_eq!([wait(5, 0), wait(5, 29), wait(5, 30), wait(5, 31)], [30, 1, 0, 0]);
        assert_eq!([wait(6, 0), wait(7, 0), wait(11, 0)], [60, 120, 1_920]);
        assert_eq!([wait(12, 0), wait(64, 0), wait(i64::MAX, 0)], [3_600; 3]);
    }

    /// (M9)
    #[test]
    fn no_wait_is_longer_than_the_longest_whatever_a_clock_said() {
        let now = Timestamp(1_000_000_000_000);
        let wait = |streak, ahead: u64| {
            let count = Count { streak, last_failure: now.plus(Duration::from_mins(ahead)), ..Count::NONE };
            ThrottleLimits::default().remaining_wait(&count, now).as_secs()
        };
        assert_eq!([wait(5, 10), wait(64, 10), wait(64, 60)], [630, 3_600, 3_600]);
        assert_eq!([wait(64, 61), wait(64, 365 * 24 * 60)], [0, 0]);
    }

    #[test]
    fn an_exhausted_limit_stays_so_until_its_hour_no_longer_counts() {
        let now = Timestamp(600_000_000);
        let room = |used_before, used, pending| {
            let count = Count { used, used_before, pending, ..Count::NONE };
            Headroom::of(&count, 100, now)
        };
        for fits in [room(0, 0, 1), room(0, 99, 1), room(99, 0, 1), room(40, 59, 1), room(0, 0, 100)] {
            assert_eq!(fits, Headroom::Available);
        }
        for crowded in [room(0, 0, 101), room(40, 59, 2), room(0, 99, 2)] {
            assert_eq!(crowded, Headroom::Pending);
        }
        for (full, seconds) in [(room(100, 0, 1), 3_000), (room(40, 60, 1), 3_000), (room(1, 99, 7), 3_000)] {
            assert_eq!(full, Headroom::Exhausted(Duration::from_secs(seconds)));
        }
        for full in [room(0, 100, 1), room(50, 100, 1)] {
            assert_eq!(full, Headroom::Exhausted(Duration::from_mins(110)));
        }
    }

    /// (L3)
    #[test]
    fn from_the_first_failure_on_those_in_flight_count_as_failures_in_a_row() {
        let now = Timestamp(1_000_000_000_000);
        let crowded = |streak, pending| {
            let count = Count { streak, pending, last_failure: now, ..Count::NONE };
            ThrottleLimits::default().is_crowded(&count, now)
        };
        assert!(![(0, 1), (0, 90), (1, 4), (4, 1), (5, 1), (9, 1)].iter().any(|(s, p)| crowded(*s, *p)));
        assert!([(1, 5), (4, 2), (5, 2), (9, 2)].iter().all(|(s, p)| crowded(*s, *p)));
        let old = Count { streak: 4, pending: 9, last_failure: now.minus(HOUR + WINDOW), ..Count::NONE };
        assert!(!ThrottleLimits::default().is_crowded(&old, now));
    }

    #[test]
    fn a_lockout_begins_once() {
        let now = Timestamp(1_000_000_000_000);
        let begins = |streak, before, failures| {
            let streak = Count { streak, last_failure: now, ..Count::NONE };
            let account = Count { used: failures, ..Count::NONE };
            ThrottleLimits::default().begins_lockout(&streak, before, Some(&account), 90, now)
        };
        assert!(
            [(5, 0, 5), (5, 4, 5), (6, 5, 6), (9, 8, 9), (1, 0, 90)].iter().all(|c| begins(c.0, c.1, c.2))
        );
        assert!(![(4, 3, 4), (6, 0, 6), (9, 4, 9), (1, 0, 91)].iter().any(|c| begins(c.0, c.1, c.2)));
    }

    #[test]
    fn unknown_origins_leave_a_tenth() {
        let limits = |account| ThrottleLimits { account, ..ThrottleLimits::default() };
        assert_eq!([true, false].map(|known| limits(100).account_limit(known)), [100, 90]);
        assert_eq!([true, false].map(|known| limits(5).account_limit(known)), [5, 5]);
    }

    #[test]
    fn hours_follow_each_other() {
        let end = Timestamp(3_600_000_000);
        assert_eq!([hour(Timestamp(0)), hour(Timestamp(end.0 - 1)), hour(end)], [0, 0, 1]);
        assert_eq!(rest_of_hour(Timestamp(end.0 - 1)), Duration::from_micros(1));
        assert_eq!(rest_of_hour(end), HOUR);
    }
}
