//! Verification of a password, for every RPC that asks for one.

use crate::domain::caller::Caller;
use crate::domain::event::Action;
use crate::domain::password::{Password, PasswordHash};
use crate::domain::session::{Device, SessionToken};
use crate::domain::user::{Account, Status, User};
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};
use crate::hasher::HashPermit;
use crate::store;
use crate::throttle::{AttemptReservation, LoginIdentifier, Origin};

use super::Operations;

/// A password to be verified.
pub(super) struct PasswordAttempt<'a> {
    /// The user's names, as they were typed.
    pub(super) identifier: LoginIdentifier,
    pub(super) password: &'a Password,
    /// The end user's device, as far as the caller says.
    pub(super) device: &'a Device,
    /// A session that the end user holds.
    pub(super) session: Option<&'a SessionToken>,
    /// The event of a refusal.
    pub(super) refusal: Action,
}

/// A verified password, and the hash that it was checked against.
#[derive(Clone, Copy)]
pub(super) struct Verified<'a> {
    pub(super) user: &'a User,
    pub(super) hash: &'a PasswordHash,
}

/// The operation that a password is verified for: a log-in, or a new password.
pub(super) trait PasswordAction: Sync {
    type Output: Send;

    fn password_attempt(&self) -> PasswordAttempt<'_>;

    /// The user whose password it is.
    fn find(&self, ops: &Operations, caller: &Caller)
    -> impl Future<Output = Result<Option<Account>>> + Send;

    /// Runs the operation after the right password. Its transaction begins with [`recheck_credentials`] and
    /// ends with [`AttemptReservation::succeed`].
    fn act(
        &self,
        ops: &Operations,
        caller: &Caller,
        attempt: &mut AttemptReservation,
        verified: Verified<'_>,
    ) -> impl Future<Output = Result<Self::Output>> + Send;
}

impl Operations {
    /// Verifies a password within the limits of guessing, and does what it was given for.
    ///
    /// # Errors
    ///
    /// [`Error::BadCredentials`] for an unknown user as for a wrong password, [`Error::UserBlocked`] after
    /// the right one only, [`Error::HasherBusy`], [`Error::TooManyAttempts`], and those of the action.
    ///
    /// # Cancel safety
    ///
    /// Dropped before a verdict, the attempt is refunded. A verdict that is being stored is stored to the
    /// end.
    pub(super) async fn with_verified_password<A: PasswordAction>(
        &self,
        caller: &Caller,
        action: &A,
    ) -> Result<A::Output> {
        let permit = self.reserve_hash(caller)?;
        let account = action.find(self, caller).await?;
        let user = account.as_ref().map(|account| &account.user.id);
        let PasswordAttempt { identifier, device, session, refusal, .. } = action.password_attempt();
        let session = self.own_session(caller, user, session).await?;
        let origin = Origin { ip: caller.end_user_address(device), session: session.as_deref() };
        let mut attempt = self.throttle.reserve(caller, &identifier, user, origin).await?;
        let done = self.verify_and_act(caller, action, permit, account, &mut attempt).await;
        with_verdict(attempt, done, refusal, device).await
    }

    /// If the hash was replaced while it was checked, as a log-in does with an outdated one, the password is
    /// verified once more: it may still be right.
    async fn verify_and_act<A: PasswordAction>(
        &self,
        caller: &Caller,
        action: &A,
        mut permit: HashPermit,
        mut account: Option<Account>,
        attempt: &mut AttemptReservation,
    ) -> Result<A::Output> {
        let PasswordAttempt { identifier, password, .. } = action.password_attempt();
        let dummy = self.throttle.dummy_hash(caller, &identifier).await?;
        for is_last in [false, true] {
            let hash = login_hash(account.as_ref());
            let matches = permit.verify(password, hash, dummy.as_ref()).await?;
            let (true, Some(Account { user, .. }), Some(hash)) = (attempt.accepts(matches), &account, hash)
            else {
                break;
            };
            let done = action.act(self, caller, attempt, Verified { user, hash }).await;
            if is_last || !matches!(done, Err(Error::BadCredentials)) {
                return done;
            }
            let now = action.find(self, caller).await?.filter(|now| now.user.id == user.id);
            if now.is_none() || login_hash(now.as_ref()) == Some(hash) {
                return done;
            }
            (account, permit) = (now, self.reserve_hash(caller)?);
        }
        Err(Error::BadCredentials)
    }

    /// The public id of the session that `token` opens, if it is open and the user's.
    pub(super) async fn own_session(
        &self,
        caller: &Caller,
        user: Option<&UserId>,
        token: Option<&SessionToken>,
    ) -> Result<Option<String>> {
        let Some(token) = token else { return Ok(None) };
        let db = self.store.read(caller).await?;
        let session = store::sessions::find(&db, &caller.namespace, token.digest()).await?;
        let own = session.filter(|session| self.is_open(session) && Some(&session.user) == user);
        Ok(own.map(|session| session.public_id))
    }
}

/// Stores the verdict on an attempt that did not succeed, and returns the answer for the caller.
pub(super) async fn with_verdict<T>(
    attempt: AttemptReservation,
    done: Result<T>,
    refusal: Action,
    device: &Device,
) -> Result<T> {
    match done {
        Err(verdict @ (Error::BadCredentials | Error::BadFactorCode | Error::UserBlocked)) => {
            Err(attempt.fail(refusal, device.clone(), verdict).await)
        }
        Err(error) => {
            attempt.release().await; // no verdict, or the password or code was right and something else was wrong
            Err(error)
        }
        done => done,
    }
}

/// The hash that may sign in `account`: none if the user has none or must sign in elsewhere.
fn login_hash(account: Option<&Account>) -> Option<&PasswordHash> {
    account.filter(|account| !account.user.sso_enabled).and_then(|account| account.password.as_ref())
}

/// The user, if the hash that was verified before this transaction is still the one that counts.
/// Anything else fails like a wrong password.
pub(super) fn recheck_credentials(account: Option<Account>, verified: &PasswordHash) -> Result<User> {
    let account = account.ok_or(Error::BadCredentials)?;
    if login_hash(Some(&account)) != Some(verified) {
        return Err(Error::BadCredentials);
    }
    match account.user.status {
        Status::Blocked => Err(Error::UserBlocked),
        Status::Pending | Status::Active => Ok(account.user),
    }
}
