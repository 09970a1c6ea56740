//! Sessions and users that were read lately, in memory: a call that asks for one again costs no way to the database.
//!
//! Bounded in bytes, shared by both. Only what was found is kept: tokens and ids that open nothing take no room. Whether
//! a record may still be used is decided by [`Coherence`], whose module says why no change is missed; here is only what
//! belongs to one record. [`Cache::stamp`] is taken before a record is loaded and given back with it.
//!
//! Loads are not shared: callers that miss the same record together ask the database each for itself, as they did without
//! a cache, and none of them can get what another one read too early.

use std::hash::{BuildHasher as _, RandomState};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use quick_cache::Weighter;

use crate::domain::email::Email;
use crate::domain::namespace::Namespace;
use crate::domain::secret::SecretDigest;
use crate::domain::session::Session;
use crate::domain::time::Timestamp;
use crate::domain::user::User;
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::metrics::{ByLabel, Counter, Registry, gauge, number};
use crate::store::coherence::{Coherence, Slot, Stamp};

/// The cache, cheap to clone. Without memory it keeps nothing and finds nothing.
#[derive(Clone)]
pub struct Cache {
    coherence: Arc<Coherence>,
    max_age: Duration,
    records: Option<Arc<Records>>,
    /// Two, for the two halves of a key: ids are chosen by callers.
    keys: [RandomState; 2],
    lookups: Lookups,
}

/// The hits and misses.
#[derive(Clone)]
struct Lookups {
    hits: ByLabel<Counter, 2>,
    misses: ByLabel<Counter, 2>,
}

/// The kinds of records.
#[derive(Clone, Copy)]
enum Kind {
    Session,
    User,
}

impl Lookups {
    fn new() -> Self {
        let count = || ByLabel::new("record", ["session", "user"], Counter::default);
        Self { hits: count(), misses: count() }
    }

    /// Counts a look-up, and returns what it found.
    fn note<T>(&self, kind: Kind, found: Option<T>) -> Option<T> {
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.of(kind as usize).inc();
        found
    }
}

type Records = quick_cache::sync::Cache<Key, Record, Bytes>;

/// Leads to a record, which says itself whose it is: another one with the same key is a miss.
type Key = [u64; 2];

#[derive(Clone)]
enum Record {
    Session(Arc<Cached<CachedSession>>),
    User(Arc<Cached<User>>),
}

/// A record, and what decides whether it may be used.
pub struct Cached<T> {
    namespace: Namespace,
    slot: Slot,
    stamp: Stamp,
    bytes: usize,
    record: T,
}

impl<T> Deref for Cached<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.record
    }
}

/// A session by the digest of its token.
pub struct CachedSession {
    digest: SecretDigest,
    /// The session as the database had it.
    pub session: Session,
    /// The last read of it that is to be stored, in microseconds.
    noted: AtomicI64,
}

impl CachedSession {
    /// Returns true if the read at `now` is to be stored, which it is once in `every`.
    pub fn note_read(&self, now: Timestamp, every: Duration) -> bool {
        let noted = self.noted.load(Ordering::Relaxed);
        let due = Timestamp(noted).plus(every) < now;
        // Of several at the same time, one.
        due && self.noted.compare_exchange(noted, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// The bytes of an entry beside its record: its place in a map that has just grown, and what the allocator loses between
/// records that come and go. Measured with glibc's and with mimalloc, so that the process grows by what is promised.
const PER_ENTRY: usize = 320;

/// The bytes that an allocation takes more than was asked for, on average.
const PER_ALLOCATION: usize = 8;

/// A usual entry, from which the map learns how many to expect.
const USUAL_ENTRY: usize = 512;

#[derive(Clone, Copy)]
struct Bytes;

impl Weighter<Key, Record> for Bytes {
    fn weight(&self, _: &Key, record: &Record) -> u64 {
        let bytes = match record {
            Record::Session(session) => session.bytes,
            Record::User(user) => user.bytes,
        };
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

impl Cache {
    /// A cache of at most `memory` bytes, whose records count as `coherence` says.
    pub fn new(memory: usize, max_age: Duration, coherence: Arc<Coherence>) -> Self {
        let records = || {
            Arc::new(Records::with_weighter(
                memory / USUAL_ENTRY,
                memory.try_into().unwrap_or(u64::MAX),
                Bytes,
            ))
        };
        let keys = [RandomState::new(), RandomState::new()];
        Self { coherence, max_age, records: (memory > 0).then(records), keys, lookups: Lookups::new() }
    }

    /// The stamp of a record that is about to be loaded.
    pub fn stamp(&self) -> Stamp {
        self.coherence.stamp()
    }

    /// The session of a token with that digest, unless it has to be loaded. It may have ended by itself.
    pub fn session(&self, namespace: &Namespace, digest: SecretDigest) -> Option<Arc<Cached<CachedSession>>> {
        let found = match self.records.as_ref()?.get(&session_key(digest)) {
            Some(Record::Session(found)) if found.digest == digest && self.admits(&found, namespace) => {
                Some(found)
            }
            _ => None,
        };
        self.lookups.note(Kind::Session, found)
    }

    /// The live user with that id, unless it has to be loaded.
    pub fn user(&self, namespace: &Namespace, id: &UserId) -> Option<Arc<Cached<User>>> {
        let found = match self.records.as_ref()?.get(&self.user_key(namespace, id)) {
            Some(Record::User(found)) if found.id == *id && self.admits(&found, namespace) => Some(found),
            _ => None,
        };
        self.lookups.note(Kind::User, found)
    }

    /// Registers the metrics of the cache.
    pub fn register(&self, registry: &mut Registry) {
        let (entries, bytes) = (self.records.clone(), self.records.clone());
        registry.register(
            "usersd_cache_hits",
            "Sessions and users that were answered from memory",
            self.lookups.hits.clone(),
        );
        registry.register(
            "usersd_cache_misses",
            "Sessions and users that had to be read from the database",
            self.lookups.misses.clone(),
        );
        gauge(registry, "usersd_cache_entries", "Sessions and users in memory", move || {
            entries.as_ref().map(|records| number(records.len()))
        });
        gauge(registry, "usersd_cache_bytes", "Memory of the sessions and users in memory", move || {
            bytes.as_ref().map(|records| number(usize::try_from(records.weight()).unwrap_or(usize::MAX)))
        });
    }

    /// Has a session loaded again that was not found in the database just now: it ended without this process noting it in time.
    pub fn forget_session(&self, namespace: &Namespace, digest: SecretDigest) {
        let found = self.records.as_ref().and_then(|records| records.get(&session_key(digest)));
        if let Some(Record::Session(found)) = found
            && found.digest == digest
            && found.namespace == *namespace
        {
            self.coherence.note(found.slot);
        }
    }

    fn admits<T>(&self, found: &Cached<T>, namespace: &Namespace) -> bool {
        found.namespace == *namespace && self.coherence.admits(found.slot, found.stamp, self.max_age)
    }

    /// Keeps a session that was loaded after `stamp` was taken.
    pub fn keep_session(&self, stamp: Stamp, namespace: &Namespace, digest: SecretDigest, session: &Session) {
        let Some(records) = &self.records else { return };
        let slot = self.coherence.slot(namespace.as_str(), session.user.as_str());
        let noted = AtomicI64::new(session.last_read.0);
        let bytes = size_of::<Cached<CachedSession>>() + heap_of_session(session);
        let record = CachedSession { digest, session: session.clone(), noted };
        let cached = cached(namespace, slot, stamp, bytes, record);
        records.insert(session_key(digest), Record::Session(cached));
    }

    /// Keeps a live user who was loaded after `stamp` was taken.
    pub fn keep_user(&self, stamp: Stamp, namespace: &Namespace, user: &User) {
        let Some(records) = &self.records else { return };
        let slot = self.coherence.slot(namespace.as_str(), user.id.as_str());
        let bytes = size_of::<Cached<User>>() + heap_of_user(user);
        let cached = cached(namespace, slot, stamp, bytes, user.clone());
        records.insert(self.user_key(namespace, &user.id), Record::User(cached));
    }

    fn user_key(&self, namespace: &Namespace, id: &UserId) -> Key {
        self.keys.each_ref().map(|key| key.hash_one((namespace.as_str(), id.as_str())))
    }
}

fn cached<T>(namespace: &Namespace, slot: Slot, stamp: Stamp, bytes: usize, record: T) -> Arc<Cached<T>> {
    Arc::new(Cached { namespace: namespace.clone(), slot, stamp, bytes: bytes + PER_ENTRY, record })
}

/// Half of the digest, which no caller can choose.
fn session_key(digest: SecretDigest) -> Key {
    let mut key = [0; 2];
    for (number, bytes) in key.iter_mut().zip(digest.as_bytes().as_chunks().0) {
        *number = u64::from_ne_bytes(*bytes);
    }
    key
}

/// The bytes of a text on the heap.
fn heap(text: &str) -> usize {
    if text.is_empty() { 0 } else { text.len() + PER_ALLOCATION }
}

fn heap_of_session(session: &Session) -> usize {
    let Session { public_id, user, username, email, amr, .. } = session;
    [public_id, user.as_str(), username, email, amr].map(heap).iter().sum()
}

fn heap_of_user(user: &User) -> usize {
    let (username, email) = (user.username.as_ref(), user.email.as_ref());
    let names = [username.map_or("", Username::as_str), email.map_or("", Email::as_str)];
    let texts = [user.id.as_str(), names[0], names[1], user.name.as_str(), user.prefs.as_str()];
    let labels = user.labels.as_slice().iter().map(|label| size_of::<String>() + heap(label));
    // The nodes of a map are half full at the least.
    let pair = 2 * size_of::<(String, String)>();
    let metadata = user.metadata.as_map();
    let pairs = metadata.iter().map(|(key, value)| pair + heap(key) + heap(value));
    let node = if metadata.is_empty() { 0 } else { 12 * size_of::<(String, String)>() };
    texts.map(heap).iter().sum::<usize>() + labels.sum::<usize>() + pairs.sum::<usize>() + node
}

#[cfg(test)]
mod tests;
