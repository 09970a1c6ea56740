//! Changing passwords.

use crate::domain::caller::Caller;
use crate::domain::event::{Action, Event};
use crate::domain::password::{Password, PasswordHash, PasswordInvalid};
use crate::domain::session::{Device, SessionToken};
use crate::domain::user::{Account, User};
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};
use crate::store;
use crate::throttle::{AttemptReservation, LoginIdentifier};

use super::edits::Edit;
use super::users::{Lifecycle, UserRef};
use super::verify::{PasswordAction, PasswordAttempt, Verified, recheck_credentials};
use super::{Operations, check_etag};

/// A change of password by one who knows the old one.
#[derive(Debug)]
pub struct PasswordChange {
    /// Whose.
    pub user: UserId,
    /// The password as it is.
    pub old: Password,
    /// The password to be.
    pub new: Password,
    /// The session that stays open. While it is open, the user is known wherever the change comes from.
    pub keep: Option<SessionToken>,
    /// The end user's device, as far as the caller says.
    pub device: Device,
    /// The user's etag, or nothing.
    pub etag: String,
}

impl PasswordAction for PasswordChange {
    type Output = User;

    fn password_attempt(&self) -> PasswordAttempt<'_> {
        PasswordAttempt {
            identifier: LoginIdentifier::by_id(&self.user),
            password: &self.old,
            device: &self.device,
            session: self.keep.as_ref(),
            refusal: Action::PasswordRefused,
        }
    }

    async fn find(&self, ops: &Operations, caller: &Caller) -> Result<Option<Account>> {
        ops.find(caller, &UserRef::Id(self.user.clone())).await
    }

    async fn act(
        &self,
        ops: &Operations,
        caller: &Caller,
        attempt: &mut AttemptReservation,
        old: Verified<'_>,
    ) -> Result<User> {
        ops.screen("new_password", &self.new, old.user).await?;
        let new = ops.reserve_hash(caller)?.hash(&self.new).await?;
        ops.replace_password(caller, attempt, self, old.hash, &new).await
    }
}

impl Operations {
    /// Replaces the password and ends all sessions but one.
    ///
    /// # Errors
    ///
    /// [`Error::BadCredentials`] for an unknown user as for a wrong password, [`Error::UserBlocked`],
    /// [`Error::EtagMismatch`], [`Error::HasherBusy`], [`Error::TooManyAttempts`], and [`Error::Invalid`] if
    /// the new password holds one of the user's names: returned only to callers who know the old one.
    pub async fn update_password(&self, caller: &Caller, change: PasswordChange) -> Result<User> {
        self.with_verified_password(caller, &change).await
    }

    /// `old` is the hash that was verified; another call may have replaced it since.
    async fn replace_password(
        &self,
        caller: &Caller,
        attempt: &mut AttemptReservation,
        change: &PasswordChange,
        old: &PasswordHash,
        new: &PasswordHash,
    ) -> Result<User> {
        let tx = self.store.begin(caller).await?;
        let account = store::users::lock(&tx, &caller.namespace, &change.user).await?;
        let before = recheck_credentials(account, old)?;
        check_etag(&before, &change.etag)?;
        let mut user = before.clone();
        self.touch(&mut user);
        user.password_updated = Some(user.updated);
        store::users::update(&tx, &caller.namespace, &before, &user, Some(new)).await?;
        let keep = change.keep.as_ref().map(SessionToken::digest);
        store::sessions::delete_of_user(&tx, &caller.namespace, &user.id, keep).await?;
        store::codes::delete_of_user(&tx, &caller.namespace, &user.id).await?;
        let event = Event::new(user.updated, Action::PasswordUpdated, Some(user.id.clone()));
        let event = event.from(change.device.clone());
        store::events::append(&tx, caller, &event.changing(user.version, vec!["password"])).await?;
        attempt.succeed(tx).await?;
        Ok(user)
    }

    /// Replaces the password without the old one, and ends all sessions.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], [`Error::EtagMismatch`], [`Error::HasherBusy`], and [`Error::Invalid`] if the
    /// new password holds one of the user's names.
    pub async fn set_password(
        &self,
        caller: &Caller,
        id: &UserId,
        etag: &str,
        new: &Password,
    ) -> Result<User> {
        let permit = self.reserve_hash(caller)?;
        let user = self.find(caller, &UserRef::Id(id.clone())).await?.ok_or(Error::UserNotFound)?.user;
        // Before the work of a hash; looked at again when the change is made.
        check_etag(&user, etag)?;
        self.screen("new_password", new, &user).await?;
        let hash = permit.hash(new).await?;
        self.change(caller, Lifecycle::Live, id, etag, Action::PasswordSet, |_| {
            Ok(Edit { password: Some(hash), end_sessions: true, ..Edit::of("password") })
        })
        .await
    }

    /// Ends the lockouts of a user: resets the failures and the wrong numeric codes under each of the user's names.
    pub async fn unlock(&self, caller: &Caller, id: &UserId) -> Result<User> {
        let event = Event::new(self.clock.now(), Action::UserUnlocked, Some(id.clone()));
        let tx = self.store.begin(caller).await?;
        let user = store::users::lock(&tx, &caller.namespace, id).await?.ok_or(Error::UserNotFound)?.user;
        self.throttle.reset(&tx, caller, &user).await?;
        self.throttle.reset_digits(&tx, caller, &user, None).await?;
        store::events::append(&tx, caller, &event).await?;
        tx.commit().await?;
        Ok(user)
    }

    /// Refuses a new password that holds one of the user's names, or that the blocklist holds.
    pub(super) async fn screen(&self, field: &str, password: &Password, user: &User) -> Result<()> {
        password
            .screen(self.policy(), user.username.as_ref(), user.email.as_ref())
            .map_err(|why| Error::invalid(field, why.to_string()))?;
        self.check_blocklist(field, password).await
    }

    /// Refuses a new password that the blocklist holds.
    pub(super) async fn check_blocklist(&self, field: &str, password: &Password) -> Result<()> {
        match &self.blocklist {
            Some(list) if list.holds(password).await? => {
                Err(Error::invalid(field, PasswordInvalid::Listed.to_string()))
            }
            _ => Ok(()),
        }
    }
}
