//! The guard before every password: counts attempts before they are made, makes those wait who fail, and lets nobody
//! tell users who exist from users who do not.
//!
//! An attempt is reserved, then its password is checked, then it is settled: refunded where it was right or reached no
//! verdict, a failure where it was wrong.

mod plan;
mod reservation;

use std::time::Duration;

use crate::domain::caller::Caller;
use crate::domain::email::Email;
use crate::domain::event::{Action, Event};
use crate::domain::guard::{Count, Headroom, Limits, Mark, Period, RETRY_PENDING};
use crate::domain::password::PasswordHash;
use crate::domain::session::Device;
use crate::domain::time::Timestamp;
use crate::domain::user::{Account, User};
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::{Error, Result};
use crate::store;
use crate::store::attempts::Failure;

use super::Operations;

pub(super) use plan::Origin;
pub(super) use reservation::{Notices, Reservation};

use plan::Plan;

/// What somebody calls a user who proves a password: the canonical form of each name, so that spelling it otherwise is
/// no new start.
#[derive(Clone, Debug)]
pub(super) struct Alias(Vec<String>);

impl Alias {
    /// By a username, an address, or both.
    pub(super) fn by_names(username: Option<&str>, email: Option<&str>) -> Self {
        let text = |name: Option<&str>| name.unwrap_or_default().to_owned();
        Self(vec![text(username), text(email)])
    }

    pub(super) fn by_id(id: &UserId) -> Self {
        Self(vec![id.as_str().to_owned()])
    }

    fn parts(&self) -> Vec<&[u8]> {
        self.0.iter().map(String::as_bytes).collect()
    }
}

/// What an attempt that may be made can lead to.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// The account's failures are spent, under several names. No password is right then: saying so would tell that two names
    /// are one user's.
    account_spent: bool,
    /// How long what strangers share is spent: no password of a stranger is right then.
    shared_wait: Option<Duration>,
}

impl Operations {
    /// Counts an attempt before it is made, so that no number of them at the same time gets past a limit.
    ///
    /// The same statements, rows and answers for a user who exists and one who does not. What is refused counts nothing.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyAttempts`]
    ///
    /// # Cancel safety
    ///
    /// The attempt is counted in a task of its own. If nobody waits for that any more it is refunded there.
    pub(super) async fn reserve(
        &self,
        caller: &Caller,
        alias: &Alias,
        account: Option<&Account>,
        origin: Origin<'_>,
    ) -> Result<Reservation> {
        let user = account.map(|account| &account.user.id);
        let db = self.store.read(caller).await?;
        let plan = self.plan(&db, caller, alias, user, origin).await?;
        let now = self.clock.now();
        let preview =
            store::attempts::preview(&db, &caller.namespace, &plan.marks(), Period::at(now)).await?;
        drop(db);
        // A caller that is locked out is told so by a read: writes are few, and those who fail least should have them.
        let standing = self.check_limits(&preview, &plan, now)?;
        let (ops, caller) = (self.clone(), caller.clone());
        let reserving = tokio::spawn(async move { ops.reserve_now(caller, plan, standing, now).await });
        reserving.await.map_err(Error::internal)?
    }

    /// Counts an attempt among those in flight, unless a limit refuses it.
    async fn reserve_now(
        self,
        caller: Caller,
        mut plan: Plan,
        foreseen: Standing,
        now: Timestamp,
    ) -> Result<Reservation> {
        if plan.known || foreseen.shared_wait.is_some() {
            plan.shared.clear();
        }
        let namespace = &caller.namespace;
        let tx = self.store.begin(&caller).await?; // any `?` from here to commit counts nothing
        let reserved = store::attempts::reserve(&tx, namespace, &plan.counters(), Period::at(now)).await?;
        let (counts, held): (Vec<_>, Vec<_>) = reserved.into_iter().unzip();
        let mut standing = self.check_limits(&counts, &plan, now)?;
        // It cannot succeed, so it takes nothing of what is left for the places that the user knows, or of the address.
        let spent = |mark: Mark| match mark {
            mark if mark == plan.streak => false,
            mark if mark == plan.account => standing.account_spent,
            _ => standing.shared_wait.is_some(),
        };
        let (unused, held): (Vec<_>, Vec<_>) = held.into_iter().partition(|held| spent(held.counter.mark));
        store::attempts::refund(&tx, namespace, &unused, None).await?;
        tx.commit().await?;
        standing.shared_wait = standing.shared_wait.or(foreseen.shared_wait);
        let failures = counts.first().map_or(0, |count| count.streak);
        Ok(Reservation { plan, held, failures, standing, open: Some((self, caller)) })
    }

    /// Compares the counts of a plan, this attempt among those in flight, with the limits.
    fn check_limits(&self, counts: &[Count], plan: &Plan, now: Timestamp) -> Result<Standing> {
        let [streak, account, shared @ ..] = counts else {
            return Err(Error::internal("an attempt was not counted"));
        };
        let (limits, too_many) = (&self.rules.guard, |retry_after| Error::TooManyAttempts { retry_after });
        let wait = limits.wait(streak, now);
        if !wait.is_zero() {
            return Err(too_many(wait));
        }
        let most = self.account_limit(plan.known);
        let own = Limits::headroom(streak, most, now);
        let account = Limits::headroom(account, most, now);
        let mut refused = vec![own];
        let mut standing = Standing::default();
        match account {
            Headroom::Exhausted(_) if !plan.known => standing.account_spent = true,
            other => refused.push(other),
        }
        for (count, (_, limit)) in shared.iter().zip(&plan.shared) {
            match Limits::headroom(count, *limit, now) {
                Headroom::Exhausted(wait) => standing.shared_wait = standing.shared_wait.max(Some(wait)),
                Headroom::Pending if !plan.known => refused.push(Headroom::Pending),
                _ => {}
            }
        }
        let crowded = limits.is_crowded(streak, now);
        let wait = refused.into_iter().filter_map(wait_of).chain(crowded.then_some(RETRY_PENDING)).max();
        wait.map_or(Ok(standing), |wait| Err(too_many(wait)))
    }

    /// What the failures of an account are limited to, for those who are known and for strangers.
    fn account_limit(&self, known: bool) -> u32 {
        let limits = &self.rules.guard;
        if known { limits.account } else { limits.strangers() }
    }

    /// What a password is checked against where there is none that could be right: that of a user drawn by what the user
    /// is called, so that it takes as long as those that are stored, and each time as long.
    pub(super) async fn decoy(&self, caller: &Caller, alias: &Alias) -> Result<Option<PasswordHash>> {
        let lot = self.marker.lot(&alias.parts());
        store::users::password_by_chance(&self.store.read(caller).await?, &caller.namespace, lot).await
    }

    /// Stores a refusal and that the attempt failed, and returns what the caller is told: the same rows whether the user is
    /// known or not. The right password of a blocked user is no failure.
    ///
    /// Written in a task of its own: a caller that leaves at the verdict changes nothing.
    pub(super) async fn refuse(
        &self,
        caller: &Caller,
        action: Action,
        reservation: Reservation,
        device: Device,
        verdict: Error,
    ) -> Error {
        let right = matches!(verdict, Error::UserBlocked);
        let answer = reservation.answer(verdict);
        let (ops, caller) = (self.clone(), caller.detached());
        let write = async move { ops.write_refusal(&caller, action, reservation, device, right).await };
        match tokio::spawn(write).await {
            Ok(Ok(())) => answer,
            // Not told what it is, the caller has guessed nothing, and the attempt is refunded.
            Ok(Err(error)) => error,
            Err(error) => Error::internal(error),
        }
    }

    async fn write_refusal(
        &self,
        caller: &Caller,
        action: Action,
        mut reservation: Reservation,
        device: Device,
        right: bool,
    ) -> Result<()> {
        let now = self.clock.now();
        let event = |action| Event::new(now, action, reservation.plan.user.clone()).from(device.clone());
        let tx = self.store.begin(caller).await?;
        store::events::append(&tx, caller, &event(action)).await?;
        if right || !reservation.counts() {
            let streak = right.then_some(&reservation.plan.streak);
            store::attempts::refund(&tx, &caller.namespace, &reservation.held, streak).await?;
        } else if self.count_failure(&tx, caller, &reservation, now).await? {
            store::events::append(&tx, caller, &event(Action::LockedOut)).await?;
        }
        tx.commit().await?;
        reservation.settle();
        Ok(())
    }

    /// Counts a failure. Returns true if the account is locked from now on.
    async fn count_failure(
        &self,
        tx: &store::Transaction,
        caller: &Caller,
        reservation: &Reservation,
        now: Timestamp,
    ) -> Result<bool> {
        let limits = &self.rules.guard;
        let failure = Failure { streak: &reservation.plan.streak, now, stale: limits.forgotten_before(now) };
        let counts = store::attempts::fail(tx, &caller.namespace, &reservation.held, failure).await?;
        let streak = counts.get(&reservation.plan.streak).copied().unwrap_or(Count::NONE);
        let (account, most) =
            (counts.get(&reservation.plan.account), self.account_limit(reservation.plan.known));
        Ok(limits.begins_lockout(&streak, reservation.failures, account, most, now))
    }

    /// Refunds a right attempt, in the transaction of what it was for, and remembers from where it came.
    pub(super) async fn refund_proven(
        &self,
        tx: &store::Transaction,
        caller: &Caller,
        reservation: &Reservation,
    ) -> Result<()> {
        let namespace = &caller.namespace;
        store::attempts::refund(tx, namespace, &reservation.held, Some(&reservation.plan.streak)).await?;
        if let Plan { user: Some(user), address: Some(address), address_known, .. } = &reservation.plan {
            store::addresses::make_familiar(tx, namespace, user, address, self.clock.now()).await?;
            if !address_known {
                store::addresses::forget_oldest_places(tx, namespace, user).await?;
            }
        }
        Ok(())
    }

    /// Forgets the failures of a user, under each of the user's names.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`]
    pub async fn unlock(&self, caller: &Caller, id: &UserId) -> Result<User> {
        let namespace = &caller.namespace;
        let event = Event::new(self.clock.now(), Action::UserUnlocked, Some(id.clone()));
        let tx = self.store.begin(caller).await?;
        let user = store::users::lock(&tx, namespace, id).await?.ok_or(Error::UserNotFound)?.user;
        let account = self.account_mark(&Alias::by_id(id), Some(id));
        // Under names that were tried before they were the user's there is no account yet.
        let names: Vec<Mark> =
            names_of(&user).iter().map(|alias| self.marker.mark("name", &alias.parts())).collect();
        store::attempts::forget(&tx, namespace, &account, &names).await?;
        store::events::append(&tx, caller, &event).await?;
        tx.commit().await?;
        Ok(user)
    }
}

/// How long an attempt has to wait for room; `None`: there is some.
fn wait_of(room: Headroom) -> Option<Duration> {
    match room {
        Headroom::Available => None,
        Headroom::Pending => Some(RETRY_PENDING),
        Headroom::Exhausted(wait) => Some(wait),
    }
}

/// Everything a user can be called.
fn names_of(user: &User) -> Vec<Alias> {
    let username = user.username.as_ref().map(Username::as_str);
    let email = user.email.as_ref().map(Email::as_str);
    let names = [(username, None), (None, email), (username, email)];
    let mut aliases = vec![Alias::by_id(&user.id)];
    aliases.extend(names.map(|(username, email)| Alias::by_names(username, email)));
    aliases
}
