//! The dialects end to end, before RPCs that echo their request.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{Extensions, HeaderMap, Method as Verb, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{Call, Content, Expected, Gateway, Settings, Upstream};
use crate::error::Error;
use transcode::schema::Schema;

mod appwrite;
mod dialects;
mod fuzzed;
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

/// A request as the RPCs see it.
struct Seen {
    path: String,
    caller: Option<Caller>,
    message: Bytes,
}

#[derive(Clone, Debug, PartialEq)]
struct Caller(u16);

/// A gateway, and what authentication says of every request.
struct TestGateway {
    gateway: Gateway,
    refusal: Option<Box<dyn Fn() -> Status + Send + Sync>>,
}

/// RPCs of `schema` of which each replies `reply`.
fn front(
    schema: &Arc<Schema>,
    reply: impl Fn(Seen) -> Result<Vec<u8>, Status> + Clone + Send + Sync + 'static,
) -> TestGateway {
    let mut rpcs = Upstream::default();
    for name in ["everything.Everything", "users.Users", "users.Keys"] {
        let reply = reply.clone();
        rpcs.insert(name, move |request| Box::pin(replied(request, reply.clone())));
    }
    for method in schema.methods() {
        let (path, reply) = (method.path().to_owned(), reply.clone());
        rpcs.insert_unary(method.path().to_owned().leak(), move |request| {
            let caller = request.extensions().get().cloned();
            let message = Bytes::copy_from_slice(request.into_inner());
            let seen = Seen { path: path.clone(), caller, message };
            let reply = reply(seen).map(|reply| tonic::Response::new(reply.into()));
            Box::pin(std::future::ready(reply))
        });
    }
    TestGateway { gateway: Gateway::new(Arc::clone(schema), rpcs, SETTINGS), refusal: None }
}

async fn replied(
    request: Request<Body>,
    reply: impl Fn(Seen) -> Result<Vec<u8>, Status>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let frame = body.collect().await.unwrap().to_bytes();
    assert_eq!(frame[0], 0);
    assert_eq!(u32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize, frame.len() - 5);
    let seen = Seen {
        path: head.uri.path().to_owned(),
        caller: head.extensions.get().cloned(),
        message: frame.slice(5..),
    };
    Ok(match reply(seen) {
        Ok(message) => framed(&message),
        Err(status) => status.into_http(),
    })
}

fn framed(message: &[u8]) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let body =
        Full::from(super::frames::frame(message)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let headers = Response::builder().header("content-type", "application/grpc").header("x-inner", "secret");
    headers.body(Body::new(body)).unwrap()
}

/// A reply.
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

async fn send(front: &TestGateway, request: Request<Body>) -> Got {
    let headers_only = request.method() == Verb::HEAD;
    let response = respond(front, request).await;
    let response = if headers_only { response.map(|_| Body::empty()) } else { response };
    let (head, body) = response.into_parts();
    Got { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

/// The lifecycle of a request, without the server's part.
async fn respond(front: &TestGateway, request: Request<Body>) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    let call: Call<'_> = match front.gateway.locate(&mut head) {
        Ok(call) => call,
        Err(response) => return *response,
    };
    if let Some(response) = call.refuse_unauthenticated(false) {
        return response;
    }
    if let Some(refusal) = &front.refusal {
        return call.refuse(&refusal());
    }
    let received = match call.expects(&head, body.is_end_stream()) {
        Err(response) => return *response,
        Ok(Expected::Nothing) => Ok(Bytes::new()),
        Ok(Expected::Plain(max)) => super::receive_plain(&head, body, max).await,
        Ok(Expected::Message(max)) => super::receive_message(&mut head, body, max, super::BODY_TIMEOUT).await,
        Ok(Expected::Stream) => panic!("no test sends a stream"),
    };
    let mut extensions = Extensions::new();
    extensions.insert(Caller(7));
    match received {
        Ok(bytes) => call.answer(head, extensions, Content::Whole(bytes), None).await,
        Err(status) => call.refuse(&status),
    }
}

fn request(verb: &str, path: &str, body: &str) -> Request<Body> {
    let body = Body::new(Full::from(body.to_owned()));
    Request::builder().method(verb).uri(path).body(body).unwrap()
}

/// The request's message is the reply's, so that the answer shows what the RPC was given.
fn echo() -> TestGateway {
    front(&EVERYTHING.0, |seen| Ok(seen.message.to_vec()))
}

/// Authentication says `status` to every request.
fn failing(status: impl Fn() -> Status + Clone + Send + Sync + 'static) -> TestGateway {
    TestGateway { refusal: Some(Box::new(status)), ..front(&USERS, |_| Ok(Vec::new())) }
}

#[tokio::test]
async fn the_rpc_is_given_the_caller_and_its_metadata_stays_inside() {
    let front = front(&USERS, |seen| {
        assert_eq!((&*seen.path, seen.caller), ("/users.Users/Read", Some(Caller(7))));
        Ok(Vec::new())
    });
    let got = send(&front, request("GET", "/v1/users/1", "")).await;

    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(got.header("x-inner"), "");
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!(got.header("content-length"), got.body.len().to_string());
    assert_eq!(got.header("cache-control"), "no-store");
    assert_eq!(got.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn a_failed_rpc_is_told_as_a_refusal_is() {
    let front = front(&USERS, |_| Err(Error::UserNotFound.into()));
    for (verb, path) in [("GET", "/v1/users/1"), ("POST", "/users/read"), ("GET", "/meiro/users/1")] {
        assert_eq!(send(&front, request(verb, path, "")).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_reply_of_more_than_4_mib_is_passed_on() {
    let front = front(&EVERYTHING.0, |_| {
        let text = vec![b'x'; 5 << 20];
        let mut message = vec![0x72, 0x80, 0x80, 0xC0, 0x02]; // a_string = 14, 5 MiB
        message.extend(text);
        Ok(message)
    });
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
    // The limit of the gRPC server is reported the same way.
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
async fn a_status_is_passed_on_as_it_is() {
    let front = failing(|| Error::UserNotFound.into());
    let got = send(&front, request("GET", "/v1/users/1", "")).await;
    assert_eq!(got.status, 404);
    let json = got.json();
    assert_eq!((&json["code"], &json["message"]), (&json!(5), &json!("no such user")));
    assert_eq!(json["details"][0]["domain"], "usersd");
}
