//! Sends spans to a collector by OTLP over gRPC. Calls never wait for it: what finds no room in the queue is dropped and
//! counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span, SpanData,
    SpanProcessor,
};

use super::spans::CallSpan;
use crate::config::TracesSettings;
use crate::error::tally::LogLimiter;
use crate::metrics::{ByLabel, Counter, Registry};

/// The most spans that wait to be sent.
const MAX_QUEUE: usize = 4_096;

/// The time between batches, unless one fills up before.
const SEND_EVERY: Duration = Duration::from_secs(1);

/// The longest time that a batch may take on its way, with all tries.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time that the last spans may take on their way when the server stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Limits the log line about spans that cannot be sent.
static SEND_FAILED: LogLimiter = LogLimiter::after(1);

/// The outcome of a span, as its number.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Sent,
    Failed,
    Dropped,
}

/// Makes spans and sends them, if the settings name a collector. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Traces {
    counts: Counts,
    sender: Option<(SdkTracer, SdkTracerProvider)>,
}

/// The counts of the spans that have ended.
#[derive(Clone, Debug)]
struct Counts {
    by_outcome: ByLabel<Counter, 3>,
    queued: Arc<AtomicUsize>,
}

impl Counts {
    fn add(&self, outcome: Outcome, spans: usize) {
        self.by_outcome.of(outcome as usize).inc_by(spans as u64);
    }
}

impl Traces {
    /// Connects when there is something to send. To be called within a runtime.
    pub(crate) fn new(settings: &TracesSettings) -> Result<Self, ExporterBuildError> {
        let by_outcome = ByLabel::new("outcome", ["sent", "failed", "dropped"], Counter::default);
        let counts = Counts { by_outcome, queued: Arc::default() };
        let sender = match &settings.endpoint {
            Some(endpoint) => Some(sender(endpoint, settings.one_in, counts.clone())?),
            None => None,
        };
        Ok(Self { counts, sender })
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Spans of calls by what became of them";
        registry.register("usersd_trace_spans", help, self.counts.by_outcome.clone());
    }

    /// Begins the span of a call with these headers; `None` if it is not sampled.
    pub(crate) fn begin(&self, headers: &HeaderMap) -> Option<Arc<CallSpan>> {
        let (tracer, _) = self.sender.as_ref()?;
        CallSpan::begin(tracer, headers)
    }

    /// Sends the spans that are left, for as long as [`FLUSH_TIMEOUT`].
    pub(crate) async fn flush(self) {
        let Some((_, provider)) = self.sender else { return };
        let (done, flushed) = tokio::sync::oneshot::channel();
        // It blocks, and what it waits for needs the runtime.
        std::thread::spawn(move || done.send(provider.shutdown_with_timeout(FLUSH_TIMEOUT)));
        if !matches!(flushed.await, Ok(Ok(()))) {
            tracing::warn!("the last spans could not be sent to traces.endpoint");
        }
    }
}

fn sender(
    endpoint: &str,
    one_in: u32,
    counts: Counts,
) -> Result<(SdkTracer, SdkTracerProvider), ExporterBuildError> {
    let exporter =
        SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(SEND_TIMEOUT).build()?;
    let batches =
        BatchConfigBuilder::default().with_max_queue_size(MAX_QUEUE).with_scheduled_delay(SEND_EVERY);
    let inner = BatchSpanProcessor::builder(CountingExporter { inner: exporter, counts: counts.clone() })
        .with_batch_config(batches.build())
        .build();
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    // A share of 0 for 0.
    let root = Sampler::TraceIdRatioBased(f64::from(one_in).recip() * f64::from(one_in.min(1)));
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BoundedQueue { inner, counts })
        .with_resource(Resource::builder().with_service_name("usersd").with_attribute(version).build())
        .with_sampler(Sampler::ParentBased(Box::new(root)))
        .build();
    Ok((provider.tracer("usersd"), provider))
}

/// Limits the queue and counts the spans that it drops, which the library does not tell.
#[derive(Debug)]
struct BoundedQueue {
    inner: BatchSpanProcessor,
    counts: Counts,
}

impl SpanProcessor for BoundedQueue {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.counts.queued.fetch_add(1, Ordering::Relaxed) < MAX_QUEUE {
            self.inner.on_end(span);
        } else {
            self.counts.queued.fetch_sub(1, Ordering::Relaxed);
            self.counts.add(Outcome::Dropped, 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what becomes of batches.
#[derive(Debug)]
struct CountingExporter {
    inner: SpanExporter,
    counts: Counts,
}

impl opentelemetry_sdk::trace::SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.counts.queued.fetch_sub(spans, Ordering::Relaxed);
        let result = self.inner.export(batch).await;
        self.counts.add(if result.is_ok() { Outcome::Sent } else { Outcome::Failed }, spans);
        if let Err(error) = &result
            && let Some(times) = SEND_FAILED.count()
        {
            tracing::warn!(%error, times, "spans cannot be sent to traces.endpoint");
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::net::TcpListener;

    use super::*;
    use crate::telemetry::CallStatus;

    #[tokio::test]
    async fn spans_that_find_no_room_are_counted_and_a_silent_collector_holds_up_neither_calls_nor_the_stop()
    {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Some(format!("http://{}", silent.local_addr().unwrap()));
        let traces = Traces::new(&TracesSettings { endpoint, ..TracesSettings::default() }).unwrap();
        for _ in 0..3 * MAX_QUEUE {
            traces.begin(&HeaderMap::new()).unwrap().end(CallStatus { code: "OK", reason: "" });
        }
        let Counts { by_outcome, queued } = traces.counts.clone();
        let dropped = by_outcome.of(Outcome::Dropped as usize).get();
        assert!(dropped > 0 && queued.load(Ordering::Relaxed) <= MAX_QUEUE, "{dropped} dropped");
        let begun = Instant::now();
        traces.flush().await;
        assert!(begun.elapsed() < SEND_TIMEOUT, "{:?}", begun.elapsed());
    }
}
