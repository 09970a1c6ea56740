//! gRPC itself: nothing to translate but errors, for the clients of one framework.

use http::request::Parts;
use http::{HeaderMap, Method as Verb, Request, Response, header};
use tonic::body::Body;
use tonic::{Code, Status};

use super::{Expected, Gateway, Located, Target, grpc_json, micro};
use crate::error::Error;
use crate::http::body::End;
use crate::http::coding::{Coding, GRPC_ENCODING, KNOWN};
use crate::http::reply;
use transcode::schema::Schema;

/// Longest message of health and reflection, which are names.
const MAX_NAME: usize = 4 * 1024;

/// A call in gRPC.
#[derive(Debug)]
pub(super) struct Grpc {
    /// Returns errors as the micro framework's generated clients read them.
    micro: bool,
    /// The coding of the request's message, also used for the reply. `grpc-accept-encoding` is ignored: many clients always send
    /// it, whether or not they want compression.
    coding: Option<Coding>,
}

/// The coding of a request. One that is not known is refused when the message is read.
pub(super) fn coding(headers: &HeaderMap) -> Option<Coding> {
    Coding::of(headers, GRPC_ENCODING).ok().flatten()
}

/// Encodes the status of a refused call. Lists the supported codings if the request's is unknown.
pub(super) fn refused(status: &Status) -> Response<Body> {
    let mut response: Response<Body> = status.clone().into_http();
    if reply::has_unknown_encoding(status) {
        response.headers_mut().insert("grpc-accept-encoding", KNOWN);
    }
    response
}

/// The target of a gRPC path.
pub(super) fn target<'g>(schema: &'g Schema, path: &str) -> Option<Target<'g>> {
    if let Some(method) = path.strip_prefix("/grpc.health.v1.Health/") {
        return Some(Target::Health { watch: method == "Watch" });
    }
    if path.starts_with("/grpc.reflection.") {
        return Some(Target::Reflection);
    }
    schema.method(path).map(Target::Rpc)
}

pub(super) fn locate<'g>(schema: &'g Schema, head: &Parts) -> Located<(Target<'g>, Grpc)> {
    // The micro framework's client names the content type once more, whatever that is, and no other client
    // does.
    let grpc = Grpc { micro: head.headers.contains_key("x-content-type"), coding: coding(&head.headers) };
    if let Some(target) = target(schema, head.uri.path()) {
        if head.method != Verb::POST {
            return Err(Box::new(reply::other_verb_in_text(&head.method, &[&Verb::POST])));
        }
        return Ok((target, grpc));
    }
    let unknown = Status::from(Error::MethodUnknown).into_http();
    Err(Box::new(if grpc.micro { with_micro_error("users", unknown) } else { unknown }))
}

pub(super) fn expects(target: Target<'_>, max: usize) -> Expected {
    match target {
        Target::Rpc(method) if method.client_streaming => Expected::Stream,
        Target::Rpc(_) => Expected::Message(max),
        Target::Health { .. } => Expected::Message(MAX_NAME),
        Target::Reflection => Expected::Stream,
    }
}

impl Grpc {
    pub(super) async fn answer(
        &self,
        gateway: &Gateway,
        target: Target<'_>,
        request: Request<Body>,
        end: Option<End>,
    ) -> Response<Body> {
        let mut response = gateway.serve(request, end).await;
        if let Some(coding) = self.coding {
            response = coding.compress_messages(response);
        }
        if self.micro { with_micro_error(&micro::id(target), response) } else { response }
    }

    pub(super) fn refuse(&self, target: Target<'_>, status: &Status) -> Response<Body> {
        let refused = refused(status);
        if self.micro { with_micro_error(&micro::id(target), refused) } else { refused }
    }
}

/// Generated clients of micro read the first detail of a status as the error where there is one, and cannot
/// read ours.
fn with_micro_error(id: &str, response: Response<Body>) -> Response<Body> {
    let status = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok);
    let Some(status) = status else { return response };
    let mut failed = grpc_json::refuse(id, &status);
    copy_media_type(response.headers(), failed.headers_mut());
    failed
}

fn copy_media_type(from: &HeaderMap, to: &mut HeaderMap) {
    if let Some(media) = from.get(header::CONTENT_TYPE) {
        to.insert(header::CONTENT_TYPE, media.clone());
    }
}
