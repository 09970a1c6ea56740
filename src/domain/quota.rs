//! Limits of a namespace.

use super::value::named_enum;

named_enum! {
    /// A limit of a namespace, by the name of its setting.
    Quota {
        /// Users, with those in the trash.
        Users = "max_users",
        /// Stored sessions.
        Sessions = "max_sessions",
        /// API keys that have not expired.
        Keys = "max_keys",
        /// Calls a second on each replica.
        CallsPerSecond = "max_calls_per_second",
    }
}

impl Quota {
    /// The largest limit of things that are stored.
    pub const MAX_STORED: u32 = 1_000_000_000;
    /// The largest limit of calls a second.
    pub const MAX_CALLS: u32 = 1_000_000;

    /// The largest limit.
    pub fn max(self) -> u32 {
        if self == Self::CallsPerSecond { Self::MAX_CALLS } else { Self::MAX_STORED }
    }

    /// Its subject, for people.
    pub fn subject(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Sessions => "sessions",
            Self::Keys => "keys",
            Self::CallsPerSecond => "calls a second",
        }
    }
}

/// A limit for each [`Quota`]. 0 means no limit; `None` means not set, so that a default applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas([Option<u32>; Quota::ALL.len()]);

impl Quotas {
    /// Limits in the order of [`Quota::ALL`].
    pub fn new(limits: [Option<u32>; Quota::ALL.len()]) -> Self {
        Self(limits)
    }

    /// A limit as it was set.
    pub fn get(self, quota: Quota) -> Option<u32> {
        self.0[quota as usize]
    }

    /// The most that is allowed; `None`: any number.
    pub fn most(self, quota: Quota) -> Option<u32> {
        self.get(quota).filter(|most| *most > 0)
    }

    /// These limits, with those of `others` where they are not set.
    pub fn or(self, others: Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n].or(others.0[n])))
    }

    /// These limits with `changes` applied.
    pub fn with(self, changes: LimitChanges) -> Self {
        Self(std::array::from_fn(|n| changes.0[n].unwrap_or(self.0[n])))
    }
}

/// Changes of [`Quotas`], in the order of [`Quota::ALL`]: `None` keeps a limit, `Some(None)` unsets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitChanges(pub [Option<Option<u32>>; Quota::ALL.len()]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_its_own_comes_before_that_of_the_settings() {
        let settings = Quotas::new([Some(10), Some(20), Some(0), None]);
        let own = Quotas::new([None, Some(0), Some(5), None]);
        let limits = own.or(settings);
        assert_eq!(Quota::ALL.map(|quota| limits.most(quota)), [Some(10), None, Some(5), None]);
    }

    #[test]
    fn a_change_leaves_the_others_as_they_are() {
        let own = Quotas::new([Some(1), Some(2), None, None]);
        let changed = own.with(LimitChanges([Some(None), None, Some(Some(0)), None]));
        assert_eq!(changed, Quotas::new([None, Some(2), Some(0), None]));
    }
}
