//! The tail of the event log: what replicas learn from it where they cannot read every event in turn.

use std::time::Duration;

use sea_orm::{ConnectOptions, ConnectionTrait as _, Database};
use tonic::Code;
use usersd::pb::{ReadSessionRequest, UpdateRequest};

use crate::steps::by_id;
use crate::support::{Backend, Replica, START, Service, ada, create, login, nth, until};

crate::on_every_backend!(
    more_events_than_a_poll_looks_at_count_as_changes_of_everyone,
    a_gap_in_the_log_counts_as_a_change_of_everyone,
    a_long_transaction_holds_up_no_other_and_is_felt_at_its_commit,
);

/// A replica that answers from its cache for as long as a test takes: only events end that.
async fn lasting(service: &Service) -> Replica {
    service.another(|config| config.cache.max_age = Duration::from_hours(1)).await
}

/// The code of a read of the session.
async fn found(replica: &Replica, token: &str) -> Code {
    let request = ReadSessionRequest { session_id: token.into(), max_age: None };
    replica.users.clone().read_session(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

async fn until_ended(replica: &Replica, token: &str) {
    until(async || found(replica, token).await == Code::NotFound).await;
}

/// Waits until the replica answers without a statement about the session.
async fn until_cached(replica: &Replica, token: &str) {
    until(async || {
        *replica.statements.lock().unwrap() = Some(Vec::new());
        assert_eq!(found(replica, token).await, Code::Ok);
        let statements = replica.statements.lock().unwrap().take().unwrap();
        !statements.iter().any(|statement| statement.sql.contains("sessions"))
    })
    .await;
}

/// Statements that write events of somebody else, so many, in one transaction.
fn events(service: &Service, many: usize) -> String {
    let numbers = match service.backend {
        Backend::Sqlite => format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {many}) SELECT i FROM n"
        ),
        Backend::Postgres => format!("SELECT generate_series(1, {many})"),
    };
    format!(
        "INSERT INTO events (namespace, user_id, at, action, caller, address, user_agent, version, changed) \
         SELECT 'default', 'x', {START}000000, 'USER_UPDATED', 'open', '', '', 1, '[]' FROM ({numbers}) AS n"
    )
}

async fn more_events_than_a_poll_looks_at_count_as_changes_of_everyone(service: &Service) {
    let replica = lasting(service).await;
    create(service, ada()).await;
    let session = login(service, "ada").await;
    until_cached(&replica, &session.id).await;
    // By hand, so that no event tells of it.
    service.execute("DELETE FROM sessions").await;
    service.execute(&events(service, 10_001)).await;
    until_ended(&replica, &session.id).await;
}

async fn a_gap_in_the_log_counts_as_a_change_of_everyone(service: &Service) {
    let replica = lasting(service).await;
    create(service, ada()).await;
    let session = login(service, "ada").await;
    until_cached(&replica, &session.id).await;
    service.execute("DELETE FROM sessions").await;
    service
        .execute(match service.backend {
            // As if a backup took the place of the file.
            Backend::Sqlite => "UPDATE sqlite_sequence SET seq = 0 WHERE name = 'events'",
            // The next connection of the tail may be to another server.
            Backend::Postgres => {
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()"
            }
        })
        .await;
    until_ended(&replica, &session.id).await;
}

async fn a_long_transaction_holds_up_no_other_and_is_felt_at_its_commit(service: &Service) {
    // SQLite has one writer at a time.
    if service.backend == Backend::Sqlite {
        return;
    }
    let replica = lasting(service).await;
    create(service, ada()).await;
    let other = create(service, nth(1)).await;
    let session = login(service, "ada").await;
    until_cached(&replica, &session.id).await;
    replica.users.clone().read(by_id(&other.id)).await.unwrap();

    let mut options = ConnectOptions::new(service.url());
    options.max_connections(1);
    let long = Database::connect(options).await.unwrap();
    let ended = events(service, 1).replace("'x'", &format!("'{}'", session.user_id));
    long.execute_unprepared(&format!("BEGIN; {ended}; DELETE FROM sessions")).await.unwrap();

    let change = UpdateRequest { id: other.id.clone(), name: Some("Grace".into()), ..Default::default() };
    service.users().update(change).await.unwrap();
    until(async || {
        let read = replica.users.clone().read(by_id(&other.id)).await.unwrap();
        read.into_inner().user.unwrap().name == "Grace"
    })
    .await;
    assert_eq!(found(&replica, &session.id).await, Code::Ok);
    long.execute_unprepared("COMMIT").await.unwrap();
    until_ended(&replica, &session.id).await;
    long.close().await.unwrap();
}
