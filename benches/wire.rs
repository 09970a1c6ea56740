//! One call over a real socket, to seed the server and to see that an answer is a real one before it is counted.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Builder};
use hyper_util::rt::TokioExecutor;

use crate::Result;

/// How a call travels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// HTTP/2, the body in gRPC's frame.
    Grpc {
        /// `application/grpc` or one of its kind.
        content_type: &'static str,
    },
    /// JSON over HTTP/1.1.
    Json,
}

impl Wire {
    /// The content type of requests.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Grpc { content_type } => content_type,
            Self::Json => "application/json",
        }
    }
}

/// Puts a message into gRPC's frame: not compressed, its length, itself.
pub(crate) fn framed(message: &[u8]) -> Result<Bytes> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len())?.to_be_bytes());
    frame.extend(message);
    Ok(frame.into())
}

/// Connections of both kinds.
#[derive(Clone)]
pub(crate) struct Client {
    h1: legacy::Client<HttpConnector, Full<Bytes>>,
    h2: legacy::Client<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// Connects when the first call needs it.
    pub(crate) fn new() -> Self {
        let build = |builder: &mut Builder| {
            let mut connector = HttpConnector::new();
            connector.set_nodelay(true);
            builder.build(connector)
        };
        Self {
            h1: build(&mut legacy::Client::builder(TokioExecutor::new())),
            h2: build(legacy::Client::builder(TokioExecutor::new()).http2_only(true)),
        }
    }

    /// Sends `body` (a GET if there is none) with `key`, and gives the answer's body, as it came; anything but success in
    /// the status line and, for gRPC, in `grpc-status` is an error that says what came instead.
    pub(crate) async fn call(
        &self,
        server: SocketAddr,
        wire: Wire,
        path: &str,
        body: Option<Bytes>,
        key: &str,
    ) -> Result<Bytes> {
        let mut request = Request::builder()
            .method(if body.is_some() { Method::POST } else { Method::GET })
            .uri(format!("http://{server}{path}"))
            .header(CONTENT_TYPE, wire.content_type())
            .header(AUTHORIZATION, format!("Bearer {key}"));
        let client = if wire == Wire::Json {
            &self.h1
        } else {
            request = request.header("te", "trailers");
            &self.h2
        };
        let response = client.request(request.body(Full::new(body.unwrap_or_default()))?).await?;
        read(wire, response).await.map_err(|error| format!("{path}: {error}").into())
    }
}

async fn read(wire: Wire, response: Response<Incoming>) -> Result<Bytes> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?;
    // A call that fails before its first message has its status among the headers.
    let fields = body.trailers().cloned().unwrap_or(parts.headers);
    let bytes = body.to_bytes();
    if !parts.status.is_success() {
        return Err(format!("answered {}: {}", parts.status, String::from_utf8_lossy(&bytes)).into());
    }
    if wire != Wire::Json && fields.get("grpc-status").is_none_or(|status| status != "0") {
        return Err(format!("answered {fields:?}").into());
    }
    Ok(bytes)
}
