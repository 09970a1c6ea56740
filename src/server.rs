//! The listener, and how it starts and stops.

mod background;
mod connection;
mod connections;
mod cors;
mod frames;
mod health;
mod infra;
mod limits;
mod metrics;
mod monitor;
mod outcomes;
mod pipeline;
mod protocol;
mod services;
mod streams;
mod tls;
mod unread;
mod unreadable;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::authenticator::Peer;
use crate::auth::keyring::KeyRing;
use crate::clock::Clock;
use crate::config::{AppwritePrefs, Config};
use crate::error::tally::LogLimiter;
use crate::error::{Error, Result, with_causes};
use crate::http::{Gateway, Schema, Settings};
use crate::ops::Operations;
use crate::telemetry::Traces;

use connection::Connection;
use connections::{Connections, Entry};
use frames::FrameCountingIo;
use health::Health;
use infra::Infra;
use metrics::Metrics;
use monitor::Monitor;
use pipeline::Pipeline;
use protocol::Protocol;
use unreadable::RefusalIo;

pub use services::Services;
pub use tls::{Tls, TlsError};

/// Limits the log line about connections that could not be accepted: it is due at each try.
static REFUSED: LogLimiter = LogLimiter::after(1);

/// The longest time that the shutdown waits for the last flush of the times at which keys were last used.
const FINAL_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The service, ready to be put on a listener.
#[derive(Clone)]
pub struct Server {
    pipeline: Arc<Pipeline>,
    ops: Operations,
    health: Health,
    metrics: Metrics,
    keys: KeyRing,
    tls: Option<Tls>,
    protocol: Protocol,
    connections: Connections,
    drain_delay: Duration,
    skip_drain_delay: CancellationToken,
    grace: Duration,
}

impl Server {
    /// Puts users and keys and the lifecycle of their requests together.
    pub async fn new(config: &Config, ops: Operations, keys: KeyRing, tls: Option<Tls>) -> Result<Self> {
        let services = Services::users_and_keys(ops.clone(), keys.clone(), config.http.max_body);
        Self::with_services(config, ops, keys, tls, services).await
    }

    /// As [`Server::new`], for these services.
    pub async fn with_services(
        config: &Config,
        ops: Operations,
        keys: KeyRing,
        tls: Option<Tls>,
        services: Services,
    ) -> Result<Self> {
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let health = Health::new(ops.store().health().clone(), reporter).await;
        let schema = Arc::new(Schema::decode(&services.descriptors).map_err(Error::internal)?);
        let scope_of = services.scope_of;
        let upstream = services.into_rpcs(health_service).map_err(Error::internal)?;
        let settings = Settings {
            max_body: config.http.max_body,
            appwrite_replaces_prefs: config.appwrite.prefs == AppwritePrefs::Replace,
        };
        let gateway = Gateway::new(schema, upstream, settings);
        let instance_id = std::process::id() ^ u32::try_from(Clock::System.now().seconds()).unwrap_or(0);
        let traces = Traces::new(&config.traces).map_err(Error::internal)?;
        let infra = Infra::new(config, health.clone(), ops.assertion_keys().clone());
        let pipeline = Pipeline::new(config, gateway, keys.clone(), scope_of, infra, traces, instance_id);
        let (pipeline, connections) = (Arc::new(pipeline), Connections::new(config));
        Ok(Self {
            metrics: Metrics::new(&pipeline, &connections, &ops),
            pipeline,
            ops,
            health,
            keys,
            tls,
            protocol: Protocol::new(config),
            connections,
            drain_delay: config.drain.delay,
            skip_drain_delay: CancellationToken::new(),
            grace: config.grace,
        })
    }

    /// Calls that are worked on right now.
    pub fn calls_in_flight(&self) -> usize {
        self.pipeline.limits().in_flight()
    }

    /// Streams that are open.
    pub fn streams_open(&self) -> usize {
        self.pipeline.limits().streams_open()
    }

    /// Calls that were given a permit of their caller's since the start.
    pub fn calls_admitted(&self) -> u64 {
        self.pipeline.limits().admitted()
    }

    /// Returns true while programs of this machine are served without a key, since none was ever created.
    pub fn is_local_mode(&self) -> bool {
        self.pipeline.is_local_mode()
    }

    /// Ends the wait before the listener closes when it is cancelled. Cancelled once that wait is over.
    pub fn skip_drain_delay(&self) -> &CancellationToken {
        &self.skip_drain_delay
    }

    /// Reads certificates, peppers and the country database again. What cannot be used is left as it was, with a
    /// line in the log.
    pub fn reload(&self, config: &Config) {
        if let Some(Err(error)) = self.tls.as_ref().map(Tls::refresh) {
            tracing::warn!(%error, "TLS certificates cannot be reloaded: the old ones stay in use");
        }
        if let Err(error) = self.ops.reload_peppers(config.passwords.pepper.as_deref()) {
            let error = with_causes(&error);
            tracing::warn!(error, "the peppers cannot be reloaded: the old ones stay in use");
        }
        if let Err(error) = self.ops.reload_countries(config.geoip.database.as_deref()) {
            let error = with_causes(&error);
            tracing::warn!(error, "the country database cannot be reloaded: the old one stays in use");
        }
    }

    /// Serves metrics and health on `listener`. Never returns: it goes on while the server stops.
    pub fn serve_monitor(&self, listener: TcpListener) -> impl Future<Output = ()> + use<> {
        Monitor { health: self.health.clone(), metrics: self.metrics.clone() }.serve(listener)
    }

    /// Serves on `listener` until `stop` is cancelled; then shows that it is not ready, serves on for the drain
    /// delay, and lets calls in flight end, up to the grace period.
    ///
    /// Returns whether all of them did.
    pub async fn serve(mut self, listener: TcpListener, stop: CancellationToken) -> bool {
        let (open, drain) = (TaskTracker::new(), CancellationToken::new());
        let (health, calls) = (self.health.clone(), self.pipeline.calls().clone());
        let background = background::start(&self.ops, &self.keys, self.tls.clone(), health, calls);
        self.accept_until(&listener, &open, &drain, stop.cancelled()).await;
        background.stop_showing_readiness();
        self.health.drain().await;
        let skip_drain_delay = self.skip_drain_delay.clone();
        let delay = tokio::time::timeout(self.drain_delay, skip_drain_delay.cancelled());
        self.accept_until(&listener, &open, &drain, delay).await;
        skip_drain_delay.cancel();
        drop(listener);
        let (calls, streams) = (self.calls_in_flight(), self.streams_open());
        if calls + streams > 0 {
            let grace = humantime::format_duration(self.grace);
            tracing::info!(calls, streams, %grace, "port closed, waiting for open calls to end");
        }
        self.health.end_watches().await;
        drain.cancel();
        open.close();
        let drained = tokio::time::timeout(self.grace, open.wait()).await.is_ok();
        background.stop();
        // Those of the last minute. If the database is gone, they are lost.
        let flushes = async { tokio::join!(self.keys.flush_last_used(), self.ops.flush_last_reads()) };
        let _ = tokio::time::timeout(FINAL_FLUSH_TIMEOUT, flushes).await;
        self.pipeline.traces().clone().flush().await;
        tracing::info!(
            calls = self.calls_admitted(),
            authentications = self.keys.authentications(),
            "requests since the start"
        );
        if !drained {
            tracing::warn!(
                calls = self.calls_in_flight(),
                streams = self.streams_open(),
                "the grace period is over: open calls are cancelled"
            );
        }
        drained
    }

    /// Accepts connections until `end` is ready.
    async fn accept_until(
        &self,
        listener: &TcpListener,
        open: &TaskTracker,
        drain: &CancellationToken,
        end: impl Future,
    ) {
        let mut end = std::pin::pin!(end);
        loop {
            let accepted = tokio::select! {
                biased;
                _ = &mut end => return,
                accepted = self.accept(listener, drain) => accepted,
            };
            match accepted {
                Ok(Some((stream, entry))) => {
                    open.spawn(self.clone().connection(stream, entry, drain.clone()));
                }
                Ok(None) => {}
                Err(error) => {
                    // Out of file descriptors, most likely: trying again at once would spin.
                    if let Some(times) = REFUSED.count() {
                        tracing::warn!(%error, times, "cannot accept connections");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Accepts the next connection; `None` if there was no room for it.
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
        // Replies are written whole: waiting for more to send only adds delay. Without this one caller at a time had 0.84 times as
        // many replies a second, and the CPU of a call was the same (h2load, five rounds in turns, 2026-11-26).
        let _ = stream.set_nodelay(true);
        let connection = Arc::new(Connection::new(entry, self.protocol.lifetimes));
        let address = connection.peer();
        let Some(tls) = &self.tls else {
            let peer = Peer { address, certificate: None };
            return self.serve_connection(stream, peer, connection, drain).await;
        };
        let handshake = tokio::select! {
            handshake = tokio::time::timeout_at(connection.header_deadline(), tls.accept(stream)) => handshake,
            // No request was made yet.
            () = connection.signal().cancelled() => return,
        };
        match handshake {
            Ok(Ok((stream, certificate))) => {
                let peer = Peer { address, certificate };
                self.serve_connection(stream, peer, connection, drain).await;
            }
            Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
        }
    }

    /// Answers the requests of a connection until it ends.
    async fn serve_connection<IO>(
        self,
        stream: IO,
        peer: Peer,
        connection: Arc<Connection>,
        drain: CancellationToken,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if peer.certificate.is_some() {
            connection.mark_authenticated();
        }
        let pipeline = Arc::clone(&self.pipeline);
        let shared = Arc::new((self.pipeline, Arc::clone(&connection), peer));
        let service = service_fn(move |request: Request<Incoming>| {
            let shared = Arc::clone(&shared);
            async move {
                let (pipeline, connection, peer) = &*shared;
                Ok::<_, Infallible>(pipeline.respond(request, connection, peer).await)
            }
        });
        let stream = FrameCountingIo::new(stream, Some(connection.peer()), self.protocol.limits);
        let stream = TokioIo::new(RefusalIo::new(stream, pipeline));
        let http = self.protocol.http.serve_connection(stream, service).into_owned();
        connection::run(http, &connection, &drain).await;
    }
}
