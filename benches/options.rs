//! What the command line and the environment ask for.

use std::path::PathBuf;

use crate::calls::Kind;
use crate::start::{Result, count};

const HELP: &str = "\
usage: cargo bench -- [part ...] [options]

  codec       JSON to protobuf and back, beside prost-reflect
  lists       lists and searches on a large database, beside a small one
  calls       single calls, beside servers that answer a constant (needs h2load); starts and memory
  passwords   log-ins beside the crate bcrypt, alone and under load, and with a second factor; whether time tells who exists

Without a part: all of them, in about an hour, of which a quarter goes into writing the databases.

  --rounds N     measured rounds, of which the medians are shown (5)
  --calls N      calls of one load of `calls` (30000)
  --searches N   calls of one kind in one round of `lists` (500; a tenth of it for those that take long)
  --rows N,M     users of the two databases that `lists` compares; `calls` runs on the second (10000,1000000)
  --only TEXT    of `lists` only the kinds of calls with TEXT in their name
  --no-sqlite    only PostgreSQL
  --keep DIR     leaves the databases there (those on PostgreSQL on their server) for the next run to find
  --server PATH  another build of usersd to measure (the one cargo just built)
  --before PATH  `calls` and `passwords` compare with this older build instead, in turns
  --gateway PATH `calls` compares with this grpc-gateway instead, which tests/run clients builds in target/clients/gateway
  --details      also prints the latencies of `lists`, and the bytes that a user takes
  --strict       exit 1 if a target is missed

A million users take 3 GB in the folder for temporary files (TMPDIR).

USERSD_TEST_POSTGRES names a PostgreSQL server of this machine to measure on as well, for example
postgres:///postgres?host=/run/postgresql&user=postgres; databases are made there and dropped again.";

/// A group of figures.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Codec,
    Lists,
    Calls,
    Passwords,
}

impl Part {
    const ALL: [Self; 4] = [Self::Codec, Self::Lists, Self::Calls, Self::Passwords];

    /// As the command line has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Codec => "codec",
            Self::Lists => "lists",
            Self::Calls => "calls",
            Self::Passwords => "passwords",
        }
    }
}

/// How to run.
pub(crate) struct Options {
    pub(crate) parts: Vec<Part>,
    /// Measured rounds.
    pub(crate) rounds: usize,
    /// Calls of one load of `calls`.
    pub(crate) calls: usize,
    /// Calls of one kind in one round of `lists`.
    pub(crate) searches: usize,
    /// Users of the small and of the large database.
    pub(crate) rows: (usize, usize),
    /// What the names of the kinds that `lists` measures have in them.
    pub(crate) only: String,
    /// Whether to measure on SQLite.
    pub(crate) sqlite: bool,
    /// Where databases stay.
    pub(crate) keep: Option<PathBuf>,
    /// The server to measure.
    pub(crate) server: PathBuf,
    /// An older build to compare it with.
    pub(crate) before: Option<PathBuf>,
    /// A grpc-gateway to compare it with.
    pub(crate) gateway: Option<PathBuf>,
    /// Whether to print more than the figures.
    pub(crate) details: bool,
    /// Whether a missed target is a failure.
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
    fn new() -> Result<Self> {
        let postgres = std::env::var_os("USERSD_TEST_POSTGRES").filter(|url| !url.is_empty());
        let utf8 =
            |url: std::ffi::OsString| url.into_string().map_err(|_| "USERSD_TEST_POSTGRES is not UTF-8");
        Ok(Self {
            parts: Vec::new(),
            rounds: 5,
            calls: 30_000,
            searches: 500,
            rows: (10_000, 1_000_000),
            only: String::new(),
            sqlite: true,
            keep: None,
            server: env!("CARGO_BIN_EXE_usersd").into(),
            before: None,
            gateway: None,
            details: false,
            strict: false,
            postgres: postgres.map(utf8).transpose()?,
        })
    }

    /// Reads the process's arguments and environment.
    pub(crate) fn from_args() -> Result<Asked> {
        let mut options = Self::new()?;
        let mut benching = false;
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--bench" => benching = true, // cargo bench adds it
                "--strict" => options.strict = true,
                "--details" => options.details = true,
                "--no-sqlite" => options.sqlite = false,
                "--rounds" => options.rounds = count(&value()?, 1)?,
                "--calls" => options.calls = count(&value()?, 1)?,
                "--searches" => options.searches = count(&value()?, 10)?,
                "--rows" => options.rows = rows(&value()?)?,
                "--only" => options.only = value()?,
                "--keep" => options.keep = Some(value()?.into()),
                "--server" => options.server = value()?.into(),
                "--before" => options.before = Some(value()?.into()),
                "--gateway" => options.gateway = Some(value()?.into()),
                "--baseline" => {
                    return Ok(Asked::Baseline { kind: value()?.parse()?, answer: value()?.into() });
                }
                "--help" | "-h" => return Ok(Asked::Nothing(HELP)),
                text => match Part::ALL.into_iter().find(|part| part.as_str() == text) {
                    Some(part) => options.parts.push(part),
                    None => return Err(format!("unknown argument {text}\n\n{HELP}").into()),
                },
            }
        }
        if options.parts.is_empty() {
            options.parts.extend(Part::ALL);
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
