//! Requests that are not RPCs: health probes, documents, and the public keys of assertions.

use http::Response;
use http::request::Parts;
use tonic::body::Body;

use crate::auth::authenticator::{Authenticator, Peer};
use crate::config::Config;
use crate::error::Result;
use crate::http::{Document, jwks};
use crate::ops::assertions::KeysInMemory;

use super::connection::Connection;
use super::health::{Health, Probe};
use super::limits::{LoadLimits, Permits};

/// Answers such requests.
#[derive(Debug)]
pub(super) struct Infra {
    health: Health,
    assertion_keys: KeysInMemory,
    health_is_public: bool,
    reflection_is_public: bool,
}

impl Infra {
    pub(super) fn new(config: &Config, health: Health, assertion_keys: KeysInMemory) -> Self {
        Self {
            health,
            assertion_keys,
            health_is_public: config.open.health,
            reflection_is_public: config.open.reflection,
        }
    }

    /// The answer to such a request; `None` for all others.
    pub(super) fn answer(
        &self,
        head: &Parts,
        (authenticator, peer): (&Authenticator, &Peer),
        (limits, connection): (&LoadLimits, &Connection),
        permits: &mut Permits,
    ) -> Result<Option<Response<Body>>> {
        let path = head.uri.path();
        if let Some(probe) = Probe::of(path) {
            authenticator.authenticate_infra(head, peer, self.health_is_public)?;
            return Ok(Some(self.health.answer(probe, &head.method)));
        }
        if path == jwks::PATH {
            authenticator.authenticate_infra(head, peer, true)?;
            limits.open_infra_stream(connection, permits)?;
            let keys = self.assertion_keys.get();
            return Ok(Some(jwks::answer(head, keys.public().clone(), keys.is_empty())));
        }
        let Some(document) = Document::of(path) else { return Ok(None) };
        authenticator.authenticate_infra(head, peer, self.reflection_is_public)?;
        limits.open_infra_stream(connection, permits)?;
        Ok(Some(document.answer(head)))
    }
}
