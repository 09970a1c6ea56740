//! Checks of a whole database: for `usersd doctor`, and of a backup that was just written.

mod peppers;

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use serde::Serialize;

use crate::domain::key::AllowedNamespaces;
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::error::{Result, with_causes};

use super::{Store, keys, totals};

/// Lines of one check that are shown.
const MAX_LINES: usize = 5;

/// A difference between two clocks that matters: it ends sessions early or late.
const MAX_DRIFT: Duration = Duration::from_secs(30);

/// The time before its expiry at which a key is named.
const EXPIRES_SOON: Duration = Duration::from_hours(14 * 24);

/// The time that deleting a namespace may take.
const MAX_DELETION: Duration = Duration::from_hours(24);

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Works, and should be looked at.
    Warning,
    /// Does not work, or loses data.
    Fault,
}

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The name of the check.
    pub check: &'static str,
    /// Its severity.
    pub grade: Grade,
    /// The finding in words.
    pub found: String,
    /// The remedy; empty where there is none to take.
    pub advice: String,
}

impl Finding {
    /// One that is as it should be.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, grade: Grade::Ok, found: found.into(), advice: String::new() }
    }

    /// One with a remedy.
    pub fn new(
        check: &'static str,
        grade: Grade,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { check, grade, found: found.into(), advice: advice.into() }
    }
}

impl Store {
    /// Runs every check of the database. Servers may run on it.
    pub async fn examine(&self, now: Timestamp) -> Result<Vec<Finding>> {
        let db = self.connection().await?;
        let mut findings = contents(&db).await;
        findings.push(keys_found(&db, now).await.unwrap_or_else(|error| unchecked("keys", &error)));
        findings.push(root_keys(&db, now).await.unwrap_or_else(|error| unchecked("root keys", &error)));
        findings
            .push(namespaces_found(&db, now).await.unwrap_or_else(|error| unchecked("namespaces", &error)));
        findings.push(clock(&db, now).await.unwrap_or_else(|error| unchecked("clock", &error)));
        db.close().await?;
        Ok(findings)
    }
}

/// Checks what the database holds.
pub(super) async fn contents(db: &impl ConnectionTrait) -> Vec<Finding> {
    vec![
        integrity(db).await.unwrap_or_else(|error| unchecked("integrity", &error.into())),
        totals_found(db).await.unwrap_or_else(|error| unchecked("totals", &error)),
        search_index(db).await.unwrap_or_else(|error| unchecked("search index", &error.into())),
    ]
}

fn unchecked(check: &'static str, error: &crate::error::Error) -> Finding {
    let found = format!("could not be checked: {}", with_causes(error));
    Finding::new(
        check,
        Grade::Fault,
        found,
        "fix the cause or restore a backup, and run `usersd doctor` again",
    )
}

async fn integrity(db: &impl ConnectionTrait) -> Result<Finding, DbErr> {
    if db.get_database_backend() == DbBackend::Postgres {
        return postgres_integrity(db).await;
    }
    let mut lines = texts(db, "PRAGMA integrity_check(5)").await?;
    lines.retain(|line| line != "ok");
    let orphans = "SELECT count(*) || ' rows of ' || \"table\" || ' belong to no row of ' || parent \
         FROM pragma_foreign_key_check GROUP BY \"table\", parent";
    lines.extend(texts(db, orphans).await?);
    if lines.is_empty() {
        return Ok(Finding::ok("integrity", "every page, row and reference of the file is sound"));
    }
    let advice = "stop the server, keep the file, restore the last backup; `sqlite3 FILE .recover` may save what came later";
    Ok(Finding::new("integrity", Grade::Fault, shown(&lines), advice))
}

async fn postgres_integrity(db: &impl ConnectionTrait) -> Result<Finding, DbErr> {
    let invalid = "SELECT 'index ' || indexrelid::regclass || ' is not valid' FROM pg_index i \
        JOIN pg_class t ON t.oid = i.indrelid \
        WHERE t.relnamespace = current_schema()::regnamespace AND NOT (indisvalid AND indisready)";
    let off = "SELECT 'trigger ' || tgname || ' of ' || tgrelid::regclass || ' is off' FROM pg_trigger g \
        JOIN pg_class t ON t.oid = g.tgrelid \
        WHERE t.relnamespace = current_schema()::regnamespace AND tgenabled = 'D'";
    let mut lines = texts(db, invalid).await?;
    lines.extend(texts(db, off).await?);
    if lines.is_empty() {
        return Ok(Finding::ok("integrity", "every index is valid, every trigger is on"));
    }
    let advice = "REINDEX INDEX CONCURRENTLY for an index, ALTER TABLE ... ENABLE TRIGGER for a trigger";
    Ok(Finding::new("integrity", Grade::Fault, shown(&lines), advice))
}

async fn totals_found(db: &impl ConnectionTrait) -> Result<Finding> {
    let (mut after, mut namespaces, mut wrong) = (String::new(), 0, Vec::new());
    while let Some(namespace) = totals::next_namespace(db, &after).await? {
        if totals::are_wrong(db, &namespace).await? {
            wrong.push(format!(
                "the totals of namespace {} differ from the numbers of its users and sessions",
                namespace.as_str()
            ));
        }
        namespaces += 1;
        namespace.as_str().clone_into(&mut after);
    }
    if wrong.is_empty() {
        return Ok(Finding::ok("totals", format!("right in {namespaces} namespaces")));
    }
    let advice = "a server counts again after its start and once a day: restart one";
    Ok(Finding::new("totals", Grade::Fault, shown(&wrong), advice))
}

/// Compares the search index with the users: each has one entry, and there are no others.
async fn search_index(db: &impl ConnectionTrait) -> Result<Finding, DbErr> {
    let (users, missing, stray) = match db.get_database_backend() {
        DbBackend::Sqlite => (
            "SELECT count(*) FROM users",
            "SELECT count(*) FROM users WHERE num NOT IN (SELECT id FROM users_search_docsize)",
            "SELECT count(*) FROM users_search_docsize WHERE id NOT IN (SELECT num FROM users)",
        ),
        _ => (
            "SELECT count(*) FROM users",
            "SELECT count(*) FROM users u WHERE NOT EXISTS \
             (SELECT FROM users_search s WHERE s.namespace = u.namespace AND s.id = u.id)",
            // A foreign key keeps these out.
            "SELECT CAST(0 AS BIGINT)",
        ),
    };
    let (users, missing, stray) =
        (number(db, users).await?, number(db, missing).await?, number(db, stray).await?);
    if (missing, stray) == (0, 0) {
        return Ok(Finding::ok("search index", format!("has all of {users} users")));
    }
    let found = format!("{missing} of {users} users are not in it, {stray} entries are of no user");
    let advice = "copy the database to a new one (`usersd copy`), which makes the index again";
    Ok(Finding::new("search index", Grade::Fault, found, advice))
}

async fn keys_found(db: &impl ConnectionTrait, now: Timestamp) -> Result<Finding> {
    if keys::version(db).await? == 0 {
        let advice = "programs of this machine need no key until there is one: `usersd key create`";
        return Ok(Finding::new("keys", Grade::Warning, "no key was ever created", advice));
    }
    let all = keys::all(db).await?;
    let (mut valid, mut expired, mut soon) = (0, 0, Vec::new());
    for (_, key) in &all {
        match key.expires {
            Some(at) if at <= now => expired += 1,
            Some(at) if at <= now.plus(EXPIRES_SOON) => {
                soon.push(format!(
                    "{} of {} ({}) expires soon",
                    key.id,
                    key.namespaces.as_str(),
                    key.name.as_str()
                ));
            }
            _ => valid += 1,
        }
    }
    let found = format!("{} are valid, {expired} have expired", valid + soon.len());
    if valid + soon.len() == 0 {
        let advice = "no program gets in but those with certificates: `usersd key create`";
        return Ok(Finding::new("keys", Grade::Warning, found, advice));
    }
    if soon.is_empty() {
        return Ok(Finding::ok("keys", found));
    }
    let advice = "create a key for each of their programs, change them over, and revoke these";
    Ok(Finding::new("keys", Grade::Warning, format!("{found}; {}", shown(&soon)), advice))
}

/// Counts the keys that can manage the keys of every namespace over the network.
async fn root_keys(db: &impl ConnectionTrait, now: Timestamp) -> Result<Finding> {
    let all = keys::all(db).await?;
    let root = all.iter().filter(|(_, key)| {
        let manages_all = key.namespaces == AllowedNamespaces::All && key.scopes.contains(Scope::KeysAdmin);
        manages_all && !key.has_expired(now)
    });
    let number = root.count();
    let found = format!("{number} can manage the keys of every namespace");
    if number > 0 {
        return Ok(Finding::ok("root keys", found));
    }
    let advice = "where that is to be done over the network: `usersd key create --namespace '*' --scopes keys.admin --name NAME`; \
                  on this machine `usersd key` needs none";
    Ok(Finding::new("root keys", Grade::Ok, found, advice))
}

/// Counts namespaces that were created, and looks for those whose deletion does not come to its end.
async fn namespaces_found(db: &impl ConnectionTrait, now: Timestamp) -> Result<Finding> {
    let count = async |condition: String| {
        number(db, &format!("SELECT COUNT(*) FROM namespaces WHERE state = {condition}")).await
    };
    let (created, deleting) = (count("1".to_owned()).await?, count("2".to_owned()).await?);
    let late = count(format!("2 AND deleted < {}", now.minus(MAX_DELETION).0)).await?;
    let found = format!("{created} were created, {deleting} are being deleted");
    if late == 0 {
        return Ok(Finding::ok("namespaces", found));
    }
    let found = format!("{found}, {late} of them for more than a day");
    let advice = "a running server removes their rows, and logs why it cannot; an old transaction of a server keeps the name taken";
    Ok(Finding::new("namespaces", Grade::Warning, found, advice))
}

/// Compares this machine's clock with the newest event's, and with that of PostgreSQL.
async fn clock(db: &impl ConnectionTrait, now: Timestamp) -> Result<Finding> {
    let newest = "SELECT CAST(COALESCE(MAX(at), 0) AS BIGINT) FROM events";
    let mut wrong = Vec::new();
    if Timestamp(number(db, newest).await?) > now.plus(MAX_DRIFT) {
        wrong.push("the newest event is in the future".to_owned());
    }
    if db.get_database_backend() == DbBackend::Postgres {
        let theirs =
            number(db, "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)").await?;
        let drift = Duration::from_micros(theirs.abs_diff(now.0));
        if drift > MAX_DRIFT {
            wrong.push(format!(
                "the clocks of this machine and of PostgreSQL differ by {} s",
                drift.as_secs()
            ));
        }
    }
    if wrong.is_empty() {
        return Ok(Finding::ok("clock", "agrees with the database"));
    }
    let advice =
        "set the clocks by NTP: sessions, keys and lock-outs end by them, and housekeeping removes by them";
    Ok(Finding::new("clock", Grade::Warning, shown(&wrong), advice))
}

fn shown(lines: &[String]) -> String {
    let more = lines.len().saturating_sub(MAX_LINES);
    let text = lines.iter().take(MAX_LINES).map(String::as_str).collect::<Vec<_>>().join("; ");
    if more > 0 { format!("{text}; and {more} more") } else { text }
}

async fn texts(db: &impl ConnectionTrait, sql: &str) -> Result<Vec<String>, DbErr> {
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// The one number that a statement returns.
pub(super) async fn number(db: &impl ConnectionTrait, sql: &str) -> Result<i64, DbErr> {
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
    row.ok_or_else(|| DbErr::Custom("a number has no row".to_owned()))?.try_get_by_index(0)
}
