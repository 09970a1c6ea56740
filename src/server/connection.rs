//! One connection: what is open on it, how long it may last, and when it is closed.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::server::graceful::GracefulConnection;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::auth::limits::UsageCounter;
use crate::config::Config;

use super::connections::Entry;
use super::streams;

/// The time after GOAWAY in which calls that were on their way are still served, while none is open.
const MAX_FAREWELL: Duration = Duration::from_secs(5);

/// The time limits of connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetimes {
    /// The handshake and the headers of the first request together: until then a connection only holds
    /// memory.
    pub(super) header: Duration,
    /// Without a call.
    pub(super) idle: Duration,
    /// Altogether; `None`: any time.
    pub(super) age: Option<Duration>,
    /// From GOAWAY until open calls are cancelled.
    pub(super) grace: Duration,
}

impl Lifetimes {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            header: config.http.header_timeout,
            idle: config.http.idle_timeout,
            age: config.http.max_age,
            grace: config.grace,
        }
    }
}

/// The state of a connection, in the extensions of each of its requests.
#[derive(Debug)]
pub(super) struct Connection {
    /// Streams of it that have no end of their own.
    pub(super) streams: Arc<UsageCounter>,
    entry: Entry,
    accepted: Instant,
    lifetimes: Lifetimes,
    /// Requests whose reply is neither sent nor dropped, and how many there ever were.
    open: AtomicUsize,
    begun: AtomicBool,
    /// When one last began or ended, in microseconds since it was accepted.
    last: AtomicU64,
    authenticated: AtomicBool,
    /// Cancelled when the client is sent GOAWAY.
    leaving: CancellationToken,
}

/// A request of a connection, until its reply is sent or dropped.
pub(super) struct OpenRequest(Arc<Connection>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.touch();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The next step for a connection.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Wait(Instant),
    /// GOAWAY, or `Connection: close`: calls that are open end as they would.
    TellToGo,
    Close,
}

impl Connection {
    pub(super) fn new(entry: Entry, mut lifetimes: Lifetimes) -> Self {
        // Connections of a fleet that started together must not all end together.
        lifetimes.age = lifetimes.age.map(|age| entry.jitter(age));
        Self {
            streams: Arc::default(),
            entry,
            accepted: Instant::now(),
            lifetimes,
            open: AtomicUsize::new(0),
            begun: AtomicBool::new(false),
            last: AtomicU64::new(0),
            authenticated: AtomicBool::new(false),
            leaving: CancellationToken::new(),
        }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.entry.peer()
    }

    /// When the handshake and the first headers must be there.
    pub(super) fn header_deadline(&self) -> Instant {
        self.accepted + self.lifetimes.header
    }

    /// Cancelled when the connection is to make room for another, and when the server stops.
    pub(super) fn signal(&self) -> &CancellationToken {
        self.entry.signal()
    }

    /// Cancelled after GOAWAY: streams end then, so that it opens them again elsewhere.
    pub(super) fn leaving(&self) -> &CancellationToken {
        &self.leaving
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> OpenRequest {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.begun.store(true, Ordering::Relaxed);
        self.touch();
        OpenRequest(Arc::clone(self))
    }

    /// Notes that a valid key or certificate was shown, or that none is needed for what was asked: the
    /// connection is not closed any more to make room.
    pub(super) fn mark_authenticated(&self) {
        if !self.is_authenticated() && !self.authenticated.swap(true, Ordering::Relaxed) {
            self.entry.keep();
        }
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    fn touch(&self) {
        let now = u64::try_from(self.accepted.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last.fetch_max(now, Ordering::Relaxed);
    }

    /// Returns true while a call or stream is open that the connection must last for. Refusals that an
    /// anonymous client does not read do not count.
    fn is_busy(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0 && (self.is_authenticated() || self.streams.running() > 0)
    }

    /// Returns the next step at `now`. `goaway_at` is when the client was sent GOAWAY.
    fn verdict(&self, now: Instant, goaway_at: Option<Instant>) -> Verdict {
        let last = self.accepted + Duration::from_micros(self.last.load(Ordering::Relaxed));
        let aged = self.lifetimes.age.map(|age| self.accepted + age);
        if !self.begun.load(Ordering::Relaxed) {
            let header = self.header_deadline();
            // The first request does not end this wait, so it ends when a deadline of that request could be
            // over.
            let first = aged.unwrap_or(header).min(self.accepted + self.lifetimes.idle);
            let next = if now < first { first.min(header) } else { header };
            return if now < header { Verdict::Wait(next) } else { Verdict::Close };
        }
        let busy = self.is_busy();
        if let Some(goaway_at) = goaway_at {
            let cut_off = goaway_at + self.lifetimes.grace;
            let alone = if busy { now } else { last.max(goaway_at) } + MAX_FAREWELL;
            return unless(now, cut_off.min(alone), Verdict::Close);
        }
        let idle = if busy { now } else { last } + self.lifetimes.idle;
        unless(now, aged.map_or(idle, |aged| aged.min(idle)), Verdict::TellToGo)
    }
}

fn unless(now: Instant, deadline: Instant, verdict: Verdict) -> Verdict {
    if now < deadline { Verdict::Wait(deadline) } else { verdict }
}

/// Runs a connection to its end: the peer's, or ours when it is idle, too old, closed to make room, or the
/// server stops.
pub(super) async fn run<C: GracefulConnection>(http: C, state: &Connection, stop: &CancellationToken) {
    let mut http = std::pin::pin!(http);
    let mut goaway_at = None;
    let mut stopping = false;
    loop {
        let next = match state.verdict(Instant::now(), goaway_at) {
            Verdict::Wait(until) => until,
            Verdict::TellToGo => {
                http.as_mut().graceful_shutdown();
                state.leaving.cancel();
                goaway_at = Some(Instant::now());
                continue;
            }
            Verdict::Close => return,
        };
        tokio::select! {
            // How a connection ends does not matter: each call was answered or not by itself.
            _ = poll_fn(|context| streams::poll(http.as_mut(), context)) => return,
            () = sleep_until(next) => {}
            () = state.signal().cancelled(), if !stopping => {
                if !stop.is_cancelled() {
                    return;
                }
                stopping = true;
                http.as_mut().graceful_shutdown();
                state.leaving.cancel();
                goaway_at.get_or_insert_with(Instant::now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::connections::Connections;

    const HEADER: Duration = Duration::from_secs(3);

    async fn connection(idle: u64, age: Option<u64>) -> Connection {
        let entry = Connections::new(&Config::default())
            .admit("192.0.2.1:1".parse().unwrap(), &CancellationToken::new())
            .await
            .unwrap();
        let lifetimes = Lifetimes {
            header: HEADER,
            idle: Duration::from_secs(idle),
            age: age.map(Duration::from_secs),
            grace: Duration::from_secs(30),
        };
        Connection::new(entry, lifetimes)
    }

    #[tokio::test]
    async fn without_a_request_it_is_closed_when_the_time_for_headers_is_up() {
        for (idle, age) in [(60, None), (60, Some(3600)), (1, None), (60, Some(1))] {
            let connection = connection(idle, age).await;
            let mut now = connection.accepted;
            let mut waits = 0;
            while let Verdict::Wait(until) = connection.verdict(now, None) {
                assert!(until > now, "a wait that is over spins: idle {idle}, age {age:?}");
                (now, waits) = (until, waits + 1);
            }
            assert_eq!(connection.verdict(now, None), Verdict::Close);
            assert_eq!(now, connection.header_deadline(), "after {waits} waits: idle {idle}, age {age:?}");
        }
    }

    #[tokio::test]
    async fn with_a_request_it_lasts_until_it_is_idle() {
        let connection = Arc::new(connection(60, None).await);
        let open = connection.begin();
        drop(open);
        let now = connection.header_deadline();
        assert!(matches!(connection.verdict(now, None), Verdict::Wait(until) if until > now));
        let later = now + Duration::from_mins(1);
        assert_eq!(connection.verdict(later, None), Verdict::TellToGo);
    }
}
