//! The operations: parameters to our messages, our replies to its models.

use http::request::Parts;
use prost::Message as _;
use prost_types::{FieldMask, Struct};
use serde_json::{Map, Value};
use tonic::Status;

use super::params::{self, Page, Params};
use super::refusal::Failure;
use super::route::Operation;
use super::{model, sentences};
use crate::error::Error;
use crate::http::dialects::client::{self, Client};
use crate::http::reply::{has_reason, serialized};
use crate::pb::{self, ErrorReason};
use transcode::json::{self, Style};

/// One request to an operation.
pub(super) struct Request<'a> {
    pub(super) client: Client<'a>,
    pub(super) head: &'a Parts,
    pub(super) operation: Operation,
    /// Empty where the path has none.
    pub(super) user: &'a str,
    pub(super) session: &'a str,
    /// The members of the body; none if it is no JSON object.
    pub(super) body: Map<String, Value>,
}

type Result<T, E = Failure> = std::result::Result<T, E>;

impl Request<'_> {
    /// Does what was asked. Returns the body of the answer, if it has one.
    pub(super) async fn answer(&self) -> Result<Option<Vec<u8>>> {
        match self.operation {
            Operation::Create => self.create().await.map(Some),
            Operation::List => self.list().await.map(Some),
            Operation::Get => self.get().await.map(Some),
            Operation::GetPrefs => self.get_prefs().await.map(Some),
            Operation::GetSessions => self.get_sessions().await.map(Some),
            Operation::GetLogs => self.get_logs().await.map(Some),
            Operation::UpdateStatus => self.update_status().await.map(Some),
            Operation::UpdateVerification => self.update_verification().await.map(Some),
            Operation::UpdatePrefs => self.update_prefs().await.map(Some),
            Operation::UpdateName => self.update_name().await.map(Some),
            Operation::UpdateEmail => self.update_email().await.map(Some),
            Operation::UpdatePassword => self.update_password().await.map(Some),
            Operation::DeleteSession => self.delete_session().await.map(|()| None),
            Operation::DeleteSessions => self.delete_sessions().await.map(|()| None),
            Operation::Delete => self.delete().await.map(|()| None),
        }
    }

    async fn call<Reply: prost::Message + Default>(
        &self,
        request: &impl prost::Message,
    ) -> Result<Reply, Status> {
        self.client.call(request).await
    }

    fn params(&self) -> Params<'_> {
        Params(&self.body)
    }

    async fn create(&self) -> Result<Vec<u8>> {
        let params = self.params();
        let request = pb::CreateRequest {
            email: params.email()?,
            password: params.password()?,
            name: params.optional_name()?,
            status: pb::UserStatus::Pending.into(),
            ..Default::default()
        };
        user_json(self.call::<pb::CreateResponse>(&request).await?.user)
    }

    async fn list(&self) -> Result<Vec<u8>> {
        let page = Page::read(self.head)?;
        let request = pb::ListRequest {
            search: page.search,
            limit: Some(page.limit),
            offset: page.offset,
            order_by: "created".to_owned(),
            order_dir: page.order,
            include_prefs: true,
            ..Default::default()
        };
        let listed = self.client.list(request).await?;
        let users = listed.users.iter().map(model::User::from).collect();
        Ok(serialized(&model::UserList { sum: listed.total.unwrap_or_default(), users }))
    }

    async fn read(&self) -> Result<pb::User> {
        let request = pb::ReadRequest { id: self.user.to_owned(), ..Default::default() };
        let reply: pb::ReadResponse = self.client.call_other(Operation::Get.method(), &request).await?;
        Ok(client::user(reply.user)?)
    }

    async fn get(&self) -> Result<Vec<u8>> {
        let user = self.read().await?;
        Ok(serialized(&model::User::from(&user)))
    }

    async fn get_prefs(&self) -> Result<Vec<u8>> {
        let request = pb::ReadPrefsRequest { id: self.user.to_owned() };
        let reply: pb::ReadPrefsResponse = self.call(&request).await?;
        Ok(serialized(&model::Prefs(reply.prefs.as_ref())))
    }

    async fn get_sessions(&self) -> Result<Vec<u8>> {
        let user = self.read().await?;
        let (mut sessions, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = pb::ListSessionsRequest {
                user_id: self.user.to_owned(),
                limit: Some(1000),
                page_token,
                skip_total: true,
            };
            let reply: pb::ListSessionsResponse = self.call(&request).await?;
            sessions.extend(reply.sessions);
            page_token = reply.next_page_token;
            if page_token.is_empty() || sessions.len() >= model::MAX_SESSIONS {
                break;
            }
        }
        sessions.truncate(model::MAX_SESSIONS);
        let sessions: Vec<_> =
            sessions.iter().map(|session| model::Session::new(session, &user.email)).collect();
        Ok(serialized(&model::SessionList { sum: sessions.len(), sessions }))
    }

    async fn get_logs(&self) -> Result<Vec<u8>> {
        // Our log outlives the user; here a deleted one is not found.
        self.read().await?;
        let (mut logs, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = pb::ListLogsRequest {
                user_id: self.user.to_owned(),
                events: model::EVENTS.map(i32::from).to_vec(),
                limit: Some(100),
                page_token,
                skip_total: true,
                ..Default::default()
            };
            let reply: pb::ListLogsResponse = self.call(&request).await?;
            for entry in reply.logs {
                logs.extend(model::events(&entry).into_iter().map(|event| (event, entry.clone())));
            }
            page_token = reply.next_page_token;
            if page_token.is_empty() || logs.len() >= model::MAX_LOGS {
                break;
            }
        }
        logs.truncate(model::MAX_LOGS);
        let logs = logs.iter().map(|(event, entry)| model::Log::new(event, entry)).collect();
        Ok(serialized(&model::LogList { logs }))
    }

    async fn update_status(&self) -> Result<Vec<u8>> {
        let status = model::status_from(self.params().status()?).into();
        let request = pb::UpdateStatusRequest { id: self.user.to_owned(), status, ..Default::default() };
        user_json(self.call::<pb::UpdateStatusResponse>(&request).await?.user)
    }

    async fn update_verification(&self) -> Result<Vec<u8>> {
        let email_verified = self.params().verification()?;
        let request =
            pb::UpdateVerificationRequest { id: self.user.to_owned(), email_verified, ..Default::default() };
        user_json(self.call::<pb::UpdateVerificationResponse>(&request).await?.user)
    }

    async fn update_prefs(&self) -> Result<Vec<u8>> {
        let prefs = self.structure(&self.params().prefs()?)?;
        let request = pb::UpdatePrefsRequest {
            id: self.user.to_owned(),
            prefs: Some(prefs),
            replace: self.client.gateway.settings.appwrite_replaces_prefs,
            ..Default::default()
        };
        let reply: pb::UpdatePrefsResponse = self.call(&request).await?;
        Ok(serialized(&model::Prefs(reply.prefs.as_ref())))
    }

    /// A JSON object as a message.
    fn structure(&self, object: &str) -> Result<Struct> {
        let schema = self.client.schema();
        let id = schema.message_id("google.protobuf.Struct");
        let id = id.ok_or_else(|| Status::from(Error::internal("there is no google.protobuf.Struct")))?;
        let message = json::read(schema, id, object.as_bytes(), Style::CANONICAL)
            .map_err(|_| params::invalid("prefs", sentences::PREFS))?;
        Struct::decode(&*message).map_err(|_| params::invalid("prefs", sentences::PREFS))
    }

    async fn update_name(&self) -> Result<Vec<u8>> {
        let name = Some(self.params().name()?);
        self.update(pb::UpdateRequest { name, ..Default::default() }, "name").await
    }

    async fn update_email(&self) -> Result<Vec<u8>> {
        let email = Some(self.params().email()?);
        self.update(pb::UpdateRequest { email, ..Default::default() }, "email").await
    }

    async fn update(&self, change: pb::UpdateRequest, field: &str) -> Result<Vec<u8>> {
        let update_mask = Some(FieldMask { paths: vec![field.to_owned()] });
        let request = pb::UpdateRequest { id: self.user.to_owned(), update_mask, ..change };
        user_json(self.call::<pb::UpdateResponse>(&request).await?.user)
    }

    async fn update_password(&self) -> Result<Vec<u8>> {
        let request = pb::SetPasswordRequest {
            user_id: self.user.to_owned(),
            new_password: self.params().password()?,
            ..Default::default()
        };
        user_json(self.call::<pb::SetPasswordResponse>(&request).await?.user)
    }

    async fn delete_session(&self) -> Result<()> {
        if !params::is_uid(self.session) {
            return Err(params::invalid("sessionId", sentences::UID));
        }
        let (user_id, session_id) = (self.user.to_owned(), self.session.to_owned());
        let request = pb::DeleteSessionRequest { user_id, session_id };
        match self.call::<pb::DeleteSessionResponse>(&request).await {
            // One that is not there has ended.
            Err(status) if !has_reason(&status, ErrorReason::SessionNotFound) => Err(status.into()),
            _ => Ok(()),
        }
    }

    async fn delete_sessions(&self) -> Result<()> {
        let request = pb::DeleteSessionsRequest { user_id: self.user.to_owned() };
        self.call::<pb::DeleteSessionsResponse>(&request).await?;
        Ok(())
    }

    async fn delete(&self) -> Result<()> {
        let request = pb::DeleteRequest { id: self.user.to_owned(), ..Default::default() };
        self.call::<pb::DeleteResponse>(&request).await?;
        Ok(())
    }
}

fn user_json(user: Option<pb::User>) -> Result<Vec<u8>> {
    Ok(serialized(&model::User::from(&client::user(user)?)))
}
