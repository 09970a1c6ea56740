//! `service Users`. Each method: parse, one operation, reply.

use tonic::{Request, Response};

use crate::ops::Operations;
use crate::ops::users::UserRef;
use crate::pb;
use crate::pb::users_server::Users;

use super::{Reply, caller, convert, idempotency_header};

/// The RPCs over the operations.
#[derive(Clone)]
pub struct UsersService {
    ops: Operations,
}

impl UsersService {
    /// The RPCs over `ops`.
    pub fn new(ops: Operations) -> Self {
        Self { ops }
    }
}

#[tonic::async_trait]
impl Users for UsersService {
    async fn create(&self, request: Request<pb::CreateRequest>) -> Reply<pb::CreateResponse> {
        let caller = caller(&request)?;
        let header = idempotency_header(&request);
        let (new, call) = convert::new_user(request.into_inner(), header.as_ref(), self.ops.policy())?;
        let user = self.ops.create(&caller, new, call.as_ref()).await?;
        Ok(Response::new(pb::CreateResponse { user: Some(user.into()) }))
    }

    async fn read(&self, request: Request<pb::ReadRequest>) -> Reply<pb::ReadResponse> {
        let caller = caller(&request)?;
        let key = request.into_inner().try_into()?;
        let user = self.ops.read(&caller, &key).await?;
        Ok(Response::new(pb::ReadResponse { user: Some(user.into()) }))
    }

    async fn update(&self, request: Request<pb::UpdateRequest>) -> Reply<pb::UpdateResponse> {
        let caller = caller(&request)?;
        let (id, etag, changes) = convert::changes(request.into_inner(), self.ops.policy())?;
        let user = self.ops.update(&caller, &id, &etag, &changes).await?;
        Ok(Response::new(pb::UpdateResponse { user: Some(user.into()) }))
    }

    async fn delete(&self, request: Request<pb::DeleteRequest>) -> Reply<pb::DeleteResponse> {
        let caller = caller(&request)?;
        let pb::DeleteRequest { id, etag } = request.into_inner();
        let user = self.ops.delete(&caller, &convert::user_id("id", &id)?, &etag).await?;
        Ok(Response::new(pb::DeleteResponse { user: Some(user.into()) }))
    }

    async fn search(&self, request: Request<pb::SearchRequest>) -> Reply<pb::SearchResponse> {
        let caller = caller(&request)?;
        let prefs = request.get_ref().include_prefs;
        let (username, email, page) = convert::search(request.get_ref())?;
        let users = self.ops.search(&caller, username, email, page, prefs).await?;
        Ok(Response::new(pb::SearchResponse { users: convert::user_views(users, prefs) }))
    }

    async fn update_password(
        &self,
        request: Request<pb::UpdatePasswordRequest>,
    ) -> Reply<pb::UpdatePasswordResponse> {
        let caller = caller(&request)?;
        let change = convert::password_change(request.into_inner(), self.ops.policy())?;
        let user = self.ops.update_password(&caller, change).await?;
        Ok(Response::new(pb::UpdatePasswordResponse { user: Some(user.into()) }))
    }

    async fn login(&self, request: Request<pb::LoginRequest>) -> Reply<pb::LoginResponse> {
        let caller = caller(&request)?;
        let attempt = convert::login(request.into_inner(), self.ops.max_session_lifetime())?;
        let (token, session) = self.ops.login(&caller, attempt).await?;
        let session = convert::session(session, token.expose().to_owned());
        Ok(Response::new(pb::LoginResponse { session: Some(session) }))
    }

    async fn verify_password(
        &self,
        request: Request<pb::VerifyPasswordRequest>,
    ) -> Reply<pb::VerifyPasswordResponse> {
        let caller = caller(&request)?;
        let check = convert::password_check(request.into_inner())?;
        let user = self.ops.verify_password(&caller, check).await?;
        Ok(Response::new(pb::VerifyPasswordResponse { user: Some(user.into()) }))
    }

    async fn logout(&self, request: Request<pb::LogoutRequest>) -> Reply<pb::LogoutResponse> {
        let caller = caller(&request)?;
        let token = convert::token(request.into_inner().session_id)?;
        self.ops.logout(&caller, &token).await?;
        Ok(Response::new(pb::LogoutResponse {}))
    }

    async fn read_session(&self, request: Request<pb::ReadSessionRequest>) -> Reply<pb::ReadSessionResponse> {
        let caller = caller(&request)?;
        let (token, max_age) = convert::session_to_read(request.into_inner())?;
        let session = self.ops.read_session(&caller, &token, max_age).await?;
        Ok(Response::new(pb::ReadSessionResponse { session: Some(convert::session(session, token)) }))
    }

    async fn issue_assertion(
        &self,
        request: Request<pb::IssueAssertionRequest>,
    ) -> Reply<pb::IssueAssertionResponse> {
        let caller = caller(&request)?;
        let wanted = convert::assertion_request(request.into_inner(), self.ops.assertion_audiences())?;
        let (assertion, expires) = self.ops.issue_assertion(&caller, &wanted).await?;
        Ok(Response::new(pb::IssueAssertionResponse { assertion, expires: expires.seconds() }))
    }

    async fn batch_read(&self, request: Request<pb::BatchReadRequest>) -> Reply<pb::BatchReadResponse> {
        let caller = caller(&request)?;
        let prefs = request.get_ref().include_prefs;
        let ids = convert::ids(&request.get_ref().ids)?;
        let batch = self.ops.batch_read(&caller, ids, prefs).await?;
        Ok(Response::new(convert::batch(batch, prefs)))
    }

    async fn list(&self, request: Request<pb::ListRequest>) -> Reply<pb::ListResponse> {
        let caller = caller(&request)?;
        let (listing, wanted) = convert::listing(request.into_inner(), false)?;
        let listed = self.ops.list(&caller, &listing, &wanted).await?;
        Ok(Response::new(convert::listed(listed, wanted.prefs)))
    }

    async fn list_trash(&self, request: Request<pb::ListRequest>) -> Reply<pb::ListResponse> {
        let caller = caller(&request)?;
        let (listing, wanted) = convert::listing(request.into_inner(), true)?;
        let listed = self.ops.list(&caller, &listing, &wanted).await?;
        Ok(Response::new(convert::listed(listed, wanted.prefs)))
    }

    async fn create_or_restore(
        &self,
        request: Request<pb::CreateOrRestoreRequest>,
    ) -> Reply<pb::CreateOrRestoreResponse> {
        let caller = caller(&request)?;
        let header = idempotency_header(&request);
        let (new, changes, call) =
            convert::create_or_restore(request.into_inner(), header.as_ref(), self.ops.policy())?;
        let (user, restored) = self.ops.create_or_restore(&caller, new, &changes, call.as_ref()).await?;
        Ok(Response::new(pb::CreateOrRestoreResponse { user: Some(user.into()), restored }))
    }

    async fn read_trash(&self, request: Request<pb::ReadTrashRequest>) -> Reply<pb::ReadTrashResponse> {
        let caller = caller(&request)?;
        let id = convert::user_id("id", &request.get_ref().id)?;
        let user = self.ops.read_trash(&caller, &id).await?;
        Ok(Response::new(pb::ReadTrashResponse { user: Some(user.into()) }))
    }

    async fn restore(&self, request: Request<pb::RestoreRequest>) -> Reply<pb::RestoreResponse> {
        let caller = caller(&request)?;
        let pb::RestoreRequest { id, etag } = request.into_inner();
        let user = self.ops.restore(&caller, &convert::user_id("id", &id)?, &etag).await?;
        Ok(Response::new(pb::RestoreResponse { user: Some(user.into()) }))
    }

    async fn purge(&self, request: Request<pb::PurgeRequest>) -> Reply<pb::PurgeResponse> {
        let caller = caller(&request)?;
        let pb::PurgeRequest { id, etag } = request.into_inner();
        self.ops.purge(&caller, &convert::user_id("id", &id)?, &etag).await?;
        Ok(Response::new(pb::PurgeResponse {}))
    }

    async fn set_password(&self, request: Request<pb::SetPasswordRequest>) -> Reply<pb::SetPasswordResponse> {
        let caller = caller(&request)?;
        let etag = request.get_ref().etag.clone();
        let (id, password) = convert::set_password(request.into_inner(), self.ops.policy())?;
        let user = self.ops.set_password(&caller, &id, &etag, &password).await?;
        Ok(Response::new(pb::SetPasswordResponse { user: Some(user.into()) }))
    }

    async fn update_status(
        &self,
        request: Request<pb::UpdateStatusRequest>,
    ) -> Reply<pb::UpdateStatusResponse> {
        let caller = caller(&request)?;
        let (id, status) = convert::new_status(request.get_ref())?;
        let user = self.ops.update_status(&caller, &id, &request.get_ref().etag, status).await?;
        Ok(Response::new(pb::UpdateStatusResponse { user: Some(user.into()) }))
    }

    async fn update_verification(
        &self,
        request: Request<pb::UpdateVerificationRequest>,
    ) -> Reply<pb::UpdateVerificationResponse> {
        let caller = caller(&request)?;
        let (id, proven) = convert::verification(request.get_ref())?;
        let pb::UpdateVerificationRequest { email_verified, etag, .. } = request.into_inner();
        let user = self.ops.update_verification(&caller, &id, &etag, email_verified, proven.as_ref()).await?;
        Ok(Response::new(pb::UpdateVerificationResponse { user: Some(user.into()) }))
    }

    async fn unlock(&self, request: Request<pb::UnlockRequest>) -> Reply<pb::UnlockResponse> {
        let caller = caller(&request)?;
        let id = convert::user_id("id", &request.get_ref().id)?;
        let user = self.ops.unlock(&caller, &id).await?;
        Ok(Response::new(pb::UnlockResponse { user: Some(user.into()) }))
    }

    async fn read_prefs(&self, request: Request<pb::ReadPrefsRequest>) -> Reply<pb::ReadPrefsResponse> {
        let caller = caller(&request)?;
        let key = UserRef::Id(convert::user_id("id", &request.get_ref().id)?);
        let user = self.ops.read(&caller, &key).await?;
        Ok(Response::new(pb::ReadPrefsResponse { prefs: Some(convert::prefs_message(user.prefs)) }))
    }

    async fn update_prefs(&self, request: Request<pb::UpdatePrefsRequest>) -> Reply<pb::UpdatePrefsResponse> {
        let caller = caller(&request)?;
        let (etag, replace) = (request.get_ref().etag.clone(), request.get_ref().replace);
        let (id, prefs) = convert::prefs_change(request.into_inner())?;
        let user = self.ops.update_prefs(&caller, &id, &etag, prefs, replace).await?;
        Ok(Response::new(convert::prefs_written(user)))
    }

    async fn list_sessions(
        &self,
        request: Request<pb::ListSessionsRequest>,
    ) -> Reply<pb::ListSessionsResponse> {
        let caller = caller(&request)?;
        let (user, wanted) = convert::parse_list_sessions(request.into_inner())?;
        let listed = self.ops.list_sessions(&caller, &user, &wanted).await?;
        Ok(Response::new(convert::sessions(listed)))
    }

    async fn delete_session(
        &self,
        request: Request<pb::DeleteSessionRequest>,
    ) -> Reply<pb::DeleteSessionResponse> {
        let caller = caller(&request)?;
        let (user, session) = convert::session_ref(request.into_inner())?;
        self.ops.delete_session(&caller, &user, &session).await?;
        Ok(Response::new(pb::DeleteSessionResponse {}))
    }

    async fn delete_sessions(
        &self,
        request: Request<pb::DeleteSessionsRequest>,
    ) -> Reply<pb::DeleteSessionsResponse> {
        let caller = caller(&request)?;
        let user = convert::user_id("user_id", &request.get_ref().user_id)?;
        let deleted = self.ops.delete_sessions(&caller, &user).await?;
        Ok(Response::new(pb::DeleteSessionsResponse { deleted: i64::try_from(deleted).unwrap_or(i64::MAX) }))
    }

    async fn create_code(&self, request: Request<pb::CreateCodeRequest>) -> Reply<pb::CreateCodeResponse> {
        let caller = caller(&request)?;
        let (code, expires) = self.ops.create_code(&caller, convert::new_code(request.into_inner())?).await?;
        Ok(Response::new(pb::CreateCodeResponse { code: (*code).clone(), expires: expires.seconds() }))
    }

    async fn verify_email(&self, request: Request<pb::VerifyEmailRequest>) -> Reply<pb::VerifyEmailResponse> {
        let caller = caller(&request)?;
        let pb::VerifyEmailRequest { code, id, username, email, device } = request.into_inner();
        let entered = convert::code_use(code, &[id, username, email], device)?;
        let user = self.ops.verify_email(&caller, &entered).await?;
        Ok(Response::new(pb::VerifyEmailResponse { user: Some(user.into()) }))
    }

    async fn confirm_email_change(
        &self,
        request: Request<pb::ConfirmEmailChangeRequest>,
    ) -> Reply<pb::ConfirmEmailChangeResponse> {
        let caller = caller(&request)?;
        let pb::ConfirmEmailChangeRequest { code, id, username, email, device } = request.into_inner();
        let entered = convert::code_use(code, &[id, username, email], device)?;
        let user = self.ops.confirm_email_change(&caller, &entered).await?;
        Ok(Response::new(pb::ConfirmEmailChangeResponse { user: Some(user.into()) }))
    }

    async fn reset_password(
        &self,
        request: Request<pb::ResetPasswordRequest>,
    ) -> Reply<pb::ResetPasswordResponse> {
        let caller = caller(&request)?;
        let (entered, new) = convert::password_reset(request.into_inner(), self.ops.policy())?;
        let user = self.ops.reset_password(&caller, &entered, new).await?;
        Ok(Response::new(pb::ResetPasswordResponse { user: Some(user.into()) }))
    }

    async fn login_with_code(
        &self,
        request: Request<pb::LoginWithCodeRequest>,
    ) -> Reply<pb::LoginWithCodeResponse> {
        let caller = caller(&request)?;
        let (entered, wanted) = convert::code_login(request.into_inner(), self.ops.max_session_lifetime())?;
        let (token, session) = self.ops.login_with_code(&caller, &entered, wanted).await?;
        let session = convert::session(session, token.expose().to_owned());
        Ok(Response::new(pb::LoginWithCodeResponse { session: Some(session) }))
    }

    async fn list_logs(&self, request: Request<pb::ListLogsRequest>) -> Reply<pb::ListLogsResponse> {
        let caller = caller(&request)?;
        let (user, filter, wanted) = convert::parse_list_logs(request.into_inner())?;
        let listed = self.ops.list_logs(&caller, &user, &filter, &wanted).await?;
        Ok(Response::new(convert::logs(listed)))
    }

    async fn enroll_totp(&self, request: Request<pb::EnrollTotpRequest>) -> Reply<pb::EnrollTotpResponse> {
        let caller = caller(&request)?;
        let (request, issuer) = convert::enrollment(request.into_inner())?;
        let shown = self.ops.enroll_totp(&caller, &request, issuer).await?;
        let (secret, uri) = (shown.secret.as_str().to_owned(), shown.uri.as_str().to_owned());
        Ok(Response::new(pb::EnrollTotpResponse { secret, uri }))
    }

    async fn confirm_totp(&self, request: Request<pb::ConfirmTotpRequest>) -> Reply<pb::ConfirmTotpResponse> {
        let caller = caller(&request)?;
        let (request, code) = convert::confirmation(request.into_inner())?;
        let codes = self.ops.confirm_totp(&caller, &request, &code).await?;
        Ok(Response::new(pb::ConfirmTotpResponse { recovery_codes: convert::recovery_codes(&codes) }))
    }

    async fn remove_totp(&self, request: Request<pb::RemoveTotpRequest>) -> Reply<pb::RemoveTotpResponse> {
        let caller = caller(&request)?;
        let request = convert::removal(request.into_inner())?;
        self.ops.remove_totp(&caller, &request).await?;
        Ok(Response::new(pb::RemoveTotpResponse {}))
    }

    async fn create_recovery_codes(
        &self,
        request: Request<pb::CreateRecoveryCodesRequest>,
    ) -> Reply<pb::CreateRecoveryCodesResponse> {
        let caller = caller(&request)?;
        let request = convert::new_codes(request.into_inner())?;
        let codes = self.ops.create_recovery_codes(&caller, &request).await?;
        Ok(Response::new(pb::CreateRecoveryCodesResponse { recovery_codes: convert::recovery_codes(&codes) }))
    }

    async fn list_factors(&self, request: Request<pb::ListFactorsRequest>) -> Reply<pb::ListFactorsResponse> {
        let caller = caller(&request)?;
        let user = convert::user_id("user_id", &request.get_ref().user_id)?;
        let factors = self.ops.list_factors(&caller, &user).await?;
        Ok(Response::new(convert::factors(&factors)))
    }

    async fn complete_login(
        &self,
        request: Request<pb::CompleteLoginRequest>,
    ) -> Reply<pb::CompleteLoginResponse> {
        let caller = caller(&request)?;
        let step = convert::second_step(request.into_inner(), self.ops.max_session_lifetime())?;
        let (token, session) = self.ops.complete_login(&caller, &step).await?;
        let session = convert::session(session, token.expose().to_owned());
        Ok(Response::new(pb::CompleteLoginResponse { session: Some(session) }))
    }
}
