//! The rounds: baseline, ours, baseline, ours, and the other calls, over and over.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::baseline::{self, Kind};
use crate::calls::{self, Call};
use crate::load::{self, Load};
use crate::options::Options;
use crate::report::{Cost, Table};
use crate::seed::{self, Seeded};
use crate::server::Server;
use crate::wire::Client;

/// Bytes before the message in gRPC's frame.
const FRAME_HEADER: usize = 5;

/// A call and the server that takes it.
struct Pair<'a> {
    call: Call,
    server: &'a Server,
    /// Bytes in the body of its answer.
    answer_bytes: usize,
}

/// Starts usersd on the empty database at `url`, fills it, and measures every call beside its baseline.
pub(crate) async fn measure(options: &Options, dir: &Path, url: &str) -> Result<Table> {
    let usersd = Server::usersd(&options.server, dir, url).await?;
    let seeded = seed::seed(&usersd, options.users).await?;

    // The baselines give the very bytes that usersd gives.
    let client = Client::new();
    let message = calls::read("")?.answer(&client, usersd.address).await?.slice(FRAME_HEADER..);
    let json = calls::read_json("").answer(&client, usersd.address).await?;
    eprintln!("one answer: {} bytes of protobuf, {} of JSON", message.len(), json.len());
    fs::write(dir.join("answer.pb"), &message)?;
    fs::write(dir.join("answer.json"), &json)?;
    let bare_tonic = baseline::start(Kind::Grpc, &dir.join("answer.pb")).await?;
    let bare_axum = baseline::start(Kind::Json, &dir.join("answer.json")).await?;

    let keyed = Keyed::start(options, dir).await?;

    // The order that `Table` knows them by.
    let mut pairs = vec![
        (calls::read("gRPC baseline: tonic, constant")?, &bare_tonic),
        (calls::read("gRPC Read")?, &usersd),
        (calls::read_json("JSON baseline: axum, constant"), &bare_axum),
        (calls::read_json("GET /v1/users/{id}"), &usersd),
    ];
    pairs.extend(keyed.calls()?.into_iter().map(|call| (call, &keyed.server)));
    pairs.extend(calls::others(options.users, &seeded)?.into_iter().map(|call| (call, &usersd)));
    let mut checked = Vec::new();
    for (call, server) in pairs {
        let answer_bytes = call.answer(&client, server.address).await?.len();
        checked.push(Pair { call, server, answer_bytes });
    }
    let table = rounds(options, dir, &checked).await?;
    usersd.stop().await?;
    keyed.server.stop().await?;
    Ok(table)
}

/// A server with the same users that wants a key, on SQLite.
struct Keyed {
    server: Server,
    seeded: Seeded,
    key: String,
}

impl Keyed {
    async fn start(options: &Options, dir: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("keyed-").tempdir_in(dir)?.keep();
        let url = format!("sqlite://{}?mode=rwc", dir.join("usersd.db").display());
        let open = Server::usersd(&options.server, &dir, &url).await?;
        let seeded = seed::seed(&open, options.users).await?;
        open.stop().await?;
        let key = Server::new_key(&options.server, &dir, &url).await?;
        Ok(Self { server: Server::usersd(&options.server, &dir, &url).await?, seeded, key })
    }

    fn calls(&self) -> Result<Vec<Call>> {
        calls::with_key(&self.seeded, &self.key)
    }
}

async fn rounds(options: &Options, dir: &Path, pairs: &[Pair<'_>]) -> Result<Table> {
    for pair in pairs {
        pair.load(options.calls.div_ceil(4), 0, dir).await?;
    }
    let mut costs: Vec<Vec<Cost>> = pairs.iter().map(|_| Vec::new()).collect();
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        for (pair, costs) in pairs.iter().zip(&mut costs) {
            costs.push(pair.load(options.calls, round, dir).await?);
        }
    }
    let rows = pairs.iter().map(|pair| (pair.call.name.clone(), pair.call.wire)).zip(costs);
    Ok(Table::new(rows.map(|((name, wire), costs)| (name, wire, costs)).collect()))
}

impl Pair<'_> {
    async fn load(&self, calls: usize, round: usize, dir: &Path) -> Result<Cost> {
        let before = self.server.cpu_times()?;
        let load: Load =
            load::run(&self.call, self.server.address, calls, round, self.answer_bytes, dir).await?;
        let nanos = self.server.cpu_times()?.since(&before);
        #[expect(clippy::cast_precision_loss, reason = "a load takes far less than 52 days")]
        let cpu = nanos as f64 / 1e3 / calls as f64;
        Ok(Cost { load, cpu })
    }
}
