//! The databases of a run.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::options::Options;
use crate::postgres::Database;
use crate::start::Result;

/// What the databases of one kind are for.
const NAMES: [&str; 3] = ["small", "large", "alone"];

/// Where a database is.
pub(crate) struct Place {
    /// For usersd.
    pub(crate) url: String,
    /// The file, if it is one.
    pub(crate) file: Option<PathBuf>,
}

/// The databases of one kind.
pub(crate) struct Places {
    /// "SQLite" or "PostgreSQL".
    pub(crate) kind: &'static str,
    pub(crate) small: Place,
    /// With the small tenant, too.
    pub(crate) large: Place,
    /// With nobody but the small tenant.
    pub(crate) alone: Place,
}

/// All of them, and a directory to run servers in. What is not to be kept is removed with the value.
pub(crate) struct Databases {
    pub(crate) places: Vec<Places>,
    dir: TempDir,
    _postgres: Vec<Database>,
}

impl Databases {
    /// Names files, which are made when they are filled, and makes empty databases on PostgreSQL.
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("usersd-bench-").tempdir()?;
        let names = NAMES.map(|what| match options.keep {
            Some(_) => format!("usersd_bench_{what}"),
            None => format!("usersd_bench_{what}_{}", std::process::id()),
        });
        let (mut places, mut postgres) = (Vec::new(), Vec::new());
        if options.sqlite {
            let files = options.keep.as_deref().unwrap_or(dir.path());
            places.push(Places::new("SQLite", names.clone().map(|name| sqlite(files, &name))));
        }
        if let Some(admin) = &options.postgres {
            for name in names {
                postgres.push(Database::create(admin, name, options.keep.is_some())?);
            }
            let urls: [String; 3] = std::array::from_fn(|n| postgres[n].url.clone());
            places.push(Places::new("PostgreSQL", urls.map(|url| Place { url, file: None })));
        } else {
            eprintln!("PostgreSQL is not measured: USERSD_TEST_POSTGRES names no server");
        }
        Ok(Self { places, dir, _postgres: postgres })
    }

    /// Where nobody else's settings are near.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Places {
    fn new(kind: &'static str, [small, large, alone]: [Place; 3]) -> Self {
        Self { kind, small, large, alone }
    }
}

/// A file in `dir`.
pub(crate) fn sqlite(dir: &Path, name: &str) -> Place {
    let file = dir.join(format!("{name}.db"));
    Place { url: format!("sqlite://{}?mode=rwc", file.display()), file: Some(file) }
}
