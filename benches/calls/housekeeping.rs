//! What writers feel of housekeeping: of the removal of ended sessions, of clearing the log of a purged user and, on SQLite,
//! of merging the search index.

use std::path::Path;
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait as _, Statement};
use usersd::clock::Clock;
use usersd::store::Store;

use super::idle;
use super::seed::{self, Seeded};
use super::writes::{Write, Writer, p99};
use crate::Result;
use crate::databases::{Place, Places};
use crate::figures::{Figure, Target};
use crate::options::Options;
use crate::server::Server;

/// Callers who write at a time, and writes between two looks at the database.
const CALLERS: usize = 4;
const CALLS: usize = 500;

/// Writes of a round without housekeeping, in multiples of [`CALLS`].
const ALONE: usize = 6;

/// Ended sessions of each of the users that sessions are opened for, which a round removes.
const ENDED: usize = 40;

/// Events of a purged user, whose log a round clears.
const EVENTS: usize = 20_000;

/// Users who are created before a round, so that the search index has many segments.
const CREATED: usize = 2_000;

/// The longest time that writers are watched beside housekeeping.
const WATCHED: Duration = Duration::from_mins(1);

/// Measures the p99 of `Update` beside housekeeping and without it, in turns.
pub(super) async fn measure(
    options: &Options,
    dir: &Path,
    places: &Places,
    seeded: &Seeded,
) -> Result<Vec<Figure>> {
    let place = &places.large;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        eprintln!("{}: writes beside housekeeping, round {} of {}", places.kind, round + 1, options.rounds);
        let server = Server::usersd(&options.server, dir, &place.url).await?;
        let writer = Writer::connect(&server, seeded).await?;
        idle::wait(&server).await?;
        let mut millis = Vec::new();
        for _ in 0..ALONE {
            millis.extend(writer.run(Write::Update, CALLERS, CALLS).await?.millis);
        }
        alone.push(p99_of(millis));
        writer.create_users(CALLERS, CREATED).await?;
        server.stop().await?;

        seed::end_sessions(place, &seeded.others, ENDED).await?;
        seed::purge_with_log(place, EVENTS).await?;
        // Housekeeping begins with the server.
        let server = Server::usersd(&options.server, dir, &place.url).await?;
        let writer = Writer::connect(&server, seeded).await?;
        let (begun, mut millis) = (Instant::now(), Vec::new());
        while begun.elapsed() < WATCHED && is_due(place).await? {
            millis.extend(writer.run(Write::Update, CALLERS, CALLS).await?.millis);
        }
        eprintln!("watched {} writes for {:.0} s", millis.len(), begun.elapsed().as_secs_f64());
        beside.push(p99_of(millis));
        server.stop().await?;
    }
    let name = format!("{}: p99 of Update beside housekeeping and without it", places.kind);
    Ok(vec![Figure::beside(name, "ms", &beside, &alone, Target::AtMost(2.0))])
}

fn p99_of(mut millis: Vec<f64>) -> f64 {
    millis.sort_by(f64::total_cmp);
    p99(&millis)
}

/// Returns true if there are ended sessions, or logs to clear.
async fn is_due(place: &Place) -> Result<bool> {
    let store = Store::connect(&place.url, 2).await?;
    let sql = format!(
        "SELECT namespace FROM purged UNION ALL SELECT namespace FROM sessions WHERE expires <= {} LIMIT 1",
        Clock::System.now().0
    );
    let statement = Statement::from_string(store.reader().get_database_backend(), sql);
    let ended = store.reader().query_one_raw(statement).await?.is_some();
    store.close().await;
    Ok(ended)
}
