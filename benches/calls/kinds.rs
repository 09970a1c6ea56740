//! The calls that are measured.

use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message as _;
use serde_json::json;
use usersd::pb;

use super::seed::Seeded;
use crate::Result;
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
    /// The API key that goes with it.
    pub(crate) key: String,
    /// What only an answer out of the database can contain: the user's e-mail address, which no request names.
    proof: String,
}

impl Call {
    fn new(name: &str, wire: Wire, path: &str, body: Option<Bytes>, seeded: &Seeded) -> Self {
        let (name, paths, key) = (name.to_owned(), vec![path.to_owned()], seeded.key.clone());
        let proof = seeded.email.clone();
        Self { name, wire, paths, body, key, proof }
    }

    /// Makes the call once and gives the answer's body, if it is a real one.
    pub(crate) async fn answer(&self, client: &Client, server: SocketAddr) -> Result<Bytes> {
        let path = self.paths.first().ok_or("a call without a path")?;
        let bytes = client.call(server, self.wire, path, self.body.clone(), &self.key).await?;
        if bytes.windows(self.proof.len()).any(|part| part == self.proof.as_bytes()) {
            return Ok(bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        Err(format!("{path}: answered without {}: {text}", self.proof).into())
    }
}

/// Read by id over gRPC.
pub(crate) fn read(seeded: &Seeded) -> Result<Call> {
    let message = pb::ReadRequest { id: seeded.id.clone(), ..Default::default() };
    Ok(Call::new("gRPC Read", GRPC, "/users.Users/Read", Some(framed(&message.encode_to_vec())?), seeded))
}

/// The same user over HTTP.
pub(crate) fn read_json(seeded: &Seeded) -> Call {
    Call::new("GET /v1/users/{id}", Wire::Json, &format!("/v1/users/{}", seeded.id), None, seeded)
}

/// `ReadSession` over gRPC.
pub(crate) fn read_session(seeded: &Seeded) -> Result<Call> {
    let message = pb::ReadSessionRequest { session_id: seeded.token.clone(), max_age: None };
    let body = framed(&message.encode_to_vec())?;
    Ok(Call::new("gRPC ReadSession", GRPC, "/users.Users/ReadSession", Some(body), seeded))
}

/// `ReadSession` over HTTP.
pub(crate) fn read_session_json(seeded: &Seeded) -> Call {
    let body = json!({ "sessionId": seeded.token }).to_string();
    Call::new("POST /v1/sessions:read", Wire::Json, "/v1/sessions:read", Some(body.into()), seeded)
}

/// Read in two more forms.
pub(crate) fn by_id(seeded: &Seeded) -> Result<Vec<Call>> {
    let id = json!({ "id": seeded.id }).to_string();
    let body = framed(id.as_bytes())?;
    Ok(vec![
        Call::new("grpc+json Read", GRPC_JSON, "/users.Users/Read", Some(body), seeded),
        Call::new("POST /users/Users/Read (micro)", Wire::Json, "/users/Users/Read", Some(id.into()), seeded),
    ])
}

/// Read of one user after the other, over HTTP.
pub(crate) fn read_any(seeded: &Seeded) -> Call {
    let paths = seeded.others.iter().map(|id| format!("/v1/users/{id}")).collect();
    // `@` is in every address.
    Call {
        name: "GET /v1/users/{id}, one of many".to_owned(),
        paths,
        proof: "@".to_owned(),
        ..read_json(seeded)
    }
}
