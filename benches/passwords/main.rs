//! What signing in costs: `cargo bench --bench passwords`. Takes some minutes.
//!
//! Beside the server and its clients nothing else should run: what is measured are ratios of one run, but a hash needs a
//! CPU of its own to be compared with another one.

#![expect(clippy::print_stdout, reason = "the figures are what a person runs this for")]

#[path = "../calls/bars.rs"]
mod bars;
mod load;
#[expect(dead_code, reason = "CPU times are what `calls` measures")]
#[path = "../calls/server.rs"]
mod server;
#[expect(dead_code, reason = "no PostgreSQL and no numbers are asked for here")]
#[path = "../calls/start.rs"]
mod start;
mod timing;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bars::{Bar, median, print_bars};
use load::{Clients, Seen};
use server::Server;
use start::{Result, exit_code, stoppable};

/// The cost that the service has by default.
const COST: u32 = 12;

/// How long each load lasts.
const SPAN: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> ExitCode {
    exit_code("passwords", stoppable(Box::pin(run())).await)
}

async fn run() -> Result<bool> {
    let mut bars = timing::measure().await?;
    let dir = tempfile::Builder::new().prefix("usersd-bench-").tempdir()?;
    let server = start_server(dir.path()).await?;
    let clients = Clients::seed(server.address).await?;
    bars.extend(alone(&clients).await?);
    bars.extend(saturated(&clients).await?);
    bars.extend(beside_reads(&clients).await?);
    bars.extend(overloaded(&clients, &server).await?);
    server.stop().await?;
    print_bars(&bars);
    Ok(true)
}

/// The release server with its own settings, but for limits that a load from one address would meet.
async fn start_server(dir: &Path) -> Result<Server> {
    let mut command = tokio::process::Command::new(Path::new(env!("CARGO_BIN_EXE_usersd")));
    let url = format!("sqlite://{}?mode=rwc", dir.join("usersd.db").display());
    command.current_dir(dir).args(["--listen", "127.0.0.1:0", "--database", &url]);
    command.env("USERSD_LIMITS_CALLS", "2000").env("USERSD_LIMITS_CALLS_PER_CALLER", "2000");
    Server::start(command).await
}

/// Hashes a second that the crate `bcrypt` makes on so many threads, one at a time on each.
fn crate_rate(threads: usize, span: Duration) -> f64 {
    let begun = Instant::now();
    let made: usize = std::thread::scope(|scope| {
        let count = || {
            let mut made = 0;
            while begun.elapsed() < span {
                std::hint::black_box(bcrypt::bcrypt(COST, [7; 16], b"correct horse\0"));
                made += 1;
            }
            made
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(count)).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).sum()
    });
    float(made) / begun.elapsed().as_secs_f64()
}

/// One log-in after the other, and hashes of the crate in between.
async fn alone(clients: &Clients) -> Result<Vec<Bar>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        let begun = Instant::now();
        clients.login().await.map_err(|seen| format!("a log-in alone: {seen:?}"))?;
        ours.push(begun.elapsed().as_secs_f64());
        theirs.push(1.0 / crate_rate(1, Duration::from_millis(1)));
    }
    println!("alone: a log-in {:.0} ms, a hash {:.0} ms", median(&ours) * 1e3, median(&theirs) * 1e3);
    let figure = median(&ours) / median(&theirs);
    Ok(vec![Bar { text: "a log-in alone / one hash".to_owned(), figure, unit: "", limit: 1.05 }])
}

/// 64 clients that log in without pause.
async fn saturated(clients: &Clients) -> Result<Vec<Bar>> {
    let cpus = std::thread::available_parallelism()?.get();
    let theirs = crate_rate(cpus, SPAN / 2);
    let seen = clients.log_in(64, SPAN).await;
    let theirs = f64::midpoint(theirs, crate_rate(cpus, SPAN / 2));
    let ours = float(seen.done.len()) / SPAN.as_secs_f64();
    println!("saturated: {ours:.1} log-ins/s, the crate verifies {theirs:.1}/s on {cpus} CPUs; {seen}");
    let figure = theirs / ours;
    let text = "hashes/s of the crate / log-ins/s (1/3: three times)".to_owned();
    Ok(vec![Bar { text, figure, unit: "", limit: 1.0 / 3.0 }])
}

/// Reads with and without 64 clients that log in; and log-ins while reads take all they can get.
async fn beside_reads(clients: &Clients) -> Result<Vec<Bar>> {
    let idle = clients.read(SPAN).await?;
    let (beside, logins) = tokio::join!(clients.read(SPAN), clients.log_in(64, SPAN));
    let beside = beside?;
    println!("reads alone: {idle}\nreads beside log-ins: {beside}\nlog-ins beside reads: {logins}");
    let count = |seen: &Seen| float(seen.done.len());
    Ok(vec![
        Bar {
            text: "reads alone / reads beside log-ins (1/0.85)".to_owned(),
            figure: count(&idle) / count(&beside),
            unit: "",
            limit: 1.0 / 0.85,
        },
        Bar {
            text: "p99 of reads beside log-ins / alone".to_owned(),
            figure: beside.p99() / idle.p99(),
            unit: "",
            limit: 2.0,
        },
    ])
}

/// Ten times as many clients as are served within the longest wait.
async fn overloaded(clients: &Clients, server: &Server) -> Result<Vec<Bar>> {
    clients.log_in(1_000, SPAN).await;
    let before = server.resident_mebibytes()?;
    let seen = clients.log_in(1_000, SPAN).await;
    let grown = server.resident_mebibytes()? - before;
    println!("overloaded: {seen}; the server grew by {grown:.1} MiB from {before:.1}");
    if seen.failed > 0 {
        return Err(format!("{} log-ins were neither done nor refused", seen.failed).into());
    }
    Ok(vec![
        Bar {
            text: "p99 of a refusal".to_owned(),
            figure: seen.p99_refused() * 1e3,
            unit: " ms",
            limit: 5.0,
        },
        Bar { text: "growth in a second overload".to_owned(), figure: grown, unit: " MiB", limit: 4.0 },
    ])
}

#[expect(clippy::cast_precision_loss, reason = "a count for a ratio")]
fn float(count: usize) -> f64 {
    count as f64
}
