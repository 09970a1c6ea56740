//! The health of the server: one state for `grpc.health.v1`, for `/livez` and for `/readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderValue, Method as Verb, Response, StatusCode, header};
use http_body_util::Full;
use tonic::body::Body;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::http::other_verb;
use crate::store::Health as Database;

/// The names that gRPC's health can be asked about: the server as a whole, and its services.
const SERVICES: [&str; 4] = ["", "users.Users", "users.Keys", "users.Namespaces"];

/// Questions about the server's health over plain HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// `/livez`: is a restart needed?
    Live,
    /// `/readyz`: may calls come?
    Ready,
}

impl Probe {
    /// The question that a path asks.
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/livez" => Some(Self::Live),
            "/readyz" => Some(Self::Ready),
            _ => None,
        }
    }
}

/// The health of the server. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Health {
    database: Database,
    draining: Arc<AtomicBool>,
    grpc: HealthReporter,
}

impl Health {
    pub(super) async fn new(database: Database, grpc: HealthReporter) -> Self {
        for service in SERVICES {
            grpc.set_service_status(service, ServingStatus::Serving).await;
        }
        Self { database, draining: Arc::default(), grpc }
    }

    /// The reasons for which calls cannot be served, in words that any client may read.
    fn problems(&self) -> Vec<&'static str> {
        let state = self.database.subscribe();
        let state = state.borrow();
        let problems = [
            (self.draining.load(Ordering::Relaxed), "the server is stopping"),
            (state.unusable.is_some(), "the database's file cannot be used"),
            (state.silent.is_some(), "the database does not answer"),
            (state.unwritable.is_some(), "the database takes no writes"),
        ];
        problems.into_iter().filter_map(|(is_so, problem)| is_so.then_some(problem)).collect()
    }

    /// Answers a probe: 200, or 503 with what is wrong. The process lives while it answers: a restart mends no
    /// database.
    pub(super) fn answer(&self, probe: Probe, verb: &Verb) -> Response<Body> {
        if !matches!(*verb, Verb::GET | Verb::HEAD) {
            return other_verb(verb, &[&Verb::GET]);
        }
        let problems = self.problems();
        let (status, word) = match probe {
            Probe::Live => (StatusCode::OK, "alive"),
            Probe::Ready if problems.is_empty() => (StatusCode::OK, "ready"),
            Probe::Ready => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        };
        let text = serde_json::json!({ "status": word, "problems": problems }).to_string();
        reply(status, "application/json", text)
    }

    /// Follows the database. The server as a whole, whose name is empty, lives without it: restarting it would
    /// not help. Never returns.
    pub(super) async fn follow(&self) {
        let mut state = self.database.subscribe();
        loop {
            let ready = state.borrow_and_update().is_ready();
            let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
            for service in SERVICES.into_iter().filter(|service| !service.is_empty()) {
                self.grpc.set_service_status(service, status).await;
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    /// Shows that the server is about to stop.
    pub(super) async fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        for service in SERVICES {
            self.grpc.set_service_status(service, ServingStatus::NotServing).await;
        }
    }

    /// Ends the streams of those who watch. They have the news waiting, and would hold the server otherwise.
    pub(super) async fn end_watches(&mut self) {
        for service in SERVICES {
            self.grpc.clear_service_status(service).await;
        }
    }
}

/// A reply of a listener's own.
pub(super) fn reply(status: StatusCode, media_type: &'static str, text: String) -> Response<Body> {
    let length = HeaderValue::from(text.len());
    let mut response = Response::new(Body::new(Full::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
