//! Requests of web pages without a key, and the hosts that requests name.

use http::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use usersd::config::Auth;
use usersd::domain::scope::Scopes;

use crate::support::{Replica, Service};

crate::on_every_backend!(
    without_authentication_a_host_name_must_be_listed,
    a_request_of_http_1_names_one_host,
);

/// The status of a request with these header lines, and the body of the answer.
async fn get(replica: &Replica, target: &str, headers: &str) -> (StatusCode, Value) {
    let mut stream = TcpStream::connect(&replica.address).await.unwrap();
    let head = format!("GET {target} HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn without_authentication_a_host_name_must_be_listed(service: &Service) {
    service.key("default", Scopes::ALL).await;
    let open = service
        .another(|config| {
            config.auth = Auth::Off;
            config.http.hosts = vec!["users.example.com".into(), "*.cluster.local".into()];
        })
        .await;
    let good = ["localhost", "127.0.0.1:8080", "10.1.2.3", "[::1]:80", "usersd", "users.example.com:443"];
    for host in good.into_iter().chain(["users.shop.svc.cluster.local"]) {
        let (status, answer) = get(&open, "/v1/users", &format!("host: {host}\r\n")).await;
        assert_eq!(status, StatusCode::OK, "{host}: {answer}");
    }
    for host in ["evil.example", "evil.example:8080", "users.example.com.evil.example", "cluster.local"] {
        let (status, answer) = get(&open, "/v1/users", &format!("host: {host}\r\n")).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{host}: {answer}");
        assert_eq!(answer["details"][0]["reason"], "FOREIGN_ORIGIN", "{host}");
        assert!(answer["message"].as_str().unwrap().contains("http.hosts"), "{answer}");
    }
    let (status, _) = get(&open, "http://evil.example/v1/users", "host: localhost\r\n").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "the target's host counts");
    // Where a key is needed no page has one.
    let (status, _) = get(&service.replica, "/v1/users", "host: evil.example\r\n").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    open.stop.cancel();
}

async fn a_request_of_http_1_names_one_host(service: &Service) {
    for headers in ["", "host: 127.0.0.1\r\nhost: evil.example\r\n", "host: localhost\r\nhost: localhost\r\n"]
    {
        let (status, answer) = get(&service.replica, "/v1/users", headers).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{headers:?}: {answer}");
        assert_eq!(answer["details"][0]["reason"], "MALFORMED", "{headers:?}");
    }
    let (status, _) = get(&service.replica, "/v1/users", "host: localhost\r\n").await;
    assert_eq!(status, StatusCode::OK);
}
