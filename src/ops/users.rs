//! Accounts.

use rand::TryRng as _;
use rand::rngs::SysRng;

use crate::domain::caller::Caller;
use crate::domain::email::Email;
use crate::domain::event::{Action, Event};
use crate::domain::idempotency::{CallDigests, RepeatableCall};
use crate::domain::password::PasswordHash;
use crate::domain::prefs::{Prefs, PrefsChanges};
use crate::domain::scope::Scope;
use crate::domain::user::{Account, Changes, NewUser, Status, User};
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::{Error, Result};
use crate::store;

use super::{Operations, check_etag, require};

/// A reference to a user.
#[derive(Clone, Debug)]
pub enum UserRef {
    /// Its id.
    Id(UserId),
    /// Its username.
    Username(Username),
    /// Its e-mail address.
    Email(Email),
}

/// The part of its life that a user is in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lifecycle {
    /// Live.
    Live,
    /// In the trash.
    Trash,
}

/// The result of an edit of a user.
#[derive(Default)]
pub(super) struct Edit {
    /// The fields that changed; without any nothing is written.
    pub(super) fields: Vec<&'static str>,
    /// A new password.
    pub(super) password: Option<PasswordHash>,
    /// True if all sessions of the user end.
    pub(super) end_sessions: bool,
    /// The call that makes the change, if it may be repeated.
    pub(super) call: Option<CallDigests>,
}

impl Edit {
    /// One field, and nothing else.
    pub(super) fn of(field: &'static str) -> Self {
        Self { fields: vec![field], ..Self::default() }
    }
}

impl Operations {
    /// Creates the user and its event, or neither. A repeat of a `call` with an idempotency key creates nothing.
    ///
    /// # Errors
    ///
    /// [`Error::IdTaken`], [`Error::UsernameTaken`], [`Error::EmailTaken`], [`Error::HasherBusy`],
    /// [`Error::ScopeMissing`] if the caller may not bring a hash, and those of a repeated call.
    pub async fn create(&self, caller: &Caller, new: NewUser, call: Option<&RepeatableCall>) -> Result<User> {
        // A caller that brings a hash can log in as that user.
        if new.password_hash.is_some() {
            require(caller, Scope::UsersAdmin)?;
        }
        let Some(call) = self.digests(caller, call) else {
            return self.create_noted(caller, new, None).await;
        };
        let creating = async { Ok((self.create_noted(caller, new, Some(&call)).await?, false)) };
        // Boxed, so that the calls without a key are no larger.
        Box::pin(self.once(caller, &call, creating)).await.map(|(user, _)| user)
    }

    /// Creates the user and its event, and notes the call, or nothing of it.
    pub(super) async fn create_noted(
        &self,
        caller: &Caller,
        new: NewUser,
        call: Option<&CallDigests>,
    ) -> Result<User> {
        // Hash first: it takes long, and a transaction would hold a connection all the while.
        let hash = match (&new.password, &new.password_hash) {
            (Some(password), _) => {
                self.check_blocklist("password", password).await?;
                Some(self.reserve_hash(caller)?.hash(password).await?)
            }
            (None, Some(text)) => Some(self.import_hash(text)?),
            (None, None) => None,
        };
        let user = self.new_user(new)?;
        let event = Event::new(user.created, Action::UserCreated, Some(user.id.clone())).changing(1, vec![]);

        let tx = self.store.begin(caller).await?; // any `?` from here to commit rolls back
        self.note_call(&tx, caller, call, &user, false).await?;
        if let Err(error) = store::users::insert(&tx, &caller.namespace, &user, hash.as_ref()).await {
            drop(tx);
            return Err(self.with_conflict_holder(caller, &user, None, error).await);
        }
        store::events::append(&tx, caller, &event).await?;
        tx.commit().await?;
        Ok(user)
    }

    fn import_hash(&self, text: &str) -> Result<PasswordHash> {
        self.hasher.import_hash(text).map_err(|why| Error::invalid("password_hash", why.to_string()))
    }

    fn new_user(&self, new: NewUser) -> Result<User> {
        let now = self.clock.now();
        let id = match new.id {
            Some(id) => id,
            None => UserId::from_uuid(self.clock.new_id()?),
        };
        let mut generation = [0_u8; 8];
        SysRng.try_fill_bytes(&mut generation).map_err(Error::internal)?;
        Ok(User {
            id,
            username: new.username,
            email: new.email,
            name: new.name,
            status: new.status,
            email_verified: false,
            password_updated: (new.password.is_some() || new.password_hash.is_some()).then_some(now),
            prefs: Prefs::default(),
            labels: new.labels,
            metadata: new.metadata,
            sso_enabled: new.sso_enabled,
            created: now,
            updated: now,
            deleted: None,
            version: 1,
            generation: i64::from_le_bytes(generation),
        })
    }

    /// The live user known by `key`. By its id from the cache, if it is there.
    pub async fn read(&self, caller: &Caller, key: &UserRef) -> Result<User> {
        if let UserRef::Id(id) = key
            && let Some(cached) = self.cache.user(&caller.namespace, id)
        {
            return Ok(User::clone(&cached));
        }
        let stamp = self.cache.stamp();
        let user = self.find(caller, key).await?.ok_or(Error::UserNotFound)?.user;
        if let UserRef::Id(_) = key {
            self.cache.keep_user(stamp, &caller.namespace, &user);
        }
        Ok(user)
    }

    pub(super) async fn find(&self, caller: &Caller, key: &UserRef) -> Result<Option<Account>> {
        let (db, namespace) = (&self.store.read(caller).await?, &caller.namespace);
        match key {
            UserRef::Id(id) => store::users::find(db, namespace, id).await,
            UserRef::Username(username) => store::users::find_by_username(db, namespace, username).await,
            UserRef::Email(email) => store::users::find_by_email(db, namespace, email).await,
        }
    }

    /// Writes `changes`; with a password among them, all sessions end, as they do with another e-mail address or
    /// `sso_enabled` (`sessions.end_on_change`). Where nothing is to change nothing is written, and the user is as it was.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], [`Error::EtagMismatch`], [`Error::UsernameTaken`], [`Error::EmailTaken`],
    /// [`Error::HasherBusy`], [`Error::Invalid`] if neither username nor e-mail address would be left, and
    /// [`Error::ScopeMissing`] if the caller may not write the password.
    pub async fn update(&self, caller: &Caller, id: &UserId, etag: &str, changes: &Changes) -> Result<User> {
        let hash = match &changes.password {
            Some(password) => {
                require(caller, Scope::UsersAdmin)?;
                let user = self.find(caller, &UserRef::Id(id.clone())).await?;
                let mut user = user.ok_or(Error::UserNotFound)?.user;
                user.apply(changes);
                self.screen("password", password, &user).await?;
                Some(self.reserve_hash(caller)?.hash(password).await?)
            }
            None => None,
        };

        self.change(caller, Lifecycle::Live, id, etag, Action::UserUpdated, |user| {
            let mut fields = user.apply(changes);
            if user.username.is_none() && user.email.is_none() {
                let (field, other) =
                    if fields.contains(&"email") { ("email", "username") } else { ("username", "email") };
                return Err(Error::invalid(field, format!("cannot be cleared while there is no {other}")));
            }
            fields.extend(hash.as_ref().map(|_| "password"));
            Ok(Edit { fields, end_sessions: hash.is_some(), password: hash, call: None })
        })
        .await
    }

    /// Moves the user to the trash and ends its sessions.
    pub async fn delete(&self, caller: &Caller, id: &UserId, etag: &str) -> Result<User> {
        self.change(caller, Lifecycle::Live, id, etag, Action::UserDeleted, |user| {
            user.deleted = Some(user.updated);
            Ok(Edit { end_sessions: true, ..Edit::of("deleted") })
        })
        .await
    }

    /// Sets the status of the user. Blocking it ends its sessions.
    pub async fn update_status(
        &self,
        caller: &Caller,
        id: &UserId,
        etag: &str,
        status: Status,
    ) -> Result<User> {
        self.change(caller, Lifecycle::Live, id, etag, Action::StatusUpdated, |user| {
            if user.status == status {
                return Ok(Edit::default());
            }
            user.status = status;
            Ok(Edit { end_sessions: status == Status::Blocked, ..Edit::of("status") })
        })
        .await
    }

    /// Sets the verification of the user's address. With `proven`, only if that is the address.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], [`Error::EtagMismatch`], [`Error::EmailMismatch`], and [`Error::Invalid`] if
    /// there is no address.
    pub async fn update_verification(
        &self,
        caller: &Caller,
        id: &UserId,
        etag: &str,
        verified: bool,
        proven: Option<&Email>,
    ) -> Result<User> {
        self.change(caller, Lifecycle::Live, id, etag, Action::VerificationUpdated, |user| {
            if proven.is_some() && proven != user.email.as_ref() {
                return Err(Error::EmailMismatch);
            }
            if verified && user.email.is_none() {
                return Err(Error::invalid("email_verified", "cannot be set while there is no email"));
            }
            if user.email_verified == verified {
                return Ok(Edit::default());
            }
            user.email_verified = verified;
            Ok(Edit::of("email_verified"))
        })
        .await
    }

    /// Writes the keys of `changes` that are not null and removes the others; with `replace`, these are all.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], [`Error::EtagMismatch`], and [`Error::Invalid`] if they are too many
    /// together.
    pub async fn update_prefs(
        &self,
        caller: &Caller,
        id: &UserId,
        etag: &str,
        changes: PrefsChanges,
        replace: bool,
    ) -> Result<User> {
        self.change(caller, Lifecycle::Live, id, etag, Action::PrefsUpdated, |user| {
            let old = if replace { Prefs::default() } else { user.prefs.clone() };
            let new = old.merged(changes).map_err(|why| Error::invalid("prefs", why.to_string()))?;
            if user.prefs == new {
                return Ok(Edit::default());
            }
            user.prefs = new;
            Ok(Edit::of("prefs"))
        })
        .await
    }

    /// Lets `edit` change a user, and writes it with its event, or neither. Where nothing is to change
    /// nothing is written, and the user is as it was.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`] if there is none in that lifecycle, [`Error::EtagMismatch`],
    /// [`Error::UsernameTaken`], [`Error::EmailTaken`], and those of `edit`.
    pub(super) async fn change(
        &self,
        caller: &Caller,
        lifecycle: Lifecycle,
        id: &UserId,
        etag: &str,
        action: Action,
        edit: impl FnOnce(&mut User) -> Result<Edit> + Clone,
    ) -> Result<User> {
        let change = || self.change_once(caller, lifecycle, id, etag, action, edit.clone());
        match change().await {
            // Two that wait for each other's names: the other one is done now.
            Err(error) if store::is_deadlock(&error) => change().await,
            done => done,
        }
    }

    async fn change_once(
        &self,
        caller: &Caller,
        lifecycle: Lifecycle,
        id: &UserId,
        etag: &str,
        action: Action,
        edit: impl FnOnce(&mut User) -> Result<Edit>,
    ) -> Result<User> {
        let namespace = &caller.namespace;
        let tx = self.store.begin(caller).await?; // any `?` from here to commit rolls back
        let account = match lifecycle {
            Lifecycle::Live => store::users::lock(&tx, namespace, id).await?,
            Lifecycle::Trash => store::users::lock_in_trash(&tx, namespace, id).await?,
        };
        self.note_read_for_change(caller, id);
        let before = account.ok_or(Error::UserNotFound)?.user;
        check_etag(&before, etag)?;
        let mut user = before.clone();
        self.touch(&mut user);
        let edit = edit(&mut user)?;
        if edit.fields.is_empty() {
            return Ok(before);
        }
        self.note_call(&tx, caller, edit.call.as_ref(), &user, true).await?;
        if edit.password.is_some() {
            user.password_updated = Some(user.updated);
        }
        if edit.end_sessions || self.is_ending(&edit.fields) {
            store::sessions::delete_of_user(&tx, namespace, id, None).await?;
        }
        if let Err(error) = store::users::update(&tx, namespace, &before, &user, edit.password.as_ref()).await
        {
            drop(tx);
            return Err(self.with_conflict_holder(caller, &user, Some(id), error).await);
        }
        let event = Event::new(user.updated, action, Some(id.clone()));
        store::events::append(&tx, caller, &event.changing(user.version, edit.fields)).await?;
        tx.commit().await?;
        Ok(user)
    }

    /// Returns true if a change of these fields ends the sessions of the user.
    fn is_ending(&self, fields: &[&str]) -> bool {
        self.rules.end_sessions_on_change
            && fields.iter().any(|field| ["email", "sso_enabled"].contains(field))
    }

    /// Notes that a user was read to be changed. Where there is nothing left to do, a call before this one may have done it,
    /// whose outcome was unknown, and whose COMMIT came after it was noted.
    pub(super) fn note_read_for_change(&self, caller: &Caller, id: &UserId) {
        self.store.coherence().note_user(caller.namespace.as_str(), id.as_str());
    }

    /// Marks a change.
    pub(super) fn touch(&self, user: &mut User) {
        user.version += 1;
        user.updated = self.clock.now();
    }

    /// Says which of the user's names another one has, and who. Where several are taken, each database names
    /// another one; here the e-mail address comes first and the id last. `own` is the user itself, if it is
    /// there already. By now the other user may have let go of the name.
    async fn with_conflict_holder(
        &self,
        caller: &Caller,
        user: &User,
        own: Option<&UserId>,
        error: Error,
    ) -> Error {
        if !matches!(error, Error::IdTaken | Error::UsernameTaken { .. } | Error::EmailTaken { .. }) {
            return error;
        }
        let keys = [user.email.clone().map(UserRef::Email), user.username.clone().map(UserRef::Username)];
        for key in keys.into_iter().flatten() {
            let holder = match self.find(caller, &key).await {
                Ok(Some(holder)) if Some(&holder.user.id) != own => holder.user.id.as_str().to_owned(),
                Ok(_) => continue,
                Err(error) => return error,
            };
            return match key {
                UserRef::Email(_) => Error::EmailTaken { holder: Some(holder) },
                _ => Error::UsernameTaken { holder: Some(holder) },
            };
        }
        error
    }
}
