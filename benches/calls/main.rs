//! What a call costs: `cargo bench --bench calls`, or with options after a `--` (`-- --help` lists them).
//!
//! Drives the release server and two baselines, a bare tonic server and a bare axum handler that give the very
//! same answers without thinking, in turns with the same load from `h2load`, all on the loopback. Calls a second
//! and latencies move with whatever else the machine does; the server's own CPU time per call hardly does, and
//! its ratio to the baseline of the same round least of all. The bars are set on that.

#![expect(clippy::print_stdout, reason = "the tables are what a person runs this for")]

mod bars;
mod baseline;
mod calls;
mod compare;
mod load;
mod options;
mod postgres;
mod report;
mod rounds;
mod seed;
mod server;
mod start;
mod wire;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bars::Bar;
use options::{Asked, Options};
use server::Server;
use start::Result;
use wire::Client;

/// Starts measured on the existing database, and the pause after which an idle server's memory is read.
const STARTS: usize = 10;
const SETTLE: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() -> ExitCode {
    start::exit_code("calls", begin().await)
}

/// Does what the command line asks for.
async fn begin() -> Result<bool> {
    match Options::from_args()? {
        Asked::Baseline { kind, answer } => baseline::serve(kind, &answer).await.map(|()| true),
        Asked::Nothing(text) => {
            println!("{text}");
            Ok(true)
        }
        Asked::Run(options) => start::stoppable(run(&options)).await,
    }
}

/// Whether the run counts as passed: a missed bar fails it only if that was asked for.
async fn run(options: &Options) -> Result<bool> {
    load::check().await?;
    let dir = tempfile::Builder::new().prefix("usersd-bench-").tempdir()?;
    if let Some(before) = &options.before {
        return compare_builds(options, before, dir.path()).await;
    }
    let url = format!("sqlite://{}?mode=rwc", dir.path().join("usersd.db").display());

    let table = rounds::measure(options, dir.path(), &url).await?;
    table.print("SQLite", options);
    let mut bars = table.bars();
    bars.extend(table.bars_of_keys());
    bars.extend(measure_starts(options, dir.path(), &url).await?);

    if let Some(admin) = &options.postgres {
        let database =
            postgres::Database::create(admin, format!("usersd_bench_{}", std::process::id()), false)?;
        rounds::measure(options, dir.path(), &database.url).await?.print("PostgreSQL", options);
    } else {
        println!("\nPostgreSQL: not measured (USERSD_TEST_POSTGRES names no server)");
    }
    Ok(bars::print_bars(&bars) || !options.strict)
}

/// Compares two builds on each database there is.
async fn compare_builds(options: &Options, before: &Path, dir: &Path) -> Result<bool> {
    let file = |name: &str| Ok(format!("sqlite://{}?mode=rwc", dir.join(format!("{name}.db")).display()));
    println!("SQLite");
    let mut bars = compare::compare(options, before, dir, file).await?;
    if let Some(admin) = &options.postgres {
        let made = std::sync::Mutex::new(Vec::new());
        let database = |name: &str| {
            let name = format!("usersd_bench_{}_{name}", std::process::id());
            let database = postgres::Database::create(admin, name, false)?;
            let url = database.url.clone();
            made.lock().map_err(|_| "a thread panicked")?.push(database);
            Ok(url)
        };
        println!("PostgreSQL");
        bars.extend(compare::compare(options, before, dir, database).await?);
    }
    Ok(bars::print_bars(&bars) || !options.strict)
}

/// How soon a server answers on a database that has its tables and users, and what it weighs when idle.
async fn measure_starts(options: &Options, dir: &Path, url: &str) -> Result<Vec<Bar>> {
    let read = calls::read("first Read")?;
    let (mut millis, mut mebibytes) = (Vec::new(), Vec::new());
    eprintln!("starting {STARTS} times");
    for _ in 0..STARTS {
        let begun = std::time::Instant::now();
        let server = Server::usersd(&options.server, dir, url).await?;
        read.answer(&Client::new(), server.address).await?;
        millis.push(begun.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(SETTLE).await;
        mebibytes.push(server.resident_mebibytes()?);
        server.stop().await?;
    }
    Ok(vec![
        Bar {
            text: "start to first answered call, existing database".to_owned(),
            figure: bars::median(&millis),
            unit: " ms",
            limit: 100.0,
        },
        Bar {
            text: "idle RSS after start".to_owned(),
            figure: bars::median(&mebibytes),
            unit: " MiB",
            limit: 25.0,
        },
    ])
}
