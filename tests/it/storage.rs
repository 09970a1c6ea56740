//! What the databases must hold to.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use usersd::pb::{CreateRequest, DeleteRequest, ListRequest, PurgeRequest, UpdateRequest};

use crate::support::{Backend, Service, ada, create, login, nth};

crate::on_every_backend!(
    sqlite_is_set_up_to_lose_nothing_and_to_be_private,
    old_events_go_and_new_ones_stay,
    users_long_in_the_trash_are_purged_and_their_events_lose_addresses,
    two_replicas_see_each_others_changes,
    migrations_are_applied_once,
    a_database_of_the_first_schema_keeps_everything,
    a_compacted_file_is_searched_as_before,
    search_index_segments_are_merged_in_time,
);

async fn sqlite_is_set_up_to_lose_nothing_and_to_be_private(service: &Service) {
    if service.backend == Backend::Postgres {
        return;
    }
    // Without this every `LIMIT ?` is planned again at each execution (see .cargo/config.toml).
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

async fn old_events_go_and_new_ones_stay(service: &Service) {
    for n in 0..3 {
        create(service, nth(n)).await;
    }
    service.clock.advance(Duration::from_hours(365 * 24 + 1));
    create(service, ada()).await;
    service.replica.ops.housekeep().await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM events").await, 1);
    assert_eq!(service.number("SELECT count(*) FROM users").await, 4);
    // Numbers are never given twice, also after the newest rows are gone.
    assert_eq!(service.number("SELECT max(seq) FROM events").await, 4);
}

async fn users_long_in_the_trash_are_purged_and_their_events_lose_addresses(service: &Service) {
    let (old, young) = (create(service, nth(1)).await, create(service, nth(2)).await);
    let delete = |id: &str| DeleteRequest { id: id.into(), ..DeleteRequest::default() };
    service.users().delete(delete(&old.id)).await.unwrap();
    service.clock.advance(Duration::from_hours(29 * 24));
    service.users().delete(delete(&young.id)).await.unwrap();
    service.clock.advance(Duration::from_hours(24));
    service.clock.advance(Duration::from_secs(1));

    service.replica.ops.housekeep().await.unwrap();

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
    let read = usersd::pb::ReadSessionRequest { session_id: session.id, max_age: None };
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

async fn a_database_of_the_first_schema_keeps_everything(service: &Service) {
    if service.backend == Backend::Sqlite {
        return; // where the table of users is created again, the migration's own test looks at more than this one
    }
    let user = create(service, ada()).await;
    service.users().delete(DeleteRequest { id: user.id.clone(), ..DeleteRequest::default() }).await.unwrap();
    let user = create(service, nth(1)).await;
    let first = "DROP TABLE users_search; ALTER TABLE events DROP COLUMN session; \
                 DROP INDEX users_by_created, users_by_updated, users_by_email, users_by_name, users_in_trash, \
                 users_in_trash_by_email; DELETE FROM seaql_migrations WHERE version LIKE '%000002%'";
    service.execute(first).await;
    service.replica.store.migrate().await.unwrap();
    let search = |search: &str| ListRequest { search: search.into(), ..ListRequest::default() };
    let found = service.users().list(search("user1@")).await.unwrap().into_inner();
    assert_eq!((found.users[0].id.as_str(), found.total), (user.id.as_str(), Some(1)));
    assert_eq!(service.users().list(search("ada@")).await.unwrap().into_inner().total, Some(0));
    assert_eq!(service.users().list_trash(search("ada@")).await.unwrap().into_inner().total, Some(1));
}

async fn a_compacted_file_is_searched_as_before(service: &Service) {
    let mut users = service.users();
    for n in 0..4 {
        let user = create(service, nth(n)).await;
        if n < 2 {
            users.delete(DeleteRequest { id: user.id.clone(), ..DeleteRequest::default() }).await.unwrap();
            users.purge(PurgeRequest { id: user.id, ..PurgeRequest::default() }).await.unwrap();
        }
    }
    service.execute("VACUUM").await;
    for n in 0..4 {
        let request = ListRequest { search: format!("user{n}"), ..ListRequest::default() };
        let found = users.list(request).await.unwrap().into_inner();
        let names: Vec<&str> = found.users.iter().map(|user| user.username.as_str()).collect();
        let name = format!("user{n}");
        assert_eq!(names, if n < 2 { vec![] } else { vec![name.as_str()] });
    }
    let index = match service.backend {
        Backend::Sqlite => "SELECT count(*) FROM users_search_docsize",
        Backend::Postgres => "SELECT count(*) FROM users_search",
    };
    assert_eq!(service.number(index).await, 2);
}

async fn search_index_segments_are_merged_in_time(service: &Service) {
    let (mut users, ops) = (service.users(), &service.replica.ops);
    let found = async |search: &str| {
        let request = ListRequest { search: search.into(), ..ListRequest::default() };
        service.users().list(request).await.unwrap().into_inner().total
    };
    let mut known = Vec::new();
    for round in 1..=2 {
        for n in 12 * (round - 1)..12 * round {
            known.push(create(service, nth(n)).await.id);
        }
        ops.merge_search_index().await.unwrap();
        assert!(service.search_segments().await <= 4);
        let everyone = i64::try_from(12 * round).ok();
        assert_eq!(found("example.com").await, everyone);
        // What changes from now on is seen at once, and what was is not found any more.
        let (id, name) = (known[0].clone(), Some(format!("Lovelace {round}")));
        users.update(UpdateRequest { id, name, ..UpdateRequest::default() }).await.unwrap();
        assert_eq!(found(&format!("lovelace {round}")).await, Some(1));
        ops.merge_search_index().await.unwrap();
        assert_eq!((found("lovelace").await, found(&format!("lovelace {round}")).await), (Some(1), Some(1)));
        assert_eq!(found("example.com").await, everyone);
    }
}
