//! What lists and searches cost where there are many users.
//!
//! Two databases, of which one has a hundred times the users of the other, and one with a small tenant who is in the
//! large one as well. The same calls are made on each, in turns: what counts is how much more they cost.

mod cases;
mod people;
mod report;
mod rounds;
pub(crate) mod seed;

use crate::Result;
use crate::databases::{Databases, Places};
use crate::figures::Figure;
use crate::options::Options;
use seed::TENANTS_USERS;

/// The figures of each database there is.
pub(crate) async fn measure(options: &Options, databases: &Databases) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for places in &databases.places {
        figures.extend(measure_on(options, databases, places).await?);
    }
    Ok(figures)
}

async fn measure_on(options: &Options, databases: &Databases, places: &Places) -> Result<Vec<Figure>> {
    let rows = rounds::measure(options, databases.dir(), places).await?;
    if options.details {
        report::print(places.kind, &rows, options);
        let sizes = seed::sizes(&places.large).await?;
        report::print_sizes(places.kind, options.rows.1 + TENANTS_USERS, &sizes);
    }
    Ok(report::figures(places.kind, &rows))
}
