//! The figures of usersd, each beside what it is held against in the same run: `cargo bench`, or with options after
//! a `--` (`cargo bench -- --help` lists them).
//!
//! Calls a second and latencies move with whatever else the machine does; the CPU time of the server per call hardly
//! does, and its ratio to a reference of the same round least of all. Most targets are set on that.

#![expect(clippy::print_stdout, reason = "the table is what a person runs this for")]

mod calls;
mod codec;
mod databases;
mod figures;
mod lists;
mod options;
mod passwords;
mod postgres;
mod server;
mod start;
mod wire;

use std::process::ExitCode;

use databases::Databases;
use figures::Figure;
use options::{Asked, Options, Part};
use start::Result;

#[tokio::main]
async fn main() -> ExitCode {
    start::exit_code(begin().await)
}

/// Does what the command line asks for.
async fn begin() -> Result<bool> {
    match Options::from_args()? {
        Asked::Baseline { kind, answer } => calls::serve_baseline(kind, &answer).await.map(|()| true),
        Asked::Nothing(text) => {
            println!("{text}");
            Ok(true)
        }
        Asked::Run(options) => start::stoppable(Box::pin(run(&options))).await,
    }
}

/// Measures the parts that were asked for, and shows and stores their figures. Returns false if one misses its target and
/// that was to count.
async fn run(options: &Options) -> Result<bool> {
    let databases = Databases::new(options)?;
    let mut figures = Vec::new();
    for (number, part) in options.parts.iter().enumerate() {
        eprintln!("\n== part {} of {}: {}", number + 1, options.parts.len(), part.as_str());
        figures.extend(measure(*part, options, &databases).await?);
        // Whoever interrupts a later part keeps what was measured.
        figures::store(&figures)?;
    }
    figures::print(&figures);
    let (json, chart) = figures::store(&figures)?;
    println!("\nwritten to {} and {}", json.display(), chart.display());
    Ok(figures.iter().all(Figure::is_met) || !options.strict)
}

async fn measure(part: Part, options: &Options, databases: &Databases) -> Result<Vec<Figure>> {
    match part {
        Part::Codec => codec::measure(),
        Part::Lists => lists::measure(options, databases).await,
        Part::Calls => calls::measure(options, databases).await,
        Part::Passwords => passwords::measure(options).await,
    }
}
