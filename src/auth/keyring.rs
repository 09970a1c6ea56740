//! Every API key, in memory: a call is let in or refused without asking the database.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::domain::caller::{Caller, Identity};
use crate::domain::key::{Key, Reach};
use crate::domain::namespace::Namespace;
use crate::domain::scope::Scopes;
use crate::domain::secret::SecretDigest;
use crate::domain::time::Timestamp;
use crate::error::{Error, Result};
use crate::store::{self, Store};

use super::limits::Meter;

/// Somebody who may call.
#[derive(Debug)]
pub struct Known {
    /// What events name it.
    pub name: Arc<str>,
    /// How it proves that.
    pub identity: Identity,
    /// Where it may work.
    pub reach: Reach,
    /// What it may do.
    pub scopes: Scopes,
    /// What it asks right now.
    pub meter: Meter,
    expires: Option<Timestamp>,
    /// When it was last seen, in microseconds, and up to when that is written down.
    used: AtomicI64,
    noted: AtomicI64,
}

impl Known {
    /// A caller that is known by its client certificate.
    #[must_use]
    pub fn new(name: &str, reach: Reach, scopes: Scopes) -> Self {
        let (used, noted) = (AtomicI64::new(0), AtomicI64::new(0));
        let identity = Identity::Certificate;
        Self {
            name: name.into(),
            identity,
            reach,
            scopes,
            meter: Meter::default(),
            expires: None,
            used,
            noted,
        }
    }

    /// Whoever needs no key.
    #[must_use]
    pub fn open() -> Self {
        let open = Self::new(Caller::OPEN, Reach::One(Namespace::default()), Scopes::ALL);
        Self { identity: Identity::Open, ..open }
    }

    /// Whether it is whoever needs no key.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.identity == Identity::Open
    }

    fn of(key: Key) -> Self {
        let used = key.last_used.map_or(0, |at| at.0);
        let known = Self::new(&key.id, key.reach, key.scopes);
        let identity = Identity::Key;
        Self {
            identity,
            expires: key.expires,
            used: AtomicI64::new(used),
            noted: AtomicI64::new(used),
            ..known
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    version: i64,
    /// Whether there was ever a key, also if the database has gone back to before.
    ever: bool,
    keys: HashMap<SecretDigest, Arc<Known>>,
}

/// The keys of all namespaces, as the database had them less than a second ago. Cheap to clone.
#[derive(Clone)]
pub struct KeyRing {
    store: Store,
    clock: Clock,
    table: Arc<RwLock<Arc<Table>>>,
    /// Held by the one refresh that runs.
    refreshes: Arc<Mutex<Refreshes>>,
    /// How many refreshes have begun.
    begun: Arc<AtomicU64>,
    /// When the database last said that the keys are as they are here.
    confirmed: Arc<RwLock<Instant>>,
}

#[derive(Debug, Default)]
struct Refreshes {
    /// The number of the last one that succeeded.
    done: u64,
}

impl KeyRing {
    /// How often the database is asked whether keys have changed: a revoked key is refused within a second, with
    /// as much time again for the question. The same question shows whether the database is there at all.
    pub const REFRESH: Duration = Duration::from_millis(400);

    /// How long keys are trusted that could not be confirmed: a revoked one might be among them.
    pub const TRUSTED: Duration = Duration::from_secs(5);

    /// How often it is written down when keys were last used.
    pub const NOTE: Duration = Duration::from_mins(1);

    /// The keys of a migrated database.
    ///
    /// # Errors
    ///
    /// Those of the database, as all functions here.
    pub async fn load(store: Store, clock: Clock) -> Result<Self> {
        let ring = Self {
            store,
            clock,
            table: Arc::default(),
            refreshes: Arc::default(),
            begun: Arc::default(),
            confirmed: Arc::new(RwLock::new(Instant::now())),
        };
        ring.refresh().await?;
        Ok(ring)
    }

    /// Whether there never was a key.
    #[must_use]
    pub fn is_new(&self) -> bool {
        !self.table().ever
    }

    /// Rejects while the keys may have changed without our knowing: neither is a known key good then, nor an unknown one
    /// wrong.
    ///
    /// # Errors
    ///
    /// [`Error::DatabaseUnavailable`] after [`KeyRing::TRUSTED`] without a word from the database.
    pub fn check(&self) -> Result<()> {
        let age = self.confirmed.read().unwrap_or_else(PoisonError::into_inner).elapsed();
        if age <= Self::TRUSTED {
            return Ok(());
        }
        Err(Error::DatabaseUnavailable(format!("API keys are unconfirmed for {} s", age.as_secs()).into()))
    }

    /// Who has the key, if it is good now. The same work for every digest.
    #[must_use]
    pub fn find(&self, digest: &SecretDigest) -> Option<Arc<Known>> {
        let known = self.table().keys.get(digest).cloned()?;
        let now = self.clock.now();
        if known.expires.is_some_and(|at| at <= now) {
            return None;
        }
        known.used.fetch_max(now.0, Ordering::Relaxed);
        Some(known)
    }

    /// Reads the keys again if they have changed. Callers that come together share one reading.
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
        let old = self.table();
        if version == old.version {
            return Ok(());
        }
        // Read after the version: it may be newer than that says, never older.
        let all = self.store.all_keys().await?;
        let same = |(digest, key): (SecretDigest, Key)| {
            let known = old.keys.get(&digest).cloned();
            (digest, known.unwrap_or_else(|| Arc::new(Known::of(key))))
        };
        let ever = old.ever || version > 0;
        let new = Arc::new(Table { version, ever, keys: all.into_iter().map(same).collect() });
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        // Another one may have been quicker, and seen more. (A database that was put back has an older number.)
        if Arc::ptr_eq(&table, &old) || table.version < version {
            *table = new;
        }
        Ok(())
    }

    /// Writes down which keys were used since the last time.
    ///
    /// # Errors
    ///
    /// Those of the database; then the next time does it.
    pub async fn note_use(&self) -> Result<()> {
        let unnoted =
            |known: &&Arc<Known>| known.used.load(Ordering::Relaxed) > known.noted.load(Ordering::Relaxed);
        let table = self.table();
        let mut used: Vec<&Arc<Known>> = table.keys.values().filter(unnoted).collect();
        // Replicas that note the same keys in the same order wait for each other, and never both.
        used.sort_by_key(|known| (known.reach.as_str(), Arc::clone(&known.name)));
        if used.is_empty() {
            return Ok(());
        }
        let tx = self.store.begin_as_server().await?;
        let mut noted = Vec::with_capacity(used.len());
        for known in used {
            let at = known.used.load(Ordering::Relaxed);
            store::keys::touch(&tx, &known.reach, &known.name, Timestamp(at)).await?;
            noted.push((known, at));
        }
        tx.commit().await?;
        for (known, at) in noted {
            known.noted.store(at, Ordering::Relaxed);
        }
        Ok(())
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.table().keys.len())
    }
}
