//! Calls with an idempotency key: the change is made once, however often the call is repeated and on whichever replica.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::caller::Caller;
use crate::domain::idempotency::{CallDigester, CallDigests, RepeatableCall};
use crate::domain::user::User;
use crate::error::{Error, Result};
use crate::store::{self, Transaction};

use super::Operations;

/// The calls with idempotency keys. Cheap to clone.
#[derive(Clone)]
pub(super) struct RepeatableCalls {
    digester: CallDigester,
    /// The keys of calls that this replica works on. Bounded by the permits of calls.
    in_progress: Arc<Mutex<HashSet<[u8; 32]>>>,
}

/// The progress of one call, which ends when this is dropped.
struct Progress<'c> {
    calls: &'c RepeatableCalls,
    key: [u8; 32],
}

impl RepeatableCalls {
    pub(super) fn new(digester: CallDigester) -> Self {
        Self { digester, in_progress: Arc::default() }
    }

    /// Begins a call, unless one with its key is in progress: its password would be hashed for nothing.
    fn begin(&self, call: &CallDigests) -> Result<Progress<'_>> {
        let mut keys = self.in_progress.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.insert(call.key) {
            Ok(Progress { calls: self, key: call.key })
        } else {
            Err(Error::IdempotencyKeyInUse)
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.calls.in_progress.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Operations {
    /// The digests of a call that may be repeated.
    pub(super) fn digests(&self, caller: &Caller, call: Option<&RepeatableCall>) -> Option<CallDigests> {
        call.map(|call| self.repeatable.digester.digests(&caller.namespace, call))
    }

    /// Makes `change`, which must note the call by [`Self::note_call`]; if the call was made before, reads its user instead.
    /// Returns the user as it is now, and true if the call restored it.
    ///
    /// # Errors
    ///
    /// Those of `change`; [`Error::IdempotencyKeyReused`] if the key was used for another call, [`Error::IdempotencyKeyInUse`]
    /// if a call with it is in progress, and [`Error::UserNotFound`] if the user was deleted since the first call.
    pub(super) async fn once(
        &self,
        caller: &Caller,
        call: &CallDigests,
        change: impl Future<Output = Result<(User, bool)>>,
    ) -> Result<(User, bool)> {
        let _progress = self.repeatable.begin(call)?;
        if let Some(done) = self.find_stored_call(caller, call).await? {
            return Ok(done);
        }
        match change.await {
            // Another replica was quicker: its change is committed.
            Err(Error::IdempotencyKeyInUse) => {
                self.find_stored_call(caller, call).await?.ok_or(Error::IdempotencyKeyInUse)
            }
            done => done,
        }
    }

    /// The user of a call that was made, as it is now, and whether the call restored it.
    async fn find_stored_call(&self, caller: &Caller, call: &CallDigests) -> Result<Option<(User, bool)>> {
        let (db, namespace) = (&self.store.read(caller).await?, &caller.namespace);
        let Some(stored) = store::idempotency_keys::find(db, namespace, call).await? else { return Ok(None) };
        if stored.message != call.message {
            return Err(Error::IdempotencyKeyReused);
        }
        let account = store::users::find(db, namespace, &stored.user).await?;
        let user = account.map(|account| account.user).filter(|user| user.generation == stored.generation);
        Ok(Some((user.ok_or(Error::UserNotFound)?, stored.restored)))
    }

    /// Notes a call in the transaction of its change, before anything that another call with its key could wait for or conflict
    /// with. Fails with [`Error::IdempotencyKeyInUse`] if that call was quicker.
    pub(super) async fn note_call(
        &self,
        tx: &Transaction,
        caller: &Caller,
        call: Option<&CallDigests>,
        user: &User,
        restored: bool,
    ) -> Result<()> {
        let Some(call) = call else { return Ok(()) };
        let made = (&user.id, user.generation, restored);
        let now = self.clock.now();
        if store::idempotency_keys::insert(tx, &caller.namespace, call, made, now).await? {
            Ok(())
        } else {
            Err(Error::IdempotencyKeyInUse)
        }
    }
}
