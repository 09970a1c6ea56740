//! What signing in costs.
//!
//! Beside the server and its clients nothing else should run: what is measured are ratios of one run, but a hash needs a
//! CPU of its own to be compared with another one.

mod codes;
mod compare;
mod factors;
mod load;
mod timing;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::figures::{Figure, Target, median};
use crate::options::Options;
use crate::server::{Server, without_metrics};
use load::{Clients, Login};

/// The cost that the service has by default.
const COST: u32 = 12;

/// How long each load lasts.
const SPAN: Duration = Duration::from_secs(15);

/// How long each of two loads lasts that take turns.
const TURN: Duration = Duration::from_secs(4);

/// Loads that are compared with each other take turns, so many times.
const ROUNDS: usize = 5;

/// The figures of log-ins, of which some can be asked for by `--only`.
pub(crate) async fn measure(options: &Options) -> Result<Vec<Figure>> {
    if let Some(before) = &options.before {
        return compare::measure(options, before).await;
    }
    let wanted = |part: &str| part.contains(&options.only);
    let mut figures = Vec::new();
    if wanted("timing") {
        figures.extend(timing::measure().await?);
    }
    if wanted("factors") {
        figures.push(factors::measure(&options.server).await?);
    }
    let dir = tempfile::Builder::new().prefix("usersd-bench-").tempdir()?;
    let server = start_server(&options.server, dir.path(), None).await?;
    let clients = Clients::seed(server.address).await?;
    if wanted("alone") {
        figures.push(alone(&clients).await?);
    }
    if wanted("saturated") {
        figures.push(saturated(&clients).await?);
    }
    if wanted("reads") {
        figures.extend(beside_reads(&clients).await?);
    }
    if wanted("overload") {
        figures.extend(overloaded(&clients, &server).await?);
    }
    server.stop().await?;
    Ok(figures)
}

/// The release server with its own settings, but for limits that a load from one address would meet, and a file of `keys`.
async fn start_server(binary: &Path, dir: &Path, keys: Option<&Path>) -> Result<Server> {
    let mut command = tokio::process::Command::new(binary.canonicalize()?);
    let url = format!("sqlite://{}?mode=rwc", dir.join("usersd.db").display());
    command.current_dir(dir).args(["--listen", "127.0.0.1:0", "--database", &url]);
    command.env("USERSD_LIMITS_CALLS", "2000").env("USERSD_LIMITS_CALLS_PER_CALLER", "2000");
    if let Some(keys) = keys {
        command.env("USERSD_PASSWORDS_PEPPER", keys);
    }
    without_metrics(&mut command);
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
async fn alone(clients: &Clients) -> Result<Figure> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for n in 0..12 {
        let begun = Instant::now();
        let Login::Done = clients.login(n).await else { return Err("a log-in alone failed".into()) };
        ours.push(begun.elapsed().as_secs_f64() * 1e3);
        theirs.push(1e3 / crate_rate(1, Duration::from_millis(1)));
    }
    Ok(Figure::beside(
        "a log-in alone, beside one hash of the crate",
        "ms",
        &ours,
        &theirs,
        Target::AtMost(1.05),
    ))
}

/// 64 clients that log in without pause.
async fn saturated(clients: &Clients) -> Result<Figure> {
    let cpus = std::thread::available_parallelism()?.get();
    let theirs = crate_rate(cpus, SPAN / 2);
    let seen = clients.log_in(64, SPAN).await;
    seen.none_failed()?;
    let theirs = f64::midpoint(theirs, crate_rate(cpus, SPAN / 2));
    let ours = float(seen.done.len()) / SPAN.as_secs_f64();
    let name = "log-ins of 64 clients, beside what the crate verifies";
    Ok(Figure::beside(name, "/s", &[ours], &[theirs], Target::AtLeast(3.0)))
}

/// Reads with and without 64 clients that log in, in short turns: a machine's speed moves by more than what is asked for.
/// And log-ins while reads take all they can get.
async fn beside_reads(clients: &Clients) -> Result<Vec<Figure>> {
    let (mut rates, mut slowest, mut logins) =
        ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()], Vec::new());
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
        for (turn, seen) in [&idle, &beside].into_iter().enumerate() {
            rates[turn].push(float(seen.done.len()) / TURN.as_secs_f64());
            slowest[turn].push(seen.p99() * 1e3);
        }
    }
    let figure = |what: &str, unit, [idle, beside]: &[Vec<f64>; 2], target| {
        Figure::beside(
            format!("ReadSession beside 64 clients that log in, beside none, {what}"),
            unit,
            beside,
            idle,
            target,
        )
    };
    Ok(vec![
        figure("calls", "/s", &rates, Target::AtLeast(0.85)),
        figure("p99", "ms", &slowest, Target::AtMost(2.0)),
        Figure::alone("log-ins while those reads run", "/s", median(&logins), Target::None),
    ])
}

/// Ten times the log-ins that fit come, each at its time whatever became of those before it; and then a crowd that comes
/// again and again.
async fn overloaded(clients: &Clients, server: &Server) -> Result<Vec<Figure>> {
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
        resident.push(server.mebibytes("VmRSS")?);
        eprintln!("ten times the {fits:.1} log-ins/s that fit: {seen}");
        seen.some_refused()?;
        waits.push(seen.p99_refused() * 1e3);
    }
    eprintln!("memory after each, MiB: {resident:.1?}");
    let crowd = clients.log_in(1_000, SPAN).await;
    eprintln!("a crowd of 1,000: {crowd}; {:.1} MiB", server.mebibytes("VmRSS")?);
    crowd.some_refused()?;
    let grown = resident[ROUNDS - 1] - resident[0];
    let refusal = |name: &str, millis| {
        Figure::alone(format!("p99 of a refusal {name}"), "ms", millis, Target::AtMost(5.0))
    };
    Ok(vec![
        refusal("at ten times the log-ins that fit", median(&waits)),
        refusal("in a crowd of 1,000", crowd.p99_refused() * 1e3),
        Figure::alone("growth from the first such load to the last", "MiB", grown, Target::AtMost(4.0)),
    ])
}

#[expect(clippy::cast_precision_loss, reason = "a count for a ratio")]
fn float(count: usize) -> f64 {
    count as f64
}
