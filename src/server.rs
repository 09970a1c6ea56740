//! The listener, and how it starts and stops.

mod stack;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::Instrument as _;

use crate::clock::Clock;
use crate::config::{AppwritePrefs, Config};
use crate::error::{Error, Result};
use crate::http::{Front, Schema, Settings};
use crate::ops::Operations;

use stack::Stack;

/// The header that names a request in the logs of caller and server.
const REQUEST_ID: &str = "x-request-id";

/// How long an HTTP/1.1 connection may wait for its next request and the whole of its headers, and how long the
/// first request of any connection may take to come: after that it only holds memory. (hyper has no time-out
/// while it tells HTTP/1 from HTTP/2.) Clients commonly keep idle connections for less than the first.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
const FIRST_REQUEST: Duration = Duration::from_secs(30);

/// Largest headers of a request, in bytes: keys, tokens and tracing fit many times.
const MAX_HEADERS: u32 = 16 * 1024;

/// Streams one HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 256;

/// A connection that is silent this long is asked whether it still lives, and dropped if it does not say so
/// within the time-out.
const KEEPALIVE: Duration = Duration::from_mins(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// What health is asked about: the server as a whole, and its service.
const SERVICES: [&str; 2] = ["", "users.Users"];

/// The service, ready to be put on a listener.
#[derive(Clone)]
pub struct Server {
    front: Front<Stack>,
    stack: Stack,
    ops: Operations,
    health: HealthReporter,
    connections: Arc<Semaphore>,
    grace: Duration,
    requests: Arc<AtomicU64>,
    /// Tells this process's request ids from those of other replicas.
    replica: u32,
}

impl Server {
    /// Puts the RPCs and what stands before them together.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if the proto has options or descriptors that cannot be served.
    pub async fn new(config: &Config, ops: Operations) -> Result<Self> {
        let (health, health_service) = tonic_health::server::health_reporter();
        for service in SERVICES {
            health.set_service_status(service, ServingStatus::Serving).await;
        }
        let stack = Stack::new(config, ops.clone(), health_service).map_err(Error::internal)?;
        let schema = Arc::new(Schema::decode(crate::DESCRIPTOR_SET).map_err(Error::internal)?);
        let settings = Settings {
            max_body: config.http_max_body,
            appwrite_replaces_prefs: config.appwrite_prefs == AppwritePrefs::Replace,
        };
        Ok(Self {
            front: Front::new(schema, stack.clone(), settings),
            stack,
            ops,
            health,
            connections: Arc::new(Semaphore::new(config.limits_connections)),
            grace: config.grace,
            requests: Arc::default(),
            replica: std::process::id() ^ u32::try_from(Clock::System.now().seconds()).unwrap_or(0),
        })
    }

    /// Calls that are worked on right now.
    #[must_use]
    pub fn calls_in_flight(&self) -> usize {
        self.stack.in_flight()
    }

    /// Serves on `listener` until `stop` is cancelled; then lets calls in flight end, up to the grace period.
    ///
    /// Returns whether all of them did.
    pub async fn serve(mut self, listener: TcpListener, stop: CancellationToken) -> bool {
        let graceful = GracefulShutdown::new();
        let http = Arc::new(protocol());
        let housekeeping = tokio::spawn(housekeep(self.ops.clone(), stop.clone()));
        loop {
            // A place is taken before the connection: what does not fit waits in the kernel's queue.
            let next = async {
                let place = Arc::clone(&self.connections).acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                next = next => next,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let connection =
                        self.clone().connection(Arc::clone(&http), stream, peer, graceful.watcher());
                    tokio::spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: trying again at once would spin.
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        for service in SERVICES {
            self.health.set_service_status(service, ServingStatus::NotServing).await;
        }
        drop(listener);
        // Who watches has the news waiting, and then the end of the stream: it would hold the server otherwise.
        for service in SERVICES {
            self.health.clear_service_status(service).await;
        }
        let drained = tokio::time::timeout(self.grace, graceful.shutdown()).await.is_ok();
        housekeeping.abort();
        if !drained {
            tracing::warn!(
                calls = self.calls_in_flight(),
                "the grace period is over: what is open is cut off"
            );
        }
        drained
    }

    async fn connection(
        self,
        http: Arc<Builder<TokioExecutor>>,
        stream: TcpStream,
        peer: SocketAddr,
        watcher: Watcher,
    ) {
        // Replies are written whole: waiting for more to send only adds delay.
        let _ = stream.set_nodelay(true);
        let info = TcpConnectInfo { local_addr: stream.local_addr().ok(), remote_addr: Some(peer) };
        let begun = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&begun);
        let service = service_fn(move |request: Request<Incoming>| {
            seen.store(true, Ordering::Relaxed);
            let (server, info) = (self.clone(), info.clone());
            async move { Ok::<_, Infallible>(server.answer(request, info).await) }
        });
        let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
        let mut connection = std::pin::pin!(watcher.watch(connection));
        let silent = tokio::select! {
            _ = &mut connection => return,
            () = tokio::time::sleep(FIRST_REQUEST) => !begun.load(Ordering::Relaxed),
        };
        if !silent {
            // How a connection ends is the peer's affair; each call was answered or not for itself.
            let _ = connection.await;
        }
    }

    async fn answer(self, request: Request<Incoming>, info: TcpConnectInfo) -> Response<Body> {
        let mut request = request.map(Body::new);
        let id = self.request_id(request.headers());
        let span =
            tracing::error_span!("call", id = id.to_str().unwrap_or_default(), path = request.uri().path());
        request.headers_mut().insert(REQUEST_ID, id.clone());
        request.extensions_mut().insert(info);
        let mut response = self.front.handle(request).instrument(span).await;
        response.headers_mut().insert(REQUEST_ID, id);
        response
    }

    /// The caller's own id for the request, if it fits in a log line, or a new one.
    fn request_id(&self, headers: &HeaderMap) -> HeaderValue {
        let fits = |id: &&HeaderValue| {
            (1..=64).contains(&id.len()) && id.as_bytes().iter().all(|b| b.is_ascii_graphic() && *b != b'"')
        };
        if let Some(id) = headers.get(REQUEST_ID).filter(fits) {
            return id.clone();
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        HeaderValue::try_from(format!("{:08x}-{number:x}", self.replica))
            .unwrap_or_else(|_| HeaderValue::from_static("none"))
    }
}

/// HTTP/1.1 and HTTP/2 as we speak them.
fn protocol() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(64)
        .max_buf_size(MAX_HEADERS as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(MAX_STREAMS)
        .adaptive_window(false);
    builder
}

async fn housekeep(ops: Operations, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(ops.clean_up_every());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = ops.clean_up().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "housekeeping failed, and will be tried again"
            );
        }
    }
}
