//! What lists and searches cost where there are many users: `cargo bench --bench lists`, or with options after a `--`
//! (`-- --help` lists them).
//!
//! Fills two databases, of which one has a hundred times the users of the other, and one with a small tenant who is in
//! the large one as well. Then it makes the same calls on each, in turns: what counts is how much more they cost.

#![expect(clippy::print_stdout, reason = "the tables are what a person runs this for")]

#[path = "../calls/bars.rs"]
mod bars;
mod cases;
mod options;
mod people;
#[path = "../calls/postgres.rs"]
mod postgres;
mod report;
mod rounds;
mod seed;
#[expect(dead_code, reason = "what `calls` measures of one server is measured of two processes here")]
#[path = "../calls/server.rs"]
mod server;
#[path = "../calls/start.rs"]
mod start;

use std::path::Path;
use std::process::ExitCode;

use bars::Bar;
use options::{Asked, Options};
use postgres::Database;
use seed::{Place, TENANTS_USERS};
use start::Result;

/// What the databases are for.
const DATABASES: [&str; 3] = ["small", "large", "alone"];

#[tokio::main]
async fn main() -> ExitCode {
    start::exit_code("lists", begin().await)
}

/// Does what the command line asks for.
async fn begin() -> Result<bool> {
    match Options::from_args()? {
        Asked::Nothing(text) => {
            println!("{text}");
            Ok(true)
        }
        Asked::Run(options) => start::stoppable(Box::pin(run(&options))).await,
    }
}

/// Whether the run counts as passed: a missed bar fails it only if that was asked for.
async fn run(options: &Options) -> Result<bool> {
    let scratch = tempfile::Builder::new().prefix("usersd-bench-").tempdir()?;
    let dir = options.keep.as_deref().unwrap_or(scratch.path());
    let files = DATABASES.map(|what| {
        let file = dir.join(format!("{}.db", name(options, what)));
        Place { url: format!("sqlite://{}?mode=rwc", file.display()), file: Some(file) }
    });
    let mut bars = Vec::new();
    if options.sqlite {
        bars.extend(measure(options, scratch.path(), "SQLite", &files).await?);
    }
    if let Some(admin) = &options.postgres {
        let databases: Vec<Database> = DATABASES
            .iter()
            .map(|what| Database::create(admin, name(options, what), options.keep.is_some()))
            .collect::<Result<_>>()?;
        let places: Vec<Place> =
            databases.iter().map(|database| Place { url: database.url.clone(), file: None }).collect();
        bars.extend(measure(options, scratch.path(), "PostgreSQL", &places).await?);
    } else {
        println!("\nPostgreSQL: not measured (USERSD_TEST_POSTGRES names no server)");
    }
    Ok(bars::print_bars(&bars) || !options.strict)
}

/// Of a database: always the same if it is to be kept, else of this run alone.
fn name(options: &Options, what: &str) -> String {
    match options.keep {
        Some(_) => format!("usersd_lists_{what}"),
        None => format!("usersd_lists_{what}_{}", std::process::id()),
    }
}

/// Writes the tables of one kind of database and gives its bars. The servers run in `dir`.
async fn measure(options: &Options, dir: &Path, database: &str, places: &[Place]) -> Result<Vec<Bar>> {
    let [small, large, alone] = places else { return Err("three databases are needed".into()) };
    let rows = rounds::measure(options, dir, [small, large, alone]).await?;
    report::print(database, &rows, options);
    report::print_sizes(database, options.rows.1 + TENANTS_USERS, &seed::sizes(large).await?);
    Ok(report::bars(database, &rows))
}
