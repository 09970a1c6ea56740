//! Deletion of namespaces: removes their rows in batches, on one replica at a time. If one stops, another continues.

use std::collections::HashSet;
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

/// The minimum duration of a deletion. A server that cannot learn of it refuses all calls after 5 s (`KeyRing::TRUSTED`), and
/// calls that it admitted earlier have begun their transactions by the end of this time.
const MIN_TIME: Duration = Duration::from_secs(15);

/// The age in seconds from which an open transaction may belong to such a call.
const MIN_OLD_SECONDS: u64 = 10;

/// How long the row of a deleted namespace stays, so that every replica reads that the deletion is complete.
const RETENTION: Duration = Duration::from_hours(24);

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
        let tx = self.store.begin_sweep().await?;
        // Another replica may have ended the deletion, and the namespace begun again.
        if store::namespaces::find(&tx, &record.name).await?.state != NamespaceState::Deleting {
            return Ok(false);
        }
        let removed = store::deletion::remove(&tx, &record.name, BATCH).await?;
        tx.commit().await?;
        self.sweeps.note_namespace_rows(removed);
        if removed == 0 {
            self.end_deletion(record).await?;
            return Ok(false);
        }
        pause_after(begun).await;
        Ok(true)
    }

    /// Frees the name of an empty namespace, if no call can add to it any more.
    async fn end_deletion(&self, record: &NamespaceRecord) -> Result<()> {
        let now = self.clock.now();
        if now < record.deleted.plus(MIN_TIME) {
            return Ok(());
        }
        let namespace = &record.name;
        let tx = self.store.begin_sweep().await?;
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
