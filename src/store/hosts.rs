//! The servers of a PostgreSQL database, and which of them is used.

use std::cmp::Reverse;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sea_orm::sqlx::{self, ConnectOptions as _, Executor as _};

use crate::domain::postgres_url;
use crate::error::tally::LogLimiter;

use super::connect::ConnectError;
use super::postgres::{SESSION, STANDBY};
use super::trust::Trust;

/// The server that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The one that takes writes.
    Primary,
    /// Any that answers.
    Any,
}

/// A server that the address names.
#[derive(Debug)]
struct Host {
    /// As the log names it.
    name: String,
    options: PgConnectOptions,
}

/// The servers of an address. Connections are opened to the one in use, which [`Hosts::find`] decides: the probe does so
/// whenever it needs a new connection, and nothing else does.
#[derive(Debug)]
pub(super) struct Hosts {
    role: Role,
    each: Vec<Host>,
    /// Held while all connections are moved to another one: connections to that one begin later.
    in_use: Mutex<usize>,
    /// The newest timeline of a server that was used. Each promotion begins one, so that a former primary, which may go on as
    /// if nothing had happened, has an older one.
    timeline: Mutex<Option<u32>>,
    /// The pools whose connections are opened to the server in use.
    pools: OnceLock<Vec<PgPool>>,
    trust: Arc<Trust>,
}

/// Limits the log line about a former primary.
static FORMER: LogLimiter = LogLimiter::after(1);

/// The time that the other servers have to answer before the first one is used: one of them may have been promoted since.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The time that a better server has to answer once another one has.
const OTHER_WAIT: Duration = Duration::from_millis(100);
const READ_ONLY_WAIT: Duration = Duration::from_millis(500);

/// A connection to a server that may be used.
struct Candidate {
    host: usize,
    connection: PgConnection,
    read_only: bool,
    /// 0 if it is not known.
    timeline: u32,
}

/// The timeline that a primary writes: the first digits of the name of the file that its log goes to.
const TIMELINE: &str =
    "SELECT CASE WHEN pg_is_in_recovery() THEN '' ELSE pg_walfile_name(pg_current_wal_lsn()) END";

/// Codes of a server that does not tell its timeline: `feature_not_supported`, `insufficient_privilege`, `undefined_function`.
const NOT_TOLD: [&str; 3] = ["0A000", "42501", "42883"];

impl Hosts {
    pub(super) fn parse(url: &str, role: Role, trust: &Arc<Trust>) -> Result<Self, ConnectError> {
        let mut each = Vec::new();
        for url in postgres_url::split_hosts(url).map_err(ConnectError::Open)? {
            let options = PgConnectOptions::from_str(&url).map_err(|error| ConnectError::from(&error))?;
            // We read no floating-point numbers, and PgBouncer refuses the parameter.
            let options = options.application_name("usersd").extra_float_digits(None);
            each.push(Host {
                name: postgres_url::server_name(&url),
                options: options.disable_statement_logging(),
            });
        }
        Ok(Self {
            role,
            each,
            in_use: Mutex::new(0),
            timeline: Mutex::default(),
            pools: OnceLock::new(),
            trust: Arc::clone(trust),
        })
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// Has the connections of `pools` opened to the server in use, from now on.
    pub(super) fn lead(&self, pools: Vec<PgPool>) {
        // Called once.
        self.pools.set(pools).unwrap_or_default();
    }

    /// How to connect to the server in use.
    pub(super) fn options(&self) -> PgConnectOptions {
        self.each[*self.in_use()].options.clone()
    }

    /// Connects to the server in use.
    pub(super) async fn connect(&self) -> Result<PgConnection, ConnectError> {
        let host = *self.in_use();
        Ok(self.open(host).await?.connection)
    }

    /// Connects to the first server that can be used, asking all at the same time, and has it used from now on.
    pub(super) async fn find(&self) -> Result<PgConnection, ConnectError> {
        let mut opening: FuturesUnordered<_> = (0..self.each.len()).map(|host| self.open(host)).collect();
        let (mut best, mut refusals) = (None::<Candidate>, Vec::new());
        loop {
            let patience = best.as_ref().map(|best| match self.newest_timeline() {
                None if self.has_timelines() => FIRST_WAIT,
                _ if best.read_only => READ_ONLY_WAIT,
                _ => OTHER_WAIT,
            });
            let next = match patience {
                Some(patience) => tokio::time::timeout(patience, opening.next()).await.unwrap_or_default(),
                None => opening.next().await,
            };
            match next {
                Some(Ok(candidate)) if self.is_best(&candidate) => return Ok(self.choose(candidate)),
                Some(Ok(candidate)) => {
                    if best.as_ref().is_none_or(|best| self.rank(&candidate) < self.rank(best)) {
                        best = Some(candidate);
                    }
                }
                Some(Err(refusal)) => refusals.push(refusal),
                None => return best.map(|best| self.choose(best)).ok_or_else(|| join(&refusals)),
            }
        }
    }

    /// The lower the better. One that is not to be written comes behind any that takes writes, one that was promoted before
    /// another comes behind that, and among equals the one in use comes first: to move gives up every call in flight.
    fn rank(&self, candidate: &Candidate) -> (bool, Reverse<u32>, bool) {
        (candidate.read_only, Reverse(candidate.timeline), candidate.host != *self.in_use())
    }

    /// Returns true if no other server can be better. Of primaries another one may have been promoted, also since this process
    /// last looked.
    fn is_best(&self, candidate: &Candidate) -> bool {
        !self.has_timelines() && !candidate.read_only && candidate.host == *self.in_use()
    }

    /// Returns true if there are primaries to be told apart.
    fn has_timelines(&self) -> bool {
        self.each.len() > 1 && self.role == Role::Primary
    }

    fn newest_timeline(&self) -> Option<u32> {
        *self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The timeline of a primary; 0 if it is not needed, or if the server does not tell, as some services of the cloud.
    async fn timeline(&self, connection: &mut PgConnection) -> Result<u32, sqlx::Error> {
        if !self.has_timelines() {
            return Ok(0);
        }
        match sqlx::query_scalar::<_, String>(TIMELINE).fetch_one(connection).await {
            Ok(file) => {
                let digits = file.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                Ok(digits.unwrap_or_default())
            }
            Err(sqlx::Error::Database(error))
                if error.code().is_some_and(|code| NOT_TOLD.contains(&&*code)) =>
            {
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// No code panics while it holds the lock.
    fn in_use(&self) -> MutexGuard<'_, usize> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self, host: usize) -> Result<Candidate, ConnectError> {
        let named = |why: String| {
            if self.each.len() > 1 { format!("{}: {why}", self.each[host].name) } else { why }
        };
        let opened = async {
            let mut connection = self.each[host].options.connect().await?;
            connection.execute(SESSION).await?;
            let state = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
            let row = connection.fetch_one(state).await?;
            let (standby, read_only): (bool, bool) =
                (sqlx::Row::try_get(&row, 0)?, sqlx::Row::try_get(&row, 1)?);
            let timeline = self.timeline(&mut connection).await?;
            Ok::<_, sqlx::Error>((standby, Candidate { host, connection, read_only, timeline }))
        };
        match opened.await {
            Ok((true, _)) if self.role == Role::Primary => {
                Err(ConnectError::Unreachable(named(STANDBY.to_owned())))
            }
            Ok((_, Candidate { timeline, .. })) if self.is_former(timeline) => {
                let newest = self.newest_timeline().unwrap_or_default();
                let why =
                    format!("a former primary (timeline {timeline}): another server was promoted ({newest})");
                let why = named(why);
                if FORMER.count().is_some() {
                    tracing::warn!("{why}; not used, since its writes would be lost");
                }
                Err(ConnectError::Unreachable(why))
            }
            Ok((_, candidate)) => {
                Ok(Candidate { read_only: candidate.read_only && self.role == Role::Primary, ..candidate })
            }
            Err(error) => Err(ConnectError::from(&error).map_why(named)),
        }
    }

    /// Returns true if a server of a newer timeline was used since the start.
    fn is_former(&self, timeline: u32) -> bool {
        self.newest_timeline().is_some_and(|newest| timeline < newest)
    }

    /// Uses the server of `candidate`. Connections to another one are given up: it is no longer the primary, or will not be.
    fn choose(&self, candidate: Candidate) -> PgConnection {
        let mut newest = self.timeline.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = newest.max(Some(candidate.timeline));
        drop(newest);
        let mut in_use = self.in_use();
        let before = std::mem::replace(&mut *in_use, candidate.host);
        if before != candidate.host {
            let host = &self.each[candidate.host];
            let pools = self.pools.get().map_or(&[][..], Vec::as_slice);
            for pool in pools {
                pool.set_connect_options(host.options.clone());
            }
            if !pools.is_empty() {
                tracing::warn!(
                    "the database is served by {} now, and no longer by {}",
                    host.name,
                    self.each[before].name
                );
                self.trust.note_move(&format!("it is served by {} now", host.name));
            }
        }
        candidate.connection
    }
}

/// One reason of several: that of a server which may come back, if there is one, leaves hope for all.
fn join(refusals: &[ConnectError]) -> ConnectError {
    let passes = refusals.iter().any(|refusal| matches!(refusal, ConnectError::Unreachable(_)));
    let why = refusals.iter().map(ConnectError::why).collect::<Vec<_>>().join("; ");
    if passes { ConnectError::Unreachable(why) } else { ConnectError::Open(why) }
}
