//! What single calls cost: beside servers that answer a constant, or beside an older build. And how soon the server
//! starts, what it weighs, and what it costs while nobody calls.

mod baseline;
mod compare;
mod gateway;
mod housekeeping;
mod idle;
mod kinds;
mod load;
mod rounds;
mod seed;
mod writes;

use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) use baseline::{Kind, serve as serve_baseline};

use crate::Result;
use crate::databases::{Databases, Place};
use crate::figures::{Figure, Target, median};
use crate::options::Options;
use crate::server::Server;
use crate::wire::Client;
use seed::Seeded;

/// Starts measured on the existing database, and the pause after which an idle server's memory is read.
const STARTS: usize = 10;
const SETTLE: Duration = Duration::from_millis(200);

/// The figures of each database there is.
pub(crate) async fn measure(options: &Options, databases: &Databases) -> Result<Vec<Figure>> {
    load::check().await?;
    let dir = databases.dir();
    let mut figures = Vec::new();
    if let Some(before) = &options.before {
        figures.extend(compare::measure(options, before, dir, None).await?);
        if let Some(admin) = &options.postgres {
            figures.extend(compare::measure(options, before, dir, Some(admin)).await?);
        }
        return Ok(figures);
    }
    if let Some(program) = &options.gateway {
        return gateway::measure(options, program, dir).await;
    }
    for places in &databases.places {
        let seeded = seed::seed(options, dir, &places.large).await?;
        figures.extend(rounds::measure(options, dir, places, &seeded).await?);
        figures.extend(writes::measure(options, dir, places, &seeded).await?);
        figures.extend(housekeeping::measure(options, dir, places, &seeded).await?);
        if places.large.file.is_some() {
            figures.extend(measure_starts(options, dir, &places.large, &seeded).await?);
            figures.extend(idle::measure(options, dir, &places.large, &seeded).await?);
        }
    }
    Ok(figures)
}

/// How soon a server answers on a database that has its tables and users, and what it weighs when idle.
async fn measure_starts(
    options: &Options,
    dir: &Path,
    place: &Place,
    seeded: &Seeded,
) -> Result<Vec<Figure>> {
    let read = kinds::read(seeded)?;
    let (mut millis, mut mebibytes) = (Vec::new(), Vec::new());
    eprintln!("starting {STARTS} times");
    for _ in 0..STARTS {
        let begun = Instant::now();
        let server = Server::usersd(&options.server, dir, &place.url).await?;
        read.answer(&Client::new(), server.address).await?;
        millis.push(begun.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(SETTLE).await;
        mebibytes.push(server.mebibytes("VmRSS")?);
        server.stop().await?;
    }
    let start = "start to the first answered call, existing database";
    Ok(vec![
        Figure::alone(start, "ms", median(&millis), Target::AtMost(100.0)),
        Figure::alone("idle: resident memory", "MiB", median(&mebibytes), Target::AtMost(30.0)),
    ])
}
