//! `usersd-client ADDRESS KEY` signs up, signs in and out: a line for each step.

use std::error::Error;
use std::time::Duration;

use pb::users_client::UsersClient;
use pb::{CreateRequest, ListRequest, LoginRequest, LogoutRequest, ReadSessionRequest};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::{Interceptor, interceptor::InterceptedService};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

/// What the proto was compiled to.
mod pb {
    tonic::include_proto!("users");
}

/// Sends the key with every call.
struct ApiKey(MetadataValue<Ascii>);

impl Interceptor for ApiKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Users = UsersClient<InterceptedService<Channel, ApiKey>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, key] = &arguments[..] else { return Err("wants ADDRESS and KEY".into()) };
    let channel = Endpoint::from_shared(format!("http://{address}"))?
        .timeout(Duration::from_secs(60))
        .connect()
        .await?;
    let key = ApiKey(format!("Bearer {key}").parse()?);
    walk(UsersClient::with_interceptor(channel, key)).await
}

async fn walk(mut users: Users) -> Result<(), Box<dyn Error>> {
    let password = "correct horse".to_owned();
    let ada = CreateRequest {
        username: "ada".into(),
        email: "ada@example.com".into(),
        password: password.clone(),
        ..CreateRequest::default()
    };
    let user = users.create(ada).await?.into_inner().user.ok_or("no user")?;
    println!("created {} {}", user.username, user.email);

    let login = LoginRequest { username: "ada".into(), password, ..LoginRequest::default() };
    let session_id = users.login(login).await?.into_inner().session.ok_or("no session")?.id;
    let read = ReadSessionRequest { session_id: session_id.clone(), max_age: None };
    let session = users.read_session(read.clone()).await?.into_inner().session.ok_or("no session")?;
    println!("session {} {}", session.username, session.email);

    println!("pages {}", pages(&mut users).await?);

    users.logout(LogoutRequest { session_id }).await?;
    println!("logged out {}", refusal(users.read_session(read).await)?);

    let wrong = CreateRequest {
        username: "é".into(),
        email: "nobody".into(),
        password: "short".into(),
        ..CreateRequest::default()
    };
    println!("refused {}", refusal(users.create(wrong).await)?);
    Ok(())
}

/// Creates four more users and lists all, two at a time.
async fn pages(users: &mut Users) -> Result<String, Status> {
    for number in 1..=4 {
        let request = CreateRequest {
            username: format!("user{number}"),
            sso_enabled: true,
            ..CreateRequest::default()
        };
        users.create(request).await?;
    }
    let mut shown = Vec::new();
    let mut request = ListRequest { order_by: "username".into(), limit: Some(2), ..ListRequest::default() };
    loop {
        let page = users.list(request.clone()).await?.into_inner();
        let names: Vec<_> = page.users.into_iter().map(|user| user.username).collect();
        shown.push(names.join(","));
        if page.next_page_token.is_empty() {
            return Ok(shown.join(" "));
        }
        request.page_token = page.next_page_token;
    }
}

/// The code, the reason and the fields at fault of a call that must fail.
fn refusal<T>(reply: Result<T, Status>) -> Result<String, &'static str> {
    let status = reply.err().ok_or("the call should be refused")?;
    let details = status.get_error_details();
    let mut parts = vec![i32::from(status.code()).to_string()];
    parts.extend(details.error_info().map(|info| info.reason.clone()));
    parts.extend(details.bad_request().map(|bad| {
        let fields: Vec<_> = bad.field_violations.iter().map(|violation| violation.field.as_str()).collect();
        fields.join(",")
    }));
    Ok(parts.join(" "))
}
