//! The suite's service. It replies as each request asks it to, and tells what it saw of the request.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tonic::{Request, Response, Status, Streaming};

use usersd::domain::scope::Scope;
use usersd::http::Upstream;
use usersd::server::Services;

use crate::pb::conformance_service_server::{ConformanceService, ConformanceServiceServer};
use crate::pb::{
    BidiStreamRequest, BidiStreamResponse, ClientStreamRequest, ClientStreamResponse, IdempotentUnaryRequest,
    IdempotentUnaryResponse, ServerStreamRequest, ServerStreamResponse, UnaryRequest, UnaryResponse,
    UnimplementedRequest, UnimplementedResponse,
};
use crate::replies::{Replies, Trailers, any, request_info, single};

const PREFIX: &str = "/connectrpc.conformance.v1.ConformanceService/";

/// The service, whose messages have at most `max` bytes.
pub(crate) fn services(max: usize) -> Services {
    let suite = Arc::new(Suite);
    let mut rpcs = Upstream::default();
    rpcs.add(WithTrailers(
        ConformanceServiceServer::from_arc(Arc::clone(&suite)).max_decoding_message_size(max),
    ));
    rpcs.add_unary(
        "/connectrpc.conformance.v1.ConformanceService/Unary",
        &suite,
        |suite, request| async move { suite.unary(request).await.map(trailers_as_headers) },
    );
    rpcs.add_unary(
        "/connectrpc.conformance.v1.ConformanceService/IdempotentUnary",
        &suite,
        |suite, request| async move { suite.idempotent_unary(request).await.map(trailers_as_headers) },
    );
    rpcs.add_unary(
        "/connectrpc.conformance.v1.ConformanceService/Unimplemented",
        &suite,
        |suite, request| async move { suite.unimplemented(request).await },
    );
    let descriptors = include_bytes!(concat!(env!("OUT_DIR"), "/suite.descriptors")).to_vec();
    let scope_of = |path: &str| path.starts_with(PREFIX).then_some(Scope::UsersRead);
    Services { descriptors, scope_of, rpcs }
}

struct Suite;

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ConformanceService for Suite {
    type ServerStreamStream = BoxStream<ServerStreamResponse>;
    type BidiStreamStream = BoxStream<BidiStreamResponse>;

    async fn unary(&self, request: Request<UnaryRequest>) -> Result<Response<UnaryResponse>, Status> {
        let info = request_info(&request, vec![any(request.get_ref())?]);
        let payload = single(request.into_inner().response_definition, info).await?;
        Ok(payload.map(|payload| UnaryResponse { payload: Some(payload) }))
    }

    async fn idempotent_unary(
        &self,
        request: Request<IdempotentUnaryRequest>,
    ) -> Result<Response<IdempotentUnaryResponse>, Status> {
        let info = request_info(&request, vec![any(request.get_ref())?]);
        let payload = single(request.into_inner().response_definition, info).await?;
        Ok(payload.map(|payload| IdempotentUnaryResponse { payload: Some(payload) }))
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<ClientStreamRequest>>,
    ) -> Result<Response<ClientStreamResponse>, Status> {
        let mut info = request_info(&request, Vec::new());
        let (mut messages, mut definition) = (request.into_inner(), None);
        while let Some(message) = messages.message().await? {
            info.requests.push(any(&message)?);
            if info.requests.len() == 1 {
                definition = message.response_definition;
            }
        }
        let payload = single(definition, info).await?;
        Ok(payload.map(|payload| ClientStreamResponse { payload: Some(payload) }))
    }

    async fn server_stream(
        &self,
        request: Request<ServerStreamRequest>,
    ) -> Result<Response<Self::ServerStreamStream>, Status> {
        let info = request_info(&request, vec![any(request.get_ref())?]);
        let definition = request.into_inner().response_definition.unwrap_or_default();
        let replies = Replies::new(definition, info, None);
        replies.into_response(|payload| ServerStreamResponse { payload: Some(payload) })
    }

    async fn bidi_stream(
        &self,
        request: Request<Streaming<BidiStreamRequest>>,
    ) -> Result<Response<Self::BidiStreamStream>, Status> {
        let mut info = request_info(&request, Vec::new());
        let mut messages = request.into_inner();
        let first = messages.message().await?.unwrap_or_default();
        info.requests.push(any(&first)?);
        if !first.full_duplex {
            while let Some(message) = messages.message().await? {
                info.requests.push(any(&message)?);
            }
        }
        let rest = first.full_duplex.then_some(messages);
        let replies = Replies::new(first.response_definition.unwrap_or_default(), info, rest);
        replies.into_response(|payload| BidiStreamResponse { payload: Some(payload) })
    }

    async fn unimplemented(
        &self,
        _: Request<UnimplementedRequest>,
    ) -> Result<Response<UnimplementedResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// The response as Connect has unary ones: with its trailers among the headers.
fn trailers_as_headers<R>(mut response: Response<R>) -> Response<R> {
    if let Some(Trailers(trailers)) = response.extensions_mut().remove() {
        for (name, value) in &trailers {
            let name = http::HeaderName::try_from(format!("trailer-{name}"));
            response.metadata_mut().as_mut().append(name.expect("a name of a header"), value.clone());
        }
    }
    response
}

/// The generated service, whose replies may have [`Trailers`]: tonic lets a service add none but to a failure.
#[derive(Clone)]
struct WithTrailers(ConformanceServiceServer<Suite>);

impl NamedService for WithTrailers {
    const NAME: &'static str = ConformanceServiceServer::<Suite>::NAME;
}

impl tower::Service<http::Request<Body>> for WithTrailers {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let response = self.0.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            let Some(Trailers(added)) = response.extensions_mut().remove() else { return Ok(response) };
            Ok(response.map(|body| {
                Body::new(body.map_frame(move |frame| match frame.into_trailers() {
                    Ok(mut trailers) => {
                        trailers.extend(added.clone());
                        Frame::trailers(trailers)
                    }
                    Err(frame) => frame,
                }))
            }))
        })
    }
}
