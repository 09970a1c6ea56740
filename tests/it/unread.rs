//! What is refused before its body was read breaks no connection of HTTP/1.1.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use usersd::domain::scope::{Scope, Scopes};

use crate::support::{Replica, Service, raw_with};

crate::on_every_backend!(
    a_refused_body_leaves_its_connection_usable_in_every_dialect,
    a_body_that_does_not_come_or_is_too_long_closes_the_connection_and_says_so,
    errors_of_micros_generated_clients_are_in_its_words,
);

/// Requests that are refused before their bodies are read: verb, path, content type, and the status.
const REFUSED: [(&str, &str, &str, &str); 12] = [
    ("POST", "/v1/nope", "application/json", "404"),
    ("PUT", "/v1/users", "application/json", "405"),
    ("POST", "/v1/users", "application/json", "401"),
    ("POST", "/users/Users/Nope", "application/json", "404"),
    ("POST", "/users/Users/Create", "application/json", "401"),
    ("PUT", "/users/Users/Create", "application/json", "405"),
    ("POST", "/appwrite/v1/nope", "application/json", "404"),
    ("POST", "/appwrite/v1/users", "application/json", "400"),
    ("POST", "/meiro/nope", "application/json", "404"),
    ("POST", "/meiro/users", "application/json", "401"),
    ("POST", "/users.Users/Create", "application/grpc", "200"),
    ("POST", "/users.Users/Create", "application/grpc-web", "200"),
];

async fn head(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(Duration::from_secs(30), stream.read_u8()).await.unwrap();
        read.push(byte.unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&read))));
    }
    String::from_utf8(read).unwrap().to_lowercase()
}

/// Reads an answer and says its status, and whether it closes.
async fn answer(stream: &mut TcpStream) -> (String, bool) {
    let head = head(stream).await;
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    if head.contains("transfer-encoding: chunked") {
        let mut end = Vec::new();
        while !end.ends_with(b"0\r\n\r\n") {
            end.push(stream.read_u8().await.unwrap());
        }
    }
    (head[9..12].to_owned(), head.contains("connection: close"))
}

/// Sends the head of a request, and its body when that has surely been looked at.
async fn in_two_pieces(stream: &mut TcpStream, head: &str, body: &[u8]) {
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    stream.write_all(body).await.unwrap();
}

async fn a_refused_body_leaves_its_connection_usable_in_every_dialect(service: &Service) {
    let (reader, _) = service.key("default", Scopes::parse([Scope::UsersRead.name()]).unwrap()).await;
    let mut stream = TcpStream::connect(&service.replica.address).await.unwrap();
    let send = async |stream: &mut TcpStream, verb: &str, path: &str, more: String, status: &str| {
        for (length, body) in [
            ("content-length: 100".to_owned(), vec![b'x'; 100]),
            ("content-length: 65536".to_owned(), vec![b'x'; 65_536]),
            (
                "transfer-encoding: chunked".to_owned(),
                [&b"64\r\n"[..], &[b'x'; 100], b"\r\n0\r\n\r\n"].concat(),
            ),
        ] {
            let head = format!("{verb} {path} HTTP/1.1\r\nhost: localhost\r\n{more}{length}\r\n\r\n");
            in_two_pieces(stream, &head, &body).await;
            let said = answer(stream).await;
            assert_eq!(said, (status.to_owned(), false), "{verb} {path}, {length}");
        }
    };
    for (verb, path, media, status) in REFUSED {
        send(&mut stream, verb, path, format!("content-type: {media}\r\n"), status).await;
    }
    let bearer = format!("authorization: Bearer {reader}\r\n");
    send(&mut stream, "POST", "/v1/users", format!("{bearer}content-type: application/json\r\n"), "403")
        .await;
    send(&mut stream, "POST", "/users/Users/Search", format!("{bearer}content-type: text/xml\r\n"), "415")
        .await;
    // A body that nobody asks for is no fault.
    send(&mut stream, "GET", "/v1/users", bearer, "200").await;
}

async fn a_body_that_does_not_come_or_is_too_long_closes_the_connection_and_says_so(service: &Service) {
    service.key("default", Scopes::ALL).await;
    for (more, body) in [
        ("content-length: 10\r\n", 0),
        ("content-length: 1000000\r\n", 0),
        ("transfer-encoding: chunked\r\n", 300_000),
        // Who waits for leave to send has sent nothing, and is not waited for.
        ("expect: 100-continue\r\ncontent-length: 10\r\n", 0),
    ] {
        let mut stream = TcpStream::connect(&service.replica.address).await.unwrap();
        let head = format!("POST /v1/users HTTP/1.1\r\nhost: localhost\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        if body > 0 {
            let chunk = [format!("{body:x}\r\n").as_bytes(), &vec![b'x'; body]].concat();
            stream.write_all(&chunk).await.unwrap();
        }
        assert_eq!(answer(&mut stream).await, ("401".to_owned(), true), "{more:?}");
        let end = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut [0])).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)), "{more:?}");
    }
}

async fn micros(replica: &Replica, path: &str, metadata: &[(&str, &str)]) -> tonic::Status {
    raw_with(replica, path, Vec::new(), metadata).await.unwrap_err()
}

async fn errors_of_micros_generated_clients_are_in_its_words(service: &Service) {
    let micro = [("x-content-type", "application/grpc+proto")];
    let said = |id: &str, code: u16, detail: &str, status: &str| serde_json::json!({"id": id, "code": code, "detail": detail, "status": status});
    let status = micros(&service.replica, "/users.Users/ReadSession", &micro).await;
    let parsed: serde_json::Value = serde_json::from_str(status.message()).unwrap();
    assert_eq!((&parsed["id"], &parsed["code"]), (&"users.ReadSession".into(), &400.into()));
    assert!(status.details().is_empty(), "{status:?}");
    let plain = micros(&service.replica, "/users.Users/ReadSession", &[]).await;
    assert_eq!((plain.code(), plain.message()), (status.code(), parsed["detail"].as_str().unwrap()));
    assert!(!plain.details().is_empty());
    service.key("default", Scopes::ALL).await;
    let status = micros(&service.replica, "/users.Users/Read", &micro).await;
    let parsed: serde_json::Value = serde_json::from_str(status.message()).unwrap();
    let detail = "the call needs a valid API key: none was sent, or it is unknown, expired or revoked";
    assert_eq!(parsed, said("users.Read", 401, detail, "Unauthorized"));
    let status = micros(&service.replica, "/users.Users/Nothing", &micro).await;
    assert!(status.message().starts_with(r#"{"id":"users","code":501"#), "{status:?}");
}
