//! Errors of callers when the database fails, and the fate of its connections.

use std::pin::pin;

use http::{HeaderMap, Method, StatusCode};
use sea_orm::ConnectionTrait as _;
use serde_json::Value;
use usersd::domain::caller::Caller;
use usersd::domain::namespace::Namespace;
use usersd::pb::{CodeForm, CodePurpose, ConfirmEmailChangeRequest, CreateCodeRequest, UpdateRequest, User};
use usersd::store::Transaction;

use crate::codes;
use crate::support::{Backend, Replica, Service, ada, create, nth, until};

crate::on_every_backend!(
    a_database_that_takes_no_writes_is_unavailable_and_the_connection_is_replaced,
    a_statement_that_takes_too_long_does_not_ask_to_be_tried_again,
    nothing_is_committed_after_a_failed_statement,
    a_refused_constraint_keeps_its_connection_and_any_other_failure_closes_it,
    a_change_that_was_undone_to_end_a_deadlock_is_done_all_the_same,
    a_code_whose_use_was_undone_to_end_a_deadlock_is_used_all_the_same,
    a_statement_after_one_that_was_abandoned_is_refused,
);

/// A server with one connection that can write.
async fn single(service: &Service) -> Replica {
    service.another(|config| config.pool.connections = 1).await
}

async fn rename(replica: &Replica, user: &User, name: &str) -> (StatusCode, HeaderMap, Value) {
    let (path, body) = (format!("/v1/users/{}", user.id), format!(r#"{{"name":"{name}"}}"#));
    let headers = [("content-type", "application/json")];
    replica.request(Method::PATCH, &path, body, &headers).await
}

async fn begin(replica: &Replica) -> Transaction {
    replica.store.begin(&Caller::server(Namespace::default())).await.unwrap()
}

async fn a_database_that_takes_no_writes_is_unavailable_and_the_connection_is_replaced(service: &Service) {
    let user = create(service, ada()).await;
    let single = single(service).await;
    let refused = async || {
        let tx = begin(&single).await;
        // For good, for this connection: as if it led to a standby, or to a file that cannot be written.
        tx.execute_unprepared(match service.backend {
            Backend::Sqlite => "PRAGMA query_only = ON",
            Backend::Postgres => "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        })
        .await
        .unwrap();
        tx.commit().await.unwrap();
        rename(&single, &user, "first").await
    };
    let (mut status, mut headers, mut answer) = refused().await;
    for _ in 0..10 {
        if status == StatusCode::OK {
            // A transaction of housekeeping came before us and had the connection replaced.
            (status, headers, answer) = refused().await;
        }
    }
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    assert!(answer.to_string().contains("DATABASE_UNAVAILABLE"), "{answer}");
    assert_eq!(headers["retry-after"], "1");

    let (status, _, answer) = rename(&single, &user, "second").await;
    assert_eq!((status, &answer["user"]["name"]), (StatusCode::OK, &"second".into()), "{answer}");
}

async fn a_statement_that_takes_too_long_does_not_ask_to_be_tried_again(service: &Service) {
    if service.backend == Backend::Sqlite {
        return; // has no limit of its own for statements
    }
    let user = create(service, ada()).await;
    let single = single(service).await;
    let tx = begin(&single).await;
    tx.execute_unprepared("SET statement_timeout = '100ms'").await.unwrap();
    tx.commit().await.unwrap();
    let lock = begin(&service.replica).await;
    lock.execute_unprepared("UPDATE users SET version = version").await.unwrap();

    let (status, headers, answer) = rename(&single, &user, "late").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    assert!(answer.to_string().contains("DATABASE_UNAVAILABLE"), "{answer}");
    assert!(!headers.contains_key("retry-after"), "{headers:?}");
}

async fn nothing_is_committed_after_a_failed_statement(service: &Service) {
    create(service, ada()).await;
    let tx = begin(&service.replica).await;
    tx.execute_unprepared("UPDATE users SET name = 'lost'").await.unwrap();
    tx.execute_unprepared("INSERT INTO users SELECT * FROM users").await.unwrap_err();
    tx.commit().await.unwrap_err();
    assert_eq!(service.number("SELECT count(*) FROM users WHERE name = 'lost'").await, 0);
}

async fn a_refused_constraint_keeps_its_connection_and_any_other_failure_closes_it(service: &Service) {
    create(service, ada()).await;
    let single = single(service).await;
    let tx = begin(&single).await;
    tx.execute_unprepared("CREATE TEMPORARY TABLE mark (x INT)").await.unwrap();
    tx.commit().await.unwrap();
    let marked = async || begin(&single).await.execute_unprepared("SELECT * FROM mark").await.is_ok();

    let refused = begin(&single).await;
    refused.execute_unprepared("INSERT INTO users SELECT * FROM users").await.unwrap_err();
    drop(refused);
    assert!(marked().await, "the connection has gone");

    let broken = begin(&single).await;
    broken.execute_unprepared("no statement").await.unwrap_err();
    drop(broken);
    assert!(!marked().await, "the connection is still there");
}

async fn a_change_that_was_undone_to_end_a_deadlock_is_done_all_the_same(service: &Service) {
    let mine = create(service, nth(1)).await;
    let mut users = service.users();
    let request =
        UpdateRequest { id: mine.id.clone(), username: Some("wanted".into()), ..UpdateRequest::default() };
    let change = async move { users.update(request).await.unwrap().into_inner().user.unwrap() };
    let changed = against_a_rival(service, &mine.id, "username = 'wanted'", change).await;
    assert_eq!(changed.username, "wanted");
}

async fn a_code_whose_use_was_undone_to_end_a_deadlock_is_used_all_the_same(service: &Service) {
    let mine = create(service, nth(1)).await;
    let asking = CreateCodeRequest {
        id: mine.id.clone(),
        email: String::new(),
        form: CodeForm::Digits.into(),
        ..codes::asking(CodePurpose::EmailChange)
    };
    let code = codes::code(service, asking).await;
    let mut users = service.users();
    let request = ConfirmEmailChangeRequest { code, id: mine.id.clone(), ..Default::default() };
    let change = async move { users.confirm_email_change(request).await.unwrap().into_inner().user.unwrap() };
    let address = format!("email = '{}'", codes::NEW_EMAIL);
    let changed = against_a_rival(service, &mine.id, &address, change).await;
    assert_eq!(changed.email, codes::NEW_EMAIL);
}

/// Has a `change` of `mine` wait for a transaction that has taken a name and then waits for `mine`.
async fn against_a_rival(
    service: &Service,
    mine: &str,
    name: &str,
    change: impl Future<Output = User> + Send + 'static,
) -> User {
    if service.backend == Backend::Sqlite {
        return change.await; // has one writer at a time
    }
    let other = create(service, nth(2)).await;
    let rival = begin(&service.replica).await;
    let take = format!("UPDATE users SET {name} WHERE id = '{}'", other.id);
    rival.execute_unprepared(&take).await.unwrap();
    let change = tokio::spawn(change);
    // It waits whether the rival keeps the name ...
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until(async || service.number(waiting).await == 1).await;
    // ... who then waits for the user that it holds: after a second PostgreSQL ends one of the two, the first
    // to wait. (On a machine so slow that the rival began to wait only after that second, it is the rival.)
    let wait = format!("UPDATE users SET version = version WHERE id = '{mine}'");
    let _ = rival.execute_unprepared(&wait).await;
    drop(rival);
    change.await.unwrap()
}

async fn a_statement_after_one_that_was_abandoned_is_refused(service: &Service) {
    if service.backend == Backend::Sqlite {
        return; // has no statement that waits within a transaction
    }
    create(service, ada()).await;
    let lock = begin(&service.replica).await;
    lock.execute_unprepared("UPDATE users SET version = version").await.unwrap();
    let tx = begin(&service.replica).await;
    {
        let abandoned = pin!(tx.execute_unprepared("UPDATE users SET name = 'abandoned'"));
        assert!(futures_util::poll!(abandoned).is_pending(), "the lock is held");
    }
    drop(lock);
    tx.execute_unprepared("UPDATE users SET name = 'next'").await.unwrap_err();
    tx.commit().await.unwrap_err();
    let written = begin(&service.replica).await;
    written.execute_unprepared("UPDATE users SET name = name || 'x'").await.unwrap();
    written.commit().await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM users WHERE name = 'x'").await, 1);
}
