//! The dialects. Each has three functions: `locate` finds the RPC that a request asks for and answers
//! requests that ask for none, `answer` decodes the request, calls the RPC and encodes its reply, and
//! `refuse` encodes a status. To add one, write these and a line in each `match` of this file.

mod appwrite;
mod client;
mod connect;
mod grpc;
mod grpc_json;
mod meiro;
mod micro;
mod params;
mod rest;
mod spelling;
mod streamed;
mod web;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Extensions, HeaderMap, Response};
use http_body_util::Full;
use tonic::Status;
use tonic::body::Body;

use super::body::End;
use super::coding::{Coding, decompress_messages};
use super::frames::PREFIX;
use super::receive::{media_type, starts_with_ignore_case, timed};
use super::timeout;
use super::upstream::Upstream;
use crate::error::Result;
use transcode::schema::{Method, Schema};

/// Translates between HTTP and the RPCs.
#[derive(Debug)]
pub struct Gateway {
    schema: Arc<Schema>,
    upstream: Upstream,
    settings: Settings,
}

/// The settings of the dialects.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes that the body of one request may have, and each message of a stream.
    pub max_body: usize,
    /// Prefs that come by the Appwrite API replace those that the user has; otherwise they are merged into
    /// them.
    pub appwrite_replaces_prefs: bool,
}

/// The RPC that a request asks for, or a service of the infrastructure.
#[derive(Clone, Copy, Debug)]
pub enum Target<'g> {
    /// An RPC of the descriptor set.
    Rpc(&'g Method),
    /// `grpc.health.v1.Health`.
    Health {
        /// True for its `Watch`, which has no end.
        watch: bool,
    },
    /// One of the versions of `grpc.reflection`.
    Reflection,
}

/// The body that a request must have.
#[derive(Clone, Copy, Debug)]
pub enum Expected {
    /// None: a body is not read.
    Nothing,
    /// So many bytes at most, not compressed.
    Plain(usize),
    /// One gRPC message of at most so many bytes, in its frame.
    Message(usize),
    /// A stream of gRPC messages.
    Stream,
}

/// The body that a request has.
#[derive(Debug)]
pub enum Content {
    /// All of it.
    Whole(Bytes),
    /// A stream that is read as the RPC asks for messages.
    Stream(Body),
}

impl Content {
    fn into_body(self) -> Body {
        match self {
            Self::Whole(bytes) => Body::new(Full::new(bytes)),
            Self::Stream(body) => body,
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Stream(_) => Bytes::new(),
        }
    }
}

/// The dialects, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialectName {
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// Connect.
    Connect,
    /// JSON in the frames of gRPC.
    GrpcJson,
    /// JSON by the routes of the proto.
    Json,
    /// The JSON of micro.
    Micro,
    /// That of Appwrite.
    Appwrite,
    /// That of Meiro.
    Meiro,
    /// Of a request that asks for no RPC.
    None,
}

impl DialectName {
    /// The names, in the order of their numbers.
    pub const ALL: [&str; 9] =
        ["grpc", "grpc_web", "connect", "grpc_json", "json", "micro", "appwrite", "meiro", "none"];

    /// The name.
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize]
    }
}

/// A request whose dialect and RPC are known.
#[derive(Debug)]
pub struct Call<'g> {
    gateway: &'g Gateway,
    target: Target<'g>,
    dialect: Dialect<'g>,
}

#[derive(Debug)]
enum Dialect<'g> {
    Grpc(grpc::Grpc),
    Web(web::Web),
    Connect(connect::Connect),
    GrpcJson,
    Rest(rest::Rest<'g>),
    Micro,
    Appwrite(Box<appwrite::Appwrite>),
    Meiro(meiro::Meiro),
}

/// The RPC that a dialect finds for a request, or its answer to one that asks for none.
type Located<T> = Result<T, Box<Response<Body>>>;

impl Gateway {
    /// A gateway to the RPCs of `schema`, which `upstream` must serve.
    pub fn new(schema: Arc<Schema>, upstream: Upstream, settings: Settings) -> Self {
        Self { schema, upstream, settings }
    }

    /// The RPCs.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Finds the RPC that a request asks for.
    ///
    /// # Errors
    ///
    /// The answer to a request that asks for none: not found, method not allowed, or what `OPTIONS` asks for.
    pub fn locate(&self, head: &mut Parts) -> Result<Call<'_>, Box<Response<Body>>> {
        let schema = &*self.schema;
        let (target, dialect) = match media_type(&head.headers) {
            Some(media) if starts_with_ignore_case(media, "application/grpc-web") => {
                web::locate(schema, head).map(|(target, web)| (target, Dialect::Web(web)))
            }
            Some(media) if media.eq_ignore_ascii_case(grpc_json::MEDIA_TYPE) => {
                grpc_json::locate(schema, head).map(|method| (Target::Rpc(method), Dialect::GrpcJson))
            }
            Some(media) if starts_with_ignore_case(media, "application/grpc") => {
                grpc::locate(schema, head).map(|(target, grpc)| (target, Dialect::Grpc(grpc)))
            }
            _ => self.locate_json(head),
        }?;
        Ok(Call { gateway: self, target, dialect })
    }

    /// Calls the RPC that the path names, in gRPC. The messages of a stream must arrive in time, and are decompressed.
    async fn serve(&self, mut request: http::Request<Body>, end: Option<End>) -> Response<Body> {
        if end.is_some() {
            request = decompress_messages(request.map(timed), self.settings.max_body);
        }
        self.upstream.serve(request, end).await
    }

    fn locate_json(&self, head: &mut Parts) -> Located<(Target<'_>, Dialect<'_>)> {
        let (schema, path) = (&*self.schema, head.uri.path());
        let (method, dialect) = if micro::owns(path) {
            (micro::locate(schema, head)?, Dialect::Micro)
        } else if appwrite::owns(path) {
            let (method, call) = appwrite::locate(schema, head)?;
            (method, Dialect::Appwrite(Box::new(call)))
        } else if meiro::owns(path) {
            let (method, call) = meiro::locate(schema, head)?;
            (method, Dialect::Meiro(call))
        } else if let Some(located) = connect::locate(schema, head) {
            let (method, call) = located?;
            (method, Dialect::Connect(call))
        } else {
            let (method, call) = rest::locate(schema, head)?;
            (method, Dialect::Rest(call))
        };
        Ok((Target::Rpc(method), dialect))
    }
}

impl<'g> Call<'g> {
    /// The RPC that is asked for.
    pub fn target(&self) -> Target<'g> {
        self.target
    }

    /// The dialect of the request.
    pub fn dialect(&self) -> DialectName {
        match self.dialect {
            Dialect::Grpc(_) => DialectName::Grpc,
            Dialect::Web(_) => DialectName::GrpcWeb,
            Dialect::Connect(_) => DialectName::Connect,
            Dialect::GrpcJson => DialectName::GrpcJson,
            Dialect::Rest(_) => DialectName::Json,
            Dialect::Micro => DialectName::Micro,
            Dialect::Appwrite(_) => DialectName::Appwrite,
            Dialect::Meiro(_) => DialectName::Meiro,
        }
    }

    /// The gRPC paths of the RPCs that are called, the main one first.
    pub fn rpcs(&self) -> impl Iterator<Item = &str> {
        let main = match self.target {
            Target::Rpc(method) => Some(method.path()),
            Target::Health { .. } | Target::Reflection => None,
        };
        let more: &[&str] = match &self.dialect {
            Dialect::Appwrite(call) => call.more_rpcs(),
            _ => &[],
        };
        main.into_iter().chain(more.iter().copied())
    }

    /// Returns the dialect's answer to a request without a key or certificate, whatever else is wrong with it.
    /// `authenticated` is true if a key or a certificate authenticated its caller.
    pub fn refuse_unauthenticated(&self, authenticated: bool) -> Option<Response<Body>> {
        match &self.dialect {
            Dialect::Appwrite(call) => call.refuse_unauthenticated(authenticated),
            _ => None,
        }
    }

    /// Returns the body that the request must have. `is_empty` is true if it has none.
    ///
    /// # Errors
    ///
    /// The answer to a body of another media type.
    pub fn expects(&self, head: &Parts, is_empty: bool) -> Result<Expected, Box<Response<Body>>> {
        let max = self.gateway.settings.max_body;
        match &self.dialect {
            Dialect::Connect(call) => Ok(call.expects(self.target, max)),
            Dialect::Grpc(_) => Ok(grpc::expects(self.target, max)),
            Dialect::Web(web) => Ok(web.expects(self.target, max)),
            Dialect::GrpcJson => Ok(Expected::Plain(max.saturating_add(PREFIX))),
            Dialect::Rest(call) => call.expects(head, is_empty, max),
            Dialect::Micro => micro::expects(self.target, head, is_empty, max),
            Dialect::Appwrite(call) => Ok(call.expects(head, max)),
            Dialect::Meiro(call) => call.expects(head, max),
        }
    }

    /// The time that the caller gives the call.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::error::Error::Invalid) if the header is none.
    pub fn timeout(&self, headers: &HeaderMap) -> Result<Option<Duration>> {
        match &self.dialect {
            Dialect::Connect(_) => timeout::connect(headers),
            _ => timeout::grpc(headers),
        }
    }

    /// Calls the RPC and encodes its reply. `extensions` carry the caller; `end` is when a stream has to end.
    pub async fn answer(
        &self,
        head: Parts,
        extensions: Extensions,
        content: Content,
        end: Option<End>,
    ) -> Response<Body> {
        let gateway = self.gateway;
        match (&self.dialect, self.target) {
            (Dialect::Grpc(grpc), target) => {
                grpc.answer(gateway, target, request(head, extensions, content), end).await
            }
            (Dialect::Web(web), _) => web.answer(gateway, request(head, extensions, content), end).await,
            (dialect, Target::Rpc(method)) => {
                let client = client::Client { gateway, method, extensions };
                let accepted = Coding::accepted(&head.headers);
                let response = match dialect {
                    Dialect::Rest(call) => call.answer(client, &head, &content.into_bytes(), end).await,
                    Dialect::Connect(call) => call.answer(client, head.headers, content, end).await,
                    Dialect::Micro => micro::answer(client, &content.into_bytes()).await,
                    Dialect::Appwrite(call) => {
                        Box::pin(call.answer(client, &head, &content.into_bytes())).await
                    }
                    Dialect::Meiro(call) => Box::pin(call.answer(client, &head, &content.into_bytes())).await,
                    _ => return grpc_json::answer(client, content.into_bytes()).await,
                };
                match accepted {
                    Some(coding) => coding.compress_reply(response).await,
                    None => response,
                }
            }
            // Only gRPC has them.
            _ => self.refuse(&crate::error::Error::MethodUnknown.into()),
        }
    }

    /// Encodes the status of a call that fails.
    pub fn refuse(&self, status: &Status) -> Response<Body> {
        match &self.dialect {
            Dialect::Grpc(grpc) => grpc.refuse(self.target, status),
            Dialect::Web(web) => web.refuse(status),
            Dialect::Connect(call) => call.refuse(&self.gateway.schema, self.target, status),
            Dialect::GrpcJson => grpc_json::refuse(&micro::id(self.target), status),
            Dialect::Rest(call) => call.refuse(&self.gateway.schema, status),
            Dialect::Micro => micro::refuse(&micro::id(self.target), status),
            Dialect::Appwrite(call) => call.refuse(status),
            Dialect::Meiro(_) => meiro::refuse(status),
        }
    }
}

/// The request as gRPC's server takes it.
fn request(mut head: Parts, extensions: Extensions, content: Content) -> http::Request<Body> {
    head.extensions = extensions;
    http::Request::from_parts(head, content.into_body())
}
