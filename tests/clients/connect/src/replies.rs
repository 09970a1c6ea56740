//! What the service replies: one message or a stream, made from the description that came with the request.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::{Message as _, Name};
use prost_types::Any;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use usersd::domain::caller::Caller;

use crate::pb::conformance_payload::RequestInfo;
use crate::pb::unary_response_definition::Response as Wanted;
use crate::pb::{
    BidiStreamRequest, ConformancePayload, Error, Header, StreamResponseDefinition, UnaryResponseDefinition,
};

/// Trailers of a reply that succeeds.
#[derive(Clone)]
pub(crate) struct Trailers(pub(crate) HeaderMap);

/// What a request was, with its messages so far.
pub(crate) fn request_info<T>(request: &Request<T>, requests: Vec<Any>) -> RequestInfo {
    let headers = request.metadata().as_ref();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let values = |name| headers.get_all(name).iter().map(text).collect();
    let request_headers =
        headers.keys().map(|name| Header { name: name.to_string(), value: values(name) }).collect();
    let deadline = request.extensions().get::<Caller>().and_then(|caller| caller.deadline);
    let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_millis());
    let timeout_ms = timeout.and_then(|timeout| timeout.try_into().ok());
    RequestInfo { request_headers, timeout_ms, requests, connect_get_info: None }
}

/// A message with its type.
pub(crate) fn any(message: &impl Name) -> Result<Any, Status> {
    Any::from_msg(message).map_err(|error| Status::internal(error.to_string()))
}

/// The reply of an RPC that has one.
pub(crate) async fn single(
    definition: Option<UnaryResponseDefinition>,
    info: RequestInfo,
) -> Result<Response<ConformancePayload>, Status> {
    let definition = definition.unwrap_or_default();
    wait(definition.response_delay_ms).await;
    let (mut headers, mut trailers) = (HeaderMap::new(), HeaderMap::new());
    add(&definition.response_headers, &mut headers)?;
    add(&definition.response_trailers, &mut trailers)?;
    let data = match definition.response {
        Some(Wanted::Error(error)) => {
            add(&definition.response_trailers, &mut headers)?;
            return Err(status(error, Some(info), headers)?);
        }
        Some(Wanted::ResponseData(data)) => data,
        None => Vec::new(),
    };
    let payload = ConformancePayload { data, request_info: Some(info) };
    Ok(response(payload, headers, trailers))
}

/// The replies of a stream.
pub(crate) struct Replies {
    definition: StreamResponseDefinition,
    data: std::vec::IntoIter<Vec<u8>>,
    /// What the first reply tells of the request, with the messages that came before it.
    info: Option<RequestInfo>,
    /// What was not read yet of the requests, of which each is replied to by itself.
    messages: Option<Streaming<BidiStreamRequest>>,
}

impl Replies {
    pub(crate) fn new(
        mut definition: StreamResponseDefinition,
        info: RequestInfo,
        messages: Option<Streaming<BidiStreamRequest>>,
    ) -> Self {
        let data = std::mem::take(&mut definition.response_data).into_iter();
        Self { definition, data, info: Some(info), messages }
    }

    /// The response, whose headers are sent at once.
    pub(crate) fn into_response<R: 'static>(
        self,
        reply: fn(ConformancePayload) -> R,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>>, Status> {
        let (mut headers, mut trailers) = (HeaderMap::new(), HeaderMap::new());
        add(&self.definition.response_headers, &mut headers)?;
        add(&self.definition.response_trailers, &mut trailers)?;
        let replies = stream::try_unfold(self, move |mut replies| async move {
            Ok(replies.next().await?.map(|payload| (reply(payload), replies)))
        });
        Ok(response(Box::pin(replies), headers, trailers))
    }

    /// The next reply, or `None` after the last.
    async fn next(&mut self) -> Result<Option<ConformancePayload>, Status> {
        let first = self.info.is_some();
        let mut info = self.info.take();
        if let Some(messages) = self.messages.as_mut().filter(|_| !first) {
            match messages.message().await? {
                Some(message) => {
                    info = Some(RequestInfo { requests: vec![any(&message)?], ..RequestInfo::default() });
                }
                None => self.messages = None,
            }
        }
        let Some(data) = self.data.next() else {
            let error = self.definition.error.take();
            let info = info.filter(|_| first);
            return error.map_or(Ok(None), |error| Err(status(error, info, HeaderMap::new())?));
        };
        wait(self.definition.response_delay_ms).await;
        Ok(Some(ConformancePayload { data, request_info: info }))
    }
}

async fn wait(millis: u32) {
    tokio::time::sleep(Duration::from_millis(millis.into())).await;
}

fn response<T>(message: T, headers: HeaderMap, trailers: HeaderMap) -> Response<T> {
    let mut response = Response::new(message);
    *response.metadata_mut() = MetadataMap::from_headers(headers);
    response.extensions_mut().insert(Trailers(trailers));
    response
}

/// A failure with its details, and with what the request was if no reply told it.
fn status(error: Error, info: Option<RequestInfo>, headers: HeaderMap) -> Result<Status, Status> {
    let message = error.message.unwrap_or_default();
    let mut details = error.details;
    details.extend(info.as_ref().map(any).transpose()?);
    let encoded = tonic_types::pb::Status { code: error.code, message: message.clone(), details };
    let metadata = MetadataMap::from_headers(headers);
    let (code, encoded) = (Code::from_i32(error.code), encoded.encode_to_vec().into());
    Ok(Status::with_details_and_metadata(code, message, encoded, metadata))
}

/// Appends what the suite wants to see in a reply.
fn add(wanted: &[Header], headers: &mut HeaderMap) -> Result<(), Status> {
    for Header { name, value } in wanted {
        let name = HeaderName::try_from(name).map_err(|error| Status::internal(error.to_string()))?;
        for value in value {
            let value = HeaderValue::try_from(value).map_err(|error| Status::internal(error.to_string()))?;
            headers.append(&name, value);
        }
    }
    Ok(())
}
