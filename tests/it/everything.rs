//! The service of `tests/proto/everything.proto`, as far as tests call it: its streams and one call.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Code, Request, Response, Status, Streaming};
use usersd::domain::caller::Caller;
use usersd::domain::scope::Scope;
use usersd::grpc::codec::Codec;
use usersd::http::Upstream;
use usersd::server::Services;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FileRequest {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int32, tag = "3")]
    pub(crate) page_size: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FileReply {
    #[prost(string, tag = "1")]
    pub(crate) title: String,
}

type Replies = Pin<Box<dyn Stream<Item = Result<FileReply, Status>> + Send>>;

fn reply(title: impl Into<String>) -> FileReply {
    FileReply { title: title.into() }
}

/// The metadata of replies: what the request has under one name.
fn echoed<T>(request: &Request<T>) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for value in request.metadata().get_all("x-echo") {
        metadata.append("x-echo", value.clone());
    }
    metadata
}

fn with<T>(metadata: MetadataMap, reply: T) -> Response<T> {
    let mut response = Response::new(reply);
    *response.metadata_mut() = metadata;
    response
}

/// The service of `everything.proto`, as far as tests call it.
#[derive(Clone)]
struct Everything;

impl NamedService for Everything {
    const NAME: &'static str = "everything.Everything";
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Infallible>> + Send>>;

impl tower::Service<http::Request<Body>> for Everything {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        async move {
            let codec = Codec::<FileReply, FileRequest>::default();
            let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(64 * 1024);
            assert!(request.extensions().get::<Caller>().is_some(), "the lifecycle gives the caller");
            Ok(match request.uri().path() {
                "/everything.Everything/File" => grpc.unary(File, request).await,
                "/everything.Everything/Watch" => grpc.server_streaming(Watch, request).await,
                _ => grpc.client_streaming(Collect, request).await,
            })
        }
        .boxed()
    }
}

struct File;

impl tonic::server::UnaryService<FileRequest> for File {
    type Response = FileReply;
    type Future = Pin<Box<dyn Future<Output = Result<Response<FileReply>, Status>> + Send>>;

    fn call(&mut self, request: Request<FileRequest>) -> Self::Future {
        let (metadata, name) = (echoed(&request), request.into_inner().name);
        async move {
            match &*name {
                "files/refuse" => Err(Status::with_metadata(Code::NotFound, "no such file", metadata)),
                _ => Ok(with(metadata, reply(name))),
            }
        }
        .boxed()
    }
}

struct Watch;

impl tonic::server::ServerStreamingService<FileRequest> for Watch {
    type Response = FileReply;
    type ResponseStream = Replies;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Replies>, Status>> + Send>>;

    /// So many replies, and then what the name says.
    fn call(&mut self, request: Request<FileRequest>) -> Self::Future {
        let metadata = echoed(&request);
        let FileRequest { name, page_size } = request.into_inner();
        let failed = |code, message| Status::with_metadata(code, message, metadata.clone());
        let (missing, changed) =
            (failed(Code::NotFound, "no such file"), failed(Code::Aborted, "it changed"));
        async move {
            let replies = stream::iter((0..page_size).map(|n| Ok(reply(n.to_string()))));
            Ok(with(
                metadata,
                match &*name {
                    "refuse" => return Err(missing),
                    "fail" => replies.chain(stream::iter([Err(changed)])).boxed(),
                    "endless" => replies.chain(stream::pending()).boxed(),
                    _ => replies.boxed(),
                },
            ))
        }
        .boxed()
    }
}

struct Collect;

impl tonic::server::ClientStreamingService<FileRequest> for Collect {
    type Response = FileReply;
    type Future = Pin<Box<dyn Future<Output = Result<Response<FileReply>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<FileRequest>>) -> Self::Future {
        async move {
            let (mut messages, mut names) = (request.into_inner(), Vec::new());
            while let Some(message) = messages.message().await? {
                names.push(message.name);
            }
            Ok(Response::new(reply(names.join("+"))))
        }
        .boxed()
    }
}

pub(crate) fn services() -> Services {
    let root = env!("CARGO_MANIFEST_DIR");
    let folders = [format!("{root}/tests/proto"), format!("{root}/proto")];
    let mut compiler = protox::Compiler::new(folders).unwrap();
    compiler.include_imports(true).open_file("everything.proto").unwrap();
    let mut rpcs = Upstream::default();
    rpcs.add(Everything);
    rpcs.add_unary("/everything.Everything/File", &Arc::new(File), |_, request| async move {
        tonic::server::UnaryService::call(&mut File, request).await
    });
    Services { descriptors: compiler.encode_file_descriptor_set(), scope_of, rpcs }
}

fn scope_of(path: &str) -> Option<Scope> {
    match path.strip_prefix("/everything.Everything/")? {
        "File" | "Watch" => Some(Scope::UsersRead),
        "Collect" => Some(Scope::UsersWrite),
        _ => None,
    }
}
