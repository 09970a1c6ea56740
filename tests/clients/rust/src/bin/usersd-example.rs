//! Signs a user in and reads the session: `example URL`.

use pb::users_client::UsersClient;
use pb::{LoginRequest, ReadSessionRequest};
use tonic::transport::Endpoint;

mod pb {
    tonic::include_proto!("users");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("wants a URL")?;
    let mut users = UsersClient::new(Endpoint::from_shared(url)?.connect().await?);
    let login =
        LoginRequest { username: "ada".into(), password: "correct horse".into(), ..LoginRequest::default() };
    let session_id = users.login(login).await?.into_inner().session.ok_or("no session")?.id;
    let reply = users.read_session(ReadSessionRequest { session_id, max_age: None }).await?.into_inner();
    let session = reply.session.ok_or("no session")?;
    println!("{} {}", session.username, session.email);
    Ok(())
}
