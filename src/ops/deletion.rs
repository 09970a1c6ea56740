//! Deletion of namespaces: removes their rows in batches, on one replica at a time. If one stops, another continues.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::caller::Caller;
use crate::domain::event::{Action, Event};
use crate::domain::namespace::{Namespace, NamespaceRecord, NamespaceState};
use crate::domain::quota::Quotas;
use crate::domain::time::Timestamp;
use crate::error::Result;
use crate::store;

use super::Operations;
use super::housekeeping::{BATCH, pause_after};

/// The minimum duration of a deletion. Within 5 s of its beginning every server knows of it or asks for it
/// (`Directory::TRUSTED`), whenever it admitted a call: a transaction that begins later is refused.
const MIN_TIME: Duration = Duration::from_secs(15);

/// The age in seconds that a transaction from those 5 s has by then: one that is still open is waited for.
const MIN_OLD_SECONDS: u64 = 10;

/// How long the row of a deleted namespace stays, so that every replica reads that the deletion is complete.
const RETENTION: Duration = Duration::from_hours(24);

/// When this process first saw each deletion that goes on, by the time since the machine was started: the time of the
/// deletion itself is that of another machine's clock.
#[derive(Clone, Debug, Default)]
pub(super) struct DeletionsSeen(Arc<Mutex<HashMap<(Namespace, i64), Timestamp>>>);

impl DeletionsSeen {
    /// Notes the deletions that go on, and forgets others after a day.
    fn note(&self, going_on: &[NamespaceRecord], boot: Timestamp) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let going_on: HashSet<_> = going_on.iter().map(Self::key).collect();
        seen.retain(|key, since| going_on.contains(key) || since.plus(RETENTION) > boot);
        for key in going_on {
            seen.entry(key).or_insert(boot);
        }
    }

    /// Returns true if a deletion was first seen [`MIN_TIME`] ago.
    fn is_old(&self, record: &NamespaceRecord, boot: Timestamp) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&Self::key(record)).is_some_and(|since| since.plus(MIN_TIME) <= boot)
    }

    fn key(record: &NamespaceRecord) -> (Namespace, i64) {
        (record.name.clone(), record.version)
    }
}

impl Operations {
    /// The time between looks for namespaces that are being deleted, which are known in memory.
    pub const DELETE_NAMESPACES_INTERVAL: Duration = Duration::from_secs(1);

    /// Removes the rows of namespaces that are being deleted, and ends the deletion of those that are empty.
    ///
    /// # Errors
    ///
    /// Those of the database; rows removed so far stay removed.
    pub async fn delete_namespaces(&self) -> Result<()> {
        let (mut finished, mut outcome) = (HashSet::new(), Ok(()));
        loop {
            // A batch of each in turn: neither a large one nor one that fails keeps the others waiting.
            let mut turn = self.store.directory().deleting();
            if !turn.is_empty() {
                self.deletions_seen.note(&turn, self.clock.clocks().boot);
            }
            turn.retain(|record| !finished.contains(&record.name));
            if turn.is_empty() {
                return outcome;
            }
            for record in turn {
                let more = self.remove_more(&record).await.unwrap_or_else(|error| {
                    if outcome.is_ok() {
                        outcome = Err(error);
                    }
                    false
                });
                if !more {
                    finished.insert(record.name);
                }
            }
        }
    }

    /// Removes a batch of rows, or ends the deletion where none is left. Returns true if there may be more.
    async fn remove_more(&self, record: &NamespaceRecord) -> Result<bool> {
        let begun = Instant::now();
        let tx = self.store.begin_housekeeping().await?;
        // Another replica may have ended the deletion, and the namespace begun again.
        if store::namespaces::find(&tx, &record.name).await?.state != NamespaceState::Deleting {
            return Ok(false);
        }
        let removed = store::deletion::remove(&tx, &record.name, BATCH).await?;
        tx.commit().await?;
        self.housekeeping.note_namespace_rows(removed);
        if removed == 0 {
            self.end_deletion(record).await?;
            return Ok(false);
        }
        pause_after(begun).await;
        Ok(true)
    }

    /// Frees the name of an empty namespace, if no call can add to it any more.
    async fn end_deletion(&self, record: &NamespaceRecord) -> Result<()> {
        if !self.deletions_seen.is_old(record, self.clock.clocks().boot) {
            return Ok(());
        }
        let (now, namespace) = (self.clock.now(), &record.name);
        let tx = self.store.begin_housekeeping().await?;
        let version = store::namespaces::next_version(&tx).await?;
        let found = store::namespaces::find(&tx, namespace).await?;
        let is_incomplete = found.state != NamespaceState::Deleting
            || store::deletion::has_older_transactions(&tx, MIN_OLD_SECONDS).await?
            // Asked after those have ended: what they wrote is seen.
            || store::usage::is_any(&tx, namespace).await?;
        if is_incomplete {
            return Ok(());
        }
        let gone = NamespaceRecord {
            state: NamespaceState::Implicit,
            created: Timestamp(0),
            deleted: now,
            limits: Quotas::default(),
            version,
            ..found
        };
        store::namespaces::write(&tx, &gone).await?;
        store::namespaces::forget_gone(&tx, now.minus(RETENTION), BATCH).await?;
        let event = Event::new(now, Action::NamespacePurged, None).about(namespace.as_str());
        store::events::append(&tx, &Caller::server(Namespace::root()), &event).await?;
        tx.commit().await?;
        self.store.apply_namespace(gone).await;
        tracing::info!(namespace = namespace.as_str(), "namespace deletion is complete");
        Ok(())
    }
}
