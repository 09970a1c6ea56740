//! Two builds of usersd beside each other: every call, and creating users, on the one and on the other in turns.

use std::path::Path;

use super::kinds::{self, Call};
use super::load;
use super::seed::Seeded;
use super::writes::Writer;
use crate::Result;
use crate::databases::sqlite;
use crate::figures::{Figure, Target};
use crate::options::Options;
use crate::postgres::Database;
use crate::server::{SCOPES, Server};
use crate::wire::Client;

/// Users that one round creates with each build, and how many at a time.
const CREATED: usize = 1_000;
const AT_A_TIME: usize = 16;

/// Users that there are before.
const USERS: usize = 10_000;

/// How much dearer the newer build may be.
const LIMIT: Target = Target::AtMost(1.05);

/// One build on a database that it made itself: an older one may not know the newer one's.
pub(super) struct Build {
    pub(super) server: Server,
    writer: Writer,
    /// `Read` and `ReadSession` over gRPC, the two over HTTP, and others.
    pub(super) calls: Vec<Call>,
    _database: Option<Database>,
}

/// Measures `options.server` beside `before` on an SQLite file or, with `admin`, on PostgreSQL.
pub(crate) async fn measure(
    options: &Options,
    before: &Path,
    dir: &Path,
    admin: Option<&str>,
) -> Result<Vec<Figure>> {
    let kind = if admin.is_some() { "PostgreSQL" } else { "SQLite" };
    let builds = [
        Build::start(before, dir, admin, "before").await?,
        Build::start(&options.server, dir, admin, "after").await?,
    ];
    let rows = builds[0].calls.len() + 1;
    let mut costs = vec![[Vec::new(), Vec::new()]; rows];
    // The first round warms both up and does not count. Every second one begins with the other build.
    for round in 0..=options.rounds {
        eprintln!("{kind}: round {round} of {}", options.rounds);
        for (row, costs) in costs.iter_mut().enumerate() {
            for turn in [round % 2, (round + 1) % 2] {
                let cost = builds[turn].measure(row, options.calls, round, dir).await?;
                if round > 0 {
                    costs[turn].push(cost);
                }
            }
        }
    }
    let names = builds[0]
        .calls
        .iter()
        .map(|call| call.name.clone())
        .chain([format!("Create, {AT_A_TIME} at a time")]);
    let figure = |(name, [before, after]): (String, &[Vec<f64>; 2])| {
        Figure::beside(format!("{kind}: {name}, beside the build before"), "µs", after, before, LIMIT)
    };
    let figures = names.zip(&costs).map(figure).collect();
    for build in builds {
        build.server.stop().await?;
    }
    Ok(figures)
}

impl Build {
    pub(super) async fn start(binary: &Path, dir: &Path, admin: Option<&str>, name: &str) -> Result<Self> {
        let name = format!("usersd_bench_{name}_{}", std::process::id());
        let database = admin.map(|admin| Database::create(admin, name.clone(), false)).transpose()?;
        let url = database.as_ref().map_or_else(|| sqlite(dir, &name).url, |database| database.url.clone());
        let key = Server::new_key(binary, dir, &url, SCOPES).await?;
        let server = Server::usersd(binary, dir, &url).await?;
        let mut seeded = Seeded {
            id: String::new(),
            email: String::new(),
            token: String::new(),
            tokens: Vec::new(),
            others: Vec::new(),
            key,
        };
        let writer = Writer::connect(&server, &seeded).await?;
        (seeded.id, seeded.email, seeded.token) = writer.create_session().await?;
        writer.create_users(AT_A_TIME, USERS).await?;
        let mut calls = vec![
            kinds::read(&seeded)?,
            kinds::read_session(&seeded)?,
            kinds::read_json(&seeded),
            kinds::read_session_json(&seeded),
        ];
        calls.extend(kinds::by_id(&seeded)?);
        Ok(Self { server, writer, calls, _database: database })
    }

    /// Microseconds of CPU that a call of `row` costs the server; past the last one, creating a user.
    async fn measure(&self, row: usize, calls: usize, round: usize, dir: &Path) -> Result<f64> {
        let Some(call) = self.calls.get(row) else {
            let before = self.server.cpu_times()?;
            self.writer.create_users(AT_A_TIME, CREATED).await?;
            return Ok(micros_each(self.server.cpu_times()?.since(&before), CREATED));
        };
        let answer = call.answer(&Client::new(), self.server.address).await?.len();
        let before = self.server.cpu_times()?;
        load::run(call, self.server.address, calls, round, answer, dir).await?;
        Ok(micros_each(self.server.cpu_times()?.since(&before), calls))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a load takes far less than 52 days")]
pub(super) fn micros_each(nanos: u64, calls: usize) -> f64 {
    nanos as f64 / 1e3 / calls as f64
}
