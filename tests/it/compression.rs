//! Compression by gzip and zstd, of requests and of replies, within the limit of a body.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::{Code, Status};
use usersd::pb::{ReadRequest, ReadResponse, User};

use crate::support::{Replica, Service, ada, assert_refused, bytes_of, create};

crate::on_every_backend!(
    json_is_compressed_both_ways,
    connect_is_compressed_both_ways,
    grpc_and_grpc_web_are_compressed_both_ways,
    a_message_that_grows_past_the_limit_is_refused,
    other_codings_and_broken_ones_are_refused,
);

const CODINGS: [&str; 2] = ["gzip", "zstd"];

pub(crate) fn compress(coding: &str, plain: &[u8]) -> Vec<u8> {
    if coding == "zstd" {
        return zstd::encode_all(plain, 3).unwrap();
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn decompress(coding: &str, compressed: &[u8]) -> Vec<u8> {
    if coding == "zstd" {
        return zstd::decode_all(compressed).unwrap();
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(compressed).read_to_end(&mut plain).unwrap();
    plain
}

/// A user whose reply is longer than what stays plain, and one whose is not.
async fn long_and_short(service: &Service) -> [User; 2] {
    let mut long = ada();
    for n in 0..10 {
        long.metadata.insert(format!("key{n}"), "x".repeat(200));
    }
    let mut short = ada();
    (short.username, short.email) = ("bob".into(), "bob@example.com".into());
    [create(service, long).await, create(service, short).await]
}

fn value(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
}

async fn json_is_compressed_both_ways(service: &Service) {
    let [long, short] = long_and_short(service).await;
    let replica = &service.replica;
    for (path, id) in [("/v1/users/", &long.id), ("/v1/users/", &short.id), ("/meiro/users/", &short.id)] {
        let path = format!("{path}{id}");
        let (_, headers, plain) = bytes_of(replica, Method::GET, &path, "", &[]).await;
        assert_eq!((value(&headers, "content-encoding"), value(&headers, "vary")), Default::default());
        for coding in CODINGS {
            let accept = [("accept-encoding", coding)];
            let (status, headers, body) = bytes_of(replica, Method::GET, &path, "", &accept).await;
            assert_eq!((status, value(&headers, "content-length")), (StatusCode::OK, body.len().to_string()));
            if plain.len() < 1024 {
                assert_eq!((value(&headers, "content-encoding"), body), (String::new(), plain.clone()));
                continue;
            }
            assert_eq!(value(&headers, "content-encoding"), coding);
            assert_eq!(value(&headers, "vary"), "accept-encoding");
            assert!(value(&headers, "etag").starts_with('"') && body.len() < plain.len() / 2);
            assert_eq!(decompress(coding, &body), plain, "{coding}");
        }
    }
    for coding in CODINGS {
        for (verb, path) in
            [(Method::PATCH, format!("/v1/users/{}", short.id)), (Method::POST, "/users/update".into())]
        {
            let change = json!({"id": short.id, "name": coding}).to_string();
            let change = if verb == Method::PATCH { json!({"name": coding}).to_string() } else { change };
            let headers = [("content-encoding", coding), ("content-type", "application/json")];
            let (status, _, body) =
                bytes_of(replica, verb, &path, compress(coding, change.as_bytes()), &headers).await;
            assert_eq!(status, StatusCode::OK, "{path} {body:?}");
        }
        let (_, user) = replica.json(Method::GET, &format!("/v1/users/{}", short.id), "").await;
        assert_eq!(user["user"]["name"], coding);
    }
}

async fn connect_is_compressed_both_ways(service: &Service) {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let [long, _] = long_and_short(service).await;
    let message = ReadRequest { id: long.id.clone(), ..ReadRequest::default() }.encode_to_vec();
    for coding in CODINGS {
        let compressed = compress(coding, &message);
        let headers = [
            ("content-type", "application/proto"),
            ("content-encoding", coding),
            ("accept-encoding", coding),
        ];
        let query = format!("encoding=proto&base64=1&compression={coding}&message=");
        let path = format!("/users.Users/Read?{query}{}", URL_SAFE_NO_PAD.encode(&compressed));
        for (verb, path, body) in [
            (Method::POST, "/users.Users/Read", Bytes::from(compressed)),
            (Method::GET, &*path, Bytes::new()),
        ] {
            let (status, headers, body) = bytes_of(&service.replica, verb, path, body, &headers).await;
            assert_eq!((status, value(&headers, "content-encoding")), (StatusCode::OK, coding.to_owned()));
            let user = ReadResponse::decode(&*decompress(coding, &body)).unwrap().user.unwrap();
            assert_eq!(user, long, "{path}");
        }
    }
}

/// The headers, trailers and body of a call in gRPC, or in gRPC-Web whose trailers are the last frame.
async fn grpc(
    replica: &Replica,
    web: bool,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> (Status, HeaderMap, Vec<u8>) {
    let media = if web { "application/grpc-web+proto" } else { "application/grpc" };
    let mut request = http::Request::post(format!("http://{}/users.Users/Read", replica.address))
        .header("content-type", media)
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).http2_only(!web).build_http();
    let answer = client.request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    let status = trailers.as_ref().and_then(Status::from_header_map);
    let status = status.or_else(|| Status::from_header_map(&head.headers));
    (status.unwrap_or_else(|| Status::new(Code::Ok, "")), head.headers, body.to_bytes().to_vec())
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

async fn grpc_and_grpc_web_are_compressed_both_ways(service: &Service) {
    let users = long_and_short(service).await;
    let read = |user: &User| ReadRequest { id: user.id.clone(), ..ReadRequest::default() }.encode_to_vec();
    for (web, coding) in CODINGS.into_iter().flat_map(|coding| [(false, coding), (true, coding)]) {
        for (n, user) in users.iter().enumerate() {
            // A small message may come as it is.
            for sent in [framed(1, &compress(coding, &read(user))), framed(0, &read(user))] {
                let (status, headers, body) =
                    grpc(&service.replica, web, &[("grpc-encoding", coding)], sent).await;
                assert_eq!((status.code(), value(&headers, "grpc-encoding")), (Code::Ok, coding.to_owned()));
                assert_eq!(body[0], u8::from(n == 0), "{coding}: only the long one is compressed");
                let end = 5 + u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
                let message = if n == 0 { decompress(coding, &body[5..end]) } else { body[5..end].to_vec() };
                assert_eq!(ReadResponse::decode(&*message).unwrap().user.as_ref(), Some(user));
            }
        }
        // What clients say that they accept, many always say.
        let accept = [("grpc-accept-encoding", coding), ("accept-encoding", coding)];
        let (_, headers, body) = grpc(&service.replica, web, &accept, framed(0, &read(&users[0]))).await;
        assert_eq!((value(&headers, "grpc-encoding"), body[0]), (String::new(), 0));
    }
}

async fn a_message_that_grows_past_the_limit_is_refused(service: &Service) {
    let replica = &service.replica;
    for coding in CODINGS {
        // 64 KiB are the limit.
        let bomb = compress(coding, &vec![b' '; 16 << 20]);
        assert!(bomb.len() < 32 * 1024, "{}", bomb.len());
        for (path, reason) in
            [("/v1/users", "details"), ("/users.Users/Create", "code"), ("/users/create", "detail")]
        {
            let headers = [("content-type", "application/json"), ("content-encoding", coding)];
            let (status, _, body) = bytes_of(replica, Method::POST, path, bomb.clone(), &headers).await;
            let body: Value = serde_json::from_slice(&body).unwrap();
            let (want, text) = match reason {
                "details" => (413, "TOO_LARGE"),
                "code" => (429, "resource_exhausted"),
                _ => (413, "longer than 65536 bytes"),
            };
            assert_eq!(status.as_u16(), want, "{path}: {body}");
            assert!(body[reason].to_string().contains(text), "{path}: {body}");
        }
        for web in [false, true] {
            let sent = framed(1, &bomb);
            let (status, _, _) = grpc(replica, web, &[("grpc-encoding", coding)], sent).await;
            assert_refused(&status, Code::ResourceExhausted, "TOO_LARGE");
        }
    }
}

async fn other_codings_and_broken_ones_are_refused(service: &Service) {
    let replica = &service.replica;
    for coding in ["br", "deflate", "gzip, gzip", ""] {
        let headers = [("content-type", "application/json"), ("content-encoding", coding)];
        let (status, headers, body) = bytes_of(replica, Method::POST, "/v1/users", "{}", &headers).await;
        assert_eq!(
            (status.as_u16(), value(&headers, "accept-encoding")),
            (415, "gzip, zstd".into()),
            "{coding}"
        );
        assert!(String::from_utf8_lossy(&body).contains("ENCODING_UNKNOWN"));
        for web in [false, true] {
            let (status, headers, _) = grpc(replica, web, &[("grpc-encoding", coding)], framed(0, b"")).await;
            assert_refused(&status, Code::Unimplemented, "ENCODING_UNKNOWN");
            assert_eq!(value(&headers, "grpc-accept-encoding"), "gzip, zstd");
        }
    }
    for coding in CODINGS {
        let headers = [("content-type", "application/json"), ("content-encoding", coding)];
        let (status, _, body) = bytes_of(replica, Method::POST, "/v1/users", "{}", &headers).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{coding}");
        assert!(String::from_utf8_lossy(&body).contains("MALFORMED"), "{body:?}");
        let (status, ..) = grpc(replica, false, &[("grpc-encoding", coding)], framed(1, b"{}")).await;
        assert_refused(&status, Code::InvalidArgument, "MALFORMED");
    }
}
