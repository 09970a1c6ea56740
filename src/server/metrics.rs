//! All metrics of a server, and their text.

mod calls;
mod process;

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::info::Info;

use crate::metrics::{Registry, gauge, number};
use crate::ops::Operations;

pub(super) use calls::{Calls, Series};

use super::connections::Connections;
use super::pipeline::Pipeline;

/// The content type of `OpenMetrics` 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The commit that the program was built from, as far as the build knew.
const COMMIT: &str = env!("BUILD_COMMIT");

/// The metrics of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Metrics(Arc<Registry>);

impl Metrics {
    /// Registers what every layer counts.
    pub(super) fn new(pipeline: &Arc<Pipeline>, connections: &Connections, ops: &Operations) -> Self {
        let mut registry = Registry::default();
        let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("commit", COMMIT)]);
        registry.register("usersd_build", "The program that runs", build);
        pipeline.calls().register(&mut registry);
        pipeline.limits().register(&mut registry);
        pipeline.traces().register(&mut registry);
        let (in_flight, streams) = (Arc::clone(pipeline), Arc::clone(pipeline));
        gauge(&mut registry, "usersd_calls_in_flight", "Calls that are worked on", move || {
            Some(number(in_flight.limits().in_flight()))
        });
        gauge(&mut registry, "usersd_streams_open", "Streams that are open", move || {
            Some(number(streams.limits().streams_open()))
        });
        connections.register(&mut registry);
        ops.register(&mut registry);
        process::register(&mut registry);
        Self(Arc::new(registry))
    }

    /// Returns the text of all metrics now, and its content type: `OpenMetrics` for who accepts it, else that of
    /// Prometheus.
    pub(super) fn text(&self, accept: &str) -> Result<(String, &'static str), fmt::Error> {
        let mut text = String::new();
        if accept.contains("application/openmetrics-text") {
            text::encode(&mut text, &self.0)?;
            return Ok((text, OPEN_METRICS));
        }
        prometheus_text::encode(&mut text, &self.0)?;
        Ok((text, prometheus_text::CONTENT_TYPE))
    }
}
