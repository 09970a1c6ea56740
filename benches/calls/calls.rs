//! The calls that are measured.

use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message as _;
use serde_json::json;
use usersd::pb;

use crate::Result;
use crate::seed::{self, Seeded};
use crate::wire::{Client, Wire, framed};

const GRPC: Wire = Wire::Grpc { content_type: "application/grpc" };
const GRPC_JSON: Wire = Wire::Grpc { content_type: "application/grpc+json" };

/// One kind of call.
pub(crate) struct Call {
    /// As the table shows it.
    pub(crate) name: String,
    pub(crate) wire: Wire,
    /// One for most, many to spread reads over the users.
    pub(crate) paths: Vec<String>,
    /// A GET if there is none.
    pub(crate) body: Option<Bytes>,
    /// The API key that goes with it, if it needs one.
    pub(crate) key: Option<String>,
    /// What only an answer out of the database can contain: the user's e-mail address, which no request names.
    proof: String,
}

impl Call {
    fn new(name: &str, wire: Wire, path: &str, body: Option<Bytes>) -> Self {
        let paths = vec![path.to_owned()];
        Self { name: name.to_owned(), wire, paths, body, key: None, proof: seed::EMAIL.to_owned() }
    }

    /// The same with a key.
    fn with_key(mut self, key: &str) -> Self {
        self.name += ", a key";
        self.key = Some(key.to_owned());
        self
    }

    /// Makes the call once and gives the answer's body, if it is a real one.
    pub(crate) async fn answer(&self, client: &Client, server: SocketAddr) -> Result<Bytes> {
        let path = self.paths.first().ok_or("a call without a path")?;
        let bytes = client.call(server, self.wire, path, self.body.clone(), self.key.as_deref()).await?;
        if bytes.windows(self.proof.len()).any(|part| part == self.proof.as_bytes()) {
            return Ok(bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        Err(format!("{path}: answered without {}: {text}", self.proof).into())
    }
}

/// Read by id over gRPC: what every other call is held against.
pub(crate) fn read(name: &str) -> Result<Call> {
    let message = pb::ReadRequest { id: seed::ID.to_owned(), ..Default::default() };
    Ok(Call::new(name, GRPC, "/users.Users/Read", Some(framed(&message.encode_to_vec())?)))
}

/// The same user over HTTP.
pub(crate) fn read_json(name: &str) -> Call {
    Call::new(name, Wire::Json, &format!("/v1/users/{}", seed::ID), None)
}

/// Everything else that callers do all day.
pub(crate) fn others(users: usize, seeded: &Seeded) -> Result<Vec<Call>> {
    let id = json!({ "id": seed::ID }).to_string();
    let session = json!({ "sessionId": seeded.token }).to_string();
    let any_user = Call {
        name: format!("GET /v1/users/{{id}}, any of {users}"),
        wire: Wire::Json,
        paths: (0..users).map(|n| format!("/v1/users/{}", seed::other_id(spread(n, users)))).collect(),
        body: None,
        key: None,
        proof: seed::other_email(0),
    };
    Ok(vec![
        read_session(seeded)?,
        Call::new("grpc+json Read", GRPC_JSON, "/users.Users/Read", Some(framed(id.as_bytes())?)),
        any_user,
        Call::new("POST /v1/sessions:read", Wire::Json, "/v1/sessions:read", Some(session.into())),
        Call::new("POST /users/Users/Read (micro)", Wire::Json, "/users/Users/Read", Some(id.into())),
    ])
}

fn read_session(seeded: &Seeded) -> Result<Call> {
    let message = pb::ReadSessionRequest { session_id: seeded.token.clone() };
    let body = framed(&message.encode_to_vec())?;
    Ok(Call::new("gRPC ReadSession", GRPC, "/users.Users/ReadSession", Some(body)))
}

/// What is asked of a server that wants keys.
pub(crate) fn with_key(seeded: &Seeded, key: &str) -> Result<Vec<Call>> {
    Ok(vec![read("gRPC Read")?.with_key(key), read_session(seeded)?.with_key(key)])
}

/// Far steps, so that a load shorter than the list still reads from all over the table.
fn spread(n: usize, users: usize) -> usize {
    const STEP: usize = 7_919; // a prime: every user has its turn unless there are a multiple of it
    n * STEP % users
}
