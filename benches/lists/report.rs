//! The tables and the targets.

use super::cases::{self, Case, DEEP, DEEP_SHORT, FIRST, FIRST_SHORT};
use crate::figures::{Figure, Target, median};
use crate::options::Options;

/// One round of one kind of call.
pub(crate) struct Cost {
    /// Microseconds.
    pub(crate) p50: f64,
    /// Microseconds.
    pub(crate) p99: f64,
    /// CPU time per call in microseconds, of the server and of the database's processes.
    pub(crate) cpu: f64,
    /// Users that came back, per call.
    pub(crate) found: f64,
}

/// One kind of call and its rounds.
pub(crate) struct Row {
    pub(crate) case: Case,
    /// On the small database, or the one where the small tenant is alone, and on the large one.
    pub(crate) costs: [Vec<Cost>; 2],
}

/// What growing a hundredfold may cost, and what neighbours may.
const GROWTH: f64 = 1.5;

/// What a deep page may cost more than the first: nothing, but no two measurements are the same.
const NOISE: f64 = 1.1;

/// What the total, which is kept, may make the first page grow; and what point reads may.
const COUNTED: f64 = 1.3;
const POINT: f64 = 1.1;

/// Milliseconds that the slowest searches of few hits, and of what people type, may take.
const QUICK: f64 = 20.0;

/// Milliseconds that an offset of many may take.
fn far(database: &str) -> f64 {
    if database == "SQLite" { 10.0 } else { 50.0 }
}

impl Row {
    pub(crate) fn new(case: Case) -> Self {
        Self { case, costs: [Vec::new(), Vec::new()] }
    }

    fn middle(&self, which: usize, figure: fn(&Cost) -> f64) -> f64 {
        median(&self.costs[which].iter().map(figure).collect::<Vec<_>>())
    }

    /// Median over the rounds of what it costs on the large database as a multiple of the other's in the same round.
    fn growth(&self, figure: fn(&Cost) -> f64) -> f64 {
        ratio(&self.costs[1], &self.costs[0], figure)
    }

    fn print(&self) {
        print!("{:34}", self.case.name);
        for (which, costs) in self.costs.iter().enumerate() {
            if costs.is_empty() {
                print!("{:>10}{:>10}{:>10}{:>7}", "-", "-", "-", "-");
                continue;
            }
            print!(
                "{:>10.0}{:>10.0}{:>10.0}{:>7.1}",
                self.middle(which, |cost| cost.p50),
                self.middle(which, |cost| cost.p99),
                self.middle(which, |cost| cost.cpu),
                self.middle(which, |cost| cost.found),
            );
        }
        if self.costs.iter().any(Vec::is_empty) {
            println!();
        } else {
            println!("{:>8.2}{:>8.2}", self.growth(|cost| cost.p50), self.growth(|cost| cost.cpu));
        }
    }
}

fn ratio(ours: &[Cost], theirs: &[Cost], figure: fn(&Cost) -> f64) -> f64 {
    median(&ours.iter().zip(theirs).map(|(ours, theirs)| figure(ours) / figure(theirs)).collect::<Vec<_>>())
}

/// Writes the tables of a database to standard output.
pub(crate) fn print(database: &str, rows: &[Row], options: &Options) {
    let (small, large) = options.rows;
    println!(
        "\n{database}: one caller, one call after the other; µs, medians of {} rounds of {} calls (of a tenth \
         where they take long)\nCPU is the server's and its database's; users are those of a page; x is the second \
         by the first, within a round",
        options.rounds, options.searches
    );
    for (tenant, base, beside) in [
        (false, format!("{small} users"), format!("{large} users")),
        (true, "a tenant of 1000, alone".to_owned(), format!("beside {large}")),
    ] {
        println!("\n{:34}{:>37}{:>37}{:>16}", "", base, beside, "x");
        print!("{:34}", "call");
        for _ in 0..2 {
            print!("{:>10}{:>10}{:>10}{:>7}", "p50", "p99", "CPU", "users");
        }
        println!("{:>8}{:>8}", "p50", "CPU");
        rows.iter().filter(|row| row.case.tenant == tenant).for_each(Row::print);
    }
}

/// Every kind's growth in CPU time, what the slowest of the quick ones took, and what a deep page costs.
pub(crate) fn figures(database: &str, rows: &[Row]) -> Vec<Figure> {
    let mut figures = Vec::new();
    let cpu = |costs: &[Cost]| costs.iter().map(|cost| cost.cpu).collect::<Vec<_>>();
    for row in rows {
        let [base, large] = &row.costs;
        let name = row.case.name;
        let with = if row.case.tenant { "beside many" } else { "growth" };
        if !base.is_empty() && !large.is_empty() {
            let name = format!("{database}: {with}, {name}");
            figures.push(Figure::beside(name, "µs", &cpu(large), &cpu(base), growth_target(row)));
        }
        let millis = |figure: fn(&Cost) -> f64| row.middle(1, figure) / 1e3;
        match row.case.target {
            cases::Target::Quick | cases::Target::Typed => {
                let (name, p99) = (format!("{database}: p99, {name}"), millis(|cost| cost.p99));
                figures.push(Figure::alone(name, "ms", p99, Target::AtMost(QUICK)));
            }
            cases::Target::Far => {
                let (name, p50) = (format!("{database}: p50, {name}"), millis(|cost| cost.p50));
                figures.push(Figure::alone(name, "ms", p50, Target::AtMost(far(database))));
            }
            cases::Target::Point => {
                let p50 = |costs: &[Cost]| costs.iter().map(|cost| cost.p50).collect::<Vec<_>>();
                let name = format!("{database}: growth of p50, {name}");
                figures.push(Figure::beside(name, "µs", &p50(large), &p50(base), Target::AtMost(POINT)));
            }
            cases::Target::Steady | cases::Target::Counted | cases::Target::Open => {}
        }
    }
    let named = |name: &str| rows.iter().find(|row| row.case.name == name && !row.case.tenant);
    for (deep, first) in [(DEEP, FIRST), (DEEP_SHORT, FIRST_SHORT)] {
        if let (Some(deep), Some(first)) = (named(deep), named(first))
            && !deep.costs[1].is_empty()
        {
            let name = format!("{database}: {} beside {}", deep.case.name, first.case.name);
            figures.push(Figure::beside(
                name,
                "µs",
                &cpu(&deep.costs[1]),
                &cpu(&first.costs[1]),
                Target::AtMost(NOISE),
            ));
        }
    }
    figures
}

/// The target of a kind's growth.
fn growth_target(row: &Row) -> Target {
    match row.case.target {
        _ if row.case.tenant => Target::AtMost(GROWTH),
        cases::Target::Steady | cases::Target::Quick => Target::AtMost(GROWTH),
        cases::Target::Counted => Target::AtMost(COUNTED),
        cases::Target::Typed | cases::Target::Far | cases::Target::Point | cases::Target::Open => {
            Target::None
        }
    }
}

/// Writes what a user takes to standard output.
pub(crate) fn print_sizes(database: &str, users: usize, (whole, parts): &(u64, Vec<(String, u64)>)) {
    let each = |bytes: u64| bytes / u64::try_from(users).unwrap_or(u64::MAX).max(1);
    println!("\n{database}: {} MB for {users} users, {} bytes each:", whole / 1_000_000, each(*whole));
    for (name, bytes) in parts.iter().filter(|(_, bytes)| each(*bytes) > 0) {
        println!("  {name:34}{:>8} MB{:>8} bytes each", bytes / 1_000_000, each(*bytes));
    }
}
