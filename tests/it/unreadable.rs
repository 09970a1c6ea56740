//! Requests over HTTP/1.1 whose head cannot be read, by which no call begins: they are refused as all others are.

use std::collections::BTreeSet;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::Service;

crate::on_every_backend!(
    a_head_that_cannot_be_read_is_refused_in_our_form,
    headers_that_are_too_long_over_http2_are_a_bare_431,
);

/// Sends bytes as they are, perhaps after a request on the same connection, and reads until the server closes: the head of the
/// reply, and its body.
async fn exchange(service: &Service, sent: &[u8], after_another: bool) -> (String, String) {
    let mut stream = TcpStream::connect(&service.replica.address).await.unwrap();
    let mut answer = Vec::new();
    if after_another {
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-request-id: before\r\n\r\n")
            .await
            .unwrap();
        while !answer.ends_with(b"}") {
            answer.push(stream.read_u8().await.unwrap());
        }
        answer.clear();
    }
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(sent).await;
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    (head.to_owned(), body.to_owned())
}

async fn a_head_that_cannot_be_read_is_refused_in_our_form(service: &Service) {
    let long = "x".repeat(48 * 1024);
    let many: String = (0..70).map(|n| format!("x-{n}: 1\r\n")).collect();
    let host = "host: localhost\r\n";
    let heads = [
        (format!("GET /v1/users?search={long} HTTP/1.1\r\n{host}"), "414 URI Too Long", 11, "TOO_LARGE"),
        (
            format!("GET /v1/users HTTP/1.1\r\n{host}x-long: {long}\r\n"),
            "431 Request Header Fields Too Large",
            11,
            "TOO_LARGE",
        ),
        (
            format!("GET /v1/users HTTP/1.1\r\n{host}{many}"),
            "431 Request Header Fields Too Large",
            11,
            "TOO_LARGE",
        ),
        (format!("GET /v1/users?search=<b> HTTP/1.1\r\n{host}"), "400 Bad Request", 3, "MALFORMED"),
        (format!("GET /v1/a b HTTP/1.1\r\n{host}"), "400 Bad Request", 3, "MALFORMED"),
        (format!("GET /v1/users HTTP/7\r\n{host}"), "400 Bad Request", 3, "MALFORMED"),
        (format!("GET /v1/users HTTP/1.1\r\n{host}no header\r\n"), "400 Bad Request", 3, "MALFORMED"),
        ("nothing of HTTP\r\n".to_owned(), "400 Bad Request", 3, "MALFORMED"),
    ];
    let mut ids = BTreeSet::new();
    for (sent, status, code, reason) in heads.iter().flat_map(|head| [head; 2]) {
        let sent = format!("{sent}\r\n");
        let (head, body) = exchange(service, sent.as_bytes(), ids.len() % 2 == 1).await;
        let shown = format!("{}...: {head}\n{body}", &sent[..40.min(sent.len())]);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{shown}");
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|line| line.0 == name).map(|line| line.1).collect::<Vec<_>>()
        };
        let length = body.len().to_string();
        assert_eq!(header("content-length"), [length.as_str()], "{shown}");
        assert_eq!(header("content-type"), ["application/json"], "{shown}");
        assert_eq!(header("connection"), ["close"], "{shown}");
        assert_eq!(header("date").len(), 1, "{shown}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&body["code"], &body["details"][0]["reason"]),
            (&(*code).into(), &(*reason).into()),
            "{shown}"
        );
        assert!(!body["message"].as_str().unwrap().is_empty(), "{shown}");
        let [id] = header("x-request-id")[..] else { panic!("{shown}") };
        assert!(id != "before" && ids.insert(id.to_owned()), "a new id: {shown}");
    }
}

/// By the HTTP/2 library, which has sent the frame before anything of ours could write to it.
async fn headers_that_are_too_long_over_http2_are_a_bare_431(service: &Service) {
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let request = http::Request::get(format!("http://{}/v1/users", service.replica.address));
    let request = request.header("x-long", "x".repeat(20 * 1024)).body(Full::default()).unwrap();
    let answer = client.request(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().len()), (431, 0));
}
