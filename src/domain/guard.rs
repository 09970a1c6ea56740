//! How often passwords may be guessed.

use std::net::IpAddr;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::time::Timestamp;

/// Whom attempts are counted for: a keyed digest, so that the table tells nobody's name or address.
pub type Mark = [u8; 32];

/// A row of counts: for whom, and the account whose failures they are. Addresses and callers belong to no account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// For whom it counts.
    pub mark: Mark,
    /// The mark of the account.
    pub owner: Option<Mark>,
}

/// An attempt in flight at one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Where it counts.
    pub counter: Counter,
    /// The window of time in which it was reserved.
    pub window: i64,
}

/// Limits of attempts; the numbers are settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failures of one account in an hour.
    pub account: u32,
    /// Failures of strangers from one address in an hour; 0: any number.
    pub address: u32,
    /// Failures of strangers that one caller passes on in an hour; 0: any number.
    pub caller: u32,
    /// Failures in a row before waits begin.
    pub free: u32,
    /// The first wait; each further one is twice as long.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
    /// How long a place stays familiar.
    pub familiar: Duration,
}

/// Failures so far, and attempts in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Failures of this hour.
    pub spent: i64,
    /// Failures of the hour before.
    pub before: i64,
    /// Attempts without a verdict.
    pub pending: i64,
    /// Failures in a row.
    pub streak: i64,
    /// When the last one failed.
    pub failed: Timestamp,
}

impl Count {
    /// No attempt at all.
    pub const NONE: Self = Self { spent: 0, before: 0, pending: 0, streak: 0, failed: Timestamp(0) };
}

/// What a limit leaves for an attempt that is counted already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headroom {
    /// It fits.
    Available,
    /// It does not fit beside those in flight: some of them may turn out to be right.
    Pending,
    /// Failures alone fill the limit for this long.
    Exhausted(Duration),
}

/// The length of the spans in which failures are counted.
pub const HOUR: Duration = Duration::from_hours(1);

/// The length of the windows in which attempts in flight are counted. One whose process died counts until the window after
/// its own has ended: two to four minutes.
pub const WINDOW: Duration = Duration::from_mins(2);

/// Windows in an hour. Counts from further ahead come from a clock that was wrong, and begin anew.
pub const WINDOWS_AN_HOUR: i64 = 30;

/// When to try again where only attempts in flight are in the way: by then some of them have their verdict.
pub const RETRY_PENDING: Duration = Duration::from_secs(1);

/// The spans of time that a moment lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The hour, in which failures are counted.
    pub hour: i64,
    /// The window, in which attempts in flight are counted.
    pub window: i64,
}

impl Period {
    /// The spans that `now` lies in.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self { hour: hour(now), window: now.0.div_euclid(WINDOW_MICROS) }
    }
}

/// The hour that `now` is in.
#[must_use]
pub fn hour(now: Timestamp) -> i64 {
    now.0.div_euclid(MICROS)
}

/// What is left of the hour that `now` is in.
#[must_use]
pub fn rest_of_hour(now: Timestamp) -> Duration {
    Duration::from_micros((MICROS - now.0.rem_euclid(MICROS)).unsigned_abs())
}

#[expect(clippy::cast_possible_truncation, reason = "an hour")]
const MICROS: i64 = HOUR.as_micros() as i64;

#[expect(clippy::cast_possible_truncation, reason = "two minutes")]
const WINDOW_MICROS: i64 = WINDOW.as_micros() as i64;

impl Default for Limits {
    fn default() -> Self {
        Self {
            account: 100,
            address: 300,
            caller: 0,
            free: 5,
            first_wait: Duration::from_secs(30),
            longest_wait: HOUR,
            familiar: Duration::from_hours(90 * 24),
        }
    }
}

impl Limits {
    /// What strangers may spend of an account's failures: a tenth stays for the addresses that it was signed in from,
    /// so that both together keep to the limit.
    #[must_use]
    pub fn strangers(&self) -> u32 {
        self.account - self.account / 10
    }

    /// What `limit` leaves for an attempt that `count` has among those in flight. What is refused is not counted, so at the
    /// end of this hour its failures are those of the hour before.
    #[must_use]
    pub fn headroom(count: &Count, limit: u32, now: Timestamp) -> Headroom {
        let (limit, failures) = (i64::from(limit), count.spent + count.before);
        if failures + count.pending <= limit {
            Headroom::Available
        } else if failures < limit {
            Headroom::Pending
        } else if count.spent < limit {
            Headroom::Exhausted(rest_of_hour(now))
        } else {
            Headroom::Exhausted(rest_of_hour(now) + HOUR)
        }
    }

    /// How long to wait still after failures in a row; zero: no longer. Never longer than the longest wait.
    #[must_use]
    pub fn wait(&self, count: &Count, now: Timestamp) -> Duration {
        let over = self.current_streak(count, now) - i64::from(self.free);
        if over < 0 {
            return Duration::ZERO;
        }
        let factor = 2_u32.saturating_pow(u32::try_from(over).unwrap_or(u32::MAX));
        let wait = self.first_wait.saturating_mul(factor).min(self.longest_wait);
        let end = count.failed.plus(wait);
        let left = Duration::from_micros(u64::try_from(end.0.saturating_sub(now.0)).unwrap_or(0));
        left.min(self.longest_wait)
    }

    /// Returns true if the attempts in flight would exceed the failures in a row that cost no wait, were all of them to
    /// fail. Asked from the first failure on only: right passwords that come side by side are no guesses.
    #[must_use]
    pub fn is_crowded(&self, count: &Count, now: Timestamp) -> bool {
        let streak = self.current_streak(count, now);
        streak > 0 && count.pending > 1 && streak + count.pending > i64::from(self.free)
    }

    /// Returns true if with the failure that `streak` and `account` now count the account is locked: a wait begins, or
    /// `limit` failures fill the hour. `before` are the failures in a row when the attempt was reserved: of guesses side by
    /// side the one that reaches the limit begins the wait, behind a wait the one that follows it.
    #[must_use]
    pub fn begins_lockout(
        &self,
        streak: &Count,
        before: i64,
        account: Option<&Count>,
        limit: u32,
        now: Timestamp,
    ) -> bool {
        let free = i64::from(self.free);
        let waits = streak.streak == free || (streak.streak > free && before >= free);
        let full = account.is_some_and(|count| count.spent + count.before == i64::from(limit));
        (waits && !self.wait(streak, now).is_zero()) || full
    }

    /// Failures in a row before this time are forgotten: they have had their wait, and an hour.
    #[must_use]
    pub fn forgotten_before(&self, now: Timestamp) -> Timestamp {
        now.minus(self.longest_wait.max(HOUR))
    }

    /// The failures in a row that still count. Those of a clock that was more than an hour ahead never do.
    fn current_streak(&self, count: &Count, now: Timestamp) -> i64 {
        let counts = self.forgotten_before(now) <= count.failed && count.failed <= now.plus(HOUR);
        if counts { count.streak } else { 0 }
    }
}

/// Makes marks, and draws lots: the same for all who have the key.
#[derive(Clone)]
pub struct Marker(Vec<u8>);

impl Marker {
    /// The key that all replicas share.
    #[must_use]
    pub fn from_trusted(key: Vec<u8>) -> Self {
        Self(key)
    }

    /// The mark of `parts`, for one purpose.
    #[must_use]
    pub fn mark(&self, purpose: &str, parts: &[&[u8]]) -> Mark {
        // HMAC takes a key of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return Mark::default() };
        for part in [&[purpose.as_bytes()], parts].concat() {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// The mark of an address. The holder of an IPv6 network has all of its addresses, at least 2^64 of them.
    #[must_use]
    pub fn address(&self, address: IpAddr) -> Mark {
        match address.to_canonical() {
            IpAddr::V4(address) => self.mark("address", &[&address.octets()]),
            IpAddr::V6(address) => self.mark("address", &[&address.octets()[..8]]),
        }
    }

    /// A number that looks random and is always the same for `parts`.
    #[must_use]
    pub fn lot(&self, parts: &[&[u8]]) -> i64 {
        let mark = self.mark("lot", parts);
        mark.iter().take(8).fold(0, |number, byte| number << 8 | i64::from(*byte))
    }
}

impl std::fmt::Debug for Marker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Marker(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_begin_after_five_failures_double_and_end() {
        let failed = Timestamp(1_000_000_000);
        let wait = |streak, after: u64| {
            let count = Count { streak, failed, ..Count::NONE };
            Limits::default().wait(&count, failed.plus(Duration::from_secs(after))).as_secs()
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
            let count = Count { streak, failed: now.plus(Duration::from_mins(ahead)), ..Count::NONE };
            Limits::default().wait(&count, now).as_secs()
        };
        assert_eq!([wait(5, 10), wait(64, 10), wait(64, 60)], [630, 3_600, 3_600]);
        assert_eq!([wait(64, 61), wait(64, 365 * 24 * 60)], [0, 0]);
    }

    #[test]
    fn what_is_full_is_full_until_its_hour_no_longer_counts() {
        let now = Timestamp(600_000_000);
        let room = |before, spent, pending| {
            let count = Count { spent, before, pending, ..Count::NONE };
            Limits::headroom(&count, 100, now)
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
            let count = Count { streak, pending, failed: now, ..Count::NONE };
            Limits::default().is_crowded(&count, now)
        };
        assert!(![(0, 1), (0, 90), (1, 4), (4, 1), (5, 1), (9, 1)].iter().any(|(s, p)| crowded(*s, *p)));
        assert!([(1, 5), (4, 2), (5, 2), (9, 2)].iter().all(|(s, p)| crowded(*s, *p)));
        let old = Count { streak: 4, pending: 9, failed: now.minus(HOUR + WINDOW), ..Count::NONE };
        assert!(!Limits::default().is_crowded(&old, now));
    }

    #[test]
    fn a_lockout_begins_once() {
        let now = Timestamp(1_000_000_000_000);
        let begins = |streak, before, failures| {
            let streak = Count { streak, failed: now, ..Count::NONE };
            let account = Count { spent: failures, ..Count::NONE };
            Limits::default().begins_lockout(&streak, before, Some(&account), 90, now)
        };
        assert!(
            [(5, 0, 5), (5, 4, 5), (6, 5, 6), (9, 8, 9), (1, 0, 90)].iter().all(|c| begins(c.0, c.1, c.2))
        );
        assert!(![(4, 3, 4), (6, 0, 6), (9, 4, 9), (1, 0, 91)].iter().any(|c| begins(c.0, c.1, c.2)));
    }

    #[test]
    fn strangers_leave_a_tenth() {
        assert_eq!(Limits::default().strangers(), 90);
        assert_eq!(Limits { account: 5, ..Limits::default() }.strangers(), 5);
    }

    #[test]
    fn hours_follow_each_other() {
        let end = Timestamp(3_600_000_000);
        assert_eq!([hour(Timestamp(0)), hour(Timestamp(end.0 - 1)), hour(end)], [0, 0, 1]);
        assert_eq!(rest_of_hour(Timestamp(end.0 - 1)), Duration::from_micros(1));
        assert_eq!(rest_of_hour(end), HOUR);
    }

    #[test]
    fn marks_differ_by_purpose_part_and_key_and_no_split_looks_like_another() {
        let marker = Marker::from_trusted(vec![1; 32]);
        let marks = [
            marker.mark("name", &[b"ab"]),
            marker.mark("name", &[b"a", b"b"]),
            marker.mark("name", &[b"", b"ab"]),
            marker.mark("account", &[b"ab"]),
            Marker::from_trusted(vec![2; 32]).mark("name", &[b"ab"]),
        ];
        for (n, mark) in marks.iter().enumerate() {
            assert!(!marks[..n].contains(mark), "{n}");
        }
        assert_eq!(marks[0], marker.mark("name", &[b"ab"]));
        assert_ne!(marker.lot(&[b"a"]), marker.lot(&[b"b"]));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let marker = Marker::from_trusted(vec![1; 32]);
        let of = |text: &str| marker.address(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
    }
}
