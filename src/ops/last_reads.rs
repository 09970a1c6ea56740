//! When sessions were last read, stored behind the calls: several in one transaction.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::namespace::Namespace;
use crate::domain::secret::SecretDigest;
use crate::domain::time::Timestamp;
use crate::error::{Result, with_causes};
use crate::store::{self, Store};

/// Sessions that are stored in one transaction.
const BATCH: usize = 200;

/// Most sessions that wait to be stored; beyond that callers store theirs themselves.
const MAX_WAITING: usize = 10_000;

/// The time after which what could not be stored is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Reads that are to be stored. Cheap to clone.
#[derive(Clone)]
pub(super) struct LastReadQueue {
    store: Store,
    idle: Option<Duration>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Those that the database may not have yet.
    waiting: HashMap<(Namespace, SecretDigest), Timestamp>,
    /// True while a task stores them.
    storing: bool,
}

impl LastReadQueue {
    /// `idle` is the time after which a session ends that is not read.
    pub(super) fn new(store: Store, idle: Option<Duration>) -> Self {
        Self { store, idle, state: Arc::default() }
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

    /// Stores all that wait, and tries again later what could not be stored. Where too many wait they are forgotten: later
    /// reads are stored in their place.
    async fn store_all(self) {
        while let Err(error) = self.flush().await {
            tracing::debug!(
                cause = with_causes(&error),
                "the times at which sessions were last read cannot be stored"
            );
            {
                let mut state = self.lock();
                if state.waiting.len() > MAX_WAITING / 2 {
                    state.waiting.clear();
                }
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Stores all that wait.
    ///
    /// # Errors
    ///
    /// The first one of the database: what was not stored waits.
    pub(super) async fn flush(&self) -> Result<()> {
        loop {
            let batch: Vec<_> = {
                let mut state = self.lock();
                if state.waiting.is_empty() {
                    state.storing = false;
                    return Ok(());
                }
                state.waiting.iter().take(BATCH).map(|(key, at)| (key.clone(), *at)).collect()
            };
            self.store_batch(&batch).await?;
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
            // It was open when it was read, and the caller was told so.
            let idle_since = self.idle.map(|idle| at.minus(idle));
            store::sessions::touch(&tx, namespace, *digest, *at, idle_since).await?;
        }
        tx.commit().await
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
