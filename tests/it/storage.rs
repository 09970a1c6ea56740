//! What the databases must hold to.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use usersd::pb::{CreateRequest, DeleteRequest, UpdateRequest};

use crate::support::{Backend, Service, ada, create, login, nth};

crate::on_every_backend!(
    sqlite_is_set_up_to_lose_nothing_and_to_be_private,
    hot_reads_use_the_unique_indexes,
    old_events_go_and_new_ones_stay,
    users_long_in_the_trash_are_purged_and_their_events_forget_where_they_were,
    two_replicas_see_each_others_changes,
    migrations_are_applied_once,
);

async fn sqlite_is_set_up_to_lose_nothing_and_to_be_private(service: &Service) {
    if service.backend == Backend::Postgres {
        return;
    }
    // Without this every `LIMIT ?` is planned anew at each execution (see .cargo/config.toml).
    assert_eq!(service.number("SELECT sqlite_compileoption_used('ENABLE_QPSG')").await, 1);
    assert_eq!(service.number("SELECT synchronous FROM pragma_synchronous").await, 2);
    assert_eq!(service.number("SELECT foreign_keys FROM pragma_foreign_keys").await, 1);
    assert_eq!(service.number("SELECT journal_mode = 'wal' FROM pragma_journal_mode").await, 1);
    create(service, ada()).await;
    assert_eq!(service.files().len(), 3, "the file, its -wal and its -shm");
    for file in service.files() {
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            file.display()
        );
    }
}

async fn hot_reads_use_the_unique_indexes(service: &Service) {
    use sea_orm::{ConnectionTrait as _, DatabaseBackend, Statement};
    if service.backend == Backend::Postgres {
        return; // an empty table is scanned there whatever indexes it has
    }
    let plans = [
        ("namespace = ?1 AND id = ?2", "sqlite_autoindex_users_1"),
        ("namespace = ?1 AND deleted = 0 AND username = ?2 AND username <> ''", "users_"),
        ("namespace = ?1 AND deleted = 0 AND email = ?2 AND email <> ''", "users_email_live"),
    ];
    for (condition, index) in plans {
        let sql = format!("EXPLAIN QUERY PLAN SELECT * FROM users WHERE {condition}");
        let statement = Statement::from_string(DatabaseBackend::Sqlite, sql);
        let row = service.replica.store.reader().query_one_raw(statement).await.unwrap().unwrap();
        let plan: String = row.try_get("", "detail").unwrap();
        assert!(plan.starts_with("SEARCH users USING INDEX") && plan.contains(index), "{condition}: {plan}");
    }
}

async fn old_events_go_and_new_ones_stay(service: &Service) {
    for n in 0..3 {
        create(service, nth(n)).await;
    }
    service.clock.advance(Duration::from_hours(365 * 24 + 1));
    create(service, ada()).await;
    service.replica.ops.clean_up().await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM events").await, 1);
    assert_eq!(service.number("SELECT count(*) FROM users").await, 4);
    // Numbers are never given twice, also after the newest rows are gone.
    assert_eq!(service.number("SELECT max(seq) FROM events").await, 4);
}

async fn users_long_in_the_trash_are_purged_and_their_events_forget_where_they_were(service: &Service) {
    let (old, young) = (create(service, nth(1)).await, create(service, nth(2)).await);
    let delete = |id: &str| DeleteRequest { id: id.into(), ..DeleteRequest::default() };
    service.users().delete(delete(&old.id)).await.unwrap();
    service.clock.advance(Duration::from_hours(29 * 24));
    service.users().delete(delete(&young.id)).await.unwrap();
    service.clock.advance(Duration::from_hours(24));
    service.clock.advance(Duration::from_secs(1));

    service.replica.ops.clean_up().await.unwrap();

    assert_eq!(service.number("SELECT count(*) FROM users").await, 1);
    let of_old = format!("SELECT count(*) FROM events WHERE user_id = '{}'", old.id);
    assert_eq!(service.number(&of_old).await, 3);
    assert_eq!(
        service.number(&format!("{of_old} AND action = 'USER_PURGED' AND caller = 'usersd'")).await,
        1
    );
    assert_eq!(service.number(&format!("{of_old} AND (address <> '' OR user_agent <> '')")).await, 0);
    assert_eq!(service.number("SELECT count(*) FROM events WHERE address <> ''").await, 2);
    // Only now is the id free; the new user's etags never match those of the old one.
    let again = create(service, CreateRequest { id: old.id.clone(), ..nth(1) }).await;
    assert_ne!(again.etag, old.etag);
}

async fn two_replicas_see_each_others_changes(service: &Service) {
    let mut other = service.another(|_| {}).await;
    let user = create(service, ada()).await;
    let rename = UpdateRequest { id: user.id.clone(), name: Some("x".into()), ..UpdateRequest::default() };
    other.users.update(rename).await.unwrap();
    let session = login(service, "ada").await;
    other.users.delete(DeleteRequest { id: user.id, ..DeleteRequest::default() }).await.unwrap();
    let read = usersd::pb::ReadSessionRequest { session_id: session.id };
    service.users().read_session(read).await.unwrap_err();
}

async fn migrations_are_applied_once(service: &Service) {
    let steps = service.replica.store.migrations().await.unwrap();
    assert!(!steps.is_empty() && steps.iter().all(|step| step.applied));
    let secrets = "SELECT count(*) FROM secrets";
    assert_eq!(service.number(secrets).await, 2);
    service.replica.store.migrate().await.unwrap();
    assert_eq!(service.number(secrets).await, 2);
}
