//! A service that tells who is signed in: `usersd-session-layer USERSD KEY`. Prints the address that it serves on.

use std::error::Error;
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tonic::transport::Endpoint;

use layer::{SessionLayer, User};

mod layer;

/// What the proto was compiled to.
mod pb {
    tonic::include_proto!("users");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, key] = &arguments[..] else { return Err("wants USERSD and KEY".into()) };
    // Connects with the first call, and again whenever the connection is lost.
    let channel = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(Duration::from_secs(1))
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_while_idle(true)
        .connect_lazy();
    let routes = Router::new()
        .route(
            "/whoami",
            get(async |Extension(user): Extension<User>| format!("{} {}", user.id, user.username)),
        )
        .layer(SessionLayer::new(channel, key)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, routes).await?)
}
