//! How often passwords may be guessed.

use std::net::IpAddr;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::time::Timestamp;

/// Whom attempts are counted for: a keyed digest, so that the table tells nobody's name or address.
pub type Mark = [u8; 32];

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

/// Attempts so far, this one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Those of this hour that did not succeed, or are not done.
    pub spent: i64,
    /// Those of the hour before.
    pub before: i64,
    /// Failures in a row.
    pub streak: i64,
    /// When the last one failed.
    pub failed: Timestamp,
}

/// The length of the spans in which attempts are counted.
pub const HOUR: Duration = Duration::from_hours(1);

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

    /// How long no attempt fits `limit`; zero: this one does. What is refused is not counted, so at the end of this hour the
    /// others of it are those of the hour before.
    #[must_use]
    pub fn full(count: &Count, limit: u32, now: Timestamp) -> Duration {
        let limit = i64::from(limit);
        if count.spent + count.before <= limit {
            Duration::ZERO
        } else if count.spent <= limit {
            rest_of_hour(now)
        } else {
            rest_of_hour(now) + HOUR
        }
    }

    /// How long to wait still; zero: no longer.
    #[must_use]
    pub fn wait(&self, count: &Count, now: Timestamp) -> Duration {
        let over = count.streak - i64::from(self.free);
        if over < 0 {
            return Duration::ZERO;
        }
        let factor = 2_u32.saturating_pow(u32::try_from(over).unwrap_or(u32::MAX));
        let wait = self.first_wait.saturating_mul(factor).min(self.longest_wait);
        let end = count.failed.plus(wait);
        // After an hour without a failure, or the longest wait, it begins anew.
        if end <= now { Duration::ZERO } else { Duration::from_micros((end.0 - now.0).unsigned_abs()) }
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
            let count = Count { spent: 1, before: 0, streak, failed };
            Limits::default().wait(&count, failed.plus(Duration::from_secs(after))).as_secs()
        };
        assert_eq!([wait(0, 0), wait(4, 0)], [0, 0]);
        assert_eq!([wait(5, 0), wait(5, 29), wait(5, 30), wait(5, 31)], [30, 1, 0, 0]);
        assert_eq!([wait(6, 0), wait(7, 0), wait(11, 0)], [60, 120, 1_920]);
        assert_eq!([wait(12, 0), wait(64, 0), wait(i64::MAX, 0)], [3_600; 3]);
    }

    #[test]
    fn what_is_full_is_full_until_its_hour_no_longer_counts() {
        let now = Timestamp(600_000_000);
        let full = |before, spent| {
            let count = Count { spent, before, streak: 0, failed: now };
            Limits::full(&count, 100, now).as_secs()
        };
        assert_eq!([full(0, 1), full(0, 100), full(99, 1), full(40, 60)], [0; 4]);
        assert_eq!([full(100, 1), full(40, 61), full(1, 100)], [3_000; 3]);
        assert_eq!([full(0, 101), full(50, 101)], [6_600; 2]);
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
