//! Two builds of usersd beside each other: what signing in costs on the one and on the other, in turns.

use std::path::Path;
use std::time::Instant;

use super::load::{Clients, Login};
use super::{ROUNDS, TURN, float, start_server};
use crate::Result;
use crate::figures::{Figure, Target, median};
use crate::options::Options;

/// How much worse the newer build may be.
const LIMIT: Target = Target::AtMost(1.05);

/// Log-ins one after the other in each turn.
const ALONE: usize = 8;

/// Log-ins a second that come at a server that is busy: many times what two CPUs can hash.
const ARRIVALS: f64 = 300.0;

/// The figures of a turn, each better when smaller.
const FIGURES: [(&str, &str); 5] = [
    ("a log-in alone", "ms"),
    ("a log-in of 64 clients", "ms"),
    ("a read beside them", "µs"),
    ("p99 of a read beside them", "ms"),
    ("p99 of a refusal", "ms"),
];

/// Measures `options.server` beside `before`.
pub(crate) async fn measure(options: &Options, before: &Path) -> Result<Vec<Figure>> {
    let dirs = [tempfile::tempdir()?, tempfile::tempdir()?];
    let servers = [
        start_server(before, dirs[0].path(), None).await?,
        start_server(&options.server, dirs[1].path(), None).await?,
    ];
    let clients = [Clients::seed(servers[0].address).await?, Clients::seed(servers[1].address).await?];
    let mut rounds: Vec<[[f64; FIGURES.len()]; 2]> = Vec::new();
    for round in 0..ROUNDS {
        let mut pair = [[f64::NAN; FIGURES.len()]; 2];
        for turn in [round % 2, (round + 1) % 2] {
            pair[turn] = turn_of(&clients[turn]).await?;
        }
        eprintln!("round {} of {ROUNDS}", round + 1);
        rounds.push(pair);
    }
    for server in servers {
        server.stop().await?;
    }
    let figure = |(at, (name, unit)): (usize, &(&str, &'static str))| {
        let of = |build: usize| rounds.iter().map(|pair| pair[build][at]).collect::<Vec<_>>();
        Figure::beside(format!("{name}, beside the build before"), unit, &of(1), &of(0), LIMIT)
    };
    Ok(FIGURES.iter().enumerate().map(figure).collect())
}

/// One turn of one build.
async fn turn_of(clients: &Clients) -> Result<[f64; FIGURES.len()]> {
    let mut alone = Vec::new();
    for n in 0..ALONE {
        let begun = Instant::now();
        let Login::Done = clients.login(n).await else { return Err("a log-in alone failed".into()) };
        alone.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let crowd = clients.log_in(64, TURN).await;
    crowd.none_failed()?;
    let (reads, beside) = tokio::join!(clients.read(TURN), clients.log_in(64, TURN));
    beside.none_failed()?;
    let reads = reads?;
    let busy = clients.arrive(ARRIVALS, TURN).await;
    busy.some_refused()?;
    let span = TURN.as_secs_f64();
    Ok([
        median(&alone),
        span * 1e3 / float(crowd.done.len()),
        span * 1e6 / float(reads.done.len()),
        reads.p99() * 1e3,
        busy.p99_refused() * 1e3,
    ])
}
