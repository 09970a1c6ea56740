//! The second listener: `/metrics`, `/livez` and `/readyz`, for the operator's machines and not for callers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Method as Verb, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tonic::body::Body;

use super::health::{Health, Probe, reply};
use super::metrics::Metrics;

/// Connections at a time: a scraper has one, and a few probes.
const MAX_CONNECTIONS: usize = 64;

/// The time of one connection, which is for one request: who sends or reads slowly must not keep others out.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers the requests of the second listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Monitor {
    pub(super) health: Health,
    pub(super) metrics: Metrics,
}

impl Monitor {
    /// Serves on `listener`. Never returns.
    pub(super) async fn serve(self, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        // Never closed.
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let monitor = self.clone();
            tokio::spawn(async move {
                monitor.connection(stream).await;
                drop(permit);
            });
        }
    }

    async fn connection(self, stream: TcpStream) {
        let service = service_fn(|request: Request<Incoming>| {
            std::future::ready(Ok::<_, Infallible>(self.answer(&request)))
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).keep_alive(false);
        // A connection that broke, or took too long, is the client's affair.
        let _ = tokio::time::timeout(TIMEOUT, http.serve_connection(TokioIo::new(stream), service)).await;
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        if let Some(probe) = Probe::of(path) {
            return self.health.answer(probe, request.method());
        }
        if path != "/metrics" || !matches!(*request.method(), Verb::GET | Verb::HEAD) {
            return reply(
                StatusCode::NOT_FOUND,
                "text/plain",
                "see /metrics, /livez and /readyz\n".to_owned(),
            );
        }
        let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        match self.metrics.text(accept.unwrap_or_default()) {
            Ok((text, media_type)) => reply(StatusCode::OK, media_type, text),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be encoded");
                reply(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", String::new())
            }
        }
    }
}
