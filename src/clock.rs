//! The time and what is made of it. Handed in, so that tests move it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::TryRng as _;
use rand::rngs::SysRng;

use crate::domain::time::{Clocks, Timestamp};
use crate::error::{Error, Result};

/// The source of the time.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's.
    System,
    /// One that stands still until a test moves it.
    Fixed {
        /// The time that it shows, in microseconds.
        now: Arc<AtomicI64>,
        /// The time since a machine would have been started.
        boot: Arc<AtomicI64>,
    },
}

impl Clock {
    /// A clock that shows `start` and stands still.
    pub fn fixed(start: Timestamp) -> Self {
        Self::Fixed { now: Arc::new(AtomicI64::new(start.0)), boot: Arc::new(AtomicI64::new(start.0)) }
    }

    /// Moves a fixed clock on; the machine's is left alone.
    pub fn advance(&self, span: Duration) {
        if let Self::Fixed { now, boot } = self {
            now.store(self.now().plus(span).0, Ordering::SeqCst);
            boot.store(Timestamp(boot.load(Ordering::SeqCst)).plus(span).0, Ordering::SeqCst);
        }
    }

    /// Sets a fixed clock, as an operator sets one that is wrong; the machine's is left alone.
    pub fn set(&self, time: Timestamp) {
        if let Self::Fixed { now, .. } = self {
            now.store(time.0, Ordering::SeqCst);
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match self {
            #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
            Self::System => {
                Timestamp(0).plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
            }
            Self::Fixed { now, .. } => Timestamp(now.load(Ordering::SeqCst)),
        }
    }

    /// The time of day together with the time since the machine was started.
    pub fn clocks(&self) -> Clocks {
        let (boot, boot_id) = match self {
            Self::System => {
                let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                let micros = boot.tv_sec.saturating_mul(1_000_000).saturating_add(boot.tv_nsec / 1_000);
                // Where there is no such file all starts of the machine are one, and a start is a jump back.
                let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
                (micros, id.trim().to_owned())
            }
            Self::Fixed { boot, .. } => (boot.load(Ordering::SeqCst), "fixed".to_owned()),
        };
        Clocks { wall: self.now(), boot: Timestamp(boot), boot_id }
    }

    /// A UUID of version 7 (RFC 9562 §5.7): milliseconds of this clock, then random bits, so that ids made
    /// one after the other lie side by side in an index.
    pub fn new_id(&self) -> Result<uuid::Uuid> {
        let mut random = [0_u8; 10];
        SysRng.try_fill_bytes(&mut random).map_err(Error::internal)?;
        let millis = u64::try_from(self.now().0 / 1_000).unwrap_or_default();
        Ok(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_are_version_7() {
        let clock = Clock::fixed(Timestamp(1_700_000_000_000_000));
        let first = clock.new_id().unwrap();
        clock.advance(Duration::from_millis(1));
        let second = clock.new_id().unwrap();
        assert!(first < second);
        assert_eq!(first.get_version_num(), 7);
        assert_ne!(clock.new_id().unwrap(), second);
    }
}
