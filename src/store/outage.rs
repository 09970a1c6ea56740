//! Log lines about a database that fails: one when it begins, one a minute with counts, and one when it ends.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::tally::{Counts, last_cause};

use super::Store;
use super::health::State;

/// The time between looks at the counts.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The time between lines about an outage that goes on; and the time without failures after which it has
/// ended where it shows by nothing else.
const REPEAT_INTERVAL: Duration = Duration::from_mins(1);

/// The time after an outage in which failures still belong to it: connections of before are found broken one
/// by one.
const RECOVERY_WINDOW: Duration = Duration::from_secs(3);

/// The kinds of outages, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Until the next start.
    Unusable,
    Silent,
    Unwritable,
    /// The database is well by all that it is asked, and calls fail there.
    Failing,
}

/// A line for the log.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Begun(Kind, Arc<str>),
    Lasts(Kind, Arc<str>, Duration, Counts),
    Ended(Kind, Duration, Counts),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun(Kind::Unusable, cause) => write!(f, "database file cannot be used: {cause}"),
            Self::Lasts(Kind::Unusable, cause, span, counts) => {
                write!(f, "database file could not be used for {} s: {cause}; {counts}", span.as_secs())
            }
            Self::Begun(Kind::Silent, cause) => write!(f, "database does not answer: {cause}"),
            Self::Begun(Kind::Unwritable, cause) => write!(f, "database takes no writes: {cause}"),
            Self::Begun(Kind::Failing, cause) => write!(f, "calls fail at the database: {cause}"),
            Self::Lasts(Kind::Silent, cause, span, counts) => {
                write!(f, "database has not answered for {} s: {cause}; {counts}", span.as_secs())
            }
            Self::Lasts(Kind::Unwritable, cause, span, counts) => {
                write!(f, "database has taken no writes for {} s: {cause}; {counts}", span.as_secs())
            }
            Self::Lasts(Kind::Failing, cause, span, counts) => {
                write!(f, "calls have failed at the database for {} s: {cause}; {counts}", span.as_secs())
            }
            Self::Ended(Kind::Unusable | Kind::Silent, span, counts) => {
                write!(f, "database answers again after {:.1} s; {counts}", span.as_secs_f64())
            }
            Self::Ended(Kind::Unwritable, span, counts) => {
                write!(f, "database takes writes again after {:.1} s; {counts}", span.as_secs_f64())
            }
            Self::Ended(Kind::Failing, span, counts) => {
                write!(f, "calls no longer fail at the database, after {:.1} s; {counts}", span.as_secs_f64())
            }
        }
    }
}

/// An outage that was logged and has not ended.
#[derive(Debug)]
struct Outage {
    kind: Kind,
    since: Instant,
    before: Counts,
    last_logged: Instant,
    /// When the last call failed.
    failed: Instant,
}

/// Derives log lines from what is seen.
#[derive(Debug)]
struct Report {
    outage: Option<Outage>,
    /// The counts when the database was last well.
    calm: Counts,
    seen: Counts,
    /// When an outage was over.
    ended: Option<Instant>,
}

impl Report {
    fn new(counts: Counts) -> Self {
        Self { outage: None, calm: counts, seen: counts, ended: None }
    }

    /// Looks at the state and at the counts, and returns the lines to log.
    fn look(&mut self, now: Instant, state: &State, counts: Counts, cause: &str) -> Vec<Line> {
        let failed = counts.unavailable > self.seen.unavailable;
        // Seen for a second time: what is silent is known to be so by then, and is logged by its own name.
        let failing = self.seen.unavailable > self.calm.unavailable;
        let mut lines = Vec::new();
        if let Some(outage) = &mut self.outage
            && failed
        {
            outage.failed = now;
        }
        let faults = [
            (Kind::Unusable, &state.unusable),
            (Kind::Silent, &state.silent),
            (Kind::Unwritable, &state.unwritable),
        ];
        let worst = faults.into_iter().find_map(|(kind, fault)| Some((kind, fault.as_ref()?)));
        let current = match worst {
            Some((kind, fault)) => Some((kind, fault.since, Arc::clone(&fault.cause))),
            None => self.failing(now, failing).map(|since| (Kind::Failing, since, cause.into())),
        };
        if let Some(outage) = &self.outage
            && current.as_ref().is_none_or(|(kind, ..)| *kind != outage.kind)
        {
            let end = if outage.kind == Kind::Failing { outage.failed } else { now };
            lines.push(Line::Ended(outage.kind, end - outage.since, counts.since(outage.before)));
            (self.outage, self.ended, self.calm) = (None, Some(now), counts);
        }
        match (current, &mut self.outage) {
            (Some((kind, since, cause)), None) => {
                lines.push(Line::Begun(kind, cause));
                self.outage = Some(Outage { kind, since, before: self.calm, last_logged: now, failed: now });
            }
            (Some((kind, since, cause)), Some(outage)) if now - outage.last_logged >= REPEAT_INTERVAL => {
                lines.push(Line::Lasts(kind, cause, now - since, counts.since(outage.before)));
                outage.last_logged = now;
            }
            (None, _) if !failed || self.ended.is_some_and(|at| now - at < RECOVERY_WINDOW) => {
                self.calm = counts;
            }
            _ => {}
        }
        self.seen = counts;
        lines
    }

    /// Since when calls fail though the database is well, if they do.
    fn failing(&self, now: Instant, failing: bool) -> Option<Instant> {
        match &self.outage {
            Some(outage) if outage.kind == Kind::Failing => {
                (now - outage.failed < REPEAT_INTERVAL).then_some(outage.since)
            }
            Some(_) => None,
            None => failing.then_some(now),
        }
    }
}

impl Store {
    /// Writes log lines when the database fails, while it does, and when it is well again, with the number of failed
    /// calls since the start by `counts`. Never returns.
    pub async fn report_outages(&self, counts: impl Fn() -> Counts) {
        let mut state = self.health().subscribe();
        let mut report = Report::new(counts());
        let mut ticks = tokio::time::interval(CHECK_INTERVAL);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = state.changed() => {}
            }
            let seen = state.borrow_and_update().clone();
            for line in report.look(Instant::now(), &seen, counts(), &last_cause()) {
                if matches!(line, Line::Ended(..)) {
                    tracing::info!("{line}");
                } else {
                    tracing::warn!("{line}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::health::Fault;
    use super::*;

    fn unavailable(unavailable: u64) -> Counts {
        Counts { unavailable, ..Counts::default() }
    }

    #[test]
    fn an_outage_is_logged_when_it_begins_once_a_minute_and_when_it_ends() {
        let begun = Instant::now();
        let mut report = Report::new(Counts::default());
        let fault = Some(Fault { since: begun, cause: "connection refused".into() });
        let (well, away) = (State::default(), State { silent: fault, ..State::default() });
        let mut last_logged = Vec::new();
        let mut look = |second: u64, state: &State, count: u64| {
            let lines =
                report.look(begun + Duration::from_secs(second), state, unavailable(count), "pool timed out");
            last_logged.extend(lines.iter().map(|line| format!("{second}: {line}")));
        };
        look(0, &well, 0);
        // Calls fail before the probe has seen it.
        look(1, &well, 3);
        for second in 2..100 {
            look(second, &away, 5 * second);
        }
        look(100, &well, 502);
        // Those that had waited for it.
        look(101, &well, 504);
        for second in 102..300 {
            look(second, &well, 504);
        }
        assert_eq!(
            last_logged,
            [
                "2: database does not answer: connection refused",
                "62: database has not answered for 62 s: connection refused; 310 calls failed: DATABASE_UNAVAILABLE 310",
                "100: database answers again after 100.0 s; 502 calls failed: DATABASE_UNAVAILABLE 502",
            ]
        );
    }

    #[test]
    fn calls_that_fail_at_a_database_that_answers_are_logged_once_a_minute() {
        let begun = Instant::now();
        let mut report = Report::new(Counts::default());
        let mut last_logged = Vec::new();
        for second in 0..200 {
            let count = unavailable(second.min(70) * 10);
            let lines = report.look(
                begun + Duration::from_secs(second),
                &State::default(),
                count,
                "database is locked",
            );
            last_logged.extend(lines.iter().map(|line| format!("{second}: {line}")));
        }
        assert_eq!(
            last_logged,
            [
                "2: calls fail at the database: database is locked",
                "62: calls have failed at the database for 60 s: database is locked; 620 calls failed: \
                 DATABASE_UNAVAILABLE 620",
                "122: calls have failed at the database for 120 s: database is locked; 700 calls failed: \
                 DATABASE_UNAVAILABLE 700",
                "130: calls no longer fail at the database, after 68.0 s; 700 calls failed: DATABASE_UNAVAILABLE 700",
            ]
        );
    }
}
