//! The services of one server, as one value.

use tonic::service::Routes;
use tonic::service::RoutesBuilder;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::auth::keyring::KeyRing;
use crate::auth::policy;
use crate::domain::scope::Scope;
use crate::grpc::keys::KeysService;
use crate::grpc::users::UsersService;
use crate::ops::Operations;
use crate::pb::keys_server::KeysServer;
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
    pub routes: RoutesBuilder,
}

impl Services {
    /// Users and keys. Messages have at most `max_body` bytes.
    pub fn users_and_keys(ops: Operations, keys: KeyRing, max_body: usize) -> Self {
        let users = UsersServer::new(UsersService::new(ops.clone())).max_decoding_message_size(max_body);
        let keys = KeysServer::new(KeysService::new(ops, keys)).max_decoding_message_size(max_body);
        let mut routes = Routes::builder();
        routes.add_service(users).add_service(keys);
        Self { descriptors: crate::DESCRIPTOR_SET.to_vec(), scope_of: policy::scope_of, routes }
    }

    /// The implementations, with health and reflection.
    pub(super) fn into_routes(
        self,
        health: HealthServer<impl Health>,
    ) -> Result<Routes, tonic_reflection::server::Error> {
        let reflection = || reflection_builder(&self.descriptors);
        let mut routes = self.routes.clone();
        routes.add_service(health);
        // Clients in use speak one or the other version of reflection.
        routes.add_service(reflection().build_v1()?.max_decoding_message_size(MAX_NAME));
        routes.add_service(reflection().build_v1alpha()?.max_decoding_message_size(MAX_NAME));
        Ok(routes.routes())
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
