//! Clients of the server's JSON form.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;

use crate::start::Result;

/// Readers at a time: more than the CPUs can serve.
const READERS: usize = 32;

/// How long a client that was refused stays away: a fraction of what it is told, so that refusals are many.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub(crate) struct Clients {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    token: String,
}

/// What came of calls, in seconds each.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) done: Vec<f64>,
    pub(crate) refused: Vec<f64>,
    pub(crate) failed: usize,
}

impl Clients {
    /// A user, and a session of hers.
    pub(crate) async fn seed(address: SocketAddr) -> Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let mut clients = Self { client, address, token: String::new() };
        let user = r#"{"username":"bench","password":"correct horse"}"#;
        clients.post("/v1/users", user.to_owned()).await?;
        let (_, body) = clients.post("/v1/sessions", user.to_owned()).await?;
        let session: serde_json::Value = serde_json::from_slice(&body)?;
        session["session"]["id"].as_str().ok_or("no session.id")?.clone_into(&mut clients.token);
        Ok(clients)
    }

    async fn post(&self, path: &str, body: String) -> Result<(StatusCode, Bytes)> {
        let request = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/json")
            .body(Full::new(body.into()))?;
        let answer = self.client.request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// One log-in. An error is what it was instead.
    pub(crate) async fn login(&self) -> std::result::Result<(), Option<StatusCode>> {
        let body = r#"{"username":"bench","password":"correct horse"}"#.to_owned();
        match self.post("/v1/sessions", body).await {
            Ok((StatusCode::OK, _)) => Ok(()),
            Ok((status, _)) => Err(Some(status)),
            Err(_) => Err(None),
        }
    }

    /// So many clients that log in for a while. What ends after it does not count as done.
    pub(crate) async fn log_in(&self, clients: usize, span: Duration) -> Seen {
        let until = Instant::now() + span;
        let mut running = JoinSet::new();
        for n in 0..clients {
            let client = self.clone();
            running.spawn(async move {
                // Not all in the same moment.
                tokio::time::sleep(Duration::from_micros(200 * n as u64)).await;
                let mut seen = Seen::default();
                while Instant::now() < until {
                    let begun = Instant::now();
                    let answer = client.login().await;
                    let took = begun.elapsed().as_secs_f64();
                    match answer {
                        Ok(()) if Instant::now() < until => seen.done.push(took),
                        Ok(()) => {}
                        Err(Some(StatusCode::TOO_MANY_REQUESTS)) => {
                            seen.refused.push(took);
                            tokio::time::sleep(PAUSE).await;
                        }
                        Err(_) => seen.failed += 1,
                    }
                }
                seen
            });
        }
        gathered(running).await
    }

    /// Readers of the session.
    pub(crate) async fn read(&self, span: Duration) -> Result<Seen> {
        let until = Instant::now() + span;
        let mut running = JoinSet::new();
        for _ in 0..READERS {
            let client = self.clone();
            running.spawn(async move {
                let body = format!(r#"{{"sessionId":"{}"}}"#, client.token);
                let mut seen = Seen::default();
                while Instant::now() < until {
                    let begun = Instant::now();
                    match client.post("/v1/sessions:read", body.clone()).await {
                        Ok((StatusCode::OK, _)) => seen.done.push(begun.elapsed().as_secs_f64()),
                        _ => seen.failed += 1,
                    }
                }
                seen
            });
        }
        let seen = gathered(running).await;
        if seen.failed > 0 { Err(format!("{} reads failed", seen.failed).into()) } else { Ok(seen) }
    }
}

async fn gathered(mut running: JoinSet<Seen>) -> Seen {
    let mut all = Seen::default();
    while let Some(seen) = running.join_next().await {
        match seen {
            Ok(seen) => {
                all.done.extend(seen.done);
                all.refused.extend(seen.refused);
                all.failed += seen.failed;
            }
            Err(_) => all.failed += 1,
        }
    }
    all.done.sort_by(f64::total_cmp);
    all.refused.sort_by(f64::total_cmp);
    all
}

impl Seen {
    pub(crate) fn p99(&self) -> f64 {
        at(&self.done, 99)
    }

    pub(crate) fn p99_refused(&self) -> f64 {
        at(&self.refused, 99)
    }
}

/// The figure at a percentile of sorted ones; 0 of none.
fn at(sorted: &[f64], percent: usize) -> f64 {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, refused, failed } = self;
        write!(f, "{} done, p50 {:.2} ms, p99 {:.2} ms", done.len(), at(done, 50) * 1e3, at(done, 99) * 1e3)?;
        write!(f, "; {} refused, p50 {:.2} ms, ", refused.len(), at(refused, 50) * 1e3)?;
        write!(f, "p99 {:.2} ms; {failed} failed", at(refused, 99) * 1e3)
    }
}
