//! Making, listing and revoking API keys.

use crate::clock::Clock;
use crate::domain::caller::Caller;
use crate::domain::key::{ApiKey, Key, KeyName, NewKey, Reach};
use crate::domain::scope::Scopes;
use crate::domain::time::Timestamp;
use crate::error::{Error, Result};
use crate::store::{self, Store};

use super::Operations;

impl Operations {
    /// Makes a key for the caller's namespace and gives it with its secret, which is kept nowhere.
    ///
    /// # Errors
    ///
    /// [`Error::ScopeMissing`] if it would have a scope that the caller lacks, else as [`create`].
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
        let reach = Reach::One(caller.namespace.clone());
        let (secret, key) = create(&self.store, &self.clock, NewKey { reach, name, scopes, expires }).await?;
        let namespace = caller.namespace.as_str();
        tracing::info!(key = key.id, namespace, scopes = %key.scopes, by = &*caller.name, "key created");
        Ok((secret, key))
    }

    /// The keys of the caller's namespace, the oldest first.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn list_keys(&self, caller: &Caller) -> Result<Vec<Key>> {
        store::keys::of(&self.store.read(caller).await?, &Reach::One(caller.namespace.clone())).await
    }

    /// Revokes a key of the caller's namespace.
    ///
    /// # Errors
    ///
    /// [`Error::KeyNotFound`]
    pub async fn delete_key(&self, caller: &Caller, id: &str) -> Result<()> {
        revoke(&self.store, Some(&Reach::One(caller.namespace.clone())), id).await?;
        let namespace = caller.namespace.as_str();
        tracing::info!(key = id, namespace, by = &*caller.name, "key revoked");
        Ok(())
    }
}

/// Makes a key and gives it with its secret, which is kept nowhere.
///
/// # Errors
///
/// [`Error::Invalid`] if it would have expired already; [`Error::TooManyKeys`].
pub async fn create(store: &Store, clock: &Clock, new: NewKey) -> Result<(ApiKey, Key)> {
    let now = clock.now();
    if new.expires.is_some_and(|at| at <= now) {
        return Err(Error::invalid("expires", "must be in the future"));
    }
    let secret = ApiKey::generate().map_err(Error::internal)?;
    let NewKey { reach, name, scopes, expires } = new;
    let id = clock.new_id()?.to_string();
    let key = Key { id, reach, name, scopes, created: now, expires, last_used: None };
    let tx = store.begin_as_server().await?;
    // First, so that of two that make the last one that fits only one does.
    store::keys::change(&tx).await?;
    if store::keys::count_of(&tx, &key.reach).await? >= Key::MOST {
        return Err(Error::TooManyKeys);
    }
    store::keys::insert(&tx, &key, secret.digest()).await?;
    tx.commit().await?;
    Ok((secret, key))
}

/// Revokes the key with `id` of one namespace, or, without one, of any.
///
/// # Errors
///
/// [`Error::KeyNotFound`]
pub async fn revoke(store: &Store, reach: Option<&Reach>, id: &str) -> Result<()> {
    let tx = store.begin_as_server().await?;
    store::keys::change(&tx).await?;
    if !store::keys::delete(&tx, reach, id).await? {
        return Err(Error::KeyNotFound);
    }
    tx.commit().await
}
