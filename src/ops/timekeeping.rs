//! Guards removals against a wrong clock: one that jumps ahead would make every row old.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::domain::time::Clocks;
use crate::error::Result;
use crate::store;

use super::Operations;

/// A jump of the clock that is no correction.
const MAX_DRIFT: Duration = Duration::from_hours(24);

/// The time without removals after a jump, in which an operator can see the warning.
const REMOVAL_PAUSE: Duration = Duration::from_hours(1);

/// The time between records of the clocks in the database.
const RECORD_INTERVAL: Duration = Duration::from_mins(10);

/// The time for which the clocks of a machine are kept on which no housekeeping runs any more.
const CLOCKS_RETENTION: Duration = Duration::from_hours(90 * 24);

/// The clocks when they were last trusted, and what happened since.
#[derive(Clone, Debug)]
pub(super) struct Timekeeper(Arc<Mutex<ClockState>>);

#[derive(Debug)]
struct ClockState {
    trusted: Option<Clocks>,
    /// The clocks when they were found to have jumped.
    jumped: Option<Clocks>,
    last_recorded: Option<Clocks>,
}

/// The decision whether rows may be removed.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Trusted,
    /// They have just jumped, by so many microseconds.
    Jumped(i64),
    /// They had, not long ago.
    Paused,
    /// They had, and stayed so: that is what time it is.
    Accepted,
}

impl ClockState {
    fn look(&mut self, now: &Clocks) -> Verdict {
        let far = |drift: i64| Duration::from_micros(drift.unsigned_abs()) > MAX_DRIFT;
        let drift = self.trusted.as_ref().map_or(0, |trusted| now.drift_since(trusted));
        if !far(drift) {
            (self.trusted, self.jumped) = (Some(now.clone()), None);
            return Verdict::Trusted;
        }
        match &self.jumped {
            Some(jumped) if !far(now.drift_since(jumped)) => {
                if now.boot < jumped.boot.plus(REMOVAL_PAUSE) {
                    return Verdict::Paused;
                }
                (self.trusted, self.jumped) = (Some(now.clone()), None);
                Verdict::Accepted
            }
            _ => {
                self.jumped = Some(now.clone());
                Verdict::Jumped(drift)
            }
        }
    }

    fn is_record_due(&self, now: &Clocks) -> bool {
        self.last_recorded
            .as_ref()
            .is_none_or(|last_recorded| now.boot >= last_recorded.boot.plus(RECORD_INTERVAL))
    }
}

impl Timekeeper {
    pub(super) fn new(trusted: Option<Clocks>) -> Self {
        Self(Arc::new(Mutex::new(ClockState { trusted, jumped: None, last_recorded: None })))
    }
}

impl Operations {
    /// Returns true if what is old by the clock may be removed.
    pub(super) async fn clock_is_trusted(&self) -> Result<bool> {
        let now = self.clock.clocks();
        let mut state = self.timekeeper.0.lock().await;
        match state.look(&now) {
            Verdict::Paused => return Ok(false),
            Verdict::Jumped(drift) => {
                let days = drift / 86_400_000_000;
                tracing::warn!(
                    days,
                    "the clock jumped by more than a day since the last housekeeping: nothing is removed for an hour"
                );
                return Ok(false);
            }
            Verdict::Accepted => {
                tracing::warn!("the clock was steady for an hour: housekeeping resumes");
            }
            Verdict::Trusted => {}
        }
        if state.is_record_due(&now) {
            let tx = self.store.begin_as_server().await?;
            store::clocks::note(&tx, &now, now.wall.minus(CLOCKS_RETENTION)).await?;
            tx.commit().await?;
            state.last_recorded = Some(now);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::time::Timestamp;

    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn clocks(wall: i64, boot: i64) -> Clocks {
        Clocks { wall: Timestamp(wall * HOUR), boot: Timestamp(boot * HOUR), boot_id: "a".to_owned() }
    }

    #[test]
    fn after_a_jump_of_more_than_a_day_nothing_is_removed_for_an_hour() {
        let mut state = ClockState { trusted: None, jumped: None, last_recorded: None };
        assert_eq!(state.look(&clocks(1_000, 10)), Verdict::Trusted);
        // A machine that ran for long between two rounds, and a correction of some hours.
        assert_eq!(state.look(&clocks(1_100, 110)), Verdict::Trusted);
        assert_eq!(state.look(&clocks(1_104, 111)), Verdict::Trusted);
        assert_eq!(state.look(&clocks(11_000, 111)), Verdict::Jumped(9_896 * HOUR));
        assert_eq!(state.look(&clocks(11_000, 111)), Verdict::Paused);
        // Put right again.
        assert_eq!(state.look(&clocks(1_105, 112)), Verdict::Trusted);
        assert_eq!(state.look(&clocks(11_000, 113)), Verdict::Jumped(9_894 * HOUR));
        // Another jump begins another hour.
        assert_eq!(state.look(&clocks(21_001, 114)), Verdict::Jumped(19_894 * HOUR));
        assert_eq!(state.look(&clocks(21_002, 115)), Verdict::Accepted);
        assert_eq!(state.look(&clocks(21_003, 116)), Verdict::Trusted);
        assert_eq!(state.look(&clocks(20_000, 117)), Verdict::Jumped(-1_004 * HOUR));
    }
}
