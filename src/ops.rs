//! The operations of the service: hashing, then a transaction of changes and their event.

pub mod assertions;
pub mod codes;
mod deletion;
mod edits;
pub mod factors;
mod housekeeping;
pub mod keys;
mod last_reads;
pub mod list;
pub mod login;
mod logs;
pub mod namespaces;
pub mod passwords;
pub mod quotas;
mod redeem;
mod repeats;
pub mod second_factor;
pub mod sessions;
mod timekeeping;
mod trash;
pub mod users;
mod verify;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::blocklist::Blocklist;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::{Assertions, CacheSettings, Codes, Config, ThrottleLimits};
use crate::devices::{Devices, OpenError};
use crate::domain::caller::Caller;
use crate::domain::idempotency::CallDigester;
use crate::domain::page_token::TokenKey;
use crate::domain::password::PasswordPolicy;
use crate::domain::quota::Quotas;
use crate::domain::scope::Scope;
use crate::domain::user::User;
use crate::error::{Error, Result};
use crate::hasher::{HashPermit, Hasher, PeppersError};
use crate::metrics::Registry;
use crate::store::{self, Store};
use crate::throttle::Throttle;

use assertions::KeysInMemory;
use deletion::DeletionsSeen;
use housekeeping::HousekeepingMetrics;
use last_reads::LastReadQueue;
use repeats::RepeatableCalls;
use timekeeping::Timekeeper;

/// The rules that are settings.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The rules for new passwords.
    pub policy: PasswordPolicy,
    /// The lifetime of a session.
    pub session_lifetime: Duration,
    /// The time after which a session that is not read ends; `None`: only the lifetime counts.
    pub session_idle: Option<Duration>,
    /// The most sessions of one user; 0: any number.
    pub max_sessions: u32,
    /// Sessions end when the e-mail address or `sso_enabled` of their user changes.
    pub end_sessions_on_change: bool,
    /// The time after which a user in the trash is purged; `None`: never.
    pub trash_keep: Option<Duration>,
    /// The time after which an event is removed; `None`: never.
    pub logs_keep: Option<Duration>,
    /// The limits on guessing passwords.
    pub throttle: ThrottleLimits,
    /// The lifetimes of codes, and the limits on making them.
    pub codes: Codes,
    /// The longest time that the statements of a list may take together.
    pub list_timeout: Duration,
    /// The cache of sessions and users.
    pub cache: CacheSettings,
    /// The limits of namespaces that have none of their own.
    pub limits: Quotas,
    /// Signed assertions about sessions.
    pub assertions: Assertions,
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Self {
        Self {
            policy: config.policy(),
            session_lifetime: config.sessions.lifetime,
            session_idle: config.sessions.idle,
            max_sessions: config.sessions.max_per_user,
            end_sessions_on_change: config.sessions.end_on_change,
            trash_keep: config.trash.keep,
            logs_keep: config.logs.keep,
            throttle: config.throttle.clone(),
            codes: config.codes.clone(),
            list_timeout: config.pool.list_timeout,
            cache: config.cache.clone(),
            limits: config.namespaces.limits(),
            assertions: config.assertions.clone(),
        }
    }
}

/// Everything the service can do.
///
/// Cancel safety, of every operation: dropping the future before its transaction commits leaves nothing
/// behind. An attempt to prove a password, counted from before its hash, is refunded, wherever its future is
/// dropped. A COMMIT that has begun is carried to its end without the caller.
#[derive(Clone)]
pub struct Operations {
    store: Store,
    hasher: Hasher,
    clock: Clock,
    rules: Rules,
    devices: Devices,
    blocklist: Option<Blocklist>,
    page_tokens: TokenKey,
    challenges: TokenKey,
    throttle: Throttle,
    timekeeper: Timekeeper,
    cache: Cache,
    last_reads: LastReadQueue,
    housekeeping: HousekeepingMetrics,
    deletions_seen: DeletionsSeen,
    repeatable: RepeatableCalls,
    assertion_keys: KeysInMemory,
}

impl Operations {
    /// The service over a migrated database.
    pub async fn new(
        store: Store,
        hasher: Hasher,
        clock: Clock,
        rules: Rules,
        devices: Devices,
    ) -> Result<Self> {
        let secret = store::secrets::page_token(store.reader()).await?;
        let digester = CallDigester::from_secret(&store::secrets::bucket_key(store.reader()).await?);
        let throttle = Throttle::new(store.clone(), clock.clone(), rules.throttle.clone()).await?;
        let last = store::clocks::last(store.reader(), &clock.clocks().boot_id).await?;
        let timekeeper = Timekeeper::new(last);
        let cache = Cache::new(rules.cache.memory, rules.cache.max_age, Arc::clone(store.coherence()));
        let last_reads = LastReadQueue::new(store.clone(), rules.session_idle);
        Ok(Self {
            store,
            hasher,
            clock,
            rules,
            devices,
            blocklist: None,
            page_tokens: TokenKey::from_secret(&secret),
            challenges: TokenKey::for_challenges(&secret),
            throttle,
            timekeeper,
            cache,
            last_reads,
            housekeeping: HousekeepingMetrics::default(),
            deletions_seen: DeletionsSeen::default(),
            repeatable: RepeatableCalls::new(digester),
            assertion_keys: KeysInMemory::none().map_err(Error::internal)?,
        })
    }

    /// The same service, which also refuses new passwords that `blocklist` holds.
    pub fn with_blocklist(self, blocklist: Option<Blocklist>) -> Self {
        Self { blocklist, ..self }
    }

    /// The database, whose state the server shows.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Reads the country database again, or another one.
    pub fn reload_countries(&self, path: Option<&Path>) -> Result<(), OpenError> {
        self.devices.reload(path)
    }

    /// Reads the keys of `passwords.pepper` again, or those of another file.
    pub fn reload_peppers(&self, path: Option<&Path>) -> Result<(), PeppersError> {
        self.hasher.peppers().reload(path)
    }

    /// Registers the metrics of everything that operations use.
    pub fn register(&self, registry: &mut Registry) {
        self.hasher.register(registry);
        self.throttle.register(registry);
        self.cache.register(registry);
        self.store.register(registry);
        self.housekeeping.register(registry);
    }

    /// The time between reads of the log of events for the cache; `None` without a cache.
    pub fn follow_events_every(&self) -> Option<Duration> {
        (self.rules.cache.memory > 0).then_some(self.rules.cache.poll)
    }

    /// The rules for new passwords.
    pub fn policy(&self) -> &PasswordPolicy {
        &self.rules.policy
    }

    /// Returns a connection for a list, whose statements take a time that depends on what is asked for.
    async fn read_list(&self, caller: &Caller) -> Result<store::Reader> {
        self.store.read_within(caller, self.rules.list_timeout).await
    }

    /// Reserves a hash for the caller.
    fn reserve_hash(&self, caller: &Caller) -> Result<HashPermit> {
        // A hash that is not followed by the database is for nothing.
        self.store.health().check()?;
        self.hasher.admit(&caller.flow(), caller.deadline)
    }
}

/// Checks a scope that depends on the message and not only on the RPC.
fn require(caller: &Caller, scope: Scope) -> Result<()> {
    if caller.may(scope) { Ok(()) } else { Err(Error::ScopeMissing { scope: scope.name() }) }
}

/// Checks that the user is as it was when the caller read `etag`; an empty one always fits.
fn check_etag(user: &User, etag: &str) -> Result<()> {
    if etag.is_empty() || etag == user.etag() { Ok(()) } else { Err(Error::EtagMismatch) }
}
