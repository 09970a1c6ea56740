//! Sessions: opening, reading and ending them.

use std::time::Duration;

use crate::domain::caller::Caller;
use crate::domain::device::Details;
use crate::domain::email::Email;
use crate::domain::event::{Action, Event};
use crate::domain::page_token::ListFields;
use crate::domain::quota::Quota;
use crate::domain::secret::SecretDigest;
use crate::domain::session::{Amr, Session, SessionRequest, SessionToken, StoredSession};
use crate::domain::time::Timestamp;
use crate::domain::user::User;
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::{Error, Result};
use crate::store;
use crate::store::sessions::OpenAt;

use super::Operations;
use super::list::{ListPage, PageRequest};
use super::users::UserRef;

/// With an idle limit, reading a session is noted at most this often: a write costs a hundred reads.
const LAST_READ_RESOLUTION: Duration = Duration::from_mins(1);

/// The most sessions that one sign-in ends.
const MAX_ENDED: u64 = 100;

impl Operations {
    /// The longest lifetime of a session.
    pub fn max_session_lifetime(&self) -> Duration {
        self.rules.session_lifetime
    }

    /// Opens a session for a user whose proofs are right, and whose row `tx` has locked. The token is handed out here and
    /// never again.
    ///
    /// `authenticated` is the time of the first proof where a second one was given; `None`: there was one, now.
    ///
    /// # Errors
    ///
    /// [`Error::SecondFactorRequired`] where the user has a second factor and there was one proof.
    pub(super) async fn open_session_in(
        &self,
        tx: &store::Transaction,
        caller: &Caller,
        user: &User,
        wanted: &SessionRequest,
        amr: &[Amr],
        authenticated: Option<Timestamp>,
    ) -> Result<(SessionToken, Session)> {
        let (namespace, now) = (&caller.namespace, self.clock.now());
        if authenticated.is_none() {
            self.check_second_factor(tx, caller, user, amr).await?;
        }
        // Before sessions are deleted, which locks their total: who has this lock waits for that one.
        let limit = self.lock_quota(tx, caller, Quota::Sessions).await?;
        let replaced = wanted.replaces.as_ref().map(SessionToken::digest);
        self.make_room(tx, caller, &user.id, replaced).await?;
        self.check_locked(tx, caller, Quota::Sessions, limit).await?;
        let longest = self.rules.session_lifetime;
        let new = StoredSession {
            public_id: self.clock.new_id()?.to_string(),
            user: user.id.clone(),
            created: now,
            expires: now.plus(wanted.lifetime.map_or(longest, |lifetime| lifetime.min(longest))),
            auth_time: authenticated.unwrap_or(now),
            amr: amr.iter().map(|method| method.name()).collect::<Vec<_>>().join(" "),
            device: caller.device(&wanted.device),
        };
        let token = SessionToken::generate().map_err(Error::internal)?;
        store::sessions::insert(tx, namespace, token.digest(), &new).await?;
        let event = Event::new(now, Action::SessionCreated, Some(user.id.clone()));
        let event = event.from(new.device.clone()).about(&new.public_id);
        store::events::append(tx, caller, &event).await?;
        Ok((token, session_of(user, new)))
    }

    /// Ends the session that a new one replaces, if it is one of the user's, and the oldest ones of a user who has as many as
    /// a user may have, so that one more fits. A user who has far more loses some at each sign-in.
    async fn make_room(
        &self,
        tx: &store::Transaction,
        caller: &Caller,
        user: &UserId,
        replaced: Option<SecretDigest>,
    ) -> Result<()> {
        let (namespace, now) = (&caller.namespace, self.clock.now());
        let replaced = match replaced {
            Some(digest) => store::sessions::find(tx, namespace, digest).await?,
            None => None,
        };
        let replaced = replaced.filter(|replaced| replaced.user == *user).map(|replaced| replaced.public_id);
        let mut ended = Vec::from_iter(replaced.clone());
        if let Some(others) = u64::from(self.rules.max_sessions).checked_sub(1) {
            let (open, replaced) = (self.open(), replaced.as_deref());
            let oldest = store::sessions::oldest(tx, namespace, user, open, replaced, others, MAX_ENDED);
            ended.extend(oldest.await?);
        }
        for session in store::sessions::delete_these(tx, namespace, user, ended).await? {
            let event = Event::new(now, Action::SessionDeleted, Some(user.clone())).about(&session);
            store::events::append(tx, caller, &event).await?;
        }
        Ok(())
    }

    /// The session that `token` opens, from the cache if it is there.
    ///
    /// # Errors
    ///
    /// [`Error::SessionNotFound`], also for one that has expired, and [`Error::Reauthenticate`] if the user authenticated
    /// longer than `max_age` ago.
    pub async fn read_session(
        &self,
        caller: &Caller,
        token: &str,
        max_age: Option<Duration>,
    ) -> Result<Session> {
        let session = self.find_session(caller, token).await?;
        if max_age.is_some_and(|max_age| session.auth_time.plus(max_age) < self.clock.now()) {
            return Err(Error::Reauthenticate);
        }
        Ok(session)
    }

    /// As [`Operations::read_session`], however old the proof is.
    async fn find_session(&self, caller: &Caller, token: &str) -> Result<Session> {
        let (namespace, now) = (&caller.namespace, self.clock.now());
        let digest = SessionToken::digest_of(token).ok_or(Error::SessionNotFound)?;
        let every = self.note_reads_every();
        // One that seems to have ended may have been read on another replica: the database knows.
        if let Some(cached) = self.cache.session(namespace, digest)
            && self.is_open(&cached.session)
            && every.is_none_or(|every| {
                !cached.note_read(now, every) || self.last_reads.add(namespace, digest, now)
            })
        {
            return Ok(cached.session.clone());
        }
        self.load_session(caller, digest).await
    }

    /// The time between reads of a session that are stored; `None` without an idle limit.
    fn note_reads_every(&self) -> Option<Duration> {
        self.rules.session_idle.map(|idle| LAST_READ_RESOLUTION.min(idle / 10))
    }

    /// The session that the token of this digest opens, as the database has it.
    pub(super) async fn load_session(&self, caller: &Caller, digest: SecretDigest) -> Result<Session> {
        let (namespace, now) = (&caller.namespace, self.clock.now());
        let every = self.note_reads_every();
        let (stamp, unstored) = (self.cache.stamp(), self.last_reads.waiting(namespace, digest));
        let session = store::sessions::find(&self.store.read(caller).await?, namespace, digest).await?;
        let mut session = session.ok_or(Error::SessionNotFound)?;
        let mut stored = session.last_read;
        session.last_read = unstored.map_or(stored, |at| at.max(stored));
        if !self.is_open(&session) {
            return Err(Error::SessionNotFound);
        }
        if every.is_some_and(|every| session.last_read.plus(every) < now) {
            let tx = self.store.begin(caller).await?;
            if store::sessions::touch(&tx, namespace, digest, now, self.open().idle_since).await? {
                stored = now;
            }
            tx.commit().await?;
            session.last_read = now;
        }
        // With the last read that the database has: other replicas tell by it whether the session has ended.
        self.cache.keep_session(stamp, namespace, digest, &Session { last_read: stored, ..session.clone() });
        Ok(session)
    }

    /// Stores the times at which cached sessions were last read, at the end of the server.
    pub async fn flush_last_reads(&self) -> Result<()> {
        self.last_reads.flush().await
    }

    /// Ends the session that `token` opens.
    pub async fn logout(&self, caller: &Caller, token: &str) -> Result<()> {
        let namespace = &caller.namespace;
        let digest = SessionToken::digest_of(token).ok_or(Error::SessionNotFound)?;
        let session = store::sessions::find(&self.store.read(caller).await?, namespace, digest).await?;
        let now = self.clock.now();
        let Some(session) = session.filter(|session| session.expires > now) else {
            self.cache.forget_session(namespace, digest);
            return Err(Error::SessionNotFound);
        };
        let was_open = self.is_open(&session);
        let event =
            Event::new(now, Action::SessionDeleted, Some(session.user.clone())).about(&session.public_id);
        let tx = self.store.begin(caller).await?;
        // One that was not read for long goes too: a read of it may be stored a moment later and open it again. Of two that
        // log out with one token at the same time, one comes late.
        if !store::sessions::delete(&tx, namespace, digest).await? {
            self.note_read_for_change(caller, &session.user);
            return Err(Error::SessionNotFound);
        }
        store::events::append(&tx, caller, &event).await?;
        tx.commit().await?;
        if was_open { Ok(()) } else { Err(Error::SessionNotFound) }
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
        wanted: &PageRequest,
    ) -> Result<ListPage<(StoredSession, Details)>> {
        let namespace = &caller.namespace;
        let digest = ListFields::new("sessions", namespace.as_str()).text(user.as_str()).digest();
        let start = self.start(&wanted.page, &digest, |cursor| Some(cursor.to_owned()))?;
        self.find(caller, &UserRef::Id(user.clone())).await?.ok_or(Error::UserNotFound)?;
        let (db, open) = (self.read_list(caller).await?, self.open());
        // One row more than asked for shows whether more follow.
        let (after, limit) = (start.after().map(String::as_str), wanted.page.limit);
        let mut rows = store::sessions::of_user(&db, namespace, user, open, after, limit + 1).await?;
        let next = self.truncate_page(&mut rows, limit, &digest, |last| last.public_id.clone());
        let total = if wanted.total {
            Some(store::sessions::count_of_user(&db, namespace, user, open).await?)
        } else {
            None
        };
        drop(db);
        Ok(self.with_device_details(ListPage { rows, total, next }, |session| &session.device).await)
    }

    /// Ends the session of a user that `public_id` names.
    pub async fn delete_session(&self, caller: &Caller, user: &UserId, public_id: &str) -> Result<()> {
        let event = Event::new(self.clock.now(), Action::SessionDeleted, Some(user.clone())).about(public_id);
        let tx = self.store.begin(caller).await?;
        let account = store::users::lock(&tx, &caller.namespace, user).await?;
        self.note_read_for_change(caller, user);
        account.ok_or(Error::UserNotFound)?;
        // Saves a query, and PostgreSQL takes no text with a NUL in it.
        if uuid::Uuid::try_parse(public_id).is_err() {
            return Err(Error::SessionNotFound);
        }
        if store::sessions::delete_open(&tx, &caller.namespace, user, public_id, self.open()).await? == 0 {
            return Err(Error::SessionNotFound);
        }
        store::events::append(&tx, caller, &event).await?;
        tx.commit().await
    }

    /// Ends all sessions of a user, and the log-ins that wait for a second factor. How many sessions were open.
    pub async fn delete_sessions(&self, caller: &Caller, user: &UserId) -> Result<u64> {
        let event = Event::new(self.clock.now(), Action::SessionsDeleted, Some(user.clone()));
        let tx = self.store.begin(caller).await?;
        let account = store::users::lock(&tx, &caller.namespace, user).await?;
        self.note_read_for_change(caller, user);
        account.ok_or(Error::UserNotFound)?;
        store::factors::end_challenges(&tx, &caller.namespace, user, self.clock.now()).await?;
        let ended = store::sessions::count_of_user(&tx, &caller.namespace, user, self.open()).await?;
        // Those that ended by themselves are no longer anyone's to end, but go with them. In one statement: the total of
        // sessions is locked after all rows.
        let removed = store::sessions::delete_of_user(&tx, &caller.namespace, user, None).await?;
        // An event in any case: a cache may have read one of them before it ended.
        if removed > 0 {
            store::events::append(&tx, caller, &event).await?;
        }
        tx.commit().await?;
        Ok(ended)
    }

    /// The condition of sessions that are open now.
    fn open(&self) -> OpenAt {
        let now = self.clock.now();
        OpenAt { now, idle_since: self.rules.session_idle.map(|idle| now.minus(idle)) }
    }

    /// Returns true unless the session has ended by itself.
    pub(super) fn is_open(&self, session: &Session) -> bool {
        let now = self.clock.now();
        let idle = self.rules.session_idle.is_some_and(|idle| session.last_read.plus(idle) <= now);
        session.expires > now && !idle
    }
}

fn session_of(user: &User, new: StoredSession) -> Session {
    Session {
        username: user.username.as_ref().map_or("", Username::as_str).to_owned(),
        email: user.email.as_ref().map_or("", Email::as_str).to_owned(),
        last_read: new.created,
        public_id: new.public_id,
        user: new.user,
        created: new.created,
        expires: new.expires,
        auth_time: new.auth_time,
        amr: new.amr,
    }
}
