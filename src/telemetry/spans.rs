//! Spans of calls, where the settings name a collector: of the call, of its hash, and of each of its statements.
//!
//! A call belongs to the trace that its `traceparent` names (W3C Trace Context), else it begins one. A call that is not
//! sampled has no spans; without a collector nothing is made at all.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _,
};
use opentelemetry::{Context, KeyValue, StringValue};
use opentelemetry_sdk::trace::SdkTracer;

use super::CallStatus;

/// The header that names the trace that a call belongs to.
pub(crate) const TRACE_PARENT: &str = "traceparent";

/// The header with the notes of other systems about a trace.
const TRACE_STATE: &str = "tracestate";

/// The length up to which it must be passed on (W3C Trace Context §3.3.1.5); longer ones are dropped.
const MAX_TRACE_STATE: usize = 512;

/// Codes with which a server's span has failed; the others are the caller's own mistakes (semantic conventions of gRPC).
const FAULTS: [&str; 6] =
    ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];

/// The span of a call that is sampled, the parent of those within it.
#[derive(Debug)]
pub(crate) struct CallSpan {
    tracer: SdkTracer,
    context: Context,
}

/// A span within a call, which ends when it is dropped. In a box, so that the futures that hold one grow little.
#[derive(Debug)]
pub(crate) struct Span(Box<opentelemetry_sdk::trace::Span>);

impl CallSpan {
    /// Begins the span of a call with these headers; `None` if it is not sampled.
    pub(super) fn begin(tracer: &SdkTracer, headers: &HeaderMap) -> Option<Arc<Self>> {
        let parent = match remote_parent(headers) {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let builder = tracer.span_builder("request").with_kind(SpanKind::Server);
        let span = tracer.build_with_context(builder, &parent);
        let sampled = span.is_recording();
        let context = Context::new().with_span(span);
        sampled.then(|| Arc::new(Self { tracer: tracer.clone(), context }))
    }

    /// The value of `traceresponse`, by which the caller finds this span.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let span = self.context.span();
        let span = span.span_context();
        HeaderValue::try_from(format!("00-{}-{}-01", span.trace_id(), span.span_id())).ok()
    }

    /// The id of its trace.
    pub(super) fn trace_id(&self) -> String {
        self.context.span().span_context().trace_id().to_string()
    }

    /// Begins a span of work of this process.
    pub(crate) fn begin_work(&self, name: &'static str) -> Span {
        self.child(name.into(), SpanKind::Internal)
    }

    /// Begins a span of a request to another system.
    pub(crate) fn begin_request(&self, name: String) -> Span {
        self.child(name.into(), SpanKind::Client)
    }

    fn child(&self, name: Cow<'static, str>, kind: SpanKind) -> Span {
        let builder = self.tracer.span_builder(name).with_kind(kind);
        Span(Box::new(self.tracer.build_with_context(builder, &self.context)))
    }

    /// Names the span by its RPC.
    pub(super) fn name(&self, method: &'static str, dialect: &'static str) {
        let span = self.context.span();
        span.update_name(method);
        span.set_attribute(KeyValue::new("rpc.system.name", "grpc"));
        span.set_attribute(KeyValue::new("rpc.method", method));
        span.set_attribute(KeyValue::new("usersd.dialect", dialect));
    }

    /// Ends the span.
    pub(super) fn end(&self, CallStatus { code, reason }: CallStatus) {
        let span = self.context.span();
        span.set_attribute(KeyValue::new("rpc.response.status_code", code));
        if code != "OK" {
            span.set_attribute(KeyValue::new("error.type", if reason.is_empty() { code } else { reason }));
        }
        if FAULTS.contains(&code) {
            span.set_status(Status::error(reason));
        }
        span.end();
    }
}

impl Span {
    /// Adds an attribute. It must hold nothing that a caller sent.
    pub(crate) fn set(&mut self, key: &'static str, value: impl Into<StringValue>) {
        self.0.set_attribute(KeyValue::new(key, value.into()));
    }

    /// Marks it as failed, by an error of a known kind.
    pub(crate) fn fail(&mut self, kind: &'static str) {
        self.set("error.type", kind);
        self.0.set_status(Status::error(kind));
    }
}

/// The trace's id in a `traceparent`.
pub(super) fn trace_id(header: &HeaderValue) -> Option<&str> {
    parts(header).map(|(id, ..)| id)
}

/// The ids of trace and span and the flags in a `traceparent`: version, 32 digits, 16 digits, 2 digits.
fn parts(header: &HeaderValue) -> Option<(&str, &str, &str)> {
    let mut parts = header.to_str().ok()?.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let digits = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let given = |text: &str| text.bytes().any(|b| b != b'0');
    // Later versions may have more parts; 255 is none.
    let version = digits(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    let whole = version && digits(trace, 32) && digits(span, 16) && digits(flags, 2);
    (whole && given(trace) && given(span)).then_some((trace, span, flags))
}

/// The span that the caller names as the parent.
fn remote_parent(headers: &HeaderMap) -> Option<SpanContext> {
    let (trace, span, flags) = parts(headers.get(TRACE_PARENT)?)?;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let state = headers.get(TRACE_STATE).filter(|state| state.len() <= MAX_TRACE_STATE);
    let state = state.and_then(|state| state.to_str().ok()?.parse::<TraceState>().ok());
    Some(SpanContext::new(trace, span, flags, true, state.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_traceparent_has_a_trace() {
        let id = |text| trace_id(&HeaderValue::from_static(text)).map(str::len);
        assert_eq!(id("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), Some(32));
        assert_eq!(id("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"), Some(32));
        for wrong in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_parent_has_the_flag_and_the_state_of_its_caller() {
        let mut headers = HeaderMap::new();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
        headers.insert(TRACE_PARENT, HeaderValue::from_static(parent));
        headers.insert(TRACE_STATE, HeaderValue::from_static("vendor=1"));
        let parent = remote_parent(&headers).unwrap();
        assert!(parent.is_remote() && parent.is_sampled());
        assert_eq!(parent.trace_state().get("vendor"), Some("1"));
        headers.insert(TRACE_STATE, HeaderValue::from_static("=,="));
        assert!(remote_parent(&headers).is_some(), "a wrong state does not cost the trace");
    }
}
