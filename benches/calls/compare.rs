//! Two builds of usersd beside each other: every call of the table, and creating users, on the one and on the other in
//! turns.

use std::path::Path;

use crate::Result;
use crate::bars::{Bar, median};
use crate::calls::{self, Call};
use crate::load;
use crate::options::Options;
use crate::seed::{self, Seeded};
use crate::server::Server;
use crate::wire::Client;

/// Users that one round creates on each server.
const CREATED: usize = 1_000;

/// How much dearer the newer build may be.
const LIMIT: f64 = 1.05;

/// One build, with a server for callers without a key and one for callers with one.
struct Build {
    open: Server,
    keyed: Server,
    /// The calls, and whether each is for the server that wants keys.
    calls: Vec<(Call, bool)>,
    /// Users that exist beside the one that is read.
    users: usize,
}

/// Measures `options.server` beside `before` on databases of their own at `url(name)`, and gives a bar for each call.
pub(crate) async fn compare(
    options: &Options,
    before: &Path,
    dir: &Path,
    url: impl Fn(&str) -> Result<String>,
) -> Result<Vec<Bar>> {
    let mut old = Build::start(options, before, dir, &url, "before").await?;
    let mut new = Build::start(options, &options.server, dir, &url, "after").await?;
    let rows = new.calls.len() + 1;
    let mut costs: Vec<[Vec<f64>; 2]> = vec![[Vec::new(), Vec::new()]; rows];
    // The first round warms both up and does not count. Every second one begins with the other build.
    for round in 0..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for (row, costs) in costs.iter_mut().enumerate() {
            let mut pair = [f64::NAN; 2];
            for turn in [round % 2, (round + 1) % 2] {
                let build = if turn == 0 { &mut old } else { &mut new };
                pair[turn] = build.measure(row, options.calls, round, dir).await?;
            }
            if round > 0 {
                costs[0].push(pair[0]);
                costs[1].push(pair[1]);
            }
        }
    }
    let names: Vec<String> = new.calls.iter().map(|(call, _)| call.name.clone()).collect();
    for build in [old, new] {
        build.open.stop().await?;
        build.keyed.stop().await?;
    }
    Ok(bars(names, &costs))
}

/// Prints the table. A row's ratio is the median of its rounds' ratios.
fn bars(names: Vec<String>, costs: &[[Vec<f64>; 2]]) -> Vec<Bar> {
    println!("\n{:40}{:>14}{:>14}{:>10}   µs of server CPU per call", "call", "before", "after", "ratio");
    let names = names.into_iter().chain(["Create, 16 at a time".to_owned()]);
    let bar = |(name, [before, after]): (String, &[Vec<f64>; 2])| {
        let ratios: Vec<f64> = before.iter().zip(after).map(|(before, after)| after / before).collect();
        let figure = median(&ratios);
        println!("{name:40}{:>14.1}{:>14.1}{figure:>10.3}", median(before), median(after));
        Bar { text: format!("{name}, of the build before"), figure, unit: "x", limit: LIMIT }
    };
    names.zip(costs).map(bar).collect()
}

impl Build {
    async fn start(
        options: &Options,
        binary: &Path,
        dir: &Path,
        url: &impl Fn(&str) -> Result<String>,
        name: &str,
    ) -> Result<Self> {
        let (open_url, keyed_url) = (url(&format!("{name}_open"))?, url(&format!("{name}_keyed"))?);
        let open = Server::usersd(binary, dir, &open_url).await?;
        let seeded: Seeded = seed::seed(&open, options.users).await?;
        let first = Server::usersd(binary, dir, &keyed_url).await?;
        let keyed_seed = seed::seed(&first, options.users).await?;
        first.stop().await?;
        let key = Server::new_key(binary, dir, &keyed_url).await?;
        let keyed = Server::usersd(binary, dir, &keyed_url).await?;
        let mut calls: Vec<(Call, bool)> = Vec::new();
        calls.push((calls::read("gRPC Read")?, false));
        calls.push((calls::read_json("GET /v1/users/{id}"), false));
        calls.extend(calls::others(options.users, &seeded)?.into_iter().map(|call| (call, false)));
        calls.extend(calls::with_key(&keyed_seed, &key)?.into_iter().map(|call| (call, true)));
        Ok(Self { open, keyed, calls, users: options.users })
    }

    /// Microseconds of CPU that a call of `row` costs the server.
    async fn measure(&mut self, row: usize, calls: usize, round: usize, dir: &Path) -> Result<f64> {
        let Some((call, keyed)) = self.calls.get(row) else { return self.create().await };
        let server = if *keyed { &self.keyed } else { &self.open };
        let answer = call.answer(&Client::new(), server.address).await?.len();
        let before = server.cpu_times()?;
        load::run(call, server.address, calls, round, answer, dir).await?;
        Ok(micros_each(server.cpu_times()?.since(&before), calls))
    }

    async fn create(&mut self) -> Result<f64> {
        let before = self.open.cpu_times()?;
        seed::create_others(&Client::new(), &self.open, self.users..self.users + CREATED).await?;
        self.users += CREATED;
        Ok(micros_each(self.open.cpu_times()?.since(&before), CREATED))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a load takes far less than 52 days")]
fn micros_each(nanos: u64, calls: usize) -> f64 {
    nanos as f64 / 1e3 / calls as f64
}
