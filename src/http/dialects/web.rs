//! gRPC-Web: gRPC whose trailers are part of the body, translated by tonic-web.

use std::convert::Infallible;

use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderValue, Method as Verb, Request, Response, Version, header};
use tonic::Status;
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::{Expected, Gateway, Located, Target, grpc};
use crate::error::Error;
use crate::http::body::End;
use crate::http::coding::Coding;
use transcode::schema::Schema;

/// A call in gRPC-Web, with what the form of its reply depends on.
#[derive(Debug)]
pub(super) struct Web {
    verb: Verb,
    version: Version,
    content_type: Option<HeaderValue>,
    accept: Option<HeaderValue>,
    coding: Option<Coding>,
}

pub(super) fn locate<'g>(schema: &'g Schema, head: &Parts) -> Located<(Target<'g>, Web)> {
    let web = Web {
        verb: head.method.clone(),
        version: head.version,
        content_type: head.headers.get(header::CONTENT_TYPE).cloned(),
        accept: head.headers.get(header::ACCEPT).cloned(),
        coding: grpc::coding(&head.headers),
    };
    let target = grpc::target(schema, head.uri.path()).filter(|_| web.verb == Verb::POST);
    match target {
        Some(target) => Ok((target, web)),
        None => Err(Box::new(web.refuse(&Error::MethodUnknown.into()))),
    }
}

impl Web {
    /// As gRPC, but a message may come in base64, which is a third longer.
    pub(super) fn expects(&self, target: Target<'_>, max: usize) -> Expected {
        let text = |media: &HeaderValue| media.as_bytes().starts_with(b"application/grpc-web-text");
        match grpc::expects(target, max) {
            Expected::Message(max) if self.content_type.as_ref().is_some_and(text) => {
                Expected::Message(max.saturating_add(max / 3 + 16))
            }
            expected => expected,
        }
    }

    pub(super) fn refuse(&self, status: &Status) -> Response<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = self.verb.clone();
        *request.version_mut() = self.version;
        for (name, value) in [(header::CONTENT_TYPE, &self.content_type), (header::ACCEPT, &self.accept)] {
            if let Some(value) = value {
                request.headers_mut().insert(name, value.clone());
            }
        }
        let refused = translated(request, async |_| grpc::refused(status)).now_or_never();
        refused.unwrap_or_else(|| grpc::refused(status))
    }

    pub(super) async fn answer(
        &self,
        gateway: &Gateway,
        request: Request<Body>,
        end: Option<End>,
    ) -> Response<Body> {
        let (mut end, coding) = (Some(end), self.coding);
        let serve = |request| {
            let response = gateway.serve(request, end.take().flatten());
            response.map(move |response| match coding {
                Some(coding) => coding.compress_messages(response),
                None => response,
            })
        };
        translated(request, serve).await
    }
}

/// The response of `serve`, which takes and gives gRPC.
async fn translated<F>(request: Request<Body>, mut serve: impl FnMut(Request<Body>) -> F) -> Response<Body>
where
    F: Future<Output = Response<Body>>,
{
    let serve = service_fn(|request| serve(request).map(Ok::<_, Infallible>));
    match GrpcWebLayer::new().layer(serve).oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
