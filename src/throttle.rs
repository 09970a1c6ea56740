//! Protection against guessing passwords. Counts are in the database, so all replicas share them.
//!
//! ```text
//! Throttle::reserve ──► AttemptReservation ──► verify the password ──┬─► succeed   refunded in the caller's transaction
//!   │ TooManyAttempts      │ dropped without a verdict                ├─► fail      counted, with its event
//!   ▼                      ▼                                          └─► release   no verdict: refunded
//! nothing is counted     refunded
//! ```
//!
//! * An *attempt* is one try to prove a password. It is counted before the hash is computed: any number of
//!   attempts at the same time stay within a limit.
//! * A *bucket* is a row of counts, found by its `BucketKey`, a keyed digest. An attempt counts in up to
//!   four: those of the name that was used, of the account, of the end user's IP address and of the calling
//!   program.
//! * A *pending* attempt has no verdict yet. A *streak* is a run of failures without a success.
//! * A *known IP* is one that the user signed in from before. Failures of others do not lock the user out
//!   there.
//!
//! Users who exist and users who do not take the same statements, rows, time and answers.

mod buckets;
mod codes;
mod counts;
mod digits;
mod known_ips;
mod limits;
mod reservation;
mod stats;

use std::time::Duration;

use sea_orm::ConnectionTrait;

use crate::clock::Clock;
use crate::config::ThrottleLimits;
use crate::domain::caller::Caller;
use crate::domain::password::PasswordHash;
use crate::domain::time::Timestamp;
use crate::domain::user::User;
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};
use crate::store::{self, Store};
use crate::telemetry;

pub use limits::rest_of_hour;

pub(crate) use buckets::{LoginIdentifier, Origin};
pub(crate) use digits::DigitsReservation;
pub(crate) use reservation::AttemptReservation;

use buckets::{BucketKey, BucketKeyer, Buckets};
use counts::{Attempt, Outdated};
use limits::{Count, Exhausted, Headroom, Period, hour};
use stats::{Decision, Stats};

/// Limits how often passwords may be tried.
#[derive(Clone)]
pub(crate) struct Throttle {
    store: Store,
    clock: Clock,
    limits: ThrottleLimits,
    keyer: BucketKeyer,
    stats: Stats,
}

impl Throttle {
    /// The limits over a migrated database, which keeps the key of the buckets.
    pub(crate) async fn new(store: Store, clock: Clock, limits: ThrottleLimits) -> Result<Self> {
        let keyer = BucketKeyer::from_trusted(store::secrets::bucket_key(store.reader()).await?);
        Ok(Self { store, clock, limits, keyer, stats: Stats::default() })
    }

    /// Counts an attempt before it is made. One that is refused counts nothing.
    ///
    /// # Cancel safety
    ///
    /// The attempt is counted in a task of its own, which refunds it if the caller has left by then.
    pub(crate) async fn reserve(
        &self,
        caller: &Caller,
        identifier: &LoginIdentifier,
        user: Option<&UserId>,
        origin: Origin<'_>,
    ) -> Result<AttemptReservation> {
        let reserved = self.reserve_unless_limited(caller, identifier, user, origin).await;
        match &reserved {
            Ok(_) => self.stats.note(Decision::Admitted),
            Err(Error::TooManyAttempts { .. }) => self.stats.note(Decision::Refused),
            Err(_) => {}
        }
        reserved
    }

    async fn reserve_unless_limited(
        &self,
        caller: &Caller,
        identifier: &LoginIdentifier,
        user: Option<&UserId>,
        origin: Origin<'_>,
    ) -> Result<AttemptReservation> {
        let db = self.store.read(caller).await?;
        let buckets = self.buckets(&db, caller, identifier, user, origin).await?;
        let now = self.clock.now();
        let preview = counts::preview(&db, &caller.namespace, &buckets.keys(), Period::at(now)).await?;
        drop(db);
        // A caller that is locked out learns it from a read: writes are scarce, and those who fail least
        // should have them.
        let exhausted = self.check_limits(&preview, &buckets, now)?;
        let reserving = self.clone().reserve_now(caller.clone(), buckets, exhausted.shared, now);
        telemetry::spawn(reserving).await.map_err(Error::internal)?
    }

    /// Counts an attempt among the pending ones, unless a limit refuses it. `shared` is what the preview
    /// said.
    async fn reserve_now(
        self,
        caller: Caller,
        mut buckets: Buckets,
        shared: Option<Duration>,
        now: Timestamp,
    ) -> Result<AttemptReservation> {
        if buckets.is_known || shared.is_some() {
            buckets.shared.clear();
        }
        let namespace = &caller.namespace;
        let tx = self.store.begin(&caller).await?; // any `?` from here to commit counts nothing
        let reserved =
            counts::reserve(&tx, namespace, &buckets.all(), Period::at(now), Attempt::Pending).await?;
        let (counts, reserved): (Vec<_>, Vec<_>) = reserved.into_iter().unzip();
        let mut exhausted = self.check_limits(&counts, &buckets, now)?;
        // An attempt that cannot succeed uses up neither what is left for known IPs nor what is left for the
        // address.
        let is_useless = |key: BucketKey| match key {
            key if key == buckets.streak => false,
            key if key == buckets.account => exhausted.account,
            _ => exhausted.shared.is_some(),
        };
        let (useless, reserved): (Vec<_>, Vec<_>) =
            reserved.into_iter().partition(|reserved| is_useless(reserved.bucket.key));
        counts::refund(&tx, namespace, &useless, None).await?;
        tx.commit().await?;
        exhausted.shared = exhausted.shared.or(shared);
        let streak = counts.first().map_or(0, |count| count.streak);
        let refund_on_drop = true;
        Ok(AttemptReservation {
            throttle: self,
            caller,
            buckets,
            reserved,
            streak,
            exhausted,
            refund_on_drop,
        })
    }

    /// Compares counts, this attempt among the pending ones, with the limits.
    fn check_limits(&self, counts: &[Count], buckets: &Buckets, now: Timestamp) -> Result<Exhausted> {
        let [streak, account, shared @ ..] = counts else {
            return Err(Error::internal("an attempt was not counted"));
        };
        let too_many = |retry_after| Err(Error::TooManyAttempts { retry_after });
        let wait = self.limits.remaining_wait(streak, now);
        if !wait.is_zero() {
            return too_many(wait);
        }
        let (known, limit) = (buckets.is_known, self.limits.account_limit(buckets.is_known));
        let mut exhausted = Exhausted::default();
        let mut refusals = vec![Headroom::of(streak, limit, now)];
        match Headroom::of(account, limit, now) {
            Headroom::Exhausted(_) if !known => exhausted.account = true,
            other => refusals.push(other),
        }
        for (count, (_, limit)) in shared.iter().zip(&buckets.shared) {
            match Headroom::of(count, *limit, now) {
                Headroom::Exhausted(wait) => exhausted.shared = exhausted.shared.max(Some(wait)),
                Headroom::Pending if !known => refusals.push(Headroom::Pending),
                _ => {}
            }
        }
        if self.limits.is_crowded(streak, now) {
            refusals.push(Headroom::Pending);
        }
        refusals.into_iter().filter_map(Headroom::retry_after).max().map_or(Ok(exhausted), too_many)
    }

    /// A hash to check a password against where the user has none: that of a user drawn by `identifier`, so
    /// that the check takes as long as those of stored hashes, and each time as long.
    pub(crate) async fn dummy_hash(
        &self,
        caller: &Caller,
        identifier: &LoginIdentifier,
    ) -> Result<Option<PasswordHash>> {
        let number = self.keyer.pseudo_random(&identifier.parts());
        store::users::sample_password_hash(&self.store.read(caller).await?, &caller.namespace, number).await
    }

    /// Resets what was counted for a user, under each of the user's names.
    pub(crate) async fn reset(&self, tx: &impl ConnectionTrait, caller: &Caller, user: &User) -> Result<()> {
        let identifiers = LoginIdentifier::all_of(user);
        // Attempts from before the user had a name were counted for the name alone.
        let names: Vec<_> = identifiers.iter().map(|identifier| self.keyer.name(identifier)).collect();
        counts::reset(tx, &caller.namespace, &self.keyer.account(&user.id), &names).await
    }

    /// Removes counts and known IPs that are outdated, at most `limit` of each kind. Returns how many.
    pub(crate) async fn delete_outdated(&self, tx: &impl ConnectionTrait, limit: u64) -> Result<u64> {
        let now = self.clock.now();
        let outdated = Outdated {
            // A streak counts for as long as the longest wait after it.
            before_hour: hour(self.limits.forgotten_before(now)) - 1,
            // Counts of a clock that was ahead start again anyway. If it is this clock that is wrong, it is
            // by less than a day.
            after_hour: hour(now) + 24,
            last_seen: now.minus(self.limits.familiar),
        };
        counts::delete_outdated(tx, outdated, limit).await
    }
}
