//! Administration of namespaces: creates, reads, limits and deletes them. For root callers, which the authenticator checks.

use crate::clock::Clock;
use crate::domain::caller::Caller;
use crate::domain::event::{Action, Event};
use crate::domain::namespace::{Namespace, NamespaceRecord, NamespaceState, NamespaceUsage};
use crate::domain::page_token::ListFields;
use crate::domain::quota::{LimitChanges, Quotas};
use crate::error::{Error, Result};
use crate::store::{self, Store};

use super::Operations;
use super::list::{ListPage, PageRequest};

/// A namespace as callers see it.
#[derive(Clone, Debug)]
pub struct NamespaceView {
    /// Its record.
    pub record: NamespaceRecord,
    /// The limits that hold for it here.
    pub effective: Quotas,
}

impl Operations {
    /// Creates a namespace, or gives limits to one that is in use.
    ///
    /// # Errors
    ///
    /// [`Error::NamespaceTaken`], [`Error::NamespaceBeingDeleted`].
    pub async fn create_namespace(
        &self,
        caller: &Caller,
        name: Namespace,
        limits: Quotas,
    ) -> Result<NamespaceView> {
        self.changed(caller, create(&self.store, &self.clock, caller, name, limits).await?).await
    }

    /// Changes limits of a namespace.
    ///
    /// # Errors
    ///
    /// [`Error::NamespaceNotFound`] if it was never created, [`Error::NamespaceBeingDeleted`].
    pub async fn update_namespace(
        &self,
        caller: &Caller,
        name: &Namespace,
        changes: LimitChanges,
    ) -> Result<NamespaceView> {
        self.changed(caller, update(&self.store, &self.clock, caller, name, changes).await?).await
    }

    /// Begins to delete a namespace. This replica refuses every call in it before the reply.
    ///
    /// # Errors
    ///
    /// [`Error::NamespaceNotFound`] if it holds nothing and was never created.
    pub async fn delete_namespace(&self, caller: &Caller, name: &Namespace) -> Result<NamespaceView> {
        self.changed(caller, delete(&self.store, &self.clock, caller, name).await?).await
    }

    /// A namespace and what it holds.
    ///
    /// # Errors
    ///
    /// [`Error::NamespaceNotFound`] if it holds nothing and was never created.
    pub async fn read_namespace(
        &self,
        caller: &Caller,
        name: &Namespace,
    ) -> Result<(NamespaceView, NamespaceUsage)> {
        let db = self.store.read(caller).await?;
        let (record, usage) = read(&db, name, &self.clock).await?;
        Ok((self.view(record), usage))
    }

    /// A page of namespaces by name.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a page token that is not of this list.
    pub async fn list_namespaces(
        &self,
        caller: &Caller,
        wanted: &PageRequest,
    ) -> Result<ListPage<NamespaceView>> {
        let digest = ListFields::new("namespaces", caller.namespace.as_str()).digest();
        let start = self.start(&wanted.page, &digest, |cursor| Some(cursor.to_owned()))?;
        let db = self.read_list(caller).await?;
        let (after, limit) = (start.after().map_or("", String::as_str), wanted.page.limit);
        // One more than asked for shows whether more follow.
        let mut names = store::namespaces::names(&db, after, limit + 1).await?;
        let next = self.truncate_page(&mut names, limit, &digest, |last| last.as_str().to_owned());
        let mut rows = Vec::with_capacity(names.len());
        for name in &names {
            rows.push(self.view(store::namespaces::find(&db, name).await?));
        }
        Ok(ListPage { rows, total: None, next })
    }

    /// Has a change take effect here, and logs it.
    async fn changed(&self, caller: &Caller, record: NamespaceRecord) -> Result<NamespaceView> {
        self.store.apply_namespace(record.clone()).await;
        let (namespace, by, state) = (record.name.as_str(), &*caller.name, record.state.name());
        tracing::info!(namespace, state, by, "namespace changed");
        Ok(self.view(record))
    }

    fn view(&self, record: NamespaceRecord) -> NamespaceView {
        NamespaceView { effective: record.limits.or(self.rules.limits), record }
    }
}

/// As [`Operations::create_namespace`]; other servers know within a second.
pub async fn create(
    store: &Store,
    clock: &Clock,
    caller: &Caller,
    name: Namespace,
    limits: Quotas,
) -> Result<NamespaceRecord> {
    change(store, clock, caller, &name, Action::NamespaceCreated, |record, _| match record.state {
        NamespaceState::Active => Err(Error::NamespaceTaken),
        NamespaceState::Deleting => Err(Error::NamespaceBeingDeleted),
        NamespaceState::Implicit => {
            let created = clock.now();
            Ok(Some(NamespaceRecord { state: NamespaceState::Active, created, limits, ..record }))
        }
    })
    .await
}

/// As [`Operations::update_namespace`]; other servers know within a second.
pub async fn update(
    store: &Store,
    clock: &Clock,
    caller: &Caller,
    name: &Namespace,
    changes: LimitChanges,
) -> Result<NamespaceRecord> {
    change(store, clock, caller, name, Action::NamespaceUpdated, |record, _| match record.state {
        NamespaceState::Implicit => Err(Error::NamespaceNotFound),
        NamespaceState::Deleting => Err(Error::NamespaceBeingDeleted),
        NamespaceState::Active => {
            let limits = record.limits.with(changes);
            Ok((limits != record.limits).then_some(NamespaceRecord { limits, ..record }))
        }
    })
    .await
}

/// As [`Operations::delete_namespace`]; other servers know within a second.
pub async fn delete(
    store: &Store,
    clock: &Clock,
    caller: &Caller,
    name: &Namespace,
) -> Result<NamespaceRecord> {
    change(store, clock, caller, name, Action::NamespaceDeleted, |record, in_use| match record.state {
        NamespaceState::Deleting => Ok(None),
        NamespaceState::Implicit if !in_use => Err(Error::NamespaceNotFound),
        NamespaceState::Implicit | NamespaceState::Active => {
            let deleted = clock.now();
            Ok(Some(NamespaceRecord { state: NamespaceState::Deleting, deleted, ..record }))
        }
    })
    .await
}

/// A namespace and what it holds.
///
/// # Errors
///
/// [`Error::NamespaceNotFound`] if it holds nothing and was never created.
pub async fn read(
    db: &store::Reader,
    name: &Namespace,
    clock: &Clock,
) -> Result<(NamespaceRecord, NamespaceUsage)> {
    let record = store::namespaces::find(db, name).await?;
    if record.state == NamespaceState::Implicit && !store::usage::is_any(db, name).await? {
        return Err(Error::NamespaceNotFound);
    }
    Ok((record, store::usage::of(db, name, clock.now()).await?))
}

/// Lets `edit` change a namespace, and writes it with its event, or neither. `edit` learns whether anything is in it, and
/// returns `None` where nothing is to change.
async fn change(
    store: &Store,
    clock: &Clock,
    caller: &Caller,
    name: &Namespace,
    action: Action,
    edit: impl FnOnce(NamespaceRecord, bool) -> Result<Option<NamespaceRecord>>,
) -> Result<NamespaceRecord> {
    let tx = store.begin(caller).await?;
    let version = store::namespaces::next_version(&tx).await?;
    let before = store::namespaces::find(&tx, name).await?;
    let in_use = before.state == NamespaceState::Implicit && store::usage::is_any(&tx, name).await?;
    let Some(changed) = edit(before.clone(), in_use)? else { return Ok(before) };
    let record = NamespaceRecord { version, ..changed };
    if record.state == NamespaceState::Deleting {
        // For servers of the previous version, which know no deletion of namespaces. They take locks in the same order.
        store::deletion::remove_keys(&tx, name).await?;
    }
    store::namespaces::write(&tx, &record).await?;
    store::events::append(&tx, caller, &Event::new(clock.now(), action, None).about(name.as_str())).await?;
    tx.commit().await?;
    Ok(record)
}
