//! What the command line and the environment ask for.

use std::path::PathBuf;

use crate::baseline::Kind;
use crate::start::{self, Result, count};

const HELP: &str = "\
usage: cargo bench --bench calls -- [options]

  --calls N      calls of one load (30000)
  --rounds N     measured rounds, of which the medians are shown (5)
  --users N      users in the database beside the one that most calls read (10000)
  --server PATH  another build of usersd to measure (the one cargo just built)
  --before PATH  compare with this older build instead of the baselines, in turns
  --strict       exit 1 if a bar is missed

USERSD_TEST_POSTGRES names a PostgreSQL server to measure on as well, for example
postgres:///postgres?host=/run/postgresql&user=postgres; a database is made there and dropped again.";

/// How to run.
pub(crate) struct Options {
    /// Calls of one load.
    pub(crate) calls: usize,
    /// Measured rounds.
    pub(crate) rounds: usize,
    /// Users stored beside the one that most calls read.
    pub(crate) users: usize,
    /// The server to measure.
    pub(crate) server: PathBuf,
    /// An older build to compare it with.
    pub(crate) before: Option<PathBuf>,
    /// Whether a missed bar is a failure.
    pub(crate) strict: bool,
    /// URL of a database on the PostgreSQL server to measure on.
    pub(crate) postgres: Option<String>,
}

/// What this process is to do.
pub(crate) enum Asked {
    /// Measure.
    Run(Options),
    /// Be a baseline: this binary runs itself for that.
    Baseline {
        /// Which of the two.
        kind: Kind,
        /// File with the answer to every call.
        answer: PathBuf,
    },
    /// Only say this.
    Nothing(&'static str),
}

impl Options {
    /// Reads the process's arguments and environment.
    pub(crate) fn from_args() -> Result<Asked> {
        let mut options = Self {
            calls: 30_000,
            rounds: 5,
            users: 10_000,
            server: env!("CARGO_BIN_EXE_usersd").into(),
            before: None,
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
                "--calls" => options.calls = count(&value()?, 1)?,
                "--rounds" => options.rounds = count(&value()?, 1)?,
                "--users" => options.users = count(&value()?, 1)?,
                "--before" => options.before = Some(value()?.into()),
                "--server" => options.server = value()?.into(),
                "--baseline" => {
                    return Ok(Asked::Baseline { kind: value()?.parse()?, answer: value()?.into() });
                }
                "--help" | "-h" => return Ok(Asked::Nothing(HELP)),
                unknown => return Err(format!("unknown argument {unknown}\n\n{HELP}").into()),
            }
        }
        // `cargo test --all-targets` runs benches too, and wants no minutes of load from them.
        Ok(if benching { Asked::Run(options) } else { Asked::Nothing("only `cargo bench` measures") })
    }
}
