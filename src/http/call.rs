//! The JSON side as a client of the gRPC stack inside the process: no socket, no HTTP/2, the same layers.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};
use tower::Service;

use super::schema::Method;
use crate::error::Error;
use crate::grpc::status::refusal;
use crate::pb::ErrorReason;

/// A caller that may make its call.
pub struct Admission {
    /// Whether a key or a certificate says who it is.
    pub named: bool,
}

/// What stands before the RPCs.
pub trait Guarded {
    /// Authenticates the request's caller, and authorizes it for the RPC of a gRPC path, before anything of the request is
    /// read, so that strangers learn nothing and cost nothing.
    ///
    /// What it finds stays in the extensions of `head`: calls that are made with these are not authenticated again. The
    /// permit that it takes stays in the request's [`Permits`](super::Permits).
    ///
    /// # Errors
    ///
    /// The status that the call would have.
    fn admit(&self, head: &mut Parts, path: &str) -> Result<Admission, Status>;
}

/// A layered gRPC service behind its gate: a name for this list of bounds, which every such type has.
pub trait Stack:
    Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send>
    + Guarded
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Stack for S where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send>
        + Guarded
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Headers that belong to one connection, to the body we have read, or to gRPC's framing. `content-*` too.
const NOT_CARRIED: [HeaderName; 13] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    header::ACCEPT_ENCODING,
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
];

/// Headers that say who calls, for whom and from where: `Connection` cannot name them away between one look at the request
/// and the next.
const KEPT: [&str; 10] = [
    "authorization",
    "x-access-token",
    "x-appwrite-key",
    "usersd-namespace",
    "micro-namespace",
    "x-appwrite-project",
    "x-forwarded-for",
    "origin",
    "sec-fetch-site",
    "host",
];

/// How long a request's body may take to arrive.
pub(crate) const RECEIVE: Duration = Duration::from_secs(20);

/// What is read of a body that is too long, in bytes and in time, before the answer.
const DISCARDED: usize = 32 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Calls an RPC with an encoded message. Extensions and headers of the HTTP request in `head` go with it.
///
/// # Errors
///
/// The status the stack answers, as it is.
pub(super) async fn call<S: Stack>(
    stack: S,
    method: &Method,
    message: Vec<u8>,
    head: Parts,
) -> Result<Response<Bytes>, Status> {
    let metadata = MetadataMap::from_headers(carried(head.headers, &head.uri));
    let request = Request::from_parts(metadata, head.extensions, Bytes::from(message));
    // The server is ours: its own limits hold.
    let mut client = tonic::client::Grpc::new(stack).max_decoding_message_size(usize::MAX);
    match client.ready().await {
        Ok(()) => client.unary(request, method.path.clone(), Raw).await,
        Err(never) => match never {},
    }
}

/// What a call inside the process keeps of the HTTP request's headers.
fn carried(mut headers: HeaderMap, uri: &http::Uri) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').filter_map(|name| name.trim().parse().ok()))
        .filter(|name: &HeaderName| !KEPT.contains(&name.as_str()))
        .collect();
    let content: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("content-")).cloned().collect();
    for name in NOT_CARRIED.iter().chain(&named).chain(&content) {
        headers.remove(name);
    }
    // HTTP/2 has the host in its own place.
    if let Some(authority) = uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.entry(header::HOST).or_insert(host);
    }
    headers
}

/// Reads a body of at most `max` bytes.
///
/// # Errors
///
/// `OUT_OF_RANGE` / `TOO_LARGE`, before reading where the length is announced; `MALFORMED` if it breaks off.
pub(super) async fn read_body(head: &Parts, mut body: Body, max: usize) -> Result<Bytes, Status> {
    let announced =
        head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if head.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(refusal(
            Code::Unimplemented,
            ErrorReason::EncodingUnknown,
            "the body must not be compressed",
        ));
    }
    let read = if announced.is_some_and(|length: u64| length > max as u64) {
        Err(Error::TooLarge(max))
    } else if body.is_end_stream() {
        return Ok(Bytes::new());
    } else {
        receive(&mut body, max, 0, RECEIVE).await
    };
    // One that waits for our leave to send its body has sent nothing yet.
    if matches!(read, Err(Error::TooLarge(_))) && !head.headers.contains_key(header::EXPECT) {
        discard(body).await;
    }
    Ok(read?)
}

/// A body of at most `max` bytes of message and `frames` of framing, whole and within `time`.
///
/// # Errors
///
/// [`Error::TooLarge`], [`Error::DeadlinePassed`], or [`Error::Malformed`] if it breaks off.
pub(crate) async fn receive(
    body: &mut Body,
    max: usize,
    frames: usize,
    time: Duration,
) -> Result<Bytes, Error> {
    match tokio::time::timeout(time, Limited::new(body, max + frames).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Error::TooLarge(max)),
        Ok(Err(_)) => Err(Error::Malformed("the body breaks off".to_owned())),
        Err(_) => Err(Error::DeadlinePassed),
    }
}

/// Reads on for a while without keeping anything: many clients write their whole body before they read the
/// answer, and would see a broken connection instead of the refusal.
async fn discard(body: Body) {
    let rest = Limited::new(body, DISCARDED);
    let all = async {
        let mut rest = std::pin::pin!(rest);
        while let Some(Ok(_)) = rest.frame().await {}
    };
    let _ = tokio::time::timeout(DISCARD_TIME, all).await;
}

/// The media type without its parameters, in lower case; `None` if there is none.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?;
    // One that is not ASCII is no type that we know.
    let text = value.to_str().unwrap_or("?").split(';').next().unwrap_or_default();
    Some(text.trim().to_ascii_lowercase())
}

/// Messages that are encoded already.
#[derive(Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}
