//! Housekeeping and migrations beside other replicas.

use std::time::Duration;

use sea_orm::{ConnectOptions, ConnectionTrait as _, Database};
use usersd::store::SWEEP_LOCK;

use crate::support::{Backend, Service, ada, create, login};

crate::on_every_backend!(one_replica_sweeps_at_a_time, a_migration_waits_for_who_has_locked_a_user);

/// Replicas that wait for the end of another one's batch.
const WAITING: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

async fn one_replica_sweeps_at_a_time(service: &Service) {
    create(service, ada()).await;
    login(service, "ada").await;
    service.clock.advance(Duration::from_hours(8 * 24));
    // Another replica, in the middle of a batch.
    let mut options = ConnectOptions::new(service.url());
    options.max_connections(1);
    let other = Database::connect(options).await.unwrap();
    let begin = match service.backend {
        Backend::Sqlite => "BEGIN IMMEDIATE".to_owned(),
        Backend::Postgres => format!("BEGIN; SELECT pg_advisory_xact_lock({SWEEP_LOCK})"),
    };
    other.execute_unprepared(&begin).await.unwrap();

    let ops = service.replica.ops.clone();
    let sweep = tokio::spawn(async move { ops.clean_up().await });
    while service.backend == Backend::Postgres && service.number(WAITING).await == 0 {
        assert!(!sweep.is_finished(), "it did not wait");
        tokio::task::yield_now().await;
    }
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 1);

    other.execute_unprepared("COMMIT").await.unwrap();
    sweep.await.unwrap().unwrap();
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 0);
    other.close().await.unwrap();
}

async fn a_migration_waits_for_who_has_locked_a_user(service: &Service) {
    if service.backend == Backend::Sqlite {
        return;
    }
    create(service, ada()).await;
    service
        .execute("DROP TABLE assertion_keys; DELETE FROM seaql_migrations WHERE version LIKE '%_000016_%'")
        .await;
    let mut options = ConnectOptions::new(service.url());
    options.max_connections(1);
    let other = Database::connect(options).await.unwrap();
    other.execute_unprepared("BEGIN; SELECT id FROM users FOR UPDATE").await.unwrap();

    let store = service.replica.store.clone();
    let migration = tokio::spawn(async move { store.migrate().await });
    let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'users'::regclass AND NOT granted \
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while service.number(waiting).await == 0 {
        assert!(!migration.is_finished(), "it did not wait");
        tokio::task::yield_now().await;
    }
    // Who only reads does not wait.
    assert_eq!(service.number("SELECT count(*) FROM users").await, 1);
    other.execute_unprepared("COMMIT").await.unwrap();
    migration.await.unwrap().unwrap();
    other.close().await.unwrap();
}
