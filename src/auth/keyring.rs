//! Every API key, in memory: calls are authenticated without asking the database.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::domain::caller::{Caller, Identity};
use crate::domain::key::{AllowedNamespaces, ApiKey, Key};
use crate::domain::namespace::Namespace;
use crate::domain::scope::Scopes;
use crate::domain::secret::SecretDigest;
use crate::domain::time::Timestamp;
use crate::error::{Error, Result};
use crate::store::key_changes::{KeyChanges, LastChange};
use crate::store::{self, Directory, KeysVersion, Store};

use super::limits::UsageCounter;

/// An authenticated caller.
#[derive(Debug)]
pub struct Principal {
    /// Its name in the log of events.
    pub name: Arc<str>,
    /// The way it authenticates.
    pub identity: Identity,
    /// The namespaces that it may work in.
    pub namespaces: AllowedNamespaces,
    /// The operations that it may call.
    pub scopes: Scopes,
    /// Its calls that are in progress.
    pub calls: Arc<UsageCounter>,
    /// Its open streams.
    pub streams: Arc<UsageCounter>,
    expires: Option<Timestamp>,
    /// When it was last used, and the last such time that the database has, in microseconds.
    last_used: AtomicI64,
    last_flushed: AtomicI64,
}

impl Principal {
    /// A caller that authenticates by its client certificate.
    pub fn new(name: &str, namespaces: AllowedNamespaces, scopes: Scopes) -> Self {
        Self {
            name: name.into(),
            identity: Identity::Certificate,
            namespaces,
            scopes,
            calls: Arc::default(),
            streams: Arc::default(),
            expires: None,
            last_used: AtomicI64::new(0),
            last_flushed: AtomicI64::new(0),
        }
    }

    /// Every caller of a server that asks for no key.
    pub fn anonymous() -> Self {
        let anonymous = Self::new(Caller::OPEN, AllowedNamespaces::One(Namespace::default()), Scopes::ALL);
        Self { identity: Identity::Open, ..anonymous }
    }

    /// Returns true if it did not authenticate, because the server asks for no key.
    pub fn is_anonymous(&self) -> bool {
        self.identity == Identity::Open
    }

    /// The principal of a key, with what is counted of it if it was `known` before.
    fn of(key: Key, known: Option<&Arc<Self>>) -> Arc<Self> {
        let used = AtomicI64::new(key.last_used.map_or(0, |at| at.0));
        let flushed = AtomicI64::new(used.load(Ordering::Relaxed));
        let principal = Self::new(&key.id, key.namespaces, key.scopes);
        let principal = Self {
            identity: Identity::Key,
            expires: key.expires,
            last_used: used,
            last_flushed: flushed,
            ..principal
        };
        let Some(known) = known else { return Arc::new(principal) };
        let may = |principal: &Self| (principal.namespaces.clone(), principal.scopes, principal.expires);
        if known.name == principal.name && may(known) == may(&principal) {
            return Arc::clone(known);
        }
        principal.last_used.fetch_max(known.last_used.load(Ordering::Relaxed), Ordering::Relaxed);
        Arc::new(Self { calls: Arc::clone(&known.calls), streams: Arc::clone(&known.streams), ..principal })
    }
}

#[derive(Debug, Default)]
struct Table {
    /// `None` before the first reading.
    version: Option<KeysVersion>,
    /// Where the next reading goes on.
    last: Option<LastChange>,
    /// True once a key was created, even if the database was restored from an older backup since.
    any_key_created: bool,
    keys: HashMap<SecretDigest, Arc<Principal>>,
}

/// The keys of all namespaces, as the database had them less than a second ago. Cheap to clone.
#[derive(Clone)]
pub struct KeyRing {
    store: Store,
    clock: Clock,
    /// Written by the refresh that runs, for as long as it takes to put in what changed.
    table: Arc<RwLock<Table>>,
    /// Held by the one refresh that runs.
    refreshes: Arc<Mutex<Refreshes>>,
    /// The number of refreshes that have begun.
    begun: Arc<AtomicU64>,
    /// When the database last confirmed the keys.
    confirmed: Arc<RwLock<Instant>>,
    /// The number of keys that were hashed and looked up.
    authentications: Arc<AtomicU64>,
    /// The number of keys that were read from the database.
    keys_read: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Refreshes {
    /// The number of the last one that succeeded.
    done: u64,
}

impl KeyRing {
    /// The time between checks for changed keys: a revoked key is refused within a second, with
    /// as much time again for the question. The same question shows whether the database is there at all.
    pub const REFRESH: Duration = Duration::from_millis(400);

    /// The time for which keys are trusted that could not be confirmed: a revoked one might be among them.
    pub const TRUSTED: Duration = Directory::TRUSTED;

    /// The time between writes of the times of last use to the database.
    pub const FLUSH_INTERVAL: Duration = Duration::from_mins(1);

    /// The keys of a migrated database.
    pub async fn load(store: Store, clock: Clock) -> Result<Self> {
        let ring = Self {
            store,
            clock,
            table: Arc::default(),
            refreshes: Arc::default(),
            begun: Arc::default(),
            confirmed: Arc::new(RwLock::new(Instant::now())),
            authentications: Arc::default(),
            keys_read: Arc::default(),
        };
        ring.refresh().await?;
        Ok(ring)
    }

    /// The namespaces that were created or are being deleted, which are read with the keys.
    pub fn directory(&self) -> &Directory {
        self.store.directory()
    }

    /// Returns true if no key was ever created.
    pub fn is_empty_ever(&self) -> bool {
        !self.table().any_key_created
    }

    /// Returns the number of keys that were hashed and looked up since the start.
    pub fn authentications(&self) -> u64 {
        self.authentications.load(Ordering::Relaxed)
    }

    /// Returns the number of keys that were read from the database since the start.
    pub fn keys_read(&self) -> u64 {
        self.keys_read.load(Ordering::Relaxed)
    }

    /// Rejects while the keys may have changed without our knowing: neither is a known key good then, nor an
    /// unknown one wrong.
    /// Fails with [`Error::DatabaseUnavailable`] after [`KeyRing::TRUSTED`] without a word from the database.
    pub fn check(&self) -> Result<()> {
        let age = self.confirmed.read().unwrap_or_else(PoisonError::into_inner).elapsed();
        if age <= Self::TRUSTED {
            return Ok(());
        }
        Err(Error::DatabaseUnavailable(format!("API keys are unconfirmed for {} s", age.as_secs()).into()))
    }

    /// Returns the principal of a key that is valid now. Does the same work for every key of the right form.
    /// Fails with [`Error::KeyUnknown`]; [`Error::DatabaseUnavailable`] as [`KeyRing::check`].
    pub fn authenticate(&self, key: &str) -> Result<Arc<Principal>> {
        self.check()?;
        self.authentications.fetch_add(1, Ordering::Relaxed);
        let digest = ApiKey::digest_of(key).ok_or(Error::KeyUnknown)?;
        let principal = self.table().keys.get(&digest).cloned().ok_or(Error::KeyUnknown)?;
        let now = self.clock.now();
        if principal.expires.is_some_and(|at| at <= now) {
            return Err(Error::KeyUnknown);
        }
        principal.last_used.fetch_max(now.0, Ordering::Relaxed);
        Ok(principal)
    }

    /// Reads what has changed of the keys. Callers that come together share one reading.
    ///
    /// # Errors
    ///
    /// Those of the database; then the ring stays as it was.
    pub async fn refresh(&self) -> Result<()> {
        let begun = self.begun.load(Ordering::SeqCst);
        let mut refreshes = self.refreshes.lock().await;
        // One that began after this call has seen all that this one would.
        if refreshes.done > begun {
            return Ok(());
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let asked_at = Instant::now();
        self.read().await?;
        refreshes.done = number;
        *self.confirmed.write().unwrap_or_else(PoisonError::into_inner) = asked_at;
        Ok(())
    }

    async fn read(&self) -> Result<()> {
        let version = self.store.keys_version().await?;
        let (known, last) = {
            let table = self.table();
            (table.version, table.last.clone())
        };
        if Some(version) == known {
            return Ok(());
        }
        // By another connection, or with a lower number, it may be another database.
        let follows =
            known.is_some_and(|known| known.connected == version.connected && version.number > known.number);
        let last = last.filter(|_| follows);
        // Read after the version: keys may be newer than that says, never older.
        let changes = self.store.key_changes(version.number, last.as_ref()).await?;
        self.keys_read.fetch_add(changes.keys.len() as u64, Ordering::Relaxed);
        self.apply(version, changes);
        Ok(())
    }

    fn apply(&self, version: KeysVersion, changes: KeyChanges) {
        let renewed: Vec<_> = {
            let table = self.table();
            let renew = |(digest, key): (SecretDigest, Option<Key>)| {
                (digest, key.map(|key| Principal::of(key, table.keys.get(&digest))))
            };
            changes.keys.into_iter().map(renew).collect()
        };
        let present = |(digest, key): (SecretDigest, Option<Arc<Principal>>)| Some((digest, key?));
        let (all, some) = if changes.complete {
            (Some(renewed.into_iter().filter_map(present).collect()), Vec::new())
        } else {
            (None, renewed)
        };
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let replaced = all.map(|all| std::mem::replace(&mut table.keys, all));
        for (digest, key) in some {
            match key {
                Some(key) => table.keys.insert(digest, key),
                None => table.keys.remove(&digest),
            };
        }
        (table.version, table.last) = (Some(version), changes.last);
        table.any_key_created |= version.number > 0;
        drop(table);
        drop(replaced); // takes long where there are many, and callers wait for the lock
    }

    /// Writes the times of last use that changed since the last flush to the database.
    pub async fn flush_last_used(&self) -> Result<()> {
        let changed = |key: &&Arc<Principal>| {
            key.last_used.load(Ordering::Relaxed) > key.last_flushed.load(Ordering::Relaxed)
        };
        let mut used: Vec<Arc<Principal>> = self.table().keys.values().filter(changed).cloned().collect();
        // Replicas that flush the same keys in the same order wait for each other and cannot deadlock.
        used.sort_by(|one, other| {
            (one.namespaces.as_str(), &one.name).cmp(&(other.namespaces.as_str(), &other.name))
        });
        if used.is_empty() {
            return Ok(());
        }
        let tx = self.store.begin_as_server().await?;
        let mut flushed = Vec::with_capacity(used.len());
        for key in &used {
            let at = key.last_used.load(Ordering::Relaxed);
            store::keys::touch(&tx, &key.namespaces, &key.name, Timestamp(at)).await?;
            flushed.push((key, at));
        }
        tx.commit().await?;
        for (key, at) in flushed {
            key.last_flushed.store(at, Ordering::Relaxed);
        }
        Ok(())
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.table().keys.len())
    }
}
