//! Changing passwords.

use crate::domain::caller::Caller;
use crate::domain::event::{Action, Event};
use crate::domain::password::{Password, PasswordHash, PasswordInvalid};
use crate::domain::session::{Device, SessionToken};
use crate::domain::user::{Account, User};
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};
use crate::hasher::HashPermit;
use crate::store;

use super::guard::{Alias, Origin, Reservation};
use super::users::{Edit, Key, Place};
use super::{Operations, check_etag, password_of, still_proven};

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

impl Operations {
    /// Replaces the password and ends all sessions but one.
    ///
    /// # Errors
    ///
    /// [`Error::BadCredentials`] for an unknown user as for a wrong password, [`Error::UserBlocked`],
    /// [`Error::EtagMismatch`], [`Error::HasherBusy`], [`Error::TooManyAttempts`], and [`Error::Invalid`] if the new
    /// password holds one of the user's names: told only to one who knows the old one.
    pub async fn update_password(&self, caller: &Caller, change: PasswordChange) -> Result<User> {
        let turn = self.turn(caller)?;
        let account = self.find(caller, &Key::Id(change.user.clone())).await?;
        let alias = Alias::by_id(&change.user);
        let address = caller.end_user_address(&change.device);
        let origin = Origin { address, session: change.keep.as_ref() };
        let mut reservation = self.reserve(caller, &alias, account.as_ref(), origin).await?;
        let decoy = self.decoy(caller, &alias).await?;
        let done = self.prove_and_replace(caller, turn, &reservation, &change, account, decoy.as_ref()).await;
        match done {
            Ok(user) => {
                reservation.settle();
                Ok(user)
            }
            Err(error @ (Error::BadCredentials | Error::UserBlocked)) => {
                Err(self.refuse(caller, Action::PasswordRefused, reservation, change.device, error).await)
            }
            // No verdict, or the old one was right, whatever is wrong with the new one.
            Err(error) => {
                reservation.abandon().await;
                Err(error)
            }
        }
    }

    /// Replaces the password if the old one is right. If its hash has changed by then it is looked at once more: a log-in
    /// may have renewed it.
    async fn prove_and_replace(
        &self,
        caller: &Caller,
        mut turn: HashPermit,
        reservation: &Reservation,
        change: &PasswordChange,
        mut account: Option<Account>,
        decoy: Option<&PasswordHash>,
    ) -> Result<User> {
        let mut again = true;
        loop {
            let old = password_of(account.as_ref());
            if !reservation.may_prove(turn.verify(&change.old, old, decoy).await?) {
                return Err(Error::BadCredentials);
            }
            let done = self.replace_proven(caller, reservation, change, account.as_ref(), old).await;
            if !again || !matches!(done, Err(Error::BadCredentials)) {
                return done;
            }
            let now = self.find(caller, &Key::Id(change.user.clone())).await?;
            if !reservation.finds_another_hash(now.as_ref(), old) {
                return done;
            }
            (account, again, turn) = (now, false, self.turn(caller)?);
        }
    }

    async fn replace_proven(
        &self,
        caller: &Caller,
        reservation: &Reservation,
        change: &PasswordChange,
        account: Option<&Account>,
        old: Option<&PasswordHash>,
    ) -> Result<User> {
        if let Some(account) = account {
            self.screen("new_password", &change.new, &account.user).await?;
        }
        let new = self.turn(caller)?.hash(&change.new).await?;
        self.replace_password(caller, reservation, change, old, &new).await
    }

    /// `old` is what was checked; by now another call may have replaced it.
    async fn replace_password(
        &self,
        caller: &Caller,
        reservation: &Reservation,
        change: &PasswordChange,
        old: Option<&PasswordHash>,
        new: &PasswordHash,
    ) -> Result<User> {
        let tx = self.store.begin(caller).await?;
        let account = store::users::lock(&tx, &caller.namespace, &change.user).await?;
        let before = still_proven(account, old)?;
        check_etag(&before, &change.etag)?;
        let mut user = before.clone();
        self.touch(&mut user);
        user.password_updated = Some(user.updated);
        store::users::update(&tx, &caller.namespace, &before, &user, Some(new)).await?;
        let keep = change.keep.as_ref().map(SessionToken::digest);
        store::sessions::delete_of_user(&tx, &caller.namespace, &user.id, keep).await?;
        let event = Event::new(user.updated, Action::PasswordUpdated, Some(user.id.clone()));
        let event = event.from(change.device.clone());
        store::events::append(&tx, caller, &event.changing(user.version, vec!["password"])).await?;
        self.refund_proven(&tx, caller, reservation).await?;
        tx.commit().await?;
        Ok(user)
    }

    /// Replaces the password without the old one, and ends all sessions.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], [`Error::EtagMismatch`], [`Error::HasherBusy`], and [`Error::Invalid`] if the new
    /// password holds one of the user's names.
    pub async fn set_password(
        &self,
        caller: &Caller,
        id: &UserId,
        etag: &str,
        new: &Password,
    ) -> Result<User> {
        let turn = self.turn(caller)?;
        let user = self.read(caller, &Key::Id(id.clone())).await?;
        // Before the work of a hash; looked at again when the change is made.
        check_etag(&user, etag)?;
        self.screen("new_password", new, &user).await?;
        let hash = turn.hash(new).await?;
        self.change(caller, Place::Live, id, etag, Action::PasswordSet, |_| {
            Ok(Edit { password: Some(hash), end_sessions: true, ..Edit::of("password") })
        })
        .await
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
