//! The listener, and how it starts and stops.

mod chores;
mod connection;
mod connections;
mod frames;
mod limits;
mod protocol;
mod stack;
mod tls;
mod unread;
mod until;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
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
use crate::http::{Front, Permits, Schema, Settings};
use crate::ops::Operations;

use connection::Connection;
use connections::{Connections, Entry};
use frames::Counted;
use protocol::Protocol;
use stack::Stack;
use unread::Unread;

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
    connections: Connections,
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
            max_body: config.http.max_body,
            appwrite_replaces_prefs: config.appwrite.prefs == AppwritePrefs::Replace,
        };
        Ok(Self {
            front: Front::new(schema, stack.clone(), settings),
            stack,
            ops,
            health,
            keys,
            tls,
            protocol: Protocol::new(config),
            connections: Connections::new(config),
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
        let (open, drain) = (TaskTracker::new(), CancellationToken::new());
        let chores = chores::start(&self.ops, &self.keys, self.tls.clone(), self.health.clone());
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&listener, &drain) => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok(Some((stream, entry))) => {
                    open.spawn(self.clone().connection(stream, entry, drain.clone()));
                }
                Ok(None) => {}
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
        self.stack.end_streams();
        drain.cancel();
        open.close();
        let drained = tokio::time::timeout(self.grace, open.wait()).await.is_ok();
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

    /// The next connection that there is room for; `None` if one came that there is none for.
    async fn accept(
        &self,
        listener: &TcpListener,
        drain: &CancellationToken,
    ) -> std::io::Result<Option<(TcpStream, Entry)>> {
        let (stream, peer) = listener.accept().await?;
        let entry = self.connections.admit(peer, drain).await;
        Ok(entry.map(|entry| (stream, entry)))
    }

    async fn connection(self, stream: TcpStream, entry: Entry, drain: CancellationToken) {
        // Replies are written whole: waiting for more to send only adds delay.
        let _ = stream.set_nodelay(true);
        let local_addr = stream.local_addr().ok();
        let connection = Arc::new(Connection::new(entry, self.protocol.lifetimes));
        let address = connection.peer();
        let info = TcpConnectInfo { local_addr, remote_addr: Some(address) };
        let Some(tls) = &self.tls else {
            return self.converse(stream, info, None, connection, drain).await;
        };
        let shaken = tokio::select! {
            shaken = tokio::time::timeout_at(connection.header_deadline(), tls.accept(stream)) => shaken,
            // Nothing was asked for yet.
            () = connection.signal().cancelled() => return,
        };
        match shaken {
            Ok(Ok((stream, peer))) => self.converse(stream, info, peer, connection, drain).await,
            Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
        }
    }

    /// Answers what comes on a connection until it ends.
    async fn converse<IO>(
        self,
        stream: IO,
        info: TcpConnectInfo,
        peer: Option<Peer>,
        connection: Arc<Connection>,
        drain: CancellationToken,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if peer.is_some() {
            connection.name();
        }
        let protocol = self.protocol.clone();
        let state = Arc::clone(&connection);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let server = self.clone();
            let extensions = request.extensions_mut();
            extensions.insert(info.clone());
            Permits::of(extensions).keep(state.begin());
            extensions.insert(Arc::clone(&state));
            if let Some(peer) = &peer {
                extensions.insert(peer.clone());
            }
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let stream = TokioIo::new(Counted::new(stream, Some(connection.peer()), protocol.allowed));
        let http = protocol.http.serve_connection(stream, service).into_owned();
        connection::run(http, &connection, &drain).await;
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let (mut request, unread) = Unread::lend(request);
        let permits = Permits::of(request.extensions_mut());
        let id = self.request_id(request.headers());
        let span =
            tracing::error_span!("call", id = id.to_str().unwrap_or_default(), path = request.uri().path());
        request.headers_mut().insert(REQUEST_ID, id.clone());
        let mut response = if has_a_host(&request) {
            self.front.handle(request).instrument(span).await
        } else {
            crate::http::malformed("HTTP/1.1 asks for one Host header")
        };
        response.headers_mut().insert(REQUEST_ID, id);
        unread.settle(&mut response).await;
        permits.held_by(response)
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

/// HTTP/1.1 names the host once (RFC 9112 §3.2): of two, one of us could look at the wrong one.
fn has_a_host(request: &Request<Body>) -> bool {
    request.version() != Version::HTTP_11 || request.headers().get_all(HOST).iter().count() == 1
}
