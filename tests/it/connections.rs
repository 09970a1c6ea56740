//! Connections: how long they last, and which make room.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use usersd::domain::scope::Scopes;

use crate::support::{Replica, Service};

crate::on_every_backend!(
    pings_do_not_keep_an_idle_connection,
    an_old_connection_ends_without_a_failed_call,
    connections_without_a_key_make_room_for_a_caller,
    an_address_has_so_many_connections_with_a_key,
);

/// Long enough for what comes within a second or two on a slow machine, and shorter than any time-out of the
/// server.
const SOON: Duration = Duration::from_secs(20);

/// A connection of HTTP/2, and its end.
async fn connect(
    replica: &Replica,
) -> (SendRequest<Bytes>, h2::PingPong, impl Future<Output = Result<(), h2::Error>> + use<>) {
    let stream = TcpStream::connect(&replica.address).await.unwrap();
    let (sender, mut connection) = h2::client::handshake(stream).await.unwrap();
    let pings = connection.ping_pong().unwrap();
    (sender, pings, connection)
}

async fn call(sender: &SendRequest<Bytes>, key: &str) -> Result<StatusCode, h2::Error> {
    let request = Request::get("http://localhost/v1/users").header("authorization", format!("Bearer {key}"));
    let mut ready = sender.clone().ready().await?;
    let (response, _) = ready.send_request(request.body(()).unwrap(), true)?;
    Ok(response.await?.status())
}

async fn pings_do_not_keep_an_idle_connection(service: &Service) {
    let short = service.another(|config| config.http.idle_timeout = Duration::from_secs(1)).await;
    let (sender, mut pings, connection) = connect(&short).await;
    let ended = tokio::spawn(connection);
    assert_eq!(call(&sender, "").await.unwrap(), StatusCode::OK);
    let pinging = async {
        while pings.ping(h2::Ping::opaque()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(SOON, pinging).await.unwrap();
    // It was sent GOAWAY, and not cut off.
    let end = ended.await.unwrap();
    assert!(end.is_ok(), "{end:?}");
    short.stop.cancel();
}

async fn an_old_connection_ends_without_a_failed_call(service: &Service) {
    let short = service.another(|config| config.http.max_age = Some(Duration::from_secs(1))).await;
    let (sender, _, connection) = connect(&short).await;
    let ended = tokio::spawn(connection);
    let calling = async {
        loop {
            match call(&sender, "").await {
                Ok(status) => assert_eq!(status, StatusCode::OK),
                // What was begun is answered; what was not can be done elsewhere.
                Err(error) => break assert!(!error.is_reset(), "{error:?}"),
            }
        }
    };
    tokio::time::timeout(SOON, calling).await.unwrap();
    let end = ended.await.unwrap();
    assert!(end.is_ok(), "{end:?}");
    short.stop.cancel();
}

/// A connection of HTTP/1.1 that asked once.
async fn asked(replica: &Replica, key: &str) -> Option<(TcpStream, String)> {
    let mut stream = TcpStream::connect(&replica.address).await.unwrap();
    let head = format!("GET /v1/users HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.ok()?;
    Some((stream, String::from_utf8_lossy(&status[9..]).into_owned()))
}

async fn connections_without_a_key_make_room_for_a_caller(service: &Service) {
    const ALL: usize = 50;
    let (key, _) = service.key("default", Scopes::ALL).await;
    let small = service.another(|config| config.limits.connections = ALL).await;
    let (mut caller, status) = asked(&small, &key).await.unwrap();
    assert_eq!(status, "200");
    let mut silent = Vec::new();
    for n in 0..2 * ALL {
        if n % 2 == 0 {
            silent.push(TcpStream::connect(&small.address).await.unwrap());
        } else {
            let (stream, status) = tokio::time::timeout(SOON, asked(&small, "")).await.unwrap().unwrap();
            assert_eq!(status, "401");
            silent.push(stream);
        }
    }
    let (_, status) = tokio::time::timeout(SOON, asked(&small, &key)).await.unwrap().unwrap();
    assert_eq!(status, "200");
    // The oldest went, and not the one with a key, which is older.
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, silent[0].read_to_end(&mut rest)).await.unwrap().ok();
    let request = b"GET /v1/users HTTP/1.1\r\nhost: localhost\r\n\r\n";
    caller.write_all(request).await.unwrap();
    let mut answer = [0; 4096];
    assert!(caller.read(&mut answer).await.unwrap() > 0);
    small.stop.cancel();
}

async fn an_address_has_so_many_connections_with_a_key(service: &Service) {
    let (key, _) = service.key("default", Scopes::ALL).await;
    let small = service.another(|config| config.limits.connections_per_address = 3).await;
    let proxied = service
        .another(|config| {
            config.limits.connections_per_address = 3;
            config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        })
        .await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(asked(&small, &key).await.unwrap());
    }
    assert!(asked(&small, &key).await.is_none(), "one more than fit");
    drop(open.pop());
    let again = async || asked(&small, &key).await.is_some();
    crate::support::until(again).await;
    for _ in 0..6 {
        open.push(asked(&proxied, &key).await.unwrap());
    }
    small.stop.cancel();
    proxied.stop.cancel();
}
