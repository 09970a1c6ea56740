//! Points in time.

use std::time::Duration;

/// A point in time: microseconds since the Unix epoch, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Whole seconds since the Unix epoch, as on the wire. A sub-second is cut, never rounded up: a reply
    /// must not name a time that has not come.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Later by `span`; the end of time if that is too far.
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// Earlier by `span`; the beginning of time if that is too far.
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros(span)))
    }
}

/// The readings of a machine's clocks at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The time of day, which can be set.
    pub wall: Timestamp,
    /// The time since the machine was started, which cannot.
    pub boot: Timestamp,
    /// Which start that was.
    pub boot_id: String,
}

impl Clocks {
    /// Returns the drift of the time of day since `earlier`, in microseconds. After another start of the
    /// machine it cannot be known how much time it was off: then it is all the time that has passed.
    pub fn drift_since(&self, earlier: &Self) -> i64 {
        let wall = self.wall.0.saturating_sub(earlier.wall.0);
        if self.boot_id == earlier.boot_id {
            wall.saturating_sub(self.boot.0.saturating_sub(earlier.boot.0))
        } else {
            wall
        }
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_cut_towards_the_past_and_sums_saturate() {
        assert_eq!(Timestamp(1_999_999).seconds(), 1);
        assert_eq!(Timestamp(-1).seconds(), -1);
        assert_eq!(Timestamp(5).plus(Duration::from_secs(1)).0, 1_000_005);
        assert_eq!(Timestamp(5).plus(Duration::MAX).0, i64::MAX);
        assert_eq!(Timestamp(-5).minus(Duration::MAX).0, i64::MIN);
    }
}
