//! The Connect protocol, <https://connectrpc.com/docs/protocol>, on the paths of gRPC: unary calls by POST, or by GET where
//! the proto says that they have no side effects, and streams in envelopes.

mod envelopes;
mod errors;
mod metadata;

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method as Verb, Response, StatusCode};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use tonic::Status;
use tonic::body::Body;

use super::client::Client;
use super::spelling::spelled;
use super::streamed::streamed;
use super::{Content, Expected, Located, Target};
use crate::error::Error;
use crate::http::body::End;
use crate::http::coding::Coding;
use crate::http::receive::{media_type, starts_with_ignore_case};
use crate::http::reply;
use transcode::json::{self, Style};
use transcode::schema::{MessageId, Method, Schema};

use envelopes::{Reader, Writer};

/// The header that says that a request is in this protocol, which clients may leave out.
const VERSION: &str = "connect-protocol-version";

/// The header that names the coding of a stream's messages.
const STREAM_ENCODING: &str = "connect-content-encoding";

/// A call in Connect.
#[derive(Debug)]
pub(super) struct Connect {
    format: Format,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Json,
    Proto,
}

#[derive(Debug)]
enum Kind {
    Unary,
    /// With the message, which came in the query, and its coding.
    Get(Bytes, Option<Coding>),
    Stream,
}

/// Finds the RPC of a gRPC path. `None`: the request is in another dialect.
pub(super) fn locate<'g>(schema: &'g Schema, head: &Parts) -> Option<Located<(&'g Method, Connect)>> {
    let path = head.uri.path();
    let (service, _) = path.get(1..)?.split_once('/')?;
    // No other dialect has a dot there, and a look at the table costs each of their calls.
    if !service.contains('.') {
        return None;
    }
    match schema.method(path) {
        Some(method) => Some(call(method, head).map(|connect| (method, connect))),
        None if is_meant(&head.headers) => {
            let unknown = Connect { format: Format::Json, kind: Kind::Unary };
            Some(Err(Box::new(unknown.refusal(&Error::MethodUnknown.into()))))
        }
        None => None,
    }
}

/// Returns true for what only Connect's clients send.
fn is_meant(headers: &HeaderMap) -> bool {
    let of_connect = |media: &str| {
        media.eq_ignore_ascii_case("application/proto")
            || starts_with_ignore_case(media, "application/connect+")
    };
    headers.contains_key(VERSION) || media_type(headers).is_some_and(of_connect)
}

fn call(method: &Method, head: &Parts) -> Located<Connect> {
    let by_get = method.no_side_effects && !method.is_stream();
    match head.method {
        Verb::POST => posted(method, head),
        Verb::GET | Verb::HEAD if by_get => by_query(head),
        _ => {
            let verbs: &[&Verb] = if by_get { &[&Verb::GET, &Verb::POST] } else { &[&Verb::POST] };
            Err(Box::new(reply::other_verb_in_text(&head.method, verbs)))
        }
    }
}

fn posted(method: &Method, head: &Parts) -> Located<Connect> {
    let medias: [(&str, Format); 2] = if method.is_stream() {
        [("application/connect+json", Format::Json), ("application/connect+proto", Format::Proto)]
    } else {
        [("application/json", Format::Json), ("application/proto", Format::Proto)]
    };
    let media = media_type(&head.headers).unwrap_or_default();
    let Some((_, format)) = medias.into_iter().find(|(known, _)| media.eq_ignore_ascii_case(known)) else {
        return Err(Box::new(wrong_media_type(medias.map(|(media, _)| media))));
    };
    let kind = if method.is_stream() { Kind::Stream } else { Kind::Unary };
    let connect = Connect { format, kind };
    if head.headers.get(VERSION).is_some_and(|version| version != "1") {
        return Err(Box::new(connect.refusal(&Error::invalid(VERSION, "must be 1").into())));
    }
    Ok(connect)
}

/// The call in the query of a GET.
fn by_query(head: &Parts) -> Located<Connect> {
    let query = head.uri.query().unwrap_or_default();
    let parameter = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(key, _)| *key == name)?;
        // A plus is a space in a query.
        Some(Cow::from(percent_decode_str(&value.replace('+', " "))).into_owned())
    };
    let format = match parameter("encoding").as_deref() {
        Some(b"json") => Format::Json,
        Some(b"proto") => Format::Proto,
        _ => return Err(Box::new(wrong_media_type(["application/json", "application/proto"]))),
    };
    let connect = Connect { format, kind: Kind::Unary };
    let wrong = |field: &str, why: &str| Box::new(connect.refusal(&Error::invalid(field, why).into()));
    if parameter("connect").is_some_and(|version| version != b"v1") {
        return Err(wrong("connect", "must be v1"));
    }
    let coding = parameter("compression").map_or(Ok(None), |name| Coding::named(&name));
    let coding = coding.map_err(|status| connect.refusal(&status))?;
    let mut message = parameter("message").ok_or_else(|| wrong("message", "must be given"))?;
    if parameter("base64").is_some_and(|flag| flag == b"1") {
        let padding = message.iter().rev().take_while(|byte| **byte == b'=').count();
        let decoded = URL_SAFE_NO_PAD.decode(&message[..message.len() - padding]);
        message = decoded.map_err(|_| wrong("message", "must be base64 for URLs"))?;
    }
    Ok(Connect { format, kind: Kind::Get(message.into(), coding) })
}

/// 415 with the media types of the RPC.
fn wrong_media_type(medias: [&'static str; 2]) -> Response<Body> {
    let medias = medias.join(", ");
    let why = format!("the body must be one of {medias}");
    let mut response = reply::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
    if let Ok(medias) = HeaderValue::from_str(&medias) {
        response.headers_mut().insert("accept-post", medias);
    }
    response
}

impl Connect {
    pub(super) fn expects(&self, target: Target<'_>, max: usize) -> Expected {
        match (&self.kind, target) {
            (Kind::Unary, _) => Expected::Plain(max),
            (Kind::Get(..), _) => Expected::Nothing,
            (Kind::Stream, Target::Rpc(method)) if !method.client_streaming => Expected::Message(max),
            (Kind::Stream, _) => Expected::Stream,
        }
    }

    pub(super) async fn answer(
        &self,
        client: Client<'_>,
        headers: HeaderMap,
        content: Content,
        end: Option<End>,
    ) -> Response<Body> {
        let (schema, method) = (client.schema(), client.method);
        let answered = match &self.kind {
            Kind::Unary => self.unary(client, headers, content.into_bytes()).await,
            Kind::Get(message, None) => self.unary(client, headers, message.clone()).await,
            Kind::Get(message, Some(coding)) => {
                match coding.decompress(message, client.gateway.settings.max_body) {
                    Ok(message) => self.unary(client, headers, message).await,
                    Err(status) => Err(status),
                }
            }
            Kind::Stream => Box::pin(self.stream(client, headers, content, end)).await,
        };
        answered.unwrap_or_else(|status| self.refuse(schema, Target::Rpc(method), &status))
    }

    /// Encodes the status of a call that fails.
    pub(super) fn refuse(&self, schema: &Schema, target: Target<'_>, status: &Status) -> Response<Body> {
        match (self.format, target) {
            (Format::Json, Target::Rpc(method)) => self.refusal(&spelled(schema, method.input, status)),
            _ => self.refusal(status),
        }
    }

    fn refusal(&self, status: &Status) -> Response<Body> {
        if matches!(self.kind, Kind::Stream) {
            let mut response = self.streaming(Body::new(Full::from(envelopes::end(status))));
            response.extensions_mut().insert(reply::FailedStream(status.code()));
            return response;
        }
        let http_status = reply::canonical_status(status.code());
        let mut response = reply::failure(http_status, errors::body(status), status);
        metadata::add(status.metadata().as_ref(), &mut response);
        response
    }

    async fn unary(
        &self,
        client: Client<'_>,
        headers: HeaderMap,
        content: Bytes,
    ) -> Result<Response<Body>, Status> {
        let (schema, method) = (client.schema(), client.method);
        let message = self.format.read(schema, method.input, content)?;
        let reply = client.unary_with(metadata::of_call(headers), &message).await?;
        let (metadata, reply, _) = reply.into_parts();
        let mut response = match self.format {
            Format::Json => {
                let mut out = Vec::with_capacity(2 * reply.len() + 64);
                json::write(schema, method.output, &reply, Style::CONNECT, &mut out)
                    .map_err(Error::internal)?;
                reply::json(StatusCode::OK, out)
            }
            Format::Proto => reply::whole(StatusCode::OK, "application/proto", reply),
        };
        metadata::add(metadata.as_ref(), &mut response);
        Ok(response)
    }

    async fn stream(
        &self,
        client: Client<'_>,
        headers: HeaderMap,
        content: Content,
        end: Option<End>,
    ) -> Result<Response<Body>, Status> {
        let (schema, method) = (Arc::clone(&client.gateway.schema), client.method);
        let (max, format) = (client.gateway.settings.max_body, self.format);
        let coding = Coding::of(&headers, STREAM_ENCODING)?;
        let reader = Reader { schema: Arc::clone(&schema), input: method.input, format, coding, max };
        let requests = envelopes::requests(content.into_body(), reader);
        let replies = client.stream_of(metadata::of_call(headers), requests, end).await?;
        let (head, replies) = replies.into_parts();
        let writer = Writer { schema, output: method.output, format };
        let mut response = self.streaming(streamed(replies, writer));
        metadata::add(&head.headers, &mut response);
        Ok(response)
    }

    /// A stream of replies, which has this status however it ends.
    fn streaming(&self, body: Body) -> Response<Body> {
        let media = match self.format {
            Format::Json => "application/connect+json",
            Format::Proto => "application/connect+proto",
        };
        reply::with_body(StatusCode::OK, media, body)
    }
}

impl Format {
    /// The encoded message that `content` is.
    fn read(self, schema: &Schema, input: MessageId, content: Bytes) -> Result<Bytes, Error> {
        Ok(match self {
            Self::Json => json::read(schema, input, &content, Style::CONNECT)?.into(),
            Self::Proto => content,
        })
    }
}
