//! Users in the trash: read, restored, purged.

use crate::domain::caller::Caller;
use crate::domain::event::{Action, Event};
use crate::domain::idempotency::{CallDigests, RepeatableCall};
use crate::domain::user::{Changes, NewUser, User};
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};
use crate::store::{self, Transaction};

use super::edits::Edit;
use super::housekeeping::BATCH;
use super::users::Lifecycle;
use super::{Operations, check_etag};

/// The most tries to restore a user that other calls restore or purge at the same time.
const TRIES: u32 = 3;

/// Batches of a purged user's events that the call that purged it clears, beside the first.
const MORE_BATCHES: u32 = 4;

impl Operations {
    /// The user with `id` in the trash.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], also for a live one.
    pub async fn read_trash(&self, caller: &Caller, id: &UserId) -> Result<User> {
        let found =
            store::users::find_in_trash(&self.store.read(caller).await?, &caller.namespace, id).await?;
        Ok(found.ok_or(Error::UserNotFound)?.user)
    }

    /// Takes the user out of the trash. Its sessions stay ended.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], [`Error::EtagMismatch`], and [`Error::UsernameTaken`] or
    /// [`Error::EmailTaken`] if another user took a name meanwhile.
    pub async fn restore(&self, caller: &Caller, id: &UserId, etag: &str) -> Result<User> {
        self.change(caller, Lifecycle::Trash, id, etag, Action::UserRestored, |user| {
            user.deleted = None;
            Ok(Edit::of("deleted"))
        })
        .await
    }

    /// Restores the user who was deleted last with the address of `new`, with its password and what of
    /// `changes` is there; creates `new` if there is none. A repeat of a `call` with an idempotency key changes nothing.
    /// Returns the user, and true if it was restored.
    ///
    /// # Errors
    ///
    /// As [`Operations::create`] and [`Operations::restore`]; [`Error::Invalid`] if the new password holds a
    /// name that the restored user has; those of a repeated call.
    pub async fn create_or_restore(
        &self,
        caller: &Caller,
        new: NewUser,
        changes: &Changes,
        call: Option<&RepeatableCall>,
    ) -> Result<(User, bool)> {
        let Some(call) = self.digests(caller, call) else {
            return self.create_or_restore_noted(caller, new, changes, None).await;
        };
        let change = self.create_or_restore_noted(caller, new, changes, Some(&call));
        Box::pin(self.once(caller, &call, change)).await
    }

    async fn create_or_restore_noted(
        &self,
        caller: &Caller,
        new: NewUser,
        changes: &Changes,
        call: Option<&CallDigests>,
    ) -> Result<(User, bool)> {
        for _ in 0..TRIES {
            let Some(id) = self.newest_in_trash(caller, &new).await? else { break };
            match self.restore_changed(caller, &id, &new, changes, call).await {
                // Another call was quicker: perhaps there is one more.
                Err(Error::UserNotFound) => {}
                done => return done.map(|user| (user, true)),
            }
        }
        self.create_noted(caller, new, call).await.map(|user| (user, false))
    }

    async fn newest_in_trash(&self, caller: &Caller, new: &NewUser) -> Result<Option<UserId>> {
        let Some(email) = &new.email else { return Ok(None) };
        store::users::newest_in_trash(&self.store.read(caller).await?, &caller.namespace, email).await
    }

    async fn restore_changed(
        &self,
        caller: &Caller,
        id: &UserId,
        new: &NewUser,
        changes: &Changes,
        call: Option<&CallDigests>,
    ) -> Result<User> {
        let hash = match &new.password {
            Some(password) => {
                let mut user = self.read_trash(caller, id).await?;
                user.apply(changes);
                self.screen("password", password, &user).await?;
                Some(self.reserve_hash(caller)?.hash(password).await?)
            }
            None => None,
        };
        self.change(caller, Lifecycle::Trash, id, "", Action::UserRestored, |user| {
            // While the password was hashed the user may have come back, got another address and gone again.
            if user.email != new.email {
                return Err(Error::UserNotFound);
            }
            user.deleted = None;
            let mut fields = vec!["deleted"];
            fields.extend(user.apply(changes));
            if std::mem::replace(&mut user.email_verified, false) {
                fields.push("email_verified");
            }
            fields.extend(hash.as_ref().map(|_| "password"));
            Ok(Edit { fields, password: hash, end_sessions: false, call: call.copied() })
        })
        .await
    }

    /// Purges a user in the trash.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], also for a live one; [`Error::EtagMismatch`].
    pub async fn purge(&self, caller: &Caller, id: &UserId, etag: &str) -> Result<()> {
        let tx = self.store.begin(caller).await?;
        self.remove(tx, caller, id, |user| check_etag(user, etag)).await
    }

    /// Removes the user from the trash if `check` agrees, and commits `tx`. Its events stay, without what says where the
    /// person was.
    pub(super) async fn remove(
        &self,
        tx: Transaction,
        caller: &Caller,
        id: &UserId,
        check: impl FnOnce(&User) -> Result<()>,
    ) -> Result<()> {
        let namespace = &caller.namespace;
        let event = Event::new(self.clock.now(), Action::UserPurged, Some(id.clone()));
        let account = store::users::lock_in_trash(&tx, namespace, id).await?;
        self.note_read_for_change(caller, id);
        check(&account.ok_or(Error::UserNotFound)?.user)?;
        store::users::purge(&tx, namespace, id).await?;
        let mut more = store::purged::begin(&tx, namespace, id, BATCH).await?;
        store::events::append(&tx, caller, &event).await?;
        tx.commit().await?;
        // A log may hold millions of events. The user is gone; what these calls leave, housekeeping clears.
        for _ in 0..MORE_BATCHES {
            if !more {
                break;
            }
            more = self.clear_more(namespace, id).await.unwrap_or(false);
        }
        Ok(())
    }
}
