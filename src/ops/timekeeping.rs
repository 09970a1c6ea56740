//! Whether the clock can be trusted with removing what is old: a clock that jumps ahead makes everything old.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::domain::time::Clocks;
use crate::error::Result;
use crate::store;

use super::Operations;

/// A jump of the clock that is no correction.
const JUMP: Duration = Duration::from_hours(24);

/// How long nothing is removed after one: time for an operator to see it.
const HOLD: Duration = Duration::from_hours(1);

/// How often the clocks are noted in the database.
const NOTE: Duration = Duration::from_mins(10);

/// How long the clocks of a machine's start are kept that housekeeping was not seen on.
const FORGET: Duration = Duration::from_hours(90 * 24);

/// The clocks when they were last trusted, and what happened since.
#[derive(Clone, Debug)]
pub(super) struct Timekeeper(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    trusted: Option<Clocks>,
    /// What the clocks showed when they were found to have jumped.
    jumped: Option<Clocks>,
    noted: Option<Clocks>,
}

/// What the clocks say of removing.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Trusted,
    /// They have just jumped, by so many microseconds.
    Jumped(i64),
    /// They had, not long ago.
    Held,
    /// They had, and stayed so: that is what time it is.
    Accepted,
}

impl Kept {
    fn look(&mut self, now: &Clocks) -> Verdict {
        let far = |drift: i64| Duration::from_micros(drift.unsigned_abs()) > JUMP;
        let drift = self.trusted.as_ref().map_or(0, |trusted| now.drift_since(trusted));
        if !far(drift) {
            (self.trusted, self.jumped) = (Some(now.clone()), None);
            return Verdict::Trusted;
        }
        match &self.jumped {
            Some(jumped) if !far(now.drift_since(jumped)) => {
                if now.boot < jumped.boot.plus(HOLD) {
                    return Verdict::Held;
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

    fn is_note_due(&self, now: &Clocks) -> bool {
        self.noted.as_ref().is_none_or(|noted| now.boot >= noted.boot.plus(NOTE))
    }
}

impl Timekeeper {
    pub(super) fn new(trusted: Option<Clocks>) -> Self {
        Self(Arc::new(Mutex::new(Kept { trusted, jumped: None, noted: None })))
    }
}

impl Operations {
    /// Returns true if what is old by the clock may be removed.
    pub(super) async fn clock_is_trusted(&self) -> Result<bool> {
        let now = self.clock.clocks();
        let mut kept = self.timekeeper.0.lock().await;
        match kept.look(&now) {
            Verdict::Held => return Ok(false),
            Verdict::Jumped(drift) => {
                let days = drift / 86_400_000_000;
                tracing::warn!(
                    days,
                    "the clock is more than a day off since housekeeping last ran: nothing is removed for an hour"
                );
                return Ok(false);
            }
            Verdict::Accepted => {
                tracing::warn!("the clock stayed as it is for an hour: housekeeping goes on by it");
            }
            Verdict::Trusted => {}
        }
        if kept.is_note_due(&now) {
            let tx = self.store.begin_as_server().await?;
            store::clocks::note(&tx, &now, now.wall.minus(FORGET)).await?;
            tx.commit().await?;
            kept.noted = Some(now);
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
        let mut kept = Kept { trusted: None, jumped: None, noted: None };
        assert_eq!(kept.look(&clocks(1_000, 10)), Verdict::Trusted);
        // A machine that ran for long between two rounds, and a correction of some hours.
        assert_eq!(kept.look(&clocks(1_100, 110)), Verdict::Trusted);
        assert_eq!(kept.look(&clocks(1_104, 111)), Verdict::Trusted);
        assert_eq!(kept.look(&clocks(11_000, 111)), Verdict::Jumped(9_896 * HOUR));
        assert_eq!(kept.look(&clocks(11_000, 111)), Verdict::Held);
        // Put right again.
        assert_eq!(kept.look(&clocks(1_105, 112)), Verdict::Trusted);
        assert_eq!(kept.look(&clocks(11_000, 113)), Verdict::Jumped(9_894 * HOUR));
        // Another jump begins another hour.
        assert_eq!(kept.look(&clocks(21_001, 114)), Verdict::Jumped(19_894 * HOUR));
        assert_eq!(kept.look(&clocks(21_002, 115)), Verdict::Accepted);
        assert_eq!(kept.look(&clocks(21_003, 116)), Verdict::Trusted);
        assert_eq!(kept.look(&clocks(20_000, 117)), Verdict::Jumped(-1_004 * HOUR));
    }
}
