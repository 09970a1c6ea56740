//! Spans of calls, as a collector receives them.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use usersd::domain::scope::Scopes;
use usersd::pb::LoginRequest;

use crate::support::{Backend, PASSWORD, Replica, Service, ada, create};

crate::on_every_backend!(
    a_call_has_spans_in_the_trace_of_its_caller,
    a_call_that_fails_has_a_span_with_its_reason,
    a_stranger_begins_no_trace,
    the_caller_decides_whether_its_call_is_sampled,
    calls_of_no_trace_are_sampled_by_the_settings,
);

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Keeps the spans that it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let spans = resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        self.0.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A replica that sends its spans to a collector.
struct Traced {
    replica: Replica,
    collector: Collector,
}

impl Traced {
    async fn start(service: &Service, one_in: u32) -> Self {
        let collector = Collector::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server =
            tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        let replica = service.another(|config| {
            config.traces.endpoint = Some(address);
            config.traces.one_in = one_in;
        });
        Self { replica: replica.await, collector }
    }

    /// Logs in with that `traceparent` if there is one; returns `traceresponse`.
    async fn login(&self, parent: Option<String>, password: &str) -> (Result<(), Status>, Option<String>) {
        let login =
            LoginRequest { username: "ada".into(), password: password.into(), ..LoginRequest::default() };
        let mut request = Request::new(login);
        if let Some(parent) = parent {
            request.metadata_mut().insert("traceparent", parent.parse().unwrap());
        }
        let reply = self.replica.users.clone().login(request).await;
        let metadata = reply.as_ref().map_or_else(Status::metadata, Response::metadata);
        let header = metadata.get("traceresponse").map(|value| value.to_str().unwrap().to_owned());
        (reply.map(drop), header)
    }

    /// Stops the replica; returns all spans that it sent.
    async fn spans(self) -> Vec<Span> {
        self.replica.stop.cancel();
        assert!(self.replica.running.await.unwrap());
        let spans = self.collector.0.lock().unwrap();
        spans.clone()
    }
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

/// The text of an attribute.
fn attribute<'s>(span: &'s Span, key: &str) -> Option<&'s str> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn named<'s>(spans: &'s [Span], name: &str) -> &'s Span {
    let found = spans.iter().find(|span| span.name == name);
    found.unwrap_or_else(|| panic!("{name}: {:?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>()))
}

async fn a_call_has_spans_in_the_trace_of_its_caller(service: &Service) {
    create(service, ada()).await;
    let traced = Traced::start(service, 1).await;
    let (reply, header) = traced.login(Some(parent("01")), PASSWORD).await;
    reply.unwrap();
    let spans = traced.spans().await;

    let call = named(&spans, "users.Users/Login");
    assert_eq!(
        (hex::encode(&call.trace_id), hex::encode(&call.parent_span_id)),
        (TRACE.into(), PARENT.into())
    );
    assert_eq!(header, Some(format!("00-{TRACE}-{}-01", hex::encode(&call.span_id))));
    assert_eq!(call.kind(), SpanKind::Server);
    assert_eq!(attribute(call, "rpc.method"), Some("users.Users/Login"));
    assert_eq!(attribute(call, "rpc.response.status_code"), Some("OK"));
    assert_eq!(attribute(call, "error.type"), None);

    let within: Vec<_> = spans.iter().filter(|span| span.span_id != call.span_id).collect();
    for span in &within {
        assert_eq!((&span.trace_id, &span.parent_span_id), (&call.trace_id, &call.span_id), "{span:?}");
        assert!(span.start_time_unix_nano >= call.start_time_unix_nano);
    }
    assert_eq!(named(&spans, "hash password").kind(), SpanKind::Internal);
    let select = named(&spans, "select users");
    assert_eq!(select.kind(), SpanKind::Client);
    let system = if service.backend == Backend::Sqlite { "sqlite" } else { "postgresql" };
    assert_eq!(attribute(select, "db.system.name"), Some(system));
    assert_eq!(attribute(select, "db.operation.name"), Some("select"));
    assert_eq!(attribute(select, "db.collection.name"), Some("users"));
    assert!(attribute(select, "db.query.text").unwrap().contains("FROM \"users\""));
    for name in ["begin", "insert sessions", "commit"] {
        named(&spans, name);
    }
    let shown = format!("{spans:?}");
    for value in [PASSWORD, "\"ada\"", "ada@", "ses_"] {
        assert!(!shown.contains(value), "{value}: {shown}");
    }
}

async fn a_call_that_fails_has_a_span_with_its_reason(service: &Service) {
    create(service, ada()).await;
    let traced = Traced::start(service, 1).await;
    let (reply, header) = traced.login(None, "wrong password").await;
    reply.unwrap_err();
    assert!(header.is_some(), "it begins a trace");
    service.execute("ALTER TABLE users RENAME TO gone").await;
    traced.login(Some(parent("01")), PASSWORD).await.0.unwrap_err();
    service.execute("ALTER TABLE gone RENAME TO users").await;
    let spans = traced.spans().await;

    let calls: Vec<_> = spans.iter().filter(|span| span.kind() == SpanKind::Server).collect();
    let ends = calls.iter().map(|call| {
        let status = call.status.as_ref().map(opentelemetry_proto::tonic::trace::v1::Status::code);
        (attribute(call, "rpc.response.status_code").unwrap(), attribute(call, "error.type").unwrap(), status)
    });
    let want = [
        ("UNAUTHENTICATED", "BAD_CREDENTIALS", Some(StatusCode::Unset)),
        ("INTERNAL", "INTERNAL", Some(StatusCode::Error)),
    ];
    assert_eq!(ends.collect::<Vec<_>>(), want);
    let failed =
        spans.iter().find(|span| span.name == "select users" && attribute(span, "error.type").is_some());
    assert_eq!(failed.unwrap().parent_span_id, calls[1].span_id);
}

async fn a_stranger_begins_no_trace(service: &Service) {
    let traced = Traced::start(service, 1).await;
    service.key("default", Scopes::ALL).await;
    traced.replica.keys.refresh().await.unwrap();
    for parent in [None, Some(parent("01"))] {
        let (reply, header) = traced.login(parent, PASSWORD).await;
        assert_eq!(reply.unwrap_err().code(), Code::Unauthenticated);
        assert_eq!(header, None);
    }
    assert_eq!(traced.spans().await, []);
}

async fn the_caller_decides_whether_its_call_is_sampled(service: &Service) {
    create(service, ada()).await;
    let traced = Traced::start(service, 1).await;
    let (reply, header) = traced.login(Some(parent("00")), PASSWORD).await;
    reply.unwrap();
    assert_eq!(header, None);
    assert_eq!(traced.spans().await, []);
    let traced = Traced::start(service, 0).await;
    traced.login(Some(parent("01")), PASSWORD).await.0.unwrap();
    named(&traced.spans().await, "users.Users/Login");
}

async fn calls_of_no_trace_are_sampled_by_the_settings(service: &Service) {
    create(service, ada()).await;
    let traced = Traced::start(service, 0).await;
    for no_parent in [None, Some("00-0-0-01".to_owned())] {
        let (reply, header) = traced.login(no_parent, PASSWORD).await;
        reply.unwrap();
        assert_eq!(header, None);
    }
    assert_eq!(traced.spans().await, []);
}
