//! Clients of the server's JSON form.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;

use crate::Result;

/// Readers at a time: more than the CPUs can serve.
const READERS: usize = 32;

/// Users who sign in, so that no account has more attempts at a time than its limit lets it have.
const USERS: usize = 256;

/// Users that are created at a time.
const AT_A_TIME: usize = 64;

/// How long a client that was refused stays away: a fraction of what it is told, so that refusals are many.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub(crate) struct Clients {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    token: String,
    /// Log-ins that were done, by all clones.
    done: Arc<AtomicUsize>,
}

/// What came of a log-in.
pub(crate) enum Login {
    Done,
    /// The hasher had no time for it.
    Refused,
    Failed(String),
}

/// What came of calls, in seconds each.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) done: Vec<f64>,
    pub(crate) refused: Vec<f64>,
    /// What went wrong, one text each.
    pub(crate) failed: Vec<String>,
}

impl Clients {
    /// Users, and a session of one.
    pub(crate) async fn seed(address: SocketAddr) -> Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let mut clients = Self { client, address, token: String::new(), done: Arc::default() };
        let creations = (0..USERS).map(|n| clients.post("/v1/users", credentials(n)));
        let mut answers = stream::iter(creations).buffer_unordered(AT_A_TIME);
        while let Some((status, body)) = answers.try_next().await? {
            if status != StatusCode::OK {
                return Err(format!("a user was not created: {status} {body:?}").into());
            }
        }
        drop(answers);
        let (_, body) = clients.post("/v1/sessions", credentials(0)).await?;
        let session: serde_json::Value = serde_json::from_slice(&body)?;
        session["session"]["id"].as_str().ok_or("no session.id")?.clone_into(&mut clients.token);
        Ok(clients)
    }

    /// What is found at a path, as JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<(StatusCode, serde_json::Value)> {
        let request = Request::get(format!("http://{}{path}", self.address)).body(Full::new(Bytes::new()))?;
        let answer = self.client.request(request).await?;
        let status = answer.status();
        Ok((status, serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?))
    }

    pub(crate) async fn post(&self, path: &str, body: String) -> Result<(StatusCode, Bytes)> {
        let request = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/json")
            .body(Full::new(body.into()))?;
        let answer = self.client.request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// A log-in of the user with this number, or one in turn.
    pub(crate) async fn login(&self, user: usize) -> Login {
        match self.post("/v1/sessions", credentials(user % USERS)).await {
            Ok((StatusCode::OK, _)) => {
                self.done.fetch_add(1, Ordering::Relaxed);
                Login::Done
            }
            Ok((StatusCode::TOO_MANY_REQUESTS, body)) if holds(&body, b"HASHER_BUSY") => Login::Refused,
            Ok((status, body)) => Login::Failed(format!("{status} {body:?}")),
            Err(error) => Login::Failed(error.to_string()),
        }
    }

    /// Log-ins that come at so many a second, evenly, whether or not those before are done, each
    /// timed from when it was to come.
    pub(crate) async fn arrive(&self, rate: f64, span: Duration) -> Seen {
        let begun = Instant::now();
        let mut running = JoinSet::new();
        for n in 0_u32.. {
            let due = Duration::from_secs_f64(f64::from(n) / rate);
            if due > span {
                break;
            }
            let due = begun + due;
            tokio::time::sleep_until(due.into()).await;
            let client = self.clone();
            running.spawn(async move {
                let mut seen = Seen::default();
                let login = client.login(n as usize).await;
                seen.note(login, due.elapsed());
                seen
            });
        }
        gathered(running).await
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
                    let sent = Instant::now();
                    let login = client.login(n).await;
                    let refused = matches!(login, Login::Refused);
                    if Instant::now() < until || !matches!(login, Login::Done) {
                        seen.note(login, sent.elapsed());
                    }
                    if refused {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                seen
            });
        }
        gathered(running).await
    }

    /// Log-ins done so far.
    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
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
                        Ok((status, body)) => seen.failed.push(format!("{status} {body:?}")),
                        Err(error) => seen.failed.push(error.to_string()),
                    }
                }
                seen
            });
        }
        let seen = gathered(running).await;
        seen.none_failed()?;
        Ok(seen)
    }
}

pub(crate) fn credentials(user: usize) -> String {
    format!(r#"{{"username":"bench-{user}","password":"correct horse"}}"#)
}

fn holds(body: &[u8], text: &[u8]) -> bool {
    body.windows(text.len()).any(|found| found == text)
}

async fn gathered(mut running: JoinSet<Seen>) -> Seen {
    let mut all = Seen::default();
    while let Some(seen) = running.join_next().await {
        match seen {
            Ok(seen) => {
                all.done.extend(seen.done);
                all.refused.extend(seen.refused);
                all.failed.extend(seen.failed);
            }
            Err(error) => all.failed.push(error.to_string()),
        }
    }
    all.done.sort_by(f64::total_cmp);
    all.refused.sort_by(f64::total_cmp);
    all
}

impl Seen {
    fn note(&mut self, login: Login, took: Duration) {
        match login {
            Login::Done => self.done.push(took.as_secs_f64()),
            Login::Refused => self.refused.push(took.as_secs_f64()),
            Login::Failed(why) => self.failed.push(why),
        }
    }

    /// An error with the first of what went wrong.
    pub(crate) fn none_failed(&self) -> Result<()> {
        match &self.failed[..] {
            [] => Ok(()),
            [first, ..] => Err(format!("{} calls failed, the first with: {first}", self.failed.len()).into()),
        }
    }

    /// An error unless there were refusals, and nothing else went wrong.
    pub(crate) fn some_refused(&self) -> Result<()> {
        if self.refused.is_empty() {
            return Err("it was no overload: nothing was refused".into());
        }
        self.none_failed()
    }

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
        write!(f, "p99 {:.2} ms; {} failed", at(refused, 99) * 1e3, failed.len())
    }
}
