//! Streams pass through the lifecycle of every request, over gRPC, gRPC-Web and JSON. The product's proto has
//! none yet: the server is started with the services of `tests/proto/everything.proto`.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use usersd::domain::scope::Scopes;

use crate::everything::{FileReply, FileRequest, services};
use crate::support::{Replica, Service, assert_refused, until};

crate::on_every_backend!(
    a_server_stream_comes_over_grpc_grpc_web_and_json,
    a_stream_that_fails_after_its_start_says_so_at_its_end,
    a_stream_that_fails_at_its_start_is_refused_as_a_call_is,
    a_stream_needs_its_key_and_its_scope,
    a_client_stream_is_read_to_its_end,
    each_message_of_a_stream_has_the_limit_of_a_body,
    a_stream_takes_no_permit_of_a_call_but_one_of_a_stream,
    a_deadline_ends_a_stream,
    streams_end_with_the_server_and_send_their_clients_elsewhere,
    streams_end_with_a_connection_that_is_too_old,
);

/// A server with streams, and a key that may do everything there.
async fn start(service: &Service) -> (Replica, String) {
    start_with(service, |_| {}).await
}

async fn start_with(
    service: &Service,
    change: impl FnOnce(&mut usersd::config::Config),
) -> (Replica, String) {
    let (key, _) = service.key("default", Scopes::ALL).await;
    (service.another_with(services(), change).await, key)
}

fn with_key<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

fn asked(name: &str, page_size: i32) -> FileRequest {
    FileRequest { name: name.to_owned(), page_size }
}

async fn client(replica: &Replica) -> tonic::client::Grpc<tonic::transport::Channel> {
    let mut client = tonic::client::Grpc::new(replica.channel());
    client.ready().await.unwrap();
    client
}

async fn watch(replica: &Replica, request: Request<FileRequest>) -> Result<Streaming<FileReply>, Status> {
    let path = "/everything.Everything/Watch".parse().unwrap();
    let codec = ProstCodec::<FileRequest, FileReply>::default();
    Ok(client(replica).await.server_streaming(request, path, codec).await?.into_inner())
}

/// The titles of a stream and the status with which it ends.
async fn all(replica: &Replica, request: Request<FileRequest>) -> (Vec<String>, Code) {
    let mut stream = match watch(replica, request).await {
        Ok(stream) => stream,
        Err(status) => return (Vec::new(), status.code()),
    };
    let mut titles = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(reply)) => titles.push(reply.title),
            Ok(None) => return (titles, Code::Ok),
            Err(status) => return (titles, status.code()),
        }
    }
}

/// The same over gRPC-Web, whose trailers are a frame.
async fn all_web(replica: &Replica, key: &str, message: &FileRequest, text: bool) -> (Vec<String>, Code) {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let sent = framed(&message.encode_to_vec());
    let media = if text { "application/grpc-web-text" } else { "application/grpc-web+proto" };
    let request = http::Request::post(format!("http://{}/everything.Everything/Watch", replica.address))
        .header("content-type", media)
        .header("accept", media)
        .header("authorization", format!("Bearer {key}"))
        .body(Full::new(Bytes::from(if text { base64.encode(&sent).into_bytes() } else { sent })));
    let (head, body) = raw(request.unwrap()).await.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return (Vec::new(), status.code());
    }
    let body = body.collect().await.unwrap().to_bytes();
    let mut frames = if text { decoded(&body) } else { body.to_vec() };
    let mut titles = Vec::new();
    while frames[0] == 0 {
        let rest = frames.split_off(5 + length(&frames));
        titles.push(FileReply::decode(&frames[5..]).unwrap().title);
        frames = rest;
    }
    let trailers = String::from_utf8(frames[5..].to_vec()).unwrap();
    let code = trailers.lines().find_map(|line| line.strip_prefix("grpc-status:")).unwrap();
    (titles, Code::from_bytes(code.trim().as_bytes()))
}

/// Each piece of a reply is encoded for itself.
fn decoded(text: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    let mut bytes = Vec::new();
    for group in text.chunks(4) {
        bytes.extend(base64::engine::general_purpose::STANDARD.decode(group).unwrap());
    }
    bytes
}

fn length(frame: &[u8]) -> usize {
    u32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

async fn raw(request: http::Request<Full<Bytes>>) -> http::Response<hyper::body::Incoming> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    client.request(request).await.unwrap()
}

/// The same over JSON: its status and its lines.
async fn lines(replica: &Replica, key: &str, query: &str) -> (StatusCode, Vec<Value>) {
    let request = http::Request::get(format!("http://{}/v1/watch?{query}", replica.address))
        .header("authorization", format!("Bearer {key}"))
        .body(Full::default());
    let (head, body) = raw(request.unwrap()).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    (head.status, lines.map(|line| serde_json::from_slice(line).unwrap()).collect())
}

async fn a_server_stream_comes_over_grpc_grpc_web_and_json(service: &Service) {
    let (replica, key) = start(service).await;
    for number in [0, 1, 3, 500] {
        let titles: Vec<String> = (0..number).map(|n| n.to_string()).collect();
        let message = asked("all", number);
        let want = (titles.clone(), Code::Ok);
        assert_eq!(all(&replica, with_key(&key, message.clone())).await, want);
        for text in [false, true] {
            assert_eq!(all_web(&replica, &key, &message, text).await, want);
        }
        let (status, lines) = lines(&replica, &key, &format!("name=all&pageSize={number}")).await;
        let want = titles.iter().map(|title| json!({"result": {"title": title, "tags": []}}));
        assert_eq!((status, lines), (StatusCode::OK, want.collect()));
    }
    replica.stop.cancel();
}

async fn a_stream_that_fails_after_its_start_says_so_at_its_end(service: &Service) {
    let (replica, key) = start(service).await;
    let want = (vec!["0".to_owned(), "1".to_owned()], Code::Aborted);
    assert_eq!(all(&replica, with_key(&key, asked("fail", 2))).await, want);
    assert_eq!(all_web(&replica, &key, &asked("fail", 2), false).await, want);
    let (status, lines) = lines(&replica, &key, "name=fail&pageSize=2").await;
    assert_eq!((status, lines.len()), (StatusCode::OK, 3));
    assert_eq!(lines[2], json!({"error": {"code": 10, "message": "it changed", "details": []}}));
    replica.stop.cancel();
}

async fn a_stream_that_fails_at_its_start_is_refused_as_a_call_is(service: &Service) {
    let (replica, key) = start(service).await;
    assert_eq!(all(&replica, with_key(&key, asked("refuse", 0))).await.1, Code::NotFound);
    assert_eq!(all_web(&replica, &key, &asked("refuse", 0), false).await.1, Code::NotFound);
    let (status, lines) = lines(&replica, &key, "name=refuse").await;
    assert_eq!((status, &lines[0]["code"]), (StatusCode::NOT_FOUND, &json!(5)));
    let (status, lines) = self::lines(&replica, &key, "nope=1").await;
    assert_eq!((status, &lines[0]["code"]), (StatusCode::BAD_REQUEST, &json!(3)));
    replica.stop.cancel();
}

async fn a_stream_needs_its_key_and_its_scope(service: &Service) {
    let (replica, _) = start(service).await;
    let (poor, _) = service.key("default", Scopes::parse(["sessions.read"]).unwrap()).await;
    replica.keys.refresh().await.unwrap();
    for (key, code, status) in [("none", Code::Unauthenticated, 401), (&*poor, Code::PermissionDenied, 403)] {
        assert_eq!(all(&replica, with_key(key, asked("all", 3))).await, (Vec::new(), code));
        assert_eq!(all_web(&replica, key, &asked("all", 3), false).await, (Vec::new(), code));
        assert_eq!(lines(&replica, key, "name=all").await.0.as_u16(), status);
        let messages = with_key(key, stream::iter([asked("a", 0)]));
        assert_eq!(collect(&replica, messages).await.unwrap_err().code(), code);
    }
    // Declared, and without a scope.
    let status = crate::support::raw_with(&replica, "/everything.Everything/Echo", Vec::new(), &[]).await;
    assert_refused(&status.unwrap_err(), Code::Unimplemented, "METHOD_UNKNOWN");
    replica.stop.cancel();
}

async fn collect(
    replica: &Replica,
    messages: Request<impl Stream<Item = FileRequest> + Send + 'static>,
) -> Result<String, Status> {
    let path = "/everything.Everything/Collect".parse().unwrap();
    let codec = ProstCodec::<FileRequest, FileReply>::default();
    let reply: Response<FileReply> = client(replica).await.client_streaming(messages, path, codec).await?;
    Ok(reply.into_inner().title)
}

async fn a_client_stream_is_read_to_its_end(service: &Service) {
    let (replica, key) = start(service).await;
    let messages = stream::iter(["a", "", "c"].map(|name| asked(name, 0)));
    assert_eq!(collect(&replica, with_key(&key, messages)).await.unwrap(), "a++c");
    assert_eq!(collect(&replica, with_key(&key, stream::empty())).await.unwrap(), "");
    // Longer than any body: each message has a limit, the stream has none.
    let many = stream::iter((0..20).map(|_| asked(&"x".repeat(10_000), 0)));
    assert_eq!(collect(&replica, with_key(&key, many)).await.unwrap().len(), 20 * 10_000 + 19);
    let (status, _) = replica.json(Method::POST, "/v1/collect", "{}").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "JSON has no streams of requests");
    replica.stop.cancel();
}

async fn each_message_of_a_stream_has_the_limit_of_a_body(service: &Service) {
    let (replica, key) = start(service).await;
    let long = asked(&"x".repeat(65 * 1024), 0);
    let messages = stream::iter([asked("a", 0), long.clone()]);
    let status = collect(&replica, with_key(&key, messages)).await.unwrap_err();
    assert_refused(&status, Code::OutOfRange, "TOO_LARGE");
    let status = watch(&replica, with_key(&key, long)).await.unwrap_err();
    assert_refused(&status, Code::OutOfRange, "TOO_LARGE");
    replica.stop.cancel();
}

async fn a_stream_takes_no_permit_of_a_call_but_one_of_a_stream(service: &Service) {
    let (replica, key) = start_with(service, |config| {
        (config.limits.calls, config.limits.calls_per_caller, config.limits.calls_per_namespace) = (1, 1, 1);
        config.http.max_streams = 500;
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..100 {
        let mut stream = watch(&replica, with_key(&key, asked("endless", 1))).await.unwrap();
        assert_eq!(stream.message().await.unwrap().unwrap().title, "0");
        open.push(stream);
    }
    let status = watch(&replica, with_key(&key, asked("endless", 1))).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "CALLER_LIMITED");
    let (status, lines) = lines(&replica, &key, "name=endless").await;
    assert_eq!((status, &lines[0]["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!(8)));
    // A call is still served, and another caller's stream.
    let headers = [("authorization", &*format!("Bearer {key}"))];
    let (status, _, file) = replica.request(Method::GET, "/v1/files/7", "", &headers).await;
    assert_eq!((status, &file["title"]), (StatusCode::OK, &json!("files/7")));
    let (other, _) = service.key("default", Scopes::ALL).await;
    replica.keys.refresh().await.unwrap();
    watch(&replica, with_key(&other, asked("endless", 1))).await.unwrap();
    drop(open);
    until(async || watch(&replica, with_key(&key, asked("endless", 1))).await.is_ok()).await;
    replica.stop.cancel();
}

async fn a_deadline_ends_a_stream(service: &Service) {
    let (replica, key) = start(service).await;
    let mut request = with_key(&key, asked("endless", 2));
    request.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
    let (titles, code) = all(&replica, request).await;
    assert_eq!((titles.len(), code), (2, Code::DeadlineExceeded));
    // A client that keeps no time itself, and whose stream has no end.
    let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let request = http::Request::post(format!("http://{}/everything.Everything/Collect", replica.address))
        .header("content-type", "application/grpc-web+proto")
        .header("authorization", format!("Bearer {key}"))
        .header("grpc-timeout", "300m");
    let client = Client::builder(TokioExecutor::new()).build_http();
    let refused = client.request(request.body(body).unwrap()).await.unwrap();
    assert_eq!(Status::from_header_map(refused.headers()).unwrap().code(), Code::DeadlineExceeded);
    replica.stop.cancel();
}

async fn streams_end_with_the_server_and_send_their_clients_elsewhere(service: &Service) {
    let (replica, key) = start_with(service, |config| config.grace = Duration::from_mins(1)).await;
    let mut watched = watch(&replica, with_key(&key, asked("endless", 1))).await.unwrap();
    watched.message().await.unwrap().unwrap();
    let web = asked("endless", 1);
    let (collected, lines, web) = {
        let collected = collect(&replica, with_key(&key, stream::pending()));
        let others = async {
            futures_util::join!(collected, lines(&replica, &key, "name=endless&pageSize=1"), async {
                all_web(&replica, &key, &web, false).await
            })
        };
        let stop = async {
            // All four are open.
            until(async || replica.server.streams_open() == 4).await;
            replica.stop.cancel();
        };
        futures_util::join!(others, stop).0
    };
    assert_eq!(watched.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(collected.unwrap_err().code(), Code::Unavailable);
    assert_eq!(web, (vec!["0".to_owned()], Code::Unavailable));
    assert_eq!((lines.0, lines.1.len()), (StatusCode::OK, 2));
    assert_eq!(lines.1[1]["error"]["code"], 14);
    let ended = tokio::time::timeout(Duration::from_secs(30), replica.running).await;
    assert!(ended.unwrap().unwrap(), "everything ended within the grace period");
}

async fn streams_end_with_a_connection_that_is_too_old(service: &Service) {
    let (replica, key) = start_with(service, |config| {
        (config.http.max_age, config.grace) = (Some(Duration::from_secs(1)), Duration::from_mins(1));
    })
    .await;
    let (titles, code) = all(&replica, with_key(&key, asked("endless", 1))).await;
    assert_eq!((titles.len(), code), (1, Code::Unavailable));
    // On another connection, as soon as the client has seen that this one is closing.
    until(async || all(&replica, with_key(&key, asked("all", 2))).await.1 == Code::Ok).await;
    replica.stop.cancel();
}
