//! When what was read before is still what the database has.
//!
//! Sessions and users are cached by each process (`crate::cache`). This module decides whether a cached record may be
//! used; it promises that
//!
//! * in the process that made a change, no call that began after the change was acknowledged is answered from before it;
//! * in any other process, none that began `max_age` or more after that.
//!
//! **Stamps.** `counter` numbers the changes that this process knows of. A change takes the next number and stores it in
//! the slot of its user. A load reads `counter` **before** it asks the database and keeps that as the stamp of the
//! record. A record counts while the slot of its user is at most its stamp. Three steps make this right:
//!
//! 1. A change is noted after its COMMIT and before its caller is answered. So a call that begins after the answer reads
//!    a slot of at least the change's number *n*.
//! 2. Is the stamp of a record below *n*, then the record does not count for that call.
//! 3. Is it *n* or more, then the load read `counter` after the change had taken *n*, so after the COMMIT. The load asked
//!    the database later still, and got the row as the change left it.
//!
//! So a loader that is slow cannot put back what it read before the change, however late it stores it. Users share slots
//! by a keyed hash: where two do, a change of one costs the other a load, and no caller can choose whose.
//!
//! A COMMIT whose outcome is unknown is noted like one that succeeded, since it may have. It may also succeed later, when
//! the server gets to it: no caller was told that it did, and the second rule finds it. But the same call again is told,
//! when it finds nothing left to do. So calls that would change a user note that too, after they have read its row
//! ([`Coherence::note_user`]); Logout, which may find no row that tells whose the session was, has only the cached record to
//! go by, and leaves a load that is under way at that moment to the second rule.
//!
//! **Freshness.** Changes of other processes come from the log of events, which each change writes in its own
//! transaction (`super::tail`). A poll of the log sees all that was committed before it began. It notes each
//! change as above, and *then* stores the time at which it *began*. A record counts only if that time is less than
//! `max_age` ago, and its slot is read *after* that time is. Take a change that was acknowledged at *a*, and a call that
//! began at *b* ≥ *a* + `max_age`. If the call finds a poll that is fresh, that poll began after *b* − `max_age` ≥ *a*.
//! So it saw the change, noted it before it stored its time, and the call, which reads that time first, reads the slot as
//! the poll left it; steps 2 and 3 do the rest. Where the log cannot be read no poll is fresh, and calls ask the database.
//!
//! **What ends by itself** has no event: a session that expires, or that is not read for too long. Neither is concluded from
//! the two rules. The cache judges a record's own times at each hit. The last read that a record knows is never later than
//! the one that the database has, so a session that is idle in the database is idle in every cache: what housekeeping
//! removes, no cache calls valid. That holds among replicas whose clocks and settings agree; where they differ, a session
//! ends as much later as they do.
//!
//! A connection on which the log is read for the first time may lead to a standby that was promoted. That one may lack the
//! end of the old log and give its numbers once more, so the poll notes a change of everyone. No connection to the server
//! before is used any more by then: the probe moves all of them before it lets the log's go there (`super::hosts`).
//!
//! The clock is the one that goes on while the machine is suspended. Neither rule holds where it is wrong: where a
//! hypervisor stops the guest and its clock, or where a former PostgreSQL primary goes on answering after another one was
//! promoted.
//!
//! All accesses are sequentially consistent: the order of different atomics is what the argument rests on, and a load
//! costs the same as a weaker one on x86-64.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::domain::event::Action;

/// Slots of users: 512 KiB. At a thousand changes a second each is hit once a minute by a change of another user.
const SLOTS: usize = 1 << 16;

/// The changes that this process knows of.
#[derive(Debug)]
pub struct Coherence {
    /// The number of the last change.
    counter: AtomicU64,
    /// The number of the last change that may have been of any user.
    everyone: AtomicU64,
    /// The number of the last change of a user that the slot stands for.
    slots: Box<[AtomicU64]>,
    /// When the last finished poll of the log of events began, in nanoseconds as [`Moment`]; 0: there was none.
    followed: AtomicU64,
    keys: RandomState,
}

/// The place in the table where changes of a user are noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u16);

/// The number of the last change before a record was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

/// A time since the machine was started, suspended or not, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    pub(super) fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let part = |number: i64| u64::try_from(number).unwrap_or(0);
        Self(part(now.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(now.tv_nsec)))
    }

    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Default for Coherence {
    fn default() -> Self {
        Self {
            counter: AtomicU64::new(0),
            everyone: AtomicU64::new(0),
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            followed: AtomicU64::new(0),
            keys: RandomState::new(),
        }
    }
}

impl Coherence {
    /// The slot of a user.
    pub fn slot(&self, namespace: &str, user: &str) -> Slot {
        let [high, low, ..] = self.keys.hash_one((namespace, user)).to_be_bytes();
        Slot(u16::from_be_bytes([high, low]))
    }

    /// Returns the stamp of a record that is about to be loaded. To be called before the database is asked.
    pub fn stamp(&self) -> Stamp {
        Stamp(self.counter.load(SeqCst))
    }

    /// Returns true if a record with that slot and stamp may be used.
    pub fn admits(&self, slot: Slot, stamp: Stamp, max_age: Duration) -> bool {
        // In this order: see above.
        self.is_followed(Moment::now(), max_age) && self.is_unchanged(slot, stamp)
    }

    fn is_followed(&self, now: Moment, max_age: Duration) -> bool {
        let begun = self.followed.load(SeqCst);
        begun != 0 && now.since(Moment(begun)) < max_age
    }

    fn is_unchanged(&self, slot: Slot, stamp: Stamp) -> bool {
        self.slots[usize::from(slot.0)].load(SeqCst) <= stamp.0 && self.everyone.load(SeqCst) <= stamp.0
    }

    /// Notes that a user may have changed.
    pub fn note_user(&self, namespace: &str, user: &str) {
        self.note(self.slot(namespace, user));
    }

    /// Notes a change of a user, after its COMMIT.
    pub fn note(&self, slot: Slot) {
        let number = self.take_number();
        self.store_number(slot, number);
    }

    fn take_number(&self) -> u64 {
        self.counter.fetch_add(1, SeqCst) + 1
    }

    fn store_number(&self, slot: Slot, number: u64) {
        self.slots[usize::from(slot.0)].fetch_max(number, SeqCst);
    }

    /// Notes what an event of the log tells.
    pub(super) fn note_event(&self, namespace: &str, user: &str, action: Option<Action>) {
        if changes_records(action) {
            self.note(self.slot(namespace, user));
        }
    }

    /// Notes that any user may have changed.
    pub(super) fn note_everyone(&self) {
        self.everyone.fetch_max(self.take_number(), SeqCst);
    }

    /// The time since the last finished poll of the log began; `None` if there was none.
    pub(super) fn age(&self) -> Option<Duration> {
        let begun = self.followed.load(SeqCst);
        (begun != 0).then(|| Moment::now().since(Moment(begun)))
    }

    /// Pretends that the log has just been read.
    #[cfg(test)]
    pub(crate) fn note_poll_now(&self) {
        self.note_poll(Moment::now());
    }

    /// Notes that a poll of the log, which began at `begun`, has finished and its events are noted.
    pub(super) fn note_poll(&self, begun: Moment) {
        self.followed.fetch_max(begun.0, SeqCst);
    }
}

/// Returns true if an event can tell of a change of what is cached: all but those that any client that knows a name can cause
/// again and again, and that change neither the user nor a session that was there. `None` is an action of a newer program.
fn changes_records(action: Option<Action>) -> bool {
    !matches!(
        action,
        Some(
            Action::LoginRefused
                | Action::PasswordRefused
                | Action::SessionCreated
                | Action::CodeCreated
                | Action::CodeRefused
        )
    )
}

/// The users that a transaction changes, by the events that it writes.
#[derive(Debug)]
pub(super) struct Changes {
    coherence: Arc<Coherence>,
    slots: Mutex<Vec<Slot>>,
}

impl Changes {
    pub(super) fn new(coherence: Arc<Coherence>) -> Self {
        Self { coherence, slots: Mutex::default() }
    }

    pub(super) fn add(&self, namespace: &str, user: &str, action: Action) {
        if changes_records(Some(action)) {
            let slot = self.coherence.slot(namespace, user);
            self.slots.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        }
    }

    /// Notes the changes: after the COMMIT, whatever came of it, and before anybody is told.
    pub(super) fn note(&self) {
        for slot in self.slots.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            self.coherence.note(*slot);
        }
    }
}

#[cfg(test)]
mod tests;
