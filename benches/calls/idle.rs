//! What a server costs that nobody calls, and how long its metrics take.

use std::path::Path;
use std::time::{Duration, Instant};

use super::kinds;
use crate::Result;
use crate::calls::seed::Seeded;
use crate::databases::Place;
use crate::figures::{Figure, Target, median};
use crate::options::Options;
use crate::server::{METRICS, Server};
use crate::wire::{Client, Wire};

/// Scrapes of a server that was called before, and the time for which one that is idle is watched.
const SCRAPES: usize = 200;
const IDLE: Duration = Duration::from_secs(10);

/// A server is idle once it takes less than this many percent of a CPU in that time; the longest wait for it.
const QUIET: f64 = 5.0;
const SETTLED: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_mins(3);

pub(super) async fn measure(
    options: &Options,
    dir: &Path,
    place: &Place,
    seeded: &Seeded,
) -> Result<Vec<Figure>> {
    let server = Server::usersd_with(&options.server, dir, &place.url, &[(METRICS, "127.0.0.1:0")]).await?;
    let monitor = server.monitor.ok_or("the server does not say where its metrics are")?;
    let client = Client::new();
    // Methods show from their first call on.
    for call in [kinds::read(seeded)?, kinds::read_json(seeded)] {
        call.answer(&client, server.address).await?;
    }
    eprintln!("{SCRAPES} scrapes, and {} s without a call", IDLE.as_secs());
    let mut millis = Vec::new();
    for _ in 0..SCRAPES {
        let begun = Instant::now();
        client.call(monitor, Wire::Json, "/metrics", None, "").await?;
        millis.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    wait(&server).await?;
    let percent = cpu_percent(&server, IDLE).await?;
    let mebibytes = server.mebibytes("VmRSS")?;
    server.stop().await?;
    Ok(vec![
        Figure::alone("a scrape of /metrics", "ms", median(&millis), Target::AtMost(5.0)),
        Figure::alone("idle: share of one CPU", "%", percent, Target::AtMost(0.5)),
        Figure::alone(
            "idle: resident memory after the checks of a start",
            "MiB",
            mebibytes,
            Target::AtMost(30.0),
        ),
    ])
}

/// Waits until a server is idle: it begins with a check of its file, and with what housekeeping has to do after other runs.
pub(super) async fn wait(server: &Server) -> Result<()> {
    let begun = Instant::now();
    while cpu_percent(server, SETTLED).await? > QUIET && begun.elapsed() < PATIENCE {}
    Ok(())
}

/// The share of one CPU that the server takes in that time.
async fn cpu_percent(server: &Server, watched: Duration) -> Result<f64> {
    let (before, begun) = (server.cpu_times()?, Instant::now());
    tokio::time::sleep(watched).await;
    let used = Duration::from_nanos(server.cpu_times()?.since(&before));
    Ok(used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0)
}
