//! What the command line and the environment ask for.

use std::path::PathBuf;

use crate::start::{self, Result, count};

const HELP: &str = "\
usage: cargo bench --bench lists -- [options]

  --rows N,M     users of the two databases that are compared (10000,1000000)
  --calls N      calls of one kind in one round (500; a tenth of it for those that take long)
  --rounds N     measured rounds, of which the medians are shown (5)
  --only TEXT    only the kinds of calls with TEXT in their name
  --no-sqlite    only PostgreSQL
  --keep DIR     leaves the databases there (those on PostgreSQL on their server) for the next run to find
  --server PATH  another build of usersd to measure (the one cargo just built)
  --strict       exit 1 if a bar is missed

A million users take some minutes and 3 GB in the folder for temporary files (TMPDIR).

USERSD_TEST_POSTGRES names a PostgreSQL server of this machine to measure on as well, for example
postgres:///postgres?host=/run/postgresql&user=postgres; databases are made there and dropped again.";

/// How to run.
pub(crate) struct Options {
    /// Users of the small and of the large database.
    pub(crate) rows: (usize, usize),
    /// Calls of one kind in one round.
    pub(crate) calls: usize,
    /// Measured rounds.
    pub(crate) rounds: usize,
    /// What the names of the kinds that are measured have in them.
    pub(crate) only: String,
    /// Whether to measure on SQLite.
    pub(crate) sqlite: bool,
    /// Where databases stay.
    pub(crate) keep: Option<PathBuf>,
    /// The server to measure.
    pub(crate) server: PathBuf,
    /// Whether a missed bar is a failure.
    pub(crate) strict: bool,
    /// URL of a database on the PostgreSQL server to measure on.
    pub(crate) postgres: Option<String>,
}

/// What this process is to do.
pub(crate) enum Asked {
    /// Measure.
    Run(Options),
    /// Only say this.
    Nothing(&'static str),
}

impl Options {
    /// Reads the process's arguments and environment.
    pub(crate) fn from_args() -> Result<Asked> {
        let mut options = Self {
            rows: (10_000, 1_000_000),
            calls: 500,
            rounds: 5,
            only: String::new(),
            sqlite: true,
            keep: None,
            server: env!("CARGO_BIN_EXE_usersd").into(),
            strict: false,
            postgres: start::postgres()?,
        };
        let mut benching = false;
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--bench" => benching = true, // cargo bench adds it
                "--strict" => options.strict = true,
                "--rows" => options.rows = rows(&value()?)?,
                "--calls" => options.calls = count(&value()?, 10)?,
                "--rounds" => options.rounds = count(&value()?, 1)?,
                "--only" => options.only = value()?,
                "--no-sqlite" => options.sqlite = false,
                "--keep" => options.keep = Some(value()?.into()),
                "--server" => options.server = value()?.into(),
                "--help" | "-h" => return Ok(Asked::Nothing(HELP)),
                unknown => return Err(format!("unknown argument {unknown}\n\n{HELP}").into()),
            }
        }
        // `cargo test --all-targets` runs benches too, and wants no minutes of load from them.
        Ok(if benching { Asked::Run(options) } else { Asked::Nothing("only `cargo bench` measures") })
    }
}

fn rows(text: &str) -> Result<(usize, usize)> {
    let (small, large) =
        text.split_once(',').ok_or_else(|| format!("{text} is not two numbers with a comma"))?;
    let (small, large) = (count(small, 10_000)?, count(large, 10_000)?);
    if small < large { Ok((small, large)) } else { Err(format!("{small} is not less than {large}").into()) }
}
