//! Making, listing and revoking API keys, and what is known of those that have ended.

use crate::clock::Clock;
use crate::domain::caller::{Caller, Identity};
use crate::domain::device::Details;
use crate::domain::event::{Action, Event, KeyLogFilter, LogRecord};
use crate::domain::key::{AllowedNamespaces, ApiKey, Key, KeyName, NewKey};
use crate::domain::namespace::{Namespace, NamespaceState};
use crate::domain::quota::{Quota, Quotas};
use crate::domain::scope::Scopes;
use crate::domain::time::Timestamp;
use crate::error::{Error, Result};
use crate::store::{self, Store, Transaction};

use super::list::{ListPage, PageRequest};
use super::{Operations, quotas};

impl Operations {
    /// Creates a key for the caller's namespace and returns it with its secret, which is stored only as a digest.
    ///
    /// # Errors
    ///
    /// [`Error::ScopeMissing`] if it would have a scope that the caller lacks; [`Error::Invalid`] if it would
    /// have expired already or live longer than the caller's own key; [`Error::KeyUnknown`] if that was
    /// revoked meanwhile; [`Error::TooManyKeys`], [`Error::QuotaExceeded`].
    pub async fn create_key(
        &self,
        caller: &Caller,
        name: KeyName,
        scopes: Scopes,
        expires: Option<Timestamp>,
    ) -> Result<(ApiKey, Key)> {
        if let Some(scope) = scopes.without(caller.scopes).names().next() {
            return Err(Error::ScopeMissing { scope });
        }
        let namespaces = AllowedNamespaces::One(caller.namespace.clone());
        let (secret, key) = new_key(&self.clock, caller, NewKey { namespaces, name, scopes, expires })?;
        let tx = self.store.begin(caller).await?;
        insert(&tx, caller, &secret, &key, self.rules.limits).await?;
        tx.commit().await?;
        let namespace = caller.namespace.as_str();
        tracing::info!(key = key.id, namespace, scopes = %key.scopes, by = &*caller.name, "key created");
        Ok((secret, key))
    }

    /// The keys of the caller's namespace that have not expired, the oldest first.
    pub async fn list_keys(&self, caller: &Caller) -> Result<Vec<Key>> {
        let namespaces = AllowedNamespaces::One(caller.namespace.clone());
        let mut keys = store::keys::of(&self.store.read(caller).await?, &namespaces).await?;
        let now = self.clock.now();
        keys.retain(|key| !key.has_expired(now));
        Ok(keys)
    }

    /// Revokes a key of the caller's namespace, with `descendants` also all that it made and that those made.
    /// Returns how many were revoked.
    ///
    /// # Errors
    ///
    /// [`Error::KeyNotFound`]; with `descendants` not for a key that has ended already.
    pub async fn delete_key(&self, caller: &Caller, id: &str, descendants: bool) -> Result<u64> {
        let namespaces = AllowedNamespaces::One(caller.namespace.clone());
        let tx = self.store.begin(caller).await?;
        let revoked = revoke_in(&tx, &self.clock, caller, Some(&namespaces), id, descendants).await?;
        tx.commit().await?;
        let namespace = caller.namespace.as_str();
        tracing::info!(key = id, namespace, revoked, by = &*caller.name, "key revoked");
        Ok(revoked)
    }

    /// A page of what happened to the keys of the caller's namespace, or to root keys, the newest first.
    ///
    /// # Errors
    ///
    /// [`Error::NamespaceMismatch`] if it asks for root keys without being a root caller, and
    /// [`Error::Invalid`] for a page token that is not of this list.
    pub async fn list_key_logs(
        &self,
        caller: &Caller,
        filter: &KeyLogFilter,
        wanted: &PageRequest,
    ) -> Result<ListPage<(LogRecord, Details)>> {
        let namespaces = match filter.root {
            true if !caller.root => return Err(Error::NamespaceMismatch),
            true => AllowedNamespaces::All,
            false => AllowedNamespaces::One(caller.namespace.clone()),
        };
        let digest = filter.digest(&namespaces);
        let start = self.start(&wanted.page, &digest, |cursor| cursor.parse().ok())?;
        let db = &self.store.read(caller).await?;
        // One row more than asked for shows whether more follow.
        let limit = wanted.page.limit;
        let mut rows = store::events::of_keys(db, &namespaces, filter, &start, limit + 1).await?;
        let next = self.truncate_page(&mut rows, limit, &digest, |last| last.seq.to_string());
        let total = if wanted.total {
            Some(store::events::count_of_keys(db, &namespaces, filter).await?)
        } else {
            None
        };
        Ok(self.with_device_details(ListPage { rows, total, next }, |record| &record.device).await)
    }

    /// Removes keys that have expired, at most `most`, and notes it in the log. Returns how many. Of replicas
    /// that do it at the same time one logs each key.
    pub(super) async fn end_expired_keys(&self, most: u64) -> Result<u64> {
        // Without a lock first: it would keep keys from being made, for nothing almost always.
        let due = store::keys::expired(self.store.reader(), self.clock.now(), most).await?;
        if due.is_empty() {
            return Ok(0);
        }
        let tx = self.store.begin_as_server().await?;
        store::keys::change(&tx).await?;
        let due = store::keys::expired(&tx, self.clock.now(), most).await?;
        let server = Caller::server(Namespace::default());
        for key in &due {
            let at = key.expires.unwrap_or(key.created);
            note_end(&tx, &server, key, Action::KeyExpired, at).await?;
        }
        tx.commit().await?;
        if !due.is_empty() {
            tracing::info!(keys = due.len(), "expired keys were removed");
        }
        Ok(due.len() as u64)
    }

    /// Forgets keys that ended longer ago than events are kept, at most `most`. Returns how many.
    pub(super) async fn forget_ended_keys(&self, most: u64) -> Result<u64> {
        let Some(keep) = self.rules.logs_keep else { return Ok(0) };
        let tx = self.store.begin_housekeeping().await?;
        let forgotten = store::keys::forget_ended(&tx, self.clock.now().minus(keep), most).await?;
        tx.commit().await?;
        Ok(forgotten)
    }
}

/// Creates a key as the command line, and returns it with its secret, which is stored only as a digest. `limits` are those of namespaces
/// without their own.
///
/// # Errors
///
/// [`Error::Invalid`] if it would have expired already; [`Error::TooManyKeys`], [`Error::QuotaExceeded`],
/// [`Error::NamespaceBeingDeleted`].
pub async fn create(store: &Store, clock: &Clock, new: NewKey, limits: Quotas) -> Result<(ApiKey, Key)> {
    let server = Caller::server(Namespace::default());
    let (secret, key) = new_key(clock, &server, new)?;
    let tx = store.begin_as_server().await?;
    insert(&tx, &server, &secret, &key, limits).await?;
    tx.commit().await?;
    Ok((secret, key))
}

/// Revokes the key with `id` of any namespace as the command line, with `descendants` also all that it made
/// and that those made. Returns how many were revoked.
///
/// # Errors
///
/// [`Error::KeyNotFound`]; with `descendants` not for a key that has ended already.
pub async fn revoke(store: &Store, clock: &Clock, id: &str, descendants: bool) -> Result<u64> {
    let tx = store.begin_as_server().await?;
    let server = Caller::server(Namespace::default());
    let revoked = revoke_in(&tx, clock, &server, None, id, descendants).await?;
    tx.commit().await?;
    Ok(revoked)
}

/// A new key of `caller`'s making, not stored yet.
fn new_key(clock: &Clock, caller: &Caller, new: NewKey) -> Result<(ApiKey, Key)> {
    let now = clock.now();
    if new.expires.is_some_and(|at| at <= now) {
        return Err(Error::invalid("expires", "must be in the future"));
    }
    let secret = ApiKey::generate().map_err(Error::internal)?;
    let NewKey { namespaces, name, scopes, expires } = new;
    let id = clock.new_id()?.to_string();
    let created_by = caller.name.to_string();
    Ok((secret, Key { id, namespaces, name, scopes, created: now, expires, last_used: None, created_by }))
}

/// Stores a new key, if its creator may create it and the namespace has room.
async fn insert(tx: &Transaction, caller: &Caller, secret: &ApiKey, key: &Key, limits: Quotas) -> Result<()> {
    // First, so that of two that make the last one that fits only one does, and that nothing is made by a key
    // that is being revoked with its descendants.
    store::keys::change(tx).await?;
    if caller.identity == Identity::Key {
        let creator = store::keys::find_of_caller(tx, &caller.namespace, &caller.name).await?;
        let creator = creator.filter(|creator| !creator.has_expired(key.created)).ok_or(Error::KeyUnknown)?;
        let checked = creator.check_made(key.expires, key.created);
        checked.map_err(|why| Error::invalid("expires", why.to_string()))?;
    }
    let keys = store::keys::count_of(tx, &key.namespaces, key.created).await?;
    if keys >= Key::MAX_PER_NAMESPACE {
        return Err(Error::TooManyKeys);
    }
    if let AllowedNamespaces::One(namespace) = &key.namespaces {
        let record = store::namespaces::find(tx, namespace).await?;
        if record.state == NamespaceState::Deleting {
            return Err(Error::NamespaceBeingDeleted);
        }
        if let Some(limit) = record.limits.or(limits).most(Quota::Keys) {
            quotas::check(namespace, Quota::Keys, limit, keys)?;
        }
    }
    store::keys::insert(tx, key, secret.digest()).await?;
    let event = Event::new(key.created, Action::KeyCreated, None).about(&key.id);
    let event = event.changing(0, key.scopes.names().collect());
    store::events::append_of_key(tx, &key.namespaces, caller, &event).await
}

async fn revoke_in(
    tx: &Transaction,
    clock: &Clock,
    caller: &Caller,
    namespaces: Option<&AllowedNamespaces>,
    id: &str,
    descendants: bool,
) -> Result<u64> {
    // Saves a query, and PostgreSQL takes no text with a NUL in it.
    if uuid::Uuid::try_parse(id).is_err() {
        return Err(Error::KeyNotFound);
    }
    store::keys::change(tx).await?;
    let mut revoked: Vec<Key> = store::keys::find(tx, namespaces, id).await?.into_iter().collect();
    if revoked.is_empty() && !(descendants && store::keys::has_ended(tx, namespaces, id).await?) {
        return Err(Error::KeyNotFound);
    }
    if descendants {
        revoked.extend(store::keys::descendants(tx, id).await?);
    }
    let now = clock.now();
    for key in &revoked {
        note_end(tx, caller, key, Action::KeyRevoked, now).await?;
    }
    Ok(revoked.len() as u64)
}

/// Removes a key, and notes in the log how it ended.
async fn note_end(tx: &Transaction, caller: &Caller, key: &Key, action: Action, at: Timestamp) -> Result<()> {
    store::keys::end(tx, key, at).await?;
    let event = Event::new(at, action, None).about(&key.id);
    store::events::append_of_key(tx, &key.namespaces, caller, &event).await
}
