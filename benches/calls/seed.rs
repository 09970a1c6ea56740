//! Users and a session, made through the API as any caller would.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Result;
use crate::server::Server;
use crate::wire::{Client, Wire};

/// The user that most calls read.
pub(crate) const ID: &str = "bench-1";
pub(crate) const EMAIL: &str = "bench1@example.com";
const PASSWORD: &str = "correct horse battery staple";

/// Creates in flight at a time.
const WAITING: usize = 16;

/// What the calls need to know of the data.
pub(crate) struct Seeded {
    /// Opens a session of the first user.
    pub(crate) token: String,
}

/// The id of the user number `n` of the many.
pub(crate) fn other_id(n: usize) -> String {
    format!("load-{n:07}")
}

/// Its e-mail address.
pub(crate) fn other_email(n: usize) -> String {
    format!("load{n:07}@example.com")
}

/// Creates the user that is read, signs it in, and creates `others` more users for it to lie among.
pub(crate) async fn seed(server: &Server, others: usize) -> Result<Seeded> {
    let begun = Instant::now();
    let client = Client::new();
    let mut first = user(ID, "bench1", EMAIL);
    first["password"] = PASSWORD.into();
    post(&client, server, "/v1/users", &first).await?;

    let login = json!({ "username": "bench1", "password": PASSWORD });
    let answer: Value = serde_json::from_slice(&post(&client, server, "/v1/sessions", &login).await?)?;
    let token = answer["session"]["id"].as_str().ok_or("the log-in's answer has no session.id")?;

    create_others(&client, server, 0..others).await?;
    eprintln!("created {others} users in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(Seeded { token: token.to_owned() })
}

/// Creates the users of these numbers, without passwords: hashing ten thousand would take minutes and change nothing about
/// reading them.
pub(crate) async fn create_others(client: &Client, server: &Server, numbers: Range<usize>) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(numbers.start));
    let mut workers = JoinSet::<Result<()>>::new();
    for _ in 0..WAITING {
        let (client, next, address) = (client.clone(), Arc::clone(&next), server.address);
        workers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= numbers.end {
                    return Ok(());
                }
                let mut body = user(&other_id(n), &format!("load{n:07}"), &other_email(n));
                body["ssoEnabled"] = true.into();
                let body = Bytes::from(body.to_string());
                client.call(address, Wire::Json, "/v1/users", Some(body), None).await?;
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(())
}

/// About 200 bytes as protobuf, as a real user has.
fn user(id: &str, username: &str, email: &str) -> Value {
    json!({
        "id": id,
        "username": username,
        "email": email,
        "name": "Augusta Ada King, Countess of Lovelace",
        "labels": ["staff", "beta"],
        "metadata": { "country": "GB", "office": "12 St James's Square", "team": "analytical-engine" },
    })
}

async fn post(client: &Client, server: &Server, path: &str, body: &Value) -> Result<Bytes> {
    client.call(server.address, Wire::Json, path, Some(body.to_string().into()), None).await
}
