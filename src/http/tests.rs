//! The front end to end, before a stack that echoes: what it is called with comes back in the reply.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::schema::Schema;
use super::{Admission, Front, Guarded, Settings, Stack};
use crate::error::Error;

mod appwrite;
mod dialects;
mod routes;

/// `tests/proto/everything.proto`.
pub(super) static EVERYTHING: LazyLock<(Arc<Schema>, Vec<u8>)> = LazyLock::new(|| {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut compiler =
        protox::Compiler::new([format!("{root}/tests/proto"), format!("{root}/proto")]).unwrap();
    compiler.include_imports(true).open_file("everything.proto").unwrap();
    let encoded = compiler.encode_file_descriptor_set();
    (Arc::new(Schema::decode(&encoded).unwrap()), encoded)
});

static USERS: LazyLock<Arc<Schema>> =
    LazyLock::new(|| Arc::new(Schema::decode(crate::DESCRIPTOR_SET).unwrap()));

const MAX_BODY: usize = 1 << 20;

const SETTINGS: Settings = Settings { max_body: MAX_BODY, appwrite_replaces_prefs: false };

/// A request as the stack sees it.
struct Seen {
    path: String,
    headers: HeaderMap,
    peer: Option<Peer>,
    message: Bytes,
}

#[derive(Clone, Debug, PartialEq)]
struct Peer(u16);

/// A stack whose gate lets everyone in and that answers `reply` to every call.
fn stack(reply: impl Fn(Seen) -> Result<Vec<u8>, Status> + Clone + Send + Sync + 'static) -> impl Stack {
    Fake { admit: || Ok(()), reply }
}

#[derive(Clone)]
struct Fake<A, R> {
    admit: A,
    reply: R,
}

impl<A: Fn() -> Result<(), Status>, R> Guarded for Fake<A, R> {
    fn admit(&self, _: &mut http::request::Parts, path: &str) -> Result<Admission, Status> {
        assert_eq!(path.split('/').count(), 3, "{path}");
        (self.admit)().map(|()| Admission { named: false })
    }
}

impl<A, R> tower::Service<Request<Body>> for Fake<A, R>
where
    R: Fn(Seen) -> Result<Vec<u8>, Status> + Clone + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let reply = self.reply.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let frame = body.collect().await.unwrap().to_bytes();
            assert_eq!(frame[0], 0);
            assert_eq!(u32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize, frame.len() - 5);
            let seen = Seen {
                path: head.uri.path().to_owned(),
                headers: head.headers,
                peer: head.extensions.get().cloned(),
                message: frame.slice(5..),
            };
            Ok(match reply(seen) {
                Ok(message) => framed(&message),
                Err(status) => status.into_http(),
            })
        })
    }
}

fn framed(message: &[u8]) -> Response<Body> {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let body = Full::from(frame.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
    Response::builder()
        .header("content-type", "application/grpc")
        .header("x-request-id", "r-1")
        .header("x-inner", "secret")
        .body(Body::new(body))
        .unwrap()
}

/// What came back.
#[derive(Debug)]
struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|err| panic!("{err}: {:?}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The field violations of a refusal, and that it is one.
    fn faults(&self) -> Vec<(String, String)> {
        assert_eq!(self.status, 400, "{self:?}");
        let json = self.json();
        let details = json["details"].as_array().unwrap();
        let bad =
            details.iter().find(|detail| detail["@type"] == "type.googleapis.com/google.rpc.BadRequest");
        let violations = bad.unwrap()["fieldViolations"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        violations.iter().map(|one| (text(&one["field"]), text(&one["description"]))).collect()
    }

    fn fields(&self) -> Vec<String> {
        self.faults().into_iter().map(|(field, _)| field).collect()
    }
}

async fn send(front: &Front<impl Stack>, request: Request<Body>) -> Got {
    let (head, body) = front.handle(request).await.into_parts();
    Got { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

fn request(verb: &str, path: &str, body: &str) -> Request<Body> {
    let body = Body::new(Full::from(body.to_owned()));
    Request::builder().method(verb).uri(path).body(body).unwrap()
}

/// The request's message is the reply's, so that the answer shows what the RPC was given.
fn echo() -> Front<impl Stack> {
    Front::new(Arc::clone(&EVERYTHING.0), stack(|seen| Ok(seen.message.to_vec())), SETTINGS)
}

/// Its gate says `status` to everyone.
fn failing(status: impl Fn() -> Status + Clone + Send + Sync + 'static) -> Front<impl Stack> {
    let gate = status.clone();
    let fake = Fake { admit: move || Err(gate()), reply: move |_| Err(status()) };
    Front::new(Arc::clone(&USERS), fake, SETTINGS)
}

/// Headers that auth, limits and logs in the stack read.
const CARRIED: [(&str, &str); 8] = [
    ("host", "users.example"),
    ("origin", "https://evil.example"),
    ("user-agent", "curl/8"),
    ("authorization", "Bearer usk_1"),
    ("x-forwarded-for", "10.0.0.1"),
    ("x-request-id", "mine"),
    ("grpc-timeout", "1S"),
    ("usersd-namespace", "shop"),
];

#[tokio::test]
async fn headers_peer_and_path_arrive_at_the_stack() {
    let front = Front::new(
        Arc::clone(&USERS),
        stack(|seen| {
            assert_eq!(seen.path, "/users.Users/Read");
            assert_eq!(seen.peer, Some(Peer(7)));
            for (name, value) in
                CARRIED.into_iter().chain([("content-type", "application/grpc"), ("te", "trailers")])
            {
                assert_eq!(seen.headers.get(name).unwrap(), value, "{name}");
            }
            for name in ["connection", "x-hop", "accept-encoding", "content-length", "content-encoding"] {
                assert_eq!(seen.headers.get(name), None, "{name}");
            }
            Ok(Vec::new())
        }),
        SETTINGS,
    );
    let mut request = request("GET", "/v1/users/1", "");
    request.extensions_mut().insert(Peer(7));
    let dropped = [
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
        ("te", "gzip"),
        ("accept-encoding", "gzip"),
        ("content-length", "0"),
        ("content-encoding", "identity"),
    ];
    for (name, value) in CARRIED.into_iter().chain(dropped) {
        request.headers_mut().insert(name, value.parse().unwrap());
    }

    let got = send(&front, request).await;

    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(got.header("x-request-id"), "r-1");
    assert_eq!(got.header("x-inner"), "");
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!(got.header("content-length"), got.body.len().to_string());
    assert_eq!(got.header("cache-control"), "no-store");
    assert_eq!(got.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn the_authority_of_http_2_is_the_host() {
    let front = Front::new(
        Arc::clone(&USERS),
        stack(|seen| {
            assert_eq!(seen.headers.get("host").unwrap(), "users.example:8080");
            Ok(Vec::new())
        }),
        SETTINGS,
    );
    let got = send(&front, request("GET", "http://users.example:8080/v1/users/1", "")).await;
    assert_eq!(got.status, 200);
}

#[tokio::test]
async fn a_reply_of_more_than_4_mib_is_passed_on() {
    let front = Front::new(
        Arc::clone(&EVERYTHING.0),
        stack(|_| {
            let text = vec![b'x'; 5 << 20];
            let mut message = vec![0x72, 0x80, 0x80, 0xC0, 0x02]; // a_string = 14, 5 MiB
            message.extend(text);
            Ok(message)
        }),
        SETTINGS,
    );
    let got = send(&front, request("POST", "/v1/echo", "")).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.json()["aString"].as_str().unwrap().len(), 5 << 20);
}

#[tokio::test]
async fn e1_every_code_has_its_http_status() {
    for (code, want) in [
        (Code::Cancelled, 499),
        (Code::Unknown, 500),
        (Code::InvalidArgument, 400),
        (Code::DeadlineExceeded, 504),
        (Code::NotFound, 404),
        (Code::AlreadyExists, 409),
        (Code::PermissionDenied, 403),
        (Code::Unauthenticated, 401),
        (Code::ResourceExhausted, 429),
        (Code::FailedPrecondition, 400),
        (Code::Aborted, 409),
        (Code::OutOfRange, 400),
        (Code::Unimplemented, 501),
        (Code::Internal, 500),
        (Code::Unavailable, 503),
        (Code::DataLoss, 500),
    ] {
        let got = send(&failing(move || Status::new(code, "so")), request("GET", "/v1/users/1", "")).await;
        assert_eq!(got.status.as_u16(), want, "{code:?}");
        assert_eq!(got.json(), json!({"code": i32::from(code), "message": "so", "details": []}));
        assert_eq!(got.header("www-authenticate"), if want == 401 { "Bearer" } else { "" });
        assert_eq!(got.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn e2_details_come_by_their_types() {
    let front = failing(|| {
        let mut details = ErrorDetails::new();
        details.set_error_info("HASHER_BUSY", "usersd", [("k".to_owned(), "v".to_owned())]);
        details.set_retry_info(Some(std::time::Duration::from_millis(1500)));
        details.set_debug_info(vec!["secret stack".to_owned()], "secret");
        details.add_bad_request_violation("email", "is odd");
        details.set_resource_info("user", "ada", "", "");
        Status::with_error_details(Code::ResourceExhausted, "busy", details)
    });
    let got = send(&front, request("GET", "/v1/users/1", "")).await;
    assert_eq!(got.header("retry-after"), "2");
    assert!(!String::from_utf8_lossy(&got.body).contains("secret"));
    let json = got.json();
    let detail = |name: &str| {
        let url = format!("type.googleapis.com/google.rpc.{name}");
        json["details"].as_array().unwrap().iter().find(|detail| detail["@type"] == *url).unwrap().clone()
    };
    assert_eq!(detail("ErrorInfo")["reason"], "HASHER_BUSY");
    assert_eq!(detail("ErrorInfo")["metadata"], json!({"k": "v"}));
    assert_eq!(detail("RetryInfo")["retryDelay"], "1.500s");
    assert_eq!(detail("BadRequest")["fieldViolations"][0]["field"], "email");
    assert_eq!(detail("ResourceInfo")["resourceName"], "ada");
}

#[tokio::test]
async fn e3_an_unknown_detail_keeps_its_bytes() {
    // google.rpc.Status { details: [Any { type_url: "x/y.Z", value: [1, 2] }] }
    let bytes = Bytes::from_static(b"\x1a\x0b\x0a\x05x/y.Z\x12\x02\x01\x02");
    let front = failing(move || Status::with_details(Code::Aborted, "no", bytes.clone()));
    let got = send(&front, request("GET", "/v1/users/1", "")).await;
    assert_eq!(got.json()["details"], json!([{"@type": "x/y.Z", "value": "AQI="}]));
}

#[tokio::test]
async fn a_message_too_large_is_413() {
    let front = echo();
    let long = "x".repeat(MAX_BODY + 1);
    let mut announced = request("POST", "/v1/echo", &long);
    announced.headers_mut().insert("content-length", long.len().into());
    for request in [request("POST", "/v1/echo", &long), announced] {
        let got = send(&front, request).await;
        assert_eq!(got.status, 413);
        assert_eq!(got.json()["code"], 11);
        assert_eq!(got.json()["details"][0]["reason"], "TOO_LARGE");
    }
    // The stack's own limit is told the same way.
    let front = failing(|| {
        let details = ErrorDetails::with_error_info("TOO_LARGE", "usersd", []);
        Status::with_error_details(Code::OutOfRange, "long", details)
    });
    assert_eq!(send(&front, request("GET", "/v1/users/1", "")).await.status, 413);
}

#[tokio::test]
async fn no_answer_repeats_a_value() {
    for body in [r#"{"aBool": "s3cret"}"#, r#"{"anInt32": "s3cret"}"#, r#"{"aString": "s3cret" x}"#, "s3cret"]
    {
        let got = send(&echo(), request("POST", "/v1/echo", body)).await;
        assert_eq!(got.status, 400);
        assert!(!String::from_utf8_lossy(&got.body).contains("s3cret"), "{got:?}");
    }
}

#[tokio::test]
async fn a_status_of_the_stack_is_passed_on_as_it_is() {
    let front = failing(|| Error::UserNotFound.into());
    let got = send(&front, request("GET", "/v1/users/1", "")).await;
    assert_eq!(got.status, 404);
    let json = got.json();
    assert_eq!((&json["code"], &json["message"]), (&json!(5), &json!("no such user")));
    assert_eq!(json["details"][0]["domain"], "usersd");
}
