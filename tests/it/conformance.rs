//! What Connect's conformance suite (`clients/conformance.py`) found: metadata, compressed messages of streams, and refusals by
//! HTTP's own status.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use prost::Message as _;
use serde_json::{Value, json};
use usersd::domain::scope::Scopes;

use crate::compression::compress;
use crate::everything::{FileReply, FileRequest, services};
use crate::support::{Replica, Service, bytes_of};

crate::on_every_backend!(
    metadata_of_connect_goes_both_ways,
    compressed_messages_of_streams_are_read,
    compressed_messages_of_streams_have_the_limit_of_a_body,
    a_call_has_one_message,
    verbs_and_media_types_are_refused_by_the_status_of_http,
);

/// A server with streams, and a key that may do everything there.
async fn start(service: &Service) -> (Replica, String) {
    let (key, _) = service.key("default", Scopes::ALL).await;
    (service.another_with(services(), |_| {}).await, format!("Bearer {key}"))
}

fn envelope(flags: u8, message: &[u8]) -> Vec<u8> {
    [&[flags][..], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

fn encoded(name: &str) -> Vec<u8> {
    FileRequest { name: name.to_owned(), page_size: 1 }.encode_to_vec()
}

async fn post(
    (replica, key): (&Replica, &str),
    rpc: &str,
    body: impl Into<Bytes>,
    headers: &[(&str, &str)],
) -> (StatusCode, HeaderMap, Bytes) {
    let headers = [&[("authorization", key)], headers].concat();
    bytes_of(replica, Method::POST, &format!("/everything.Everything/{rpc}"), body, &headers).await
}

fn values<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

/// The JSON of the last envelope.
fn end(mut body: &[u8]) -> Value {
    while body[0] != 2 {
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        body = &body[5 + length..];
    }
    serde_json::from_slice(&body[5..]).unwrap()
}

async fn metadata_of_connect_goes_both_ways(service: &Service) {
    let (replica, key) = start(service).await;
    let to = (&replica, &*key);
    let echo = [("x-echo", "a"), ("x-echo", "b")];
    for (name, want) in [("files/7", StatusCode::OK), ("files/refuse", StatusCode::NOT_FOUND)] {
        let sent = [&[("content-type", "application/proto")], &echo[..]].concat();
        let (status, headers, _) = post(to, "File", encoded(name), &sent).await;
        assert_eq!((status, values(&headers, "x-echo")), (want, vec!["a", "b"]), "{name}");
        let (_, headers, _) = post(to, "File", encoded(name), &sent[..1]).await;
        assert_eq!(values(&headers, "x-echo"), [""; 0], "none was sent");
    }
    let metadata = json!({"x-echo": ["a", "b"]});
    for (name, headers, last) in
        [("all", 2, None), ("fail", 2, Some(&metadata)), ("refuse", 0, Some(&metadata))]
    {
        // A stream's messages come to the RPC as they are, whatever a header of gRPC says.
        let media = [("content-type", "application/connect+proto"), ("grpc-encoding", "gzip")];
        let sent = [&media, &echo[..]].concat();
        let (status, got, body) = post(to, "Watch", envelope(0, &encoded(name)), &sent).await;
        assert_eq!((status, values(&got, "x-echo").len()), (StatusCode::OK, headers), "{name}");
        assert_eq!(values(&got, "content-type"), ["application/connect+proto"]);
        assert_eq!(end(&body).get("metadata"), last, "{name}");
    }
    replica.stop.cancel();
}

/// The dialects with streams of requests: media type, the header that names the coding.
const STREAMS: [(&str, &str); 2] = [
    ("application/connect+proto", "connect-content-encoding"),
    ("application/grpc-web+proto", "grpc-encoding"),
];

async fn compressed_messages_of_streams_are_read(service: &Service) {
    let (replica, key) = start(service).await;
    for (media, header) in STREAMS {
        for coding in ["gzip", "zstd"] {
            let headers = [("content-type", media), (header, coding)];
            // One of them stays as it is, as a client may choose.
            let body = [
                envelope(1, &compress(coding, &encoded("a"))),
                envelope(0, &encoded("b")),
                envelope(1, &compress(coding, &encoded("c"))),
            ];
            let (_, _, reply) = post((&replica, &key), "Collect", body.concat(), &headers).await;
            let length = reply[4].into();
            let reply = FileReply::decode(&reply[5..][..length]).unwrap();
            assert_eq!(reply.title, "a+b+c", "{media} {coding}");
            let broken = [envelope(1, b"no coding"), envelope(0, b"")].concat();
            let refused = post((&replica, &key), "Collect", broken, &headers).await;
            assert_code(&refused, "invalid_argument", 3);
        }
        let headers = [("content-type", media), (header, "br")];
        let refused = post((&replica, &key), "Collect", envelope(0, &encoded("a")), &headers).await;
        assert_code(&refused, "unimplemented", 12);
        let headers = [("content-type", media)];
        let body = envelope(1, &compress("gzip", &encoded("a")));
        let refused = post((&replica, &key), "Collect", body, &headers).await;
        assert_code(&refused, "invalid_argument", 3);
    }
    replica.stop.cancel();
}

async fn compressed_messages_of_streams_have_the_limit_of_a_body(service: &Service) {
    let (replica, key) = start(service).await;
    for (media, header) in STREAMS {
        for coding in ["gzip", "zstd"] {
            let headers = [("content-type", media), (header, coding)];
            let body = envelope(1, &compress(coding, &encoded(&"x".repeat(65 * 1024))));
            let refused = post((&replica, &key), "Collect", body, &headers).await;
            assert_code(&refused, "resource_exhausted", 8);
        }
    }
    replica.stop.cancel();
}

/// Fails unless the reply says that code: Connect's last envelope, or the headers or trailers of gRPC-Web.
#[track_caller]
fn assert_code((_, headers, body): &(StatusCode, HeaderMap, Bytes), name: &str, number: u8) {
    let text = String::from_utf8_lossy(body);
    let said = match headers.get("grpc-status") {
        Some(code) => *code == number.to_string(),
        None => {
            let (connect, web) = (format!("\"code\":\"{name}\""), format!("grpc-status:{number}\r\n"));
            text.contains(&connect) || text.contains(&web)
        }
    };
    assert!(said, "{name}: {headers:?} {text}");
}

async fn a_call_has_one_message(service: &Service) {
    let (replica, key) = start(service).await;
    let two = envelope(0, &encoded("files/7")).repeat(2);
    for (rpc, media) in [
        ("File", "application/grpc-web+proto"),
        ("Watch", "application/grpc-web+proto"),
        ("Watch", "application/connect+proto"),
    ] {
        let headers = [("content-type", media)];
        let refused = post((&replica, &key), rpc, two.clone(), &headers).await;
        assert_code(&refused, "invalid_argument", 3);
    }
    replica.stop.cancel();
}

async fn verbs_and_media_types_are_refused_by_the_status_of_http(service: &Service) {
    let (replica, key) = start(service).await;
    let to = (&replica, &*key);
    let path = "/everything.Everything/File";
    for media in ["application/proto", "application/grpc"] {
        let headers = [("content-type", media), ("authorization", &key)];
        let body = envelope(0, &encoded("files/7"));
        let (status, headers, _) = bytes_of(&replica, Method::DELETE, path, body, &headers).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{media}");
        assert_eq!(
            values(&headers, "content-type"),
            ["text/plain; charset=utf-8"],
            "Connect's clients read JSON"
        );
        assert_eq!(values(&headers, "allow"), ["POST, OPTIONS"]);
    }
    let (status, headers, body) = post(to, "File", "12345678", &[("content-type", "image/jpeg")]).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(values(&headers, "content-type"), ["text/plain; charset=utf-8"]);
    assert_eq!(body, "the body must be one of application/json, application/proto");
    replica.stop.cancel();
}
