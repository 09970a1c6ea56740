//! The end of namespaces: their rows go in batches, by one replica at a time, whatever servers stop meanwhile.

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

/// The shortest time from the first to the last step of a deletion. A server that cannot learn of it refuses calls after 5 s,
/// by `KeyRing::TRUSTED`; those of before have begun their transactions by then.
const MIN_TIME: Duration = Duration::from_secs(15);

/// The age of transactions that may be of such calls.
const OLD_TRANSACTION: u64 = 10;

/// The time for which a namespace that is gone is remembered: every replica reads by then that it is.
const KEEP_GONE: Duration = Duration::from_hours(24);

impl Operations {
    /// The time between looks for namespaces that are being deleted, which are known in memory.
    pub const DELETE_NAMESPACES_INTERVAL: Duration = Duration::from_secs(1);

    /// Removes the rows of namespaces that are being deleted, and ends the deletion of those that are empty.
    ///
    /// # Errors
    ///
    /// Those of the database; rows removed so far stay removed.
    pub async fn delete_namespaces(&self) -> Result<()> {
        for record in self.store.directory().deleting() {
            let mut removed = 0;
            let done = self.empty(&record.name, &mut removed).await;
            self.sweeps.note_namespace_rows(removed);
            if removed > 0 {
                tracing::info!(
                    namespace = record.name.as_str(),
                    rows = removed,
                    "rows of a deleted namespace were removed"
                );
            }
            done?;
            self.end_deletion(&record).await?;
        }
        Ok(())
    }

    async fn empty(&self, namespace: &Namespace, removed: &mut u64) -> Result<()> {
        loop {
            let begun = Instant::now();
            let tx = self.store.begin_sweep().await?;
            // Another replica may have ended the deletion, and the namespace begun again.
            if store::namespaces::find(&tx, namespace).await?.state != NamespaceState::Deleting {
                return Ok(());
            }
            let batch = store::deletion::remove(&tx, namespace, BATCH).await?;
            tx.commit().await?;
            *removed += batch;
            if batch == 0 {
                return Ok(());
            }
            pause_after(begun).await;
        }
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
        let goes_on = found.state != NamespaceState::Deleting
            || store::deletion::has_older_transactions(&tx, OLD_TRANSACTION).await?
            // Asked after those have ended: what they wrote is seen.
            || store::usage::is_any(&tx, namespace).await?;
        if goes_on {
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
        store::namespaces::forget_gone(&tx, now.minus(KEEP_GONE), BATCH).await?;
        let event = Event::new(now, Action::NamespacePurged, None).about(namespace.as_str());
        store::events::append(&tx, &Caller::server(Namespace::root()), &event).await?;
        tx.commit().await?;
        self.store.apply_namespace(gone).await;
        tracing::info!(namespace = namespace.as_str(), "nothing of the deleted namespace is left");
        Ok(())
    }
}
