//! The rounds: baseline, ours, and the other calls, over and over.

use std::fs;
use std::path::Path;

use super::baseline::{self, Kind};
use super::idle;
use super::kinds::{self, Call};
use super::load::{self, Load};
use super::seed::Seeded;
use crate::Result;
use crate::databases::Places;
use crate::figures::{Figure, Target};
use crate::options::Options;
use crate::server::Server;
use crate::wire::{Client, Wire};

/// Bytes before the message in gRPC's frame.
const FRAME_HEADER: usize = 5;

/// What a call that is answered from memory may cost, of its baseline, and the calls a second that there must be.
const CACHED: (Target, Target) = (Target::AtMost(1.35), Target::AtLeast(0.75));
const CACHED_JSON: (Target, Target) = (Target::AtMost(2.5), Target::None);

/// What one that asks the database may cost.
const UNCACHED: (Target, Target) = (Target::AtMost(4.0), Target::None);

/// What others may.
const OPEN: (Target, Target) = (Target::None, Target::None);

/// A call and the server that takes it.
struct Row<'a> {
    name: String,
    call: Call,
    server: &'a Server,
    /// On the CPU time of a call and on the calls a second, of the baseline's.
    targets: (Target, Target),
    /// Bytes in the body of its answer.
    answer_bytes: usize,
    /// What each round cost.
    costs: Vec<Cost>,
}

/// One load: what its callers saw and what the server paid.
struct Cost {
    load: Load,
    /// The server's CPU time per call in microseconds, user and system.
    cpu: f64,
}

/// Measures every call on the large database beside its baseline.
pub(crate) async fn measure(
    options: &Options,
    dir: &Path,
    places: &Places,
    seeded: &Seeded,
) -> Result<Vec<Figure>> {
    let url = &places.large.url;
    let cached = Server::usersd(&options.server, dir, url).await?;
    let uncached = Server::usersd_with(&options.server, dir, url, &[("USERSD_CACHE_MEMORY", "0")]).await?;
    idle::wait(&cached).await?;
    idle::wait(&uncached).await?;
    let [bare_tonic, bare_axum] = baselines(&cached, dir, seeded).await?;
    let mut rows = vec![
        Row::new("", kinds::read(seeded)?, &bare_tonic, OPEN).await?,
        Row::new("", kinds::read_json(seeded), &bare_axum, OPEN).await?,
        Row::new("", kinds::read(seeded)?, &cached, CACHED).await?,
        Row::new("", kinds::read_session(seeded)?, &cached, CACHED).await?,
        Row::new("", kinds::read_json(seeded), &cached, CACHED_JSON).await?,
        Row::new("", kinds::read_session_json(seeded), &cached, CACHED_JSON).await?,
        Row::new(", not cached", kinds::read(seeded)?, &uncached, UNCACHED).await?,
        Row::new(", not cached", kinds::read_session(seeded)?, &uncached, OPEN).await?,
    ];
    for call in kinds::by_id(seeded)?.into_iter().chain([kinds::read_any(seeded)]) {
        rows.push(Row::new("", call, &cached, OPEN).await?);
    }
    for row in &rows {
        row.load(options.calls.div_ceil(4), 0, dir).await?;
    }
    for round in 0..options.rounds {
        eprintln!("{}: round {} of {}", places.kind, round + 1, options.rounds);
        for row in &mut rows {
            let cost = row.load(options.calls, round, dir).await?;
            row.costs.push(cost);
        }
    }
    let mut figures = figures(places.kind, &rows);
    let memory = cached.mebibytes("RssAnon")?;
    let name = format!("{}: anonymous memory after these calls", places.kind);
    figures.push(Figure::alone(name, "MiB", memory, Target::AtMost(120.0)));
    drop(rows);
    cached.stop().await?;
    uncached.stop().await?;
    Ok(figures)
}

/// Servers that give the very bytes that usersd gives, over gRPC and as JSON.
async fn baselines(usersd: &Server, dir: &Path, seeded: &Seeded) -> Result<[Server; 2]> {
    let client = Client::new();
    let message = kinds::read(seeded)?.answer(&client, usersd.address).await?.slice(FRAME_HEADER..);
    let json = kinds::read_json(seeded).answer(&client, usersd.address).await?;
    eprintln!("one answer: {} bytes of protobuf, {} of JSON", message.len(), json.len());
    fs::write(dir.join("answer.pb"), &message)?;
    fs::write(dir.join("answer.json"), &json)?;
    let bare_tonic = baseline::start(Kind::Grpc, &dir.join("answer.pb")).await?;
    let bare_axum = baseline::start(Kind::Json, &dir.join("answer.json")).await?;
    Ok([bare_tonic, bare_axum])
}

/// Of all rows but the first two, which are the baselines.
fn figures(database: &str, rows: &[Row<'_>]) -> Vec<Figure> {
    let [bare_tonic, bare_axum, ours @ ..] = rows else { return Vec::new() };
    let mut figures = Vec::new();
    for row in ours {
        let baseline = if row.call.wire == Wire::Json { bare_axum } else { bare_tonic };
        let mut add = |what: &str, unit, figure: fn(&Cost) -> f64, target| {
            let of = |row: &Row<'_>| row.costs.iter().map(figure).collect::<Vec<_>>();
            let name = format!("{database}: {}{what}", row.name);
            figures.push(Figure::beside(name, unit, &of(row), &of(baseline), target));
        };
        add(", CPU", "µs", |cost| cost.cpu, row.targets.0);
        add(", calls", "/s", |cost| cost.load.calls_a_second, row.targets.1);
        add(", p99", "µs", |cost| cost.load.p99, Target::None);
    }
    figures
}

impl<'a> Row<'a> {
    /// Asks once, to see that the answer is a real one.
    async fn new(suffix: &str, call: Call, server: &'a Server, targets: (Target, Target)) -> Result<Self> {
        let answer_bytes = call.answer(&Client::new(), server.address).await?.len();
        let name = format!("{}{suffix}", call.name);
        Ok(Self { name, call, server, targets, answer_bytes, costs: Vec::new() })
    }

    async fn load(&self, calls: usize, round: usize, dir: &Path) -> Result<Cost> {
        let before = self.server.cpu_times()?;
        let load = load::run(&self.call, self.server.address, calls, round, self.answer_bytes, dir).await?;
        let nanos = self.server.cpu_times()?.since(&before);
        #[expect(clippy::cast_precision_loss, reason = "a load takes far less than 52 days")]
        let cpu = nanos as f64 / 1e3 / calls as f64;
        Ok(Cost { load, cpu })
    }
}
