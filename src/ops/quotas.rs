//! Limits of namespaces.
//!
//! Only calls that add to a namespace with a limit query its usage. They hold a lock of that namespace, so that concurrent
//! calls see what earlier ones committed. Without a limit there is no query.

use std::time::Duration;

use crate::domain::caller::Caller;
use crate::domain::namespace::Namespace;
use crate::domain::quota::Quota;
use crate::error::{Error, Result};
use crate::store;

use super::Operations;

impl Operations {
    /// The most that the namespace may have; `None`: any number.
    pub(super) fn quota(&self, namespace: &Namespace, quota: Quota) -> Option<u32> {
        self.store.directory().limits(namespace).or(self.rules.limits).most(quota)
    }

    /// Fails with [`Error::QuotaExceeded`] if the namespace is full. Called before costly work, such as a hash.
    pub(super) async fn check_quota(&self, caller: &Caller, quota: Quota) -> Result<()> {
        let Some(limit) = self.quota(&caller.namespace, quota) else { return Ok(()) };
        let db = self.store.read(caller).await?;
        let used = store::namespaces::used(&db, &caller.namespace, quota, self.clock.now()).await?;
        check(&caller.namespace, quota, limit, used)
    }

    /// Fails if the namespace is full, and keeps all others from adding to it until the transaction ends.
    pub(super) async fn claim_quota(
        &self,
        tx: &store::Transaction,
        caller: &Caller,
        quota: Quota,
    ) -> Result<()> {
        let limit = self.lock_quota(tx, caller, quota).await?;
        self.check_locked(tx, caller, quota, limit).await
    }

    /// Keeps all others from adding to a namespace with a limit until the transaction ends. Returns the limit.
    pub(super) async fn lock_quota(
        &self,
        tx: &store::Transaction,
        caller: &Caller,
        quota: Quota,
    ) -> Result<Option<u32>> {
        let limit = self.quota(&caller.namespace, quota);
        if limit.is_some() {
            store::namespaces::lock_limits(tx, &caller.namespace).await?;
        }
        Ok(limit)
    }

    /// Fails if the namespace, whose limit [`Operations::lock_quota`] returned, is full.
    pub(super) async fn check_locked(
        &self,
        tx: &store::Transaction,
        caller: &Caller,
        quota: Quota,
        limit: Option<u32>,
    ) -> Result<()> {
        let Some(limit) = limit else { return Ok(()) };
        let used = store::namespaces::used(tx, &caller.namespace, quota, self.clock.now()).await?;
        check(&caller.namespace, quota, limit, used)
    }
}

/// Fails unless one more fits.
pub(super) fn check(namespace: &Namespace, quota: Quota, limit: u32, used: u64) -> Result<()> {
    if used < u64::from(limit) {
        return Ok(());
    }
    Err(exceeded(namespace, quota, limit, None))
}

/// Returns the [`Error::QuotaExceeded`] of a call that would exceed a limit.
pub fn exceeded(namespace: &Namespace, quota: Quota, value: u32, retry_after: Option<Duration>) -> Error {
    let (namespace, limit, subject) = (namespace.as_str().to_owned(), quota.name(), quota.subject());
    Error::QuotaExceeded { namespace, limit, subject, value, retry_after }
}
