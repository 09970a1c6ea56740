//! `service Keys`. Each method: parse, one operation, reply.

use tonic::{Request, Response};

use crate::auth::keyring::KeyRing;
use crate::domain::key::Key;
use crate::ops::Operations;
use crate::pb;
use crate::pb::keys_server::Keys;

use super::{Reply, caller, convert};

/// The RPCs over the operations.
#[derive(Clone)]
pub struct KeysService {
    ops: Operations,
    /// The keys of this replica: a change of them takes effect here before it is answered.
    ring: KeyRing,
}

impl KeysService {
    /// The RPCs over `ops`; `ring` is what lets callers in.
    pub fn new(ops: Operations, ring: KeyRing) -> Self {
        Self { ops, ring }
    }

    /// The change is stored: where it cannot be read back now, it will be in time.
    async fn reload_keys(&self) {
        if let Err(error) = self.ring.refresh().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "API keys could not be reloaded yet");
        }
    }
}

#[tonic::async_trait]
impl Keys for KeysService {
    async fn create(&self, request: Request<pb::CreateKeyRequest>) -> Reply<pb::CreateKeyResponse> {
        let caller = caller(&request)?;
        let (name, scopes, expires) = convert::new_key(request.get_ref())?;
        let (secret, key) = self.ops.create_key(&caller, name, scopes, expires).await?;
        self.reload_keys().await;
        let secret = secret.expose().to_owned();
        Ok(Response::new(pb::CreateKeyResponse { key: Some(key.into()), secret }))
    }

    async fn list(&self, request: Request<pb::ListKeysRequest>) -> Reply<pb::ListKeysResponse> {
        let keys = self.ops.list_keys(&caller(&request)?).await?;
        Ok(Response::new(pb::ListKeysResponse { keys: keys.into_iter().map(Key::into).collect() }))
    }

    async fn delete(&self, request: Request<pb::DeleteKeyRequest>) -> Reply<pb::DeleteKeyResponse> {
        let caller = caller(&request)?;
        let (id, descendants) = convert::key_to_delete(request.into_inner())?;
        let revoked = self.ops.delete_key(&caller, &id, descendants).await?;
        self.reload_keys().await;
        let revoked = i64::try_from(revoked).unwrap_or(i64::MAX);
        Ok(Response::new(pb::DeleteKeyResponse { revoked }))
    }

    async fn list_logs(&self, request: Request<pb::ListKeyLogsRequest>) -> Reply<pb::ListKeyLogsResponse> {
        let caller = caller(&request)?;
        let (filter, wanted) = convert::parse_key_logs(request.into_inner())?;
        let listed = self.ops.list_key_logs(&caller, &filter, &wanted).await?;
        Ok(Response::new(convert::key_logs(listed)))
    }
}
