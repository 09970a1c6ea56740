//! Ratios and the table.

use crate::bars::{Bar, median};
use crate::load::Load;
use crate::options::Options;
use crate::wire::Wire;

/// One load: what its callers saw and what the server paid.
pub(crate) struct Cost {
    pub(crate) load: Load,
    /// The server's CPU time per call in microseconds, user and system.
    pub(crate) cpu: f64,
}

/// Every call's rounds. The first are the two baselines and our reads of the same user, then reads of it and of its session
/// from a server that wants a key, and of the session without.
pub(crate) struct Table(Vec<(String, Wire, Vec<Cost>)>);

const GRPC_BASELINE: usize = 0;
const GRPC_READ: usize = 1;
const JSON_BASELINE: usize = 2;
const JSON_READ: usize = 3;
const KEYED_READ: usize = 4;
const KEYED_READ_SESSION: usize = 5;
const GRPC_READ_SESSION: usize = 6;

impl Table {
    /// Rows in the order in which they ran.
    pub(crate) fn new(rows: Vec<(String, Wire, Vec<Cost>)>) -> Self {
        Self(rows)
    }

    /// Median over the rounds of `row`'s CPU per call as a multiple of `other`'s in the same round, so that a
    /// machine that slows down between rounds does not count.
    fn ratio(&self, row: usize, other: usize) -> f64 {
        let rounds = self.0[row].2.iter().zip(&self.0[other].2);
        median(&rounds.map(|(ours, theirs)| ours.cpu / theirs.cpu).collect::<Vec<_>>())
    }

    /// Median over the rounds of what `row` costs more than `other` in the same round, in microseconds of CPU per call.
    fn difference(&self, row: usize, other: usize) -> f64 {
        let rounds = self.0[row].2.iter().zip(&self.0[other].2);
        median(&rounds.map(|(ours, theirs)| ours.cpu - theirs.cpu).collect::<Vec<_>>())
    }

    /// What a key may cost.
    pub(crate) fn bars_of_keys(&self) -> Vec<Bar> {
        let bar = |call: &str, keyed, open| Bar {
            text: format!("gRPC {call} on SQLite, a key more than open mode"),
            figure: self.difference(keyed, open),
            unit: " µs",
            limit: 1.0,
        };
        vec![bar("Read", KEYED_READ, GRPC_READ), bar("ReadSession", KEYED_READ_SESSION, GRPC_READ_SESSION)]
    }

    /// Writes the table to standard output.
    pub(crate) fn print(&self, database: &str, options: &Options) {
        println!(
            "\n{database}: {} users, medians of {} x {} calls; gRPC 4 connections x 16 streams, JSON 32 \
             HTTP/1.1 connections\nratios are of server CPU per call, within a round: to the baseline of the \
             same wire, to our gRPC Read\n",
            options.users + 1,
            options.rounds,
            options.calls
        );
        println!(
            "{:36}{:>9}{:>9}{:>9}{:>13}{:>12}{:>9}",
            "call", "calls/s", "p50 µs", "p99 µs", "CPU µs/call", "x baseline", "x Read"
        );
        for (row, (name, wire, costs)) in self.0.iter().enumerate() {
            let middle = |figure: fn(&Cost) -> f64| median(&costs.iter().map(figure).collect::<Vec<_>>());
            let baseline = if *wire == Wire::Json { JSON_BASELINE } else { GRPC_BASELINE };
            println!(
                "{name:36}{:>9.0}{:>9.0}{:>9.0}{:>13.1}{:>12.2}{:>9.2}",
                middle(|cost| cost.load.calls_a_second),
                middle(|cost| cost.load.p50),
                middle(|cost| cost.load.p99),
                middle(|cost| cost.cpu),
                self.ratio(row, baseline),
                self.ratio(row, GRPC_READ),
            );
        }
    }

    /// What reading a user may cost.
    pub(crate) fn bars(&self) -> Vec<Bar> {
        vec![
            Bar {
                text: "gRPC Read on SQLite, CPU per call, of the baseline's".to_owned(),
                figure: self.ratio(GRPC_READ, GRPC_BASELINE),
                unit: "x",
                limit: 5.0,
            },
            Bar {
                text: "JSON Read on SQLite, CPU per call, of our gRPC Read's".to_owned(),
                figure: self.ratio(JSON_READ, GRPC_READ),
                unit: "x",
                limit: 1.5,
            },
        ]
    }
}
