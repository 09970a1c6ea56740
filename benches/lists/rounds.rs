//! The rounds: each kind of call on the one database and on the other, over and over.

use std::path::Path;
use std::time::Instant;

use tonic::transport::Endpoint;

use super::cases::{Case, Client, Known};
use super::report::{Cost, Row};
use super::seed::{self, TENANTS_USERS};
use crate::Result;
use crate::databases::{Place, Places};
use crate::figures::median;
use crate::options::Options;
use crate::server::{CpuTimes, Server};

/// Of the calls of a round, as many come before it and are not counted, and as many are enough if they take long.
const FEWER: usize = 10;

/// A server, its database and its users.
struct Subject<'a> {
    place: &'a Place,
    server: Server,
    client: Client,
    known: Known,
    /// The small tenant's.
    tenants: Known,
}

/// Fills the databases and measures every kind of call: on the small and the large one, and for the small tenant alone
/// and in the large one.
pub(crate) async fn measure(options: &Options, dir: &Path, places: &Places) -> Result<Vec<Row>> {
    let small = Subject::start(options, dir, &places.small, options.rows.0, false).await?;
    let alone = Subject::start(options, dir, &places.alone, 0, true).await?;
    let large = Subject::start(options, dir, &places.large, options.rows.1, true).await?;
    let mut subjects = [small, alone, large];
    let mut rows: Vec<Row> =
        Case::all().into_iter().filter(|case| case.name.contains(&options.only)).map(Row::new).collect();
    for round in 0..options.rounds {
        eprintln!("{}: round {} of {}", places.kind, round + 1, options.rounds);
        for row in &mut rows {
            let [small, alone, large] = &mut subjects;
            let base = if row.case.tenant { alone } else { small };
            for (subject, costs) in [base, large].into_iter().zip(&mut row.costs) {
                costs.extend(subject.measure(options, &row.case, round).await?);
            }
        }
    }
    for subject in subjects {
        subject.server.stop().await?;
    }
    Ok(rows)
}

impl<'a> Subject<'a> {
    async fn start(
        options: &Options,
        dir: &Path,
        place: &'a Place,
        rows: usize,
        tenant: bool,
    ) -> Result<Self> {
        let (samples, tenants) = seed::seed(place, rows, tenant).await?;
        // A run of `calls` may have left a key.
        let open = [("USERSD_AUTH", "off")];
        let server = Server::usersd_with(&options.server, dir, &place.url, &open).await?;
        let mut client = Client::new(Endpoint::new(format!("http://{}", server.address))?.connect().await?);
        let mut known = Known::new(rows, samples);
        if rows > 0 {
            known.dive(&mut client).await?;
        }
        Ok(Self { place, server, client, known, tenants: Known::new(TENANTS_USERS, tenants) })
    }

    /// One round of one kind; nothing if there are too few users for it.
    async fn measure(&mut self, options: &Options, case: &Case, round: usize) -> Result<Option<Cost>> {
        let known = if case.tenant { &self.tenants } else { &self.known };
        if !case.fits(known) {
            return Ok(None);
        }
        let fewer = options.searches.div_ceil(FEWER);
        let calls = if case.long { fewer } else { options.searches };
        for number in 0..fewer {
            case.call(&mut self.client, known, number).await?;
        }
        let before = self.cpu_times()?;
        let (mut micros, mut found) = (Vec::with_capacity(calls), 0);
        for number in 0..calls {
            let begun = Instant::now();
            found += case.call(&mut self.client, known, round * calls + number).await?;
            micros.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        let nanos = self.cpu_times()?.since(&before);
        let slowest = calls * 99 / 100;
        micros.sort_by(f64::total_cmp);
        #[expect(clippy::cast_precision_loss, reason = "far less than 52 days, and few users")]
        let (cpu, found) = (nanos as f64 / 1e3 / calls as f64, found as f64 / calls as f64);
        Ok(Some(Cost { p50: median(&micros), p99: micros[slowest], cpu, found }))
    }

    /// Of the server and, on PostgreSQL, of the processes that it is connected to.
    fn cpu_times(&self) -> Result<CpuTimes> {
        CpuTimes::of_server_and_database(&self.server, self.place)
    }
}
