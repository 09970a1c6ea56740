//! `service Namespaces`. Each method: parse, one operation, reply.

use tonic::{Request, Response};

use crate::ops::Operations;
use crate::pb;
use crate::pb::namespaces_server::Namespaces;

use super::{Reply, caller, convert};

/// The RPCs over the operations.
#[derive(Clone)]
pub struct NamespacesService {
    ops: Operations,
}

impl NamespacesService {
    /// The RPCs over `ops`.
    pub fn new(ops: Operations) -> Self {
        Self { ops }
    }
}

#[tonic::async_trait]
impl Namespaces for NamespacesService {
    async fn create_namespace(
        &self,
        request: Request<pb::CreateNamespaceRequest>,
    ) -> Reply<pb::CreateNamespaceResponse> {
        let caller = caller(&request)?;
        let (name, limits) = convert::new_namespace(request.get_ref())?;
        let namespace = Some(self.ops.create_namespace(&caller, name, limits).await?.into());
        Ok(Response::new(pb::CreateNamespaceResponse { namespace }))
    }

    async fn read_namespace(
        &self,
        request: Request<pb::ReadNamespaceRequest>,
    ) -> Reply<pb::ReadNamespaceResponse> {
        let caller = caller(&request)?;
        let name = convert::namespace_name(&request.get_ref().name)?;
        let (namespace, usage) = self.ops.read_namespace(&caller, &name).await?;
        let (namespace, usage) = (Some(namespace.into()), Some(convert::namespace_usage(usage)));
        Ok(Response::new(pb::ReadNamespaceResponse { namespace, usage }))
    }

    async fn list_namespaces(
        &self,
        request: Request<pb::ListNamespacesRequest>,
    ) -> Reply<pb::ListNamespacesResponse> {
        let caller = caller(&request)?;
        let wanted = convert::namespaces_page(request.into_inner())?;
        let listed = self.ops.list_namespaces(&caller, &wanted).await?;
        Ok(Response::new(convert::listed_namespaces(listed)))
    }

    async fn update_namespace(
        &self,
        request: Request<pb::UpdateNamespaceRequest>,
    ) -> Reply<pb::UpdateNamespaceResponse> {
        let caller = caller(&request)?;
        let (name, changes) = convert::namespace_limits(request.get_ref())?;
        let namespace = Some(self.ops.update_namespace(&caller, &name, changes).await?.into());
        Ok(Response::new(pb::UpdateNamespaceResponse { namespace }))
    }

    async fn delete_namespace(
        &self,
        request: Request<pb::DeleteNamespaceRequest>,
    ) -> Reply<pb::DeleteNamespaceResponse> {
        let caller = caller(&request)?;
        let name = convert::to_delete(request.get_ref())?;
        let namespace = Some(self.ops.delete_namespace(&caller, &name).await?.into());
        Ok(Response::new(pb::DeleteNamespaceResponse { namespace }))
    }
}
