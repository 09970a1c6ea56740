//! An attempt to prove a password, counted before it is made.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::domain::caller::Caller;
use crate::domain::guard::Held;
use crate::domain::password::PasswordHash;
use crate::domain::user::Account;
use crate::error::{Error, Result};
use crate::store;

use super::super::{Operations, password_of};
use super::Standing;
use super::plan::Plan;

/// An attempt that counts among those in flight until it has its verdict.
///
/// Dropped before that, it refunds itself: a caller that leaves, a busy hasher and a database that is away have guessed
/// nothing. One whose process dies counts until its window has passed.
pub(in super::super) struct Reservation {
    pub(super) plan: Plan,
    /// Where it is counted.
    pub(super) held: Vec<Held>,
    /// Failures in a row when it was reserved.
    pub(super) failures: i64,
    pub(super) standing: Standing,
    /// What refunds it, until it has its verdict.
    pub(super) open: Option<(Operations, Caller)>,
}

impl Reservation {
    /// Returns true if the user whose password it is has another hash by `now` than the one that was `checked`.
    pub(in super::super) fn finds_another_hash(
        &self,
        now: Option<&Account>,
        checked: Option<&PasswordHash>,
    ) -> bool {
        let user = self.plan.user.as_ref();
        let same_user = user.is_some() && user == now.map(|account| &account.user.id);
        same_user && password_of(now) != checked
    }

    /// Returns true if a password that is `right` proves anything. Asked after the check, which takes as long as any.
    pub(in super::super) fn may_prove(&self, right: bool) -> bool {
        right && !self.standing.account_spent && self.counts()
    }

    /// Returns true if a wrong password counts. Beyond the limit of an address or a caller nothing is proven to strangers,
    /// and so nothing is guessed.
    pub(super) fn counts(&self) -> bool {
        self.plan.known || self.standing.shared_wait.is_none()
    }

    /// What a caller is told whose attempt ended in `verdict`. Where the limit of the address is spent a wrong password gets the
    /// same answer from a known user as from strangers: it must not tell who signed in from there before.
    pub(super) fn answer(&self, verdict: Error) -> Error {
        match (verdict, self.standing.shared_wait) {
            (Error::BadCredentials, Some(retry_after)) => Error::TooManyAttempts { retry_after },
            (verdict, _) => verdict,
        }
    }

    /// Refunds an attempt that reached no verdict, so that the next one does not meet it. Where that takes long it goes on
    /// by itself.
    pub(in super::super) async fn abandon(mut self) {
        if let Some(refund) = self.refund() {
            let _ = tokio::time::timeout(PATIENCE, refund).await;
        }
    }

    /// Begins the refund, in a task of its own.
    fn refund(&mut self) -> Option<JoinHandle<()>> {
        let (ops, caller) = self.open.take()?;
        // Without a runtime the service ends, and the window passes.
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let held = std::mem::take(&mut self.held);
        Some(runtime.spawn(async move { ops.refund_abandoned(&caller.detached(), &held).await }))
    }

    /// Its verdict is stored.
    pub(in super::super) fn settle(&mut self) {
        self.open = None;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some((ops, caller)) = &self.open else { return };
        if let Some(attempts) = ops.notices.abandoned.count() {
            let (namespace, caller) = (caller.namespace.as_str(), &*caller.name);
            tracing::warn!(attempts, namespace, caller, "callers leave before their password is checked");
        }
        self.refund();
    }
}

/// How long a call waits for its refund.
const PATIENCE: Duration = Duration::from_millis(500);

/// When a refund is tried again. Later than that the window has passed soon.
const RETRIES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

impl Operations {
    /// Gives an attempt back that led to nothing. Failures in a row stay: it was not shown to be right.
    async fn refund_abandoned(&self, caller: &Caller, held: &[Held]) {
        let mut done = self.refund(caller, held).await;
        for pause in RETRIES {
            if !matches!(done, Err(Error::DatabaseUnavailable(_))) {
                break;
            }
            tokio::time::sleep(pause).await;
            done = self.refund(caller, held).await;
        }
        if let Err(error) = done
            && let Some(attempts) = self.notices.lost.count()
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                attempts,
                error,
                "attempts without a verdict could not be given back; they count for some minutes"
            );
        }
    }

    async fn refund(&self, caller: &Caller, held: &[Held]) -> Result<()> {
        let tx = self.store.begin(caller).await?;
        store::attempts::refund(&tx, &caller.namespace, held, None).await?;
        tx.commit().await
    }
}

/// What may happen often and is logged at most once a minute.
pub(in super::super) struct Notices {
    abandoned: Notice,
    lost: Notice,
}

impl Default for Notices {
    fn default() -> Self {
        // Some callers always leave: that is no news.
        Self { abandoned: Notice::after(20), lost: Notice::after(1) }
    }
}

struct Notice {
    least: u64,
    state: Mutex<(u64, Option<Instant>)>,
}

impl Notice {
    const EVERY: Duration = Duration::from_mins(1);

    /// Worth a line when it happened `least` times.
    fn after(least: u64) -> Self {
        Self { least, state: Mutex::default() }
    }

    /// Counts one more. Returns how many there were since the last line, if one is due.
    fn count(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, last) = &mut *state;
        *count += 1;
        if *count < self.least || last.is_some_and(|last| last.elapsed() < Self::EVERY) {
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
        let past = Instant::now().checked_sub(Notice::EVERY).unwrap();
        notice.state.lock().unwrap().1 = Some(past);
        assert_eq!(notice.count(), Some(98), "with those that had no line");
    }
}
