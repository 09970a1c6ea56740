//! When sessions were last read, stored behind the calls: several in one transaction.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::namespace::Namespace;
use crate::domain::secret::SecretDigest;
use crate::domain::time::Timestamp;
use crate::error::{Result, with_causes};
use crate::store::{self, Store};

/// Sessions that are stored in one transaction.
const BATCH: usize = 200;

/// Most sessions that wait to be stored; beyond that callers store theirs themselves.
const MAX_WAITING: usize = 10_000;

/// Reads that are to be stored. Cheap to clone.
#[derive(Clone)]
pub(super) struct SeenQueue {
    store: Store,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Those that the database may not have yet.
    waiting: HashMap<(Namespace, SecretDigest), Timestamp>,
    /// Whether a task stores them.
    storing: bool,
}

impl SeenQueue {
    pub(super) fn new(store: Store) -> Self {
        Self { store, state: Arc::default() }
    }

    /// Has it stored that a session was read at `now`. Returns false if too many wait.
    pub(super) fn add(&self, namespace: &Namespace, digest: SecretDigest, now: Timestamp) -> bool {
        let mut state = self.lock();
        if state.waiting.len() >= MAX_WAITING {
            return false;
        }
        let at = state.waiting.entry((namespace.clone(), digest)).or_insert(now);
        *at = now.max(*at);
        if !std::mem::replace(&mut state.storing, true) {
            tokio::spawn(self.clone().store_all());
        }
        true
    }

    /// When a session was last read, if the database may not have that yet. To be asked before the database is.
    pub(super) fn waiting(&self, namespace: &Namespace, digest: SecretDigest) -> Option<Timestamp> {
        let state = self.lock();
        if state.waiting.is_empty() { None } else { state.waiting.get(&(namespace.clone(), digest)).copied() }
    }

    /// Stores all that wait. What cannot be stored is forgotten: a later read is stored in its place.
    async fn store_all(self) {
        loop {
            let mut batch: Vec<_> = {
                let mut state = self.lock();
                if state.waiting.is_empty() {
                    state.storing = false;
                    return;
                }
                state.waiting.iter().take(BATCH).map(|(key, at)| (key.clone(), *at)).collect()
            };
            // Replicas that store the same sessions in the same order wait for each other and cannot deadlock.
            batch.sort_by(|((one, ones), _), ((other, others), _)| {
                (one.as_str(), ones.as_bytes()).cmp(&(other.as_str(), others.as_bytes()))
            });
            if let Err(error) = self.store_batch(&batch).await {
                tracing::debug!(cause = with_causes(&error), "when sessions were last read cannot be stored");
            }
            let mut state = self.lock();
            for (key, at) in batch {
                if state.waiting.get(&key) == Some(&at) {
                    state.waiting.remove(&key);
                }
            }
        }
    }

    async fn store_batch(&self, batch: &[((Namespace, SecretDigest), Timestamp)]) -> Result<()> {
        let tx = self.store.begin_as_server().await?;
        for ((namespace, digest), at) in batch {
            store::sessions::touch(&tx, namespace, *digest, *at).await?;
        }
        tx.commit().await
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
