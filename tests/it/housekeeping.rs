//! Housekeeping and migrations beside other replicas.

use std::time::Duration;

use sea_orm::{ConnectOptions, ConnectionTrait as _, Database};
use usersd::pb::CreateRequest;
use usersd::store::HOUSEKEEPING_LOCK;

use crate::steps::deletion;
use crate::support::{Backend, Service, ada, create, login, nth};

crate::on_every_backend!(
    one_replica_keeps_house_at_a_time,
    one_replica_purges_at_a_time,
    users_that_cannot_be_purged_hold_up_no_others,
    a_migration_waits_for_who_has_locked_a_user
);

/// Replicas that wait for the end of another one's batch.
const WAITING: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

async fn one_replica_keeps_house_at_a_time(service: &Service) {
    create(service, ada()).await;
    login(service, "ada").await;
    assert_waits_for_a_batch(service, 8, "SELECT count(*) FROM sessions").await;
}

async fn one_replica_purges_at_a_time(service: &Service) {
    let user = create(service, ada()).await;
    service.users().delete(deletion(&user.id)).await.unwrap();
    assert_waits_for_a_batch(service, 400, "SELECT count(*) FROM users").await;
}

/// Fails unless housekeeping removes the only row, which is due after `days`, once another replica has ended its batch and not before.
async fn assert_waits_for_a_batch(service: &Service, days: u64, rows: &str) {
    let mut options = ConnectOptions::new(service.url());
    options.max_connections(1);
    let other = Database::connect(options).await.unwrap();
    let begin = match service.backend {
        Backend::Sqlite => "BEGIN IMMEDIATE".to_owned(),
        Backend::Postgres => format!("BEGIN; SELECT pg_advisory_xact_lock({HOUSEKEEPING_LOCK})"),
    };
    other.execute_unprepared(&begin).await.unwrap();

    service.clock.advance(Duration::from_hours(days * 24));
    let ops = service.replica.ops.clone();
    let round = tokio::spawn(async move { ops.housekeep().await });
    while service.backend == Backend::Postgres && service.number(WAITING).await == 0 {
        assert!(!round.is_finished(), "it did not wait");
        tokio::task::yield_now().await;
    }
    assert_eq!(service.number(rows).await, 1);

    other.execute_unprepared("COMMIT").await.unwrap();
    round.await.unwrap().unwrap();
    assert_eq!(service.number(rows).await, 0);
    other.close().await.unwrap();
}

async fn users_that_cannot_be_purged_hold_up_no_others(service: &Service) {
    // More than are read at once, and the oldest.
    for n in 0..60 {
        let user = create(service, nth(n)).await;
        service.users().delete(deletion(&user.id)).await.unwrap();
        service.clock.advance(Duration::from_secs(1));
    }
    let last = create(service, CreateRequest { id: "last".to_owned(), ..ada() }).await;
    service.users().delete(deletion(&last.id)).await.unwrap();
    service
        .execute(match service.backend {
            Backend::Sqlite => {
                "CREATE TRIGGER obstacle BEFORE DELETE ON users WHEN OLD.id <> 'last' \
                 BEGIN SELECT RAISE(ABORT, 'no'); END"
            }
            Backend::Postgres => {
                "CREATE FUNCTION obstacle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; \
                 CREATE TRIGGER obstacle BEFORE DELETE ON users FOR EACH ROW WHEN (OLD.id <> 'last') \
                 EXECUTE FUNCTION obstacle()"
            }
        })
        .await;
    service.clock.advance(Duration::from_hours(400 * 24));
    service.replica.ops.housekeep().await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM users").await, 60);
    assert_eq!(service.number("SELECT count(*) FROM users WHERE id = 'last'").await, 0);
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
