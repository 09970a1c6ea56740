//! The services of one server, as one value.

use std::sync::Arc;

use tonic_health::pb::health_server::{Health, HealthServer};

use crate::auth::keyring::KeyRing;
use crate::auth::policy;
use crate::domain::scope::Scope;
use crate::grpc::keys::KeysService;
use crate::grpc::namespaces::NamespacesService;
use crate::grpc::users::UsersService;
use crate::http::Upstream;
use crate::ops::Operations;
use crate::pb::keys_server::KeysServer;
use crate::pb::namespaces_server::NamespacesServer;
use crate::pb::users_server::UsersServer;

/// Longest message of reflection, which is a name.
const MAX_NAME: usize = 4 * 1024;

/// RPCs, with their scopes and descriptors.
pub struct Services {
    /// An encoded `FileDescriptorSet` with their `google.api.http` options.
    pub descriptors: Vec<u8>,
    /// The scope that the RPC of a gRPC path needs. An RPC without one is not served.
    pub scope_of: fn(&str) -> Option<Scope>,
    /// Their implementations.
    pub rpcs: Upstream,
}

impl Services {
    /// Users, keys and namespaces. Messages have at most `max_body` bytes.
    pub fn users_and_keys(ops: Operations, keys: KeyRing, max_body: usize) -> Self {
        let mut rpcs = Upstream::default();
        let users = Arc::new(UsersService::new(ops.clone()));
        unary::add_users(&mut rpcs, &users);
        rpcs.add(UsersServer::from_arc(users).max_decoding_message_size(max_body));
        let keys = Arc::new(KeysService::new(ops.clone(), keys));
        unary::add_keys(&mut rpcs, &keys);
        rpcs.add(KeysServer::from_arc(keys).max_decoding_message_size(max_body));
        let namespaces = Arc::new(NamespacesService::new(ops));
        unary::add_namespaces(&mut rpcs, &namespaces);
        rpcs.add(NamespacesServer::from_arc(namespaces).max_decoding_message_size(max_body));
        Self { descriptors: crate::DESCRIPTOR_SET.to_vec(), scope_of: policy::scope_of, rpcs }
    }

    /// The implementations, with health and reflection.
    pub(super) fn into_rpcs(
        self,
        health: HealthServer<impl Health>,
    ) -> Result<Upstream, tonic_reflection::server::Error> {
        let Self { descriptors, mut rpcs, .. } = self;
        rpcs.add(health);
        // Clients in use speak one or the other version of reflection.
        rpcs.add(reflection_builder(&descriptors).build_v1()?.max_decoding_message_size(MAX_NAME));
        rpcs.add(reflection_builder(&descriptors).build_v1alpha()?.max_decoding_message_size(MAX_NAME));
        Ok(rpcs)
    }
}

/// Reflection, from which clients such as grpcurl learn the methods.
fn reflection_builder(descriptors: &[u8]) -> tonic_reflection::server::Builder<'_> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(descriptors)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // With these a client can decode the details of a status.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// The unary RPCs of each service, as `build.rs` lists them.
mod unary {
    use std::sync::Arc;

    use crate::http::Upstream;
    use crate::pb::{keys_server::Keys, namespaces_server::Namespaces, users_server::Users};

    include!(concat!(env!("OUT_DIR"), "/unary.rs"));
}
