//! `/v1` and every other route that follows from the `google.api.http` options.

mod preconditions;

use std::borrow::Cow;
use std::sync::Arc;

use http::request::Parts;
use http::{Method as Verb, Response, StatusCode};
use tonic::body::Body;
use tonic::{Code, Status};

use super::client::Client;
use super::spelling::spelled;
use super::streamed::{Form, streamed};
use super::{Expected, Located};
use crate::error::Error;
use crate::http::body::End;
use crate::http::receive::is_json;
use crate::http::reply;
use transcode::json::{self, Style};
use transcode::route::{Binding, Body as Target, Capture, RouteMatch};
use transcode::schema::{MessageId, Method, Schema};

/// A call by a route.
#[derive(Debug)]
pub(super) struct Rest<'g> {
    binding: &'g Binding,
    captures: Vec<Capture<'g>>,
}

pub(super) fn locate<'g>(schema: &'g Schema, head: &Parts) -> Located<(&'g Method, Rest<'g>)> {
    let (path, router) = (head.uri.path(), &schema.router);
    let found = match router.find(&head.method, path) {
        Ok(RouteMatch::OtherVerbs(verbs)) if head.method == Verb::HEAD && verbs.contains(&&Verb::GET) => {
            router.find(&Verb::GET, path)
        }
        found => found,
    };
    Err(Box::new(match found {
        Ok(RouteMatch::Binding(binding, captures)) => {
            return Ok((&schema.methods[binding.method], Rest { binding, captures }));
        }
        Ok(RouteMatch::OtherVerbs(verbs)) => reply::other_verb(&head.method, &verbs),
        Ok(RouteMatch::Nothing) if head.method == Verb::OPTIONS && path == "*" => reply::no_content(),
        Ok(RouteMatch::Nothing) => {
            let (code, status) = reply::not_found("not found");
            reply::error_as(code, &status)
        }
        Err(_) => {
            let why = "the path is not percent-encoded UTF-8".to_owned();
            reply::error(&Error::Malformed(why).into())
        }
    }))
}

impl Rest<'_> {
    pub(super) fn expects(&self, head: &Parts, is_empty: bool, max: usize) -> Located<Expected> {
        preconditions::reject_unread_metadata(&head.headers).map_err(|error| reply::error(&error.into()))?;
        if self.binding.body == Target::None {
            return Ok(Expected::Nothing);
        }
        if is_empty || is_json(head) {
            return Ok(Expected::Plain(max));
        }
        let (code, status) = reply::wrong_media_type();
        Err(Box::new(reply::error_as(code, &status)))
    }

    pub(super) async fn answer(
        &self,
        client: Client<'_>,
        head: &Parts,
        content: &[u8],
        end: Option<End>,
    ) -> Response<Body> {
        let schema = client.schema();
        let answered = if client.method.server_streaming {
            self.stream(client, head, content, end).await
        } else {
            self.unary(client, head, content).await
        };
        answered
            .unwrap_or_else(|status| preconditions::failure(&head.headers, &self.spelled(schema, &status)))
    }

    /// Encodes the status of a call that fails.
    pub(super) fn refuse(&self, schema: &Schema, status: &Status) -> Response<Body> {
        reply::error(&self.spelled(schema, status))
    }

    /// The status as its caller reads it.
    fn spelled<'s>(&self, schema: &Schema, status: &'s Status) -> Cow<'s, Status> {
        spelled(schema, schema.methods[self.binding.method].input, status)
    }

    fn message(&self, schema: &Schema, head: &Parts, content: &[u8]) -> Result<Vec<u8>, Error> {
        let query = head.uri.query().unwrap_or_default();
        Ok(transcode::message(schema, self.binding, &self.captures, query, content)?)
    }

    async fn unary(
        &self,
        client: Client<'_>,
        head: &Parts,
        content: &[u8],
    ) -> Result<Response<Body>, Status> {
        let (schema, method) = (client.schema(), client.method);
        let mut message = self.message(schema, head, content)?;
        preconditions::put_if_match(schema, method, &head.headers, &mut message)?;
        let reply = client.unary(&message).await?;
        let mut out = Vec::with_capacity(2 * reply.len() + 64);
        write(schema, method.output, self.binding.response_body, &reply, &mut out)?;
        Ok(reply::tagged(head, schema.etag_of(method.output, &reply), reply::json(StatusCode::OK, out)))
    }

    async fn stream(
        &self,
        client: Client<'_>,
        head: &Parts,
        content: &[u8],
        end: Option<End>,
    ) -> Result<Response<Body>, Status> {
        let (schema, method) = (Arc::clone(&client.gateway.schema), client.method);
        let body = client.stream(&self.message(&schema, head, content)?, end).await?;
        let lines = Lines { schema, output: method.output, field: self.binding.response_body };
        Ok(reply::with_body(StatusCode::OK, "application/json", streamed(body, lines)))
    }
}

fn write(
    schema: &Schema,
    output: MessageId,
    field: Option<usize>,
    message: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    match field {
        Some(field) => json::write_field(schema, output, field, message, Style::CANONICAL, out),
        None => json::write(schema, output, message, Style::CANONICAL, out),
    }
    .map_err(Error::internal)
}

/// A stream as lines of JSON: `{"result": ...}` for each message, and `{"error": ...}` as the last line of one
/// that fails.
struct Lines {
    schema: Arc<Schema>,
    output: MessageId,
    /// The field of each message that is the result.
    field: Option<usize>,
}

impl Form for Lines {
    fn message(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(b"{\"result\":");
        write(&self.schema, self.output, self.field, message, out)?;
        out.extend_from_slice(b"}\n");
        Ok(())
    }

    fn end(&self, status: &Status, out: &mut Vec<u8>) {
        if status.code() != Code::Ok {
            out.extend_from_slice(b"{\"error\":");
            reply::error_body(status, out);
            out.extend_from_slice(b"}\n");
        }
    }
}
