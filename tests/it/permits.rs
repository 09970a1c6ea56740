//! Permits are held until replies are sent, in every form, so that no client that does not read fills the memory.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::client::SendRequest;
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use usersd::config::Auth;
use usersd::domain::scope::Scopes;
use usersd::pb::CreateRequest;

use crate::support::{Replica, Service, ada, create, fields, nth, refused, until};

crate::on_every_backend!(
    a_request_authenticates_once_and_takes_one_permit_in_every_form,
    a_reply_that_is_not_read_holds_its_permit_in_every_form,
    without_keys_replies_that_are_not_read_hold_the_permits_of_all,
    slow_readers_of_http_1_hold_their_permits,
    an_admitted_call_is_not_refused_for_its_callers_other_calls,
    streams_without_an_end_are_bounded_and_keep_out_nobody_with_a_key,
    reflection_ends_when_the_server_does,
    metadata_with_control_characters_is_refused_by_every_key,
);

const LIMIT: usize = 3;

/// A client of HTTP/2 that takes one byte of each reply.
pub(crate) async fn unreading(address: &str) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut client = h2::client::Builder::new();
    let (sender, connection) = client.initial_window_size(1).handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// One form in which a list of users can be asked for.
struct Form<'p> {
    verb: Method,
    path: &'p str,
    media: &'static str,
    body: &'static [u8],
}

fn forms() -> Vec<Form<'static>> {
    let form = |verb: Method, path, media, body: &'static [u8]| Form { verb, path, media, body };
    let (framed, json) = (&[0; 5], b"\0\0\0\0\x02{}");
    vec![
        form(Method::POST, "/users.Users/List", "application/grpc", framed),
        form(Method::POST, "/users.Users/List", "application/grpc-web+proto", framed),
        form(Method::POST, "/users.Users/List", "application/grpc+json", json),
        form(Method::GET, "/v1/users", "application/json", b""),
        form(Method::POST, "/users/list", "application/json", b"{}"),
        form(Method::GET, "/appwrite/v1/users", "application/json", b""),
        form(Method::GET, "/meiro/users", "application/json", b""),
    ]
}

async fn ask(client: &mut SendRequest<Bytes>, form: &Form<'_>, key: &str) -> Response<h2::RecvStream> {
    let request = Request::builder()
        .method(form.verb.clone())
        .uri(format!("http://localhost{}", form.path))
        .header("content-type", form.media)
        .header("te", "trailers")
        .header("x-appwrite-project", "default")
        .header("authorization", format!("Bearer {key}"));
    let mut ready = client.clone().ready().await.unwrap();
    let (response, mut body) = ready.send_request(request.body(()).unwrap(), form.body.is_empty()).unwrap();
    if !form.body.is_empty() {
        // A refusal may close the stream before its body is sent; the reply is there all the same.
        let _ = body.send_data(Bytes::from_static(form.body), true);
    }
    tokio::time::timeout(Duration::from_mins(1), response).await.unwrap().unwrap()
}

fn succeeded(response: &Response<h2::RecvStream>) -> bool {
    let status = response.headers().get("grpc-status");
    assert!([200, 429].contains(&response.status().as_u16()), "{response:?}");
    assert!(status.is_none_or(|status| status == "8"), "{response:?}");
    response.status() == StatusCode::OK && status.is_none()
}

/// How many of some more calls than there are permits are answered, when none of the replies is read.
async fn answered(replica: &Replica, form: &Form<'_>, key: &str) -> usize {
    let mut client = unreading(&replica.address).await;
    let mut replies = Vec::new();
    for _ in 0..4 * LIMIT {
        replies.push(ask(&mut client, form, key).await);
    }
    let answered = replies.iter().filter(|reply| succeeded(reply)).count();
    // The permits come back with what is given up.
    drop((replies, client));
    until(async || succeeded(&ask(&mut unreading(&replica.address).await, form, key).await)).await;
    answered
}

async fn a_request_authenticates_once_and_takes_one_permit_in_every_form(service: &Service) {
    let user = create(service, ada()).await;
    let (key, _) = service.key("default", Scopes::ALL).await;
    let replica = &service.replica;
    // Those of the Appwrite API call several RPCs.
    let paths = ["sessions", "logs"].map(|of| format!("/appwrite/v1/users/{}/{of}", user.id));
    let several =
        paths.each_ref().map(|path| Form { verb: Method::GET, path, media: "application/json", body: b"" });
    for form in forms().iter().chain(&several) {
        let before = (replica.keys.authentications(), replica.server.calls_admitted());
        let reply = ask(&mut unreading(&replica.address).await, form, &key).await;
        assert!(succeeded(&reply), "{} as {}: {reply:?}", form.path, form.media);
        let after = (replica.keys.authentications(), replica.server.calls_admitted());
        assert_eq!(after, (before.0 + 1, before.1 + 1), "{} as {}", form.path, form.media);
    }
}

async fn a_reply_that_is_not_read_holds_its_permit_in_every_form(service: &Service) {
    create(service, ada()).await;
    let small = service.another(|config| config.limits.calls_per_caller = LIMIT).await;
    for form in forms() {
        let (key, _) = service.key("default", Scopes::ALL).await;
        small.keys.refresh().await.unwrap();
        assert_eq!(answered(&small, &form, &key).await, LIMIT, "{} as {}", form.path, form.media);
    }
    small.stop.cancel();
}

async fn without_keys_replies_that_are_not_read_hold_the_permits_of_all(service: &Service) {
    create(service, ada()).await;
    let open = service.another(|config| (config.auth, config.limits.calls) = (Auth::Off, LIMIT)).await;
    for form in forms() {
        assert_eq!(answered(&open, &form, "").await, LIMIT, "{} as {}", form.path, form.media);
    }
    open.stop.cancel();
}

/// Users whose list is larger than what lies between two sockets: quotes take twice their size as JSON.
async fn create_large(service: &Service, number: usize) {
    let large = |n| CreateRequest {
        metadata: [("k".to_owned(), "\"".repeat(16_000))].into(),
        password: String::new(),
        sso_enabled: true,
        ..nth(n)
    };
    let all: Vec<_> = (0..number).collect();
    for some in all.chunks(20) {
        join_all(some.iter().map(|n| create(service, large(*n)))).await;
    }
}

async fn slow_readers_of_http_1_hold_their_permits(service: &Service) {
    create_large(service, 150).await;
    let small = service.another(|config| config.limits.calls_per_caller = LIMIT).await;
    let (key, _) = service.key("default", Scopes::ALL).await;
    small.keys.refresh().await.unwrap();
    let mut readers = Vec::new();
    for _ in 0..4 * LIMIT {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(small.address.parse().unwrap()).await.unwrap();
        let head = format!(
            "GET /v1/users?limit=1000 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        readers.push((stream, String::from_utf8_lossy(&status[9..]).into_owned()));
    }
    let answered = readers.iter().filter(|(_, status)| status == "200").count();
    assert_eq!(answered, LIMIT, "{:?}", readers.iter().map(|(_, status)| status).collect::<Vec<_>>());
    drop(readers);
    small.stop.cancel();
}

async fn an_admitted_call_is_not_refused_for_its_callers_other_calls(service: &Service) {
    let small = service.another(|config| config.limits.calls_per_caller = 1).await;
    let (key, _) = service.key("default", Scopes::ALL).await;
    small.keys.refresh().await.unwrap();
    let bearer = format!("Bearer {key}");
    let body = r#"{"sessionId":"none"}"#;
    let head = format!(
        "POST /v1/sessions:read HTTP/1.1\r\nhost: localhost\r\nauthorization: {bearer}\r\n\
         expect: 100-continue\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    for _ in 0..20 {
        // What of the others is still on its way has the permit for a moment.
        let mut stream = loop {
            let mut stream = TcpStream::connect(&small.address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut said = [0; 25];
            stream.read_exact(&mut said).await.unwrap();
            if said.starts_with(b"HTTP/1.1 100") {
                break stream;
            }
            assert!(said.starts_with(b"HTTP/1.1 429"), "{}", String::from_utf8_lossy(&said));
        };
        let mut status = [0; 12];
        let others = async {
            loop {
                let headers = [("authorization", bearer.as_str())];
                let calls = (0..4).map(|_| small.request(Method::GET, "/v1/users/none", "", &headers));
                join_all(calls).await;
            }
        };
        let own = async {
            stream.write_all(body.as_bytes()).await.unwrap();
            stream.read_exact(&mut status).await.unwrap();
        };
        tokio::select! {
            () = others => {}
            () = own => {}
        }
        assert_eq!(String::from_utf8_lossy(&status), "HTTP/1.1 404", "its session is none");
    }
    small.stop.cancel();
}

type Watching = tonic::Streaming<tonic_health::pb::HealthCheckResponse>;

async fn watch(health: &mut HealthClient<tonic::transport::Channel>) -> Result<Watching, tonic::Status> {
    let request = HealthCheckRequest { service: "users.Users".into() };
    let mut watched = health.watch(request).await?.into_inner();
    watched.message().await?.unwrap();
    Ok(watched)
}

async fn streams_without_an_end_are_bounded_and_keep_out_nobody_with_a_key(service: &Service) {
    let (key, _) = service.key("default", Scopes::ALL).await;
    let address = format!("http://{}", service.replica.address);
    let connect =
        async || HealthClient::new(Endpoint::try_from(address.clone()).unwrap().connect().await.unwrap());
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut health = connect().await;
        for _ in 0..8 {
            held.push(watch(&mut health).await.unwrap());
        }
        let status = watch(&mut health).await.unwrap_err();
        refused(&status, Code::ResourceExhausted, "CALLER_LIMITED");
    }
    let mut health = connect().await;
    let status = watch(&mut health).await.unwrap_err();
    refused(&status, Code::ResourceExhausted, "CALLER_LIMITED");
    health.check(HealthCheckRequest::default()).await.unwrap();
    // The connection of the service's own client, once it showed a key.
    let headers = [("authorization", &*format!("Bearer {key}"))];
    crate::support::raw_with(&service.replica, "/users.Users/List", Vec::new(), &headers).await.unwrap();
    watch(&mut HealthClient::new(service.replica.channel())).await.unwrap();
    drop(held);
    until(async || watch(&mut connect().await).await.is_ok()).await;
}

async fn reflection_ends_when_the_server_does(service: &Service) {
    let other = service.another(|config| config.grace = Duration::from_mins(1)).await;
    let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let endless = futures_util::StreamExt::chain(
        futures_util::stream::iter([request]),
        futures_util::stream::pending(),
    );
    let channel = Endpoint::try_from(format!("http://{}", other.address)).unwrap().connect().await.unwrap();
    let mut answers =
        ServerReflectionClient::new(channel).server_reflection_info(endless).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    other.stop.cancel();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::Unavailable);
    let ended = tokio::time::timeout(Duration::from_secs(30), other.running).await;
    assert!(ended.unwrap().unwrap(), "everything ended within the grace period");
}

async fn metadata_with_control_characters_is_refused_by_every_key(service: &Service) {
    let metadata = [("a", "b\n"), ("b", "fine"), ("c", "\u{1}")];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let status = service.users().create(CreateRequest { metadata, ..ada() }).await.unwrap_err();
    assert_eq!(fields(&status), ["metadata", "metadata"]);
    let said = status.message();
    assert!(said.contains("that of `a`") && said.contains("that of `c`") && !said.contains("`b`"), "{said}");
    // What is there from before is still shown.
    create(service, ada()).await;
    service.execute(r#"UPDATE users SET metadata = '{"k":"a\tb"}'"#).await;
    let (_, body) = service.replica.json(Method::GET, "/v1/users:lookup?username=ada", "").await;
    assert_eq!(body["user"]["metadata"]["k"], "a\tb", "{body}");
}
