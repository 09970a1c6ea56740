//! Assertions about sessions, and the keys that sign them.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rand::TryRng as _;
use rand::rngs::SysRng;
use tokio::sync::Mutex;

use crate::domain::assertion::{AssertionKeys, Claims, KeyInvalid, OVERLAP, SEED_BYTES, StoredKey};
use crate::domain::caller::Caller;
use crate::domain::session::SessionToken;
use crate::domain::time::Timestamp;
use crate::error::{Error, Result};
use crate::store;

use super::Operations;

/// An assertion to issue.
#[derive(Debug)]
pub struct AssertionRequest {
    /// The token of the session.
    pub token: String,
    /// One of the audiences of the settings.
    pub audience: String,
    /// The longest time for which it is valid.
    pub lifetime: Duration,
}

/// The keys in memory. Cheap to clone.
#[derive(Clone)]
pub struct KeysInMemory {
    keys: Arc<RwLock<Arc<AssertionKeys>>>,
    /// Held while they are read, so that none are replaced by older ones.
    refresh: Arc<Mutex<()>>,
}

impl KeysInMemory {
    pub(super) fn none() -> std::result::Result<Self, KeyInvalid> {
        let none = Arc::new(AssertionKeys::new(Vec::new())?);
        Ok(Self { keys: Arc::new(RwLock::new(none)), refresh: Arc::default() })
    }

    /// The keys as last read.
    pub fn get(&self) -> Arc<AssertionKeys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, keys: AssertionKeys) -> Arc<AssertionKeys> {
        let keys = Arc::new(keys);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&keys);
        keys
    }
}

impl std::fmt::Debug for KeysInMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeysInMemory(…)")
    }
}

impl Operations {
    /// The time between reads of the keys: a new one signs much later.
    pub const REFRESH_ASSERTION_KEYS: Duration = Duration::from_secs(30);

    /// The audiences that assertions may be for; none: assertions are off.
    pub fn assertion_audiences(&self) -> &[String] {
        &self.rules.assertions.audiences
    }

    /// The keys that sign assertions.
    pub fn assertion_keys(&self) -> &KeysInMemory {
        &self.assertion_keys
    }

    /// Signs an assertion about the session that a token opens. It ends with the session at the latest. The session is read
    /// from the database, and its time counts from before that: an assertion outlives a session that another replica ends
    /// by no more than its lifetime.
    ///
    /// # Errors
    ///
    /// [`Error::SessionNotFound`].
    pub async fn issue_assertion(
        &self,
        caller: &Caller,
        wanted: &AssertionRequest,
    ) -> Result<(String, Timestamp)> {
        let now = self.clock.now();
        let digest = SessionToken::digest_of(&wanted.token).ok_or(Error::SessionNotFound)?;
        let session = self.load_session(caller, digest).await?;
        let mut keys = self.assertion_keys.get();
        if keys.is_empty() {
            keys = self.refresh_assertion_keys().await?;
        }
        let idle_end = self.rules.session_idle.map_or(session.expires, |idle| session.last_read.plus(idle));
        let expires = now.plus(wanted.lifetime).min(session.expires).min(idle_end);
        let claims = Claims {
            iss: &self.rules.assertions.issuer,
            sub: session.user.as_str(),
            aud: &wanted.audience,
            ns: caller.namespace.as_str(),
            sid: &session.public_id,
            auth_time: session.auth_time.seconds(),
            amr: session.amr.split_ascii_whitespace().collect(),
            iat: now.seconds(),
            exp: expires.seconds(),
        };
        let assertion = keys.sign(&claims, now).map_err(Error::internal)?;
        Ok((assertion.ok_or_else(|| Error::internal("no key to sign assertions with"))?, expires))
    }

    /// Reads the keys, and makes one where the newest is old. Nothing is read where assertions are off.
    pub async fn refresh_assertion_keys(&self) -> Result<Arc<AssertionKeys>> {
        if self.assertion_audiences().is_empty() {
            return Ok(self.assertion_keys.get());
        }
        let _refreshing = self.assertion_keys.refresh.lock().await;
        let (keys, now) = (self.read_assertion_keys().await?, self.clock.now());
        let Some(number) = keys.due(now, self.rules.assertions.rotate) else { return Ok(keys) };
        let mut seed = vec![0; SEED_BYTES];
        SysRng.try_fill_bytes(&mut seed).map_err(Error::internal)?;
        let tx = self.store.begin_as_server().await?;
        store::assertion_keys::insert(&tx, StoredKey { number, seed, created: now }).await?;
        tx.commit().await?;
        self.read_assertion_keys().await
    }

    async fn read_assertion_keys(&self) -> Result<Arc<AssertionKeys>> {
        let stored = store::assertion_keys::all(self.store.reader()).await?;
        Ok(self.assertion_keys.set(AssertionKeys::new(stored).map_err(Error::internal)?))
    }

    /// Removes the keys whose last assertion has ended.
    pub(super) async fn remove_replaced_assertion_keys(&self) -> Result<()> {
        let cutoff = self.clock.now().minus(2 * OVERLAP);
        if !self.assertion_keys.get().is_replaced(cutoff) {
            return Ok(());
        }
        let tx = self.store.begin_housekeeping().await?;
        store::assertion_keys::delete_replaced(&tx, cutoff).await?;
        tx.commit().await
    }
}
