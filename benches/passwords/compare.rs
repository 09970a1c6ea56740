//! Two builds of usersd beside each other: what signing in costs on the one and on the other, in turns.

use std::path::Path;
use std::time::Instant;

use crate::bars::{Bar, median};
use crate::load::{Clients, Login};
use crate::start::Result;
use crate::{ROUNDS, TURN, float, start_server};

/// How much worse the newer build may be.
const LIMIT: f64 = 1.05;

/// Log-ins one after the other in each turn.
const ALONE: usize = 8;

/// Log-ins a second that come at a server that is busy: many times what two CPUs can hash.
const ARRIVALS: f64 = 300.0;

/// The figures of a turn, each better when smaller.
const FIGURES: [&str; 5] = [
    "a log-in alone, ms",
    "ms a log-in, 64 clients without pause",
    "µs a read beside them",
    "p99 of a read beside them, ms",
    "p99 of a refusal, ms",
];

/// Measures the build that cargo made beside `before`.
pub(crate) async fn compare(before: &Path) -> Result<Vec<Bar>> {
    let dirs = [tempfile::tempdir()?, tempfile::tempdir()?];
    let after = Path::new(env!("CARGO_BIN_EXE_usersd"));
    let servers = [start_server(before, dirs[0].path()).await?, start_server(after, dirs[1].path()).await?];
    let clients = [Clients::seed(servers[0].address).await?, Clients::seed(servers[1].address).await?];
    let mut rounds: Vec<[[f64; FIGURES.len()]; 2]> = Vec::new();
    for round in 0..ROUNDS {
        let mut pair = [[f64::NAN; FIGURES.len()]; 2];
        for turn in [round % 2, (round + 1) % 2] {
            pair[turn] = measure(&clients[turn]).await?;
        }
        eprintln!("round {} of {ROUNDS}", round + 1);
        rounds.push(pair);
    }
    for server in servers {
        server.stop().await?;
    }
    println!("{:40}{:>12}{:>12}{:>10}", "", "before", "after", "ratio");
    let bar = |(at, name): (usize, &&str)| {
        let middle = |turn: usize| median(&rounds.iter().map(|pair| pair[turn][at]).collect::<Vec<_>>());
        let figure = median(&rounds.iter().map(|pair| pair[1][at] / pair[0][at]).collect::<Vec<_>>());
        println!("{name:40}{:>12.2}{:>12.2}{figure:>10.3}", middle(0), middle(1));
        Bar { text: format!("{name}, of the build before"), figure, unit: "x", limit: LIMIT }
    };
    Ok(FIGURES.iter().enumerate().map(bar).collect())
}

/// One turn of one build.
async fn measure(clients: &Clients) -> Result<[f64; FIGURES.len()]> {
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
