//! The listener, and how it starts and stops.

mod chores;
mod frames;
mod stack;
mod tls;

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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::Instrument as _;

use crate::auth::keyring::KeyRing;
use crate::auth::layer::Peer;
use crate::clock::Clock;
use crate::config::{AppwritePrefs, Config};
use crate::error::tally::Throttle;
use crate::error::{Error, Result};
use crate::http::{Front, Schema, Settings};
use crate::ops::Operations;

use frames::{Allowed, Counted};
use stack::Stack;

pub use tls::{Tls, TlsError};

/// The header that names a request in the logs of caller and server.
const REQUEST_ID: &str = "x-request-id";

/// What health is asked about: the server as a whole, and its services.
const SERVICES: [&str; 3] = ["", "users.Users", "users.Keys"];

/// For the line that tells of connections that could not be accepted: it is due at each try.
static REFUSED: Throttle = Throttle::new();

/// How long the end waits to note when keys were last used.
const LAST_NOTE: Duration = Duration::from_secs(1);

/// The service, ready to be put on a listener.
#[derive(Clone)]
pub struct Server {
    front: Front<Stack>,
    stack: Stack,
    ops: Operations,
    health: HealthReporter,
    keys: KeyRing,
    tls: Option<Tls>,
    protocol: Protocol,
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
    pub async fn new(config: &Config, ops: Operations, keys: KeyRing, tls: Option<Tls>) -> Result<Self> {
        let (health, health_service) = tonic_health::server::health_reporter();
        for service in SERVICES {
            health.set_service_status(service, ServingStatus::Serving).await;
        }
        let stack = Stack::new(config, ops.clone(), keys.clone(), health_service).map_err(Error::internal)?;
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
            keys,
            tls,
            protocol: Protocol::new(config),
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

    /// Whether programs of this machine are served without a key, since there never was one.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.stack.is_open()
    }

    /// Serves on `listener` until `stop` is cancelled; then lets calls in flight end, up to the grace period.
    ///
    /// Returns whether all of them did.
    pub async fn serve(mut self, listener: TcpListener, stop: CancellationToken) -> bool {
        let graceful = GracefulShutdown::new();
        let chores = chores::start(&self.ops, &self.keys, self.tls.clone(), self.health.clone());
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
                    let connection = self.clone().connection(stream, peer, graceful.watcher(), stop.clone());
                    tokio::spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: trying again at once would spin.
                    if let Some(times) = REFUSED.due() {
                        tracing::warn!(%error, times, "cannot accept connections");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        chores.stop_showing_readiness();
        for service in SERVICES {
            self.health.set_service_status(service, ServingStatus::NotServing).await;
        }
        drop(listener);
        // Who watches has the news waiting, and then the end of the stream: it would hold the server otherwise.
        for service in SERVICES {
            self.health.clear_service_status(service).await;
        }
        let drained = tokio::time::timeout(self.grace, graceful.shutdown()).await.is_ok();
        chores.stop();
        // The last minute's; the database may be gone, and then nobody can help it.
        let _ = tokio::time::timeout(LAST_NOTE, self.keys.note_use()).await;
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
        stream: TcpStream,
        address: SocketAddr,
        watcher: Watcher,
        stop: CancellationToken,
    ) {
        // Replies are written whole: waiting for more to send only adds delay.
        let _ = stream.set_nodelay(true);
        let info = TcpConnectInfo { local_addr: stream.local_addr().ok(), remote_addr: Some(address) };
        let deadline = Instant::now() + self.protocol.header_timeout;
        let Some(tls) = &self.tls else {
            return self.converse(stream, info, None, watcher, deadline).await;
        };
        let shaken = tokio::select! {
            shaken = tokio::time::timeout_at(deadline, tls.accept(stream)) => shaken,
            // Nobody has asked for anything yet.
            () = stop.cancelled() => return,
        };
        match shaken {
            Ok(Ok((stream, peer))) => self.converse(stream, info, peer, watcher, deadline).await,
            Ok(Err(error)) => tracing::debug!(%address, %error, "no TLS connection came about"),
            Err(_) => tracing::debug!(%address, "no TLS connection came about in time"),
        }
    }

    /// Answers what comes on a connection until it ends.
    async fn converse<IO>(
        self,
        stream: IO,
        info: TcpConnectInfo,
        peer: Option<Peer>,
        watcher: Watcher,
        deadline: Instant,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let begun = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&begun);
        let peer_address = info.remote_addr;
        let protocol = self.protocol.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            seen.store(true, Ordering::Relaxed);
            let server = self.clone();
            request.extensions_mut().insert(info.clone());
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let stream = TokioIo::new(Counted::new(stream, peer_address, protocol.allowed));
        let connection = protocol.http.serve_connection(stream, service).into_owned();
        let mut connection = std::pin::pin!(watcher.watch(connection));
        // hyper has no time-out while it tells HTTP/1 from HTTP/2.
        let silent = tokio::select! {
            _ = &mut connection => return,
            () = tokio::time::sleep_until(deadline) => !begun.load(Ordering::Relaxed),
        };
        if !silent {
            // How a connection ends is the peer's affair; each call was answered or not for itself.
            let _ = connection.await;
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let mut request = request.map(Body::new);
        let id = self.request_id(request.headers());
        let span =
            tracing::error_span!("call", id = id.to_str().unwrap_or_default(), path = request.uri().path());
        request.headers_mut().insert(REQUEST_ID, id.clone());
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
#[derive(Clone)]
struct Protocol {
    http: Arc<Builder<TokioExecutor>>,
    allowed: Allowed,
    /// How long the handshake and the headers of the first request may take together: until then a connection only
    /// holds memory.
    header_timeout: Duration,
}

impl Protocol {
    fn new(config: &Config) -> Self {
        let mut http = Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(config.http_idle_timeout)
            .max_headers(64)
            .max_buf_size(config.http_max_headers);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(config.http_keepalive)
            .keep_alive_timeout(config.http_keepalive_timeout)
            .max_header_list_size(u32::try_from(config.http_max_headers).unwrap_or(u32::MAX))
            .max_concurrent_streams(config.http_max_streams)
            .adaptive_window(false);
        Self {
            http: Arc::new(http),
            allowed: Allowed { resets: config.http_max_resets, pings: config.http_max_pings },
            header_timeout: config.http_header_timeout,
        }
    }
}
