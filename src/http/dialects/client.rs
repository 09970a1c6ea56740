//! The RPCs as the dialects of JSON call them.

use bytes::Bytes;
use http::{Extensions, Response};
use http_body_util::Full;
use prost::Message;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::Gateway;
use crate::error::Error;
use crate::http::body::End;
use crate::http::frames::frame;
use crate::pb;
use transcode::schema::{Method, Schema};

/// Calls RPCs for one request.
#[derive(Debug)]
pub(super) struct Client<'g> {
    pub(super) gateway: &'g Gateway,
    /// The RPC that the request asks for.
    pub(super) method: &'g Method,
    /// Carry the caller, which was authorized for the RPCs of the request and no others.
    pub(super) extensions: Extensions,
}

impl<'g> Client<'g> {
    pub(super) fn schema(&self) -> &'g Schema {
        &self.gateway.schema
    }

    /// Calls the RPC of the request once, with its encoded message.
    pub(super) async fn unary(self, message: &[u8]) -> Result<Bytes, Status> {
        Ok(self.unary_with(MetadataMap::new(), message).await?.into_inner())
    }

    /// As [`Client::unary`], with the metadata of the call and of its reply.
    pub(super) async fn unary_with(
        self,
        metadata: MetadataMap,
        message: &[u8],
    ) -> Result<tonic::Response<Bytes>, Status> {
        let request = Request::from_parts(metadata, self.extensions, message);
        self.gateway.upstream.unary(self.method, request).await
    }

    /// Calls the RPC of the request, which replies with a stream.
    pub(super) async fn stream(self, message: &[u8], end: Option<End>) -> Result<Body, Status> {
        let message = Body::new(Full::new(frame(message)));
        Ok(self.stream_of(MetadataMap::new(), message, end).await?.into_body())
    }

    /// Calls the RPC of the request with metadata and a stream of messages in gRPC's frames; replies with such a
    /// stream, too, and with metadata as headers.
    pub(super) async fn stream_of(
        self,
        metadata: MetadataMap,
        messages: Body,
        end: Option<End>,
    ) -> Result<Response<Body>, Status> {
        let request = Request::from_parts(metadata, self.extensions, messages);
        self.gateway.upstream.stream(self.method, request, end).await
    }

    /// Calls the RPC of the request.
    pub(super) async fn call<Reply: Message + Default>(
        &self,
        request: &impl Message,
    ) -> Result<Reply, Status> {
        self.call_method(self.method, request).await
    }

    /// Calls another RPC, which the request was authorized for.
    pub(super) async fn call_other<Reply: Message + Default>(
        &self,
        path: &str,
        request: &impl Message,
    ) -> Result<Reply, Status> {
        let method = self.schema().method(path);
        self.call_method(method.ok_or_else(|| Error::internal(format!("there is no {path}")))?, request).await
    }

    async fn call_method<Reply: Message + Default>(
        &self,
        method: &Method,
        request: &impl Message,
    ) -> Result<Reply, Status> {
        let message = request.encode_to_vec();
        let request = Request::from_parts(MetadataMap::new(), self.extensions.clone(), &*message);
        let reply = self.gateway.upstream.unary(method, request).await?;
        Ok(Reply::decode(reply.into_inner()).map_err(Error::internal)?)
    }

    /// A page of `List` or `ListTrash` in its full length: one reply has a limit in bytes, too, and these
    /// dialects take a short page for the last one.
    pub(super) async fn list(&self, mut request: pb::ListRequest) -> Result<pb::ListResponse, Status> {
        let mut listed: pb::ListResponse = self.call(&request).await?;
        let wanted = request.limit.unwrap_or_default();
        while !listed.next_page_token.is_empty() {
            let missing = wanted - i64::try_from(listed.users.len()).unwrap_or(i64::MAX);
            if missing <= 0 {
                break;
            }
            request.limit = Some(missing);
            request.offset = 0;
            request.skip_total = true;
            request.page_token = std::mem::take(&mut listed.next_page_token);
            let more: pb::ListResponse = self.call(&request).await?;
            listed.users.extend(more.users);
            listed.next_page_token = more.next_page_token;
        }
        Ok(listed)
    }
}

/// The user of a reply, which every reply about one has.
pub(super) fn user(user: Option<pb::User>) -> Result<pb::User, Status> {
    user.ok_or_else(|| Error::internal("a reply without its user").into())
}
