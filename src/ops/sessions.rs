//! Signing in and out.

use std::time::Duration;

use crate::domain::caller::Caller;
use crate::domain::device::Details;
use crate::domain::email::Email;
use crate::domain::event::{Action, Event};
use crate::domain::page_token::ListFields;
use crate::domain::password::{Password, PasswordHash};
use crate::domain::session::{Device, Session, SessionToken, StoredSession};
use crate::domain::user::{Account, User};
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::{Error, Result};
use crate::hasher::HashPermit;
use crate::store;
use crate::store::sessions::Open;

use super::guard::{Alias, Origin, Reservation};
use super::lists::{Listed, Wanted};
use super::users::Key;
use super::{Operations, password_of, still_proven};

/// With an idle limit, reading a session is noted at most this often: a write costs a hundred reads.
const SEEN_EVERY: Duration = Duration::from_mins(1);

/// The most sessions that one sign-in ends.
const MAX_ENDED: u64 = 100;

/// Who wants to sign in, and how that is proven.
#[derive(Debug)]
pub struct Attempt {
    /// What the end user typed; whatever cannot be a username is nobody's.
    pub username: Option<String>,
    /// What the end user typed; whatever cannot be an address is nobody's.
    pub email: Option<String>,
    /// The password to try.
    pub password: Password,
    /// Where the end user sits, as far as the caller says.
    pub device: Device,
}

/// What a password was checked against.
struct Proven<'a> {
    password: Option<&'a PasswordHash>,
    /// What is to take its place.
    renewed: Option<PasswordHash>,
}

impl Attempt {
    /// What the user is called; a text that is no name stands for itself.
    fn alias(&self) -> Alias {
        let username = self.username.as_deref().map(|raw| match Username::parse(raw) {
            Ok(username) => username.as_str().to_owned(),
            Err(_) => raw.to_owned(),
        });
        let email = self.email.as_deref().map(|raw| match Email::parse(raw) {
            Ok(email) => email.as_str().to_owned(),
            Err(_) => raw.to_owned(),
        });
        Alias::by_names(username.as_deref(), email.as_deref())
    }
}

impl Operations {
    /// Opens a session. The token is handed out here and never again.
    ///
    /// # Errors
    ///
    /// [`Error::BadCredentials`], [`Error::UserBlocked`] after the right password only, [`Error::HasherBusy`],
    /// [`Error::TooManyAttempts`].
    pub async fn login(&self, caller: &Caller, attempt: Attempt) -> Result<(SessionToken, Session)> {
        let turn = self.turn(caller)?;
        let account = self.find_named(caller, &attempt).await?;
        let alias = attempt.alias();
        let origin = Origin { address: caller.end_user_address(&attempt.device), session: None };
        let mut reservation = self.reserve(caller, &alias, account.as_ref(), origin).await?;
        let decoy = self.decoy(caller, &alias).await?;
        let opened = self.prove(caller, turn, &attempt, &reservation, account, decoy.as_ref()).await;
        match opened {
            Ok(opened) => {
                reservation.settle();
                Ok(opened)
            }
            Err(error @ (Error::BadCredentials | Error::UserBlocked)) => {
                Err(self.refuse(caller, Action::LoginRefused, reservation, attempt.device, error).await)
            }
            Err(error) => {
                reservation.abandon().await; // no verdict
                Err(error)
            }
        }
    }

    /// Opens a session for the right password. If a hash has changed by then it is looked at once more: another log-in
    /// may have renewed it.
    async fn prove(
        &self,
        caller: &Caller,
        mut turn: HashPermit,
        attempt: &Attempt,
        reservation: &Reservation,
        mut account: Option<Account>,
        decoy: Option<&PasswordHash>,
    ) -> Result<(SessionToken, Session)> {
        let mut again = true;
        loop {
            let password = password_of(account.as_ref());
            if !reservation.may_prove(turn.verify(&attempt.password, password, decoy).await?) {
                return Err(Error::BadCredentials);
            }
            let proven =
                Proven { password, renewed: self.renewed(caller, &attempt.password, password).await };
            let opened =
                self.open_session(caller, reservation, account.as_ref(), &proven, &attempt.device).await;
            if !again || !matches!(opened, Err(Error::BadCredentials)) {
                return opened;
            }
            let now = self.find_named(caller, attempt).await?;
            if !reservation.finds_another_hash(now.as_ref(), password) {
                return opened;
            }
            (account, again, turn) = (now, false, self.turn(caller)?);
        }
    }

    /// The hash as we write it now, if the one that was checked is another system's or cheaper. If there is no time for
    /// it, the next log-in will do.
    async fn renewed(
        &self,
        caller: &Caller,
        password: &Password,
        hash: Option<&PasswordHash>,
    ) -> Option<PasswordHash> {
        if hash.is_none_or(|hash| self.hasher.is_current(hash)) {
            return None;
        }
        self.turn(caller).ok()?.hash(password).await.ok()
    }

    /// The live user that the attempt names. With both a username and an e-mail address it must have both.
    async fn find_named(&self, caller: &Caller, attempt: &Attempt) -> Result<Option<Account>> {
        let username = attempt.username.as_deref().map(Username::parse).transpose().ok();
        let email = attempt.email.as_deref().map(Email::parse).transpose().ok();
        let (Some(username), Some(email)) = (username, email) else { return Ok(None) };
        match (username, email) {
            (Some(username), None) => self.find(caller, &Key::Username(username)).await,
            (None, Some(email)) => self.find(caller, &Key::Email(email)).await,
            (Some(username), Some(email)) => {
                let account = self.find(caller, &Key::Username(username)).await?;
                Ok(account.filter(|account| account.user.email.as_ref() == Some(&email)))
            }
            (None, None) => Ok(None),
        }
    }

    async fn open_session(
        &self,
        caller: &Caller,
        reservation: &Reservation,
        account: Option<&Account>,
        proven: &Proven<'_>,
        device: &Device,
    ) -> Result<(SessionToken, Session)> {
        let id = &account.ok_or(Error::BadCredentials)?.user.id;
        let token = SessionToken::generate().map_err(Error::internal)?;
        let tx = self.store.begin(caller).await?;
        let user = still_proven(store::users::lock(&tx, &caller.namespace, id).await?, proven.password)?;
        if let Some(renewed) = &proven.renewed {
            store::users::renew_password(&tx, &caller.namespace, id, renewed).await?;
        }
        self.end_oldest(&tx, caller, &user.id).await?;
        let new = self.new_session(caller, &user, device)?;
        store::sessions::insert(&tx, &caller.namespace, token.digest(), &new).await?;
        let event = Event::new(new.created, Action::SessionCreated, Some(user.id.clone()));
        let event = event.from(new.device.clone()).about(&new.public_id);
        store::events::append(&tx, caller, &event).await?;
        self.refund_proven(&tx, caller, reservation).await?;
        tx.commit().await?;
        Ok((token, session_of(&user, &new)))
    }

    /// Ends the oldest sessions of a user who has as many as a user may have, so that one more fits. A user who has far more
    /// loses some at each sign-in.
    async fn end_oldest(&self, tx: &store::Transaction, caller: &Caller, user: &UserId) -> Result<()> {
        let Some(others) = u64::from(self.rules.max_sessions).checked_sub(1) else { return Ok(()) };
        let (namespace, now) = (&caller.namespace, self.clock.now());
        let ended =
            store::sessions::delete_oldest(tx, namespace, user, self.open(), others, MAX_ENDED).await?;
        for session in ended {
            let event = Event::new(now, Action::SessionDeleted, Some(user.clone())).about(&session);
            store::events::append(tx, caller, &event).await?;
        }
        Ok(())
    }

    fn new_session(&self, caller: &Caller, user: &User, device: &Device) -> Result<StoredSession> {
        let now = self.clock.now();
        Ok(StoredSession {
            public_id: self.clock.new_id()?.to_string(),
            user: user.id.clone(),
            created: now,
            expires: now.plus(self.rules.session_lifetime),
            device: caller.device(device),
        })
    }

    /// The session that `token` opens.
    ///
    /// # Errors
    ///
    /// [`Error::SessionNotFound`], also for one that has expired.
    pub async fn read_session(&self, caller: &Caller, token: &str) -> Result<Session> {
        let (token, session) = self.find_session(caller, token).await?;
        let now = self.clock.now();
        if let Some(idle) = self.rules.session_idle
            && session.seen.plus(SEEN_EVERY.min(idle / 10)) < now
        {
            let tx = self.store.begin(caller).await?;
            store::sessions::touch(&tx, &caller.namespace, token.digest(), now).await?;
            tx.commit().await?;
        }
        Ok(session)
    }

    /// Ends the session that `token` opens.
    ///
    /// # Errors
    ///
    /// [`Error::SessionNotFound`]
    pub async fn logout(&self, caller: &Caller, token: &str) -> Result<()> {
        let (token, session) = self.find_session(caller, token).await?;
        let event = Event::new(self.clock.now(), Action::SessionDeleted, Some(session.user));
        let event = event.about(&session.public_id);
        let tx = self.store.begin(caller).await?;
        // Of two that log out with one token at the same time, one comes late.
        if !store::sessions::delete(&tx, &caller.namespace, token.digest()).await? {
            return Err(Error::SessionNotFound);
        }
        store::events::append(&tx, caller, &event).await?;
        tx.commit().await
    }

    /// A page of a user's open sessions, the oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], and [`Error::Invalid`] for a page token that is not of this list.
    pub async fn list_sessions(
        &self,
        caller: &Caller,
        user: &UserId,
        wanted: &Wanted,
    ) -> Result<Listed<(StoredSession, Details)>> {
        let namespace = &caller.namespace;
        let digest = ListFields::new("sessions", namespace.as_str()).text(user.as_str()).digest();
        let start = self.start(&wanted.page, &digest, |cursor| Some(cursor.to_owned()))?;
        self.read(caller, &Key::Id(user.clone())).await?;
        let (db, open) = (self.read_list(caller).await?, self.open());
        // One more than asked for tells whether there are more.
        let (after, limit) = (start.after().map(String::as_str), wanted.page.limit);
        let mut rows = store::sessions::of_user(&db, namespace, user, open, after, limit + 1).await?;
        let next = self.truncate_page(&mut rows, limit, &digest, |last| last.public_id.clone());
        let total = if wanted.total {
            Some(store::sessions::count_of_user(&db, namespace, user, open).await?)
        } else {
            None
        };
        drop(db);
        Ok(self.with_device_details(Listed { rows, total, next }, |session| &session.device).await)
    }

    /// Ends the session of a user that `public_id` names.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], [`Error::SessionNotFound`].
    pub async fn delete_session(&self, caller: &Caller, user: &UserId, public_id: &str) -> Result<()> {
        let event = Event::new(self.clock.now(), Action::SessionDeleted, Some(user.clone())).about(public_id);
        let tx = self.store.begin(caller).await?;
        store::users::lock(&tx, &caller.namespace, user).await?.ok_or(Error::UserNotFound)?;
        // Saves a query, and PostgreSQL takes no text with a NUL in it.
        if uuid::Uuid::try_parse(public_id).is_err() {
            return Err(Error::SessionNotFound);
        }
        if store::sessions::delete_open(&tx, &caller.namespace, user, Some(public_id), self.open()).await?
            == 0
        {
            return Err(Error::SessionNotFound);
        }
        store::events::append(&tx, caller, &event).await?;
        tx.commit().await
    }

    /// Ends all sessions of a user. How many were open.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`]
    pub async fn delete_sessions(&self, caller: &Caller, user: &UserId) -> Result<u64> {
        let event = Event::new(self.clock.now(), Action::SessionsDeleted, Some(user.clone()));
        let tx = self.store.begin(caller).await?;
        store::users::lock(&tx, &caller.namespace, user).await?.ok_or(Error::UserNotFound)?;
        let ended = store::sessions::delete_open(&tx, &caller.namespace, user, None, self.open()).await?;
        // Those that ended by themselves are no longer anyone's to end, but go with them.
        store::sessions::delete_of_user(&tx, &caller.namespace, user, None).await?;
        if ended > 0 {
            store::events::append(&tx, caller, &event).await?;
        }
        tx.commit().await?;
        Ok(ended)
    }

    /// What tells an open session from one that has ended, now.
    fn open(&self) -> Open {
        let now = self.clock.now();
        Open { now, idle_since: self.rules.session_idle.map(|idle| now.minus(idle)) }
    }

    /// The open session of a token. An unread one may have ended without being removed yet.
    async fn find_session(&self, caller: &Caller, token: &str) -> Result<(SessionToken, Session)> {
        let token = SessionToken::parse(token).ok_or(Error::SessionNotFound)?;
        let session =
            store::sessions::find(&self.store.read(caller).await?, &caller.namespace, token.digest()).await?;
        let session = session.filter(|session| self.is_open(session)).ok_or(Error::SessionNotFound)?;
        Ok((token, session))
    }

    /// Returns true unless the session has ended by itself.
    pub(super) fn is_open(&self, session: &Session) -> bool {
        let now = self.clock.now();
        let idle = self.rules.session_idle.is_some_and(|idle| session.seen.plus(idle) <= now);
        session.expires > now && !idle
    }
}

fn session_of(user: &User, new: &StoredSession) -> Session {
    Session {
        public_id: new.public_id.clone(),
        user: user.id.clone(),
        username: user.username.as_ref().map_or("", Username::as_str).to_owned(),
        email: user.email.as_ref().map_or("", Email::as_str).to_owned(),
        created: new.created,
        expires: new.expires,
        seen: new.created,
    }
}
