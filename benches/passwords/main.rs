//! What signing in costs: `cargo bench --bench passwords`. Takes some minutes.
//!
//! Beside the server and its clients nothing else should run: what is measured are ratios of one run, but a hash needs a
//! CPU of its own to be compared with another one.

#![expect(clippy::print_stdout, reason = "the figures are what a person runs this for")]

#[path = "../calls/bars.rs"]
mod bars;
mod compare;
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
use load::{Clients, Login};
use server::Server;
use start::{Result, exit_code, stoppable};

/// The cost that the service has by default.
const COST: u32 = 12;

/// How long each load lasts.
const SPAN: Duration = Duration::from_secs(15);

/// How long each of two loads lasts that take turns.
const TURN: Duration = Duration::from_secs(4);

/// Loads that are compared with each other take turns, so many times.
const ROUNDS: usize = 5;

const HELP: &str = "\
usage: cargo bench --bench passwords -- [part ...] | --before PATH

  timing     whether time tells who exists
  alone      one log-in beside one hash
  saturated  64 clients that log in without pause
  reads      reading sessions with and without 64 clients that log in
  overload   ten times the log-ins that fit, and a crowd that does not take no for an answer

Without a part: all of them. With --before an older build is measured beside the new one, in turns. Exits with 1 if a bar is missed.";

const PARTS: [&str; 5] = ["timing", "alone", "saturated", "reads", "overload"];

#[tokio::main]
async fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [flag, before] = &asked[..]
        && flag == "--before"
    {
        let compared = async { Ok(print_bars(&compare::compare(Path::new(before)).await?)) };
        return exit_code("passwords", stoppable(Box::pin(compared)).await);
    }
    if let Some(unknown) = asked.iter().find(|part| !PARTS.contains(&part.as_str())) {
        let is_help = unknown == "--help";
        println!("{}{HELP}", if is_help { String::new() } else { format!("{unknown} is no part\n\n") });
        return if is_help { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    exit_code("passwords", stoppable(Box::pin(run(&asked))).await)
}

async fn run(asked: &[String]) -> Result<bool> {
    let wanted = |part: &str| asked.is_empty() || asked.iter().any(|asked| asked == part);
    let mut bars = Vec::new();
    if wanted("timing") {
        bars.extend(timing::measure().await?);
    }
    if !PARTS[1..].iter().any(|part| wanted(part)) {
        return Ok(print_bars(&bars));
    }
    let dir = tempfile::Builder::new().prefix("usersd-bench-").tempdir()?;
    let server = start_server(Path::new(env!("CARGO_BIN_EXE_usersd")), dir.path()).await?;
    let clients = Clients::seed(server.address).await?;
    if wanted("alone") {
        bars.extend(alone(&clients).await?);
    }
    if wanted("saturated") {
        bars.extend(saturated(&clients).await?);
    }
    if wanted("reads") {
        bars.extend(beside_reads(&clients).await?);
    }
    if wanted("overload") {
        bars.extend(overloaded(&clients, &server).await?);
    }
    server.stop().await?;
    Ok(print_bars(&bars))
}

/// The release server with its own settings, but for limits that a load from one address would meet.
async fn start_server(binary: &Path, dir: &Path) -> Result<Server> {
    let mut command = tokio::process::Command::new(binary.canonicalize()?);
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
    for n in 0..12 {
        let begun = Instant::now();
        let Login::Done = clients.login(n).await else { return Err("a log-in alone failed".into()) };
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
    seen.none_failed()?;
    let theirs = f64::midpoint(theirs, crate_rate(cpus, SPAN / 2));
    let ours = float(seen.done.len()) / SPAN.as_secs_f64();
    println!("saturated: {ours:.1} log-ins/s, the crate verifies {theirs:.1}/s on {cpus} CPUs; {seen}");
    let figure = theirs / ours;
    let text = "hashes/s of the crate / log-ins/s (1/3: three times)".to_owned();
    Ok(vec![Bar { text, figure, unit: "", limit: 1.0 / 3.0 }])
}

/// Reads with and without 64 clients that log in, in short turns: a machine's speed moves by more than what is asked for.
/// And log-ins while reads take all they can get.
async fn beside_reads(clients: &Clients) -> Result<Vec<Bar>> {
    let (mut fewer, mut slower, mut logins) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..2 * ROUNDS {
        let idle = clients.read(TURN).await?;
        let reads = async {
            // The log-ins have begun by then, and are not over before the reads are.
            tokio::time::sleep(TURN / 4).await;
            let before = clients.done();
            let seen = clients.read(TURN).await;
            logins.push(float(clients.done() - before) / TURN.as_secs_f64());
            seen
        };
        let (beside, seen) = tokio::join!(reads, clients.log_in(64, TURN + TURN / 2));
        let beside = beside?;
        seen.none_failed()?;
        println!("reads alone: {idle}\nreads beside log-ins: {beside}\nlog-ins meanwhile: {seen}");
        fewer.push(float(idle.done.len()) / float(beside.done.len()));
        slower.push(beside.p99() / idle.p99());
    }
    println!("log-ins while reads run: {:.1}/s", median(&logins));
    let bar = |text: &str, figures: &[f64], limit| Bar {
        text: text.to_owned(),
        figure: median(figures),
        unit: "",
        limit,
    };
    Ok(vec![
        bar("reads alone / reads beside log-ins (1/0.85)", &fewer, 1.0 / 0.85),
        bar("p99 of reads beside log-ins / alone", &slower, 2.0),
    ])
}

/// Ten times the log-ins that fit come, each at its time whatever became of those before it; and then a crowd that comes
/// again and again.
async fn overloaded(clients: &Clients, server: &Server) -> Result<Vec<Bar>> {
    let seen = clients.log_in(64, SPAN).await;
    seen.none_failed()?;
    let fits = float(seen.done.len()) / SPAN.as_secs_f64();
    if seen.done.is_empty() {
        return Err("no log-in fits".into());
    }
    let mut waits = Vec::new();
    let mut resident = Vec::new();
    for _ in 0..ROUNDS {
        let seen = clients.arrive(10.0 * fits, SPAN).await;
        resident.push(server.resident_mebibytes()?);
        println!("ten times the {fits:.1} log-ins/s that fit: {seen}");
        seen.some_refused()?;
        waits.push(seen.p99_refused() * 1e3);
    }
    println!("memory after each, MiB: {resident:.1?}");
    let crowd = clients.log_in(1_000, SPAN).await;
    println!("a crowd of 1,000: {crowd}; {:.1} MiB", server.resident_mebibytes()?);
    crowd.some_refused()?;
    let grown = resident[ROUNDS - 1] - resident[0];
    let bar = |text: &str, figure, unit, limit| Bar { text: text.to_owned(), figure, unit, limit };
    Ok(vec![
        bar("p99 of a refusal at ten times what fits", median(&waits), " ms", 5.0),
        bar("p99 of a refusal in a crowd of 1,000", crowd.p99_refused() * 1e3, " ms", 5.0),
        bar("growth from the first such load to the last", grown, " MiB", 4.0),
    ])
}

#[expect(clippy::cast_precision_loss, reason = "a count for a ratio")]
fn float(count: usize) -> f64 {
    count as f64
}
