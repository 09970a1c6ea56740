//! Limits of namespaces hold exactly, and only in their own.

use futures_util::future::join_all;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;
use usersd::domain::scope::Scopes;
use usersd::pb::{
    CreateKeyRequest, CreateOrRestoreRequest, CreateRequest, DeleteSessionsRequest, ListRequest,
    LoginRequest, NamespaceLimits, UpdateNamespaceRequest,
};

use crate::namespaces::{create_namespace, limits, with_key};
use crate::support::{Backend, PASSWORD, Service, ada, assert_refused, from, nth, until};

crate::on_every_backend!(
    a_limit_of_users_is_exact_whoever_creates_at_the_same_time,
    users_in_the_trash_count,
    a_limit_of_sessions_is_exact_and_a_refused_log_in_is_no_failure,
    a_log_in_that_replaces_a_session_waits_with_nothing_locked_and_fits_at_the_limit,
    sessions_are_locked_before_their_total,
    a_limit_of_keys_is_exact,
    a_limit_of_calls_a_second_is_of_its_namespace,
    a_limit_of_the_settings_gives_way_to_one_of_the_namespace,
    without_a_limit_there_is_no_query,
);

/// Fails unless each answer is a success or names the limit; returns the successes.
#[track_caller]
fn accepted<T>(answers: Vec<Result<Response<T>, Status>>, limit: &str) -> usize {
    let accepted = answers.iter().filter(|answer| answer.is_ok()).count();
    for status in answers.into_iter().filter_map(Result::err) {
        assert_refused(&status, Code::ResourceExhausted, "QUOTA_EXCEEDED");
        assert_eq!(status.get_details_error_info().unwrap().metadata["limit"], limit, "{status:?}");
        let violations = status.get_details_quota_failure().unwrap().violations;
        assert_eq!(violations[0].subject, "shop");
    }
    accepted
}

/// A user whose creation needs no hash.
fn quick(name: String) -> CreateRequest {
    CreateRequest { username: name, sso_enabled: true, ..CreateRequest::default() }
}

async fn a_limit_of_users_is_exact_whoever_creates_at_the_same_time(service: &Service) {
    create_namespace(&service.replica, "shop", limits(Some(5), None)).await.unwrap();
    let another = service.another(|_| {}).await;
    let clients = [service.users(), another.users.clone()];
    let creation = |n: usize| {
        let mut users = clients[n % 2].clone();
        async move { users.create(from("shop", quick(format!("u{n}")))).await }
    };
    let answers = join_all((0..64).map(creation)).await;
    assert_eq!(accepted(answers, "max_users"), 5);
    assert_eq!(service.number("SELECT count(*) FROM users WHERE namespace = 'shop'").await, 5);
    // Nothing is left of the others, and a neighbour has no limit.
    assert_eq!(service.number("SELECT count(*) FROM events WHERE namespace = 'shop'").await, 5);
    for n in 0..7 {
        service.users().create(quick(format!("n{n}"))).await.unwrap();
    }
    let request = UpdateNamespaceRequest { name: "shop".into(), limits: Some(limits(Some(6), None)) };
    service.replica.namespaces().update_namespace(request).await.unwrap();
    service.users().create(from("shop", quick("another".into()))).await.unwrap();
}

async fn users_in_the_trash_count(service: &Service) {
    create_namespace(&service.replica, "shop", limits(Some(1), None)).await.unwrap();
    let user = service.users().create(from("shop", nth(1))).await.unwrap().into_inner().user.unwrap();
    let deletion = usersd::pb::DeleteRequest { id: user.id, ..Default::default() };
    service.users().delete(from("shop", deletion)).await.unwrap();
    let status = service.users().create(from("shop", nth(2))).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    // A restored user is no further one.
    let CreateRequest { email, password, .. } = nth(1);
    let restoring = CreateOrRestoreRequest { email, password, ..Default::default() };
    service.users().create_or_restore(from("shop", restoring)).await.unwrap();
    let CreateRequest { email, password, .. } = nth(2);
    let creating = CreateOrRestoreRequest { email, password, ..Default::default() };
    let status = service.users().create_or_restore(from("shop", creating)).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "QUOTA_EXCEEDED");
}

async fn a_limit_of_sessions_is_exact_and_a_refused_log_in_is_no_failure(service: &Service) {
    create_namespace(&service.replica, "shop", limits(None, Some(3))).await.unwrap();
    let another = service.another(|_| {}).await;
    let user = service.users().create(from("shop", ada())).await.unwrap().into_inner().user.unwrap();
    let clients = [service.users(), another.users.clone()];
    let login = |n: usize| {
        let mut users = clients[n % 2].clone();
        let request =
            LoginRequest { username: "ada".into(), password: PASSWORD.into(), ..Default::default() };
        async move { users.login(from("shop", request)).await }
    };
    let answers = join_all((0..64).map(login)).await;
    assert_eq!(accepted(answers, "max_sessions"), 3);
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 3);
    assert_eq!(service.number("SELECT count(*) FROM events WHERE action = 'LOGIN_REFUSED'").await, 0);
    let ending = DeleteSessionsRequest { user_id: user.id };
    service.users().delete_sessions(from("shop", ending)).await.unwrap();
    let answers = join_all((0..8).map(login)).await;
    assert_eq!(accepted(answers, "max_sessions"), 3);
}

fn replacing(session: &str) -> LoginRequest {
    LoginRequest {
        username: "ada".into(),
        password: PASSWORD.into(),
        replace_session: session.into(),
        ..LoginRequest::default()
    }
}

/// The order of the statements by what they lock first; every deadlock would need another order in one of two calls.
async fn a_log_in_that_replaces_a_session_waits_with_nothing_locked_and_fits_at_the_limit(service: &Service) {
    create_namespace(&service.replica, "shop", limits(None, Some(1))).await.unwrap();
    service.users().create(from("shop", ada())).await.unwrap();
    let login = async |session: &str| {
        service.users().login(from("shop", replacing(session))).await.map(|reply| {
            let session = reply.into_inner().session.unwrap();
            session.id
        })
    };
    let first = login("").await.unwrap();
    assert_refused(&login("").await.unwrap_err(), Code::ResourceExhausted, "QUOTA_EXCEEDED");
    *service.replica.statements.lock().unwrap() = Some(Vec::new());
    let second = login(&first).await.unwrap();
    let noted = service.replica.statements.lock().unwrap().take().unwrap();
    assert_ne!(first, second);
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 1);
    let position = |begin: &str| noted.iter().position(|statement| statement.sql.starts_with(begin));
    let deleted = position("DELETE FROM \"sessions\"").unwrap();
    if service.backend == Backend::Postgres {
        assert!(position("SELECT pg_advisory_xact_lock($1)").unwrap() < deleted);
    }
}

async fn sessions_are_locked_before_their_total(service: &Service) {
    let replica = service.another(|config| config.sessions.max_per_user = 2).await;
    let user = replica.users.clone().create(ada()).await.unwrap().into_inner().user.unwrap();
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let reply = service.users().login(replacing("")).await.unwrap();
        tokens.push(reply.into_inner().session.unwrap().id);
    }
    service.users().login(replacing("")).await.unwrap();
    let deletions = |noted: &[sea_orm::Statement]| {
        noted.iter().filter(|statement| statement.sql.starts_with("DELETE FROM \"sessions\"")).count()
    };
    // One session is replaced and one is too many.
    *replica.statements.lock().unwrap() = Some(Vec::new());
    replica.users.clone().login(replacing(&tokens[1])).await.unwrap();
    let noted = replica.statements.lock().unwrap().take().unwrap();
    assert_eq!(deletions(&noted), 1, "the total is locked before the rows of a second deletion");
    assert_eq!(service.number("SELECT count(*) FROM sessions").await, 2);
    assert_eq!(service.number("SELECT count(*) FROM events WHERE action = 'SESSION_DELETED'").await, 2);

    *replica.statements.lock().unwrap() = Some(Vec::new());
    let ending = DeleteSessionsRequest { user_id: user.id };
    let ended = replica.users.clone().delete_sessions(ending).await.unwrap();
    assert_eq!(ended.into_inner().deleted, 2);
    let noted = replica.statements.lock().unwrap().take().unwrap();
    assert_eq!(deletions(&noted), 1);
}

async fn a_limit_of_keys_is_exact(service: &Service) {
    let own = NamespaceLimits { max_keys: Some(4), ..NamespaceLimits::default() };
    create_namespace(&service.replica, "shop", own).await.unwrap();
    let (key, _) = service.key("shop", Scopes::ALL).await;
    let creation = |n: usize| {
        let mut keys = service.replica.keys_client();
        let request =
            CreateKeyRequest { name: format!("key {n}"), scopes: vec!["users.read".into()], expires: 0 };
        let request = with_key(&key, request);
        async move { keys.create(request).await }
    };
    let answers = join_all((0..16).map(creation)).await;
    assert_eq!(accepted(answers, "max_keys"), 3);
    assert_eq!(service.number("SELECT count(*) FROM keys WHERE namespace = 'shop'").await, 4);
}

async fn a_limit_of_calls_a_second_is_of_its_namespace(service: &Service) {
    let own = NamespaceLimits { max_calls_per_second: Some(1), ..NamespaceLimits::default() };
    create_namespace(&service.replica, "shop", own).await.unwrap();
    let list = |namespace: &'static str| {
        let mut users = service.users();
        async move { users.list(from(namespace, ListRequest::default())).await }
    };
    until(async || {
        let answers = join_all((0..16).map(|_| list("shop"))).await;
        let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
        let mut waits = refused.map(|status| status.get_details_retry_info().unwrap().retry_delay.unwrap());
        let told = waits.all(|wait| wait.as_millis() > 0);
        assert!(told);
        accepted(answers, "max_calls_per_second") < 16
    })
    .await;
    for answer in join_all((0..16).map(|_| list("default"))).await {
        answer.unwrap();
    }
}

async fn a_limit_of_the_settings_gives_way_to_one_of_the_namespace(service: &Service) {
    let replica = service.another(|config| config.namespaces.max_users = 2).await;
    create_namespace(&replica, "large", limits(Some(3), None)).await.unwrap();
    create_namespace(&replica, "free", limits(Some(0), None)).await.unwrap();
    for (namespace, most) in [("shop", 2), ("large", 3), ("free", 5)] {
        let mut created = 0;
        for n in 0..5 {
            created += i32::from(
                replica.users.clone().create(from(namespace, quick(format!("u{n}")))).await.is_ok(),
            );
        }
        assert_eq!(created, most, "{namespace}");
    }
}

async fn without_a_limit_there_is_no_query(service: &Service) {
    create_namespace(&service.replica, "shop", limits(Some(10), None)).await.unwrap();
    let statements = async |namespace: &str| {
        *service.replica.statements.lock().unwrap() = Some(Vec::new());
        service.users().create(from(namespace, quick("ada".into()))).await.unwrap();
        let noted = service.replica.statements.lock().unwrap().take().unwrap();
        let of_limits = |sql: &String| {
            sql.starts_with("SELECT CAST(COALESCE(SUM(") || sql == "SELECT pg_advisory_xact_lock($1)"
        };
        noted.into_iter().map(|statement| statement.sql).filter(of_limits).count()
    };
    assert_eq!(statements("default").await, 0);
    // Before the hash, and with the lock.
    assert_eq!(statements("shop").await, if service.backend == Backend::Postgres { 5 } else { 4 });
}
