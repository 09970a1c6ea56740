//! The guard before every password: counts attempts before they are made, makes those wait who fail, and lets nobody
//! tell users who exist from users who do not.

use std::net::IpAddr;

use crate::domain::caller::Caller;
use crate::domain::email::Email;
use crate::domain::event::{Action, Event};
use crate::domain::guard::{self, Count, Limits, Mark};
use crate::domain::password::PasswordHash;
use crate::domain::session::Device;
use crate::domain::time::Timestamp;
use crate::domain::user::{Account, User};
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::{Error, Result};
use crate::store;

use super::{Operations, password_of};

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

/// An attempt that counts as failed until it is given back. Dropped before the password was found right or wrong, it
/// gives itself back: who leaves, or finds the hasher busy or the database away, has guessed nothing.
pub(super) struct Guess {
    user: Option<UserId>,
    marks: Vec<Mark>,
    /// Where failures in a row are counted.
    streak: Mark,
    hour: i64,
    /// Whether the account's failures are spent, under several names: no password is right then.
    void: bool,
    place: Option<Mark>,
    /// Who gives it back, until it is decided.
    undecided: Option<(Operations, Caller)>,
}

impl Guess {
    /// Whether the user whose password it is has another hash by `now` than the one that was `checked`.
    pub(super) fn finds_another_hash(&self, now: Option<&Account>, checked: Option<&PasswordHash>) -> bool {
        let same_user = self.user.is_some() && self.user.as_ref() == now.map(|account| &account.user.id);
        same_user && password_of(now) != checked
    }

    /// Whether a password that is `right` proves anything. Asked after the check, which takes as long as any.
    pub(super) fn may_prove(&self, right: bool) -> bool {
        right && !self.void
    }

    /// What it counts for is settled.
    pub(super) fn decide(&mut self) {
        self.undecided = None;
    }
}

impl Drop for Guess {
    fn drop(&mut self) {
        let Some((ops, caller)) = self.undecided.take() else { return };
        // Without a runtime there is nobody to do it: the service ends.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (marks, hour) = (std::mem::take(&mut self.marks), self.hour);
        runtime.spawn(async move {
            if let Err(error) = ops.forgive(&caller, &marks, hour).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "an attempt without a verdict stays counted as failed"
                );
            }
        });
    }
}

impl Operations {
    /// Counts an attempt before it is made, so that no number of them at the same time gets past a limit.
    ///
    /// The same statements, rows and answers for a user who exists and one who does not. What is refused counts nothing.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyAttempts`]
    pub(super) async fn guess(
        &self,
        caller: &Caller,
        alias: &Alias,
        account: Option<&Account>,
        address: Option<IpAddr>,
    ) -> Result<Guess> {
        let (namespace, now) = (&caller.namespace, self.clock.now());
        let user = account.map(|account| &account.user.id);
        let owner = self.account_mark(alias, user);
        let place = address.map(|address| self.marker.address(address));
        let familiar = match &place {
            Some(place) => {
                let user = user.map_or("", UserId::as_str);
                store::attempts::is_familiar(&self.store.read(caller).await?, namespace, user, place).await?
            }
            None => false,
        };
        let streak = match &place {
            Some(place) if familiar => self.familiar_mark(&owner, place),
            _ => self.marker.mark("name", &alias.parts()),
        };
        let shared = if familiar { Vec::new() } else { self.shared(caller, place) };
        let mut marks = vec![streak, owner];
        marks.extend(shared.iter().map(|(mark, _)| *mark));
        let hour = guard::hour(now);
        // Who is locked out is told so by a read: writes are few, and those who fail least should have them.
        let foreseen =
            store::attempts::foresee(&self.store.read(caller).await?, namespace, &marks, hour).await?;
        self.judge(&foreseen, &shared, familiar, now)?;
        let tx = self.store.begin(caller).await?; // any `?` from here to commit counts nothing
        let counts = store::attempts::reserve(&tx, namespace, &marks, hour).await?;
        let void = self.judge(&counts, &shared, familiar, now)?;
        if void {
            // It cannot succeed, so it takes nothing of what is left for the places that the user knows.
            store::attempts::give_back(&tx, namespace, &[owner], None, hour).await?;
            marks.retain(|mark| *mark != owner);
        }
        tx.commit().await?;
        let undecided = Some((self.clone(), caller.clone()));
        Ok(Guess { user: user.cloned(), marks, streak, hour, void, place, undecided })
    }

    /// What strangers share with others, and its limit. Where the user is known, nobody else's failures keep the user out.
    /// A limit that is off is not counted: all calls of a caller would wait for one row.
    fn shared(&self, caller: &Caller, place: Option<Mark>) -> Vec<(Mark, u32)> {
        let limits = &self.rules.guard;
        let mut shared: Vec<_> = place.map(|place| (place, limits.address)).into_iter().collect();
        shared.push((self.marker.mark("caller", &[caller.name.as_bytes()]), limits.caller));
        shared.retain(|(_, limit)| *limit > 0);
        shared
    }

    /// Whether the account's failures are spent though those under this name are not: saying so would tell that two names
    /// are one user's.
    fn judge(
        &self,
        counts: &[Count],
        shared: &[(Mark, u32)],
        familiar: bool,
        now: Timestamp,
    ) -> Result<bool> {
        let [streak, owner, rest @ ..] = counts else {
            return Err(Error::internal("an attempt was not counted"));
        };
        let limits = &self.rules.guard;
        let wait = limits.wait(streak, now);
        if !wait.is_zero() {
            return Err(Error::TooManyAttempts { retry_after: wait });
        }
        let most = if familiar { limits.account } else { limits.strangers() };
        let mut full = vec![Limits::full(streak, most, now)];
        full.extend(rest.iter().zip(shared).map(|(count, (_, limit))| Limits::full(count, *limit, now)));
        let owner = Limits::full(owner, most, now);
        if familiar {
            full.push(owner);
        }
        let wait = full.into_iter().max().unwrap_or_default();
        if !wait.is_zero() {
            return Err(Error::TooManyAttempts { retry_after: wait });
        }
        Ok(!owner.is_zero())
    }

    /// What a password is checked against where there is none that could be right: that of a user drawn by what the user
    /// is called, so that it takes as long as those that are stored, and each time as long.
    pub(super) async fn decoy(&self, caller: &Caller, alias: &Alias) -> Result<Option<PasswordHash>> {
        let lot = self.marker.lot(&alias.parts());
        store::users::password_by_chance(&self.store.read(caller).await?, &caller.namespace, lot).await
    }

    /// Notes a refusal and that the attempt failed: the same rows whether the user is known or not. The right password of
    /// a blocked user is no failure.
    pub(super) async fn note_refusal(
        &self,
        caller: &Caller,
        action: Action,
        guess: &mut Guess,
        device: Device,
        error: &Error,
    ) -> Result<()> {
        let right = matches!(error, Error::UserBlocked);
        if !right {
            guess.decide(); // before anything that may fail: it stays counted
        }
        let now = self.clock.now();
        let event = Event::new(now, action, guess.user.clone()).from(device);
        let tx = self.store.begin(caller).await?;
        store::events::append(&tx, caller, &event).await?;
        if right {
            store::attempts::give_back(&tx, &caller.namespace, &guess.marks, Some(&guess.streak), guess.hour)
                .await?;
        } else {
            let stale = now.minus(self.rules.guard.longest_wait.max(guard::HOUR));
            store::attempts::fail(&tx, &caller.namespace, &guess.streak, now, stale).await?;
        }
        guess.decide(); // before it is done, or one that is cut off here could be given back twice
        tx.commit().await
    }

    /// Gives an attempt back that led to nothing. Failures in a row stay: it was not shown to be right.
    async fn forgive(&self, caller: &Caller, marks: &[Mark], hour: i64) -> Result<()> {
        let tx = self.store.begin(caller).await?;
        store::attempts::give_back(&tx, &caller.namespace, marks, None, hour).await?;
        tx.commit().await
    }

    /// Gives a right attempt back, in the transaction of what it was for, and remembers from where it came.
    pub(super) async fn give_back(
        &self,
        tx: &store::Transaction,
        caller: &Caller,
        guess: &Guess,
    ) -> Result<()> {
        let namespace = &caller.namespace;
        store::attempts::give_back(tx, namespace, &guess.marks, Some(&guess.streak), guess.hour).await?;
        if let (Some(user), Some(place)) = (&guess.user, &guess.place) {
            store::attempts::make_familiar(tx, namespace, user, place, self.clock.now()).await?;
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
        let owner = self.account_mark(&Alias::by_id(id), Some(id));
        let mut marks = vec![owner];
        marks.extend(names_of(&user).iter().map(|alias| self.marker.mark("name", &alias.parts())));
        for place in store::attempts::places_of(&tx, namespace, id).await? {
            marks.push(self.familiar_mark(&owner, &place));
        }
        store::attempts::forget(&tx, namespace, &marks).await?;
        store::events::append(&tx, caller, &event).await?;
        tx.commit().await?;
        Ok(user)
    }

    fn account_mark(&self, alias: &Alias, user: Option<&UserId>) -> Mark {
        match user {
            Some(id) => self.marker.mark("account", &[id.as_str().as_bytes()]),
            None => self.marker.mark("account", &alias.parts()),
        }
    }

    fn familiar_mark(&self, owner: &Mark, place: &[u8]) -> Mark {
        self.marker.mark("familiar", &[owner, place])
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
