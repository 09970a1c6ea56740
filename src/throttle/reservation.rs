//! An attempt to prove a password, counted before it is made.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::domain::caller::Caller;
use crate::domain::event::{Action, Event};
use crate::domain::session::Device;
use crate::domain::time::Timestamp;
use crate::error::tally::LogLimiter;
use crate::error::{Error, Result};
use crate::store::{self, Transaction};
use crate::telemetry;

use super::buckets::Buckets;
use super::counts::{self, Failure, Reserved};
use super::limits::{Count, Exhausted};
use super::stats::Decision;
use super::{Throttle, known_ips};

/// A pending attempt. Its verdict is stored by [`succeed`](Self::succeed) or [`fail`](Self::fail).
///
/// Dropped before that, it is refunded: if the caller leaves, the hasher is busy or the database is away, no
/// password was guessed. If the process dies, the attempt counts until its window has passed.
pub(crate) struct AttemptReservation {
    pub(super) throttle: Throttle,
    pub(super) caller: Caller,
    pub(super) buckets: Buckets,
    /// The buckets that count it.
    pub(super) reserved: Vec<Reserved>,
    /// Failures in a row when it was reserved.
    pub(super) streak: i64,
    pub(super) exhausted: Exhausted,
    pub(super) refund_on_drop: bool,
}

impl AttemptReservation {
    /// Returns true if a password that is `right` proves anything. To be asked after the check, which takes
    /// as long as any.
    pub(crate) fn accepts(&self, right: bool) -> bool {
        right && !self.exhausted.account && self.counts()
    }

    /// Returns true if a wrong password counts. Beyond the limit of an address or a caller nothing is proven
    /// to unknown origins, and so nothing is guessed.
    fn counts(&self) -> bool {
        self.buckets.is_known || self.exhausted.shared.is_none()
    }

    /// Stores the success and commits `tx`, the changes that the password was proven for. The streak ends,
    /// and the address becomes a known IP, unless the user has a second factor and gave the password alone.
    ///
    /// # Errors
    ///
    /// Those of the database. The attempt is pending again.
    ///
    /// # Cancel safety
    ///
    /// A COMMIT that has begun is carried to its end without the caller, and refunds the attempt: dropping it
    /// must not do so once more, and take another attempt's count. If that COMMIT fails, the attempt counts
    /// until its window has passed.
    pub(crate) async fn succeed(&mut self, tx: Transaction) -> Result<()> {
        let (namespace, buckets) = (&self.caller.namespace, &self.buckets);
        counts::refund(&tx, namespace, &self.reserved, Some(&buckets.streak)).await?;
        if let Buckets { user: Some(user), ip: Some(ip), is_known_ip, .. } = buckets {
            let (by_second_factor, now) = (buckets.is_second_factor, self.throttle.clock.now());
            known_ips::remember_ip(&tx, namespace, user, ip, by_second_factor, now).await?;
            if !is_known_ip {
                known_ips::forget_oldest_ips(&tx, namespace, user).await?;
            }
        }
        self.refund_on_drop = false;
        let committed = tx.commit().await;
        self.refund_on_drop = committed.is_err();
        if committed.is_ok() {
            self.throttle.stats.note(Decision::Succeeded);
        }
        committed
    }

    /// Stores a refusal and the failure, and returns the error for the caller: the same rows whether the user
    /// exists or not. The right password of a blocked user is no failure.
    ///
    /// Written in a task of its own: a caller that leaves at the verdict changes nothing.
    pub(crate) async fn fail(self, action: Action, device: Device, verdict: Error) -> Error {
        let right = matches!(verdict, Error::UserBlocked);
        let answer = match (verdict, self.exhausted.shared) {
            // A known origin gets the answer of unknown ones: it must not tell who signed in from an address
            // before.
            (Error::BadCredentials | Error::BadFactorCode, Some(retry_after)) => {
                Error::TooManyAttempts { retry_after }
            }
            (verdict, _) => verdict,
        };
        match telemetry::spawn(self.store_failure(action, device, right)).await {
            Ok(Ok(())) => answer,
            // Without the answer the caller has guessed nothing, and the attempt is refunded.
            Ok(Err(error)) => error,
            Err(error) => Error::internal(error),
        }
    }

    async fn store_failure(mut self, action: Action, device: Device, right: bool) -> Result<()> {
        let (now, caller) = (self.throttle.clock.now(), self.caller.detached());
        let event = |action| Event::new(now, action, self.buckets.user.clone()).from(device.clone());
        let tx = self.throttle.store.begin(&caller).await?;
        store::events::append(&tx, &caller, &event(action)).await?;
        let mut locks_out = false;
        if right || !self.counts() {
            let streak = right.then_some(&self.buckets.streak);
            counts::refund(&tx, &caller.namespace, &self.reserved, streak).await?;
        } else if self.record_failure(&tx, now).await? {
            locks_out = true;
            store::events::append(&tx, &caller, &event(Action::LockedOut)).await?;
        }
        tx.commit().await?;
        self.refund_on_drop = false;
        self.throttle.stats.note(if right { Decision::Succeeded } else { Decision::Failed });
        if locks_out {
            self.throttle.stats.note(Decision::LockedOut);
            if let Some(lockouts) = LOCKED_OUT.count() {
                let namespace = caller.namespace.as_str();
                tracing::info!(lockouts, namespace, "too many wrong passwords: users are locked out");
            }
        }
        Ok(())
    }

    /// Counts a failure. Returns true if a lockout begins with it.
    async fn record_failure(&self, tx: &Transaction, now: Timestamp) -> Result<bool> {
        let (limits, buckets) = (&self.throttle.limits, &self.buckets);
        let forgotten_before = limits.forgotten_before(now);
        let failure = Failure { streak: buckets.streak, now, forgotten_before };
        let counts = counts::record_failure(tx, &self.caller.namespace, &self.reserved, failure).await?;
        let streak = counts.get(&buckets.streak).copied().unwrap_or(Count::NONE);
        let (account, limit) = (counts.get(&buckets.account), limits.account_limit(buckets.is_known));
        Ok(limits.begins_lockout(&streak, self.streak, account, limit, now))
    }

    /// Refunds an attempt that has no verdict, so that the next one is not counted beside it. If that takes
    /// long it goes on by itself.
    pub(crate) async fn release(mut self) {
        if let Some(refund) = self.start_refund() {
            let _ = tokio::time::timeout(MAX_REFUND_WAIT, refund).await;
        }
    }

    /// Begins the refund, in a task of its own, if there has been no verdict.
    fn start_refund(&mut self) -> Option<JoinHandle<()>> {
        if !std::mem::take(&mut self.refund_on_drop) {
            return None;
        }
        // Without a runtime the service ends, and the window passes.
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        self.throttle.stats.note(Decision::Refunded);
        let (throttle, reserved) = (self.throttle.clone(), std::mem::take(&mut self.reserved));
        let caller = self.caller.detached();
        Some(runtime.spawn(async move { throttle.refund(&caller, &reserved).await }))
    }
}

impl Drop for AttemptReservation {
    fn drop(&mut self) {
        if !self.refund_on_drop {
            return;
        }
        if let Some(attempts) = DROPPED.count() {
            let (namespace, caller) = (self.caller.namespace.as_str(), &*self.caller.name);
            tracing::warn!(
                attempts,
                namespace,
                caller,
                "callers cancelled before their password was checked"
            );
        }
        self.start_refund();
    }
}

/// Limits the log line about attempts that were dropped without a verdict. Some callers always leave: that is
/// no news.
static DROPPED: LogLimiter = LogLimiter::after(20);

/// Limits the log line about lockouts that begin.
static LOCKED_OUT: LogLimiter = LogLimiter::after(1);

/// Limits the log line about refunds that failed.
static NOT_REFUNDED: LogLimiter = LogLimiter::after(1);

/// The longest time that a call waits for its refund.
const MAX_REFUND_WAIT: Duration = Duration::from_millis(500);

/// The pauses before a refund is tried again. After the last one the window has soon passed.
const REFUND_BACKOFF: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// Makes a refund, once more after every error that left it undone, such as that of a statement that PostgreSQL cancelled.
/// After a COMMIT with an unknown outcome it may be done, and would take another attempt's count.
pub(super) async fn repeat_refund<F: Future<Output = Result<()>>>(refund: impl Fn() -> F) -> Result<()> {
    let mut done = refund().await;
    for pause in REFUND_BACKOFF {
        if matches!(done, Ok(()) | Err(Error::OutcomeUnknown(_))) {
            break;
        }
        tokio::time::sleep(pause).await;
        done = refund().await;
    }
    done
}

impl Throttle {
    /// Refunds an attempt without a verdict. The streak stays: the password was not shown to be right.
    async fn refund(&self, caller: &Caller, reserved: &[Reserved]) {
        if let Err(error) = repeat_refund(|| self.try_refund(caller, reserved)).await
            && let Some(attempts) = NOT_REFUNDED.count()
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                attempts,
                error,
                "pending attempts could not be refunded; they count for two to four minutes"
            );
        }
    }

    async fn try_refund(&self, caller: &Caller, reserved: &[Reserved]) -> Result<()> {
        let tx = self.store.begin(caller).await?;
        counts::refund(&tx, &caller.namespace, reserved, None).await?;
        tx.commit().await
    }
}
