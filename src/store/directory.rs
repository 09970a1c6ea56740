//! The namespaces that were created or are being deleted, in memory: a call learns its limits without asking the database.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

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
    records: HashMap<Namespace, NamespaceRecord>,
}

impl Directory {
    /// Fails with [`Error::NamespaceBeingDeleted`] if it is.
    pub fn check(&self, namespace: &Namespace) -> Result<()> {
        match self.find(namespace, |record| record.state) {
            Some(NamespaceState::Deleting) => Err(Error::NamespaceBeingDeleted),
            _ => Ok(()),
        }
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
        let known = self.find(&record.name, |known| known.deleted).unwrap_or(Timestamp(0));
        record.state != NamespaceState::Active || record.deleted != known
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
        if complete {
            known.records.clear();
        }
        for record in records {
            let outdated =
                known.records.get(&record.name).is_some_and(|other| other.version > record.version);
            if outdated {
                continue;
            }
            if record.state == NamespaceState::Implicit {
                known.records.remove(&record.name);
            } else {
                known.records.insert(record.name.clone(), record);
            }
        }
        known.read = read.or(known.read);
        self.any.store(!known.records.is_empty(), Ordering::Relaxed);
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
        assert!(directory.check(&shop).is_ok());
        directory.apply(vec![record("shop", NamespaceState::Deleting, 2)], false, None);
        directory.apply(vec![record("shop", NamespaceState::Active, 1)], false, None);
        assert!(matches!(directory.check(&shop), Err(Error::NamespaceBeingDeleted)));
        assert_eq!(directory.deleting().len(), 1);
        directory.apply(vec![record("shop", NamespaceState::Implicit, 3)], false, None);
        assert!(directory.check(&shop).is_ok() && directory.deleting().is_empty());
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
