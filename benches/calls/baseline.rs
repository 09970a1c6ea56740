//! What the same answer costs with nothing behind it: a bare tonic server and a bare axum handler.

use std::convert::Infallible;
use std::fs;
use std::future::{Ready, ready};
use std::path::Path;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use prost::Message as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tower::Service;
use usersd::pb;

use crate::Result;
use crate::server::Server;

/// Which of the two.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// tonic.
    Grpc,
    /// axum.
    Json,
}

impl Kind {
    /// As the command line has it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Json => "json",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = [Self::Grpc, Self::Json].into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| format!("there is no baseline {text}"))
    }
}

/// Starts a baseline, which is this binary once more, that answers every call with the content of `answer`.
pub(crate) async fn start(kind: Kind, answer: &Path) -> Result<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--baseline", kind.as_str()]).arg(answer);
    Server::start(command).await
}

/// Serves until standard input ends. `answer` holds an encoded `ReadResponse` or its JSON.
pub(crate) async fn serve(kind: Kind, answer: &Path) -> Result<()> {
    let answer = Bytes::from(fs::read(answer)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    eprintln!("baseline {} listening on {} database none", kind.as_str(), listener.local_addr()?);
    let mut rest = Vec::new();
    let mut input = tokio::io::stdin();
    tokio::select! {
        done = async {
            match kind {
                Kind::Grpc => serve_grpc(listener, &answer).await,
                Kind::Json => serve_json(listener, answer).await,
            }
        } => done,
        _ = input.read_to_end(&mut rest) => std::process::exit(0), // the read's thread would hold us back
    }
}

async fn serve_grpc(listener: TcpListener, answer: &[u8]) -> Result<()> {
    let read = ConstantRead(Arc::new(pb::ReadResponse::decode(answer)?));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(tonic::transport::Server::builder().add_service(read).serve_with_incoming(incoming).await?)
}

async fn serve_json(listener: TcpListener, answer: Bytes) -> Result<()> {
    let json = [(CONTENT_TYPE, "application/json")];
    let read = axum::routing::get(move || async move { (json, answer) });
    let listener = listener.tap_io(|socket| {
        let _ = socket.set_nodelay(true); // a socket that refuses is a slower one
    });
    Ok(axum::serve(listener, Router::new().route("/v1/users/{id}", read)).await?)
}

/// The code that tonic generates for one RPC, by hand: the whole trait would have to grow with the contract.
#[derive(Clone)]
struct ConstantRead(Arc<pb::ReadResponse>);

impl NamedService for ConstantRead {
    const NAME: &'static str = "users.Users";
}

impl UnaryService<pb::ReadRequest> for ConstantRead {
    type Response = pb::ReadResponse;
    type Future = Ready<std::result::Result<Response<pb::ReadResponse>, Status>>;

    fn call(&mut self, _: Request<pb::ReadRequest>) -> Self::Future {
        ready(Ok(Response::new((*self.0).clone())))
    }
}

impl Service<http::Request<Body>> for ConstantRead {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let read = self.clone();
        Box::pin(async move {
            let codec = tonic_prost::ProstCodec::default();
            Ok(Grpc::new(codec).unary(read, request).await)
        })
    }
}
