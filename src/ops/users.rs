//! Accounts.

use crate::domain::caller::Caller;
use crate::domain::email::Email;
use crate::domain::event::{Action, Event};
use crate::domain::page::Page;
use crate::domain::user::{Account, Changes, NewUser, User};
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::{Error, Result};
use crate::store;

use super::{Operations, check_etag};

/// What a caller can know a user by.
#[derive(Clone, Debug)]
pub enum Key {
    /// Its id.
    Id(UserId),
    /// Its username.
    Username(Username),
    /// Its e-mail address.
    Email(Email),
}

impl Operations {
    /// Creates the user and its event, or neither.
    ///
    /// # Errors
    ///
    /// [`Error::IdTaken`], [`Error::UsernameTaken`], [`Error::EmailTaken`], [`Error::HasherBusy`].
    pub async fn create(&self, caller: &Caller, new: NewUser) -> Result<User> {
        // Hash first: it takes long, and a transaction would hold a connection all the while.
        let hash = match &new.password {
            Some(password) => Some(self.hasher.hash(password).await?),
            None => None,
        };
        let user = self.new_user(new)?;
        let event = Event::new(user.created, Action::UserCreated, Some(user.id.clone())).changing(1, vec![]);

        let tx = self.store.begin().await?; // any `?` from here to commit rolls back
        if let Err(error) = store::users::insert(&tx, &caller.namespace, &user, hash.as_ref()).await {
            drop(tx);
            return Err(self.name_holder(caller, &user, error).await);
        }
        store::events::append(&tx, caller, &event).await?;
        tx.commit().await?;
        Ok(user)
    }

    fn new_user(&self, new: NewUser) -> Result<User> {
        let now = self.clock.now();
        let id = match new.id {
            Some(id) => id,
            None => UserId::from_uuid(self.clock.new_id()?),
        };
        let mut generation = [0_u8; 8];
        getrandom::fill(&mut generation).map_err(Error::internal)?;
        Ok(User {
            id,
            username: new.username,
            email: new.email,
            name: new.name,
            status: new.status,
            email_verified: false,
            password_updated: new.password.map(|_| now),
            prefs: "{}".to_owned(),
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

    /// The live user known by `key`.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`]
    pub async fn read(&self, caller: &Caller, key: &Key) -> Result<User> {
        Ok(self.find(caller, key).await?.ok_or(Error::UserNotFound)?.user)
    }

    pub(super) async fn find(&self, caller: &Caller, key: &Key) -> Result<Option<Account>> {
        let (db, namespace) = (self.store.reader(), &caller.namespace);
        match key {
            Key::Id(id) => store::users::find(db, namespace, id).await,
            Key::Username(username) => store::users::find_by_username(db, namespace, username).await,
            Key::Email(email) => store::users::find_by_email(db, namespace, email).await,
        }
    }

    /// Live users by what their names begin with.
    ///
    /// # Errors
    ///
    /// Only those of the database.
    pub async fn search(
        &self,
        caller: &Caller,
        username: &str,
        email: &str,
        page: Page,
    ) -> Result<Vec<User>> {
        store::users::search(self.store.reader(), &caller.namespace, username, email, page).await
    }

    /// Writes `changes`; with a password among them, all sessions end. Where nothing is to change nothing is
    /// written, and the user is as it was.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], [`Error::EtagMismatch`], [`Error::UsernameTaken`], [`Error::EmailTaken`],
    /// [`Error::HasherBusy`], and [`Error::Invalid`] if neither username nor e-mail address would be left.
    pub async fn update(&self, caller: &Caller, id: &UserId, etag: &str, changes: &Changes) -> Result<User> {
        let hash = match &changes.password {
            Some(password) => {
                let mut user = self.read(caller, &Key::Id(id.clone())).await?;
                user.apply(changes);
                self.screen("password", password, &user)?;
                Some(self.hasher.hash(password).await?)
            }
            None => None,
        };

        let tx = self.store.begin().await?;
        let mut user = store::users::lock(&tx, &caller.namespace, id).await?.ok_or(Error::UserNotFound)?.user;
        check_etag(&user, etag)?;
        let mut fields = user.apply(changes);
        if user.username.is_none() && user.email.is_none() {
            let (field, other) =
                if fields.contains(&"email") { ("email", "username") } else { ("username", "email") };
            return Err(Error::invalid(field, format!("cannot be cleared while there is no {other}")));
        }
        if hash.is_some() {
            fields.push("password");
        }
        if fields.is_empty() {
            return Ok(user);
        }
        self.touch(&mut user);
        if hash.is_some() {
            user.password_updated = Some(user.updated);
            store::sessions::delete_of_user(&tx, &caller.namespace, id, None).await?;
        }
        if let Err(error) = store::users::update(&tx, &caller.namespace, &user, hash.as_ref()).await {
            drop(tx);
            return Err(self.name_holder(caller, &user, error).await);
        }
        let event = Event::new(user.updated, Action::UserUpdated, Some(id.clone()));
        store::events::append(&tx, caller, &event.changing(user.version, fields)).await?;
        tx.commit().await?;
        Ok(user)
    }

    /// Moves the user to the trash and ends its sessions.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], [`Error::EtagMismatch`].
    pub async fn delete(&self, caller: &Caller, id: &UserId, etag: &str) -> Result<User> {
        let tx = self.store.begin().await?;
        let mut user = store::users::lock(&tx, &caller.namespace, id).await?.ok_or(Error::UserNotFound)?.user;
        check_etag(&user, etag)?;
        self.touch(&mut user);
        user.deleted = Some(user.updated);
        store::users::update(&tx, &caller.namespace, &user, None).await?;
        store::sessions::delete_of_user(&tx, &caller.namespace, id, None).await?;
        let event = Event::new(user.updated, Action::UserDeleted, Some(id.clone()));
        store::events::append(&tx, caller, &event.changing(user.version, vec!["deleted"])).await?;
        tx.commit().await?;
        Ok(user)
    }

    /// Marks a change.
    pub(super) fn touch(&self, user: &mut User) {
        user.version += 1;
        user.updated = self.clock.now();
    }

    /// Adds to a conflict who it is that has the name. By now that user may have let go of it.
    async fn name_holder(&self, caller: &Caller, user: &User, error: Error) -> Error {
        let key = match (&error, &user.username, &user.email) {
            (Error::UsernameTaken { .. }, Some(username), _) => Key::Username(username.clone()),
            (Error::EmailTaken { .. }, _, Some(email)) => Key::Email(email.clone()),
            _ => return error,
        };
        let holder = match self.find(caller, &key).await {
            Ok(account) => account.map(|account| account.user.id.as_str().to_owned()),
            Err(error) => return error,
        };
        match error {
            Error::UsernameTaken { .. } => Error::UsernameTaken { holder },
            _ => Error::EmailTaken { holder },
        }
    }
}
