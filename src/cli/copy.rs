//! `usersd copy`: moves everything to another database.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::store::Store;
use crate::store::copy::Progress;

use super::{CommandError, open_existing, print, schema};

#[derive(Args)]
pub(super) struct Addresses {
    /// The database to read, such as `sqlite://usersd.db`; it stays as it is
    #[arg(long, value_name = "URL")]
    from: String,
    /// The database to write, which must be new or without data, such as `postgres://USER@HOST/NAME`
    #[arg(long, value_name = "URL")]
    to: String,
}

/// Runs `usersd copy`.
pub(super) async fn execute(addresses: &Addresses) -> Result<ExitCode, CommandError> {
    let from = open_existing(&addresses.from).await?;
    check_schema(&from, "source").await?;
    let to = Store::connect(&addresses.to, 1).await?;
    to.check_writable().await?;
    if to.migrations().await?.iter().all(|step| !step.applied) {
        to.migrate().await?;
    }
    check_schema(&to, "target").await?;
    let mut bar = Bar::new();
    let copied = Box::pin(from.copy_to(&to, |progress| bar.show(progress))).await?;
    for (table, checksum) in &copied.tables {
        print(&format!("{table}\t{}\t{:032x}", checksum.rows, checksum.sum))?;
    }
    eprintln!("usersd: copied; of each table both databases have the same rows, by the checksums above");
    if copied.missed_events > 0 {
        eprintln!(
            "usersd: {} events came to the source meanwhile and are not in the copy: before you switch to it, stop every \
             server and copy again, to another new database",
            copied.missed_events
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Rows are read and written as this program knows them: what a newer one added would be left behind.
async fn check_schema(store: &Store, which: &str) -> Result<(), CommandError> {
    let newer = schema::newer(&store.migrations().await?);
    if !newer.is_empty() {
        return Err(CommandError::Failed(format!(
            "a newer usersd migrated the {which}, which is copied by that version only: this one does not know {newer}"
        )));
    }
    schema::check(store).await.map_err(|failure| match failure {
        CommandError::Failed(why) => CommandError::Failed(format!("the {which}: {why}")),
        usage @ CommandError::Usage(_) => usage,
    })
}

/// The time between two lines of the bar.
const REDRAW: Duration = Duration::from_millis(100);

/// The characters of a full bar.
const WIDTH: usize = 30;

/// The progress on stderr: a bar on a terminal, a line for each table elsewhere.
struct Bar {
    terminal: bool,
    drawn: Instant,
}

impl Bar {
    fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), drawn: Instant::now() }
    }

    fn show(&mut self, progress: Progress) {
        let Progress { table, done, all } = progress;
        let ended = done >= all;
        let mut stderr = std::io::stderr().lock();
        // Nobody need read the progress for the copy to be good.
        let _ = if !self.terminal {
            if ended { writeln!(stderr, "usersd: {table}: {done} rows") } else { Ok(()) }
        } else if ended || self.drawn.elapsed() >= REDRAW {
            self.drawn = Instant::now();
            let full = (done * WIDTH as u64).checked_div(all).and_then(|full| usize::try_from(full).ok());
            let full = full.unwrap_or(WIDTH).min(WIDTH);
            let (full, rest) = ("#".repeat(full), ".".repeat(WIDTH - full));
            let end = if ended { "\n" } else { "" };
            write!(stderr, "\r{table:16} [{full}{rest}] {done} of {all}{end}").and_then(|()| stderr.flush())
        } else {
            Ok(())
        };
    }
}
