//! `service Users`. Each method: parse, one operation, reply.

use tonic::{Request, Response, Status};

use crate::domain::caller::Caller;
use crate::error::{Error, Result};
use crate::ops::Operations;
use crate::pb;
use crate::pb::users_server::Users;

use super::convert;

/// The RPCs over the operations.
#[derive(Clone)]
pub struct UsersService {
    ops: Operations,
}

impl UsersService {
    /// The RPCs over `ops`.
    #[must_use]
    pub fn new(ops: Operations) -> Self {
        Self { ops }
    }
}

#[tonic::async_trait]
impl Users for UsersService {
    async fn create(
        &self,
        request: Request<pb::CreateRequest>,
    ) -> Result<Response<pb::CreateResponse>, Status> {
        let caller = caller(&request)?;
        let new = convert::new_user(request.into_inner(), self.ops.policy())?;
        let user = self.ops.create(&caller, new).await?;
        Ok(Response::new(pb::CreateResponse { user: Some(user.into()) }))
    }

    async fn read(&self, request: Request<pb::ReadRequest>) -> Result<Response<pb::ReadResponse>, Status> {
        let caller = caller(&request)?;
        let key = request.into_inner().try_into()?;
        let user = self.ops.read(&caller, &key).await?;
        Ok(Response::new(pb::ReadResponse { user: Some(user.into()) }))
    }

    async fn update(
        &self,
        request: Request<pb::UpdateRequest>,
    ) -> Result<Response<pb::UpdateResponse>, Status> {
        let caller = caller(&request)?;
        let (id, etag, changes) = convert::changes(request.into_inner(), self.ops.policy())?;
        let user = self.ops.update(&caller, &id, &etag, &changes).await?;
        Ok(Response::new(pb::UpdateResponse { user: Some(user.into()) }))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::DeleteResponse>, Status> {
        let caller = caller(&request)?;
        let pb::DeleteRequest { id, etag } = request.into_inner();
        let user = self.ops.delete(&caller, &convert::user_id("id", &id)?, &etag).await?;
        Ok(Response::new(pb::DeleteResponse { user: Some(user.into()) }))
    }

    async fn search(
        &self,
        request: Request<pb::SearchRequest>,
    ) -> Result<Response<pb::SearchResponse>, Status> {
        let caller = caller(&request)?;
        let include_prefs = request.get_ref().include_prefs;
        let (username, email, page) = convert::search(&request.into_inner())?;
        let users = self.ops.search(&caller, &username, &email, page).await?;
        Ok(Response::new(pb::SearchResponse { users: convert::reply_page(users, include_prefs) }))
    }

    async fn update_password(
        &self,
        request: Request<pb::UpdatePasswordRequest>,
    ) -> Result<Response<pb::UpdatePasswordResponse>, Status> {
        let caller = caller(&request)?;
        let change = convert::password_change(request.into_inner(), self.ops.policy())?;
        let user = self.ops.update_password(&caller, change).await?;
        Ok(Response::new(pb::UpdatePasswordResponse { user: Some(user.into()) }))
    }

    async fn login(&self, request: Request<pb::LoginRequest>) -> Result<Response<pb::LoginResponse>, Status> {
        let caller = caller(&request)?;
        let attempt = request.into_inner().try_into()?;
        let (token, session) = self.ops.login(&caller, attempt).await?;
        let session = convert::session(session, token.expose().to_owned());
        Ok(Response::new(pb::LoginResponse { session: Some(session) }))
    }

    async fn logout(
        &self,
        request: Request<pb::LogoutRequest>,
    ) -> Result<Response<pb::LogoutResponse>, Status> {
        let caller = caller(&request)?;
        let token = convert::token(request.into_inner().session_id)?;
        self.ops.logout(&caller, &token).await?;
        Ok(Response::new(pb::LogoutResponse {}))
    }

    async fn read_session(
        &self,
        request: Request<pb::ReadSessionRequest>,
    ) -> Result<Response<pb::ReadSessionResponse>, Status> {
        let caller = caller(&request)?;
        let token = convert::token(request.into_inner().session_id)?;
        let session = self.ops.read_session(&caller, &token).await?;
        Ok(Response::new(pb::ReadSessionResponse { session: Some(convert::session(session, token)) }))
    }
}

/// Whom the gate let in. Without one nothing is served.
fn caller<T>(request: &Request<T>) -> Result<Caller> {
    request.extensions().get().cloned().ok_or_else(|| Error::internal("a call came past the gate"))
}
