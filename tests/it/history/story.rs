//! What is known of the users of a history, and since when.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use tonic::Status;
use usersd::pb::User;

use super::MAX_AGE;

/// A change that was acknowledged: by which replica, and when its caller had the answer.
#[derive(Clone, Copy)]
pub(super) struct Done {
    pub(super) by: usize,
    pub(super) at: Instant,
}

impl Done {
    pub(super) fn now(by: usize) -> Self {
        Self { by, at: Instant::now() }
    }

    /// Returns true if a call to replica `me` that began at `began` has to see it.
    pub(super) fn binds(self, me: usize, began: Instant) -> bool {
        self.by == me || began.saturating_duration_since(self.at) > MAX_AGE
    }
}

pub(super) struct Known {
    pub(super) token: String,
    /// True from before its end was asked for.
    pub(super) ending: AtomicBool,
    pub(super) ended: OnceLock<Done>,
}

/// What is known of one user. One task changes it, so its changes have an order.
pub(super) struct Story {
    pub(super) id: String,
    pub(super) username: String,
    pub(super) sessions: Mutex<Vec<Arc<Known>>>,
    pub(super) versions: Mutex<Vec<(u64, Done)>>,
    /// How often its deletion was asked for, and how often its restoration was acknowledged.
    pub(super) deleted: AtomicU64,
    pub(super) restored: AtomicU64,
}

impl Story {
    pub(super) fn of(user: User) -> Self {
        let (sessions, versions) = Default::default();
        let (deleted, restored) = Default::default();
        Self { id: user.id, username: user.username, sessions, versions, deleted, restored }
    }

    pub(super) fn note_version(&self, user: &User, by: usize) {
        self.versions.lock().unwrap().push((version(user), Done::now(by)));
    }

    /// The number of its sessions that have ended for certain.
    pub(super) fn ended(&self) -> usize {
        self.sessions.lock().unwrap().iter().filter(|known| known.ended.get().is_some()).count()
    }

    pub(super) fn open(&self) -> Vec<Arc<Known>> {
        let sessions = self.sessions.lock().unwrap();
        sessions.iter().filter(|known| !known.ending.load(SeqCst)).cloned().collect()
    }

    /// Has `call` end all sessions.
    pub(super) async fn ends_all(&self, by: usize, call: impl Future<Output = Result<User, Status>>) -> bool {
        let ending = self.open();
        for known in &ending {
            known.ending.store(true, SeqCst);
        }
        let Ok(user) = call.await else { return false };
        for known in &ending {
            known.ended.set(Done::now(by)).ok().unwrap();
        }
        self.note_version(&user, by);
        true
    }
}

pub(super) fn version(user: &User) -> u64 {
    user.etag.trim_matches('"').rsplit_once('-').unwrap().1.parse().unwrap()
}
