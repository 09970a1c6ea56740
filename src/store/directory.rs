//! The namespaces that were created or are being deleted, in memory: a call learns its limits without asking the database.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::domain::namespace::{Namespace, NamespaceRecord, NamespaceState};
use crate::domain::quota::Quotas;
use crate::domain::time::Timestamp;
use crate::error::{Error, Result};

use super::Store;

/// Namespaces as the database had them less than a second ago, like the API keys.
#[derive(Debug, Default)]
pub struct Directory {
    /// False while there are no records, so that calls skip the lock.
    any: AtomicBool,
    known: RwLock<Contents>,
    /// Held while records are read and applied, so that an older read does not overwrite a newer change.
    changing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Contents {
    /// The number of the last change that was read, and when the connection was made that it was read over: another one may
    /// lead to another database.
    read: Option<(i64, Instant)>,
    /// When the database last confirmed the records; `None`: this process does not follow them.
    confirmed: Option<Instant>,
    records: HashMap<Namespace, NamespaceRecord>,
    /// The last change of each namespace by its deletion: the time in its record, and when this process learned of it.
    deletions: HashMap<Namespace, (Timestamp, Instant)>,
}

/// The time for which a completed deletion is remembered: every call that was admitted before has ended by then.
const DELETION_RETENTION: Duration = Duration::from_hours(24);

impl Directory {
    /// The time for which records are trusted that could not be confirmed.
    pub const TRUSTED: Duration = Duration::from_secs(5);

    /// Fails with [`Error::NamespaceBeingDeleted`] if it is, or if this process learned of its deletion after `admitted`: the
    /// name may be free again, and a call from before must add nothing under it.
    pub fn check(&self, namespace: &Namespace, admitted: Instant) -> Result<()> {
        if !self.any.load(Ordering::Relaxed) {
            return Ok(());
        }
        let known = self.known();
        let is_deleting =
            known.records.get(namespace).is_some_and(|record| record.state == NamespaceState::Deleting);
        let was_deleted = known.deletions.get(namespace).is_some_and(|(_, learned)| admitted <= *learned);
        if is_deleting || was_deleted { Err(Error::NamespaceBeingDeleted) } else { Ok(()) }
    }

    /// Returns true if the records may be out of date: this process did not run, or the database did not answer.
    pub(super) fn is_stale(&self) -> bool {
        self.known().confirmed.is_some_and(|confirmed| confirmed.elapsed() > Self::TRUSTED)
    }

    /// Notes that the records were as the database had them at `asked_at`.
    pub(super) fn note_confirmed(&self, asked_at: Instant) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.confirmed = known.confirmed.max(Some(asked_at));
    }

    /// The limits that were set for a namespace.
    pub fn limits(&self, namespace: &Namespace) -> Quotas {
        self.find(namespace, |record| record.limits).unwrap_or_default()
    }

    /// The namespaces that are being deleted.
    pub fn deleting(&self) -> Vec<NamespaceRecord> {
        if !self.any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let known = self.known();
        let deleting = |record: &&NamespaceRecord| record.state == NamespaceState::Deleting;
        known.records.values().filter(deleting).cloned().collect()
    }

    /// Returns true if the namespace was deleted since its record was last read, also if it was created again meanwhile.
    fn was_deleted(&self, record: &NamespaceRecord) -> bool {
        self.known().was_deleted(record)
    }

    fn find<T>(&self, namespace: &Namespace, of: impl FnOnce(&NamespaceRecord) -> T) -> Option<T> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        self.known().records.get(namespace).map(of)
    }

    fn known(&self) -> RwLockReadGuard<'_, Contents> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of the change after which records are to be read; `None` if nothing changed since.
    fn unread_since(&self, version: i64, connected: Instant) -> Option<i64> {
        match self.known().read {
            Some(read) if read == (version, connected) => None,
            Some((read, over)) if over == connected && read < version => Some(read),
            _ => Some(-1),
        }
    }

    /// Puts records in place of older ones; `complete`: there are no others.
    fn apply(&self, records: Vec<NamespaceRecord>, complete: bool, read: Option<(i64, Instant)>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if complete {
            known.records.clear();
        }
        for record in records {
            let outdated =
                known.records.get(&record.name).is_some_and(|other| other.version > record.version);
            if outdated {
                continue;
            }
            if known.was_deleted(&record) {
                known.deletions.insert(record.name.clone(), (record.deleted, now));
            }
            if record.state == NamespaceState::Implicit {
                known.records.remove(&record.name);
            } else {
                known.records.insert(record.name.clone(), record);
            }
        }
        let Contents { records, deletions, .. } = &mut *known;
        deletions.retain(|name, (_, learned)| {
            records.contains_key(name) || now.duration_since(*learned) < DELETION_RETENTION
        });
        let any = !records.is_empty() || !deletions.is_empty();
        known.read = read.or(known.read);
        self.any.store(any, Ordering::Relaxed);
    }
}

impl Contents {
    fn was_deleted(&self, record: &NamespaceRecord) -> bool {
        let is_deleting = |record: &NamespaceRecord| record.state == NamespaceState::Deleting;
        let begins = is_deleting(record) && !self.records.get(&record.name).is_some_and(is_deleting);
        begins
            || record.deleted
                != self.deletions.get(&record.name).map_or(Timestamp(0), |(deleted, _)| *deleted)
    }
}

impl Store {
    /// The namespaces that were created or are being deleted.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Applies a change that this process made, before the caller gets the reply.
    pub async fn apply_namespace(&self, record: NamespaceRecord) {
        let _changing = self.directory.changing.lock().await;
        self.put_namespaces(vec![record], false, None);
    }

    /// Reads the namespaces that changed up to the change number `version`, over the probe's own connection, which was made
    /// at `connected`.
    pub(super) async fn refresh_namespaces(&self, version: i64, connected: Instant) -> Result<()> {
        if self.directory.unread_since(version, connected).is_none() {
            return Ok(());
        }
        let _changing = self.directory.changing.lock().await;
        let Some(since) = self.directory.unread_since(version, connected) else { return Ok(()) };
        let records = self.probe.changed_namespaces(since).await?;
        self.put_namespaces(records, since < 0, Some((version, connected)));
        Ok(())
    }

    /// Applies records. Empties the cache first where a namespace was deleted: its name may be used again.
    fn put_namespaces(&self, records: Vec<NamespaceRecord>, complete: bool, read: Option<(i64, Instant)>) {
        if complete || records.iter().any(|record| self.directory.was_deleted(record)) {
            self.coherence.note_everyone();
        }
        self.directory.apply(records, complete, read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, state: NamespaceState, version: i64) -> NamespaceRecord {
        NamespaceRecord { state, version, ..NamespaceRecord::implicit(Namespace::parse(name).unwrap()) }
    }

    #[test]
    fn an_older_record_does_not_replace_a_newer_one() {
        let (directory, shop) = (Directory::default(), Namespace::parse("shop").unwrap());
        let admits = |admitted| directory.check(&shop, admitted).is_ok();
        let before = Instant::now();
        assert!(admits(before));
        directory.apply(vec![record("shop", NamespaceState::Deleting, 2)], false, None);
        directory.apply(vec![record("shop", NamespaceState::Active, 1)], false, None);
        assert!(!admits(Instant::now() + Duration::from_secs(1)));
        assert_eq!(directory.deleting().len(), 1);
        directory.apply(vec![record("shop", NamespaceState::Implicit, 3)], false, None);
        let after = Instant::now() + Duration::from_secs(1);
        assert!(admits(after) && directory.deleting().is_empty());
        // Read over a new connection, too, calls from before the deletion are refused, and those from after it are not.
        directory.apply(vec![record("shop", NamespaceState::Implicit, 3)], true, None);
        assert!(admits(after) && !admits(before));
    }

    #[test]
    fn over_another_connection_all_records_are_read() {
        let (directory, first) = (Directory::default(), Instant::now());
        assert_eq!(directory.unread_since(0, first), Some(-1));
        directory.apply(vec![record("shop", NamespaceState::Active, 3)], true, Some((3, first)));
        assert_eq!(directory.unread_since(3, first), None);
        assert_eq!(directory.unread_since(5, first), Some(3));
        assert_eq!(directory.unread_since(2, first), Some(-1));
        assert_eq!(directory.unread_since(3, first + std::time::Duration::from_secs(1)), Some(-1));
        directory.apply(Vec::new(), true, Some((0, first)));
        assert!(!directory.any.load(Ordering::Relaxed));
    }
}
