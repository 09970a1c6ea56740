//! What the service does: hashing, then a transaction of changes and their event.

mod guard;
mod housekeeping;
pub mod keys;
pub mod lists;
mod logs;
pub mod passwords;
pub mod sessions;
mod timekeeping;
mod trash;
pub mod users;

use std::sync::Arc;
use std::time::Duration;

use crate::blocklist::Blocklist;
use crate::clock::Clock;
use crate::config::Config;
use crate::devices::Devices;
use crate::domain::caller::Caller;
use crate::domain::guard::{Limits, Marker};
use crate::domain::page_token::TokenKey;
use crate::domain::password::{PasswordHash, Policy};
use crate::domain::scope::Scope;
use crate::domain::user::{Account, Status, User};
use crate::error::{Error, Result};
use crate::hasher::{HashPermit, Hasher};
use crate::store::{self, Store};

use timekeeping::Timekeeper;

/// The rules that are settings.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What a new password must keep to.
    pub policy: Policy,
    /// How long a session lives.
    pub session_lifetime: Duration,
    /// How long a session lives unread; `None`: as long as any.
    pub session_idle: Option<Duration>,
    /// The most sessions of one user; 0: any number.
    pub max_sessions: u32,
    /// How long a user lies in the trash; `None`: until it is purged.
    pub trash_keep: Option<Duration>,
    /// How long an event is kept; `None`: for good.
    pub logs_keep: Option<Duration>,
    /// How often passwords may be guessed.
    pub guard: Limits,
    /// How long the statements of a list may take.
    pub list_timeout: Duration,
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Self {
        Self {
            policy: config.policy(),
            session_lifetime: config.sessions_lifetime,
            session_idle: config.sessions_idle,
            max_sessions: config.sessions_max_per_user,
            trash_keep: config.trash_keep,
            logs_keep: config.logs_keep,
            guard: config.guard,
            list_timeout: config.pool_list_timeout,
        }
    }
}

/// Everything the service can do.
///
/// Cancel safety, of every operation: dropping the future before its transaction commits leaves nothing behind. An attempt
/// to prove a password, counted from before its hash, is refunded, wherever its future is dropped. A COMMIT that has begun is
/// carried to its end without the caller.
#[derive(Clone)]
pub struct Operations {
    store: Store,
    hasher: Hasher,
    clock: Clock,
    rules: Rules,
    devices: Devices,
    blocklist: Option<Blocklist>,
    page_tokens: TokenKey,
    marker: Marker,
    notices: Arc<guard::Notices>,
    timekeeper: Timekeeper,
}

impl Operations {
    /// The service over a migrated database.
    ///
    /// # Errors
    ///
    /// What the database says: it keeps keys that all replicas share.
    pub async fn new(
        store: Store,
        hasher: Hasher,
        clock: Clock,
        rules: Rules,
        devices: Devices,
    ) -> Result<Self> {
        let page_tokens = TokenKey::from_secret(&store::secrets::page_token(store.reader()).await?);
        let marker = Marker::from_trusted(store::secrets::decoy(store.reader()).await?);
        let notices = Arc::default();
        let last = store::clocks::last(store.reader(), &clock.clocks().boot_id).await?;
        let timekeeper = Timekeeper::new(last);
        Ok(Self {
            store,
            hasher,
            clock,
            rules,
            devices,
            blocklist: None,
            page_tokens,
            marker,
            notices,
            timekeeper,
        })
    }

    /// The same service, which also refuses new passwords that `blocklist` holds.
    #[must_use]
    pub fn with_blocklist(self, blocklist: Option<Blocklist>) -> Self {
        Self { blocklist, ..self }
    }

    /// The database, whose state the server shows.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What a new password must keep to.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.rules.policy
    }

    /// Returns a connection for a list, whose statements take a time that depends on what is asked for.
    async fn read_list(&self, caller: &Caller) -> Result<store::Reader> {
        self.store.read_within(caller, self.rules.list_timeout).await
    }

    /// The caller's turn to have a password hashed.
    fn turn(&self, caller: &Caller) -> Result<HashPermit> {
        // A hash that is not followed by the database is for nothing.
        self.store.health().check()?;
        self.hasher.admit(&caller.flow(), caller.deadline)
    }
}

/// The password that may sign in `account`: none if the user has none or must sign in elsewhere.
fn password_of(account: Option<&Account>) -> Option<&PasswordHash> {
    account.filter(|account| !account.user.sso_enabled).and_then(|account| account.password.as_ref())
}

/// The account, if the password that was checked before this transaction is still the one that counts.
/// Anything else fails like a wrong password.
fn still_proven(account: Option<Account>, proven: Option<&PasswordHash>) -> Result<User> {
    let account = account.ok_or(Error::BadCredentials)?;
    if password_of(Some(&account)) != proven || proven.is_none() {
        return Err(Error::BadCredentials);
    }
    match account.user.status {
        Status::Blocked => Err(Error::UserBlocked),
        Status::Pending | Status::Active => Ok(account.user),
    }
}

/// What depends on the message and not only on the RPC: whether the caller may do it.
fn require(caller: &Caller, scope: Scope) -> Result<()> {
    if caller.may(scope) { Ok(()) } else { Err(Error::ScopeMissing { scope: scope.name() }) }
}

/// Whether the user is as it was when the caller read `etag`; an empty one fits always.
fn check_etag(user: &User, etag: &str) -> Result<()> {
    if etag.is_empty() || etag == user.etag() { Ok(()) } else { Err(Error::EtagMismatch) }
}
