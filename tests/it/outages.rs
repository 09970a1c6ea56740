//! What the service does while its database does not answer, refuses writes, or cannot be asked for the keys;
//! and what housekeeping does by a clock that is wrong.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;
use usersd::domain::caller::Caller;
use usersd::domain::namespace::Namespace;
use usersd::domain::scope::Scopes;
use usersd::domain::time::Timestamp;
use usersd::ops::keys;
use usersd::pb::{CreateRequest, ReadRequest};
use usersd::store::{ConnectError, Store};

use crate::proxy::{Mode, Proxy};
use crate::steps::{delete, deletion, ids, log, purge};
use crate::support::{Backend, Replica, START, Service, ada, assert_refused, create, login, nth};

crate::on_every_backend!(
    a_silent_database_refuses_calls_at_once_and_shows_in_health,
    a_probe_that_waits_is_no_outage_while_calls_are_answered,
    a_database_that_refuses_connections_costs_no_caller_its_time,
    after_a_failed_commit_sqlite_is_not_ready_until_a_write_succeeds,
    keys_that_cannot_be_confirmed_are_unavailable_not_unknown,
    a_revoked_key_is_refused_while_others_hold_every_connection,
    nothing_is_removed_for_an_hour_after_the_clock_jumped,
    the_log_of_a_purged_user_is_cleared_in_batches_and_shows_nothing_meanwhile,
    a_file_that_cannot_be_the_database_is_refused_at_start,
);

/// What has to come comes in less; a fault test takes no longer.
const SOON: Duration = Duration::from_secs(10);

async fn until(what: &str, mut seen: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !seen().await {
        assert!(begun.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}

async fn health_of(replica: &Replica, service: &str) -> ServingStatus {
    let address = format!("http://{}", replica.address);
    let channel = Endpoint::try_from(address).unwrap().connect().await.unwrap();
    let asked = HealthCheckRequest { service: service.into() };
    HealthClient::new(channel).check(asked).await.unwrap().into_inner().status()
}

/// Waits until both services are as `ready` says, and the server is alive in any case.
async fn until_ready(replica: &Replica, ready: bool) -> Duration {
    let wanted = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    let took = until("readiness", async || health_of(replica, "users.Users").await == wanted).await;
    until("readiness of keys", async || health_of(replica, "users.Keys").await == wanted).await;
    assert_eq!(health_of(replica, "").await, ServingStatus::Serving);
    took
}

#[track_caller]
fn assert_unavailable(status: &Status) {
    assert_refused(status, Code::Unavailable, "DATABASE_UNAVAILABLE");
    assert!(status.get_details_retry_info().is_some(), "{status:?}");
}

async fn read(replica: &Replica) -> Result<(), Status> {
    replica
        .users
        .clone()
        .read(ReadRequest { username: "ada".into(), ..ReadRequest::default() })
        .await
        .map(drop)
}

/// F2, F3: the connections are open and nothing comes over them, as after a host was lost.
async fn a_silent_database_refuses_calls_at_once_and_shows_in_health(service: &Service) {
    if service.backend == Backend::Sqlite {
        return; // a file does not fall silent
    }
    create(service, ada()).await;
    let proxy = Proxy::to(service.url()).await;
    let replica = service.another(|config| config.database.clone_from(&proxy.url)).await;
    read(&replica).await.unwrap();
    until_ready(&replica, true).await;

    proxy.set(Mode::Silent);
    let begun = Instant::now();
    // In flight, and it would wait for as long as the connection stays open.
    assert_unavailable(&read(&replica).await.unwrap_err());
    let in_flight = begun.elapsed();
    let down = until_ready(&replica, false).await;
    let begun = Instant::now();
    for _ in 0..20 {
        assert_unavailable(&read(&replica).await.unwrap_err());
    }
    let (status, headers, _) = replica.request(Method::GET, "/v1/users/x", "", &[]).await;
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert!(begun.elapsed() < SOON / 2, "21 calls that could not be served took {:?}", begun.elapsed());

    proxy.set(Mode::Forward);
    let up = until_ready(&replica, true).await;
    until("a read", async || read(&replica).await.is_ok()).await;
    println!(
        "silent: 22 calls, 22 UNAVAILABLE, in flight {in_flight:?}, not ready {down:?} later, ready after {up:?}"
    );
}

/// F4: a pool tries on for as long as it may wait, though every connection is refused at once.
async fn a_probe_that_waits_is_no_outage_while_calls_are_answered(service: &Service) {
    if service.backend == Backend::Sqlite {
        return; // readers wait for nobody there
    }
    let mut options = ConnectOptions::new(service.url());
    options.max_connections(1);
    let other = Database::connect(options).await.unwrap();
    other.execute_unprepared("BEGIN; LOCK TABLE keys_version").await.unwrap();
    // The connection of the probe, a second one for its question, and one for its next question.
    let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'keys_version'::regclass AND NOT granted";
    let mut users = service.users();
    until("a second question", async || {
        let read = ReadRequest { id: "nobody".into(), ..ReadRequest::default() };
        assert_refused(&users.read(read).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
        service.number(waiting).await >= 3
    })
    .await;
    assert!(service.replica.store.health().answers());
    other.execute_unprepared("COMMIT").await.unwrap();
    other.close().await.unwrap();
}

async fn a_database_that_refuses_connections_costs_no_caller_its_time(service: &Service) {
    if service.backend == Backend::Sqlite {
        return; // there is nothing to connect to
    }
    create(service, ada()).await;
    let proxy = Proxy::to(service.url()).await;
    let replica = service.another(|config| config.database.clone_from(&proxy.url)).await;
    read(&replica).await.unwrap();
    for round in 0..2 {
        proxy.set(Mode::Refused);
        let down = until_ready(&replica, false).await;
        let begun = Instant::now();
        for _ in 0..20 {
            assert_unavailable(&read(&replica).await.unwrap_err());
        }
        assert!(begun.elapsed() < SOON / 2, "20 calls that could not be served took {:?}", begun.elapsed());
        proxy.set(Mode::Forward);
        let up = until_ready(&replica, true).await;
        until("a read", async || read(&replica).await.is_ok()).await;
        println!(
            "refused, round {round}: 20 calls, 20 UNAVAILABLE, not ready after {down:?}, ready after {up:?}"
        );
    }
}

async fn after_a_failed_commit_sqlite_is_not_ready_until_a_write_succeeds(service: &Service) {
    if service.backend == Backend::Postgres {
        return; // its own answers tell
    }
    create(service, ada()).await;
    let (replica, store) = (&service.replica, &service.replica.store);
    let state = store.health().subscribe();
    let tx = store.begin_as_server().await.unwrap();
    let unfounded =
        "PRAGMA defer_foreign_keys = ON; INSERT INTO familiar_places VALUES ('x', 'nobody', x'00', 1)";
    tx.execute_unprepared(unfounded).await.unwrap();
    tx.commit().await.unwrap_err();
    assert!(state.borrow().unwritable.is_some());
    until_ready(replica, true).await;

    // Another one, and nobody can write until the other program lets go.
    let other =
        Database::connect(ConnectOptions::new(service.url()).max_connections(1).to_owned()).await.unwrap();
    other.execute_unprepared("BEGIN IMMEDIATE").await.unwrap();
    store.health().note_commit_failure("database or disk is full");
    until_ready(replica, false).await;
    read(replica).await.unwrap();
    other.execute_unprepared("ROLLBACK").await.unwrap();
    until_ready(replica, true).await;
    create(service, nth(1)).await;
}

/// A call that a known key may not make: it takes no connection to say so.
async fn call_with(replica: &Replica, key: &str) -> Status {
    let mut request = Request::new(deletion("x"));
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    replica.users.clone().delete(request).await.unwrap_err()
}

fn reads() -> Scopes {
    Scopes::parse(["users.read"]).unwrap()
}

/// H4: a key that may have been revoked is not good, and one that may have been made meanwhile is not wrong.
async fn keys_that_cannot_be_confirmed_are_unavailable_not_unknown(service: &Service) {
    let (key, _) = service.key("default", reads()).await;
    let unknown = format!("usk_{}", "0".repeat(64));
    let replica = &service.replica;
    assert_refused(&call_with(replica, &key).await, Code::PermissionDenied, "SCOPE_MISSING");
    assert_refused(&call_with(replica, &unknown).await, Code::Unauthenticated, "KEY_MISSING_OR_UNKNOWN");
    service.execute("ALTER TABLE keys_version RENAME TO keys_version_away").await;
    until("keys are no longer trusted", async || {
        let status = call_with(replica, &key).await;
        assert_ne!(status.code(), Code::Unauthenticated);
        status.code() == Code::Unavailable
    })
    .await;
    assert_unavailable(&call_with(replica, &key).await);
    assert_unavailable(&call_with(replica, &unknown).await);
    service.execute("ALTER TABLE keys_version_away RENAME TO keys_version").await;
    until("keys are trusted", async || call_with(replica, &key).await.code() == Code::PermissionDenied).await;
    assert_refused(&call_with(replica, &unknown).await, Code::Unauthenticated, "KEY_MISSING_OR_UNKNOWN");
}

/// H4: flooding the server with a stolen key does not delay its revocation.
async fn a_revoked_key_is_refused_while_others_hold_every_connection(service: &Service) {
    let replica = service.another(|config| config.pool.connections = 4).await;
    let (key, id) = service.key("default", reads()).await;
    replica.keys.refresh().await.unwrap();
    assert_refused(&call_with(&replica, &key).await, Code::PermissionDenied, "SCOPE_MISSING");
    // Readers of many namespaces, none of which lets go.
    let mut held = Vec::new();
    for n in 0..100 {
        let caller = Caller::server(Namespace::parse(&format!("flood{n}")).unwrap());
        let reader = tokio::time::timeout(Duration::from_secs(1), replica.store.read(&caller)).await;
        let Ok(reader) = reader else { break };
        held.push(reader.unwrap());
    }
    assert!((1..100).contains(&held.len()), "{} readers at a time", held.len());
    keys::revoke(&service.replica.store, &service.clock, &id, false).await.unwrap();
    let took =
        until("the key is refused", async || call_with(&replica, &key).await.code() == Code::Unauthenticated)
            .await;
    println!("revoked: {} connections held, refused after {took:?}", held.len());
}

/// F9: a clock that is a year ahead makes everything old.
async fn nothing_is_removed_for_an_hour_after_the_clock_jumped(service: &Service) {
    let ops = &service.replica.ops;
    for n in 1..=2 {
        create(service, CreateRequest { id: n.to_string(), ..nth(n) }).await;
    }
    login(service, "user2").await;
    delete(service, "1").await;
    ops.housekeep().await.unwrap();
    let before = service.counts().await;
    let ahead = Timestamp((START + 400 * 86_400) * 1_000_000);
    service.clock.set(ahead);
    for _ in 0..3 {
        ops.housekeep().await.unwrap();
        service.clock.advance(Duration::from_mins(19));
    }
    // Nor by a process that was started since.
    service.another(|_| {}).await.ops.housekeep().await.unwrap();
    assert_eq!(service.counts().await, before);
    service.clock.set(Timestamp(START * 1_000_000));
    ops.housekeep().await.unwrap();
    assert_eq!(service.counts().await, before);
    // One that stays so is right.
    service.clock.set(ahead);
    ops.housekeep().await.unwrap();
    service.clock.advance(Duration::from_mins(61));
    ops.housekeep().await.unwrap();
    assert!(ids(service, true).await.is_empty());
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 0);
}

/// M4: one statement over all events of a user held SQLite's only writer for seconds, and ran into
/// PostgreSQL's limit for ever.
async fn the_log_of_a_purged_user_is_cleared_in_batches_and_shows_nothing_meanwhile(service: &Service) {
    let user = || CreateRequest { id: "x".into(), ..ada() };
    create(service, user()).await;
    let numbers = match service.backend {
        Backend::Sqlite => {
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3098) SELECT i FROM n"
        }
        Backend::Postgres => "SELECT generate_series(1, 3098)",
    };
    let many = format!(
        "INSERT INTO events (namespace, user_id, at, action, caller, address, user_agent, version, changed) \
         SELECT 'default', 'x', {START}000000, 'USER_UPDATED', 'open', '192.0.2.1', 'curl', 1, '[]' FROM ({numbers}) AS n"
    );
    service.execute(&many).await;
    delete(service, "x").await;
    let uncleared = "SELECT count(*) FROM events WHERE address = '192.0.2.1'";
    assert_eq!(service.number(uncleared).await, 3_098);

    purge(service, "x").await;
    // Five batches of 50 events, of which the first was made by its creation. The server's own housekeeping may make some more.
    let left = service.number(uncleared).await;
    assert!(left <= 3_098 - 249 && left % 50 == 49, "{left} are left");
    create(service, user()).await;
    let seen = log(service, "x").await;
    assert!(
        seen.len() > 600
            && seen
                .iter()
                .all(|entry| entry.device.as_ref().is_none_or(|device| device.address != "192.0.2.1"))
    );

    service.replica.ops.housekeep().await.unwrap();
    assert_eq!(service.number(uncleared).await, 0);
    assert_eq!(service.number("SELECT count(*) FROM purged").await, 0);
}

/// F5, F7, L18.
async fn a_file_that_cannot_be_the_database_is_refused_at_start(service: &Service) {
    if service.backend == Backend::Postgres {
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("empty.db");
    std::fs::write(&path, "").unwrap();
    let refused = Store::connect(&format!("sqlite://{}?mode=rw", path.display()), 2).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Empty(_)), "{refused}");
    Store::connect(&format!("sqlite://{}?mode=rwc", path.display()), 2).await.unwrap().close().await;

    let read_only = service.url().replace("mode=rwc", "mode=ro");
    let store = Store::connect(&read_only, 2).await.unwrap();
    let refused = store.check_writable().await.unwrap_err();
    assert!(matches!(refused, ConnectError::ReadOnly(_)), "{refused}");
    service.replica.store.check_writable().await.unwrap();

    let path = folder.path().join("slashes.db");
    let store = Store::connect(&format!("sqlite:///{}?mode=rwc", path.display()), 2).await.unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    store.close().await;
}
